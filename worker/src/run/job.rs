//! A live job's threads, how they start and how they end.
//!
//! ```text
//! reader-0..  tables  watch  coordinator      connectors::live
//! timely workers                              work.rs
//! publisher                                   publish.rs, notify.rs, connectors::sink
//! ledger                                      commit.rs, connectors::ledger
//! alerts-*                                    alerts::outbox, alerts::gateways
//! checkpoints                                 checkpoint.rs
//! door  guests  link-*  results-*  cluster    cluster/, only with [cluster]
//! ```
//! A process that follows another one has no tables, coordinator, publisher, ledger and alerts.
//!
//! They end by themselves after the last tick. Readers and tables end when they answered the last cut, workers when
//! they computed its tick. The publisher ends when the workers are gone and the sinks acknowledged all rows. A panic in
//! any of them must end the process.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::mem;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context as _;
use keytide_alerts::outbox::{ClaimsError, OutboxError, OutboxMonitor};
use keytide_config::{Delivery, Http, JobConfig, Limits, OnStale, Sinks, Source, SourceKind, Start, State};
use keytide_connectors::geo::{GeoCopies, Unreadable};
use keytide_connectors::input::PartitionInfo;
use keytide_connectors::kafka::{Consumer, ErrorClass, Topic};
use keytide_connectors::ledger::{
    AddedPartition, KafkaLedgerOptions, Ledger, LedgerError, MadeBy, PartitionProgress, Stop, TickRecord,
};
use keytide_connectors::live::{
    self, Decoders, InputMemory, JobEnd, JobFailure, Live, LiveError, LiveStart, NamedDecoders,
    PartitionMemory, PartitionReader, ProcessPlace, SourceFeed, TableReader, coordinate, watch_partitions,
};
use keytide_connectors::sink::{self, FilesMemory, Promise, Publisher, PublisherMonitor};
use keytide_connectors::store::{CheckpointId, Store};
use keytide_connectors::tables::{TablesMemory, TablesRead};
use keytide_dataflow::model::{TableChange, Tick};
use keytide_dataflow::state::Snapshot;
use keytide_dataflow::{Options, Publish};
use timely::communication::WorkerGuards;
use timely::worker::Worker;

use super::Clock;
use super::actions::{ActionBoard, ActionFeed};
use super::api::{SharedFeed, TickFeed};
use super::checkpoint::{CheckpointStats, CheckpointWriter, PartsWriter, Piece, Pieces, Stored};
use super::cluster::{self, ClusterView, Leader, Membership, Mesh, Role};
use super::commit::{Committer, LedgerStats, PublishError};
use super::notify::ActionMonitor;
use super::notify::Notifier;
use super::observe::WorkerStats;
use super::patience::Patience;
use super::program::program;
use super::publish::{Outlets, PublishEvent, ResultCounters, Results, Subscriber, Watchers, publish};
use super::restore::{self, Beginning, Restored};
use super::tables::{GeoFeed, JobGeo, ReferenceData, named_decoders, refused_geo_copy};
use super::top::LiveTop;
use super::watchdog::Watched;
use super::work::work;
use crate::exit::{Exit, classify, failure, kafka_failure, message};
use crate::serve::auth::TokenTable;
use crate::serve::ledger::QuotaLedger;
use crate::serve::shelf::Shelf;
use crate::serve::stats::ApiMonitor;
use crate::serve::{ApiData, ApiServer};

/// Rows of a bulk change that are published per tick, view and bucket of groups.
const BULK_ROWS: usize = 128;
/// How often a start claims the job while an older life still commits ticks.
const CLAIMS: usize = 4;
/// How often topics are asked for new partitions.
const WATCH: Duration = Duration::from_secs(10);

/// A live job that runs.
pub struct LiveJob {
    /// Lets other threads watch and stop the job.
    pub handle: Handle,
    threads: Vec<JoinHandle<()>>,
    workers: WorkerGuards<()>,
    /// A process that follows has none.
    publisher: Option<JoinHandle<()>>,
    company: Company,
    /// Returns the error of the last checkpoint.
    checkpoints: Option<JoinHandle<Option<String>>>,
}

/// The other processes of a job.
enum Company {
    None,
    Led(Leader),
    /// This process follows, and has a thread that reports.
    Leader(Arc<Membership>, JoinHandle<()>),
}

/// Watches and stops a running job from outside.
#[derive(Clone)]
pub struct Handle {
    pub live: Arc<Live>,
    pub results: Arc<ResultCounters>,
    pub observed: Arc<WorkerStats>,
    pub checkpoints: Arc<CheckpointStats>,
    pub ledger: Arc<LedgerStats>,
    pub sinks: PublisherMonitor,
    pub alerts: OutboxMonitor,
    /// The numbers of actions after the last tick that was published; `None` before that.
    pub action_counts: ActionMonitor,
    pub limits: Limits,
    /// The kinds of sinks that the job has, as metrics name them.
    pub(super) sink_kinds: &'static [&'static str],
    /// The busiest keys, if the job has `[http]`.
    pub top: Option<LiveTop>,
    /// What the API did, if this process answers.
    pub api: Option<ApiMonitor>,
    /// The actions on keys, if the job has people who may answer and this process publishes.
    pub actions: Option<ActionBoard>,
    /// Look-ups of addresses that hit a damaged record.
    pub unreadable_places: Unreadable,
    /// The other processes.
    pub cluster: ClusterView,
    membership: Option<Arc<Membership>>,
    pub(super) clock: Clock,
    /// Why the sinks or the ledger can't go on.
    publish_error: Arc<Mutex<Option<PublishError>>>,
}

/// What a job with `[state]` has beside one without.
struct Durable {
    store: Arc<Store>,
    ledger: Ledger,
    promise: Promise,
    /// The checkpoints that count already.
    checkpoints: Vec<Stored>,
    /// A random number that tells this life of the job from all others.
    nonce: u64,
    /// Ends commits that take long once the job was told to end.
    patience: Arc<Patience>,
}

/// Opens the store and the ledger of a job, reads with what it goes on, and claims the ledger for this life. An older life
/// may commit a tick before it finds the claim. Then all is read again.
fn go_on(
    config: &JobConfig,
    state: &State,
    clock: Clock,
    leader: Option<&Leader>,
) -> anyhow::Result<(Durable, Restored)> {
    let store = match leader {
        Some(leader) => Arc::clone(&leader.membership.store),
        None => restore::open(state)?,
    };
    for _ in 1..CLAIMS {
        let has_moved = Cell::new(false);
        match try_to_go_on(config, state, &store, clock, &has_moved, leader) {
            Err(error) if has_moved.get() => {
                tracing::info!("an older process of the job is ending, its last ticks are read: {error}");
            }
            result => return result,
        }
    }
    try_to_go_on(config, state, &store, clock, &Cell::default(), leader)
}

/// Sets `has_moved` if an older life committed ticks after the ledger was read.
fn try_to_go_on(
    config: &JobConfig,
    state: &State,
    store: &Arc<Store>,
    clock: Clock,
    has_moved: &Cell<bool>,
    leader: Option<&Leader>,
) -> anyhow::Result<(Durable, Restored)> {
    let refused = |error: LedgerError| match leader {
        Some(leader) if error.is_superseded() && !has_moved.get() => {
            leader.membership.leave(&error.to_string())
        }
        _ => failure(error.class().into(), error),
    };
    let nonce = leader.map_or_else(random_nonce, |leader| leader.nonce);
    let patience = Arc::<Patience>::default();
    let stop: Stop = {
        let patience = Arc::clone(&patience);
        Arc::new(move || patience.is_over())
    };
    let (promise, opened) = match &config.sinks.kafka {
        Some(sink) if sink.delivery == Delivery::ExactlyOnce => {
            let topics = sink::prepare(sink).map_err(|error| failure(error.class().into(), error))?;
            let options = KafkaLedgerOptions::new(&config.job.name, topics);
            (Promise::Transactions, Ledger::open_topic(sink, options, nonce, stop))
        }
        _ => (Promise::Ledger, Ledger::open_store(Arc::clone(store), &config.job.name, nonce, stop)),
    };
    let (mut ledger, history) = opened.map_err(refused)?;
    let claim = || {
        let claimed = ledger.claim(&hostname(), std::process::id(), clock());
        has_moved.set(matches!(claimed, Err(LedgerError::Moved)));
        let claim = claimed.map_err(refused)?;
        tracing::info!(generation = claim.generation, "the job is this process's");
        Ok(())
    };
    let processes = leader.map_or(1, |leader| leader.membership.place.processes.get());
    let workers = config.job.workers.get() * processes;
    let mut restored = restore::restore(store, state, config, history, workers, claim)?;
    let checkpoints = mem::take(&mut restored.checkpoints);
    let store = Arc::clone(store);
    Ok((Durable { store, ledger, promise, checkpoints, nonce, patience }, restored))
}

/// Returns a random number that tells a life of a job from all others.
fn random_nonce() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Returns the name of this machine, for people.
fn hostname() -> String {
    hostname::get()
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| "an unnamed host".to_owned())
}

impl LiveJob {
    /// Starts a job; blocks until its topics are looked up, and with `[cluster]` until enough processes are there.
    /// `subscriber` gets every tick's results, if this process publishes them. `clock` returns the time in milliseconds
    /// since the epoch. `view` shows how far the start is.
    ///
    /// # Errors
    /// If something that the configuration names can't be used.
    pub fn start(
        config: &JobConfig,
        subscriber: Option<Subscriber>,
        clock: Clock,
        view: &ClusterView,
    ) -> anyhow::Result<Self> {
        let role = match config.cluster.as_ref().zip(config.state.as_ref()) {
            None => None,
            Some((cluster, state)) => {
                Some(cluster::join(config, cluster, state, random_nonce(), (clock, view))?)
            }
        };
        let started = match role {
            None => Self::lead(config, subscriber, (clock, view), None),
            Some(Role::Leads(leader)) => {
                let membership = Arc::clone(&leader.membership);
                let started = Self::lead(config, subscriber, (clock, view), Some(leader));
                if let Err(error) = &started {
                    leave_if_it_may_pass(&membership, error);
                    let failure = JobFailure {
                        message: message(error),
                        class: classify(error).into(),
                        gives_up: false,
                    };
                    membership.finish(&JobEnd { failure: Some(failure), again: false });
                }
                started
            }
            Some(Role::Follows(follower)) => {
                let membership = Arc::clone(&follower.membership);
                let started = Self::follow(config, (clock, view), follower);
                if let Err(error) = &started {
                    leave_if_it_may_pass(&membership, error);
                }
                started
            }
        };
        if started.is_ok() {
            view.runs();
        }
        started
    }

    /// Starts the process that cuts ticks and publishes. It may lead others.
    fn lead(
        config: &JobConfig,
        subscriber: Option<Subscriber>,
        (clock, view): (Clock, &ClusterView),
        leader: Option<Leader>,
    ) -> anyhow::Result<Self> {
        // A port that somebody has is found before the job is claimed.
        let tokens =
            config.api.as_ref().and(config.tables.tokens.as_ref()).map(|_| Arc::<TokenTable>::default());
        let pages = config.pages.as_ref();
        let bind = |api| ApiServer::bind((api, pages), &config.sources, tokens.clone());
        let api = config.api.as_ref().map(bind).transpose()?;
        let (durable, restored) = match &config.state {
            Some(state) => go_on(config, state, clock, leader.as_ref())
                .map(|(durable, restored)| (Some(durable), restored))?,
            None => (None, Restored::default()),
        };
        let number = restored.number();
        let Restored {
            input,
            tables: earlier,
            alerts: memory,
            files,
            shelf,
            snapshot,
            replay,
            inputs,
            decoders,
            replaced,
            kept_decoders,
            before,
            checkpoint,
            checkpoints: _,
        } = restored;
        let promise = durable.as_ref().map_or(Promise::None, |durable| durable.promise);
        let fingerprint = config.fingerprint();
        let mut publisher = Publisher::open(
            &config.sinks,
            &config.job.name,
            &config.sources,
            &fingerprint,
            promise,
            files.as_ref(),
        )
        .map_err(|error| failure(error.class().into(), error))?;
        let store = durable.as_ref().map(|durable| (Arc::clone(&durable.store), durable.nonce));
        let (said, inputs_of_actions) = mpsc::channel();
        let may_say = |http: &Http| !http.people.is_empty() || !http.gateways.is_empty();
        let is_open = config.http.as_ref().is_some_and(may_say);
        let board = is_open.then(|| ActionBoard::new(clock, said.clone(), random_nonce()));
        let mut notifier = Notifier::open(config, clock, memory, store, (said, board.clone()))
            .map_err(|error| failure(exit_of_alerts(&error), error))?;
        let copies = durable.as_ref().map(|durable| GeoCopies::new(Arc::clone(&durable.store)));
        let tables = ReferenceData::open(config, &earlier, copies, tokens.as_ref())?;
        let (requests, api) = start_api(config, api, (&earlier, &tables.first), shelf, clock)?.unzip();
        if let Some(requests) = &requests {
            publisher.place_rows();
            notifier.deny_in(&requests.ledger);
        }
        drop(earlier);
        if let Some(durable) = durable.as_ref().filter(|_| input.is_none()) {
            let files = publisher.files_memory().map_err(|error| failure(error.class().into(), error))?;
            Beginning { files, decoders: tables.geo.name.clone() }.write(&durable.store)?;
        }
        let of_input = input.iter().flat_map(|input| &input.partitions).map(|partition| &partition.source);
        let of_replay = replay.iter().flat_map(|record| &record.added).map(|added| &added.source);
        let sources = kafka_sources(&config.sources, &of_input.chain(of_replay).cloned().collect())?;
        let workers = config.job.workers;
        let place = leader.as_ref().map_or(ProcessPlace::ALONE, |leader| leader.membership.place);
        let all_workers = workers.get() * place.processes.get();
        let options = live_options(config, place, before.is_some());
        // A clock that was set back doesn't lead to ticks that were there already.
        let first = match replay.first() {
            Some(record) => record.tick,
            None => input.as_ref().map_or(0, |input| input.tick + 1).max(clock()),
        };
        let live = Live::new(first, options);
        if let Some(leader) = &leader {
            let start = LiveStart {
                checkpoint: checkpoint.map(|id| (id.tick, id.nonce)),
                first,
                watermark: input.as_ref().map_or(0, |input| input.ticker.watermark()),
                replay: replay.clone(),
                decoders: decoders.clone().unwrap_or_else(|| tables.geo.name.clone()),
                ..LiveStart::default()
            };
            leader.announce(&live, &start);
        }
        let to_replay = replay.len() as u64;
        let recorded = recorded_decoders(config, &tables.geo, &replaced)?;
        add_partitions(&live, input, (number, replay, recorded), &sources)?;
        let mut known = Vec::new();
        for (index, name, topic, starts) in &sources {
            tracing::info!(source = name, topic = topic.name(), partitions = starts.len(), "reads");
            known.push((*index, name.clone(), u32::try_from(starts.len()).unwrap_or(u32::MAX)));
        }

        let membership = leader.as_ref().map(|leader| Arc::clone(&leader.membership));
        let unreadable = tables.watched_geo.unreadable().clone();
        let handle = Handle {
            sinks: publisher.monitor(),
            alerts: notifier.monitor(),
            action_counts: notifier.action_monitor(),
            top: config.http.as_ref().map(|_| LiveTop::default()),
            actions: board,
            api,
            ..Handle::new(&live, config, (clock, view), membership, unreadable)
        };
        let decoders = start_decoders(config, &live, &tables.geo, decoders, &replaced, &kept_decoders)?;
        let mut threads = Vec::new();
        for slot in 0..workers.get() {
            let feeds = feeds(&config.sources)?;
            let reader = PartitionReader::new(&live, slot, feeds, &*decoders);
            threads.push(spawn(format!("reader-{slot}"), move || reader.run())?);
        }
        let mut feeds = tables.feeds;
        if let Some(requests) = &requests {
            let share = |feed| SharedFeed::share(feed, requests, clock);
            feeds = feeds.into_iter().map(share).collect();
        }
        feeds.push(Box::new(ActionFeed::new(inputs_of_actions)));
        feeds.push(Box::new(GeoFeed::new(tables.watched_geo, tables.geo.copies, config, &live)));
        let reader = TableReader::new(&live, tables.first, feeds, inputs);
        threads.push(spawn("tables".to_owned(), move || reader.run())?);
        threads.push(watch(&live, sources, known)?);

        let (counts, counted) = mpsc::channel();
        let (events, published) = mpsc::channel();
        let (pieces, checkpoints, committer) = match durable {
            None => (Pieces::default(), None, None),
            Some(Durable { store, ledger, promise, checkpoints, nonce, patience }) => {
                let _ = patience.live.set(Arc::clone(&live));
                let (sender, pieces) = mpsc::channel();
                let writer = CheckpointWriter {
                    store: Arc::clone(&store),
                    nonce,
                    kept: checkpoints,
                    before,
                    live: Arc::clone(&live),
                    workers: all_workers,
                    job: config.job.name.clone(),
                    config: fingerprint.clone(),
                    stats: Arc::clone(&handle.checkpoints),
                    counted: counts,
                    claims: notifier.claims(),
                };
                let thread = thread::Builder::new().name("checkpoints".to_owned());
                let thread = thread.spawn(move || writer.run(&pieces))?;
                // The prefix is a part of the rows' ids.
                let prefix = config.sinks.kafka.as_ref().map_or("", |sink| &sink.prefix);
                let made_by = MadeBy { program: program(), config: format!("{fingerprint} {prefix}") };
                let stats = (&handle.ledger, &handle.checkpoints);
                let ledger = (ledger, patience);
                let events = events.clone();
                let done = move |batch| {
                    // The publisher is gone if the sinks failed.
                    let _ = events.send(PublishEvent::Committed(batch));
                };
                let committer = Committer::start(ledger, store, made_by, promise, to_replay, stats, done)?;
                (Pieces::new(sender), Some(thread), Some(committer))
            }
        };
        let publisher = {
            let (handle, pieces) = (handle.clone(), pieces.clone());
            let requests = requests.as_ref().map(|requests| TickFeed::new(requests, clock));
            spawn("publisher".to_owned(), move || {
                let writers = (publisher, notifier, requests, committer);
                handle.publish(writers, &published, all_workers, (&pieces, &counted), subscriber);
            })?
        };
        let results = Arc::new(Results::new(events));
        let mut mesh = None;
        if let Some(leader) = &leader {
            let membership = &leader.membership;
            cluster::results::receive(leader.results()?, &results, membership)?;
            mesh = Some(membership.mesh()?);
            membership.watch(&live, handle.hangs(config.job.tick_ms))?;
        }
        let guards = start_workers(&handle, mesh, config, &results, pieces, snapshot)?;
        drop(results);
        {
            let live = Arc::clone(&live);
            threads.push(spawn("coordinator".to_owned(), move || coordinate(&live, clock))?);
        }
        let company = leader.map_or(Company::None, Company::Led);
        Ok(Self { handle, threads, workers: guards, publisher: Some(publisher), company, checkpoints })
    }

    /// Starts a process that follows another one.
    fn follow(
        config: &JobConfig,
        (clock, view): (Clock, &ClusterView),
        follower: cluster::Follower,
    ) -> anyhow::Result<Self> {
        let (membership, start) = (Arc::clone(&follower.membership), Arc::clone(&follower.start));
        let Membership { place, store, .. } = &*membership;
        let (place, workers) = (*place, config.job.workers);
        // 1. The states. Links come after them, since nobody would read what comes over those meanwhile.
        let own = place.process * workers.get()..(place.process + 1) * workers.get();
        let all_workers = workers.get() * place.processes.get();
        let states = |(tick, nonce)| restore::states(store, CheckpointId { tick, nonce }, own, all_workers);
        let snapshot = start.checkpoint.map(states).transpose()?;
        // 2. The input.
        let live = Live::new(start.first, live_options(config, place, false));
        live.follow(start.watermark);
        live.replay(0, start.replay.clone(), BTreeMap::new());
        live.name_decoders(start.decoders.clone());
        let unreadable_places = Unreadable::default();
        let named = {
            let (copies, unreadable) = (GeoCopies::new(Arc::clone(store)), unreadable_places.clone());
            let config = config.clone();
            move |name: &str| -> anyhow::Result<NamedDecoders> {
                let databases = copies.open(name, &config.geo, &unreadable).map_err(refused_geo_copy)?;
                Ok(named_decoders(&config, databases, name.to_owned()))
            }
        };
        let decoders = named(&start.decoders)?.decoders;
        let membership_of_handle = Some(Arc::clone(&membership));
        let handle = Handle::new(&live, config, (clock, view), membership_of_handle, unreadable_places);
        let report = {
            let of_thread = Arc::clone(&live);
            follower.obey(&live, move |name| match named(name) {
                Ok(decoders) => Some(decoders),
                Err(error) => {
                    of_thread.fail(LiveError::Decoders { message: message(&error) });
                    None
                }
            })?
        };
        // 3. The links.
        let results_link = membership.results_to_leader()?;
        let mesh = membership.mesh()?;
        membership.watch(&live, handle.hangs(config.job.tick_ms))?;
        // 4. The threads.
        let mut threads = Vec::new();
        for slot in 0..workers.get() {
            let reader = PartitionReader::new(&live, slot, feeds(&config.sources)?, &*decoders);
            threads.push(spawn(format!("reader-{slot}"), move || reader.run())?);
        }
        let (events, to_send) = mpsc::channel();
        let (sender, pieces) = mpsc::channel();
        let writer = PartsWriter {
            store: Arc::clone(store),
            nonce: start.nonce,
            process: place.process,
            workers: workers.get(),
        };
        let results = Arc::new(Results::new(events));
        let of_writer = Arc::clone(&results);
        threads.push(spawn("checkpoints".to_owned(), move || {
            writer.run(&pieces, |parts| of_writer.parts(parts));
        })?);
        threads.push(cluster::results::send(results_link, to_send, Arc::clone(&membership))?);
        let guards = start_workers(&handle, Some(mesh), config, &results, Pieces::new(sender), snapshot)?;
        drop(results);
        let company = Company::Leader(membership, report);
        Ok(Self { handle, threads, workers: guards, publisher: None, company, checkpoints: None })
    }

    /// Waits until all threads ended.
    ///
    /// # Errors
    /// The reason, if the job ended without a stop.
    pub fn join(self) -> anyhow::Result<()> {
        let Self { handle, threads, workers, publisher, company, checkpoints } = self;
        // The threads of a follower end only after its workers. A thread that panics ends the process.
        drop(workers.join());
        for thread in threads.into_iter().chain(publisher) {
            let _ = thread.join();
        }
        let unwritten = checkpoints.and_then(|thread| thread.join().ok().flatten());
        let error = handle.publish_error.lock().unwrap_or_else(PoisonError::into_inner).take();
        let end = match company {
            Company::None => JobEnd::default(),
            Company::Led(leader) => {
                if let Some(error) = error.as_ref().filter(|error| error.is_superseded()) {
                    leader.membership.leave(&error.to_string());
                }
                let failed = |message, class| JobFailure { message, class, gives_up: false };
                let of_publisher = error.as_ref().map(|error| failed(error.to_string(), error.class()));
                let of_input = || handle.live.error().map(|error| JobFailure::from(&*error));
                let of_checkpoint =
                    || unwritten.as_ref().map(|error| failed(error.clone(), ErrorClass::Transient));
                let failure = of_publisher.or_else(of_input).or_else(of_checkpoint);
                leader.end(&handle.live, failure);
                JobEnd::default()
            }
            Company::Leader(membership, report) => {
                handle.live.report_no_more();
                let end = handle.live.wait_until_done();
                let _ = report.join();
                if end.again {
                    membership.leave("a process that waited takes part in the next generation");
                }
                end
            }
        };
        if let Some(error) = error {
            return Err(failure(error.class().into(), error));
        }
        match (handle.live.error(), unwritten, end.failure) {
            (Some(error), ..) => Err(failure(error.class().into(), anyhow::anyhow!("{error}"))),
            (None, Some(error), _) => Err(failure(Exit::Transient, anyhow::anyhow!(error))),
            (None, None, Some(of_leader)) => {
                Err(failure(of_leader.class.into(), anyhow::anyhow!("the job ended: {}", of_leader.message)))
            }
            (None, None, None) => Ok(()),
        }
    }
}

/// Leaves a generation that can't start for a reason that may pass, such as an outage of the brokers, so that it is tried
/// again.
fn leave_if_it_may_pass(membership: &Membership, error: &anyhow::Error) {
    if classify(error) == Exit::Transient {
        membership.leave(&message(error));
    }
}

/// Returns the options of a job's input in a process.
fn live_options(config: &JobConfig, place: ProcessPlace, has_parts: bool) -> live::LiveOptions {
    live::LiveOptions {
        tick_ms: config.job.tick_ms,
        windows: config.windows,
        workers: config.job.workers,
        place,
        checkpoints: config
            .state
            .as_ref()
            .map(|state| live::CheckpointRules { every_ms: state.checkpoint_every_ms, has_parts }),
    }
}

impl Handle {
    /// Returns the handle of a process that publishes nothing.
    fn new(
        live: &Arc<Live>,
        config: &JobConfig,
        (clock, view): (Clock, &ClusterView),
        membership: Option<Arc<Membership>>,
        unreadable_places: Unreadable,
    ) -> Self {
        Self {
            live: Arc::clone(live),
            results: Arc::default(),
            observed: Arc::default(),
            checkpoints: Arc::default(),
            ledger: Arc::default(),
            sinks: PublisherMonitor::default(),
            alerts: OutboxMonitor::default(),
            action_counts: ActionMonitor::default(),
            limits: config.limits,
            sink_kinds: sink_kinds(&config.sinks),
            top: None,
            api: None,
            actions: None,
            unreadable_places,
            cluster: view.clone(),
            membership,
            clock,
            publish_error: Arc::default(),
        }
    }

    /// Returns what says which part of this process hangs, if one does.
    fn hangs(&self, tick_ms: u64) -> impl Fn() -> Option<String> + Send + use<> {
        let this = self.clone();
        move || {
            let Self { live, results, clock, .. } = &this;
            let handed_over = results.ticks.load(Ordering::Relaxed);
            let status = &live.status();
            let in_flight = live.counters.ticks.load(Ordering::Relaxed).saturating_sub(handed_over);
            Watched { now: clock(), tick_ms, status, is_stopping: live.is_stopping(), in_flight }.hang()
        }
    }

    /// Ends the job after its last tick is cut, computed and published.
    pub fn stop(&self) {
        cluster::tell_to_end();
        self.live.stop();
    }

    /// Ends the job without its end: the sinks are left, and other processes end with this one.
    pub fn give_up(&self, reason: &str) {
        self.sinks.stop();
        if let Some(membership) = &self.membership {
            let class = ErrorClass::Transient;
            let failure = JobFailure { message: reason.to_owned(), class, gives_up: true };
            membership.finish(&JobEnd { failure: Some(failure), again: false });
        }
    }

    fn publish(
        &self,
        writers: (Publisher, Notifier, Option<TickFeed>, Option<Committer>),
        events: &mpsc::Receiver<PublishEvent>,
        workers: usize,
        (pieces, counted): (&Pieces, &mpsc::Receiver<FilesMemory>),
        subscriber: Option<Subscriber>,
    ) {
        let (mut publisher, mut notifier, mut requests, mut committer) = writers;
        let watchers = Watchers { subscriber, top: self.top.clone() };
        let outlets = Outlets {
            publisher: &mut publisher,
            notifier: &mut notifier,
            requests: requests.as_mut(),
            pieces,
            counted,
            committer: committer.as_mut(),
        };
        let published = publish(outlets, events, workers, &self.live, &self.results, watchers);
        if let Err(error) = published {
            tracing::error!("{error}");
            *self.publish_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            // In this order no cut comes between that asks for one more checkpoint.
            self.live.stop();
            pieces.send(Piece::GivenUp);
        }
        notifier.stop();
    }
}

/// Starts to answer requests, if the job has `[api]`. The ledger has the rows of tables that an earlier life held, and
/// what changed since. The shelf has the rows of the checkpoint.
fn start_api(
    config: &JobConfig,
    server: Option<ApiServer>,
    (earlier, first): (&TablesMemory, &TablesRead),
    rows: Option<Vec<u8>>,
    clock: Clock,
) -> anyhow::Result<Option<(ApiData, ApiMonitor)>> {
    let Some((api, server)) = config.api.as_ref().zip(server) else { return Ok(None) };
    let ledger = Arc::new(QuotaLedger::new(random_nonce(), api.on_stale == OnStale::Deny));
    let shelf = Arc::new(Shelf::new(api.memory));
    if let Some(rows) = rows
        && shelf.restore(&rows).is_err()
    {
        // It is made of published rows, so the job goes on without it.
        tracing::warn!("the rows of [api] in the checkpoint are of another version: answers begin anew");
    }
    let data = ApiData { ledger, shelf, directory: Arc::default() };
    let held: Vec<TableChange> = earlier.changes().collect();
    data.take_rows(&held, clock());
    data.take_tables(first, clock());
    let address = server.address().context("asking for the port of [api] failed")?;
    let monitor = server.start(&data, clock)?;
    tracing::info!("answers gateways at http://{address}/v1/check and /v1/auth");
    Ok(Some((data, monitor)))
}

/// Returns the exit code for alerts that can't be set up.
fn exit_of_alerts(error: &OutboxError) -> Exit {
    match error {
        OutboxError::Thread(_) | OutboxError::Claims(ClaimsError::Store(_)) => Exit::Transient,
        OutboxError::Mail(_)
        | OutboxError::Webhook { .. }
        | OutboxError::Gateway { .. }
        | OutboxError::Claims(_) => Exit::Usage,
    }
}

fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name).spawn(run)
}

type KafkaSources = Vec<(usize, String, Topic, Vec<(u32, u64)>)>;

/// Opens the sources' topics; returns each with the start of its partitions.
fn kafka_sources(sources: &[Source], known: &BTreeSet<String>) -> anyhow::Result<KafkaSources> {
    let mut found = Vec::new();
    for (index, source) in sources.iter().enumerate() {
        let SourceKind::Kafka(kafka) = &source.kind else {
            let message = format!(
                "source \"{}\" is bounded: `run` reads Kafka topics, `replay` reads files and standard input",
                source.name
            );
            return Err(failure(Exit::Usage, anyhow::anyhow!(message)));
        };
        let topic = Topic::open(&kafka.client, &kafka.topic).map_err(kafka_failure)?;
        let partitions = topic.partitions().map_err(kafka_failure)?;
        // An earlier life knows better where it goes on; its `start` may be gone.
        let start = if known.contains(&source.name) { &Start::Earliest } else { &kafka.start };
        let starts = topic.starts(start, &partitions).map_err(kafka_failure)?;
        found.push((index, source.name.clone(), topic, starts));
    }
    Ok(found)
}

/// Adds the partitions of an earlier life in their order, and then those that are new. A source that was read before
/// has its new partitions read from their beginning, whatever `start` says. The checkpoint had the tick with the
/// `number`, and the ticks of `replay` are made again.
fn add_partitions(
    live: &Live,
    input: Option<InputMemory>,
    (number, replay, decoders): (u64, Vec<TickRecord>, BTreeMap<Tick, NamedDecoders>),
    sources: &KafkaSources,
) -> anyhow::Result<()> {
    let has = |source: &str, number: u32| {
        let found = sources.iter().find(|(_, name, ..)| *name == source);
        found.filter(|(.., starts)| starts.iter().any(|(known, _)| *known == number))
    };
    let last: Vec<PartitionProgress> = replay.last().map(|record| record.reached.clone()).unwrap_or_default();
    let is_needed = |index: usize, from: u64| last.get(index).is_some_and(|part| part.next_offset > from);
    let mut known: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
    if let Some(InputMemory { ticker, partitions, .. }) = input {
        live.restore(ticker);
        for (index, memory) in partitions.into_iter().enumerate() {
            known.entry(memory.source.clone()).or_default().insert(memory.number);
            let source = has(&memory.source, memory.number);
            if source.is_none() && is_needed(index, memory.next_offset) {
                return Err(source_gone(&memory.source, memory.number));
            }
            let info = PartitionInfo {
                source: memory.source.clone(),
                source_index: source.map_or(usize::MAX, |(index, ..)| *index),
                number: memory.number,
                path: None,
            };
            live.restore_partition(info, memory, source.is_some());
        }
    }
    let added = replay.iter().flat_map(|record| record.added.clone()).collect::<Vec<_>>();
    live.replay(number, replay, decoders);
    for AddedPartition { source, number, offset } in added {
        known.entry(source.clone()).or_default().insert(number);
        let found = has(&source, number);
        if found.is_none() && is_needed(live.partitions().len(), offset) {
            return Err(source_gone(&source, number));
        }
        let source_index = found.map_or(usize::MAX, |(index, ..)| *index);
        let memory = PartitionMemory { next_offset: offset, ..PartitionMemory::default() };
        live.restore_partition(
            PartitionInfo { source, source_index, number, path: None },
            memory,
            found.is_some(),
        );
    }
    for (index, name, topic, starts) in sources {
        let of_source = known.get(name);
        let new: Vec<u32> = starts
            .iter()
            .map(|(number, _)| *number)
            .filter(|number| of_source.is_none_or(|known| !known.contains(number)))
            .collect();
        let begin = match of_source {
            Some(_) => topic.starts(&Start::Earliest, &new).map_err(kafka_failure)?,
            None => starts.clone(),
        };
        for (number, offset) in begin {
            let info = PartitionInfo { source: name.clone(), source_index: *index, number, path: None };
            live.add_partition(info, offset);
        }
    }
    Ok(())
}

/// Refuses to make ticks again without a source that they were made from.
fn source_gone(source: &str, number: u32) -> anyhow::Error {
    let message = format!(
        "source \"{source}\": after the last crash ticks have to be made again with records of partition {number}, which the \
         configuration or the topic no longer has; start the job once with the source, stop it, and remove the source then"
    );
    failure(Exit::Usage, anyhow::anyhow!(message))
}

/// Makes the decoders that came at the end of ticks that are made again.
fn recorded_decoders(
    config: &JobConfig,
    geo: &JobGeo,
    replaced: &BTreeMap<Tick, String>,
) -> anyhow::Result<BTreeMap<Tick, NamedDecoders>> {
    let of_tick = |(tick, name): (&Tick, &String)| {
        let databases = geo.named(name, &config.geo)?;
        Ok((*tick, named_decoders(config, databases, name.clone())))
    };
    replaced.iter().map(of_tick).collect()
}

/// Makes the decoders with which readers start: those of the name `first` if an earlier life had them. The others that it
/// had are `replaced`, and older checkpoints need those of `kept`. If geo databases changed since, the new ones follow after the first tick that is
/// no replay.
fn start_decoders(
    config: &JobConfig,
    live: &Live,
    geo: &JobGeo,
    first: Option<String>,
    replaced: &BTreeMap<Tick, String>,
    kept: &[String],
) -> anyhow::Result<Arc<Decoders>> {
    let first = first.unwrap_or_else(|| geo.name.clone());
    let last = replaced.values().next_back().unwrap_or(&first);
    let decoders = named_decoders(config, geo.named(&first, &config.geo)?, first.clone()).decoders;
    if *last != geo.name {
        tracing::info!("geo databases changed while no job ran");
        live.replace_decoders(named_decoders(config, Arc::clone(&geo.databases), geo.name.clone()));
    }
    if let Some(copies) = &geo.copies
        && let Err(error) = copies.retain(replaced.values().chain(kept).chain([&first, &geo.name]))
    {
        tracing::warn!("old copies of geo databases can't be deleted: {error}");
    }
    live.name_decoders(first);
    Ok(decoders)
}

/// Makes the consumers of one reader.
fn feeds(sources: &[Source]) -> anyhow::Result<Vec<SourceFeed>> {
    let kafka = sources.iter().enumerate().filter_map(|(index, source)| match &source.kind {
        SourceKind::Kafka(kafka) => Some((index, kafka)),
        SourceKind::File { .. } | SourceKind::Stdin => None,
    });
    kafka
        .map(|(source, kafka)| {
            let feed = Box::new(Consumer::new(&kafka.client, &kafka.topic).map_err(kafka_failure)?);
            Ok(SourceFeed { name: kafka.topic.clone(), source, feed, on_gap: kafka.on_gap })
        })
        .collect()
}

fn watch(
    live: &Arc<Live>,
    sources: KafkaSources,
    known: Vec<(usize, String, u32)>,
) -> io::Result<JoinHandle<()>> {
    let live = Arc::clone(live);
    spawn("watch".to_owned(), move || {
        let topic = |index: usize| {
            &sources.iter().find(|(source, ..)| *source == index).expect("every known source is listed").2
        };
        watch_partitions(
            &live,
            WATCH,
            known,
            |source| topic(source).partitions().map(|found| u32::try_from(found.len()).unwrap_or(u32::MAX)),
            |source, partition| topic(source).watermarks(partition).map(|(low, _)| low),
        );
    })
}

/// Returns the names of the kinds of sinks that are configured.
fn sink_kinds(sinks: &Sinks) -> &'static [&'static str] {
    match (&sinks.kafka, &sinks.files) {
        (None, None) => &[],
        (Some(_), None) => &["kafka"],
        (None, Some(_)) => &["files"],
        (Some(_), Some(_)) => &["kafka", "files"],
    }
}

/// Starts the workers of this process, which exchange over `mesh` if there are others.
fn start_workers(
    job: &Handle,
    mesh: Option<Mesh>,
    config: &JobConfig,
    results: &Arc<Results>,
    pieces: Pieces,
    restored: Option<Arc<Snapshot>>,
) -> anyhow::Result<WorkerGuards<()>> {
    let options = Options {
        windows: config.windows,
        limits: config.limits,
        publish: Publish::Changes { bulk_rows: BULK_ROWS },
        detection: (&config.detection).into(),
        accounts: (&config.billing).into(),
    };
    let workers = config.job.workers.get();
    let (live, observed) = (Arc::clone(&job.live), Arc::clone(&job.observed));
    // The snapshot is gone once each worker has taken it.
    let snapshots = Mutex::new(vec![restored; workers]);
    // The last one that drops the results ends the publisher.
    let results = Mutex::new(vec![(Arc::clone(results), pieces); workers]);
    let work = move |worker: &mut Worker| {
        let taken = results.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let (results, pieces) = taken.expect("there is one for each worker");
        let restored = snapshots.lock().unwrap_or_else(PoisonError::into_inner).pop().flatten();
        work(worker, &live, options, &observed, &results, &pieces, restored);
    };
    match mesh {
        Some(mesh) => mesh.execute(workers, work),
        None => timely::execute(timely::Config::process(workers), work)
            .map_err(|error| anyhow::anyhow!(error))
            .context("starting workers failed"),
    }
}
