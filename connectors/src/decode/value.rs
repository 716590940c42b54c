//! Values of records, borrowed from the message. Texts keep their escapes until they are read.

use super::escape::unescape_json;

/// One value as it stands in the message.
// The tag fills a whole word. Behind a tag of one byte, the rest would be moved by words from the second byte on. Each
// such move would wait for the stores before it.
#[repr(u64)]
#[derive(Clone, Copy, Default)]
pub(super) enum FieldValue<'a> {
    #[default]
    Missing,
    /// `true` or `false`. A gateway logs `true` for a query argument without a value.
    Flag(bool),
    Number(&'a str),
    /// Text that has no escapes.
    Plain(&'a str),
    /// Text with the escapes of a JSON text.
    Json(&'a str),
    /// Text with the escapes of an httpd's log: `\"`, `\xHH`.
    Log(&'a str),
    /// A query argument as it stands in the query, percent-encoded, in a JSON text.
    Argument(&'a str),
    /// A JSON array, brackets included, as a gateway logs a repeated header.
    Array(&'a str),
    Object,
}

/// The error of a value whose type its field can't have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WrongType;

impl<'a> FieldValue<'a> {
    /// Returns whether it is absent, null, `""` or `-`.
    pub(super) fn is_empty(self) -> bool {
        matches!(self, Self::Missing | Self::Plain("" | "-"))
    }

    pub(super) fn is_text(self) -> bool {
        !self.is_empty() && matches!(self, Self::Number(_) | Self::Plain(_) | Self::Json(_))
    }

    /// The text of a JSON string, unescaped into `buffer` if it has escapes, or `None` for any other value.
    pub(super) fn string<'s>(self, buffer: &'s mut String) -> Option<&'s str>
    where
        'a: 's,
    {
        match self {
            Self::Plain(text) => Some(text),
            Self::Json(escaped) => {
                unescape_json(escaped, buffer);
                Some(buffer)
            }
            _ => None,
        }
    }

    /// The value's text as it stands in the message, still escaped.
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
