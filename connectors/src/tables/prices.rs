//! Judges the tiers of a file's prices together.
//!
//! A row of the table of prices is one tier. The rows of a plan, an item and a date are a price together, or they are
//! none: two of them have the same bound, or no tier is the last. Then all of them are refused, with the fault. The other
//! items of the file stay.
//!
//! A row that can't be read is a tier that is missing. Without it the rest may still be a price, and a wrong one: who
//! misspells the price of the free tier would bill it as the next. So all rows of its plan and item are refused with it.
//!
//! Tiers are put in the order of their bounds first, as a database exports rows in any order. A row that stands twice
//! counts once. Rows of a topic come one by one, so their prices are judged where bills are made.
//!
//! Limits: a row takes 48 bytes more until the file is read.

use std::collections::BTreeMap;

use hashbrown::{HashMap, HashSet};
use keytide_billing::{Price, TierRow};
use keytide_dataflow::model::{EventTime, NameId, PriceRow, TableChange, TableRow};

use super::row::{Fault, RawRow};

/// The plan, the item and the date of rows that are a price together.
pub(super) type PriceSet = (NameId, NameId, Option<EventTime>);

/// Returns the price that a row is a tier of. Rows of other tables are of none.
pub(super) fn price_of(row: &TableRow) -> Option<PriceSet> {
    let TableRow::Price(row) = row else { return None };
    Some((row.plan, row.item, row.valid_from))
}

/// The plans and items of rows that were refused by themselves.
#[derive(Default)]
pub(super) struct RefusedTiers(HashSet<(NameId, NameId)>);

impl RefusedTiers {
    /// Notes a refused row, if it says of which plan and item it is.
    pub(super) fn add(&mut self, row: &RawRow<'_>) {
        let name = |column| row.text(column).ok().flatten().map(NameId::new);
        self.0.extend(name("plan").zip(name("item")));
    }

    /// Returns the faults of accepted rows, by their places.
    pub(super) fn judge(&self, rows: &[TableChange]) -> BTreeMap<usize, Fault> {
        let mut sets: HashMap<PriceSet, Vec<(usize, &PriceRow)>> = HashMap::new();
        for (place, change) in rows.iter().enumerate() {
            if let (TableRow::Price(row), Some(set)) = (&change.row, price_of(&change.row)) {
                sets.entry(set).or_default().push((place, row));
            }
        }
        let mut faults = BTreeMap::new();
        for ((plan, item, _), rows) in sets {
            if let Some(fault) = self.fault((plan, item), &rows) {
                faults.extend(rows.iter().map(|(place, _)| (*place, fault.clone())));
            }
        }
        faults
    }

    fn fault(&self, item: (NameId, NameId), rows: &[(usize, &PriceRow)]) -> Option<Fault> {
        if self.0.contains(&item) {
            let fault = "another row of its plan and item is refused, without which its price would be wrong";
            return Some(fault.to_owned());
        }
        let mut tiers: Vec<TierRow> = rows.iter().map(|(_, row)| row.tier.clone()).collect();
        tiers.sort_by_key(|tier| (tier.up_to.is_none(), tier.up_to));
        let mut seen = HashSet::new();
        tiers.retain(|tier| seen.insert(tier.clone()));
        Price::new(&tiers).err().map(|fault| fault.to_string())
    }
}
