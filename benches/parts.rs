//! The parts in this process, on one thread.

use std::cell::RefCell;
use std::hint::black_box;
use std::io::Read as _;
use std::num::NonZeroUsize;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use anyhow::ensure;
use keytide_config::{JobConfig, View};
use keytide_connectors::decode::{self, Decoded, Decoder};
use keytide_connectors::geo::GeoDatabases;
use keytide_connectors::ingest::{Ingest, IngestOptions, inputs};
use keytide_connectors::input::Message;
use keytide_connectors::tables::{self, TablesRead};
use keytide_dataflow::model::{AccessEvent, Definition, Forgotten, Position, Tick};
use keytide_dataflow::{Admitted, Counts, Late, Output, Publish, Rows, render};

use crate::ceiling::Ceiling;
use crate::measure::{Cost, core_rate, cpu_ratio, rate, thread};

/// The run's time: after every event that `keytide generate` makes by default.
const NOW: Tick = 1_750_000_000_000;
/// Lines decoded into one `Decoded`, about a block's worth.
const BLOCK_LINES: usize = 400;
/// As `keytide replay` does it.
const TICKS_IN_FLIGHT: u64 = 2;
const OPERATORS_CEILING_TARGET: f64 = 0.4;

struct Job {
    config: JobConfig,
    context: decode::Context,
}

impl Job {
    fn load(input: &Path) -> anyhow::Result<Self> {
        let mut config = JobConfig::load(&input.join("keytide.toml"), std::iter::empty())?.job;
        config.job.workers = NonZeroUsize::MIN;
        let geo = Arc::new(GeoDatabases::open(&config.geo)?.0);
        let context = decode::Context::of(&config, geo);
        Ok(Self { config, context })
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        decode::decoder(&self.config.sources[0], &self.context)
    }

    /// Everything that one worker is given, in order.
    fn ingest(&self) -> anyhow::Result<Vec<Message>> {
        let Self { config, context } = self;
        let options = IngestOptions::new(NOW, config.windows, config.limits, config.job.workers);
        let (source, context) = (config.sources[0].clone(), context.clone());
        let ingest =
            Ingest::new(inputs(&config.sources)?, move |_| decode::decoder(&source, &context), &options);
        let mut local = ingest.enter_worker(0);
        let mut messages = Vec::new();
        while !ingest.is_closed(0) {
            match ingest.next(0) {
                Some(message) => messages.push(message),
                None => ensure!(ingest.work(&mut local), "one thread does all the work, so there is some"),
            }
        }
        if let Some(error) = ingest.error() {
            anyhow::bail!("reading the input failed: {error}");
        }
        Ok(messages)
    }
}

/// From lines in memory to events, and from files to ticks of events.
pub(crate) fn decode(input: &Path, rounds: u8) -> anyhow::Result<()> {
    let job = Job::load(input)?;
    let mut text = Vec::new();
    std::fs::File::open(input.join("events.jsonl"))?.read_to_end(&mut text)?;
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end).collect();
    let (mut decoding, mut ingesting) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let mut decoder = job.decoder();
        let (events, cost) = thread(|| Ok(decode_lines(&mut *decoder, &lines)))?;
        ensure!(events >= lines.len() * 99 / 100, "{events} events of {} lines", lines.len());
        decoding.push(cost);
        let (messages, cost) = thread(|| job.ingest())?;
        let ingested: usize = messages.iter().map(|message| events_of(message).len()).sum();
        ensure!(ingested == events, "{ingested} events read, {events} decoded");
        ingesting.push(cost);
    }
    let count = lines.len() as u64;
    heading("decode, one thread");
    line("lines in memory to events", count, &decoding, "");
    line("file to ticks of events", count, &ingesting, "reads, decodes, sequences");
    println!();
    Ok(())
}

fn decode_lines(decoder: &mut dyn Decoder, lines: &[&[u8]]) -> usize {
    let mut events = 0;
    let mut out = Decoded::default();
    for lines in lines.chunks(BLOCK_LINES) {
        for line in lines {
            decoder.decode(line, Position::default(), &mut out);
        }
        events += black_box(&out).events.len();
        out.events.clear();
        out.dead_letters.clear();
        out.definitions.clear();
    }
    events
}

/// The dataflow over events in memory, beside the bare loops.
pub(crate) fn operators(input: &Path, rounds: u8) -> anyhow::Result<()> {
    let job = Job::load(input)?;
    let hashes = job.config.sources.iter().map(|source| &source.keys.hash);
    let tables = Arc::new(tables::read(&job.config.tables, hashes)?);
    let input = Arc::new(job.ingest()?);
    let (windows, limits) = (job.config.windows, job.config.limits);
    let options = keytide_dataflow::Options {
        windows,
        limits,
        publish: Publish::Last,
        detection: keytide_dataflow::DetectorOptions::default(),
        accounts: keytide_dataflow::AccountOptions::default(),
    };
    let count: u64 = input.iter().map(|message| events_of(message).len() as u64).sum();

    let (mut operators, mut loops) = (Vec::new(), Vec::new());
    let (mut dropped, mut groups) = (Dropped::default(), 0);
    for _ in 0..rounds {
        let (input_of_round, tables) = (Arc::clone(&input), Arc::clone(&tables));
        let (seen, cost) =
            timely::execute_directly(move |worker| run_operators(worker, &input_of_round, &tables, options))?;
        operators.push(cost);
        let (ceiling, cost) = thread(|| Ok(run_ceiling(&input)))?;
        loops.push(cost);
        ensure!(
            seen.unique == ceiling.calls(),
            "{} unique events by the operators, {} by the loops",
            seen.unique,
            ceiling.calls()
        );
        (dropped, groups) = (seen, ceiling.groups());
    }
    // No key leaks in what is measured, no record is broken, and nothing has a quota or a price.
    let empty = [
        View::Quota,
        View::Charges,
        View::Bills,
        View::Forecast,
        View::Notices,
        View::Adjustments,
        View::Incidents,
        View::IncidentLog,
        View::Revocations,
        View::Denied,
        View::Audit,
        View::DeadLetters,
    ];
    for view in View::ALL.into_iter().filter(|view| !empty.contains(view)) {
        ensure!(dropped.rows[view as usize] > 0, "`{}` has no rows", view.name());
    }

    heading("operators, one worker, events in memory");
    let rows: usize = dropped.rows.iter().sum();
    line("the dataflow", count, &operators, &format!("8 metrics, {rows} rows"));
    line("bare loops (ceiling)", count, &loops, &format!("5 metrics, {groups} groups"));
    println!(
        "  {:<28} {:>6.1} % (target >= {:.0} %)\n",
        "operators / ceiling, by CPU",
        100.0 * cpu_ratio(&operators, &loops),
        100.0 * OPERATORS_CEILING_TARGET
    );
    Ok(())
}

fn run_operators(
    worker: &mut timely::worker::Worker,
    input: &[Message],
    tables: &TablesRead,
    options: keytide_dataflow::Options,
) -> anyhow::Result<(Dropped, Cost)> {
    let output = Rc::new(RefCell::new(Dropped::default()));
    let mut dataflow = worker
        .dataflow(|scope| render(scope, options, &output, None))
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    let probe = dataflow.probe().clone();
    // The dataflow takes what it is given, as it would from the queue: the copies are made before.
    let mut messages: Vec<Copied> = input.iter().map(Copied::of).collect();
    let (mut changes, mut definitions) = (tables.changes.clone(), tables.definitions.clone());
    let ((), cost) = thread(|| {
        dataflow.advance_to(NOW);
        dataflow.tables(&mut changes);
        dataflow.definitions(&mut definitions);
        for message in &mut messages {
            match message {
                Copied::Definitions(definitions) => dataflow.definitions(definitions),
                Copied::Events(events) => dataflow.events(events),
                Copied::Tick(info) => {
                    dataflow.end_tick(*info);
                    worker.step();
                    while probe.less_than(&(info.tick + 1).saturating_sub(TICKS_IN_FLIGHT)) {
                        worker.step();
                    }
                }
            }
        }
        drop(dataflow);
        while !probe.done() {
            worker.step();
        }
        Ok(())
    })?;
    Ok((output.take(), cost))
}

fn run_ceiling(input: &[Message]) -> Ceiling {
    let mut ceiling = Ceiling::default();
    let mut tick = Vec::new();
    for message in input {
        match message {
            Message::Close { .. } => {
                ceiling.tick(&tick);
                tick.clear();
            }
            _ => tick.push(events_of(message)),
        }
    }
    ceiling
}

fn events_of(message: &Message) -> &[AccessEvent] {
    match message {
        Message::Events { events, .. } => events,
        _ => &[],
    }
}

/// A message that the dataflow may take.
enum Copied {
    Definitions(Vec<Definition>),
    Events(Vec<AccessEvent>),
    Tick(keytide_dataflow::model::TickInfo),
}

impl Copied {
    fn of(message: &Message) -> Self {
        match message {
            Message::Definitions(definitions) => Self::Definitions(definitions.clone()),
            Message::Close { info, .. } => Self::Tick(*info),
            _ => Self::Events(events_of(message).to_vec()),
        }
    }
}

/// Counts rows and drops them.
#[derive(Default)]
struct Dropped {
    unique: u64,
    rows: [usize; View::ALL.len()],
}

impl Output for Dropped {
    fn rows(&mut self, _: Tick, rows: Rows) {
        if let Some(view) = rows.view() {
            self.rows[view as usize] += rows.len();
        }
    }
    fn late(&mut self, _: Tick, late: Vec<Late>) {
        self.rows[View::Late as usize] += late.len();
    }
    fn counts(&mut self, _: Tick, counts: Counts) {
        self.unique += counts.events;
    }
    fn admitted(&mut self, _: Tick, _: Admitted) {}
    fn define(&mut self, _: Tick, definitions: Vec<Definition>) {
        black_box(definitions);
    }
    fn forget(&mut self, _: Tick, _: Vec<Forgotten>) {}
}

fn heading(title: &str) {
    println!("{title}");
    println!("  {:<28} {:>10} {:>15}", "", "M events/s", "per core-second");
}

fn line(name: &str, events: u64, costs: &[Cost], note: &str) {
    println!("  {name:<28} {:>10.3} {:>15.3}  {note}", rate(events, costs), core_rate(events, costs));
}
