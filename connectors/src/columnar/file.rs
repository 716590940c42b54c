//! One Parquet file, written row group by row group.

use std::io::{self, Write};
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, Int64Type};
use parquet::file::metadata::{KeyValue, ParquetMetaDataReader};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::ChunkReader;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::{ColumnPath, Type};

use super::batch::{Batch, Values};
use super::{Column, ColumnKind};

/// Rows of a row group, at most by one batch.
pub const GROUP_ROWS: usize = 1 << 17;
/// Bytes of a row group's texts, at most by one batch.
pub const GROUP_BYTES: usize = 64 << 20;

/// A file that is being written.
pub struct ParquetFile<'c, W: Write + Send> {
    writer: SerializedFileWriter<W>,
    columns: &'c [Column],
    /// The batches of the next row group.
    waiting: Vec<Batch<'c>>,
    rows: usize,
    bytes: usize,
}

impl<'c, W: Write + Send> ParquetFile<'c, W> {
    /// Begins a file of a table.
    ///
    /// # Errors
    /// If `out` fails.
    pub fn new(out: W, table: &str, columns: &'c [Column]) -> io::Result<Self> {
        let fields = columns.iter().map(|column| field(column).map(Arc::new)).collect::<io::Result<_>>()?;
        let schema = Type::group_type_builder(table).with_fields(fields).build()?;
        let mut properties = WriterProperties::builder()
            .set_created_by("keytide".to_owned())
            .set_compression(Compression::SNAPPY)
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_offset_index_disabled(true);
        for column in columns.iter().filter(|column| column.kind == ColumnKind::Json) {
            let path = ColumnPath::from(column.name.clone());
            properties = properties
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_statistics_enabled(path, EnabledStatistics::None);
        }
        let writer = SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties.build()))?;
        Ok(Self { writer, columns, waiting: Vec::new(), rows: 0, bytes: 0 })
    }

    /// Adds rows of the same columns.
    ///
    /// # Errors
    /// If the output fails.
    pub fn add(&mut self, batch: Batch<'c>) -> io::Result<()> {
        self.rows += batch.rows();
        self.bytes += batch.text_bytes();
        if batch.rows() > 0 {
            self.waiting.push(batch);
        }
        if self.rows >= GROUP_ROWS || self.bytes >= GROUP_BYTES { self.write_group() } else { Ok(()) }
    }

    fn write_group(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let mut group = self.writer.next_row_group()?;
        for at in 0..self.columns.len() {
            let mut column = group.next_column()?.ok_or_else(|| io::Error::other("a column is missing"))?;
            for batch in &mut self.waiting {
                let cells = &mut batch.cells[at];
                let levels = (!cells.levels.is_empty()).then_some(&*cells.levels);
                write_cells(&mut column, &mut cells.values, levels)?;
            }
            column.close()?;
        }
        group.close()?;
        self.waiting.clear();
        (self.rows, self.bytes) = (0, 0);
        Ok(())
    }

    /// Ends the file, with a note that [`note`] reads.
    ///
    /// # Errors
    /// If the output fails.
    pub fn finish(mut self, note: Option<(&str, String)>) -> io::Result<W> {
        self.write_group()?;
        if let Some((name, value)) = note {
            self.writer.append_key_value_metadata(KeyValue::new(name.to_owned(), value));
        }
        Ok(self.writer.into_inner()?)
    }
}

/// Writes the values of a batch, and drops its texts.
fn write_cells(
    column: &mut SerializedColumnWriter<'_>,
    values: &mut Values,
    levels: Option<&[i16]>,
) -> io::Result<()> {
    match values {
        Values::Whole(values) => column.typed::<Int64Type>().write_batch(values, levels, None)?,
        Values::Boolean(values) => column.typed::<BoolType>().write_batch(values, levels, None)?,
        Values::Text { bytes, ends } => {
            let bytes = Bytes::from(std::mem::take(bytes));
            let mut start = 0;
            let texts: Vec<ByteArray> = ends
                .iter()
                .map(|end| ByteArray::from(bytes.slice(std::mem::replace(&mut start, *end)..*end)))
                .collect();
            column.typed::<ByteArrayType>().write_batch(&texts, levels, None)?
        }
    };
    Ok(())
}

fn field(column: &Column) -> io::Result<Type> {
    let (physical, logical) = match column.kind {
        ColumnKind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        ColumnKind::Json => (Physical::BYTE_ARRAY, Some(LogicalType::Json)),
        ColumnKind::Integer => (Physical::INT64, None),
        ColumnKind::Boolean => (Physical::BOOLEAN, None),
        ColumnKind::Time => (Physical::INT64, Some(LogicalType::timestamp(true, TimeUnit::MILLIS))),
    };
    let repetition = if column.is_optional { Repetition::OPTIONAL } else { Repetition::REQUIRED };
    Ok(Type::primitive_type_builder(&column.name, physical)
        .with_logical_type(logical)
        .with_repetition(repetition)
        .build()?)
}

/// Returns the note of a name in a file's footer; `None` if there is none.
///
/// # Errors
/// If the file can't be read, or has no footer.
pub fn note(file: &impl ChunkReader, name: &str) -> io::Result<Option<String>> {
    let metadata = ParquetMetaDataReader::new().parse_and_finish(file)?;
    let notes = metadata.file_metadata().key_value_metadata();
    Ok(notes.into_iter().flatten().find(|note| note.key == name).and_then(|note| note.value.clone()))
}

#[cfg(test)]
mod tests {
    use parquet::file::reader::{FileReader as _, SerializedFileReader};
    use parquet::record::Field;

    use super::*;

    fn columns() -> Vec<Column> {
        let column = |name: &str, kind, is_optional| Column { name: name.to_owned(), kind, is_optional };
        vec![
            column("id", ColumnKind::Text, false),
            column("at", ColumnKind::Time, true),
            column("n", ColumnKind::Integer, false),
            column("ok", ColumnKind::Boolean, true),
            column("json", ColumnKind::Json, true),
        ]
    }

    fn row(n: usize) -> String {
        let at = if n.is_multiple_of(3) {
            "null".to_owned()
        } else {
            format!("\"1970-01-01T00:00:{:02}.5Z\"", n % 60)
        };
        let ok = if n.is_multiple_of(2) { r#","ok":true"# } else { "" };
        format!("{{\"id\":\"é{n}\",\"at\":{at},\"n\":{n}{ok},\"json\":{{\"n\":[{n}]}}}}\n")
    }

    /// Writes `rows` rows in batches of `batch`.
    fn written(columns: &[Column], rows: usize, batch: usize) -> Vec<u8> {
        let mut file = ParquetFile::new(Vec::new(), "table", columns).unwrap();
        let lines: Vec<String> = (0..rows).map(row).collect();
        for lines in lines.chunks(batch) {
            file.add(Batch::of_lines(columns, lines.concat().as_bytes()).unwrap()).unwrap();
        }
        file.finish(Some(("last", rows.to_string()))).unwrap()
    }

    #[test]
    fn rows_come_back_as_they_were_over_batches_and_row_groups() {
        let columns = columns();
        // Two row groups, the second of which ends within a batch.
        let rows = GROUP_ROWS + 5_000;
        let bytes = Bytes::from(written(&columns, rows, 4_096));
        assert_eq!(note(&bytes, "last").unwrap(), Some(rows.to_string()));
        assert_eq!(note(&bytes, "first").unwrap(), None);
        let reader = SerializedFileReader::new(bytes).unwrap();
        let groups = reader.metadata().row_groups().iter().map(|group| group.num_rows());
        assert_eq!(groups.collect::<Vec<_>>(), [1 << 17, 5_000]);
        for (n, read) in reader.get_row_iter(None).unwrap().enumerate() {
            let fields: Vec<Field> =
                read.unwrap().into_columns().into_iter().map(|(_, field)| field).collect();
            let seconds = i64::try_from(n % 60).unwrap();
            let expected = [
                Field::Str(format!("é{n}")),
                if n.is_multiple_of(3) { Field::Null } else { Field::TimestampMillis(seconds * 1_000 + 500) },
                Field::Long(i64::try_from(n).unwrap()),
                if n.is_multiple_of(2) { Field::Bool(true) } else { Field::Null },
                Field::Str(format!("{{\"n\":[{n}]}}")),
            ];
            assert_eq!(fields, expected, "{n}");
        }
    }

    #[test]
    fn a_file_without_rows_and_one_that_is_cut_off() {
        let columns = columns();
        let empty = Bytes::from(written(&columns, 0, 1));
        assert_eq!(SerializedFileReader::new(empty).unwrap().metadata().num_row_groups(), 0);
        let whole = written(&columns, 10, 3);
        for length in [0, 3, whole.len() / 2, whole.len() - 1] {
            assert!(note(&Bytes::copy_from_slice(&whole[..length]), "last").is_err(), "{length}");
        }
    }
}
