//! Two detectors that everybody could have had: what the real one must beat.

use std::collections::HashMap;

use keytide_dataflow::detect::WINDOW_MS;
use keytide_dataflow::model::KeyId;

const DAY: usize = 1_440;

/// The references' names, in the order of their scores.
pub(crate) const NAMES: [&str; 2] = ["Gaussian on counts", "static threshold"];

/// The highest scores by key and hour.
#[derive(Default)]
pub(crate) struct References {
    keys: HashMap<KeyId, Last>,
    pub(crate) scores: HashMap<(KeyId, u64), [f64; 2]>,
}

/// A key's last 24 hours of minutes.
struct Last {
    counts: Box<[u32; DAY]>,
    minute: u64,
    minutes: u64,
    sum: f64,
    squares: f64,
}

impl References {
    /// Scores the calls of a minute: standard deviations above the mean of the last 24 hours, once there are so many;
    /// and the calls themselves.
    pub(crate) fn step(&mut self, key: KeyId, start_ms: u64, calls: u32) {
        let minute = start_ms / WINDOW_MS;
        let last = self.keys.entry(key).or_insert_with(|| Last {
            counts: Box::new([0; DAY]),
            minute: minute.saturating_sub(1),
            minutes: 0,
            sum: 0.0,
            squares: 0.0,
        });
        let skipped = minute - last.minute - 1;
        (0..skipped.min(DAY as u64)).for_each(|n| last.put(minute - 1 - n, 0));
        last.minutes += skipped;
        let z = match last.minutes >= DAY as u64 {
            true => {
                let mean = last.sum / DAY as f64;
                let deviation = (last.squares / DAY as f64 - mean * mean).max(0.0).sqrt();
                (f64::from(calls) - mean) / deviation.max(0.5)
            }
            false => 0.0,
        };
        last.put(minute, calls);
        last.minutes += 1;
        last.minute = minute;
        let scores = self.scores.entry((key, start_ms / super::HOUR_MS)).or_default();
        for (most, score) in scores.iter_mut().zip([z, f64::from(calls)]) {
            *most = most.max(score);
        }
    }
}

impl Last {
    fn put(&mut self, minute: u64, calls: u32) {
        let place = &mut self.counts[(minute % DAY as u64) as usize];
        let (old, new) = (f64::from(*place), f64::from(calls));
        *place = calls;
        self.sum += new - old;
        self.squares += new * new - old * old;
    }
}
