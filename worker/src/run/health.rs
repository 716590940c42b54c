//! Health and readiness of a job, for supervisors.
//!
//! *Healthy* means that a restart would not help: ticks close, or they wait for something outside of the process. A
//! job is healthy while Kafka is away, a sink is slow or tables are being read. It is unhealthy once a reader or a worker
//! hangs, as `watchdog.rs` says. While ticks of an earlier life are made again, or a checkpoint is waited for, it is
//! healthy, too.
//!
//! *Ready* means that results are fresh: tables are read, and the last acknowledged tick is younger than [`STALE_MS`]
//! or [`STALE_TICKS`] ticks, whichever is longer. A tick without rows counts as acknowledged, so it proves nothing about
//! the brokers. Therefore a job with topics is ready only once its producer has an id.

use jiff::Timestamp;
use keytide_dataflow::model::Tick;
use serde::Serialize;

use super::cluster::ClusterStatus;
use super::sample::JobSample;

/// How old results may be before they are stale, in ms; `STALE_TICKS` ticks if that is longer.
pub(super) const STALE_MS: u64 = 30_000;
const STALE_TICKS: u64 = 10;

/// The body of `/healthz`.
#[derive(Debug, Serialize)]
pub(super) struct Health {
    pub(super) healthy: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The last closed tick.
    tick: Option<String>,
    /// The last tick that the sinks acknowledged.
    published_tick: Option<String>,
    watermark: Option<String>,
    lag_records: u64,
    catching_up: bool,
}

/// The body of `/readyz`.
#[derive(Debug, Serialize)]
pub(super) struct Readiness {
    pub(super) ready: bool,
    reasons: Vec<String>,
}

/// The body of `/status`.
#[derive(Debug, Serialize)]
pub(super) struct JobStatus<'a> {
    #[serde(flatten)]
    cluster: &'a ClusterStatus,
    /// True if this process cuts ticks and publishes.
    leads: bool,
    /// The last tick that was closed, in all processes.
    tick: Option<String>,
    /// The last tick that was published.
    published_tick: Option<String>,
    /// The event time up to which the job has seen the calls.
    complete_until: Option<String>,
    /// Unread records of the partitions that this process knows of.
    lag_records: u64,
    /// The tick of the newest checkpoint, which the process that leads knows.
    checkpoint_tick: Option<String>,
    ending: bool,
    /// The newest tick that each process computed, in the order of their numbers. Only the process that leads knows it.
    computed: Vec<Option<String>>,
}

/// Returns what people want to know first of a job.
pub(super) fn job_status(sample: &JobSample) -> JobStatus<'_> {
    JobStatus {
        cluster: &sample.cluster,
        leads: sample.cluster.process == 0 && sample.cluster.waits_for.is_none(),
        tick: time(sample.status.closed),
        published_tick: time(sample.published),
        complete_until: time(sample.status.watermark),
        lag_records: sample.lag(),
        checkpoint_tick: time(sample.checkpoints.tick),
        ending: sample.is_stopping,
        computed: sample.status.computed_by.iter().map(|tick| time(*tick)).collect(),
    }
}

/// Judges whether a restart of the job would help.
pub(super) fn health(sample: &JobSample) -> Health {
    let reason = sample.hang();
    Health {
        healthy: reason.is_none(),
        reason,
        tick: time(sample.status.closed),
        published_tick: time(sample.published),
        watermark: time(sample.status.watermark),
        lag_records: sample.lag(),
        catching_up: sample.status.catching_up,
    }
}

/// Judges whether the job's results are fresh.
pub(super) fn readiness(sample: &JobSample) -> Readiness {
    let mut reasons = Vec::new();
    if sample.is_stopping {
        reasons.push("the job is ending".to_owned());
    }
    if let Some(waits_for) = &sample.cluster.waits_for {
        reasons.push(format!("waits for {waits_for}"));
    } else if !sample.status.tables_read {
        reasons.push("tables are being read".to_owned());
    }
    if sample.waits_for_id {
        reasons.push("the producer of sink.kafka has no id of the brokers yet".to_owned());
    }
    let allowed_ms = STALE_MS.max(sample.tick_ms.saturating_mul(STALE_TICKS));
    match sample.tick_age_ms() {
        None => reasons.push("no tick is published yet".to_owned()),
        Some(age_ms) if age_ms > allowed_ms => reasons.push(format!(
            "the last published tick is {} s old, allowed are {} s: {}",
            age_ms / 1_000,
            allowed_ms / 1_000,
            if sample.status.closed > sample.published {
                "sinks are behind"
            } else {
                "no tick was closed since"
            },
        )),
        Some(_) => {}
    }
    reasons.extend(sample.hang());
    Readiness { ready: reasons.is_empty(), reasons }
}

/// Formats a time; `None` for 0, which stands for no tick yet.
fn time(ms: Tick) -> Option<String> {
    let ms = i64::try_from(ms).ok().filter(|ms| *ms > 0)?;
    Some(Timestamp::from_millisecond(ms).ok()?.to_string())
}

#[cfg(test)]
pub(super) mod tests {
    use keytide_connectors::live::TICKS_PUBLISHED;

    use super::super::watchdog::STUCK_MS;
    use super::*;

    const NOW: Tick = 1_750_000_000_000;

    /// Returns the sample of a healthy and ready job.
    pub(in crate::run) fn well() -> JobSample {
        let mut sample =
            JobSample { now: NOW, tick_ms: 1_000, published: NOW - 2_500, ..JobSample::default() };
        sample.status.open = NOW - 500;
        sample.status.closed = NOW - 1_500;
        sample.status.computed = NOW - 1_500;
        sample.status.published = NOW - 1_500;
        sample.status.watermark = NOW - 6_000;
        sample.status.tables_read = true;
        sample.read.ticks = 100;
        sample.results.ticks = 100;
        sample
    }

    fn reasons(sample: &JobSample) -> Vec<String> {
        let readiness = readiness(sample);
        assert_eq!(readiness.ready, readiness.reasons.is_empty());
        readiness.reasons
    }

    #[test]
    fn a_job_that_does_well_is_healthy_and_ready() {
        let health = serde_json::to_string(&health(&well())).unwrap();
        assert_eq!(
            health,
            "{\"healthy\":true,\"tick\":\"2025-06-15T15:06:38.5Z\",\
             \"published_tick\":\"2025-06-15T15:06:37.5Z\",\"watermark\":\"2025-06-15T15:06:34Z\",\
             \"lag_records\":0,\"catching_up\":false}"
        );
        assert_eq!(serde_json::to_string(&readiness(&well())).unwrap(), "{\"ready\":true,\"reasons\":[]}");
    }

    #[test]
    fn a_job_that_begins_is_healthy_but_not_ready() {
        let mut sample = JobSample { now: NOW, tick_ms: 1_000, ..JobSample::default() };
        sample.status.open = NOW - 10 * STUCK_MS;
        assert!(health(&sample).healthy, "tables may be large");
        assert_eq!(reasons(&sample), ["tables are being read", "no tick is published yet"]);
    }

    #[test]
    fn a_job_that_ends_is_healthy_but_not_ready() {
        let sample = JobSample { is_stopping: true, ..well() };
        assert!(health(&sample).healthy);
        assert_eq!(reasons(&sample), ["the job is ending"]);
    }

    #[test]
    fn a_job_whose_producer_has_no_id_is_healthy_but_not_ready() {
        let sample = JobSample { waits_for_id: true, ..well() };
        assert!(health(&sample).healthy, "the brokers may be away");
        assert_eq!(reasons(&sample), ["the producer of sink.kafka has no id of the brokers yet"]);
    }

    #[test]
    fn a_job_whose_sinks_are_away_is_healthy_but_not_ready() {
        let mut sample = well();
        sample.now += 10 * STUCK_MS;
        sample.read.ticks = sample.results.ticks + TICKS_PUBLISHED;
        assert!(health(&sample).healthy, "an outage is waited out");
        let stale = "the last published tick is 1202 s old, allowed are 30 s: sinks are behind";
        assert_eq!(reasons(&sample), [stale]);
    }

    #[test]
    fn a_tick_that_nobody_waits_for_is_stuck() {
        let mut sample = well();
        sample.now = sample.status.open + STUCK_MS;
        assert!(health(&sample).healthy, "exactly so long is allowed");
        sample.now += 1_000;
        let reader = "the tick has been open for 121 s: a reader doesn't answer";
        assert_eq!(health(&sample).reason.as_deref(), Some(reader));
        assert!(reasons(&sample).contains(&reader.to_owned()));
        sample.status.computed -= 1;
        // Workers that hang let ticks pile up, but it isn't the sinks that are waited for.
        sample.read.ticks = sample.results.ticks + TICKS_PUBLISHED;
        let worker = "the tick has been open for 121 s: a worker doesn't finish the one before";
        assert_eq!(health(&sample).reason.as_deref(), Some(worker));
        sample.status.computed_by = vec![sample.status.closed, sample.status.computed];
        assert_eq!(health(&sample).reason, Some(format!("{worker} in process 1")));
    }

    #[test]
    fn wide_ticks_are_given_their_time() {
        let mut sample = JobSample { tick_ms: 60_000, ..well() };
        sample.now = sample.published + 600_000;
        assert_eq!(reasons(&sample), [""; 0]);
        sample.now += 1_000;
        assert_eq!(reasons(&sample).len(), 1);
    }
}
