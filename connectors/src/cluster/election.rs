//! Decides which process leads the next generation, without I/O and without a clock: events come in, steps go out.
//!
//! ```text
//!            ┌──────────── it failed, or no answer ──────────┐
//!            ▼                                               │
//!  ┌─────► Look ──► another's claim ──► Ask ──► accepted ──► Follow ──► its generation starts
//!  │         │                           │ nothing there ───────┐
//!  │         │ none, or of a generation  │ no answer ─► ReadTick ─► old enough
//!  │         │ that this process lost    ▼                      │
//!  │         ├──────────────────────► Put the next one ◄────────┘
//!  │         │ our claim                 │
//!  │         ▼                           │
//!  │       Gather ──► Look ──► Lead      │
//!  │         │ a newer claim             │
//!  └─────────┴─────────────────────────────┘ always looks again
//! ```
//! **Why there is one leader, and in the end there is one.**
//! 1. A claim is an object that is written if it isn't there, so a generation has one claim at most.
//! 2. A process leads only a generation whose claim is its own. Its last look, right before, must find that claim to
//!    be the newest. The answer to a write is never believed: it may be lost, or be for a number that was cleaned up. A
//!    process that stops just there and goes on later isn't found here; the ledger's fence ends one of the two.
//! 3. A generation is numbered above the newest claim. The newest claim is never deleted, so numbers grow.
//! 4. The leader is gone if nothing listens at its address, or a process that doesn't lead that generation. Then the
//!    next claim follows at once.
//! 5. No answer is no proof. A leader that has committed ticks is gone only if the newest tick is older than
//!    `dead_after`. So a process that can't reach it doesn't end a job that runs.
//! 6. A leader that hasn't committed yet may be waiting for others, or restoring. It has `settle` and `dead_after`
//!    together, from the first vain attempt on. So it has the time to start. From then on a claim of a process that
//!    can't reach it does no harm, until that process has enough members.
//! 7. A leader that gathers and finds a newer claim yields to it.
//! 8. Members of a generation that was lost never ask for it again. Its leader may be frozen, and its machine would still
//!    take their connections.
//! 9. A generation that began short ends for a spare. A process may put a claim although an older generation runs, if
//!    the newest claim's process is gone. It counts as a spare: the leader of a short generation looks for such claims.
//!
//! 10. Processes that can't reach each other claim over each other. Whose claims were claimed over twice in a row waits before
//!     the next one: 1 s, 2 s, 4 s, and so on up to 30 s. It asks each second meanwhile. One that is accepted begins at 0.
//!
//! **Limits**: looks at the newest claim come every second, and every 30 s while a short generation runs. A generation that
//! began short ends for a spare after 5 min, never before.

use std::time::Duration;

/// How often a process that waits looks for the newest claim.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the leader of a short generation looks for claims of processes that didn't find it.
const LOOK_WHEN_SHORT: Duration = Duration::from_secs(30);
/// How long a generation that began short runs, at least, before it ends for a spare.
pub const SHORT_FOR: Duration = Duration::from_secs(300);
/// So many claims in a row that were claimed over cost no wait.
const QUICK_CLAIMS: u32 = 1;
/// The longest wait before the next claim.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The rules that the model leaves out one by one. All of them hold outside of tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ElectionRules {
    /// The newest claim is read right before a generation starts.
    pub(super) looks_before_lead: bool,
    /// A generation that this process lost isn't asked for again.
    pub(super) avoids_lost: bool,
    /// No answer leads to a claim only if the newest tick is old.
    pub(super) heeds_ticks: bool,
    /// A leader that hasn't committed has time to do so.
    pub(super) is_patient: bool,
    /// A leader that gathers yields to a newer claim.
    pub(super) yields: bool,
    /// A generation doesn't start with too few processes.
    pub(super) waits_for_least: bool,
    /// A generation doesn't start short before `settle` is over.
    pub(super) waits_for_all: bool,
    /// A generation that began short ends for a spare.
    pub(super) ends_short: bool,
    /// It does so only after [`SHORT_FOR`].
    pub(super) ends_short_late: bool,
}

impl ElectionRules {
    pub(super) const ALL: Self = Self {
        looks_before_lead: true,
        avoids_lost: true,
        heeds_ticks: true,
        is_patient: true,
        yields: true,
        waits_for_least: true,
        waits_for_all: true,
        ends_short: true,
        ends_short_late: true,
    };
}

/// The settings of an election, which all processes of a job share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ElectionTerms {
    /// The number of processes with which a generation starts at once, at least 1.
    pub processes: usize,
    /// The number of processes with which it starts after `settle`, from 1 to `processes`.
    pub min_processes: usize,
    pub settle: Duration,
    pub dead_after: Duration,
}

/// The newest claim, as far as decisions need it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SeenClaim {
    pub generation: u64,
    /// The nonce and the address of the process that put it; `None` if its object is damaged.
    pub by: Option<(u64, String)>,
}

/// The outcome of an attempt to connect to a claim's address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AskAnswer {
    /// The handshake is done, and the control link stands.
    Accepted,
    /// Nothing listens there, or it doesn't lead that generation.
    Gone,
    /// It isn't known if the leader is there.
    NoAnswer,
    /// Both sides must not work together: another configuration, program, size or secret.
    Differs,
}

/// The newest tick of the job's ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NewestTick {
    /// The ledger can't be read now.
    Unknown,
    /// The job has committed no tick.
    Absent,
    Committed {
        /// How long ago it was committed.
        age: Duration,
        /// The nonce of the life that committed it.
        nonce: u64,
    },
}

/// Something that a process has to hear of. Most are the outcomes of steps.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ElectionEvent {
    /// The answer to [`ElectionStep::Look`]; `None` if there is no claim.
    Looked(Option<SeenClaim>),
    /// The store couldn't be read.
    LookFailed,
    /// A claim was written, or wasn't: the next look finds out.
    Put,
    Asked(AskAnswer),
    /// The answer to [`ElectionStep::ReadTick`].
    Tick(NewestTick),
    /// To be said whenever it changes. The number of processes with a control link to this one, which leads. Those that came after the start are
    /// spares, and this process is a member.
    Present {
        members: usize,
        spares: usize,
    },
    /// The leader started its generation with this process.
    Started,
    /// The control link to the leader is closed, or silent for `dead_after`.
    LinkLost,
    /// The generation that this process takes part in is over: it was lost, fenced, or ended for a spare.
    GenerationOver,
}

/// The next thing to do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ElectionStep {
    /// Read the newest claim in the store.
    Look,
    /// Write the claim of a generation, unless there is one.
    Put { generation: u64 },
    /// Open a control link to the process that claimed a generation.
    Ask { generation: u64, address: String },
    /// Read the newest tick of the ledger.
    ReadTick,
    /// Do nothing until then, or until an event. The time is on the caller's clock.
    Rest { until: Duration },
    /// Wait for members of this generation, which this process leads, until then or until an event.
    Gather { generation: u64, until: Duration },
    /// Start this generation with the members that are here. It is due once.
    Lead { generation: u64, members: usize },
    /// Do what the leader of this generation says, until an event.
    Follow { generation: u64 },
    /// Go on with the generation that started, until an event or until then.
    Run { generation: u64, until: Option<Duration> },
    /// End the generation at its next checkpoint, so that a spare becomes a member.
    EndAtCheckpoint { generation: u64 },
    /// Begin this process anew, which must not ask for generations up to `lost`.
    BeginAnew { lost: u64 },
    /// End this process: the error of the last connection says why.
    Exit,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum ElectionState {
    Looking,
    Resting { until: Duration },
    Putting { generation: u64 },
    Asking { claim: SeenClaim, address: String },
    ReadingTick { claim: SeenClaim },
    Gathering(Gathered),
    Starting { generation: u64, members: usize },
    Following { generation: u64 },
    Leading(Leading),
    Running { generation: u64 },
    Over { lost: u64 },
    Refused,
}

/// The state of a leader that waits for members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Gathered {
    generation: u64,
    since: Duration,
    looked: Duration,
    /// True if the last look failed. Then the next one isn't due before its time.
    has_failed: bool,
}

/// The state of a leader whose generation runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Leading {
    generation: u64,
    since: Duration,
    members: usize,
    spares: usize,
    /// True if a process that found no leader claimed a newer generation.
    is_claimed_over: bool,
    looked: Duration,
}

impl Leading {
    fn new(generation: u64, members: usize, now: Duration) -> Self {
        Self { generation, since: now, members, spares: 0, is_claimed_over: false, looked: now }
    }
}

/// One process's part in the choice of the next leader. Times are durations since any fixed instant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Election {
    terms: ElectionTerms,
    rules: ElectionRules,
    nonce: u64,
    /// The newest generation that this process lost, and 0 if there is none.
    lost: u64,
    hosts: Option<u64>,
    /// The number of processes that are here for the generation that it hosts, with this one.
    members: usize,
    /// The claim whose address doesn't answer, and since when.
    silence: Option<(u64, Duration)>,
    /// The claim whose process is gone, and since when.
    gone: Option<(u64, Duration)>,
    /// How many of this process's claims in a row were claimed over. It grows up to where the wait is the longest.
    overtaken: u32,
    state: ElectionState,
}

impl Election {
    /// Returns the state of a process that begins. `nonce` tells its claims from all others. `lost` is what
    /// [`ElectionStep::BeginAnew`] said, and 0 at a first start.
    #[must_use]
    pub fn new(terms: ElectionTerms, nonce: u64, lost: u64) -> Self {
        Self::with_rules(terms, nonce, lost, ElectionRules::ALL)
    }

    pub(super) fn with_rules(terms: ElectionTerms, nonce: u64, lost: u64, rules: ElectionRules) -> Self {
        let state = ElectionState::Looking;
        Self {
            terms,
            rules,
            nonce,
            lost,
            hosts: None,
            members: 1,
            silence: None,
            gone: None,
            overtaken: 0,
            state,
        }
    }

    /// Returns the next step. Its outcome goes to [`take`](Self::take).
    #[must_use]
    pub fn step(&self, now: Duration) -> ElectionStep {
        match &self.state {
            ElectionState::Resting { until } if now < *until => ElectionStep::Rest { until: *until },
            ElectionState::Looking | ElectionState::Resting { .. } => ElectionStep::Look,
            ElectionState::Putting { generation } => ElectionStep::Put { generation: *generation },
            ElectionState::Asking { claim, address } => {
                ElectionStep::Ask { generation: claim.generation, address: address.clone() }
            }
            ElectionState::ReadingTick { .. } => ElectionStep::ReadTick,
            ElectionState::Gathering(gathered) => self.gather(*gathered, now),
            ElectionState::Starting { generation, members } => {
                ElectionStep::Lead { generation: *generation, members: *members }
            }
            ElectionState::Following { generation } => ElectionStep::Follow { generation: *generation },
            ElectionState::Leading(leading) => self.lead(*leading, now),
            ElectionState::Running { generation } => {
                ElectionStep::Run { generation: *generation, until: None }
            }
            ElectionState::Over { lost } => ElectionStep::BeginAnew { lost: *lost },
            ElectionState::Refused => ElectionStep::Exit,
        }
    }

    /// Returns the generation whose control links this process takes. It is so from the step on that puts the claim, since
    /// others may read the claim before this process does. Before each step, the door must be set to it, and control
    /// links of other generations must be closed.
    #[must_use]
    pub fn hosts(&self) -> Option<u64> {
        self.hosts
    }

    /// The step of a leader that waits for members.
    fn gather(&self, gathered: Gathered, now: Duration) -> ElectionStep {
        let Gathered { generation, since, looked, has_failed } = gathered;
        if self.is_ready(gathered, now) && !has_failed {
            return if self.rules.looks_before_lead {
                ElectionStep::Look
            } else {
                ElectionStep::Lead { generation, members: self.members }
            };
        }
        let next_look = looked + LOOK_EVERY;
        if now >= next_look {
            return ElectionStep::Look;
        }
        let settled = since + self.terms.settle;
        let until = if now < settled && !has_failed { next_look.min(settled) } else { next_look };
        ElectionStep::Gather { generation, until }
    }

    /// The step of a leader whose generation runs.
    fn lead(&self, leading: Leading, now: Duration) -> ElectionStep {
        let Leading { generation, since, members, spares, is_claimed_over, looked } = leading;
        if members >= self.terms.processes {
            return ElectionStep::Run { generation, until: None };
        }
        let has_spare = (spares > 0 || is_claimed_over) && self.rules.ends_short;
        let earliest = since + if self.rules.ends_short_late { SHORT_FOR } else { Duration::ZERO };
        let next_look = looked + LOOK_WHEN_SHORT;
        if has_spare && now >= earliest {
            ElectionStep::EndAtCheckpoint { generation }
        } else if now >= next_look {
            ElectionStep::Look
        } else {
            let until = if has_spare { next_look.min(earliest) } else { next_look };
            ElectionStep::Run { generation, until: Some(until) }
        }
    }

    fn is_ready(&self, gathered: Gathered, now: Duration) -> bool {
        let members = self.members;
        let ElectionTerms { processes, min_processes, settle, .. } = self.terms;
        let is_settled = now >= gathered.since + settle || !self.rules.waits_for_all;
        let is_enough = members >= min_processes || !self.rules.waits_for_least;
        members >= processes || is_settled && is_enough
    }

    /// Takes an event. One that doesn't fit the state came too late, and changes nothing.
    pub fn take(&mut self, event: ElectionEvent, now: Duration) {
        if let ElectionEvent::Present { members, spares } = event
            && !matches!(self.state, ElectionState::Starting { .. } | ElectionState::Leading(_))
        {
            // Links may come before the look that finds the own claim.
            self.members = members + spares;
            return;
        }
        let state = std::mem::replace(&mut self.state, ElectionState::Looking);
        self.state = match (state, event) {
            (ElectionState::Looking | ElectionState::Resting { .. }, ElectionEvent::Looked(newest)) => {
                self.judge(newest, now)
            }
            (ElectionState::Looking | ElectionState::Resting { .. }, ElectionEvent::LookFailed) => {
                ElectionState::Resting { until: now + LOOK_EVERY }
            }
            (ElectionState::Putting { .. }, ElectionEvent::Put) => ElectionState::Looking,
            (ElectionState::Asking { claim, .. }, ElectionEvent::Asked(answer)) => {
                self.asked(claim, answer, now)
            }
            (ElectionState::ReadingTick { claim }, ElectionEvent::Tick(tick)) => self.heed(claim, tick, now),
            (ElectionState::Gathering(gathered), ElectionEvent::Looked(newest)) => {
                self.judge_as_leader(gathered, newest, now)
            }
            (ElectionState::Gathering(gathered), ElectionEvent::LookFailed) => {
                ElectionState::Gathering(Gathered { looked: now, has_failed: true, ..gathered })
            }
            (ElectionState::Leading(leading), ElectionEvent::Present { spares, .. }) => {
                ElectionState::Leading(Leading { spares, ..leading })
            }
            (ElectionState::Leading(leading), ElectionEvent::Looked(newest)) => {
                let is_claimed_over = newest.is_some_and(|claim| claim.generation > leading.generation);
                ElectionState::Leading(Leading { is_claimed_over, looked: now, ..leading })
            }
            (ElectionState::Leading(leading), ElectionEvent::LookFailed) => {
                ElectionState::Leading(Leading { looked: now, ..leading })
            }
            // The step was done, as another event can only come after it.
            (ElectionState::Starting { generation, members }, ElectionEvent::Started) => {
                ElectionState::Leading(Leading::new(generation, members, now))
            }
            (ElectionState::Gathering(gathered), ElectionEvent::Started) if !self.rules.looks_before_lead => {
                ElectionState::Leading(Leading::new(gathered.generation, self.members, now))
            }
            (ElectionState::Following { generation }, ElectionEvent::Started) => {
                ElectionState::Running { generation }
            }
            // It is asked again: only a member knows that the generation is lost.
            (ElectionState::Following { .. }, ElectionEvent::LinkLost) => ElectionState::Looking,
            (
                ElectionState::Starting { generation, .. }
                | ElectionState::Leading(Leading { generation, .. })
                | ElectionState::Running { generation },
                ElectionEvent::LinkLost | ElectionEvent::GenerationOver,
            ) => {
                self.hosts = None;
                ElectionState::Over { lost: generation }
            }
            (state, _) => state,
        };
    }

    /// Decides what the newest claim means for a process without a part in a generation.
    fn judge(&mut self, newest: Option<SeenClaim>, now: Duration) -> ElectionState {
        let Some(claim) = newest else { return self.claim(self.lost + 1) };
        let generation = claim.generation;
        match &claim.by {
            Some((nonce, _)) if *nonce == self.nonce => {
                self.silence = None;
                let (since, looked) = (now, now);
                let gathered = Gathered { generation, since, looked, has_failed: false };
                ElectionState::Gathering(gathered)
            }
            Some((_, address)) if generation > self.lost || !self.rules.avoids_lost => {
                let address = address.clone();
                self.hosts = None;
                ElectionState::Asking { claim, address }
            }
            _ => self.claim(generation.max(self.lost) + 1),
        }
    }

    fn claim(&mut self, generation: u64) -> ElectionState {
        (self.hosts, self.members) = (Some(generation), 1);
        ElectionState::Putting { generation }
    }

    fn judge_as_leader(
        &mut self,
        gathered: Gathered,
        newest: Option<SeenClaim>,
        now: Duration,
    ) -> ElectionState {
        let Gathered { generation, .. } = gathered;
        let is_ours = newest.as_ref().is_some_and(|claim| {
            let is_by_us = claim.by.as_ref().is_some_and(|(nonce, _)| *nonce == self.nonce);
            claim.generation == generation && is_by_us
        });
        if !is_ours && self.rules.yields {
            self.overtaken = (self.overtaken + 1).min(QUICK_CLAIMS + 6);
            return self.judge(newest, now);
        }
        let gathered = Gathered { looked: now, has_failed: false, ..gathered };
        if self.is_ready(gathered, now) {
            return ElectionState::Starting { generation, members: self.members };
        }
        ElectionState::Gathering(gathered)
    }

    fn asked(&mut self, claim: SeenClaim, answer: AskAnswer, now: Duration) -> ElectionState {
        let generation = claim.generation;
        if answer != AskAnswer::NoAnswer {
            self.silence = None;
        }
        match answer {
            AskAnswer::Accepted => {
                self.overtaken = 0;
                ElectionState::Following { generation }
            }
            AskAnswer::Gone => {
                let since = self.gone.filter(|(of, _)| *of == generation).map_or(now, |(_, since)| since);
                self.gone = Some((generation, since));
                let due = since + wait_after(self.overtaken);
                if now < due {
                    return ElectionState::Resting { until: due.min(now + LOOK_EVERY) };
                }
                self.claim(generation + 1)
            }
            AskAnswer::Differs => ElectionState::Refused,
            AskAnswer::NoAnswer => {
                if self.silence.is_none_or(|(of, _)| of != generation) {
                    self.silence = Some((generation, now));
                }
                ElectionState::ReadingTick { claim }
            }
        }
    }

    /// Decides if a process that doesn't answer is gone.
    fn heed(&mut self, claim: SeenClaim, tick: NewestTick, now: Duration) -> ElectionState {
        let silent_for = self.silence.map_or(Duration::ZERO, |(_, since)| now.saturating_sub(since));
        let has_patience = self.rules.is_patient && silent_for < self.terms.settle + self.terms.dead_after;
        let may_live = match tick {
            NewestTick::Unknown => true,
            NewestTick::Absent => has_patience,
            NewestTick::Committed { age, .. } if age <= self.terms.dead_after => true,
            NewestTick::Committed { nonce, .. } => {
                let is_its_own = claim.by.as_ref().is_some_and(|(by, _)| *by == nonce);
                !is_its_own && has_patience
            }
        };
        if may_live && self.rules.heeds_ticks {
            return ElectionState::Resting { until: now + LOOK_EVERY };
        }
        self.silence = None;
        self.claim(claim.generation + 1)
    }
}

/// Returns how long to wait before the next claim, after so many in a row that were claimed over.
fn wait_after(overtaken: u32) -> Duration {
    match overtaken.saturating_sub(QUICK_CLAIMS) {
        0 => Duration::ZERO,
        waits => Duration::from_secs(1 << (waits - 1).min(5)).min(LONGEST_WAIT),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: ElectionTerms = ElectionTerms {
        processes: 3,
        min_processes: 2,
        settle: Duration::from_secs(10),
        dead_after: Duration::from_secs(8),
    };

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn claim(generation: u64, nonce: u64) -> SeenClaim {
        SeenClaim { generation, by: Some((nonce, format!("{nonce}:1"))) }
    }

    /// A process with nonce 1, after events at their times.
    fn after(lost: u64, events: &[(ElectionEvent, u64)]) -> Election {
        let mut election = Election::new(TERMS, 1, lost);
        events.iter().for_each(|(event, ms)| election.take(event.clone(), at(*ms)));
        election
    }

    fn looked(generation: u64, nonce: u64) -> ElectionEvent {
        ElectionEvent::Looked(Some(claim(generation, nonce)))
    }

    fn present(members: usize) -> ElectionEvent {
        ElectionEvent::Present { members, spares: 0 }
    }

    #[test]
    fn the_first_process_claims_and_starts_at_once_when_all_are_there() {
        let mut election = after(0, &[(ElectionEvent::Looked(None), 0)]);
        assert_eq!(election.step(at(0)), ElectionStep::Put { generation: 1 });
        assert_eq!(election.hosts(), Some(1), "others may read the claim before this process does");
        election.take(ElectionEvent::Put, at(0));
        assert_eq!(election.step(at(0)), ElectionStep::Look);
        election.take(looked(1, 1), at(0));
        assert_eq!(election.step(at(0)), ElectionStep::Gather { generation: 1, until: at(1_000) });
        election.take(present(2), at(10));
        assert_eq!(election.step(at(10)), ElectionStep::Gather { generation: 1, until: at(1_000) });
        election.take(present(3), at(20));
        assert_eq!(election.step(at(20)), ElectionStep::Look);
        election.take(looked(1, 1), at(20));
        assert_eq!(election.step(at(20)), ElectionStep::Lead { generation: 1, members: 3 });
        election.take(ElectionEvent::Started, at(30));
        assert_eq!(election.step(at(400_000)), ElectionStep::Run { generation: 1, until: None });
        election.take(ElectionEvent::GenerationOver, at(400_000));
        assert_eq!(election.step(at(400_000)), ElectionStep::BeginAnew { lost: 1 });
        assert_eq!(election.hosts(), None);
    }

    #[test]
    fn it_starts_short_exactly_when_settle_is_over_and_never_with_too_few() {
        let gathering = [(ElectionEvent::Looked(None), 0), (ElectionEvent::Put, 0), (looked(1, 1), 500)];
        let mut alone = after(0, &gathering);
        let mut two = after(0, &gathering);
        two.take(present(2), at(600));
        for ms in (1_500..10_500).step_by(1_000) {
            for election in [&mut alone, &mut two] {
                assert_eq!(election.step(at(ms)), ElectionStep::Look, "{ms}");
                election.take(looked(1, 1), at(ms));
                let until = at(ms + 1_000);
                assert_eq!(election.step(at(ms)), ElectionStep::Gather { generation: 1, until });
            }
        }
        for election in [&mut alone, &mut two] {
            election.take(looked(1, 1), at(10_500));
        }
        assert_eq!(two.step(at(10_500)), ElectionStep::Lead { generation: 1, members: 2 });
        assert_eq!(alone.step(at(10_500)), ElectionStep::Gather { generation: 1, until: at(11_500) });
        alone.take(present(2), at(10_600));
        assert_eq!(alone.step(at(10_600)), ElectionStep::Look);
        // A store that can't be read is asked once a second, however many are there.
        alone.take(ElectionEvent::LookFailed, at(10_600));
        assert_eq!(alone.step(at(10_600)), ElectionStep::Gather { generation: 1, until: at(11_600) });
        assert_eq!(alone.step(at(11_600)), ElectionStep::Look);
        // One that left isn't counted.
        alone.take(present(1), at(11_600));
        alone.take(looked(1, 1), at(11_600));
        assert_eq!(alone.step(at(11_600)), ElectionStep::Gather { generation: 1, until: at(12_600) });
        // A newer claim is followed.
        alone.take(looked(2, 7), at(12_600));
        assert_eq!(alone.step(at(12_600)), ElectionStep::Ask { generation: 2, address: "7:1".to_owned() });
        assert_eq!(alone.hosts(), None);
    }

    #[test]
    fn a_leader_that_is_gone_is_succeeded_at_once_and_one_that_differs_ends_this_process() {
        let asked =
            |answer| after(0, &[(looked(5, 7), 0), (ElectionEvent::Asked(answer), 100)]).step(at(100));
        assert_eq!(asked(AskAnswer::Gone), ElectionStep::Put { generation: 6 });
        assert_eq!(asked(AskAnswer::Accepted), ElectionStep::Follow { generation: 5 });
        assert_eq!(asked(AskAnswer::NoAnswer), ElectionStep::ReadTick);
        assert_eq!(asked(AskAnswer::Differs), ElectionStep::Exit);
        let damaged = ElectionEvent::Looked(Some(SeenClaim { generation: 5, by: None }));
        assert_eq!(after(0, &[(damaged, 0)]).step(at(0)), ElectionStep::Put { generation: 6 });
    }

    #[test]
    fn a_generation_that_was_lost_is_not_asked_for_and_a_newer_one_at_the_same_address_is() {
        let step = |newest: ElectionEvent| after(5, &[(newest, 0)]).step(at(0));
        assert_eq!(step(looked(5, 7)), ElectionStep::Put { generation: 6 });
        assert_eq!(step(looked(4, 7)), ElectionStep::Put { generation: 6 });
        assert_eq!(step(ElectionEvent::Looked(None)), ElectionStep::Put { generation: 6 });
        assert_eq!(step(looked(6, 7)), ElectionStep::Ask { generation: 6, address: "7:1".to_owned() });
    }

    #[test]
    fn one_that_does_not_answer_is_succeeded_when_its_own_ticks_are_old() {
        let heard = |tick| {
            let no_answer = ElectionEvent::Asked(AskAnswer::NoAnswer);
            after(0, &[(looked(5, 7), 0), (no_answer, 100), (ElectionEvent::Tick(tick), 100)]).step(at(100))
        };
        let waits = ElectionStep::Rest { until: at(1_100) };
        let committed = |ms, nonce| NewestTick::Committed { age: at(ms), nonce };
        assert_eq!(heard(committed(8_000, 7)), waits);
        assert_eq!(heard(committed(8_001, 7)), ElectionStep::Put { generation: 6 });
        assert_eq!(heard(NewestTick::Unknown), waits);
        // A claim without ticks of its own may be of one that gathers or restores.
        assert_eq!(heard(NewestTick::Absent), waits);
        assert_eq!(heard(committed(800_000, 8)), waits);
    }

    #[test]
    fn one_that_never_committed_has_settle_and_dead_after_together() {
        let mut election = after(0, &[]);
        let mut ask = |newest: (u64, u64), ms| {
            election.take(looked(newest.0, newest.1), at(ms));
            election.take(ElectionEvent::Asked(AskAnswer::NoAnswer), at(ms));
            election.take(ElectionEvent::Tick(NewestTick::Absent), at(ms));
            election.step(at(ms))
        };
        assert_eq!(ask((5, 7), 1_000), ElectionStep::Rest { until: at(2_000) });
        assert_eq!(ask((5, 7), 18_999), ElectionStep::Rest { until: at(19_999) });
        // Another claim has its own time.
        assert_eq!(ask((6, 8), 20_000), ElectionStep::Rest { until: at(21_000) });
        assert_eq!(ask((6, 8), 37_999), ElectionStep::Rest { until: at(38_999) });
        assert_eq!(ask((6, 8), 39_000), ElectionStep::Put { generation: 7 });
    }

    #[test]
    fn a_follower_asks_again_before_the_start_and_begins_anew_after_it() {
        let accepted = [(looked(5, 7), 0), (ElectionEvent::Asked(AskAnswer::Accepted), 0)];
        let mut waits = after(0, &accepted);
        waits.take(ElectionEvent::LinkLost, at(50));
        assert_eq!(waits.step(at(50)), ElectionStep::Look);
        let mut member = after(0, &accepted);
        member.take(ElectionEvent::Started, at(50));
        assert_eq!(member.step(at(50)), ElectionStep::Run { generation: 5, until: None });
        member.take(ElectionEvent::LinkLost, at(60));
        assert_eq!(member.step(at(60)), ElectionStep::BeginAnew { lost: 5 });
        // What comes too late changes nothing.
        member.take(ElectionEvent::Started, at(70));
        member.take(looked(9, 9), at(70));
        assert_eq!(member.step(at(70)), ElectionStep::BeginAnew { lost: 5 });
    }

    /// A generation of two that began at 10 s.
    fn short() -> Election {
        let started = [
            (ElectionEvent::Looked(None), 0),
            (ElectionEvent::Put, 0),
            (looked(1, 1), 0),
            (present(2), 10),
            (looked(1, 1), 10_000),
            (ElectionEvent::Started, 10_000),
        ];
        after(0, &started)
    }

    #[test]
    fn a_short_generation_ends_for_a_spare_after_five_minutes() {
        let mut election = short();
        assert_eq!(election.step(at(10_000)), ElectionStep::Run { generation: 1, until: Some(at(40_000)) });
        election.take(ElectionEvent::Present { members: 2, spares: 1 }, at(20_000));
        assert_eq!(election.step(at(39_999)), ElectionStep::Run { generation: 1, until: Some(at(40_000)) });
        election.take(looked(1, 1), at(300_000));
        assert_eq!(election.step(at(309_999)), ElectionStep::Run { generation: 1, until: Some(at(310_000)) });
        assert_eq!(election.step(at(310_000)), ElectionStep::EndAtCheckpoint { generation: 1 });
        // The spare leaves before the checkpoint.
        election.take(ElectionEvent::Present { members: 2, spares: 0 }, at(310_001));
        assert_eq!(election.step(at(310_001)), ElectionStep::Run { generation: 1, until: Some(at(330_000)) });
    }

    #[test]
    fn a_short_generation_ends_for_a_process_that_claimed_a_newer_one() {
        let mut election = short();
        assert_eq!(election.step(at(40_000)), ElectionStep::Look);
        election.take(ElectionEvent::LookFailed, at(40_000));
        assert_eq!(election.step(at(40_000)), ElectionStep::Run { generation: 1, until: Some(at(70_000)) });
        election.take(looked(3, 9), at(70_000));
        assert_eq!(election.step(at(99_999)), ElectionStep::Run { generation: 1, until: Some(at(100_000)) });
        election.take(looked(3, 9), at(309_000));
        assert_eq!(election.step(at(310_000)), ElectionStep::EndAtCheckpoint { generation: 1 });
        election.take(ElectionEvent::GenerationOver, at(310_000));
        assert_eq!(election.step(at(310_000)), ElectionStep::BeginAnew { lost: 1 });
    }

    /// Lets processes that can't reach each other claim for a while. Returns the times of their claims.
    fn claims_of_strangers(processes: u64, ms: u64) -> Vec<u64> {
        let mut elections: Vec<Election> =
            (1..=processes).map(|nonce| Election::new(TERMS, nonce, 0)).collect();
        let (mut newest, mut claims) = (None, Vec::new());
        for now in (0..ms).step_by(10) {
            for (nonce, election) in (1..).zip(&mut elections) {
                // Steps that wait for nothing follow each other at once.
                loop {
                    let event = match election.step(at(now)) {
                        ElectionStep::Look => ElectionEvent::Looked(newest.clone()),
                        ElectionStep::Put { generation } => {
                            if newest.as_ref().is_none_or(|newest: &SeenClaim| newest.generation < generation)
                            {
                                newest = Some(claim(generation, nonce));
                                claims.push(now);
                            }
                            ElectionEvent::Put
                        }
                        ElectionStep::Ask { .. } => ElectionEvent::Asked(AskAnswer::Gone),
                        ElectionStep::Rest { .. } | ElectionStep::Gather { .. } => break,
                        other => panic!("{other:?}"),
                    };
                    election.take(event, at(now));
                }
            }
        }
        claims
    }

    #[test]
    fn processes_that_can_not_reach_each_other_claim_less_and_less_often() {
        for processes in [2, 3, 5] {
            let claims = claims_of_strangers(processes, 600_000);
            let in_last_minute = claims.iter().filter(|ms| **ms >= 540_000).count() as u64;
            assert!(in_last_minute <= 3 * processes, "{processes}: {in_last_minute}");
            assert!(claims.len() as u64 <= 40 * processes, "{processes}: {}", claims.len());
            // None gives up: the last one that claimed may be gone for good.
            assert!(claims.last().is_some_and(|ms| *ms >= 560_000), "{processes}: {claims:?}");
        }
    }

    #[test]
    fn one_that_waits_before_its_claim_is_accepted_at_once() {
        let mut election =
            after(0, &[(ElectionEvent::Looked(None), 0), (ElectionEvent::Put, 0), (looked(1, 1), 0)]);
        // Each of its claims is claimed over by another process.
        for number in 1..4_u64 {
            election.take(looked(2 * number, 2), at(number * 10_000));
            election.take(ElectionEvent::Asked(AskAnswer::Gone), at(number * 10_000));
            let mut now = number * 10_000;
            while election.step(at(now)) != (ElectionStep::Put { generation: 2 * number + 1 }) {
                assert!(matches!(election.step(at(now)), ElectionStep::Rest { .. }), "{number}");
                now += 1_000;
                election.take(looked(2 * number, 2), at(now));
                election.take(ElectionEvent::Asked(AskAnswer::Gone), at(now));
            }
            assert_eq!(now - number * 10_000, [0, 1_000, 2_000][number as usize - 1]);
            election.take(ElectionEvent::Put, at(now));
            election.take(looked(2 * number + 1, 1), at(now));
        }
        election.take(looked(8, 2), at(40_000));
        election.take(ElectionEvent::Asked(AskAnswer::Gone), at(40_000));
        election.take(looked(8, 2), at(41_000));
        election.take(ElectionEvent::Asked(AskAnswer::Accepted), at(41_000));
        assert_eq!(election.step(at(41_000)), ElectionStep::Follow { generation: 8 });
    }
}
