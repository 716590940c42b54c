//! Counts each request once.
//!
//! Of records with the same request id the earliest tick wins, and within a tick the lowest position (partition,
//! offset, index). All others are duplicates, whatever their other fields. A record counts as long as its month is
//! held.
//!
//! **Memory is by arrival.** An id is remembered from max(its event's time, the watermark at its arrival) on. It is
//! forgotten when the watermark passes that by `dedupe_horizon`. So an id that arrives hours late is remembered for
//! as long as one that came in time. A backlog that is sent twice within the horizon counts once.
//!
//! **Proof.** A record whose event time + horizon the watermark has passed, and whose id isn't remembered, is
//! *unproven*: it may be new, or repeat a forgotten one. It counts and is listed as late, with `proven` false. With
//! `unproven = "list"` it is listed alone, and its id isn't remembered. Any other record is proven: an earlier record
//! with its id would still be remembered, whenever it was counted. A record without an id is its own identity, and
//! proven.
//!
//! Everything is judged by the watermark as the tick's records found it. Operators downstream judge by the same
//! watermark, so they find a held window for each event that is passed on.
//!
//! An id takes 24 bytes plus the table's slack. An id has no effect from the moment it is forgotten. Forgotten ids
//! are swept when the watermark moved by an eighth of the horizon.
//!
//! **Parts.** Ids are stored by the time from which they are remembered, in spans of 1/[`SPANS`] of the horizon. That time
//! is never before the watermark, so a span that the watermark passed doesn't change any more. The ids of younger spans
//! are listed beside the table, so that a snapshot finds them without walking it.

use hashbrown::{HashMap, HashTable};
use keytide_config::{Unproven, Windows};
use serde::{Deserialize, Serialize};

use super::parts::by_tick::Closing;
use crate::model::{AccessEvent, EventTime, RequestId};
use crate::row::{Counts, Late};
use crate::state::{Durable, Footprint, PartId, RowsOut, Shard, StateId};
use crate::window::Level;

/// The number of bits of an entry that hold a time: enough for the year 2248.
const TIME_BITS: u32 = 43;

/// The number of spans that a horizon has.
const SPANS: u64 = 64;
/// The shortest span, in ms.
const MIN_SPAN_MS: u64 = 1_000;
/// The number of spans behind the watermark's whose ids are still listed, so that a checkpoint of the usual interval
/// finds them.
const LISTED_SPANS: u64 = 1;

/// The highest tag of a tick. Tags run from 1; restored ids have 0.
const TAGS: u64 = (1 << (64 - TIME_BITS)) - 1;

/// An id that was seen, with the time from which it is remembered and a tag of its tick. A tag repeats after 2^21 - 1
/// ticks, more than any horizon has.
#[derive(Clone, Copy)]
struct SeenRequest {
    id: [u64; 2],
    since_and_tag: u64,
}

impl SeenRequest {
    fn new(id: RequestId, since: EventTime, tag: u64) -> Self {
        debug_assert!(since < 1 << TIME_BITS);
        Self { id: halves(id), since_and_tag: since | tag << TIME_BITS }
    }
    fn since(&self) -> EventTime {
        self.since_and_tag & ((1 << TIME_BITS) - 1)
    }
    fn tag(&self) -> u64 {
        self.since_and_tag >> TIME_BITS
    }
    fn row(&self) -> SeenRow {
        let id = RequestId::from_bits(u128::from(self.id[0]) << 32 | u128::from(self.id[1]));
        SeenRow(id, self.since())
    }
}

/// Returns the upper 64 bits of an id, which choose its worker, and the lower 64, by which the worker finds it.
fn halves(id: RequestId) -> [u64; 2] {
    [(id.bits() >> 32) as u64, id.bits() as u64]
}

/// Returns the number by which a request is exchanged.
pub(crate) fn shard(event: &AccessEvent) -> u64 {
    if event.request.is_some() { halves(event.request)[0] } else { event.key.shard() }
}

/// The ids seen within the horizon, on one worker.
pub(crate) struct SeenRequests {
    horizon_ms: u64,
    unproven: Unproven,
    seen: HashTable<SeenRequest>,
    /// The spans that have ids, by their number, in ascending order.
    spans: Vec<(u64, Span)>,
    span_ms: u64,
    swept_at: EventTime,
    tag: u64,
    /// The number of the next snapshot.
    snapshot: u64,
}

/// The ids that are remembered from a time within a span on.
#[derive(Default)]
struct Span {
    /// The number of the first snapshot since ids were added; 0 if all were restored.
    changed: u64,
    /// All of the ids, unless some were restored or the span is old. Some may belong to a later span now.
    listed: Option<Vec<[u64; 2]>>,
}

impl SeenRequests {
    pub(crate) fn new(windows: &Windows) -> Self {
        let Windows { dedupe_horizon_ms: horizon_ms, unproven, .. } = *windows;
        Self {
            horizon_ms,
            unproven,
            seen: HashTable::new(),
            spans: Vec::new(),
            span_ms: (horizon_ms / SPANS).max(MIN_SPAN_MS),
            swept_at: 0,
            tag: 1,
            snapshot: 1,
        }
    }

    /// Returns the span of a time. A new one has listed all of its ids.
    fn span(&mut self, since: EventTime) -> &mut Span {
        let number = since / self.span_ms;
        // Nearly all are in one of the last few.
        let after = self.spans.iter().rposition(|(of, _)| *of <= number).map_or(0, |at| at + 1);
        if after == 0 || self.spans[after - 1].0 != number {
            self.spans.insert(after, (number, Span { changed: 0, listed: Some(Vec::new()) }));
            return &mut self.spans[after].1;
        }
        &mut self.spans[after - 1].1
    }

    /// Judges a tick's events, and passes on those that count.
    pub(crate) fn deduplicate(
        state: &mut Self,
        mut batches: Vec<Vec<AccessEvent>>,
        _: Vec<Vec<()>>,
        closing: Closing<'_, AccessEvent>,
    ) {
        let watermark = closing.info.watermark_before;
        let horizon_ms = state.horizon_ms;
        let counted_from = Level::Month.held_from(watermark);
        let forgotten = |since: EventTime| since + horizon_ms < watermark;
        let proven = |event: &AccessEvent| !(event.request.is_some() && forgotten(event.time));
        // From when an id is remembered.
        let since = |event: &AccessEvent| event.time.max(watermark);
        let counts_unproven = state.unproven == Unproven::Count;
        let admissible =
            |event: &AccessEvent| event.time >= counted_from && (counts_unproven || proven(event));
        let mut counts = Counts::default();
        let mut late = Vec::new();
        // Records that don't count, as (batch, index).
        let mut dropped: Vec<(usize, usize)> = Vec::new();
        // The index of each id's winner so far, made when the first id occurs twice in this tick.
        let mut winners: Option<HashMap<RequestId, (usize, usize)>> = None;

        // STEP 1: judge each record. Those that don't count are dropped or listed; an id has one winner.
        for (b, batch) in batches.iter().enumerate() {
            for (i, event) in batch.iter().enumerate() {
                if !admissible(event) {
                    // A record of a remembered id is a proven duplicate. Ids of this tick don't prove anything,
                    // because its order has no meaning.
                    let id = halves(event.request);
                    let known = state.seen.find(id[1], |seen| seen.id == id).is_some_and(|seen| {
                        event.request.is_some() && seen.tag() != state.tag && !forgotten(seen.since())
                    });
                    if known {
                        counts.duplicates += 1;
                    } else {
                        late.push(listed(event, watermark, false, proven(event)));
                    }
                    dropped.push((b, i));
                    continue;
                }
                if !event.request.is_some() {
                    continue;
                }
                let id = halves(event.request);
                let now = SeenRequest::new(event.request, since(event), state.tag);
                match state.seen.entry(id[1], |seen| seen.id == id, |seen| seen.id[1]) {
                    hashbrown::hash_table::Entry::Vacant(vacant) => {
                        vacant.insert(now);
                    }
                    hashbrown::hash_table::Entry::Occupied(mut occupied) => {
                        let seen = occupied.get_mut();
                        if forgotten(seen.since()) {
                            *seen = now;
                        } else if seen.tag() == state.tag {
                            let winner = winners
                                .get_or_insert_with(|| first_indices(&batches[..b], &batch[..i], admissible))
                                .entry(event.request)
                                .or_insert((b, i));
                            counts.duplicates += 1;
                            if batches[winner.0][winner.1].position <= event.position {
                                dropped.push((b, i));
                            } else {
                                dropped.push(*winner);
                                *winner = (b, i);
                                *seen = now;
                            }
                            continue;
                        } else {
                            counts.duplicates += 1;
                            dropped.push((b, i));
                            continue;
                        }
                    }
                }
                if let Some(winners) = &mut winners {
                    winners.insert(event.request, (b, i));
                }
            }
        }

        // STEP 2: remove dropped records from the back, so that indices of others don't move. The order of records within
        // a tick has no meaning.
        dropped.sort_unstable();
        for (b, i) in dropped.into_iter().rev() {
            batches[b].swap_remove(i);
        }
        // STEP 3: list late and unproven records among those that count, and pass all of them on.
        for event in batches.iter().flatten() {
            counts.events += 1;
            counts.calls.add(event.status, event.count);
            if event.request.is_some() {
                let snapshot = state.snapshot;
                let span = state.span(since(event));
                span.changed = snapshot;
                if let Some(listed) = &mut span.listed {
                    listed.push(halves(event.request));
                }
            }
            let proven = proven(event);
            if event.late_ms > 0 || !proven {
                late.push(listed(event, watermark, true, proven));
            }
        }
        counts.late = late.len() as u64;
        closing.downstream.append(&mut batches);
        if !late.is_empty() {
            closing.output.late(closing.info.tick, late);
        }
        closing.output.counts(closing.info.tick, counts);
        state.end_tick(closing.info.watermark);
    }

    fn end_tick(&mut self, watermark: EventTime) {
        self.tag = self.tag % TAGS + 1;
        if watermark >= self.swept_at.saturating_add(self.horizon_ms / 8) {
            let horizon_ms = self.horizon_ms;
            self.seen.retain(|seen| seen.since() + horizon_ms >= watermark);
            self.swept_at = watermark;
        }
        let (horizon_ms, span_ms) = (self.horizon_ms, self.span_ms);
        self.spans.retain(|(number, _)| (number + 1) * span_ms + horizon_ms >= watermark);
        let listed_from = (watermark / span_ms).saturating_sub(LISTED_SPANS);
        for (_, span) in self.spans.iter_mut().take_while(|(number, _)| *number < listed_from) {
            span.listed = None;
        }
    }
}

/// Returns the index of each id among the admissible records before the first that repeats an id of its tick. So each
/// id has one index.
fn first_indices(
    batches: &[Vec<AccessEvent>],
    batch: &[AccessEvent],
    admissible: impl Fn(&AccessEvent) -> bool,
) -> HashMap<RequestId, (usize, usize)> {
    let mut indices = HashMap::new();
    for (b, batch) in batches.iter().map(Vec::as_slice).chain([batch]).enumerate() {
        for (i, event) in batch.iter().enumerate() {
            if event.request.is_some() && admissible(event) {
                indices.insert(event.request, (b, i));
            }
        }
    }
    indices
}

fn listed(event: &AccessEvent, watermark: EventTime, counted: bool, proven: bool) -> Late {
    let late_ms =
        if event.late_ms > 0 { u64::from(event.late_ms) } else { watermark.saturating_sub(event.time) };
    Late {
        position: event.position,
        key: event.key,
        request: event.request,
        time: event.time,
        late_ms,
        counted,
        proven,
    }
}

/// An id with the time from which it is remembered.
#[derive(Serialize, Deserialize)]
pub(crate) struct SeenRow(RequestId, EventTime);

impl Durable for SeenRequests {
    const ID: StateId = StateId::Dedupe;
    type Row<'a> = SeenRow;

    fn rows_out(&mut self, out: &mut dyn RowsOut<Self>) {
        let part = |number| PartId::Span { level: 0, start: number * self.span_ms };
        // 1. The ids of the spans that are listed. Those of others that are needed are among all ids.
        let mut needed: Vec<(u64, Vec<SeenRequest>)> = Vec::new();
        let mut unlisted = Vec::new();
        for (number, span) in &self.spans {
            if !out.part(part(*number), span.changed) {
                continue;
            }
            let Some(listed) = &span.listed else {
                unlisted.push((*number, Vec::new()));
                continue;
            };
            let seen = listed.iter().filter_map(|id| self.seen.find(id[1], |seen| seen.id == *id));
            needed.push((
                *number,
                seen.filter(|seen| seen.since() / self.span_ms == *number).copied().collect(),
            ));
        }
        if !unlisted.is_empty() {
            for seen in &self.seen {
                let number = seen.since() / self.span_ms;
                if let Ok(at) = unlisted.binary_search_by_key(&number, |(number, _)| *number) {
                    unlisted[at].1.push(*seen);
                }
            }
        }
        // 2. To copy ids takes a fraction of the time that it takes to encode them.
        for (number, ids) in needed.into_iter().chain(unlisted) {
            out.part(part(number), self.snapshot);
            out.later(Box::new(move |out| ids.iter().for_each(|seen| out.row(seen.row()))));
        }
        self.snapshot = out.request().number + 1;
    }

    fn expect_rows(&mut self, _: PartId, rows: usize) {
        self.seen.reserve(rows, |seen| seen.id[1]);
    }

    fn row_in(&mut self, SeenRow(id, since): SeenRow) {
        let seen = SeenRequest::new(id, since, 0);
        self.span(since).listed = None;
        let known = self.seen.entry(seen.id[1], |known| known.id == seen.id, |seen| seen.id[1]);
        match known {
            hashbrown::hash_table::Entry::Vacant(vacant) => {
                vacant.insert(seen);
            }
            // A part that is older has an id that was forgotten since, and then seen again.
            hashbrown::hash_table::Entry::Occupied(mut occupied) if occupied.get().since() < since => {
                *occupied.get_mut() = seen;
            }
            hashbrown::hash_table::Entry::Occupied(_) => {}
        }
    }

    fn shard(row: &SeenRow) -> Shard {
        Shard::Of(halves(row.0)[0])
    }

    fn footprint(&self) -> Footprint {
        let listed = self.spans.iter().filter_map(|(_, span)| span.listed.as_ref());
        let listed_bytes: usize = listed.map(|listed| listed.capacity() * size_of::<[u64; 2]>()).sum();
        let seen = Footprint::of_table(&self.seen);
        Footprint { bytes: seen.bytes + listed_bytes as u64, ..seen }
    }
}
