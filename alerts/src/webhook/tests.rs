//! A receiver on this machine, and names that lie.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use hmac::{Hmac, KeyInit as _, Mac as _};
use keytide_config::{LinkTemplate, Secret, Webhook, WebhookFormat, WebhookUrl};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::{ClientConfig, RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use sha2::Sha256;

use keytide_dataflow::incident_row::TransitionJson;

use super::*;
use crate::email::samples;

const SECRET: &str = "0123456789abcdef";
const NOW_MS: u64 = 1_718_452_800_999;
const ROW: &str = r#"{"incident_id":"00ff"}"#;

fn webhook(port: u16) -> Webhook {
    Webhook {
        name: "team".to_owned(),
        url: WebhookUrl {
            tls: false,
            host: "hooks.example".to_owned(),
            port,
            target: Secret::new("/canary-4f1c?a=b"),
        },
        secret: Some(Secret::new(SECRET)),
        format: WebhookFormat::Keytide,
        incidents: true,
        quota_notices: false,
        allow_private: vec!["hooks.example".to_owned()],
        timeout_ms: 60_000,
    }
}

fn batch(row: &str) -> WebhookBatch {
    WebhookBatch {
        id: "00ff.0".to_owned(),
        rows: vec![WebhookRow::Incident(Arc::from(row.as_bytes()), None)],
        skipped: 0,
    }
}

/// A row of an incident about whose key nothing is done.
fn slack_row(row: &TransitionJson) -> WebhookRow {
    WebhookRow::Incident(Arc::from(serde_json::to_vec(row).unwrap()), None)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn trusting(roots: RootCertStore) -> ClientConfig {
    let builder =
        ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    builder.with_root_certificates(roots).with_no_client_auth()
}

/// A client for whom every name has these addresses; and how often it asked.
fn client(webhook: &Webhook, addresses: &[&str]) -> (Client, Arc<AtomicUsize>) {
    let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let resolve = move |host: &str, _: u16| {
        assert_eq!(host, "hooks.example");
        count.fetch_add(1, Ordering::SeqCst);
        Ok(addresses.clone())
    };
    (Client::with(webhook, trusting(RootCertStore::empty()), Arc::new(resolve)).unwrap(), asked)
}

/// Reads a request up to the end of its body.
fn read(stream: &mut impl io::Read) -> String {
    let (mut seen, mut buffer) = (String::new(), [0; 4_096]);
    loop {
        let read = stream.read(&mut buffer).unwrap();
        assert!(read > 0, "{seen}");
        seen += std::str::from_utf8(&buffer[..read]).unwrap();
        let Some((head, body)) = seen.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        if body.len() == length.parse::<usize>().unwrap() {
            return seen;
        }
    }
}

/// Answers one request for each answer; returns the requests.
fn receiver(answers: &[&'static str]) -> (u16, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answers = answers.to_vec();
    let thread = thread::spawn(move || {
        let answer = |answer: &str| {
            let (mut stream, _) = listener.accept().unwrap();
            let request = read(&mut stream);
            stream.write_all(answer.as_bytes()).unwrap();
            request
        };
        answers.into_iter().map(answer).collect()
    });
    (port, thread)
}

/// A port where somebody listens, and how often anybody came.
fn untouched() -> (u16, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    (listener.local_addr().unwrap().port(), listener)
}

fn header<'a>(request: &'a str, name: &str) -> Option<&'a str> {
    request.lines().find_map(|line| {
        line.split_once(": ").filter(|(found, _)| found.eq_ignore_ascii_case(name))?.1.into()
    })
}

#[test]
fn a_request_is_the_row_and_its_signature_holds() {
    let (port, requests) = receiver(&["HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"]);
    let (client, _) = client(&webhook(port), &["127.0.0.1"]);
    assert_eq!(client.send(&batch(ROW), NOW_MS), WebhookOutcome::Sent);
    let request = requests.join().unwrap().remove(0);
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /canary-4f1c?a=b HTTP/1.1\r\n"), "{head}");
    assert_eq!(header(head, "host").unwrap(), format!("hooks.example:{port}"));
    assert_eq!(header(head, "content-type"), Some("application/json"));
    assert_eq!((header(head, "keytide-id"), header(head, "keytide-skipped")), (Some("00ff.0"), None));
    assert_eq!(header(head, "keytide-timestamp"), Some("1718452800"));
    assert_eq!(body, ROW);
    // As a receiver would judge it.
    let hex = header(head, "keytide-signature").unwrap().strip_prefix("v1=").unwrap();
    let bytes: Vec<u8> =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(b"1718452800.");
    mac.update(body.as_bytes());
    mac.verify_slice(&bytes).unwrap();
}

#[test]
fn the_signature_is_what_other_implementations_make() {
    // Python: hmac.new(secret, b"1718452800." + body, "sha256").hexdigest()
    assert_eq!(
        signature(&Secret::new(SECRET), 1_718_452_800, ROW.as_bytes()),
        "v1=cd026ad683b4f51b5caf44c39934bc9c778eb843b4d68dbe353ef613bad22e70"
    );
}

#[test]
fn answers_are_judged_by_their_status() {
    let answers = [
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 500 Oops\r\n\r\n",
        "HTTP/1.1 503 Later\r\nretry-after: 120\r\n\r\n",
        "HTTP/1.1 429 Slowly\r\nretry-after: 7\r\n\r\n",
        "HTTP/1.1 410 Gone\r\n\r\n",
        "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\n\r\n",
        "no http at all\r\n\r\n",
        "",
    ];
    let (port, requests) = receiver(&answers);
    let (client, _) = client(&webhook(port), &["127.0.0.1"]);
    let judged: Vec<String> = answers
        .iter()
        .map(|_| match client.send(&batch(ROW), NOW_MS) {
            WebhookOutcome::Sent => "sent".to_owned(),
            WebhookOutcome::Retry { reason, after_ms } => {
                let known = if reason.starts_with("the receiver") { reason.as_str() } else { "network" };
                assert!(!reason.contains("canary"), "{reason}");
                format!("retry {after_ms:?} {known}")
            }
            WebhookOutcome::Refused(reason) => format!("refused {reason}"),
        })
        .collect();
    assert_eq!(
        judged,
        [
            "sent",
            "retry None the receiver answered 500 Internal Server Error",
            "retry Some(120000) the receiver answered 503 Service Unavailable",
            "retry Some(7000) the receiver answered 429 Too Many Requests",
            "refused the receiver answered 410 Gone",
            "refused the receiver answered 302 Found; redirects aren't followed",
            "retry None network",
            "retry None network",
        ]
    );
    assert_eq!(requests.join().unwrap().len(), answers.len(), "one request each: no redirect was followed");
}

#[test]
fn an_answer_without_end_is_cut_off() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        read(&mut stream);
        stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").unwrap();
        // Ends when the client has had enough.
        while stream.write_all(&[b'a'; 4_096]).is_ok() {}
    });
    let (client, _) = client(&webhook(port), &["127.0.0.1"]);
    assert!(matches!(client.send(&batch(ROW), NOW_MS), WebhookOutcome::Retry { .. }));
    thread.join().unwrap();
}

#[test]
fn a_receiver_that_never_answers_is_left() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (client, _) = client(&Webhook { timeout_ms: 100, ..webhook(port) }, &["127.0.0.1"]);
    let expected = WebhookOutcome::Retry { reason: "no answer in time".to_owned(), after_ms: None };
    assert_eq!(client.send(&batch(ROW), NOW_MS), expected);
}

#[test]
fn names_of_this_machine_and_its_network_are_refused_before_a_connection() {
    let (port, listener) = untouched();
    let closed = Webhook { allow_private: vec!["other.example".to_owned()], ..webhook(port) };
    for addresses in [
        &["127.0.0.1"][..],
        &["::1"],
        &["::ffff:127.0.0.1"],
        &["169.254.169.254"],
        &["10.0.0.1"],
        &["0.0.0.0"],
        // One address that is public doesn't make up for another that isn't.
        &["93.184.216.34", "127.0.0.1"],
    ] {
        let (client, asked) = client(&closed, addresses);
        let WebhookOutcome::Retry { reason, after_ms: None } = client.send(&batch(ROW), NOW_MS) else {
            panic!()
        };
        assert!(reason.starts_with("hooks.example is at ") && reason.contains("allow_private"), "{reason}");
        assert_eq!(client.resolve(), Err(reason));
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }
    assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock, "nobody came");
}

#[test]
fn a_request_goes_to_the_address_that_was_judged() {
    // A name that is somewhere else whenever it is asked for.
    let (port, requests) = receiver(&["HTTP/1.1 200 OK\r\n\r\n"]);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let resolve = move |_: &str, _: u16| {
        let address = match count.fetch_add(1, Ordering::SeqCst) {
            0 => "127.0.0.1",
            _ => "127.0.0.2",
        };
        Ok(vec![address.parse().unwrap()])
    };
    let client = Client::with(&webhook(port), trusting(RootCertStore::empty()), Arc::new(resolve)).unwrap();
    assert_eq!(client.send(&batch(ROW), NOW_MS), WebhookOutcome::Sent);
    assert_eq!((requests.join().unwrap().len(), asked.load(Ordering::SeqCst)), (1, 1));
}

#[test]
fn certificates_are_of_the_host_and_of_somebody_who_is_trusted() {
    for (name, trusted, expected) in
        [("hooks.example", true, true), ("hooks.example", false, false), ("other.example", true, false)]
    {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
        let builder =
            ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let server = builder
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            )
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let thread = thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut stream = StreamOwned::new(ServerConnection::new(Arc::new(server)).unwrap(), stream);
            let mut first = [0];
            // The client may hang up.
            if stream.read_exact(&mut first).is_ok() {
                read(&mut stream);
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
            }
        });
        let mut roots = RootCertStore::empty();
        if trusted {
            roots.add(certificate.der().clone()).unwrap();
        }
        let mut webhook = webhook(port);
        webhook.url.tls = true;
        let resolve = |_: &str, _: u16| Ok(vec![IpAddr::from([127, 0, 0, 1])]);
        let client = Client::with(&webhook, trusting(roots), Arc::new(resolve)).unwrap();
        let outcome = client.send(&batch(ROW), NOW_MS);
        assert_eq!(outcome == WebhookOutcome::Sent, expected, "{name} {outcome:?}");
        thread.join().unwrap();
    }
}

#[test]
fn dropped_rows_are_reported_by_number() {
    let batch = WebhookBatch { skipped: 12, ..batch(ROW) };
    let request = SignedRequest::new(&webhook(1), &Guide::default(), &batch, 1);
    assert!(request.headers.contains(&("Keytide-Skipped", "12".to_owned())));
}

#[test]
fn a_test_says_that_it_is_one() {
    for format in [WebhookFormat::Keytide, WebhookFormat::Slack] {
        let request = SignedRequest::test(&Webhook { format, ..webhook(1) }, 1);
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        assert!(body["text"].as_str().unwrap().starts_with("This is a test by Keytide"), "{body}");
        assert!(request.headers.iter().any(|(name, _)| *name == "Keytide-Signature"));
    }
}

#[test]
fn slack_shows_strangers_texts_as_they_are() {
    let mut row = samples::leak();
    row.customer = Some(
        "<!channel> & <https://evil.example|here> *b* `c` ~d~ @e \u{202e}\u{2028}\u{200b}\u{1b}[31m"
            .to_owned(),
    );
    let message: Value =
        serde_json::from_slice(&slack::message(&[slack_row(&row)], 0, &Guide::default())).unwrap();
    let text = message["text"].as_str().unwrap();
    assert!(
        text.contains(
            "&lt;!channel&gt; &amp; &lt;https://evil.example|here&gt; 'b' 'c' 'd' 'e \u{fffd}\u{fffd}\u{fffd}\u{fffd}[31m"
        ),
        "{text}"
    );
    let block = json!({ "type": "section", "text": { "type": "mrkdwn", "text": text, "verbatim": true } });
    assert_eq!(message["blocks"], json!([block]));
}

#[test]
fn slack_reads_the_headline_and_no_name_of_a_column() {
    let message = |row: TransitionJson| -> String {
        let link = LinkTemplate::new("https://soc.example.com/?i={incident_id}&k={key_id}");
        let guide = Guide::new(&keytide_config::Alerts { link, ..Default::default() }, &[]);
        let message: Value = serde_json::from_slice(&slack::message(&[slack_row(&row)], 0, &guide)).unwrap();
        message["text"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        message(samples::database()),
        "*CRITICAL* (99 %): a leak is suspected. Key `3f2a9c41d0b7e85566f1a2903c4d7e1b` of Acme Logistics (gold): from 2 \
         countries and a system never seen (AS64500), with a user agent never seen, 214 calls refused (0.6 expected); \
         the usual calls go on. The same network (203.0.113.0/24) called with 14 other keys of 5 customers within 24 \
         hours: a stolen database? 2026-11-21T14:06:00Z, \
         <https://soc.example.com/?i=0f5c8e2ab7d94163b0e4a7719d3c6f28&amp;k=3f2a9c41d0b7e85566f1a2903c4d7e1b|incident \
         0f5c8e2ab7d94163b0e4a7719d3c6f28>"
    );
    for row in samples::all() {
        let text = message(row);
        for name in keytide_dataflow::detect::Signal::ALL.iter().map(|signal| signal.name()) {
            assert!(!name.contains('_') || !text.contains(name), "{text}");
        }
        assert!(!text.contains("REVOKE") && text.starts_with(['*']), "{text}");
    }
}

#[test]
fn slack_gets_many_rows_at_once_and_the_number_of_dropped_ones() {
    let rows: Vec<WebhookRow> = samples::all().iter().map(slack_row).collect();
    let message: Value = serde_json::from_slice(&slack::message(&rows, 3, &Guide::default())).unwrap();
    assert_eq!(message["text"], format!("Keytide: {} changes of incidents", rows.len() + 3));
    let blocks = message["blocks"].as_array().unwrap();
    assert_eq!(blocks.len(), rows.len() + 1);
    assert!(blocks[rows.len()]["text"]["text"].as_str().unwrap().starts_with("And 3 more"));
    // The longest values that there are still fit a block.
    let long = "<".repeat(100_000);
    let row = TransitionJson {
        key_id: long.clone(),
        customer: Some(long.clone()),
        plan: Some(long.clone()),
        level: long.clone(),
        at: long.clone(),
        incident_id: long,
        ..samples::leak()
    };
    let message: Value =
        serde_json::from_slice(&slack::message(&[slack_row(&row)], 0, &Guide::default())).unwrap();
    let text = message["blocks"][0]["text"]["text"].as_str().unwrap();
    assert!(text.chars().count() <= 3_000 && text.ends_with('`'), "{text}");
}

#[test]
fn slack_reads_what_became_of_actions_and_the_commands_that_come_next() {
    let guide = samples::guide();
    let of = |row: WebhookRow| -> (String, Vec<String>) {
        let message: Value = serde_json::from_slice(&slack::message(&[row], 0, &guide)).unwrap();
        let text = message["blocks"][0]["text"]["text"].as_str().unwrap();
        let mut lines = text.lines().map(str::to_owned);
        let first = lines.next().unwrap();
        assert_eq!(message["text"], first, "a notification has no commands");
        (first, lines.collect())
    };
    let job = "keytide actions http://keytide.example.com:9464";
    let id = "00000000000000000000000000000007";
    let command = |verb: &str| format!("`{job} {verb} {id} --why REASON --token env:KEYTIDE_TOKEN`");
    let incident = "<https://soc.example.com/incidents/8c4f21d97a06b35e19f2c0a4d7e86b13|incident \
                    8c4f21d97a06b35e19f2c0a4d7e86b13>";
    let key = "Key `3f2a9c41d0b7e85566f1a2903c4d7e1b` of Acme Logistics (gold)";
    let actions = samples::actions();
    let of_action = |at: usize| of(WebhookRow::Action(Arc::new(actions[at].clone())));
    let breaker = "the breaker lets pass 10 keys an hour, of 1200 in use";
    assert_eq!(
        of_action(0),
        (
            format!(
                "*HELD*: {key} isn't suspended until a person decides: {breaker}, kong-seoul. {incident}"
            ),
            vec![command("approve"), command("dismiss")]
        )
    );
    assert_eq!(
        of_action(2),
        (
            format!(
                "*SUSPENDED*: {key} is suspended: approved by alice (the customer doesn't know these calls), kong-seoul. \
                 {incident}"
            ),
            vec![command("reinstate"), command("revoke"), command("dismiss")]
        )
    );
    let (late, commands) = of(WebhookRow::Gateway(Arc::new(samples::gateways().swap_remove(0))));
    assert_eq!(
        late,
        "*LATE*: The gateway kong-seoul doesn't do what is asked of it: 1 action since 2026-11-21 14:08 UTC."
    );
    assert_eq!(commands, [format!("`{job} list --token env:KEYTIDE_TOKEN`")]);

    // An incident's message says what is done, and how to approve it.
    let leak = Arc::from(serde_json::to_vec(&samples::leak()).unwrap());
    let (text, commands) = of(WebhookRow::Incident(leak, Some(samples::planned())));
    assert!(text.contains("Action: held: suspending it: acting is off."), "{text}");
    assert_eq!(commands[0], command("approve"));
    let many = [WebhookRow::Action(Arc::new(actions[0].clone())), slack_row(&samples::leak())];
    let message: Value = serde_json::from_slice(&slack::message(&many, 0, &guide)).unwrap();
    assert_eq!(message["text"], "Keytide: 2 changes");
}

#[test]
fn slack_shows_what_strangers_wrote_about_actions_as_it_is() {
    let guide = samples::guide();
    let text = "<!channel> `x` *b* @here \u{202e}\n<https://evil.example|here>".to_owned();
    for value in [text, "<".repeat(100_000)] {
        let names = Some(value.clone());
        let mut row = samples::actions().swap_remove(2);
        (row.key_id, row.why) = (value.clone(), value.clone());
        (row.customer, row.plan, row.gateway) = (names.clone(), names.clone(), names.clone());
        row.decided.as_mut().unwrap().who.clone_from(&value);
        let mut late = samples::gateways().swap_remove(0);
        late.gateway = names;
        for row in [WebhookRow::Action(Arc::new(row)), WebhookRow::Gateway(Arc::new(late))] {
            let message: Value = serde_json::from_slice(&slack::message(&[row], 0, &guide)).unwrap();
            let text = message["blocks"][0]["text"]["text"].as_str().unwrap();
            assert!(text.chars().count() <= 3_000, "{}", text.len());
            assert!(!text.contains("<!") && !text.contains('@') && !text.contains('\u{202e}'), "{text}");
            let links = text.matches('<').count();
            assert_eq!(links, text.matches("<https://soc.example.com/").count(), "{text}");
            // Each line after the first is one whole command.
            for line in text.lines().skip(1) {
                assert!(line.starts_with("`keytide actions ") && line.matches('`').count() == 2, "{line}");
            }
        }
    }
}

#[test]
fn a_notice_about_a_quota_is_its_row_or_a_line_of_slack() {
    let row = samples::quotas().swap_remove(0);
    let json: Arc<[u8]> = Arc::from(serde_json::to_vec(&row).unwrap());
    let batch =
        WebhookBatch { id: "quota-1".to_owned(), rows: vec![WebhookRow::Quota(json.clone())], skipped: 0 };
    let request = SignedRequest::new(&webhook(1), &Guide::default(), &batch, 1);
    assert_eq!(request.body, json.to_vec());

    let text = |rows: &[WebhookRow]| -> String {
        let message: Value = serde_json::from_slice(&slack::message(rows, 0, &samples::guide())).unwrap();
        message["text"].as_str().unwrap().to_owned()
    };
    assert_eq!(
        text(&batch.rows),
        "*QUOTA*: Subscription `sub-1042` of Acme Logistics (gold): 80 % of the monthly quota of calls used, 8,123,456 \
         of 10,000,000 calls. Left until 2026-12-01 00:00 Asia/Seoul: 1,876,544 calls. Expected by then: 12,300,000 calls \
         (11,650,000 to 12,950,000). At this pace used up on 2026-11-25 18:30 Asia/Seoul. Calls beyond it are refused."
    );
    let many = [WebhookRow::Quota(json.clone()), WebhookRow::Quota(json.clone())];
    assert_eq!(text(&many), "Keytide: 2 notices about quotas");
    assert_eq!(text(&[WebhookRow::Quota(json), slack_row(&samples::leak())]), "Keytide: 2 changes");
    assert_eq!(text(&[WebhookRow::Quota(Arc::from(&b"{}"[..]))]), "Keytide: 0 notices about quotas");
}

#[test]
fn slack_shows_what_customers_named_their_subscriptions_as_it_is() {
    let text = "<!channel> `x` *b* @here \u{202e}\n<https://evil.example|here>".to_owned();
    for value in [text, "<".repeat(100_000)] {
        let names = Some(value.clone());
        for row in samples::quotas() {
            let row = crate::quota::QuotaNoticeRow {
                subscription: value.clone(),
                customer: names.clone(),
                plan: names.clone(),
                currency: names.clone(),
                resets_at: value.clone(),
                runs_out_at: names.clone(),
                ..row
            };
            let row = WebhookRow::Quota(Arc::from(serde_json::to_vec(&row).unwrap()));
            let message: Value =
                serde_json::from_slice(&slack::message(&[row], 0, &Guide::default())).unwrap();
            let text = message["blocks"][0]["text"]["text"].as_str().unwrap();
            assert!(text.chars().count() <= 3_000 && !text.contains(['<', '@', '\u{202e}', '\n']), "{text}");
        }
    }
}
