//! Tests of an outbox through many lives: a job that dies between any two steps, a store that fails, and a server whose
//! mailboxes are counted.
//!
//! The oracle counts what is owed: each transition and change of a committed tick, once to each of its recipients. A mail may come
//! twice only as it was, and only if the process died after its attempt and before its outcome was stored.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::AtomicBool;

use keytide_config::{EmailAlerts, Secret, Sender as From, Webhook, WebhookFormat, WebhookUrl};
use keytide_dataflow::model::time::{DAY_MS, HOUR_MS, MINUTE_MS};
use proptest::prelude::*;

use super::hooks::WebhookWishes;
use super::mails::{MailContent, MailItem, Recipient, RecipientKind};
use super::tests::{action, gateway, notice, quota};
use super::*;
use crate::actions::ActionNotice;
use crate::email::samples;

const SECURITY: &str = "security@example.com";
const OWNERS: [&str; 2] = ["a@example.com", "b@example.com"];

/// A store in memory, some of whose writes fail, also after they are done.
#[derive(Default)]
struct Disk {
    entries: Mutex<BTreeMap<u64, Vec<u8>>>,
    writes: Mutex<u64>,
    has_faults: bool,
    is_away: AtomicBool,
}

impl Disk {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<u64, Vec<u8>>> {
        self.entries.lock().unwrap()
    }

    fn away(&self) -> Result<(), StoreFault> {
        match self.is_away.load(std::sync::atomic::Ordering::Acquire) {
            true => Err("no such store".into()),
            false => Ok(()),
        }
    }
}

impl ClaimStore for Disk {
    fn numbers(&self) -> Result<Vec<u64>, StoreFault> {
        self.away()?;
        Ok(self.entries().keys().copied().collect())
    }

    fn get(&self, number: u64) -> Result<Option<Vec<u8>>, StoreFault> {
        self.away()?;
        Ok(self.entries().get(&number).cloned())
    }

    fn put(&self, number: u64, _: EntryKind, bytes: Vec<u8>) -> Result<bool, StoreFault> {
        self.away()?;
        let mut writes = self.writes.lock().unwrap();
        *writes += 1;
        let fault = if self.has_faults { *writes % 7 } else { 0 };
        if fault == 3 {
            return Err("no space".into());
        }
        let mut entries = self.entries();
        if entries.contains_key(&number) {
            return Ok(false);
        }
        entries.insert(number, bytes);
        if fault == 5 { Err("no answer".into()) } else { Ok(true) }
    }

    fn delete(&self, number: u64) -> Result<(), StoreFault> {
        self.away()?;
        self.entries().remove(&number);
        Ok(())
    }
}

fn email() -> EmailAlerts {
    let from = From { name: "Keytide".to_owned(), address: "keytide@example.com".to_owned() };
    EmailAlerts { owners: true, quota_notices: true, ..EmailAlerts::new(from, vec![SECURITY.to_owned()]) }
}

fn incident(number: u64) -> TransitionJson {
    TransitionJson { incident_id: format!("{number:032x}"), transition: Change::Opened, ..samples::leak() }
}

/// A transition, change or gateway with the owner of its key.
type Owed = (MailItem, Option<&'static str>);

fn owed(transition: TransitionJson, owner: Option<&'static str>) -> Owed {
    (MailItem::Incident(Arc::new(transition), None), owner)
}

/// A tick with its transitions.
#[derive(Clone)]
struct Made {
    tick: Tick,
    owed: Vec<Owed>,
}

/// A checkpoint after so many ticks. Like that of a job it has ticks that may not be committed.
struct SavedMemory {
    ticks: usize,
    position: u64,
    memory: Vec<u8>,
    waiting: Vec<Made>,
}

struct Process {
    queue: MailQueue,
    claims: Claims,
    claimed: BTreeSet<u64>,
    /// Ticks that are made and not committed.
    pending: Vec<Made>,
}

struct Death;

struct Lives {
    email: EmailAlerts,
    disk: Arc<Disk>,
    now: u64,
    committed: Vec<Made>,
    checkpoints: VecDeque<SavedMemory>,
    life: Process,
    lives: u64,
    /// The steps after which the process dies.
    left: Option<u32>,
    taken: Vec<QueuedMail>,
    /// Mails that were under way when a process died.
    in_flight: Vec<QueuedMail>,
    /// The claims of processes that are dead or sleep.
    zombies: Vec<Claims>,
}

fn begin(
    disk: &Arc<Disk>,
    email: &EmailAlerts,
    life: u64,
    checkpoint: Option<&SavedMemory>,
    now: u64,
) -> Process {
    let position = checkpoint.map_or(0, |checkpoint| checkpoint.position);
    let (claims, entries) = loop {
        match Claims::open(disk.clone(), life, position, now) {
            Ok(opened) => break opened,
            // Its own entry may be there all the same. It is as harmless as that of a life which died at once.
            Err(ClaimsError::Store(_)) => {}
            Err(error) => panic!("{error}"),
        }
    };
    let memory = checkpoint.map(|checkpoint| postcard::from_bytes(&checkpoint.memory).unwrap());
    let (mut queue, dropped) = MailQueue::restore(email, memory.unwrap_or_default(), now, Box::new(|_| 0));
    assert_eq!(dropped, 0);
    go_on(&mut queue, &Channel::Mails, &entries, now).unwrap();
    Process { queue, claims, claimed: BTreeSet::new(), pending: Vec::new() }
}

impl Lives {
    fn new(email: EmailAlerts) -> Self {
        let disk = Arc::new(Disk { has_faults: true, ..Disk::default() });
        let life = begin(&disk, &email, 0, None, 0);
        Self {
            email,
            disk,
            now: 0,
            committed: Vec::new(),
            checkpoints: VecDeque::new(),
            life,
            lives: 1,
            left: None,
            taken: Vec::new(),
            in_flight: Vec::new(),
            zombies: Vec::new(),
        }
    }

    fn step(&mut self) -> Result<(), Death> {
        match &mut self.left {
            Some(0) => Err(Death),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn append(&mut self, event: ClaimEvent) -> Result<(), Death> {
        let entry = self.life.claims.entry(event, self.now);
        loop {
            self.step()?;
            match self.life.claims.append(&entry) {
                Ok(()) => return Ok(()),
                Err(AppendError::Later(_)) => {}
                Err(AppendError::Superseded) => panic!("no younger life began"),
            }
        }
    }

    fn make(&mut self, owed: Vec<Owed>) {
        let last = self.life.pending.last().or(self.committed.last());
        let tick = last.map_or(1, |last| last.tick + 1).max(self.now);
        self.life.pending.push(Made { tick, owed });
    }

    fn push(&mut self, made: Made) {
        let (queue, now) = (&mut self.life.queue, self.now);
        for (item, owner) in made.owed {
            let contacts: Vec<String> = owner.iter().map(|&owner| owner.to_owned()).collect();
            match item {
                MailItem::Incident(transition, planned) => {
                    assert_eq!(planned, None);
                    queue.push((*transition).clone(), None, &contacts, now, made.tick);
                }
                MailItem::Action(notice) => {
                    queue.push_action(ActionNotice { contacts, ..(*notice).clone() }, false, now, made.tick);
                }
                MailItem::Gateway(notice) => queue.push_gateway((*notice).clone(), now, made.tick),
                MailItem::Quota(row) => queue.push_quota(row, &contacts, now, made.tick),
            }
        }
    }

    fn commit(&mut self) -> Result<(), Death> {
        let ready = std::mem::take(&mut self.life.pending);
        self.committed.extend(ready.iter().cloned());
        for made in ready {
            self.step()?;
            self.push(made);
        }
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), Death> {
        let position = self.life.claims.position();
        let memory = postcard::to_stdvec(&self.life.queue.memory()).unwrap();
        let waiting = self.life.pending.clone();
        self.step()?;
        let ticks = self.committed.len() + waiting.len();
        self.checkpoints.push_back(SavedMemory { ticks, position, memory, waiting });
        let counting = self.checkpoints.iter().filter(|of| of.ticks <= self.committed.len()).count();
        if counting > 3 {
            self.checkpoints.pop_front();
            self.step()?;
            self.life.claims.forget(self.checkpoints[0].position);
        }
        Ok(())
    }

    /// Ends the process, and starts the next one.
    fn die(&mut self) {
        self.left = None;
        let committed = self.committed.len();
        self.checkpoints.retain(|checkpoint| checkpoint.ticks <= committed);
        let checkpoint = self.checkpoints.back();
        let (from, waiting) =
            checkpoint.map_or((0, Vec::new()), |checkpoint| (checkpoint.ticks, checkpoint.waiting.clone()));
        let life = begin(&self.disk, &self.email, self.lives, checkpoint, self.now);
        self.lives += 1;
        let before = std::mem::replace(&mut self.life, life);
        self.zombies.push(before.claims);
        for made in waiting.into_iter().chain(self.committed[from..].to_vec()) {
            self.push(made);
        }
    }

    /// Lets the queue work until `end`, with a server that is down every now and then.
    fn run(&mut self, end: u64, mood: u8) -> Result<(), Death> {
        let mut turn = mood;
        loop {
            match self.life.queue.next(self.now) {
                NextStep::Do(mail) => {
                    turn = turn.wrapping_mul(5).wrapping_add(3);
                    self.attempt(mail, mood < 64 || turn.is_multiple_of(4))?;
                }
                NextStep::Wait(until) => match until.filter(|until| *until <= end) {
                    Some(until) => self.now = until,
                    None => break,
                },
            }
        }
        self.now = end;
        Ok(())
    }

    fn attempt(&mut self, mail: QueuedMail, is_down: bool) -> Result<(), Death> {
        if !self.life.claimed.contains(&mail.number) {
            let item = postcard::to_stdvec(&mail).unwrap();
            self.append(ClaimEvent::Claim { channel: Channel::Mails, item })?;
            self.life.claimed.insert(mail.number);
        }
        self.step()?;
        if is_down {
            self.life.queue.done(&mail, &MailOutcome::Retry("down".to_owned()), self.now);
            return Ok(());
        }
        self.taken.push(mail.clone());
        // Until its outcome is stored it is under way.
        self.in_flight.push(mail.clone());
        self.step()?;
        let settled = self.life.queue.done(&mail, &MailOutcome::Sent { unfiled: None }, self.now).unwrap();
        self.step()?;
        self.append(ClaimEvent::Outcome { channel: Channel::Mails, number: mail.number, settled })?;
        self.in_flight.pop();
        Ok(())
    }

    fn act(&mut self, event: Happening) -> Result<(), Death> {
        match event {
            Happening::Tick(owed) => self.make(owed),
            Happening::Commit => return self.commit(),
            Happening::Checkpoint => return self.checkpoint(),
            Happening::Time(time, mood) => return self.run(self.now + time, mood),
            Happening::ClockSetBack(time) => self.now = self.now.saturating_sub(time),
            Happening::Death(steps) => self.left = Some(steps),
        }
        Ok(())
    }

    /// Lives on without another death until all is sent.
    fn finish(&mut self) {
        self.left = None;
        let _ = self.commit();
        for _ in 0..2_000 {
            let _ = self.run(self.now + HOUR_MS, 66);
        }
        assert_eq!(self.life.queue.stats().queued, 0);
    }

    /// Compares what was taken with what is owed.
    fn judge(&self) {
        // STEP 1: a mail came once, or again as it was if it was under way.
        let mut mails: Vec<&QueuedMail> = Vec::new();
        let mut again = self.in_flight.clone();
        for mail in &self.taken {
            if mails.contains(&mail) {
                let under_way = again.iter().position(|other| other == mail);
                again.swap_remove(under_way.unwrap_or_else(|| panic!("{} came twice", mail.number)));
            } else {
                mails.push(mail);
            }
        }
        // STEP 2: each transition, and each change, is in one mail to each recipient.
        let mut told: BTreeMap<(Recipient, (Box<str>, u32)), u64> = BTreeMap::new();
        let (mut newest, mut notices, mut uncounted) = (BTreeMap::new(), 0, 0);
        for mail in mails {
            let listed: Vec<(Box<str>, u32)> = match &mail.content {
                MailContent::Single(item) => vec![item.name()],
                MailContent::Digest(items) => {
                    uncounted += items.more + items.more_actions + items.more_quotas;
                    items.names().collect()
                }
                MailContent::Daily(of_day) => {
                    notices += mail.content.count();
                    newest.extend(of_day.lines.iter().map(|(incident, line)| (&**incident, line.seq)));
                    Vec::new()
                }
            };
            for name in listed {
                *told.entry((mail.to.clone(), name)).or_default() += 1;
            }
        }
        let security = Recipient { kind: RecipientKind::Security, address: SECURITY.to_owned() };
        let contact = |kind, address: &str| Recipient { kind, address: address.to_owned() };
        let (mut owed_notices, mut owed_newest) = (0, BTreeMap::new());
        for (item, owner) in self.committed.iter().flat_map(|made| &made.owed) {
            if let MailItem::Incident(transition, _) = item
                && is_notice(transition)
            {
                owed_notices += 1;
                owed_newest.insert(&*transition.incident_id, transition.seq);
                continue;
            }
            let kind = match item {
                MailItem::Incident(..) => Some(RecipientKind::Owner),
                MailItem::Action(notice) => {
                    (notice.state == ActionState::Done).then_some(RecipientKind::Owner)
                }
                MailItem::Gateway(_) => None,
                MailItem::Quota(_) => Some(RecipientKind::Customer),
            };
            let owner = kind.zip(*owner).map(|(kind, owner)| contact(kind, owner));
            let is_for_security = !matches!(item, MailItem::Quota(_));
            for recipient in owner.iter().chain(is_for_security.then_some(&security)) {
                let times = told.remove(&(recipient.clone(), item.name()));
                assert_eq!(times, Some(1), "{item:?} to {recipient:?}");
            }
        }
        assert!(told.is_empty(), "{told:?}");
        assert_eq!((notices, newest, uncounted), (owed_notices, owed_newest, 0));
        // STEP 3: no earlier process can send any more, however long it slept.
        for zombie in &self.zombies {
            let claim =
                zombie.entry(ClaimEvent::Claim { channel: Channel::Mails, item: Vec::new() }, self.now);
            let superseded = loop {
                match zombie.append(&claim) {
                    Err(AppendError::Later(_)) => {}
                    appended => break appended,
                }
            };
            assert!(matches!(superseded, Err(AppendError::Superseded)), "{zombie:?}");
        }
    }
}

#[derive(Clone, Debug)]
enum Happening {
    Tick(Vec<Owed>),
    Commit,
    Checkpoint,
    Time(u64, u8),
    ClockSetBack(u64),
    /// The process dies after so many steps.
    Death(u32),
}

/// What a tick has: so many incidents of an owner, so many notices, and so many changes of actions and quotas of that owner.
#[derive(Clone, Debug)]
enum Drawn {
    Tick(u64, usize, u64, u64, u64),
    Other(Happening),
}

fn happenings() -> impl Strategy<Value = Vec<Drawn>> {
    let other = |happening: Happening| Drawn::Other(happening);
    let drawn = prop_oneof![
        4 => (0..6_u64, 0..3_usize, 0..4_u64, 0..5_u64, 0..4_u64)
            .prop_map(|(count, owner, notices, actions, quotas)| Drawn::Tick(count, owner, notices, actions, quotas)),
        3 => Just(other(Happening::Commit)),
        2 => Just(other(Happening::Checkpoint)),
        3 => (0..3 * MINUTE_MS, any::<u8>()).prop_map(move |(time, mood)| other(Happening::Time(time, mood))),
        1 => (0..20 * HOUR_MS, any::<u8>()).prop_map(move |(time, mood)| other(Happening::Time(time, mood))),
        1 => (0..2 * HOUR_MS).prop_map(move |time| other(Happening::ClockSetBack(time))),
        3 => (0..24_u32).prop_map(move |steps| other(Happening::Death(steps))),
    ];
    prop::collection::vec(drawn, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn every_transition_is_told_once_through_all_lives(happenings in happenings(), storm in 1..12_u32, hour in 1..9_u32) {
        let mut world =
            Lives::new(EmailAlerts { digest_after: storm, per_recipient: hour, per_hour: 2 * hour, ..email() });
        let (mut number, mut seqs) = (0, BTreeMap::new());
        for drawn in happenings {
            let happening = match drawn {
                Drawn::Tick(count, owner, notices, actions, quotas) => {
                    let mut all: Vec<Owed> = Vec::new();
                    for _ in 0..count {
                        all.push(owed(incident(number), OWNERS.get(owner).copied()));
                        number += 1;
                    }
                    for which in 0..notices {
                        let seq: &mut u32 = seqs.entry(which).or_default();
                        all.push(owed(notice(which, *seq), None));
                        *seq += 1;
                    }
                    for which in 0..actions {
                        let state = if which % 2 == 0 { ActionState::Done } else { ActionState::Failed };
                        let item = MailItem::Action(Arc::new(action(number, state)));
                        all.push((item, OWNERS.get(owner).copied()));
                        number += 1;
                    }
                    for seq in 0..quotas {
                        all.push((MailItem::Quota(Arc::new(quota(number, seq))), OWNERS.get(owner).copied()));
                    }
                    number += 1;
                    if actions == 4 {
                        all.push((MailItem::Gateway(Arc::new(gateway(number))), None));
                    }
                    Happening::Tick(all)
                }
                Drawn::Other(happening) => happening,
            };
            if world.act(happening).is_err() {
                world.die();
            }
        }
        world.finish();
        world.judge();
    }
}

#[test]
fn a_digest_that_counts_more_than_it_lists_is_not_told_again_in_other_words() {
    let mut world = Lives::new(email());
    world.make((0..2_500).map(|number| owed(incident(number), None)).collect());
    assert!(world.commit().is_ok());
    world.run(2 * MINUTE_MS, 66).ok().unwrap();
    let digest = world.taken.pop().unwrap();
    assert!(
        matches!(&digest.content, MailContent::Digest(of) if of.more == 500 && of.incidents.len() == 2_000)
    );
    world.make(vec![owed(incident(9_999), None)]);
    assert!(world.commit().is_ok());
    world.die();
    world.run(world.now + DAY_MS, 66).ok().unwrap();
    let seen: Vec<u64> = world.taken.iter().map(|mail| mail.content.count()).collect();
    assert_eq!((seen, world.life.queue.stats().queued), (vec![1], 0), "only what came after it");
}

#[test]
fn limits_of_an_hour_and_of_a_day_and_the_pace_outlive_a_process() {
    let mut world = Lives::new(EmailAlerts { per_recipient: 3, ..email() });
    let minute = |world: &mut Lives, number| {
        world.make(vec![owed(incident(number), None), owed(notice(number, 0), None)]);
        assert!(world.commit().is_ok() && world.run(world.now + MINUTE_MS, 66).is_ok());
    };
    (0..5).for_each(|number| minute(&mut world, number));
    assert_eq!(world.taken.len(), 3);
    for _ in 0..3 {
        assert!(world.checkpoint().is_ok());
        world.die();
        world.run(world.now + 10 * MINUTE_MS, 66).ok().unwrap();
    }
    assert_eq!((world.taken.len(), world.life.queue.stats().limited), (3, 1));
    assert!(world.run(DAY_MS + HOUR_MS, 66).is_ok() && world.taken.len() == 6);
    assert!(matches!(&world.taken[5].content, MailContent::Daily(notices) if notices.lines.len() == 5));
    // The next day's digest comes a day after it.
    let last = world.now;
    minute(&mut world, 7);
    world.die();
    assert!(world.run(last + DAY_MS - 2 * HOUR_MS, 66).is_ok() && world.taken.len() == 7);
    assert!(world.run(last + DAY_MS + HOUR_MS, 66).is_ok() && world.taken.len() == 8);
    world.judge();
}

#[test]
fn addresses_that_the_configuration_no_longer_names_get_no_more_mails() {
    let mut world = Lives::new(email());
    world.make(vec![owed(incident(1), Some(OWNERS[0])), owed(incident(2), None)]);
    assert!(world.commit().is_ok());
    let memory = world.life.queue.memory();
    let other = EmailAlerts { owners: false, ..email() };
    let (queue, dropped) = MailQueue::restore(&other, memory, 0, Box::new(|_| 0));
    assert_eq!((dropped, queue.stats().queued), (1, 2));
}

#[test]
fn rows_of_webhooks_come_once_and_in_order_through_all_lives() {
    for death in 0..24 {
        let disk = Arc::new(Disk { has_faults: true, ..Disk::default() });
        let (mut taken, mut under_way): (Vec<String>, Option<String>) = (Vec::new(), None);
        let mut memory = (0, Vec::new());
        for life in 0..3_u64 {
            let opened = loop {
                if let Ok(opened) = Claims::open(disk.clone(), life, memory.0, 0) {
                    break opened;
                }
            };
            let (claims, entries) = opened;
            let channel = Channel::Webhook("soc".to_owned());
            let wishes = WebhookWishes::from(&nowhere(WebhookFormat::Keytide));
            let earlier: WebhookMemory = postcard::from_bytes(&memory.1).unwrap_or_default();
            let mut queue = WebhookQueue::restore(wishes, earlier, 0, Box::new(|_| 0));
            go_on(&mut queue, &channel, &entries, 0).unwrap();
            // The ticks since the checkpoint, which comes after tick 3.
            let is_first = memory.1.is_empty();
            let push = |queue: &mut WebhookQueue, tick: u64| {
                let json = Arc::from(&b"{}"[..]);
                match tick % 2 {
                    0 => queue.push(&incident(tick), None, json, tick),
                    _ => queue.push_quota(&quota(tick, 1), json, tick),
                }
            };
            for tick in if is_first { 0..3 } else { 3..8_u64 } {
                push(&mut queue, tick);
            }
            let mut steps = 0;
            let mut dies = || {
                steps += 1;
                steps > death && life < 2
            };
            let append = |event| {
                let entry = claims.entry(event, 0);
                while claims.append(&entry).is_err() {}
            };
            if is_first {
                memory = (claims.position(), postcard::to_stdvec(&queue.memory()).unwrap());
                (3..8).for_each(|tick| push(&mut queue, tick));
            }
            while let NextStep::Do(batch) = queue.next(0) {
                if dies() {
                    break;
                }
                let item = postcard::to_stdvec(&batch).unwrap();
                append(ClaimEvent::Claim { channel: channel.clone(), item });
                if dies() {
                    break;
                }
                match under_way.take() {
                    // It came before, and nothing else comes before it again.
                    Some(id) => assert_eq!(id, batch.batch.id),
                    None => taken.push(batch.batch.id.clone()),
                }
                let settled = queue.done(&batch, &WebhookOutcome::Sent, 0).unwrap();
                if dies() {
                    under_way = Some(batch.batch.id.clone());
                    break;
                }
                append(ClaimEvent::Outcome { channel: channel.clone(), number: batch.number, settled });
            }
        }
        let id = |tick: u64| match tick % 2 {
            0 => format!("{tick:032x}.0"),
            _ => format!("quota-{}.1", quota(tick, 1).quota_id()),
        };
        let expected: Vec<String> = (0..8).map(id).collect();
        assert_eq!(taken, expected, "died after {death} steps");
    }
}

/// The clock of the tests with threads.
fn clock() -> WallClock {
    Arc::new(|| 1_795_269_960_000)
}

/// A webhook that no one serves.
fn nowhere(format: WebhookFormat) -> Webhook {
    Webhook {
        name: "nowhere".to_owned(),
        url: WebhookUrl { tls: false, host: "127.0.0.1".to_owned(), port: 9, target: Secret::new("/") },
        secret: None,
        format,
        incidents: true,
        quota_notices: true,
        allow_private: Vec::new(),
        timeout_ms: 1_000,
    }
}

/// An outbox that writes mails to a folder, and asks a webhook that no one serves.
fn outbox(folder: &std::path::Path, disk: &Arc<Disk>, memory: OutboxMemory, life: u64) -> Outbox {
    let email = EmailAlerts { dir: Some(folder.to_owned()), owners: false, ..email() };
    let webhooks = vec![nowhere(WebhookFormat::Keytide)];
    let config = keytide_config::Alerts { email: Some(email), webhooks, ..Default::default() };
    let store: Arc<dyn ClaimStore> = disk.clone();
    Outbox::resume(&config, &[], clock(), memory, (store, life)).unwrap()
}

fn notices(number: u64) -> Vec<Notice> {
    let row = TransitionJson { policy: Some("alert".to_owned()), ..incident(number) };
    vec![Notice { json: serde_json::to_vec(&row).unwrap(), contacts: Vec::new(), actions: Vec::new() }]
}

fn mails(folder: &std::path::Path) -> BTreeMap<std::ffi::OsString, Vec<u8>> {
    let read = |path: std::path::PathBuf| {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::fs::File::open(path).unwrap(), &mut bytes).unwrap();
        bytes
    };
    let files = folder.read_dir().into_iter().flatten().map(|file| file.unwrap());
    files.map(|file| (file.file_name(), read(file.path()))).collect()
}

#[test]
fn an_outbox_keeps_what_waits_and_sends_the_mail_under_way_again_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(Disk::default());
    let alerts = outbox(folder.path(), &disk, OutboxMemory::default(), 1);
    let memory = alerts.memory(vec![(1_795_269_000_000, notices(1).into())]);
    let bytes = postcard::to_stdvec(&memory).unwrap();
    assert_eq!(memory, postcard::from_bytes(&bytes).unwrap());
    alerts.notify(1_795_269_000_000, notices(1));
    // The webhook has nobody behind it, so that its request is left.
    assert_eq!(alerts.stop(Duration::from_secs(600)), 1);
    let sent = mails(folder.path());
    assert_eq!(sent.len(), 1);

    // With its outcome the mail isn't sent again, and without it is. The date is that of the tick.
    for is_settled in [true, false] {
        sent.keys().for_each(|file| std::fs::remove_file(folder.path().join(file)).unwrap());
        if !is_settled {
            let is_outcome = |bytes: &Vec<u8>| {
                let entry: ClaimEntry = postcard::from_bytes(bytes).unwrap();
                matches!(entry.event, ClaimEvent::Outcome { .. })
            };
            let mut entries = disk.entries();
            // Entries of later lives go, too, since numbers have no gap.
            let outcome = entries.iter().find(|(_, bytes)| is_outcome(bytes)).map(|(number, _)| *number);
            entries.split_off(&outcome.unwrap());
        }
        let memory = postcard::from_bytes(&bytes).unwrap();
        let alerts = outbox(folder.path(), &disk, memory, 2 + u64::from(is_settled));
        assert_eq!(alerts.stop(Duration::from_secs(600)), 1, "the request");
        let again = mails(folder.path());
        assert_eq!(again, if is_settled { BTreeMap::new() } else { sent.clone() });
        if is_settled {
            sent.iter().for_each(|(file, bytes)| std::fs::write(folder.path().join(file), bytes).unwrap());
        }
    }
}

#[test]
fn a_notice_about_a_quota_that_waits_in_a_checkpoint_is_told_once_by_the_lives_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(Disk::default());
    let json = serde_json::to_string(&quota(1, 1)).unwrap();
    let quotas = vec![QuotaAlert { json, contacts: OWNERS.map(str::to_owned).into() }];
    let first = outbox(folder.path(), &disk, OutboxMemory::default(), 1);
    let waiting = vec![(1_795_269_000_000, TickNotices { quotas, ..TickNotices::default() })];
    let memory = postcard::to_stdvec(&first.memory(waiting)).unwrap();
    assert_eq!((first.stop(Duration::from_secs(600)), mails(folder.path()).len()), (0, 0));
    for life in 2..4 {
        let next = outbox(folder.path(), &disk, postcard::from_bytes(&memory).unwrap(), life);
        assert_eq!(next.stop(Duration::from_secs(600)), 1, "only the request is left");
        let sent = mails(folder.path());
        assert_eq!(sent.len(), if life == 2 { OWNERS.len() } else { 0 });
        sent.keys().for_each(|file| std::fs::remove_file(folder.path().join(file)).unwrap());
    }
}

#[test]
fn while_the_store_is_away_mails_wait_and_a_process_whose_job_is_gone_sends_none() {
    let folder = tempfile::tempdir().unwrap();
    let disk = Arc::new(Disk::default());
    let old = outbox(folder.path(), &disk, OutboxMemory::default(), 1);
    let new = outbox(folder.path(), &disk, OutboxMemory::default(), 2);
    old.notify(1_795_269_000_000, notices(1));
    assert_eq!(old.stop(Duration::from_secs(600)), 2);
    assert_eq!(mails(folder.path()).len(), 0);
    disk.is_away.store(true, std::sync::atomic::Ordering::Release);
    new.notify(1_795_269_000_000, notices(1));
    let monitor = new.monitor();
    while !monitor.stats().mails.unwrap().blocked {
        thread::yield_now();
    }
    assert_eq!(mails(folder.path()).len(), 0);
    disk.is_away.store(false, std::sync::atomic::Ordering::Release);
    assert_eq!(new.stop(Duration::from_secs(600)), 1, "only the request is left");
    assert_eq!(mails(folder.path()).len(), 1);
    assert!(!monitor.stats().mails.unwrap().blocked);
}

#[test]
fn entries_of_another_format_are_refused_and_old_lives_are_deleted() {
    let disk = Arc::new(Disk::default());
    for life in 0..100 {
        // The checkpoints are younger than all but the last ten entries.
        let (claims, entries) = Claims::open(disk.clone(), life, life.saturating_sub(10), 0).unwrap();
        assert_eq!((entries.len() as u64, claims.position()), (life.min(10), life + 1));
        assert!(disk.entries().len() <= 65, "64 lives, and the entry before the first of them");
    }
    let mut entry = disk.entries().last_key_value().unwrap().1.clone();
    entry[0] = 9;
    disk.entries().insert(100, entry);
    let error = Claims::open(disk, 7, 0, 0).unwrap_err().to_string();
    assert!(error.contains("entry 100 of the outbox has format 9"), "{error}");
    let email = EmailAlerts { dir: None, ..email() };
    let config = keytide_config::Alerts { email: Some(email), ..Default::default() };
    let memory = OutboxMemory { format: 9, ..OutboxMemory::default() };
    let store: Arc<dyn ClaimStore> = Arc::new(Disk::default());
    let error = Outbox::resume(&config, &[], clock(), memory, (store, 1)).unwrap_err().to_string();
    assert!(error.contains("the outbox of the checkpoint has format 9"), "{error}");
}

#[test]
fn the_format_of_entries_and_memories_is_that_of_its_version() {
    // If this fails and no sample was changed, rows or memories were: count FORMAT up.
    let mut queue = MailQueue::new(&email(), Box::new(|_| 0));
    queue.push(incident(1), None, &[], 2, 3);
    queue.push(notice(1, 0), None, &[], 2, 3);
    let single = match queue.next(4) {
        NextStep::Do(mail) => postcard::to_stdvec(&mail).unwrap(),
        NextStep::Wait(until) => panic!("{until:?}"),
    };
    let memory = OutboxMemory { mails: Some(queue.memory()), ..OutboxMemory::default() };
    let memory = postcard::to_stdvec(&memory).unwrap();
    let digest =
        |bytes: &[u8]| keytide_dataflow::model::hex(&<sha2::Sha256 as sha2::Digest>::digest(bytes)[..8]);
    assert_eq!(
        (FORMAT, digest(&single), digest(&memory)),
        (4, "93cecdf34e252d22".to_owned(), "ddb424c8f1897da3".to_owned())
    );
}
