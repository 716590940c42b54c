//! Several processes that do the work of one job: their rows are those of one process, whichever of them is lost.

use std::fs;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use serde_json::Value;

use crate::harness::{LiveProcess, free_addresses, get};
use crate::restart::Restarted;

const SECRET: &str = "a secret of this test, of more than 32 bytes";

/// A job, and the addresses of its processes.
struct TestCluster {
    job: Restarted,
    addresses: Vec<String>,
}

impl TestCluster {
    /// A job of so many processes of `workers`, with more settings of `[cluster]`.
    fn new(processes: usize, workers: usize, more: &str) -> Self {
        let job = Restarted::new();
        job.tables("key-0,sub-a\nkey-1,sub-a\nkey-2,sub-b\nkey-9,\n");
        let mut this = Self { job, addresses: free_addresses(4) };
        this.configure(processes, workers, more);
        this
    }

    fn configure(&mut self, processes: usize, workers: usize, more: &str) {
        let cluster = format!(
            "shared = true\ncheckpoint_every = \"1s\"\n\
             [cluster]\nlisten = \"127.0.0.1:1\"\nprocesses = {processes}\nsettle = \"1s\"\ndead_after = \"10s\"\n\
             secret = \"env:SECRET\"\n{more}[http]\nlisten = \"127.0.0.1:0\"\n"
        );
        self.job.configure(workers, &cluster);
    }

    /// Writes the certificates of all processes beside the configuration; returns the settings that name them.
    fn certificates(&self) -> &'static str {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let node =
            CertificateParams::new(vec!["node".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
        let files =
            [("ca.pem", authority.pem()), ("node.pem", node.pem()), ("node.key", key.serialize_pem())];
        files.iter().for_each(|(name, text)| fs::write(self.job.job.path(name), text).unwrap());
        "[cluster.tls]\ncert = \"node.pem\"\nkey = \"node.key\"\nca = \"ca.pem\"\n"
    }

    fn start(&self, process: usize) -> LiveProcess {
        self.start_with(process, SECRET)
    }

    fn start_with(&self, process: usize, secret: &str) -> LiveProcess {
        let listen = ("KEYTIDE_CLUSTER__LISTEN", self.addresses[process].as_str());
        LiveProcess::start(&self.job.job.path("keytide.toml"), &[listen, ("SECRET", secret)])
    }

    /// Starts a process that says it is where another one would be.
    fn start_astray(&self, process: usize, other: usize) -> LiveProcess {
        let listen = ("KEYTIDE_CLUSTER__LISTEN", self.addresses[process].as_str());
        let advertise = ("KEYTIDE_CLUSTER__ADVERTISE", self.addresses[other].as_str());
        LiveProcess::start(&self.job.job.path("keytide.toml"), &[listen, advertise, ("SECRET", SECRET)])
    }
}

#[test]
fn processes_count_what_one_would_and_go_on_with_any_number_of_them() {
    let mut this = TestCluster::new(2, 1, "");
    for processes in [2, 3, 1] {
        this.configure(processes, 2, "");
        this.job.send(210);
        let lives: Vec<LiveProcess> = (0..processes).map(|process| this.start(process)).collect();
        this.job.wait(&lives[0]);
        // One that is told to end ends all of them.
        lives[processes - 1].signal("TERM");
        // The last one first: if it fails, its log says most.
        for live in lives.into_iter().rev() {
            let (code, log) = live.end();
            assert_eq!(code, Some(0), "{log}");
        }
    }
    assert_eq!(this.job.calls(), this.job.expected());
    this.job.check_files_of(&["usage", "usage_by_route", "latency", "geo", "callers"]);
}

/// Returns what a process says of the job.
fn status(live: &LiveProcess) -> Option<Value> {
    let answer = get(&live.address()?, "/status")?;
    serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
}

#[test]
fn a_process_that_waits_says_so_and_each_shows_the_generation() {
    let mut this = TestCluster::new(2, 1, "");
    this.job.send(70);
    let first = this.start(0);
    let waits = || status(&first).filter(|of| of["waits_for"] == "other processes: 1 of 2 are here");
    let waiting = first.find("it waits", waits).unwrap();
    assert_eq!((&waiting["generation"], &waiting["leads"]), (&Value::from(0), &Value::from(false)));
    let address = first.address().unwrap();
    assert!(get(&address, "/healthz").unwrap().starts_with("HTTP/1.1 200 "), "no restart would help");
    let ready = get(&address, "/readyz").unwrap();
    assert!(ready.contains("503") && ready.contains("waits for other processes: 1 of 2 are here"), "{ready}");
    let second = this.start(1);
    this.job.wait(&first);
    let is_current = |of: &Value| of["waits_for"].is_null() && of["published_tick"].is_string();
    let of = [&first, &second]
        .map(|live| live.find("it shows a tick", || status(live).filter(is_current)).unwrap());
    assert_eq!(of[0]["generation"], of[1]["generation"]);
    assert_eq!(of[0]["processes"], of[1]["processes"]);
    assert_eq!(of[0]["processes"].as_array().unwrap().len(), 2);
    assert_eq!((&of[0]["leads"], &of[1]["leads"]), (&Value::from(true), &Value::from(false)));
    for live in [&first, &second] {
        let address = live.address().unwrap();
        let is_ready = || get(&address, "/readyz").filter(|ready| ready.starts_with("HTTP/1.1 200 "));
        live.find("it is ready", is_ready).unwrap();
    }
    second.signal("TERM");
    for live in [second, first] {
        let (code, log) = live.end();
        assert_eq!(code, Some(0), "{log}");
    }
}

#[test]
fn a_process_that_is_killed_or_frozen_costs_a_new_generation_and_no_row_also_with_tls() {
    let mut this = TestCluster::new(2, 1, "");
    let tls = this.certificates();
    this.configure(2, 1, tls);
    this.job.send(70);
    let mut lives: Vec<LiveProcess> = (0..2).map(|process| this.start(process)).collect();
    this.job.wait(&lives[0]);
    for (signal, of_leader) in [("KILL", false), ("KILL", true), ("STOP", false), ("STOP", true)] {
        let lost = lives.iter().position(|live| live.leads() == of_leader).unwrap();
        lives[lost].signal(signal);
        this.job.send(35);
        if signal == "KILL" {
            lives[lost] = this.start(lost);
        } else {
            // The other one finds out, and waits for it.
            let other = &lives[1 - lost];
            let waits = || {
                other
                    .log()
                    .rfind("begins anew: ")
                    .is_some_and(|at| other.log()[at..].contains("leads the next"))
            };
            other.find("the loss is found", || waits().then_some(())).unwrap();
            lives[lost].signal("CONT");
        }
        this.job.send(35);
        this.job.wait(&lives[1 - lost]);
    }
    lives[0].signal("TERM");
    for live in lives {
        let (code, log) = live.end();
        assert_eq!(code, Some(0), "{log}");
    }
    assert_eq!(this.job.calls(), this.job.expected());
    this.job.check_files_of(&["usage", "usage_by_route"]);
}

#[test]
fn a_process_that_the_others_can_not_reach_takes_no_part_and_is_told() {
    let mut this = TestCluster::new(2, 1, "");
    this.job.send(70);
    let first = this.start(0);
    first.find("it leads", || first.log().contains("leads the next generation").then_some(())).unwrap();
    let astray = this.start_astray(1, 3);
    let told = || astray.log().contains("the process that leads can't reach this one").then_some(());
    astray.find("it is told", told).unwrap();
    let waits = format!("the process that leads to reach this one at {}", this.addresses[3]);
    let shown = || status(&astray).filter(|of| of["waits_for"] == waits);
    astray.find("it shows that", shown).unwrap();
    let second = this.start(2);
    this.job.wait(&first);
    astray.signal("KILL");
    second.signal("TERM");
    for live in [second, first] {
        let (code, log) = live.end();
        assert_eq!(code, Some(0), "{log}");
    }
    assert_eq!(this.job.calls(), this.job.expected());
}

#[test]
fn one_that_does_not_belong_here_is_refused_and_the_job_goes_on() {
    let mut this = TestCluster::new(2, 1, "");
    this.job.send(70);
    let lives: Vec<LiveProcess> = (0..2).map(|process| this.start(process)).collect();
    this.job.wait(&lives[0]);
    let (code, log) = this.start_with(2, "another secret, which has more than 32 bytes, too").end();
    assert_eq!(code, Some(2), "{log}");
    assert!(log.contains("give all processes the same cluster.secret"), "{log}");
    this.configure(2, 2, "");
    let (code, log) = this.start(2).end();
    assert_eq!(code, Some(2), "{log}");
    assert!(log.contains("it has 1 workers and this one 2: set job.workers to the same number"), "{log}");
    let tls = this.certificates();
    this.configure(2, 1, tls);
    // Without TLS it isn't certain that a process of the job answers. So this one waits, and says why.
    let unlike = this.start(2);
    let told =
        || unlike.log().contains("this process has [cluster.tls], and the other one hasn't").then_some(());
    unlike.find("it says why it waits", told).unwrap();
    drop(unlike);
    this.configure(2, 1, "[windows]\nskew = \"7m\"\n");
    let (code, log) = this.start(2).end();
    assert_eq!(code, Some(2), "{log}");
    assert!(log.contains("it has another configuration: give all processes the same file"), "{log}");
    this.job.send(70);
    this.job.wait(&lives[0]);
    lives[1].signal("TERM");
    for live in lives {
        let (code, log) = live.end();
        assert_eq!(code, Some(0), "{log}");
    }
    assert_eq!(this.job.calls(), this.job.expected());
}
