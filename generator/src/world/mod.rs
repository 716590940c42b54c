//! The callers and their habits. This module knows nothing of episodes or lines.

pub(crate) mod faults;
pub(crate) mod habit;
pub(crate) mod network;
pub(crate) mod population;
pub(crate) mod rhythm;
pub(crate) mod settings;
