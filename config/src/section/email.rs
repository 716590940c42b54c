//! The section `[alerts.email]` about mails.
//!
//! Limits: 50 addresses, 1 to 10,000 mails an hour to each of them and up to 100,000 to all, and 1 to 100,000 incidents
//! a minute before a digest.

use std::collections::HashSet;

use super::prelude::*;

const MAX_TO: usize = 50;
/// Bytes of a mail's address, as RFC 5321 limits a path.
const MAX_ADDRESS_BYTES: usize = 254;
/// Bytes of an address before its `@`, as RFC 5321 limits them.
const MAX_LOCAL_BYTES: usize = 64;
/// Bytes of a label of a domain (RFC 1035).
const MAX_LABEL_BYTES: usize = 63;
/// Characters of a sender's name.
const MAX_SENDER_CHARS: usize = 64;
/// Bytes of a line of text, at most.
const MAX_LINE_BYTES: usize = 256;
/// The name of a sender that has none in the file.
const SENDER: &str = "Keytide";
/// The port for mails under TLS from the first byte.
const SUBMISSIONS: u16 = 465;

section! {
    /// The section `[alerts.email]`, which has at least one of `server` and `dir`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct EmailAlerts, RawEmail, pub new(from: Sender, to: Vec<String>) {
        /// The mail server that delivers the mails.
        other server: Option<MailServer> = _ or None;
        key server(HostPort);
        key tls(MailTls);
        key allow_plaintext(Flag);
        key username(Line);
        key password(SecretRef);
        key ca(PathText);
        /// The folder to which each mail is written as an `.eml` file, with or without a server.
        other dir: Option<PathBuf> = dir(PathText) or None;
        other from: Sender = from(Sender);
        /// The address that answers to a mail go to, instead of the sender's.
        other reply_to: Option<String> = reply_to(Address) or None;
        /// The addresses of the security team, at least one.
        other to: Vec<String> = to(List<Address>);
        /// If set, the owners of keys get mails, too.
        other owners: bool = owners(Flag) or false;
        /// If set, a subscription's contacts get mails about its quotas.
        other quota_notices: bool = quota_notices(Flag) or false;
        /// The language of mails to `to`.
        other language: Language = language(Language) or Language::En;
        /// The language of mails to owners, and of those about quotas.
        other owner_language: Language = owner_language(Language) or Language::En;
        /// The folder of templates that replace the built-in ones.
        other templates: Option<PathBuf> = templates(PathText) or None;
        /// Mails to one address within an hour. Further ones are delayed.
        other per_recipient: u32 = per_recipient(Count, 1..=10_000) or 20;
        /// Mails to all addresses within an hour. Further ones are delayed.
        other per_hour: u32 = per_hour(Count, 1..=100_000) or 200;
        /// Incidents within a minute above which one digest has all of them.
        other digest_after: u32 = digest_after(Count, 1..=100_000) or 10;
    }
}

/// The sender of a mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// The shown name, without control characters and any of `<>"@,;:\`.
    pub name: String,
    pub address: String,
}

/// A server that takes mails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailServer {
    /// A name or an address. IPv6 addresses have no brackets.
    pub host: String,
    pub port: u16,
    pub tls: MailTls,
    /// User and password of the job at the server.
    pub credentials: Option<(String, Secret)>,
    /// The file of certificates (PEM) of authorities that are trusted beside the system's.
    pub ca: Option<PathBuf>,
}

choice! {
    /// How a connection to a mail server is protected.
    #[derive(Default)]
    pub enum MailTls {
        /// It begins unencrypted, and ends without STARTTLS.
        #[default]
        Starttls = "starttls",
        /// It is encrypted from the first byte.
        Tls = "tls",
        /// It is never encrypted.
        None = "none",
    }
}

choice! {
    /// A language that mails can be written in.
    #[derive(Hash, Default)]
    pub enum Language {
        #[default]
        En = "en",
        Ko = "ko",
    }
}

impl Validate<EmailAlerts> for RawEmail {
    fn validate(spot: &Spot<Self>, (): (), check: &mut Check<'_>) -> Option<EmailAlerts> {
        let raw = &spot.value;
        let from: Option<&Sender> = check.required(&raw.from, spot, "from");
        check.required(&raw.to, spot, "to");
        let to = raw.to.given().map(|list| recipients(list, check));
        if raw.server.is_absent() && raw.dir.is_absent() {
            let message = "needs a `server` that takes the mails, a `dir` to which they are written, or both";
            check.refuse(spot, message);
        }
        let server = mail_server(raw, check);
        // The other keys are checked even if one of these two is missing.
        let nobody = || Sender { name: String::new(), address: String::new() };
        let is_whole = from.is_some() && to.is_some();
        let mut email = EmailAlerts::new(from.cloned().unwrap_or_else(nobody), to.unwrap_or_default());
        raw.fill(&mut email, check);
        email.server = server;
        if raw.owner_language.value().is_none() {
            email.owner_language = email.language;
        }
        let is_refused = matches!(raw.owners, Entry::Refused) || matches!(raw.quota_notices, Entry::Refused);
        if let Some(spot) = raw.owner_language.given()
            && !(email.owners || email.quota_notices || is_refused)
        {
            check.warn(spot, "has no effect: owners are told only with owners or quota_notices = true");
        }
        is_whole.then_some(email)
    }
}

/// Returns the addresses without repetitions.
fn recipients(list: &Spot<List<Address>>, check: &mut Check<'_>) -> Vec<String> {
    let items = &list.value.items;
    if items.is_empty() && !list.value.refused {
        check.refuse(list, "is empty, allowed: at least one address");
    }
    check.at_most(list, MAX_TO, "addresses");
    let (mut seen, mut to) = (HashSet::new(), Vec::new());
    for address in items {
        if seen.insert(&address.value.0) {
            to.push(address.value.0.clone());
        } else {
            check.warn(address, format!("{} is told once", address.shown));
        }
    }
    to
}

fn mail_server(raw: &RawEmail, check: &mut Check<'_>) -> Option<MailServer> {
    let Some(server) = raw.server.given() else {
        if raw.server.is_absent() {
            let locations = [
                raw.tls.given().map(|tls| &tls.location),
                raw.allow_plaintext.given().map(|allow| &allow.location),
                raw.username.given().map(|username| &username.location),
                raw.password.given().map(|password| &password.location),
                raw.ca.given().map(|ca| &ca.location),
            ];
            for location in locations.into_iter().flatten() {
                check.refuse(location, "has no meaning here, allowed: only beside `server`");
            }
        }
        return None;
    };
    let (host, port) = (&server.value.0.0, server.value.1);
    let default = if port == SUBMISSIONS { MailTls::Tls } else { MailTls::Starttls };
    let tls = raw.tls.value().copied().unwrap_or(default);
    let plaintext = raw.allow_plaintext.value().is_some_and(|allow| allow.0);
    if let Some(spot) = raw.tls.given().filter(|tls| tls.value == MailTls::None)
        && !is_loopback(host)
    {
        if !plaintext && !matches!(raw.allow_plaintext, Entry::Refused) {
            let message = format!(
                "found \"none\" with {}, so that anybody in between could read the mails, allowed: starttls, tls; \
                 or allow_plaintext = true beside it",
                server.shown
            );
            check.refuse(spot, message);
        } else if raw.password.given().is_some() {
            check.warn(spot, "the password travels in the clear");
        }
    }
    if let Some(ca) = raw.ca.given().filter(|_| tls == MailTls::None) {
        check.refuse(ca, "has no meaning here, allowed: only with tls = \"starttls\" or \"tls\"");
    }
    let credentials = credentials(raw, check);
    let ca = raw.ca.value().map(|path| check.base.join(&path.0));
    Some(MailServer { host: host.clone(), port, tls, credentials, ca })
}

/// Reads user and password, and refuses one without the other.
fn credentials(raw: &RawEmail, check: &mut Check<'_>) -> Option<(String, Secret)> {
    match (raw.username.given(), raw.password.given()) {
        (Some(username), Some(password)) => {
            let password = check.referred(&password.value, &password.location)?;
            Some((username.value.0.clone(), Secret::new(password)))
        }
        (Some(username), None) if raw.password.is_absent() => {
            let message = format!("needs a `password` beside it, allowed: {}", SecretRef::allowed());
            check.refuse(username, message);
            None
        }
        (None, Some(password)) if raw.username.is_absent() => {
            check.refuse(password, "needs a `username` beside it");
            None
        }
        _ => None,
    }
}

/// Returns whether `text` is a mail's address: `local@domain` in ASCII, without quotes, comments and literal addresses,
/// of at most 254 bytes. The domain has a dot, or is `localhost`.
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

texts! {
    /// The address of a recipient.
    Address if is_address, "a mail's address, such as \"security@example.com\"";
    /// A text without line breaks.
    Line if |text| (1..=MAX_LINE_BYTES).contains(&text.len()) && !text.contains(char::is_control),
        format!("1 to {MAX_LINE_BYTES} bytes of text without control characters");
}

parsed! {
    Sender: sender, "a mail's address, alone or as \"Keytide <keytide@example.com>\"";
}

fn sender(text: &str) -> Option<Sender> {
    let (name, address) = match text.split_once('<') {
        Some((name, rest)) => (name.trim(), rest.strip_suffix('>').unwrap_or_default()),
        None => (SENDER, text),
    };
    let is_name = (1..=MAX_SENDER_CHARS).contains(&name.chars().count())
        && !name.contains(|c: char| c.is_control() || "<>\"@,;:\\".contains(c));
    let sender = Sender { name: name.to_owned(), address: address.to_owned() };
    (is_name && is_address(address)).then_some(sender)
}

/// A host and a port, written `host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostPort(HostName, u16);

impl Scalar for HostPort {
    fn allowed() -> String {
        "host:port, such as \"smtp.example.com:587\"".to_owned()
    }

    fn parse(value: &TomlValue) -> Result<Self, Refusal> {
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
            Sender::parse(&TomlValue::Text(text.to_owned())).ok().map(|sender| (sender.name, sender.address))
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
}
