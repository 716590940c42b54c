//! The section `[limits]`, which bounds one record, one block, one tick and the state.

use super::prelude::*;

section! {
    /// The section `[limits]`, which bounds one record, one block, one tick and the state.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Limits, RawLimits {
        /// Bytes of one message (one line of a file); longer ones are dead letters.
        results message_bytes: usize = message_bytes(Size, 1 << 10..=64 << 20) or 8 << 20;
        /// Records in one message (array or newline-delimited).
        results message_records: usize = message_records(Count, 1..=1_000_000) or 10_000;
        /// Bytes of one field's value that are kept (route, user agent, identifier). Longer values are cut.
        results text_bytes: usize = text_bytes(Size, 16..=64 << 10) or 512;
        /// Bytes read from a file at once.
        other block_bytes: usize = block_bytes(Size, 4 << 10..=64 << 20) or 128 << 10;
        /// Records in one tick of a bounded run.
        results tick_records: usize = tick_records(Count, 1..=10_000_000) or 100_000;
        /// Bytes that one compressed message may expand to; beyond them it is a dead letter.
        results decompressed_bytes: usize = decompressed_bytes(Size, 1 << 10..=1 << 30) or 16 << 20;
        /// Keys without a row in the table of keys that have rows of their own, by month of event time. The calls of
        /// others count under `overflow`.
        results keys: usize = keys(Count, 256..=1 << 30) or 1_250_000;
        /// Routes that have rows of their own, by day of event time. The calls of others count under `overflow`.
        results routes: usize = routes(Count, 256..=1 << 30) or 100_000;
        /// Pairs of key (without a row) and route that have rows of their own, by day of event time.
        results key_routes: usize = key_routes(Count, 256..=1 << 30) or 2_500_000;
        /// Routes of one key, with or without a row, that have rows of their own, by day of event time.
        results routes_per_key: usize = routes_per_key(Count, 1..=1 << 20) or 2_000;
        /// Pairs of key (without a row) and country that have rows of their own, by day of event time.
        results key_countries: usize = key_countries(Count, 256..=1 << 30) or 2_500_000;
        /// User agents of the last 31 days of event time whose text is kept; others are shown by their hash.
        results agents: usize = agents(Count, 256..=1 << 20) or 65_536;
        /// Addresses of one row of `callers` up to which the count is exact, and no estimate.
        results callers_exact: usize = callers_exact(Count, 64..=1 << 20) or 4_096;
        later json_depth;
        later json_fields;
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::*;

    #[test]
    fn wrong_values_are_reported_with_their_location() {
        assert_eq!(
            problems(&format!("{SMALL}[limits]\njson_fields = 4096")),
            "line 7: limits.json_fields: isn't available in this version, remove it"
        );
    }
}
