//! Signed links: tokens of consumers that a portal asks for, and that end by themselves.
//!
//! ```text
//! keytide-link.<expiry in ms, hexadecimal>.<customer, base64url>.<HMAC-SHA256 of all before, base64url>
//! ```
//! Such a token opens what a consumer's does. The API keeps none of them: the signature is the proof, and is compared in time
//! that doesn't depend on its bytes. The expiry is judged at each request. A link can't be taken back, so it lasts a day at
//! most. A new `[pages].link_secret` ends all of them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use keytide_config::Secret;
use sha2::Sha256;

/// The beginning of every link's token.
const PREFIX: &str = "keytide-link.";
/// How long a link may last, in s.
pub(super) const LINK_SECONDS: std::ops::RangeInclusive<u64> = 60..=86_400;

/// Returns the path of the page that a link's token opens. Browsers don't send what stands behind the `#`.
pub(super) fn path_of(token: &str) -> String {
    format!("/me#token={token}")
}

/// Signs links, and knows its own again.
#[derive(Clone)]
pub(super) struct Links {
    key: Hmac<Sha256>,
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Links(***)")
    }
}

/// A link that is signed by this API, and whose time isn't over.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) customer: String,
    pub(super) expires_at: u64,
}

impl Links {
    /// Makes links that the secret signs.
    pub(super) fn new(secret: &Secret) -> Self {
        Self::of_key(secret.reveal().as_bytes())
    }

    /// Makes links that end with this process.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub(super) fn of_this_process() -> std::io::Result<Self> {
        let mut key = [0; 32];
        std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut key)?;
        Ok(Self::of_key(&key))
    }

    fn of_key(key: &[u8]) -> Self {
        Self { key: Hmac::new_from_slice(key).expect("a key of any length") }
    }

    /// Returns the token of a link that ends at `expires_at`, in ms since the epoch.
    pub(super) fn sign(&self, Link { customer, expires_at }: &Link) -> String {
        let said = format!("{PREFIX}{expires_at:x}.{}", URL_SAFE_NO_PAD.encode(customer));
        let signature = self.key.clone().chain_update(&said).finalize().into_bytes();
        format!("{said}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Returns the link of a token; `None` if it is none, or its time is over.
    pub(super) fn read(&self, token: &[u8], now_ms: u64) -> Option<Link> {
        let token = std::str::from_utf8(token).ok()?;
        let (said, signature) = token.strip_prefix(PREFIX).and_then(|_| token.rsplit_once('.'))?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        self.key.clone().chain_update(said).verify_slice(&signature).ok()?;
        let (expires_at, customer) = said.strip_prefix(PREFIX)?.split_once('.')?;
        let expires_at = u64::from_str_radix(expires_at, 16).ok()?;
        let customer = String::from_utf8(URL_SAFE_NO_PAD.decode(customer).ok()?).ok()?;
        (now_ms < expires_at).then_some(Link { customer, expires_at })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn links() -> Links {
        Links::new(&Secret::new("a secret of the operator's"))
    }

    #[test]
    fn a_link_is_known_again_until_it_ends() {
        let link = Link { customer: "cus_1".to_owned(), expires_at: 1_000 };
        let token = links().sign(&link);
        assert_eq!(links().read(token.as_bytes(), 999), Some(link));
        assert_eq!(links().read(token.as_bytes(), 1_000), None);
        assert_eq!(Links::new(&Secret::new("another")).read(token.as_bytes(), 0), None);
        let own = Links::of_this_process().unwrap();
        assert_eq!(own.read(token.as_bytes(), 0), None);
        assert!(own.read(own.sign(&Link { customer: String::new(), expires_at: 9 }).as_bytes(), 8).is_some());
        assert_eq!(format!("{:?}", links()), "Links(***)");
    }

    proptest! {
        /// No change of a token by one byte, or by an end cut off, opens anything.
        #[test]
        fn nothing_else_is_a_link(
            customer in "\\PC{0,20}", expires_at in 1_u64.., at: prop::sample::Index, byte: u8, cut: bool,
        ) {
            let link = Link { customer, expires_at };
            let token = links().sign(&link).into_bytes();
            let at = at.index(token.len());
            let mut changed = token.clone();
            if cut { changed.truncate(at) } else { changed[at] = byte }
            prop_assume!(changed != token);
            prop_assert_eq!(links().read(&token, expires_at - 1), Some(link));
            prop_assert_eq!(links().read(&changed, 0), None);
        }
    }
}
