//! Values of single keys: how each kind is written, and what is allowed.
//!
//! Everything is exact: durations and sizes are integers with a unit, and what doesn't fit is refused.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::job::*;
use crate::pattern::LinePattern;
use crate::section::check::{Check, Gives};
use crate::toml::near::nearest;
use crate::toml::read::Spot;
use crate::toml::tree::Value;
use crate::toml::value::{Refusal, Scalar, choice, did_you_mean, refuse, text};

mod decimal;

pub(crate) use decimal::{Decimal, decimal_text};

/// Bytes of a JSON pointer.
const MAX_POINTER_BYTES: usize = 1_024;
/// Bytes of a header's or a query argument's name.
const MAX_ARGUMENT_BYTES: usize = 256;
/// Characters of a source's or a job's name.
const MAX_NAME_BYTES: usize = 64;

/// `kind` of a `[[source]]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InputKind {
    File,
    Stdin,
    Kafka,
}

/// `hash` of `[keys]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HashKind {
    Sha256,
    HmacSha256,
    Prehashed,
    None,
}

choice!(InputKind { File = "file", Stdin = "stdin", Kafka = "kafka" });
choice!(Format {
    Json = "json", Apisix = "apisix", Kong = "kong", Envoy = "envoy", Nginx = "nginx",
    AwsApigateway = "aws-apigateway", Otel = "otel", Cloudwatch = "cloudwatch", Cloudevents = "cloudevents",
    Combined = "combined", Text = "text", Alb = "alb", Cloudfront = "cloudfront", Haproxy = "haproxy",
});
choice!(Dedupe { RequestId = "request_id", Message = "message", Batch = "batch", Content = "content" });
choice!(MissingKey { Anonymous = "anonymous", DeadLetter = "dead_letter" });
choice!(Unit { Seconds = "s", Millis = "ms", Micros = "us", Nanos = "ns", Rfc3339 = "rfc3339", Clf = "clf" });
// Hidden: who mistakes `hash` for the place of the secret must not find it in a log.
choice!(HashKind { Sha256 = "sha256", HmacSha256 = "hmac-sha256", Prehashed = "prehashed", None = "none" } hidden true;);

impl Scalar for LinePattern {
    fn allowed() -> String {
        "the server's own format of a log line: of NGINX, Apache httpd, Envoy or Amazon API Gateway"
            .to_owned()
    }

    fn parse(value: &Value) -> Result<Self, Refusal> {
        Self::parse(text(value)?)
            .map_err(|fault| Refusal { hint: Some(fault.to_string()), ..Refusal::default() })
    }
}

/// Declares kinds of text: the rule that one keeps, and how messages say what is allowed.
macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident if $fits:expr, $allowed:expr;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub(crate) struct $name(pub(crate) String);

        impl $crate::toml::value::Scalar for $name {
            fn allowed() -> String {
                $allowed.into()
            }

            fn parse(value: &$crate::toml::tree::Value) -> Result<Self, $crate::toml::value::Refusal> {
                let fits: fn(&str) -> bool = $fits;
                let text = $crate::toml::value::text(value)?;
                $crate::toml::value::refuse(fits(text).then(|| Self(text.to_owned())))
            }
        }

        impl $crate::section::check::Gives<String> for $name {
            fn give(
                spot: &$crate::toml::read::Spot<Self>,
                (): (),
                _: &mut $crate::section::check::Check<'_>,
            ) -> Option<String> {
                Some(spot.value.0.clone())
            }
        }
    )+};
}

pub(crate) use texts;

texts! {
    /// The name of a job, a source or a webhook.
    Name if is_name, format!("1 to {MAX_NAME_BYTES} of a-z, 0-9, _ and -");
    /// A path or a pattern of paths, not resolved.
    PathText if |text| !text.is_empty() && !text.contains(char::is_control),
        "a path, absolute or relative to the configuration file";
}

pub(crate) fn is_name(text: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&text.len())
        && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
}

/// A number of things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count(pub(crate) u64);

impl Scalar for Count {
    fn allowed() -> String {
        "a whole number".to_owned()
    }

    fn parse(value: &Value) -> Result<Self, Refusal> {
        match value {
            Value::Integer(integer) => refuse(u64::try_from(*integer).ok().map(Self)),
            _ => Err(Refusal::default()),
        }
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

const SIZES: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl Scalar for Size {
    fn allowed() -> String {
        "bytes as a whole number or with KiB, MiB or GiB, such as \"128KiB\"".to_owned()
    }

    fn parse(value: &Value) -> Result<Self, Refusal> {
        match value {
            Value::Integer(integer) => refuse(u64::try_from(*integer).ok().map(Self)),
            _ => refuse(scaled(text(value)?, &SIZES).map(Self)),
        }
    }
}

/// A size in bytes as it would be written, in its largest whole unit: `131072` is `128KiB`.
#[must_use]
pub fn size_text(bytes: u64) -> String {
    unscaled(bytes, &SIZES).unwrap_or_else(|| bytes.to_string())
}

/// A duration in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Millis(pub(crate) u64);

const DURATIONS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl Scalar for Millis {
    fn allowed() -> String {
        "a whole number with ms, s, m, h or d, such as \"10m\"".to_owned()
    }

    fn parse(value: &Value) -> Result<Self, Refusal> {
        refuse(scaled(text(value)?, &DURATIONS).map(Self))
    }
}

/// A duration in milliseconds as it would be written, in its largest whole unit: `90000` is `90s`.
#[must_use]
pub fn duration_text(millis: u64) -> String {
    match millis {
        0 => "0s".to_owned(),
        _ => unscaled(millis, &DURATIONS).unwrap_or_else(|| format!("{millis}ms")),
    }
}

/// Digits and one of the units: `10m`.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, scale) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*scale)
}

fn unscaled(number: u64, units: &[(&str, u64)]) -> Option<String> {
    let (unit, scale) = units.iter().find(|(_, scale)| number > 0 && number.is_multiple_of(*scale))?;
    Some(format!("{}{unit}", number / scale))
}

impl Scalar for Pointer {
    fn allowed() -> String {
        format!("a JSON pointer (RFC 6901) of at most {MAX_POINTER_BYTES} bytes, such as \"/request/id\"")
    }

    fn parse(value: &Value) -> Result<Self, Refusal> {
        let text = text(value)?;
        pointer(text).ok_or_else(|| Refusal {
            hint: (!text.starts_with('/')).then(|| "a pointer starts with /".to_owned()),
            ..Refusal::default()
        })
    }
}

pub(crate) fn pointer(text: &str) -> Option<Pointer> {
    if text.len() > MAX_POINTER_BYTES || text.contains(char::is_control) {
        return None;
    }
    text.strip_prefix('/')?.split('/').map(unescape).collect::<Option<_>>().map(Pointer)
}

/// One reference token: `~1` is `/`, `~0` is `~`, any other `~` is an error.
fn unescape(token: &str) -> Option<String> {
    let mut parts = token.split('~');
    let mut unescaped = parts.next()?.to_owned();
    for part in parts {
        let (c, rest) = match part.as_bytes().first()? {
            b'0' => ('~', &part[1..]),
            b'1' => ('/', &part[1..]),
            _ => return None,
        };
        unescaped.push(c);
        unescaped.push_str(rest);
    }
    Some(unescaped)
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|token| write!(f, "/{}", token.replace('~', "~0").replace('/', "~1")))
    }
}

impl Scalar for KeyFrom {
    fn allowed() -> String {
        "header:NAME, query:NAME, key, field:/POINTER, consumer, credential, user, client_ip".to_owned()
    }

    fn parse(value: &Value) -> Result<Self, Refusal> {
        let text = text(value)?;
        let (kind, argument) = text.split_once(':').map_or((text, None), |(kind, rest)| (kind, Some(rest)));
        let rule = match (kind, argument) {
            ("header", Some(name)) => is_header(name).then(|| Self::Header(name.to_ascii_lowercase())),
            ("query", Some(name)) => is_argument(name).then(|| Self::Query(name.to_owned())),
            ("field", Some(at)) => pointer(at).map(Self::Field),
            ("key", None) => Some(Self::Key),
            ("consumer", None) => Some(Self::Consumer),
            ("credential", None) => Some(Self::Credential),
            ("user", None) => Some(Self::User),
            ("client_ip", None) => Some(Self::ClientIp),
            _ => None,
        };
        const KINDS: [&str; 8] =
            ["header", "query", "key", "field", "consumer", "credential", "user", "client_ip"];
        rule.ok_or_else(|| Refusal {
            hint: did_you_mean(nearest(kind, KINDS).filter(|near| *near != kind)),
            ..Refusal::default()
        })
    }
}

/// A header's name (RFC 9110 token).
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
            Self::Key => f.write_str("key"),
            Self::Consumer => f.write_str("consumer"),
            Self::Credential => f.write_str("credential"),
            Self::User => f.write_str("user"),
            Self::ClientIp => f.write_str("client_ip"),
        }
    }
}

/// A name, an address of IPv4, or an address of IPv6 in brackets.
pub(crate) fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => {
            (1..=253).contains(&host.len())
                && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        }
    }
}

pub(crate) fn port_number(port: &str) -> Option<u16> {
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    port.parse().ok().filter(|port| digits && *port > 0)
}

/// A host: a name in lower case, or an address without brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostName(pub(crate) String);

impl HostName {
    /// Without a dot at its end, which makes a name no other.
    pub(crate) fn new(host: &str) -> Option<Self> {
        if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse::<Ipv6Addr>() {
            return Some(Self(address.to_string()));
        }
        let name = host.strip_suffix('.').unwrap_or(host);
        is_host(name).then(|| Self(name.to_ascii_lowercase()))
    }
}

impl Scalar for HostName {
    fn allowed() -> String {
        "a host's name or address, without a port, such as \"hooks.internal\"".to_owned()
    }

    fn parse(value: &Value) -> Result<Self, Refusal> {
        refuse(Self::new(text(value)?))
    }
}

impl Gives<String> for HostName {
    fn give(spot: &Spot<Self>, (): (), _: &mut Check<'_>) -> Option<String> {
        Some(spot.value.0.clone())
    }
}

/// Whether a host is certainly this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback() || address == IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

/// A value that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    #[must_use]
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The secret itself. Callers hand it to what needs it and keep no copy.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Where a secret is to be read from. A literal isn't one, so a secret never gets this far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SecretRef {
    Env(String),
    File(String),
}

impl Scalar for SecretRef {
    const HIDDEN: bool = true;

    fn allowed() -> String {
        "\"env:NAME\" or \"file:PATH\", never the secret itself".to_owned()
    }

    fn parse(value: &Value) -> Result<Self, Refusal> {
        let reference = text(value)?.split_once(':').and_then(|(kind, rest)| match kind {
            "env" => is_variable(rest).then(|| Self::Env(rest.to_owned())),
            "file" => {
                (!rest.is_empty() && !rest.contains(char::is_control)).then(|| Self::File(rest.to_owned()))
            }
            _ => None,
        });
        refuse(reference)
    }
}

fn is_variable(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && name.bytes().next().is_some_and(|b| !b.is_ascii_digit())
}

/// Yes or no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flag(pub(crate) bool);

impl Scalar for Flag {
    fn allowed() -> String {
        "true, false".to_owned()
    }

    fn parse(value: &Value) -> Result<Self, Refusal> {
        match value {
            Value::Boolean(flag) => Ok(Self(*flag)),
            _ => Err(Refusal::default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read<T: Scalar>(text: &str) -> Option<T> {
        T::parse(&Value::Text(text.to_owned())).ok()
    }

    #[test]
    fn durations_are_a_number_and_a_unit() {
        for (text, millis) in [
            ("500ms", Some(500)),
            ("1s", Some(1_000)),
            ("10m", Some(600_000)),
            ("1h", Some(3_600_000)),
            ("2d", Some(172_800_000)),
            ("0s", Some(0)),
            ("007s", Some(7_000)),
            ("", None),
            ("s", None),
            ("10", None),
            ("1.5s", None),
            ("-1s", None),
            ("+1s", None),
            ("1 s", None),
            ("1S", None),
            ("1w", None),
            ("1s ", None),
            ("213503982334d", Some(213_503_982_334 * 86_400_000)),
            ("213503982335d", None),
            ("18446744073709551615ms", Some(u64::MAX)),
            ("18446744073709551616ms", None),
            ("1\u{0661}s", None),
        ] {
            assert_eq!(read::<Millis>(text).map(|millis| millis.0), millis, "{text}");
        }
    }

    #[test]
    fn sizes_are_bytes_or_have_a_unit() {
        for (text, bytes) in [
            ("128KiB", Some(131_072)),
            ("1MiB", Some(1 << 20)),
            ("2GiB", Some(2 << 30)),
            ("128", None),
            ("128KB", None),
            ("1.5MiB", None),
            ("17179869184GiB", None),
        ] {
            assert_eq!(read::<Size>(text).map(|size| size.0), bytes, "{text}");
        }
        assert_eq!(Size::parse(&Value::Integer(4_096)), Ok(Size(4_096)));
        assert!(Size::parse(&Value::Integer(-1)).is_err());
        assert_eq!(size_text(131_072), "128KiB");
        assert_eq!(size_text(1_000), "1000");
        assert_eq!(size_text(0), "0");
    }

    #[test]
    fn pointers_are_unescaped() {
        for (text, tokens) in [
            ("/a~1b/0", Some(vec!["a/b", "0"])),
            ("/m~0n", Some(vec!["m~n"])),
            ("/~01", Some(vec!["~1"])),
            ("/", Some(vec![""])),
            ("/a//b", Some(vec!["a", "", "b"])),
            ("/ü x", Some(vec!["ü x"])),
            ("", None),
            ("a", None),
            ("/a~", None),
            ("/a~2", None),
            ("/~é", None),
            ("/a\u{1b}[31m", None),
            ("/a\nb", None),
        ] {
            let tokens = tokens.map(|tokens| Pointer(tokens.into_iter().map(str::to_owned).collect()));
            assert_eq!(read::<Pointer>(text), tokens, "{text}");
        }
        let longest = format!("/{}", "a".repeat(MAX_POINTER_BYTES - 1));
        assert!(read::<Pointer>(&longest).is_some());
        assert!(read::<Pointer>(&format!("{longest}a")).is_none());
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
            assert_eq!(read::<KeyFrom>(text), rule, "{text}");
        }
        let refusal = KeyFrom::parse(&Value::Text("headers:apikey".to_owned())).unwrap_err();
        assert_eq!(refusal.hint.as_deref(), Some("did you mean \"header\"?"));
    }

    #[test]
    fn names_are_short_and_plain() {
        let longest = "a".repeat(MAX_NAME_BYTES);
        for (text, allowed) in [
            ("gateway-1_b", true),
            ("", false),
            ("Gateway", false),
            ("a.b", false),
            ("é", false),
            (&longest, true),
        ] {
            assert_eq!(read::<Name>(text).is_some(), allowed, "{text}");
        }
        assert!(read::<Name>(&format!("{longest}a")).is_none());
    }

    #[test]
    fn only_references_to_secrets_are_accepted() {
        assert_eq!(read("env:KEY_SECRET"), Some(SecretRef::Env("KEY_SECRET".to_owned())));
        assert_eq!(read("file:/run/secrets/a:b"), Some(SecretRef::File("/run/secrets/a:b".to_owned())));
        for text in ["hunter2", "env:", "env:1X", "env:A-B", "file:", "ENV:X", "", "file:a\nb"] {
            assert_eq!(read::<SecretRef>(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn durations_survive_being_shown(millis: u64) {
            prop_assert_eq!(read::<Millis>(&duration_text(millis)), Some(Millis(millis)));
        }

        #[test]
        fn pointers_survive_being_shown(tokens in proptest::collection::vec("[a-z~/ 0-9é]{0,6}", 1..6)) {
            let pointer = Pointer(tokens);
            prop_assert_eq!(read::<Pointer>(&pointer.to_string()), Some(pointer));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}|[/~{}:a-z0-9.]{0,20}") {
            read::<Millis>(&text);
            read::<Size>(&text);
            read::<Pointer>(&text);
            read::<SecretRef>(&text);
            if let Some(rule) = read::<KeyFrom>(&text) {
                prop_assert_eq!(read::<KeyFrom>(&rule.to_string()), Some(rule));
            }
        }
    }
}
