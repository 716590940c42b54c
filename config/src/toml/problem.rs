//! Problems of a configuration with their locations, and the form in which they are reported.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Problems that are shown, at most. A file with more is hardly a configuration.
const MAX_SHOWN: usize = 1_000;

/// A problem or a warning with its location. It must never hold a secret.
///
/// It is displayed as `keytide.toml:12: source."gateway".format: found "jsn", allowed: json, …`. If the value came from
/// the environment, the variable stands in the place of file and line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The configuration file, unless it was given as text.
    pub file: Option<PathBuf>,
    /// The line of the value in the file, counted from 1.
    pub line: Option<usize>,
    /// The environment variable that the value came from.
    pub variable: Option<String>,
    /// The key, such as `source."gateway".fields.time.unit`; empty for the whole file.
    pub path: String,
    /// The value found and the values allowed: lower case, no full stop.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.variable, &self.file, self.line) {
            (Some(variable), _, _) => write!(f, "{variable}: ")?,
            (None, Some(file), Some(line)) => write!(f, "{}:{line}: ", file.display())?,
            (None, Some(file), None) => write!(f, "{}: ", file.display())?,
            (None, None, Some(line)) => write!(f, "line {line}: ")?,
            (None, None, None) => {}
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)
    }
}

/// The origin of a value, in the order in which problems are reported.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum At {
    /// The file as a whole.
    #[default]
    Whole,
    Byte(usize),
    Variable(Rc<str>),
}

/// The location of a value: its key and its origin.
#[derive(Clone, Default)]
pub(crate) struct Location {
    pub(crate) path: String,
    pub(crate) at: At,
}

/// Collects problems or warnings on the way through the stages.
#[derive(Default)]
pub(crate) struct Problems {
    found: Vec<(Location, String)>,
}

impl Problems {
    pub(crate) fn add(&mut self, location: &Location, message: impl Into<String>) {
        self.found.push((location.clone(), message.into()));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Returns problems in the order of the file. One that several sources inherit is listed once.
    pub(crate) fn finish(mut self, text: &str, file: Option<&Path>) -> Vec<Problem> {
        self.found.sort_by(|(a, _), (b, _)| a.at.cmp(&b.at));
        let breaks: Vec<usize> =
            text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i).collect();
        let mut seen = HashSet::new();
        self.found.retain(|(location, message)| {
            seen.insert((location.path.clone(), location.at.clone(), message.clone()))
        });
        let hidden = self.found.len().saturating_sub(MAX_SHOWN);
        self.found.truncate(MAX_SHOWN);
        if hidden > 0 {
            self.found.push((Location::default(), format!("{hidden} more problems aren't shown")));
        }
        let shown = self.found.into_iter().map(|(Location { path, at }, message)| {
            let (line, variable) = match at {
                At::Whole => (None, None),
                At::Byte(offset) => (Some(breaks.partition_point(|at| *at < offset) + 1), None),
                At::Variable(name) => (None, Some(name.to_string())),
            };
            Problem { file: file.map(Path::to_owned), line, variable, path, message }
        });
        shown.collect()
    }
}
