//! A job's detector over all that its sources hold.
//!
//! The very dataflow of the job reads them, as `replay` does, and asks its policy as a live job does; so the incidents
//! are those that the job would have had, bit for bit, whatever the number of workers.

use std::collections::BTreeMap;
use std::path::Path;

use keytide_alerts::policy::PolicyEngine;
use keytide_config::JobConfig;
use keytide_connectors::sink::JobInfo;
use keytide_connectors::sink::names::Names;
use keytide_dataflow::detect::{Severity, Signal};
use keytide_dataflow::model::{KeyId, Tick};
use keytide_dataflow::{
    Action, ActionState, Change, IncidentId, IncidentState, Owner, Revocation, Transition,
};
use keytide_worker::records::Records;
use keytide_worker::replay::{Bounded, Keep, WrittenIncidents, write_incidents};

use super::gravest::Gravest;
use super::judge::Alert;

/// What a report needs of an incident.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) key: KeyId,
    pub(super) owner: Owner,
    pub(super) severity: Severity,
    pub(super) state: IncidentState,
    /// In the order of their bits.
    pub(super) signals: Vec<Signal>,
    /// Whether it opened before its window was over.
    pub(super) early: bool,
    pub(super) platform_event: bool,
    /// How often somebody was told that it opened, rose or came back.
    pub(super) alerts: usize,
}

/// What a run of the detector made of the input.
pub(super) struct Observed {
    /// What became of the input's records.
    pub(super) records: Records,
    pub(super) config: String,
    /// The first minute with a call, and the end of the last.
    pub(super) span_ms: Option<(u64, u64)>,
    pub(super) events: u64,
    pub(super) keys: usize,
    /// In the order in which they came.
    pub(super) alerts: Vec<Alert>,
    pub(super) incidents: BTreeMap<IncidentId, Told>,
    /// By action, and whether it was withdrawn.
    pub(super) actions: BTreeMap<(Action, ActionState), usize>,
    pub(super) names: Names,
    /// Rows of `scores.csv`.
    pub(super) scores: u64,
    /// The gravest incidents, as rows of `incident_log`.
    pub(super) gravest: Vec<Vec<u8>>,
}

/// What the policy sees, noted.
#[derive(Default)]
struct Notes {
    alerts: Vec<(KeyId, u64, Severity)>,
    incidents: BTreeMap<IncidentId, Told>,
    actions: BTreeMap<u128, (Action, ActionState)>,
    gravest: Gravest,
}

impl Notes {
    fn note(&mut self, transition: &Transition) {
        self.gravest.note(transition);
        let incident = &transition.incident;
        let told = self.incidents.entry(incident.id).or_insert_with(|| Told {
            key: incident.key,
            owner: incident.owner,
            severity: incident.severity,
            state: incident.state,
            signals: Vec::new(),
            early: transition.early,
            platform_event: incident.platform_event,
            alerts: 0,
        });
        told.severity = told.severity.max(incident.severity);
        told.state = incident.state;
        told.platform_event |= incident.platform_event;
        told.signals = incident.signals.iter().map(|evidence| evidence.signal).collect();
        if matches!(transition.change, Change::Opened | Change::Raised | Change::Reopened) {
            told.alerts += 1;
            self.alerts.push((incident.key, transition.at_ms, incident.severity));
        }
    }

    fn act(&mut self, actions: &[Revocation]) {
        self.actions.extend(actions.iter().map(|action| (action.id, (action.action, action.state))));
    }
}

/// Runs a job's detector; what it writes is put into `folder`.
pub(super) fn observe(
    bounded: Bounded,
    job: &JobConfig,
    now: Tick,
    decode_threads: usize,
    folder: &Path,
    keep: Keep,
) -> anyhow::Result<Observed> {
    let config = job.fingerprint();
    let (collected, ingest) = bounded.run(now, decode_threads, folder, keep)?;
    let info = JobInfo { config: &config, partitions: ingest.partitions() };
    let mut notes = Notes::default();
    let mut policy = PolicyEngine::new(job.alerts.policy);
    let mut decide = |transitions: &[Transition]| {
        transitions.iter().for_each(|transition| notes.note(transition));
        let actions = policy.decide(transitions);
        notes.act(&actions);
        actions
    };
    let WrittenIncidents { scores, counts, seen, names } =
        write_incidents(collected, info, folder, keep, &mut decide)?;
    let Notes { alerts, incidents, actions, gravest } = notes;
    let gravest = gravest.rows(&names, info);
    let alert = |(key, at_ms, severity)| Alert { key: names.key_text(key).into_owned(), at_ms, severity };
    let alerts = alerts.into_iter().map(alert).collect();
    let records = Records::of(&ingest.counts(), ingest.partitions());
    let mut by_action = BTreeMap::new();
    actions.into_values().for_each(|action| *by_action.entry(action).or_default() += 1);
    Ok(Observed {
        config,
        records,
        span_ms: seen.span_ms,
        events: counts.events,
        keys: seen.keys.len(),
        alerts,
        incidents,
        actions: by_action,
        names,
        scores,
        gravest,
    })
}
