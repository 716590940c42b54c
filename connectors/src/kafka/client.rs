//! Access to librdkafka for every consumer and producer: settings, log lines, errors, tokens.
//!
//! The configuration's settings come after our defaults. The settings that our guarantees rest on come last, and
//! each client adds its own. Log lines of librdkafka go to `tracing` under the target `librdkafka`. If librdkafka
//! can go on by itself, they are one level lower than its own. Lines about lost connections are for debugging: an outage
//! repeats them, and is said once in a sentence of its own.
//!
//! **OAUTHBEARER**: librdkafka is built without its OIDC client. So the token comes from the file that
//! `keytide.oauth.token.file` names, which another program keeps fresh. It is read anew whenever librdkafka asks
//! for a token, which is before the token's `exp`.
//!
//! Limits: a token has at most 64 KiB. Secrets shorter than 4 bytes aren't removed from log lines.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine as _, alphabet};
use keytide_config::KafkaClient;
use rdkafka::ClientConfig;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError as LibraryError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaConfRes;
use serde::Deserialize;

use super::mistake::{Mistake, Protocol, brief, unusable_files};
use super::rights::Right;

/// The name of our own setting, for the file with the token for `sasl.mechanism = OAUTHBEARER`.
pub(super) const TOKEN_FILE: &str = "keytide.oauth.token.file";
/// The facility of log lines about a connection that is lost or can't be opened.
const LOST: &str = "FAIL";
const MAX_TOKEN_BYTES: u64 = 64 << 10;
/// The length from which secrets are removed from log lines. Shorter ones would be found there by chance.
const MIN_SECRET_BYTES: usize = 4;

/// An error of reading from Kafka, or of a client that can't be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KafkaError {
    #[error("librdkafka refuses the setting `{setting}`: {reason}")]
    Setting { setting: String, reason: String },
    #[error("librdkafka refuses its settings: {reason}")]
    Settings { reason: String },
    #[error("there is no topic `{topic}` at {brokers}; create it, or correct its name")]
    NoTopic { topic: String, brokers: String },
    #[error("topic `{topic}` has no partition {partition}; it has {partitions}, counted from 0")]
    NoPartition { topic: String, partition: u32, partitions: usize },
    #[error(
        "offset {offset} isn't in partition {partition} of topic `{topic}`: allowed are {low} (the earliest record) \
         to {high} (behind the last one)"
    )]
    OutOfRange {
        topic: String,
        partition: u32,
        offset: u64,
        /// The earliest offset that the partition has.
        low: u64,
        high: u64,
    },
    /// Records were deleted before they were read.
    #[error(
        "partition {partition} of topic `{topic}` has no record at offset {wanted} any more: it holds {low} to \
         {high}; were records deleted, or was the topic created anew? `on_gap = \"skip\"` goes on behind the gap"
    )]
    Gap {
        topic: String,
        partition: u32,
        /// The offset that was to be read next.
        wanted: u64,
        /// The earliest offset that the partition has.
        low: u64,
        high: u64,
    },
    #[error("{brokers}{}", explained("refused to", what, mistake.as_ref(), reason))]
    Refused {
        /// The request, as a verb and its object.
        what: String,
        brokers: String,
        /// The mistake that a person has to correct, if it was recognised.
        mistake: Option<Mistake>,
        /// The reason in librdkafka's words.
        reason: String,
    },
    #[error("{brokers}: the user has no right {right} on topic `{topic}`: add an ACL that allows it")]
    Denied { brokers: String, right: Right, topic: String },
    /// The brokers gave no (good) answer in time.
    #[error("{brokers}{}", explained("could not", what, mistake.as_ref(), reason))]
    Unavailable {
        /// The request, as a verb and its object.
        what: String,
        brokers: String,
        /// The mistake that a person may have to correct, if it was recognised.
        mistake: Option<Mistake>,
        /// The reason in librdkafka's words.
        reason: String,
    },
    #[error("reading topic `{topic}` failed for good: {reason}")]
    Fatal {
        topic: String,
        /// The reason in librdkafka's words.
        reason: String,
    },
}

/// Returns the sentence about a mistake, with librdkafka's words in brackets. Without one it says what didn't work.
fn explained(verb: &str, what: &str, mistake: Option<&Mistake>, reason: &str) -> String {
    match mistake {
        Some(mistake) => format!(": {mistake} ({reason})"),
        None if verb == "refused to" => {
            format!(" {verb} {what}: {reason}; check the credentials, the certificates and the ACLs")
        }
        None => format!(" {verb} {what}: {reason}"),
    }
}

/// The class of an error, by the help that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum ErrorClass {
    /// A person has to change settings, topics or rights first.
    Definite,
    Transient,
    /// The job may not mend the data or the client by itself.
    Fatal,
}

impl KafkaError {
    /// Returns the class of the error.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Setting { .. }
            | Self::Settings { .. }
            | Self::NoTopic { .. }
            | Self::NoPartition { .. }
            | Self::OutOfRange { .. }
            | Self::Refused { .. }
            | Self::Denied { .. } => ErrorClass::Definite,
            Self::Unavailable { .. } => ErrorClass::Transient,
            Self::Gap { .. } | Self::Fatal { .. } => ErrorClass::Fatal,
        }
    }
}

/// Returns the settings that every client of these brokers starts from. They must not be printed: their `Debug`
/// hides only some secrets.
#[must_use]
pub fn client_config(client: &KafkaClient) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("client.id", "keytide");
    config.set("socket.keepalive.enable", "true");
    // After an outage librdkafka may know a partition's new leader and not yet the broker. It asks again after this
    // time, which is five minutes by default.
    config.set("topic.metadata.refresh.interval.ms", "10000");
    for (name, value) in client.settings.iter().filter(|(name, _)| *name != TOKEN_FILE) {
        config.set(name, value.reveal());
    }
    config.set("bootstrap.servers", &client.brokers);
    let verbose = tracing::enabled!(target: "librdkafka", tracing::Level::TRACE);
    config.set_log_level(if verbose { RDKafkaLogLevel::Debug } else { RDKafkaLogLevel::Info });
    config
}

/// Returns an error for every setting whose file can't be used.
fn unusable(client: &KafkaClient) -> impl Iterator<Item = KafkaError> {
    let error =
        |(setting, reason): (&str, String)| KafkaError::Setting { setting: setting.to_owned(), reason };
    unusable_files(client).into_iter().map(error)
}

/// Returns an error for every setting of `client` that librdkafka refuses, in the order of their names. The errors
/// quote no value.
///
/// Each setting is tried alone on an empty configuration, which knows every name and the form of every value. It
/// can't show whether values fit each other. Settings whose file isn't there or can't be used come last.
#[must_use]
pub fn refused_settings(client: &KafkaClient) -> Vec<KafkaError> {
    let tried = client.settings.iter().filter(|(name, _)| *name != TOKEN_FILE).filter_map(|(name, value)| {
        let mut config = ClientConfig::new();
        config.set(name, value.reveal());
        config.create_native_config().err()
    });
    tried.map(|error| create_error(client, error)).chain(unusable(client)).collect()
}

/// Returns the error that a failed creation of a client means. The error quotes no value.
#[must_use]
pub fn create_error(client: &KafkaClient, error: LibraryError) -> KafkaError {
    match error {
        LibraryError::ClientConfig(RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, _, setting, _) => {
            let reason = super::settings::unknown(&setting);
            KafkaError::Setting { setting, reason }
        }
        // Its description quotes the value, which may be a secret.
        LibraryError::ClientConfig(_, description, setting, value) => {
            let reason = if value.is_empty() || !description.contains(&value) {
                description
            } else {
                "its value isn't allowed".to_owned()
            };
            KafkaError::Setting { setting, reason }
        }
        // librdkafka says only that a part of OpenSSL failed.
        LibraryError::ClientCreation(reason) => {
            unusable(client).next().unwrap_or(KafkaError::Settings { reason })
        }
        LibraryError::Nul(_) => KafkaError::Settings { reason: "a value holds a NUL byte".to_owned() },
        other => KafkaError::Settings { reason: other.to_string() },
    }
}

/// The callbacks of a client, for consumers and producers alike.
pub struct KafkaContext {
    brokers: String,
    protocol: Protocol,
    /// The values that must not be in a log line.
    secrets: Vec<String>,
    token_file: Option<PathBuf>,
    state: Mutex<ClientState>,
}

#[derive(Default)]
struct ClientState {
    /// The last error since [`KafkaContext::recovered`].
    trouble: Option<Trouble>,
    /// The mistake that was recognised since then, when it was first seen, and librdkafka's words for it.
    mistake: Option<(Mistake, Instant, String)>,
    /// The codes of the errors that were logged since then.
    logged: Vec<RDKafkaErrorCode>,
    end_offset: Option<u64>,
    statistics: Option<ConsumerStatistics>,
}

/// An error that a client met, with secrets removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) code: RDKafkaErrorCode,
    pub(super) reason: String,
}

impl Trouble {
    /// Returns whether a person has to change something.
    pub(super) fn is_refusal(&self) -> bool {
        is_refusal(self.code)
    }
}

pub(super) fn is_refusal(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Authentication
            | RDKafkaErrorCode::SSL
            | RDKafkaErrorCode::SaslAuthenticationFailed
            | RDKafkaErrorCode::UnsupportedSASLMechanism
            | RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
    )
}

/// The part of librdkafka's statistics that we read.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ConsumerStatistics {
    #[serde(default)]
    pub(super) topics: hashbrown::HashMap<String, TopicStatistics>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct TopicStatistics {
    #[serde(default)]
    pub(super) partitions: hashbrown::HashMap<i32, PartitionStatistics>,
}

/// The offsets of a partition, negative if they aren't known.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct PartitionStatistics {
    /// The last stable offset, behind the last record that may be read.
    pub(super) ls_offset: i64,
    pub(super) hi_offset: i64,
}

impl KafkaContext {
    /// Makes the callbacks of clients that are made of [`client_config`] of the same `client`.
    #[must_use]
    pub fn new(client: &KafkaClient) -> Self {
        let setting = |name: &str| client.settings.get(name).map(|value| value.reveal());
        let secrets = client
            .settings
            .iter()
            .filter(|(name, _)| is_secret(name))
            .map(|(_, value)| value.reveal().trim().to_owned())
            .filter(|value| value.len() >= MIN_SECRET_BYTES)
            .collect();
        Self {
            brokers: client.brokers.clone(),
            protocol: Protocol::of(client),
            secrets,
            token_file: setting(TOKEN_FILE).map(PathBuf::from),
            state: Mutex::default(),
        }
    }

    /// Notes that the brokers answered. Logs it if they didn't before.
    pub fn recovered(&self) {
        let troubled = {
            let mut state = self.state();
            state.logged.clear();
            state.mistake = None;
            state.trouble.take().is_some()
        };
        if troubled {
            tracing::info!(brokers = self.brokers, "brokers answer again");
        }
    }

    pub(super) fn brokers(&self) -> &str {
        &self.brokers
    }

    pub(super) fn trouble(&self) -> Option<Trouble> {
        self.state().trouble.clone()
    }

    /// Returns the mistake that was recognised since the brokers answered last, for how long it has been there, and
    /// librdkafka's words for it.
    pub(super) fn mistake(&self) -> Option<(Mistake, Duration, String)> {
        let state = self.state();
        let (mistake, since, reason) = state.mistake.as_ref()?;
        Some((mistake.clone(), since.elapsed(), reason.clone()))
    }

    /// Keeps the mistake that a message is a sign of. A certain one stays, and one that is seen again isn't new.
    fn recognise(&self, message: &str) {
        let Some(mistake) = Mistake::recognise(message, self.protocol) else { return };
        let mut state = self.state();
        let is_new = match &state.mistake {
            None => true,
            Some((known, ..)) => !known.is_certain() && *known != mistake,
        };
        if is_new {
            let since = match &state.mistake {
                Some((_, since, _)) if !mistake.is_certain() => *since,
                _ => Instant::now(),
            };
            state.mistake = Some((mistake, since, brief(message).to_owned()));
        }
    }

    /// Takes the end of the partition whose end was reported last.
    pub(super) fn take_end_offset(&self) -> Option<u64> {
        self.state().end_offset.take()
    }

    pub(super) fn with_statistics<T>(&self, read: impl FnOnce(&ConsumerStatistics) -> T) -> Option<T> {
        self.state().statistics.as_ref().map(read)
    }

    fn state(&self) -> MutexGuard<'_, ClientState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns `text` with every secret replaced by `***`.
    pub(super) fn redact<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut text = Cow::Borrowed(text);
        for secret in &self.secrets {
            if text.contains(secret.as_str()) {
                text = Cow::Owned(text.replace(secret.as_str(), "***"));
            }
        }
        text
    }
}

impl fmt::Debug for KafkaContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaContext").field("brokers", &self.brokers).finish_non_exhaustive()
    }
}

/// Returns whether a setting's value is a secret. Names of mechanisms, files and hosts aren't: many log lines
/// contain them.
fn is_secret(setting: &str) -> bool {
    ["password", "secret", "pem", "jaas", "token", "oauthbearer.config", "sasl.username"]
        .iter()
        .any(|word| setting.contains(word))
        && setting != TOKEN_FILE
        && !setting.contains("url")
}

impl ClientContext for KafkaContext {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        let message = self.redact(message);
        if facility == LOST {
            self.recognise(&message);
        }
        match level {
            // The error that comes with it is logged once in an outage.
            _ if facility == LOST => tracing::debug!(target: "librdkafka", facility, "{message}"),
            RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
                tracing::error!(target: "librdkafka", facility, "{message}");
            }
            RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
                tracing::warn!(target: "librdkafka", facility, "{message}");
            }
            RDKafkaLogLevel::Notice => tracing::info!(target: "librdkafka", facility, "{message}"),
            RDKafkaLogLevel::Info => tracing::debug!(target: "librdkafka", facility, "{message}"),
            RDKafkaLogLevel::Debug => tracing::trace!(target: "librdkafka", facility, "{message}"),
        }
    }

    /// Parses only the fields that we read: statistics must not break because another field changed.
    fn stats_raw(&self, statistics: &[u8]) {
        match serde_json::from_slice(statistics) {
            Ok(statistics) => self.state().statistics = Some(statistics),
            Err(error) => tracing::debug!(target: "librdkafka", %error, "statistics can't be read"),
        }
    }

    fn error(&self, error: LibraryError, reason: &str) {
        let Some(code) = error.rdkafka_error_code() else { return };
        if code == RDKafkaErrorCode::PartitionEOF {
            self.state().end_offset = end_offset(reason);
            return;
        }
        let reason = self.redact(reason).into_owned();
        self.recognise(&reason);
        let is_new = {
            let mut state = self.state();
            // This is a summary of errors that were reported before, with less detail.
            if code == RDKafkaErrorCode::AllBrokersDown && state.trouble.is_some() {
                return;
            }
            state.trouble = Some(Trouble { code, reason: reason.clone() });
            // An outage repeats its errors every second, so each code is logged once.
            let is_new = !state.logged.contains(&code);
            if is_new {
                state.logged.push(code);
            }
            is_new
        };
        if is_new {
            tracing::warn!(brokers = self.brokers, "{reason}");
        }
    }

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn Error>> {
        let Some(path) = &self.token_file else {
            return Err(format!(
                "sasl.mechanism is OAUTHBEARER: `{TOKEN_FILE}` must name the file that holds the token"
            )
            .into());
        };
        Ok(read_token(path)?)
    }
}

impl ConsumerContext for KafkaContext {}

/// Returns the offset in librdkafka's message about a partition's end, the only place that has it.
fn end_offset(reason: &str) -> Option<u64> {
    let (_, rest) = reason.split_once("at offset ")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

/// An error of reading a token, none of which it quotes.
#[derive(Debug, thiserror::Error)]
enum TokenError {
    #[error("reading the token file {path} failed: {source}")]
    Read { path: String, source: std::io::Error },
    #[error("the token in {path} is longer than {MAX_TOKEN_BYTES} bytes")]
    TooLong { path: String },
    #[error("{path} holds no JWT with the claims `sub` (text) and `exp` (seconds since 1970)")]
    NoJwt { path: String },
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: f64,
}

fn read_token(path: &Path) -> Result<OAuthToken, TokenError> {
    let name = || path.display().to_string();
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_TOKEN_BYTES + 1).read_to_end(&mut text))
        .map_err(|source| TokenError::Read { path: name(), source })?;
    if text.len() as u64 > MAX_TOKEN_BYTES {
        return Err(TokenError::TooLong { path: name() });
    }
    let token = text.trim_ascii();
    let claims = token
        .split(|&byte| byte == b'.')
        .nth(1)
        .and_then(base64url)
        .and_then(|claims| serde_json::from_slice::<Claims>(&claims).ok());
    match (claims, std::str::from_utf8(token)) {
        (Some(Claims { sub, exp }), Ok(token)) if (0.0..1e12).contains(&exp) => {
            #[expect(clippy::cast_possible_truncation, reason = "checked: at most 10^15")]
            let lifetime_ms = (exp * 1_000.0) as i64;
            Ok(OAuthToken { token: token.to_owned(), principal_name: sub, lifetime_ms })
        }
        _ => Err(TokenError::NoJwt { path: name() }),
    }
}

/// Base64url (RFC 4648, section 5), with any value in the bits that no byte needs.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

/// Decodes base64url up to the first `=`. A last character that is too short for a byte is ignored.
fn base64url(text: &[u8]) -> Option<Vec<u8>> {
    let mut digits = text.split(|byte| *byte == b'=').next()?.to_vec();
    let is_cut = digits.len() % 4 == 1;
    if is_cut {
        digits.push(b'A');
    }
    let mut bytes = BASE64URL.decode(&digits).ok()?;
    if is_cut {
        bytes.pop();
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use keytide_config::Secret;
    use rdkafka::consumer::BaseConsumer;

    use super::*;

    fn client(settings: &[(&str, &str)]) -> KafkaClient {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value)));
        KafkaClient { brokers: "127.0.0.1:1".to_owned(), settings: settings.collect::<BTreeMap<_, _>>() }
    }

    fn refused(settings: &[(&str, &str)]) -> Vec<String> {
        refused_settings(&client(settings)).iter().map(KafkaError::to_string).collect()
    }

    #[test]
    fn all_refused_settings_are_named_with_what_was_meant_and_without_values() {
        let settings = [
            ("client.id", "canary"),
            ("fetch.max.byts", "canary"),
            ("linger.ms", "canary"),
            ("no.such.setting.at.all", "canary"),
            ("sasl.pasword", "canary"),
            (TOKEN_FILE, "canary"),
        ];
        let refuses = |name: &str, reason: &str| format!("librdkafka refuses the setting `{name}`: {reason}");
        assert_eq!(
            refused(&settings),
            [
                refuses("fetch.max.byts", "there is no such setting; did you mean fetch.max.bytes?"),
                refuses("linger.ms", "Invalid value for configuration property \"queue.buffering.max.ms\""),
                refuses("no.such.setting.at.all", "there is no such setting"),
                refuses("sasl.pasword", "there is no such setting; did you mean sasl.password?"),
            ]
        );
        assert_eq!(refused(&[("security.protocol", "ssl"), ("acks", "1")]), [""; 0]);
    }

    #[test]
    fn librdkafka_has_every_way_in_and_every_codec() {
        let features = ClientConfig::new().create_native_config().unwrap().get("builtin.features").unwrap();
        let features: Vec<_> = features.split(',').collect();
        for feature in
            ["ssl", "sasl_plain", "sasl_scram", "sasl_oauthbearer", "lz4", "zstd", "gzip", "snappy"]
        {
            assert!(features.contains(&feature), "{feature} is missing in {features:?}");
        }
    }

    #[test]
    fn the_jobs_settings_reach_librdkafka_and_ours_do_not() {
        let client = client(&[
            ("client.id", "mine"),
            ("sasl.password", "hunter2-canary"),
            ("bootstrap.servers", "elsewhere:1"),
            (TOKEN_FILE, "token"),
        ]);
        let config = client_config(&client);
        assert_eq!(config.get("client.id"), Some("mine"));
        assert_eq!(config.get("sasl.password"), Some("hunter2-canary"));
        assert_eq!(config.get("bootstrap.servers"), Some("127.0.0.1:1"));
        assert_eq!(config.get(TOKEN_FILE), None);
    }

    #[test]
    fn a_refused_setting_is_named_without_its_value() {
        for settings in [
            &[("security.protocol", "ssl"), ("ssl.key.pem", "canary-key")][..],
            &[("security.protocol", "canary-protocol")],
        ] {
            let client = client(settings);
            let consumer: Result<BaseConsumer<_>, _> =
                client_config(&client).create_with_context(KafkaContext::new(&client));
            let error = create_error(&client, consumer.err().unwrap());
            let text = format!("{error} {error:?}");
            assert!(!text.contains("canary"), "{text}");
            assert_eq!(error.class(), ErrorClass::Definite);
        }
    }

    #[test]
    fn secrets_are_not_in_what_librdkafka_says_through_us() {
        let context = KafkaContext::new(&client(&[
            ("sasl.password", "hunter2-canary"),
            ("sasl.mechanism", "PLAIN"),
            ("ssl.key.pem", "-----BEGIN canary-----\n"),
        ]));
        context.error(
            LibraryError::Global(RDKafkaErrorCode::Authentication),
            "PLAIN failed with hunter2-canary and -----BEGIN canary-----",
        );
        let trouble = context.trouble().unwrap();
        assert_eq!(trouble.reason, "PLAIN failed with *** and ***");
        assert!(trouble.is_refusal());
        assert!(!format!("{context:?}").contains("canary"));
        // A summary has less detail.
        context.error(LibraryError::Global(RDKafkaErrorCode::AllBrokersDown), "1/1 brokers are down");
        assert_eq!(context.trouble(), Some(trouble));
        context.recovered();
        assert_eq!(context.trouble(), None);
    }

    #[test]
    fn a_partitions_end_is_in_librdkafkas_words() {
        let words = "Fetch from broker 1 reached end of partition at offset 4711 (HighwaterMark 4712)";
        assert_eq!(end_offset(words), Some(4711));
        assert_eq!(end_offset("something else"), None);
    }

    #[test]
    fn a_token_comes_from_the_file_with_its_own_lifetime() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let context = KafkaContext::new(&client(&[(TOKEN_FILE, path.to_str().unwrap())]));
        let message = |context: &KafkaContext| context.generate_oauth_token(None).err().unwrap().to_string();
        assert!(message(&context).contains("token file"), "{}", message(&context));

        // {"sub":"keytide","exp":1800000000}
        let token = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJrZXl0aWRlIiwiZXhwIjoxODAwMDAwMDAwfQ.canary";
        fs::write(&path, format!("{token}\n")).unwrap();
        let read = context.generate_oauth_token(None).unwrap();
        assert_eq!((read.token.as_str(), read.principal_name.as_str()), (token, "keytide"));
        assert_eq!(read.lifetime_ms, 1_800_000_000_000);

        for broken in ["", "canary", "a.canary!.c", "a.e30.canary"] {
            fs::write(&path, broken).unwrap();
            let message = message(&context);
            assert!(message.contains("no JWT") && !message.contains("canary"), "{message}");
        }
        let without = KafkaContext::new(&client(&[("sasl.mechanism", "OAUTHBEARER")]));
        assert!(message(&without).contains(TOKEN_FILE));
    }

    #[test]
    fn base64url_is_decoded_padded_or_not() {
        assert_eq!(base64url(b"Zm9vYmFy").unwrap(), b"foobar");
        assert_eq!(base64url(b"Zm9vYg==").unwrap(), b"foob");
        assert_eq!(base64url(b"Zm9vYmE").unwrap(), b"fooba");
        assert_eq!(base64url(b"-_-_").unwrap(), [0xfb, 0xff, 0xbf]);
        assert_eq!(base64url(b"a+b"), None);
        assert_eq!(base64url(b"a/b"), None);
        assert_eq!(base64url(b"Zm 9v"), None);
    }

    #[test]
    fn base64url_of_careless_issuers_is_decoded_as_far_as_it_goes() {
        for (text, bytes) in [
            (&b""[..], &b""[..]),
            (b"=", b""),
            (b"Zm9vYh==", b"foob"),
            (b"Zm9vYmF", b"fooba"),
            (b"Zm9v=!junk", b"foo"),
            (b"Zm9vY", b"foo"),
            (b"Z", b""),
        ] {
            assert_eq!(base64url(text).as_deref(), Some(bytes), "{text:?}");
        }
        assert_eq!(base64url(b"Zm9v+"), None);
    }
}
