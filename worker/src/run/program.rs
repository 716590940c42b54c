//! Names the program that makes a job's rows.
//!
//! Rows depend on its version, and on the days of time zones, whose database is built in. So both are told: two builds of
//! a version with other databases may cut days elsewhere.

use keytide_billing::zone_version;

/// Returns the version of the program and that of its time zones, such as `0.1.0 (time zones 2025b)`.
pub(super) fn program() -> String {
    format!("{} (time zones {})", env!("CARGO_PKG_VERSION"), zone_version())
}
