//! A pull reader over JSON text (RFC 8259): borrowed, strict, and bounded.
//!
//! Why not serde_json, which the rest of the job uses: a number keeps its digits here (an epoch in
//! nanoseconds, or in milliseconds with a fraction, doesn't survive `f64`), the escapes of a text that nobody
//! reads are never decoded, nesting and members are capped while reading, and a record that is refused can
//! still be delimited, so that its neighbours go on. Tests hold it to serde_json's verdict on arbitrary text.
//!
//! Two liberties: a lone `-` where a number may stand reads as null (AWS templates write it for a missing
//! value), and a lone surrogate in an escape is allowed, as the grammar has it.
//!
//! Limits: [`Caps`], per record; recursion is as deep as the caps allow, at most [`MAX_DEPTH`] levels.

use super::raw::{Value, unescape_json};

/// Nesting beyond which a record is refused whatever the configuration says: it bounds the stack.
pub(super) const MAX_DEPTH: usize = 512;

/// What one record may hold.
#[derive(Clone, Copy)]
pub(super) struct Caps {
    /// Nesting; the record's own object is level 1.
    pub(super) depth: usize,
    /// Members of objects, all levels together.
    pub(super) members: usize,
}

impl Caps {
    /// For text that was read under caps before.
    pub(super) const NONE: Self = Self { depth: MAX_DEPTH, members: usize::MAX };
}

/// Why a value can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It isn't JSON.
    Syntax {
        /// What should have stood there.
        expected: &'static str,
        /// Where, as a byte of the text.
        at: usize,
    },
    /// Nested more deeply than the cap.
    TooDeep,
    /// More members than the cap.
    TooManyMembers,
}

/// Reads values one after the other.
#[derive(Clone)]
pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    members: usize,
    caps: Caps,
}

impl<'a> Reader<'a> {
    /// A reader at the start of `text`; a byte order mark is skipped.
    pub(super) fn new(text: &'a str, caps: Caps) -> Self {
        let at = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        Self { text, at, depth: 0, members: 0, caps: Caps { depth: caps.depth.min(MAX_DEPTH), ..caps } }
    }

    /// The byte it stands at.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Goes on at another byte, with a new record.
    pub(super) fn restart(&mut self, at: usize) {
        self.at = at;
        self.depth = 0;
        self.members = 0;
    }

    /// The first byte behind white space, which is skipped.
    #[inline]
    pub(super) fn token(&mut self) -> Option<u8> {
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
    pub(super) fn enter_object(&mut self) -> Result<(), Unreadable> {
        self.enter(b'{', "an object")
    }

    /// Enters the array at which the reader stands.
    #[inline]
    pub(super) fn enter_array(&mut self) -> Result<(), Unreadable> {
        self.enter(b'[', "an array")
    }

    #[inline]
    fn enter(&mut self, bracket: u8, expected: &'static str) -> Result<(), Unreadable> {
        if self.token() != Some(bracket) {
            return Err(self.expected(expected));
        }
        self.at += 1;
        self.depth += 1;
        if self.depth > self.caps.depth { Err(Unreadable::TooDeep) } else { Ok(()) }
    }

    #[inline]
    fn leave(&mut self) {
        self.at += 1;
        self.depth -= 1;
    }

    /// Moves to the next member's name and says whether there is one; if not, the reader stands behind the
    /// object. `first` is true at the call that follows [`enter_object`](Self::enter_object).
    #[inline]
    pub(super) fn member(&mut self, first: &mut bool) -> Result<bool, Unreadable> {
        let mut token = self.token();
        match token {
            Some(b'}') => {
                self.leave();
                return Ok(false);
            }
            Some(b',') if !*first => {
                self.at += 1;
                token = self.token();
            }
            _ if !*first => return Err(self.expected("`,` or `}`")),
            _ => {}
        }
        *first = false;
        if token != Some(b'"') {
            return Err(self.expected("a member's name"));
        }
        self.members += 1;
        if self.members > self.caps.members { Err(Unreadable::TooManyMembers) } else { Ok(true) }
    }

    /// Reads a member's name and moves to its value.
    #[inline]
    pub(super) fn name(&mut self) -> Result<Value<'a>, Unreadable> {
        let name = self.string()?;
        if self.token() != Some(b':') {
            return Err(self.expected("`:`"));
        }
        self.at += 1;
        Ok(name)
    }

    /// Whether `text` stands here; if so, the reader moves behind it.
    #[inline]
    pub(super) fn skip_text(&mut self, text: &str) -> bool {
        let found = self.text.as_bytes()[self.at..].starts_with(text.as_bytes());
        if found {
            self.at += text.len();
        }
        found
    }

    /// Moves to the next element and says whether there is one; if not, the reader stands behind the array.
    /// `first` is true at the call that follows [`enter_array`](Self::enter_array).
    #[inline]
    pub(super) fn element(&mut self, first: &mut bool) -> Result<bool, Unreadable> {
        match self.token() {
            Some(b']') => {
                self.leave();
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

    /// Reads any value, to its end.
    pub(super) fn value(&mut self) -> Result<Value<'a>, Unreadable> {
        match self.token() {
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b'{') => {
                self.enter_object()?;
                let mut first = true;
                while self.member(&mut first)? {
                    self.name()?;
                    self.value()?;
                }
                Ok(Value::Object)
            }
            Some(b'[') => {
                let start = self.at;
                self.enter_array()?;
                let mut first = true;
                while self.element(&mut first)? {
                    self.value()?;
                }
                Ok(Value::Array(&self.text[start..self.at]))
            }
            Some(b't') => self.word("true", Value::Flag),
            Some(b'f') => self.word("false", Value::Flag),
            Some(b'n') => self.word("null", Value::Missing),
            _ => Err(self.expected("a value")),
        }
    }

    /// Reads any value, to its end. The elements of an array are records: the members of each are counted from the
    /// start.
    pub(super) fn records(&mut self) -> Result<Value<'a>, Unreadable> {
        if self.token() != Some(b'[') {
            return self.value();
        }
        let (start, members) = (self.at, self.members);
        self.enter_array()?;
        let mut first = true;
        while self.element(&mut first)? {
            self.members = 0;
            self.value()?;
        }
        self.members = members;
        Ok(Value::Array(&self.text[start..self.at]))
    }

    /// Reads the object at which the reader stands, its values with `read`; what its members of the given names hold,
    /// and where that begins. Of several of one name the last counts.
    pub(super) fn members<const N: usize>(
        &mut self,
        names: [&str; N],
        read: fn(&mut Self) -> Result<Value<'a>, Unreadable>,
    ) -> Result<[(usize, Value<'a>); N], Unreadable> {
        let mut found = [(0, Value::Missing); N];
        self.enter_object()?;
        let mut first = true;
        while self.member(&mut first)? {
            let name = match self.name()? {
                Value::Plain(name) => names.iter().position(|wanted| *wanted == name),
                Value::Json(escaped) => {
                    let mut name = String::new();
                    unescape_json(escaped, &mut name);
                    names.iter().position(|wanted| *wanted == name)
                }
                _ => None,
            };
            self.token();
            let at = self.at;
            let value = read(self)?;
            if let Some(index) = name {
                found[index] = (at, value);
            }
        }
        Ok(found)
    }

    #[inline]
    fn string(&mut self) -> Result<Value<'a>, Unreadable> {
        let bytes = self.text.as_bytes();
        let start = self.at + 1;
        let mut escaped = false;
        self.at = start;
        loop {
            self.at = special(bytes, self.at);
            match bytes.get(self.at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    let width = match bytes.get(self.at + 1) {
                        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
                        Some(b'u') => match bytes.get(self.at + 2..self.at + 6) {
                            Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => 6,
                            _ => return Err(self.expected("four hexadecimal digits behind `\\u`")),
                        },
                        _ => return Err(self.expected("a valid escape")),
                    };
                    self.at += width;
                }
                Some(_) => return Err(self.expected("no unescaped control character in a text")),
                None => return Err(self.expected("a text's closing quote")),
            }
        }
        let text = &self.text[start..self.at];
        self.at += 1;
        Ok(if escaped { Value::Json(text) } else { Value::Plain(text) })
    }

    #[inline]
    fn number(&mut self) -> Result<Value<'a>, Unreadable> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        if bytes[start] == b'-' {
            self.at += 1;
        }
        match bytes.get(self.at) {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits()?,
            None | Some(b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t') => return Ok(Value::Missing),
            Some(_) => return Err(self.expected("a digit")),
        }
        if bytes.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = bytes.get(self.at) {
            self.at += 1;
            if let Some(b'+' | b'-') = bytes.get(self.at) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(Value::Number(&self.text[start..self.at]))
    }

    #[inline]
    fn digits(&mut self) -> Result<(), Unreadable> {
        let bytes = self.text.as_bytes();
        let start = self.at;
        while bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        if self.at == start { Err(self.expected("a digit")) } else { Ok(()) }
    }

    fn word(&mut self, word: &'static str, value: Value<'a>) -> Result<Value<'a>, Unreadable> {
        if self.skip_text(word) { Ok(value) } else { Err(self.expected("a value")) }
    }

    #[cold]
    fn expected(&self, expected: &'static str) -> Unreadable {
        Unreadable::Syntax { expected, at: self.at }
    }

    /// The end of the value that starts at `start`, found by counting brackets alone, in linear time and
    /// constant memory: for values that the caps refuse. `None` if it doesn't end.
    pub(super) fn delimit(&self, start: usize) -> Option<usize> {
        let bytes = self.text.as_bytes();
        let mut at = start;
        let mut depth = 0_usize;
        loop {
            match *bytes.get(at)? {
                b'{' | b'[' => depth += 1,
                b'}' | b']' => {
                    depth = depth.saturating_sub(1);
                    if depth == 0 {
                        return Some(at + 1);
                    }
                }
                b'"' => {
                    at = special(bytes, at + 1);
                    while *bytes.get(at)? != b'"' {
                        at = special(bytes, at + if bytes[at] == b'\\' { 2 } else { 1 });
                    }
                }
                _ => {}
            }
            at += 1;
        }
    }
}

/// The first quote, backslash or control character at or behind `at`; the length of `bytes` if there is none.
#[inline]
fn special(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::MAX / 0xFF;
    const HIGHS: u64 = ONES << 7;
    // Eight bytes at a time: `(x - 1) & !x` has the high bit of every zero byte of `x` set, and false ones only
    // above a true one, so that the lowest is exact.
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

    const CAPS: Caps = Caps { depth: 64, members: 4_096 };

    /// Whether the whole text is one value, by this reader.
    fn accepts(text: &str) -> bool {
        let mut reader = Reader::new(text, CAPS);
        reader.value().is_ok() && reader.token().is_none()
    }

    fn text(value: Value<'_>) -> Option<String> {
        value.text(&mut String::new()).unwrap().map(str::to_owned)
    }

    #[test]
    fn grammar() {
        for good in ["0", "-0", "-1.5e+3", "1E9", "\"\"", "true", "false", "null", "[]", "{}", "[1,[2]]"] {
            assert!(accepts(good), "{good}");
        }
        for good in [r#"{"a":{"b":[1,"x"]},"c":null}"#, " \t\r\n[ 1 , 2 ] \n", r#""\ud800""#, "{\"a\":-}"] {
            assert!(accepts(good), "{good}");
        }
        for bad in ["", "01", "1.", ".5", "1e", "+1", "--1", "-x", "NaN", "Infinity", "tru", "nul", "[1,]"] {
            assert!(!accepts(bad), "{bad}");
        }
        for bad in
            ["{\"a\":1,}", "{,}", "{a:1}", "{\"a\" 1}", "{\"a\":}", "[1 2]", "[", "{", "\"", "]", "[1}"]
        {
            assert!(!accepts(bad), "{bad}");
        }
        for bad in ["\"\\x41\"", "\"\\u12g4\"", "\"\\", "\"a\nb\"", "\"a\0b\"", "{}{}", "[,1]", "[]x", "\0{}"]
        {
            assert!(!accepts(bad), "{bad}");
        }
    }

    #[test]
    fn depth_is_capped_before_the_stack_is() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(accepts(&nested(64)));
        assert!(!accepts(&nested(65)));
        let bomb = nested(200_000);
        let mut reader = Reader::new(&bomb, Caps { depth: usize::MAX, ..CAPS });
        assert!(matches!(reader.value(), Err(Unreadable::TooDeep)));
        assert_eq!(reader.delimit(0), Some(400_000));
    }

    #[test]
    fn members_are_capped() {
        let object = |members: usize| format!("{{{}}}", vec!["\"a\":1"; members].join(","));
        assert!(accepts(&object(4_096)));
        assert!(!accepts(&object(4_097)));
        let mut reader = Reader::new("{}", CAPS);
        let wide = object(100_000);
        reader.text = &wide;
        assert!(matches!(reader.value(), Err(Unreadable::TooManyMembers)));
        assert_eq!(reader.delimit(0), Some(wide.len()));
    }

    #[test]
    fn delimits_around_texts() {
        let text = r#"{"a}":"\"}]","b":[{"c":"\\"}]}  {"d":1}"#;
        assert_eq!(Reader::new(text, CAPS).delimit(0), Some(text.find("  ").unwrap()));
        for open in ["{", "{\"a\":\"", "{\"a\":\"\\", "[{}", "{\"a\":\"x\u{1}"] {
            assert_eq!(Reader::new(open, CAPS).delimit(0), None, "{open}");
        }
    }

    proptest! {
        /// The reader and serde_json agree on what is JSON, but for the two liberties.
        #[test]
        fn agrees_with_serde_json(text in r#"[\[\]{}:," \\ntrueflsa0-9.eE+\-x\u{1}ä]{0,24}"#) {
            let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            let lone_minus = text.char_indices().any(|(at, c)| {
                c == '-' && !text[at + 1..].starts_with(|next: char| next.is_ascii_digit())
            });
            if !lone_minus {
                prop_assert_eq!(accepts(&text), theirs, "{}", text);
            }
        }

        /// A text reads as what serde_json wrote.
        #[test]
        fn texts_survive(written in any::<String>()) {
            let json = serde_json::to_string(&written).unwrap();
            let value = Reader::new(&json, CAPS).value().unwrap();
            let expected = (!matches!(written.as_str(), "" | "-")).then_some(written);
            prop_assert_eq!(text(value), expected);
        }

        /// A changed byte of a real record is judged as serde_json judges it.
        #[test]
        fn agrees_on_damaged_records(at in 0_usize..60, byte in 0_u8..128) {
            let mut record = br#"{"a":"x\u00e9\n","b":[1,-2.5e3,null,true],"c":{"d":false}}"#.to_vec();
            let at = at % record.len();
            record[at] = byte;
            let text = String::from_utf8(record).unwrap();
            let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            prop_assert!(accepts(&text) == theirs || text.contains("-,") || text.contains("- "), "{}", text);
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
