//! Each rule of the policy and each state of an action. Whatever order answers and reports come in, no action is
//! requested twice, no hour sees more keys than the breaker lets pass, and a key that was let in isn't denied.

mod masses;

use keytide_dataflow::model::time::MINUTE_MS;
use keytide_dataflow::{Incident, IncidentState, Owner, Reason, Taken};
use proptest::prelude::*;

use keytide_config::DefaultPolicy;
use keytide_dataflow::detect::Severity;
use keytide_dataflow::model::Policy;
use keytide_dataflow::model::time::HOUR_MS;

use super::*;

mod told;

/// A Saturday in 2024, in milliseconds since 1970.
const START_MS: u64 = 1_718_452_800_000;

/// An engine whose actions are only shown.
fn engine(rules: PolicyRules) -> ActionEngine {
    ActionEngine::new(rules, None)
}

fn gateway(kind: GatewayKind) -> Gateway {
    Gateway {
        name: "edge".to_owned(),
        kind,
        mode: PolicyMode::Live,
        caps: GatewayCaps::default(),
        confirm_after_ms: MINUTE_MS,
        probation: None,
    }
}

/// An engine whose gateway reports when it has acted.
fn live(rules: PolicyRules) -> ActionEngine {
    ActionEngine::new(rules, Some(&gateway(GatewayKind::File { path: "denied.txt".into() })))
}

/// A gateway whose actions are held until a person saw one work with these settings.
fn tried(settings: &str) -> Gateway {
    let path = GatewayKind::File { path: "denied.txt".into() };
    Gateway { probation: Some(settings.to_owned()), ..gateway(path) }
}

/// An engine that goes on from what a checkpoint has of another one, with these settings of its gateway.
fn restarted(engine: &ActionEngine, settings: &str) -> ActionEngine {
    let stored = postcard::to_stdvec(engine.memory()).unwrap();
    let memory = postcard::from_bytes(&stored).unwrap();
    ActionEngine::restore(PolicyRules::default(), Some(&tried(settings)), memory)
}

impl ActionEngine {
    fn decide_all(&mut self, transitions: &[Transition]) -> Vec<Revocation> {
        self.fold(0, &[], transitions, &|key| key.to_string()).0.revocations
    }

    /// Takes an answer of alice; returns the reply and the rows.
    fn say(&mut self, verb: Verb, action: ActionId) -> (Reply, ActionRows) {
        self.take(self.asking("alice", verb, action), &[])
    }

    /// Takes an answer with transitions of the same tick.
    fn take(&mut self, answer: ActionInput, transitions: &[Transition]) -> (Reply, ActionRows) {
        let (rows, mut replies) = self.fold(0, &[answer], transitions, &|key| key.to_string());
        assert_eq!(replies.len(), 1);
        (replies.remove(0).1, rows)
    }

    fn report_all(&mut self, action: ActionId, failure: Option<&str>) -> ActionRows {
        self.fold(0, &[report(action, failure)], &[], &|key| key.to_string()).0
    }

    /// Folds a tick that has these rows of `usage` alone.
    fn hear_all(&mut self, usage: &[Row<KeyId, OwnedUsage>]) -> ActionRows {
        self.hear(usage);
        self.fold(0, &[], &[], &|key| key.to_string()).0
    }

    fn state(&self, action: ActionId) -> ActionState {
        self.memory.actions[&action].row.state
    }

    /// Makes an answer about an action; about its key, if the verb is of keys.
    fn asking(&self, who: &str, verb: Verb, action: ActionId) -> ActionInput {
        let record = self.memory.actions.get(&action);
        let (incident, key) = record.map_or((IncidentId(1), KeyId(3)), |of| (of.row.incident, of.row.key));
        let target = match verb {
            verb if verb.is_of_policy() => AnswerTarget::Policy,
            verb if verb.is_of_keys() => AnswerTarget::Key(key.to_string()),
            _ => AnswerTarget::Action(action, SuspectedLeak { incident, key }),
        };
        answer(who, verb, target)
    }
}

fn answer(who: &str, verb: Verb, target: AnswerTarget) -> ActionInput {
    ActionInput::Answer(PersonAnswer {
        request: 7,
        verb,
        target,
        until_ms: if verb == Verb::Mute { START_MS + 3 * HOUR_MS } else { 0 },
        who: who.to_owned(),
        why: "seen in a public repository".to_owned(),
        at_ms: START_MS + HOUR_MS,
    })
}

fn report(action: ActionId, failure: Option<&str>) -> ActionInput {
    reported(action, failure.map_or(GatewayOutcome::Done, |why| GatewayOutcome::Failed(why.to_owned())))
}

fn reported(action: ActionId, outcome: GatewayOutcome) -> ActionInput {
    let gateway = "edge".to_owned();
    ActionInput::Report(GatewayReport { action, gateway, outcome, at_ms: START_MS + HOUR_MS })
}

/// A report that the gateway refused the job's credentials.
fn refusal(action: ActionId) -> ActionInput {
    reported(action, GatewayOutcome::Refused("admin_token is wrong".to_owned()))
}

fn rules(default: DefaultPolicy) -> PolicyRules {
    PolicyRules { default, ..PolicyRules::default() }
}

/// An incident of `key` that opened at revoke level, one of 1,000 keys that are in use.
fn opened(key: u128, opened_ms: u64) -> Transition {
    Transition {
        incident: Incident {
            id: IncidentId::new(KeyId(key), opened_ms),
            key: KeyId(key),
            owner: Owner::default(),
            severity: Severity::Revoke,
            score: 99,
            state: IncidentState::Open,
            opened_ms,
            last_signal_ms: opened_ms + MINUTE_MS,
            ended_ms: None,
            signals: Vec::new(),
            traffic: Vec::new(),
            samples: Vec::new(),
            calls: 1,
            known_since_ms: 0,
            taken: Taken::default(),
            usual: Vec::new(),
            other_keys: Vec::new(),
            earlier: Vec::new(),
            reopenings: 0,
            known_calls: 1,
            platform_event: false,
        },
        seq: 0,
        change: Change::Opened,
        at_ms: opened_ms + MINUTE_MS,
        reason: None,
        early: false,
        is_repeat: false,
        catching_up: false,
        policy: Some(Policy::Suspend),
        key_state: Some(KeyState::Active),
        active_keys: 1_000,
        contact: Default::default(),
        contacts: Default::default(),
        place: Default::default(),
    }
}

fn changed(transition: Transition, change: impl FnOnce(&mut Transition)) -> Transition {
    let mut transition = transition;
    change(&mut transition);
    transition
}

/// What a policy that remembers nothing says about it.
fn alone(transition: Transition) -> Option<Revocation> {
    let mut rows = engine(PolicyRules::default()).decide_all(&[transition]);
    assert!(rows.len() <= 1);
    rows.pop()
}

fn passed(row: &Revocation) -> bool {
    row.reason.starts_with("would have suspended") || row.reason.starts_with("would have revoked")
}

#[test]
fn a_dry_run_says_what_would_have_been_done() {
    let transition = opened(7, START_MS);
    let row = alone(transition.clone()).unwrap();
    assert_eq!(
        row,
        Revocation {
            id: ActionId::new(transition.incident.id, Action::Suspend, 0),
            key: KeyId(7),
            key_id: KeyId(7).to_string(),
            incident: transition.incident.id,
            action: Action::Suspend,
            state: ActionState::Held,
            reason: "would have suspended the key; held: acting is off".to_owned(),
            at_ms: transition.at_ms,
        }
    );
    assert_eq!(held(&row.reason), "acting is off");
}

#[test]
fn what_is_done_follows_from_the_policy_and_the_keys_state() {
    for (allowed, state, expected) in [
        (Policy::Observe, KeyState::Active, None),
        (Policy::Alert, KeyState::Active, None),
        (Policy::Suspend, KeyState::Active, Some(Action::Suspend)),
        (Policy::Suspend, KeyState::Suspended, None),
        (Policy::Suspend, KeyState::Revoked, None),
        (Policy::Revoke, KeyState::Active, Some(Action::Suspend)),
        (Policy::Revoke, KeyState::Suspended, Some(Action::Revoke)),
        (Policy::Revoke, KeyState::Revoked, None),
    ] {
        let row = alone(changed(opened(7, START_MS), |it| {
            (it.policy, it.key_state) = (Some(allowed), Some(state));
        }));
        assert_eq!(row.map(|row| row.action), expected, "{allowed:?} {state:?}");
    }
}

#[test]
fn a_plan_without_a_policy_has_the_default_one() {
    let transition = changed(opened(7, START_MS), |it| it.policy = None);
    let says = |default| engine(rules(default)).decide_all(std::slice::from_ref(&transition)).len();
    assert_eq!(
        [DefaultPolicy::Observe, DefaultPolicy::Alert, DefaultPolicy::Suspend, DefaultPolicy::Revoke]
            .map(says),
        [0, 0, 1, 1]
    );
}

#[test]
fn a_key_without_a_row_is_never_acted_on() {
    let transition = changed(opened(7, START_MS), |it| (it.policy, it.key_state) = (None, None));
    assert_eq!(engine(rules(DefaultPolicy::Revoke)).decide_all(&[transition]), []);
}

#[test]
fn calls_of_no_key_and_of_keys_beyond_a_cap_are_never_acted_on() {
    for key in KeyId::BUCKETS {
        assert_eq!(alone(opened(key.0, START_MS)), None);
    }
}

#[test]
fn nothing_is_done_early_or_below_the_level() {
    assert_eq!(alone(changed(opened(7, START_MS), |it| it.early = true)), None);
    assert_eq!(alone(changed(opened(7, START_MS), |it| it.incident.severity = Severity::Alert)), None);
    assert_eq!(alone(changed(opened(7, START_MS), |it| it.change = Change::Ended)), None);
    // The close of the window that fired early asks.
    let mut policy = engine(PolicyRules::default());
    assert_eq!(policy.decide_all(&[changed(opened(7, START_MS), |it| it.early = true)]), []);
    let raised = changed(opened(7, START_MS), |it| (it.seq, it.change) = (1, Change::Raised));
    assert_eq!(policy.decide_all(&[raised]).len(), 1);
}

#[test]
fn an_incident_asks_once_for_the_same() {
    let mut policy = engine(PolicyRules { cooldown_ms: 0, ..PolicyRules::default() });
    let revoke = |it: Transition| changed(it, |it| it.policy = Some(Policy::Revoke));
    assert_eq!(policy.decide_all(&[revoke(opened(7, START_MS))])[0].action, Action::Suspend);
    let again = |seq, state| {
        changed(revoke(opened(7, START_MS)), |it| {
            (it.seq, it.change, it.key_state) = (seq, Change::Reopened, Some(state));
            it.at_ms += u64::from(seq) * 2 * HOUR_MS;
        })
    };
    assert_eq!(policy.decide_all(&[again(1, KeyState::Active)]), []);
    assert_eq!(policy.decide_all(&[again(2, KeyState::Suspended)])[0].action, Action::Revoke);
    assert_eq!(policy.decide_all(&[again(3, KeyState::Suspended)]), []);
}

#[test]
fn catching_up_and_platform_events_are_for_a_person() {
    let row = alone(changed(opened(7, START_MS), |it| it.catching_up = true)).unwrap();
    assert_eq!(
        row.reason,
        "would have asked a person before suspending the key; held: the job was catching up; acting is off, too"
    );
    let row = alone(changed(opened(7, START_MS), |it| it.incident.platform_event = true)).unwrap();
    assert_eq!(held(&row.reason), "many keys rose together; acting is off, too");
    // What is held takes nothing of the breaker's room.
    let mut policy = engine(PolicyRules { keys_per_hour: 1, ..PolicyRules::default() });
    policy.decide_all(&[changed(opened(7, START_MS), |it| it.catching_up = true)]);
    assert!(passed(&policy.decide_all(&[opened(8, START_MS)])[0]));
}

#[test]
fn a_key_that_was_acted_on_is_left_alone_for_a_time() {
    let mut policy = engine(PolicyRules::default());
    assert!(passed(&policy.decide_all(&[opened(7, START_MS)])[0]));
    let row = &policy.decide_all(&[opened(7, START_MS + 24 * HOUR_MS - 1)])[0];
    assert_eq!(
        held(&row.reason),
        "the key was acted on within the last 1d of event time; acting is off, too"
    );
    assert!(passed(&policy.decide_all(&[opened(7, START_MS + 24 * HOUR_MS)])[0]));
}

#[test]
fn breaker_and_cooldown_outlive_a_process() {
    let rules = PolicyRules { keys_per_hour: 1, ..PolicyRules::default() };
    let mut policy = engine(rules);
    assert!(passed(&policy.decide_all(&[opened(7, START_MS)])[0]));
    let stored = postcard::to_stdvec(policy.memory()).unwrap();
    let held = |key: u128, at_ms: u64| {
        let mut next = ActionEngine::restore(rules, None, postcard::from_bytes(&stored).unwrap());
        next.decide_all(&[opened(key, at_ms)]).pop().unwrap().reason
    };
    let of_breaker = held(8, START_MS + MINUTE_MS);
    assert!(of_breaker.contains("the breaker lets pass 1 key an hour"), "{of_breaker}");
    let of_cooldown = held(7, START_MS + 2 * HOUR_MS);
    assert!(of_cooldown.contains("the key was acted on within the last"), "{of_cooldown}");
    let none = engine(rules).decide_all(&[opened(8, START_MS + MINUTE_MS)]);
    assert!(passed(&none[0]), "without the memory it would have acted");
}

#[test]
fn the_breaker_holds_what_is_beyond_it_and_says_so() {
    let mut policy = engine(PolicyRules::default());
    let tick: Vec<Transition> = (0..12).map(|key| opened(key + 2, START_MS + key as u64)).collect();
    let rows = policy.decide_all(&changed_active(tick, 5_000));
    assert_eq!(rows.iter().filter(|row| passed(row)).count(), 10);
    let row = rows.iter().find(|row| row.key == KeyId(13)).unwrap();
    assert_eq!(
        held(&row.reason),
        "the breaker lets pass 10 keys an hour, of 5000 in use; acting is off, too"
    );
    // An hour after the last of them there is room again.
    assert!(!passed(&policy.decide_all(&[opened(99, START_MS + HOUR_MS - 1)])[0]));
    assert!(passed(&policy.decide_all(&[opened(98, START_MS + 9 + HOUR_MS)])[0]));
}

#[test]
fn a_gateway_has_a_breaker_of_its_own_which_says_that_it_is_its() {
    let capped = |caps| Gateway { caps, ..gateway(GatewayKind::File { path: "denied.txt".into() }) };
    let of = |keys_per_hour, percent_per_hour| GatewayCaps { keys_per_hour, percent_per_hour };
    for (caps, active, passes, whose) in [
        (of(None, None), 5_000, "10 keys", ""),
        (of(Some(3), None), 5_000, "3 keys", " of the gateway edge"),
        (of(Some(0), None), 5_000, "0 keys", " of the gateway edge"),
        (of(Some(3), Some(0)), 5_000, "1 key", " of the gateway edge"),
        (of(Some(30), Some(100)), 5_000, "10 keys", ""),
        (of(None, Some(2)), 400, "4 keys", ""),
    ] {
        let mut engine = ActionEngine::new(PolicyRules::default(), Some(&capped(caps)));
        let tick: Vec<Transition> = (0..12).map(|key| opened(key + 2, START_MS)).collect();
        let rows = engine.decide_all(&changed_active(tick, active));
        let asked = rows.iter().filter(|row| row.state == ActionState::Requested).count();
        let row = rows.iter().find(|row| row.state == ActionState::Held).unwrap();
        assert_eq!(
            held(&row.reason),
            format!("the breaker{whose} lets pass {passes} an hour, of {active} in use")
        );
        assert!(passes.starts_with(&format!("{asked} ")), "{caps:?}");
    }
    // What a person approves takes room of it, and it outlives a process.
    let caps = of(Some(2), None);
    let mut engine = ActionEngine::new(
        PolicyRules::default(),
        Some(&Gateway { probation: Some("one".to_owned()), ..capped(caps) }),
    );
    for key in [7, 8] {
        let id = engine.decide_all(&[opened(key, START_MS)]).remove(0).id;
        engine.say(Verb::Approve, id);
    }
    let stored = postcard::to_stdvec(engine.memory()).unwrap();
    let memory = postcard::from_bytes(&stored).unwrap();
    let mut engine = ActionEngine::restore(PolicyRules::default(), Some(&capped(caps)), memory);
    let row = engine.decide_all(&[opened(9, START_MS)]).remove(0);
    assert_eq!(held(&row.reason), "the breaker of the gateway edge lets pass 2 keys an hour, of 1000 in use");
    assert_eq!(engine.decide_all(&[opened(9, START_MS + 2 * HOUR_MS)])[0].state, ActionState::Requested);
}

fn changed_active(transitions: Vec<Transition>, active: u64) -> Vec<Transition> {
    transitions.into_iter().map(|it| changed(it, |it| it.active_keys = active)).collect()
}

#[test]
fn the_breaker_is_a_share_of_the_keys_in_use_but_at_least_one_key() {
    for (active, expected) in [(0, 1), (99, 1), (100, 1), (199, 1), (200, 2), (1_000, 10), (1_000_000, 10)] {
        let tick: Vec<Transition> = (0..20).map(|key| opened(key + 2, START_MS)).collect();
        let rows = engine(PolicyRules::default()).decide_all(&changed_active(tick, active));
        assert_eq!(rows.iter().filter(|row| passed(row)).count(), expected, "{active}");
    }
    let none = PolicyRules { keys_per_hour: 0, ..PolicyRules::default() };
    assert!(!passed(&engine(none).decide_all(&[opened(7, START_MS)])[0]));
}

#[test]
fn old_incidents_that_rise_together_are_stopped_too() {
    let mut policy = engine(PolicyRules { keys_per_hour: 3, ..PolicyRules::default() });
    let tick: Vec<Transition> = (0..20)
        .map(|key| {
            changed(opened(key + 2, START_MS - key as u64 * 5 * HOUR_MS), |it| {
                (it.seq, it.change, it.at_ms) = (1, Change::Raised, START_MS + MINUTE_MS);
            })
        })
        .collect();
    assert_eq!(policy.decide_all(&tick).iter().filter(|row| passed(row)).count(), 3);
}

#[test]
fn what_a_withdrawn_incident_asked_for_is_withdrawn() {
    let mut policy = engine(PolicyRules::default());
    let transition = opened(7, START_MS);
    let withdrawn = changed(transition.clone(), |it| {
        (it.seq, it.change, it.reason) = (1, Change::Withdrawn, Some(Reason::Publishable));
        it.at_ms += MINUTE_MS;
    });
    assert_eq!(policy.decide_all(std::slice::from_ref(&withdrawn)), [], "it asked for nothing yet");
    let asked = policy.decide_all(std::slice::from_ref(&transition));
    let rows = policy.decide_all(std::slice::from_ref(&withdrawn));
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].id, rows[0].state), (asked[0].id, ActionState::Withdrawn));
    assert_eq!(rows[0].reason, "withdrawn: the table of keys says that the key is publishable");
    assert_eq!(policy.decide_all(std::slice::from_ref(&withdrawn)), [], "once");
    // Within one tick only the last row of an action is returned.
    let mut policy = engine(PolicyRules::default());
    let rows = policy.decide_all(&[withdrawn, transition]);
    assert_eq!(rows.iter().map(|row| row.state).collect::<Vec<_>>(), [ActionState::Withdrawn]);
}

#[test]
fn memory_is_bounded_by_time() {
    let mut policy = engine(PolicyRules { keys_per_hour: 1_000, ..PolicyRules::default() });
    for hour in 0..2_000 {
        policy.decide_all(&[opened(u128::from(hour) + 2, START_MS + hour * HOUR_MS)]);
    }
    let ActionMemory { policy, actions, by_time, .. } = policy.memory();
    let days = 32 * 24 + 1;
    for length in policy.sizes().into_iter().chain([actions.len(), by_time.len()]) {
        assert!((days - 1..=days).contains(&length), "{length}");
    }
}

#[test]
fn memory_is_bounded_by_number() {
    let mut policy = engine(PolicyRules { keys_per_hour: 0, ..PolicyRules::default() });
    let tick: Vec<Transition> = (0..MAX_ACTIONS as u128 + 1).map(|key| opened(key + 2, START_MS)).collect();
    for part in tick.chunks(10_000) {
        policy.decide_all(part);
    }
    let ActionMemory { actions, by_time, .. } = policy.memory();
    assert_eq!((actions.len(), by_time.len()), (MAX_ACTIONS, MAX_ACTIONS));
}

#[test]
fn a_gateway_that_acts_gets_what_the_policy_lets_pass_and_denies_the_key_from_then_on() {
    let mut engine = live(PolicyRules::default());
    let transition = opened(7, START_MS);
    let suspend = ActionId::new(transition.incident.id, Action::Suspend, 0);
    let (rows, _) = engine.fold(0, &[], std::slice::from_ref(&transition), &|key| key.to_string());
    let row = &rows.revocations[0];
    assert_eq!((row.id, row.state), (suspend, ActionState::Requested));
    assert_eq!(row.reason, "suspending the key, as its policy says");
    let denial = Some((DenialState::Suspended, transition.at_ms, transition.incident.id));
    assert_eq!(rows.denied, [DeniedKey { key_id: KeyId(7).to_string(), denial }]);
    assert_eq!(engine.memory().requested(), [suspend]);
    assert_eq!(engine.memory().deny_list(), [(KeyId(7).to_string(), DenialState::Suspended)].into());
    let entry = &rows.audit[0];
    assert_eq!(
        (&*entry.target, entry.seq, &*entry.who, entry.what),
        (&*suspend.to_string(), 0, "policy", "decide")
    );
    assert_eq!((entry.from, entry.to), (None, Some(ActionState::Requested)));
    assert_eq!(entry.gateway.as_deref(), Some("edge"));

    let rows = engine.report_all(suspend, None);
    assert_eq!(rows.revocations[0].state, ActionState::Done);
    assert_eq!((rows.denied.len(), engine.memory().requested().len()), (0, 0));
    let entry = &rows.audit[0];
    assert_eq!((entry.seq, &*entry.who, entry.what), (1, "edge", "done"));
    assert_eq!(engine.report_all(suspend, Some("late")), ActionRows::default(), "it reports once");
    // Its table still says that the key is active.
    let later = changed(opened(7, START_MS + 3 * HOUR_MS), |_| {});
    assert_eq!(engine.decide_all(&[later]), [], "a denied key is never suspended again");
}

/// A transition about a key whose row names a gateway.
fn at_gateway(key: u128, gateway: &str) -> Transition {
    changed(opened(key, START_MS), |it| it.place.gateway = NameId::new(gateway))
}

#[test]
fn of_several_gateways_the_one_acts_that_the_row_names() {
    let of = |name: &str, mode| Gateway {
        name: name.to_owned(),
        mode,
        ..gateway(GatewayKind::File { path: "denied.txt".into() })
    };
    let gateways =
        [of("edge", PolicyMode::Live), of("inner", PolicyMode::Live), of("dry", PolicyMode::DryRun)];
    let mut engine = ActionEngine::new(PolicyRules::default(), &gateways);
    let suspension = engine.decide_all(&[at_gateway(7, "inner")]).remove(0);
    assert_eq!(suspension.state, ActionState::Requested);
    let of_gateway = |engine: &ActionEngine, name: &str| -> Vec<ActionId> {
        engine.requested_of(name).map(|record| record.row.id).collect()
    };
    assert_eq!(of_gateway(&engine, "inner"), [suspension.id]);
    assert_eq!(of_gateway(&engine, "edge"), []);
    assert_eq!(engine.report_all(suspension.id, None), ActionRows::default(), "edge can't report for inner");
    for (key, named, why) in [
        (8, "", "there are several gateways, and the table of keys names none"),
        (9, "outer", "the table of keys names a gateway that the job doesn't have"),
        (10, "dry", "acting is off"),
    ] {
        let row = engine.decide_all(&[at_gateway(key, named)]).remove(0);
        assert_eq!((row.state, held(&row.reason)), (ActionState::Held, why));
        let (reply, _) = engine.say(Verb::Approve, row.id);
        assert!(matches!(reply, Reply::Refused(refused) if refused.starts_with(why)), "{reply:?}");
    }
    // It is lifted by the gateway that suspended the key, also if that is the only one now and the row names none.
    for left in [&gateways[..], &gateways[1..2]] {
        let mut engine = ActionEngine::restore(PolicyRules::default(), left, engine.memory().clone());
        let (reply, _) = engine.say(Verb::Reinstate, suspension.id);
        assert!(matches!(&reply, Reply::Accepted(Some(_))), "{reply:?}");
        let [lifted] = engine.requested_of("inner").collect::<Vec<_>>()[..] else { panic!() };
        assert_eq!((lifted.row.action, lifted.origin.follows), (Action::Reinstate, Some(suspension.id)));
    }
    // A gateway that was renamed goes on with what was asked of it, if the row names none.
    let mut engine = ActionEngine::new(PolicyRules::default(), &gateways[..1]);
    let asked = engine.decide_all(&[opened(7, START_MS)]).remove(0).id;
    let renamed = ActionEngine::restore(PolicyRules::default(), &gateways[1..2], engine.memory().clone());
    assert_eq!(of_gateway(&renamed, "inner"), [asked]);
}

#[test]
fn a_gateway_that_follows_the_topic_has_acted_with_the_tick() {
    let mut engine = ActionEngine::new(PolicyRules::default(), Some(&gateway(GatewayKind::Topic)));
    let rows = engine.decide_all(&[opened(7, START_MS)]);
    assert_eq!(rows[0].state, ActionState::Done);
    assert_eq!(engine.memory().deny_list().len(), 1);
}

#[test]
fn a_dry_run_denies_nothing_and_can_not_be_approved() {
    let mut engine = ActionEngine::new(
        PolicyRules::default(),
        Some(&Gateway { mode: PolicyMode::DryRun, ..gateway(GatewayKind::Topic) }),
    );
    let (rows, _) = engine.fold(0, &[], &[opened(7, START_MS)], &|key| key.to_string());
    assert_eq!((rows.denied.len(), rows.audit.len()), (0, 1));
    let id = rows.revocations[0].id;
    let (reply, rows) = engine.say(Verb::Approve, id);
    assert!(matches!(reply, Reply::Refused(why) if why.starts_with("acting is off")), "{reply:?}");
    assert_eq!(rows, ActionRows::default());
    let (reply, _) = engine.say(Verb::Dismiss, id);
    assert!(matches!(reply, Reply::Accepted(Some(row)) if row.state == ActionState::Withdrawn));
}

#[test]
fn a_held_action_is_approved_or_dismissed_once() {
    let mut engine = live(PolicyRules { keys_per_hour: 0, ..PolicyRules::default() });
    let row = engine.decide_all(&[opened(7, START_MS)]).remove(0);
    assert_eq!(row.state, ActionState::Held);
    assert_eq!(
        row.reason,
        "asks a person before suspending the key; held: the breaker lets pass 0 keys an hour, of 1000 in use"
    );
    let (reply, rows) = engine.say(Verb::Approve, row.id);
    let Reply::Accepted(Some(approved)) = reply else { panic!("{reply:?}") };
    assert_eq!(
        (approved.state, &*approved.reason),
        (ActionState::Requested, "approved by alice: seen in a public repository")
    );
    assert_eq!((rows.audit.len(), rows.denied.len()), (1, 1));
    assert_eq!((rows.audit[0].from, rows.audit[0].what), (Some(ActionState::Held), "approve"));
    // The same again changes nothing, and the opposite is refused with who decided.
    let (reply, rows) = engine.say(Verb::Approve, row.id);
    assert_eq!((reply, rows), (Reply::Accepted(Some(approved)), ActionRows::default()));
    assert_eq!(engine.say(Verb::Approve, ActionId(1)).0, Reply::Unknown);

    let other = engine.decide_all(&[opened(8, START_MS)]).remove(0);
    engine.say(Verb::Dismiss, other.id);
    assert_eq!(engine.state(other.id), ActionState::Withdrawn);
    let (reply, _) = engine.say(Verb::Approve, other.id);
    let Reply::Decided { state, by: Some(by) } = reply else { panic!("{reply:?}") };
    assert_eq!((state, by.verb, &*by.who), (ActionState::Withdrawn, Verb::Dismiss, "alice"));
    // Other signals opened it again: a person is asked again.
    let again = changed(opened(8, START_MS), |it| (it.seq, it.change) = (1, Change::Reopened));
    let again = engine.decide_all(&[again]).remove(0);
    assert_eq!((again.id, again.state), (other.id, ActionState::Held));
    assert_eq!(held(&again.reason), "alice dismissed the incident before");
}

#[test]
fn a_suspension_is_lifted_by_an_action_of_its_own() {
    for verb in [Verb::Reinstate, Verb::Dismiss] {
        for is_done in [false, true] {
            let mut engine = live(PolicyRules::default());
            let suspend = engine.decide_all(&[opened(7, START_MS)]).remove(0).id;
            if is_done {
                engine.report_all(suspend, None);
            }
            let (reply, rows) = engine.say(verb, suspend);
            let Reply::Accepted(Some(lifting)) = reply else { panic!("{reply:?}") };
            assert_eq!((lifting.action, lifting.state), (Action::Reinstate, ActionState::Requested));
            assert_eq!(rows.denied, [DeniedKey { key_id: KeyId(7).to_string(), denial: None }]);
            let expected = if is_done { ActionState::Done } else { ActionState::Withdrawn };
            assert_eq!(engine.state(suspend), expected);
            // A suspension that is reported only now is undone by what the gateway does next.
            engine.report_all(suspend, None);
            assert_eq!((engine.state(suspend), engine.memory().requested()), (expected, vec![lifting.id]));
            let (reply, rows) = engine.say(verb, suspend);
            assert_eq!((reply, rows), (Reply::Accepted(Some(lifting.clone())), ActionRows::default()));
            engine.report_all(lifting.id, None);
            assert_eq!(engine.state(lifting.id), ActionState::Done);
            assert_eq!(engine.memory().deny_list(), [].into());
        }
    }
}

#[test]
fn only_a_suspended_key_is_revoked_and_that_is_final() {
    let mut engine = live(PolicyRules::default());
    let suspend = engine.decide_all(&[opened(7, START_MS)]).remove(0).id;
    assert_eq!(engine.say(Verb::Revoke, suspend).0, Reply::Refused("the gateway hasn't suspended the key"));
    engine.report_all(suspend, None);
    let (reply, rows) = engine.say(Verb::Revoke, suspend);
    let Reply::Accepted(Some(revoke)) = reply else { panic!("{reply:?}") };
    assert_eq!((revoke.action, revoke.state), (Action::Revoke, ActionState::Requested));
    assert_eq!(rows.denied[0].denial.map(|denial| denial.0), Some(DenialState::Revoked));
    engine.report_all(revoke.id, Some("no rights"));
    assert_eq!(engine.state(revoke.id), ActionState::Failed);
    assert_eq!(engine.memory().actions[&revoke.id].row.reason, "failed: no rights");
    let (reply, _) = engine.say(Verb::Reinstate, suspend);
    assert_eq!(reply, Reply::Refused("the key is revoked, which is final"));
    // Its incident is dismissed, and the key stays revoked.
    let (reply, rows) = engine.say(Verb::Dismiss, suspend);
    assert!(matches!(reply, Reply::Accepted(Some(row)) if row.action == Action::Revoke));
    assert_eq!((rows.revocations.len(), rows.denied.len(), rows.audit.len()), (0, 0, 1));
}

#[test]
fn an_incident_is_dismissed_with_its_actions_by_its_own_id() {
    for is_held in [true, false] {
        let keys_per_hour = if is_held { 0 } else { 10 };
        let mut engine = live(PolicyRules { keys_per_hour, ..PolicyRules::default() });
        let transition = opened(7, START_MS);
        let suspend = engine.decide_all(std::slice::from_ref(&transition)).remove(0).id;
        let leak = SuspectedLeak { incident: transition.incident.id, key: KeyId(7) };
        let dismiss = |leak| answer("alice", Verb::Dismiss, AnswerTarget::Incident(leak));
        let unknown = SuspectedLeak { incident: IncidentId(1), key: KeyId(7) };
        assert_eq!(engine.take(dismiss(unknown), &[]).0, Reply::Unknown);
        // The detector withdraws it in the same tick.
        let withdrawn = changed(transition.clone(), |it| {
            (it.seq, it.change, it.reason) = (1, Change::Withdrawn, Some(Reason::Dismissed));
            it.incident.state = IncidentState::Withdrawn;
        });
        let (reply, rows) = engine.take(dismiss(leak), std::slice::from_ref(&withdrawn));
        assert_eq!(reply, Reply::Accepted(None));
        assert_eq!(engine.state(suspend), ActionState::Withdrawn);
        assert_eq!(rows.denied.len(), usize::from(!is_held));
        assert!(rows.audit.iter().all(|entry| entry.who == "alice" && entry.what == "dismiss"), "{rows:?}");
        let of_incident = format!("incident/{}", transition.incident.id);
        let entry = rows.audit.iter().find(|entry| entry.target == of_incident).unwrap();
        assert_eq!((entry.seq, entry.from, entry.to), (0, None, None));
        let known = engine.memory().incidents().get(leak.incident).unwrap();
        assert_eq!((known.state, known.reason), (IncidentState::Withdrawn, Some(Reason::Dismissed)));
        assert_eq!(known.dismissed.as_ref().map(|by| &*by.who), Some("alice"));
        assert_eq!(engine.take(dismiss(leak), &[]), (Reply::Accepted(None), ActionRows::default()), "once");
        // Opened again, it is asked for again, and may be dismissed again.
        let again = changed(transition, |it| (it.seq, it.change) = (2, Change::Reopened));
        let again = engine.decide_all(&[again]).remove(0);
        assert_eq!(
            (again.state, held(&again.reason)),
            (ActionState::Held, "alice dismissed the incident before")
        );
        assert_eq!(again.id == suspend, is_held, "what was requested is never requested again");
        let (_, rows) = engine.take(dismiss(leak), &[withdrawn]);
        assert_eq!(engine.state(again.id), ActionState::Withdrawn);
        assert_eq!(rows.audit.iter().find(|entry| entry.target == of_incident).unwrap().seq, 1);
    }
}

#[test]
fn what_a_person_accepts_lifts_the_suspension_in_that_persons_name() {
    let mut engine = live(PolicyRules::default());
    let transition = opened(7, START_MS);
    let suspend = engine.decide_all(std::slice::from_ref(&transition)).remove(0).id;
    engine.report_all(suspend, None);
    let withdrawn = changed(transition, |it| {
        (it.seq, it.change, it.reason) = (1, Change::Withdrawn, Some(Reason::Accepted));
        it.incident.state = IncidentState::Withdrawn;
    });
    let accept = engine.asking("alice", Verb::Accept, suspend);
    let (reply, rows) = engine.take(accept, &[withdrawn]);
    assert_eq!(reply, Reply::Accepted(None));
    assert_eq!(
        (rows.revocations[0].action, rows.revocations[0].state),
        (Action::Reinstate, ActionState::Requested)
    );
    assert_eq!(rows.revocations[0].reason, "accepted by alice: seen in a public repository");
    assert!(rows.audit.iter().all(|entry| entry.who == "alice" && entry.what == "accept"), "{rows:?}");
    assert_eq!(engine.memory().deny_list(), [].into());
}

#[test]
fn what_nobody_decided_about_in_a_day_is_void_and_may_be_asked_for_again() {
    let mut engine = live(PolicyRules { keys_per_hour: 0, ..PolicyRules::default() });
    let key_id = |key: KeyId| key.to_string();
    let transition = opened(7, START_MS);
    // The job caught up: event time says nothing of how long people had.
    let tick = START_MS + 90 * 24 * HOUR_MS;
    let (rows, _) = engine.fold(tick, &[], std::slice::from_ref(&transition), &key_id);
    let id = rows.revocations[0].id;
    assert_eq!((engine.memory().counts().held, engine.state(id)), (1, ActionState::Held));
    assert_eq!(engine.fold(tick + HELD_MS - 1, &[], &[], &key_id).0, ActionRows::default());
    let (rows, _) = engine.fold(tick + HELD_MS, &[], &[], &key_id);
    assert_eq!((rows.revocations[0].state, rows.audit[0].what), (ActionState::Withdrawn, "void"));
    assert_eq!(rows.revocations[0].reason, "withdrawn: nobody decided about it within a day");
    assert_eq!((engine.memory().counts().held, rows.audit[0].at_ms), (0, tick + HELD_MS));
    let again = changed(transition, |it| (it.seq, it.change) = (1, Change::Raised));
    let (rows, _) = engine.fold(tick + 2 * HELD_MS, &[], &[again], &key_id);
    assert_eq!((rows.revocations[0].id, rows.revocations[0].state), (id, ActionState::Held));
    // What is asked for again has a day again.
    engine.say(Verb::Dismiss, id);
    let reopened = changed(opened(7, START_MS), |it| (it.seq, it.change) = (2, Change::Reopened));
    engine.fold(tick + 2 * HELD_MS + HOUR_MS, &[], &[reopened], &key_id);
    assert_eq!(engine.fold(tick + 3 * HELD_MS, &[], &[], &key_id).0, ActionRows::default());
    assert_eq!((engine.memory().counts().held, engine.state(id)), (1, ActionState::Held));
    // What was decided isn't, nor what is only shown.
    engine.say(Verb::Approve, id);
    assert_eq!(engine.fold(tick + 9 * HELD_MS, &[], &[], &key_id).0, ActionRows::default());
    let mut shown = self::engine(PolicyRules::default());
    shown.fold(tick, &[], &[opened(7, START_MS)], &key_id);
    assert_eq!(shown.fold(tick + 9 * HELD_MS, &[], &[], &key_id).0, ActionRows::default());
    assert_eq!(shown.memory().counts(), ActionCounts::default());
}

/// A minute of a key that starts so long after `START_MS`, with calls that were answered and refused.
fn minute(
    key: u128,
    after_ms: u64,
    (answered, refused): (u64, u64),
    complete: bool,
) -> Row<KeyId, OwnedUsage> {
    let usage = Usage { calls: answered + refused, errors_4xx: refused, ..Usage::default() };
    Row {
        group: KeyId(key),
        level: Level::Minute,
        start: START_MS + after_ms,
        value: OwnedUsage { usage, owner: Owner::default() },
        complete,
        is_final: false,
    }
}

#[test]
fn calls_confirm_that_a_key_is_refused_or_show_that_it_is_not() {
    let done_ms = HOUR_MS;
    for (calls, state, why) in [
        ((0, 5), ActionState::Confirmed, "suspending the key, as its policy says"),
        ((1, 5), ActionState::Failed, "failed: still answered: 1 of 6 calls in a minute"),
    ] {
        let mut engine = live(PolicyRules::default());
        let suspend = engine.decide_all(&[opened(7, START_MS)]).remove(0).id;
        engine.hear_all(&[minute(7, done_ms + 9 * MINUTE_MS, calls, true)]);
        assert_eq!(engine.state(suspend), ActionState::Requested, "it isn't done");
        engine.report_all(suspend, None);
        // Minutes before, those of other keys, whole hours, and minutes without an answer say nothing.
        let before = minute(7, done_ms + MINUTE_MS - 1, calls, true);
        let hour = Row { level: Level::Hour, ..minute(7, done_ms + HOUR_MS, calls, true) };
        let failed = Row {
            value: OwnedUsage {
                usage: Usage { calls: 3, errors_5xx: 3, ..Usage::default() },
                owner: Owner::default(),
            },
            ..minute(7, done_ms + 2 * MINUTE_MS, calls, true)
        };
        let silent = [minute(6, done_ms + HOUR_MS, calls, true), before, failed, hour];
        assert_eq!(engine.hear_all(&silent), ActionRows::default());
        // Of refused calls the minute must be complete; one that is answered is enough.
        let first = engine.hear_all(&[minute(7, done_ms + MINUTE_MS, calls, false)]);
        assert_eq!(first.audit.is_empty(), calls.0 == 0);
        engine.hear_all(&[minute(7, done_ms + MINUTE_MS, calls, true)]);
        assert_eq!((engine.state(suspend), &*engine.memory.actions[&suspend].row.reason), (state, why));
        assert_eq!(engine.memory().deny_list().len(), 1, "the key is denied all the same");
        let later = [minute(7, done_ms + 5 * MINUTE_MS, (9, 0), true)];
        assert_eq!(engine.hear_all(&later), ActionRows::default(), "once");
    }
    // A key that was let in isn't looked at, and a revocation is looked at anew.
    let mut engine = live(PolicyRules::default());
    let suspend = engine.decide_all(&[opened(7, START_MS)]).remove(0).id;
    engine.report_all(suspend, None);
    engine.hear_all(&[minute(7, done_ms + MINUTE_MS, (0, 1), true)]);
    let (reply, _) = engine.say(Verb::Revoke, suspend);
    let Reply::Accepted(Some(revoke)) = reply else {
        panic!("a confirmed suspension may be revoked: {reply:?}")
    };
    engine.report_all(revoke.id, None);
    let rows = engine.hear_all(&[minute(7, done_ms + MINUTE_MS, (2, 1), true)]);
    assert_eq!((rows.audit[0].what, &*rows.audit[0].who), ("failed", "calls"));
    let mut engine = live(PolicyRules::default());
    let suspend = engine.decide_all(&[opened(7, START_MS)]).remove(0).id;
    engine.report_all(suspend, None);
    engine.say(Verb::Reinstate, suspend);
    assert_eq!(engine.hear_all(&[minute(7, done_ms + MINUTE_MS, (2, 0), true)]), ActionRows::default());
}

#[test]
fn how_long_a_key_may_still_be_let_in_is_a_setting_of_its_gateway() {
    let path = GatewayKind::File { path: "denied.txt".into() };
    for (confirm_after_ms, after_ms) in [(1_000, 60_000), (60_000, 60_000), (600_000, 600_000)] {
        let slow = Gateway { confirm_after_ms, ..gateway(path.clone()) };
        let mut engine = ActionEngine::new(PolicyRules::default(), Some(&slow));
        let suspend = engine.decide_all(&[opened(7, START_MS)]).remove(0).id;
        engine.report_all(suspend, None);
        engine.hear_all(&[minute(7, HOUR_MS + after_ms - MINUTE_MS, (1, 0), true)]);
        assert_eq!(engine.state(suspend), ActionState::Done, "{confirm_after_ms}");
        engine.hear_all(&[minute(7, HOUR_MS + after_ms, (1, 0), true)]);
        assert_eq!(engine.state(suspend), ActionState::Failed, "{confirm_after_ms}");
    }
}

#[test]
fn three_failures_in_a_row_hold_the_rest_until_one_is_done() {
    let mut engine = live(PolicyRules::default());
    let ask = |engine: &mut ActionEngine, key: u128| engine.decide_all(&[opened(key, START_MS)]).remove(0);
    let id = ask(&mut engine, 6).id;
    engine.report_all(id, Some("no rights"));
    let id = ask(&mut engine, 7).id;
    engine.report_all(id, None);
    for key in [8, 9, 10] {
        let row = ask(&mut engine, key);
        assert_eq!(row.state, ActionState::Requested, "{key}");
        engine.report_all(row.id, Some("no rights"));
    }
    let row = ask(&mut engine, 11);
    assert_eq!(
        (row.state, held(&row.reason)),
        (ActionState::Held, "the last 3 actions of the gateway edge failed")
    );
    assert!(matches!(engine.say(Verb::Approve, row.id).0, Reply::Accepted(Some(_))));
    engine.report_all(row.id, None);
    assert_eq!(ask(&mut engine, 12).state, ActionState::Requested);
}

#[test]
fn a_gateway_on_probation_asks_a_person_until_an_approved_action_is_confirmed() {
    let mut engine = ActionEngine::new(PolicyRules::default(), Some(&tried("one")));
    let ask = |engine: &mut ActionEngine, key: u128| engine.decide_all(&[opened(key, START_MS)]).remove(0);
    let names = |engine: &ActionEngine| engine.memory().on_probation().map(str::to_owned).collect::<Vec<_>>();
    let why = "the gateway edge is on probation until an action that a person approved is confirmed";
    let first = ask(&mut engine, 7);
    assert_eq!((first.state, held(&first.reason)), (ActionState::Held, why));
    assert_eq!((engine.memory().deny_list().len(), names(&engine)), (0, vec!["edge".to_owned()]));
    assert!(matches!(engine.say(Verb::Approve, first.id).0, Reply::Accepted(Some(_))));
    // Neither the approval nor the gateway's word is enough, whatever restarts are between.
    for key in [8, 9] {
        engine = restarted(&engine, "one");
        engine.report_all(first.id, None);
        assert_eq!(ask(&mut engine, key).state, ActionState::Held);
    }
    let before = restarted(&engine, "one");
    let rows = engine.hear_all(&[minute(7, HOUR_MS + MINUTE_MS, (0, 4), true)]);
    let ended = rows.audit.iter().find(|entry| entry.target == "policy").unwrap();
    assert_eq!((&*ended.who, ended.what, ended.seq), ("calls", "end_probation", 0));
    assert_eq!(ended.gateway.as_deref(), Some("edge"));
    assert_eq!(names(&engine), [""; 0]);
    assert_eq!(ask(&mut engine, 20).state, ActionState::Requested);
    let mut engine = restarted(&engine, "one");
    assert_eq!(ask(&mut engine, 21).state, ActionState::Requested);
    // Other settings begin another one. What was approved with the settings before doesn't end it.
    for mut engine in [restarted(&engine, "two"), restarted(&before, "two")] {
        assert_eq!(names(&engine), ["edge"]);
        engine.hear_all(&[minute(7, HOUR_MS + MINUTE_MS, (0, 4), true)]);
        assert_eq!(held(&ask(&mut engine, 22).reason), why);
        let mut back = restarted(&engine, "one");
        assert_eq!(ask(&mut back, 23).state, ActionState::Held, "the settings of before are others by now");
    }
    // So does a time without the gateway, or without its being live.
    let away = ActionEngine::restore(PolicyRules::default(), None, engine.memory().clone());
    assert_eq!(names(&restarted(&away, "one")), ["edge"]);
}

#[test]
fn three_approved_actions_that_no_call_contradicts_end_a_probation_unless_one_fails() {
    let key_id = |key: KeyId| key.to_string();
    // Actions one after the other, and what becomes of each but that it is done.
    for (actions, ends) in [
        (&["", "", ""][..], true),
        (&["", "fails", "", ""], false),
        (&["", "", "lifted"], false),
        (&["answered", "", ""], false),
        (&["answered", "", "", ""], true),
    ] {
        let mut engine = ActionEngine::new(PolicyRules::default(), Some(&tried("one")));
        for (number, what) in actions.iter().enumerate() {
            let key = 7 + number as u128;
            let id = engine.decide_all(&[opened(key, START_MS)]).remove(0).id;
            engine.say(Verb::Approve, id);
            assert_eq!(engine.state(id), ActionState::Requested, "{actions:?}");
            engine.report_all(id, (*what == "fails").then_some("no"));
            match *what {
                "lifted" => drop(engine.say(Verb::Reinstate, id)),
                "answered" => drop(engine.hear_all(&[minute(key, HOUR_MS + MINUTE_MS, (3, 0), true)])),
                _ => {}
            }
            engine = restarted(&engine, "one");
        }
        engine.fold(START_MS + 31 * DAY_MS, &[], &[], &key_id);
        assert_eq!(engine.memory().on_probation().count(), 1, "nothing was heard of: {actions:?}");
        engine.hear_all(&[minute(99, HOUR_MS + DAY_MS, (1, 0), true)]);
        engine.hear_all(&[minute(99, HOUR_MS + DAY_MS + MINUTE_MS, (1, 0), false)]);
        assert_eq!(engine.memory().on_probation().count(), 1, "the day isn't over: {actions:?}");
        let rows = engine.hear_all(&[minute(99, HOUR_MS + DAY_MS + MINUTE_MS, (1, 0), true)]);
        assert_eq!(engine.memory().on_probation().count(), usize::from(!ends), "{actions:?}");
        let told = rows.audit.iter().filter(|entry| entry.what == "end_probation" && entry.who == "policy");
        assert_eq!(told.count(), usize::from(ends));
    }
}

#[test]
fn a_backlog_of_answered_calls_is_heard_before_a_watch_ends() {
    let mut engine = ActionEngine::new(PolicyRules::default(), Some(&tried("one")));
    let id = engine.decide_all(&[opened(7, START_MS)]).remove(0).id;
    engine.say(Verb::Approve, id);
    engine.report_all(id, None);
    // The job was away for two days, and one tick has all that came meanwhile.
    let late = [minute(7, HOUR_MS + MINUTE_MS, (3, 0), true), minute(99, 2 * DAY_MS, (1, 0), true)];
    engine.hear(&late);
    engine.fold(START_MS + 2 * DAY_MS, &[], &[], &|key| key.to_string());
    assert_eq!(engine.state(id), ActionState::Failed);
}

#[test]
fn calls_that_are_only_throttled_confirm_nothing() {
    let mut engine = ActionEngine::new(PolicyRules::default(), Some(&tried("one")));
    let id = engine.decide_all(&[opened(7, START_MS)]).remove(0).id;
    engine.say(Verb::Approve, id);
    engine.report_all(id, None);
    let mut throttled = minute(7, HOUR_MS + MINUTE_MS, (0, 4), true);
    throttled.value.usage.free_calls = 4;
    engine.hear_all(std::slice::from_ref(&throttled));
    assert_eq!(engine.state(id), ActionState::Done);
    throttled.value.usage.free_calls = 3;
    engine.hear_all(&[throttled]);
    assert_eq!(engine.state(id), ActionState::Confirmed);
}

#[test]
fn a_probation_never_keeps_a_key_from_being_let_in_again() {
    let mut engine = ActionEngine::new(PolicyRules::default(), Some(&tried("one")));
    let transition = opened(7, START_MS);
    let suspend = engine.decide_all(std::slice::from_ref(&transition)).remove(0).id;
    engine.say(Verb::Approve, suspend);
    engine.report_all(suspend, None);
    let withdrawn = changed(transition, |it| {
        (it.seq, it.change, it.reason) = (1, Change::Withdrawn, Some(Reason::Allowed));
    });
    let lifting = engine.decide_all(&[withdrawn]).remove(0);
    assert_eq!((lifting.action, lifting.state), (Action::Reinstate, ActionState::Requested));
    assert_eq!(engine.memory().on_probation().count(), 1);
}

/// An engine of which the gateway refused a suspension, with the suspension's id and its transition.
fn refused() -> (ActionEngine, ActionId, Transition) {
    let mut engine = live(PolicyRules::default());
    let transition = opened(7, START_MS);
    let suspend = engine.decide_all(std::slice::from_ref(&transition)).remove(0).id;
    let (rows, _) = engine.fold(0, &[refusal(suspend)], &[], &|key| key.to_string());
    assert_eq!((rows.revocations.len(), rows.denied.len()), (1, 0), "the key stays denied");
    let row = &rows.revocations[0];
    assert_eq!((row.state, held(&row.reason)), (ActionState::Held, "admin_token is wrong"));
    let entry = &rows.audit[0];
    assert_eq!((&*entry.who, entry.what, &*entry.why), ("edge", "refused", "admin_token is wrong"));
    assert_eq!((entry.from, entry.to), (Some(ActionState::Requested), Some(ActionState::Held)));
    assert_eq!(engine.memory().requested(), []);
    let stored = postcard::to_stdvec(engine.memory()).unwrap();
    let path = GatewayKind::File { path: "denied.txt".into() };
    let memory = postcard::from_bytes(&stored).unwrap();
    (ActionEngine::restore(PolicyRules::default(), Some(&gateway(path)), memory), suspend, transition)
}

#[test]
fn what_a_gateway_refused_for_want_of_rights_is_held_with_all_others_until_one_is_done() {
    let (mut engine, suspend, _) = refused();
    assert_eq!(engine.memory().counts().held, 1);
    let other = engine.decide_all(&[opened(8, START_MS)]).remove(0);
    assert_eq!(
        (other.state, held(&other.reason)),
        (ActionState::Held, "the gateway edge refused the job's credentials")
    );
    let first = engine.memory.actions[&suspend].request();
    for _ in 0..2 {
        // It is refused until somebody mends it, and each request is another one.
        assert!(matches!(engine.say(Verb::Approve, suspend).0, Reply::Accepted(Some(_))));
        assert_eq!(engine.memory().requested(), [suspend]);
        assert!(engine.memory.actions[&suspend].request() > first);
        engine.fold(0, &[refusal(suspend)], &[], &|key| key.to_string());
        assert_eq!(engine.state(suspend), ActionState::Held);
    }
    let (reply, rows) = engine.say(Verb::Approve, suspend);
    assert!(matches!(reply, Reply::Accepted(Some(row)) if row.state == ActionState::Requested));
    assert_eq!((rows.denied.len(), engine.memory().deny_list().len()), (0, 1), "it was denied all the time");
    assert_eq!(engine.decide_all(&[opened(9, START_MS)])[0].state, ActionState::Held);
    engine.report_all(suspend, None);
    assert_eq!(engine.decide_all(&[opened(10, START_MS)])[0].state, ActionState::Requested);
    assert_eq!(engine.state(other.id), ActionState::Held, "what is held stays held");
    // The report and the approval may be of one tick.
    let (mut engine, suspend, _) = refused();
    engine.say(Verb::Approve, suspend);
    let before = engine.memory.actions[&suspend].request();
    let inputs = [refusal(suspend), engine.asking("alice", Verb::Approve, suspend)];
    engine.fold(0, &inputs, &[], &|key| key.to_string());
    assert_eq!(engine.memory().requested(), [suspend]);
    assert!(engine.memory.actions[&suspend].request() > before);
}

#[test]
fn what_a_gateway_refused_is_lifted_when_it_is_withdrawn_since_an_earlier_request_may_have_acted() {
    let key_id = |key: KeyId| key.to_string();
    for how in ["dismiss", "reinstate", "tables", "void"] {
        let (mut engine, suspend, transition) = refused();
        let rows = match how {
            "dismiss" => engine.say(Verb::Dismiss, suspend).1,
            "reinstate" => engine.say(Verb::Reinstate, suspend).1,
            "tables" => {
                let withdrawn = changed(transition.clone(), |it| {
                    (it.seq, it.change, it.reason) = (1, Change::Withdrawn, Some(Reason::Allowed));
                });
                engine.fold(0, &[], &[withdrawn], &key_id).0
            }
            _ => engine.fold(HELD_MS, &[], &[], &key_id).0,
        };
        assert_eq!(engine.state(suspend), ActionState::Withdrawn, "{how}");
        let lifting = rows.revocations.iter().find(|row| row.action == Action::Reinstate).unwrap();
        assert_eq!((lifting.state, engine.memory().requested()), (ActionState::Requested, vec![lifting.id]));
        assert_eq!(rows.denied, [DeniedKey { key_id: KeyId(7).to_string(), denial: None }]);
        // It is called about until the rights are back.
        engine.fold(0, &[refusal(lifting.id)], &[], &key_id);
        assert_eq!(
            (engine.state(lifting.id), engine.memory().counts().requested),
            (ActionState::Requested, 1)
        );
        let (reply, _) = engine.say(Verb::Approve, suspend);
        assert!(matches!(reply, Reply::Decided { state: ActionState::Withdrawn, .. }), "{how} {reply:?}");
        if how == "void" {
            // Other signals may ask again, by another id.
            engine.report_all(lifting.id, None);
            let again = changed(transition, |it| (it.seq, it.change) = (1, Change::Raised));
            let again = engine.decide_all(&[changed(again, |it| it.at_ms += 2 * DAY_MS)]).remove(0);
            assert_eq!((again.action, again.state), (Action::Suspend, ActionState::Requested));
            assert_ne!(again.id, suspend);
        }
    }
}

#[test]
fn mutes_are_shown_until_they_end() {
    let mut engine = live(PolicyRules::default());
    let mute = |until_ms| {
        let target = AnswerTarget::Key("partner".to_owned());
        let ActionInput::Answer(answer) = answer("alice", Verb::Mute, target) else { panic!("it is one") };
        ActionInput::Answer(PersonAnswer { until_ms, ..answer })
    };
    let muted = |engine: &ActionEngine| {
        engine.memory().muted().map(|(key, mute)| (key.to_owned(), mute.until_ms)).collect::<Vec<_>>()
    };
    let (reply, rows) = engine.take(mute(START_MS + 5 * HOUR_MS), &[]);
    assert_eq!(reply, Reply::Accepted(None));
    assert_eq!((&*rows.audit[0].target, rows.audit[0].what), ("key/partner", "mute"));
    assert_eq!(muted(&engine), [("partner".to_owned(), START_MS + 5 * HOUR_MS)]);
    engine.take(mute(START_MS + 6 * HOUR_MS), &[]);
    assert_eq!(muted(&engine), [("partner".to_owned(), START_MS + 6 * HOUR_MS)]);
    engine.take(mute(0), &[]);
    assert_eq!(muted(&engine), []);
}

#[test]
fn a_plan_that_revokes_does_so_after_the_suspension_is_done() {
    let mut engine = live(PolicyRules { cooldown_ms: 0, ..PolicyRules::default() });
    let of = |seq| {
        changed(opened(7, START_MS), |it| {
            (it.seq, it.policy) = (seq, Some(Policy::Revoke));
            it.change = if seq == 0 { Change::Opened } else { Change::Reopened };
            it.at_ms += u64::from(seq) * 2 * HOUR_MS;
        })
    };
    let suspend = engine.decide_all(&[of(0)]).remove(0).id;
    assert_eq!(engine.decide_all(&[of(1)]), [], "it isn't suspended yet");
    engine.report_all(suspend, None);
    let row = engine.decide_all(&[of(2)]).remove(0);
    assert_eq!((row.action, row.state), (Action::Revoke, ActionState::Requested));
}

#[test]
fn tables_that_explain_an_incident_lift_its_suspension_and_it_may_be_asked_for_again() {
    let mut engine = live(PolicyRules { cooldown_ms: 0, ..PolicyRules::default() });
    let at = |seq, change| {
        changed(opened(7, START_MS), |it| {
            (it.seq, it.change, it.reason) = (seq, change, Some(Reason::Allowed));
            it.at_ms += u64::from(seq) * 2 * HOUR_MS;
        })
    };
    let suspend = engine.decide_all(&[at(0, Change::Opened)]).remove(0).id;
    engine.report_all(suspend, None);
    let rows = engine.decide_all(&[at(1, Change::Withdrawn)]);
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].action, rows[0].state), (Action::Reinstate, ActionState::Requested));
    assert!(rows[0].reason.starts_with("the incident was withdrawn: "), "{}", rows[0].reason);
    let again = engine.decide_all(&[at(2, Change::Reopened)]).remove(0);
    assert_eq!((again.action, again.state), (Action::Suspend, ActionState::Requested));
    assert_ne!(again.id, suspend, "no action is requested twice");
    let lifted = engine.decide_all(&[at(3, Change::Withdrawn)]);
    assert_eq!(lifted.len(), 2);
    assert_eq!(engine.memory().deny_list(), [].into());
}

#[test]
fn a_pause_holds_everything_until_it_is_ended_and_outlives_a_process() {
    let mut engine = live(PolicyRules::default());
    let (reply, rows) = engine.say(Verb::Pause, ActionId(0));
    assert_eq!(reply, Reply::Accepted(None));
    assert_eq!((&*rows.audit[0].target, rows.audit[0].what, rows.audit[0].seq), ("policy", "pause", 0));
    assert_eq!(engine.say(Verb::Pause, ActionId(0)).1, ActionRows::default(), "once");
    let stored = postcard::to_stdvec(engine.memory()).unwrap();
    let memory = postcard::from_bytes(&stored).unwrap();
    let path = GatewayKind::File { path: "denied.txt".into() };
    let mut engine = ActionEngine::restore(PolicyRules::default(), Some(&gateway(path)), memory);
    assert_eq!(engine.memory().paused().map(|by| &*by.who), Some("alice"));
    let row = engine.decide_all(&[opened(7, START_MS)]).remove(0);
    assert_eq!((row.state, held(&row.reason)), (ActionState::Held, "alice paused actions"));
    let (_, rows) = engine.say(Verb::Resume, ActionId(0));
    assert_eq!((rows.audit[0].what, rows.audit[0].seq), ("resume", 1));
    assert_eq!(engine.decide_all(&[opened(8, START_MS)])[0].state, ActionState::Requested);
    // A person may approve in a pause.
    engine.say(Verb::Pause, ActionId(0));
    assert!(matches!(engine.say(Verb::Approve, row.id).0, Reply::Accepted(Some(_))));
}

#[test]
fn two_held_suspensions_of_a_key_become_one() {
    let mut engine = live(PolicyRules { keys_per_hour: 0, ..PolicyRules::default() });
    let one = engine.decide_all(&[opened(7, START_MS)]).remove(0).id;
    let other = engine.decide_all(&[opened(7, START_MS + 30 * HOUR_MS)]).remove(0).id;
    engine.say(Verb::Approve, one);
    let denied = Reply::Refused("the key is denied already, by another action");
    assert_eq!(engine.say(Verb::Approve, other).0, denied);
    assert!(matches!(engine.say(Verb::Dismiss, other).0, Reply::Accepted(Some(_))));
    assert_eq!(engine.memory().deny_list().len(), 1);
}

#[test]
fn what_is_in_force_is_never_forgotten() {
    let mut engine = live(PolicyRules::default());
    let suspend = engine.decide_all(&[opened(7, START_MS)]).remove(0).id;
    engine.report_all(suspend, None);
    for month in 1..5 {
        engine.decide_all(&[opened(9 + u128::from(month), START_MS + month * 33 * 24 * HOUR_MS)]);
    }
    assert_eq!(engine.state(suspend), ActionState::Done);
    assert!(matches!(engine.say(Verb::Reinstate, suspend).0, Reply::Accepted(Some(_))));
    assert!(!engine.memory().deny_list().contains_key(&KeyId(7).to_string()));
}

/// Ticks of transitions of few keys, close together in time.
fn ticks() -> impl Strategy<Value = Vec<Vec<Transition>>> {
    let transition = (2..30_u128, 0..240_u64, 0..40_u64, 0..4_u32, any::<[bool; 4]>(), 0..2_000_u64);
    let transition = transition.prop_map(|(key, opened_min, after_min, seq, [a, b, c, d], active)| {
        changed(opened(key, START_MS + opened_min * MINUTE_MS), |it| {
            (it.seq, it.active_keys) = (seq, active);
            it.at_ms += after_min * MINUTE_MS;
            it.change = match (a && b, seq) {
                (true, _) => Change::Withdrawn,
                (false, 0) => Change::Opened,
                (false, _) => Change::Raised,
            };
            it.policy = Some(if c { Policy::Revoke } else { Policy::Suspend });
            it.key_state = Some(if d { KeyState::Suspended } else { KeyState::Active });
            it.catching_up = a && c && d;
        })
    });
    prop::collection::vec(prop::collection::vec(transition, 0..12), 0..20)
}

proptest! {
    #[test]
    fn no_hour_sees_more_than_the_breaker_lets_pass(ticks in ticks(), limit in 0..5_u32) {
        let rules = PolicyRules { keys_per_hour: limit, percent_per_hour: 100, ..PolicyRules::default() };
        let mut policy = engine(rules);
        let mut opened = Vec::new();
        let mut decided = Vec::new();
        for tick in &ticks {
            for row in policy.decide_all(tick) {
                if passed(&row) {
                    let asked = |it: &&Transition| it.incident.id == row.incident && it.at_ms == row.at_ms;
                    opened.push(tick.iter().find(asked).unwrap().incident.opened_ms);
                    decided.push(row.at_ms);
                }
            }
        }
        for times in [opened, decided] {
            for &start in &times {
                let within = times.iter().filter(|time| (start..start + HOUR_MS).contains(time)).count();
                prop_assert!(within <= limit as usize);
            }
        }
    }

    #[test]
    fn no_gateway_and_no_job_sees_more_keys_an_hour_than_its_caps(
        ticks in ticks(),
        approvals in prop::collection::vec(any::<prop::sample::Index>(), 20),
        limit in 0..5_u32,
        caps in prop::array::uniform2((prop::option::of(0..4_u32), prop::option::of(0..3_u32))),
        turn in 0..12_usize,
        stops in prop::collection::vec(any::<bool>(), 20),
    ) {
        const ACTIVE: u64 = 200;
        let rules = PolicyRules { keys_per_hour: limit, percent_per_hour: 100, ..PolicyRules::default() };
        let names = ["edge", "inner"];
        let gateways = [0, 1].map(|at| {
            let (keys_per_hour, percent_per_hour) = caps[at];
            Gateway {
                name: names[at].to_owned(),
                caps: GatewayCaps { keys_per_hour, percent_per_hour },
                ..gateway(GatewayKind::File { path: "denied.txt".into() })
            }
        });
        let limits = caps.map(|(keys, percent)| {
            let share = percent.map(|percent| (ACTIVE * u64::from(percent) / 100).max(1));
            [keys.map(u64::from), share].into_iter().flatten().min().unwrap_or(u64::MAX)
        });
        let mut engine = ActionEngine::new(rules, &gateways);
        // Those of each gateway, and of the job.
        let mut acted: [Vec<[u64; 2]>; 3] = Default::default();
        for ((tick, approval), stop) in ticks.into_iter().zip(approvals).zip(stops) {
            let mut tick: Vec<Transition> = tick
                .into_iter()
                .map(|it| changed(it, |it| {
                    it.active_keys = ACTIVE;
                    let at = usize::from(it.incident.key.0 % 3 == 0);
                    it.place.gateway = NameId::new(names[at]);
                }))
                .collect();
            let turn = turn.min(tick.len());
            tick.rotate_left(turn);
            if stop {
                let stored = postcard::to_stdvec(engine.memory()).unwrap();
                engine = ActionEngine::restore(rules, &gateways, postcard::from_bytes(&stored).unwrap());
            }
            // A person may go beyond, and takes room.
            let known: Vec<ActionId> = engine.memory.actions.keys().copied().collect();
            let approved = (!known.is_empty()).then(|| engine.asking("alice", Verb::Approve, *approval.get(&known)));
            let (rows, _) = engine.fold(0, approved.as_slice(), &tick, &|key| key.to_string());
            for entry in rows.audit.iter().filter(|of| of.who == "policy" && of.to == Some(ActionState::Requested)) {
                let record = engine.memory.actions.values().find(|of| of.row.id.to_string() == entry.target);
                let of_gateway = names.iter().position(|name| entry.gateway.as_deref() == Some(*name)).unwrap();
                let times = [entry.at_ms, record.unwrap().origin.opened_ms];
                acted[of_gateway].push(times);
                acted[2].push(times);
            }
        }
        for (acted, limit) in acted.iter().zip(limits.into_iter().chain([limit.into()])) {
            for start in acted {
                for which in [0, 1] {
                    let hour = start[which]..start[which] + HOUR_MS;
                    let within = acted.iter().filter(|times| hour.contains(&times[which])).count() as u64;
                    prop_assert!(within <= limit, "{within} of {limit}");
                }
            }
        }
    }

    #[test]
    fn a_policy_that_goes_on_from_a_checkpoint_decides_as_one_that_never_stopped(ticks in ticks(), limit in 0..5_u32) {
        // Within the breaker, and within the cooldown of a key.
        let rules = PolicyRules { keys_per_hour: limit, percent_per_hour: 100, ..PolicyRules::default() };
        let (mut one, mut other) = (engine(rules), engine(rules));
        for tick in ticks {
            let stored = postcard::to_stdvec(other.memory()).unwrap();
            let memory: ActionMemory = postcard::from_bytes(&stored).unwrap();
            prop_assert_eq!(&memory, one.memory());
            other = ActionEngine::restore(rules, None, memory);
            prop_assert_eq!(other.decide_all(&tick), one.decide_all(&tick));
        }
    }

    #[test]
    fn order_within_a_tick_changes_nothing(ticks in ticks(), turn in 0..12_usize) {
        let (mut one, mut other) = (engine(PolicyRules::default()), engine(PolicyRules::default()));
        for mut tick in ticks {
            // A transition's place is unique within a tick.
            tick.sort_by_key(Transition::order);
            tick.dedup_by_key(|it| it.order());
            let expected = one.decide_all(&tick);
            tick.reverse();
            let turn = turn.min(tick.len());
            tick.rotate_left(turn);
            prop_assert_eq!(other.decide_all(&tick), expected);
            prop_assert_eq!(one.memory(), other.memory());
        }
    }

    #[test]
    fn no_order_of_answers_and_reports_requests_an_action_twice_or_gets_around_the_rules(
        ticks in ticks(),
        said in prop::collection::vec(prop::collection::vec((0..14_usize, any::<prop::sample::Index>()), 0..6), 20),
        limit in 0..5_u32,
        is_tried in any::<bool>(),
        stops in prop::collection::vec(any::<bool>(), 20),
    ) {
        let rules = PolicyRules { keys_per_hour: limit, percent_per_hour: 100, ..PolicyRules::default() };
        let probation = is_tried.then(|| "settings".to_owned());
        let path = || Gateway { probation: probation.clone(), ..tried("") };
        let mut engine = ActionEngine::new(rules, Some(&path()));
        let mut requested: BTreeMap<ActionId, u32> = BTreeMap::new();
        let mut refused: BTreeMap<ActionId, u32> = BTreeMap::new();
        let mut by_policy = Vec::new();
        // What gateways refuse, by the rows alone.
        let mut denied: BTreeMap<String, DenialState> = BTreeMap::new();
        let mut seqs: BTreeMap<String, u64> = BTreeMap::new();
        let mut of_keys = Vec::new();
        for ((tick, said), stop) in ticks.iter().zip(&said).zip(stops) {
            let known: Vec<ActionId> = engine.memory.actions.keys().copied().collect();
            let inputs: Vec<ActionInput> = said
                .iter()
                .filter(|(what, _)| !matches!(what, 11 | 12))
                .map(|(what, which)| {
                    let action = if known.is_empty() { ActionId(1) } else { *which.get(&known) };
                    match what {
                        8 | 9 => report(action, None),
                        10 => report(action, Some("no")),
                        13 => refusal(action),
                        verb => engine.asking("alice", Verb::ALL[*verb], action),
                    }
                })
                .collect();
            if stop {
                let stored = postcard::to_stdvec(engine.memory()).unwrap();
                engine = ActionEngine::restore(rules, Some(&path()), postcard::from_bytes(&stored).unwrap());
            }
            // Some of the actions have calls with their keys, which are refused or answered.
            for (what, which) in said.iter().filter(|(what, _)| matches!(what, 11 | 12) && !known.is_empty()) {
                let key = engine.memory.actions[which.get(&known)].row.key.0;
                let calls = if *what == 11 { (0, 1) } else { (1, 0) };
                engine.hear(&[minute(key, HOUR_MS + MINUTE_MS, calls, true)]);
            }
            let was_on_probation = engine.memory.on_probation().next().is_some();
            let states: BTreeMap<KeyId, DenialState> =
                engine.memory.denied.iter().map(|(key, denial)| (*key, denial.state)).collect();
            let (rows, _) = engine.fold(0, &inputs, tick, &|key| key.to_string());
            for entry in &rows.audit {
                if entry.target.starts_with("key/") {
                    of_keys.push(entry.seq);
                } else {
                    let next = seqs.entry(entry.target.clone()).or_default();
                    prop_assert_eq!(entry.seq, *next, "the audit has no gap");
                    *next += 1;
                }
                let record = engine.memory.actions.values().find(|of| of.row.id.to_string() == entry.target);
                if entry.what == "refused" {
                    prop_assert_eq!(entry.from, Some(ActionState::Requested));
                    *refused.entry(record.unwrap().row.id).or_default() += 1;
                }
                if entry.to == Some(ActionState::Requested) {
                    let record = record.unwrap();
                    let times = requested.entry(record.row.id).or_default();
                    *times += 1;
                    let refusals = refused.get(&record.row.id).copied().unwrap_or(0);
                    prop_assert!(*times <= refusals + 1, "an action is requested once, and once a refusal");
                    if entry.who == "policy" {
                        let ends = rows.audit.iter().any(|other| other.what == "end_probation");
                        prop_assert!(!was_on_probation || ends, "the policy acts on probation");
                        by_policy.push((entry.at_ms, record.origin.opened_ms));
                    }
                    if record.row.action == Action::Revoke {
                        let was_suspended = states.get(&record.row.key) == Some(&DenialState::Suspended);
                        let of_table = tick.iter().any(|it| it.key_state == Some(KeyState::Suspended));
                        // Or it became so in this very tick.
                        let is_new = rows.audit.iter().any(|other| other.what == "done");
                        prop_assert!(was_suspended || of_table || is_new || entry.what == "approve");
                    }
                }
            }
            for row in rows.denied {
                match row.denial {
                    Some((state, ..)) => {
                        denied.insert(row.key_id, state);
                    }
                    None => {
                        let before = denied.remove(&row.key_id);
                        prop_assert_ne!(before, Some(DenialState::Revoked), "revoking is final");
                    }
                }
            }
            prop_assert_eq!(&denied, &engine.memory.deny_list());
            // Each key that is denied is so by an action that isn't withdrawn, and each that was let in isn't.
            for (key, denial) in &engine.memory.denied {
                let record = &engine.memory.actions[&denial.action];
                prop_assert_eq!(record.row.key, *key);
                let is_refused = record.row.state == ActionState::Held && refused.contains_key(&record.row.id);
                prop_assert!(is_refused || !matches!(record.row.state, ActionState::Held | ActionState::Withdrawn));
            }
        }
        // Those of all keys are numbered together.
        of_keys.sort_unstable();
        prop_assert!((0..).zip(&of_keys).all(|(number, seq)| number == *seq), "{of_keys:?}");
        let decided = by_policy.iter().map(|(at_ms, _)| *at_ms).collect::<Vec<_>>();
        let opened = by_policy.iter().map(|(_, opened_ms)| *opened_ms).collect::<Vec<_>>();
        for times in [decided, opened] {
            for &start in &times {
                let within = times.iter().filter(|time| (start..start + HOUR_MS).contains(time)).count();
                prop_assert!(within <= limit as usize);
            }
        }
    }
}
