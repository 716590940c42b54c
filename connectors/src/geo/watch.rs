//! Decides when a watched file may be read again, only by its metadata, without a clock or notifications.
//!
//! The state of a file is its length, its times of modification and of change, and its inode. A file is read again if
//! its state differs from when it was read last, and is the same as at the previous poll. So a file that is being
//! written isn't read as long as each poll finds more of it. Symbolic links are followed, so a link to another file is
//! a change.
//!
//! One change isn't noticed: it keeps the length, and comes within the same tick of the file system's clock (Linux: at
//! most 10 ms) as the one before it, while the file is read between the two.

use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The state of a file at a poll.
#[derive(Clone, Debug, PartialEq, Eq)]
enum FileState {
    File { bytes: u64, modified: Option<SystemTime>, inode: Inode },
    Unreadable(io::ErrorKind),
}

/// The inode, and the time of its last change (seconds and nanoseconds).
type Inode = (u64, i64, i64);

/// The result of a poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileChange {
    /// The file is the same as when it was read last.
    Unchanged,
    Changing,
    /// The file changed, and was the same at the previous poll.
    Settled,
}

/// A watched file, with its state at the last poll and when it was read last.
pub(crate) struct FileWatch {
    path: PathBuf,
    last: FileState,
    read: FileState,
}

impl FileWatch {
    /// Watches a file that is going to be read now.
    pub(crate) fn new(path: &Path) -> Self {
        let found = state(path);
        Self { path: path.to_owned(), last: found.clone(), read: found }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn poll(&mut self) -> FileChange {
        let found = state(&self.path);
        let settled = found == self.last;
        self.last = found;
        match (self.last == self.read, settled) {
            (true, _) => FileChange::Unchanged,
            (false, false) => FileChange::Changing,
            (false, true) => FileChange::Settled,
        }
    }

    /// Returns whether the file is still the same as at the last poll, so that everything read since is of one version.
    pub(crate) fn is_still(&self) -> bool {
        state(&self.path) == self.last
    }

    /// Returns whether the file is the same as when it was read last, at the last poll and now.
    pub(crate) fn is_read(&self) -> bool {
        self.last == self.read && self.is_still()
    }

    /// Notes that the file was read, or judged, in its state at the last poll.
    pub(crate) fn mark_read(&mut self) {
        self.read = self.last.clone();
    }
}

fn state(path: &Path) -> FileState {
    match fs::metadata(path) {
        Ok(metadata) => FileState::File {
            bytes: metadata.len(),
            modified: metadata.modified().ok(),
            inode: inode(&metadata),
        },
        Err(error) => FileState::Unreadable(error.kind()),
    }
}

#[cfg(unix)]
fn inode(metadata: &Metadata) -> Inode {
    use std::os::unix::fs::MetadataExt as _;
    (metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
}

#[cfg(not(unix))]
fn inode(_: &Metadata) -> Inode {
    (0, 0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_when_two_looks_agree() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "a").unwrap();
        let mut watch = FileWatch::new(&path);
        assert_eq!(watch.poll(), FileChange::Unchanged);

        for text in ["ab", "abc"] {
            fs::write(&path, text).unwrap();
            assert_eq!(watch.poll(), FileChange::Changing);
        }
        assert_eq!(watch.poll(), FileChange::Settled);
        assert!(watch.is_still());
        assert_eq!(watch.poll(), FileChange::Settled, "not read yet");
        watch.mark_read();
        assert_eq!(watch.poll(), FileChange::Unchanged);

        fs::write(&path, "abcd").unwrap();
        assert!(!watch.is_still());
        assert_eq!(watch.poll(), FileChange::Changing);
    }

    #[test]
    fn a_file_that_vanished_or_was_replaced_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("file"), folder.path().join("other"));
        fs::write(&path, "a").unwrap();
        let mut watch = FileWatch::new(&path);
        fs::write(&other, "b").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!([watch.poll(), watch.poll()], [FileChange::Changing, FileChange::Settled]);
        watch.mark_read();

        fs::remove_file(&path).unwrap();
        assert_eq!([watch.poll(), watch.poll()], [FileChange::Changing, FileChange::Settled]);
        assert_eq!(watch.path(), path);
    }
}
