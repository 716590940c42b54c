//! What an overview says, compared with whole screens.

use keytide_connectors::ingest::sequencer::LAG_STEPS_MS;
use keytide_dataflow::model::time::{DAY_MS, MINUTE_MS};

use super::*;

/// 2025-06-02T08:00:00Z.
const START: u64 = 1_748_851_200_000;

/// An overview in which everything has something to say.
fn overview() -> Overview {
    let key = |key_id: &str, customer: Option<&str>, calls: u64| KeyLine {
        key_id: key_id.to_owned(),
        customer: customer.map(str::to_owned),
        subscription: None,
        calls,
        errors: calls / 27,
        p50_us: Some(20_300),
        p99_us: Some(140_000),
        latency_day: Some("2025-06-03".to_owned()),
        countries: ["AU", "DE", "US"].map(str::to_owned).to_vec(),
        callers: Some(1_531),
        callers_exact: Some(true),
        callers_day: Some("2025-06-04".to_owned()),
        days: 4,
    };
    let bare = KeyLine {
        p50_us: None,
        p99_us: None,
        latency_day: None,
        countries: Vec::new(),
        callers: None,
        callers_exact: None,
        callers_day: None,
        ..key("service-\u{1b}[2J-billing-and-more", None, 7)
    };
    let one = KeyLine {
        countries: vec!["SE".to_owned()],
        callers: Some(1),
        ..key("005003a8c5f3f0a69c1cdd0a1c58ce00", Some("한빛은행 오픈뱅킹 사업부 통합 플랫폼"), 5_535)
    };
    let route = |route: &str, p99_us| RouteLine {
        route: route.to_owned(),
        calls: 1_387,
        p50_us: 90_000,
        p99_us,
        day: "2025-06-03".to_owned(),
        days: 4,
    };
    let incident = |id: &str, severity: &str, headline: &str| IncidentLine {
        incident_id: id.repeat(4),
        key_id: "005003a8c5f3f0a69c1cdd0a1c58ce00".to_owned(),
        customer: Some("Ember Media 18".to_owned()),
        severity: severity.to_owned(),
        score: 99,
        state: "open".to_owned(),
        opened_at: "2025-06-04T07:41:00Z".to_owned(),
        headline: headline.to_owned(),
    };
    Overview {
        calls: 50_918,
        keys: 38,
        errors: 2_151,
        from: Some("2025-06-02T08:00:00Z".to_owned()),
        to: Some("2025-06-06T08:00:00Z".to_owned()),
        span_ms: Some((START, START + 4 * DAY_MS)),
        records: 51_172,
        refused: vec![
            Refused { reason: "syntax", records: 12 },
            Refused { reason: "not_a_call", records: 1_003 },
        ],
        first_refused: Some("logs/gateway.jsonl at byte 133".to_owned()),
        passed_over: 3,
        duplicates: 254,
        late: 1,
        without_key: 344,
        overflow: 0,
        conflicting: 2,
        in_no_table: Some(InNoTable { keys: 1, calls: 408 }),
        busiest_keys: vec![
            key("af6afee1bd5b3a5dc1a4b8ce12c80b8c", Some("Delta Logistics 9"), 12_727),
            one,
            bare,
        ],
        slowest_routes: vec![
            route("DELETE /v1/payments/{id}", 305_000),
            route("orders GET /v1/a/very/long/path/with/many/parts/that/no/table/has/room/for", 12_100_000),
        ],
        incidents: Incidents {
            total: 14,
            critical: 1,
            alert: 12,
            notice: 1,
            withdrawn: 1,
            gravest: vec![
                incident(
                    "10c77ad7",
                    "critical",
                    "from Australia and a system never seen (AS65515), with a user agent never seen, 38x its usual \
                     calls (101 in five minutes, 2.7 expected)",
                ),
                incident("422c1a20", "alert", "found in public"),
            ],
        },
        not_judged: vec![
            NotJudged {
                reason: "history",
                text: "Keys are judged by their habits after 24 h of history; this log has 3 h.".to_owned(),
            },
            NotJudged {
                reason: "no_key",
                text: "344 calls (0.6 %) without a key can't be judged.".to_owned(),
            },
        ],
    }
}

fn screen(width: usize, more: &[Labelled]) -> String {
    let files = ["out has a file of each view; summary.json there is this page for programs.".to_owned()];
    render(&overview(), "keytide replay", more, &files, Look { width, ..Look::plain() })
}

#[test]
fn at_80_columns_keys_and_routes_are_tables() {
    let shown = screen(80, &[("alerts", "9, 3.1 per 1,000 key-days".to_owned())]);
    assert!(
        shown == include_str!("screens/80.txt"),
        "cli/overview/screens/80.txt isn't what is shown:\n{shown}"
    );
}

#[test]
fn at_40_columns_each_has_its_numbers_below() {
    let shown = screen(40, &[]);
    assert!(
        shown == include_str!("screens/40.txt"),
        "cli/overview/screens/40.txt isn't what is shown:\n{shown}"
    );
}

#[test]
fn no_line_is_wider_than_the_terminal_and_nothing_acts_on_it() {
    for width in 30..=110 {
        for line in screen(width, &[]).lines() {
            assert!(crate::text::width(line) <= width, "{width}: {line}");
            assert!(!line.contains(char::is_control), "{line:?}");
        }
    }
}

#[test]
fn colours_are_there_only_where_they_are_wanted_and_ascii_where_it_must_be() {
    let shown = |look| render(&overview(), "keytide replay", &[], &[], look);
    assert!(shown(Look { colours: true, ..Look::plain() }).contains("\u{1b}[1;31mcritical\u{1b}[0m"));
    assert!(!shown(Look::plain()).contains('\u{1b}'));
    assert!(shown(Look { ascii: true, ..Look::plain() }).is_ascii());
}

#[test]
fn a_log_without_a_call_has_a_short_page() {
    let empty = Overview {
        calls: 0,
        keys: 0,
        errors: 0,
        from: None,
        to: None,
        span_ms: None,
        records: 0,
        refused: Vec::new(),
        first_refused: None,
        passed_over: 0,
        duplicates: 0,
        late: 0,
        without_key: 0,
        conflicting: 0,
        in_no_table: None,
        busiest_keys: Vec::new(),
        slowest_routes: Vec::new(),
        incidents: Incidents {
            total: 0,
            critical: 0,
            alert: 0,
            notice: 0,
            withdrawn: 0,
            gravest: Vec::new(),
        },
        not_judged: Vec::new(),
        ..overview()
    };
    let shown = render(&empty, "keytide replay", &[], &[], Look::plain());
    assert_eq!(
        shown,
        "keytide replay: 0 calls of 0 keys\n\
         errors         0 calls (0.0 %)\n\
         refused        none of 0 records\n\
         without a key  0 calls (0.0 %)\n\
         in no table    no table of keys is configured (tables.keys)\n\n\
         Incidents: none\n"
    );
}

#[test]
fn the_wait_that_is_named_admits_what_is_said() {
    let lags = |by_step: &[(usize, u64)], most_ms| {
        let mut lags = Lags { most_ms, ..Lags::default() };
        by_step.iter().for_each(|(step, events)| lags.events[*step] = *events);
        lags
    };
    let counts = Counts { events: 3_000, detector_late: 1_710, ..Counts::default() };
    let quarter = LAG_STEPS_MS.iter().position(|step| *step == 15 * MINUTE_MS).unwrap();
    let head = "1,710 of 3,000 calls (57 %) came too late for the detector, up to";
    assert_eq!(
        lateness(&counts, lags(&[(quarter, 1_710)], 14 * MINUTE_MS), 5_000),
        format!("{head} 14 min behind: windows.out_of_orderness = \"15m\" admits all of them.")
    );
    assert_eq!(
        lateness(&counts, lags(&[(quarter, 1_708), (LAG_STEPS_MS.len(), 2)], 30 * DAY_MS), 5_000),
        format!("{head} 30 d behind: windows.out_of_orderness = \"15m\" admits nearly all of them.")
    );
    assert_eq!(
        lateness(&counts, lags(&[(LAG_STEPS_MS.len(), 1_710)], 30 * DAY_MS), 5_000),
        format!(
            "{head} 30 d behind. windows.out_of_orderness = \"1h\" is the longest wait that can be set; sort the lines \
             of each file by time first."
        )
    );
}
