//! Checkpoints of a live job: what it stores at the end of some ticks, and with what its next life goes on.
//!
//! ```text
//! coordinator ─ marks a cut ─► readers, tables ─► InputMemory, TablesMemory ─┐
//!                            ► workers ─► Snapshot at the end of the tick ───┼─► this thread ─► Store
//!                            ► publisher ─► ResultMemory, and which ticks are committed
//!   workers of other processes ─► Snapshot ─► their Store ─► FollowerParts ──────┘
//! ```
//! A checkpoint counts once its tick is in the ledger, see `restore.rs`. It may be written before. After a commit of its
//! tick or a later one, checkpoints beyond [`KEPT`] are deleted, and those that never counted. So there is always one to
//! go on from.
//!
//! A checkpoint that can't be written leaves the job running. The next one is tried in its time, and the log and
//! [`CheckpointStats`] show the failure.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use keytide_alerts::outbox::Claims;
use keytide_connectors::live::Live;
use keytide_connectors::sink::FilesMemory;
use keytide_connectors::sink::encode::time;
use keytide_connectors::store::{
    Checkpoint, CheckpointId, CheckpointInfo, CheckpointPart, KEPT, Manifest, PartInfo, Store, StoreError,
};
use keytide_dataflow::model::Tick;
use keytide_dataflow::state::{STATE_VERSION, Snapshot, TakenSnapshot};
use serde::{Deserialize, Serialize};

use super::notify::AlertMemory;
use super::program::program;
use crate::serve::shelf::ShelfMemory;

/// The parts beside those of the dataflow's states, whose names begin with [`STATE`].
pub(super) const INPUT: &str = "input";
pub(super) const TABLES: &str = "tables";
pub(super) const ACTIONS: &str = "actions";
pub(super) const OUTBOX: &str = "outbox";
/// Only of a job with `[sink.files]`.
pub(super) const FILES: &str = "files";
/// Only of a job with `[api]`.
pub(super) const SHELF: &str = "shelf";
pub(super) const STATE: &str = "state-";

/// A checkpoint that is written.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) id: CheckpointId,
    pub(super) manifest: Arc<Manifest>,
    /// The first entry of the outbox that a start with it needs; unknown if an earlier life wrote it.
    pub(super) outbox: Option<u64>,
}

/// The counts of a job's checkpoints.
#[derive(Debug, Default)]
pub struct CheckpointStats {
    pub written: AtomicU64,
    pub failed: AtomicU64,
    /// The number of the tick of the oldest checkpoint that is kept.
    pub oldest: AtomicU64,
    /// The tick of the newest checkpoint; 0 before the first.
    pub tick: AtomicU64,
    /// The bytes of the newest checkpoint.
    pub bytes: AtomicU64,
    /// The bytes of parts that were written for all of them.
    pub written_bytes: AtomicU64,
    /// The time that the newest checkpoint took from its cut, in ms.
    pub took_ms: AtomicU64,
    /// The longest pause of a worker for it, in ms.
    pub pause_ms: AtomicU64,
}

/// The parts of a checkpoint that a follower has written, or why it couldn't.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct FollowerParts {
    pub(super) tick: Tick,
    /// The number of workers whose states these are.
    pub(super) workers: usize,
    /// The longest pause of one of them.
    pub(super) pause: Duration,
    pub(super) written: Result<WrittenParts, String>,
}

/// The parts of a checkpoint by their names.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct WrittenParts {
    pub(super) parts: BTreeMap<String, PartInfo>,
    /// Those that are the same as in the checkpoint before.
    pub(super) unchanged: Vec<String>,
}

/// The memory of those that get results.
#[derive(Default)]
pub(super) struct ResultMemory {
    /// That of actions and of the outbox.
    pub(super) alerts: Box<AlertMemory>,
    /// That of the sink's files.
    pub(super) files: Option<FilesMemory>,
    /// The rows from which requests are answered.
    pub(super) shelf: Option<ShelfMemory>,
}

/// A part of a checkpoint from one thread.
pub(super) enum Piece {
    /// The states of a worker at the end of a tick, and how long it paused to take them.
    States { tick: Tick, snapshot: TakenSnapshot, took: Duration },
    /// The states of a follower's workers at the end of a tick, which it has written.
    Parts(FollowerParts),
    /// The memory of those that get results, at the end of a tick.
    Results { tick: Tick, memory: ResultMemory },
    /// All ticks up to this one are in the ledger.
    Committed(Tick),
    /// The sinks or the workers failed: the checkpoint under way will never be whole.
    GivenUp,
}

/// Encodes a record as a part, which is an object by itself.
fn record(name: &str, value: &impl Serialize, rows: u64) -> (String, CheckpointPart) {
    let bytes = postcard::to_stdvec(value).expect("plain data can be written to memory");
    (name.to_owned(), CheckpointPart { object: name.to_owned(), blocks: vec![bytes], rows })
}

/// Writes the checkpoints of a job, on a thread of its own.
pub(super) struct CheckpointWriter {
    pub(super) store: Arc<Store>,
    /// The random number of this life of the job.
    pub(super) nonce: u64,
    /// The checkpoints that count already, the oldest first.
    pub(super) kept: Vec<Stored>,
    /// The checkpoint whose parts those are that didn't change, if there is one; see [`keytide_connectors::live::CheckpointRules`].
    pub(super) before: Option<Arc<Manifest>>,
    pub(super) live: Arc<Live>,
    /// The number of workers of all processes.
    pub(super) workers: usize,
    pub(super) job: String,
    /// The fingerprint of the configuration.
    pub(super) config: String,
    pub(super) stats: Arc<CheckpointStats>,
    /// Gets the memory of the files of each checkpoint that counts.
    pub(super) counted: Sender<FilesMemory>,
    /// The claims of alerts, of which old ones are deleted with old checkpoints.
    pub(super) claims: Option<Arc<Claims>>,
}

/// A checkpoint whose pieces are coming in.
struct Gathering {
    tick: Tick,
    begun: Instant,
    /// The workers whose states are in.
    workers: usize,
    /// The longest pause of one.
    pause: Duration,
    snapshot: Snapshot,
    /// What followers have written.
    written: WrittenParts,
    results: Option<ResultMemory>,
}

impl CheckpointWriter {
    /// Writes until all threads that send pieces have ended. Returns the error of the last checkpoint, if it failed.
    pub(super) fn run(mut self, pieces: &Receiver<Piece>) -> Option<String> {
        let mut gathering: Option<Gathering> = None;
        let mut committed = 0;
        let mut failed = None;
        // The tick of the last checkpoint that ended. A piece of it or an older one comes too late: one of another process
        // failed, and the next checkpoint may have begun.
        let mut ended = 0;
        // Checkpoints that count, and those that will.
        let mut kept: VecDeque<Stored> = mem::take(&mut self.kept).into();
        let mut written: VecDeque<(Stored, Option<FilesMemory>)> = VecDeque::new();
        for piece in pieces {
            let of = match &piece {
                Piece::States { tick, .. } | Piece::Results { tick, .. } => Some(*tick),
                Piece::Parts(FollowerParts { tick, .. }) => Some(*tick),
                Piece::Committed(_) | Piece::GivenUp => None,
            };
            if of.is_some_and(|tick| tick <= ended) {
                continue;
            }
            match piece {
                Piece::States { tick, snapshot, took } => {
                    let of_tick = of_tick(&mut gathering, tick);
                    of_tick.workers += 1;
                    of_tick.pause = of_tick.pause.max(took);
                    of_tick.snapshot.merge(snapshot.encode());
                }
                Piece::Parts(FollowerParts { tick, workers, pause, written }) => match written {
                    Ok(WrittenParts { parts, unchanged }) => {
                        let of_tick = of_tick(&mut gathering, tick);
                        of_tick.workers += workers;
                        of_tick.pause = of_tick.pause.max(pause);
                        of_tick.written.parts.extend(parts);
                        of_tick.written.unchanged.extend(unchanged);
                    }
                    Err(error) => {
                        ended = tick;
                        let of = gathering.take();
                        let took = of.as_ref().map_or(Duration::ZERO, |of| of.begun.elapsed());
                        let _ = self.live.take_checkpoint();
                        self.live.end_checkpoint(of.map_or(pause, |of| of.pause), took, None);
                        self.stats.failed.fetch_add(1, Ordering::Relaxed);
                        tracing::warn!(
                            "a checkpoint failed in another process: {error}; a restart would go on from the one before it"
                        );
                        failed = Some(error);
                    }
                },
                Piece::Results { tick, memory } => {
                    of_tick(&mut gathering, tick).results = Some(memory);
                }
                Piece::Committed(tick) => committed = tick,
                Piece::GivenUp => {
                    // The next life goes on from the checkpoint before this one.
                    gathering = None;
                    self.live.end_checkpoint(Duration::ZERO, Duration::ZERO, None);
                }
            }
            let is_whole =
                |gathering: &mut Gathering| gathering.workers == self.workers && gathering.results.is_some();
            if let Some(whole) = gathering.take_if(is_whole) {
                ended = whole.tick;
                let result = self.write(whole);
                failed = result.map(|stored| written.extend(stored)).err().map(|error| error.to_string());
            }
            if written.front().is_some_and(|(oldest, _)| oldest.id.tick <= committed) {
                while let Some((stored, files)) =
                    written.pop_front_if(|(stored, _)| stored.id.tick <= committed)
                {
                    kept.push_back(stored);
                    if let Some(files) = files {
                        // A publisher that has ended keeps what its next life may need.
                        let _ = self.counted.send(files);
                    }
                }
                self.clean(&mut kept, &written);
            }
        }
        failed
    }

    /// Deletes the checkpoints that no start needs any more.
    fn clean(&self, kept: &mut VecDeque<Stored>, written: &VecDeque<(Stored, Option<FilesMemory>)>) {
        kept.drain(..kept.len().saturating_sub(KEPT));
        if let Some(oldest) = kept.front() {
            self.stats.oldest.store(oldest.manifest.info.number, Ordering::Relaxed);
        }
        let of = |stored: &Stored| (stored.id, Arc::clone(&stored.manifest));
        let counted: Vec<_> = kept.iter().map(of).collect();
        let others: Vec<_> = written.iter().map(|(stored, _)| of(stored)).collect();
        if let Err(error) = self.store.retain(&counted, &others) {
            tracing::warn!("old checkpoints can't be deleted, it is tried again after the next one: {error}");
        } else if let Some((claims, position)) =
            self.claims.as_ref().zip(kept.front().and_then(|of| of.outbox))
        {
            // Any checkpoint that is kept may be the one with which a start goes on.
            claims.forget(position);
        }
    }

    fn write(&mut self, gathering: Gathering) -> Result<Option<(Stored, Option<FilesMemory>)>, StoreError> {
        let Gathering { tick, begun, pause, snapshot, written, results, workers: _ } = gathering;
        let ResultMemory { alerts, files, shelf } = results.unwrap_or_default();
        let AlertMemory { actions, outbox } = *alerts;
        let Some((input, tables)) = self.live.take_checkpoint() else {
            self.live.end_checkpoint(Duration::ZERO, Duration::ZERO, None);
            return Ok(None);
        };
        let number = input.number;
        let info = CheckpointInfo {
            tick,
            number,
            at: time(tick),
            job: self.job.clone(),
            config: self.config.clone(),
            state_version: STATE_VERSION,
            program: program(),
            workers: self.workers,
            decoders: input.decoders.clone(),
        };
        let (mut parts, mut unchanged) = parts_of(snapshot);
        unchanged.extend(written.unchanged);
        parts.extend([
            record(INPUT, &input, input.partitions.len() as u64),
            record(TABLES, &tables, tables.len()),
            record(ACTIONS, &actions, 1),
            record(OUTBOX, &outbox, 1),
        ]);
        parts.extend(files.as_ref().map(|files| record(FILES, files, 1)));
        parts.extend(shelf.map(|shelf| {
            let (rows, blocks) = (shelf.len() as u64, vec![shelf.encode()]);
            (SHELF.to_owned(), CheckpointPart { object: SHELF.to_owned(), blocks, rows })
        }));
        let checkpoint = Checkpoint { info, parts, unchanged, written: written.parts };
        let written = self.store.write(checkpoint, self.nonce, self.before.as_deref());
        let took = begun.elapsed();
        self.live.end_checkpoint(pause, took, written.is_ok().then_some(number));
        let stats = Arc::clone(&self.stats);
        match written {
            Ok((id, manifest)) => {
                let (bytes, new_bytes) = (manifest.bytes(), manifest.bytes_of(id));
                let (ms, pause_ms) = (millis(took), millis(pause));
                stats.written.fetch_add(1, Ordering::Relaxed);
                stats.tick.store(tick, Ordering::Relaxed);
                stats.bytes.store(bytes, Ordering::Relaxed);
                stats.written_bytes.fetch_add(new_bytes, Ordering::Relaxed);
                stats.took_ms.store(ms, Ordering::Relaxed);
                stats.pause_ms.store(pause_ms, Ordering::Relaxed);
                tracing::debug!(tick = time(tick), bytes, new_bytes, ms, pause_ms, "a checkpoint is written");
                let manifest = Arc::new(manifest);
                self.before = Some(Arc::clone(&manifest));
                Ok(Some((Stored { id, manifest, outbox: Some(outbox.position()) }, files)))
            }
            Err(error) => {
                stats.failed.fetch_add(1, Ordering::Relaxed);
                tracing::warn!("a checkpoint failed: {error}; a restart would go on from the one before it");
                Err(error)
            }
        }
    }
}

/// Returns the parts of a snapshot with their rows, and the names of those that didn't change.
fn parts_of(snapshot: Snapshot) -> (BTreeMap<String, CheckpointPart>, Vec<String>) {
    let (mut parts, mut unchanged) = (BTreeMap::new(), Vec::new());
    for (key, rows) in snapshot.parts {
        let name = format!("{STATE}{}", key.name());
        match rows {
            None => unchanged.push(name),
            Some(rows) => {
                let (object, rows, blocks) =
                    (format!("{STATE}{}", key.group()), rows.len(), rows.into_blocks());
                parts.insert(name, CheckpointPart { object, blocks, rows });
            }
        }
    }
    (parts, unchanged)
}

/// Writes the states of a follower's workers, on a thread of its own. The leader names them in the manifest.
pub(super) struct PartsWriter {
    pub(super) store: Arc<Store>,
    /// The random number of this life of the job.
    pub(super) nonce: u64,
    /// The number of the process.
    pub(super) process: usize,
    /// The number of its workers.
    pub(super) workers: usize,
}

impl PartsWriter {
    /// Writes until the workers have ended. `done` gets what is written.
    pub(super) fn run(self, pieces: &Receiver<Piece>, done: impl Fn(FollowerParts)) {
        let mut gathering: Option<Gathering> = None;
        for piece in pieces {
            // Workers give up only if the job does.
            let Piece::States { tick, snapshot, took } = piece else { continue };
            let of_tick = of_tick(&mut gathering, tick);
            of_tick.workers += 1;
            of_tick.pause = of_tick.pause.max(took);
            of_tick.snapshot.merge(snapshot.encode());
            let Some(whole) = gathering.take_if(|gathering| gathering.workers == self.workers) else {
                continue;
            };
            let (parts, unchanged) = parts_of(whole.snapshot);
            let written =
                self.store.write_parts(CheckpointId { tick, nonce: self.nonce }, self.process, parts);
            if let Err(error) = &written {
                tracing::warn!("this process's part of a checkpoint can't be written: {error}");
            }
            let written = written.map(|parts| WrittenParts { parts, unchanged });
            let written = written.map_err(|error| error.to_string());
            done(FollowerParts { tick, workers: self.workers, pause: whole.pause, written });
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Returns the checkpoint of a tick. One is under way at a time, so a piece of another tick begins it.
fn of_tick(gathering: &mut Option<Gathering>, tick: Tick) -> &mut Gathering {
    let is_other = gathering.as_ref().is_none_or(|gathering| gathering.tick != tick);
    if is_other {
        *gathering = Some(Gathering {
            tick,
            begun: Instant::now(),
            workers: 0,
            pause: Duration::ZERO,
            snapshot: Snapshot::default(),
            written: WrittenParts::default(),
            results: None,
        });
    }
    gathering.as_mut().expect("it was made above")
}

/// The way of pieces to the thread that writes; without `[state]` there is none.
#[derive(Clone, Default)]
pub(super) struct Pieces(Option<Sender<Piece>>);

impl Pieces {
    pub(super) fn new(sender: Sender<Piece>) -> Self {
        Self(Some(sender))
    }

    pub(super) fn send(&self, piece: Piece) {
        if let Some(sender) = &self.0 {
            // The thread ends only after all senders.
            let _ = sender.send(piece);
        }
    }
}
