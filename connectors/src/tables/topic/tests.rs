use std::collections::BTreeMap;

use keytide_dataflow::model::{Definition, KeyId, KeyRow, KeyState, NameId, TableChange, TableRow};
use keytide_dataflow::ownership::Ownership;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use TopicFormat::{Debezium, JsonUpsert};

const HASH: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
const OTHER: &str = "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752";
const CANARY: &str = "kt_live_9f3b1c77a2d04e5e8c61b0a4d7e2f913";

/// A table and what came of its records.
struct Tester {
    table: TopicTable,
    out: TablesRead,
    offset: u64,
}

impl Tester {
    fn new(table: TableSchema, format: TopicFormat) -> Self {
        Self { table: TopicTable::new(table, "rows", format), out: TablesRead::default(), offset: 0 }
    }

    fn keys(format: TopicFormat) -> Self {
        Self::new(TableSchema::keys(&[KeyHash::Sha256]), format)
    }

    /// What a record changes: rows by name, `-` before those that are deleted.
    fn says(&mut self, key: Option<&str>, value: Option<&str>) -> Vec<String> {
        let before = self.out.changes.len();
        self.table.apply(3, self.offset, key.map(str::as_bytes), value.map(str::as_bytes), &mut self.out);
        self.offset += 1;
        self.out.changes[before..].iter().map(|change| self.told(change)).collect()
    }

    fn told(&self, change: &TableChange) -> String {
        let name = |id: NameId| {
            let text = self.out.definitions.iter().find_map(|definition| match definition {
                Definition::Name { id: of, text } if *of == id => Some(&**text),
                _ => None,
            });
            text.unwrap_or("none")
        };
        let told = match &change.row {
            TableRow::Key(row) => {
                let from = row.valid_from.map(|from| format!(" from {from}")).unwrap_or_default();
                format!("{} of {}{from}", &row.key.to_string()[..4], name(row.subscription))
            }
            TableRow::Subscription(row) => format!("{} on {}", name(row.id), name(row.plan)),
            TableRow::Plan(row) => format!("{} {:?}", name(row.id), row.policy),
            TableRow::Leak(row) => format!("{} at {}", &row.key.to_string()[..4], name(row.url)),
            TableRow::Quota(row) => format!("{:?} {:?} {}", row.measure, row.period, row.limit.limit),
            TableRow::Price(row) => format!("{} up to {:?}", name(row.item), row.tier.up_to),
            TableRow::Token(row) => format!("{:02x} for {:?}", row.digest.0[0], row.role),
        };
        if change.deleted { format!("-{told}") } else { told }
    }

    fn reasons(&self) -> Vec<&str> {
        self.out.dead_letters.iter().map(|letter| letter.reason.as_str()).collect()
    }
}

fn key(hash: &str, subscription: &str) -> String {
    json!({ "key_hash": hash, "subscription": subscription }).to_string()
}

fn dated_key(hash: &str, subscription: &str, from_s: u8) -> String {
    json!({ "key_hash": hash, "subscription": subscription, "valid_from": format!("1970-01-01T00:00:{from_s:02}Z") })
        .to_string()
}

fn plan(id: &str, policy: &str) -> String {
    json!({ "id": id, "policy": policy }).to_string()
}

fn event(op: &str, before: Option<&str>, after: Option<&str>) -> String {
    let row = |row: Option<&str>| row.unwrap_or("null").to_owned();
    format!(
        r#"{{"before":{},"after":{},"source":{{"db":"x"}},"op":"{op}","ts_ms":1,"transaction":null}}"#,
        row(before),
        row(after)
    )
}

#[test]
fn upserts_and_tombstones() {
    let mut plans = Tester::new(TableSchema::Plans, JsonUpsert);
    let (alert, revoke) = (plan("gold", "alert"), plan("gold", "revoke"));
    assert_eq!(plans.says(Some("k"), Some(&alert)), ["gold Alert"]);
    assert!(plans.says(Some("k"), Some(&alert)).is_empty(), "the same again");
    assert_eq!(plans.says(Some("k"), Some(&revoke)), ["gold Revoke"]);
    assert!(plans.says(Some("other"), None).is_empty(), "a tombstone of an unknown key");
    assert_eq!(plans.says(Some("k"), None), ["-gold Revoke"]);
    assert!(plans.says(Some("k"), None).is_empty());
    assert_eq!(plans.says(Some("k"), Some(&alert)), ["gold Alert"]);
    assert_eq!(plans.says(Some("k"), Some(" null ")), ["-gold Alert"]);

    let offsets: Vec<_> = plans.out.changes.iter().map(|change| change.offset).collect();
    assert_eq!(offsets, [0, 1, 2, 3, 4]);
    assert_eq!((plans.table.rows(), &plans.reasons()[..]), (0, &[][..]));
}

#[test]
fn another_identity_under_a_message_key_replaces_the_row() {
    let mut keys = Tester::keys(JsonUpsert);
    assert_eq!(keys.says(Some("7"), Some(&key(HASH, "a"))), ["9f86 of a"]);
    assert_eq!(keys.says(Some("7"), Some(&key(OTHER, "a"))), ["6030 of a", "-9f86 of a"]);
    assert_eq!(keys.says(Some("7"), None), ["-6030 of a"]);
}

#[test]
fn a_row_ends_with_its_last_message_key() {
    let mut plans = Tester::new(TableSchema::Plans, JsonUpsert);
    assert_eq!(plans.says(Some("1"), Some(&plan("gold", "alert"))), ["gold Alert"]);
    assert_eq!(plans.says(Some("2"), Some(&plan("gold", "revoke"))), ["gold Revoke"]);
    assert_eq!(plans.says(Some("2"), None), ["gold Alert"], "the other one holds again");
    assert_eq!(plans.says(Some("2"), Some(&plan("gold", "revoke"))), ["gold Revoke"]);
    assert!(plans.says(Some("1"), None).is_empty(), "the newer one held and holds");
    assert_eq!(plans.says(Some("2"), None), ["-gold Revoke"]);
}

/// A key with a dated row is stated as a whole, behind a deletion, the row in force last.
#[test]
fn dated_rows_of_a_key_are_facts_and_the_latest_is_in_force() {
    let mut keys = Tester::keys(JsonUpsert);
    assert_eq!(
        keys.says(Some("2"), Some(&dated_key(HASH, "b", 2))),
        ["-9f86 of b from 2000", "9f86 of b from 2000"]
    );
    let both = ["-9f86 of b from 2000", "9f86 of a from 1000", "9f86 of b from 2000"];
    assert_eq!(keys.says(Some("1"), Some(&dated_key(HASH, "a", 1))), both);
    assert!(keys.says(Some("1"), Some(&dated_key(HASH, "a", 1))).is_empty(), "the same again");
    assert_eq!(keys.says(Some("1"), None), ["-9f86 of b from 2000", "9f86 of b from 2000"]);
    assert_eq!(keys.says(Some("1"), Some(&dated_key(HASH, "a", 1))), both);
    assert_eq!(keys.says(Some("2"), None), ["-9f86 of b from 2000", "9f86 of a from 1000"]);
    let undated = ["-9f86 of a from 1000", "9f86 of c", "9f86 of a from 1000"];
    assert_eq!(keys.says(Some("3"), Some(&key(HASH, "c"))), undated, "undated: beneath what is dated");
    assert_eq!(keys.says(Some("1"), None), ["-9f86 of a from 1000", "9f86 of c"]);
    assert_eq!(keys.says(Some("3"), Some(&key(HASH, "d"))), ["9f86 of d"]);
    assert_eq!(keys.says(Some("3"), None), ["-9f86 of d"]);
}

#[test]
fn what_a_topic_holds_is_stated_as_rows_without_what_they_superseded() {
    let mut keys = Tester::keys(JsonUpsert);
    keys.says(Some("1"), Some(&key(HASH, "old")));
    keys.says(Some("2"), Some(&dated_key(HASH, "after", 2)));
    keys.says(Some("1"), Some(&key(HASH, "before")));
    keys.says(Some("3"), Some(&key(OTHER, "gone")));
    keys.says(Some("3"), None);
    keys.out.changes.clear();
    keys.table.go_on(&TablesMemory::default(), &mut keys.out);
    let told: Vec<String> = keys.out.changes.iter().map(|change| keys.told(change)).collect();
    assert_eq!(told, ["9f86 of before", "9f86 of after from 2000"]);
    let offsets: Vec<u64> = keys.out.changes.iter().map(|change| change.offset).collect();
    assert_eq!(offsets, [0, 1]);
    keys.says(Some("4"), Some(&key(OTHER, "new")));
    assert_eq!(keys.out.changes[2].offset, 2);
}

#[test]
fn records_without_a_message_key_stand_for_themselves() {
    let mut keys = Tester::keys(JsonUpsert);
    assert_eq!(keys.says(None, Some(&key(HASH, "a"))), ["9f86 of a"]);
    assert_eq!(keys.says(None, Some(&key(HASH, "b"))), ["9f86 of b"]);
    assert_eq!(keys.says(Some(""), Some(&key(OTHER, "b"))), ["6030 of b"]);
    assert!(keys.says(None, None).is_empty());
    assert_eq!(keys.reasons(), ["deletes a row without saying which: it has no message key"]);
    assert_eq!(keys.table.rows(), 2);

    let mut keys = Tester::keys(Debezium);
    keys.says(None, Some(&event("c", None, Some(&key(HASH, "a")))));
    assert_eq!(keys.says(None, Some(&event("d", Some(&key(HASH, "a")), None))), ["-9f86 of a"]);
    keys.says(None, Some(&event("d", None, None)));
    assert_eq!(keys.reasons(), ["deletes a row without saying which: it has no message key"]);
}

#[test]
fn a_key_with_a_hash_and_a_name_is_two() {
    let mut keys = Tester::new(TableSchema::keys(&[KeyHash::Sha256, KeyHash::None]), JsonUpsert);
    let both = json!({ "key_hash": HASH, "key_id": "acme", "subscription": "a" }).to_string();
    let acme = KeyId::from_name("acme");
    keys.says(Some("1"), Some(&both));
    assert!(keys.out.definitions.contains(&Definition::Key { id: acme, name: "acme".into(), month: None }));
    let named = json!({ "key_id": "acme", "subscription": "a" }).to_string();
    assert_eq!(keys.says(Some("1"), Some(&named)), ["-9f86 of a"]);
    assert_eq!(keys.says(Some("1"), None).len(), 1);
}

#[test]
fn change_events_of_debezium() {
    for wrap in
        [|event: String| event, |event| format!(r#"{{"schema":{{"type":"struct"}},"payload":{event}}}"#)]
    {
        let mut plans = Tester::new(TableSchema::Plans, Debezium);
        let mut says = |op, before: Option<&str>, after: Option<&str>| {
            plans.says(Some(r#"{"id":"gold"}"#), Some(&wrap(event(op, before, after))))
        };
        let (alert, revoke) = (plan("gold", "alert"), plan("gold", "revoke"));
        assert_eq!(says("r", None, Some(&alert)), ["gold Alert"]);
        assert!(says("c", None, Some(&alert)).is_empty(), "a snapshot and a stream overlap");
        assert_eq!(says("u", Some(&alert), Some(&revoke)), ["gold Revoke"]);
        assert_eq!(says("d", None, None), ["-gold Revoke"]);
        assert!(plans.says(Some(r#"{"id":"gold"}"#), None).is_empty(), "the tombstone after it");

        plans.says(Some("1"), Some(&wrap(event("c", None, Some(&plan("b", "alert"))))));
        plans.says(Some("2"), Some(&wrap(event("c", None, Some(&plan("a", "alert"))))));
        let mut deleted = plans.says(None, Some(&wrap(event("t", None, None))));
        deleted.sort();
        assert_eq!(deleted, ["-a Alert", "-b Alert"]);
        assert_eq!((plans.table.rows(), &plans.reasons()[..]), (0, &[][..]));
    }
}

#[test]
fn rows_may_have_a_schema_beside_them() {
    for schema in ["null", r#"{"type":"struct"}"#] {
        let mut plans = Tester::new(TableSchema::Plans, JsonUpsert);
        let wrapped = format!(r#"{{"schema":{schema},"payload":{}}}"#, plan("gold", "alert"));
        assert_eq!(plans.says(Some("1"), Some(&wrapped)), ["gold Alert"]);
    }
    let mut plans = Tester::new(TableSchema::Plans, JsonUpsert);
    assert_eq!(plans.says(Some("1"), Some(r#"{"id":"gold","payload":{}}"#)), ["gold Alert"], "just a field");
}

#[test]
fn a_bad_record_is_a_dead_letter_and_changes_nothing() {
    let mut keys = Tester::keys(JsonUpsert);
    keys.says(Some("1"), Some(&key(HASH, "a")));
    let long = key(HASH, &"x".repeat(513));
    let huge = key(HASH, &"x".repeat(ROW_BYTES));
    let hugest = " ".repeat(RECORD_BYTES + 1);
    for value in [
        "",
        "[]",
        &format!("[1,{},null,null,null]", key(HASH, "b")),
        "{}",
        "{\n\n}}",
        r#"{"subscription":"s"}"#,
        &long,
        &huge,
        &hugest,
    ] {
        assert!(keys.says(Some("1"), Some(value)).is_empty(), "{value}");
    }
    assert_eq!(
        keys.reasons(),
        [
            "not one JSON object: wrong at byte 0",
            "not one JSON object: wrong at byte 0",
            "not one JSON object: wrong at byte 0",
            "`key_hash` is required",
            "not one JSON object: wrong at line 3, byte 2",
            "`key_hash` is required",
            "`subscription` is longer than 512 bytes",
            "longer than 256 KiB",
            "longer than 1024 KiB",
        ]
    );
    let letter = &keys.out.dead_letters[5];
    assert_eq!(letter.location, RowLocation::Topic { topic: "rows".into(), partition: 3, offset: 6 });
    assert_eq!((letter.location.to_string().as_str(), letter.length), ("rows[3]@6", 20));
    assert_eq!(letter.sha256, <[u8; 32]>::from(Sha256::digest(r#"{"subscription":"s"}"#)));
    assert_eq!(keys.says(Some("1"), None), ["-9f86 of a"], "what was held stayed");

    let mut keys = Tester::keys(Debezium);
    let row = key(HASH, "a");
    for value in [
        &row,
        "[1]",
        r#"{"op":7}"#,
        r#"{"op":"c","op":"c"}"#,
        &event("u", Some(&row), None),
        &event("x", None, None),
        &event("c", None, Some("7")),
        r#"{"schema":null,"payload":null}"#,
    ] {
        assert!(keys.says(Some("1"), Some(value)).is_empty(), "{value}");
    }
    let no_op = "`op` is missing: is the topic's format json-upsert?";
    assert_eq!(
        keys.reasons(),
        [
            no_op,
            "not a Debezium change event: wrong at its first byte",
            "not a Debezium change event: wrong at byte 7",
            "not a Debezium change event: wrong at byte 14",
            "`after` is missing",
            "`op` must be one of c, u, d, r, t, m",
            "not one JSON object: wrong at byte 1",
            no_op,
        ]
    );
}

/// One row as it is held.
fn held(tester: &mut Tester) -> KeyRow {
    let mut out = TablesRead::default();
    tester.table.go_on(&TablesMemory::default(), &mut out);
    match &out.changes[..] {
        [TableChange { row: TableRow::Key(row), .. }] => row.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_the_database_leaves_out_is_kept() {
    let full = json!({
        "key_hash": HASH, "subscription": "a", "state": "suspended", "allow_list": ["DE", "FR"], "contact": ["a@b", "c@d"],
        "created_at": 1_735_689_600_000_000_u64, "consumer": "acme"
    });
    for (format, keyed) in [(Debezium, true), (Debezium, false), (JsonUpsert, true)] {
        for placeholder in [
            json!("__debezium_unavailable_value"),
            json!(["__debezium_unavailable_value"]),
            json!({ "__debezium_unavailable_value": "__debezium_unavailable_value" }),
            json!("X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ=="),
        ] {
            let mut keys = Tester::keys(format);
            let message_key = keyed.then_some("1");
            let mut say = |row: &serde_json::Value| {
                let row = row.to_string();
                let value = if format == Debezium { event("u", None, Some(&row)) } else { row };
                keys.says(message_key, Some(&value))
            };
            say(&full);
            let mut update = full.clone();
            update["subscription"] = json!("b");
            for column in ["allow_list", "contact", "created_at", "consumer", "state"] {
                update[column] = placeholder.clone();
            }
            assert_eq!(say(&update), ["9f86 of b"], "{placeholder}");
            let row = held(&mut keys);
            assert_eq!(
                (row.allowed.len(), row.state, row.created_at),
                (2, KeyState::Suspended, Some(1_735_689_600_000))
            );
            assert_eq!((row.contact, row.place.consumer), (NameId::new("a@b;c@d"), NameId::new("acme")));
            assert_eq!((keys.out.unread, keys.reasons(), &keys.out.warnings[..]), (0, vec![], &[][..]));
        }
    }
}

#[test]
fn what_is_left_out_and_not_held_is_unknown() {
    // Compaction may have taken the record that said it.
    let mut keys = Tester::keys(Debezium);
    let left_out = "__debezium_unavailable_value";
    let row = json!({ "key_hash": HASH, "subscription": "a", "allow_list": left_out });
    for _ in 0..2 {
        keys.says(Some("1"), Some(&event("u", None, Some(&row.to_string()))));
    }
    assert!(held(&mut keys).allowed.is_empty());
    let warning = "tables.keys: rows[3]@0 has a value that can't be read and counts as unknown (told once a column): \
                   `allow_list` was left out because it didn't change, and no row is held that has it";
    assert_eq!((keys.out.unread, &keys.out.warnings[..]), (1, &[warning.to_owned()][..]));
    let nobody = json!({ "key_hash": OTHER, "subscription": left_out }).to_string();
    assert!(keys.says(Some("2"), Some(&event("u", None, Some(&nobody)))).is_empty());
    let reason = "`subscription` was left out because it didn't change, and no row is held that has it";
    assert_eq!(keys.reasons(), [reason]);
}

#[test]
fn rows_that_say_that_they_are_gone_are() {
    for format in [JsonUpsert, Debezium] {
        for gone in [json!("true"), json!(true), json!("TRUE")] {
            for key in [Some("1"), None] {
                let mut keys = Tester::keys(format);
                let row = |deleted: serde_json::Value, subscription: Option<&str>| {
                    json!({ "key_hash": HASH, "subscription": subscription, "__deleted": deleted, "__ts_ms": 1 }).to_string()
                };
                assert_eq!(keys.says(key, Some(&row(json!("false"), Some("a")))), ["9f86 of a"]);
                assert_eq!(keys.says(key, Some(&row(gone.clone(), None))), ["-9f86 of a"], "{gone}");
                assert!(keys.says(Some("1"), None).is_empty(), "the tombstone after it");
                assert_eq!((keys.reasons(), &keys.out.warnings[..]), (vec![], &[][..]));
            }
        }
    }
}

#[test]
fn what_is_not_about_rows_is_passed_over() {
    for format in [JsonUpsert, Debezium] {
        let mut keys = Tester::keys(format);
        for value in [
            r#"{"op":"m","ts_ms":1,"source":{},"message":{"prefix":"x","content":"aGk="}}"#,
            r#"{"ts_ms":1763642000000}"#,
            r#"{"schema":{"type":"struct"},"payload":{"ts_ms":1763642000000}}"#,
            r#"{"status":"BEGIN","id":"571:53195829","ts_ms":1,"event_count":null,"data_collections":null}"#,
            r#"{"status":"END","id":"571:53195829","ts_ms":1,"event_count":2,"data_collections":[{}]}"#,
            r#"{"source":{},"ts_ms":1,"databaseName":"x","schemaName":null,"ddl":"ALTER TABLE keys","tableChanges":[]}"#,
        ] {
            assert!(keys.says(Some("x"), Some(value)).is_empty(), "{value}");
        }
        assert_eq!((keys.reasons(), &keys.out.warnings[..]), (vec![], &[][..]));
        keys.says(Some("x"), Some(r#"{"ts_ms":1,"x":2}"#));
        assert_eq!(keys.reasons().len(), 1, "nor is anything else");
    }
}

#[test]
fn times_and_numbers_as_databases_have_them() {
    let mut keys = Tester::keys(Debezium);
    for created_at in [
        json!(1_735_689_600_000_000_000_u64),
        json!(1_735_689_600_000_000_u64),
        json!(1_735_689_600_000_u64),
        json!(1_735_689_600.0),
        json!(20_089),
        json!("2025-01-01"),
        json!("2025-01-01 00:00:00"),
        json!({ "scale": 0, "value": "AZQfKXwA" }),
        json!("AZQfKXwA"),
    ] {
        let row = json!({ "KEY_HASH": HASH, "SUBSCRIPTION": { "scale": 0, "value": "Bw==" }, "CREATED_AT": created_at });
        keys.says(Some("1"), Some(&event("u", None, Some(&row.to_string()))));
        let row = held(&mut keys);
        assert_eq!(row.created_at, Some(1_735_689_600_000), "{created_at}");
        assert_eq!(row.subscription, NameId::new("7"));
    }
    // The schema says what base64 is a number, and its scale.
    let decimal = |field: &str| json!({ "type": "bytes", "name": "org.apache.kafka.connect.data.Decimal", "parameters": { "scale": "2" }, "field": field });
    let fields = json!([decimal("SUBSCRIPTION")]);
    let row = json!({ "KEY_HASH": HASH, "SUBSCRIPTION": "Arw=" });
    let change = json!({
        "schema": { "type": "struct", "fields": [{ "field": "before", "fields": [] }, { "field": "after", "fields": fields }] },
        "payload": { "op": "u", "before": null, "after": row }
    });
    assert_eq!(keys.says(Some("1"), Some(&change.to_string())), ["9f86 of 7"], "7.00 is 7");
    let mut upserts = Tester::keys(JsonUpsert);
    let wrapped = json!({ "schema": { "type": "struct", "fields": fields }, "payload": row });
    assert_eq!(upserts.says(Some("1"), Some(&wrapped.to_string())), ["9f86 of 7"]);
}

#[test]
fn frames_of_a_schema_registry_are_skipped() {
    for format in [JsonUpsert, Debezium] {
        let mut keys = Tester::keys(format);
        let row = key(HASH, "a");
        let value = if format == Debezium { event("c", None, Some(&row)) } else { row };
        assert_eq!(
            keys.says(Some("\0\0\0\0\u{1}\"k\""), Some(&format!("\0\0\0\0\u{7}{value}"))),
            ["9f86 of a"]
        );
        assert!(keys.says(Some("k"), Some("\0\0\0\0\u{7}\u{2}avro")).is_empty());
        assert_eq!(keys.reasons(), [crate::framing::NOT_JSON]);
    }
}

#[test]
fn fields_that_are_not_used_are_named_once() {
    let mut plans = Tester::new(TableSchema::Plans, JsonUpsert);
    for value in [r#"{"id":"a","x":1}"#, r#"{"id":"b","x":2}"#, r#"{"id":"c","y":3}"#] {
        plans.says(Some(value), Some(value));
    }
    assert_eq!(
        plans.out.warnings,
        [
            "tables.plans: topic rows has fields that are not used here: x",
            "tables.plans: topic rows has fields that are not used here: x, y",
        ]
    );
}

#[test]
fn a_raw_key_is_found_nowhere() {
    for format in [JsonUpsert, Debezium] {
        let mut keys = Tester::keys(format);
        for row in [
            key(CANARY, "a"),
            json!({ "key_hash": HASH, "subscription": [CANARY] }).to_string(),
            json!({ "key_hash": { CANARY: 1 } }).to_string(),
            json!({ "key_hash": HASH, "subscription": "s", CANARY: 1 }).to_string(),
            json!(CANARY).to_string(),
            format!("{{\"key_hash\":\"{CANARY}\" \"x\"}}"),
        ] {
            keys.says(Some(CANARY), Some(&row));
            keys.says(Some(CANARY), Some(&event("c", Some(&row), Some(&row))));
        }
        for op in [CANARY, "d"] {
            keys.says(None, Some(&event(op, Some(&key(CANARY, "a")), None)));
        }
        assert!(keys.out.dead_letters.len() >= 6);
        assert!(!format!("{:?}", keys.out).contains(CANARY), "{:#?}", keys.out);
    }
}

#[test]
fn reports_of_leaks_come_and_go_and_tokens_stay_out() {
    let mut leaks = Tester::new(TableSchema::leaks(&[KeyHash::Sha256]), JsonUpsert);
    let report = |token: &str, url: &str| json!({ "token": token, "url": url }).to_string();
    // A message key may be the token itself.
    let first = leaks.says(Some(CANARY), Some(&report(CANARY, "https://a.example")));
    let [ref first] = first[..] else { panic!("{first:?}") };
    assert!(first.ends_with(" at https://a.example"), "{first}");
    let again = leaks.says(Some("scan-2"), Some(&report(CANARY, "https://b.example")));
    assert_eq!(again, [first.replace("a.example", "b.example")]);
    // The newer report goes: the older one holds.
    assert_eq!(leaks.says(Some("scan-2"), None), std::slice::from_ref(first));
    assert_eq!(leaks.says(Some(CANARY), None), [format!("-{first}")]);
    // Without a message key a key's newest report counts.
    assert_eq!(leaks.says(None, Some(&report(CANARY, "https://a.example"))), std::slice::from_ref(first));
    assert_eq!(leaks.says(None, Some(&report(CANARY, "https://c.example"))).len(), 1);
    assert!(leaks.says(Some(CANARY), Some(&format!("{{\"token\":{{\"{CANARY}\":1}}}}"))).is_empty());
    assert!(leaks.says(None, None).is_empty());
    assert_eq!(leaks.reasons().len(), 2);
    assert!(!format!("{:?}", leaks.out).contains(CANARY), "{:?}", leaks.out);

    let mut debezium = Tester::new(TableSchema::leaks(&[KeyHash::Sha256]), Debezium);
    let change = |op: &str| json!({ "op": op, "before": null, "after": { "token": CANARY, "source": "s" } });
    assert_eq!(debezium.says(Some(CANARY), Some(&change("c").to_string())).len(), 1);
    let gone = json!({ "op": "d", "before": { "token": CANARY } });
    assert!(debezium.says(Some(CANARY), Some(&gone.to_string()))[0].starts_with('-'));
    assert!(!format!("{:?}", debezium.out).contains(CANARY));
}

#[test]
fn quotas_and_prices_by_topic() {
    let mut quotas = Tester::new(TableSchema::Quotas, Debezium);
    let row = |limit: &str| format!(r#"{{"plan":"gold","metric":"calls","period":"day","limit":{limit}}}"#);
    assert_eq!(quotas.says(Some("1"), Some(&event("c", None, Some(&row("7"))))), ["Calls Day 7"]);
    assert!(quotas.says(Some("1"), Some(&event("u", None, Some(&row("-7"))))).is_empty());
    assert_eq!(
        quotas.reasons(),
        ["`limit` must be a whole number below 2^63, such as 10000; a limit of cost an amount such as 49.90"]
    );
    // A name that the database didn't repeat, and a number, which it always repeats.
    let kept = row("8").replace("gold", "__debezium_unavailable_value");
    assert_eq!(quotas.says(Some("1"), Some(&event("u", None, Some(&kept)))), ["Calls Day 8"]);
    let Some(TableRow::Quota(now)) = quotas.out.changes.last().map(|change| &change.row) else {
        panic!("a quota")
    };
    assert_eq!(now.holder, keytide_dataflow::model::QuotaHolder::Plan(NameId::new("gold")));
    assert!(quotas.says(Some("2"), Some(&event("u", None, Some(&kept)))).is_empty(), "no row has its plan");
    let left_out = row(r#""__debezium_unavailable_value""#);
    assert!(quotas.says(Some("1"), Some(&event("u", None, Some(&left_out)))).is_empty());
    assert_eq!(quotas.reasons()[2], "`limit` was left out because it didn't change");
    // A deleted row often has nothing but its database's key.
    assert_eq!(quotas.says(Some("1"), Some(r#"{"id":1,"__deleted":"true"}"#)), ["-Calls Day 8"]);
    assert_eq!(quotas.says(None, Some(&event("c", None, Some(&row("9"))))), ["Calls Day 9"]);
    let gone = r#"{"plan":"gold","metric":"calls","period":"day"}"#;
    assert_eq!(quotas.says(None, Some(&event("d", Some(gone), None))), ["-Calls Day 9"]);
    assert!(quotas.says(None, Some(&event("d", Some(r#"{"plan":"gold"}"#), None))).is_empty());
    assert_eq!(quotas.reasons().last(), Some(&"`metric` is empty"));

    let mut prices = Tester::new(TableSchema::Prices, JsonUpsert);
    let tier = |up_to: &str, from: &str| {
        format!(
            r#"{{"plan":"gold","item":"calls","metric":"calls","model":"graduated","up_to":{up_to},"unit_price":1,"valid_from":{from}}}"#
        )
    };
    assert_eq!(prices.says(Some("a"), Some(&tier("10", "null"))), ["calls up to Some(10)"]);
    assert_eq!(prices.says(Some("b"), Some(&tier("null", "null"))), ["calls up to None"]);
    let most = i64::MAX.to_string();
    assert_eq!(prices.says(Some("c"), Some(&tier(&most, "null"))), [format!("calls up to Some({most})")]);
    // A dated row of a tier doesn't end the one without a date.
    assert_eq!(
        prices.says(Some("d"), Some(&tier("10", "\"2026-01-01\""))),
        ["-calls up to Some(10)", "calls up to Some(10)", "calls up to Some(10)"]
    );
    assert_eq!(prices.says(Some("d"), None), ["-calls up to Some(10)", "calls up to Some(10)"]);
    assert_eq!(prices.says(Some("a"), None), ["-calls up to Some(10)"]);
    assert_eq!(prices.reasons(), [""; 0]);
}

#[test]
fn a_record_that_is_no_row_ends_the_token_of_its_message_key() {
    let mut tester = Tester::new(TableSchema::Tokens, JsonUpsert);
    let row = |hash: &str, rest: &str| format!(r#"{{"token_hash":"{hash}",{rest}}}"#);
    let admin = row(HASH, r#""role":"admin""#);
    assert_eq!(tester.says(Some("7"), Some(&admin)), ["9f for Admin"]);
    assert_eq!(tester.says(Some("8"), Some(&row(OTHER, r#""role":"ops""#))), ["60 for Ops"]);
    assert_eq!(
        tester.says(Some("7"), Some(&row(HASH, r#""role":"admin","state":"revokd""#))),
        ["-9f for Admin"]
    );
    assert_eq!(tester.reasons(), ["`state` must be one of active, suspended, revoked"]);
    assert_eq!(tester.says(Some("7"), Some(&admin)), ["9f for Admin"]);
    assert_eq!(tester.says(Some("7"), Some("{")), ["-9f for Admin"]);
    assert_eq!(tester.says(Some("7"), Some(&admin)), ["9f for Admin"]);
    assert_eq!(tester.says(Some("7"), None), ["-9f for Admin"]);
    // Without a message key the row is told apart by its hash.
    assert_eq!(tester.says(None, Some(&admin)), ["9f for Admin"]);
    assert_eq!(tester.says(None, Some(&row(HASH, r#""__deleted":true"#))), ["-9f for Admin"]);
    let mut memory = TablesMemory::default();
    tester.table.remember(&mut memory);
    assert!(memory.is_empty(), "a checkpoint has no token");

    let mut tester = Tester::new(TableSchema::Tokens, Debezium);
    let created = event("c", None, Some(&admin));
    assert_eq!(tester.says(Some("7"), Some(&created)), ["9f for Admin"]);
    let unchanged = row(HASH, r#""role":"__debezium_unavailable_value""#);
    assert_eq!(tester.says(Some("7"), Some(&event("u", None, Some(&unchanged)))), ["-9f for Admin"]);
    assert_eq!(tester.says(Some("7"), Some(&created)), ["9f for Admin"]);
    assert_eq!(tester.says(Some("7"), Some(&event("d", Some(&admin), None))), ["-9f for Admin"]);
}

#[test]
fn the_configured_topics() {
    let client = KafkaClient { brokers: "127.0.0.1:9092".to_owned(), settings: BTreeMap::new() };
    let topic =
        |format| Some(TableSource::Kafka { client: client.clone(), topic: "rows".to_owned(), format });
    let file = TableSource::File { path: "keys.csv".into(), format: keytide_config::TableFormat::Csv };
    let tables = Tables {
        keys: Some(file),
        subscriptions: topic(JsonUpsert),
        plans: topic(Debezium),
        leaks: topic(JsonUpsert),
        quotas: topic(Debezium),
        prices: None,
        tokens: topic(JsonUpsert),
    };
    let topics = TopicTable::configured(&tables, &[KeyHash::Sha256]);
    let found: Vec<_> = topics.iter().map(|(of, table)| (*of, table.name(), table.topic())).collect();
    assert_eq!(found, ["subscriptions", "plans", "leaks", "quotas"].map(|table| (&client, table, "rows")));
    let (of, tokens) = TopicTable::tokens(&tables).unwrap();
    assert_eq!((of, tokens.name()), (&client, "tokens"));
}

/// What a random record does to the row of a message key.
#[derive(Clone, Debug)]
enum Step {
    Upsert {
        slot: u8,
        key: u8,
        subscription: u8,
        from_s: Option<u8>,
    },
    Delete {
        slot: u8,
    },
    Truncate,
    Bad {
        slot: u8,
    },
    /// The tick ends.
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    let upsert = (0..4_u8, 0..3_u8, 0..3_u8, proptest::option::of(0..4_u8))
        .prop_map(|(slot, key, subscription, from_s)| Step::Upsert { slot, key, subscription, from_s });
    prop_oneof![
        8 => upsert,
        4 => (0..4_u8).prop_map(|slot| Step::Delete { slot }),
        1 => Just(Step::Truncate),
        1 => (0..4_u8).prop_map(|slot| Step::Bad { slot }),
        4 => Just(Step::Close),
    ]
}

/// A row of the model: key, subscription, since when.
type ModelRow = (u8, u8, Option<u8>);

/// Who owns a key at a time, from scratch: rows by message key, in the order in which they were written.
fn model(rows: &[(u8, ModelRow)], key: u8, at: u64) -> NameId {
    let of_key = rows.iter().map(|row| row.1).filter(|row| row.0 == key);
    let come = of_key.filter(|row| row.2.is_none_or(|from| date(from) <= at));
    let owner = come.max_by_key(|row| row.2).map(|row| NameId::new(&name_of(row.1)));
    owner.unwrap_or(NameId::NONE)
}

/// A date of a row in ms.
fn date(from_s: u8) -> u64 {
    u64::from(from_s) * 1_000
}

fn hash_of(key: u8) -> String {
    (key + 2).to_string().repeat(64)
}

fn id_of(key: u8) -> KeyId {
    KeyId(u128::from_str_radix(&hash_of(key)[..32], 16).unwrap())
}

fn name_of(subscription: u8) -> String {
    format!("s{subscription}")
}

/// The histories of keys, as a reader makes them of a tick's changes.
#[derive(Default)]
struct Reader(BTreeMap<KeyId, Ownership>);

impl Reader {
    fn take(&mut self, changes: &[TableChange], now: u64) {
        let mut of_keys: BTreeMap<KeyId, Vec<(&KeyRow, bool)>> = BTreeMap::new();
        for change in changes {
            let TableRow::Key(row) = &change.row else { panic!("a key") };
            of_keys.entry(row.key).or_default().push((row, change.deleted));
        }
        for (key, changes) in of_keys {
            self.0.entry(key).or_default().take(&changes, now);
        }
    }

    fn owner(&self, key: u8, at: u64) -> NameId {
        self.0.get(&id_of(key)).map_or(NameId::NONE, |history| history.owner(at))
    }
}

proptest! {
    /// After each tick the owners, now and at every later time, are the model's: for a reader that followed the
    /// changes, and for one that starts from what the topic states. Dates lie before, at and after each tick.
    #[test]
    fn changes_and_a_new_start_have_the_owners_of_a_model(
        steps in proptest::collection::vec(step(), 1..60),
        debezium in any::<bool>(),
        before_is_known in any::<bool>(),
    ) {
        let format = if debezium { Debezium } else { JsonUpsert };
        let mut table = Tester::keys(format).table;
        let mut out = TablesRead::default();
        let mut rows: Vec<(u8, ModelRow)> = Vec::new();
        let mut reader = Reader::default();
        let (mut bad, mut next_offset, mut now) = (0, 0, 500);
        for (offset, step) in steps.into_iter().chain([Step::Close]).enumerate() {
            let record = match step {
                Step::Upsert { slot, key: of, subscription, from_s } => {
                    rows.retain(|row| row.0 != slot);
                    rows.push((slot, (of, subscription, from_s)));
                    let name = name_of(subscription);
                    let row = from_s.map_or_else(|| key(&hash_of(of), &name), |from| dated_key(&hash_of(of), &name, from));
                    let before = before_is_known.then(|| key(OTHER, "before"));
                    Some((slot, Some(if debezium { event("u", before.as_deref(), Some(&row)) } else { row })))
                }
                Step::Delete { slot } => {
                    rows.retain(|row| row.0 != slot);
                    Some((slot, (debezium && before_is_known).then(|| event("d", None, None))))
                }
                Step::Truncate if debezium => {
                    rows.clear();
                    Some((0, Some(event("t", None, None))))
                }
                Step::Bad { slot } => {
                    bad += 1;
                    Some((slot, Some("{\"key_hash\":".to_owned())))
                }
                Step::Truncate => None,
                Step::Close => {
                    let offsets: Vec<u64> = out.changes.iter().map(|change| change.offset).collect();
                    prop_assert!(offsets.iter().copied().eq((next_offset..).take(offsets.len())));
                    reader.take(&out.changes, now);
                    out.changes.clear();
                    let mut stated = TablesRead::default();
                    table.go_on(&TablesMemory::default(), &mut stated);
                    next_offset = stated.changes.len() as u64;
                    let mut started = Reader::default();
                    started.take(&stated.changes, now);
                    for of in 0..3 {
                        for at in (0..8).map(|step| now + step * 500) {
                            let expected = model(&rows, of, at);
                            prop_assert_eq!(reader.owner(of, at), expected, "followed: key {} at {}", of, at);
                            prop_assert_eq!(started.owner(of, at), expected, "started: key {} at {}", of, at);
                        }
                    }
                    prop_assert_eq!(table.rows(), rows.len());
                    now += 500;
                    None
                }
            };
            if let Some((slot, value)) = record {
                table.apply(0, offset as u64, Some(&[slot]), value.as_deref().map(str::as_bytes), &mut out);
            }
        }
        prop_assert_eq!(out.dead_letters.len(), bad);
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        records in proptest::collection::vec(
            (proptest::option::of(proptest::collection::vec(any::<u8>(), 0..4)),
             proptest::option::of(proptest::collection::vec(any::<u8>(), 0..60))), 0..20),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
    ) {
        for format in [JsonUpsert, Debezium] {
            let mut table = Tester::keys(format).table;
            let mut out = TablesRead::default();
            for (key, value) in &records {
                table.apply(0, 0, key.as_deref(), value.as_deref(), &mut out);
            }
            let row = key(HASH, "a");
            let mut bytes = event("u", Some(&row), Some(&row)).into_bytes();
            for (at, byte) in &damage {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
                table.apply(0, 0, None, Some(&bytes), &mut out);
                table.apply(0, 0, Some(b"k"), Some(&bytes), &mut out);
            }
        }
    }
}
