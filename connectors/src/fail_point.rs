//! Places at which tests of crashes end the process, between two steps that must be safe one by one.
//!
//! `KEYTIDE_FAIL_POINT=NAME:COUNT` ends it when the place is reached for the COUNT-th time, without any cleaning up.
//! `NAME:COUNT:panic` makes that a panic, which stands for a defect. Only a program with the feature `fail-points` has
//! them. Released programs don't.

/// The names of all places, in about the order in which a tick comes to them.
pub const POINTS: [&str; 20] = [
    "replay-after",
    // A tick: its rows are made and written to files, its changes of tables are stored.
    "rows-before",
    "rows-after",
    "inputs-before",
    "inputs-after",
    // Its commit: rows and records are sent, and the transaction is ended. A claim is committed in the same way.
    "commit-before",
    "record-before",
    "end-before",
    "end-after",
    "commit-after",
    // A checkpoint.
    "checkpoint-before",
    "part-after",
    "manifest-before",
    "manifest-after",
    "delete-before",
    "counted-after",
    // A mail or request: its claim is stored, it is tried, its outcome is stored.
    "claim-before",
    "claim-after",
    "outcome-before",
    "outcome-after",
];

/// Ends the process at a place, if the environment names it.
#[cfg(feature = "fail-points")]
pub fn fail_point(name: &str) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static CHOSEN: LazyLock<Option<(String, AtomicU64, bool)>> = LazyLock::new(|| {
        let chosen = std::env::var("KEYTIDE_FAIL_POINT").ok()?;
        let (name, count) = chosen.split_once(':').expect("KEYTIDE_FAIL_POINT is NAME:COUNT");
        assert!(POINTS.contains(&name), "KEYTIDE_FAIL_POINT: there is no place {name}");
        let (count, panics) = count.strip_suffix(":panic").map_or((count, false), |count| (count, true));
        let count = count.parse().expect("KEYTIDE_FAIL_POINT has a COUNT");
        Some((name.to_owned(), AtomicU64::new(count), panics))
    });
    debug_assert!(POINTS.contains(&name), "{name} is listed");
    if let Some((chosen, left, panics)) = &*CHOSEN
        && chosen == name
        && left.fetch_sub(1, Ordering::Relaxed) == 1
    {
        assert!(!panics, "a test asked for a defect");
        std::process::abort();
    }
}

/// Does nothing: this program has no fail points.
#[cfg(not(feature = "fail-points"))]
#[inline(always)]
pub const fn fail_point(_: &str) {}
