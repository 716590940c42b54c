//! The policy decides what is to be done about a key whose incident reached the severity `revoke`.
//!
//! It says which action a transition asks for, and why a person has to decide about that. `crate::actions` asks it, and
//! keeps the actions.
//!
//! * It never acts on keys without a row in the tables, on calls without a key, or on keys beyond a cap.
//! * `observe` and `alert` do nothing. `suspend` suspends an active key. `revoke` also suspends an active key first, and
//!   revokes a suspended one. Revoked keys are left alone.
//! * It never acts below `revoke`, or on a window that is still open.
//! * It holds an action for a person in four cases: the job was catching up; many keys rose together; the key was acted
//!   on within the cooldown; the breaker is open.
//! * The breaker passes at most `keys_per_hour` keys and at most `percent_per_hour` of the active keys (at least one).
//!   Both hold for any hour by the incidents' opening times and for any hour by the times of decision. By the first, a
//!   job that catches up acts no more than one that kept pace. The second stops old incidents that rise together.
//!
//! Limits: it remembers 32 days.

use std::collections::{BTreeMap, BTreeSet};

use keytide_config::{DefaultPolicy, PolicyRules, duration_text};
use keytide_dataflow::detect::Severity;
use keytide_dataflow::model::time::HOUR_MS;
use keytide_dataflow::model::{EventTime, KeyId, KeyState, Policy};
use keytide_dataflow::{Action, Transition};
use serde::{Deserialize, Serialize};

/// Everything older is forgotten. It must be longer than any cooldown.
pub(crate) const MEMORY_MS: u64 = 32 * 24 * HOUR_MS;

/// Decides which action a transition asks for, and who decides about it.
#[derive(Clone, Debug)]
pub(crate) struct PolicyEngine {
    rules: PolicyRules,
}

/// What the policy remembers of the keys that were acted on, as checkpoints hold it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PolicyMemory {
    /// Keys that were acted on, with the time at which their incident opened. The next field has the time of decision.
    by_opening: BTreeSet<(EventTime, KeyId)>,
    by_decision: BTreeSet<(EventTime, KeyId)>,
    /// The last time at which each key was acted on.
    acted: BTreeMap<KeyId, EventTime>,
}

impl PolicyEngine {
    pub(crate) fn new(rules: PolicyRules) -> Self {
        Self { rules }
    }

    /// Returns the action that a transition asks for, by the plan's policy and the key's state.
    pub(crate) fn action(&self, transition: &Transition, state: KeyState) -> Option<Action> {
        let incident = &transition.incident;
        if incident.severity < Severity::Revoke || transition.early || incident.key.is_bucket() {
            return None;
        }
        let allowed = transition.policy.unwrap_or(match self.rules.default {
            DefaultPolicy::Observe => Policy::Observe,
            DefaultPolicy::Alert => Policy::Alert,
            DefaultPolicy::Suspend => Policy::Suspend,
            DefaultPolicy::Revoke => Policy::Revoke,
        });
        match (allowed, state) {
            (Policy::Suspend | Policy::Revoke, KeyState::Active) => Some(Action::Suspend),
            (Policy::Revoke, KeyState::Suspended) => Some(Action::Revoke),
            _ => None,
        }
    }

    /// Returns why a person has to decide, or `None` if the policy may act.
    pub(crate) fn held(&self, memory: &PolicyMemory, transition: &Transition) -> Option<String> {
        let Transition { incident, at_ms, active_keys, .. } = transition;
        let PolicyRules { keys_per_hour, percent_per_hour, cooldown_ms, .. } = self.rules;
        if transition.catching_up {
            return Some("the job was catching up".to_owned());
        }
        if incident.platform_event {
            return Some("many keys rose together".to_owned());
        }
        let acted = memory.acted.get(&incident.key);
        if acted.is_some_and(|acted| at_ms.saturating_sub(*acted) < cooldown_ms) {
            let cooldown = duration_text(cooldown_ms);
            return Some(format!("the key was acted on within the last {cooldown} of event time"));
        }
        let share = (active_keys.saturating_mul(percent_per_hour.into()) / 100).max(1);
        let limit = share.min(keys_per_hour.into());
        let decided = around(&memory.by_decision, *at_ms);
        let opened = around(&memory.by_opening, incident.opened_ms);
        (decided.max(opened) >= limit).then(|| {
            let keys = if limit == 1 { "key" } else { "keys" };
            format!("the breaker lets pass {limit} {keys} an hour, of {active_keys} in use")
        })
    }
}

/// Counts entries less than an hour before or after `time`: at least as many as in any hour that contains it.
fn around(entries: &BTreeSet<(EventTime, KeyId)>, time: EventTime) -> u64 {
    let first = (time.saturating_sub(HOUR_MS - 1), KeyId(0));
    let last = (time.saturating_add(HOUR_MS - 1), KeyId(u128::MAX));
    entries.range(first..=last).count() as u64
}

impl PolicyMemory {
    /// Notes that a key is acted on, which takes room of the breaker.
    pub(crate) fn acts(&mut self, key: KeyId, opened_ms: EventTime, at_ms: EventTime) {
        self.by_opening.insert((opened_ms, key));
        self.by_decision.insert((at_ms, key));
        self.acted.insert(key, at_ms);
    }

    pub(crate) fn forget(&mut self, before_ms: EventTime) {
        for entries in [&mut self.by_opening, &mut self.by_decision] {
            while entries.first().is_some_and(|(time, _)| *time < before_ms)
                && let Some((time, key)) = entries.pop_first()
            {
                if self.acted.get(&key).is_some_and(|acted| *acted == time && *acted < before_ms) {
                    self.acted.remove(&key);
                }
            }
        }
    }

    /// Returns the sizes of its parts, which are bounded by time.
    #[cfg(test)]
    pub(crate) fn sizes(&self) -> [usize; 3] {
        [self.by_opening.len(), self.by_decision.len(), self.acted.len()]
    }
}
