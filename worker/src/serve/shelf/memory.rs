//! The shelf in a checkpoint.
//!
//! ```text
//! views with their columns | number of subjects | (view, subject, rows), ...     each by postcard
//! ```
//! Rows are packed by the columns that views had. If they have others now, rows are packed anew.

use std::sync::Arc;

use hashbrown::DefaultHashBuilder;
use keytide_config::View;
use keytide_connectors::sink::{PlacedRow, RowSubject};
use keytide_dataflow::model::Tick;
use serde::{Deserialize, Serialize};

use super::packed::Columns;
use super::{Shard, SubjectRows, apply, shard_of};

/// The shelf as it was, which may take more rows before it is written.
#[derive(Debug)]
pub struct ShelfMemory {
    pub(super) shards: Vec<Shard>,
    pub(super) hasher: DefaultHashBuilder,
    pub(super) columns: Arc<[Columns]>,
}

/// A view and its columns.
#[derive(Serialize, Deserialize)]
struct ViewThen {
    name: String,
    columns: Vec<String>,
}

impl ShelfMemory {
    /// Takes the rows of a later tick.
    pub fn apply(&mut self, tick: Tick, rows: &[PlacedRow]) {
        for row in rows {
            let shard = shard_of(&self.hasher, &(row.view, row.place.subject));
            // Its bytes are counted when it is restored.
            apply(&mut self.shards[shard], tick, row, &self.columns);
        }
    }

    /// Returns the number of subjects.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(Shard::len).sum()
    }

    /// Returns whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the bytes for a checkpoint, in the order of views and subjects.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        let columns = |view: View| self.columns[view as usize].names();
        let views = View::ALL.map(|view| ViewThen { name: view.name().to_owned(), columns: columns(view) });
        let mut subjects: Vec<_> = self.shards.into_iter().flatten().collect();
        subjects.sort_unstable_by_key(|(subject, _)| *subject);
        let rows = subjects.iter().map(|((view, subject), rows)| (*view as u64, subject, rows));
        let rows: Vec<_> = rows.collect();
        postcard::to_stdvec(&(Vec::from(views), rows)).expect("plain data can be written to memory")
    }
}

/// Reads subjects and their rows. Those of views that this version hasn't got are left out.
pub(super) fn decode(
    bytes: &[u8],
    columns: &[Columns],
    mut each: impl FnMut((View, RowSubject), SubjectRows),
) -> Result<(), postcard::Error> {
    let (views, mut rest): (Vec<ViewThen>, &[u8]) = postcard::take_from_bytes(bytes)?;
    let then = |ViewThen { name, columns }| (View::named(&name), Columns::new(columns));
    let views: Vec<(Option<View>, Columns)> = views.into_iter().map(then).collect();
    let count: u64;
    (count, rest) = postcard::take_from_bytes(rest)?;
    for _ in 0..count {
        let (view, subject, mut rows): (u64, RowSubject, SubjectRows);
        ((view, subject, rows), rest) = postcard::take_from_bytes(rest)?;
        let found = usize::try_from(view).ok().and_then(|view| views.get(view));
        let Some((Some(view), then)) = found else { continue };
        let now = &columns[*view as usize];
        if then != now {
            let SubjectRows { head, series, .. } = &mut rows;
            for series in series.values_mut() {
                let again = |at, row: &[u8]| now.pack(&then.unpack(row, head, at), head, at);
                *series = Arc::new(series.map(again));
            }
        }
        each((*view, subject), rows);
    }
    Ok(())
}
