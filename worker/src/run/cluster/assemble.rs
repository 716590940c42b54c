//! Finds the other processes of the job and takes part in the next generation: it does what an [`Election`] says.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use keytide_config::{Delivery, JobConfig};
use keytide_connectors::cluster::claim::{self, ClaimError, ClusterClaim};
use keytide_connectors::cluster::{
    AskAnswer, ClusterFingerprint, ClusterKey, ClusterSizes, ConnectError, Door, Election, ElectionEvent,
    ElectionStep, ElectionTerms, HandshakeError, Hello, HostTerms, LinkKind, LinkTls, MessageReader,
    NewestTick, Wire, connect, knock,
};
use keytide_connectors::ledger::{self, TickRecord};
use keytide_connectors::live::{FollowMessage, JobEnd, LeadMessage, LiveStart};
use keytide_connectors::store::Store;
use keytide_dataflow::model::Tick;

use super::hub::{Candidate, Hub, halves, heard, send};
use super::mesh::LinkCaller;
use super::status::ClusterView;
use crate::exit::{Exit, failure};

/// How long the newest tick of the ledger is asked for.
const READ_TICK_FOR: Duration = Duration::from_secs(3);
/// How often a process looks whether a part of it hangs.
const LOOK_FOR_HANGS: Duration = Duration::from_secs(10);

/// A process that looks for the others, or has found them.
pub(super) struct Assembly {
    pub(super) hub: Arc<Hub>,
    key: ClusterKey,
    tls: Option<LinkTls>,
    /// This process's hello. Its kind, number and generation are those of each link.
    hello: Hello,
    pub(super) door: Door,
    pub(super) store: Arc<Store>,
    pub(super) nonce: u64,
    pub(super) dead_after: Duration,
    election: Election,
    begun: Instant,
    address: String,
    fingerprint: ClusterFingerprint,
    sizes: ClusterSizes,
    clock: fn() -> Tick,
    /// The generation in which this process takes part, and the number of its processes.
    runs: Option<(u64, u16)>,
    index: Option<u16>,
    /// The last warning about the store, which is said once.
    warned: Option<String>,
}

/// A link to the leader.
pub(super) struct LeaderLink {
    pub(super) reader: MessageReader<Wire>,
    pub(super) messages: Sender<FollowMessage>,
    /// The ticks to be made again that the leader has named so far.
    recorded: Vec<TickRecord>,
}

/// The part of this process in the generation that starts.
pub(super) enum GenerationPart {
    Leads { generation: u64, members: Vec<Candidate> },
    Follows { generation: u64, start: Arc<LiveStart>, link: LeaderLink },
}

impl Assembly {
    /// Opens the door of a process. `lost` is the newest generation that it lost.
    ///
    /// # Errors
    /// If the address or the store can't be used.
    pub(super) fn open(
        config: &JobConfig,
        cluster: &keytide_config::Cluster,
        store: Arc<Store>,
        nonce: u64,
        lost: u64,
        clock: fn() -> Tick,
    ) -> anyhow::Result<Self> {
        let key = ClusterKey::new(&cluster.secret);
        let program = keytide_connectors::cluster::program()
            .map_err(|error| anyhow::Error::new(error).context("the program can't read its own file"))?;
        let fingerprint = key.fingerprint(&config.fingerprint(), &program);
        let short = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
        let sizes =
            ClusterSizes { processes: short(cluster.processes), workers: short(config.job.workers.get()) };
        let hello = Hello { kind: LinkKind::Control, sizes, index: None, generation: 0, fingerprint };
        let dead_after = Duration::from_millis(cluster.dead_after_ms);
        let terms = ElectionTerms {
            processes: cluster.processes,
            min_processes: cluster.min_processes,
            settle: Duration::from_millis(cluster.settle_ms),
            dead_after,
        };
        let tls = cluster.tls.as_ref().map(LinkTls::load).transpose();
        let tls = tls.map_err(|error| failure(Exit::Usage, error))?;
        let opened = Door::open(cluster.listen, key.clone(), tls.clone());
        let (door, guests) = opened.map_err(|error| failure(Exit::Usage, error))?;
        let hub = Hub::new(dead_after, {
            let (key, tls) = (key.clone(), tls.clone());
            let knock = move |address: &str| knock(address, (&key, tls.as_ref()), hello);
            Box::new(move |address| knock(address).map_err(|error| error.to_string()))
        });
        let of_thread = Arc::clone(&hub);
        thread::Builder::new().name("guests".to_owned()).spawn(move || of_thread.receive(&guests))?;
        Ok(Self {
            hub,
            key,
            tls,
            hello,
            door,
            store,
            nonce,
            dead_after,
            election: Election::new(terms, nonce, lost),
            begun: Instant::now(),
            address: cluster.advertise.clone(),
            fingerprint,
            sizes,
            clock,
            runs: None,
            index: None,
            warned: None,
        })
    }

    /// Returns what this process needs to open links of the generation that starts.
    pub(super) fn caller(&self, generation: u64, process: usize) -> LinkCaller<'_> {
        let hello = Hello { generation, index: u16::try_from(process).ok(), ..self.hello };
        LinkCaller { key: &self.key, tls: self.tls.as_ref(), hello }
    }

    /// Takes links for results and data of a generation, in which this process has a number.
    pub(super) fn runs(&mut self, generation: u64, process: usize, processes: usize) {
        self.runs = Some((generation, u16::try_from(processes).unwrap_or(u16::MAX)));
        self.index = u16::try_from(process).ok();
        self.set_terms();
    }

    fn set_terms(&self) {
        let generation = self.runs.map_or(0, |(generation, _)| generation);
        let hello = Hello { index: self.index, generation, ..self.hello };
        self.door.set_terms(HostTerms { hello, leads: self.election.hosts(), runs: self.runs });
    }

    /// Waits until a generation starts with this process.
    ///
    /// # Errors
    /// If this process can't work together with the others, or another version wrote the newest claim.
    pub(super) fn assemble(
        &mut self,
        config: &JobConfig,
        view: &ClusterView,
    ) -> anyhow::Result<GenerationPart> {
        let mut link: Option<LeaderLink> = None;
        let mut refusal: Option<ConnectError> = None;
        let mut shown = None;
        loop {
            self.hub.keep_only(self.election.hosts());
            self.hear_of_links(1);
            self.set_terms();
            let now = self.begun.elapsed();
            let step = self.election.step(now);
            let event = match step {
                ElectionStep::Look => self.look()?,
                ElectionStep::Put { generation } => {
                    self.put(generation);
                    ElectionEvent::Put
                }
                ElectionStep::Ask { generation, address } => {
                    link = None;
                    let asked = self.ask(generation, &address);
                    let answer = match asked {
                        Ok(found) => {
                            link = Some(found);
                            AskAnswer::Accepted
                        }
                        Err(error @ ConnectError::Handshake { error: HandshakeError::Tls { .. }, .. }) => {
                            self.warn(format!("{error}; it is tried again"));
                            claim::answer(&error)
                        }
                        Err(error) => {
                            tracing::debug!("{error}");
                            let answer = claim::answer(&error);
                            refusal = Some(error);
                            answer
                        }
                    };
                    ElectionEvent::Asked(answer)
                }
                ElectionStep::ReadTick => {
                    view.waits_for("the process of the newest claim, which doesn't answer".to_owned());
                    ElectionEvent::Tick(self.newest_tick(config))
                }
                ElectionStep::Rest { until } => {
                    self.hub.wait(until.saturating_sub(self.begun.elapsed()));
                    continue;
                }
                ElectionStep::Gather { generation, until } => {
                    let here = 1 + self.hub.waiting();
                    if shown != Some((generation, here)) {
                        shown = Some((generation, here));
                        let all = self.sizes.processes;
                        view.waits_for(format!("other processes: {here} of {all} are here"));
                        tracing::info!(
                            generation,
                            "leads the next generation: {here} of {all} processes are here"
                        );
                    }
                    self.hub.wait(until.saturating_sub(self.begun.elapsed()));
                    continue;
                }
                ElectionStep::Lead { generation, members } => {
                    let found = self.hub.candidates(members - 1);
                    if found.len() + 1 == members {
                        self.election.take(ElectionEvent::Started, now);
                        return Ok(GenerationPart::Leads { generation, members: found });
                    }
                    // One went away just now. A new look finds out if the others are enough.
                    ElectionEvent::GenerationOver
                }
                ElectionStep::Follow { generation } => {
                    if shown != Some((generation, 0)) {
                        shown = Some((generation, 0));
                        view.waits_for(format!("the process that leads generation {generation}"));
                        tracing::info!(
                            generation,
                            "follows the leader of the next generation, and waits for its start"
                        );
                    }
                    let heard = link.as_mut().map(|link| heard::<LeadMessage>(&mut link.reader));
                    match heard {
                        Some(Ok(LeadMessage::Recorded(records))) => {
                            let link = link.as_mut().expect("a message came over it");
                            link.recorded.extend(Arc::unwrap_or_clone(records));
                            continue;
                        }
                        Some(Ok(LeadMessage::Start(start))) => {
                            self.election.take(ElectionEvent::Started, self.begun.elapsed());
                            let mut link = link.take().expect("a message came over it");
                            let replay = std::mem::take(&mut link.recorded);
                            let start = Arc::new(LiveStart { replay, ..Arc::unwrap_or_clone(start) });
                            return Ok(GenerationPart::Follows { generation, start, link });
                        }
                        Some(Ok(LeadMessage::Done(JobEnd { failure: Some(of_leader), .. }))) => {
                            let message =
                                format!("the process that leads can't start: {}", of_leader.message);
                            return Err(failure(of_leader.class.into(), anyhow::anyhow!(message)));
                        }
                        Some(Ok(LeadMessage::Done(JobEnd { again: false, .. }))) => super::again::end(),
                        Some(Ok(LeadMessage::Reached { address, failure })) => {
                            let waits = match failure {
                                Some(reason) => {
                                    tracing::warn!(
                                        generation,
                                        "the process that leads can't reach this one: {reason}; correct cluster.advertise, \
                                         or let the network pass"
                                    );
                                    format!("the process that leads to reach this one at {address}")
                                }
                                None => format!("the process that leads generation {generation}"),
                            };
                            view.waits_for(waits);
                            continue;
                        }
                        Some(Ok(_)) => continue,
                        Some(Err(reason)) => {
                            tracing::info!(generation, "the link to the leader is lost: {reason}");
                            link = None;
                            ElectionEvent::LinkLost
                        }
                        None => ElectionEvent::LinkLost,
                    }
                }
                ElectionStep::Run { .. } | ElectionStep::EndAtCheckpoint { .. } => continue,
                ElectionStep::BeginAnew { lost } => {
                    super::again::begin_anew(lost, "a process went away while the generation started")
                }
                ElectionStep::Exit => {
                    let message = refusal.take().map_or_else(String::new, |error| error.to_string());
                    return Err(failure(Exit::Usage, anyhow::anyhow!("cluster: {message}")));
                }
            };
            self.election.take(event, self.begun.elapsed());
        }
    }

    /// Tells the election how many processes are here: `members` of the generation, and those that wait.
    fn hear_of_links(&mut self, members: usize) {
        let spares = self.hub.waiting();
        self.election.take(ElectionEvent::Present { members, spares }, self.begun.elapsed());
    }

    fn look(&mut self) -> anyhow::Result<ElectionEvent> {
        match claim::newest(&self.store) {
            Ok(newest) => {
                self.warned = None;
                Ok(ElectionEvent::Looked(newest))
            }
            Err(error @ ClaimError::Unknown { .. }) => Err(failure(Exit::Usage, error)),
            Err(error) => {
                self.warn(format!("claims of processes can't be read, it is tried again: {error}"));
                Ok(ElectionEvent::LookFailed)
            }
        }
    }

    fn put(&mut self, generation: u64) {
        let claim = ClusterClaim {
            generation,
            address: self.address.clone(),
            nonce: self.nonce,
            fingerprint: self.fingerprint.to_string(),
            processes: self.sizes.processes,
            at: (self.clock)(),
        };
        // The next look finds out whether it is there.
        match claim::put(&self.store, &claim).and_then(|_| claim::clean(&self.store)) {
            Ok(()) => self.warned = None,
            Err(error) => {
                self.warn(format!("a claim can't be written, it is tried again: {error}"));
                self.hub.wait(READ_TICK_FOR / 3);
            }
        }
    }

    fn warn(&mut self, text: String) {
        if self.warned.as_ref() != Some(&text) {
            tracing::warn!("{text}");
            self.warned = Some(text);
        }
    }

    /// Opens a control link to the leader of a generation.
    fn ask(&self, generation: u64, address: &str) -> Result<LeaderLink, ConnectError> {
        let hello = Hello { kind: LinkKind::Control, index: None, generation, ..self.hello };
        let (wire, _) = connect(address, (&self.key, self.tls.as_ref()), hello, None)?;
        let failed = |source| ConnectError::NoAnswer { address: address.to_owned(), source };
        let (read, write) = halves(&wire, self.dead_after).map_err(failed)?;
        let (messages, to_send) = channel();
        let _ = messages.send(FollowMessage::Address(self.address.clone()));
        let thread = thread::Builder::new().name("link-out".to_owned()).spawn(move || {
            // A link that fails is found by the thread that reads it.
            let _ = send(write, &to_send, FollowMessage::Beat, |_| false);
        });
        thread.map_err(failed)?;
        Ok(LeaderLink { reader: MessageReader::new(read), messages, recorded: Vec::new() })
    }

    /// Reads the newest tick of the job's ledger.
    fn newest_tick(&self, config: &JobConfig) -> NewestTick {
        let until = Instant::now() + READ_TICK_FOR;
        let stop: ledger::Stop = Arc::new(move || Instant::now() >= until);
        let history = match &config.sinks.kafka {
            Some(sink) if sink.delivery == Delivery::ExactlyOnce => {
                ledger::look_topic(sink, &config.job.name, stop)
            }
            _ => ledger::look(Arc::clone(&self.store), &config.job.name),
        };
        match history {
            Ok(history) => history.ticks.last().map_or(NewestTick::Absent, |record| NewestTick::Committed {
                age: Duration::from_millis((self.clock)().saturating_sub(record.tick)),
                nonce: record.nonce,
            }),
            Err(error) => {
                tracing::debug!("the newest tick can't be read: {error}");
                NewestTick::Unknown
            }
        }
    }

    /// Watches the generation that runs: begins anew when it is lost or `hangs` says what hangs, and calls `end` when it has
    /// to end for a spare. Returns once the job is done.
    pub(super) fn watch(
        mut self,
        generation: u64,
        members: usize,
        hangs: impl Fn() -> Option<String>,
        end: impl Fn(),
    ) {
        let (mut has_ended, mut looked) = (false, Instant::now());
        loop {
            if let Some(reason) = self.hub.loss() {
                super::again::begin_anew(generation, &reason);
            }
            if looked.elapsed() >= LOOK_FOR_HANGS {
                looked = Instant::now();
                if let Some(reason) = hangs() {
                    super::again::begin_anew(generation, &reason);
                }
            }
            if self.hub.is_done() {
                return;
            }
            self.hear_of_links(members);
            let now = self.begun.elapsed();
            match self.election.step(now) {
                ElectionStep::Look => {
                    let event = self.look().unwrap_or(ElectionEvent::LookFailed);
                    self.election.take(event, self.begun.elapsed());
                }
                ElectionStep::EndAtCheckpoint { .. } if !has_ended => {
                    has_ended = true;
                    tracing::info!(
                        "the generation ends at a checkpoint, so that a process that waits takes part"
                    );
                    end();
                }
                ElectionStep::Run { until: Some(until), .. } => {
                    self.hub.wait(until.saturating_sub(self.begun.elapsed()));
                }
                _ => self.hub.wait(super::hub::BEAT),
            }
        }
    }
}
