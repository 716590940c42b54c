//! With what a live job goes on: a checkpoint, and the ticks that were committed since.
//!
//! ```text
//! ledger ──► History ──► the newest checkpoint whose tick is in it ──► states, input, tables, actions at that tick
//!                   └──► the ticks behind it ──► their cuts, and the changes of tables in them
//! ```
//! A checkpoint whose tick isn't in the ledger was never committed: what it holds was never published, and is made anew.
//! One that is damaged is passed over, as long as an older one and the ticks since are there.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context as _;
use keytide_config::{JobConfig, State};
use keytide_connectors::ledger::{History, TickRecord};
use keytide_connectors::live::{InputMemory, PartitionMemory, RecordedInputs, TICKS_PUBLISHED, TickInputs};
use keytide_connectors::sink::FilesMemory;
use keytide_connectors::sink::encode::time;
use keytide_connectors::store::{
    Checkpoint, CheckpointId, CheckpointInfo, CheckpointPart, Manifest, Store, StoreError,
};
use keytide_connectors::tables::{TablesMemory, TablesRead};
use keytide_dataflow::model::Tick;
use keytide_dataflow::state::{PartKey, STATE_VERSION, Snapshot, StateRows};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::checkpoint::{ACTIONS, FILES, INPUT, OUTBOX, SHELF, STATE, Stored, TABLES};
use super::notify::AlertMemory;
use super::program::program;
use crate::exit::{Exit, failure};

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
    let InputMemory { tick, ticker, partitions, .. } = decode(INPUT, &bytes)?;
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

/// Everything with which a job goes on; that of a job that begins anew is empty.
#[derive(Default)]
pub(super) struct Restored {
    /// The checkpoint and those before it that count, the oldest first.
    pub(super) checkpoints: Vec<Stored>,
    /// The checkpoint whose states, input and memory these are.
    pub(super) checkpoint: Option<CheckpointId>,
    /// The names of the decoders of all of them.
    pub(super) kept_decoders: Vec<String>,
    /// How far the input was at the checkpoint.
    pub(super) input: Option<InputMemory>,
    /// What was decided and sent, and what waited to be sent.
    pub(super) alerts: AlertMemory,
    /// Where the sink's files were at the checkpoint, or before the job's first tick.
    pub(super) files: Option<FilesMemory>,
    /// The rows from which requests were answered, encoded.
    pub(super) shelf: Option<Vec<u8>>,
    pub(super) snapshot: Option<Arc<Snapshot>>,
    /// The manifest of the checkpoint, if the states' parts are those that this life would write.
    pub(super) before: Option<Arc<Manifest>>,
    /// The ticks that were committed since the checkpoint, in their order.
    pub(super) replay: Vec<TickRecord>,
    /// The changes of tables in those ticks.
    pub(super) inputs: BTreeMap<Tick, TablesRead>,
    /// The name of the decoders at the checkpoint, or at the job's beginning; `None` for a job that begins now.
    pub(super) decoders: Option<String>,
    /// The names of those that came at the end of some of those ticks.
    pub(super) replaced: BTreeMap<Tick, String>,
    /// The rows of tables after those ticks.
    pub(super) tables: TablesMemory,
}

impl Restored {
    /// Returns the number of the last tick that is in the checkpoint; 0 without one.
    pub(super) fn number(&self) -> u64 {
        self.input.as_ref().map_or(0, |input| input.number)
    }
}

/// Opens the store of a job for this process alone.
///
/// # Errors
/// If it can't be used.
pub(super) fn open(state: &State) -> anyhow::Result<Arc<Store>> {
    Store::of_job(&state.place, &state.options, state.shared).map(Arc::new).map_err(refused)
}

/// Reads with what a job goes on, of its store and its ledger. `claim` claims the ledger for this life. That comes before
/// the checkpoint is read, since an earlier life waits for the claim some seconds only; and after a ledger that was lost
/// is noticed, since a claim would hide that. The job has so many `workers` in all processes.
///
/// # Errors
/// If the ledger was lost, if no checkpoint counts, or if this program can't read one.
pub(super) fn restore(
    store: &Store,
    state: &State,
    config: &JobConfig,
    history: History,
    workers: usize,
    claim: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Restored> {
    let started = Instant::now();
    let dir = &state.place;
    let folders = store.folders().map_err(refused)?;
    let History { ticks, last_claim } = history;
    // 1. A job that has committed nothing begins anew.
    let Some(first) = ticks.first() else {
        // A life that committed nothing has a claim, and no checkpoint but of its first ticks.
        let is_of_first = |id: &CheckpointId| {
            store
                .manifest(*id)
                .is_ok_and(|manifest| manifest.is_none_or(|of| of.info.number <= TICKS_PUBLISHED))
        };
        let has_begun = last_claim.is_none() && store.read_start().map_err(refused)?.is_some();
        if has_begun || last_claim.is_none() && !folders.is_empty() || !folders.iter().all(is_of_first) {
            return Err(fatal(format!(
                "state.url: {dir} has a state, and the ledger knows none of its ticks: was the topic deleted or made \
                 anew, or were `delivery` or `prefix` changed? Bring it back, or begin anew with another folder and another \
                 prefix"
            )));
        }
        claim()?;
        tracing::info!(state = %dir, "there is nothing to go on from: the job begins anew");
        return begin(store);
    };
    // 2. The newest checkpoint that counts and is sound.
    let (mut restored, mut damage) = (None, None);
    let counts = |id: CheckpointId| {
        let of_tick = ticks.binary_search_by_key(&id.tick, |record| record.tick);
        of_tick.is_ok_and(|at| ticks[at].nonce == id.nonce)
    };
    let mut candidates: Vec<CheckpointId> = folders.into_iter().filter(|id| counts(*id)).collect();
    claim()?;
    while let Some(&id) = candidates.last() {
        match read(store, id, state, config, workers) {
            Ok(Some(found)) => {
                restored = Some(found);
                break;
            }
            Ok(None) => {}
            Err(ReadError::Damaged(error)) => {
                tracing::warn!("{error}; the job goes on from the checkpoint before it");
                damage.get_or_insert(error);
            }
            Err(ReadError::Final(error)) => return Err(error),
        }
        candidates.pop();
    }
    let mut restored = match (restored, damage) {
        (Some(restored), _) => restored,
        // All ticks that there ever were can be made again.
        (None, _) if first.number == 1 => begin(store)?,
        (None, Some(error)) => return Err(failure(Exit::Fatal, error)),
        (None, None) => {
            return Err(fatal(format!(
                "state.url: {dir} has no checkpoint of a tick that the ledger knows (from number {}, {}): was the folder \
                 emptied, or is it another job's? Bring it back, or begin anew with another folder and another prefix",
                first.number,
                time(first.tick)
            )));
        }
    };
    // Older ones that can't be read help no start.
    let stored = |id| Some(Stored { id, manifest: Arc::new(store.manifest(id).ok()??), outbox: None });
    restored.checkpoints = candidates.into_iter().filter_map(stored).collect();
    let manifests = restored.checkpoints.iter().map(|stored| &stored.manifest);
    restored.kept_decoders = manifests.map(|manifest| manifest.info.decoders.clone()).collect();
    if let Some(newest) = restored.checkpoints.last_mut() {
        newest.outbox = Some(restored.alerts.outbox.position());
    }
    // 3. The ticks since, and what tables changed in them.
    restored.replay = ticks.into_iter().filter(|record| record.number > restored.number()).collect();
    for record in &restored.replay {
        let Some(name) = &record.inputs else { continue };
        let bytes = store
            .read_inputs(name)
            .with_context(|| format!("the changes of tables in tick number {} are needed", record.number))
            .map_err(|error| failure(Exit::Fatal, error))?;
        let read = TickInputs::read(&bytes).map_err(|_| {
            fatal(format!(
                "state.url: object {name} can't be read: it is damaged, or another version wrote it"
            ))
        })?;
        let RecordedInputs { decoders, tables } = read;
        restored.inputs.insert(record.tick, tables);
        restored.replaced.extend(decoders.map(|name| (record.tick, name)));
    }
    restored.tables.apply(restored.inputs.values());
    tracing::info!(
        checkpoint = restored.input.as_ref().map(|input| time(input.tick)),
        rows = restored
            .snapshot
            .iter()
            .flat_map(|snapshot| snapshot.parts.values().flatten())
            .map(StateRows::len)
            .sum::<u64>(),
        ticks = restored.replay.len(),
        ms = started.elapsed().as_millis(),
        "goes on from a checkpoint, and makes the ticks since again"
    );
    Ok(restored)
}

/// Returns with what a job begins. A life that died before its first checkpoint may have written to files.
fn begin(store: &Store) -> anyhow::Result<Restored> {
    let Some(bytes) = store.read_start().map_err(refused)? else { return Ok(Restored::default()) };
    let Beginning { files, decoders } = decode("start", &bytes)?;
    Ok(Restored { files, decoders: Some(decoders), ..Restored::default() })
}

/// With what a job begins, before its first checkpoint.
#[derive(Serialize, Deserialize)]
pub(super) struct Beginning {
    /// Where the sink's files are.
    pub(super) files: Option<FilesMemory>,
    /// The name of the decoders.
    pub(super) decoders: String,
}

impl Beginning {
    /// Stores it, unless an earlier life did.
    ///
    /// # Errors
    /// If the object can't be written.
    pub(super) fn write(&self, store: &Store) -> anyhow::Result<()> {
        let bytes = postcard::to_stdvec(self).expect("plain data can be written to memory");
        store.write_start(bytes).map_err(refused)
    }
}

/// Why a checkpoint can't be used.
enum ReadError {
    Damaged(StoreError),
    Final(anyhow::Error),
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Damaged { .. } => Self::Damaged(error),
            error => Self::Final(refused(error)),
        }
    }
}

/// Reads a checkpoint; `None` if a crash came before its manifest.
fn read(
    store: &Store,
    id: CheckpointId,
    state: &State,
    config: &JobConfig,
    workers: usize,
) -> Result<Option<Restored>, ReadError> {
    let Some(manifest) = store.manifest(id)? else { return Ok(None) };
    accept(&manifest.info, state, config).map_err(ReadError::Final)?;
    let mut parts = store.read(id, manifest.clone())?.parts;
    let snapshot = take_snapshot(&mut parts, manifest.info.workers).map_err(ReadError::Final)?;
    // Parts are of a worker each, so another number of workers deals all rows anew.
    let before = (snapshot.workers == workers).then(|| Arc::new(manifest));
    let files = parts.remove(FILES).map(|part| decode(FILES, &part.blocks.concat())).transpose();
    let shelf = parts.remove(SHELF).map(|part| part.blocks.concat());
    let mut part = |name: &str| parts.remove(name).unwrap_or_default().blocks.concat();
    let input: InputMemory = decode(INPUT, &part(INPUT)).map_err(ReadError::Final)?;
    Ok(Some(Restored {
        checkpoint: Some(id),
        decoders: Some(input.decoders.clone()),
        input: Some(input),
        tables: decode(TABLES, &part(TABLES)).map_err(ReadError::Final)?,
        alerts: AlertMemory {
            actions: decode(ACTIONS, &part(ACTIONS)).map_err(ReadError::Final)?,
            outbox: decode(OUTBOX, &part(OUTBOX)).map_err(ReadError::Final)?,
        },
        files: files.map_err(ReadError::Final)?,
        shelf,
        snapshot: Some(Arc::new(snapshot)),
        before,
        ..Restored::default()
    }))
}

/// Takes the states out of the parts of a checkpoint of so many workers.
fn take_snapshot(parts: &mut BTreeMap<String, CheckpointPart>, workers: usize) -> anyhow::Result<Snapshot> {
    let of_states = parts.extract_if(.., |name, _| name.starts_with(STATE));
    let mut snapshot = Snapshot { workers, ..Snapshot::default() };
    for (name, CheckpointPart { blocks, rows, .. }) in of_states {
        let key = PartKey::named(&name[STATE.len()..]).ok_or_else(|| {
            fatal(format!(
                "state.url: the checkpoint has a part {name} that this version doesn't know: another version wrote it"
            ))
        })?;
        snapshot.parts.insert(key, Some(StateRows::from_blocks(blocks, rows)));
    }
    Ok(snapshot)
}

/// Reads the states of a checkpoint, for the workers of a follower: from `first` on as many as it has, of `all`. If the
/// checkpoint is of as many workers, only their parts are read.
///
/// # Errors
/// If the checkpoint can't be read. The leader has read it, so it is there and sound.
pub(super) fn states(
    store: &Store,
    id: CheckpointId,
    own: Range<usize>,
    all: usize,
) -> anyhow::Result<Arc<Snapshot>> {
    let manifest = store.manifest(id).map_err(refused)?;
    let mut manifest = manifest.ok_or_else(|| {
        failure(Exit::Transient, anyhow::anyhow!("state.url: the checkpoint that the leader named is gone"))
    })?;
    let workers = manifest.info.workers;
    manifest.parts.retain(|name, _| {
        let key = name.strip_prefix(STATE).map(PartKey::named);
        key.is_some_and(|key| workers != all || key.is_none_or(|key| own.contains(&key.worker)))
    });
    let mut parts = store.read(id, manifest).map_err(refused)?.parts;
    take_snapshot(&mut parts, workers).map(Arc::new)
}

/// Refuses a checkpoint that this job or this program can't go on from.
fn accept(info: &CheckpointInfo, state: &State, config: &JobConfig) -> anyhow::Result<()> {
    if info.job != config.job.name {
        let message = format!(
            "state.url: {} has the state of the job \"{}\", and this one is \"{}\"; name another folder, or the same job",
            state.place, info.job, config.job.name
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
    if info.program != program() {
        tracing::warn!(
            earlier = info.program,
            "another program made the checkpoint: what is counted from now on follows this one and its time zones, what was \
             counted before stays"
        );
    }
    if info.config != config.fingerprint() {
        tracing::warn!(
            "the configuration isn't the one that the checkpoint was made with: what is counted from now on follows the \
             new one, what was counted before stays"
        );
    }
    Ok(())
}

fn decode<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> anyhow::Result<T> {
    postcard::from_bytes(bytes)
        .with_context(|| {
            format!("state.url: the part {name} of the checkpoint can't be read: another version wrote it")
        })
        .map_err(|error| failure(Exit::Fatal, error))
}

fn fatal(message: String) -> anyhow::Error {
    failure(Exit::Fatal, anyhow::anyhow!(message))
}

fn refused(error: StoreError) -> anyhow::Error {
    failure(exit_of(&error), error)
}

/// Returns the exit code of an error at the start.
#[must_use]
pub fn exit_of(error: &StoreError) -> Exit {
    match error {
        StoreError::Folder { .. } | StoreError::Format { .. } | StoreError::Refused { .. } => Exit::Usage,
        error if error.is_refusal() => Exit::Usage,
        StoreError::InUse { .. } | StoreError::Object { .. } => Exit::Transient,
        StoreError::Damaged { .. } => Exit::Fatal,
    }
}
