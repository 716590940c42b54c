//! How long the end of a job waits for others.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use keytide_connectors::live::Live;

/// How long the end of a job waits for the sinks.
pub(super) const FLUSH: Duration = Duration::from_secs(30);

/// Decides how long a commit may take.
#[derive(Default)]
pub(super) struct Patience {
    /// The input, once there is one.
    pub(super) live: OnceLock<Arc<Live>>,
    /// When the commit that is under way began.
    begun: Mutex<Option<Instant>>,
}

impl Patience {
    /// Notes that a commit begins.
    pub(super) fn begin(&self) {
        *self.begun.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Returns whether a commit has to give up: it and the end of the job take as long as a flush may take.
    pub(super) fn is_over(&self) -> bool {
        let begun = *self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let stopping = self.live.get().and_then(|live| live.stopping_for());
        stopping.zip(begun).is_some_and(|(stopping, begun)| stopping.min(begun.elapsed()) >= FLUSH)
    }
}
