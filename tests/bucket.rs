//! A job whose state is in a bucket: it goes on from there, waits out an outage, and gives way to a younger life.
//!
//! They need a store that speaks S3 at `KEYTIDE_TEST_S3`, with the faults of `tests/store/server.py`: run them by
//! `tests/store/run.sh`.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::harness::{Ended, Keytide, path};
use crate::restart::Restarted;

const BUCKET: &str = "keytide-test";
const SECRET: &str = "canary-of-a-secret-key";

/// Returns the address of the store.
fn store() -> String {
    std::env::var("KEYTIDE_TEST_S3").expect("tests/store/run.sh sets KEYTIDE_TEST_S3")
}

/// Returns a job whose state is below a prefix of its own, with a file that holds the secret key.
fn restarted(test: &str) -> Restarted {
    let mut this = Restarted::new();
    this.place = format!("s3://{BUCKET}/{test}");
    fs::write(this.job.path("secret"), SECRET).unwrap();
    this.tables("key-0,sub-a\n");
    this
}

/// Returns `[state.options]` with an access key that names what goes wrong.
fn options(endpoint: &str, access_key: &str) -> String {
    format!(
        "[state.options]\nendpoint = \"{endpoint}\"\nallow_http = true\naccess_key_id = \"{access_key}\"\n\
         secret_access_key = \"file:secret\"\n"
    )
}

/// Runs `keytide inspect` on a bucket, whose address comes from the environment.
fn inspect(place: &str) -> Ended {
    Keytide::new(&["inspect", place])
        .env("AWS_ENDPOINT_URL", &store())
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_ACCESS_KEY_ID", "sound")
        .env("AWS_SECRET_ACCESS_KEY", SECRET)
        .run()
}

/// A way to the store that can be cut.
struct Road {
    address: String,
    state: Arc<Mutex<RoadState>>,
}

#[derive(Default)]
struct RoadState {
    is_cut: bool,
    open: Vec<TcpStream>,
}

impl Road {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let to = store().strip_prefix("http://").unwrap().to_owned();
        let state = Arc::<Mutex<RoadState>>::default();
        let of_thread = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let mut state = of_thread.lock().unwrap();
                if state.is_cut {
                    continue;
                }
                let Ok(server) = TcpStream::connect(&to) else { continue };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    state.open.push(from.try_clone().unwrap());
                    thread::spawn(move || forward(from, to));
                }
            }
        });
        Self { address, state }
    }

    fn cut(&self) {
        let mut state = self.state.lock().unwrap();
        state.is_cut = true;
        state.open.drain(..).for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }

    fn mend(&self) {
        self.state.lock().unwrap().is_cut = false;
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream) {
    let mut block = vec![0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut block) {
        if to.write_all(&block[..read]).is_err() {
            break;
        }
    }
    let _: io::Result<()> = to.shutdown(Shutdown::Write);
}

#[test]
fn a_job_goes_on_from_a_bucket_after_a_stop_and_a_kill_with_other_numbers_of_workers() {
    let mut this = restarted("goes-on");
    let sound = options(&store(), "sound");
    this.configure(2, &sound);
    let checked = Keytide::new(&["check", path(&this.job.path("keytide.toml")), "--connect"]).run();
    assert!(checked.stdout.contains("objects can be written, each once, and deleted"), "{}", checked.stdout);
    assert!(inspect(&this.place).stdout.contains("has no checkpoint"));
    this.send(210);
    this.live_once();
    let seen = inspect(&this.place);
    assert_eq!(seen.code, Some(0), "{}", seen.stderr);
    assert!(seen.stdout.contains("all bytes of the newest are sound"), "{}", seen.stdout);
    assert!(seen.stdout.contains("by life 1"), "{}", seen.stdout);
    this.configure(3, &format!("checkpoint_every = \"1s\"\n{sound}"));
    this.send(210);
    let live = this.start();
    this.wait(&live);
    live.signal("KILL");
    let (code, log) = live.end();
    assert_eq!(code, None, "{log}");
    this.configure(1, &sound);
    this.send(21);
    let live = this.start();
    this.wait(&live);
    let log = live.stop();
    assert!(log.contains("goes on from a checkpoint") && !log.contains(SECRET), "{log}");
    assert_eq!(this.calls(), this.expected());
    this.check_files_of(&["usage", "usage_by_route"]);
}

#[test]
fn a_job_loses_and_repeats_nothing_if_answers_of_the_store_are_lost() {
    let mut this = restarted("lossy");
    for workers in [1, 2] {
        this.configure(workers, &format!("checkpoint_every = \"1s\"\n{}", options(&store(), "lossy")));
        this.send(210);
        let live = this.start();
        this.wait(&live);
        live.signal("KILL");
        live.end();
    }
    this.configure(2, &options(&store(), "sound"));
    this.send(21);
    this.live_once();
    assert_eq!(this.calls(), this.expected());
    this.check_files_of(&["usage", "usage_by_route"]);
}

#[test]
fn a_younger_life_takes_the_job_over_and_the_older_one_says_so() {
    let mut this = restarted("two-lives");
    let sound = options(&store(), "sound");
    this.configure(1, &sound);
    this.send(21);
    let older = this.start();
    this.wait(&older);
    // Its files are its own.
    let younger = {
        this.out = "younger".to_owned();
        this.configure(2, &sound);
        this.start()
    };
    let (code, log) = older.end();
    assert_eq!(code, Some(3), "{log}");
    assert!(log.contains("took over the job (generation 2)"), "{log}");
    younger.find("the younger one goes on", || younger.log().contains("the job runs").then_some(())).unwrap();
    let log = younger.stop();
    assert!(log.contains("the job is this process's"), "{log}");
    assert!(!inspect(&this.place).stdout.contains("by life 1 "));
}

#[test]
fn an_outage_of_the_store_is_waited_out_and_nothing_is_lost() {
    let mut this = restarted("outage");
    let road = Road::new();
    this.configure(2, &format!("checkpoint_every = \"1s\"\n{}", options(&road.address, "sound")));
    this.send(105);
    let live = this.start();
    this.wait(&live);
    road.cut();
    this.send(105);
    let failed = || live.log().contains("a checkpoint failed: state.url: can't write").then_some(());
    live.find("a checkpoint fails", failed).unwrap();
    // A table's change is an input that must be stored before its tick is committed.
    this.tables("key-0,sub-b\n");
    road.mend();
    this.send(105);
    this.wait(&live);
    let written = || {
        let log = live.log();
        let (_, since) = log.rsplit_once("a checkpoint failed")?;
        since.contains("a checkpoint is written").then_some(())
    };
    live.find("a checkpoint works again", written).unwrap();
    live.stop();
    // The store is away while the job starts, and is back.
    road.cut();
    let (code, log) = this.start().end();
    assert_eq!(code, Some(75), "{log}");
    assert!(log.contains("state.url: can't write probes/"), "{log}");
    road.mend();
    this.send(21);
    this.live_once();
    assert_eq!(this.calls(), this.expected());
    this.check_files_of(&["usage", "usage_by_route"]);
}

#[test]
fn a_store_that_can_not_hold_a_state_is_refused_at_the_start_and_by_check_with_what_to_do() {
    let mut this = restarted("refused");
    let bucket = this.place.clone();
    for (place, access_key, expected) in [
        ("s3://keytide-none/a", "sound", "there is no such bucket: create it, or correct the name"),
        (
            &*bucket,
            "refused",
            "the store refuses these credentials, or they lack the right to read, write, list or",
        ),
        (&bucket, "skewed", "the clocks of this machine and of the store are too far apart"),
        (&bucket, "overwrites", "the store wrote an object over one that was there"),
    ] {
        this.place = place.to_owned();
        this.configure(1, &options(&store(), access_key));
        let (code, log) = this.start().end();
        assert_eq!(code, Some(2), "{access_key}: {log}");
        assert!(log.contains(&format!("state.url: {place}: {expected}")), "{log}");
        let checked = Keytide::new(&["check", path(&this.job.path("keytide.toml")), "--connect"]).run();
        assert_eq!(checked.code, Some(2), "{}", checked.stdout);
        assert!(checked.stdout.contains(expected), "{}", checked.stdout);
        assert!(![&log, &checked.stdout, &checked.stderr].iter().any(|text| text.contains(SECRET)));
    }
    let seen = inspect("s3://keytide-none/a");
    assert_eq!(seen.code, Some(2), "{}", seen.stderr);
}
