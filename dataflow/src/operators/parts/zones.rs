//! Finds time zones by the ids of their names. Tables have the names as the database writes them.

use std::sync::{Arc, LazyLock};

use hashbrown::HashMap;
use keytide_billing::{Calendar, HourDays, zone_names};
use smallvec::SmallVec;

use crate::model::{EventTime, NameId};

/// The names of all zones.
static NAMES: LazyLock<HashMap<NameId, &'static str>> =
    LazyLock::new(|| zone_names().map(|name| (NameId::new(name), name)).collect());

/// Instants within an hour at which days begin, ascending.
pub(crate) type Midnights = SmallVec<[EventTime; 2]>;

/// Returns the instants within an hour, its first one excluded, at which a day begins in one of `zones`, ascending.
pub(crate) fn midnights_within<'a>(
    zones: impl IntoIterator<Item = &'a Calendar>,
    hour: EventTime,
) -> Midnights {
    let mut midnights = Midnights::new();
    for calendar in zones {
        let HourDays { change, .. } = calendar.hour_days(hour);
        midnights.extend(change.map(|(at_ms, _)| at_ms));
    }
    midnights.sort_unstable();
    midnights.dedup();
    midnights
}

/// Makes the calendar of a zone by the id of its name; of an unknown one, that of UTC.
pub(crate) fn calendar(zone: NameId) -> Calendar {
    NAMES.get(&zone).and_then(|name| Calendar::of_zone(name).ok()).unwrap_or_else(Calendar::utc)
}

/// The calendars of zones, each made when it is first asked for. Subscriptions of a zone share its calendar.
#[derive(Debug, Default)]
pub struct ZoneCalendars(HashMap<NameId, Arc<Calendar>>);

impl ZoneCalendars {
    /// Returns the calendar of a zone by the id of its name; of an unknown one, that of UTC.
    pub fn get(&mut self, zone: NameId) -> Arc<Calendar> {
        Arc::clone(self.0.entry(zone).or_insert_with(|| Arc::new(calendar(zone))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_zone_has_one_calendar_and_an_unknown_one_that_of_utc() {
        let mut calendars = ZoneCalendars::default();
        let berlin = calendars.get(NameId::new("Europe/Berlin"));
        assert_eq!(berlin.name(), "Europe/Berlin");
        assert!(Arc::ptr_eq(&berlin, &calendars.get(NameId::new("Europe/Berlin"))));
        assert_eq!(*calendars.get(NameId::new("Mars/Olympus")), Calendar::utc());
        assert_eq!(*calendars.get(NameId::NONE), Calendar::utc());
    }

    #[test]
    fn midnights_within_an_hour_are_those_of_the_zones_that_have_one() {
        let zones = ["Asia/Kolkata", "Asia/Kathmandu", "Europe/Berlin", "Asia/Colombo"];
        let zones = zones.map(|zone| calendar(NameId::new(zone)));
        // 2026-03-01T18:00:00Z: midnight comes to Kathmandu at 18:15, and to Kolkata and Colombo at 18:30.
        let hour = 1_772_388_000_000;
        assert_eq!(midnights_within(&zones, hour)[..], [hour + 900_000, hour + 1_800_000]);
        assert_eq!(midnights_within(&zones, hour + 3_600_000)[..], [0; 0]);
        assert_eq!(midnights_within(&zones[2..3], hour)[..], [0; 0]);
    }
}
