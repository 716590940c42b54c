//! Puts a tick's events in the order of their keys, on the worker that owns them.
//!
//! Every metric looks up its group once per run of equal groups instead of once per event, and finds the
//! maps' entries in its caches. Order within a tick has no meaning, so this changes no result. On an hour of
//! 20,000 keys (Zipf 1.05) the metrics' share of a replay's CPU fell from 10.7 to 8.8 %; what sorting itself
//! costs was not told apart from the machine's noise.
//!
//! Emits a tick's events at the tick, once it is closed; remembers nothing.

use super::by_tick::Closing;
use crate::model::AccessEvent;
use crate::window::Level;

/// Events in one batch: 128 KiB.
const BATCH: usize = 1_024;

/// Sorts a tick's events by key, minute and route.
pub(crate) fn close(
    (): &mut (),
    batches: Vec<Vec<AccessEvent>>,
    _: Vec<Vec<()>>,
    closing: Closing<'_, AccessEvent>,
) {
    let first_minute = Level::Minute.start(closing.info.watermark_before);
    // Key, minute, route and place in one number, so that sorting moves and compares 16 bytes.
    let mut order: Vec<u128> = Vec::with_capacity(batches.iter().map(Vec::len).sum());
    for (b, batch) in (0_u32..).zip(&batches) {
        for (i, event) in (0_u32..).zip(batch) {
            let minute = (event.time.saturating_sub(first_minute) / 60_000).min(0xff);
            let place = u64::from(b) << 24 | u64::from(i);
            let low = minute << 56 | (event.route.0 & 0xff) << 48 | place;
            order.push(u128::from(event.key.shard()) << 64 | u128::from(low));
        }
    }
    debug_assert!(batches.len() < 1 << 24 && batches.iter().all(|batch| batch.len() < 1 << 24));
    order.sort_unstable();
    let event_at = |entry: &u128| {
        let place = (*entry & 0xffff_ffff_ffff) as u64;
        batches[(place >> 24) as usize][(place & 0xff_ffff) as usize]
    };
    closing.downstream.extend(order.chunks(BATCH).map(|chunk| chunk.iter().map(event_at).collect()));
}
