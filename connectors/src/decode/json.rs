//! Any JSON object: everything stands where `[source.fields]` says. There are no headers; a rule `query:NAME`
//! reads the path's query.

use super::shape::{Format, Template};

pub(super) const FORMAT: Format = Format { template: Template::Escaped, ..Format::EMPTY };
