//! Seeded randomness that is the same on every machine.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::Distribution;
use rand_distr::weighted::WeightedAliasIndex;

/// A stream of seeded random numbers.
pub(crate) struct Draw(ChaCha8Rng);

impl Draw {
    /// Creates a stream. The streams of one seed are independent.
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        generator.set_stream(stream);
        Self(generator)
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    pub(crate) fn wide(&mut self) -> u128 {
        u128::from(self.bits()) << 64 | u128::from(self.bits())
    }

    /// Draws evenly from 0 to `end - 1`, up to a bias of `end` in 2^32.
    pub(crate) fn below(&mut self, end: u32) -> u32 {
        scaled(self.bits() as u32, end)
    }

    /// Draws from 0 to `end - 1`, smaller numbers more often, as with habits.
    pub(crate) fn habit(&mut self, end: u32) -> u32 {
        let bits = self.bits();
        scaled(scaled(bits as u32, u32::MAX), scaled((bits >> 32) as u32, end) + 1)
    }

    /// Returns the probability with which [`habit`](Self::habit) draws a number.
    pub(crate) fn habit_share(number: u32, end: u32) -> f64 {
        (number..end).map(|drawn| 1.0 / f64::from(drawn + 1)).sum::<f64>() / f64::from(end)
    }

    /// Draws evenly from the first to the last of a range.
    pub(crate) fn between(&mut self, (first, last): (u32, u32)) -> u32 {
        first + self.below(last - first + 1)
    }

    /// Returns true once in `times`, on average.
    pub(crate) fn once_in(&mut self, times: u32) -> bool {
        self.below(times) == 0
    }

    /// Draws evenly from 0 to 1, 1 excluded.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Draws evenly from 0 to `end`, which is excluded.
    pub(crate) fn part_of(&mut self, end: u64) -> u64 {
        whole(self.unit() * end as f64)
    }
}

/// Hashes the parts into random bits, so that no state is needed. It is SplitMix64 (Steele, Lea and Flood, 2014) with
/// one step for each part.
pub(crate) fn mixed(parts: [u64; 3]) -> u64 {
    parts.into_iter().fold(0, |bits, part| {
        let bits = (bits ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        let bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ bits >> 31
    })
}

/// Returns the whole part of a number that isn't negative.
#[expect(clippy::cast_sign_loss, reason = "the cast saturates: a negative number would become 0")]
pub(crate) fn whole(number: f64) -> u64 {
    number as u64
}

fn scaled(bits: u32, end: u32) -> u32 {
    ((u64::from(bits) * u64::from(end)) >> 32) as u32
}

/// Ranks by Zipf's law: rank `r` is drawn in proportion to `(r + 1)^-exponent`.
pub(crate) struct Zipf(WeightedAliasIndex<u64>);

impl Zipf {
    pub(crate) fn new(ranks: u32, exponent: f64) -> Self {
        let weights = (0..ranks).map(|rank| Self::weight(rank, exponent)).collect();
        Self(WeightedAliasIndex::new(weights).expect("1 to 2^24 weights, none above 2^40"))
    }

    /// Returns the weight of a rank: a whole number from 1 to 2^40.
    pub(crate) fn weight(rank: u32, exponent: f64) -> u64 {
        whole(libm::pow(f64::from(rank + 1), -exponent) * TWO_TO_40).max(1)
    }

    pub(crate) fn draw(&self, draw: &mut Draw) -> u32 {
        self.0.sample(&mut draw.0) as u32
    }
}

const TWO_TO_40: f64 = (1_u64 << 40) as f64;
const TWO_TO_64: f64 = (1_u128 << 64) as f64;

/// Factors around 1, distributed lognormally with a sigma of 0.5. Half of the draws are between 0.71 and 1.40, one in a
/// hundred is above 3.2. The normal variate is a sum of four uniform ones, so no factor is above 5.7.
pub(crate) struct Spread(Box<[u32]>);

impl Spread {
    const STEPS: u32 = 4_096;
    const SIGMA: f64 = 0.5;
    const ONE: f64 = 65_536.0;

    pub(crate) fn new() -> Self {
        let factor = |step: u32| {
            // The sum of four uniform variates has mean 2 and variance 1/3.
            let sum = (f64::from(step) + 0.5) / f64::from(Self::STEPS) * 4.0;
            let normal = (sum - 2.0) * 3_f64.sqrt();
            whole(libm::exp(Self::SIGMA * normal) * Self::ONE) as u32
        };
        Self((0..Self::STEPS).map(factor).collect())
    }

    /// Draws `median` times a factor.
    pub(crate) fn draw(&self, median: u32, draw: &mut Draw) -> u32 {
        let bits = draw.bits();
        let sum: u32 = (0..4).map(|part| (bits >> (16 * part)) as u32 & 0xffff).sum();
        let factor = self.0[(sum >> 6) as usize];
        ((u64::from(median) * u64::from(factor)) >> 16) as u32
    }
}

/// Hits an exact share of the times, evenly spaced from a random phase.
pub(crate) struct EvenShare {
    step: u64,
    phase: u64,
}

impl EvenShare {
    pub(crate) fn new(share: f64, draw: &mut Draw) -> Self {
        // Saturates: a share of 1 hits (but for one time in 2^64) always.
        Self { step: whole(share * TWO_TO_64), phase: draw.bits() }
    }

    pub(crate) fn hit(&mut self) -> bool {
        let (phase, hit) = self.phase.overflowing_add(self.step);
        self.phase = phase;
        hit
    }
}
