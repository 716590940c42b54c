//! `keytide backtest --csv FILE --out FILE` scores a history of counts for people who look at its plot.
//!
//! The file is read twice: first for its step, then row by row, and the same rows are written with a score. A count that
//! is surprising by b bits, against all rows before it, has the score 1 - 2^(-b/20). Bits are quarters, at most 40, so
//! scores go up to 0.75; 7 bits, from which on a look is worth it, are 0.215. The model is
//! [`Series`]; the signals of keys are others.
//!
//! Limits: the step is taken from the first million gaps between rows; a warning for each of the first 100 rows that
//! can't be read.

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

/// Bits that halve what a score lacks of 1.
const HALVING_BITS: f64 = 20.0;
/// Gaps between rows that the step is inferred from; they take 8 MB.
const INFERRED_FROM: usize = 1_000_000;
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
    1.0 - (-bits.get() / HALVING_BITS).exp2()
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

/// Infers the time between rows, in ms: the median of the gaps that are positive.
fn step(args: &SeriesArgs) -> anyhow::Result<u64> {
    let shown = args.csv.display();
    let mut reader = reader(&args.csv)?;
    let columns = SeriesColumns::find(&mut reader, args)?;
    let (mut gaps, mut last_ms) = (Vec::new(), None);
    let mut record = csv::StringRecord::new();
    while gaps.len() < INFERRED_FROM
        && reader.read_record(&mut record).with_context(|| format!("{shown} can't be read"))?
    {
        let Ok(SeriesPoint { time_ms, .. }) = columns.point(&record) else { continue };
        let gap = last_ms.and_then(|last_ms| time_ms.checked_sub(last_ms));
        gaps.extend(gap.filter(|gap| *gap > 0));
        last_ms = Some(time_ms);
    }
    ensure!(
        !gaps.is_empty(),
        "{shown}: the step between rows can't be told: no two rows that follow each other have times that rise"
    );
    gaps.sort_unstable();
    // Of two in the middle the lesser.
    Ok(gaps[(gaps.len() - 1) / 2])
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

    fn written(dir: &Path, csv: &str) -> SeriesArgs {
        let args = SeriesArgs {
            csv: dir.join("in.csv"),
            out: dir.join("out.csv"),
            time_column: "timestamp".to_owned(),
            value_column: "value".to_owned(),
        };
        fs::write(&args.csv, csv).unwrap();
        args
    }

    fn backtest(csv: &str) -> anyhow::Result<String> {
        let dir = tempfile::tempdir().unwrap();
        let args = written(dir.path(), csv);
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
    fn scores_rise_with_bits_and_stay_below_1() {
        let scores = [0.0, 0.25, 7.0, 20.0, 40.0].map(|bits| format!("{:.6}", score(Bits::new(bits))));
        assert_eq!(scores, ["0.000000", "0.008627", "0.215416", "0.500000", "0.750000"]);
    }

    #[test]
    fn the_step_is_the_median_of_the_gaps_of_the_whole_file() {
        let step_of = |times: &mut dyn Iterator<Item = u64>| {
            let dir = tempfile::tempdir().unwrap();
            let rows: String = times.map(|time| format!("{time},1\n")).collect();
            step(&written(dir.path(), &format!("timestamp,value\n{rows}"))).unwrap()
        };
        let minutes = (0..1_100).map(|row| 2_000_000_000 + row * 60);
        let hours = (0..1_200).map(|row| 2_100_000_000 + row * 3_600);
        assert_eq!(step_of(&mut minutes.chain(hours)), 3_600_000);
        // Gaps of 0 and back don't count; of two in the middle the lesser does.
        assert_eq!(step_of(&mut [1_000, 1_000, 1_300, 1_000, 1_900].into_iter()), 300_000);
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
