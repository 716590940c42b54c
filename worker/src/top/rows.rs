//! Rows as a state takes them in: those of a job's tick, and lines of views on disk.

use std::borrow::Cow;

use keytide_config::View;
use keytide_connectors::sink::names::Names;
use keytide_dataflow::incident_row::TransitionJson;
use keytide_dataflow::model::{Country, EventTime};
use keytide_dataflow::{Level, Rows, Scope};
use serde::Deserialize;

use super::state::{Percentiles, TopState};

#[derive(Deserialize)]
struct UsageLine<'a> {
    #[serde(borrow)]
    key_id: Cow<'a, str>,
    window: &'a str,
    window_start: &'a str,
    calls: u64,
    errors_4xx: u64,
    errors_5xx: u64,
    subscription: Option<String>,
    customer: Option<String>,
}

#[derive(Deserialize)]
struct ScopeLine<'a> {
    scope: &'a str,
    #[serde(borrow)]
    id: Cow<'a, str>,
    window: &'a str,
    window_start: &'a str,
    #[serde(default)]
    calls: u64,
    #[serde(default)]
    p50_us: u64,
    #[serde(default)]
    p99_us: u64,
    #[serde(default)]
    callers: u64,
}

#[derive(Deserialize)]
struct GeoLine<'a> {
    #[serde(borrow)]
    key_id: Cow<'a, str>,
    country: &'a str,
    window: &'a str,
    window_start: &'a str,
    calls: u64,
}

/// Returns the window that a line names; `None` if there is no such one.
fn window(width: &str, start: &str) -> Option<(Level, EventTime)> {
    let all = [Level::Minute, Level::FiveMinutes, Level::Hour, Level::Day, Level::Month];
    let width = all.into_iter().find(|level| level.label() == width)?;
    let start: jiff::Timestamp = start.parse().ok()?;
    Some((width, u64::try_from(start.as_millisecond()).ok()?))
}

impl TopState {
    /// Takes in a line of a view. A line that is no row is passed over.
    pub fn take_line(&mut self, view: View, line: &[u8]) {
        // Each returns nothing; the option is for `?`.
        let _ = match view {
            View::Usage => self.usage_line(line),
            View::Latency | View::Callers => self.scope_line(view, line),
            View::Geo => self.geo_line(line),
            View::IncidentLog => {
                serde_json::from_slice::<TransitionJson>(line).ok().map(|row| self.incident(row))
            }
            _ => None,
        };
    }

    fn usage_line(&mut self, line: &[u8]) -> Option<()> {
        let row: UsageLine<'_> = serde_json::from_slice(line).ok()?;
        let owner = row.customer.or(row.subscription).unwrap_or_default();
        let errors = row.errors_4xx.saturating_add(row.errors_5xx);
        self.usage(window(row.window, row.window_start)?, || row.key_id, (row.calls, errors), &owner);
        Some(())
    }

    fn scope_line(&mut self, view: View, line: &[u8]) -> Option<()> {
        let row: ScopeLine<'_> = serde_json::from_slice(line).ok()?;
        let (width, start) = window(row.window, row.window_start).filter(|_| row.scope == "key")?;
        if view == View::Callers {
            self.callers(start, || row.id, row.callers);
        } else {
            let of = Percentiles { p50_us: row.p50_us, p99_us: row.p99_us };
            self.latency((width, start), || row.id, row.calls, of);
        }
        Some(())
    }

    fn geo_line(&mut self, line: &[u8]) -> Option<()> {
        let row: GeoLine<'_> = serde_json::from_slice(line).ok()?;
        // The code of countries beyond a cap is read from no other data.
        let country =
            if row.country == Country::OTHER.as_str() { Country::OTHER } else { Country::new(row.country) };
        self.country(window(row.window, row.window_start)?, || row.key_id, row.calls, country);
        Some(())
    }

    /// Takes in rows of a tick. `names` are the strings behind their ids.
    pub fn take_rows(&mut self, rows: &Rows, names: &Names) {
        match rows {
            Rows::Usage(rows) => rows.iter().for_each(|row| {
                let (usage, owner) = (row.value.usage, row.value.owner);
                let errors = usage.errors_4xx + usage.errors_5xx;
                let owner = names.name(owner.customer).unwrap_or_else(|| names.text(owner.subscription));
                let key = || names.key_text(row.group);
                self.usage((row.level, row.start), key, (usage.calls, errors), owner);
            }),
            Rows::Latency(rows) => rows.iter().for_each(|row| {
                let Scope::Key(key) = row.group else { return };
                let of = Percentiles { p50_us: row.value.p50_us, p99_us: row.value.p99_us };
                self.latency((row.level, row.start), || names.key_text(key), row.value.calls, of);
            }),
            Rows::Geo(rows) => rows.iter().for_each(|row| {
                let key = || names.key_text(row.group.key);
                self.country((row.level, row.start), key, row.value.calls, row.group.country);
            }),
            Rows::Callers(rows) => rows.iter().for_each(|row| {
                let Scope::Key(key) = row.group else { return };
                self.callers(row.start, || names.key_text(key), row.value.callers);
            }),
            Rows::UsageByRoute(_)
            | Rows::SubscriptionUsage(_)
            | Rows::Quota(_)
            | Rows::Charges(_)
            | Rows::Bills(_)
            | Rows::Forecast(_)
            | Rows::Notices(_)
            | Rows::Adjustments(_)
            | Rows::Incidents(_)
            | Rows::IncidentLog(_)
            | Rows::Scores(_) => {}
        }
    }
}
