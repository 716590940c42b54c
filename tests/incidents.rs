//! What is published of incidents is what people are told by: rows that the sinks encode have their schemas and are
//! read by those who write mails. The one module of these tests that knows code: two crates that don't know each other.

use keytide_connectors::input::PartitionInfo;
use keytide_connectors::sink::encode::{EncodeRow, Labels};
use keytide_connectors::sink::names::Names;
use keytide_connectors::sink::{IncidentRow, JobInfo, LogRow};
use keytide_dataflow::detect::{Bits, Severity, Signal};
use keytide_dataflow::incident_row::TransitionJson;
use keytide_dataflow::model::time::MINUTE_MS;
use keytide_dataflow::model::{Country, Definition, KeyId, KeyState, NameId, Policy, Position, RouteId};
use keytide_dataflow::{
    Action, ActionId, ActionState, AuditEntry, Change, Contributor, DenialState, DeniedKey, Evidence,
    EvidenceValue, Incident, IncidentId, IncidentState, Owner, Point, Reason, Revocation, Sample, Taken,
    Transition, Verb,
};
use smallvec::smallvec;

use crate::harness::{Row, Schema, repository};

const KEY: KeyId = KeyId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
const START: u64 = 1_748_851_200_000;
const AGENT: &str = "curl/8 \u{1b}[31m <script>\u{202e}";
const CONTACT: &str = "ops@acme.example";

/// An incident in which every kind of value and every signal occurs.
fn incident() -> Incident {
    let route = RouteId::new("shop", "GET", "/orders/{id}");
    let values = [
        EvidenceValue::Country(Country::new("BR")),
        EvidenceValue::Asn(64_500),
        EvidenceValue::Network(std::net::Ipv4Addr::new(198, 51, 100, 0).to_ipv6_mapped().to_bits()),
        EvidenceValue::Network("2001:db8:1::".parse::<std::net::Ipv6Addr>().unwrap().to_bits()),
        EvidenceValue::Agent(NameId::new(AGENT)),
        EvidenceValue::Agent(NameId(7)),
        EvidenceValue::Route(route),
        EvidenceValue::Place(5_252, -1_340),
        EvidenceValue::Report(NameId::new("scanner"), NameId::new("https://example.com/paste")),
    ];
    let evidence = |(at, signal): (usize, &Signal)| Evidence {
        signal: *signal,
        window_ms: START,
        width_ms: MINUTE_MS,
        first_ms: START,
        last_ms: START + MINUTE_MS,
        expected: at as u64 * 1_500,
        seen: 480,
        bits: Bits(38_501),
        weighted: Bits(38_501),
        values: smallvec![Contributor { value: values[at % values.len()], calls: 400, is_new: at % 2 == 0 }],
    };
    Incident {
        id: IncidentId(0xfeed),
        key: KEY,
        owner: Owner {
            subscription: NameId::new("sub-1"),
            customer: NameId::new("acme"),
            plan: NameId::NONE,
        },
        severity: Severity::Revoke,
        score: 99,
        state: IncidentState::Withdrawn,
        opened_ms: START,
        last_signal_ms: START + 2 * MINUTE_MS,
        ended_ms: Some(START + 3 * MINUTE_MS),
        signals: Signal::ALL.iter().enumerate().map(evidence).collect(),
        traffic: vec![Point { start_ms: START, calls: 480, expected: 60_500 }],
        samples: [0xffff_c633_6407, 0]
            .map(|client| Sample {
                position: Position { partition: 1, offset: 42, index: 3 },
                time: START + 5,
                client,
                status: 403,
            })
            .into(),
        calls: 500,
        known_since_ms: START - 1_000 * MINUTE_MS,
        taken: Taken::default(),
        usual: Vec::new(),
        other_keys: Vec::new(),
        earlier: Vec::new(),
        reopenings: 0,
        known_calls: 12_345,
        platform_event: true,
    }
}

fn transition() -> Transition {
    Transition {
        incident: incident(),
        seq: 3,
        change: Change::Withdrawn,
        at_ms: START + 3 * MINUTE_MS,
        reason: Some(Reason::Allowed),
        early: false,
        is_repeat: false,
        catching_up: true,
        policy: Some(Policy::Revoke),
        key_state: Some(KeyState::Suspended),
        active_keys: 1_000,
        contact: NameId::new(CONTACT),
        contacts: NameId::NONE,
        place: Default::default(),
    }
}

fn partitions() -> Vec<PartitionInfo> {
    let of = |source: &str, number| PartitionInfo {
        source: source.to_owned(),
        source_index: 0,
        number,
        path: None,
    };
    vec![of("other", 0), of("gateway", 5)]
}

/// A row as its view has it.
fn encoded(row: impl FnOnce(&mut Labels<'_>, JobInfo<'_>, &mut Vec<u8>)) -> String {
    let mut names = Names::default();
    for text in ["scanner", "https://example.com/paste", "sub-1", "acme", CONTACT] {
        names.define(Definition::Name { id: NameId::new(text), text: text.into() });
    }
    names.define(Definition::Agent { id: NameId::new(AGENT), day: 0, text: AGENT.into() });
    names.define(Definition::Route {
        id: RouteId::new("shop", "GET", "/orders/{id}"),
        day: 0,
        api: "shop".into(),
        method: "GET".into(),
        route: "/orders/{id}".into(),
    });
    let partitions = partitions();
    let job = JobInfo { config: "00112233445566778899aabbccddeeff", partitions: &partitions };
    let mut line = Vec::new();
    row(&mut Labels::new(&names), job, &mut line);
    String::from_utf8(line).unwrap()
}

fn log_row(transition: &Transition) -> String {
    encoded(|labels, job, line| LogRow { transition, job }.line(labels, line))
}

fn assert_schema(view: &str, line: &str) {
    let schema = Schema::read(&repository().join(format!("schemas/{view}.v1.schema.json")));
    schema.check(&Row::parse(line)).unwrap_or_else(|problem| panic!("{view}: {problem}\n{line}"));
}

#[test]
fn every_kind_of_row_has_its_schema() {
    assert_schema("incident_log", &log_row(&transition()));
    let incident = incident();
    let row = encoded(|labels, job, line| IncidentRow { incident: &incident, job }.line(labels, line));
    assert_schema("incidents", &row);
    for (action, state) in [
        (Action::Suspend, ActionState::Held),
        (Action::Revoke, ActionState::Withdrawn),
        (Action::Reinstate, ActionState::Requested),
        (Action::Suspend, ActionState::Done),
        (Action::Suspend, ActionState::Failed),
    ] {
        let revocation = Revocation {
            id: ActionId::new(incident.id, action, 0),
            key: KEY,
            key_id: KEY.to_string(),
            incident: incident.id,
            action,
            state,
            reason: "would be \"done\"".to_owned(),
            at_ms: START,
        };
        assert_schema("revocations", &encoded(|labels, _, line| revocation.line(labels, line)));
        let entry = AuditEntry {
            target: revocation.id.to_string(),
            seq: 3,
            at_ms: START,
            who: "alice".to_owned(),
            what: Verb::Approve.name(),
            from: None,
            to: Some(state),
            why: "it \"leaked\"".to_owned(),
            gateway: None,
        };
        assert_schema("audit", &encoded(|labels, _, line| entry.line(labels, line)));
    }
}

#[test]
fn keys_that_gateways_refuse_have_their_schema() {
    for state in [DenialState::Suspended, DenialState::Revoked] {
        let denial = Some((state, START, incident().id));
        let row = DeniedKey { key_id: KEY.to_string(), denial };
        assert_schema("denied", &encoded(|labels, _, line| row.line(labels, line)));
    }
}

#[test]
fn mails_are_made_of_the_published_transition() {
    let line = log_row(&transition());
    let read: TransitionJson = serde_json::from_str(&line).unwrap();
    assert_eq!((&*read.incident_id, read.seq), ("0000000000000000000000000000feed", 3));
    assert_eq!((read.transition, &*read.at), (Change::Withdrawn, "2025-06-02T08:03:00Z"));
    assert_eq!(read.reason.as_deref(), Some(Reason::Allowed.name()));
    assert_eq!((read.early, read.catching_up, read.platform_event), (false, true, true));
    assert_eq!(read.key_id, "0123456789abcdef0123456789abcdef");
    assert_eq!(
        (read.subscription.as_deref(), read.customer.as_deref(), read.plan.as_deref()),
        (Some("sub-1"), Some("acme"), None)
    );
    assert_eq!((read.policy.as_deref(), read.key_state.as_deref()), (Some("revoke"), Some("suspended")));
    assert_eq!((&*read.level, read.score, &*read.state), ("revoke", 99, "withdrawn"));
    assert_eq!(read.opened_at, "2025-06-02T08:00:00Z");
    assert_eq!(read.last_signal_at, "2025-06-02T08:02:00Z");
    assert_eq!(read.ended_at.as_deref(), Some("2025-06-02T08:03:00Z"));

    assert_eq!(read.signals.len(), Signal::ALL.len());
    let signal = |signal: Signal| read.signals.iter().find(|read| read.signal == signal.name()).unwrap();
    let five_minutes = signal(Signal::VolumeFiveMinutes);
    assert_eq!((five_minutes.expected, five_minutes.seen), (Some(1.5), 480));
    assert_eq!((five_minutes.ratio, five_minutes.bits), (Some(320.0), 38.501));
    assert_eq!((&*five_minutes.family, five_minutes.window_s), ("volume", 60));
    assert_eq!(signal(Signal::VolumeMinute).ratio, None, "nothing was expected");
    assert_eq!((signal(Signal::Revoked).expected, signal(Signal::Revoked).ratio), (None, None));
    let values: Vec<(&str, &str)> = (read.signals.iter())
        .flat_map(|signal| &signal.values)
        .take(9)
        .map(|value| (&*value.kind, &*value.value))
        .collect();
    assert_eq!(
        values,
        [
            ("country", "BR"),
            ("asn", "AS64500"),
            ("network", "198.51.100.0/24"),
            ("network", "2001:db8:1::/48"),
            ("user_agent", AGENT),
            ("user_agent", "agent-0000000000000007"),
            ("route", "shop GET /orders/{id}"),
            ("place", "52.52,-13.40"),
            ("report", "scanner https://example.com/paste"),
        ]
    );

    let evidence = &read.evidence;
    assert_eq!((evidence.calls, evidence.known_calls), (500, 12_345));
    assert_eq!(evidence.config, "0011223344556677");
    assert_eq!((evidence.traffic[0].calls, evidence.traffic[0].expected), (480, 60.5));
    let [known, unknown] = &evidence.samples[..] else { panic!("{:?}", evidence.samples) };
    assert_eq!((&*known.source, known.partition, known.offset, known.index), ("gateway", 5, 42, 3));
    assert_eq!((known.client.as_deref(), known.status), (Some("198.51.100.7"), 403));
    assert_eq!(unknown.client, None);
}

#[test]
fn nobody_s_mail_address_stands_in_a_row() {
    let incident = incident();
    let row = encoded(|labels, job, line| IncidentRow { incident: &incident, job }.line(labels, line));
    for line in [log_row(&transition()), row] {
        assert!(!line.contains('@'), "{line}");
    }
}
