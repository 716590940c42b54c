//! Strings behind ids, ready to be written: quoted and escaped as JSON once.

use hashbrown::HashMap;

use keytide_dataflow::Scope;
use keytide_dataflow::model::{Definition, KeyId, NameId, RouteId};

/// A string and its JSON form.
#[derive(Clone, Debug)]
pub(super) struct Name {
    pub(super) text: Box<str>,
    pub(super) json: Box<[u8]>,
}

impl Name {
    fn new(text: impl Into<Box<str>>) -> Self {
        let text = text.into();
        let json = serde_json::to_vec(&*text).expect("a string can always be written as JSON").into();
        Self { text, json }
    }
}

/// A route's parts, and the id under which `latency` and `callers` name it.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) api: Name,
    pub(super) method: Name,
    pub(super) route: Name,
    pub(super) id: Name,
}

/// All strings a worker was given.
#[derive(Default)]
pub(super) struct Names {
    keys: HashMap<KeyId, Name>,
    routes: HashMap<RouteId, Route>,
    names: HashMap<NameId, Name>,
}

impl Names {
    pub(super) fn define(&mut self, definition: Definition) {
        match definition {
            Definition::Key { id, name } => {
                self.keys.entry(id).or_insert_with(|| Name::new(name));
            }
            Definition::Route { id, api, method, route } => {
                self.routes.entry(id).or_insert_with(|| {
                    let parts: Vec<&str> =
                        [&*api, &*method, &*route].into_iter().filter(|part| !part.is_empty()).collect();
                    let id = Name::new(parts.join(" "));
                    Route { api: Name::new(api), method: Name::new(method), route: Name::new(route), id }
                });
            }
            Definition::Name { id, text } => {
                self.names.entry(id).or_insert_with(|| Name::new(text));
            }
        }
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.keys.extend(other.keys);
        self.routes.extend(other.routes);
        self.names.extend(other.names);
    }

    /// Makes sure that a key can be named: one without a name is its hash.
    pub(super) fn need_key(&mut self, id: KeyId) {
        self.keys.entry(id).or_insert_with(|| Name::new(id.to_string()));
    }

    /// Makes sure that a route can be named.
    pub(super) fn need_route(&mut self, id: RouteId) {
        self.routes.entry(id).or_insert_with(|| {
            let unknown = || Name::new("");
            Route {
                api: unknown(),
                method: unknown(),
                route: unknown(),
                id: Name::new(format!("{:016x}", id.0)),
            }
        });
    }

    pub(super) fn key(&self, id: KeyId) -> &Name {
        &self.keys[&id]
    }

    /// A key's name; its hash where it has none.
    pub(super) fn key_text(&self, id: KeyId) -> std::borrow::Cow<'_, str> {
        self.keys.get(&id).map_or_else(|| id.to_string().into(), |name| (&*name.text).into())
    }

    pub(super) fn route(&self, id: RouteId) -> &Route {
        &self.routes[&id]
    }

    pub(super) fn scope(&self, scope: Scope) -> &Name {
        match scope {
            Scope::Key(key) => self.key(key),
            Scope::Route(route) => &self.route(route).id,
        }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = (&KeyId, &Name)> {
        self.keys.iter()
    }

    pub(super) fn routes(&self) -> impl Iterator<Item = (&RouteId, &Route)> {
        self.routes.iter()
    }

    pub(super) fn others(&self) -> impl Iterator<Item = (&NameId, &Name)> {
        self.names.iter()
    }

    /// `null` where the name is unknown.
    pub(super) fn json(&self, id: NameId) -> &[u8] {
        self.names.get(&id).map_or(b"null", |name| &name.json)
    }

    pub(super) fn text(&self, id: NameId) -> &str {
        self.names.get(&id).map_or("", |name| &name.text)
    }
}

/// A time in milliseconds as RFC 3339, UTC, with as many digits of the second as it has.
pub(super) fn time(ms: u64) -> String {
    i64::try_from(ms)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .unwrap_or(jiff::Timestamp::MAX)
        .to_string()
}
