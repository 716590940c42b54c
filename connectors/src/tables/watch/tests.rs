use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use keytide_config::TableFormat::{Csv, Jsonl};
use keytide_dataflow::model::PlanRow;
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const HASH: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
const OTHER: &str = "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752";

/// A watched file in a folder of its own.
struct Tester {
    folder: TempDir,
    watched: WatchedTables,
    next_offset: u64,
    versions: u32,
}

impl Tester {
    fn plans(format: TableFormat, text: &str) -> (Self, TablesRead) {
        Self::open(format, text, |plans| Tables { plans, ..Tables::default() })
    }

    fn open(
        format: TableFormat,
        text: &str,
        tables: impl Fn(Option<TableSource>) -> Tables,
    ) -> (Self, TablesRead) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table");
        fs::write(&path, text).unwrap();
        let tables = tables(Some(TableSource::File { path, format }));
        let (watched, read) =
            WatchedTables::open(&tables, &[KeyHash::Sha256], &TablesMemory::default()).unwrap();
        let mut tester = Self { folder, watched, next_offset: 0, versions: 0 };
        tester.check_offsets(&read);
        (tester, read)
    }

    /// Replaces the file, as an editor does: two versions never look the same.
    fn write(&mut self, text: &str) {
        self.versions += 1;
        let path = self.folder.path().join("table");
        let new = self.folder.path().join(format!("new-{}", self.versions));
        fs::write(&new, text).unwrap();
        // The old one stays, so that its inode isn't used again.
        let _ = fs::rename(&path, self.folder.path().join(format!("old-{}", self.versions)));
        fs::rename(&new, &path).unwrap();
    }

    /// What the new version changes, at the second look at it.
    fn reload(&mut self, text: &str) -> Option<TablesRead> {
        self.write(text);
        self.settle()
    }

    fn settle(&mut self) -> Option<TablesRead> {
        assert_eq!(self.watched.poll(), None, "read before it is known to be whole");
        let read = self.watched.poll();
        self.check_offsets(read.as_ref().unwrap_or(&TablesRead::default()));
        read
    }

    fn check_offsets(&mut self, read: &TablesRead) {
        for change in &read.changes {
            assert_eq!(change.offset, self.next_offset);
            self.next_offset += 1;
        }
    }

    /// A sentence about the file, as a warning.
    fn warning(&self, table: &str, what: &str) -> String {
        format!("tables.{table}: {} {what}", self.folder.path().join("table").display())
    }
}

/// Rows by the hash of their name, `-` where deleted.
fn plans(read: &TablesRead) -> Vec<(bool, NameId)> {
    let plan = |change: &TableChange| match &change.row {
        TableRow::Plan(PlanRow { id, .. }) => (!change.deleted, *id),
        _ => panic!("a plan"),
    };
    read.changes.iter().map(plan).collect()
}

fn put(id: &str) -> (bool, NameId) {
    (true, NameId::new(id))
}

fn gone(id: &str) -> (bool, NameId) {
    (false, NameId::new(id))
}

/// A key's earlier assignment has no date: nothing that follows it at the start may hide it.
#[test]
fn the_first_read_is_that_of_a_bounded_run() {
    let text = format!(
        "key_hash,subscription,valid_from\n{HASH},before,\n{OTHER},only,\n{HASH},after,2025-06-02T09:00:00Z\n"
    );
    let (tester, first) = Tester::open(Csv, &text, |keys| Tables { keys, ..Tables::default() });
    let path = tester.folder.path().join("table");
    let tables = Tables { keys: Some(TableSource::File { path, format: Csv }), ..Tables::default() };
    let bounded = crate::tables::read(&tables, &[KeyHash::Sha256]).unwrap();
    let rows = |read: &TablesRead| {
        let mut by_key: BTreeMap<KeyId, Vec<TableRow>> = BTreeMap::new();
        for change in &read.changes {
            assert!(!change.deleted);
            let TableRow::Key(row) = &change.row else { panic!("a key") };
            by_key.entry(row.key).or_default().push(change.row.clone());
        }
        by_key
    };
    assert_eq!(rows(&first), rows(&bounded));
}

#[test]
fn a_changed_file_is_read_as_a_diff() {
    for (format, texts) in [
        (Csv, ["id,name\na,A\nb,B\n", "id,name\nb,B\nc,C\n", "id,name\nc,C\nb,New\nc,C\n"]),
        (
            Jsonl,
            [
                "{\"id\":\"a\",\"name\":\"A\"}\n{\"id\":\"b\",\"name\":\"B\"}\n",
                "{\"id\":\"b\",\"name\":\"B\"}\n{\"id\":\"c\",\"name\":\"C\"}\n",
                "{\"id\":\"c\",\"name\":\"C\"}\n{\"id\":\"b\",\"name\":\"New\"}\n",
            ],
        ),
    ] {
        let (mut tester, read) = Tester::plans(format, texts[0]);
        assert_eq!(BTreeSet::from_iter(plans(&read)), BTreeSet::from([put("a"), put("b")]));
        assert_eq!(tester.watched.poll(), None);
        assert_eq!(tester.watched.poll(), None);

        let read = tester.reload(texts[1]).unwrap();
        assert_eq!(plans(&read), [put("c"), gone("a")]);
        let defined = |text: &str| Definition::Name { id: NameId::new(text), text: text.into() };
        assert_eq!(read.definitions, ["c", "C"].map(defined), "only what is new");
        assert_eq!(tester.watched.poll(), None);

        let read = tester.reload(texts[2]).unwrap();
        assert_eq!((plans(&read), read.definitions), (vec![put("b")], ["b", "New"].map(defined).to_vec()));
        assert_eq!(tester.reload(&texts[2].replace("C\n", "C \n")), None, "other bytes, the same rows");
        assert_eq!(tester.watched.paths().collect::<Vec<_>>(), [tester.folder.path().join("table")]);
    }
}

#[test]
fn a_file_that_is_being_written_is_left_alone() {
    let (mut tester, _) = Tester::plans(Csv, "id\na\nb\n");
    for text in ["i", "id\n", "id\na\n", "id\na\nb\nc\n"] {
        tester.write(text);
        assert_eq!(tester.watched.poll(), None, "{text}");
    }
    assert_eq!(plans(&tester.watched.poll().unwrap()), [put("c")]);
}

#[test]
fn a_bad_reload_leaves_the_table_as_it_was() {
    let (mut tester, _) = Tester::plans(Csv, "id\na\nb\n");
    let kept = "; the table keeps its 2 rows";
    let no_column = tester.warning(
        "plans",
        "has no column `id`, which is required; CSV columns are separated by commas and named in the first line",
    );
    for text in ["", "name\na\n"] {
        let read = tester.reload(text).unwrap();
        assert!(read.changes.is_empty() && read.dead_letters.is_empty());
        assert_eq!(read.warnings, [format!("{no_column}{kept}")]);
        assert_eq!(tester.watched.poll(), None, "told once");
    }
    let read = tester.reload("id\n").unwrap();
    let empty = "has no good row any more: the table keeps its 2 rows; to empty it, restart the job";
    assert_eq!((read.changes, read.warnings), (vec![], vec![tester.warning("plans", empty)]));
    let read = tester.reload("id\n\"\"\n").unwrap();
    assert_eq!((read.changes.len(), read.dead_letters.len(), read.warnings.len()), (0, 1, 1));

    fs::remove_file(tester.folder.path().join("table")).unwrap();
    let read = tester.settle().unwrap();
    let missing = format!("tables.plans: can't read {}: ", tester.folder.path().join("table").display());
    assert!(read.warnings[0].starts_with(&missing) && read.warnings[0].ends_with(kept), "{read:?}");
    assert_eq!((read.changes.len(), read.warnings.len()), (0, 1));
    assert_eq!(tester.watched.poll(), None, "told once");

    assert_eq!(plans(&tester.reload("id\nb\nc\n").unwrap()), [put("c"), gone("a")]);
}

#[test]
fn a_row_that_became_bad_is_not_taken_for_deleted() {
    let (mut tester, read) = Tester::plans(Csv, "id,policy\na,alert\nb,alert\nc,alert\n,x\n");
    assert_eq!(read.dead_letters.len(), 1);
    let read = tester.reload("id,policy\nb,alert\nc,alert\n,x\n").unwrap();
    assert_eq!(plans(&read), [gone("a")], "what was bad all along holds up nothing");
    assert_eq!(read.dead_letters, [], "nor is it told again");

    let read = tester.reload("id,policy\nb\n,x\nd,alert\n").unwrap();
    assert_eq!((plans(&read), read.dead_letters.len()), (vec![put("d")], 1));
    let held_up = "has new bad rows (1): 2 rows that are missing from it stay until these are corrected";
    assert_eq!(read.warnings, [tester.warning("plans", held_up)]);
    let read = tester.reload("id,policy\nb\n,x\nd,alert\n\n").unwrap();
    assert_eq!((plans(&read), read.dead_letters.len()), (vec![], 1), "still");

    let read = tester.reload("id,policy\nb,observe\nd,alert\n").unwrap();
    assert_eq!((plans(&read), read.warnings), (vec![put("b"), gone("c")], vec![]));
}

#[test]
fn a_key_ends_with_its_last_row() {
    let keys = |keys| Tables { keys, ..Tables::default() };
    let head = "key_hash,subscription,valid_from\n";
    let row = |hash: &str, subscription: &str, year: &str| {
        let from = if year.is_empty() { String::new() } else { format!("{year}-01-01T00:00:00Z") };
        format!("{hash},{subscription},{from}\n")
    };
    let (old, new, other) = (row(HASH, "a", "2024"), row(HASH, "b", "2025"), row(OTHER, "c", ""));
    let (mut tester, _) = Tester::open(Csv, &format!("{head}{old}{new}{other}"), keys);
    let mut says = |rows: String| {
        let read = tester.reload(&format!("{head}{rows}")).unwrap();
        let row = |change: &TableChange| match &change.row {
            TableRow::Key(row) => (change.deleted, row.subscription, row.valid_from.is_some()),
            _ => panic!("a key"),
        };
        read.changes.iter().map(row).collect::<Vec<_>>()
    };
    let (a, b) = (NameId::new("a"), NameId::new("b"));
    // All rows of a key with dates are stated behind a deletion.
    assert_eq!(says(format!("{new}{other}")), [(true, b, true), (false, b, true)], "history was pruned");
    assert_eq!(
        says(format!("{old}{other}")),
        [(true, b, true), (false, a, true), (false, b, true), (true, b, true), (false, a, true)]
    );
    assert_eq!(says(other.clone()), [(true, a, true)]);
    assert_eq!(says(format!("{old}{other}")), [(true, a, true), (false, a, true)]);
}

/// A tier of an older price beside those of a newer one would be a third price, which nobody wrote.
#[test]
fn a_price_is_replaced_as_a_whole_or_stays() {
    let head = "plan,item,metric,model,up_to,unit_price\n";
    let tiers = |item: &str, bound: u32, price: &str| {
        format!("p,{item},calls,graduated,{bound},{price}\np,{item},calls,graduated,,2\n")
    };
    let first = format!("{head}{}{}", tiers("a", 10, "1"), tiers("b", 10, "1"));
    let (mut tester, _) = Tester::open(Csv, &first, |prices| Tables { prices, ..Tables::default() });
    let mut says = |text: String| {
        let read = tester.reload(&text).unwrap();
        let row = |change: &TableChange| match &change.row {
            TableRow::Price(row) => (change.deleted, row.item, row.tier.up_to),
            _ => panic!("a price"),
        };
        (read.changes.iter().map(row).collect::<Vec<_>>(), read.dead_letters.len(), read.warnings)
    };
    let (a, b) = (NameId::new("a"), NameId::new("b"));
    // The tiers of b are no price now, so b keeps those that it had, while a gets its new ones.
    let (changes, letters, warnings) = says(format!("{head}{}{}", tiers("a", 20, "1"), tiers("b", 20, "x")));
    assert_eq!((changes, letters), (vec![(false, a, Some(20)), (true, a, Some(10))], 2));
    assert!(
        warnings[0].ends_with("2 rows that are missing from it stay until these are corrected"),
        "{warnings:?}"
    );
    let (changes, letters, _) = says(format!("{head}{}{}", tiers("a", 20, "1"), tiers("b", 30, "1")));
    assert_eq!((changes, letters), (vec![(false, b, Some(30)), (true, b, Some(10))], 0));
}

/// Tokens by the first byte of their hash, `-` where deleted.
fn tokens(read: &TablesRead) -> Vec<String> {
    let token = |change: &TableChange| match &change.row {
        TableRow::Token(row) => {
            format!("{}{:02x} {:?}", if change.deleted { "-" } else { "" }, row.digest.0[0], row.role)
        }
        _ => panic!("a token"),
    };
    read.changes.iter().map(token).collect()
}

#[test]
fn a_token_ends_with_its_row_whatever_else_the_file_has() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table");
    let text = |rows: &str| format!("token_hash,role,customer\n{rows}");
    fs::write(&path, text(&format!("{HASH},admin,\n{OTHER},check,\n"))).unwrap();
    let tables = Tables { tokens: Some(TableSource::File { path, format: Csv }), ..Tables::default() };
    let (watched, read) = WatchedTables::open_tokens(&tables, &TablesMemory::default()).unwrap();
    let mut tester = Tester { folder, watched, next_offset: 0, versions: 0 };
    tester.check_offsets(&read);
    assert_eq!(tokens(&read), ["60 Check", "9f Admin"]);
    // A new bad row keeps no other row.
    let read = tester.reload(&text(&format!("{OTHER},check,\n{HASH},consumer,\n"))).unwrap();
    assert_eq!((tokens(&read), read.dead_letters.len()), (vec!["-9f Admin".to_owned()], 1));
    // Nor does a file without a single good row.
    let read = tester.reload(&text(&format!("{OTHER},root,\n"))).unwrap();
    assert_eq!((tokens(&read), read.dead_letters.len()), (vec!["-60 Check".to_owned()], 1));
    let read = tester.reload(&text(&format!("{HASH},consumer,acme\n"))).unwrap();
    assert_eq!(tokens(&read).len(), 1);
    let read = tester.reload(&text("")).unwrap();
    assert_eq!(
        (tokens(&read).len(), &read.warnings[..]),
        (1, &[tester.warning("tokens", "has no rows")][..])
    );
    // What isn't the table leaves it as it was.
    let read = tester.reload(&text(&format!("{HASH},ops,\n"))).unwrap();
    assert_eq!(tokens(&read), ["9f Ops"]);
    let read = tester.reload("token,role\n").unwrap();
    assert_eq!((tokens(&read).len(), read.warnings.len()), (0, 1));

    // A checkpoint knows bad rows alone, so a new start reads all tokens, and no letter again.
    tester.reload(&text(&format!("{HASH},ops,\n{OTHER},root,\n"))).unwrap();
    let mut memory = TablesMemory::default();
    tester.watched.remember(&mut memory);
    assert!(memory.is_empty());
    let (_, again) = WatchedTables::open_tokens(&tables, &memory).unwrap();
    assert_eq!((tokens(&again), again.dead_letters.len()), (vec!["9f Ops".to_owned()], 0));
}

#[test]
fn a_first_version_that_cant_be_used_is_an_error() {
    let tables = Tables {
        plans: Some(TableSource::File { path: "no/such.csv".into(), format: Csv }),
        ..Tables::default()
    };
    assert!(matches!(
        WatchedTables::open(&tables, &[], &TablesMemory::default()),
        Err(TableError::Read { .. })
    ));
    let (mut tester, read) = Tester::plans(Jsonl, "");
    assert_eq!((read.changes.len(), read.warnings.len()), (0, 1), "empty, and said so");
    assert_eq!(plans(&tester.reload("{\"id\":\"a\"}").unwrap()), [put("a")]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// A reader of the diffs has the file's last version, the later of two rows with the same id.
    #[test]
    fn diffs_add_up_to_the_file(
        versions in proptest::collection::vec(proptest::collection::vec((0..5_u8, 0..3_u8), 1..8), 1..5),
    ) {
        let policies = ["observe", "alert", "revoke"];
        let text = |rows: &[(u8, u8)]| {
            let lines = rows.iter().map(|(id, policy)| format!("p{id},{}\n", policies[usize::from(*policy)]));
            format!("id,policy\n{}", lines.collect::<String>())
        };
        let mut reader: BTreeMap<NameId, TableRow> = BTreeMap::new();
        let (mut tester, mut read) = Tester::plans(Csv, &text(&versions[0]));
        let mut names: BTreeSet<NameId> = BTreeSet::new();
        for (index, version) in versions.iter().enumerate() {
            if index > 0 {
                read = tester.reload(&text(version)).unwrap_or_default();
            }
            names.extend(read.definitions.iter().filter_map(|definition| match definition {
                Definition::Name { id, .. } => Some(*id),
                _ => None,
            }));
            for change in &read.changes {
                let TableRow::Plan(row) = &change.row else { panic!("a plan") };
                prop_assert!(names.contains(&row.id));
                let before = match change.deleted {
                    true => reader.remove(&row.id),
                    false => reader.insert(row.id, change.row.clone()),
                };
                prop_assert!(change.deleted || before.as_ref() != Some(&change.row), "nothing is told twice");
            }
            let (_, whole) = Tester::plans(Csv, &text(version));
            let expected: BTreeMap<NameId, TableRow> = whole
                .changes
                .into_iter()
                .map(|change| match &change.row {
                    TableRow::Plan(row) => (row.id, change.row),
                    _ => panic!("a plan"),
                })
                .collect();
            prop_assert_eq!(&reader, &expected);
            prop_assert_eq!(tester.reload(&(text(version) + "\n")), None, "the same rows again");
        }
    }
}
