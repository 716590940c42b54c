//! The durable state of a job: checkpoints in a store of objects, from which a job goes on.
//!
//! ```text
//! DIR/lock                                    held by the process that uses the folder
//! DIR/checkpoints/TICK-NONCE/PART             bytes as they were encoded: rows of a state, or one record
//! DIR/checkpoints/TICK-NONCE/manifest.json    names every part with its length and checksum
//! DIR/ledger/                                 the ticks that were committed, see `ledger.rs`
//! ```
//! **A checkpoint exists once its manifest does.** The manifest is written last, after all parts are on disk, and never
//! changes. So a crash at any instant leaves whole checkpoints and, at most, parts without a manifest. Those are deleted
//! after the next checkpoint.
//!
//! The newest checkpoint is the one with the latest tick. Each object is compared with the manifest when it is read: a
//! byte that changed, a part that is shorter or missing, or a manifest of another format ends the start of the job with
//! an error that names the object. A job never goes on from an older checkpoint by itself, because it would publish
//! again what came since.
//!
//! Limits: [`KEPT`] checkpoints stay. A part is held in memory while it is written and read.

mod ledger;
mod manifest;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::{Path as FilePath, PathBuf};

use bytes::Bytes;
use keytide_dataflow::model::Tick;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore as _, ObjectStoreExt as _, PutMode, PutPayload};
use tokio::runtime::Runtime;
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

pub(crate) use self::ledger::LedgerObject;
pub use self::manifest::{CheckpointInfo, Manifest, PartInfo};

/// The number of checkpoints that are kept.
pub const KEPT: usize = 3;
/// The format of checkpoints that this version writes and reads.
const FORMAT: u32 = 1;
const FOLDER: &str = "checkpoints";
const MANIFEST: &str = "manifest.json";

/// The bytes of a checkpoint by the names of their parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    pub info: CheckpointInfo,
    pub parts: BTreeMap<String, CheckpointPart>,
}

/// A part of a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckpointPart {
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
    #[error("state.url: can't {what} {object}: {source}")]
    Object { what: &'static str, object: String, source: object_store::Error },
    /// The bytes aren't those that were written.
    #[error(
        "state.url: {object} of the newest checkpoint {reason}: it is damaged. To go on from the one before it, whose later \
         results are published again, delete the folder {folder}"
    )]
    Damaged { object: String, folder: String, reason: String },
    #[error(
        "state.url: checkpoint {folder} has format {found}, and this version reads format {FORMAT}; start the version that \
         wrote it, or name another folder to begin anew"
    )]
    Format { folder: String, found: u32 },
}

/// The folder of a job's checkpoints.
#[derive(Debug)]
pub struct Store {
    objects: LocalFileSystem,
    runtime: Runtime,
    root: PathBuf,
    /// The lock is released when the file is closed. Only readers have none.
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
        Self::with_lock(root, Some(lock))
    }

    /// Opens the folder of a job to look at it, whether a process uses it or not.
    ///
    /// # Errors
    /// If there is no such folder.
    pub fn look(root: &FilePath) -> Result<Self, StoreError> {
        Self::with_lock(root, None)
    }

    fn with_lock(root: &FilePath, lock: Option<File>) -> Result<Self, StoreError> {
        let failed = |what| move |source| StoreError::Folder { what, path: root.to_owned(), source };
        let root_path = root.canonicalize().map_err(failed("open"))?;
        let objects = LocalFileSystem::new_with_prefix(&root_path)
            .map_err(|source| StoreError::Object {
                what: "open",
                object: root.display().to_string(),
                source,
            })?
            .with_fsync(true)
            .with_automatic_cleanup(true);
        let runtime =
            tokio::runtime::Builder::new_current_thread().build().map_err(failed("start a runtime for"))?;
        Ok(Self { objects, runtime, root: root_path, _lock: lock })
    }

    /// Writes a checkpoint, and then deletes those beyond [`KEPT`] and what crashes left. `nonce` tells apart what
    /// several lives of a job wrote for one tick. Returns the bytes of the checkpoint.
    ///
    /// # Errors
    /// If an object can't be written; then the checkpoint doesn't exist. Objects that can't be deleted are an error,
    /// too.
    pub fn write(&self, checkpoint: Checkpoint, nonce: u64) -> Result<u64, StoreError> {
        let Checkpoint { info, parts } = checkpoint;
        let folder = format!("{:016}-{nonce:016x}", info.tick);
        let mut manifest = Manifest { format: FORMAT, info, parts: BTreeMap::new() };
        let mut bytes = 0;
        for (name, part) in parts {
            let info = PartInfo { bytes: part.bytes(), rows: part.rows, checksum: part.checksum() };
            bytes += info.bytes;
            let payload: PutPayload = part.blocks.into_iter().map(Bytes::from).collect();
            self.put(&format!("{FOLDER}/{folder}/{name}"), payload)?;
            manifest.parts.insert(name, info);
        }
        let json = serde_json::to_vec_pretty(&manifest).expect("plain data can be written to memory");
        self.put(&format!("{FOLDER}/{folder}/{MANIFEST}"), json.into())?;
        self.clean(&folder)?;
        Ok(bytes)
    }

    /// Reads the newest checkpoint, if there is one.
    ///
    /// # Errors
    /// If it is damaged, of another format, or can't be read.
    pub fn newest(&self) -> Result<Option<Checkpoint>, StoreError> {
        self.manifests()?.pop().map(|(folder, manifest)| self.read(&folder, manifest)).transpose()
    }

    /// Reads the checkpoint of a folder, as its manifest says.
    ///
    /// # Errors
    /// If it is damaged or can't be read.
    pub fn read(&self, folder: &str, manifest: Manifest) -> Result<Checkpoint, StoreError> {
        let mut parts = BTreeMap::new();
        for (name, info) in manifest.parts {
            let damaged = |reason: &str| self.damaged(folder, &name, reason.to_owned());
            let bytes = match self.get(&format!("{FOLDER}/{folder}/{name}")) {
                Err(StoreError::Object { source: object_store::Error::NotFound { .. }, .. }) => {
                    return Err(damaged("is missing"));
                }
                read => read?,
            };
            let part = CheckpointPart { blocks: vec![bytes], rows: info.rows };
            if part.bytes() != info.bytes {
                return Err(damaged(&format!("has {} bytes instead of {}", part.bytes(), info.bytes)));
            }
            if part.checksum() != info.checksum {
                return Err(damaged("has another checksum than its manifest says"));
            }
            parts.insert(name, part);
        }
        Ok(Checkpoint { info: manifest.info, parts })
    }

    /// Returns the folders and manifests of all checkpoints, the newest last.
    ///
    /// # Errors
    /// If one of them can't be read.
    pub fn manifests(&self) -> Result<Vec<(String, Manifest)>, StoreError> {
        let mut found = Vec::new();
        for folder in self.folders()? {
            let json = match self.get(&format!("{FOLDER}/{folder}/{MANIFEST}")) {
                // A crash came before the manifest.
                Err(StoreError::Object { source: object_store::Error::NotFound { .. }, .. }) => continue,
                read => read?,
            };
            let damaged = |error| self.damaged(&folder, MANIFEST, format!("can't be read ({error})"));
            let value: serde_json::Value = serde_json::from_slice(&json).map_err(damaged)?;
            let format = value.get("format").and_then(serde_json::Value::as_u64).unwrap_or(0);
            if format != u64::from(FORMAT) {
                let found = u32::try_from(format).unwrap_or(u32::MAX);
                return Err(StoreError::Format { folder, found });
            }
            let manifest: Manifest = serde_json::from_value(value).map_err(damaged)?;
            found.push((folder, manifest));
        }
        Ok(found)
    }

    /// Deletes all but the newest checkpoints, and folders without a manifest other than `written`.
    fn clean(&self, written: &str) -> Result<(), StoreError> {
        let whole: Vec<String> = self.manifests()?.into_iter().map(|(folder, _)| folder).collect();
        let kept = &whole[whole.len().saturating_sub(KEPT)..];
        for folder in self.folders()? {
            if folder == written || kept.contains(&folder) {
                continue;
            }
            // The manifest goes first, so that no half of a checkpoint passes for a whole one.
            let of_folder = self.list(&format!("{FOLDER}/{folder}"))?;
            let (manifests, parts): (Vec<Path>, Vec<Path>) =
                of_folder.into_iter().partition(|object| object.filename() == Some(MANIFEST));
            for object in manifests.into_iter().chain(parts) {
                let deleted = self.runtime.block_on(self.objects.delete(&object));
                deleted.map_err(|source| failed("delete", object.as_ref(), source))?;
            }
        }
        Ok(())
    }

    /// Returns the names of the checkpoints' folders, in the order of their ticks.
    fn folders(&self) -> Result<Vec<String>, StoreError> {
        let prefix = Path::from(FOLDER);
        let listed = self.runtime.block_on(self.objects.list_with_delimiter(Some(&prefix)));
        let listed = listed.map_err(|source| failed("list", FOLDER, source))?;
        let names = listed.common_prefixes.iter().filter_map(|path| path.filename().map(str::to_owned));
        let mut folders: Vec<String> = names.filter(|name| is_folder(name)).collect();
        folders.sort_unstable();
        Ok(folders)
    }

    fn damaged(&self, folder: &str, name: &str, reason: String) -> StoreError {
        let object = format!("{FOLDER}/{folder}/{name}");
        let folder = self.root.join(FOLDER).join(folder).display().to_string();
        StoreError::Damaged { object, folder, reason }
    }

    fn list(&self, folder: &str) -> Result<Vec<Path>, StoreError> {
        let listed = self.runtime.block_on(self.objects.list_with_delimiter(Some(&Path::from(folder))));
        let listed = listed.map_err(|source| failed("list", folder, source))?;
        Ok(listed.objects.into_iter().map(|object| object.location).collect())
    }

    fn put(&self, object: &str, payload: PutPayload) -> Result<(), StoreError> {
        let path = Path::from(object);
        let put = self.objects.put_opts(&path, payload, PutMode::Create.into());
        self.runtime.block_on(put).map(drop).map_err(|source| failed("write", object, source))
    }

    fn get(&self, object: &str) -> Result<Vec<u8>, StoreError> {
        let path = Path::from(object);
        let get = async { self.objects.get(&path).await?.bytes().await };
        self.runtime.block_on(get).map(Into::into).map_err(|source| failed("read", object, source))
    }
}

impl CheckpointPart {
    /// Returns the number of bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.blocks.iter().map(|block| block.len() as u64).sum()
    }

    /// Returns the XXH3 (128 bits) of all bytes, in hexadecimal digits.
    fn checksum(&self) -> String {
        let digest = match &self.blocks[..] {
            [block] => xxh3_128(block),
            blocks => {
                let mut hasher = Xxh3::new();
                blocks.iter().for_each(|block| hasher.update(block));
                hasher.digest128()
            }
        };
        format!("{digest:032x}")
    }
}

fn failed(what: &'static str, object: &str, source: object_store::Error) -> StoreError {
    StoreError::Object { what, object: object.to_owned(), source }
}

/// Returns whether a name is that of a checkpoint's folder: 16 digits, a dash, 16 hexadecimal digits.
fn is_folder(name: &str) -> bool {
    name.split_once('-').is_some_and(|(tick, nonce)| {
        let is_tick = tick.len() == 16 && tick.parse::<Tick>().is_ok();
        is_tick && nonce.len() == 16 && nonce.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
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
