//! Tests of the table of tokens.

use keytide_dataflow::model::{TokenDigest, TokenRole, TokenRow};
use sha2::{Digest as _, Sha256};

use super::*;

fn digest(token: &str) -> TokenDigest {
    TokenDigest(Sha256::digest(token).into())
}

fn digits(token: &str) -> String {
    Sha256::digest(token).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn token(token: &str, role: TokenRole) -> TokenRow {
    let (name, expires_at, state) = (NameId::NONE, None, KeyState::Active);
    TokenRow { digest: digest(token), name, role, expires_at, state }
}

#[test]
fn every_column_of_tokens() {
    let [a, b, c, d] = ["a", "b", "c", "d"].map(digits);
    let csv = format!(
        "token_hash,role,customer,expires_at,state,name\n\
         {a},Admin,,,,\n\
         sha256:{},ops,NULL,2026-03-01,enabled,on call\n\
         \\x{c},check,,,suspended,\n\
         {d},consumer,cus_1,1772323200,deleted,\n",
        b.to_uppercase()
    );
    let json = format!(
        r#"{{"token_hash":"{a}","role":"Admin"}}
           {{"token_hash":"{b}","role":"ops","expires_at":"2026-03-01T00:00:00Z","state":true,"name":"on call"}}
           {{"token_hash":"{c}","role":"check","state":"suspended","customer":null}}
           {{"token_hash":"{d}","role":"consumer","customer":"cus_1","expires_at":1772323200,"state":"revoked"}}"#
    );
    let of_csv = read_text("tokens", Csv, &csv);
    let march = time("2026-03-01T00:00:00Z");
    let expected = [
        token("a", TokenRole::Admin),
        TokenRow { expires_at: march, name: NameId::new("on call"), ..token("b", TokenRole::Ops) },
        TokenRow { state: KeyState::Suspended, ..token("c", TokenRole::Check) },
        TokenRow {
            expires_at: march,
            state: KeyState::Revoked,
            ..token("d", TokenRole::Consumer(NameId::new("cus_1")))
        },
    ];
    assert_eq!(rows(&of_csv), expected.map(TableRow::Token), "{of_csv:?}");
    assert_eq!(of_csv, read_text("tokens", Jsonl, &json));
    // Nothing of it is for the views.
    assert_eq!((&of_csv.definitions[..], &of_csv.warnings[..]), (&[][..], &[][..]));
    assert!(!format!("{of_csv:?}").contains(&a), "a digest is shown");
}

#[test]
fn a_token_that_would_open_more_than_was_meant_is_refused() {
    let hash = digits("a");
    let header = "token_hash,role,customer,expires_at,state,name";
    for (cells, reason) in [
        (
            format!("{CANARY},admin,,,,"),
            "`token_hash` is not a hash: it must have 64 hexadecimal digits, the SHA-256 of the token",
        ),
        (
            format!("{}é,admin,,,,", &hash[..62]),
            "`token_hash` is not a hash: it must have 64 hexadecimal digits, the SHA-256 of the token",
        ),
        (
            format!("{},admin,,,,", &hash[..32]),
            "`token_hash` is not a hash: it must have 64 hexadecimal digits, the SHA-256 of the token",
        ),
        (format!("{},admin,,,,", digits("")), "`token_hash` is the hash of an empty text: hash the token"),
        (",admin,,,,".to_owned(), "`token_hash` is empty"),
        (format!("{hash},,,,,"), "`role` is empty"),
        (format!("{hash},root,,,,"), "`role` must be one of admin, ops, check, consumer"),
        (format!("{hash},consumer,,,,"), "`customer` is empty, and a consumer has one"),
        (
            format!("{hash},check,cus_1,,,"),
            "`customer` has no meaning beside this `role`: only a consumer has one",
        ),
        (
            format!("{hash},admin,,soon,,"),
            "`expires_at` must be a time, such as 2025-06-02T08:00:00Z, or a number of days, s, ms, us or ns since 1970",
        ),
        (format!("{hash},admin,,,revokd,"), "`state` must be one of active, suspended, revoked"),
        (format!("{hash},consumer,{},,,", "x".repeat(513)), "`customer` is longer than 512 bytes"),
    ] {
        let read = read_text("tokens", Csv, &format!("{header}\n{cells}\n"));
        assert_eq!((reasons(&read), &read.changes[..]), (vec![(2, reason)], &[][..]), "{cells}");
        assert!(!format!("{read:?}").contains(CANARY));
    }
    let missing = read_bytes("tokens", Csv, b"token,role\nt,admin\n", &[]).unwrap_err();
    assert!(missing.to_string().contains("has no column `token_hash`, which is required"), "{missing}");
}

#[test]
fn tokens_are_read_by_themselves_alone() {
    let mut file = NamedTempFile::new().unwrap();
    writeln!(file, "token_hash,role\n{},admin", digits("a")).unwrap();
    let source = TableSource::File { path: file.path().to_owned(), format: Csv };
    let tables = Tables { tokens: Some(source), ..Tables::default() };
    assert_eq!(read(&tables, &[]).unwrap(), TablesRead::default());
    let (watched, first) = WatchedTables::open(&tables, &[], &TablesMemory::default()).unwrap();
    assert_eq!((watched.paths().count(), first), (0, TablesRead::default()));
    assert_eq!(TopicTable::configured(&tables, &[]).len(), 0);
    assert_eq!(read_tokens(&tables).unwrap().changes.len(), 1);
    assert_eq!(read_tokens(&Tables::default()).unwrap(), TablesRead::default());
}
