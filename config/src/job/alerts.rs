//! `[alerts.*]`: who is told of incidents and how, and what may be done about them.

use std::path::PathBuf;

use super::{PolicyRules, Secret};

/// `[alerts.*]`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Alerts {
    /// `[alerts.email]`; `None`: no mails.
    pub email: Option<EmailAlerts>,
    /// `[alerts.webhook]` or each `[[alerts.webhook]]`; names are unique.
    pub webhooks: Vec<Webhook>,
    /// `[alerts.policy]`.
    pub policy: PolicyRules,
}

/// `[alerts.email]`: at least one of `server` and `dir` is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmailAlerts {
    /// Who hands the mails on.
    pub server: Option<MailServer>,
    /// Folder to which each mail is written as an `.eml` file, beside the server or in its stead.
    pub dir: Option<PathBuf>,
    /// Who the mails are from.
    pub from: Sender,
    /// Addresses of those who look after incidents; at least one.
    pub to: Vec<String>,
    /// Whether the owners of keys are told, too.
    pub owners: bool,
    /// What `to` reads.
    pub language: Language,
    /// What owners read.
    pub owner_language: Language,
    /// Folder of templates that replace those that come with the job.
    pub templates: Option<PathBuf>,
    /// Mails to one address within an hour; more are put off.
    pub per_recipient: u32,
    /// Mails within an hour; more are put off.
    pub per_hour: u32,
    /// Incidents within a minute above which one digest tells of all of them.
    pub digest_after: u32,
}

impl EmailAlerts {
    /// Everything else as it is by default.
    #[must_use]
    pub fn new(from: Sender, to: Vec<String>) -> Self {
        Self {
            server: None,
            dir: None,
            from,
            to,
            owners: false,
            language: Language::default(),
            owner_language: Language::default(),
            templates: None,
            per_recipient: 20,
            per_hour: 200,
            digest_after: 10,
        }
    }
}

/// Who a mail is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// As people see it; no control characters, none of `<>"@,;:\`.
    pub name: String,
    /// The address.
    pub address: String,
}

/// A server that takes mails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailServer {
    /// Name or address; addresses of IPv6 without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// How the connection is protected.
    pub tls: MailTls,
    /// Who the job is there, and how it proves that.
    pub credentials: Option<(String, Secret)>,
    /// File with the certificates (PEM) of authorities that are trusted beside the system's.
    pub ca: Option<PathBuf>,
}

/// How a connection to a mail server is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum MailTls {
    /// It begins in the clear, and goes no further without STARTTLS.
    #[default]
    Starttls,
    /// From the first byte.
    Tls,
    /// Not at all.
    None,
}

/// A language that mails can be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Language {
    /// English.
    #[default]
    En,
    /// Korean.
    Ko,
}

/// A receiver of incidents over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Unique in the job.
    pub name: String,
    /// Where it is.
    pub url: WebhookUrl,
    /// What requests are signed with; always there with [`WebhookFormat::Keytide`].
    pub secret: Option<Secret>,
    /// What it understands.
    pub format: WebhookFormat,
    /// Hosts, in lower case, that may be at addresses which aren't public, and that may be talked to without TLS.
    pub allow_private: Vec<String>,
    /// How long a request may take, in milliseconds.
    pub timeout_ms: u64,
}

/// The address of a webhook. What follows its host may be a secret and is never printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookUrl {
    /// `https`, not `http`.
    pub tls: bool,
    /// Name in lower case, or address; addresses of IPv6 without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path and query; begins with a `/`.
    pub target: Secret,
}

/// What a webhook's requests hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum WebhookFormat {
    /// The row of `incident_log`.
    #[default]
    Keytide,
    /// A message as Slack's incoming webhooks take it.
    Slack,
}
