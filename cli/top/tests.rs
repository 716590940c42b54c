//! What the screen shows of rows, compared with whole screens.

use keytide_config::{Http, View};
use keytide_dataflow::Level;
use keytide_worker::top::{Column, Top, TopPage, TopState, WIDTHS};
use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::screen::{Asked, Fresh, draw};
use crate::job::JobAddress;
use crate::look::Look;

fn usage(key: &str, window: &str, start: &str, calls: u64, errors: u64) -> String {
    format!(
        r#"{{"key_id":"{key}","window":"{window}","window_start":"{start}","calls":{calls},"errors_4xx":{errors},"errors_5xx":0,"bytes_in":1,"subscription":"sub-1","customer":"Customer of {key}","plan":null}}"#
    )
}

/// The digits of a key's id.
fn hash(number: u32) -> String {
    format!("{:08x}{number:024x}", number.wrapping_mul(0x9e37_79b9))
}

const DAY: &str = "2025-06-03T00:00:00Z";

fn state() -> TopState {
    let mut state = TopState::default();
    let mut take = |view, line: String| state.take_line(view, line.as_bytes());
    for number in 1..=5 {
        let key = hash(number);
        take(View::Usage, usage(&key, "1d", "2025-06-02T00:00:00Z", 9_000, 1));
        take(View::Usage, usage(&key, "1d", DAY, u64::from(number) * 300, u64::from(6 - number)));
        take(View::Usage, usage(&key, "1h", "2025-06-03T08:00:00Z", 7, 0));
        take(
            View::Latency,
            format!(
                r#"{{"scope":"key","id":"{key}","window":"1d","window_start":"{DAY}","calls":5,"p50_us":12000,"p99_us":{}}}"#,
                number * 31_000
            ),
        );
        for country in &["DE", "US", "ZZ", "DE"][..number.min(4) as usize] {
            take(
                View::Geo,
                format!(
                    r#"{{"key_id":"{key}","country":"{country}","window":"1d","window_start":"{DAY}","calls":1}}"#
                ),
            );
        }
        take(
            View::Callers,
            format!(
                r#"{{"scope":"key","id":"{key}","window":"1d","window_start":"{DAY}","callers":{}}}"#,
                number % 3
            ),
        );
    }
    take(View::Usage, "no row".to_owned());
    take(View::Latency, r#"{"scope":"route","id":"GET /v1","window":"1d","window_start":"x"}"#.to_owned());
    state
}

fn screen(state: &dyn Top, asked: Asked, (width, height): (u16, u16)) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(state, asked, ("out/views", Fresh::Whole), Look::plain(), frame)).unwrap();
    let mut text = String::new();
    for line in terminal.backend().buffer().content().chunks(usize::from(width)) {
        let line: String = line.iter().map(ratatui::buffer::Cell::symbol).collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn order(state: &TopState, by: Column) -> Vec<u32> {
    let keys = state.keys(Level::Day, by, 3);
    keys.iter().map(|row| (1..=5).find(|number| hash(*number) == row.key_id).unwrap()).collect()
}

#[test]
fn at_80_by_12_all_columns_are_there() {
    let shown = screen(&state(), Asked::default(), (80, 12));
    assert!(
        shown == include_str!("screens/80x12.txt"),
        "cli/top/screens/80x12.txt isn't what is shown:\n{shown}"
    );
}

#[test]
fn at_80_by_20_the_newest_incidents_stand_below() {
    let mut state = state();
    for incident in keytide_alerts::email::samples::all() {
        state.take_line(View::IncidentLog, &serde_json::to_vec(&incident).unwrap());
    }
    let shown = screen(&state, Asked::default(), (80, 20));
    assert!(
        shown == include_str!("screens/80x20.txt"),
        "cli/top/screens/80x20.txt isn't what is shown:\n{shown}"
    );
}

#[test]
fn at_40_by_10_the_most_important_are() {
    let shown = screen(&state(), Asked { by: Column::Errors, ..Asked::default() }, (40, 10));
    assert!(
        shown == include_str!("screens/40x10.txt"),
        "cli/top/screens/40x10.txt isn't what is shown:\n{shown}"
    );
}

#[test]
fn keys_are_sorted_by_the_column_that_is_asked_for() {
    let state = state();
    assert_eq!(order(&state, Column::Calls), [5, 4, 3]);
    assert_eq!(order(&state, Column::Errors), [1, 2, 3]);
    assert_eq!(order(&state, Column::P99), [5, 4, 3]);
    assert_eq!(order(&state, Column::Callers)[0], if hash(2) < hash(5) { 2 } else { 5 });
    let mut asked = Asked::default();
    for (key, by) in
        [('e', Column::Errors), ('p', Column::P99), ('n', Column::Countries), ('a', Column::Callers)]
    {
        asked.press(key);
        assert_eq!(asked.by, by);
    }
    let widths = [Level::Month, Level::Minute, Level::Hour, Level::Day].map(|_| {
        asked.press('w');
        asked.width
    });
    assert_eq!(widths, [Level::Month, Level::Minute, Level::Hour, Level::Day]);
}

#[test]
fn the_newest_window_and_the_newest_version_of_a_row_count() {
    let mut state = state();
    let totals = |state: &TopState, width| state.totals(width).map(|totals| (totals.keys, totals.calls));
    assert_eq!(totals(&state, Level::Day), Some((5, 300 * 15)));
    state.take_line(View::Usage, usage(&hash(1), "1d", DAY, 301, 0).as_bytes());
    state.take_line(View::Usage, usage(&hash(1), "1d", "2025-06-01T00:00:00Z", 9, 0).as_bytes());
    assert_eq!(totals(&state, Level::Day), Some((5, 300 * 15 + 1)));
    state.take_line(View::Usage, usage(&hash(9), "1d", "2025-06-04T00:00:00Z", 2, 0).as_bytes());
    assert_eq!(totals(&state, Level::Day), Some((1, 2)));
    assert_eq!((totals(&state, Level::Hour), totals(&state, Level::Minute)), (Some((5, 35)), None));
}

#[test]
fn no_size_is_too_small_and_no_name_acts() {
    let mut state = state();
    state.take_line(View::Usage, usage("a\\u001b[2Jb", "1d", DAY, 1_000_000, 0).as_bytes());
    for size in [(1, 1), (10, 2), (40, 3), (79, 24), (300, 90)] {
        let shown = screen(&state, Asked::default(), size);
        assert!(shown.lines().all(|line| !line.contains(char::is_control)), "{shown}");
    }
    assert!(screen(&TopState::default(), Asked::default(), (60, 8)).starts_with("no calls yet"));
}

#[test]
fn the_page_of_a_job_is_shown_as_its_files_are() {
    let mut state = state();
    for incident in keytide_alerts::email::samples::all() {
        state.take_line(View::IncidentLog, &serde_json::to_vec(&incident).unwrap());
    }
    let sent = serde_json::to_vec(&TopPage::of(&state)).unwrap();
    let page: TopPage = serde_json::from_slice(&sent).unwrap();
    for by in Column::ALL {
        for width in WIDTHS {
            for size in [(40, 10), (80, 24), (160, 50)] {
                let asked = Asked { width, by };
                assert_eq!(screen(&page, asked, size), screen(&state, asked, size), "{asked:?}");
            }
        }
    }
}

#[test]
fn a_job_that_answers_no_more_is_shown_as_such_with_its_last_page() {
    let page = TopPage::of(&state());
    let mut terminal = Terminal::new(TestBackend::new(80, 12)).unwrap();
    let from = ("http://127.0.0.1:9464", Fresh::Stale);
    terminal.draw(|frame| draw(&page, Asked::default(), from, Look::plain(), frame)).unwrap();
    let cells = terminal.backend().buffer().content().chunks(80).take(2).flatten();
    let text: String = cells.map(ratatui::buffer::Cell::symbol).collect();
    assert!(
        text.starts_with("NO ANSWER  1d from 2025-06-03 00:00 UTC: 4,500 calls of 5 keys   http://"),
        "{text}"
    );
    assert!(text.contains("customer"), "{text}");
}

/// Returns what is wrong with an address.
fn refused(text: &str) -> String {
    JobAddress::parse(text, None).unwrap().unwrap_err().to_string()
}

#[test]
fn addresses_are_told_from_paths_and_have_one_form() {
    for (text, shown) in [
        ("http://127.0.0.1:9464", "http://127.0.0.1:9464"),
        ("http://localhost:9464/", "http://localhost:9464"),
        ("http://[::1]:9464/top.json", "http://[::1]:9464"),
        ("http://meters.example", "http://meters.example:80"),
    ] {
        assert_eq!(JobAddress::parse(text, None).unwrap().unwrap().shown(), shown);
    }
    for path in ["out", ".", "/var/lib/keytide", "keytide.toml", "http", "127.0.0.1:9464"] {
        assert!(JobAddress::parse(path, None).is_none(), "{path}");
    }
    for text in ["http://", "http:///top.json", "http://user:hunter2@host:1", "http://host:1/?token=hunter2"]
    {
        let message = refused(text);
        assert!(message.contains("allowed: http://HOST:PORT") && !message.contains("hunter2"), "{message}");
    }
    assert!(refused("https://meters.example").contains("ssh -L"));
}

#[test]
fn a_configuration_names_the_address_of_its_job_on_this_machine() {
    for (listen, shown) in [
        ("127.0.0.1:9464", "http://127.0.0.1:9464"),
        ("0.0.0.0:80", "http://127.0.0.1:80"),
        ("[::]:9464", "http://[::1]:9464"),
        ("10.0.0.7:9464", "http://10.0.0.7:9464"),
    ] {
        let http = Http { listen: listen.parse().unwrap(), ..Http::default() };
        assert_eq!(JobAddress::of(&http).unwrap().shown(), shown);
    }
    let chosen = Http { listen: "127.0.0.1:0".parse().unwrap(), ..Http::default() };
    assert!(JobAddress::of(&chosen).unwrap_err().to_string().contains("its log says"));
}
