//! A job that is killed again and again while calls come in: nothing is lost, and nothing comes twice.
//!
//! ```text
//! sender.rs ──► topics of calls and keys ──► keytide run, life after life ──► topics, or files ──► reader.rs
//!     │                                        job.rs: kills, fail points,  └──► mails, requests ──► receiver.rs
//!     │                                        zombies, the broker                                      │
//!     └──────────────────── Owed ──────────────► oracle.rs ◄────────── Seen, Taken ─────────────────────┘
//! ```
//! A run ends with a life that reads all that was sent. Then the [oracle] judges the whole: all rows since the first
//! life against all records. `tests/kafka/run.sh` runs a short form. The long form is a command:
//!
//! ```text
//! KEYTIDE_CRASH_KILLS=1000 KEYTIDE_CRASH_SEEDS=1,2,3 tests/kafka/run.sh --nocapture crash::
//! ```
//! Each run prints a line that begins with `crash:`, with its kills, lives, ticks, rows, mails and requests, and what was
//! lost or repeated. `again` counts mails and requests that were under way when the job died, and so came once more.
//! A seed draws the same kills and records again, but not the instants at which the machine comes to them.

mod fleet;
mod job;
mod oracle;
mod reader;
mod receiver;
mod sender;

use std::env;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use keytide_connectors::fail_point::POINTS;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use self::fleet::{Fleet, FleetFault};
use self::job::{Crashing, End, Sinks};
use self::oracle::{Promise, Seen, Settled, Verdict};
use self::receiver::Receiver;
use self::sender::Sent;
use crate::broker::Broker;

/// The windows whose rows are judged in the short form: those of an hour are published at most 30 s after a change.
const SHORT: (Settled, Duration) = (Settled { usage: "1h", later: false }, Duration::from_secs(35));
/// The same in the long form, all of them. A subscription's usage is booked when its minute is closed, and sent on each
/// 30 s. Rows of a day and a month are published at most 5 min after that. An incident opens when its minute is closed.
const LONG: (Settled, Duration) = (Settled { usage: "1mo", later: true }, Duration::from_secs(420));

/// Does something at the end of its scope.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// The length of the runs, as the environment says.
struct Form {
    kills: u64,
    seeds: Vec<u64>,
    settled: (Settled, Duration),
}

impl Form {
    /// Returns the form: a short one with so many kills, unless the environment asks for a long one.
    fn new(short: u64) -> Self {
        let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("{text} is no number"));
        let kills = env::var("KEYTIDE_CRASH_KILLS").map(|kills| number(&kills));
        let seeds = env::var("KEYTIDE_CRASH_SEEDS").map(|seeds| seeds.split(',').map(number).collect());
        let settled = if kills.is_ok() { LONG } else { SHORT };
        Self { kills: kills.unwrap_or(short), seeds: seeds.unwrap_or(vec![1]), settled }
    }
}

/// The processes that do the work of the job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Processes {
    One,
    /// Those of a cluster.
    Several,
}

/// Runs a job through its kills, once with each seed, and judges what is left.
fn run(test: &str, sinks: Sinks, form: &Form) {
    form.seeds.iter().for_each(|seed| run_seed(test, (sinks, Processes::One), form, *seed));
}

#[allow(clippy::print_stdout, reason = "a run says what was done to the job, and what was found")]
fn run_seed(test: &str, (sinks, processes): (Sinks, Processes), form: &Form, seed: u64) {
    let broker = Broker::alone(&format!("{test}-{seed}"));
    let (sent, is_enough) = (Sent::default(), AtomicBool::new(false));
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let receiver = Receiver::new();
    let of_job = ChaCha8Rng::seed_from_u64(random.random());
    let mut crashing = Crashing::new(&broker, sinks, &sent, receiver.section(), of_job);
    let (topic, keys_topic, prefix) =
        (crashing.topic.clone(), crashing.keys_topic.clone(), crashing.prefix());
    let of_sender = random.random();
    let is_exact = sinks.delivery == Some("exactly_once");
    thread::scope(|scope| {
        let sender = scope.spawn(|| sender::send(&broker, &topic, &keys_topic, of_sender, &sent));
        // Also where the test fails.
        let _enough = OnDrop(|| {
            sent.end();
            is_enough.store(true, Ordering::Release);
            receiver.close();
        });
        scope.spawn(|| receiver.serve(&sent));
        sent.wait(1);
        // The first life makes the topics.
        crashing.live(End::Stopped);
        let follower = sinks.delivery.map(|_| {
            let partitions = reader::partitions(&broker, &prefix);
            let progress = reader::progress_topic(&prefix);
            assert_eq!(partitions.iter().any(|(topic, _)| *topic == progress), is_exact, "{partitions:?}");
            let (broker, prefix, is_enough) = (&broker, &prefix, &is_enough);
            scope.spawn(move || reader::follow(broker, prefix, &partitions, is_enough))
        });
        let (settled, settles) = form.settled;
        let all_sent = || {
            sent.end();
            sender.join().unwrap()
        };
        let all = match processes {
            Processes::One => {
                // Each fail point comes once before any comes again.
                let mut points = POINTS.iter().cycle().skip(random.random_range(0..POINTS.len()));
                while crashing.counts.kills < form.kills {
                    crashing.live(match random.random_range(0..20_u32) {
                        0 => End::Stopped,
                        1 => End::BrokerKilled,
                        // Files have no fence but the lock of the state, which a zombie's successor would have to wait for.
                        2..4 if is_exact && !sinks.files => End::Woken,
                        4..12 => {
                            let count = *[1, 1, 2, 5].choose(&mut random).unwrap();
                            End::At { point: points.next().unwrap(), count }
                        }
                        _ => End::Killed,
                    });
                }
                let all = all_sent();
                crashing.finish(&all.offsets, settles);
                all
            }
            Processes::Several => {
                let mut fleet = Fleet::start(&mut crashing);
                while fleet.crashing.counts.kills < form.kills {
                    fleet.suffer(match random.random_range(0..20_u32) {
                        0 => FleetFault::Stopped,
                        1 => FleetFault::BrokerKilled,
                        2..4 => FleetFault::Frozen { is_noticed: false },
                        4..6 => FleetFault::Frozen { is_noticed: true },
                        6..9 => FleetFault::Killed(2),
                        9..13 => FleetFault::LeaderKilled,
                        _ => FleetFault::Killed(1),
                    });
                }
                let all = all_sent();
                fleet.finish(&all.offsets, settles);
                all
            }
        };
        is_enough.store(true, Ordering::Release);
        let mut is_good = true;
        let taken = receiver.taken();
        let mut judge = |of: &str, mut seen: Seen, promise, has_progress| {
            let summary = summary(&format!("{test}/{of}"), seed, &crashing, &all.offsets, &seen);
            let again = seen.tell(&taken, crashing.counts.lives);
            let verdict = seen.judge(&all.owed, promise, has_progress, settled);
            println!("{summary} alerts={} again={again} {}", taken.len(), counts(&verdict));
            if !verdict.is_good() {
                is_good = false;
                println!("{verdict:#?}");
            }
        };
        if let Some(follower) = follower {
            let promise = if is_exact { Promise::ExactlyOnce } else { Promise::AtLeastOnce };
            judge("topics", follower.join().unwrap(), promise, is_exact);
        }
        if sinks.files {
            judge("files", reader::files(&crashing.job.path("out")), Promise::ExactlyOnce, false);
        }
        assert!(is_good, "the findings stand above");
    });
}

fn summary(test: &str, seed: u64, crashing: &Crashing<'_>, offsets: &[u64], seen: &Seen) -> String {
    let job::LifeCounts { lives, kills, at_points, unreached, broker_kills, zombies } = crashing.counts;
    let (records, ticks, rows) = (offsets.iter().sum::<u64>(), seen.ticks(), seen.rows());
    format!(
        "crash: test={test} seed={seed} kills={kills} at_points={at_points} unreached={unreached} \
         broker_kills={broker_kills} zombies={zombies} lives={lives} records={records} ticks={ticks} rows={rows}"
    )
}

fn counts(verdict: &Verdict) -> String {
    let mut text = String::new();
    for (name, findings) in
        [("lost", &verdict.lost), ("repeated", &verdict.repeated), ("wrong", &verdict.wrong)]
    {
        write!(text, "{name}={} ", findings.count).unwrap();
    }
    text.trim_end().to_owned()
}

#[test]
fn files_are_those_of_a_job_that_was_never_killed() {
    run("crash-files", Sinks { delivery: None, files: true }, &Form::new(6));
}

#[test]
fn topics_with_exactly_once_lose_and_repeat_nothing_also_if_a_fenced_process_is_woken() {
    run("crash-exactly", Sinks { delivery: Some("exactly_once"), files: false }, &Form::new(10));
}

#[test]
fn topics_of_several_processes_lose_and_repeat_nothing_whichever_of_them_are_lost() {
    let (form, sinks) = (Form::new(8), Sinks { delivery: Some("exactly_once"), files: false });
    form.seeds.iter().for_each(|seed| run_seed("crash-cluster", (sinks, Processes::Several), &form, *seed));
}

#[test]
fn topics_with_exactly_once_and_files_beside_them_lose_and_repeat_nothing() {
    run("crash-both", Sinks { delivery: Some("exactly_once"), files: true }, &Form::new(6));
}

#[test]
fn topics_with_at_least_once_lose_nothing_and_files_beside_them_repeat_nothing() {
    run("crash-least", Sinks { delivery: Some("at_least_once"), files: true }, &Form::new(6));
}
