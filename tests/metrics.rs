//! `[http]` of a live job, as far as it can be seen without brokers.

use std::net::TcpListener;

use crate::harness::{Job, Keytide, path};

/// A live job whose brokers nobody is. `{listen}` is `[http].listen`.
const CONFIG: &str = r#"
[keys]
from = ["key"]
hash = "none"

[[source]]
name = "log"
kind = "kafka"
brokers = "127.0.0.1:1"
topic = "calls"
format = "apisix"

[http]
listen = "{listen}"
"#;

#[test]
fn a_port_that_somebody_has_ends_the_job_before_it_begins() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let job = Job::with_config(&CONFIG.replace("{listen}", &listen));
    let ended = Keytide::new(&["run", path(&job.path("keytide.toml"))]).run();
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    let told = format!("error: http.listen: can't listen on {listen}: ");
    assert!(ended.stderr.contains(&told), "{}", ended.stderr);
    assert!(!ended.stderr.contains("127.0.0.1:1 ") && ended.stdout.is_empty(), "{}", ended.stderr);
}

#[test]
fn what_others_can_reach_needs_a_token() {
    let job = Job::with_config(&CONFIG.replace("{listen}", "0.0.0.0:0"));
    for command in ["run", "check"] {
        let ended = Keytide::new(&[command, path(&job.path("keytide.toml"))]).run();
        let told = ended.stdout + &ended.stderr;
        assert_eq!(ended.code, Some(2), "{command}: {told}");
        assert!(
            told.contains("http.listen: found 0.0.0.0:0, which others can reach, without a `token`"),
            "{command}: {told}"
        );
    }
}
