//! The links of this process to others, and what they say before a generation starts.
//!
//! ```text
//! Door ── Guest ──► guests ──► control links: a thread each that reads, and one that writes
//!                         └──► links for results and data, until the generation that starts takes them
//! ```
//! A process that waits counts once this one has reached it at its address, as all members of a generation need links to
//! each other.
//!
//! **A control link is lost** when it is closed or nothing came over it for `dead_after`. Both sides send a beat each
//! second. If its process is a member of the generation that runs, the generation is lost. Else there is one spare less.

use std::io;
use std::net::Shutdown;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use keytide_connectors::cluster::{Guest, Heard, LinkKind, MessageError, MessageReader, MessageWriter, Wire};
use keytide_connectors::live::{FollowMessage, JobEnd, LeadMessage, Live};
use serde::Serialize;

/// How often a side of a link that has nothing to say sends a beat.
pub(super) const BEAT: Duration = Duration::from_secs(1);

/// Finds out whether a process can be reached at an address, and why not.
type Knock = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// The links that other processes opened to this one.
pub(super) struct Hub {
    dead_after: Duration,
    knock: Knock,
    state: Mutex<HubState>,
    changed: Condvar,
}

#[derive(Default)]
struct HubState {
    next_id: u64,
    controls: Vec<ControlLink>,
    /// The links for results and data that nobody took.
    others: Vec<Guest>,
    /// Why the generation that runs is lost, once it is.
    loss: Option<String>,
    /// True once the job is done. Then links may end.
    is_done: bool,
}

/// A link to a process that follows this one or waits.
struct ControlLink {
    id: u64,
    generation: u64,
    messages: Sender<LeadMessage>,
    writer: JoinHandle<()>,
    /// Where others reach the process, once it has said so and this one has reached it there.
    address: Option<String>,
    /// The input of the job and the number of the process, once it is a member.
    member: Option<(Arc<Live>, usize)>,
}

/// A process with which a generation starts.
pub(super) struct Candidate {
    pub(super) id: u64,
    pub(super) address: String,
    pub(super) messages: Sender<LeadMessage>,
}

impl Hub {
    pub(super) fn new(dead_after: Duration, knock: Knock) -> Arc<Self> {
        Arc::new(Self { dead_after, knock, state: Mutex::default(), changed: Condvar::new() })
    }

    /// Returns how long another process may be silent before it counts as lost.
    pub(super) fn dead_after(&self) -> Duration {
        self.dead_after
    }

    fn state(&self) -> MutexGuard<'_, HubState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes links until the door is closed.
    pub(super) fn receive(self: &Arc<Self>, guests: &Receiver<Guest>) {
        for guest in guests {
            match guest.hello.kind {
                LinkKind::Control => {
                    if let Err(error) = self.take_control(&guest) {
                        tracing::warn!("a link of another process can't be taken: {error}");
                    }
                }
                LinkKind::Results | LinkKind::Data => self.state().others.push(guest),
            }
            self.changed.notify_all();
        }
    }

    /// Starts the threads of a control link.
    fn take_control(self: &Arc<Self>, guest: &Guest) -> io::Result<()> {
        let (messages, to_send) = channel();
        let (read, write) = halves(&guest.wire, self.dead_after)?;
        let writer = thread::Builder::new().name("link-out".to_owned()).spawn(move || {
            // A link that fails is found by the thread that reads it.
            let _ = send(write, &to_send, LeadMessage::Beat, |sent| matches!(sent, LeadMessage::Done(_)));
        })?;
        let mut state = self.state();
        state.next_id += 1;
        let id = state.next_id;
        let generation = guest.hello.generation;
        state.controls.push(ControlLink { id, generation, messages, writer, address: None, member: None });
        drop(state);
        let hub = Arc::clone(self);
        thread::Builder::new().name("link-in".to_owned()).spawn(move || {
            let reason = hub.hear(id, &mut MessageReader::new(read));
            hub.lose(id, &reason);
        })?;
        Ok(())
    }

    /// Takes the messages of a link, and returns why it ended.
    fn hear(&self, id: u64, from: &mut MessageReader<Wire>) -> String {
        // What it says of itself, until it was reached there. Each beat is another attempt.
        let (mut unreached, mut is_told) = (None, false);
        loop {
            let message = match heard(from) {
                Ok(message) => message,
                Err(reason) => return reason,
            };
            if let FollowMessage::Address(address) = &message {
                unreached = Some(address.clone());
            }
            let found = unreached.as_ref().map(|address| (self.knock)(address));
            let mut state = self.state();
            let Some(link) = state.controls.iter_mut().find(|link| link.id == id) else {
                return "it was closed here".to_owned();
            };
            match found {
                Some(Ok(())) => {
                    link.address = unreached.take();
                    if let Some(address) = link.address.clone().filter(|_| is_told) {
                        let _ = link.messages.send(LeadMessage::Reached { address, failure: None });
                    }
                    self.changed.notify_all();
                }
                Some(Err(reason)) if !is_told => {
                    is_told = true;
                    let address = unreached.clone().unwrap_or_default();
                    tracing::warn!(
                        "a process that waits can't be reached at {address}, and takes no part until then: {reason}"
                    );
                    let _ = link.messages.send(LeadMessage::Reached { address, failure: Some(reason) });
                }
                Some(Err(_)) | None => {}
            }
            let Some((live, process)) = link.member.clone() else { continue };
            // The job may need the hub's lock while it holds its own.
            drop(state);
            if let Err(fault) = live.hear(process, message) {
                return fault.to_string();
            }
        }
    }

    /// Forgets a link that ended.
    fn lose(&self, id: u64, reason: &str) {
        let mut state = self.state();
        let Some(at) = state.controls.iter().position(|link| link.id == id) else { return };
        let link = state.controls.remove(at);
        if let Some((_, process)) = link.member.filter(|_| !state.is_done) {
            state.loss.get_or_insert_with(|| format!("the link to process {process} is lost: {reason}"));
        }
        self.changed.notify_all();
    }

    /// Notes that something without which the generation can't go on is lost.
    pub(super) fn lose_generation(&self, reason: String) {
        let mut state = self.state();
        if !state.is_done {
            state.loss.get_or_insert(reason);
        }
        self.changed.notify_all();
    }

    /// Returns why the generation is lost, if it is.
    pub(super) fn loss(&self) -> Option<String> {
        self.state().loss.clone()
    }

    /// Notes that the job is done, so that links may end from now on.
    pub(super) fn end(&self) {
        self.state().is_done = true;
        self.changed.notify_all();
    }

    /// Tells all processes with a control link, those that wait included, how the job ended. Returns once they are told, or
    /// can't be.
    pub(super) fn finish(&self, end: &JobEnd) {
        self.end();
        let links = std::mem::take(&mut self.state().controls);
        for link in &links {
            let _ = link.messages.send(LeadMessage::Done(end.clone()));
        }
        for link in links {
            let _ = link.writer.join();
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.state().is_done
    }

    /// Closes control links that are of other generations than the one that this process hosts, if it hosts one.
    pub(super) fn keep_only(&self, generation: Option<u64>) {
        // Dropping the sender ends the thread that writes, which closes its half. The other process closes the rest.
        self.state().controls.retain(|link| Some(link.generation) == generation || link.member.is_some());
    }

    /// Returns how many processes have a link and are no members, and have said where others reach them.
    pub(super) fn waiting(&self) -> usize {
        let state = self.state();
        let waits = |link: &&ControlLink| link.member.is_none() && link.address.is_some();
        state.controls.iter().filter(waits).count()
    }

    /// Returns the processes that came first, at most so many.
    pub(super) fn candidates(&self, most: usize) -> Vec<Candidate> {
        let state = self.state();
        let candidate = |link: &ControlLink| {
            let ControlLink { id, messages, address, .. } = link;
            Some(Candidate { id: *id, address: address.clone()?, messages: messages.clone() })
        };
        state.controls.iter().filter_map(candidate).take(most).collect()
    }

    /// Makes processes members of the job. Their numbers count from 1.
    pub(super) fn start(&self, candidates: &[Candidate], live: &Arc<Live>) {
        let mut state = self.state();
        for (process, candidate) in (1..).zip(candidates) {
            match state.controls.iter_mut().find(|link| link.id == candidate.id) {
                Some(link) => link.member = Some((Arc::clone(live), process)),
                None => {
                    let reason = format!("process {process} went away while the generation started");
                    state.loss.get_or_insert(reason);
                }
            }
        }
        self.changed.notify_all();
    }

    /// Waits for a change, for at most `most`.
    pub(super) fn wait(&self, most: Duration) {
        let state = self.state();
        drop(self.changed.wait_timeout(state, most).unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits for the links of a kind from processes of a generation, for at most `most`, and returns them in the order of
    /// `processes`.
    ///
    /// # Errors
    /// With what is missing, if one doesn't come in time.
    pub(super) fn links(
        &self,
        kind: LinkKind,
        generation: u64,
        processes: std::ops::Range<usize>,
        most: Duration,
    ) -> Result<Vec<Wire>, String> {
        let until = Instant::now() + most;
        let mut found: Vec<Option<Wire>> = processes.clone().map(|_| None).collect();
        let mut state = self.state();
        loop {
            let of_kind = state.others.extract_if(.., |guest| guest.hello.kind == kind);
            for Guest { wire, hello, .. } in of_kind {
                let index = hello.index.map(usize::from).filter(|index| processes.contains(index));
                // A process that tried again has a newer one. Those of other generations are closed by this.
                if let Some(index) = index.filter(|_| hello.generation == generation) {
                    found[index - processes.start] = Some(wire);
                }
            }
            let Some(missing) = found.iter().position(Option::is_none) else {
                return Ok(found.into_iter().flatten().collect());
            };
            let left = until.saturating_duration_since(Instant::now());
            if let Some(reason) = state.loss.clone() {
                return Err(reason);
            }
            if left.is_zero() || state.is_done {
                let process = processes.start + missing;
                return Err(format!("process {process} opened no link for {} in time", kind.name()));
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// Returns two handles of a link with time limits: of silence, and for writes that nobody takes.
pub(super) fn halves(wire: &Wire, dead_after: Duration) -> io::Result<(Wire, Wire)> {
    wire.set_timeouts(Some(dead_after))?;
    Ok((wire.try_clone()?, wire.try_clone()?))
}

/// Returns the next message of a link, or why there is none.
pub(super) fn heard<T: serde::de::DeserializeOwned>(from: &mut MessageReader<Wire>) -> Result<T, String> {
    match from.read() {
        Ok(Heard::Message(message)) => Ok(message),
        Ok(Heard::Silence) => Err("nothing came over it for cluster.dead_after".to_owned()),
        Ok(Heard::End) => Err("the other process closed it".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Sends messages until the last one, or until there can be no more, and beats meanwhile. Then it closes the link.
///
/// # Errors
/// If the link fails.
pub(super) fn send<T: Serialize>(
    wire: Wire,
    messages: &Receiver<T>,
    beat: T,
    is_last: impl Fn(&T) -> bool,
) -> Result<(), MessageError> {
    let closing = wire.try_clone();
    let mut writer = MessageWriter::new(wire);
    let result = loop {
        let message = match messages.recv_timeout(BEAT) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => break Ok(()),
        };
        let message = message.as_ref().unwrap_or(&beat);
        let sent = writer.write(message);
        match &sent {
            Ok(()) if is_last(message) => break Ok(()),
            Ok(()) => {}
            Err(error @ MessageError::TooLong) => {
                tracing::error!("a link to another process ends: {error}");
                break sent;
            }
            Err(error) => {
                tracing::debug!("a link to another process can't be written: {error}");
                break sent;
            }
        }
    };
    if let Ok(wire) = closing {
        let _ = wire.shutdown(Shutdown::Write);
    }
    result
}
