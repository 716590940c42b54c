//! Applies `[keys]`: where a record's key is found, and how it becomes a key id. No raw key gets further than this
//! file.
//!
//! * A header `authorization` holds a key as `Bearer KEY`, `ApiKey KEY` or `Token KEY` (in any case), or bare.
//!   Other schemes (Basic, Digest, request signatures) carry no API key.
//! * Of a repeated header or query argument the first value that isn't empty counts.
//! * A query argument is read from the gateway's table of arguments if the format has one. Otherwise it is read from
//!   the path's query, or from the query that the log has beside the path. It is percent-decoded, with `+` as a space.
//!   An argument without a value (`true` in JSON) is no key.
//! * A member that stands twice with different values is no identity, so the call counts under `conflicting`.
//!
//! * Every value at a place where keys are looked for is a secret, even if another value became the key. Such values
//!   are at further places, in further arguments of the query, or further elements of an array.
//!
//! However many such values a caller sends, the first rule finds the key, and all others are secrets.
//!
//! Limits: those of `secrets.rs`.

use std::net::IpAddr;

use hmac::{Hmac, KeyInit, Mac};
use keytide_config::{KeyFrom, KeyHash, KeyRules, MissingKey, Secret};
use keytide_dataflow::model::KeyId;
use sha2::{Digest, Sha256};

use super::bytes::{carried, restored};
use super::fault::Fault;
use super::raw::{EventField, RawEvent};
use super::route::{argument_value, percent_decoded};
use super::value::FieldValue;

const PREHASHED_DIGITS: usize = 32;
/// The fault of a key that must be a hash and isn't one.
pub(super) const UNHASHED: Fault =
    Fault::new("key", "must be a hash, at least 32 hexadecimal digits, optionally behind `sha256:`");

/// Finds the key of a request that a gateway asks about, as the decoder finds it in the record of that request.
///
/// A request has headers and a target. The rules for fields of records find nothing in it.
pub struct RequestKeys(KeyFinder);

impl RequestKeys {
    /// Compiles the rules of a source.
    #[must_use]
    pub fn new(rules: &KeyRules) -> Self {
        Self(KeyFinder::new(rules))
    }

    /// Returns whether a rule can find the key of a request.
    #[must_use]
    pub fn are_in_requests(&self) -> bool {
        self.0.rules.iter().any(|rule| matches!(rule, KeyFrom::Header(_) | KeyFrom::Query(_)))
    }

    /// Returns the id of a request's key. It is [`KeyId::ANONYMOUS`] without a key, and `None` if what stands in the
    /// key's place can't be one. `header` returns the first value of a header that isn't empty, by its name in lower
    /// case. `target` is the path with its query. Bytes that aren't UTF-8 hide no key.
    #[must_use]
    pub fn id<'h>(&self, header: impl Fn(&str) -> Option<&'h [u8]>, target: Option<&[u8]>) -> Option<KeyId> {
        let target = target.map(carried);
        let target = target.as_deref();
        let mut found = self.0.rules.iter().filter_map(|rule| {
            let key = match rule {
                KeyFrom::Header(name) if name == "authorization" => {
                    restored(credential(&carried(header(name)?))?).into_owned()
                }
                KeyFrom::Header(name) => header(name)?.to_vec(),
                KeyFrom::Query(name) => {
                    arguments(super::route::query(target?)?, name).next().map(argument_value)?
                }
                KeyFrom::Key
                | KeyFrom::Field(_)
                | KeyFrom::Consumer
                | KeyFrom::Credential
                | KeyFrom::User
                | KeyFrom::ClientIp => return None,
            };
            (!key.is_empty()).then_some(key)
        });
        match found.next() {
            Some(key) => self.0.id(&key).ok(),
            None => Some(KeyId::ANONYMOUS),
        }
    }
}

/// The compiled rules of one source.
pub(super) struct KeyFinder {
    rules: Vec<KeyFrom>,
    hash: Hash,
    missing: MissingKey,
}

enum Hash {
    Secret(SecretHash),
    Prehashed,
    Name,
}

/// How a raw key that is a secret becomes an id.
pub(crate) enum SecretHash {
    Sha256,
    /// HMAC-SHA-256, keyed once, cloned for every key.
    HmacSha256(Box<Hmac<Sha256>>),
}

impl SecretHash {
    /// Makes the hash HMAC-SHA-256 under a secret.
    pub(crate) fn keyed(secret: &Secret) -> Self {
        let keyed = Hmac::new_from_slice(secret.reveal().as_bytes());
        Self::HmacSha256(Box::new(keyed.expect("HMAC takes a secret of any length")))
    }

    /// The id of a raw key.
    pub(crate) fn id(&self, key: &[u8]) -> KeyId {
        KeyId::from_hash(&self.hash(key))
    }

    fn hash(&self, key: &[u8]) -> [u8; 32] {
        match self {
            Self::Sha256 => Sha256::digest(key).into(),
            Self::HmacSha256(keyed) => {
                let mut mac = keyed.clone();
                mac.update(key);
                mac.finalize().into_bytes().into()
            }
        }
    }
}

/// How views and tables name a raw key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyNames {
    /// The hash that tables have as `key_hash`, and the id that views have.
    Hashed { key_hash: [u8; 32], key_id: KeyId },
    /// The gateway logs hashes of a kind that isn't known, and this is one of them.
    Prehashed { key_id: KeyId },
    /// An identifier, which names itself.
    Itself,
}

impl KeyNames {
    /// Returns the names of a raw key at a source with this hash. Where the gateway logs hashes and the key is none,
    /// they are by SHA-256, as for the tokens of `tables.leaks`.
    #[must_use]
    pub fn of(key: &[u8], hash: &KeyHash) -> Self {
        let hash = match hash {
            KeyHash::None => return Self::Itself,
            KeyHash::Prehashed => match prehashed(key) {
                Some(key_id) => return Self::Prehashed { key_id },
                None => SecretHash::Sha256,
            },
            KeyHash::Sha256 => SecretHash::Sha256,
            KeyHash::HmacSha256 { secret } => SecretHash::keyed(secret),
        };
        let key_hash = hash.hash(key);
        Self::Hashed { key_hash, key_id: KeyId::from_hash(&key_hash) }
    }
}

impl KeyFinder {
    pub(super) fn new(rules: &KeyRules) -> Self {
        let hash = match &rules.hash {
            KeyHash::Sha256 => Hash::Secret(SecretHash::Sha256),
            KeyHash::HmacSha256 { secret } => Hash::Secret(SecretHash::keyed(secret)),
            KeyHash::Prehashed => Hash::Prehashed,
            KeyHash::None => Hash::Name,
        };
        Self { rules: rules.from.clone(), hash, missing: rules.missing }
    }

    /// Returns whether raw keys are secrets, and not names (`hash = "none"`).
    pub(super) fn are_secret(&self) -> bool {
        !matches!(self.hash, Hash::Name)
    }

    /// Returns whether a call without a key is a dead letter.
    pub(super) fn are_needed(&self) -> bool {
        self.missing == MissingKey::DeadLetter
    }

    /// Writes the record's raw key into `key`, which stays empty if the record has none. Returns the index of the rule
    /// that found it. `target` is the path with its query.
    pub(super) fn find(
        &self,
        raw: &RawEvent<'_>,
        target: Option<&str>,
        client: Option<IpAddr>,
        key: &mut Vec<u8>,
        buffer: &mut String,
    ) -> Result<Option<usize>, Fault> {
        key.clear();
        for (index, rule) in self.rules.iter().enumerate() {
            let stated = || {
                let found = raw.key_values().rev().find(|(rule, _)| usize::from(*rule) == index);
                found.map_or(FieldValue::Missing, |(_, value)| value)
            };
            let value = match rule {
                KeyFrom::Header(_) | KeyFrom::Field(_) | KeyFrom::Query(_) => stated(),
                KeyFrom::Key => raw.get(EventField::Key),
                KeyFrom::Consumer => raw.get(EventField::Consumer),
                KeyFrom::Credential => raw.get(EventField::Credential),
                KeyFrom::User => raw.get(EventField::User),
                KeyFrom::ClientIp => {
                    if let Some(client) = client {
                        key.extend_from_slice(client.to_string().as_bytes());
                    }
                    FieldValue::Missing
                }
            };
            // A flag is an argument without a value, and no rule can mean an object.
            if let Ok(text) = value.text(buffer) {
                let text = match (rule, text) {
                    (KeyFrom::Header(name), Some(text)) if name == "authorization" => credential(text),
                    (_, text) => text,
                };
                key.extend_from_slice(&restored(text.unwrap_or("")));
            }
            if let (KeyFrom::Query(name), true) = (rule, key.is_empty()) {
                let query = match target.and_then(super::route::query) {
                    Some(query) => Some(query),
                    None => raw.get(EventField::Query).text(buffer).ok().flatten(),
                };
                *key = query
                    .and_then(|query| arguments(query, name).next())
                    .map(argument_value)
                    .unwrap_or_default();
            }
            if !key.is_empty() {
                return Ok(Some(index));
            }
        }
        match self.missing {
            MissingKey::Anonymous => Ok(None),
            MissingKey::DeadLetter => Err(Fault::new("key", "missing, and `keys.missing` is dead_letter")),
        }
    }

    /// Returns the id of a raw key as [`find`](Self::find) wrote it, or a fault if the key must be a hash and isn't
    /// one.
    pub(super) fn id(&self, key: &[u8]) -> Result<KeyId, Fault> {
        match &self.hash {
            _ if key.is_empty() => Ok(KeyId::ANONYMOUS),
            Hash::Secret(hash) => Ok(hash.id(key)),
            Hash::Prehashed => prehashed(key).ok_or(UNHASHED),
            // Names of other bytes differ as these do.
            Hash::Name => Ok(KeyId::from_name(&carried(key))),
        }
    }

    /// Returns the id that replaces a secret in identities. It is the secret's id as a key, or as if it were hashed.
    pub(super) fn secret_id(&self, secret: &[u8]) -> KeyId {
        match &self.hash {
            Hash::Secret(hash) => hash.id(secret),
            Hash::Prehashed | Hash::Name => {
                prehashed(secret).unwrap_or_else(|| SecretHash::Sha256.id(secret))
            }
        }
    }

    /// Calls `each` with every undecoded value of the query arguments in which keys are looked for. It reads the path's
    /// query, and the one that is logged beside the path.
    fn each_argument(&self, raw: &RawEvent<'_>, target: Option<&str>, mut each: impl FnMut(&str)) {
        let mut buffer = String::new();
        for rule in &self.rules {
            if let KeyFrom::Query(name) = rule {
                let beside = raw.get(EventField::Query).text(&mut buffer).ok().flatten();
                let queries = target.and_then(super::route::query).into_iter().chain(beside);
                queries.for_each(|query| arguments(query, name).for_each(&mut each));
            }
        }
    }

    /// Calls `each` with every secret of the record, which are its key and the other values where keys are looked for.
    /// Each comes in the forms in which it stands there and decoded, beside the secret itself. `target` is the path
    /// with its query.
    pub(super) fn each_secret(
        &self,
        raw: &RawEvent<'_>,
        target: Option<&str>,
        key: &[u8],
        buffer: &mut String,
        mut each: impl FnMut(&[u8], &[u8]),
    ) {
        each(key, key);
        for value in raw.secrets().chain([raw.get(EventField::Key)]) {
            match value {
                // Mostly the key itself, in the one place where it stands.
                FieldValue::Plain(text) if text.as_bytes() == key => {}
                FieldValue::Array(_) => {
                    value.elements().for_each(|element| each_form(element, buffer, &mut each))
                }
                _ => each_form(value, buffer, &mut each),
            }
        }
        self.each_argument(raw, target, |argument| {
            let secret = argument_value(argument);
            each(argument.as_bytes(), &secret);
            each(&secret, &secret);
            // In a path a plus is a plus.
            if argument.contains('+') {
                each(&percent_decoded(argument), &secret);
            }
        });
    }
}

/// Calls `each` with a secret as it stands, decoded, and without a scheme before it, whatever the scheme is.
fn each_form(value: FieldValue<'_>, buffer: &mut String, each: &mut impl FnMut(&[u8], &[u8])) {
    if let Ok(Some(text)) = value.text(buffer) {
        let text = restored(text);
        each(value.verbatim().as_bytes(), &text);
        each(&text, &text);
        if let Some(blank) = memchr::memrchr(b' ', &text) {
            each(&text[blank + 1..], &text[blank + 1..]);
        }
    }
}

/// The key in a header `authorization`, or `None` for a scheme that carries no key.
fn credential(text: &str) -> Option<&str> {
    let text = text.trim();
    let (scheme, key) = text.split_once(' ').unwrap_or((text, ""));
    let known = ["bearer", "apikey", "token"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    match (known, key) {
        (true, key) => Some(key.trim_start()),
        (false, "") => Some(text),
        (false, _) => None,
    }
}

/// Iterates over the values of a query argument that aren't empty, still encoded.
fn arguments<'q>(query: &'q str, wanted: &str) -> impl Iterator<Item = &'q str> {
    let pairs = query.strip_prefix('?').unwrap_or(query).split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter_map(move |(name, value)| {
        let is_encoded = || name.contains(['%', '+']) && argument_value(name) == wanted.as_bytes();
        (!value.is_empty() && (name == wanted || is_encoded())).then_some(value)
    })
}

/// Returns the id of a key by its hash: at least 32 hexadecimal digits, optionally after `sha256:`.
#[must_use]
pub fn prehashed(key: &[u8]) -> Option<KeyId> {
    let digits = str::from_utf8(key.strip_prefix(b"sha256:").unwrap_or(key)).ok()?;
    let are_digits = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let id = u128::from_str_radix(digits.get(..PREHASHED_DIGITS)?, 16).ok();
    id.filter(|_| are_digits).map(KeyId)
}

#[cfg(test)]
mod tests {
    use keytide_config::Pointer;

    #[test]
    fn the_key_of_a_request_is_that_of_its_record() {
        let rules = |from: Vec<KeyFrom>, hash| KeyRules { from, hash, missing: MissingKey::Anonymous };
        let header = |name: &str| KeyFrom::Header(name.to_owned());
        let from =
            vec![KeyFrom::Key, header("apikey"), KeyFrom::Query("k".to_owned()), header("authorization")];
        let keys = RequestKeys::new(&rules(from.clone(), KeyHash::Sha256));
        let id = |headers: &[(&str, &'static [u8])], target: Option<&str>| {
            let target = target.map(str::as_bytes);
            let find = |name: &str| headers.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
            keys.id(find, target)
        };
        let of = |key: &[u8]| Some(SecretHash::Sha256.id(key));
        assert_eq!(
            id(&[("apikey", b"one"), ("authorization", b"Bearer two")], Some("/?k=three")),
            of(b"one")
        );
        assert_eq!(id(&[("authorization", b"bearer  two")], Some("/a?k=&k=a%2Bb+c#k=d")), of(b"a+b c"));
        assert_eq!(id(&[("authorization", b"bearer  two")], Some("/a")), of(b"two"));
        assert_eq!(id(&[("apikey", b"\xff")], None), of(b"\xff"));
        assert_eq!(id(&[("authorization", b"Token \xff")], None), of(b"\xff"));
        for none in [&[("authorization", &b"Basic eA=="[..])][..], &[]] {
            assert_eq!(id(none, None), Some(KeyId::ANONYMOUS));
        }
        for (target, key) in [(&b"/\xff?\xfe=1&k=a"[..], &b"a"[..]), (b"/?k=\xff%FE", b"\xff\xfe")] {
            assert_eq!(keys.id(|_| None, Some(target)), of(key));
        }
        assert!(keys.are_in_requests());
        let names = RequestKeys::new(&rules(vec![header("x-id")], KeyHash::None));
        assert_eq!(names.id(|_| Some(b"acme"), None), Some(KeyId::from_name("acme")));
        let hashes = RequestKeys::new(&rules(vec![header("x-id")], KeyHash::Prehashed));
        assert_eq!(hashes.id(|_| Some(b"no hash"), None), None);
        assert!(!RequestKeys::new(&rules(vec![KeyFrom::ClientIp], KeyHash::None)).are_in_requests());
    }

    use super::*;

    const RAW: &str = "kt_demo_9f3b1c77a2d04e5e8c61b0a4d7e2f913";

    fn keys(from: Vec<KeyFrom>, hash: KeyHash, missing: MissingKey) -> KeyFinder {
        KeyFinder::new(&KeyRules { from, hash, missing })
    }

    fn found(keys: &KeyFinder, raw: &RawEvent<'_>, target: Option<&str>) -> Result<Vec<u8>, Fault> {
        let mut key = Vec::new();
        keys.find(raw, target, "2001:db8::1".parse().ok(), &mut key, &mut String::new()).map(|_| key)
    }

    fn header(value: FieldValue<'_>) -> RawEvent<'_> {
        let mut raw = RawEvent::default();
        raw.set_key_value(0, value);
        raw
    }

    #[test]
    fn a_key_is_named_as_its_calls_are() {
        for hash in [KeyHash::Sha256, KeyHash::HmacSha256 { secret: Secret::new("a secret of many bytes") }] {
            let finder = keys(vec![KeyFrom::Key], hash.clone(), MissingKey::Anonymous);
            let KeyNames::Hashed { key_hash, key_id } = KeyNames::of(RAW.as_bytes(), &hash) else { panic!() };
            assert_eq!(finder.id(RAW.as_bytes()), Ok(key_id));
            assert_eq!(KeyId::from_hash(&key_hash), key_id);
        }
        let sha256 = KeyNames::of(RAW.as_bytes(), &KeyHash::Sha256);
        assert_eq!(KeyNames::of(RAW.as_bytes(), &KeyHash::Prehashed), sha256);
        let logged = "sha256:00112233445566778899aabbccddeeff";
        let key_id = KeyId(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
        assert_eq!(KeyNames::of(logged.as_bytes(), &KeyHash::Prehashed), KeyNames::Prehashed { key_id });
        assert_eq!(KeyNames::of(RAW.as_bytes(), &KeyHash::None), KeyNames::Itself);
    }

    #[test]
    fn rules_in_order() {
        let from = vec![
            KeyFrom::Header("apikey".into()),
            KeyFrom::Query("key".into()),
            KeyFrom::Key,
            KeyFrom::Field(Pointer(vec!["x".into()])),
            KeyFrom::Consumer,
            KeyFrom::Credential,
            KeyFrom::User,
            KeyFrom::ClientIp,
        ];
        let keys = keys(from, KeyHash::Sha256, MissingKey::Anonymous);
        let mut raw = RawEvent::default();
        assert_eq!(found(&keys, &raw, None).unwrap(), b"2001:db8::1");
        for (name, value) in
            [(EventField::User, "u"), (EventField::Credential, "r"), (EventField::Consumer, "c")]
        {
            raw.set(name, FieldValue::Plain(value));
            assert_eq!(found(&keys, &raw, None).unwrap(), value.as_bytes());
        }
        raw.set_key_value(3, FieldValue::Number("3"));
        assert_eq!(found(&keys, &raw, None).unwrap(), b"3");
        raw.set(EventField::Key, FieldValue::Json("\\u006b"));
        assert_eq!(found(&keys, &raw, None).unwrap(), b"k");
        let target = "/a?x=1&key&key=&%6Bey=a%2Bb+c%FF&key=z";
        assert_eq!(found(&keys, &raw, Some(target)).unwrap(), b"a+b c\xFF");
        raw.set_key_value(1, FieldValue::Flag(true));
        assert_eq!(found(&keys, &raw, None).unwrap(), b"k");
        raw.set_key_value(1, FieldValue::Array(r#"[true,"","q"]"#));
        assert_eq!(found(&keys, &raw, Some(target)).unwrap(), b"q");
        raw.set_key_value(0, FieldValue::Plain("first"));
        raw.set_key_value(0, FieldValue::Plain("last"));
        assert_eq!(found(&keys, &raw, Some(target)).unwrap(), b"last");
        let mut secrets = Vec::new();
        keys.each_secret(&raw, Some(target), b"last", &mut String::new(), |form, _| {
            secrets.push(form.to_vec());
        });
        for secret in [&b"first"[..], b"last", b"q", b"k", b"3", b"a+b c\xFF", b"a+b+c\xFF", b"z"] {
            assert!(secrets.contains(&secret.to_vec()), "{secret:?}");
        }
    }

    #[test]
    fn authorization_schemes() {
        let keys =
            keys(vec![KeyFrom::Header("authorization".into())], KeyHash::Sha256, MissingKey::Anonymous);
        for (text, expected) in [
            ("Bearer abc", "abc"),
            ("bearer  abc", "abc"),
            ("ApiKey abc", "abc"),
            ("TOKEN abc", "abc"),
            ("abc", "abc"),
            ("Basic dXNlcjpwYXNz", ""),
            ("Digest username=x", ""),
            ("Bearer", ""),
            ("Bearer ", ""),
        ] {
            assert_eq!(
                found(&keys, &header(FieldValue::Plain(text)), None).unwrap(),
                expected.as_bytes(),
                "{text}"
            );
        }
    }

    #[test]
    fn missing_keys() {
        let raw = header(FieldValue::Missing);
        let lenient = keys(vec![KeyFrom::Key], KeyHash::Sha256, MissingKey::Anonymous);
        assert_eq!(found(&lenient, &raw, None).unwrap(), b"");
        assert_eq!(lenient.id(b"").unwrap(), KeyId::ANONYMOUS);
        let strict = keys(vec![KeyFrom::Key], KeyHash::Sha256, MissingKey::DeadLetter);
        assert!(found(&strict, &raw, None).is_err());
        let wrong = keys(vec![KeyFrom::Header("x".into())], KeyHash::Sha256, MissingKey::Anonymous);
        assert_eq!(found(&wrong, &header(FieldValue::Object), None).unwrap(), b"", "it says nothing");
    }

    #[test]
    fn hashes() {
        let id = |hash, key: &str| {
            keys(vec![], hash, MissingKey::Anonymous).id(key.as_bytes()).map(|id| id.to_string())
        };
        // FIPS 180-2, appendix B.1, and RFC 4231, test case 2.
        assert_eq!(id(KeyHash::Sha256, "abc").unwrap(), "ba7816bf8f01cfea414140de5dae2223");
        let hmac = KeyHash::HmacSha256 { secret: Secret::new("Jefe") };
        assert_eq!(id(hmac, "what do ya want for nothing?").unwrap(), "5bdcc146bf60754e6a042426089575c7");
        let digits = "BA7816BF8f01cfea414140de5dae2223";
        for key in [
            digits.to_owned(),
            format!("sha256:{digits}"),
            format!("{digits}b00361a396177a9cb410ff61f20015ad"),
        ] {
            assert_eq!(id(KeyHash::Prehashed, &key).unwrap(), digits.to_lowercase());
        }
        for key in
            [&digits[1..], "md5:ba7816bf8f01cfea414140de5dae2223", RAW, "ba7816bf8f01cfea414140de5dae2223g"]
        {
            assert!(id(KeyHash::Prehashed, key).is_err());
        }
        assert_eq!(id(KeyHash::None, "acme").unwrap(), KeyId::from_name("acme").to_string());
    }
}
