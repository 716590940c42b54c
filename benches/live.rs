//! The live job over a real broker: how much it takes, how soon a call shows, whether its memory stays flat.
//!
//! ```text
//! tests/kafka/run.sh run cargo bench --bench live                                    # throughput and latency
//! tests/kafka/run.sh run cargo bench --bench live -- --only latency --tick 100ms
//! tests/kafka/run.sh run cargo bench --bench live -- --only sustained --rate 100000 --minutes 10
//! ```
//! * **throughput**: the input of `core` lies in a topic of 4 partitions (lz4). The clock runs from the first record
//!   that is read to the moment when everything is read, computed, published and acknowledged by the broker, which
//!   shares the machine; so the CPU time of the job alone is told beside it. `start` is what came before the first
//!   record: tables, topics, connections.
//! * **latency**: calls of this moment at `--rate`, and every 50 ms one of a key that was never seen: from handing that
//!   call to the producer to receiving its row of `usage` as a consumer.
//! * **sustained**: the same for minutes, and the job's memory meanwhile.
//! * **accounts**: the same rate in turns with tables of 20,000 subscriptions alone, and with their quotas and prices: CPU,
//!   memory, and how old a call is when the row of `quota` that counts it is there.
//! * **restart**: the input of throughput is read, and some seconds later the job is killed. The clock runs from the next
//!   start to the first tick that is new and committed.
//!
//! `--delivery` names what the job promises, several of them in turns: `none` is a job without a state.
//!
//! The job runs as its users run it: the shipped binary, a configuration, Kafka in, all views out to Kafka. Its numbers
//! come from its own `/metrics`. Nothing is asserted but that every event arrived; targets are printed. Linux only.

#![allow(clippy::print_stdout, reason = "a benchmark's output is what it is for")]

mod fields;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail, ensure};
use clap::{Parser, ValueEnum};
use keytide_dataflow::model::hex;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use sha2::{Digest, Sha256};

use self::fields::FIELDS;

const KEYTIDE: &str = env!("CARGO_BIN_EXE_keytide");
const PARTITIONS: i32 = 4;
const KEYS: u64 = 20_000;
const PROBE_EVERY: Duration = Duration::from_millis(50);
/// How long anything is waited for.
const PATIENCE: Duration = Duration::from_secs(300);

/// Measures the live job. To be run by `tests/kafka/run.sh run`.
#[derive(Parser)]
struct Args {
    /// One part instead of throughput and latency
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Calls of the throughput
    #[arg(long, default_value_t = 2_000_000)]
    events: u64,
    /// Rounds of the throughput
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Workers
    #[arg(long, default_value_t = 1)]
    workers: u32,
    /// Width of a tick; both 1s and 100ms for the latency if it isn't given
    #[arg(long)]
    tick: Option<String>,
    /// Calls a second of latency, sustained and accounts
    #[arg(long, default_value_t = 50_000)]
    rate: u64,
    /// How long sustained lasts, and each round of accounts
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// How long latency lasts, in seconds
    #[arg(long, default_value_t = 40)]
    seconds: u64,
    /// What the job promises; several are measured in turns
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Delivery::None])]
    delivery: Vec<Delivery>,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Throughput,
    Latency,
    Sustained,
    Accounts,
    Restart,
}

/// A promise about rows, and the state that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Delivery {
    None,
    AtLeastOnce,
    ExactlyOnce,
}

impl Delivery {
    /// Returns its settings: keys of `[sink.kafka]`, and the section of a state of its own.
    fn settings(self, state: &str) -> (String, String) {
        let name = match self {
            Self::None => return (String::new(), String::new()),
            Self::AtLeastOnce => "at_least_once",
            Self::ExactlyOnce => "exactly_once",
        };
        (format!("delivery = \"{name}\"\n"), format!("[state]\nurl = \"{state}-{name}\"\n"))
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let kafka = Kafka::from_environment()?;
    let by_default = [Part::Throughput, Part::Latency];
    let wants = |part| args.only.map_or(by_default.contains(&part), |only| only == part);
    if wants(Part::Throughput) {
        throughput(&args, &kafka)?;
    }
    if wants(Part::Latency) {
        let ticks = args.tick.as_ref().map_or(vec!["1s", "100ms"], |tick| vec![tick]);
        for tick in ticks {
            latency(&args, &kafka, tick)?;
        }
    }
    if wants(Part::Sustained) {
        sustained(&args, &kafka)?;
    }
    if wants(Part::Accounts) {
        accounts(&args, &kafka)?;
    }
    if wants(Part::Restart) {
        restart(&args, &kafka)?;
    }
    Ok(())
}

/// The broker.
struct Kafka {
    brokers: String,
    control: String,
}

impl Kafka {
    fn from_environment() -> anyhow::Result<Self> {
        let variable = |name| {
            std::env::var(name).with_context(|| format!("{name} isn't set: use tests/kafka/run.sh run"))
        };
        Ok(Self { brokers: variable("KEYTIDE_TEST_BROKERS")?, control: variable("KEYTIDE_TEST_KAFKA")? })
    }

    /// A topic that keeps at most 1 GiB a partition.
    fn topic(&self, name: &str) -> anyhow::Result<()> {
        let status = Command::new(&self.control)
            .args(["topic", "--create", "--topic", name, "--partitions", &PARTITIONS.to_string()])
            .args(["--config", "retention.bytes=1073741824", "--config", "segment.bytes=134217728"])
            .stdout(Stdio::null())
            .status()?;
        ensure!(status.success(), "creating {name} failed");
        Ok(())
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config
    }

    fn producer(&self) -> anyhow::Result<BaseProducer> {
        let mut config = self.client();
        config.set("compression.type", "lz4").set("linger.ms", "20").set("acks", "1");
        Ok(config.create()?)
    }
}

/// Waits for room in the queue, never drops.
fn send(producer: &BaseProducer, topic: &str, partition: i32, payload: &[u8]) -> anyhow::Result<()> {
    let mut record = BaseRecord::<(), [u8]>::to(topic).partition(partition).payload(payload);
    while let Err((error, back)) = producer.send(record) {
        if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
            return Err(error.into());
        }
        producer.poll(Duration::from_millis(10));
        record = back;
    }
    Ok(())
}

/// A running `keytide run`.
struct Job {
    child: Child,
    http: SocketAddr,
    log: PathBuf,
    started: Instant,
}

impl Job {
    fn start(folder: &Path, config: &str) -> anyhow::Result<Self> {
        let http = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let path = folder.join("live.toml");
        fs::write(&path, format!("{config}\n[http]\nlisten = \"{http}\"\n"))?;
        let log = folder.join("live.log");
        let started = Instant::now();
        let child = Command::new(KEYTIDE).arg("run").arg(&path).stderr(File::create(&log)?).spawn()?;
        Ok(Self { child, http, log, started })
    }

    /// The sum of a metric over its labels; `None` while the job doesn't answer.
    fn metric(&self, name: &str) -> Option<f64> {
        let mut stream = TcpStream::connect(self.http).ok()?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
        let mut text = String::new();
        stream.take(1 << 20).read_to_string(&mut text).ok()?;
        let values = text.lines().filter_map(|line| {
            let (sample, value) = line.rsplit_once(' ')?;
            (sample.split('{').next() == Some(name)).then(|| value.parse::<f64>().ok())?
        });
        Some(values.sum())
    }

    fn wait(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) -> anyhow::Result<()> {
        let started = Instant::now();
        while !done(self) {
            if let Some(status) = self.child.try_wait()? {
                let mut log = String::new();
                File::open(&self.log)?.take(1 << 16).read_to_string(&mut log)?;
                bail!("the job ended ({status}) while {what} was waited for:\n{log}");
            }
            ensure!(started.elapsed() < PATIENCE, "{what} was waited for in vain");
            thread::park_timeout(Duration::from_millis(20));
        }
        Ok(())
    }

    /// User and system, in seconds.
    fn cpu(&self) -> anyhow::Result<f64> {
        let text = proc(self.child.id(), "stat")?;
        let (_, fields) = text.rsplit_once(") ").context("a stat without a name")?;
        let ticks = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
        Ok(ticks.sum::<f64>() / 100.0)
    }

    /// `VmHWM` or `VmRSS`, in MiB.
    fn memory(&self, name: &str) -> anyhow::Result<u64> {
        let text = proc(self.child.id(), "status")?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)).context("no such line")?;
        let kib: u64 = line.trim_matches(|c: char| !c.is_ascii_digit()).parse()?;
        Ok(kib >> 10)
    }

    fn end(mut self) -> anyhow::Result<()> {
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        ensure!(status.success(), "the job can't be told to end");
        let status = self.child.wait()?;
        ensure!(status.success(), "the job ended with {status}");
        Ok(())
    }
}

fn proc(process: u32, file: &str) -> anyhow::Result<String> {
    let mut text = String::new();
    File::open(format!("/proc/{process}/{file}"))?.take(1 << 14).read_to_string(&mut text)?;
    Ok(text)
}

fn config(kafka: &Kafka, args: &Args, tick: &str, topic: &str, prefix: &str, more: &str) -> String {
    let (brokers, workers) = (&kafka.brokers, args.workers);
    format!(
        "[job]\ntick = \"{tick}\"\nworkers = {workers}\n[keys]\nfrom = [\"key\"]\n[[source]]\nname = \"gateway\"\n\
         kind = \"kafka\"\nbrokers = \"{brokers}\"\ntopic = \"{topic}\"\nformat = \"json\"\n{FIELDS}\n\
         [sink.kafka]\nbrokers = \"{brokers}\"\nprefix = \"{prefix}\"\n{more}"
    )
}

fn folder() -> anyhow::Result<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-live");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Writes the input of throughput to a topic, with its tables; returns the number of its lines and the settings.
fn backlog(args: &Args, kafka: &Kafka, folder: &Path) -> anyhow::Result<(u64, String)> {
    let input = folder.join("input");
    let options = format!(
        "--events {} --keys {KEYS} --zipf 1.05 --routes 100 --countries 15 --span 1h --partitions {PARTITIONS}",
        args.events
    );
    keytide_generator::generate(&input, &options)?;
    kafka.topic("bench-throughput")?;
    let producer = kafka.producer()?;
    let mut lines = 0_u64;
    for partition in 0..PARTITIONS {
        let file = BufReader::with_capacity(
            1 << 20,
            File::open(input.join(format!("events-{partition:04}.jsonl")))?,
        );
        for line in file.split(b'\n') {
            send(&producer, "bench-throughput", partition, &line?)?;
            lines += 1;
        }
    }
    producer.flush(PATIENCE)?;

    let tables = ["keys", "subscriptions", "plans"].map(|table| {
        format!("[tables.{table}]\nkind = \"file\"\npath = \"input/tables/{table}.csv\"\nformat = \"csv\"\n")
    });
    let geo = "[geo]\ncountry = \"input/geo/country.mmdb\"\nasn = \"input/geo/asn.mmdb\"\n";
    Ok((lines, tables.concat() + geo))
}

/// Waits until a job has read, computed and published all lines.
fn wait_for_all(job: &mut Job, lines: u64) -> anyhow::Result<()> {
    job.wait("the whole input", |job| job.metric("keytide_messages_total") == Some(lines as f64))?;
    job.wait("all ticks", |job| {
        let of = |name| job.metric(name).unwrap_or(f64::NAN);
        of("keytide_events_total") + of("keytide_duplicates_total") + of("keytide_dead_letters_total")
            >= lines as f64
            && of("keytide_sink_queued_records") == 0.0
    })
}

fn throughput(args: &Args, kafka: &Kafka) -> anyhow::Result<()> {
    let folder = folder()?;
    let (lines, tables) = backlog(args, kafka, &folder)?;
    println!("throughput: {lines} messages, {KEYS} keys, {} worker(s), all views to Kafka", args.workers);
    println!(
        "  {:<13} {:>10} {:>16} {:>8} {:>8} {:>10} {:>14} {:>9} {:>8}",
        "delivery",
        "M events/s",
        "per core-second",
        "wall s",
        "CPU s",
        "records",
        "M records/s",
        "peak MiB",
        "start s"
    );
    for (round, delivery) in
        (0..args.rounds).flat_map(|round| args.delivery.iter().map(move |of| (round, *of)))
    {
        let (of_sink, state) = delivery.settings(&format!("state-{round}"));
        let more = of_sink + &tables + &state;
        let tick = args.tick.as_deref().unwrap_or("1s");
        let prefix = format!("bench{round}-{delivery:?}");
        let config = config(kafka, args, tick, "bench-throughput", &prefix, &more);
        let mut job = Job::start(&folder, &config)?;
        job.wait("the first record", |job| {
            job.metric("keytide_messages_total").is_some_and(|read| read > 0.0)
        })?;
        let start = job.started.elapsed().as_secs_f64();
        wait_for_all(&mut job, lines)?;
        let wall = job.started.elapsed().as_secs_f64() - start;
        let (cpu, peak) = (job.cpu()?, job.memory("VmHWM")?);
        let events = job.metric("keytide_events_total").context("the job doesn't answer")?;
        let records = job.metric("keytide_sink_records_total").context("the job doesn't answer")?;
        job.end()?;
        println!(
            "  {:<13} {:>10.3} {:>16.3} {wall:>8.2} {cpu:>8.2} {records:>10} {:>14.3} {peak:>9} {start:>8.2}",
            format!("{delivery:?}"),
            events / 1e6 / wall,
            events / 1e6 / cpu,
            records / 1e6 / wall
        );
    }
    println!("  (target >= 0.3 M events/s with one worker, the broker's CPU excluded)\n");
    Ok(())
}

/// Each key has a subscription of its own, each probe one whose only call it is.
fn account_tables(folder: &Path, probes: u64) -> anyhow::Result<()> {
    let zones = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Asia/Seoul"];
    let mut keys = "key_hash,subscription\n".to_owned();
    let mut subscriptions = "id,customer,plan,time_zone,billing_anchor\n".to_owned();
    let own = (0..KEYS).map(|key| format!("key-{key}"));
    for (number, key) in own.chain((0..probes).map(|probe| format!("probe-{probe}"))).enumerate() {
        writeln!(keys, "{},of-{key}", hex(&Sha256::digest(&key)))?;
        let (zone, plan, anchor) = (zones[number % 5], number % 3, number % 28 + 1);
        writeln!(subscriptions, "of-{key},cus-{number},plan-{plan},{zone},{anchor}")?;
    }
    let mut quotas = "plan,metric,period,limit,hard,notify\n".to_owned();
    let mut prices = "plan,item,metric,model,unit,up_to,unit_price\n".to_owned();
    for plan in 0..3 {
        for (metric, period) in [("calls", "day"), ("calls", "billing"), ("cost", "month")] {
            writeln!(quotas, "plan-{plan},{metric},{period},1000000,true,80;90;100")?;
        }
        writeln!(prices, "plan-{plan},calls,calls,graduated,,1000,0")?;
        writeln!(prices, "plan-{plan},calls,calls,graduated,,,0.0005")?;
        writeln!(prices, "plan-{plan},traffic,bytes_out,unit,GB,,0.1")?;
    }
    let plans = "id,name\nplan-0,Bronze\nplan-1,Silver\nplan-2,Gold\n".to_owned();
    for (name, text) in [
        ("keys", keys),
        ("subscriptions", subscriptions),
        ("plans", plans),
        ("quotas", quotas),
        ("prices", prices),
    ] {
        fs::write(folder.join(format!("{name}.csv")), text)?;
    }
    Ok(())
}

fn accounts(args: &Args, kafka: &Kafka) -> anyhow::Result<()> {
    let time = Duration::from_secs(args.minutes * 60);
    println!("accounts: {} calls/s of {KEYS} subscriptions for {} min", args.rate, args.minutes);
    println!("  {:>12} {:>14} {:>9} {:>24}", "", "CPU, s/M calls", "peak MiB", "age of a call in quota, s");
    for round in 0..2 * args.rounds {
        let has_accounts = round % 2 == 1;
        let folder = folder()?;
        let name: &'static str = format!("bench-accounts-{round}").leak();
        kafka.topic(name)?;
        account_tables(&folder, time.as_secs() * 20 + 1_000)?;
        let tables = ["keys", "subscriptions", "plans", "quotas", "prices"];
        let tables = tables[..if has_accounts { 5 } else { 3 }].iter().map(|table| {
            format!("[tables.{table}]\nkind = \"file\"\npath = \"{table}.csv\"\nformat = \"csv\"\n")
        });
        let more: String = tables.collect();
        let mut job = Job::start(&folder, &config(kafka, args, "1s", name, name, &more))?;
        job.wait("the first tick", |job| job.metric("keytide_ready") == Some(1.0))?;
        let traffic = Traffic::start(kafka, name, args.rate)?;
        let before = job.cpu()?;
        let ages = quota_ages(kafka, name, &traffic, time, has_accounts)?;
        let sent = traffic.end()? as f64;
        // A probe has the request id of the call after it.
        let counted = ["keytide_events_total", "keytide_duplicates_total"];
        job.wait("all calls", |job| {
            counted.iter().map(|name| job.metric(name).unwrap_or(0.0)).sum::<f64>() >= sent
        })?;
        let of = |percent: usize| ages.get(ages.len() * percent / 100).map_or(0.0, Duration::as_secs_f64);
        println!(
            "  {:>12} {:>14.2} {:>9} {:>24}",
            if has_accounts { "accounts" } else { "tables alone" },
            (job.cpu()? - before) / sent * 1e6,
            job.memory("VmHWM")?,
            if has_accounts {
                format!("p50 {:.0}, p99 {:.0} of {}", of(50), of(99), ages.len())
            } else {
                String::new()
            },
        );
        job.end()?;
    }
    Ok(())
}

/// Waits, and returns how old calls of probes were when the row of their quota was there, the youngest first.
fn quota_ages(
    kafka: &Kafka,
    name: &str,
    traffic: &Traffic,
    time: Duration,
    has_quotas: bool,
) -> anyhow::Result<Vec<Duration>> {
    let started = Instant::now();
    let mut ages = Vec::new();
    if !has_quotas {
        thread::park_timeout(time);
        return Ok(ages);
    }
    let mut settings = kafka.client();
    settings.set("group.id", name).set("fetch.wait.max.ms", "100").set("auto.offset.reset", "earliest");
    let consumer: BaseConsumer = settings.create()?;
    consumer.subscribe(&[&format!("{name}.quota.v1")])?;
    while started.elapsed() < time {
        let Some(Ok(record)) = consumer.poll(Duration::from_millis(100)) else { continue };
        let key = String::from_utf8_lossy(record.key().unwrap_or_default()).into_owned();
        let probe = key.split('"').nth(3).and_then(|subscription| subscription.strip_prefix("of-probe-"));
        let Some(probe) = probe else { continue };
        let id = hex(&Sha256::digest(format!("probe-{probe}"))[..16]);
        let sent = traffic.probes.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        ages.extend(sent.map(|sent| sent.elapsed()));
    }
    ages.sort_unstable();
    Ok(ages)
}

fn restart(args: &Args, kafka: &Kafka) -> anyhow::Result<()> {
    let folder = folder()?;
    let (lines, tables) = backlog(args, kafka, &folder)?;
    println!("restart: after {lines} messages, {KEYS} keys, {} worker(s), killed", args.workers);
    println!(
        "  {:<13} {:>14} {:>11} {:>14} {:>12} {:>10}",
        "delivery", "checkpoint MiB", "it took s", "commit ms", "made again", "restart s"
    );
    for (round, delivery) in
        (0..args.rounds).flat_map(|round| args.delivery.iter().map(move |of| (round, *of)))
    {
        let (of_sink, state) = delivery.settings(&format!("state-{round}"));
        ensure!(!state.is_empty(), "without a state there is nothing to go on from");
        let more = of_sink + &tables + &state + "checkpoint_every = \"10s\"\n";
        let tick = args.tick.as_deref().unwrap_or("1s");
        let prefix = format!("restart{round}-{delivery:?}");
        let config = config(kafka, args, tick, "bench-throughput", &prefix, &more);
        let mut job = Job::start(&folder, &config)?;
        wait_for_all(&mut job, lines)?;
        let of = |job: &Job, name| job.metric(name).context("the job doesn't answer");
        let written = of(&job, "keytide_checkpoints_total")?;
        job.wait("a checkpoint of all", |job| {
            job.metric("keytide_checkpoints_total").is_some_and(|now| now > written + 1.0)
        })?;
        thread::park_timeout(Duration::from_secs(5));
        let (bytes, took) = (of(&job, "keytide_checkpoint_bytes")?, of(&job, "keytide_checkpoint_seconds")?);
        let commit = of(&job, "keytide_commit_seconds_total")? / of(&job, "keytide_commits_total")?;
        let number = of(&job, "keytide_ledger_tick_number")?;
        job.child.kill()?;
        job.child.wait()?;
        let mut job = Job::start(&folder, &config)?;
        job.wait("a new tick", |job| {
            job.metric("keytide_ledger_tick_number").is_some_and(|now| now > number)
        })?;
        let restart = job.started.elapsed().as_secs_f64();
        let again = of(&job, "keytide_replayed_ticks_total")?;
        job.end()?;
        println!(
            "  {:<13} {:>14.0} {took:>11.2} {:>14.1} {again:>12} {restart:>10.2}",
            format!("{delivery:?}"),
            bytes / f64::from(1 << 20),
            commit * 1e3
        );
    }
    println!("  (targets: 100 MB a checkpoint, a new tick after 5 s)\n");
    Ok(())
}

/// Calls of this moment, at a rate, until told to stop.
struct Traffic {
    stop: Arc<AtomicBool>,
    probes: Arc<Mutex<HashMap<String, Instant>>>,
    thread: thread::JoinHandle<anyhow::Result<u64>>,
}

impl Traffic {
    fn start(kafka: &Kafka, topic: &'static str, rate: u64) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let probes: Arc<Mutex<HashMap<String, Instant>>> = Arc::default();
        let mut config = kafka.client();
        config.set("compression.type", "lz4").set("linger.ms", "5").set("acks", "1");
        let producer: BaseProducer = config.create()?;
        let thread = {
            let (stop, probes) = (Arc::clone(&stop), Arc::clone(&probes));
            thread::spawn(move || {
                let started = Instant::now();
                let (mut sent, mut probed) = (0_u64, 0_u32);
                let mut line = String::new();
                while !stop.load(Ordering::Relaxed) {
                    let due = u64::try_from(started.elapsed().as_micros())? * rate / 1_000_000;
                    let now = milliseconds();
                    while sent < due {
                        // A mixture that prefers low numbers, cheap and without a pattern over time.
                        let random = sent.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
                        let key = (random % KEYS) * (random / KEYS % KEYS) / KEYS;
                        call(&mut line, sent, &format!("key-{key}"), now, random);
                        send(&producer, topic, (random % 4) as i32, line.as_bytes())?;
                        sent += 1;
                    }
                    if started.elapsed() >= PROBE_EVERY * probed {
                        let key = format!("probe-{probed}");
                        call(&mut line, sent, &key, now, 7);
                        let id = hex(&Sha256::digest(&key)[..16]);
                        probes.lock().unwrap_or_else(PoisonError::into_inner).insert(id, Instant::now());
                        send(&producer, topic, (probed % 4).cast_signed(), line.as_bytes())?;
                        probed += 1;
                    }
                    producer.poll(Duration::ZERO);
                    thread::park_timeout(Duration::from_millis(1));
                }
                producer.flush(PATIENCE)?;
                Ok(sent + u64::from(probed))
            })
        };
        Ok(Self { stop, probes, thread })
    }

    fn end(self) -> anyhow::Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| anyhow::anyhow!("the producer panicked"))?
    }
}

/// A record of about 330 bytes.
fn call(line: &mut String, number: u64, key: &str, now: u64, random: u64) {
    line.clear();
    let _ = write!(
        line,
        r#"{{"requestId":"0f9d2b7c-5a41-4b7e-9d1c-{number:012x}","ip":"198.51.100.{}","requestTime":{now},"apiKey":"{key}","httpMethod":"GET","routeKey":"/v1/orders/{{id}}/lines/{}","status":{},"latencyMs":{},"requestLength":{},"responseLength":{},"country":"KR","userAgent":"orders-client/2.4 (linux; x86_64) reqwest/0.12 like a usual agent"}}"#,
        random % 250,
        random % 100,
        if random.is_multiple_of(50) { 404 } else { 200 },
        random % 400,
        200 + random % 900,
        400 + random % 9_000,
    );
}

#[allow(clippy::disallowed_methods, reason = "calls of this moment")]
fn milliseconds() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

fn latency(args: &Args, kafka: &Kafka, tick: &str) -> anyhow::Result<()> {
    let folder = folder()?;
    let topic: &'static str = if tick == "1s" { "bench-latency-1s" } else { "bench-latency" };
    kafka.topic(topic)?;
    let delivery = *args.delivery.last().context("--delivery names none")?;
    let (of_sink, state) = delivery.settings("state");
    let mut job = Job::start(&folder, &config(kafka, args, tick, topic, topic, &(of_sink + &state)))?;
    job.wait("the first tick", |job| job.metric("keytide_ready") == Some(1.0))?;
    let traffic = Traffic::start(kafka, topic, args.rate)?;

    let mut settings = kafka.client();
    settings.set("group.id", "bench").set("fetch.wait.max.ms", "5").set("auto.offset.reset", "earliest");
    let consumer: BaseConsumer = settings.create()?;
    consumer.subscribe(&[&format!("{topic}.usage.v1")])?;
    let started = Instant::now();
    let mut seen = Vec::new();
    while started.elapsed() < Duration::from_secs(args.seconds) {
        let Some(Ok(record)) = consumer.poll(Duration::from_millis(5)) else { continue };
        let Some(id) = record.key().and_then(|key| key.get(11..43)) else { continue };
        let id = String::from_utf8_lossy(id);
        let probe = traffic.probes.lock().unwrap_or_else(PoisonError::into_inner).remove(&*id);
        // The first seconds are those of connecting.
        if let Some(sent) = probe.filter(|sent| *sent > started + Duration::from_secs(5)) {
            seen.push(sent.elapsed().as_secs_f64());
        }
    }
    let (cpu, peak) = (job.cpu()?, job.memory("VmHWM")?);
    let sent = traffic.end()?;
    job.end()?;
    ensure!(seen.len() > 20, "only {} probes were seen", seen.len());
    seen.sort_by(f64::total_cmp);
    let at = |percent: usize| seen[(seen.len() - 1) * percent / 100] * 1_000.0;
    println!(
        "latency, ticks of {tick}, {} calls/s: {} probes, p50 {:.0} ms, p90 {:.0} ms, p99 {:.0} ms, most {:.0} ms; \
         {sent} calls, CPU {cpu:.1} s, peak {peak} MiB",
        args.rate,
        seen.len(),
        at(50),
        at(90),
        at(99),
        at(100),
    );
    println!("  (target: p99 < {} ms at 50,000/s)\n", if tick == "1s" { 2_000 } else { 500 });
    Ok(())
}

fn sustained(args: &Args, kafka: &Kafka) -> anyhow::Result<()> {
    let folder = folder()?;
    kafka.topic("bench-sustained")?;
    // Request ids are remembered for a minute only: what is measured is everything else.
    let windows = "[windows]\nallowed_lateness = \"1m\"\ndedupe_horizon = \"1m\"\n";
    let tick = args.tick.as_deref().unwrap_or("1s");
    let mut job = Job::start(&folder, &config(kafka, args, tick, "bench-sustained", "sustained", windows))?;
    job.wait("the first tick", |job| job.metric("keytide_ready") == Some(1.0))?;
    let traffic = Traffic::start(kafka, "bench-sustained", args.rate)?;
    println!("sustained: {} calls/s for {} min, request ids held for a minute", args.rate, args.minutes);
    println!(
        "  {:>6} {:>12} {:>12} {:>8} {:>12} {:>10}",
        "s", "events", "lag", "RSS MiB", "state MiB", "queue KiB"
    );
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(args.minutes * 60) {
        thread::park_timeout(Duration::from_secs(30));
        let of = |name| job.metric(name).unwrap_or(f64::NAN);
        println!(
            "  {:>6} {:>12} {:>12} {:>8} {:>12.0} {:>10.0}",
            started.elapsed().as_secs(),
            of("keytide_events_total"),
            of("keytide_lag_records"),
            job.memory("VmRSS")?,
            of("keytide_state_bytes") / f64::from(1 << 20),
            of("keytide_queued_bytes") / 1_024.0,
        );
    }
    let sent = traffic.end()? as f64;
    job.wait("all events", |job| job.metric("keytide_events_total").is_some_and(|events| events >= sent))?;
    println!("  {sent} calls sent, as many counted; CPU {:.0} s\n", job.cpu()?);
    job.end()
}
