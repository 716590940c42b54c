//! Suspending, letting in and revoking at stand-ins of gateways that fail in all ways, over crashes in between.

use keytide_config::{AwsCredentials, Endpoint, KeyHash, Secret, WebhookUrl};
use keytide_dataflow::IncidentId;
use keytide_dataflow::model::KeyId;
use proptest::prelude::*;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::super::apisix::Apisix;
use super::super::aws::{Aws, CALLS_PER_SECOND};
use super::super::kong::Kong;
use super::super::mask::{masked, unmasked};
use super::super::standins::{ApisixStandin, AwsStandin, Failing, Fate, KongStandin, Standin};
use super::*;

const KEY: &str = "raw-canary-\"7\u{e9}";
const TOKEN: &str = "an-admin-token-canary";

/// A gateway with one credential.
trait Tried: Standin + Sized {
    type Dialect: Dialect;

    fn dialect() -> Self::Dialect;
    fn holding(key: &str) -> Self;
    fn holding_suspended(key: &str) -> Self {
        Self::holding(std::str::from_utf8(masked(key.as_bytes(), [7; 16]).as_ref()).unwrap())
    }
    fn key(&self) -> Option<String>;
    /// Returns the key without a mask, and whether it is suspended.
    fn seen(&self) -> Option<(String, bool)> {
        let key = self.key()?;
        let inner = unmasked(key.as_bytes()).map(|inner| std::str::from_utf8(inner).unwrap().to_owned());
        let is_suspended = inner.is_some();
        Some((inner.unwrap_or(key), is_suspended))
    }
}

fn let_in() -> Option<(String, bool)> {
    Some((KEY.to_owned(), false))
}

fn suspended() -> Option<(String, bool)> {
    Some((KEY.to_owned(), true))
}

impl Tried for KongStandin {
    type Dialect = Kong;

    fn dialect() -> Kong {
        Kong { token: Some(Secret::new(TOKEN)) }
    }

    fn holding(key: &str) -> Self {
        let credentials = [(("acme".to_owned(), "c1".to_owned()), key.to_owned())].into();
        Self { token: Some(TOKEN), is_read_only: false, credentials }
    }

    fn key(&self) -> Option<String> {
        self.credentials.get(&("acme".to_owned(), "c1".to_owned())).cloned()
    }
}

impl Tried for ApisixStandin {
    type Dialect = Apisix;

    fn dialect() -> Apisix {
        Apisix { token: Some(Secret::new(TOKEN)) }
    }

    fn holding(key: &str) -> Self {
        let credential = json!({ "id": "c1", "desc": "d", "plugins": { "key-auth": { "key": key } } });
        let objects = [
            ("/consumers/acme".to_owned(), json!({ "username": "acme" })),
            ("/consumers/acme/credentials/c1".to_owned(), credential),
        ];
        Self { token: TOKEN, objects: objects.into() }
    }

    fn key(&self) -> Option<String> {
        Self::key(self, "/consumers/acme/credentials/c1").map(str::to_owned)
    }
}

impl Tried for AwsStandin {
    type Dialect = Aws;

    fn dialect() -> Aws {
        let credentials = AwsCredentials::Keys {
            access_key_id: Secret::new("AKIAEXAMPLE"),
            secret_access_key: Secret::new(TOKEN),
        };
        Aws::new("eu-central-1".to_owned(), credentials)
    }

    fn holding(key: &str) -> Self {
        let keys = [("c1".to_owned(), (key.to_owned(), true))].into();
        Self { access_key_id: "AKIAEXAMPLE", region: "eu-central-1", keys }
    }

    fn holding_suspended(key: &str) -> Self {
        let keys = [("c1".to_owned(), (key.to_owned(), false))].into();
        Self { keys, ..Self::holding(key) }
    }

    fn key(&self) -> Option<String> {
        self.seen().map(|(key, _)| key)
    }

    fn seen(&self) -> Option<(String, bool)> {
        let (key, is_enabled) = self.keys.get("c1")?;
        Some((key.clone(), !is_enabled))
    }
}

fn action(action: Action) -> RequestedAction {
    let hash: [u8; 32] = Sha256::digest(KEY).into();
    let key = KeyId::from_hash(&hash);
    RequestedAction {
        id: ActionId(action as u128),
        request: 1,
        action,
        key,
        key_id: key.to_string(),
        incident: IncidentId(1),
        why: "suspending the key, as its policy says".to_owned(),
        consumer: "acme".to_owned(),
        credential: "c1".to_owned(),
        undo: None,
    }
}

/// A life of the adapter.
fn adapter<S: Tried>(server: &Failing<S>) -> AdminGateway<S::Dialect> {
    let url =
        WebhookUrl { tls: false, host: "127.0.0.1".to_owned(), port: server.port, target: Secret::new("/") };
    let endpoint = Endpoint { url, allow_private: vec!["127.0.0.1".to_owned()], timeout_ms: 60_000 };
    let client = HttpClient::new(&endpoint).unwrap();
    let proof = Proof::new(vec![KeyHash::Sha256], false);
    AdminGateway::new(S::dialect(), client, &endpoint, proof, std::sync::Arc::new(|| 17))
}

fn is_over(outcome: &CallOutcome) -> bool {
    // Outcomes are logged and recorded, so none may hold a raw key.
    assert!(!format!("{outcome:?}").contains("canary"), "{outcome:?}");
    matches!(outcome, CallOutcome::Done | CallOutcome::Failed(_))
}

/// Calls about an action until it is over.
fn run<D: Dialect>(adapter: &mut AdminGateway<D>, of: &RequestedAction) -> CallOutcome {
    for _ in 0..60 {
        let outcome = adapter.call(of, &|| Ok(()));
        if is_over(&outcome) {
            return outcome;
        }
    }
    panic!("it never ends")
}

fn suspends_lets_in_and_revokes<S: Tried>() {
    let server = Failing::start(S::holding(KEY));
    let seen = || server.state().standin.seen();
    let mut life = adapter(&server);
    let refused = |outcome: CallOutcome, why: &str| {
        assert!(matches!(&outcome, CallOutcome::Failed(reason) if reason.contains(why)), "{outcome:?}");
    };
    refused(run(&mut life, &action(Action::Revoke)), "only a suspended key is revoked");
    let may_not: MayAct<'_> = &|| Err("another process of the job took over".to_owned());
    assert!(matches!(life.call(&action(Action::Suspend), may_not), CallOutcome::Again { .. }));
    assert_eq!((seen(), server.state().effects), (let_in(), 0));
    for effects in [1, 1] {
        assert_eq!(run(&mut life, &action(Action::Suspend)), CallOutcome::Done);
        assert_eq!(seen(), suspended());
        assert_eq!(server.state().effects, effects, "what is done isn't done again");
    }
    assert_eq!(run(&mut life, &action(Action::Reinstate)), CallOutcome::Done);
    assert_eq!((seen(), server.state().effects), (let_in(), 2));
    // There is nothing to undo, which is looked at twice.
    assert_eq!(life.call(&action(Action::Reinstate), &|| Ok(())), CallOutcome::Later(60_000));
    assert_eq!(life.call(&action(Action::Reinstate), &|| Ok(())), CallOutcome::Done);
    assert_eq!(run(&mut life, &action(Action::Suspend)), CallOutcome::Done);
    assert_eq!(run(&mut life, &action(Action::Revoke)), CallOutcome::Done);
    assert_eq!(seen(), None);
    assert_eq!(run(&mut life, &action(Action::Revoke)), CallOutcome::Done, "it is gone");
    for of in [Action::Suspend, Action::Reinstate] {
        refused(run(&mut life, &action(of)), "no such consumer or credential");
    }
    let nowhere =
        RequestedAction { consumer: "..".to_owned(), credential: "..".to_owned(), ..action(Action::Suspend) };
    refused(run(&mut life, &nowhere), "the table of keys has no c");
    // No path has the key.
    assert!(server.state().asked.iter().all(|asked| !asked.target.contains("canary")));
}

#[test]
fn kong_suspends_lets_in_and_revokes() {
    suspends_lets_in_and_revokes::<KongStandin>();
}

#[test]
fn apisix_suspends_lets_in_and_revokes() {
    suspends_lets_in_and_revokes::<ApisixStandin>();
}

fn another_key_is_never_touched<S: Tried>() {
    for held in ["another-canary", "$secret://vault/1/jack/canary", "\u{0}", ""] {
        for is_suspended in [false, true] {
            let server =
                Failing::start(if is_suspended { S::holding_suspended(held) } else { S::holding(held) });
            for of in [Action::Suspend, Action::Reinstate, Action::Revoke] {
                if of == Action::Reinstate && !is_suspended {
                    continue;
                }
                let outcome = run(&mut adapter(&server), &action(of));
                assert!(matches!(outcome, CallOutcome::Failed(_)), "{of:?} {held}");
            }
            let state = server.state();
            assert_eq!((state.effects, state.standin.seen()), (0, Some((held.to_owned(), is_suspended))));
        }
    }
}

#[test]
fn kong_s_other_keys_are_never_touched() {
    another_key_is_never_touched::<KongStandin>();
}

#[test]
fn apisix_other_keys_are_never_touched() {
    another_key_is_never_touched::<ApisixStandin>();
}

#[test]
fn aws_suspends_lets_in_and_revokes() {
    suspends_lets_in_and_revokes::<AwsStandin>();
}

#[test]
fn other_keys_of_aws_are_never_touched() {
    another_key_is_never_touched::<AwsStandin>();
}

#[test]
fn requests_to_aws_wait_for_those_of_the_last_second_and_go_on() {
    let server = Failing::start(AwsStandin::holding(KEY));
    let mut life = adapter(&server);
    life.client = life.client.at_most(CALLS_PER_SECOND);
    for of in [Action::Suspend, Action::Reinstate] {
        assert_eq!(run(&mut life, &action(of)), CallOutcome::Done);
    }
    assert_eq!(server.state().asked.len(), CALLS_PER_SECOND + 1);
}

#[test]
fn answers_of_aws_are_judged_by_their_errors() {
    let look = Fate::Normal;
    for (fates, ends, word) in [
        (vec![look, Fate::Status(409)], false, "ConflictException"),
        (vec![look, Fate::Status(400)], true, "400"),
        (vec![Fate::Status(403)], false, "the access key is wrong"),
        (vec![look, Fate::Status(429)], false, "429"),
        (vec![look, Fate::Status(503)], false, "503"),
        (vec![look, Fate::Lie], false, "isn't changed"),
    ] {
        let server = Failing::start(AwsStandin::holding(KEY));
        let mut life = adapter(&server);
        server.state().fates.extend(fates.iter().copied());
        let outcome = life.call(&action(Action::Suspend), &|| Ok(()));
        let reason = match &outcome {
            CallOutcome::Failed(reason) if ends => reason,
            CallOutcome::Refused(reason) if word.starts_with("the access key") => reason,
            CallOutcome::Again { reason, .. } if !ends && !word.starts_with("the access key") => reason,
            _ => panic!("{fates:?} {outcome:?}"),
        };
        assert!(reason.contains(word), "{fates:?} {reason}");
        assert_eq!(server.state().effects, 0);
    }
    // A key of another account, or an address that isn't that of API Gateway, is never taken for a key that is gone.
    let stranger = AwsStandin { access_key_id: "AKIAOTHER", ..AwsStandin::holding_suspended(KEY) };
    let server = Failing::start(stranger);
    for of in [Action::Suspend, Action::Reinstate, Action::Revoke] {
        let outcome = adapter(&server).call(&action(of), &|| Ok(()));
        assert!(matches!(outcome, CallOutcome::Refused(_)), "{outcome:?}");
    }
    let answer = |status, error: Option<&str>| HttpAnswer {
        status,
        after_ms: Some(7),
        error: error.map(str::to_owned),
        body: SecretBytes::with_capacity(0),
    };
    let (missing, bad) = (StatusCode::NOT_FOUND, StatusCode::BAD_REQUEST);
    assert!(Aws::is_missing(&answer(missing, Some("NotFoundException"))));
    for (status, error, word) in [
        (missing, None, "404"),
        (missing, Some("UnknownOperationException"), "UnknownOperationException"),
        (bad, Some("ThrottlingException"), "ThrottlingException"),
        (bad, Some("RequestExpired"), "RequestExpired"),
        (StatusCode::FORBIDDEN, Some("ExpiredTokenException"), "ExpiredTokenException"),
    ] {
        let answer = answer(status, error);
        assert!(!Aws::is_missing(&answer));
        assert!(
            matches!(Aws::stop(&answer), Stop::Away { reason, after_ms: Some(7) } if reason.contains(word)),
            "{error:?}"
        );
    }
}

#[test]
fn answers_to_a_change_are_judged() {
    let look = Fate::Normal;
    for (fates, ends, word) in [
        (vec![look, Fate::Status(409)], true, "another credential has that key"),
        (vec![look, Fate::Status(400)], true, "400"),
        (vec![look, Fate::Status(405)], true, "without a database"),
        (vec![Fate::Status(401)], false, "admin_token"),
        (vec![look, Fate::Status(403)], false, "admin_token"),
        (vec![look, Fate::Status(429)], false, "429"),
        (vec![look, Fate::Status(503)], false, "503"),
        (vec![look, Fate::Status(302)], false, "302"),
        (vec![look, Fate::Lie], false, "isn't changed"),
        (vec![Fate::DropBefore], false, ""),
    ] {
        let server = Failing::start(KongStandin::holding(KEY));
        let mut life = adapter(&server);
        server.state().fates.extend(fates.iter().copied());
        let outcome = life.call(&action(Action::Suspend), &|| Ok(()));
        let reason = match &outcome {
            CallOutcome::Failed(reason) if ends => reason,
            CallOutcome::Refused(reason) if word == "admin_token" => reason,
            CallOutcome::Again { reason, .. } if !ends && word != "admin_token" => reason,
            _ => panic!("{fates:?} {outcome:?}"),
        };
        assert!(reason.contains(word), "{fates:?} {reason}");
        assert_eq!(server.state().effects, 0);
    }
    // Who lies three times isn't asked again.
    let server = Failing::start(KongStandin::holding(KEY));
    let lies = [Fate::Normal, Fate::Lie, Fate::Normal].repeat(3);
    server.state().fates.extend(lies);
    assert!(matches!(run(&mut adapter(&server), &action(Action::Suspend)), CallOutcome::Failed(_)));
    assert_eq!(server.state().asked.len(), 9);
    let read_only = KongStandin { is_read_only: true, ..KongStandin::holding(KEY) };
    let server = Failing::start(read_only);
    assert!(matches!(run(&mut adapter(&server), &action(Action::Suspend)), CallOutcome::Failed(_)));
}

#[test]
fn a_key_in_a_consumer_s_own_plugins_is_suspended_and_never_revoked() {
    let consumer = json!({ "username": "acme", "plugins": { "key-auth": { "key": KEY }, "limit-count": { "count": 2 } } });
    let objects = [("/consumers/acme".to_owned(), consumer.clone())].into();
    let server = Failing::start(ApisixStandin { token: TOKEN, objects });
    let mut life = adapter(&server);
    let of = |of| RequestedAction { credential: String::new(), ..action(of) };
    assert_eq!(run(&mut life, &of(Action::Suspend)), CallOutcome::Done);
    let suspended = server.state().standin.key("/consumers/acme").unwrap().to_owned();
    assert_eq!(unmasked(suspended.as_bytes()), Some(KEY.as_bytes()));
    assert!(
        matches!(run(&mut life, &of(Action::Revoke)), CallOutcome::Failed(why) if why.contains("stays suspended"))
    );
    assert_eq!(run(&mut life, &of(Action::Reinstate)), CallOutcome::Done);
    assert_eq!(server.state().standin.objects["/consumers/acme"], consumer);
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = prop_oneof![
        3 => Just(Fate::Normal),
        1 => Just(Fate::DropBefore),
        2 => Just(Fate::DropAfter),
        1 => Just(Fate::Late),
        1 => Just(Fate::Lie),
        1 => prop_oneof![Just(500), Just(503), Just(429), Just(401)].prop_map(Fate::Status),
    ];
    prop::collection::vec(fate, 0..14)
}

/// Suspends for some calls, then lets in until it is over, with crashes before some calls.
fn ends_unsuspended<S: Tried>(fates: &[Fate], suspends: usize, crashes: &[bool]) {
    let server = Failing::start(S::holding(KEY));
    server.state().fates.extend(fates.iter().copied());
    let mut life = adapter(&server);
    let mut crashes = crashes.iter().copied().chain(std::iter::repeat(false));
    let mut call = |of: Action| {
        if crashes.next() == Some(true) {
            life = adapter(&server);
        }
        life.call(&action(of), &|| Ok(()))
    };
    let lies = fates.iter().filter(|fate| **fate == Fate::Lie).count();
    let is_late = fates.contains(&Fate::Late);
    let last = (0..suspends).map(|_| call(Action::Suspend)).find(is_over);
    if last == Some(CallOutcome::Done) {
        assert_eq!(server.state().standin.seen(), suspended());
    }
    assert!(is_late || server.state().effects <= 1, "{fates:?}");
    let ended = (0..100).map(|_| call(Action::Reinstate)).find(is_over).unwrap();
    if lies < 3 {
        assert_eq!(ended, CallOutcome::Done, "{fates:?}");
    }
    assert!(is_late || server.state().effects <= 2, "{fates:?}");
    // What was still under way came into force with one of the looks.
    if ended == CallOutcome::Done {
        assert_eq!(server.state().standin.seen(), let_in(), "{fates:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn kong_ends_unsuspended_over_failures_and_crashes(
        fates in fates(),
        suspends in 0..8_usize,
        crashes in prop::collection::vec(any::<bool>(), 0..24),
    ) {
        ends_unsuspended::<KongStandin>(&fates, suspends, &crashes);
    }

    #[test]
    fn aws_ends_unsuspended_over_failures_and_crashes(
        fates in fates(),
        suspends in 0..8_usize,
        crashes in prop::collection::vec(any::<bool>(), 0..24),
    ) {
        ends_unsuspended::<AwsStandin>(&fates, suspends, &crashes);
    }

    #[test]
    fn apisix_ends_unsuspended_over_failures_and_crashes(
        fates in fates(),
        suspends in 0..8_usize,
        crashes in prop::collection::vec(any::<bool>(), 0..24),
    ) {
        ends_unsuspended::<ApisixStandin>(&fates, suspends, &crashes);
    }
}
