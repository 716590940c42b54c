//! Masses of incidents at a live gateway, 1,000 of them at random: no policy acts on more keys than its caps let pass,
//! and none acts on keys that rose together.

use super::*;

/// The minutes in which a mass rises.
const MINUTES: u64 = 90;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_mass_gets_no_automatic_actions_beyond_the_caps_and_none_if_it_rose_together(
        keys in prop::collection::vec((0..MINUTES, any::<bool>()), 20..100),
        has_many_at_once in any::<bool>(),
        may_revoke in any::<bool>(),
        limit in 0..12_u32,
        percent in 0..4_u32,
        active in 0..2_000_u64,
        stops in prop::collection::btree_set(0..MINUTES, 0..4),
    ) {
        let rules = PolicyRules { keys_per_hour: limit, percent_per_hour: percent, ..PolicyRules::default() };
        let policy = if may_revoke { Policy::Revoke } else { Policy::Suspend };
        let edge = gateway(GatewayKind::File { path: "denied.txt".into() });
        let mut engine = ActionEngine::new(rules, Some(&edge));
        let mut acted: BTreeMap<KeyId, [u64; 2]> = BTreeMap::new();
        let mut done: Vec<ActionInput> = Vec::new();
        let mut revoked = 0;
        for number in 0..MINUTES {
            let rise = |key: usize, at: u64, together: bool| {
                let at = if has_many_at_once { MINUTES / 2 } else { at };
                let transition = opened(key as u128 + 2, START_MS + at * MINUTE_MS);
                (at == number).then(|| changed(transition, |it| {
                    (it.policy, it.key_state, it.active_keys) = (Some(policy), Some(KeyState::Active), active);
                    it.incident.platform_event = together;
                }))
            };
            let tick: Vec<Transition> =
                keys.iter().enumerate().filter_map(|(key, (at, together))| rise(key, *at, *together)).collect();
            if stops.contains(&number) {
                let stored = postcard::to_stdvec(engine.memory()).unwrap();
                engine = ActionEngine::restore(rules, Some(&edge), postcard::from_bytes(&stored).unwrap());
            }
            // The gateway did at once what was requested of it before.
            let reports = std::mem::take(&mut done);
            let (rows, _) = engine.fold(0, &reports, &tick, &|key| key.to_string());
            for entry in rows.audit.iter().filter(|entry| entry.to == Some(ActionState::Requested)) {
                prop_assert_eq!(&*entry.who, "policy");
                let record = engine.memory.actions.values().find(|of| of.row.id.to_string() == entry.target);
                let record = record.unwrap();
                done.push(report(record.row.id, None));
                revoked += u64::from(record.row.action == Action::Revoke);
                let together = keys[usize::try_from(record.row.key.0).unwrap() - 2].1;
                prop_assert!(!together, "a key that rose together is acted on");
                acted.entry(record.row.key).or_insert([entry.at_ms, record.origin.opened_ms]);
            }
        }
        prop_assert!(may_revoke || revoked == 0);
        let all_together = keys.iter().all(|(_, together)| *together);
        prop_assert!(limit == 0 || all_together || !acted.is_empty(), "one key is acted on in any case");
        let cap = (active * u64::from(percent) / 100).max(1).min(limit.into());
        for start in acted.values() {
            for which in [0, 1] {
                let hour = start[which]..start[which] + HOUR_MS;
                let within = acted.values().filter(|times| hour.contains(&times[which])).count() as u64;
                prop_assert!(within <= cap, "{} of {} keys within an hour, allowed: {}", within, keys.len(), cap);
            }
        }
    }
}
