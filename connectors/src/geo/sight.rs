//! When a watched file may be read again: no clock, no notifications, only what the file system says of it.
//!
//! A file is told by its length, its times of modification and of change, and its inode. It is worth reading
//! when it looks other than it did when it was last read, and looked the same at the look before: so a file
//! that is being written isn't read as long as each look finds more of it. Symbolic links are followed: a
//! link that is turned to another file is a change.
//!
//! Not noticed: a change within the same tick of the file system's clock (Linux: at most 10 ms) that keeps
//! the length, if the file was read between the two.

use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What a look at a file found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Sight {
    File { bytes: u64, modified: Option<SystemTime>, node: Node },
    Unreadable(io::ErrorKind),
}

/// Inode, and when its status changed (seconds and nanoseconds).
type Node = (u64, i64, i64);

/// What is to be done about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// It is as it was when it was last read.
    Same,
    Moving,
    /// It changed, and was the same at the look before.
    Settled,
}

/// A file, and how it looked.
pub(crate) struct Watch {
    path: PathBuf,
    last: Sight,
    /// As it was last read.
    read: Sight,
}

impl Watch {
    /// Watches a file that is going to be read now.
    pub(crate) fn new(path: &Path) -> Self {
        let sight = look(path);
        Self { path: path.to_owned(), last: sight.clone(), read: sight }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn look(&mut self) -> Look {
        let sight = look(&self.path);
        let settled = sight == self.last;
        self.last = sight;
        match (self.last == self.read, settled) {
            (true, _) => Look::Same,
            (false, false) => Look::Moving,
            (false, true) => Look::Settled,
        }
    }

    /// Whether the file still is as the last look found it: what was read since then is of one version.
    pub(crate) fn is_still(&self) -> bool {
        look(&self.path) == self.last
    }

    /// The file was read, or judged, as the last look found it.
    pub(crate) fn was_read(&mut self) {
        self.read = self.last.clone();
    }
}

fn look(path: &Path) -> Sight {
    match fs::metadata(path) {
        Ok(metadata) => {
            Sight::File { bytes: metadata.len(), modified: metadata.modified().ok(), node: node(&metadata) }
        }
        Err(error) => Sight::Unreadable(error.kind()),
    }
}

#[cfg(unix)]
fn node(metadata: &Metadata) -> Node {
    use std::os::unix::fs::MetadataExt as _;
    (metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
}

#[cfg(not(unix))]
fn node(_: &Metadata) -> Node {
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
        let mut watch = Watch::new(&path);
        assert_eq!(watch.look(), Look::Same);

        for text in ["ab", "abc"] {
            fs::write(&path, text).unwrap();
            assert_eq!(watch.look(), Look::Moving);
        }
        assert_eq!(watch.look(), Look::Settled);
        assert!(watch.is_still());
        assert_eq!(watch.look(), Look::Settled, "not read yet");
        watch.was_read();
        assert_eq!(watch.look(), Look::Same);

        fs::write(&path, "abcd").unwrap();
        assert!(!watch.is_still());
        assert_eq!(watch.look(), Look::Moving);
    }

    #[test]
    fn a_file_that_vanished_or_was_replaced_has_changed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other) = (folder.path().join("file"), folder.path().join("other"));
        fs::write(&path, "a").unwrap();
        let mut watch = Watch::new(&path);
        fs::write(&other, "b").unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!([watch.look(), watch.look()], [Look::Moving, Look::Settled]);
        watch.was_read();

        fs::remove_file(&path).unwrap();
        assert_eq!([watch.look(), watch.look()], [Look::Moving, Look::Settled]);
        assert_eq!(watch.path(), path);
    }
}
