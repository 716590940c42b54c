//! Running the binary, and reading what it wrote.

mod job;
mod live;
pub(crate) mod parquet;
mod row;
pub(crate) mod sample;
mod schema;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::rc::Rc;

use flate2::read::MultiGzDecoder;
use keytide_config::View;
use serde_json::Value;
use tempfile::TempDir;

pub(crate) use job::{FIELDS, HOUR, Job, MINUTE, SECOND, START, call};
pub(crate) use live::{DEADLINE, LiveProcess, free_addresses, get};
pub(crate) use row::Row;
pub(crate) use schema::Schema;

/// The views: those with rows are files `NAME.jsonl` of a finished replay.
pub(crate) const VIEWS: [&str; View::ALL.len()] = View::NAMES;

/// What a finished replay writes beside the views.
pub(crate) const BESIDE_VIEWS: [&str; 3] = ["summary.json", "views.duckdb.sql", "views.postgresql.sql"];

/// The views of leaked keys. Traffic without a leak leaves them empty.
pub(crate) const OF_INCIDENTS: [&str; 5] = [
    View::Incidents.name(),
    View::IncidentLog.name(),
    View::Revocations.name(),
    View::Denied.name(),
    View::Audit.name(),
];

/// Bytes of the largest file a test reads.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// The repository's folder.
pub(crate) fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file's content.
pub(crate) fn read(path: &Path) -> Vec<u8> {
    read_if_present(path).unwrap_or_else(|| panic!("{} is missing", path.display()))
}

/// A file's content, if it is there. A job that goes on may cut its files back meanwhile.
pub(crate) fn read_if_present(path: &Path) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        opened => opened.unwrap_or_else(|error| panic!("{}: {error}", path.display())),
    };
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content).unwrap();
    assert!(content.len() as u64 <= MAX_FILE_BYTES, "{} is larger than a test reads", path.display());
    Some(content)
}

/// A text file's content.
pub(crate) fn read_text(path: &Path) -> String {
    String::from_utf8(read(path)).unwrap_or_else(|_| panic!("{} is not UTF-8", path.display()))
}

/// A log's content, decompressed where its name says `.gz`.
pub(crate) fn read_log(path: &Path) -> String {
    if path.extension().is_none_or(|extension| extension != "gz") {
        return read_text(path);
    }
    let mut text = String::new();
    MultiGzDecoder::new(&*read(path)).take(MAX_FILE_BYTES).read_to_string(&mut text).unwrap();
    text
}

/// The names in a folder.
pub(crate) fn names(folder: &Path) -> BTreeSet<String> {
    let entries = folder.read_dir().unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// One run of the binary.
pub(crate) struct Keytide {
    command: Command,
    input: Vec<u8>,
}

impl Keytide {
    /// With nothing of the surroundings: no overrides, no input, the repository as the working folder.
    pub(crate) fn new(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keytide"));
        command.args(arguments).env_clear().current_dir(repository());
        Self { command, input: Vec::new() }
    }

    /// A bounded run of `config` into `out`.
    pub(crate) fn replay(config: &Path, out: &Path) -> Self {
        Self::new(&["replay", path(config), "--out", path(out)])
    }

    /// Further arguments, separated by spaces.
    pub(crate) fn with(mut self, arguments: &str) -> Self {
        self.command.args(arguments.split_whitespace());
        self
    }

    /// An environment variable.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// What stands on standard input.
    pub(crate) fn input(mut self, input: &[u8]) -> Self {
        self.input = input.to_vec();
        self
    }

    /// Runs it to its end.
    pub(crate) fn run(mut self) -> Ended {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A command that doesn't read its input closes the pipe.
        let _ = stdin.write_all(&self.input);
        drop(stdin);
        let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
        Ended {
            code: status.code(),
            stdout: String::from_utf8(stdout).unwrap(),
            stderr: String::from_utf8(stderr).unwrap(),
        }
    }

    /// Runs it to its good end.
    pub(crate) fn succeed(self) -> Ended {
        let shown = format!("{:?}", self.command);
        let ended = self.run();
        assert_eq!(ended.code, Some(0), "{shown}\n{}", ended.stderr);
        ended
    }
}

/// What a run left behind.
pub(crate) struct Ended {
    /// The exit code; none after a signal.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A path as an argument.
pub(crate) fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The output of a replay.
pub(crate) struct Views {
    folder: PathBuf,
    /// What the output is part of, if it has to be kept.
    _job: Option<Rc<TempDir>>,
}

impl Views {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), _job: None }
    }

    /// The lines of a view. Without rows there is no file.
    pub(crate) fn text(&self, view: &str) -> String {
        let path = self.folder.join(format!("{view}.jsonl"));
        if !path.exists() {
            assert!(
                self.folder.join("summary.json").exists(),
                "{} is no folder of views",
                self.folder.display()
            );
            return String::new();
        }
        let text = read_text(&path);
        assert_ne!(text, "", "a view without rows has no file");
        text
    }

    /// The rows of a view.
    pub(crate) fn rows(&self, view: &str) -> Vec<Row> {
        self.text(view).lines().map(Row::parse).collect()
    }

    /// The rows of a view in windows of one width.
    pub(crate) fn window(&self, view: &str, window: &str) -> Vec<Row> {
        let mut rows = self.rows(view);
        rows.retain(|row| row.text("window") == window);
        rows
    }

    /// All views, byte by byte.
    pub(crate) fn bytes(&self) -> BTreeMap<&'static str, Vec<u8>> {
        VIEWS.into_iter().map(|view| (view, self.text(view).into_bytes())).collect()
    }

    /// `summary.json`.
    pub(crate) fn summary(&self) -> Value {
        serde_json::from_slice(&read(&self.folder.join("summary.json"))).unwrap()
    }

    /// A number of the summary.
    pub(crate) fn count(&self, name: &str) -> u64 {
        self.summary()[name].as_u64().unwrap_or_else(|| panic!("summary.json has no count {name}"))
    }
}
