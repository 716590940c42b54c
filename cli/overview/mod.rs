//! The overview with which `replay` and `backtest` end: what the log holds, who calls most, what is slow, what was
//! found, and what could not be judged.
//!
//! There is one structure. [`text`] renders it for a terminal, serde for programs. Its numbers are those of the run's
//! own rows (`worker::replay::Figures`) and counters. Nothing is estimated but what its field says.

mod gravest;
mod listed;
#[cfg(test)]
mod tests;
mod text;

use std::path::Path;

use keytide_alerts::email::{headline, severity};
use keytide_config::{JobConfig, Language, duration_text};
use keytide_connectors::decode::CLASSES;
use keytide_connectors::ingest::sequencer::Lags;
use keytide_connectors::sink::JobInfo;
use keytide_connectors::sink::encode::time;
use keytide_connectors::sink::names::Names;
use keytide_dataflow::detect::Severity;
use keytide_dataflow::incident_row::TransitionJson;
use keytide_dataflow::model::time::HOUR_MS;
use keytide_dataflow::{Counts, Usage};
use keytide_worker::records::RecordCounts;
use keytide_worker::replay::{BusyKey, Figures, IncidentCounts, JUDGED_AFTER_MS, SlowRoute};
use serde::Serialize;

pub(crate) use self::gravest::GravestIncidents;
pub(crate) use self::listed::ListedIncidents;
pub(crate) use self::text::{Labelled, render};
use crate::exit;
use crate::look::Look;
use crate::text::{counted, grouped, length, share, shell_word, short_id};

/// What a command prints at its end.
#[derive(clap::Args)]
pub(crate) struct ShowArgs {
    /// Print the result as JSON on a terminal, too; into a file or a pipe it always is
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
    /// Print no result and no progress, only warnings and errors
    #[arg(long)]
    pub(crate) quiet: bool,
}

impl ShowArgs {
    /// Prints the result: `text` on a terminal, else `json`. Returns whether text was printed.
    ///
    /// # Errors
    /// If standard output can't be written to. A closed pipe is no error.
    pub(crate) fn print(&self, text: impl FnOnce(Look) -> String, json: &str) -> anyhow::Result<bool> {
        match Look::of_terminal() {
            _ if self.quiet => Ok(false),
            Some(look) if !self.json => exit::print(&text(look)).map(|()| true),
            _ => exit::print(json).map(|()| false),
        }
    }
}

/// The results of a bounded run, from which an overview is made.
pub(crate) struct Run<'a> {
    pub(crate) job: &'a JobConfig,
    pub(crate) figures: &'a Figures,
    pub(crate) names: &'a Names,
    pub(crate) counts: Counts,
    pub(crate) records: &'a RecordCounts,
    pub(crate) lags: Lags,
    pub(crate) incidents: &'a IncidentCounts,
    pub(crate) listed: &'a ListedIncidents,
    pub(crate) info: JobInfo<'a>,
}

/// The overview of a run. Times are RFC 3339.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Overview {
    calls: u64,
    /// Keys that called, without the buckets `anonymous`, `overflow` and `conflicting`.
    keys: u64,
    errors: u64,
    /// Start of the first minute with a call and end of the last one; null without calls.
    from: Option<String>,
    to: Option<String>,
    #[serde(skip)]
    span_ms: Option<(u64, u64)>,
    records: u64,
    refused: Vec<Refused>,
    first_refused: Option<String>,
    /// Records that aren't meant to be calls.
    passed_over: u64,
    duplicates: u64,
    late: u64,
    /// Calls of the three buckets.
    without_key: u64,
    overflow: u64,
    conflicting: u64,
    /// Null if no table of keys is configured.
    in_no_table: Option<InNoTable>,
    busiest_keys: Vec<KeyLine>,
    slowest_routes: Vec<RouteLine>,
    incidents: Incidents,
    not_judged: Vec<NotJudged>,
}

#[derive(Clone, Debug, Serialize)]
struct Refused {
    reason: &'static str,
    records: u64,
}

#[derive(Clone, Debug, Serialize)]
struct InNoTable {
    keys: u64,
    calls: u64,
}

/// A key with its calls of the whole run.
#[derive(Clone, Debug, Serialize)]
struct KeyLine {
    key_id: String,
    customer: Option<String>,
    subscription: Option<String>,
    calls: u64,
    errors: u64,
    /// Percentiles of `latency_day`, the day with most calls; null if no latency is known.
    p50_us: Option<u64>,
    p99_us: Option<u64>,
    latency_day: Option<String>,
    /// Codes of known countries; `XX` stands for more.
    countries: Vec<String>,
    /// Distinct addresses of `callers_day`, the day with most of them; null if no address is known.
    callers: Option<u64>,
    callers_exact: Option<bool>,
    callers_day: Option<String>,
    /// The number of days with calls.
    #[serde(skip)]
    days: u64,
}

/// A route with its latencies over all keys.
#[derive(Clone, Debug, Serialize)]
struct RouteLine {
    /// The route as rows name it: `API METHOD ROUTE`.
    route: String,
    /// Calls whose latency is known.
    calls: u64,
    /// Percentiles of `day`, the day with most calls.
    p50_us: u64,
    p99_us: u64,
    day: String,
    #[serde(skip)]
    days: u64,
}

#[derive(Clone, Debug, Serialize)]
struct Incidents {
    total: u64,
    critical: u64,
    alert: u64,
    notice: u64,
    withdrawn: u64,
    /// The gravest, without withdrawn ones.
    gravest: Vec<IncidentLine>,
}

#[derive(Clone, Debug, Serialize)]
struct IncidentLine {
    incident_id: String,
    key_id: String,
    customer: Option<String>,
    /// One of `notice`, `alert`, `critical`.
    severity: String,
    /// The probability of a leak in percent.
    score: u8,
    state: String,
    opened_at: String,
    headline: String,
}

/// Something that the detector could not judge.
#[derive(Clone, Debug, Serialize)]
struct NotJudged {
    /// One of `detection_off`, `history`, `late`, `no_key`, `overflow`, `conflicting`, `no_asn_database`.
    reason: &'static str,
    /// One or two sentences for people, with what would help.
    text: String,
}

impl Overview {
    /// Makes the overview of a run.
    pub(crate) fn new(run: &Run<'_>) -> Self {
        let Run { job, figures, names, counts, records, lags: _, incidents, listed, info } = run;
        let [without_key, overflow, conflicting] = figures.buckets;
        let refused = CLASSES.into_iter().zip(records.refused).filter(|(_, records)| *records > 0);
        let of_severity = |severity| incidents.by_severity.get(&severity).copied().unwrap_or(0);
        Self {
            calls: figures.usage.calls,
            keys: figures.keys,
            errors: errors(&figures.usage),
            from: figures.span_ms.map(|(from, _)| time(from)),
            to: figures.span_ms.map(|(_, to)| time(to)),
            span_ms: figures.span_ms,
            records: records.all(),
            refused: refused.map(|(reason, records)| Refused { reason, records }).collect(),
            first_refused: records.first.clone(),
            passed_over: records.passed_over,
            duplicates: counts.duplicates,
            late: counts.late,
            without_key,
            overflow,
            conflicting,
            in_no_table: job
                .tables
                .keys
                .is_some()
                .then_some(InNoTable { keys: figures.unowned_keys, calls: figures.unowned_calls }),
            busiest_keys: figures.busiest.iter().map(|busy| KeyLine::new(busy, names)).collect(),
            slowest_routes: figures.slowest.iter().map(|slow| RouteLine::new(slow, names)).collect(),
            incidents: Incidents {
                total: incidents.incidents,
                critical: of_severity(Severity::Revoke),
                alert: of_severity(Severity::Alert),
                notice: of_severity(Severity::Notice),
                withdrawn: incidents.withdrawn,
                gravest: listed.rows(names, *info).iter().map(IncidentLine::new).collect(),
            },
            not_judged: not_judged(run),
        }
    }

    /// Returns the line that says how the evidence of the gravest incident is shown, from the views in `out`.
    pub(crate) fn evidence(&self, out: &Path) -> Option<String> {
        let gravest = self.incidents.gravest.first()?;
        let id = short_id(&gravest.incident_id);
        Some(format!("The evidence of an incident: keytide incident {id} --from {}", shell_word(out)))
    }
}

fn errors(usage: &Usage) -> u64 {
    usage.errors_4xx + usage.errors_5xx
}

impl KeyLine {
    fn new(busy: &BusyKey, names: &Names) -> Self {
        let BusyKey { key, owner, usage, latency, countries, callers } = busy;
        let name = |id| Some(names.text(id).to_owned()).filter(|text| !text.is_empty());
        let days = latency.map_or(0, |latency| latency.days).max(callers.map_or(0, |callers| callers.days));
        Self {
            key_id: names.key_text(*key).into_owned(),
            customer: name(owner.customer),
            subscription: name(owner.subscription),
            calls: usage.calls,
            errors: errors(usage),
            p50_us: latency.map(|latency| latency.value.p50_us),
            p99_us: latency.map(|latency| latency.value.p99_us),
            latency_day: latency.map(|latency| day(latency.start_ms)),
            countries: countries.iter().map(|country| country.as_str().to_owned()).collect(),
            callers: callers.map(|callers| callers.value.callers),
            callers_exact: callers.map(|callers| callers.value.exact),
            callers_day: callers.map(|callers| day(callers.start_ms)),
            days,
        }
    }
}

impl RouteLine {
    fn new(slow: &SlowRoute, names: &Names) -> Self {
        let SlowRoute { route, calls, latency } = slow;
        Self {
            route: names.route(*route).id.text.to_string(),
            calls: *calls,
            p50_us: latency.value.p50_us,
            p99_us: latency.value.p99_us,
            day: day(latency.start_ms),
            days: latency.days,
        }
    }
}

impl IncidentLine {
    fn new(transition: &TransitionJson) -> Self {
        Self {
            incident_id: transition.incident_id.clone(),
            key_id: transition.key_id.clone(),
            customer: transition.customer.clone(),
            severity: severity(&transition.level, Language::En),
            score: transition.score,
            state: transition.state.clone(),
            opened_at: transition.opened_at.clone(),
            headline: headline(transition, Language::En),
        }
    }
}

/// Returns the date of a day.
fn day(start_ms: u64) -> String {
    time(start_ms).chars().take(10).collect()
}

/// Returns what the detector could not judge, and why.
fn not_judged(run: &Run<'_>) -> Vec<NotJudged> {
    let Run { job, figures, counts, lags, .. } = run;
    let mut all = Vec::new();
    let mut add = |reason, text| all.push(NotJudged { reason, text });
    let calls = figures.usage.calls;
    if calls == 0 {
        return all;
    }
    if !job.detection.enabled {
        add("detection_off", "No key is judged: detection.enabled is false.".to_owned());
        return all;
    }
    let whole_ms = figures.span_ms.map_or(0, |(from, to)| to - from);
    if whole_ms < JUDGED_AFTER_MS {
        add(
            "history",
            format!(
                "Keys are judged by their habits after {} h of history; this log has {}. Revoked keys and reported \
                 ones are judged at once.",
                JUDGED_AFTER_MS / HOUR_MS,
                length(whole_ms)
            ),
        );
    } else if figures.young_keys > 0 {
        add(
            "history",
            format!(
                "Keys with less than {} h between their first and last call aren't judged by their habits: {} of {}.",
                JUDGED_AFTER_MS / HOUR_MS,
                grouped(figures.young_keys),
                counted(figures.keys, "key", "keys")
            ),
        );
    }
    if counts.detector_late > 0 {
        add("late", lateness(counts, *lags, job.windows.out_of_orderness_ms));
    }
    let [without_key, overflow, conflicting] = figures.buckets;
    let of_calls = |count| format!("{} ({})", counted(count, "call", "calls"), share(count, calls));
    if without_key > 0 {
        add(
            "no_key",
            format!(
                "{} without a key can't be judged. keytide check CONFIG shows where keys are found.",
                of_calls(without_key)
            ),
        );
    }
    if overflow > 0 {
        add(
            "overflow",
            format!(
                "{} of keys beyond limits.keys = {} aren't judged: set a larger limit, or give the keys rows in \
                 tables.keys.",
                of_calls(overflow),
                job.limits.keys
            ),
        );
    }
    if conflicting > 0 {
        add("conflicting", format!("{} with two different identities aren't judged.", of_calls(conflicting)));
    }
    if job.geo.asn.is_none() {
        add(
            "no_asn_database",
            "A call from another provider's network looks like any other: geo.asn names no database. More leaks are \
             missed, and more alerts are false."
                .to_owned(),
        );
    }
    all
}

/// Returns a sentence about calls that came after their minute was judged, and the setting that would help.
fn lateness(counts: &Counts, lags: Lags, now_ms: u64) -> String {
    let Counts { detector_late, events, .. } = *counts;
    let of_all = format!(
        "{} of {} ({}) came too late for the detector, up to {} behind",
        grouped(detector_late),
        counted(events, "call", "calls"),
        share(detector_late, events),
        length(lags.most_ms)
    );
    let setting = |ms| format!("windows.out_of_orderness = \"{}\"", duration_text(ms));
    // All of them, or else all but one in a thousand, within the longest wait that can be set.
    let steps = [(0, "admits all of them"), (events / 1_000, "admits nearly all of them")];
    let found = steps.into_iter().find_map(|(beyond, what)| {
        lags.covering(beyond).filter(|step| (now_ms + 1..=HOUR_MS).contains(step)).map(|step| (step, what))
    });
    match found {
        Some((step, what)) => format!("{of_all}: {} {what}.", setting(step)),
        None => format!(
            "{of_all}. {} is the longest wait that can be set; sort the lines of each file by time first.",
            setting(HOUR_MS)
        ),
    }
}
