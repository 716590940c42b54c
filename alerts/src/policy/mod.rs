//! What is to be done about a key whose incident reached the level `revoke`.
//!
//! A pure fold over transitions: the same transitions, tick by tick, give the same actions, whatever their order within
//! a tick. An action's identity is that of its incident and of what is done, so a replay asks for the same again.
//!
//! * A key without a row in the tables is never acted on, nor are the calls of no key and of keys beyond a cap.
//! * `observe` and `alert` do nothing. `suspend` suspends a key in use. `revoke` does that first; a key that already
//!   is suspended it revokes. A revoked key is left alone.
//! * Nothing happens at a level below `revoke`, on a window that isn't over, or twice on account of one incident.
//! * Held for a person is what follows from calls that came while the job was catching up, or that rose together with
//!   those of many keys; what concerns a key that was acted on within the cooldown; and what the breaker stops.
//! * The breaker lets pass `keys_per_hour` keys, and `percent_per_hour` of the keys in use (at least one), both in any
//!   hour in which incidents opened and in any hour in which it was decided about them. By the first a job that catches
//!   up does no more than one that didn't fall behind; the second is for old incidents that rise together.
//!
//! In this version acting is off: every action is a row that says what would have been done.
//!
//! Limits: a memory of 32 days, and of 65,536 actions that wait to be withdrawn; the oldest are forgotten first.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use keytide_config::{DefaultPolicy, PolicyMode, PolicyRules, duration_text};
use keytide_dataflow::detect::Severity;
use keytide_dataflow::model::time::HOUR_MS;
use keytide_dataflow::model::{EventTime, KeyId, KeyState, Policy};
use keytide_dataflow::{Action, ActionState, Change, IncidentId, Revocation, Transition};
use serde::{Deserialize, Serialize};

/// How long anything is remembered: longer than any cooldown.
const MEMORY_MS: u64 = 32 * 24 * HOUR_MS;
/// Actions that are remembered in case their incident is withdrawn.
const MAX_ACTIONS: usize = 1 << 16;
/// What a reason says before why an action is held.
const HELD: &str = "; held: ";

/// Decides about keys.
#[derive(Clone, Debug)]
pub struct PolicyEngine {
    rules: PolicyRules,
    memory: PolicyMemory,
}

/// What a [`PolicyEngine`] remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyMemory {
    /// The keys that were acted on, by when their incident opened, and by when that was decided.
    by_opening: BTreeSet<(EventTime, KeyId)>,
    by_decision: BTreeSet<(EventTime, KeyId)>,
    /// When a key was last acted on.
    acted: BTreeMap<KeyId, EventTime>,
    /// What was asked for on account of an incident, and when; and the same by time.
    asked: BTreeMap<IncidentId, (EventTime, Vec<Action>)>,
    asked_at: BTreeSet<(EventTime, IncidentId)>,
}

impl PolicyEngine {
    /// One that remembers nothing.
    #[must_use]
    pub fn new(rules: PolicyRules) -> Self {
        Self::restore(rules, PolicyMemory::default())
    }

    /// One that remembers what another did.
    #[must_use]
    pub fn restore(rules: PolicyRules, memory: PolicyMemory) -> Self {
        Self { rules, memory }
    }

    /// What it remembers.
    #[must_use]
    pub fn memory(&self) -> &PolicyMemory {
        &self.memory
    }

    /// What is to be done after one tick's transitions: for each action its newest row.
    pub fn decide(&mut self, transitions: &[Transition]) -> Vec<Revocation> {
        let mut ordered: Vec<&Transition> = transitions.iter().collect();
        ordered.sort_unstable_by_key(|transition| transition.order());
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
                Change::Ended => {}
            }
        }
        rows.into_values().collect()
    }

    /// The actions of an incident that was none.
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

    /// What policy and the key's state ask for.
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

    /// Why a person has to decide.
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

/// Why the action of a row is held.
#[must_use]
pub fn held(reason: &str) -> &str {
    reason.split_once(HELD).map_or(reason, |(_, why)| why)
}

/// Entries less than an hour before or after `time`: at least as many as in any hour that has it in it.
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
