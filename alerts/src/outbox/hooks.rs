//! The queue of one webhook decides which rows it is sent next, and when. It is a pure state, like that of mails
//! (`mails.rs`), and keeps rows in order.
//!
//! A request that was tried stays the same until it is taken or refused. For Slack up to 20 waiting rows become one
//! message. Slack gets neither notices nor repeats, as they are for programs, and also changes of actions and late
//! gateways, as they are for people. Other webhooks get every row of incidents, and nothing else of them. Each webhook gets
//! incidents, notices about quotas, or both, as it is configured.
//!
//! [`WebhookMemory`] is what a restart needs. A queue that goes on with one is given the claims that were made since (see
//! `claims.rs`). Their rows are taken out of what waits, and left out when their ticks are pushed again.
//!
//! Limits: 10,000 rows and 32 MiB. Beyond them the queue drops ended and withdrawn incidents, notices (those about quotas
//! as well) and repeats first, oldest first, then the oldest other rows. The next request says how many.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use keytide_config::{Webhook, WebhookFormat};
use keytide_dataflow::ActionState;
use keytide_dataflow::incident_row::TransitionJson;
use keytide_dataflow::model::time::HOUR_MS;
use keytide_dataflow::model::{Tick, hex};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::pace::{Jitter, backoff_ms};
use super::{NextStep, OutboundQueue, QueueStats, Settled, is_notice, is_repeat};
use crate::actions::{ActionNotice, GatewayNotice};
use crate::email::{PlannedAction, is_over};
use crate::quota::QuotaNoticeRow;
use crate::webhook::{ROWS, WebhookBatch, WebhookOutcome, WebhookRow};

const MAX_ROWS: usize = 10_000;
const MAX_BYTES: usize = 32 << 20;
/// What a row counts as that is no incident's, in bytes.
const OTHER_BYTES: usize = 2 << 10;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct QueuedRow {
    id: String,
    tick: Tick,
    row: WebhookRow,
    /// False if the incident is over, a notice or a repeat, the action is void, or it is about a quota: such rows are
    /// dropped first.
    is_alarm: bool,
}

/// A request to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct QueuedBatch {
    pub(super) number: u64,
    /// The ids of all rows.
    pub(super) ids: Vec<String>,
    /// The tick of the last row.
    pub(super) tick: Tick,
    pub(super) batch: WebhookBatch,
}

/// The part of the queue that outlives the process. Times are milliseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WebhookMemory {
    waiting: VecDeque<QueuedRow>,
    skipped: u64,
    tried: Option<QueuedBatch>,
    failures: u32,
    due: u64,
    /// The number of the last request.
    number: u64,
    /// The rows that were sent in ticks that are made again, each with the tick of its request.
    told: BTreeMap<String, Tick>,
}

/// What a webhook is told, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct WebhookWishes {
    format: WebhookFormat,
    incidents: bool,
    quota_notices: bool,
}

impl From<&Webhook> for WebhookWishes {
    fn from(webhook: &Webhook) -> Self {
        let &Webhook { format, incidents, quota_notices, .. } = webhook;
        Self { format, incidents, quota_notices }
    }
}

/// The rows that wait for one webhook.
pub(super) struct WebhookQueue {
    wishes: WebhookWishes,
    rows_per_batch: usize,
    memory: WebhookMemory,
    bytes: usize,
    jitter: Jitter,
    stats: QueueStats,
}

/// Returns the bytes that a row counts as. Those of actions and gateways have bounded texts beside names of tables.
fn bytes(row: &WebhookRow) -> usize {
    match row {
        WebhookRow::Incident(json, _) | WebhookRow::Quota(json) => json.len(),
        WebhookRow::Action(_) | WebhookRow::Gateway(_) => OTHER_BYTES,
    }
}

impl WebhookQueue {
    pub(super) fn new(wishes: WebhookWishes, jitter: Jitter) -> Self {
        let rows_per_batch = match wishes.format {
            WebhookFormat::Keytide => 1,
            WebhookFormat::Slack => ROWS,
        };
        Self {
            wishes,
            rows_per_batch,
            memory: WebhookMemory::default(),
            bytes: 0,
            jitter,
            stats: QueueStats::default(),
        }
    }

    /// Returns a queue that goes on with the memory of an earlier one.
    pub(super) fn restore(wishes: WebhookWishes, memory: WebhookMemory, now: u64, jitter: Jitter) -> Self {
        let mut queue = Self { memory, ..Self::new(wishes, jitter) };
        // A clock that was set back may not have reached the time. No receiver can ask for a longer wait than an hour.
        queue.memory.due = queue.memory.due.min(now + HOUR_MS);
        queue.recount();
        queue
    }

    /// Queues a row of the log of incidents, with the action that says what is done about its key.
    pub(super) fn push(
        &mut self,
        transition: &TransitionJson,
        planned: Option<&PlannedAction>,
        json: Arc<[u8]>,
        tick: Tick,
    ) {
        let is_quiet = is_notice(transition) || is_repeat(transition);
        if !self.wishes.incidents || is_quiet && self.is_for_people() {
            return;
        }
        let id = format!("{}.{}", transition.incident_id, transition.seq);
        // Requests for programs are the row alone.
        let planned = planned.filter(|_| self.is_for_people());
        let is_alarm = !is_quiet && !is_over(transition);
        self.queue(id, WebhookRow::Incident(json, planned.cloned()), is_alarm, tick);
    }

    /// Queues a change of an action for Slack, unless `is_said` by the row of a transition.
    pub(super) fn push_action(&mut self, notice: &ActionNotice, is_said: bool, tick: Tick) {
        if self.wishes.incidents && self.is_for_people() && !is_said {
            let id = format!("action-{}.{}", notice.id, notice.seq);
            let is_alarm = notice.state != ActionState::Withdrawn;
            let notice = ActionNotice { contacts: Vec::new(), ..notice.clone() };
            self.queue(id, WebhookRow::Action(Arc::new(notice)), is_alarm, tick);
        }
    }

    /// Queues for Slack that a gateway is late.
    pub(super) fn push_gateway(&mut self, notice: &GatewayNotice, tick: Tick) {
        if self.wishes.incidents && self.is_for_people() {
            // A name may have characters that a header can't have.
            let name = hex(&Sha256::digest(notice.gateway.as_deref().unwrap_or_default())[..8]);
            let id = format!("gateway-{name}-{}.{}", notice.first, notice.count);
            self.queue(id, WebhookRow::Gateway(Arc::new(notice.clone())), true, tick);
        }
    }

    /// Queues a row of `notices`.
    pub(super) fn push_quota(&mut self, row: &QuotaNoticeRow, json: Arc<[u8]>, tick: Tick) {
        if self.wishes.quota_notices {
            let id = format!("quota-{}.{}", row.quota_id(), row.seq);
            self.queue(id, WebhookRow::Quota(json), false, tick);
        }
    }

    /// Returns whether messages are read by people, not by programs.
    fn is_for_people(&self) -> bool {
        self.wishes.format == WebhookFormat::Slack
    }

    fn queue(&mut self, id: String, row: WebhookRow, is_alarm: bool, tick: Tick) {
        let memory = &mut self.memory;
        memory.told.retain(|_, of| *of >= tick);
        if memory.told.contains_key(&id) {
            return;
        }
        self.bytes += bytes(&row);
        memory.waiting.push_back(QueuedRow { id, tick, row, is_alarm });
        self.stats.queued += 1;
        while memory.waiting.len() > MAX_ROWS || self.bytes > MAX_BYTES {
            let least = memory.waiting.iter().position(|row| !row.is_alarm).unwrap_or(0);
            let Some(row) = memory.waiting.remove(least) else { break };
            self.bytes -= bytes(&row.row);
            memory.skipped += 1;
            self.stats.queued -= 1;
            self.stats.condensed += 1;
        }
    }

    /// Notes in the memory that a request was taken or is given up.
    fn settle(&mut self, batch: &WebhookBatch, settled: Settled, now: u64) {
        match settled {
            Settled::Sent => self.memory.failures = 0,
            // The next request reports the dropped rows that this one should have.
            Settled::GivenUp => self.memory.skipped += batch.skipped,
        }
        (self.memory.tried, self.memory.due) = (None, now);
    }
}

impl OutboundQueue for WebhookQueue {
    type Item = QueuedBatch;
    type Attempt = WebhookOutcome;
    type Memory = WebhookMemory;

    fn number(batch: &QueuedBatch) -> u64 {
        batch.number
    }

    fn memory(&self) -> WebhookMemory {
        self.memory.clone()
    }

    fn claimed(&mut self, batch: QueuedBatch, at: u64) {
        let memory = &mut self.memory;
        // The memory has a request with a lower number: it is tried still, or was settled.
        if batch.number <= memory.number {
            return;
        }
        memory.number = batch.number;
        memory.waiting.retain(|row| !batch.ids.contains(&row.id));
        memory.told.extend(batch.ids.iter().map(|id| (id.clone(), batch.tick)));
        // It reports what was dropped before it.
        memory.skipped = 0;
        (memory.tried, memory.due) = (Some(batch), at);
    }

    fn settled(&mut self, number: u64, settled: Settled, at: u64) {
        if let Some(tried) = self.memory.tried.take_if(|tried| tried.number == number) {
            self.settle(&tried.batch, settled, at);
        }
    }

    fn recount(&mut self) {
        let WebhookMemory { waiting, tried, .. } = &self.memory;
        self.bytes = waiting.iter().map(|row| bytes(&row.row)).sum();
        let queued = waiting.len() + tried.as_ref().map_or(0, |tried| tried.ids.len());
        self.stats = QueueStats { queued: queued as u64, ..QueueStats::default() };
    }

    fn hurry(&mut self, now: u64) {
        self.memory.due = now;
    }

    fn stats(&self) -> QueueStats {
        self.stats
    }

    fn next(&mut self, now: u64) -> NextStep<QueuedBatch> {
        let memory = &mut self.memory;
        if memory.tried.is_none() && memory.waiting.is_empty() {
            return NextStep::Wait(None);
        }
        if memory.due > now {
            return NextStep::Wait(Some(memory.due));
        }
        if let Some(batch) = &memory.tried {
            return NextStep::Do(batch.clone());
        }
        let count = self.rows_per_batch.min(memory.waiting.len());
        let rows: Vec<QueuedRow> = memory.waiting.drain(..count).collect();
        self.bytes -= rows.iter().map(|row| bytes(&row.row)).sum::<usize>();
        let Some((first, last)) = rows.first().zip(rows.last()) else { return NextStep::Wait(None) };
        let (id, tick) = (first.id.clone(), last.tick);
        let skipped = std::mem::take(&mut memory.skipped);
        let (ids, rows) = rows.into_iter().map(|row| (row.id, row.row)).unzip();
        memory.number += 1;
        let batch = WebhookBatch { id, rows, skipped };
        let batch = QueuedBatch { number: memory.number, ids, tick, batch };
        memory.tried = Some(batch.clone());
        NextStep::Do(batch)
    }

    fn done(&mut self, batch: &QueuedBatch, outcome: &WebhookOutcome, now: u64) -> Option<Settled> {
        let rows = batch.ids.len() as u64;
        let settled = match outcome {
            WebhookOutcome::Retry { after_ms, .. } => {
                let memory = &mut self.memory;
                memory.failures = memory.failures.saturating_add(1);
                let wait = backoff_ms(memory.failures, &mut self.jitter);
                memory.due = now + wait.max(after_ms.unwrap_or(0));
                self.stats.retried += 1;
                return None;
            }
            WebhookOutcome::Sent => {
                self.stats.sent += 1;
                Settled::Sent
            }
            WebhookOutcome::Refused(_) => {
                self.stats.refused += rows;
                Settled::GivenUp
            }
        };
        self.settle(&batch.batch, settled, now);
        self.stats.queued -= rows;
        Some(settled)
    }
}

#[cfg(test)]
mod tests {
    use keytide_dataflow::Change;

    use super::*;
    use crate::email::samples;

    fn wishes(format: WebhookFormat) -> WebhookWishes {
        WebhookWishes { format, incidents: true, quota_notices: false }
    }

    fn queue(format: WebhookFormat) -> WebhookQueue {
        WebhookQueue::new(wishes(format), Box::new(|_| 0))
    }

    fn row(seq: u32, change: Change) -> TransitionJson {
        TransitionJson { seq, transition: change, ..samples::leak() }
    }

    fn push(queue: &mut WebhookQueue, seq: u32, change: Change) {
        queue.push(&row(seq, change), None, Arc::from(seq.to_string().into_bytes()), seq.into());
    }

    fn handed(queue: &mut WebhookQueue, now: u64) -> WebhookBatch {
        match queue.next(now) {
            NextStep::Do(batch) => batch.batch,
            NextStep::Wait(until) => panic!("waits until {until:?}"),
        }
    }

    fn done(queue: &mut WebhookQueue, outcome: &WebhookOutcome, now: u64) {
        let batch = queue.memory.tried.clone().unwrap();
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
                queue.push(row, None, Arc::from(&b"{}"[..]), 0);
            }
            assert_eq!(queue.stats().queued, expected, "{format:?}");
        }
    }

    #[test]
    fn only_slack_gets_actions_and_late_gateways_each_of_them_once() {
        let [held, done, ..] = &*samples::actions() else { panic!("samples") };
        let late = &samples::gateways()[0];
        for (format, expected) in [(WebhookFormat::Keytide, 1), (WebhookFormat::Slack, 3)] {
            let mut queue = queue(format);
            let planned = samples::planned();
            queue.push(&row(0, Change::Opened), Some(&planned), Arc::from(&b"{}"[..]), 5);
            // The row of the incident says that it is held.
            queue.push_action(held, true, 5);
            queue.push_action(done, false, 5);
            queue.push_gateway(late, 5);
            assert_eq!(queue.stats().queued, expected, "{format:?}");
            let NextStep::Do(batch) = queue.next(0) else { panic!("{format:?}") };
            let with_action =
                matches!(&batch.batch.rows[0], WebhookRow::Incident(_, Some(of)) if *of == planned);
            assert_eq!(with_action, format == WebhookFormat::Slack);
            assert_eq!(batch.ids.len() as u64, expected);
            // Another life that had no part in it sends the same, and nothing again.
            let mut other =
                super::WebhookQueue::restore(wishes(format), WebhookMemory::default(), 0, Box::new(|_| 0));
            other.claimed(batch.clone(), 0);
            other.recount();
            queue = other;
            queue.push_action(done, false, 5);
            queue.push_gateway(late, 5);
            assert_eq!(queue.next(0), NextStep::Do(batch.clone()));
            queue.done(&batch, &WebhookOutcome::Sent, 0);
            assert_eq!(queue.stats().queued, 0, "{format:?}");
        }
    }

    #[test]
    fn each_webhook_is_told_of_what_it_wants() {
        let [quota, later, ..] = &*samples::quotas() else { panic!("samples") };
        let json: Arc<[u8]> = Arc::from(&b"{}"[..]);
        for format in [WebhookFormat::Slack, WebhookFormat::Keytide] {
            for (incidents, quota_notices) in [(true, false), (false, true), (true, true)] {
                let wishes = WebhookWishes { format, incidents, quota_notices };
                let mut queue = WebhookQueue::new(wishes, Box::new(|_| 0));
                queue.push(&row(0, Change::Opened), None, json.clone(), 5);
                queue.push_action(&samples::actions()[1], false, 5);
                queue.push_gateway(&samples::gateways()[0], 5);
                [quota, later].iter().for_each(|row| queue.push_quota(row, json.clone(), 5));
                let of_incidents = if format == WebhookFormat::Slack { 3 } else { 1 };
                let expected = of_incidents * u64::from(incidents) + 2 * u64::from(quota_notices);
                assert_eq!(queue.stats().queued, expected, "{format:?}");
                if !incidents {
                    assert_eq!(handed(&mut queue, 0).id, format!("quota-{}.1", quota.quota_id()));
                }
            }
        }
    }

    #[test]
    fn notices_about_quotas_never_take_the_room_of_alarms() {
        let wishes = WebhookWishes { quota_notices: true, ..wishes(WebhookFormat::Keytide) };
        let mut queue = WebhookQueue::new(wishes, Box::new(|_| 0));
        push(&mut queue, 0, Change::Opened);
        let row = samples::quotas().swap_remove(0);
        for seq in 0..20_000 {
            let row = QuotaNoticeRow { seq, ..row.clone() };
            queue.push_quota(&row, Arc::from(&b"{}"[..]), seq);
        }
        let first = handed(&mut queue, 0);
        assert!(
            first.id.ends_with(".0") && matches!(first.rows[0], WebhookRow::Incident(..)),
            "{}",
            first.id
        );
        assert_eq!((first.skipped, queue.stats().queued), (10_001, 10_000));
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
        (0..40).for_each(|seq| queue.push(&row(seq, Change::Opened), None, large.clone(), 0));
        assert_eq!((queue.bytes, queue.stats().queued, queue.memory.skipped), (32 << 20, 32, 8));
    }
}
