//! Signals to a live job that has no brokers yet. What they do to one that reads is in `tests/kafka/outages.rs`.

use std::net::TcpListener;
use std::process::{Command, Stdio};

use crate::harness::{Job, path, repository};

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
        let child = Command::new(env!("CARGO_BIN_EXE_keytide"))
            .args(["run", path(&job.path("keytide.toml"))])
            .env_clear()
            .current_dir(repository())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // It asks for the topic, so it listens to signals, and it has nothing to read.
        let connection = broker.accept().unwrap();
        let told = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
        assert!(told.success(), "{signal}");
        let ended = child.wait_with_output().unwrap();
        drop(connection);
        let log = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(0), "{signal}: {log}");
        assert!(log.contains("told to end before the job ran: nothing was read"), "{signal}: {log}");
    }
}
