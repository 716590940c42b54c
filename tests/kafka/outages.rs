//! The broker ends, is killed and freezes while calls come in: every call is counted, and once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::broker::Broker;
use crate::harness::{Job, call};
use crate::live::{CALLS, Running, calls_of_keys, config};
use crate::producer::Producer;

/// Does something at the end of its scope.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// Keys that call.
const KEYS: u64 = 7;

#[test]
fn no_call_is_lost_or_counted_twice_while_the_broker_restarts_is_killed_and_freezes() {
    let broker = Broker::alone("outages");
    let topic = broker.topic("calls", 3, &[]);
    let job = Job::with_config(&config(&broker, &topic, "json", CALLS));
    let running = Running::started(&job);
    let (sent, enough) = (AtomicU64::new(0), AtomicBool::new(false));
    let counted = |what: &str, number: u64| {
        running.until(&format!("{number} calls are counted, {what}"), |running| {
            running.count("keytide_events_total") >= Some(number)
        });
        // While calls come in there is always something on its way: this waits for a moment without.
        running.until(&format!("all is acknowledged, {what}"), |running| {
            running.count("keytide_sink_queued_records") == Some(0)
        });
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            let producer = Producer::new(&broker);
            for number in 0..100_000_u64 {
                let line = call(number * 10, &format!("r{number}"), &format!("k{}", number % KEYS));
                producer.send(&topic, i32::try_from(number % 3).unwrap(), None, line.as_bytes());
                sent.store(number + 1, Ordering::Release);
                if number % 5 == 0 {
                    producer.poll(Duration::from_millis(5));
                }
                if enough.load(Ordering::Acquire) {
                    break;
                }
            }
            producer.flush();
        });
        // Also where the test fails.
        let _enough = OnDrop(|| enough.store(true, Ordering::Release));
        let load = |more: u64| {
            let until = sent.load(Ordering::Acquire) + more;
            running.until("calls are made", |_| sent.load(Ordering::Acquire) >= until);
        };
        for (end, begin) in [("stop", "start"), ("kill", "start"), ("pause", "resume")] {
            counted(&format!("before {end}"), sent.load(Ordering::Acquire).max(1));
            broker.tool(&[end], "");
            load(500);
            broker.tool(&[begin], "");
            counted(&format!("after {end} and {begin}"), sent.load(Ordering::Acquire));
        }
    });
    let sent = sent.load(Ordering::Acquire);
    counted("at last", sent);
    assert_eq!(running.count("keytide_messages_total"), Some(sent), "no record is read twice");
    assert_eq!(running.count("keytide_events_total"), Some(sent));
    assert_eq!(running.count("keytide_duplicates_total"), Some(0));
    running.stop();

    let expected: BTreeMap<String, u64> =
        (0..KEYS).map(|key| (format!("k{key}"), (sent + KEYS - 1 - key) / KEYS)).collect();
    assert_eq!(calls_of_keys(&broker, "1mo"), expected);
}

#[test]
fn two_signals_at_once_are_one_and_a_later_one_ends_a_job_whose_broker_does_not_answer() {
    let broker = Broker::alone("second-signal");
    let topic = broker.topic("calls", 1, &[]);
    let job = Job::with_config(&config(&broker, &topic, "json", CALLS));
    let running = Running::started(&job);
    broker.produce(&topic, &format!("{}\n", call(0, "r", "k")));
    running.until_count("keytide_events_total", 1);
    broker.tool(&["pause"], "");
    // Both are there when it goes on, as from a terminal and a supervisor.
    for signal in ["STOP", "TERM", "INT", "CONT"] {
        running.signal(signal);
    }
    running.until("it was told to end", |running| running.log().contains("told to end: finishing"));
    running.until("the second one was taken for the first", |running| {
        running.log().contains("a signal within a second of the one before is the same")
    });
    // One that comes a second after the first counts.
    let (code, log) = running.signalled_to_its_end("TERM");
    assert_eq!(code, Some(75), "{log}");
    assert!(log.contains("ended by a second signal"), "{log}");
}
