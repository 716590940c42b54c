//! Any JSON object, with its fields at the pointers of `[source.fields]`. There are no headers. A rule `query:NAME`
//! reads the path's query.

use super::shape::{RecordFormat, Template};

pub(super) const FORMAT: RecordFormat = RecordFormat { template: Template::Escaped, ..RecordFormat::EMPTY };
