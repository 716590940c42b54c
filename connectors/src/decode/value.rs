//! One value of a record, borrowed from the message: its text keeps its escapes until somebody reads it.

/// One value as it stands in the message.
// In three whole words: with a flag beside a tag of one byte, what is behind the tag is moved by words that begin at its
// second byte, and each such move waits for the stores before it.
#[repr(u64)]
#[derive(Clone, Copy, Default)]
pub(super) enum FieldValue<'a> {
    #[default]
    Missing,
    /// `true` or `false`; the former is what a gateway logs for a bare query argument.
    Flag(bool),
    Number(&'a str),
    /// Text without escapes.
    Plain(&'a str),
    /// Text with the escapes of a JSON text.
    Json(&'a str),
    /// Text with the escapes of an httpd's log: `\"`, `\xHH`.
    Log(&'a str),
    /// A query argument as it stands in the query, percent-encoded, in a JSON text.
    Argument(&'a str),
    /// A JSON array, brackets included; what a gateway logs for a repeated header.
    Array(&'a str),
    Object,
}

/// A value of a type that its field can't have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WrongType;

impl<'a> FieldValue<'a> {
    /// Returns whether it says nothing: absent, null, `""` or `-`.
    pub(super) fn is_empty(self) -> bool {
        matches!(self, Self::Missing | Self::Plain("" | "-"))
    }

    pub(super) fn is_text(self) -> bool {
        !self.is_empty() && matches!(self, Self::Number(_) | Self::Plain(_) | Self::Json(_))
    }

    /// The value's text as it stands in the message, escapes and all.
    pub(super) fn verbatim(self) -> &'a str {
        match self {
            Self::Missing | Self::Flag(_) | Self::Object => "",
            Self::Number(text)
            | Self::Plain(text)
            | Self::Json(text)
            | Self::Log(text)
            | Self::Argument(text)
            | Self::Array(text) => text,
        }
    }
}
