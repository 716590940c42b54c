//! The way of tables and published ticks to the ledger of quotas and to the shelf, from which `[api]` answers.
//!
//! ```text
//! tables' feeds ── changes, as they are read ────────────────► QuotaLedger
//! publisher ────── rows, once their tick is acknowledged ─┬──►
//!                                                         └──► Shelf
//! ```
//! A new limit or a revocation acts when the table is read, before the tick in which it counts. A row acts when its tick
//! is acknowledged, so an answer is never made of a row that a crash takes back. Ticks that are made again after a
//! restart count: their rows were acknowledged before. How quotas stood at the checkpoint comes with the first of them. The
//! shelf at the checkpoint is in it.

use std::collections::VecDeque;
use std::time::Duration;

use keytide_connectors::live::{LiveError, TableFeed};
use keytide_connectors::sink::{PlacedRow, TickOutput};
use keytide_connectors::tables::{TablesMemory, TablesRead};
use keytide_dataflow::Rows;
use keytide_dataflow::model::Tick;

use super::Clock;
use crate::serve::ApiData;
use crate::serve::ledger::{BookedUse, MinuteUse, UseOfTick};
use crate::serve::shelf::ShelfMemory;

/// A feed of tables whose changes go to the API, too.
pub(super) struct SharedFeed {
    feed: Box<dyn TableFeed>,
    data: ApiData,
    clock: Clock,
}

impl SharedFeed {
    /// Shares a feed with the API.
    pub(super) fn share(feed: Box<dyn TableFeed>, data: &ApiData, clock: Clock) -> Box<dyn TableFeed> {
        Box::new(Self { feed, data: data.clone(), clock })
    }
}

impl TableFeed for SharedFeed {
    fn poll(&mut self, wait: Duration, read: &mut TablesRead) -> Result<(), LiveError> {
        // Feeds add to what is there.
        let mut own = TablesRead::default();
        let polled = self.feed.poll(wait, &mut own);
        if !own.changes.is_empty() || !own.definitions.is_empty() {
            self.data.take_tables(&own, (self.clock)());
        }
        read.append(own);
        polled
    }

    fn is_complete(&self) -> bool {
        self.feed.is_complete()
    }

    fn remember(&self, memory: &mut TablesMemory) {
        self.feed.remember(memory);
    }
}

/// The part of a tick's output from which requests are answered.
struct KeptTick {
    used: UseOfTick,
    rows: Vec<PlacedRow>,
}

/// Gives the ledger and the shelf the rows of ticks, once these are acknowledged.
pub(super) struct TickFeed {
    data: ApiData,
    clock: Clock,
    /// Ticks that aren't acknowledged, in their order.
    waiting: VecDeque<KeptTick>,
}

impl TickFeed {
    pub(super) fn new(data: &ApiData, clock: Clock) -> Self {
        Self { data: data.clone(), clock, waiting: VecDeque::new() }
    }

    /// Keeps what the ledger needs of a tick's output.
    pub(super) fn keep(&mut self, tick: Tick, outputs: &[TickOutput]) {
        let mut used = UseOfTick { tick, ..UseOfTick::default() };
        for output in outputs {
            // It is the same on all workers.
            used.through_ms = output.watermark;
            used.booked.extend(output.standings.iter().map(BookedUse::of));
            for rows in &output.rows {
                match rows {
                    Rows::Usage(rows) => used.minutes.extend(rows.iter().filter_map(MinuteUse::of)),
                    Rows::Quota(rows) => used.booked.extend(rows.iter().map(BookedUse::of)),
                    _ => {}
                }
            }
        }
        self.waiting.push_back(KeptTick { used, rows: Vec::new() });
    }

    /// Keeps the rows of the last tick, which are made later than its output.
    pub(super) fn keep_rows(&mut self, rows: Vec<PlacedRow>) {
        if let Some(last) = self.waiting.back_mut() {
            last.rows = rows;
        }
    }

    /// Gives the ledger and the shelf all ticks up to this one.
    pub(super) fn published(&mut self, tick: Tick) {
        while let Some(KeptTick { used, rows }) =
            self.waiting.pop_front_if(|waiting| waiting.used.tick <= tick)
        {
            self.data.shelf.apply(used.tick, &rows);
            self.data.ledger.apply_tick(&used, (self.clock)());
        }
    }

    /// Returns the shelf with all ticks that were kept, for a checkpoint at the end of the last one.
    pub(super) fn shelf(&self) -> ShelfMemory {
        let mut memory = self.data.shelf.memory();
        for KeptTick { used, rows } in &self.waiting {
            memory.apply(used.tick, rows);
        }
        memory
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use keytide_billing::{Measure, PeriodKind, QuotaLimit, QuotaStanding, QuotaThresholds};
    use keytide_dataflow::model::time::{DAY_MS, MINUTE_MS};
    use keytide_dataflow::model::{KeyId, NameId, Owner, QuotaHolder, QuotaRow, TableChange, TableRow};
    use keytide_dataflow::{Level, OwnedUsage, QuotaKey, Revision, Row, Usage};

    use super::*;
    use crate::serve::ledger::{AskedUse, CheckSubject, QuotaLedger};
    use crate::serve::shelf::Shelf;

    const NOW: u64 = 20 * DAY_MS + 5 * MINUTE_MS;

    /// A feed that adds the quota of a subscription once.
    struct OneQuota(Option<TableChange>);

    impl TableFeed for OneQuota {
        fn poll(&mut self, _: Duration, read: &mut TablesRead) -> Result<(), LiveError> {
            read.changes.extend(self.0.take());
            Ok(())
        }

        fn is_complete(&self) -> bool {
            self.0.is_none()
        }

        fn remember(&self, _: &mut TablesMemory) {}
    }

    fn used(ledger: &QuotaLedger) -> Option<u128> {
        let subject = CheckSubject::Subscription(NameId::new("s"));
        let answer = ledger.check(subject, AskedUse::default(), None, NOW);
        answer.decisive().map(|quota| quota.standing.used)
    }

    #[test]
    fn a_change_of_a_table_acts_when_it_is_read_and_a_row_when_its_tick_is_acknowledged() {
        let ledger = Arc::new(QuotaLedger::new(0, false));
        let subscription = NameId::new("s");
        let limit = QuotaLimit { limit: 9, hard: true, notify: QuotaThresholds::default() };
        let (measure, period) = (Measure::Calls, PeriodKind::Day);
        let holder = QuotaHolder::Subscription(subscription);
        let quota = QuotaRow { holder, measure, period, limit: limit.clone(), valid_from: None };
        let change = |row| TableChange { offset: 0, row: TableRow::Quota(row), deleted: false };
        let shelf = Arc::new(Shelf::new(1 << 20));
        let data =
            ApiData { ledger: Arc::clone(&ledger), shelf: Arc::clone(&shelf), directory: Arc::default() };
        let mut feed = SharedFeed::share(Box::new(OneQuota(Some(change(quota.clone())))), &data, || NOW);
        assert!(!feed.is_complete());
        // What another feed read isn't this feed's.
        let other = QuotaHolder::Subscription(NameId::new("t"));
        let mut read = TablesRead {
            changes: vec![change(QuotaRow { holder: other, ..quota })],
            ..TablesRead::default()
        };
        feed.poll(Duration::ZERO, &mut read).unwrap();
        feed.poll(Duration::ZERO, &mut read).unwrap();
        assert_eq!((read.changes.len(), feed.is_complete()), (2, true));

        let owner = Owner { subscription, ..Owner::default() };
        let row = |calls| Row {
            group: KeyId(7),
            level: Level::Minute,
            start: NOW,
            value: OwnedUsage { usage: Usage { calls, free_calls: 1, ..Usage::default() }, owner },
            complete: false,
            is_final: false,
        };
        let key = QuotaKey { subscription, measure, period, start_ms: 20 * DAY_MS };
        let resets_at_ms = 21 * DAY_MS;
        let standing =
            QuotaStanding { limit: 9, used: 2, remaining: 7, permille: 222, hard: true, resets_at_ms };
        let booked = Rows::Quota(vec![Revision { key, value: Some(standing) }]);
        let output = |rows| TickOutput { rows, watermark: NOW, ..TickOutput::default() };
        let mut ticks = TickFeed::new(&data, || NOW);
        // A key of the ledger's subscription, before its standing was asked for.
        assert_eq!(used(&ledger), None);
        ticks.keep(NOW, &[output(vec![booked]), output(vec![])]);
        assert_eq!(used(&ledger), None);
        ticks.published(NOW - 1);
        assert_eq!(used(&ledger), None);
        ticks.published(NOW);
        assert_eq!(used(&ledger), Some(2));
        ticks.keep(NOW + 1, &[output(vec![Rows::Usage(vec![row(4)])])]);
        ticks.keep(NOW + 2, &[output(vec![Rows::Usage(vec![row(6)])])]);
        ticks.published(NOW + 1);
        assert_eq!(used(&ledger), Some(5));
        ticks.published(NOW + 9);
        assert_eq!((used(&ledger), ledger.tick_ms(), ledger.through_ms()), (Some(7), NOW + 2, NOW));
    }
}
