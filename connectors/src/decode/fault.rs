//! Reasons why a record can't be an event.

use std::fmt;

/// A field, and the problem with it or the values allowed there. It never quotes a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    field: &'static str,
    problem: &'static str,
}

impl Fault {
    pub(super) const fn new(field: &'static str, problem: &'static str) -> Self {
        Self { field, problem }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}
