//! What a process knows of the others, for people.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use super::told::tell_to_end;

/// The state of a process among those of its job. Without `[cluster]` it is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ClusterStatus {
    /// The generation in which it takes part, or 0.
    pub generation: u64,
    /// Its number in that generation; 0 leads.
    pub process: usize,
    /// The addresses of the generation's processes, in the order of their numbers.
    pub processes: Vec<String>,
    /// Why the job doesn't run here, if it doesn't.
    pub waits_for: Option<String>,
}

/// The state of a process, shared between the thread that starts the job and those that look at it.
#[derive(Clone, Debug, Default)]
pub struct ClusterView(Arc<Mutex<ClusterStatus>>);

impl ClusterView {
    /// Returns the state of this moment.
    #[must_use]
    pub fn status(&self) -> ClusterStatus {
        self.state().clone()
    }

    /// Tells the process to end, and returns true, if it takes part in a generation that starts. Then the others end with
    /// it, once the job runs.
    #[must_use]
    pub fn tell_member_to_end(&self) -> bool {
        let is_member = !self.state().processes.is_empty();
        if is_member {
            tell_to_end();
        }
        is_member
    }

    pub(super) fn waits_for(&self, what: String) {
        self.state().waits_for = Some(what);
    }

    pub(super) fn starts(&self, generation: u64, process: usize, processes: Vec<String>) {
        let waits_for = Some("the job starts: states and topics are read".to_owned());
        *self.state() = ClusterStatus { generation, process, processes, waits_for };
    }

    /// Notes that the job runs.
    pub(in crate::run) fn runs(&self) {
        self.state().waits_for = None;
    }

    fn state(&self) -> MutexGuard<'_, ClusterStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
