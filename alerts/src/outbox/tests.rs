//! A simulated world for the queue of mails: a clock that jumps to the next due step, and a server with scripted answers.
//! The last tests use threads, files and a socket.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use keytide_config::{Secret, Sender as From, WebhookFormat, WebhookUrl};
use keytide_dataflow::Change;
use keytide_dataflow::model::KeyId;
use keytide_dataflow::model::time::{HOUR_MS, MINUTE_MS};
use keytide_dataflow::{Action, ActionId, ActionState, IncidentId, Revocation};
use proptest::prelude::*;

use super::mails::{MailContent, MailItem, MailQueue, QueuedMail, Recipient, RecipientKind};
use super::*;
use crate::actions::{ActionNotice, GatewayNotice};
use crate::email::{Audience, samples};
use crate::quota::QuotaNoticeRow;

fn email() -> EmailAlerts {
    let from = From { name: "Keytide".to_owned(), address: "keytide@example.com".to_owned() };
    EmailAlerts::new(from, vec!["security@example.com".to_owned()])
}

fn incident(number: u64, seq: u32) -> TransitionJson {
    let transition = if seq == 0 { Change::Opened } else { Change::Raised };
    TransitionJson { incident_id: format!("{number:032x}"), seq, transition, ..samples::leak() }
}

/// A change of an action by its number, about which owners are told if it is done.
pub(super) fn action(number: u64, state: ActionState) -> ActionNotice {
    let id = ActionId(u128::from(number));
    ActionNotice { id, state, from: None, is_decision: false, ..samples::actions().swap_remove(0) }
}

/// A notice of a gateway by the tick of the first one.
pub(super) fn gateway(first: Tick) -> GatewayNotice {
    GatewayNotice { first, ..samples::gateways().swap_remove(0) }
}

/// The row of a notice about a quota of a subscription by its number.
pub(super) fn quota(number: u64, seq: u64) -> QuotaNoticeRow {
    QuotaNoticeRow { subscription: format!("sub-{number}"), seq, ..samples::quotas().swap_remove(0) }
}

fn sent() -> MailOutcome {
    MailOutcome::Sent { unfiled: None }
}

fn down() -> MailOutcome {
    MailOutcome::Retry("connection refused".to_owned())
}

struct World {
    mails: MailQueue,
    now: u64,
    /// Mails that the server took, with the time.
    taken: Vec<(u64, QueuedMail)>,
    tried: usize,
}

impl World {
    fn new(email: &EmailAlerts) -> Self {
        Self { mails: MailQueue::new(email, Box::new(|_| 0)), now: 0, taken: Vec::new(), tried: 0 }
    }

    fn push(&mut self, transition: TransitionJson, contacts: &[&str]) {
        let contacts: Vec<String> = contacts.iter().map(|&contact| contact.to_owned()).collect();
        self.mails.push(transition, None, &contacts, self.now, self.now);
    }

    /// Lets time pass until `end` with a server that answers like that.
    fn run(&mut self, end: u64, mut server: impl FnMut(u64, &QueuedMail) -> MailOutcome) {
        loop {
            match self.mails.next(self.now) {
                NextStep::Do(mail) => {
                    let outcome = server(self.now, &mail);
                    self.tried += 1;
                    self.mails.done(&mail, &outcome, self.now);
                    if let MailOutcome::Sent { .. } = outcome {
                        self.taken.push((self.now, mail));
                    }
                }
                NextStep::Wait(until) => match until.filter(|until| *until <= end) {
                    Some(until) => {
                        assert!(until > self.now, "waits for what has come");
                        self.now = until;
                    }
                    None => break,
                },
            }
        }
        self.now = end;
    }

    /// Counts how often mails to a recipient list each transition and change, and all of them.
    fn notified(&self, address: &str) -> (BTreeMap<(String, u32), usize>, u64) {
        let (mut each, mut all) = (BTreeMap::new(), 0);
        for (_, mail) in self.taken.iter().filter(|(_, mail)| mail.to.address == address) {
            let listed: Vec<(Box<str>, u32)> = match &mail.content {
                MailContent::Single(item) => vec![item.name()],
                MailContent::Digest(items) => {
                    all += items.more + items.more_actions + items.more_quotas;
                    items.names().collect()
                }
                // Notices have numbers of their own, see `notices`.
                MailContent::Daily(_) => continue,
            };
            all += listed.len() as u64;
            for (name, seq) in listed {
                *each.entry((name.into(), seq)).or_default() += 1;
            }
        }
        (each, all)
    }

    fn push_action(&mut self, notice: ActionNotice, contacts: &[&str]) {
        let contacts = contacts.iter().map(|&contact| contact.to_owned()).collect();
        self.mails.push_action(ActionNotice { contacts, ..notice }, false, self.now, self.now);
    }

    fn push_quota(&mut self, number: u64, seq: u64, contacts: &[&str]) {
        let contacts: Vec<String> = contacts.iter().map(|&contact| contact.to_owned()).collect();
        self.mails.push_quota(Arc::new(quota(number, seq)), &contacts, self.now, self.now);
    }

    /// Returns the daily digests to an address: when, which incidents by which transition, and of how many.
    fn dailies(&self, address: &str) -> Vec<(u64, BTreeMap<String, u32>, u64)> {
        let of = self.taken.iter().filter(|(_, mail)| mail.to.address == address);
        of.filter_map(|(time, mail)| match &mail.content {
            MailContent::Daily(notices) => {
                let lines = notices.lines.iter().map(|(id, line)| (id.clone(), line.seq)).collect();
                Some((*time, lines, mail.content.count()))
            }
            _ => None,
        })
        .collect()
    }

    fn most_within_an_hour(&self, of: impl Fn(&Recipient) -> bool) -> usize {
        let times: Vec<u64> =
            self.taken.iter().filter(|(_, mail)| of(&mail.to)).map(|(time, _)| *time).collect();
        let within =
            |start: &u64| times.iter().filter(|time| (*start..start + HOUR_MS).contains(time)).count();
        times.iter().map(within).max().unwrap_or(0)
    }
}

const SECURITY: &str = "security@example.com";

#[test]
fn each_transition_is_a_mail_in_calm_times() {
    let mut world = World::new(&email());
    for seq in 0..3 {
        world.push(incident(1, seq), &["owner@example.com"]);
        world.run(world.now + 10 * MINUTE_MS, |_, _| sent());
    }
    let contents: Vec<&MailContent> = world.taken.iter().map(|(_, mail)| &mail.content).collect();
    let seq = |content: &&MailContent| matches!(content, MailContent::Single(MailItem::Incident(transition, None)) if transition.evidence.traffic.len() > 1);
    assert_eq!(
        (contents.len(), contents.iter().filter(|it| seq(it)).count()),
        (3, 3),
        "owners get no mails by default"
    );
    assert_eq!(
        world.taken.iter().map(|(time, _)| *time).collect::<Vec<_>>(),
        [0, 10 * MINUTE_MS, 20 * MINUTE_MS]
    );
    assert_eq!(world.mails.stats(), QueueStats { sent: 3, ..QueueStats::default() });
}

#[test]
fn owners_get_mails_if_the_configuration_says_so() {
    let mut world = World::new(&EmailAlerts { owners: true, ..email() });
    world.push(incident(1, 0), &["a@example.com", "b@example.com"]);
    world.run(0, |_, _| sent());
    let to: Vec<(RecipientKind, &str)> =
        world.taken.iter().map(|(_, mail)| (mail.to.kind, mail.to.address.as_str())).collect();
    use RecipientKind::{Owner, Security};
    assert_eq!(to, [(Security, SECURITY), (Owner, "a@example.com"), (Owner, "b@example.com")]);
}

#[test]
fn a_server_that_was_away_gets_everything_once() {
    let mut world = World::new(&email());
    for number in 0..5 {
        world.push(incident(number, 0), &[]);
    }
    let mut times = Vec::new();
    world.run(3 * HOUR_MS, |now, _| {
        times.push(now);
        if now < 2 * HOUR_MS { down() } else { sent() }
    });
    let (notified, all) = world.notified(SECURITY);
    assert_eq!((notified.len(), all, notified.values().max()), (5, 5, Some(&1)));
    assert!(world.taken.iter().all(|(_, mail)| matches!(mail.content, MailContent::Single(_))));
    assert_eq!(world.mails.stats().queued, 0);
    // About every five minutes, after the first few.
    let gaps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).filter(|gap| *gap > 0).collect();
    assert_eq!(gaps[..4], [2_000, 4_000, 8_000, 16_000]);
    assert!(gaps.iter().all(|gap| *gap <= 5 * MINUTE_MS) && times.len() < 60, "{}", times.len());
}

#[test]
fn a_mail_that_may_have_arrived_comes_again_as_it_was() {
    let mut world = World::new(&EmailAlerts { digest_after: 1, ..email() });
    world.push(incident(1, 0), &[]);
    world.run(0, |_, _| sent());
    // Then a storm, and a server that takes mails and doesn't say so.
    (2..40).for_each(|number| world.push(incident(number, 0), &[]));
    let mut seen = Vec::new();
    world.run(MINUTE_MS, |_, mail| {
        seen.push(mail.clone());
        down()
    });
    (40..80).for_each(|number| world.push(incident(number, 0), &[]));
    world.run(HOUR_MS, |_, mail| {
        seen.push(mail.clone());
        if seen.len() < 5 { down() } else { sent() }
    });
    let first = seen.iter().position(|mail| matches!(mail.content, MailContent::Digest(_))).unwrap();
    let again: Vec<&QueuedMail> = seen.iter().filter(|mail| mail.number == seen[first].number).collect();
    assert!(again.len() >= 3 && again.iter().all(|mail| **mail == seen[first]), "{}", again.len());
    let (notified, all) = world.notified(SECURITY);
    assert_eq!((notified.len(), all, notified.values().max()), (79, 79, Some(&1)));
}

#[test]
fn ten_thousand_incidents_at_once_are_a_few_digests() {
    let mut world = World::new(&email());
    (0..10_000).for_each(|number| world.push(incident(number, 0), &[]));
    world.run(2 * HOUR_MS, |_, _| sent());
    let (notified, all) = world.notified(SECURITY);
    assert_eq!((notified.len(), all), (2_000, 10_000), "what isn't listed is counted");
    assert_eq!(world.taken.len(), 1);
    assert_eq!(world.taken[0].0, MINUTE_MS, "a minute after it began");
    assert_eq!(
        world.mails.stats(),
        QueueStats { sent: 1, digests: 1, condensed: 10_000, ..QueueStats::default() }
    );
}

#[test]
fn ten_thousand_held_actions_at_once_are_one_digest_that_counts_them() {
    let (held, opened, planned) = (action(0, ActionState::Held), incident(0, 0), samples::planned());
    // As parts of their incidents, and alone, as if the incidents were told before.
    for alone in [false, true] {
        let mut world = World::new(&EmailAlerts { owners: true, ..email() });
        for number in 0..10_000_u64 {
            let id = ActionId(number.into());
            let held = ActionNotice { id, is_decision: !alone, ..held.clone() };
            if alone {
                world.push_action(held, &["owner@example.com"]);
                continue;
            }
            let planned = PlannedAction { id: Some(id), ..planned.clone() };
            let opened = TransitionJson { incident_id: format!("{number:032x}"), ..opened.clone() };
            world.mails.push(opened, Some(planned), &[], 0, 0);
            world.mails.push_action(held, true, 0, 0);
        }
        world.run(2 * HOUR_MS, |_, _| sent());
        assert_eq!(world.notified(SECURITY).1, 10_000);
        assert_eq!(
            (world.taken.len(), world.taken[0].0),
            (1, MINUTE_MS),
            "one mail, a minute after it began"
        );
        let MailContent::Digest(items) = &world.taken[0].1.content else { panic!("{:?}", world.taken) };
        assert_eq!((items.held, items.incidents.len() + items.actions.len()), (10_000, 2_000));
        let composer = crate::email::Composer::new("keytide@example.com".parse().unwrap(), None).unwrap();
        let digest = crate::email::StormDigest {
            incidents: items.incidents.iter().map(|(each, planned)| (&**each, planned.as_deref())).collect(),
            more: items.more,
            actions: items.actions.iter().map(AsRef::as_ref).collect(),
            more_actions: items.more_actions,
            held: items.held,
        };
        for (language, held) in [
            (keytide_config::Language::En, "10,000 actions wait for a person"),
            (keytide_config::Language::Ko, "조치 10,000건이 승인을 기다림"),
        ] {
            let to = "security@example.com".parse().unwrap();
            let mail = composer.digest(&digest, Audience::Security, language, &to, 0).unwrap();
            assert!(mail.subject.contains(held), "{}", mail.subject);
            assert!(mail.html.len() < 200_000, "{}", mail.html.len());
        }
    }
}

#[test]
fn a_late_gateway_has_a_mail_of_its_own_in_a_storm_and_only_to_security() {
    let mut world = World::new(&EmailAlerts { owners: true, digest_after: 2, ..email() });
    (0..100).for_each(|number| world.push(incident(number, 0), &["owner@example.com"]));
    world.mails.push_gateway(gateway(7), 0, 0);
    (100..200).for_each(|number| world.push(incident(number, 0), &[]));
    world.mails.push_gateway(gateway(7), 0, 0);
    world.run(0, |_, _| sent());
    assert_eq!(world.taken.len(), 1);
    let of_gateway = |mail: &QueuedMail| matches!(mail.content, MailContent::Single(MailItem::Gateway(_)));
    assert!(of_gateway(&world.taken[0].1) && world.taken[0].1.to.kind == RecipientKind::Security);
    world.run(HOUR_MS, |_, _| sent());
    assert_eq!((world.taken.len(), world.notified(SECURITY).1), (3, 201));
}

#[test]
fn owners_are_told_of_what_is_done_and_of_what_is_answered_after_that() {
    let mut world = World::new(&EmailAlerts { owners: true, ..email() });
    for (number, notice) in (0..).zip(samples::actions()) {
        world.push_action(ActionNotice { id: ActionId(number), ..notice }, &["owner@example.com"]);
        world.run(world.now + 10 * MINUTE_MS, |_, _| sent());
    }
    let told = |to: &str| -> Vec<u32> {
        let (each, _) = world.notified(to);
        let ids = each.keys().map(|(name, _)| u32::from_str_radix(&name[7..], 16).unwrap());
        ids.collect()
    };
    assert_eq!(told(SECURITY), [0, 1, 2, 3, 4, 5, 6, 7]);
    let done: Vec<&str> =
        told("owner@example.com").iter().map(|&at| samples::ACTION_NAMES[at as usize]).collect();
    assert_eq!(done, ["suspended", "approved", "lifted", "revoked", "still-answered"]);
}

#[test]
fn contacts_are_told_of_quotas_if_the_configuration_says_so_and_nobody_else() {
    for (quota_notices, expected) in [(false, 0), (true, 2)] {
        let mut world = World::new(&EmailAlerts { owners: true, quota_notices, ..email() });
        for _ in 0..2 {
            world.push_quota(1, 1, &["a@example.com", "b@example.com"]);
        }
        world.run(0, |_, _| sent());
        let is_alone = |mail: &QueuedMail| {
            mail.to.kind == RecipientKind::Customer
                && matches!(mail.content, MailContent::Single(MailItem::Quota(_)))
        };
        assert!(world.taken.iter().all(|(_, mail)| is_alone(mail)));
        assert_eq!(world.taken.len(), expected);
    }
}

#[test]
fn many_quotas_of_one_contact_are_a_digest_of_their_own() {
    let email = EmailAlerts { owners: true, quota_notices: true, ..email() };
    let mut world = World::new(&email);
    (0..3_000).for_each(|number| world.push_quota(number, 1, &["a@example.com"]));
    world.push(incident(1, 0), &["a@example.com"]);
    world.run(2 * HOUR_MS, |_, _| sent());
    let kinds: Vec<RecipientKind> = world.taken.iter().map(|(_, mail)| mail.to.kind).collect();
    assert_eq!(kinds, [RecipientKind::Security, RecipientKind::Owner, RecipientKind::Customer]);
    let MailContent::Digest(items) = &world.taken[2].1.content else { panic!("{:?}", world.taken[2]) };
    assert_eq!((items.quotas.len(), items.more_quotas, items.incidents.len()), (2_000, 1_000, 0));
    assert_eq!(world.mails.stats().queued, 0);
}

#[test]
fn a_flood_of_quotas_neither_delays_nor_displaces_mails_about_incidents() {
    let email = EmailAlerts { owners: true, quota_notices: true, per_hour: 40, ..email() };
    let mut world = World::new(&email);
    // More customers than are told, and one of them with more notices than are kept.
    for number in 0..12_000_u64 {
        world.push_quota(number, 1, &[&format!("customer{number}@example.com"), "all@example.com"]);
    }
    assert_eq!(world.mails.stats().untold, 12_000 - 4_999);
    world.run(HOUR_MS - 1, |_, _| sent());
    assert_eq!(world.taken.len(), 20, "half of the mails of an hour");
    let owners: Vec<String> = (0..15).map(|number| format!("owner{number}@example.com")).collect();
    for (number, owner) in (0..).zip(&owners) {
        world.push(incident(number, 0), &[owner]);
        world.run(world.now, |_, _| sent());
    }
    let of = |kind| world.taken.iter().filter(|(_, mail)| mail.to.kind == kind).count();
    use RecipientKind::{Customer, Owner, Security};
    assert_eq!((of(Customer), of(Owner)), (20, 10), "three quarters of them with those to owners");
    assert_eq!(of(Security), 10, "in that hour");
    let single = |mail: &QueuedMail| matches!(mail.content, MailContent::Single(_));
    assert!(world.taken.iter().filter(|(_, mail)| mail.to.kind != Customer).all(|(_, mail)| single(mail)));
    // All are told in the end, those of the flood last.
    world.run(world.now + 300 * HOUR_MS, |_, _| sent());
    assert!(world.most_within_an_hour(|_| true) <= 40);
    assert!(world.most_within_an_hour(|to| to.kind == Customer) <= 20);
    assert_eq!(world.mails.stats().queued, 0);
    let (_, told) = world.notified("all@example.com");
    assert_eq!(told, 12_000);
}

#[test]
fn customers_whose_mails_fail_dont_hold_back_those_of_owners() {
    let mut world = World::new(&EmailAlerts { owners: true, quota_notices: true, ..email() });
    (0..50).for_each(|number| world.push_quota(number, 1, &[&format!("customer{number}@example.com")]));
    let server = |_: u64, mail: &QueuedMail| {
        if mail.to.kind == RecipientKind::Customer { down() } else { sent() }
    };
    world.run(HOUR_MS, server);
    world.push(incident(1, 0), &["owner@example.com"]);
    world.run(HOUR_MS, server);
    let to: Vec<RecipientKind> = world.taken.iter().map(|(_, mail)| mail.to.kind).collect();
    assert_eq!(to, [RecipientKind::Security, RecipientKind::Owner]);
}

#[test]
fn a_notice_of_a_quota_reaches_contacts_and_webhooks_and_bad_ones_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let email = EmailAlerts { dir: Some(folder.path().to_owned()), quota_notices: true, ..email() };
    let config = keytide_config::Alerts { email: Some(email), ..Default::default() };
    let alerts = Outbox::open(&config, &[], Arc::new(|| 1_795_269_960_000)).unwrap();
    let alert = |json: String| QuotaAlert {
        json,
        contacts: vec!["a@example.com".to_owned(), "no address\r\nBcc: x@example.com".to_owned()],
    };
    let json = serde_json::to_string(&quota(1, 1)).unwrap();
    let quotas = [json.clone(), "{}".to_owned(), json[1..].to_owned()].map(alert).into();
    for _ in 0..2 {
        alerts.notify(5, TickNotices { quotas: Vec::clone(&quotas), ..TickNotices::default() });
    }
    let monitor = alerts.monitor();
    assert_eq!(alerts.stop(Duration::from_secs(600)), 0);
    let expected = QueueStats { sent: 1, refused: 1, ..QueueStats::default() };
    assert_eq!(monitor.stats().mails, Some(expected), "one contact has no address");
    let names: Vec<_> = folder.path().read_dir().unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(names.len(), 1);
    assert!(names[0].to_str().unwrap().contains("-quota-"), "{names:?}");
}

#[test]
fn a_storm_that_goes_on_stays_within_the_limits_and_is_reported_in_time() {
    let email = email();
    let mut world = World::new(&email);
    for second in 0..7_200 {
        world.push(incident(second, 0), &[]);
        world.push(incident(1_000_000 + second, 0), &[]);
        world.run((second + 1) * 1_000, |_, _| sent());
    }
    let end = world.now;
    world.run(end + 16 * MINUTE_MS, |_, _| sent());
    assert_eq!(world.notified(SECURITY).1, 14_400);
    assert!(world.most_within_an_hour(|_| true) <= 20, "{}", world.most_within_an_hour(|_| true));
    let times: Vec<u64> = world.taken.iter().map(|(time, _)| *time).collect();
    assert!(times.windows(2).all(|pair| pair[1] - pair[0] <= 15 * MINUTE_MS + 1_000), "{times:?}");
}

#[test]
fn digests_keep_what_matters_most() {
    let mut world = World::new(&email());
    for number in 0..2_500 {
        let score = if number == 2_400 { 99 } else { 50 };
        let transition = if number < 2_400 { Change::Ended } else { Change::Opened };
        world.push(TransitionJson { score, transition, ..incident(number, 0) }, &[]);
    }
    world.run(MINUTE_MS, |_, _| sent());
    let (notified, all) = world.notified(SECURITY);
    assert_eq!((notified.len(), all), (2_000, 2_500));
    assert!((2_400..2_500_u64).all(|number| notified.contains_key(&(format!("{number:032x}"), 0))));
}

#[test]
fn a_transition_that_was_sent_is_not_sent_again() {
    let mut world = World::new(&email());
    for _ in 0..3 {
        world.push(incident(1, 0), &[]);
        world.run(world.now + HOUR_MS, |_, _| sent());
    }
    world.push(incident(1, 1), &[]);
    world.run(world.now + HOUR_MS, |_, _| sent());
    assert_eq!(world.taken.len(), 2);
}

#[test]
fn a_mail_that_is_refused_is_given_up_and_holds_up_nobody() {
    let mut world = World::new(&email());
    world.push(incident(1, 0), &[]);
    world.push(incident(2, 0), &[]);
    let mut answers = vec![sent(), MailOutcome::Refused("550 no such user".to_owned())];
    world.run(0, |_, _| answers.pop().unwrap());
    assert_eq!(world.notified(SECURITY).0.into_keys().next().unwrap().0, format!("{:032x}", 2));
    assert_eq!(world.mails.stats(), QueueStats { sent: 1, refused: 1, ..QueueStats::default() });
}

#[test]
fn a_mail_that_fails_for_long_lets_others_pass() {
    let mut world = World::new(&email());
    (0..4).for_each(|number| world.push(incident(number, 0), &[]));
    let poison = format!("{:032x}", 0);
    world.run(2 * HOUR_MS, |_, mail| match &mail.content {
        MailContent::Single(MailItem::Incident(transition, _)) if transition.incident_id == poison => down(),
        _ => sent(),
    });
    assert_eq!(world.notified(SECURITY).0.len(), 3);
    assert_eq!(world.mails.stats().queued, 1);
    world.run(3 * HOUR_MS, |_, _| sent());
    assert_eq!(world.notified(SECURITY).1, 4);
}

#[test]
fn what_only_a_person_can_mend_is_kept_and_shown() {
    let mut world = World::new(&email());
    world.push(incident(1, 0), &[]);
    world.run(HOUR_MS, |_, _| MailOutcome::Misconfigured("535 authentication failed".to_owned()));
    assert!(world.mails.stats().misconfigured && world.mails.stats().queued == 1);
    world.run(2 * HOUR_MS, |_, _| sent());
    assert!(!world.mails.stats().misconfigured && world.taken.len() == 1);
}

#[test]
fn the_limit_of_a_recipient_puts_mails_off() {
    let mut world = World::new(&EmailAlerts { per_recipient: 3, ..email() });
    for number in 0..5 {
        world.push(incident(number, 0), &[]);
        world.run(world.now + MINUTE_MS, |_, _| sent());
    }
    assert_eq!((world.taken.len(), world.mails.stats().limited), (3, 1));
    world.run(3 * HOUR_MS, |_, _| sent());
    let times: Vec<u64> = world.taken.iter().map(|(time, _)| *time / MINUTE_MS).collect();
    assert_eq!(times, [0, 1, 2, 60, 61]);
    assert_eq!(world.mails.stats().limited, 0);
}

#[test]
fn owners_leave_a_quarter_of_the_limit_to_security() {
    let mut world = World::new(&EmailAlerts { owners: true, per_hour: 40, ..email() });
    for number in 0..100 {
        let owner = format!("owner-{number}@example.com");
        world.push(incident(number, 0), &[&owner]);
    }
    world.run(HOUR_MS - 1, |_, _| sent());
    let owners = |to: &Recipient| to.kind == RecipientKind::Owner;
    assert_eq!(world.most_within_an_hour(owners), 30);
    world.push(incident(500, 0), &[]);
    world.run(HOUR_MS - 1 + MINUTE_MS, |_, _| sent());
    assert_eq!(world.notified(SECURITY).1, 101);
    world.run(10 * HOUR_MS, |_, _| sent());
    assert_eq!(world.taken.iter().filter(|(_, mail)| owners(&mail.to)).count(), 100);
    assert!(world.most_within_an_hour(owners) <= 30 && world.most_within_an_hour(|_| true) <= 40);
}

#[test]
fn a_server_that_is_away_isnt_asked_for_each_of_many_owners() {
    let email = EmailAlerts { owners: true, per_hour: 10_000, ..email() };
    let mut world = World::new(&email);
    for number in 0..1_000 {
        let owner = format!("owner-{number}@example.com");
        world.push(incident(number, 0), &[&owner]);
    }
    world.run(HOUR_MS, |_, _| down());
    assert!(world.tried < 60, "{}", world.tried);
    // Security isn't held up by owners.
    world.run(world.now + 5 * MINUTE_MS, |_, mail| match mail.to.kind {
        RecipientKind::Security => sent(),
        RecipientKind::Owner | RecipientKind::Customer => down(),
    });
    assert_eq!((world.taken.len(), world.notified(SECURITY).1), (1, 1_000));
    world.run(world.now + 30 * MINUTE_MS, |_, _| sent());
    assert_eq!((world.taken.len(), world.mails.stats().queued), (1_001, 0));
}

#[test]
fn too_many_owners_are_counted() {
    let mut world = World::new(&EmailAlerts { owners: true, ..email() });
    for number in 0..10_001 {
        let owner = format!("owner-{number}@example.com");
        world.push(incident(number, 0), &[&owner]);
    }
    let QueueStats { untold, queued, .. } = world.mails.stats();
    assert_eq!((untold, queued), (2, 20_000), "security is one of 10,000");
}

#[test]
fn at_the_end_nothing_waits_but_for_the_limits() {
    let mut world = World::new(&EmailAlerts { per_recipient: 2, ..email() });
    world.push(incident(0, 0), &[]);
    world.run(1, |_, _| down());
    (1..100).for_each(|number| world.push(incident(number, 0), &[]));
    world.mails.hurry(world.now);
    let now = world.now;
    world.run(now, |_, _| sent());
    assert_eq!((world.taken.len(), world.notified(SECURITY).1), (2, 100));
}

pub(super) fn notice(number: u64, seq: u32) -> TransitionJson {
    let transition = if seq == 0 { Change::Opened } else { Change::Updated };
    TransitionJson {
        incident_id: format!("{:032x}", number + (1 << 40)),
        seq,
        transition,
        ..samples::refused()
    }
}

#[test]
fn refused_calls_of_revoked_keys_are_one_mail_a_day_to_security() {
    let mut world = World::new(&EmailAlerts { owners: true, ..email() });
    for hour in 0..72 {
        world.push(notice(hour % 10, hour as u32 / 10), &["owner@example.com"]);
        world.run(world.now + HOUR_MS, |_, _| sent());
    }
    world.run(world.now + 48 * HOUR_MS, |_, _| sent());
    assert!(world.taken.iter().all(|(_, mail)| mail.to.address == SECURITY));
    let dailies = world.dailies(SECURITY);
    assert_eq!(dailies.len(), world.taken.len());
    let hours: Vec<u64> = dailies.iter().map(|(time, ..)| *time / HOUR_MS).collect();
    assert_eq!(hours, [24, 48, 72]);
    // A line for each key, by its newest transition.
    let (_, first, count) = &dailies[0];
    assert_eq!((first.len(), *count, first[&notice(3, 0).incident_id]), (10, 24, 2));
    let stats = world.mails.stats();
    assert_eq!((stats.sent, stats.digests, stats.queued, stats.condensed), (3, 3, 0, 72));
}

#[test]
fn a_days_notices_leave_with_the_process_unless_one_left_that_day() {
    let mut world = World::new(&email());
    world.push(notice(1, 0), &[]);
    world.mails.hurry(world.now);
    world.run(0, |_, _| sent());
    assert_eq!(world.dailies(SECURITY).len(), 1);
    world.push(notice(2, 0), &[]);
    world.run(24 * HOUR_MS - 1, |_, _| sent());
    assert_eq!(world.taken.len(), 1);
    world.run(24 * HOUR_MS, |_, _| sent());
    assert_eq!(world.dailies(SECURITY).len(), 2);
}

#[test]
fn a_revoked_key_that_is_answered_after_all_is_told_at_once_and_to_its_owner() {
    let mut world = World::new(&EmailAlerts { owners: true, ..email() });
    world.push(notice(1, 0), &["owner@example.com"]);
    let answered = TransitionJson { transition: Change::Raised, level: "revoke".to_owned(), ..notice(1, 1) };
    world.push(answered, &["owner@example.com"]);
    world.run(0, |_, _| sent());
    let to: Vec<&str> = world.taken.iter().map(|(_, mail)| mail.to.address.as_str()).collect();
    assert_eq!(to, [SECURITY, "owner@example.com"]);
}

#[test]
fn owners_are_told_of_the_opening_and_the_end_and_security_of_each_change() {
    let mut world = World::new(&EmailAlerts { owners: true, ..email() });
    let changes =
        [Change::Opened, Change::Updated, Change::Raised, Change::Ended, Change::Reopened, Change::Withdrawn];
    for (seq, transition) in (0..).zip(changes) {
        world.push(TransitionJson { transition, ..incident(1, seq) }, &["owner@example.com"]);
        world.run(world.now + MINUTE_MS, |_, _| sent());
    }
    let told = |audience| -> Vec<Change> {
        let mails = world.taken.iter().filter(|(_, mail)| mail.to.kind == audience);
        mails
            .map(|(_, mail)| match &mail.content {
                MailContent::Single(MailItem::Incident(transition, _)) => transition.transition,
                other => panic!("{other:?}"),
            })
            .collect()
    };
    assert_eq!(told(RecipientKind::Security), changes);
    assert_eq!(told(RecipientKind::Owner), [Change::Opened, Change::Ended, Change::Withdrawn]);
}

#[test]
fn a_repeat_is_no_mail_but_a_rise_always_is() {
    let mut world = World::new(&EmailAlerts { owners: true, ..email() });
    let changes = [Change::Reopened, Change::Updated, Change::Ended, Change::Raised, Change::Withdrawn];
    for (seq, transition) in (1..).zip(changes) {
        world.push(TransitionJson { transition, repeat: true, ..incident(1, seq) }, &[]);
    }
    world.run(HOUR_MS, |_, _| sent());
    let seqs: Vec<u32> = world.notified(SECURITY).0.into_keys().map(|(_, seq)| seq).collect();
    assert_eq!(seqs, [4, 5]);
}

/// What happens next: incidents, notices, or time with a server in some mood.
#[derive(Clone, Debug)]
enum Event {
    Incidents(u64, usize),
    /// Changes of actions of an owner, and whether they are done.
    Actions(u64, usize, bool),
    Gateway,
    Notices(u64),
    Time(u64, u8),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        (1..40_u64, 0..4_usize).prop_map(|(count, owner)| Event::Incidents(count, owner)),
        (1..40_u64, 0..4_usize, any::<bool>())
            .prop_map(|(count, owner, is_done)| Event::Actions(count, owner, is_done)),
        Just(Event::Gateway),
        (0..20 * MINUTE_MS, any::<u8>()).prop_map(|(time, mood)| Event::Time(time, mood)),
        (0..20 * HOUR_MS, 64..255_u8).prop_map(|(time, mood)| Event::Time(time, mood)),
        (1..20_u64).prop_map(Event::Notices),
    ];
    prop::collection::vec(event, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn everything_is_sent_once_and_within_the_limits(events in events(), storm in 1..12_u32, hour in 1..9_u32) {
        let email = EmailAlerts { owners: true, digest_after: storm, per_recipient: hour, per_hour: 2 * hour, ..email() };
        let mut world = World::new(&email);
        let owners = ["a@example.com", "b@example.com", "c@example.com"];
        let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
        let mut number = 0;
        // The newest transition of each incident that is a notice, and the number of all.
        let (mut newest, mut notices): (BTreeMap<String, u32>, u64) = (BTreeMap::new(), 0);
        let mut copies: BTreeMap<u64, QueuedMail> = BTreeMap::new();
        for event in events {
            match event {
                Event::Incidents(count, owner) => {
                    for _ in 0..count {
                        world.push(incident(number, 0), owners.get(owner..=owner).unwrap_or(&[]));
                        number += 1;
                    }
                    *expected.entry(SECURITY).or_default() += count;
                    if let Some(owner) = owners.get(owner) {
                        *expected.entry(owner).or_default() += count;
                    }
                }
                Event::Actions(count, owner, is_done) => {
                    let state = if is_done { ActionState::Done } else { ActionState::Held };
                    for _ in 0..count {
                        world.push_action(action(number, state), owners.get(owner..=owner).unwrap_or(&[]));
                        number += 1;
                    }
                    *expected.entry(SECURITY).or_default() += count;
                    if let Some(owner) = owners.get(owner).filter(|_| is_done) {
                        *expected.entry(owner).or_default() += count;
                    }
                }
                Event::Gateway => {
                    world.mails.push_gateway(gateway(number), world.now, world.now);
                    number += 1;
                    *expected.entry(SECURITY).or_default() += 1;
                }
                Event::Notices(count) => {
                    for which in 0..count {
                        let next = newest.get(&notice(which, 0).incident_id).map_or(0, |seq| seq + 1);
                        newest.insert(notice(which, 0).incident_id, next);
                        world.push(notice(which, next), &owners);
                        notices += 1;
                    }
                }
                Event::Time(time, mood) => {
                    let end = world.now + time;
                    let mut turn = mood;
                    world.run(end, |_, mail| {
                        // A mail that is tried again is the same mail.
                        match copies.entry(mail.number) {
                            Entry::Occupied(copy) => assert_eq!(copy.get(), mail),
                            Entry::Vacant(place) => drop(place.insert(mail.clone())),
                        }
                        turn = turn.wrapping_mul(5).wrapping_add(3);
                        if mood < 64 || turn % 4 == 0 { down() } else { sent() }
                    });
                }
            }
        }
        let end = world.now;
        world.run(end + 2_000 * HOUR_MS, |_, _| sent());
        for address in owners.into_iter().chain([SECURITY]) {
            let (notified, all) = world.notified(address);
            prop_assert_eq!(all, expected.get(address).copied().unwrap_or(0), "{}", address);
            prop_assert!(notified.values().all(|times| *times == 1));
            prop_assert!(world.most_within_an_hour(|to| to.address == address) <= hour as usize);
        }
        prop_assert!(world.most_within_an_hour(|_| true) <= 2 * hour as usize);
        // Each notice is in one daily digest, the last of which has the newest transition; all go to security.
        let dailies = world.dailies(SECURITY);
        prop_assert_eq!(dailies.iter().map(|(.., count)| count).sum::<u64>(), notices);
        prop_assert!(dailies.windows(2).all(|pair| pair[1].0 - pair[0].0 >= 24 * HOUR_MS));
        let mut last = BTreeMap::new();
        dailies.into_iter().for_each(|(_, lines, _)| last.extend(lines));
        prop_assert_eq!(last, newest);
        for owner in owners {
            prop_assert!(world.dailies(owner).is_empty());
        }
        let stats = world.mails.stats();
        prop_assert_eq!((stats.queued, stats.refused, stats.untold), (0, 0, 0));
    }
}

/// A row of `incident_log` as it is published.
fn json(number: u64, policy: Option<&str>) -> Vec<u8> {
    let row = serde_json::json!({
        "incident_id": format!("{number:032x}"), "seq": 0, "transition": "opened", "at": "2026-11-21T14:06:00Z",
        "reason": null, "early": false, "repeat": false, "catching_up": false, "key_id": "3f2a", "subscription": "s-1",
        "customer": "Acme", "plan": "gold", "policy": policy, "key_state": "active", "level": "revoke", "score": 97,
        "state": "open", "opened_at": "2026-11-21T14:05:00Z", "last_signal_at": "2026-11-21T14:06:00Z",
        "ended_at": null, "signals": [], "evidence": {
            "calls": 7, "known_since": "2026-10-01T00:00:00Z", "known_calls": 100, "traffic": [], "samples": [],
            "taken": { "from_new": 0, "usual": 0, "bytes_out": 0, "routes": 0, "methods": [], "statuses": [], "top_routes": [] },
            "usual": [], "other_keys": [], "earlier": [],
            "config": "0123456789abcdef"
        }, "reopenings": 0, "platform_event": false, "detector_version": 1
    });
    row.to_string().into_bytes()
}

/// Takes one request, answers it, and returns it.
fn receiver() -> (u16, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let (mut seen, mut buffer) = (Vec::new(), [0; 4_096]);
        while !seen.ends_with(b"}") {
            let read = stream.read(&mut buffer).unwrap();
            assert!(read > 0);
            seen.extend_from_slice(&buffer[..read]);
        }
        stream.write_all(b"HTTP/1.1 204 No MailContent\r\n\r\n").unwrap();
        String::from_utf8(seen).unwrap()
    });
    (port, thread)
}

#[test]
fn a_notice_becomes_files_and_a_request_but_not_of_what_is_only_observed() {
    let folder = tempfile::tempdir().unwrap();
    let (port, request) = receiver();
    let webhook = Webhook {
        name: "team".to_owned(),
        url: WebhookUrl { tls: false, host: "127.0.0.1".to_owned(), port, target: Secret::new("/hook") },
        secret: Some(Secret::new("0123456789abcdef")),
        format: WebhookFormat::Keytide,
        incidents: true,
        quota_notices: false,
        allow_private: vec!["127.0.0.1".to_owned()],
        timeout_ms: 60_000,
    };
    let email = EmailAlerts { dir: Some(folder.path().to_owned()), owners: true, ..email() };
    let config = keytide_config::Alerts { email: Some(email), webhooks: vec![webhook], ..Default::default() };
    let alerts = Outbox::open(&config, &[], Arc::new(|| 1_795_269_960_000)).unwrap();
    let action = Revocation {
        id: ActionId(1),
        key: KeyId(7),
        key_id: KeyId(7).to_string(),
        incident: IncidentId(1),
        action: Action::Suspend,
        state: ActionState::Held,
        reason: "would have suspended the key; held: acting is off".to_owned(),
        at_ms: 0,
    };
    let row = json(1, Some("suspend"));
    alerts.notify(
        1,
        vec![Notice { json: json(2, Some("observe")), contacts: Vec::new(), actions: Vec::new() }],
    );
    alerts.notify(2, vec![Notice { json: b"no row".to_vec(), contacts: Vec::new(), actions: Vec::new() }]);
    let contacts = vec!["owner@example.com".to_owned(), "not an address".to_owned()];
    alerts.notify(3, vec![Notice { json: row.clone(), contacts, actions: vec![action] }]);
    let request = request.join().unwrap();
    assert!(request.ends_with(std::str::from_utf8(&row).unwrap()), "{request}");
    let monitor = alerts.monitor();
    assert_eq!(alerts.stop(Duration::from_secs(600)), 0);
    let OutboxStats { mails, webhooks } = monitor.stats();
    assert_eq!(mails, Some(QueueStats { sent: 2, refused: 1, ..QueueStats::default() }));
    assert_eq!(webhooks, [("team".to_owned(), QueueStats { sent: 1, ..QueueStats::default() })]);
    let files: Vec<_> = folder.path().read_dir().unwrap().map(|file| file.unwrap().file_name()).collect();
    assert_eq!(files.len(), 2, "{files:?}");
}

#[test]
fn where_the_plan_has_no_policy_mails_name_the_jobs() {
    let folder = tempfile::tempdir().unwrap();
    let email = EmailAlerts { dir: Some(folder.path().to_owned()), ..email() };
    let mut config = keytide_config::Alerts { email: Some(email), ..Default::default() };
    config.policy.default = DefaultPolicy::Suspend;
    let alerts = Outbox::open(&config, &[], Arc::new(|| 1_795_269_960_000)).unwrap();
    alerts.notify(1, vec![Notice { json: json(1, None), contacts: Vec::new(), actions: Vec::new() }]);
    assert_eq!(alerts.stop(Duration::from_secs(600)), 0);
    let file = folder.path().read_dir().unwrap().next().unwrap().unwrap();
    let mut mail = String::new();
    std::fs::File::open(file.path()).unwrap().take(1 << 20).read_to_string(&mut mail).unwrap();
    assert!(mail.contains("Policy for this key: suspend the key."), "{mail}");
}

#[test]
fn without_mails_and_webhooks_nothing_is_done() {
    let alerts = Outbox::open(&keytide_config::Alerts::default(), &[], Arc::new(|| 0)).unwrap();
    alerts.notify(1, vec![Notice { json: json(1, None), contacts: Vec::new(), actions: Vec::new() }]);
    assert_eq!(alerts.monitor().stats(), OutboxStats::default());
    assert_eq!(alerts.stop(Duration::ZERO), 0);
}

#[test]
fn the_decision_that_a_transitions_mail_announces_is_no_mail_of_its_own() {
    // The mail of a reopening that repeats isn't sent, so it announces nothing. Owners read what is done in any case.
    for (is_repeat, state, expected) in [
        (false, ActionState::Held, 1),
        (true, ActionState::Held, 1),
        (false, ActionState::Done, 2),
        (true, ActionState::Done, 2),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let email = EmailAlerts { dir: Some(folder.path().to_owned()), owners: true, ..email() };
        let config = keytide_config::Alerts { email: Some(email), ..Default::default() };
        let alerts = Outbox::open(&config, &[], Arc::new(|| 1_795_269_960_000)).unwrap();
        let mut row: serde_json::Value = serde_json::from_slice(&json(1, Some("suspend"))).unwrap();
        (row["transition"], row["repeat"]) = ("reopened".into(), is_repeat.into());
        let contacts = vec!["owner@example.com".to_owned()];
        let decided = ActionNotice { is_decision: true, contacts: contacts.clone(), ..action(1, state) };
        let standing = Revocation {
            id: decided.id,
            key: KeyId(7),
            key_id: KeyId(7).to_string(),
            incident: IncidentId(1),
            action: Action::Suspend,
            state,
            reason: "asks a person before suspending the key; held: many keys rose together".to_owned(),
            at_ms: 0,
        };
        // What an earlier action became in that tick is told beside it.
        let other = ActionNotice { is_decision: false, ..action(2, ActionState::Failed) };
        let notices = TickNotices {
            incidents: vec![Notice { json: row.to_string().into(), contacts, actions: vec![standing] }],
            actions: ActionNotices { actions: vec![decided, other], gateways: vec![gateway(5)] },
            quotas: Vec::new(),
        };
        for _ in 0..2 {
            alerts.notify(5, notices.clone());
        }
        assert_eq!(alerts.stop(Duration::from_secs(600)), 0);
        let files = folder.path().read_dir().unwrap();
        let mut names: Vec<String> =
            files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        let of = |part: &str| names.iter().filter(|name| name.contains(part)).count();
        assert_eq!((of("gateway-"), of(&format!("action-{:032x}", 2))), (1, 1), "{names:?}");
        // Both have the number 1, and one of them is sent.
        assert_eq!(of(&format!("-{:032x}.0.security", 1)), 1, "{names:?}");
        assert_eq!(of(&format!("action-{:032x}.0.security", 1)), usize::from(is_repeat), "{names:?}");
        assert_eq!(names.len(), 2 + expected, "{names:?}");
    }
}
