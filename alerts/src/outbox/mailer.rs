//! The mailer composes a queued mail and hands it to the transport.

use keytide_config::{EmailAlerts, Language};
use lettre::message::Mailbox;

use super::mails::{DigestItems, MailContent, MailItem, QueuedMail, RecipientKind};
use crate::email::{
    ActionLetter, Audience, ComposeError, Composer, Guide, Letter, MailOutcome, QuotaLetter, StormDigest,
    TemplateError, Transport, TransportError,
};

/// Why a mailer can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("{0} is no address that mails can be sent to")]
    Address(String),
}

/// Composes and sends mails as configured. Its methods block while they do so.
#[derive(Debug)]
pub struct Mailer {
    composer: Composer,
    transport: Transport,
    language: Language,
    owner_language: Language,
}

fn mailbox(name: Option<&str>, address: &str) -> Result<Mailbox, MailError> {
    let parsed = address.parse().map_err(|_| MailError::Address(address.to_owned()))?;
    Ok(Mailbox::new(name.map(str::to_owned), parsed))
}

impl Mailer {
    /// Reads templates and certificates. No connection is made.
    ///
    /// # Errors
    /// If one of them can't be used, or an address isn't one.
    pub fn new(email: &EmailAlerts, guide: Guide) -> Result<Self, MailError> {
        let from = mailbox(Some(&email.from.name), &email.from.address)?;
        for address in &email.to {
            mailbox(None, address)?;
        }
        let reply_to = email.reply_to.as_deref().map(|address| mailbox(None, address)).transpose()?;
        let composer = Composer::new(from, email.templates.as_deref())?;
        Ok(Self {
            composer: composer.guided(guide).replied_to(reply_to),
            transport: Transport::new(email)?,
            language: email.language,
            owner_language: email.owner_language,
        })
    }

    /// Connects to the server, signs in, and describes the connection. Returns `None` if no server is configured.
    ///
    /// # Errors
    /// With the reason for which a mail would have failed.
    pub fn connect(&self) -> Result<Option<String>, String> {
        self.transport.connect().map_err(|outcome| reason(outcome).unwrap_or_default())
    }

    /// Sends a mail that says that it is a test.
    ///
    /// # Errors
    /// With the reason for which it isn't sent.
    pub fn test(&self, to: &str, now_ms: u64) -> Result<(), String> {
        let to = mailbox(None, to).map_err(|error| error.to_string())?;
        let mail = self.composer.test(self.language, &to, now_ms).map_err(|error| error.to_string())?;
        reason(self.transport.send(&mail)).map_or(Ok(()), Err)
    }

    pub(super) fn send(&self, mail: &QueuedMail) -> MailOutcome {
        // Contacts come from a table and may be any text.
        let to = match mailbox(None, &mail.to.address) {
            Ok(to) => to,
            Err(_) => return MailOutcome::Refused("what the tables name isn't a mail's address".to_owned()),
        };
        match self.compose(mail, &to) {
            Ok(composed) => {
                if let Some(error) = &composed.failed_template {
                    tracing::error!(%error, "a template failed; the one that comes with the job was used");
                }
                self.transport.send(&composed)
            }
            Err(error) => MailOutcome::Refused(error.to_string()),
        }
    }

    fn compose(&self, mail: &QueuedMail, to: &Mailbox) -> Result<crate::email::Mail, ComposeError> {
        let audience = mail.to.kind.audience();
        let language = match audience {
            Audience::Security => self.language,
            Audience::Owner => self.owner_language,
        };
        let date_ms = mail.date_ms;
        match &mail.content {
            MailContent::Single(MailItem::Incident(transition, planned)) => {
                let planned = planned.as_deref();
                self.composer.incident(&Letter { transition, planned, audience, language, to, date_ms })
            }
            MailContent::Single(MailItem::Action(notice)) => {
                self.composer.action(&ActionLetter { notice, audience, language, to, date_ms })
            }
            MailContent::Single(MailItem::Gateway(notice)) => {
                self.composer.gateway(notice, language, to, date_ms)
            }
            MailContent::Single(MailItem::Quota(row)) => {
                self.composer.quota(&QuotaLetter { row, language, to, date_ms })
            }
            MailContent::Digest(items) if mail.to.kind == RecipientKind::Customer => {
                let rows: Vec<_> = items.quotas.iter().map(AsRef::as_ref).collect();
                self.composer.quotas(&rows, items.more_quotas, language, to, date_ms)
            }
            MailContent::Digest(items) => {
                let DigestItems { incidents, more, actions, more_actions, held, quotas: _, more_quotas: _ } =
                    &**items;
                let digest = StormDigest {
                    incidents: incidents
                        .iter()
                        .map(|(each, planned)| (&**each, planned.as_deref()))
                        .collect(),
                    more: *more,
                    actions: actions.iter().map(AsRef::as_ref).collect(),
                    more_actions: *more_actions,
                    held: *held,
                };
                self.composer.digest(&digest, audience, language, to, date_ms)
            }
            MailContent::Daily(notices) => {
                let lines: Vec<_> = notices.lines.values().map(AsRef::as_ref).collect();
                self.composer.daily(&lines, notices.more, language, to, date_ms)
            }
        }
    }
}

/// Returns why a mail isn't sent, or `None` if it is.
fn reason(outcome: MailOutcome) -> Option<String> {
    match outcome {
        MailOutcome::Sent { unfiled } => unfiled,
        MailOutcome::Retry(reason) | MailOutcome::Refused(reason) | MailOutcome::Misconfigured(reason) => {
            Some(reason)
        }
    }
}
