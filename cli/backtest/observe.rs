//! Runs a job's detector over all that its sources hold.
//!
//! The job's own dataflow reads them, as `replay` does, and asks the policy, as a live job does. So the incidents are
//! those that the job would have had, bit for bit, whatever the number of workers.

use std::collections::BTreeMap;
use std::path::Path;

use keytide_alerts::actions::ActionEngine;
use keytide_config::JobConfig;
use keytide_connectors::sink::names::Names;
use keytide_connectors::sink::{JobInfo, TickFacts};
use keytide_dataflow::detect::{Severity, Signal};
use keytide_dataflow::model::{KeyId, Tick};
use keytide_dataflow::{
    Action, ActionId, ActionState, Change, IncidentId, IncidentState, Owner, Revocation, Transition,
};
use keytide_worker::records::RecordCounts;
use keytide_worker::replay::{BoundedRun, Keep, WrittenIncidents, write_incidents};

use super::drawn::DrawnIncidents;
use super::judge::Alert;
use crate::overview::{self, ListedIncidents, Overview};

/// The facts about an incident that a report needs.
#[derive(Clone, Debug)]
pub(super) struct IncidentSummary {
    pub(super) key: KeyId,
    pub(super) owner: Owner,
    pub(super) severity: Severity,
    pub(super) state: IncidentState,
    /// In the order of their bits.
    pub(super) signals: Vec<Signal>,
    pub(super) early: bool,
    pub(super) platform_event: bool,
    /// How often it opened, rose or came back.
    pub(super) alerts: usize,
}

/// The results of a run of the detector.
pub(super) struct DetectorRun {
    pub(super) records: RecordCounts,
    pub(super) config: String,
    /// The first minute with a call and the end of the last one.
    pub(super) span_ms: Option<(u64, u64)>,
    pub(super) events: u64,
    pub(super) keys: usize,
    /// In the order in which they came.
    pub(super) alerts: Vec<Alert>,
    pub(super) incidents: BTreeMap<IncidentId, IncidentSummary>,
    /// Numbers of actions by kind and state.
    pub(super) actions: BTreeMap<(Action, ActionState), usize>,
    pub(super) names: Names,
    /// Rows of `scores.csv`.
    pub(super) scores: u64,
    /// The gravest incidents, as rows of `incident_log`.
    pub(super) gravest: Vec<Vec<u8>>,
    /// Without keys and routes, unless the run keeps their rows.
    pub(super) overview: Overview,
}

/// Notes of the transitions that pass the policy, and of its actions.
#[derive(Default)]
struct Notes {
    alerts: Vec<(KeyId, u64, Severity)>,
    incidents: BTreeMap<IncidentId, IncidentSummary>,
    actions: BTreeMap<ActionId, (Action, ActionState)>,
    gravest: DrawnIncidents,
}

impl Notes {
    fn note(&mut self, transition: &Transition) {
        self.gravest.note(transition);
        let incident = &transition.incident;
        let summary = self.incidents.entry(incident.id).or_insert_with(|| IncidentSummary {
            key: incident.key,
            owner: incident.owner,
            severity: incident.severity,
            state: incident.state,
            signals: Vec::new(),
            early: transition.early,
            platform_event: incident.platform_event,
            alerts: 0,
        });
        summary.severity = summary.severity.max(incident.severity);
        summary.state = incident.state;
        summary.platform_event |= incident.platform_event;
        summary.signals = incident.signals.iter().map(|evidence| evidence.signal).collect();
        // What people are told: neither notices nor repeats.
        let is_told = incident.severity >= Severity::Alert && !transition.is_repeat;
        if is_told && matches!(transition.change, Change::Opened | Change::Raised | Change::Reopened) {
            summary.alerts += 1;
            self.alerts.push((incident.key, transition.at_ms, incident.severity));
        }
    }

    fn act(&mut self, actions: &[Revocation]) {
        self.actions.extend(actions.iter().map(|action| (action.id, (action.action, action.state))));
    }
}

/// Runs a job's detector, and writes incidents and scores into `folder`.
pub(super) fn observe(
    bounded: BoundedRun,
    job: &JobConfig,
    now: Tick,
    decode_threads: usize,
    folder: &Path,
    keep: Keep,
) -> anyhow::Result<DetectorRun> {
    let config = job.fingerprint();
    let (collected, ingest) = bounded.run(now, decode_threads, folder, keep)?;
    let info = JobInfo { config: &config, partitions: ingest.partitions() };
    let (mut notes, mut listed) = (Notes::default(), ListedIncidents::default());
    let mut actions = ActionEngine::new(job.alerts.policy, None);
    let mut decide = |TickFacts { transitions, inputs, names, .. }: TickFacts<'_>| {
        transitions.iter().for_each(|transition| notes.note(transition));
        listed.note(transitions);
        let (rows, _) = actions.fold(0, inputs, transitions, &|key| names.key_text(key).into_owned());
        notes.act(&rows.revocations);
        rows
    };
    let WrittenIncidents { scores, counts, coverage, incidents: incident_counts, figures, names } =
        write_incidents(collected, info, folder, keep, &mut decide)?;
    let Notes { alerts, incidents, actions, gravest } = notes;
    let gravest = gravest.rows(&names, info);
    let alert = |(key, at_ms, severity)| Alert { key: names.key_text(key).into_owned(), at_ms, severity };
    let alerts = alerts.into_iter().map(alert).collect();
    let records = RecordCounts::of(&ingest.counts(), ingest.partitions());
    let overview = Overview::new(&overview::Run {
        job,
        figures: &figures,
        names: &names,
        counts,
        records: &records,
        lags: ingest.counts().lags,
        incidents: &incident_counts,
        listed: &listed,
        info,
    });
    let mut by_action = BTreeMap::new();
    actions.into_values().for_each(|action| *by_action.entry(action).or_default() += 1);
    Ok(DetectorRun {
        config,
        records,
        span_ms: coverage.span_ms(),
        events: counts.events,
        keys: coverage.keys(),
        alerts,
        incidents,
        actions: by_action,
        names,
        scores,
        gravest,
        overview,
    })
}
