//! Sends generated records to the broker, each at its time.
//!
//! History goes first, up to [`AHEAD_MS`] ahead of the job's watermark. So the broker has it before the job reads it,
//! and ticks follow each other at once: a job without a next minute waits for its clock. Live traffic starts once the job
//! has read the history but for [`UNREAD_MS`]. Its calls would make each tick of the history longer, which a busy machine
//! doesn't catch up with. From there on event times are the clock's less a fixed time.
//!
//! One record in [`DELAYED_ONE_IN`] is delayed by [`DELAY_MS`], as if a gateway had to send its batch again. By the
//! demo's configuration it is late then. The generator makes the other faults: records out of order, repeated or
//! broken.
//!
//! **Nothing is lost.** The broker drops the oldest records beyond 5 MiB of a partition. Records are spread evenly
//! over the partitions, so none gets near that while at most [`UNREAD_BYTES`] of a partition, before compression,
//! wait in the mean to be read. Beyond it the thread waits: a job that can't keep up slows the traffic down.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::bail;
use keytide_config::KafkaClient;
use keytide_connectors::kafka::Producer;
use keytide_connectors::live::Live;
use keytide_generator::{Generated, Generator};

use super::world::{PARTITIONS, TOPIC, Worlds};
use crate::clock::now;

/// Bytes of a partition, before compression, that may wait to be read, in the mean over the partitions.
const UNREAD_BYTES: u64 = 2 << 20;
/// Event time by which history may be ahead of the watermark. It is 900 minutes, each a tick at most, which is less
/// than the demo's `idle_ticks`. So no partition that is read to its end counts as idle, and the clock doesn't take
/// over.
pub(super) const AHEAD_MS: u64 = 15 * 3_600_000;
/// How much of the history may be unread when live traffic starts. It is far more than lies between two calls of a
/// partition at night, so the watermark gets there without a live call.
const UNREAD_MS: u64 = 3_600_000;
/// One record in this number is delayed.
pub(super) const DELAYED_ONE_IN: u64 = 2_000;
/// How long a record is delayed, in ms.
pub(super) const DELAY_MS: u64 = 20_000;
/// How long the thread rests between two looks at clock and job.
const REST: Duration = Duration::from_millis(5);
/// How long the broker may take for the last records.
const FLUSH: Duration = Duration::from_secs(30);

/// The thread that sends traffic.
pub(super) struct TrafficThread {
    pub(super) sent: Arc<SendProgress>,
    thread: JoinHandle<anyhow::Result<Generated>>,
}

/// Counts of records that were sent, and the flags of their thread.
#[derive(Debug, Default)]
pub(super) struct SendProgress {
    stop: AtomicBool,
    failed: AtomicBool,
    records: AtomicU64,
    bytes: AtomicU64,
    /// By how much event times are behind the clock, in ms; set when live traffic starts.
    behind_ms: OnceLock<u64>,
}

impl SendProgress {
    /// Returns the number of records that were sent.
    pub(super) fn records(&self) -> u64 {
        self.records.load(Ordering::Acquire)
    }

    /// Returns by how much live traffic is behind the clock, in ms; `None` before it starts.
    pub(super) fn behind_ms(&self) -> Option<u64> {
        self.behind_ms.get().copied()
    }

    /// Returns the time by the clock of live traffic.
    fn now(&self) -> u64 {
        now().saturating_sub(self.behind_ms().unwrap_or(0))
    }

    /// Makes no more calls. Delayed records are still sent.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Returns whether some records were counted and could not be sent.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Returns the bytes that were sent and aren't read.
    fn unread(&self, live: &Live) -> u64 {
        self.bytes.load(Ordering::Relaxed).saturating_sub(live.counters.bytes.load(Ordering::Relaxed))
    }
}

impl TrafficThread {
    /// Starts a thread that sends the worlds' calls to the broker at their times, no faster than `live` reads.
    pub(super) fn start(brokers: String, live: Arc<Live>, worlds: Worlds) -> anyhow::Result<Self> {
        let producer = Producer::open(&KafkaClient { brokers, settings: BTreeMap::new() }, TOPIC)?;
        let sent = Arc::<SendProgress>::default();
        let thread = {
            let sent = Arc::clone(&sent);
            thread::Builder::new().name("traffic".to_owned()).spawn(move || {
                let sender = TrafficSender { producer, live, sent };
                let result = sender.run(&worlds);
                sender.sent.failed.store(result.is_err(), Ordering::Release);
                result
            })?
        };
        Ok(Self { sent, thread })
    }

    /// Returns whether the last record was sent.
    pub(super) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the end; returns the counts of generated records.
    ///
    /// # Errors
    /// If something couldn't be sent.
    pub(super) fn join(self) -> anyhow::Result<Generated> {
        self.thread.join().unwrap_or_else(|_| bail!("the traffic panicked"))
    }
}

struct TrafficSender {
    producer: Producer,
    live: Arc<Live>,
    sent: Arc<SendProgress>,
}

impl TrafficSender {
    fn run(&self, worlds: &Worlds) -> anyhow::Result<Generated> {
        let mut lines: Vec<WorldLines<'_>> =
            worlds.all().map(|world| WorldLines::new(world.generator())).collect();
        let mut delayed = DelayedRecords::default();
        let mut stopped = false;
        while let Some(next) = earliest(&mut lines) {
            let at_ms = next.at_ms;
            let is_live = at_ms >= worlds.live_ms;
            while is_live && !stopped && self.is_history_unread(worlds) {
                stopped = self.sent.is_stopped();
                thread::park_timeout(REST);
            }
            if is_live && !stopped {
                self.sent.behind_ms.get_or_init(|| match worlds.known {
                    Some(_) => now().saturating_sub(at_ms),
                    None => 0,
                });
            }
            while !stopped && self.is_too_early(at_ms, is_live, worlds) {
                stopped = self.sent.is_stopped();
                thread::park_timeout(REST);
            }
            while let Some((partition, record)) = delayed.due(self.sent.now()) {
                self.send(partition, &record)?;
            }
            if !(is_live && delayed.takes(at_ms, next.partition, &next.text)) {
                self.send(next.partition, &next.text)?;
            }
            next.advance();
            stopped = stopped || self.sent.is_stopped();
            if stopped {
                lines.iter_mut().for_each(|lines| lines.generator.stop());
            }
        }
        while let Some((partition, record)) = delayed.due(u64::MAX) {
            self.send(partition, &record)?;
        }
        self.producer.flush(FLUSH)?;
        let generated = lines.iter().map(|lines| lines.generator.generated());
        Ok(generated.reduce(Generated::and).unwrap_or_default())
    }

    /// Returns whether the job has read too little of the history for live traffic to start.
    fn is_history_unread(&self, worlds: &Worlds) -> bool {
        worlds.known.is_some() && self.live.status().watermark + UNREAD_MS < worlds.live_ms
    }

    fn is_too_early(&self, at_ms: u64, is_live: bool, worlds: &Worlds) -> bool {
        let waits = match is_live {
            true => at_ms > self.sent.now(),
            // The watermark is 0 until each partition has a call.
            false => at_ms > self.live.status().watermark.max(worlds.start_ms()) + AHEAD_MS,
        };
        waits || self.sent.unread(&self.live) > UNREAD_BYTES * u64::from(PARTITIONS)
    }

    fn send(&self, partition: usize, record: &[u8]) -> anyhow::Result<()> {
        // The record is counted before it can be read, so that the job never seems to be ahead.
        self.sent.bytes.fetch_add(record.len() as u64, Ordering::Relaxed);
        self.sent.records.fetch_add(1, Ordering::Release);
        Ok(self.producer.send(partition, None, record)?)
    }
}

/// The lines of a world, of which the next one is generated already.
pub(super) struct WorldLines<'a> {
    generator: Generator<'a>,
    /// The event time at which the next line is sent.
    pub(super) at_ms: u64,
    partition: usize,
    pub(super) text: Vec<u8>,
    is_over: bool,
}

impl<'a> WorldLines<'a> {
    pub(super) fn new(generator: Generator<'a>) -> Self {
        let mut lines = Self { generator, at_ms: 0, partition: 0, text: Vec::new(), is_over: false };
        lines.advance();
        lines
    }

    pub(super) fn advance(&mut self) {
        match self.generator.next_line() {
            Some(line) => {
                (self.at_ms, self.partition) = (line.at_ms, line.partition);
                self.text.clear();
                self.text.extend_from_slice(line.text());
            }
            None => self.is_over = true,
        }
    }
}

/// Returns the world whose next line comes first.
pub(super) fn earliest<'l, 'a>(lines: &'l mut [WorldLines<'a>]) -> Option<&'l mut WorldLines<'a>> {
    lines.iter_mut().filter(|lines| !lines.is_over).min_by_key(|lines| lines.at_ms)
}

/// Delayed records, in the order in which they will be sent.
#[derive(Default)]
pub(super) struct DelayedRecords {
    records: u64,
    waiting: VecDeque<(u64, usize, Box<[u8]>)>,
}

impl DelayedRecords {
    /// Takes one record in [`DELAYED_ONE_IN`], which would be sent at `at_ms`; returns whether it took this one.
    pub(super) fn takes(&mut self, at_ms: u64, partition: usize, record: &[u8]) -> bool {
        self.records += 1;
        let takes = self.records.is_multiple_of(DELAYED_ONE_IN);
        if takes {
            self.waiting.push_back((at_ms + DELAY_MS, partition, record.into()));
        }
        takes
    }

    /// Returns the next record that is due, with its partition.
    pub(super) fn due(&mut self, now: u64) -> Option<(usize, Box<[u8]>)> {
        let (_, partition, record) = self.waiting.pop_front_if(|(until, ..)| *until <= now)?;
        Some((partition, record))
    }
}
