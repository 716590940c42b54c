//! Minutes that aren't closed: the calls of every key in each of them, cut at the marks at which open minutes are judged.
//!
//! A mark is passed when the watermark passes it, and what is judged there are the calls before it in event time. Calls
//! behind the mark may be there already, so they are kept apart. That makes the judgement the same however ticks are cut.
//!
//! Limits: six slices a minute. Most keys have calls in one of them.

use std::borrow::Cow;

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::detect::{WINDOW_MS, Window};
use crate::model::{EventTime, KeyId};
use crate::state::{Footprint, spilled};

/// Event time between two marks of a minute.
pub(crate) const MARK_MS: u64 = 10_000;

/// The calls of a key in a minute that isn't closed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct OpenCalls {
    /// The calls of each slice that has any, in the order of slices.
    slices: SmallVec<[(u8, Window); 1]>,
    /// True if the minute was judged beyond doubt at a mark.
    pub(crate) fired: bool,
}

impl OpenCalls {
    /// Returns the calls of the slice in which `time` lies.
    pub(crate) fn slice(&mut self, time: EventTime) -> &mut Window {
        let number = (time % WINDOW_MS / MARK_MS) as u8;
        // Calls come in the order of time, or nearly so.
        let at = self
            .slices
            .iter()
            .rposition(|slice| slice.0 <= number)
            .map_or(0, |before| before + usize::from(self.slices[before].0 < number));
        if self.slices.get(at).is_none_or(|slice| slice.0 != number) {
            self.slices.insert(at, (number, Window::default()));
        }
        &mut self.slices[at].1
    }

    /// Returns the slices before a mark, if the last of them ends at the mark: else nothing came since the mark before.
    pub(crate) fn new_before(&self, mark_ms: EventTime) -> Option<&[(u8, Window)]> {
        let passed = mark_ms % WINDOW_MS / MARK_MS;
        let newest = self.slices.iter().rposition(|slice| u64::from(slice.0) < passed)?;
        (u64::from(self.slices[newest].0) + 1 == passed).then(|| &self.slices[..=newest])
    }

    /// Returns all calls of the minute, which is over. The first slice takes the others in, so that a window, which has
    /// some 300 bytes, is never moved.
    pub(crate) fn whole(&mut self) -> Option<&Window> {
        let ((_, all), others) = self.slices.split_first_mut()?;
        others.iter().for_each(|slice| all.merge(&slice.1));
        self.slices.truncate(1);
        self.slices.first().map(|slice| &slice.1)
    }
}

/// Returns the calls of slices together. Those of one slice, which most keys have, aren't copied.
pub(crate) fn merged(slices: &[(u8, Window)]) -> Cow<'_, Window> {
    if let [(_, only)] = slices {
        return Cow::Borrowed(only);
    }
    let mut all = Window::default();
    slices.iter().for_each(|slice| all.merge(&slice.1));
    Cow::Owned(all)
}

/// A minute that isn't closed. Its memory is used again for another.
#[derive(Default)]
pub(crate) struct OpenMinute {
    places: HashMap<KeyId, u32>,
    pub(crate) keys: Vec<(KeyId, OpenCalls)>,
}

impl OpenMinute {
    /// Returns the calls of a key, which may have none yet.
    pub(crate) fn of(&mut self, key: KeyId) -> &mut OpenCalls {
        let next = u32::try_from(self.keys.len()).expect("a minute has fewer keys than memory has bytes");
        let place = *self.places.entry(key).or_insert(next);
        if place == next {
            self.keys.push((key, OpenCalls::default()));
        }
        &mut self.keys[place as usize].1
    }

    /// Forgets the calls of all keys.
    pub(crate) fn clear(&mut self) {
        self.places.clear();
        self.keys.clear();
    }

    /// Returns its footprint: a row a key.
    pub(crate) fn footprint(&self) -> Footprint {
        let owned = |place: &u32| spilled(&self.keys[*place as usize].1.slices);
        let mut footprint = Footprint::of_map_with(&self.places, owned);
        footprint.bytes += (self.keys.capacity() * size_of::<(KeyId, OpenCalls)>()) as u64;
        footprint
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn add(window: &mut Window, route: u64) {
        window.calls += 1;
        window.values.routes.add(route, 1);
    }

    proptest! {
        #[test]
        fn slices_are_those_of_their_calls_in_whatever_order_they_came(
            calls in prop::collection::vec((0..WINDOW_MS, 0_u64..9), 1..30),
        ) {
            let mut open = OpenCalls::default();
            calls.iter().for_each(|(time, route)| add(open.slice(WINDOW_MS + time), *route));
            let window_before = |mark_ms: u64| {
                let mut window = Window::default();
                calls.iter().filter(|call| call.0 < mark_ms).for_each(|call| add(&mut window, call.1));
                window
            };
            for mark_ms in (MARK_MS..WINDOW_MS).step_by(MARK_MS as usize) {
                let is_new = calls.iter().any(|call| (mark_ms - MARK_MS..mark_ms).contains(&call.0));
                let found = open.new_before(WINDOW_MS + mark_ms).map(|slices| merged(slices).into_owned());
                prop_assert_eq!(found, is_new.then(|| window_before(mark_ms)));
            }
            prop_assert_eq!(open.whole(), Some(&window_before(WINDOW_MS)));
            prop_assert_eq!(open.slices.len(), 1);
        }
    }
}
