//! Clients of Kafka: brokers, and the settings of the client library librdkafka.
//!
//! Settings are passed on unchanged, unless the job's guarantees rest on them. A setting is refused, with the reason,
//! if another value could lose, repeat or reorder records, count aborted ones, hide gaps, blind the metrics, or run
//! foreign code. Users may tune the connection to brokers and the sizes of requests. Unknown names are passed on:
//! `keytide check` tries them on the library, which refuses them at its start.
//!
//! A value can be a secret, so none is ever shown. A setting that always holds one must be a reference.
//!
//! Limits: 128 settings a section, names of 128 characters.

use std::collections::BTreeMap;

use super::prelude::*;

/// Brokers of one list, at most.
const MAX_BROKERS: usize = 64;
/// Settings of one section, at most.
const MAX_SETTINGS: usize = 128;
/// Bytes of a setting's name, at most.
const MAX_SETTING_BYTES: usize = 128;
/// Names a file with an OAUTHBEARER token. The connectors read it, as the library has no such setting.
const TOKEN_FILE: &str = "keytide.oauth.token.file";
const MECHANISMS: [&str; 4] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"];
const PROTOCOLS: [&str; 4] = ["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"];

/// The address of a Kafka cluster, and the settings of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaClient {
    /// A list of `host:port`, separated by commas without blanks.
    pub brokers: String,
    /// Further settings of librdkafka, without any that the job's guarantees rest on. Values may be secrets.
    pub settings: BTreeMap<String, Secret>,
}

impl KafkaClient {
    /// Returns a client without further settings.
    #[must_use]
    pub fn new(brokers: impl Into<String>) -> Self {
        Self { brokers: brokers.into(), settings: BTreeMap::new() }
    }

    /// Validates the client of a section with the keys `brokers` and `librdkafka`.
    pub(crate) fn read<S>(
        brokers: &Entry<Brokers>,
        settings: &Entry<LibrdkafkaSettings>,
        section: &Spot<S>,
        role: Role,
        check: &mut Check<'_>,
    ) -> Option<Self> {
        let brokers = check.required(brokers, section, "brokers").map(|brokers| brokers.0.clone());
        let settings = settings.given().map(|list| read_settings(list, role, check)).unwrap_or_default();
        Some(Self { brokers: brokers?, settings })
    }
}

/// Leaves out the settings, which never change the records.
impl Fingerprint for KafkaClient {
    fn add_to(&self, encoder: &mut Encoder) {
        let Self { brokers, settings: _ } = self;
        encoder.add(brokers);
    }
}

/// The sections `[source.librdkafka]`, `[tables.*.librdkafka]` and `[sink.kafka.librdkafka]` with any names.
pub(crate) struct LibrdkafkaSettings(pub(crate) Vec<(String, Spot<SettingValue>)>);

impl FromToml for LibrdkafkaSettings {
    const SECTION: bool = true;

    fn expected() -> String {
        "a section".to_owned()
    }

    fn read(node: TomlNode, location: &Location, problems: &mut Problems) -> Option<Self> {
        let mut settings = Vec::new();
        for (name, location, node) in Section::open_hidden(node, location, problems)?.into_named() {
            if let Some(value) = SettingValue::read(node, &location, problems) {
                settings.push((name, Spot { value, location, shown: NOT_SHOWN.to_owned() }));
            }
        }
        Some(Self(settings))
    }
}

/// The value of a librdkafka setting, or a reference to it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum SettingValue {
    Written(String),
    Reference(SecretRef),
}

impl Scalar for SettingValue {
    const HIDDEN: bool = true;

    fn allowed() -> String {
        "text, a whole number, true, false, \"env:NAME\" or \"file:PATH\"".to_owned()
    }

    fn parse(value: &TomlValue) -> Result<Self, Refusal> {
        match value {
            TomlValue::Text(text) if text.starts_with("env:") || text.starts_with("file:") => {
                SecretRef::parse(value).map(Self::Reference)
            }
            TomlValue::Text(text) => refuse((!text.contains('\0')).then(|| Self::Written(text.clone()))),
            TomlValue::Integer(integer) => Ok(Self::Written(integer.to_string())),
            TomlValue::Boolean(boolean) => Ok(Self::Written(boolean.to_string())),
            TomlValue::Table(_) => Err(Refusal {
                hint: Some("a name with dots is written in quotes".to_owned()),
                ..Refusal::default()
            }),
            TomlValue::Number(_) | TomlValue::Time(_) | TomlValue::List(_) => Err(Refusal::default()),
        }
    }
}

/// The brokers of a cluster as `host:port`, separated by commas, without blanks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Brokers(pub(crate) String);

impl Brokers {
    /// Returns the brokers in alphabetical order, so that lists can be compared.
    pub(crate) fn sorted(&self) -> Vec<&str> {
        let mut brokers: Vec<&str> = self.0.split(',').collect();
        brokers.sort_unstable();
        brokers
    }
}

impl Scalar for Brokers {
    fn allowed() -> String {
        format!("1 to {MAX_BROKERS} of host:port, separated by commas, such as \"kafka-1:9092,kafka-2:9092\"")
    }

    fn parse(value: &TomlValue) -> Result<Self, Refusal> {
        let text = text(value)?;
        let brokers: Vec<&str> = text.split(',').map(str::trim).collect();
        if (1..=MAX_BROKERS).contains(&brokers.len()) && brokers.iter().all(|broker| is_broker(broker)) {
            return Ok(Self(brokers.join(",")));
        }
        let hint = match (text.contains('@'), text.contains("://")) {
            (true, _) => Some("users and passwords stand in `librdkafka`: sasl.username, sasl.password"),
            (false, true) => Some("the protocol stands in `librdkafka`: security.protocol"),
            (false, false) => None,
        };
        Err(Refusal { hint: hint.map(str::to_owned), hidden: text.contains('@'), ..Refusal::default() })
    }
}

/// Returns whether a text is `host:port`, or `[address]:port` with an IPv6 address.
fn is_broker(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| is_host(host) && port_number(port).is_some())
}

fn read_settings(
    list: &Spot<LibrdkafkaSettings>,
    role: Role,
    check: &mut Check<'_>,
) -> BTreeMap<String, Secret> {
    let LibrdkafkaSettings(settings) = &list.value;
    if settings.len() > MAX_SETTINGS {
        let found = settings.len();
        check.refuse(list, format!("found {found} settings, allowed: at most {MAX_SETTINGS}"));
    }
    let mut values = BTreeMap::new();
    for (name, setting) in settings {
        if let Some(reason) = refused(name, role) {
            check.refuse(setting, reason);
            continue;
        }
        let value = match &setting.value {
            SettingValue::Written(_) if holds_secret(name) => {
                let message = "holds a secret, which may not stand here, write \"env:NAME\" or \"file:PATH\"";
                check.refuse(setting, message);
                None
            }
            SettingValue::Written(value) => Some(value.clone()),
            SettingValue::Reference(reference) => check.referred(reference, &setting.location),
        };
        let value = match value {
            Some(value) if names_path(name, &value) => path_text(&value, &setting.location, check),
            value => value,
        };
        values.extend(value.map(|value| (name.as_str(), (value, &setting.location))));
    }
    let shared =
        values.iter().map(|(name, (value, location))| (*name, (value.as_str(), *location))).collect();
    // A refused setting may be one that another needs, which then is no problem of its own.
    if values.len() == settings.len() {
        relations(&shared, check);
    }
    values.into_iter().map(|(name, (value, _))| (name.to_owned(), Secret::new(value))).collect()
}

/// Resolves a path against the file's folder.
fn path_text(path: &str, location: &Location, check: &mut Check<'_>) -> Option<String> {
    let resolved = check.base.join(path).into_os_string().into_string().ok();
    if resolved.is_none() {
        check.refuse(location, "the configuration file's folder isn't UTF-8, allowed: an absolute path");
    }
    resolved
}

/// The purpose of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Events,
    Table,
    Sink,
}

const EVERY: &[Role] = &[Role::Events, Role::Table, Role::Sink];
const READERS: &[Role] = &[Role::Events, Role::Table];
const EVENTS: &[Role] = &[Role::Events];
const SINKS: &[Role] = &[Role::Sink];

/// The settings that can't be set: the clients, the names (`*` at the end stands for any rest), and a message with the
/// reason and an alternative. The first line that fits counts.
const REFUSED: &[(&[Role], &str, &str)] = &[
    (EVERY, "bootstrap.servers metadata.broker.list", "is what `brokers` says, remove it"),
    (
        EVERY,
        "group.id group.instance.id group.protocol group.protocol.type group.remote.assignor \
         partition.assignment.strategy session.timeout.ms heartbeat.interval.ms max.poll.interval.ms \
         coordinator.query.interval.ms",
        "can't be set: the job deals partitions to its workers itself and joins no group, remove it",
    ),
    (
        EVERY,
        "enable.auto.commit auto.commit.enable auto.commit.interval.ms enable.auto.offset.store \
         offset.store.method offset.store.path offset.store.sync.interval.ms",
        "can't be set: which offsets are done depends on the results, which the library doesn't know, remove it",
    ),
    (
        EVENTS,
        "auto.offset.reset",
        "can't be set: it would pass over records without a trace, allowed: `start`, and `on_gap` for records that \
         are gone",
    ),
    (
        EVERY,
        "auto.offset.reset",
        "can't be set: a table is read from its beginning, and a sink reads nothing, remove it",
    ),
    (EVERY, "enable.partition.eof", "can't be set: the job must learn where a partition ends, remove it"),
    (
        EVERY,
        "isolation.level",
        "can't be set: reading uncommitted records would meter aborted ones, remove it",
    ),
    (EVERY, "check.crcs", "can't be set: damaged records must be noticed, remove it"),
    (EVERY, "statistics.interval.ms", "can't be set: metrics of lag rest on it, remove it"),
    (READERS, "allow.auto.create.topics", "can't be set: a misspelt topic would come into being, remove it"),
    (
        SINKS,
        "allow.auto.create.topics",
        "can't be set: topics need the right cleanup policy, allowed: `create_topics`",
    ),
    (
        EVERY,
        "plugin.library.paths interceptors ssl.engine.location ssl.engine.id ssl.providers",
        "can't be set: it loads code that the job can't answer for, remove it",
    ),
    (
        EVERY,
        "enable.sasl.oauthbearer.unsecure.jwt",
        "can't be set: a token that nobody signed proves nothing, allowed: keytide.oauth.token.file",
    ),
    (EVERY, "sasl.jaas.config", "is for Java clients, allowed: sasl.username and sasl.password"),
    (EVERY, "sasl.kerberos.*", "can't be set: Kerberos isn't in this build, allowed: another sasl.mechanism"),
    (EVERY, "test.mock.*", "can't be set: it replaces the brokers by a mock, remove it"),
    (EVERY, "keytide.*", "is none of ours, allowed: keytide.oauth.token.file"),
    (
        SINKS,
        "enable.idempotence max.in.flight max.in.flight.requests.per.connection enable.gapless.guarantee \
         queuing.strategy",
        "can't be set: without idempotence and its order an older row could overwrite a newer one, remove it",
    ),
    (
        SINKS,
        "acks request.required.acks",
        "can't be set: what fewer than all replicas acknowledge can be lost, remove it",
    ),
    (
        SINKS,
        "transactional.id transaction.timeout.ms",
        "can't be set: transactions are the matter of `delivery`, remove it",
    ),
    (
        SINKS,
        "message.timeout.ms delivery.timeout.ms retries message.send.max.retries",
        "can't be set: an outage is waited out, and no record given up, remove it",
    ),
    (
        SINKS,
        "queue.buffering.max.messages queue.buffering.max.kbytes",
        "can't be set: what waits to be sent is bounded in one place, allowed: `buffer`",
    ),
    (SINKS, "queue.buffering.max.ms", "is the old name of a setting, allowed: linger.ms"),
    (
        SINKS,
        "partitioner partitioner_cb msg_order_cmp",
        "can't be set: a row's key must always lie in the same partition, remove it",
    ),
    (
        SINKS,
        "delivery.report.only.error produce.offset.report dr_*",
        "can't be set: the job must learn what was delivered, remove it",
    ),
];

/// Returns the message for a setting that can't be set; `None` if it can.
fn refused(name: &str, role: Role) -> Option<&'static str> {
    let well_formed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    if !(1..=MAX_SETTING_BYTES).contains(&name.len()) || !name.bytes().all(well_formed) {
        return Some("isn't the name of a setting, allowed: 1 to 128 of a-z, 0-9, ., _ and -");
    }
    if name == TOKEN_FILE {
        return None;
    }
    let fits = |listed: &str| match listed.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == listed,
    };
    let line = REFUSED.iter().find(|(roles, names, _)| roles.contains(&role) && names.split(' ').any(fits));
    line.map(|(_, _, reason)| *reason)
}

/// Returns whether a setting always holds a secret.
fn holds_secret(name: &str) -> bool {
    ["password", "passphrase", "secret", "key.pem", "ssl_key"].iter().any(|end| name.ends_with(end))
}

/// Returns whether a setting names a file or a folder. The library also takes `probe` for that of `ssl.ca.location`.
fn names_path(name: &str, value: &str) -> bool {
    (name.ends_with(".location") || name.ends_with(".file")) && value != "probe" && !value.is_empty()
}

/// Refuses settings that don't fit each other. `settings` holds values with their locations.
fn relations(settings: &BTreeMap<&str, (&str, &Location)>, check: &mut Check<'_>) {
    let get = |name: &str| settings.get(name).copied();
    let protocol = get("security.protocol");
    if let Some((value, location)) = protocol
        && !PROTOCOLS.iter().any(|known| known.eq_ignore_ascii_case(value))
    {
        check.refuse(location, format!("found a value that is not shown, allowed: {}", PROTOCOLS.join(", ")));
        return;
    }
    let logs_in = protocol.filter(|(value, _)| value.to_ascii_lowercase().starts_with("sasl_"));
    let mechanism = get("sasl.mechanism").or(get("sasl.mechanisms"));
    match (logs_in, mechanism) {
        (Some((_, location)), None) => {
            let message = format!("needs \"sasl.mechanism\" beside it, allowed: {}", MECHANISMS.join(", "));
            check.refuse(location, message);
        }
        (None, Some((_, location))) => {
            check.warn(location, "has no effect: nobody logs in without security.protocol = \"sasl_ssl\"");
        }
        _ => {}
    }
    if let Some((value, location)) = mechanism {
        let needed: &[&str] = match value {
            "PLAIN" | "SCRAM-SHA-256" | "SCRAM-SHA-512" => &["sasl.username", "sasl.password"],
            "OAUTHBEARER" => &[TOKEN_FILE],
            "GSSAPI" => {
                check.refuse(
                    location,
                    format!("Kerberos isn't in this build, allowed: {}", MECHANISMS.join(", ")),
                );
                &[]
            }
            _ => {
                let allowed = MECHANISMS.join(", ");
                check.refuse(location, format!("found a value that is not shown, allowed: {allowed}"));
                &[]
            }
        };
        for name in needed.iter().filter(|name| !settings.contains_key(*name)) {
            check.refuse(location, format!("needs \"{name}\" beside it"));
        }
        if value == "PLAIN" && logs_in.is_some_and(|(value, _)| value.eq_ignore_ascii_case("sasl_plaintext"))
        {
            check.warn(location, "sends the password in clear: sasl_ssl wouldn't");
        }
    }
    if let Some((_, location)) =
        get("sasl.oauthbearer.method").filter(|(value, _)| value.eq_ignore_ascii_case("oidc"))
    {
        let message = format!(
            "oidc isn't in this build, allowed: \"{TOKEN_FILE}\", a file whose token somebody else renews"
        );
        check.refuse(location, message);
    }
    let off = |value: &str| ["false", "f", "0"].iter().any(|off| off.eq_ignore_ascii_case(value));
    for (name, found) in [
        (
            "enable.ssl.certificate.verification",
            get("enable.ssl.certificate.verification").filter(|(v, _)| off(v)),
        ),
        (
            "ssl.endpoint.identification.algorithm",
            get("ssl.endpoint.identification.algorithm").filter(|(v, _)| v.eq_ignore_ascii_case("none")),
        ),
    ] {
        if let Some((_, location)) = found {
            check.warn(location, format!("{name} is off, so that anybody can pose as a broker"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::*;
    use crate::*;

    #[test]
    fn what_guarantees_rest_on_is_refused_for_each_role() {
        for name in
            ["group.id", "isolation.level", "auto.offset.reset", "test.mock.num.brokers", "Debug", "", "é"]
        {
            for role in [Role::Events, Role::Table, Role::Sink] {
                assert!(refused(name, role).is_some(), "{name} {role:?}");
            }
        }
        for name in
            ["acks", "enable.idempotence", "dr_cb", "partitioner", "retries", "queue.buffering.max.kbytes"]
        {
            assert!(refused(name, Role::Sink).is_some(), "{name}");
            assert!(refused(name, Role::Events).is_none(), "{name}");
        }
        for name in
            ["debug", "client.id", "compression.type", "linger.ms", "fetch.max.bytes", "not.known.here"]
        {
            for role in [Role::Events, Role::Table, Role::Sink] {
                assert_eq!(refused(name, role), None, "{name} {role:?}");
            }
        }
    }

    #[test]
    fn secrets_and_paths_are_known_by_their_names() {
        for name in [
            "sasl.password",
            "ssl.key.password",
            "ssl.keystore.password",
            "ssl.key.pem",
            "sasl.oauthbearer.client.secret",
            "sasl.oauthbearer.client.credentials.client.secret",
            "sasl.oauthbearer.assertion.private.key.pem",
            "sasl.oauthbearer.assertion.private.key.passphrase",
        ] {
            assert!(holds_secret(name), "{name}");
        }
        for name in ["sasl.username", "ssl.ca.pem", "ssl.certificate.pem", "ssl.key.location", "client.id"] {
            assert!(!holds_secret(name), "{name}");
        }
        assert!(names_path("ssl.key.location", "key.pem") && names_path(TOKEN_FILE, "token"));
        assert!(!names_path("ssl.ca.location", "probe") && !names_path("client.id", "a"));
    }

    #[test]
    fn brokers_are_hosts_with_ports() {
        for (text, brokers) in [
            ("a:1", Some("a:1")),
            (
                " kafka-1.example:9092 , [::1]:9093,10.0.0.1:65535 ",
                Some("kafka-1.example:9092,[::1]:9093,10.0.0.1:65535"),
            ),
            ("", None),
            ("kafka", None),
            ("kafka:", None),
            (":9092", None),
            ("kafka:0", None),
            ("kafka:65536", None),
            ("kafka:+1", None),
            ("a:1,", None),
            ("::1:9092", None),
            ("a b:1", None),
            ("[kafka]:1", None),
        ] {
            let found = parse(&KAFKA.replace("kafka:9092", text));
            let found = found.ok().map(|mut loaded| match loaded.job.sources.remove(0).kind {
                SourceKind::Kafka(source) => source.client.brokers,
                other => panic!("{other:?}"),
            });
            assert_eq!(found.as_deref(), brokers, "{text}");
        }
        let list = |count: usize| KAFKA.replace("kafka:9092", &vec!["a:1"; count].join(","));
        assert_eq!(problems(&list(64)), "");
        assert_ne!(problems(&list(65)), "");
        let allowed =
            "allowed: 1 to 64 of host:port, separated by commas, such as \"kafka-1:9092,kafka-2:9092\"";
        for (brokers, expected) in [
            (
                "SASL_SSL://kafka:9092",
                format!(
                    "found \"SASL_SSL://kafka:9092\", {allowed}; the protocol stands in `librdkafka`: security.protocol"
                ),
            ),
            (
                "me:hunter2@kafka:9092",
                format!(
                    "found a value that is not shown, {allowed}; users and passwords stand in `librdkafka`: sasl.username, sasl.password"
                ),
            ),
        ] {
            assert_eq!(
                problems(&KAFKA.replace("kafka:9092", brokers)),
                format!("line 4: source.\"gateway\".brokers: {expected}")
            );
        }
    }

    #[test]
    fn settings_of_the_client_reach_it_as_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keytide.toml");
        std::fs::write(folder.path().join("password"), "from a file\n").unwrap();
        let text = format!(
            "{KAFKA}[source.librdkafka]\n\"security.protocol\" = \"SASL_SSL\"\n\"sasl.mechanism\" = \"SCRAM-SHA-512\"\n\
             \"sasl.username\" = \"env:USER_NAME\"\n\"sasl.password\" = \"file:password\"\n\"fetch.max.bytes\" = 1000\n\
             \"socket.keepalive.enable\" = true\n\"ssl.ca.location\" = \"ca.pem\"\n\"ssl.key.location\" = \"/etc/key.pem\"\n\
             debug = \"broker\"\n"
        );
        std::fs::write(&file, text).unwrap();
        let loaded =
            JobConfig::load(&file, env(&[("USER_NAME", "me")])).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(loaded.warnings, []);
        let SourceKind::Kafka(source) = &loaded.job.sources[0].kind else { panic!("a topic") };
        let settings: Vec<_> =
            source.client.settings.iter().map(|(name, value)| (name.as_str(), value.reveal())).collect();
        let authority = folder.path().join("ca.pem");
        assert_eq!(
            settings,
            [
                ("debug", "broker"),
                ("fetch.max.bytes", "1000"),
                ("sasl.mechanism", "SCRAM-SHA-512"),
                ("sasl.password", "from a file"),
                ("sasl.username", "me"),
                ("security.protocol", "SASL_SSL"),
                ("socket.keepalive.enable", "true"),
                ("ssl.ca.location", authority.to_str().unwrap()),
                ("ssl.key.location", "/etc/key.pem"),
            ]
        );
        assert!(!format!("{source:?}").contains("from a file") && !format!("{source:?}").contains("\"me\""));
    }

    #[test]
    fn settings_that_guarantees_rest_on_are_refused_with_the_reason() {
        for (name, reason) in [
            ("bootstrap.servers", "is what `brokers` says, remove it"),
            ("metadata.broker.list", "is what `brokers` says, remove it"),
            (
                "group.id",
                "can't be set: the job deals partitions to its workers itself and joins no group, remove it",
            ),
            (
                "enable.auto.commit",
                "can't be set: which offsets are done depends on the results, which the library doesn't know, remove it",
            ),
            (
                "auto.offset.reset",
                "can't be set: it would pass over records without a trace, allowed: `start`, and `on_gap` for records that are gone",
            ),
            ("enable.partition.eof", "can't be set: the job must learn where a partition ends, remove it"),
            (
                "isolation.level",
                "can't be set: reading uncommitted records would meter aborted ones, remove it",
            ),
            ("check.crcs", "can't be set: damaged records must be noticed, remove it"),
            ("statistics.interval.ms", "can't be set: metrics of lag rest on it, remove it"),
            ("allow.auto.create.topics", "can't be set: a misspelt topic would come into being, remove it"),
            ("plugin.library.paths", "can't be set: it loads code that the job can't answer for, remove it"),
            (
                "enable.sasl.oauthbearer.unsecure.jwt",
                "can't be set: a token that nobody signed proves nothing, allowed: keytide.oauth.token.file",
            ),
            ("sasl.jaas.config", "is for Java clients, allowed: sasl.username and sasl.password"),
            (
                "sasl.kerberos.principal",
                "can't be set: Kerberos isn't in this build, allowed: another sasl.mechanism",
            ),
            ("test.mock.num.brokers", "can't be set: it replaces the brokers by a mock, remove it"),
            ("keytide.oauth.token", "is none of ours, allowed: keytide.oauth.token.file"),
            ("Client.Id", "isn't the name of a setting, allowed: 1 to 128 of a-z, 0-9, ., _ and -"),
            (
                "sasl.password",
                "holds a secret, which may not stand here, write \"env:NAME\" or \"file:PATH\"",
            ),
        ] {
            let found = kafka_problems(&format!("[source.librdkafka]\n\"{name}\" = \"1\""));
            assert_eq!(found, format!("librdkafka.\"{name}\": {reason}"));
        }
        for (name, reason) in [
            (
                "enable.idempotence",
                "can't be set: without idempotence and its order an older row could overwrite a newer one, remove it",
            ),
            ("acks", "can't be set: what fewer than all replicas acknowledge can be lost, remove it"),
            ("transactional.id", "can't be set: transactions are the matter of `delivery`, remove it"),
            (
                "delivery.timeout.ms",
                "can't be set: an outage is waited out, and no record given up, remove it",
            ),
            (
                "queue.buffering.max.kbytes",
                "can't be set: what waits to be sent is bounded in one place, allowed: `buffer`",
            ),
            ("queue.buffering.max.ms", "is the old name of a setting, allowed: linger.ms"),
            ("partitioner", "can't be set: a row's key must always lie in the same partition, remove it"),
            ("dr_msg_cb", "can't be set: the job must learn what was delivered, remove it"),
            (
                "allow.auto.create.topics",
                "can't be set: topics need the right cleanup policy, allowed: `create_topics`",
            ),
            (
                "group.id",
                "can't be set: the job deals partitions to its workers itself and joins no group, remove it",
            ),
        ] {
            let text = format!(
                "{SMALL}[sink.kafka]\nbrokers = \"kafka:9092\"\n[sink.kafka.librdkafka]\n\"{name}\" = 1"
            );
            assert_eq!(problems(&text), format!("line 9: sink.kafka.librdkafka.\"{name}\": {reason}"));
        }
        let table = "[tables.keys]\nkind = \"kafka\"\nbrokers = \"a:1\"\ntopic = \"keys\"\nformat = \"debezium\"\n[tables.keys.librdkafka]\n\"auto.offset.reset\" = \"latest\"";
        assert_eq!(
            problems(&format!("{SMALL}{table}")),
            "line 12: tables.keys.librdkafka.\"auto.offset.reset\": can't be set: a table is read from its beginning, and a sink reads nothing, remove it"
        );
        let many = |count: usize| (0..count).map(|i| format!("\"x.{i}\" = 1\n")).collect::<String>();
        assert_eq!(kafka_problems(&format!("[source.librdkafka]\n{}", many(128))), "");
        assert_eq!(
            kafka_problems(&format!("[source.librdkafka]\n{}", many(129))),
            "librdkafka: found 129 settings, allowed: at most 128"
        );
    }

    #[test]
    fn settings_fit_each_other() {
        let mechanisms = "PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER";
        for (lines, expected) in [
            (
                "security.protocol = \"ssl\"",
                "librdkafka.\"security\": found a value that is not shown, allowed: text, a whole number, true, false, \"env:NAME\" or \"file:PATH\"; a name with dots is written in quotes".to_owned(),
            ),
            (
                "\"client.id\" = 1.5",
                "librdkafka.\"client.id\": found a value that is not shown, allowed: text, a whole number, true, false, \"env:NAME\" or \"file:PATH\"".to_owned(),
            ),
            (
                "\"client.id\" = \"env:\"",
                "librdkafka.\"client.id\": found a value that is not shown, allowed: text, a whole number, true, false, \"env:NAME\" or \"file:PATH\"".to_owned(),
            ),
            ("\"client.id\" = \"env:NOT_THERE\"", "librdkafka.\"client.id\": environment variable NOT_THERE isn't set".to_owned()),
            (
                "\"security.protocol\" = \"tls\"",
                "librdkafka.\"security.protocol\": found a value that is not shown, allowed: plaintext, ssl, sasl_plaintext, sasl_ssl".to_owned(),
            ),
            (
                "\"security.protocol\" = \"SASL_SSL\"",
                format!("librdkafka.\"security.protocol\": needs \"sasl.mechanism\" beside it, allowed: {mechanisms}"),
            ),
            (
                "\"security.protocol\" = \"SASL_SSL\"\n\"sasl.mechanisms\" = \"GSSAPI\"",
                format!("librdkafka.\"sasl.mechanisms\": Kerberos isn't in this build, allowed: {mechanisms}"),
            ),
            (
                "\"security.protocol\" = \"SASL_SSL\"\n\"sasl.mechanism\" = \"scram\"",
                format!("librdkafka.\"sasl.mechanism\": found a value that is not shown, allowed: {mechanisms}"),
            ),
            (
                "\"security.protocol\" = \"SASL_SSL\"\n\"sasl.mechanism\" = \"PLAIN\"",
                "librdkafka.\"sasl.mechanism\": needs \"sasl.username\" beside it\nlibrdkafka.\"sasl.mechanism\": needs \"sasl.password\" beside it".to_owned(),
            ),
            (
                "\"security.protocol\" = \"SASL_SSL\"\n\"sasl.mechanism\" = \"OAUTHBEARER\"",
                "librdkafka.\"sasl.mechanism\": needs \"keytide.oauth.token.file\" beside it".to_owned(),
            ),
            (
                "\"sasl.oauthbearer.method\" = \"OIDC\"",
                "librdkafka.\"sasl.oauthbearer.method\": oidc isn't in this build, allowed: \"keytide.oauth.token.file\", a file whose token somebody else renews".to_owned(),
            ),
            (
                "\"security.protocol\" = \"SASL_SSL\"\n\"sasl.mechanism\" = \"OAUTHBEARER\"\n\"keytide.oauth.token.file\" = \"token\"",
                String::new(),
            ),
        ] {
            assert_eq!(kafka_problems(&format!("[source.librdkafka]\n{lines}")), expected, "{lines}");
        }
        for (lines, expected) in [
            (
                "\"sasl.mechanism\" = \"OAUTHBEARER\"\n\"keytide.oauth.token.file\" = \"token\"",
                "line 8: source.\"gateway\".librdkafka.\"sasl.mechanism\": has no effect: nobody logs in without security.protocol = \"sasl_ssl\"",
            ),
            (
                "\"security.protocol\" = \"sasl_plaintext\"\n\"sasl.mechanism\" = \"PLAIN\"\n\"sasl.username\" = \"me\"\n\"sasl.password\" = \"env:PASSWORD\"",
                "line 9: source.\"gateway\".librdkafka.\"sasl.mechanism\": sends the password in clear: sasl_ssl wouldn't",
            ),
            (
                "\"enable.ssl.certificate.verification\" = false\n\"ssl.endpoint.identification.algorithm\" = \"none\"",
                "line 8: source.\"gateway\".librdkafka.\"enable.ssl.certificate.verification\": enable.ssl.certificate.verification is off, so that anybody can pose as a broker\n\
                 line 9: source.\"gateway\".librdkafka.\"ssl.endpoint.identification.algorithm\": ssl.endpoint.identification.algorithm is off, so that anybody can pose as a broker",
            ),
        ] {
            let loaded =
                parse_with(&format!("{KAFKA}[source.librdkafka]\n{lines}"), &[("PASSWORD", "p")]).unwrap();
            let found: Vec<String> = loaded.warnings.iter().map(Problem::to_string).collect();
            assert_eq!(found.join("\n"), expected);
        }
    }
}
