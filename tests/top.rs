//! `keytide top` and the page `/top.json` of a running job: what it shows, who may see it, and what goes wrong.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::thread;

use keytide_config::View;
use keytide_worker::top::{Column, Top, TopPage, TopState, WIDTHS};
use rdkafka::ClientConfig;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};

use crate::harness::{
    DEADLINE, FIELDS, HOUR, Job, Keytide, LiveProcess, SECOND, call, names, path, read_text,
};

const TOKEN: &str = "a-token-of-this-test-alone";

/// The views of which a screen is made, incidents apart.
const OF_WINDOWS: [View; 4] = [View::Usage, View::Latency, View::Geo, View::Callers];

/// A job over a topic that publishes to `views` and serves HTTP with a token.
fn config(brokers: &str) -> String {
    format!(
        "[job]\ntick = \"50ms\"\nworkers = 2\n[keys]\nfrom = [\"key\"]\nhash = \"none\"\n[[source]]\nname = \"log\"\n\
         kind = \"kafka\"\nbrokers = \"{brokers}\"\ntopic = \"calls\"\nformat = \"json\"\n{FIELDS}\n\
         [tables.keys]\nkind = \"file\"\nformat = \"csv\"\npath = \"keys.csv\"\n\
         [tables.subscriptions]\nkind = \"file\"\nformat = \"csv\"\npath = \"subscriptions.csv\"\n\
         [http]\nlisten = \"127.0.0.1:0\"\ntoken = \"env:TOKEN\"\n[sink.files]\ndir = \"views\"\n"
    )
}

/// Sends calls of 40 keys in the two hours before a midnight and the hour after it.
fn send(brokers: &str) {
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    for number in 0..1_200_u64 {
        let at = 14 * HOUR + number * 9 * SECOND;
        // The lower its number, the more calls a key has.
        let key = number % 40 * (number / 40 % 30) / 29;
        let line = call(at, &format!("r{number}"), &format!("key-{key}"));
        let line = line.replace("\"us\":1000", &format!("\"us\":{}", 1_000 + number * 7));
        let line = line.replace("192.0.2.1", &format!("192.0.2.{}", number % 9 + 1));
        let line = if number % 5 == 0 { line.replace("\"status\":200", "\"status\":503") } else { line };
        producer.send(BaseRecord::<(), _>::to("calls").payload(&line)).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(DEADLINE).unwrap();
}

/// The page that a job answers with, if it does.
fn page(address: &str) -> Option<TopPage> {
    let (head, body) = get(address, &format!("Authorization: Bearer {TOKEN}\r\n"))?;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    Some(serde_json::from_str(&body).unwrap())
}

fn get(address: &str, headers: &str) -> Option<(String, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET /top.json HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.to_owned(), body.to_owned()))
}

/// The state of the views on disk.
fn of_files(folder: &Path) -> TopState {
    let mut state = TopState::default();
    for view in OF_WINDOWS {
        let prefix = format!("{}-", view.name());
        for name in names(folder).iter().filter(|name| name.starts_with(&prefix)) {
            read_text(&folder.join(name)).lines().for_each(|line| state.take_line(view, line.as_bytes()));
        }
    }
    state
}

fn top(from: &str) -> Keytide {
    Keytide::new(&["top", from])
}

#[test]
fn the_page_of_a_running_job_shows_what_its_files_do_and_needs_the_token() {
    let cluster: MockCluster<'_, DefaultProducerContext> = MockCluster::new(1).unwrap();
    let brokers = cluster.bootstrap_servers();
    cluster.create_topic("calls", 1, 1).unwrap();
    send(&brokers);
    let mut keys = "key_id,subscription\n".to_owned();
    (0..30).for_each(|key| writeln!(keys, "key-{key},sub-{}", key % 4).unwrap());
    let job = Job::with_config(&config(&brokers))
        .file("keys.csv", keys)
        .file("subscriptions.csv", "id,customer\nsub-0,Kestrel Foods\nsub-1,\"Amber, Bank\"\n");
    let live = LiveProcess::start(&job.path("keytide.toml"), &[("TOKEN", TOKEN)]);
    let address = live.find("it serves the page", || live.address()).unwrap();

    // The day and the hours before its last are complete once the watermark has followed the calls.
    let folder = job.path("views");
    let shown = live.find("the page is that of the files", || {
        let page = page(&address)?;
        // Before that the job may not run, and has no files.
        let is_whole = WIDTHS[..3].iter().all(|width| page.totals(*width).is_some());
        let files = is_whole.then(|| of_files(&folder))?;
        // Tables may come after the first calls, which are then corrected.
        let mut hour = page.keys(keytide_dataflow::Level::Hour, Column::Calls, 50).into_iter();
        let is_owned = hour.any(|row| row.owner == "Amber, Bank" && row.key_id.starts_with("key-"));
        (is_owned && page == TopPage::of(&files)).then_some((page, files))
    });
    let (shown, files) = shown.unwrap();
    for width in WIDTHS {
        for by in Column::ALL {
            assert_eq!(shown.keys(width, by, 50), files.keys(width, by, 50), "{width:?} {by:?}");
        }
    }
    let hour = shown.keys(keytide_dataflow::Level::Hour, Column::Calls, 50);
    assert!(hour.iter().any(|row| row.errors > 0 && row.p99_us > Some(1_000)), "{hour:#?}");

    for headers in ["", "Authorization: Bearer wrong\r\n"] {
        let (head, body) = get(&address, headers).unwrap();
        assert!(head.starts_with("HTTP/1.1 401 ") && !body.contains("key-"), "{head}\n{body}");
    }

    // Without a terminal it ends once it knows that the job answers.
    let url = format!("http://{address}");
    let refused = top(&url).run();
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains(&format!("the job at {url} wants its token: ")), "{}", refused.stderr);
    let refused = top(&url).with("--token env:TOKEN").env("TOKEN", "wrong").run();
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    assert!(refused.stderr.contains("refuses the token"), "{}", refused.stderr);
    let answered = top(&url).with("--token env:TOKEN").env("TOKEN", TOKEN).run();
    assert_eq!(answered.code, Some(2), "{}", answered.stderr);
    assert!(answered.stderr.contains("needs a terminal"), "{}", answered.stderr);
    assert!(answered.stderr.contains(&format!("{url}/top.json")), "{}", answered.stderr);

    // The same by a configuration without [sink.files], whose token is its own.
    let text = config(&brokers).replace("127.0.0.1:0", &address);
    let (text, _) = text.split_once("[sink.files]").unwrap();
    let job = job.file("top.toml", text);
    let answered = top(path(&job.path("top.toml"))).env("TOKEN", TOKEN).run();
    assert!(answered.stderr.contains("needs a terminal"), "{}", answered.stderr);
    assert!(answered.stderr.contains(&format!("{url}/top.json")), "{}", answered.stderr);
    let log = live.stop();
    assert!(!log.contains(TOKEN), "{log}");
}

#[test]
fn a_job_that_does_not_run_is_a_passing_failure_with_advice() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let ended = top(&format!("http://{free}")).run();
    assert_eq!(ended.code, Some(75), "{}", ended.stderr);
    assert!(ended.stderr.contains(&format!("error: no job answers at http://{free}: ")), "{}", ended.stderr);
    assert!(ended.stderr.contains("is it running? start it with keytide run CONFIG"), "{}", ended.stderr);
    assert_eq!(ended.stdout, "");
}

/// Answers one connection with `answer`; returns the address.
fn stranger(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 4_096];
        let _ = stream.read(&mut request);
        let _ = stream.write_all(answer);
    });
    format!("http://{address}")
}

#[test]
fn what_answers_without_being_a_job_is_named() {
    for (answer, part) in [
        (
            &b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\nhello"[..],
            "it answered 404 Not Found to /top.json",
        ),
        (
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
            "it answered 302 Found",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>", "/top.json is something else"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "/top.json is something else"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "answers, but not as keytide run does"),
        (b"", "answers, but not as keytide run does"),
    ] {
        let url = stranger(answer);
        let ended = top(&url).run();
        assert_eq!(ended.code, Some(2), "{part}: {}", ended.stderr);
        assert!(ended.stderr.starts_with(&format!("error: {url} answers, but ")), "{part}: {}", ended.stderr);
        assert!(
            ended.stderr.contains(part) && ended.stderr.contains("section [http]"),
            "{part}: {}",
            ended.stderr
        );
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    }
}

#[test]
fn usage_that_cannot_be_meant_is_refused() {
    let without = "[keys]\nfrom = [\"key\"]\nhash = \"none\"\n[[source]]\nname = \"log\"\nkind = \"kafka\"\n\
                   brokers = \"127.0.0.1:1\"\ntopic = \"calls\"\nformat = \"apisix\"\n";
    let job = Job::with_config(without).file("folder/none", "");
    let config = job.path("keytide.toml");
    let folder = job.path("folder");
    for (from, arguments, part) in [
        (path(&config), "", "has neither [sink.files] nor [http]"),
        (path(&folder), "", "has no view usage"),
        (path(&folder), "--token env:TOKEN", "--token belongs to an address"),
        ("http://127.0.0.1:1", "--token hunter2", "--token: found a value that is not shown"),
        ("http://127.0.0.1:1", "--token env:ABSENT", "--token: environment variable ABSENT isn't set"),
        ("https://127.0.0.1:1", "", "a job serves plain HTTP"),
        ("http://127.0.0.1:1/?token=hunter2", "", "allowed: http://HOST:PORT"),
    ] {
        let ended = top(from).with(arguments).env("TOKEN", TOKEN).run();
        assert_eq!(ended.code, Some(2), "{from}: {}", ended.stderr);
        assert!(ended.stderr.contains(part) && !ended.stderr.contains("hunter2"), "{from}: {}", ended.stderr);
    }
}
