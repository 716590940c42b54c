//! The tools of all checks: problems, warnings and paths, and the step from a written value to a validated one.
//!
//! Every check runs, whatever the others found. Refused values are passed over, so that one mistake is one problem.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::Path;

use crate::toml::problem::{Location, Problems};
use crate::toml::read::{Entry, FromToml, List, Spot};
use crate::toml::value::Scalar;

pub(crate) const MINUTE_MS: u64 = 60_000;
pub(crate) const HOUR_MS: u64 = 60 * MINUTE_MS;
pub(crate) const DAY_MS: u64 = 24 * HOUR_MS;

/// Collects the problems and warnings of all checks.
pub(crate) struct Check<'a> {
    /// The folder of the file, to which paths are relative.
    pub(crate) base: &'a Path,
    pub(crate) env: &'a BTreeMap<String, String>,
    pub(crate) problems: &'a mut Problems,
    pub(crate) warnings: &'a mut Problems,
}

/// A written value from which a field gets its value, within a limit if there is one.
pub(crate) trait Validate<F, L = ()>: Sized {
    /// `None` after at least one problem was reported.
    fn validate(spot: &Spot<Self>, limit: L, check: &mut Check<'_>) -> Option<F>;
}

/// The most items of a list, and their name in messages.
pub(crate) struct AtMost(pub(crate) usize, pub(crate) &'static str);

impl<T: Validate<F, L>, F, L> Validate<Option<F>, L> for T {
    fn validate(spot: &Spot<Self>, limit: L, check: &mut Check<'_>) -> Option<Option<F>> {
        T::validate(spot, limit, check).map(Some)
    }
}

impl<T: Validate<F>, F> Validate<Vec<F>> for List<T> {
    fn validate(spot: &Spot<Self>, (): (), check: &mut Check<'_>) -> Option<Vec<F>> {
        Some(spot.value.items.iter().filter_map(|item| T::validate(item, (), check)).collect())
    }
}

impl<T: Validate<F>, F> Validate<Vec<F>, AtMost> for List<T> {
    fn validate(spot: &Spot<Self>, AtMost(most, what): AtMost, check: &mut Check<'_>) -> Option<Vec<F>> {
        check.at_most(spot, most, what);
        Self::validate(spot, (), check)
    }
}

impl<T: Scalar + Clone> Validate<T> for T {
    fn validate(spot: &Spot<Self>, (): (), _: &mut Check<'_>) -> Option<T> {
        Some(spot.value.clone())
    }
}

/// A written number that can have a range.
pub(crate) trait Number: FromToml {
    fn number(&self) -> u64;

    fn show(number: u64) -> String;
}

/// A type that a number fits into. Ranges must not exceed it, so no number is ever clamped.
pub(crate) trait FromNumber {
    fn from_number(number: u64) -> Self;
}

macro_rules! from_number {
    ($($type:ty),+) => {$(
        impl FromNumber for $type {
            fn from_number(number: u64) -> Self {
                Self::try_from(number).unwrap_or(Self::MAX)
            }
        }
    )+};
}

from_number!(u64, usize, u32, u16);

impl FromNumber for NonZeroUsize {
    fn from_number(number: u64) -> Self {
        Self::new(usize::from_number(number)).unwrap_or(Self::MIN)
    }
}

impl<T: Number, F: FromNumber> Validate<F, RangeInclusive<u64>> for T {
    fn validate(spot: &Spot<Self>, allowed: RangeInclusive<u64>, check: &mut Check<'_>) -> Option<F> {
        let found = spot.value.number();
        let (least, most) = allowed.into_inner();
        if !(least..=most).contains(&found) {
            let message = format!("found {}, allowed: {} to {}", spot.shown, T::show(least), T::show(most));
            check.refuse(spot, message);
        }
        Some(F::from_number(found.clamp(least, most)))
    }
}

/// A location in the file, or a value that has one.
pub(crate) trait HasLocation {
    fn location(&self) -> &Location;
}

impl HasLocation for Location {
    fn location(&self) -> &Location {
        self
    }
}

impl<T> HasLocation for Spot<T> {
    fn location(&self) -> &Location {
        &self.location
    }
}

impl Check<'_> {
    pub(crate) fn refuse(&mut self, at: &impl HasLocation, message: impl Into<String>) {
        self.problems.add(at.location(), message);
    }

    pub(crate) fn warn(&mut self, at: &impl HasLocation, message: impl Into<String>) {
        self.warnings.add(at.location(), message);
    }

    /// Sets a field to the value of its key, if the file has the key.
    pub(crate) fn fill<F, L, T: Validate<F, L>>(&mut self, field: &mut F, entry: &Entry<T>, limit: L) {
        if let Some(value) = entry.given().and_then(|spot| T::validate(spot, limit, self)) {
            *field = value;
        }
    }

    /// Returns the value of a key that its section must have, and refuses the section without it.
    pub(crate) fn required<'e, T: FromToml, S>(
        &mut self,
        entry: &'e Entry<T>,
        section: &Spot<S>,
        key: &str,
    ) -> Option<&'e T> {
        if entry.is_absent() {
            let location = Location {
                path: format!("{}.{key}", section.location.path),
                at: section.location.at.clone(),
            };
            self.refuse(&location, format!("missing, allowed: {}", T::expected()));
        }
        entry.value()
    }

    /// Refuses a key that belongs to another kind.
    pub(crate) fn foreign<T>(&mut self, entry: &Entry<T>, kind: &str) {
        if let Some(spot) = entry.given() {
            self.refuse(spot, format!("has no meaning here, allowed: only beside kind = \"{kind}\""));
        }
    }

    pub(crate) fn at_most<T>(&mut self, list: &Spot<List<T>>, most: usize, what: &str) {
        let found = list.value.items.len();
        if found > most {
            self.refuse(list, format!("found {found} {what}, allowed: at most {most}"));
        }
    }
}
