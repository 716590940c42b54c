//! Quantities that are billed and limited.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::exact::Overflow;

/// A quantity of use: the values of a column `metric`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Measure {
    Calls,
    BytesIn,
    BytesOut,
    /// Bytes in and bytes out together.
    Bytes,
    /// Units that calls report themselves, such as tokens.
    Units,
    /// The amount of the use, in ten-thousandths of the currency's unit: no currency has more digits. It can be
    /// limited, but has no price.
    Cost,
}

impl Measure {
    /// Every measure, in the order of documents.
    pub const ALL: [Self; 6] =
        [Self::Calls, Self::BytesIn, Self::BytesOut, Self::Bytes, Self::Units, Self::Cost];

    /// Returns the name in tables and views.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::BytesIn => "bytes_in",
            Self::BytesOut => "bytes_out",
            Self::Bytes => "bytes",
            Self::Units => "units",
            Self::Cost => "cost",
        }
    }
}

/// A text isn't the name of a measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAMeasure;

impl fmt::Display for NotAMeasure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("must be one of calls, bytes_in, bytes_out, bytes, units, cost")
    }
}

impl std::error::Error for NotAMeasure {}

impl FromStr for Measure {
    type Err = NotAMeasure;

    fn from_str(text: &str) -> Result<Self, NotAMeasure> {
        Self::ALL.into_iter().find(|measure| measure.name() == text).ok_or(NotAMeasure)
    }
}

/// Use that is billed: of an hour, a day, a segment or a period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BilledUse {
    pub calls: u128,
    pub bytes_in: u128,
    pub bytes_out: u128,
    pub units: u128,
}

impl BilledUse {
    /// Returns the quantity of a measure. Of [`Measure::Cost`], which use alone doesn't say, it is zero.
    ///
    /// # Errors
    ///
    /// The quantity needs more than 128 bits.
    pub fn of(&self, measure: Measure) -> Result<u128, Overflow> {
        match measure {
            Measure::Calls => Ok(self.calls),
            Measure::BytesIn => Ok(self.bytes_in),
            Measure::BytesOut => Ok(self.bytes_out),
            Measure::Bytes => self.bytes_in.checked_add(self.bytes_out).ok_or(Overflow),
            Measure::Units => Ok(self.units),
            Measure::Cost => Ok(0),
        }
    }

    /// Returns the use of two spans together.
    ///
    /// # Errors
    ///
    /// A quantity needs more than 128 bits.
    pub fn plus(&self, other: &Self) -> Result<Self, Overflow> {
        let sum = |left: u128, right: u128| left.checked_add(right).ok_or(Overflow);
        Ok(Self {
            calls: sum(self.calls, other.calls)?,
            bytes_in: sum(self.bytes_in, other.bytes_in)?,
            bytes_out: sum(self.bytes_out, other.bytes_out)?,
            units: sum(self.units, other.units)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_name_is_read() {
        for measure in Measure::ALL {
            assert_eq!(measure.name().parse(), Ok(measure));
            assert!(NotAMeasure.to_string().contains(measure.name()));
        }
        assert_eq!("Calls".parse::<Measure>(), Err(NotAMeasure));
    }

    #[test]
    fn bytes_are_those_of_both_directions() {
        let most = BilledUse { bytes_in: u128::MAX, bytes_out: 1, ..BilledUse::default() };
        assert_eq!(most.of(Measure::Bytes), Err(Overflow));
        assert_eq!(most.plus(&most), Err(Overflow));
        let both = BilledUse { calls: 1, bytes_in: 2, bytes_out: 3, units: 4 };
        assert_eq!(Measure::ALL.map(|measure| both.of(measure).unwrap()), [1, 2, 3, 5, 4, 0]);
    }

    proptest! {
        #[test]
        fn any_text_is_a_name_or_refused(text in "[a-z_]{0,10}|\\PC{0,20}") {
            prop_assert!(text.parse::<Measure>().map_or(true, |measure| measure.name() == text));
        }
    }
}
