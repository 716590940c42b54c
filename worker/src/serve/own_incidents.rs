//! The incidents of customers: the parts that they see, and when these changed last.
//!
//! Rows of incidents are of the whole job. A customer sees its own, and must learn nothing of the others: not even that there was
//! one. So what it is told of changes comes from a hash of what it sees. When any incident changed, those of all customers
//! are looked at once, at the next request of one of them.
//!
//! **Limits.** Some 40 bytes a customer with incidents.

use std::sync::{Mutex, PoisonError};

use hashbrown::HashMap;
use keytide_dataflow::model::{EventTime, NameId, Tick};
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The parts of an incident that the customer of the key may see.
#[derive(Debug, Deserialize, Serialize)]
struct OwnIncident {
    incident_id: String,
    key_id: String,
    subscription: Option<String>,
    #[serde(skip_serializing)]
    customer: Option<String>,
    level: String,
    score: u8,
    state: String,
    opened_at: String,
    last_signal_at: String,
    ended_at: Option<String>,
    signals: Vec<OwnSignal>,
}

/// The parts of a signal that the customer of the key may see.
#[derive(Debug, Deserialize, Serialize)]
struct OwnSignal {
    signal: String,
    first_at: String,
    last_at: String,
    expected: Option<f64>,
    seen: u64,
}

impl OwnIncident {
    fn customer(&self) -> Option<NameId> {
        self.customer.as_deref().map(NameId::new)
    }
}

/// Returns the parts of an incident that a customer may see, if it is its own.
pub(super) fn own_incident(row: &[u8], customer: NameId) -> Option<Vec<u8>> {
    let incident: OwnIncident = serde_json::from_slice(row).ok()?;
    let is_own = incident.customer() == Some(customer);
    is_own.then(|| serde_json::to_vec(&incident).ok()).flatten()
}

/// The last ticks in which the incidents of customers changed.
#[derive(Debug, Default)]
pub(super) struct OwnIncidents(Mutex<SeenIncidents>);

#[derive(Debug, Default)]
struct SeenIncidents {
    /// The last tick in which anybody's changed, when they were looked at.
    looked_at: Option<Tick>,
    of_customers: HashMap<NameId, SeenOfCustomer>,
}

#[derive(Clone, Copy, Debug, Default)]
struct SeenOfCustomer {
    /// Tells what the customer sees from what it saw.
    hash: u64,
    changed: Tick,
}

impl OwnIncidents {
    /// Returns the last tick in which a customer's incidents changed, as far as somebody asked; `None` if it has none. `any` is
    /// the last one in which anybody's did, and `rows` returns all of them in the order in which they are shown.
    pub(super) fn changed(
        &self,
        own: NameId,
        any: Tick,
        rows: impl FnOnce() -> Vec<(EventTime, Vec<u8>)>,
    ) -> Option<Tick> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.looked_at != Some(any) {
            let mut now: HashMap<NameId, SeenOfCustomer> = HashMap::new();
            for (_, row) in rows() {
                let Ok(incident) = serde_json::from_slice::<OwnIncident>(&row) else { continue };
                let Some((customer, shown)) = incident.customer().zip(serde_json::to_vec(&incident).ok())
                else {
                    continue;
                };
                let of_customer = now.entry(customer).or_default();
                of_customer.hash = xxh3_64_with_seed(&shown, of_customer.hash);
            }
            for (customer, of_customer) in &mut now {
                let before = seen.of_customers.get(customer).filter(|before| before.hash == of_customer.hash);
                of_customer.changed = before.map_or(any, |before| before.changed);
            }
            *seen = SeenIncidents { looked_at: Some(any), of_customers: now };
        }
        seen.of_customers.get(&own).map(|of_customer| of_customer.changed)
    }
}
