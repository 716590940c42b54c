//! Incidents: observations of keys, compared with what many keys do together, become one incident per suspected leak.
//!
//! ```text
//!  observations ─┐
//!  sums over keys├─► one worker: guard ─► verdict ─► open, raise, reopen, end, withdraw ─► incident_log, incidents
//!  plans, contacts
//! ```
//! **Guard.** If the keys of a plan, or all keys, rise together in a window, the common factor is taken out of the
//! volume's bits: bits less slope x ln of the factor, and none below the key's own quantile. They rise together if the
//! median of z over the keys that can be judged is above 2. They also do if more than a twentieth of them, and 10 at least,
//! pass the gates of volume. The factor is the median rise of those that passed, else of all. A signal that is new for
//! more than a twentieth of the keys (a database swapped, an address behind a new proxy) counts nothing in that window. An
//! incident that lost bits to the guard carries `platform_event`. The guard is that of the very window, as this worker
//! sees all keys of it.
//!
//! **Early.** Observations at a mark of an open window have no guard of the window yet. They are held back if as many keys
//! fired in it, up to that mark, as would be together, and never exceed an alert. All keys that fired are counted, whether
//! a mark had room for their observations or not.
//!
//! **Incidents.** A key has at most one. It opens at the severity alert, is raised when the severity rises, and ends when
//! no signal came for its quiet time. That is half an hour; 2, 8 and 24 hours after one, two and more reopenings within a
//! week. It is reopened if signals come within 24 hours of its end. Its id is a hash of the key, the detector's version and
//! the window in which it opened. An incident whose signals the tables explain is withdrawn; it is reopened only by other
//! signals. It is updated when its ratio grew fourfold, another family of signals joined, or its networks are seen with a
//! third other key: ten minutes after its opening at the earliest, then hourly at most.
//!
//! **Decisions of people.** An incident that is dismissed is withdrawn, and its signals count nothing for the key any
//! more (see [`dismissals`](super::parts::dismissals)). No incident of a muted key is opened, raised, reopened or updated.
//! What a person accepts is learned by the key's profile, which withdraws its signals as tables do.
//!
//! **Shared networks.** An address of a network that is new to a key, which called with other keys for the first time
//! within a day, of two customers at least, is a signal that only this operator can see. Observations below an alert, of
//! keys with such an address, wait an hour for such keys.
//!
//! A revoked key that is turned away makes an incident of the severity notice, and no more. People are told of one
//! reopening a day; the others, and their ends, are repeats.
//!
//! Observations are judged in the order of (time, key), whatever tick they come in. Emits at a tick its transitions in the
//! order of (time, incident), and each incident that changed once. Remembers incidents for 24 hours after their end, 3
//! earlier ones of each key for 90 days, the keys of networks for 24 hours, and the guard for two hours. All of it is on
//! one worker, which gets odd keys, sums and the networks of keys, not the usual calls.

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::parts::by_tick::Closing;
use super::parts::dismissals::{Dismissal, Dismissals, MOST_VALUES, ratio_of};
use super::parts::network_keys::{NetworkCall, NetworkKey, NetworkKeys};
use super::parts::report::{
    Crowd, Figures, Fired, Observation, Occasion, ProfileReport, RISE_STEP, Z_STEP, evidence_value,
};
use super::profiles::DetectorSettings;
use crate::action::{DecisionRow, KeyDecision};
use crate::detect::{
    Bits, Family, ObservedSignal, Severity, Shown, Signal, TAIL_BITS, Tuning, Verdict, WINDOW_MS,
    is_incident, shared_network, verdict,
};
use crate::incident::{
    Change, Contributor, EarlierIncident, Evidence, EvidenceValue, Incident, IncidentId, IncidentState,
    OtherKeys, Reason, Taken, Transition,
};
use crate::model::time::{DAY_MS, HOUR_MS};
use crate::model::{EventTime, KeyId, KeyPlace, NameId, Policy, TableChange, TableRow, TickInfo};
use crate::row::Rows;
use crate::state::{Durable, Footprint, RowsOut, Shard, StateId};

/// How long after its last signal an incident ends, by the number of its reopenings within a week.
const QUIET_MS: [u64; 4] = [HOUR_MS / 2, 2 * HOUR_MS, 8 * HOUR_MS, 24 * HOUR_MS];
const WEEK_MS: u64 = 7 * DAY_MS;
/// How long after its opening an incident may be updated, and how long after an update.
const UPDATES_MS: [u64; 2] = [10 * WINDOW_MS, HOUR_MS];
/// How many times the ratio that was told an updated one is.
const GROWN: u64 = 4;
/// The customers whose keys a network must call with, beside the key's own, to count as shared. One customer's keys move
/// together.
const SHARING_CUSTOMERS: u32 = 2;
/// The most keys that wait for others of their networks.
const WAITING: usize = 1 << 14;
/// The bits with which a family of signals joins.
const JOINS: Bits = Bits(2_000);
/// The number of other keys of one network that make another story.
const MANY_KEYS: u32 = 3;
/// How long after a reopening that people were told of the next is told.
const TOLD_MS: u64 = DAY_MS;
/// How long earlier incidents of a key are remembered, and how many.
const EARLIER_MS: u64 = 90 * DAY_MS;
const EARLIER: usize = 3;
/// The most statuses and routes whose calls are counted.
const STATUSES: usize = 32;
const ROUTES: usize = 256;
/// How long after its end signals reopen an incident.
const MERGES_MS: u64 = 24 * HOUR_MS;
/// How long the guard of a window is remembered: twice as long as signals count.
const GUARDS_MS: u64 = 2 * HOUR_MS;
/// How long muted signals are remembered: a new value counts for a day at most.
const MUTED_MS: u64 = 26 * HOUR_MS;
/// The least number of keys that rise together.
const TOGETHER: u64 = 10;
/// Keys rise together if they are more than one in 20.
const SHARE: u64 = 20;
const MEDIAN_Z: f64 = 2.0;
const SHOWN: usize = 5;
/// The most networks whose other keys an incident has.
const OTHER_NETWORKS: usize = 5;

/// The common rise of many keys in a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Guard {
    /// ln of the common factor of all keys' calls.
    factor: f64,
    /// The signals that count nothing, as bits in the order of [`Signal::ALL`].
    muted: u32,
    keys: u64,
}

impl Guard {
    fn of(figures: &Figures) -> Self {
        let known = figures.z.keys();
        let spiked = figures.spiked.keys();
        let many_spiked = spiked >= TOGETHER && spiked * SHARE > known;
        let factor = match () {
            () if many_spiked => figures.spiked.median(RISE_STEP),
            () if known >= TOGETHER && figures.z.median(Z_STEP) > MEDIAN_Z => figures.rise.median(RISE_STEP),
            () => 0.0,
        };
        let muted = figures.stirred.iter().fold(0, |muted, (signal, keys)| {
            muted | u32::from(keys >= TOGETHER && keys * SHARE > figures.keys) << signal
        });
        Self { factor: factor.max(0.0), muted, keys: figures.keys }
    }

    /// Returns whether signals of the window lose bits.
    fn takes(&self) -> bool {
        self.factor > 0.0 || self.muted != 0
    }
}

/// What the operator learns beside reports: a row of a table, or a decision of a person.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Learned {
    Row(TableChange),
    Decision(DecisionRow),
}

/// What people were told of an incident last.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct LastTold {
    at_ms: EventTime,
    updates: u32,
    /// The largest ratio of seen to expected calls, in thousandths.
    ratio: u64,
    /// The families that spoke, as bits in the order of [`Family::ALL`].
    families: u32,
    other_keys: u32,
    severity: Severity,
    /// The last reopening that wasn't a repeat.
    reopened_ms: Option<EventTime>,
    /// True since a reopening that was a repeat.
    is_repeat: bool,
}

/// An incident with the facts that its transitions need.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TrackedIncident {
    incident: Incident,
    /// The number of the next transition.
    next_seq: u32,
    /// The times of reopenings within the last week.
    reopened: Vec<EventTime>,
    told: LastTold,
    key_state: Option<crate::model::KeyState>,
    contact: NameId,
    place: KeyPlace,
    /// The signals with new values that were observed, for a dismissal.
    values: Vec<(Signal, u64)>,
}

/// The incidents of all keys.
pub(crate) struct Incidents {
    settings: DetectorSettings,
    incidents: HashMap<KeyId, TrackedIncident>,
    /// Incidents of each key that were forgotten otherwise, oldest first.
    earlier: HashMap<KeyId, Vec<EarlierIncident>>,
    network_keys: NetworkKeys,
    dismissals: Dismissals,
    /// The newest observation below an alert of each key with a new network, of the last hour.
    waiting: BTreeMap<KeyId, Box<Observation>>,
    /// Keys whose incident may end or be forgotten, by the time.
    due: BTreeMap<EventTime, Vec<KeyId>>,
    guards: BTreeMap<(EventTime, NameId), Guard>,
    /// Those of them that take bits: few. Signals of many windows are compared with them.
    taking: BTreeMap<(EventTime, NameId), Guard>,
    /// The number of keys that fired early in an open window, by plan; no plan: of all.
    fired: BTreeMap<EventTime, HashMap<NameId, u64>>,
    policies: HashMap<NameId, Policy>,
    contacts: HashMap<NameId, NameId>,
    /// The number of keys that were called today or yesterday.
    active: i64,
}

/// The output of a tick.
#[derive(Default)]
struct IncidentsOutput {
    transitions: Vec<Transition>,
    /// Incidents after their last transition. They may be forgotten before the tick is over.
    rows: BTreeMap<IncidentId, Incident>,
    changed: HashSet<KeyId>,
}

impl Incidents {
    pub(crate) fn new(settings: DetectorSettings) -> Self {
        Self {
            settings,
            incidents: HashMap::new(),
            earlier: HashMap::new(),
            network_keys: NetworkKeys::default(),
            dismissals: Dismissals::default(),
            waiting: BTreeMap::new(),
            due: BTreeMap::new(),
            guards: BTreeMap::new(),
            taking: BTreeMap::new(),
            fired: BTreeMap::new(),
            policies: HashMap::new(),
            contacts: HashMap::new(),
            active: 0,
        }
    }

    pub(crate) fn end_tick(
        state: &mut Self,
        reports: Vec<Vec<ProfileReport>>,
        learned: Vec<Vec<Learned>>,
        mut closing: Closing<'_, ()>,
    ) {
        let info = closing.info;
        let mut out = IncidentsOutput::default();
        state.learn(learned, info, &mut out);
        let mut crowds: BTreeMap<(EventTime, NameId), Figures> = BTreeMap::new();
        let mut observed: Vec<Observation> = Vec::new();
        let mut active: BTreeMap<EventTime, i64> = BTreeMap::new();
        let mut calls: BTreeMap<EventTime, Vec<NetworkCall>> = BTreeMap::new();
        let mut fired: BTreeMap<EventTime, Vec<Fired>> = BTreeMap::new();
        for report in reports.into_iter().flatten() {
            match report {
                ProfileReport::Observed(observation) => observed.push(*observation),
                ProfileReport::Networks { at_ms, calls: of_worker } => {
                    calls.entry(at_ms).or_default().extend(of_worker);
                }
                ProfileReport::Fired(keys) => fired.entry(keys.at_ms).or_default().push(keys),
                ProfileReport::Active { at_ms, change } => *active.entry(at_ms).or_default() += change,
                ProfileReport::Crowd(crowd) => {
                    let Crowd { window_ms, plan, figures } = *crowd;
                    crowds.entry((window_ms, plan)).or_default().merge(&figures);
                }
            }
        }
        for (group, figures) in crowds {
            state.note_guard(group, Guard::of(&figures));
        }
        // By time, key and occasion, so that it makes no difference how many windows a tick closes.
        observed.sort_unstable();
        for at_once in observed.chunk_by_mut(|one, other| one.at_ms == other.at_ms) {
            let later = active.split_off(&(at_once[0].at_ms + 1));
            state.active += std::mem::replace(&mut active, later).values().sum::<i64>();
            let later = calls.split_off(&(at_once[0].at_ms + 1));
            state.note_networks(std::mem::replace(&mut calls, later), info, &mut out);
            let later = fired.split_off(&(at_once[0].at_ms + 1));
            state.count_fired(std::mem::replace(&mut fired, later));
            for observation in at_once {
                state.end_until(observation.window_ms, info, &mut out);
                state.judge(observation, info, &mut out);
            }
        }
        state.active += active.values().sum::<i64>();
        state.note_networks(calls, info, &mut out);
        state.count_fired(fired);
        let closed_ms = info.watermark.saturating_sub(state.settings.grace_ms);
        state.end_until(closed_ms, info, &mut out);
        state.forget(closed_ms);
        out.publish(&state.incidents, &mut closing);
    }

    fn learn(&mut self, learned: Vec<Vec<Learned>>, info: &TickInfo, out: &mut IncidentsOutput) {
        let mut rows: Vec<TableChange> = Vec::new();
        for learned in learned.into_iter().flatten() {
            match learned {
                Learned::Row(change) => rows.push(change),
                Learned::Decision(row) => self.decide(row, info, out),
            }
        }
        rows.sort_by_key(|change| change.offset);
        // A subscription's rows come in the order of their dates. The contacts of the last one with any count, even
        // before its date. A mail about a leak then reaches who is to take over; without contacts it would reach nobody.
        for change in rows {
            match change.row {
                TableRow::Plan(row) if change.deleted => drop(self.policies.remove(&row.id)),
                TableRow::Plan(row) => drop(self.policies.insert(row.id, row.policy)),
                TableRow::Subscription(row) if change.deleted => drop(self.contacts.remove(&row.id)),
                TableRow::Subscription(row) if !row.contacts.is_some() => {
                    if row.valid_from.is_none() {
                        self.contacts.remove(&row.id);
                    }
                }
                TableRow::Subscription(row) => drop(self.contacts.insert(row.id, row.contacts)),
                TableRow::Leak(row) if !change.deleted => self.dismissals.end(row.key),
                TableRow::Key(_)
                | TableRow::Leak(_)
                | TableRow::Quota(_)
                | TableRow::Price(_)
                | TableRow::Token(_) => {}
            }
        }
    }

    /// Does what a person decided.
    fn decide(
        &mut self,
        DecisionRow { key, decision }: DecisionRow,
        info: &TickInfo,
        out: &mut IncidentsOutput,
    ) {
        match decision {
            KeyDecision::Mute { until_ms } => self.dismissals.mute(key, until_ms),
            // Nobody waits for others of its networks any more. The profile says what becomes of its incident.
            KeyDecision::Accept => drop(self.waiting.remove(&key)),
            KeyDecision::Dismiss(id) => {
                let at_ms = info.watermark_before;
                let Some(tracked) = self.incidents.get(&key).filter(|tracked| tracked.incident.id == id)
                else {
                    return;
                };
                self.dismissals.dismiss(key, tracked.dismissal(at_ms));
                self.waiting.remove(&key);
                if tracked.incident.state == IncidentState::Open {
                    self.withdraw(key, Reason::Dismissed, info, out);
                }
            }
        }
    }

    /// Withdraws the open incident of a key.
    fn withdraw(&mut self, key: KeyId, reason: Reason, info: &TickInfo, out: &mut IncidentsOutput) {
        let Some(tracked) = self.incidents.get_mut(&key) else { return };
        tracked.incident.state = IncidentState::Withdrawn;
        let ended_ms = info.watermark_before.max(tracked.incident.opened_ms);
        tracked.incident.ended_ms = Some(ended_ms);
        let mut transition = self.transition(key, Change::Withdrawn, info.watermark_before, false, info);
        transition.reason = Some(reason);
        out.log(transition);
        self.schedule(key, ended_ms + MERGES_MS);
    }

    /// Notes calls by networks, and judges the keys anew that waited for them.
    fn note_networks(
        &mut self,
        calls: BTreeMap<EventTime, Vec<NetworkCall>>,
        info: &TickInfo,
        out: &mut IncidentsOutput,
    ) {
        for (at_ms, mut calls) in calls {
            // Whatever worker they come from.
            calls.sort_unstable();
            calls.iter().for_each(|call| self.network_keys.note(*call, at_ms));
            self.waiting.retain(|_, observation| at_ms < observation.at_ms + HOUR_MS);
            let is_new = |(network, client): &(u64, u128)| {
                let at = calls.partition_point(|call| call.network < *network);
                let mut of_network = calls[at..].iter().take_while(|call| call.network == *network);
                of_network.any(|call| call.is_new && call.client == *client)
            };
            let met =
                self.waiting.iter().filter(|(_, one)| one.at_ms < at_ms && one.strangers.iter().any(is_new));
            let met: Vec<KeyId> = met.map(|(key, _)| *key).collect();
            for key in met {
                let Some(mut observation) = self.waiting.remove(&key) else { continue };
                let waited_ms = std::mem::replace(&mut observation.at_ms, at_ms);
                self.end_until(at_ms - WINDOW_MS, info, out);
                self.judge(&mut observation, info, out);
                // It waits for as long as it would have.
                if let Some(again) = self.waiting.get_mut(&key) {
                    again.at_ms = waited_ms;
                }
            }
        }
    }

    fn note_guard(&mut self, group: (EventTime, NameId), guard: Guard) {
        self.guards.insert(group, guard);
        if guard.takes() {
            self.taking.insert(group, guard);
        } else {
            self.taking.remove(&group);
        }
    }

    /// Counts the keys that fired at marks.
    fn count_fired(&mut self, fired: BTreeMap<EventTime, Vec<Fired>>) {
        for Fired { at_ms: _, window_ms, plan, keys } in fired.into_values().flatten() {
            *self.fired.entry(window_ms).or_default().entry(plan).or_default() += keys;
        }
    }

    /// Returns whether so many keys of a plan, or of all, fired before a window's end that its end decides.
    fn is_crowded(&self, observation: &Observation) -> bool {
        let Some(by_plan) = self.fired.get(&observation.window_ms) else { return false };
        let before_ms = observation.window_ms.saturating_sub(WINDOW_MS);
        [NameId::NONE, observation.owner.plan].into_iter().any(|plan| {
            let keys = self.guards.get(&(before_ms, plan)).map_or(0, |guard| guard.keys);
            let fired = by_plan.get(&plan).copied().unwrap_or_default();
            fired >= TOGETHER && fired * SHARE > keys
        })
    }

    /// Takes out the common rise of many keys in windows before `until_ms`. Returns whether bits were lost by it.
    fn guard(&self, plan: NameId, observed: &mut Vec<ObservedSignal>, until_ms: EventTime) -> bool {
        let mut platform_event = false;
        observed.retain_mut(|one| {
            let (mut factor, mut muted) = (0.0_f64, 0);
            for plan in [NameId::NONE, plan] {
                // Nothing before the window's own start, if it isn't over yet.
                let end_ms = (one.window_ms + one.width_ms()).min(until_ms).max(one.window_ms);
                let windows = (one.window_ms, NameId::NONE)..(end_ms, NameId::NONE);
                for ((_, of_plan), guard) in self.taking.range(windows) {
                    if *of_plan == plan {
                        factor = factor.max(guard.factor);
                        muted |= guard.muted;
                    }
                }
                // A new value is everybody's where it was new.
                let first = self.taking.get(&(one.first_ms, plan)).filter(|_| one.first_ms < until_ms);
                muted |= first.map_or(0, |guard| guard.muted);
            }
            let before = one.bits;
            if muted >> one.signal as u32 & 1 == 1 {
                one.bits = Bits::NONE;
            } else if factor > 0.0 && one.slope > Bits::NONE {
                let left = one.bits.get() - factor * one.slope.get();
                one.bits = if left > TAIL_BITS { Bits::new(left) } else { Bits::NONE };
            }
            one.counted = one.counted.min(one.bits);
            platform_event |= one.bits < before;
            one.bits > Bits::NONE
        });
        platform_event
    }

    fn judge(&mut self, observation: &mut Observation, info: &TickInfo, out: &mut IncidentsOutput) {
        let is_early = observation.occasion == Occasion::Early;
        if is_early && self.is_crowded(observation) {
            return;
        }
        // The guard takes from the signals, and would again if the observation waits.
        let may_wait = observation.occasion == Occasion::Closed && !observation.strangers.is_empty();
        let before = may_wait.then(|| observation.observed.clone());
        // Of an open window it isn't known yet what many keys do together in it, even if the tick closes it.
        let until_ms = if is_early { observation.window_ms } else { observation.window_ms + WINDOW_MS };
        let platform_event = self.guard(observation.owner.plan, &mut observation.observed, until_ms);
        let (key, at_ms) = (observation.key, observation.at_ms);
        let sharing = observation.strangers.iter().map(|(network, client)| {
            let (keys, customers) = self.network_keys.sharing(key, *network, *client, at_ms);
            (if customers >= SHARING_CUSTOMERS { keys } else { 0 }, *network)
        });
        let shared = sharing.max();
        let shared = shared.and_then(|(keys, network)| shared_network(observation.window_ms, network, keys));
        observation.observed.extend(shared);
        self.dismissals.take_from(observation);
        let mut verdict = verdict(&self.settings.tuning, &observation.observed, observation.is_well_known);
        if is_early {
            // Nobody acts on a window that isn't over: its end raises the severity, and then somebody may.
            verdict.severity = verdict.severity.min(Severity::Alert);
        }
        let is_incident = is_incident(verdict.severity, &observation.observed);

        if let Occasion::Reconsidered(reason) = observation.occasion {
            if let Some(tracked) = self.incidents.get(&key)
                && tracked.incident.state == IncidentState::Open
                && !is_incident
            {
                self.withdraw(key, reason, info, out);
            }
            return;
        }
        if self.dismissals.is_muted(observation) {
            return;
        }
        if !is_incident {
            let has_room = self.waiting.len() < WAITING || self.waiting.contains_key(&key);
            if let Some(observed) = before.filter(|_| has_room) {
                self.waiting.insert(key, Box::new(Observation { observed, ..observation.clone() }));
            }
            return;
        }
        self.waiting.remove(&key);
        let change = match self.incidents.get_mut(&key) {
            None => {
                let mut tracked = TrackedIncident::new(observation, platform_event);
                tracked.incident.earlier = self.earlier_of(key, at_ms);
                self.incidents.insert(key, tracked);
                Some(Change::Opened)
            }
            Some(tracked) => {
                // Signals that were there when it ended don't open it again.
                let is_over = tracked.incident.state != IncidentState::Open;
                if is_over && observation.observed_ms() <= tracked.incident.ended_ms.unwrap_or(0) {
                    return;
                }
                match (is_over, verdict.severity > tracked.incident.severity) {
                    (true, _) => Some(Change::Reopened),
                    (false, true) => Some(Change::Raised),
                    (false, false) => None,
                }
            }
        };
        let Some(tracked) = self.incidents.get_mut(&key) else { return };
        if change == Some(Change::Reopened) {
            tracked.begin_anew(observation, at_ms);
        }
        if tracked.take(observation, verdict, platform_event, change.is_some(), &self.settings.tuning) {
            out.changed.insert(key);
        }
        let networks =
            observation.observed.iter().filter(|one| one.signal == Signal::Network && one.value != 0);
        tracked.meet(self.network_keys.others(key, networks.map(|one| one.value), at_ms));
        let change = change.or_else(|| tracked.is_grown(at_ms).then_some(Change::Updated));
        let ends_ms = tracked.ends_ms();
        self.schedule(key, ends_ms);
        if let Some(change) = change {
            let mut transition = self.transition(key, change, at_ms, is_early, info);
            if is_early {
                // The open window's calls so far: its end counts all of them.
                transition.incident.calls += observation.calls;
                add_taken(&mut transition.incident.taken, &observation.taken);
            }
            out.log(transition);
        }
    }

    /// Returns the earlier incidents of a key, newest first.
    fn earlier_of(&self, key: KeyId, at_ms: EventTime) -> Vec<EarlierIncident> {
        let all = self.earlier.get(&key).into_iter().flatten();
        let mut lately: Vec<EarlierIncident> =
            all.filter(|one| one.ended_ms + EARLIER_MS > at_ms).copied().collect();
        lately.reverse();
        lately
    }

    fn schedule(&mut self, key: KeyId, at_ms: EventTime) {
        let keys = self.due.entry(at_ms).or_default();
        if !keys.contains(&key) {
            keys.push(key);
        }
    }

    /// Ends and forgets the incidents whose time has come.
    fn end_until(&mut self, now_ms: EventTime, info: &TickInfo, out: &mut IncidentsOutput) {
        while let Some(first) = self.due.first_entry().filter(|first| *first.key() <= now_ms) {
            let (due_ms, mut keys) = first.remove_entry();
            keys.sort_unstable();
            for key in keys {
                self.forget_earlier(key, due_ms);
                let Some(tracked) = self.incidents.get_mut(&key) else { continue };
                let ends_ms = tracked.ends_ms();
                let incident = &mut tracked.incident;
                match (incident.state, incident.ended_ms) {
                    (IncidentState::Open, _) if ends_ms == due_ms => {
                        incident.state = IncidentState::Ended;
                        incident.ended_ms = Some(due_ms);
                        let transition = self.transition(key, Change::Ended, due_ms, false, info);
                        out.log(transition);
                        self.schedule(key, due_ms + MERGES_MS);
                    }
                    (IncidentState::Ended | IncidentState::Withdrawn, Some(ended_ms))
                        if ended_ms + MERGES_MS <= due_ms =>
                    {
                        let Incident { id, opened_ms, severity, state, .. } = *incident;
                        let severity = severity.max(tracked.told.severity);
                        let earlier = EarlierIncident { id, opened_ms, ended_ms, severity, state };
                        self.incidents.remove(&key);
                        let all = self.earlier.entry(key).or_default();
                        all.push(earlier);
                        if all.len() > EARLIER {
                            all.remove(0);
                        }
                        self.schedule(key, ended_ms + EARLIER_MS);
                    }
                    _ => {}
                }
            }
        }
    }

    fn forget_earlier(&mut self, key: KeyId, now_ms: EventTime) {
        if let Some(all) = self.earlier.get_mut(&key) {
            all.retain(|one| one.ended_ms + EARLIER_MS > now_ms);
            if all.is_empty() {
                self.earlier.remove(&key);
            }
        }
    }

    fn forget(&mut self, watermark: EventTime) {
        self.network_keys.forget(watermark);
        self.dismissals.forget(watermark);
        let from_ms = watermark.saturating_sub(GUARDS_MS);
        let muted_from_ms = watermark.saturating_sub(MUTED_MS);
        for guards in [&mut self.guards, &mut self.taking] {
            guards.retain(|(window_ms, _), guard| {
                *window_ms >= from_ms || guard.muted != 0 && *window_ms >= muted_from_ms
            });
        }
        self.fired = self.fired.split_off(&watermark.saturating_sub(WINDOW_MS));
    }

    /// Returns an entry of the log for an incident as it stands.
    fn transition(
        &mut self,
        key: KeyId,
        change: Change,
        at_ms: EventTime,
        early: bool,
        info: &TickInfo,
    ) -> Transition {
        let Self { incidents, policies, contacts, active, .. } = self;
        let tracked = incidents.get_mut(&key).expect("who asks has just looked at it");
        tracked.tell(change, at_ms);
        let seq = tracked.next_seq;
        tracked.next_seq += 1;
        let owner = tracked.incident.owner;
        Transition {
            seq,
            change,
            at_ms,
            reason: None,
            early,
            is_repeat: tracked.told.is_repeat
                && matches!(change, Change::Reopened | Change::Updated | Change::Ended),
            catching_up: info.catching_up,
            policy: tracked.key_state.and_then(|_| policies.get(&owner.plan).copied()),
            key_state: tracked.key_state,
            active_keys: u64::try_from(*active).unwrap_or(0),
            contact: tracked.contact,
            place: tracked.place,
            contacts: contacts.get(&owner.subscription).copied().unwrap_or_default(),
            incident: tracked.incident.clone(),
        }
    }
}

impl IncidentsOutput {
    fn log(&mut self, transition: Transition) {
        self.rows.insert(transition.incident.id, transition.incident.clone());
        self.changed.insert(transition.incident.key);
        self.transitions.push(transition);
    }

    fn publish(mut self, incidents: &HashMap<KeyId, TrackedIncident>, closing: &mut Closing<'_, ()>) {
        if !self.transitions.is_empty() {
            self.transitions.sort_by_key(|one| (one.at_ms, one.incident.id, one.seq));
            closing.output.rows(closing.info.tick, Rows::IncidentLog(std::mem::take(&mut self.transitions)));
        }
        let changed = self.changed.iter().filter_map(|key| incidents.get(key));
        self.rows.extend(changed.map(|tracked| (tracked.incident.id, tracked.incident.clone())));
        if !self.rows.is_empty() {
            closing.output.rows(closing.info.tick, Rows::Incidents(self.rows.into_values().collect()));
        }
    }
}

impl TrackedIncident {
    fn new(observation: &Observation, platform_event: bool) -> Self {
        let incident = Incident {
            id: IncidentId::new(observation.key, observation.window_ms),
            key: observation.key,
            owner: observation.owner,
            severity: Severity::None,
            score: 0,
            state: IncidentState::Open,
            opened_ms: observation.window_ms,
            last_signal_ms: 0,
            ended_ms: None,
            signals: Vec::new(),
            traffic: Vec::new(),
            samples: Vec::new(),
            calls: 0,
            taken: Taken::default(),
            usual: observation.usual.clone(),
            other_keys: Vec::new(),
            earlier: Vec::new(),
            reopenings: 0,
            known_since_ms: observation.known_since_ms,
            known_calls: observation.known_calls,
            platform_event,
        };
        Self {
            incident,
            next_seq: 0,
            reopened: Vec::new(),
            told: LastTold::default(),
            key_state: None,
            contact: NameId::NONE,
            place: KeyPlace::default(),
            values: Vec::new(),
        }
    }

    /// Returns what a dismissal at that time covers.
    fn dismissal(&self, at_ms: EventTime) -> Dismissal {
        let ratio = |one: &Evidence| (one.signal, ratio_of(one.seen, one.expected));
        let signals = self.incident.signals.iter().map(ratio).collect();
        Dismissal { at_ms, signals, values: self.values.clone() }
    }

    /// Returns when it ends unless another signal comes.
    fn ends_ms(&self) -> EventTime {
        let reopenings = (self.incident.reopenings as usize).min(QUIET_MS.len() - 1);
        self.incident.last_signal_ms + QUIET_MS[reopenings]
    }

    /// Adds other keys that the networks called with. Networks that were met before keep their most keys.
    fn meet(&mut self, others: Vec<OtherKeys>) {
        let all = &mut self.incident.other_keys;
        for other in others {
            match all.iter_mut().find(|known| known.network == other.network) {
                Some(known) if (known.keys, known.usual_keys) <= (other.keys, other.usual_keys) => {
                    *known = other
                }
                Some(_) => {}
                None => all.push(other),
            }
        }
        all.sort_by_key(|one| (std::cmp::Reverse((one.keys, one.usual_keys)), one.network));
        all.truncate(OTHER_NETWORKS);
    }

    /// Returns what there is to tell at a time.
    fn tellable(&self, at_ms: EventTime) -> LastTold {
        let incident = &self.incident;
        let volume =
            incident.signals.iter().filter(|one| one.signal.family() == Family::Volume && one.expected > 0);
        let ratio = volume.map(|one| ratio_of(one.seen, one.expected)).max();
        let families = incident.signals.iter().filter(|one| one.weighted >= JOINS);
        LastTold {
            at_ms,
            ratio: ratio.unwrap_or(0),
            families: families.fold(0, |all, one| all | 1 << one.signal.family() as u32),
            other_keys: incident.other_keys.iter().map(|one| one.keys).max().unwrap_or(0),
            severity: incident.severity.max(self.told.severity),
            ..self.told.clone()
        }
    }

    /// Returns whether there is enough news for an update.
    fn is_grown(&self, at_ms: EventTime) -> bool {
        let told = &self.told;
        if at_ms < told.at_ms + UPDATES_MS[usize::from(told.updates > 0)] {
            return false;
        }
        let now = self.tellable(at_ms);
        now.ratio > 0 && now.ratio >= told.ratio.saturating_mul(GROWN)
            || now.families & !told.families != 0
            || now.other_keys >= MANY_KEYS && told.other_keys < MANY_KEYS
    }

    /// Notes that a transition is told.
    fn tell(&mut self, change: Change, at_ms: EventTime) {
        let mut told = self.tellable(at_ms);
        let is_worse = self.incident.severity > self.told.severity;
        match change {
            Change::Reopened => {
                let is_recent = told.reopened_ms.is_some_and(|before_ms| at_ms < before_ms + TOLD_MS);
                told.is_repeat = is_recent && !is_worse;
                if !told.is_repeat {
                    told.reopened_ms = Some(at_ms);
                }
                told.updates = 0;
            }
            Change::Raised => told.is_repeat = false,
            Change::Updated => told.updates += 1,
            Change::Opened | Change::Ended | Change::Withdrawn => {}
        }
        self.told = told;
    }

    /// Starts over: severity after an end is judged by itself, and withdrawn signals aren't held against the key.
    fn begin_anew(&mut self, observation: &Observation, at_ms: EventTime) {
        self.reopened.retain(|before_ms| before_ms + WEEK_MS > at_ms);
        self.reopened.push(at_ms);
        let incident = &mut self.incident;
        incident.reopenings = u32::try_from(self.reopened.len()).unwrap_or(u32::MAX);
        incident.usual.clone_from(&observation.usual);
        (incident.severity, incident.score) = (Severity::None, 0);
        if incident.state == IncidentState::Withdrawn {
            incident.signals.clear();
            incident.platform_event = false;
        }
    }

    /// Adds an observation. Returns whether the incident's row changed.
    fn take(
        &mut self,
        observation: &Observation,
        verdict: Verdict,
        platform_event: bool,
        is_transition: bool,
        tuning: &Tuning,
    ) -> bool {
        (self.key_state, self.contact) = (observation.key_state, observation.contact);
        self.place = observation.place;
        let incident = &mut self.incident;
        let before = (incident.severity, incident.score, incident.last_signal_ms);
        (incident.state, incident.ended_ms) = (IncidentState::Open, None);
        incident.severity = verdict.severity.max(incident.severity);
        incident.score = verdict.score().max(incident.score);
        incident.platform_event |= platform_event;
        // An open window's calls come again at its end.
        if observation.occasion == Occasion::Closed {
            incident.calls += observation.calls;
            add_taken(&mut incident.taken, &observation.taken);
        }
        incident.last_signal_ms = observation.observed_ms().max(incident.last_signal_ms);
        for one in observation.observed.iter().filter(|one| one.value != 0) {
            if self.values.len() < MOST_VALUES && !self.values.contains(&(one.signal, one.value)) {
                self.values.push((one.signal, one.value));
            }
        }
        for evidence in evidence(observation, tuning) {
            match incident.signals.iter_mut().find(|known| known.signal == evidence.signal) {
                Some(known) => {
                    let (first_ms, last_ms) =
                        (known.first_ms.min(evidence.first_ms), known.last_ms.max(evidence.last_ms));
                    if (evidence.weighted, evidence.bits) >= (known.weighted, known.bits) {
                        *known = evidence;
                    }
                    (known.first_ms, known.last_ms) = (first_ms, last_ms);
                }
                None => incident.signals.push(evidence),
            }
        }
        incident.signals.sort_by_key(|one| (std::cmp::Reverse(one.weighted), one.signal));
        incident.traffic.clone_from(&observation.traffic);
        if (is_transition && !observation.samples.is_empty()) || incident.samples.is_empty() {
            incident.samples.clone_from(&observation.samples);
        }
        is_transition || before != (incident.severity, incident.score, incident.last_signal_ms)
    }
}

/// Adds what the calls of a window took.
fn add_taken(sum: &mut Taken, window: &Taken) {
    // Both are sums since the new value was observed.
    if window.from_new >= sum.from_new {
        (sum.from_new, sum.usual) = (window.from_new, window.usual);
    }
    sum.bytes_out = sum.bytes_out.saturating_add(window.bytes_out);
    add_counts(&mut sum.statuses, &window.statuses, STATUSES);
    add_counts(&mut sum.routes, &window.routes, ROUTES);
}

/// Adds counts to others, both in the order of their values. Beyond `most` values those that came first stay.
fn add_counts<T: Copy + Ord>(sums: &mut Vec<(T, u64)>, counts: &[(T, u64)], most: usize) {
    for (value, calls) in counts {
        match sums.binary_search_by_key(value, |sum| sum.0) {
            Ok(at) => sums[at].1 += calls,
            Err(at) if sums.len() < most => sums.insert(at, (*value, *calls)),
            Err(_) => {}
        }
    }
}

/// Returns the evidence of each signal, with the values of one kind together.
fn evidence(observation: &Observation, tuning: &Tuning) -> Vec<Evidence> {
    let mut all: BTreeMap<Signal, Evidence> = BTreeMap::new();
    for one in &observation.observed {
        let values: SmallVec<[Contributor; 1]> = one.shown.iter().filter_map(contributor).collect();
        let weighted = u64::from(one.counted.0) * tuning.weights[one.signal as usize] / 1_000;
        let weighted = Bits(u32::try_from(weighted).unwrap_or(Bits::MOST.0));
        match all.entry(one.signal) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(Evidence {
                    signal: one.signal,
                    window_ms: one.window_ms,
                    width_ms: one.width_ms(),
                    first_ms: one.first_ms,
                    last_ms: one.observed_ms,
                    expected: one.expected,
                    seen: one.seen,
                    bits: one.bits,
                    weighted,
                    values,
                });
            }
            std::collections::btree_map::Entry::Occupied(mut entry) => {
                let evidence = entry.get_mut();
                evidence.first_ms = evidence.first_ms.min(one.first_ms);
                evidence.last_ms = evidence.last_ms.max(one.observed_ms);
                evidence.window_ms = evidence.window_ms.max(one.window_ms);
                evidence.seen += one.seen;
                evidence.bits = Bits((evidence.bits.0 + one.bits.0).min(Bits::MOST.0));
                evidence.weighted = Bits((evidence.weighted.0.saturating_add(weighted.0)).min(Bits::MOST.0));
                evidence.values.extend(values);
            }
        }
    }
    let mut all: Vec<Evidence> = all.into_values().collect();
    for evidence in &mut all {
        if evidence.signal == Signal::Reported {
            let (source, url) = observation.report;
            evidence.values =
                [Contributor { value: EvidenceValue::Report(source, url), calls: 0, is_new: true }]
                    .into_iter()
                    .collect();
        }
        evidence.values.sort_by_key(|one| (std::cmp::Reverse(one.calls), one.value));
        evidence.values.dedup();
        evidence.values.truncate(SHOWN);
    }
    all
}

fn contributor(shown: &Shown) -> Option<Contributor> {
    let value = evidence_value(shown.kind, shown.value)?;
    Some(Contributor { value, calls: shown.calls.into(), is_new: shown.is_new })
}

#[derive(Serialize, Deserialize)]
pub(crate) enum IncidentsStateRow {
    TrackedIncident(Box<TrackedIncident>),
    Due(EventTime, KeyId),
    Guard(EventTime, NameId, Guard),
    Fired(EventTime, NameId, u64),
    Policy(NameId, Policy),
    Contacts(NameId, NameId),
    Active(i64),
    Earlier(KeyId, Vec<EarlierIncident>),
    NetworkKey(u64, NetworkKey),
    Waiting(Box<Observation>),
    Dismissed(KeyId, Dismissal),
    Muted(KeyId, EventTime),
}

impl Durable for Incidents {
    const ID: StateId = StateId::Incidents;
    type Row<'a> = IncidentsStateRow;

    fn rows_out(&mut self, out: &mut dyn RowsOut<Self>) {
        self.incidents
            .values()
            .for_each(|tracked| out.row(IncidentsStateRow::TrackedIncident(Box::new(tracked.clone()))));
        for (due_ms, keys) in &self.due {
            keys.iter().for_each(|key| out.row(IncidentsStateRow::Due(*due_ms, *key)));
        }
        for ((window_ms, plan), guard) in &self.guards {
            out.row(IncidentsStateRow::Guard(*window_ms, *plan, *guard));
        }
        for (window_ms, by_plan) in &self.fired {
            by_plan
                .iter()
                .for_each(|(plan, keys)| out.row(IncidentsStateRow::Fired(*window_ms, *plan, *keys)));
        }
        self.policies.iter().for_each(|(plan, policy)| out.row(IncidentsStateRow::Policy(*plan, *policy)));
        self.contacts.iter().for_each(|(id, contacts)| out.row(IncidentsStateRow::Contacts(*id, *contacts)));
        out.row(IncidentsStateRow::Active(self.active));
        self.earlier.iter().for_each(|(key, all)| out.row(IncidentsStateRow::Earlier(*key, all.clone())));
        self.network_keys.pairs(&mut |network, key| out.row(IncidentsStateRow::NetworkKey(network, key)));
        self.waiting.values().for_each(|one| out.row(IncidentsStateRow::Waiting(one.clone())));
        let dismissed = self.dismissals.dismissed();
        dismissed.for_each(|(key, one)| out.row(IncidentsStateRow::Dismissed(key, one.clone())));
        self.dismissals.muted().for_each(|(key, until)| out.row(IncidentsStateRow::Muted(key, until)));
    }

    fn row_in(&mut self, row: IncidentsStateRow) {
        match row {
            IncidentsStateRow::TrackedIncident(tracked) => {
                drop(self.incidents.insert(tracked.incident.key, *tracked))
            }
            IncidentsStateRow::Due(due_ms, key) => self.due.entry(due_ms).or_default().push(key),
            IncidentsStateRow::Guard(window_ms, plan, guard) => self.note_guard((window_ms, plan), guard),
            IncidentsStateRow::Fired(window_ms, plan, keys) => {
                self.fired.entry(window_ms).or_default().insert(plan, keys);
            }
            IncidentsStateRow::Policy(plan, policy) => drop(self.policies.insert(plan, policy)),
            IncidentsStateRow::Contacts(id, contacts) => drop(self.contacts.insert(id, contacts)),
            // Every worker has one; they were 0 but on one.
            IncidentsStateRow::Active(active) => self.active += active,
            IncidentsStateRow::Earlier(key, all) => drop(self.earlier.insert(key, all)),
            IncidentsStateRow::NetworkKey(network, key) => self.network_keys.restore(network, key),
            IncidentsStateRow::Waiting(one) => drop(self.waiting.insert(one.key, one)),
            IncidentsStateRow::Dismissed(key, one) => self.dismissals.dismiss(key, one),
            IncidentsStateRow::Muted(key, until_ms) => self.dismissals.mute(key, until_ms),
        }
    }

    fn shard(_: &IncidentsStateRow) -> Shard {
        Shard::Of(0)
    }

    fn footprint(&self) -> Footprint {
        let mut footprint = Footprint::of_map_with(&self.incidents, |tracked| {
            let Incident { signals, traffic, samples, taken, usual, other_keys, .. } = &tracked.incident;
            size_of_val(&**signals)
                + size_of_val(&**traffic)
                + size_of_val(&**samples)
                + size_of_val(&*taken.routes)
                + size_of_val(&**usual)
                + size_of_val(&**other_keys)
        });
        footprint += Footprint::of_map_with(&self.earlier, |all| size_of_val(&**all));
        footprint += self.network_keys.footprint();
        footprint += self.dismissals.footprint();
        footprint += Footprint::of_tree(&self.waiting);
        footprint += Footprint::of_tree(&self.due);
        footprint += Footprint::of_tree(&self.guards);
        // Memory, but no rows: they are among the others.
        footprint.bytes += Footprint::of_tree(&self.taking).bytes;
        footprint += Footprint::of_tree(&self.fired);
        footprint += Footprint::of_map(&self.policies);
        footprint += Footprint::of_map(&self.contacts);
        footprint
    }
}
