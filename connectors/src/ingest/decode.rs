//! A block's messages to events, dead letters and definitions. What is refused here, and not by the decoder:
//! messages that are too long, those that are gone, and events from the future.

use keytide_dataflow::model::{AccessEvent, EventTime, LATENCY_UNKNOWN, Position};
use sha2::{Digest, Sha256};

use crate::decode::{DeadLetter, Decoded, Decoder};
use crate::file::Line;
use crate::kafka::Gap;

use super::content::Block;

/// An event later than the run's time by more than this is a dead letter.
pub const FUTURE_MS: u64 = 300_000;

/// Decodes a block of partition `partition`; `latest` is the latest event time allowed, `line_bytes` the limit
/// that the block was cut with, `events` about how many events to expect.
pub(crate) fn decode(
    block: &Block,
    partition: u32,
    decoder: &mut dyn Decoder,
    latest: EventTime,
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
            if out.events[event..].iter().any(|event| event.time > latest) {
                refuse_future(&mut out, event, letter, text, latest);
            }
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
        Err(Gap { from, to }) => out.dead_letters.push(DeadLetter {
            position: Position { partition, offset: from, index: 0 },
            events_before: out.events.len(),
            reason: format!("gap: the records from offset {from} to {} are gone", to.saturating_sub(1)),
            length: 0,
            sha256: Sha256::digest([]).into(),
            kept: None,
            counted: false,
        }),
    });
    out
}

/// Turns the future-dated events of one message into dead letters, at their places among its others.
#[cold]
pub(crate) fn refuse_future(
    out: &mut Decoded,
    first_event: usize,
    first_letter: usize,
    message: &[u8],
    latest: EventTime,
) {
    let events = out.events.split_off(first_event);
    let mut letters = out.dead_letters.split_off(first_letter).into_iter().peekable();
    for (index, event) in (first_event..).zip(events) {
        while let Some(letter) = letters.next_if(|letter| letter.events_before <= index) {
            out.dead_letters.push(DeadLetter { events_before: out.events.len(), ..letter });
        }
        if event.time <= latest {
            out.events.push(event);
            continue;
        }
        out.dead_letters.push(DeadLetter {
            position: event.position,
            events_before: out.events.len(),
            reason: format!(
                "time: more than {} minutes after the run's time; is its unit right, and the gateway's clock?",
                FUTURE_MS / 60_000
            ),
            length: message.len() as u64,
            sha256: Sha256::digest(message).into(),
            kept: Some(kept(&event)),
            counted: false,
        });
    }
    for letter in letters {
        out.dead_letters.push(DeadLetter { events_before: out.events.len(), ..letter });
    }
}

/// What a dead letter keeps of an event, as JSON: numbers alone.
fn kept(event: &AccessEvent) -> Box<str> {
    let AccessEvent { time, status, bytes_in, bytes_out, latency_us, .. } = event;
    let latency =
        if *latency_us == LATENCY_UNKNOWN { String::new() } else { format!(",\"latency_us\":{latency_us}") };
    format!(
        "{{\"time_ms\":{time},\"status\":{status}{latency},\"bytes_in\":{bytes_in},\"bytes_out\":{bytes_out}}}"
    )
    .into()
}
