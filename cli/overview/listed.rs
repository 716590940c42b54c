//! Selects the incidents that an overview lists.

use keytide_connectors::sink::JobInfo;
use keytide_connectors::sink::names::Names;
use keytide_dataflow::incident_row::TransitionJson;
use keytide_dataflow::{Change, Transition};

use super::gravest::GravestIncidents;

/// Incidents that an overview lists, at most.
const LISTED: usize = 10;

/// The gravest incidents, each as its newest transition. Those that were withdrawn are left out.
#[derive(Default)]
pub(crate) struct ListedIncidents(GravestIncidents<LISTED>);

impl ListedIncidents {
    /// Takes in transitions in their order.
    pub(crate) fn note(&mut self, transitions: &[Transition]) {
        for transition in transitions {
            self.0.remove(transition.incident.id);
            if transition.change != Change::Withdrawn {
                self.0.insert(&transition.incident, transition.clone());
            }
        }
    }

    /// Returns them as rows of `incident_log`, the gravest first.
    pub(crate) fn rows(&self, names: &Names, job: JobInfo<'_>) -> Vec<TransitionJson> {
        let read = |row: &Vec<u8>| {
            serde_json::from_slice(row).expect("tests hold that a row of the log can be read back")
        };
        self.0.rows(names, job).iter().map(read).collect()
    }
}
