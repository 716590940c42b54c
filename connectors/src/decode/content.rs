//! The content of a value is its text without escapes, or an array's elements.

use super::bytes::push_bytes;
use super::escape::{unescape_json, unescape_log};
use super::reader::JsonReader;
use super::route::argument_value;
use super::value::{FieldValue, WrongType};

impl<'a> FieldValue<'a> {
    /// The value as text, unescaped into `buffer` if it has escapes, or `None` if the value is empty. The text of an
    /// array is that of its first element that isn't empty.
    #[inline]
    pub(super) fn text<'s>(self, buffer: &'s mut String) -> Result<Option<&'s str>, WrongType>
    where
        'a: 's,
    {
        match self {
            Self::Missing | Self::Plain("" | "-") => Ok(None),
            Self::Number(text) | Self::Plain(text) => Ok(Some(text)),
            other => other.converted(buffer),
        }
    }

    /// Does the rarer half of [`text`](Self::text).
    fn converted(self, buffer: &mut String) -> Result<Option<&str>, WrongType> {
        match self {
            Self::Missing | Self::Number(_) | Self::Plain(_) => Ok(None),
            Self::Json(escaped) => {
                unescape_json(escaped, buffer);
                Ok(Some(buffer))
            }
            Self::Log(escaped) => {
                unescape_log(escaped, buffer);
                Ok(Some(buffer))
            }
            Self::Argument(escaped) => {
                unescape_json(escaped, buffer);
                let value = argument_value(buffer);
                buffer.clear();
                push_bytes(&value, buffer);
                Ok(Some(buffer))
            }
            Self::Array(_) => match self.elements().find(|element| element.is_text()) {
                Some(FieldValue::Number(text) | FieldValue::Plain(text)) => {
                    buffer.clear();
                    buffer.push_str(text);
                    Ok(Some(buffer))
                }
                Some(element) => element.converted(buffer),
                None => Ok(None),
            },
            Self::Flag(_) | Self::Object => Err(WrongType),
        }
    }

    /// Returns whether two values are the same text.
    pub(super) fn is_same_text(self, other: Self) -> bool {
        let (mut one, mut two) = (String::new(), String::new());
        self.text(&mut one) == other.text(&mut two)
    }

    /// Iterates over an array's elements. Any other value is its own only element.
    pub(super) fn elements(self) -> impl Iterator<Item = FieldValue<'a>> {
        let (mut array, mut single) = match self {
            // It was read once already: nothing here can fail.
            Self::Array(text) => {
                let mut reader = JsonReader::new(text);
                (reader.enter_array().ok().map(|()| (reader, true)), None)
            }
            other => (None, Some(other)),
        };
        std::iter::from_fn(move || match &mut array {
            Some((reader, first)) => reader.element(first).ok()?.then(|| reader.value().ok()).flatten(),
            None => single.take(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_element_that_says_something() {
        let mut buffer = String::new();
        assert_eq!(
            FieldValue::Array(r#"["", "-", null, true, "a\/b", "c"]"#).text(&mut buffer),
            Ok(Some("a/b"))
        );
        assert_eq!(FieldValue::Array("[]").text(&mut buffer), Ok(None));
        assert_eq!(FieldValue::Array("[[\"x\"], {}]").text(&mut buffer), Ok(None));
        assert_eq!(FieldValue::Array("[7]").text(&mut buffer), Ok(Some("7")));
        assert_eq!(FieldValue::Flag(true).text(&mut buffer), Err(WrongType));
        assert_eq!(FieldValue::Object.text(&mut buffer), Err(WrongType));
    }
}
