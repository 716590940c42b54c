//! Values of `[alerts.*]`: addresses of people and of servers.

use std::net::Ipv6Addr;

use super::{SecretRef, is_host, port_number};
use crate::job::{Secret, Sender, WebhookUrl};
use crate::toml::tree::Value;
use crate::toml::value::{Refusal, Scalar, refuse, text};

/// Bytes of a mail's address; RFC 5321's limit of a path.
const MAX_ADDRESS_BYTES: usize = 254;
/// Bytes of an address before its `@`; the same source.
const MAX_LOCAL_BYTES: usize = 64;
/// Bytes of a label of a domain (RFC 1035).
const MAX_LABEL_BYTES: usize = 63;
/// Characters of a sender's name.
const MAX_SENDER_CHARS: usize = 64;
/// Bytes of a line of text.
const MAX_LINE_BYTES: usize = 256;
/// Bytes of a URL.
const MAX_URL_BYTES: usize = 2_048;
/// What a sender is called who has no name.
const SENDER: &str = "Keytide";

/// Whether `text` is a mail's address: `local@domain` in ASCII, without quotes, comments and literal addresses, at
/// most 254 bytes. The domain has a dot, or is `localhost`.
#[must_use]
pub fn is_address(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else { return false };
    let is_atom = |atom: &str| {
        !atom.is_empty()
            && atom.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b))
    };
    let is_label = |label: &str| {
        (1..=MAX_LABEL_BYTES).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.len() <= MAX_ADDRESS_BYTES
        && local.len() <= MAX_LOCAL_BYTES
        && local.split('.').all(is_atom)
        && (domain.contains('.') || domain == "localhost")
        && domain.split('.').all(is_label)
}

/// An address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address(pub(crate) String);

impl Scalar for Address {
    fn allowed() -> String {
        "a mail's address, such as \"security@example.com\"".to_owned()
    }

    fn parse(value: &Value) -> Result<Self, Refusal> {
        let text = text(value)?;
        refuse(is_address(text).then(|| Self(text.to_owned())))
    }
}

impl Scalar for Sender {
    fn allowed() -> String {
        "a mail's address, alone or as \"Keytide <keytide@example.com>\"".to_owned()
    }

    fn parse(value: &Value) -> Result<Self, Refusal> {
        let text = text(value)?;
        let (name, address) = match text.split_once('<') {
            Some((name, rest)) => (name.trim(), rest.strip_suffix('>').unwrap_or_default()),
            None => (SENDER, text),
        };
        let is_name = (1..=MAX_SENDER_CHARS).contains(&name.chars().count())
            && !name.contains(|c: char| c.is_control() || "<>\"@,;:\\".contains(c));
        let sender = Self { name: name.to_owned(), address: address.to_owned() };
        refuse((is_name && is_address(address)).then_some(sender))
    }
}

/// Text of one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line(pub(crate) String);

impl Scalar for Line {
    fn allowed() -> String {
        format!("1 to {MAX_LINE_BYTES} bytes of text without control characters")
    }

    fn parse(value: &Value) -> Result<Self, Refusal> {
        let text = text(value)?;
        let fits = (1..=MAX_LINE_BYTES).contains(&text.len()) && !text.contains(char::is_control);
        refuse(fits.then(|| Self(text.to_owned())))
    }
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

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort(pub(crate) HostName, pub(crate) u16);

impl Scalar for HostPort {
    fn allowed() -> String {
        "host:port, such as \"smtp.example.com:587\"".to_owned()
    }

    fn parse(value: &Value) -> Result<Self, Refusal> {
        let text = text(value)?;
        let parsed = text
            .rsplit_once(':')
            .filter(|(host, _)| is_host(host))
            .and_then(|(host, port)| Some(Self(HostName::new(host)?, port_number(port)?)));
        let hint = match (text.contains('@'), text.contains("://")) {
            (true, _) => Some("users and passwords stand beside it: username, password"),
            (false, true) => Some("the protocol stands beside it: tls"),
            (false, false) => None,
        };
        parsed.ok_or_else(|| Refusal {
            hint: hint.map(str::to_owned),
            hidden: text.contains('@'),
            ..Refusal::default()
        })
    }
}

/// A URL, or where one is to be read from: some are secrets.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum UrlText {
    Written(WebhookUrl),
    Reference(SecretRef),
}

/// What a URL may be.
pub(crate) const URL: &str =
    "https://host/path (http only where allow_private names the host), without user, password and fragment";

/// Takes `https://host:port/path?query` apart.
pub(crate) fn parse_url(text: &str) -> Option<WebhookUrl> {
    if text.len() > MAX_URL_BYTES
        || !text.bytes().all(|b| b.is_ascii_graphic() && !b"\"<>\\^`{|}#".contains(&b))
    {
        return None;
    }
    let (scheme, rest) = text.split_once("://")?;
    let (tls, default) = match scheme.to_ascii_lowercase().as_str() {
        "https" => (true, 443),
        "http" => (false, 80),
        _ => return None,
    };
    let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (host, port) = match authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
        Some((host, port)) => (host, port_number(port)?),
        None => (authority, default),
    };
    let host = is_host(host).then(|| HostName::new(host))??.0;
    let slash = if target.starts_with('/') { "" } else { "/" };
    Some(WebhookUrl { tls, host, port, target: Secret::new(format!("{slash}{target}")) })
}

impl Scalar for UrlText {
    const HIDDEN: bool = true;

    fn allowed() -> String {
        format!("{URL}; or \"env:NAME\" or \"file:PATH\" where it is a secret")
    }

    fn parse(value: &Value) -> Result<Self, Refusal> {
        let text = text(value)?;
        if text.starts_with("env:") || text.starts_with("file:") {
            return SecretRef::parse(value).map(Self::Reference);
        }
        refuse(parse_url(text).map(Self::Written))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_plain_ones() {
        for good in [
            "a@b.example",
            "first.last+tag@sub.example.com",
            "o'hara@example.com",
            "a@localhost",
            "a@x-1.org",
        ] {
            assert!(is_address(good), "{good}");
        }
        let long = format!("{}@example.com", "a".repeat(65));
        for bad in [
            "",
            "a",
            "@example.com",
            "a@",
            "a@b",
            "a@@b.example",
            "a@b@c.example",
            "a b@example.com",
            ".a@example.com",
            "a..b@example.com",
            "a.@example.com",
            "a@.example",
            "a@example.",
            "a@-b.example",
            "\"a\"@example.com",
            "a@[127.0.0.1]",
            "a@example.com\r\nBcc: b@example.com",
            "ä@example.com",
            "a@bücher.example",
            long.as_str(),
            "A <a@example.com>",
            "a@example.com,b@example.com",
        ] {
            assert!(!is_address(bad), "{bad}");
        }
    }

    #[test]
    fn senders_have_names() {
        let sender = |text: &str| {
            Sender::parse(&Value::Text(text.to_owned())).ok().map(|sender| (sender.name, sender.address))
        };
        let is = |name: &str, address: &str| Some((name.to_owned(), address.to_owned()));
        assert_eq!(sender("a@example.com"), is("Keytide", "a@example.com"));
        assert_eq!(sender("키 지킴이 <a@example.com>"), is("키 지킴이", "a@example.com"));
        for bad in [
            "<a@example.com>",
            "A <a>",
            "A <a@example.com> b",
            "A\r\nBcc: x <a@example.com>",
            "A, B <a@example.com>",
            "A \"B <a@example.com>",
        ] {
            assert_eq!(sender(bad), None, "{bad}");
        }
    }

    #[test]
    fn urls_are_taken_apart() {
        let parts = |text: &str| {
            parse_url(text)
                .map(|url| format!("{} {} {} {}", url.tls, url.host, url.port, url.target.reveal()))
        };
        for (text, expected) in [
            ("https://Hooks.Example.com/a/b?c=d", "true hooks.example.com 443 /a/b?c=d"),
            ("HTTPS://hooks.example.com", "true hooks.example.com 443 /"),
            ("http://127.0.0.1:8080/x", "false 127.0.0.1 8080 /x"),
            ("https://[2001:DB8::1]:8443?q", "true 2001:db8::1 8443 /?q"),
            ("https://[::1]/", "true ::1 443 /"),
            ("https://a.example./", "true a.example 443 /"),
        ] {
            assert_eq!(parts(text).as_deref(), Some(expected), "{text}");
        }
        for bad in [
            "",
            "example.com",
            "ftp://example.com/",
            "https://",
            "https:///x",
            "https://user@example.com/",
            "https://user:pass@example.com/",
            "https://example.com:0/",
            "https://example.com:65536/",
            "https://example.com:/",
            "https://example.com/#x",
            "https://example.com/a b",
            "https://example.com/\r\nX: y",
            "https://ex\u{e4}mple.com/",
            "https://[::1/",
            "https://::1/",
            "https://example.com\\@evil.example/",
        ] {
            assert_eq!(parts(bad), None, "{bad}");
        }
        assert!(!format!("{:?}", parse_url("https://a.example/canary")).contains("canary"));
    }
}
