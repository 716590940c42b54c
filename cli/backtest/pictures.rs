//! Pictures beside a report: the traffic of the gravest incidents, as mails show it, and how long leaks went on before
//! they were told.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use keytide_alerts::email::{bars, traffic};
use keytide_alerts::incident::Transition as Row;
use keytide_config::Language;
use keytide_connectors::sink::encode::{EncodeRow as _, Labels};
use keytide_connectors::sink::names::Names;
use keytide_connectors::sink::{JobInfo, LogRow};
use keytide_dataflow::detect::Level;
use keytide_dataflow::{Change, IncidentId, Transition};

use super::history::Observed;
use super::judge::{Judged, Label};

/// Incidents that are drawn.
const DRAWN: usize = 6;
const DELAYS: &str = "delays.png";

/// Classes of delays: from so many minutes on, and what they are called.
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

/// A picture of a report.
pub(super) struct Picture {
    /// Its file.
    pub(super) name: String,
    /// What it shows.
    pub(super) shows: String,
    pub(super) png: Vec<u8>,
}

/// The files that pictures of a run may have.
pub(super) fn names() -> impl Iterator<Item = String> {
    (1..=DRAWN).map(incident_name).chain([DELAYS.to_owned()])
}

fn incident_name(number: usize) -> String {
    format!("incident-{number}.png")
}

/// The gravest incidents, each by its last transition with its traffic: by level and score, and of equal ones those
/// whose id is lower, so that the choice doesn't depend on the order in which they came.
#[derive(Default)]
pub(super) struct Gravest(BTreeMap<(Reverse<Level>, Reverse<u8>, IncidentId), Transition>);

impl Gravest {
    pub(super) fn note(&mut self, transition: &Transition) {
        let incident = &transition.incident;
        if transition.change == Change::Withdrawn || incident.traffic.is_empty() {
            return;
        }
        let known = self.0.keys().find(|(_, _, id)| *id == incident.id).copied();
        let known = known.and_then(|place| self.0.remove(&place));
        // The end of an incident may be long after what it was about.
        let latest = |of: &Transition| of.incident.traffic.last().map(|point| point.start_ms);
        let shown = known.filter(|known| latest(known) == latest(transition));
        let shown = shown.unwrap_or_else(|| transition.clone());
        self.0.insert((Reverse(incident.level), Reverse(incident.score), incident.id), shown);
        if self.0.len() > DRAWN {
            self.0.pop_last();
        }
    }

    /// As rows of `incident_log`.
    pub(super) fn rows(&self, names: &Names, job: JobInfo<'_>) -> Vec<Vec<u8>> {
        let mut labels = Labels::new(names);
        let row = |transition| {
            let mut line = Vec::new();
            LogRow { transition, job }.line(&mut labels, &mut line);
            line
        };
        self.0.values().map(row).collect()
    }
}

/// Their pictures.
pub(super) fn incidents(rows: &[Vec<u8>]) -> impl Iterator<Item = Picture> {
    rows.iter().zip(1..).filter_map(|(row, number)| {
        let row: Row = serde_json::from_slice(row).ok()?;
        let png = traffic(&row, Language::En)?;
        let shows = format!("calls of {}, incident {} ({})", row.key_id, row.incident_id, row.level);
        Some(Picture { name: incident_name(number), shows, png })
    })
}

/// How many leaks were told after how many minutes.
pub(super) fn delays(observed: &Observed, labels: Option<&[Label]>) -> Option<Picture> {
    let judged = Judged::new(labels?, &observed.alerts, observed.span_ms.unwrap_or_default(), observed.keys);
    let mut classes = CLASSES.map(|(_, name)| (name, 0));
    for minutes in judged.delays() {
        let class = CLASSES.iter().rposition(|(from, _)| *from <= minutes).unwrap_or(0);
        classes[class].1 += 1;
    }
    let title = "Leaks by minutes from the first call to the alert";
    Some(Picture { name: DELAYS.to_owned(), shows: title.to_owned(), png: bars(title, &classes)? })
}
