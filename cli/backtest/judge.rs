//! Judges alerts by labels: recall, delays and false alerts.
//!
//! A leak is found if its key alerts between the episode's first call and one hour after its end. An alert of any other
//! key, or of a leaked key at another time, is false. False alerts are counted after the first two fifths of the run,
//! in which nothing is staged and the detector learns. Their rate is per *key-day*: keys that called at least once,
//! times the days of that rest.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use keytide_dataflow::detect::Severity;
use keytide_dataflow::model::time::DAY_MS;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// How long after its last call an episode is over, in ms.
const AFTER_MS: u64 = 3_600_000;
/// Bytes of a file of labels, at most.
const MAX_BYTES: u64 = 64 << 20;

/// An incident that opened, rose or came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Alert {
    pub(crate) key: String,
    pub(crate) at_ms: u64,
    pub(crate) severity: Severity,
}

/// A line of `labels.jsonl`: an episode of the generated traffic.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct EpisodeLabel {
    key_id: Option<String>,
    kind: String,
    leak: bool,
    #[serde(deserialize_with = "time")]
    from: Timestamp,
    #[serde(deserialize_with = "time")]
    to: Timestamp,
    multiple: Option<f64>,
    countries: Option<Vec<String>>,
    asns: Option<Vec<u32>>,
}

impl EpisodeLabel {
    /// Reads a file of labels, one JSON object a line.
    ///
    /// # Errors
    /// If the file can't be read, is too long, or a line is no label.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Vec<Self>> {
        let shown = path.display();
        let mut text = String::new();
        let file = File::open(path).with_context(|| format!("{shown} can't be opened"))?;
        file.take(MAX_BYTES + 1)
            .read_to_string(&mut text)
            .with_context(|| format!("{shown} can't be read"))?;
        ensure!(text.len() as u64 <= MAX_BYTES, "{shown} has more than {MAX_BYTES} bytes");
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        lines
            .map(|(at, line)| {
                let label: Self = serde_json::from_str(line)
                    .with_context(|| format!("{shown}, line {}, is no label", at + 1))?;
                ensure!(label.from <= label.to, "{shown}, line {}: `to` lies before `from`", at + 1);
                Ok(label)
            })
            .collect()
    }

    /// Returns whether it has at least three times the usual calls or new origins, and is no slow drip.
    fn is_plain(&self) -> bool {
        let is_loud = self.multiple.is_none_or(|multiple| multiple >= 3.0);
        (is_loud || self.countries.is_some() || self.asns.is_some()) && self.kind != "slow_drip"
    }
}

fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
}

fn millis(time: Timestamp) -> u64 {
    u64::try_from(time.as_millisecond()).unwrap_or(0)
}

/// An episode of one key, from its first call to an hour after its last.
#[derive(Clone, Debug)]
#[allow(dead_code, reason = "a benchmark runs its reference detectors over the episodes")]
pub(crate) struct LabelledEpisode {
    pub(crate) kind: (bool, String),
    pub(crate) key: String,
    pub(crate) from_ms: u64,
    pub(crate) to_ms: u64,
}

/// Results for one kind of episode.
#[derive(Clone, Debug, Default)]
pub(crate) struct LabelKind {
    pub(crate) episodes: usize,
    /// Episodes in which the key alerted.
    pub(crate) found: usize,
    /// Episodes in which the key would have been revoked.
    pub(crate) would_revoke: usize,
    /// Minutes from the first call to the first alert, of found episodes.
    pub(crate) minutes: Vec<u64>,
}

/// The results of a run against its labels.
#[derive(Clone, Debug, Default)]
pub(crate) struct Evaluation {
    /// By name, and whether they only look like leaks.
    pub(crate) kinds: BTreeMap<(bool, String), LabelKind>,
    /// Numbers of plain leaks, found and all: leaks of three times the usual calls or from new origins.
    pub(crate) plain: [usize; 2],
    /// Alerts after the first two fifths.
    pub(crate) alerts: usize,
    pub(crate) false_alerts: usize,
    pub(crate) of_look_alikes: usize,
    /// Alerts of severity `revoke` of keys that aren't leaked.
    pub(crate) false_revocations: usize,
    pub(crate) key_days: f64,
    pub(crate) episodes: Vec<LabelledEpisode>,
}

/// Returns the time from which false alerts are counted.
pub(crate) fn counted_from((first_ms, last_ms): (u64, u64)) -> u64 {
    first_ms + last_ms.saturating_sub(first_ms) * 2 / 5
}

impl Evaluation {
    /// Judges the alerts of a run over calls of `keys` keys. `run` is the time of the first and the last call.
    pub(crate) fn new(labels: &[EpisodeLabel], alerts: &[Alert], run: (u64, u64), keys: usize) -> Self {
        let from_ms = counted_from(run);
        let days = run.1.saturating_sub(from_ms) as f64 / DAY_MS as f64;
        let mut all = Self { key_days: keys as f64 * days, ..Self::default() };
        let (mut leaked, mut explained, mut alike) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for label in labels {
            let name = (!label.leak, label.kind.clone());
            let kind = all.kinds.entry(name.clone()).or_default();
            kind.episodes += 1;
            let Some(key) = &label.key_id else { continue };
            let (from, to) = (millis(label.from), millis(label.to) + AFTER_MS);
            let of_label: Vec<(usize, &Alert)> = (alerts.iter().enumerate())
                .filter(|(_, alert)| alert.key == *key && (from..=to).contains(&alert.at_ms))
                .collect();
            if label.leak {
                leaked.insert(key);
                explained.extend(of_label.iter().map(|(at, _)| *at));
                if label.is_plain() {
                    all.plain[1] += 1;
                    all.plain[0] += usize::from(!of_label.is_empty());
                }
            } else {
                alike.extend(of_label.iter().map(|(at, _)| *at));
            }
            if let Some(first) = of_label.iter().map(|(_, alert)| alert.at_ms).min() {
                kind.found += 1;
                kind.minutes.push((first - from) / 60_000);
            }
            kind.would_revoke +=
                usize::from(of_label.iter().any(|(_, alert)| alert.severity == Severity::Revoke));
            all.episodes.push(LabelledEpisode { kind: name, key: key.clone(), from_ms: from, to_ms: to });
        }
        for (at, alert) in alerts.iter().enumerate().filter(|(_, alert)| alert.at_ms >= from_ms) {
            all.alerts += 1;
            if explained.contains(&at) {
                continue;
            }
            all.false_alerts += 1;
            all.of_look_alikes += usize::from(alike.contains(&at));
            all.false_revocations +=
                usize::from(alert.severity == Severity::Revoke && !leaked.contains(&alert.key));
        }
        all.kinds.values_mut().for_each(|kind| kind.minutes.sort_unstable());
        all
    }

    /// Adds the results of another run.
    #[allow(dead_code, reason = "a benchmark judges several runs as one")]
    pub(crate) fn merge(&mut self, other: Self) {
        for (name, kind) in other.kinds {
            let into = self.kinds.entry(name).or_default();
            into.episodes += kind.episodes;
            into.found += kind.found;
            into.would_revoke += kind.would_revoke;
            into.minutes.extend(kind.minutes);
            into.minutes.sort_unstable();
        }
        for (into, count) in self.plain.iter_mut().zip(other.plain) {
            *into += count;
        }
        self.alerts += other.alerts;
        self.false_alerts += other.false_alerts;
        self.of_look_alikes += other.of_look_alikes;
        self.false_revocations += other.false_revocations;
        self.key_days += other.key_days;
        self.episodes.extend(other.episodes);
    }

    /// Returns the numbers of leaks, found and all.
    pub(crate) fn leaks(&self) -> [usize; 2] {
        let leaks = self.kinds.iter().filter(|((look_alike, _), _)| !look_alike);
        leaks.fold([0; 2], |[found, all], (_, kind)| [found + kind.found, all + kind.episodes])
    }

    /// Returns the share of alerts that belong to a leak; `None` without alerts.
    pub(crate) fn precision(&self) -> Option<f64> {
        (self.alerts > 0).then(|| 1.0 - self.false_alerts as f64 / self.alerts as f64)
    }

    /// Returns the number of false alerts per 1,000 key-days.
    pub(crate) fn false_alert_rate(&self) -> f64 {
        self.false_alerts as f64 / self.key_days.max(f64::MIN_POSITIVE) * 1_000.0
    }

    /// Returns the minutes to the first alert of all found leaks, in ascending order.
    pub(crate) fn delays(&self) -> Vec<u64> {
        let leaks = self.kinds.iter().filter(|((look_alike, _), _)| !look_alike);
        let mut delays: Vec<u64> = leaks.flat_map(|(_, kind)| kind.minutes.iter().copied()).collect();
        delays.sort_unstable();
        delays
    }
}

/// Returns the median of values in ascending order.
pub(crate) fn median(sorted: &[u64]) -> Option<u64> {
    sorted.get(sorted.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use keytide_dataflow::model::time::HOUR_MS;

    fn label(key: Option<&str>, kind: &str, leak: bool, hours: (u64, u64)) -> EpisodeLabel {
        let at = |hour: u64| Timestamp::from_millisecond((hour * HOUR_MS).cast_signed()).unwrap();
        EpisodeLabel {
            key_id: key.map(str::to_owned),
            kind: kind.to_owned(),
            leak,
            from: at(hours.0),
            to: at(hours.1),
            multiple: Some(1.0),
            countries: None,
            asns: None,
        }
    }

    fn alert(key: &str, hour: u64, severity: Severity) -> Alert {
        Alert { key: key.to_owned(), at_ms: hour * HOUR_MS, severity }
    }

    #[test]
    fn an_alert_belongs_to_an_episode_until_an_hour_after_its_end() {
        let labels =
            [label(Some("a"), "probing", true, (100, 102)), label(Some("b"), "load_test", false, (110, 111))];
        let run = (0, 240 * HOUR_MS);
        let evaluation = |alerts: &[Alert]| Evaluation::new(&labels, alerts, run, 10);
        for (hour, found) in [(99, 0), (100, 1), (102, 1), (103, 1), (104, 0)] {
            let evaluation = evaluation(&[alert("a", hour, Severity::Alert)]);
            assert_eq!(evaluation.leaks(), [found, 1], "{hour}");
            assert_eq!(evaluation.false_alerts, 1 - found, "{hour}");
        }
        let all = evaluation(&[
            alert("a", 101, Severity::Revoke),
            alert("a", 102, Severity::Revoke),
            alert("b", 110, Severity::Revoke),
            alert("c", 150, Severity::Alert),
            alert("c", 90, Severity::Alert),
        ]);
        assert_eq!(
            (all.alerts, all.false_alerts, all.of_look_alikes),
            (4, 2, 1),
            "90 h is within two fifths"
        );
        assert_eq!(all.false_revocations, 1, "of the key that only looks leaked");
        assert_eq!(all.delays(), [60]);
        assert_eq!(all.precision(), Some(0.5));
        // 10 keys times 6 days.
        assert!((all.key_days - 60.0).abs() < 1e-9);
        assert!((all.false_alert_rate() - 2_000.0 / 60.0).abs() < 1e-9);
        assert_eq!(all.kinds[&(false, "probing".to_owned())].would_revoke, 1);
    }

    #[test]
    fn what_is_about_nobody_in_particular_is_no_episode_of_a_key() {
        let evaluation = Evaluation::new(&[label(None, "launch_day", false, (1, 2))], &[], (0, HOUR_MS), 1);
        assert_eq!(evaluation.kinds[&(true, "launch_day".to_owned())].episodes, 1);
        assert_eq!((evaluation.episodes.len(), evaluation.precision()), (0, None));
    }

    #[test]
    fn a_bad_line_of_labels_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.jsonl");
        let good = r#"{"key_id":"a","kind":"x","leak":true,"from":"2025-06-02T08:00:00Z","to":"2025-06-02T09:00:00Z"}"#;
        std::fs::write(&path, format!("{good}\n\n{good}\n")).unwrap();
        assert_eq!(EpisodeLabel::read(&path).unwrap().len(), 2);
        for bad in ["{}", "what", &good.replace("T09", "T07")] {
            std::fs::write(&path, format!("{good}\n{bad}\n")).unwrap();
            let error = EpisodeLabel::read(&path).unwrap_err().to_string();
            assert!(error.contains("labels.jsonl, line 2"), "{error}");
        }
        let missing = EpisodeLabel::read(&folder.path().join("no.jsonl")).unwrap_err().to_string();
        assert!(missing.ends_with("no.jsonl can't be opened"), "{missing}");
    }
}
