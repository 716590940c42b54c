//! Each rule, and that no order within a tick and no number of incidents gets around the breaker.

use keytide_dataflow::model::time::MINUTE_MS;
use keytide_dataflow::{Incident, IncidentState, Owner, Reason, Taken};
use proptest::prelude::*;

use super::*;

/// A Saturday in 2024.
const START_MS: u64 = 1_718_452_800_000;

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
    }
}

fn changed(transition: Transition, change: impl FnOnce(&mut Transition)) -> Transition {
    let mut transition = transition;
    change(&mut transition);
    transition
}

/// What a policy that remembers nothing says about it.
fn alone(transition: Transition) -> Option<Revocation> {
    let mut rows = PolicyEngine::new(PolicyRules::default()).decide(&[transition]);
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
            id: Revocation::id(transition.incident.id, Action::Suspend),
            key: KeyId(7),
            incident: transition.incident.id,
            action: Action::Suspend,
            state: ActionState::Held,
            reason: "would have suspended the key; held: acting is off in this version".to_owned(),
            at_ms: transition.at_ms,
        }
    );
    assert_eq!(held(&row.reason), "acting is off in this version");
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
    let says = |default| PolicyEngine::new(rules(default)).decide(std::slice::from_ref(&transition)).len();
    assert_eq!(
        [DefaultPolicy::Observe, DefaultPolicy::Alert, DefaultPolicy::Suspend, DefaultPolicy::Revoke]
            .map(says),
        [0, 0, 1, 1]
    );
}

#[test]
fn a_key_without_a_row_is_never_acted_on() {
    let transition = changed(opened(7, START_MS), |it| (it.policy, it.key_state) = (None, None));
    assert_eq!(PolicyEngine::new(rules(DefaultPolicy::Revoke)).decide(&[transition]), []);
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
    let mut policy = PolicyEngine::new(PolicyRules::default());
    assert_eq!(policy.decide(&[changed(opened(7, START_MS), |it| it.early = true)]), []);
    let raised = changed(opened(7, START_MS), |it| (it.seq, it.change) = (1, Change::Raised));
    assert_eq!(policy.decide(&[raised]).len(), 1);
}

#[test]
fn an_incident_asks_once_for_the_same() {
    let mut policy = PolicyEngine::new(PolicyRules { cooldown_ms: 0, ..PolicyRules::default() });
    let revoke = |it: Transition| changed(it, |it| it.policy = Some(Policy::Revoke));
    assert_eq!(policy.decide(&[revoke(opened(7, START_MS))])[0].action, Action::Suspend);
    let again = |seq, state| {
        changed(revoke(opened(7, START_MS)), |it| {
            (it.seq, it.change, it.key_state) = (seq, Change::Reopened, Some(state));
            it.at_ms += u64::from(seq) * 2 * HOUR_MS;
        })
    };
    assert_eq!(policy.decide(&[again(1, KeyState::Active)]), []);
    assert_eq!(policy.decide(&[again(2, KeyState::Suspended)])[0].action, Action::Revoke);
    assert_eq!(policy.decide(&[again(3, KeyState::Suspended)]), []);
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
    let mut policy = PolicyEngine::new(PolicyRules { keys_per_hour: 1, ..PolicyRules::default() });
    policy.decide(&[changed(opened(7, START_MS), |it| it.catching_up = true)]);
    assert!(passed(&policy.decide(&[opened(8, START_MS)])[0]));
}

#[test]
fn a_key_that_was_acted_on_is_left_alone_for_a_time() {
    let mut policy = PolicyEngine::new(PolicyRules::default());
    assert!(passed(&policy.decide(&[opened(7, START_MS)])[0]));
    let row = &policy.decide(&[opened(7, START_MS + 24 * HOUR_MS - 1)])[0];
    assert_eq!(
        held(&row.reason),
        "the key was acted on within the last 1d of event time; acting is off, too"
    );
    assert!(passed(&policy.decide(&[opened(7, START_MS + 24 * HOUR_MS)])[0]));
}

#[test]
fn breaker_and_cooldown_outlive_a_process() {
    let rules = PolicyRules { keys_per_hour: 1, ..PolicyRules::default() };
    let mut policy = PolicyEngine::new(rules);
    assert!(passed(&policy.decide(&[opened(7, START_MS)])[0]));
    let stored = postcard::to_stdvec(policy.memory()).unwrap();
    let held = |key: u128, at_ms: u64| {
        let mut next = PolicyEngine::restore(rules, postcard::from_bytes(&stored).unwrap());
        next.decide(&[opened(key, at_ms)]).pop().unwrap().reason
    };
    let of_breaker = held(8, START_MS + MINUTE_MS);
    assert!(of_breaker.contains("the breaker lets pass 1 key an hour"), "{of_breaker}");
    let of_cooldown = held(7, START_MS + 2 * HOUR_MS);
    assert!(of_cooldown.contains("the key was acted on within the last"), "{of_cooldown}");
    let none = PolicyEngine::new(rules).decide(&[opened(8, START_MS + MINUTE_MS)]);
    assert!(passed(&none[0]), "without the memory it would have acted");
}

#[test]
fn the_breaker_holds_what_is_beyond_it_and_says_so() {
    let mut policy = PolicyEngine::new(PolicyRules::default());
    let tick: Vec<Transition> = (0..12).map(|key| opened(key + 2, START_MS + key as u64)).collect();
    let rows = policy.decide(&changed_active(tick, 5_000));
    assert_eq!(rows.iter().filter(|row| passed(row)).count(), 10);
    let row = rows.iter().find(|row| row.key == KeyId(13)).unwrap();
    assert_eq!(
        held(&row.reason),
        "the breaker lets pass 10 keys an hour, of 5000 in use; acting is off, too"
    );
    // An hour after the last of them there is room again.
    assert!(!passed(&policy.decide(&[opened(99, START_MS + HOUR_MS - 1)])[0]));
    assert!(passed(&policy.decide(&[opened(98, START_MS + 9 + HOUR_MS)])[0]));
}

fn changed_active(transitions: Vec<Transition>, active: u64) -> Vec<Transition> {
    transitions.into_iter().map(|it| changed(it, |it| it.active_keys = active)).collect()
}

#[test]
fn the_breaker_is_a_share_of_the_keys_in_use_but_at_least_one_key() {
    for (active, expected) in [(0, 1), (99, 1), (100, 1), (199, 1), (200, 2), (1_000, 10), (1_000_000, 10)] {
        let tick: Vec<Transition> = (0..20).map(|key| opened(key + 2, START_MS)).collect();
        let rows = PolicyEngine::new(PolicyRules::default()).decide(&changed_active(tick, active));
        assert_eq!(rows.iter().filter(|row| passed(row)).count(), expected, "{active}");
    }
    let none = PolicyRules { keys_per_hour: 0, ..PolicyRules::default() };
    assert!(!passed(&PolicyEngine::new(none).decide(&[opened(7, START_MS)])[0]));
}

#[test]
fn old_incidents_that_rise_together_are_stopped_too() {
    let mut policy = PolicyEngine::new(PolicyRules { keys_per_hour: 3, ..PolicyRules::default() });
    let tick: Vec<Transition> = (0..20)
        .map(|key| {
            changed(opened(key + 2, START_MS - key as u64 * 5 * HOUR_MS), |it| {
                (it.seq, it.change, it.at_ms) = (1, Change::Raised, START_MS + MINUTE_MS);
            })
        })
        .collect();
    assert_eq!(policy.decide(&tick).iter().filter(|row| passed(row)).count(), 3);
}

#[test]
fn what_a_withdrawn_incident_asked_for_is_withdrawn() {
    let mut policy = PolicyEngine::new(PolicyRules::default());
    let transition = opened(7, START_MS);
    let withdrawn = changed(transition.clone(), |it| {
        (it.seq, it.change, it.reason) = (1, Change::Withdrawn, Some(Reason::Publishable));
        it.at_ms += MINUTE_MS;
    });
    assert_eq!(policy.decide(std::slice::from_ref(&withdrawn)), [], "it asked for nothing yet");
    let asked = policy.decide(std::slice::from_ref(&transition));
    let rows = policy.decide(std::slice::from_ref(&withdrawn));
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].id, rows[0].state), (asked[0].id, ActionState::Withdrawn));
    assert_eq!(rows[0].reason, "withdrawn: the table of keys says that the key is publishable");
    assert_eq!(policy.decide(std::slice::from_ref(&withdrawn)), [], "once");
    // Within one tick only the last row of an action is returned.
    let mut policy = PolicyEngine::new(PolicyRules::default());
    let rows = policy.decide(&[withdrawn, transition]);
    assert_eq!(rows.iter().map(|row| row.state).collect::<Vec<_>>(), [ActionState::Withdrawn]);
}

#[test]
fn memory_is_bounded_by_time() {
    let mut policy = PolicyEngine::new(PolicyRules { keys_per_hour: 1_000, ..PolicyRules::default() });
    for hour in 0..2_000 {
        policy.decide(&[opened(u128::from(hour) + 2, START_MS + hour * HOUR_MS)]);
    }
    let PolicyMemory { by_opening, by_decision, acted, asked, asked_at } = policy.memory();
    let days = 32 * 24 + 1;
    for length in [by_opening.len(), by_decision.len(), acted.len(), asked.len(), asked_at.len()] {
        assert!((days - 1..=days).contains(&length), "{length}");
    }
}

#[test]
fn memory_is_bounded_by_number() {
    let mut policy = PolicyEngine::new(PolicyRules { keys_per_hour: 0, ..PolicyRules::default() });
    let tick: Vec<Transition> = (0..MAX_ACTIONS as u128 + 1).map(|key| opened(key + 2, START_MS)).collect();
    for part in tick.chunks(10_000) {
        policy.decide(part);
    }
    assert_eq!((policy.memory().asked.len(), policy.memory().asked_at.len()), (MAX_ACTIONS, MAX_ACTIONS));
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
        let mut policy = PolicyEngine::new(rules);
        let mut opened = Vec::new();
        let mut decided = Vec::new();
        for tick in &ticks {
            for row in policy.decide(tick) {
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
    fn a_policy_that_goes_on_from_a_checkpoint_decides_as_one_that_never_stopped(ticks in ticks(), limit in 0..5_u32) {
        // Within the breaker, and within the cooldown of a key.
        let rules = PolicyRules { keys_per_hour: limit, percent_per_hour: 100, ..PolicyRules::default() };
        let (mut one, mut other) = (PolicyEngine::new(rules), PolicyEngine::new(rules));
        for tick in ticks {
            let stored = postcard::to_stdvec(other.memory()).unwrap();
            let memory: PolicyMemory = postcard::from_bytes(&stored).unwrap();
            prop_assert_eq!(&memory, one.memory());
            other = PolicyEngine::restore(rules, memory);
            prop_assert_eq!(other.decide(&tick), one.decide(&tick));
        }
    }

    #[test]
    fn order_within_a_tick_changes_nothing(ticks in ticks(), turn in 0..12_usize) {
        let (mut one, mut other) = (PolicyEngine::new(PolicyRules::default()), PolicyEngine::new(PolicyRules::default()));
        for mut tick in ticks {
            // A transition's place is unique within a tick.
            tick.sort_by_key(Transition::order);
            tick.dedup_by_key(|it| it.order());
            let expected = one.decide(&tick);
            tick.reverse();
            let turn = turn.min(tick.len());
            tick.rotate_left(turn);
            prop_assert_eq!(other.decide(&tick), expected);
            prop_assert_eq!(one.memory(), other.memory());
        }
    }
}
