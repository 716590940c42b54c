//! The busiest keys of a running job, from the rows that it publishes, for the page `/top.json`.
//!
//! The publisher takes each tick's rows in, if the job has `[http]`, and answers are made on the thread that serves
//! them. They share a lock: a tick waits for one answer's look at the keys at most.
//!
//! **Limits.** [`KEPT`] keys of each of ten windows, and twice as many before some are dropped. That is about 15 MB with
//! hashed keys and names of 20 characters.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keytide_config::View;
use keytide_connectors::sink::TickOutput;
use keytide_connectors::sink::names::Names;
use keytide_dataflow::Notice;

use crate::top::{TopPage, TopState};

/// Keys of a window that are kept: fifty times as many as a page shows by a column.
const KEPT: usize = 5_000;

/// The busiest keys, shared between the publisher and those who look at them.
#[derive(Clone, Debug)]
pub struct LiveTop(Arc<Mutex<TopState>>);

impl Default for LiveTop {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(TopState::keeping(KEPT))))
    }
}

impl LiveTop {
    /// Takes in the results of all workers for a tick.
    pub(super) fn take(&self, outputs: &[TickOutput], names: &Names) {
        let mut state = self.state();
        outputs.iter().flat_map(|output| &output.rows).for_each(|rows| state.take_rows(rows, names));
    }

    /// Takes in published rows of `incident_log`.
    pub(super) fn notices(&self, notices: &[Notice]) {
        let mut state = self.state();
        notices.iter().for_each(|notice| state.take_line(View::IncidentLog, &notice.json));
    }

    /// Returns the page of this moment.
    #[must_use]
    pub fn page(&self) -> TopPage {
        TopPage::of(&self.state())
    }

    /// Locks the state. The lock is never poisoned, as a panic of the publisher ends the process.
    fn state(&self) -> MutexGuard<'_, TopState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use keytide_alerts::email::samples;
    use keytide_dataflow::Change;

    use super::*;
    use crate::top::Top as _;

    fn notice(row: &impl serde::Serialize) -> Notice {
        Notice { json: serde_json::to_vec(row).unwrap(), contacts: Vec::new(), actions: Vec::new() }
    }

    #[test]
    fn incidents_have_their_newest_transition_and_withdrawn_ones_none() {
        let top = LiveTop::default();
        let (mut opened, other) = (samples::leak(), samples::drip());
        top.notices(&[notice(&opened), notice(&other)]);
        let ids = |top: &LiveTop| -> Vec<String> {
            top.page().incidents().iter().map(|row| row.incident_id.clone()).collect()
        };
        assert_eq!(ids(&top), [&*other.incident_id, &*opened.incident_id]);
        "ended".clone_into(&mut opened.state);
        top.notices(&[notice(&opened)]);
        assert_eq!(ids(&top), [&*opened.incident_id, &*other.incident_id]);
        assert_eq!(top.page().incidents()[0].state, "ended");
        opened.transition = Change::Withdrawn;
        top.notices(&[notice(&opened)]);
        assert_eq!(ids(&top), [&*other.incident_id]);
    }
}
