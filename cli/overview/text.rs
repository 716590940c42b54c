//! Renders an overview as text for a terminal, by its width.
//!
//! From [`WIDE`] columns on, keys and routes are tables. On a narrower terminal each is a line with its numbers below.
//! Texts of strangers (names, routes) can't act on the terminal, and no line is longer than the terminal is wide.

use std::fmt::Write as _;

use super::{InNoTable, IncidentLine, Incidents, KeyLine, NotJudged, Overview, RouteLine};
use crate::look::Look;
use crate::text::{
    KEY, counted, cut, grouped, harmless, latency, length, minute, share, short_id, shown_key, width, wrap,
};

/// Columns from which tables are shown.
const WIDE: usize = 74;
/// Columns of the labels on the left.
const LABELS: usize = 15;
/// Columns of a customer, at most.
const CUSTOMER: usize = 28;

/// A line on the left of which stands a label.
pub(crate) type Labelled = (&'static str, String);

/// Renders an overview. `title` is the command, `more` are further lines of the first block, and `files` says where the
/// whole result is.
pub(crate) fn render(
    overview: &Overview,
    title: &str,
    more: &[Labelled],
    files: &[String],
    look: Look,
) -> String {
    let mut page = Page { text: String::new(), look };
    page.summary(overview, title, more);
    page.keys(&overview.busiest_keys);
    page.routes(&overview.slowest_routes);
    page.incidents(&overview.incidents);
    page.not_judged(&overview.not_judged);
    if !files.is_empty() {
        page.line("");
        files.iter().for_each(|line| page.paragraph("", line));
    }
    look.letters(page.text)
}

struct Page {
    text: String,
    look: Look,
}

/// A column of a table. Columns of texts are cut where a table is too wide; numbers stand on the right.
struct TableColumn {
    head: &'static str,
    is_number: bool,
    /// Columns of the terminal, at most.
    most: usize,
}

impl TableColumn {
    fn text(head: &'static str, most: usize) -> Self {
        Self { head, is_number: false, most }
    }

    fn number(head: &'static str, most: usize) -> Self {
        Self { head, is_number: true, most }
    }
}

impl Page {
    fn line(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    fn heading(&mut self, text: &str) {
        self.line("");
        self.bold(text);
    }

    fn bold(&mut self, text: &str) {
        for line in wrap(text, self.look.width) {
            let line = self.look.bold(&line);
            self.line(&line);
        }
    }

    /// Adds a text behind `begin`, under which further lines are indented.
    fn paragraph(&mut self, begin: &str, text: &str) {
        let indent = width(begin);
        for (at, line) in wrap(text, self.look.width.saturating_sub(indent)).iter().enumerate() {
            let begin = if at == 0 { begin.to_owned() } else { " ".repeat(indent) };
            self.line(&format!("{begin}{line}"));
        }
    }

    fn labelled(&mut self, label: &str, text: &str) {
        self.paragraph(&format!("{label:<LABELS$}"), text);
    }

    fn summary(&mut self, overview: &Overview, title: &str, more: &[Labelled]) {
        let Overview { calls, keys, errors, span_ms, records, refused, first_refused, .. } = overview;
        let mut head =
            format!("{title}: {} of {}", counted(*calls, "call", "calls"), counted(*keys, "key", "keys"));
        if let Some((from, to)) = span_ms {
            write!(head, " in {}", length(to - from)).expect("memory takes any text");
        }
        self.bold(&head);
        if let (Some(from), Some(to)) = (&overview.from, &overview.to) {
            self.labelled("time", &format!("{} to {} UTC", minute(from), until(from, to)));
        }
        let of_calls = |count: u64| format!("{} ({})", counted(count, "call", "calls"), share(count, *calls));
        self.labelled("errors", &of_calls(*errors));
        let all: u64 = refused.iter().map(|refused| refused.records).sum();
        if all == 0 {
            self.labelled("refused", &format!("none of {}", counted(*records, "record", "records")));
        } else {
            let reasons: Vec<String> = refused
                .iter()
                .map(|refused| format!("{} {}", grouped(refused.records), refused.reason))
                .collect();
            let (all, of) = (grouped(all), counted(*records, "record", "records"));
            self.labelled("refused", &format!("{all} of {of}: {}", reasons.join(", ")));
            if let Some(first) = first_refused {
                self.labelled("", &format!("the first in {}", harmless(first)));
            }
        }
        if overview.passed_over > 0 {
            let records = counted(overview.passed_over, "record", "records");
            self.labelled("passed over", &format!("{records} that are no calls"));
        }
        if overview.duplicates > 0 {
            self.labelled("duplicates", &counted(overview.duplicates, "record", "records"));
        }
        if overview.late > 0 {
            self.labelled("late", &counted(overview.late, "record", "records"));
        }
        self.labelled("without a key", &of_calls(overview.without_key));
        match &overview.in_no_table {
            None => self.labelled("in no table", "no table of keys is configured (tables.keys)"),
            Some(InNoTable { keys: 0, .. }) => self.labelled("in no table", "none of the keys"),
            Some(InNoTable { keys, calls }) => {
                self.labelled(
                    "in no table",
                    &format!("{}, {}", counted(*keys, "key", "keys"), of_calls(*calls)),
                );
            }
        }
        if overview.conflicting > 0 {
            self.labelled("two identities", &of_calls(overview.conflicting));
        }
        if overview.overflow > 0 {
            self.labelled("beyond limits", &of_calls(overview.overflow));
        }
        more.iter().for_each(|(label, text)| self.labelled(label, text));
    }

    fn keys(&mut self, keys: &[KeyLine]) {
        if keys.is_empty() {
            return;
        }
        self.heading(match keys.len() {
            1 => "The only key",
            _ => "Busiest keys",
        });
        let us = |us: Option<u64>| us.map_or_else(|| "-".to_owned(), latency);
        let callers = |key: &KeyLine| match (key.callers, key.callers_exact) {
            (None, _) => "-".to_owned(),
            (Some(callers), Some(false)) => format!("~{}", grouped(callers)),
            (Some(callers), _) => grouped(callers),
        };
        if self.look.width < WIDE {
            for key in keys {
                let owner = key.owner().map_or_else(String::new, |owner| format!("  {owner}"));
                self.narrow(&format!("{}{owner}", shown_key(&key.key_id)));
                let mut numbers = vec![
                    counted(key.calls, "call", "calls"),
                    format!("{} errors", share(key.errors, key.calls)),
                ];
                if let (Some(p50), Some(p99)) = (key.p50_us, key.p99_us) {
                    numbers.extend([format!("p50 {}", latency(p50)), format!("p99 {}", latency(p99))]);
                }
                match key.countries.as_slice() {
                    [] => {}
                    [only] => numbers.push(only.clone()),
                    many => numbers.push(format!("{} countries", many.len())),
                }
                match key.callers {
                    None => {}
                    Some(1) => numbers.push("1 caller".to_owned()),
                    Some(_) => numbers.push(format!("{} callers", callers(key))),
                }
                self.paragraph("  ", &numbers.join(", "));
            }
        } else {
            let columns = [
                TableColumn::text("key", KEY),
                TableColumn::text("customer", CUSTOMER),
                TableColumn::number("calls", 16),
                TableColumn::number("errors", 8),
                TableColumn::number("p50", 9),
                TableColumn::number("p99", 9),
                TableColumn::number("countries", 9),
                TableColumn::number("callers", 11),
            ];
            let rows = keys.iter().map(|key| {
                vec![
                    shown_key(&key.key_id),
                    key.owner().unwrap_or_else(|| "-".to_owned()),
                    grouped(key.calls),
                    share(key.errors, key.calls),
                    us(key.p50_us),
                    us(key.p99_us),
                    match key.countries.as_slice() {
                        [] => "-".to_owned(),
                        [only] => only.clone(),
                        many => many.len().to_string(),
                    },
                    callers(key),
                ]
            });
            self.table(&columns, &rows.collect::<Vec<_>>());
        }
        if keys.iter().any(|key| key.days > 1) {
            self.paragraph(
                "",
                "p50 and p99 are of the key's busiest day, callers of the day with most of them.",
            );
        }
    }

    fn routes(&mut self, routes: &[RouteLine]) {
        if routes.is_empty() {
            return;
        }
        self.heading("Slowest routes");
        if self.look.width < WIDE {
            for route in routes {
                self.narrow(&harmless(&route.route));
                let numbers = format!(
                    "{}, p50 {}, p99 {}",
                    counted(route.calls, "call", "calls"),
                    latency(route.p50_us),
                    latency(route.p99_us)
                );
                self.paragraph("  ", &numbers);
            }
        } else {
            let columns = [
                TableColumn::text("route", 60),
                TableColumn::number("calls", 16),
                TableColumn::number("p50", 9),
                TableColumn::number("p99", 9),
            ];
            let rows = routes.iter().map(|route| {
                vec![
                    harmless(&route.route).into_owned(),
                    grouped(route.calls),
                    latency(route.p50_us),
                    latency(route.p99_us),
                ]
            });
            self.table(&columns, &rows.collect::<Vec<_>>());
        }
        if routes.iter().any(|route| route.days > 1) {
            self.paragraph("", "p50 and p99 are of the route's busiest day.");
        }
    }

    fn incidents(&mut self, incidents: &Incidents) {
        let Incidents { total, critical, alert, notice, withdrawn, gravest } = incidents;
        if *total == 0 {
            self.heading("Incidents: none");
            return;
        }
        let kinds =
            [(critical, "critical"), (alert, "alert"), (notice, "notice"), (withdrawn, "of them withdrawn")];
        let kinds: Vec<String> = kinds
            .into_iter()
            .filter(|(count, _)| **count > 0)
            .map(|(count, kind)| format!("{} {kind}", grouped(*count)))
            .collect();
        self.heading(&format!("Incidents: {} ({})", grouped(*total), kinds.join(", ")));
        gravest.iter().for_each(|incident| self.incident(incident));
        let rest = (total - withdrawn).saturating_sub(gravest.len() as u64);
        if rest > 0 {
            self.paragraph("", &format!("and {} less grave", grouped(rest)));
        }
    }

    fn incident(&mut self, incident: &IncidentLine) {
        let IncidentLine { incident_id, key_id, customer, severity, score, state, opened_at, headline } =
            incident;
        let id = short_id(incident_id);
        let owner = customer.as_deref().map_or_else(String::new, |name| format!(" of {}", harmless(name)));
        let (key, since) = (shown_key(key_id), minute(opened_at));
        let text = format!("{severity}, {score} %: key {key}{owner}, since {since} UTC, {state}");
        let shown = match severity == "critical" {
            true => self.look.red(severity),
            false => self.look.bold(severity),
        };
        let indent = " ".repeat(width(&id) + 2);
        for (at, line) in wrap(&text, self.look.width.saturating_sub(indent.len())).iter().enumerate() {
            match at {
                0 => self.line(&format!("{id}  {}", line.replacen(severity.as_str(), &shown, 1))),
                _ => self.line(&format!("{indent}{line}")),
            }
        }
        self.paragraph(&indent, &sentence(headline));
    }

    fn not_judged(&mut self, all: &[NotJudged]) {
        if all.is_empty() {
            return;
        }
        self.heading("Not judged");
        all.iter().for_each(|of| self.paragraph("- ", &of.text));
    }

    /// Adds a line that is cut at the terminal's width.
    fn narrow(&mut self, text: &str) {
        let line = cut(text, self.look.width);
        self.line(&line);
    }

    /// Adds a table. The first columns that aren't of numbers are cut until it fits.
    fn table(&mut self, columns: &[TableColumn], rows: &[Vec<String>]) {
        let mut widths: Vec<usize> = columns
            .iter()
            .enumerate()
            .map(|(at, column)| {
                let cells = rows.iter().map(|row| width(&row[at]));
                cells.chain([width(column.head)]).max().unwrap_or(0).min(column.most)
            })
            .collect();
        let whole = widths.iter().sum::<usize>() + 2 * (columns.len() - 1);
        let mut over = whole.saturating_sub(self.look.width);
        for at in (0..columns.len()).rev().filter(|at| !columns[*at].is_number) {
            let cut = over.min(widths[at].saturating_sub(8));
            widths[at] -= cut;
            over -= cut;
        }
        let row = |cells: &[&str]| {
            let cells = cells.iter().zip(columns).zip(&widths).map(|((cell, column), columns)| {
                let cell = cut(cell, *columns);
                let room = " ".repeat(columns - width(&cell));
                if column.is_number { format!("{room}{cell}") } else { format!("{cell}{room}") }
            });
            cells.collect::<Vec<_>>().join("  ")
        };
        let head = row(&columns.iter().map(|column| column.head).collect::<Vec<_>>());
        self.line(&head);
        for cells in rows {
            let line = row(&cells.iter().map(String::as_str).collect::<Vec<_>>());
            self.line(&line);
        }
    }
}

impl KeyLine {
    /// Returns the customer, or else the subscription.
    fn owner(&self) -> Option<String> {
        let name = self.customer.as_deref().or(self.subscription.as_deref());
        name.map(|name| harmless(name).into_owned())
    }
}

/// Returns the end of a span, without the date if that is the same.
fn until(from: &str, to: &str) -> String {
    let (from, to) = (minute(from), minute(to));
    match from.get(..10) == to.get(..10) {
        true => to.chars().skip(11).collect(),
        false => to,
    }
}

/// Returns a text with a capital letter and a full stop.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| format!("{}{}.", first.to_uppercase(), chars.as_str()))
}
