//! Texts of JSON that may be raw keys, so that no copy of one is left in memory.

use std::io;

use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::exchange::SecretBytes;

/// Returns the text that a value is; `None` if it is none.
pub(super) fn text_of(value: &RawValue) -> Option<SecretBytes> {
    let mut text = SecretBytes::with_capacity(value.get().len());
    match serde_json::from_str::<&str>(value.get()) {
        Ok(plain) => text.push(plain.as_bytes()),
        // It has escapes.
        Err(_) => {
            let escaped: Zeroizing<String> = Zeroizing::new(serde_json::from_str(value.get()).ok()?);
            text.push(escaped.as_bytes());
        }
    }
    Some(text)
}

/// Appends a text, quoted and escaped. `None` if it isn't UTF-8.
pub(super) fn write_text(out: &mut SecretBytes, text: &[u8]) -> Option<()> {
    let text = std::str::from_utf8(text).ok()?;
    serde_json::to_writer(Appended(out), text).ok()
}

/// Writes to the end of a buffer.
struct Appended<'a>(&'a mut SecretBytes);

impl io::Write for Appended<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
