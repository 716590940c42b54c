//! What a check costs: the API over connections that stay open, and the ledger alone.
//!
//! ```text
//! cargo bench --bench checks -- --seconds 10 --connections 16 --threads 2 --subscriptions 20000
//! ```
//! Clients are threads of this process. Each asks about random keys and waits for the answer before it asks again. Times on
//! the CPU are those of the threads that answer alone. Linux only.

#![allow(clippy::print_stdout, reason = "a benchmark's output")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use keytide_billing::{BilledUse, Measure, PeriodKind, QuotaLimit, QuotaThresholds};
use keytide_config::JobConfig;
use keytide_dataflow::model::{
    KeyId, KeyKind, KeyPlace, KeyRow, KeyState, NameId, QuotaHolder, QuotaRow, SubscriptionRow, TableChange,
    TableRow,
};
use keytide_worker::serve::ledger::{AskedUse, CheckSubject, QuotaLedger, UseOfTick};
use keytide_worker::serve::shelf::Shelf;
use keytide_worker::serve::{ApiData, ApiServer};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// The time of all checks, in ms: 2026-03-15T12:00:00Z.
const NOW: u64 = 1_773_576_000_000;
/// The unit of times in `/proc/PID/task/TID/stat`: 100 a second wherever Linux runs.
const CLOCK_TICK: Duration = Duration::from_millis(10);
const CONFIG: &str = r#"
[keys]
from = ["header:apikey"]
[[source]]
name = "gateway"
kind = "file"
path = "none.jsonl"
format = "apisix"
[api]
listen = "127.0.0.1:0"
"#;

#[derive(Clone, Copy)]
struct Settings {
    seconds: u64,
    connections: usize,
    threads: u64,
    subscriptions: u64,
}

fn main() -> anyhow::Result<()> {
    let mut settings = Settings { seconds: 10, connections: 16, threads: 2, subscriptions: 20_000 };
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    while let Some(name) = arguments.next() {
        let mut number = || -> anyhow::Result<u64> {
            Ok(arguments.next().with_context(|| format!("{name} needs a number"))?.parse()?)
        };
        match name.as_str() {
            "--seconds" => settings.seconds = number()?,
            "--connections" => settings.connections = usize::try_from(number()?)?,
            "--threads" => settings.threads = number()?,
            "--subscriptions" => settings.subscriptions = number()?.max(1),
            _ => {
                bail!("unknown option {name}: there are --seconds, --connections, --threads, --subscriptions")
            }
        }
    }
    let ledger = ledger(settings.subscriptions);
    alone(&ledger, settings);
    over_connections(&ledger, settings)
}

fn name_of(index: u64) -> String {
    format!("sub_{index}")
}

/// Returns the key of a subscription.
fn key(index: u64) -> KeyId {
    KeyId(u128::from(index) << 64 | 0x00ff_ffff)
}

/// Makes a ledger of subscriptions of one plan with three quotas, each with a key.
fn ledger(subscriptions: u64) -> Arc<QuotaLedger> {
    let ledger = QuotaLedger::new(1, false);
    let change = |row| TableChange { offset: 0, row, deleted: false };
    let plan = NameId::new("gold");
    let mut changes = Vec::new();
    for (measure, period) in [
        (Measure::Calls, PeriodKind::Day),
        (Measure::Calls, PeriodKind::Minute),
        (Measure::Units, PeriodKind::Month),
    ] {
        let limit = QuotaLimit { limit: u64::MAX, hard: true, notify: QuotaThresholds::default() };
        let holder = QuotaHolder::Plan(plan);
        changes.push(change(TableRow::Quota(QuotaRow { holder, measure, period, limit, valid_from: None })));
    }
    for index in 0..subscriptions {
        let id = NameId::new(&name_of(index));
        changes.push(change(TableRow::Subscription(SubscriptionRow {
            id,
            customer: NameId::NONE,
            plan,
            time_zone: NameId::new("Europe/Berlin"),
            billing_anchor: 1,
            valid_from: None,
            started_at: None,
            contacts: NameId::NONE,
        })));
        changes.push(change(TableRow::Key(KeyRow {
            key: key(index),
            subscription: id,
            valid_from: None,
            state: KeyState::Active,
            kind: KeyKind::Secret,
            created_at: None,
            revoked_at: None,
            last_used_at: None,
            place: KeyPlace::default(),
            allowed: Box::default(),
            contact: NameId::NONE,
        })));
    }
    ledger.apply_tables(&changes, NOW);
    ledger.apply_tick(&UseOfTick { tick: NOW, through_ms: NOW, ..UseOfTick::default() }, NOW);
    Arc::new(ledger)
}

/// Asks the ledger itself, on one thread and on several.
fn alone(ledger: &Arc<QuotaLedger>, settings: Settings) {
    const CHECKS: u64 = 1_000_000;
    for threads in [1, settings.threads] {
        let start = Instant::now();
        thread::scope(|scope| {
            for thread in 0..threads {
                scope.spawn(move || {
                    let mut random = ChaCha8Rng::seed_from_u64(thread);
                    let used = BilledUse { calls: 1, ..BilledUse::default() };
                    for _ in 0..CHECKS / threads {
                        let subject = CheckSubject::Key(key(random.random_range(0..settings.subscriptions)));
                        let asked = AskedUse { used, is_reserved: false };
                        std::hint::black_box(ledger.check(subject, asked, None, NOW));
                    }
                });
            }
        });
        let took = start.elapsed();
        println!(
            "ledger alone, {threads} threads: {:.0} checks/s, {:.2} us each",
            CHECKS as f64 / took.as_secs_f64(),
            took.as_secs_f64() * 1e6 * threads as f64 / CHECKS as f64
        );
    }
}

fn over_connections(ledger: &Arc<QuotaLedger>, settings: Settings) -> anyhow::Result<()> {
    let config = JobConfig::parse(CONFIG, Path::new("."), std::iter::empty())?.job;
    let mut api = config.api.context("the configuration has [api]")?;
    api.threads = settings.threads;
    let server = ApiServer::bind((&api, None), &config.sources, None)?;
    let address = server.address()?;
    let shelf = Arc::new(Shelf::new(api.memory));
    server.start(&ApiData { ledger: Arc::clone(ledger), shelf, directory: Arc::default() }, || NOW)?;
    for (what, is_auth) in [("POST /v1/check", false), ("GET /v1/auth", true)] {
        let (cpu, start) = (cpu_of_api()?, Instant::now());
        let clients: Vec<_> = (0..settings.connections)
            .map(|client| thread::spawn(move || ask(address, client as u64, settings, is_auth)))
            .collect();
        let mut latencies = Vec::new();
        for client in clients {
            let result = client.join().map_err(|_| anyhow::anyhow!("a client panicked"))?;
            latencies.extend(result?);
        }
        let (took, cpu) = (start.elapsed(), cpu_of_api()? - cpu);
        latencies.sort_unstable();
        ensure!(!latencies.is_empty(), "no check was answered");
        let at = |permille: usize| latencies[(latencies.len() - 1) * permille / 1_000].as_secs_f64() * 1e3;
        println!(
            "{what}, {} connections, {} threads: {:.0}/s, {:.1} us of CPU each, p50 {:.3} ms, p99 {:.3} ms, p99.9 {:.3} ms",
            settings.connections,
            settings.threads,
            latencies.len() as f64 / took.as_secs_f64(),
            cpu.as_secs_f64() * 1e6 / latencies.len() as f64,
            at(500),
            at(990),
            at(999),
        );
    }
    Ok(())
}

/// Asks until the time is over; returns how long each answer took.
fn ask(address: SocketAddr, client: u64, settings: Settings, is_auth: bool) -> anyhow::Result<Vec<Duration>> {
    let mut random = ChaCha8Rng::seed_from_u64(client);
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut stream = BufReader::new(stream);
    let end = Instant::now() + Duration::from_secs(settings.seconds);
    let (mut latencies, mut line) = (Vec::new(), String::new());
    while Instant::now() < end {
        let index = random.random_range(0..settings.subscriptions);
        let request = if is_auth {
            format!("GET /v1/auth HTTP/1.1\r\nHost: k\r\napikey: key-{index}\r\n\r\n")
        } else {
            let body = format!("{{\"key_hash\":\"{:032x}\"}}", key(index).0);
            let length = body.len();
            format!("POST /v1/check HTTP/1.1\r\nHost: k\r\nContent-Length: {length}\r\n\r\n{body}")
        };
        let start = Instant::now();
        stream.get_mut().write_all(request.as_bytes())?;
        let mut length = 0;
        let mut is_first = true;
        loop {
            line.clear();
            stream.read_line(&mut line)?;
            ensure!(!is_first || line.starts_with("HTTP/1.1 200"), "an answer began with {line:?}");
            is_first = false;
            if line == "\r\n" {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.trim_end().parse()?;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        latencies.push(start.elapsed());
    }
    Ok(latencies)
}

/// Returns what the threads that answer have taken of the CPU so far, to 10 ms each.
fn cpu_of_api() -> anyhow::Result<Duration> {
    let mut ticks = 0_u32;
    for task in fs::read_dir("/proc/self/task")? {
        let mut text = String::new();
        File::open(task?.path().join("stat"))?.take(4_096).read_to_string(&mut text)?;
        let (name, fields) = text.rsplit_once(") ").context("a stat without a name")?;
        if name.contains("(api-") {
            // `utime` and `stime`.
            for field in fields.split(' ').skip(11).take(2) {
                ticks += field.parse::<u32>()?;
            }
        }
    }
    Ok(CLOCK_TICK * ticks)
}
