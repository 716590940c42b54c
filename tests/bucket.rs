//! A job whose state is in a bucket: it goes on from there, waits out an outage, and gives way to a younger life.
//!
//! They need a store that speaks S3 at `KEYTIDE_TEST_S3`, with the faults of `tests/store/server.py`, and one that speaks
//! Azure Blob Storage at `KEYTIDE_TEST_AZURE`: run them by `tests/store/run.sh`.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::harness::{Ended, Keytide, path};
use crate::restart::Restarted;

const BUCKET: &str = "keytide-test";

/// A protocol that stores of objects speak, of which there is one each for the tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    S3,
    Azure,
}

impl Protocol {
    /// Returns the address of the store, without the path.
    fn store(self) -> String {
        let name = match self {
            Self::S3 => "KEYTIDE_TEST_S3",
            Self::Azure => "KEYTIDE_TEST_AZURE",
        };
        std::env::var(name).unwrap_or_else(|_| panic!("tests/store/run.sh sets {name}"))
    }

    /// Returns the secret key. That of the store for Azure is the same for everybody.
    fn secret(self) -> &'static str {
        match self {
            Self::S3 => "canary-of-a-secret-key",
            Self::Azure => {
                "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
            }
        }
    }

    fn place(self, bucket: &str, prefix: &str) -> String {
        match self {
            Self::S3 => format!("s3://{bucket}/{prefix}"),
            Self::Azure => format!("az://{bucket}/{prefix}"),
        }
    }

    /// Returns a job whose state is below a prefix of its own, with a file that holds the secret key.
    fn restarted(self, test: &str) -> Restarted {
        let mut this = Restarted::new();
        this.place = self.place(BUCKET, test);
        fs::write(this.job.path("secret"), self.secret()).unwrap();
        this.tables("key-0,sub-a\n");
        this
    }

    /// Returns `[state.options]`. The access key of the store for S3 names what goes wrong, and the other one has no faults.
    fn options(self, endpoint: &str, access_key: &str) -> String {
        match self {
            Self::S3 => format!(
                "[state.options]\nendpoint = \"{endpoint}\"\nallow_http = true\naccess_key_id = \"{access_key}\"\n\
                 secret_access_key = \"file:secret\"\n"
            ),
            Self::Azure => format!(
                "[state.options]\nendpoint = \"{endpoint}/{AZURE_ACCOUNT}\"\nallow_http = true\n\
                 account_name = \"{AZURE_ACCOUNT}\"\naccount_key = \"file:secret\"\n"
            ),
        }
    }

    /// Runs `keytide inspect` on a bucket, whose address comes from the environment.
    fn inspect(self, place: &str) -> Ended {
        let inspect = Keytide::new(&["inspect", place]);
        let store = self.store();
        match self {
            Self::S3 => inspect
                .env("AWS_ENDPOINT_URL", &store)
                .env("AWS_ALLOW_HTTP", "true")
                .env("AWS_ACCESS_KEY_ID", "sound")
                .env("AWS_SECRET_ACCESS_KEY", self.secret()),
            Self::Azure => inspect
                .env("AZURE_STORAGE_ENDPOINT", &format!("{store}/{AZURE_ACCOUNT}"))
                .env("AZURE_ALLOW_HTTP", "true")
                .env("AZURE_STORAGE_ACCOUNT_NAME", AZURE_ACCOUNT)
                .env("AZURE_STORAGE_ACCOUNT_KEY", self.secret()),
        }
        .run()
    }
}

/// The account of the store for Azure.
const AZURE_ACCOUNT: &str = "devstoreaccount1";

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
    fn new(store: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let to = store.strip_prefix("http://").unwrap().to_owned();
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
    goes_on(Protocol::S3);
}

#[test]
fn a_job_goes_on_from_a_container_of_azure_after_a_stop_and_a_kill_with_other_numbers_of_workers() {
    goes_on(Protocol::Azure);
}

fn goes_on(protocol: Protocol) {
    let mut this = protocol.restarted("goes-on");
    let sound = protocol.options(&protocol.store(), "sound");
    let inspect = |place: &str| protocol.inspect(place);
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
    assert!(log.contains("goes on from a checkpoint") && !log.contains(protocol.secret()), "{log}");
    assert_eq!(this.calls(), this.expected());
    this.check_files_of(&["usage", "usage_by_route"]);
}

#[test]
fn a_job_loses_and_repeats_nothing_if_answers_of_the_store_are_lost() {
    let protocol = Protocol::S3;
    let mut this = protocol.restarted("lossy");
    let options = |access_key| protocol.options(&protocol.store(), access_key);
    for workers in [1, 2] {
        this.configure(workers, &format!("checkpoint_every = \"1s\"\n{}", options("lossy")));
        this.send(210);
        let live = this.start();
        this.wait(&live);
        live.signal("KILL");
        live.end();
    }
    this.configure(2, &options("sound"));
    this.send(21);
    this.live_once();
    assert_eq!(this.calls(), this.expected());
    this.check_files_of(&["usage", "usage_by_route"]);
}

#[test]
fn a_younger_life_takes_the_job_over_and_the_older_one_says_so() {
    is_taken_over(Protocol::S3);
}

#[test]
fn a_younger_life_takes_the_job_over_also_in_a_container_of_azure() {
    is_taken_over(Protocol::Azure);
}

fn is_taken_over(protocol: Protocol) {
    let mut this = protocol.restarted("two-lives");
    let sound = protocol.options(&protocol.store(), "sound");
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
    assert!(!protocol.inspect(&this.place).stdout.contains("by life 1 "));
}

#[test]
fn an_outage_of_the_store_is_waited_out_and_nothing_is_lost() {
    outage_is_waited_out(Protocol::S3);
}

#[test]
fn an_outage_of_azure_is_waited_out_and_nothing_is_lost() {
    outage_is_waited_out(Protocol::Azure);
}

fn outage_is_waited_out(protocol: Protocol) {
    let mut this = protocol.restarted("outage");
    let road = Road::new(&protocol.store());
    let sound = protocol.options(&road.address, "sound");
    this.configure(2, &format!("checkpoint_every = \"1s\"\n{sound}"));
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

/// Checks that a start and `check` refuse a store with what a person has to do, and show no secret.
fn assert_refused(this: &Restarted, place: &str, secret: &str, expected: &str) {
    let (code, log) = this.start().end();
    assert_eq!(code, Some(2), "{log}");
    assert!(log.contains(&format!("state.url: {place}: {expected}")), "{log}");
    let checked = Keytide::new(&["check", path(&this.job.path("keytide.toml")), "--connect"]).run();
    assert_eq!(checked.code, Some(2), "{}", checked.stdout);
    assert!(checked.stdout.contains(expected), "{}", checked.stdout);
    assert!(![&log, &checked.stdout, &checked.stderr].iter().any(|text| text.contains(secret)));
}

const NO_BUCKET: &str = "there is no such bucket: create it, or correct the name";
const NO_RIGHT: &str = "the store refuses these credentials, or they lack the right to read, write, list or";

#[test]
fn a_store_that_can_not_hold_a_state_is_refused_at_the_start_and_by_check_with_what_to_do() {
    let protocol = Protocol::S3;
    let mut this = protocol.restarted("refused");
    let bucket = this.place.clone();
    for (place, access_key, expected) in [
        ("s3://keytide-none/a", "sound", NO_BUCKET),
        (&*bucket, "refused", NO_RIGHT),
        (&bucket, "skewed", "the clocks of this machine and of the store are too far apart"),
        (&bucket, "overwrites", "the store wrote an object over one that was there"),
    ] {
        this.place = place.to_owned();
        this.configure(1, &protocol.options(&protocol.store(), access_key));
        assert_refused(&this, place, protocol.secret(), expected);
    }
    let seen = protocol.inspect("s3://keytide-none/a");
    assert_eq!(seen.code, Some(2), "{}", seen.stderr);
}

#[test]
fn a_container_of_azure_that_is_missing_or_a_wrong_key_is_refused_with_what_to_do() {
    let protocol = Protocol::Azure;
    let mut this = protocol.restarted("refused");
    let container = this.place.clone();
    let wrong = "Y2FuYXJ5LW9mLWEtc2VjcmV0LWtleQ==";
    for (place, key, expected) in
        [("az://keytide-none/a", protocol.secret(), NO_BUCKET), (&*container, wrong, NO_RIGHT)]
    {
        this.place = place.to_owned();
        fs::write(this.job.path("secret"), key).unwrap();
        this.configure(1, &protocol.options(&protocol.store(), "sound"));
        assert_refused(&this, place, key, expected);
    }
    let seen = protocol.inspect("az://keytide-none/a");
    assert_eq!(seen.code, Some(2), "{}", seen.stderr);
}
