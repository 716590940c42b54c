//! The incidents of a demo by the published rows of `incident_log` and `incidents`, with their actions and mails.
//!
//! A transition makes a line of text and a mail. Between two transitions an incident grows: its newest row is shown.
//!
//! Limits: the last 100 incidents and 1,000 mails are listed; others are counted.

use std::fs;
use std::path::{Path, PathBuf};

use keytide_alerts::actions::held;
use keytide_alerts::email::{headline, severity};
use keytide_config::Language;
use keytide_connectors::sink::encode::{EncodeRow as _, Labels};
use keytide_connectors::sink::names::Names;
use keytide_connectors::sink::{IncidentRow, JobInfo};
use keytide_dataflow::incident_row::{SignalJson, TransitionJson};
use keytide_dataflow::{ActionState, Change, Incident, Notice};

use serde_json::Value;

use crate::text::short_id;

/// The name of the folder of mails, below the demo's.
pub(super) const MAIL_FOLDER: &str = "mails";
/// Incidents that the screen lists, at most.
const INCIDENTS: usize = 100;
const MAILS: usize = 1_000;

/// An incident as it stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ShownIncident {
    /// Its last transition, with the columns of its newest row.
    pub(super) last: TransitionJson,
    /// Actions that were held back, with the reasons.
    pub(super) actions: Vec<String>,
}

impl ShownIncident {
    /// Returns the key's first eight digits.
    pub(super) fn key(&self) -> String {
        short_id(&self.last.key_id)
    }

    /// Returns the customer that the key belongs to.
    pub(super) fn customer(&self) -> &str {
        self.last.customer.as_deref().unwrap_or("nobody in a table")
    }

    /// Returns the severity and the probability of a leak, such as `critical, 99 %`.
    pub(super) fn severity(&self) -> String {
        format!("{}, {} %", severity(&self.last.level, Language::En), self.last.score)
    }

    /// Returns how many times its usual calls the key makes, if that is unusual.
    pub(super) fn ratio(&self) -> Option<String> {
        let counts = |signal: &&SignalJson| signal.family == "volume" && signal.weighted_bits > 0.0;
        let ratios = self.last.signals.iter().filter(counts).filter_map(|signal| signal.ratio);
        let ratio = ratios.fold(0.0, f64::max);
        (ratio >= 1.5).then(|| match ratio {
            0.0..10.0 => format!("{ratio:.1}x its usual calls"),
            _ => format!("{ratio:.0}x its usual calls"),
        })
    }

    /// Returns why the key is suspected, as mails say it.
    pub(super) fn headline(&self) -> String {
        headline(&self.last, Language::En)
    }
}

/// All incidents of a demo.
#[derive(Debug, Default)]
pub(super) struct IncidentList {
    /// In the order in which they opened.
    pub(super) all: Vec<ShownIncident>,
    pub(super) count: u64,
    /// Actions that wait for a person, or are only shown.
    pub(super) held_actions: u64,
    /// Their paths below the demo's folder.
    pub(super) mails: Vec<PathBuf>,
    /// Events since the last call of `take_lines`, as text.
    lines: Vec<String>,
}

impl IncidentList {
    /// Takes in the notices of a tick.
    pub(super) fn take(&mut self, notices: &[Notice]) {
        for notice in notices {
            // Tests check that every row fits its schema, so the demo passes over one that doesn't.
            let Ok(transition) = serde_json::from_slice::<TransitionJson>(&notice.json) else { continue };
            self.learn(transition, notice);
        }
    }

    /// Takes in the newest row of an incident, unless it hasn't had a transition.
    pub(super) fn grow(&mut self, incident: &Incident, names: &Names) {
        let id = incident.id.to_string();
        let Some(known) = self.all.iter_mut().find(|known| known.last.incident_id == id) else { return };
        // Samples name partitions, which aren't known here and aren't shown.
        let incident = Incident { samples: Vec::new(), ..incident.clone() };
        let row = IncidentRow { incident: &incident, job: JobInfo { config: "", partitions: &[] } };
        let mut line = Vec::new();
        row.line(&mut Labels::new(names), &mut line);
        let Ok(Value::Object(row)) = serde_json::from_slice(&line) else { return };
        let Ok(Value::Object(mut last)) = serde_json::to_value(&known.last) else { return };
        last.extend(row);
        if let Ok(last) = serde_json::from_value(Value::Object(last)) {
            known.last = last;
        }
    }

    fn learn(&mut self, transition: TransitionJson, notice: &Notice) {
        let id = &transition.incident_id;
        let at = match self.all.iter().position(|known| known.last.incident_id == *id) {
            Some(at) => {
                self.all[at].last = transition;
                at
            }
            None => {
                self.count += 1;
                if self.all.len() == INCIDENTS {
                    self.all.remove(0);
                }
                self.all.push(ShownIncident { last: transition, actions: Vec::new() });
                self.all.len() - 1
            }
        };
        let incident = &mut self.all[at];
        let (key, customer) = (incident.key(), incident.customer().to_owned());
        let last = &incident.last;
        let what = match last.transition {
            _ if last.level == "notice" => "called although it is revoked",
            Change::Opened if last.early => "leak suspected, in a minute that isn't over",
            Change::Opened => "leak suspected",
            Change::Raised => "hardly anything but a leak",
            Change::Updated => "the leak grows",
            Change::Reopened => "suspected again",
            // A job that stops closes its open incidents, which is no event of the traffic.
            Change::Ended => return,
            Change::Withdrawn => "withdrawn",
        };
        let (severity, headline) = (incident.severity(), incident.headline());
        self.lines.push(format!("INCIDENT  key {key} of {customer}: {what}; {severity}; {headline}"));
        for action in &notice.actions {
            let (name, reason) = (action.action.name(), &action.reason);
            let text = if action.state == ActionState::Held {
                self.held_actions += 1;
                format!("would {name} the key; held: {}", held(reason))
            } else {
                format!("{name}, {}: {reason}", action.state.name())
            };
            self.lines.push(format!("ACTION    key {key} of {customer}: {text}"));
            incident.actions.push(text);
        }
    }

    /// Returns whether one of the listed incidents is of this key.
    pub(super) fn contains(&self, key_id: &str) -> bool {
        self.all.iter().any(|incident| incident.last.key_id == key_id)
    }

    /// Looks for mails in the demo's folder that were written since the last call.
    pub(super) fn look_for_mails(&mut self, folder: &Path) {
        let entries = fs::read_dir(folder.join(MAIL_FOLDER)).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries
            .map(|entry| Path::new(MAIL_FOLDER).join(entry.file_name()))
            .filter(|path| path.extension().is_some_and(|end| end == "eml"))
            .collect();
        if paths.len() == self.mails.len() || self.mails.len() >= MAILS {
            return;
        }
        paths.sort_unstable();
        for path in paths.into_iter().filter(|path| !self.mails.contains(path)).collect::<Vec<_>>() {
            self.lines.push(format!("MAIL      {}", path.display()));
            self.mails.push(path);
        }
    }

    /// Returns the first mail to the security team, or else any mail.
    pub(super) fn first_mail(&self) -> Option<&Path> {
        self.first_mail_of(".security-").or(self.mails.first().map(PathBuf::as_path))
    }

    /// Returns the first mail whose name has a part.
    pub(super) fn first_mail_of(&self, part: &str) -> Option<&Path> {
        let has_part = |path: &&PathBuf| path.to_string_lossy().contains(part);
        self.mails.iter().find(has_part).map(PathBuf::as_path)
    }

    /// Returns the events since the last call, as text.
    pub(super) fn take_lines(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }
}
