//! The configuration of a Keytide job, from TOML to values that the other crates can rely on.
//!
//! ```text
//! text ─parse─> tree ─overrides─> tree ─raw─> written values ──validate─> JobConfig
//!       TOML          KEYTIDE_…         types, unknown      ranges, relations,
//!       syntax        variables         fields, units       paths, secrets
//! ```
//!
//! Every stage goes on after a problem, so that one run reports *all* of them in the order of the file, each with its
//! line, its path, the value found and the values allowed. Only broken TOML syntax stops at its own stage: beyond it, a
//! key may be a torn piece of a secret.
//!
//! No message, warning or `Debug` output ever shows a secret.
//!
//! Limits: a file of 1 MiB, 1,000 problems shown, and the limits in the files of `section/`.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod check;
mod fingerprint;
mod load;
mod pattern;
mod scalar;
mod secret;
mod section;
#[cfg(test)]
mod tests;
mod time;
mod toml;
mod view;

pub use crate::toml::near::nearest;
pub use crate::toml::problem::Problem;
pub use load::{ConfigError, Loaded, ValidSections, environment};
pub use pattern::{
    Dialect, LineField, LineForm, LinePattern, LineTime, PatternFault, Piece, TimePart, Variable, header_name,
};
pub use scalar::{duration_of, duration_text, size_text};
pub use secret::Secret;
pub use section::*;
pub use time::{Matched, TimePattern, Unit, Zone};
pub use view::View;
