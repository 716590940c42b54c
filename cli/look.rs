//! The terminal that results are shown on: its width, its colours and its letters.

use std::io::{self, IsTerminal as _};

use console::Term;

/// Columns where the terminal doesn't say how many it has.
const USUAL: usize = 80;
/// Columns that are used at least and at most: less can't be read, and more isn't.
const LEAST: usize = 30;
const MOST: usize = 110;

/// The terminal on standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// Columns of a line, at most.
    pub(crate) width: usize,
    pub(crate) colours: bool,
    /// False if the cursor can't be moved, so that no screen can be drawn.
    #[cfg_attr(not(feature = "top"), allow(dead_code, reason = "top alone draws a screen by it"))]
    pub(crate) has_cursor: bool,
    /// True if the locale has letters of ASCII only.
    pub(crate) ascii: bool,
}

impl Look {
    /// Returns the terminal; `None` if standard output is a file or a pipe.
    pub(crate) fn of_terminal() -> Option<Self> {
        if !io::stdout().is_terminal() {
            return None;
        }
        let columns = Term::stdout().size_checked().map_or(USUAL, |(_, columns)| usize::from(columns));
        Some(Self::new(columns, |name| std::env::var(name).ok()))
    }

    /// Returns the look by columns and environment variables.
    fn new(columns: usize, variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let is_dumb = set("TERM").is_none_or(|term| term == "dumb");
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set);
        Self {
            // A terminal that isn't set up says that it has no columns.
            width: if columns == 0 { USUAL } else { columns.clamp(LEAST, MOST) },
            has_cursor: !is_dumb,
            colours: !is_dumb && set("NO_COLOR").is_none(),
            ascii: locale.is_some_and(|locale| locale == "C" || locale == "POSIX"),
        }
    }

    /// Returns a plain look, for text that goes to a file or a pipe.
    pub(crate) fn plain() -> Self {
        Self { width: USUAL, colours: false, has_cursor: false, ascii: false }
    }

    /// Returns text as a heading.
    pub(crate) fn bold(self, text: &str) -> String {
        self.styled("1", text)
    }

    /// Returns text of an alarm.
    pub(crate) fn red(self, text: &str) -> String {
        self.styled("1;31", text)
    }

    fn styled(self, style: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Returns a finished text without letters that the locale doesn't have.
    pub(crate) fn letters(self, text: String) -> String {
        if !self.ascii || text.is_ascii() {
            return text;
        }
        let plain = |c: char| match c {
            '…' => '~',
            c if c.is_ascii() => c,
            _ => '?',
        };
        text.chars().map(plain).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(columns: usize, variables: &[(&str, &str)]) -> Look {
        let find =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, v)| (*v).to_owned());
        Look::new(columns, find)
    }

    #[test]
    fn a_terminal_has_colours_unless_it_is_dumb_or_the_user_wants_none() {
        let xterm = ("TERM", "xterm-256color");
        assert!(look(80, &[xterm]).colours);
        assert!(look(80, &[xterm, ("NO_COLOR", "")]).colours, "an empty variable counts as none");
        for variables in [&[xterm, ("NO_COLOR", "1")][..], &[("TERM", "dumb")], &[]] {
            assert!(!look(80, variables).colours, "{variables:?}");
        }
        assert!(
            look(80, &[xterm, ("NO_COLOR", "1")]).has_cursor && !look(80, &[("TERM", "dumb")]).has_cursor
        );
        assert_eq!(look(80, &[xterm]).red("x"), "\x1b[1;31mx\x1b[0m");
        assert_eq!(look(80, &[]).red("x"), "x");
    }

    #[test]
    fn widths_are_bounded_and_a_terminal_without_one_has_the_usual() {
        assert_eq!([0, 5, 40, 80, 400].map(|columns| look(columns, &[]).width), [80, 30, 40, 80, 110]);
    }

    #[test]
    fn the_first_variable_of_the_locale_that_is_set_counts() {
        let shown = |variables: &[(&str, &str)]| look(80, variables).letters("é…".to_owned());
        assert_eq!(shown(&[]), "é…");
        assert_eq!(shown(&[("LANG", "C")]), "?~");
        assert_eq!(shown(&[("LC_ALL", ""), ("LC_CTYPE", "POSIX"), ("LANG", "ko_KR.UTF-8")]), "?~");
        assert_eq!(shown(&[("LC_ALL", "C.UTF-8"), ("LANG", "C")]), "é…");
    }
}
