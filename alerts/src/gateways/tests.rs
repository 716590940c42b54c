//! What the file of a deny list holds after orders and faults, and what a receiver of actions is sent.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};

use keytide_config::{GatewayCaps, PolicyMode, Secret, WebhookUrl};
use serde_json::{Value, json};

use super::deny_list::DenyList;
use super::*;
use crate::webhook::signature;

/// How long a test waits for what the thread does.
const DEADLINE: Duration = Duration::from_secs(60);

fn requested(id: u128) -> RequestedAction {
    RequestedAction {
        id: ActionId(id),
        request: 1,
        action: Action::Suspend,
        key: KeyId(7),
        key_id: KeyId(7).to_string(),
        incident: IncidentId(9),
        why: "suspending the key, as its policy says".to_owned(),
        consumer: "acme".to_owned(),
        credential: String::new(),
        undo: None,
    }
}

fn orders(keys: &[&str], actions: &[u128]) -> Orders {
    let denied = keys.iter().map(|key| ((*key).to_owned(), DenialState::Suspended)).collect();
    Orders { denied: Arc::new(denied), requested: actions.iter().map(|id| requested(*id)).collect() }
}

fn start(path: PathBuf) -> (RunningGateway, Receiver<ActionInput>) {
    start_kind(GatewayKind::File { path })
}

fn start_kind(kind: GatewayKind) -> (RunningGateway, Receiver<ActionInput>) {
    let (reports, received) = channel();
    let context = GatewayContext { claims: None, reports, clock: Arc::new(|| 17), hashes: Vec::new() };
    let gateway = Gateway {
        name: "edge".to_owned(),
        kind,
        mode: PolicyMode::Live,
        caps: GatewayCaps::default(),
        confirm_after_ms: 60_000,
        probation: None,
    };
    (RunningGateway::start(&gateway, context).unwrap().unwrap(), received)
}

fn report(action: u128, failure: Option<&str>) -> ActionInput {
    ActionInput::Report(GatewayReport {
        action: ActionId(action),
        gateway: "edge".to_owned(),
        outcome: failure.map_or(GatewayOutcome::Done, |why| GatewayOutcome::Failed(why.to_owned())),
        at_ms: 17,
    })
}

#[expect(clippy::disallowed_methods, reason = "the file is small")]
fn read(path: &std::path::Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn a_file_has_the_keys_of_the_newest_orders_before_they_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("denied.txt");
    let (gateway, reports) = start(path.clone());
    gateway.order(orders(&["b", "a\nc revoked"], &[1, 2]));
    let report = |action| report(action, None);
    assert_eq!([1, 2].map(report), [0, 1].map(|_| reports.recv_timeout(DEADLINE).unwrap()));
    assert_eq!(read(&path), "a\\u000ac revoked suspended\nb suspended\n");
    gateway.order(orders(&[], &[3]));
    assert_eq!(reports.recv_timeout(DEADLINE).unwrap(), report(3));
    assert_eq!(read(&path), "");
    // What is ordered last is done before the end.
    gateway.order(orders(&["z"], &[]));
    drop(gateway);
    assert_eq!(read(&path), "z suspended\n");
    assert!(reports.recv().is_err());
    let names: Vec<_> = folder.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["denied.txt"]);
}

#[test]
fn a_list_that_can_not_be_written_is_tried_again_and_reported_then() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let (gateway, reports) = start(missing.join("denied.txt"));
    gateway.order(orders(&["a"], &[1]));
    assert!(reports.recv_timeout(Duration::from_millis(50)).is_err());
    std::fs::create_dir(&missing).unwrap();
    assert!(reports.recv_timeout(DEADLINE).is_ok());
    assert_eq!(read(&missing.join("denied.txt")), "a suspended\n");
    drop(gateway);
}

#[test]
fn a_list_is_told_from_a_longer_and_a_shorter_one() {
    let folder = tempfile::tempdir().unwrap();
    let list = DenyList::new(folder.path().join("denied.txt"));
    let of = |keys: &[&str]| orders(keys, &[]).denied;
    assert!(!list.holds(&of(&[])).unwrap(), "there is none");
    list.write(&of(&["a", "b"])).unwrap();
    assert!(list.holds(&of(&["b", "a"])).unwrap());
    for other in [&[][..], &["a"], &["b"], &["a", "b", "c"]] {
        assert!(!list.holds(&of(other)).unwrap(), "{other:?}");
    }
}

/// Answers one request for each answer; sends on the requests.
fn receiver(answers: &[&'static str]) -> (GatewayKind, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answers = answers.to_vec();
    let (sender, requests) = channel();
    thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut seen, mut buffer) = (Vec::new(), [0; 4_096]);
            while !seen.ends_with(b"}") {
                let read = stream.read(&mut buffer).unwrap();
                assert!(read > 0, "{seen:?}");
                seen.extend_from_slice(&buffer[..read]);
            }
            sender.send(String::from_utf8(seen).unwrap()).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let url = WebhookUrl { tls: false, host: "127.0.0.1".to_owned(), port, target: Secret::new("/actions") };
    let endpoint = Endpoint { url, allow_private: vec!["127.0.0.1".to_owned()], timeout_ms: 60_000 };
    (GatewayKind::Webhook { endpoint, secret: Secret::new("0123456789abcdef") }, requests)
}

#[test]
fn a_receiver_gets_each_action_signed_and_its_status_is_its_answer() {
    let (kind, requests) = receiver(&[
        "HTTP/1.1 503 Later\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 409 Conflict\r\n\r\n",
        "HTTP/1.1 404 Not Found\r\n\r\n",
        "HTTP/1.1 202 Accepted\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
    ]);
    let (gateway, reports) = start_kind(kind);
    gateway.order(orders(&[], &[1]));
    let first = requests.recv_timeout(DEADLINE).unwrap();
    let again = requests.recv_timeout(DEADLINE).unwrap();
    assert_eq!(first, again, "what failed is sent again as it was");
    assert_eq!(reports.recv_timeout(DEADLINE).unwrap(), report(1, None));
    let (head, body) = first.split_once("\r\n\r\n").unwrap();
    let header = |name: &str| {
        head.lines()
            .find_map(|line| line.split_once(": ").filter(|(found, _)| found.eq_ignore_ascii_case(name)))
    };
    assert!(head.starts_with("POST /actions HTTP/1.1\r\n"), "{head}");
    assert_eq!(header("keytide-id").unwrap().1, ActionId(1).to_string());
    let expected = signature(&Secret::new("0123456789abcdef"), 0, body.as_bytes());
    assert_eq!(header("keytide-signature").unwrap().1, expected);
    let expected = json!({
        "action": "suspend",
        "key_id": KeyId(7).to_string(),
        "consumer": "acme",
        "credential": null,
        "incident": IncidentId(9).to_string(),
        "why": "suspending the key, as its policy says",
        "undo": null,
    });
    assert_eq!(serde_json::from_str::<Value>(body).unwrap(), expected);
    for (action, expected) in [
        (2, Some(report(2, None))),
        (3, Some(report(3, Some("the receiver answered 404 Not Found: it doesn't know the key")))),
        (4, None),
    ] {
        gateway.order(orders(&[], &[action]));
        requests.recv_timeout(DEADLINE).unwrap();
        if let Some(expected) = expected {
            assert_eq!(reports.recv_timeout(DEADLINE).unwrap(), expected);
        }
    }
    // It took the suspension, and that is lifted before it reports.
    let lifting = RequestedAction { action: Action::Reinstate, undo: Some(ActionId(4)), ..requested(5) };
    gateway.order(Orders { requested: vec![lifting], ..Orders::default() });
    let (_, body) = requests
        .recv_timeout(DEADLINE)
        .unwrap()
        .split_once("\r\n\r\n")
        .map(|(_, body)| ((), body.to_owned()))
        .unwrap();
    assert!(body.contains(&format!(r#""undo":"{}""#, ActionId(4))), "{body}");
    assert_eq!(reports.recv_timeout(DEADLINE).unwrap(), report(5, None));
    drop(gateway);
    assert!(reports.recv().is_err());
}
