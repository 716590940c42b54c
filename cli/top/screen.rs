//! Draws a state, without clock and files, so that tests can compare it.
//!
//! It has no lines and boxes, so it is the same in every locale. Narrow terminals show fewer columns.

use keytide_connectors::sink::encode::time;
use keytide_dataflow::Level;
use keytide_worker::top::{Column, Top, Totals, WIDTHS};
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Cell, Paragraph, Row, Table};

use crate::look::Look;
use crate::text::{counted, cut, grouped, harmless, latency, minute, short_id, shown_key, width};

/// Lines of a terminal from which incidents are shown, and how many of them.
const TALL: u16 = 14;
const INCIDENTS: usize = 4;

/// The choices that the user made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) width: Level,
    pub(super) by: Column,
}

impl Default for Asked {
    fn default() -> Self {
        Self { width: Level::Day, by: Column::Calls }
    }
}

impl Asked {
    /// Takes in a key that was pressed.
    pub(super) fn press(&mut self, key: char) {
        match key {
            'c' => self.by = Column::Calls,
            'e' => self.by = Column::Errors,
            'p' => self.by = Column::P99,
            'n' => self.by = Column::Countries,
            'a' => self.by = Column::Callers,
            'w' => {
                let at = WIDTHS.iter().position(|width| *width == self.width).unwrap_or(0);
                self.width = WIDTHS[(at + 1) % WIDTHS.len()];
            }
            _ => {}
        }
    }
}

/// How fresh the shown data are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fresh {
    /// Everything is shown that the source has.
    Whole,
    /// More of the folder is to be read.
    Reading,
    /// The job doesn't answer any more.
    Stale,
}

/// Draws a frame. `from` is the folder or the job's address.
pub(super) fn draw(state: &dyn Top, asked: Asked, from: (&str, Fresh), look: Look, frame: &mut Frame<'_>) {
    let area = frame.area();
    let found = state.incidents();
    let found = &found[..found.len().min(INCIDENTS)];
    let room = if area.height >= TALL && !found.is_empty() { found.len() as u16 + 2 } else { 0 };
    let [title, keys, incidents, help] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(room),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(head(state, asked, from, look, title.width), title);
    table(state, asked, look, frame, keys);
    if room > 0 {
        let width = usize::from(incidents.width);
        let lines = found.iter().map(|incident| {
            let text = format!(
                "{}  {}, {} %, {}: key {}, {}",
                short_id(&incident.incident_id),
                incident.severity,
                incident.score,
                incident.state,
                shown_key(&incident.key_id),
                incident.headline
            );
            let line = Line::from(look.letters(cut(&harmless(&text), width)));
            if look.colours && incident.severity == "critical" && incident.state == "open" {
                line.fg(Color::Red)
            } else {
                line
            }
        });
        let head = [Line::default(), Line::from("Newest incidents").bold()];
        frame.render_widget(Paragraph::new(Text::from_iter(head.into_iter().chain(lines))), incidents);
    }
    let text = "q ends  sort: c calls, e errors, p p99, n countries, a callers  w window";
    let text = if help.width < 74 { "q ends  sort: c e p n a  w window" } else { text };
    frame.render_widget(Line::from(text).dim(), help);
}

fn head(
    state: &dyn Top,
    asked: Asked,
    (from, fresh): (&str, Fresh),
    look: Look,
    width: u16,
) -> Line<'static> {
    let text = match state.totals(asked.width) {
        None if fresh == Fresh::Reading => "reads...".to_owned(),
        None => "no calls yet".to_owned(),
        Some(Totals { start, keys, calls, has_more }) => {
            let start = minute(&time(start));
            let reads = if fresh == Fresh::Reading { ", reads..." } else { "" };
            let more = if has_more { " and more" } else { "" };
            format!(
                "{} from {start} UTC: {} of {}{more}{reads}",
                asked.width.label(),
                counted(calls, "call", "calls"),
                counted(keys, "key", "keys")
            )
        }
    };
    let stale = if fresh == Fresh::Stale { "NO ANSWER  " } else { "" };
    let text = format!("{stale}{text}   {}", harmless(from));
    let line = Line::from(look.letters(cut(&text, usize::from(width)))).bold();
    if look.colours && fresh == Fresh::Stale { line.fg(Color::Red) } else { line }
}

fn table(state: &dyn Top, asked: Asked, look: Look, frame: &mut Frame<'_>, area: Rect) {
    // By the width from which a column is shown: name, columns, and whether keys are sorted by it.
    let all = [
        (0, "key", 16, None),
        (62, "customer", 0, None),
        (0, "calls", 9, Some(Column::Calls)),
        (0, "errors", 8, Some(Column::Errors)),
        (80, "p50", 8, None),
        (40, "p99", 8, Some(Column::P99)),
        (80, "countries", 10, Some(Column::Countries)),
        (54, "callers", 8, Some(Column::Callers)),
    ];
    let columns: Vec<_> = all.into_iter().filter(|(from, ..)| area.width >= *from).collect();
    let most = usize::from(area.height.saturating_sub(1));
    let found = state.keys(asked.width, asked.by, most);
    let longest = found.iter().map(|row| width(&shown_key(&row.key_id)) as u16).max().unwrap_or(0).max(8);
    let widths = columns.iter().map(|(_, name, columns, _)| match *name {
        "key" => Constraint::Length(longest),
        "customer" => Constraint::Fill(1),
        _ => Constraint::Length(*columns),
    });
    let right = |text: String| Cell::from(Text::from(text).alignment(Alignment::Right));
    let head = columns.iter().map(|(_, name, _, column)| {
        let is_sorted = *column == Some(asked.by);
        let name = if is_sorted { format!("{name}*") } else { (*name).to_owned() };
        match column {
            None if name != "p50" => Cell::from(name),
            _ => right(name),
        }
    });
    let rows = found.into_iter().map(|row| {
        let number = |number: u64| if number == 0 { "-".to_owned() } else { grouped(number) };
        let us = |us: Option<u64>| us.map_or_else(|| "-".to_owned(), latency);
        let cells = columns.iter().map(|(_, name, ..)| match *name {
            "key" => Cell::from(look.letters(shown_key(&row.key_id))),
            "customer" => Cell::from(look.letters(harmless(&row.owner).into_owned())),
            "calls" => right(grouped(row.calls)),
            "errors" => right(number(row.errors)),
            "p50" => right(us(row.p50_us)),
            "p99" => right(us(row.p99_us)),
            "countries" => right(number(row.countries)),
            _ => right(number(row.callers)),
        });
        Row::new(cells.collect::<Vec<_>>())
    });
    let table = Table::new(rows.collect::<Vec<_>>(), widths.collect::<Vec<_>>())
        .column_spacing(1)
        .header(Row::new(head.collect::<Vec<_>>()).style(Style::new().bold()));
    frame.render_widget(table, area);
}
