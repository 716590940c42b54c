//! Writes lower-case hexadecimal digits, as ids, hashes and signatures have them.

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Appends two digits a byte.
pub fn push_hex(out: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        out.extend(digits(*byte));
    }
}

/// Returns two digits a byte.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().flat_map(|byte| digits(*byte)).map(char::from).collect()
}

/// Returns the digits of an id, the most significant first.
#[must_use]
pub fn id_digits(id: u128) -> [u8; 32] {
    let mut out = [0; 32];
    for (pair, byte) in out.chunks_exact_mut(2).zip(id.to_be_bytes()) {
        pair.copy_from_slice(&digits(byte));
    }
    out
}

/// Returns the id that is written so: 32 digits in lower case, and nothing else.
#[must_use]
pub fn id_of_digits(text: &str) -> Option<u128> {
    let is_id = text.len() == 32 && text.bytes().all(|byte| DIGITS.contains(&byte));
    is_id.then(|| u128::from_str_radix(text, 16).ok())?
}

fn digits(byte: u8) -> [u8; 2] {
    [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn digits_are_those_of_the_standard_library(id: u128) {
            let expected = format!("{id:032x}");
            let mut out = b"id ".to_vec();
            push_hex(&mut out, &id.to_be_bytes());
            prop_assert_eq!(String::from_utf8(out).unwrap(), format!("id {expected}"));
            prop_assert_eq!(&id_digits(id)[..], expected.as_bytes());
            prop_assert_eq!(hex(&id.to_be_bytes()), expected);
        }
    }
}
