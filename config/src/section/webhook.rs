//! The sections `[alerts.webhook]` about receivers of incidents and notices of quotas over HTTP.
//!
//! Limits: 16 webhooks with 64 private hosts each, 1 s to 1 min a request.

use std::collections::HashSet;

use super::prelude::*;

const MAX_WEBHOOKS: usize = 16;
/// Bytes of a URL, at most.
const MAX_URL_BYTES: usize = 2_048;
/// The name of a webhook that has none.
const WEBHOOK: &str = "webhook";
/// The form of a URL, as messages name it.
pub(super) const URL: &str =
    "https://host/path (http only where allow_private names the host), without user, password and fragment";

section! {
    /// A receiver of incidents and notices of quotas over HTTP.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Webhook, RawWebhook, pub(crate) new(name: String, url: WebhookUrl) {
        /// The name, which is unique in the job.
        other name: String = name(Name);
        other url: WebhookUrl = url(UrlText);
        /// The secret that signs requests, which [`WebhookFormat::Keytide`] requires.
        other secret: Option<Secret> = secret(SecretRef) or None;
        /// The form of the requests.
        other format: WebhookFormat = format(WebhookFormat) or WebhookFormat::Keytide;
        /// If set, it is told of incidents; for Slack also of actions and late gateways.
        other incidents: bool = incidents(Flag) or true;
        /// If set, it is told of thresholds of quotas that are crossed.
        other quota_notices: bool = quota_notices(Flag) or false;
        /// Hosts in lower case that may have private addresses, and may be reached without TLS.
        other allow_private: Vec<String> = allow_private(List<HostName>, AtMost(64, "hosts")) or Vec::new();
        /// How long a request may take, in milliseconds.
        other timeout_ms: u64 = timeout(Millis, 1_000..=MINUTE_MS) or 10_000;
    }
}

/// The address of a webhook. Path and query may be a secret and are never printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookUrl {
    pub tls: bool,
    /// A name in lower case, or an address. IPv6 addresses have no brackets.
    pub host: String,
    pub port: u16,
    /// Path and query, beginning with a `/`.
    pub target: Secret,
}

choice! {
    /// The form of a webhook's requests.
    #[derive(Default)]
    pub enum WebhookFormat {
        /// The published row of `incident_log` or `notices`.
        #[default]
        Keytide = "keytide",
        /// A message for incoming webhooks of Slack.
        Slack = "slack",
    }
}

impl Validate<Vec<Webhook>> for Sections<RawWebhook> {
    fn validate(spot: &Spot<Self>, (): (), check: &mut Check<'_>) -> Option<Vec<Webhook>> {
        let items = &spot.value.0.items;
        if items.len() > MAX_WEBHOOKS {
            check.refuse(spot, format!("found {} webhooks, allowed: at most {MAX_WEBHOOKS}", items.len()));
        }
        let mut names = HashSet::new();
        let mut webhooks = Vec::new();
        for item in items {
            let name = item.value.name.value().map_or(WEBHOOK, |name| name.0.as_str());
            if !matches!(item.value.name, Entry::Refused) && !names.insert(name) {
                let location = item.value.name.given().map_or(&item.location, |name| &name.location);
                let message =
                    format!("{} names another webhook too, allowed: names that differ", quoted(name));
                check.refuse(location, message);
            }
            webhooks.extend(webhook(item, name, check));
        }
        Some(webhooks)
    }
}

fn webhook(spot: &Spot<RawWebhook>, name: &str, check: &mut Check<'_>) -> Option<Webhook> {
    let raw = &spot.value;
    check.required(&raw.url, spot, "url");
    let url = raw.url.given().and_then(|url| allowed_url(url, &raw.allow_private, check));
    let format = raw.format.value().copied().unwrap_or_default();
    if raw.secret.is_absent() && format == WebhookFormat::Keytide && !matches!(raw.format, Entry::Refused) {
        check.required(&raw.secret, spot, "secret");
    }
    // The other keys are checked even if the URL is missing.
    let nowhere = || WebhookUrl { tls: true, host: String::new(), port: 0, target: Secret::new("") };
    let is_whole = url.is_some();
    let mut webhook = Webhook::new(name.to_owned(), url.unwrap_or_else(nowhere));
    raw.fill(&mut webhook, check);
    if let Some(spot) = raw.incidents.given()
        && !(webhook.incidents || webhook.quota_notices || matches!(raw.quota_notices, Entry::Refused))
    {
        check.refuse(
            spot,
            "found false, so that it is told of nothing, allowed: true; or quota_notices = true",
        );
    }
    is_whole.then_some(webhook)
}

/// Reads the URL, and refuses it if its host may be this machine or TLS is missing.
pub(super) fn allowed_url(
    spot: &Spot<UrlText>,
    allow_private: &Entry<List<HostName>>,
    check: &mut Check<'_>,
) -> Option<WebhookUrl> {
    let url = match &spot.value {
        UrlText::Written(url) => url.clone(),
        UrlText::Reference(reference) => {
            let text = check.referred(reference, &spot.location)?;
            let url = parse_url(&text);
            if url.is_none() {
                check.refuse(spot, format!("what it refers to is no URL, allowed: {URL}"));
            }
            url?
        }
    };
    let allowed =
        allow_private.value().is_some_and(|list| list.items.iter().any(|host| host.value.0 == url.host));
    if !allowed && (!url.tls || is_loopback(&url.host)) {
        let (host, scheme) = (quoted(&url.host), if url.tls { "https" } else { "http" });
        let message = format!(
            "found {scheme} to {host}, allowed: https to a host that is public; or allow_private = [{host}] beside it"
        );
        check.refuse(spot, message);
    }
    Some(url)
}

/// A URL, or a reference to one that is a secret.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum UrlText {
    Written(WebhookUrl),
    Reference(SecretRef),
}

/// Parses a URL of the form `https://host:port/path?query`.
fn parse_url(text: &str) -> Option<WebhookUrl> {
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

    fn parse(value: &TomlValue) -> Result<Self, Refusal> {
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
