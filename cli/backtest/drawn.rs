//! Selects the incidents that a report draws.

use keytide_connectors::sink::JobInfo;
use keytide_connectors::sink::names::Names;
use keytide_dataflow::{Change, Transition};

use crate::overview::GravestIncidents;

/// Incidents that a report draws, at most.
pub(super) const DRAWN: usize = 6;

/// The gravest incidents, each as its last transition with traffic.
#[derive(Default)]
pub(super) struct DrawnIncidents(GravestIncidents<DRAWN>);

impl DrawnIncidents {
    pub(super) fn note(&mut self, transition: &Transition) {
        let incident = &transition.incident;
        if transition.change == Change::Withdrawn || incident.traffic.is_empty() {
            return;
        }
        // An incident may end long after its last traffic, so the first transition with the same traffic stays.
        let latest = |of: &Transition| of.incident.traffic.last().map(|point| point.start_ms);
        let known = self.0.remove(incident.id).filter(|known| latest(known) == latest(transition));
        self.0.insert(incident, known.unwrap_or_else(|| transition.clone()));
    }

    /// Returns them as rows of `incident_log`.
    pub(super) fn rows(&self, names: &Names, job: JobInfo<'_>) -> Vec<Vec<u8>> {
        self.0.rows(names, job)
    }
}
