//! Sends one mail to one recipient, over SMTP, into a folder, or both, and says what became of it.
//!
//! The dialogue is led step by step, so that a refusal is known for what it is: of the job (its configuration, its
//! sender: the mail waits for a person), of the recipient or the message (it would be refused for ever), or of the
//! moment (it is tried again). A connection that breaks after the message was handed over leaves open whether it was
//! taken: it is tried again, with the same Message-ID.
//!
//! Each mail has a connection of its own: there are a few hundred an hour at most. This blocks; whoever calls has a
//! thread for it. Limits: [`CONNECT`] for each of a server's addresses, [`ANSWER`] for each answer.

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

/// For a connection.
pub const CONNECT: Duration = Duration::from_secs(20);
/// For an answer.
pub const ANSWER: Duration = Duration::from_secs(60);
/// A file of certificates.
const LARGEST_CA: u64 = 1 << 20;

/// What became of a mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server took it, or it is a file. `unfiled`: it was sent, but its file couldn't be written, and why.
    Sent {
        /// Why there is no file.
        unfiled: Option<String>,
    },
    Retry(String),
    /// Neither this recipient nor this message will ever be taken.
    Refused(String),
    /// No mail is taken before somebody changes the configuration or the server. Keep it, try again, tell people.
    Misconfigured(String),
}

/// A transport that can't be made from its configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// The certificates of `ca`.
    #[error("{}: {reason}", path.display())]
    Certificates { path: PathBuf, reason: String },
    /// TLS can't be set up.
    #[error("TLS: {0}")]
    Tls(String),
}

/// Sends mails.
#[derive(Debug)]
pub struct Transport {
    server: Option<Server>,
    folder: Option<PathBuf>,
}

struct Server {
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
    /// As configured. Connects to nothing and writes nothing.
    ///
    /// # Errors
    /// If the certificates of `ca` can't be used.
    pub fn new(email: &EmailAlerts) -> Result<Self, TransportError> {
        let server = email.server.as_ref().map(Server::new).transpose()?;
        Ok(Self { server, folder: email.dir.clone() })
    }

    /// Sends a mail.
    #[must_use]
    pub fn send(&self, mail: &Mail) -> Outcome {
        let filed = self.folder.as_ref().map_or(Ok(()), |folder| {
            file(folder, mail).map_err(|error| format!("{}: {error}", folder.display()))
        });
        match (&self.server, filed) {
            (None, Err(reason)) => Outcome::Retry(reason),
            (None, Ok(())) if self.folder.is_none() => {
                Outcome::Misconfigured("there is neither a server nor a folder".to_owned())
            }
            (None, Ok(())) => Outcome::Sent { unfiled: None },
            (Some(server), filed) => match server.send(mail) {
                Ok(()) => Outcome::Sent { unfiled: filed.err() },
                Err(outcome) => outcome,
            },
        }
    }

    /// Connects to the server, signs in, and says what was found; `None`: there is no server.
    ///
    /// # Errors
    /// What a mail would have met.
    pub fn connect(&self) -> Result<Option<String>, Outcome> {
        let Some(server) = &self.server else { return Ok(None) };
        let mut connection = server.connect()?;
        connection.command(Noop).map_err(|error| server.outcome(&error, Stage::Connection))?;
        let protection = if connection.is_encrypted() { "encrypted" } else { "in the clear" };
        let signed = if server.credentials.is_some() { "signed in" } else { "not signed in" };
        // It said all that was asked; how it says goodbye doesn't matter.
        let _ = connection.quit();
        Ok(Some(format!("{}:{}, {protection}, {signed}", server.host, server.port)))
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{} ({:?})", self.host, self.port, self.tls)
    }
}

/// What was refused.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The connection, TLS, signing in; the sender.
    Connection,
    Mail,
}

impl Server {
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

    fn connect(&self) -> Result<SmtpConnection, Outcome> {
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
        let connection = connect().map_err(|error| self.outcome(&error, Stage::Connection))?;
        Ok(connection)
    }

    fn send(&self, mail: &Mail) -> Result<(), Outcome> {
        let envelope = mail.message.envelope();
        let mut connection = self.connect()?;
        connection.set_timeout(Some(self.answer)).map_err(|error| Outcome::Retry(error.to_string()))?;
        let tell = |connection: &mut SmtpConnection| {
            let from = MailFrom::new(envelope.from().cloned(), Vec::new());
            connection.command(from).map_err(|error| self.outcome(&error, Stage::Connection))?;
            for to in envelope.to() {
                let to = Rcpt::new(to.clone(), Vec::new());
                connection.command(to).map_err(|error| self.outcome(&error, Stage::Mail))?;
            }
            connection.command(Data).map_err(|error| self.outcome(&error, Stage::Mail))?;
            let message = mail.message.formatted();
            connection.message(&message).map_err(|error| self.outcome(&error, Stage::Mail))
        };
        let told = tell(&mut connection);
        match told {
            // The mail is the server's; how it says goodbye doesn't matter.
            Ok(_) => drop(connection.quit()),
            Err(_) => connection.abort(),
        }
        told.map(drop)
    }

    fn outcome(&self, error: &Error, stage: Stage) -> Outcome {
        let io = io_error(error);
        let timed_out = matches!(io, Some(ErrorKind::WouldBlock | ErrorKind::TimedOut));
        let text = match timed_out {
            true => "no answer in time".to_owned(),
            false => foreign(&error.to_string(), REASON),
        };
        let reason = format!("{}:{}: {text}", self.host, self.port);
        let code = error.status().map(|code| code.to_string());
        // Signing in is asked for, or failed, wherever it is said. Many servers say so, or that they don't relay, as a
        // refusal of the recipient: 5.7 is policy (RFC 3463). In doubt the mail is kept.
        let lower = text.to_lowercase();
        let unauthorized = matches!(code.as_deref(), Some("530" | "534" | "535" | "538"))
            || ["5.7.", "authentic", "authoriz", "relay"]
                .iter()
                .any(|word| error.is_permanent() && lower.contains(word));
        // A certificate that isn't trusted, or isn't the server's.
        let untrusted = io == Some(ErrorKind::InvalidData) && self.parameters.is_some();
        if error.is_client() || error.is_tls() || unauthorized || untrusted {
            Outcome::Misconfigured(reason)
        } else if error.is_permanent() {
            match stage {
                Stage::Connection => Outcome::Misconfigured(reason),
                Stage::Mail => Outcome::Refused(reason),
            }
        } else {
            Outcome::Retry(reason)
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

/// Writes a mail and its envelope as a file: all of it or nothing, and once however often it is written.
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
