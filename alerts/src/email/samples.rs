//! Sample incidents, for checking templates and for looking at mails. They are one leak from its first minute to its
//! end, a burst on a launch day, revoked keys, a slow drip, and a stolen database; what became of actions; and quotas.

use jiff::Timestamp;
use keytide_config::{KafkaClient, KafkaSource, LinkTemplate, SourceKind};
use keytide_dataflow::Change;
use keytide_dataflow::incident_row::{
    CountJson, EarlierJson, EvidenceJson, OtherKeyJson, OtherKeysJson, PointJson, SampleJson, SignalJson,
    TakenJson, TransitionJson, UsualJson, ValueJson,
};
use keytide_dataflow::{Action, ActionId, ActionState, IncidentId, Reason, Verb};

use super::{Guide, PlannedAction};
use crate::actions::{ActionNotice, Decided, GatewayNotice, LateAction};
use crate::quota::QuotaNoticeRow;

const STEP_S: i64 = 300;

/// Returns the names of the transitions of [`all`], in their order.
pub const NAMES: [&str; 11] = [
    "leak",
    "raised",
    "end",
    "reopened",
    "withdrawn",
    "launch",
    "revoked-answered",
    "update",
    "drip",
    "stolen-database",
    "revoked-refused",
];

/// Returns transitions of every kind.
#[must_use]
pub fn all() -> Vec<TransitionJson> {
    let opened = leak();
    let raised = TransitionJson {
        transition: Change::Raised,
        seq: 1,
        level: "revoke".to_owned(),
        score: 99,
        early: false,
        at: "2026-11-21T14:12:00Z".to_owned(),
        ..opened.clone()
    };
    let ended = TransitionJson {
        transition: Change::Ended,
        seq: 2,
        at: "2026-11-21T16:01:00Z".to_owned(),
        state: "ended".to_owned(),
        last_signal_at: "2026-11-21T15:31:00Z".to_owned(),
        ended_at: Some("2026-11-21T16:01:00Z".to_owned()),
        evidence: EvidenceJson {
            calls: 80_214,
            traffic: traffic("2026-11-21T16:00:00Z"),
            ..raised.evidence.clone()
        },
        ..raised.clone()
    };
    let reopened = TransitionJson {
        transition: Change::Reopened,
        seq: 3,
        at: "2026-11-21T18:04:00Z".to_owned(),
        state: "open".to_owned(),
        last_signal_at: "2026-11-21T18:04:00Z".to_owned(),
        ended_at: None,
        ..ended.clone()
    };
    let withdrawn = TransitionJson {
        transition: Change::Withdrawn,
        seq: 4,
        at: "2026-11-21T18:20:00Z".to_owned(),
        state: "withdrawn".to_owned(),
        ended_at: Some("2026-11-21T18:20:00Z".to_owned()),
        reason: Some(Reason::Allowed.name().to_owned()),
        ..reopened.clone()
    };
    vec![
        opened,
        raised,
        ended,
        reopened,
        withdrawn,
        launch(),
        answered(),
        updated(),
        drip(),
        database(),
        refused(),
    ]
}

/// Returns a leak that has grown since its mail: by another kind of evidence, and by what was taken.
#[must_use]
pub fn updated() -> TransitionJson {
    let mut updated = leak();
    (updated.transition, updated.seq, updated.early) = (Change::Updated, 1, false);
    "2026-11-21T14:31:00Z".clone_into(&mut updated.at);
    "2026-11-21T14:31:00Z".clone_into(&mut updated.last_signal_at);
    (updated.evidence.calls, updated.evidence.taken.from_new) = (31_408, 29_870);
    updated.evidence.taken.bytes_out = 6_227_702_579;
    updated
}

/// Returns a thief who takes little an hour for days, from a place of his own.
#[must_use]
pub fn drip() -> TransitionJson {
    let mut drip = leak();
    "5e07c1d4a98f4bb2a3c6d817e20f9b64".clone_into(&mut drip.incident_id);
    "c41b7de20a9f4e6688d35f0c1b7a92e4".clone_into(&mut drip.key_id);
    (drip.early, drip.score, drip.policy) = (false, 91, Some("alert".to_owned()));
    drip.customer = Some("Borealis Foods".to_owned());
    let (mut country, mut system) = (drip.signals.swap_remove(1), drip.signals.swap_remove(2));
    let mut slow = drip.signals.swap_remove(0);
    country.values = vec![value("country", "IT", 11, true)];
    (country.seen, country.bits, country.weighted_bits) = (11, 13.1, 13.1);
    system.values = vec![value("asn", "AS64511", 11, true)];
    (system.signal, system.seen, system.bits, system.weighted_bits) = ("asn".to_owned(), 11, 11.8, 10.6);
    (slow.signal, slow.window_s, slow.expected, slow.seen) = ("slow".to_owned(), 3_600, Some(14.2), 52);
    (slow.ratio, slow.bits, slow.weighted_bits) = (Some(3.7), 57.7, 5.8);
    drip.signals = vec![country, system, slow];
    drip.evidence.calls = 204;
    drip.evidence.traffic = drip
        .evidence
        .traffic
        .iter()
        .step_by(3)
        .map(|point| PointJson {
            calls: point.calls.min(100) / 20,
            expected: point.expected / 30.0,
            ..point.clone()
        })
        .collect();
    drip.evidence.taken = TakenJson {
        from_new: 61,
        usual: 143,
        bytes_out: 1_204_224,
        routes: 2,
        methods: vec![count("GET", 61)],
        statuses: vec![count("200", 61)],
        top_routes: vec![count("orders GET /v1/customers/{id}", 60), count("orders GET /v1/customers", 1)],
    };
    (drip.evidence.other_keys, drip.evidence.earlier) = (Vec::new(), Vec::new());
    drip
}

/// Returns one of many keys that one network calls with: a stolen database of keys.
#[must_use]
pub fn database() -> TransitionJson {
    let mut database = leak();
    "0f5c8e2ab7d94163b0e4a7719d3c6f28".clone_into(&mut database.incident_id);
    (database.early, database.level, database.score) = (false, "revoke".to_owned(), 99);
    let customers = ["Borealis Foods", "Cedar Bank", "Delta Rail", "Ember Studios", "가나다물류"];
    let named = |i: usize| OtherKeyJson {
        key_id: format!(
            "{:032x}",
            0x77a1_c0de_93b2_485f_6e1d_0c9a_b8f7_4e25_u128.wrapping_mul(i as u128 + 3)
        ),
        customer: Some(customers[i % customers.len()].to_owned()),
    };
    database.evidence.other_keys = vec![OtherKeysJson {
        network: "203.0.113.0/24".to_owned(),
        usual_keys: 0,
        keys: 14,
        customers: 5,
        named: (0..10).map(named).collect(),
    }];
    database.signals.retain(|signal| signal.signal != "volume_5m");
    database
}

/// Returns the refused calls of a revoked key, which are a notice.
#[must_use]
pub fn refused() -> TransitionJson {
    let mut refused = answered();
    "b82d60f3c5174a0e96e1d7f04c2a8b35".clone_into(&mut refused.incident_id);
    "9d3b5a7f10c24e8896fa3e5b7c1d2048".clone_into(&mut refused.key_id);
    refused.customer = Some("Cedar Bank".to_owned());
    (refused.level, refused.score) = ("notice".to_owned(), 50);
    refused.signals.truncate(1);
    (refused.signals[0].seen, refused.signals[0].bits, refused.signals[0].weighted_bits) = (12, 17.0, 17.0);
    refused.signals[0].values =
        vec![value("network", "192.0.2.0/24", 8, false), value("user_agent", "acme-backend/3.9", 12, false)];
    refused.evidence.calls = 386;
    refused.evidence.taken = TakenJson {
        routes: 1,
        methods: vec![count("GET", 386)],
        statuses: vec![count("401", 386)],
        top_routes: vec![count("orders GET /v1/orders", 386)],
        ..TakenJson::default()
    };
    refused
}

/// Returns the action that a policy asks for after a leak.
#[must_use]
pub fn planned() -> PlannedAction {
    PlannedAction {
        id: Some(ActionId(7)),
        action: Action::Suspend,
        state: ActionState::Held,
        why: "acting is off".to_owned(),
        is_decision: true,
    }
}

/// The names of the notices of [`actions`], in their order.
pub const ACTION_NAMES: [&str; 8] =
    ["held", "suspended", "approved", "lifted", "revoked", "failed", "still-answered", "void"];

/// Returns changes of actions of every kind.
#[must_use]
pub fn actions() -> Vec<ActionNotice> {
    let leak = leak();
    let by = |verb, who: &str| Some(Decided { verb, who: who.to_owned(), at_ms: 1_795_270_260_000 });
    let held = ActionNotice {
        id: ActionId(7),
        seq: 0,
        key_id: leak.key_id,
        incident: IncidentId::parse(&leak.incident_id).unwrap_or(IncidentId(0)),
        action: Action::Suspend,
        from: None,
        state: ActionState::Held,
        at_ms: 1_795_270_020_000,
        decided: None,
        is_explained: false,
        why: "the breaker lets pass 10 keys an hour, of 1200 in use".to_owned(),
        gateway: Some("kong-seoul".to_owned()),
        subscription: leak.subscription,
        customer: leak.customer,
        plan: leak.plan,
        is_decision: true,
        contacts: Vec::new(),
    };
    let done = |seq, action, decided, why: &str| ActionNotice {
        seq,
        from: Some(ActionState::Requested),
        state: ActionState::Done,
        action,
        decided,
        why: why.to_owned(),
        is_decision: false,
        ..held.clone()
    };
    let suspended = done(1, Action::Suspend, None, "");
    let failed = |from, why: &str| ActionNotice {
        seq: 2,
        from: Some(from),
        state: ActionState::Failed,
        why: why.to_owned(),
        ..suspended.clone()
    };
    vec![
        held.clone(),
        suspended.clone(),
        done(2, Action::Suspend, by(Verb::Approve, "alice"), "the customer doesn't know these calls"),
        done(1, Action::Reinstate, by(Verb::Reinstate, "bob"), "a load test, see ticket 4711"),
        done(1, Action::Revoke, by(Verb::Revoke, "alice"), "the customer has a new key"),
        failed(ActionState::Requested, "the gateway has no such credential"),
        failed(ActionState::Done, "still answered: 3 of 40 calls in a minute"),
        ActionNotice {
            from: Some(ActionState::Held),
            state: ActionState::Withdrawn,
            why: "nobody decided about it within a day".to_owned(),
            is_decision: false,
            ..held.clone()
        },
    ]
}

/// Returns the names of the notices of [`quotas`], in their order.
pub const QUOTA_NAMES: [&str; 5] = ["calls", "calls-used-up", "bytes", "cost-used-up", "units"];

/// Returns notices of quotas of every metric, hard ones and others, with a forecast and without.
#[must_use]
pub fn quotas() -> Vec<QuotaNoticeRow> {
    let calls = QuotaNoticeRow {
        subscription: "sub-1042".to_owned(),
        seq: 1,
        metric: "calls".to_owned(),
        period: "month".to_owned(),
        period_start: "2026-10-31T15:00:00Z".to_owned(),
        percent: 80,
        limit: 10_000_000,
        used: 8_123_456,
        remaining: 1_876_544,
        permille: 812,
        hard: true,
        resets_at: "2026-11-30T15:00:00Z".to_owned(),
        at: "2026-11-21T14:06:00Z".to_owned(),
        expected: Some(12_300_000),
        low: Some(11_650_000),
        high: Some(12_950_000),
        runs_out_at: Some("2026-11-25T09:30:00Z".to_owned()),
        currency: None,
        customer: Some("Acme Logistics".to_owned()),
        plan: Some("gold".to_owned()),
        time_zone: Some("Asia/Seoul".to_owned()),
    };
    let used_up = QuotaNoticeRow {
        seq: 3,
        percent: 100,
        used: 10_000_312,
        remaining: 0,
        permille: 1_000,
        at: "2026-11-25T10:11:00Z".to_owned(),
        runs_out_at: Some("2026-11-25T10:11:00Z".to_owned()),
        ..calls.clone()
    };
    let bytes = QuotaNoticeRow {
        seq: 4,
        metric: "bytes_out".to_owned(),
        period: "billing".to_owned(),
        percent: 90,
        limit: 100_000_000_000,
        used: 93_512_004_110,
        remaining: 6_487_995_890,
        permille: 935,
        hard: false,
        expected: Some(98_000_000_000),
        low: Some(95_000_000_000),
        high: Some(101_000_000_000),
        runs_out_at: None,
        plan: None,
        ..calls.clone()
    };
    let cost = QuotaNoticeRow {
        subscription: "가나다물류 운영".to_owned(),
        seq: 1,
        metric: "cost".to_owned(),
        percent: 150,
        limit: 4_990_000,
        used: 7_512_345,
        remaining: 0,
        permille: 1_505,
        hard: false,
        expected: Some(9_000_000),
        low: Some(8_800_000),
        high: Some(9_200_000),
        runs_out_at: None,
        currency: Some("EUR".to_owned()),
        ..calls.clone()
    };
    let units = QuotaNoticeRow {
        subscription: "sub-2077".to_owned(),
        seq: 1,
        metric: "units".to_owned(),
        period: "day".to_owned(),
        period_start: "2026-11-21T00:00:00Z".to_owned(),
        resets_at: "2026-11-22T00:00:00Z".to_owned(),
        limit: 1_000,
        used: 800,
        remaining: 200,
        permille: 800,
        expected: None,
        low: None,
        high: None,
        runs_out_at: None,
        time_zone: None,
        ..calls.clone()
    };
    vec![calls, used_up, bytes, cost, units]
}

/// Returns notices of a gateway that is late with one action, and again with many, and of a job without one.
#[must_use]
pub fn gateways() -> Vec<GatewayNotice> {
    let named =
        |number: u128, action, key: &str| LateAction { id: ActionId(number), action, key_id: key.to_owned() };
    let first = GatewayNotice {
        gateway: Some("kong-seoul".to_owned()),
        first: 1_795_270_380_000,
        count: 0,
        since: 1_795_270_080_000,
        late: 1,
        named: vec![named(7, Action::Suspend, &leak().key_id)],
    };
    let mut again = GatewayNotice { count: 1, late: 1_204, ..first.clone() };
    again.named.push(named(8, Action::Reinstate, "partner-batch"));
    let none = GatewayNotice { gateway: None, ..first.clone() };
    vec![first, again, none]
}

/// Returns a guide with a link, steps, and commands that answer and show records.
#[must_use]
pub fn guide() -> Guide {
    let mut alerts = keytide_config::Alerts {
        link: LinkTemplate::new("https://soc.example.com/incidents/{incident_id}"),
        ..Default::default()
    };
    alerts.asked = Some("http://keytide.example.com:9464".to_owned());
    alerts.steps.security = vec![
        "Suspend the key: ourctl keys suspend {key_id} --note {incident_id}".to_owned(),
        "Call {customer} and ask whether these calls are theirs.".to_owned(),
    ];
    alerts.steps.owner =
        vec!["Make a new key in the console, put it in place, and revoke {key_id}.".to_owned()];
    let topic =
        SourceKind::Kafka(KafkaSource::new(KafkaClient::new("kafka-1.example:9092"), "access-events"));
    Guide::of(&alerts, ["gateway-seoul", "gateway-tokyo"].map(|name| (name, &topic)).into_iter())
}

/// Returns a leak: forty times the usual calls, from a country and a program that are new to the key.
#[must_use]
pub fn leak() -> TransitionJson {
    let signal =
        |name: &str, family: &str, expected: Option<f64>, seen: u64, bits: f64, values: Vec<ValueJson>| {
            SignalJson {
                signal: name.to_owned(),
                family: family.to_owned(),
                window_start: "2026-11-21T14:05:00Z".to_owned(),
                window_s: if name.ends_with("5m") || name == "fan_out" { 300 } else { 60 },
                first_at: "2026-11-21T14:03:00Z".to_owned(),
                last_at: "2026-11-21T14:06:00Z".to_owned(),
                expected,
                seen,
                ratio: expected.filter(|expected| *expected > 0.0).map(|expected| seen as f64 / expected),
                bits,
                weighted_bits: bits
                    * match name {
                        "volume_5m" => 0.65,
                        "asn" => 0.9,
                        "fan_out" | "refused" => 0.5,
                        "route" => 0.4,
                        _ => 1.0,
                    },
                values,
            }
        };
    TransitionJson {
        incident_id: "8c4f21d97a06b35e19f2c0a4d7e86b13".to_owned(),
        seq: 0,
        transition: Change::Opened,
        at: "2026-11-21T14:06:00Z".to_owned(),
        reason: None,
        early: true,
        repeat: false,
        catching_up: false,
        key_id: "3f2a9c41d0b7e85566f1a2903c4d7e1b".to_owned(),
        subscription: Some("sub-1042".to_owned()),
        customer: Some("Acme Logistics".to_owned()),
        plan: Some("gold".to_owned()),
        policy: Some("suspend".to_owned()),
        key_state: Some("active".to_owned()),
        level: "alert".to_owned(),
        score: 97,
        state: "open".to_owned(),
        opened_at: "2026-11-21T14:03:00Z".to_owned(),
        last_signal_at: "2026-11-21T14:06:00Z".to_owned(),
        ended_at: None,
        signals: vec![
            signal("volume_5m", "volume", Some(121.4), 4_856, 36.2, Vec::new()),
            signal(
                "country",
                "origin",
                None,
                3_911,
                17.4,
                vec![
                    value("country", "BR", 3_120, true),
                    value("country", "VN", 791, true),
                    value("country", "KR", 118, false),
                ],
            ),
            signal("asn", "origin", None, 3_120, 15.9, vec![value("asn", "AS64500", 3_120, true)]),
            signal(
                "user_agent",
                "behaviour",
                None,
                3_902,
                14.8,
                vec![value("user_agent", "python-requests/2.31.0", 3_902, true)],
            ),
            signal(
                "fan_out",
                "origin",
                Some(2.0),
                38,
                12.1,
                vec![
                    value("network", "203.0.113.0/24", 1_904, true),
                    value("network", "198.51.100.0/24", 1_216, true),
                ],
            ),
            signal(
                "route",
                "behaviour",
                None,
                2_410,
                9.6,
                vec![
                    value("route", "orders GET /v1/customers/{id}/export", 1_822, true),
                    value("route", "orders GET /v1/customers", 588, true),
                ],
            ),
            signal("refused", "errors", Some(0.6), 214, 8.3, Vec::new()),
        ],
        evidence: EvidenceJson {
            calls: 9_731,
            known_since: "2026-03-02T08:14:00Z".to_owned(),
            known_calls: 1_048_212,
            traffic: traffic("2026-11-21T14:06:00Z"),
            samples: vec![
                sample("gateway-seoul", 3, 88_120_417, "2026-11-21T14:03:11Z", "203.0.113.77", 200),
                sample("gateway-seoul", 3, 88_120_902, "2026-11-21T14:03:58Z", "198.51.100.20", 403),
                sample("gateway-tokyo", 0, 41_002_388, "2026-11-21T14:05:40Z", "2001:db8:77::12", 200),
            ],
            taken: TakenJson {
                from_new: 9_318,
                usual: 413,
                bytes_out: 1_932_735_283,
                routes: 7,
                methods: vec![count("GET", 9_702), count("POST", 29)],
                statuses: vec![count("200", 9_517), count("403", 214)],
                top_routes: vec![
                    count("orders GET /v1/customers/{id}/export", 5_822),
                    count("orders GET /v1/customers", 2_588),
                ],
            },
            usual: vec![
                usual("country", "KR", 0.998),
                usual("asn", "AS64496", 0.914),
                usual("asn", "AS64497", 0.086),
                usual("user_agent", "acme-backend/4.2", 0.971),
            ],
            other_keys: vec![OtherKeysJson {
                network: "203.0.113.0/24".to_owned(),
                usual_keys: 2,
                keys: 3,
                customers: 2,
                named: vec![
                    other_key("77a1c0de93b2485f6e1d0c9ab8f74e25", Some("Borealis Foods")),
                    other_key("91f2ee07ba6c4d31885a0b7c6d5e4f30", Some("Borealis Foods")),
                    other_key("partner-batch", None),
                ],
            }],
            earlier: vec![EarlierJson {
                incident_id: "40e1a7730cbb1d5f8e96f21b66a3c0d9".to_owned(),
                opened_at: "2026-10-03T09:41:00Z".to_owned(),
                ended_at: "2026-10-03T10:55:00Z".to_owned(),
                level: "alert".to_owned(),
                state: "ended".to_owned(),
            }],
            config: "5be21f00c3d49a17".to_owned(),
        },
        reopenings: 0,
        platform_event: false,
        detector_version: 1,
    }
}

fn count(value: &str, calls: u64) -> CountJson {
    CountJson { value: value.to_owned(), calls }
}

fn usual(kind: &str, value: &str, share: f64) -> UsualJson {
    UsualJson { kind: kind.to_owned(), value: value.to_owned(), share }
}

fn other_key(key: &str, customer: Option<&str>) -> OtherKeyJson {
    OtherKeyJson { key_id: key.to_owned(), customer: customer.map(str::to_owned) }
}

/// Returns an incident that rose together with those of many keys, while the job was catching up.
fn launch() -> TransitionJson {
    let mut launch = leak();
    launch.incident_id = "1d0c9be2457713fa86f0cc215e9b7a44".to_owned();
    launch.key_id = "partner-batch".to_owned();
    launch.customer = Some("가나다물류".to_owned());
    launch.plan = Some("프리미엄".to_owned());
    launch.signals.truncate(1);
    launch.platform_event = true;
    launch.catching_up = true;
    launch.early = false;
    launch.score = 71;
    launch
}

/// Returns an incident of a revoked key that still works, without a subscription or a history.
#[must_use]
pub fn answered() -> TransitionJson {
    let mut revoked = leak();
    revoked.incident_id = "f7a1103be6024cd58890aa31c6be5d02".to_owned();
    revoked.subscription = None;
    revoked.customer = None;
    revoked.plan = None;
    revoked.policy = None;
    revoked.key_state = Some("revoked".to_owned());
    revoked.early = false;
    let fact = |name: &str, seen, values| SignalJson {
        signal: name.to_owned(),
        family: "hard".to_owned(),
        expected: None,
        ratio: None,
        seen,
        bits: 40.0,
        weighted_bits: 40.0,
        values,
        ..revoked.signals[0].clone()
    };
    let report = value("report", "secret-scanning https://code.example.com/notes/deploy.sh", 0, true);
    revoked.signals = vec![fact("revoked", 17, Vec::new()), fact("reported", 0, vec![report])];
    revoked.level = "revoke".to_owned();
    revoked.evidence.calls = 110;
    revoked.evidence.taken = TakenJson {
        bytes_out: 421_888,
        routes: 1,
        methods: vec![count("GET", 110)],
        statuses: vec![count("200", 96), count("404", 14)],
        top_routes: vec![count("orders GET /v1/orders", 110)],
        ..TakenJson::default()
    };
    (revoked.evidence.other_keys, revoked.evidence.earlier) = (Vec::new(), Vec::new());
    revoked.evidence.traffic.clear();
    revoked.evidence.samples.truncate(1);
    revoked.evidence.samples[0].client = None;
    revoked
}

fn value(kind: &str, value: &str, calls: u64, new: bool) -> ValueJson {
    ValueJson { kind: kind.to_owned(), value: value.to_owned(), calls, new }
}

fn sample(source: &str, partition: u32, offset: u64, at: &str, client: &str, status: u16) -> SampleJson {
    SampleJson {
        source: source.to_owned(),
        partition,
        offset,
        index: 0,
        at: at.to_owned(),
        client: Some(client.to_owned()),
        status,
    }
}

/// Returns the traffic of the six hours before a time on the day of the leak, which lasted from 14:00 to 15:30 UTC.
fn traffic(until: &str) -> Vec<PointJson> {
    let until_s = until.parse().map_or(0, Timestamp::as_second).div_euclid(STEP_S) * STEP_S;
    (0..72)
        .map(|step| {
            let start_s = until_s - (71 - step) * STEP_S;
            let minute = start_s.rem_euclid(86_400) / 60;
            let usual = 92 + (minute - 600).abs() / 20 + (minute * 7_919 % 23);
            let calls = match minute {
                840 => 2_730,
                845..930 => 4_100 + minute * 104_729 % 1_300,
                _ => usual + (minute * 104_729 % 31) - 15,
            };
            let start = Timestamp::from_second(start_s).unwrap_or_default().to_string();
            PointJson { start, calls: calls.unsigned_abs(), expected: usual as f64 }
        })
        .collect()
}
