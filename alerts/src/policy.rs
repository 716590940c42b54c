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
//! * A gateway may have a breaker of its own beside that of the job. Its percentage is of all active keys as well.
//!
//! Limits: it remembers 32 days.

use std::collections::{BTreeMap, BTreeSet};

use keytide_config::{DefaultPolicy, GatewayCaps, PolicyRules, duration_text};
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
    of_job: ActedKeys,
    of_gateways: BTreeMap<String, ActedKeys>,
    /// The last time at which each key was acted on.
    acted: BTreeMap<KeyId, EventTime>,
}

/// The keys that were acted on within the time that is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct ActedKeys {
    /// Each with the time at which its incident opened. The next field has the time of decision.
    by_opening: BTreeSet<(EventTime, KeyId)>,
    by_decision: BTreeSet<(EventTime, KeyId)>,
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

    /// Returns why a person has to decide, or `None` if the policy may act. `gateway` has the key, if one does.
    pub(crate) fn held(
        &self,
        memory: &PolicyMemory,
        transition: &Transition,
        gateway: Option<(&str, GatewayCaps)>,
    ) -> Option<String> {
        let Transition { incident, at_ms, .. } = transition;
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
        let caps =
            GatewayCaps { keys_per_hour: Some(keys_per_hour), percent_per_hour: Some(percent_per_hour) };
        if let Some(passed) = memory.of_job.stopped(caps, transition) {
            return Some(format!("the breaker lets pass {passed}"));
        }
        let (name, caps) = gateway?;
        let nothing = ActedKeys::default();
        let passed = memory.of_gateways.get(name).unwrap_or(&nothing).stopped(caps, transition)?;
        Some(format!("the breaker of the gateway {name} lets pass {passed}"))
    }
}

impl ActedKeys {
    /// Returns how many keys pass an hour, if no more may.
    fn stopped(&self, caps: GatewayCaps, transition: &Transition) -> Option<String> {
        let Transition { incident, at_ms, active_keys, .. } = transition;
        let GatewayCaps { keys_per_hour, percent_per_hour } = caps;
        let share = percent_per_hour.map(|percent| (active_keys.saturating_mul(percent.into()) / 100).max(1));
        let limit = [keys_per_hour.map(u64::from), share].into_iter().flatten().min()?;
        let decided = around(&self.by_decision, *at_ms);
        let opened = around(&self.by_opening, incident.opened_ms);
        (decided.max(opened) >= limit).then(|| {
            let keys = if limit == 1 { "key" } else { "keys" };
            format!("{limit} {keys} an hour, of {active_keys} in use")
        })
    }

    fn note(&mut self, key: KeyId, opened_ms: EventTime, at_ms: EventTime) {
        self.by_opening.insert((opened_ms, key));
        self.by_decision.insert((at_ms, key));
    }

    /// Forgets what is older, and passes it to `forgotten`. Returns whether anything is left.
    fn forget(&mut self, before_ms: EventTime, mut forgotten: impl FnMut(EventTime, KeyId)) -> bool {
        for entries in [&mut self.by_opening, &mut self.by_decision] {
            while entries.first().is_some_and(|(time, _)| *time < before_ms)
                && let Some((time, key)) = entries.pop_first()
            {
                forgotten(time, key);
            }
        }
        !self.by_opening.is_empty() || !self.by_decision.is_empty()
    }
}

/// Counts entries less than an hour before or after `time`: at least as many as in any hour that contains it.
fn around(entries: &BTreeSet<(EventTime, KeyId)>, time: EventTime) -> u64 {
    let first = (time.saturating_sub(HOUR_MS - 1), KeyId(0));
    let last = (time.saturating_add(HOUR_MS - 1), KeyId(u128::MAX));
    entries.range(first..=last).count() as u64
}

impl PolicyMemory {
    /// Notes that a key of a gateway is acted on, which takes room of the breakers.
    pub(crate) fn acts(&mut self, gateway: Option<&str>, key: KeyId, opened_ms: EventTime, at_ms: EventTime) {
        self.of_job.note(key, opened_ms, at_ms);
        if let Some(gateway) = gateway {
            self.of_gateways.entry(gateway.to_owned()).or_default().note(key, opened_ms, at_ms);
        }
        self.acted.insert(key, at_ms);
    }

    pub(crate) fn forget(&mut self, before_ms: EventTime) {
        let Self { of_job, of_gateways, acted } = self;
        of_job.forget(before_ms, |time, key| {
            if acted.get(&key).is_some_and(|acted| *acted == time && *acted < before_ms) {
                acted.remove(&key);
            }
        });
        of_gateways.retain(|_, keys| keys.forget(before_ms, |_, _| {}));
    }

    /// Returns the sizes of its parts, which are bounded by time.
    #[cfg(test)]
    pub(crate) fn sizes(&self) -> [usize; 3] {
        [self.of_job.by_opening.len(), self.of_job.by_decision.len(), self.acted.len()]
    }
}
