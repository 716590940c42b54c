//! Keeps the strings of ids that are admitted under a cap, as long as a row may need them.
//!
//! A string comes before, or with, the first event that needs it. The event's key or route is admitted when the event
//! counts. In between the string waits. It is dropped at once where there is no room left to admit its id. Of those
//! that wait, at most [`WAITING`] and the room of a bucket are kept, the lowest ids of them. An event that doesn't
//! count has a string, too, so a string that is needed may be dropped. That costs a name and nothing else: rows then
//! show the id.
//!
//! A string that nothing needs any more is forgotten after [`SWEEP_TICKS`] to twice as many ticks. Evicted rows may
//! wait for publication that long: in [`SWEEP_TICKS`] ticks a view publishes 118 million of them.

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::group::Group;
use crate::model::{Definition, EventTime};
use crate::state::Footprint;

/// The number of strings of a bucket that may wait, beyond the room of the bucket.
const WAITING: usize = 1_024;
/// The number of ticks between two sweeps for strings that nothing needs.
const SWEEP_TICKS: u32 = 3_600;

/// The status of an id in the period that its string is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AdmissionStatus {
    Admitted,
    Open,
    /// It isn't admitted, and can't be any more.
    Closed,
}

/// What came of a string that was announced.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Announced<I> {
    /// The string, if it is to be published now.
    pub(crate) publishes: Option<Definition>,
    /// True if what is kept of it changed.
    pub(crate) is_changed: bool,
    /// The id whose string gave way.
    pub(crate) dropped: Option<I>,
}

/// A string with its state, as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StoredText {
    definition: Definition,
    /// The start of the last period that it was announced for.
    period: EventTime,
    /// True if it was published, so that others have to forget it too.
    published: bool,
    /// True if nothing needed it at the last sweep.
    idle: bool,
}

impl StoredText {
    pub(crate) fn definition(&self) -> &Definition {
        &self.definition
    }

    fn bytes(&self) -> usize {
        match &self.definition {
            Definition::Key { name, .. } => name.len(),
            Definition::Route { api, method, route, .. } => api.len() + method.len() + route.len(),
            Definition::Agent { text, .. } | Definition::Name { text, .. } => text.len(),
        }
    }
}

/// The strings by id, on the worker that has their buckets.
pub(crate) struct Texts<I> {
    texts: HashMap<I, StoredText>,
    /// By bucket, ids whose strings weren't published: derived from `texts`.
    waiting: BTreeMap<u8, BTreeSet<I>>,
    waiting_of_bucket: usize,
    /// The number of ticks since the last sweep.
    ticks: u32,
}

impl<I: Group> Texts<I> {
    /// Makes an empty collection. `room` is the number of ids that a bucket admits in a period.
    pub(crate) fn new(room: usize) -> Self {
        Self {
            texts: HashMap::new(),
            waiting: BTreeMap::new(),
            waiting_of_bucket: room.saturating_add(WAITING),
            ticks: 0,
        }
    }

    /// Takes a string. It is published now if its id is admitted and the string is new.
    pub(crate) fn announce(
        &mut self,
        id: I,
        definition: Definition,
        period: EventTime,
        status: AdmissionStatus,
    ) -> Announced<I> {
        let is_admitted = status == AdmissionStatus::Admitted;
        if let Some(text) = self.texts.get_mut(&id) {
            let is_later = period > text.period;
            text.period = text.period.max(period);
            let publishes = if is_admitted { self.admit(id) } else { None };
            return Announced { is_changed: is_later || publishes.is_some(), publishes, dropped: None };
        }
        if status == AdmissionStatus::Closed {
            return Announced { publishes: None, is_changed: false, dropped: None };
        }
        let text = StoredText { definition, period, published: false, idle: false };
        self.insert(id, text);
        if is_admitted {
            return Announced { publishes: self.admit(id), is_changed: true, dropped: None };
        }
        let waiting = self.waiting.entry(id.bucket()).or_default();
        let is_full = waiting.len() > self.waiting_of_bucket;
        let dropped = if is_full { waiting.pop_last() } else { None };
        if let Some(dropped) = &dropped {
            self.texts.remove(dropped);
        }
        Announced { publishes: None, is_changed: true, dropped }
    }

    /// Returns the string of an id that was admitted, if it waited.
    pub(crate) fn admit(&mut self, id: I) -> Option<Definition> {
        let text = self.texts.get_mut(&id).filter(|text| !text.published)?;
        text.published = true;
        let definition = text.definition.clone();
        if let Some(waiting) = self.waiting.get_mut(&id.bucket()) {
            waiting.remove(&id);
        }
        Some(definition)
    }

    /// Ends the tick, and returns the ids of published strings that are forgotten now. `is_needed` judges an id and
    /// the last period it was announced for.
    pub(crate) fn end_tick(&mut self, is_needed: impl Fn(&I, EventTime) -> bool) -> Vec<I> {
        self.ticks += 1;
        if self.ticks < SWEEP_TICKS {
            return Vec::new();
        }
        self.ticks = 0;
        let mut forgotten = Vec::new();
        self.texts.retain(|id, text| {
            let was_idle = std::mem::replace(&mut text.idle, !is_needed(id, text.period));
            let keep = !(was_idle && text.idle);
            if !keep && text.published {
                forgotten.push(*id);
            }
            keep
        });
        let texts = &self.texts;
        self.waiting.retain(|_, waiting| {
            waiting.retain(|id| texts.contains_key(id));
            !waiting.is_empty()
        });
        forgotten.sort_unstable();
        forgotten
    }

    /// Returns all strings that were published.
    pub(crate) fn published(&self) -> impl Iterator<Item = &Definition> {
        self.texts.values().filter(|text| text.published).map(StoredText::definition)
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = (&I, &StoredText)> {
        self.texts.iter()
    }

    pub(crate) fn get(&self, id: &I) -> Option<&StoredText> {
        self.texts.get(id)
    }

    /// Keeps a string with its state, in place of an earlier state.
    pub(crate) fn insert(&mut self, id: I, text: StoredText) {
        if !text.published {
            self.waiting.entry(id.bucket()).or_default().insert(id);
        } else if let Some(waiting) = self.waiting.get_mut(&id.bucket()) {
            waiting.remove(&id);
        }
        self.texts.insert(id, text);
    }

    /// Returns the ticks since the last sweep.
    pub(crate) fn ticks(&self) -> u32 {
        self.ticks
    }

    pub(crate) fn set_ticks(&mut self, ticks: u32) {
        self.ticks = self.ticks.max(ticks);
    }

    pub(crate) fn footprint(&self) -> Footprint {
        let mut footprint = Footprint::of_map_with(&self.texts, StoredText::bytes);
        footprint.bytes +=
            self.waiting.values().map(|waiting| Footprint::of_tree_set(waiting).bytes).sum::<u64>();
        footprint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::RouteId;

    /// Returns an id of the one bucket of these tests.
    fn of(id: u64) -> RouteId {
        RouteId(id << 8)
    }

    fn name(id: u64) -> (RouteId, Definition) {
        let route: Box<str> = format!("/{id}").into();
        let (api, method) = ("".into(), "GET".into());
        (of(id), Definition::Route { id: of(id), day: 0, api, method, route })
    }

    fn announce(texts: &mut Texts<RouteId>, id: u64, status: AdmissionStatus) -> Option<Definition> {
        let (id, definition) = name(id);
        texts.announce(id, definition, 0, status).publishes
    }

    #[test]
    fn a_string_is_published_once_when_its_id_is_admitted() {
        let mut texts = Texts::new(4);
        assert_eq!(announce(&mut texts, 7, AdmissionStatus::Open), None);
        assert_eq!(texts.admit(of(7)), Some(name(7).1));
        assert_eq!(texts.admit(of(7)), None);
        assert_eq!(announce(&mut texts, 7, AdmissionStatus::Admitted), None);
        assert_eq!(announce(&mut texts, 8, AdmissionStatus::Admitted), Some(name(8).1));
        assert_eq!(announce(&mut texts, 9, AdmissionStatus::Closed), None);
        assert_eq!(texts.published().count(), 2);
        assert_eq!((texts.rows().count(), texts.waiting[&0].len()), (2, 0));
    }

    #[test]
    fn of_those_that_wait_the_lowest_are_kept() {
        let mut texts = Texts::new(4);
        let kept = WAITING as u64 + 4;
        for id in (2..2 * kept).rev() {
            announce(&mut texts, id, AdmissionStatus::Open);
        }
        assert_eq!(texts.rows().count() as u64, kept);
        assert!(texts.rows().all(|(id, _)| *id < of(2 + kept)));
        assert!(texts.admit(of(2)).is_some() && texts.admit(of(2 + kept)).is_none());
    }

    #[test]
    fn what_nothing_needs_is_forgotten_a_sweep_later() {
        let mut texts = Texts::new(4);
        announce(&mut texts, 7, AdmissionStatus::Admitted);
        announce(&mut texts, 8, AdmissionStatus::Admitted);
        announce(&mut texts, 9, AdmissionStatus::Open);
        let mut forgotten = Vec::new();
        for tick in 1..=3 * SWEEP_TICKS {
            let needed = |id: &RouteId, _| *id == of(8) && tick < 2 * SWEEP_TICKS;
            forgotten.extend(texts.end_tick(needed).into_iter().map(|id| (id.0 >> 8, tick)));
        }
        assert_eq!(forgotten, [(7, 2 * SWEEP_TICKS), (8, 3 * SWEEP_TICKS)]);
        assert!(texts.rows().next().is_none() && texts.waiting.is_empty());
    }
}
