//! Strings behind ids, ready to be written: quoted and escaped as JSON once.
//!
//! A string costs about 100 bytes and twice its length. What the dataflow needs no more is forgotten. Hashed keys have none: their id is written.

use std::borrow::Cow;

use hashbrown::HashMap;
use keytide_dataflow::model::{Definition, Forgotten, KeyId, NameId, RouteId};

/// A string and its JSON form.
#[derive(Clone, Debug)]
pub struct JsonName {
    pub text: Box<str>,
    /// The same, quoted and escaped.
    pub json: Box<[u8]>,
}

impl JsonName {
    fn new(text: impl Into<Box<str>>) -> Self {
        let text = text.into();
        let json = serde_json::to_vec(&*text).expect("a string can always be written as JSON").into();
        Self { text, json }
    }
}

/// A route's parts, and the id under which `latency` and `callers` name it.
#[derive(Clone, Debug)]
pub struct RouteNames {
    /// API or service; empty where the gateway names none.
    pub api: JsonName,
    pub method: JsonName,
    pub route: JsonName,
    /// What is there of the three, separated by spaces.
    pub id: JsonName,
}

impl RouteNames {
    /// The one beyond the caps.
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
    names: HashMap<NameId, JsonName>,
}

impl Default for Names {
    fn default() -> Self {
        let routes = HashMap::from([(RouteId::OVERFLOW, RouteNames::overflow())]);
        Self { keys: HashMap::new(), routes, agents: HashMap::new(), names: HashMap::new() }
    }
}

impl Names {
    /// Adds a string; the first definition of an id stays.
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
                self.names.entry(id).or_insert_with(|| JsonName::new(text));
            }
        }
    }

    /// Drops the string of an id.
    pub fn forget(&mut self, forgotten: Forgotten) {
        match forgotten {
            Forgotten::Key(id) => drop(self.keys.remove(&id)),
            Forgotten::Route(id) => drop(self.routes.remove(&id)),
            Forgotten::Agent(id) => drop(self.agents.remove(&id)),
        }
    }

    /// Adds another table.
    pub fn merge(&mut self, other: Self) {
        self.keys.extend(other.keys);
        self.routes.extend(other.routes);
        self.agents.extend(other.agents);
        self.names.extend(other.names);
    }

    /// A key's name, if it is listed.
    #[must_use]
    pub fn key(&self, id: KeyId) -> Option<&JsonName> {
        self.keys.get(&id)
    }

    /// A key's name; its hash where it has none.
    #[must_use]
    pub fn key_text(&self, id: KeyId) -> Cow<'_, str> {
        self.key(id).map_or_else(|| id.to_string().into(), |name| (&*name.text).into())
    }

    /// A route; one that nobody defined has its hash as id.
    #[must_use]
    pub fn route(&self, id: RouteId) -> Cow<'_, RouteNames> {
        self.routes.get(&id).map_or_else(|| Cow::Owned(RouteNames::unknown(id)), Cow::Borrowed)
    }

    /// A route, if it is listed.
    #[must_use]
    pub fn listed_route(&self, id: RouteId) -> Option<&RouteNames> {
        self.routes.get(&id)
    }

    /// A user agent; `agent-` and its hash where it isn't known.
    #[must_use]
    pub fn agent(&self, id: NameId) -> Cow<'_, str> {
        self.agents.get(&id).map_or_else(|| format!("agent-{:016x}", id.0).into(), |text| (&**text).into())
    }

    /// A string as JSON; `null` where it is unknown.
    #[must_use]
    pub fn json(&self, id: NameId) -> &[u8] {
        self.names.get(&id).map_or(b"null", |name| &name.json)
    }

    /// A string, if it is known.
    #[must_use]
    pub fn name(&self, id: NameId) -> Option<&str> {
        self.names.get(&id).map(|name| &*name.text)
    }

    /// A string; empty where it is unknown.
    #[must_use]
    pub fn text(&self, id: NameId) -> &str {
        self.name(id).unwrap_or_default()
    }
}
