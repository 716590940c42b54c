//! Formats numbers and texts for people. Widths are columns of a terminal, of which a Korean letter takes two.

use std::borrow::Cow;
use std::path::Path;

use keytide_alerts::email::acts;
use serde::Serialize;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Formats a number with commas between thousands.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats a latency with two to four digits and its unit.
pub(crate) fn latency(us: u64) -> String {
    match us {
        0..10_000 => format!("{}.{} ms", us / 1_000, us % 1_000 / 100),
        10_000..10_000_000 => format!("{} ms", us / 1_000),
        _ => format!("{}.{} s", us / 1_000_000, us % 1_000_000 / 100_000),
    }
}

/// Formats a time span, to a tenth of a second below a minute.
pub(crate) fn span(ms: u64) -> String {
    match ms {
        0..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        60_000..3_600_000 => format!("{} min", ms / 60_000),
        _ => format!("{} h {} min", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}

/// Formats a time span as minutes and seconds, with hours from one hour on.
pub(crate) fn stopwatch(ms: u64) -> String {
    let seconds = ms / 1_000;
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if hours > 0 {
        format!("{hours}:{minutes:02}:{seconds:02}")
    } else {
        format!("{minutes:02}:{seconds:02}")
    }
}

/// Formats the time of day in UTC.
pub(crate) fn clock(ms: u64) -> String {
    let seconds = ms / 1_000 % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// Formats a share of a thousand in percent.
pub(crate) fn percent(permille: u64) -> String {
    format!("{}.{} %", permille / 10, permille % 10)
}

/// Formats the share of a part in percent, with a decimal below 10 %.
pub(crate) fn share(part: u64, whole: u64) -> String {
    let permille = u128::from(part) * 1_000 / u128::from(whole.max(1));
    match permille {
        0 if part > 0 => "< 0.1 %".to_owned(),
        0..100 => format!("{}.{} %", permille / 10, permille % 10),
        _ => format!("{} %", permille / 10),
    }
}

/// Formats a number of bytes with its unit.
pub(crate) fn bytes(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..1_000_000 => format!("{} KiB", bytes >> 10),
        _ => format!("{}.{} MiB", bytes >> 20, ((bytes * 10) >> 20) % 10),
    }
}

/// Formats a length of time with its largest units: `45 min`, `3 h 20 min`, `5 d`.
pub(crate) fn length(ms: u64) -> String {
    let (days, hours, minutes) = (ms / 86_400_000, ms / 3_600_000 % 24, ms / 60_000 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{} s", ms / 1_000),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, 0) => format!("{hours} h"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, 0, _) => format!("{days} d"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// Returns a count with its noun, which is the plural unless the count is 1.
pub(crate) fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(count), if count == 1 { one } else { many })
}

/// Returns the columns that a text takes.
pub(crate) fn width(text: &str) -> usize {
    text.width()
}

/// Cuts a text to `width` columns, the last of which is an ellipsis.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut short = String::new();
    let mut left = width.saturating_sub(1);
    for c in text.chars() {
        let columns = c.width().unwrap_or(0);
        if columns > left {
            break;
        }
        left -= columns;
        short.push(c);
    }
    short.push('…');
    short
}

/// Returns a text of strangers as one line that doesn't act on a terminal.
pub(crate) fn harmless(text: &str) -> Cow<'_, str> {
    if !text.chars().any(acts) {
        return Cow::Borrowed(text);
    }
    let shown = |c: char| if acts(c) { c.escape_unicode().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(shown).collect())
}

/// Columns of a key, at most.
pub(crate) const KEY: usize = 16;

/// Returns the first eight digits of a key id, or the name of a key that isn't a hash.
pub(crate) fn shown_key(key: &str) -> String {
    match key.len() == 32 && key.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => short_id(key),
        false => cut(&harmless(key), KEY),
    }
}

/// Returns the first eight digits of an id, by which `keytide incident` finds it.
pub(crate) fn short_id(id: &str) -> String {
    id.chars().take(8).collect()
}

/// Returns an RFC 3339 time to the minute: `2025-06-02 08:00`.
pub(crate) fn minute(time: &str) -> String {
    time.chars().take(16).map(|c| if c == 'T' { ' ' } else { c }).collect()
}

/// Formats a value as JSON on several lines. What would act on a terminal is escaped.
///
/// # Errors
/// If the value can't be JSON.
pub(crate) fn json(value: &impl Serialize) -> serde_json::Result<String> {
    let text = serde_json::to_string_pretty(value)?;
    let mut out = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        // Outside of strings the only one is the end of a line, and within them it is escaped already.
        if c != '\n' && acts(c) {
            let mut units = [0; 2];
            c.encode_utf16(&mut units).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
        } else {
            out.push(c);
        }
    }
    out.push('\n');
    Ok(out)
}

/// Returns a path as one word of a shell.
pub(crate) fn shell_word(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = |c: char| c.is_alphanumeric() || "._/-:@%+,=".contains(c);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.into_owned(),
        false => format!("'{}'", harmless(&text).replace('\'', r"'\''")),
    }
}

/// Breaks a text into lines of at most `width` columns, between words. A word that is too long is broken anywhere.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let (mut lines, mut line) = (Vec::new(), String::new());
    // A number and its percent sign are one word.
    let text = text.replace(" %", "\u{a0}%");
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        if !line.is_empty() && line.width() + 1 + word.width() > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        for c in word.chars() {
            if !line.is_empty() && line.width() + c.width().unwrap_or(0) > width {
                lines.push(std::mem::take(&mut line));
            }
            line.push(if c == '\u{a0}' { ' ' } else { c });
        }
    }
    if !line.is_empty() || lines.is_empty() {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_have_their_units() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 9_949, 12_900, 10_500_000].map(latency), ["0.0 ms", "9.9 ms", "12 ms", "10.5 s"]);
        assert_eq!([5_940, 840_000, 7_260_000].map(span), ["5.9 s", "14 min", "2 h 1 min"]);
        assert_eq!([59_999, 3_723_000].map(stopwatch), ["00:59", "1:02:03"]);
        assert_eq!(clock(1_748_851_205_999), "08:00:05");
        assert_eq!([0, 5, 1_000].map(percent), ["0.0 %", "0.5 %", "100.0 %"]);
        assert_eq!([0, 1, 45, 570].map(|part| share(part, 1_000)), ["0.0 %", "0.1 %", "4.5 %", "57 %"]);
        assert_eq!((share(1, 1_000_000), share(0, 0)), ("< 0.1 %".to_owned(), "0.0 %".to_owned()));
        assert_eq!([1_000, 20_480, 2_412_000].map(bytes), ["1000 B", "20 KiB", "2.3 MiB"]);
        assert_eq!(cut("Ember Motors 12", 8), "Ember M…");
        assert_eq!(
            [900, 2_700_000, 10_800_000, 12_060_000].map(length),
            ["0 s", "45 min", "3 h", "3 h 21 min"]
        );
        assert_eq!([86_400_000, 180_000_000].map(length), ["1 d", "2 d 2 h"]);
        assert_eq!([1, 2_000].map(|count| counted(count, "key", "keys")), ["1 key", "2,000 keys"]);
    }

    #[test]
    fn texts_of_strangers_are_cut_by_columns_and_do_not_act() {
        assert_eq!((cut("한국어 이름", 6), width("한국어 이름")), ("한국…".to_owned(), 11));
        assert_eq!(harmless("a\u{1b}[2Jb\n\u{202e}"), "a\\u{1b}[2Jb\\u{a}\\u{202e}");
        assert_eq!(harmless("plain"), "plain");
        let text = json(&["a\u{202e}b\n\u{e0001}"]).unwrap();
        assert_eq!(text, "[\n  \"a\\u202eb\\n\\udb40\\udc01\"\n]\n");
        assert_eq!(serde_json::from_str::<[String; 1]>(&text).unwrap(), ["a\u{202e}b\n\u{e0001}"]);
        assert_eq!(
            ["out/a", "a b", "it's", ""].map(|path| shell_word(Path::new(path))),
            ["out/a", "'a b'", r"'it'\''s'", "''"]
        );
    }

    #[test]
    fn lines_break_between_words_and_within_a_word_only_if_it_is_too_long() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("  a   b ", 10), ["a b"]);
        assert_eq!(wrap("abcdefgh ij", 3), ["abc", "def", "gh", "ij"]);
        assert_eq!(wrap("한국어", 4), ["한국", "어"]);
        assert_eq!(wrap("", 4), [""]);
        assert_eq!(wrap("all, 99 % of it", 8), ["all,", "99 % of", "it"]);
    }
}
