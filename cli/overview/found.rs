//! Selects the incidents that an overview lists.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use keytide_connectors::sink::encode::{EncodeRow as _, Labels};
use keytide_connectors::sink::names::Names;
use keytide_connectors::sink::{JobInfo, LogRow};
use keytide_dataflow::detect::Severity;
use keytide_dataflow::incident_row::TransitionJson;
use keytide_dataflow::{Change, IncidentId, Transition};

/// Incidents that an overview lists, at most.
pub(crate) const LISTED: usize = 10;

/// The gravest incidents by severity and score, each as its newest transition. Those that were withdrawn are left
/// out. Of equal ones the lower id wins, so that the choice doesn't depend on the order in which they came.
#[derive(Default)]
pub(crate) struct Found(BTreeMap<(Reverse<Severity>, Reverse<u8>, IncidentId), Transition>);

impl Found {
    /// Takes in transitions in their order.
    pub(crate) fn note(&mut self, transitions: &[Transition]) {
        for transition in transitions {
            let incident = &transition.incident;
            self.0.retain(|(_, _, id), _| *id != incident.id);
            if transition.change == Change::Withdrawn {
                continue;
            }
            let rank = (Reverse(incident.severity), Reverse(incident.score), incident.id);
            self.0.insert(rank, transition.clone());
            if self.0.len() > LISTED {
                self.0.pop_last();
            }
        }
    }

    /// Returns them as rows of `incident_log`, the gravest first.
    pub(crate) fn rows(&self, names: &Names, job: JobInfo<'_>) -> Vec<TransitionJson> {
        let mut labels = Labels::new(names);
        let row = |transition| {
            let mut line = Vec::new();
            LogRow { transition, job }.line(&mut labels, &mut line);
            serde_json::from_slice(&line).expect("tests hold that a row of the log can be read back")
        };
        self.0.values().map(row).collect()
    }
}
