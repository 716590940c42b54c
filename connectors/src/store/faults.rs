//! The store under faults: writes, reads and deletes that fail, answers that are lost, and objects that changed.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Mutex;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use keytide_dataflow::model::Tick;
use object_store::memory::InMemory;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, PutMultipartOptions,
    PutOptions, PutResult, Result as StoreResult,
};
use tempfile::tempdir;

use super::*;

/// The requests that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Put,
    Get,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Nothing was done: a full disk, an input/output error, a store that is away.
    Refused,
    /// It was done: the sync of a folder failed, or an answer was lost.
    AnswerLost,
}

/// A store in memory, in which one request fails.
#[derive(Debug, Default)]
struct FaultyObjects {
    objects: InMemory,
    /// The requests of the kind that succeed before the fault.
    plan: Mutex<Option<(Request, Fault, usize)>>,
}

impl fmt::Display for FaultyObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyObjects")
    }
}

impl FaultyObjects {
    fn fail(&self, request: Request, fault: Fault, after: usize) {
        *self.plan.lock().unwrap() = Some((request, fault, after));
    }

    /// Returns whether all was done before the fault came.
    fn is_over(&self) -> bool {
        self.plan.lock().unwrap().take().is_some()
    }

    fn next(&self, request: Request) -> Option<Fault> {
        let mut plan = self.plan.lock().unwrap();
        let (of, fault, left) = plan.as_mut()?;
        if *of != request {
            return None;
        }
        let fault = *fault;
        match left.checked_sub(1) {
            Some(fewer) => *left = fewer,
            None => {
                *plan = None;
                return Some(fault);
            }
        }
        None
    }
}

fn full() -> Error {
    Error::Generic { store: "faulty", source: std::io::Error::from(std::io::ErrorKind::StorageFull).into() }
}

#[async_trait]
impl ObjectStore for FaultyObjects {
    async fn put_opts(&self, at: &Path, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        match self.next(Request::Put) {
            Some(Fault::Refused) => Err(full()),
            Some(Fault::AnswerLost) => {
                self.objects.put_opts(at, payload, options).await?;
                Err(full())
            }
            None => self.objects.put_opts(at, payload, options).await,
        }
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> StoreResult<GetResult> {
        match self.next(Request::Get) {
            Some(_) => Err(full()),
            None => self.objects.get_opts(at, options).await,
        }
    }

    fn delete_stream(
        &self,
        at: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        self.objects.delete_stream(at)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.objects.copy_opts(from, to, options).await
    }
}

fn faulty() -> (Arc<FaultyObjects>, Store) {
    let objects = Arc::<FaultyObjects>::default();
    let store = Store::new(Arc::clone(&objects) as _, "memory".to_owned(), None).unwrap();
    (objects, store)
}

fn small(tick: Tick) -> Checkpoint {
    let part = |name: &str, bytes: &[u8]| {
        let object = name.to_owned();
        CheckpointPart { object, blocks: vec![bytes.to_vec()], rows: 1 }
    };
    let parts = [("input", &b"lanes"[..]), ("policy", b"memory"), ("state-usage", b"rows of usage")];
    let parts = parts.into_iter().map(|(name, bytes)| (name.to_owned(), part(name, bytes))).collect();
    let info =
        CheckpointInfo { tick, number: tick / 1_000, job: "job".to_owned(), ..CheckpointInfo::default() };
    Checkpoint { info, parts, unchanged: Vec::new(), written: BTreeMap::new() }
}

fn with_manifest((id, manifest): (CheckpointId, Manifest)) -> (CheckpointId, Arc<Manifest>) {
    (id, Arc::new(manifest))
}

/// Reads the newest checkpoint that is sound, as a start does.
fn restored(store: &Store) -> Option<Checkpoint> {
    let sound = |id: CheckpointId| store.read(id, store.manifest(id).ok()??).ok();
    store.folders().unwrap().into_iter().rev().find_map(sound)
}

#[test]
fn a_write_that_fails_anywhere_leaves_the_checkpoint_before_or_a_whole_one_and_the_next_one_works() {
    for fault in [Fault::Refused, Fault::AnswerLost] {
        for after in 0.. {
            let (objects, store) = faulty();
            let first = with_manifest(store.write(small(1_000), 1, None).unwrap());
            objects.fail(Request::Put, fault, after);
            let written = store.write(small(2_000), 1, None);
            if objects.is_over() {
                assert!(written.is_ok() && after == 4, "three parts and a manifest");
                break;
            }
            let error = written.unwrap_err();
            assert!(matches!(error, StoreError::Object { what: "write", .. }), "{error}");
            // A manifest whose answer was lost is there, and so is all that it names.
            let is_whole = fault == Fault::AnswerLost && after == 3;
            assert_eq!(
                restored(&store),
                Some(small(if is_whole { 2_000 } else { 1_000 })),
                "{fault:?} {after}"
            );
            let third = with_manifest(store.write(small(3_000), 1, None).unwrap());
            assert_eq!(restored(&store), Some(small(3_000)));
            let kept = [first, third];
            store.retain(&kept, &[]).unwrap();
            let folders: BTreeSet<CheckpointId> =
                store.checkpoint_objects().unwrap().into_iter().map(|(folder, _)| folder).collect();
            assert_eq!(
                folders,
                kept.iter().map(|(id, _)| *id).collect(),
                "nothing of the failed one is left"
            );
        }
    }
}

#[test]
fn a_read_that_fails_is_no_damage_and_passes() {
    for after in 0..4 {
        let (objects, store) = faulty();
        let (id, _) = store.write(small(1_000), 1, None).unwrap();
        objects.fail(Request::Get, Fault::Refused, after);
        let read = store.manifest(id).and_then(|manifest| store.read(id, manifest.unwrap()));
        let error = read.unwrap_err();
        assert!(matches!(error, StoreError::Object { what: "read", .. }), "{error}");
        assert!(!error.is_refusal());
        assert_eq!(restored(&store), Some(small(1_000)));
    }
}

/// Objects of all kinds, each with what reading all of them gives.
fn everything(store: &Store) -> Vec<String> {
    let id = CheckpointId { tick: 2_000, nonce: 1 };
    let shown = |read: Result<String, StoreError>| match read {
        Ok(read) => read,
        Err(error @ (StoreError::Damaged { .. } | StoreError::Format { .. })) => format!("refused: {error}"),
        Err(error) => panic!("{error}"),
    };
    let manifest = store.manifest(id);
    let whole = manifest.and_then(|manifest| match manifest {
        Some(manifest) => store.read(id, manifest).map(|read| format!("{read:?}")),
        None => Ok("refused: there is none".to_owned()),
    });
    let geo = store.get_geo(&geo_name(b"a geo database")).map(|read| format!("{read:?}"));
    vec![
        shown(whole),
        shown(store.read_inputs(&format!("{INPUTS}/{}", id.name())).map(|read| format!("{read:?}"))),
        shown(store.read_start().map(|read| format!("{read:?}"))),
        shown(store.get_record(NumberedObject::Tick(2)).map(|read| format!("{read:?}"))),
        shown(store.get_record(NumberedObject::Claim(1)).map(|read| format!("{read:?}"))),
        shown(geo),
    ]
}

fn filled() -> (Arc<FaultyObjects>, Store) {
    let (objects, store) = faulty();
    store.write(small(1_000), 1, None).unwrap();
    store.write(small(2_000), 1, None).unwrap();
    let id = CheckpointId { tick: 2_000, nonce: 1 };
    store.write_inputs(id, &[Bytes::from_static(b"changes"), Bytes::from_static(b" of tables")]).unwrap();
    store.write_start(b"with what it begins".to_vec()).unwrap();
    store.put_record(NumberedObject::Tick(2), br#"{"record":"tick","number":2}"#.to_vec()).unwrap();
    store.put_record(NumberedObject::Claim(1), br#"{"record":"claim"}"#.to_vec()).unwrap();
    store.put_geo(&geo_name(b"a geo database"), Bytes::from_static(b"a geo database")).unwrap();
    (objects, store)
}

#[test]
fn every_byte_that_changed_and_every_truncation_of_every_object_is_refused_or_changes_nothing() {
    let (_, store) = filled();
    let sound = everything(&store);
    assert!(sound.iter().all(|read| !read.starts_with("refused")), "{sound:?}");
    let id = CheckpointId { tick: 2_000, nonce: 1 }.name();
    let mut objects: Vec<String> =
        ["input", "policy", "state-usage", MANIFEST].map(|part| format!("{FOLDER}/{id}/{part}")).into();
    objects.extend([
        format!("{INPUTS}/{id}"),
        START.to_owned(),
        format!("{GEO}/{}", geo_name(b"a geo database")),
    ]);
    objects.extend([NumberedObject::Tick(2), NumberedObject::Claim(1)].map(NumberedObject::name));
    let (mut tried, mut harmless) = (0, 0);
    for object in &objects {
        let bytes = store.get_if_present(object).unwrap().unwrap();
        let flips = (0..bytes.len()).flat_map(|at| [0x01, 0x20, 0x80, 0xff].map(|bits| (at, bits)));
        let flipped = flips.map(|(at, bits)| {
            let mut flipped = bytes.clone();
            flipped[at] ^= bits;
            flipped
        });
        let truncated = (0..bytes.len()).map(|length| bytes[..length].to_vec());
        let longer = [b"\0", b" ", b"}"].map(|more| [&bytes[..], more].concat());
        for damaged in flipped.chain(truncated).chain(longer) {
            store.put(object, damaged.clone().into()).unwrap();
            let found = everything(&store);
            let changed: Vec<_> = found.iter().zip(&sound).filter(|(found, sound)| found != sound).collect();
            // White space of a manifest says nothing, and bytes behind all parts belong to none.
            let is_behind = object.starts_with(FOLDER) && damaged.starts_with(&bytes);
            let is_harmless = changed.is_empty() && (object.ends_with(MANIFEST) || is_behind);
            let is_refused = changed.len() == 1 && changed[0].0.starts_with("refused");
            assert!(
                is_refused || is_harmless,
                "{object}: {:?}: {changed:?}",
                String::from_utf8_lossy(&damaged)
            );
            if object.starts_with(FOLDER) && is_refused {
                assert_eq!(restored(&store), Some(small(1_000)), "the one before is used");
            }
            (tried, harmless) = (tried + 1, harmless + u32::from(is_harmless));
        }
        store.put(object, bytes.into()).unwrap();
    }
    assert_eq!(everything(&store), sound);
    assert!(tried > 4_000 && harmless < tried / 20, "{tried} {harmless}");
}

#[test]
fn an_object_in_the_place_of_another_one_is_refused() {
    let (_, store) = filled();
    let of = |tick| CheckpointId { tick, nonce: 1 };
    let copy = |from: &str, to: &str| {
        let bytes = store.get_if_present(from).unwrap().unwrap();
        store.put(to, bytes.into()).unwrap();
    };
    let path = |tick, part: &str| format!("{FOLDER}/{}/{part}", of(tick).name());
    // A checkpoint under the name of another tick, with all its parts.
    for part in ["input", "policy", "state-usage", MANIFEST] {
        copy(&path(1_000, part), &path(3_000, part));
    }
    let error = store.manifest(of(3_000)).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert_eq!(restored(&store), Some(small(2_000)));
    copy(&path(2_000, "policy"), &path(2_000, "input"));
    assert_eq!(restored(&store), Some(small(1_000)));
    let other = of(3_000);
    copy(&format!("{INPUTS}/{}", of(2_000).name()), &format!("{INPUTS}/{}", other.name()));
    assert!(store.read_inputs(&format!("{INPUTS}/{}", other.name())).is_err());
    copy(&NumberedObject::Tick(2).name(), &NumberedObject::Tick(3).name());
    assert!(store.get_record(NumberedObject::Tick(3)).is_err());
    copy(&NumberedObject::Claim(1).name(), &NumberedObject::Claim(2).name());
    assert!(store.get_record(NumberedObject::Claim(2)).is_err());
}

#[test]
fn a_copy_of_a_geo_database_that_is_damaged_is_written_again() {
    let (_, store) = filled();
    let content = Bytes::from_static(b"a geo database");
    let name = geo_name(&content);
    for damaged in [&b"a geo databasf"[..], b"", b"a geo"] {
        store.put(&format!("{GEO}/{name}"), damaged.to_vec().into()).unwrap();
        assert!(matches!(store.get_geo(&name), Err(StoreError::Damaged { .. })));
        store.put_geo(&name, content.clone()).unwrap();
        assert_eq!(store.get_geo(&name).unwrap(), content);
    }
}

#[test]
fn a_store_is_probed_for_what_a_state_needs() {
    let (objects, store) = faulty();
    store.probe().unwrap();
    assert_eq!(store.list("probes").unwrap(), [], "nothing is left");
    for after in 0..2 {
        objects.fail(Request::Put, Fault::Refused, after);
        let error = store.probe().unwrap_err();
        assert!(
            matches!(error, StoreError::Object { .. }) && !error.is_refusal(),
            "an outage passes: {error}"
        );
    }
    // The first write was done, and looks like the second one when it is tried again.
    objects.fail(Request::Put, Fault::AnswerLost, 0);
    assert!(!store.probe().unwrap_err().is_refusal());
    store.probe().unwrap();
}

#[test]
fn a_folder_that_can_not_be_written_fails_and_works_again() {
    let folder = tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    store.write(small(1_000), 1, None).unwrap();
    let checkpoints = folder.path().join(FOLDER);
    let away = folder.path().join("away");
    std::fs::rename(&checkpoints, &away).unwrap();
    std::fs::write(&checkpoints, "no folder").unwrap();
    let error = store.write(small(2_000), 1, None).unwrap_err().to_string();
    assert!(error.starts_with("state.url: can't write checkpoints/"), "{error}");
    std::fs::remove_file(&checkpoints).unwrap();
    std::fs::rename(&away, &checkpoints).unwrap();
    store.write(small(3_000), 1, None).unwrap();
    assert_eq!(restored(&store), Some(small(3_000)));
}
