//! The rule: no value that a caller chooses may cost the record, hide it as a duplicate, or put it on another key.
//!
//! `caller` makes up what a caller can send, `writers` writes it as a record the way each real gateway does (`escapes`:
//! which bytes stay raw, which are escaped and how), and here the decoders must make of it what they make of a call without
//! anything odd in it. Writers that escape nothing are held to less: a call may count under `conflicting`, or be a dead
//! letter of class `unescaped`, but never under a key that didn't make it. In the format `json`, where nothing tells a
//! template from an encoder's records, that holds only of lines that stay one record, and if the key is the template's last
//! member.
//!
//! Models can be wrong where real servers differ from what they were taken for: `tests/writers.rs` of the repository has
//! logs that NGINX, lua-cjson, HAProxy, Apache httpd and Caddy wrote. What becomes of events isn't looked at here.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod caller;
mod escapes;
mod writers;

use std::env;
use std::path::Path;
use std::sync::Arc;

use keytide_config::{JobConfig, Source};
use keytide_connectors::decode::{CLASSES, Context, Decoded, NoGeo, decoder};
use keytide_dataflow::model::{KeyId, Position};
use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestCaseError, TestRng, TestRunner};
use sha2::{Digest, Sha256};

use caller::{Caller, KEY, VICTIM, caller};
use writers::{Call, Escapes, WRITERS, Writer};

/// 2025-11-20T12:44:15Z.
const START_MS: u64 = 1_763_642_655_000;
/// 192.0.2.7, whose bits are those of an IPv6 address.
const CLIENT: u128 = 0xffff_c000_0207;

/// The sources of a writer: its records as lines of a file, and as messages of a topic.
fn sources(writer: &Writer) -> [(Source, Context); 2] {
    ["kind = \"file\"\npath = \"log\"", "kind = \"kafka\"\nbrokers = \"b:9092\"\ntopic = \"t\""].map(|kind| {
        let config = format!("[[source]]\nname = \"gateway\"\n{kind}\n{}", writer.source);
        let parsed = JobConfig::parse(&config, Path::new(""), std::iter::empty());
        let job = parsed.unwrap_or_else(|error| panic!("{error}\n{config}")).job;
        let context = Context::of(&job, Arc::new(NoGeo));
        (job.sources[0].clone(), context)
    })
}

/// What becomes of messages, one after the other.
fn decoded((source, context): &(Source, Context), messages: &[&[u8]]) -> Decoded {
    let (mut decoder, mut out) = (decoder(source, context), Decoded::default());
    for (message, offset) in messages.iter().zip(0..) {
        decoder.decode(message, Position { partition: 0, offset: offset * 1_000, index: 0 }, &mut out);
    }
    out
}

fn id(key: &[u8]) -> KeyId {
    KeyId::from_hash(&Sha256::digest(key))
}

/// Whether two events are told apart: by position, or by different identities.
fn differ(out: &Decoded) -> bool {
    let [first, second] = &*out.events else { return false };
    first.request != second.request || !first.request.is_some()
}

/// What must hold of one call.
fn judge(writer: &Writer, sources: &[(Source, Context); 2], call: &Call<'_>) -> Result<(), TestCaseError> {
    let record = (writer.write)(call);
    let shown = || String::from_utf8_lossy(&record[..record.len().min(4_000)]).into_owned();
    let own = id(&call.key);
    for source in sources {
        let out = decoded(source, &[&record]);
        let said = format!("{:?} {:?}", out.definitions, out.dead_letters);
        // Of a record that its caller divided, the part with the path may not be that with the key.
        let is_whole = writer.escapes != Escapes::Unknown;
        prop_assert!(!is_whole || !said.contains(KEY), "a raw key in {said}\nof {}", shown());
        let lost: Vec<_> = out.dead_letters.iter().filter(|letter| !letter.counted).collect();
        match (writer.escapes, &*out.events, &*lost) {
            (Escapes::Yes, [event], []) => {
                prop_assert_eq!(event.key, own, "another key: {}", shown());
                let ms = if writer.in_seconds { call.ms / 1000 * 1000 } else { call.ms };
                prop_assert_eq!((event.time, event.status), (ms, 200), "{}", shown());
                prop_assert!(writer.is_untimed || event.latency_us == 19_000, "{}", shown());
                // No proxy is trusted, so that what the caller says of addresses counts for nothing.
                let has_client = writer.name != "cloudevents";
                prop_assert!(event.client == if has_client { CLIENT } else { 0 }, "{}", shown());
                prop_assert_eq!(event.count, 1);
            }
            // Nothing tells a template from an encoder's records: `}{` in a text divides the line in two, and what
            // stands before it is a record. Else identity is safe behind what callers write.
            (Escapes::Unknown, [event], []) => {
                let is_right = event.key == own || event.key.is_bucket();
                prop_assert!(is_right || !call.identity_last, "another key: {}", shown());
            }
            (Escapes::Unknown, [], []) => prop_assert!(false, "nothing of {}", shown()),
            (Escapes::Unknown, ..) => {}
            (Escapes::No, [event], []) => {
                prop_assert!([own, KeyId::CONFLICTING].contains(&event.key), "another key: {}", shown());
            }
            (Escapes::No, [], [letter]) => {
                prop_assert_eq!(CLASSES[letter.class()], "unescaped", "{}: {}", letter.reason, shown());
            }
            _ => prop_assert!(false, "{} events, {lost:?}: {}", out.events.len(), shown()),
        }
    }
    if writer.escapes == Escapes::Yes {
        identities(writer, sources, call)?;
    }
    Ok(())
}

/// Equal calls stay as many events as they are, whatever ids their callers choose.
fn identities(
    writer: &Writer,
    sources: &[(Source, Context); 2],
    call: &Call<'_>,
) -> Result<(), TestCaseError> {
    let record = (writer.write)(call);
    let next = Call { number: call.number + 1, ..call.clone() };
    let later = (writer.write)(&Call { ms: call.ms + 1, ..next.clone() });
    let of_other = (writer.write)(&Call { key: [&*call.key, b"2"].concat(), ..next.clone() });
    let again = (writer.write)(&next);
    let [file, topic] = sources;
    for (what, other) in [("equal", &again), ("of another key", &of_other), ("a millisecond later", &later)] {
        // Lines that are equal, with an id that their caller chose in them as well, are one call that was logged twice.
        let lines = decoded(file, &[&record, other]);
        let is_resent = *other == record && lines.events.iter().all(|event| event.request.is_some());
        prop_assert!(is_resent || differ(&lines), "{what}, as lines of a file");
        let lines = [&*record, other].join(&b'\n');
        prop_assert!(differ(&decoded(topic, &[&lines])), "{what}, in one message");
        if writer.in_arrays {
            let array = [b"[", &*[&*record, other].join(&b','), b"]"].concat();
            prop_assert!(differ(&decoded(topic, &[&array])), "{what}, in one array");
        }
        // Equal bytes are what a gateway sends again.
        if *other != record {
            prop_assert!(differ(&decoded(topic, &[&record, other])), "{what}, as two messages");
        }
    }
    Ok(())
}

fn check(writer: &Writer) {
    let sources = sources(writer);
    // The same cases each time, unless somebody looks for more.
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut config =
        ProptestConfig { max_shrink_iters: 400, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = if env::var_os("PROPTEST_CASES").is_some() {
        TestRunner::new(config)
    } else {
        config.cases = CASES;
        TestRunner::new_with_rng(config, rng)
    };
    let strategy = (caller(writer.keys), 0_u64..1_000, any::<bool>());
    let result = runner.run(&strategy, |(caller, ms, identity_last)| {
        let call = Call { caller: &caller, key: caller.key(), ms: START_MS + ms, number: 7, identity_last };
        judge(writer, &sources, &call)
    });
    if let Err(error) = result {
        panic!("{}: {error}", writer.name);
    }
}

/// One text of a caller's opens an object or an array, a later one closes it: the line is sound JSON, no member stands
/// twice, and the members between the two aren't the record's any more.
#[test]
fn members_between_two_texts_of_the_caller_are_not_hidden() {
    let forged = |name| format!("\"{name}\":\"{VICTIM}\",");
    for writer in WRITERS.iter().filter(|writer| writer.escapes == Escapes::No) {
        for (open, close) in
            [("{\"a\":\"", "\"},\"z\":\""), ("[\"", "\"],\"z\":\""), ("[{\"a\":\"", "\"}],\"z\":\"")]
        {
            for victim in [String::new(), forged("apiKeyId"), forged("http_apikey"), forged("key")] {
                let (open, close) = (format!("x\",{victim}\"y\":{open}"), format!("x{close}"));
                // Brackets that match, and either one alone.
                for (id, agent) in [(&*open, &*close), (&open, ""), ("", &close)] {
                    let caller = Caller {
                        id: id.as_bytes().to_vec(),
                        agent: agent.as_bytes().to_vec(),
                        ..Caller::plain()
                    };
                    expect(writer, &caller);
                }
            }
        }
    }
}

/// Quotes of the caller's that look like the line's make it uncertain where the key is: then it isn't shown where the
/// caller wrote it besides.
#[test]
fn a_key_that_cannot_be_told_is_shown_nowhere() {
    for name in ["text by envoy", "text by aws", "nginx none", "aws"] {
        for agent in ["\" 200 5 \"-\" \"-\"", "\" \"", "\" 1 2 \"", "x\",\"y\":\""] {
            let path = format!("/{KEY}/x").into_bytes();
            let caller = Caller { path, agent: agent.as_bytes().to_vec(), ..Caller::plain() };
            expect(WRITERS.iter().find(|writer| writer.name == name).unwrap(), &caller);
        }
    }
}

/// What must hold of a caller's call, wherever the template has the key.
fn expect(writer: &Writer, caller: &Caller) {
    for identity_last in [false, true] {
        let call = Call { caller, key: caller.key(), ms: START_MS, number: 7, identity_last };
        if let Err(error) = judge(writer, &sources(writer), &call) {
            panic!("{}: {error}", writer.name);
        }
    }
}

/// Cases of each writer, the same each time; `PROPTEST_CASES=1000` tries other ones, and more.
const CASES: u32 = 24;

macro_rules! rule {
    ($($test:ident: $name:literal,)*) => {
        $(
            #[test]
            fn $test() {
                check(WRITERS.iter().find(|writer| writer.name == $name).unwrap());
            }
        )*

        #[test]
        fn every_writer_has_its_test() {
            let names: Vec<_> = WRITERS.iter().map(|writer| writer.name).collect();
            assert_eq!(names, [$($name),*]);
        }
    };
}

rule! {
    apisix: "apisix",
    kong: "kong",
    envoy: "envoy",
    envoy_by_protobuf: "envoy by protobuf",
    nginx_with_escape_json: "nginx json",
    nginx_by_default: "nginx default",
    nginx_with_escape_none: "nginx none",
    json_by_go: "json by go",
    json_by_haproxy: "json by haproxy",
    aws_apigateway: "aws",
    cloudwatch: "cloudwatch",
    cloudevents: "cloudevents",
    otel: "otel",
    otlp: "otlp",
    combined_by_nginx: "combined by nginx",
    combined_by_apache: "combined by apache",
    text_by_nginx: "text by nginx",
    text_by_apache: "text by apache",
    text_by_envoy: "text by envoy",
    text_by_aws: "text by aws",
    haproxy: "haproxy",
    alb: "alb",
    cloudfront: "cloudfront",
}
