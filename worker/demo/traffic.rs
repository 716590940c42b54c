//! The thread that calls: generated records, each sent to the broker when its time has come.
//!
//! One record in [`HELD_ONE_IN`] is held back for [`HELD_MS`], as by a gateway that had to send its batch again: by
//! the demo's configuration it then is late. The generator sees to the rest of what goes wrong: records out of order,
//! sent twice, broken.
//!
//! **Nothing is lost.** The broker drops what is beyond 5 MiB of a partition. Records are dealt evenly over the
//! partitions, so as long as at most [`UNREAD_BYTES`] of a partition, before compression, wait in the mean to be read,
//! none gets near that. Beyond it the thread waits: a job that can't keep up slows the traffic down.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::bail;
use keytide_config::KafkaClient;
use keytide_connectors::kafka::Producer;
use keytide_connectors::live::Live;

use super::world::{PARTITIONS, TOPIC};
use crate::clock::now;
use crate::generate::{Generated, World};

/// Bytes of a partition, before compression, that may wait to be read, in the mean over the partitions.
const UNREAD_BYTES: u64 = 2 << 20;
/// One record in so many is held back.
pub(super) const HELD_ONE_IN: u64 = 2_000;
/// For so long.
pub(super) const HELD_MS: u64 = 20_000;
/// How long the thread rests before it looks again.
const REST: Duration = Duration::from_millis(5);
/// How long the broker may take for what is under way at the end.
const FLUSH: Duration = Duration::from_secs(30);

/// Traffic under way.
pub(super) struct Traffic {
    pub(super) sent: Arc<Sent>,
    thread: JoinHandle<anyhow::Result<Generated>>,
}

/// What was sent so far.
#[derive(Debug, Default)]
pub(super) struct Sent {
    stop: AtomicBool,
    failed: AtomicBool,
    records: AtomicU64,
    bytes: AtomicU64,
}

impl Sent {
    /// Records.
    pub(super) fn records(&self) -> u64 {
        self.records.load(Ordering::Acquire)
    }

    /// Makes no more calls; what was held back is still sent.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Whether some of the records will never be there to read.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Bytes that wait to be read.
    fn unread(&self, live: &Live) -> u64 {
        self.bytes.load(Ordering::Relaxed).saturating_sub(live.counters.bytes.load(Ordering::Relaxed))
    }
}

impl Traffic {
    /// Starts to send a world's calls to the broker, as fast as their times say and `live` reads.
    pub(super) fn start(brokers: String, live: Arc<Live>, world: World) -> anyhow::Result<Self> {
        let producer = Producer::open(&KafkaClient { brokers, settings: BTreeMap::new() }, TOPIC)?;
        let sent = Arc::<Sent>::default();
        let thread = {
            let sent = Arc::clone(&sent);
            thread::Builder::new().name("traffic".to_owned()).spawn(move || {
                let sender = Sender { producer, live, sent };
                let result = sender.run(&world);
                sender.sent.failed.store(result.is_err(), Ordering::Release);
                result
            })?
        };
        Ok(Self { sent, thread })
    }

    /// Whether all that will be sent was sent.
    pub(super) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the end; what was sent.
    ///
    /// # Errors
    /// If something couldn't be sent.
    pub(super) fn join(self) -> anyhow::Result<Generated> {
        self.thread.join().unwrap_or_else(|_| bail!("the traffic panicked"))
    }
}

struct Sender {
    producer: Producer,
    live: Arc<Live>,
    sent: Arc<Sent>,
}

impl Sender {
    fn run(&self, world: &World) -> anyhow::Result<Generated> {
        let mut generator = world.generator();
        let mut held = Held::default();
        let mut stopped = false;
        while let Some(line) = generator.next_line() {
            while !stopped
                && (line.at_ms > now() || self.sent.unread(&self.live) > UNREAD_BYTES * u64::from(PARTITIONS))
            {
                stopped = self.sent.is_stopped();
                thread::park_timeout(REST);
            }
            while let Some((partition, record)) = held.due(now()) {
                self.send(partition, &record)?;
            }
            if !held.takes(line.at_ms, line.partition, line.text()) {
                self.send(line.partition, line.text())?;
            }
            if stopped {
                generator.stop();
            }
            stopped = stopped || self.sent.is_stopped();
        }
        while let Some((partition, record)) = held.due(u64::MAX) {
            self.send(partition, &record)?;
        }
        self.producer.flush(FLUSH)?;
        Ok(generator.generated())
    }

    fn send(&self, partition: usize, record: &[u8]) -> anyhow::Result<()> {
        // Counted before it can be read.
        self.sent.bytes.fetch_add(record.len() as u64, Ordering::Relaxed);
        self.sent.records.fetch_add(1, Ordering::Release);
        Ok(self.producer.send(partition, None, record)?)
    }
}

/// Records that are held back, in the order in which they will be sent.
#[derive(Default)]
pub(super) struct Held {
    records: u64,
    waiting: VecDeque<(u64, usize, Box<[u8]>)>,
}

impl Held {
    /// Whether this record, which would go out at `at_ms`, is one of those that are held back.
    pub(super) fn takes(&mut self, at_ms: u64, partition: usize, record: &[u8]) -> bool {
        self.records += 1;
        let takes = self.records.is_multiple_of(HELD_ONE_IN);
        if takes {
            self.waiting.push_back((at_ms + HELD_MS, partition, record.into()));
        }
        takes
    }

    /// The next record whose time has come, with its partition.
    pub(super) fn due(&mut self, now: u64) -> Option<(usize, Box<[u8]>)> {
        let (_, partition, record) = self.waiting.pop_front_if(|(until, ..)| *until <= now)?;
        Some((partition, record))
    }
}
