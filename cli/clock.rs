//! The only module that reads the system's clock.

use std::time::SystemTime;

use keytide_dataflow::model::Tick;

/// Returns the time in milliseconds since the epoch; 0 if the clock is set before it.
#[allow(clippy::disallowed_methods, reason = "this is the clock")]
pub(crate) fn now() -> Tick {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
