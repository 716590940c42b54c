//! From bits to a severity: how much more probable a leak is than a normal hour, after everything that was seen.
//!
//! L = L0 + sum over families of min(cap, sum over signals of weight x bits), each signal with the most it said in the
//! last hour. Signals of one family tend to speak together, so a family is capped; L0 is the prior, -17 bits: one hour
//! of a key in 131,072 is taken to be a leak. L is the logarithm of the odds to base 2; the score is their probability
//! in percent, 100/(1 + 2^-L).
//!
//! *Notice* from L >= 0, *alert* from L >= 1/4. *Revoke* from L >= 10 **and** either 6 bits of a new country or system
//! with 6 of behaviour or errors, or a hard fact. One family alone alerts at most (24 - 17 = 7). Volume is no second
//! witness beside a new place, as who travels calls at other hours; and what an owner does at the usual provider (a load
//! test with a tool of its own, more machines) is never taken for theft. Of the three widths of
//! volume and of *slow* the one that says most counts: they see the same calls. Country, system and network of a call are
//! one place, so of a new place max(max(country, system) + min(country, system)/4, network) counts. As a witness beside
//! behaviour or errors country and system still add up. Travel, fan-out and a shared network are facts of their own.

use serde::{Deserialize, Serialize};

use super::Bits;

/// Kinds of evidence that are independent of each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Family {
    Volume,
    Origin,
    /// What is called, and with what.
    Behaviour,
    Errors,
    /// What isn't a matter of degree.
    Hard,
}

impl Family {
    /// All families, in the order of `caps`.
    pub const ALL: [Self; 5] = [Self::Volume, Self::Origin, Self::Behaviour, Self::Errors, Self::Hard];

    /// Returns the name that views have.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Volume => "volume",
            Self::Origin => "origin",
            Self::Behaviour => "behaviour",
            Self::Errors => "errors",
            Self::Hard => "hard",
        }
    }

    /// The most that it adds, in thousandths of a bit.
    fn cap(self) -> u64 {
        match self {
            Self::Volume => 24_000,
            Self::Origin => 20_000,
            Self::Behaviour => 12_000,
            Self::Errors => 8_000,
            Self::Hard => 40_000,
        }
    }
}

macro_rules! signals {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $family:ident, $weight:literal;)+) => {
        /// A kind of oddity that is observed in a key's calls.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Signal { $($(#[$doc])* $name,)+ }

        impl Signal {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Returns the name that views have.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// What it is evidence of.
            #[must_use]
            pub fn family(self) -> Family {
                match self { $(Self::$name => Family::$family,)+ }
            }

            /// Thousandths, unless the configuration says otherwise.
            fn weight(self) -> u64 {
                match self { $(Self::$name => $weight,)+ }
            }
        }
    };
}

signals! {
    VolumeMinute = "volume_1m", Volume, 650;
    VolumeFiveMinutes = "volume_5m", Volume, 650;
    VolumeHour = "volume_1h", Volume, 650;
    /// Twice the usual rate, for long.
    Slow = "slow", Volume, 1_000;
    /// A country never seen.
    Country = "country", Origin, 1_000;
    /// An autonomous system never seen.
    Asn = "asn", Origin, 900;
    /// A network (/24 or /48) never seen.
    Network = "network", Origin, 300;
    /// There and back again faster than anything flies.
    Travel = "travel", Origin, 1_000;
    FanOut = "fan_out", Origin, 500;
    /// A new network that called with other keys for the first time, too.
    SharedNetwork = "shared_network", Origin, 1_000;
    /// A user agent never seen.
    Agent = "user_agent", Behaviour, 1_000;
    /// Routes never seen.
    Route = "route", Behaviour, 400;
    Mix = "mix", Behaviour, 300;
    /// Calls answered 401 or 403.
    Refused = "refused", Errors, 500;
    /// Calls answered 429.
    Throttled = "throttled", Errors, 300;
    /// Called although the key is revoked.
    Revoked = "revoked", Hard, 1_000;
    /// Asleep for more than 30 days, then called from a system never seen.
    Dormant = "dormant", Hard, 1_000;
    /// Found where everybody can read it.
    Reported = "reported", Hard, 1_000;
    /// Called through an exit of Tor, for the first time in a month.
    Tor = "tor", Hard, 1_000;
}

impl From<&keytide_config::Detection> for Tuning {
    fn from(config: &keytide_config::Detection) -> Self {
        let default = Self::default();
        let bits = |given: Option<u64>, default: i64| given.map_or(default, u64::cast_signed);
        let mut tuning = Self {
            prior: -bits(config.prior, -default.prior),
            notice: bits(config.notice, default.notice),
            alert: bits(config.alert, default.alert),
            revoke: bits(config.revoke, default.revoke),
            ..default
        };
        for (name, cap) in &config.caps {
            Family::ALL.into_iter().filter(|family| family.name() == *name).for_each(|family| {
                tuning.caps[family as usize] = *cap;
            });
        }
        for (name, weight) in &config.weights {
            Signal::ALL.iter().filter(|signal| signal.name() == *name).for_each(|signal| {
                tuning.weights[*signal as usize] = *weight;
            });
        }
        tuning
    }
}

/// The severity of an incident, and of what one window shows of a key: the column `level` of views.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Severity {
    #[default]
    None,
    /// Worth a line in a log.
    Notice,
    Alert,
    /// Bad enough to act, where the policy says so.
    Revoke,
}

impl Severity {
    /// Returns the name that views have.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Notice => "notice",
            Self::Alert => "alert",
            Self::Revoke => "revoke",
        }
    }
}

/// What a family must say, in thousandths of a bit, to count as one of two.
const SPEAKS: u64 = 6_000;
/// What hard facts must say, in thousandths of a bit, to stand alone.
pub(super) const SURE: u64 = 30_000;

/// What signals count, in thousandths of a bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// The logarithm of the odds before anything was seen; negative.
    pub prior: i64,
    /// The least odds of a notice.
    pub notice: i64,
    /// The least odds of an alert.
    pub alert: i64,
    /// The least odds of the severity *revoke*.
    pub revoke: i64,
    /// The most that each family adds, in the order of [`Family::ALL`].
    pub caps: [u64; Family::ALL.len()],
    /// What a signal's bits are multiplied with, in thousandths, in the order of [`Signal::ALL`].
    pub weights: [u64; Signal::ALL.len()],
}

impl Default for Tuning {
    fn default() -> Self {
        let mut weights = [0; Signal::ALL.len()];
        Signal::ALL.iter().zip(&mut weights).for_each(|(signal, weight)| *weight = signal.weight());
        Self {
            prior: -17_000,
            notice: 0,
            alert: 250,
            revoke: 10_000,
            caps: Family::ALL.map(Family::cap),
            weights,
        }
    }
}

/// What a key's signals add up to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Verdict {
    /// L, in thousandths of a bit.
    pub odds: i64,
    pub severity: Severity,
}

impl Verdict {
    /// Of signals, each at most once.
    #[must_use]
    pub fn of(tuning: &Tuning, signals: impl IntoIterator<Item = (Signal, Bits)>) -> Self {
        let mut families = [0_u64; Family::ALL.len()];
        let (mut burst, mut country, mut system, mut network) = (0, 0, 0, 0);
        for (signal, bits) in signals {
            // Most signals have none, which changes nothing.
            if bits == Bits::NONE {
                continue;
            }
            let weighted = u64::from(bits.0) * tuning.weights[signal as usize] / 1_000;
            match signal {
                Signal::VolumeMinute | Signal::VolumeFiveMinutes | Signal::VolumeHour | Signal::Slow => {
                    burst = weighted.max(burst)
                }
                Signal::Country => country = weighted,
                Signal::Asn => system = weighted,
                Signal::Network => network = weighted,
                _ => families[signal.family() as usize] += weighted,
            }
        }
        families[Family::Volume as usize] += burst;
        families[Family::Origin as usize] += place(country, system).max(network);
        for family in Family::ALL {
            let sum = &mut families[family as usize];
            *sum = (*sum).min(tuning.caps[family as usize]);
        }
        let odds = tuning.prior + families.iter().sum::<u64>().cast_signed();
        let speaks = |family: Family| families[family as usize] >= SPEAKS;
        let otherwise = speaks(Family::Behaviour) || speaks(Family::Errors);
        let sure = country + system >= SPEAKS && otherwise || families[Family::Hard as usize] >= SURE;
        let severity = match odds {
            _ if odds >= tuning.revoke && sure => Severity::Revoke,
            _ if odds >= tuning.alert => Severity::Alert,
            _ if odds >= tuning.notice => Severity::Notice,
            _ => Severity::None,
        };
        Self { odds, severity }
    }

    /// The probability of a leak in percent, rounded down: 0 to 100.
    #[must_use]
    pub fn score(self) -> u8 {
        #[expect(clippy::cast_sign_loss, reason = "a probability isn't negative")]
        let percent = (100.0 / (1.0 + libm::exp2(-(self.odds as f64) / 1_000.0))) as u8;
        percent
    }
}

/// Returns what a new country and a new system say together. A call from abroad comes from another system as a rule, and
/// a stranger's system often lies abroad: of the lesser only a quarter is new.
fn place(country: u64, system: u64) -> u64 {
    country.max(system) + country.min(system) / 4
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(signals: &[(Signal, f64)]) -> Verdict {
        Verdict::of(&Tuning::default(), signals.iter().map(|(signal, bits)| (*signal, Bits::new(*bits))))
    }

    #[test]
    fn nothing_is_the_prior() {
        assert_eq!(of(&[]), Verdict { odds: -17_000, severity: Severity::None });
        assert_eq!(of(&[]).score(), 0);
        assert_eq!(Verdict { odds: 0, severity: Severity::Notice }.score(), 50);
        assert_eq!(Verdict { odds: i64::MAX, severity: Severity::Revoke }.score(), 100);
    }

    #[test]
    fn one_family_alerts_and_never_revokes() {
        for family in Family::ALL.into_iter().filter(|family| *family != Family::Hard) {
            let all = Signal::ALL.iter().filter(|signal| signal.family() == family);
            let verdict = Verdict::of(&Tuning::default(), all.map(|signal| (*signal, Bits::MOST)));
            assert!(verdict.severity < Severity::Revoke, "{family:?}");
            assert_eq!(verdict.odds, family.cap().cast_signed() - 17_000);
        }
        assert_eq!(of(&[(Signal::VolumeMinute, 1e6)]).severity, Severity::Alert);
    }

    #[test]
    fn origin_and_another_family_or_a_hard_fact_revoke() {
        let with = |country, agent| {
            let signals = [(Signal::VolumeMinute, 48.0), (Signal::Country, country), (Signal::Agent, agent)];
            of(&signals).severity
        };
        assert_eq!(with(5.9, 12.0), Severity::Alert);
        assert_eq!(with(6.0, 5.9), Severity::Alert);
        assert_eq!(with(6.0, 6.0), Severity::Revoke);
        assert_eq!(of(&[(Signal::VolumeMinute, 48.0), (Signal::Country, 20.0)]).severity, Severity::Alert);
        assert_eq!(of(&[(Signal::VolumeMinute, 48.0), (Signal::Agent, 12.0)]).severity, Severity::Alert);
        assert_eq!(of(&[(Signal::VolumeMinute, 48.0), (Signal::Network, 60.0)]).severity, Severity::Alert);
        assert_eq!(of(&[(Signal::Revoked, 40.0)]).severity, Severity::Revoke);
        assert_eq!(of(&[(Signal::Revoked, 26.0)]).severity, Severity::Alert);
        // Nor do an exit of Tor and the network that it lies in.
        assert_eq!(of(&[(Signal::Tor, 24.0), (Signal::Network, 30.0)]).severity, Severity::Alert);
    }

    #[test]
    fn the_example_of_all_keys_states_what_holds_without_them() {
        let text = include_str!("../../../config/examples/everything.toml");
        let read = keytide_config::JobConfig::parse(text, "/etc/keytide".as_ref(), std::iter::empty());
        let detection = &read.unwrap().job.detection;
        assert_eq!(detection.weights.len(), Signal::ALL.len());
        assert_eq!(detection.caps.len(), Family::ALL.len());
        assert!(
            [detection.prior, detection.notice, detection.alert, detection.revoke]
                .iter()
                .all(Option::is_some)
        );
        assert_eq!(Tuning::from(detection), Tuning::default());
    }

    proptest! {
        #[test]
        fn more_surprise_is_never_less_alarming(
            bits in prop::collection::vec(0_u32..60_000, Signal::ALL.len()), at in 0..Signal::ALL.len(), more in 0_u32..60_000,
        ) {
            let verdict = |bits: &[u32]| Verdict::of(
                &Tuning::default(), Signal::ALL.iter().copied().zip(bits.iter().copied().map(Bits)));
            let before = verdict(&bits);
            let mut bits = bits;
            bits[at] += more;
            let after = verdict(&bits);
            prop_assert!(before.odds <= after.odds && before.severity <= after.severity && before.score() <= after.score());
        }
    }
}
