//! Loads a job's configuration from a file or a text.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::section::config::{JobConfig, RawConfig, validate};
use crate::section::{Geo, Sinks, Source, Tables};
use crate::toml::overrides;
use crate::toml::problem::{At, Location, Problem, Problems};
use crate::toml::read::FromToml;
use crate::toml::tree::{self, TomlNode, TomlValue};

/// Bytes of a configuration file, at most.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A valid configuration, with warnings about values that are probably mistakes.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub job: JobConfig,
    /// In the order of the file.
    pub warnings: Vec<Problem>,
}

/// The sections of an invalid configuration that have no problem of their own, and that name files or brokers. Those
/// that have one are left out.
#[derive(Clone, Debug, Default)]
pub struct ValidSections {
    pub sources: Vec<Source>,
    pub tables: Tables,
    pub geo: Geo,
    pub sinks: Sinks,
}

/// The reason why there is no job. All variants are definite, so trying again without a change is useless.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be opened or read.
    #[error("{}: can't be read: {error}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    /// The file is longer than a configuration may be.
    #[error("{}: is too long, allowed: {limit} bytes", path.display())]
    TooLong { path: PathBuf, limit: u64 },
    #[error("{}:{line}: isn't UTF-8 text", path.display())]
    NotText {
        path: PathBuf,
        /// The line of the first wrong byte, counted from 1.
        line: usize,
    },
    /// The file was read and has problems, which are displayed one per line.
    #[error("{}", lines(problems))]
    Invalid {
        /// Every problem, in the order of the file, then of the environment variables' names.
        problems: Vec<Problem>,
        /// The sections without a problem, of which there may be more outside of the file.
        valid: Box<ValidSections>,
    },
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

/// Returns the environment of this process, for [`JobConfig::load`]. Bytes that aren't UTF-8 become replacement
/// characters, which no secret and no override may contain.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
}

impl JobConfig {
    /// Reads and validates a configuration file of at most 1 MiB. Relative paths in it are relative to its
    /// folder.
    ///
    /// `env` holds the variables that override keys (`KEYTIDE_SECTION__KEY`) and those that hold secrets. If a name
    /// occurs twice, the last one wins. No other files are opened than the file itself and those of secrets.
    ///
    /// # Errors
    /// If the file can't be read, or with every problem in it.
    pub fn load(path: &Path, env: impl Iterator<Item = (String, String)>) -> Result<Loaded, ConfigError> {
        let text = read(path)?;
        let base = path.parent().unwrap_or(Path::new(""));
        let mut loaded = from_text(&text, Some(path), base, env)?;
        if loaded.job.http.as_ref().is_some_and(|http| !http.people.is_empty()) {
            let file = || std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string();
            loaded.job.alerts.asked.get_or_insert_with(file);
        }
        Ok(loaded)
    }

    /// Validates the text of a configuration like [`load`](Self::load). Relative paths are relative to `base`.
    ///
    /// # Errors
    /// With every problem in it.
    pub fn parse(
        text: &str,
        base: &Path,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Loaded, ConfigError> {
        from_text(text, None, base, env)
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes));
    let length = read.map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
    if length as u64 > MAX_FILE_BYTES {
        return Err(ConfigError::TooLong { path: path.to_owned(), limit: MAX_FILE_BYTES });
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
        ConfigError::NotText { path: path.to_owned(), line }
    })
}

fn from_text(
    text: &str,
    file: Option<&Path>,
    base: &Path,
    env: impl Iterator<Item = (String, String)>,
) -> Result<Loaded, ConfigError> {
    let env: BTreeMap<String, String> = env.collect();
    let (mut problems, mut warnings) = (Problems::default(), Problems::default());
    let job = stages(text, base, &env, &mut problems, &mut warnings);
    match job {
        Some(job) if problems.is_empty() => Ok(Loaded { job, warnings: warnings.finish(text, file) }),
        job => {
            let valid = job.map(|JobConfig { sources, tables, geo, sinks, .. }| ValidSections {
                sources,
                tables,
                geo,
                sinks,
            });
            let valid = Box::new(valid.unwrap_or_default());
            Err(ConfigError::Invalid { problems: problems.finish(text, file), valid })
        }
    }
}

/// Returns what could be validated, which is a job only if there is no problem.
fn stages(
    text: &str,
    base: &Path,
    env: &BTreeMap<String, String>,
    problems: &mut Problems,
    warnings: &mut Problems,
) -> Option<JobConfig> {
    let mut root = tree::parse(text, problems)?;
    overrides::apply(&mut root, env, problems);
    let root = TomlNode { at: At::Whole, value: TomlValue::Table(root) };
    let raw = RawConfig::read(root, &Location::default(), problems)?;
    Some(validate(&raw, base, env, problems, warnings))
}
