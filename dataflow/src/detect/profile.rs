//! One key's profile: the ordered fold over its windows, and the signals of its last hour.
//!
//! A window is stepped once, when it is closed, in the order of time:
//! 1. the windows before it, without calls, are learned, runs of them at once; after a day without calls levels and
//!    rates decay and nothing else is learned;
//! 2. every signal judges the window by what was learned so far;
//! 3. the window is learned, unless the key is *frozen*: while its level is alert or more, for a day at most, level,
//!    variance, season and rate learn nothing, so that a leak doesn't become the baseline.
//!
//! Blocks of five minutes and of an hour are judged at their end, which is that of a window with calls, or is asked
//! for ([`Profile::close`]).
//!
//! A signal counts for an hour with the most it said. New values go on counting as long as they keep a twentieth of
//! the calls, for a day at most. Volume says nothing in a key's first day, and only of at least 10 calls, 50 an hour
//! and three times what was expected, in two of three windows that follow each other.
//!
//! A key with fewer than 300 calls of the last month alerts at most, unless by a hard fact.
//!
//! Limits: 64 values of each kind, 12 signals of the last hour with values of their own. About 3 KiB.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::combine::{Family, Level, Signal, Verdict};
use super::counts::{Prior, Rate};
use super::errors::Share;
use super::mix::Mix;
use super::novelty::Values;
use super::series::FEW;
use super::volume::{Reading, Scale, Season, Slot};
use super::window::{Tally, Window};
use super::{Bits, DAY_MS, HOUR_MS};

/// Width of a window.
pub const WINDOW_MS: u64 = 60_000;
const FIVE_MINUTES_MS: u64 = 5 * WINDOW_MS;
/// Signals count so long.
const MEMORY_MS: u64 = HOUR_MS;
const FROZEN_MS: u64 = DAY_MS;
const LEARNING_MS: u64 = DAY_MS;
const DORMANT_MS: u64 = 30 * DAY_MS;
/// New values that are followed, of each kind in a window and of all.
const FOLLOWED_OF_A_KIND: usize = 4;
const FOLLOWED: usize = 12;
/// A new value says all that it can say where one call in so many has it.
const WHOLE: u64 = 4;
/// A new value counts as long as so much of a window's calls have it: one in ...
const STAYS: u32 = 20;
/// A key that was called less often isn't known well enough to be taken from anybody: it alerts at most.
const KNOWN_CALLS: f64 = 300.0;
/// What a hard fact says.
const HARD: Bits = Bits(40_000);

/// What tables say of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// When it was revoked, if it is.
    pub revoked_ms: Option<u64>,
    /// When it was last used before the job saw it.
    pub last_used_ms: Option<u64>,
    /// Whether it is meant to be public: hard facts say nothing then.
    pub publishable: bool,
}

/// One signal of the last hour, with its evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Spoken {
    /// Which.
    pub signal: Signal,
    /// The value that was new; 0 for signals that aren't about one, and for many values together.
    pub value: u64,
    /// Start of the window in which it said most.
    pub window_ms: u64,
    /// When it last spoke.
    pub last_ms: u64,
    /// When it first spoke.
    pub first_ms: u64,
    /// The most it said.
    pub bits: Bits,
    /// What a value's calls would say if they were all there are.
    whole: Bits,
    /// What was expected, in thousandths of a call.
    pub expected: u64,
    /// What was seen instead.
    pub seen: u64,
}

/// A span of windows that is judged at its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Block {
    signal: Signal,
    width_ms: u64,
    scale: Scale,
    calls: u64,
    spikes: u8,
}

impl Block {
    fn new(signal: Signal, width_ms: u64) -> Self {
        Self { signal, width_ms, scale: Scale::new(width_ms), calls: 0, spikes: 0 }
    }
}

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Profile {
    first_ms: u64,
    /// Start of the first window that wasn't learned.
    next_ms: u64,
    last_call_ms: u64,
    season: Season,
    rate: Rate,
    minute: Block,
    five_minutes: Block,
    hour: Block,
    fan_out: Scale,
    networks_now: Tally,
    countries: Values,
    asns: Values,
    networks: Values,
    agents: Values,
    routes: Values,
    refused: Share,
    throttled: Share,
    mix: Mix,
    spoken: SmallVec<[Spoken; 1]>,
    verdict: Verdict,
    frozen_since_ms: Option<u64>,
}

impl Profile {
    /// Of a key whose first window starts at `start_ms`.
    #[must_use]
    pub fn new(start_ms: u64) -> Self {
        Self {
            first_ms: start_ms,
            next_ms: start_ms,
            last_call_ms: 0,
            season: Season::default(),
            rate: Rate::default(),
            minute: Block::new(Signal::VolumeMinute, WINDOW_MS),
            five_minutes: Block::new(Signal::VolumeFiveMinutes, FIVE_MINUTES_MS),
            hour: Block::new(Signal::VolumeHour, HOUR_MS),
            fan_out: Scale::new(FIVE_MINUTES_MS),
            networks_now: Tally::default(),
            countries: Values::default(),
            asns: Values::default(),
            networks: Values::default(),
            agents: Values::default(),
            routes: Values::default(),
            refused: Share::default(),
            throttled: Share::default(),
            mix: Mix::default(),
            spoken: SmallVec::new(),
            verdict: Verdict::default(),
            frozen_since_ms: None,
        }
    }

    /// What its signals of the last hour add up to.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Its signals of the last hour.
    #[must_use]
    pub fn spoken(&self) -> &[Spoken] {
        &self.spoken
    }

    /// Start of the first window that wasn't learned.
    #[must_use]
    pub fn next_ms(&self) -> u64 {
        self.next_ms
    }

    /// Steps the window that starts at `start_ms`: not before [`next_ms`](Self::next_ms).
    pub fn step(&mut self, start_ms: u64, window: &Window, facts: Facts) {
        self.skip_to(start_ms);
        self.forget();
        self.judge_values(start_ms, window);
        self.judge_facts(start_ms, window, facts);
        self.judge_minute(start_ms, window.calls.into());
        self.learn_values(start_ms, window);
        self.five_minutes.calls += u64::from(window.calls);
        self.hour.calls += u64::from(window.calls);
        self.networks_now.merge(&window.networks);
        self.last_call_ms = start_ms;
        self.next_ms = start_ms + WINDOW_MS;
        self.end_blocks();
        self.settle();
    }

    /// Steps the windows up to `end_ms` without calls.
    pub fn close(&mut self, end_ms: u64) {
        self.skip_to(end_ms);
        self.settle();
    }

    fn learning(&self) -> bool {
        self.frozen_since_ms.is_none()
    }

    /// Learns that nothing was called until `end_ms`.
    fn skip_to(&mut self, end_ms: u64) {
        // To the end of the hour window by window, so that its blocks end where they do; then hours at once.
        while self.next_ms < end_ms {
            let hour_ends = (self.next_ms / HOUR_MS + 1) * HOUR_MS;
            let whole_hours = (end_ms - self.next_ms) / HOUR_MS;
            let is_quiet = self.spoken.is_empty() && self.learning() && self.hour.calls == 0;
            if self.next_ms.is_multiple_of(HOUR_MS) && whole_hours > 0 && is_quiet {
                match self.next_ms < self.last_call_ms + DAY_MS {
                    true => self.skip(HOUR_MS),
                    false => self.doze(whole_hours * HOUR_MS),
                }
                continue;
            }
            // Whether a frozen key learns again is asked after each window, whoever asks.
            let five_ends = (self.next_ms / FIVE_MINUTES_MS + 1) * FIVE_MINUTES_MS;
            let together = if self.learning() { five_ends } else { self.next_ms + WINDOW_MS };
            self.skip(together.min(hour_ends).min(end_ms) - self.next_ms);
            self.end_blocks();
            if !self.spoken.is_empty() || !self.learning() {
                self.settle();
            }
        }
    }

    /// Learns `span_ms` without calls: an hour, or within a block of five minutes.
    fn skip(&mut self, span_ms: u64) {
        let slot = Slot::at(self.next_ms, 0);
        if self.learning() {
            self.minute.scale.learn_silence(&mut self.season, true, slot, span_ms / WINDOW_MS);
            self.rate.learn(slot, span_ms, 0.0);
            if span_ms == HOUR_MS {
                let blocks = HOUR_MS / FIVE_MINUTES_MS;
                self.five_minutes.scale.learn_silence(&mut self.season, false, slot, blocks);
                self.fan_out.learn_silence(&mut Season::default(), false, slot, blocks);
                self.hour.scale.learn_silence(&mut self.season, false, slot, 1);
            }
        }
        if span_ms == HOUR_MS {
            self.rate.watch(Prior::NONE, slot, span_ms, 0.0);
            (self.five_minutes.spikes, self.hour.spikes) = (0, self.hour.spikes << 1);
        }
        self.minute.spikes = if span_ms > WINDOW_MS { 0 } else { self.minute.spikes << 1 };
        self.next_ms += span_ms;
    }

    /// Passes over `span_ms` without calls that follow a day without: how the key varies isn't learned from it.
    fn doze(&mut self, span_ms: u64) {
        for scale in
            [&mut self.minute.scale, &mut self.five_minutes.scale, &mut self.hour.scale, &mut self.fan_out]
        {
            scale.doze(span_ms);
        }
        self.rate.doze(span_ms);
        (self.minute.spikes, self.five_minutes.spikes, self.hour.spikes) = (0, 0, 0);
        self.next_ms += span_ms;
    }

    /// Judges and learns the blocks that end where the last window did.
    fn end_blocks(&mut self) {
        let end_ms = self.next_ms;
        if end_ms.is_multiple_of(FIVE_MINUTES_MS) {
            self.judge_fan_out(end_ms - FIVE_MINUTES_MS);
            let mut block = self.five_minutes.clone();
            self.judge_block(&mut block, end_ms);
            self.five_minutes = block;
        }
        if end_ms.is_multiple_of(HOUR_MS) {
            let mut block = self.hour.clone();
            self.judge_slow(end_ms - HOUR_MS, block.calls);
            self.judge_block(&mut block, end_ms);
            self.hour = block;
        }
    }

    fn judge_block(&mut self, block: &mut Block, end_ms: u64) {
        let start_ms = end_ms - block.width_ms;
        let slot = Slot::at(start_ms, 0);
        let calls = std::mem::take(&mut block.calls);
        let reading = block.scale.read(&self.season, slot, calls as f64);
        self.judge_volume(block, start_ms, calls, reading);
        if self.learning() {
            block.scale.learn(&self.season, slot, calls as f64, block.width_ms);
        }
    }

    fn judge_minute(&mut self, start_ms: u64, calls: u64) {
        let slot = Slot::at(start_ms, 0);
        let mut block = self.minute.clone();
        let reading = block.scale.read(&self.season, slot, calls as f64);
        self.judge_volume(&mut block, start_ms, calls, reading);
        if self.learning() {
            block.scale.step(&mut self.season, slot, calls as f64, WINDOW_MS);
            self.rate.learn(slot, WINDOW_MS, calls as f64);
        }
        self.minute = block;
    }

    fn judge_slow(&mut self, start_ms: u64, calls: u64) {
        let slot = Slot::at(start_ms, 0);
        self.rate.watch(Prior::NONE, slot, HOUR_MS, calls as f64);
        if self.is_known(start_ms) {
            let expected = self.rate.expected(Prior::NONE, slot, HOUR_MS);
            self.speak(Signal::Slow, start_ms, self.rate.slow(), expected, calls);
        }
    }

    fn is_known(&self, start_ms: u64) -> bool {
        start_ms >= self.first_ms + LEARNING_MS
    }

    fn judge_volume(&mut self, block: &mut Block, start_ms: u64, calls: u64, reading: Reading) {
        block.spikes <<= 1;
        if !self.is_known(start_ms) {
            return;
        }
        let by_rate = self.rate.expected(Prior::NONE, Slot::at(start_ms, 0), block.width_ms);
        let expected = reading.expected.max(by_rate);
        let seen = calls as f64;
        let enough = (50.0 * block.width_ms as f64 / HOUR_MS as f64).max(10.0);
        if reading.bits == Bits::NONE || seen - expected < enough || seen < 3.0 * expected {
            return;
        }
        let bits = match expected < FEW {
            true => {
                reading.bits.min(self.rate.bits(Prior::NONE, Slot::at(start_ms, 0), block.width_ms, seen))
            }
            false => reading.bits,
        };
        block.spikes |= 1;
        if (block.spikes & 0b111).count_ones() >= 2 {
            self.speak(block.signal, start_ms, bits, expected, calls);
        }
    }

    fn judge_fan_out(&mut self, start_ms: u64) {
        let slot = Slot::at(start_ms, 0);
        let seen = std::mem::take(&mut self.networks_now).values().len();
        let flat = Season::default();
        let reading = self.fan_out.read(&flat, slot, seen as f64);
        if self.is_known(start_ms) && seen as f64 >= 3.0 * reading.expected + 10.0 {
            self.speak(Signal::FanOut, start_ms, reading.bits, reading.expected, seen as u64);
        }
        if self.learning() {
            self.fan_out.learn(&flat, slot, seen as f64, FIVE_MINUTES_MS);
        }
    }

    fn judge_values(&mut self, start_ms: u64, window: &Window) {
        let calls = window.calls.max(1);
        // Values that were new stay as long as they keep their share.
        for spoken in self.spoken.iter_mut().filter(|spoken| spoken.value != 0) {
            let Some(tally) = values_of(window, spoken.signal) else { continue };
            let Ok(at) = tally.values().binary_search_by_key(&spoken.value, |entry| entry.0) else {
                continue;
            };
            let of_value = tally.values()[at].1;
            if of_value >= calls / STAYS && start_ms < spoken.first_ms + DAY_MS {
                spoken.last_ms = start_ms;
                let bits = share(spoken.whole, of_value, calls);
                if bits > spoken.bits {
                    (spoken.bits, spoken.window_ms, spoken.seen) = (bits, start_ms, of_value.into());
                }
            }
        }
        for (signal, known) in [
            (Signal::Country, &self.countries),
            (Signal::Asn, &self.asns),
            (Signal::Network, &self.networks),
            (Signal::Agent, &self.agents),
            (Signal::Route, &self.routes),
        ] {
            let Some(tally) = values_of(window, signal) else { continue };
            let mut novel: SmallVec<[_; 8]> = known.novel(tally.values()).collect();
            novel.sort_by_key(|novel| (std::cmp::Reverse(novel.calls), novel.value));
            let (single, rest) = novel.split_at(novel.len().min(FOLLOWED_OF_A_KIND));
            let rest_calls = rest.iter().map(|novel| novel.calls).sum();
            let whole = known.bits();
            let single = single.iter().map(|novel| (novel.value, novel.calls));
            for (value, of_value) in single.chain((rest_calls > 0).then_some((0, rest_calls))) {
                let bits = share(whole, of_value, calls);
                let spoken = Spoken {
                    signal,
                    value,
                    window_ms: start_ms,
                    last_ms: start_ms,
                    first_ms: start_ms,
                    bits,
                    whole,
                    expected: 0,
                    seen: of_value.into(),
                };
                keep(&mut self.spoken, spoken);
            }
        }
    }

    fn judge_facts(&mut self, start_ms: u64, window: &Window, facts: Facts) {
        let refused = self.refused.bits(window.refused, window.calls);
        let throttled = self.throttled.bits(window.throttled, window.calls);
        let share = |share: &Share| share.expected() * f64::from(window.calls);
        let expected = (share(&self.refused), share(&self.throttled));
        if window.refused >= 5 {
            self.speak(Signal::Refused, start_ms, refused, expected.0, window.refused.into());
        }
        if window.throttled >= 5 {
            self.speak(Signal::Throttled, start_ms, throttled, expected.1, window.throttled.into());
        }
        let mix = self.mix.bits(window.routes.values());
        self.speak(Signal::Mix, start_ms, mix, 0.0, window.calls.into());
        if facts.publishable {
            return;
        }
        if facts.revoked_ms.is_some_and(|revoked| start_ms >= revoked + WINDOW_MS) {
            self.speak(Signal::Revoked, start_ms, HARD, 0.0, window.calls.into());
        }
        let last_ms = self.last_call_ms.max(facts.last_used_ms.unwrap_or(0));
        let new_asn = window.asns.values().iter().any(|(asn, _)| !self.asns.knows(*asn));
        if last_ms > 0 && start_ms.saturating_sub(last_ms) > DORMANT_MS && new_asn {
            self.speak(Signal::Dormant, start_ms, HARD, 0.0, window.calls.into());
        }
    }

    fn learn_values(&mut self, start_ms: u64, window: &Window) {
        self.countries.learn(window.countries.values(), start_ms);
        self.asns.learn(window.asns.values(), start_ms);
        self.networks.learn(window.networks.values(), start_ms);
        self.agents.learn(window.agents.values(), start_ms);
        self.routes.learn(window.routes.values(), start_ms);
        if self.learning() {
            self.refused.learn(window.refused, window.calls, start_ms);
            self.throttled.learn(window.throttled, window.calls, start_ms);
            self.mix.learn(window.routes.values(), start_ms);
        }
    }

    fn speak(&mut self, signal: Signal, start_ms: u64, bits: Bits, expected: f64, seen: u64) {
        if bits == Bits::NONE {
            return;
        }
        let spoken = Spoken {
            signal,
            value: 0,
            window_ms: start_ms,
            last_ms: start_ms,
            first_ms: start_ms,
            bits,
            whole: bits,
            expected: thousandths(expected),
            seen,
        };
        keep(&mut self.spoken, spoken);
    }

    /// Forgets what is older than an hour.
    fn forget(&mut self) {
        let oldest = self.next_ms.saturating_sub(MEMORY_MS);
        self.spoken.retain(|spoken| spoken.last_ms + WINDOW_MS > oldest);
    }

    /// Adds up what was said in the last hour.
    fn settle(&mut self) {
        self.forget();
        let mut bits = [Bits::NONE; Signal::ALL.len()];
        for spoken in &self.spoken {
            // Values of one kind share their windows: what they say adds up.
            let of_signal = &mut bits[spoken.signal as usize];
            *of_signal = Bits((of_signal.0 + spoken.bits.0).min(Bits::MOST.0));
        }
        self.verdict = Verdict::of(Signal::ALL.iter().copied().zip(bits));
        let hard = self.spoken.iter().any(|spoken| spoken.signal.family() == Family::Hard);
        if !hard && self.rate.calls() < KNOWN_CALLS {
            self.verdict.level = self.verdict.level.min(Level::Alert);
        }
        self.frozen_since_ms = match (self.verdict.level >= Level::Alert, self.frozen_since_ms) {
            (false, _) => None,
            (true, None) => Some(self.next_ms),
            // A day is enough: what lasts longer is how it is now.
            (true, Some(since)) if self.next_ms >= since + FROZEN_MS => None,
            (true, since) => since,
        };
    }
}

fn values_of(window: &Window, signal: Signal) -> Option<&Tally> {
    match signal {
        Signal::Country => Some(&window.countries),
        Signal::Asn => Some(&window.asns),
        Signal::Network => Some(&window.networks),
        Signal::Agent => Some(&window.agents),
        Signal::Route => Some(&window.routes),
        _ => None,
    }
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

/// Keeps a signal: of several about the same, the one that said most.
fn keep(all: &mut SmallVec<[Spoken; 1]>, spoken: Spoken) {
    let same = |other: &&mut Spoken| (other.signal, other.value) == (spoken.signal, spoken.value);
    if let Some(before) = all.iter_mut().find(same) {
        // What says less than before is heard again once that is an hour ago.
        if spoken.bits >= before.bits {
            *before = Spoken { first_ms: before.first_ms, ..spoken };
        }
        return;
    }
    let followed = all.iter().filter(|spoken| spoken.value != 0).count();
    if spoken.value != 0 && followed >= FOLLOWED {
        return;
    }
    all.push(spoken);
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
        for tally in [&mut window.countries, &mut window.asns, &mut window.networks, &mut window.agents] {
            tally.add(place, calls);
        }
        for (route, part) in [(1, 2), (2, 3), (3, 6)] {
            window.routes.add(route, (calls / part).max(1));
        }
        window
    }

    fn both(first: &Window, second: &Window) -> Window {
        let mut sum = first.clone();
        sum.calls += second.calls;
        sum.refused += second.refused;
        for (into, other) in [
            (&mut sum.countries, &second.countries),
            (&mut sum.asns, &second.asns),
            (&mut sum.networks, &second.networks),
            (&mut sum.agents, &second.agents),
            (&mut sum.routes, &second.routes),
        ] {
            into.merge(other);
        }
        sum
    }

    /// A key's usual calls of a minute, 10 to 16.
    fn usual(minute: u64) -> Window {
        window(10 + (minute.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 61) as u32, HOME)
    }

    /// A key with so many days of usual calls, and the highest level on the way.
    fn known(days: u64) -> (Profile, Level) {
        let mut profile = Profile::new(MONDAY_MS);
        let mut most = Level::None;
        for minute in 0..days * 1_440 {
            profile.step(MONDAY_MS + minute * WINDOW_MS, &usual(minute), Facts::default());
            most = most.max(profile.verdict().level);
        }
        (profile, most)
    }

    /// Steps `minutes` with the usual calls and others.
    fn staged(profile: &mut Profile, minutes: u64, other: &Window, facts: Facts) -> Level {
        let mut most = Level::None;
        for minute in 0..minutes {
            let window = both(&usual(minute), other);
            profile.step(profile.next_ms(), &window, facts);
            most = most.max(profile.verdict().level);
        }
        most
    }

    #[test]
    fn usual_calls_raise_no_alarm() {
        let (profile, most) = known(5);
        assert_eq!(most, Level::None, "{:?}", profile.spoken());
    }

    #[test]
    fn a_burst_from_elsewhere_is_a_leak_within_two_minutes() {
        let (mut profile, _) = known(3);
        assert_eq!(staged(&mut profile, 2, &window(300, AWAY), Facts::default()), Level::Revoke);
        let signals: Vec<Signal> = profile.spoken().iter().map(|spoken| spoken.signal).collect();
        for signal in [Signal::Country, Signal::Asn, Signal::Agent, Signal::VolumeMinute] {
            assert!(signals.contains(&signal), "{signal:?} {signals:?}");
        }
    }

    #[test]
    fn a_burst_from_home_alerts_and_never_revokes() {
        let (mut profile, _) = known(3);
        assert_eq!(staged(&mut profile, 90, &window(5_000, HOME), Facts::default()), Level::Alert);
    }

    #[test]
    fn somebody_else_who_calls_little_is_noticed() {
        let (mut profile, _) = known(3);
        assert!(staged(&mut profile, 30, &window(3, AWAY), Facts::default()) >= Level::Alert);
    }

    #[test]
    fn a_leak_does_not_become_the_baseline_within_a_day_and_does_after() {
        let (mut profile, _) = known(3);
        let before = profile.rate.expected(Prior::NONE, Slot::at(profile.next_ms(), 0), HOUR_MS);
        staged(&mut profile, 600, &window(300, AWAY), Facts::default());
        let during = profile.rate.expected(Prior::NONE, Slot::at(profile.next_ms(), 0), HOUR_MS);
        assert!(during < 1.5 * before, "{before} {during}");
        staged(&mut profile, 2_000, &window(300, AWAY), Facts::default());
        let after = profile.rate.expected(Prior::NONE, Slot::at(profile.next_ms(), 0), HOUR_MS);
        assert!(after > 3.0 * before, "{before} {after}");
    }

    #[test]
    fn hard_facts_but_not_of_publishable_keys() {
        let (profile, _) = known(2);
        let revoked = Facts { revoked_ms: Some(profile.next_ms() - HOUR_MS), ..Facts::default() };
        assert_eq!(staged(&mut profile.clone(), 1, &Window::default(), revoked), Level::Revoke);
        let publishable = Facts { publishable: true, ..revoked };
        assert_eq!(staged(&mut profile.clone(), 1, &Window::default(), publishable), Level::None);
        let later = Facts { revoked_ms: Some(profile.next_ms() + HOUR_MS), ..Facts::default() };
        assert_eq!(staged(&mut profile.clone(), 1, &Window::default(), later), Level::None);
        // Asleep for 40 days, then called from elsewhere, or from home.
        for (place, level) in [(AWAY, Level::Revoke), (HOME, Level::None)] {
            let mut profile = profile.clone();
            let woken_ms = profile.next_ms() + 40 * DAY_MS;
            // The table's word, as the profile itself forgets systems after 30 days.
            profile.close(woken_ms);
            profile.asns.learn(&[(HOME, 1)], woken_ms - DAY_MS);
            profile.step(woken_ms, &window(3, place), Facts::default());
            assert_eq!(profile.verdict().level, level, "{place} {:?}", profile.spoken());
        }
    }

    #[test]
    fn an_hour_later_all_is_quiet_again() {
        let (mut profile, _) = known(3);
        staged(&mut profile, 3, &window(300, AWAY), Facts::default());
        let end_ms = profile.next_ms();
        profile.close(end_ms + MEMORY_MS - 2 * WINDOW_MS);
        assert!(profile.verdict().level >= Level::Alert);
        profile.close(end_ms + MEMORY_MS + WINDOW_MS);
        assert_eq!(profile.verdict().level, Level::None);
        assert!(profile.spoken().is_empty());
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
                whole.step(at_ms, &window, Facts::default());
                // As if somebody had asked at the first end of five minutes and of an hour.
                for width_ms in [FIVE_MINUTES_MS, HOUR_MS] {
                    let end_ms = parts.next_ms().next_multiple_of(width_ms);
                    if (parts.next_ms()..at_ms).contains(&end_ms) {
                        parts.close(end_ms);
                    }
                }
                parts = postcard::from_bytes(&postcard::to_stdvec(&parts).unwrap()).unwrap();
                parts.step(at_ms, &window, Facts::default());
                prop_assert_eq!(whole.verdict(), parts.verdict());
            }
            prop_assert_eq!(whole, parts);
        }
    }
}
