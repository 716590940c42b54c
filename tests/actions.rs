//! A leaked key stops being let in once a person approves it, comes back with one command, and both outlive a kill: a job
//! with a live gateway on probation, from the report of a leak to the deny list, and people who answer.

use std::fs;

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::harness::{Keytide, LiveProcess, path, read_if_present};
use crate::restart::Restarted;

pub(crate) const TOKEN: &str = "the-token-of-alice-0123456789";

/// Returns a key's hash in hexadecimal digits.
pub(crate) fn hash(key: &str) -> String {
    Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes a job whose keys are hashed, with a plan that suspends, reports of leaks, and a gateway that reads a file.
pub(crate) fn configure(this: &mut Restarted, kind: &str) {
    let more = format!(
        "checkpoint_every = \"1s\"\n\
         [tables.plans]\nkind = \"file\"\npath = \"plans.csv\"\nformat = \"csv\"\n\
         [tables.leaks]\nkind = \"file\"\npath = \"leaks.csv\"\nformat = \"csv\"\n\
         [[gateway]]\nname = \"edge\"\n{kind}\n\
         [http]\nlisten = \"127.0.0.1:0\"\n[http.people]\nalice = \"file:alice-token\"\n"
    );
    this.configure(2, &more);
    let file = this.job.path("keytide.toml");
    let config = String::from_utf8(read_if_present(&file).unwrap()).unwrap();
    let config = config
        .replace("hash = \"none\"", "hash = \"sha256\"")
        .replace("tick = \"50ms\"", "tick = \"50ms\"\nreload = \"1s\"");
    fs::write(&file, config).unwrap();
    let keys: String = (0..7).map(|key| format!("{},sub-a\n", hash(&format!("key-{key}")))).collect();
    for (name, text) in [
        ("keys.csv", format!("key_hash,subscription\n{keys}")),
        ("subscriptions.csv", "id,customer,plan\nsub-a,Acme,gold\n".to_owned()),
        ("plans.csv", "id,name,policy\ngold,Gold,suspend\n".to_owned()),
        ("leaks.csv", "token,source,url\n".to_owned()),
        ("alice-token", TOKEN.to_owned()),
    ] {
        fs::write(this.job.path(name), text).unwrap();
    }
}

/// Runs `keytide actions` against a job as alice.
pub(crate) fn actions(this: &Restarted, live: &LiveProcess, arguments: &[&str]) -> Keytide {
    let address = live.find("it serves", || live.address()).unwrap();
    let url = format!("http://{address}");
    let token = format!("file:{}", path(&this.job.path("alice-token")));
    let mut all = vec!["actions", &*url];
    all.extend(arguments);
    all.extend(["--token", &token]);
    Keytide::new(&all)
}

/// Returns the actions; `None` of a job that starts.
pub(crate) fn listed(this: &Restarted, live: &LiveProcess) -> Option<Value> {
    let ended = actions(this, live, &["list", "--json"]).run();
    (ended.code == Some(0)).then(|| serde_json::from_str(&ended.stdout).unwrap())
}

/// Waits until the deny list has exactly this text.
fn wait_for_list(this: &Restarted, live: &LiveProcess, expected: &str) {
    let file = this.job.path("denied.txt");
    let is_there = || {
        let found = read_if_present(&file).and_then(|text| String::from_utf8(text).ok());
        found.filter(|found| found == expected).map(drop)
    };
    live.find(&format!("the deny list is {expected:?}"), is_there).unwrap();
}

#[test]
fn a_reported_key_is_denied_when_a_person_approves_until_one_lets_it_in_and_kills_change_nothing() {
    let mut this = Restarted::new();
    configure(&mut this, "kind = \"file\"\npath = \"denied.txt\"\nmode = \"live\"");
    this.send(70);
    let live = this.start();
    wait_for_list(&this, &live, "");
    // The job has caught up with its calls before the key is reported.
    let is_counted = || (this.calls().values().sum::<u64>() == 70).then_some(());
    live.find("all calls are counted", is_counted).unwrap();
    fs::write(this.job.path("leaks.csv"), "token,source,url\nkey-3,scanner,https://git.example/x\n").unwrap();
    this.send(70);
    let key_id = hash("key-3")[..32].to_owned();
    let of = |page: &Value, action: &str| {
        let list = page["actions"].as_array().unwrap().clone();
        list.into_iter().find(|row| row["action"] == action && row["key_id"] == key_id)
    };
    let is_done = |live: &LiveProcess, action: &str| {
        let done = || of(&listed(&this, live)?, action).filter(|row| row["state"] == "done");
        live.find(action, done).unwrap()
    };
    // The gateway is on probation, also after a kill.
    let is_held = |live: &LiveProcess| {
        let page = live.find("its suspension is held", || {
            listed(&this, live).filter(|page| of(page, "suspend").is_some_and(|row| row["state"] == "held"))
        });
        let page = page.unwrap();
        assert_eq!(page["on_probation"], serde_json::json!(["edge"]));
        of(&page, "suspend").unwrap()
    };
    let held = is_held(&live);
    let reason = "asks a person before suspending the key; held: the gateway edge is on probation until an action that a \
                  person approved is confirmed";
    assert_eq!((&held["reason"], &held["gateway"]), (&reason.into(), &Value::Null));
    live.signal("KILL");
    live.end();
    let live = this.start();
    wait_for_list(&this, &live, "");
    let id = is_held(&live)["action_id"].as_str().unwrap().to_owned();
    actions(&this, &live, &["approve", &id, "--why", "it leaked"]).succeed();
    let denied = format!("{key_id} suspended\n");
    wait_for_list(&this, &live, &denied);
    assert_eq!(is_done(&live, "suspend")["gateway"], "edge");
    live.signal("KILL");
    live.end();

    // The list is made anew from the state, and the same is asked for once.
    fs::remove_file(this.job.path("denied.txt")).unwrap();
    let live = this.start();
    wait_for_list(&this, &live, &denied);
    assert_eq!(is_done(&live, "suspend")["action_id"], *id);
    let twice = actions(&this, &live, &["approve", &id, "--why", "again"]).succeed().stdout;
    assert!(twice.contains("approved by alice: it leaked"), "{twice}");
    let lifted = actions(&this, &live, &["reinstate", &id, "--why", "a test key"]).succeed().stdout;
    assert!(lifted.contains("reinstate") && lifted.contains("reinstated by alice: a test key"), "{lifted}");
    // The answer is committed, so a kill can't undo it.
    live.signal("KILL");
    live.end();
    let live = this.start();
    wait_for_list(&this, &live, "");
    is_done(&live, "reinstate");
    actions(&this, &live, &["pause", "--why", "a storm"]).succeed();
    live.signal("KILL");
    live.end();
    let live = this.start();
    let paused = || listed(&this, &live).map(|page| page["paused"].clone()).filter(|by| !by.is_null());
    let paused = live.find("it is paused", paused);
    assert_eq!(paused.unwrap()["who"], "alice");
    live.stop();

    let audit: Vec<(String, String, Value, Value)> = this
        .rows("audit")
        .iter()
        .map(|row| {
            let text = |column: &str| row[column].as_str().unwrap().to_owned();
            (text("who"), text("what"), row["from"].clone(), row["to"].clone())
        })
        .collect();
    let of = |who: &str, what: &str, from: Value, to: Value| (who.to_owned(), what.to_owned(), from, to);
    assert_eq!(
        audit,
        [
            of("policy", "decide", Value::Null, "held".into()),
            of("alice", "approve", "held".into(), "requested".into()),
            of("edge", "done", "requested".into(), "done".into()),
            of("alice", "reinstate", Value::Null, "requested".into()),
            of("edge", "done", "requested".into(), "done".into()),
            of("alice", "pause", Value::Null, Value::Null),
        ]
    );
    let denied: Vec<Value> = this.rows("denied");
    assert_eq!(denied.len(), 2);
    assert_eq!((&denied[0]["state"], &denied[1]["retracted"]), (&"suspended".into(), &true.into()));
    this.check_files_of(&["audit", "denied", "revocations"]);
}

#[test]
fn people_dismiss_incidents_and_mute_or_accept_keys_and_a_kill_undoes_none_of_it() {
    let mut this = Restarted::new();
    configure(&mut this, "kind = \"file\"\npath = \"denied.txt\"\nmode = \"dry_run\"");
    this.send(70);
    let live = this.start();
    let is_counted = || (this.calls().values().sum::<u64>() == 70).then_some(());
    live.find("all calls are counted", is_counted).unwrap();
    fs::write(this.job.path("leaks.csv"), "token,source,url\nkey-3,scanner,https://git.example/x\n").unwrap();
    let key_id = hash("key-3")[..32].to_owned();
    let held = live
        .find("its suspension is held", || {
            let list = listed(&this, &live)?["actions"].as_array().unwrap().clone();
            list.into_iter().find(|row| row["key_id"] == key_id)
        })
        .unwrap();
    assert_eq!(held["state"], "held");
    let incident = held["incident_id"].as_str().unwrap().to_owned();
    let shown = actions(&this, &live, &["show", &incident]).succeed().stdout;
    assert!(shown.contains("  open  ") && shown.contains("reported"), "{shown}");
    let nobody = actions(&this, &live, &["dismiss", &"0".repeat(32), "--why", "a mistake"]).run();
    assert_eq!(nobody.code, Some(2));
    assert!(nobody.stderr.contains("there is no such incident"), "{}", nobody.stderr);
    let dismissed = actions(&this, &live, &["dismiss", &incident, "--why", "a test"]).succeed().stdout;
    assert!(dismissed.contains("  withdrawn  ") && dismissed.contains("dismissed by alice"), "{dismissed}");
    let muted = actions(&this, &live, &["mute", "partner", "--for", "2h", "--why", "a load test"]).succeed();
    assert!(muted.stdout.contains("muted until "), "{}", muted.stdout);
    live.signal("KILL");
    live.end();

    let live = this.start();
    let page =
        live.find("it lists", || listed(&this, &live).filter(|page| page["muted"] != serde_json::json!([])));
    let page = page.unwrap();
    assert_eq!(
        (&page["muted"][0]["key_id"], &page["muted"][0]["decided"]["who"]),
        (&"partner".into(), &"alice".into())
    );
    assert_eq!(page["actions"][0]["state"], "withdrawn");
    // The same again changes nothing.
    let again =
        actions(&this, &live, &["dismiss", held["action_id"].as_str().unwrap(), "--why", "again"]).succeed();
    assert!(again.stdout.contains("dismissed by alice: a test"), "{}", again.stdout);
    let accepted = actions(&this, &live, &["accept", &key_id, "--why", "our scanner"]).succeed().stdout;
    assert!(accepted.contains("is normal; its newest incident is "), "{accepted}");
    actions(&this, &live, &["mute", "partner", "--for", "0s", "--why", "it is over"]).succeed();
    live.stop();

    let told = this.rows("incident_log");
    let of_key = |row: &&Value| row["key_id"] == key_id;
    let told: Vec<&Value> = told.iter().filter(of_key).map(|row| &row["transition"]).collect();
    assert_eq!(told, ["opened", "withdrawn"]);
    let audit = this.rows("audit");
    let audit: Vec<(&str, &str)> =
        audit.iter().map(|row| (row["target"].as_str().unwrap(), row["what"].as_str().unwrap())).collect();
    let (action, of_incident) = (held["action_id"].as_str().unwrap(), format!("incident/{incident}"));
    let of_key = format!("key/{key_id}");
    assert_eq!(
        audit,
        [
            (action, "decide"),
            (action, "dismiss"),
            (&*of_incident, "dismiss"),
            ("key/partner", "mute"),
            (&*of_key, "accept"),
            ("key/partner", "mute"),
        ]
    );
    this.check_files_of(&["audit", "incident_log", "revocations"]);
}
