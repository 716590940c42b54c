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
//! fired in it, up to that mark, as would be together, and never exceed an alert.
//!
//! **Incidents.** A key has at most one. It opens at the severity alert, is raised when the severity rises, and ends half
//! an hour after the last signal. It is reopened if signals come within 24 hours of its end. Its id is a hash of the key,
//! the detector's version and the window in which it opened. An incident whose signals the tables explain is withdrawn; it
//! is reopened only by other signals.
//!
//! Observations are judged in the order of (time, key), whatever tick they come in. Emits at a tick its transitions in the
//! order of (time, incident), and each incident that changed once. Remembers incidents for 24 hours after their end and
//! the guard for two hours. All of it is on one worker, which gets odd keys and sums, not the usual calls.

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::parts::by_tick::Closing;
use super::parts::report::{Crowd, Figures, LEAST, Observation, Occasion, ProfileReport, RISE_STEP, Z_STEP};
use super::profiles::DetectorSettings;
use crate::detect::{
    Bits, ObservedSignal, Severity, Shown, Signal, TAIL_BITS, Tuning, Verdict, WINDOW_MS, first_address,
    verdict,
};
use crate::incident::{
    Change, Contributor, Evidence, EvidenceValue, Incident, IncidentId, IncidentState, Taken, Transition,
};
use crate::model::time::HOUR_MS;
use crate::model::{
    CallerLocation, Country, EventTime, KeyId, NameId, Policy, RouteId, TableChange, TableRow, TickInfo,
};
use crate::row::Rows;
use crate::state::{Durable, Footprint, Shard, StateId};

/// How long after its last signal an incident ends.
const ENDS_MS: u64 = HOUR_MS / 2;
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
        let known: u64 = figures.z.iter().sum();
        let spiked: u64 = figures.spiked.iter().sum();
        let many_spiked = spiked >= TOGETHER && spiked * SHARE > known;
        let factor = match () {
            () if many_spiked => median(&figures.spiked, RISE_STEP),
            () if known >= TOGETHER && median(&figures.z, Z_STEP) > MEDIAN_Z => {
                median(&figures.rise, RISE_STEP)
            }
            () => 0.0,
        };
        let muted = figures.stirred.iter().enumerate().fold(0, |muted, (signal, keys)| {
            muted | u32::from(*keys >= TOGETHER && keys * SHARE > figures.keys) << signal
        });
        Self { factor: factor.max(0.0), muted, keys: figures.keys }
    }
}

/// Returns the upper end of the median's bin.
fn median(places: &[u64], step: f64) -> f64 {
    let half = places.iter().sum::<u64>().div_ceil(2);
    let mut sum = 0;
    let at = places.iter().position(|count| {
        sum += count;
        sum >= half
    });
    LEAST + (at.unwrap_or(0) + 1) as f64 * step
}

/// An incident with the facts that its transitions need.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TrackedIncident {
    incident: Incident,
    /// The number of the next transition.
    next_seq: u32,
    key_state: Option<crate::model::KeyState>,
    contact: NameId,
}

/// The incidents of all keys.
pub(crate) struct Incidents {
    settings: DetectorSettings,
    incidents: HashMap<KeyId, TrackedIncident>,
    /// Keys whose incident may end or be forgotten, by the time.
    due: BTreeMap<EventTime, Vec<KeyId>>,
    guards: BTreeMap<(EventTime, NameId), Guard>,
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
            due: BTreeMap::new(),
            guards: BTreeMap::new(),
            fired: BTreeMap::new(),
            policies: HashMap::new(),
            contacts: HashMap::new(),
            active: 0,
        }
    }

    pub(crate) fn end_tick(
        state: &mut Self,
        reports: Vec<Vec<ProfileReport>>,
        rows: Vec<Vec<TableChange>>,
        mut closing: Closing<'_, ()>,
    ) {
        let info = closing.info;
        state.learn(rows);
        let mut crowds: BTreeMap<(EventTime, NameId), Figures> = BTreeMap::new();
        let mut observed: Vec<Observation> = Vec::new();
        let mut active: BTreeMap<EventTime, i64> = BTreeMap::new();
        for report in reports.into_iter().flatten() {
            match report {
                ProfileReport::Observed(observation) => observed.push(*observation),
                ProfileReport::Active { at_ms, change } => *active.entry(at_ms).or_default() += change,
                ProfileReport::Crowd(crowd) => {
                    let Crowd { window_ms, plan, figures } = *crowd;
                    crowds.entry((window_ms, plan)).or_default().merge(&figures);
                }
            }
        }
        state.guards.extend(crowds.into_iter().map(|(group, figures)| (group, Guard::of(&figures))));
        // By time, key and occasion, so that it makes no difference how many windows a tick closes.
        observed.sort_unstable();
        let mut out = IncidentsOutput::default();
        for at_once in observed.chunk_by_mut(|one, other| one.at_ms == other.at_ms) {
            let later = active.split_off(&(at_once[0].at_ms + 1));
            state.active += std::mem::replace(&mut active, later).values().sum::<i64>();
            state.count_early(at_once);
            for observation in at_once {
                state.end_until(observation.window_ms, info, &mut out);
                state.judge(observation, info, &mut out);
            }
        }
        state.active += active.values().sum::<i64>();
        let closed_ms = info.watermark.saturating_sub(state.settings.grace_ms);
        state.end_until(closed_ms, info, &mut out);
        state.forget(closed_ms);
        out.publish(&state.incidents, &mut closing);
    }

    fn learn(&mut self, rows: Vec<Vec<TableChange>>) {
        let mut rows: Vec<TableChange> = rows.into_iter().flatten().collect();
        rows.sort_by_key(|change| change.offset);
        for change in rows {
            match change.row {
                TableRow::Plan(row) if change.deleted => drop(self.policies.remove(&row.id)),
                TableRow::Plan(row) => drop(self.policies.insert(row.id, row.policy)),
                TableRow::Subscription(row) if change.deleted || !row.contacts.is_some() => {
                    self.contacts.remove(&row.id);
                }
                TableRow::Subscription(row) => drop(self.contacts.insert(row.id, row.contacts)),
                TableRow::Key(_) | TableRow::Leak(_) => {}
            }
        }
    }

    /// Counts the keys that fire at a mark.
    fn count_early(&mut self, observed: &[Observation]) {
        for observation in observed.iter().filter(|one| one.occasion == Occasion::Early) {
            let by_plan = self.fired.entry(observation.window_ms).or_default();
            *by_plan.entry(NameId::NONE).or_default() += 1;
            if observation.owner.plan.is_some() {
                *by_plan.entry(observation.owner.plan).or_default() += 1;
            }
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
                for ((_, of_plan), guard) in self.guards.range(windows) {
                    if *of_plan == plan {
                        factor = factor.max(guard.factor);
                        muted |= guard.muted;
                    }
                }
                // A new value is everybody's where it was new.
                let first = self.guards.get(&(one.first_ms, plan)).filter(|_| one.first_ms < until_ms);
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
        // Of an open window it isn't known yet what many keys do together in it, even if the tick closes it.
        let until_ms = if is_early { observation.window_ms } else { observation.window_ms + WINDOW_MS };
        let platform_event = self.guard(observation.owner.plan, &mut observation.observed, until_ms);
        let mut verdict = verdict(&self.settings.tuning, &observation.observed, observation.is_well_known);
        if is_early {
            // Nobody acts on a window that isn't over: its end raises the severity, and then somebody may.
            verdict.severity = verdict.severity.min(Severity::Alert);
        }
        let at_ms = observation.at_ms;
        let observed_ms =
            observation.observed.iter().map(|one| one.observed_ms + WINDOW_MS).max().unwrap_or(0);
        let key = observation.key;
        let tracked = self.incidents.get_mut(&key);

        if let Occasion::Reconsidered(reason) = observation.occasion {
            if let Some(tracked) = tracked
                && tracked.incident.state == IncidentState::Open
                && verdict.severity < Severity::Alert
            {
                tracked.incident.state = IncidentState::Withdrawn;
                let ended_ms = info.watermark_before.max(tracked.incident.opened_ms);
                tracked.incident.ended_ms = Some(ended_ms);
                let mut transition =
                    self.transition(key, Change::Withdrawn, info.watermark_before, false, info);
                transition.reason = Some(reason);
                out.log(transition);
                self.schedule(key, ended_ms + MERGES_MS);
            }
            return;
        }
        if verdict.severity < Severity::Alert {
            return;
        }
        let change = match tracked {
            None => {
                self.incidents.insert(key, TrackedIncident::new(observation, platform_event));
                Some(Change::Opened)
            }
            Some(tracked) => {
                // Signals that were there when it ended don't open it again.
                let is_over = tracked.incident.state != IncidentState::Open;
                if is_over && observed_ms <= tracked.incident.ended_ms.unwrap_or(0) {
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
            tracked.begin_anew();
        }
        if tracked.take(observation, verdict, platform_event, change.is_some(), &self.settings.tuning) {
            out.changed.insert(key);
        }
        self.schedule(key, observed_ms + ENDS_MS);
        if let Some(change) = change {
            let transition = self.transition(key, change, at_ms, is_early, info);
            out.log(transition);
        }
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
                let Some(tracked) = self.incidents.get_mut(&key) else { continue };
                let incident = &mut tracked.incident;
                match (incident.state, incident.ended_ms) {
                    (IncidentState::Open, _) if incident.last_signal_ms + ENDS_MS == due_ms => {
                        incident.state = IncidentState::Ended;
                        incident.ended_ms = Some(due_ms);
                        let transition = self.transition(key, Change::Ended, due_ms, false, info);
                        out.log(transition);
                        self.schedule(key, due_ms + MERGES_MS);
                    }
                    (IncidentState::Ended | IncidentState::Withdrawn, Some(ended_ms))
                        if ended_ms + MERGES_MS <= due_ms =>
                    {
                        self.incidents.remove(&key);
                    }
                    _ => {}
                }
            }
        }
    }

    fn forget(&mut self, watermark: EventTime) {
        let from_ms = watermark.saturating_sub(GUARDS_MS);
        let muted_from_ms = watermark.saturating_sub(MUTED_MS);
        self.guards.retain(|(window_ms, _), guard| {
            *window_ms >= from_ms || guard.muted != 0 && *window_ms >= muted_from_ms
        });
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
        let seq = tracked.next_seq;
        tracked.next_seq += 1;
        let owner = tracked.incident.owner;
        Transition {
            seq,
            change,
            at_ms,
            reason: None,
            early,
            is_repeat: false,
            catching_up: info.catching_up,
            policy: tracked.key_state.and_then(|_| policies.get(&owner.plan).copied()),
            key_state: tracked.key_state,
            active_keys: u64::try_from(*active).unwrap_or(0),
            contact: tracked.contact,
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
            usual: Vec::new(),
            other_keys: Vec::new(),
            earlier: Vec::new(),
            reopenings: 0,
            known_since_ms: observation.known_since_ms,
            known_calls: observation.known_calls,
            platform_event,
        };
        Self { incident, next_seq: 0, key_state: None, contact: NameId::NONE }
    }

    /// Starts over: severity after an end is judged by itself, and withdrawn signals aren't held against the key.
    fn begin_anew(&mut self) {
        let incident = &mut self.incident;
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
        let incident = &mut self.incident;
        let before = (incident.severity, incident.score, incident.last_signal_ms);
        (incident.state, incident.ended_ms) = (IncidentState::Open, None);
        incident.severity = verdict.severity.max(incident.severity);
        incident.score = verdict.score().max(incident.score);
        incident.platform_event |= platform_event;
        // An open window's calls come again at its end.
        if observation.occasion == Occasion::Closed {
            incident.calls += observation.calls;
        }
        let observed_ms =
            observation.observed.iter().map(|one| one.observed_ms + WINDOW_MS).max().unwrap_or(0);
        incident.last_signal_ms = observed_ms.max(incident.last_signal_ms);
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
    let value = match shown.kind {
        Signal::Country => EvidenceValue::Country(Country((shown.value as u16).to_be_bytes())),
        Signal::Asn => EvidenceValue::Asn(shown.value as u32),
        Signal::Network => EvidenceValue::Network(first_address(shown.value)),
        Signal::Agent => EvidenceValue::Agent(NameId(shown.value)),
        Signal::Route => EvidenceValue::Route(RouteId(shown.value)),
        Signal::Travel => {
            let (latitude, longitude) = CallerLocation::unpack(shown.value as u32)?;
            EvidenceValue::Place(latitude, longitude)
        }
        _ => return None,
    };
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
}

impl Durable for Incidents {
    const ID: StateId = StateId::Incidents;
    type Row = IncidentsStateRow;

    fn rows_out(&self, out: &mut dyn FnMut(IncidentsStateRow)) {
        self.incidents
            .values()
            .for_each(|tracked| out(IncidentsStateRow::TrackedIncident(Box::new(tracked.clone()))));
        for (due_ms, keys) in &self.due {
            keys.iter().for_each(|key| out(IncidentsStateRow::Due(*due_ms, *key)));
        }
        for ((window_ms, plan), guard) in &self.guards {
            out(IncidentsStateRow::Guard(*window_ms, *plan, *guard));
        }
        for (window_ms, by_plan) in &self.fired {
            by_plan.iter().for_each(|(plan, keys)| out(IncidentsStateRow::Fired(*window_ms, *plan, *keys)));
        }
        self.policies.iter().for_each(|(plan, policy)| out(IncidentsStateRow::Policy(*plan, *policy)));
        self.contacts.iter().for_each(|(id, contacts)| out(IncidentsStateRow::Contacts(*id, *contacts)));
        out(IncidentsStateRow::Active(self.active));
    }

    fn row_in(&mut self, row: IncidentsStateRow) {
        match row {
            IncidentsStateRow::TrackedIncident(tracked) => {
                drop(self.incidents.insert(tracked.incident.key, *tracked))
            }
            IncidentsStateRow::Due(due_ms, key) => self.due.entry(due_ms).or_default().push(key),
            IncidentsStateRow::Guard(window_ms, plan, guard) => {
                self.guards.insert((window_ms, plan), guard);
            }
            IncidentsStateRow::Fired(window_ms, plan, keys) => {
                self.fired.entry(window_ms).or_default().insert(plan, keys);
            }
            IncidentsStateRow::Policy(plan, policy) => drop(self.policies.insert(plan, policy)),
            IncidentsStateRow::Contacts(id, contacts) => drop(self.contacts.insert(id, contacts)),
            // Every worker has one; they were 0 but on one.
            IncidentsStateRow::Active(active) => self.active += active,
        }
    }

    fn shard(_: &IncidentsStateRow) -> Shard {
        Shard::Of(0)
    }

    fn footprint(&self) -> Footprint {
        let mut footprint = Footprint::of_map_with(&self.incidents, |tracked| {
            let Incident { signals, traffic, samples, .. } = &tracked.incident;
            size_of_val(&**signals) + size_of_val(&**traffic) + size_of_val(&**samples)
        });
        footprint += Footprint::of_tree(&self.due);
        footprint += Footprint::of_tree(&self.guards);
        footprint += Footprint::of_tree(&self.fired);
        footprint += Footprint::of_map(&self.policies);
        footprint += Footprint::of_map(&self.contacts);
        footprint
    }
}
