//! Tests of live jobs, from a topic in memory to the rows, over gateways whose logs or clocks are behind the others'.
//!
//! A test goes second by second: it appends records, waits until the reader has polled every partition that isn't
//! paused, and lets one tick close. So no result depends on the speed of the machine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use keytide_config::{OnGap, Windows};
use keytide_connectors::decode::{Decoded, Decoder};
use keytide_connectors::input::PartitionInfo;
use keytide_connectors::live::testing::MemoryTopic;
use keytide_connectors::live::{
    self, Live, PartitionReader, SourceFeed, TICKS_PUBLISHED, TableReader, coordinate,
};
use keytide_connectors::sink::TickOutput;
use keytide_connectors::tables::TablesRead;
use keytide_dataflow::model::time::{HOUR_MS, MINUTE_MS, SECOND_MS};
use keytide_dataflow::model::{
    AccessEvent, CallerLocation, Country, EventTime, KeyId, LATENCY_UNKNOWN, NameId, Position, RequestId,
    RouteId,
};
use keytide_dataflow::{Level, Options, Publish, Rows};

use super::checkpoint::Pieces;
use super::observe::WorkerStats;
use super::publish::{PublishEvent, Results};
use super::work::work;

/// The clock at a job's start, far from the end of a day and of a month.
const NOW: EventTime = 1_800_013_000_000;
const DEADLINE: Duration = Duration::from_secs(120);

/// Decodes records that are `time id key`.
struct TripleDecoder;

impl Decoder for TripleDecoder {
    fn decode(&mut self, message: &[u8], at: Position, out: &mut Decoded) {
        let words: Vec<&str> = std::str::from_utf8(message).unwrap().split(' ').collect();
        let &[time, id, key] = words.as_slice() else { unreachable!("a record is three words") };
        out.events.push(AccessEvent {
            key: KeyId::from_name(key),
            request: RequestId::new("gateway", id.as_bytes()),
            client: 7,
            time: time.parse().unwrap(),
            route: RouteId(2),
            user_agent: NameId::NONE,
            position: at,
            latency_us: LATENCY_UNKNOWN,
            bytes_in: 0,
            bytes_out: 0,
            units: 0,
            count: 1,
            late_ms: 0,
            asn: 0,
            status: 200,
            is_free: false,
            country: Country::UNKNOWN,
            place: CallerLocation::default(),
        });
    }
}

/// A live job over one topic.
struct Gateways {
    live: Arc<Live>,
    topic: MemoryTopic,
    clock: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
    outputs: JoinHandle<Vec<TickOutput>>,
    sent: u64,
    ticks: u64,
}

/// The results of a job that ended.
struct JobOutcome {
    /// Calls of all windows by key and level.
    calls: BTreeMap<(KeyId, Level), u64>,
    late: Vec<(KeyId, bool, bool)>,
    duplicates: u64,
    incidents: usize,
}

impl JobOutcome {
    fn of(&self, key: &str, level: Level) -> u64 {
        self.calls.get(&(KeyId::from_name(key), level)).copied().unwrap_or(0)
    }
}

impl Gateways {
    fn start(partitions: u32, windows: Windows) -> Self {
        let options = live::testing::options(windows);
        let live = Live::new(NOW, options);
        let topic = MemoryTopic::default();
        let source =
            SourceFeed { name: "events".to_owned(), source: 0, feed: topic.feed(0), on_gap: OnGap::Stop };
        let reader = PartitionReader::new(&live, 0, vec![source], &|_| Box::new(TripleDecoder));
        for number in 0..partitions {
            let info = PartitionInfo { source: "gateway".into(), source_index: 0, number, path: None };
            live.add_partition(info, 0);
        }
        let tables = TableReader::new(&live, TablesRead::default(), Vec::new(), BTreeMap::new());
        let clock = Arc::new(AtomicU64::new(NOW));
        let (results, collected) = mpsc::channel();
        let results = Results::new(results);
        let (of_coordinator, of_worker) = (Arc::clone(&live), Arc::clone(&live));
        let of_clock = Arc::clone(&clock);
        let threads = vec![
            thread::spawn(move || reader.run()),
            thread::spawn(move || tables.run()),
            thread::spawn(move || coordinate(&of_coordinator, || of_clock.load(Ordering::SeqCst))),
            thread::spawn(move || {
                timely::execute_directly(move |worker| {
                    let options = Options {
                        windows,
                        limits: keytide_config::Limits::default(),
                        detection: keytide_dataflow::DetectorOptions::default(),
                        accounts: keytide_dataflow::AccountOptions::default(),
                        publish: Publish::Changes { bulk_rows: 128 },
                    };
                    work(
                        worker,
                        &of_worker,
                        options,
                        &Arc::new(WorkerStats::default()),
                        &results,
                        &Pieces::default(),
                        None,
                    );
                });
            }),
        ];
        let outputs = thread::spawn(move || {
            let of_event = |event| match event {
                PublishEvent::Output(output) => Some(*output),
                PublishEvent::Committed(_) | PublishEvent::Ended | PublishEvent::Parts(_) => None,
            };
            collected.into_iter().filter_map(of_event).collect()
        });
        let job = Self { live, topic, clock, threads, outputs, sent: 0, ticks: TICKS_PUBLISHED };
        // The job closes empty ticks until `TICKS_PUBLISHED` wait to be published.
        job.wait("ticks", || job.live.counters.ticks.load(Ordering::Relaxed) >= job.ticks);
        job
    }

    fn now(&self) -> EventTime {
        self.clock.load(Ordering::SeqCst)
    }

    fn wait(&self, what: &str, done: impl Fn() -> bool) {
        let started = Instant::now();
        while !done() {
            assert!(started.elapsed() < DEADLINE, "{what}: {:?}", self.live.status());
            thread::yield_now();
        }
    }

    fn append(&mut self, partition: u32, time: EventTime, id: &str, key: &str) {
        self.topic.append(partition, [format!("{time} {id} {key}")]);
        self.sent += 1;
    }

    /// Waits for two polls of the reader, and lets one tick close.
    fn second(&mut self) {
        let polls = self.topic.polls();
        self.wait("polls", || self.topic.polls() >= polls + 2);
        self.live.published(self.now());
        self.ticks += 1;
        self.wait("a tick", || self.live.counters.ticks.load(Ordering::Relaxed) >= self.ticks);
        self.clock.fetch_add(SECOND_MS, Ordering::SeqCst);
    }

    /// Returns by how much the watermark is behind the clock, in ms.
    fn behind(&self) -> u64 {
        self.now() - self.live.status().watermark
    }

    fn slow(&self) -> Vec<u32> {
        self.live.status().slow.iter().map(|(partition, _)| partition.number).collect()
    }

    fn end(mut self) -> JobOutcome {
        // Paused partitions are read as the watermark advances, a minute each tick.
        let read = |job: &Self| job.live.counters.events.load(Ordering::Relaxed);
        for _ in 0..10_000 {
            if read(&self) == self.sent {
                break;
            }
            self.second();
        }
        assert_eq!(read(&self), self.sent, "everything is read");
        self.live.stop();
        let Self { live, threads, outputs, .. } = self;
        while !threads.iter().all(JoinHandle::is_finished) {
            live.published(NOW);
            thread::yield_now();
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let mut newest = BTreeMap::new();
        let mut outcome =
            JobOutcome { calls: BTreeMap::new(), late: Vec::new(), duplicates: 0, incidents: 0 };
        for output in outputs.join().unwrap() {
            outcome.duplicates += output.counts.duplicates;
            outcome.late.extend(output.late.iter().map(|late| (late.key, late.counted, late.proven)));
            for rows in output.rows {
                match rows {
                    Rows::Usage(rows) => newest.extend(
                        rows.into_iter()
                            .map(|row| ((row.group, row.level, row.start), row.value.usage.calls)),
                    ),
                    Rows::Incidents(rows) => outcome.incidents += rows.len(),
                    _ => {}
                }
            }
        }
        for ((key, level, _), calls) in newest {
            *outcome.calls.entry((key, level)).or_default() += calls;
        }
        outcome
    }
}

/// How the backlog of a gateway is sent.
#[derive(Clone, Copy, Debug)]
struct Backlog {
    hours: u64,
    partitions: u32,
    /// Seconds over which it is spread.
    seconds: u64,
    /// How often it is sent.
    times: u64,
}

/// Runs a job whose first gateway was away and sends 300 calls, while those of the other partitions go on.
fn receive(backlog: Backlog) -> (JobOutcome, u64) {
    let Backlog { hours, partitions, seconds, times } = backlog;
    let mut job = Gateways::start(partitions, Windows::default());
    let mut up = 0;
    let mut call = |job: &mut Gateways| {
        for partition in 1..partitions {
            up += 1;
            let time = job.now() - u64::from(partition) * 100;
            job.append(partition, time, &format!("up{up}"), "up");
        }
    };
    for number in 0..10 {
        let time = NOW - hours * HOUR_MS - MINUTE_MS + number * SECOND_MS;
        job.append(0, time, &format!("before{number}"), "down");
    }
    for _ in 0..20 {
        call(&mut job);
        job.second();
    }
    assert!(job.behind() < 10 * SECOND_MS, "{backlog:?}: the others go on: {}", job.behind());
    for _ in 0..times {
        let start = NOW - hours * HOUR_MS;
        for number in 0..300 {
            job.append(0, start + number * 100, &format!("r{number}"), "down");
            if (number + 1) % (300 / seconds) == 0 {
                call(&mut job);
                job.second();
            }
        }
    }
    for _ in 0..5 {
        call(&mut job);
        job.second();
    }
    assert!(job.behind() < 10 * SECOND_MS, "{backlog:?}: {}", job.behind());
    (job.end(), up)
}

#[test]
fn a_backlog_of_hours_counts_once_however_it_comes() {
    for hours in [1, 2, 6, 30] {
        for (partitions, seconds, times) in [(2, 1, 1), (2, 10, 2), (4, 1, 2), (4, 30, 1)] {
            let backlog = Backlog { hours, partitions, seconds, times };
            let (outcome, up) = receive(backlog);
            let calls = |key| outcome.of(key, Level::Month);
            assert_eq!((calls("down"), calls("up")), (310, up), "{backlog:?}");
            assert_eq!(outcome.duplicates, 300 * (times - 1), "{backlog:?}");
            // The first ten calls are in time. A backlog within the finest level's state counts there, too.
            let minutes = outcome.of("down", Level::Minute);
            assert_eq!(minutes, if hours < 3 { 310 } else { 10 }, "{backlog:?}");
            let down = KeyId::from_name("down");
            let unproven = outcome.late.iter().filter(|late| **late == (down, true, false)).count() as u64;
            assert_eq!(unproven, if hours == 1 { unproven.min(300) } else { 300 }, "{backlog:?}");
            assert_eq!(outcome.incidents, 0);
        }
    }
}

#[test]
fn a_gateway_whose_clock_is_slow_delays_nobody_and_its_calls_count() {
    for (hours, of_slow) in [(1, 1), (30, 1), (2, 3)] {
        let mut job = Gateways::start(3, Windows::default());
        let (mut good, mut slow, mut waited) = (0_u64, 0_u64, 0_u64);
        for second in 0..90 {
            let now = job.now();
            for partition in [0, 2] {
                good += 1;
                job.append(partition, now, &format!("good{good}"), "good");
            }
            if second % of_slow == 0 {
                slow += 1;
                job.append(1, now - hours * HOUR_MS, &format!("slow{slow}"), "slow");
            }
            job.second();
            if job.behind() > 10 * SECOND_MS {
                waited += 1;
            } else if waited > 0 {
                assert_eq!(job.slow(), [1], "second {second}");
            }
        }
        assert!(waited <= 5 + 2 * of_slow, "{hours} h: {waited}");
        assert!(job.live.status().slow[0].1.abs_diff(hours * HOUR_MS) <= 5 * SECOND_MS);
        // The gateway's clock is corrected.
        for _ in 0..3 {
            let now = job.now();
            good += 2;
            job.append(0, now, &format!("good{good}"), "good");
            job.append(1, now, &format!("set{good}"), "good");
            job.second();
        }
        assert_eq!(job.slow(), [0; 0]);
        let outcome = job.end();
        let month = |key| outcome.of(key, Level::Month);
        assert_eq!((month("good"), month("slow")), (good, slow), "{hours} h");
        assert_eq!(outcome.of("good", Level::Minute), good, "{hours} h");
        assert_eq!(outcome.of("slow", Level::Hour), slow, "{hours} h");
        assert_eq!((outcome.duplicates, outcome.incidents), (0, 0));
    }
}

#[test]
fn a_backlog_that_lies_there_when_the_job_starts_is_waited_for() {
    let mut job = Gateways::start(2, Windows::default());
    // Six hours, in more polls than a tick has.
    for number in 0..21_600 {
        let time = NOW - 6 * HOUR_MS + number * SECOND_MS;
        job.append(0, time, &format!("b{number}"), "backlog");
    }
    job.append(1, NOW, "up", "up");
    let outcome = job.end();
    assert_eq!(outcome.of("backlog", Level::Month), 21_600);
    assert_eq!((outcome.late.len(), outcome.of("up", Level::Minute)), (0, 1));
    assert_eq!(outcome.of("backlog", Level::Minute), 21_600, "no window closed before it was read");
}
