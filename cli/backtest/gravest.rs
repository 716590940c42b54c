//! Selects the incidents that a report draws.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use keytide_connectors::sink::encode::{EncodeRow as _, Labels};
use keytide_connectors::sink::names::Names;
use keytide_connectors::sink::{JobInfo, LogRow};
use keytide_dataflow::detect::Severity;
use keytide_dataflow::{Change, IncidentId, Transition};

/// Incidents that a report draws, at most.
pub(super) const DRAWN: usize = 6;

/// The gravest incidents by severity and score, each as its last transition with traffic. Of equal ones the lower id
/// wins, so that the choice doesn't depend on the order in which they came.
#[derive(Default)]
pub(super) struct Gravest(BTreeMap<(Reverse<Severity>, Reverse<u8>, IncidentId), Transition>);

impl Gravest {
    pub(super) fn note(&mut self, transition: &Transition) {
        let incident = &transition.incident;
        if transition.change == Change::Withdrawn || incident.traffic.is_empty() {
            return;
        }
        let known = self.0.keys().find(|(_, _, id)| *id == incident.id).copied();
        let known = known.and_then(|rank| self.0.remove(&rank));
        // An incident may end long after its last traffic, so the first transition with the same traffic stays.
        let latest = |of: &Transition| of.incident.traffic.last().map(|point| point.start_ms);
        let shown = known.filter(|known| latest(known) == latest(transition));
        let shown = shown.unwrap_or_else(|| transition.clone());
        self.0.insert((Reverse(incident.severity), Reverse(incident.score), incident.id), shown);
        if self.0.len() > DRAWN {
            self.0.pop_last();
        }
    }

    /// Returns them as rows of `incident_log`.
    pub(super) fn rows(&self, names: &Names, job: JobInfo<'_>) -> Vec<Vec<u8>> {
        let mut labels = Labels::new(names);
        let row = |transition| {
            let mut line = Vec::new();
            LogRow { transition, job }.line(&mut labels, &mut line);
            line
        };
        self.0.values().map(row).collect()
    }
}
