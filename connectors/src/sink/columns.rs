//! The columns of each view, read from its schema in `schemas/`.
//!
//! The schemas are the one list of columns. Rows are held to them by tests; tables in SQL and in Parquet are made of
//! them. A column that isn't required is one that only the files of a live job have.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use keytide_config::View;
use serde::Deserialize;

use crate::columnar::{Column, ColumnKind};

/// The columns of a view.
#[derive(Debug)]
pub struct ViewColumns {
    /// The first sentences of its documentation.
    pub description: String,
    /// The columns that every row has, key columns first.
    pub common: Vec<Column>,
    /// The same, and behind them those that only files of a live job have.
    pub live: Vec<Column>,
}

/// Returns the columns of a view.
#[must_use]
pub fn columns(view: View) -> &'static ViewColumns {
    &ALL[view as usize]
}

static ALL: LazyLock<[ViewColumns; View::ALL.len()]> = LazyLock::new(|| {
    View::ALL.map(|view| {
        let schema: ViewSchema =
            serde_json::from_str(schema(view)).expect("a schema of this repository can be read");
        schema.columns(view).expect("a schema of this repository has columns of known kinds")
    })
});

const fn schema(view: View) -> &'static str {
    macro_rules! file {
        ($name:literal) => {
            include_str!(concat!("../../../schemas/", $name, ".v1.schema.json"))
        };
    }
    match view {
        View::Usage => file!("usage"),
        View::UsageByRoute => file!("usage_by_route"),
        View::Latency => file!("latency"),
        View::Geo => file!("geo"),
        View::Callers => file!("callers"),
        View::SubscriptionUsage => file!("subscription_usage"),
        View::Quota => file!("quota"),
        View::Charges => file!("charges"),
        View::Bills => file!("bills"),
        View::Forecast => file!("forecast"),
        View::Notices => file!("notices"),
        View::Adjustments => file!("adjustments"),
        View::Incidents => file!("incidents"),
        View::IncidentLog => file!("incident_log"),
        View::Revocations => file!("revocations"),
        View::Denied => file!("denied"),
        View::Audit => file!("audit"),
        View::Late => file!("late"),
        View::DeadLetters => file!("dead_letters"),
    }
}

/// The parts of a JSON Schema that say which columns there are.
#[derive(Deserialize)]
struct ViewSchema {
    description: String,
    properties: BTreeMap<String, Property>,
    /// The columns of every row, in their order.
    required: Vec<String>,
}

#[derive(Deserialize)]
struct Property {
    #[serde(rename = "type")]
    kind: Types,
    format: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Types {
    One(String),
    Several(Vec<String>),
}

impl ViewSchema {
    /// Returns the columns; `None` if one is missing or of an unknown kind.
    fn columns(mut self, view: View) -> Option<ViewColumns> {
        let mut common = Vec::with_capacity(self.required.len());
        for name in self.required {
            let property = self.properties.remove(&name)?;
            common.push(property.column(name)?);
        }
        let mut live = common.clone();
        // Rows that are taken back have the key columns alone.
        if self.properties.contains_key("retracted") {
            live.iter_mut().skip(view.key().len()).for_each(|column| column.is_optional = true);
        }
        for (name, property) in self.properties {
            // Earlier versions wrote rows without them.
            live.push(Column { is_optional: true, ..property.column(name)? });
        }
        Some(ViewColumns { description: self.description, common, live })
    }
}

impl Property {
    fn column(&self, name: String) -> Option<Column> {
        let types = match &self.kind {
            Types::One(name) => std::slice::from_ref(name),
            Types::Several(names) => names,
        };
        let mut kinds = types.iter().map(String::as_str).filter(|kind| *kind != "null");
        let kind = match (kinds.next()?, self.format.as_deref()) {
            ("string", Some("date-time")) => ColumnKind::Time,
            ("string", None) => ColumnKind::Text,
            ("integer", _) => ColumnKind::Integer,
            ("boolean", _) => ColumnKind::Boolean,
            ("object" | "array", _) => ColumnKind::Json,
            _ => return None,
        };
        let is_optional = types.iter().any(|kind| kind == "null");
        kinds.next().is_none().then_some(Column { name, kind, is_optional })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_columns_of_a_view_are_those_of_its_schema() {
        for view in View::ALL {
            let of_view = columns(view);
            let names: Vec<&str> = of_view.common.iter().map(|column| &*column.name).collect();
            assert_eq!(&names[..view.key().len()], view.key(), "key columns come first");
            assert!(of_view.description.ends_with(&format!("Key: {}.", view.key().join(", "))));
            let more: Vec<&str> = of_view.live[names.len()..].iter().map(|column| &*column.name).collect();
            let retracted = matches!(
                view,
                View::SubscriptionUsage
                    | View::Quota
                    | View::Charges
                    | View::Bills
                    | View::Forecast
                    | View::Denied
            );
            assert_eq!(
                more,
                if retracted { &["retracted", "tick", "version"][..] } else { &["tick", "version"] }
            );
        }
        let of = |view, name: &str| {
            let column = columns(view).common.iter().find(|column| column.name == name).unwrap();
            (column.kind, column.is_optional)
        };
        assert_eq!(of(View::Usage, "window_start"), (ColumnKind::Time, false));
        assert_eq!(of(View::Usage, "customer"), (ColumnKind::Text, true));
        assert_eq!(of(View::Incidents, "ended_at"), (ColumnKind::Time, true));
        assert_eq!(of(View::DeadLetters, "kept"), (ColumnKind::Json, true));
        assert_eq!(of(View::Late, "counted"), (ColumnKind::Boolean, false));
        let retracted = &columns(View::SubscriptionUsage).live;
        assert!(retracted[..3].iter().all(|column| !column.is_optional));
        assert!(retracted[3..].iter().all(|column| column.is_optional));
    }

    #[test]
    fn a_column_of_another_kind_is_none() {
        for property in [
            r#"{"type": "number"}"#,
            r#"{"type": ["string", "integer"]}"#,
            r#"{"type": "null"}"#,
            r#"{"type": "string", "format": "uri"}"#,
        ] {
            let property: Property = serde_json::from_str(property).unwrap();
            assert_eq!(property.column("a".to_owned()), None);
        }
    }
}
