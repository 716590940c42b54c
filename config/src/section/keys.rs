//! The sections `[keys]` and `[source.keys]`, which locate the key of a call and turn it into a key id.
//!
//! Limits: 8 rules a list, names of headers and query arguments of 256 bytes.

use std::fmt;

use super::fields::{FieldMap, Pointer, names_variable, pointer};
use super::format::Format;
use super::prelude::*;
use crate::pattern::{LineField, LinePattern, header_name};

/// Rules of one list, at most.
const MAX_RULES: usize = 8;
/// Bytes of a header's or a query argument's name.
const MAX_ARGUMENT_BYTES: usize = 256;

section! {
    /// The rules that locate the key of a call and turn it into a key id.
    #[derive(Clone, Debug)]
    pub struct KeyRules, RawKeys, by hand {
        /// The rules in their order; the first that finds a non-empty value wins.
        results from: Vec<KeyFrom> = from(List<KeyFrom>);
        /// The function that turns the value into a key id.
        results hash: KeyHash = hash(HashKind);
        key secret(SecretRef);
        /// The treatment of a call without a key.
        results missing: MissingKey = missing(MissingKey);
    }
}

/// A rule that locates the key of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyFrom {
    /// A request header by its name in lower case.
    Header(String),
    Query(String),
    /// The field that `[source.fields].key` names.
    Key,
    /// A field by JSON pointer.
    Field(Pointer),
    Consumer,
    Credential,
    User,
    /// The caller's address, behind trusted proxies.
    ClientIp,
}

/// The function that turns a raw key into a key id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyHash {
    /// SHA-256 of the raw key.
    Sha256,
    /// HMAC-SHA-256 of the raw key under a secret.
    HmacSha256 { secret: Secret },
    /// The gateway logs a hash of at least 32 hexadecimal digits, optionally after `sha256:`.
    Prehashed,
    /// The value is an identifier and no secret, and becomes the key id itself.
    None,
}

impl KeyHash {
    /// Returns whether ids are hashes of raw keys, so that a raw key proves which id is its own.
    #[must_use]
    pub fn is_of_raw_keys(&self) -> bool {
        matches!(self, Self::Sha256 | Self::HmacSha256 { .. })
    }

    /// Returns its name in the configuration file.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Sha256 => HashKind::Sha256.name(),
            Self::HmacSha256 { .. } => HashKind::HmacSha256.name(),
            Self::Prehashed => HashKind::Prehashed.name(),
            Self::None => HashKind::None.name(),
        }
    }
}

choice! {
    /// The values of `hash` in `[keys]`.
    pub(crate) enum HashKind {
        Sha256 = "sha256",
        HmacSha256 = "hmac-sha256",
        Prehashed = "prehashed",
        None = "none",
    }
    // A user may write the secret here by mistake, and it must not get into a log.
    hidden true;
}

choice! {
    /// The treatment of a call without a key.
    #[derive(Default)]
    pub enum MissingKey {
        /// The call counts under the key id `anonymous`.
        #[default]
        Anonymous = "anonymous",
        DeadLetter = "dead_letter",
    }
}

impl Fingerprint for KeyFrom {
    fn add_to(&self, encoder: &mut Encoder) {
        encoder.text(&self.to_string());
    }
}

impl Fingerprint for KeyHash {
    fn add_to(&self, encoder: &mut Encoder) {
        encoder.text(self.name());
        match self {
            Self::HmacSha256 { secret } => encoder.text(secret.reveal()),
            Self::Sha256 | Self::Prehashed | Self::None => {}
        }
    }
}

/// The rules that are a single word.
const WORDS: [(&str, KeyFrom); 5] = [
    ("key", KeyFrom::Key),
    ("consumer", KeyFrom::Consumer),
    ("credential", KeyFrom::Credential),
    ("user", KeyFrom::User),
    ("client_ip", KeyFrom::ClientIp),
];

impl Scalar for KeyFrom {
    fn allowed() -> String {
        "header:NAME, query:NAME, key, field:/POINTER, consumer, credential, user, client_ip".to_owned()
    }

    fn parse(value: &TomlValue) -> Result<Self, Refusal> {
        let text = text(value)?;
        let (kind, argument) = text.split_once(':').map_or((text, None), |(kind, rest)| (kind, Some(rest)));
        let rule = match (kind, argument) {
            ("header", Some(name)) => is_header(name).then(|| Self::Header(name.to_ascii_lowercase())),
            ("query", Some(name)) => is_argument(name).then(|| Self::Query(name.to_owned())),
            ("field", Some(at)) => pointer(at).map(Self::Field),
            (kind, None) => WORDS.into_iter().find(|(word, _)| *word == kind).map(|(_, rule)| rule),
            _ => None,
        };
        let kinds = ["header", "query", "key", "field", "consumer", "credential", "user", "client_ip"];
        rule.ok_or_else(|| Refusal {
            hint: did_you_mean(nearest(kind, kinds).filter(|near| *near != kind)),
            ..Refusal::default()
        })
    }
}

/// Returns whether a name is that of a header, which is a token of RFC 9110.
fn is_header(name: &str) -> bool {
    (1..=MAX_ARGUMENT_BYTES).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

fn is_argument(name: &str) -> bool {
    (1..=MAX_ARGUMENT_BYTES).contains(&name.len()) && !name.contains(char::is_control)
}

impl fmt::Display for KeyFrom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
            Self::Field(pointer) => write!(f, "field:{pointer}"),
            Self::Key | Self::Consumer | Self::Credential | Self::User | Self::ClientIp => {
                let word = WORDS.into_iter().find(|(_, rule)| rule == self);
                f.write_str(word.map_or("", |(word, _)| word))
            }
        }
    }
}

/// The section `[source.keys]`, completed by `[keys]` key by key.
pub(crate) struct Keys<'a> {
    from: &'a Entry<List<KeyFrom>>,
    hash: &'a Entry<HashKind>,
    secret: &'a Entry<SecretRef>,
    missing: &'a Entry<MissingKey>,
}

impl<'a> Keys<'a> {
    pub(crate) fn new(own: &'a RawKeys, global: &'a RawKeys) -> Self {
        fn either<'a, T>(own: &'a Entry<T>, global: &'a Entry<T>) -> &'a Entry<T> {
            if own.is_absent() { global } else { own }
        }
        Self {
            from: either(&own.from, &global.from),
            hash: either(&own.hash, &global.hash),
            secret: either(&own.secret, &global.secret),
            missing: either(&own.missing, &global.missing),
        }
    }

    /// Returns the secret that the hash uses, or might use if the hash weren't refused.
    pub(crate) fn used_secret(&self) -> Option<&'a Spot<SecretRef>> {
        let spot = self.secret.given()?;
        let is_used =
            matches!(self.hash, Entry::Refused | Entry::Given(Spot { value: HashKind::HmacSha256, .. }));
        is_used.then_some(spot)
    }

    pub(crate) fn rules(&self, check: &mut Check<'_>) -> Option<KeyRules> {
        let from = match self.from.given() {
            Some(list) => list_of_rules(list, check),
            None => Some(default_rules()),
        };
        let hash = match self.hash.given().map(|hash| (hash.value, hash)) {
            None | Some((HashKind::Sha256, _)) => Some(KeyHash::Sha256),
            Some((HashKind::Prehashed, _)) => Some(KeyHash::Prehashed),
            Some((HashKind::None, _)) => Some(KeyHash::None),
            Some((HashKind::HmacSha256, hash)) => {
                if self.secret.is_absent() {
                    let allowed = SecretRef::allowed();
                    check.refuse(hash, format!("hmac-sha256 needs a `secret` beside it, allowed: {allowed}"));
                }
                let secret = self.secret.given().and_then(|secret| check.secret(secret));
                secret.map(|secret| KeyHash::HmacSha256 { secret })
            }
        };
        let missing = self.missing.value().copied().unwrap_or_default();
        Some(KeyRules { from: from?, hash: hash?, missing })
    }

    /// Warns of rules that don't fit the records, and refuses a raw key as an id. Messages name the source by its
    /// location and name.
    pub(crate) fn judge(
        &self,
        rules: &KeyRules,
        (location, name): (&Location, &str),
        (format, pattern): (Format, Option<&LinePattern>),
        fields: &FieldMap,
        check: &mut Check<'_>,
    ) {
        let finds = |rule: &&KeyFrom| match pattern {
            Some(pattern) => finds_keys_in_line(rule, pattern, fields),
            None => finds_keys(rule, format, fields),
        };
        let usable: Vec<&KeyFrom> = rules.from.iter().filter(finds).collect();
        if usable.is_empty() {
            let listed = rules.from.iter().map(KeyFrom::to_string).collect::<Vec<_>>().join(", ");
            let location = self.from.given().map_or(location, |from| &from.location);
            let message = format!(
                "source {name}: no rule of keys.from ({listed}) can find a key in format {}, so that no call has one",
                format.name()
            );
            check.warn(location, message);
        }
        let Some(hash) = self.hash.given().filter(|hash| hash.value == HashKind::None) else { return };
        let list = if self.from.is_absent() { "the default keys.from" } else { "keys.from" };
        for rule in usable {
            // Headers and arguments follow a convention, but a field with such a name may hold an identifier.
            match rule {
                KeyFrom::Header(name) | KeyFrom::Query(name) if names_secret(name) => {
                    let message = format!(
                        "found \"none\" with {rule} in {list}, which usually holds a raw key: it would stand \
                         in every output; allowed: another hash, or a rule that finds an identifier"
                    );
                    check.refuse(hash, message);
                }
                KeyFrom::Field(at) if !at.0.last().is_some_and(|name| names_secret(name)) => {}
                KeyFrom::Header(_) | KeyFrom::Query(_) | KeyFrom::Key | KeyFrom::Field(_) => {
                    let message = format!(
                        "found \"none\" with {rule} in {list}: what stands there is written to every output as it is, \
                         make sure that it is an identifier and no raw key"
                    );
                    check.warn(hash, message);
                }
                KeyFrom::Consumer | KeyFrom::Credential | KeyFrom::User | KeyFrom::ClientIp => {}
            }
        }
    }
}

fn list_of_rules(list: &Spot<List<KeyFrom>>, check: &mut Check<'_>) -> Option<Vec<KeyFrom>> {
    let found = list.value.items.len();
    if !list.value.refused && !(1..=MAX_RULES).contains(&found) {
        check.refuse(list, format!("found {found} rules, allowed: 1 to {MAX_RULES}"));
        return None;
    }
    Some(list.value.items.iter().map(|rule| rule.value.clone()).collect())
}

/// Returns the default rules: a header or a query argument called `apikey`, or the field mapped as `key`.
fn default_rules() -> Vec<KeyFrom> {
    vec![KeyFrom::Header("apikey".to_owned()), KeyFrom::Query("apikey".to_owned()), KeyFrom::Key]
}

/// Returns whether records of a format can have the part that the rule reads.
fn finds_keys(rule: &KeyFrom, format: Format, fields: &FieldMap) -> bool {
    let gateway = matches!(format, Format::Apisix | Format::Kong);
    match rule {
        // The operator chooses which headers Envoy and NGINX log.
        KeyFrom::Header(_) => {
            gateway || matches!(format, Format::Envoy | Format::Nginx | Format::Otel | Format::Cloudfront)
        }
        KeyFrom::Query(_) => {
            !matches!(format, Format::Json | Format::Cloudevents | Format::AwsApigateway)
                || [&fields.path, &fields.query, &fields.request].iter().any(|field| field.is_some())
        }
        KeyFrom::Key => format == Format::AwsApigateway || fields.key.is_some(),
        KeyFrom::Field(_) => !matches!(format, Format::Combined | Format::Alb | Format::Cloudfront),
        KeyFrom::Consumer => gateway || format == Format::Cloudevents || fields.consumer.is_some(),
        KeyFrom::Credential => gateway || format == Format::AwsApigateway || fields.credential.is_some(),
        KeyFrom::User => {
            let known =
                [Format::Combined, Format::AwsApigateway, Format::Nginx, Format::Otel, Format::Cloudfront];
            known.contains(&format) || fields.user.is_some()
        }
        KeyFrom::ClientIp => {
            !matches!(format, Format::Json | Format::Cloudevents) || fields.client_ip.is_some()
        }
    }
}

/// Returns whether lines of a pattern have the part that the rule reads.
fn finds_keys_in_line(rule: &KeyFrom, pattern: &LinePattern, fields: &FieldMap) -> bool {
    let has = |wanted: fn(&LineField) -> bool| {
        pattern.variables().any(|variable| variable.field.as_ref().is_some_and(|(field, _)| wanted(field)))
    };
    match rule {
        KeyFrom::Header(name) => {
            pattern.variables().any(|variable| variable.headers.contains(&header_name(name)))
        }
        KeyFrom::Query(name) => {
            has(|field| matches!(field, LineField::Path | LineField::Query | LineField::Request))
                || pattern.variables().any(|variable| variable.argument.as_ref() == Some(name))
                || fields.path.is_some()
        }
        KeyFrom::Field(at) => names_variable(at, pattern),
        KeyFrom::Key => has(|field| *field == LineField::Key) || fields.key.is_some(),
        KeyFrom::Consumer => fields.consumer.is_some(),
        KeyFrom::Credential => has(|field| *field == LineField::Credential) || fields.credential.is_some(),
        KeyFrom::User => has(|field| *field == LineField::User) || fields.user.is_some(),
        KeyFrom::ClientIp => has(|field| *field == LineField::ClientIp) || fields.client_ip.is_some(),
    }
}

/// Returns whether headers, arguments or fields of this name usually hold secrets.
fn names_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace(['-', '_'], "");
    let parts = ["apikey", "authorization", "cookie", "password", "secret", "token", "subscriptionkey"];
    !name.ends_with("id")
        && (matches!(name.as_str(), "key" | "auth") || parts.iter().any(|part| name.contains(part)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::*;

    fn read(text: &str) -> Option<KeyFrom> {
        KeyFrom::parse(&TomlValue::Text(text.to_owned())).ok()
    }

    #[test]
    fn key_rules_name_a_place() {
        for (text, rule) in [
            ("header:X-Api-Key", Some(KeyFrom::Header("x-api-key".to_owned()))),
            ("query:ApiKey", Some(KeyFrom::Query("ApiKey".to_owned()))),
            ("query:a:b", Some(KeyFrom::Query("a:b".to_owned()))),
            ("field:/a/b", Some(KeyFrom::Field(Pointer(vec!["a".to_owned(), "b".to_owned()])))),
            ("key", Some(KeyFrom::Key)),
            ("client_ip", Some(KeyFrom::ClientIp)),
            ("header:", None),
            ("header:x api", None),
            ("header:ключ", None),
            ("header", None),
            ("key:x", None),
            ("field:a", None),
            ("Key", None),
            ("", None),
        ] {
            assert_eq!(read(text), rule, "{text}");
        }
        let refusal = KeyFrom::parse(&TomlValue::Text("headers:apikey".to_owned())).unwrap_err();
        assert_eq!(refusal.hint.as_deref(), Some("did you mean \"header\"?"));
    }

    #[test]
    fn a_source_overrides_key_by_key() {
        let text = format!(
            "[keys]\nfrom = [\"consumer\"]\nhash = \"prehashed\"\nmissing = \"dead_letter\"\n{SMALL}[source.keys]\nhash = \"sha256\"\n{}",
            SMALL.replace("gateway", "other").replace("logs", "other")
        );
        let job = job(&text);
        let [first, second] = job.sources.as_slice() else { panic!("two sources") };
        for rules in [&first.keys, &second.keys] {
            assert_eq!(rules.from, [KeyFrom::Consumer]);
            assert_eq!(rules.missing, MissingKey::DeadLetter);
        }
        assert_eq!((first.keys.hash.name(), second.keys.hash.name()), ("sha256", "prehashed"));
    }

    #[test]
    fn one_secret_serves_the_sources_that_hash_with_it() {
        let text = format!(
            "[keys]\nsecret = \"env:SECRET\"\n{SMALL}[source.keys]\nhash = \"hmac-sha256\"\n{}",
            SMALL.replace("gateway", "other").replace("logs", "other")
        );
        let loaded = parse_with(&text, &[("SECRET", "an old and long secret")]).unwrap();
        assert_eq!(loaded.warnings, []);
        assert_eq!(
            (loaded.job.sources[0].keys.hash.name(), loaded.job.sources[1].keys.hash.name()),
            ("hmac-sha256", "sha256")
        );
    }

    #[test]
    fn wrong_values_are_reported_with_their_location() {
        let with = |lines: &str| format!("{SMALL}{lines}");
        for (text, expected) in [
            (with("[keys]\nfrom = []"), "line 7: keys.from: found 0 rules, allowed: 1 to 8"),
            (
                with("[keys]\nfrom = \"key\""),
                "line 7: keys.from: found \"key\", allowed: a list, written […, …]",
            ),
            (
                with("[keys]\nsecret = \"env:X\""),
                "line 7: keys.secret: no key is hashed with it, allowed: only with hash = \"hmac-sha256\"",
            ),
            (
                with("[keys]\nhash = \"hmac-sha256\"\nsecret = \"env:NOT_THERE\""),
                "line 8: keys.secret: environment variable NOT_THERE isn't set",
            ),
            (
                with("[keys]\nhash = \"none\""),
                "line 7: keys.hash: found \"none\" with header:apikey in the default keys.from, which usually holds a raw key: it would stand in every output; allowed: another hash, or a rule that finds an identifier\nline 7: keys.hash: found \"none\" with query:apikey in the default keys.from, which usually holds a raw key: it would stand in every output; allowed: another hash, or a rule that finds an identifier",
            ),
        ] {
            assert_eq!(problems(&text), expected, "{text}");
        }
    }

    #[test]
    fn suspicious_values_are_warnings() {
        let with = |lines: &str| format!("{SMALL}{lines}");
        for (text, expected) in [
            (SMALL.to_owned(), ""),
            (
                with(
                    "[keys]\nhash = \"none\"\nfrom = [\"consumer\", \"credential\", \"user\", \"client_ip\", \"field:/id\"]",
                ),
                "",
            ),
            (
                with("[keys]\nhash = \"none\"\nfrom = [\"header:x-client-id\", \"consumer\"]"),
                "line 7: keys.hash: found \"none\" with header:x-client-id in keys.from: what stands there is written to every output as it is, make sure that it is an identifier and no raw key",
            ),
            (
                with("[keys]\nhash = \"none\"\nfrom = [\"field:/request/headers/X-Api-Key\"]"),
                "line 7: keys.hash: found \"none\" with field:/request/headers/X-Api-Key in keys.from: what stands there is written to every output as it is, make sure that it is an identifier and no raw key",
            ),
            (
                JSON.to_owned() + "[keys]\nhash = \"none\"\nfrom = [\"key\"]",
                "line 10: keys.hash: found \"none\" with key in keys.from: what stands there is written to every output as it is, make sure that it is an identifier and no raw key",
            ),
        ] {
            assert_eq!(warnings(&text), expected, "{text}");
        }
    }
}
