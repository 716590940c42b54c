//! Makes text of strangers harmless, so that a mail can't act on its reader or its reader's programs.
//!
//! * Control characters, bidirectional and invisible ones, and stacks of combining marks are shown as `\u{1b}`. So no
//!   escape sequence reaches a terminal, no line ends early, and no text looks like another.
//! * Text that a spreadsheet would take for a formula begins with `'`.
//! * Addresses are broken, as in `https[:]//example[.]org`, because mail programs turn them into links.
//! * Every text is cut at a maximum length.
//!
//! The templates escape HTML, and the builder of messages encodes headers.

use unicode_width::UnicodeWidthChar;

/// The longest name (of a customer, plan or source), in characters.
pub(crate) const NAME: usize = 60;
/// The longest value of a signal (a route or user agent), in characters.
pub(crate) const VALUE: usize = 120;
/// The longest reason, in characters.
pub(crate) const REASON: usize = 300;
/// The most combining marks on one character.
const MARKS: usize = 2;

/// Returns a harmless line of at most `longest` characters.
pub(crate) fn line(text: &str, longest: usize) -> String {
    let mut out = String::with_capacity(text.len().min(4 * longest));
    let (mut left, mut marks) = (longest, 0);
    let text = text.trim();
    for (i, c) in text.char_indices() {
        marks = if c.width() == Some(0) { marks + 1 } else { 0 };
        let shown = match c {
            _ if acts(c) || marks > MARKS => c.escape_unicode().to_string(),
            ':' if text[i + 1..].starts_with("//") => "[:]".to_owned(),
            _ if c.is_whitespace() && out.ends_with(' ') => continue,
            _ if c.is_whitespace() => " ".to_owned(),
            _ => c.to_string(),
        };
        let formula = out.is_empty() && begins_formula(c);
        let long = shown.chars().count() + usize::from(formula);
        if long > left {
            out.push('…');
            return out;
        }
        left -= long;
        if formula {
            out.push('\'');
        }
        out.push_str(&shown);
    }
    out
}

/// Does the same as [`line()`], and also breaks names of hosts.
pub(crate) fn foreign(text: &str, longest: usize) -> String {
    let text: Vec<char> = line(text, longest).chars().collect();
    let mut out = String::with_capacity(text.len() + 8);
    for (i, &c) in text.iter().enumerate() {
        let before = i.checked_sub(1).and_then(|i| text.get(i));
        let after = |n: usize| text.get(i + n);
        match c {
            // The last part of a host's name has two letters or more; `2.31` is a version.
            '.' if before.is_some_and(|c| c.is_alphanumeric())
                && [1, 2].iter().all(|&n| after(n).is_some_and(|c| c.is_alphabetic())) =>
            {
                out.push_str("[.]");
            }
            _ => out.push(c),
        }
    }
    out
}

/// Returns whether a spreadsheet may take a cell that begins with `c` for a formula.
#[must_use]
pub fn begins_formula(c: char) -> bool {
    matches!(c, '=' | '+' | '-' | '@' | '\u{ff1d}' | '\u{ff0b}' | '\u{ff0d}' | '\u{ff20}')
}

/// Returns whether a character acts instead of being shown: control, invisible and bidirectional characters do.
#[must_use]
pub fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            // Private use and noncharacters; then musical controls, tags and the private planes.
            | '\u{e000}'..='\u{f8ff}' | '\u{fdd0}'..='\u{fdef}' | '\u{fffe}' | '\u{ffff}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{10ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_is_shown_as_its_number() {
        assert_eq!(line("a\r\nBcc: x@example.com", 60), "a\\u{d}\\u{a}Bcc: x@example.com");
        assert_eq!(line("\u{1b}[31mred\u{7}\u{9b}", 60), "\\u{1b}[31mred\\u{7}\\u{9b}");
        assert_eq!(line("abc\u{202e}fdp.exe", 60), "abc\\u{202e}fdp.exe");
        assert_eq!(line("a\u{200b}b\u{feff}", 60), "a\\u{200b}b\\u{feff}");
        assert_eq!(line("e\u{301}\u{301}\u{301}\u{301}", 60), "e\u{301}\u{301}\\u{301}\\u{301}");
        assert_eq!(line("  왕복  여행 \u{a0} 사 ", 60), "왕복 여행 사");
    }

    #[test]
    fn formulas_are_text() {
        for text in ["=HYPERLINK(1)", "+1", "-2+3", "@SUM(A1)", " =1", "\u{ff1d}1"] {
            assert!(line(text, 60).starts_with('\''), "{text}");
        }
    }

    #[test]
    fn text_is_cut_at_its_length_and_says_so() {
        assert_eq!(line("abcdef", 6), "abcdef");
        assert_eq!(line("abcdefg", 6), "abcdef…");
        assert_eq!(line("abc\u{1b}", 6), "abc…");
        assert_eq!(line("a=1", 2), "a=…");
    }

    #[test]
    fn addresses_of_strangers_lead_nowhere() {
        assert_eq!(line("https://evil.example", 60), "https[:]//evil.example");
        assert_eq!(foreign("see https://evil.example/x", 60), "see https[:]//evil[.]example/x");
        assert_eq!(foreign("mail a@evil.co.kr", 60), "mail a@evil[.]co[.]kr");
        assert_eq!(foreign("python-requests/2.31.0", 60), "python-requests/2.31.0");
        assert_eq!(foreign("203.0.113.0/24", 60), "203.0.113.0/24");
    }
}
