//! Raw keys, put wherever one can stand, searched for in everything that comes out: files, summary, standard output
//! and error, logs, metrics, reports of `check`. For each format as it is read by default, good records and bad.
//!
//! What can't be known as a key: text that stands nowhere where `[keys].from` looks. In a path it would be written as
//! part of the route, in a user agent as evidence; elsewhere nothing writes it.

use std::path::Path;

use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};

use crate::harness::{
    DEADLINE, Ended, FIELDS, Job, Keytide, LiveProcess, START, Views, get, names, path, read_text,
};

/// In place of a raw key. Whatever is searched, is searched for its middle: what was cut off it is a key's piece.
const CANARY: &str = "kt_live_canary5c1f9e0b77d2a4e8";
const MARK: &str = "canary5c1f9e0b";
/// In place of the configuration's secrets.
const SECRET: &str = "secret-canary5c1f9e0b";

/// A format, where its keys are looked for, and a record with a key in every place that a caller can fill.
struct Case {
    format: &'static str,
    /// `[keys].from`.
    from: &'static str,
    /// Below `[[source]]`.
    source: &'static str,
    /// `KEY` stands for the key, `TIME` for the time in ms.
    record: &'static str,
}

const CASES: &[Case] = &[
    Case {
        format: "json",
        from: r#""key", "field:/deep/0/key", "header:apikey""#,
        source: FIELDS,
        record: r#"{"t":TIME,"id":"KEY","k":"KEY","deep":[{"key":"KEY-two"}],"api":"KEY","route":"/r/KEY/x","path":"/p/KEY?key=KEY#KEY","method":"KEY","status":200,"us":1000,"ip":"KEY","xff":"KEY","country":"KEY","agent":"KEY","consumer":"KEY","credential":"KEY","user":"KEY","KEY":"KEY"}"#,
    },
    Case {
        format: "apisix",
        from: r#""header:apikey", "header:authorization", "query:apikey""#,
        source: "",
        record: r#"{"start_time":TIME,"request":{"url":"https://KEY:KEY@api.example.com/v1/KEY?apikey=KEY","uri":"/v1/KEY?apikey=KEY&x=KEY","method":"KEY","querystring":{"apikey":["KEY","KEY"]},"headers":{"ApiKey":"KEY","authorization":"Bearer KEY","user-agent":"KEY","host":"KEY","x-request-id":"KEY"},"size":7},"response":{"status":200,"headers":{"set-cookie":"KEY"},"size":9},"upstream":"KEY","service_id":"KEY","route_id":"KEY","request_id":"KEY","consumer":{"username":"KEY"},"client_ip":"KEY","latency":1.5}"#,
    },
    Case {
        format: "kong",
        from: r#""header:apikey", "header:authorization", "query:apikey""#,
        source: "",
        record: r#"{"started_at":TIME,"request":{"method":"KEY","uri":"/v1/KEY?apikey=KEY","url":"https://api.example.com/v1/KEY?apikey=KEY","size":"7","querystring":{"apikey":"KEY"},"headers":{"apikey":["KEY"],"authorization":"ApiKey KEY","user-agent":"KEY"},"id":"KEY"},"response":{"status":200,"size":"9"},"latencies":{"request":2},"client_ip":"KEY","consumer":{"id":"KEY","username":"KEY"},"authenticated_entity":{"id":"KEY"},"route":{"name":"KEY"},"service":{"name":"KEY"}}"#,
    },
    Case {
        format: "envoy",
        from: r#""field:/x_api_key", "query:apikey""#,
        source: "",
        record: r#"{"start_time":"2025-06-02T08:00:00.000Z","method":"KEY","path":"/v1/KEY?apikey=KEY","x-envoy-origin-path":"/v1/KEY?apikey=KEY","x_api_key":"KEY","response_code":200,"duration":1,"request_id":"KEY","authority":"KEY","user_agent":"KEY","downstream_remote_address":"KEY","x_forwarded_for":"KEY","route_name":"KEY"}"#,
    },
    Case {
        format: "nginx",
        from: r#""field:/http_x_api_key", "query:apikey""#,
        source: "",
        record: r#"{"msec":"1748851200.000","time_iso8601":"2025-06-02T08:00:00+00:00","request":"GET /v1/KEY?apikey=KEY HTTP/1.1","request_uri":"/v1/KEY?apikey=KEY","args":"apikey=KEY","request_method":"KEY","http_x_api_key":"KEY","status":"200","request_time":"0.001","remote_addr":"KEY","remote_user":"KEY","http_user_agent":"KEY","http_referer":"KEY","request_id":"KEY","host":"KEY"}"#,
    },
    Case {
        format: "aws-apigateway",
        from: r#""field:/apiKey", "query:apikey""#,
        source: "",
        record: r#"{"requestId":"KEY","ip":"KEY","user":"KEY","caller":"KEY","requestTimeEpoch":"TIME","httpMethod":"KEY","resourcePath":"/v1/KEY","routeKey":"GET /v1/KEY","path":"/v1/KEY","apiKey":"KEY","status":"200","responseLength":"9","apiId":"KEY","userAgent":"KEY"}"#,
    },
    Case {
        format: "otel",
        from: r#""field:/api_key", "query:apikey", "user""#,
        source: "",
        record: r#"{"time":"2025-06-02T08:00:00Z","http.route":"/v1/KEY","url.path":"/v1/KEY","http.target":"/v1/KEY?apikey=KEY","http.request.method":"KEY","http.response.status_code":200,"http.server.request.duration":0.001,"client.address":"KEY","user_agent.original":"KEY","enduser.id":"KEY","api_key":"KEY","server.address":"KEY"}"#,
    },
    Case {
        format: "cloudwatch",
        from: r#""field:/apiKey", "key", "query:apikey""#,
        source: "",
        record: r#"{"messageType":"DATA_MESSAGE","owner":"KEY","logGroup":"KEY","logStream":"KEY","subscriptionFilters":["KEY"],"logEvents":[{"id":"KEY","timestamp":TIME,"message":"{\"requestId\":\"KEY\",\"ip\":\"KEY\",\"user\":\"KEY\",\"requestTimeEpoch\":\"TIME\",\"httpMethod\":\"KEY\",\"resourcePath\":\"/v1/KEY\",\"path\":\"/v1/KEY\",\"apiKey\":\"KEY\",\"status\":\"200\",\"userAgent\":\"KEY\"}"},{"id":"KEY","timestamp":"KEY","message":"KEY"},{"KEY":"KEY"},"KEY",{"id":"KEY","message":"{\"apiKey\":\"KEY\",\"status\":\"KEY\"}"}]}"#,
    },
    Case {
        format: "cloudevents",
        from: r#""field:/data/key", "field:/apikey", "consumer""#,
        source: "",
        record: r#"{"specversion":"1.0","id":"KEY","source":"KEY","type":"KEY","time":"2025-06-02T08:00:00Z","subject":"KEY","apikey":"KEY","data":{"key":"KEY","method":"KEY","route":"/v1/KEY","path":"/v1/KEY?x=KEY","status":200,"duration_ms":"1","KEY":"KEY"}}"#,
    },
    Case {
        format: "combined",
        from: r#""user", "query:apikey""#,
        source: "",
        record: r#"KEY KEY KEY [02/Jun/2025:08:00:00 +0000] "KEY /v1/KEY?apikey=KEY HTTP/1.1" 200 9 "https://x/?apikey=KEY" "KEY" KEY"#,
    },
];

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

/// Records as OpenTelemetry's collector exports them.
fn enveloped(records: &str) -> String {
    let attributes = ["http.route", "service.name", "enduser.id", "http.request.header.apikey", CANARY]
        .map(|name| format!(r#"{{"key":"{name}","value":{{"stringValue":"{CANARY}"}}}}"#))
        .join(",");
    format!(
        r#"{{"resourceLogs":[{{"resource":{{"attributes":[{attributes}]}},"scopeLogs":[{{"scope":{{"name":"{CANARY}","attributes":[{attributes}]}},"logRecords":[{records}]}}]}}]}}"#
    )
}

impl Case {
    fn record(&self) -> String {
        self.record.replace("TIME", &START.to_string())
    }

    /// The record as it should be, and in every way spoilt. One line each.
    fn lines(&self) -> Vec<Vec<u8>> {
        let good = self.record().replace("KEY", CANARY);
        // Where no key can be read, a segment of a path can't be known for one.
        let pathless = good.replace(&format!("/{CANARY}"), "/x");
        let text = |text: String| text.into_bytes();
        let mut lines = vec![
            text(good.clone()),
            // Encoded as paths and texts may be.
            text(self.record().replace("KEY", &CANARY.replace('_', "%5F"))),
            text(self.record().replace("KEY", &CANARY.replace('c', "%63"))),
            // Wrong values and types.
            text(good.replace("200", &format!("\"{CANARY}\""))),
            text(good.replace("200", CANARY)),
            text(good.replace(&START.to_string(), &format!("\"{CANARY}\""))),
            text(good.replace("2025", CANARY)),
            text(pathless.replace(&format!("\"{CANARY}\""), &format!("{{\"{CANARY}\":[\"{CANARY}\"]}}"))),
            text(good.replace(&format!("\"{CANARY}\""), &format!("[[\"{CANARY}\"],\"{CANARY}\"]"))),
            text(pathless.replace(&format!("\"{CANARY}\""), "true")),
            // Around it.
            text(format!("[{good},{{\"{CANARY}\":\"{CANARY}\"}},\"{CANARY}\",null,{CANARY}]")),
            text(format!("{good}{CANARY}")),
            text(format!("{CANARY}{good}")),
            text(format!("\"{CANARY}\"")),
            text(CANARY.to_owned()),
            // Beyond the limit of a message's bytes; many members, and deep ones.
            text(format!("{good}{}{good}", " ".repeat(8 << 10))),
            text(good.replacen('{', &format!("{{{}", format!("\"{CANARY}\":\"{CANARY}\",").repeat(64)), 1)),
            text(good.replacen('{', &format!("{{\"x\":{}\"{CANARY}\"{},", "[".repeat(9), "]".repeat(9)), 1)),
            // Many values where keys are looked for, and two that differ.
            text(good.replacen(
                '{',
                &format!(
                    "{{{}",
                    format!("\"apiKey\":\"{CANARY}\",\"api_key\":\"{CANARY}\",\"k\":\"{CANARY}\",").repeat(9)
                ),
                1,
            )),
            text(good.replacen(
                '{',
                &format!("{{\"apiKey\":\"{CANARY}-2\",\"api_key\":\"{CANARY}-2\",\"k\":\"{CANARY}-2\","),
                1,
            )),
            // Within other records, as records and as texts.
            text(format!("{{\"log\":{good},\"stream\":\"{CANARY}\"}}")),
            text(format!("{{\"{CANARY}\":\"{CANARY}\",\"message\":{}}}", quoted(&good))),
            text(format!("{{\"records\":[{good},{},\"{CANARY}\",7]}}", quoted(&good))),
            text(quoted(&good)),
            text(format!("2025-06-02T08:00:00.000Z stdout F {good}")),
            text(format!("\0\0\0\0\x07{good}")),
            // In OpenTelemetry's envelopes.
            text(enveloped(&format!("{good},{{\"{CANARY}\":\"{CANARY}\"}},\"{CANARY}\""))),
            text(enveloped(&good.replace("200", &format!("\"{CANARY}\"")))),
            // Bytes that aren't UTF-8, and escapes that JSON doesn't have.
            text(good.replace(CANARY, &format!("{CANARY}\\xff"))),
            good.replace(CANARY, &format!("{CANARY}\u{0}"))
                .bytes()
                .map(|byte| if byte == 0 { 0xFF } else { byte })
                .collect(),
            [good.as_bytes(), b"\xff\xfe"].concat(),
            [b"\xef\xbb\xbf\0", good.as_bytes()].concat(),
            good.replace('/', "/\u{0}").into_bytes(),
        ];
        // Cut off anywhere.
        lines.extend(
            (1..good.len())
                .step_by(5)
                .filter(|end| good.is_char_boundary(*end))
                .map(|end| good.as_bytes()[..end].to_vec()),
        );
        lines
    }

    fn config(&self, hash: &str, kind: &str) -> String {
        let Self { format, from, source, .. } = self;
        format!(
            "[limits]\nmessage_bytes = \"8KiB\"\ntext_bytes = 48\n\
             [keys]\nfrom = [{from}]\n{hash}\n\
             [tables.keys]\nkind = \"file\"\npath = \"keys.csv\"\nformat = \"csv\"\n\
             [tables.subscriptions]\nkind = \"file\"\npath = \"subscriptions.jsonl\"\nformat = \"jsonl\"\n\
             [tables.leaks]\nkind = \"file\"\npath = \"leaks.csv\"\nformat = \"csv\"\n\
             [[source]]\nname = \"log\"\n{kind}\nformat = \"{format}\"\n{source}"
        )
    }

    /// A job that has keys also in a table's `key_hash`, where they don't belong, and in reports of leaks, where they do.
    fn job(&self, hash: &str, kind: &str) -> Job {
        let keys = format!(
            "key_hash,subscription,state,{CANARY}-a-column-that-is-longer-than-names-are\n\
             {CANARY},s,active,x\n{CANARY},{CANARY},{CANARY},x\n\"{CANARY}\n{CANARY}\",s,active,x\n\
             {CANARY}\n{},s,{CANARY},{CANARY}\n",
            "9f".repeat(32)
        );
        let subscriptions = format!("{{\"{CANARY}-a-longer-name\":\n{{\"id\":[\"{CANARY}\"]}}\n{CANARY}\n");
        let leaks = format!(
            "token,source,url,reported_at,{CANARY}\n{CANARY},{CANARY},https://x.example/?k={CANARY},2025-06-02T08:00:00Z,\n\
             {CANARY},s,u,{CANARY},\n\"{CANARY}\n{CANARY}\",s,u,,\n,{CANARY},u,,\n"
        );
        let log = self.lines().join(&b'\n');
        Job::with_config(&self.config(hash, kind))
            .file("keys.csv", keys)
            .file("subscriptions.jsonl", subscriptions)
            .file("leaks.csv", leaks)
            .file("log.jsonl", log)
    }
}

const FILES: &str = "kind = \"file\"\npath = \"log*\"";
const SHA256: &str = "hash = \"sha256\"";
const HMAC: &str = "hash = \"hmac-sha256\"\nsecret = \"env:KEY_SECRET\"";
const PREHASHED: &str = "hash = \"prehashed\"";

/// Panics if a key, or a piece of one, is in any of these texts.
fn assert_none(of: &str, texts: impl IntoIterator<Item = (String, String)>) {
    for (name, text) in texts {
        for mark in [MARK.to_owned(), MARK.replace('c', "%63"), CANARY.replace('_', "%5F")] {
            if let Some(at) = text.find(&mark) {
                let around = text[..at].rfind('\n').map_or(0, |line| line + 1)
                    ..text[at..].find('\n').map_or(text.len(), |end| at + end);
                panic!("{of}: a raw key is in {name}: {}", &text[around]);
            }
        }
    }
}

fn said(ended: &Ended) -> [(String, String); 2] {
    [("stdout".to_owned(), ended.stdout.clone()), ("stderr".to_owned(), ended.stderr.clone())]
}

fn files(folder: &Path) -> Vec<(String, String)> {
    names(folder).into_iter().map(|name| (name.clone(), read_text(&folder.join(&name)))).collect()
}

#[test]
fn no_raw_key_is_in_anything_that_a_replay_or_check_leaves() {
    for case in CASES {
        for hash in [SHA256, HMAC, PREHASHED] {
            let of = format!("{} {}", case.format, hash.lines().next().unwrap());
            let job = case.job(hash, FILES);
            let ended = job.replay().with("--workers 2").env("KEY_SECRET", SECRET).succeed();
            let out = job.path("out");
            let views = Views::new(&out);
            assert!(views.count("dead_letters") > 50, "{of}: bad records are listed");
            // A column that isn't required and can't be read costs no row.
            assert_eq!(views.count("table_dead_letters"), 9, "{of}: bad rows too");
            assert!(
                views.count("events") >= 1,
                "{of}: good records are counted: {}",
                views.text("dead_letters")
            );
            // A key that is no hash counts under `anonymous`.
            if hash != PREHASHED {
                let keys: Vec<String> =
                    views.window("usage", "1d").iter().map(|row| row.text("key_id").to_owned()).collect();
                assert!(keys.iter().any(|key| key.len() == 32), "{of}: and their key is known: {keys:?}");
            }
            assert_none(&of, files(&out).into_iter().chain(said(&ended)));

            let config = job.path("keytide.toml");
            let report = Keytide::new(&["check", path(&config)]).env("KEY_SECRET", SECRET).run();
            for table in ["tables.keys", "tables.leaks"] {
                assert!(report.stdout.contains(table), "{}", report.stdout);
            }
            assert_none(&of, said(&report));
        }
    }
}

#[test]
fn no_message_about_a_configuration_holds_its_secrets() {
    let case = &CASES[0];
    let kafka = format!(
        "kind = \"kafka\"\nbrokers = \"127.0.0.1:1\"\ntopic = \"t\"\n[source.librdkafka]\n\"sasl.username\" = \"{SECRET}\""
    );
    for (hash, kind) in [
        (format!("hash = \"hmac-sha256\"\nsecret = \"{SECRET}\""), FILES.to_owned()),
        (format!("hash = \"{SECRET}\""), FILES.to_owned()),
        (SHA256.to_owned(), format!("{FILES}\n[source.librdkafka]\n\"sasl.password\" = \"{SECRET}\"")),
        (SHA256.to_owned(), kafka.replace("sasl.username", "sasl.password")),
        (SHA256.to_owned(), kafka.replace("sasl.username", "ssl.key.pem")),
        (format!("{SHA256}\nsecret = \"{SECRET}"), FILES.to_owned()),
    ] {
        let job = case.job(&hash, &kind);
        let refused = Keytide::new(&["check", path(&job.path("keytide.toml"))]).run();
        assert_eq!(refused.code, Some(2), "{}", refused.stdout);
        // A value that can't be a secret may be quoted: only `hash` names one here.
        if !hash.starts_with("hash = \"secret") {
            assert_none("check", said(&refused));
            assert_none("replay", said(&job.replay().run()));
        }
    }
}

/// The sum of a metric over its labels.
fn metric(page: &str, name: &str) -> u64 {
    let lines =
        page.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
}

#[test]
fn no_raw_key_is_in_anything_that_a_live_job_leaves() {
    let cluster: MockCluster<'_, DefaultProducerContext> = MockCluster::new(1).unwrap();
    let brokers = cluster.bootstrap_servers();
    let (mut sources, mut sent) = (String::new(), 0_u64);
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", &brokers).create().unwrap();
    for case in CASES {
        let Case { format, from, source, .. } = case;
        let topic = format!("in-{format}");
        cluster.create_topic(&topic, 1, 1).unwrap();
        for line in case.lines() {
            // Message keys and headers aren't read, and aren't told.
            let record = BaseRecord::to(&topic).key(CANARY).payload(&line);
            producer.send(record).map_err(|(error, _)| error).unwrap();
            sent += 1;
        }
        sources.push_str(&format!(
            "[[source]]\nname = \"{format}\"\nkind = \"kafka\"\nbrokers = \"{brokers}\"\ntopic = \"{topic}\"\n\
             format = \"{format}\"\n{source}\n[source.keys]\nfrom = [{from}]\n"
        ));
    }
    producer.flush(DEADLINE).unwrap();

    let first = &CASES[0];
    let config = first.config(HMAC, FILES);
    let (general, _) = config.split_once("[[source]]").unwrap();
    let config = format!(
        "{general}{sources}[job]\ntick = \"100ms\"\nworkers = 2\n[http]\nlisten = \"127.0.0.1:0\"\n\
         [sink.files]\ndir = \"out\"\n[log]\nlevel = \"debug\"\n"
    );
    let job = first.job(HMAC, FILES).file("keytide.toml", config);
    let live = LiveProcess::start(&job.path("keytide.toml"), &[("KEY_SECRET", SECRET)]);
    let address = live.find("it serves metrics", || live.address()).unwrap();
    let is_read = |page: &String| metric(page, "keytide_messages_total") >= sent;
    let page = live.find("everything is read", || get(&address, "/metrics").filter(is_read)).unwrap();
    let pages = ["/readyz", "/healthz", "/status", "/top.json", "/nothing"]
        .map(|page| (page.to_owned(), get(&address, page).unwrap()));
    let log = live.stop();

    let files = files(&job.path("out"));
    assert!(files.iter().any(|(name, text)| name.starts_with("usage-") && text.contains("\"key_id\"")));
    assert!(files.iter().any(|(name, text)| name.starts_with("dead_letters-") && text.lines().count() > 100));
    assert!(log.contains("the job ended"), "{log}");
    assert_none("run", files);
    assert_none("run", [("the log".to_owned(), log), ("/metrics".to_owned(), page)].into_iter().chain(pages));
}

#[test]
fn a_key_that_stands_only_where_nobody_looks_is_taken_for_what_stands_there() {
    let case = &CASES[0];
    let line = |members: &str| format!(r#"{{"t":{START},{members}}}"#);
    let hidden = case.job(SHA256, FILES).file(
        "log.jsonl",
        [
            line(&format!(r#""status":200,"agent":"{CANARY}","id":"{CANARY}","consumer":"{CANARY}","user":"{CANARY}","xff":"{CANARY}""#)),
            line(&format!(r#""path":"/v1?token={CANARY}","method":"{CANARY}","country":"{CANARY}","other":"{CANARY}""#)),
        ]
        .join("\n"),
    );
    let ended = hidden.replay().succeed();
    assert_eq!(Views::new(&hidden.path("out")).count("events"), 2);
    assert_none("json", files(&hidden.path("out")).into_iter().chain(said(&ended)));
    // The one place: a segment of the path, or the route's own name.
    let shown = case.job(SHA256, FILES).file("log.jsonl", line(&format!(r#""path":"/v1/{CANARY}/x""#)));
    let views = shown.views();
    assert_eq!(views.window("usage_by_route", "1d")[0].text("route"), format!("/v1/{CANARY}/x"));
}
