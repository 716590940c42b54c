//! The transport sends one mail to one recipient, over SMTP, into a folder, or both, and returns the outcome.
//!
//! It sends the SMTP commands one by one, so that it can classify a refusal. If the server refuses the session or the
//! sender, the mail waits for a person. If it refuses the recipient or the message for good, the mail is given up. Any
//! other failure is tried again. If a connection breaks after the message, the server may have taken it; then it is
//! sent again with the same Message-ID.
//!
//! Each mail has a connection of its own, as there are a few hundred mails an hour at most. All calls block. Limits:
//! [`CONNECT`] for each of a server's addresses, [`ANSWER`] for each answer.

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use keytide_config::{EmailAlerts, MailServer, MailTls};
use lettre::transport::smtp::Error;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{Certificate, SmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail as MailFrom, Noop, Rcpt};
use lettre::transport::smtp::extension::ClientId;

use super::clean::{REASON, foreign};
use super::compose::Mail;

/// The time limit for a connection to one address.
pub const CONNECT: Duration = Duration::from_secs(20);
/// The time limit for each answer of the server.
pub const ANSWER: Duration = Duration::from_secs(60);
/// The largest file of certificates, in bytes.
const LARGEST_CA: u64 = 1 << 20;

/// The outcome of one attempt to send a mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MailOutcome {
    /// The server took the mail, or it is in its file.
    Sent {
        /// Says why the file couldn't be written, if the server took the mail but the file is missing.
        unfiled: Option<String>,
    },
    Retry(String),
    /// The server will never take this message for this recipient.
    Refused(String),
    /// All mails fail until a person changes the configuration or the server. The mail must be kept and tried again.
    Misconfigured(String),
}

/// Why a transport can't be made from its configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    #[error("{}: {reason}", path.display())]
    Certificates { path: PathBuf, reason: String },
    #[error("TLS: {0}")]
    Tls(String),
}

/// Sends mails to a server, into a folder, or both.
#[derive(Debug)]
pub struct Transport {
    server: Option<SmtpServer>,
    folder: Option<PathBuf>,
}

struct SmtpServer {
    host: String,
    port: u16,
    tls: MailTls,
    parameters: Option<TlsParameters>,
    credentials: Option<Credentials>,
    hello: ClientId,
    connect: Duration,
    answer: Duration,
}

impl Transport {
    /// Reads the certificates. It neither connects nor writes.
    ///
    /// # Errors
    /// If the certificates of `ca` can't be used.
    pub fn new(email: &EmailAlerts) -> Result<Self, TransportError> {
        let server = email.server.as_ref().map(SmtpServer::new).transpose()?;
        Ok(Self { server, folder: email.dir.clone() })
    }

    /// Sends a mail, and writes its file first if there is a folder.
    #[must_use]
    pub fn send(&self, mail: &Mail) -> MailOutcome {
        let filed = self.folder.as_ref().map_or(Ok(()), |folder| {
            file(folder, mail).map_err(|error| format!("{}: {error}", folder.display()))
        });
        match (&self.server, filed) {
            (None, Err(reason)) => MailOutcome::Retry(reason),
            (None, Ok(())) if self.folder.is_none() => {
                MailOutcome::Misconfigured("there is neither a server nor a folder".to_owned())
            }
            (None, Ok(())) => MailOutcome::Sent { unfiled: None },
            (Some(server), filed) => match server.send(mail) {
                Ok(()) => MailOutcome::Sent { unfiled: filed.err() },
                Err(outcome) => outcome,
            },
        }
    }

    /// Connects to the server, signs in, and describes the connection. Returns `None` if no server is configured.
    ///
    /// # Errors
    /// With the outcome that a mail would have had.
    pub fn connect(&self) -> Result<Option<String>, MailOutcome> {
        let Some(server) = &self.server else { return Ok(None) };
        let mut connection = server.connect()?;
        connection.command(Noop).map_err(|error| server.outcome(&error, SmtpPhase::Session))?;
        let protection = if connection.is_encrypted() { "encrypted" } else { "in the clear" };
        let signed = if server.credentials.is_some() { "signed in" } else { "not signed in" };
        // The check is done; a failing QUIT doesn't matter.
        let _ = connection.quit();
        Ok(Some(format!("{}:{}, {protection}, {signed}", server.host, server.port)))
    }
}

impl std::fmt::Debug for SmtpServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{} ({:?})", self.host, self.port, self.tls)
    }
}

/// The part of the dialogue that failed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SmtpPhase {
    /// Connecting, TLS, signing in, and the sender: its refusal concerns all mails.
    Session,
    /// The recipient and the message: their refusal concerns one mail.
    Message,
}

impl SmtpServer {
    fn new(server: &MailServer) -> Result<Self, TransportError> {
        let parameters = match server.tls {
            MailTls::None => None,
            MailTls::Starttls | MailTls::Tls => {
                let mut builder = TlsParameters::builder(server.host.clone());
                if let Some(certificate) = server.ca.as_deref().map(certificates).transpose()? {
                    builder = builder.add_root_certificate(certificate);
                }
                Some(builder.build().map_err(|error| TransportError::Tls(error.to_string()))?)
            }
        };
        let credentials = server.credentials.as_ref();
        Ok(Self {
            host: server.host.clone(),
            port: server.port,
            tls: server.tls,
            parameters,
            credentials: credentials
                .map(|(name, password)| Credentials::new(name.clone(), password.reveal().to_owned())),
            hello: ClientId::default(),
            connect: CONNECT,
            answer: ANSWER,
        })
    }

    fn connect(&self) -> Result<SmtpConnection, MailOutcome> {
        let connect = || {
            let address = (self.host.as_str(), self.port);
            let at_once = self.parameters.as_ref().filter(|_| self.tls == MailTls::Tls);
            let mut connection =
                SmtpConnection::connect(address, Some(self.connect), &self.hello, at_once, None)?;
            if let Some(parameters) = self.parameters.as_ref().filter(|_| self.tls == MailTls::Starttls) {
                connection.starttls(parameters, &self.hello)?;
            }
            if let Some(credentials) = &self.credentials {
                connection.auth(DEFAULT_MECHANISMS, credentials)?;
            }
            Ok(connection)
        };
        let connection = connect().map_err(|error| self.outcome(&error, SmtpPhase::Session))?;
        Ok(connection)
    }

    fn send(&self, mail: &Mail) -> Result<(), MailOutcome> {
        let envelope = mail.message.envelope();
        let mut connection = self.connect()?;
        connection.set_timeout(Some(self.answer)).map_err(|error| MailOutcome::Retry(error.to_string()))?;
        let deliver = |connection: &mut SmtpConnection| {
            let from = MailFrom::new(envelope.from().cloned(), Vec::new());
            connection.command(from).map_err(|error| self.outcome(&error, SmtpPhase::Session))?;
            for to in envelope.to() {
                let to = Rcpt::new(to.clone(), Vec::new());
                connection.command(to).map_err(|error| self.outcome(&error, SmtpPhase::Message))?;
            }
            connection.command(Data).map_err(|error| self.outcome(&error, SmtpPhase::Message))?;
            let message = mail.message.formatted();
            connection.message(&message).map_err(|error| self.outcome(&error, SmtpPhase::Message))
        };
        let delivered = deliver(&mut connection);
        match delivered {
            // The server has the mail; a failing QUIT doesn't matter.
            Ok(_) => drop(connection.quit()),
            Err(_) => connection.abort(),
        }
        delivered.map(drop)
    }

    fn outcome(&self, error: &Error, phase: SmtpPhase) -> MailOutcome {
        let io = io_error(error);
        let timed_out = matches!(io, Some(ErrorKind::WouldBlock | ErrorKind::TimedOut));
        let text = match timed_out {
            true => "no answer in time".to_owned(),
            false => foreign(&error.to_string(), REASON),
        };
        let reason = format!("{}:{}: {text}", self.host, self.port);
        let code = error.status().map(|code| code.to_string());
        // Many servers refuse the recipient when they want a sign-in or don't relay: 5.7 is policy (RFC 3463). Such
        // answers count as a misconfiguration in any phase, so that in doubt the mail is kept.
        let lower = text.to_lowercase();
        let unauthorized = matches!(code.as_deref(), Some("530" | "534" | "535" | "538"))
            || ["5.7.", "authentic", "authoriz", "relay"]
                .iter()
                .any(|word| error.is_permanent() && lower.contains(word));
        // rustls reports an untrusted certificate, or one of another host, as invalid data.
        let untrusted = io == Some(ErrorKind::InvalidData) && self.parameters.is_some();
        if error.is_client() || error.is_tls() || unauthorized || untrusted {
            MailOutcome::Misconfigured(reason)
        } else if error.is_permanent() {
            match phase {
                SmtpPhase::Session => MailOutcome::Misconfigured(reason),
                SmtpPhase::Message => MailOutcome::Refused(reason),
            }
        } else {
            MailOutcome::Retry(reason)
        }
    }
}

fn io_error(error: &Error) -> Option<ErrorKind> {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        source = inner.source();
    }
    None
}

fn certificates(path: &Path) -> Result<Certificate, TransportError> {
    let broken = |reason: String| TransportError::Certificates { path: path.to_owned(), reason };
    let mut pem = Vec::new();
    let file = File::open(path).map_err(|error| broken(error.to_string()))?;
    file.take(LARGEST_CA + 1).read_to_end(&mut pem).map_err(|error| broken(error.to_string()))?;
    if pem.len() as u64 > LARGEST_CA {
        return Err(broken(format!("it has more than {} KiB", LARGEST_CA >> 10)));
    }
    if !pem.windows(27).any(|window| window == b"-----BEGIN CERTIFICATE-----") {
        return Err(broken("it has no certificate (PEM)".to_owned()));
    }
    Certificate::from_pem(&pem).map_err(|error| broken(error.to_string()))
}

/// Writes a mail and its envelope to a file, atomically. Writing the same mail again replaces the file.
fn file(folder: &Path, mail: &Mail) -> std::io::Result<()> {
    let envelope = mail.message.envelope();
    let mut content = Vec::new();
    if let Some(from) = envelope.from() {
        write!(content, "X-Envelope-From: <{from}>\r\n")?;
    }
    for to in envelope.to() {
        write!(content, "X-Envelope-To: <{to}>\r\n")?;
    }
    content.extend(mail.message.formatted());
    let (unfinished, path) =
        (folder.join(format!(".{}.unfinished", mail.name)), folder.join(format!("{}.eml", mail.name)));
    std::fs::create_dir_all(folder)?;
    let mut file = File::create(&unfinished)?;
    file.write_all(&content)?;
    file.sync_all()?;
    std::fs::rename(unfinished, path)
}

#[cfg(test)]
mod tests;
