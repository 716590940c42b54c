//! The file as a tree, whose nodes have their locations, and into which overrides are written.

use std::rc::Rc;

use toml::de::{DeTable, DeValue};

use crate::toml::problem::{At, Location, Problems};

pub(crate) struct TomlNode {
    pub(crate) at: At,
    pub(crate) value: TomlValue,
}

/// A value of a TOML file. It has no `Debug`, because it may be a secret.
pub(crate) enum TomlValue {
    Text(String),
    Integer(i64),
    /// A float, or an integer beyond 64 bits, as it is written.
    Number(String),
    Boolean(bool),
    Time(String),
    List(Vec<TomlNode>),
    Table(TomlTable),
}

/// A section with its keys, which are unique.
#[derive(Default)]
pub(crate) struct TomlTable(Vec<(String, TomlNode)>);

impl TomlTable {
    pub(crate) fn get(&self, key: &str) -> Option<&TomlNode> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut TomlNode> {
        self.0.iter_mut().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    pub(crate) fn take(&mut self, key: &str) -> Option<TomlNode> {
        let index = self.0.iter().position(|(name, _)| name == key)?;
        Some(self.0.swap_remove(index).1)
    }

    /// Sets `key`, and drops an earlier value.
    pub(crate) fn set(&mut self, key: &str, node: TomlNode) -> &mut TomlNode {
        self.take(key);
        self.0.push((key.to_owned(), node));
        let (_, node) = self.0.last_mut().expect("an entry was just pushed");
        node
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &(String, TomlNode)> {
        self.0.iter()
    }

    pub(crate) fn into_entries(self) -> impl Iterator<Item = (String, TomlNode)> {
        self.0.into_iter()
    }
}

impl TomlValue {
    /// Returns the value in the form of messages: short, on one line, without control characters.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Text(text) => quoted(text),
            Self::Integer(integer) => integer.to_string(),
            Self::Boolean(boolean) => boolean.to_string(),
            Self::Number(text) | Self::Time(text) => shortened(text),
            Self::List(_) => "a list".to_owned(),
            Self::Table(_) => "a section".to_owned(),
        }
    }
}

/// Returns `text` in quotes, escaped and shortened.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", shortened(text))
}

/// Returns `text` escaped, and cut after 80 characters.
pub(crate) fn shortened(text: &str) -> String {
    const LONGEST: usize = 80;
    let cut = text.char_indices().nth(LONGEST).map_or(text.len(), |(at, _)| at);
    let escaped = text[..cut].escape_debug();
    if cut < text.len() { format!("{escaped}…") } else { escaped.to_string() }
}

/// Parses a file into a tree. If the syntax is broken, every error is reported and there is no tree.
///
/// The parser's own text of an error quotes the line, which may hold a secret, so only its message is used. The parser
/// also bounds the nesting (80), so recursion over the tree is safe.
pub(crate) fn parse(text: &str, problems: &mut Problems) -> Option<TomlTable> {
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let at = error.span().map_or(At::Whole, |span| At::Byte(span.start));
        problems.add(&Location { path: String::new(), at }, error.message());
    }
    errors.is_empty().then(|| table(root.into_inner(), None))
}

/// Parses the value of a variable as TOML; other texts are strings.
pub(crate) fn parse_value(text: &str, variable: &Rc<str>) -> TomlNode {
    let value = match DeValue::parse(text) {
        Ok(parsed) => value(parsed.into_inner(), Some(variable)),
        Err(_) => TomlValue::Text(text.to_owned()),
    };
    TomlNode { at: At::Variable(variable.clone()), value }
}

fn table(table: DeTable<'_>, variable: Option<&Rc<str>>) -> TomlTable {
    let entries = table.into_iter().map(|(key, child)| {
        // The location is that of the section's header or the key.
        let at = at(key.span().start, variable);
        (key.into_inner().into_owned(), TomlNode { at, value: value(child.into_inner(), variable) })
    });
    TomlTable(entries.collect())
}

fn value(parsed: DeValue<'_>, variable: Option<&Rc<str>>) -> TomlValue {
    match parsed {
        DeValue::String(text) => TomlValue::Text(text.into_owned()),
        DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(integer) => TomlValue::Integer(integer),
            Err(_) => TomlValue::Number(integer.to_string()),
        },
        DeValue::Float(float) => TomlValue::Number(float.to_string()),
        DeValue::Boolean(boolean) => TomlValue::Boolean(boolean),
        DeValue::Datetime(time) => TomlValue::Time(time.to_string()),
        DeValue::Array(array) => TomlValue::List(
            array
                .into_iter()
                .map(|item| TomlNode {
                    at: at(item.span().start, variable),
                    value: value(item.into_inner(), variable),
                })
                .collect(),
        ),
        DeValue::Table(inner) => TomlValue::Table(table(inner, variable)),
    }
}

fn at(byte: usize, variable: Option<&Rc<str>>) -> At {
    variable.map_or(At::Byte(byte), |name| At::Variable(name.clone()))
}
