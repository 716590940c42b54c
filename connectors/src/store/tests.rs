use std::fs;

use keytide_dataflow::model::Tick;
use tempfile::tempdir;

use super::*;

fn checkpoint(tick: Tick, states: &[(&str, &[&[u8]])]) -> Checkpoint {
    let part = |name: &str, blocks: &[&[u8]]| CheckpointPart {
        object: name.to_owned(),
        blocks: blocks.iter().map(|block| block.to_vec()).collect(),
        rows: blocks.len() as u64,
    };
    let info = CheckpointInfo { tick, job: "job".to_owned(), workers: 2, ..CheckpointInfo::default() };
    let parts = states.iter().map(|(name, blocks)| ((*name).to_owned(), part(name, blocks))).collect();
    Checkpoint { info, parts, unchanged: Vec::new(), written: BTreeMap::new() }
}

fn small(tick: Tick) -> Checkpoint {
    checkpoint(tick, &[("state-usage", &[b"first", b"second"]), ("live", &[b"lanes"]), ("empty", &[])])
}

fn write(
    store: &Store,
    checkpoint: Checkpoint,
    nonce: u64,
) -> Result<(CheckpointId, Arc<Manifest>), StoreError> {
    store.write(checkpoint, nonce, None).map(|(id, manifest)| (id, Arc::new(manifest)))
}

/// Returns the bytes of parts in their objects.
fn packed_bytes<'a>(parts: impl IntoIterator<Item = &'a CheckpointPart>) -> u64 {
    parts.into_iter().map(|part| pack(&part.blocks).unwrap().len() as u64).sum()
}

/// Joins the blocks of each part, as reading does.
fn joined(mut checkpoint: Checkpoint) -> Checkpoint {
    for part in checkpoint.parts.values_mut() {
        part.blocks = vec![part.blocks.concat()];
    }
    checkpoint
}

#[allow(clippy::disallowed_methods, reason = "the test's own files")]
fn read(file: &FilePath) -> Vec<u8> {
    fs::read(file).unwrap()
}

fn read_text(file: &FilePath) -> String {
    String::from_utf8(read(file)).unwrap()
}

/// Returns all files below a folder, by their paths.
fn files(folder: &FilePath) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// Reads the newest checkpoint, if there is one.
fn newest(store: &Store) -> Result<Option<Checkpoint>, StoreError> {
    for id in store.folders()?.into_iter().rev() {
        if let Some(manifest) = store.manifest(id)? {
            return store.read(id, manifest).map(Some);
        }
    }
    Ok(None)
}

#[test]
fn a_checkpoint_is_read_as_it_was_written_and_only_those_that_are_kept_stay() {
    let folder = tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    assert_eq!(newest(&store).unwrap(), None);
    let mut written = Vec::new();
    for tick in [1_000, 2_000, 3_000, 4_000, 5_000] {
        let (id, manifest) = write(&store, small(tick), tick ^ 0xabcd).unwrap();
        let bytes = packed_bytes(small(tick).parts.values());
        assert_eq!((id.tick, id.nonce, manifest.bytes()), (tick, tick ^ 0xabcd, bytes));
        assert_eq!(newest(&store).unwrap(), Some(joined(small(tick))));
        written.push((id, manifest));
    }
    let ids: Vec<CheckpointId> = written.iter().map(|(id, _)| *id).collect();
    assert_eq!(store.folders().unwrap(), ids);
    // One that doesn't count yet makes no other old: the fourth may be a younger life's.
    store.retain(&[written[2].clone()], &[written[4].clone()]).unwrap();
    assert_eq!(store.folders().unwrap(), [ids[2], ids[3], ids[4]]);
    store.retain(&[written[2].clone(), written[4].clone()], &[]).unwrap();
    assert_eq!(store.folders().unwrap(), [ids[2], ids[4]]);
    let folders = fs::read_dir(folder.path().join(FOLDER)).unwrap().count();
    assert_eq!(folders, 2, "nothing is left of the others");
}

#[test]
fn inputs_stay_as_long_as_a_checkpoint_before_them() {
    let folder = tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let write_inputs = |tick| {
        let id = CheckpointId { tick, nonce: 7 };
        let name = store.write_inputs(id, &[Bytes::from_static(&[1, 2]), Bytes::from_static(&[3])]).unwrap();
        assert_eq!(
            store.write_inputs(id, &[Bytes::from_static(&[1, 2, 3])]).unwrap(),
            name,
            "again, after a restart"
        );
        name
    };
    let names: Vec<String> = [1_000, 2_000, 3_000, 4_000].map(write_inputs).into();
    let older = write(&store, small(2_000), 7).unwrap();
    let newer = write(&store, small(3_000), 7).unwrap();
    store.retain(&[older, newer], &[]).unwrap();
    let is_there = |name: &String| store.read_inputs(name).is_ok_and(|bytes| bytes == [1, 2, 3]);
    assert_eq!(names.iter().map(is_there).collect::<Vec<_>>(), [false, false, true, true]);
    store.retain(&[], &[]).unwrap();
    assert!(is_there(&names[2]), "without a checkpoint all ticks may be made again");
    let path = folder.path().join(&names[3]);
    let sound = read(&path);
    for at in 0..sound.len() {
        let mut flipped = sound.clone();
        flipped[at] ^= 1;
        for damaged in [&flipped, &sound[..at]] {
            fs::write(&path, damaged).unwrap();
            let error = store.read_inputs(&names[3]).unwrap_err().to_string();
            assert!(error.contains(&names[3]), "{error}");
        }
    }
}

#[test]
fn a_crash_before_the_manifest_leaves_no_checkpoint() {
    let folder = tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let first = write(&store, small(1_000), 1).unwrap();
    let (torn, _) = write(&store, small(2_000), 2).unwrap();
    let path = folder.path().join(FOLDER).join(torn.name());
    fs::remove_file(path.join(MANIFEST)).unwrap();
    assert_eq!(store.manifest(torn).unwrap(), None);
    assert_eq!(newest(&store).unwrap(), Some(joined(small(1_000))));
    store.retain(std::slice::from_ref(&first), &[]).unwrap();
    assert!(path.exists(), "it may be a younger life's, which is writing it");
    // The same tick again, by another life.
    let second = write(&store, small(2_000), 3).unwrap();
    assert_eq!(newest(&store).unwrap(), Some(joined(small(2_000))));
    store.retain(&[first, second], &[]).unwrap();
    assert!(!path.exists(), "what a crash left is deleted");
}

#[test]
fn every_changed_byte_and_every_truncation_of_a_part_is_refused_with_its_name() {
    let folder = tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    write(&store, small(1_000), 1).unwrap();
    let mut tried = 0;
    for file in files(&folder.path().join(FOLDER)) {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        let sound = read(&file);
        let is_manifest = name == MANIFEST;
        for at in 0..sound.len() {
            let mut flipped = sound.clone();
            flipped[at] ^= 1;
            for damaged in [flipped, sound[..at].to_vec()] {
                fs::write(&file, &damaged).unwrap();
                match newest(&store) {
                    // A word of the manifest for people has no checksum.
                    Ok(read) => assert!(is_manifest && read.is_some(), "{name} at {at}"),
                    Err(error) if is_manifest => assert!(!error.to_string().is_empty()),
                    Err(error) => assert!(error.to_string().contains(&name), "{name} at {at}: {error}"),
                }
                tried += 1;
            }
        }
        fs::remove_file(&file).unwrap();
        if !is_manifest {
            let error = newest(&store).unwrap_err().to_string();
            assert!(error.contains("is missing: it is damaged"), "{error}");
        }
        fs::write(&file, &sound).unwrap();
    }
    assert!(tried > 100, "{tried}");
    assert_eq!(newest(&store).unwrap(), Some(joined(small(1_000))));
}

#[test]
fn a_manifest_of_another_format_is_refused_with_what_to_do() {
    let folder = tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    write(&store, small(1_000), 1).unwrap();
    let manifest = files(folder.path()).into_iter().find(|file| file.ends_with(MANIFEST)).unwrap();
    let text = read_text(&manifest).replace("\"format\": 5", "\"format\": 9");
    fs::write(&manifest, text).unwrap();
    let error = newest(&store).unwrap_err().to_string();
    assert!(error.contains("has format 9, and this version reads format 5"), "{error}");
}

#[test]
fn a_folder_belongs_to_one_process_at_a_time() {
    let folder = tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let error = Store::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains(&format!("is in use by process {}", std::process::id())), "{error}");
    write(&store, small(1_000), 1).unwrap();
    assert_eq!(Store::look(folder.path()).unwrap().folders().unwrap().len(), 1, "looking needs no lock");
    drop(store);
    Store::open(folder.path()).unwrap();
}

#[test]
fn foreign_files_and_folders_are_left_alone() {
    let folder = tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let foreign = folder.path().join(FOLDER).join("notes");
    fs::create_dir_all(&foreign).unwrap();
    fs::write(foreign.join("mine.txt"), "mine").unwrap();
    write(&store, small(1), 1).unwrap();
    store.retain(&[], &[]).unwrap();
    assert_eq!(read_text(&foreign.join("mine.txt")), "mine");
}

/// Returns a checkpoint with a part by itself, and two parts of one object, of which only those with a text have it.
fn of_parts(tick: Tick, texts: [Option<&str>; 3]) -> Checkpoint {
    let mut made = checkpoint(tick, &[]);
    let names = [("minutes-0", "minutes"), ("minutes-60", "minutes"), ("input", "input")];
    for ((name, object), text) in names.into_iter().zip(texts) {
        match text {
            Some(text) => {
                let blocks = text.split('|').map(|block| block.as_bytes().to_vec()).collect();
                let part = CheckpointPart { object: object.to_owned(), blocks, rows: 1 };
                made.parts.insert(name.to_owned(), part);
            }
            None => made.unchanged.push(name.to_owned()),
        }
    }
    made
}

#[test]
fn parts_that_did_not_change_are_read_where_they_are_as_long_as_a_checkpoint_has_them() {
    let folder = tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let mut before: Option<Arc<Manifest>> = None;
    let mut kept = Vec::new();
    // The texts that each checkpoint writes, and all of them as it is read.
    let steps = [
        ([Some("one"), Some("a|b"), Some("i")], "one ab i"),
        ([None, Some("longer"), Some("j")], "one longer j"),
        ([None, None, Some("k")], "one longer k"),
        ([Some("two"), None, Some("")], "two longer "),
    ];
    for (step, (texts, all)) in (1..).zip(steps) {
        let written = of_parts(step, texts);
        let bytes = packed_bytes(written.parts.values());
        let (id, manifest) = store.write(written, 7, before.as_deref()).unwrap();
        assert_eq!(manifest.bytes_of(id), bytes, "of step {step}");
        let manifest = Arc::new(manifest);
        kept.push((id, Arc::clone(&manifest)));
        before = Some(manifest);
        // Two are kept. Each is read as it was written, whatever was deleted.
        kept.drain(..kept.len().saturating_sub(2));
        store.retain(&kept, &[]).unwrap();
        assert_eq!(store.folders().unwrap(), kept.iter().map(|(id, _)| *id).collect::<Vec<_>>());
        let read = newest(&store).unwrap().unwrap();
        let texts = ["minutes-0", "minutes-60", "input"].map(|name| read.parts[name].blocks.concat());
        assert_eq!(texts.map(|text| String::from_utf8(text).unwrap()).join(" "), all);
        for (id, manifest) in &kept {
            store.read(*id, Manifest::clone(manifest)).unwrap();
        }
    }
    // The first object of minutes has a part of the third checkpoint, and the first input none.
    let left: Vec<String> = files(&folder.path().join(FOLDER))
        .iter()
        .map(|file| file.strip_prefix(folder.path().join(FOLDER)).unwrap().to_str().unwrap().to_owned())
        .collect();
    let name = |tick, object: &str| format!("{}/{object}", CheckpointId { tick, nonce: 7 }.name());
    let expected = [
        (1, "minutes"),
        (2, "minutes"),
        (3, "input"),
        (3, MANIFEST),
        (4, "input"),
        (4, MANIFEST),
        (4, "minutes"),
    ];
    assert_eq!(left, expected.map(|(tick, object)| name(tick, object)));
    // An older object that is gone is damage of the checkpoint that needs it.
    fs::remove_file(folder.path().join(FOLDER).join(name(2, "minutes"))).unwrap();
    let error = newest(&store).unwrap_err().to_string();
    assert!(error.contains(&name(2, "minutes")) && error.contains(&name(4, "")[..16]), "{error}");
}

#[test]
fn an_entry_of_the_outbox_is_written_once_and_refused_if_it_is_damaged() {
    let folder = tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    assert!(store.outbox_numbers().unwrap().is_empty());
    for number in [10, 9, 100] {
        assert!(store.put_record(NumberedObject::OutboxEntry(number), vec![7; 3]).unwrap());
    }
    assert!(!store.put_record(NumberedObject::OutboxEntry(9), vec![8]).unwrap(), "there is one");
    assert_eq!(store.outbox_numbers().unwrap(), [9, 10, 100]);
    assert_eq!(store.get_record(NumberedObject::OutboxEntry(9)).unwrap(), Some(vec![7; 3]));
    store.delete_record(NumberedObject::OutboxEntry(9)).unwrap();
    store.delete_record(NumberedObject::OutboxEntry(9)).unwrap();
    assert_eq!(
        (store.get_record(NumberedObject::OutboxEntry(9)).unwrap(), store.outbox_numbers().unwrap()),
        (None, vec![10, 100])
    );
    let file = folder.path().join("outbox").join(format!("{:020}", 10));
    let sound = read(&file);
    for at in 0..sound.len() {
        let mut flipped = sound.clone();
        flipped[at] ^= 1;
        for damaged in [flipped, sound[..at].to_vec()] {
            fs::write(&file, damaged).unwrap();
            let error = store.get_record(NumberedObject::OutboxEntry(10)).unwrap_err().to_string();
            assert!(error.contains("outbox/00000000000000000010 has another checksum"), "{error}");
        }
    }
}
