//! Notices for people: changes of actions, and gateways that don't do what is requested of them.
//!
//! It is a pure fold over the rows of ticks, as actions are. So the same ticks tell the same, and a tick that is made again
//! gives notices with the same names, which the outbox knows.
//!
//! | an action is | security is told | owners are told |
//! |---|---|---|
//! | held | yes | |
//! | requested | if its gateway is late | |
//! | done | yes | yes |
//! | confirmed | | |
//! | failed | yes | if it was done before |
//! | withdrawn | if nobody decided in time | |
//!
//! A request is told by its end: it is seconds away, or the gateway is late. Nothing is to be done about what is confirmed.
//! The incident's own mail tells of what a person or the tables withdraw. It alone tells of what is only shown, as acting
//! is off.
//!
//! A gateway is **late** if an action is requested of it for 5 minutes of ticks. That is told once, then every hour, of
//! the gateway and not of each action. While the job is away no gateway is late: after a gap of more than 5 minutes
//! between two ticks the time counts anew.
//!
//! Limits: one notice of a change of an action, and one of a gateway an hour, which names 10 actions.

use std::collections::{BTreeMap, BTreeSet};

use keytide_dataflow::model::time::{HOUR_MS, MINUTE_MS};
use keytide_dataflow::model::{EventTime, NameId, Tick};
use keytide_dataflow::{
    Action, ActionId, ActionRows, ActionState, AuditEntry, IncidentId, SuspectedLeak, contact_addresses,
};
use serde::{Deserialize, Serialize};

use super::{
    ActionEngine, ActionMemory, ActionRecord, BY_POLICY, BY_TABLES, Cause, DECIDE, Decided, POLICY, held,
    is_only_shown, reason_of,
};

/// How long an action may be requested before its gateway is late, in ms of ticks.
const LATE_MS: u64 = 5 * MINUTE_MS;
/// The time between two notices of a gateway that is late, in ms of ticks.
const AGAIN_MS: u64 = HOUR_MS;
/// The most actions that a notice of a gateway names.
const NAMED: usize = 10;

/// An action came into a state of which people are told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionNotice {
    pub id: ActionId,
    /// The number of the entry of `audit` that says so.
    pub seq: u64,
    /// The key as views name it.
    pub key_id: String,
    pub incident: IncidentId,
    pub action: Action,
    pub from: Option<ActionState>,
    pub state: ActionState,
    /// The time of the entry of `audit`.
    pub at_ms: EventTime,
    /// The person who asked for it. Without one the policy did, or the tables.
    pub decided: Option<Decided>,
    /// True if the tables explained the incident, so that the key is let in again.
    pub is_explained: bool,
    /// Why it is in this state: why it is held, failed or was withdrawn, or why it was asked for. Empty if the policy
    /// asked for it.
    pub why: String,
    /// The name of the gateway that is to act, or did; `None` before it is requested.
    pub gateway: Option<String>,
    pub subscription: Option<String>,
    pub customer: Option<String>,
    pub plan: Option<String>,
    /// True if the policy decided so on account of a transition of the same tick.
    pub is_decision: bool,
    /// The addresses of the key's and of its subscription's contacts, each once.
    pub contacts: Vec<String>,
}

impl ActionNotice {
    /// Returns whether the key's contacts are told as well.
    #[must_use]
    pub fn concerns_owners(&self) -> bool {
        match self.state {
            ActionState::Done => true,
            // They were told that it is done, which is no longer so.
            ActionState::Failed => self.was_done(),
            ActionState::Held | ActionState::Requested | ActionState::Withdrawn | ActionState::Confirmed => {
                false
            }
        }
    }

    /// Returns whether it was done before it failed.
    #[must_use]
    pub fn was_done(&self) -> bool {
        self.from == Some(ActionState::Done)
    }
}

/// A gateway is late with actions that were requested of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayNotice {
    /// The gateway's name; `None` if the job has none any more for the actions.
    pub gateway: Option<String>,
    /// The tick of the first notice since the gateway is late.
    pub first: Tick,
    /// The number of this one among those, from 0.
    pub count: u32,
    /// The tick at which the oldest of the actions was requested.
    pub since: Tick,
    /// The number of actions that it is late with.
    pub late: u64,
    /// The oldest of these, at most 10.
    pub named: Vec<LateAction>,
}

/// An action with which a gateway is late.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LateAction {
    pub id: ActionId,
    pub action: Action,
    /// The key as views name it.
    pub key_id: String,
}

/// What people are told of the actions of a tick.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionNotices {
    pub actions: Vec<ActionNotice>,
    pub gateways: Vec<GatewayNotice>,
}

impl ActionNotices {
    /// Returns whether nothing is told.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty() && self.gateways.is_empty()
    }
}

/// The actions that are requested, by gateway and tick.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct GatewayWaits {
    requested: BTreeMap<ActionId, (Option<String>, Tick)>,
    gateways: BTreeMap<Option<String>, GatewayWait>,
    /// The last tick, and the first one since the job is there without a gap.
    last: Tick,
    resumed: Tick,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct GatewayWait {
    requested: BTreeSet<(Tick, ActionId)>,
    /// The ticks of the first and the last notice, and the number of both and those between.
    told: Option<(Tick, Tick, u32)>,
}

impl GatewayWaits {
    /// Notes that an action came into a state.
    fn note(&mut self, id: ActionId, entry: &AuditEntry, tick: Tick) {
        if let Some((gateway, since)) = self.requested.remove(&id)
            && let Some(wait) = self.gateways.get_mut(&gateway)
        {
            wait.requested.remove(&(since, id));
        }
        if entry.to == Some(ActionState::Requested) {
            self.requested.insert(id, (entry.gateway.clone(), tick));
            self.gateways.entry(entry.gateway.clone()).or_default().requested.insert((tick, id));
        }
    }

    /// Returns the gateways of which people are told at a tick, each with the number of the notice, and the actions that
    /// are late, the oldest first.
    fn late(&mut self, tick: Tick) -> Vec<(GatewayNotice, Vec<ActionId>)> {
        if tick.saturating_sub(self.last) > LATE_MS {
            self.resumed = tick;
        }
        self.last = tick;
        let before = match tick.checked_sub(LATE_MS) {
            Some(before) if before >= self.resumed => before,
            _ => return Vec::new(),
        };
        let mut notices = Vec::new();
        for (gateway, wait) in &mut self.gateways {
            let late = || wait.requested.iter().take_while(|(since, _)| *since <= before);
            let Some((since, _)) = late().next() else {
                wait.told = None;
                continue;
            };
            let (first, count) = match wait.told {
                None => (tick, 0),
                Some((first, last, count)) if last + AGAIN_MS <= tick => (first, count.saturating_add(1)),
                Some(_) => continue,
            };
            let named = late().take(NAMED).map(|(_, id)| *id).collect();
            let notice = GatewayNotice {
                gateway: gateway.clone(),
                first,
                count,
                since: *since,
                late: late().count() as u64,
                named: Vec::new(),
            };
            wait.told = Some((first, tick, count));
            notices.push((notice, named));
        }
        self.gateways.retain(|_, wait| !wait.requested.is_empty());
        notices
    }
}

impl ActionEngine {
    /// Returns what people are told of a tick whose fold returned these rows. It is asked once after each fold. `name`
    /// returns the text of a name in the tables.
    pub fn notices(
        &mut self,
        tick: Tick,
        rows: &ActionRows,
        name: &dyn Fn(NameId) -> String,
    ) -> ActionNotices {
        let memory = &mut self.memory;
        let mut actions = Vec::new();
        for entry in &rows.audit {
            let (Some(id), Some(to)) = (ActionId::parse(&entry.target), entry.to) else { continue };
            memory.waits.note(id, entry, tick);
            let Some(record) = memory.actions.get(&id) else { continue };
            let is_told = match to {
                ActionState::Held => !is_only_shown(&record.row.reason),
                ActionState::Done | ActionState::Failed => true,
                ActionState::Withdrawn => entry.who == POLICY,
                ActionState::Requested | ActionState::Confirmed => false,
            };
            if is_told {
                actions.push(notice(record, entry, to, name));
            }
        }
        let of = |id: ActionId| {
            let row = &memory.actions.get(&id)?.row;
            Some(LateAction { id, action: row.action, key_id: row.key_id.clone() })
        };
        let gateways = memory.waits.late(tick).into_iter().map(|(notice, named)| GatewayNotice {
            named: named.into_iter().filter_map(of).collect(),
            ..notice
        });
        ActionNotices { gateways: gateways.collect(), actions }
    }
}

impl ActionMemory {
    /// Returns the action that says what was done about a suspected leak: the newest of the incident, or else the one by
    /// which its key is denied.
    #[must_use]
    pub fn standing(&self, leak: SuspectedLeak) -> Option<&ActionRecord> {
        let round = self.round(leak.incident);
        let of_incident = [Action::Reinstate, Action::Revoke, Action::Suspend]
            .into_iter()
            .filter_map(|action| self.actions.get(&ActionId::new(leak.incident, action, round)))
            .find(|record| record.row.state != ActionState::Withdrawn);
        of_incident.or_else(|| self.actions.get(&self.denied.get(&leak.key)?.action))
    }
}

/// Returns a notice of the entry of the audit by which an action came into a state.
fn notice(
    record: &ActionRecord,
    entry: &AuditEntry,
    state: ActionState,
    name: &dyn Fn(NameId) -> String,
) -> ActionNotice {
    let ActionRecord { row, decided, gateway, origin, .. } = record;
    let why = match state {
        ActionState::Held => held(&row.reason),
        ActionState::Done => asked_because(&row.reason, decided.as_ref()),
        _ => &entry.why,
    };
    let named = |id: NameId| Some(name(id)).filter(|name| !name.is_empty());
    let lists = origin.contacts.map(name);
    ActionNotice {
        id: row.id,
        seq: entry.seq,
        key_id: row.key_id.clone(),
        incident: row.incident,
        action: row.action,
        from: entry.from,
        state,
        at_ms: entry.at_ms,
        decided: decided.clone(),
        is_explained: row.reason.starts_with(BY_TABLES),
        why: why.to_owned(),
        gateway: gateway.clone(),
        subscription: named(origin.owner.subscription),
        customer: named(origin.owner.customer),
        plan: named(origin.owner.plan),
        is_decision: entry.what == DECIDE,
        contacts: contact_addresses(lists.iter().map(String::as_str)),
    }
}

/// Extracts from a row's reason why a person asked for the action, or the tables did, or a suspension lapsed. Empty if the
/// policy asked for it.
fn asked_because<'a>(reason: &'a str, decided: Option<&Decided>) -> &'a str {
    let by_person = decided.map(|Decided { verb, who, at_ms }| {
        reason_of(Cause { who, what: verb.name(), why: "", at_ms: *at_ms })
    });
    let why = match &by_person {
        Some(before) => reason.strip_prefix(before.as_str()),
        None => reason.strip_prefix(BY_TABLES).or_else(|| reason.strip_prefix(BY_POLICY)),
    };
    why.unwrap_or_default()
}

#[cfg(test)]
impl GatewayWaits {
    /// Returns the actions that are requested, each with its tick.
    pub(super) fn since(&self) -> impl Iterator<Item = (ActionId, Tick)> {
        self.requested.iter().map(|(id, (_, since))| (*id, *since))
    }

    /// Returns whether people were told of a gateway that is late.
    pub(super) fn is_told(&self) -> bool {
        self.gateways.values().any(|wait| wait.told.is_some())
    }
}
