//! A row of a view: a flat JSON object whose members have an order.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

/// A row, its members in the order of the line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row(pub(crate) Vec<(String, Value)>);

impl Row {
    pub(crate) fn parse(line: &str) -> Self {
        serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"))
    }

    pub(crate) fn get(&self, name: &str) -> &Value {
        let found = self.0.iter().find(|(member, _)| member == name);
        &found.unwrap_or_else(|| panic!("no {name} in {self:?}")).1
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        self.get(name).as_str().unwrap_or_else(|| panic!("{name} is no text in {self:?}"))
    }

    pub(crate) fn number(&self, name: &str) -> u64 {
        self.get(name).as_u64().unwrap_or_else(|| panic!("{name} is no count in {self:?}"))
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        self.get(name).as_bool().unwrap_or_else(|| panic!("{name} is no flag in {self:?}"))
    }

    /// The values of some columns, in an order that compares: texts by their bytes, numbers by size.
    pub(crate) fn key(&self, columns: &[String]) -> Vec<(String, u64)> {
        let part = |column: &String| match self.get(column) {
            Value::String(text) => (text.clone(), 0),
            Value::Number(number) => (String::new(), number.as_u64().unwrap()),
            other => panic!("{column} is {other}, which is no key"),
        };
        columns.iter().map(part).collect()
    }
}

impl<'de> Deserialize<'de> for Row {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Row;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Row, M::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Row(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}
