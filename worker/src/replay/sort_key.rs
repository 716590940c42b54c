//! Sort keys of rows: the texts of their key columns, or the digits of an id that has no name.

use std::cmp::Ordering;

use keytide_connectors::sink::encode::{EncodeRow, ScopeValue};
use keytide_connectors::sink::names::{Names, RouteNames};
use keytide_dataflow::model::{Country, EventTime, KeyId, NameId, RouteId, id_digits};
use keytide_dataflow::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A row of a view that can be kept and sorted.
pub(super) trait ViewRow: EncodeRow + Clone + Send + Sync + Serialize + DeserializeOwned {
    /// Orders the rows of the view; no two rows have the same.
    type SortKey<'a>: Ord + Copy + Send + Sync;

    /// Returns the sort key. The names of the key, route or subscription must be defined, if it has any.
    fn sort_key<'a>(&self, names: &'a Names) -> Self::SortKey<'a>;
}

/// A key by its name, or by the digits of its id.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ShownKey<'a> {
    /// Two words, as a number of 128 bits would impose its alignment on every sort key.
    Id(u64, u64),
    Name(&'a str),
}

impl<'a> ShownKey<'a> {
    fn new(key: KeyId, names: &'a Names) -> Self {
        match (names.key(key), key.bucket_name()) {
            (Some(name), _) => Self::Name(&name.text),
            (None, Some(name)) => Self::Name(name),
            (None, None) => Self::Id((key.0 >> 64) as u64, key.0 as u64),
        }
    }
}

impl Ord for ShownKey<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Id(high, low), Self::Id(other_high, other_low)) => {
                (high, low).cmp(&(other_high, other_low))
            }
            (Self::Name(name), Self::Name(other)) => name.cmp(other),
            // Of equal texts the id comes first.
            (Self::Id(high, low), Self::Name(name)) => id_digits(u128::from(*high) << 64 | u128::from(*low))
                .as_slice()
                .cmp(name.as_bytes())
                .then(Ordering::Less),
            (Self::Name(_), Self::Id(..)) => other.cmp(self).reverse(),
        }
    }
}

impl PartialOrd for ShownKey<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A route by its columns api, method and route.
#[derive(Clone, Copy)]
pub(super) struct ShownRoute<'a> {
    id: RouteId,
    parts: Option<&'a RouteNames>,
}

impl ShownRoute<'_> {
    fn texts(&self) -> [&str; 3] {
        self.parts.map_or([""; 3], |route| [&route.api, &route.method, &route.route].map(|part| &*part.text))
    }
}

impl Ord for ShownRoute<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        if self.id == other.id {
            Ordering::Equal
        } else {
            self.texts().cmp(&other.texts()).then(self.id.cmp(&other.id))
        }
    }
}

impl PartialOrd for ShownRoute<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ShownRoute<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for ShownRoute<'_> {}

/// A scope; keys come before routes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ShownScope<'a> {
    Key(ShownKey<'a>),
    /// Several routes may have the same text.
    Route(&'a str, RouteId),
}

/// A window, ordered by its label and then by its start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ShownWindow(u64);

impl ShownWindow {
    fn new(level: Level, start: EventTime) -> Self {
        let rank = match level {
            Level::Day => 0,
            Level::Hour => 1,
            Level::Minute => 2,
            Level::Month => 3,
            Level::FiveMinutes => 4,
        };
        Self(rank << 56 | start)
    }
}

impl ViewRow for Row<KeyId, OwnedUsage> {
    type SortKey<'a> = (ShownKey<'a>, ShownWindow);

    fn sort_key<'a>(&self, names: &'a Names) -> Self::SortKey<'a> {
        (ShownKey::new(self.group, names), ShownWindow::new(self.level, self.start))
    }
}

impl ViewRow for Row<KeyRoute, OwnedUsage> {
    type SortKey<'a> = (ShownKey<'a>, ShownRoute<'a>, ShownWindow);

    fn sort_key<'a>(&self, names: &'a Names) -> Self::SortKey<'a> {
        let KeyRoute { key, route } = self.group;
        let route = ShownRoute { id: route, parts: names.listed_route(route) };
        (ShownKey::new(key, names), route, ShownWindow::new(self.level, self.start))
    }
}

impl<V: ScopeValue + Clone + Serialize + DeserializeOwned> ViewRow for Row<Scope, V> {
    type SortKey<'a> = (ShownScope<'a>, ShownWindow);

    fn sort_key<'a>(&self, names: &'a Names) -> Self::SortKey<'a> {
        let scope = match self.group {
            Scope::Key(key) => ShownScope::Key(ShownKey::new(key, names)),
            Scope::Route(route) => {
                ShownScope::Route(names.listed_route(route).map_or("", |listed| &listed.id.text), route)
            }
        };
        (scope, ShownWindow::new(self.level, self.start))
    }
}

impl ViewRow for Row<KeyCountry, CountryCalls> {
    type SortKey<'a> = (ShownKey<'a>, Country, ShownWindow);

    fn sort_key<'a>(&self, names: &'a Names) -> Self::SortKey<'a> {
        let KeyCountry { key, country } = self.group;
        (ShownKey::new(key, names), country, ShownWindow::new(self.level, self.start))
    }
}

impl ViewRow for Row<NameId, Option<SubscriptionUsage>> {
    type SortKey<'a> = (&'a str, NameId, ShownWindow);

    fn sort_key<'a>(&self, names: &'a Names) -> Self::SortKey<'a> {
        (names.text(self.group), self.group, ShownWindow::new(self.level, self.start))
    }
}

pub(super) type Keyed<'a, 'r, R> = Vec<(<R as ViewRow>::SortKey<'a>, &'r R)>;

/// Returns rows with their sort keys, in no order.
pub(super) fn keyed<'a, 'r, R: ViewRow>(
    rows: impl Iterator<Item = &'r R>,
    names: &'a Names,
) -> Keyed<'a, 'r, R> {
    rows.map(|row| (row.sort_key(names), row)).collect()
}

#[cfg(test)]
mod tests {
    use keytide_dataflow::model::Definition;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_stand_in_the_order_of_their_texts(
            ids in prop::collection::vec(any::<u128>(), 2..20), texts in prop::collection::vec("[0-9a-z]{0,33}", 2..20)
        ) {
            let mut names = Names::default();
            let mut keys: Vec<KeyId> = ids.into_iter().map(KeyId).collect();
            keys.extend(KeyId::BUCKETS);
            for text in texts {
                let id = KeyId::from_name(&text);
                names.define(Definition::Key { id, name: text.into(), month: None });
                keys.push(id);
            }
            // Shares all but its last digits with one that has none.
            let near = format!("{:031x}", keys[0].0 >> 4);
            let id = KeyId::from_name(&near);
            names.define(Definition::Key { id, name: near.as_str().into(), month: None });
            keys.push(KeyId::from_name(&near));
            let mut by_text: Vec<String> = keys.iter().map(|key| names.key_text(*key).into_owned()).collect();
            by_text.sort();
            keys.sort_by_key(|key| ShownKey::new(*key, &names));
            let shown: Vec<String> = keys.iter().map(|key| names.key_text(*key).into_owned()).collect();
            prop_assert_eq!(shown, by_text);
        }
    }
}
