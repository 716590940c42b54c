//! Tables, as files and as topics.
//!
//! The first byte chooses the table, its format and how sources make key ids ([`Choice`]).
//!
//! * Each row of a file is a change or a dead letter, never both, never neither.
//! * Each record of a topic is a dead letter and changes nothing, or it is none. One of tokens may end a token.
//! * What a topic's changes add up to is what its table says that it holds, and reading it again changes nothing. Of the
//!   rows of a key, which are a history, this holds of whether there are any.
//! * No message and no dead letter quotes a cell.

use std::collections::HashMap;

use csv::ByteRecord;
use keytide_config::{KafkaClient, KeyHash, TableFormat, TableSource, Tables, TopicFormat};
use keytide_connectors::tables::{TableDeadLetter, TablesMemory, TablesRead, TopicTable, read, read_tokens};
use keytide_dataflow::model::{TableChange, TableRow};

use crate::{SCRATCH, tells};

struct Choice(u8);

impl Choice {
    fn of(&self, source: TableSource) -> Tables {
        let mut tables = Tables::default();
        match self.0 & 3 {
            0 | 2 if self.is_newer() => tables.quotas = Some(source),
            3 if self.is_newer() => tables.tokens = Some(source),
            _ if self.is_newer() => tables.prices = Some(source),
            0 => tables.subscriptions = Some(source),
            1 => tables.plans = Some(source),
            3 => tables.leaks = Some(source),
            _ => tables.keys = Some(source),
        }
        tables
    }

    fn hash(&self) -> KeyHash {
        match self.0 & 12 {
            0 => KeyHash::Sha256,
            4 => KeyHash::Prehashed,
            _ => KeyHash::None,
        }
    }

    /// Returns whether the table is one of quotas, prices or tokens, which came later than the others.
    fn is_newer(&self) -> bool {
        self.0 & 32 != 0
    }

    /// Returns whether the table is that of leaks, a report in which may name several keys.
    fn is_leaks(&self) -> bool {
        self.0 & 3 == 3 && !self.is_newer()
    }

    fn is_tokens(&self) -> bool {
        self.0 & 3 == 3 && self.is_newer()
    }

    fn is_first_format(&self) -> bool {
        self.0 & 16 == 0
    }
}

/// One input of the files' target.
pub fn file(data: &[u8]) {
    let Some((choice, content)) = data.split_first() else { return };
    let choice = Choice(*choice);
    let format = if choice.is_first_format() { TableFormat::Csv } else { TableFormat::Jsonl };
    let path = SCRATCH.write(content).to_owned();
    let tables = choice.of(TableSource::File { path, format });
    let read = if choice.is_tokens() { read_tokens(&tables) } else { read(&tables, [&choice.hash()]) };
    match read {
        Ok(read) => {
            read.dead_letters.iter().for_each(assert_letter);
            read.warnings.iter().for_each(|warning| assert!(!tells(warning), "{warning}"));
            let content = content.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(content);
            let rows = match format {
                TableFormat::Csv => csv_rows(content),
                TableFormat::Jsonl => {
                    content.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()).count()
                }
            };
            let refused = read.dead_letters.len();
            let accepted =
                if choice.is_leaks() { read.changes.len().min(rows - refused) } else { read.changes.len() };
            // A JSON row may say that it is gone.
            let may_be_gone = content.windows(2).any(|two| two == b"__" || two == b"\\u");
            assert!(
                accepted + refused == rows || (may_be_gone && accepted + refused < rows),
                "rows are accepted or refused"
            );
            assert!(read.changes.iter().all(|change| !change.deleted));
        }
        Err(error) => assert!(!tells(&format!("{error} {error:?}")), "a cell is quoted: {error}"),
    }
}

/// Rows behind the header.
fn csv_rows(content: &[u8]) -> usize {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(content);
    let mut record = ByteRecord::new();
    let mut rows = 0_usize;
    while reader.read_byte_record(&mut record).expect("memory can be read") {
        rows += 1;
    }
    rows.saturating_sub(1)
}

/// One input of the topics' target: records between RS (1e), key and value between US (1f); a record without US is
/// a tombstone, one without a key has none.
pub fn topic(data: &[u8]) {
    let Some((choice, content)) = data.split_first() else { return };
    let choice = Choice(*choice);
    let format = if choice.is_first_format() { TopicFormat::JsonUpsert } else { TopicFormat::Debezium };
    let client = KafkaClient::new("broker:9092");
    let tables = choice.of(TableSource::Kafka { client, topic: "t".to_owned(), format });
    let records: Vec<(Option<&[u8]>, Option<&[u8]>)> = content
        .split(|byte| *byte == 0x1e)
        .map(|record| match record.iter().position(|byte| *byte == 0x1f) {
            Some(at) => (Some(&record[..at]).filter(|key| !key.is_empty()), Some(&record[at + 1..])),
            None => (Some(record).filter(|key| !key.is_empty()), None),
        })
        .collect();

    let hash = choice.hash();
    let configured = TopicTable::configured(&tables, [&hash]).pop().or_else(|| TopicTable::tokens(&tables));
    let mut table = configured.expect("one table is configured").1;
    let mut held = Held::default();
    let mut state = None;
    for round in 0..2 {
        for (offset, (key, value)) in (0..).zip(&records) {
            let mut out = TablesRead::default();
            table.apply(0, offset, *key, *value, &mut out);
            assert!(
                out.dead_letters.is_empty()
                    || (out.dead_letters.len() == 1
                        && out.changes.iter().all(|change| choice.is_tokens() && change.deleted)),
                "a bad record changes something: {out:?}"
            );
            out.dead_letters.iter().for_each(assert_letter);
            out.warnings.iter().for_each(|warning| assert!(!tells(warning), "{warning}"));
            held.apply(&out.changes);
        }
        let mut out = TablesRead::default();
        table.go_on(&TablesMemory::default(), &mut out);
        let mut stated = Held::default();
        stated.apply(&out.changes);
        assert_eq!(held.0.len(), stated.0.len(), "what is held is what the changes add up to");
        for (id, row) in &held.0 {
            assert_eq!(stated.0.get(id), Some(row), "and each row is the one that holds");
        }
        let before = state.replace(stated);
        assert!(round == 0 || before == state, "reading the topic again changes nothing");
    }
}

/// Rows by table and what tells them apart; none of a key.
#[derive(Default, PartialEq)]
struct Held(HashMap<(u8, String), Option<TableRow>>);

impl Held {
    fn apply(&mut self, changes: &[TableChange]) {
        for TableChange { row, deleted, .. } in changes {
            let id = match row {
                TableRow::Key(row) => (0, format!("{:?}", row.key)),
                TableRow::Subscription(row) => (1, format!("{:?}", row.id)),
                TableRow::Plan(row) => (2, format!("{:?}", row.id)),
                TableRow::Leak(row) => (3, format!("{:?}", row.key)),
                TableRow::Quota(row) => (4, format!("{:?}", (row.holder, row.measure, row.period))),
                TableRow::Price(row) => (5, format!("{:?}", (row.plan, row.item, row.tier.up_to))),
                TableRow::Token(row) => (6, format!("{:?}", row.digest.0)),
            };
            if *deleted {
                self.0.remove(&id);
            } else {
                let is_key = matches!(row, TableRow::Key(_));
                self.0.insert(id, (!is_key).then(|| row.clone()));
            }
        }
    }
}

fn assert_letter(letter: &TableDeadLetter) {
    assert!(!letter.reason.is_empty() && !letter.reason.contains(char::is_control), "{letter:?}");
    assert!(!tells(&format!("{letter:?}")), "a cell is quoted: {letter:?}");
}
