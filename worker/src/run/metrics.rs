//! Writes a [`JobSample`] as text for Prometheus, in either of its formats.
//!
//! Names begin with `keytide_` and end with their unit. Counters end with `_total` and only grow within a process.
//! Labels are bounded: dead letters' classes, views, states and operators are fixed, sources and webhooks are the
//! configuration's. Up to [`PARTITIONS`] partitions are listed one by one. Beyond that `lag_records` has one sum a
//! source, and `partition_behind_seconds` the greatest of a source. Unknown values are left out, never 0.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use keytide_alerts::actions::ActionCounts;
use keytide_alerts::outbox::QueueStats;
use keytide_config::View;
use keytide_connectors::decode::{CLASSES, Tally};
use keytide_connectors::input::PartitionInfo;
use keytide_dataflow::AnsweredCalls;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::health::{health, readiness};
use super::publish::{CAPS, OVERFLOWS};
use super::sample::{CheckpointCounts, JobSample, LedgerCounts};
use crate::serve::stats::{ApiCounts, BOUNDS_US, CODES, REASONS, ROUTES, RouteCounts};

/// Partitions of all sources up to which each has its own label.
const PARTITIONS: usize = 1_000;

/// A text format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ExpositionFormat {
    /// OpenMetrics 1.0.
    OpenMetrics,
    /// Prometheus' own format 0.0.4, which every scraper reads.
    Plain,
}

impl ExpositionFormat {
    /// Returns the best format that a client's `Accept` header allows.
    pub(super) fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Plain }
    }

    /// Returns the value of the `Content-Type` header.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Writes all metrics.
///
/// # Errors
/// If a gauge is larger than 2^63 - 1, which none is.
pub(super) fn text(sample: JobSample, format: ExpositionFormat) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("keytide");
    registry.register_collector(Box::new(sample));
    let mut page = String::new();
    text::encode(&mut page, &registry)?;
    Ok(match format {
        ExpositionFormat::OpenMetrics => page,
        ExpositionFormat::Plain => plain(&page),
    })
}

/// Turns OpenMetrics into Prometheus' own format, in which a counter's help has the name of its values, and nothing
/// marks the end.
fn plain(page: &str) -> String {
    let mut plain = String::with_capacity(page.len());
    let mut lines = page.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(explained) = line.strip_prefix("# ") else {
            plain.extend([line, "\n"]);
            continue;
        };
        let words: Vec<&str> = explained.splitn(3, ' ').collect();
        let &[word, name, rest] = words.as_slice() else { continue };
        let of_counter = |line: &str| line.starts_with("# TYPE ") && line.ends_with(" counter");
        // A name's help precedes its type.
        let total =
            if of_counter(line) || lines.peek().is_some_and(|next| of_counter(next)) { "_total" } else { "" };
        plain.extend(["# ", word, " ", name, total, " ", rest, "\n"]);
    }
    plain
}

impl Collector for JobSample {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        self.process(&mut page)?;
        self.input(&mut page)?;
        self.time(&mut page)?;
        self.state(&mut page)?;
        self.checkpoints(&mut page)?;
        self.ledger(&mut page)?;
        self.output(&mut page)?;
        self.alerts(&mut page)?;
        self.actions(&mut page)?;
        self.api(&mut page)
    }
}

impl JobSample {
    fn process(&self, page: &mut Page<'_>) -> fmt::Result {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        page.gauges("build_info", "The program, always 1", [(version, 1_u64)])?;
        page.gauge(
            "up",
            "1 while ticks close or wait for somebody outside, as /healthz",
            flag(health(self).healthy),
        )?;
        page.gauge("ready", "1 while results are fresh, as /readyz", flag(readiness(self).ready))?;
        let catching_up = flag(self.status.catching_up);
        page.gauge(
            "catching_up",
            "1 while the last tick was cut because the job is behind its input",
            catching_up,
        )?;
        let memory = self.resident_bytes.map(|bytes| (NONE, bytes));
        page.gauges("process_resident_memory_bytes", "Memory that the process holds resident", memory)?;
        let limit = self.memory_limit_bytes.map(|bytes| (NONE, bytes));
        page.gauges("memory_limit_bytes", "Memory that the control group allows the process", limit)
    }

    fn input(&self, page: &mut Page<'_>) -> fmt::Result {
        let (read, results) = (&self.read, &self.results);
        page.counter("bytes", "Bytes of messages that were read", read.bytes)?;
        page.counter("messages", "Messages that were read", read.messages)?;
        page.counter("events", "Accepted, unique events", results.events)?;
        let calls = AnsweredCalls::CLASSES.iter().zip(results.calls);
        let calls = calls.map(|(class, calls)| ([("class", *class)], calls));
        page.counters("calls", "Calls of these events, by the class of their status", calls)?;
        page.counter("duplicates", "Records that repeat an event", results.duplicates)?;
        page.counter("late", "Late events, counted or not", results.late)?;
        page.counter(
            "detector_late",
            "Events that count, and that the detector didn't judge: their minute was closed",
            results.detector_late,
        )?;
        page.counter(
            "detector_deferred",
            "Observations of odd keys beyond 64 of a bucket of keys at once, which are made again later",
            results.detector_deferred,
        )?;
        page.counter(
            "unbilled_calls",
            "Calls that nobody is billed for: their key had no subscription 48 h after their hour",
            results.unbilled_calls,
        )?;
        let overflows =
            OVERFLOWS.iter().zip(results.overflows).map(|(kind, count)| ([("kind", *kind)], count));
        page.counters(
            "overflow_events",
            "Events that count under overflow because a limit of cardinality is reached",
            overflows,
        )?;
        let classes =
            CLASSES.iter().zip(read.dead_letters).map(|(class, count)| ([("reason", *class)], count));
        page.counters("dead_letters", "Records that could not be accepted, by class of reason", classes)?;
        self.oddities(page)?;
        page.counter(
            "table_dead_letters",
            "Rows of tables that could not be accepted",
            read.table_dead_letters,
        )?;
        page.counter(
            "table_unread",
            "Values of optional columns of tables that could not be read and count as unknown",
            read.table_unread,
        )?;
        page.counter("table_changes", "Changes of table rows", read.table_changes)?;
        page.counter("gaps", "Ranges of offsets that were gone before they were read", read.gaps)?;
        page.counter(
            "geo_unreadable_lookups",
            "Look-ups of addresses that hit a damaged record of a geo database, so the place is unknown",
            read.unreadable_places,
        )?;
        let lags = lags(self);
        let lags = lags.iter().map(|((source, partition), lag)| {
            ([("source", *source), ("partition", partition.as_str())], *lag)
        });
        page.gauges("lag_records", "Records that are there and weren't read, where it is known", lags)?;
        let behind = behind(self);
        let behind = behind.iter().map(|((source, partition), behind_ms)| {
            ([("source", *source), ("partition", partition.as_str())], seconds(*behind_ms))
        });
        page.gauges(
            "partition_behind_seconds",
            "How far events of a partition are behind the others', where so far that it holds nothing back",
            behind,
        )?;
        page.gauge(
            "queued_bytes",
            "Memory of messages that wait for workers",
            self.status.queued_bytes as u64,
        )
    }

    /// Adds counters of records that count although something about them is odd.
    fn oddities(&self, page: &mut Page<'_>) -> fmt::Result {
        let names: BTreeMap<usize, &str> =
            self.status.lags.iter().map(|(info, _)| (info.source_index, info.source.as_str())).collect();
        let tallies: Vec<_> =
            names.iter().filter_map(|(index, name)| Some((*name, self.read.tallies.get(*index)?))).collect();
        let unread = tallies.iter().flat_map(|(source, tally)| {
            tally.optional().map(|(field, events)| ([("source", *source), ("field", field)], events))
        });
        page.counters(
            "unreadable_fields",
            "Events that count although a field of theirs can't be read, which is unknown",
            unread,
        )?;
        let of = |get: fn(&Tally) -> u64| {
            tallies.iter().map(move |(source, tally)| ([("source", *source)], get(tally))).collect::<Vec<_>>()
        };
        page.counters(
            "conflicting_events",
            "Events that count under conflicting, as their identity stands twice with different values",
            of(|tally| tally.conflicting),
        )?;
        page.counters(
            "recovered_records",
            "Records of templates with an unescaped quote, read by the order of their names",
            of(|tally| tally.recovered),
        )?;
        page.counters(
            "passed_over_records",
            "Records that are none of calls, as [source.only] or the format says",
            of(|tally| tally.passed_over),
        )
    }

    fn time(&self, page: &mut Page<'_>) -> fmt::Result {
        page.counter("ticks", "Ticks that were closed", self.read.ticks)?;
        let in_flight = self.ticks_in_flight();
        page.gauge("ticks_in_flight", "Ticks that were closed and aren't handed to the sinks", in_flight)?;
        let published = (self.published > 0).then_some((NONE, seconds(self.published)));
        page.gauges(
            "published_tick_timestamp_seconds",
            "The last tick whose results are acknowledged by Kafka and in files",
            published,
        )?;
        let age = self.tick_age_ms().map(|age_ms| (NONE, seconds(age_ms)));
        page.gauges("tick_age_seconds", "Age of the last tick whose results are acknowledged", age)?;
        let watermark = (self.status.watermark > 0).then_some(self.status.watermark);
        let timestamp = watermark.map(|watermark| (NONE, seconds(watermark)));
        page.gauges(
            "watermark_timestamp_seconds",
            "Event time up to which events are expected to be there",
            timestamp,
        )?;
        let age = watermark.map(|watermark| (NONE, seconds(self.now.saturating_sub(watermark))));
        page.gauges("watermark_age_seconds", "How far the watermark is behind the clock", age)
    }

    fn state(&self, page: &mut Page<'_>) -> fmt::Result {
        let caps = |values: [u64; CAPS.len()]| {
            CAPS.iter().zip(values).map(|(kind, value)| ([("kind", *kind)], value))
        };
        let admitted = caps(self.results.admitted);
        page.gauges("admitted", "What counts against a limit in the watermark's month or day", admitted)?;
        page.gauges("limit", "What may be told apart in a month (keys) or a day", caps(self.results.limits))?;
        let label = |state: keytide_dataflow::state::StateId| [("state", state.name())];
        let rows = self.states.iter().map(|(state, footprint)| (label(*state), footprint.rows));
        page.gauges("state_rows", "Entries of each state, over all workers", rows)?;
        let bytes = self.states.iter().map(|(state, footprint)| (label(*state), footprint.bytes));
        page.gauges("state_bytes", "Memory of each state, about", bytes)?;
        let busy = self.busy.iter().map(|(operator, busy)| ([("operator", &**operator)], busy.as_secs_f64()));
        page.seconds("operator_seconds", "How long operators were at work, over all workers", busy)
    }

    fn checkpoints(&self, page: &mut Page<'_>) -> fmt::Result {
        let CheckpointCounts { written, failed, tick, bytes, written_bytes, took_ms, pause_ms } =
            self.checkpoints;
        page.counter("checkpoints", "Checkpoints that were written", written)?;
        page.counter("checkpoint_failures", "Checkpoints that could not be written", failed)?;
        let what = "Bytes that were written for checkpoints: parts that changed";
        page.counter("checkpoint_written_bytes", what, written_bytes)?;
        let newest = |value| (tick > 0).then_some((NONE, value));
        let age = newest(seconds(self.now.saturating_sub(tick)));
        page.gauges("checkpoint_age_seconds", "Age of the newest checkpoint", age)?;
        page.gauges("checkpoint_seconds", "How long the newest checkpoint took", newest(seconds(took_ms)))?;
        let what = "How long a worker paused for the newest checkpoint at most";
        page.gauges("checkpoint_pause_seconds", what, newest(seconds(pause_ms)))?;
        let bytes = (tick > 0).then_some((NONE, bytes));
        page.gauges("checkpoint_bytes", "Bytes of the newest checkpoint", bytes)
    }

    fn ledger(&self, page: &mut Page<'_>) -> fmt::Result {
        let LedgerCounts { number, generation, commits, commit_us, repeated, replayed, to_replay } =
            self.ledger;
        page.gauge("ledger_generation", "Life of the job, counted from 1; 0 without a state", generation)?;
        page.gauge("ledger_tick_number", "Number of the last tick that was committed", number)?;
        page.counter("commits", "Commits of ticks to the ledger", commits)?;
        let took = [(NONE, Duration::from_micros(commit_us).as_secs_f64())];
        page.seconds("commit_seconds", "How long commits took", took)?;
        page.counter("commit_repeats", "Transactions that had to be repeated", repeated)?;
        page.counter("replayed_ticks", "Ticks that were made again after the start", replayed)?;
        page.gauge("ticks_to_replay", "Ticks that are still to be made again", to_replay)
    }

    /// Adds the metrics of each channel: `email`, or `webhook` with its name.
    fn alerts(&self, page: &mut Page<'_>) -> fmt::Result {
        let mails = self.alerts.mails.map(|stats| (["email", ""], stats));
        let webhooks = self.alerts.webhooks.iter().map(|(name, stats)| (["webhook", &**name], *stats));
        let all: Vec<([&str; 2], QueueStats)> = mails.into_iter().chain(webhooks).collect();
        if all.is_empty() {
            return Ok(());
        }
        let each = |of: fn(&QueueStats) -> u64| {
            all.iter()
                .map(move |([channel, name], stats)| ([("channel", *channel), ("name", *name)], of(stats)))
        };
        page.counters("alerts_sent", "Mails and requests that were taken", each(|of| of.sent))?;
        page.counters("alerts_digests", "Digests among them", each(|of| of.digests))?;
        page.counters("alerts_retried", "Attempts that failed and are repeated", each(|of| of.retried))?;
        page.counters("alerts_refused", "Mails and rows that were refused for good", each(|of| of.refused))?;
        page.counters(
            "alerts_condensed",
            "Transitions and notices that are told in digests instead of alone",
            each(|of| of.condensed),
        )?;
        page.counters(
            "alerts_untold",
            "Transitions and notices of which a contact wasn't told, as there were too many to tell",
            each(|of| of.untold),
        )?;
        page.gauges("alerts_queued", "Transitions and notices that are to be told", each(|of| of.queued))?;
        page.gauges(
            "alerts_limited",
            "Recipients that wait for the limits of an hour",
            each(|of| of.limited),
        )?;
        page.gauges(
            "alerts_misconfigured",
            "1 while only a person can mend what keeps alerts from going out",
            each(|of| of.misconfigured.into()),
        )?;
        page.gauges(
            "alerts_blocked",
            "1 while alerts wait because the store of state.url doesn't take their claims",
            each(|of| of.blocked.into()),
        )
    }

    fn actions(&self, page: &mut Page<'_>) -> fmt::Result {
        let Some(counts) = self.actions else { return Ok(()) };
        let ActionCounts { held, requested, failed, denied, muted, is_paused } = counts;
        let states = [("held", held), ("requested", requested), ("failed", failed)];
        let states = states.map(|(state, count)| ([("state", state)], count));
        page.gauges("actions", "Actions that wait for a person or a gateway, or that failed", states)?;
        page.gauge("actions_paused", "1 while every action is held", is_paused.into())?;
        page.gauge("denied_keys", "Keys that gateways are to refuse", denied)?;
        page.gauge("muted_keys", "Keys of which no incident is told for a time", muted)
    }

    fn api(&self, page: &mut Page<'_>) -> fmt::Result {
        let Some(ApiCounts { routes, checks, tick_ms, held, rows_bytes, tokens }) = &self.api else {
            return Ok(());
        };
        let asked = || ROUTES.iter().zip(routes);
        // Most codes never occur on a route.
        let requests = asked().flat_map(|(route, counts)| {
            let codes = CODES.iter().zip(counts.codes).filter(|(_, count)| *count > 0);
            codes.map(|(code, count)| ([("route", *route), ("code", *code)], count))
        });
        page.counters("api_requests", "Requests to the API that were answered", requests)?;
        let took = asked().map(|(route, counts)| ([("route", *route)], counts));
        page.durations("api_seconds", "How long requests to the API took, from their heads on", took)?;
        let checks = REASONS.iter().zip(checks).map(|(reason, count)| ([("reason", *reason)], *count));
        page.counters("api_checks", "Checks, by why they were allowed or denied", checks)?;
        let age = (*tick_ms > 0).then(|| (NONE, seconds(self.now.saturating_sub(*tick_ms))));
        page.gauges("api_tick_age_seconds", "Age of the last tick that answers know of", age)?;
        page.gauge("api_keys", "Keys that the API knows", held.keys)?;
        page.gauge("api_subscriptions", "Subscriptions that the API knows", held.subscriptions)?;
        let what = "Quotas of running periods of which nothing is left";
        page.gauge("quota_over", what, held.quotas_over)?;
        page.gauge("api_reservations", "Reservations that aren't settled", held.reservations)?;
        page.gauge("api_rows_bytes", "Memory of rows that the API has for readers, about", *rows_bytes)?;
        let what = "Active tokens of the table, those that expired among them";
        page.gauges("api_tokens", what, tokens.map(|tokens| (NONE, tokens)))
    }

    fn output(&self, page: &mut Page<'_>) -> fmt::Result {
        let sinks = &self.sinks;
        let views = View::ALL.into_iter().zip(sinks.records);
        let views = views.map(|(view, count)| ([("view", view.name())], count));
        page.counters("sink_records", "Rows that were handed to the sinks, by view", views)?;
        page.counter("sink_bytes", "Bytes of those rows", sinks.bytes)?;
        // All sinks have acknowledged a tick that is published.
        let kinds = self.sink_kinds.iter().filter(|_| self.published > 0);
        let committed = kinds.map(|kind| ([("sink", *kind)], seconds(self.published)));
        let what = "Time of the last tick that the sink acknowledged, since the epoch";
        page.gauges("sink_commit_timestamp_seconds", what, committed)?;
        page.gauge("sink_queued_records", "Records that Kafka hasn't acknowledged", sinks.queued_records)?;
        page.gauge("sink_queued_bytes", "Memory of those records, about", sinks.queued_bytes)?;
        page.counter(
            "sink_rejected",
            "Records that were given up because they are too large",
            sinks.rejected,
        )?;
        page.counter("sink_errors", "Errors of the brokers and of sending", sinks.errors)?;
        page.counter("sink_retries", "Requests that were sent again", sinks.retries)
    }
}

/// Sums lags by source and partition.
fn lags(sample: &JobSample) -> BTreeMap<(&str, String), u64> {
    let mut sums = BTreeMap::new();
    for (partition, lag) in &sample.status.lags {
        let Some(lag) = lag else { continue };
        *sums.entry(label(sample, partition)).or_default() += lag;
    }
    sums
}

/// Returns how far slow partitions are behind, in ms by source and partition.
fn behind(sample: &JobSample) -> BTreeMap<(&str, String), u64> {
    let mut furthest = BTreeMap::new();
    for (partition, behind_ms) in &sample.status.slow {
        let furthest: &mut u64 = furthest.entry(label(sample, partition)).or_default();
        *furthest = (*furthest).max(*behind_ms);
    }
    furthest
}

/// Returns the labels of a partition, or `all` if there are more than [`PARTITIONS`].
fn label<'s>(sample: &'s JobSample, partition: &'s PartitionInfo) -> (&'s str, String) {
    let is_listed = sample.status.lags.len() <= PARTITIONS;
    (&partition.source, if is_listed { partition.number.to_string() } else { "all".to_owned() })
}

fn flag(is_set: bool) -> u64 {
    u64::from(is_set)
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

const NONE: [(&str, &str); 0] = [];

/// The page of metrics, which ends each help text with a full stop.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.counters(name, help, [(NONE, value)])
    }

    fn counters<'s, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = ([(&'static str, &'s str); N], u64)>,
    ) -> fmt::Result {
        let help = format!("{help}.");
        let mut metric = self.0.encode_descriptor(name, &help, None, MetricType::Counter)?;
        for (labels, value) in values {
            if labels.is_empty() {
                metric.encode_counter::<NoLabelSet, u64, u64>(&value, None)?;
            } else {
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, u64>(&value, None)?;
            }
        }
        Ok(())
    }

    fn seconds<'s, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = ([(&'static str, &'s str); N], f64)>,
    ) -> fmt::Result {
        let help = format!("{help}.");
        let mut metric = self.0.encode_descriptor(name, &help, None, MetricType::Counter)?;
        for (labels, value) in values {
            if labels.is_empty() {
                metric.encode_counter::<NoLabelSet, f64, u64>(&value, None)?;
            } else {
                metric.encode_family(&labels)?.encode_counter::<NoLabelSet, f64, u64>(&value, None)?;
            }
        }
        Ok(())
    }

    /// Adds a histogram of durations for each of these, unless there is none of it.
    fn durations<'s, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = ([(&'static str, &'s str); N], &'s RouteCounts)>,
    ) -> fmt::Result {
        let help = format!("{help}.");
        let mut metric = self.0.encode_descriptor(name, &help, None, MetricType::Histogram)?;
        let bounds = BOUNDS_US.map(|bound_us| bound_us as f64 / 1e6).into_iter().chain([f64::MAX]);
        for (labels, RouteCounts { within, sum_us, .. }) in values {
            let count = within.iter().sum();
            if count > 0 {
                let buckets: Vec<(f64, u64)> = bounds.clone().zip(*within).collect();
                let sum = Duration::from_micros(*sum_us).as_secs_f64();
                metric.encode_family(&labels)?.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
            }
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.gauges(name, help, [(NONE, value)])
    }

    fn gauges<'s, const N: usize, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = ([(&'static str, &'s str); N], V)>,
    ) -> fmt::Result {
        let help = format!("{help}.");
        let mut metric = self.0.encode_descriptor(name, &help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            if labels.is_empty() {
                metric.encode_gauge(&value)?;
            } else {
                metric.encode_family(&labels)?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod watched;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use keytide_dataflow::state::{Footprint, StateId};

    use super::super::health::tests::well;
    use super::*;
    use crate::serve::ledger::LedgerSize;

    fn partition(source: &str, number: u32) -> PartitionInfo {
        PartitionInfo {
            source: source.to_owned(),
            source_index: usize::from(source != "edge"),
            number,
            path: None,
        }
    }

    /// Returns a number of rows that no other view has.
    fn records(view: View) -> u64 {
        100 + view as u64
    }

    /// Returns a sample in which every value is known.
    pub(super) fn known() -> JobSample {
        let mut sample = well();
        sample.status.lags = vec![
            (partition("edge", 0), Some(7)),
            (partition("edge", 1), None),
            (partition("web", 0), Some(0)),
        ];
        sample.status.slow = vec![(partition("edge", 1), 3_600_500)];
        sample.status.queued_bytes = 65_536;
        sample.read.bytes = 123_456;
        sample.read.messages = 1_000;
        sample.read.dead_letters = [1, 2, 3, 4, 5, 6, 7, 8, 9];
        let mut tally = Tally::default();
        (tally.passed_over, tally.conflicting, tally.recovered) = (3, 2, 1);
        sample.read.tallies = vec![tally];
        sample.read.table_dead_letters = 8;
        sample.read.table_unread = 9;
        sample.read.table_changes = 9;
        sample.read.gaps = 10;
        sample.read.unreadable_places = 6;
        sample.results.events = 990;
        sample.results.duplicates = 11;
        sample.results.late = 12;
        sample.results.detector_late = 29;
        sample.results.detector_deferred = 34;
        sample.results.unbilled_calls = 36;
        sample.results.overflows = [13, 14, 15];
        sample.results.admitted = [16, 17, 18, 19];
        sample.results.limits = [256, 512, 1_024, 2_048];
        sample.results.calls = [0, 90, 91, 92, 93, 94];
        sample.memory_limit_bytes = Some(2 << 30);
        sample.sink_kinds = &["kafka", "files"];
        sample.results.ticks = 98;
        sample.sinks.records = View::ALL.map(records);
        sample.sinks.bytes = 30;
        sample.sinks.queued_records = 31;
        sample.sinks.queued_bytes = 32;
        sample.sinks.rejected = 33;
        sample.sinks.errors = 34;
        sample.sinks.retries = 35;
        let of_mails = QueueStats {
            sent: 37,
            digests: 38,
            retried: 39,
            refused: 41,
            condensed: 42,
            untold: 43,
            queued: 44,
            limited: 45,
            misconfigured: true,
            blocked: false,
        };
        let of_hook = QueueStats { sent: 46, blocked: true, ..QueueStats::default() };
        sample.alerts.mails = Some(of_mails);
        sample.alerts.webhooks = vec![("soc".to_owned(), of_hook)];
        sample.actions = Some(ActionCounts {
            held: 61,
            requested: 62,
            failed: 63,
            denied: 64,
            muted: 65,
            is_paused: true,
        });
        let mut api = ApiCounts {
            checks: [66, 67, 68, 69, 70, 71],
            tick_ms: sample.now - 72_000,
            held: LedgerSize { keys: 73, subscriptions: 74, reservations: 75, quotas_over: 81 },
            rows_bytes: 80,
            tokens: Some(76),
            ..ApiCounts::default()
        };
        (api.routes[0].codes[0], api.routes[3].codes[8]) = (77, 78);
        api.routes[0].within = [1, 2, 3, 4, 5, 6, 7, 49];
        api.routes[0].sum_us = 79_500_000;
        sample.api = Some(api);
        sample.checkpoints = CheckpointCounts {
            written: 47,
            failed: 48,
            tick: sample.now - 49_000,
            bytes: 50,
            written_bytes: 149,
            took_ms: 51_000,
            pause_ms: 150_000,
        };
        sample.ledger = LedgerCounts {
            number: 52,
            generation: 53,
            commits: 54,
            commit_us: 55_000_000,
            repeated: 56,
            replayed: 57,
            to_replay: 58,
        };
        sample.states = [(StateId::Dedupe, Footprint { rows: 40, bytes: 960 })].into();
        sample.busy = [("Dedupe".into(), Duration::from_millis(1_500))].into();
        sample.resident_bytes = Some(1 << 30);
        sample
    }

    const EXPECTED: &str = r#"
# HELP keytide_build_info The program, always 1.
# TYPE keytide_build_info gauge
keytide_build_info{version="VERSION"} 1
# HELP keytide_up 1 while ticks close or wait for somebody outside, as /healthz.
# TYPE keytide_up gauge
keytide_up 1
# HELP keytide_ready 1 while results are fresh, as /readyz.
# TYPE keytide_ready gauge
keytide_ready 1
# HELP keytide_catching_up 1 while the last tick was cut because the job is behind its input.
# TYPE keytide_catching_up gauge
keytide_catching_up 0
# HELP keytide_process_resident_memory_bytes Memory that the process holds resident.
# TYPE keytide_process_resident_memory_bytes gauge
keytide_process_resident_memory_bytes 1073741824
# HELP keytide_memory_limit_bytes Memory that the control group allows the process.
# TYPE keytide_memory_limit_bytes gauge
keytide_memory_limit_bytes 2147483648
# HELP keytide_bytes Bytes of messages that were read.
# TYPE keytide_bytes counter
keytide_bytes_total 123456
# HELP keytide_messages Messages that were read.
# TYPE keytide_messages counter
keytide_messages_total 1000
# HELP keytide_events Accepted, unique events.
# TYPE keytide_events counter
keytide_events_total 990
# HELP keytide_calls Calls of these events, by the class of their status.
# TYPE keytide_calls counter
keytide_calls_total{class="1xx"} 0
keytide_calls_total{class="2xx"} 90
keytide_calls_total{class="3xx"} 91
keytide_calls_total{class="4xx"} 92
keytide_calls_total{class="5xx"} 93
keytide_calls_total{class="other"} 94
# HELP keytide_duplicates Records that repeat an event.
# TYPE keytide_duplicates counter
keytide_duplicates_total 11
# HELP keytide_late Late events, counted or not.
# TYPE keytide_late counter
keytide_late_total 12
# HELP keytide_detector_late Events that count, and that the detector didn't judge: their minute was closed.
# TYPE keytide_detector_late counter
keytide_detector_late_total 29
# HELP keytide_detector_deferred Observations of odd keys beyond 64 of a bucket of keys at once, which are made again later.
# TYPE keytide_detector_deferred counter
keytide_detector_deferred_total 34
# HELP keytide_unbilled_calls Calls that nobody is billed for: their key had no subscription 48 h after their hour.
# TYPE keytide_unbilled_calls counter
keytide_unbilled_calls_total 36
# HELP keytide_overflow_events Events that count under overflow because a limit of cardinality is reached.
# TYPE keytide_overflow_events counter
keytide_overflow_events_total{kind="key"} 13
keytide_overflow_events_total{kind="route"} 14
keytide_overflow_events_total{kind="country"} 15
# HELP keytide_dead_letters Records that could not be accepted, by class of reason.
# TYPE keytide_dead_letters counter
keytide_dead_letters_total{reason="syntax"} 1
keytide_dead_letters_total{reason="encoding"} 2
keytide_dead_letters_total{reason="limit"} 3
keytide_dead_letters_total{reason="field"} 4
keytide_dead_letters_total{reason="key"} 5
keytide_dead_letters_total{reason="future"} 6
keytide_dead_letters_total{reason="gap"} 7
keytide_dead_letters_total{reason="not_a_call"} 8
keytide_dead_letters_total{reason="unescaped"} 9
# HELP keytide_unreadable_fields Events that count although a field of theirs can't be read, which is unknown.
# TYPE keytide_unreadable_fields counter
keytide_unreadable_fields_total{source="edge",field="request_id"} 0
keytide_unreadable_fields_total{source="edge",field="key"} 0
keytide_unreadable_fields_total{source="edge",field="api"} 0
keytide_unreadable_fields_total{source="edge",field="route"} 0
keytide_unreadable_fields_total{source="edge",field="path"} 0
keytide_unreadable_fields_total{source="edge",field="method"} 0
keytide_unreadable_fields_total{source="edge",field="status"} 0
keytide_unreadable_fields_total{source="edge",field="latency"} 0
keytide_unreadable_fields_total{source="edge",field="end"} 0
keytide_unreadable_fields_total{source="edge",field="bytes_in"} 0
keytide_unreadable_fields_total{source="edge",field="bytes_out"} 0
keytide_unreadable_fields_total{source="edge",field="units"} 0
keytide_unreadable_fields_total{source="edge",field="user_agent"} 0
keytide_unreadable_fields_total{source="edge",field="count"} 0
# HELP keytide_conflicting_events Events that count under conflicting, as their identity stands twice with different values.
# TYPE keytide_conflicting_events counter
keytide_conflicting_events_total{source="edge"} 2
# HELP keytide_recovered_records Records of templates with an unescaped quote, read by the order of their names.
# TYPE keytide_recovered_records counter
keytide_recovered_records_total{source="edge"} 1
# HELP keytide_passed_over_records Records that are none of calls, as [source.only] or the format says.
# TYPE keytide_passed_over_records counter
keytide_passed_over_records_total{source="edge"} 3
# HELP keytide_table_dead_letters Rows of tables that could not be accepted.
# TYPE keytide_table_dead_letters counter
keytide_table_dead_letters_total 8
# HELP keytide_table_unread Values of optional columns of tables that could not be read and count as unknown.
# TYPE keytide_table_unread counter
keytide_table_unread_total 9
# HELP keytide_table_changes Changes of table rows.
# TYPE keytide_table_changes counter
keytide_table_changes_total 9
# HELP keytide_gaps Ranges of offsets that were gone before they were read.
# TYPE keytide_gaps counter
keytide_gaps_total 10
# HELP keytide_geo_unreadable_lookups Look-ups of addresses that hit a damaged record of a geo database, so the place is unknown.
# TYPE keytide_geo_unreadable_lookups counter
keytide_geo_unreadable_lookups_total 6
# HELP keytide_lag_records Records that are there and weren't read, where it is known.
# TYPE keytide_lag_records gauge
keytide_lag_records{source="edge",partition="0"} 7
keytide_lag_records{source="web",partition="0"} 0
# HELP keytide_partition_behind_seconds How far events of a partition are behind the others', where so far that it holds nothing back.
# TYPE keytide_partition_behind_seconds gauge
keytide_partition_behind_seconds{source="edge",partition="1"} 3600.5
# HELP keytide_queued_bytes Memory of messages that wait for workers.
# TYPE keytide_queued_bytes gauge
keytide_queued_bytes 65536
# HELP keytide_ticks Ticks that were closed.
# TYPE keytide_ticks counter
keytide_ticks_total 100
# HELP keytide_ticks_in_flight Ticks that were closed and aren't handed to the sinks.
# TYPE keytide_ticks_in_flight gauge
keytide_ticks_in_flight 2
# HELP keytide_published_tick_timestamp_seconds The last tick whose results are acknowledged by Kafka and in files.
# TYPE keytide_published_tick_timestamp_seconds gauge
keytide_published_tick_timestamp_seconds 1749999997.5
# HELP keytide_tick_age_seconds Age of the last tick whose results are acknowledged.
# TYPE keytide_tick_age_seconds gauge
keytide_tick_age_seconds 2.5
# HELP keytide_watermark_timestamp_seconds Event time up to which events are expected to be there.
# TYPE keytide_watermark_timestamp_seconds gauge
keytide_watermark_timestamp_seconds 1749999994.0
# HELP keytide_watermark_age_seconds How far the watermark is behind the clock.
# TYPE keytide_watermark_age_seconds gauge
keytide_watermark_age_seconds 6.0
# HELP keytide_admitted What counts against a limit in the watermark's month or day.
# TYPE keytide_admitted gauge
keytide_admitted{kind="key"} 16
keytide_admitted{kind="route"} 17
keytide_admitted{kind="key_route"} 18
keytide_admitted{kind="key_country"} 19
# HELP keytide_limit What may be told apart in a month (keys) or a day.
# TYPE keytide_limit gauge
keytide_limit{kind="key"} 256
keytide_limit{kind="route"} 512
keytide_limit{kind="key_route"} 1024
keytide_limit{kind="key_country"} 2048
# HELP keytide_state_rows Entries of each state, over all workers.
# TYPE keytide_state_rows gauge
keytide_state_rows{state="dedupe"} 40
# HELP keytide_state_bytes Memory of each state, about.
# TYPE keytide_state_bytes gauge
keytide_state_bytes{state="dedupe"} 960
# HELP keytide_operator_seconds How long operators were at work, over all workers.
# TYPE keytide_operator_seconds counter
keytide_operator_seconds_total{operator="Dedupe"} 1.5
# HELP keytide_checkpoints Checkpoints that were written.
# TYPE keytide_checkpoints counter
keytide_checkpoints_total 47
# HELP keytide_checkpoint_failures Checkpoints that could not be written.
# TYPE keytide_checkpoint_failures counter
keytide_checkpoint_failures_total 48
# HELP keytide_checkpoint_written_bytes Bytes that were written for checkpoints: parts that changed.
# TYPE keytide_checkpoint_written_bytes counter
keytide_checkpoint_written_bytes_total 149
# HELP keytide_checkpoint_age_seconds Age of the newest checkpoint.
# TYPE keytide_checkpoint_age_seconds gauge
keytide_checkpoint_age_seconds 49.0
# HELP keytide_checkpoint_seconds How long the newest checkpoint took.
# TYPE keytide_checkpoint_seconds gauge
keytide_checkpoint_seconds 51.0
# HELP keytide_checkpoint_pause_seconds How long a worker paused for the newest checkpoint at most.
# TYPE keytide_checkpoint_pause_seconds gauge
keytide_checkpoint_pause_seconds 150.0
# HELP keytide_checkpoint_bytes Bytes of the newest checkpoint.
# TYPE keytide_checkpoint_bytes gauge
keytide_checkpoint_bytes 50
# HELP keytide_ledger_generation Life of the job, counted from 1; 0 without a state.
# TYPE keytide_ledger_generation gauge
keytide_ledger_generation 53
# HELP keytide_ledger_tick_number Number of the last tick that was committed.
# TYPE keytide_ledger_tick_number gauge
keytide_ledger_tick_number 52
# HELP keytide_commits Commits of ticks to the ledger.
# TYPE keytide_commits counter
keytide_commits_total 54
# HELP keytide_commit_seconds How long commits took.
# TYPE keytide_commit_seconds counter
keytide_commit_seconds_total 55.0
# HELP keytide_commit_repeats Transactions that had to be repeated.
# TYPE keytide_commit_repeats counter
keytide_commit_repeats_total 56
# HELP keytide_replayed_ticks Ticks that were made again after the start.
# TYPE keytide_replayed_ticks counter
keytide_replayed_ticks_total 57
# HELP keytide_ticks_to_replay Ticks that are still to be made again.
# TYPE keytide_ticks_to_replay gauge
keytide_ticks_to_replay 58
# HELP keytide_sink_records Rows that were handed to the sinks, by view.
# TYPE keytide_sink_records counter
SINK_RECORDS
# HELP keytide_sink_bytes Bytes of those rows.
# TYPE keytide_sink_bytes counter
keytide_sink_bytes_total 30
# HELP keytide_sink_commit_timestamp_seconds Time of the last tick that the sink acknowledged, since the epoch.
# TYPE keytide_sink_commit_timestamp_seconds gauge
keytide_sink_commit_timestamp_seconds{sink="kafka"} 1749999997.5
keytide_sink_commit_timestamp_seconds{sink="files"} 1749999997.5
# HELP keytide_sink_queued_records Records that Kafka hasn't acknowledged.
# TYPE keytide_sink_queued_records gauge
keytide_sink_queued_records 31
# HELP keytide_sink_queued_bytes Memory of those records, about.
# TYPE keytide_sink_queued_bytes gauge
keytide_sink_queued_bytes 32
# HELP keytide_sink_rejected Records that were given up because they are too large.
# TYPE keytide_sink_rejected counter
keytide_sink_rejected_total 33
# HELP keytide_sink_errors Errors of the brokers and of sending.
# TYPE keytide_sink_errors counter
keytide_sink_errors_total 34
# HELP keytide_sink_retries Requests that were sent again.
# TYPE keytide_sink_retries counter
keytide_sink_retries_total 35
# HELP keytide_alerts_sent Mails and requests that were taken.
# TYPE keytide_alerts_sent counter
keytide_alerts_sent_total{channel="email",name=""} 37
keytide_alerts_sent_total{channel="webhook",name="soc"} 46
# HELP keytide_alerts_digests Digests among them.
# TYPE keytide_alerts_digests counter
keytide_alerts_digests_total{channel="email",name=""} 38
keytide_alerts_digests_total{channel="webhook",name="soc"} 0
# HELP keytide_alerts_retried Attempts that failed and are repeated.
# TYPE keytide_alerts_retried counter
keytide_alerts_retried_total{channel="email",name=""} 39
keytide_alerts_retried_total{channel="webhook",name="soc"} 0
# HELP keytide_alerts_refused Mails and rows that were refused for good.
# TYPE keytide_alerts_refused counter
keytide_alerts_refused_total{channel="email",name=""} 41
keytide_alerts_refused_total{channel="webhook",name="soc"} 0
# HELP keytide_alerts_condensed Transitions and notices that are told in digests instead of alone.
# TYPE keytide_alerts_condensed counter
keytide_alerts_condensed_total{channel="email",name=""} 42
keytide_alerts_condensed_total{channel="webhook",name="soc"} 0
# HELP keytide_alerts_untold Transitions and notices of which a contact wasn't told, as there were too many to tell.
# TYPE keytide_alerts_untold counter
keytide_alerts_untold_total{channel="email",name=""} 43
keytide_alerts_untold_total{channel="webhook",name="soc"} 0
# HELP keytide_alerts_queued Transitions and notices that are to be told.
# TYPE keytide_alerts_queued gauge
keytide_alerts_queued{channel="email",name=""} 44
keytide_alerts_queued{channel="webhook",name="soc"} 0
# HELP keytide_alerts_limited Recipients that wait for the limits of an hour.
# TYPE keytide_alerts_limited gauge
keytide_alerts_limited{channel="email",name=""} 45
keytide_alerts_limited{channel="webhook",name="soc"} 0
# HELP keytide_alerts_misconfigured 1 while only a person can mend what keeps alerts from going out.
# TYPE keytide_alerts_misconfigured gauge
keytide_alerts_misconfigured{channel="email",name=""} 1
keytide_alerts_misconfigured{channel="webhook",name="soc"} 0
# HELP keytide_alerts_blocked 1 while alerts wait because the store of state.url doesn't take their claims.
# TYPE keytide_alerts_blocked gauge
keytide_alerts_blocked{channel="email",name=""} 0
keytide_alerts_blocked{channel="webhook",name="soc"} 1
# HELP keytide_actions Actions that wait for a person or a gateway, or that failed.
# TYPE keytide_actions gauge
keytide_actions{state="held"} 61
keytide_actions{state="requested"} 62
keytide_actions{state="failed"} 63
# HELP keytide_actions_paused 1 while every action is held.
# TYPE keytide_actions_paused gauge
keytide_actions_paused 1
# HELP keytide_denied_keys Keys that gateways are to refuse.
# TYPE keytide_denied_keys gauge
keytide_denied_keys 64
# HELP keytide_muted_keys Keys of which no incident is told for a time.
# TYPE keytide_muted_keys gauge
keytide_muted_keys 65
# HELP keytide_api_requests Requests to the API that were answered.
# TYPE keytide_api_requests counter
keytide_api_requests_total{route="check",code="200"} 77
keytide_api_requests_total{route="auth",code="429"} 78
# HELP keytide_api_seconds How long requests to the API took, from their heads on.
# TYPE keytide_api_seconds histogram
keytide_api_seconds_sum{route="check"} 79.5
keytide_api_seconds_count{route="check"} 77
keytide_api_seconds_bucket{le="0.00025",route="check"} 1
keytide_api_seconds_bucket{le="0.001",route="check"} 3
keytide_api_seconds_bucket{le="0.005",route="check"} 6
keytide_api_seconds_bucket{le="0.025",route="check"} 10
keytide_api_seconds_bucket{le="0.1",route="check"} 15
keytide_api_seconds_bucket{le="0.5",route="check"} 21
keytide_api_seconds_bucket{le="2.5",route="check"} 28
keytide_api_seconds_bucket{le="+Inf",route="check"} 77
# HELP keytide_api_checks Checks, by why they were allowed or denied.
# TYPE keytide_api_checks counter
keytide_api_checks_total{reason="ok"} 66
keytide_api_checks_total{reason="unknown"} 67
keytide_api_checks_total{reason="quota"} 68
keytide_api_checks_total{reason="suspended"} 69
keytide_api_checks_total{reason="revoked"} 70
keytide_api_checks_total{reason="stale"} 71
# HELP keytide_api_tick_age_seconds Age of the last tick that answers know of.
# TYPE keytide_api_tick_age_seconds gauge
keytide_api_tick_age_seconds 72.0
# HELP keytide_api_keys Keys that the API knows.
# TYPE keytide_api_keys gauge
keytide_api_keys 73
# HELP keytide_api_subscriptions Subscriptions that the API knows.
# TYPE keytide_api_subscriptions gauge
keytide_api_subscriptions 74
# HELP keytide_quota_over Quotas of running periods of which nothing is left.
# TYPE keytide_quota_over gauge
keytide_quota_over 81
# HELP keytide_api_reservations Reservations that aren't settled.
# TYPE keytide_api_reservations gauge
keytide_api_reservations 75
# HELP keytide_api_rows_bytes Memory of rows that the API has for readers, about.
# TYPE keytide_api_rows_bytes gauge
keytide_api_rows_bytes 80
# HELP keytide_api_tokens Active tokens of the table, those that expired among them.
# TYPE keytide_api_tokens gauge
keytide_api_tokens 76
# EOF
"#;

    #[test]
    fn a_job_of_which_everything_is_known() {
        let version = env!("CARGO_PKG_VERSION");
        let of_views = View::ALL
            .map(|view| format!("keytide_sink_records_total{{view=\"{}\"}} {}", view.name(), records(view)));
        let expected = EXPECTED.trim_start().replace("VERSION", version);
        let expected = expected.replace("SINK_RECORDS", &of_views.join("\n"));
        assert_eq!(text(known(), ExpositionFormat::OpenMetrics).unwrap(), expected);
    }

    #[test]
    fn the_plain_format_has_the_same_values_and_explains_each_by_its_name() {
        let (open, plain) = (
            text(known(), ExpositionFormat::OpenMetrics).unwrap(),
            text(known(), ExpositionFormat::Plain).unwrap(),
        );
        let values = |page: &str| {
            page.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(values(&open), values(&plain));
        let help: BTreeSet<&str> =
            plain.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split(' ').next()).collect();
        let types: BTreeSet<&str> =
            plain.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        assert_eq!(help, types);
        for line in values(&plain) {
            let name = line.split([' ', '{']).next().unwrap();
            // The three series of a histogram have one name.
            let stem = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            if stem.is_some_and(|stem| plain.contains(&format!("# TYPE {stem} histogram\n"))) {
                continue;
            }
            assert!(help.contains(name), "{name}");
            let is_counter = plain.contains(&format!("# TYPE {name} counter\n"));
            assert_eq!(is_counter, name.ends_with("_total"), "{name}");
        }
        assert!(open.ends_with("# EOF\n") && !plain.contains("# EOF"));
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let page = text(JobSample::default(), ExpositionFormat::OpenMetrics).unwrap();
        let samples: BTreeSet<&str> = page
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split([' ', '{']).next())
            .collect();
        for unknown in [
            "keytide_published_tick_timestamp_seconds",
            "keytide_tick_age_seconds",
            "keytide_watermark_timestamp_seconds",
            "keytide_watermark_age_seconds",
            "keytide_lag_records",
            "keytide_partition_behind_seconds",
            "keytide_process_resident_memory_bytes",
        ] {
            assert!(page.contains(&format!("# HELP {unknown} ")), "{unknown}");
            assert!(!samples.contains(unknown), "{unknown}");
        }
        assert!(samples.contains("keytide_events_total"));
    }

    #[test]
    fn labels_are_bounded() {
        let mut sample = well();
        let lags = |count: u32| {
            (0..count).map(|n| (partition(["a", "b"][n as usize % 2], n / 2), Some(1))).collect()
        };
        let lines = |sample: &JobSample| {
            let page = text(sample.clone(), ExpositionFormat::OpenMetrics).unwrap();
            let lags = page.lines().filter(|line| line.starts_with("keytide_lag_records{"));
            lags.map(str::to_owned).collect::<Vec<_>>()
        };
        sample.status.lags = lags(1_000);
        assert_eq!(lines(&sample).len(), 1_000);
        sample.status.lags = lags(1_002);
        let sums = ["a", "b"]
            .map(|source| format!("keytide_lag_records{{source=\"{source}\",partition=\"all\"}} 501"));
        assert_eq!(lines(&sample), sums);
        sample.status.slow = (0..1_002).map(|n| (partition("a", n), u64::from(n) * 1_000)).collect();
        let page = text(sample, ExpositionFormat::OpenMetrics).unwrap();
        let behind: Vec<_> =
            page.lines().filter(|line| line.starts_with("keytide_partition_behind")).collect();
        assert_eq!(behind, ["keytide_partition_behind_seconds{source=\"a\",partition=\"all\"} 1001.0"]);
    }

    #[test]
    fn every_metric_is_explained_once_and_every_name_is_ours() {
        let page = text(known(), ExpositionFormat::OpenMetrics).unwrap();
        let mut explained = BTreeSet::new();
        for line in page.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
            let (name, help) = line.split_once(' ').unwrap();
            assert!(help.len() > 10 && help.ends_with('.') && !help.ends_with(".."), "{line}");
            assert!(explained.insert(name.to_owned()), "{name}");
        }
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split([' ', '{']).next().unwrap();
            assert!(name.starts_with("keytide_"), "{line}");
            let stem = ["_total", "_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            assert!(explained.contains(stem.unwrap_or(name)), "{line}");
        }
    }
}
