//! The sinks' output, over the in-process broker and in temporary folders. The mock has no policies of topics and
//! no compaction: tests of those need a real Kafka.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use keytide_billing::{
    ChargeItem, Currency, Exact, Forecast, Measure, PeriodKind, PriceModel, QuotaStanding,
};
use keytide_config::{Delivery, FileFormat, FileSink, KafkaSink, Secret, View};
use keytide_dataflow::detect::{Bits, Severity, Signal};
use keytide_dataflow::model::{Country, KeyId, KeyState, NameId, Policy, Position, RequestId, RouteId};
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::Field;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;
use xxhash_rust::xxh3::xxh3_128;

use super::encode::time;
use super::*;
use crate::columnar::ColumnKind;
use crate::kafka::testing::{DEADLINE, MockBroker};
use crate::tables::RowLocation;

const TICK: Tick = 1_700_000_000_123;
const HOUR: u64 = 1_699_999_200_000;
const KEY: KeyId = KeyId(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef);
const FOLDER_ROW_BYTES: u64 = 280;

fn kafka(broker: &MockBroker) -> KafkaSink {
    KafkaSink {
        client: broker.client(),
        prefix: "test".to_owned(),
        delivery: Delivery::AtLeastOnce,
        partitions: 2,
        replication: None,
        create_topics: true,
        buffer_bytes: 64 << 20,
    }
}

fn files(dir: &Path) -> FileSink {
    FileSink { rotate_bytes: 1 << 20, ..FileSink::new(dir) }
}

fn open(kafka: Option<KafkaSink>, files: Option<FileSink>) -> Publisher {
    Publisher::open(&Sinks { kafka, files }, "job", &[], CONFIG, Promise::None, None).unwrap()
}

fn partitions() -> Vec<PartitionInfo> {
    vec![
        PartitionInfo { source: "gateway".to_owned(), source_index: 0, number: 3, path: None },
        PartitionInfo {
            source: "archive".to_owned(),
            source_index: 1,
            number: 0,
            path: Some("logs/\"a\".jsonl".to_owned()),
        },
    ]
}

fn row<G, V>(group: G, value: V) -> Row<G, V> {
    Row { group, level: Level::Hour, start: HOUR, value, complete: true, is_final: false }
}

fn calls(calls: u64) -> OwnedUsage {
    let usage = Usage { calls, errors_4xx: 2, errors_5xx: 3, bytes_in: 4, bytes_out: 5, ..Usage::default() };
    OwnedUsage { usage, owner: Owner::default() }
}

/// A tick with one row of `keys` keys each.
fn tick(tick: Tick, keys: u128) -> TickOutput {
    let rows = (0..keys).map(|key| row(KeyId(KEY.0 + key), calls(tick))).collect();
    TickOutput { tick, rows: vec![Rows::Usage(rows)], ..TickOutput::default() }
}

const CONFIG: &str = "00112233445566778899aabbccddeeff";

/// Decides that nothing is done.
fn nothing(_: TickFacts<'_>) -> ActionRows {
    ActionRows::default()
}

/// Decides to suspend each key.
fn suspend(facts: TickFacts<'_>) -> ActionRows {
    let of = |transition: &Transition| Revocation {
        id: ActionId::new(transition.incident.id, Action::Suspend, 0),
        key_id: facts.names.key_text(transition.incident.key).into_owned(),
        key: transition.incident.key,
        incident: transition.incident.id,
        action: Action::Suspend,
        state: ActionState::Held,
        reason: "would be suspended".to_owned(),
        at_ms: transition.at_ms,
    };
    let mut revocations: Vec<Revocation> = facts.transitions.iter().map(of).collect();
    revocations.sort_unstable_by_key(|action| action.id);
    let denied = |of: &Revocation| DeniedKey {
        key_id: of.key_id.clone(),
        denial: Some((DenialState::Suspended, of.at_ms, of.incident)),
    };
    let audit = |of: &Revocation| AuditEntry {
        target: of.id.to_string(),
        seq: 0,
        at_ms: of.at_ms,
        who: "policy".to_owned(),
        what: "decide",
        from: None,
        to: Some(of.state),
        why: of.reason.clone(),
        gateway: Some("edge".to_owned()),
    };
    let (denied, audit) = (revocations.iter().map(denied).collect(), revocations.iter().map(audit).collect());
    ActionRows { revocations, denied, audit }
}

fn incident(key: KeyId, owner: Owner, route: RouteId) -> Incident {
    let value = |value, calls, is_new| Contributor { value, calls, is_new };
    let volume = Evidence {
        signal: Signal::VolumeMinute,
        window_ms: HOUR,
        width_ms: 60_000,
        first_ms: HOUR,
        last_ms: HOUR + 120_000,
        expected: 12_000,
        seen: 480,
        bits: Bits(38_500),
        weighted: Bits(25_025),
        values: [
            value(EvidenceValue::Route(route), 400, false),
            value(EvidenceValue::Agent(NameId::new("curl/8 \"x\"")), 80, true),
        ]
        .into_iter()
        .collect(),
    };
    let asn = Evidence {
        signal: Signal::Asn,
        expected: 0,
        seen: 470,
        bits: Bits(11_001),
        weighted: Bits(9_900),
        values: [value(EvidenceValue::Asn(64_500), 470, true)].into_iter().collect(),
        ..volume.clone()
    };
    let report = EvidenceValue::Report(NameId::new("scanner"), NameId::new("https://example.com/x"));
    let revoked = Evidence {
        signal: Signal::Revoked,
        values: [value(report, 0, true)].into_iter().collect(),
        ..asn.clone()
    };
    Incident {
        id: IncidentId(0xfeed),
        key,
        owner,
        severity: Severity::Alert,
        score: 97,
        state: IncidentState::Open,
        opened_ms: HOUR,
        last_signal_ms: HOUR + 180_000,
        ended_ms: None,
        signals: vec![volume, asn, revoked],
        traffic: vec![Point { start_ms: HOUR, calls: 480, expected: 60_500 }],
        samples: vec![Sample {
            position: Position { partition: 0, offset: 42, index: 1 },
            time: HOUR + 7,
            client: std::net::Ipv4Addr::new(198, 51, 100, 7).to_ipv6_mapped().to_bits(),
            status: 200,
        }],
        calls: 490,
        known_since_ms: HOUR - 86_400_000,
        taken: Taken {
            from_new: 470,
            usual: 20,
            bytes_out: 1_024,
            statuses: vec![(200, 480), (403, 10)],
            routes: vec![(route, 400), (RouteId::OVERFLOW, 90)],
        },
        usual: vec![UsualValue { value: EvidenceValue::Country(Country::new("KR")), share: 998 }],
        other_keys: vec![OtherKeys {
            network: std::net::Ipv4Addr::new(198, 51, 100, 0).to_ipv6_mapped().to_bits(),
            usual_keys: 3,
            keys: 2,
            customers: 1,
            named: vec![OtherKey { key: KeyId(0x77), customer: NameId::NONE }],
        }],
        earlier: vec![EarlierIncident {
            id: IncidentId(7),
            opened_ms: 1_699_000_000_000,
            ended_ms: 1_699_000_600_000,
            severity: Severity::Alert,
            state: IncidentState::Ended,
        }],
        reopenings: 1,
        known_calls: 5_000,
        platform_event: false,
    }
}

fn transition(incident: Incident) -> Transition {
    Transition {
        incident,
        seq: 0,
        change: Change::Opened,
        at_ms: HOUR + 60_000,
        reason: None,
        early: true,
        is_repeat: false,
        catching_up: false,
        policy: Some(Policy::Suspend),
        key_state: Some(KeyState::Active),
        active_keys: 10,
        contact: NameId::new("ops@acme.example"),
        contacts: NameId::new("boss@acme.example; ops@acme.example"),
        place: Default::default(),
    }
}

/// Views of which a row may be taken back.
const RETRACTABLE: [View; 6] =
    [View::SubscriptionUsage, View::Quota, View::Charges, View::Bills, View::Forecast, View::Denied];

/// 2023-11-01 in Seoul.
const PERIOD: u64 = 1_698_764_400_000;
/// 2023-12-01 in Seoul.
const PERIOD_END: u64 = 1_701_356_400_000;

fn quota_key(measure: Measure) -> QuotaKey {
    QuotaKey { subscription: NameId::new("sub-1"), measure, period: PeriodKind::Billing, start_ms: PERIOD }
}

fn bill_key() -> BillKey {
    BillKey { subscription: NameId::new("sub-1"), start_ms: PERIOD }
}

/// Rows of the accounts of a subscription, one a view. Of its bill two plans have a part.
fn of_accounts() -> Vec<Rows> {
    let currency: Currency = "EUR".parse().unwrap();
    let price = |text: &str| -> Exact { text.parse().unwrap() };
    let key = quota_key(Measure::BytesOut);
    let standing = QuotaStanding {
        limit: 1_000,
        used: 812,
        remaining: 188,
        permille: 812,
        hard: true,
        resets_at_ms: PERIOD_END,
    };
    let forecast =
        Forecast { expected: 1_500, low: 1_400, high: 1_600, runs_out_at_ms: Some(PERIOD + 1_728_000_000) };
    let part = |plan: &str, quantity, unit_price: &str, exact| ChargePart {
        plan: NameId::new(plan),
        tier: 2,
        quantity,
        unit_price: price(unit_price),
        exact,
    };
    let charge = Charge {
        quantity: 72_000,
        measure: Some(Measure::Calls),
        unit: Some(keytide_billing::PriceUnit::ONE),
        model: Some(PriceModel::Graduated),
        parts: vec![
            part("gold", 22_000, "0.001", price("22")),
            part("silver", -5, "0.002", price("0.01").negative()),
        ],
        exact: price("21.99"),
        amount: 2_199,
        currency,
    };
    let bill = BillRow {
        end_ms: PERIOD_END,
        currency: Some(currency),
        total: Some(2_149),
        lines: 1,
        adjustments: -50,
        complete: true,
        is_final: false,
        fault: None,
        customer: NameId::new("acme"),
        plan: NameId::new("gold"),
        time_zone: NameId::new("Asia/Seoul"),
    };
    let expected = ForecastRow { forecast, expected_amount: Some(4_000), currency: Some(currency) };
    let notice = QuotaNotice {
        key,
        seq: 3,
        percent: 80,
        standing,
        at_ms: TICK,
        is_highest: true,
        forecast: Some(forecast),
        currency: None,
        customer: NameId::new("acme"),
        plan: NameId::new("gold"),
        contacts: NameId::new("boss@acme.example; ops@acme.example"),
        time_zone: NameId::new("Asia/Seoul"),
    };
    let item = ChargeItem::Item(NameId::new("requests"));
    let adjustment = Adjustment {
        bill: bill_key(),
        seq: 1,
        item: ChargeItem::BaseFee,
        amount: -5,
        currency,
        due_with_ms: PERIOD_END,
        at_ms: TICK,
    };
    let charge_key = ChargeKey { bill: bill_key(), item };
    vec![
        Rows::Quota(vec![Revision { key, value: Some(standing) }]),
        Rows::Charges(vec![Revision { key: charge_key, value: Some(charge) }]),
        Rows::Bills(vec![Revision { key: bill_key(), value: Some(bill) }]),
        Rows::Forecast(vec![Revision { key, value: Some(expected) }]),
        Rows::Notices(vec![notice]),
        Rows::Adjustments(vec![adjustment]),
    ]
}

/// A tick with a row of every view.
fn everything() -> TickOutput {
    let name = |text: &str| Definition::Name { id: NameId::new(text), text: text.into() };
    let route = RouteId::new("shop", "GET", "/orders/{id}");
    let key = KeyId::from_name("mobile \"app\"");
    let owner = Owner {
        subscription: NameId::new("sub-1"),
        customer: NameId::new("acme"),
        plan: NameId::new("gold"),
    };
    let usage = OwnedUsage { usage: calls(7).usage, owner };
    let info = SubscriptionInfo { customer: owner.customer, plan: owner.plan, plan_name: NameId::NONE };
    let of_subscription = SubscriptionUsage { usage: usage.usage, keys: 2, owner: info };
    let latency = Latency { calls: 1, p50_us: 2, p90_us: 3, p95_us: 4, p99_us: 5, max_us: 6, mean_us: 7 };
    let geo = CountryCalls { calls: 9, errors: 1, asns: [(64_500, 5), (64_501, 4)].into_iter().collect() };
    let mut output = TickOutput {
        tick: TICK,
        watermark: TICK,
        definitions: vec![
            Definition::Key { id: key, name: "mobile \"app\"".into(), month: None },
            Definition::Route {
                id: route,
                day: 0,
                api: "shop".into(),
                method: "GET".into(),
                route: "/orders/{id}".into(),
            },
            Definition::Agent { id: NameId::new("curl/8 \"x\""), day: 0, text: "curl/8 \"x\"".into() },
            name("scanner"),
            name("https://example.com/x"),
            name("ops@acme.example"),
            name("boss@acme.example; ops@acme.example"),
            name("sub-1"),
            name("sub-2"),
            name("acme"),
            name("gold"),
            name("silver"),
            name("requests"),
            name("Asia/Seoul"),
        ],
        rows: vec![
            Rows::Usage(vec![row(key, usage)]),
            Rows::UsageByRoute(vec![row(KeyRoute { key: KEY, route }, calls(1))]),
            Rows::Latency(vec![row(Scope::Route(route), latency)]),
            Rows::Geo(vec![row(KeyCountry { key: KeyId::ANONYMOUS, country: Country::new("de") }, geo)]),
            Rows::Callers(vec![row(Scope::Key(KEY), Callers { callers: 8, exact: false })]),
            Rows::SubscriptionUsage(vec![row(NameId::new("sub-1"), Some(of_subscription))]),
            Rows::Incidents(vec![incident(KEY, owner, route)]),
            Rows::IncidentLog(vec![transition(incident(KEY, owner, route))]),
        ],
        late: vec![Late {
            position: Position { partition: 0, offset: 42, index: 1 },
            key: KEY,
            request: RequestId::from_bits(0xff),
            time: HOUR + 5,
            late_ms: 700_000,
            counted: true,
            proven: true,
        }],
        letters: vec![DeadLetter {
            position: Position { partition: 1, offset: 17, index: 0 },
            events_before: 0,
            reason: "status isn't a number".to_owned(),
            length: 99,
            sha256: [0xab; 32],
            kept: Some(r#"{"method":"GET"}"#.into()),
            counted: false,
        }],
        ..TickOutput::default()
    };
    output.rows.extend(of_accounts());
    output
}

/// Every view's row of [`everything`]: key columns and other columns.
const GOLDEN: [(View, &str, &str); View::ALL.len()] = [
    (
        View::Usage,
        r#"{"key_id":"mobile \"app\"","window":"1h","window_start":"2023-11-14T22:00:00Z""#,
        r#","calls":7,"errors_4xx":2,"errors_5xx":3,"bytes_in":4,"bytes_out":5,"latency_sum_us":0,"latency_calls":0,"free_calls":0,"units":0,"subscription":"sub-1","customer":"acme","plan":"gold","complete":true,"final":false}"#,
    ),
    (
        View::UsageByRoute,
        r#"{"key_id":"0123456789abcdef0123456789abcdef","api":"shop","method":"GET","route":"/orders/{id}","window":"1h","window_start":"2023-11-14T22:00:00Z""#,
        r#","calls":1,"errors_4xx":2,"errors_5xx":3,"bytes_in":4,"bytes_out":5,"latency_sum_us":0,"latency_calls":0,"free_calls":0,"units":0,"subscription":null,"customer":null,"plan":null,"complete":true,"final":false}"#,
    ),
    (
        View::Latency,
        r#"{"scope":"route","id":"shop GET /orders/{id}","window":"1h","window_start":"2023-11-14T22:00:00Z""#,
        r#","calls":1,"p50_us":2,"p90_us":3,"p95_us":4,"p99_us":5,"max_us":6,"mean_us":7,"complete":true,"final":false}"#,
    ),
    (
        View::Geo,
        r#"{"key_id":"anonymous","country":"DE","window":"1h","window_start":"2023-11-14T22:00:00Z""#,
        r#","calls":9,"errors":1,"asns":[{"asn":64500,"calls":5},{"asn":64501,"calls":4}],"complete":true,"final":false}"#,
    ),
    (
        View::Callers,
        r#"{"scope":"key","id":"0123456789abcdef0123456789abcdef","window":"1h","window_start":"2023-11-14T22:00:00Z""#,
        r#","callers":8,"exact":false,"complete":true,"final":false}"#,
    ),
    (
        View::SubscriptionUsage,
        r#"{"subscription":"sub-1","window":"1h","window_start":"2023-11-14T22:00:00Z""#,
        r#","calls":7,"errors_4xx":2,"errors_5xx":3,"bytes_in":4,"bytes_out":5,"latency_sum_us":0,"latency_calls":0,"free_calls":0,"units":0,"keys":2,"customer":"acme","plan":"gold","plan_name":null,"complete":true,"final":false}"#,
    ),
    (
        View::Quota,
        r#"{"subscription":"sub-1","metric":"bytes_out","period":"billing","period_start":"2023-10-31T15:00:00Z""#,
        r#","limit":1000,"used":812,"remaining":188,"permille":812,"hard":true,"resets_at":"2023-11-30T15:00:00Z"}"#,
    ),
    (
        View::Charges,
        r#"{"subscription":"sub-1","period_start":"2023-10-31T15:00:00Z","item":"requests""#,
        r#","metric":"calls","unit":1,"model":"graduated","quantity":72000,"tiers":[{"plan":"gold","tier":2,"quantity":22000,"unit_price":"0.001","exact":"22"},{"plan":"silver","tier":2,"quantity":-5,"unit_price":"0.002","exact":"-0.01"}],"exact":"21.99","amount":"21.99","currency":"EUR"}"#,
    ),
    (
        View::Bills,
        r#"{"subscription":"sub-1","period_start":"2023-10-31T15:00:00Z""#,
        r#","period_end":"2023-11-30T15:00:00Z","total":"21.49","currency":"EUR","lines":1,"adjustments":"-0.50","complete":true,"final":false,"fault":null,"customer":"acme","plan":"gold","time_zone":"Asia/Seoul"}"#,
    ),
    (
        View::Forecast,
        r#"{"subscription":"sub-1","metric":"bytes_out","period":"billing","period_start":"2023-10-31T15:00:00Z""#,
        r#","expected":1500,"low":1400,"high":1600,"runs_out_at":"2023-11-20T15:00:00Z","expected_amount":"40.00","currency":"EUR"}"#,
    ),
    (
        View::Notices,
        r#"{"subscription":"sub-1","seq":3"#,
        r#","metric":"bytes_out","period":"billing","period_start":"2023-10-31T15:00:00Z","percent":80,"limit":1000,"used":812,"remaining":188,"permille":812,"hard":true,"resets_at":"2023-11-30T15:00:00Z","at":"2023-11-14T22:13:20.123Z","highest":true,"expected":1500,"low":1400,"high":1600,"runs_out_at":"2023-11-20T15:00:00Z","currency":null,"customer":"acme","plan":"gold","time_zone":"Asia/Seoul"}"#,
    ),
    (
        View::Adjustments,
        r#"{"subscription":"sub-1","seq":1"#,
        r#","period_start":"2023-10-31T15:00:00Z","item":":base_fee","amount":"-0.05","currency":"EUR","due_with":"2023-11-30T15:00:00Z","at":"2023-11-14T22:13:20.123Z"}"#,
    ),
    (
        View::Incidents,
        r#"{"incident_id":"0000000000000000000000000000feed""#,
        r#","key_id":"0123456789abcdef0123456789abcdef","subscription":"sub-1","customer":"acme","plan":"gold","level":"alert","score":97,"state":"open","opened_at":"2023-11-14T22:00:00Z","last_signal_at":"2023-11-14T22:03:00Z","ended_at":null,"signals":[{"signal":"volume_1m","family":"volume","window_start":"2023-11-14T22:00:00Z","window_s":60,"first_at":"2023-11-14T22:00:00Z","last_at":"2023-11-14T22:02:00Z","expected":12.000,"seen":480,"ratio":40.000,"bits":38.500,"weighted_bits":25.025,"values":[{"kind":"route","value":"shop GET /orders/{id}","calls":400,"new":false},{"kind":"user_agent","value":"curl/8 \"x\"","calls":80,"new":true}]},{"signal":"asn","family":"origin","window_start":"2023-11-14T22:00:00Z","window_s":60,"first_at":"2023-11-14T22:00:00Z","last_at":"2023-11-14T22:02:00Z","expected":0.000,"seen":470,"ratio":null,"bits":11.001,"weighted_bits":9.900,"values":[{"kind":"asn","value":"AS64500","calls":470,"new":true}]},{"signal":"revoked","family":"hard","window_start":"2023-11-14T22:00:00Z","window_s":60,"first_at":"2023-11-14T22:00:00Z","last_at":"2023-11-14T22:02:00Z","expected":null,"seen":470,"ratio":null,"bits":11.001,"weighted_bits":9.900,"values":[{"kind":"report","value":"scanner https://example.com/x","calls":0,"new":true}]}],"evidence":{"calls":490,"known_since":"2023-11-13T22:00:00Z","known_calls":5000,"traffic":[{"start":"2023-11-14T22:00:00Z","calls":480,"expected":60.500}],"samples":[{"source":"gateway","partition":3,"offset":42,"index":1,"at":"2023-11-14T22:00:00.007Z","client":"198.51.100.7","status":200}],"taken":{"from_new":470,"usual":20,"bytes_out":1024,"routes":2,"methods":[{"value":"GET","calls":400},{"value":"-","calls":90}],"statuses":[{"value":"200","calls":480},{"value":"403","calls":10}],"top_routes":[{"value":"shop GET /orders/{id}","calls":400},{"value":"overflow","calls":90}]},"usual":[{"kind":"country","value":"KR","share":0.998}],"other_keys":[{"network":"198.51.100.0/24","usual_keys":3,"keys":2,"customers":1,"named":[{"key_id":"00000000000000000000000000000077","customer":null}]}],"earlier":[{"incident_id":"00000000000000000000000000000007","opened_at":"2023-11-03T08:26:40Z","ended_at":"2023-11-03T08:36:40Z","level":"alert","state":"ended"}],"config":"0011223344556677"},"reopenings":1,"platform_event":false,"detector_version":6}"#,
    ),
    (
        View::IncidentLog,
        r#"{"incident_id":"0000000000000000000000000000feed","seq":0"#,
        r#","transition":"opened","at":"2023-11-14T22:01:00Z","reason":null,"early":true,"repeat":false,"catching_up":false,"key_id":"0123456789abcdef0123456789abcdef","subscription":"sub-1","customer":"acme","plan":"gold","policy":"suspend","key_state":"active","level":"alert","score":97,"state":"open","opened_at":"2023-11-14T22:00:00Z","last_signal_at":"2023-11-14T22:03:00Z","ended_at":null,"signals":[{"signal":"volume_1m","family":"volume","window_start":"2023-11-14T22:00:00Z","window_s":60,"first_at":"2023-11-14T22:00:00Z","last_at":"2023-11-14T22:02:00Z","expected":12.000,"seen":480,"ratio":40.000,"bits":38.500,"weighted_bits":25.025,"values":[{"kind":"route","value":"shop GET /orders/{id}","calls":400,"new":false},{"kind":"user_agent","value":"curl/8 \"x\"","calls":80,"new":true}]},{"signal":"asn","family":"origin","window_start":"2023-11-14T22:00:00Z","window_s":60,"first_at":"2023-11-14T22:00:00Z","last_at":"2023-11-14T22:02:00Z","expected":0.000,"seen":470,"ratio":null,"bits":11.001,"weighted_bits":9.900,"values":[{"kind":"asn","value":"AS64500","calls":470,"new":true}]},{"signal":"revoked","family":"hard","window_start":"2023-11-14T22:00:00Z","window_s":60,"first_at":"2023-11-14T22:00:00Z","last_at":"2023-11-14T22:02:00Z","expected":null,"seen":470,"ratio":null,"bits":11.001,"weighted_bits":9.900,"values":[{"kind":"report","value":"scanner https://example.com/x","calls":0,"new":true}]}],"evidence":{"calls":490,"known_since":"2023-11-13T22:00:00Z","known_calls":5000,"traffic":[{"start":"2023-11-14T22:00:00Z","calls":480,"expected":60.500}],"samples":[{"source":"gateway","partition":3,"offset":42,"index":1,"at":"2023-11-14T22:00:00.007Z","client":"198.51.100.7","status":200}],"taken":{"from_new":470,"usual":20,"bytes_out":1024,"routes":2,"methods":[{"value":"GET","calls":400},{"value":"-","calls":90}],"statuses":[{"value":"200","calls":480},{"value":"403","calls":10}],"top_routes":[{"value":"shop GET /orders/{id}","calls":400},{"value":"overflow","calls":90}]},"usual":[{"kind":"country","value":"KR","share":0.998}],"other_keys":[{"network":"198.51.100.0/24","usual_keys":3,"keys":2,"customers":1,"named":[{"key_id":"00000000000000000000000000000077","customer":null}]}],"earlier":[{"incident_id":"00000000000000000000000000000007","opened_at":"2023-11-03T08:26:40Z","ended_at":"2023-11-03T08:36:40Z","level":"alert","state":"ended"}],"config":"0011223344556677"},"reopenings":1,"platform_event":false,"detector_version":6}"#,
    ),
    (
        View::Revocations,
        r#"{"action_id":"c8523d31d065da9b90f389f851c3b8c1""#,
        r#","key_id":"0123456789abcdef0123456789abcdef","incident_id":"0000000000000000000000000000feed","action":"suspend","state":"held","reason":"would be suspended","at":"2023-11-14T22:01:00Z"}"#,
    ),
    (
        View::Denied,
        r#"{"key_id":"0123456789abcdef0123456789abcdef""#,
        r#","state":"suspended","since":"2023-11-14T22:01:00Z","incident":"0000000000000000000000000000feed"}"#,
    ),
    (
        View::Audit,
        r#"{"target":"c8523d31d065da9b90f389f851c3b8c1","seq":0"#,
        r#","at":"2023-11-14T22:01:00Z","who":"policy","what":"decide","from":null,"to":"held","why":"would be suspended","gateway":"edge"}"#,
    ),
    (
        View::Late,
        r#"{"source":"gateway","partition":3,"offset":42,"index":1"#,
        r#","key_id":"0123456789abcdef0123456789abcdef","request_id_hash":"000000000000000000000000000000ff","event_time":"2023-11-14T22:00:00.005Z","lateness_ms":700000,"counted":true,"path":null,"proven":true}"#,
    ),
    (
        View::DeadLetters,
        r#"{"source":"archive","partition":0,"offset":17,"index":0"#,
        r#","reason":"status isn't a number","length":99,"sha256":"abababababababababababababababababababababababababababababababab","kept":{"method":"GET"},"path":"logs/\"a\".jsonl","counted":false}"#,
    ),
];

/// A record as a consumer sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Got {
    partition: i32,
    key: String,
    value: Option<String>,
    time: Option<i64>,
    headers: BTreeMap<String, String>,
}

/// Reads a view's topic until it gave `count` records, and makes sure that no more is there.
fn consume(broker: &MockBroker, view: View, count: usize) -> Vec<Got> {
    let topic = view.topic("test");
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker.client().brokers)
        .set("group.id", "none")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let metadata = consumer.fetch_metadata(Some(&topic), DEADLINE).unwrap();
    let partitions: Vec<i32> =
        metadata.topics()[0].partitions().iter().map(|partition| partition.id()).collect();
    let mut assignment = TopicPartitionList::new();
    for partition in &partitions {
        assignment.add_partition_offset(&topic, *partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&assignment).unwrap();
    let (mut got, mut ended) = (Vec::new(), BTreeSet::new());
    let started = Instant::now();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    while got.len() < count || ended.len() < partitions.len() {
        assert!(started.elapsed() < DEADLINE, "{} of {count} records of {topic}", got.len());
        match consumer.poll(std::time::Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let headers = message.headers().unwrap().iter();
                let headers = headers.map(|header| (header.key.to_owned(), text(header.value.unwrap())));
                got.push(Got {
                    partition: message.partition(),
                    key: text(message.key().unwrap()),
                    value: message.payload().map(text),
                    time: message.timestamp().to_millis(),
                    headers: headers.collect(),
                });
            }
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(partition))) => {
                ended.insert(partition);
            }
            Some(Err(error)) => panic!("{error}"),
            None => {}
        }
    }
    assert_eq!(got.len(), count);
    got
}

pub(super) fn lines(dir: &Path, name: &str) -> Vec<String> {
    let text = String::from_utf8(read(&dir.join(name))).unwrap();
    text.lines().map(str::to_owned).collect()
}

pub(super) fn read(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut fs::File::open(path).unwrap(), &mut bytes).unwrap();
    bytes
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    // The statements for databases are in every folder.
    for statements in [sql::DUCKDB, sql::POSTGRESQL] {
        names.remove(names.binary_search(&statements.to_owned()).unwrap());
    }
    names
}

/// Returns the rows of a Parquet file as the objects that they were made of.
pub(super) fn parquet_rows(path: &Path) -> Vec<Value> {
    let reader = SerializedFileReader::new(fs::File::open(path).unwrap()).unwrap();
    let name = path.file_name().unwrap().to_str().unwrap();
    let view = View::named(name.rsplit_once('-').unwrap().0).unwrap();
    let columns = &columns::columns(view).live;
    let row = |row: parquet::record::Row| {
        let fields = row.into_columns().into_iter().zip(columns).map(|((name, field), column)| {
            assert_eq!(name, column.name);
            let value = match (column.kind, field) {
                (_, Field::Null) => Value::Null,
                (ColumnKind::Text, Field::Str(text)) => Value::String(text),
                (ColumnKind::Json, Field::Str(json)) => serde_json::from_str(&json).unwrap(),
                (ColumnKind::Integer, Field::Long(number)) => number.into(),
                (ColumnKind::Boolean, Field::Bool(value)) => value.into(),
                (ColumnKind::Time, Field::TimestampMillis(ms)) => time(u64::try_from(ms).unwrap()).into(),
                (kind, field) => panic!("{name} is {kind:?} and has {field:?}"),
            };
            (name, value)
        });
        Value::Object(fields.collect())
    };
    reader.get_row_iter(None).unwrap().map(|read| row(read.unwrap())).collect()
}

/// Returns rows of JSON lines with null for each column of live files that they lack.
pub(super) fn json_rows(view: View, lines: &[String]) -> Vec<Value> {
    let row = |line: &String| {
        let mut row: Value = serde_json::from_str(line).unwrap();
        for column in &columns::columns(view).live {
            row.as_object_mut().unwrap().entry(column.name.clone()).or_insert(Value::Null);
        }
        row
    };
    lines.iter().map(row).collect()
}

#[test]
fn the_golden_rows_have_the_columns_of_their_schemas() {
    assert_eq!(GOLDEN.map(|(view, ..)| view), View::ALL);
    for (view, key, rest) in GOLDEN {
        let name = view.name();
        let path = format!("{}/../schemas/{name}.v1.schema.json", env!("CARGO_MANIFEST_DIR"));
        let schema: Value = serde_json::from_slice(&read(Path::new(&path))).unwrap();
        assert_eq!(schema["title"], format!("{name}.v1"));
        let listed = |of: &str| -> Vec<&str> {
            schema[of].as_array().unwrap().iter().map(|column| column.as_str().unwrap()).collect()
        };
        let columns = |text: &str| -> BTreeSet<String> {
            let object: Value = serde_json::from_str(text).unwrap();
            object.as_object().unwrap().keys().cloned().collect()
        };
        let set = |columns: &[&str]| -> BTreeSet<String> {
            columns.iter().map(|column| (*column).to_owned()).collect()
        };
        assert_eq!(view.key(), listed("x-key"), "{name}");
        assert_eq!(columns(&format!("{key}}}")), set(view.key()), "{name}");
        assert_eq!(columns(&format!("{key}{rest}")), set(&listed("required")), "{name}");
        let mut described: BTreeSet<String> =
            schema["properties"].as_object().unwrap().keys().cloned().collect();
        for of_files in ["tick", "version"] {
            assert!(described.remove(of_files), "{name} describes the column {of_files} of files");
        }
        let is_retracted = described.remove("retracted");
        assert_eq!(is_retracted, RETRACTABLE.contains(&view), "{name}");
        assert_eq!(described, set(&listed("required")), "{name}");
    }
}

#[test]
fn every_view_is_published_as_golden_records_and_lines() {
    let broker = MockBroker::new();
    let folder = tempfile::tempdir().unwrap();
    let mut publisher = open(Some(kafka(&broker)), Some(files(folder.path())));
    assert_eq!(publisher.published(), 0);
    let TickAlerts { incidents: notices, quotas } =
        publisher.publish(TICK, vec![everything()], &partitions(), &mut suspend).unwrap();
    publisher.flush(DEADLINE).unwrap();
    assert_eq!(publisher.published(), TICK);
    assert_eq!(publisher.monitor().stats().records, [1; View::ALL.len()]);
    let log = GOLDEN.iter().find(|(view, ..)| *view == View::IncidentLog).unwrap();
    assert_eq!(notices.len(), 1);
    assert_eq!(notices[0].json, format!("{}{}", log.1, log.2).into_bytes());
    assert_eq!(notices[0].contacts, ["ops@acme.example", "boss@acme.example"]);
    assert_eq!(notices[0].actions.len(), 1);
    let row = GOLDEN.iter().find(|(view, ..)| *view == View::Notices).unwrap();
    let contacts = vec!["boss@acme.example".to_owned(), "ops@acme.example".to_owned()];
    assert_eq!(quotas, [QuotaAlert { json: format!("{}{}", row.1, row.2), contacts }]);
    for (view, key, rest) in GOLDEN {
        let value = format!("{key}{rest}");
        let file = format!("{}-000001.jsonl", view.name());
        let in_file = format!("{},\"tick\":{TICK},\"version\":1}}", value.strip_suffix('}').unwrap());
        assert_eq!(lines(folder.path(), &file), [in_file], "{file}");

        let got = consume(&broker, view, 1).remove(0);
        let key = format!("{key}}}");
        assert_eq!((&got.key, got.value.as_ref()), (&key, Some(&value)));
        assert_eq!(got.time, i64::try_from(TICK).ok());
        assert_eq!(got.headers["keytide-tick"], TICK.to_string());
        // As the module says, from scratch.
        let mut identity = format!("test.{}.v1\0", view.name()).into_bytes();
        identity.extend(TICK.to_be_bytes());
        identity.extend((key.len() as u64).to_be_bytes());
        identity.extend(key.bytes().chain(value.bytes()));
        assert_eq!(got.headers["keytide-id"], format!("{:032x}", xxh3_128(&identity)));
        assert_eq!(got.headers.len(), if view == View::DeadLetters { 11 } else { 2 });
    }
    let dead = consume(&broker, View::DeadLetters, 1).remove(0);
    for (name, value) in [
        ("topic", "archive"),
        ("partition", "0"),
        ("offset", "17"),
        ("connector.name", "job"),
        ("task.id", "0"),
        ("stage", "VALUE_CONVERTER"),
        ("class.name", "keytide.Decoder"),
        ("exception.class.name", "keytide.DeadLetter"),
        ("exception.message", "status isn't a number"),
    ] {
        assert_eq!(dead.headers[&format!("__connect.errors.{name}")], value, "{name}");
    }
}

#[test]
fn headers_of_dead_letters_are_bounded_and_cut_between_characters() {
    let broker = MockBroker::new();
    let mut publisher = open(Some(kafka(&broker)), None);
    let letter = TableDeadLetter {
        table: "keys".into(),
        location: RowLocation::Topic { topic: "keys".into(), partition: 2, offset: 5 },
        reason: "ä".repeat(2_000),
        length: 1,
        sha256: [0; 32],
    };
    let output = TickOutput { tick: 1, table_letters: vec![letter], ..TickOutput::default() };
    publisher.publish(1, vec![output], &[], &mut nothing).unwrap();
    publisher.flush(DEADLINE).unwrap();
    let got = consume(&broker, View::DeadLetters, 1).remove(0);
    assert_eq!(got.headers["__connect.errors.exception.message"], "ä".repeat(512));
    assert_eq!(got.headers["__connect.errors.topic"], "tables.keys");
    assert!(got.key.starts_with(r#"{"source":"tables.keys","partition":2,"offset":5,"#), "{}", got.key);
}

#[test]
fn transitions_are_published_and_decided_on_in_the_order_of_their_times_whoever_made_them() {
    let of = |id, seq, at_ms| {
        let of_id = Incident { id: IncidentId(id), ..incident(KEY, Owner::default(), RouteId::OVERFLOW) };
        Transition { seq, at_ms, ..transition(of_id) }
    };
    let output = |rows| TickOutput { tick: 1, rows: vec![Rows::IncidentLog(rows)], ..TickOutput::default() };
    let folder = tempfile::tempdir().unwrap();
    let mut publisher = open(None, Some(files(folder.path())));
    let mut decided = Vec::new();
    let outputs = vec![output(vec![of(9, 1, 5), of(2, 0, 7)]), output(vec![of(1, 0, 7), of(9, 0, 5)])];
    let mut decide = |facts: TickFacts<'_>| {
        decided.extend(facts.transitions.iter().map(Transition::order));
        suspend(TickFacts { transitions: &facts.transitions[..1], ..facts })
    };
    let notices = publisher.publish(1, outputs, &partitions(), &mut decide).unwrap().incidents;
    let expected =
        [(5, 9, 0), (5, 9, 1), (7, 1, 0), (7, 2, 0)].map(|(at, id, seq)| (at, IncidentId(id), seq));
    assert_eq!(decided, expected);
    let written = lines(folder.path(), "incident_log-000001.jsonl");
    let told: Vec<String> = notices
        .iter()
        .zip(1..)
        .map(|(notice, version)| {
            let row = String::from_utf8(notice.json.clone()).unwrap();
            format!("{},\"tick\":1,\"version\":{version}}}", row.strip_suffix('}').unwrap())
        })
        .collect();
    assert_eq!(written, told);
    for (line, (_, id, seq)) in written.iter().zip(expected) {
        assert!(line.starts_with(&format!(r#"{{"incident_id":"{id}","seq":{seq},"#)), "{line}");
    }
    let actions: Vec<usize> = notices.iter().map(|notice| notice.actions.len()).collect();
    assert_eq!(actions, [0, 1, 0, 0], "what is done goes with the last that is known of the incident");
    // `decide` is called in every tick, for what people and gateways say.
    let mut said = Vec::new();
    let mut never = |facts: TickFacts<'_>| {
        assert!(facts.transitions.is_empty(), "nothing happened");
        said.extend(facts.inputs.iter().cloned());
        let lifted = DeniedKey { key_id: "0123456789abcdef0123456789abcdef".to_owned(), denial: None };
        ActionRows { denied: vec![lifted], ..ActionRows::default() }
    };
    let (action, gateway) = (ActionId(7), "edge".to_owned());
    let report =
        ActionInput::Report(GatewayReport { action, gateway, outcome: GatewayOutcome::Done, at_ms: 2 });
    let output = TickOutput { inputs: vec![report.clone()], ..tick(2, 1) };
    assert_eq!(publisher.publish(2, vec![output], &partitions(), &mut never).unwrap(), TickAlerts::default());
    assert_eq!(said, [report]);
    assert_eq!(
        lines(folder.path(), "denied-000001.jsonl").last().unwrap(),
        r#"{"key_id":"0123456789abcdef0123456789abcdef","retracted":true,"tick":2,"version":2}"#
    );
}

#[test]
fn a_retracted_row_is_null_on_its_topic_and_says_so_in_its_file() {
    let broker = MockBroker::new();
    let folder = tempfile::tempdir().unwrap();
    let mut publisher = open(Some(kafka(&broker)), Some(files(folder.path())));
    publisher.publish(TICK, vec![everything()], &partitions(), &mut nothing).unwrap();
    let rows = Rows::SubscriptionUsage(vec![row(NameId::new("sub-1"), None)]);
    let output = TickOutput { tick: TICK + 1, rows: vec![rows], ..TickOutput::default() };
    publisher.publish(TICK + 1, vec![output], &[], &mut nothing).unwrap();
    publisher.flush(DEADLINE).unwrap();
    let got = consume(&broker, View::SubscriptionUsage, 2);
    assert_eq!(got[0].key, got[1].key);
    assert_eq!(got[0].partition, got[1].partition);
    assert!(got[0].value.is_some());
    assert_eq!(got[1].value, None);
    assert_ne!(got[0].headers["keytide-id"], got[1].headers["keytide-id"]);
    assert_eq!(
        lines(folder.path(), "subscription_usage-000001.jsonl")[1],
        format!(
            r#"{{"subscription":"sub-1","window":"1h","window_start":"2023-11-14T22:00:00Z","retracted":true,"tick":{},"version":2}}"#,
            TICK + 1
        )
    );
}

#[test]
fn rows_of_accounts_that_are_taken_back_are_null_whatever_view_they_are_of() {
    let broker = MockBroker::new();
    let folder = tempfile::tempdir().unwrap();
    let mut publisher = open(Some(kafka(&broker)), Some(files(folder.path())));
    publisher.publish(TICK, vec![everything()], &partitions(), &mut nothing).unwrap();
    let key = quota_key(Measure::BytesOut);
    let item = ChargeItem::Item(NameId::new("requests"));
    let rows = vec![
        Rows::Quota(vec![Revision { key, value: None }]),
        Rows::Charges(vec![Revision { key: ChargeKey { bill: bill_key(), item }, value: None }]),
        Rows::Bills(vec![Revision { key: bill_key(), value: None }]),
        Rows::Forecast(vec![Revision { key, value: None }]),
    ];
    let output = TickOutput { tick: TICK + 1, rows, ..TickOutput::default() };
    publisher.publish(TICK + 1, vec![output], &[], &mut nothing).unwrap();
    publisher.flush(DEADLINE).unwrap();
    for view in [View::Quota, View::Charges, View::Bills, View::Forecast] {
        let got = consume(&broker, view, 2);
        assert_eq!((&got[0].key, got[0].partition), (&got[1].key, got[1].partition));
        assert!(got[0].value.is_some() && got[1].value.is_none(), "{got:?}");
        let (_, key, _) = GOLDEN.iter().find(|(of, ..)| *of == view).unwrap();
        let line = format!(r#"{key},"retracted":true,"tick":{},"version":2}}"#, TICK + 1);
        assert_eq!(lines(folder.path(), &format!("{}-000001.jsonl", view.name()))[1], line);
    }
}

#[test]
fn rows_of_accounts_are_in_the_order_of_their_keys_whoever_made_them() {
    let (mut notices, mut adjustments) = (Vec::new(), Vec::new());
    for rows in of_accounts() {
        match rows {
            Rows::Notices(rows) => notices = rows,
            Rows::Adjustments(rows) => adjustments = rows,
            _ => {}
        }
    }
    let bill = |start_ms| Revision { key: BillKey { start_ms, ..bill_key() }, value: None::<BillRow> };
    let output = |numbers: &[u64]| {
        let rows = vec![
            Rows::Bills(numbers.iter().map(|number| bill(*number)).collect()),
            Rows::Notices(
                numbers
                    .iter()
                    .map(|seq| QuotaNotice { seq: *seq, is_highest: seq % 2 == 1, ..notices[0] })
                    .collect(),
            ),
            Rows::Adjustments(numbers.iter().map(|seq| Adjustment { seq: *seq, ..adjustments[0] }).collect()),
        ];
        TickOutput { tick: 1, rows, ..TickOutput::default() }
    };
    let write = |outputs: Vec<TickOutput>| {
        let folder = tempfile::tempdir().unwrap();
        let mut publisher = open(None, Some(files(folder.path())));
        let alerts = publisher.publish(1, outputs, &[], &mut nothing).unwrap();
        let written = ["bills", "notices", "adjustments"]
            .map(|view| lines(folder.path(), &format!("{view}-000001.jsonl")));
        (written, alerts.quotas)
    };
    let seq = |json: &str| serde_json::from_str::<Value>(json).unwrap()["seq"].as_u64().unwrap();
    let written = write(vec![output(&[2, 11, 3]), output(&[1]), output(&[4])]);
    assert_eq!(written, write(vec![output(&[1, 2, 3, 4, 11])]));
    assert_eq!(written.0[1].iter().map(|line| seq(line)).collect::<Vec<_>>(), [1, 2, 3, 4, 11]);
    // People are told of the highest threshold alone, in the order of the rows.
    assert_eq!(written.1.iter().map(|alert| seq(&alert.json)).collect::<Vec<_>>(), [1, 3, 11]);
    assert!(written.1.iter().all(|alert| alert.contacts.is_empty()), "no string of theirs is defined");
}

#[test]
fn the_number_of_workers_changes_no_byte_of_a_file() {
    let write = |outputs: Vec<TickOutput>| {
        let folder = tempfile::tempdir().unwrap();
        open(None, Some(files(folder.path()))).publish(1, outputs, &partitions(), &mut nothing).unwrap();
        read(&folder.path().join("usage-000001.jsonl"))
    };
    let rows = |keys: &[u128]| {
        let rows = keys.iter().map(|key| row(KeyId(*key), calls(1))).collect();
        TickOutput { tick: 1, rows: vec![Rows::Usage(rows)], ..TickOutput::default() }
    };
    assert_eq!(write(vec![rows(&[7, 5, 6, 8])]), write(vec![rows(&[8, 5]), rows(&[7]), rows(&[6])]));
}

#[test]
fn a_string_is_forgotten_after_the_last_row_that_needs_it() {
    let folder = tempfile::tempdir().unwrap();
    let (key, route) = (KeyId::from_name("acme"), RouteId::new("", "GET", "/a"));
    let output = |tick| {
        let rows = vec![
            row(KeyRoute { key, route }, calls(tick)),
            row(KeyRoute { key, route: RouteId::OVERFLOW }, calls(1)),
        ];
        TickOutput { tick, rows: vec![Rows::UsageByRoute(rows)], ..TickOutput::default() }
    };
    let mut first = output(1);
    first.definitions = vec![
        Definition::Key { id: key, name: "acme".into(), month: None },
        Definition::Route { id: route, day: 0, api: "".into(), method: "GET".into(), route: "/a".into() },
    ];
    first.forgotten = vec![Forgotten::Key(key), Forgotten::Route(route)];
    let mut publisher = open(None, Some(files(folder.path())));
    publisher.publish(1, vec![first], &partitions(), &mut nothing).unwrap();
    publisher.publish(2, vec![output(2)], &partitions(), &mut nothing).unwrap();
    let lines = String::from_utf8(read(&folder.path().join("usage_by_route-000001.jsonl"))).unwrap();
    let starts = [
        r#"{"key_id":"acme","api":"","method":"-","route":"overflow","#,
        r#"{"key_id":"acme","api":"","method":"GET","route":"/a","#,
        &format!(r#"{{"key_id":"{key}","api":"","method":"-","route":"overflow","#),
        &format!(r#"{{"key_id":"{key}","api":"","method":"","route":"","#),
    ];
    assert_eq!(lines.lines().count(), starts.len());
    for start in starts {
        assert!(lines.contains(start), "{start} in {lines}");
    }
}

#[test]
fn all_records_of_all_ticks_arrive_once_although_the_broker_was_away() {
    const KEYS: u128 = 50;
    const TICKS: u64 = 20;
    let broker = MockBroker::new();
    let mut publisher = open(Some(kafka(&broker)), None);
    for number in 1..=TICKS {
        if number == TICKS / 2 {
            publisher.flush(DEADLINE).unwrap();
            assert_eq!(publisher.published(), number - 1);
            broker.down();
        }
        publisher.publish(number, vec![tick(number, KEYS)], &[], &mut nothing).unwrap();
    }
    let error = publisher.flush(std::time::Duration::ZERO).unwrap_err();
    assert!(matches!(error, SinkError::Unacknowledged { records: 550, .. }), "{error}");
    assert_eq!(error.class(), ErrorClass::Transient);
    assert_eq!(publisher.published(), TICKS / 2 - 1);
    broker.up();
    publisher.flush(DEADLINE).unwrap();
    assert_eq!(publisher.published(), TICKS);
    let stats = publisher.monitor().stats();
    assert_eq!((stats.queued_records, stats.queued_bytes, stats.rejected), (0, 0, 0));

    let mut ticks: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for got in consume(&broker, View::Usage, 1_000) {
        ticks.entry(got.key).or_default().push(got.time.unwrap());
    }
    assert_eq!(ticks.len(), 50);
    let all: Vec<i64> = (1..=20).collect();
    assert!(ticks.values().all(|ticks| *ticks == all), "once each, in order, per key");
}

#[test]
fn a_full_buffer_makes_the_publisher_wait_and_drops_nothing() {
    const BUFFER: usize = 8 << 10;
    let broker = MockBroker::new();
    let mut publisher = open(Some(KafkaSink { buffer_bytes: BUFFER, ..kafka(&broker) }), None);
    let monitor = publisher.monitor();
    broker.down();
    let (begin, begun) = mpsc::channel();
    let thread = thread::spawn(move || {
        begin.send(()).unwrap();
        publisher.publish(1, vec![tick(1, 500)], &[], &mut nothing).unwrap();
        publisher.flush(DEADLINE).unwrap();
        publisher.published()
    });
    begun.recv().unwrap();
    // So full that the next record doesn't fit.
    let started = Instant::now();
    while monitor.stats().queued_bytes < (BUFFER - 1_100) as u64 {
        assert!(started.elapsed() < DEADLINE, "{:?}", monitor.stats());
        thread::yield_now();
    }
    let stats = monitor.stats();
    assert!(stats.queued_bytes <= BUFFER as u64, "{stats:?}");
    assert!(stats.records[0] < 20, "{stats:?}");
    assert!(!thread.is_finished());
    assert_eq!(monitor.published(), 0);
    broker.up();
    assert_eq!(thread.join().unwrap(), 1);
    assert_eq!(monitor.published(), 1);
    consume(&broker, View::Usage, 500);
}

#[test]
fn a_publisher_that_waits_for_kafka_can_be_stopped() {
    let broker = MockBroker::new();
    let mut publisher = open(Some(KafkaSink { buffer_bytes: 1, ..kafka(&broker) }), None);
    let monitor = publisher.monitor();
    broker.down();
    let thread = thread::spawn(move || publisher.publish(1, vec![tick(1, 2)], &[], &mut nothing));
    monitor.stop();
    assert!(matches!(thread.join().unwrap(), Err(SinkError::Stopped)));
    assert_eq!(monitor.published(), 0);
}

#[test]
fn a_record_that_is_too_large_is_given_up_and_the_others_go_on() {
    let broker = MockBroker::new();
    let mut publisher = open(Some(kafka(&broker)), None);
    let mut output = tick(1, 1);
    output.definitions.push(Definition::Key { id: KeyId(9), name: "k".repeat(2 << 20).into(), month: None });
    output.rows.push(Rows::Usage(vec![row(KeyId(9), calls(1))]));
    publisher.publish(1, vec![output], &[], &mut nothing).unwrap();
    publisher.flush(DEADLINE).unwrap();
    assert_eq!(publisher.published(), 1);
    assert_eq!((publisher.monitor().stats().rejected, publisher.monitor().stats().errors), (1, 1));
    consume(&broker, View::Usage, 1);
}

#[test]
fn a_record_that_is_refused_for_good_ends_the_publisher_and_its_tick_is_not_published() {
    let broker = MockBroker::new();
    let mut sink = kafka(&broker);
    // How long a topic that the brokers don't know is hoped for.
    sink.client.settings.insert("topic.metadata.propagation.max.ms".to_owned(), Secret::new("0"));
    let mut publisher = open(Some(sink), None);
    publisher.publish(1, vec![TickOutput { tick: 1, ..TickOutput::default() }], &[], &mut nothing).unwrap();
    assert_eq!(publisher.published(), 1);
    broker.forget("test.usage.v1");
    publisher.publish(2, vec![tick(2, 1)], &[], &mut nothing).unwrap();
    let error = publisher.flush(DEADLINE).unwrap_err();
    assert!(matches!(&error, SinkError::Refused { topic, .. } if topic == "test.usage.v1"), "{error}");
    assert_eq!(publisher.published(), 1);
    assert!(publisher.publish(3, vec![tick(3, 1)], &[], &mut nothing).is_err());
}

#[test]
fn a_publisher_waits_for_its_producers_id_until_the_brokers_gave_it() {
    let broker = MockBroker::new();
    let mut publisher = open(Some(kafka(&broker)), None);
    // A tick without rows needs no id, and is published without one.
    publisher.publish(1, vec![TickOutput { tick: 1, ..TickOutput::default() }], &[], &mut nothing).unwrap();
    assert_eq!(publisher.published(), 1);
    let (monitor, started) = (publisher.monitor(), Instant::now());
    while monitor.waits_for_id() {
        assert!(started.elapsed() < DEADLINE, "it never had an id");
        thread::yield_now();
    }
    let folder = tempfile::tempdir().unwrap();
    assert!(!open(None, Some(files(folder.path()))).monitor().waits_for_id(), "files need none");
}

#[test]
fn a_producer_without_the_right_to_an_id_ends_the_publisher_at_the_next_tick() {
    let broker = MockBroker::new();
    broker.refuse_ids();
    let mut publisher = open(Some(kafka(&broker)), None);
    let started = Instant::now();
    let error = (1..)
        .find_map(|number| {
            assert!(started.elapsed() < DEADLINE, "it goes on");
            let output = TickOutput { tick: number, ..TickOutput::default() };
            publisher.publish(number, vec![output], &[], &mut nothing).err()
        })
        .unwrap();
    assert!(matches!(error, SinkError::NoProducerId { .. }), "{error}");
    assert_eq!(error.class(), ErrorClass::Definite);
    assert!(publisher.monitor().waits_for_id());
}

#[test]
fn no_secret_of_the_settings_is_shown() {
    const CANARY: &str = "canary-7f3a";
    let broker = MockBroker::new();
    let mut sink = kafka(&broker);
    sink.client.settings.insert("sasl.password".to_owned(), Secret::new(CANARY));
    let publisher = open(Some(sink.clone()), None);
    assert!(!format!("{publisher:?}").contains(CANARY));
    sink.client.settings.insert("linger.ms".to_owned(), Secret::new(CANARY));
    let error =
        Publisher::open(&Sinks { kafka: Some(sink), files: None }, "job", &[], CONFIG, Promise::None, None)
            .unwrap_err();
    assert_eq!(error.class(), ErrorClass::Definite);
    assert!(error.to_string().contains("linger.ms"), "{error}");
    assert!(!format!("{error} {error:?}").contains(CANARY), "{error}");
}

#[test]
fn files_are_closed_by_size_and_age_between_ticks_and_the_oldest_go() {
    let folder = tempfile::tempdir().unwrap();
    let sink = FileSink {
        rotate_bytes: 3 * FOLDER_ROW_BYTES,
        rotate_after_ms: 1_000,
        keep: 2,
        ..files(folder.path())
    };
    let mut publisher = open(None, Some(sink));
    let mut publish =
        |at: Tick, keys| publisher.publish(at, vec![tick(at, keys)], &[], &mut nothing).unwrap();
    publish(1, 1);
    publish(2, 1);
    assert_eq!(names(folder.path()), ["usage-000001.jsonl"]);
    // By size, after the tick that made it long.
    publish(3, 50);
    publish(4, 1);
    assert_eq!(lines(folder.path(), "usage-000001.jsonl").len(), 52);
    assert_eq!(names(folder.path()), ["usage-000001.jsonl", "usage-000002.jsonl"]);
    // By age, also without rows.
    publish(1_003, 0);
    publish(1_004, 0);
    publish(1_005, 1);
    assert_eq!(names(folder.path()), ["usage-000001.jsonl", "usage-000002.jsonl", "usage-000003.jsonl"]);
    // The third closed file takes the place of the first.
    publish(1_006, 50);
    publish(1_007, 1);
    assert_eq!(names(folder.path()), ["usage-000002.jsonl", "usage-000003.jsonl", "usage-000004.jsonl"]);
}

#[test]
fn a_new_run_goes_on_with_the_last_file_and_cuts_off_what_is_half_written() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    open(None, Some(files(dir))).publish(1, vec![tick(1, 2)], &[], &mut nothing).unwrap();
    let whole = read(&dir.join("usage-000001.jsonl"));
    for torn in [&b"{"[..], br#"{"key_id":"012"#, &[b'x'; 200_000]] {
        fs::write(dir.join("usage-000001.jsonl"), [&whole[..], torn].concat()).unwrap();
        // Opening repairs, whether or not rows follow.
        open(None, Some(files(dir)));
        assert_eq!(read(&dir.join("usage-000001.jsonl")), whole);
    }
    fs::write(dir.join("latency-000007.jsonl"), "torn at its very first row").unwrap();
    fs::write(dir.join("usage-notes.jsonl"), "somebody else's").unwrap();
    open(None, Some(files(dir))).publish(2, vec![tick(2, 1)], &[], &mut nothing).unwrap();
    assert_eq!(lines(dir, "usage-000001.jsonl").len(), 3);
    assert!(!dir.join("latency-000007.jsonl").exists(), "a file without a row is removed");
    assert_eq!(read(&dir.join("usage-notes.jsonl")), b"somebody else's");
    // A file that is long enough is left alone.
    let sink = FileSink { rotate_bytes: 1, keep: 1, ..files(dir) };
    let mut publisher = open(None, Some(sink));
    publisher.publish(3, vec![tick(3, 1)], &[], &mut nothing).unwrap();
    publisher.flush(DEADLINE).unwrap();
    assert_eq!(publisher.published(), 3);
    assert_eq!(names(dir), ["usage-000002.jsonl", "usage-notes.jsonl"]);
    assert_eq!(lines(dir, "usage-000002.jsonl").len(), 1);
}

#[test]
fn versions_go_on_over_restarts_files_and_clocks_that_go_back() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let version = |line: &str| {
        let row: Value = serde_json::from_str(line).unwrap();
        (row["tick"].as_u64().unwrap(), row["version"].as_u64().unwrap())
    };
    let versions = |name: &str| lines(dir, name).iter().map(|line| version(line)).collect::<Vec<_>>();
    let run = |at: Tick, keys, sink: FileSink| {
        open(None, Some(sink)).publish(at, vec![tick(at, keys)], &[], &mut nothing).unwrap();
    };
    run(9, 2, files(dir));
    run(5, 1, files(dir));
    assert_eq!(versions("usage-000001.jsonl"), [(9, 1), (9, 2), (5, 3)]);
    // The next file goes on, and so does one whose predecessor lost its only row.
    run(6, 1, FileSink { rotate_bytes: 1, ..files(dir) });
    assert_eq!(versions("usage-000002.jsonl"), [(6, 4)]);
    fs::write(dir.join("usage-000003.jsonl"), "{\"key_id\":").unwrap();
    run(7, 1, files(dir));
    assert_eq!(names(dir), ["usage-000001.jsonl", "usage-000002.jsonl", "usage-000004.jsonl"]);
    assert_eq!(versions("usage-000004.jsonl"), [(7, 5)]);
    // Rows of versions without the column come first. A row may be longer than the block that is read.
    let long = format!("{{\"key_id\":\"{}\",\"version\":41}}\n", "x".repeat(200_000));
    for (row, expected) in [("{\"key_id\":\"a\"}\n", 1), (&*long, 42)] {
        fs::write(dir.join("usage-000004.jsonl"), row).unwrap();
        run(8, 1, files(dir));
        assert_eq!(version(&lines(dir, "usage-000004.jsonl")[1]), (8, expected));
    }
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let sinks = Sinks { kafka: None, files: Some(files(&folder.path().join("file/out"))) };
    let error = Publisher::open(&sinks, "job", &[], CONFIG, Promise::None, None).unwrap_err();
    assert!(error.to_string().contains("file/out"), "{error}");
}

#[test]
fn parquet_files_have_the_rows_of_the_lines_of_every_view() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [lines_dir, parquet_dir] = folders.each_ref().map(|folder| folder.path());
    for sink in [files(lines_dir), FileSink { format: FileFormat::Parquet, ..files(parquet_dir) }] {
        let mut publisher = open(None, Some(sink));
        publisher.publish(TICK, vec![everything()], &partitions(), &mut suspend).unwrap();
        let retracted = Rows::SubscriptionUsage(vec![row(NameId::new("sub-1"), None)]);
        let output = TickOutput { tick: TICK + 1, rows: vec![retracted], ..TickOutput::default() };
        publisher.publish(TICK + 1, vec![output], &[], &mut nothing).unwrap();
        publisher.flush(DEADLINE).unwrap();
    }
    assert_eq!(names(parquet_dir).len(), View::ALL.len());
    for view in View::ALL {
        let of_lines = lines(lines_dir, &format!("{}-000001.jsonl", view.name()));
        let of_parquet = parquet_rows(&parquet_dir.join(format!("{}-000001.parquet", view.name())));
        assert_eq!(of_parquet, json_rows(view, &of_lines), "{}", view.name());
        assert!(!of_parquet.is_empty());
    }
}

#[test]
fn a_parquet_file_appears_whole_when_it_is_closed_and_what_a_killed_run_left_when_the_next_starts() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let sink = FileSink { format: FileFormat::Parquet, rotate_after_ms: 1_000, ..files(dir) };
    let versions = |name: &str| -> Vec<u64> {
        parquet_rows(&dir.join(name)).iter().map(|row| row["version"].as_u64().unwrap()).collect()
    };
    let shown = || String::from_utf8(read(&dir.join(sql::DUCKDB))).unwrap();
    let mut publisher = open(None, Some(sink.clone()));
    publisher.publish(1, vec![tick(1, 2)], &[], &mut nothing).unwrap();
    assert_eq!(names(dir), ["usage-000001.jsonl.open"]);
    assert!(!shown().contains("read_parquet"), "{}", shown());
    publisher.publish(1_001, vec![tick(1_001, 1)], &[], &mut nothing).unwrap();
    assert_eq!(names(dir), ["usage-000001.parquet"]);
    assert_eq!(versions("usage-000001.parquet"), [1, 2, 3]);
    assert!(shown().contains("read_parquet('usage-*.parquet')"), "{}", shown());
    publisher.publish(1_002, vec![tick(1_002, 1)], &[], &mut nothing).unwrap();
    drop(publisher);

    // Killed within a row, and while another file was made.
    let journal = dir.join("usage-000002.jsonl.open");
    let whole = read(&journal);
    fs::write(&journal, [&whole[..], b"{\"key_id\":\"0"].concat()).unwrap();
    fs::write(dir.join("latency-000003.parquet.part"), "PAR1").unwrap();
    fs::write(dir.join("geo-000001.jsonl.open"), "{\"key").unwrap();
    open(None, Some(sink.clone()));
    assert_eq!(names(dir), ["usage-000001.parquet", "usage-000002.parquet"]);
    assert_eq!(versions("usage-000002.parquet"), [4]);

    // Killed between the last two steps.
    fs::write(&journal, &whole).unwrap();
    let mut publisher = open(None, Some(sink.clone()));
    assert_eq!(names(dir), ["usage-000001.parquet", "usage-000002.parquet"]);
    publisher.publish(1_003, vec![tick(1_003, 1)], &[], &mut nothing).unwrap();
    drop(publisher);

    // With the other format the journal is what it takes, and numbers and versions go on.
    let mut publisher = open(None, Some(files(dir)));
    assert_eq!(names(dir), ["usage-000001.parquet", "usage-000002.parquet", "usage-000003.jsonl"]);
    publisher.publish(1_004, vec![tick(1_004, 1)], &[], &mut nothing).unwrap();
    drop(publisher);
    let of_lines = json_rows(View::Usage, &lines(dir, "usage-000003.jsonl"));
    assert_eq!(of_lines.iter().map(|row| &row["version"]).collect::<Vec<_>>(), [5, 6]);
    let both = shown();
    assert!(both.contains("read_json('usage-*.jsonl'") && both.contains("\nUNION ALL\n"), "{both}");
    let mut publisher = open(None, Some(FileSink { keep: 1, ..sink }));
    publisher.publish(1_005, vec![tick(1_005, 1)], &[], &mut nothing).unwrap();
    publisher.flush(DEADLINE).unwrap();
    assert_eq!(names(dir), ["usage-000004.parquet"], "all that are surplus are deleted");
    assert_eq!(versions("usage-000004.parquet"), [7]);
}

#[test]
fn a_journal_with_a_damaged_row_is_named_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("usage-000001.jsonl.open");
    fs::write(&journal, "{\"key_id\":5}\n").unwrap();
    let sinks =
        Sinks { kafka: None, files: Some(FileSink { format: FileFormat::Parquet, ..files(folder.path()) }) };
    let error = Publisher::open(&sinks, "job", &[], CONFIG, Promise::None, None).unwrap_err().to_string();
    assert!(error.contains("usage-000001.parquet") && error.contains("column key_id"), "{error}");
    assert_eq!(read(&journal), b"{\"key_id\":5}\n");
}

/// Publishes ticks of `keys` keys with a ledger that sends the rows, and returns the publisher.
fn kept(files: Option<FileSink>) -> Publisher {
    let broker = MockBroker::new();
    let sinks = Sinks { kafka: Some(kafka(&broker)), files };
    Publisher::open(&sinks, "job", &[], CONFIG, Promise::Transactions, None).unwrap()
}

fn publish_tick(publisher: &mut Publisher, output: TickOutput) {
    publisher.publish(output.tick, vec![output], &partitions(), &mut nothing).unwrap();
}

#[test]
fn a_ledger_gets_the_records_that_a_producer_would_send_with_their_tally() {
    let broker = MockBroker::new();
    let mut sent = open(Some(kafka(&broker)), None);
    let mut kept = kept(None);
    for output in [everything(), tick(TICK + 1, 3)] {
        publish_tick(&mut sent, output.clone());
        publish_tick(&mut kept, output);
    }
    sent.flush(DEADLINE).unwrap();
    let rows: Vec<_> = kept.kept().unwrap().iter().collect();
    for view in View::ALL {
        let of_view: Vec<_> = rows.iter().filter(|row| row.topic == view as usize).collect();
        let mut got = consume(&broker, view, of_view.len());
        for row in of_view {
            let id = format!("{:032x}", row.id);
            let at = got.iter().position(|got| got.headers["keytide-id"] == id).unwrap();
            let got = got.swap_remove(at);
            assert_eq!(got.key.as_bytes(), row.key);
            assert_eq!(got.value.as_deref().map(str::as_bytes), row.value);
            assert_eq!(got.headers["keytide-tick"], row.tick.to_string());
            assert_eq!(got.headers.len(), 2 + row.headers.count());
        }
    }
    // The tally is that of the last tick alone.
    let last = rows.iter().filter(|row| row.tick == TICK + 1);
    let digest = last.clone().fold(0_u128, |sum, row| sum.wrapping_add(row.id));
    let count = last.count() as u64;
    assert_eq!(kept.tally(), RowTally { count, digest });
    // What is kept isn't published before the ledger says so, and is forgotten then.
    assert_eq!(kept.published(), 0);
    let rows = rows.len();
    let taken = kept.take_kept(KeptRows::default());
    assert_eq!((taken.len(), kept.kept().unwrap().len(), kept.published()), (rows, 0, 0));
    // Rows of the next tick come meanwhile.
    publish_tick(&mut kept, tick(TICK + 2, 3));
    assert_eq!(kept.monitor().stats().queued_records, rows as u64 + count);
    kept.committed(TICK + 1, &taken, 2);
    let SinkStats { rejected, queued_records, queued_bytes, .. } = kept.monitor().stats();
    let left = kept.kept().unwrap();
    assert_eq!((kept.published(), rejected), (TICK + 1, 2));
    assert_eq!((queued_records, queued_bytes), (left.len() as u64, left.bytes() as u64));
}

#[test]
fn a_replayed_tick_has_the_same_tally_and_goes_to_files_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (first_dir, second_dir) = (folder.path().join("first"), folder.path().join("second"));
    let mut first = kept(Some(files(&first_dir)));
    let mut second = kept(Some(files(&second_dir)));
    for output in [everything(), tick(TICK + 1, 3)] {
        publish_tick(&mut first, output.clone());
        second.replay(true, false);
        publish_tick(&mut second, output.clone());
        second.replayed(true);
        assert_eq!(second.tally(), first.tally());
        assert_eq!(second.published(), output.tick, "it was published before");
    }
    assert_eq!(second.kept().unwrap().len(), 0);
    assert_eq!(names(&first_dir), names(&second_dir));
    for name in names(&first_dir) {
        assert_eq!(read(&first_dir.join(&name)), read(&second_dir.join(&name)), "{name}");
    }
    second.replay(false, false);
    publish_tick(&mut second, tick(TICK + 2, 1));
    assert_eq!(second.kept().unwrap().len(), 1);
}

#[test]
fn rows_that_another_program_makes_otherwise_are_published_again_once_and_logs_are_not() {
    let mut publisher = kept(None);
    let late = Late { position: Position::default(), ..everything().late.remove(0) };
    let with_late = |output: TickOutput| TickOutput { late: vec![late], ..output };
    // Equal ticks need nothing. Of unequal ones the newest row of each key counts.
    for (number, keys, is_equal) in [(0, 9, true), (1, 3, false), (2, 2, false), (3, 1, true)] {
        publisher.replay(true, true);
        publish_tick(&mut publisher, with_late(tick(TICK + number, keys)));
        publisher.replayed(is_equal);
    }
    publisher.replay(false, false);
    publish_tick(&mut publisher, tick(TICK + 4, 1));
    let rows = |publisher: &Publisher| -> Vec<(usize, Tick, String)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let rows = publisher.kept().unwrap().iter();
        rows.map(|row| (row.topic, row.tick, text(row.value.unwrap()))).collect()
    };
    let found = rows(&publisher);
    assert_eq!(publisher.tally().count, found.len() as u64);
    assert!(found.iter().all(|(topic, tick, _)| (*topic, *tick) == (View::Usage as usize, TICK + 4)));
    let calls: Vec<u64> = found
        .iter()
        .map(|(.., value)| serde_json::from_str::<Value>(value).unwrap()["calls"].as_u64().unwrap())
        .collect();
    assert_eq!(calls, [TICK + 2, TICK + 1, TICK + 4], "the first key's row of the last tick is the newest");
    // The next tick has its own rows alone.
    let tally = publisher.tally();
    let taken = publisher.take_kept(KeptRows::default());
    publisher.committed(TICK + 4, &taken, 0);
    publish_tick(&mut publisher, tick(TICK + 5, 1));
    assert_eq!(rows(&publisher).len(), 1);

    // A second crash: the tick with those rows is one of this program, and is made again with them.
    let mut publisher = kept(None);
    for (number, keys, is_equal) in [(0, 9, true), (1, 3, false), (2, 2, false), (3, 1, true)] {
        publisher.replay(true, true);
        publish_tick(&mut publisher, with_late(tick(TICK + number, keys)));
        publisher.replayed(is_equal);
    }
    publisher.replay(true, false);
    publish_tick(&mut publisher, tick(TICK + 4, 1));
    publisher.replayed(true);
    assert_eq!(publisher.tally(), tally);
    assert_eq!(rows(&publisher).len(), 0);
    publisher.replay(false, false);
    publish_tick(&mut publisher, tick(TICK + 5, 1));
    assert_eq!(rows(&publisher).len(), 1, "they aren't published once more");
}
