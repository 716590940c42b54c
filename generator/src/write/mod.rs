//! Writes lines to files or a topic, and the tables, geo databases and labels to a folder.

mod accounts;
pub(crate) mod configuration;
pub(crate) mod files;
pub(crate) mod folder;
pub(crate) mod format;
pub(crate) mod lines;
pub(crate) mod progress;
pub(crate) mod send;
