//! The queue of one webhook decides which rows it is sent next, and when. It is a pure state, like that of mails
//! (`mails.rs`), and keeps rows in order.
//!
//! A request that was tried stays the same until it is taken or refused. For Slack up to 20 waiting rows become one
//! message. Slack gets neither notices nor repeats, as they are for programs; other webhooks get every row.
//!
//! Limits: 10,000 rows and 32 MiB. Beyond them the queue drops ended and withdrawn incidents, notices and repeats first,
//! oldest first, then the oldest other rows. The next request says how many.

use std::collections::VecDeque;
use std::sync::Arc;

use keytide_config::WebhookFormat;
use keytide_dataflow::incident_row::TransitionJson;

use super::pace::{Jitter, backoff_ms};
use super::{NextStep, OutboundQueue, QueueStats, is_notice, is_repeat};
use crate::email::is_over;
use crate::webhook::{ROWS, WebhookBatch, WebhookOutcome};

const MAX_ROWS: usize = 10_000;
const MAX_BYTES: usize = 32 << 20;

struct QueuedRow {
    id: String,
    json: Arc<[u8]>,
    /// False if the incident is over, a notice or a repeat: such rows are dropped first.
    is_alarm: bool,
}

/// The rows that wait for one webhook.
pub(super) struct WebhookQueue {
    format: WebhookFormat,
    rows_per_batch: usize,
    waiting: VecDeque<QueuedRow>,
    bytes: usize,
    skipped: u64,
    tried: Option<WebhookBatch>,
    failures: u32,
    due: u64,
    jitter: Jitter,
    stats: QueueStats,
}

impl WebhookQueue {
    pub(super) fn new(format: WebhookFormat, jitter: Jitter) -> Self {
        let rows_per_batch = match format {
            WebhookFormat::Keytide => 1,
            WebhookFormat::Slack => ROWS,
        };
        Self {
            format,
            rows_per_batch,
            waiting: VecDeque::new(),
            bytes: 0,
            skipped: 0,
            tried: None,
            failures: 0,
            due: 0,
            jitter,
            stats: QueueStats::default(),
        }
    }

    pub(super) fn push(&mut self, transition: &TransitionJson, json: Arc<[u8]>) {
        let is_quiet = is_notice(transition) || is_repeat(transition);
        if is_quiet && self.format == WebhookFormat::Slack {
            return;
        }
        let is_alarm = !is_quiet && !is_over(transition);
        self.bytes += json.len();
        let id = format!("{}.{}", transition.incident_id, transition.seq);
        self.waiting.push_back(QueuedRow { id, json, is_alarm });
        self.stats.queued += 1;
        while self.waiting.len() > MAX_ROWS || self.bytes > MAX_BYTES {
            let least = self.waiting.iter().position(|row| !row.is_alarm).unwrap_or(0);
            let Some(row) = self.waiting.remove(least) else { break };
            self.bytes -= row.json.len();
            self.skipped += 1;
            self.stats.queued -= 1;
            self.stats.condensed += 1;
        }
    }
}

impl OutboundQueue for WebhookQueue {
    type Item = WebhookBatch;
    type Attempt = WebhookOutcome;

    fn hurry(&mut self, now: u64) {
        self.due = now;
    }

    fn stats(&self) -> QueueStats {
        self.stats
    }

    fn next(&mut self, now: u64) -> NextStep<WebhookBatch> {
        if self.tried.is_none() && self.waiting.is_empty() {
            return NextStep::Wait(None);
        }
        if self.due > now {
            return NextStep::Wait(Some(self.due));
        }
        if let Some(batch) = &self.tried {
            return NextStep::Do(batch.clone());
        }
        let count = self.rows_per_batch.min(self.waiting.len());
        let rows: Vec<QueuedRow> = self.waiting.drain(..count).collect();
        self.bytes -= rows.iter().map(|row| row.json.len()).sum::<usize>();
        let Some(first) = rows.first() else { return NextStep::Wait(None) };
        let id = first.id.clone();
        let skipped = std::mem::take(&mut self.skipped);
        let batch = WebhookBatch { id, rows: rows.into_iter().map(|row| row.json).collect(), skipped };
        self.tried = Some(batch.clone());
        NextStep::Do(batch)
    }

    fn done(&mut self, batch: &WebhookBatch, outcome: &WebhookOutcome, now: u64) {
        let rows = batch.rows.len() as u64;
        match outcome {
            WebhookOutcome::Retry { after_ms, .. } => {
                self.failures = self.failures.saturating_add(1);
                let wait = backoff_ms(self.failures, &mut self.jitter);
                self.due = now + wait.max(after_ms.unwrap_or(0));
                self.stats.retried += 1;
                return;
            }
            WebhookOutcome::Sent => {
                self.failures = 0;
                self.stats.sent += 1;
            }
            WebhookOutcome::Refused(_) => {
                // The next request reports the dropped rows that this one should have.
                self.skipped += batch.skipped;
                self.stats.refused += rows;
            }
        }
        (self.tried, self.due) = (None, now);
        self.stats.queued -= rows;
    }
}

#[cfg(test)]
mod tests {
    use keytide_dataflow::Change;

    use super::*;
    use crate::email::samples;

    fn queue(format: WebhookFormat) -> WebhookQueue {
        WebhookQueue::new(format, Box::new(|_| 0))
    }

    fn row(seq: u32, change: Change) -> TransitionJson {
        TransitionJson { seq, transition: change, ..samples::leak() }
    }

    fn push(queue: &mut WebhookQueue, seq: u32, change: Change) {
        queue.push(&row(seq, change), Arc::from(seq.to_string().into_bytes()));
    }

    fn handed(queue: &mut WebhookQueue, now: u64) -> WebhookBatch {
        match queue.next(now) {
            NextStep::Do(batch) => batch,
            NextStep::Wait(until) => panic!("waits until {until:?}"),
        }
    }

    fn done(queue: &mut WebhookQueue, outcome: &WebhookOutcome, now: u64) {
        let batch = queue.tried.clone().unwrap();
        queue.done(&batch, outcome, now);
    }

    fn retry(after_ms: Option<u64>) -> WebhookOutcome {
        WebhookOutcome::Retry { reason: String::new(), after_ms }
    }

    #[test]
    fn rows_go_out_in_order_and_a_failed_request_comes_again_as_it_was() {
        let mut queue = queue(WebhookFormat::Keytide);
        assert_eq!(queue.next(0), NextStep::Wait(None));
        (0..3).for_each(|seq| push(&mut queue, seq, Change::Opened));
        let first = handed(&mut queue, 0);
        assert!(first.id.ends_with(".0") && first.rows.len() == 1);
        done(&mut queue, &retry(None), 0);
        assert_eq!(queue.next(1_999), NextStep::Wait(Some(2_000)));
        assert_eq!(handed(&mut queue, 2_000), first);
        done(&mut queue, &retry(Some(90_000)), 2_000);
        assert_eq!(queue.next(2_001), NextStep::Wait(Some(92_000)));
        queue.hurry(3_000);
        assert_eq!(handed(&mut queue, 3_000), first);
        done(&mut queue, &WebhookOutcome::Sent, 3_000);
        assert!(handed(&mut queue, 3_000).id.ends_with(".1"));
        done(&mut queue, &WebhookOutcome::Refused(String::new()), 3_000);
        assert!(handed(&mut queue, 3_000).id.ends_with(".2"));
        done(&mut queue, &WebhookOutcome::Sent, 3_000);
        assert_eq!(queue.next(3_000), NextStep::Wait(None));
        let expected = QueueStats { sent: 2, retried: 2, refused: 1, ..QueueStats::default() };
        assert_eq!(queue.stats(), expected);
    }

    #[test]
    fn slack_gets_many_rows_in_one_message() {
        let mut queue = queue(WebhookFormat::Slack);
        (0..25).for_each(|seq| push(&mut queue, seq, Change::Opened));
        assert_eq!(handed(&mut queue, 0).rows.len(), 20);
        done(&mut queue, &WebhookOutcome::Sent, 0);
        assert_eq!(handed(&mut queue, 0).rows.len(), 5);
        done(&mut queue, &WebhookOutcome::Sent, 0);
        assert_eq!((queue.stats().queued, queue.stats().sent), (0, 2));
    }

    #[test]
    fn slack_gets_neither_notices_nor_repeats() {
        let notice = samples::refused();
        let repeat = TransitionJson { repeat: true, ..row(3, Change::Reopened) };
        for (format, expected) in [(WebhookFormat::Slack, 1), (WebhookFormat::Keytide, 3)] {
            let mut queue = queue(format);
            for row in [&notice, &repeat, &row(4, Change::Opened)] {
                queue.push(row, Arc::from(&b"{}"[..]));
            }
            assert_eq!(queue.stats().queued, expected, "{format:?}");
        }
    }

    #[test]
    fn rows_that_dont_fit_are_counted_and_ended_incidents_are_dropped_first() {
        let mut queue = queue(WebhookFormat::Keytide);
        push(&mut queue, 0, Change::Opened);
        push(&mut queue, 1, Change::Ended);
        (2..10_002).for_each(|seq| push(&mut queue, seq, Change::Opened));
        let first = handed(&mut queue, 0);
        assert!(first.id.ends_with(".2"), "{}: the one end, then the oldest", first.id);
        assert_eq!((first.skipped, queue.stats().condensed, queue.stats().queued), (2, 2, 10_000));
        done(&mut queue, &WebhookOutcome::Refused(String::new()), 0);
        assert_eq!(handed(&mut queue, 0).skipped, 2, "no receiver has the number yet");
        done(&mut queue, &WebhookOutcome::Sent, 0);
        assert_eq!(handed(&mut queue, 0).skipped, 0);
    }

    #[test]
    fn rows_are_bounded_by_bytes() {
        let mut queue = queue(WebhookFormat::Keytide);
        let large: Arc<[u8]> = Arc::from(vec![b'x'; 1 << 20]);
        (0..40).for_each(|seq| queue.push(&row(seq, Change::Opened), large.clone()));
        assert_eq!((queue.bytes, queue.stats().queued, queue.skipped), (32 << 20, 32, 8));
    }
}
