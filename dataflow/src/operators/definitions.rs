//! Keeps the strings of tables' rows and puts each out once. Their number is that of the tables' rows, which the operator
//! of the job decides, so there is no cap. Strings of keys and routes come with traffic: see `admission` and `routes`.
//!
//! Strings are dealt to workers by their ids, so the job has one copy of each. That suffices because who encodes rows
//! gets the output of all workers for a tick first. A bounded run, whose workers encode rows themselves, gives them the
//! strings without the dataflow.

use hashbrown::HashMap;
use serde::{Deserialize, Serialize};

use super::parts::by_tick::Closing;
use crate::model::{Definition, NameId};
use crate::state::{Durable, Footprint, RowsOut, Shard, StateId};

/// Returns the number by which a string of tables is dealt to workers.
pub(crate) fn shard(definition: &Definition) -> u64 {
    match definition {
        Definition::Name { id, .. } => id.bucket().into(),
        Definition::Key { .. } | Definition::Route { .. } | Definition::Agent { .. } => 0,
    }
}

/// The strings of tables that were dealt to this worker.
#[derive(Default)]
pub(crate) struct Definitions {
    known: HashMap<NameId, Box<str>>,
    /// True if strings were restored and have to be published again.
    restored: bool,
}

impl Definitions {
    pub(crate) fn publish_new(
        state: &mut Self,
        definitions: Vec<Vec<Definition>>,
        _: Vec<Vec<()>>,
        closing: Closing<'_, ()>,
    ) {
        let mut new = Vec::new();
        if std::mem::take(&mut state.restored) {
            new.extend(state.known.iter().map(|(id, text)| Definition::Name { id: *id, text: text.clone() }));
        }
        for definition in definitions.into_iter().flatten() {
            if let Definition::Name { id, text } = &definition
                && !state.known.contains_key(id)
            {
                state.known.insert(*id, text.clone());
                new.push(definition);
            }
        }
        if !new.is_empty() {
            closing.output.define(closing.info.tick, new);
        }
    }
}

/// A string of a name as it is stored.
#[derive(Serialize, Deserialize)]
pub(crate) struct StoredName(NameId, Box<str>);

impl Durable for Definitions {
    const ID: StateId = StateId::Definitions;
    type Row<'a> = StoredName;

    fn rows_out(&mut self, out: &mut dyn RowsOut<Self>) {
        for (id, text) in &self.known {
            out.row(StoredName(*id, text.clone()));
        }
    }

    fn row_in(&mut self, StoredName(id, text): StoredName) {
        self.known.insert(id, text);
        self.restored = true;
    }

    fn shard(StoredName(id, _): &StoredName) -> Shard {
        Shard::Of(id.bucket().into())
    }

    fn footprint(&self) -> Footprint {
        Footprint::of_map_with(&self.known, |text| text.len())
    }
}
