//! The section `[detection]` with the thresholds of the detector. Bits and weights are in thousandths.
//!
//! Limits: bits up to 1,000, weights up to 100. A notice needs at most the bits of an alert, and an alert at most those
//! of `revoke`.

use super::prelude::*;

const MAX_BITS: u64 = 1_000_000;
const MAX_WEIGHT: u64 = 100_000;

section! {
    /// The section `[detection]`. Values that are absent are the detector's own, in the dataflow's crate.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Detection, RawDetection then levels {
        /// If set, the detector watches all keys.
        results enabled: bool = enabled(Flag) or true;
        /// How long a window stays open behind the watermark, in milliseconds.
        results grace_ms: u64 = grace(Millis, 0..=HOUR_MS) or 0;
        /// The prior odds of a leak: one hour of a key in 2^`prior`.
        results prior: Option<u64> = prior(Decimal, 0..=MAX_BITS) or None;
        /// The least odds (bits) of a notice.
        results notice: Option<u64> = notice(Decimal, 0..=MAX_BITS) or None;
        /// The least odds (bits) of an alert.
        results alert: Option<u64> = alert(Decimal, 0..=MAX_BITS) or None;
        /// The least odds (bits) of the level at which a policy may act.
        results revoke: Option<u64> = revoke(Decimal, 0..=MAX_BITS) or None;
        /// The most bits that a family adds, by its name.
        results caps: Vec<(&'static str, u64)> = caps(RawCaps) or Vec::new();
        /// The factor of a signal's bits, by its name.
        results weights: Vec<(&'static str, u64)> = weights(RawWeights) or Vec::new();
    }
}

/// Declares a section of numbers that the detector looks up by name.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident up to $most:ident { $($key:ident)+ }) => {
        keys! {
            $(#[$doc])*
            $name { $($key: Decimal,)+ }
        }

        impl Validate<Vec<(&'static str, u64)>> for $name {
            fn validate(spot: &Spot<Self>, (): (), check: &mut Check<'_>) -> Option<Vec<(&'static str, u64)>> {
                let mut given = Vec::new();
                $(
                    let mut number: Option<u64> = None;
                    check.fill(&mut number, &spot.value.$key, 0..=$most);
                    given.extend(number.map(|number| (stringify!($key), number)));
                )+
                Some(given)
            }
        }
    };
}

named! {
    /// The keys of `[detection.caps]`, one a family.
    RawCaps up to MAX_BITS { volume origin behaviour errors hard }
}

named! {
    /// The keys of `[detection.weights]`, one a signal.
    RawWeights up to MAX_WEIGHT {
        volume_1m volume_5m volume_1h slow country asn network travel fan_out shared_network user_agent route mix refused throttled
        revoked dormant reported tor
    }
}

impl RawDetection {
    fn levels(spot: &Spot<Self>, found: &mut Detection, check: &mut Check<'_>) {
        let Self { notice, alert, revoke, .. } = &spot.value;
        // The numbers are the detector's own levels, for those that are absent.
        let levels = [
            ("notice", notice, found.notice.unwrap_or(0)),
            ("alert", alert, found.alert.unwrap_or(250)),
            ("revoke", revoke, found.revoke.unwrap_or(10_000)),
        ];
        for pair in levels.windows(2) {
            let [(lower, below, least), (higher, above, most)] = pair else { continue };
            if let Some(spot) = above.given().or(below.given()).filter(|_| least > most) {
                let message = format!(
                    "`{lower}` begins at {} bits and `{higher}` at {}, allowed: at most as many",
                    decimal_text(*least),
                    decimal_text(*most)
                );
                check.refuse(spot, message);
            }
        }
    }
}
