//! What `librdkafka` sections may hold: settings of the client library that reach it as they are, unless the
//! job's guarantees rest on them.
//!
//! A setting is refused, with the reason, if another value could lose, repeat or reorder records, count what was
//! aborted, hide that records are gone, blind the metrics, or run foreign code. How brokers are reached and
//! how much is fetched or sent at once is the user's to tune. Names that are unknown here are passed on: the
//! library refuses what it doesn't know when it starts.
//!
//! A value can be a secret, so none is ever shown. What always is one has to be a reference.
//!
//! Limits: 128 settings a section, names of 128 characters.

use std::collections::BTreeMap;

use crate::toml::problem::{Place, Problems};

/// Settings of one section.
pub(crate) const MAX_SETTINGS: usize = 128;
/// Characters of a setting's name.
const MAX_SETTING_BYTES: usize = 128;
/// Names a file with an OAUTHBEARER token; read by the connectors, unknown to the library.
const TOKEN_FILE: &str = "keytide.oauth.token.file";
const MECHANISMS: [&str; 4] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"];
const PROTOCOLS: [&str; 4] = ["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"];

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It reads events.
    Events,
    /// It reads a table.
    Table,
    /// It writes results.
    Sink,
}

/// Why a setting isn't the user's, and what to do; `None` where it is.
pub(crate) fn refused(name: &str, role: Role) -> Option<&'static str> {
    let well_formed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    if !(1..=MAX_SETTING_BYTES).contains(&name.len()) || !name.bytes().all(well_formed) {
        return Some("isn't the name of a setting, allowed: 1 to 128 of a-z, 0-9, ., _ and -");
    }
    let reason = match name {
        "bootstrap.servers" | "metadata.broker.list" => "is what `brokers` says, remove it",
        "group.id"
        | "group.instance.id"
        | "group.protocol"
        | "group.protocol.type"
        | "group.remote.assignor"
        | "partition.assignment.strategy"
        | "session.timeout.ms"
        | "heartbeat.interval.ms"
        | "max.poll.interval.ms"
        | "coordinator.query.interval.ms" => {
            "can't be set: the job deals partitions to its workers itself and joins no group, remove it"
        }
        "enable.auto.commit"
        | "auto.commit.enable"
        | "auto.commit.interval.ms"
        | "enable.auto.offset.store"
        | "offset.store.method"
        | "offset.store.path"
        | "offset.store.sync.interval.ms" => {
            "can't be set: which offsets are done depends on the results, which the library doesn't know, remove it"
        }
        "auto.offset.reset" => match role {
            Role::Events => {
                "can't be set: it would pass over records without a trace, allowed: `start`, and `on_gap` for \
                 records that are gone"
            }
            Role::Table | Role::Sink => {
                "can't be set: a table is read from its beginning, and a sink reads nothing, remove it"
            }
        },
        "enable.partition.eof" => "can't be set: the job must learn where a partition ends, remove it",
        "isolation.level" => "can't be set: reading uncommitted records would meter aborted ones, remove it",
        "check.crcs" => "can't be set: damaged records must be noticed, remove it",
        "statistics.interval.ms" => "can't be set: metrics of lag rest on it, remove it",
        "allow.auto.create.topics" => match role {
            Role::Events | Role::Table => "can't be set: a misspelt topic would come into being, remove it",
            Role::Sink => "can't be set: topics need the right cleanup policy, allowed: `create_topics`",
        },
        "plugin.library.paths"
        | "interceptors"
        | "ssl.engine.location"
        | "ssl.engine.id"
        | "ssl.providers" => "can't be set: it loads code that the job can't answer for, remove it",
        "enable.sasl.oauthbearer.unsecure.jwt" => {
            "can't be set: a token that nobody signed proves nothing, allowed: keytide.oauth.token.file"
        }
        "sasl.jaas.config" => "is for Java clients, allowed: sasl.username and sasl.password",
        _ if name.starts_with("sasl.kerberos.") => {
            "can't be set: Kerberos isn't in this build, allowed: another sasl.mechanism"
        }
        _ if name.starts_with("test.mock.") => "can't be set: it replaces the brokers by a mock, remove it",
        _ if name.starts_with("keytide.") && name != TOKEN_FILE => {
            "is none of ours, allowed: keytide.oauth.token.file"
        }
        _ if role == Role::Sink => return refused_for_sinks(name),
        _ => return None,
    };
    Some(reason)
}

fn refused_for_sinks(name: &str) -> Option<&'static str> {
    let reason = match name {
        "enable.idempotence"
        | "max.in.flight"
        | "max.in.flight.requests.per.connection"
        | "enable.gapless.guarantee"
        | "queuing.strategy" => {
            "can't be set: without idempotence and its order an older row could overwrite a newer one, remove it"
        }
        "acks" | "request.required.acks" => {
            "can't be set: what fewer than all replicas acknowledge can be lost, remove it"
        }
        "transactional.id" | "transaction.timeout.ms" => {
            "can't be set: transactions are the matter of `delivery`, remove it"
        }
        "message.timeout.ms" | "delivery.timeout.ms" | "retries" | "message.send.max.retries" => {
            "can't be set: an outage is waited out, and no record given up, remove it"
        }
        "queue.buffering.max.messages" | "queue.buffering.max.kbytes" => {
            "can't be set: what waits to be sent is bounded in one place, allowed: `buffer`"
        }
        "queue.buffering.max.ms" => "is the old name of a setting, allowed: linger.ms",
        "partitioner" | "partitioner_cb" | "msg_order_cmp" => {
            "can't be set: a row's key must always lie in the same partition, remove it"
        }
        "delivery.report.only.error" | "produce.offset.report" => {
            "can't be set: the job must learn what was delivered, remove it"
        }
        _ if name.starts_with("dr_") => "can't be set: the job must learn what was delivered, remove it",
        _ => return None,
    };
    Some(reason)
}

/// Whether a setting always holds a secret.
pub(crate) fn holds_secret(name: &str) -> bool {
    ["password", "passphrase", "secret", "key.pem", "ssl_key"].iter().any(|end| name.ends_with(end))
}

/// Whether a setting names a file or a folder. The library also takes `probe` for that of `ssl.ca.location`.
pub(crate) fn names_path(name: &str, value: &str) -> bool {
    (name.ends_with(".location") || name.ends_with(".file")) && value != "probe" && !value.is_empty()
}

/// What settings must be beside each other. `settings` holds values with their places.
pub(crate) fn relations(
    settings: &BTreeMap<&str, (&str, &Place)>,
    problems: &mut Problems,
    warnings: &mut Problems,
) {
    let get = |name: &str| settings.get(name).copied();
    let protocol = get("security.protocol");
    if let Some((value, place)) = protocol
        && !PROTOCOLS.iter().any(|known| known.eq_ignore_ascii_case(value))
    {
        problems.add(place, format!("found a value that is not shown, allowed: {}", PROTOCOLS.join(", ")));
        return;
    }
    let logs_in = protocol.filter(|(value, _)| value.to_ascii_lowercase().starts_with("sasl_"));
    let mechanism = get("sasl.mechanism").or(get("sasl.mechanisms"));
    match (logs_in, mechanism) {
        (Some((_, place)), None) => {
            let message = format!("needs \"sasl.mechanism\" beside it, allowed: {}", MECHANISMS.join(", "));
            problems.add(place, message);
        }
        (None, Some((_, place))) => {
            let message = "has no effect: nobody logs in without security.protocol = \"sasl_ssl\"";
            warnings.add(place, message);
        }
        _ => {}
    }
    if let Some((value, place)) = mechanism {
        let needed: &[&str] = match value {
            "PLAIN" | "SCRAM-SHA-256" | "SCRAM-SHA-512" => &["sasl.username", "sasl.password"],
            "OAUTHBEARER" => &[TOKEN_FILE],
            "GSSAPI" => {
                problems
                    .add(place, format!("Kerberos isn't in this build, allowed: {}", MECHANISMS.join(", ")));
                &[]
            }
            _ => {
                let allowed = MECHANISMS.join(", ");
                problems.add(place, format!("found a value that is not shown, allowed: {allowed}"));
                &[]
            }
        };
        for name in needed.iter().filter(|name| !settings.contains_key(*name)) {
            problems.add(place, format!("needs \"{name}\" beside it"));
        }
        if value == "PLAIN" && logs_in.is_some_and(|(value, _)| value.eq_ignore_ascii_case("sasl_plaintext"))
        {
            warnings.add(place, "sends the password in clear: sasl_ssl wouldn't");
        }
    }
    if let Some((_, place)) =
        get("sasl.oauthbearer.method").filter(|(value, _)| value.eq_ignore_ascii_case("oidc"))
    {
        let message = format!(
            "oidc isn't in this build, allowed: \"{TOKEN_FILE}\", a file whose token somebody else renews"
        );
        problems.add(place, message);
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
        if let Some((_, place)) = found {
            warnings.add(place, format!("{name} is off, so that anybody can pose as a broker"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
