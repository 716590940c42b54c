//! Pictures beside a report: the traffic of the gravest incidents, as mails show it, and the delays of alerts.

use keytide_alerts::email::{bars, traffic};
use keytide_config::Language;
use keytide_dataflow::incident_row::TransitionJson;

use super::drawn::DRAWN;
use super::judge::{EpisodeLabel, Evaluation};
use super::observe::DetectorRun;

const DELAYS: &str = "delays.png";

/// Classes of delays: the least minutes, and the label.
const CLASSES: [(u64, &str); 8] = [
    (0, "0"),
    (1, "1"),
    (2, "2-4"),
    (5, "5-14"),
    (15, "15-59"),
    (60, "1-3 h"),
    (240, "4-11 h"),
    (720, "12 h+"),
];

/// A picture of a report, as a PNG file.
pub(super) struct Picture {
    pub(super) name: String,
    pub(super) shows: String,
    pub(super) png: Vec<u8>,
}

/// Returns the names of all files that pictures of a run may have.
pub(super) fn names() -> impl Iterator<Item = String> {
    (1..=DRAWN).map(incident_name).chain([DELAYS.to_owned()])
}

fn incident_name(number: usize) -> String {
    format!("incident-{number}.png")
}

/// Draws the traffic of incidents from their rows of `incident_log`.
pub(super) fn incidents(rows: &[Vec<u8>]) -> impl Iterator<Item = Picture> {
    rows.iter().zip(1..).filter_map(|(row, number)| {
        let row: TransitionJson = serde_json::from_slice(row).ok()?;
        let png = traffic(&row, Language::En)?;
        let shows = format!("calls of {}, incident {} ({})", row.key_id, row.incident_id, row.level);
        Some(Picture { name: incident_name(number), shows, png })
    })
}

/// Draws how many leaks were found after how many minutes.
pub(super) fn delays(run: &DetectorRun, labels: Option<&[EpisodeLabel]>) -> Option<Picture> {
    let evaluation = Evaluation::new(labels?, &run.alerts, run.span_ms.unwrap_or_default(), run.keys);
    let mut classes = CLASSES.map(|(_, name)| (name, 0));
    for minutes in evaluation.delays() {
        let class = CLASSES.iter().rposition(|(from, _)| *from <= minutes).unwrap_or(0);
        classes[class].1 += 1;
    }
    let title = "Leaks by minutes from the first call to the alert";
    Some(Picture { name: DELAYS.to_owned(), shows: title.to_owned(), png: bars(title, &classes)? })
}
