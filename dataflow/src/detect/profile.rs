//! One key's profile: the ordered fold over its windows, and the signals of its last hour.
//!
//! A window is stepped once, when it is closed, in the order of time:
//! 1. the windows before it, without calls, are learned, runs of them at once: up to the end of a block with calls, up
//!    to the end of an hour, or up to the next call; after a day without calls levels and rates decay and nothing else
//!    is learned;
//! 2. every signal judges the window by what was learned so far;
//! 3. the window is learned, unless the key is *frozen*: while its severity is alert or more, for a day at most, level,
//!    variance, season and rate learn nothing, so that a leak doesn't become the baseline.
//!
//! Blocks of five minutes and of an hour are judged at their end: by the window with calls that ends there, or by
//! [`Profile::close`]. Calls of `close` in between don't change the profile.
//!
//! **Signals** count for an hour, with their most bits. New values go on counting while they keep a twentieth of the
//! calls, for a day at most. How much of a signal's bits enters the verdict is decided in `observed`. New places and
//! agents are on probation (see [`novelty`](super::novelty)).
//!
//! **Volume** counts after a key's first day, and only if the window has 10 calls, 50 an hour, and three times what was
//! expected, in two of three consecutive windows. One window suffices if its calls are 4.75 bits beyond an alert and other
//! signals had six bits before it; volume alone never suffices, as a loop of a minute is no leak. A count doesn't fall, so
//! this holds from the call on that makes it true: [`Profile::early`] returns it before the window's end, and the end
//! agrees.
//!
//! Only a first call from a new place in the same minute may lower the verdict at its end: a client that came without one
//! counts less beside it.
//!
//! **Limits of the verdict.** A key with fewer than 300 calls of the last month never exceeds an alert without a hard
//! fact. Travel ([`travel`]) counts after seven days of learning.
//!
//! Limits: 64 values of each kind, 12 signals of the last hour with values of their own, 16 places of the last hour, 72
//! blocks of five minutes. About 3 KiB.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::combine::{Family, Severity, Signal, Tuning, Verdict};
use super::counts::{FEW, Rate};
use super::errors::Share;
use super::facts::{Facts, HARD, Past, REFUSED, covers, hard_facts, may_have_hard_facts};
use super::kinds::ByKind;
use super::mix::Mix;
use super::novelty::{KnownValues, Learned, Novel};
use super::observed::{ObservedSignal, Shown, count, counted_burst, keep, sums, top, verdict};
use super::traffic::Stretch;
use super::volume::{Reading, Scale, Season, Sight, Slot};
use super::window::{ValueCounts, Visit, Window};
use super::{Bits, DAY_MS, FIVE_MINUTES_MS, HOUR_MS, WINDOW_MS, traffic, travel};
use crate::model::Allowance;

/// How long signals count.
const MEMORY_MS: u64 = HOUR_MS;
const FROZEN_MS: u64 = DAY_MS;
const LEARNING_MS: u64 = DAY_MS;
const TRAVEL_LEARNING_MS: u64 = 7 * DAY_MS;
/// The most new values of a kind that are followed in a window.
const FOLLOWED_OF_A_KIND: usize = 4;
/// A new value has all of its bits if one call in 4 has it.
const WHOLE: u64 = 4;
/// A new value goes on counting while one call in 20 has it.
const STAYS: u32 = 20;
/// The least calls of a burst.
pub(crate) const LEAST_CALLS: u64 = 10;
/// The least refusals in a window that are judged.
const LEAST_REFUSED: u32 = 5;
/// The least calls of a key that is known well enough to be taken from its owner.
const KNOWN_CALLS: u64 = 300;
/// The calls of a key whose bursts have all of their bits: fewer say as little about what is usual.
const WELL_KNOWN_CALLS: u64 = 600;
/// How far beyond an alert a window must be to fire before its end, in thousandths of a bit.
const EARLY: i64 = 4_750;
/// The least of other signals for that, in thousandths of a bit.
const CORROBORATES: i64 = 6_000;
/// The usual calls, in thousandths, without which one can't tell that they stopped.
const MISSED: u64 = 5_000;
/// Usual calls have stopped if there are fewer than one in 10: 1,000 thousandths of a call, times 10.
const CEASED: u64 = 10_000;
/// The least bits of a new value that the guard counts.
const STIRS: Bits = Bits(3_000);
/// The most values that are shown beside a signal.
const SHOWN: usize = 5;
/// The most usual values of a kind.
const USUAL: usize = 3;
/// The most networks of a window that are told apart for what else they call with.
const NETWORKS: usize = 8;
/// The time in which a network of a key is told once.
pub(crate) const NETWORK_SPAN_MS: u64 = 6 * HOUR_MS;

/// A window's contribution to the sums over all keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judged {
    /// True if the key is known long enough for its volume to be judged.
    pub is_known: bool,
    /// Standard deviations above the baseline.
    pub z: f64,
    /// ln(1 + calls) less its baseline.
    pub residual: f64,
    /// True if its calls passed the gates of volume.
    pub spiked: bool,
    /// The signals with a new value, as bits in the order of [`Signal::ALL`].
    pub stirred: u32,
    /// Networks that called for the first time in the six hours (UTC) of the window, at most 8, each with whether the
    /// key, known for a day, hadn't been called from there until a day ago.
    pub networks: SmallVec<[(u64, bool); 1]>,
}

/// A window's calls beside everything that was learned before.
struct Begun {
    sight: Sight,
    reading: Reading,
    /// Calls from networks that the key hasn't known for a day.
    strangers: u64,
    /// True if it is beyond doubt before its end.
    is_early: bool,
}

/// A span of windows that is judged at its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct VolumeBlock {
    signal: Signal,
    width_ms: u64,
    scale: Scale,
    calls: u64,
    /// Calls from networks that the key hasn't known for a day, or from nobody knows where.
    strangers: u64,
    /// If the last windows passed the gates: a bit each, the newest lowest.
    spikes: u8,
    /// Start of the last block that was judged.
    judged_ms: u64,
}

impl VolumeBlock {
    fn new(signal: Signal, width_ms: u64) -> Self {
        Self {
            signal,
            width_ms,
            scale: Scale::new(width_ms),
            calls: 0,
            strangers: 0,
            spikes: 0,
            judged_ms: 0,
        }
    }
}

impl VolumeBlock {
    /// Returns whether so few of its calls are strangers' that they don't make a burst of it.
    fn is_familiar(&self) -> bool {
        self.strangers * u64::from(STAYS) < self.calls
    }
}

/// The state of learning of a key that alerts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Frozen {
    No,
    /// It has learned nothing since that time.
    Since(u64),
    /// It was frozen for a day: it learns although it alerts.
    NoMore,
}

/// The history of a key, as far as it is remembered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    first_ms: u64,
    /// Start of the first window that wasn't stepped.
    next_ms: u64,
    /// Start of the first window that wasn't learned: what lies between had no calls.
    learned_ms: u64,
    /// Whole hours without calls, a day after the last, that weren't learned.
    resting_ms: u64,
    last_call_ms: u64,
    season: Season,
    rate: Rate,
    minute: VolumeBlock,
    five_minutes: VolumeBlock,
    hour: VolumeBlock,
    /// Calls that were expected of this hour when it began.
    hour_expected: f64,
    /// Calls of its owner that can be counted on in this hour.
    hour_usual: f64,
    /// Calls of this hour that `rate` has learned: none while the key is frozen. The next field has those of the hour
    /// before.
    hour_learned: u64,
    hour_before_learned: u64,
    /// Calls of the last month when it was last called, without this hour and the one before.
    known_calls: u64,
    /// Blocks of five minutes with calls in this hour.
    busy_blocks: u64,
    fan_out: Scale,
    networks_now: ValueCounts,
    known: ByKind<KnownValues>,
    places: KnownValues,
    refused: Share,
    throttled: Share,
    mix: Mix,
    /// When it was last called through Tor.
    tor_ms: u64,
    visits: Vec<Visit>,
    traffic: Vec<Stretch>,
    observed: Vec<ObservedSignal>,
    verdict: Verdict,
    frozen: Frozen,
}

impl Profile {
    /// Returns the profile of a key whose first window starts at `start_ms`.
    #[must_use]
    pub fn new(start_ms: u64) -> Self {
        Self {
            first_ms: start_ms,
            next_ms: start_ms,
            learned_ms: start_ms,
            resting_ms: 0,
            last_call_ms: 0,
            season: Season::default(),
            rate: Rate::default(),
            minute: VolumeBlock::new(Signal::VolumeMinute, WINDOW_MS),
            five_minutes: VolumeBlock::new(Signal::VolumeFiveMinutes, FIVE_MINUTES_MS),
            hour: VolumeBlock::new(Signal::VolumeHour, HOUR_MS),
            hour_expected: 0.0,
            hour_usual: 0.0,
            hour_learned: 0,
            hour_before_learned: 0,
            known_calls: 0,
            busy_blocks: 0,
            fan_out: Scale::new(FIVE_MINUTES_MS),
            networks_now: ValueCounts::default(),
            known: ByKind::default(),
            places: KnownValues::default(),
            refused: Share::default(),
            throttled: Share::default(),
            mix: Mix::default(),
            tor_ms: 0,
            visits: Vec::new(),
            traffic: Vec::new(),
            observed: Vec::new(),
            verdict: Verdict::default(),
            frozen: Frozen::No,
        }
    }

    /// Returns the verdict of its signals of the last hour.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Returns its signals of the last hour.
    #[must_use]
    pub fn observed(&self) -> &[ObservedSignal] {
        &self.observed
    }

    /// Returns the start of the first window that wasn't stepped.
    #[must_use]
    pub fn next_ms(&self) -> u64 {
        self.next_ms
    }

    /// Returns the start of its first window.
    #[must_use]
    pub fn first_ms(&self) -> u64 {
        self.first_ms
    }

    /// Returns the start of its last window with calls.
    #[must_use]
    pub fn last_call_ms(&self) -> u64 {
        self.last_call_ms
    }

    /// Returns the calls of the last month at its last call, without those of that hour and of the one before.
    #[must_use]
    pub fn known_calls(&self) -> u64 {
        self.known_calls
    }

    /// Returns whether it is known well enough to be taken from its owner.
    #[must_use]
    pub fn is_well_known(&self) -> bool {
        self.known_calls >= KNOWN_CALLS
    }

    /// Counts what is known when the key is called. Signals count for an hour, so the last hour and the one before are
    /// left out: a burst doesn't make its own key known, and nothing changes while nobody calls.
    fn count_known(&mut self) {
        let lately = self.hour_learned + self.hour_before_learned;
        self.known_calls = thousandths(self.rate.calls() - lately as f64) / 1_000;
    }

    /// Returns the ends of the blocks that may show a burst, at which [`close`](Self::close) is worth it.
    pub fn ends_worth_asking(&self) -> impl Iterator<Item = u64> {
        let of = |block: &VolumeBlock, enough: u64| {
            let starts_ms = self.next_ms.saturating_sub(1) / block.width_ms * block.width_ms;
            (block.calls >= enough)
                .then_some(starts_ms + block.width_ms)
                .filter(|end_ms| *end_ms > self.next_ms)
        };
        let fan_out = (self.networks_now.values().len() >= 10).then_some(0);
        // A low and slow signal needs no burst, but counts only beside others.
        let slow = (!self.observed.is_empty()).then_some(1);
        of(&self.five_minutes, fan_out.unwrap_or(10)).into_iter().chain(of(&self.hour, slow.unwrap_or(50)))
    }

    /// Returns the values that its calls usually have, at most 3 of a kind, each with its share of the calls of a month in
    /// thousandths.
    pub fn usual(&self) -> impl Iterator<Item = (Signal, u64, u64)> {
        self.known.all().into_iter().flat_map(move |(kind, known)| {
            let is_new =
                move |value| self.observed.iter().any(|one| (one.signal, one.value) == (kind, value));
            known.usual(USUAL, is_new).map(move |(value, share)| (kind, value, share))
        })
    }

    /// Returns the traffic of its last six hours, including the five minutes that aren't over.
    #[must_use]
    pub fn traffic(&self) -> Vec<Stretch> {
        let from_ms = traffic::since(self.next_ms);
        let now = self.stretch(self.next_ms.saturating_sub(1) / FIVE_MINUTES_MS * FIVE_MINUTES_MS);
        let past = self.traffic.iter().copied().filter(|stretch| stretch.start_ms >= from_ms);
        past.chain(now.filter(|stretch| stretch.calls > 0)).collect()
    }

    /// Returns the five minutes that aren't over.
    fn stretch(&self, start_ms: u64) -> Option<Stretch> {
        let expected = self.five_minutes.scale.expected(&self.season, Slot::at(start_ms, 0));
        let is_known = self.five_minutes.scale.windows() > 0;
        let expected = if is_known { thousandths(expected) } else { 0 };
        Some(Stretch { start_ms, calls: self.five_minutes.calls, expected })
    }

    /// Steps the window that starts at `start_ms`: not before [`next_ms`](Self::next_ms).
    pub fn step(&mut self, start_ms: u64, window: &Window, facts: &Facts, tuning: &Tuning) -> Judged {
        let Begun { sight, reading, strangers, is_early } = self.begin(start_ms, window, facts, tuning);
        let observed_before = self.observed.len();
        self.judge_values(start_ms, window, strangers == 0, &facts.allowed);
        let mut stirred = 0;
        for observed in self.observed.iter().skip(observed_before).filter(|observed| observed.bits >= STIRS) {
            stirred |= 1 << observed.signal as u32;
        }
        self.judge_shares(start_ms, window, strangers == 0);
        self.judge_facts(start_ms, window, facts);
        self.judge_travel(start_ms, window);
        let is_known = self.is_known(start_ms);
        self.count_calls(window, strangers);
        self.judge_minute(start_ms, window, reading, is_early);
        self.learn_minute(start_ms, window, sight);
        let networks = self
            .known
            .networks
            .not_seen_since(window.values.networks.values(), start_ms - start_ms % NETWORK_SPAN_MS);
        let is_new = |network| is_known && !self.known.networks.is_familiar(network, start_ms);
        let networks = networks.take(NETWORKS).map(|network| (network, is_new(network))).collect();
        self.learn_values(start_ms, window);
        self.networks_now.merge(&window.values.networks);
        self.last_call_ms = start_ms;
        self.next_ms = start_ms + WINDOW_MS;
        self.learned_ms = self.next_ms;
        self.end_blocks(tuning);
        self.settle(tuning);
        let spiked = self.minute.spikes & 1 == 1;
        Judged { is_known, z: reading.z, residual: reading.residual, spiked, stirred, networks }
    }

    /// Passes over the time before the window that starts at `start_ms`, and looks at the window's calls.
    fn begin(&mut self, start_ms: u64, window: &Window, facts: &Facts, tuning: &Tuning) -> Begun {
        self.skip_to(start_ms, tuning);
        self.wake();
        self.forget();
        self.watch_moves();
        self.count_known();
        let sight = self.sight(start_ms, window);
        let reading = self.minute.scale.read_at(sight);
        let strangers = self.strangers(start_ms, window);
        let is_early = self.fires_early(start_ms, window, reading, strangers, facts, tuning);
        Begun { sight, reading, strangers, is_early }
    }

    /// Adds a window's calls to the spans that it lies in.
    fn count_calls(&mut self, window: &Window, strangers: u64) {
        for block in [&mut self.minute, &mut self.five_minutes, &mut self.hour] {
            block.calls += u64::from(window.calls);
            block.strangers += strangers;
        }
    }

    /// Returns the calls that didn't come from networks that the key has known for a day.
    fn strangers(&self, start_ms: u64, window: &Window) -> u64 {
        let familiar = |(network, calls): &(u64, u32)| {
            if self.known.networks.is_familiar(*network, start_ms) { u64::from(*calls) } else { 0 }
        };
        let familiar: u64 = window.values.networks.values().iter().map(familiar).sum();
        u64::from(window.calls).saturating_sub(u64::from(window.allowed) + familiar)
    }

    /// Judges the window that starts at `start_ms` and isn't over. Returns the profile as it would be after it, if the
    /// window is far enough beyond an alert. The verdict at the window's end isn't lower, unless a new place calls for
    /// the first time in the same window and a client came without one.
    #[must_use]
    pub fn early(&self, start_ms: u64, window: &Window, facts: &Facts, tuning: &Tuning) -> Option<Self> {
        let mut profile = self.clone();
        let Begun { sight, reading, strangers, is_early } = profile.begin(start_ms, window, facts, tuning);
        if !is_early {
            return None;
        }
        profile.judge_facts(start_ms, window, facts);
        profile.count_calls(window, strangers);
        profile.judge_minute(start_ms, window, reading, true);
        profile.learn_minute(start_ms, window, sight);
        profile.next_ms = start_ms + WINDOW_MS;
        profile.settle(tuning);
        Some(profile)
    }

    /// Returns false only if [`early`](Self::early) returns `None`. Cheap.
    #[must_use]
    pub fn may_fire(&self, start_ms: u64, window: &Window, facts: &Facts) -> bool {
        let hard = hard_facts(&self.past(), start_ms, window, facts);
        !is_refused(&hard) && (!hard.is_empty() || self.may_burst(start_ms, window.calls.into()))
    }

    /// Returns false only if [`may_fire`](Self::may_fire) does so of any window of so many calls, `has_tor` saying whether
    /// one of them came through Tor. It needs no window, whose parts needn't be added up then.
    #[must_use]
    pub fn is_suspect(&self, start_ms: u64, calls: u64, has_tor: bool, facts: &Facts) -> bool {
        self.may_burst(start_ms, calls) || may_have_hard_facts(self.last_call_ms, start_ms, has_tor, facts)
    }

    /// Returns whether so many calls may be a burst that counts before the end of its window.
    fn may_burst(&self, start_ms: u64, calls: u64) -> bool {
        let expected = || self.minute.scale.expected(&self.season, Slot::at(start_ms, 0));
        calls >= LEAST_CALLS
            && !self.observed.is_empty()
            && self.is_known(start_ms)
            && calls as f64 >= 3.0 * expected()
    }

    /// Returns the bytes that it takes beyond its own size.
    pub(crate) fn owned_bytes(&self) -> usize {
        self.known.all().into_iter().map(|(_, known)| known.owned_bytes()).sum::<usize>()
            + self.traffic.capacity() * size_of::<Stretch>()
            + self.visits.capacity() * size_of::<Visit>()
            + self.observed.capacity() * size_of::<ObservedSignal>()
    }

    /// Steps the windows up to `end_ms` without calls.
    pub fn close(&mut self, end_ms: u64, tuning: &Tuning) {
        self.skip_to(end_ms, tuning);
        self.settle(tuning);
    }

    /// Observes that the key was reported as readable by everybody, whether it is called or not.
    pub fn report(&mut self, at_ms: u64, facts: &Facts, tuning: &Tuning) {
        self.close(at_ms, tuning);
        if !facts.publishable {
            self.observe(ObservedSignal::new(Signal::Reported, at_ms, HARD));
            self.settle(tuning);
        }
    }

    /// Forgets the signals that the tables explain. Returns whether there was one.
    pub fn reconsider(&mut self, facts: &Facts, tuning: &Tuning) -> bool {
        let before = self.observed.len();
        let covers = |observed: &ObservedSignal| {
            facts.allowed.iter().any(|one| covers(observed.signal, observed.value, one))
        };
        // New networks that are all allowed take the countries and systems with them that they lie in.
        let mut networks =
            self.observed.iter().filter(|observed| observed.signal == Signal::Network).peekable();
        let all_allowed = networks.peek().is_some() && networks.all(covers);
        self.observed.retain(|observed| match observed.signal {
            Signal::Country | Signal::Asn if all_allowed => false,
            Signal::Country | Signal::Asn | Signal::Network => !covers(observed),
            Signal::Revoked => facts.revoked_ms.is_some() && !facts.publishable,
            Signal::Reported => facts.reported_ms.is_some() && !facts.publishable,
            signal => signal.family() != Family::Hard || !facts.publishable,
        });
        self.settle(tuning);
        self.observed.len() < before
    }

    /// Takes what the key does for normal:
    /// 1. the counts of signals become what is expected, as a step, and so does the traffic since the first of them;
    /// 2. values on probation are known, and have been for a day;
    /// 3. shares of refusals are expected, and the mix of routes is learned anew;
    /// 4. all signals are forgotten but those that are facts of the tables, and the key learns again.
    pub fn accept(&mut self, tuning: &Tuning) {
        // STEP 1
        self.wake();
        let observed = std::mem::take(&mut self.observed);
        let volumes = observed.iter().filter(|one| one.signal.family() == Family::Volume);
        if let Some(first_ms) = volumes.clone().map(|one| one.first_ms).min() {
            let seen = |signal| {
                volumes.clone().filter(|one| one.signal == signal).map(|one| one.seen).max().unwrap_or(0)
            };
            let seen = [Signal::VolumeMinute, Signal::VolumeFiveMinutes, Signal::VolumeHour]
                .map(|signal| seen(signal) as f64);
            self.step_to(first_ms, seen);
        }
        let fan_out = observed.iter().filter(|one| one.signal == Signal::FanOut).map(|one| one.seen).max();
        if let Some(networks) = fan_out {
            self.fan_out.step_to(&Season::default(), self.slot(), networks as f64);
        }
        // STEP 2
        for known in self.known.all_mut() {
            known.accept();
        }
        self.places.accept();
        self.visits.clear();
        // STEP 3
        for one in &observed {
            match one.signal {
                Signal::Refused => self.refused.step_to(one.seen, one.expected),
                Signal::Throttled => self.throttled.step_to(one.seen, one.expected),
                Signal::Mix => self.mix = Mix::default(),
                _ => {}
            }
        }
        // STEP 4
        self.observed = observed;
        self.observed.retain(|one| matches!(one.signal, Signal::Revoked | Signal::Reported));
        self.frozen = Frozen::No;
        self.settle(tuning);
    }

    /// Takes the traffic since a time for what is expected, and no less than the counts of a minute, of five minutes and of
    /// an hour that were seen. Nothing is expected to become less.
    fn step_to(&mut self, since_ms: u64, [minute, five_minutes, hour]: [f64; 3]) {
        let slot = self.slot();
        let traffic = self.traffic();
        let lately = traffic.iter().filter(|one| one.start_ms + FIVE_MINUTES_MS > since_ms);
        let calls: u64 = lately.clone().map(|one| one.calls).sum();
        let begun_ms = lately.map(|one| one.start_ms).min().unwrap_or(since_ms).min(self.next_ms);
        let span_ms = (self.next_ms - begun_ms).max(WINDOW_MS);
        let expected = |width_ms: u64| calls as f64 * width_ms as f64 / span_ms as f64;
        let season = &self.season;
        self.minute.scale.step_to(season, slot, minute.max(expected(WINDOW_MS)));
        self.five_minutes.scale.step_to(season, slot, five_minutes.max(expected(FIVE_MINUTES_MS)));
        self.hour.scale.step_to(season, slot, hour.max(expected(HOUR_MS)));
        self.rate.step_to(slot, expected(HOUR_MS));
        self.expect_hour();
    }

    /// Returns the slot of the last window that was stepped.
    fn slot(&self) -> Slot {
        Slot::at(self.next_ms.saturating_sub(WINDOW_MS), 0)
    }

    fn learning(&self) -> bool {
        !matches!(self.frozen, Frozen::Since(_))
    }

    /// Passes over the time without calls until `end_ms`.
    fn skip_to(&mut self, end_ms: u64, tuning: &Tuning) {
        while self.next_ms < end_ms {
            let hour_starts = self.next_ms / HOUR_MS * HOUR_MS;
            let hour_ends = hour_starts + HOUR_MS;
            if self.learning() && self.learned_ms == hour_starts && hour_starts >= self.last_call_ms + DAY_MS
            {
                let hours_ms = (end_ms - hour_starts) / HOUR_MS * HOUR_MS;
                self.resting_ms += hours_ms;
                self.learned_ms += hours_ms;
                self.next_ms = end_ms;
                continue;
            }
            let five_ends = (self.next_ms / FIVE_MINUTES_MS + 1) * FIVE_MINUTES_MS;
            // Whether a frozen key learns again is asked after each window, whoever asks.
            let boundary = match (self.learning(), self.five_minutes.calls > 0) {
                (false, _) => self.next_ms + WINDOW_MS,
                (true, true) => five_ends,
                (true, false) => hour_ends,
            };
            self.next_ms = boundary.min(end_ms);
            if self.next_ms == boundary {
                self.flush();
                self.forget();
                self.end_blocks(tuning);
                if !self.observed.is_empty() || !self.learning() {
                    self.settle(tuning);
                }
            }
        }
    }

    /// Learns the windows of one hour without calls.
    fn flush(&mut self) {
        let span_ms = self.next_ms - self.learned_ms;
        if span_ms > 0 && self.learning() {
            let slot = Slot::at(self.learned_ms, 0);
            self.minute.scale.learn_silence(&mut self.season, true, slot, span_ms / WINDOW_MS);
            self.rate.learn(slot, span_ms, 0.0);
        }
        self.learned_ms = self.next_ms;
    }

    /// Learns hours at rest and windows without calls, before a call.
    fn wake(&mut self) {
        let rested_ms = std::mem::take(&mut self.resting_ms);
        if rested_ms > 0 {
            self.doze(rested_ms);
            self.expect_hour();
        }
        self.flush();
    }

    /// Learns a time without calls that follows a day without. The key's variance isn't learned from it.
    fn doze(&mut self, span_ms: u64) {
        for scale in
            [&mut self.minute.scale, &mut self.five_minutes.scale, &mut self.hour.scale, &mut self.fan_out]
        {
            scale.doze(span_ms);
        }
        self.rate.doze(span_ms);
    }

    /// Judges and learns the blocks that end where the last window did.
    fn end_blocks(&mut self, tuning: &Tuning) {
        let end_ms = self.next_ms;
        if end_ms.is_multiple_of(FIVE_MINUTES_MS) && self.five_minutes.calls > 0 {
            self.busy_blocks += 1;
            self.judge_fan_out(end_ms - FIVE_MINUTES_MS);
            self.remember(end_ms - FIVE_MINUTES_MS);
            self.judge_block(|profile| &mut profile.five_minutes, end_ms, tuning);
        }
        if end_ms.is_multiple_of(HOUR_MS) {
            self.hour_before_learned = std::mem::take(&mut self.hour_learned);
            let slot = Slot::at(end_ms - HOUR_MS, 0);
            let silent = HOUR_MS / FIVE_MINUTES_MS - std::mem::take(&mut self.busy_blocks);
            if silent > 0 && self.learning() {
                self.five_minutes.scale.learn_silence(&mut self.season, false, slot, silent);
                self.fan_out.learn_silence(&mut Season::default(), false, slot, silent);
            }
            self.judge_slow(end_ms - HOUR_MS);
            self.count_usual(end_ms - HOUR_MS);
            self.expect_hour();
            if self.hour.calls > 0 {
                self.judge_block(|profile| &mut profile.hour, end_ms, tuning);
            } else if self.learning() {
                self.hour.scale.learn_silence(&mut self.season, false, slot, 1);
            }
        }
    }

    fn remember(&mut self, start_ms: u64) {
        let from_ms = traffic::since(start_ms + FIVE_MINUTES_MS);
        self.traffic.retain(|stretch| stretch.start_ms >= from_ms);
        let stretch = self.stretch(start_ms);
        self.traffic.extend(stretch);
    }

    fn judge_block(&mut self, block_of: fn(&mut Self) -> &mut VolumeBlock, end_ms: u64, tuning: &Tuning) {
        let block = block_of(self);
        let is_familiar = block.is_familiar();
        let &mut VolumeBlock { signal, width_ms, scale, calls, .. } = block;
        let start_ms = end_ms - width_ms;
        let sight = scale.sight(&self.season, Slot::at(start_ms, 0), calls as f64);
        let reading = scale.read_at(sight);
        let burst = self.spike(width_ms, start_ms, calls, reading);
        let suffices = burst.is_some_and(|(bits, _)| {
            self.count();
            let burst = (signal, counted_burst(bits, is_familiar));
            is_beyond_doubt(sums(&self.observed), [burst].into_iter(), tuning)
        });
        self.judge_volume(block_of, start_ms, reading, suffices, is_familiar, SmallVec::new());
        if self.learning() {
            block_of(self).scale.learn_at(sight, width_ms);
        }
    }

    /// Returns a window's calls beside what is expected of them.
    fn sight(&self, start_ms: u64, window: &Window) -> Sight {
        self.minute.scale.sight(&self.season, Slot::at(start_ms, 0), window.calls.into())
    }

    fn judge_minute(&mut self, start_ms: u64, window: &Window, reading: Reading, is_early: bool) {
        let shown = if reading.bits > Bits::NONE { self.foremost(window) } else { SmallVec::new() };
        let is_familiar = self.minute.strangers == 0;
        self.judge_volume(|profile| &mut profile.minute, start_ms, reading, is_early, is_familiar, shown);
    }

    /// Learns a window's calls, which were seen after everything that was learned before.
    fn learn_minute(&mut self, start_ms: u64, window: &Window, sight: Sight) {
        if self.learning() {
            let slot = Slot::at(start_ms, 0);
            self.minute.scale.step(&mut self.season, slot, sight, WINDOW_MS);
            self.rate.learn(slot, WINDOW_MS, window.calls.into());
            self.hour_learned += u64::from(window.calls);
        }
    }

    /// Sets what is expected of the hour that begins, before it is learned.
    fn expect_hour(&mut self) {
        let slot = Slot::at(self.next_ms, 0);
        (self.hour_expected, self.hour_usual) =
            (self.rate.expected_by_slot(slot, HOUR_MS), self.rate.usual(slot));
    }

    fn judge_slow(&mut self, start_ms: u64) {
        let calls = self.hour.calls;
        self.rate.watch(self.hour_expected, calls as f64);
        if calls > 0 && self.is_known(start_ms) {
            let expected = thousandths(self.hour_expected);
            let (bits, is_familiar) = (self.rate.slow(), self.hour.is_familiar());
            if self.learning() {
                self.rate.learn_alarm();
            }
            self.observe(ObservedSignal {
                expected,
                seen: calls,
                is_familiar,
                ..ObservedSignal::new(Signal::Slow, start_ms, bits)
            });
        }
    }

    /// Counts the calls that were usual in an hour since new places called.
    fn count_usual(&mut self, start_ms: u64) {
        for one in self.observed.iter_mut().filter(|one| is_followed_place(one)) {
            let since_ms = one.first_ms.saturating_sub(start_ms).min(HOUR_MS);
            one.usual += thousandths(self.hour_usual * (HOUR_MS - since_ms) as f64 / HOUR_MS as f64);
        }
    }

    /// Decides of each new place whether the owner is there: whether the usual calls have stopped.
    fn watch_moves(&mut self) {
        for one in self.observed.iter_mut().filter(|one| is_followed_place(one)) {
            one.has_moved = one.usual >= MISSED && u64::from(one.others) * CEASED < one.usual;
        }
    }

    fn is_known(&self, start_ms: u64) -> bool {
        start_ms >= self.first_ms + LEARNING_MS
    }

    /// Returns the surprise of a block's calls and the calls expected, if they pass the gates.
    fn spike(&self, width_ms: u64, start_ms: u64, calls: u64, reading: Reading) -> Option<(Bits, f64)> {
        let seen = calls as f64;
        let enough = (50.0 * width_ms as f64 / HOUR_MS as f64).max(LEAST_CALLS as f64);
        if reading.bits == Bits::NONE || seen < enough || !self.is_known(start_ms) {
            return None;
        }
        let slot = Slot::at(start_ms, 0);
        let by_rate = self.rate.expected(slot, width_ms);
        let expected = reading.expected().max(by_rate);
        if seen - expected < enough || seen < 3.0 * expected {
            return None;
        }
        let bits = match expected < FEW {
            true => reading.bits.min(self.rate.bits(slot, width_ms, seen)),
            false => reading.bits,
        };
        // The tail of few calls is made of fewer: one in a hundred of their minutes is one minute.
        let known = (self.known_calls + WELL_KNOWN_CALLS / 4).min(WELL_KNOWN_CALLS);
        let bits = u64::from(bits.0) * known / WELL_KNOWN_CALLS;
        Some((Bits(u32::try_from(bits).unwrap_or(Bits::MOST.0)), expected))
    }

    /// Returns whether an open window's calls and hard facts, with the signals before it, are far enough beyond an alert.
    fn fires_early(
        &mut self,
        start_ms: u64,
        window: &Window,
        reading: Reading,
        strangers: u64,
        facts: &Facts,
        tuning: &Tuning,
    ) -> bool {
        let hard = hard_facts(&self.past(), start_ms, window, facts);
        if is_refused(&hard) || hard.is_empty() && u64::from(window.calls) < LEAST_CALLS {
            return false;
        }
        let burst = self.spike(WINDOW_MS, start_ms, window.calls.into(), reading);
        if burst.is_none() && hard.is_empty() {
            return false;
        }
        // No stranger called yet; the first who does adds to what counts.
        let burst = burst.map(|(bits, _)| (Signal::VolumeMinute, counted_burst(bits, strangers == 0)));
        self.count();
        is_beyond_doubt(sums(&self.observed), hard.into_iter().chain(burst), tuning)
    }

    /// Judges the calls of a block, and begins another.
    fn judge_volume(
        &mut self,
        block_of: fn(&mut Self) -> &mut VolumeBlock,
        start_ms: u64,
        reading: Reading,
        suffices: bool,
        is_familiar: bool,
        shown: SmallVec<[Shown; 1]>,
    ) {
        let block = block_of(self);
        let (signal, width_ms) = (block.signal, block.width_ms);
        let seen = std::mem::take(&mut block.calls);
        block.strangers = 0;
        let passed = (start_ms - block.judged_ms.min(start_ms)) / width_ms;
        block.spikes = block.spikes.checked_shl(u32::try_from(passed).unwrap_or(u32::MAX)).unwrap_or(0);
        block.judged_ms = start_ms;
        let Some((bits, expected)) = self.spike(width_ms, start_ms, seen, reading) else { return };
        let block = block_of(self);
        block.spikes |= 1;
        if suffices || (block.spikes & 0b111).count_ones() >= 2 {
            let (slope, expected) = (reading.slope, thousandths(expected));
            let observed = ObservedSignal::new(signal, start_ms, bits);
            self.observe(ObservedSignal { slope, expected, seen, is_familiar, shown, ..observed });
        }
    }

    fn judge_fan_out(&mut self, start_ms: u64) {
        let slot = Slot::at(start_ms, 0);
        let networks = std::mem::take(&mut self.networks_now);
        let seen = networks.values().len();
        let flat = Season::default();
        let sight = self.fan_out.sight(&flat, slot, seen as f64);
        let reading = self.fan_out.read_at(sight);
        if self.is_known(start_ms)
            && reading.bits > Bits::NONE
            && seen as f64 >= 3.0 * reading.expected() + 10.0
        {
            let shown = top(&networks, Signal::Network, &self.known.networks, SHOWN);
            let observed = ObservedSignal::new(Signal::FanOut, start_ms, reading.bits);
            let expected = thousandths(reading.expected());
            self.observe(ObservedSignal { expected, seen: seen as u64, shown, ..observed });
        }
        if self.learning() {
            self.fan_out.learn_at(sight, FIVE_MINUTES_MS);
        }
    }

    fn judge_values(&mut self, start_ms: u64, window: &Window, is_familiar: bool, allowed: &[Allowance]) {
        let calls = window.calls.max(1);
        let is_place = |signal| matches!(signal, Signal::Country | Signal::Asn);
        // True once a new country or system called in this window. Places are judged before what is called, and with what.
        let mut has_place = false;
        // Values that were new stay as long as they keep their share.
        for observed in self.observed.iter_mut().filter(|observed| observed.value != 0) {
            let Some(tally) = window.values.of(observed.signal) else { continue };
            let at = tally.values().binary_search_by_key(&observed.value, |entry| entry.0);
            let of_value = at.map_or(0, |at| tally.values()[at].1);
            has_place |= of_value > 0 && is_place(observed.signal);
            observed.total = observed.total.saturating_add(of_value);
            observed.others = observed.others.saturating_add(calls - of_value.min(calls));
            observed.is_familiar &= of_value == 0 || is_familiar;
            if of_value > 0 && is_place(observed.signal) {
                let known = self.known.of(observed.signal);
                let staying = known.and_then(|known| known.staying(observed.value));
                observed.whole = staying.unwrap_or(Bits::NONE).max(observed.whole);
            }
            if of_value > 0 && of_value >= calls / STAYS && start_ms < observed.first_ms + DAY_MS {
                (observed.last_ms, observed.observed_ms) = (start_ms, start_ms);
                let bits = share(observed.whole, of_value, calls);
                if bits > observed.bits {
                    (observed.bits, observed.window_ms, observed.seen) = (bits, start_ms, of_value.into());
                }
            }
        }
        for ((signal, known), (_, tally)) in self.known.all().into_iter().zip(window.values.all()) {
            // Nearly all windows show known values only.
            if tally.values().iter().all(|(value, _)| known.knows(*value)) {
                continue;
            }
            // Calls may have been counted before the tables allowed them.
            let is_allowed = |value| allowed.iter().any(|one| covers(signal, value, one));
            // A value on probation that is observed already was counted above.
            let is_observed =
                |value| self.observed.iter().any(|one| (one.signal, one.value) == (signal, value));
            let novel = known.novel(tally.values());
            let mut novel: SmallVec<[Novel; 8]> =
                novel.filter(|new| !is_allowed(new.value) && !is_observed(new.value)).collect();
            if novel.is_empty() {
                continue;
            }
            has_place |= is_place(signal);
            let is_apart = matches!(signal, Signal::Agent | Signal::Route) && !has_place;
            if is_place(signal) {
                for new in &mut novel {
                    new.bits = known.staying(new.value).unwrap_or(new.bits);
                }
            }
            novel.sort_by_key(|novel| (std::cmp::Reverse(novel.calls), novel.value));
            let (single, rest) = novel.split_at(novel.len().min(FOLLOWED_OF_A_KIND));
            let single = single.iter().map(|novel| (novel.value, novel.calls, novel.bits));
            // Many values together have the least of their surprises.
            let rest = rest
                .iter()
                .map(|novel| (0, novel.calls, novel.bits))
                .reduce(|sum, one| (0, sum.1.saturating_add(one.1), sum.2.min(one.2)));
            for (value, of_value, whole) in single.chain(rest) {
                let bits = share(whole, of_value, calls);
                let shown =
                    (value != 0).then_some(Shown { kind: signal, value, calls: of_value, is_new: true });
                let observed = ObservedSignal {
                    value,
                    total: of_value,
                    others: calls - of_value.min(calls),
                    whole,
                    seen: of_value.into(),
                    is_familiar,
                    is_apart,
                    shown: shown.into_iter().collect(),
                    ..ObservedSignal::new(signal, start_ms, bits)
                };
                keep(&mut self.observed, observed);
            }
        }
    }

    fn judge_shares(&mut self, start_ms: u64, window: &Window, is_familiar: bool) {
        let refused = (Signal::Refused, window.refused, self.refused.expected(), &self.refused);
        let throttled = (Signal::Throttled, window.throttled, self.throttled.expected(), &self.throttled);
        let said = [refused, throttled].map(|(signal, count, expected, share)| {
            let bits = if count >= LEAST_REFUSED { share.bits(count, window.calls) } else { Bits::NONE };
            (signal, count, expected * f64::from(window.calls), bits)
        });
        for (signal, count, expected, bits) in said {
            if bits > Bits::NONE {
                let (expected, seen, shown) = (thousandths(expected), count.into(), self.foremost(window));
                let observed = ObservedSignal::new(signal, start_ms, bits);
                self.observe(ObservedSignal { expected, seen, shown, ..observed });
            }
        }
        let bits = self.mix.bits(window.values.routes.values());
        if bits > Bits::NONE {
            let shown = top(&window.values.routes, Signal::Route, &self.known.routes, SHOWN);
            let observed = ObservedSignal::new(Signal::Mix, start_ms, bits);
            self.observe(ObservedSignal { seen: window.calls.into(), is_familiar, shown, ..observed });
        }
    }

    fn past(&self) -> Past<'_> {
        Past {
            last_call_ms: self.last_call_ms,
            tor_ms: self.tor_ms,
            asns: &self.known.asns,
            networks: &self.known.networks,
        }
    }

    fn judge_facts(&mut self, start_ms: u64, window: &Window, facts: &Facts) {
        for (signal, bits) in hard_facts(&self.past(), start_ms, window, facts) {
            let seen = if signal == Signal::Tor { window.tor } else { window.calls };
            let shown = self.foremost(window);
            let observed = ObservedSignal::new(signal, start_ms, bits);
            self.observe(ObservedSignal { seen: seen.into(), shown, ..observed });
        }
    }

    fn judge_travel(&mut self, start_ms: u64, window: &Window) {
        if window.visits.is_empty() {
            return;
        }
        travel::visit(&mut self.visits, &mut self.places, start_ms, window);
        if start_ms < self.first_ms + TRAVEL_LEARNING_MS {
            return;
        }
        if let Some((km, home, away)) = travel::farthest(&self.visits) {
            let bits = travel::bits(self.known.networks.len());
            let shown = [home, away].map(|visit| Shown {
                kind: Signal::Travel,
                value: visit.place.into(),
                calls: 0,
                is_new: false,
            });
            let seen = thousandths(km) / 1_000;
            let observed = ObservedSignal::new(Signal::Travel, start_ms, bits);
            self.observe(ObservedSignal { seen, shown: SmallVec::from_slice(&shown), ..observed });
        }
    }

    fn learn_values(&mut self, start_ms: u64, window: &Window) {
        // What was there on the first day is the key's own.
        let learned = if self.is_known(start_ms) { Learned::OnProbation } else { Learned::Known };
        let of_allowed = window.of_allowed.as_deref();
        let mut elapsed = None;
        for (known, (kind, values)) in self.known.all_mut().into_iter().zip(window.values.all()) {
            let learned = match kind {
                Signal::Network | Signal::Route => Learned::Known,
                _ => learned,
            };
            known.learn_after(values.values(), &mut elapsed, start_ms, learned);
            if let Some(values) = of_allowed.and_then(|allowed| allowed.of(kind)) {
                known.learn_as(values.values(), start_ms, Learned::Allowed);
            }
        }
        if window.tor > 0 {
            self.tor_ms = start_ms;
        }
        if self.learning() {
            self.refused.learn(window.refused, window.calls, start_ms);
            self.throttled.learn(window.throttled, window.calls, start_ms);
            self.mix.learn(window.values.routes.values(), start_ms);
        }
    }

    /// Returns the commonest value of each kind in a window.
    fn foremost(&self, window: &Window) -> SmallVec<[Shown; 1]> {
        let kinds = window.values.all().into_iter().zip(self.known.all());
        kinds.flat_map(|((kind, tally), (_, known))| top(tally, kind, known, 1)).collect()
    }

    fn observe(&mut self, observed: ObservedSignal) {
        if observed.bits > Bits::NONE {
            keep(&mut self.observed, observed);
        }
    }

    /// Forgets what is older than an hour.
    fn forget(&mut self) {
        let oldest = self.next_ms.saturating_sub(MEMORY_MS);
        self.observed.retain(|observed| observed.last_ms + WINDOW_MS > oldest);
    }

    /// Decides how much of each signal counts.
    fn count(&mut self) {
        count(&mut self.observed, self.first_ms + LEARNING_MS, !self.known.asns.is_empty());
    }

    /// Adds up the signals of the last hour.
    fn settle(&mut self, tuning: &Tuning) {
        // Whoever settles at a time, and however often, the same signals count.
        self.forget();
        self.count();
        self.verdict = verdict(tuning, &self.observed, self.is_well_known());
        self.frozen = match (self.verdict.severity >= Severity::Alert, self.frozen) {
            (false, _) => Frozen::No,
            (true, Frozen::No) => Frozen::Since(self.next_ms),
            // A day is enough: what lasts longer is how it is now.
            (true, Frozen::Since(since_ms)) if self.next_ms >= since_ms + FROZEN_MS => Frozen::NoMore,
            (true, frozen) => frozen,
        };
    }
}

/// Returns whether the hard facts of an open window include that all of its calls are refused. Who is turned away takes
/// nothing, and the rest of the window may be answered.
fn is_refused(hard: &[(Signal, Bits)]) -> bool {
    hard.iter().any(|(signal, bits)| *signal == Signal::Revoked && *bits <= REFUSED)
}

/// Returns whether what is said, with the signals before it, is so far beyond an alert that one window suffices.
fn is_beyond_doubt(
    before: [Bits; Signal::ALL.len()],
    said: impl Iterator<Item = (Signal, Bits)>,
    tuning: &Tuning,
) -> bool {
    let mut all = before;
    for (signal, bits) in said {
        all[signal as usize] = bits.max(all[signal as usize]);
    }
    let mut others = all;
    for signal in Signal::ALL.iter().filter(|signal| signal.family() == Family::Volume) {
        others[*signal as usize] = Bits::NONE;
    }
    let odds = |bits| Verdict::of(tuning, Signal::ALL.iter().copied().zip(bits)).odds;
    odds(others) >= tuning.prior + CORROBORATES && odds(all) >= tuning.alert + EARLY
}

/// Returns whether a signal is about one new place, whose calls are counted apart from all others.
fn is_followed_place(one: &ObservedSignal) -> bool {
    one.value != 0 && matches!(one.signal, Signal::Country | Signal::Asn | Signal::Network)
}

fn share(whole: Bits, of_value: u32, calls: u32) -> Bits {
    let share = (WHOLE * u64::from(of_value)).min(calls.into());
    Bits(u32::try_from(u64::from(whole.0) * share / u64::from(calls)).unwrap_or(Bits::MOST.0))
}

fn thousandths(calls: f64) -> u64 {
    #[expect(clippy::cast_sign_loss, reason = "expected calls aren't negative, and a cast saturates")]
    let thousandths = (calls * 1_000.0) as u64;
    thousandths
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// 2025-06-02T00:00:00Z, a Monday.
    const MONDAY_MS: u64 = 1_748_822_400_000;
    const HOME: u64 = 1;
    const AWAY: u64 = 2;

    /// Calls from one place, with its agent, of three routes.
    fn window(calls: u32, place: u64) -> Window {
        let mut window = Window { calls, ..Window::default() };
        for tally in [
            &mut window.values.countries,
            &mut window.values.asns,
            &mut window.values.networks,
            &mut window.values.agents,
        ] {
            tally.add(place, calls);
        }
        window.statuses.add(200, calls);
        for (route, part) in [(1, 2), (2, 3), (3, 6)] {
            window.values.routes.add(route, (calls / part).max(1));
        }
        window
    }

    fn both(first: &Window, second: &Window) -> Window {
        let mut sum = first.clone();
        sum.calls += second.calls;
        sum.refused += second.refused;
        sum.statuses.merge(&second.statuses);
        for (into, (_, other)) in sum.values.all_mut().into_iter().zip(second.values.all()) {
            into.merge(other);
        }
        sum
    }

    /// A key's usual calls of a minute, 10 to 16.
    fn usual(minute: u64) -> Window {
        window(10 + (minute.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 61) as u32, HOME)
    }

    /// A key with so many days of usual calls, and the highest severity on the way.
    fn known(days: u64) -> (Profile, Severity) {
        let mut profile = Profile::new(MONDAY_MS);
        let mut most = Severity::None;
        for minute in 0..days * 1_440 {
            profile.step(
                MONDAY_MS + minute * WINDOW_MS,
                &usual(minute),
                &Facts::default(),
                &Tuning::default(),
            );
            most = most.max(profile.verdict().severity);
        }
        (profile, most)
    }

    /// Steps `minutes` with the usual calls and others.
    fn staged(profile: &mut Profile, minutes: u64, other: &Window, facts: &Facts) -> Severity {
        let mut most = Severity::None;
        for minute in 0..minutes {
            let window = both(&usual(minute), other);
            profile.step(profile.next_ms(), &window, facts, &Tuning::default());
            most = most.max(profile.verdict().severity);
        }
        most
    }

    /// Steps `minutes` with nothing but a window's calls.
    fn staged_alone(profile: &mut Profile, minutes: u64, window: &Window, facts: &Facts) -> Severity {
        let mut most = Severity::None;
        for _ in 0..minutes {
            profile.step(profile.next_ms(), window, facts, &Tuning::default());
            most = most.max(profile.verdict().severity);
        }
        most
    }

    #[test]
    fn what_a_person_accepts_is_normal_and_more_of_it_is_not() {
        let (mut profile, _) = known(14);
        let other = window(200, AWAY);
        let nothing = Facts::default();
        assert_eq!(staged(&mut profile, 60, &other, &nothing), Severity::Revoke);
        assert!(!profile.learning());
        profile.accept(&Tuning::default());
        assert_eq!((profile.verdict().severity, profile.observed().len()), (Severity::None, 0));
        assert!(profile.learning());
        assert!(staged(&mut profile, 600, &other, &nothing) < Severity::Alert, "{:?}", profile.observed());
        let more = both(&other, &window(4_000, 3));
        assert!(staged(&mut profile, 10, &more, &nothing) >= Severity::Alert, "{:?}", profile.observed());
    }

    #[test]
    fn facts_of_the_tables_outlive_what_a_person_accepts() {
        let (mut profile, _) = known(3);
        let facts = Facts { reported_ms: Some(profile.next_ms()), ..Facts::default() };
        staged(&mut profile, 5, &window(1, AWAY), &facts);
        profile.accept(&Tuning::default());
        assert_eq!(profile.observed().iter().map(|one| one.signal).collect::<Vec<_>>(), [Signal::Reported]);
        assert_eq!(profile.verdict().severity, Severity::Revoke);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn whatever_is_accepted_is_no_alert_for_as_long_as_it_goes_on(
            calls in prop::sample::select(vec![1_u32, 5, 40, 300, 3_000]), place in 2_u64..4,
            refused in prop::sample::select(vec![0_u32, 1, 3]), minutes in 5_u64..200,
        ) {
            let (mut profile, _) = known(4);
            let mut other = window(calls, place);
            other.refused = calls * refused / 3;
            let nothing = Facts::default();
            staged(&mut profile, minutes, &other, &nothing);
            profile.accept(&Tuning::default());
            let most = staged(&mut profile, 400, &other, &nothing);
            prop_assert!(most < Severity::Alert, "{most:?} {:?}", profile.observed());
        }
    }

    #[test]
    fn usual_calls_raise_no_alarm() {
        let (profile, most) = known(5);
        assert_eq!(most, Severity::None, "{:?}", profile.observed());
    }

    #[test]
    fn a_burst_from_elsewhere_is_a_leak_within_two_minutes() {
        let (mut profile, _) = known(3);
        assert_eq!(staged(&mut profile, 2, &window(300, AWAY), &Facts::default()), Severity::Revoke);
        let signals: Vec<Signal> = profile.observed().iter().map(|observed| observed.signal).collect();
        for signal in [Signal::Country, Signal::Asn, Signal::Agent, Signal::VolumeMinute] {
            assert!(signals.contains(&signal), "{signal:?} {signals:?}");
        }
    }

    #[test]
    fn a_key_with_an_allow_list_is_known_by_its_allowed_calls() {
        let allowed = |calls: u32| {
            let of_allowed = Some(Box::new(window(calls, HOME).values));
            Window { calls, allowed: calls, of_allowed, ..Window::default() }
        };
        let mut profile = Profile::new(MONDAY_MS);
        for minute in 0..3 * 1_440 {
            let start_ms = MONDAY_MS + minute * WINDOW_MS;
            profile.step(start_ms, &allowed(usual(minute).calls), &Facts::default(), &Tuning::default());
        }
        assert_eq!(profile.observed(), []);
        // Whatever the owner does from there, it says nothing but of how much.
        profile.step(profile.next_ms(), &allowed(12), &Facts::default(), &Tuning::default());
        assert_eq!(profile.verdict().severity, Severity::None);
        assert!(staged(&mut profile, 2, &window(300, AWAY), &Facts::default()) >= Severity::Alert);
        let signals: Vec<Signal> = profile.observed().iter().map(|observed| observed.signal).collect();
        assert!([Signal::Country, Signal::Asn, Signal::Agent].iter().all(|one| signals.contains(one)));
    }

    #[test]
    fn what_usual_networks_do_counts_half() {
        let (mut profile, _) = known(3);
        let (mut at_home, strange) = (window(300, HOME), window(300, AWAY).values);
        at_home.values.agents = strange.agents;
        let mut elsewhere = at_home.clone();
        elsewhere.values.networks = strange.networks;
        let mut other = profile.clone();
        staged(&mut profile, 2, &at_home, &Facts::default());
        staged(&mut other, 2, &elsewhere, &Facts::default());
        for signal in [Signal::Agent, Signal::VolumeMinute] {
            let of = |profile: &Profile| {
                let one = profile.observed().iter().find(|one| one.signal == signal).cloned();
                one.unwrap_or_else(|| panic!("{signal:?}"))
            };
            let (at_home, elsewhere) = (of(&profile), of(&other));
            assert_eq!((at_home.bits, at_home.counted.0), (elsewhere.bits, elsewhere.bits.0 / 2));
            assert_eq!(elsewhere.counted, elsewhere.bits);
        }
    }

    #[test]
    fn a_burst_from_home_alerts_and_never_revokes() {
        let (mut profile, _) = known(3);
        assert_eq!(staged(&mut profile, 90, &window(5_000, HOME), &Facts::default()), Severity::Alert);
    }

    #[test]
    fn somebody_else_who_calls_little_is_noticed() {
        let (mut profile, _) = known(3);
        assert!(staged(&mut profile, 30, &window(3, AWAY), &Facts::default()) >= Severity::Alert);
    }

    #[test]
    fn an_owner_who_moves_takes_the_usual_calls_along() {
        let (profile, _) = known(3);
        let origin = |profile: &Profile| {
            let of = |signal| profile.observed().iter().find(|one| one.signal == signal).cloned().unwrap();
            [Signal::Country, Signal::Asn].map(of)
        };
        // For two hours all calls come from elsewhere, or some while the usual ones go on.
        let (mut moved, mut shared) = (profile.clone(), profile);
        staged_alone(&mut moved, 120, &window(12, AWAY), &Facts::default());
        staged(&mut shared, 120, &window(12, AWAY), &Facts::default());
        for one in origin(&moved) {
            assert!(one.has_moved && one.counted.0 == one.bits.0 / 2 && one.others == 0, "{one:?}");
        }
        for one in origin(&shared) {
            assert!(!one.has_moved && one.counted == one.bits && one.usual > 1_000_000, "{one:?}");
        }
        assert!(moved.verdict().odds < shared.verdict().odds);
        // The owner is back.
        staged_alone(&mut moved, 120, &both(&window(12, HOME), &window(1, AWAY)), &Facts::default());
        assert!(origin(&moved).iter().all(|one| !one.has_moved));
    }

    #[test]
    fn an_agent_of_one_call_takes_no_key_from_its_owner() {
        let (profile, _) = known(3);
        let place = |calls| {
            let mut elsewhere = window(calls, AWAY);
            elsewhere.values.agents = window(calls, HOME).values.agents;
            elsewhere
        };
        let mut visited = profile.clone();
        staged(&mut visited, 1, &window(1, AWAY), &Facts::default());
        assert_eq!(staged(&mut visited, 5, &place(40), &Facts::default()), Severity::Alert);
        let mut taken = profile;
        assert_eq!(staged(&mut taken, 5, &window(40, AWAY), &Facts::default()), Severity::Revoke);
    }

    #[test]
    fn a_place_that_stays_for_half_a_day_beside_the_owner_says_three_bits_more() {
        let (mut shared, _) = known(3);
        let mut moved = shared.clone();
        let begun_ms = shared.next_ms();
        let first = shared.known.asns.bits();
        let staying = |profile: &Profile| profile.known.asns.staying(AWAY);
        // A few calls an hour from elsewhere: beside the usual calls, and instead of them.
        for hour in 0..12 {
            assert_eq!(staying(&shared), None, "{hour}");
            staged(&mut shared, 1, &window(4, AWAY), &Facts::default());
            if hour < 11 {
                staged(&mut shared, 59, &Window::default(), &Facts::default());
            }
            let at_ms = begun_ms + hour * HOUR_MS;
            moved.step(at_ms, &window(4, AWAY), &Facts::default(), &Tuning::default());
        }
        assert_eq!(staying(&shared), Some(Bits(first.0 + 3_000)));
        assert_eq!(staying(&moved), None);
        // It counts from the next call on.
        let asn = |profile: &Profile| {
            let mut places = profile.observed().iter().filter(|one| one.signal == Signal::Asn);
            places.next().map(|one| one.whole)
        };
        assert_eq!(asn(&shared), Some(first));
        staged(&mut shared, 1, &window(4, AWAY), &Facts::default());
        assert_eq!(asn(&shared), Some(Bits(first.0 + 3_000)));
    }

    #[test]
    fn a_client_that_came_apart_counts_a_quarter_beside_a_new_place() {
        let (mut profile, _) = known(3);
        // A client from another network of the usual system.
        let mut client = window(2, AWAY);
        (client.values.countries, client.values.asns) =
            (window(2, HOME).values.countries, window(2, HOME).values.asns);
        let agent = |profile: &Profile| {
            let mut agents = profile.observed().iter().filter(|one| one.signal == Signal::Agent);
            agents.next().map(|one| (one.bits.0, one.counted.0)).unwrap()
        };
        let mut taken = profile.clone();
        staged(&mut profile, 3, &client, &Facts::default());
        let (bits, counted) = agent(&profile);
        assert_eq!(bits, counted);
        // Somebody else calls from elsewhere, with the usual client.
        let mut elsewhere = window(2, AWAY);
        elsewhere.values.agents = window(2, HOME).values.agents;
        staged(&mut profile, 1, &elsewhere, &Facts::default());
        let (bits, counted) = agent(&profile);
        assert_eq!(counted, bits / 4);
        // A stranger comes with both, or changes the client later.
        staged(&mut taken, 1, &elsewhere, &Facts::default());
        staged(&mut taken, 1, &window(2, AWAY), &Facts::default());
        let (bits, counted) = agent(&taken);
        assert_eq!(bits, counted);
    }

    #[test]
    fn a_leak_does_not_become_the_baseline_within_a_day_and_does_after() {
        let (mut profile, _) = known(3);
        let before = profile.rate.expected(Slot::at(profile.next_ms(), 0), HOUR_MS);
        staged(&mut profile, 600, &window(300, AWAY), &Facts::default());
        let during = profile.rate.expected(Slot::at(profile.next_ms(), 0), HOUR_MS);
        assert!(during < 1.5 * before, "{before} {during}");
        staged(&mut profile, 2_000, &window(300, AWAY), &Facts::default());
        let after = profile.rate.expected(Slot::at(profile.next_ms(), 0), HOUR_MS);
        assert!(after > 3.0 * before, "{before} {after}");
    }

    #[test]
    fn a_key_stays_as_well_known_while_it_alerts() {
        let (mut profile, _) = known(3);
        let before = profile.known_calls();
        staged(&mut profile, 40, &window(300, AWAY), &Facts::default());
        assert!(profile.is_well_known());
        // An hour that ended meanwhile is of the time before by now; the burst of the first minute isn't.
        let usual_of_an_hour = 16 * 60;
        assert!(
            profile.known_calls().abs_diff(before) < usual_of_an_hour,
            "{before} {}",
            profile.known_calls()
        );
    }

    #[test]
    fn hard_facts_but_not_of_publishable_keys() {
        let (profile, _) = known(2);
        let revoked = Facts { revoked_ms: Some(profile.next_ms() - HOUR_MS), ..Facts::default() };
        assert_eq!(staged(&mut profile.clone(), 1, &window(1, HOME), &revoked), Severity::Revoke);
        let publishable = Facts { publishable: true, ..revoked.clone() };
        assert_eq!(staged(&mut profile.clone(), 1, &window(1, HOME), &publishable), Severity::None);
        // Who is turned away is noticed and no more, however loud; once one call is answered nothing is worse.
        let refused = |calls| Window {
            refused: calls,
            statuses: [(403, calls)].into_iter().collect(),
            ..window(calls, AWAY)
        };
        let mut turned_away = profile.clone();
        assert_eq!(staged_alone(&mut turned_away, 3, &refused(1), &revoked), Severity::Notice);
        assert_eq!(staged_alone(&mut turned_away, 20, &refused(400), &revoked), Severity::Notice);
        let answered = both(&refused(400), &window(1, AWAY));
        assert_eq!(staged_alone(&mut turned_away, 1, &answered, &revoked), Severity::Revoke);
        let later = Facts { revoked_ms: Some(profile.next_ms() + HOUR_MS), ..Facts::default() };
        assert_eq!(staged(&mut profile.clone(), 1, &window(1, HOME), &later), Severity::None);
        // Asleep for 40 days, then called from elsewhere, or from home.
        for (place, severity) in [(AWAY, Severity::Revoke), (HOME, Severity::None)] {
            let mut profile = profile.clone();
            let woken_ms = profile.next_ms() + 40 * DAY_MS;
            // The table's word, as the profile itself forgets systems after 30 days.
            profile.close(woken_ms, &Tuning::default());
            profile.known.asns.learn(&[(HOME, 1)], woken_ms - DAY_MS);
            profile.step(woken_ms, &window(3, place), &Facts::default(), &Tuning::default());
            assert_eq!(profile.verdict().severity, severity, "{place} {:?}", profile.observed());
        }
    }

    #[test]
    fn who_is_known_by_the_tables_alone_alerts_when_it_wakes_and_no_more() {
        let facts = Facts { last_used_ms: Some(MONDAY_MS - 40 * DAY_MS), ..Facts::default() };
        let mut profile = Profile::new(MONDAY_MS);
        profile.step(MONDAY_MS, &window(3, HOME), &facts, &Tuning::default());
        assert_eq!(profile.verdict().severity, Severity::Alert, "{:?}", profile.observed());
    }

    #[test]
    fn without_systems_a_dormant_key_wakes_by_its_networks() {
        let facts = Facts { last_used_ms: Some(MONDAY_MS - 40 * DAY_MS), ..Facts::default() };
        let mut profile = Profile::new(MONDAY_MS);
        let mut unlocated = window(3, HOME);
        unlocated.values.asns = ValueCounts::default();
        profile.step(MONDAY_MS, &unlocated, &facts, &Tuning::default());
        assert_eq!(profile.verdict().severity, Severity::Alert, "{:?}", profile.observed());
    }

    #[test]
    fn a_burst_does_not_make_its_own_key_known() {
        let mut profile = Profile::new(MONDAY_MS);
        for day in 0..20 {
            let at_ms = MONDAY_MS + day * DAY_MS;
            profile.step(at_ms, &window(2, HOME), &Facts::default(), &Tuning::default());
        }
        let woken_ms = profile.next_ms() + HOUR_MS;
        profile.step(woken_ms, &window(500, AWAY), &Facts::default(), &Tuning::default());
        assert!(!profile.is_well_known() && profile.verdict().severity < Severity::Revoke);
    }

    #[test]
    fn nobody_is_at_two_ends_of_the_earth_within_an_hour() {
        let at = |place: crate::model::CallerLocation, minute: u64| {
            let time = MONDAY_MS + minute * WINDOW_MS;
            let visit = Visit { place: place.packed(), first_ms: time, last_ms: time, is_new: false };
            Window { visits: SmallVec::from_elem(visit, 1), ..window(2, HOME) }
        };
        let place = |class, latitude, longitude| {
            crate::model::CallerLocation::new(class, Some((latitude, longitude)))
        };
        let unlisted = crate::model::NetworkClass::Unlisted;
        let (berlin, potsdam) = (place(unlisted, 52.5, 13.4), place(unlisted, 52.4, 13.1));
        let sydney = place(unlisted, -33.9, 151.2);
        let travels = |days: u64, away| {
            let mut profile = Profile::new(MONDAY_MS);
            let minutes = (0..days * 24).map(|hour| (hour * 60, berlin));
            let last = days * 1_440;
            for (minute, place) in minutes.chain([(last, berlin), (last + 20, away), (last + 40, berlin)]) {
                let start_ms = MONDAY_MS + minute * WINDOW_MS;
                profile.step(start_ms, &at(place, minute), &Facts::default(), &Tuning::default());
            }
            profile.observed().iter().any(|observed| observed.signal == Signal::Travel)
        };
        assert!(travels(8, sydney));
        assert!(!travels(8, potsdam), "next door");
        assert!(!travels(3, sydney), "not learned yet");
        let km = travel::distance_km(berlin.packed(), sydney.packed());
        assert!((16_000.0..16_200.0).contains(&km), "{km}");
    }

    #[test]
    fn an_hour_later_all_is_quiet_again() {
        let (mut profile, _) = known(3);
        staged(&mut profile, 3, &window(300, AWAY), &Facts::default());
        let end_ms = profile.next_ms();
        profile.close(end_ms + MEMORY_MS - 2 * WINDOW_MS, &Tuning::default());
        assert!(profile.verdict().severity >= Severity::Alert);
        // The last signal is that of the five minutes in which the calls were.
        profile.close(end_ms + MEMORY_MS + FIVE_MINUTES_MS, &Tuning::default());
        assert_eq!(profile.verdict().severity, Severity::None);
        assert!(profile.observed().is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Asking for ends of blocks in between changes nothing, nor does being stored.
        #[test]
        fn however_it_is_stepped_the_profile_is_the_same(
            steps in prop::collection::vec((1_u64..2_000, 1_u32..400, 0_u64..4), 1..40),
        ) {
            let (mut whole, mut parts) = (Profile::new(MONDAY_MS), Profile::new(MONDAY_MS));
            for (gap, calls, place) in steps {
                let at_ms = whole.next_ms() + gap * WINDOW_MS;
                let window = window(calls, place);
                whole.step(at_ms, &window, &Facts::default(), &Tuning::default());
                // As if somebody had asked at several times in between.
                for width_ms in [FIVE_MINUTES_MS, HOUR_MS, 7 * WINDOW_MS] {
                    let end_ms = parts.next_ms().next_multiple_of(width_ms);
                    if (parts.next_ms()..=at_ms).contains(&end_ms) {
                        parts.close(end_ms, &Tuning::default());
                    }
                }
                parts = postcard::from_bytes(&postcard::to_stdvec(&parts).unwrap()).unwrap();
                parts.step(at_ms, &window, &Facts::default(), &Tuning::default());
                prop_assert_eq!(whole.verdict(), parts.verdict());
            }
            prop_assert_eq!(whole, parts);
        }

        /// An owner's new client, then a new place, are no reason to take the key, however much both call.
        #[test]
        fn a_client_that_came_without_the_place_takes_no_key(
            with_client in 1_u32..60, minutes in 1_u64..90, pause in 0_u64..58, from_place in 1_u32..400,
            stays in 1_u64..30, goes_on in any::<bool>(),
        ) {
            let (mut profile, _) = known(2);
            let (mut client, mut elsewhere) = (window(with_client, HOME), window(from_place, AWAY));
            client.values.agents = window(with_client, AWAY).values.agents;
            elsewhere.values.agents = window(from_place, HOME).values.agents;
            let later = if goes_on { both(&elsewhere, &client) } else { elsewhere };
            let mut most = staged(&mut profile, minutes, &client, &Facts::default());
            for (minutes, other) in [(pause, &Window::default()), (stays, &later)] {
                most = most.max(staged(&mut profile, minutes, other, &Facts::default()));
            }
            prop_assert!(most < Severity::Revoke, "{:?}", profile.observed());
        }

        /// What an open window says beyond doubt its end says too.
        #[test]
        fn what_fires_early_fires_at_the_windows_end(
            before in prop::collection::vec((1_u32..400, 0_u64..3), 0..6), calls in 1_u32..4_000, more in 0_u32..4_000,
            away in 0_u64..3, revoked in any::<bool>(),
        ) {
            let (mut profile, _) = known(2);
            let facts = Facts { revoked_ms: revoked.then_some(MONDAY_MS), ..Facts::default() };
            for (calls, place) in before {
                profile.step(profile.next_ms(), &window(calls, place + 1), &Facts::default(), &Tuning::default());
            }
            let (start_ms, tuning) = (profile.next_ms(), Tuning::default());
            let open = window(calls, HOME + away);
            let (is_suspect, may_fire) = (
                profile.is_suspect(start_ms, calls.into(), false, &facts),
                profile.may_fire(start_ms, &open, &facts),
            );
            let early = profile.early(start_ms, &open, &facts, &tuning);
            prop_assert!(is_suspect >= may_fire && may_fire >= early.is_some());
            let Some(early) = early else { return Ok(()) };
            prop_assert!(early.verdict().severity >= Severity::Alert);
            // The calls before the mark are learned as they are if no others come.
            let mut same = profile.clone();
            same.step(start_ms, &open, &facts, &tuning);
            prop_assert_eq!(
                (&early.season, &early.minute.scale, early.hour_learned),
                (&same.season, &same.minute.scale, same.hour_learned)
            );
            profile.step(start_ms, &both(&open, &window(more, HOME)), &facts, &tuning);
            prop_assert!(profile.verdict().odds >= early.verdict().odds);
        }
    }

    proptest! {
        /// A profile of few calls needn't be kept: made again of its windows, without the blocks that were judged at their
        /// ends, it says the same of the next window, as long as it had no score.
        #[test]
        fn a_profile_of_few_calls_can_be_made_again(
            windows in prop::collection::vec((1_u64..60_000, 0_u64..3, 1_u32..3, 0_u64..24), 2..8),
            last_used_days in prop::option::of(1_u64..200),
            tor in any::<bool>(),
        ) {
            let facts = Facts {
                last_used_ms: last_used_days.map(|days| MONDAY_MS - days * DAY_MS),
                ..Facts::default()
            };
            let tuning = Tuning::default();
            let mut kept = Profile::new(MONDAY_MS);
            let mut steps: Vec<(u64, Window)> = Vec::new();
            let mut due = std::collections::BTreeSet::new();
            let mut minute = 0;
            for (index, (pause, place, calls, status)) in windows.into_iter().enumerate() {
                minute += if index == 0 { 0 } else { pause };
                let start_ms = MONDAY_MS + minute * WINDOW_MS;
                while let Some(end_ms) = due.pop_first().filter(|end_ms| *end_ms <= start_ms) {
                    if kept.next_ms() < end_ms {
                        kept.close(end_ms, &tuning);
                        due.extend(kept.ends_worth_asking());
                    }
                }
                if kept.verdict().score() > 0 {
                    break;
                }
                let mut of_window = window(calls, [HOME, AWAY, AWAY + 1][place as usize]);
                if status == 0 {
                    of_window.refused = calls;
                }
                of_window.tor = if tor && status == 1 { calls } else { 0 };
                let mut again = Profile::new(MONDAY_MS);
                for (start_ms, of_window) in &steps {
                    again.step(*start_ms, of_window, &facts, &tuning);
                }
                let judged = kept.step(start_ms, &of_window, &facts, &tuning);
                let judged_again = again.step(start_ms, &of_window, &facts, &tuning);
                prop_assert_eq!(judged.networks, judged_again.networks);
                prop_assert_eq!(kept.verdict(), again.verdict());
                prop_assert_eq!(kept.observed(), again.observed());
                due.extend(kept.ends_worth_asking());
                steps.push((start_ms, of_window));
                if kept.verdict().score() > 0 {
                    break;
                }
            }
        }
    }
}
