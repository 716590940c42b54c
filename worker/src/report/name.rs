//! Names of files for ids that strangers chose.
//!
//! An id of at most 60 small letters, digits, `-` and `_` is its own name. Any other id gets the first 60 of its characters,
//! each foreign one as `_`, then `~` and 32 digits of its SHA-256. Since `~` is in no id that is its own name, two ids
//! never share a file, also where a file system ignores case.

use keytide_dataflow::model::hex;
use sha2::{Digest as _, Sha256};

/// Characters of an id that are kept, at most.
const KEPT: usize = 60;

/// Returns the name of a report's files without their extension: `bill-sub_1-2025-10-01`.
#[must_use]
pub fn file_stem(report: &str, id: &str, start: &str) -> String {
    format!("{report}-{}-{start}", safe(id))
}

fn safe(id: &str) -> String {
    let is_safe = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if !id.is_empty() && id.len() <= KEPT && id.chars().all(is_safe) {
        return id.to_owned();
    }
    let kept = id.chars().take(KEPT).map(|c| c.to_ascii_lowercase());
    let mut name: String = kept.map(|c| if is_safe(c) { c } else { '_' }).collect();
    name.push('~');
    name.push_str(&hex(&Sha256::digest(id.as_bytes())[..16]));
    name
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_id_is_its_own_name_if_it_is_safe() {
        assert_eq!(file_stem("bill", "sub_1-b", "2025-10-01"), "bill-sub_1-b-2025-10-01");
        for id in ["", ".", "..", "/etc/passwd", "a/../b", "Sub", "a\0b", "구독", "con.", "a~b"] {
            let name = safe(id);
            assert!(name.contains('~') && !name.contains(['/', '\\', '.', '\0', ':']), "{id}: {name}");
        }
        assert!(safe(&"x".repeat(500)).len() < 100);
        assert_ne!(safe("Sub").to_lowercase(), safe("sub"));
    }

    proptest! {
        #[test]
        fn two_ids_never_share_a_name_and_any_name_is_a_file(one in "\\PC{0,70}|[a-c~._A-]{0,3}", other in "[a-c~._A-]{0,3}") {
            prop_assert_eq!(one == other, safe(&one).to_lowercase() == safe(&other).to_lowercase());
            let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_~".contains(c);
            let name = safe(&one);
            prop_assert!(!name.is_empty() && name.len() <= 100 && name.chars().all(is_plain), "{}", name);
        }
    }
}
