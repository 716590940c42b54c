//! Mistakes of a connection and of rights, each made on purpose: what `check --connect` and `run` say about them.

use std::collections::BTreeMap;
use std::env;
use std::fs;

use crate::broker::Broker;
use crate::harness::{Ended, Job, Keytide, call, path};
use crate::live::{CALLS, Running, config};

/// The right password of every user, and the wrong one. No output may hold either.
pub(crate) const PASSWORD: &str = "right-canary-61c2";
const WRONG: &str = "wrong-canary-61c2";

/// A listener's address and the settings of its clients.
#[derive(Clone)]
struct Client {
    brokers: String,
    settings: BTreeMap<&'static str, String>,
}

pub(crate) fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run tests/kafka/run.sh"))
}

impl Client {
    fn new(brokers: &str, settings: &[(&'static str, &str)]) -> Self {
        let settings = settings.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Self { brokers: brokers.to_owned(), settings }
    }

    /// Of the listener with TLS and without a user.
    fn tls() -> Self {
        let ca = variable("KEYTIDE_TEST_CA_FILE");
        Self::new(&variable("KEYTIDE_TEST_TLS"), &[("security.protocol", "ssl"), ("ssl.ca.location", &ca)])
    }

    /// Of the listener with TLS, users and ACLs.
    fn user(name: &str) -> Self {
        let ca = variable("KEYTIDE_TEST_CA_FILE");
        let settings = [
            ("security.protocol", "sasl_ssl"),
            ("ssl.ca.location", &*ca),
            ("sasl.mechanism", "SCRAM-SHA-512"),
            ("sasl.username", &format!("env:{}", name_of(name))),
            ("sasl.password", "env:PASSWORD"),
        ];
        Self::new(&variable("KEYTIDE_TEST_SASL"), &settings)
    }

    fn with(mut self, setting: &'static str, value: &str) -> Self {
        self.settings.insert(setting, value.to_owned());
        self
    }

    fn without(mut self, prefix: &str) -> Self {
        self.settings.retain(|name, _| !name.starts_with(prefix));
        self
    }

    /// The section of this client's settings.
    fn section(&self, section: &str) -> String {
        let lines = self.settings.iter().map(|(name, value)| format!("\"{name}\" = \"{value}\"\n"));
        format!("[{section}]\n{}", lines.collect::<String>())
    }

    /// The configuration of a job whose source is read by this client.
    fn reading(&self, topic: &str) -> String {
        format!(
            "[keys]\nfrom = [\"header:apikey\"]\n[[source]]\nname = \"gateway\"\nkind = \"kafka\"\nbrokers = \"{}\"\n\
             topic = \"{topic}\"\nformat = \"apisix\"\n{}",
            self.brokers,
            self.section("source.librdkafka")
        )
    }
}

/// The variable that holds a user's name.
fn name_of(user: &str) -> String {
    format!("USER_{}", user.to_uppercase().replace('-', "_"))
}

/// Makes a user without rights.
pub(crate) fn make_user(broker: &Broker, user: &str) {
    let password = format!("SCRAM-SHA-512=[iterations=4096,password={PASSWORD}]");
    broker.tool(
        &["configs", "--alter", "--entity-type", "users", "--entity-name", user, "--add-config", &password],
        "",
    );
}

pub(crate) fn change_acl(broker: &Broker, change: &str, user: &str, operations: &[&str], resource: &[&str]) {
    let principal = format!("User:{user}");
    let mut arguments = vec!["acls", change, "--force", "--allow-principal", &principal];
    arguments.extend(operations.iter().flat_map(|operation| ["--operation", operation]));
    arguments.extend(resource);
    broker.tool(&arguments, "");
}

/// Runs `keytide check CONFIG --connect`; neither of the passwords may be in its output.
fn checked(config: &str, password: &str, user: &str) -> Ended {
    let job = Job::with_config(config);
    let file = job.path("keytide.toml");
    let check = Keytide::new(&["check", path(&file), "--connect"]);
    let ended = check.env("PASSWORD", password).env(&name_of(user), user).run();
    for text in [&ended.stdout, &ended.stderr] {
        assert!(!text.contains(PASSWORD) && !text.contains(WRONG), "{text}");
    }
    ended
}

#[test]
fn every_mistake_of_a_connection_has_its_own_sentence_with_the_setting_to_change() {
    let broker = Broker::shared("mistakes");
    let topic = broker.topic("calls", 1, &[]);
    let user = broker.name("reader");
    make_user(&broker, &user);
    change_acl(&broker, "--add", &user, &["Read"], &["--topic", &topic]);
    let nowhere = "/nowhere/canary.pem";
    let stranger = variable("KEYTIDE_TEST_STRANGER_FILE");
    let (tls, users, plain) = (Client::tls(), Client::user(&user), Client::new(broker.addresses(), &[]));
    let renamed = Client { brokers: tls.brokers.replace("127.0.0.1", "localhost"), ..tls.clone() };
    let at = |brokers: &str| Client::new(brokers, &[]);
    for (client, password, expected) in [
        (
            at(&tls.brokers),
            PASSWORD,
            "the listener closes connections without TLS: set `security.protocol` to `ssl`",
        ),
        (
            Client { brokers: plain.brokers.clone(), ..tls.clone() },
            PASSWORD,
            "the listener has no TLS: set `security.protocol` to `plaintext`",
        ),
        (
            tls.clone().with("ssl.ca.location", &stranger),
            PASSWORD,
            "the broker's certificate is of an authority that isn't trusted here: set `ssl.ca.location`",
        ),
        (
            renamed,
            PASSWORD,
            "the broker's certificate is for another host: write the host's name as the certificate has it, in `brokers`",
        ),
        (
            tls.clone().with("ssl.ca.location", nowhere),
            PASSWORD,
            "librdkafka refuses the setting `ssl.ca.location`: there is no such file as it names",
        ),
        (
            users.clone(),
            WRONG,
            "the user or the password is wrong: correct `sasl.username` and `sasl.password`",
        ),
        (
            users.clone().with("sasl.mechanism", "PLAIN"),
            PASSWORD,
            "set `sasl.mechanism` to one that it offers, SCRAM-SHA-512",
        ),
        (
            Client { brokers: users.brokers.clone(), ..tls.clone() },
            PASSWORD,
            "the listener closes connections without a user: set `security.protocol` to `sasl_ssl`",
        ),
        (
            Client { brokers: tls.brokers.clone(), ..users.clone() },
            PASSWORD,
            "the listener takes no user: set `security.protocol` to `ssl`",
        ),
        (at("127.0.0.1:1"), PASSWORD, "nothing listens at this port: start the broker, or correct `brokers`"),
        (at("no-such-host.invalid:9092"), PASSWORD, "the host's name is unknown: correct `brokers`"),
    ] {
        let ended = checked(&client.reading(&topic), password, &user);
        assert_eq!(ended.code, Some(2), "{}", ended.stdout);
        let problems: Vec<&str> =
            ended.stdout.lines().filter(|line| line.starts_with("source \"gateway\": ")).collect();
        assert!(matches!(problems[..], [one] if one.contains(expected)), "{expected}\n{}", ended.stdout);
    }
    for client in [plain, tls, users.clone(), users.with("ssl.endpoint.identification.algorithm", "https")] {
        let ended = checked(&client.reading(&topic), PASSWORD, &user);
        assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
        assert!(
            ended.stdout.contains("connect  gateway: 1 partition, 0 records to read\n"),
            "{}",
            ended.stdout
        );
        assert!(ended.stderr.contains("gateway: 1 partition, 0 records to read\n"), "{}", ended.stderr);
    }
    let without = Client::user(&user).without("sasl.password").reading(&topic);
    let ended = checked(&without, PASSWORD, &user);
    assert_eq!(ended.code, Some(2), "{}", ended.stdout);
    assert!(ended.stdout.contains("sasl.password"), "{}", ended.stdout);
}

#[test]
fn a_job_ends_with_2_at_a_certain_mistake_and_with_the_same_sentence() {
    let broker = Broker::shared("certain");
    let topic = broker.topic("calls", 1, &[]);
    let user = broker.name("nobody");
    for (client, expected) in [
        (
            Client::user(&user),
            "the user or the password is wrong: correct `sasl.username` and `sasl.password`",
        ),
        (
            Client::tls().with("ssl.ca.location", &variable("KEYTIDE_TEST_STRANGER_FILE")),
            "the broker's certificate is of an authority that isn't trusted here: set `ssl.ca.location`",
        ),
    ] {
        let job = Job::with_config(&client.reading(&topic));
        let running = Running::start_with(&job, &[("PASSWORD", WRONG), (&name_of(&user), &user)]);
        let (code, log) = running.end();
        assert_eq!(code, Some(2), "{log}");
        assert!(log.contains(&format!("error: {}: ", client.brokers)) && log.contains(expected), "{log}");
        assert!(!log.contains(WRONG), "{log}");
    }
}

/// A job that publishes as a user, with a source that needs no right.
fn publishing(broker: &Broker, topic: &str, user: &Client) -> String {
    let config = config(broker, topic, "json", CALLS);
    let plain = format!("[sink.kafka]\nbrokers = \"{}\"", broker.addresses());
    let of_user = format!("[sink.kafka]\nbrokers = \"{}\"", user.brokers);
    assert!(config.contains(&plain), "{config}");
    config.replace(&plain, &of_user) + &user.section("sink.kafka.librdkafka")
}

#[test]
fn each_missing_right_is_told_before_the_job_runs() {
    let broker = Broker::shared("rights");
    let topic = broker.topic("calls", 1, &[]);
    let (user, prefix) = (broker.name("writer"), broker.name("out"));
    make_user(&broker, &user);
    let client = Client::user(&user);
    let sink = publishing(&broker, &topic, &client);
    let say = |config: &str| {
        let ended = checked(config, PASSWORD, &user);
        (ended.code, ended.stdout)
    };
    let of_prefix = ["--resource-pattern-type", "prefixed", "--topic", &prefix];

    // 1. Nothing is allowed.
    let (code, report) = say(&client.reading(&topic));
    assert_eq!(code, Some(2), "{report}");
    for right in ["Describe", "Read"] {
        let denied = format!("the user has no right {right} on topic `{topic}`: add an ACL that allows it");
        assert!(report.contains(&denied), "{denied}\n{report}");
    }
    let denied = |right: &str| format!("sink.kafka: the user has no right {right} on topics {prefix}.");
    let (code, report) = say(&sink);
    assert_eq!(code, Some(2), "{report}");
    for right in ["Describe", "Write", "Create"] {
        assert!(report.contains(&denied(right)), "{right}\n{report}");
    }
    // 2. A source may be described, and not read.
    change_acl(&broker, "--add", &user, &["Describe"], &["--topic", &topic]);
    let (code, report) = say(&client.reading(&topic));
    assert_eq!(code, Some(2), "{report}");
    assert!(!report.contains("right Describe") && report.contains("right Read"), "{report}");
    // 3. A sink may create its topics: these are tried, and none is made.
    change_acl(&broker, "--add", &user, &["Create", "Write"], &of_prefix);
    let (code, report) = say(&sink);
    assert_eq!(code, Some(0), "{report}");
    assert!(
        report.contains(&format!("connect  sink.kafka: the job will create {prefix}.usage.v1, ")),
        "{report}"
    );
    let topics = broker.tool(&["topic", "--list"], "");
    assert!(!topics.contains(&prefix), "{topics}");
    let (code, report) = say(&sink.replace("partitions = 2", "partitions = 2\nreplication = 3"));
    assert_eq!(code, Some(2), "{report}");
    assert!(
        report.contains("sink.kafka.replication: found 3, allowed: at most 1, the number of brokers"),
        "{report}"
    );
    // 4. Topics that exist: settings that may not be read are a warning, a wrong one is an error.
    broker.topic("out.late.v1", 1, &["cleanup.policy=compact"]);
    let (code, report) = say(&sink);
    assert_eq!(code, Some(0), "{report}");
    let hidden =
        format!("warning: sink.kafka: the user has no right DescribeConfigs on topic {prefix}.late.v1 ");
    assert!(report.contains(&hidden), "{report}");
    change_acl(&broker, "--add", &user, &["DescribeConfigs"], &of_prefix);
    let (code, report) = say(&sink);
    assert_eq!(code, Some(2), "{report}");
    assert!(
        report.contains(&format!("sink.kafka: topic {prefix}.late.v1 has cleanup.policy=compact")),
        "{report}"
    );
    broker.tool(&["topic", "--delete", "--topic", &broker.name("out.late.v1")], "");
}

#[test]
fn a_right_that_the_sink_loses_ends_the_job_with_2_and_says_which() {
    let broker = Broker::shared("lost-right");
    let topic = broker.topic("calls", 1, &[]);
    let (user, prefix) = (broker.name("writer"), broker.name("out"));
    make_user(&broker, &user);
    let of_prefix = ["--resource-pattern-type", "prefixed", "--topic", &prefix];
    let all = ["Create", "Describe", "DescribeConfigs", "Write"];
    change_acl(&broker, "--add", &user, &all, &of_prefix);
    let job = Job::with_config(&publishing(&broker, &topic, &Client::user(&user)));
    let env = [("PASSWORD", PASSWORD), (&*name_of(&user), &*user)];
    let running = Running::start_with(&job, &env);
    running.until("it serves metrics", |running| running.address().is_some());
    broker.produce(&topic, &format!("{}\n", call(0, "r0", "k")));
    running.until_count("keytide_events_total", 1);
    running.until("its rows are out", |running| running.count("keytide_sink_queued_records") == Some(0));
    change_acl(&broker, "--remove", &user, &["Write"], &of_prefix);
    broker.produce(&topic, &format!("{}\n", call(1, "r1", "k")));
    let (code, log) = running.end();
    assert_eq!(code, Some(2), "{log}");
    let denied = format!("sink.kafka: the user has no right Write on topic {prefix}.");
    assert!(log.contains(&denied) && !log.contains(PASSWORD), "{denied}\n{log}");

    // Without a right on any topic the producer gets no id, so that the job ends before a record comes.
    let ended = Running::start_with(&job, &env).end();
    assert_eq!(ended.0, Some(2), "{}", ended.1);
    assert!(ended.1.contains("the user has no right to a producer's id"), "{}", ended.1);
    fs::remove_file(job.path("keytide.toml")).unwrap();
}
