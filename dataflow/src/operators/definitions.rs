//! Strings behind ids, handed to the worker whose rows need them: a key's name to the key's worker, all
//! others to every worker.

use hashbrown::HashSet;
use serde::{Deserialize, Serialize};

use super::by_tick::Closing;
use crate::model::Definition;
use crate::state::{Durable, Footprint, Shard, StateId};

/// Definitions that were handed out.
#[derive(Default)]
pub(crate) struct Definitions {
    known: HashSet<Definition>,
    /// Definitions were taken back and have to be handed out again.
    restored: bool,
}

/// Where a definition is needed.
pub(crate) fn shard(definition: &Definition) -> Shard {
    match definition {
        Definition::Key { id, .. } => Shard::Of(id.shard()),
        Definition::Route { .. } | Definition::Name { .. } => Shard::All,
    }
}

/// A definition and the index of the worker it goes to.
pub(crate) type Addressed = (u64, Definition);

impl Definitions {
    pub(crate) fn close(
        state: &mut Self,
        definitions: Vec<Vec<Addressed>>,
        _: Vec<Vec<()>>,
        closing: Closing<'_, ()>,
    ) {
        let mut new = Vec::new();
        if std::mem::take(&mut state.restored) {
            new.extend(state.known.iter().cloned());
        }
        for (_, definition) in definitions.into_iter().flatten() {
            if !state.known.contains(&definition) {
                state.known.insert(definition.clone());
                new.push(definition);
            }
        }
        if !new.is_empty() {
            closing.output.define(new);
        }
    }
}

/// A stored definition.
#[derive(Serialize, Deserialize)]
pub(crate) struct StoredDefinition(Definition);

impl Durable for Definitions {
    const ID: StateId = StateId::Definitions;
    type Row = StoredDefinition;

    fn rows_out(&self, out: &mut dyn FnMut(StoredDefinition)) {
        for definition in &self.known {
            out(StoredDefinition(definition.clone()));
        }
    }

    fn row_in(&mut self, StoredDefinition(definition): StoredDefinition) {
        self.known.insert(definition);
        self.restored = true;
    }

    fn shard(row: &StoredDefinition) -> Shard {
        shard(&row.0)
    }

    fn footprint(&self) -> Footprint {
        Footprint::of_set_with(&self.known, |definition| match definition {
            Definition::Key { name, .. } => name.len(),
            Definition::Route { api, method, route, .. } => api.len() + method.len() + route.len(),
            Definition::Name { text, .. } => text.len(),
        })
    }
}
