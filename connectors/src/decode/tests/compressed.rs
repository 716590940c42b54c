//! Compressed messages of any format: told by their bytes, read whole, bounded.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

pub(super) fn gzip(text: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text.as_ref()).unwrap();
    encoder.finish().unwrap()
}

fn run_within(limits: Limits, message: &[u8]) -> Decoded {
    run_with(&json(), &context(limits), message)
}

#[test]
fn a_compressed_message_of_any_format_is_what_it_was() {
    for (format, message) in [
        (Format::Apisix, APISIX_BATCH),
        (Format::Kong, KONG_BATCH),
        (Format::Combined, LINE.as_bytes()),
        (Format::AwsApigateway, AWS),
    ] {
        let source = source(format);
        let (plain, packed) = (run(&source, message), run(&source, gzip(message)));
        assert!(!plain.events.is_empty());
        assert_eq!((packed.events, packed.dead_letters), (plain.events, plain.dead_letters), "{format:?}");
    }
}

#[test]
fn all_members_of_a_compressed_message_count() {
    let (first, second) = (record(1), record(2));
    let (start, end) = first.split_at(20);
    let message = [gzip(start), gzip(""), gzip(end), gzip(format!("\n{second}"))].concat();
    assert_eq!(outcomes(&run(&json(), message)), [Some(1), Some(2)]);
    assert_eq!(run(&json(), gzip("")).dead_letters[0].reason, "empty message; expected a JSON object");
}

#[test]
fn damaged_compression_is_one_dead_letter_of_the_message_as_it_arrived() {
    let whole = gzip(record(1) + &record(2));
    let two = [gzip(record(1)), whole.clone()].concat();
    let mut flipped = whole.clone();
    let checksum = whole.len() - 6;
    flipped[checksum] ^= 1;
    for (message, name) in [
        (&whole[..whole.len() - 1], "cut in the footer"),
        (&whole[..whole.len() / 2], "cut in the body"),
        (&whole[..5], "cut in the header"),
        (&whole[..2], "nothing but the magic"),
        (&two[..two.len() - 1], "cut in the second member"),
        (&flipped, "checksum"),
        (&[&whole[..], b"trailing"].concat(), "trailing"),
        (&[&whole[..], b"\0\0"].concat(), "padding"),
        (b"\x1f\x8b\x07\0\0\0\0\0\0\0", "another method"),
    ] {
        let letter = refused(&json(), message);
        assert_eq!(letter.reason, "gzip: damaged, cut off, or followed by something else", "{name}");
        assert_eq!(CLASSES[letter.class()], "encoding");
        let arrived = (message.len() as u64, <[u8; 32]>::from(Sha256::digest(message)));
        assert_eq!((letter.length, letter.sha256), arrived, "{name}");
    }
}

#[test]
fn what_is_compressed_again_is_read_three_layers_deep() {
    let mut message = (record(1) + &record(2)).into_bytes();
    for _ in 0..3 {
        message = gzip(&message);
        assert_eq!(outcomes(&run(&json(), &message)), [Some(1), Some(2)]);
    }
    let two = [message.clone(), gzip(gzip(gzip(record(3))))].concat();
    assert_eq!(outcomes(&run(&json(), two)), [Some(1), Some(2), Some(3)], "members of members");
    let message = gzip(&message);
    let letter = refused(&json(), &message);
    assert_eq!(
        (letter.reason.as_str(), CLASSES[letter.class()]),
        ("gzip: compressed more than 3 times", "encoding")
    );
    assert_eq!((letter.length, letter.sha256), (message.len() as u64, Sha256::digest(&message).into()));
    // Damage and limits of an inner layer are the message's.
    let cut = gzip(&gzip(record(1))[..20]);
    assert!(refused(&json(), cut).reason.starts_with("gzip: damaged"));
    let limits = Limits { decompressed_bytes: 1_000, ..Limits::default() };
    let out = run_within(limits, &gzip(gzip(" ".repeat(1_001))));
    assert!(out.dead_letters[0].reason.contains("(limits.decompressed_bytes)"));
}

#[test]
fn what_a_message_becomes_is_limited_to_the_byte() {
    // One record that grows by white space, which compresses well: alone, and in several members.
    let limit = 100_000;
    let padded = |bytes: usize| format!("{}{}", record(1), " ".repeat(bytes - record(1).len()));
    for (bytes, accepted) in [(limit - 1, true), (limit, true), (limit + 1, false)] {
        let text = padded(bytes);
        let (start, end) = text.split_at(bytes / 2);
        for message in [gzip(&text), [gzip(start), gzip(end)].concat(), [gzip(&text), gzip("")].concat()] {
            let limits =
                Limits { decompressed_bytes: limit, message_bytes: message.len(), ..Limits::default() };
            let out = run_within(limits, &message);
            assert_eq!(outcomes(&out), [accepted.then_some(1)], "{bytes}");
            if let [letter] = out.dead_letters.as_slice() {
                assert_eq!(
                    letter.reason,
                    "longer than 100000 bytes when decompressed (limits.decompressed_bytes)"
                );
                assert_eq!((CLASSES[letter.class()], letter.length), ("limit", message.len() as u64));
            }
            // The other limit is of the message as it arrived.
            let limits = Limits { message_bytes: message.len() - 1, ..limits };
            let letter = &run_within(limits, &message).dead_letters[0];
            assert!(letter.reason.ends_with("(limits.message_bytes)"), "{}", letter.reason);
        }
    }
}

#[test]
fn bombs_are_refused() {
    let limits = Limits { decompressed_bytes: 1 << 16, ..Limits::default() };
    let bomb = gzip(vec![b'['; 64 << 20]);
    assert!(bomb.len() < limits.message_bytes);
    for message in [&bomb, &gzip(&bomb), &[gzip(record(1)), bomb.clone()].concat()] {
        let out = run_within(limits, message);
        assert_eq!(outcomes(&out), [None]);
        assert!(
            out.dead_letters[0].reason.contains("(limits.decompressed_bytes)") || message.len() < bomb.len()
        );
    }
    // Members without content take time, and count as records do.
    for (members, accepted) in [(2, true), (3, true), (4, false)] {
        let limits = Limits { message_records: 3, ..limits };
        let message = [gzip("").repeat(members - 1), gzip(record(1))].concat();
        let out = run_within(limits, &message);
        assert_eq!(outcomes(&out), [accepted.then_some(1)]);
        let reason = out.dead_letters.first().map(|letter| letter.reason.as_str());
        assert_eq!(reason, (!accepted).then_some("more than 3 gzip members (limits.message_records)"));
    }
    let members = gzip("").repeat(50_000);
    assert_eq!(outcomes(&run(&json(), &members)), [None]);
    // A header that goes on and on.
    let mut header = b"\x1f\x8b\x08\x08\0\0\0\0\0\0".to_vec();
    header.resize(limits.message_bytes, b'x');
    assert_eq!(outcomes(&run(&json(), &header)), [None]);
}

#[test]
fn a_decoder_reads_on_behind_a_bomb() {
    let (source, context) = (json(), context(Limits { decompressed_bytes: 1 << 12, ..Limits::default() }));
    let mut decoder = decoder(&source, &context);
    for message in [gzip(vec![b' '; 1 << 13]), gzip(record(1)), record(1).into_bytes()] {
        let mut out = Decoded::default();
        decoder.decode(&message, START, &mut out);
        let fresh = run_with(&source, &context, &message);
        assert_eq!((out.events, out.dead_letters), (fresh.events, fresh.dead_letters));
    }
}

proptest! {
    #[test]
    fn damaged_compression_never_panics(at in 0_usize..10_000, byte: u8, cut in 0_usize..200) {
        let mut message = [gzip(record(1)), gzip(record(2))].concat();
        let len = message.len();
        message[at % len] = byte;
        message.truncate(len - cut % len);
        let out = run(&json(), &message);
        prop_assert!(!out.events.is_empty() || !out.dead_letters.is_empty());
    }
}
