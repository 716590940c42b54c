//! Ranks incidents by gravity, for reports and overviews that have room for a few.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use keytide_connectors::sink::encode::{EncodeRow as _, Labels};
use keytide_connectors::sink::names::Names;
use keytide_connectors::sink::{JobInfo, LogRow};
use keytide_dataflow::detect::Severity;
use keytide_dataflow::{Incident, IncidentId, Transition};

/// The gravest incidents by severity and score, at most `MOST`, each with the transition that is shown. Of equal ones
/// the lower id wins, so that the choice doesn't depend on the order in which they came.
#[derive(Default)]
pub(crate) struct GravestIncidents<const MOST: usize>(
    BTreeMap<(Reverse<Severity>, Reverse<u8>, IncidentId), Transition>,
);

impl<const MOST: usize> GravestIncidents<MOST> {
    /// Removes an incident, as its rank may change; returns the transition that was shown.
    pub(crate) fn remove(&mut self, incident: IncidentId) -> Option<Transition> {
        let rank = self.0.keys().find(|(_, _, id)| *id == incident).copied()?;
        self.0.remove(&rank)
    }

    /// Ranks an incident that isn't ranked, and shows it as `shown`.
    pub(crate) fn insert(&mut self, incident: &Incident, shown: Transition) {
        self.0.insert((Reverse(incident.severity), Reverse(incident.score), incident.id), shown);
        if self.0.len() > MOST {
            self.0.pop_last();
        }
    }

    /// Returns them as rows of `incident_log`, the gravest first.
    pub(crate) fn rows(&self, names: &Names, job: JobInfo<'_>) -> Vec<Vec<u8>> {
        let mut labels = Labels::new(names);
        let row = |transition| {
            let mut line = Vec::new();
            LogRow { transition, job }.line(&mut labels, &mut line);
            line
        };
        self.0.values().map(row).collect()
    }
}
