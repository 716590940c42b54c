//! The strings behind ids, quoted and escaped as JSON once, ready to be written.
//!
//! A string costs about 100 bytes and twice its length. Strings that the dataflow no longer needs are forgotten. Those of
//! tables can be shared: the workers of a bounded run have one copy.
//! Hashed keys have no string: their id is written.

use std::borrow::Cow;
use std::sync::Arc;

use hashbrown::HashMap;
use keytide_dataflow::model::{Definition, Forgotten, KeyId, NameId, RouteId};

/// A string and its JSON form.
#[derive(Clone, Debug)]
pub struct JsonName {
    pub text: Box<str>,
    /// The text, quoted and escaped.
    pub json: Box<[u8]>,
}

impl JsonName {
    fn new(text: impl Into<Box<str>>) -> Self {
        let text = text.into();
        let json = serde_json::to_vec(&*text).expect("a string can always be written as JSON").into();
        Self { text, json }
    }
}

/// The parts of a route, and the id under which `latency` and `callers` name it.
#[derive(Clone, Debug)]
pub struct RouteNames {
    /// The name of the API or service, empty if the gateway names none.
    pub api: JsonName,
    pub method: JsonName,
    pub route: JsonName,
    /// The parts that aren't empty, separated by spaces.
    pub id: JsonName,
}

impl RouteNames {
    /// Makes the route that stands for all beyond the caps.
    fn overflow() -> Self {
        let [api, method, route] = RouteId::OVERFLOW_PARTS.map(JsonName::new);
        Self { api, method, id: route.clone(), route }
    }

    fn unknown(id: RouteId) -> Self {
        let unknown = || JsonName::new("");
        Self {
            api: unknown(),
            method: unknown(),
            route: unknown(),
            id: JsonName::new(format!("{:016x}", id.0)),
        }
    }
}

/// All strings that were defined, and the route `overflow`.
#[derive(Debug)]
pub struct Names {
    keys: HashMap<KeyId, JsonName>,
    routes: HashMap<RouteId, RouteNames>,
    agents: HashMap<NameId, Box<str>>,
    /// The strings of tables. Those that share them copy them before they add one.
    names: Arc<HashMap<NameId, JsonName>>,
}

impl Default for Names {
    fn default() -> Self {
        let routes = HashMap::from([(RouteId::OVERFLOW, RouteNames::overflow())]);
        Self { keys: HashMap::new(), routes, agents: HashMap::new(), names: Arc::default() }
    }
}

impl Names {
    /// Adds a string, unless its id is defined already.
    pub fn define(&mut self, definition: Definition) {
        match definition {
            Definition::Key { id, name, .. } => {
                self.keys.entry(id).or_insert_with(|| JsonName::new(name));
            }
            Definition::Route { id, api, method, route, .. } => {
                self.routes.entry(id).or_insert_with(|| {
                    let parts: Vec<&str> =
                        [&*api, &*method, &*route].into_iter().filter(|part| !part.is_empty()).collect();
                    let id = JsonName::new(parts.join(" "));
                    RouteNames {
                        api: JsonName::new(api),
                        method: JsonName::new(method),
                        route: JsonName::new(route),
                        id,
                    }
                });
            }
            Definition::Agent { id, text, .. } => {
                self.agents.entry(id).or_insert(text);
            }
            Definition::Name { id, text } => {
                if !self.names.contains_key(&id) {
                    Arc::make_mut(&mut self.names).insert(id, JsonName::new(text));
                }
            }
        }
    }

    /// Returns the strings of tables alone. Both share them.
    #[must_use]
    pub fn of_tables(&self) -> Self {
        Self { names: Arc::clone(&self.names), ..Self::default() }
    }

    /// Drops the string of an id.
    pub fn forget(&mut self, forgotten: Forgotten) {
        match forgotten {
            Forgotten::Key(id) => drop(self.keys.remove(&id)),
            Forgotten::Route(id) => drop(self.routes.remove(&id)),
            Forgotten::Agent(id) => drop(self.agents.remove(&id)),
        }
    }

    /// Adds all strings of another table.
    pub fn merge(&mut self, other: Self) {
        self.keys.extend(other.keys);
        self.routes.extend(other.routes);
        self.agents.extend(other.agents);
        if self.names.is_empty() {
            self.names = other.names;
        } else if !Arc::ptr_eq(&self.names, &other.names) {
            Arc::make_mut(&mut self.names).extend(Arc::unwrap_or_clone(other.names));
        }
    }

    /// Returns a key's name, if it is listed.
    #[must_use]
    pub fn key(&self, id: KeyId) -> Option<&JsonName> {
        self.keys.get(&id)
    }

    /// Returns a key's name, or its hash if it has none.
    #[must_use]
    pub fn key_text(&self, id: KeyId) -> Cow<'_, str> {
        self.key(id).map_or_else(|| id.to_string().into(), |name| (&*name.text).into())
    }

    /// Returns a route, with its hash as id if it is undefined.
    #[must_use]
    pub fn route(&self, id: RouteId) -> Cow<'_, RouteNames> {
        self.routes.get(&id).map_or_else(|| Cow::Owned(RouteNames::unknown(id)), Cow::Borrowed)
    }

    /// Returns a route, if it is listed.
    #[must_use]
    pub fn listed_route(&self, id: RouteId) -> Option<&RouteNames> {
        self.routes.get(&id)
    }

    /// Returns a user agent, or `agent-` and its hash if it isn't known.
    #[must_use]
    pub fn agent(&self, id: NameId) -> Cow<'_, str> {
        self.agents.get(&id).map_or_else(|| format!("agent-{:016x}", id.0).into(), |text| (&**text).into())
    }

    /// Returns a string as JSON, or `null` if it is unknown.
    #[must_use]
    pub fn json(&self, id: NameId) -> &[u8] {
        self.names.get(&id).map_or(b"null", |name| &name.json)
    }

    /// Returns a string, if it is known.
    #[must_use]
    pub fn name(&self, id: NameId) -> Option<&str> {
        self.names.get(&id).map(|name| &*name.text)
    }

    /// Returns a string, or an empty one if it is unknown.
    #[must_use]
    pub fn text(&self, id: NameId) -> &str {
        self.name(id).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_of_tables_are_shared_until_one_is_added() {
        let name = |text: &str| Definition::Name { id: NameId::new(text), text: text.into() };
        let has = |names: &Names, text: &str| names.name(NameId::new(text)) == Some(text);
        let mut all = Names::default();
        ["acme", "gold"].into_iter().for_each(|text| all.define(name(text)));
        let (mut one, mut other) = (all.of_tables(), all.of_tables());
        one.define(name("acme"));
        assert!(Arc::ptr_eq(&one.names, &all.names), "a string that is known changes nothing");
        other.define(name("silver"));
        assert!(has(&other, "acme") && has(&other, "silver") && !has(&all, "silver"));
        let mut merged = Names::default();
        for names in [one, all.of_tables(), other] {
            merged.merge(names);
        }
        assert!(["acme", "gold", "silver"].iter().all(|text| has(&merged, text)));
        assert!(!has(&all, "silver"));
    }
}
