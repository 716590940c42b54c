//! Finds time zones by the ids of their names.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use hashbrown::HashMap;
use keytide_billing::{Calendar, Calendars, HourDays};
use smallvec::SmallVec;

use crate::model::{EventTime, NameId};

/// The zones whose days may begin within an hour of UTC: about thirty, of some fifty names.
static SPLITTING: LazyLock<HashMap<NameId, Arc<Calendar>>> = LazyLock::new(|| {
    let calendars =
        Calendars::names().filter_map(|name| Some((NameId::new(name), Calendar::of_zone(name).ok()?)));
    calendars
        .filter(|(_, calendar)| calendar.splits_hours())
        .map(|(id, calendar)| (id, Arc::new(calendar)))
        .collect()
});

/// The names of all zones.
static NAMES: LazyLock<HashMap<NameId, &'static str>> =
    LazyLock::new(|| Calendars::names().map(|name| (NameId::new(name), name)).collect());

/// Returns whether a zone's days may begin within an hour of UTC.
pub(crate) fn splits_hours(zone: NameId) -> bool {
    SPLITTING.contains_key(&zone)
}

/// Instants within an hour at which days begin, ascending.
pub(crate) type Midnights = SmallVec<[EventTime; 2]>;

/// Returns the instants within an hour, its first one excluded, at which a day begins in one of `zones`, ascending.
pub(crate) fn midnights_within(zones: &BTreeSet<NameId>, hour: EventTime) -> Midnights {
    let mut midnights = Midnights::new();
    for calendar in zones.iter().filter_map(|zone| SPLITTING.get(zone)) {
        let HourDays { change, .. } = calendar.hour_days(hour);
        midnights.extend(change.map(|(at_ms, _)| at_ms));
    }
    midnights.sort_unstable();
    midnights.dedup();
    midnights
}

/// The calendars of zones, each made when it is first asked for.
#[derive(Debug, Default)]
pub(crate) struct ZoneCalendars(HashMap<NameId, Arc<Calendar>>);

impl ZoneCalendars {
    /// Returns the calendar of a zone by the id of its name; of an unknown one, that of UTC.
    pub(crate) fn get(&mut self, zone: NameId) -> Arc<Calendar> {
        let calendar = || {
            let named = NAMES.get(&zone).and_then(|name| Calendar::of_zone(name).ok());
            Arc::new(named.unwrap_or_else(Calendar::utc))
        };
        Arc::clone(self.0.entry(zone).or_insert_with(calendar))
    }
}
