//! The machine against a model of the brokers: every order of events, and many random ones.
//!
//! ```text
//! life 1: Machine ─┐                        ┌─ rows of each tick, in two partitions
//! life 2: Machine ─┼─ actions ─► Brokers ───┼─ records of ticks, and claims, in a third
//!                  └◄─ answers ─            └─ the transaction, its epoch, requests that are on their way
//! ```
//! At each step one life goes on by one request, or something happens: a life crashes, the next one starts, a
//! transaction expires, a request to end a transaction arrives that was held up. A life that doesn't go on while another
//! does is a zombie. Requests can be applied without an answer. A request to commit can be repeated while the first
//! copy is on its way; it then ends whatever transaction the same epoch has open. Partitions belong to a transaction
//! once the producer added them, and a record for another one is refused, as brokers since Kafka 3.6 do.
//!
//! **Checked at each step**: a reader of committed records sees the rows of a tick once, if and only if it sees the
//! tick's record; the ticks have no gap; a batch that counts as committed is; a life ends only if another took over.
//! At the end some life has committed all ticks.
//!
//! Each rule of the machine can be left out, and then the model finds what goes wrong. This can catch wrong rules, and
//! not a driver that doesn't do what the machine says: the suite on a real broker does that.

use std::rc::Rc;

use hashbrown::HashSet;

use super::machine::{Action, Answer, Exit, Life, Machine, Rules, Seen};

/// The partition of the ledger. Those of rows are 0 and 1.
const LEDGER: u8 = 2;

/// The number of events after which a random order should have come to its end long ago.
const MAX_EVENTS: usize = 10_000;

/// The bounds of a model, and the rules of its machines.
#[derive(Clone, Copy, Debug)]
struct Setup {
    rules: Rules,
    ticks: u8,
    /// The number of ticks in a transaction, at most.
    batch: u8,
    lives: usize,
    /// Lost answers, repeated requests, expired transactions and vain looks for a claim, at most.
    faults: u8,
    crashes: u8,
    /// True if a commit may be repeated without any sign of it.
    is_silent: bool,
}

impl Setup {
    /// Small enough for every order of events.
    const SMALL: Self =
        Self { rules: Rules::ALL, ticks: 3, batch: 1, lives: 2, faults: 2, crashes: 1, is_silent: false };

    /// Too large for every order of events, so that random ones are tried.
    const LARGE: Self =
        Self { rules: Rules::ALL, ticks: 12, batch: 3, lives: 5, faults: 10, crashes: 3, is_silent: false };
}

/// A record on its way to a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Item {
    /// A row of a tick, in partition 0 or 1.
    Row(u8, u8),
    Tick(u8, Life),
    Claim(Life),
}

impl Item {
    fn partition(self) -> u8 {
        if let Self::Row(_, partition) = self { partition } else { LEDGER }
    }
}

/// The state of the last transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Transaction {
    Empty,
    /// Each of its partitions is a bit.
    Open(u8),
    Committed,
    Aborted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum End {
    Commit,
    Abort,
}

/// The reason for which a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    Fenced,
    State,
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Fenced => Self::Fenced,
            Refusal::State => Self::Failed,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Brokers {
    transaction: Transaction,
    /// The records of the open transaction.
    open: Vec<Item>,
    /// The number of requests to commit and to abort by the current epoch that are on their way. Earlier epochs' are
    /// refused when they arrive, so they don't matter.
    delayed: [u8; 2],
    /// The number of committed copies of each row.
    rows: Vec<[u8; 2]>,
    /// The committed records of ticks.
    ticks: Vec<(u8, Life)>,
    claim: Option<Life>,
}

impl Brokers {
    fn end(&mut self, end: End) -> Result<(), Refusal> {
        match (self.transaction, end) {
            (Transaction::Open(_), End::Commit) => {
                for item in std::mem::take(&mut self.open) {
                    match item {
                        Item::Row(tick, partition) => {
                            self.rows[usize::from(tick) - 1][usize::from(partition)] += 1;
                        }
                        Item::Tick(number, life) => self.ticks.push((number, life)),
                        Item::Claim(life) => self.claim = Some(life),
                    }
                }
                self.transaction = Transaction::Committed;
                Ok(())
            }
            (Transaction::Open(_), End::Abort) => {
                self.open.clear();
                self.transaction = Transaction::Aborted;
                Ok(())
            }
            (Transaction::Committed, End::Commit) | (Transaction::Aborted, End::Abort) => Ok(()),
            _ => Err(Refusal::State),
        }
    }

    fn seen(&self) -> Seen {
        let tick = self.ticks.last().map(|&(number, life)| (u64::from(number), life));
        Seen { claim: self.claim, tick }
    }
}

/// The fate of a life of the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Status {
    Waiting,
    Running,
    Crashed,
    Ended(Exit),
    Finished,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Process {
    status: Status,
    machine: Machine,
    /// True if its producer is the newest one.
    is_current: bool,
    /// The partitions that the producer added to the transaction, as bits.
    added: u8,
    /// The records that the action still has to send.
    queue: Vec<Item>,
    /// The ticks of the batch, and none for a claim.
    batch: u8,
    is_opened: bool,
    /// The newest claim when the ledger was read last.
    claim: Option<Life>,
}

/// The state of the brokers and of all lives.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    brokers: Brokers,
    processes: Vec<Process>,
    faults: u8,
    crashes: u8,
}

/// A thing that can happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    Start(usize),
    Crash(usize),
    /// A request arrives that was held up.
    Arrive(End),
    Expire,
    /// A life goes on, and all is well. A number chooses the batch or the record that is sent.
    Step(usize, usize),
    /// The request is applied and its answer is lost.
    NoAnswer(usize, usize),
    /// The request is held up, and nothing is known.
    HeldUp(usize),
    /// The request is held up and repeated. The signs of it are a slow call, and a lost connection.
    Repeated(usize, bool, bool),
}

/// A state that must not be, and how it came about.
#[derive(Debug)]
struct Violation {
    what: String,
    events: Vec<Event>,
}

impl World {
    fn new(setup: &Setup) -> Self {
        let process = |index: usize| Process {
            status: if index == 0 { Status::Running } else { Status::Waiting },
            machine: Machine::new(index as u64 + 1, setup.rules),
            is_current: false,
            added: 0,
            queue: Vec::new(),
            batch: 0,
            is_opened: false,
            claim: None,
        };
        Self {
            brokers: Brokers {
                transaction: Transaction::Empty,
                open: Vec::new(),
                delayed: [0, 0],
                rows: vec![[0, 0]; usize::from(setup.ticks)],
                ticks: Vec::new(),
                claim: None,
            },
            processes: (0..setup.lives).map(process).collect(),
            faults: setup.faults,
            crashes: setup.crashes,
        }
    }

    /// Lists what can happen next.
    fn events(&self, setup: &Setup, events: &mut Vec<Event>) {
        events.clear();
        for (index, process) in self.processes.iter().enumerate() {
            match process.status {
                Status::Waiting => {
                    // Lives begin in their order.
                    if index > 0 && self.processes[index - 1].status != Status::Waiting {
                        events.push(Event::Start(index));
                    }
                    continue;
                }
                Status::Running => {}
                Status::Crashed | Status::Ended(_) | Status::Finished => continue,
            }
            if self.crashes > 0 {
                events.push(Event::Crash(index));
            }
            let has_faults = self.faults > 0;
            match process.machine.action() {
                Action::Rest if process.is_opened && process.machine.is_claimed() => {
                    let left = u64::from(setup.ticks) - process.machine.committed();
                    let choices = left.min(u64::from(setup.batch)).max(1);
                    events.extend((1..=choices).map(|ticks| Event::Step(index, ticks as usize)));
                }
                Action::Rest | Action::Exit(_) | Action::Begin | Action::QueueRows => {
                    events.push(Event::Step(index, 0));
                }
                // The consumer waits until no record of the ledger is in an open transaction.
                Action::Read | Action::Look if self.brokers.open.iter().any(|i| i.partition() == LEDGER) => {}
                Action::Read => events.push(Event::Step(index, 0)),
                Action::Look => {
                    let found = process.machine.is_superseded(self.brokers.seen());
                    if found || has_faults || self.is_alone(index) {
                        events.push(Event::Step(index, 0));
                    }
                }
                Action::NewProducer => {
                    events.push(Event::Step(index, 0));
                    if has_faults {
                        events.push(Event::NoAnswer(index, 0));
                    }
                }
                Action::SendRows => {
                    events.push(Event::Step(index, 0));
                    if has_faults {
                        events.push(Event::NoAnswer(index, 0));
                    }
                }
                Action::SendRecords => {
                    // Without a rule rows and records go out together, in the order of each partition.
                    let is_first = |choice: &usize| {
                        let partition = process.queue[*choice].partition();
                        process.queue[..*choice].iter().all(|item| item.partition() != partition)
                    };
                    for choice in (0..process.queue.len()).filter(is_first) {
                        events.push(Event::Step(index, choice));
                        if has_faults {
                            events.push(Event::NoAnswer(index, choice));
                        }
                    }
                }
                Action::Commit => {
                    events.push(Event::Step(index, 0));
                    if has_faults {
                        events.extend([
                            Event::NoAnswer(index, 0),
                            Event::HeldUp(index),
                            Event::Repeated(index, true, false),
                            Event::Repeated(index, false, true),
                        ]);
                        if setup.is_silent {
                            events.push(Event::Repeated(index, false, false));
                        }
                    }
                }
                Action::Abort => {
                    events.push(Event::Step(index, 0));
                    if has_faults {
                        events.push(Event::Repeated(index, true, false));
                    }
                }
            }
        }
        for end in [End::Commit, End::Abort] {
            if self.brokers.delayed[end as usize] > 0 {
                events.push(Event::Arrive(end));
            }
        }
        let is_open = matches!(self.brokers.transaction, Transaction::Open(_));
        if is_open && (self.faults > 0 || self.is_abandoned()) {
            events.push(Event::Expire);
        }
    }

    /// Returns whether no other life can claim. One that can has the time to do so while a life looks for a claim, or else
    /// it is a fault.
    fn is_alone(&self, index: usize) -> bool {
        let mut others = self.processes.iter().enumerate().filter(|(other, _)| *other != index);
        others.all(|(_, other)| other.status != Status::Running || other.machine.action() == Action::Look)
    }

    /// Returns whether no life ends the open transaction any more, so that it expires for sure.
    fn is_abandoned(&self) -> bool {
        !self.processes.iter().any(|process| process.is_current && process.status == Status::Running)
    }

    /// Applies an event to the world. Returns what is wrong with the answer, if something is.
    fn apply(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Start(index) => self.processes[index].status = Status::Running,
            Event::Crash(index) => {
                self.crashes -= 1;
                self.processes[index].status = Status::Crashed;
            }
            Event::Arrive(end) => {
                self.brokers.delayed[end as usize] -= 1;
                let _ = self.brokers.end(end);
            }
            Event::Expire => {
                if !self.is_abandoned() {
                    self.faults -= 1;
                }
                let _ = self.brokers.end(End::Abort);
                self.fence();
            }
            Event::Step(index, choice) => return self.step(index, choice),
            Event::NoAnswer(index, choice) => {
                self.faults -= 1;
                match self.processes[index].machine.action() {
                    Action::NewProducer => self.init(),
                    Action::Commit => drop(self.request(index, End::Commit)),
                    _ => drop(self.send(index, choice)),
                }
                return self.answer(index, Answer::Failed);
            }
            Event::HeldUp(index) => {
                self.faults -= 1;
                self.delay(index, End::Commit);
                return self.answer(index, Answer::Failed);
            }
            Event::Repeated(index, slow, troubled) => {
                self.faults -= 1;
                let is_commit = self.processes[index].machine.action() == Action::Commit;
                let end = if is_commit { End::Commit } else { End::Abort };
                self.delay(index, end);
                let answer = match self.request(index, end) {
                    Ok(()) if is_commit => Answer::Committed { slow, troubled },
                    Ok(()) => Answer::Done,
                    Err(refusal) => refusal.into(),
                };
                return self.answer(index, answer);
            }
        }
        Ok(())
    }

    /// Makes the current producer one of the past.
    fn fence(&mut self) {
        self.processes.iter_mut().for_each(|process| process.is_current = false);
        self.brokers.delayed = [0, 0];
    }

    fn init(&mut self) {
        let _ = self.brokers.end(End::Abort);
        self.brokers.transaction = Transaction::Empty;
        self.fence();
    }

    fn delay(&mut self, index: usize, end: End) {
        if self.processes[index].is_current {
            self.brokers.delayed[end as usize] += 1;
        }
    }

    fn request(&mut self, index: usize, end: End) -> Result<(), Refusal> {
        if self.processes[index].is_current { self.brokers.end(end) } else { Err(Refusal::Fenced) }
    }

    /// Sends one record of the queue.
    fn send(&mut self, index: usize, choice: usize) -> Result<(), Refusal> {
        let process = &mut self.processes[index];
        if !process.is_current {
            return Err(Refusal::Fenced);
        }
        if choice >= process.queue.len() {
            return Ok(());
        }
        let item = process.queue.remove(choice);
        let bit = 1 << item.partition();
        let partitions = match self.brokers.transaction {
            Transaction::Open(partitions) => partitions,
            _ => 0,
        };
        if process.added & bit == 0 {
            process.added |= bit;
            self.brokers.transaction = Transaction::Open(partitions | bit);
        } else if partitions & bit == 0 {
            return Err(Refusal::State);
        }
        self.brokers.open.push(item);
        Ok(())
    }

    /// Lets a life do one request of its action.
    fn step(&mut self, index: usize, choice: usize) -> Result<(), String> {
        let action = self.processes[index].machine.action();
        let seen = self.brokers.seen();
        let answer = match action {
            Action::Rest => {
                self.next_batch(index, choice);
                return Ok(());
            }
            Action::Exit(exit) => return self.exit(index, exit),
            Action::NewProducer => {
                self.init();
                self.processes[index].is_current = true;
                Answer::Done
            }
            Action::Read => Answer::Seen(seen),
            Action::Look => {
                if !self.processes[index].machine.is_superseded(seen) && !self.is_alone(index) {
                    self.faults -= 1;
                }
                Answer::Seen(seen)
            }
            Action::Begin => {
                self.processes[index].added = 0;
                Answer::Done
            }
            Action::QueueRows => Answer::Done,
            Action::SendRows | Action::SendRecords => {
                if let Err(refusal) = self.send(index, choice) {
                    return self.answer(index, refusal.into());
                }
                if !self.processes[index].queue.is_empty() {
                    return Ok(());
                }
                Answer::Done
            }
            Action::Commit | Action::Abort => {
                let end = if action == Action::Commit { End::Commit } else { End::Abort };
                match self.request(index, end) {
                    Ok(()) if end == End::Commit => Answer::Committed { slow: false, troubled: false },
                    Ok(()) => Answer::Done,
                    Err(refusal) => refusal.into(),
                }
            }
        };
        self.answer(index, answer)
    }

    /// Hands an answer to the machine, and queues the records of its next action.
    fn answer(&mut self, index: usize, answer: Answer) -> Result<(), String> {
        let process = &mut self.processes[index];
        process.machine.answer(answer);
        if let Answer::Seen(seen) = answer {
            process.claim = seen.claim;
        }
        let life = process.machine.life();
        let first = process.machine.committed() as u8 + 1;
        let ticks = first..first + process.batch;
        let rows = ticks.clone().flat_map(|tick| [Item::Row(tick, 0), Item::Row(tick, 1)]);
        match process.machine.action() {
            Action::SendRows | Action::QueueRows => process.queue = rows.collect(),
            Action::SendRecords => {
                if process.batch == 0 {
                    process.queue.push(Item::Claim(life));
                } else {
                    process.queue.extend(ticks.map(|tick| Item::Tick(tick, life)));
                }
            }
            Action::Rest => {
                process.queue.clear();
                return self.rested(index);
            }
            _ => process.queue.clear(),
        }
        Ok(())
    }

    /// Checks what a life takes for committed.
    fn rested(&mut self, index: usize) -> Result<(), String> {
        let process = &mut self.processes[index];
        let (life, committed) = (process.machine.life(), process.machine.committed());
        process.batch = 0;
        if !process.is_opened {
            process.is_opened = true;
            return Ok(());
        }
        if self.brokers.ticks.last().map_or(0, |&(number, _)| u64::from(number)) < committed {
            return Err(format!("{life:?} takes {committed} ticks for committed"));
        }
        Ok(())
    }

    /// Begins what a life does next.
    fn next_batch(&mut self, index: usize, ticks: usize) {
        let total = self.brokers.rows.len() as u64;
        let process = &mut self.processes[index];
        if !process.machine.is_claimed() {
            process.machine.claim(process.claim);
        } else if process.machine.committed() == total {
            process.status = Status::Finished;
        } else {
            process.batch = ticks as u8;
            process.machine.commit(ticks as u64, true);
        }
    }

    fn exit(&mut self, index: usize, exit: Exit) -> Result<(), String> {
        let process = &mut self.processes[index];
        process.status = Status::Ended(exit);
        let life = process.machine.life();
        let is_right = match exit {
            Exit::Superseded => {
                let others = self.brokers.claim;
                others.is_some_and(|other| other.nonce != life.nonce && other.generation >= life.generation)
            }
            Exit::Moved => !process.machine.is_claimed(),
            Exit::Foreign | Exit::Lost => false,
        };
        if is_right {
            Ok(())
        } else {
            Err(format!("{life:?} ends by {exit:?} without another that took over"))
        }
    }

    /// Returns what is wrong with what readers see.
    fn wrong(&self, setup: &Setup) -> Option<String> {
        let Brokers { rows, ticks, .. } = &self.brokers;
        let numbers: Vec<u8> = ticks.iter().map(|&(number, _)| number).collect();
        for (rows, tick) in rows.iter().zip(1..) {
            let records = numbers.iter().filter(|number| **number == tick).count();
            let is_lost = records > 0 && rows.contains(&0);
            let is_repeated = rows.iter().any(|copies| *copies > 1) || records > 1;
            let is_torn = records == 0 && *rows != [0, 0];
            if is_lost || !setup.is_silent && (is_repeated || is_torn) {
                return Some(format!(
                    "tick {tick} has {records} records and its rows are there {rows:?} times"
                ));
            }
        }
        let is_dense = numbers.iter().zip(1..).all(|(number, expected)| *number == expected);
        (!is_dense && !setup.is_silent).then(|| format!("the ticks {numbers:?} aren't dense"))
    }

    /// Returns what is wrong with a state in which nothing can happen any more.
    fn unfinished(&self) -> Option<String> {
        let has = |status: Status| self.processes.iter().any(|process| process.status == status);
        // A life that crashed leaves its work to the next start.
        let is_over = !has(Status::Running) && (has(Status::Finished) || has(Status::Crashed));
        (!is_over).then(|| format!("no life committed all ticks: {:?}", self.processes))
    }
}

/// The events that led to a state, the last one first.
struct Path {
    event: Event,
    before: Option<Rc<Path>>,
}

fn violation(what: String, mut path: Option<&Rc<Path>>) -> Violation {
    let mut events = Vec::new();
    while let Some(step) = path {
        events.push(step.event);
        path = step.before.as_ref();
    }
    events.reverse();
    Violation { what, events }
}

/// Tries every order of events. Returns the number of states, or a violation.
fn explore(setup: &Setup) -> Result<usize, Violation> {
    let world = World::new(setup);
    let mut known: HashSet<World> = HashSet::from_iter([world.clone()]);
    let mut open: Vec<(World, Option<Rc<Path>>)> = vec![(world, None)];
    let mut events = Vec::new();
    while let Some((world, path)) = open.pop() {
        world.events(setup, &mut events);
        if events.is_empty()
            && let Some(what) = world.unfinished()
        {
            return Err(violation(what, path.as_ref()));
        }
        for &event in &events {
            let mut next = world.clone();
            let applied = next.apply(event);
            let before = path.clone();
            if let Some(what) = applied.err().or_else(|| next.wrong(setup)) {
                return Err(violation(what, Some(&Rc::new(Path { event, before }))));
            }
            if known.insert(next.clone()) {
                open.push((next, Some(Rc::new(Path { event, before }))));
            }
        }
    }
    Ok(known.len())
}

/// Tries one order of events, of which the seed chooses each. Returns the number of events.
fn wander(setup: &Setup, seed: u64) -> Result<usize, Violation> {
    let mut world = World::new(setup);
    let (mut events, mut past) = (Vec::new(), Vec::new());
    // SplitMix64, which makes good numbers of any seed.
    let mut state = seed;
    let mut random = |below: usize| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % below as u64) as usize
    };
    loop {
        world.events(setup, &mut events);
        if events.is_empty() {
            return match world.unfinished() {
                Some(what) => Err(Violation { what, events: past }),
                None => Ok(past.len()),
            };
        }
        if past.len() == MAX_EVENTS {
            return Err(Violation { what: "it doesn't end".to_owned(), events: past });
        }
        // Faults and other lives come seldom, or all of them would come before the first tick.
        let steps = events.iter().filter(|event| matches!(event, Event::Step(..))).count();
        let event = loop {
            let event = events[random(events.len())];
            if matches!(event, Event::Step(..) | Event::Arrive(_)) || steps == 0 || random(24) == 0 {
                break event;
            }
        };
        past.push(event);
        if let Some(what) = world.apply(event).err().or_else(|| world.wrong(setup)) {
            return Err(Violation { what, events: past });
        }
    }
}

/// Returns the first seed up to `seeds` that finds something wrong.
fn first_found(setup: &Setup, seeds: u64) -> Option<u64> {
    (0..seeds).find(|seed| wander(setup, *seed).is_err())
}

/// `KEYTIDE_LEDGER_SEEDS=100000 cargo test -p keytide-connectors random_orders` tries as many.
#[test]
fn with_all_rules_random_orders_of_events_commit_each_tick_once() {
    let seeds = std::env::var("KEYTIDE_LEDGER_SEEDS").map_or(500, |seeds| seeds.parse().unwrap());
    let mut events = 0;
    for seed in 0..seeds {
        events +=
            wander(&Setup::LARGE, seed).unwrap_or_else(|violation| panic!("seed {seed}: {violation:?}"));
    }
    assert!(events as u64 > 100 * seeds, "{events} events");
}

#[test]
fn random_orders_of_events_find_what_goes_wrong_without_a_rule() {
    let leave_out: [fn(&mut Rules); 8] = [
        |rules| rules.renews_after_error = false,
        |rules| rules.renews_after_slow_commit = false,
        |rules| rules.renews_after_trouble = false,
        |rules| rules.reads_after_producer = false,
        |rules| rules.looks_up_unknown = false,
        |rules| rules.sends_again = false,
        |rules| rules.looks_for_claim = false,
        |rules| rules.yields_to_claims = false,
    ];
    for leave_out in leave_out {
        let mut setup = Setup::LARGE;
        leave_out(&mut setup.rules);
        let found = first_found(&setup, 2_000);
        assert!(found.is_some(), "{:?}", setup.rules);
    }
}

/// Returns what goes wrong without a rule.
fn without(leave_out: impl FnOnce(&mut Rules)) -> Violation {
    let mut setup = Setup::SMALL;
    leave_out(&mut setup.rules);
    explore(&setup).expect_err("the model finds what goes wrong without the rule")
}

#[test]
fn with_all_rules_every_order_of_events_commits_each_tick_once() {
    let states = explore(&Setup::SMALL).unwrap();
    // The model must not become empty unnoticed.
    assert!(states > 100_000, "{states}");
}

#[test]
fn with_all_rules_ticks_that_wait_are_committed_together() {
    let states = explore(&Setup { batch: 3, faults: 1, ..Setup::SMALL }).unwrap();
    assert!(states > 50_000, "{states}");
}

#[test]
fn three_lives_commit_each_tick_once() {
    let states = explore(&Setup { ticks: 1, lives: 3, faults: 0, ..Setup::SMALL }).unwrap();
    assert!(states > 10_000, "{states}");
}

#[test]
fn a_producer_that_is_kept_after_an_error_lets_a_late_request_end_its_next_transaction() {
    let violation = without(|rules| rules.renews_after_error = false);
    assert!(violation.what.starts_with("tick "), "{violation:?}");
}

#[test]
fn a_producer_that_is_kept_after_a_slow_commit_lets_its_first_request_end_the_next_transaction() {
    let violation = without(|rules| rules.renews_after_slow_commit = false);
    assert!(violation.what.starts_with("tick "), "{violation:?}");
    assert!(violation.events.contains(&Event::Arrive(End::Commit)), "{violation:?}");
}

#[test]
fn a_producer_that_is_kept_after_a_lost_connection_lets_its_first_request_end_the_next_transaction() {
    let violation = without(|rules| rules.renews_after_trouble = false);
    assert!(violation.what.starts_with("tick "), "{violation:?}");
    assert!(violation.events.contains(&Event::Arrive(End::Commit)), "{violation:?}");
}

#[test]
fn a_ledger_that_is_read_before_the_producer_is_made_lacks_what_an_older_life_commits_meanwhile() {
    let violation = without(|rules| rules.reads_after_producer = false);
    assert!(violation.what.starts_with("tick "), "{violation:?}");
}

#[test]
fn a_batch_of_unknown_outcome_that_is_sent_again_at_once_is_there_twice() {
    let violation = without(|rules| rules.looks_up_unknown = false);
    assert!(violation.what.starts_with("tick "), "{violation:?}");
}

#[test]
fn a_batch_of_unknown_outcome_that_counts_as_committed_is_lost() {
    let violation = without(|rules| rules.sends_again = false);
    assert!(violation.what.contains("for committed"), "{violation:?}");
}

#[test]
fn a_fenced_life_that_does_not_look_for_a_claim_ends_although_no_other_took_over() {
    let violation = without(|rules| rules.looks_for_claim = false);
    assert!(violation.what.ends_with("without another that took over"), "{violation:?}");
    assert!(violation.events.contains(&Event::Expire), "{violation:?}");
}

#[test]
fn a_zombie_that_does_not_yield_to_a_claim_lets_the_younger_life_end() {
    let violation = without(|rules| rules.yields_to_claims = false);
    assert!(violation.what.ends_with("without another that took over"), "{violation:?}");
}

#[test]
fn lives_that_yield_neither_to_claims_nor_to_ticks_repeat_a_tick() {
    let violation = without(|rules| (rules.yields_to_claims, rules.yields_to_ticks) = (false, false));
    assert!(violation.what.starts_with("tick "), "{violation:?}");
}

/// A request to commit may be repeated without a sign. Then rows can be repeated, and none may be lost.
#[test]
fn records_that_wait_for_their_rows_lose_none_even_if_a_commit_was_repeated_unnoticed() {
    let mut setup = Setup { is_silent: true, faults: 1, ..Setup::SMALL };
    let states = explore(&setup).unwrap();
    assert!(states > 50_000, "{states}");
    setup.rules.rows_before_records = false;
    let violation = explore(&setup).expect_err("rows are lost");
    assert!(violation.what.starts_with("tick "), "{violation:?}");
}
