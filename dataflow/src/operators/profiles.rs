//! Profiles: every key's ordered fold over its windows of a minute, and what it observes that may be a leak.
//!
//! ```text
//!  events by key ──► open minutes ──watermark──► one step a key and minute ──► observations, sums over keys ──► incidents
//!  owners, rows of keys, reports ──► facts ─────────────┘
//! ```
//! A minute is closed when the watermark passes its end and the grace, minutes in order; an event of a closed minute is
//! counted as late for the detector and changes nothing. Blocks whose calls may say something are asked for at their
//! end, so that silence delays nothing. Nothing else touches a key that isn't called: what passed in between is learned
//! at its next call.
//!
//! What a key does before its ninth call says next to nothing. So the first windows are kept as they are, in some 50
//! bytes each, and a profile of 3 KiB is made of them with the ninth call, or when the tables know something of the key:
//! with the same result as if it had been there from the beginning.
//!
//! The end of the input closes nothing: a minute that isn't over isn't judged because a job stops.
//!
//! Tables are read as of the tick: changes come before the windows that the tick closes. An open window that is beyond
//! doubt fires once, in the tick that made it so.
//!
//! Emits at a tick what its windows say; remembers profiles until 90 days after the last call (swept when a month
//! begins), open minutes, and facts. Buckets of keys (`anonymous`, `overflow`, `conflicting`) have no profile.

use std::collections::BTreeMap;
use std::rc::Rc;

use hashbrown::{HashMap, HashSet};
use serde::{Deserialize, Serialize};

use super::parts::by_tick::Closing;
use super::parts::context::RowContext as _;
use super::parts::open_minutes::{MARK_MS, OpenCalls, OpenMinute};
use super::parts::owners::{OwnerChange, Owners};
use super::parts::report::{Crowd, Figures, Observation, Occasion, ProfileReport};
use crate::detect::{Facts, Profile, Severity, Signal, Stretch, Tuning, WINDOW_MS, Window};
use crate::incident::{Point, Reason, Sample};
use crate::model::time::DAY_MS;
use crate::model::{
    AccessEvent, EventTime, KeyId, KeyKind, KeyRow, KeyState, NameId, TableChange, TableRow, TickInfo,
};
use crate::row::{Counts, Rows, Score};
use crate::state::{Durable, Footprint, Shard, StateId};
use crate::window::Level;

/// An open minute of fewer calls is no burst.
const LEAST_CALLS: u64 = 10;
/// Calls from which a key has a profile.
const GROWN_CALLS: u32 = 9;
/// A profile is forgotten so long after the last call.
const FORGOTTEN_MS: u64 = 90 * DAY_MS;
const SAMPLES: usize = 5;

/// What the operators of the detector are configured by.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Settings {
    /// How long a window stays open behind the watermark.
    pub(crate) grace_ms: u64,
    /// Whether the scores of all windows are put out.
    pub(crate) scores: bool,
    pub(crate) tuning: Tuning,
}

/// What the operator is told beside events.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum News {
    Owner(OwnerChange),
    /// A row of the table of keys, or a report.
    Row(TableChange),
}

impl News {
    /// Where it belongs.
    pub(crate) fn shard(&self) -> u64 {
        match self {
            Self::Owner(change) => change.0.0.shard(),
            Self::Row(change) => super::table_rows::shard(&change.row),
        }
    }
}

/// What the tables say of a key beyond that it is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeyFacts {
    state: KeyState,
    contact: NameId,
    facts: Facts,
    /// Who found it, and where.
    report: (NameId, NameId),
}

/// The first windows of a key, as they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Young {
    calls: u32,
    last_ms: EventTime,
    /// Of each window its start and its content, encoded.
    windows: Vec<u8>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Known {
    Young(Young),
    Grown(Box<Profile>),
}

impl Known {
    fn last_call_ms(&self) -> EventTime {
        match self {
            Self::Young(young) => young.last_ms,
            Self::Grown(profile) => profile.last_call_ms(),
        }
    }

    /// The profile, if need be made of the first windows.
    fn grow(&mut self, start_ms: EventTime, tuning: &Tuning) -> &mut Profile {
        if let Self::Young(young) = self {
            let mut profile: Option<Profile> = None;
            let mut rest = &young.windows[..];
            while let Ok(((start_ms, window), after)) = postcard::take_from_bytes::<(EventTime, Window)>(rest)
            {
                rest = after;
                profile.get_or_insert_with(|| Profile::new(start_ms)).step(
                    start_ms,
                    &window,
                    &Facts::default(),
                    tuning,
                );
            }
            *self = Self::Grown(Box::new(profile.unwrap_or_else(|| Profile::new(start_ms))));
        }
        match self {
            Self::Grown(profile) => profile,
            Self::Young(_) => unreachable!("it has just grown"),
        }
    }
}

/// Keys by the day of their last call: of today and yesterday.
#[derive(Default)]
struct Active {
    days: BTreeMap<EventTime, i64>,
    told: i64,
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

    /// By how much the number changed since it was last asked for.
    fn change(&mut self, now_ms: EventTime) -> i64 {
        let yesterday = Level::Day.start(now_ms).saturating_sub(DAY_MS);
        self.days = self.days.split_off(&yesterday);
        let now: i64 = self.days.values().sum();
        now - std::mem::replace(&mut self.told, now)
    }
}

/// Profiles of keys on one worker.
pub(crate) struct Profiles {
    settings: Settings,
    keys: HashMap<KeyId, Known>,
    open: BTreeMap<EventTime, OpenMinute>,
    /// Empty, for the next minute.
    spare: OpenMinute,
    /// The event time up to which windows are closed and marks are judged.
    passed_ms: EventTime,
    /// Keys whose blocks are to be asked for, by the blocks' end.
    due: BTreeMap<EventTime, HashSet<KeyId>>,
    facts: HashMap<KeyId, Box<KeyFacts>>,
    owners: Owners,
    active: Active,
    /// The month in which profiles were swept last.
    swept_ms: EventTime,
    /// Rows were taken back, and who is active isn't derived from them yet.
    restored: bool,
}

/// When a key is observed, and why.
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

/// What a tick says.
#[derive(Default)]
struct Said {
    reports: Vec<ProfileReport>,
    crowds: HashMap<NameId, Figures>,
    scores: Vec<Score>,
    late: u64,
}

impl Profiles {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            keys: HashMap::new(),
            open: BTreeMap::new(),
            spare: OpenMinute::default(),
            passed_ms: 0,
            due: BTreeMap::new(),
            facts: HashMap::new(),
            owners: Owners::default(),
            active: Active::default(),
            swept_ms: 0,
            restored: false,
        }
    }

    pub(crate) fn close(
        state: &mut Self,
        batches: Vec<Rc<Vec<AccessEvent>>>,
        news: Vec<Vec<News>>,
        closing: Closing<'_, ProfileReport>,
    ) {
        let info = closing.info;
        let mut said = Said::default();
        if std::mem::take(&mut state.restored) {
            for known in state.keys.values() {
                state.active.called(None, known.last_call_ms());
            }
            state.active.change(state.passed_ms);
        }
        state.learn(news, info, &mut said);
        for batch in &batches {
            state.add(batch, &mut said);
        }
        state.pass(info.watermark.saturating_sub(state.settings.grace_ms), &mut said);
        if said.late > 0 {
            closing.output.counts(info.tick, Counts { detector_late: said.late, ..Counts::default() });
        }
        if !said.scores.is_empty() {
            closing.output.rows(info.tick, Rows::Scores(std::mem::take(&mut said.scores)));
        }
        state.sweep(info.watermark);
        closing.downstream.push(said.reports);
    }

    /// Takes in owners and facts.
    fn learn(&mut self, news: Vec<Vec<News>>, info: &TickInfo, said: &mut Said) {
        // Before the first event nobody knows what time it is but by the tick.
        let begun = info.watermark_before > 0;
        let now_ms = if begun { info.watermark_before } else { info.tick };
        let mut owners = Vec::new();
        let mut rows = Vec::new();
        for news in news.into_iter().flatten() {
            match news {
                News::Owner(change) => owners.push(change),
                News::Row(change) => rows.push(change),
            }
        }
        self.owners.apply(owners, false);
        rows.sort_by_key(|change| change.offset);
        // A key's rows are stated together, the last in force last: only that one says what is known of the key.
        let key_of = |change: &TableChange| match &change.row {
            TableRow::Key(row) => Some(row.key),
            TableRow::Subscription(_) | TableRow::Plan(_) | TableRow::Leak(_) => None,
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
                    self.change(key, now_ms, said, |facts| facts.take_row(row, change.deleted, now_ms));
                }
                TableRow::Leak(row) => {
                    let key = row.key;
                    let before = self.facts.get(&key).and_then(|facts| facts.facts.reported_ms);
                    let since_ms = row.reported_at.or(before).unwrap_or(info.watermark_before);
                    self.change(key, now_ms, said, |facts| {
                        facts.facts.reported_ms = (!change.deleted).then_some(since_ms);
                        facts.report =
                            if change.deleted { Default::default() } else { (row.source, row.url) };
                    });
                    if !change.deleted && begun && before != Some(since_ms) {
                        self.report(key, Level::Minute.start(now_ms), said);
                    }
                }
                TableRow::Subscription(_) | TableRow::Plan(_) => {}
            }
        }
    }

    /// Changes what is known of a key, and reconsiders what its calls said.
    fn change(&mut self, key: KeyId, now_ms: EventTime, said: &mut Said, action: impl FnOnce(&mut KeyFacts)) {
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
        let tuning = &self.settings.tuning;
        if let Some(Known::Grown(profile)) = self.keys.get_mut(&key)
            && profile.reconsider(new, tuning)
        {
            let window_ms = profile.next_ms().max(Level::Minute.start(now_ms)).saturating_sub(WINDOW_MS);
            let profile = profile.clone();
            let moment = Moment::end_of(window_ms, Occasion::Reconsidered(reason));
            self.observe(key, &profile, moment, None, said);
        }
    }

    /// A report of a key that is known, by its calls or a row, is an incident without a call.
    fn report(&mut self, key: KeyId, now_ms: EventTime, said: &mut Said) {
        if key.is_bucket() || !(self.keys.contains_key(&key) || self.owners.has_row(key)) {
            return;
        }
        let Some(facts) = self.facts.get(&key) else { return };
        let known = self.keys.entry(key).or_insert_with(|| Known::Young(Young::default()));
        let profile = known.grow(now_ms, &self.settings.tuning);
        profile.report(
            now_ms.max(profile.next_ms().saturating_sub(WINDOW_MS)),
            &facts.facts,
            &self.settings.tuning,
        );
        if profile.verdict().severity >= Severity::Alert {
            let profile = profile.clone();
            self.observe(key, &profile, Moment::end_of(now_ms, Occasion::Closed), None, said);
        }
    }

    /// Adds events, which are in the order of their keys, to the minutes that are open.
    fn add(&mut self, batch: &[AccessEvent], said: &mut Said) {
        for run in batch.chunk_by(|a, b| a.key == b.key && minute(a) == minute(b)) {
            let (key, start_ms) = (run[0].key, minute(&run[0]));
            if key.is_bucket() {
                continue;
            }
            if start_ms + WINDOW_MS <= self.passed_ms {
                said.late += run.len() as u64;
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

    /// Judges, in the order of event time, what the watermark passed: marks of open minutes, blocks, minutes.
    fn pass(&mut self, passed_ms: EventTime, said: &mut Said) {
        let passed_ms = passed_ms.max(self.passed_ms);
        let begun_ms = self.passed_ms;
        while let Some(start_ms) = self.open.keys().next().copied().filter(|start_ms| *start_ms < passed_ms) {
            self.pass_midnights(start_ms, said);
            // Blocks that ended before the minute come before its marks.
            self.ask(start_ms, said);
            let end_ms = start_ms + WINDOW_MS;
            for mark_ms in (start_ms + MARK_MS..end_ms).step_by(MARK_MS as usize) {
                if (begun_ms + 1..=passed_ms).contains(&mark_ms) {
                    self.judge_open(start_ms, mark_ms, said);
                }
            }
            if end_ms > passed_ms {
                break;
            }
            self.close_minute(start_ms, said);
            self.passed_ms = end_ms.max(self.passed_ms);
        }
        self.ask(passed_ms, said);
        self.pass_midnights(passed_ms, said);
        self.passed_ms = passed_ms;
    }

    /// Forgets, day by day, the keys that weren't called for more than a day: on every worker, also where nothing is open.
    fn pass_midnights(&mut self, until_ms: EventTime, said: &mut Said) {
        let first_ms = Level::Day.start(self.passed_ms) + DAY_MS;
        // After two midnights without calls nobody is left.
        for midnight_ms in (first_ms..=until_ms).step_by(DAY_MS as usize).take(2) {
            self.report_active(midnight_ms, said);
        }
        self.passed_ms = self.passed_ms.max(until_ms);
    }

    fn report_active(&mut self, at_ms: EventTime, said: &mut Said) {
        let change = self.active.change(at_ms);
        if change != 0 {
            said.reports.push(ProfileReport::Active { at_ms, change });
        }
    }

    fn close_minute(&mut self, start_ms: EventTime, said: &mut Said) {
        let Some(mut minute) = self.open.remove(&start_ms) else { return };
        for (key, calls) in minute.drain() {
            self.step(key, start_ms, &calls.into_window(), said);
        }
        self.spare = minute;
        said.reports.extend(said.crowds.drain().map(|(plan, figures)| {
            ProfileReport::Crowd(Box::new(Crowd { window_ms: start_ms, plan, figures }))
        }));
        self.report_active(start_ms + WINDOW_MS, said);
    }

    /// Asks for the blocks that end by then.
    fn ask(&mut self, passed_ms: EventTime, said: &mut Said) {
        while let Some(first) = self.due.first_entry().filter(|first| *first.key() <= passed_ms) {
            let (end_ms, keys) = first.remove_entry();
            for key in keys {
                let Some(Known::Grown(profile)) = self.keys.get_mut(&key) else { continue };
                if profile.next_ms() >= end_ms {
                    continue;
                }
                profile.close(end_ms, &self.settings.tuning);
                if profile.verdict().severity >= Severity::Alert {
                    let profile = profile.clone();
                    let moment = Moment::end_of(end_ms - WINDOW_MS, Occasion::Closed);
                    self.observe(key, &profile, moment, None, said);
                }
            }
        }
    }

    fn step(&mut self, key: KeyId, start_ms: EventTime, window: &Window, said: &mut Said) {
        let Self { settings, keys, facts, owners, active, due, .. } = self;
        let tuning = &settings.tuning;
        let known = keys.entry(key);
        let before_ms = match &known {
            hashbrown::hash_map::Entry::Occupied(known) => Some(known.get().last_call_ms()),
            hashbrown::hash_map::Entry::Vacant(_) => None,
        };
        active.called(before_ms.filter(|before_ms| *before_ms > 0), start_ms);
        let known = known.or_insert_with(|| Known::Young(Young::default()));
        let facts = facts.get(&key).map(|facts| &facts.facts);
        if let Known::Young(young) = known
            && young.calls.saturating_add(window.calls) < GROWN_CALLS
            && facts.is_none()
            && window.tor == 0
        {
            young.calls += window.calls;
            young.last_ms = start_ms;
            let encoded = postcard::to_extend(&(start_ms, window), std::mem::take(&mut young.windows));
            young.windows = encoded.expect("a window is plain data in memory: encoding can't fail");
            young.windows.shrink_to_fit();
            return;
        }
        let profile = known.grow(start_ms, tuning);
        let nothing = Facts::default();
        let judged = profile.step(start_ms, window, facts.unwrap_or(&nothing), tuning);
        for end_ms in profile.ends_worth_asking() {
            due.entry(end_ms).or_default().insert(key);
        }
        let verdict = profile.verdict();
        if settings.scores && verdict.score() > 0 {
            said.scores.push(Score { key, window_ms: start_ms, verdict });
        }
        let is_alarming = verdict.severity >= Severity::Alert;
        let plan = owners.at(key, start_ms).plan;
        said.crowds.entry(NameId::NONE).or_default().add(&judged);
        if plan.is_some() {
            said.crowds.entry(plan).or_default().add(&judged);
        }
        if is_alarming {
            let profile = profile.clone();
            self.observe(key, &profile, Moment::end_of(start_ms, Occasion::Closed), Some(window), said);
        }
    }

    /// Judges an open minute by its calls before a mark: observes keys that are beyond doubt, each once.
    fn judge_open(&mut self, start_ms: EventTime, mark_ms: EventTime, said: &mut Said) {
        let Self { settings, keys, open, facts, .. } = self;
        let Some(minute) = open.get_mut(&start_ms) else { return };
        let nothing = Facts::default();
        let mut fired = Vec::new();
        for (key, calls) in minute.keys.iter_mut().filter(|(_, calls)| !calls.fired) {
            let of_key = (!facts.is_empty()).then(|| facts.get(key)).flatten();
            // Profiles are looked up only where there is a burst, or where a hard fact may be.
            let suffices = |slices: &[(u8, Window)]| {
                let calls: u64 = slices.iter().map(|(_, window)| u64::from(window.calls)).sum();
                calls >= LEAST_CALLS
                    || slices.len() == 1
                    || of_key.is_some()
                    || slices.iter().any(|one| one.1.tor > 0)
            };
            let Some(window) = calls.until(mark_ms, suffices) else { continue };
            let Some(Known::Grown(profile)) = keys.get(key) else { continue };
            let of_key = of_key.map_or(&nothing, |facts| &facts.facts);
            if start_ms < profile.next_ms() || !profile.may_fire(start_ms, &window, of_key) {
                continue;
            }
            if let Some(profile) = profile.early(start_ms, &window, of_key, &settings.tuning) {
                calls.fired = true;
                fired.push((*key, profile, window));
            }
        }
        for (key, profile, window) in fired {
            let moment = Moment { window_ms: start_ms, at_ms: mark_ms, occasion: Occasion::Early };
            self.observe(key, &profile, moment, Some(&window), said);
        }
    }

    fn observe(
        &self,
        key: KeyId,
        profile: &Profile,
        moment: Moment,
        window: Option<&Window>,
        said: &mut Said,
    ) {
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
        let samples = samples.into_iter().take(SAMPLES).map(|(_, sighting)| Sample {
            position: sighting.position,
            time: sighting.time,
            client: sighting.client,
            status: sighting.status,
        });
        said.reports.push(ProfileReport::Observed(Box::new(Observation {
            at_ms,
            key,
            occasion,
            window_ms,
            calls: window.map_or(0, |window| window.calls.into()),
            observed: profile.observed().to_vec(),
            is_well_known: profile.is_well_known(),
            owner: self.owners.at(key, window_ms),
            key_state: self.owners.has_row(key).then(|| facts.map_or(KeyState::Active, |facts| facts.state)),
            contact: facts.map_or(NameId::NONE, |facts| facts.contact),
            report: facts.map_or((NameId::NONE, NameId::NONE), |facts| facts.report),
            traffic: profile.traffic().into_iter().map(point).collect(),
            samples: samples.collect(),
            known_since_ms: profile.first_ms(),
            known_calls: profile.known_calls(),
        })));
    }

    /// Forgets profiles that weren't called for long, when a month begins.
    fn sweep(&mut self, watermark: EventTime) {
        let month = Level::Month.start(watermark);
        if std::mem::replace(&mut self.swept_ms, month) == month {
            return;
        }
        self.keys.retain(|_, known| known.last_call_ms() + FORGOTTEN_MS >= month);
        self.keys.shrink_to_fit();
    }
}

impl KeyFacts {
    /// Takes what a row of the table of keys says.
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

fn minute(event: &AccessEvent) -> EventTime {
    Level::Minute.start(event.time)
}

/// The state as rows. Who was called lately, and who owns what, is derived from other rows.
#[derive(Serialize, Deserialize)]
pub(crate) enum ProfileRow {
    Key(KeyId, Known),
    Open(EventTime, KeyId, Box<OpenCalls>),
    Facts(KeyId, Box<KeyFacts>),
    Due(EventTime, KeyId),
    /// The event time that was passed, and the month of the last sweep: every worker's.
    Times(EventTime, EventTime),
}

impl Durable for Profiles {
    const ID: StateId = StateId::Profiles;
    type Row = ProfileRow;

    fn rows_out(&self, out: &mut dyn FnMut(ProfileRow)) {
        self.keys.iter().for_each(|(key, known)| out(ProfileRow::Key(*key, known.clone())));
        for (start_ms, minute) in &self.open {
            minute
                .keys
                .iter()
                .for_each(|(key, open)| out(ProfileRow::Open(*start_ms, *key, Box::new(open.clone()))));
        }
        self.facts.iter().for_each(|(key, facts)| out(ProfileRow::Facts(*key, facts.clone())));
        for (end_ms, keys) in &self.due {
            keys.iter().for_each(|key| out(ProfileRow::Due(*end_ms, *key)));
        }
        out(ProfileRow::Times(self.passed_ms, self.swept_ms));
    }

    fn row_in(&mut self, row: ProfileRow) {
        self.restored = true;
        match row {
            ProfileRow::Key(key, known) => {
                self.keys.insert(key, known);
            }
            ProfileRow::Open(start_ms, key, open) => {
                *self.open.entry(start_ms).or_default().of(key) = *open;
            }
            ProfileRow::Facts(key, facts) => {
                self.facts.insert(key, facts);
            }
            ProfileRow::Due(end_ms, key) => {
                self.due.entry(end_ms).or_default().insert(key);
            }
            ProfileRow::Times(passed_ms, swept_ms) => (self.passed_ms, self.swept_ms) = (passed_ms, swept_ms),
        }
    }

    fn shard(row: &ProfileRow) -> Shard {
        match row {
            ProfileRow::Key(key, _)
            | ProfileRow::Open(_, key, _)
            | ProfileRow::Facts(key, _)
            | ProfileRow::Due(_, key) => Shard::Of(key.shard()),
            ProfileRow::Times(..) => Shard::All,
        }
    }

    fn footprint(&self) -> Footprint {
        let mut footprint = Footprint::of_map_with(&self.keys, |known| match known {
            Known::Young(young) => young.windows.capacity(),
            Known::Grown(profile) => size_of::<Profile>() + profile.owned_bytes(),
        });
        footprint += Footprint::of_map_with(&self.facts, |facts| {
            size_of::<KeyFacts>() + size_of_val(&*facts.facts.allowed)
        });
        for minute in self.open.values() {
            footprint += minute.footprint();
        }
        footprint += self.due.values().map(Footprint::of_set).sum();
        // Memory, but no rows: others hold them.
        footprint.bytes += self.owners.footprint().bytes;
        footprint
    }
}
