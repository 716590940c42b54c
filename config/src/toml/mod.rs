//! Reads a file and reports its problems, whatever its keys are.

pub(crate) mod name;
pub(crate) mod near;
pub(crate) mod overrides;
pub(crate) mod problem;
pub(crate) mod read;
pub(crate) mod tree;
pub(crate) mod value;
