//! Puts a tick's events in the order of their keys, on the worker that owns them.
//!
//! Admission and every metric then look up a key or a group once per run of equal ones instead of once per event.
//! They find the maps' entries in their caches. Order within a tick has no meaning, so this changes no result. On an
//! hour of 20,000 keys (Zipf 1.05) the metrics' share of a replay's CPU fell from 10.7 to 8.8 %. The cost of sorting
//! itself was within the machine's noise.

use crate::model::{AccessEvent, KeyId, TickInfo};
use crate::window::Level;

/// The number of events in one batch, which takes 128 KiB.
const BATCH: usize = 1_024;

/// Returns the indices of a tick's events in the order of key, minute and route.
pub(crate) fn order(batches: &[Vec<AccessEvent>], info: &TickInfo) -> Vec<u128> {
    let first_minute = Level::Minute.start(info.watermark_before);
    // Key, minute, route and index in one number: sorting moves and compares 16 bytes.
    let mut order: Vec<u128> = Vec::with_capacity(batches.iter().map(Vec::len).sum());
    for (b, batch) in (0_u32..).zip(batches) {
        for (i, event) in (0_u32..).zip(batch) {
            let minute = (event.time.saturating_sub(first_minute) / 60_000).min(0xff);
            let index = u64::from(b) << 24 | u64::from(i);
            let low = minute << 56 | (event.route.0 & 0xff) << 48 | index;
            // Half of the key's id will do: it is uniform, and keys that share it only share a run.
            order.push(event.key.0 << 64 | u128::from(low));
        }
    }
    debug_assert!(batches.len() < 1 << 24 && batches.iter().all(|batch| batch.len() < 1 << 24));
    order.sort_unstable();
    order
}

/// Returns the batch of an event, and its index in the batch.
#[inline]
pub(crate) fn event_index(entry: u128) -> (usize, usize) {
    let index = (entry & 0xffff_ffff_ffff) as u64;
    ((index >> 24) as usize, (index & 0xff_ffff) as usize)
}

/// Copies events into new batches, in order. Those of the key `overflow` get batches of their own.
pub(crate) fn gather(batches: &[Vec<AccessEvent>], order: &[u128], out: &mut Vec<Vec<AccessEvent>>) {
    let mut batch = Vec::with_capacity(order.len().min(BATCH));
    let mut overflow = Vec::new();
    for entry in order {
        let (b, i) = event_index(*entry);
        let event = batches[b][i];
        let into = if event.key == KeyId::OVERFLOW { &mut overflow } else { &mut batch };
        into.push(event);
        if into.len() == BATCH {
            out.push(std::mem::replace(into, Vec::with_capacity(BATCH)));
        }
    }
    out.extend([batch, overflow]);
}
