//! The policy decides what to do about a key whose incident reached the severity `revoke`.
//!
//! It is a pure fold over transitions. The same transitions, tick by tick, give the same actions, whatever their order
//! within a tick. An action is identified by its incident and its kind, so a replay asks for the same actions again.
//!
//! * It never acts on keys without a row in the tables, on calls without a key, or on keys beyond a cap.
//! * `observe` and `alert` do nothing. `suspend` suspends an active key. `revoke` also suspends an active key first, and
//!   revokes a suspended one. Revoked keys are left alone.
//! * It never acts below `revoke`, on a window that is still open, or twice in the same way for one incident.
//! * It holds an action for a person in four cases: the job was catching up; many keys rose together; the key was acted
//!   on within the cooldown; the breaker is open.
//! * The breaker passes at most `keys_per_hour` keys and at most `percent_per_hour` of the active keys (at least one).
//!   Both hold for any hour by the incidents' opening times and for any hour by the times of decision. By the first, a
//!   job that catches up acts no more than one that kept pace. The second stops old incidents that rise together.
//!
//! In this version acting is off: each action is only a row that says what would have been done.
//!
//! Limits: it remembers 32 days, and at most 65,536 actions that may be withdrawn; it forgets the oldest first.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use keytide_config::{DefaultPolicy, PolicyMode, PolicyRules, duration_text};
use keytide_dataflow::detect::Severity;
use keytide_dataflow::model::time::HOUR_MS;
use keytide_dataflow::model::{EventTime, KeyId, KeyState, Policy};
use keytide_dataflow::{Action, ActionState, Change, IncidentId, Revocation, Transition};
use serde::{Deserialize, Serialize};

/// Everything older is forgotten. It must be longer than any cooldown.
const MEMORY_MS: u64 = 32 * 24 * HOUR_MS;
/// The most actions that are remembered in case their incident is withdrawn.
const MAX_ACTIONS: usize = 1 << 16;
/// Separates the action in a reason from the cause of its being held.
const HELD: &str = "; held: ";

/// Decides which actions follow from transitions.
#[derive(Clone, Debug)]
pub struct PolicyEngine {
    rules: PolicyRules,
    memory: PolicyMemory,
}

/// The state of a [`PolicyEngine`], as checkpoints hold it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyMemory {
    /// Keys that were acted on, with the time at which their incident opened. The next field has the time of decision.
    by_opening: BTreeSet<(EventTime, KeyId)>,
    by_decision: BTreeSet<(EventTime, KeyId)>,
    /// The last time at which each key was acted on.
    acted: BTreeMap<KeyId, EventTime>,
    /// The actions asked for by each incident, with the time of the last. The next field has the same by time.
    asked: BTreeMap<IncidentId, (EventTime, Vec<Action>)>,
    asked_at: BTreeSet<(EventTime, IncidentId)>,
}

impl PolicyEngine {
    /// Creates an engine with an empty memory.
    #[must_use]
    pub fn new(rules: PolicyRules) -> Self {
        Self::restore(rules, PolicyMemory::default())
    }

    /// Creates an engine that continues from a saved memory.
    #[must_use]
    pub fn restore(rules: PolicyRules, memory: PolicyMemory) -> Self {
        Self { rules, memory }
    }

    /// Returns the memory, for a checkpoint.
    #[must_use]
    pub fn memory(&self) -> &PolicyMemory {
        &self.memory
    }

    /// Decides what follows from the transitions of one tick. Returns the newest row of each action.
    pub fn decide(&mut self, transitions: &[Transition]) -> Vec<Revocation> {
        let mut ordered: Vec<&Transition> = transitions.iter().collect();
        ordered.sort_unstable_by_key(|transition| transition.order());
        // Keyed by action, so that a row later in the tick replaces an earlier one.
        let mut rows: BTreeMap<u128, Revocation> = BTreeMap::new();
        for transition in ordered {
            self.memory.forget(transition.at_ms.saturating_sub(MEMORY_MS));
            match transition.change {
                Change::Withdrawn => {
                    rows.extend(self.withdraw(transition).into_iter().map(|row| (row.id, row)));
                }
                Change::Opened | Change::Raised | Change::Reopened => {
                    rows.extend(self.act(transition).map(|row| (row.id, row)));
                }
                Change::Updated | Change::Ended => {}
            }
        }
        rows.into_values().collect()
    }

    /// Withdraws all actions of an incident that turned out to be none.
    fn withdraw(&mut self, transition: &Transition) -> Vec<Revocation> {
        let incident = transition.incident.id;
        let Some((at_ms, actions)) = self.memory.asked.remove(&incident) else { return Vec::new() };
        self.memory.asked_at.remove(&(at_ms, incident));
        let why = transition.reason.map_or("the tables changed", |reason| reason.name());
        let row = |action| row(transition, action, ActionState::Withdrawn, format!("withdrawn: {why}"));
        actions.into_iter().map(row).collect()
    }

    fn act(&mut self, transition: &Transition) -> Option<Revocation> {
        let Transition { incident, at_ms, .. } = transition;
        let action = self.action(transition)?;
        if incident.severity < Severity::Revoke || transition.early || incident.key.is_bucket() {
            return None;
        }
        let asked = self.memory.asked.get(&incident.id).is_some_and(|(_, asked)| asked.contains(&action));
        if asked {
            return None;
        }
        self.memory.asks(incident.id, action, *at_ms);
        let PolicyMode::DryRun = self.rules.mode;
        let (done, doing) = match action {
            Action::Suspend => ("suspended", "suspending"),
            Action::Revoke => ("revoked", "revoking"),
            Action::Reinstate => ("reinstated", "reinstating"),
        };
        let reason = match self.held(transition) {
            Some(why) => {
                format!("would have asked a person before {doing} the key{HELD}{why}; acting is off, too")
            }
            None => {
                self.memory.acts(incident.key, incident.opened_ms, *at_ms);
                format!("would have {done} the key{HELD}acting is off in this version")
            }
        };
        Some(row(transition, action, ActionState::Held, reason))
    }

    /// Returns the action that the plan's policy and the key's state ask for.
    fn action(&self, transition: &Transition) -> Option<Action> {
        let state = transition.key_state?;
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
    fn held(&self, transition: &Transition) -> Option<String> {
        let Transition { incident, at_ms, active_keys, .. } = transition;
        let PolicyRules { keys_per_hour, percent_per_hour, cooldown_ms, .. } = self.rules;
        if transition.catching_up {
            return Some("the job was catching up".to_owned());
        }
        if incident.platform_event {
            return Some("many keys rose together".to_owned());
        }
        let acted = self.memory.acted.get(&incident.key);
        if acted.is_some_and(|acted| at_ms.saturating_sub(*acted) < cooldown_ms) {
            let cooldown = duration_text(cooldown_ms);
            return Some(format!("the key was acted on within the last {cooldown} of event time"));
        }
        let share = (active_keys.saturating_mul(percent_per_hour.into()) / 100).max(1);
        let limit = share.min(keys_per_hour.into());
        let decided = around(&self.memory.by_decision, *at_ms);
        let opened = around(&self.memory.by_opening, incident.opened_ms);
        (decided.max(opened) >= limit).then(|| {
            let keys = if limit == 1 { "key" } else { "keys" };
            format!("the breaker lets pass {limit} {keys} an hour, of {active_keys} in use")
        })
    }
}

/// Extracts from a row's reason why its action is held.
#[must_use]
pub fn held(reason: &str) -> &str {
    reason.split_once(HELD).map_or(reason, |(_, why)| why)
}

/// Counts entries less than an hour before or after `time`: at least as many as in any hour that contains it.
fn around(entries: &BTreeSet<(EventTime, KeyId)>, time: EventTime) -> u64 {
    let first = (time.saturating_sub(HOUR_MS - 1), KeyId(0));
    let last = (time.saturating_add(HOUR_MS - 1), KeyId(u128::MAX));
    entries.range(first..=last).count() as u64
}

fn row(transition: &Transition, action: Action, state: ActionState, reason: String) -> Revocation {
    Revocation {
        id: Revocation::id(transition.incident.id, action),
        key: transition.incident.key,
        incident: transition.incident.id,
        action,
        state,
        reason,
        at_ms: transition.at_ms,
    }
}

impl PolicyMemory {
    fn asks(&mut self, incident: IncidentId, action: Action, at_ms: EventTime) {
        let (asked_at, actions) = self.asked.entry(incident).or_insert((at_ms, Vec::new()));
        self.asked_at.remove(&(*asked_at, incident));
        *asked_at = at_ms;
        actions.push(action);
        self.asked_at.insert((at_ms, incident));
        while self.asked.len() > MAX_ACTIONS
            && let Some((_, oldest)) = self.asked_at.pop_first()
        {
            self.asked.remove(&oldest);
        }
    }

    fn acts(&mut self, key: KeyId, opened_ms: EventTime, at_ms: EventTime) {
        self.by_opening.insert((opened_ms, key));
        self.by_decision.insert((at_ms, key));
        self.acted.insert(key, at_ms);
    }

    fn forget(&mut self, before_ms: EventTime) {
        for entries in [&mut self.by_opening, &mut self.by_decision] {
            while entries.first().is_some_and(|(time, _)| *time < before_ms)
                && let Some((time, key)) = entries.pop_first()
            {
                if self.acted.get(&key).is_some_and(|acted| *acted == time && *acted < before_ms) {
                    self.acted.remove(&key);
                }
            }
        }
        while self.asked_at.first().is_some_and(|(time, _)| *time < before_ms)
            && let Some((_, incident)) = self.asked_at.pop_first()
        {
            self.asked.remove(&incident);
        }
    }
}
