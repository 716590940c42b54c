//! The job that is killed: its configuration, and its lives.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use super::sender::Sent;
use crate::broker::Broker;
use crate::harness::{DEADLINE, FIELDS, Job, Keytide, path};
use crate::live::Running;

/// Records that are sent in the longest life that ends at random, about four seconds.
pub(super) const LONGEST: u64 = 1_200;
/// Records that are sent while a job is waited for that should end at a fail point, about ten seconds.
const PATIENCE: u64 = 3_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sinks {
    /// The value of `delivery`, if they go to topics.
    pub(super) delivery: Option<&'static str>,
    /// True if they go to files.
    pub(super) files: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// SIGKILL at a random instant, also during the start.
    Killed,
    /// At a fail point, when it is reached so many times.
    At { point: &'static str, count: u64 },
    /// SIGTERM, after which the last tick is a checkpoint.
    Stopped,
    /// SIGKILL of the broker, which comes back; then SIGKILL of the job.
    BrokerKilled,
    /// SIGSTOP; the next life begins meanwhile, and then SIGCONT. Only one that is fenced may be woken.
    Woken,
}

/// A job with its state, over all its lives.
pub(super) struct Crashing<'a> {
    pub(super) broker: &'a Broker,
    pub(super) job: Job,
    pub(super) sinks: Sinks,
    pub(super) topic: String,
    pub(super) keys_topic: String,
    pub(super) random: ChaCha8Rng,
    pub(super) sent: &'a Sent,
    pub(super) counts: LifeCounts,
    /// The section of the configuration about mails and webhooks.
    alerts: String,
    /// The end of `[state]` and the section `[cluster]` of a job with several processes.
    pub(super) cluster: String,
    /// The process that was stopped in the life before, if it is to be woken.
    zombie: Option<Running>,
}

/// The counts of a job's lives and of how they ended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LifeCounts {
    pub(super) lives: u64,
    pub(super) kills: u64,
    /// Of the kills, those at a fail point.
    pub(super) at_points: u64,
    /// The lives that didn't reach their fail point, and were killed instead.
    pub(super) unreached: u64,
    pub(super) broker_kills: u64,
    pub(super) zombies: u64,
}

impl<'a> Crashing<'a> {
    pub(super) fn new(
        broker: &'a Broker,
        sinks: Sinks,
        sent: &'a Sent,
        alerts: String,
        random: ChaCha8Rng,
    ) -> Self {
        let topic = broker.topic("calls", 3, &[]);
        let keys_topic = broker.topic("keys", 1, &["cleanup.policy=compact"]);
        let subscriptions = "id,customer\nsub-a,Acme\nsub-b,Bolt\nsub-c,Cord\n";
        let secret = "0123456789abcdef0123456789abcdef";
        let job = Job::with_config("").file("subscriptions.csv", subscriptions).file("secret", secret);
        Self {
            broker,
            job,
            sinks,
            topic,
            keys_topic,
            random,
            sent,
            counts: LifeCounts::default(),
            alerts,
            cluster: String::new(),
            zombie: None,
        }
    }

    /// The prefix of the results' topics.
    pub(super) fn prefix(&self) -> String {
        self.broker.name("out")
    }

    /// Writes the configuration of a life, which has another number of workers than the one before, maybe.
    pub(super) fn configure(&mut self) {
        let workers = self.random.random_range(1..=3_u32);
        let (brokers, topic, keys) = (self.broker.addresses(), &self.topic, &self.keys_topic);
        let (alerts, cluster) = (&self.alerts, &self.cluster);
        let Sinks { delivery, files } = self.sinks;
        let mut sinks = String::new();
        if let Some(delivery) = delivery {
            let prefix = self.prefix();
            sinks += &format!(
                "[sink.kafka]\nbrokers = \"{brokers}\"\nprefix = \"{prefix}\"\npartitions = 3\ndelivery = \"{delivery}\"\n"
            );
        }
        if files {
            sinks += "[sink.files]\ndir = \"out\"\nrotate_bytes = \"1MiB\"\n";
        }
        let config = format!(
            "[job]\nname = \"crashing\"\ntick = \"50ms\"\nworkers = {workers}\nreload = \"1s\"\n\
             [keys]\nfrom = [\"key\"]\nhash = \"none\"\n\
             [[source]]\nname = \"calls\"\nkind = \"kafka\"\nbrokers = \"{brokers}\"\ntopic = \"{topic}\"\n\
             format = \"json\"\n{FIELDS}\n\
             [tables.keys]\nkind = \"kafka\"\nbrokers = \"{brokers}\"\ntopic = \"{keys}\"\nformat = \"json-upsert\"\n\
             [tables.subscriptions]\nkind = \"file\"\npath = \"subscriptions.csv\"\nformat = \"csv\"\n\
             {sinks}{alerts}[http]\nlisten = \"127.0.0.1:0\"\n[log]\nlevel = \"debug\"\n\
             [state]\nurl = \"state\"\ncheckpoint_every = \"1s\"\n{cluster}"
        );
        fs::write(self.job.path("keytide.toml"), config).unwrap();
    }

    /// Changes the table of subscriptions. Who pays for what isn't judged, so any change is as good as another.
    fn change_table(&mut self) {
        let customer = self.random.random_range(0..1_000_u32);
        let rows = format!("id,customer\nsub-a,Acme\nsub-b,Bolt {customer}\nsub-c,Cord\n");
        let (part, to) = (self.job.path("subscriptions.part"), self.job.path("subscriptions.csv"));
        fs::write(&part, rows).unwrap();
        fs::rename(part, to).unwrap();
    }

    /// Starts a life without an end in sight. A process that was stopped is woken once this one is at work, and must
    /// end by itself.
    pub(super) fn start(&mut self, point: Option<(&str, u64)>) -> Running {
        self.configure();
        self.counts.lives += 1;
        let point = point.map(|(point, count)| format!("{point}:{count}"));
        let env: Vec<(&str, &str)> =
            point.iter().map(|point| ("KEYTIDE_FAIL_POINT", point.as_str())).collect();
        let running = Running::start_with(&self.job, &env);
        if let Some(zombie) = self.zombie.take() {
            // One that ends at a fail point before leaves the zombie to the next life.
            if running.ends_before(|| running.count("keytide_ticks_total") >= Some(5)) {
                self.zombie = Some(zombie);
                return running;
            }
            zombie.signal("CONT");
            let (code, log) = zombie.end();
            assert_eq!(code, Some(3), "a process that another took the job from ends:\n{log}");
        }
        running
    }

    /// Lives a life to its end.
    pub(super) fn live(&mut self, end: End) {
        if self.random.random_bool(0.3) {
            self.change_table();
        }
        let point = match end {
            End::At { point, count } => Some((point, count)),
            _ => None,
        };
        let running = self.start(point);
        match end {
            End::Killed => {
                self.sent.wait(self.random.random_range(10..LONGEST));
                self.kill(running);
            }
            End::At { .. } => {
                let until = self.sent.number() + PATIENCE;
                if running.ends_before(|| self.sent.number() >= until) {
                    self.counts.at_points += 1;
                    self.counts.kills += 1;
                    let (code, log) = running.end();
                    assert_eq!(code, None, "{end:?}: {log}");
                } else {
                    self.counts.unreached += 1;
                    self.kill(running);
                }
            }
            End::Stopped => {
                running.until("the job runs", Running::runs);
                self.sent.wait(self.random.random_range(10..LONGEST));
                running.stop();
            }
            End::BrokerKilled => {
                running
                    .until("it publishes ticks", |running| running.count("keytide_ticks_total") >= Some(5));
                self.sent.wait(self.random.random_range(10..LONGEST / 2));
                self.broker.tool(&["kill"], "");
                self.counts.broker_kills += 1;
                self.sent.wait(self.random.random_range(10..LONGEST));
                self.broker.tool(&["start"], "");
                self.sent.wait(self.random.random_range(10..LONGEST));
                self.kill(running);
            }
            End::Woken => {
                running
                    .until("it publishes ticks", |running| running.count("keytide_ticks_total") >= Some(5));
                self.sent.wait(self.random.random_range(10..LONGEST));
                running.signal("STOP");
                // It holds the lock as long as it lives. On another machine that would keep nobody from the state.
                fs::remove_file(self.job.path("state/lock")).unwrap();
                self.counts.zombies += 1;
                self.zombie = Some(running);
            }
        }
    }

    fn kill(&mut self, running: Running) {
        running.signal("KILL");
        let (code, log) = running.end();
        assert_eq!(code, None, "it ended by itself before it was killed:\n{log}");
        self.counts.kills += 1;
    }

    /// Lives until all records are read and for so long that their rows settled, and stops. Nothing is sent any more.
    pub(super) fn finish(&mut self, offsets: &[u64], settles: Duration) {
        let running = self.start(None);
        let sent = offsets.iter().sum::<u64>();
        let is_read = |running: &Running| self.is_read(running, offsets);
        running.until(&format!("all {sent} records are read"), is_read);
        // Ticks go on by the clock, and so do the times at which wide windows are published.
        let all_read = Instant::now();
        while all_read.elapsed() < settles {
            // A wait has a deadline, which is shorter than the long form takes.
            let part = settles.min(all_read.elapsed() + DEADLINE / 4);
            running.until("wide windows are published", |_| all_read.elapsed() >= part);
        }
        running.stop();
        self.check_offsets(offsets);
    }

    /// Returns whether a process knows that all records of so many partitions are read.
    pub(super) fn is_read(&self, running: &Running, offsets: &[u64]) -> bool {
        let metrics = running.metrics();
        let lags = metrics.iter().filter(|(name, _)| name.starts_with("keytide_lag_records{"));
        let lags: Vec<&String> = lags.map(|(_, lag)| lag).collect();
        lags.len() == offsets.len() && lags.iter().all(|lag| *lag == "0")
    }

    /// Checks that the state goes on behind all records.
    pub(super) fn check_offsets(&self, offsets: &[u64]) {
        let state = self.job.path("state");
        let seen = Keytide::new(&["inspect", path(&state), "--json"]).succeed().stdout;
        let seen: Value = serde_json::from_str(&seen).unwrap();
        let partitions = seen["resume"]["partitions"].as_array().unwrap();
        let next = |partition: &Value| partition["next_offset"].as_u64().unwrap();
        let mut by_number: Vec<(u64, u64)> = partitions
            .iter()
            .map(|partition| (partition["number"].as_u64().unwrap(), next(partition)))
            .collect();
        by_number.sort_unstable();
        let read: Vec<u64> = by_number.into_iter().map(|(_, next)| next).collect();
        assert_eq!(read, offsets, "the job stopped before it had read all");
    }
}

impl Drop for Crashing<'_> {
    fn drop(&mut self) {
        if let Some(zombie) = self.zombie.take()
            && !thread::panicking()
        {
            zombie.signal("KILL");
        }
    }
}
