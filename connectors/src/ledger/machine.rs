//! Decides the next step of a commit, without I/O and without a clock: answers come in, actions go out.
//!
//! ```text
//!            ┌──────────── an error, or a commit that took long ───────────┐
//!            ▼                                                             │
//!       NewProducer ─► Read ─► Begin ─► SendRows ─► SendRecords ─► Commit ─┴─► Rest
//!            ▲          │                   └─ fenced ─┘
//!            │          └─► Rest (it was committed), Exit
//!            └──────────── Look ◄──────────────┘
//! ```
//! **Why each tick is committed once.**
//! 1. A new producer fences all earlier ones, and ends their open transaction. The ledger is read only after that, so
//!    nothing that an earlier producer sent can become visible later.
//! 2. The outcome of a failed commit isn't known. After a new producer the ledger is read. It has the records of the
//!    batch, or everything is sent again.
//! 3. A request to commit that was repeated may reach the brokers twice. The second time it ends a later transaction of
//!    the same producer. A commit call of [`SLOW_COMMIT`] or more may have been repeated, and so may one with a lost
//!    connection. After either, and after any error, the next transaction has a new producer.
//! 4. Records of ticks go out after all rows are acknowledged. If a foreign request ends the transaction early, there
//!    are rows without a record, and they are repeated. There is never a record without its rows.
//! 5. A fenced producer looks for another's claim for [`LOOK_FOR`]. Without one it was fenced because its own
//!    transaction expired, and it goes on with a new producer.
//! 6. After each new producer the claims are compared. Once another life of the job has claimed a generation that isn't
//!    below ours, this one ends.
//!
//! **Limits**: one batch at a time, of at least one tick or of one claim.

use std::time::Duration;

/// How long a call to commit may take before it may have been repeated inside of librdkafka. Its retries come after
/// 800 to 1,200 ms: `retry.backoff.ms` of the producer is 1,000, and librdkafka varies it by a fifth.
pub(super) const SLOW_COMMIT: Duration = Duration::from_millis(700);
/// How long a fenced producer looks for another's claim.
pub(super) const LOOK_FOR: Duration = Duration::from_secs(10);

/// The rules that the model leaves out one by one. All of them hold outside of tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Rules {
    /// A new producer after any error, instead of an abort.
    pub(super) renews_after_error: bool,
    pub(super) renews_after_slow_commit: bool,
    /// A new producer after a connection was lost during a transaction.
    pub(super) renews_after_trouble: bool,
    /// The ledger is read after a producer was made, and not before.
    pub(super) reads_after_producer: bool,
    /// A batch of unknown outcome is looked up, and not sent again at once.
    pub(super) looks_up_unknown: bool,
    /// A batch of unknown outcome is sent again if the ledger doesn't have it.
    pub(super) sends_again: bool,
    /// Rows are acknowledged before the records of their ticks are sent.
    pub(super) rows_before_records: bool,
    /// A fenced producer looks for another's claim before it gives up.
    pub(super) looks_for_claim: bool,
    /// Another's claim of our generation or a later one ends this life.
    pub(super) yields_to_claims: bool,
    /// Another's tick behind ours ends this life.
    pub(super) yields_to_ticks: bool,
}

impl Rules {
    pub(super) const ALL: Self = Self {
        renews_after_error: true,
        renews_after_slow_commit: true,
        renews_after_trouble: true,
        reads_after_producer: true,
        looks_up_unknown: true,
        sends_again: true,
        rows_before_records: true,
        looks_for_claim: true,
        yields_to_claims: true,
        yields_to_ticks: true,
    };
}

/// A life of the job, as its records name it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Life {
    pub(super) generation: u64,
    pub(super) nonce: u64,
}

/// The newest records of the ledger, as far as decisions need them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Seen {
    pub(super) claim: Option<Life>,
    /// The last tick's number and the life that committed it.
    pub(super) tick: Option<(u64, Life)>,
}

impl Seen {
    fn number(&self) -> u64 {
        self.tick.map_or(0, |(number, _)| number)
    }
}

/// The next thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Action {
    /// Make a producer, which fences all earlier ones.
    NewProducer,
    /// Read all records that are in the ledger when this begins.
    Read,
    Begin,
    /// Send the rows, and wait until all are acknowledged.
    SendRows,
    /// Send the rows without waiting. Only the model does.
    #[cfg(test)]
    QueueRows,
    /// Send the records of the batch, and wait until all are acknowledged.
    SendRecords,
    Commit,
    /// Abort the transaction and keep the producer. Only the model does.
    #[cfg(test)]
    Abort,
    /// Read again and again until there is another's claim, for [`LOOK_FOR`] at most.
    Look,
    /// Do nothing, since the batch is committed or there is none.
    Rest,
    /// End this life of the job.
    Exit(Exit),
}

/// The reason for which this life of the job has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Exit {
    /// Another life claimed the ledger.
    Superseded,
    /// An earlier life committed ticks after this one read the ledger to claim it.
    Moved,
    /// The ledger has ticks behind ours that aren't ours.
    Foreign,
    /// The ledger lacks what this life committed.
    Lost,
}

/// The outcome of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Answer {
    Done,
    /// The answer to [`Action::Read`] and [`Action::Look`].
    Seen(Seen),
    Committed {
        /// True if the call took [`SLOW_COMMIT`] or more.
        slow: bool,
        /// True if a connection was lost or a request timed out since the transaction began.
        troubled: bool,
    },
    /// It failed, or its outcome isn't known.
    Failed,
    Fenced,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Batch {
    Claim,
    /// The number of ticks, at least one.
    Ticks(u64),
}

/// The state of one life's commits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Machine {
    rules: Rules,
    /// The life of this process, whose generation is 0 until a claim begins.
    life: Life,
    is_claimed: bool,
    /// The number of the last tick that is known to be committed.
    committed: u64,
    batch: Option<Batch>,
    has_rows: bool,
    /// True if the producer may begin another transaction.
    is_fresh: bool,
    next: Action,
}

impl Machine {
    /// Returns the machine of a life that hasn't read the ledger yet. `nonce` tells it from all others.
    pub(super) fn new(nonce: u64, rules: Rules) -> Self {
        let next = if rules.reads_after_producer { Action::NewProducer } else { Action::Read };
        Self {
            rules,
            life: Life { generation: 0, nonce },
            is_claimed: false,
            committed: 0,
            batch: None,
            has_rows: false,
            is_fresh: false,
            next,
        }
    }

    /// Returns the next action, whose answer goes to [`answer`](Self::answer).
    pub(super) fn action(&self) -> Action {
        self.next
    }

    /// Returns the number of the last tick that is known to be committed.
    pub(super) fn committed(&self) -> u64 {
        self.committed
    }

    /// Returns the life of this process, whose generation is 0 before the claim.
    pub(super) fn life(&self) -> Life {
        self.life
    }

    pub(super) fn is_claimed(&self) -> bool {
        self.is_claimed
    }

    /// Begins to claim the ledger, of which `newest` is the newest claim.
    pub(super) fn claim(&mut self, newest: Option<Life>) {
        assert!(self.next == Action::Rest && !self.is_claimed, "{self:?}");
        self.life.generation = newest.map_or(0, |claim| claim.generation) + 1;
        self.start(Batch::Claim, false);
    }

    /// Begins to commit the next `ticks` ticks.
    pub(super) fn commit(&mut self, ticks: u64, has_rows: bool) {
        assert!(self.next == Action::Rest && self.is_claimed && ticks > 0, "{self:?}");
        self.start(Batch::Ticks(ticks), has_rows);
    }

    fn start(&mut self, batch: Batch, has_rows: bool) {
        (self.batch, self.has_rows) = (Some(batch), has_rows);
        self.next = if self.is_fresh { Action::Begin } else { self.renewed() };
    }

    /// Takes the outcome of the action.
    pub(super) fn answer(&mut self, answer: Answer) {
        self.next = match (self.next, answer) {
            (Action::NewProducer, Answer::Done) => {
                self.is_fresh = true;
                match self.batch {
                    Some(Batch::Ticks(_)) if !self.rules.looks_up_unknown => Action::Begin,
                    None if !self.rules.reads_after_producer => Action::Rest,
                    _ if !self.rules.reads_after_producer => Action::Begin,
                    _ => Action::Read,
                }
            }
            (Action::Read, Answer::Seen(seen)) => self.judge(seen),
            // An outage while reading doesn't harm the producer.
            (Action::Read, _) => Action::Read,
            (Action::Look, Answer::Seen(seen)) if self.is_superseded(seen) => Action::Exit(Exit::Superseded),
            (Action::Look, Answer::Seen(_)) => self.renewed(),
            (Action::Look, _) => Action::Look,
            (_, Answer::Fenced) if !self.rules.looks_for_claim => Action::Exit(Exit::Superseded),
            (_, Answer::Fenced) => {
                self.is_fresh = false;
                Action::Look
            }
            (Action::Begin, Answer::Done) if self.has_rows => self.send_rows(),
            (Action::Begin | Action::SendRows, Answer::Done) => Action::SendRecords,
            #[cfg(test)]
            (Action::QueueRows, Answer::Done) => Action::SendRecords,
            #[cfg(test)]
            (Action::Abort, Answer::Done) => Action::Begin,
            (Action::SendRecords, Answer::Done) => Action::Commit,
            (Action::Commit, Answer::Committed { slow, troubled }) => {
                self.is_fresh = !(slow && self.rules.renews_after_slow_commit
                    || troubled && self.rules.renews_after_trouble);
                self.finish()
            }
            (Action::Commit, _) if self.is_claimed && !self.rules.sends_again => {
                self.is_fresh = false;
                self.finish()
            }
            (Action::Rest | Action::Exit(_), _) => self.next,
            // The answer doesn't fit the action, or the action failed: nothing is known about the producer.
            _ => self.failed(),
        };
    }

    #[cfg(not(test))]
    fn send_rows(&self) -> Action {
        Action::SendRows
    }

    #[cfg(test)]
    fn send_rows(&self) -> Action {
        if self.rules.rows_before_records { Action::SendRows } else { Action::QueueRows }
    }

    #[cfg(not(test))]
    fn failed(&mut self) -> Action {
        self.renewed()
    }

    #[cfg(test)]
    fn failed(&mut self) -> Action {
        let has_producer = self.next != Action::NewProducer;
        if has_producer && !self.rules.renews_after_error { Action::Abort } else { self.renewed() }
    }

    /// Returns the first step towards a new producer.
    fn renewed(&mut self) -> Action {
        self.is_fresh = false;
        if self.rules.reads_after_producer { Action::NewProducer } else { Action::Read }
    }

    /// Notes that the batch is committed.
    fn finish(&mut self) -> Action {
        match self.batch.take() {
            Some(Batch::Claim) => self.is_claimed = true,
            Some(Batch::Ticks(ticks)) => self.committed += ticks,
            None => {}
        }
        Action::Rest
    }

    /// Decides what a ledger means that was read after a new producer was made.
    fn judge(&mut self, seen: Seen) -> Action {
        if self.is_superseded(seen) {
            return Action::Exit(Exit::Superseded);
        }
        let go_on = if self.is_fresh { Action::Begin } else { Action::NewProducer };
        // 1. Without a generation we only look.
        if self.life.generation == 0 {
            self.committed = seen.number();
            return if self.is_fresh { Action::Rest } else { Action::NewProducer };
        }
        // 2. The claim.
        if !self.is_claimed {
            if seen.number() != self.committed {
                return Action::Exit(Exit::Moved);
            }
            return if seen.claim == Some(self.life) { self.finish() } else { go_on };
        }
        if seen.claim != Some(self.life) && self.rules.yields_to_claims {
            return Action::Exit(Exit::Lost);
        }
        // 3. The ticks of the batch: all of them are there, or none is.
        let ticks = match self.batch {
            Some(Batch::Ticks(ticks)) => ticks,
            _ => 0,
        };
        match seen.tick {
            _ if seen.number() < self.committed => Action::Exit(Exit::Lost),
            _ if seen.number() == self.committed => go_on,
            Some((number, life)) if number == self.committed + ticks && life == self.life => self.finish(),
            _ if self.rules.yields_to_ticks => Action::Exit(Exit::Foreign),
            _ => go_on,
        }
    }

    /// Returns whether another life claimed our generation or a later one.
    pub(super) fn is_superseded(&self, seen: Seen) -> bool {
        let is_later =
            |claim: Life| claim.nonce != self.life.nonce && claim.generation >= self.life.generation;
        self.life.generation > 0 && self.rules.yields_to_claims && seen.claim.is_some_and(is_later)
    }
}
