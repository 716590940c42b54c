//! A job that is killed at every step of its actions: each key is suspended exactly as its rows say.
//!
//! ```text
//! leaks, a person's answers ──► keytide run, life after life ──► stand-in of Kong, which kills the job as it is asked
//!                                     └──► audit, denied ──► compared with what the stand-in has in the end
//! ```
//! A life is killed in one of three ways. The stand-in kills it as a request of some number comes, before it acts,
//! after it acted, or while it answers. Or the life ends at a fail point of a tick, a commit or a checkpoint, for which the
//! feature `real-kafka` is needed. Else it is killed at any time. About keys that nobody decided about the gateway is
//! never asked.
//!
//! A long run is one by command, with fail points, and prints a line that begins with `killed:`:
//!
//! ```text
//! KEYTIDE_ACTION_KILLS=1000 KEYTIDE_ACTION_SEED=7 cargo test --features real-kafka --test keytide -- --nocapture killed::
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use keytide_connectors::fail_point::POINTS;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

use crate::actions::{TOKEN, configure, hash};
use crate::harness::{DEADLINE, LiveProcess};
use crate::restart::Restarted;
use crate::standins::{Asked, KongStandin, Server, Standin as _, answer};

/// How long a life goes on that should be killed as it asks, or at a fail point.
const PATIENCE: Duration = Duration::from_secs(8);
/// How often a person looks at the actions.
const ANSWER_EVERY: Duration = Duration::from_millis(200);
/// The longest life that is killed at any time, in milliseconds.
const LONGEST_MS: u64 = 3_000;
/// The fail points that have nothing to do with actions: those of other sinks, of mails and of requests about incidents.
const OTHER_POINTS: [&str; 8] = [
    "record-before",
    "end-before",
    "end-after",
    "delete-before",
    "claim-before",
    "claim-after",
    "outcome-before",
    "outcome-after",
];

/// The step of a request at which the job is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestStep {
    Asked,
    Acted,
    Answering,
}

/// The instant at which a life is killed.
#[derive(Clone, Copy, Debug)]
enum Kill {
    /// At a step of the request of this number.
    Request(u32, RequestStep),
    /// At a fail point, when it is reached so many times.
    Point(&'static str, u32),
    /// So many milliseconds after its start.
    After(u64),
}

/// A Kong that kills the job as it is asked, and keeps what was done to each credential.
#[derive(Default)]
struct KillingKong {
    kong: KongStandin,
    /// The process and when it is killed: at which of the next requests, and at which step.
    victim: Option<(u32, u32, RequestStep)>,
    kills: u64,
    /// How often each credential was suspended, let in and deleted.
    effects: BTreeMap<String, [u64; 3]>,
    asked: BTreeSet<String>,
}

impl KillingKong {
    fn key(&self, place: &(String, String)) -> Option<bool> {
        self.kong.credentials.get(place).map(|key| key.starts_with("keytide-suspended."))
    }

    fn handle(&mut self, asked: &Asked) -> Option<String> {
        let segments: Vec<&str> = asked.target.split('/').collect();
        let ["", "consumers", consumer, "key-auth", id] = segments[..] else { panic!("{}", asked.target) };
        let place = (consumer.to_owned(), id.to_owned());
        self.asked.insert(place.1.clone());
        let hit = match &mut self.victim {
            Some((_, number, _)) if *number > 1 => {
                *number -= 1;
                None
            }
            victim => victim.take(),
        };
        let is_at = |step| hit.is_some_and(|(_, _, at)| at == step);
        if is_at(RequestStep::Asked) {
            self.kill(hit);
            return None;
        }
        let before = self.key(&place);
        let (status, body) = self.kong.act(asked);
        let effect = match (before, self.key(&place)) {
            (Some(false), Some(true)) => Some(0),
            (Some(true), Some(false)) => Some(1),
            (Some(_), None) => Some(2),
            _ => None,
        };
        if let Some(effect) = effect {
            self.effects.entry(place.1).or_default()[effect] += 1;
        }
        if is_at(RequestStep::Acted) {
            self.kill(hit);
            return None;
        }
        // The answer may come before the signal or after it.
        if is_at(RequestStep::Answering) {
            self.kills += 1;
            thread::spawn(move || hit.map(|(process, ..)| kill(process)));
        }
        Some(answer(status, &body))
    }

    fn kill(&mut self, hit: Option<(u32, u32, RequestStep)>) {
        if let Some((process, ..)) = hit {
            kill(process);
            self.kills += 1;
        }
    }
}

fn kill(process: u32) {
    // It is a child that nobody has waited for, so no other process has its id.
    let _ = Command::new("kill").args(["-s", "KILL", &process.to_string()]).status().unwrap();
}

/// A job whose lives are killed.
struct Killed {
    this: Restarted,
    gateway: Arc<Mutex<KillingKong>>,
    random: ChaCha8Rng,
    reported: usize,
    lives: u64,
    at_points: u64,
}

impl Killed {
    fn new(keys: usize, seed: u64) -> Self {
        let credentials = (0..keys)
            .map(|key| ((format!("user-{key}"), format!("cred-{key}")), format!("leaked-{key}")))
            .collect();
        let kong = KongStandin { credentials, ..KongStandin::default() };
        let gateway = Arc::new(Mutex::new(KillingKong { kong, ..KillingKong::default() }));
        let of_server = Arc::clone(&gateway);
        let server = Server::start(move |asked| of_server.lock().unwrap().handle(&asked));
        let mut this = Restarted::new();
        let kind = format!(
            "kind = \"kong\"\nurl = \"http://127.0.0.1:{}\"\nallow_private = [\"127.0.0.1\"]\nmode = \"live\"\n\
             probation = false\n[alerts.policy]\nkeys_per_hour = 1000000\npercent_per_hour = 100",
            server.port
        );
        configure(&mut this, &kind);
        let row = |key| format!("{},sub-a,user-{key},cred-{key}\n", hash(&format!("leaked-{key}")));
        let rows: String = (0..keys).map(row).collect();
        fs::write(this.job.path("keys.csv"), format!("key_hash,subscription,consumer,credential\n{rows}"))
            .unwrap();
        // What a job finds reported as it begins opens no incident.
        this.send(70);
        let live = this.start();
        this.wait(&live);
        live.stop();
        let random = ChaCha8Rng::seed_from_u64(seed);
        Self { this, gateway, random, reported: 0, lives: 0, at_points: 0 }
    }

    /// Reports one more key or two, as a whole file.
    fn report(&mut self) {
        self.reported += self.random.random_range(1..=2_usize);
        let row = |key| format!("leaked-{key},scanner,https://git.example/x\n");
        let rows: String = (0..self.reported).map(row).collect();
        let (part, to) = (self.this.job.path("leaks.part"), self.this.job.path("leaks.csv"));
        fs::write(&part, format!("token,source,url\n{rows}")).unwrap();
        fs::rename(part, to).unwrap();
    }

    /// Approves some of what is held, and reinstates or revokes some of what is suspended. Nothing is said twice in a life,
    /// and a life that ends meanwhile is no error.
    fn answer(&mut self, live: &LiveProcess, known: &mut BTreeSet<(String, String)>) -> Option<()> {
        let page = ask(live, "GET", "", "")?;
        for row in page["actions"].as_array()? {
            let text = |column: &str| row[column].as_str().map(str::to_owned);
            let (id, state) = (text("action_id")?, text("state")?);
            if !known.insert((id.clone(), state.clone())) {
                continue;
            }
            // Nobody ever decides about one key in four.
            let is_undecided = text("key_id")?.starts_with(['0', '1', '2', '3']);
            let verb = match (&*state, &*text("action")?, self.random.random_range(0..10_u32)) {
                ("held", _, 0..6) if !is_undecided => "approve",
                ("done", "suspend", 0..2) => "reinstate",
                ("done", "suspend", 2..3) => "revoke",
                _ => continue,
            };
            ask(live, "POST", &format!("/{id}/{verb}"), r#"{"why":"a test"}"#)?;
        }
        Some(())
    }

    /// Lives a life to its end.
    fn live(&mut self, kill: Kill) {
        self.lives += 1;
        self.report();
        self.this.send(7);
        let point = match kill {
            Kill::Point(point, count) => Some(format!("{point}:{count}")),
            _ => None,
        };
        let env: Vec<(&str, &str)> =
            point.iter().map(|point| ("KEYTIDE_FAIL_POINT", point.as_str())).collect();
        let live = LiveProcess::start(&self.this.job.path("keytide.toml"), &env);
        let started = Instant::now();
        if let Kill::Request(number, step) = kill {
            self.gateway.lock().unwrap().victim = Some((live.id(), number, step));
        }
        let patience = match kill {
            Kill::After(ms) => Duration::from_millis(ms),
            _ => PATIENCE,
        };
        let (mut known, mut answered) = (BTreeSet::new(), started);
        let ends = live.find("its end", || {
            if answered.elapsed() >= ANSWER_EVERY {
                self.answer(&live, &mut known);
                answered = Instant::now();
            }
            (started.elapsed() >= patience).then_some(())
        });
        let ends = ends.is_err();
        self.at_points += u64::from(ends && matches!(kill, Kill::Point(..)));
        live.signal("KILL");
        let (code, log) = live.end();
        self.gateway.lock().unwrap().victim = None;
        assert_eq!(code, None, "it ended by itself: {kill:?}\n{log}");
    }

    /// Lives until nothing is requested any more, and stops. Returns the actions.
    fn finish(&self) -> Vec<Value> {
        let live = self.this.start();
        let reported = self.reported;
        let all = || {
            let page = ask(&live, "GET", "", "")?;
            let actions = page["actions"].as_array()?.clone();
            let keys: BTreeSet<&str> = actions.iter().filter_map(|row| row["key_id"].as_str()).collect();
            let is_over = keys.len() == reported && actions.iter().all(|row| row["state"] != "requested");
            is_over.then_some(actions)
        };
        let actions = live
            .find("all actions are decided", all)
            .unwrap_or_else(|error| panic!("{error}\n{:?}", ask(&live, "GET", "", "")));
        assert!(actions.len() < 1_000, "the list of actions is whole");
        live.stop();
        actions
    }
}

/// Asks the job about actions; `None` if it doesn't answer, or refuses.
fn ask(live: &LiveProcess, method: &str, page: &str, body: &str) -> Option<Value> {
    let address = live.address()?;
    let mut stream = TcpStream::connect(&address).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let length = body.len();
    write!(
        stream,
        "{method} /v1/actions{page} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n\
         Authorization: Bearer {TOKEN}\r\n\r\n{body}"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    if head.starts_with("HTTP/1.1 200 ") { serde_json::from_str(body).ok() } else { None }
}

fn kills(random: &mut ChaCha8Rng, number: u64) -> Kill {
    const STEPS: [RequestStep; 3] = [RequestStep::Asked, RequestStep::Acted, RequestStep::Answering];
    // Each step of the first four requests comes before any comes again: two looks, a change, and what comes next.
    let step = usize::try_from(number).unwrap_or(0);
    let points: Vec<&&str> = POINTS.iter().filter(|point| !OTHER_POINTS.contains(point)).collect();
    match number % 4 {
        3 if cfg!(feature = "real-kafka") => {
            Kill::Point(points[random.random_range(0..points.len())], random.random_range(1..=4))
        }
        2 | 3 => Kill::After(random.random_range(0..LONGEST_MS)),
        _ => Kill::Request(u32::try_from(step / 3 % 4).unwrap_or(0) + 1, STEPS[step % 3]),
    }
}

#[allow(clippy::print_stdout, reason = "a run says what was done to the job, and what was found")]
#[test]
fn a_job_that_is_killed_at_every_step_of_its_actions_suspends_each_key_as_its_rows_say() {
    let number = |name: &str, usual: u64| match env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{text} is no number")),
        Err(_) => usual,
    };
    let (wanted, seed) = (number("KEYTIDE_ACTION_KILLS", 8), number("KEYTIDE_ACTION_SEED", 1));
    let mut killed = Killed::new(2 * usize::try_from(wanted).unwrap() + 2, seed);
    for number in 0..wanted {
        let kill = kills(&mut killed.random, number);
        killed.live(kill);
    }
    let actions = killed.finish();
    let gateway = killed.gateway.lock().unwrap();

    // Each action is requested once at most, and done once.
    let mut requested = BTreeSet::new();
    let mut done = BTreeSet::new();
    for row in killed.this.rows("audit") {
        let target = row["target"].as_str().unwrap().to_owned();
        if row["to"] == "requested" {
            assert!(requested.insert(target), "{row} is requested again");
        } else if row["to"] == "done" {
            assert!(done.insert(target), "{row} is done again");
        }
    }
    let mut denied = BTreeMap::new();
    for row in killed.this.rows("denied") {
        let state = if row["retracted"] == true { Value::Null } else { row["state"].clone() };
        denied.insert(row["key_id"].as_str().unwrap().to_owned(), state);
    }
    let mut calls = 0;
    for key in 0..killed.reported {
        let (key_id, credential) = (hash(&format!("leaked-{key}"))[..32].to_owned(), format!("cred-{key}"));
        let of_key: Vec<&Value> = actions.iter().filter(|row| row["key_id"] == *key_id).collect();
        let count = |action: &str, state: &str| {
            let is_it = |row: &&&Value| row["action"] == action && row["state"] == state;
            of_key.iter().filter(is_it).count() as u64
        };
        assert!(of_key.iter().all(|row| row["state"] != "failed"), "{of_key:?}");
        let is_requested = of_key.iter().any(|row| requested.contains(row["action_id"].as_str().unwrap()));
        assert!(
            is_requested || !gateway.asked.contains(&credential),
            "{credential}: nobody decided {of_key:?}"
        );
        let [suspended, lifted, deleted] = gateway.effects.get(&credential).copied().unwrap_or_default();
        calls += suspended + lifted + deleted;
        let place = (format!("user-{key}"), credential);
        let is = match (gateway.key(&place), denied.get(&key_id)) {
            (Some(is_suspended), None | Some(Value::Null)) => !is_suspended,
            (Some(is_suspended), Some(state)) => is_suspended && state == "suspended",
            (None, state) => state.is_some_and(|state| state == "revoked"),
        };
        assert!(
            is,
            "{place:?} isn't as {:?} after {suspended} suspensions, {lifted} liftings: {of_key:?}",
            denied.get(&key_id)
        );
        // What was withdrawn while it was under way may have come into force, and was lifted then.
        let [least, most] =
            [count("suspend", "done"), count("suspend", "done") + count("suspend", "withdrawn")];
        assert!((least..=most).contains(&suspended), "{place:?}: {suspended} suspensions, {of_key:?}");
        assert!(lifted <= count("reinstate", "done"), "{place:?}: {of_key:?}");
        assert_eq!(deleted, count("revoke", "done"), "{place:?}: {of_key:?}");
    }
    let others: Vec<&String> = gateway
        .asked
        .iter()
        .filter(|credential| {
            let key = credential.strip_prefix("cred-").and_then(|key| key.parse::<usize>().ok());
            key.is_none_or(|key| key >= killed.reported)
        })
        .collect();
    assert!(others.is_empty(), "{others:?} weren't reported");
    println!(
        "killed: seed={seed} kills={} at_requests={} at_points={} keys={} undecided={} actions={} effects={calls} wrong=0",
        killed.lives,
        gateway.kills,
        killed.at_points,
        killed.reported,
        actions.iter().filter(|row| row["state"] == "held").count(),
        actions.len(),
    );
}
