//! Draws the live view from a [`Scene`], without clock and job, so that tests can compare it.
//!
//! ```text
//! title
//! calls: rate, its course      │ job: lag, watermark, results
//! incidents: which key, its signals, its actions
//! keys with most calls         │ quotas that are nearly used up, bills; countries, if there is room
//! routes: latencies            │ oddities
//! keys to press, commands that ask the API
//! ```
//! It is made for 80 columns and 24 lines. More room shows more columns and rows, less room cuts some. Below [`NARROW`]
//! columns there are four panels, one below the other.

use std::path::Path;

use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, BorderType, Cell, Paragraph, Row, Sparkline, Table};

use super::Staged;
use super::asking::Asking;
use super::incidents::ShownIncident;
use super::view::LiveView;
use super::world::{HISTORY_MS, KNOWN_KEYS, LEAK_AFTER_MS, MINUTE_ENDS_AFTER_MS};
use crate::text::{bytes, clock, cut, grouped, latency, percent, span, stopwatch, wrap};

/// Columns of a terminal from which tables show all of their columns.
const WIDE: u16 = 120;
/// Lines of a terminal from which there are more panels.
const TALL: u16 = 40;
/// Lines of a terminal from which commands have lines of their own, and columns from which one fits beside the keys.
const ROOMY: (u16, u16) = (30, 80);
/// Columns of a terminal below which panels don't stand beside each other.
const NARROW: u16 = 64;
const ACCENT: Color = Color::Cyan;
const WARNING: Color = Color::Yellow;
const BAD: Color = Color::Red;

/// The phase of a demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The job reads the history; how much of it is read, in percent.
    Reading(u64),
    Running,
    /// No more records are sent, and the job reads the rest.
    Ending,
}

/// The data of one frame.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    pub(super) view: &'a LiveView,
    pub(super) phase: Phase,
    pub(super) staged: &'a Staged,
    /// In ms since the epoch, by the clock of live traffic.
    pub(super) now: u64,
    /// By how much that clock is behind this machine's, in ms.
    pub(super) behind_ms: u64,
    /// Since the demo's start, as `end_ms`.
    pub(super) elapsed_ms: u64,
    /// The time at which the duration is over, once live traffic has begun.
    pub(super) end_ms: Option<u64>,
    /// Calls a second, as `--rate` says.
    pub(super) rate: u32,
    /// Records in the broker that the job hasn't read.
    pub(super) unread: u64,
    /// In ms since the epoch; 0 before the first.
    pub(super) watermark: u64,
    pub(super) rows: u64,
    pub(super) row_bytes: u64,
    pub(super) workers: usize,
    pub(super) asking: &'a Asking,
    pub(super) folder: &'a Path,
}

/// Draws a scene on a frame.
pub(super) fn draw(scene: &Scene<'_>, frame: &mut Frame<'_>) {
    let area = frame.area();
    let wide = area.width >= WIDE;
    if area.width < NARROW {
        return draw_narrow(scene, frame, area);
    }
    // An incident has a line for its key, two for the headline, and one for the action.
    let of_leaks = if scene.view.incidents.all.is_empty() { 5 } else { 6 };
    let is_tall = area.height >= TALL;
    let commands = if area.height >= ROOMY.0 { 2 } else { 0 };
    let [title, top, found, middle, bottom, ask, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(if is_tall { 8 } else { 5 }),
        Constraint::Length(if is_tall { 8 } else { of_leaks }),
        Constraint::Fill(1),
        Constraint::Fill(1),
        Constraint::Length(commands),
        Constraint::Length(1),
    ])
    .areas(area);
    let columns = Layout::horizontal([Constraint::Percentage(58), Constraint::Fill(1)]);
    frame.render_widget(title_line(scene, title.width), title);
    let [left, right] = columns.areas(top);
    calls(scene, frame, left);
    job(scene, frame, right, wide);
    incidents(scene, frame, found);
    let [left, right] = columns.areas(middle);
    top_keys(scene, frame, left, wide);
    if is_tall {
        let halves = Layout::vertical([Constraint::Fill(1), Constraint::Fill(1)]);
        let [upper, lower] = halves.areas(right);
        quotas(scene, frame, upper, wide);
        countries(scene, frame, lower);
    } else {
        quotas(scene, frame, right, wide);
    }
    let [left, right] = columns.areas(bottom);
    routes(scene, frame, left, wide);
    oddities(scene, frame, right, wide);
    let [check, quota] = [scene.asking.check(), scene.asking.quota()];
    let lines = [check, quota].map(|command| Line::from(vec![" ".into(), command.into()]));
    frame.render_widget(Paragraph::new(lines.to_vec()), ask);
    let fits = commands == 0 && keys.width >= ROOMY.1;
    let line = if fits { command_line(scene) } else { key_line(scene, keys.width) };
    frame.render_widget(line, keys);
}

/// Draws the panels that count most.
fn draw_narrow(scene: &Scene<'_>, frame: &mut Frame<'_>, area: Rect) {
    let [title, top, work, found, middle, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(4),
        Constraint::Length(5),
        Constraint::Length(8),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(area);
    frame.render_widget(title_line(scene, title.width), title);
    calls(scene, frame, top);
    job(scene, frame, work, false);
    incidents(scene, frame, found);
    top_keys(scene, frame, middle, false);
    frame.render_widget(key_line(scene, keys.width), keys);
}

fn panel<'a>(title: &'a str, note: impl Into<Line<'a>>) -> Block<'a> {
    Block::bordered()
        .border_type(BorderType::Rounded)
        .border_style(Style::new().dark_gray())
        .title(Line::from(format!(" {title} ")).style(Style::new().fg(ACCENT).add_modifier(Modifier::BOLD)))
        .title(note.into().style(Style::new().dark_gray()).alignment(Alignment::Right))
}

fn title_line(scene: &Scene<'_>, width: u16) -> Line<'static> {
    let end = scene.end_ms.map_or_else(String::new, |end_ms| format!(" of {}", stopwatch(end_ms)));
    let time = format!("{}{end}", stopwatch(scene.elapsed_ms));
    let state = match scene.phase {
        Phase::Reading(percent) => format!("reads history: {percent} %").fg(WARNING),
        Phase::Running => "live".fg(Color::Green),
        Phase::Ending => "finishing".fg(WARNING),
    };
    let mut title =
        vec![" keytide demo ".bold().reversed(), "  ".into(), state, format!("  {time}  ").into()];
    if width >= NARROW {
        title.push(format!("in-process Kafka, {} workers", scene.workers).dark_gray());
    }
    Line::from(title)
}

fn key_line(scene: &Scene<'_>, width: u16) -> Line<'static> {
    let folder = cut(&scene.folder.display().to_string(), usize::from(width).saturating_sub(33));
    Line::from(vec![
        " q".bold(),
        " or ".dark_gray(),
        "Ctrl-C".bold(),
        " ends   rows go to ".dark_gray(),
        folder.into(),
    ])
}

/// Returns the key that ends the demo, and the command that asks for a call.
fn command_line(scene: &Scene<'_>) -> Line<'static> {
    Line::from(vec![" q".bold(), " ends  ".dark_gray(), scene.asking.check().into()])
}

fn calls(scene: &Scene<'_>, frame: &mut Frame<'_>, area: Rect) {
    let block = panel("Calls", format!(" asked for {}/s ", grouped(scene.rate.into())));
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let [numbers, course] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(inner);
    let rates = scene.view.rates(usize::from(course.width));
    let now = rates.last().copied().unwrap_or(0);
    let recent = scene.view.recent();
    let mut parts = vec![
        format!("{}/s", grouped(now)).bold(),
        "  errors ".dark_gray(),
        percent(recent.errors_permille()).into(),
    ];
    if let Some(mean) = recent.mean_us() {
        parts.extend(["  mean ".dark_gray(), latency(mean).into()]);
    }
    frame.render_widget(Line::from(parts), numbers);
    frame.render_widget(Sparkline::default().data(&rates).style(Style::new().fg(ACCENT)), course);
}

fn job(scene: &Scene<'_>, frame: &mut Frame<'_>, area: Rect, wide: bool) {
    let total = scene.view.total();
    let behind = match scene.watermark {
        0 => "none yet".to_owned(),
        watermark => format!("{} behind", span(scene.now.saturating_sub(watermark))),
    };
    let at =
        if wide && scene.watermark > 0 { format!("  {}", clock(scene.watermark)) } else { String::new() };
    let lag = grouped(scene.unread);
    let lag = if scene.unread > u64::from(scene.rate) * 2 { lag.fg(WARNING) } else { lag.into() };
    // Ticks are named by this machine's clock, all other times by that of the traffic.
    let tick = scene.view.last_tick().map(|tick| clock(tick.saturating_sub(scene.behind_ms)));
    let tick = tick.unwrap_or_default();
    let mut lines = vec![
        named("lag", vec![lag, " records unread".dark_gray()]),
        named("watermark", vec![behind.into(), at.dark_gray()]),
        named("events", vec![grouped(total.events).into(), " so far".dark_gray()]),
    ];
    if area.height > 5 {
        lines.extend([
            named("keys", vec![grouped(scene.view.keys() as u64).into(), " in the last minute".dark_gray()]),
            named("tick", vec![tick.into()]),
            named(
                "published",
                vec![format!("{} rows, {}", grouped(scene.rows), bytes(scene.row_bytes)).into()],
            ),
        ]);
    }
    frame.render_widget(Paragraph::new(lines).block(panel("Job", "")), area);
}

/// Draws the incidents with their signals and actions, the newest last.
fn incidents(scene: &Scene<'_>, frame: &mut Frame<'_>, area: Rect) {
    let of = &scene.view.incidents;
    let many =
        |count: u64, name: &str| format!("{} {name}{}", grouped(count), if count == 1 { "" } else { "s" });
    let note = match of.count {
        0 => String::new(),
        count => format!(" {}, {} ", many(count, "incident"), many(of.mails.len() as u64, "mail")),
    };
    let block = panel("Leaks", note);
    let inner = block.inner(area);
    let (room, width) = (usize::from(inner.height), usize::from(inner.width));
    // As many as there is room for, of three lines each.
    let shown = &of.all[of.all.len().saturating_sub((room / 3).max(1))..];
    let room_each = room / shown.len().max(1);
    let mut lines: Vec<Line<'_>> =
        shown.iter().flat_map(|incident| incident_lines(incident, room_each, width)).collect();
    if lines.is_empty() {
        let text = wrap(&no_incident(scene), width).into_iter();
        lines.extend(text.map(|line| Line::from(line.dark_gray())));
    }
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

/// Returns the lines of an incident, `room` at most: its key and how grave it is, the headline, the last action.
fn incident_lines(incident: &ShownIncident, room: usize, width: usize) -> Vec<Line<'_>> {
    let severity = || incident.severity().fg(BAD).bold();
    let ratio = incident.ratio();
    let mut lines = match width >= usize::from(NARROW) {
        true => {
            let customer = format!("  {}  ", incident.customer());
            let mut head = vec![incident.key().bold(), customer.into(), severity()];
            head.extend(ratio.map(|ratio| format!("  {ratio}").bold()));
            vec![Line::from(head)]
        }
        false => {
            let mut more: Vec<Span<'_>> =
                ratio.map_or_else(Vec::new, |ratio| vec![ratio.bold(), "  ".into()]);
            more.push(incident.customer().into());
            vec![Line::from(vec![incident.key().bold(), "  ".into(), severity()]), Line::from(more)]
        }
    };
    let action = incident.actions.last().map(|action| Line::from(cut(action, width).fg(WARNING)));
    let left = room.saturating_sub(lines.len() + usize::from(action.is_some())).max(1);
    let headline = incident.headline();
    let mut wrapped = wrap(&headline, width);
    if wrapped.len() > left {
        let rest = wrapped.split_off(left - 1).join(" ");
        wrapped.push(cut(&rest, width));
    }
    lines.extend(wrapped.into_iter().map(Line::from));
    lines.extend(action);
    lines
}

/// Returns what stands in place of incidents.
fn no_incident(scene: &Scene<'_>) -> String {
    let hours = HISTORY_MS / 3_600_000;
    let stolen_ms = scene.staged.live_ms + LEAK_AFTER_MS;
    match scene.phase {
        _ if !scene.staged.has_history => {
            "None: no key is judged in its first day, and there is no history.".to_owned()
        }
        Phase::Reading(_) => format!("The detector learns {KNOWN_KEYS} keys from their last {hours} hours."),
        _ if scene.now < stolen_ms => {
            format!("None yet. {KNOWN_KEYS} keys are known well; one of them is about to be stolen.")
        }
        _ => format!(
            "None yet. One of {KNOWN_KEYS} known keys is stolen: it is used from another country, too. The detector \
             judges it when the minute ends, {} s after live traffic began.",
            MINUTE_ENDS_AFTER_MS / 1_000
        ),
    }
}

fn named<'a>(name: &'a str, values: Vec<Span<'a>>) -> Line<'a> {
    let mut spans = vec![format!("{name:<12}").dark_gray()];
    spans.extend(values);
    Line::from(spans)
}

/// A column of a table: its head, width (0 fills the rest) and alignment.
struct TableColumn(&'static str, u16, Alignment);

const LEFT: Alignment = Alignment::Left;
const RIGHT: Alignment = Alignment::Right;

fn table<'a>(columns: &[TableColumn], rows: Vec<Vec<Span<'a>>>, block: Block<'a>) -> Table<'a> {
    let head = columns.iter().map(|TableColumn(name, _, align)| Line::from(*name).alignment(*align));
    let head = Row::new(head.map(Cell::from).collect::<Vec<_>>()).style(Style::new().dark_gray());
    let rows = rows.into_iter().map(|row| {
        let cells = row.into_iter().zip(columns);
        Row::new(
            cells
                .map(|(text, TableColumn(_, _, align))| Line::from(text).alignment(*align))
                .collect::<Vec<_>>(),
        )
    });
    let widths = columns.iter().map(|TableColumn(_, width, _)| match width {
        0 => Constraint::Fill(1),
        width => Constraint::Length(*width),
    });
    Table::new(rows, widths.collect::<Vec<_>>()).header(head).block(block)
}

/// Returns how many rows a table in `area` has, without borders and head.
fn rows_of(area: Rect) -> usize {
    usize::from(area.height.saturating_sub(3))
}

fn top_keys(scene: &Scene<'_>, frame: &mut Frame<'_>, area: Rect, wide: bool) {
    let mut columns = vec![TableColumn("key", 8, LEFT), TableColumn("customer", 0, LEFT)];
    if wide {
        columns.extend([TableColumn("plan", 10, LEFT), TableColumn("out/s", 9, RIGHT)]);
    }
    columns.extend([TableColumn("calls/s", 7, RIGHT), TableColumn("errors", 7, RIGHT)]);
    if wide {
        columns.extend([TableColumn("mean", 7, RIGHT), TableColumn("p50", 7, RIGHT)]);
    }
    columns.push(TableColumn("p99", 7, RIGHT));
    let covered = scene.view.recent_ms();
    let rate = |count: u64| count * 1_000 / covered;
    let rows = scene.view.top_keys(rows_of(area)).into_iter().map(|line| {
        let recent = line.recent;
        let permille = recent.errors_permille();
        let errors = percent(permille);
        let errors = if permille >= 100 { errors.fg(BAD) } else { errors.into() };
        let known = |us: Option<u64>| Span::from(us.map_or_else(|| "-".to_owned(), latency));
        let customer =
            if line.customer.is_empty() { "not in a table".fg(WARNING) } else { line.customer.into() };
        let mut cells = vec![line.key.into(), customer];
        if wide {
            cells.extend([line.plan.into(), bytes(rate(recent.bytes_out)).into()]);
        }
        cells.extend([per_second(recent.calls, covered).into(), errors]);
        if wide {
            cells.extend([known(recent.mean_us()), known(line.latency.map(|latency| latency.p50_us))]);
        }
        cells.push(known(line.latency.map(|latency| latency.p99_us)));
        cells
    });
    let block = panel("Top keys", " last minute ");
    frame.render_widget(table(&columns, rows.collect(), block), area);
}

/// Formats a rate, with one decimal below 100.
fn per_second(count: u64, ms: u64) -> String {
    let tenths = count * 10_000 / ms.max(1);
    if tenths < 1_000 { format!("{}.{}", tenths / 10, tenths % 10) } else { grouped(tenths / 10) }
}

/// Draws the quotas of which the largest part is used, with the bills of their subscriptions.
fn quotas(scene: &Scene<'_>, frame: &mut Frame<'_>, area: Rect, wide: bool) {
    let mut columns = vec![TableColumn("subscription", 0, LEFT)];
    if wide {
        columns.push(TableColumn("use", 36, RIGHT));
    }
    columns.extend([TableColumn("used", 7, RIGHT), TableColumn("bill so far", 11, RIGHT)]);
    let rows = scene.view.top_quotas(rows_of(area)).into_iter().map(|line| {
        let share = line.quota.share();
        let share = match line.quota.standing.permille {
            1_000.. => share.fg(BAD),
            800.. => share.fg(WARNING),
            _ => share.into(),
        };
        let mut cells = vec![line.subscription.into()];
        if wide {
            cells.push(format!("{} a {}", line.quota.used(), line.quota.period()).into());
        }
        cells.extend([share, line.bill.unwrap_or_else(|| "-".to_owned()).into()]);
        cells
    });
    let note = match scene.view.quotas.notices {
        0 => String::new(),
        1 => " 1 notice ".to_owned(),
        count => format!(" {} notices ", grouped(count)),
    };
    let block = panel("Quotas", note);
    frame.render_widget(table(&columns, rows.collect(), block), area);
}

fn countries(scene: &Scene<'_>, frame: &mut Frame<'_>, area: Rect) {
    let countries = scene.view.countries();
    let total: u64 = countries.iter().map(|(_, calls, _)| calls).sum();
    let most = countries.first().map_or(0, |(_, calls, _)| *calls);
    let note = match countries.len() {
        0 => String::new(),
        1 => " 1 country ".to_owned(),
        count => format!(" {count} countries "),
    };
    let block = panel("Countries", note);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    // Two letters, a share of eight characters, and calls.
    let room = u64::from(inner.width).saturating_sub(2 + 1 + 1 + 8 + 10);
    let lines = countries.iter().take(usize::from(inner.height)).map(|(country, calls, _)| {
        let eighths = (room * 8 * calls).checked_div(most).unwrap_or(0);
        let share = percent((calls * 1_000).checked_div(total).unwrap_or(0));
        Line::from(vec![
            format!("{} ", country.as_str()).into(),
            bar(eighths, room).fg(ACCENT),
            format!(" {share:>7} ").into(),
            format!("{:>10}", grouped(*calls)).dark_gray(),
        ])
    });
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), inner);
}

/// Draws a bar of `eighths` of a column, filled up with spaces to `columns`.
fn bar(eighths: u64, columns: u64) -> String {
    const PARTS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let part = PARTS[(eighths % 8) as usize];
    let full = (eighths / 8) as usize;
    let rest = (columns as usize).saturating_sub(full + usize::from(!part.is_empty()));
    format!("{}{part}{}", "█".repeat(full), " ".repeat(rest))
}

fn routes(scene: &Scene<'_>, frame: &mut Frame<'_>, area: Rect, wide: bool) {
    let mut columns = vec![TableColumn("route", 0, LEFT)];
    if wide {
        columns.push(TableColumn("calls", 9, RIGHT));
    }
    columns.push(TableColumn("p50", 7, RIGHT));
    if wide {
        columns.push(TableColumn("p90", 7, RIGHT));
    }
    columns.push(TableColumn("p95", 7, RIGHT));
    columns.push(TableColumn("p99", 7, RIGHT));
    if wide {
        columns.push(TableColumn("max", 8, RIGHT));
    }
    let rows = scene.view.routes(rows_of(area)).into_iter().map(|line| {
        let of = line.latency;
        let mut cells: Vec<Span<'_>> = vec![line.route.into()];
        if wide {
            cells.push(grouped(of.calls).into());
        }
        cells.push(latency(of.p50_us).into());
        if wide {
            cells.push(latency(of.p90_us).into());
        }
        cells.extend([latency(of.p95_us).into(), latency(of.p99_us).into()]);
        if wide {
            cells.push(latency(of.max_us).into());
        }
        cells
    });
    let block = panel("Latency by route", " 5 min windows, every 30 s ");
    frame.render_widget(table(&columns, rows.collect(), block), area);
}

/// Draws late events, dead letters, unknown keys and failing keys.
fn oddities(scene: &Scene<'_>, frame: &mut Frame<'_>, area: Rect, wide: bool) {
    let view = scene.view;
    let total = view.total();
    let block = panel("Oddities", "");
    let inner = block.inner(area);
    let room = usize::from(inner.height);
    // Each line has a number and a short remark.
    let line = |name, number: u64, more: String| {
        named(name, vec![format!("{:<5} ", grouped(number)).into(), more.dark_gray()])
    };
    let late = view.last_late().map_or_else(String::new, |(key, late_ms)| {
        if wide { format!("{key} by {}", span(late_ms)) } else { format!("by {}", span(late_ms)) }
    });
    let dead = view.dead_letters().first().map_or_else(String::new, |(class, _)| format!("mostly {class}"));
    let unknown = format!("{} unknown", grouped(view.unknown_keys() as u64));
    let mut lines = vec![
        line("late", total.late, late),
        line("dead letter", total.dead_letters, dead),
        line(
            "no key",
            view.anonymous(),
            if wide { format!("{unknown} keys, in the last minute") } else { unknown },
        ),
    ];
    if room > lines.len() + 1 {
        lines.push(line("duplicate", total.duplicates, "dropped".to_owned()));
    }
    let failing = view.failing_keys(room.saturating_sub(lines.len()));
    if failing.is_empty() {
        lines.push(named("failing", vec!["no key over 10 %".dark_gray()]));
    }
    for (at, line) in failing.into_iter().enumerate() {
        let name = if at == 0 { "failing" } else { "" };
        let errors = percent(line.recent.errors_permille());
        let customer = if wide { format!("  {}", line.customer) } else { String::new() };
        lines.push(named(name, vec![format!("{}  ", line.key).into(), errors.fg(BAD), customer.dark_gray()]));
    }
    if let Some(reason) = view.last_letter().filter(|_| lines.len() + 2 < room) {
        lines.extend([
            Line::default(),
            Line::from("last dead letter".dark_gray()),
            Line::from(reason.to_owned()),
        ]);
    }
    frame.render_widget(Paragraph::new(lines).block(block), area);
}
