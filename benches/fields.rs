//! The calls that are made for a measurement have the fields of those that `keytide generate` makes.

/// `[source.fields]` of such calls.
pub(crate) const FIELDS: &str = include_str!("../generator/src/write/fields.toml");
