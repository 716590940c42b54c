//! Environment variables that override keys of the file.
//!
//! A variable joins the segments of a key by `__`, in upper case, so `KEYTIDE_JOB__WORKERS=4` sets `job.workers`. A
//! source has the segment of its name with `_` for `-`, so `KEYTIDE_SOURCE__GATEWAY__PATH` sets the path of `gateway`.
//!
//! Settings below `librdkafka` have dots for the variable's `_`, so
//! `KEYTIDE_SOURCE__GATEWAY__LIBRDKAFKA__SASL_PASSWORD` sets `sasl.password`. The few settings with a `_` in their
//! name can't be set by a variable.
//!
//! A value that is no TOML is a string. Variables without `__` are ignored, such as those that Kubernetes sets for a
//! service called keytide.
//!
//! Overrides are written into the tree before validation, in the order of their names. So an overridden key is checked
//! like a written one, and its problems name the variable.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::toml::name::name_of;
use crate::toml::problem::{At, Location, Problems};
use crate::toml::tree::{TomlNode, TomlTable, TomlValue, parse_value, shortened};

const PREFIX: &str = "KEYTIDE_";
const SEPARATOR: &str = "__";

/// Writes every override into the tree.
pub(crate) fn apply(root: &mut TomlTable, env: &BTreeMap<String, String>, problems: &mut Problems) {
    let names = source_names(root);
    for (variable, text) in env {
        let Some(path) = variable.strip_prefix(PREFIX).filter(|path| path.contains(SEPARATOR)) else {
            continue;
        };
        let name: Rc<str> = shortened(variable).into();
        if let Err(message) = set(root, &names, path, text, &name) {
            problems.add(&Location { path: String::new(), at: At::Variable(name) }, message);
        }
    }
}

fn set(
    root: &mut TomlTable,
    names: &[Option<String>],
    path: &str,
    text: &str,
    variable: &Rc<str>,
) -> Result<(), String> {
    let well_formed = |segment: &str| {
        !segment.is_empty() && segment.bytes().all(|b| matches!(b, b'A'..=b'Z' | b'0'..=b'9' | b'_'))
    };
    if !path.split(SEPARATOR).all(well_formed) {
        return Err(format!(
            "isn't the name of a key, allowed: {PREFIX}SECTION{SEPARATOR}KEY in upper case, such as KEYTIDE_JOB__WORKERS"
        ));
    }
    if text.contains(char::REPLACEMENT_CHARACTER) {
        return Err("isn't UTF-8 text".to_owned());
    }
    let lower = path.to_ascii_lowercase();
    let mut segments: Vec<&str> = lower.split(SEPARATOR).collect();
    let key = segments.pop().expect("a split yields at least one segment");

    let dotted = segments.last().filter(|section| **section == "librdkafka").map(|_| key.replace('_', "."));
    let key = dotted.as_deref().unwrap_or(key);

    let mut table = root;
    let mut segments = segments.into_iter();
    while let Some(segment) = segments.next() {
        if table.get(segment).is_none() {
            let value = match segment {
                "source" => TomlValue::List(Vec::new()),
                _ => TomlValue::Table(TomlTable::default()),
            };
            table.set(segment, TomlNode { at: At::Variable(variable.clone()), value });
        }
        let node = table.get_mut(segment).expect("it was made above where it was missing");
        table = match &mut node.value {
            TomlValue::Table(inner) => inner,
            TomlValue::List(sources) if segment == "source" => {
                let wanted = segments.next().ok_or("names a source but none of its keys")?;
                source(sources, names, wanted)?
            }
            _ => return Err(format!("`{segment}` isn't a section, so nothing in it can be set")),
        };
    }
    table.set(key, parse_value(text, variable));
    Ok(())
}

fn source<'a>(
    sources: &'a mut [TomlNode],
    names: &[Option<String>],
    wanted: &str,
) -> Result<&'a mut TomlTable, String> {
    let called = sources.iter_mut().zip(names).filter(|(_, name)| name.as_deref() == Some(wanted));
    let mut tables = called.filter_map(|(node, _)| match &mut node.value {
        TomlValue::Table(table) => Some(table),
        _ => None,
    });
    match (tables.next(), tables.next()) {
        (Some(table), None) => Ok(table),
        (Some(_), Some(_)) => {
            Err(format!("more than one source is called `{wanted}` here, rename one of them"))
        }
        (None, _) => {
            let known: Vec<&str> = names.iter().flatten().map(String::as_str).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            Err(format!("no source is called `{wanted}`, sources with a name: {known}"))
        }
    }
}

/// Returns the sources' names in the form of variables, in lower case.
fn source_names(root: &TomlTable) -> Vec<Option<String>> {
    let Some(TomlNode { value: TomlValue::List(sources), .. }) = root.get("source") else {
        return Vec::new();
    };
    sources.iter().map(|source| name_of(&source.value).map(|name| name.replace('-', "_"))).collect()
}
