//! A topic in memory, to drive live jobs in tests without a broker.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use keytide_config::Windows;

use super::{Feed, LiveOptions, ProcessPlace};
use crate::kafka::{ConsumerEvent, KafkaError, KafkaMessage, PartitionLag};

/// The longest time that a poll without records waits.
const WAIT: Duration = Duration::from_millis(1);

/// Returns the options of a job in one process with one worker, without checkpoints, whose ticks are 1 ms wide.
#[must_use]
pub fn options(windows: Windows) -> LiveOptions {
    let workers = NonZeroUsize::MIN;
    LiveOptions { tick_ms: 1, windows, workers, place: ProcessPlace::ALONE, checkpoints: None }
}

/// A topic whose messages tests append while readers read it.
#[derive(Clone, Debug, Default)]
pub struct MemoryTopic {
    partitions: Arc<Mutex<BTreeMap<u32, Vec<String>>>>,
    polls: Arc<AtomicU64>,
}

impl MemoryTopic {
    pub fn append(&self, partition: u32, messages: impl IntoIterator<Item = String>) {
        let mut partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        partitions.entry(partition).or_default().extend(messages);
    }

    /// Returns another topic with the same messages.
    #[must_use]
    pub fn copy(&self) -> Self {
        let partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Self { partitions: Arc::new(Mutex::new(partitions)), polls: Arc::default() }
    }

    /// Returns the number of finished polls of all readers.
    #[must_use]
    pub fn polls(&self) -> u64 {
        self.polls.load(Ordering::SeqCst)
    }

    /// Returns a feed of the topic for one reader. The records with offsets below `low` are gone.
    #[must_use]
    pub fn feed(&self, low: u64) -> Box<dyn Feed> {
        let (next, paused, ends) = Default::default();
        Box::new(MemoryFeed { topic: self.clone(), next, paused, ends, low })
    }
}

struct MemoryFeed {
    topic: MemoryTopic,
    next: BTreeMap<u32, u64>,
    paused: BTreeSet<u32>,
    /// The end of each partition that was last handed over.
    ends: BTreeMap<u32, u64>,
    low: u64,
}

impl Feed for MemoryFeed {
    fn add(&mut self, partition: u32, offset: u64) -> Result<(), KafkaError> {
        self.next.insert(partition, offset);
        Ok(())
    }

    fn pause(&mut self, partition: u32, pause: bool) {
        if pause {
            self.paused.insert(partition)
        } else {
            self.paused.remove(&partition)
        };
    }

    fn poll(
        &mut self,
        most: usize,
        wait: Duration,
        take: &mut dyn FnMut(ConsumerEvent<'_>),
    ) -> Result<usize, KafkaError> {
        let partitions = self.topic.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = 0;
        for (&partition, next) in &mut self.next {
            let messages = partitions.get(&partition).map_or(&[][..], Vec::as_slice);
            let high = messages.len() as u64;
            if *next < self.low {
                take(ConsumerEvent::Gap { partition, wanted: *next, low: self.low, high });
                continue;
            }
            while taken < most
                && !self.paused.contains(&partition)
                && let Some(message) = usize::try_from(*next).ok().and_then(|next| messages.get(next))
            {
                let value = Some(message.as_bytes());
                take(ConsumerEvent::Message(KafkaMessage {
                    partition,
                    offset: *next,
                    key: None,
                    value,
                    headers: &(),
                }));
                *next += 1;
                taken += 1;
            }
            if *next == high && self.ends.insert(partition, high) != Some(high) {
                take(ConsumerEvent::End { partition, offset: high });
            }
        }
        drop(partitions);
        self.topic.polls.fetch_add(1, Ordering::SeqCst);
        if taken == 0 {
            thread::park_timeout(wait.min(WAIT));
        }
        Ok(taken)
    }

    fn lags(&self) -> Vec<PartitionLag> {
        Vec::new()
    }
}
