//! The whole input, from files to messages: the same for any number of threads and any cut, bounded in memory,
//! never stuck. The decisions themselves are tested with the sequencer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Condvar;

use flate2::Compression;
use flate2::write::GzEncoder;
use keytide_dataflow::model::{
    CallerLocation, Country, Definition, EventTime, KeyId, NameId, Position, RequestId, RouteId, TickInfo,
};
use sha2::{Digest, Sha256};

use super::*;
use crate::decode::{DeadLetter, Decoded};
use crate::input::FUTURE_MS;
use crate::kafka::Topic;
use crate::kafka::testing::MockBroker;

const NOW: Tick = 1_800_000_000_000;
const BASE: EventTime = NOW - 100 * 3_600_000;

/// Lines of times, separated by spaces: an event each. `bad` is a dead letter; `nothing` is nothing; a line may
/// end with a name, which is defined once a decoder.
#[derive(Default)]
struct Times {
    defined: BTreeSet<String>,
}

fn event(time: EventTime, position: Position) -> AccessEvent {
    AccessEvent {
        key: KeyId(7),
        request: RequestId::NONE,
        client: 0,
        time,
        route: RouteId::default(),
        user_agent: NameId::NONE,
        position,
        latency_us: 3,
        bytes_in: 4,
        bytes_out: 5,
        units: 0,
        count: 1,
        late_ms: 0,
        asn: 0,
        status: 200,
        is_free: false,
        country: Country::UNKNOWN,
        place: CallerLocation::default(),
    }
}

impl Decoder for Times {
    fn decode(&mut self, message: &[u8], at: Position, out: &mut Decoded) {
        for (index, word) in (0..).zip(std::str::from_utf8(message).unwrap().split(' ')) {
            let position = Position { index, ..at };
            if word == "panic" {
                panic!("asked for");
            } else if word == "bad" {
                out.dead_letters.push(DeadLetter {
                    position,
                    events_before: out.events.len(),
                    reason: "bad".to_owned(),
                    length: 3,
                    sha256: [0; 32],
                    kept: None,
                    counted: false,
                });
            } else if let Ok(time) = word.parse() {
                out.events.push(event(time, position));
            } else if word != "nothing" {
                if self.defined.insert(word.to_owned()) {
                    out.definitions.push(Definition::Name { id: NameId::new(word), text: word.into() });
                }
                if let Some(event) = out.events.last_mut() {
                    event.user_agent = NameId::new(word);
                }
            }
        }
    }
}

/// The content of one tick, over all workers.
#[derive(Debug, Default, PartialEq)]
struct TickSeen {
    /// (partition, offset, index), time, lateness; sorted.
    events: Vec<(Position, EventTime, u32)>,
    letters: Vec<(Position, String)>,
}

#[derive(Debug, PartialEq)]
struct Seen {
    ticks: BTreeMap<Tick, TickSeen>,
    infos: Vec<TickInfo>,
    counts: IngestCounts,
}

/// Puts the workers' messages together, and checks what must hold for each.
fn gather(workers: &[Vec<Message>], counts: IngestCounts) -> Seen {
    let mut seen = Seen { ticks: BTreeMap::new(), infos: Vec::new(), counts };
    // At which of its worker's ticks a name was defined.
    let mut defined: BTreeMap<NameId, Tick> = BTreeMap::new();
    for (worker, messages) in workers.iter().enumerate() {
        let mut infos: Vec<TickInfo> = Vec::new();
        for message in messages {
            assert!(infos.last().is_none_or(|info| !info.last), "nothing follows the last tick");
            let open = infos.last().map_or(NOW, |info| info.tick + 1);
            match message {
                Message::Close { info, .. } => infos.push(*info),
                Message::Events { tick, events } => {
                    assert_eq!(*tick, open);
                    assert!(!events.is_empty());
                    let facts = events.iter().map(|event| (event.position, event.time, event.late_ms));
                    seen.ticks.entry(open).or_default().events.extend(facts);
                }
                Message::DeadLetters { tick, letters } => {
                    assert_eq!((worker, *tick), (0, open));
                    let facts = letters.iter().map(|letter| (letter.position, letter.reason.clone()));
                    seen.ticks.entry(open).or_default().letters.extend(facts);
                }
                Message::Tables { .. } => panic!("a bounded run has read its tables before"),
                Message::Definitions(definitions) => {
                    for definition in definitions {
                        let Definition::Name { id, .. } = definition else { panic!("{definition:?}") };
                        let first = defined.entry(*id).or_insert(open);
                        *first = open.min(*first);
                    }
                }
            }
        }
        assert!(infos.last().unwrap().last);
        assert!(seen.infos.is_empty() || seen.infos == infos, "all workers are given the same ticks");
        seen.infos = infos;
    }
    for message in workers.iter().flatten() {
        if let Message::Events { tick, events } = message {
            for event in events.iter().filter(|event| event.user_agent.is_some()) {
                assert!(defined[&event.user_agent] <= *tick, "defined with its first event or before");
            }
        }
    }
    seen.ticks.values_mut().for_each(|tick| tick.events.sort_unstable());
    seen
}

/// A worker of a dataflow: takes messages, and doesn't go further than a tick beyond the slowest worker.
struct Lockstep {
    done: Mutex<Vec<Tick>>,
    changed: Condvar,
}

impl Lockstep {
    fn finish(&self, worker: usize, tick: Tick) {
        let mut done = self.done.lock().unwrap();
        done[worker] = tick;
        self.changed.notify_all();
        while *done.iter().min().unwrap() < tick - 1 {
            done = self.changed.wait(done).unwrap();
        }
    }
}

/// Lets the others go on when a worker ends, be it by a panic.
struct Leave<'a>(&'a Lockstep, usize);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if let Ok(mut done) = self.0.done.lock() {
            done[self.1] = Tick::MAX;
        }
        self.0.changed.notify_all();
    }
}

fn run_worker(ingest: &Ingest, worker: usize, lockstep: &Lockstep) -> Vec<Message> {
    let _leave = Leave(lockstep, worker);
    let mut me = ingest.enter_worker(worker);
    let mut messages = Vec::new();
    let mut turn = worker;
    loop {
        // Workers with higher numbers prefer reading to taking messages.
        turn += 1;
        let busy = turn % 4 < worker && ingest.work(&mut me);
        match ingest.next(worker) {
            Some(message) => {
                let finished =
                    if let Message::Close { info, .. } = &message { Some(info.tick) } else { None };
                messages.push(message);
                if let Some(tick) = finished {
                    lockstep.finish(worker, tick);
                }
            }
            None if ingest.is_closed(worker) => return messages,
            None if busy || ingest.work(&mut me) => {}
            None => ingest.wait(&me),
        }
    }
}

fn start(inputs: Vec<InputPartition>, options: &IngestOptions) -> Arc<Ingest> {
    Ingest::new(inputs, |_| Box::new(Times::default()), options)
}

fn run_all(ingest: &Arc<Ingest>, workers: usize, decode_threads: usize) -> Vec<Vec<Message>> {
    let lockstep = Lockstep { done: Mutex::new(vec![0; workers]), changed: Condvar::new() };
    let _threads = DecodeThreads::spawn(ingest, decode_threads).unwrap();
    thread::scope(|scope| {
        let run = |worker| {
            let lockstep = &lockstep;
            scope.spawn(move || run_worker(ingest, worker, lockstep))
        };
        let workers: Vec<_> = (0..workers).map(run).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    })
}

fn options(workers: usize) -> IngestOptions {
    IngestOptions::new(NOW, Windows::default(), Limits::default(), NonZeroUsize::new(workers).unwrap())
}

fn run(inputs: Vec<InputPartition>, options: &IngestOptions, decode_threads: usize) -> Seen {
    let ingest = start(inputs, options);
    let workers = run_all(&ingest, options.workers.get(), decode_threads);
    assert!(ingest.error().is_none());
    let progress = ingest.progress();
    assert!(progress.total.is_none_or(|total| total == progress.bytes), "{progress:?}");
    gather(&workers, ingest.counts())
}

fn listed(folder: &Path) -> Vec<InputPartition> {
    let partitions = resolve(&format!("{}/*", folder.display())).unwrap();
    let input = |(number, partition): (u32, Partition)| InputPartition {
        info: PartitionInfo { source: "logs".to_owned(), source_index: 0, number, path: partition.path() },
        content: partition.into(),
    };
    (0..).zip(partitions).map(input).collect()
}

fn memory(texts: &[&str]) -> Vec<InputPartition> {
    let input = |(number, text): (u32, &&str)| InputPartition {
        info: PartitionInfo { source: "memory".to_owned(), source_index: 0, number, path: None },
        content: Partition::stream(Box::new(io::Cursor::new(text.as_bytes().to_vec()))).into(),
    };
    (0..).zip(texts).map(input).collect()
}

fn gzip(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// A log with everything in it: disorder, late and future-dated events, strays, gaps, bad and long lines,
/// several records a line, blank lines. A small generator of its own, seeded.
fn log(seed: u64, start: EventTime, lines: usize) -> String {
    let mut state = seed;
    let mut random = move |limit: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % limit
    };
    let mut text = String::new();
    let mut time = start;
    for line in 0..lines {
        time += random(1_500);
        match random(60) {
            0 => text.push_str("bad"),
            1 => text.push_str("nothing\r"),
            2 => text.push_str(&format!("{} bad {} name-{}", time, time - random(700_000), random(40))),
            3 => text.push_str(&format!("{time} {} bad {time}", NOW + FUTURE_MS + random(2))),
            4 => text.push_str(&"long ".repeat(30 + usize::try_from(random(200)).unwrap())),
            5 => text.push_str(&(time + 7_200_000).to_string()),
            6 => text.push('\n'),
            7 if random(10) == 0 => {
                time += 5_000_000;
                text.push_str(&time.to_string());
            }
            _ => text.push_str(&format!("{} name-{}", time - random(20_000), random(40))),
        }
        if line + 1 < lines {
            text.push('\n');
        }
    }
    text
}

/// Files that follow each other in time, and beside them files of the same time, some packed.
fn write_logs(folder: &Path) {
    for file in 0..3 {
        fs::write(folder.join(format!("rotated-{file}.log")), log(file, BASE + file * 800_000, 1_000))
            .unwrap();
    }
    fs::write(folder.join("parallel.log"), log(7, BASE, 2_000)).unwrap();
    let packed = [gzip(&log(8, BASE, 900)), gzip("\n"), gzip(&log(9, BASE + 700_000, 900))].concat();
    fs::write(folder.join("parallel.log.gz"), packed).unwrap();
    fs::write(folder.join("empty.log"), "").unwrap();
    fs::write(folder.join("only-bad.log"), "bad\n".repeat(700)).unwrap();
}

#[test]
fn threads_and_cuts_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    write_logs(folder.path());
    let limits = Limits { message_bytes: 200, tick_records: 150, ..Limits::default() };
    let expected = run(listed(folder.path()), &IngestOptions { limits, ..options(1) }, 0);
    assert!(expected.infos.len() > 50 && expected.counts.events > 5_000 && expected.counts.late > 10);
    let letters: usize = expected.ticks.values().map(|tick| tick.letters.len()).sum();
    assert_eq!(letters as u64, expected.counts.dead_letters);
    for reason in ["time: more than 5 minutes", "longer than 200 bytes", "bad"] {
        let mut letters = expected.ticks.values().flat_map(|tick| &tick.letters);
        assert!(letters.any(|(_, text)| text.starts_with(reason)), "{reason}");
    }
    for workers in 1..=3 {
        for decode_threads in 0..=2 {
            for (block_bytes, bytes, open_files) in
                [(1, 1, 1), (700, 20_000, 2), (5_000, 1, 128), (128 << 10, 1 << 20, 3)]
            {
                let options = IngestOptions {
                    limits: Limits { block_bytes, ..limits },
                    ahead_bytes: bytes,
                    queue_bytes: bytes,
                    open_files,
                    ..options(workers)
                };
                let seen = run(listed(folder.path()), &options, decode_threads);
                assert!(seen == expected, "{workers} workers, {decode_threads} decode threads, {options:?}");
            }
        }
    }
}

#[test]
fn the_tables_tick_comes_first_and_an_empty_input_ends() {
    let seen = run(Vec::new(), &options(2), 1);
    let info = |tick, last| TickInfo {
        tick,
        watermark_before: 0,
        watermark: 0,
        cadence: 0,
        catching_up: false,
        last,
    };
    assert_eq!(seen.infos, [info(NOW, false), info(NOW + 1, true)]);
    assert_eq!(run(memory(&["", "\n\n"]), &options(1), 0).infos, seen.infos);

    let ingest = start(memory(&["1"]), &options(1));
    assert!(matches!(ingest.next(0), Some(Message::Close { info: first, .. }) if first == info(NOW, false)));
    assert!(ingest.next(0).is_none() && !ingest.is_closed(0));
}

#[test]
fn what_is_refused_keeps_its_place_and_its_traces() {
    let latest = NOW + FUTURE_MS;
    let future = latest + 1;
    let line = format!("{BASE} bad {future} {latest} {future} bad");
    let text = format!("{BASE}\n{line}\n{latest}\n{}", "x".repeat(70));
    let limits = Limits { message_bytes: 69, ..Limits::default() };
    let ingest = start(memory(&[&text]), &IngestOptions { limits, ..options(1) });
    let messages = run_all(&ingest, 1, 0).remove(0);
    let letters: Vec<_> = messages
        .iter()
        .filter_map(
            |message| if let Message::DeadLetters { letters, .. } = message { Some(letters) } else { None },
        )
        .flatten()
        .collect();
    let places: Vec<_> =
        letters.iter().map(|letter| (letter.position.offset, letter.position.index)).collect();
    let start = 14;
    let long = text.len() as u64 - 70;
    assert_eq!(places, [(start, 1), (start, 2), (start, 4), (start, 5), (long, 0)]);
    assert_eq!(letters[1].sha256, <[u8; 32]>::from(Sha256::digest(&line)));
    assert_eq!(letters[1].length, line.len() as u64);
    let kept = format!(r#"{{"time_ms":{future},"status":200,"latency_us":3,"bytes_in":4,"bytes_out":5}}"#);
    assert_eq!(letters[1].kept.as_deref(), Some(kept.as_str()));
    assert!(letters[1].reason.starts_with("time: more than 5 minutes after the run's time"));
    assert_eq!((letters[4].length, letters[4].sha256), (70, Sha256::digest("x".repeat(70)).into()));
    assert_eq!(letters[4].reason, "longer than 69 bytes (limits.message_bytes)");
    let counts = IngestCounts {
        bytes: text.len() as u64,
        events: 4,
        late: 0,
        dead_letters: 5,
        refused: [0, 0, 1, 2, 0, 2, 0, 0, 0],
        first_refused: Some(Position { partition: 0, offset: 14, index: 1 }),
        ..IngestCounts::default()
    };
    assert_eq!((ingest.counts(), ingest.counts().records()), (counts, 9));
}

#[test]
fn reading_waits_for_the_workers() {
    let text = log(1, BASE, 20_000);
    let limits = Limits { block_bytes: 1_000, tick_records: 100, ..Limits::default() };
    let bounds = IngestOptions { limits, ahead_bytes: 10_000, queue_bytes: 10_000, ..options(1) };
    let ingest = start(memory(&[&text]), &bounds);
    let mut me = ingest.enter_worker(0);
    while ingest.work(&mut me) {}
    assert!(!ingest.is_over());
    let stopped_at = ingest.progress().bytes;
    assert!(stopped_at < 10_000, "{stopped_at} bytes were read ahead of a worker that takes nothing");
    while ingest.next(0).is_some() {}
    assert!(ingest.work(&mut me));
    assert!(ingest.progress().bytes > stopped_at);
}

#[test]
fn files_that_follow_each_other_are_not_read_all_at_once() {
    let every_second = |file: u64| -> String {
        (0..5_000).map(|line| format!("{}\n", BASE + (file * 5_000 + line) * 1_000)).collect()
    };
    let texts = [every_second(0), every_second(1), every_second(2)];
    let limits = Limits { block_bytes: 1_000, tick_records: 100, ..Limits::default() };
    let ahead_bytes = 20_000;
    let bounds = IngestOptions { limits, ahead_bytes, ..options(1) };
    let ingest = start(memory(&[&texts[0], &texts[1], &texts[2]]), &bounds);
    let mut me = ingest.enter_worker(0);
    let (mut taken, mut most) = (0, 0);
    while !ingest.is_closed(0) {
        while let Some(message) = ingest.next(0) {
            if let Message::Events { events, .. } = message {
                taken += events.len() as u64;
            }
        }
        // Lines are 14 bytes.
        most = most.max(ingest.counts().bytes / 14 - taken);
        ingest.work(&mut me);
    }
    assert_eq!(taken, 15_000);
    // Three starts, what may be read ahead, a block, an open tick.
    let bound = 3 * 64 + ahead_bytes as u64 / 128 + 2 * 72 + 100;
    assert!(most <= bound, "{most} events in memory, at most {bound} are expected");
}

#[test]
fn an_unreadable_file_ends_the_run_with_its_name() {
    for decode_threads in 0..=1 {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.log"), log(1, BASE, 3_000)).unwrap();
        let whole = gzip(&log(2, BASE, 3_000));
        fs::write(folder.path().join("b.log.gz"), &whole[..whole.len() - 9]).unwrap();
        let ingest = start(listed(folder.path()), &options(2));
        run_all(&ingest, 2, decode_threads);
        let error = ingest.error().unwrap();
        assert!(
            matches!(&*error, IngestError::File(FileError::Gzip { path, .. }) if path.ends_with("b.log.gz"))
        );
        assert!(ingest.next(0).is_none() && ingest.is_closed(0) && ingest.is_closed(1));
    }
}

#[test]
fn a_panic_in_a_decode_thread_ends_the_run() {
    let ingest = start(memory(&["1\n2\npanic\n"]), &options(1));
    let threads = DecodeThreads::spawn(&ingest, 1).unwrap();
    let me = ingest.enter_worker(0);
    while !ingest.is_closed(0) {
        if ingest.next(0).is_none() {
            ingest.wait(&me);
        }
    }
    assert!(matches!(*ingest.error().unwrap(), IngestError::Panicked));
    drop(threads);
}

#[test]
fn dropping_the_threads_ends_them_while_the_queues_are_full() {
    let bounds = IngestOptions { queue_bytes: 1, ..options(1) };
    let ingest = start(memory(&[&log(1, BASE, 5_000)]), &bounds);
    drop(DecodeThreads::spawn(&ingest, 2).unwrap());
    assert!(ingest.is_over() && ingest.error().is_none());
    assert!(matches!(ingest.next(0), Some(Message::Close { .. })), "what is queued stays");
}

fn source(name: &str, kind: SourceKind) -> Source {
    Source {
        name: name.to_owned(),
        kind,
        format: keytide_config::Format::Combined,
        inner: None,
        pattern: None,
        fields: keytide_config::FieldMap::default(),
        keys: keytide_config::KeyRules {
            from: Vec::new(),
            hash: keytide_config::KeyHash::None,
            missing: keytide_config::MissingKey::Anonymous,
        },
        dedupe: keytide_config::Dedupe::RequestId,
        routes: keytide_config::RoutesFrom::Gateway,
        unwrap: Source::default_unwrap(),
        records: Source::default_records(),
        only: Vec::new(),
        zone: keytide_config::Zone::default(),
    }
}

#[test]
fn sources_are_listed_in_the_order_of_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["b.log", "a.log"] {
        fs::write(folder.path().join(name), "1\n").unwrap();
    }
    let files = SourceKind::File { pattern: format!("{}/*.log", folder.path().display()) };
    let inputs = inputs(&[source("piped", SourceKind::Stdin), source("archive", files)]).unwrap();
    let ingest = start(inputs, &options(1));
    let info = |source: &str, source_index, number, file: Option<&str>| PartitionInfo {
        source: source.to_owned(),
        source_index,
        number,
        path: file.map(|file| folder.path().join(file).display().to_string()),
    };
    let expected = [
        info("piped", 0, 0, None),
        info("archive", 1, 0, Some("a.log")),
        info("archive", 1, 1, Some("b.log")),
    ];
    assert_eq!(ingest.partitions(), expected);
    assert_eq!(ingest.progress(), ReadProgress { bytes: 0, total: None });
}

/// The inputs of the topic `events`.
fn topic(broker: &MockBroker) -> Vec<InputPartition> {
    inputs(&[source("gateway", SourceKind::Kafka(broker.source("events")))]).unwrap()
}

#[test]
fn a_topic_gives_what_its_messages_give_as_lines_of_files() {
    let folder = tempfile::tempdir().unwrap();
    let broker = MockBroker::new();
    broker.create("events", 3);
    let mut offsets = Vec::new();
    for partition in 0..3_u8 {
        let text = log(u64::from(partition), BASE + u64::from(partition) * 400_000, 800).replace('\r', "");
        fs::write(folder.path().join(format!("{partition}.log")), &text).unwrap();
        let lines: Vec<_> = text.lines().filter(|line| !line.is_empty()).collect();
        broker.produce("events", partition.into(), &lines);
        let start = |line: &&str| line.as_ptr() as u64 - text.as_ptr() as u64;
        offsets.push(
            (0..).zip(&lines).map(|(offset, line)| (start(line), offset)).collect::<BTreeMap<_, u64>>(),
        );
    }
    let limits = Limits { message_bytes: 200, tick_records: 150, ..Limits::default() };
    let mut expected = run(listed(folder.path()), &IngestOptions { limits, ..options(1) }, 0);
    assert!(expected.infos.len() > 10 && expected.counts.late > 0 && expected.counts.dead_letters > 0);
    let moved = |position: Position| {
        let offset = offsets[position.partition as usize][&position.offset];
        Position { offset, ..position }
    };
    for tick in expected.ticks.values_mut() {
        tick.events.iter_mut().for_each(|event| event.0 = moved(event.0));
        tick.letters.iter_mut().for_each(|letter| letter.0 = moved(letter.0));
    }
    // One range open at a time, so that they are closed and opened again.
    for (workers, threads, block_bytes, open_files) in [(1, 0, 128 << 10, 128), (2, 2, 1_000, 1)] {
        let limits = Limits { block_bytes, ..limits };
        let seen = run(topic(&broker), &IngestOptions { limits, open_files, ..options(workers) }, threads);
        assert_eq!(seen.ticks, expected.ticks, "{workers} workers");
        assert_eq!(seen.infos, expected.infos, "{workers} workers");
    }
}

#[test]
fn a_topics_partitions_are_listed_by_number_and_empty_ones_end_at_once() {
    let broker = MockBroker::new();
    broker.create("events", 3);
    broker.produce("events", 2, &[BASE.to_string().as_str()]);
    let ingest = start(topic(&broker), &options(1));
    let numbers: Vec<_> = ingest.partitions().iter().map(|info| (info.number, info.path.clone())).collect();
    assert_eq!(numbers, [(0, None), (1, None), (2, None)]);
    assert_eq!(ingest.progress(), ReadProgress { bytes: 0, total: None });
    let workers = run_all(&ingest, 1, 0);
    assert_eq!(gather(&workers, ingest.counts()).counts.events, 1);
}

#[test]
fn null_and_empty_messages_are_dead_letters_at_their_offsets() {
    let broker = MockBroker::new();
    broker.create("events", 1);
    broker.produce_at("events", 0, &[(None, 1), (Some(""), 2)]);
    let context = crate::decode::Context::new(
        &keytide_config::Routes::default(),
        &[],
        Limits::default(),
        Arc::new(crate::decode::NoGeo),
    );
    for format in [keytide_config::Format::Combined, keytide_config::Format::Kong] {
        let source = Source { format, ..source("gateway", SourceKind::Stdin) };
        let context = context.clone();
        let decoder = move |_| crate::decode::decoder(&source, &context);
        let ingest = Ingest::new(topic(&broker), decoder, &options(1));
        let seen = gather(&run_all(&ingest, 1, 0), ingest.counts());
        let letters: Vec<_> = seen.ticks.values().flat_map(|tick| &tick.letters).collect();
        assert_eq!(letters.iter().map(|(position, _)| position.offset).collect::<Vec<_>>(), [0, 1]);
        assert!(letters.iter().all(|(_, reason)| reason.contains("empty message")), "{letters:?}");
    }
}

#[test]
fn headers_and_compressed_values_of_a_topic_reach_the_decoder() {
    let broker = MockBroker::new();
    broker.create("events", 1);
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(b"{}").unwrap();
    let packed = packed.finish().unwrap();
    let headers = |id: &'static str, time: &'static str| -> Vec<(&[u8], Option<&[u8]>)> {
        let pairs = [("ce_specversion", "1.0"), ("ce_source", "s"), ("ce_id", id), ("ce_time", time)];
        pairs.map(|(name, value)| (name.as_bytes(), Some(value.as_bytes()))).to_vec()
    };
    for (time, value) in [("2025-11-20T12:44:15Z", Some(&b"{}"[..])), ("2025-11-20T12:44:16Z", None)] {
        broker.produce_headed("events", 0, &headers("1", time), value);
    }
    broker.produce_headed("events", 0, &headers("1", "2025-11-20T12:44:17Z"), Some(&packed));
    broker.produce_headed("events", 0, &headers("", "2025-11-20T12:44:18Z"), Some(b"{}"));
    broker.produce("events", 0, &["{}"]);
    let context = crate::decode::Context::new(
        &keytide_config::Routes::default(),
        &[],
        Limits::default(),
        Arc::new(crate::decode::NoGeo),
    );
    let kind = SourceKind::Kafka(broker.source("events"));
    let source = Source { format: keytide_config::Format::Cloudevents, ..source("gateway", kind) };
    let inputs = inputs(std::slice::from_ref(&source)).unwrap();
    let decoder = move |_| crate::decode::decoder(&source, &context);
    let ingest = Ingest::new(inputs, decoder, &options(1));
    let (mut found, mut refused) = (Vec::new(), Vec::new());
    for message in run_all(&ingest, 1, 0).into_iter().flatten() {
        match message {
            Message::Events { events, .. } => found.extend(events.iter().map(|event| event.position.offset)),
            Message::DeadLetters { letters, .. } => refused.extend(letters),
            Message::Definitions(_) | Message::Tables { .. } | Message::Close { .. } => {}
        }
    }
    assert_eq!(found, [0, 1, 2]);
    let reasons: Vec<_> =
        refused.iter().map(|letter| (letter.position.offset, letter.reason.split(';').next())).collect();
    assert_eq!(reasons, [(3, Some("id: missing")), (4, Some("specversion: missing"))]);
}

#[test]
fn a_gap_in_a_topic_ends_the_run_or_is_a_dead_letter() {
    let broker = MockBroker::new();
    broker.create("events", 1);
    let value = "nothing ".repeat(12_500);
    broker.produce("events", 0, &[value.as_str(); 10]);
    let mut kept = topic(&broker);
    let mut config = broker.source("events");
    config.on_gap = keytide_config::OnGap::Skip;
    let skipping = inputs(&[source("gateway", SourceKind::Kafka(config))]).unwrap();
    // The broker keeps 5 MiB of a partition.
    for _ in 0..7 {
        broker.produce("events", 0, &[value.as_str(); 10]);
    }
    let (low, _) = Topic::open(&broker.client(), "events").unwrap().watermarks(0).unwrap();
    assert!(low >= 10, "the broker dropped too little: up to {low}");
    let seen = run(skipping, &options(1), 0);
    let letters: Vec<_> = seen.ticks.values().flat_map(|tick| &tick.letters).collect();
    let expected = (
        Position { partition: 0, offset: 0, index: 0 },
        "gap: the records from offset 0 to 9 are gone".to_owned(),
    );
    assert_eq!(letters, [&expected], "the range ended at offset 10, whatever is gone behind it");

    let ingest = start(vec![kept.remove(0)], &options(1));
    run_all(&ingest, 1, 1);
    let error = ingest.error().unwrap();
    assert!(matches!(*error, IngestError::Kafka(KafkaError::Gap { wanted: 0, .. })), "{error}");
}

#[test]
fn a_run_can_be_stopped_while_the_brokers_are_down() {
    let broker = MockBroker::new();
    broker.create("events", 2);
    broker.produce("events", 0, &[BASE.to_string().as_str()]);
    broker.produce("events", 1, &[BASE.to_string().as_str()]);
    let ingest = start(topic(&broker), &options(1));
    broker.down();
    let mut me = ingest.enter_worker(0);
    assert!(ingest.work(&mut me), "an outage is no error");
    drop(DecodeThreads::spawn(&ingest, 2).unwrap());
    assert!(ingest.is_over() && ingest.error().is_none());
}
