//! The page `/top.json`: of each width of windows the newest one with its busiest keys, and the newest incidents.
//!
//! **Limits.** It has the first [`PAGE_KEYS`] keys by each column, so five times as many of a window at most. With ids
//! of hashed keys that is 400 kB at most.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use keytide_connectors::sink::encode::time;
use keytide_dataflow::Level;
use serde::{Deserialize, Serialize};

use super::state::{Column, IncidentRow, KeyRow, Top, TopState, Totals, WIDTHS};

/// Keys of a window by each column, at most.
pub const PAGE_KEYS: usize = 100;

/// The page, which a job serves and `keytide top` shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopPage {
    windows: Vec<WindowOnPage>,
    incidents: Vec<IncidentRow>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct WindowOnPage {
    window: String,
    window_start: String,
    keys: u64,
    calls: u64,
    /// True if there are more keys, so that both numbers are too low.
    more: bool,
    /// The first keys by any column, those with most calls first.
    busiest: Vec<KeyRow>,
}

impl TopPage {
    /// Returns the page of a state.
    #[must_use]
    pub fn of(state: &TopState) -> Self {
        let window = |width: Level| {
            let Totals { start, keys, calls, has_more } = state.totals(width)?;
            let mut busiest = BTreeMap::new();
            for by in Column::ALL {
                let rows = state.keys(width, by, PAGE_KEYS).into_iter();
                busiest.extend(rows.map(|row| ((Reverse(row.calls), row.key_id.clone()), row)));
            }
            Some(WindowOnPage {
                window: width.label().to_owned(),
                window_start: time(start),
                keys,
                calls,
                more: has_more,
                busiest: busiest.into_values().collect(),
            })
        };
        Self {
            windows: WIDTHS.into_iter().filter_map(window).collect(),
            incidents: state.incidents().to_vec(),
        }
    }

    fn window(&self, width: Level) -> Option<&WindowOnPage> {
        self.windows.iter().find(|window| window.window == width.label())
    }
}

impl Top for TopPage {
    fn totals(&self, width: Level) -> Option<Totals> {
        let WindowOnPage { window_start, keys, calls, more, .. } = self.window(width)?;
        let start: jiff::Timestamp = window_start.parse().ok()?;
        let start = u64::try_from(start.as_millisecond()).ok()?;
        Some(Totals { start, keys: *keys, calls: *calls, has_more: *more })
    }

    fn keys(&self, width: Level, by: Column, most: usize) -> Vec<KeyRow> {
        let mut rows = self.window(width).map_or_else(Vec::new, |window| window.busiest.clone());
        rows.sort_by(|a, b| (Reverse(a.rank(by)), &a.key_id).cmp(&(Reverse(b.rank(by)), &b.key_id)));
        // Beyond these some may be missing.
        rows.truncate(most.min(PAGE_KEYS));
        rows
    }

    fn incidents(&self) -> &[IncidentRow] {
        &self.incidents
    }
}
