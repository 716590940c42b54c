//! A job that is stopped, or killed, and started again with its state: its rows are those of a job that was never
//! interrupted.

use std::collections::BTreeMap;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use keytide_connectors::store::Store;
use mmdb_writer::Writer;
use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};
use serde_json::Value;

use crate::harness::{DEADLINE, FIELDS, Job, Keytide, LiveProcess, path, read, read_if_present, read_text};

const PARTITIONS: i32 = 3;
const KEYS: u64 = 7;

/// The clock of the machine, as the job sees it. Calls of the present stay in windows that are held.
#[allow(clippy::disallowed_methods, reason = "a live job has no other clock, and idle partitions follow it")]
pub(crate) fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

/// Topics of a mock broker, and a job that reads them: `calls`, and `settled` if its configuration says so.
pub(crate) struct Restarted {
    _cluster: MockCluster<'static, DefaultProducerContext>,
    producer: BaseProducer,
    pub(crate) job: Job,
    pub(crate) brokers: String,
    /// The place of the state, as state.url names it.
    pub(crate) place: String,
    /// The folder of the sink.
    pub(crate) out: String,
    /// The time of the first call, in ms since the epoch.
    start: u64,
    sent: u64,
}

impl Restarted {
    pub(crate) fn new() -> Self {
        let cluster = MockCluster::new(1).unwrap();
        let brokers = cluster.bootstrap_servers();
        cluster.create_topic("calls", PARTITIONS, 1).unwrap();
        cluster.create_topic("settled", PARTITIONS, 1).unwrap();
        let producer = ClientConfig::new().set("bootstrap.servers", &brokers).create().unwrap();
        let start = now_ms() - 120_000;
        let job = Job::with_config("");
        let (place, out) = ("state".to_owned(), "out".to_owned());
        Self { _cluster: cluster, producer, job, brokers, place, out, start, sent: 0 }
    }

    /// Writes the configuration for a life of the job.
    pub(crate) fn configure(&mut self, workers: usize, more: &str) {
        let Self { brokers, place, out, .. } = self;
        let config = format!(
            "[job]\nname = \"restarted\"\ntick = \"50ms\"\nworkers = {workers}\n\
             [keys]\nfrom = [\"key\"]\nhash = \"none\"\n\
             [[source]]\nname = \"calls\"\nkind = \"kafka\"\nbrokers = \"{brokers}\"\ntopic = \"calls\"\nformat = \"json\"\n\
             {FIELDS}\n[tables.keys]\nkind = \"file\"\npath = \"keys.csv\"\nformat = \"csv\"\n\
             [tables.subscriptions]\nkind = \"file\"\npath = \"subscriptions.csv\"\nformat = \"csv\"\n\
             [sink.files]\ndir = \"{out}\"\n[log]\nlevel = \"debug\"\n[state]\nurl = \"{place}\"\n{more}"
        );
        fs::write(self.job.path("keytide.toml"), config).unwrap();
    }

    pub(crate) fn tables(&self, keys: &str) {
        fs::write(self.job.path("keys.csv"), format!("key_id,subscription\n{keys}")).unwrap();
        let subscriptions = "id,customer\nsub-a,Acme\nsub-b,Bolt\n";
        fs::write(self.job.path("subscriptions.csv"), subscriptions).unwrap();
    }

    pub(crate) fn send(&mut self, calls: u64) {
        for _ in 0..calls {
            let at = self.start + self.sent * 20;
            let line = format!(
                r#"{{"id":"r{}","t":{at},"k":"key-{}","route":"/r","status":200,"us":1000,"ip":"192.0.2.1"}}"#,
                self.sent,
                self.sent % KEYS
            );
            let partition = i32::try_from(self.sent % u64::try_from(PARTITIONS).unwrap()).unwrap();
            self.line(partition, &line);
            self.sent += 1;
        }
        self.producer.flush(DEADLINE).unwrap();
    }

    fn line(&self, partition: i32, line: &str) {
        let record = BaseRecord::<(), str>::to("calls").partition(partition).payload(line);
        self.producer.send(record).map_err(|(error, _)| error).unwrap();
    }

    pub(crate) fn start(&self) -> LiveProcess {
        LiveProcess::start(&self.job.path("keytide.toml"), &[])
    }

    /// Waits until the job has written that all calls were made.
    pub(crate) fn wait(&self, live: &LiveProcess) {
        let is_counted = || (self.calls().values().sum::<u64>() == self.sent).then_some(());
        live.find(&format!("{} calls are counted: {:?}", self.sent, self.calls()), is_counted).unwrap();
    }

    /// Starts the job, waits until all calls are counted, and stops it.
    pub(crate) fn live_once(&self) {
        let live = self.start();
        self.wait(&live);
        live.stop();
    }

    /// Returns all rows of a view, in the order of their files.
    pub(crate) fn rows(&self, view: &str) -> Vec<Value> {
        let Ok(folder) = fs::read_dir(self.job.path("out")) else { return Vec::new() };
        let mut files: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let is_of_view = |name: &str| name.strip_prefix(view).is_some_and(|rest| rest.starts_with('-'));
        let files = files.iter().filter(|file| is_of_view(file.file_name().unwrap().to_str().unwrap()));
        let text: Vec<u8> = files.filter_map(|file| read_if_present(file)).flatten().collect();
        let text = String::from_utf8(text).unwrap();
        // The last line may be half written.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Kills a job that goes on counting, starts it again, and compares what it counted.
    fn outlives_a_kill(&mut self, live: LiveProcess) {
        self.send(70);
        self.wait(&live);
        // Rows of open hours come at times of their buckets, within half a minute.
        let has_routes = || (!self.rows("usage_by_route").is_empty()).then_some(());
        live.find("rows of routes are written", has_routes).unwrap();
        live.signal("KILL");
        live.end();
        self.send(7);
        self.live_once();
        assert_eq!(self.calls(), self.expected());
        self.check_files_of(&["usage", "usage_by_route"]);
    }

    /// Checks that the files are as if the job had never been interrupted: versions without a gap, ticks that don't go
    /// back.
    fn check_files(&self) {
        self.check_files_of(&["usage", "usage_by_route", "latency", "geo", "callers", "dead_letters"]);
    }

    /// The same of some views.
    pub(crate) fn check_files_of(&self, views: &[&str]) {
        for &view in views {
            let rows = self.rows(view);
            let number = |row: &Value, column: &str| row[column].as_u64().unwrap();
            let versions: Vec<u64> = rows.iter().map(|row| number(row, "version")).collect();
            assert!(versions.iter().copied().eq(1..=versions.len() as u64), "{view}: {versions:?}");
            assert!(rows.is_sorted_by_key(|row| number(row, "tick")), "{view}");
            assert!(!rows.is_empty(), "{view}");
        }
    }

    /// Returns the calls of each key in all hours, by the newest rows.
    pub(crate) fn calls(&self) -> BTreeMap<String, u64> {
        let mut newest: BTreeMap<(String, String), u64> = BTreeMap::new();
        for row in self.rows("usage").iter().filter(|row| row["window"] == "1m") {
            let text = |column: &str| row[column].as_str().unwrap().to_owned();
            newest.insert((text("key_id"), text("window_start")), row["calls"].as_u64().unwrap());
        }
        let mut calls = BTreeMap::new();
        for ((key, _), of_window) in newest {
            *calls.entry(key).or_default() += of_window;
        }
        calls
    }

    /// Returns how many calls were sent with each key.
    pub(crate) fn expected(&self) -> BTreeMap<String, u64> {
        let of_key = |key| (0..self.sent).filter(|number| number % KEYS == key).count() as u64;
        (0..KEYS).map(|key| (format!("key-{key}"), of_key(key))).collect()
    }
}

#[test]
fn a_job_that_is_stopped_goes_on_with_any_number_of_workers_and_repeats_nothing() {
    let mut this = Restarted::new();
    this.tables("key-0,sub-a\nkey-1,sub-a\nkey-2,sub-b\nkey-9,\n");
    this.line(0, "no record");
    for (life, workers) in [1, 3, 2].into_iter().enumerate() {
        this.configure(workers, "checkpoint_every = \"1h\"");
        if life == 1 {
            // One key changes its owner and one has none any more, while no job runs.
            this.tables("key-0,sub-b\nkey-1,sub-a\nkey-9,\n");
        }
        this.send(210);
        let live = this.start();
        this.wait(&live);
        let log = live.stop();
        assert_eq!(log.contains("goes on from a checkpoint"), life > 0, "{log}");
    }
    assert_eq!(this.calls(), this.expected());
    assert_eq!(this.rows("dead_letters").len(), 2, "of a record and of a table's row, each once");
    assert_eq!(this.rows("late").len(), 0);
    // The same request once more, after two restarts, is known.
    let first = format!(
        r#"{{"id":"r0","t":{},"k":"key-0","route":"/r","status":200,"us":1000,"ip":"192.0.2.1"}}"#,
        this.start
    );
    this.line(0, &first);
    this.send(7);
    this.live_once();
    assert_eq!(this.calls(), this.expected());
    // A look at the state says from where the job would go on.
    let state = this.job.path("state");
    let shown = Keytide::new(&["inspect", path(&state)]).succeed().stdout;
    assert!(shown.contains("all bytes of the newest are sound") && shown.contains("state-usage"), "{shown}");
    let json = Keytide::new(&["inspect", path(&state), "--json"]).succeed().stdout;
    let json: Value = serde_json::from_str(&json).unwrap();
    let offsets = json["resume"]["partitions"].as_array().unwrap().iter();
    let read: u64 = offsets.map(|partition| partition["next_offset"].as_u64().unwrap()).sum();
    assert_eq!(read, this.sent + 2, "all calls, one of them twice, and what was no record: {json}");
    assert_eq!(json["life"]["generation"], 4);
    assert_eq!(
        json["committed"]["number"],
        json["checkpoints"].as_array().unwrap().last().unwrap()["number"]
    );
    // Those of minutes come at once; of a month they may come after the stop.
    let owners: BTreeMap<String, Value> = this
        .rows("usage")
        .into_iter()
        .filter(|row| row["window"] == "1m")
        .map(|row| (row["key_id"].as_str().unwrap().to_owned(), row["subscription"].clone()))
        .collect();
    assert!(owners.len() >= 7, "{owners:?}");
}

#[test]
fn a_job_that_is_killed_goes_on_from_its_newest_checkpoint_and_loses_nothing() {
    let mut this = Restarted::new();
    this.tables("key-0,sub-a\nkey-1,sub-b\n");
    this.configure(2, "checkpoint_every = \"1s\"");
    let mut checkpoints = 0;
    for life in 0..3 {
        this.send(140);
        let live = this.start();
        this.wait(&live);
        let written = || live.log().matches("a checkpoint is written").count().checked_sub(1);
        checkpoints += live.find("a checkpoint is written", written).unwrap() + 1;
        // Behind the checkpoint, and before the end.
        this.line(0, "no record");
        this.send(70);
        this.wait(&live);
        live.signal("KILL");
        let (code, log) = live.end();
        assert_eq!(code, None);
        assert_eq!(log.contains("goes on from a checkpoint"), life > 0, "{log}");
    }
    assert!(checkpoints >= 3);
    let live = this.start();
    this.send(7);
    this.wait(&live);
    live.stop();
    assert_eq!(this.calls(), this.expected());
    // Files went back to the checkpoint, and what came after it was written again.
    this.check_files();
    assert_eq!(this.rows("dead_letters").len(), 3);
}

#[test]
fn a_file_that_lost_rows_of_the_checkpoint_ends_the_start_with_its_name() {
    let mut this = Restarted::new();
    this.tables("key-0,sub-a\n");
    this.configure(1, "");
    this.send(21);
    this.live_once();
    let usage = this.job.path("out/usage-000001.jsonl");
    let rows = read(&usage);
    fs::write(&usage, &rows[..rows.len() / 2]).unwrap();
    let (code, log) = this.start().end();
    assert_eq!(code, Some(3), "{log}");
    assert!(log.contains("usage-000001.jsonl has") && log.contains("bring the file back"), "{log}");
    fs::write(&usage, &rows).unwrap();
    let live = this.start();
    this.send(7);
    this.wait(&live);
    live.stop();
}

/// The mails in a folder, by their Message-IDs.
fn mails(folder: &std::path::Path) -> BTreeMap<String, String> {
    let mut mails = BTreeMap::new();
    for file in fs::read_dir(folder).into_iter().flatten().map(|file| file.unwrap().path()) {
        let mail = if file.extension().is_some_and(|end| end == "eml") { read_text(&file) } else { continue };
        let id = mail.lines().find_map(|line| line.strip_prefix("Message-ID: ")).unwrap().to_owned();
        assert_eq!(mails.insert(id, mail), None, "{file:?}: the same mail with another date or recipient");
    }
    mails
}

#[test]
fn mails_that_wait_outlive_a_kill_and_a_stop_and_come_once() {
    let mut this = Restarted::new();
    this.tables("key-0,sub-a\n");
    // Calls with a revoked key that are answered are incidents at once.
    let keys = "key_id,subscription,state,revoked_at\n\
                key-1,sub-a,revoked,2025-01-01T00:00:00Z\nkey-2,sub-b,revoked,2025-01-01T00:00:00Z\n";
    fs::write(this.job.path("keys.csv"), keys).unwrap();
    let alerts = "checkpoint_every = \"1s\"\n[alerts.email]\ndir = \"mails\"\nfrom = \"keytide@localhost\"\n\
                  to = [\"ops@localhost\"]\n";
    this.configure(2, alerts);
    // A file where the folder should be keeps mails from being written.
    let folder = this.job.path("mails");
    fs::write(&folder, "").unwrap();
    this.send(70);
    let tried = |live: &LiveProcess| {
        let is_tried = || live.log().contains("a mail can't be sent now").then_some(());
        live.find("a mail is tried", is_tried).unwrap();
    };
    let live = this.start();
    tried(&live);
    live.signal("KILL");
    live.end();
    this.send(7);
    let live = this.start();
    tried(&live);
    // Mails that wait are tried before the job runs, and one that is stopped before that says nothing of them.
    this.wait(&live);
    let log = live.stop();
    assert!(log.contains("mails and webhooks that wait are in the state"), "{log}");
    assert!(!log.contains("the job ends before all mails"), "{log}");
    fs::remove_file(&folder).unwrap();
    // Each transition that is in the log gets its mail now.
    let id =
        |row: &Value| format!("<{}.{}.security@localhost>", row["incident_id"].as_str().unwrap(), row["seq"]);
    let live = this.start();
    let are_told = || {
        let (rows, mails) = (this.rows("incident_log"), mails(&folder));
        (rows.len() >= 2 && rows.iter().all(|row| mails.contains_key(&id(row)))).then_some(mails)
    };
    let first = live.find("each transition has its mail", are_told).unwrap();
    live.signal("KILL");
    live.end();
    // None comes again, but the last one may have been under way.
    fs::rename(&folder, this.job.path("earlier")).unwrap();
    this.send(7);
    this.live_once();
    let later = mails(&folder);
    let again: Vec<&String> = later.keys().filter(|id| first.contains_key(*id)).collect();
    assert!(again.len() <= 1, "{again:?}");
    assert!(again.iter().all(|id| first[*id] == later[*id]), "it is as it was: {again:?}");
    let rows = this.rows("incident_log");
    assert!(rows.iter().map(id).all(|id| first.contains_key(&id) || later.contains_key(&id)));
    assert_eq!(first.len() + later.len() - again.len(), rows.len());
}

#[test]
fn a_state_whose_rows_can_not_be_read_ends_the_job_with_the_place() {
    let mut this = Restarted::new();
    this.tables("key-0,sub-a\n");
    this.configure(2, "");
    this.send(21);
    this.live_once();
    // A checkpoint that is whole, with a row that no version wrote.
    let store = Store::open(&this.job.path("state")).unwrap();
    let id = store.folders().unwrap().pop().unwrap();
    let mut newest = store.read(id, store.manifest(id).unwrap().unwrap()).unwrap();
    fs::remove_dir_all(this.job.path("state/checkpoints").join(id.name())).unwrap();
    let mut of_usage = newest.parts.iter_mut().filter(|(name, _)| name.starts_with("state-usage-"));
    let (name, part) = of_usage.next().unwrap();
    part.blocks = vec![vec![0xff; 64]];
    let name = name.strip_prefix("state-").unwrap().to_owned();
    store.write(newest, id.nonce, None).unwrap();
    drop(store);
    let (code, log) = this.start().end();
    assert_eq!(code, Some(3), "{log}");
    assert!(log.contains(&format!("row 0 of state `{name}` can't be read")), "{log}");
}

#[test]
fn a_folder_that_holds_no_state_is_looked_at_without_harm() {
    let job = Job::with_config("");
    let seen = Keytide::new(&["inspect", path(&job.path("nothing"))]).run();
    assert_eq!(seen.code, Some(2));
    assert!(seen.stderr.contains("can't open"), "{}", seen.stderr);
    let empty = Keytide::new(&["inspect", path(job.folder())]).succeed().stdout;
    assert!(empty.contains("has no checkpoint"), "{empty}");
}

#[test]
fn a_state_that_this_job_can_not_go_on_from_ends_the_start_with_what_to_do() {
    let mut this = Restarted::new();
    this.tables("key-0,sub-a\n");
    this.configure(1, "");
    this.send(21);
    let live = this.start();
    this.wait(&live);
    // A second process of the same job.
    let (code, log) = this.start().end();
    assert_eq!(code, Some(75), "{log}");
    assert!(log.contains("is in use by process"), "{log}");
    live.stop();

    let config = read_text(&this.job.path("keytide.toml"));
    fs::write(this.job.path("keytide.toml"), config.replace("\"restarted\"", "\"other\"")).unwrap();
    let (code, log) = this.start().end();
    assert_eq!(code, Some(2), "{log}");
    assert!(log.contains("belongs to the job `restarted`"), "{log}");
    fs::write(this.job.path("keytide.toml"), config).unwrap();

    // The ledger without its checkpoints, and the other way round.
    let (checkpoints, ledger) = (this.job.path("state/checkpoints"), this.job.path("state/ledger"));
    let aside = this.job.path("aside");
    let first = ledger.join(format!("{:020}", 1));
    let has_first = first.exists();
    fs::rename(&checkpoints, &aside).unwrap();
    if has_first {
        fs::remove_file(&first).unwrap();
    }
    let (code, log) = this.start().end();
    assert_eq!(code, Some(3), "{log}");
    assert!(log.contains("has no checkpoint of a tick that the ledger knows"), "{log}");
    fs::rename(&aside, &checkpoints).unwrap();
    fs::rename(&ledger, &aside).unwrap();
    let (code, log) = this.start().end();
    assert_eq!(code, Some(3), "{log}");
    assert!(log.contains("has a state, and the ledger knows none of its ticks"), "{log}");
}

/// Returns a database of the whole world, in which every address is in `country`.
fn world(country: &str) -> Vec<u8> {
    let mut world = Writer::builder("World-Country").description(&[("en", "one country")]).build();
    for half in ["::/1", "8000::/1"] {
        let record = mmdb_writer::Value::map([("country_code", country)]);
        world.insert_value(half.parse::<IpNet>().unwrap(), record).unwrap();
    }
    world.to_bytes().unwrap()
}

#[test]
fn ticks_are_made_again_with_the_geo_databases_that_they_had() {
    let mut this = Restarted::new();
    this.tables("key-0,sub-a\n");
    // No checkpoint but the first: everything is made again from there.
    this.configure(2, "checkpoint_every = \"1h\"\n[geo]\ncountry = \"world.mmdb\"\n");
    let config = read_text(&this.job.path("keytide.toml"));
    fs::write(this.job.path("keytide.toml"), config.replace("[job]\n", "[job]\nreload = \"1s\"\n")).unwrap();
    fs::write(this.job.path("world.mmdb"), world("IS")).unwrap();
    let live = this.start();
    live.find("the first checkpoint", || live.log().contains("a checkpoint is written").then_some(()))
        .unwrap();
    this.send(70);
    this.wait(&live);
    fs::write(this.job.path("world.mmdb"), world("NO")).unwrap();
    live.find("the change", || live.log().contains("geo databases changed").then_some(())).unwrap();
    this.send(70);
    this.wait(&live);
    live.signal("KILL");
    live.end();
    let before: Vec<Value> = this.rows("geo");
    // Once more while no job runs.
    fs::write(this.job.path("world.mmdb"), world("SE")).unwrap();
    let live = this.start();
    live.find("the change", || live.log().contains("geo databases changed while").then_some(())).unwrap();
    this.send(70);
    this.wait(&live);
    let log = live.stop();
    assert!(!log.contains("other rows than"), "{log}");
    assert_eq!(this.calls(), this.expected());
    assert_eq!(this.rows("geo")[..before.len()], before[..], "the same rows again");
    // Rows of an hour are published every 30 s. The ticks' tallies say that those of other countries are the same, too.
    let copies = fs::read_dir(this.job.path("state/geo")).unwrap().count();
    assert!(copies >= 2, "of the databases before and after the crash: {copies}");
}

#[test]
fn a_job_goes_on_while_its_state_can_not_be_stored_and_makes_up_for_it_afterwards() {
    let mut this = Restarted::new();
    this.tables("key-0,sub-a\n");
    this.configure(2, "checkpoint_every = \"1s\"\n[geo]\ncountry = \"world.mmdb\"\n");
    let config = read_text(&this.job.path("keytide.toml"));
    fs::write(this.job.path("keytide.toml"), config.replace("[job]\n", "[job]\nreload = \"1s\"\n")).unwrap();
    fs::write(this.job.path("world.mmdb"), world("IS")).unwrap();
    let live = this.start();
    live.find("the first checkpoint", || live.log().contains("a checkpoint is written").then_some(()))
        .unwrap();
    // Files in place of the folders let every write fail, for root too.
    let folders = ["state/checkpoints", "state/geo"].map(|folder| this.job.path(folder));
    let aside = ["checkpoints-aside", "geo-aside"].map(|folder| this.job.path(folder));
    for (folder, aside) in folders.iter().zip(&aside) {
        fs::rename(folder, aside).unwrap();
        fs::write(folder, "").unwrap();
    }
    fs::write(this.job.path("world.mmdb"), world("NO")).unwrap();
    this.send(70);
    this.wait(&live);
    for expected in ["a checkpoint failed: state.url: can't", "the old ones stay until this works"] {
        live.find(expected, || live.log().contains(expected).then_some(())).unwrap();
    }
    let since = live.log().len();
    for (folder, aside) in folders.iter().zip(&aside) {
        fs::remove_file(folder).unwrap();
        fs::rename(aside, folder).unwrap();
    }
    for expected in ["the next tick uses the new ones", "a checkpoint is written"] {
        live.find(expected, || live.log()[since..].contains(expected).then_some(())).unwrap();
    }
    this.outlives_a_kill(live);
}

#[test]
fn a_checkpoint_that_does_not_fit_fails_in_the_middle_and_the_next_one_works() {
    let mut this = Restarted::new();
    // Megabytes of a part, beside outputs of some kilobytes.
    let rows: String =
        (0..40_000).map(|key| format!("key-{key},subscription-of-the-key-{key:030}\n")).collect();
    this.tables(&rows);
    this.configure(2, "checkpoint_every = \"1s\"");
    // A write beyond the limit is then an error, and no signal.
    let live = LiveProcess::start_after("trap '' XFSZ", &this.job.path("keytide.toml"));
    live.find("the first checkpoint", || live.log().contains("a checkpoint is written").then_some(()))
        .unwrap();
    live.limit_files("1000000");
    this.send(70);
    this.wait(&live);
    let failed = || {
        let log = live.log();
        let (_, since) = log.split_once("a checkpoint failed: state.url: can't write checkpoints/")?;
        since.contains("File too large").then_some(())
    };
    live.find("a checkpoint fails", failed).unwrap();
    let since = live.log().len();
    live.limit_files("unlimited");
    let written = || live.log()[since..].contains("a checkpoint is written").then_some(());
    live.find("the next checkpoint", written).unwrap();
    this.outlives_a_kill(live);
}

#[test]
fn a_source_is_needed_as_long_as_ticks_are_to_be_made_again_from_it() {
    let mut this = Restarted::new();
    this.tables("key-0,sub-a\n");
    this.configure(1, "checkpoint_every = \"1h\"");
    let live = this.start();
    live.find("the first checkpoint", || live.log().contains("a checkpoint is written").then_some(()))
        .unwrap();
    this.send(70);
    this.wait(&live);
    // Rows are in files before their tick is in the ledger.
    let since = live.log().len();
    live.find("a commit", || live.log()[since..].contains("answer=Committed").then_some(())).unwrap();
    live.signal("KILL");
    live.end();
    let config = read_text(&this.job.path("keytide.toml"));
    let renamed = config.replace("[[source]]\nname = \"calls\"", "[[source]]\nname = \"others\"");
    fs::write(this.job.path("keytide.toml"), renamed).unwrap();
    let (code, log) = this.start().end();
    assert_eq!(code, Some(2), "{log}");
    assert!(log.contains("start the job once with the source"), "{log}");
    fs::write(this.job.path("keytide.toml"), config).unwrap();
    let live = this.start();
    this.send(7);
    this.wait(&live);
    live.stop();
    assert_eq!(this.calls(), this.expected());
}

#[test]
fn a_damaged_checkpoint_is_passed_over_and_the_ticks_since_are_made_again() {
    let mut this = Restarted::new();
    this.tables("key-0,sub-a\nkey-1,sub-b\n");
    this.configure(2, "checkpoint_every = \"1s\"");
    this.send(140);
    let live = this.start();
    this.wait(&live);
    live.find("a checkpoint is written", || live.log().contains("a checkpoint is written").then_some(()))
        .unwrap();
    this.send(70);
    this.wait(&live);
    live.stop();
    let folders = fs::read_dir(this.job.path("state/checkpoints")).unwrap();
    let newest = folders.map(|entry| entry.unwrap().path()).max().unwrap();
    let usage = newest.join("state-usage-rest");
    let mut bytes = read(&usage);
    bytes[0] ^= 1;
    fs::write(&usage, bytes).unwrap();
    let seen = Keytide::new(&["inspect", path(&this.job.path("state"))]).run();
    assert_eq!(seen.code, Some(3), "{}", seen.stderr);
    this.send(7);
    let live = this.start();
    this.wait(&live);
    let log = live.stop();
    assert!(log.contains("state-usage") && log.contains("it is damaged"), "{log}");
    assert!(log.contains("goes on from the checkpoint before it"), "{log}");
    assert_eq!(this.calls(), this.expected());
}
