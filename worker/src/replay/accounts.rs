//! Rows of the accounts of subscriptions of a bounded run.
//!
//! They are made into lines as they come, as their strings are known by then, and kept on disk if there are many. A row
//! may come in several ticks. The last version is the one that is written, unless it takes the row back.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use keytide_config::View;
use keytide_connectors::sink::accounts::{QuotaValue, item_text};
use keytide_connectors::sink::encode::{EncodeRow, Labels};
use keytide_connectors::sink::names::Names;
use keytide_dataflow::model::{EventTime, NameId, Tick};
use keytide_dataflow::*;

use super::sorter::Sorter;
use super::view_file::{RowCounts, ViewFile, ViewFolder};

const VIEWS: [View; 6] =
    [View::Quota, View::Charges, View::Bills, View::Forecast, View::Notices, View::Adjustments];

/// A row that can be sorted.
trait AccountRow: EncodeRow {
    /// Writes bytes that are in the order of the texts of the key columns. No two rows have the same.
    fn sort_key(&self, names: &Names, key: &mut Vec<u8>);
}

/// Writes a text, so that no byte behind it changes the order of texts.
fn text(key: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        key.push(byte);
        if byte == 0 {
            key.push(1);
        }
    }
    key.extend_from_slice(&[0, 0]);
}

/// Writes a subscription by its name. The id tells those apart that have none.
fn subscription(key: &mut Vec<u8>, names: &Names, id: NameId) {
    text(key, names.text(id));
    key.extend_from_slice(&id.0.to_be_bytes());
}

fn instant(key: &mut Vec<u8>, ms: EventTime) {
    key.extend_from_slice(&ms.to_be_bytes());
}

impl<V: QuotaValue> AccountRow for Revision<QuotaKey, V> {
    fn sort_key(&self, names: &Names, key: &mut Vec<u8>) {
        subscription(key, names, self.key.subscription);
        text(key, self.key.measure.name());
        text(key, self.key.period.name());
        instant(key, self.key.start_ms);
    }
}

impl AccountRow for Revision<ChargeKey, Charge> {
    fn sort_key(&self, names: &Names, key: &mut Vec<u8>) {
        subscription(key, names, self.key.bill.subscription);
        instant(key, self.key.bill.start_ms);
        text(key, &item_text(self.key.item, names));
    }
}

impl AccountRow for Revision<BillKey, BillRow> {
    fn sort_key(&self, names: &Names, key: &mut Vec<u8>) {
        subscription(key, names, self.key.subscription);
        instant(key, self.key.start_ms);
    }
}

impl AccountRow for QuotaNotice {
    fn sort_key(&self, names: &Names, key: &mut Vec<u8>) {
        subscription(key, names, self.key.subscription);
        key.extend_from_slice(&self.seq.to_be_bytes());
    }
}

impl AccountRow for Adjustment {
    fn sort_key(&self, names: &Names, key: &mut Vec<u8>) {
        subscription(key, names, self.bill.subscription);
        key.extend_from_slice(&self.seq.to_be_bytes());
    }
}

/// The rows of one worker, as records by view. A record has the length of the row's sort key, this key, and the line,
/// which is empty if the row is taken back.
#[derive(Default)]
pub(super) struct Accounts(BTreeMap<View, Sorter>);

impl Accounts {
    /// Keeps rows of a tick, if they are of accounts. Their strings must be defined.
    pub(super) fn keep(
        &mut self,
        folder: &Path,
        names: &Names,
        tick: Tick,
        rows: &Rows,
    ) -> anyhow::Result<()> {
        match rows {
            Rows::Quota(rows) => self.keep_rows(folder, names, tick, rows),
            Rows::Charges(rows) => self.keep_rows(folder, names, tick, rows),
            Rows::Bills(rows) => self.keep_rows(folder, names, tick, rows),
            Rows::Forecast(rows) => self.keep_rows(folder, names, tick, rows),
            Rows::Notices(rows) => self.keep_rows(folder, names, tick, rows),
            Rows::Adjustments(rows) => self.keep_rows(folder, names, tick, rows),
            _ => Ok(()),
        }
    }

    fn keep_rows<R: AccountRow>(
        &mut self,
        folder: &Path,
        names: &Names,
        tick: Tick,
        rows: &[R],
    ) -> anyhow::Result<()> {
        let sorter = self.0.entry(R::VIEW).or_insert_with(|| Sorter::new(folder));
        let (mut labels, mut sort_key) = (Labels::new(names), Vec::new());
        for row in rows {
            sort_key.clear();
            row.sort_key(names, &mut sort_key);
            let length =
                u32::try_from(sort_key.len()).map_err(|_| io::Error::other("a key of over 4 GiB"))?;
            sorter.add(
                |key| {
                    key.extend_from_slice(&sort_key);
                    key.extend_from_slice(&tick.to_be_bytes());
                },
                |record| {
                    record.extend_from_slice(&length.to_le_bytes());
                    record.extend_from_slice(&sort_key);
                    if !row.is_retracted() {
                        row.line(&mut labels, record);
                    }
                },
            )?;
        }
        Ok(())
    }
}

/// Writes the views of accounts, of which each worker has a part, and notes how many rows they have.
pub(super) fn account_views(
    workers: Vec<Accounts>,
    folder: ViewFolder<'_>,
    rows: &mut RowCounts,
) -> anyhow::Result<()> {
    let mut parts: BTreeMap<View, Vec<Sorter>> = BTreeMap::new();
    for (view, part) in workers.into_iter().flat_map(|worker| worker.0) {
        parts.entry(view).or_default().push(part);
    }
    for view in VIEWS {
        let parts = parts.remove(&view).unwrap_or_default();
        rows[view] = folder.write(view, |file| Ok(newest(parts, file)?))?;
    }
    Ok(())
}

/// Writes the last version of each row, and returns their number.
fn newest(parts: Vec<Sorter>, file: &mut ViewFile) -> io::Result<u64> {
    let (mut count, mut last) = (0, (Vec::new(), Vec::new()));
    let mut put = |line: &[u8]| {
        count += u64::from(!line.is_empty());
        if line.is_empty() { Ok(()) } else { file.line(line) }
    };
    Sorter::merge(parts, |record| {
        let damaged = || io::Error::other("a temporary file has another record than was written");
        let (length, rest) = record.split_first_chunk().ok_or_else(damaged)?;
        let (key, line) = rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(damaged)?;
        if last.0 != key {
            put(&last.1)?;
        }
        last = (key.to_vec(), line.to_vec());
        Ok(())
    })?;
    put(&last.1)?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read as _;

    use keytide_config::FileFormat;
    use keytide_dataflow::model::Definition;
    use proptest::prelude::*;

    use super::*;

    fn bill(id: NameId, start_ms: EventTime, lines: Option<u32>) -> Revision<BillKey, BillRow> {
        let value = lines.map(|lines| BillRow {
            end_ms: start_ms + 1,
            currency: None,
            total: None,
            lines,
            adjustments: 0,
            complete: false,
            is_final: false,
            fault: Some(AccountFault { plan: id, item: NameId::NONE, text: "no plan".into() }),
            customer: NameId::NONE,
            plan: NameId::NONE,
            time_zone: NameId::NONE,
        });
        Revision { key: BillKey { subscription: id, start_ms }, value }
    }

    /// Writes the bills of workers, each with its ticks, and returns the lines and the number of rows.
    fn written(names: &Names, workers: Vec<Vec<(Tick, Rows)>>) -> (Vec<String>, u64) {
        let folder = tempfile::tempdir().unwrap();
        let of = |ticks: Vec<(Tick, Rows)>| {
            let mut accounts = Accounts::default();
            for (tick, rows) in ticks {
                accounts.keep(folder.path(), names, tick, &rows).unwrap();
            }
            accounts
        };
        let mut rows = RowCounts::default();
        let views = ViewFolder { path: folder.path(), format: FileFormat::JsonLines };
        account_views(workers.into_iter().map(of).collect(), views, &mut rows).unwrap();
        let mut text = String::new();
        if let Ok(mut file) = File::open(folder.path().join("bills.jsonl")) {
            file.read_to_string(&mut text).unwrap();
        }
        (text.lines().map(str::to_owned).collect(), rows[View::Bills])
    }

    #[test]
    fn the_last_version_is_written_and_none_of_a_row_that_is_taken_back() {
        let ids = ["b", "a", "c"].map(NameId::new);
        let mut names = Names::default();
        for text in ["b", "a", "c"] {
            names.define(Definition::Name { id: NameId::new(text), text: text.into() });
        }
        let [b, a, c] = ids;
        let first = vec![
            (1, Rows::Bills(vec![bill(b, 5, Some(1)), bill(a, 7, Some(1)), bill(a, 6, Some(1))])),
            (9, Rows::Bills(vec![bill(b, 5, Some(3))])),
            (3, Rows::Bills(vec![bill(b, 5, Some(2)), bill(a, 7, None)])),
        ];
        let second =
            vec![(2, Rows::Bills(vec![bill(c, 1, None)])), (4, Rows::Bills(vec![bill(c, 1, Some(4))]))];
        let (lines, count) = written(&names, vec![first, second]);
        let shown: Vec<(String, u64)> = lines
            .iter()
            .map(|line| {
                let row: serde_json::Value = serde_json::from_str(line).unwrap();
                (row["subscription"].as_str().unwrap().to_owned(), row["lines"].as_u64().unwrap())
            })
            .collect();
        assert_eq!(shown, [("a".to_owned(), 1), ("b".to_owned(), 3), ("c".to_owned(), 4)]);
        assert_eq!(count, 3);
        assert_eq!(written(&names, vec![vec![(1, Rows::Bills(vec![bill(a, 1, None)]))]]), (Vec::new(), 0));
        assert_eq!(written(&names, Vec::new()), (Vec::new(), 0));
    }

    proptest! {
        #[test]
        fn rows_are_in_the_order_of_their_names_and_starts(
            texts in prop::collection::btree_set("[\0\u{1}a:]{0,4}", 1..12), starts in prop::collection::btree_set(0_u64..1_000, 1..4)
        ) {
            let mut names = Names::default();
            let mut rows = Vec::new();
            for text in texts.iter().rev() {
                let id = NameId::new(text);
                names.define(Definition::Name { id, text: text.as_str().into() });
                rows.extend(starts.iter().rev().map(|start| bill(id, *start, Some(1))));
            }
            let mut keys: Vec<Vec<u8>> = Vec::new();
            for row in &rows {
                let mut key = Vec::new();
                row.sort_key(&names, &mut key);
                keys.push(key);
            }
            prop_assert!(keys.windows(2).all(|pair| pair[0] > pair[1]), "{:?}", texts);
        }
    }
}
