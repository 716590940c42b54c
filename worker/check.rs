//! `keytide check CONFIG`: judges a configuration and the files it names, all problems at once, and shows what
//! the job would do. Writes nothing but its report, connects nowhere.
//!
//! Every table and database is read as a job would read it, so a valid report is worth something; of the logs
//! only the names are resolved and regular files opened. A pattern without a match is a warning, because logs
//! may come later.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use keytide_config::{
    ConfigError, Geo, JobConfig, KeyFrom, MissingKey, Source, SourceKind, TableSource, Tables, duration_text,
    environment,
};
use keytide_connectors::file::{FileError, Partition, resolve};
use keytide_connectors::{geo, tables};

use crate::exit::Exit;

/// Bad rows shown of a table.
const MAX_BAD_ROWS: usize = 10;

/// Checks the configuration at `path` with this process's environment and reports to standard output:
/// [`Exit::Done`] if it is valid, [`Exit::Usage`] if it isn't.
///
/// # Errors
/// If the report can't be written.
pub(crate) fn run(path: &Path) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    let exit = check(path, environment(), &mut out)?;
    out.flush()?;
    Ok(exit.into())
}

fn check(path: &Path, env: impl Iterator<Item = (String, String)>, out: &mut impl Write) -> io::Result<Exit> {
    let loaded = match JobConfig::load(path, env) {
        Ok(loaded) => loaded,
        Err(error) => {
            writeln!(out, "{error}")?;
            if let ConfigError::Invalid { problems } = &error {
                writeln!(out, "\n{} in {}", counted(problems.len(), "problem"), path.display())?;
            }
            return Ok(Exit::Usage);
        }
    };
    let mut report = Report::default();
    report.warnings.extend(loaded.warnings.iter().map(ToString::to_string));
    report.job(&loaded.job);
    report.write(path, out)
}

/// What was found, line by line.
#[derive(Default)]
struct Report {
    summary: Vec<(&'static str, String)>,
    problems: Vec<String>,
    warnings: Vec<String>,
}

impl Report {
    fn job(&mut self, config: &JobConfig) {
        let JobConfig { job, sources, tables, geo, routes, windows, limits: _, sinks: _, http: _, log: _ } =
            config;
        let workers = counted(job.workers.get(), "worker");
        self.line("job", format!("{}, tick {}, {workers}", job.name, duration_text(job.tick_ms)));
        for source in sources {
            self.source(source);
        }
        self.tables(tables, sources);
        self.geo(geo);
        self.line("routes", counted(routes.templates.len(), "template"));
        self.line(
            "windows",
            format!(
                "out of orderness {}, allowed lateness {}, dedupe horizon {}",
                duration_text(windows.out_of_orderness_ms),
                duration_text(windows.allowed_lateness_ms),
                duration_text(windows.dedupe_horizon_ms)
            ),
        );
    }

    fn source(&mut self, source: &Source) {
        let Source { name, kind, format, fields: _, keys, dedupe } = source;
        let input = match kind {
            SourceKind::Stdin => "standard input".to_owned(),
            SourceKind::Kafka(kafka) => format!("topic {} at {}", kafka.topic, kafka.client.brokers),
            SourceKind::File { pattern } => format!("{pattern} ({})", self.files(name, pattern)),
        };
        self.line("source", format!("{name}: {} from {input}", format.name()));
        let rules: Vec<String> = keys.from.iter().map(KeyFrom::to_string).collect();
        let missing = match keys.missing {
            MissingKey::Anonymous => "counts as anonymous",
            MissingKey::DeadLetter => "is a dead letter",
        };
        self.line(
            "",
            format!("key: {}; hash: {}; a call without one {missing}", rules.join(", "), keys.hash.name()),
        );
        self.line("", format!("repeated records are told by: {}", dedupe.name()));
    }

    /// How much a pattern matches.
    fn files(&mut self, source: &str, pattern: &str) -> String {
        match resolve(pattern) {
            Ok(files) => {
                for path in files.iter().filter_map(Partition::path) {
                    if let Err(error) = readable(Path::new(&path)) {
                        self.problems.push(format!("source \"{source}\": {path} can't be read: {error}"));
                    }
                }
                let bytes: u64 = files.iter().filter_map(Partition::bytes).sum();
                format!("{}, {bytes} bytes", counted(files.len(), "file"))
            }
            Err(error @ FileError::NoMatch { .. }) => {
                self.warnings.push(format!("source \"{source}\": {error}"));
                counted(0, "file")
            }
            Err(error) => {
                self.problems.push(format!("source \"{source}\": {error}"));
                counted(0, "file")
            }
        }
    }

    /// Each table on its own, so that a problem of one hides none of another.
    fn tables(&mut self, tables: &Tables, sources: &[Source]) {
        let Tables { keys, subscriptions, plans } = tables;
        let only = Tables::default;
        for (name, table, alone) in [
            ("keys", keys, Tables { keys: keys.clone(), ..only() }),
            ("subscriptions", subscriptions, Tables { subscriptions: subscriptions.clone(), ..only() }),
            ("plans", plans, Tables { plans: plans.clone(), ..only() }),
        ] {
            let Some(TableSource::File { path, format }) = table else { continue };
            match tables::read(&alone, sources.iter().map(|source| &source.keys.hash)) {
                Ok(read) => {
                    let rows = counted(read.changes.len(), "row");
                    self.line("table", format!("{name}: {rows} in {} ({})", path.display(), format.name()));
                    self.warnings.extend(read.warnings);
                    for row in read.dead_letters.iter().take(MAX_BAD_ROWS) {
                        let (place, reason) = (&row.place, &row.reason);
                        self.warnings.push(format!("tables.{name}: {place}: {reason}; the row is left out"));
                    }
                    if let Some(more) =
                        read.dead_letters.len().checked_sub(MAX_BAD_ROWS).filter(|more| *more > 0)
                    {
                        self.warnings.push(format!("tables.{name}: {} more", counted(more, "bad row")));
                    }
                }
                Err(error) => self.problems.push(error.to_string()),
            }
        }
    }

    fn geo(&mut self, config: &Geo) {
        let Geo { country, asn, trusted_proxies } = config;
        for (name, path, alone) in [
            ("country", country, Geo { country: country.clone(), ..Geo::default() }),
            ("asn", asn, Geo { asn: asn.clone(), ..Geo::default() }),
        ] {
            let Some(path) = path else { continue };
            match geo::Geo::open(&alone) {
                Ok(_) => self.line("geo", format!("{name}: {}", path.display())),
                Err(error) => self.problems.push(format!("geo.{name}: {error}")),
            }
        }
        if country.is_none()
            && asn.is_none()
            && let Ok((_, warnings)) = geo::Geo::open(config)
        {
            self.warnings.extend(warnings);
        }
        self.line("proxies", format!("{} trusted", counted(trusted_proxies.len(), "range")));
    }

    fn line(&mut self, what: &'static str, text: String) {
        self.summary.push((what, text));
    }

    fn write(self, path: &Path, out: &mut impl Write) -> io::Result<Exit> {
        let path = plain(&path.display().to_string());
        let valid = self.problems.is_empty();
        if valid {
            writeln!(out, "{path} is valid\n")?;
            for (what, text) in &self.summary {
                writeln!(out, "{what:<8} {}", plain(text))?;
            }
        }
        for problem in &self.problems {
            writeln!(out, "{}", plain(problem))?;
        }
        if !self.warnings.is_empty() {
            writeln!(out)?;
        }
        for warning in &self.warnings {
            writeln!(out, "warning: {}", plain(warning))?;
        }
        if valid {
            return Ok(Exit::Done);
        }
        writeln!(out, "\n{} with what {path} names", counted(self.problems.len(), "problem"))?;
        Ok(Exit::Usage)
    }
}

/// Whether a file could be read; only regular files are opened, as others may wait for ever.
fn readable(path: &Path) -> io::Result<()> {
    if path.metadata()?.is_file() {
        File::open(path)?;
    }
    Ok(())
}

/// `text` for a terminal: names of files may hold anything.
fn plain(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const JOB: &str = "\
[keys]
from = [\"key\"]
[[source]]
name = \"gateway\"
kind = \"file\"
path = \"logs/*.jsonl\"
format = \"json\"
[source.fields]
time = { at = \"/t\", unit = \"ms\" }
key = \"/k\"
";
    const TABLE: &str = "[tables.keys]\nkind = \"file\"\npath = \"keys.csv\"\nformat = \"csv\"\n";
    const GEO: &str = "[geo]\ncountry = \"country.mmdb\"\nasn = \"asn.mmdb\"\n";

    /// The report on `config` beside `files`, without the folder's name.
    fn checked(config: &str, files: &[(&str, &str)]) -> (Exit, String) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("logs")).unwrap();
        for (name, content) in files.iter().chain([&("keytide.toml", config)]) {
            fs::write(folder.path().join(name), content).unwrap();
        }
        let mut out = Vec::new();
        let exit = check(&folder.path().join("keytide.toml"), std::iter::empty(), &mut out).unwrap();
        (exit, String::from_utf8(out).unwrap().replace(&format!("{}/", folder.path().display()), ""))
    }

    #[test]
    fn a_valid_job_is_summed_up() {
        let hash = "a".repeat(64);
        let table = format!("key_hash,subscription\n{hash},s-1\nnot-a-hash,s-2\n");
        let files = [("logs/a.jsonl", "{}\n"), ("logs/b.jsonl", "{}\n{}\n"), ("keys.csv", table.as_str())];
        let (exit, report) = checked(&format!("{JOB}{TABLE}"), &files);
        assert_eq!(exit, Exit::Done, "{report}");
        for line in [
            "keytide.toml is valid",
            "job      keytide, tick 1s, 1 worker",
            "source   gateway: json from logs/*.jsonl (2 files, 9 bytes)",
            "         key: key; hash: sha256; a call without one counts as anonymous",
            "table    keys: 1 row in keys.csv (csv)",
            "windows  out of orderness 5s, allowed lateness 10m, dedupe horizon 1h",
        ] {
            assert!(report.lines().any(|found| found == line), "{line}\n{report}");
        }
        assert!(report.contains("warning: tables.keys: keys.csv:3: "), "{report}");
        assert!(!report.contains("not-a-hash"), "{report}");
    }

    #[test]
    fn a_pattern_without_a_match_is_a_warning() {
        let (exit, report) = checked(JOB, &[]);
        assert_eq!(exit, Exit::Done);
        assert!(report.contains("\nwarning: source \"gateway\": `logs/*.jsonl` matches no file"), "{report}");
    }

    #[test]
    fn all_problems_of_files_are_told_at_once() {
        let (exit, report) = checked(&format!("{JOB}{TABLE}{GEO}"), &[("asn.mmdb", "no database")]);
        assert_eq!(exit, Exit::Usage);
        for problem in [
            "tables.keys: can't read keys.csv: ",
            "geo.country: can't read ",
            "geo.asn: asn.mmdb is not a usable",
        ] {
            assert!(report.lines().any(|line| line.starts_with(problem)), "{problem}\n{report}");
        }
        assert!(report.ends_with("\n3 problems with what keytide.toml names\n"), "{report}");
        assert!(!report.contains("is valid"));
    }

    #[test]
    fn all_problems_of_the_configuration_are_told_at_once() {
        let (exit, report) = checked("[job]\nworkers = 0\ntick = 1\n", &[]);
        assert_eq!(exit, Exit::Usage);
        assert!(report.ends_with("\n3 problems in keytide.toml\n"), "{report}");
        assert_eq!(report.lines().filter(|line| line.starts_with("keytide.toml:")).count(), 3, "{report}");
    }

    #[test]
    fn nothing_written_can_steer_a_terminal() {
        assert_eq!(plain("a\u{1b}[31mb\nc"), "a\u{fffd}[31mb\u{fffd}c");
    }
}
