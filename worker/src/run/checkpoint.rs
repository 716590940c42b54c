//! Checkpoints of a live job: what it stores at the end of some ticks, and with what its next life goes on.
//!
//! ```text
//! coordinator ─ marks a cut ─► readers, tables ─► InputMemory, TablesMemory ─┐
//!                            ► workers ─► Snapshot at the end of the tick ───┼─► this thread ─► Store
//!                            ► publisher ─► PolicyMemory, then `published` ──┘
//! ```
//! **Nothing is lost.** A checkpoint is written only when the sinks have acknowledged all results of its tick and of
//! the ticks before. A job that goes on from it reads the first record that isn't in it.
//!
//! **What comes twice.** After a stop, nothing: the last tick is a checkpoint. After a crash the records behind the
//! newest checkpoint are read again. Their rows of windows are published again with the same values in the end. Rows of
//! `incident_log`, `late` and `dead_letters` are repeated, and so are mails, which keep their ids.
//!
//! A checkpoint that can't be written leaves the job running. The next one is tried in its time, and the log and
//! [`CheckpointStats`] show the failure.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use keytide_alerts::policy::PolicyMemory;
use keytide_config::{JobConfig, State};
use keytide_connectors::live::{InputMemory, Live, PartitionMemory};
use keytide_connectors::sink::encode::time;
use keytide_connectors::store::{Checkpoint, CheckpointInfo, CheckpointPart, Store, StoreError};
use keytide_connectors::tables::TablesMemory;
use keytide_dataflow::model::Tick;
use keytide_dataflow::state::{STATE_VERSION, Snapshot, StateId, StateRows};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::exit::{Exit, failure};

/// The parts beside those of the dataflow's states, whose names begin with [`STATE`].
const INPUT: &str = "input";
const TABLES: &str = "tables";
const POLICY: &str = "policy";
const STATE: &str = "state-";

/// From where a job would go on, for people.
#[derive(Clone, Debug, Serialize)]
pub struct ResumePoint {
    /// The last tick that is in the checkpoint, as a time.
    pub tick: String,
    pub watermark: String,
    /// The partitions, each with the first offset that wasn't read.
    pub partitions: Vec<PartitionPoint>,
}

/// From where a partition would be read.
#[derive(Clone, Debug, Serialize)]
pub struct PartitionPoint {
    pub source: String,
    pub number: u32,
    pub next_offset: u64,
}

/// Returns from where a job would go on with a checkpoint.
///
/// # Errors
/// If another version wrote it.
pub fn resume_point(checkpoint: &Checkpoint) -> anyhow::Result<ResumePoint> {
    let bytes = checkpoint.parts.get(INPUT).map(|part| part.blocks.concat()).unwrap_or_default();
    let InputMemory { tick, ticker, partitions } = decode(INPUT, &bytes)?;
    let point = |PartitionMemory { source, number, next_offset, lane: _ }| PartitionPoint {
        source,
        number,
        next_offset,
    };
    Ok(ResumePoint {
        tick: time(tick),
        watermark: time(ticker.watermark()),
        partitions: partitions.into_iter().map(point).collect(),
    })
}

/// Everything with which a job goes on.
pub(super) struct Restored {
    pub(super) input: InputMemory,
    pub(super) tables: TablesMemory,
    pub(super) policy: PolicyMemory,
    pub(super) snapshot: Arc<Snapshot>,
}

/// The counts of a job's checkpoints, which only grow but for the last three.
#[derive(Debug, Default)]
pub struct CheckpointStats {
    pub written: AtomicU64,
    pub failed: AtomicU64,
    /// The tick of the newest checkpoint; 0 before the first.
    pub tick: AtomicU64,
    /// The bytes of the newest checkpoint.
    pub bytes: AtomicU64,
    /// The time that the newest checkpoint took from its cut, in ms.
    pub took_ms: AtomicU64,
}

/// A part of a checkpoint from one thread.
pub(super) enum Piece {
    /// The states of a worker at the end of a tick.
    States { tick: Tick, snapshot: Snapshot },
    /// The memory of the policy at the end of a tick.
    Policy { tick: Tick, memory: PolicyMemory },
    /// All results up to this tick are acknowledged.
    Published(Tick),
    /// The sinks or the workers failed: the checkpoint under way will never be whole.
    GivenUp,
}

/// Opens the store of a job, and reads its newest checkpoint.
///
/// # Errors
/// If the store can't be used, or the checkpoint isn't one that this job can go on from.
pub(super) fn open(state: &State, config: &JobConfig) -> anyhow::Result<(Store, Option<Restored>)> {
    let refused = |error: StoreError| failure(exit_of(&error), error);
    let store = Store::open(&state.dir).map_err(refused)?;
    let started = Instant::now();
    let Some(Checkpoint { info, mut parts }) = store.newest().map_err(refused)? else {
        tracing::info!(state = %state.dir.display(), "the folder has no checkpoint: the job begins anew");
        return Ok((store, None));
    };
    if info.job != config.job.name {
        let message = format!(
            "state.url: {} has the state of the job \"{}\", and this one is \"{}\"; name another folder, or the same job",
            state.dir.display(),
            info.job,
            config.job.name
        );
        return Err(failure(Exit::Usage, anyhow::anyhow!(message)));
    }
    if info.state_version != STATE_VERSION {
        let message = format!(
            "state.url: the checkpoint has states of version {}, and this program reads version {STATE_VERSION}; start the \
             program that wrote it ({}), or name another folder to begin anew",
            info.state_version, info.program
        );
        return Err(failure(Exit::Usage, anyhow::anyhow!(message)));
    }
    if info.config != config.fingerprint() {
        tracing::warn!(
            "the configuration isn't the one that the checkpoint was made with: what is counted from now on follows the \
             new one, what was counted before stays"
        );
    }
    let mut snapshot = Snapshot::default();
    for id in StateId::ALL {
        let CheckpointPart { blocks, rows } =
            parts.remove(&format!("{STATE}{}", id.name())).unwrap_or_default();
        snapshot.rows.insert(*id, StateRows::from_blocks(blocks, rows));
    }
    let mut part = |name: &str| parts.remove(name).unwrap_or_default().blocks.concat();
    let restored = Restored {
        input: decode(INPUT, &part(INPUT))?,
        tables: decode(TABLES, &part(TABLES))?,
        policy: decode(POLICY, &part(POLICY))?,
        snapshot: Arc::new(snapshot),
    };
    tracing::info!(
        tick = time(info.tick),
        rows = restored.snapshot.rows.values().map(StateRows::len).sum::<u64>(),
        partitions = restored.input.partitions.len(),
        ms = started.elapsed().as_millis(),
        "goes on from a checkpoint"
    );
    Ok((store, Some(restored)))
}

fn decode<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> anyhow::Result<T> {
    postcard::from_bytes(bytes)
        .with_context(|| {
            format!("state.url: the part {name} of the checkpoint can't be read: another version wrote it")
        })
        .map_err(|error| failure(Exit::Fatal, error))
}

fn encode(value: &impl Serialize, rows: u64) -> CheckpointPart {
    let bytes = postcard::to_stdvec(value).expect("plain data can be written to memory");
    CheckpointPart { blocks: vec![bytes], rows }
}

/// Returns the exit code of an error at the start.
#[must_use]
pub fn exit_of(error: &StoreError) -> Exit {
    match error {
        StoreError::Folder { .. } | StoreError::Format { .. } => Exit::Usage,
        StoreError::InUse { .. } | StoreError::Object { .. } => Exit::Transient,
        StoreError::Damaged { .. } => Exit::Fatal,
    }
}

/// Writes the checkpoints of a job, on a thread of its own.
pub(super) struct CheckpointWriter {
    pub(super) store: Store,
    pub(super) live: Arc<Live>,
    pub(super) workers: usize,
    pub(super) job: String,
    /// The fingerprint of the configuration.
    pub(super) config: String,
    pub(super) stats: Arc<CheckpointStats>,
}

/// A checkpoint whose pieces are coming in.
struct Gathering {
    tick: Tick,
    begun: Instant,
    /// The workers whose states are in.
    workers: usize,
    snapshot: Snapshot,
    policy: Option<PolicyMemory>,
}

impl CheckpointWriter {
    /// Writes until all threads that send pieces have ended. Returns the error of the last checkpoint, if it failed.
    pub(super) fn run(self, pieces: &Receiver<Piece>) -> Option<StoreError> {
        let nonce = RandomState::new().build_hasher().finish();
        let mut gathering: Option<Gathering> = None;
        let mut published = 0;
        let mut failed = None;
        for piece in pieces {
            match piece {
                Piece::States { tick, snapshot } => {
                    let of_tick = of_tick(&mut gathering, tick);
                    of_tick.workers += 1;
                    of_tick.snapshot.merge(snapshot);
                }
                Piece::Policy { tick, memory } => of_tick(&mut gathering, tick).policy = Some(memory),
                Piece::Published(tick) => published = tick,
                Piece::GivenUp => {
                    // The next life goes on from the checkpoint before this one.
                    gathering = None;
                    self.live.end_checkpoint(Duration::ZERO);
                }
            }
            let is_whole = |gathering: &mut Gathering| {
                gathering.workers == self.workers && gathering.policy.is_some() && published >= gathering.tick
            };
            if let Some(whole) = gathering.take_if(is_whole) {
                failed = self.write(whole, nonce);
            }
        }
        failed
    }

    fn write(&self, gathering: Gathering, nonce: u64) -> Option<StoreError> {
        let Gathering { tick, begun, snapshot, policy, .. } = gathering;
        let Some((input, tables)) = self.live.take_checkpoint() else {
            self.live.end_checkpoint(Duration::ZERO);
            return None;
        };
        let info = CheckpointInfo {
            tick,
            at: time(tick),
            job: self.job.clone(),
            config: self.config.clone(),
            state_version: STATE_VERSION,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            workers: self.workers,
        };
        let states = snapshot.rows.into_iter().map(|(id, rows)| {
            let count = rows.len();
            (format!("{STATE}{}", id.name()), CheckpointPart { blocks: rows.into_blocks(), rows: count })
        });
        let others = [
            (INPUT.to_owned(), encode(&input, input.partitions.len() as u64)),
            (TABLES.to_owned(), encode(&tables, tables.len())),
            (POLICY.to_owned(), encode(&policy.unwrap_or_default(), 1)),
        ];
        let checkpoint = Checkpoint { info, parts: states.chain(others).collect() };
        let written = self.store.write(checkpoint, nonce);
        let took = begun.elapsed();
        self.live.end_checkpoint(took);
        let stats = &self.stats;
        match written {
            Ok(bytes) => {
                stats.written.fetch_add(1, Ordering::Relaxed);
                stats.tick.store(tick, Ordering::Relaxed);
                stats.bytes.store(bytes, Ordering::Relaxed);
                stats.took_ms.store(u64::try_from(took.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
                tracing::debug!(tick = time(tick), bytes, ms = took.as_millis(), "a checkpoint is written");
                None
            }
            Err(error) => {
                stats.failed.fetch_add(1, Ordering::Relaxed);
                tracing::warn!("a checkpoint failed: {error}; a restart would go on from the one before it");
                Some(error)
            }
        }
    }
}

/// Returns the checkpoint of a tick. One is under way at a time, so a piece of another tick begins it.
fn of_tick(gathering: &mut Option<Gathering>, tick: Tick) -> &mut Gathering {
    let is_other = gathering.as_ref().is_none_or(|gathering| gathering.tick != tick);
    if is_other {
        *gathering = Some(Gathering {
            tick,
            begun: Instant::now(),
            workers: 0,
            snapshot: Snapshot::default(),
            policy: None,
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
