//! Sends calls without a pause through all lives of a job, and remembers what the job owes for them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::oracle::Owed;
use crate::broker::Broker;
use crate::harness::DEADLINE;
use crate::producer::Producer;

/// Partitions of the topic of calls.
pub(super) const PARTITIONS: u64 = 3;
/// The number of keys that call and aren't revoked.
const KEYS: u64 = 12;
/// The key that was revoked, and calls nevertheless.
const REVOKED: &str = "revoked";
/// Other revoked keys. Each calls in its turn, so that incidents come all the time.
const GONE_KEYS: u64 = 60;
/// Records between two of these turns.
const TURN: u64 = 150;
/// Records that are sent in a second, of all kinds.
const RATE: u64 = 300;
/// How far calls of a partition are out of order, in ms.
const DISORDER_MS: u64 = 4_000;
/// How old late calls are. Those older than 10 min and 5 s are late, and those of more than 60 min aren't proven.
const LATE_MS: u64 = 20 * 60_000;
/// Records between two changes of the table of keys.
const TABLE_EVERY: u64 = 1_500;
/// Columns of the table of keys about a key's state.
const ACTIVE: &str = r#""state":"active""#;
const GONE: &str = r#""state":"revoked","revoked_at":"2025-02-01T00:00:00Z""#;
const SUBSCRIPTIONS: [&str; 3] = ["sub-a", "sub-b", "sub-c"];

/// How much was sent, for those that wait for it.
#[derive(Default)]
pub(super) struct Sent {
    records: Mutex<u64>,
    more: Condvar,
    is_enough: AtomicBool,
}

impl Sent {
    fn records(&self) -> MutexGuard<'_, u64> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the number of records that were sent.
    pub(super) fn number(&self) -> u64 {
        *self.records()
    }

    /// Waits until the time that it takes to send so many more records is over.
    pub(super) fn wait(&self, more: u64) {
        let records = self.records();
        let until = *records + more;
        let waits = |records: &mut u64| *records < until && !self.is_enough.load(Ordering::Acquire);
        let waited = self.more.wait_timeout_while(records, DEADLINE, waits);
        let waited = waited.unwrap_or_else(PoisonError::into_inner).1;
        assert!(!waited.timed_out(), "the sender sends");
    }

    /// Lets the sender end after the record that it is at.
    pub(super) fn end(&self) {
        self.is_enough.store(true, Ordering::Release);
        self.more.notify_all();
    }
}

/// The state of the thread that sends.
struct Sender<'a> {
    producer: Producer,
    topic: &'a str,
    keys_topic: &'a str,
    random: ChaCha8Rng,
    owed: Owed,
    /// The number of records of each partition.
    offsets: [u64; PARTITIONS as usize],
    /// Lines that may be sent again.
    recent: Vec<String>,
}

/// Everything that a sender sent.
pub(super) struct AllSent {
    pub(super) owed: Owed,
    /// The number of records of each partition.
    pub(super) offsets: [u64; PARTITIONS as usize],
}

/// The clock of the machine, as the job sees it. Calls of the present stay in windows that are held.
#[allow(clippy::disallowed_methods, reason = "a live job has no other clock, and idle partitions follow it")]
fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Sends until it is told to end. Only this writes to the topics, so it knows the offset of each record.
pub(super) fn send(broker: &Broker, topic: &str, keys_topic: &str, seed: u64, sent: &Sent) -> AllSent {
    let mut sender = Sender {
        producer: Producer::new(broker),
        topic,
        keys_topic,
        random: ChaCha8Rng::seed_from_u64(seed),
        owed: Owed::default(),
        offsets: [0; PARTITIONS as usize],
        recent: Vec::new(),
    };
    // Every key has an owner before it calls.
    for key in 0..KEYS {
        sender.own(&format!("k{key}"), SUBSCRIPTIONS[0], ACTIVE);
    }
    sender.own(REVOKED, SUBSCRIPTIONS[1], GONE);
    for key in 0..GONE_KEYS {
        sender.own(&format!("gone{key}"), SUBSCRIPTIONS[2], GONE);
    }
    sender.owed.suspect(REVOKED);
    for partition in 0..PARTITIONS {
        sender.call(partition, 0);
    }
    let started = Instant::now();
    let mut number = PARTITIONS;
    while !sent.is_enough.load(Ordering::Acquire) {
        let due = u64::try_from(started.elapsed().as_millis()).unwrap() * RATE / 1_000;
        while number < due {
            sender.record(number);
            number += 1;
            *sent.records() = number;
        }
        sent.more.notify_all();
        sender.producer.poll(Duration::from_millis(2));
    }
    sender.producer.flush();
    AllSent { owed: sender.owed, offsets: sender.offsets }
}

impl Sender<'_> {
    fn record(&mut self, number: u64) {
        let partition = self.random.random_range(0..PARTITIONS);
        match self.random.random_range(0..200_u32) {
            0..2 => self.line(partition, &format!("no record {number}"), |owed, place, length| {
                owed.dead(place, length)
            }),
            2..4 => self.call(partition, LATE_MS),
            4..8 if !self.recent.is_empty() => {
                // The same call once more, by whatever partition.
                let again = self.random.random_range(0..self.recent.len());
                let line = self.recent[again].clone();
                self.line(partition, &line, |_, _, _| {});
            }
            _ => self.call(partition, 0),
        }
        if number.is_multiple_of(TABLE_EVERY) {
            let key = format!("k{}", self.random.random_range(0..KEYS));
            let owner = SUBSCRIPTIONS[self.random.random_range(0..SUBSCRIPTIONS.len())];
            self.own(&key, owner, ACTIVE);
        }
    }

    /// Sends a call of so long ago.
    fn call(&mut self, partition: u64, ago_ms: u64) {
        let at = now_ms() - ago_ms - self.random.random_range(0..DISORDER_MS);
        let key = match self.random.random_range(0..100_u32) {
            0 => REVOKED.to_owned(),
            1..4 => format!("gone{}", self.offsets.iter().sum::<u64>() / TURN % GONE_KEYS),
            _ => format!("k{}", self.random.random_range(0..KEYS)),
        };
        let status = [200, 200, 200, 404, 503][self.random.random_range(0..5_usize)];
        let id = format!("{:016x}", self.random.random::<u64>());
        let route = self.random.random_range(0..3_u32);
        let line = format!(
            r#"{{"id":"{id}","t":{at},"k":"{key}","route":"/r{route}","status":{status},"us":1000,"ip":"192.0.2.{route}"}}"#
        );
        self.line(partition, &line, |owed, place, _| {
            owed.call(&key, at, status);
            if ago_ms > 0 {
                owed.late(place, &key, at);
            }
        });
        if ago_ms == 0 {
            self.recent.push(line);
            if self.recent.len() > 100 {
                self.recent.remove(0);
            }
        }
    }

    fn line(&mut self, partition: u64, line: &str, owe: impl FnOnce(&mut Owed, (u64, u64), usize)) {
        self.producer.send(self.topic, i32::try_from(partition).unwrap(), None, line.as_bytes());
        let offset = &mut self.offsets[usize::try_from(partition).unwrap()];
        owe(&mut self.owed, (partition, *offset), line.len());
        *offset += 1;
    }

    /// Gives a key, with all its windows, to a subscription.
    fn own(&mut self, key: &str, subscription: &str, state: &str) {
        let row = format!(
            r#"{{"key_id":"{key}","subscription":"{subscription}",{state},"valid_from":"2025-01-01T00:00:00Z"}}"#
        );
        self.producer.send_keyed(self.keys_topic, key, &row);
        self.owed.owner(key, subscription);
    }
}
