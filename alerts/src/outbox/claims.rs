//! The claims of an outbox: what it is about to send, and what became of it, in a store that outlives the process.
//!
//! ```text
//! entry 41   life      a life of the job begins
//! entry 42   claim     mail 17 to ops@example.com, its transitions, its date
//! entry 43   outcome   mail 17 was sent
//! entry 44   claim     mail 18 ...                  here the process died: the mail may have been sent, or not
//! entry 45   life      the next life sends mail 18 again, as it was
//! ```
//! Entries are numbered without a gap, and each is written only if there is none with its number. A mail or request is
//! claimed before its first attempt, and its outcome is written after the last one. A memory of the outbox (part of a
//! checkpoint) has a **position**: it has all entries before it. A life goes on with the memory and the entries since.
//!
//! Why nothing is told twice, but what was under way at a crash:
//! 1. A claim is on disk before its attempt. So a life knows of everything that earlier ones may have sent.
//! 2. The entry `life` takes the number that an earlier life would write next. If that one is still there, it can't claim
//!    any more, and so it sends nothing more.
//! 3. The memory changes before the entry is written, and applying an entry twice changes nothing. So the position may be
//!    read before the memory, and nobody has to wait.
//!
//! Limits: [`MAX_ENTRIES`] since the oldest checkpoint that is kept, and the [`MAX_LIVES`] last lives. With more entries,
//! alerts wait for the next checkpoint. Older entries are deleted, but neither a life nor the entry before it is: a process
//! that slept for long must find its next number taken.

use std::collections::{BTreeSet, VecDeque};
use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// The most entries, beside lives, that are in the store at a time.
const MAX_ENTRIES: usize = 65_536;
/// The most lives that are in the store at a time.
const MAX_LIVES: usize = 64;
/// The format of entries and memories that this version writes and reads.
pub(super) const FORMAT: u32 = 4;

/// An error of the store of claims.
pub type StoreFault = Box<dyn Error + Send + Sync>;

/// The kind of an entry, for the store's tests of crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    Life,
    Claim,
    Outcome,
}

/// Holds numbered entries. All methods may block.
pub trait ClaimStore: Send + Sync {
    /// Returns the numbers of all entries.
    ///
    /// # Errors
    /// If they can't be listed.
    fn numbers(&self) -> Result<Vec<u64>, StoreFault>;
    /// Reads an entry; `None` if it is gone or damaged.
    ///
    /// # Errors
    /// If it can't be read now.
    fn get(&self, number: u64) -> Result<Option<Vec<u8>>, StoreFault>;
    /// Writes an entry so that it outlives a crash. Returns false, and changes nothing, if there is one with its number.
    ///
    /// # Errors
    /// If it isn't known to be written.
    fn put(&self, number: u64, kind: EntryKind, bytes: Vec<u8>) -> Result<bool, StoreFault>;
    /// Deletes an entry. One that is gone is no error.
    ///
    /// # Errors
    /// If it can't be deleted.
    fn delete(&self, number: u64) -> Result<(), StoreFault>;
}

/// The queue that a claim belongs to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Channel {
    Mails,
    /// A webhook by its name.
    Webhook(String),
}

/// The end of a mail or request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Settled {
    Sent,
    GivenUp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum ClaimEvent {
    Life,
    /// A mail or request is about to be tried. `item` holds its number, recipient, transitions and date.
    Claim {
        channel: Channel,
        item: Vec<u8>,
    },
    /// The mail or request of this number isn't tried any more.
    Outcome {
        channel: Channel,
        number: u64,
        settled: Settled,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ClaimEntry {
    format: u32,
    /// A random number that tells the life that wrote it from all others.
    life: u64,
    /// The time at which it was written, in milliseconds since 1970.
    pub(super) at_ms: u64,
    pub(super) event: ClaimEvent,
}

impl ClaimEntry {
    fn bytes(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("plain data can be written to memory")
    }

    fn kind(&self) -> EntryKind {
        match self.event {
            ClaimEvent::Life => EntryKind::Life,
            ClaimEvent::Claim { .. } => EntryKind::Claim,
            ClaimEvent::Outcome { .. } => EntryKind::Outcome,
        }
    }
}

/// Why the claims of an earlier life can't be read.
#[derive(Debug, thiserror::Error)]
pub enum ClaimsError {
    #[error("{0}")]
    Store(StoreFault),
    #[error(
        "entry {number} of the outbox has format {found}, and this version reads format {FORMAT}; start the version that \
         wrote it, or name another folder to begin anew"
    )]
    Format { number: u64, found: u32 },
    #[error(
        "the outbox of the checkpoint has format {found}, and this version reads format {FORMAT}; start the version that \
         wrote it, or name another folder to begin anew"
    )]
    Memory { found: u32 },
    #[error("a mail or request in the outbox can't be read: another version wrote it; start that one")]
    Item,
}

/// Why an entry isn't written.
#[derive(Debug)]
pub(super) enum AppendError {
    /// It is tried again later.
    Later(StoreFault),
    /// Another life of the job has begun.
    Superseded,
}

/// The claims of this life of a job.
pub struct Claims {
    store: Arc<dyn ClaimStore>,
    life: u64,
    /// The number of the next entry.
    next: AtomicU64,
    /// Held while an entry is written, so that numbers have no gap.
    appending: Mutex<()>,
    /// The entries in the store beside lives, in ascending order.
    kept: Mutex<VecDeque<u64>>,
}

impl std::fmt::Debug for Claims {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Claims").field("life", &self.life).field("next", &self.next).finish_non_exhaustive()
    }
}

impl Claims {
    /// Begins a life, which is told from all others by a random number. Returns the entries from `position`, in their order.
    ///
    /// # Errors
    /// If entries can't be read or written, or another version wrote them.
    pub(super) fn open(
        store: Arc<dyn ClaimStore>,
        life: u64,
        position: u64,
        now: u64,
    ) -> Result<(Self, Vec<ClaimEntry>), ClaimsError> {
        loop {
            // STEP 1: read what earlier lives wrote.
            let mut numbers = store.numbers().map_err(ClaimsError::Store)?;
            numbers.sort_unstable();
            let (mut lives, mut entries) = (Vec::new(), Vec::new());
            for &number in &numbers {
                let Some(bytes) = store.get(number).map_err(ClaimsError::Store)? else { continue };
                let entry = read(number, &bytes)?;
                if let Some(ClaimEntry { event: ClaimEvent::Life, .. }) = &entry {
                    lives.push(number);
                }
                entries.extend(entry.filter(|_| number >= position));
            }
            let next = numbers.last().map_or(position, |last| position.max(last + 1));
            let missing = (next - position).saturating_sub(entries.len() as u64);
            // STEP 2: end the life before. If it wrote one more entry meanwhile, that one counts, too.
            let begin = ClaimEntry { format: FORMAT, life, at_ms: now, event: ClaimEvent::Life };
            if !store.put(next, EntryKind::Life, begin.bytes()).map_err(ClaimsError::Store)? {
                continue;
            }
            if missing > 0 {
                tracing::warn!(
                    missing,
                    "entries of the outbox are gone or damaged: alerts may be sent again"
                );
            }
            // STEP 3: delete lives of long ago. The entry before a life stays with it: the process that wrote it may not
            // know that it did, and come back to its number.
            lives.push(next);
            let old: Vec<u64> = lives.drain(..lives.len().saturating_sub(MAX_LIVES)).collect();
            let with_lives = |lives: &[u64]| -> BTreeSet<u64> {
                lives.iter().flat_map(|life| [life.saturating_sub(1), *life]).collect()
            };
            let (old, stay) = (with_lives(&old), with_lives(&lives));
            for number in old.difference(&stay).filter(|number| **number < position) {
                if let Err(error) = store.delete(*number) {
                    tracing::warn!("an old entry of the outbox can't be deleted: {error}");
                }
            }
            let kept = numbers.into_iter().filter(|number| !stay.contains(number) && !old.contains(number));
            let kept = Mutex::new(kept.collect());
            return Ok((
                Self { store, life, next: AtomicU64::new(next + 1), appending: Mutex::new(()), kept },
                entries,
            ));
        }
    }

    /// Returns the number of the first entry that a memory which is made from now on may lack. Never blocks for long.
    pub(super) fn position(&self) -> u64 {
        self.next.load(Ordering::Acquire)
    }

    pub(super) fn entry(&self, event: ClaimEvent, at_ms: u64) -> ClaimEntry {
        ClaimEntry { format: FORMAT, life: self.life, at_ms, event }
    }

    /// Writes an entry. One that may be in the store already can be written again.
    pub(super) fn append(&self, entry: &ClaimEntry) -> Result<(), AppendError> {
        let _appending = self.appending.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = entry.bytes();
        loop {
            let number = self.next.load(Ordering::Acquire);
            if self.kept().len() >= MAX_ENTRIES {
                let full = format!("{MAX_ENTRIES} entries wait for the next checkpoint");
                return Err(AppendError::Later(full.into()));
            }
            let is_new = self.store.put(number, entry.kind(), bytes.clone()).map_err(AppendError::Later)?;
            let found = match is_new {
                true => None,
                false => self.store.get(number).map_err(AppendError::Later)?,
            };
            let is_ours = match &found {
                None => is_new,
                // A write that seemed to fail may have been done.
                Some(found) => {
                    read(number, found).ok().flatten().is_some_and(|found| found.life == self.life)
                }
            };
            if !is_ours {
                return Err(AppendError::Superseded);
            }
            self.kept().push_back(number);
            self.next.store(number + 1, Ordering::Release);
            if found.is_none_or(|found| found == bytes) {
                return Ok(());
            }
        }
    }

    /// Returns whether no newer life of the job has begun.
    ///
    /// # Errors
    /// If the store can't be read now.
    pub fn hold(&self) -> Result<bool, StoreFault> {
        let _appending = self.appending.lock().unwrap_or_else(PoisonError::into_inner);
        let number = self.next.load(Ordering::Acquire);
        let Some(bytes) = self.store.get(number)? else { return Ok(true) };
        // A write of this life that seemed to fail may have been done.
        Ok(read(number, &bytes).ok().flatten().is_some_and(|found| found.life == self.life))
    }

    /// Deletes the entries before `position`, which no start needs any more. It may block, but no entry waits for it.
    pub fn forget(&self, position: u64) {
        loop {
            let oldest = self.kept().front().copied();
            let Some(oldest) = oldest.filter(|oldest| *oldest < position) else { return };
            if let Err(error) = self.store.delete(oldest) {
                tracing::warn!(
                    "old entries of the outbox can't be deleted, it is tried again later: {error}"
                );
                return;
            }
            self.kept().pop_front();
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, VecDeque<u64>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads an entry; `None` if it is damaged.
fn read(number: u64, bytes: &[u8]) -> Result<Option<ClaimEntry>, ClaimsError> {
    let Ok((found, _)) = postcard::take_from_bytes::<u32>(bytes) else { return Ok(None) };
    if found != FORMAT {
        return Err(ClaimsError::Format { number, found });
    }
    Ok(postcard::from_bytes(bytes).ok())
}
