//! `keytide backtest --csv FILE --out FILE` runs the detector's volume signal over a history of counts.
//!
//! The arithmetic of a job's detector (`dataflow::detect`) reads the file row by row, and the same rows are written
//! with a score. So thresholds can be chosen on one's own history. A count that is surprising by b bits, against all
//! rows before it, has the score b/(b + 17). It is one half at the 17 bits that make a leak as likely as not, and
//! never reaches 1.
//!
//! Limits: cells of 64 KiB; a warning for each of the first 100 rows that can't be read.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use keytide_dataflow::detect::{Bits, Series};
use keytide_worker::cells::quoted;
use keytide_worker::exit::{Exit, failure};

use crate::exit::warn;

/// Bits at which a leak is as likely as not, by the prior of the detector.
const EVEN_BITS: f64 = 17.0;
/// Steps between rows that the window's width is inferred from.
const INFERRED_FROM: usize = 1_000;
const MAX_WARNINGS: u64 = 100;

/// The options that belong to `--csv`.
pub(super) struct SeriesArgs {
    pub(super) csv: PathBuf,
    pub(super) out: PathBuf,
    pub(super) time_column: String,
    pub(super) value_column: String,
}

/// A row whose time and count can be read.
struct SeriesPoint {
    time_ms: u64,
    count: f64,
}

/// Scores the history, and writes it with a column of scores.
pub(super) fn run(args: &SeriesArgs) -> anyhow::Result<ExitCode> {
    let shown = args.csv.display();
    let mut series = Series::new(step(args)?);
    let mut reader = reader(&args.csv)?;
    let columns = SeriesColumns::find(&mut reader, args)?;
    let out = File::create(&args.out).map_err(|error| unusable(&args.out, "written", error))?;
    let mut out = BufWriter::new(out);
    writeln!(out, "timestamp,value,score")?;
    let mut record = csv::StringRecord::new();
    let mut unread = 0;
    while reader.read_record(&mut record).with_context(|| format!("{shown} can't be read"))? {
        let (time, value) = (columns.time(&record), columns.value(&record));
        match columns.point(&record) {
            Ok(point) => {
                let bits = series.score(point.time_ms, point.count);
                writeln!(out, "{},{},{:.6}", quoted(time), quoted(value), score(bits))?;
            }
            Err(problem) => {
                unread += 1;
                if unread <= MAX_WARNINGS {
                    let line = record.position().map_or(0, csv::Position::line);
                    warn(&format!("{shown}, line {line}: {problem}; the row has no score"));
                }
                writeln!(out, "{},{},", quoted(time), quoted(value))?;
            }
        }
    }
    out.flush().with_context(|| format!("{} can't be written", args.out.display()))?;
    if unread > MAX_WARNINGS {
        warn(&format!("{shown}: {} further rows can't be read", unread - MAX_WARNINGS));
    }
    Ok(Exit::Done.into())
}

fn score(bits: Bits) -> f64 {
    bits.get() / (bits.get() + EVEN_BITS)
}

/// Returns the error for a path that can't be used. It is a mistake of the command, as trying again doesn't help.
fn unusable(path: &Path, done: &str, error: std::io::Error) -> anyhow::Error {
    let context = format!("{} can't be {done}", path.display());
    failure(Exit::Usage, anyhow::Error::new(error).context(context))
}

fn reader(path: &Path) -> anyhow::Result<csv::Reader<File>> {
    let file = File::open(path).map_err(|error| unusable(path, "opened", error))?;
    Ok(csv::ReaderBuilder::new().flexible(true).from_reader(file))
}

/// Infers the width of the windows, in ms, as the median step between the first rows.
fn step(args: &SeriesArgs) -> anyhow::Result<u64> {
    let mut reader = reader(&args.csv)?;
    let columns = SeriesColumns::find(&mut reader, args)?;
    let mut times = Vec::new();
    for record in reader.records().take(INFERRED_FROM) {
        let record = record.with_context(|| format!("{} can't be read", args.csv.display()))?;
        times.extend(columns.point(&record).ok().map(|point| point.time_ms));
    }
    let mut steps: Vec<u64> =
        times.windows(2).filter_map(|pair| pair[1].checked_sub(pair[0])).filter(|step| *step > 0).collect();
    steps.sort_unstable();
    ensure!(
        !steps.is_empty(),
        "{}: the step between rows can't be told: no two rows that follow each other have times that rise",
        args.csv.display()
    );
    Ok(steps[steps.len() / 2])
}

struct SeriesColumns {
    time: usize,
    value: usize,
}

impl SeriesColumns {
    fn find(reader: &mut csv::Reader<File>, args: &SeriesArgs) -> anyhow::Result<Self> {
        let shown = args.csv.display();
        let headers = reader.headers().with_context(|| format!("{shown} can't be read"))?;
        let find = |name: &str, option: &str| {
            let found =
                headers.iter().position(|header| header.trim_start_matches('\u{feff}').trim() == name);
            found.with_context(|| {
                let there: Vec<&str> = headers.iter().take(20).collect();
                format!(
                    "{shown} has no column `{name}`, it has: {}; name another with {option}",
                    there.join(", ")
                )
            })
        };
        let columns = Self {
            time: find(&args.time_column, "--time-column")?,
            value: find(&args.value_column, "--value-column")?,
        };
        if columns.time == columns.value {
            bail!("--time-column and --value-column name the same column");
        }
        Ok(columns)
    }

    fn time<'r>(&self, record: &'r csv::StringRecord) -> &'r str {
        record.get(self.time).unwrap_or("")
    }

    fn value<'r>(&self, record: &'r csv::StringRecord) -> &'r str {
        record.get(self.value).unwrap_or("")
    }

    fn point(&self, record: &csv::StringRecord) -> Result<SeriesPoint, &'static str> {
        let time_ms = time(self.time(record).trim())
            .ok_or("the time must be RFC 3339, such as 2026-01-31T12:00:00Z, or a number of the epoch")?;
        let count =
            self.value(record).trim().parse().ok().filter(|count: &f64| count.is_finite() && *count >= 0.0);
        Ok(SeriesPoint { time_ms, count: count.ok_or("the value must be a number, not negative")? })
    }
}

/// Reads a time as milliseconds since the epoch. Numbers below 10^11 are seconds, as they would lie before 1973 as
/// milliseconds.
fn time(text: &str) -> Option<u64> {
    let time = text.parse::<Timestamp>().ok().or_else(|| {
        let local: DateTime = text.parse().ok()?;
        local.to_zoned(TimeZone::UTC).ok().map(|time| time.timestamp())
    });
    match time {
        Some(time) => u64::try_from(time.as_millisecond()).ok(),
        None => {
            let number: f64 = text.parse().ok().filter(|number| (0.0..1e15).contains(number))?;
            #[expect(clippy::cast_sign_loss, reason = "it isn't negative")]
            Some(if number < 1e11 { number * 1_000.0 } else { number } as u64)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read as _;

    use super::*;

    fn backtest(csv: &str) -> anyhow::Result<String> {
        let dir = tempfile::tempdir().unwrap();
        let args = SeriesArgs {
            csv: dir.path().join("in.csv"),
            out: dir.path().join("out.csv"),
            time_column: "timestamp".to_owned(),
            value_column: "value".to_owned(),
        };
        fs::write(&args.csv, csv).unwrap();
        run(&args)?;
        let mut out = String::new();
        File::open(&args.out).unwrap().read_to_string(&mut out).unwrap();
        Ok(out)
    }

    #[test]
    fn times_as_people_write_them() {
        let expected = Some(1_424_986_973_000);
        for text in [
            "2015-02-26T21:42:53Z",
            "2015-02-26 21:42:53",
            "2015-02-26T21:42:53",
            "2015-02-26T22:42:53+01:00",
            "1424986973",
            "1424986973000",
        ] {
            assert_eq!(time(text), expected, "{text}");
        }
        for text in ["", "yesterday", "-5", "NaN", "inf", "1e300", "1969-01-01T00:00:00Z"] {
            assert_eq!(time(text), None, "{text}");
        }
    }

    #[test]
    fn every_row_comes_out_once_and_a_burst_stands_out() {
        let mut csv = "note,value,timestamp\n".to_owned();
        for minute in 0..4_000_u32 {
            let count = if minute == 3_900 { 900 } else { 40 + minute * 7 % 11 };
            csv += &format!("\"a,b\",{count},{}\n", 1_424_986_973 + u64::from(minute) * 60);
        }
        csv += "x,many,2015-03-01T00:00:00Z\nx,-1,2015-03-01T00:01:00Z\nx\n\"x\",1,\"2015-03-01, noon\"\n";
        let out = backtest(&csv).unwrap();
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines.len(), 1 + 4_000 + 4);
        assert_eq!(lines[0], "timestamp,value,score");
        let score = |line: usize| lines[line].rsplit(',').next().unwrap().parse::<f64>().unwrap();
        assert!(score(3_901) > 0.5 && score(3_901) < 1.0, "{}", lines[3_901]);
        let most = (1..4_001).filter(|line| *line != 3_901).map(score).fold(0.0, f64::max);
        assert!(most < score(3_901));
        assert_eq!(
            lines[4_001..],
            ["2015-03-01T00:00:00Z,many,", "2015-03-01T00:01:00Z,-1,", ",,", "\"2015-03-01, noon\",1,",]
        );
    }

    #[test]
    fn missing_columns_and_steps_are_reported() {
        let error = |csv: &str| backtest(csv).unwrap_err().to_string();
        assert!(error("time,value\n").contains("has no column `timestamp`, it has: time, value"));
        assert!(error("timestamp,value\n").contains("the step between rows can't be told"));
        assert!(error("timestamp,value\n5,1\n5,1\n").contains("the step between rows can't be told"));
        assert!(error("").contains("has no column"));
        let missing = reader(Path::new("no/such.csv")).map(|_| ()).unwrap_err();
        assert_eq!(keytide_worker::exit::classify(&missing), Exit::Usage);
        assert!(missing.to_string().contains("no/such.csv can't be opened: "));
    }
}
