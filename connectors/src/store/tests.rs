use std::fs;

use tempfile::tempdir;

use super::*;

fn checkpoint(tick: Tick, states: &[(&str, &[&[u8]])]) -> Checkpoint {
    let part = |blocks: &[&[u8]]| CheckpointPart {
        blocks: blocks.iter().map(|block| block.to_vec()).collect(),
        rows: blocks.len() as u64,
    };
    let info = CheckpointInfo { tick, job: "job".to_owned(), workers: 2, ..CheckpointInfo::default() };
    let parts = states.iter().map(|(name, blocks)| ((*name).to_owned(), part(blocks))).collect();
    Checkpoint { info, parts }
}

fn small(tick: Tick) -> Checkpoint {
    checkpoint(tick, &[("state-usage", &[b"first", b"second"]), ("live", &[b"lanes"]), ("empty", &[])])
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
    let mut ids = Vec::new();
    for tick in [1_000, 2_000, 3_000, 4_000, 5_000] {
        let (id, bytes) = store.write(small(tick), tick ^ 0xabcd).unwrap();
        assert_eq!((id.tick, id.nonce, bytes), (tick, tick ^ 0xabcd, 16));
        assert_eq!(newest(&store).unwrap(), Some(joined(small(tick))));
        ids.push(id);
    }
    assert_eq!(store.folders().unwrap(), ids);
    store.retain(&[ids[1], ids[4]]).unwrap();
    assert_eq!(store.folders().unwrap(), [ids[1], ids[4]]);
    let folders = fs::read_dir(folder.path().join(FOLDER)).unwrap().count();
    assert_eq!(folders, 2, "nothing is left of the others");
}

#[test]
fn inputs_stay_as_long_as_a_checkpoint_before_them() {
    let folder = tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let write = |tick| {
        let id = CheckpointId { tick, nonce: 7 };
        let name = store.write_inputs(id, &[Bytes::from_static(&[1, 2]), Bytes::from_static(&[3])]).unwrap();
        assert_eq!(
            store.write_inputs(id, &[Bytes::from_static(&[1, 2, 3])]).unwrap(),
            name,
            "again, after a restart"
        );
        name
    };
    let names: Vec<String> = [1_000, 2_000, 3_000, 4_000].map(write).into();
    let (older, _) = store.write(small(2_000), 7).unwrap();
    let (newer, _) = store.write(small(3_000), 7).unwrap();
    store.retain(&[older, newer]).unwrap();
    let is_there = |name: &String| store.read_inputs(name).is_ok_and(|bytes| bytes == [1, 2, 3]);
    assert_eq!(names.iter().map(is_there).collect::<Vec<_>>(), [false, false, true, true]);
    store.retain(&[]).unwrap();
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
    let (first, _) = store.write(small(1_000), 1).unwrap();
    let (torn, _) = store.write(small(2_000), 2).unwrap();
    let path = folder.path().join(FOLDER).join(torn.name());
    fs::remove_file(path.join(MANIFEST)).unwrap();
    assert_eq!(store.manifest(torn).unwrap(), None);
    assert_eq!(newest(&store).unwrap(), Some(joined(small(1_000))));
    store.retain(&[first]).unwrap();
    assert!(path.exists(), "it may be a younger life's, which is writing it");
    // The same tick again, by another life.
    let (second, _) = store.write(small(2_000), 3).unwrap();
    assert_eq!(newest(&store).unwrap(), Some(joined(small(2_000))));
    store.retain(&[first, second]).unwrap();
    assert!(!path.exists(), "what a crash left is deleted");
}

#[test]
fn every_changed_byte_and_every_truncation_of_a_part_is_refused_with_its_name() {
    let folder = tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    store.write(small(1_000), 1).unwrap();
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
    store.write(small(1_000), 1).unwrap();
    let manifest = files(folder.path()).into_iter().find(|file| file.ends_with(MANIFEST)).unwrap();
    let text = read_text(&manifest).replace("\"format\": 3", "\"format\": 9");
    fs::write(&manifest, text).unwrap();
    let error = newest(&store).unwrap_err().to_string();
    assert!(error.contains("has format 9, and this version reads format 3"), "{error}");
}

#[test]
fn a_folder_belongs_to_one_process_at_a_time() {
    let folder = tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let error = Store::open(folder.path()).unwrap_err().to_string();
    assert!(error.contains(&format!("is in use by process {}", std::process::id())), "{error}");
    store.write(small(1_000), 1).unwrap();
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
    store.write(small(1), 1).unwrap();
    store.retain(&[]).unwrap();
    assert_eq!(read_text(&foreign.join("mine.txt")), "mine");
}
