//! `[alerts.*]`.
//!
//! Limits: 50 addresses; 1 to 10,000 mails an hour to each of them, to 100,000 in all; 1 to 100,000 incidents a minute
//! before a digest; 16 webhooks with 64 private hosts each, 1 s to 1 min a request. Up to 1,000,000 keys or all of them
//! are acted on within an hour; each is left alone for at most 30 d.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use super::{to_u32, to_usize};
use crate::job::*;
use crate::raw::*;
use crate::scalar::{SecretRef, URL, UrlText, parse_url};
use crate::section::check::{Check, MINUTE_MS};
use crate::toml::tree::quoted;
use crate::toml::value::Scalar;

const MAX_TO: usize = 50;
const MAX_PER_RECIPIENT: u64 = 10_000;
const MAX_PER_HOUR: u64 = 100_000;
const MAX_DIGEST_AFTER: u64 = 100_000;
const MAX_WEBHOOKS: usize = 16;
const MAX_PRIVATE: usize = 64;
/// What the only webhook is called unless it is named.
const WEBHOOK: &str = "webhook";
/// The port of mails under TLS from the first byte.
const SUBMISSIONS: u16 = 465;

impl Check<'_> {
    pub(super) fn alerts(&mut self, raw: &RawAlerts) -> Alerts {
        Alerts {
            email: raw.email.given().and_then(|email| self.email(email)),
            webhooks: self.webhooks(raw),
            policy: self.section(&raw.policy),
        }
    }

    fn email(&mut self, spot: &Spot<RawEmail>) -> Option<EmailAlerts> {
        let raw = &spot.value;
        let from: Option<&Sender> = self.required(&raw.from, spot, "from");
        self.required(&raw.to, spot, "to");
        let to = raw.to.given().map(|list| {
            if list.value.items.is_empty() && !list.value.refused {
                self.problems.add(&list.place, "is empty, allowed: at least one address");
            }
            self.at_most(list, MAX_TO, "addresses");
            let mut seen = HashSet::new();
            for address in &list.value.items {
                if !seen.insert(&address.value.0) {
                    self.warnings.add(&address.place, format!("{} is told once", address.shown));
                }
            }
            seen.clear();
            let told = list.value.items.iter().map(|address| &address.value.0);
            told.filter(|address| seen.insert(*address)).cloned().collect()
        });
        if raw.server.is_absent() && raw.dir.is_absent() {
            let message = "needs a `server` that takes the mails, a `dir` to which they are written, or both";
            self.problems.add(&spot.place, message);
        }
        let server = self.mail_server(spot);
        let language = raw.language.value().copied().unwrap_or_default();
        let default = EmailAlerts::new(from?.clone(), to?);
        let number = |check: &mut Self, entry, default: u32, most| {
            to_u32(check.count(entry, to_usize(default.into()), 1, most))
        };
        Some(EmailAlerts {
            server,
            dir: raw.dir.value().map(|dir| self.base.join(&dir.0)),
            owners: raw.owners.value().map_or(default.owners, |owners| owners.0),
            language,
            owner_language: self.owner_language(raw, language),
            templates: raw.templates.value().map(|dir| self.base.join(&dir.0)),
            per_recipient: number(self, &raw.per_recipient, default.per_recipient, MAX_PER_RECIPIENT),
            per_hour: number(self, &raw.per_hour, default.per_hour, MAX_PER_HOUR),
            digest_after: number(self, &raw.digest_after, default.digest_after, MAX_DIGEST_AFTER),
            ..default
        })
    }

    /// Who writes to nobody else in a language may still mean the owners by it.
    fn owner_language(&mut self, raw: &RawEmail, language: Language) -> Language {
        if let Some(spot) = raw.owner_language.given()
            && !raw.owners.value().is_some_and(|owners| owners.0)
            && !matches!(raw.owners, Entry::Refused)
        {
            self.warnings.add(&spot.place, "has no effect: owners are told only with owners = true");
        }
        raw.owner_language.value().copied().unwrap_or(language)
    }

    fn mail_server(&mut self, spot: &Spot<RawEmail>) -> Option<MailServer> {
        let raw = &spot.value;
        let Some(server) = raw.server.given() else {
            if raw.server.is_absent() {
                let places = [
                    raw.tls.given().map(|tls| &tls.place),
                    raw.allow_plaintext.given().map(|allow| &allow.place),
                    raw.username.given().map(|username| &username.place),
                    raw.password.given().map(|password| &password.place),
                    raw.ca.given().map(|ca| &ca.place),
                ];
                for place in places.into_iter().flatten() {
                    self.problems.add(place, "has no meaning here, allowed: only beside `server`");
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
                self.problems.add(&spot.place, message);
            } else if raw.password.given().is_some() {
                self.warnings.add(&spot.place, "the password travels in the clear");
            }
        }
        if let Some(ca) = raw.ca.given().filter(|_| tls == MailTls::None) {
            self.problems
                .add(&ca.place, "has no meaning here, allowed: only with tls = \"starttls\" or \"tls\"");
        }
        let credentials = match (raw.username.given(), raw.password.given()) {
            (Some(username), Some(password)) => self
                .referred(&password.value, &password.place)
                .map(|password| (username.value.0.clone(), Secret::new(password))),
            (Some(username), None) if raw.password.is_absent() => {
                let message = format!("needs a `password` beside it, allowed: {}", SecretRef::allowed());
                self.problems.add(&username.place, message);
                None
            }
            (None, Some(password)) if raw.username.is_absent() => {
                self.problems.add(&password.place, "needs a `username` beside it");
                None
            }
            _ => None,
        };
        let ca = raw.ca.value().map(|path| self.base.join(&path.0));
        Some(MailServer { host: host.clone(), port, tls, credentials, ca })
    }

    fn webhooks(&mut self, raw: &RawAlerts) -> Vec<Webhook> {
        let Some(spot) = raw.webhook.given() else { return Vec::new() };
        let items = &spot.value.0.items;
        if items.len() > MAX_WEBHOOKS {
            let message = format!("found {} webhooks, allowed: at most {MAX_WEBHOOKS}", items.len());
            self.problems.add(&spot.place, message);
        }
        let mut names = HashSet::new();
        let mut webhooks = Vec::new();
        for item in items {
            let name = item.value.name.value().map_or(WEBHOOK, |name| name.0.as_str());
            if !matches!(item.value.name, Entry::Refused) && !names.insert(name) {
                let place = item.value.name.given().map_or(&item.place, |name| &name.place);
                let message =
                    format!("{} names another webhook too, allowed: names that differ", quoted(name));
                self.problems.add(place, message);
            }
            webhooks.extend(self.webhook(item, name));
        }
        webhooks
    }

    fn webhook(&mut self, spot: &Spot<RawWebhook>, name: &str) -> Option<Webhook> {
        let raw = &spot.value;
        let format = raw.format.value().copied().unwrap_or_default();
        let allow_private: Vec<String> = match raw.allow_private.given() {
            Some(list) => {
                self.at_most(list, MAX_PRIVATE, "hosts");
                list.value.items.iter().map(|host| host.value.0.clone()).collect()
            }
            None => Vec::new(),
        };
        self.required(&raw.url, spot, "url");
        let url = raw.url.given().and_then(|url| self.url(url, &allow_private));
        if raw.secret.is_absent() && format == WebhookFormat::Keytide && !matches!(raw.format, Entry::Refused)
        {
            self.required(&raw.secret, spot, "secret");
        }
        let secret = raw.secret.given().map(|secret| self.secret(secret));
        if secret.as_ref().is_some_and(Option::is_none) {
            return None;
        }
        Some(Webhook {
            name: name.to_owned(),
            url: url?,
            secret: secret.flatten(),
            format,
            allow_private,
            timeout_ms: self.duration(&raw.timeout, 10_000, 1_000, MINUTE_MS),
        })
    }

    fn url(&mut self, spot: &Spot<UrlText>, allow_private: &[String]) -> Option<WebhookUrl> {
        let url = match &spot.value {
            UrlText::Written(url) => url.clone(),
            UrlText::Reference(reference) => {
                let text = self.referred(reference, &spot.place)?;
                let url = parse_url(&text);
                if url.is_none() {
                    self.problems.add(&spot.place, format!("what it refers to is no URL, allowed: {URL}"));
                }
                url?
            }
        };
        let allowed = allow_private.contains(&url.host);
        if !allowed && (!url.tls || is_loopback(&url.host)) {
            let (host, scheme) = (quoted(&url.host), if url.tls { "https" } else { "http" });
            let message = format!(
                "found {scheme} to {host}, allowed: https to a host that is public; or allow_private = [{host}] \
                 beside it"
            );
            self.problems.add(&spot.place, message);
        }
        Some(url)
    }
}

/// Whether it is certainly this machine.
fn is_loopback(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback() || address == IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}
