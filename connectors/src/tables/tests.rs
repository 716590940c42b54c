use std::io::Write as _;

use keytide_config::{Secret, TableFormat};
use keytide_dataflow::model::{
    Allowance, Country, EventTime, KeyId, KeyKind, KeyPlace, KeyRow, KeyState, LeakRow, NameId, PlanRow,
    Policy, SubscriptionRow, TableRow,
};
use proptest::prelude::*;
use tempfile::NamedTempFile;

use super::*;
use TableFormat::{Csv, Jsonl};

mod billing;
mod tokens;

const HASH: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
const CANARY: &str = "kt_live_9f3b1c77a2d04e5e8c61b0a4d7e2f913";

/// Reads one table from bytes.
fn read_bytes(
    table: &str,
    format: TableFormat,
    bytes: &[u8],
    hashes: &[KeyHash],
) -> Result<TablesRead, TableError> {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let source = Some(TableSource::File { path: file.path().to_owned(), format });
    let mut tables = Tables::default();
    match table {
        "keys" => tables.keys = source,
        "subscriptions" => tables.subscriptions = source,
        "plans" => tables.plans = source,
        "leaks" => tables.leaks = source,
        "quotas" => tables.quotas = source,
        "prices" => tables.prices = source,
        "tokens" => {
            tables.tokens = source;
            return read_tokens(&tables);
        }
        _ => unreachable!(),
    }
    read(&tables, hashes)
}

fn read_text(table: &str, format: TableFormat, text: &str) -> TablesRead {
    read_bytes(table, format, text.as_bytes(), &[KeyHash::Sha256]).unwrap()
}

fn rows(read: &TablesRead) -> Vec<TableRow> {
    read.changes.iter().map(|change| change.row.clone()).collect()
}

fn line(letter: &TableDeadLetter) -> u64 {
    match letter.location {
        RowLocation::File { line, .. } => line,
        RowLocation::Topic { .. } => unreachable!(),
    }
}

fn reasons(read: &TablesRead) -> Vec<(u64, &str)> {
    read.dead_letters.iter().map(|letter| (line(letter), letter.reason.as_str())).collect()
}

fn time(text: &str) -> Option<EventTime> {
    Some(text.parse::<jiff::Timestamp>().unwrap().as_millisecond().try_into().unwrap())
}

fn key(hash: &str) -> KeyId {
    KeyId(u128::from_str_radix(&hash[..32], 16).unwrap())
}

pub(super) fn plain_key(key: KeyId, subscription: &str) -> KeyRow {
    KeyRow {
        key,
        subscription: NameId::new(subscription),
        valid_from: None,
        state: KeyState::Active,
        kind: KeyKind::Secret,
        created_at: None,
        revoked_at: None,
        last_used_at: None,
        place: KeyPlace::default(),
        allowed: Box::default(),
        contact: NameId::NONE,
    }
}

#[test]
fn every_column_of_keys() {
    let csv = format!(
        "\u{feff}key_hash,subscription,state,kind,created_at,revoked_at,last_used_at,valid_from,consumer,credential,gateway,allow_list,contact\r\n\
         {HASH},sub-1,suspended,publishable,2025-01-02T03:04:05Z,2025-02-01T00:00:00+01:00,2025-01-31T12:00:00.1239Z,2025-01-03T00:00:00Z,acme,cred-1,edge,198.18.0.0/15;DE;AS64500;2001:db8::1;de,ops@example.com; a@b.example;ops@example.com\r\n"
    );
    let json = format!(
        "\u{feff}{{\"key_hash\":\"{HASH}\",\"subscription\":\"sub-1\",\"state\":\"suspended\",\"kind\":\"publishable\",\
          \"created_at\":\"2025-01-02T03:04:05Z\",\"revoked_at\":\"2025-02-01T00:00:00+01:00\",\
          \"last_used_at\":\"2025-01-31T12:00:00.1239Z\",\"valid_from\":\"2025-01-03T00:00:00Z\",\"consumer\":\"acme\",\
          \"credential\":\"cred-1\",\"gateway\":\"edge\",\"allow_list\":[\"198.18.0.0/15\",\"DE\",\"AS64500\",\"2001:db8::1\",\"198.18.7.7/15\"],\
          \"contact\":[\"ops@example.com\",\"a@b.example\"]}}\n"
    );
    let expected = KeyRow {
        key: key(HASH),
        subscription: NameId::new("sub-1"),
        valid_from: time("2025-01-03T00:00:00Z"),
        state: KeyState::Suspended,
        kind: KeyKind::Publishable,
        created_at: time("2025-01-02T03:04:05Z"),
        revoked_at: time("2025-01-31T23:00:00Z"),
        last_used_at: time("2025-01-31T12:00:00.123Z"),
        place: KeyPlace {
            gateway: NameId::new("edge"),
            consumer: NameId::new("acme"),
            credential: NameId::new("cred-1"),
        },
        allowed: [
            Allowance::Network(0x2001_0db8 << 96 | 1, 128),
            Allowance::Network(0xffff_c612_0000, 111),
            Allowance::Country(Country::new("DE")),
            Allowance::Asn(64_500),
        ]
        .into_iter()
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect(),
        contact: NameId::new("ops@example.com;a@b.example"),
    };
    for (format, text) in [(Csv, csv), (Jsonl, json)] {
        let read = read_text("keys", format, &text);
        assert_eq!(rows(&read), [TableRow::Key(expected.clone())]);
        let names = ["sub-1", "edge", "acme", "cred-1", "ops@example.com;a@b.example"];
        assert_eq!(
            read.definitions,
            names.map(|text| Definition::Name { id: NameId::new(text), text: text.into() })
        );
        assert_eq!((&read.dead_letters[..], &read.warnings[..]), (&[][..], &[][..]));
    }
}

#[test]
fn every_column_of_subscriptions_and_plans() {
    let expected = TableRow::Subscription(SubscriptionRow {
        id: NameId::new("sub-1"),
        customer: NameId::new("Acme, \"Inc\""),
        plan: NameId::new("gold"),
        time_zone: NameId::new("America/Argentina/Buenos_Aires"),
        billing_anchor: 31,
        valid_from: None,
        started_at: time("2024-02-29T00:00:00Z"),
        contacts: NameId::new("a@example.com;b@example.com"),
    });
    let csv = "id,customer,plan,contacts,time_zone,billing_anchor,started_at\n\
               sub-1,\"Acme, \"\"Inc\"\"\",gold,a@example.com;b@example.com, America/Argentina/Buenos_Aires ,31,2024-02-29T00:00:00Z\n";
    let json = r#"{"id":"sub-1","customer":"Acme, \"Inc\"","plan":"gold","contacts":["a@example.com","b@example.com"],
                   "time_zone":" America/Argentina/Buenos_Aires ","billing_anchor":31,"started_at":"2024-02-29T00:00:00Z"}"#
        .replace('\n', "");
    let of_csv = read_text("subscriptions", Csv, csv);
    let of_json = read_text("subscriptions", Jsonl, &json);
    assert_eq!(rows(&of_csv), [expected]);
    assert_eq!(of_csv, of_json);
    assert_eq!(of_csv.definitions.len(), 5);

    let expected = [
        PlanRow {
            id: NameId::new("gold"),
            name: NameId::new("Gold"),
            policy: Policy::Revoke,
            fees: Box::default(),
        },
        PlanRow { id: NameId::new("7"), name: NameId::new("7"), policy: Policy::Alert, fees: Box::default() },
    ];
    let csv = "policy,name,id\nrevoke,Gold,gold\n,,7\n";
    let json = "{\"id\":\"gold\",\"name\":\"Gold\",\"policy\":\"revoke\"}\n{\"id\":7,\"name\":null,\"policy\":\"\"}\n";
    let of_csv = read_text("plans", Csv, csv);
    assert_eq!(rows(&of_csv), expected.map(TableRow::Plan));
    assert_eq!(of_csv, read_text("plans", Jsonl, json));
}

#[test]
fn where_a_key_may_be_used_from_and_whom_to_tell() {
    let row = |allowed: &str, contact: &str| {
        let csv = format!("key_hash,subscription,allow_list,contact\n{HASH},s,{allowed},{contact}\n");
        read_text("keys", Csv, &csv)
    };
    let allowed = |list: &str| match rows(&row(list, ""))[..] {
        [TableRow::Key(ref key)] => key.allowed.to_vec(),
        _ => panic!("{list} is refused"),
    };
    assert_eq!(allowed("10.1.2.3/8;;10.0.0.0/8; 10.0.0.0/8"), [Allowance::Network(0xffff_0a00_0000, 104)]);
    assert_eq!(allowed("198.51.100.7"), [Allowance::Network(0xffff_c633_6407, 128)]);
    assert_eq!(allowed("::ffff:198.51.100.7/128"), allowed("198.51.100.7"));
    assert_eq!(
        allowed("de;FR;as64500"),
        [
            Allowance::Country(Country::new("DE")),
            Allowance::Country(Country::new("FR")),
            Allowance::Asn(64_500)
        ]
    );
    for wrong in ["Germany", "10.0.0.0/33", "64500", "ZZ", "xx", "AS4294967296", "DE;office"] {
        let reason =
            "`allow_list` must be a list of networks (CIDR), country codes and AS numbers such as AS64500";
        let read = row(wrong, "");
        assert!(read.unread == 1 && read.warnings[0].ends_with(reason), "{wrong}: {read:?}");
        assert_eq!(allowed(wrong).len(), usize::from(wrong.starts_with("DE")), "what can be read is");
    }
    assert_eq!(allowed(&["DE"; 256].join(";")).len(), 1);
    let many = row(&["DE"; 257].join(";"), "");
    assert!(many.warnings[0].ends_with("`allow_list` has more than 256 elements"), "{many:?}");

    let longest = format!("{}@example.com", "x".repeat(242));
    for right in ["a@b", "dev+keys@sub.example.com", "jürgen@example.com", &longest] {
        assert_eq!((row("", right).dead_letters, row("", right).unread), (vec![], 0));
    }
    let longer = format!("x{longest}");
    for wrong in
        ["ops", "@b", "a@", "a@b@c", "a b@c", "Ops <ops@example.com>", "a@b;mailto:a@b", &longer, CANARY]
    {
        let reason =
            "`contact` must be a list of mail addresses such as ops@example.com, at most 254 bytes each";
        let read = row("", wrong);
        assert!(read.unread == 1 && read.warnings[0].ends_with(reason), "{wrong}: {read:?}");
    }
    let injected = row("", "\"a@b\nbcc:c@d\"");
    assert!(injected.warnings[0].contains("control character"), "{injected:?}");
    let [TableRow::Key(ref injected)] = rows(&injected)[..] else { panic!("one row") };
    assert_eq!(injected.contact, NameId::NONE);
    let json = format!("{{\"key_hash\":\"{HASH}\",\"subscription\":\"s\",\"contact\":[\"a@b;c@d\"]}}\n");
    assert_eq!(read_text("keys", Jsonl, &json).unread, 1, "what separates can't be part");
}

fn leaks(read: &TablesRead) -> Vec<LeakRow> {
    let leak = |row| match row {
        TableRow::Leak(leak) => leak,
        other => panic!("{other:?}"),
    };
    rows(read).into_iter().map(leak).collect()
}

/// The id of a raw key under a source's hash.
fn id(hash: &KeyHash, key: &str) -> KeyId {
    match hash {
        KeyHash::HmacSha256 { secret } => crate::decode::SecretHash::keyed(secret).id(key.as_bytes()),
        _ => crate::decode::SecretHash::Sha256.id(key.as_bytes()),
    }
}

#[test]
fn a_leaked_token_becomes_the_ids_that_the_sources_know_it_by() {
    let hmac = |secret: &str| KeyHash::HmacSha256 { secret: Secret::new(secret) };
    let csv = format!(
        "token,source,url,reported_at\n{CANARY},scanner,https://x.example/a?k={CANARY}#L7,2025-06-02T08:00:00Z\n"
    );
    let read_as = |hashes: &[KeyHash]| read_bytes("leaks", Csv, csv.as_bytes(), hashes);
    let of_sha256 = id(&KeyHash::Sha256, CANARY);
    let url = "https://x.example/a?k={key}#L7";
    for (hashes, expected) in [
        (vec![], vec![of_sha256]),
        (vec![KeyHash::Sha256, KeyHash::Sha256], vec![of_sha256]),
        (vec![KeyHash::Prehashed], vec![of_sha256]),
        (vec![hmac("a")], vec![id(&hmac("a"), CANARY)]),
        (
            vec![hmac("a"), KeyHash::Sha256, hmac("b"), hmac("a"), KeyHash::None],
            vec![of_sha256, id(&hmac("a"), CANARY), id(&hmac("b"), CANARY)],
        ),
    ] {
        let read = read_as(&hashes).unwrap();
        let row = |key| LeakRow {
            key,
            source: NameId::new("scanner"),
            url: NameId::new(url),
            reported_at: time("2025-06-02T08:00:00Z"),
        };
        let mut expected: Vec<_> = expected.into_iter().map(row).collect();
        expected.sort();
        assert_eq!(leaks(&read), expected, "{hashes:?}");
        assert_eq!(read.definitions.len(), 2, "{:?}", read.definitions);
        assert!(!format!("{read:?}").contains(CANARY), "{read:?}");
    }
    let named = read_as(&[KeyHash::None]).unwrap_err();
    assert!(named.to_string().contains("no column `key_id`"), "an identifier is no token: {named}");
}

#[test]
fn leaked_keys_by_hash_and_by_name() {
    let either = [KeyHash::None, KeyHash::Sha256];
    let csv = format!(
        "token,key_hash,key_id,url\n,{HASH},,u\n,,acme,u\ntest,{HASH},,u\n,,,u\n,{CANARY},,u\n,,overflow,u\n,,conflicting,u\n"
    );
    let read = read_bytes("leaks", Csv, csv.as_bytes(), &either).unwrap();
    let found: Vec<_> = leaks(&read).into_iter().map(|leak| leak.key).collect();
    // The hash is that of `test`: one row.
    assert_eq!(found, [key(HASH), KeyId::from_name("acme"), key(HASH)]);
    assert!(
        read.definitions.iter().any(|one| matches!(one, Definition::Key { name, .. } if **name == *"acme"))
    );
    assert_eq!(
        reasons(&read),
        [
            (5, "`token` or `key_hash` or `key_id` is required"),
            (6, "`key_hash` is not a hash: it must have 64 hexadecimal digits"),
            (7, "`key_id` is a reserved name"),
            (8, "`key_id` is a reserved name"),
        ]
    );
}

#[test]
fn a_leaked_token_is_found_nowhere() {
    let long = format!("https://x.example/{}/{CANARY}", "a".repeat(2_030));
    let encoded = CANARY.replace('_', "%5F");
    let csv = format!(
        "token,source,url\n{CANARY},{CANARY},{long}\n{CANARY},by {CANARY}{CANARY},https://x.example/{encoded}?{encoded}\n\
         {CANARY},s,\"u\n{CANARY}\"\n{CANARY}\n\"{CANARY}{}\",s,u\n",
        "x".repeat(4_096)
    );
    let json = format!(
        "{{\"token\":\"{CANARY}\",\"source\":\"{CANARY}\"}}\n{{\"token\":[\"{CANARY}\"]}}\n\
         {{\"token\":\"{CANARY}\",\"reported_at\":\"{CANARY}\"}}\n{{\"token\":\"{CANARY}\" x}}\n{{\"{CANARY}\":1}}\n"
    );
    for (format, text, good, bad) in [(Csv, &csv, 3, 2), (Jsonl, &json, 2, 3)] {
        let read = read_text("leaks", format, text);
        assert_eq!((read.changes.len(), read.dead_letters.len()), (good, bad), "{read:#?}");
        let told = format!("{read:?}");
        assert!(!told.contains(&CANARY[8..]) && !told.contains("5Flive"), "{read:#?}");
    }
    let read = read_text("leaks", Csv, &csv);
    let texts = read.definitions.iter().map(|one| match one {
        Definition::Name { text, .. } => text.len(),
        other => panic!("{other:?}"),
    });
    assert_eq!(texts.max(), Some(2_048), "a URL is cut, after the token is out");
}

#[test]
fn names_of_enumerations() {
    let csv = format!(
        "key_hash,subscription,state,kind\n{HASH},s,active,secret\n{HASH},s,revoked,publishable\n{HASH},s,Active,secret\n"
    );
    let read = read_text("keys", Csv, &csv);
    let states: Vec<_> = read
        .changes
        .iter()
        .map(|change| match &change.row {
            TableRow::Key(row) => (row.state, row.kind),
            _ => unreachable!(),
        })
        .collect();
    let active = (KeyState::Active, KeyKind::Secret);
    assert_eq!(states, [active, (KeyState::Revoked, KeyKind::Publishable), active]);
    assert_eq!((reasons(&read), read.unread), (vec![], 0));

    let read = read_text("plans", Csv, "id,policy\na,observe\nb,alert\nc,suspend\nd,revoke\ne,delete\n");
    let policies: Vec<_> = read
        .changes
        .iter()
        .map(|change| match &change.row {
            TableRow::Plan(row) => row.policy,
            _ => unreachable!(),
        })
        .collect();
    assert_eq!(policies, [Policy::Observe, Policy::Alert, Policy::Suspend, Policy::Revoke, Policy::Alert]);
    let unread = "has a value that can't be read and counts as unknown, in 1 rows, first in line 6: `policy` must be one of observe, alert, suspend, revoke";
    assert!(read.warnings[0].ends_with(unread) && read.unread == 1, "{:?}", read.warnings);
}

#[test]
fn words_of_databases_for_states_and_for_nothing() {
    let state = |word: &str| {
        let read = read_text("keys", Csv, &format!("key_hash,subscription,state\n{HASH},s,{word}\n"));
        let [TableRow::Key(ref row)] = rows(&read)[..] else { panic!("{read:?}") };
        (row.state, read.unread)
    };
    for (words, expected) in [
        ("active,ACTIVE,Enabled,true,1,,NULL", KeyState::Active),
        ("suspended,DISABLED,false,0,inactive,Blocked", KeyState::Suspended),
        ("revoked,Deleted,expired,CANCELLED", KeyState::Revoked),
    ] {
        for word in words.split(',') {
            assert_eq!(state(word), (expected, 0), "{word}");
        }
    }
    assert_eq!(state("zombie"), (KeyState::Active, 1));

    let csv = format!(
        "key_hash,subscription,created_at,revoked_at,last_used_at,contact,consumer,allow_list\n\
         {HASH},s,NULL,\\N,NaN,None,null,NaT\n{HASH},\\N,,,,,,\n"
    );
    let read = read_text("keys", Csv, &csv);
    assert_eq!(rows(&read), [TableRow::Key(plain_key(key(HASH), "s"))]);
    assert_eq!((reasons(&read), read.unread), (vec![(3, "`subscription` is empty")], 0));
}

#[test]
fn names_of_columns_may_differ_in_case() {
    let plain = TableRow::Key(plain_key(key(HASH), "s"));
    for (format, text) in [
        (Csv, format!("KEY_HASH,Subscription\n{HASH},s\n")),
        (Csv, format!("KEY_HASH,key_hash,SUBSCRIPTION\nx,{HASH},s\n")),
        (Jsonl, format!("{{\"KEY_HASH\":\"{HASH}\",\"Subscription\":\"s\"}}\n")),
        (
            Jsonl,
            format!("{{\"KEY_HASH\":\"x\",\"key_hash\":\"{HASH}\",\"Key_Hash\":1,\"SUBSCRIPTION\":\"s\"}}\n"),
        ),
    ] {
        let read = read_text("keys", format, &text);
        assert_eq!((rows(&read), reasons(&read)), (vec![plain.clone()], vec![]), "{text}");
    }
    let twice = read_bytes("keys", Csv, b"KEY_HASH,Key_Hash,subscription\n", &[KeyHash::Sha256]);
    assert!(matches!(twice, Err(TableError::DuplicateColumn { first: 1, second: 2, .. })));
    let twice = read_text(
        "keys",
        Jsonl,
        "{\"KEY_HASH\":\"x\",\"Key_Hash\":\"y\"}\n{\"key_hash\":\"x\",\"subscription\":\"\"}\n",
    );
    assert_eq!(reasons(&twice)[0], (1, "`key_hash` stands twice"));
}

#[test]
fn lists_in_every_form() {
    let expected = ["198.51.100.0/24", "KR"].map(|text| allowances_of(text)[0]);
    for list in [
        r#"["198.51.100.0/24","KR"]"#,
        r#""[\"198.51.100.0/24\",\"KR\"]""#,
        r#""{198.51.100.0/24,\"KR\"}""#,
        r#""198.51.100.0/24;KR""#,
        r#""198.51.100.0/24, KR""#,
        r#"["198.51.100.0/24",null,"KR"]"#,
    ] {
        let json = format!("{{\"key_hash\":\"{HASH}\",\"subscription\":\"s\",\"allow_list\":{list}}}\n");
        let read = read_text("keys", Jsonl, &json);
        let [TableRow::Key(ref row)] = rows(&read)[..] else { panic!("{read:?}") };
        assert_eq!(
            (row.allowed.iter().collect::<std::collections::BTreeSet<_>>(), read.unread),
            (expected.iter().collect(), 0),
            "{list}"
        );
    }
}

fn allowances_of(list: &str) -> Vec<Allowance> {
    let read = read_text("keys", Csv, &format!("key_hash,subscription,allow_list\n{HASH},s,\"{list}\"\n"));
    match rows(&read)[..] {
        [TableRow::Key(ref row)] => row.allowed.to_vec(),
        _ => panic!("{read:?}"),
    }
}

#[test]
fn offsets_count_in_each_table() {
    let directory = tempfile::tempdir().unwrap();
    let table = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        Some(TableSource::File { path, format: Csv })
    };
    let tables = Tables {
        keys: table("keys", &format!("key_hash,subscription\n{HASH},s\nbad,s\n{HASH},t\n")),
        subscriptions: table("subscriptions", "id,plan\ns,p\nt,p\n"),
        plans: table("plans", "id\np\n"),
        leaks: table("leaks", &format!("key_hash\n{HASH}\n")),
        quotas: table("quotas", "plan,metric,period,limit\np,calls,day,1\np,calls,month,1\n"),
        prices: table("prices", "plan,item,metric,unit_price\np,c,calls,1\n"),
        tokens: None,
    };
    let read = read(&tables, &[KeyHash::Sha256]).unwrap();
    let offsets: Vec<_> = read.changes.iter().map(|change| (change.offset, change.deleted)).collect();
    assert_eq!(offsets, [0, 1, 0, 1, 0, 0, 0, 1, 0].map(|offset| (offset, false)));
    assert_eq!(read.definitions.len(), 4, "each string once, over all tables");
    assert_eq!(read.dead_letters.len(), 1);
    let place = RowLocation::File { path: directory.path().join("keys").into(), line: 3 };
    assert_eq!((&*read.dead_letters[0].table, &read.dead_letters[0].location), ("keys", &place));
}

#[test]
fn what_a_hash_may_look_like() {
    let (half, long) = (&HASH[..32], HASH.repeat(2));
    let (prefixed, upper) = (format!("sha256:{HASH}"), HASH.to_uppercase());
    let bytea = format!("\\x{HASH}");
    let hmac = || KeyHash::HmacSha256 { secret: Secret::new("s") };
    let zero = "0".repeat(64);
    for (hash, accepted) in [
        (KeyHash::Sha256, vec![HASH, &bytea, &prefixed, &upper]),
        (hmac(), vec![HASH, &bytea, &upper]),
        (KeyHash::Prehashed, vec![HASH, &bytea, &prefixed, &upper, half, &long]),
    ] {
        for text in [
            HASH,
            &bytea,
            &prefixed,
            &upper,
            half,
            &long,
            &HASH[..31],
            CANARY,
            &zero,
            "+f86d081884c7d659a2feaa0c55ad0152",
            "é",
            "",
        ] {
            let csv = format!("key_hash,subscription\n{text},s\n");
            let read = read_bytes("keys", Csv, csv.as_bytes(), std::slice::from_ref(&hash)).unwrap();
            if accepted.contains(&text) {
                assert_eq!(rows(&read), [TableRow::Key(plain_key(key(HASH), "s"))], "{hash:?} {text}");
            } else {
                assert_eq!((rows(&read), read.dead_letters.len()), (vec![], 1), "{hash:?} {text}");
            }
        }
    }
}

#[test]
fn keys_by_name_and_by_either() {
    let named = [KeyHash::None];
    let read =
        read_bytes("keys", Csv, b"key_id,subscription\nacme,s\noverflow,s\n,s\nconflicting,s\n", &named)
            .unwrap();
    let acme = KeyId::from_name("acme");
    assert_eq!(rows(&read), [TableRow::Key(plain_key(acme, "s"))]);
    assert!(read.definitions.contains(&Definition::Key { id: acme, name: "acme".into(), month: None }));
    let reserved = "`key_id` is a reserved name";
    assert_eq!(reasons(&read), [(3, reserved), (4, "`key_id` is required"), (5, reserved)]);

    let either = [KeyHash::None, KeyHash::Sha256];
    let csv =
        format!("key_hash,key_id,subscription\n{HASH},,s\n,acme,s\n{HASH},acme,t\n,,s\n{CANARY},acme,s\n");
    let read = read_bytes("keys", Csv, csv.as_bytes(), &either).unwrap();
    let expected = [(key(HASH), "s"), (acme, "s"), (key(HASH), "t"), (acme, "t")];
    assert_eq!(rows(&read), expected.map(|(key, subscription)| TableRow::Key(plain_key(key, subscription))));
    assert_eq!(read.changes.iter().map(|change| change.offset).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(
        reasons(&read),
        [
            (5, "`key_hash` or `key_id` is required"),
            (6, "`key_hash` is not a hash: it must have 64 hexadecimal digits")
        ]
    );
}

#[test]
fn a_raw_key_is_found_nowhere() {
    let csv = format!("key_hash,subscription\n{CANARY},s\n\"{CANARY}\",{CANARY},s\n{HASH},s\n");
    let json = format!(
        "{{\"key_hash\":\"{CANARY}\",\"subscription\":\"s\"}}\n{{\"key_hash\":{{\"{CANARY}\":1}},\"subscription\":\"s\"}}\n\
         {{\"key_hash\":\"{HASH}\",\"subscription\":[\"{CANARY}\"]}}\n{{\"key_hash\":\"{CANARY}\" \"x\"}}\n\"{CANARY}\"\n\
         {{\"key_hash\":\"{HASH}\",\"subscription\":\"s\",\"{CANARY}\":1}}\n{{\"key_hash\":\"{HASH}\",\"key_hash\":\"{CANARY}\"}}\n"
    );
    for (format, text, bad) in [(Csv, &csv, 2), (Jsonl, &json, 6)] {
        let read = read_text("keys", format, text);
        assert_eq!((read.changes.len(), read.dead_letters.len()), (1, bad), "{read:#?}");
        assert!(!format!("{read:?}").contains(CANARY), "{read:#?}");
    }
    // A file of raw keys without a header line, or with the keys as column names.
    for text in [format!("{CANARY},s\n{CANARY},s\n"), format!("{CANARY},{CANARY}\n")] {
        let error = read_bytes("keys", Csv, text.as_bytes(), &[KeyHash::Sha256]).unwrap_err();
        assert!(!format!("{error} {error:?}").contains(CANARY), "{error}");
    }
    for column in [CANARY, &CANARY[..30]] {
        let wrong = format!("key_hash,subscription,{column}\n{HASH},s,x\n");
        let read = read_text("keys", Csv, &wrong);
        assert!(read.warnings[0].ends_with("not used here: others"), "{:?}", read.warnings);
    }
}

#[test]
fn one_warning_names_all_unknown_columns() {
    let csv = format!("owner,key_hash,subscription,key_id,note\nx,{HASH},s,y,z\nx,{HASH},s,y,z\n");
    let json = format!(
        "{{\"owner\":1.5,\"key_hash\":\"{HASH}\",\"subscription\":\"s\"}}\n\
         {{\"note\":{{\"deep\":[]}},\"key_id\":true,\"key_hash\":\"{HASH}\",\"subscription\":\"s\"}}\n"
    );
    for (format, text) in [(Csv, csv), (Jsonl, json)] {
        let read = read_text("keys", format, &text);
        assert_eq!(read.changes.len(), 2);
        assert_eq!(read.warnings.len(), 1);
        assert!(read.warnings[0].ends_with("not used here: key_id, note, owner"), "{:?}", read.warnings);
    }
}

#[test]
fn missing_and_duplicate_columns_are_errors() {
    let error =
        |format, text: &str| read_bytes("keys", format, text.as_bytes(), &[KeyHash::Sha256]).unwrap_err();
    for (format, text) in
        [(Csv, ""), (Csv, "state,kind\nactive,secret\n"), (Jsonl, "{\"state\":\"active\"}\n")]
    {
        let error = error(format, text);
        assert!(
            matches!(&error, TableError::MissingColumn { columns, .. }
            if *columns == ["`key_hash`", "`subscription`"]),
            "{error}"
        );
    }
    let semicolons = error(Csv, "key_hash;subscription\n");
    assert!(semicolons.to_string().contains("separated by commas"), "{semicolons}");
    for text in ["key_hash,subscription,state,state\n", "key_hash,subscription,x, x\n"] {
        assert!(matches!(error(Csv, text), TableError::DuplicateColumn { first: 3, second: 4, .. }));
    }
    let either =
        read_bytes("keys", Csv, b"subscription\ns\n", &[KeyHash::Sha256, KeyHash::None]).unwrap_err();
    assert!(either.to_string().contains("no column `key_hash` or `key_id`"), "{either}");
    let missing = Tables {
        plans: Some(TableSource::File { path: "no/such.csv".into(), format: Csv }),
        ..Tables::default()
    };
    let error = read(&missing, &[]).unwrap_err();
    assert!(error.to_string().contains("tables.plans: can't read no/such.csv"), "{error}");
}

#[test]
fn a_table_without_rows_is_worth_a_warning() {
    for (format, text) in [(Csv, "id\n"), (Jsonl, ""), (Jsonl, "\n \n")] {
        let read = read_text("plans", format, text);
        assert_eq!((read.changes.len(), read.warnings.len()), (0, 1));
    }
}

#[test]
fn columns_that_are_not_used_may_hold_any_bytes() {
    let csv = [format!("key_hash,owner,subscription\n{HASH},M").as_bytes(), b"\xfcller,s\n"].concat();
    let read = read_bytes("keys", Csv, &csv, &[KeyHash::Sha256]).unwrap();
    assert_eq!(rows(&read), [TableRow::Key(plain_key(key(HASH), "s"))], "{:?}", read.dead_letters);
}

#[test]
fn bad_rows_are_dead_letters_and_the_others_go_on() {
    let csv = "id,customer,time_zone,billing_anchor,started_at,contacts\r\n\
               \r\n\
               good-1,\"a\nb\",,,,\r\n\
               ,x,,,,\r\n\
               short,x\r\n\
               zone,x,Europe/,,,\r\n\
               zone,x,1Europe,,,\r\n\
               day,x,,32,,\r\n\
               day,x,,+3,,\r\n\
               time,x,,,yesterday,\r\n\
               time,x,,,2025-01-01,\r\n\
               time,x,,,1969-12-31T00:00:00Z,\r\n\
               good-2,x,UTC,1,2025-01-01T00:00:00Z,\r\n\
               contact,x,,,,\"a;b\tc\"\r\n\
               good-3,x,Etc/GMT+1,,,\r\n\
               open,\"x,,,\r\n\
               swallowed,x,,,,";
    let read = read_text("subscriptions", Csv, csv);
    let lines: Vec<_> = reasons(&read).into_iter().map(|(line, _)| line).collect();
    assert_eq!(lines, [5, 6, 17], "{:#?}", read.dead_letters);
    assert_eq!((read.changes.len(), read.unread), (11, 8), "optional columns are unknown");
    let customer = "in 1 rows, first in line 3: `customer` holds a line break or control character: is a closing quote missing?";
    assert!(read.warnings.iter().any(|warning| warning.ends_with(customer)), "{:#?}", read.warnings);
    assert!(
        read.warnings.iter().any(|warning| warning.contains("in 2 rows, first in line 11: `started_at`"))
    );
    let first = &read.dead_letters[0];
    assert_eq!((first.reason.as_str(), first.length), ("`id` is empty", ",x,,,,".len() as u64));
    use sha2::Digest as _;
    assert_eq!(first.sha256, <[u8; 32]>::from(sha2::Sha256::digest(",x,,,,")));

    let json = "{\"id\":\"good\"}\n\n[]\n{\"id\":\"a\"\n{\"id\":1.5}\n{\"id\":true}\n{\"id\":[\"a\"]}\n\
                {\"id\":\"a\",\"contacts\":[1]}\n{\"id\":\"a\"} {}\n{\"id\":\"a\",\"id\":\"a\"}\n{}\n{\"id\":\"good\"}";
    let read = read_text("subscriptions", Jsonl, json);
    let lines: Vec<_> = reasons(&read).into_iter().map(|(line, _)| line).collect();
    assert_eq!(lines, [3, 4, 5, 6, 7, 9, 10, 11], "{:#?}", read.dead_letters);
    assert_eq!((read.changes.len(), read.unread), (3, 1));
}

#[test]
fn allowances() {
    for (list, good) in [
        ("198.18.0.0/15", true),
        ("2001:db8::/32;de;AS1", true),
        ("198.18.0.1", true),
        (" DE ; ; FR ", true),
        ("198.18.0.0/33", false),
        ("DEU", false),
        ("64500", false),
        ("AS-1", false),
        ("AS4294967296", false),
        ("DE,FR", true),
        ("DE,FR;KR", false),
    ] {
        let csv = format!("key_hash,subscription,allow_list\n{HASH},s,\"{list}\"\n");
        assert_eq!(read_text("keys", Csv, &csv).unread == 0, good, "{list}");
    }
}

#[test]
fn hostile_sizes_and_bytes() {
    let long = "x".repeat(ROW_BYTES + 1);
    let json =
        format!("{{\"id\":\"{long}\"}}\n{{\"id\":\"ok\"}}\n{{\"id\":\"{}\"}}\n", &long[..VALUE_BYTES + 1]);
    let read = read_text("plans", Jsonl, &json);
    assert_eq!(reasons(&read), [(1, "longer than 256 KiB"), (3, "`id` is longer than 512 bytes")]);
    use sha2::Digest as _;
    let first = json.lines().next().unwrap();
    assert_eq!(read.dead_letters[0].length, first.len() as u64);
    assert_eq!(read.dead_letters[0].sha256, <[u8; 32]>::from(sha2::Sha256::digest(first)));
    assert_eq!(read.changes.len(), 1);

    let csv = format!("id\na\n\nb,\"{}\n", "y\n".repeat(ROW_BYTES));
    let error = read_bytes("plans", Csv, csv.as_bytes(), &[]).unwrap_err();
    assert!(matches!(error, TableError::RowTooLong { line: 4, .. }), "{error}");

    let deep = format!("{{\"id\":\"a\",\"x\":{}{}}}\n", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(read_text("plans", Jsonl, &deep).changes.len(), 1);

    for (format, bytes) in [
        (Csv, &b"id,x\na\xff,1\n\xff,1\nc,\xff\n"[..]),
        (Jsonl, b"{\"id\":\"a\xff\"}\n\xff\n{\"id\":\"c\"}\n"),
    ] {
        let read = read_bytes("plans", format, bytes, &[]).unwrap();
        assert_eq!((read.changes.len(), read.dead_letters.len()), (1, 2));
    }
}

#[test]
fn too_many_bad_rows_are_an_error() {
    let csv = format!("id,name\n{}", "x\n".repeat(BAD_ROWS + 1));
    let error = read_bytes("plans", Csv, csv.as_bytes(), &[]).unwrap_err();
    assert!(matches!(error, TableError::TooManyBadRows { line: 2, .. }), "{error}");
}

/// A cell that may be anything, good or bad.
fn cell() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just(HASH.to_owned()),
        Just("active".to_owned()),
        Just("2025-01-02T03:04:05.678Z".to_owned()),
        Just("DE;AS64500".to_owned()),
        Just("Europe/Berlin".to_owned()),
        "calls|bytes|day|graduated|GiB|EUR|0\\.5|true|80;90",
        "[0-9]{1,3}",
        "[ a-z;\",äß\\\\]{0,12}",
    ]
}

fn quoted(cell: &str) -> String {
    format!("\"{}\"", cell.replace('"', "\"\""))
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..500),
        header in any::<bool>(),
        table in prop::sample::select(vec!["keys", "subscriptions", "plans", "leaks", "quotas", "prices", "tokens"]),
    ) {
        for format in [Csv, Jsonl] {
            let head: &[u8] = if header { b"key_hash,subscription,id,contact,token\n" } else { b"" };
            let bytes = [head, &bytes].concat();
            let _ = read_bytes(table, format, &bytes, &[KeyHash::Prehashed]);
        }
    }

    #[test]
    fn damaged_tables_never_panic_and_keep_their_neighbours(
        damage in proptest::collection::vec(any::<u8>(), 0..40),
        at in any::<proptest::sample::Index>(),
    ) {
        let line = format!("{{\"key_hash\":\"{HASH}\",\"subscription\":\"s\",\"allow_list\":[\"DE\"]}}");
        let mut middle = line.clone().into_bytes();
        middle.splice(at.index(line.len())..at.index(line.len()), damage);
        let bytes = [line.as_bytes(), b"\n", &middle, b"\n", line.as_bytes()].concat();
        let read = read_bytes("keys", Jsonl, &bytes, &[KeyHash::Sha256]).unwrap();
        prop_assert!(read.changes.len() >= 2);
    }

    #[test]
    fn both_formats_agree(
        table in prop::sample::select(vec!["keys", "subscriptions", "plans", "leaks", "quotas", "prices", "tokens"]),
        cells in proptest::collection::vec(proptest::collection::vec(cell(), 14), 1..20),
    ) {
        let columns = match table {
            "keys" => TableSchema::keys(&[KeyHash::Sha256, KeyHash::None]),
            "subscriptions" => TableSchema::Subscriptions,
            "leaks" => TableSchema::leaks(&[KeyHash::Sha256, KeyHash::None]),
            "quotas" => TableSchema::Quotas,
            "prices" => TableSchema::Prices,
            "tokens" => TableSchema::Tokens,
            _ => TableSchema::Plans,
        }.columns();
        let (mut csv, mut json) = (columns.join(",") + "\n", String::new());
        for row in &cells {
            let cells: Vec<_> = columns.iter().zip(row).collect();
            csv += &cells.iter().map(|(_, cell)| quoted(cell)).collect::<Vec<_>>().join(",");
            csv += "\n";
            let members: serde_json::Map<_, _> =
                cells.iter().map(|(name, cell)| ((**name).to_owned(), cell.as_str().into())).collect();
            json += &serde_json::Value::Object(members).to_string();
            json += "\n";
        }
        let hashes = [KeyHash::Sha256, KeyHash::None];
        let of_csv = read_bytes(table, Csv, csv.as_bytes(), &hashes).unwrap();
        let of_json = read_bytes(table, Jsonl, json.as_bytes(), &hashes).unwrap();
        prop_assert_eq!(&of_csv.changes, &of_json.changes);
        prop_assert_eq!(&of_csv.definitions, &of_json.definitions);
        let letters = |read: &TablesRead, header| {
            read.dead_letters.iter().map(|letter| (line(letter) - header, letter.reason.clone())).collect::<Vec<_>>()
        };
        prop_assert_eq!(letters(&of_csv, 1), letters(&of_json, 0));
    }
}
