//! The file as it is written, with one struct a section and one optional field a key.
//!
//! Reading takes each known key out of a section and reports the rest as unknown, so these structs are the whole list
//! of keys. Ranges, relations and defaults are checked afterwards, section by section.

use super::name::name_of;
use super::near::nearest;
use super::problem::{Location, Problems};
use super::tree::{TomlNode, TomlTable, TomlValue, quoted, shortened};
use super::value::Scalar;

/// A type that the value of a key can be read as.
pub(crate) trait FromToml: Sized {
    /// If set, the value has keys of its own.
    const SECTION: bool = false;

    /// Reads a value; `None` after at least one problem was reported.
    fn read(node: TomlNode, location: &Location, problems: &mut Problems) -> Option<Self>;

    /// Returns the allowed values, as the end of a message.
    fn expected() -> String;

    /// Lists every key below `path`, for the test that the examples show all of them.
    #[cfg(test)]
    fn keys(path: &str, keys: &mut Vec<String>) {
        keys.push(path.to_owned());
    }
}

impl<T: Scalar> FromToml for T {
    fn expected() -> String {
        T::allowed()
    }

    fn read(node: TomlNode, location: &Location, problems: &mut Problems) -> Option<Self> {
        T::parse(&node.value)
            .map_err(|refusal| {
                let hidden = T::HIDDEN || refusal.hidden;
                let found = if hidden { NOT_SHOWN.to_owned() } else { node.value.shown() };
                problems.add(location, refusal.message(&found, &T::allowed()));
            })
            .ok()
    }
}

/// Stands for a value that may be a secret.
pub(crate) const NOT_SHOWN: &str = "a value that is not shown";

/// A key of a section, as the file has it.
pub(crate) enum Entry<T> {
    Absent,
    /// The value is wrong, which is already reported.
    Refused,
    Given(Spot<T>),
}

/// A value with its location in the file.
pub(crate) struct Spot<T> {
    pub(crate) value: T,
    pub(crate) location: Location,
    /// The value in the form of messages.
    pub(crate) shown: String,
}

impl<T> Entry<T> {
    pub(crate) fn given(&self) -> Option<&Spot<T>> {
        match self {
            Self::Given(spot) => Some(spot),
            Self::Absent | Self::Refused => None,
        }
    }

    pub(crate) fn value(&self) -> Option<&T> {
        self.given().map(|spot| &spot.value)
    }

    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

impl<T: FromToml> Entry<T> {
    pub(crate) fn read(node: TomlNode, path: String, problems: &mut Problems) -> Self {
        let location = Location { path, at: node.at.clone() };
        let shown = node.value.shown();
        match T::read(node, &location, problems) {
            Some(value) => Self::Given(Spot { value, location, shown }),
            None => Self::Refused,
        }
    }
}

/// A list of values. Messages name a section in it by its `name`, or by its index if it has none.
pub(crate) struct List<T> {
    pub(crate) items: Vec<Spot<T>>,
    /// If set, an item was wrong. It is already reported, and left out.
    pub(crate) refused: bool,
}

impl<T: FromToml> FromToml for List<T> {
    fn expected() -> String {
        "a list".to_owned()
    }

    fn read(node: TomlNode, location: &Location, problems: &mut Problems) -> Option<Self> {
        let TomlValue::List(nodes) = node.value else {
            let form = if T::SECTION { format!("[[{}]]", location.path) } else { "[…, …]".to_owned() };
            let message =
                format!("found {}, allowed: {}, written {form}", node.value.shown(), Self::expected());
            problems.add(location, message);
            return None;
        };
        let mut list = Self { items: Vec::new(), refused: false };
        for (index, node) in nodes.into_iter().enumerate() {
            let path = match name_of(&node.value) {
                Some(name) => format!("{}.\"{name}\"", location.path),
                None => format!("{}[{index}]", location.path),
            };
            match Entry::read(node, path, problems) {
                Entry::Given(spot) => list.items.push(spot),
                Entry::Absent | Entry::Refused => list.refused = true,
            }
        }
        Some(list)
    }

    #[cfg(test)]
    fn keys(path: &str, keys: &mut Vec<String>) {
        T::keys(path, keys);
    }
}

/// A section, or a list of them.
pub(crate) struct Sections<T>(pub(crate) List<T>);

impl<T: FromToml> FromToml for Sections<T> {
    const SECTION: bool = true;

    fn expected() -> String {
        "a section, or a list of sections".to_owned()
    }

    fn read(node: TomlNode, location: &Location, problems: &mut Problems) -> Option<Self> {
        if !matches!(node.value, TomlValue::Table(_)) {
            return List::read(node, location, problems).map(Self);
        }
        match Entry::read(node, location.path.clone(), problems) {
            Entry::Given(spot) => Some(Self(List { items: vec![spot], refused: false })),
            Entry::Absent | Entry::Refused => None,
        }
    }

    #[cfg(test)]
    fn keys(path: &str, keys: &mut Vec<String>) {
        T::keys(path, keys);
    }
}

/// The keys of a section that weren't read so far.
pub(crate) struct Section<'a> {
    pub(crate) table: TomlTable,
    pub(crate) location: &'a Location,
}

impl<'a> Section<'a> {
    pub(crate) fn open(node: TomlNode, location: &'a Location, problems: &mut Problems) -> Option<Self> {
        match node.value {
            TomlValue::Table(table) => Some(Self { table, location }),
            other => {
                problems.add(location, format!("found {}, allowed: a section", other.shown()));
                None
            }
        }
    }

    /// Opens a section of secrets with any names. A value in its place may be meant for one of them, so it isn't shown.
    pub(crate) fn open_hidden(
        node: TomlNode,
        location: &'a Location,
        problems: &mut Problems,
    ) -> Option<Self> {
        match node.value {
            TomlValue::Table(table) => Some(Self { table, location }),
            _ => {
                problems.add(location, format!("found {NOT_SHOWN}, allowed: a section"));
                None
            }
        }
    }

    /// Takes all keys of a section with any names, each with its location.
    pub(crate) fn into_named(self) -> impl Iterator<Item = (String, Location, TomlNode)> + 'a {
        let path = &self.location.path;
        self.table.into_entries().map(move |(name, node)| {
            let location = Location { path: join(path, &quoted(&name)), at: node.at.clone() };
            (name, location, node)
        })
    }

    pub(crate) fn take<T: FromToml>(&mut self, key: &str, problems: &mut Problems) -> Entry<T> {
        match self.table.take(key) {
            Some(node) => Entry::read(node, join(&self.location.path, key), problems),
            None => Entry::Absent,
        }
    }

    /// Reports the keys that are left, without values, as an unknown key may hold a secret.
    pub(crate) fn close(self, known: &[&str], later: &[&str], problems: &mut Problems) {
        for (key, node) in self.table.into_entries() {
            let location = Location { path: join(&self.location.path, &shortened(&key)), at: node.at };
            if later.contains(&key.as_str()) {
                problems.add(&location, "isn't available in this version, remove it");
                continue;
            }
            let mut message = format!("unknown key, allowed here: {}", known.join(", "));
            if let Some(near) = nearest(&key, known.iter().copied()) {
                message += &format!("; did you mean {near}?");
            }
            problems.add(&location, message);
        }
    }
}

pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Declares a section with its keys, and with `later` keys, which the documentation has and this version hasn't.
macro_rules! keys {
    ($(#[$doc:meta])* $name:ident { $($key:ident: $type:ty,)+ } $(later $later:ident;)*) => {
        $(#[$doc])*
        pub(crate) struct $name {
            $(pub(crate) $key: $crate::toml::read::Entry<$type>,)+
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($key: $crate::toml::read::Entry::Absent,)+ }
            }
        }

        impl $crate::toml::read::FromToml for $name {
            const SECTION: bool = true;

            fn expected() -> String {
                "a section".to_owned()
            }

            fn read(node: $crate::toml::tree::TomlNode, location: &$crate::toml::problem::Location, problems: &mut $crate::toml::problem::Problems) -> Option<Self> {
                const KNOWN: &[&str] = &[$(stringify!($key)),+];
                const LATER: &[&str] = &[$(stringify!($later)),*];
                let mut section = $crate::toml::read::Section::open(node, location, problems)?;
                let raw = Self { $($key: section.take(stringify!($key), problems),)+ };
                section.close(KNOWN, LATER, problems);
                Some(raw)
            }

            #[cfg(test)]
            fn keys(path: &str, keys: &mut Vec<String>) {
                $(<$type as $crate::toml::read::FromToml>::keys(&$crate::toml::read::join(path, stringify!($key)), keys);)+
            }
        }
    };
}
pub(crate) use keys;
