//! What the file of a deny list holds after orders, faults and a change by somebody else.

use std::sync::mpsc::{Receiver, channel};

use super::*;

/// How long a test waits for what the thread does.
const DEADLINE: Duration = Duration::from_secs(60);

fn orders(keys: &[&str], requested: &[u128]) -> Orders {
    let denied = keys.iter().map(|key| ((*key).to_owned(), DenialState::Suspended)).collect();
    Orders { denied, requested: requested.iter().map(|action| ActionId(*action)).collect() }
}

fn start(path: PathBuf) -> (FileGateway, Receiver<ActionInput>) {
    let (reports, received) = channel();
    (FileGateway::start("edge".to_owned(), path, None, reports, Arc::new(|| 17)).unwrap(), received)
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
    let report = |action| {
        ActionInput::Report(GatewayReport {
            action: ActionId(action),
            gateway: "edge".to_owned(),
            failure: None,
            at_ms: 17,
        })
    };
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
