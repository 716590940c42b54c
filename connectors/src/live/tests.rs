//! Readers, coordinator and workers over topics in memory, in one process or several.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use keytide_config::OnGap;
use keytide_dataflow::model::{
    AccessEvent, CallerLocation, Country, KeyId, NameId, PlanRow, Policy, Position, RequestId, RouteId,
    TableChange, TableRow, TickInfo,
};
use keytide_dataflow::{ActionId, ActionInput, GatewayOutcome, GatewayReport};

use super::testing::MemoryTopic;
use super::*;
use crate::decode::{Decoded, Decoder};
use crate::ledger::AddedPartition;
use crate::tables::TablesRead;

const NOW: Tick = 1_800_000_000_000;
const DEADLINE: Duration = Duration::from_secs(60);

/// Takes messages that are a time in ms; its number is the events' AS number.
struct Times(u32);

impl Decoder for Times {
    fn decode(&mut self, message: &[u8], at: Position, out: &mut Decoded) {
        let Some(time) = std::str::from_utf8(message).ok().and_then(|text| text.parse().ok()) else {
            return crate::decode::dead_letter(out, at, message, "not JSON: a time".to_owned(), None, false);
        };
        out.events.push(AccessEvent {
            key: KeyId(5),
            request: RequestId::NONE,
            client: 0,
            time,
            route: RouteId(2),
            user_agent: NameId::NONE,
            position: at,
            latency_us: 1,
            bytes_in: 0,
            bytes_out: 0,
            units: 0,
            count: 1,
            late_ms: 0,
            asn: self.0,
            status: 200,
            is_free: false,
            country: Country::UNKNOWN,
            place: CallerLocation::default(),
        });
    }
}

/// Returns decoders whose name is the number of their events.
fn named(name: &str) -> NamedDecoders {
    let number: u32 = name.parse().unwrap();
    NamedDecoders { name: name.to_owned(), decoders: Arc::new(move |_| Box::new(Times(number))) }
}

/// A job over one topic, with its threads.
struct Job {
    live: Arc<Live>,
    /// The inputs of the other processes.
    followers: Vec<Arc<Live>>,
    topic: MemoryTopic,
    cuts: Arc<Mutex<Vec<Cut>>>,
    threads: Vec<JoinHandle<()>>,
    workers: Vec<JoinHandle<Vec<Message>>>,
}

struct Setup {
    processes: usize,
    /// The number of workers of each process.
    workers: usize,
    tick_ms: u64,
    low: u64,
    on_gap: OnGap,
    tables: Vec<Box<dyn TableFeed>>,
    /// How far the clock is set back once the job runs.
    set_back_ms: u64,
    checkpoints: Option<CheckpointRules>,
    topic: MemoryTopic,
    /// The ticks of an earlier life.
    earlier: Vec<Cut>,
    /// Workers take ticks and don't compute them before this is set.
    computing: Arc<AtomicBool>,
    /// True if checkpoints can be stored.
    stores: Arc<AtomicBool>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            processes: 1,
            workers: 2,
            tick_ms: 5,
            low: 0,
            on_gap: OnGap::Stop,
            tables: Vec::new(),
            set_back_ms: 0,
            checkpoints: None,
            topic: MemoryTopic::default(),
            earlier: Vec::new(),
            computing: Arc::new(AtomicBool::new(true)),
            stores: Arc::new(AtomicBool::new(true)),
        }
    }
}

impl Job {
    fn start(setup: Setup) -> Self {
        let workers = NonZeroUsize::new(setup.workers).unwrap();
        let options = LiveOptions {
            tick_ms: setup.tick_ms,
            windows: Windows::default(),
            workers,
            place: ProcessPlace { process: 0, processes: NonZeroUsize::new(setup.processes).unwrap() },
            checkpoints: setup.checkpoints,
        };
        let live = Live::new(NOW, options);
        let topic = setup.topic;
        let records: Vec<TickRecord> = setup.earlier.iter().map(|cut| cut.record.clone()).collect();
        let (mut messages, mut followers, mut threads) = (Vec::new(), Vec::new(), Vec::new());
        for process in 1..setup.processes {
            let place = ProcessPlace { process, ..options.place };
            let follower = Live::new(NOW, LiveOptions { place, ..options });
            follower.follow(0);
            follower.replay(0, records.clone(), BTreeMap::new());
            let (sender, received) = channel();
            messages.push(sender);
            threads.extend(link(&live, &follower, process, received));
            followers.push(follower);
        }
        live.lead(messages);
        let recorded = setup.earlier.iter().filter(|cut| !cut.inputs.is_empty()).map(|cut| {
            (cut.record.tick, TickInputs::read(&cut.inputs.clone().into_blocks().concat()).unwrap().tables)
        });
        let recorded = recorded.collect();
        let decoders = setup.earlier.iter().filter_map(|cut| {
            let inputs = TickInputs::read(&cut.inputs.clone().into_blocks().concat()).unwrap();
            Some((cut.record.tick, named(&inputs.decoders?)))
        });
        live.replay(0, records, decoders.collect());
        for AddedPartition { source, number, offset } in
            setup.earlier.iter().flat_map(|cut| cut.record.added.clone())
        {
            live.add_partition(PartitionInfo { source, source_index: 0, number, path: None }, offset);
        }
        for (live, slot) in std::iter::once(&live)
            .chain(&followers)
            .flat_map(|live| (0..setup.workers).map(move |slot| (live, slot)))
        {
            let source = SourceFeed {
                name: "events".to_owned(),
                source: 0,
                feed: topic.feed(setup.low),
                on_gap: setup.on_gap,
            };
            let reader = PartitionReader::new(live, slot, vec![source], &|_| Box::new(Times(0)));
            threads.push(thread::spawn(move || reader.run()));
        }
        let tables = TableReader::new(&live, TablesRead::default(), setup.tables, recorded);
        threads.push(thread::spawn(move || tables.run()));
        let started = Instant::now();
        let clock = move || NOW - setup.set_back_ms + u64::try_from(started.elapsed().as_millis()).unwrap();
        {
            let live = Arc::clone(&live);
            threads.push(thread::spawn(move || coordinate(&live, clock)));
        }
        let cuts = Arc::<Mutex<Vec<Cut>>>::default();
        let run = |live: &Arc<Live>, worker, publishes| {
            let (live, computing) = (Arc::clone(live), Arc::clone(&setup.computing));
            let stores = Arc::clone(&setup.stores);
            let cuts = Arc::clone(&cuts);
            thread::spawn(move || run_worker(&live, worker, publishes, &computing, &stores, &cuts))
        };
        let mut workers: Vec<_> = (0..setup.workers).map(|worker| run(&live, worker, worker == 0)).collect();
        for follower in &followers {
            workers.extend((0..setup.workers).map(|worker| run(follower, worker, false)));
        }
        Self { live, followers, topic, cuts, threads, workers }
    }

    fn add_partition(&self, number: u32) {
        let info = PartitionInfo { source: "gateway".into(), source_index: 0, number, path: None };
        self.live.add_partition(info, 0);
    }

    fn wait(&self, what: &str, done: impl Fn(&Status) -> bool) {
        let started = Instant::now();
        while !done(&self.live.status()) {
            assert!(started.elapsed() < DEADLINE, "{what}: {:?}", self.live.status());
            thread::yield_now();
        }
    }

    fn wait_for_events(&self, count: u64) {
        let all = || std::iter::once(&self.live).chain(&self.followers);
        let read = || all().map(|live| live.counters.events.load(Ordering::Relaxed)).sum::<u64>();
        self.wait("events are read", |_| read() >= count);
    }

    /// The messages that each worker was given.
    fn end(self) -> Vec<Vec<Message>> {
        self.live.stop();
        let messages = self.workers.into_iter().map(|worker| worker.join().unwrap()).collect();
        self.followers.iter().for_each(|follower| follower.report_no_more());
        self.live.state().tell(&LeadMessage::Done(JobEnd::default()));
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        messages
    }
}

/// Starts the threads of a link, over which messages go as bytes and take their time.
fn link(
    live: &Arc<Live>,
    follower: &Arc<Live>,
    process: usize,
    messages: Receiver<LeadMessage>,
) -> [JoinHandle<()>; 2] {
    fn sent<T: serde::Serialize + serde::de::DeserializeOwned>(message: &T, number: u64) -> T {
        // No order of the threads is left out for being too quick.
        (0..number * 7_919 % 5).for_each(|_| thread::yield_now());
        postcard::from_bytes(&postcard::to_stdvec(message).unwrap()).unwrap()
    }
    let (live, follower) = (Arc::clone(live), Arc::clone(follower));
    let of_report = Arc::clone(&follower);
    let obey = move || {
        for (number, message) in (process as u64..).zip(messages) {
            follower.obey(sent(&message, number), |name| Some(named(name))).unwrap();
            if follower.is_done() {
                return;
            }
        }
    };
    let report = move || {
        let mut number = process as u64;
        while let Some(message) = of_report.report(Duration::from_millis(3)) {
            number += 1;
            live.hear(process, sent(&message, number)).unwrap();
        }
    };
    [thread::spawn(obey), thread::spawn(report)]
}

fn run_worker(
    live: &Live,
    worker: usize,
    publishes: bool,
    computing: &AtomicBool,
    stores: &AtomicBool,
    cuts: &Mutex<Vec<Cut>>,
) -> Vec<Message> {
    live.enter_worker(worker);
    let mut messages = Vec::new();
    let mut closed = VecDeque::new();
    loop {
        while let Some(message) = live.next(worker) {
            if let Message::Close { info, checkpoint, .. } = &message {
                closed.push_back(info.tick);
                if checkpoint.is_some() && publishes {
                    let number = live.state().number;
                    live.end_checkpoint(
                        Duration::ZERO,
                        Duration::ZERO,
                        stores.load(Ordering::Relaxed).then_some(number),
                    );
                }
            }
            messages.push(message);
        }
        if computing.load(Ordering::Relaxed) {
            for tick in closed.drain(..) {
                live.computed(worker, tick);
                if publishes {
                    cuts.lock().unwrap().extend(live.take_cut(tick));
                    live.published(tick);
                }
            }
        }
        if live.is_over(worker) {
            return messages;
        }
        thread::park_timeout(Duration::from_millis(1));
    }
}

/// By tick: its events, and what closed it; as one worker saw it, which is checked.
fn by_tick(messages: &[Message]) -> (BTreeMap<Tick, Vec<AccessEvent>>, Vec<TickInfo>) {
    let mut events: BTreeMap<Tick, Vec<AccessEvent>> = BTreeMap::new();
    let mut infos: Vec<TickInfo> = Vec::new();
    let mut open = NOW;
    let mut early = None;
    for message in messages {
        match message {
            Message::Events { tick, events: batch } => {
                if *tick != open {
                    assert!(
                        *tick > open && early.is_none_or(|early| early == *tick),
                        "one tick ahead at most"
                    );
                    early = Some(*tick);
                }
                events.entry(*tick).or_default().extend(batch);
            }
            Message::Close { info, next, .. } => {
                assert_eq!(info.tick, open);
                assert_eq!(info.watermark_before, infos.last().map_or(0, |last| last.watermark));
                assert!(early.is_none_or(|early| early == *next), "what came early is the next tick's");
                infos.push(*info);
                (open, early) = (*next, None);
            }
            Message::Definitions(_) | Message::DeadLetters { .. } | Message::Tables { .. } => {}
        }
    }
    (events, infos)
}

fn times(from: u64, count: u64, step: u64) -> impl Iterator<Item = String> {
    (0..count).map(move |index| (from + index * step).to_string())
}

#[test]
fn every_record_arrives_once_in_the_order_of_its_partition() {
    for (processes, workers) in [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (3, 2)] {
        let job = Job::start(Setup { processes, workers, ..Setup::default() });
        for partition in 0..4 {
            job.add_partition(partition);
        }
        for round in 0..20_u64 {
            for partition in 0..4 {
                let start = NOW - 600_000 + round * 20_000 + u64::from(partition);
                job.topic.append(partition, times(start, 50, 300));
            }
            if round == 10 {
                job.topic.append(4, times(NOW - 5_000, 100, 10));
                job.add_partition(4);
            }
        }
        job.wait_for_events(4_100);
        let messages = job.end();
        let mut seen: BTreeMap<u32, Vec<(u64, Tick)>> = BTreeMap::new();
        let (_, infos) = by_tick(&messages[0]);
        assert!(infos.last().unwrap().last && infos.iter().filter(|info| info.last).count() == 1);
        for worker in &messages {
            let (events, of_worker) = by_tick(worker);
            assert_eq!(of_worker, infos, "all workers are given the same ticks");
            for (tick, events) in events {
                for event in events {
                    assert_eq!(event.late_ms, 0);
                    seen.entry(event.position.partition).or_default().push((event.position.offset, tick));
                }
            }
        }
        assert_eq!(seen.values().map(Vec::len).collect::<Vec<_>>(), [1_000, 1_000, 1_000, 1_000, 100]);
        for of_partition in seen.values() {
            assert!(of_partition.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0 && pair[0].1 <= pair[1].1));
        }
    }
}

#[test]
fn lateness_is_judged_in_the_order_of_a_partition() {
    let job = Job::start(Setup { workers: 1, ..Setup::default() });
    let base = NOW - 3_000_000;
    let lines = [base, base + 700_000, base + 94_999, base + 95_000, base + 200_000_000, base + 700_000];
    job.topic.append(0, lines.map(|time| time.to_string()));
    job.topic.append(0, ["nonsense".to_owned(), (NOW + 600_000_000).to_string()]);
    job.add_partition(0);
    job.wait("two dead letters", |_| {
        job.live.counters.dead_letters.iter().map(|count| count.load(Ordering::Relaxed)).sum::<u64>() == 3
    });
    let counters = &job.live.counters;
    assert_eq!(counters.late.load(Ordering::Relaxed), 1);
    let classes: Vec<_> = crate::decode::CLASSES
        .iter()
        .zip(&counters.dead_letters)
        .filter(|(_, count)| count.load(Ordering::Relaxed) > 0)
        .map(|(class, count)| (*class, count.load(Ordering::Relaxed)))
        .collect();
    assert_eq!(classes, [("syntax", 1), ("future", 2)], "two days ahead is the future too");
    let messages = job.end().remove(0);
    let (events, _) = by_tick(&messages);
    let late: Vec<u32> = events.values().flatten().map(|event| event.late_ms).collect();
    assert_eq!(late, [0, 0, 605_001, 0, 0]);
}

#[test]
fn a_worker_may_come_after_the_first_tick() {
    let options = testing::options(Windows::default());
    let live = Live::new(NOW, options);
    let reader = PartitionReader::new(&live, 0, Vec::new(), &|_| Box::new(Times(0)));
    let tables = TableReader::new(&live, TablesRead::default(), Vec::new(), BTreeMap::new());
    let coordinator = Arc::clone(&live);
    let threads = [
        thread::spawn(move || reader.run()),
        thread::spawn(move || tables.run()),
        thread::spawn(move || coordinate(&coordinator, || NOW + 1)),
    ];
    let started = Instant::now();
    while live.status().closed == 0 {
        assert!(started.elapsed() < DEADLINE, "no tick is closed");
        thread::yield_now();
    }
    let open = live.enter_worker(0);
    assert!(matches!(live.next(0), Some(Message::Close { info, .. }) if info.tick == open));
    live.stop();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn ticks_wait_for_the_workers() {
    let computing = Arc::new(AtomicBool::new(false));
    let (processes, computing_too) = (2, Arc::clone(&computing));
    let job = Job::start(Setup { processes, tick_ms: 1, computing: computing_too, ..Setup::default() });
    job.add_partition(0);
    job.topic.append(0, times(NOW - 1_000, 100, 1));
    job.wait_for_events(100);
    job.wait("ticks are closed", |status| status.closed > 0);
    let ticks = || job.live.counters.ticks.load(Ordering::Relaxed);
    job.wait("as many as may be", |_| ticks() == TICKS_COMPUTED);
    let status = job.live.status();
    assert_eq!((status.computed, status.published), (0, 0));
    computing.store(true, Ordering::Relaxed);
    job.wait("it goes on", |status| status.computed > 0 && ticks() > 2 * TICKS_COMPUTED);
    job.end();
}

#[test]
fn no_partition_runs_far_ahead_of_the_watermark() {
    let job = Job::start(Setup { workers: 1, ..Setup::default() });
    let day = 86_400_000;
    // One event a second for two hours in each, the second partition's are silent at first.
    job.topic.append(0, times(NOW - day, 7_200, 1_000));
    job.topic.append(1, times(NOW - day, 10, 1_000));
    job.add_partition(0);
    job.add_partition(1);
    // At its end the slow one is idle sooner or later: a stream of records keeps it active.
    job.wait("both are known", |status| status.watermark > 0);
    let mut slow = 10;
    while job.live.counters.events.load(Ordering::Relaxed) < 7_200 + slow {
        let status = job.live.status();
        if status.closed > 0 && slow < 7_200 {
            job.topic.append(1, times(NOW - day + slow * 1_000, 10, 1_000));
            slow += 10;
        }
        thread::yield_now();
    }
    let messages = job.end().remove(0);
    let (events, infos) = by_tick(&messages);
    let mut before = 0;
    for info in &infos {
        assert!(before == 0 || info.watermark <= before + STEP_MS || !info.last, "steps");
        for event in events.get(&info.tick).into_iter().flatten() {
            if before > 0 {
                // One poll may pass the bound.
                let poll = 2_048 * 1_000;
                assert!(event.time <= before + 305_000 + poll, "{} ms ahead", event.time - before);
            }
        }
        before = info.watermark;
    }
}

#[test]
fn a_partition_of_bad_records_holds_nobody_back() {
    let job = Job::start(Setup { workers: 1, ..Setup::default() });
    job.add_partition(0);
    job.add_partition(1);
    job.topic.append(0, times(NOW - 60_000, 10, 1_000));
    let mut count = 0_u64;
    let started = Instant::now();
    while job.live.status().watermark == 0 {
        assert!(started.elapsed() < DEADLINE, "{:?}", job.live.status());
        job.topic.append(1, ["nonsense".to_owned()]);
        count += 1;
        let read = || job.live.counters.messages.load(Ordering::Relaxed);
        job.wait("it is read", |_| read() >= 10 + count);
    }
    assert!(count > 1);
    job.end();
}

#[test]
fn a_gap_stops_the_job_or_becomes_a_dead_letter() {
    let start = |on_gap| {
        let job = Job::start(Setup { workers: 1, low: 40, on_gap, ..Setup::default() });
        job.topic.append(0, times(NOW - 1_000, 100, 1));
        job.add_partition(0);
        job
    };
    let job = start(OnGap::Stop);
    job.wait("it fails", |_| job.live.error().is_some());
    let error = job.live.error().unwrap().to_string();
    assert!(error.contains("40") && error.contains("on_gap"), "{error}");
    let messages = job.end().remove(0);
    assert!(by_tick(&messages).1.last().unwrap().last, "what was read is in a last tick");

    let job = start(OnGap::Skip);
    job.wait_for_events(60);
    assert_eq!(job.live.counters.gaps.load(Ordering::Relaxed), 1);
    let messages = job.end().remove(0);
    let letters: Vec<_> = messages
        .iter()
        .filter_map(|message| match message {
            Message::DeadLetters { letters, .. } => Some(letters),
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(letters.len(), 1);
    assert!(letters[0].reason.starts_with("gap: the records from offset 0 to 39 are gone"));
}

/// A table that is complete once the test says so.
struct Gate(Arc<AtomicBool>);

impl TableFeed for Gate {
    fn poll(&mut self, wait: Duration, _: &mut TablesRead) -> Result<(), LiveError> {
        thread::park_timeout(wait);
        Ok(())
    }

    fn is_complete(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn remember(&self, _: &mut TablesMemory) {}
}

#[test]
fn no_tick_closes_before_the_tables_are_read() {
    let open = Arc::new(AtomicBool::new(false));
    let tables: Vec<Box<dyn TableFeed>> = vec![Box::new(Gate(Arc::clone(&open)))];
    let job = Job::start(Setup { tables, ..Setup::default() });
    job.add_partition(0);
    job.topic.append(0, times(NOW - 1_000, 100, 1));
    job.wait_for_events(100);
    assert_eq!(job.live.status().closed, 0);
    assert!(!job.live.status().tables_read);
    open.store(true, Ordering::Relaxed);
    job.wait("ticks close", |status| status.closed > 0 && status.tables_read);
    job.end();

    let tables: Vec<Box<dyn TableFeed>> = vec![Box::new(Gate(Arc::default()))];
    let job = Job::start(Setup { tables, ..Setup::default() });
    assert!(by_tick(&job.end()[0]).1.last().unwrap().last, "it can be stopped all the same");
}

#[test]
fn ticks_go_on_after_the_clock_was_set_back() {
    let job = Job::start(Setup { set_back_ms: 3_600_000, ..Setup::default() });
    job.add_partition(0);
    job.topic.append(0, times(NOW - 10_000, 10, 1));
    job.wait("ticks advance", |status| status.closed > NOW + 100);
    let (_, infos) = by_tick(&job.end()[0]);
    assert!(infos.windows(2).all(|pair| pair[0].tick < pair[1].tick));
    assert!(infos.last().unwrap().watermark >= NOW - 5_000, "an idle job's watermark follows");
}

#[test]
fn new_decoders_take_effect_at_a_tick() {
    let job = Job::start(Setup { processes: 2, workers: 2, ..Setup::default() });
    for partition in 0..6 {
        job.add_partition(partition);
    }
    let mut count = 0;
    let mut append = |job: &Job| {
        for partition in 0..6 {
            job.topic.append(partition, times(NOW - 1_000 + count / 6, 5, 0));
            count += 5;
        }
        job.wait_for_events(count);
    };
    for _ in 0..50 {
        append(&job);
    }
    job.live.replace_decoders(named("1"));
    let ticks = job.live.counters.ticks.load(Ordering::Relaxed);
    job.wait("two more ticks", |_| job.live.counters.ticks.load(Ordering::Relaxed) > ticks + 1);
    for _ in 0..50 {
        append(&job);
    }
    let mut kinds: BTreeMap<Tick, BTreeSet<u32>> = BTreeMap::new();
    for worker in job.end() {
        for (tick, events) in by_tick(&worker).0 {
            kinds.entry(tick).or_default().extend(events.iter().map(|event| event.asn));
        }
    }
    assert!(kinds.values().all(|kinds| kinds.len() == 1), "no tick is of both");
    let order: Vec<u32> = kinds.values().flatten().copied().collect();
    assert!(order.is_sorted() && order.first() == Some(&0) && order.last() == Some(&1));
}

/// Changes a table at some polls: a key's row gets another rate.
struct Changing {
    polls: u64,
    changes: u64,
}

impl TableFeed for Changing {
    fn poll(&mut self, _: Duration, read: &mut TablesRead) -> Result<(), LiveError> {
        self.polls += 1;
        if self.polls.is_multiple_of(7) {
            let row = PlanRow {
                id: NameId(self.changes % 5),
                name: NameId(self.changes),
                policy: Policy::Alert,
                fees: Box::default(),
            };
            read.changes.push(TableChange { offset: self.changes, row: TableRow::Plan(row), deleted: false });
            read.inputs.push(ActionInput::Report(GatewayReport {
                action: ActionId(self.changes.into()),
                gateway: "gateway".to_owned(),
                outcome: match self.changes % 3 {
                    0 => GatewayOutcome::Done,
                    1 => GatewayOutcome::Failed("it is gone".to_owned()),
                    _ => GatewayOutcome::Refused("wrong token".to_owned()),
                },
                at_ms: self.polls,
            }));
            self.changes += 1;
        }
        thread::park_timeout(Duration::from_millis(1));
        Ok(())
    }

    fn is_complete(&self) -> bool {
        true
    }

    fn remember(&self, _: &mut TablesMemory) {}
}

/// By tick: the events in the order of their records, the number of dead letters, the changes of tables, and what
/// gateways said.
type Ticks = BTreeMap<Tick, (Vec<AccessEvent>, usize, Vec<TableChange>, Vec<ActionInput>)>;

fn contents(workers: &[Vec<Message>]) -> Ticks {
    let mut ticks = Ticks::new();
    for message in workers.iter().flatten() {
        match message {
            Message::Events { tick, events } => ticks.entry(*tick).or_default().0.extend(events),
            Message::DeadLetters { tick, letters } => ticks.entry(*tick).or_default().1 += letters.len(),
            Message::Tables { tick, changes, inputs, .. } => {
                let content = ticks.entry(*tick).or_default();
                content.2.extend(changes.iter().cloned());
                content.3.extend(inputs.iter().cloned());
            }
            Message::Definitions(_) | Message::Close { .. } => {}
        }
    }
    for (events, ..) in ticks.values_mut() {
        events.sort_by_key(|event| event.position);
    }
    ticks
}

#[test]
fn recorded_ticks_are_made_again_from_the_same_records_with_any_number_of_processes_and_workers() {
    let checkpoints = Some(CheckpointRules { every_ms: 3_600_000, has_parts: false });
    let tables: Vec<Box<dyn TableFeed>> = vec![Box::new(Changing { polls: 0, changes: 0 })];
    let job = Job::start(Setup { processes: 2, workers: 2, checkpoints, tables, ..Setup::default() });
    (0..3).for_each(|partition| job.add_partition(partition));
    let mut count = 0;
    for round in 0..60_u64 {
        for partition in 0..4 {
            let time = NOW - 600_000 + round * 4_000 * (1 + u64::from(partition) % 2);
            // Some are late, and some can't be read.
            let lines = [time, time + 1, time - 700_000].map(|time| time.to_string());
            job.topic.append(partition, lines.into_iter().chain((round % 9 == 0).then(|| "bad".to_owned())));
        }
        count += if round < 30 { 9 } else { 12 };
        if round == 20 {
            job.live.replace_decoders(named("7"));
        }
        if round == 30 {
            job.add_partition(3);
            count += 90;
        }
        job.wait_for_events(count);
    }
    job.wait("many ticks", |_| job.live.counters.ticks.load(Ordering::Relaxed) > 30);
    let (topic, cuts) = (job.topic.clone(), Arc::clone(&job.cuts));
    let first = contents(&job.end());
    let cuts = mem::take(&mut *cuts.lock().unwrap());
    assert!(cuts.len() > 30);
    assert!(cuts.iter().any(|cut| !cut.inputs.is_empty()));
    assert_eq!(
        cuts.iter().map(|cut| cut.record.number).collect::<Vec<_>>(),
        (1..=cuts.len() as u64).collect::<Vec<_>>()
    );

    for (processes, workers) in [(1, 1), (1, 3), (2, 1), (3, 2)] {
        let topic = topic.copy();
        let setup =
            Setup { processes, workers, checkpoints, topic, earlier: cuts.clone(), ..Setup::default() };
        let open = cuts[0].record.tick;
        assert_eq!(open, NOW);
        let job = Job::start(setup);
        let last = cuts.last().unwrap().record.tick;
        job.wait("the recorded ticks are closed", |status| status.closed >= last);
        (0..4).for_each(|partition| job.topic.append(partition, times(NOW, 5, 1)));
        job.wait_for_events(count + 20);
        let again = Arc::clone(&job.cuts);
        let mut second = contents(&job.end());
        let live = second.split_off(&(last + 1));
        let kinds: BTreeSet<u32> =
            second.values().flat_map(|(events, ..)| events).map(|event| event.asn).collect();
        assert_eq!(kinds, BTreeSet::from([0, 7]));
        for (tick, content) in &first {
            assert!(
                second.get(tick) == Some(content),
                "{processes} processes, {workers} workers, tick {tick}"
            );
        }
        assert_eq!(second.len(), first.len());
        assert_eq!(live.values().map(|(events, ..)| events.len()).sum::<usize>(), 20);
        for (again, cut) in again.lock().unwrap().iter().zip(&cuts) {
            assert_eq!(again.record, cut.record);
            assert_eq!(again.earlier.as_ref(), Some(&cut.record));
        }
    }
}

#[test]
fn a_job_whose_checkpoints_fail_waits_before_its_ledger_forgets_and_goes_on_once_one_is_stored() {
    let stores = Arc::new(AtomicBool::new(false));
    // A tick is due at once, and a checkpoint each hundredth of a second.
    let checkpoints = Some(CheckpointRules { every_ms: 10, has_parts: false });
    let setup =
        Setup { workers: 1, tick_ms: 0, checkpoints, stores: Arc::clone(&stores), ..Setup::default() };
    let job = Job::start(setup);
    // Most of the ticks that it may have without one are over.
    job.live.state().number += TICKS_UNSTORED - 20;
    job.wait("the job waits", |status| status.is_held_up);
    let number = || job.live.state().number;
    let waited = number();
    assert!((TICKS_UNSTORED..TICKS_KNOWN).contains(&waited), "{waited}");
    // Only attempts cut ticks, of which the ledger knows more than there can be until a person looks.
    job.wait("another attempt", |_| number() > waited + 3);
    assert!(job.live.status().is_held_up);
    stores.store(true, Ordering::Relaxed);
    job.wait("it goes on", |status| !status.is_held_up);
    let stored = number();
    job.wait("ticks are cut", |_| number() > stored + 100);
    let is_attempt = |message: &&Message| matches!(message, Message::Close { checkpoint: Some(_), .. });
    assert!(job.end().iter().flatten().filter(is_attempt).count() > 4);
}

/// A tick of an earlier life that read a partition up to offset 49, with so many events.
fn earlier_tick(events: u64) -> Vec<Cut> {
    let reached = vec![PartitionProgress { next_offset: 50, events, ..PartitionProgress::default() }];
    let added = vec![AddedPartition { source: "gateway".to_owned(), number: 0, offset: 0 }];
    let record = TickRecord { number: 1, tick: NOW, reached, added, ..TickRecord::default() };
    vec![Cut { record, ..Cut::default() }]
}

#[test]
fn a_replay_passes_over_the_gaps_that_its_ticks_had_and_no_others() {
    let checkpoints = Some(CheckpointRules { every_ms: 3_600_000, has_parts: false });
    // Retention took the first 20 records: before the tick was made, or after it.
    for (events, is_gone) in [(30, false), (50, true)] {
        let earlier = earlier_tick(events);
        let job =
            Job::start(Setup { low: 20, on_gap: OnGap::Skip, checkpoints, earlier, ..Setup::default() });
        job.topic.append(0, times(NOW, 60, 1));
        if is_gone {
            job.wait("it fails", |_| job.live.error().is_some());
            let error = job.live.error().unwrap();
            assert_eq!(error.class(), ErrorClass::Fatal);
            assert!(
                error.to_string().contains("partition 0 has no records from offset 0 to 19 any more"),
                "{error}"
            );
        } else {
            job.wait_for_events(40);
            assert!(job.live.error().is_none());
        }
        let cuts = Arc::clone(&job.cuts);
        job.end();
        assert!(!is_gone || cuts.lock().unwrap().is_empty(), "nothing was closed");
    }
}

#[test]
fn a_replay_without_its_records_ends_the_job_and_a_stop_ends_it_before_its_end() {
    let earlier = earlier_tick(50);
    let checkpoints = Some(CheckpointRules { every_ms: 3_600_000, has_parts: false });
    // Retention took the first records.
    let job = Job::start(Setup { low: 20, checkpoints, earlier: earlier.clone(), ..Setup::default() });
    job.topic.append(0, times(NOW, 60, 1));
    job.wait("it fails", |_| job.live.error().is_some());
    let error = job.live.error().unwrap().to_string();
    assert!(error.contains("partition 0 has no records from offset 0 to 49 any more"), "{error}");
    let cuts = Arc::clone(&job.cuts);
    job.end();
    assert!(cuts.lock().unwrap().is_empty(), "nothing was closed");
    // The rest of the tick isn't there yet.
    for processes in 1..=2 {
        let earlier = earlier.clone();
        let job = Job::start(Setup { processes, checkpoints, earlier, ..Setup::default() });
        job.topic.append(0, times(NOW, 30, 1));
        job.wait_for_events(30);
        let cuts = Arc::clone(&job.cuts);
        job.end();
        assert!(cuts.lock().unwrap().is_empty());
    }
}

#[test]
fn an_error_or_a_stop_of_a_follower_ends_all_processes_with_a_last_tick() {
    for fails in [true, false] {
        let job = Job::start(Setup { processes: 2, workers: 1, ..Setup::default() });
        job.add_partition(0);
        job.add_partition(1);
        (0..2).for_each(|partition| job.topic.append(partition, times(NOW - 1_000, 10, 1)));
        job.wait_for_events(20);
        if fails {
            job.followers[0].fail(LiveError::Decoders { message: "no database".to_owned() });
        } else {
            job.followers[0].stop();
        }
        job.wait("the last tick is closed", |_| job.live.state().over);
        let error = job.live.error();
        assert_eq!(error.is_some(), fails);
        if let Some(error) = error {
            assert_eq!(error.to_string(), "process 1: no database");
            assert_eq!(error.class(), ErrorClass::Fatal);
        }
        let messages = job.end();
        assert!(messages.iter().all(|worker| by_tick(worker).1.last().unwrap().last));
        assert_eq!(contents(&messages).values().map(|(events, ..)| events.len()).sum::<usize>(), 20);
    }
}

#[test]
fn what_a_follower_can_not_say_ends_its_link_and_changes_nothing() {
    let place = ProcessPlace { process: 0, processes: NonZeroUsize::new(2).unwrap() };
    let options = LiveOptions { place, ..testing::options(Windows::default()) };
    let live = Live::new(NOW, options);
    let (sender, _messages) = channel();
    live.lead(vec![sender]);
    let info = PartitionInfo { source: "gateway".into(), source_index: 0, number: 0, path: None };
    live.add_partition(info, 0);
    live.state().cut = 1;
    let answer = |cut, index| {
        let reached = vec![(index, PartitionProgress { next_offset: 7, ..PartitionProgress::default() })];
        FollowMessage::Answer(FollowerAnswer { cut, reached, ..FollowerAnswer::default() })
    };
    assert_eq!(live.hear(1, answer(0, 0)), Err(LinkFault::Cut { cut: 0, last: 1 }));
    assert_eq!(live.hear(1, answer(2, 0)), Err(LinkFault::Cut { cut: 2, last: 1 }));
    assert_eq!(live.hear(1, answer(1, 1)), Err(LinkFault::Partition { index: 1, partitions: 1 }));
    assert_eq!(live.state().reached[0].next_offset, 0);
    assert_eq!(live.hear(1, answer(1, 0)), Ok(()));
    assert_eq!(
        live.hear(1, answer(1, 0)),
        Err(LinkFault::Cut { cut: 1, last: 1 }),
        "each cut is answered once"
    );
    assert_eq!(live.state().reached[0].next_offset, 7);
    // What it says of an earlier tick or cut isn't heeded.
    let status = |cut, open| {
        FollowMessage::Status(FollowerStatus {
            cut,
            open,
            open_events: TICK_EVENTS,
            at_ceiling: true,
            ..FollowerStatus::default()
        })
    };
    let heeded = || {
        let state = live.state();
        (state.all_open_events(), state.is_at_ceiling())
    };
    live.hear(1, status(0, NOW - 1)).unwrap();
    assert_eq!(heeded(), (0, false));
    live.hear(1, status(1, NOW)).unwrap();
    assert_eq!(heeded(), (TICK_EVENTS, true));
    // And a follower is told each cut once.
    let follower =
        Live::new(NOW, LiveOptions { place: ProcessPlace { process: 1, ..options.place }, ..options });
    follower.follow(0);
    let cut = LeadMessage::Cut { cut: 1, next: NOW + 1, last: false, checkpoint: false, decoders: None };
    follower.obey(cut.clone(), |_| None).unwrap();
    assert_eq!(follower.obey(cut, |_| None), Err(LinkFault::Cut { cut: 1, last: 1 }));
    for late in [LeadMessage::Start(Arc::default()), LeadMessage::Recorded(Arc::default())] {
        assert_eq!(follower.obey(late, |_| None), Err(LinkFault::Start));
    }
}
