//! When the incidents of a customer changed last.
//!
//! Rows of incidents are of the whole job. A customer sees its own, and must learn nothing of the others: not even that there was
//! one. So what it is told of changes comes from a hash of what it sees, which is made anew when any incident changed.
//!
//! **Limits.** Some 60 bytes a customer that asked, and at most [`SEEN`] customers.

use std::sync::{Mutex, PoisonError};

use hashbrown::HashMap;
use keytide_dataflow::model::{NameId, Tick};

/// The last ticks in which the incidents of customers changed, of those that asked.
#[derive(Debug, Default)]
pub(super) struct OwnIncidents(Mutex<HashMap<NameId, SeenIncidents>>);

/// The most customers of which a tick is kept. Beyond them all are looked at anew.
const SEEN: usize = 10_000;

#[derive(Clone, Copy, Debug)]
struct SeenIncidents {
    /// The last tick in which anybody's changed.
    looked_at: Tick,
    hash: u64,
    changed: Tick,
}

impl OwnIncidents {
    /// Returns the last tick in which a customer's incidents changed, as far as it was asked for; `None` as long as there is
    /// none. `any` is the last one in which anybody's did.
    pub(super) fn changed(&self, own: NameId, any: Tick, hash: impl FnOnce() -> u64) -> Option<Tick> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = seen.get(&own).copied();
        let now = match before {
            Some(before) if before.looked_at == any => before,
            _ => {
                let hash = hash();
                let changed =
                    before.filter(|before| before.hash == hash).map_or(any, |before| before.changed);
                SeenIncidents { looked_at: any, hash, changed }
            }
        };
        if seen.len() >= SEEN {
            seen.clear();
        }
        seen.insert(own, now);
        (now.hash != 0).then_some(now.changed)
    }
}
