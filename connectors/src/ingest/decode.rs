//! A block's messages to events, dead letters and definitions. Messages that are too long or gone, and events from
//! the future, are refused here and not by the decoder.

use keytide_dataflow::model::Position;

use crate::decode::{DeadLetter, Decoded, Decoder};
use crate::file::Line;
use crate::input::{FutureLimit, gap_letter};
use crate::kafka::Gap;

use super::content::InputBlock;

/// Decodes a block of partition `partition`. No event may be later than `latest`. `line_bytes` is the limit that
/// the block was cut with, and about `events` events are expected.
pub(crate) fn decode(
    block: &InputBlock,
    partition: u32,
    decoder: &mut dyn Decoder,
    latest: FutureLimit,
    line_bytes: usize,
    events: usize,
) -> Decoded {
    let mut out = Decoded { events: Vec::with_capacity(events), ..Decoded::default() };
    if let Some(header) = block.lines_header() {
        decoder.continue_after(header);
    }
    block.for_each(|message, headers| match message {
        Ok(Line::Whole { offset, text }) => {
            let (event, letter) = (out.events.len(), out.dead_letters.len());
            decoder.decode_with(text, headers, Position { partition, offset, index: 0 }, &mut out);
            latest.judge(&mut out, event, letter, text);
        }
        Ok(Line::TooLong(message)) => out.dead_letters.push(DeadLetter {
            position: Position { partition, offset: message.offset, index: 0 },
            events_before: out.events.len(),
            reason: format!("longer than {line_bytes} bytes (limits.message_bytes)"),
            length: message.length,
            sha256: message.sha256,
            kept: None,
            counted: false,
        }),
        Err(Gap { from, to }) => {
            let position = Position { partition, offset: from, index: 0 };
            let reason = format!("gap: the records from offset {from} to {} are gone", to.saturating_sub(1));
            out.dead_letters.push(gap_letter(position, out.events.len(), reason));
        }
    });
    out
}
