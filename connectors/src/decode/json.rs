//! Any JSON object: everything stands where `[source.fields]` says. There are no headers; a rule `query:NAME`
//! reads the path's query.

use keytide_config::Unit;

use super::shape::Format;

pub(super) const FORMAT: Format =
    Format { fields: &[], headers: None, query: None, unit: Unit::Millis, finish: |_| {} };
