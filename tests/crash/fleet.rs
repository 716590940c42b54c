//! The processes of a job with `[cluster]`, and the faults that they go through.

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use rand::RngExt as _;

use super::job::{Crashing, LONGEST};
use crate::harness::{DEADLINE, free_addresses};
use crate::live::Running;

/// The processes of a job at most.
const MOST: usize = 3;
const SECRET: (&str, &str) = ("SECRET", "the secret of a cluster that is only killed");
/// Records that are sent while a process is frozen for so long that the others notice, about ten seconds.
const UNTIL_NOTICED: u64 = 3_000;

/// What happens to the processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FleetFault {
    /// SIGKILL of so many at once, which come back.
    Killed(usize),
    /// SIGKILL of the process that leads.
    LeaderKilled,
    /// SIGSTOP of one, and SIGCONT before or after the others have noticed.
    Frozen { is_noticed: bool },
    /// SIGKILL of the broker, which comes back.
    BrokerKilled,
    /// SIGTERM, after which another number of processes with another number of workers goes on.
    Stopped,
}

/// The processes of a job.
pub(super) struct Fleet<'a, 'b> {
    pub(super) crashing: &'a mut Crashing<'b>,
    addresses: Vec<String>,
    members: Vec<Running>,
}

impl<'a, 'b> Fleet<'a, 'b> {
    /// Starts a job of several processes, and waits until it runs.
    pub(super) fn start(crashing: &'a mut Crashing<'b>) -> Self {
        let mut this = Self { crashing, addresses: free_addresses(MOST), members: Vec::new() };
        this.start_all();
        this
    }

    fn start_all(&mut self) {
        let processes = self.crashing.random.random_range(2..=MOST);
        self.crashing.cluster.clear();
        write!(
            self.crashing.cluster,
            "shared = true\n[cluster]\nlisten = \"127.0.0.1:1\"\nprocesses = {processes}\nmin_processes = {}\n\
             settle = \"1s\"\ndead_after = \"6s\"\nsecret = \"env:SECRET\"\n",
            processes - 1
        )
        .unwrap();
        self.crashing.configure();
        self.members = (0..processes).map(|process| self.process(process)).collect();
        self.until_it_runs();
    }

    fn process(&mut self, process: usize) -> Running {
        self.crashing.counts.lives += 1;
        let listen = ("KEYTIDE_CLUSTER__LISTEN", self.addresses[process].as_str());
        Running::start_with(&self.crashing.job, &[listen, SECRET])
    }

    /// Returns the process that leads, as far as the logs say. One that was lost may think so, too.
    fn leader(&self) -> Option<usize> {
        self.members.iter().position(Running::leads)
    }

    fn until_it_runs(&self) {
        let started = Instant::now();
        let runs = |member: usize| self.members[member].count("keytide_ticks_total") >= Some(5);
        while !self.leader().is_some_and(runs) {
            assert!(started.elapsed() < DEADLINE, "no process leads a job that publishes:\n{}", self.logs());
            thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// Returns the last lines of each log.
    fn logs(&self) -> String {
        let mut text = String::new();
        for (process, running) in self.members.iter().enumerate() {
            let log = running.log();
            let lines: Vec<&str> = log.lines().filter(|line| !line.contains(" DEBUG ")).collect();
            let last = &lines[lines.len().saturating_sub(40)..];
            writeln!(text, "--- process {process}\n{}", last.join("\n")).unwrap();
        }
        text
    }

    fn send(&mut self, most: u64) {
        let records = self.crashing.random.random_range(10..most);
        self.crashing.sent.wait(records);
    }

    /// Lets a fault happen while calls come in.
    pub(super) fn suffer(&mut self, fault: FleetFault) {
        match fault {
            FleetFault::Killed(count) => {
                let first = self.crashing.random.random_range(0..self.members.len());
                let lost: Vec<usize> = (0..count).map(|next| (first + next) % self.members.len()).collect();
                self.kill(&lost);
            }
            FleetFault::LeaderKilled => {
                self.until_it_runs();
                let leader = self.leader().unwrap_or(0);
                self.kill(&[leader]);
            }
            FleetFault::Frozen { is_noticed } => {
                self.until_it_runs();
                let frozen = self.crashing.random.random_range(0..self.members.len());
                self.members[frozen].signal("STOP");
                self.crashing.counts.zombies += 1;
                self.crashing.sent.wait(if is_noticed { UNTIL_NOTICED } else { 300 });
                self.members[frozen].signal("CONT");
            }
            FleetFault::BrokerKilled => {
                self.crashing.broker.tool(&["kill"], "");
                self.crashing.counts.broker_kills += 1;
                self.send(LONGEST);
                self.crashing.broker.tool(&["start"], "");
            }
            FleetFault::Stopped => {
                self.until_it_runs();
                self.stop_all();
                self.start_all();
            }
        }
        self.send(LONGEST);
    }

    fn kill(&mut self, lost: &[usize]) {
        for member in lost {
            self.members[*member].signal("KILL");
            self.crashing.counts.kills += 1;
        }
        self.send(LONGEST / 4);
        for member in lost {
            let again = self.process(*member);
            let (code, log) = std::mem::replace(&mut self.members[*member], again).end();
            assert_eq!(code, None, "it ended by itself before it was killed:\n{log}");
        }
    }

    fn stop_all(&mut self) {
        for running in &self.members {
            running.signal("TERM");
        }
        for running in self.members.drain(..) {
            let (code, log) = running.end();
            assert_eq!(code, Some(0), "{log}");
        }
    }

    /// Lives until all records are read and for so long that their rows settled, and stops.
    pub(super) fn finish(mut self, offsets: &[u64], settles: Duration) {
        let started = Instant::now();
        let is_read = |member: usize| self.crashing.is_read(&self.members[member], offsets);
        while !self.leader().is_some_and(is_read) {
            assert!(started.elapsed() < DEADLINE, "not all records are read:\n{}", self.logs());
            thread::park_timeout(Duration::from_millis(50));
        }
        thread::park_timeout(settles);
        self.stop_all();
        self.crashing.check_offsets(offsets);
    }
}
