//! The points at which a process may be killed while it changes files. No program but tests has them.

#[cfg(not(test))]
use std::fs::File;
#[cfg(not(test))]
use std::io;

#[cfg(test)]
pub(super) use self::testing::{Death, is_dead, last_written, live, made, passed, point, sync, synced};

#[cfg(not(test))]
#[allow(clippy::unnecessary_wraps, reason = "it fails in tests")]
pub(super) const fn point() -> io::Result<()> {
    Ok(())
}

#[cfg(not(test))]
pub(super) const fn last_written(_: &[u8]) -> &[u8] {
    &[]
}

#[cfg(not(test))]
pub(super) const fn made(_: &File) {}

#[cfg(not(test))]
pub(super) fn sync(file: &File) -> io::Result<()> {
    file.sync_all()
}

#[cfg(test)]
mod testing {
    use std::cell::{Cell, RefCell};
    use std::collections::HashMap;
    use std::fs::File;
    use std::io;
    use std::os::unix::fs::MetadataExt as _;

    /// How a thread's life ends.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Death {
        /// The points that are still passed.
        pub(in super::super) after: u64,
        /// The bytes that reach the disk of a write that is interrupted, at most.
        pub(in super::super) last_bytes: usize,
    }

    thread_local! {
        static DEATH: Cell<Option<Death>> = const { Cell::new(None) };
        static IS_DEAD: Cell<bool> = const { Cell::new(false) };
        static PASSED: Cell<u64> = const { Cell::new(0) };
        /// The bytes that the disk has of each file, by the file's number.
        static SYNCED: RefCell<HashMap<u64, u64>> = RefCell::default();
    }

    /// Begins a life of this thread, which ends early if `death` says so.
    pub(in super::super) fn live(death: Option<Death>) {
        DEATH.set(death);
        IS_DEAD.set(false);
        if death.is_some() {
            PASSED.set(0);
        }
    }

    /// Returns the points that were passed by the last life that could end early.
    pub(in super::super) fn passed() -> u64 {
        PASSED.get()
    }

    pub(in super::super) fn is_dead() -> bool {
        IS_DEAD.get()
    }

    pub(in super::super) fn point() -> io::Result<()> {
        match DEATH.get() {
            None => Ok(()),
            Some(Death { after: 0, .. }) => Err(io::Error::other("killed")),
            Some(death) => {
                DEATH.set(Some(Death { after: death.after - 1, ..death }));
                PASSED.set(PASSED.get() + 1);
                Ok(())
            }
        }
        .inspect_err(|_| IS_DEAD.set(true))
    }

    /// Returns what is left of a write, the first that is interrupted.
    pub(in super::super) fn last_written(bytes: &[u8]) -> &[u8] {
        let Some(death) = DEATH.get() else { return bytes };
        DEATH.set(Some(Death { last_bytes: 0, ..death }));
        &bytes[..bytes.len().min(death.last_bytes)]
    }

    /// Notes a file that may be new. Nothing is known of one that another process made.
    pub(in super::super) fn made(file: &File) {
        let file = file.metadata().expect("a file that is open has a length");
        if file.len() == 0 {
            SYNCED.with_borrow_mut(|synced| synced.insert(file.ino(), 0));
        }
    }

    /// Notes that the disk has a file. The disk itself isn't asked, which would take most of the tests' time.
    #[allow(clippy::unnecessary_wraps, reason = "a disk fails")]
    pub(in super::super) fn sync(file: &File) -> io::Result<()> {
        let file = file.metadata()?;
        SYNCED.with_borrow_mut(|synced| synced.insert(file.ino(), file.len()));
        Ok(())
    }

    /// Returns the bytes of a file that a crash of the machine leaves at least.
    pub(in super::super) fn synced(file: &File) -> u64 {
        let file = file.metadata().expect("a file that is open has a length");
        SYNCED.with_borrow(|synced| synced.get(&file.ino()).map_or(0, |synced| file.len().min(*synced)))
    }
}
