//! The incidents that people are told of, as far as they ask for one by its id.
//!
//! Limits: 10,000 incidents of the last 32 days, of which the oldest are forgotten first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use keytide_dataflow::detect::{Severity, Signal};
use keytide_dataflow::model::{EventTime, KeyId};
use keytide_dataflow::{Change, IncidentId, IncidentState, Reason, Transition};
use serde::{Deserialize, Serialize};

use super::Decided;
use crate::policy::MEMORY_MS;

/// The most incidents that are remembered.
const MAX_INCIDENTS: usize = 10_000;

/// An incident after its last transition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownIncident {
    pub key: KeyId,
    /// The key as views name it.
    pub key_id: String,
    pub severity: Severity,
    pub score: u8,
    pub state: IncidentState,
    pub opened_ms: EventTime,
    pub ended_ms: Option<EventTime>,
    /// The last transition, its event time, and its reason if it withdrew the incident.
    pub change: Change,
    pub at_ms: EventTime,
    pub reason: Option<Reason>,
    pub signals: Vec<IncidentSignal>,
    /// The person who dismissed it last.
    pub dismissed: Option<Decided>,
    /// True from then on until it is opened again.
    pub(super) is_dismissed: bool,
    /// The number of the next entry of its audit.
    pub(super) seq: u64,
}

/// A signal of an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncidentSignal {
    pub signal: Signal,
    /// What it says, in thousandths of a bit.
    pub bits: u32,
    /// The calls that were expected, in thousandths, and those that were seen.
    pub expected: u64,
    pub seen: u64,
}

/// The incidents that are remembered, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownIncidents {
    /// Shared with those who show them.
    by_id: BTreeMap<IncidentId, Arc<KnownIncident>>,
    /// All of them, by the time of their last transition.
    by_time: BTreeSet<(EventTime, IncidentId)>,
}

impl KnownIncidents {
    /// Returns an incident by its id.
    #[must_use]
    pub fn get(&self, id: IncidentId) -> Option<&KnownIncident> {
        self.by_id.get(&id).map(|known| &**known)
    }

    pub(super) fn get_mut(&mut self, id: IncidentId) -> Option<&mut KnownIncident> {
        self.by_id.get_mut(&id).map(Arc::make_mut)
    }

    /// Returns all incidents, those with the newest transitions first.
    pub fn newest(&self) -> impl Iterator<Item = (IncidentId, &KnownIncident)> {
        self.by_time.iter().rev().filter_map(|(_, id)| Some((*id, self.get(*id)?)))
    }

    /// Notes a transition. Forgets what is old, and the oldest if there are too many.
    pub(super) fn note(&mut self, transition: &Transition, key_id: &dyn Fn(KeyId) -> String) {
        let Transition { incident, change, at_ms, reason, .. } = transition;
        let before = self.by_id.remove(&incident.id);
        if let Some(before) = &before {
            self.by_time.remove(&(before.at_ms, incident.id));
        }
        let signals = incident.signals.iter().map(|one| IncidentSignal {
            signal: one.signal,
            bits: one.weighted.0,
            expected: one.expected,
            seen: one.seen,
        });
        let (dismissed, is_dismissed, seq) = match before {
            Some(before) => (before.dismissed.clone(), before.is_dismissed, before.seq),
            None => (None, false, 0),
        };
        let known = KnownIncident {
            key: incident.key,
            key_id: key_id(incident.key),
            severity: incident.severity,
            score: incident.score,
            state: incident.state,
            opened_ms: incident.opened_ms,
            ended_ms: incident.ended_ms,
            change: *change,
            at_ms: *at_ms,
            reason: *reason,
            signals: signals.collect(),
            dismissed,
            is_dismissed: is_dismissed && *change != Change::Reopened,
            seq,
        };
        self.by_id.insert(incident.id, Arc::new(known));
        self.by_time.insert((*at_ms, incident.id));
        let before_ms = at_ms.saturating_sub(MEMORY_MS);
        while let Some(&(time, id)) = self.by_time.first()
            && (time < before_ms || self.by_id.len() > MAX_INCIDENTS)
        {
            self.by_time.pop_first();
            self.by_id.remove(&id);
        }
    }
}
