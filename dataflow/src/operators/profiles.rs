//! Profiles: every key's ordered fold over its windows of a minute, and the observations that may be a leak.
//!
//! ```text
//!  events by key ──► open minutes ──watermark──► one step a key and minute ──► observations, sums over keys ──► incidents
//!  owners, rows of keys, reports ──► facts ─────────────┘
//! ```
//! A minute is closed when the watermark passes its end and the grace, minutes in order. An event of a closed minute is
//! counted as late for the detector and changes nothing. Blocks of five minutes and of an hour that may show a burst are
//! judged at their end, so that silence delays nothing. Otherwise a key without calls isn't touched: its profile learns
//! the time in between at its next call.
//!
//! **Marks.** An open minute is judged 10, 20, 30, 40 and 50 seconds after its start, when the watermark passes the mark
//! and the grace, by the calls before the mark in event time. A key that is beyond doubt is observed early, once a minute.
//! What the watermark passes in one tick is judged in the order of event time: blocks, marks, minutes. So the result
//! doesn't depend on how ticks are cut.
//!
//! **Young keys.** Eight calls are too few to judge a key by. The first windows are kept as they are, in some 50 bytes
//! each. The ninth call makes a profile of 3 KiB of them, the same as if it had been there from the beginning. Until then
//! no network is told as new to the key. A key of which tables say something is judged from its first call on: a profile is
//! made of its windows whenever one is added. It is kept once it has a score, or once the tables say something else.
//!
//! **Room.** All observations go to one worker. So a mark, and a minute's end with the blocks that end then, has room for 64
//! keys of each bucket: hard facts first, then the highest odds. A key that is left out at a mark is judged at the minute's
//! end. One that is left out there is judged again at the end of the next minute, whether it is called or not, until it is
//! observed or its signals are over. How many keys fire at a mark is reported in full.
//!
//! The end of the input closes nothing: a minute that isn't over isn't judged because a job stops. Tables are read as of
//! the tick: changes come before the windows that the tick closes.
//!
//! Emits at a tick the observations of its windows, the sums over keys, and each network with the keys that it called
//! with, once in six hours. Remembers profiles until 90 days after the last call (swept when a
//! month begins), open minutes, and facts. Buckets of keys (`anonymous`, `overflow`, `conflicting`) have no profile.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use serde::{Deserialize, Serialize};

use super::parts::by_tick::Closing;
use super::parts::context::RowContext as _;
use super::parts::network_keys::NetworkCall;
use super::parts::open_minutes::{MARK_MS, OpenCalls, OpenMinute, merged};
use super::parts::owners::{OwnerChange, Owners};
use super::parts::report::{Crowd, Figures, Fired, Observation, Occasion, ProfileReport, evidence_value};
use super::parts::top_keys::{Rank, TopKeys};
use crate::action::{DecisionRow, KeyDecision};
use crate::detect::{
    Bits, Facts, LEAST_CALLS, ObservedSignal, Profile, SHARED_MOST, Severity, Signal, Stretch, Tuning,
    WINDOW_MS, Window, is_incident, may_have_hard_facts,
};
use crate::incident::{Point, Reason, Sample, Taken, UsualValue};
use crate::model::time::DAY_MS;
use crate::model::{
    AccessEvent, EventTime, KeyId, KeyKind, KeyPlace, KeyRow, KeyState, NameId, RouteId, TableChange,
    TableRow, TickInfo,
};
use crate::row::{Counts, Rows, Score};
use crate::state::{Durable, Footprint, KeyChain, NeededKeys, PartId, RowsOut, Shard, StateId};
use crate::window::Level;

/// The least calls of a key with a profile.
const GROWN_CALLS: u32 = 9;
/// How long after its last call a profile is forgotten.
const FORGOTTEN_MS: u64 = 90 * DAY_MS;
const SAMPLES: usize = 5;

/// The configuration of the detector's operators.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DetectorSettings {
    /// How long a window stays open behind the watermark.
    pub(crate) grace_ms: u64,
    /// If set, the scores of all windows are put out.
    pub(crate) scores: bool,
    pub(crate) tuning: Tuning,
}

/// A change of a key's owner or of its facts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum KeyChange {
    Owner(OwnerChange),
    /// A row of the table of keys, or a report.
    Row(TableChange),
    Decision(DecisionRow),
}

impl KeyChange {
    /// Returns the shard of its key.
    pub(crate) fn shard(&self) -> u64 {
        match self {
            Self::Owner(change) => change.0.0.shard(),
            Self::Row(change) => super::table_rows::shard(&change.row),
            Self::Decision(row) => row.key.shard(),
        }
    }
}

/// The facts that the tables have of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeyFacts {
    state: KeyState,
    contact: NameId,
    place: KeyPlace,
    facts: Facts,
    /// The source and the URL of the report of a leak.
    report: (NameId, NameId),
}

/// The first windows of a key, unjudged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Young {
    calls: u32,
    last_ms: EventTime,
    /// Each window's start and content, encoded by postcard.
    windows: Vec<u8>,
}

impl Young {
    /// Returns the profile that its windows make under these facts: one that begins at `start_ms` if there are none.
    fn profile(&self, start_ms: EventTime, facts: &Facts, tuning: &Tuning) -> Profile {
        let mut profile: Option<Profile> = None;
        let mut rest = &self.windows[..];
        while let Ok(((start_ms, window), after)) = postcard::take_from_bytes::<(EventTime, Window)>(rest) {
            rest = after;
            profile.get_or_insert_with(|| Profile::new(start_ms)).step(start_ms, &window, facts, tuning);
        }
        profile.unwrap_or_else(|| Profile::new(start_ms))
    }

    /// Returns false only if its profile wouldn't be [`suspect`](Profile::is_suspect) of these calls.
    fn may_be_suspect(&self, start_ms: EventTime, calls: u64, has_tor: bool, facts: &Facts) -> bool {
        calls >= LEAST_CALLS || may_have_hard_facts(self.last_ms, start_ms, has_tor, facts)
    }

    /// Appends a window. It is encoded in `encoded` first: so the key's memory grows once, and by no more than is needed.
    fn push(&mut self, start_ms: EventTime, window: &Window, encoded: &mut Vec<u8>) {
        self.calls += window.calls;
        self.last_ms = start_ms;
        loop {
            match postcard::to_slice(&(start_ms, window), encoded) {
                Ok(bytes) => {
                    self.windows.reserve_exact(bytes.len());
                    return self.windows.extend_from_slice(bytes);
                }
                Err(postcard::Error::SerializeBufferFull) => encoded.resize(2 * encoded.len() + 512, 0),
                Err(error) => panic!("a window is plain data in memory: encoding can't fail, but {error}"),
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum KeyHistory {
    Young(Young),
    Grown(Arc<Profile>),
}

impl KeyHistory {
    fn last_call_ms(&self) -> EventTime {
        match self {
            Self::Young(young) => young.last_ms,
            Self::Grown(profile) => profile.last_call_ms(),
        }
    }

    /// Returns the profile; if there is none yet, makes it of the first windows and the facts that they came under.
    fn grow(&mut self, start_ms: EventTime, facts: &Facts, tuning: &Tuning) -> &mut Profile {
        if let Self::Young(young) = self {
            *self = Self::Grown(Arc::new(young.profile(start_ms, facts, tuning)));
        }
        match self {
            Self::Grown(profile) => Arc::make_mut(profile),
            Self::Young(_) => unreachable!("it has just grown"),
        }
    }
}

/// The number of keys by the day of their last call, today and yesterday.
#[derive(Default)]
struct Active {
    days: BTreeMap<EventTime, i64>,
    reported: i64,
}

impl Active {
    fn called(&mut self, before_ms: Option<EventTime>, start_ms: EventTime) {
        let day = Level::Day.start(start_ms);
        let before = before_ms.map(|before_ms| Level::Day.start(before_ms));
        if before != Some(day) {
            if let Some(keys) = before.and_then(|before| self.days.get_mut(&before)) {
                *keys -= 1;
            }
            *self.days.entry(day).or_default() += 1;
        }
    }

    /// Returns by how much the number changed since the last report.
    fn change(&mut self, now_ms: EventTime) -> i64 {
        let yesterday = Level::Day.start(now_ms).saturating_sub(DAY_MS);
        self.days = self.days.split_off(&yesterday);
        let now: i64 = self.days.values().sum();
        now - std::mem::replace(&mut self.reported, now)
    }
}

/// The profiles of one worker's keys.
pub(crate) struct Profiles {
    settings: DetectorSettings,
    keys: HashMap<KeyId, KeyHistory>,
    /// Memory in which windows of young keys are encoded.
    encoded: Vec<u8>,
    open: BTreeMap<EventTime, OpenMinute>,
    /// An empty minute, whose memory the next one uses.
    spare: OpenMinute,
    /// The event time up to which windows are closed and marks are judged.
    passed_ms: EventTime,
    /// Keys with a block that is to be judged at its end, by that end.
    due: BTreeMap<EventTime, HashSet<KeyId>>,
    facts: HashMap<KeyId, Box<KeyFacts>>,
    owners: Owners,
    active: Active,
    /// The start of the month in which profiles were swept last.
    swept_ms: EventTime,
    /// Set after rows were restored, until `active` is derived from them.
    restored: bool,
    /// The keys whose histories changed since they were stored.
    chain: KeyChain<KeyId>,
}

/// The time and the occasion of an observation.
#[derive(Clone, Copy)]
struct Moment {
    /// Start of the window that was evaluated.
    window_ms: EventTime,
    at_ms: EventTime,
    occasion: Occasion,
}

impl Moment {
    fn end_of(window_ms: EventTime, occasion: Occasion) -> Self {
        Self { window_ms, at_ms: window_ms + WINDOW_MS, occasion }
    }
}

/// The output of a tick.
#[derive(Default)]
struct ProfilesOutput {
    reports: Vec<ProfileReport>,
    crowds: HashMap<NameId, Figures>,
    scores: Vec<Score>,
    networks: Vec<NetworkCall>,
    /// The observations of the moment that is judged.
    top: TopKeys<Observation>,
    /// Keys for which that moment had no room.
    left_out: Vec<KeyId>,
    late: u64,
    deferred: u64,
}

impl Profiles {
    pub(crate) fn new(settings: DetectorSettings) -> Self {
        Self {
            settings,
            keys: HashMap::new(),
            encoded: Vec::new(),
            open: BTreeMap::new(),
            spare: OpenMinute::default(),
            passed_ms: 0,
            due: BTreeMap::new(),
            facts: HashMap::new(),
            owners: Owners::default(),
            active: Active::default(),
            swept_ms: 0,
            restored: false,
            chain: KeyChain::new(),
        }
    }

    pub(crate) fn end_tick(
        state: &mut Self,
        batches: Vec<Rc<Vec<AccessEvent>>>,
        changes: Vec<Vec<KeyChange>>,
        closing: Closing<'_, ProfileReport>,
    ) {
        let info = closing.info;
        let mut out = ProfilesOutput::default();
        if std::mem::take(&mut state.restored) {
            for known in state.keys.values() {
                state.active.called(None, known.last_call_ms());
            }
            state.active.change(state.passed_ms);
        }
        state.learn(changes, info, &mut out);
        for batch in &batches {
            state.add(batch, &mut out);
        }
        state.pass(info.watermark.saturating_sub(state.settings.grace_ms), &mut out);
        if out.late + out.deferred > 0 {
            let (detector_late, detector_deferred) = (out.late, out.deferred);
            closing
                .output
                .counts(info.tick, Counts { detector_late, detector_deferred, ..Counts::default() });
        }
        if !out.scores.is_empty() {
            closing.output.rows(info.tick, Rows::Scores(std::mem::take(&mut out.scores)));
        }
        state.sweep(info.watermark);
        closing.downstream.push(out.reports);
    }

    /// Applies changes of owners and facts.
    fn learn(&mut self, changes: Vec<Vec<KeyChange>>, info: &TickInfo, out: &mut ProfilesOutput) {
        // Before the first event nobody knows what time it is but by the tick.
        let begun = info.watermark_before > 0;
        let now_ms = if begun { info.watermark_before } else { info.tick };
        let mut owners = Vec::new();
        let mut rows = Vec::new();
        let mut accepted = Vec::new();
        for changes in changes.into_iter().flatten() {
            match changes {
                KeyChange::Owner(change) => owners.push(change),
                KeyChange::Row(change) => rows.push(change),
                KeyChange::Decision(DecisionRow { key, decision: KeyDecision::Accept }) => accepted.push(key),
                KeyChange::Decision(_) => {}
            }
        }
        self.owners.apply(owners, false);
        rows.sort_by_key(|change| change.offset);
        // A key's rows are stated together, the last in force last: only that one says what is known of the key.
        let key_of = |change: &TableChange| match &change.row {
            TableRow::Key(row) => Some(row.key),
            TableRow::Subscription(_)
            | TableRow::Plan(_)
            | TableRow::Leak(_)
            | TableRow::Quota(_)
            | TableRow::Price(_)
            | TableRow::Token(_) => None,
        };
        let keys = rows.iter().enumerate().filter_map(|(index, change)| Some((key_of(change)?, index)));
        let last: HashMap<KeyId, usize> = keys.collect();
        for (index, change) in rows.into_iter().enumerate() {
            match change.row {
                TableRow::Key(row) => {
                    let key = row.key;
                    if last.get(&key) != Some(&index) {
                        continue;
                    }
                    self.change(key, now_ms, out, |facts| facts.take_row(row, change.deleted, now_ms));
                }
                TableRow::Leak(row) => {
                    let key = row.key;
                    let before = self.facts.get(&key).and_then(|facts| facts.facts.reported_ms);
                    let since_ms = row.reported_at.or(before).unwrap_or(info.watermark_before);
                    self.change(key, now_ms, out, |facts| {
                        facts.facts.reported_ms = (!change.deleted).then_some(since_ms);
                        facts.report =
                            if change.deleted { Default::default() } else { (row.source, row.url) };
                    });
                    if !change.deleted && begun && before != Some(since_ms) {
                        self.report(key, Level::Minute.start(now_ms), out);
                    }
                }
                TableRow::Subscription(_)
                | TableRow::Plan(_)
                | TableRow::Quota(_)
                | TableRow::Price(_)
                | TableRow::Token(_) => {}
            }
        }
        accepted.into_iter().for_each(|key| self.accept(key, now_ms, out));
    }

    /// Takes what a key does for normal, and reconsiders its signals.
    fn accept(&mut self, key: KeyId, now_ms: EventTime, out: &mut ProfilesOutput) {
        let known_keys = self.keys.len();
        let Some(known) = self.keys.get_mut(&key) else { return };
        let facts = self.facts.get(&key);
        if facts.is_none() && matches!(known, KeyHistory::Young(_)) {
            return;
        }
        self.chain.mark(key, known_keys);
        let nothing = Facts::default();
        let facts = facts.map_or(&nothing, |facts| &facts.facts);
        let profile = known.grow(now_ms, facts, &self.settings.tuning);
        profile.accept(&self.settings.tuning);
        let moment = reconsidered(profile, now_ms, Reason::Accepted);
        self.observe(key, moment, out);
    }

    /// Changes the facts of a key, and reconsiders its signals.
    fn change(
        &mut self,
        key: KeyId,
        now_ms: EventTime,
        out: &mut ProfilesOutput,
        action: impl FnOnce(&mut KeyFacts),
    ) {
        let entry = self.facts.entry(key).or_default();
        let before = entry.clone();
        action(entry);
        let after = entry.clone();
        if *after == KeyFacts::default() {
            self.facts.remove(&key);
        }
        let (old, new) = (&before.facts, &after.facts);
        if old == new {
            return;
        }
        let reason = match () {
            () if new.publishable && !old.publishable => Reason::Publishable,
            () if old.revoked_ms.is_some() && new.revoked_ms.is_none() => Reason::Active,
            () if old.reported_ms.is_some() && new.reported_ms.is_none() => Reason::Unreported,
            () => Reason::Allowed,
        };
        let known_keys = self.keys.len();
        let tuning = &self.settings.tuning;
        let Some(known) = self.keys.get_mut(&key) else { return };
        // A key that was used lately isn't dormant, and no window of it was judged by when it was used before.
        let is_used = Facts { last_used_ms: old.last_used_ms, ..new.clone() } == *old
            && new.last_used_ms >= old.last_used_ms;
        if is_used && matches!(known, KeyHistory::Young(_)) {
            return;
        }
        self.chain.mark(key, known_keys);
        let profile = known.grow(now_ms, old, tuning);
        if profile.reconsider(new, tuning) {
            let moment = reconsidered(profile, now_ms, reason);
            self.observe(key, moment, out);
        }
    }

    /// Observes a key for which a leak was reported: if it has calls or a row, that is an incident without a further call.
    fn report(&mut self, key: KeyId, now_ms: EventTime, out: &mut ProfilesOutput) {
        if key.is_bucket() || !(self.keys.contains_key(&key) || self.owners.has_row(key)) {
            return;
        }
        let Some(facts) = self.facts.get(&key) else { return };
        self.chain.mark(key, self.keys.len());
        let known = self.keys.entry(key).or_insert_with(|| KeyHistory::Young(Young::default()));
        let profile = known.grow(now_ms, &facts.facts, &self.settings.tuning);
        profile.report(
            now_ms.max(profile.next_ms().saturating_sub(WINDOW_MS)),
            &facts.facts,
            &self.settings.tuning,
        );
        if profile.verdict().severity >= Severity::Alert {
            self.observe(key, Moment::end_of(now_ms, Occasion::Closed), out);
        }
    }

    /// Adds events, which are in the order of their keys, to open minutes.
    fn add(&mut self, batch: &[AccessEvent], out: &mut ProfilesOutput) {
        for run in batch.chunk_by(|a, b| a.key == b.key && minute(a) == minute(b)) {
            let (key, start_ms) = (run[0].key, minute(&run[0]));
            if key.is_bucket() {
                continue;
            }
            if start_ms + WINDOW_MS <= self.passed_ms {
                out.late += run.len() as u64;
                continue;
            }
            let allowed = match self.facts.is_empty() {
                true => &[][..],
                false => self.facts.get(&key).map_or(&[][..], |facts| &facts.facts.allowed),
            };
            let Self { open, spare, .. } = self;
            let calls = open.entry(start_ms).or_insert_with(|| std::mem::take(spare)).of(key);
            run.iter().for_each(|event| calls.slice(event.time).add(event, allowed));
        }
    }

    /// Judges what the watermark passed, in the order of event time: blocks, marks of open minutes, minutes.
    fn pass(&mut self, passed_ms: EventTime, out: &mut ProfilesOutput) {
        let begun_ms = self.passed_ms;
        while let Some(start_ms) = self.open.keys().next().copied().filter(|start_ms| *start_ms < passed_ms) {
            self.advance_to(start_ms, out);
            // Blocks that ended before the minute come before its marks.
            self.close_blocks(start_ms, out);
            let end_ms = start_ms + WINDOW_MS;
            for mark_ms in (start_ms + MARK_MS..end_ms).step_by(MARK_MS as usize) {
                if (begun_ms + 1..=passed_ms).contains(&mark_ms) {
                    self.judge_open(start_ms, mark_ms, out);
                }
            }
            if end_ms > passed_ms {
                break;
            }
            self.close_minute(start_ms, out);
            self.passed_ms = end_ms;
        }
        self.close_blocks(passed_ms, out);
        self.advance_to(passed_ms, out);
    }

    /// Reports at each midnight until then the keys that weren't called for a day, on every worker, open minutes or not.
    fn advance_to(&mut self, until_ms: EventTime, out: &mut ProfilesOutput) {
        let first_ms = Level::Day.start(self.passed_ms) + DAY_MS;
        // After two midnights without calls no key is active.
        for midnight_ms in (first_ms..=until_ms).step_by(DAY_MS as usize).take(2) {
            self.report_active(midnight_ms, out);
        }
        self.passed_ms = self.passed_ms.max(until_ms);
    }

    fn report_active(&mut self, at_ms: EventTime, out: &mut ProfilesOutput) {
        let change = self.active.change(at_ms);
        if change != 0 {
            out.reports.push(ProfileReport::Active { at_ms, change });
        }
    }

    fn close_minute(&mut self, start_ms: EventTime, out: &mut ProfilesOutput) {
        let Some(mut minute) = self.open.remove(&start_ms) else { return };
        for (key, calls) in &mut minute.keys {
            if let Some(window) = calls.whole() {
                self.step(*key, start_ms, window, out);
            }
        }
        let end_ms = start_ms + WINDOW_MS;
        // Blocks that end with the minute share its room.
        if let Some(keys) = self.due.remove(&end_ms) {
            self.close_blocks_of(keys, end_ms, out);
        }
        self.end_moment(end_ms, out);
        minute.clear();
        self.spare = minute;
        out.reports.extend(out.crowds.drain().map(|(plan, figures)| {
            ProfileReport::Crowd(Box::new(Crowd { window_ms: start_ms, plan, figures }))
        }));
        if !out.networks.is_empty() {
            let calls = std::mem::take(&mut out.networks);
            out.reports.push(ProfileReport::Networks { at_ms: end_ms, calls });
        }
        self.report_active(end_ms, out);
    }

    /// Judges the blocks that end by then.
    fn close_blocks(&mut self, passed_ms: EventTime, out: &mut ProfilesOutput) {
        while let Some(first) = self.due.first_entry().filter(|first| *first.key() <= passed_ms) {
            let (end_ms, keys) = first.remove_entry();
            self.close_blocks_of(keys, end_ms, out);
            self.end_moment(end_ms, out);
        }
    }

    /// Judges those keys at the end of their blocks, unless they were judged with a minute that ended then.
    fn close_blocks_of(&mut self, keys: HashSet<KeyId>, end_ms: EventTime, out: &mut ProfilesOutput) {
        let known_keys = self.keys.len();
        let tuning = &self.settings.tuning;
        let nothing = Facts::default();
        for key in keys {
            let Some(known) = self.keys.get_mut(&key) else { continue };
            let mut of_young;
            let (profile, is_young) = match known {
                KeyHistory::Grown(profile) => (Arc::make_mut(profile), false),
                KeyHistory::Young(young) => {
                    let facts = self.facts.get(&key).map_or(&nothing, |facts| &facts.facts);
                    of_young = young.profile(end_ms, facts, tuning);
                    (&mut of_young, true)
                }
            };
            if profile.next_ms() >= end_ms {
                continue;
            }
            profile.close(end_ms, tuning);
            for later_ms in profile.ends_worth_asking() {
                self.due.entry(later_ms).or_default().insert(key);
            }
            let is_alarming = is_incident(profile.verdict().severity, profile.observed());
            if is_young {
                if profile.verdict().score() == 0 {
                    continue;
                }
                *known = KeyHistory::Grown(Arc::new(profile.clone()));
            }
            self.chain.mark(key, known_keys);
            if is_alarming {
                self.offer(key, Moment::end_of(end_ms - WINDOW_MS, Occasion::Closed), None, out);
            }
        }
    }

    /// Reports the observations of a minute's end. Keys for which it had no room are judged again a minute later.
    fn end_moment(&mut self, end_ms: EventTime, out: &mut ProfilesOutput) {
        for key in out.report_top() {
            let alarms = |profile: &Profile| is_incident(profile.verdict().severity, profile.observed());
            if self.grown(key).is_some_and(alarms) {
                self.due.entry(end_ms + WINDOW_MS).or_default().insert(key);
            }
        }
    }

    fn step(&mut self, key: KeyId, start_ms: EventTime, window: &Window, out: &mut ProfilesOutput) {
        self.chain.mark(key, self.keys.len());
        let Self { settings, keys, encoded, facts, owners, active, due, .. } = self;
        let tuning = &settings.tuning;
        let known = keys.entry(key);
        let before_ms = match &known {
            hashbrown::hash_map::Entry::Occupied(known) => Some(known.get().last_call_ms()),
            hashbrown::hash_map::Entry::Vacant(_) => None,
        };
        active.called(before_ms.filter(|before_ms| *before_ms > 0), start_ms);
        let known = known.or_insert_with(|| KeyHistory::Young(Young::default()));
        let facts = facts.get(&key).map(|facts| &facts.facts);
        let is_young = match known {
            KeyHistory::Young(young) => {
                young.calls.saturating_add(window.calls) < GROWN_CALLS && window.tor == 0
            }
            KeyHistory::Grown(_) => false,
        };
        if let KeyHistory::Young(young) = known
            && is_young
            && facts.is_none()
        {
            // Nobody is new to a key of which so little is known.
            let customer = owners.at(key, start_ms).customer;
            let call = |(network, _): &(u64, u32)| {
                let client = first_client(window, *network);
                NetworkCall { network: *network, key, customer, is_new: false, client }
            };
            out.networks.extend(window.values.networks.values().iter().map(call));
            young.push(start_ms, window, encoded);
            return;
        }
        let nothing = Facts::default();
        let facts = facts.unwrap_or(&nothing);
        let mut of_young;
        let profile = match known {
            KeyHistory::Young(young) if is_young => {
                of_young = young.profile(start_ms, facts, tuning);
                &mut of_young
            }
            _ => known.grow(start_ms, facts, tuning),
        };
        let judged = profile.step(start_ms, window, facts, tuning);
        for end_ms in profile.ends_worth_asking() {
            due.entry(end_ms).or_default().insert(key);
        }
        let verdict = profile.verdict();
        if settings.scores && verdict.score() > 0 {
            out.scores.push(Score { key, window_ms: start_ms, verdict });
        }
        // Other keys of a new network may make an alert of it.
        let may_share = judged.networks.iter().any(|(_, is_new)| *is_new)
            && verdict.odds >= tuning.alert - i64::from(SHARED_MOST);
        let is_alarming = is_incident(verdict.severity, profile.observed()) || may_share;
        if is_young {
            let grown = (is_alarming || verdict.score() > 0).then(|| Arc::new(profile.clone()));
            match (known, grown) {
                (known, Some(profile)) => *known = KeyHistory::Grown(profile),
                (KeyHistory::Young(young), None) => young.push(start_ms, window, encoded),
                (KeyHistory::Grown(_), None) => {}
            }
        }
        let owner = owners.at(key, start_ms);
        let customer = owner.customer;
        let call = |(network, is_new): &(u64, bool)| {
            let client = first_client(window, *network);
            NetworkCall { network: *network, key, customer, is_new: *is_new, client }
        };
        out.networks.extend(judged.networks.iter().map(call));
        let plan = owner.plan;
        out.crowds.entry(NameId::NONE).or_default().add(&judged);
        if plan.is_some() {
            out.crowds.entry(plan).or_default().add(&judged);
        }
        if is_alarming {
            self.offer(key, Moment::end_of(start_ms, Occasion::Closed), Some(window), out);
        }
    }

    /// Judges an open minute by its calls before a mark. Each key that is beyond doubt is observed once.
    fn judge_open(&mut self, start_ms: EventTime, mark_ms: EventTime, out: &mut ProfilesOutput) {
        let Some(mut minute) = self.open.remove(&start_ms) else { return };
        let moment = Moment { window_ms: start_ms, at_ms: mark_ms, occasion: Occasion::Early };
        let nothing = Facts::default();
        let mut fired: BTreeMap<NameId, u64> = BTreeMap::new();
        for (key, calls) in minute.keys.iter_mut().filter(|(_, calls)| !calls.fired) {
            let Some(slices) = calls.new_before(mark_ms) else { continue };
            let of_key = (!self.facts.is_empty()).then(|| self.facts.get(key)).flatten();
            // Profiles are looked up only where there is a burst, or where a hard fact may be.
            let sum: u64 = slices.iter().map(|(_, window)| u64::from(window.calls)).sum();
            let is_first = slices.len() == 1;
            let has_tor = slices.iter().any(|(_, window)| window.tor > 0);
            if sum < LEAST_CALLS && !is_first && of_key.is_none() && !has_tor {
                continue;
            }
            let mut of_young = None;
            let profile = match (self.keys.get(key), of_key) {
                (Some(KeyHistory::Grown(profile)), _) => &**profile,
                (Some(KeyHistory::Young(young)), Some(of_key))
                    if young.may_be_suspect(start_ms, sum, has_tor, &of_key.facts) =>
                {
                    of_young.insert(young.profile(start_ms, &of_key.facts, &self.settings.tuning))
                }
                _ => continue,
            };
            let of_key = of_key.map_or(&nothing, |facts| &facts.facts);
            if start_ms < profile.next_ms() || !profile.is_suspect(start_ms, sum, has_tor, of_key) {
                continue;
            }
            // Slices are added up only where something may come of it.
            let window = merged(slices);
            if !profile.may_fire(start_ms, &window, of_key) {
                continue;
            }
            let Some(profile) = profile.early(start_ms, &window, of_key, &self.settings.tuning) else {
                continue;
            };
            let plan = self.owners.at(*key, start_ms).plan;
            for plan in [NameId::NONE, plan].into_iter().take(1 + usize::from(plan.is_some())) {
                *fired.entry(plan).or_default() += 1;
            }
            let make = || self.observation(*key, &profile, moment, Some(&window));
            out.left_out.extend(out.top.add(Rank::new(*key, &profile), make));
            calls.fired = true;
        }
        self.open.insert(start_ms, minute);
        out.reports.extend(fired.into_iter().map(|(plan, keys)| {
            ProfileReport::Fired(Fired { at_ms: mark_ms, window_ms: start_ms, plan, keys })
        }));
        // The minute's end judges those that were left out.
        out.report_top();
    }

    fn grown(&self, key: KeyId) -> Option<&Profile> {
        match self.keys.get(&key)? {
            KeyHistory::Grown(profile) => Some(profile),
            KeyHistory::Young(_) => None,
        }
    }

    /// Observes a key, whatever else is observed.
    fn observe(&self, key: KeyId, moment: Moment, out: &mut ProfilesOutput) {
        let Some(profile) = self.grown(key) else { return };
        out.reports.push(ProfileReport::Observed(Box::new(self.observation(key, profile, moment, None))));
    }

    /// Observes a key if the moment has room for it.
    fn offer(&self, key: KeyId, moment: Moment, window: Option<&Window>, out: &mut ProfilesOutput) {
        let Some(profile) = self.grown(key) else { return };
        let make = || self.observation(key, profile, moment, window);
        out.left_out.extend(out.top.add(Rank::new(key, profile), make));
    }

    fn observation(
        &self,
        key: KeyId,
        profile: &Profile,
        moment: Moment,
        window: Option<&Window>,
    ) -> Observation {
        let Moment { window_ms, at_ms, occasion } = moment;
        let facts = self.facts.get(&key);
        let point = |stretch: Stretch| Point {
            start_ms: stretch.start_ms,
            calls: stretch.calls,
            expected: stretch.expected,
        };
        let is_new = |network| {
            profile.observed().iter().any(|one| one.signal == Signal::Network && one.value == network)
        };
        let mut samples: Vec<_> = window.map_or(&[][..], |window| &window.samples).to_vec();
        samples.sort_by_key(|(network, _)| (!is_new(*network), *network));
        let strangers = samples.iter().filter(|(network, _)| is_new(*network));
        let strangers = strangers.map(|(network, sighting)| (*network, sighting.client)).collect();
        let samples = samples.into_iter().take(SAMPLES).map(|(_, sighting)| Sample {
            position: sighting.position,
            time: sighting.time,
            client: sighting.client,
            status: sighting.status,
        });
        Observation {
            at_ms,
            key,
            occasion,
            window_ms,
            calls: window.map_or(0, |window| window.calls.into()),
            taken: taken(profile, window),
            usual: profile.usual().filter_map(usual).collect(),
            observed: profile.observed().to_vec(),
            is_well_known: profile.is_well_known(),
            owner: self.owners.at(key, window_ms),
            key_state: self.owners.has_row(key).then(|| facts.map_or(KeyState::Active, |facts| facts.state)),
            contact: facts.map_or(NameId::NONE, |facts| facts.contact),
            place: facts.map_or_else(KeyPlace::default, |facts| facts.place),
            report: facts.map_or((NameId::NONE, NameId::NONE), |facts| facts.report),
            traffic: profile.traffic().into_iter().map(point).collect(),
            samples: samples.collect(),
            strangers,
            known_since_ms: profile.first_ms(),
            known_calls: profile.known_calls(),
        }
    }

    /// Forgets profiles without calls for 90 days, when a month begins.
    fn sweep(&mut self, watermark: EventTime) {
        let month = Level::Month.start(watermark);
        if std::mem::replace(&mut self.swept_ms, month) == month {
            return;
        }
        self.chain.mark_all();
        self.keys.retain(|_, known| known.last_call_ms() + FORGOTTEN_MS >= month);
        self.keys.shrink_to_fit();
    }
}

impl ProfilesOutput {
    /// Reports the observations of a moment that is over. Returns the keys for which it had no room.
    fn report_top(&mut self) -> Vec<KeyId> {
        let top = self.top.take().map(|observation| ProfileReport::Observed(Box::new(observation)));
        self.reports.extend(top);
        self.deferred += self.left_out.len() as u64;
        std::mem::take(&mut self.left_out)
    }
}

impl KeyFacts {
    /// Applies a row of the table of keys.
    fn take_row(&mut self, row: KeyRow, deleted: bool, now_ms: EventTime) {
        if deleted {
            *self = Self {
                // A key that was revoked isn't good again because its rows are gone.
                facts: Facts {
                    reported_ms: self.facts.reported_ms,
                    revoked_ms: self.facts.revoked_ms,
                    ..Facts::default()
                },
                report: self.report,
                ..Self::default()
            };
            return;
        }
        let revoked_before = self.facts.revoked_ms;
        let is_revoked = row.state == KeyState::Revoked;
        *self = Self {
            state: row.state,
            contact: row.contact,
            place: row.place,
            facts: Facts {
                revoked_ms: is_revoked.then(|| row.revoked_at.or(revoked_before).unwrap_or(now_ms)),
                last_used_ms: row.last_used_at,
                publishable: row.kind == KeyKind::Publishable,
                reported_ms: self.facts.reported_ms,
                allowed: row.allowed,
            },
            report: self.report,
        };
    }
}

/// Returns the moment at which the signals of a profile are reconsidered.
fn reconsidered(profile: &Profile, now_ms: EventTime, reason: Reason) -> Moment {
    let window_ms = profile.next_ms().max(Level::Minute.start(now_ms)).saturating_sub(WINDOW_MS);
    Moment::end_of(window_ms, Occasion::Reconsidered(reason))
}

/// Returns the address of the first call of a network in a window; 0 if there is no sample of it.
fn first_client(window: &Window, network: u64) -> u128 {
    let at = window.samples.binary_search_by_key(&network, |sample| sample.0);
    at.map_or(0, |at| window.samples[at].1.client)
}

/// Returns what the calls of a window asked for and got, and how many of them are from a new place or agent.
fn taken(profile: &Profile, window: Option<&Window>) -> Taken {
    let is_new = |one: &&ObservedSignal| {
        let kind = one.signal;
        matches!(kind, Signal::Country | Signal::Asn | Signal::Network | Signal::Agent)
            && one.value != 0
            && one.counted > Bits::NONE
    };
    // Values of a call overlap, so the value with most calls stands for all.
    let newest = profile.observed().iter().filter(is_new).max_by_key(|one| (one.total, one.others));
    let (from_new, usual) = newest.map_or((0, 0), |one| (one.total.into(), one.others.into()));
    let Some(window) = window else { return Taken { from_new, usual, ..Taken::default() } };
    let statuses = window.statuses.values().iter().map(|(status, calls)| (*status as u16, u64::from(*calls)));
    let routes =
        window.values.routes.values().iter().map(|(route, calls)| (RouteId(*route), u64::from(*calls)));
    Taken {
        from_new,
        usual,
        bytes_out: window.bytes_out,
        statuses: statuses.collect(),
        routes: routes.collect(),
    }
}

fn usual((kind, value, share): (Signal, u64, u64)) -> Option<UsualValue> {
    Some(UsualValue { value: evidence_value(kind, value)?, share })
}

fn minute(event: &AccessEvent) -> EventTime {
    Level::Minute.start(event.time)
}

/// The state as rows. Active keys and owners are derived from other rows.
#[derive(Serialize, Deserialize)]
#[allow(clippy::large_enum_variant, reason = "one row at a time exists, on the stack")]
pub(crate) enum ProfilesStateRow<'a> {
    Key(KeyId, Cow<'a, KeyHistory>),
    Open(EventTime, KeyId, Cow<'a, OpenCalls>),
    Facts(KeyId, Box<KeyFacts>),
    Due(EventTime, KeyId),
    /// The event time that was passed, and the month of the last sweep; the same on every worker.
    Times(EventTime, EventTime),
}

impl Durable for Profiles {
    const ID: StateId = StateId::Profiles;
    type Row<'a> = ProfilesStateRow<'a>;

    fn rows_out(&mut self, out: &mut dyn RowsOut<Self>) {
        // Histories change when minutes close, so not between every two snapshots.
        let needed: Box<dyn Iterator<Item = (&KeyId, &KeyHistory)>> =
            match self.chain.begin(out, self.keys.len()) {
                NeededKeys::All => Box::new(self.keys.iter()),
                NeededKeys::These(keys) => {
                    Box::new(keys.into_iter().filter_map(|key| self.keys.get_key_value(&key)))
                }
            };
        let mut grown = Vec::new();
        for (key, known) in needed {
            match known {
                KeyHistory::Young(_) => out.row(ProfilesStateRow::Key(*key, Cow::Borrowed(known))),
                KeyHistory::Grown(_) => grown.push((*key, known.clone())),
            }
        }
        if !grown.is_empty() {
            out.later(Box::new(move |out| {
                for (key, known) in &grown {
                    out.row(ProfilesStateRow::Key(*key, Cow::Borrowed(known)));
                }
            }));
        }
        out.part(PartId::Rest, 0);
        for (start_ms, minute) in &self.open {
            for (key, open) in &minute.keys {
                out.row(ProfilesStateRow::Open(*start_ms, *key, Cow::Borrowed(open)));
            }
        }
        self.facts.iter().for_each(|(key, facts)| out.row(ProfilesStateRow::Facts(*key, facts.clone())));
        for (end_ms, keys) in &self.due {
            keys.iter().for_each(|key| out.row(ProfilesStateRow::Due(*end_ms, *key)));
        }
        out.row(ProfilesStateRow::Times(self.passed_ms, self.swept_ms));
    }

    fn expect_rows(&mut self, part: PartId, rows: usize) {
        self.chain.expect(part, rows);
        if part == (PartId::Keys { link: 0 }) {
            self.keys.reserve(rows);
        }
    }

    fn row_in(&mut self, row: ProfilesStateRow<'static>) {
        self.restored = true;
        match row {
            ProfilesStateRow::Key(key, known) => {
                self.keys.insert(key, known.into_owned());
            }
            ProfilesStateRow::Open(start_ms, key, open) => {
                *self.open.entry(start_ms).or_default().of(key) = open.into_owned();
            }
            ProfilesStateRow::Facts(key, facts) => {
                self.facts.insert(key, facts);
            }
            ProfilesStateRow::Due(end_ms, key) => {
                self.due.entry(end_ms).or_default().insert(key);
            }
            ProfilesStateRow::Times(passed_ms, swept_ms) => {
                (self.passed_ms, self.swept_ms) = (passed_ms, swept_ms)
            }
        }
    }

    fn shard(row: &ProfilesStateRow<'static>) -> Shard {
        match row {
            ProfilesStateRow::Key(key, _)
            | ProfilesStateRow::Open(_, key, _)
            | ProfilesStateRow::Facts(key, _)
            | ProfilesStateRow::Due(_, key) => Shard::Of(key.shard()),
            ProfilesStateRow::Times(..) => Shard::All,
        }
    }

    fn footprint(&self) -> Footprint {
        let mut footprint = Footprint::of_map_with(&self.keys, |known| match known {
            KeyHistory::Young(young) => young.windows.capacity(),
            KeyHistory::Grown(profile) => size_of::<Profile>() + profile.owned_bytes(),
        });
        footprint += Footprint::of_map_with(&self.facts, |facts| {
            size_of::<KeyFacts>() + size_of_val(&*facts.facts.allowed)
        });
        for minute in self.open.values() {
            footprint += minute.footprint();
        }
        footprint += self.due.values().map(Footprint::of_set).sum();
        // Memory, but no rows: others hold them.
        footprint.bytes += self.owners.footprint().bytes + self.chain.bytes();
        footprint
    }
}
