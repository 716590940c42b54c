//! The API as a client sees it: over connections that stay open.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use keytide_billing::{BilledUse, Measure, PeriodKind, QuotaLimit, QuotaThresholds};
use keytide_config::{
    Api, ApiRole, ApiToken, KeyFrom, KeyHash, KeyRules, MissingKey, OnStale, Pages, Secret, View,
};
use keytide_connectors::decode::KeyNames;
use keytide_connectors::sink::encode::time;
use keytide_connectors::sink::{PlacedRow, RowPlace, RowSubject};
use keytide_connectors::tables::TablesRead;
use keytide_dataflow::Level;
use keytide_dataflow::model::time::HOUR_MS;
use keytide_dataflow::model::{
    Definition, KeyId, KeyKind, KeyPlace, KeyRow, KeyState, NameId, QuotaHolder, QuotaRow, SubscriptionRow,
    TableChange, TableRow,
};
use serde_json::{Value, json};

use super::ApiData;
use super::auth::TokenTable;
use super::ledger::{AskedUse, CheckSubject, LedgerSize, QuotaLedger, UseOfTick};
use super::server::ApiServer;
use super::shelf::Shelf;
use super::stats::{ApiMonitor, CODES, REASONS, ROUTES};

/// The time of all tests, in ms: 2026-03-15T12:00:00Z.
const NOW: u64 = 1_773_576_000_000;
const RAW_KEY: &str = "raw-key-canary-5f0c";

fn hash(raw: &str) -> ([u8; 32], KeyId) {
    match KeyNames::of(raw.as_bytes(), &KeyHash::Sha256) {
        KeyNames::Hashed { key_hash, key_id } => (key_hash, key_id),
        other => panic!("{other:?}"),
    }
}

fn change(row: TableRow) -> TableChange {
    TableChange { offset: 0, row, deleted: false }
}

/// Returns a row of a key of subscription `sub_1`.
fn key_row(key: KeyId, state: KeyState) -> TableChange {
    change(TableRow::Key(KeyRow {
        key,
        subscription: NameId::new("sub_1"),
        valid_from: None,
        state,
        kind: KeyKind::Secret,
        created_at: None,
        revoked_at: None,
        last_used_at: None,
        place: KeyPlace::default(),
        allowed: Box::default(),
        contact: NameId::NONE,
    }))
}

/// Returns rows of tables: of customer `acme` a subscription `sub_1` with 3 calls a day and 100 units a month.
fn tables() -> Vec<TableChange> {
    let subscription = |id: &str, customer: &str| {
        change(TableRow::Subscription(SubscriptionRow {
            id: NameId::new(id),
            customer: NameId::new(customer),
            plan: NameId::NONE,
            time_zone: NameId::NONE,
            billing_anchor: 0,
            valid_from: None,
            started_at: None,
            contacts: NameId::NONE,
        }))
    };
    let quota = |measure, period, limit| {
        let limit = QuotaLimit { limit, hard: true, notify: QuotaThresholds::default() };
        let holder = QuotaHolder::Subscription(NameId::new("sub_1"));
        change(TableRow::Quota(QuotaRow { holder, measure, period, limit, valid_from: None }))
    };
    vec![
        key_row(hash(RAW_KEY).1, KeyState::Active),
        key_row(hash("another").1, KeyState::Suspended),
        subscription("sub_1", "acme"),
        subscription("sub_2", "globex"),
        quota(Measure::Calls, PeriodKind::Day, 3),
        quota(Measure::Units, PeriodKind::Month, 100),
    ]
}

/// Makes a ledger of these tables.
fn ledger() -> Arc<QuotaLedger> {
    let ledger = QuotaLedger::new(4, false);
    ledger.apply_tables(&tables(), NOW);
    ledger.apply_tick(&UseOfTick { tick: NOW, through_ms: NOW, ..UseOfTick::default() }, NOW);
    Arc::new(ledger)
}

fn tokens() -> Vec<ApiToken> {
    [
        ("root", ApiRole::Admin, None),
        ("edge", ApiRole::Check, None),
        ("ops", ApiRole::Ops, None),
        ("acme", ApiRole::Consumer, Some("acme")),
        ("globex", ApiRole::Consumer, Some("globex")),
    ]
    .map(|(name, role, customer)| ApiToken {
        name: name.to_owned(),
        token: Secret::new(format!("token-of-{name}")),
        role,
        customer: customer.map(str::to_owned),
    })
    .into()
}

/// Makes a ledger and a directory of these tables, and an empty shelf.
fn data() -> ApiData {
    let shelf = Arc::new(Shelf::new(1 << 20));
    let data = ApiData { ledger: Arc::new(QuotaLedger::new(4, false)), shelf, directory: Arc::default() };
    let name = |text: &str| Definition::Name { id: NameId::new(text), text: text.into() };
    let definitions = ["sub_1", "sub_2", "acme", "globex"].map(name).to_vec();
    data.take_tables(&TablesRead { changes: tables(), definitions, ..TablesRead::default() }, NOW);
    data.ledger.apply_tick(&UseOfTick { tick: NOW, through_ms: NOW, ..UseOfTick::default() }, NOW);
    data
}

/// Serves a ledger and an empty shelf on a free port.
fn served(ledger: &Arc<QuotaLedger>, tokens: Vec<ApiToken>) -> SocketAddr {
    let shelf = Arc::new(Shelf::new(1 << 20));
    served_with(&ApiData { ledger: Arc::clone(ledger), shelf, directory: Arc::default() }, tokens)
}

fn served_with(data: &ApiData, tokens: Vec<ApiToken>) -> SocketAddr {
    watched(data, tokens, None).0
}

/// Serves data, and returns what watches it, too.
fn watched(
    data: &ApiData,
    tokens: Vec<ApiToken>,
    table: Option<Arc<TokenTable>>,
) -> (SocketAddr, ApiMonitor) {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let api = Api { listen, tokens, threads: 2, on_stale: OnStale::Allow, ..Api::default() };
    let from = vec![KeyFrom::Header("apikey".to_owned()), KeyFrom::Query("apikey".to_owned())];
    let rules = KeyRules { from, hash: KeyHash::Sha256, missing: MissingKey::Anonymous };
    let pages = Pages { embed_in: vec!["https://portal.example.com".to_owned()], link_secret: None };
    let server = ApiServer::of_rules((&api, Some(&pages)), &rules, table).unwrap();
    let address = server.address().unwrap();
    let monitor = server.start(data, || NOW).unwrap();
    (address, monitor)
}

struct Answer {
    status: u16,
    headers: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.headers.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// A connection that stays open.
struct ApiClient(BufReader<TcpStream>);

impl ApiClient {
    fn connect(address: SocketAddr) -> Self {
        Self(BufReader::new(TcpStream::connect(address).unwrap()))
    }

    fn ask(&mut self, head: &str, token: &str, body: &str) -> Answer {
        let length = body.len();
        let token =
            if token.is_empty() { String::new() } else { format!("X-Keytide-Token: token-of-{token}\r\n") };
        let (line, headers) = head.split_once('\n').unwrap_or((head, ""));
        let text = format!(
            "{line} HTTP/1.1\r\nHost: keytide\r\nContent-Length: {length}\r\n{token}{headers}\r\n{body}"
        );
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
        let (mut headers, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            if line.trim_end().is_empty() {
                break;
            }
            let value = line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
            length = value.map_or(length, |(_, value)| value.trim().parse().unwrap());
            headers.push_str(&line);
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        let status = headers.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, headers, body: String::from_utf8(body).unwrap() }
    }

    fn check(&mut self, body: &Value) -> Value {
        let answer = self.ask("POST /v1/check", "edge", &body.to_string());
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    }
}

#[test]
fn a_check_is_answered_over_one_connection_until_the_quota_is_used_up() {
    let ledger = ledger();
    let mut client = ApiClient::connect(served(&ledger, tokens()));
    let (key_hash, key_id) = hash(RAW_KEY);
    let digits: String = key_hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let by_hash = client.check(&json!({ "key_hash": digits }));
    assert_eq!(
        by_hash,
        json!({
            "allowed": true, "reason": "ok", "stale": false, "limit": 3, "used": 1, "remaining": 2, "reset": 43_200,
            "retry_after": null, "reservation": null,
            "quotas": [
                { "metric": "calls", "period": "day", "period_start": "2026-03-15T00:00:00Z", "limit": 3, "used": 1,
                  "remaining": 2, "hard": true, "resets_at": "2026-03-16T00:00:00Z", "exceeded": false },
                { "metric": "units", "period": "month", "period_start": "2026-03-01T00:00:00Z", "limit": 100, "used": 0,
                  "remaining": 100, "hard": true, "resets_at": "2026-04-01T00:00:00Z", "exceeded": false },
            ],
        })
    );
    // A request that is asked again counts once.
    for _ in 0..3 {
        let again = client.check(&json!({ "key_id": key_id.to_string(), "request_id": "r-1" }));
        assert_eq!((&again["allowed"], &again["used"]), (&json!(true), &json!(2)));
    }
    let reserved = client.check(&json!({ "subscription": "sub_1", "estimate": { "units": 60 } }));
    let id = reserved["reservation"].as_str().unwrap().to_owned();
    let denied = client.check(&json!({ "subscription": "sub_1" }));
    assert_eq!((&denied["allowed"], &denied["reason"]), (&json!(false), &json!("quota")));
    assert_eq!((&denied["retry_after"], &denied["quotas"][0]["exceeded"]), (&json!(43_200), &json!(true)));

    let settle = json!({ "reservation": id, "actual": { "units": 10, "hits": 0 } }).to_string();
    let settled = client.ask("POST /v1/settle", "edge", &settle);
    assert_eq!((settled.status, settled.body.as_str()), (200, r#"{"ended":true,"recorded":false}"#));
    assert_eq!(client.ask("POST /v1/settle", "edge", &settle).status, 404);
    let standing = client.ask("GET /v1/subscriptions/sub_1/quota", "acme", "").json();
    let used: Vec<&Value> =
        standing["quotas"].as_array().unwrap().iter().map(|quota| &quota["used"]).collect();
    assert_eq!(used, [&json!(2), &json!(10)]);
    let last = client.check(&json!({ "subscription": "sub_1", "estimate": {} }));
    let rollback = json!({ "reservation": last["reservation"] }).to_string();
    assert_eq!(client.ask("POST /v1/rollback", "edge", &rollback).status, 200);
    assert_eq!(client.check(&json!({ "subscription": "sub_1" }))["allowed"], true);

    let unknown = client.check(&json!({ "key_id": "nobody" }));
    assert_eq!((&unknown["allowed"], &unknown["reason"]), (&json!(true), &json!("unknown")));
    let status = client.ask("GET /v1/status", "acme", "").json();
    assert_eq!((&status["tick"], &status["stale"]), (&json!("2026-03-15T12:00:00Z"), &json!(false)));
}

#[test]
fn a_gateway_is_answered_by_status_and_headers() {
    let ledger = ledger();
    let mut client = ApiClient::connect(served(&ledger, tokens()));
    let by_header = format!("GET /v1/auth\napikey: {RAW_KEY}\r\n");
    let allowed = client.ask(&by_header, "edge", "");
    assert_eq!((allowed.status, allowed.body.as_str()), (200, ""));
    for (name, value) in [
        ("ratelimit-policy", "\"calls-day\";q=3;w=86400, \"units-month\";q=100;w=2678400;qu=\"units\""),
        ("ratelimit", "\"calls-day\";r=2;t=43200, \"units-month\";r=100;t=1425600;"),
        ("x-ratelimit-limit", "3"),
        ("x-ratelimit-remaining", "2"),
        ("x-ratelimit-used", "1"),
        ("x-ratelimit-reset", "43200"),
        ("x-keytide-reason", "ok"),
    ] {
        assert_eq!(allowed.header(name), Some(value.trim_end_matches(';')), "{name}");
    }
    // The key may stand in the query of the gateway's request, wherever that is.
    let forwarded = format!("POST /v1/auth\nX-Forwarded-Uri: /a?b=c&apikey={RAW_KEY}\r\n");
    assert_eq!(client.ask(&forwarded, "edge", "").header("x-ratelimit-used"), Some("2"));
    let appended = format!("PUT /v1/auth/a/b?apikey={RAW_KEY}");
    assert_eq!(client.ask(&appended, "edge", "").header("x-ratelimit-used"), Some("3"));
    for (path, status) in [("/v1/auth", 429), ("/v1/auth?deny=403", 403)] {
        let denied = client.ask(&format!("GET {path}\nX-Forwarded-Uri: /?apikey={RAW_KEY}\r\n"), "edge", "");
        assert_eq!((denied.status, denied.header("x-keytide-reason")), (status, Some("quota")));
        assert_eq!(denied.header("retry-after"), Some("43200"));
    }
    // A client can't show another key to a gateway that appends the path.
    let spoofed = format!("GET /v1/auth/a?apikey={RAW_KEY}\nX-Forwarded-Uri: /?apikey=another\r\n");
    assert_eq!(client.ask(&spoofed, "edge", "").status, 429);
    let suspended = client.ask("GET /v1/auth\napikey: another\r\n", "edge", "");
    assert_eq!((suspended.status, suspended.header("retry-after")), (403, None));
    assert_eq!(suspended.header("x-keytide-reason"), Some("suspended"));
    assert_eq!(client.ask("GET /v1/auth", "edge", "").status, 200);
}

#[test]
fn tokens_open_what_their_role_says() {
    let ledger = ledger();
    let mut client = ApiClient::connect(served(&ledger, tokens()));
    let body = r#"{"subscription":"sub_1","hits":0}"#;
    let quota = "GET /v1/subscriptions/sub_1/quota";
    for (token, checks, reads) in [
        ("root", 200, 200),
        ("edge", 200, 403),
        ("ops", 403, 200),
        ("acme", 404, 200),
        // Of another customer there is nothing, as of a subscription that doesn't exist.
        ("globex", 404, 404),
        ("nobody", 401, 401),
        ("", 401, 401),
    ] {
        assert_eq!(client.ask("POST /v1/check", token, body).status, checks, "{token}");
        assert_eq!(client.ask("GET /v1/auth", token, "").status, checks, "{token}");
        assert_eq!(
            client.ask("POST /v1/rollback", token, r#"{"reservation":"0"}"#).status,
            checks.max(404 * u16::from(checks == 200)),
            "{token}"
        );
        assert_eq!(client.ask(quota, token, "").status, reads, "{token}");
    }
    assert_eq!(client.ask("GET /v1/subscriptions/nobody/quota", "ops", "").status, 404);
    assert_eq!(client.ask("GET /v1/nowhere", "", "").status, 401);
    assert_eq!(client.ask("GET /v1/nowhere", "root", "").status, 404);
    assert!(client.ask("GET /v1/check", "", "").header("www-authenticate").is_some());
    // On loopback, without any token, all is open.
    let mut open = ApiClient::connect(served(&ledger, Vec::new()));
    assert_eq!(open.ask(quota, "", "").status, 200);
}

#[test]
fn requests_are_counted_and_a_table_that_is_being_read_is_an_outage() {
    let ledger = ledger();
    let data = ApiData {
        ledger: Arc::clone(&ledger),
        shelf: Arc::new(Shelf::new(1 << 20)),
        directory: Arc::default(),
    };
    let table = Arc::<TokenTable>::default();
    let (address, monitor) = watched(&data, tokens(), Some(Arc::clone(&table)));
    let mut client = ApiClient::connect(address);
    let quota = "GET /v1/subscriptions/sub_1/quota";
    let away = client.ask(quota, "later", "");
    assert_eq!((away.status, away.header("retry-after")), (503, Some("1")));
    // Tokens of the configuration are known from the start on.
    assert_eq!(client.ask(quota, "ops", "").status, 200);
    table.set_read();
    assert_eq!(client.ask(quota, "later", "").status, 401);
    assert_eq!(client.ask("GET /v1/nowhere", "ops", "").status, 404);
    let reserved = client.check(&json!({ "subscription": "sub_1", "estimate": {} }));
    client.check(&json!({ "subscription": "sub_1", "hits": 9 }));
    client.check(&json!({ "key_id": "nobody" }));
    assert_eq!(client.ask("GET /v1/auth\napikey: another\r\n", "edge", "").status, 403);

    let counts = monitor.counts(NOW);
    let place = |names: &[&str], name: &str| names.iter().position(|known| *known == name).unwrap();
    let of = |route: &str, code: &str| counts.routes[place(&ROUTES, route)].codes[place(&CODES, code)];
    for (route, code, count) in [
        ("quota", "503", 1),
        ("quota", "200", 1),
        ("quota", "401", 1),
        ("other", "404", 1),
        ("check", "200", 3),
        ("auth", "403", 1),
    ] {
        assert_eq!(of(route, code), count, "{route} {code}");
    }
    assert_eq!(counts.routes[place(&ROUTES, "check")].within.iter().sum::<u64>(), 3);
    let checks = |reason: &str| counts.checks[place(&REASONS, reason)];
    assert_eq!(["ok", "quota", "unknown", "suspended", "stale"].map(checks), [1, 1, 1, 1, 0]);
    let held = LedgerSize { keys: 2, subscriptions: 2, reservations: 1, quotas_over: 0 };
    assert_eq!((counts.held, counts.tick_ms, counts.tokens), (held, NOW, Some(0)));
    let settle = json!({ "reservation": reserved["reservation"] }).to_string();
    assert_eq!(client.ask("POST /v1/settle", "edge", &settle).status, 200);
    assert_eq!(monitor.counts(NOW).held.reservations, 0);
}

#[test]
fn bad_requests_are_refused_and_never_repeated() {
    let ledger = ledger();
    let mut client = ApiClient::connect(served(&ledger, tokens()));
    let canary = "canary-77aa";
    for body in [
        String::new(),
        "[]".to_owned(),
        "{}".to_owned(),
        format!(r#"{{"{canary}":1,"subscription":"sub_1"}}"#),
        r#"{"subscription":"sub_1","key_id":"a"}"#.to_owned(),
        r#"{"subscription":""}"#.to_owned(),
        r#"{"key_id":""}"#.to_owned(),
        format!(r#"{{"key_hash":"{canary}"}}"#),
        r#"{"key_hash":"0123456789abcdef0123456789abcdeg"}"#.to_owned(),
        r#"{"subscription":"sub_1","hits":-1}"#.to_owned(),
        r#"{"subscription":"sub_1","hits":1.5}"#.to_owned(),
        r#"{"subscription":"sub_1","hits":9223372036854775809}"#.to_owned(),
        r#"{"subscription":"sub_1","hits":99999999999999999999999}"#.to_owned(),
        r#"{"subscription":"sub_1","hits":1.0e-3}"#.to_owned(),
        r#"{"subscription":"sub_1","hits":"1"}"#.to_owned(),
        r#"{"subscription":"sub_1","estimate":{"units":-1}}"#.to_owned(),
        r#"{"subscription":"sub_1","estimate":{"units":18446744073709551616}}"#.to_owned(),
        r#"{"subscription":null}"#.to_owned(),
        r#"{"subscription":"sub_1","estimate":7}"#.to_owned(),
        r#"{"subscription":"sub_1","estimate":[1,2,3]}"#.to_owned(),
        r#"{"subscription":"sub_1","subscription":"sub_2"}"#.to_owned(),
        r#"[null,null,"sub_1",1,null,null]"#.to_owned(),
        r#"{"subscription":"sub_1","request_id":""}"#.to_owned(),
        format!(r#"{{"subscription":"sub_1","request_id":"{}"}}"#, "x".repeat(257)),
        "[".repeat(16_000),
    ] {
        let answer = client.ask("POST /v1/check", "edge", &body);
        assert_eq!(answer.status, 400, "{}", &body[..body.len().min(60)]);
        assert!(!answer.body.contains(canary), "{}", answer.body);
    }
    for body in ["", "{}", r#"{"reservation":7}"#, r#"{"reservation":"x","actual":{"calls":1}}"#, r#"["x"]"#]
    {
        assert_eq!(client.ask("POST /v1/settle", "edge", body).status, 400, "{body}");
    }
    let huge = client
        .check(&json!({ "subscription": "sub_2", "hits": 1_u64 << 63, "estimate": { "units": u64::MAX } }));
    assert_eq!(huge["allowed"], true);
    for method in ["GET", "PUT", "DELETE"] {
        let other = client.ask(&format!("{method} /v1/check"), "edge", "");
        assert_eq!((other.status, other.header("allow")), (405, Some("POST")));
        assert!(other.json()["error"].is_string());
    }
    let no_text = client.ask("GET /v1/subscriptions/%FF/quota", "ops", "");
    assert!(no_text.status == 400 && no_text.json()["error"].is_string());
    let long = json!({ "subscription": "x".repeat(17 << 10) }).to_string();
    let too_long = client.ask("POST /v1/check", "edge", &long);
    assert_eq!(
        (too_long.status, too_long.json()),
        (413, json!({ "error": "the body is longer than 16 KiB" }))
    );
}

#[test]
fn a_body_may_have_nulls_and_numbers_as_other_languages_write_them() {
    let ledger = ledger();
    let mut client = ApiClient::connect(served(&ledger, tokens()));
    let mut ask = |path: &str, body: &str| {
        let answer = client.ask(&format!("POST {path}"), "edge", body);
        assert_eq!(answer.status, 200, "{body}: {}", answer.body);
        answer.json()
    };
    let nulls = r#"{"subscription":"sub_1","key_hash":null,"key_id":null,"hits":null,"estimate":null,"request_id":null}"#;
    let page = ask("/v1/check", nulls);
    assert_eq!((&page["used"], &page["reservation"]), (&json!(1), &Value::Null));
    let lua =
        ask("/v1/check", r#"{"subscription":"sub_1","hits":1e0,"estimate":{"units":2.0e1,"bytes_in":null}}"#);
    let used: Vec<&Value> = lua["quotas"].as_array().unwrap().iter().map(|quota| &quota["used"]).collect();
    assert_eq!(used, [&json!(2), &json!(20)]);
    let settle =
        json!({ "reservation": lua["reservation"], "actual": { "units": 3.0, "hits": null } }).to_string();
    ask("/v1/settle", &settle);
    let zero = ask("/v1/check", r#"{"subscription":"sub_1","hits":-0.0}"#);
    let used: Vec<&Value> = zero["quotas"].as_array().unwrap().iter().map(|quota| &quota["used"]).collect();
    assert_eq!(used, [&json!(2), &json!(3)]);
    let again = ask("/v1/check", r#"{"subscription":"sub_1","estimate":{}}"#);
    ask("/v1/settle", &json!({ "reservation": again["reservation"], "actual": null }).to_string());
    assert_eq!(ask("/v1/check", r#"{"subscription":"sub_1","hits":0}"#)["used"], 3);
    let largest =
        r#"{"subscription":"sub_2","hits":9223372036854775808.0,"estimate":{"units":18446744073709551615}}"#;
    assert_eq!(ask("/v1/check", largest)["allowed"], true);
}

#[test]
fn bytes_that_are_not_text_hide_no_key() {
    let ledger = ledger();
    let mut client = ApiClient::connect(served(&ledger, tokens()));
    let start =
        b"GET /v1/auth HTTP/1.1\r\nHost: keytide\r\nConnection: close\r\nX-Keytide-Token: token-of-edge\r\n";
    let target = b"X-Forwarded-Uri: /\xff?\xfe&apikey=another\r\n\r\n";
    client.0.get_mut().write_all(&[&start[..], &target[..]].concat()).unwrap();
    let mut answer = String::new();
    client.0.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 ") && answer.contains(": suspended\r\n"), "{answer}");
}

#[test]
fn the_description_names_every_path_and_every_member_of_an_answer() {
    let mut client = ApiClient::connect(served_with(&data(), tokens()));
    let described = client.ask("GET /v1/openapi.json", "edge", "").json();
    let mut paths = Vec::new();
    for (path, methods) in described["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let of_key = path.starts_with("/v1/keys/");
            let id = if of_key { hash("another").1.to_string() } else { "sub_1".to_owned() };
            let line = format!("{} {}", method.to_uppercase(), path.replace("{id}", &id));
            let answer = client.ask(&line, "root", "{}");
            let expected = if method == "post" { 400 } else { 200 };
            assert_eq!(answer.status, expected, "{line}");
            assert!(methods[method]["responses"].get(expected.to_string()).is_some(), "{line}");
            paths.push(path.clone());
        }
    }
    let expected = [
        "/v1/auth",
        "/v1/check",
        "/v1/incidents",
        "/v1/keys/{id}/geo",
        "/v1/keys/{id}/latency",
        "/v1/keys/{id}/usage",
        "/v1/links",
        "/v1/openapi.json",
        "/v1/rollback",
        "/v1/session",
        "/v1/settle",
        "/v1/status",
        "/v1/subscriptions",
        "/v1/subscriptions/{id}",
        "/v1/subscriptions/{id}/adjustments",
        "/v1/subscriptions/{id}/bills",
        "/v1/subscriptions/{id}/charges",
        "/v1/subscriptions/{id}/forecast",
        "/v1/subscriptions/{id}/keys",
        "/v1/subscriptions/{id}/notices",
        "/v1/subscriptions/{id}/quota",
        "/v1/subscriptions/{id}/usage",
    ];
    paths.sort();
    assert_eq!(paths, expected);

    let check = client.check(&json!({ "subscription": "sub_1" }));
    let standing = client.ask("GET /v1/subscriptions/sub_1/quota", "ops", "").json();
    let status = client.ask("GET /v1/status", "ops", "").json();
    let rows = client.ask("GET /v1/subscriptions/sub_1/bills", "ops", "").json();
    let refused = client.ask("GET /v1/nowhere", "ops", "").json();
    let session = client.ask("GET /v1/session", "acme", "").json();
    let listed = client.ask("GET /v1/subscriptions", "ops", "").json();
    let overview = client.ask("GET /v1/subscriptions/sub_1", "ops", "").json();
    let keys = client.ask("GET /v1/subscriptions/sub_1/keys", "ops", "").json();
    let link = client.ask("POST /v1/links", "root", r#"{"customer":"acme"}"#).json();
    for (schema, answer) in [
        ("Session", &session),
        ("Subscriptions", &listed),
        ("Subscription", &listed["rows"][0]),
        ("Overview", &overview),
        ("Keys", &keys),
        ("Key", &keys["rows"][0]),
        ("Link", &link),
        ("CheckAnswer", &check),
        ("Quota", &check["quotas"][0]),
        ("Standing", &standing),
        ("Status", &status),
        ("Rows", &rows),
        ("Error", &refused),
    ] {
        let members = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let schema = &described["components"]["schemas"][schema];
        assert_eq!(members(&schema["properties"]), members(answer));
        assert_eq!(schema["required"].as_array().unwrap().len(), members(answer).len());
    }
}

/// Makes a row of a window, with the columns that the API looks at.
fn placed(view: View, subject: RowSubject, level: Level, start: u64, customer: Option<&str>) -> PlacedRow {
    let place = RowPlace { subject, series: level as u64, at: start, kept: 9 };
    let line =
        json!({ "id": "x", "window": level.label(), "window_start": time(start), "customer": customer });
    PlacedRow { view, place, line: Some(line.to_string().into_bytes()) }
}

/// Returns the starts of the rows of an answer, as hours before [`NOW`].
fn hours_ago(answer: &Answer) -> Vec<u64> {
    assert_eq!(answer.status, 200, "{}", answer.body);
    let rows = answer.json();
    let starts = rows["rows"].as_array().unwrap().iter().map(|row| row["window_start"].as_str().unwrap());
    starts
        .map(|start| {
            let start: jiff::Timestamp = start.parse().unwrap();
            (NOW - start.as_millisecond().cast_unsigned()) / HOUR_MS
        })
        .collect()
}

#[test]
fn rows_are_the_newest_ones_and_have_a_tag_until_one_changes() {
    let (ledger, shelf) = (ledger(), Arc::new(Shelf::new(1 << 20)));
    let data = ApiData { ledger, shelf: Arc::clone(&shelf), directory: Arc::default() };
    let mut client = ApiClient::connect(served_with(&data, tokens()));
    let key = hash(RAW_KEY).1;
    let subject = RowSubject::Key(key);
    let hour = |ago| placed(View::Usage, subject, Level::Hour, NOW - ago * HOUR_MS, Some("acme"));
    let day = placed(View::Usage, subject, Level::Day, NOW - 12 * HOUR_MS, Some("acme"));
    // A key that is known has rows, though there are none.
    let path = format!("GET /v1/keys/{key}/usage");
    let none = client.ask(&path, "ops", "");
    assert_eq!(none.json(), json!({ "tick": "2026-03-15T12:00:00Z", "since": null, "rows": [] }));
    shelf.apply(5, &[hour(3), hour(1), hour(2), day]);

    let answer = client.ask(&path, "ops", "");
    assert_eq!(hours_ago(&answer), [3, 2, 1, 12]);
    assert_eq!(answer.json()["since"], json!("1970-01-01T00:00:00.005Z"));
    assert_ne!(answer.header("etag"), none.header("etag"));
    assert_eq!(answer.header("cache-control"), Some("private, no-cache"));
    assert_eq!(answer.header("vary"), Some("authorization, x-keytide-token"));
    let tag = answer.header("etag").unwrap();
    for shown in [tag.to_owned(), format!("W/\"0\", {tag}")] {
        let unchanged = client.ask(&format!("{path}\nIf-None-Match: {shown}\r\n"), "ops", "");
        assert_eq!(
            (unchanged.status, unchanged.body.as_str(), unchanged.header("etag")),
            (304, "", Some(tag))
        );
    }
    // A tick without a row of the key changes nothing, and one with a row does.
    shelf.apply(6, &[placed(View::Usage, RowSubject::Key(KeyId(7)), Level::Hour, NOW, None)]);
    let ask =
        |client: &mut ApiClient| client.ask(&format!("{path}\nIf-None-Match: {tag}\r\n"), "ops", "").status;
    assert_eq!(ask(&mut client), 304);
    shelf.apply(7, &[hour(2)]);
    assert_eq!(ask(&mut client), 200);

    // Of levels and times, those that are asked for.
    for (query, expected) in [
        ("window=1h", vec![3, 2, 1]),
        ("window=1d", vec![12]),
        ("window=1m", vec![]),
        ("from=2026-03-15T10:00:00Z", vec![2, 1]),
        ("from=2026-03-15T10:00:00%2B00:00&to=2026-03-15T11:00:00Z", vec![2]),
        ("window=1h&to=1969-01-01T00:00:00Z", vec![]),
    ] {
        assert_eq!(hours_ago(&client.ask(&format!("{path}?{query}"), "ops", "")), expected, "{query}");
    }
    for bad in ["window=5m", "window=", "from=yesterday", "until=2026-03-15T11:00:00Z", "window=1h&window=1d"]
    {
        assert_eq!(client.ask(&format!("{path}?{bad}"), "ops", "").status, 400, "{bad}");
    }
    assert_eq!(
        client.ask("GET /v1/subscriptions/sub_1/notices?from=2026-03-15T11:00:00Z", "ops", "").status,
        400
    );
    for nothing in ["/v1/keys/none/usage", "/v1/subscriptions/none/bills", "/v1/subscriptions/sub_1/latency"]
    {
        assert_eq!(client.ask(&format!("GET {nothing}"), "ops", "").status, 404, "{nothing}");
    }
    assert_eq!(client.ask(&path, "edge", "").status, 403);
}

#[test]
fn a_consumer_sees_rows_of_its_own_and_none_of_what_another_had_before() {
    let (ledger, shelf) = (ledger(), Arc::new(Shelf::new(1 << 20)));
    let data = ApiData { ledger, shelf: Arc::clone(&shelf), directory: Arc::default() };
    let mut client = ApiClient::connect(served_with(&data, tokens()));
    let key = hash(RAW_KEY).1;
    let (subject, other) = (RowSubject::Key(key), RowSubject::Key(hash("another").1));
    let row = |view, level: Level, ago, customer| {
        placed(view, subject, level, level.start(NOW - ago * HOUR_MS), customer)
    };
    // Four hours ago the key was globex's, and at the beginning of the day.
    shelf.apply(
        5,
        &[
            row(View::Usage, Level::Hour, 5, Some("globex")),
            row(View::Usage, Level::Hour, 4, Some("globex")),
            row(View::Usage, Level::Hour, 3, Some("acme")),
            row(View::Usage, Level::Hour, 2, None),
            row(View::Usage, Level::Day, 0, Some("globex")),
            row(View::Latency, Level::Hour, 4, None),
            row(View::Latency, Level::Hour, 3, None),
            row(View::Latency, Level::Day, 0, None),
            placed(View::Latency, other, Level::Hour, NOW, None),
        ],
    );
    let path = |view| format!("GET /v1/keys/{key}/{view}");
    assert_eq!(hours_ago(&client.ask(&path("usage"), "acme", "")), [3, 2]);
    assert_eq!(hours_ago(&client.ask(&path("latency"), "acme", "")), [3]);
    assert_eq!(hours_ago(&client.ask(&path("latency"), "ops", "")), [4, 3, 12]);
    assert_eq!(client.ask(&path("usage"), "globex", "").status, 404);
    // Nothing says whose the rows of this key are.
    let unsure = client.ask(&format!("GET /v1/keys/{}/latency", hash("another").1), "acme", "");
    assert_eq!(unsure.json()["rows"], json!([]));

    let subscription = RowSubject::Subscription(NameId::new("sub_1"));
    let bill = |ago| placed(View::Bills, subscription, Level::Hour, NOW - ago * HOUR_MS, None);
    let notice = PlacedRow {
        view: View::Notices,
        place: RowPlace { subject: subscription, series: 0, at: 1, kept: 9 },
        line: Some(b"{\"subscription\":\"sub_1\",\"seq\":1}".to_vec()),
    };
    shelf.apply(6, &[bill(9), bill(1), notice]);
    let bills = "GET /v1/subscriptions/sub_1/bills";
    let notices = |client: &mut ApiClient| {
        let answer = client.ask("GET /v1/subscriptions/sub_1/notices", "acme", "").json();
        answer["rows"].as_array().unwrap().len()
    };
    assert_eq!(hours_ago(&client.ask(bills, "acme", "")), [9, 1]);
    assert_eq!((client.ask(bills, "globex", "").status, notices(&mut client)), (404, 1));
    let usage = placed(View::SubscriptionUsage, subscription, Level::Hour, NOW - 2 * HOUR_MS, Some("globex"));
    shelf.apply(7, &[usage]);
    assert_eq!((hours_ago(&client.ask(bills, "acme", "")), notices(&mut client)), (vec![1], 0));
}

#[test]
fn incidents_are_the_newest_and_a_consumer_sees_parts_of_its_own() {
    let (ledger, shelf) = (ledger(), Arc::new(Shelf::new(1 << 20)));
    let mut client = ApiClient::connect(served_with(
        &ApiData { ledger, shelf: Arc::clone(&shelf), directory: Arc::default() },
        tokens(),
    ));
    let incident = |id: u64, customer: Option<&str>| {
        let line = json!({
            "incident_id": id.to_string(), "key_id": "k", "subscription": "s", "customer": customer, "plan": null,
            "level": "alert", "score": 99, "state": "open", "opened_at": time(id), "last_signal_at": time(id),
            "ended_at": null,
            "signals": [{ "signal": "volume", "family": "volume", "first_at": time(id), "last_at": time(id),
                          "expected": 1.5, "seen": 900, "values": [{ "value": "another customer's" }] }],
            "evidence": { "other_keys": ["another customer's"] }, "reopenings": 0,
        });
        PlacedRow {
            view: View::Incidents,
            place: RowPlace { subject: RowSubject::Job, series: id, at: id, kept: 1 },
            line: Some(line.to_string().into_bytes()),
        }
    };
    let rows: Vec<_> =
        (0..150).map(|id| incident(id, [Some("acme"), Some("globex"), None][id as usize % 3])).collect();
    shelf.apply(5, &rows);
    let ids = |answer: &Answer| -> Vec<u64> {
        let rows = answer.json()["rows"].as_array().unwrap().clone();
        rows.iter().map(|row| row["incident_id"].as_str().unwrap().parse().unwrap()).collect()
    };
    let newest: Vec<u64> = (50..150).rev().collect();
    assert_eq!(ids(&client.ask("GET /v1/incidents", "ops", "")), newest);
    assert_eq!(ids(&client.ask("GET /v1/incidents?limit=1000", "root", "")).len(), 150);
    let own = client.ask("GET /v1/incidents?limit=2", "acme", "");
    assert_eq!(ids(&own), [147, 144]);
    assert!(!own.body.contains("another customer's") && own.body.contains("\"seen\":900"));
    for bad in ["limit=0", "limit=1001", "limit=x", "limits=1"] {
        assert_eq!(client.ask(&format!("GET /v1/incidents?{bad}"), "ops", "").status, 400, "{bad}");
    }
    let tag = own.header("etag").unwrap();
    assert_eq!(client.ask(&format!("GET /v1/incidents\nIf-None-Match: {tag}\r\n"), "acme", "").status, 304);
    assert_eq!(client.ask("GET /v1/incidents", "edge", "").status, 403);
}

#[test]
fn a_raw_key_is_neither_answered_nor_kept() {
    let ledger = ledger();
    let mut client = ApiClient::connect(served(&ledger, tokens()));
    let head = format!(
        "GET /v1/auth?apikey={RAW_KEY}\napikey: {RAW_KEY}\r\nX-Forwarded-Uri: /?apikey={RAW_KEY}\r\n"
    );
    for _ in 0..5 {
        let answer = client.ask(&head, "edge", "");
        assert!(!answer.headers.contains(RAW_KEY) && answer.body.is_empty());
    }
    // Nothing in the ledger, which all requests leave their traces in, has it.
    let mut request = ApiClient::connect(client.0.get_ref().peer_addr().unwrap());
    request.check(&json!({ "key_id": RAW_KEY, "request_id": RAW_KEY, "estimate": {} }));
    assert!(!format!("{ledger:?}").contains(RAW_KEY));
}

#[test]
fn a_port_that_somebody_has_is_a_mistake_of_the_configuration() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let api = Api { listen: taken.local_addr().unwrap(), ..Api::default() };
    let rules = KeyRules { from: vec![], hash: KeyHash::Sha256, missing: MissingKey::Anonymous };
    let Err(error) = ApiServer::of_rules((&api, None), &rules, None) else { panic!("the port is taken") };
    assert_eq!(crate::exit::classify(&error), crate::exit::Exit::Usage);
    assert!(error.to_string().starts_with("api.listen: can't listen on 127.0.0.1:"), "{error}");
}

/// Returns the ids of an answer's rows, and where the next page goes on.
fn listed(answer: &Answer) -> (Vec<String>, Option<String>) {
    assert_eq!(answer.status, 200, "{}", answer.body);
    let page = answer.json();
    let id = |row: &Value| row.get("subscription").unwrap_or(&row["key_id"]).as_str().unwrap().to_owned();
    (page["rows"].as_array().unwrap().iter().map(id).collect(), page["next"].as_str().map(str::to_owned))
}

#[test]
fn subscriptions_are_listed_and_searched_as_far_as_the_caller_may_see_them() {
    let data = data();
    let mut client = ApiClient::connect(served_with(&data, tokens()));
    let mut ids =
        |path: &str, token: &str| listed(&client.ask(&format!("GET /v1/subscriptions{path}"), token, ""));
    let all = ["sub_1".to_owned(), "sub_2".to_owned()];
    for (path, token, expected) in [
        ("", "ops", &all[..]),
        ("", "acme", &all[..1]),
        ("", "globex", &all[1..]),
        ("?customer=globex", "ops", &all[1..]),
        ("?customer=globex", "acme", &[]),
        ("?customer=nobody", "ops", &[]),
        ("?q=UB_2", "ops", &all[1..]),
        ("?q=ACME", "ops", &all[..1]),
        ("?q=globex", "acme", &[]),
        ("?q=x", "ops", &all[1..]),
        ("?q=%F0%9F%94%91", "ops", &[]),
        ("?after=sub_1", "ops", &all[1..]),
        ("?after=sub_1", "acme", &[]),
    ] {
        assert_eq!(ids(path, token), (expected.to_vec(), None), "{path} by {token}");
    }
    let (first, next) = ids("?limit=1", "ops");
    assert_eq!((first, next.as_deref()), (all[..1].to_vec(), Some("sub_1")));
    for (path, status) in [("?limit=0", 400), ("?limit=201", 400), ("?of=x", 400), ("/nobody", 404)] {
        let answer = client.ask(&format!("GET /v1/subscriptions{path}"), "ops", "");
        assert_eq!(answer.status, status, "{path}");
    }
    assert_eq!(client.ask("GET /v1/subscriptions", "edge", "").status, 403);
    for path in ["/sub_1", "/sub_1/keys"] {
        let line = format!("GET /v1/subscriptions{path}");
        let statuses = ["ops", "acme", "globex", "edge"].map(|token| client.ask(&line, token, "").status);
        assert_eq!(statuses, [200, 200, 404, 403], "{path}");
    }
}

#[test]
fn a_subscription_has_a_tag_until_a_view_or_a_quota_changes() {
    let data = data();
    let (key, subscription) = (hash(RAW_KEY).1, RowSubject::Subscription(NameId::new("sub_1")));
    let mut client = ApiClient::connect(served_with(&data, tokens()));
    let mut ask = |tag: &str| {
        let line = format!("GET /v1/subscriptions/sub_1\nIf-None-Match: {tag}\r\n");
        client.ask(&line, "acme", "")
    };
    let first = ask("W/\"\"");
    let tag = first.header("etag").unwrap().to_owned();
    assert_eq!(first.json()["changed"]["usage"], Value::Null);
    assert_eq!(first.json()["quotas"][0]["limit"], 3);
    let unchanged = ask(&tag);
    assert_eq!((unchanged.status, unchanged.header("x-keytide-tick")), (304, Some("2026-03-15T12:00:00Z")));
    assert!(unchanged.headers.len() < 1_000, "a poll without news has {} B", unchanged.headers.len());
    // A tick without rows of it changes nothing but the header.
    data.ledger.apply_tick(&UseOfTick { tick: NOW + 5_000, through_ms: NOW, ..UseOfTick::default() }, NOW);
    let later = ask(&tag);
    assert_eq!((later.status, later.header("x-keytide-tick")), (304, Some("2026-03-15T12:00:05Z")));
    data.shelf.apply(NOW, &[placed(View::SubscriptionUsage, subscription, Level::Hour, NOW - HOUR_MS, None)]);
    let changed = ask(&tag);
    assert_eq!(changed.json()["changed"]["usage"], "2026-03-15T12:00:00Z");
    let checked = CheckSubject::Subscription(NameId::new("sub_1"));
    let used = BilledUse { calls: 1, ..BilledUse::default() };
    data.ledger.check(checked, AskedUse { used, is_reserved: false }, None, NOW);
    let used = ask(changed.header("etag").unwrap());
    assert_eq!((used.status, &used.json()["quotas"][0]["used"]), (200, &json!(1)));

    // Of its keys the last minute with calls is known.
    data.shelf.apply(NOW, &[placed(View::Usage, RowSubject::Key(key), Level::Minute, NOW - 3_600_000, None)]);
    data.ledger.deny_only([(key, KeyState::Revoked)].into());
    let keys = client.ask("GET /v1/subscriptions/sub_1/keys", "acme", "").json();
    let row = keys["rows"].as_array().unwrap().iter().find(|row| row["key_id"] == key.to_string()).unwrap();
    assert_eq!((&row["state"], &row["denied"]), (&json!("active"), &json!("revoked")));
    assert_eq!((&row["last_used_at"], &row["created_at"]), (&json!("2026-03-15T11:01:00Z"), &Value::Null));
    let (mut seen, mut path) = (Vec::new(), "?limit=1".to_owned());
    loop {
        let answer = client.ask(&format!("GET /v1/subscriptions/sub_1/keys{path}"), "acme", "");
        let (ids, next) = listed(&answer);
        seen.extend(ids);
        let Some(next) = next else { break };
        path = format!("?limit=1&after={next}");
    }
    seen.sort();
    let mut expected = [key, hash("another").1].map(|key| key.to_string()).to_vec();
    expected.sort();
    assert_eq!(seen, expected);
}

#[test]
fn the_directory_follows_the_tables() {
    let data = data();
    let now = || {
        let of = |id: &str| data.directory.subscription(NameId::new(id), NOW).map(|facts| facts.customer);
        (of("sub_1").as_deref().map(str::to_owned), of("sub_2").as_deref().map(str::to_owned))
    };
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(now(), (text("acme"), text("globex")));
    let change = |changes: Vec<TableChange>, texts: &[&str]| {
        let name = |text: &&str| Definition::Name { id: NameId::new(text), text: (*text).into() };
        let definitions = texts.iter().map(name).collect();
        data.take_tables(&TablesRead { changes, definitions, ..TablesRead::default() }, NOW);
    };
    let row = |index: usize| tables().swap_remove(index);
    let moved = |valid_from| {
        let TableRow::Subscription(sub) = row(2).row else { unreachable!() };
        super::tests::change(TableRow::Subscription(SubscriptionRow {
            customer: NameId::new("initech"),
            valid_from,
            ..sub
        }))
    };
    // A row of the future names the next customer, whose subscription it is then listed as.
    change(vec![moved(Some(NOW + 1))], &["initech"]);
    assert_eq!(now(), (text("initech"), text("globex")));
    change(vec![row(2)], &["acme"]);
    assert_eq!(now().0, text("acme"));
    assert_eq!(data.directory.customer(NameId::new("initech")), None, "its text is forgotten");
    change(vec![TableChange { deleted: true, ..row(2) }], &[]);
    assert_eq!(now(), (None, text("globex")));
    assert_eq!(data.directory.customer(NameId::new("acme")), None);
    // Without its text a subscription isn't listed; rows of a checkpoint have none at first.
    change(vec![row(2)], &[]);
    assert_eq!(now().0, None);
    change(Vec::new(), &["sub_1", "acme"]);
    assert_eq!(now().0, text("acme"));

    let count = |id: &str| data.directory.key_count(NameId::new(id));
    assert_eq!((count("sub_1"), count("sub_2")), (2, 0));
    let TableRow::Key(key) = row(0).row else { unreachable!() };
    change(
        vec![super::tests::change(TableRow::Key(KeyRow { subscription: NameId::new("sub_2"), ..key }))],
        &[],
    );
    assert_eq!((count("sub_1"), count("sub_2")), (1, 1));
    change(vec![TableChange { deleted: true, ..row(0) }], &[]);
    assert_eq!((count("sub_1"), count("sub_2")), (1, 0));
}

#[test]
fn a_portal_makes_links_that_open_what_a_consumers_token_does() {
    let data = data();
    let mut client = ApiClient::connect(served_with(&data, tokens()));
    let body = r#"{"customer":"acme","expires_in":60}"#;
    for (token, status) in [("root", 200), ("ops", 403), ("edge", 403), ("acme", 404), ("nobody", 401)] {
        assert_eq!(client.ask("POST /v1/links", token, body).status, status, "{token}");
    }
    for (body, status) in [
        (r#"{"customer":"nobody"}"#, 404),
        (r#"{"customer":""}"#, 400),
        (r#"{"customer":"acme","expires_in":59}"#, 400),
        (r#"{"customer":"acme","expires_in":86401}"#, 400),
        (r#"{"customer":"acme","of":1}"#, 400),
        ("{}", 400),
    ] {
        assert_eq!(client.ask("POST /v1/links", "root", body).status, status, "{body}");
    }
    let link = client.ask("POST /v1/links", "root", body).json();
    assert_eq!(link["expires_at"], "2026-03-15T12:01:00Z");
    let token = link["token"].as_str().unwrap();
    assert_eq!(link["path"], format!("/me#token={token}"));
    let mut ask = |line: &str| client.ask(&format!("{line}\nAuthorization: Bearer {token}\r\n"), "", "");
    let session = ask("GET /v1/session").json();
    assert_eq!((&session["role"], &session["customer"]), (&json!("consumer"), &json!("acme")));
    assert_eq!(session["expires_at"], link["expires_at"]);
    let statuses = ["sub_1", "sub_2"].map(|id| ask(&format!("GET /v1/subscriptions/{id}/quota")).status);
    assert_eq!((statuses, ask("POST /v1/check").status), ([200, 404], 404));
}

#[test]
fn pages_are_behind_no_token_and_run_nothing_but_themselves() {
    let data = data();
    let (address, monitor) = watched(&data, tokens(), None);
    let mut client = ApiClient::connect(address);
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/me", "text/html; charset=utf-8"),
        ("/assets/app.css", "text/css; charset=utf-8"),
    ] {
        let page = client.ask(&format!("GET {path}"), "", "");
        assert_eq!((page.status, page.header("content-type")), (200, Some(kind)), "{path}");
        let policy = "default-src 'self'; base-uri 'none'; form-action 'none'; object-src 'none'; \
                      frame-ancestors https://portal.example.com";
        assert_eq!(page.header("content-security-policy"), Some(policy));
        assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(page.header("cache-control"), Some("no-cache"));
        let tag = page.header("etag").unwrap();
        let again = client.ask(&format!("GET {path}\nIf-None-Match: {tag}\r\n"), "", "");
        assert_eq!((again.status, again.header("etag")), (304, Some(tag)));
        assert!(again.header("content-security-policy").is_some());
    }
    for path in ["/assets/none", "/assets/../me", "/v1", "/me/x"] {
        assert_eq!(client.ask(&format!("GET {path}"), "", "").status, 401, "{path}");
    }
    let pages = monitor.counts(NOW).routes[ROUTES.iter().position(|route| *route == "pages").unwrap()];
    assert_eq!((pages.codes[0], pages.codes[1]), (3, 3));
}

#[test]
fn incidents_of_others_are_no_news_for_a_customer() {
    let data = data();
    let mut client = ApiClient::connect(served_with(&data, tokens()));
    let incident = |id: u64, customer: &str, score: u8| {
        let line = json!({
            "incident_id": format!("{id:032x}"), "key_id": "k", "subscription": "s", "customer": customer, "level": "alert",
            "score": score, "state": "open", "opened_at": time(NOW), "last_signal_at": time(NOW), "ended_at": null,
            "signals": [],
        });
        let place = RowPlace { subject: RowSubject::Job, series: id, at: NOW + id, kept: 1 };
        PlacedRow { view: View::Incidents, place, line: Some(line.to_string().into_bytes()) }
    };
    let mut seen = |token: &str| {
        let overview = client.ask("GET /v1/subscriptions/sub_1", token, "").json();
        let listed = client.ask("GET /v1/incidents", token, "");
        let rows = listed.json()["rows"].as_array().unwrap().len();
        (
            overview["changed"]["incidents"].as_str().map(str::to_owned),
            listed.header("etag").unwrap().to_owned(),
            rows,
        )
    };
    let before = seen("acme");
    assert_eq!((before.0.as_deref(), before.2), (None, 0));
    data.shelf.apply(NOW + 1_000, &[incident(1, "globex", 60)]);
    assert_eq!(seen("acme"), before, "it learns nothing of an incident of globex");
    assert_eq!((seen("ops").0, seen("ops").2), (Some(time(NOW + 1_000)), 1));
    data.shelf.apply(NOW + 2_000, &[incident(2, "acme", 60)]);
    let own = seen("acme");
    assert_eq!((own.0.clone(), own.2), (Some(time(NOW + 2_000)), 1));
    data.shelf.apply(NOW + 3_000, &[incident(1, "globex", 70)]);
    assert_eq!(seen("acme"), own);
    data.shelf.apply(NOW + 4_000, &[incident(2, "acme", 80)]);
    let changed = seen("acme");
    assert_eq!((changed.0.clone(), changed.2), (Some(time(NOW + 4_000)), 1));
    assert_ne!(changed.1, own.1);
}
