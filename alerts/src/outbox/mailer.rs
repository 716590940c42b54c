//! Composes a mail and hands it to the transport.

use keytide_config::{EmailAlerts, Language};
use lettre::message::Mailbox;

use super::mails::{Content, Mail};
use crate::email::{
    Audience, ComposeError, Composer, Letter, Outcome, TemplateError, Transport, TransportError,
};

/// Mails that can't be set up.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The server's certificates, or the folder.
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error("{0} is no address that mails can be sent to")]
    Address(String),
}

/// Sends mails as configured. Blocks while it does.
#[derive(Debug)]
pub struct Post {
    composer: Composer,
    transport: Transport,
    language: Language,
    owner_language: Language,
}

fn mailbox(name: Option<&str>, address: &str) -> Result<Mailbox, MailError> {
    let parsed = address.parse().map_err(|_| MailError::Address(address.to_owned()))?;
    Ok(Mailbox::new(name.map(str::to_owned), parsed))
}

impl Post {
    /// Reads templates and certificates; connects to nothing.
    ///
    /// # Errors
    /// If they can't be used.
    pub fn new(email: &EmailAlerts) -> Result<Self, MailError> {
        let from = mailbox(Some(&email.from.name), &email.from.address)?;
        for address in &email.to {
            mailbox(None, address)?;
        }
        Ok(Self {
            composer: Composer::new(from, email.templates.as_deref())?,
            transport: Transport::new(email)?,
            language: email.language,
            owner_language: email.owner_language,
        })
    }

    /// Connects to the server, signs in, and says what was found; `None`: there is no server.
    ///
    /// # Errors
    /// What a mail would have met.
    pub fn connect(&self) -> Result<Option<String>, String> {
        self.transport.connect().map_err(|outcome| reason(outcome).unwrap_or_default())
    }

    /// Sends a mail that says that it is a test.
    ///
    /// # Errors
    /// Why it isn't sent.
    pub fn test(&self, to: &str, now_ms: u64) -> Result<(), String> {
        let to = mailbox(None, to).map_err(|error| error.to_string())?;
        let mail = self.composer.test(self.language, &to, now_ms).map_err(|error| error.to_string())?;
        reason(self.transport.send(&mail)).map_or(Ok(()), Err)
    }

    pub(super) fn send(&self, mail: &Mail) -> Outcome {
        // A contact of a table may be anything.
        let to = match mailbox(None, &mail.to.address) {
            Ok(to) => to,
            Err(_) => return Outcome::Refused("what the tables name isn't a mail's address".to_owned()),
        };
        match self.compose(mail, &to) {
            Ok(composed) => {
                if let Some(error) = &composed.failed_template {
                    tracing::error!(%error, "a template failed; the one that comes with the job was taken");
                }
                self.transport.send(&composed)
            }
            Err(error) => Outcome::Refused(error.to_string()),
        }
    }

    fn compose(&self, mail: &Mail, to: &Mailbox) -> Result<crate::email::Mail, ComposeError> {
        let audience = mail.to.audience;
        let language = match audience {
            Audience::Security => self.language,
            Audience::Owner => self.owner_language,
        };
        let date_ms = mail.date_ms;
        match &mail.content {
            Content::Single(transition, planned) => {
                let planned = planned.as_deref();
                self.composer.incident(&Letter { transition, planned, audience, language, to, date_ms })
            }
            Content::Digest(transitions, more) => {
                let transitions: Vec<_> = transitions.iter().map(AsRef::as_ref).collect();
                self.composer.digest(&transitions, *more, audience, language, to, date_ms)
            }
        }
    }
}

/// Why a mail isn't sent; `None`: it is.
fn reason(outcome: Outcome) -> Option<String> {
    match outcome {
        Outcome::Sent { unfiled } => unfiled,
        Outcome::Retry(reason) | Outcome::Refused(reason) | Outcome::Misconfigured(reason) => Some(reason),
    }
}
