//! A job of a test's own: a folder with a configuration, a log and tables.

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

pub(crate) use keytide_dataflow::model::time::{HOUR_MS as HOUR, MINUTE_MS as MINUTE, SECOND_MS as SECOND};
use tempfile::TempDir;

use super::{Keytide, Views};

/// Event time of a job's first call, in milliseconds since the epoch: 2025-06-02T08:00:00Z.
pub(crate) const START: u64 = 1_748_851_200_000;

const CONFIG: &str = r#"
[keys]
from = ["key"]
hash = "none"

[[source]]
name = "log"
kind = "file"
path = "log*"
format = "json"
"#;

/// `[source.fields]` of records that [`call`] makes, and of more fields.
pub(crate) const FIELDS: &str = include_str!("fields.toml");

/// A folder to run in.
pub(crate) struct Job {
    folder: Rc<TempDir>,
}

impl Job {
    /// A job that reads `log*`, JSON lines with members `id`, `t` (ms), `k` (a key's name), `route`, `path`,
    /// `status`, `us` (latency) and `ip`. `more` is appended to its configuration.
    pub(crate) fn new(more: &str) -> Self {
        Self::with_config(&format!("{CONFIG}\n{FIELDS}{more}"))
    }

    /// A job with a configuration of its own.
    pub(crate) fn with_config(config: &str) -> Self {
        let job = Self { folder: Rc::new(tempfile::tempdir().unwrap()) };
        job.file("keytide.toml", config)
    }

    /// Writes a file beside the configuration.
    pub(crate) fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }

    /// The log: one line each.
    pub(crate) fn log<S: AsRef<str>>(self, lines: impl IntoIterator<Item = S>) -> Self {
        let text: String = lines.into_iter().map(|line| format!("{}\n", line.as_ref())).collect();
        self.file("log.jsonl", text)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The folder that holds the configuration.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A replay into `out`, not started yet.
    pub(crate) fn replay(&self) -> Keytide {
        Keytide::replay(&self.path("keytide.toml"), &self.path("out"))
    }

    /// The views of a replay to its good end.
    pub(crate) fn views(&self) -> Views {
        self.replay().succeed();
        self.out()
    }

    /// The views of the last replay.
    pub(crate) fn out(&self) -> Views {
        Views { folder: self.path("out"), _job: Some(Rc::clone(&self.folder)) }
    }
}

/// A call as a line of the log: when (from [`START`], in ms), the request's id and the key's name.
pub(crate) fn call(at: u64, id: &str, key: &str) -> String {
    format!(r#"{{"id":"{id}","t":{},"k":"{key}","status":200,"us":1000,"ip":"192.0.2.1"}}"#, START + at)
}
