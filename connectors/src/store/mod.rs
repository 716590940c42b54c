//! The durable state of a job: checkpoints in a store of objects, from which a job goes on.
//!
//! The store is a folder of this machine, or a bucket that `state.url` names, see `remote.rs`.
//!
//! ```text
//! DIR/lock                                    held by the process that uses the folder; a bucket has none
//! DIR/checkpoints/TICK-NONCE/OBJECT           parts, one behind the other: rows of a state, or one record
//! DIR/checkpoints/TICK-NONCE/manifest.json    names every part with its object, place, length and checksum
//! DIR/start                                   what the job began with, before its first checkpoint
//! DIR/geo/                                    the geo databases of ticks that may be made again
//! DIR/inputs/TICK-NONCE                       the inputs of a tick that offsets can't bring back
//! DIR/ledger/                                 the ticks that were committed, see `numbered.rs`
//! DIR/cluster/                                which process leads a generation, see `numbered.rs`
//! DIR/outbox/                                 what alerts are about to send and have sent, see `numbered.rs`
//! ```
//! **A checkpoint exists once its manifest does.** The manifest is written last, after all parts are on disk, and never
//! changes. So a crash at any instant leaves whole checkpoints and, at most, parts without a manifest. Those are deleted
//! later.
//!
//! **Only what changed is written.** A part that is the same as in the checkpoint before stays where it is, and the manifest
//! names the older object. An object stays as long as a checkpoint that is kept has a part in it. So parts that change and
//! go together are best in one object.
//!
//! **It counts if the job's ledger has the tick**, committed by the life with the checkpoint's nonce. Each object is
//! compared with the manifest when it is read. A byte that changed, a part that is shorter or missing, or a manifest of
//! another format is an error that names the object. Then a job goes on from the checkpoint before, and makes the ticks
//! since again.
//!
//! **One process at a time commits ticks.** A folder is locked. In a bucket a process that starts takes over: the claim
//! in the ledger ends the older one before its next commit, and an object of the ledger is written only if it isn't
//! there. [`Store::probe`] makes sure that the bucket can do that.
//!
//! Limits: [`KEPT`] checkpoints stay. A part is held in memory while it is written and read.

#[cfg(test)]
mod faults;
mod http;
mod manifest;
mod numbered;
mod pack;
mod probe;
mod refusal;
mod remote;
mod seal;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::num::NonZeroUsize;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use keytide_config::{Secret, StatePlace};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMode, PutPayload};
use tokio::runtime::Runtime;
use xxhash_rust::xxh3::xxh3_128;

pub use self::manifest::{CheckpointId, CheckpointInfo, Manifest, PartInfo};
pub use self::numbered::NumberedObject;
use self::pack::{pack, unpack};
use self::refusal::{brief, refusal};
use crate::fail_point::fail_point;

/// The number of checkpoints that are kept.
pub const KEPT: usize = 3;
/// The format of checkpoints that this version writes and reads.
const FORMAT: u32 = 5;
const FOLDER: &str = "checkpoints";
const INPUTS: &str = "inputs";
const START: &str = "start";
const GEO: &str = "geo";
const MANIFEST: &str = "manifest.json";

/// The bytes of a checkpoint by the names of their parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    pub info: CheckpointInfo,
    pub parts: BTreeMap<String, CheckpointPart>,
    /// The names of parts that are those of the checkpoint before. A checkpoint that was read has none.
    pub unchanged: Vec<String>,
    /// The parts that other processes have [written](Store::write_parts). A checkpoint that was read has none.
    pub written: BTreeMap<String, PartInfo>,
}

/// A checkpoint that stays, and the manifest that says which objects it needs.
pub type KeptCheckpoint = (CheckpointId, Arc<Manifest>);

/// A part of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckpointPart {
    /// The name of its object, in which other parts may be as well.
    pub object: String,
    /// The bytes, which may come in several pieces when they are written, and are one when they were read.
    pub blocks: Vec<Vec<u8>>,
    /// The number of rows in them.
    pub rows: u64,
}

/// An error of the store of checkpoints.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("state.url: can't {what} {}: {source}", path.display())]
    Folder { what: &'static str, path: PathBuf, source: std::io::Error },
    /// Another process holds the lock.
    #[error("state.url: {} is in use by process {holder}; a job's state belongs to one process at a time", path.display())]
    InUse { path: PathBuf, holder: String },
    /// The error isn't a cause of this one, as answers of stores are long and quote the request.
    #[error("state.url: can't {what} {object}: {}", brief(error))]
    Object { what: &'static str, object: String, error: object_store::Error },
    /// A store of objects can't be used with these settings, or has no such bucket, or refuses this user.
    #[error("state.url: {place}: {reason}")]
    Refused { place: String, reason: String },
    /// The bytes aren't those that were written.
    #[error("state.url: {object} {reason}: it is damaged (in {folder})")]
    Damaged { object: String, folder: String, reason: String },
    #[error(
        "state.url: checkpoint {folder} has format {found}, and this version reads format {FORMAT}; start the version that \
         wrote it, or name another folder to begin anew"
    )]
    Format { folder: String, found: u32 },
}

impl StoreError {
    /// Returns whether a store of objects will refuse the same again until a person does something.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Refused { .. } => true,
            Self::Object { error, .. } => refusal(error).is_some(),
            _ => false,
        }
    }
}

/// The place of a job's checkpoints.
#[derive(Debug)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    runtime: Runtime,
    /// The folder or URL, as messages name it.
    place: String,
    /// True if other processes may write there, as nothing locks them out.
    is_shared: bool,
    /// The lock is released when the file is closed. Only readers have none, and those of a bucket.
    _lock: Option<File>,
}

impl Store {
    /// Opens the folder of a job for this process alone; makes it if it is missing.
    ///
    /// # Errors
    /// If the folder can't be used, or another process uses it.
    pub fn open(root: &FilePath) -> Result<Self, StoreError> {
        let failed = |what| move |source| StoreError::Folder { what, path: root.to_owned(), source };
        std::fs::create_dir_all(root).map_err(failed("make"))?;
        let lock = lock(root)?;
        Self::of_folder(root, Some(lock))
    }

    /// Opens the folder of a job to look at it, whether a process uses it or not.
    ///
    /// # Errors
    /// If there is no such folder.
    pub fn look(root: &FilePath) -> Result<Self, StoreError> {
        Self::of_folder(root, None)
    }

    /// Opens the place of a job for this process: a folder as [`open`](Self::open) does. A bucket can't be locked, nor a
    /// folder that is `shared` by processes, so it is [probed](Self::probe).
    ///
    /// # Errors
    /// If the place can't be used, or another process uses the folder.
    pub fn of_job(
        place: &StatePlace,
        options: &BTreeMap<String, Secret>,
        shared: bool,
    ) -> Result<Self, StoreError> {
        let store = match place {
            StatePlace::Folder(dir) if !shared => return Self::open(dir),
            StatePlace::Folder(dir) => {
                let failed = |source| StoreError::Folder { what: "make", path: dir.clone(), source };
                std::fs::create_dir_all(dir).map_err(failed)?;
                Self { is_shared: true, ..Self::look(dir)? }
            }
            StatePlace::Remote(_) => Self::look_at(place, options)?,
        };
        store.probe()?;
        Ok(store)
    }

    /// Opens the place of a job to look at it. That of a bucket connects nowhere.
    ///
    /// # Errors
    /// If there is no such folder, or the settings of a store of objects can't be used.
    pub fn look_at(place: &StatePlace, options: &BTreeMap<String, Secret>) -> Result<Self, StoreError> {
        let remote = match place {
            StatePlace::Folder(dir) => return Self::look(dir),
            StatePlace::Remote(remote) => remote,
        };
        let place = remote.url().to_owned();
        let objects = match remote::open(remote, options) {
            Ok(objects) => objects,
            Err(error) => return Err(StoreError::Refused { place, reason: remote::reason(&error) }),
        };
        Ok(Self { is_shared: true, ..Self::new(objects, place, None)? })
    }

    fn of_folder(root: &FilePath, lock: Option<File>) -> Result<Self, StoreError> {
        let failed = |what| move |source| StoreError::Folder { what, path: root.to_owned(), source };
        let root_path = root.canonicalize().map_err(failed("open"))?;
        let objects = LocalFileSystem::new_with_prefix(&root_path)
            .map_err(|error| StoreError::Object { what: "open", object: root.display().to_string(), error })?
            .with_fsync(true)
            .with_automatic_cleanup(true);
        Self::new(Arc::new(objects), root_path.display().to_string(), lock)
    }

    fn new(objects: Arc<dyn ObjectStore>, place: String, lock: Option<File>) -> Result<Self, StoreError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|source| StoreError::Folder {
            what: "start a runtime for",
            path: PathBuf::from(&place),
            source,
        })?;
        Ok(Self { objects, runtime, place, is_shared: false, _lock: lock })
    }

    /// Returns the place, for people.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Returns whether another process may write there at the same time.
    pub(crate) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Writes a checkpoint, of which `before` has the parts that are unchanged. `nonce` tells apart what several lives of a
    /// job wrote for one tick. Returns its folder and its manifest.
    ///
    /// # Errors
    /// If an object can't be written; then the checkpoint doesn't exist.
    ///
    /// # Panics
    /// If `before` lacks a part that is unchanged.
    pub fn write(
        &self,
        checkpoint: Checkpoint,
        nonce: u64,
        before: Option<&Manifest>,
    ) -> Result<(CheckpointId, Manifest), StoreError> {
        let Checkpoint { info, parts, unchanged, written } = checkpoint;
        let id = CheckpointId { tick: info.tick, nonce };
        let folder = id.name();
        let mut manifest = Manifest { format: FORMAT, info, parts: written, checksum: String::new() };
        for name in unchanged {
            let part = before.and_then(|before| before.parts.get(&name)).cloned();
            let part = part.unwrap_or_else(|| panic!("part {name} isn't in the checkpoint before"));
            manifest.parts.insert(name, part);
        }
        manifest.parts.extend(self.write_parts(id, 0, parts)?);
        manifest.checksum = manifest.sum(&folder);
        let json = serde_json::to_vec_pretty(&manifest).expect("plain data can be written to memory");
        fail_point("manifest-before");
        self.put(&format!("{FOLDER}/{folder}/{MANIFEST}"), json.into())?;
        fail_point("manifest-after");
        Ok((id, manifest))
    }

    /// Writes parts of a checkpoint, which another process names in the manifest. `process` tells the objects of processes
    /// apart. Returns where each part is.
    ///
    /// # Errors
    /// If an object can't be written.
    ///
    /// # Panics
    /// If memory can't be written to.
    pub fn write_parts(
        &self,
        of: CheckpointId,
        process: usize,
        parts: BTreeMap<String, CheckpointPart>,
    ) -> Result<BTreeMap<String, PartInfo>, StoreError> {
        let folder = of.name();
        let mut infos = BTreeMap::new();
        let mut objects: BTreeMap<String, Vec<Bytes>> = BTreeMap::new();
        for (name, part) in parts {
            let object = match process {
                0 => format!("{folder}/{}", part.object),
                process => format!("{folder}/{}.{process}", part.object),
            };
            let content = objects.entry(object.clone()).or_default();
            let offset = content.iter().map(|frame| frame.len() as u64).sum();
            let (rows, unpacked_bytes) = (part.rows, part.bytes());
            let frame = pack(&part.blocks).expect("memory can be written to");
            let (bytes, checksum) = (frame.len() as u64, digest(&frame));
            infos.insert(name, PartInfo { object, offset, bytes, unpacked_bytes, rows, checksum });
            content.push(Bytes::from(frame));
        }
        fail_point("checkpoint-before");
        for (object, content) in objects {
            self.put(&format!("{FOLDER}/{object}"), content.into_iter().collect())?;
            fail_point("part-after");
        }
        Ok(infos)
    }

    /// Reads the checkpoint of a folder, as its manifest says. Each core reads objects of its own.
    ///
    /// # Errors
    /// If it is damaged or can't be read.
    pub fn read(&self, folder: CheckpointId, manifest: Manifest) -> Result<Checkpoint, StoreError> {
        let folder = folder.name();
        let mut by_object: BTreeMap<String, Vec<(String, PartInfo)>> = BTreeMap::new();
        for (name, info) in manifest.parts {
            by_object.entry(info.object.clone()).or_default().push((name, info));
        }
        let left = Mutex::new(by_object.into_iter());
        let read_some = || {
            let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
            let read = |(object, parts): (String, _)| self.read_object(&folder, &object, parts);
            std::iter::from_fn(|| next().map(read)).collect::<Result<Vec<_>, _>>()
        };
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let found: Vec<Result<Vec<_>, _>> = thread::scope(|scope| {
            let threads: Vec<_> = (1..cores).map(|_| scope.spawn(read_some)).collect();
            let own = read_some();
            let others = threads.into_iter().map(|thread| thread.join().expect("reading doesn't panic"));
            others.chain([own]).collect()
        });
        let mut parts = BTreeMap::new();
        for objects in found {
            parts.extend(objects?.into_iter().flatten());
        }
        Ok(Checkpoint { info: manifest.info, parts, ..Checkpoint::default() })
    }

    /// Reads the parts of a checkpoint that are in one object.
    fn read_object(
        &self,
        folder: &str,
        object: &str,
        parts: Vec<(String, PartInfo)>,
    ) -> Result<Vec<(String, CheckpointPart)>, StoreError> {
        let found = self.get_if_present(&format!("{FOLDER}/{object}"))?;
        let content = found.ok_or_else(|| self.damaged(folder, object, "is missing".to_owned()))?;
        let object_name = object.rsplit_once('/').map_or(object, |(_, name)| name);
        let read = |(name, info): (String, PartInfo)| {
            let damaged = |reason: &str| self.damaged(folder, object, format!("{reason}, at part {name}"));
            let start = usize::try_from(info.offset).ok();
            let end = usize::try_from(info.bytes).ok().zip(start);
            let end = end.and_then(|(bytes, start)| start.checked_add(bytes));
            let bytes = start.zip(end).and_then(|(start, end)| content.get(start..end));
            let frame = bytes.ok_or_else(|| damaged(&format!("has only {} bytes", content.len())))?;
            if digest(frame) != info.checksum {
                return Err(damaged("has another checksum than its manifest says"));
            }
            let unpacked = unpack(frame, info.unpacked_bytes);
            let bytes = unpacked.map_err(|error| damaged(&format!("can't be unpacked ({error})")))?;
            let part =
                CheckpointPart { object: object_name.to_owned(), blocks: vec![bytes], rows: info.rows };
            Ok((name, part))
        };
        parts.into_iter().map(read).collect()
    }

    /// Returns the manifest in a folder; `None` if a crash came before it was written.
    ///
    /// # Errors
    /// If it is damaged, of another format, or can't be read.
    pub fn manifest(&self, folder: CheckpointId) -> Result<Option<Manifest>, StoreError> {
        let folder = folder.name();
        let Some(json) = self.get_if_present(&format!("{FOLDER}/{folder}/{MANIFEST}"))? else {
            return Ok(None);
        };
        let damaged = |error| {
            self.damaged(&folder, &format!("{folder}/{MANIFEST}"), format!("can't be read ({error})"))
        };
        let value: serde_json::Value = serde_json::from_slice(&json).map_err(damaged)?;
        let format = value.get("format").and_then(serde_json::Value::as_u64).unwrap_or(0);
        if format != u64::from(FORMAT) {
            let found = u32::try_from(format).unwrap_or(u32::MAX);
            return Err(StoreError::Format { folder, found });
        }
        let manifest: Manifest = serde_json::from_value(value).map_err(damaged)?;
        if manifest.checksum != manifest.sum(&folder) {
            let reason = "has another checksum than it was written with".to_owned();
            return Err(self.damaged(&folder, MANIFEST, reason));
        }
        Ok(Some(manifest))
    }

    /// Deletes all checkpoints but those that count and are `kept`, and those that will count and are `written`. Objects go
    /// that only others have parts in, and the inputs of ticks up to the oldest that is kept.
    ///
    /// # Errors
    /// If an object can't be deleted.
    pub fn retain(&self, kept: &[KeptCheckpoint], written: &[KeptCheckpoint]) -> Result<(), StoreError> {
        let newest = kept.iter().map(|(id, _)| id.tick).max();
        let manifests = kept.iter().chain(written).map(|(_, manifest)| manifest);
        let needed: HashSet<&str> =
            manifests.flat_map(|manifest| manifest.parts.values().map(|part| &*part.object)).collect();
        // Manifests go first, so that no half of a checkpoint passes for a whole one.
        let (manifests, others): (Vec<_>, Vec<_>) = self
            .checkpoint_objects()?
            .into_iter()
            .partition(|(_, object)| object.filename() == Some(MANIFEST));
        for (folder, object) in manifests.into_iter().chain(others) {
            // What is newer may be a younger life's, if this one was superseded and doesn't know it yet.
            let is_kept = kept.iter().any(|(id, _)| *id == folder);
            let name = object.filename().unwrap_or_default();
            if is_kept
                || newest.is_some_and(|newest| folder.tick > newest)
                || needed.contains(&*format!("{}/{name}", folder.name()))
            {
                continue;
            }
            fail_point("delete-before");
            self.delete(&object)?;
        }
        let Some(oldest) = kept.iter().map(|(id, _)| id.tick).min() else { return Ok(()) };
        for object in self.list(INPUTS)? {
            let folder = object.filename().and_then(CheckpointId::named);
            if folder.is_some_and(|of| of.tick <= oldest) {
                self.delete(&object)?;
            }
        }
        Ok(())
    }

    /// Returns the folders of checkpoints that have a manifest, in the order of their ticks.
    ///
    /// # Errors
    /// If they can't be listed.
    pub fn folders(&self) -> Result<Vec<CheckpointId>, StoreError> {
        let objects = self.checkpoint_objects()?.into_iter();
        let manifests = objects.filter(|(_, object)| object.filename() == Some(MANIFEST));
        let mut folders: Vec<CheckpointId> = manifests.map(|(folder, _)| folder).collect();
        folders.sort_unstable();
        Ok(folders)
    }

    /// Returns the objects of all checkpoints' folders.
    fn checkpoint_objects(&self) -> Result<Vec<(CheckpointId, Path)>, StoreError> {
        let prefix = Path::from(FOLDER);
        let listed = self.objects.list(Some(&prefix)).try_collect::<Vec<_>>();
        let listed = self.runtime.block_on(listed).map_err(|error| failed("list", FOLDER, error))?;
        let of_folder = |object: ObjectMeta| {
            let mut names = object.location.prefix_match(&prefix)?;
            let folder = CheckpointId::named(names.next()?.as_ref())?;
            (names.count() == 1).then_some((folder, object.location))
        };
        Ok(listed.into_iter().filter_map(of_folder).collect())
    }

    /// Writes the inputs of a tick that offsets can't bring back, and returns their name. A life that writes them again
    /// finds them.
    ///
    /// # Errors
    /// If the object can't be written.
    pub fn write_inputs(&self, of: CheckpointId, blocks: &[Bytes]) -> Result<String, StoreError> {
        let name = format!("{INPUTS}/{}", of.name());
        self.put_sealed(&name, blocks)?;
        Ok(name)
    }

    /// Reads the inputs of a tick by their name.
    ///
    /// # Errors
    /// If the object can't be read, is damaged or is missing.
    pub fn read_inputs(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        let missing = || {
            let reason = "is missing".to_owned();
            StoreError::Damaged { object: name.to_owned(), folder: self.place.clone(), reason }
        };
        self.get_sealed(name)?.ok_or_else(missing)
    }

    /// Stores a copy of a geo database under a name that its content has, unless it is there and sound.
    ///
    /// # Errors
    /// If the object can't be read or written.
    pub(crate) fn put_geo(&self, name: &str, bytes: Bytes) -> Result<(), StoreError> {
        match self.get_geo(name) {
            Err(StoreError::Damaged { .. }) => self.put(&format!("{GEO}/{name}"), bytes.into()),
            found => found.map(drop),
        }
    }

    /// Reads a copy of a geo database.
    ///
    /// # Errors
    /// If it is gone, is damaged, or can't be read.
    pub(crate) fn get_geo(&self, name: &str) -> Result<Vec<u8>, StoreError> {
        let found = self.get_if_present(&format!("{GEO}/{name}"))?;
        let damaged = |reason: &str| {
            let folder = format!("{}/{GEO}", self.place);
            StoreError::Damaged { object: format!("{GEO}/{name}"), folder, reason: reason.to_owned() }
        };
        let bytes = found.ok_or_else(|| damaged("is missing"))?;
        if geo_name(&bytes) != name {
            return Err(damaged("has another content than its name says"));
        }
        Ok(bytes)
    }

    /// Deletes the copies of geo databases that aren't `needed`.
    ///
    /// # Errors
    /// If they can't be listed, or one not deleted.
    pub(crate) fn retain_geo(&self, is_needed: impl Fn(&str) -> bool) -> Result<(), StoreError> {
        for object in self.list(GEO)? {
            if !object.filename().is_some_and(&is_needed) {
                self.delete(&object)?;
            }
        }
        Ok(())
    }

    /// Writes what the job begins with, unless an earlier life did.
    ///
    /// # Errors
    /// If the object can't be written.
    pub fn write_start(&self, bytes: Vec<u8>) -> Result<(), StoreError> {
        self.put_sealed(START, &[bytes.into()]).map(drop)
    }

    /// Reads what the job began with, if it was written.
    ///
    /// # Errors
    /// If the object can't be read or is damaged.
    pub fn read_start(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.get_sealed(START)
    }

    /// Deletes an object, if it is there.
    fn delete_if_present(&self, object: &str) -> Result<(), StoreError> {
        match self.delete(&Path::from(object)) {
            Err(StoreError::Object { error: object_store::Error::NotFound { .. }, .. }) => Ok(()),
            deleted => deleted,
        }
    }

    fn delete(&self, object: &Path) -> Result<(), StoreError> {
        let deleted = self.runtime.block_on(self.objects.delete(object));
        deleted.map_err(|error| failed("delete", object.as_ref(), error))
    }

    /// Returns the error of an object below `checkpoints/` that the checkpoint in `folder` needs.
    fn damaged(&self, folder: &str, object: &str, reason: String) -> StoreError {
        let object = format!("{FOLDER}/{object}");
        let folder = format!("{}/{FOLDER}/{folder}", self.place);
        StoreError::Damaged { object, folder, reason }
    }

    fn list(&self, folder: &str) -> Result<Vec<Path>, StoreError> {
        let listed = self.runtime.block_on(self.objects.list_with_delimiter(Some(&Path::from(folder))));
        let listed = listed.map_err(|error| failed("list", folder, error))?;
        Ok(listed.objects.into_iter().map(|object| object.location).collect())
    }

    /// Writes an object, in place of one of that name.
    fn put(&self, object: &str, payload: PutPayload) -> Result<(), StoreError> {
        self.put_as(object, payload, PutMode::Overwrite)
    }

    /// Writes an object; returns false if it was there already. That may be its own, if an answer was lost.
    fn put_new(&self, object: &str, payload: PutPayload) -> Result<bool, StoreError> {
        match self.put_as(object, payload, PutMode::Create) {
            Ok(()) => Ok(true),
            Err(StoreError::Object { error: object_store::Error::AlreadyExists { .. }, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn put_as(&self, object: &str, payload: PutPayload, mode: PutMode) -> Result<(), StoreError> {
        let path = Path::from(object);
        let put = self.objects.put_opts(&path, payload, mode.into());
        self.runtime.block_on(put).map(drop).map_err(|error| failed("write", object, error))
    }

    /// Reads an object, if it is there.
    fn get_if_present(&self, object: &str) -> Result<Option<Vec<u8>>, StoreError> {
        match self.get(object) {
            Err(StoreError::Object { error: object_store::Error::NotFound { .. }, .. }) => Ok(None),
            read => read.map(Some),
        }
    }

    fn get(&self, object: &str) -> Result<Vec<u8>, StoreError> {
        let path = Path::from(object);
        let get = async { self.objects.get(&path).await?.bytes().await };
        self.runtime.block_on(get).map(Into::into).map_err(|error| failed("read", object, error))
    }
}

impl CheckpointPart {
    /// Returns the number of bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.blocks.iter().map(|block| block.len() as u64).sum()
    }
}

/// Returns the name of a copy of a geo database, which is the digest of its content.
pub(crate) fn geo_name(bytes: &[u8]) -> String {
    digest(bytes)
}

/// Returns the XXH3 (128 bits) of bytes, in hexadecimal digits.
fn digest(bytes: &[u8]) -> String {
    format!("{:032x}", xxh3_128(bytes))
}

fn failed(what: &'static str, object: &str, error: object_store::Error) -> StoreError {
    StoreError::Object { what, object: object.to_owned(), error }
}

/// Takes the lock of a folder, and writes this process into it.
fn lock(root: &FilePath) -> Result<File, StoreError> {
    let path = root.join("lock");
    let failed = |source| StoreError::Folder { what: "lock", path: path.clone(), source };
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = (&file).take(20).read_to_string(&mut holder);
            let holder = holder.trim().to_owned();
            return Err(StoreError::InUse { path: root.to_owned(), holder });
        }
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
    Ok(file)
}
