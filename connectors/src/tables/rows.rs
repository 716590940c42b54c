//! Reads files of rows, as CSV or JSON lines, one row at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use csv::{ByteRecord, ReaderBuilder};
use keytide_config::TableFormat;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use sha2::{Digest, Sha256};

use super::prices::RefusedTiers;
use super::row::{Cell, Fault, RawRow, database_decimal, is_unavailable};
use super::schema::{AcceptedRows, TableSchema};
use super::{BAD_ROWS, ROW_BYTES, ROWS, RowLocation, TableDeadLetter, TableError};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// The most names of ignored columns that are listed. A name has at most [`NAME_BYTES`] bytes and no digit. Any other
/// may be a value, even a raw key, in the wrong place.
const LISTED_NAMES: usize = 32;
const NAME_BYTES: usize = 32;

/// The result of reading a file, beside the accepted rows.
pub(super) struct FileRead {
    /// The number of values of optional columns that couldn't be read.
    pub(super) unread: u64,
    pub(super) dead_letters: Vec<TableDeadLetter>,
    pub(super) warnings: Vec<String>,
}

/// Reads a file, and adds its rows to `output`, in which no other row of the table is.
pub(super) fn read(
    table: &TableSchema,
    path: &Path,
    format: TableFormat,
    output: &mut AcceptedRows,
) -> Result<FileRead, TableError> {
    let failed = |source| TableError::Read { table: table.name(), path: path.to_owned(), source };
    let file = without_mark(File::open(path).map_err(failed)?).map_err(failed)?;
    let columns = table.columns();
    let mut reading = RowReader {
        table,
        path,
        shared_path: path.into(),
        columns: &columns,
        seen: vec![false; columns.len()],
        ignored: Ignored::default(),
        output,
        tiers: matches!(table, TableSchema::Prices).then(Tiers::default),
        rows: 0,
        dead_letters: Vec::new(),
        first_bad_line: 0,
        unread: BTreeMap::new(),
    };
    match format {
        TableFormat::Csv => reading.csv(file)?,
        TableFormat::Jsonl => reading.json_lines(BufReader::new(file))?,
    }
    reading.finish()
}

/// Skips the byte order mark of a file.
fn without_mark(mut file: File) -> io::Result<impl Read> {
    let mut start = Vec::with_capacity(BYTE_ORDER_MARK.len());
    file.by_ref().take(BYTE_ORDER_MARK.len() as u64).read_to_end(&mut start)?;
    if start == BYTE_ORDER_MARK {
        start.clear();
    }
    Ok(io::Cursor::new(start).chain(file))
}

/// A bad row, or one that may turn out to be.
struct RowPlace {
    line: u64,
    length: u64,
    sha256: [u8; 32],
}

/// The rows of the table of prices, which are judged when all are read.
#[derive(Default)]
struct Tiers {
    /// The places of the accepted rows, in their order.
    places: Vec<RowPlace>,
    refused: RefusedTiers,
}

struct RowReader<'a> {
    table: &'a TableSchema,
    path: &'a Path,
    shared_path: Arc<Path>,
    columns: &'a [&'static str],
    seen: Vec<bool>,
    ignored: Ignored,
    output: &'a mut AcceptedRows,
    tiers: Option<Tiers>,
    rows: u64,
    dead_letters: Vec<TableDeadLetter>,
    /// The line of the first dead letter.
    first_bad_line: u64,
    /// For each optional column that couldn't be read, the number of rows, and the first line and its reason.
    unread: BTreeMap<&'static str, (u64, u64, Fault)>,
}

impl RowReader<'_> {
    fn csv(&mut self, file: impl Read) -> Result<(), TableError> {
        let mut reader =
            ReaderBuilder::new().has_headers(false).flexible(true).from_reader(RetainingReader::new(file));
        let mut record = ByteRecord::new();
        let mut header: Option<Vec<Option<usize>>> = None;
        let mut line = 1;
        loop {
            match reader.read_byte_record(&mut record) {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) if reader.get_ref().is_full() => {
                    let line = line + line_ends(leading_line_ends(reader.get_ref().unread()));
                    return Err(TableError::RowTooLong {
                        table: self.table.name(),
                        path: self.path.to_owned(),
                        line,
                    });
                }
                Err(error) => return Err(self.failed(error.into())),
            }
            let end = reader.position().byte();
            let raw = reader.get_mut().read_until(end);
            // Ahead of a row stand empty lines, and the rest of the previous row's CR LF.
            let ahead = leading_line_ends(raw);
            let at = line + line_ends(ahead);
            line += line_ends(raw);
            let raw = raw[ahead.len()..].trim_ascii_end();
            match &header {
                None if raw.starts_with(b"{") => {
                    return Err(self.other_format(TableFormat::Jsonl, TableFormat::Csv));
                }
                None => header = Some(self.header(&record)?),
                Some(header) => {
                    let row = csv_row(self.columns, header, &record);
                    self.row(at, raw, row)?;
                }
            }
        }
        if header.is_none() {
            self.require_columns()?;
        }
        Ok(())
    }

    /// Finds the table's column for each column of the file.
    fn header(&mut self, record: &ByteRecord) -> Result<Vec<Option<usize>>, TableError> {
        let names: Vec<&[u8]> = record.iter().map(<[u8]>::trim_ascii).collect();
        let mut header: Vec<Option<usize>> = vec![None; names.len()];
        let mut first_with = vec![None; self.columns.len()];
        // Exact names go first. Names that differ in case are taken for the remaining columns.
        for exact in [true, false] {
            for (at, name) in names.iter().enumerate() {
                let column = column_of(self.columns, name).filter(|(_, is_exact)| *is_exact == exact);
                let Some((index, _)) = column else { continue };
                match first_with[index] {
                    None => {
                        header[at] = Some(index);
                        first_with[index] = Some((at, exact));
                    }
                    // A name that differs in case from an exact one is just another column.
                    Some((_, first_is_exact)) if first_is_exact != exact => {}
                    Some((first, _)) => {
                        return Err(TableError::DuplicateColumn {
                            table: self.table.name(),
                            path: self.path.to_owned(),
                            first: first + 1,
                            second: at + 1,
                        });
                    }
                }
            }
        }
        for index in header.iter().flatten() {
            self.seen[*index] = true;
        }
        // A file without a header line fails here, before any of its first row could be shown.
        self.require_columns()?;
        let mut first_with = HashMap::new();
        for (index, name) in names.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            if let Some(first) = first_with.insert(name, index) {
                return Err(TableError::DuplicateColumn {
                    table: self.table.name(),
                    path: self.path.to_owned(),
                    first: first + 1,
                    second: index + 1,
                });
            }
        }
        for (name, _) in names.iter().zip(&header).filter(|(_, column)| column.is_none()) {
            self.ignored.add(name);
        }
        Ok(header)
    }

    /// Returns whether a line is the header of a CSV file with columns of this table.
    fn names_columns(&self, line: &[u8]) -> bool {
        let is_column = |name: &[u8]| {
            let name = name.trim_ascii();
            let inner = name.strip_prefix(b"\"").and_then(|name| name.strip_suffix(b"\""));
            column_of(self.columns, inner.unwrap_or(name)).is_some()
        };
        !line.starts_with(b"{") && line.split(|byte| *byte == b',').any(is_column)
    }

    fn other_format(&self, looks: TableFormat, format: TableFormat) -> TableError {
        TableError::OtherFormat { table: self.table.name(), path: self.path.to_owned(), looks, format }
    }

    fn column(&self, name: &[u8]) -> Option<usize> {
        self.columns.iter().position(|column| column.as_bytes() == name)
    }

    fn require_columns(&self) -> Result<(), TableError> {
        let seen = |column: &&str| self.column(column.as_bytes()).is_some_and(|index| self.seen[index]);
        let missing: Vec<String> = self
            .table
            .required()
            .iter()
            .filter(|alternatives| !alternatives.iter().any(seen))
            .map(|alternatives| format!("`{}`", alternatives.join("` or `")))
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        Err(TableError::MissingColumn {
            table: self.table.name(),
            path: self.path.to_owned(),
            columns: missing,
        })
    }

    fn json_lines(&mut self, mut file: impl BufRead) -> Result<(), TableError> {
        let mut bytes = Vec::new();
        for line in 1.. {
            bytes.clear();
            let read = read_capped(&mut file, &mut bytes).map_err(|source| self.failed(source))?;
            if read == 0 {
                break;
            }
            if bytes.len() > ROW_BYTES && !bytes.ends_with(b"\n") {
                self.long_line(line, &mut file, &mut bytes)?;
                continue;
            }
            let raw = bytes.trim_ascii();
            if raw.is_empty() {
                continue;
            }
            if self.rows == 0 && self.names_columns(raw) {
                return Err(self.other_format(TableFormat::Csv, TableFormat::Jsonl));
            }
            let row = json_row(self.columns, raw, &mut self.seen, &mut self.ignored);
            self.row(line, raw, row)?;
        }
        // If all rows lack a column, the table lacks it.
        if self.rows > 0 { self.require_columns() } else { Ok(()) }
    }

    /// Refuses a line that begins with `bytes`, and reads on to its end.
    fn long_line(
        &mut self,
        line: u64,
        file: &mut impl BufRead,
        bytes: &mut Vec<u8>,
    ) -> Result<(), TableError> {
        let mut hash = Sha256::new();
        let mut length = 0;
        while !bytes.is_empty() {
            let ended = bytes.ends_with(b"\n");
            let content = if ended { &bytes[..bytes.len() - 1] } else { &bytes[..] };
            hash.update(content);
            length += content.len() as u64;
            bytes.clear();
            if !ended {
                read_capped(file, bytes).map_err(|source| self.failed(source))?;
            }
        }
        self.count_row()?;
        let reason = format!("longer than {} KiB", ROW_BYTES >> 10);
        self.refuse(RowPlace { line, length, sha256: hash.finalize().into() }, reason)
    }

    fn row(&mut self, line: u64, raw: &[u8], row: Result<RawRow<'_>, Fault>) -> Result<(), TableError> {
        self.count_row()?;
        let place = || RowPlace { line, length: raw.len() as u64, sha256: Sha256::digest(raw).into() };
        let accepted = row.and_then(|mut row| {
            row.forget_unchanged();
            // A row that states its own deletion is the same as an absent one.
            if !row.deleted {
                let accepted = self.table.accept(&row, self.output);
                if let Some(tiers) = &mut self.tiers {
                    match accepted {
                        Ok(()) => tiers.places.push(place()),
                        Err(_) => tiers.refused.add(&row),
                    }
                }
                accepted?;
            }
            Ok(row.unread())
        });
        match accepted {
            Ok(unread) => {
                for (column, fault) in unread {
                    let (count, _, _) = self.unread.entry(column).or_insert((0, line, fault));
                    *count += 1;
                }
                Ok(())
            }
            Err(reason) => self.refuse(place(), reason),
        }
    }

    fn count_row(&mut self) -> Result<(), TableError> {
        self.rows += 1;
        if self.rows > ROWS {
            return Err(TableError::TooManyRows { table: self.table.name(), path: self.path.to_owned() });
        }
        Ok(())
    }

    fn refuse(&mut self, place: RowPlace, reason: Fault) -> Result<(), TableError> {
        let RowPlace { line, length, sha256 } = place;
        let table = self.table.name();
        if self.dead_letters.len() == BAD_ROWS {
            let reason = self.dead_letters.swap_remove(0).reason;
            let line = self.first_bad_line;
            return Err(TableError::TooManyBadRows { table, path: self.path.to_owned(), line, reason });
        }
        if self.dead_letters.is_empty() {
            self.first_bad_line = line;
        }
        let location = RowLocation::File { path: Arc::clone(&self.shared_path), line };
        self.dead_letters.push(TableDeadLetter { table: table.into(), location, reason, length, sha256 });
        Ok(())
    }

    fn failed(&self, source: io::Error) -> TableError {
        TableError::Read { table: self.table.name(), path: self.path.to_owned(), source }
    }

    /// Refuses the tiers that aren't a price together.
    fn judge_prices(&mut self) -> Result<(), TableError> {
        let Some(Tiers { places, refused }) = self.tiers.take() else { return Ok(()) };
        let mut faults = refused.judge(self.output.of_table());
        if faults.is_empty() {
            return Ok(());
        }
        self.output.take_back(|place| faults.contains_key(&place));
        for (index, place) in places.into_iter().enumerate() {
            if let Some(fault) = faults.remove(&index) {
                self.refuse(place, fault)?;
            }
        }
        let line = |letter: &TableDeadLetter| match letter.location {
            RowLocation::File { line, .. } => line,
            RowLocation::Topic { offset, .. } => offset,
        };
        self.dead_letters.sort_by_key(line);
        Ok(())
    }

    fn finish(mut self) -> Result<FileRead, TableError> {
        self.judge_prices()?;
        let of = |problem: &str| format!("tables.{}: {} {problem}", self.table.name(), self.path.display());
        let empty = (self.rows == 0).then(|| of("has no rows"));
        let ignored = self.ignored.to_string();
        let ignored =
            (!ignored.is_empty()).then(|| of(&format!("has columns that are not used here: {ignored}")));
        let unread = self.unread.values().map(|(count, line, fault)| {
            of(&format!("has a value that can't be read and counts as unknown, in {count} rows, first in line {line}: {fault}"))
        });
        let warnings = empty.into_iter().chain(ignored).chain(unread).collect();
        Ok(FileRead {
            unread: self.unread.values().map(|(count, ..)| count).sum(),
            dead_letters: self.dead_letters,
            warnings,
        })
    }
}

fn csv_row<'r>(
    columns: &'r [&'static str],
    header: &[Option<usize>],
    record: &'r ByteRecord,
) -> Result<RawRow<'r>, Fault> {
    if record.len() != header.len() {
        return Err(format!("{} columns where the first line has {}", record.len(), header.len()));
    }
    let mut row = RawRow::new(columns);
    for (field, column) in record.iter().zip(header) {
        // An unused column may hold anything.
        if let Some(column) = column {
            let text = str::from_utf8(field).map_err(|_| "not UTF-8")?;
            row.cells[*column] = Cell::text(text.into());
        }
    }
    Ok(row)
}

/// The column that a name is for, and whether the name is exact. Otherwise it differs in case, as Oracle's do.
pub(super) fn column_of(columns: &[&'static str], name: &[u8]) -> Option<(usize, bool)> {
    let exact = columns.iter().position(|column| column.as_bytes() == name).map(|index| (index, true));
    let folded = || columns.iter().position(|column| column.as_bytes().eq_ignore_ascii_case(name));
    exact.or_else(|| folded().map(|index| (index, false)))
}

/// Reads a JSON object as a row. Columns that occur are marked in `seen`, and names of others added to `ignored`.
pub(super) fn json_row<'r>(
    columns: &'r [&'static str],
    line: &'r [u8],
    seen: &mut [bool],
    ignored: &mut Ignored,
) -> Result<RawRow<'r>, Fault> {
    let text = simdutf8::basic::from_utf8(line).map_err(|_| "not UTF-8")?;
    // serde_json's messages quote values, so the reason is passed beside them.
    let mut fault = None;
    let mut json = serde_json::Deserializer::from_str(text);
    let seed = RowSeed { columns, seen, ignored, fault: &mut fault };
    let row = seed.deserialize(&mut json).and_then(|row| json.end().map(|()| row));
    row.map_err(|error| fault.unwrap_or_else(|| format!("not one JSON object: wrong at {}", place(&error))))
}

/// The place at which JSON is wrong. Nothing else of the error may be shown, because its message quotes values.
pub(super) fn place(error: &serde_json::Error) -> String {
    match error.line() {
        0 | 1 => format!("byte {}", error.column()),
        line => format!("line {line}, byte {}", error.column()),
    }
}

/// Deserializes a JSON object into a row.
struct RowSeed<'r, 's> {
    columns: &'r [&'static str],
    seen: &'s mut [bool],
    ignored: &'s mut Ignored,
    fault: &'s mut Option<Fault>,
}

impl<'r> DeserializeSeed<'r> for RowSeed<'r, '_> {
    type Value = RawRow<'r>;

    fn deserialize<D: serde::Deserializer<'r>>(self, json: D) -> Result<RawRow<'r>, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'r> Visitor<'r> for RowSeed<'r, '_> {
    type Value = RawRow<'r>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'r>>(self, mut members: M) -> Result<RawRow<'r>, M::Error> {
        let mut row = RawRow::new(self.columns);
        // For each column that is present, whether its name was exact.
        let mut present: Vec<Option<bool>> = vec![None; self.columns.len()];
        while let Some(name) = members.next_key_seed(TextSeed)? {
            // Debezium adds fields of the change to a row, among them whether it is deleted.
            if name.starts_with("__") {
                let cell = members.next_value_seed(CellSeed)?;
                let text = match &cell {
                    Cell::Text(text) => &**text,
                    Cell::Loose(text) => text,
                    _ => "",
                };
                row.deleted |= if name.eq_ignore_ascii_case("__deleted") {
                    ["true", "1", "t"].iter().any(|yes| text.trim().eq_ignore_ascii_case(yes))
                } else {
                    name.eq_ignore_ascii_case("__op") && text == "d"
                };
                continue;
            }
            let Some((index, exact)) = column_of(self.columns, name.as_bytes()) else {
                self.ignored.add(name.as_bytes());
                members.next_value::<IgnoredAny>()?;
                continue;
            };
            match present[index] {
                // The exact name counts, wherever it stands.
                Some(true) if !exact => {
                    members.next_value::<IgnoredAny>()?;
                    continue;
                }
                Some(before) if before == exact => {
                    *self.fault = Some(format!("`{}` stands twice", self.columns[index]));
                    return Err(M::Error::custom(""));
                }
                _ => present[index] = Some(exact),
            }
            self.seen[index] = true;
            row.cells[index] = members.next_value_seed(CellSeed)?;
        }
        Ok(row)
    }
}

/// Deserializes a member's value. It is text, a number, a flag, null, an array of these, or a database's decimal with
/// its scale beside it (`{"scale": 0, "value": "Bw=="}`).
struct CellSeed;

impl<'r> DeserializeSeed<'r> for CellSeed {
    type Value = Cell<'r>;

    fn deserialize<D: serde::Deserializer<'r>>(self, json: D) -> Result<Cell<'r>, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'r> Visitor<'r> for CellSeed {
    type Value = Cell<'r>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }

    fn visit_unit<E>(self) -> Result<Cell<'r>, E> {
        Ok(Cell::Missing)
    }

    fn visit_borrowed_str<E>(self, text: &'r str) -> Result<Cell<'r>, E> {
        Ok(Cell::text(text.into()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Cell<'r>, E> {
        Ok(Cell::text(text.to_owned().into()))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Cell<'r>, E> {
        Ok(Cell::Text(number.to_string().into()))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Cell<'r>, E> {
        Ok(Cell::Text(number.to_string().into()))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Cell<'r>, E> {
        Ok(Cell::Loose(number.to_string()))
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Cell<'r>, E> {
        Ok(Cell::Loose(flag.to_string()))
    }

    fn visit_seq<S: SeqAccess<'r>>(self, mut elements: S) -> Result<Cell<'r>, S::Error> {
        let mut list = Vec::new();
        let mut wrong = false;
        while let Some(element) = elements.next_element_seed(Self)? {
            match element {
                Cell::Text(text) => list.push(text),
                Cell::Missing => {}
                Cell::Unchanged => return drained(elements).map(|()| Cell::Unchanged),
                Cell::Loose(_) | Cell::List(_) | Cell::Wrong => wrong = true,
            }
        }
        Ok(if wrong { Cell::Wrong } else { Cell::list(list) })
    }

    fn visit_map<M: MapAccess<'r>>(self, mut members: M) -> Result<Cell<'r>, M::Error> {
        let (mut scale, mut digits, mut kept) = (None, None, false);
        while let Some(name) = members.next_key_seed(TextSeed)? {
            let cell = members.next_value_seed(Self)?;
            match (&*name, cell) {
                ("scale", Cell::Text(text)) => scale = text.parse().ok(),
                ("value", Cell::Text(text)) => digits = Some(text),
                (name, cell) => kept |= is_unavailable(name) || cell == Cell::Unchanged,
            }
        }
        let number = scale.zip(digits).and_then(|(scale, digits)| database_decimal(&digits, scale));
        Ok(match number {
            Some(number) => Cell::Text(number.into()),
            None if kept => Cell::Unchanged,
            None => Cell::Wrong,
        })
    }
}

/// Reads the rest of an array.
fn drained<'r, S: SeqAccess<'r>>(mut elements: S) -> Result<(), S::Error> {
    while elements.next_element::<IgnoredAny>()?.is_some() {}
    Ok(())
}

/// Deserializes a string, which is borrowed if it has no escapes.
struct TextSeed;

impl<'r> DeserializeSeed<'r> for TextSeed {
    type Value = std::borrow::Cow<'r, str>;

    fn deserialize<D: serde::Deserializer<'r>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_str(self)
    }
}

impl<'r> Visitor<'r> for TextSeed {
    type Value = std::borrow::Cow<'r, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text")
    }

    fn visit_borrowed_str<E>(self, text: &'r str) -> Result<Self::Value, E> {
        Ok(text.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(text.to_owned().into())
    }
}

/// Columns that no table has, for one warning. It displays as an empty text if there are none.
#[derive(Default)]
pub(super) struct Ignored {
    names: BTreeSet<Box<str>>,
    unlisted: bool,
}

impl Ignored {
    /// A number that grows whenever the warning would have more to list.
    pub(super) fn len(&self) -> usize {
        self.names.len() + usize::from(self.unlisted)
    }

    /// Adds the ignored columns of another row.
    pub(super) fn append(&mut self, other: Self) {
        self.unlisted |= other.unlisted;
        other.names.iter().for_each(|name| self.add(name.as_bytes()));
    }

    fn add(&mut self, name: &[u8]) {
        let plain = |byte: &u8| (byte.is_ascii_graphic() || *byte == b' ') && !byte.is_ascii_digit();
        let name = str::from_utf8(name)
            .ok()
            .filter(|name| !name.is_empty() && name.len() <= NAME_BYTES && name.as_bytes().iter().all(plain));
        match name {
            Some(name) if self.names.contains(name) => {}
            Some(name) if self.names.len() < LISTED_NAMES => {
                self.names.insert(name.into());
            }
            _ => self.unlisted = true,
        }
    }
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let others = self.unlisted.then_some("others");
        for (index, name) in self.names.iter().map(|name| &**name).chain(others).enumerate() {
            write!(f, "{}{name}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// A reader that keeps the bytes that weren't taken as a row yet, at most a row's and a buffer.
struct RetainingReader<R> {
    inner: R,
    bytes: Vec<u8>,
    /// The number of bytes at the start of `bytes` that were taken.
    taken: usize,
    /// The offset of `bytes` in the file.
    offset: u64,
}

impl<R> RetainingReader<R> {
    fn new(inner: R) -> Self {
        Self { inner, bytes: Vec::new(), taken: 0, offset: 0 }
    }

    fn unread(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }

    fn is_full(&self) -> bool {
        self.unread().len() > ROW_BYTES
    }

    /// Takes the bytes before the offset `end`.
    fn read_until(&mut self, end: u64) -> &[u8] {
        let start = self.taken;
        let end = usize::try_from(end - self.offset).expect("a row's bytes are in memory");
        self.taken = end;
        &self.bytes[start..end]
    }
}

impl<R: Read> Read for RetainingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.is_full() {
            return Err(io::Error::other("the row is too long"));
        }
        self.bytes.drain(..self.taken);
        self.offset += self.taken as u64;
        self.taken = 0;
        let read = self.inner.read(buffer)?;
        self.bytes.extend_from_slice(&buffer[..read]);
        Ok(read)
    }
}

/// Reads to the end of a line, or one byte more than a row may have.
fn read_capped(file: &mut impl BufRead, bytes: &mut Vec<u8>) -> io::Result<usize> {
    file.take(ROW_BYTES as u64 + 1).read_until(b'\n', bytes)
}

fn leading_line_ends(bytes: &[u8]) -> &[u8] {
    let length = bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    &bytes[..length]
}

fn line_ends(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}
