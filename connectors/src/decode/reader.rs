//! A pull reader over JSON text (RFC 8259): borrowed and linear in time, whatever callers put into a record.
//!
//! It differs from serde_json, which the rest of the job uses, in four ways:
//!
//! * Numbers keep their digits. An epoch in nanoseconds, or in milliseconds with a fraction, doesn't survive `f64`.
//! * Escapes of unread texts are never decoded.
//! * Unread values are skipped by their brackets and quotes alone, so neither their depth nor their size costs the
//!   record.
//! * A record that is refused can still be delimited, so its neighbours are read.
//!
//! Tests compare it with serde_json on arbitrary text. It takes these liberties, each because a gateway does:
//!
//! * A member may lack its value (`"upstream_time":,`), or its value may lack quotes (`-`, `nan`, `0.001, 0.002`).
//!   NGINX does so for empty variables, or those of several upstreams, if the template has no quotes.
//! * Escapes may be others than JSON's. `\xHH` is a byte, as NGINX writes it by default; any other stands for itself.
//! * Texts may hold control characters, but for line feeds, which end a record that is cut off.
//! * A comma may stand behind the last member, and a lone surrogate in an escape.
//! * The inside of a skipped value may be anything.
//!
//! No function of the reader is recursive.

use super::escape::unescape_json;
use super::value::FieldValue;

/// The first place at which a text isn't JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct JsonError {
    pub(super) expected: &'static str,
    /// An offset in bytes of the text.
    pub(super) at: usize,
}

impl JsonError {
    /// Returns the reason of the dead letter of a record that starts at byte `start` of the text.
    pub(super) fn reason(self, start: usize) -> String {
        format!("not JSON: expected {} at byte {}", self.expected, self.at.saturating_sub(start))
    }
}

/// Reads values one after the other.
#[derive(Clone)]
pub(super) struct JsonReader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> JsonReader<'a> {
    /// Returns a reader at the start of `text`. A byte order mark is skipped.
    pub(super) fn new(text: &'a str) -> Self {
        let at = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        Self { text, at }
    }

    /// The offset of the byte at which it stands.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Moves to another byte, forwards or backwards.
    pub(super) fn restart(&mut self, at: usize) {
        self.at = at;
    }

    /// The text from here up to another reader of the same text.
    pub(super) fn until(&self, other: &Self) -> &'a str {
        self.text[self.at..other.at].trim_ascii_start()
    }

    /// The first byte behind white space, which is skipped.
    #[inline]
    pub(super) fn token(&mut self) -> Option<u8> {
        match *self.text.as_bytes().get(self.at)? {
            // No white space stands above the blank: mostly there is none at all.
            token @ b'!'.. => Some(token),
            _ => self.token_behind_blanks(),
        }
    }

    fn token_behind_blanks(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        loop {
            match *bytes.get(self.at)? {
                b' ' | b'\n' | b'\r' | b'\t' => self.at += 1,
                token => return Some(token),
            }
        }
    }

    /// Enters the object at which the reader stands.
    #[inline]
    pub(super) fn enter_object(&mut self) -> Result<(), JsonError> {
        self.enter(b'{', "an object")
    }

    /// Enters the array at which the reader stands.
    #[inline]
    pub(super) fn enter_array(&mut self) -> Result<(), JsonError> {
        self.enter(b'[', "an array")
    }

    #[inline]
    fn enter(&mut self, bracket: u8, expected: &'static str) -> Result<(), JsonError> {
        if self.token() != Some(bracket) {
            return Err(self.expected(expected));
        }
        self.at += 1;
        Ok(())
    }

    /// Moves to the next member's name and returns whether there is one. If not, the reader stands behind the object.
    /// `first` is true at the call that follows [`enter_object`](Self::enter_object).
    #[inline]
    pub(super) fn member(&mut self, first: &mut bool) -> Result<bool, JsonError> {
        let mut token = self.token();
        match token {
            Some(b'}') => {
                self.at += 1;
                return Ok(false);
            }
            Some(b',') if !*first => {
                self.at += 1;
                token = self.token();
                if token == Some(b'}') {
                    self.at += 1;
                    return Ok(false);
                }
            }
            _ if !*first => return Err(self.expected("`,` or `}`")),
            _ => {}
        }
        *first = false;
        if token == Some(b'"') { Ok(true) } else { Err(self.expected("a member's name")) }
    }

    /// Reads a member's name and moves to its value.
    #[inline]
    pub(super) fn name(&mut self) -> Result<FieldValue<'a>, JsonError> {
        let name = self.string()?;
        if self.token() != Some(b':') {
            return Err(self.expected("`:`"));
        }
        self.at += 1;
        Ok(name)
    }

    /// Returns whether `text` stands here. If so, the reader moves behind it.
    #[inline]
    pub(super) fn skip_text(&mut self, text: &str) -> bool {
        let found = begins(&self.text.as_bytes()[self.at..], text.as_bytes());
        if found {
            self.at += text.len();
        }
        found
    }

    /// Moves to the next element and returns whether there is one. If not, the reader stands behind the array. `first`
    /// is true at the call that follows [`enter_array`](Self::enter_array).
    #[inline]
    pub(super) fn element(&mut self, first: &mut bool) -> Result<bool, JsonError> {
        match self.token() {
            Some(b']') => {
                self.at += 1;
                return Ok(false);
            }
            Some(b',') if !*first => {
                self.at += 1;
                self.token();
            }
            _ if !*first => return Err(self.expected("`,` or `]`")),
            _ => {}
        }
        *first = false;
        Ok(true)
    }

    /// Reads any value, to its end. Objects and arrays are skipped.
    #[inline]
    pub(super) fn value(&mut self) -> Result<FieldValue<'a>, JsonError> {
        let token = self.token();
        self.value_at(token)
    }

    /// Reads the value that begins with `token`, where the reader stands.
    #[inline]
    pub(super) fn value_at(&mut self, token: Option<u8>) -> Result<FieldValue<'a>, JsonError> {
        match token {
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'{') => self.pass_over().map(|_| FieldValue::Object),
            Some(b'[') => self.pass_over().map(FieldValue::Array),
            Some(b't') => self.word("true", FieldValue::Flag(true)),
            Some(b'f') => self.word("false", FieldValue::Flag(false)),
            Some(b'n') => self.word("null", FieldValue::Missing),
            _ => self.bare(self.at),
        }
    }

    /// Reads the array at which the reader stands, with every element of it.
    pub(super) fn array(&mut self) -> Result<FieldValue<'a>, JsonError> {
        let start = self.at;
        self.enter_array()?;
        let mut first = true;
        while self.element(&mut first)? {
            self.value()?;
        }
        Ok(FieldValue::Array(&self.text[start..self.at]))
    }

    /// Skips the object or the array at which the reader stands.
    fn pass_over(&mut self) -> Result<&'a str, JsonError> {
        let start = self.at;
        match delimit(self.text.as_bytes(), start) {
            Ok(end) => {
                self.at = end;
                Ok(&self.text[start..end])
            }
            Err(at) => {
                self.at = at;
                Err(self.expected("the value's closing bracket"))
            }
        }
    }

    /// Reads the object at which the reader stands. Returns the values of the named members, each with its offset. Of
    /// several members of one name the last counts.
    pub(super) fn members<const N: usize>(
        &mut self,
        names: [&str; N],
    ) -> Result<[(usize, FieldValue<'a>); N], JsonError> {
        let mut found = [(0, FieldValue::Missing); N];
        self.enter_object()?;
        let mut first = true;
        while self.member(&mut first)? {
            let name = match self.name()? {
                FieldValue::Plain(name) => names.iter().position(|wanted| *wanted == name),
                FieldValue::Json(escaped) => {
                    let mut name = String::new();
                    unescape_json(escaped, &mut name);
                    names.iter().position(|wanted| *wanted == name)
                }
                _ => None,
            };
            self.token();
            let at = self.at;
            let value = self.value()?;
            if let Some(index) = name {
                found[index] = (at, value);
            }
        }
        Ok(found)
    }

    /// The text at whose first quote the reader stands, if it has no escapes. Only then the reader moves behind it.
    pub(super) fn plain_text(&mut self) -> Option<&'a str> {
        let bytes = self.text.as_bytes();
        let start = self.at + 1;
        let mut at = special(bytes, start);
        // Control characters but line feeds are part of a text.
        while bytes.get(at).is_some_and(|byte| *byte < b' ' && *byte != b'\n') {
            at = special(bytes, at + 1);
        }
        if bytes.get(at) != Some(&b'"') {
            return None;
        }
        self.at = at + 1;
        Some(&self.text[start..at])
    }

    /// The digits at which the reader stands, with at most one point among them, if another member or the object's end
    /// follows. Only then the reader moves behind them.
    pub(super) fn plain_number(&mut self) -> Option<&'a str> {
        let bytes = self.text.as_bytes();
        let digits = |mut at: usize| {
            while bytes.get(at).is_some_and(u8::is_ascii_digit) {
                at += 1;
            }
            at
        };
        let start = self.at;
        let whole = digits(start);
        // No digit stands behind a leading zero.
        if whole == start || (whole > start + 1 && bytes[start] == b'0') {
            return None;
        }
        let mut end = whole;
        if bytes.get(whole) == Some(&b'.') {
            end = digits(whole + 1);
            if end == whole + 1 {
                return None;
            }
        }
        match (bytes.get(end), bytes.get(end + 1)) {
            (Some(b','), Some(b'"')) | (Some(b'}'), _) => {
                self.at = end;
                Some(&self.text[start..end])
            }
            _ => None,
        }
    }

    #[inline]
    pub(super) fn string(&mut self) -> Result<FieldValue<'a>, JsonError> {
        let bytes = self.text.as_bytes();
        let start = self.at + 1;
        let mut escaped = false;
        self.at = start;
        loop {
            self.at = special(bytes, self.at);
            match bytes.get(self.at) {
                Some(b'"') => break,
                // An escape is one character behind the backslash; its meaning is left to `escape`.
                Some(b'\\') if bytes.get(self.at + 1).is_some_and(|byte| *byte != b'\n') => {
                    escaped = true;
                    self.at += 2;
                }
                Some(b'\n' | b'\\') => {
                    return Err(self.expected("a text's closing quote before the line's end"));
                }
                Some(_) => self.at += 1,
                None => return Err(self.expected("a text's closing quote")),
            }
        }
        let text = &self.text[start..self.at];
        self.at += 1;
        Ok(if escaped { FieldValue::Json(text) } else { FieldValue::Plain(text) })
    }

    #[inline]
    fn number(&mut self) -> Result<FieldValue<'a>, JsonError> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        let mut at = start + usize::from(bytes[start] == b'-');
        let digits = |mut at: usize| {
            let start = at;
            while bytes.get(at).is_some_and(u8::is_ascii_digit) {
                at += 1;
            }
            (at > start).then_some(at)
        };
        let end = match bytes.get(at) {
            Some(b'0') => Some(at + 1),
            Some(b'1'..=b'9') => digits(at),
            _ => None,
        };
        let Some(end) = end else { return self.bare(start) };
        at = end;
        if bytes.get(at) == Some(&b'.') {
            let Some(end) = digits(at + 1) else { return self.bare(start) };
            at = end;
        }
        if let Some(b'e' | b'E') = bytes.get(at) {
            let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
            let Some(end) = digits(at + 1 + sign) else { return self.bare(start) };
            at = end;
        }
        match (bytes.get(at), bytes.get(at + 1)) {
            (Some(b','), Some(b'"')) | (Some(b'}' | b']'), _) => {}
            // A comma may belong to the value where that has no quotes; the end may be none.
            (Some(_), _) => return self.bare_or(start, at),
            (None, _) => {}
        }
        self.at = at;
        Ok(FieldValue::Number(&self.text[start..at]))
    }

    fn word(&mut self, word: &'static str, value: FieldValue<'a>) -> Result<FieldValue<'a>, JsonError> {
        let start = self.at;
        if !self.skip_text(word) {
            return self.bare(start);
        }
        let end = self.at;
        let follows = self.token();
        // White space behind it is no part of the value.
        self.at = end;
        match follows {
            Some(b',' | b'}' | b']') | None => Ok(value),
            Some(_) if self.is_member(start) => self.bare(start),
            // At the top level `true` may be followed by another record.
            Some(_) => Ok(value),
        }
    }

    /// Reads the number from `start` to `end`, or a text without quotes of which it is the beginning.
    #[cold]
    fn bare_or(&mut self, start: usize, end: usize) -> Result<FieldValue<'a>, JsonError> {
        self.at = end;
        if self.is_member(start) {
            match self.token() {
                Some(b'}') | None => {}
                Some(b',') => {
                    self.at += 1;
                    if !matches!(self.token(), Some(b'"' | b'}') | None) {
                        return self.bare(start);
                    }
                }
                Some(_) => return self.bare(start),
            }
        }
        self.at = end;
        Ok(FieldValue::Number(&self.text[start..end]))
    }

    /// Reads a member's value that has no quotes, up to the next member, the end of the object or of the line.
    #[cold]
    fn bare(&mut self, start: usize) -> Result<FieldValue<'a>, JsonError> {
        self.at = start;
        if !self.is_member(start) {
            return Err(self.expected("a value"));
        }
        let bytes = self.text.as_bytes();
        let mut at = start;
        loop {
            match bytes.get(at) {
                Some(b'}') => break,
                Some(b',') if bytes[at + 1..].trim_ascii_start().first() == Some(&b'"') => break,
                Some(b'"' | b'{' | b'[' | b']' | b'\n') | None => return Err(self.expected("a value")),
                Some(_) => at += 1,
            }
        }
        self.at = at;
        let text = self.text[start..at].trim_ascii().trim_end_matches(',');
        Ok(if text.is_empty() { FieldValue::Missing } else { FieldValue::Plain(text) })
    }

    /// Returns whether the value at `start` is a member's.
    fn is_member(&self, start: usize) -> bool {
        self.text.as_bytes()[..start].trim_ascii_end().last() == Some(&b':')
    }

    #[cold]
    fn expected(&self, expected: &'static str) -> JsonError {
        JsonError { expected, at: self.at }
    }
}

/// Returns whether `bytes` begins with `text`. Names of members are short, so mostly two overlapping words are
/// compared, without a call.
#[inline]
fn begins(bytes: &[u8], text: &[u8]) -> bool {
    let Some(bytes) = bytes.get(..text.len()) else { return false };
    match (text.len(), bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        (8..=16, Some(first), Some(last)) => {
            text.first_chunk::<8>() == Some(first) && text.last_chunk::<8>() == Some(last)
        }
        _ => bytes == text,
    }
}

/// Finds the end of the object or array that starts at `start` by counting brackets alone, in linear time and constant
/// memory.
///
/// # Errors
/// Returns the offset at which a text has no end on its line, or the bytes end.
pub(super) fn delimit(bytes: &[u8], start: usize) -> Result<usize, usize> {
    let mut at = start;
    let mut depth = 0_usize;
    loop {
        at = bracket(bytes, at);
        match *bytes.get(at).ok_or(at)? {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return Ok(at + 1);
                }
            }
            _ => {
                at = special(bytes, at + 1);
                loop {
                    at = match *bytes.get(at).ok_or(at)? {
                        b'"' => break,
                        b'\n' => return Err(at),
                        b'\\' => special(bytes, at + 2),
                        _ => special(bytes, at + 1),
                    };
                }
            }
        }
        at += 1;
    }
}

/// The offset of the first quote or bracket from `at` on, or the length of `bytes` if there is none.
#[inline]
fn bracket(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(|byte| !matches!(byte, b'"' | b'{' | b'}' | b'[' | b']')) {
        at += 1;
    }
    at
}

/// The offset of the first quote, backslash or control character from `at` on, or the length of `bytes` if there is
/// none.
#[inline]
fn special(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::MAX / 0xFF;
    const HIGHS: u64 = ONES << 7;
    // Eight bytes are searched at a time. `(x - 1) & !x` has the high bit of every zero byte of `x` set. False ones
    // are only above a true one, so the lowest is exact.
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(*chunk);
        let quote = word ^ (ONES * 0x22);
        let backslash = word ^ (ONES * 0x5C);
        let found = (quote.wrapping_sub(ONES) & !quote)
            | (backslash.wrapping_sub(ONES) & !backslash)
            | (word.wrapping_sub(ONES * 0x20) & !word);
        if found & HIGHS != 0 {
            return at + (found & HIGHS).trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|byte| !matches!(byte, b'"' | b'\\' | 0..0x20)) {
        at += 1;
    }
    at.min(bytes.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads every value of a text strictly, as the reader does where something is asked for.
    fn read_all(reader: &mut JsonReader<'_>) -> Result<(), JsonError> {
        let mut first = true;
        match reader.token() {
            Some(b'{') => {
                reader.enter_object()?;
                while reader.member(&mut first)? {
                    reader.name()?;
                    read_all(reader)?;
                }
            }
            Some(b'[') => {
                reader.enter_array()?;
                while reader.element(&mut first)? {
                    read_all(reader)?;
                }
            }
            _ => {
                reader.value()?;
            }
        }
        Ok(())
    }

    /// Returns whether the whole text is one value, by this reader.
    fn accepts(text: &str) -> bool {
        let mut reader = JsonReader::new(text);
        read_all(&mut reader).is_ok() && reader.token().is_none()
    }

    fn text(value: FieldValue<'_>) -> Option<String> {
        value.text(&mut String::new()).unwrap().map(str::to_owned)
    }

    /// The member `a` of an object, and whether the object could be read.
    fn member(object: &str) -> Option<String> {
        let [(_, value)] = JsonReader::new(object).members(["a"]).ok()?;
        Some(text(value).unwrap_or_default())
    }

    #[test]
    fn grammar() {
        for good in ["0", "-0", "-1.5e+3", "1E9", "\"\"", "true", "false", "null", "[]", "{}", "[1,[2]]"] {
            assert!(accepts(good), "{good}");
        }
        for good in [r#"{"a":{"b":[1,"x"]},"c":null}"#, " \t\r\n[ 1 , 2 ] \n", r#""\ud800""#] {
            assert!(accepts(good), "{good}");
        }
        for bad in ["", "01", "1.", ".5", "1e", "+1", "--1", "-x", "NaN", "Infinity", "tru", "nul", "[1,]"] {
            assert!(!accepts(bad), "{bad}");
        }
        for bad in ["{,}", "{a:1}", "{\"a\" 1}", "[1 2]", "[", "{", "\"", "]", "[1}", "[-]", "{\"a\":1 2}x"] {
            assert!(!accepts(bad), "{bad}");
        }
        for bad in ["\"\\", "\"a\nb\"", "{}{}", "[,1]", "[]x", "\0{}", "\"a\\\n\""] {
            assert!(!accepts(bad), "{bad}");
        }
    }

    #[test]
    fn liberties_of_templates() {
        for (object, expected) in [
            (r#"{"a":}"#, ""),
            (r#"{"a":,"b":1}"#, ""),
            (r#"{"a":-,"b":1}"#, ""),
            (r#"{"a":0.001, 0.002 : 0.003,"b":1}"#, "0.001, 0.002 : 0.003"),
            (r#"{"a":0.001, 0.002}"#, "0.001, 0.002"),
            (r#"{"a":10.0.0.1:80 ,"b":1}"#, "10.0.0.1:80"),
            (r#"{"a":nan}"#, "nan"),
            (r#"{"a":007,"b":1}"#, "007"),
            (r#"{"a":truely, "b":1}"#, "truely"),
            (r#"{"a":7 , "b":1}"#, "7"),
            (r#"{"a":1,}"#, "1"),
            ("{\"a\":\"x\ty\u{1}\"}", "x\ty\u{1}"),
            (r#"{"a":"\x41\q"}"#, r"A\q"),
        ] {
            assert_eq!(member(object).as_deref(), Some(expected), "{object}");
        }
        for bad in [r#"{"a":x"b":1}"#, r#"{"a":[1,],"b"}"#, "{\"a\":x\n}", r#"{"a":x"#] {
            assert_eq!(member(bad), None, "{bad}");
        }
    }

    #[test]
    fn nothing_is_too_deep_or_too_wide() {
        let bomb = "[".repeat(200_000) + &"]".repeat(200_000);
        assert_eq!(delimit(bomb.as_bytes(), 0), Ok(400_000));
        let object = format!(r#"{{"x":{bomb},"a":"y"}}"#);
        assert_eq!(member(&object).as_deref(), Some("y"));
        let wide = format!("{{{}}}", vec!["\"a\":1"; 100_000].join(","));
        assert!(accepts(&wide));
        assert_eq!(member(&format!(r#"{{"x":{wide},"a":2}}"#)).as_deref(), Some("2"));
        let open = "[".repeat(200_000);
        assert_eq!(delimit(open.as_bytes(), 0), Err(200_000));
    }

    #[test]
    fn delimits_around_texts() {
        let text = r#"{"a}":"\"}]","b":[{"c":"\\"}]}  {"d":1}"#;
        assert_eq!(delimit(text.as_bytes(), 0), Ok(text.find("  ").unwrap()));
        assert_eq!(delimit(b"{\"a\":\"x\x01\"}", 0), Ok(10));
        for open in ["{", "{\"a\":\"", "{\"a\":\"\\", "[{}", "{\"a\":\"x\n\"}"] {
            assert!(delimit(open.as_bytes(), 0).is_err(), "{open}");
        }
    }

    proptest! {
        /// What serde_json accepts the reader does; the rest it accepts by a liberty alone.
        #[test]
        fn agrees_with_serde_json(text in r#"[\[\]{}:," \\ntrueflsa0-9.eE+\-x\u{1}ä]{0,24}"#) {
            let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            let liberty = text.contains(':') || text.contains('\\') || text.contains('\u{1}') || text.contains(",}");
            prop_assert!(accepts(&text) == theirs || (liberty && !theirs), "{}", text);
        }

        /// A text reads as what serde_json wrote.
        #[test]
        fn texts_survive(written in any::<String>()) {
            let json = serde_json::to_string(&written).unwrap();
            let value = JsonReader::new(&json).value().unwrap();
            let expected = (!matches!(written.as_str(), "" | "-")).then_some(written);
            prop_assert_eq!(text(value), expected);
        }

        /// A whole value is passed over to where it ends, whatever is in it.
        #[test]
        fn values_end_where_serde_json_ends_them(text in r#"[\[\]{}:," \\ntrue0-9]{0,24}"#) {
            let mut theirs = serde_json::Deserializer::from_str(&text).into_iter::<serde::de::IgnoredAny>();
            if let (Some(Ok(_)), true) = (theirs.next(), text.trim_start().starts_with(['{', '['])) {
                let start = text.len() - text.trim_start().len();
                prop_assert_eq!(delimit(text.as_bytes(), start), Ok(theirs.byte_offset()));
            }
        }

        #[test]
        fn arbitrary_text_is_no_panic(text in r#"[\[\]{}:," \\\n\-\.x0-9äa\u{1}]{0,40}"#) {
            let mut reader = JsonReader::new(&text);
            while reader.token().is_some() && read_all(&mut reader).is_ok() {}
            let _ = delimit(text.as_bytes(), 0);
        }

        /// A text is a beginning whatever its length.
        #[test]
        fn begins_is_exact(bytes in "[ab]{0,24}", text in "[ab]{0,24}", length in 0_usize..24) {
            let own = &bytes[..length.min(bytes.len())];
            prop_assert!(begins(bytes.as_bytes(), own.as_bytes()));
            prop_assert_eq!(begins(bytes.as_bytes(), text.as_bytes()), bytes.starts_with(&text));
            for at in 0..own.len() {
                let mut other = own.as_bytes().to_vec();
                other[at] ^= 1;
                prop_assert!(!begins(bytes.as_bytes(), &other), "{}", at);
            }
        }

        /// The short ways find what the long ones find, or nothing and stay where they are.
        #[test]
        fn plain_values_are_those_of_the_reader(
            text in prop_oneof![r#""[a\\\\"\n\u{1}ä]{0,12}"?[,}]"#, r#"[0-9]{0,4}\.?[0-9e]{0,3}(,|,"|\}|\]| )?"#]
        ) {
            let (mut short, mut long) = (JsonReader::new(&text), JsonReader::new(&text));
            let plain = match text.as_bytes().first() {
                Some(b'"') => short.plain_text().map(|text| (true, text)),
                _ => short.plain_number().map(|text| (false, text)),
            };
            match plain {
                None => prop_assert_eq!(short.at(), 0),
                Some((is_text, plain)) => {
                    match long.value() {
                        Ok(FieldValue::Plain(text)) => prop_assert_eq!((true, text), (is_text, plain)),
                        Ok(FieldValue::Number(text)) => prop_assert_eq!((false, text), (is_text, plain)),
                        _ => prop_assert!(false, "{}", text),
                    }
                    prop_assert_eq!(short.at(), long.at());
                }
            }
        }

        /// Specials are found wherever they stand.
        #[test]
        fn special_is_exact(text in r#"[a-zä€"\\\n\u{0}\u{7f}]{0,40}"#, from in 0_usize..40) {
            let bytes = text.as_bytes();
            let slow = (from..bytes.len()).find(|&at| matches!(bytes[at], b'"' | b'\\' | 0..0x20));
            prop_assert_eq!(special(bytes, from), slow.unwrap_or(bytes.len()));
        }
    }
}
