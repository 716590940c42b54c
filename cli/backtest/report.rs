//! The report of a backtest for people (Markdown) and for programs (JSON), from the same numbers.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use keytide_alerts::email::acts;
use keytide_connectors::sink::encode::time;
use keytide_dataflow::DETECTOR_VERSION;
use keytide_dataflow::detect::{Severity, Signal};
use keytide_dataflow::model::KeyId;
use keytide_dataflow::model::time::DAY_MS;
use serde::Serialize;

use super::judge::{EpisodeLabel, Evaluation, LabelKind, median};
use super::observe::{DetectorRun, IncidentSummary};
use crate::overview::{Labelled, Overview};
use crate::text::counted;

/// Characters of a table's cell, at most.
const CELL: usize = 160;
/// Keys that are listed as the noisiest.
const NOISIEST: usize = 20;

/// The report, whose fields are those of `report.json`.
#[derive(Serialize)]
pub(super) struct BacktestReport {
    job: String,
    config: String,
    /// The configuration, with which `keytide incident` finds the sources.
    config_path: String,
    detector_version: u32,
    /// The first minute with a call; null, as `to`, if there was no call.
    from: Option<String>,
    to: Option<String>,
    events: u64,
    keys: usize,
    /// Keys that called, times the days of the run.
    key_days: f64,
    alerts: usize,
    alerts_per_1000_key_days: Option<f64>,
    incidents: IncidentTotals,
    signals: Vec<SignalCount>,
    actions: Vec<ActionCount>,
    noisiest: Vec<NoisyKey>,
    /// Rows of `scores.csv`.
    scores: u64,
    labels: Option<LabelReport>,
    /// Files beside the report, and what they show.
    pictures: Vec<(String, String)>,
    overview: Overview,
}

#[derive(Serialize)]
struct IncidentTotals {
    total: usize,
    /// By the highest severity that they reached.
    by_level: BTreeMap<&'static str, usize>,
    by_state: BTreeMap<&'static str, usize>,
    /// Incidents that opened before their window was over.
    early: usize,
    platform_events: usize,
}

#[derive(Serialize)]
struct SignalCount {
    signal: &'static str,
    family: &'static str,
    /// Incidents that have the signal.
    incidents: usize,
    /// Incidents in which it is the strongest signal.
    first: usize,
}

#[derive(Serialize)]
struct ActionCount {
    action: &'static str,
    state: &'static str,
    count: usize,
}

#[derive(Serialize)]
struct NoisyKey {
    key_id: String,
    customer: Option<String>,
    plan: Option<String>,
    alerts: usize,
    incidents: usize,
    level: &'static str,
    /// The strongest signal of the last incident.
    signal: Option<&'static str>,
}

/// The results against the labels.
#[derive(Serialize)]
pub(super) struct LabelReport {
    pub(super) leaks: usize,
    pub(super) found: usize,
    pub(super) recall: Option<f64>,
    /// Leaks of 3 times the usual calls or from new origins, without slow drips.
    pub(super) plain_leaks: usize,
    pub(super) plain_found: usize,
    pub(super) precision: Option<f64>,
    /// Alerts after the first two fifths of the run, in which nothing is staged.
    pub(super) alerts: usize,
    pub(super) false_alerts: usize,
    pub(super) false_alerts_of_look_alikes: usize,
    pub(super) false_alerts_per_1000_key_days: Option<f64>,
    pub(super) would_be_revocations_of_innocent_keys: usize,
    pub(super) minutes_median: Option<u64>,
    pub(super) minutes_p90: Option<u64>,
    kinds: Vec<KindReport>,
}

#[derive(Serialize)]
struct KindReport {
    kind: String,
    leak: bool,
    episodes: usize,
    found: usize,
    would_revoke: usize,
    minutes_median: Option<u64>,
    minutes_p90: Option<u64>,
}

/// Rounds to three decimals, the same in all formats.
fn rounded(number: f64) -> f64 {
    (number * 1_000.0).round() / 1_000.0
}

fn share(part: usize, whole: usize) -> Option<f64> {
    (whole > 0).then(|| rounded(part as f64 / whole as f64))
}

/// Returns the smallest value that nine of ten values don't exceed. The values must be in ascending order.
fn nine_of_ten(sorted: &[u64]) -> Option<u64> {
    sorted.get((sorted.len() * 9).div_ceil(10).saturating_sub(1)).copied()
}

impl LabelReport {
    pub(super) fn new(labels: &[EpisodeLabel], run: &DetectorRun) -> Self {
        let evaluation = Evaluation::new(labels, &run.alerts, run.span_ms.unwrap_or_default(), run.keys);
        let [found, leaks] = evaluation.leaks();
        let delays = evaluation.delays();
        let of_kind = |((look_alike, name), kind): (&(bool, String), &LabelKind)| KindReport {
            kind: name.clone(),
            leak: !look_alike,
            episodes: kind.episodes,
            found: kind.found,
            would_revoke: kind.would_revoke,
            minutes_median: median(&kind.minutes),
            minutes_p90: nine_of_ten(&kind.minutes),
        };
        Self {
            leaks,
            found,
            recall: share(found, leaks),
            plain_leaks: evaluation.plain[1],
            plain_found: evaluation.plain[0],
            precision: evaluation.precision().map(rounded),
            alerts: evaluation.alerts,
            false_alerts: evaluation.false_alerts,
            false_alerts_of_look_alikes: evaluation.of_look_alikes,
            false_alerts_per_1000_key_days: (evaluation.key_days > 0.0)
                .then(|| rounded(evaluation.false_alert_rate())),
            would_be_revocations_of_innocent_keys: evaluation.false_revocations,
            minutes_median: median(&delays),
            minutes_p90: nine_of_ten(&delays),
            kinds: evaluation.kinds.iter().map(of_kind).collect(),
        }
    }
}

/// Returns the keys that called, times the days of the run.
pub(super) fn key_days(run: &DetectorRun) -> f64 {
    let days = run.span_ms.map_or(0.0, |(from, to)| to.saturating_sub(from) as f64 / DAY_MS as f64);
    run.keys as f64 * days
}

/// Returns the number of alerts per 1,000 key-days.
pub(super) fn alert_rate(run: &DetectorRun) -> Option<f64> {
    let key_days = key_days(run);
    (key_days > 0.0).then(|| rounded(run.alerts.len() as f64 / key_days * 1_000.0))
}

impl BacktestReport {
    pub(super) fn new(
        (job, config_path): (&str, String),
        run: &DetectorRun,
        labels: Option<&[EpisodeLabel]>,
        pictures: Vec<(String, String)>,
    ) -> Self {
        let (from, to) = run.span_ms.map(|(from, to)| (time(from), time(to))).unzip();
        let actions = run.actions.iter().map(|((action, state), count)| ActionCount {
            action: action.name(),
            state: state.name(),
            count: *count,
        });
        Self {
            job: job.to_owned(),
            config: run.config.clone(),
            config_path,
            detector_version: DETECTOR_VERSION,
            from,
            to,
            events: run.events,
            keys: run.keys,
            key_days: rounded(key_days(run)),
            alerts: run.alerts.len(),
            alerts_per_1000_key_days: alert_rate(run),
            incidents: IncidentTotals::new(run),
            signals: of_signals(run),
            actions: actions.collect(),
            noisiest: noisiest(run),
            scores: run.scores,
            labels: labels.map(|labels| LabelReport::new(labels, run)),
            pictures,
            overview: run.overview.clone(),
        }
    }

    pub(super) fn overview(&self) -> &Overview {
        &self.overview
    }

    /// Returns what a terminal shows beside the overview.
    pub(super) fn lines(&self) -> Vec<Labelled> {
        let rate = number(self.alerts_per_1000_key_days);
        let mut lines = vec![("alerts", format!("{}, {rate} per 1,000 key-days", self.alerts))];
        if let Some(labels) = &self.labels {
            let LabelReport { found, leaks, recall, false_alerts, minutes_median, .. } = labels;
            lines.push(("leaks found", format!("{found} of {leaks} ({})", percent(*recall))));
            let look_alikes = labels.false_alerts_of_look_alikes;
            lines.push(("false alerts", format!("{false_alerts}, {look_alikes} of them of look-alikes")));
            if let Some(minutes) = minutes_median {
                let minutes = counted(*minutes, "minute", "minutes");
                lines.push(("time to alert", format!("{minutes} for half of the leaks")));
            }
        }
        lines
    }

    /// Returns the report for people.
    pub(super) fn markdown(&self) -> String {
        let mut text = String::new();
        self.write(&mut text).expect("text can always be written to memory");
        text
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let range = match (&self.from, &self.to) {
            (Some(from), Some(to)) => format!("{from} to {to}"),
            _ => "no calls".to_owned(),
        };
        writeln!(out, "# Backtest of {}\n", cell(&self.job))?;
        writeln!(
            out,
            "{range}; {} events of {} keys, {:.0} key-days.\nConfiguration `{}`, detector version {}.\n",
            self.events, self.keys, self.key_days, self.config, self.detector_version
        )?;
        let IncidentTotals { total, by_level, by_state, early, platform_events } = &self.incidents;
        table(
            out,
            &["", "number"],
            [
                ("alerts (an incident opened, rose or came back)".to_owned(), self.alerts.to_string()),
                ("alerts per 1,000 key-days".to_owned(), number(self.alerts_per_1000_key_days)),
                ("incidents".to_owned(), total.to_string()),
            ]
            .into_iter()
            .chain(
                by_level.iter().map(|(level, count)| (format!("reached level `{level}`"), count.to_string())),
            )
            .chain(by_state.iter().map(|(state, count)| (format!("now `{state}`"), count.to_string())))
            .chain([
                ("opened before their window was over".to_owned(), early.to_string()),
                ("during a platform event".to_owned(), platform_events.to_string()),
            ])
            .map(|(what, count)| vec![what, count]),
        )?;
        if let Some(labels) = &self.labels {
            labels.write(out)?;
        }
        if !self.signals.is_empty() {
            writeln!(out, "\n## Signals\n")?;
            let rows = self.signals.iter().map(|of| {
                vec![
                    format!("`{}`", of.signal),
                    of.family.to_owned(),
                    of.incidents.to_string(),
                    of.first.to_string(),
                ]
            });
            table(out, &["signal", "family", "incidents in which it spoke", "in which it said most"], rows)?;
        }
        writeln!(out, "\n## What would have been done\n")?;
        if self.actions.is_empty() {
            writeln!(out, "Nothing.")?;
        } else {
            let rows = self
                .actions
                .iter()
                .map(|of| vec![of.action.to_owned(), of.state.to_owned(), of.count.to_string()]);
            table(out, &["action", "state", "number"], rows)?;
        }
        if !self.noisiest.is_empty() {
            writeln!(out, "\n## The noisiest keys\n")?;
            let text = |text: &Option<String>| text.as_deref().map_or_else(String::new, cell);
            let rows = self.noisiest.iter().map(|key| {
                vec![
                    code(&key.key_id),
                    text(&key.customer),
                    text(&key.plan),
                    key.alerts.to_string(),
                    key.incidents.to_string(),
                    key.level.to_owned(),
                    key.signal.unwrap_or_default().to_owned(),
                ]
            });
            let head =
                ["key", "customer", "plan", "alerts", "incidents", "highest level", "strongest signal"];
            table(out, &head, rows)?;
        }
        if !self.pictures.is_empty() {
            writeln!(out, "\n## Pictures")?;
        }
        for (name, shows) in &self.pictures {
            writeln!(out, "\n![{}]({name})", cell(shows))?;
        }
        Ok(())
    }
}

impl LabelReport {
    fn write(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\n## Against the labels\n")?;
        let rows = [
            ("leaks found", format!("{} of {} ({})", self.found, self.leaks, percent(self.recall))),
            (
                "leaks of 3 times the usual calls or from new origins, but slow drips",
                format!(
                    "{} of {} ({})",
                    self.plain_found,
                    self.plain_leaks,
                    percent(share(self.plain_found, self.plain_leaks))
                ),
            ),
            ("alerts with a reason", percent(self.precision)),
            (
                "false alerts after the first two fifths",
                format!("{}, {} of them of look-alikes", self.false_alerts, self.false_alerts_of_look_alikes),
            ),
            ("false alerts per 1,000 key-days", number(self.false_alerts_per_1000_key_days)),
            ("would-be revocations of innocent keys", self.would_be_revocations_of_innocent_keys.to_string()),
            ("minutes to the alert, half of the leaks", minutes(self.minutes_median)),
            ("minutes to the alert, nine of ten", minutes(self.minutes_p90)),
        ];
        table(out, &["", "number"], rows.into_iter().map(|(what, value)| vec![what.to_owned(), value]))?;
        writeln!(out)?;
        let rows = self.kinds.iter().map(|kind| {
            vec![
                format!("{} {}", if kind.leak { "leak" } else { "look-alike" }, code(&kind.kind)),
                kind.episodes.to_string(),
                kind.found.to_string(),
                kind.would_revoke.to_string(),
                minutes(kind.minutes_median),
                minutes(kind.minutes_p90),
            ]
        });
        let head =
            ["episode", "number", "alerted", "would revoke", "minutes to the alert, half", "nine of ten"];
        table(out, &head, rows)
    }
}

impl IncidentTotals {
    fn new(run: &DetectorRun) -> Self {
        let all = || run.incidents.values();
        let mut by_level: BTreeMap<&'static str, usize> = BTreeMap::new();
        let mut by_state: BTreeMap<&'static str, usize> = BTreeMap::new();
        for incident in all() {
            *by_level.entry(incident.severity.name()).or_default() += 1;
            *by_state.entry(incident.state.name()).or_default() += 1;
        }
        Self {
            total: run.incidents.len(),
            by_level,
            by_state,
            early: all().filter(|incident| incident.early).count(),
            platform_events: all().filter(|incident| incident.platform_event).count(),
        }
    }
}

fn of_signals(run: &DetectorRun) -> Vec<SignalCount> {
    let all = || run.incidents.values();
    let of = |signal: &Signal| SignalCount {
        signal: signal.name(),
        family: signal.family().name(),
        incidents: all().filter(|incident| incident.signals.contains(signal)).count(),
        first: all().filter(|incident| incident.signals.first() == Some(signal)).count(),
    };
    Signal::ALL.iter().map(of).filter(|of| of.incidents > 0).collect()
}

fn noisiest(run: &DetectorRun) -> Vec<NoisyKey> {
    let mut by_key: BTreeMap<KeyId, Vec<&IncidentSummary>> = BTreeMap::new();
    for incident in run.incidents.values() {
        by_key.entry(incident.key).or_default().push(incident);
    }
    let text = |id| Some(run.names.text(id).to_owned()).filter(|text| !text.is_empty());
    let mut keys: Vec<NoisyKey> = by_key
        .into_iter()
        .map(|(key, incidents)| NoisyKey {
            key_id: run.names.key_text(key).into_owned(),
            customer: incidents.last().and_then(|incident| text(incident.owner.customer)),
            plan: incidents.last().and_then(|incident| text(incident.owner.plan)),
            alerts: incidents.iter().map(|incident| incident.alerts).sum(),
            incidents: incidents.len(),
            level: incidents.iter().map(|incident| incident.severity).max().unwrap_or(Severity::None).name(),
            signal: incidents
                .last()
                .and_then(|incident| incident.signals.first())
                .map(|signal| signal.name()),
        })
        .collect();
    keys.sort_by(|a, b| b.alerts.cmp(&a.alerts).then_with(|| a.key_id.cmp(&b.key_id)));
    keys.truncate(NOISIEST);
    keys
}

/// Returns text that callers chose as a cell. It can't end the cell or the line, and starts no markup.
fn cell(text: &str) -> String {
    let plain = |c: char| match c {
        '|' | '`' | '<' | '>' | '[' | ']' | '*' | '_' | '\\' => format!("\\{c}"),
        c if acts(c) => " ".to_owned(),
        c => c.to_string(),
    };
    text.chars().take(CELL).map(plain).collect()
}

/// Returns text that callers chose between backticks, where nothing is markup.
fn code(text: &str) -> String {
    let plain = |c: char| if c == '`' || c == '|' || acts(c) { ' ' } else { c };
    format!("`{}`", text.chars().take(CELL).map(plain).collect::<String>())
}

fn number(number: Option<f64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| format!("{number:.3}"))
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0))
}

fn minutes(minutes: Option<u64>) -> String {
    minutes.map_or_else(|| "-".to_owned(), |minutes| minutes.to_string())
}

/// Writes a table as Markdown, a row a line.
pub(super) fn table(
    out: &mut String,
    head: &[&str],
    rows: impl IntoIterator<Item = Vec<String>>,
) -> std::fmt::Result {
    writeln!(out, "| {} |", head.join(" | "))?;
    writeln!(out, "|{}", "---|".repeat(head.len()))?;
    rows.into_iter().try_for_each(|row| writeln!(out, "| {} |", row.join(" | ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nine_of_ten_is_the_smallest_value_that_so_many_do_not_exceed() {
        assert_eq!(nine_of_ten(&[]), None);
        assert_eq!(nine_of_ten(&[7]), Some(7));
        assert_eq!(nine_of_ten(&(1..=10).collect::<Vec<_>>()), Some(9));
        assert_eq!(nine_of_ten(&(1..=11).collect::<Vec<_>>()), Some(10));
    }

    #[test]
    fn a_name_ends_neither_its_cell_nor_its_line() {
        assert_eq!(cell("a|b`c\nd\u{1b}[1m <x>\u{202e}y"), "a\\|b\\`c d \\[1m \\<x\\> y");
        assert_eq!(code("a|b`c_d\n\u{202e}"), "`a b c_d  `");
        assert_eq!((cell(&"x".repeat(500)).len(), code(&"x".repeat(500)).len()), (CELL, CELL + 2));
    }
}
