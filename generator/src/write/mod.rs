//! Where lines go: files or a topic, and the folder of all that belongs to them.

pub(crate) mod configuration;
pub(crate) mod files;
pub(crate) mod folder;
pub(crate) mod format;
pub(crate) mod lines;
pub(crate) mod progress;
pub(crate) mod send;
