//! What people are told of actions: each change once, whatever happens, and late gateways by the time of ticks alone.

use super::*;

/// The first tick of these tests.
const TICK: Tick = 1_800_000_000_000;

fn no_names(_: NameId) -> String {
    String::new()
}

impl ActionEngine {
    /// Folds a tick, and returns what people are told of it.
    fn told(&mut self, tick: Tick, inputs: &[ActionInput], transitions: &[Transition]) -> ActionNotices {
        let (rows, _) = self.fold(tick, inputs, transitions, &|key| key.to_string());
        self.notices(tick, &rows, &no_names)
    }
}

/// What is told of actions, without what a test doesn't look at.
fn brief(notices: &ActionNotices) -> Vec<(Action, ActionState, &str)> {
    notices.actions.iter().map(|notice| (notice.action, notice.state, &*notice.why)).collect()
}

#[test]
fn people_are_told_of_what_is_held_done_failed_and_lifted_and_who_wanted_it() {
    let mut engine = live(PolicyRules { keys_per_hour: 1, ..PolicyRules::default() });
    // STEP 1: the policy suspends one key and holds the other.
    let told = engine.told(TICK, &[], &[opened(7, START_MS), opened(8, START_MS + 1)]);
    let breaker = "the breaker lets pass 1 key an hour, of 1000 in use";
    assert_eq!(brief(&told), [(Action::Suspend, ActionState::Held, breaker)]);
    assert!(told.actions[0].is_decision && told.actions[0].decided.is_none());
    let held = told.actions[0].id;
    let first = engine.memory.actions.values().find(|record| record.row.id != held).unwrap().row.id;
    // STEP 2: the gateway is done with one; alice approves the other.
    let approve = engine.asking("alice", Verb::Approve, held);
    let told = engine.told(TICK + 1, &[report(first, None), approve], &[]);
    assert_eq!(brief(&told), [(Action::Suspend, ActionState::Done, "")]);
    assert!(!told.actions[0].is_decision && told.actions[0].concerns_owners());
    let told = engine.told(TICK + 2, &[report(held, None)], &[]);
    assert_eq!(brief(&told), [(Action::Suspend, ActionState::Done, "seen in a public repository")]);
    let by = told.actions[0].decided.as_ref().unwrap();
    assert_eq!(
        (by.verb, &*by.who, told.actions[0].gateway.as_deref()),
        (Verb::Approve, "alice", Some("edge"))
    );
    // STEP 3: bob lets it in again, which the gateway can't.
    let lift = engine.asking("bob", Verb::Reinstate, held);
    assert!(engine.told(TICK + 3, &[lift], &[]).is_empty(), "the gateway is to do it");
    let lifting = ActionId::new(engine.memory.actions[&held].row.incident, Action::Reinstate, 0);
    let told = engine.told(TICK + 4, &[report(lifting, Some("no route"))], &[]);
    assert_eq!(brief(&told), [(Action::Reinstate, ActionState::Failed, "no route")]);
    assert!(!told.actions[0].concerns_owners(), "they know only that it is suspended");
    // STEP 4: the tables explain the first incident.
    let withdrawn = changed(opened(7, START_MS), |it| {
        (it.seq, it.change, it.reason) = (1, Change::Withdrawn, Some(Reason::Allowed));
    });
    assert!(engine.told(TICK + 5, &[], &[withdrawn]).is_empty());
    let lifting = ActionId::new(engine.memory.actions[&first].row.incident, Action::Reinstate, 0);
    let told = engine.told(TICK + 6, &[report(lifting, None)], &[]);
    assert_eq!(brief(&told), [(Action::Reinstate, ActionState::Done, Reason::Allowed.name())]);
    assert_eq!(told.actions[0].decided, None);
}

#[test]
fn what_is_only_shown_is_told_by_the_incident_alone_and_what_nobody_decided_is_told() {
    let mut engine = engine(PolicyRules::default());
    assert!(engine.told(TICK, &[], &[opened(7, START_MS)]).is_empty());
    let mut engine = live(PolicyRules { keys_per_hour: 0, ..PolicyRules::default() });
    assert_eq!(engine.told(TICK, &[], &[opened(7, START_MS)]).actions.len(), 1);
    assert!(engine.told(TICK + HELD_MS - 1, &[], &[]).is_empty());
    let told = engine.told(TICK + HELD_MS, &[], &[]);
    let why = "nobody decided about it within a day";
    assert_eq!(brief(&told), [(Action::Suspend, ActionState::Withdrawn, why)]);
    // What a person withdraws is told by the incident's mail.
    let id = engine.told(TICK + HELD_MS + 1, &[], &[opened(8, START_MS + 1)]).actions[0].id;
    let dismiss = engine.asking("alice", Verb::Dismiss, id);
    assert!(engine.told(TICK + HELD_MS + 2, &[dismiss], &[]).is_empty());
}

#[test]
fn the_standing_action_of_an_incident_is_its_newest_or_the_one_that_denies_its_key() {
    let mut engine = live(PolicyRules::default());
    let (one, other) = (opened(7, START_MS), opened(7, START_MS + 30 * HOUR_MS));
    let leak = |of: &Transition| SuspectedLeak { incident: of.incident.id, key: of.incident.key };
    let standing = |engine: &ActionEngine, of: &Transition| {
        let row = &engine.memory.standing(leak(of))?.row;
        Some((row.action, row.state, row.incident == of.incident.id))
    };
    assert_eq!(standing(&engine, &one), None);
    engine.told(TICK, &[], std::slice::from_ref(&one));
    assert_eq!(standing(&engine, &one), Some((Action::Suspend, ActionState::Requested, true)));
    assert_eq!(standing(&engine, &other), Some((Action::Suspend, ActionState::Requested, false)));
    let suspension = engine.memory.standing(leak(&one)).unwrap().row.id;
    engine.told(TICK + 1, &[report(suspension, None)], &[]);
    let lift = engine.asking("bob", Verb::Reinstate, suspension);
    engine.told(TICK + 2, &[lift], &[]);
    assert_eq!(standing(&engine, &one), Some((Action::Reinstate, ActionState::Requested, true)));
    assert_eq!(standing(&engine, &other), None);
}

#[test]
fn a_late_gateway_is_told_after_five_minutes_then_hourly_once_for_all_its_actions() {
    let rules = PolicyRules { keys_per_hour: 100, percent_per_hour: 100, ..PolicyRules::default() };
    let mut engine = live(rules);
    let opened: Vec<Transition> = (0..12).map(|key| opened(100 + key, START_MS + key as u64)).collect();
    let mut told = Vec::new();
    let mut last = TICK;
    let mut run = |engine: &mut ActionEngine, until: Tick, transitions: &[Transition]| {
        let mut transitions = Some(transitions);
        while last < until {
            last += MINUTE_MS / 2;
            let notices = engine.told(last, &[], transitions.take().unwrap_or_default());
            told.extend(notices.gateways.into_iter().map(|notice| (last - TICK, notice)));
            // Whatever happens, another life of the job tells the same.
            let stored = postcard::to_stdvec(engine.memory()).unwrap();
            let path = GatewayKind::File { path: "denied.txt".into() };
            let memory = postcard::from_bytes(&stored).unwrap();
            *engine = ActionEngine::restore(rules, Some(&gateway(path)), memory);
        }
        std::mem::take(&mut told)
    };
    // STEP 1: half a minute later they are requested, and five minutes after that they are late.
    assert_eq!(run(&mut engine, TICK + 5 * MINUTE_MS, &opened), []);
    let notices = run(&mut engine, TICK + 3 * HOUR_MS, &[]);
    let times: Vec<(Tick, u32, u64)> =
        notices.iter().map(|(at, notice)| (*at, notice.count, notice.late)).collect();
    let first = 5 * MINUTE_MS + MINUTE_MS / 2;
    assert_eq!(times, [(first, 0, 12), (first + HOUR_MS, 1, 12), (first + 2 * HOUR_MS, 2, 12)]);
    let notice = &notices[2].1;
    assert_eq!((notice.gateway.as_deref(), notice.named.len()), (Some("edge"), 10));
    assert_eq!((notice.first, notice.since), (TICK + first, TICK + MINUTE_MS / 2));
    // STEP 2: once it is done with all of them it isn't late any more; the next time is the first again.
    let all = engine.memory.requested();
    let reports: Vec<ActionInput> = all.into_iter().map(|action| report(action, None)).collect();
    let now = TICK + 3 * HOUR_MS;
    assert_eq!(engine.told(now + 1, &reports, &[]).gateways, []);
    let other = super::opened(200, START_MS + 99);
    engine.told(now + 2, &[], &[other]);
    let notices = engine.told(now + 2 + 5 * MINUTE_MS, &[], &[]).gateways;
    assert_eq!(notices.iter().map(|notice| notice.count).collect::<Vec<_>>(), [0]);
    // STEP 3: a job that was away for hours gives its gateways five minutes.
    let back = now + 9 * HOUR_MS;
    assert!(engine.told(back, &[], &[]).is_empty());
    assert!(engine.told(back + 4 * MINUTE_MS, &[], &[]).is_empty());
    assert_eq!(engine.told(back + 5 * MINUTE_MS, &[], &[]).gateways[0].count, 1);
}

#[test]
fn ten_thousand_keys_at_once_are_ten_thousand_notices_of_what_is_held_and_one_of_a_gateway() {
    let mut engine = live(PolicyRules::default());
    let opened: Vec<Transition> = (0..10_000).map(|key| opened(100 + key, START_MS)).collect();
    let told = engine.told(TICK, &[], &opened);
    assert_eq!(told.actions.len(), 9_990);
    assert!(told.actions.iter().all(|notice| notice.state == ActionState::Held && notice.is_decision));
    let late = engine.told(TICK + 5 * MINUTE_MS, &[], &[]).gateways;
    assert_eq!((late.len(), late[0].late, late[0].named.len()), (1, 10, 10));
}

proptest! {
    #[test]
    fn each_change_is_told_at_most_once_and_the_same_in_each_life(
        ticks in ticks(),
        said in prop::collection::vec(prop::collection::vec((0..12_usize, any::<prop::sample::Index>()), 0..6), 20),
        limit in 0..5_u32,
        stops in prop::collection::vec(any::<bool>(), 20),
    ) {
        let rules = PolicyRules { keys_per_hour: limit, percent_per_hour: 100, ..PolicyRules::default() };
        let path = || gateway(GatewayKind::File { path: "denied.txt".into() });
        let mut engine = ActionEngine::new(rules, Some(&path()));
        let mut told: BTreeMap<(ActionId, ActionState), Vec<u64>> = BTreeMap::new();
        let mut late: Vec<Tick> = Vec::new();
        for (step, ((transitions, said), stop)) in ticks.iter().zip(&said).zip(stops).enumerate() {
            let tick = TICK + step as u64 * 4 * MINUTE_MS;
            let known: Vec<ActionId> = engine.memory.actions.keys().copied().collect();
            let inputs: Vec<ActionInput> = said
                .iter()
                .map(|(what, which)| {
                    let action = if known.is_empty() { ActionId(1) } else { *which.get(&known) };
                    match what {
                        8..=10 => report(action, None),
                        11 => report(action, Some("no")),
                        verb => engine.asking("alice", Verb::ALL[*verb], action),
                    }
                })
                .collect();
            let mut again = engine.clone();
            if stop {
                let stored = postcard::to_stdvec(engine.memory()).unwrap();
                engine = ActionEngine::restore(rules, Some(&path()), postcard::from_bytes(&stored).unwrap());
            }
            let notices = engine.told(tick, &inputs, transitions);
            prop_assert_eq!(&notices, &again.told(tick, &inputs, transitions));
            for notice in &notices.actions {
                told.entry((notice.id, notice.state)).or_default().push(notice.seq);
                prop_assert!(!matches!(notice.state, ActionState::Requested | ActionState::Confirmed));
            }
            late.extend(notices.gateways.iter().map(|_| tick));
            // It is late exactly with what is requested for so long.
            let waits = &engine.memory.waits;
            let requested: BTreeSet<ActionId> = engine.memory.requested().into_iter().collect();
            prop_assert_eq!(waits.since().map(|(id, _)| id).collect::<BTreeSet<_>>(), requested);
            let is_late = waits.since().any(|(_, since)| since + 5 * MINUTE_MS <= tick);
            prop_assert_eq!(is_late, waits.is_told(), "{}", tick);
        }
        for ((_, state), seqs) in told {
            // What was withdrawn may be asked for, and held, again. All else happens once.
            let is_once = seqs.len() == 1 || matches!(state, ActionState::Held | ActionState::Withdrawn);
            prop_assert!(is_once && seqs.windows(2).all(|pair| pair[0] < pair[1]), "{state:?} {seqs:?}");
        }
        prop_assert!(late.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
