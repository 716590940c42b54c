//! The leak detector's arithmetic: one key's history folded window by window, in order, into bits of surprise.
//!
//! ```text
//! counts of a window ─┬► volume   level, hour of the week, tail of its own z-scores   bits
//!                     ├► rate     gamma-Poisson, CUSUM                                bits
//!                     ├► novelty  values never seen of this key                       bits ─► combine: level
//!                     ├► errors   401 and 403, 429 against the key's own share        bits
//!                     └► mix      routes against the key's own distribution           bits
//! ```
//! *Bits* are -log2 of how probable something at least as odd is under the key's own history: one bit more is half
//! as probable. 10,000 keys have 14.4 million windows a day, so a signal that is tested on each of them alarms once
//! a day by chance at 24 bits.
//!
//! [`Series`] is apart: it scores a history of counts that isn't a key's.
//!
//! Everything here is a function of what one key did before: no clock, no other key, no order of arrival within a
//! window. Additions, products and roots of `f64` are exact to the bit on every machine (IEEE 754); logarithms and
//! exponentials come from `libm`, or from tables of its bits (`decay.rs`), so that they are too. Floating point stays
//! within a key: nothing of it is summed over keys or workers, and what leaves is in thousandths of a bit ([`Bits`]).

mod combine;
mod counts;
mod decay;
mod errors;
mod facts;
mod kinds;
mod mix;
mod novelty;
mod observed;
mod profile;
mod series;
mod traffic;
mod travel;
mod volume;
mod window;

use serde::{Deserialize, Serialize};

pub use self::combine::{Family, Severity, Signal, Tuning, Verdict};
pub use self::counts::Rate;
pub use self::errors::Share;
pub use self::facts::Facts;
pub(crate) use self::facts::may_have_hard_facts;
pub use self::kinds::ByKind;
pub use self::mix::Mix;
pub use self::novelty::{KnownValues, Novel};
pub use self::observed::{ObservedSignal, Shown, is_incident, verdict};
pub(crate) use self::observed::{SHARED_MOST, shared_network};
pub use self::profile::{Judged, Profile};
pub(crate) use self::profile::{LEAST_CALLS, NETWORK_SPAN_MS};
pub use self::series::Series;
pub use self::traffic::Stretch;
pub(crate) use self::volume::TAIL_BITS;
pub use self::volume::{Reading, Scale, Season, Sight, Slot};
pub(crate) use self::window::first_address;
pub use self::window::{Sighting, ValueCounts, Window};
use crate::model::time::{DAY_MS, HOUR_MS, MINUTE_MS};

/// The width of a window in milliseconds.
pub const WINDOW_MS: u64 = MINUTE_MS;
const FIVE_MINUTES_MS: u64 = 5 * WINDOW_MS;

/// Surprise in thousandths of a bit, 0 to [`Bits::MOST`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Bits(pub u32);

impl Bits {
    /// No surprise: 0 bits.
    pub const NONE: Self = Self(0);
    /// A million bits: nothing is more surprising.
    pub const MOST: Self = Self(1_000_000_000);

    /// From bits, rounded down. What isn't a positive number is none.
    #[must_use]
    pub fn new(bits: f64) -> Self {
        // A cast saturates and takes NaN for 0.
        #[expect(clippy::cast_sign_loss, reason = "negative values become 0")]
        let thousandths = (bits * 1_000.0) as u32;
        Self(thousandths.min(Self::MOST.0))
    }

    /// Returns the number in bits, not in thousandths.
    #[must_use]
    pub fn get(self) -> f64 {
        f64::from(self.0) / 1_000.0
    }
}
