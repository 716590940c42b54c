//! The views, declared by one line each, from which all other code takes names, keys and topics.
//!
//! A view is a topic of `[sink.kafka]`, a series of files of `[sink.files]`, a file of `replay`, and a schema in
//! `schemas/`. Its rows begin with the key columns. In an upsert view a row replaces the earlier one of its key, so the
//! topic is compacted. In an append view every row stays, so the topic must never be compacted.

/// Makes [`View`] of one line a view: variant, name, kind, key columns.
macro_rules! views {
    ($($view:ident $name:literal $kind:ident [$($column:literal),+],)+) => {
        /// A view of the results. `view as usize` is its index in [`ALL`](Self::ALL).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum View {
            $(#[doc = concat!("The view `", $name, "`.")] $view,)+
        }

        impl View {
            /// All views, in the order in which they are listed and published.
            pub const ALL: [Self; [$(Self::$view),+].len()] = [$(Self::$view),+];

            /// The names of all views, in the order of [`ALL`](Self::ALL).
            pub const NAMES: [&str; Self::ALL.len()] = [$($name),+];

            /// Returns the name in topics, files and schemas.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$view => $name,)+ }
            }

            /// Returns the key columns, in the order in which rows begin with them.
            #[must_use]
            pub const fn key(self) -> &'static [&'static str] {
                match self { $(Self::$view => &[$($column),+],)+ }
            }

            const fn kind(self) -> RowKind {
                match self { $(Self::$view => RowKind::$kind,)+ }
            }
        }
    };
}

/// The relation between the rows of one key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RowKind {
    Upsert,
    Append,
}

views! {
    Usage "usage" Upsert ["key_id", "window", "window_start"],
    UsageByRoute "usage_by_route" Upsert ["key_id", "api", "method", "route", "window", "window_start"],
    Latency "latency" Upsert ["scope", "id", "window", "window_start"],
    Geo "geo" Upsert ["key_id", "country", "window", "window_start"],
    Callers "callers" Upsert ["scope", "id", "window", "window_start"],
    SubscriptionUsage "subscription_usage" Upsert ["subscription", "window", "window_start"],
    Quota "quota" Upsert ["subscription", "metric", "period", "period_start"],
    Charges "charges" Upsert ["subscription", "period_start", "item"],
    Bills "bills" Upsert ["subscription", "period_start"],
    Forecast "forecast" Upsert ["subscription", "metric", "period", "period_start"],
    Notices "notices" Append ["subscription", "seq"],
    Adjustments "adjustments" Append ["subscription", "seq"],
    Incidents "incidents" Upsert ["incident_id"],
    IncidentLog "incident_log" Append ["incident_id", "seq"],
    Revocations "revocations" Upsert ["action_id"],
    Denied "denied" Upsert ["key_id"],
    Audit "audit" Append ["target", "seq"],
    Late "late" Append ["source", "partition", "offset", "index"],
    DeadLetters "dead_letters" Append ["source", "partition", "offset", "index"],
}

impl View {
    /// Returns whether a row replaces the earlier rows of its key.
    #[must_use]
    pub fn is_upsert(self) -> bool {
        self.kind() == RowKind::Upsert
    }

    /// Returns the name of the topic, with the `prefix` of `[sink.kafka]`.
    #[must_use]
    pub fn topic(self, prefix: &str) -> String {
        format!("{prefix}.{}.v1", self.name())
    }

    /// Returns the view of a name; `None` for other names.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|view| view.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_of_views_are_unique() {
        assert_eq!(View::NAMES, View::ALL.map(View::name));
        assert_eq!(BTreeSet::from(View::NAMES).len(), View::ALL.len());
        for (location, view) in View::ALL.into_iter().enumerate() {
            assert_eq!((view as usize, View::named(view.name())), (location, Some(view)));
        }
        assert_eq!(View::named("Usage"), None);
    }

    #[test]
    fn a_row_that_only_adds_to_a_history_is_not_replaced() {
        let appended: Vec<View> = View::ALL.into_iter().filter(|view| !view.is_upsert()).collect();
        assert_eq!(
            appended,
            [View::Notices, View::Adjustments, View::IncidentLog, View::Audit, View::Late, View::DeadLetters]
        );
        assert_eq!(View::UsageByRoute.topic("a.b"), "a.b.usage_by_route.v1");
    }
}
