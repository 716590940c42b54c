//! The file as a tree whose every node knows where it stands; overrides are written into it.

use std::rc::Rc;

use toml::de::{DeTable, DeValue};

use crate::toml::problem::{At, Place, Problems};

pub(crate) struct Node {
    pub(crate) at: At,
    pub(crate) value: Value,
}

/// No `Debug`: a value may be a secret.
pub(crate) enum Value {
    Text(String),
    Integer(i64),
    /// A float, or an integer beyond 64 bits: no key takes either, so it is kept as written.
    Number(String),
    Boolean(bool),
    Time(String),
    List(Vec<Node>),
    Table(Table),
}

/// Keys are unique.
#[derive(Default)]
pub(crate) struct Table(Vec<(String, Node)>);

impl Table {
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    pub(crate) fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        self.0.iter_mut().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    pub(crate) fn take(&mut self, key: &str) -> Option<Node> {
        let index = self.0.iter().position(|(name, _)| name == key)?;
        Some(self.0.swap_remove(index).1)
    }

    /// Sets `key`, in place of what it held.
    pub(crate) fn set(&mut self, key: &str, node: Node) -> &mut Node {
        self.take(key);
        self.0.push((key.to_owned(), node));
        let (_, node) = self.0.last_mut().expect("an entry was just pushed");
        node
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &(String, Node)> {
        self.0.iter()
    }

    pub(crate) fn into_entries(self) -> impl Iterator<Item = (String, Node)> {
        self.0.into_iter()
    }
}

impl Value {
    /// As a message shows it: short, on one line, without control characters.
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

/// `text` in quotes, escaped and shortened.
pub(crate) fn quoted(text: &str) -> String {
    format!("\"{}\"", shortened(text))
}

/// `text` escaped, and cut after 80 characters.
pub(crate) fn shortened(text: &str) -> String {
    const LONGEST: usize = 80;
    let cut = text.char_indices().nth(LONGEST).map_or(text.len(), |(at, _)| at);
    let escaped = text[..cut].escape_debug();
    if cut < text.len() { format!("{escaped}…") } else { escaped.to_string() }
}

/// The file's tree. Where the syntax is broken, every error is reported and there is none.
///
/// The parser's own rendering of an error quotes the line, which may hold a secret: only its message is used.
/// It also bounds the nesting (80), so recursion over the tree is safe.
pub(crate) fn parse(text: &str, problems: &mut Problems) -> Option<Table> {
    let (root, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let at = error.span().map_or(At::Whole, |span| At::Byte(span.start));
        problems.add(&Place { path: String::new(), at }, error.message());
    }
    errors.is_empty().then(|| table(root.into_inner(), None))
}

/// A single TOML value, as a variable holds it; what isn't one is a string.
pub(crate) fn parse_value(text: &str, variable: &Rc<str>) -> Node {
    let value = match DeValue::parse(text) {
        Ok(parsed) => value(parsed.into_inner(), Some(variable)),
        Err(_) => Value::Text(text.to_owned()),
    };
    Node { at: At::Variable(variable.clone()), value }
}

fn table(table: DeTable<'_>, variable: Option<&Rc<str>>) -> Table {
    let entries = table.into_iter().map(|(key, child)| {
        // A section's header or a key: where a reader looks for it.
        let at = at(key.span().start, variable);
        (key.into_inner().into_owned(), Node { at, value: value(child.into_inner(), variable) })
    });
    Table(entries.collect())
}

fn value(parsed: DeValue<'_>, variable: Option<&Rc<str>>) -> Value {
    match parsed {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(integer) => Value::Integer(integer),
            Err(_) => Value::Number(integer.to_string()),
        },
        DeValue::Float(float) => Value::Number(float.to_string()),
        DeValue::Boolean(boolean) => Value::Boolean(boolean),
        DeValue::Datetime(time) => Value::Time(time.to_string()),
        DeValue::Array(array) => Value::List(
            array
                .into_iter()
                .map(|item| Node {
                    at: at(item.span().start, variable),
                    value: value(item.into_inner(), variable),
                })
                .collect(),
        ),
        DeValue::Table(inner) => Value::Table(table(inner, variable)),
    }
}

fn at(byte: usize, variable: Option<&Rc<str>>) -> At {
    variable.map_or(At::Byte(byte), |name| At::Variable(name.clone()))
}
