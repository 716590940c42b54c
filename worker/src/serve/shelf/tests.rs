//! The shelf against a model that keeps whole rows, and its memory.

use std::collections::BTreeMap;

use keytide_dataflow::model::{KeyId, NameId};
use proptest::prelude::*;

use super::*;

fn place(subject: RowSubject, series: u64, at: u64, kept: usize) -> RowPlace {
    RowPlace { subject, series, at, kept }
}

/// Makes a row of `usage` of a key, with some of the texts that packing looks for.
fn usage_line(key: &str, at: u64, calls: u64, customer: &str) -> Vec<u8> {
    let (key, customer) = (serde_json::to_string(key).unwrap(), serde_json::to_string(customer).unwrap());
    let start = keytide_connectors::sink::encode::time(at);
    format!(
        "{{\"key_id\":{key},\"window\":\"1h\",\"window_start\":\"{start}\",\"calls\":{calls},\"errors_4xx\":0,\"customer\":{customer},\"final\":false}}"
    )
    .into_bytes()
}

fn row(view: View, place: RowPlace, line: Option<Vec<u8>>) -> PlacedRow {
    PlacedRow { view, place, line }
}

fn all(shelf: &Shelf, view: View, subject: RowSubject) -> Vec<Vec<u8>> {
    let found = shelf.rows(view, subject, |_, _| true).unwrap_or_default();
    found.rows.into_iter().map(|(_, row)| row).collect()
}

/// A text with what JSON, packing and names of columns are made of.
fn odd_text() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "\"",
        "\\",
        ",",
        "\":",
        ",\"calls\":",
        "calls",
        "é",
        "\u{10FFFF}",
        "\0",
        "1970-01-01T00:00:01Z",
        "{",
        "x",
    ]);
    prop::collection::vec(pieces, 0..8).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn a_row_comes_back_byte_by_byte(
        key in odd_text(),
        customer in odd_text(),
        at in prop_oneof![Just(1_000_u64), any::<u64>()],
        calls: u64,
    ) {
        let line = usage_line(&key, at, calls, &customer);
        let columns = Columns::new(["calls", "customer", "errors_4xx", "window_start"].map(str::to_owned).into());
        let head = &line[..subject_length(&line, View::Usage)];
        let expected = format!("{{\"key_id\":{}", serde_json::to_string(&key).unwrap());
        prop_assert_eq!(head, expected.as_bytes());
        let packed = columns.pack(&line, head, at);
        prop_assert!(packed.len() < line.len());
        prop_assert_eq!(columns.unpack(&packed, head, at), line);
    }

    #[test]
    fn bytes_that_are_no_row_do_not_panic(bytes: Vec<u8>, head: Vec<u8>) {
        let columns = Columns::new(vec!["calls".to_owned()]);
        columns.unpack(&bytes, &head, 0);
        let length = subject_length(&bytes, View::Latency);
        prop_assert!(length <= bytes.len());
        let shelf = Shelf::new(1 << 20);
        let _ = shelf.restore(&bytes);
    }

    /// Whatever comes, the newest rows of each series are there, in a shelf and in one that was restored at any tick.
    #[test]
    fn the_newest_rows_of_each_series_are_there(
        steps in prop::collection::vec((0_u64..3, 0_u64..3, 0_u64..6, any::<bool>()), 0..60),
        restored_at in 0_usize..60,
    ) {
        let mut shelf = Shelf::new(1 << 20);
        let mut model: BTreeMap<(u64, u64), BTreeMap<u64, Vec<u8>>> = BTreeMap::new();
        for (tick, (key, series, at, is_there)) in steps.into_iter().enumerate() {
            let line = is_there.then(|| usage_line(&key.to_string(), at, tick as u64, "acme"));
            let place = place(RowSubject::Key(KeyId(key.into())), series, at, 3);
            let rows = [row(View::Usage, place, line.clone())];
            let of_series = model.entry((key, series)).or_default();
            match line {
                Some(line) => of_series.insert(at, line),
                None => of_series.remove(&at),
            };
            while of_series.len() > 3 {
                of_series.pop_first();
            }
            if tick == restored_at {
                // The tick of the checkpoint isn't acknowledged, so it comes from what waits.
                let mut memory = shelf.memory();
                memory.apply(tick as u64, &rows);
                shelf = Shelf::new(1 << 20);
                shelf.restore(&memory.encode()).unwrap();
            } else {
                shelf.apply(tick as u64, &rows);
            }
        }
        for key in 0..3_u64 {
            let expected: Vec<Vec<u8>> = model
                .range((key, 0)..(key + 1, 0))
                .flat_map(|(_, rows)| rows.values().cloned())
                .collect();
            prop_assert_eq!(all(&shelf, View::Usage, RowSubject::Key(KeyId(key.into()))), expected);
        }
        let bytes: usize = shelf.shards.iter().flat_map(|shard| {
            shard.read().unwrap().values().map(SubjectRows::bytes).collect::<Vec<_>>()
        }).sum();
        prop_assert_eq!(shelf.bytes(), bytes);
    }
}

#[test]
fn beyond_its_memory_the_subjects_that_did_not_change_for_longest_are_forgotten() {
    let shelf = Shelf::new(100_000);
    let job =
        [row(View::Incidents, place(RowSubject::Job, 1, 5, 1), Some(b"{\"incident_id\":\"1\"}".to_vec()))];
    shelf.apply(1, &job);
    let subject = |key: u64| RowSubject::Key(KeyId(key.into()));
    let rows = |key: u64| {
        let line = usage_line(&key.to_string(), key, key, "acme");
        [row(View::Usage, place(subject(key), 0, key, 3), Some(line))]
    };
    for key in 0..2_000_u64 {
        shelf.apply(2 + key, &rows(key));
        // One that changes all the time.
        shelf.apply(2 + key, &rows(7));
        assert!(shelf.bytes() <= 100_000);
    }
    for (key, is_there) in [(0, false), (7, true), (1_000, false), (1_900, true), (1_999, true)] {
        assert_eq!(shelf.changed(View::Usage, subject(key)).is_some(), is_there, "{key}");
    }
    assert_eq!(all(&shelf, View::Incidents, RowSubject::Job).len(), 1);
    // A key that comes again says since when its rows are there.
    shelf.apply(9_000, &rows(3));
    let since = |key| shelf.rows(View::Usage, subject(key), |_, _| true).unwrap().since;
    assert_eq!((since(3), since(7)), (9_000, 2));
}

#[test]
fn a_subject_has_at_most_so_many_series_and_rows_without_an_end_take_no_memory() {
    let shelf = Shelf::new(64 << 20);
    for incident in 0..SERIES as u64 + 100 {
        let line = format!("{{\"incident_id\":\"{incident}\"}}").into_bytes();
        shelf.apply(1, &[row(View::Incidents, place(RowSubject::Job, incident, incident, 1), Some(line))]);
    }
    let rows = all(&shelf, View::Incidents, RowSubject::Job);
    assert_eq!((rows.len(), rows[0].as_slice()), (SERIES, b"{\"incident_id\":\"100\"}".as_slice()));
    let subscription = RowSubject::Subscription(NameId::new("sub_1"));
    let before = shelf.bytes();
    for at in 0..10_000 {
        let line = format!("{{\"subscription\":\"sub_1\",\"seq\":{at},\"percent\":80}}").into_bytes();
        shelf.apply(at, &[row(View::Notices, place(subscription, 0, at, 100), Some(line))]);
    }
    assert_eq!(all(&shelf, View::Notices, subscription).len(), 100);
    assert!(shelf.bytes() - before < 8_000, "{}", shelf.bytes() - before);
    // What was never there can be taken back.
    shelf.apply(10_000, &[row(View::Bills, place(subscription, 0, 0, 14), None)]);
    assert_eq!(shelf.changed(View::Bills, subscription), None);
}

#[test]
fn rows_of_a_version_with_other_columns_are_read() {
    let shelf = Shelf::new(1 << 20);
    let subject = RowSubject::Key(KeyId(9));
    let line = usage_line("9", 1_000, 5, "acme");
    shelf.apply(3, &[row(View::Usage, place(subject, 0, 1_000, 3), Some(line.clone()))]);
    let mut memory = shelf.memory();
    // That version had one column of another name, in another order.
    let other: Vec<Columns> = View::ALL
        .iter()
        .map(|view| {
            let mut names = memory.columns[*view as usize].names();
            names.reverse();
            names.push("former".to_owned());
            Columns::new(names)
        })
        .collect();
    memory.columns = other.into();
    for shard in &mut memory.shards {
        shard.clear();
    }
    memory.apply(3, &[row(View::Usage, place(subject, 0, 1_000, 3), Some(line.clone()))]);
    let restored = Shelf::new(1 << 20);
    restored.restore(&memory.encode()).unwrap();
    assert_eq!(all(&restored, View::Usage, subject), [line]);
}

#[test]
fn rows_take_a_third_of_their_json() {
    let line = br#"{"key_id":"1f2e3d4c5b6a79881f2e3d4c5b6a7988","window":"1h","window_start":"2026-03-15T12:00:00Z","calls":1234,"errors_4xx":12,"errors_5xx":0,"bytes_in":34567,"bytes_out":1234567,"latency_sum_us":98765432,"latency_calls":1234,"free_calls":3,"units":0,"subscription":"sub_000123","customer":"cus_0042","plan":"gold","complete":false,"final":false}"#;
    let shelf = Shelf::new(1 << 20);
    let columns = &shelf.columns[View::Usage as usize];
    let head = &line[..subject_length(line, View::Usage)];
    let packed = columns.pack(line, head, 1_773_576_000_000);
    assert!(3 * packed.len() <= line.len(), "{} of {}", packed.len(), line.len());
}
