//! Several processes that do the work of one job, as `[cluster]` says.
//!
//! ```text
//! assemble.rs   looks for the others, until a generation starts
//! hub.rs        the links that others opened to this process
//! mesh.rs       the links over which workers exchange
//! results.rs    the workers' results on their way to the one publisher
//! again.rs      leaves a generation that was lost
//! status.rs     what people see of all that
//! ```
//! **Shared fate**: a generation goes on while all of its processes do. When one is lost, the others begin anew, find
//! each other, and go on from the last checkpoint.

mod again;
mod assemble;
mod hub;
mod mesh;
pub(super) mod results;
mod status;
mod told;

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use keytide_config::{Cluster, JobConfig, State};
use keytide_connectors::cluster::{LinkKind, MessageReader, Wire};
use keytide_connectors::live::{
    FollowMessage, JobEnd, JobFailure, LeadMessage, Live, LiveStart, NamedDecoders, ProcessPlace,
};
use keytide_connectors::store::Store;

pub use self::again::{leave_after_defect, leave_on_panic};
use self::assemble::{Assembly, GenerationPart};
use self::hub::{Candidate, Hub, heard};
pub(super) use self::mesh::Mesh;
pub use self::status::{ClusterStatus, ClusterView};
pub(super) use self::told::tell_to_end;
use super::{Clock, restore};

/// The part of this process in a generation.
pub(super) enum Role {
    Leads(Leader),
    Follows(Follower),
}

/// What a process knows of its generation, whether it leads or follows.
pub(super) struct Membership {
    pub(super) generation: u64,
    pub(super) place: ProcessPlace,
    pub(super) store: Arc<Store>,
    hub: Arc<Hub>,
    assembly: Mutex<Option<Assembly>>,
    addresses: Vec<String>,
    dead_after: Duration,
    /// True if the generation ends so that a spare takes part in the next one.
    ends_for_spare: AtomicBool,
}

/// The process with the coordinator and the publisher.
pub(super) struct Leader {
    pub(super) membership: Arc<Membership>,
    pub(super) nonce: u64,
    members: Vec<Candidate>,
}

/// A process that does what the one that leads says.
pub(super) struct Follower {
    pub(super) membership: Arc<Membership>,
    pub(super) start: Arc<LiveStart>,
    pub(super) messages: Sender<FollowMessage>,
    reader: MessageReader<Wire>,
}

/// Waits until a generation starts with this process.
///
/// # Errors
/// If the store or the address can't be used, or this process can't work together with the others.
pub(super) fn join(
    config: &JobConfig,
    cluster: &Cluster,
    state: &State,
    nonce: u64,
    (clock, view): (Clock, &ClusterView),
) -> anyhow::Result<Role> {
    told::note_signals().context("noting signals failed")?;
    view.waits_for("the state: it is opened".to_owned());
    let store = restore::open(state)?;
    let (lost, wait) = (again::lost(), again::wait());
    if !wait.is_zero() {
        view.waits_for(format!("{} s, since generations were lost before they published", wait.as_secs()));
        tracing::info!(
            s = wait.as_secs(),
            "waits before it looks for the others, as the last generations failed"
        );
        thread::park_timeout(wait);
    }
    let mut assembly = Assembly::open(config, cluster, Arc::clone(&store), nonce, lost, clock)?;
    let (hub, dead_after) = (Arc::clone(&assembly.hub), assembly.dead_after);
    let part = assembly.assemble(config, view)?;
    let membership = |generation, place: ProcessPlace, addresses: Vec<String>, mut assembly: Assembly| {
        view.starts(generation, place.process, addresses.clone());
        assembly.runs(generation, place.process, place.processes.get());
        again::runs(generation, place.process == 0);
        Arc::new(Membership {
            generation,
            place,
            store,
            hub,
            assembly: Mutex::new(Some(assembly)),
            addresses,
            dead_after,
            ends_for_spare: AtomicBool::new(false),
        })
    };
    Ok(match part {
        GenerationPart::Leads { generation, members } => {
            let own = std::iter::once(cluster.advertise.clone());
            let addresses: Vec<_> = own.chain(members.iter().map(|of| of.address.clone())).collect();
            let processes = NonZeroUsize::new(addresses.len()).unwrap_or(NonZeroUsize::MIN);
            tracing::info!(generation, processes, "leads the job");
            let place = ProcessPlace { process: 0, processes };
            Role::Leads(Leader {
                membership: membership(generation, place, addresses, assembly),
                nonce,
                members,
            })
        }
        GenerationPart::Follows { generation, start, link } => {
            let addresses = start.addresses.clone();
            let processes = NonZeroUsize::new(addresses.len()).unwrap_or(NonZeroUsize::MIN);
            let process = start.process;
            tracing::info!(generation, process, processes, "follows in the job");
            let place = ProcessPlace { process, processes };
            let membership = membership(generation, place, addresses, assembly);
            Role::Follows(Follower { membership, start, messages: link.messages, reader: link.reader })
        }
    })
}

impl Membership {
    /// Leaves a generation that was lost.
    pub(super) fn leave(&self, reason: &str) -> ! {
        again::begin_anew(self.generation, reason)
    }

    /// Ends the job in all other processes.
    pub(super) fn finish(&self, end: &JobEnd) {
        again::ends();
        self.hub.finish(end);
    }

    /// Notes that the generation is lost. The thread that watches leaves it.
    pub(super) fn lose(&self, reason: String) {
        self.hub.lose_generation(reason);
    }

    /// Opens the links for data. Leaves the generation if it is lost meanwhile.
    ///
    /// # Errors
    /// If the job has ended meanwhile.
    pub(super) fn mesh(&self) -> anyhow::Result<Mesh> {
        let assembly = self.assembly.lock().unwrap_or_else(PoisonError::into_inner);
        let found = assembly.as_ref().map(|assembly| {
            let caller = assembly.caller(self.generation, self.place.process);
            Mesh::connect(&self.hub, caller, self.place, &self.addresses, self.dead_after)
        });
        match found {
            Some(found) => self.found(found),
            None => unreachable!("links are opened before the generation is watched"),
        }
    }

    /// Leaves the generation if a link isn't there and the job has not ended.
    fn found<T>(&self, link: Result<T, String>) -> anyhow::Result<T> {
        link.map_err(|reason| match self.hub.is_done() {
            true => anyhow::anyhow!("the job ended while this process started: {reason}"),
            false => self.leave(&reason),
        })
    }

    /// Opens the link for results to the leader. Leaves the generation if it is lost meanwhile.
    ///
    /// # Errors
    /// If the job has ended meanwhile.
    pub(super) fn results_to_leader(&self) -> anyhow::Result<Wire> {
        let assembly = self.assembly.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(assembly) = assembly.as_ref() else {
            unreachable!("links are opened before the generation is watched")
        };
        let caller = assembly.caller(self.generation, self.place.process);
        self.found(mesh::reach(&self.hub, &self.addresses[0], caller, (LinkKind::Results, 0)))
    }

    /// Starts the thread that leaves the generation when it is lost or when `hangs` says what hangs in this process, and
    /// ends it for a spare.
    pub(super) fn watch(
        self: &Arc<Self>,
        live: &Arc<Live>,
        hangs: impl Fn() -> Option<String> + Send + 'static,
    ) -> std::io::Result<()> {
        let assembly = self.assembly.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(assembly) = assembly else { return Ok(()) };
        again::reads(live);
        let (this, live) = (Arc::clone(self), Arc::clone(live));
        let members = self.place.processes.get();
        let end = move || {
            this.ends_for_spare.store(true, Ordering::Release);
            live.hand_over();
        };
        let generation = self.generation;
        thread::Builder::new()
            .name("cluster".to_owned())
            .spawn(move || assembly.watch(generation, members, hangs, end))
            .map(drop)
    }
}

impl Leader {
    /// Tells the followers with what they start, and makes them followers of `live`. `start` is that of all of them.
    pub(super) fn announce(&self, live: &Arc<Live>, start: &LiveStart) {
        // Before they hear of it, so that nothing they say is lost.
        live.lead(self.members.iter().map(|member| member.messages.clone()).collect());
        self.membership.hub.start(&self.members, live);
        let addresses = &self.membership.addresses;
        for (process, member) in (1..).zip(&self.members) {
            let start =
                LiveStart { process, addresses: addresses.clone(), nonce: self.nonce, ..start.clone() };
            for message in start.messages() {
                let _ = member.messages.send(message);
            }
        }
    }

    /// Waits for the links for results of all followers. Leaves the generation if it is lost meanwhile.
    ///
    /// # Errors
    /// If the job has ended meanwhile.
    pub(super) fn results(&self) -> anyhow::Result<Vec<Wire>> {
        let Membership { hub, place, generation, .. } = &*self.membership;
        let found = hub.links(LinkKind::Results, *generation, 1..place.processes.get(), mesh::START_FOR);
        self.membership.found(found)
    }

    /// Ends the generation after the job. Begins anew if that was for a spare.
    pub(super) fn end(self, live: &Live, failure: Option<JobFailure>) {
        let membership = self.membership;
        let is_for_spare = membership.ends_for_spare.load(Ordering::Acquire);
        let again = is_for_spare && failure.is_none() && !live.is_told_to_end();
        membership.finish(&JobEnd { failure, again });
        if again {
            membership.leave("a process that waited takes part in the next generation");
        }
    }
}

impl Follower {
    /// Starts the threads of the link to the leader: one does what comes, the other reports.
    pub(super) fn obey(
        self,
        live: &Arc<Live>,
        decoders: impl Fn(&str) -> Option<NamedDecoders> + Send + 'static,
    ) -> std::io::Result<thread::JoinHandle<()>> {
        let Self { membership, messages, mut reader, .. } = self;
        {
            let live = Arc::clone(live);
            thread::Builder::new().name("link-leader".to_owned()).spawn(move || {
                loop {
                    let obeyed = heard::<LeadMessage>(&mut reader)
                        .and_then(|message| live.obey(message, &decoders).map_err(|fault| fault.to_string()));
                    match obeyed {
                        Ok(()) if live.is_done() => {
                            again::ends();
                            return membership.hub.end();
                        }
                        Ok(()) => {}
                        Err(reason) => {
                            return membership.lose(format!("the link to the leader is lost: {reason}"));
                        }
                    }
                }
            })?;
        }
        let live = Arc::clone(live);
        thread::Builder::new().name("report".to_owned()).spawn(move || {
            while let Some(message) = live.report(hub::BEAT) {
                // The thread that reads the link finds its end.
                let _ = messages.send(message);
            }
            // A link that is closed before the leader is done is a loss to it.
            let _ = live.wait_until_done();
        })
    }
}
