//! Mistakes of a connection: recognised in librdkafka's words, and explained with the setting to change.
//!
//! Most mistakes end as "brokers are down". Only the log line of a failed connection says more, and that in words for
//! those who know the library. [`Mistake::recognise`] reads these lines; its texts are those of librdkafka 2.12.
//! `tests/kafka/mistakes.rs` makes every mistake at a real broker, so a new version can't change the texts unnoticed.
//!
//! A *certain* mistake is one that trying again can't mend, such as a wrong password. The others are also seen while a
//! broker starts, or behind a proxy without a broker: they are believed once they last.
//!
//! A certificate that is for another host and one of an unknown authority fail with the same words. To tell them apart,
//! [`is_trusted`] makes one more connection, which doesn't compare the host's name and offers no user.
//!
//! Limits: 5 s for that connection; 200 characters of the broker's list of mechanisms.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use keytide_config::KafkaClient;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError as LibraryError;

/// How long the connection that tells two mistakes of certificates apart may take.
const TRUST_TIMEOUT: Duration = Duration::from_secs(5);
/// How often that connection's state is looked at.
const TRUST_LOOK: Duration = Duration::from_millis(100);
/// The most characters of the list of mechanisms that a broker offers.
const OFFERED_CHARS: usize = 200;
/// The most bytes of a certificate's file that are searched for its beginning.
const PEM_BYTES: u64 = 1 << 20;

/// The settings that name a file, and whether it is one in PEM.
const FILES: [(&str, bool); 5] = [
    ("ssl.ca.location", true),
    ("ssl.certificate.location", true),
    ("ssl.crl.location", true),
    ("ssl.key.location", true),
    ("ssl.keystore.location", false),
];

/// A mistake in the settings of a client, or in the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// A connection without TLS to a listener with it.
    WantsTls {
        user: bool,
    },
    /// A connection with TLS to a listener without it.
    NoTls {
        user: bool,
    },
    /// The certificate of a broker is of an unknown authority.
    Untrusted,
    /// The certificate of a broker is for another host.
    OtherName,
    WantsCertificate,
    /// A connection without a user to a listener that wants one.
    WantsUser {
        tls: bool,
    },
    /// A connection with a user to a listener that takes none.
    NoUser {
        tls: bool,
    },
    Mechanism {
        /// The mechanisms of the listener, in its own words.
        offered: String,
    },
    /// A wrong user or a wrong password.
    Credentials,
    /// The port isn't one of Kafka.
    NoKafka,
    UnknownHost,
    NothingListens,
    Unreachable,
}

/// The way in which a client connects: with TLS or without, as a user or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Protocol {
    tls: bool,
    user: bool,
}

impl Protocol {
    pub(super) fn of(client: &KafkaClient) -> Self {
        let protocol = client.settings.get("security.protocol");
        let protocol = protocol.map(|value| value.reveal().trim().to_ascii_lowercase()).unwrap_or_default();
        Self { tls: protocol.ends_with("ssl"), user: protocol.starts_with("sasl") }
    }
}

impl Mistake {
    /// Returns the mistake that a log line or an error of librdkafka is a sign of.
    pub(super) fn recognise(text: &str, Protocol { tls, user }: Protocol) -> Option<Self> {
        let has = |words: &[&str]| words.iter().any(|word| text.contains(word));
        let is_closed = has(&["Disconnected", "connection closed", "Connection reset"]);
        Some(if has(&["certificate verify failed", "verify broker certificate"]) {
            Self::Untrusted
        } else if has(&["certificate required", "client SSL authentication might be required"]) {
            Self::WantsCertificate
        } else if has(&["Unsupported SASL mechanism"]) {
            Self::Mechanism { offered: offered(text) }
        } else if has(&["not valid in current SASL state", "Illegal SASL state"]) {
            Self::NoUser { tls }
        } else if has(&["Authentication failed", "invalid credentials", "SASL authentication error"]) {
            Self::Credentials
        } else if has(&["wrong version number", "packet length too long", "http request"])
            || is_closed && has(&["in state SSL_HANDSHAKE"])
        {
            Self::NoTls { user }
        } else if is_closed && has(&["in state APIVERSION_QUERY"]) && !tls {
            Self::WantsTls { user }
        } else if is_closed && has(&["in state UP"]) && !user {
            Self::WantsUser { tls }
        } else if let Some((_, size)) = text.split_once("Invalid response size ") {
            // The first bytes of an alert of TLS are 15 03, read as a number.
            let size = size.split(' ').next().and_then(|size| size.parse::<u32>().ok());
            if size.is_some_and(|size| size >> 16 == 0x1503) && !tls {
                Self::WantsTls { user }
            } else {
                Self::NoKafka
            }
        } else if has(&["Failed to resolve"]) {
            Self::UnknownHost
        } else if has(&["Connection refused"]) {
            Self::NothingListens
        } else if has(&["No route to host", "is unreachable", "timed out in state CONNECT"]) {
            Self::Unreachable
        } else {
            return None;
        })
    }

    /// Finds out what is wrong with a certificate, if this mistake is about one. That may take some seconds. `config` is
    /// that of the client which made it.
    pub(super) fn settled(self, config: &ClientConfig) -> Self {
        match self {
            Self::Untrusted if is_trusted(config) => Self::OtherName,
            mistake => mistake,
        }
    }

    /// Returns whether trying again can't mend it.
    pub(super) fn is_certain(&self) -> bool {
        match self {
            Self::Untrusted
            | Self::OtherName
            | Self::WantsCertificate
            | Self::NoUser { .. }
            | Self::Mechanism { .. }
            | Self::Credentials => true,
            Self::WantsTls { .. }
            | Self::NoTls { .. }
            | Self::WantsUser { .. }
            | Self::NoKafka
            | Self::UnknownHost
            | Self::NothingListens
            | Self::Unreachable => false,
        }
    }
}

impl std::fmt::Display for Mistake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::WantsTls { user } => write!(
                f,
                "the listener closes connections without TLS: set `security.protocol` to {}, or name the port of a \
                 listener without TLS in `brokers`",
                if *user { "`sasl_ssl`" } else { "`ssl`, or to `sasl_ssl` for a user" }
            ),
            Self::NoTls { user } => write!(
                f,
                "the listener has no TLS: set `security.protocol` to `{}`, or name the port of a listener with TLS in \
                 `brokers`",
                if *user { "sasl_plaintext" } else { "plaintext" }
            ),
            Self::Untrusted => f.write_str(
                "the broker's certificate is of an authority that isn't trusted here: set `ssl.ca.location` to the \
                 file with the authority's certificate",
            ),
            Self::OtherName => f.write_str(
                "the broker's certificate is for another host: write the host's name as the certificate has it, in \
                 `brokers` and in the brokers' own `advertised.listeners`",
            ),
            Self::WantsCertificate => f.write_str(
                "the listener wants a certificate of the client: set `ssl.certificate.location` and \
                 `ssl.key.location`",
            ),
            Self::WantsUser { tls } => write!(
                f,
                "the listener closes connections without a user: set `security.protocol` to `{}`, and \
                 `sasl.mechanism`, `sasl.username` and `sasl.password` beside it",
                if *tls { "sasl_ssl" } else { "sasl_plaintext" }
            ),
            Self::NoUser { tls } => write!(
                f,
                "the listener takes no user: set `security.protocol` to `{}`, or name the port of a listener for users \
                 in `brokers`",
                if *tls { "ssl" } else { "plaintext" }
            ),
            Self::Mechanism { offered } if offered.is_empty() => {
                f.write_str("the listener doesn't take this mechanism: set `sasl.mechanism` to one that it offers")
            }
            Self::Mechanism { offered } => write!(
                f,
                "the listener doesn't take this mechanism: set `sasl.mechanism` to one that it offers, {offered}"
            ),
            Self::Credentials => f.write_str(
                "the user or the password is wrong: correct `sasl.username` and `sasl.password`",
            ),
            Self::NoKafka => f.write_str(
                "something else than Kafka answers at this port: correct `brokers`",
            ),
            Self::UnknownHost => f.write_str(
                "the host's name is unknown: correct `brokers`, the brokers' own `advertised.listeners`, or the name \
                 service of this machine",
            ),
            Self::NothingListens => {
                f.write_str(
                    "nothing listens at this port: start the broker, or correct `brokers` or the brokers' own \
                     `advertised.listeners`",
                )
            }
            Self::Unreachable => f.write_str(
                "the host can't be reached: correct `brokers` or the brokers' own `advertised.listeners`, or let the \
                 network between pass the connection",
            ),
        }
    }
}

/// Returns the mechanisms that a broker offers, as far as their names are plain.
fn offered(text: &str) -> String {
    let (_, list) = text.split_once("supported mechanisms: ").unwrap_or_default();
    let list = list.split(" (").next().unwrap_or_default().trim();
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | ',' | ' ');
    list.chars().filter(|letter| is_plain(*letter)).take(OFFERED_CHARS).collect()
}

/// Returns librdkafka's words without what changes from one time to the next: the thread, the time, the repetitions.
pub(super) fn brief(text: &str) -> &str {
    let text = match text.strip_prefix("[thrd:") {
        Some(rest) => rest.split_once("]: ").map_or(rest, |(_, rest)| rest),
        None => text,
    };
    text.split(" (after ").next().unwrap_or(text)
}

/// Returns the settings whose file can't be used, each with the reason, which doesn't name the file.
pub(super) fn unusable_files(client: &KafkaClient) -> Vec<(&'static str, String)> {
    let problem = |(name, is_pem): (&'static str, bool)| {
        let path = client.settings.get(name)?.reveal();
        // librdkafka looks for the system's certificates itself.
        let is_word = name == "ssl.ca.location" && path == "probe";
        let reason = if is_word { None } else { unusable(Path::new(path), is_pem) };
        Some((name, reason?))
    };
    FILES.into_iter().filter_map(problem).collect()
}

fn unusable(path: &Path, is_pem: bool) -> Option<String> {
    let read = || {
        // A folder holds certificates by their hashes; others may wait for ever.
        if !path.metadata()?.is_file() {
            return io::Result::Ok(None);
        }
        let mut text = Vec::new();
        File::open(path)?.take(PEM_BYTES).read_to_end(&mut text)?;
        Ok(Some(text))
    };
    match read() {
        Ok(Some(text)) if is_pem && !text.windows(10).any(|window| window == b"-----BEGIN") => {
            Some("the file that it names holds nothing in PEM".to_owned())
        }
        Ok(_) => None,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Some("there is no such file as it names".to_owned())
        }
        Err(error) => Some(format!("the file that it names can't be read: {error}")),
    }
}

/// Returns whether the brokers' certificates are of a trusted authority, whatever host they are for.
///
/// No user and no password is sent, and no record.
fn is_trusted(of_client: &ClientConfig) -> bool {
    let mut config = ClientConfig::new();
    for (name, value) in of_client.config_map() {
        if !name.starts_with("sasl.") {
            config.set(name, value);
        }
    }
    config
        .set("security.protocol", "ssl")
        .set("ssl.endpoint.identification.algorithm", "none")
        .set("debug", "security")
        .set_log_level(RDKafkaLogLevel::Debug);
    let Ok(lookup) = config.create_with_context::<_, BaseConsumer<_>>(Handshake::default()) else {
        return false;
    };
    let started = Instant::now();
    while started.elapsed() < TRUST_TIMEOUT {
        let _ = lookup.fetch_metadata(None, TRUST_LOOK);
        let _ = lookup.poll(Duration::ZERO);
        match lookup.context().0.load(Ordering::Relaxed) {
            VERIFIED => return true,
            FAILED => return false,
            _ => {}
        }
    }
    false
}

const VERIFIED: u8 = 1;
const FAILED: u8 = 2;

/// Learns from log lines how a handshake ended.
#[derive(Default)]
struct Handshake(AtomicU8);

impl ClientContext for Handshake {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, _: &str) {
        match facility {
            "SSLVERIFY" => self.0.store(VERIFIED, Ordering::Relaxed),
            "FAIL" => {
                let _ = self.0.compare_exchange(0, FAILED, Ordering::Relaxed, Ordering::Relaxed);
            }
            _ => {}
        }
    }

    fn error(&self, _: LibraryError, _: &str) {}
}

impl ConsumerContext for Handshake {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use keytide_config::Secret;

    use super::*;

    fn client(settings: &[(&str, &str)]) -> KafkaClient {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value)));
        KafkaClient { brokers: "127.0.0.1:1".to_owned(), settings: settings.collect::<BTreeMap<_, _>>() }
    }

    #[test]
    fn mistakes_are_recognised_in_the_words_of_librdkafka_and_name_the_setting_to_change() {
        let closed = "Disconnected: connection closed by peer: receive 0 after POLLIN (after 35ms in state APIVERSION_QUERY)";
        let tls_closed = "SSL handshake failed: Disconnected: SSL connection closed by peer: connecting to a PLAINTEXT broker \
                          listener? (after 25ms in state SSL_HANDSHAKE)";
        let state = "SASL PLAIN mechanism handshake failed: Broker: Request not valid in current SASL state: broker's \
                     supported mechanisms:  (after 1ms in state AUTH_HANDSHAKE)";
        let mechanism = "SASL PLAIN mechanism handshake failed: Broker: Unsupported SASL mechanism: broker's supported \
                         mechanisms: SCRAM-SHA-512,GSSAPI (after 310ms in state AUTH_HANDSHAKE)";
        for (protocol, text, expected) in [
            ("", closed, "set `security.protocol` to `ssl`, or to `sasl_ssl` for a user"),
            ("SASL_PLAINTEXT", closed, "set `security.protocol` to `sasl_ssl`, or"),
            ("plaintext", "Receive failed: Invalid response size 352518912 (0..100000000)", "to `ssl`, or"),
            ("ssl", tls_closed, "set `security.protocol` to `plaintext`"),
            ("sasl_ssl", tls_closed, "set `security.protocol` to `sasl_plaintext`"),
            ("ssl", "error:0A00010B:SSL routines::wrong version number", "the listener has no TLS"),
            (
                "ssl",
                "error:0A000086:SSL routines::certificate verify failed: broker",
                "set `ssl.ca.location`",
            ),
            ("ssl", "error:0A00045C:SSL routines::tlsv13 alert certificate required", "`ssl.key.location`"),
            (
                "ssl",
                "Disconnected: SSL connection closed by peer (after 2ms in state UP)",
                "to `sasl_ssl`, and",
            ),
            ("", "Disconnected (after 2ms in state UP)", "set `security.protocol` to `sasl_plaintext`, and"),
            ("sasl_plaintext", state, "takes no user: set `security.protocol` to `plaintext`"),
            ("sasl_ssl", state, "takes no user: set `security.protocol` to `ssl`"),
            ("sasl_ssl", mechanism, "set `sasl.mechanism` to one that it offers, SCRAM-SHA-512,GSSAPI"),
            (
                "sasl_ssl",
                "SASL authentication error: Authentication failed",
                "`sasl.username` and `sasl.password`",
            ),
            (
                "",
                "Receive failed: Invalid response size 1213486160 (0..1)",
                "something else than Kafka answers",
            ),
            ("", "Failed to resolve 'kafka:9092': Name or service not known", "the host's name is unknown"),
            ("", "Connect to ipv4#127.0.0.1:1 failed: Connection refused", "nothing listens at this port"),
            ("", "Connect to ipv4#10.0.0.1:1 failed: No route to host", "the host can't be reached"),
            ("", "Connection setup timed out in state CONNECT (after 30000ms)", "the host can't be reached"),
        ] {
            let protocol = Protocol::of(&client(&[("security.protocol", protocol)]));
            let found = Mistake::recognise(text, protocol).map(|mistake| mistake.to_string());
            assert!(found.as_deref().is_some_and(|found| found.contains(expected)), "{text}\n{found:?}");
        }
        // A user's connection that ends while it is up, and a broker that ends, are no mistakes.
        let user = Protocol { tls: true, user: true };
        for text in ["Disconnected (after 2ms in state UP)", "2/3 brokers are down", ""] {
            assert_eq!(Mistake::recognise(text, user), None, "{text}");
        }
        let odd = "Unsupported SASL mechanism: broker's supported mechanisms: A\u{1b}[31m<b>;B (after 1ms)";
        assert_eq!(Mistake::recognise(odd, user), Some(Mistake::Mechanism { offered: "A31mbB".to_owned() }));
    }

    #[test]
    fn words_that_change_from_one_time_to_the_next_are_left_out() {
        let line = "[thrd:ssl://b:1/bootstrap]: ssl://b:1/bootstrap: Disconnected (after 0ms in state UP, 1 identical error(s) \
                    suppressed)";
        assert_eq!(brief(line), "ssl://b:1/bootstrap: Disconnected");
        assert_eq!(brief("1/1 brokers are down"), "1/1 brokers are down");
        assert_eq!(brief("[thrd:"), "");
    }

    #[test]
    fn files_that_cannot_be_used_are_named_by_their_setting_alone() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let pem = write("canary.pem", "# ours\n-----BEGIN CERTIFICATE-----\n");
        let no_pem = write("canary.txt", "-----BEGI");
        let nowhere = folder.path().join("canary").to_str().unwrap().to_owned();
        let problems = |settings: &[(&str, &str)]| -> Vec<String> {
            let problems = unusable_files(&client(settings)).into_iter();
            problems.map(|(setting, reason)| format!("{setting}: {reason}")).collect()
        };
        let found = problems(&[
            ("ssl.ca.location", &nowhere),
            ("ssl.certificate.location", &no_pem),
            ("ssl.key.location", &pem),
            ("ssl.keystore.location", &no_pem),
        ]);
        assert_eq!(
            found,
            [
                "ssl.ca.location: there is no such file as it names",
                "ssl.certificate.location: the file that it names holds nothing in PEM",
            ]
        );
        let folder = folder.path().to_str().unwrap();
        assert_eq!(problems(&[("ssl.ca.location", folder)]), [""; 0]);
        assert_eq!(problems(&[("ssl.ca.location", "probe")]), [""; 0]);
    }
}
