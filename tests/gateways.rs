//! A live job whose gateway is called about actions: by a receiver that is slow, away, or reports later, and over kills.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, Sender, channel};

use serde_json::{Value, json};

use crate::actions::{actions, configure, hash, listed};
#[cfg(feature = "real-store")]
use crate::harness::get;
use crate::harness::{DEADLINE, LiveProcess, read_if_present};
use crate::restart::Restarted;
use crate::standins::{
    ApisixStandin, Asked, AwsStandin, Failing, Fate, KongStandin, Server, Standin as _, answer,
};

const TOKEN: &str = "the-token-of-the-receiver-0123456789";

/// A receiver whose requests are answered by the test, one by one.
struct Answered {
    server: Server,
    requests: Receiver<Asked>,
    answers: Sender<Option<String>>,
}

impl Answered {
    fn start() -> Self {
        let (asked, requests) = channel();
        let (answers, given) = channel();
        let server = Server::start(move |request| {
            asked.send(request).ok()?;
            given.recv().ok()?
        });
        Self { server, requests, answers }
    }

    /// Waits for the next request.
    fn next(&self) -> Asked {
        self.requests.recv_timeout(DEADLINE).unwrap()
    }

    fn answer(&self, status: u16) {
        self.answers.send(Some(answer(status, ""))).unwrap();
    }

    /// Closes the connection without an answer.
    fn hang_up(&self) {
        self.answers.send(None).unwrap();
    }
}

/// Writes the table of keys, with where gateways have each key.
fn write_keys(this: &Restarted, gateway_of: impl Fn(u64) -> &'static str) {
    let row = |key| {
        let (hash, gateway) = (hash(&format!("key-{key}")), gateway_of(key));
        format!("{hash},sub-a,user-{key},cred-{key},{gateway}\n")
    };
    let rows: String = (0..7).map(row).collect();
    let text = format!("key_hash,subscription,consumer,credential,gateway\n{rows}");
    fs::write(this.job.path("keys.csv"), text).unwrap();
}

/// Waits until an action of a key is in a state.
fn wait_for(this: &Restarted, live: &LiveProcess, action: &str, state: &str) -> Value {
    let find = || {
        let page = listed(this, live)?;
        let list = page["actions"].as_array().unwrap().clone();
        list.into_iter().find(|row| row["action"] == action && row["state"] == state)
    };
    live.find(&format!("{action} is {state}"), find).unwrap()
}

/// Posts the outcome of an action with a token; returns the answer.
fn report(live: &LiveProcess, action: &str, token: &str, body: &str) -> String {
    let address = live.find("it serves", || live.address()).unwrap();
    let mut stream = TcpStream::connect(&address).unwrap();
    write!(
        stream,
        "POST /v1/actions/{action}/outcome HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\nAuthorization: Bearer {token}\r\n\r\n{body}",
        body.len()
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_receiver_is_told_of_an_action_until_it_reports_and_a_kill_repeats_the_call_under_way() {
    let receiver = Answered::start();
    let mut this = Restarted::new();
    let kind = format!(
        "kind = \"webhook\"\nurl = \"http://127.0.0.1:{}/actions\"\nsecret = \"file:alice-token\"\n\
         token = \"file:receiver-token\"\nallow_private = [\"127.0.0.1\"]\ntimeout = \"1m\"\nmode = \"live\"\n\
         probation = false\n\
         [alerts.email]\ndir = \"mails\"\nfrom = \"keytide@example.com\"\nto = [\"security@example.com\"]\nowners = true",
        receiver.server.port
    );
    configure(&mut this, &kind);
    let subscriptions = "id,customer,plan,contacts\nsub-a,Acme,gold,owner@acme.example\n";
    fs::write(this.job.path("subscriptions.csv"), subscriptions).unwrap();
    fs::write(this.job.path("receiver-token"), TOKEN).unwrap();
    write_keys(&this, |_| "");
    this.send(70);
    let live = this.start();
    let is_counted = || (this.calls().values().sum::<u64>() == 70).then_some(());
    live.find("all calls are counted", is_counted).unwrap();
    fs::write(this.job.path("leaks.csv"), "token,source,url\nkey-3,scanner,https://git.example/x\n").unwrap();
    this.send(70);

    // The receiver has the call, and the job dies before the answer.
    let first = receiver.next();
    assert_eq!((&*first.method, &*first.target), ("POST", "/actions"));
    let id = first.header("keytide-id").unwrap().to_owned();
    live.signal("KILL");
    live.end();
    receiver.answer(200);
    let live = this.start();
    let again = receiver.next();
    assert_eq!((again.header("keytide-id"), &again.body), (Some(&*id), &first.body));
    let body: Value = serde_json::from_str(&again.body).unwrap();
    let key_id = hash("key-3")[..32].to_owned();
    assert_eq!(
        (&body["action"], &body["key_id"], &body["consumer"], &body["credential"], &body["undo"]),
        (&json!("suspend"), &json!(key_id), &json!("user-3"), &json!("cred-3"), &Value::Null)
    );
    receiver.hang_up();
    assert_eq!(receiver.next().header("keytide-id"), Some(&*id), "no answer: it is sent again");
    receiver.answer(202);
    wait_for(&this, &live, "suspend", "requested");
    let done = r#"{"state":"done"}"#;
    assert!(report(&live, &id, "another-token", done).starts_with("HTTP/1.1 401 "));
    let other = format!("{:032x}", 1);
    assert!(report(&live, &other, TOKEN, done).starts_with("HTTP/1.1 404 "));
    let taken = report(&live, &id, TOKEN, done);
    assert!(taken.starts_with("HTTP/1.1 202 "), "{taken}");
    assert_eq!(wait_for(&this, &live, "suspend", "done")["gateway"], "edge");
    assert!(report(&live, &id, TOKEN, done).starts_with("HTTP/1.1 404 "), "it isn't requested any more");

    actions(&this, &live, &["reinstate", &id, "--why", "a test key"]).succeed();
    let lifting = receiver.next();
    let body: Value = serde_json::from_str(&lifting.body).unwrap();
    assert_eq!((&body["action"], &body["undo"]), (&json!("reinstate"), &json!(id)));
    receiver.answer(404);
    let failed = wait_for(&this, &live, "reinstate", "failed");
    assert_eq!(failed["reason"], "failed: the receiver answered 404 Not Found: it doesn't know the key");
    let log = live.stop();
    let audit: Vec<(Value, Value)> =
        this.rows("audit").iter().map(|row| (row["who"].clone(), row["what"].clone())).collect();
    let expected = [("policy", "decide"), ("edge", "done"), ("alice", "reinstate"), ("edge", "failed")];
    assert_eq!(audit, expected.map(|(who, what)| (json!(who), json!(what))));
    assert!(!log.contains(TOKEN), "{log}");
    assert!(read_if_present(&this.job.path("denied.txt")).is_none());
    // Each change is a mail to those whom it concerns, and no kill repeats one.
    let files = fs::read_dir(this.job.path("mails")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    let mut told: Vec<String> = names
        .filter_map(|name| Some(name.split_once("-action-")?.1.rsplit_once('-')?.0.to_owned()))
        .collect();
    told.sort();
    let lifting = failed["action_id"].as_str().unwrap();
    let mut expected = [format!("{id}.1.owner"), format!("{id}.1.security"), format!("{lifting}.1.security")];
    expected.sort();
    assert_eq!(told, expected);
}

#[test]
fn a_suspension_waits_for_a_person_while_the_job_has_no_rights() {
    let credentials = [(("user-3".to_owned(), "cred-3".to_owned()), "key-3".to_owned())].into();
    let kong = Failing::start(KongStandin { token: Some(TOKEN), is_read_only: false, credentials });
    let mut this = Restarted::new();
    let section = format!(
        "kind = \"kong\"\nurl = \"http://127.0.0.1:{}\"\nadmin_token = \"file:receiver-token\"\n\
         allow_private = [\"127.0.0.1\"]\nmode = \"live\"\nprobation = false\n",
        kong.port
    );
    configure(&mut this, &section);
    fs::write(this.job.path("receiver-token"), "a-token-that-is-not-the-right-one").unwrap();
    write_keys(&this, |_| "");
    this.send(70);
    let live = this.start();
    let is_counted = || (this.calls().values().sum::<u64>() == 70).then_some(());
    live.find("all calls are counted", is_counted).unwrap();
    fs::write(this.job.path("leaks.csv"), "token,source,url\nkey-3,scanner,https://git.example/x\n").unwrap();
    this.send(70);
    let held = wait_for(&this, &live, "suspend", "held");
    let why = "the Admin API answered 401 Unauthorized: admin_token is wrong, or has too few rights";
    assert_eq!(held["reason"], format!("asks a person before suspending the key again; held: {why}"));
    assert_eq!(kong.state().asked.len(), 1, "it isn't tried again");
    let log = live.stop();
    assert_eq!(log.matches("the gateway refuses the job, so its actions are held").count(), 1, "{log}");

    // Mended rights alone do nothing: a person approves.
    fs::write(this.job.path("receiver-token"), TOKEN).unwrap();
    let live = this.start();
    wait_for(&this, &live, "suspend", "held");
    assert_eq!(kong.state().asked.len(), 1);
    let id = held["action_id"].as_str().unwrap();
    actions(&this, &live, &["approve", id, "--why", "the token is mended"]).succeed();
    wait_for(&this, &live, "suspend", "done");
    assert_eq!(kong.state().effects, 1);
    live.stop();
    let audit: Vec<(Value, Value, Value)> = this
        .rows("audit")
        .iter()
        .map(|row| (row["who"].clone(), row["what"].clone(), row["to"].clone()))
        .collect();
    let expected = [
        ("policy", "decide", "requested"),
        ("edge", "refused", "held"),
        ("alice", "approve", "requested"),
        ("edge", "done", "done"),
    ];
    assert_eq!(audit, expected.map(|(who, what, to)| (json!(who), json!(what), json!(to))));
    assert_eq!(this.rows("denied").len(), 1, "the key was denied all the time");
}

/// It needs moto, see `tests/store/run.sh`.
#[cfg(feature = "real-store")]
#[test]
fn an_api_key_of_aws_is_disabled_and_enabled_again() {
    let of = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("tests/store/run.sh sets {name}"));
    let (address, id) = (of("KEYTIDE_TEST_API_GATEWAY"), of("KEYTIDE_TEST_API_KEY"));
    let mut this = Restarted::new();
    let kind = format!(
        "kind = \"aws-apigateway\"\nregion = \"us-east-1\"\nurl = \"http://{address}\"\ncredentials_file = \"aws\"\n\
         allow_private = [\"127.0.0.1\"]\nmode = \"live\"\nprobation = false"
    );
    configure(&mut this, &kind);
    let credentials =
        format!("[default]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = {TOKEN}\n");
    fs::write(this.job.path("aws"), credentials).unwrap();
    write_keys(&this, |_| "");
    let table = String::from_utf8(read_if_present(&this.job.path("keys.csv")).unwrap()).unwrap();
    fs::write(this.job.path("keys.csv"), table.replace("cred-3", &id)).unwrap();
    this.send(70);
    let live = this.start();
    let is_counted = || (this.calls().values().sum::<u64>() == 70).then_some(());
    live.find("all calls are counted", is_counted).unwrap();
    fs::write(this.job.path("leaks.csv"), "token,source,url\nkey-3,scanner,https://git.example/x\n").unwrap();
    this.send(70);
    let is_enabled = |enabled: bool| {
        let answer = get(&address, &format!("/apikeys/{id}?includeValue=true"))?;
        let key: Value = serde_json::from_str(answer.split_once("\r\n\r\n")?.1).unwrap();
        assert_eq!(key["value"], "key-3");
        (key["enabled"] == enabled).then_some(())
    };
    let suspended = wait_for(&this, &live, "suspend", "done");
    is_enabled(false).unwrap();
    let action = suspended["action_id"].as_str().unwrap();
    actions(&this, &live, &["reinstate", action, "--why", "a test key"]).succeed();
    wait_for(&this, &live, "reinstate", "done");
    is_enabled(true).unwrap();
    let log = live.stop();
    assert!(!log.contains("key-3") && !log.contains(TOKEN), "{log}");
}

#[test]
fn keys_are_suspended_at_kong_apisix_and_aws_and_come_back_as_they_were() {
    let credentials = [(("user-3".to_owned(), "cred-3".to_owned()), "key-3".to_owned())].into();
    let kong = Failing::start(KongStandin { token: Some(TOKEN), is_read_only: false, credentials });
    let credential = "/consumers/user-5/credentials/cred-5";
    let objects = [
        ("/consumers/user-5".to_owned(), json!({ "username": "user-5" })),
        (credential.to_owned(), json!({ "id": "cred-5", "plugins": { "key-auth": { "key": "key-5" } } })),
    ];
    let apisix = Failing::start(ApisixStandin { token: TOKEN, objects: objects.into() });
    let api_keys = [("cred-1".to_owned(), ("key-1".to_owned(), true))].into();
    let aws =
        Failing::start(AwsStandin { access_key_id: "AKIAEXAMPLE", region: "eu-central-1", keys: api_keys });
    let is_enabled = || aws.state().standin.keys["cred-1"].1;
    let keys = || {
        let of_kong = kong.state().standin.keys().remove(0);
        let of_apisix = apisix.state().standin.key(credential).unwrap().to_owned();
        [of_kong, of_apisix]
    };
    // The answer to the first change is lost, so it is looked at again.
    kong.state().fates.extend([Fate::Normal, Fate::DropAfter]);
    apisix.state().fates.extend([Fate::Status(503), Fate::Normal, Fate::DropBefore]);
    aws.state().fates.extend([Fate::Status(429), Fate::Normal, Fate::DropAfter]);

    let mut this = Restarted::new();
    let section = |kind: &str, port: u16| {
        format!(
            "kind = \"{kind}\"\nurl = \"http://127.0.0.1:{port}\"\nadmin_token = \"file:receiver-token\"\n\
             allow_private = [\"127.0.0.1\"]\nmode = \"live\"\nprobation = false\n"
        )
    };
    let (kong_section, apisix_section) = (section("kong", kong.port), section("apisix", apisix.port));
    let policy = "[alerts.policy]\npercent_per_hour = 100";
    let aws_section = format!(
        "kind = \"aws-apigateway\"\nregion = \"eu-central-1\"\nurl = \"http://127.0.0.1:{}\"\ncredentials_file = \"aws\"\n\
         allow_private = [\"127.0.0.1\"]\nmode = \"live\"\nprobation = false\n",
        aws.port
    );
    let others = format!("name = \"inner\"\n{apisix_section}[[gateway]]\nname = \"cloud\"\n{aws_section}");
    configure(&mut this, &format!("{kong_section}[[gateway]]\n{others}{policy}"));
    fs::write(this.job.path("receiver-token"), TOKEN).unwrap();
    let credentials =
        format!("[default]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = {TOKEN}\n");
    fs::write(this.job.path("aws"), credentials).unwrap();
    write_keys(&this, |key| match key {
        3 => "edge",
        1 => "cloud",
        _ => "inner",
    });
    this.send(70);
    let live = this.start();
    let is_counted = || (this.calls().values().sum::<u64>() == 70).then_some(());
    live.find("all calls are counted", is_counted).unwrap();
    let rows = ["key-1", "key-3", "key-5"].map(|key| format!("{key},scanner,https://git.example/x\n"));
    let report = format!("token,source,url\n{}", rows.concat());
    fs::write(this.job.path("leaks.csv"), report).unwrap();
    this.send(70);
    let suspended = || {
        let page = listed(&this, &live)?;
        let list = page["actions"].as_array().unwrap().clone();
        let done = |row: &Value| row["action"] == "suspend" && row["state"] == "done";
        let ids: Vec<String> = list
            .iter()
            .filter(|row| done(row))
            .map(|row| row["action_id"].as_str().unwrap().to_owned())
            .collect();
        (ids.len() == 3).then_some(ids)
    };
    let ids = live.find("all keys are suspended", suspended).unwrap();
    for (key, raw) in keys().iter().zip(["key-3", "key-5"]) {
        assert!(key.starts_with("keytide-suspended.") && key.ends_with(&format!(".{raw}")), "{key}");
    }
    assert!(!is_enabled());
    let effects = || [kong.state().effects, apisix.state().effects, aws.state().effects];
    assert_eq!(effects(), [1, 1, 1]);
    live.signal("KILL");
    let (_, mut log) = live.end();

    let live = this.start();
    wait_for(&this, &live, "suspend", "done");
    actions(&this, &live, &["reinstate", &ids[0], &ids[1], &ids[2], "--why", "test keys"]).succeed();
    let is_back = || (keys() == ["key-3", "key-5"] && is_enabled()).then_some(());
    live.find("all keys are back", is_back).unwrap();
    wait_for(&this, &live, "reinstate", "done");
    log += &live.stop();
    assert_eq!(effects(), [2, 2, 2]);
    // No raw key is in a log, a row, or an address that the gateway was asked for.
    let targets: String = kong
        .state()
        .asked
        .iter()
        .chain(&apisix.state().asked)
        .chain(&aws.state().asked)
        .map(|asked| &*asked.target)
        .collect();
    let rows: String = ["audit", "denied", "revocations", "incidents", "incident_log"]
        .iter()
        .flat_map(|view| this.rows(view))
        .map(|row| row.to_string())
        .collect();
    for raw in ["key-1", "key-3", "key-5", "keytide-suspended", TOKEN] {
        assert!(![&log, &targets, &rows].iter().any(|text| text.contains(raw)), "{raw}");
    }
}
