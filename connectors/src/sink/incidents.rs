//! Incidents, their log and the actions on them as JSON, for people and for alerts.
//!
//! The columns are those of [`incident_row`], by which alerts read them back. Numbers that the detector has in
//! thousandths are written with three decimals, by integers: the same on every machine. Rows never contain e-mail
//! addresses: contacts are beside the row, in a [`Notice`].

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use keytide_config::View;
use keytide_dataflow::detect::{Family, Signal};
use keytide_dataflow::model::NameId;
use keytide_dataflow::*;
use serde::ser::Error as _;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use super::encode::{EncodeRow, Labels, RecordLocation, id_text, number, string, text, time};
use super::names::Names;
use super::place::RowPlace;
use crate::input::PartitionInfo;

/// The parts of an incident's row that come from the job.
#[derive(Clone, Copy, Debug)]
pub struct JobInfo<'a> {
    pub config: &'a str,
    /// The partitions that samples are in.
    pub partitions: &'a [PartitionInfo],
}

/// The number of digits of a fingerprint that are written, enough to distinguish configurations.
const CONFIG_DIGITS: usize = 16;

/// Returns the addresses of a transition's key and subscription, each once.
pub(super) fn contacts(transition: &Transition, names: &Names) -> Vec<String> {
    contact_addresses([transition.contact, transition.contacts].map(|list| names.text(list)))
}

/// A row of `incidents`, before it is written.
#[derive(Clone, Copy, Debug)]
pub struct IncidentRow<'a> {
    pub incident: &'a Incident,
    pub job: JobInfo<'a>,
}

impl EncodeRow for IncidentRow<'_> {
    const VIEW: View = View::Incidents;

    fn key_columns(&self, _: &mut Labels<'_>, out: &mut Vec<u8>) {
        id_text(out, r#"{"incident_id":"#, self.incident.id.0);
    }

    fn value_columns(&self, labels: &mut Labels<'_>, out: &mut Vec<u8>) {
        rest(self, &incident(self.incident, self.job, labels.names()), labels, out);
    }

    fn place(&self) -> Option<RowPlace> {
        Some(RowPlace::of_incident(self.incident.id, self.incident.opened_ms))
    }
}

/// A row of `incident_log`, before it is written.
#[derive(Clone, Copy, Debug)]
pub struct LogRow<'a> {
    pub transition: &'a Transition,
    pub job: JobInfo<'a>,
}

impl EncodeRow for LogRow<'_> {
    const VIEW: View = View::IncidentLog;

    fn key_columns(&self, _: &mut Labels<'_>, out: &mut Vec<u8>) {
        id_text(out, r#"{"incident_id":"#, self.transition.incident.id.0);
        number(out, r#","seq":"#, self.transition.seq.into());
    }

    fn value_columns(&self, labels: &mut Labels<'_>, out: &mut Vec<u8>) {
        rest(self, &transition(self.transition, self.job, labels.names()), labels, out);
    }
}

impl EncodeRow for Revocation {
    const VIEW: View = View::Revocations;

    fn key_columns(&self, _: &mut Labels<'_>, out: &mut Vec<u8>) {
        id_text(out, r#"{"action_id":"#, self.id.0);
    }

    fn value_columns(&self, _: &mut Labels<'_>, out: &mut Vec<u8>) {
        text(out, r#","key_id":"#, &self.key_id);
        id_text(out, r#","incident_id":"#, self.incident.0);
        text(out, r#","action":"#, self.action.name());
        text(out, r#","state":"#, self.state.name());
        text(out, r#","reason":"#, &self.reason);
        text(out, r#","at":"#, &time(self.at_ms));
        out.push(b'}');
    }
}

impl EncodeRow for DeniedKey {
    const VIEW: View = View::Denied;

    fn key_columns(&self, _: &mut Labels<'_>, out: &mut Vec<u8>) {
        text(out, r#"{"key_id":"#, &self.key_id);
    }

    fn value_columns(&self, _: &mut Labels<'_>, out: &mut Vec<u8>) {
        let Some((state, since_ms, incident)) = self.denial else {
            out.extend_from_slice(br#","retracted":true}"#);
            return;
        };
        text(out, r#","state":"#, state.name());
        text(out, r#","since":"#, &time(since_ms));
        id_text(out, r#","incident":"#, incident.0);
        out.push(b'}');
    }

    fn is_retracted(&self) -> bool {
        self.denial.is_none()
    }
}

impl EncodeRow for AuditEntry {
    const VIEW: View = View::Audit;

    fn key_columns(&self, _: &mut Labels<'_>, out: &mut Vec<u8>) {
        text(out, r#"{"target":"#, &self.target);
        number(out, r#","seq":"#, self.seq);
    }

    fn value_columns(&self, _: &mut Labels<'_>, out: &mut Vec<u8>) {
        let mut optional = |label: &str, value: Option<&str>| match value {
            Some(value) => text(out, label, value),
            None => string(out, label, b"null"),
        };
        optional(r#","at":"#, Some(&time(self.at_ms)));
        optional(r#","who":"#, Some(&self.who));
        optional(r#","what":"#, Some(self.what));
        optional(r#","from":"#, self.from.map(ActionState::name));
        optional(r#","to":"#, self.to.map(ActionState::name));
        optional(r#","why":"#, Some(&self.why));
        optional(r#","gateway":"#, self.gateway.as_deref());
        out.push(b'}');
    }
}

/// Writes the columns of `columns` that follow the key columns of `row`.
fn rest(row: &impl EncodeRow, columns: &impl Serialize, labels: &mut Labels<'_>, out: &mut Vec<u8>) {
    let mut key = Vec::new();
    row.key_columns(labels, &mut key);
    let json = serde_json::to_vec(columns).expect("columns can always be written to memory");
    debug_assert!(json.starts_with(&key), "the key columns come first");
    out.extend_from_slice(&json[key.len()..]);
}

/// A number in thousandths, which is written with three decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Thousandths(u64);

impl Serialize for Thousandths {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let digits = format!("{}.{:03}", self.0 / 1_000, self.0 % 1_000);
        RawValue::from_string(digits).map_err(S::Error::custom)?.serialize(serializer)
    }
}

/// Makes a row of either view. Both have the columns listed here; `$more` are those of the log alone.
macro_rules! row {
    ($row:ident of $incident:expr, $job:ident, $names:ident $(, $more:ident: $value:expr)*) => {{
        let of: &Incident = $incident;
        let name = |id| $names.name(id).map(str::to_owned);
        incident_row::$row {
            incident_id: of.id.to_string(),
            $($more: $value,)*
            key_id: $names.key_text(of.key).into_owned(),
            subscription: name(of.owner.subscription),
            customer: name(of.owner.customer),
            plan: name(of.owner.plan),
            level: of.severity.name().to_owned(),
            score: of.score,
            state: of.state.name().to_owned(),
            opened_at: time(of.opened_ms),
            last_signal_at: time(of.last_signal_ms),
            ended_at: of.ended_ms.map(time),
            signals: of.signals.iter().map(|evidence| signal(evidence, $names)).collect(),
            evidence: incident_row::EvidenceJson {
                calls: of.calls,
                known_since: time(of.known_since_ms),
                known_calls: of.known_calls,
                traffic: of.traffic.iter().map(point).collect(),
                samples: of.samples.iter().map(|of| sample(of, $job.partitions)).collect(),
                taken: taken(&of.taken, $names),
                usual: of.usual.iter().map(|of| usual(of, $names)).collect(),
                other_keys: of.other_keys.iter().map(|of| other_keys(of, $names)).collect(),
                earlier: of.earlier.iter().map(earlier).collect(),
                config: $job.config.get(..CONFIG_DIGITS).unwrap_or($job.config).to_owned(),
            },
            reopenings: of.reopenings,
            platform_event: of.platform_event,
            detector_version: DETECTOR_VERSION,
        }
    }};
}

fn incident(of: &Incident, job: JobInfo<'_>, names: &Names) -> incident_row::IncidentJson<Thousandths> {
    row!(IncidentJson of of, job, names)
}

fn transition(of: &Transition, job: JobInfo<'_>, names: &Names) -> incident_row::TransitionJson<Thousandths> {
    row!(
        TransitionJson of &of.incident, job, names,
        seq: of.seq,
        transition: of.change,
        at: time(of.at_ms),
        reason: of.reason.map(|reason| reason.name().to_owned()),
        early: of.early,
        repeat: of.is_repeat,
        catching_up: of.catching_up,
        policy: of.policy.map(|policy| policy.name().to_owned()),
        key_state: of.key_state.map(|state| state.name().to_owned())
    )
}

/// Returns whether a number of calls can be expected of a signal: hard facts and the spread over routes have none.
fn has_expectation(signal: Signal) -> bool {
    signal.family() != Family::Hard && signal != Signal::Mix
}

fn signal(evidence: &Evidence, names: &Names) -> incident_row::SignalJson<Thousandths> {
    let Evidence { signal, window_ms, width_ms, first_ms, last_ms, expected, seen, bits, weighted, values } =
        evidence;
    let has_expectation = has_expectation(*signal);
    incident_row::SignalJson {
        signal: signal.name().to_owned(),
        family: signal.family().name().to_owned(),
        window_start: time(*window_ms),
        window_s: width_ms / 1_000,
        first_at: time(*first_ms),
        last_at: time(*last_ms),
        expected: has_expectation.then_some(Thousandths(*expected)),
        seen: *seen,
        ratio: ratio(*seen, *expected).filter(|_| has_expectation).map(Thousandths),
        bits: Thousandths(bits.0.into()),
        weighted_bits: Thousandths(weighted.0.into()),
        values: values.iter().map(|of| contributor(of, names)).collect(),
    }
}

/// Returns `seen` divided by `expected`, in thousandths and rounded; `None` if `expected` is 0. `expected` is in
/// thousandths, `seen` isn't.
fn ratio(seen: u64, expected: u64) -> Option<u64> {
    let scaled = u128::from(seen) * 1_000_000 + u128::from(expected) / 2;
    let ratio = scaled.checked_div(expected.into())?;
    Some(u64::try_from(ratio).unwrap_or(u64::MAX))
}

fn contributor(of: &Contributor, names: &Names) -> incident_row::ValueJson {
    let (kind, value) = value(of.value, names);
    incident_row::ValueJson { kind: kind.to_owned(), value, calls: of.calls, new: of.is_new }
}

/// Returns the kind of a value, and the value as text.
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

/// The most statuses of calls that were taken.
const STATUSES: usize = 8;
/// The most routes of calls that were taken.
const TOP_ROUTES: usize = 5;

fn taken(of: &Taken, names: &Names) -> incident_row::TakenJson {
    let mut methods: BTreeMap<String, u64> = BTreeMap::new();
    for (route, calls) in &of.routes {
        let method = names.route(*route).method.text.to_string();
        *methods.entry(method).or_default() += calls;
    }
    let routes = of.routes.iter().map(|(route, calls)| (names.route(*route).id.text.to_string(), *calls));
    incident_row::TakenJson {
        from_new: of.from_new,
        usual: of.usual,
        bytes_out: of.bytes_out,
        routes: of.routes.len() as u64,
        methods: most(methods, usize::MAX),
        statuses: most(of.statuses.iter().map(|(status, calls)| (status.to_string(), *calls)), STATUSES),
        top_routes: most(routes, TOP_ROUTES),
    }
}

/// Returns the values with most calls, most first; of equal ones in the order of their texts.
fn most(counts: impl IntoIterator<Item = (String, u64)>, limit: usize) -> Vec<incident_row::CountJson> {
    let mut counts: Vec<_> =
        counts.into_iter().map(|(value, calls)| incident_row::CountJson { value, calls }).collect();
    counts.sort_by(|one, other| (other.calls, &one.value).cmp(&(one.calls, &other.value)));
    counts.truncate(limit);
    counts
}

fn usual(of: &UsualValue, names: &Names) -> incident_row::UsualJson<Thousandths> {
    let (kind, value) = value(of.value, names);
    incident_row::UsualJson { kind: kind.to_owned(), value, share: Thousandths(of.share) }
}

fn other_keys(of: &OtherKeys, names: &Names) -> incident_row::OtherKeysJson {
    let named = of.named.iter().map(|of| incident_row::OtherKeyJson {
        key_id: names.key_text(of.key).into_owned(),
        customer: names.name(of.customer).map(str::to_owned),
    });
    incident_row::OtherKeysJson {
        network: network(of.network),
        usual_keys: of.usual_keys,
        keys: of.keys,
        customers: of.customers,
        named: named.collect(),
    }
}

fn earlier(of: &EarlierIncident) -> incident_row::EarlierJson {
    incident_row::EarlierJson {
        incident_id: of.id.to_string(),
        opened_at: time(of.opened_ms),
        ended_at: time(of.ended_ms),
        level: of.severity.name().to_owned(),
        state: of.state.name().to_owned(),
    }
}

fn network(first: u128) -> String {
    let first = Ipv6Addr::from_bits(first);
    match first.to_ipv4_mapped() {
        Some(first) => format!("{first}/24"),
        None => format!("{first}/48"),
    }
}

/// Returns hundredths of a degree as degrees.
fn degrees(hundredths: i32) -> String {
    let sign = if hundredths < 0 { "-" } else { "" };
    let size = hundredths.unsigned_abs();
    format!("{sign}{}.{:02}", size / 100, size % 100)
}

fn point(of: &Point) -> incident_row::PointJson<Thousandths> {
    incident_row::PointJson { start: time(of.start_ms), calls: of.calls, expected: Thousandths(of.expected) }
}

fn sample(of: &Sample, partitions: &[PartitionInfo]) -> incident_row::SampleJson {
    let RecordLocation { source, partition, offset, index, path: _ } =
        RecordLocation::of(of.position, partitions);
    let client = (of.client != 0).then(|| Ipv6Addr::from_bits(of.client).to_canonical().to_string());
    incident_row::SampleJson {
        source: source.into_owned(),
        partition,
        offset,
        index,
        at: time(of.time),
        client,
        status: of.status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_thousandths_are_written_with_three_decimals() {
        let written = |value| serde_json::to_string(&Thousandths(value)).unwrap();
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
