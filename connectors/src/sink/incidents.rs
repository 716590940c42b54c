//! Incidents, their log and what would be done about them as JSON: what people are told, and told by.
//!
//! A row of `incident_log` is one of `incidents` with what happened, so both are written by the same lines. Numbers
//! that the detector has in thousandths are written with three decimals, by integers: the same on every machine.
//! Nobody's address to write to stands in a row: contacts travel beside it, in a [`Notice`].

use std::net::Ipv6Addr;

use keytide_config::View;
use keytide_dataflow::detect::{Family, Signal};
use keytide_dataflow::model::{KeyState, NameId, Policy, id_digits};
use keytide_dataflow::*;

use super::encode::{EncodeRow, Labels, Place, boolean, number, string, text, time};
use super::names::Names;
use crate::input::PartitionInfo;

/// What rows of incidents say of the job.
#[derive(Clone, Copy, Debug)]
pub struct JobInfo<'a> {
    /// The configuration's fingerprint.
    pub config: &'a str,
    /// Its partitions, which samples stand in.
    pub partitions: &'a [PartitionInfo],
}

/// Digits of a fingerprint that are written: enough to tell configurations apart.
const CONFIG_DIGITS: usize = 16;

/// What somebody is to be told of a transition, once its tick is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The row of `incident_log`, as it was published.
    pub json: Vec<u8>,
    /// Whom to tell: the addresses of the key and of its subscription, each once.
    pub contacts: Vec<String>,
    /// What would be done about it.
    pub actions: Vec<Revocation>,
}

/// The addresses of a transition's key and subscription.
pub(super) fn contacts(transition: &Transition, names: &Names) -> Vec<String> {
    let mut contacts: Vec<String> = Vec::new();
    for list in [transition.contact, transition.contacts] {
        for contact in names.text(list).split(';').map(str::trim).filter(|contact| !contact.is_empty()) {
            if !contacts.iter().any(|known| known == contact) {
                contacts.push(contact.to_owned());
            }
        }
    }
    contacts
}

/// A row of `incidents`.
#[derive(Clone, Copy, Debug)]
pub struct IncidentRow<'a> {
    /// The incident.
    pub incident: &'a Incident,
    /// The job it is of.
    pub job: JobInfo<'a>,
}

impl EncodeRow for IncidentRow<'_> {
    const VIEW: View = View::Incidents;

    fn key_columns(&self, _: &mut Labels<'_>, out: &mut Vec<u8>) {
        identity(out, r#"{"incident_id":""#, self.incident.id.0);
    }

    fn value_columns(&self, labels: &mut Labels<'_>, out: &mut Vec<u8>) {
        let Self { incident, job } = self;
        owner(incident, labels, out);
        incident_columns(incident, labels, *job, out);
    }
}

/// A row of `incident_log`.
#[derive(Clone, Copy, Debug)]
pub struct LogRow<'a> {
    /// What happened.
    pub transition: &'a Transition,
    /// The job it happened in.
    pub job: JobInfo<'a>,
}

impl EncodeRow for LogRow<'_> {
    const VIEW: View = View::IncidentLog;

    fn key_columns(&self, _: &mut Labels<'_>, out: &mut Vec<u8>) {
        identity(out, r#"{"incident_id":""#, self.transition.incident.id.0);
        number(out, r#","seq":"#, self.transition.seq.into());
    }

    fn value_columns(&self, labels: &mut Labels<'_>, out: &mut Vec<u8>) {
        let Self { transition, job } = self;
        text(out, r#","transition":"#, transition.change.name());
        text(out, r#","at":"#, &time(transition.at_ms));
        optional(out, r#","reason":"#, transition.reason.map(Reason::name));
        string(out, r#","early":"#, boolean(transition.early));
        string(out, r#","catching_up":"#, boolean(transition.catching_up));
        owner(&transition.incident, labels, out);
        optional(out, r#","policy":"#, transition.policy.map(policy));
        optional(out, r#","key_state":"#, transition.key_state.map(key_state));
        incident_columns(&transition.incident, labels, *job, out);
    }
}

impl EncodeRow for Revocation {
    const VIEW: View = View::Revocations;

    fn key_columns(&self, _: &mut Labels<'_>, out: &mut Vec<u8>) {
        identity(out, r#"{"action_id":""#, self.id);
    }

    fn value_columns(&self, labels: &mut Labels<'_>, out: &mut Vec<u8>) {
        labels.key(self.key, r#","key_id":"#, out);
        identity(out, r#","incident_id":""#, self.incident.0);
        text(out, r#","action":"#, self.action.name());
        text(out, r#","state":"#, self.state.name());
        text(out, r#","reason":"#, &self.reason);
        text(out, r#","at":"#, &time(self.at_ms));
        out.push(b'}');
    }
}

fn policy(policy: Policy) -> &'static str {
    match policy {
        Policy::Observe => "observe",
        Policy::Alert => "alert",
        Policy::Suspend => "suspend",
        Policy::Revoke => "revoke",
    }
}

fn key_state(state: KeyState) -> &'static str {
    match state {
        KeyState::Active => "active",
        KeyState::Suspended => "suspended",
        KeyState::Revoked => "revoked",
    }
}

fn identity(out: &mut Vec<u8>, label: &str, id: u128) {
    out.extend_from_slice(label.as_bytes());
    out.extend_from_slice(&id_digits(id));
    out.push(b'"');
}

fn optional(out: &mut Vec<u8>, label: &str, value: Option<&str>) {
    match value {
        Some(value) => text(out, label, value),
        None => string(out, label, b"null"),
    }
}

/// A number that is known in thousandths.
fn thousandths(out: &mut Vec<u8>, label: &str, value: u64) {
    number(out, label, value / 1_000);
    out.extend_from_slice(format!(".{:03}", value % 1_000).as_bytes());
}

fn owner(incident: &Incident, labels: &mut Labels<'_>, out: &mut Vec<u8>) {
    labels.key(incident.key, r#","key_id":"#, out);
    labels.owner(&incident.owner, out);
}

fn incident_columns(incident: &Incident, labels: &Labels<'_>, job: JobInfo<'_>, out: &mut Vec<u8>) {
    text(out, r#","level":"#, incident.level.name());
    number(out, r#","score":"#, incident.score.into());
    text(out, r#","state":"#, incident.state.name());
    text(out, r#","opened_at":"#, &time(incident.opened_ms));
    text(out, r#","last_signal_at":"#, &time(incident.last_signal_ms));
    optional(out, r#","ended_at":"#, incident.ended_ms.map(time).as_deref());
    list(out, r#","signals":["#, &incident.signals, |evidence, out| signal(evidence, labels.names(), out));
    number(out, r#","evidence":{"calls":"#, incident.calls);
    text(out, r#","known_since":"#, &time(incident.known_since_ms));
    number(out, r#","known_calls":"#, incident.known_calls);
    list(out, r#","traffic":["#, &incident.traffic, point);
    list(out, r#","samples":["#, &incident.samples, |of, out| sample(of, job.partitions, out));
    let config = job.config.get(..CONFIG_DIGITS).unwrap_or(job.config);
    text(out, r#","config":"#, config);
    string(out, r#"},"platform_event":"#, boolean(incident.platform_event));
    number(out, r#","detector_version":"#, DETECTOR_VERSION.into());
    out.push(b'}');
}

fn list<T>(out: &mut Vec<u8>, label: &str, items: &[T], mut item: impl FnMut(&T, &mut Vec<u8>)) {
    out.extend_from_slice(label.as_bytes());
    for (at, value) in items.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        item(value, out);
    }
    out.push(b']');
}

/// Whether a number of calls can be expected of a signal: hard facts and the spread over routes have none.
fn has_expectation(signal: Signal) -> bool {
    signal.family() != Family::Hard && signal != Signal::Mix
}

fn signal(evidence: &Evidence, names: &Names, out: &mut Vec<u8>) {
    let Evidence { signal, window_ms, width_ms, first_ms, last_ms, expected, seen, bits, values } = evidence;
    text(out, r#"{"signal":"#, signal.name());
    text(out, r#","family":"#, signal.family().name());
    text(out, r#","window_start":"#, &time(*window_ms));
    number(out, r#","window_s":"#, width_ms / 1_000);
    text(out, r#","first_at":"#, &time(*first_ms));
    text(out, r#","last_at":"#, &time(*last_ms));
    match has_expectation(*signal) {
        true => thousandths(out, r#","expected":"#, *expected),
        false => string(out, r#","expected":"#, b"null"),
    }
    number(out, r#","seen":"#, *seen);
    match ratio(*seen, *expected).filter(|_| has_expectation(*signal)) {
        Some(ratio) => thousandths(out, r#","ratio":"#, ratio),
        None => string(out, r#","ratio":"#, b"null"),
    }
    thousandths(out, r#","bits":"#, bits.0.into());
    list(out, r#","values":["#, values, |of, out| contributor(of, names, out));
    out.push(b'}');
}

/// How many times what was expected was seen, both in thousandths; `None` where nothing was.
fn ratio(seen: u64, expected: u64) -> Option<u64> {
    let scaled = u128::from(seen) * 1_000_000 + u128::from(expected) / 2;
    let ratio = scaled.checked_div(expected.into())?;
    Some(u64::try_from(ratio).unwrap_or(u64::MAX))
}

fn contributor(of: &Contributor, names: &Names, out: &mut Vec<u8>) {
    let (kind, value) = value(of.value, names);
    text(out, r#"{"kind":"#, kind);
    text(out, r#","value":"#, &value);
    number(out, r#","calls":"#, of.calls);
    string(out, r#","new":"#, boolean(of.is_new));
    out.push(b'}');
}

/// A value's kind, and as text.
fn value(value: EvidenceValue, names: &Names) -> (&'static str, String) {
    match value {
        EvidenceValue::Country(country) => ("country", country.as_str().to_owned()),
        EvidenceValue::Asn(asn) => ("asn", format!("AS{asn}")),
        EvidenceValue::Network(first) => ("network", network(first)),
        EvidenceValue::Agent(NameId::NONE) => ("user_agent", "-".to_owned()),
        EvidenceValue::Agent(id) => ("user_agent", names.agent(id).into_owned()),
        EvidenceValue::Route(id) => ("route", names.route(id).id.text.to_string()),
        EvidenceValue::Place(latitude, longitude) => {
            ("place", format!("{},{}", degrees(latitude), degrees(longitude)))
        }
        EvidenceValue::Report(source, url) => {
            ("report", format!("{} {}", names.text(source), names.text(url)).trim().to_owned())
        }
    }
}

fn network(first: u128) -> String {
    let first = Ipv6Addr::from_bits(first);
    match first.to_ipv4_mapped() {
        Some(first) => format!("{first}/24"),
        None => format!("{first}/48"),
    }
}

/// Hundredths of a degree as degrees.
fn degrees(hundredths: i32) -> String {
    let sign = if hundredths < 0 { "-" } else { "" };
    let size = hundredths.unsigned_abs();
    format!("{sign}{}.{:02}", size / 100, size % 100)
}

fn point(of: &Point, out: &mut Vec<u8>) {
    text(out, r#"{"start":"#, &time(of.start_ms));
    number(out, r#","calls":"#, of.calls);
    thousandths(out, r#","expected":"#, of.expected);
    out.push(b'}');
}

fn sample(of: &Sample, partitions: &[PartitionInfo], out: &mut Vec<u8>) {
    let Place { source, partition, offset, index, path: _ } = Place::of(of.position, partitions);
    text(out, r#"{"source":"#, &source);
    number(out, r#","partition":"#, partition.into());
    number(out, r#","offset":"#, offset);
    number(out, r#","index":"#, index.into());
    text(out, r#","at":"#, &time(of.time));
    let client = (of.client != 0).then(|| Ipv6Addr::from_bits(of.client).to_canonical().to_string());
    optional(out, r#","client":"#, client.as_deref());
    number(out, r#","status":"#, of.status.into());
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_thousandths_are_written_with_three_decimals() {
        let written = |value| {
            let mut out = Vec::new();
            thousandths(&mut out, "", value);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(written(0), "0.000");
        assert_eq!(written(7), "0.007");
        assert_eq!(written(12_340), "12.340");
        assert_eq!(written(u64::MAX), "18446744073709551.615");
    }

    #[test]
    fn a_ratio_is_rounded_to_thousandths_and_there_is_none_of_nothing() {
        assert_eq!(ratio(10, 0), None);
        assert_eq!(ratio(2, 3_000), Some(667));
        assert_eq!(ratio(1, 3_000), Some(333));
        assert_eq!(ratio(0, 5), Some(0));
        assert_eq!(ratio(480, 12_000), Some(40_000));
        assert_eq!(ratio(u64::MAX, 1), Some(u64::MAX));
    }

    #[test]
    fn values_are_written_as_people_write_them() {
        let names = Names::default();
        let shown = |of| value(of, &names);
        let mapped =
            |address: &str| address.parse::<std::net::Ipv4Addr>().unwrap().to_ipv6_mapped().to_bits();
        assert_eq!(
            shown(EvidenceValue::Network(mapped("198.51.100.0"))),
            ("network", "198.51.100.0/24".to_owned())
        );
        let six = "2001:db8:1::".parse::<Ipv6Addr>().unwrap().to_bits();
        assert_eq!(shown(EvidenceValue::Network(six)), ("network", "2001:db8:1::/48".to_owned()));
        assert_eq!(shown(EvidenceValue::Place(5_252, -5)), ("place", "52.52,-0.05".to_owned()));
        assert_eq!(shown(EvidenceValue::Place(-9_000, 18_000)), ("place", "-90.00,180.00".to_owned()));
        assert_eq!(shown(EvidenceValue::Asn(64_500)), ("asn", "AS64500".to_owned()));
        assert_eq!(
            shown(EvidenceValue::Agent(NameId(0xab))),
            ("user_agent", "agent-00000000000000ab".to_owned())
        );
        assert_eq!(shown(EvidenceValue::Agent(NameId::NONE)), ("user_agent", "-".to_owned()));
    }
}
