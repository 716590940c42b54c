//! The part of JSON Schema (2020-12) that `schemas/` uses. A keyword that isn't known here is refused when a
//! schema is read, so that none goes unchecked.

use std::cmp::Ordering;
use std::path::Path;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::{Row, read_text};

/// A view's schema.
pub(crate) struct Schema {
    root: Value,
    /// The view's key columns: the annotation `x-key`.
    pub(crate) key: Vec<String>,
}

impl Schema {
    /// Reads a schema file.
    pub(crate) fn read(path: &Path) -> Self {
        let root = serde_json::from_str(&read_text(path)).unwrap();
        Self::new(root).unwrap_or_else(|problem| panic!("{}: {problem}", path.display()))
    }

    fn new(root: Value) -> Result<Self, String> {
        known(&root)?;
        let key = strings(root.get("x-key").ok_or("no x-key")?)?;
        Ok(Self { root, key })
    }

    /// What is wrong with a row, if anything.
    pub(crate) fn check(&self, row: &Row) -> Result<(), String> {
        let mut object = Map::new();
        for (name, value) in &row.0 {
            if object.insert(name.clone(), value.clone()).is_some() {
                return Err(format!("{name} stands twice"));
            }
        }
        valid(&self.root, &Value::Object(object), "row")?;
        let order: Vec<&str> = row.0.iter().map(|(name, _)| name.as_str()).collect();
        if !self.key.iter().map(String::as_str).eq(order.iter().take(self.key.len()).copied()) {
            return Err(format!("key columns don't come first: {order:?}"));
        }
        Ok(())
    }
}

/// Refuses what [`valid`] doesn't know.
fn known(schema: &Value) -> Result<(), String> {
    for (keyword, value) in schema.as_object().ok_or("a schema is an object")? {
        match keyword.as_str() {
            "$schema" | "title" | "description" | "x-key" | "type" | "required" | "enum" | "minimum"
            | "maximum" | "minLength" | "maxItems" => {}
            "format" if value == "date-time" => {}
            "additionalProperties" if value == &Value::Bool(false) => {}
            "pattern" => drop(Pattern::new(value.as_str().unwrap_or_default())?),
            "items" => known(value)?,
            "properties" => value.as_object().ok_or("properties")?.values().try_for_each(known)?,
            _ => return Err(format!("{keyword}: {value} is beyond this checker")),
        }
    }
    Ok(())
}

fn valid(schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    for (keyword, rule) in schema.as_object().ok_or("a schema is an object")? {
        let holds = match (keyword.as_str(), value) {
            ("type", _) => types(rule)?.iter().any(|name| is_a(name, value)),
            ("enum", _) => rule.as_array().is_some_and(|allowed| allowed.contains(value)),
            ("minimum", Value::Number(_)) => compare(value, rule).is_some_and(Ordering::is_ge),
            ("maximum", Value::Number(_)) => compare(value, rule).is_some_and(Ordering::is_le),
            ("minLength", Value::String(text)) => {
                text.chars().count() as u64 >= rule.as_u64().unwrap_or(u64::MAX)
            }
            ("maxItems", Value::Array(items)) => items.len() as u64 <= rule.as_u64().unwrap_or(0),
            ("format", Value::String(text)) => text.ends_with('Z') && text.parse::<Timestamp>().is_ok(),
            ("pattern", Value::String(text)) => {
                Pattern::new(rule.as_str().unwrap_or_default())?.matches(text)
            }
            ("required", Value::Object(object)) => {
                strings(rule)?.iter().all(|name| object.contains_key(name))
            }
            ("additionalProperties", Value::Object(object)) => {
                object.keys().all(|name| schema["properties"].get(name).is_some())
            }
            ("items", Value::Array(items)) => {
                items.iter().try_for_each(|item| valid(rule, item, &format!("{at}[]")))?;
                true
            }
            ("properties", Value::Object(object)) => {
                for (name, value) in object {
                    if let Some(schema) = rule.get(name) {
                        valid(schema, value, &format!("{at}.{name}"))?;
                    }
                }
                true
            }
            _ => true,
        };
        if !holds {
            return Err(format!("{at}: {keyword} {rule} doesn't hold for {value}"));
        }
    }
    Ok(())
}

fn is_a(name: &str, value: &Value) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        _ => false,
    }
}

fn types(rule: &Value) -> Result<Vec<String>, String> {
    rule.as_str().map_or_else(|| strings(rule), |one| Ok(vec![one.to_owned()]))
}

fn strings(value: &Value) -> Result<Vec<String>, String> {
    let texts =
        value.as_array().and_then(|items| items.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
    texts.map(|texts| texts.into_iter().map(str::to_owned).collect()).ok_or(format!("{value}: not all texts"))
}

/// Integers exactly, others as floats.
fn compare(value: &Value, limit: &Value) -> Option<Ordering> {
    match (integer(value), integer(limit)) {
        (Some(value), Some(limit)) => Some(value.cmp(&limit)),
        _ => value.as_f64()?.partial_cmp(&limit.as_f64()?),
    }
}

fn integer(value: &Value) -> Option<i128> {
    value.as_number().and_then(serde_json::Number::as_i128)
}

/// `^[a-b0-1]{n}$`: so many characters of some ranges.
struct Pattern {
    ranges: Vec<(char, char)>,
    length: usize,
}

impl Pattern {
    fn new(text: &str) -> Result<Self, String> {
        let parts = text
            .strip_prefix("^[")
            .and_then(|text| text.strip_suffix("}$"))
            .and_then(|text| text.split_once("]{"))
            .ok_or_else(|| format!("pattern {text} is beyond this checker"))?;
        let class: Vec<char> = parts.0.chars().collect();
        let ranges = class.chunks(3).map(|range| match range {
            [first, '-', last] if first <= last => Ok((*first, *last)),
            _ => Err(format!("pattern {text} is beyond this checker")),
        });
        Ok(Self {
            ranges: ranges.collect::<Result<_, _>>()?,
            length: parts.1.parse().map_err(|_| format!("pattern {text} is beyond this checker"))?,
        })
    }

    fn matches(&self, text: &str) -> bool {
        text.chars().count() == self.length
            && text.chars().all(|c| self.ranges.iter().any(|(first, last)| (*first..=*last).contains(&c)))
    }
}

mod tests {
    use super::*;

    const SCHEMA: &str = r#"{
        "x-key": ["id", "n"], "type": "object", "additionalProperties": false, "required": ["id", "n"],
        "properties": {
            "id": {"type": "string", "pattern": "^[a-f0-9]{2}$"},
            "n": {"type": "integer", "minimum": 1, "maximum": 9},
            "at": {"type": ["string", "null"], "format": "date-time", "minLength": 1},
            "kind": {"enum": ["a", "b"]},
            "list": {"type": "array", "maxItems": 1, "items": {"type": "boolean"}}
        }
    }"#;

    #[test]
    fn a_schema_accepts_what_it_describes() {
        let schema = Schema::new(serde_json::from_str(SCHEMA).unwrap()).unwrap();
        for row in [
            r#"{"id":"0f","n":1}"#,
            r#"{"id":"0f","n":9,"at":null,"kind":"b","list":[true]}"#,
            r#"{"id":"0f","n":9,"at":"2025-06-02T08:00:00.5Z"}"#,
        ] {
            schema.check(&Row::parse(row)).unwrap();
        }
    }

    #[test]
    fn a_schema_refuses_everything_else() {
        let schema = Schema::new(serde_json::from_str(SCHEMA).unwrap()).unwrap();
        for (row, keyword) in [
            (r#"{"id":"0f"}"#, "required"),
            (r#"{"id":"0f","n":1,"x":1}"#, "additionalProperties"),
            (r#"{"id":"0g","n":1}"#, "pattern"),
            (r#"{"id":"0ff","n":1}"#, "pattern"),
            (r#"{"id":"0f","n":0}"#, "minimum"),
            (r#"{"id":"0f","n":10}"#, "maximum"),
            (r#"{"id":"0f","n":"1"}"#, "type"),
            (r#"{"id":"0f","n":1.5}"#, ""),
            (r#"{"id":"0f","n":1,"at":""}"#, ""),
            (r#"{"id":"0f","n":1,"at":"2025-06-02T08:00:00+02:00"}"#, "format"),
            (r#"{"id":"0f","n":1,"at":"yesterday Z"}"#, "format"),
            (r#"{"id":"0f","n":1,"at":5}"#, "type"),
            (r#"{"id":"0f","n":1,"kind":"c"}"#, "enum"),
            (r#"{"id":"0f","n":1,"list":[true,true]}"#, "maxItems"),
            (r#"{"id":"0f","n":1,"list":[1]}"#, "type"),
            (r#"{"id":"0f","n":1,"n":1}"#, "twice"),
            (r#"{"n":1,"id":"0f"}"#, "first"),
        ] {
            let problem = schema.check(&Row::parse(row)).unwrap_err();
            assert!(problem.contains(keyword), "{row}: {problem}");
        }
    }

    #[test]
    fn what_the_checker_does_not_know_is_refused() {
        for schema in [
            r#"{"x-key": [], "oneOf": []}"#,
            r#"{"x-key": [], "properties": {"a": {"pattern": "^a+$"}}}"#,
            r#"{"x-key": [], "properties": {"a": {"items": {"multipleOf": 2}}}}"#,
            r#"{"x-key": [], "additionalProperties": true}"#,
            r#"{"type": "object"}"#,
        ] {
            assert!(Schema::new(serde_json::from_str(schema).unwrap()).is_err(), "{schema}");
        }
    }
}
