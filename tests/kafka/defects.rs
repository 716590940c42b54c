//! A process of several that has a defect: it begins anew some times, and ends if that doesn't help.

use crate::broker::Broker;
use crate::harness::{Job, call, free_addresses};
use crate::live::{CALLS, Running, config};

const SECRET: (&str, &str) = ("SECRET", "the secret of a process that is alone");

/// A job of one process, which might be one of several.
fn job(broker: &Broker, topic: &str) -> Job {
    let listen = &free_addresses(1)[0];
    let cluster = format!(
        "[state]\nurl = \"state\"\nshared = true\n\
         [cluster]\nlisten = \"{listen}\"\nprocesses = 1\nsecret = \"env:SECRET\"\n"
    );
    Job::with_config(&config(broker, topic, "json", &format!("{CALLS}{cluster}")))
}

#[test]
fn the_fifth_defect_in_a_row_ends_a_process() {
    let broker = Broker::shared("defect");
    let topic = broker.topic("calls", 1, &[]);
    broker.produce(&topic, &(call(0, "r0", "k") + "\n"));
    // Before its first commit, so that none of its lives publishes a tick.
    let point = ("KEYTIDE_FAIL_POINT", "commit-before:1:panic");
    let job = job(&broker, &topic);
    let (code, log) = Running::start_with(&job, &[SECRET, point]).end();
    assert_eq!(code, Some(70), "{log}");
    assert_eq!(log.matches("begins anew: a defect").count(), 4, "{log}");
    assert_eq!(log.matches("a test asked for a defect").count(), 5, "each is reported\n{log}");
    assert!(log.contains("5 generations in a row were lost by a defect"), "{log}");
}

#[test]
fn defects_between_which_ticks_are_published_never_end_a_process() {
    let broker = Broker::shared("defects");
    let topic = broker.topic("calls", 1, &[]);
    // Each life commits some ticks, and makes them again after the next defect.
    let point = ("KEYTIDE_FAIL_POINT", "commit-after:12:panic");
    let job = job(&broker, &topic);
    let running = Running::start_with(&job, &[SECRET, point]);
    running.until("it began anew six times", |running| {
        running.log().matches("begins anew: a defect").count() >= 6
    });
}
