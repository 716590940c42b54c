//! Any JSON object: everything stands where `[source.fields]` says. There are no headers; a rule `query:NAME`
//! reads the path's query.

use super::shape::{RecordFormat, Template};

pub(super) const FORMAT: RecordFormat = RecordFormat { template: Template::Escaped, ..RecordFormat::EMPTY };
