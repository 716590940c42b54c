//! The mask by which a key is suspended at its gateway, and the proof that a credential holds the key of an incident.
//!
//! A suspended key is `keytide-suspended.`, 32 random hexadecimal digits, `.` and the key. Nobody can call with it, as
//! nobody knows the digits. The key itself stays in the gateway, so that taking the mask off is enough to undo it.

use hmac::{Hmac, KeyInit as _, Mac as _};
use keytide_config::KeyHash;
use keytide_dataflow::model::{KeyId, hex};
use sha2::{Digest as _, Sha256};

use super::RequestedAction;
use crate::exchange::SecretBytes;

/// A key as its gateway has it.
pub(super) struct SeenKey {
    pub(super) raw: SecretBytes,
    /// True if the gateway lets nobody in with it.
    pub(super) is_suspended: bool,
}

/// What a credential is to become.
pub(super) struct KeyChange<'a> {
    /// The key without a mask.
    pub(super) raw: &'a [u8],
    /// True if it is to be suspended, else it is let in.
    pub(super) suspends: bool,
    /// What makes a mask that nobody knows.
    pub(super) random: [u8; DIGITS / 2],
}

const MASK: &[u8] = b"keytide-suspended.";
/// The hexadecimal digits of a mask.
const DIGITS: usize = 32;

/// Returns the key under its mask, and under all if there are several. `None` if it has none.
pub(super) fn unmasked(key: &[u8]) -> Option<&[u8]> {
    let mut inner = None;
    let mut rest = key;
    while let Some(found) = without_mask(rest) {
        (inner, rest) = (Some(found), found);
    }
    inner
}

fn without_mask(key: &[u8]) -> Option<&[u8]> {
    let (digits, rest) = key.strip_prefix(MASK)?.split_at_checked(DIGITS)?;
    let is_mask = digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    rest.strip_prefix(b".").filter(|_| is_mask)
}

/// Returns a key under a mask of these random bytes.
pub(super) fn masked(key: &[u8], random: [u8; DIGITS / 2]) -> SecretBytes {
    let mut masked = SecretBytes::with_capacity(MASK.len() + DIGITS + 1 + key.len());
    masked.push(MASK);
    masked.push(hex(&random).as_bytes());
    masked.push(b".");
    masked.push(key);
    masked
}

/// Takes the mask off a key that was read.
pub(super) fn seen(key: &SecretBytes) -> SeenKey {
    let inner = unmasked(key.as_ref());
    let plain = inner.unwrap_or(key.as_ref());
    let mut raw = SecretBytes::with_capacity(plain.len());
    raw.push(plain);
    SeenKey { raw, is_suspended: inner.is_some() }
}

/// Returns what is to be written: a suspended key has a mask.
pub(super) fn changed(change: &KeyChange<'_>) -> SecretBytes {
    if change.suspends {
        return masked(change.raw, change.random);
    }
    let mut key = SecretBytes::with_capacity(change.raw.len());
    key.push(change.raw);
    key
}

/// Says whether a raw key is the one of an incident.
#[derive(Clone, Debug)]
pub(super) struct Proof {
    /// How sources make ids of keys.
    hashes: Vec<KeyHash>,
    /// True if the tables are believed where no proof is possible.
    unproven: bool,
}

impl Proof {
    pub(super) fn new(hashes: Vec<KeyHash>, unproven: bool) -> Self {
        Self { hashes, unproven }
    }

    /// Returns why a raw key isn't known to be the one that an action is about.
    pub(super) fn check(&self, key: &[u8], action: &RequestedAction) -> Result<(), String> {
        if self.hashes.iter().any(|hash| id(hash, key) == Some(action.key)) {
            return Ok(());
        }
        // An identifier is no hash, and a gateway that logs hashes may make them in any way.
        let is_named = action.key_id != action.key.to_string();
        let is_provable = !is_named && !self.hashes.iter().any(|hash| matches!(hash, KeyHash::Prehashed));
        match (is_provable, self.unproven) {
            (false, true) => Ok(()),
            (false, false) => {
                Err("nothing proves that the credential holds the key of the incident; unproven = true \
                                   lets the gateway believe the table of keys"
                    .to_owned())
            }
            (true, _) => Err(
                "the credential doesn't hold the key of the incident: the table of keys is stale, or the \
                              gateway keeps a reference or an encrypted text"
                    .to_owned(),
            ),
        }
    }
}

/// Returns the id of a raw key; `None` if the hash isn't one of raw keys.
fn id(hash: &KeyHash, key: &[u8]) -> Option<KeyId> {
    let hash: [u8; 32] = match hash {
        // Most gateways that log hashes log this one.
        KeyHash::Sha256 | KeyHash::Prehashed => Sha256::digest(key).into(),
        KeyHash::HmacSha256 { secret } => {
            let mut mac =
                Hmac::<Sha256>::new_from_slice(secret.reveal().as_bytes()).expect("a key of any length");
            mac.update(key);
            mac.finalize().into_bytes().into()
        }
        KeyHash::None => return None,
    };
    Some(KeyId::from_hash(&hash))
}

#[cfg(test)]
mod tests {
    use keytide_config::Secret;
    use keytide_dataflow::{Action, ActionId, IncidentId};
    use proptest::prelude::*;

    use super::*;

    fn action(key: KeyId, key_id: &str) -> RequestedAction {
        RequestedAction {
            id: ActionId(1),
            request: 1,
            action: Action::Suspend,
            key,
            key_id: key_id.to_owned(),
            incident: IncidentId(2),
            why: String::new(),
            consumer: String::new(),
            credential: String::new(),
            undo: None,
        }
    }

    #[test]
    fn a_key_is_proven_by_the_hash_of_a_source() {
        let hmac = KeyHash::HmacSha256 { secret: Secret::new("0123456789abcdef") };
        let all = [KeyHash::Sha256, hmac.clone(), KeyHash::Prehashed, KeyHash::None];
        for (hashes, unproven, of, expected) in [
            (&all[..1], false, Some(&all[0]), true),
            (&all[1..2], false, Some(&all[1]), true),
            (&all[1..2], false, Some(&all[0]), false),
            (&all[..2], true, None, false),
            (&all[..], false, Some(&all[1]), true),
            (&all[2..3], false, Some(&all[0]), true),
            (&all[2..3], false, None, false),
            (&all[2..3], true, None, true),
        ] {
            let key_id = of.and_then(|hash| id(hash, b"raw-key")).unwrap_or(KeyId(99));
            let proof = Proof::new(hashes.to_vec(), unproven);
            let checked = proof.check(b"raw-key", &action(key_id, &key_id.to_string()));
            assert_eq!(checked.is_ok(), expected, "{hashes:?} {of:?} {checked:?}");
        }
        // An identifier proves nothing, also beside sources whose keys can be proven.
        let named = action(KeyId::from_name("acme"), "acme");
        for (hashes, unproven) in [(&all[3..], true), (&all[..], true), (&all[3..], false), (&all[..], false)]
        {
            assert_eq!(Proof::new(hashes.to_vec(), unproven).check(b"x", &named).is_ok(), unproven);
        }
    }

    #[test]
    fn only_a_whole_mask_is_one() {
        let digits = "0123456789abcdef0123456789abcdef";
        for (text, inner) in [
            (format!("keytide-suspended.{digits}.key"), Some("key")),
            (format!("keytide-suspended.{digits}.keytide-suspended.{digits}.key"), Some("key")),
            (format!("keytide-suspended.{digits}."), Some("")),
            (format!("keytide-suspended.{digits}"), None),
            (format!("keytide-suspended.{}.key", digits.to_uppercase()), None),
            ("keytide-suspended.0123.key".to_owned(), None),
            (format!("xkeytide-suspended.{digits}.key"), None),
            (String::new(), None),
        ] {
            assert_eq!(unmasked(text.as_bytes()), inner.map(str::as_bytes), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_mask_is_taken_off_again(key in "[ -~]{0,40}", random: [u8; 16], times in 1..4) {
            let mut suspended = masked(key.as_bytes(), random);
            for _ in 1..times {
                suspended = masked(suspended.as_ref(), random);
            }
            prop_assert_eq!(unmasked(suspended.as_ref()), Some(key.as_bytes()));
        }
    }
}
