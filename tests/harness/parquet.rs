//! Reading views of Parquet as the rows of JSON that they were made of.

use std::fs::File;
use std::path::Path;

use jiff::Timestamp;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::{Field, Row as Fields};
use serde_json::{Map, Value};

use super::{read_text, repository};

/// Returns the rows of a file. Members that a row lacks are null.
pub(crate) fn rows(path: &Path) -> Vec<Value> {
    let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let reader = SerializedFileReader::new(file).unwrap();
    let view = path.file_stem().unwrap().to_str().unwrap();
    let schema = repository().join(format!("schemas/{view}.v1.schema.json"));
    let schema: Value = serde_json::from_str(&read_text(&schema)).unwrap();
    reader.get_row_iter(None).unwrap().map(|row| object(row.unwrap(), &schema)).collect()
}

fn object(row: Fields, schema: &Value) -> Value {
    let members: Map<String, Value> = row
        .into_columns()
        .into_iter()
        .map(|(name, field)| {
            let kind = &schema["properties"][&name];
            assert!(kind.is_object(), "{name} is a column of the schema");
            let is_json = ["object", "array"].iter().any(|nested| kind["type"].to_string().contains(nested));
            let value = match field {
                Field::Null => Value::Null,
                Field::Bool(value) => value.into(),
                Field::Long(value) => value.into(),
                Field::Str(json) if is_json => serde_json::from_str(&json).unwrap(),
                Field::Str(text) => text.into(),
                Field::TimestampMillis(ms) => Timestamp::from_millisecond(ms).unwrap().to_string().into(),
                other => panic!("{name} has {other:?}"),
            };
            (name, value)
        })
        .collect();
    Value::Object(members)
}
