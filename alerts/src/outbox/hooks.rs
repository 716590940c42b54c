//! Which rows a webhook is sent next, and when: a state like that of mails (`mails.rs`), with one queue in order.
//!
//! A request that was tried stays as it is until it is taken or refused. For Slack up to 20 rows that wait become one
//! message. Limits: 10,000 rows and 32 MiB; beyond them rows that matter least go first, the oldest of them, and the
//! next request says how many.

use std::collections::VecDeque;
use std::sync::Arc;

use keytide_config::WebhookFormat;
use keytide_dataflow::Change;
use keytide_dataflow::incident_row::Transition;

use super::pace::{Jitter, backoff_ms};
use super::{Next, Stats};
use crate::webhook::{Delivery, Parcel, ROWS};

const MAX_ROWS: usize = 10_000;
const MAX_BYTES: usize = 32 << 20;

struct Row {
    id: String,
    json: Arc<[u8]>,
    /// Its incident began or rose.
    news: bool,
}

/// Rows that wait for one webhook.
pub(super) struct Hooks {
    together: usize,
    waiting: VecDeque<Row>,
    bytes: usize,
    skipped: u64,
    tried: Option<Parcel>,
    failures: u32,
    due: u64,
    jitter: Jitter,
    stats: Stats,
}

impl Hooks {
    pub(super) fn new(format: WebhookFormat, jitter: Jitter) -> Self {
        let together = match format {
            WebhookFormat::Keytide => 1,
            WebhookFormat::Slack => ROWS,
        };
        Self {
            together,
            waiting: VecDeque::new(),
            bytes: 0,
            skipped: 0,
            tried: None,
            failures: 0,
            due: 0,
            jitter,
            stats: Stats::default(),
        }
    }

    pub(super) fn push(&mut self, transition: &Transition, json: Arc<[u8]>) {
        let news = !matches!(transition.transition, Change::Ended | Change::Withdrawn);
        self.bytes += json.len();
        let id = format!("{}.{}", transition.incident_id, transition.seq);
        self.waiting.push_back(Row { id, json, news });
        self.stats.queued += 1;
        while self.waiting.len() > MAX_ROWS || self.bytes > MAX_BYTES {
            let least = self.waiting.iter().position(|row| !row.news).unwrap_or(0);
            let Some(row) = self.waiting.remove(least) else { break };
            self.bytes -= row.json.len();
            self.skipped += 1;
            self.stats.queued -= 1;
            self.stats.condensed += 1;
        }
    }

    pub(super) fn hurry(&mut self, now: u64) {
        self.due = now;
    }

    pub(super) fn stats(&self) -> Stats {
        self.stats
    }

    /// What to do at `now`. Each request that is handed out is to be followed by [`Self::done`].
    pub(super) fn next(&mut self, now: u64) -> Next<Parcel> {
        if self.tried.is_none() && self.waiting.is_empty() {
            return Next::Wait(None);
        }
        if self.due > now {
            return Next::Wait(Some(self.due));
        }
        if let Some(parcel) = &self.tried {
            return Next::Do(parcel.clone());
        }
        let count = self.together.min(self.waiting.len());
        let rows: Vec<Row> = self.waiting.drain(..count).collect();
        self.bytes -= rows.iter().map(|row| row.json.len()).sum::<usize>();
        let Some(first) = rows.first() else { return Next::Wait(None) };
        let id = first.id.clone();
        let skipped = std::mem::take(&mut self.skipped);
        let parcel = Parcel { id, rows: rows.into_iter().map(|row| row.json).collect(), skipped };
        self.tried = Some(parcel.clone());
        Next::Do(parcel)
    }

    /// What became of the request that was handed out.
    pub(super) fn done(&mut self, delivery: &Delivery, now: u64) {
        let Some(parcel) = &self.tried else { return };
        let rows = parcel.rows.len() as u64;
        match delivery {
            Delivery::Retry { after_ms, .. } => {
                self.failures = self.failures.saturating_add(1);
                let wait = backoff_ms(self.failures, &mut self.jitter);
                self.due = now + wait.max(after_ms.unwrap_or(0));
                self.stats.retried += 1;
                return;
            }
            Delivery::Sent => {
                self.failures = 0;
                self.stats.sent += 1;
            }
            Delivery::Refused(_) => {
                // What it should have said is said by the next.
                self.skipped += parcel.skipped;
                self.stats.refused += rows;
            }
        }
        (self.tried, self.due) = (None, now);
        self.stats.queued -= rows;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::email::samples;

    fn hooks(format: WebhookFormat) -> Hooks {
        Hooks::new(format, Box::new(|_| 0))
    }

    fn row(seq: u32, change: Change) -> Transition {
        Transition { seq, transition: change, ..samples::leak() }
    }

    fn push(hooks: &mut Hooks, seq: u32, change: Change) {
        hooks.push(&row(seq, change), Arc::from(seq.to_string().into_bytes()));
    }

    fn handed(hooks: &mut Hooks, now: u64) -> Parcel {
        match hooks.next(now) {
            Next::Do(parcel) => parcel,
            Next::Wait(until) => panic!("waits until {until:?}"),
        }
    }

    fn retry(after_ms: Option<u64>) -> Delivery {
        Delivery::Retry { reason: String::new(), after_ms }
    }

    #[test]
    fn rows_go_out_in_order_and_a_failed_request_comes_again_as_it_was() {
        let mut hooks = hooks(WebhookFormat::Keytide);
        assert_eq!(hooks.next(0), Next::Wait(None));
        (0..3).for_each(|seq| push(&mut hooks, seq, Change::Opened));
        let first = handed(&mut hooks, 0);
        assert!(first.id.ends_with(".0") && first.rows.len() == 1);
        hooks.done(&retry(None), 0);
        assert_eq!(hooks.next(1_999), Next::Wait(Some(2_000)));
        assert_eq!(handed(&mut hooks, 2_000), first);
        hooks.done(&retry(Some(90_000)), 2_000);
        assert_eq!(hooks.next(2_001), Next::Wait(Some(92_000)));
        hooks.hurry(3_000);
        assert_eq!(handed(&mut hooks, 3_000), first);
        hooks.done(&Delivery::Sent, 3_000);
        assert!(handed(&mut hooks, 3_000).id.ends_with(".1"));
        hooks.done(&Delivery::Refused(String::new()), 3_000);
        assert!(handed(&mut hooks, 3_000).id.ends_with(".2"));
        hooks.done(&Delivery::Sent, 3_000);
        assert_eq!(hooks.next(3_000), Next::Wait(None));
        let expected = Stats { sent: 2, retried: 2, refused: 1, ..Stats::default() };
        assert_eq!(hooks.stats(), expected);
    }

    #[test]
    fn slack_gets_many_rows_in_one_message() {
        let mut hooks = hooks(WebhookFormat::Slack);
        (0..25).for_each(|seq| push(&mut hooks, seq, Change::Opened));
        assert_eq!(handed(&mut hooks, 0).rows.len(), 20);
        hooks.done(&Delivery::Sent, 0);
        assert_eq!(handed(&mut hooks, 0).rows.len(), 5);
        hooks.done(&Delivery::Sent, 0);
        assert_eq!((hooks.stats().queued, hooks.stats().sent), (0, 2));
    }

    #[test]
    fn what_doesnt_fit_is_told_by_number_and_ends_go_first() {
        let mut hooks = hooks(WebhookFormat::Keytide);
        push(&mut hooks, 0, Change::Opened);
        push(&mut hooks, 1, Change::Ended);
        (2..10_002).for_each(|seq| push(&mut hooks, seq, Change::Opened));
        let first = handed(&mut hooks, 0);
        assert!(first.id.ends_with(".2"), "{}: the one end, then the oldest", first.id);
        assert_eq!((first.skipped, hooks.stats().condensed, hooks.stats().queued), (2, 2, 10_000));
        hooks.done(&Delivery::Refused(String::new()), 0);
        assert_eq!(handed(&mut hooks, 0).skipped, 2, "nobody has heard of it yet");
        hooks.done(&Delivery::Sent, 0);
        assert_eq!(handed(&mut hooks, 0).skipped, 0);
    }

    #[test]
    fn rows_are_bounded_by_bytes() {
        let mut hooks = hooks(WebhookFormat::Keytide);
        let large: Arc<[u8]> = Arc::from(vec![b'x'; 1 << 20]);
        (0..40).for_each(|seq| hooks.push(&row(seq, Change::Opened), large.clone()));
        assert_eq!((hooks.bytes, hooks.stats().queued, hooks.skipped), (32 << 20, 32, 8));
    }
}
