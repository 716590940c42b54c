//! Signals to a live job that waits for its brokers. Those to a job that reads are in `tests/kafka/outages.rs`.

use std::net::TcpListener;

use crate::harness::{Job, LiveProcess};

/// A live job whose broker takes connections and never answers.
const CONFIG: &str = r#"
[keys]
from = ["key"]
hash = "none"

[[source]]
name = "log"
kind = "kafka"
brokers = "{brokers}"
topic = "calls"
format = "apisix"
"#;

#[test]
fn a_job_that_waits_for_its_brokers_ends_well_at_the_first_signal() {
    for signal in ["TERM", "INT"] {
        let broker = TcpListener::bind("127.0.0.1:0").unwrap();
        let job = Job::with_config(&CONFIG.replace("{brokers}", &broker.local_addr().unwrap().to_string()));
        let live = LiveProcess::start(&job.path("keytide.toml"), &[]);
        // It asks for the topic, so it listens to signals, and it has nothing to read.
        let connection = broker.accept().unwrap();
        live.signal(signal);
        let (code, log) = live.end();
        drop(connection);
        assert_eq!(code, Some(0), "{signal}: {log}");
        assert!(log.contains("told to end before the job ran: nothing was read"), "{signal}: {log}");
    }
}
