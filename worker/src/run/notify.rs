//! Notifications of incidents and actions, and actions on keys: they are decided while a tick is published. Mails go out
//! and gateways act once it is acknowledged, or committed if there is a ledger.
//!
//! A mail must not name rows that can't be looked up, so a tick's notices wait until all of its rows are acknowledged.
//! The sinks bound how many wait: when their buffers are full, the next tick isn't published.
//!
//! A job with `[state]` keeps what waits in its checkpoints, and what it sends in the folder `outbox` of its store. So the
//! next life of the job sends the rest, and nothing again. Without a state, notices that wait when a job fails are never
//! sent; a job that is started next makes the same incidents again.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use keytide_alerts::actions::{
    ActionCounts, ActionEngine, ActionMemory, ActionNotices, ActionOrigin, ActionRecord, Reply,
};
use keytide_alerts::gateways::{GatewayContext, Orders, RequestedAction, RunningGateway};
use keytide_alerts::outbox::{
    ClaimStore, Claims, EntryKind, Outbox, OutboxError, OutboxMemory, OutboxMonitor, StoreFault, TickNotices,
};
use keytide_config::{JobConfig, KeyHash, PolicyMode, Source};
use keytide_connectors::fail_point::fail_point;
use keytide_connectors::sink::names::Names;
use keytide_connectors::sink::{TickAlerts, TickFacts};
use keytide_connectors::store::{NumberedObject, Store, StoreError};
use keytide_dataflow::model::{KeyId, KeyState, Tick};
use keytide_dataflow::{
    Action, ActionId, ActionInput, ActionRows, DenialState, Revocation, SuspectedLeak, Transition,
};

use super::Clock;
use super::actions::{ActionBoard, BoardContent};
use crate::serve::ledger::QuotaLedger;

/// How long the end of a job waits for mails and webhooks.
const LAST_MAILS: Duration = Duration::from_secs(10);

/// The claims of the outbox in the store of a job.
struct StoredClaims(Arc<Store>);

impl ClaimStore for StoredClaims {
    fn numbers(&self) -> Result<Vec<u64>, StoreFault> {
        Ok(self.0.outbox_numbers()?)
    }

    fn get(&self, number: u64) -> Result<Option<Vec<u8>>, StoreFault> {
        match self.0.get_record(NumberedObject::OutboxEntry(number)) {
            Err(error @ StoreError::Damaged { .. }) => {
                tracing::warn!("{error}; what it tells of may be sent again");
                Ok(None)
            }
            read => Ok(read?),
        }
    }

    fn put(&self, number: u64, kind: EntryKind, bytes: Vec<u8>) -> Result<bool, StoreFault> {
        let reach = |of_claim, of_outcome| match kind {
            EntryKind::Life => {}
            EntryKind::Claim => fail_point(of_claim),
            EntryKind::Outcome => fail_point(of_outcome),
        };
        reach("claim-before", "outcome-before");
        let is_new = self.0.put_record(NumberedObject::OutboxEntry(number), bytes)?;
        reach("claim-after", "outcome-after");
        Ok(is_new)
    }

    fn delete(&self, number: u64) -> Result<(), StoreFault> {
        Ok(self.0.delete_record(NumberedObject::OutboxEntry(number))?)
    }
}

/// The store of a job for its outbox, with a random number that tells this life of the job from all others.
pub(super) type OutboxStore = (Arc<Store>, u64);

/// The memory of what is decided and sent, after a tick.
#[derive(Clone, Debug, Default)]
pub(super) struct AlertMemory {
    pub(super) actions: ActionMemory,
    pub(super) outbox: OutboxMemory,
}

/// The numbers of actions after the last tick that was published; `None` before that.
pub(super) type ActionMonitor = Arc<Mutex<Option<ActionCounts>>>;

/// What a tick changed about actions.
struct News {
    counts: ActionCounts,
    /// What each gateway is to do since, in their order; `None` if that didn't change.
    orders: Option<Vec<Orders>>,
    /// The keys that are to be refused since; `None` if that didn't change, or if nobody asks.
    denied: Option<BTreeMap<KeyId, KeyState>>,
    content: Option<Arc<BoardContent>>,
    replies: Vec<(u64, Reply)>,
}

/// Decides about incidents, notifies of them, and gives gateways their orders.
pub(super) struct Notifier {
    actions: ActionEngine,
    /// The gateways of the job that need orders.
    gateways: Vec<RunningGateway>,
    counts: ActionMonitor,
    /// What people see, if they may answer.
    board: Option<ActionBoard>,
    /// The news of ticks that aren't published, in the order of these.
    news: VecDeque<(Tick, News)>,
    /// The newest orders of published ticks that the gateways haven't got, in their order.
    due: Vec<Orders>,
    /// The newest content of published ticks that people don't see yet.
    due_content: Option<Arc<BoardContent>>,
    /// The ledger from which gateways are answered, if the job has `[api]`, and the newest keys that it is to deny.
    quotas: Option<Arc<QuotaLedger>>,
    due_denied: Option<BTreeMap<KeyId, KeyState>>,
    /// True once a tick was decided, after which only changes are ordered.
    has_decided: bool,
    alerts: Outbox,
    /// What people are told of the actions of the tick that was decided last.
    decided: DecidedTick,
    /// Notices of ticks that aren't published, in the order of these.
    waiting: VecDeque<(Tick, TickNotices)>,
}

/// What people are told of a tick that was decided, until its rows are written.
#[derive(Default)]
struct DecidedTick {
    actions: ActionNotices,
    /// What is done about the key of each transition, in their order.
    standing: Vec<Option<Revocation>>,
}

impl Notifier {
    /// Sets up policy, mails and webhooks as configured. They go on with the `memory` of an earlier life, and with what is
    /// in its store.
    ///
    /// # Errors
    /// If mails or webhooks can't be set up, or the store can't be used.
    pub(super) fn open(
        config: &JobConfig,
        clock: Clock,
        memory: AlertMemory,
        store: Option<OutboxStore>,
        (reports, board): (Sender<ActionInput>, Option<ActionBoard>),
    ) -> Result<Self, OutboxError> {
        let AlertMemory { actions, outbox } = memory;
        let (alerts, sources, clock) = (&config.alerts, &config.sources, Arc::new(clock));
        let alerts = match store {
            None => Outbox::open(alerts, sources, clock.clone())?,
            Some((store, life)) => {
                let store = Arc::new(StoredClaims(store));
                Outbox::resume(alerts, sources, clock.clone(), outbox, (store, life))?
            }
        };
        let context = GatewayContext { claims: alerts.claims(), reports, clock, hashes: hashes(sources) };
        let mut gateways = Vec::new();
        for gateway in config.gateways.iter().filter(|gateway| gateway.mode == PolicyMode::Live) {
            let running = RunningGateway::start(gateway, context.clone());
            let name = || gateway.name.clone();
            gateways.extend(running.map_err(|error| OutboxError::Gateway { name: name(), error })?);
        }
        Ok(Self {
            actions: ActionEngine::restore(config.alerts.policy, &config.gateways, actions),
            gateways,
            counts: ActionMonitor::default(),
            board,
            news: VecDeque::new(),
            due: Vec::new(),
            due_content: None,
            quotas: None,
            due_denied: None,
            has_decided: false,
            alerts,
            decided: DecidedTick::default(),
            waiting: VecDeque::new(),
        })
    }

    /// Has the keys that are to be refused denied by the ledger, too.
    pub(super) fn deny_in(&mut self, quotas: &Arc<QuotaLedger>) {
        self.quotas = Some(Arc::clone(quotas));
    }

    /// Returns the memory after the ticks that were published and kept.
    pub(super) fn memory(&self) -> AlertMemory {
        let waiting = self.waiting.iter().cloned().collect();
        AlertMemory { actions: self.actions.memory().clone(), outbox: self.alerts.memory(waiting) }
    }

    /// Returns the claims of what is sent, if the job has a store.
    pub(super) fn claims(&self) -> Option<Arc<Claims>> {
        self.alerts.claims()
    }

    /// Returns the counters of mails and webhooks.
    pub(super) fn monitor(&self) -> OutboxMonitor {
        self.alerts.monitor()
    }

    /// Returns the numbers of actions, as they will be.
    pub(super) fn action_monitor(&self) -> ActionMonitor {
        Arc::clone(&self.counts)
    }

    /// Returns the rows about actions that a tick leads to.
    pub(super) fn decide(&mut self, tick: Tick, facts: TickFacts<'_>) -> ActionRows {
        let TickFacts { transitions, inputs, usage, names } = facts;
        self.actions.hear(usage);
        let (rows, replies) =
            self.actions.fold(tick, inputs, transitions, &|key| names.key_text(key).into_owned());
        let actions = self.actions.notices(tick, &rows, &|id| names.text(id).to_owned());
        let memory = self.actions.memory();
        let standing = |transition: &Transition| {
            let leak = SuspectedLeak { incident: transition.incident.id, key: transition.incident.key };
            memory.standing(leak).map(|record| record.row.clone())
        };
        self.decided = DecidedTick { actions, standing: transitions.iter().map(standing).collect() };
        let is_first = !std::mem::replace(&mut self.has_decided, true);
        if is_first || !rows.audit.is_empty() || !replies.is_empty() || !transitions.is_empty() {
            let memory = self.actions.memory();
            // Each change of an action has an entry of the audit.
            let is_changed = is_first || !rows.audit.is_empty();
            let news = News {
                counts: memory.counts(),
                orders: is_changed.then(|| self.orders(names)),
                denied: self.quotas.as_ref().filter(|_| is_changed).map(|_| denied_keys(memory)),
                content: self.board.as_ref().map(|_| {
                    let requested = self.requested();
                    Arc::new(BoardContent { requested, ..BoardContent::of(memory) })
                }),
                replies,
            };
            self.news.push_back((tick, news));
        }
        rows
    }

    /// Returns what each gateway is to do, in their order.
    fn orders(&self, names: &Names) -> Vec<Orders> {
        let denied = Arc::new(self.actions.memory().deny_list());
        let of = |gateway: &RunningGateway| {
            let requested = self.actions.requested_of(gateway.name());
            let requested = requested.map(|record| requested_action(record, names)).collect();
            Orders { denied: Arc::clone(&denied), requested }
        };
        self.gateways.iter().map(of).collect()
    }

    /// Returns the actions that are requested, each with the gateway that is to do it.
    fn requested(&self) -> HashMap<ActionId, String> {
        let names = self.gateways.iter().map(RunningGateway::name);
        let of = |name| self.actions.requested_of(name).map(move |record| (record.row.id, name.to_owned()));
        names.flat_map(of).collect()
    }

    /// Keeps the notices of the tick that was decided last until it is published. Those of transitions are in the order
    /// of these.
    pub(super) fn keep(&mut self, tick: Tick, alerts: TickAlerts) {
        let TickAlerts { mut incidents, quotas } = alerts;
        let DecidedTick { actions, standing } = std::mem::take(&mut self.decided);
        for (notice, standing) in incidents.iter_mut().zip(standing) {
            notice.actions = standing.into_iter().collect();
        }
        let notices = TickNotices { incidents, actions, quotas };
        if !notices.is_empty() {
            self.waiting.push_back((tick, notices));
        }
    }

    /// Notifies of all ticks up to this one, replies to people, and gives gateways their orders. Neither gateways nor
    /// people get anything for a tick that is made again: they would go back to what was right then.
    pub(super) fn published(&mut self, tick: Tick, is_replay: bool) {
        let mut told = Vec::new();
        while let Some((_, news)) = self.news.pop_front_if(|(of, _)| *of <= tick) {
            let News { counts, orders, denied, content, replies } = news;
            self.due_denied = denied.or(self.due_denied.take());
            *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = Some(counts);
            self.due = orders.unwrap_or_else(|| std::mem::take(&mut self.due));
            self.due_content = content.or(self.due_content.take());
            told.extend(replies);
        }
        if !is_replay {
            if let Some(board) = &self.board {
                board.publish(self.due_content.take(), told);
            }
            if let Some((quotas, denied)) = self.quotas.as_ref().zip(self.due_denied.take()) {
                quotas.deny_only(denied);
            }
            let due = self.gateways.iter().zip(std::mem::take(&mut self.due));
            due.for_each(|(gateway, orders)| gateway.order(orders));
        }
        while let Some((of, notices)) = self.waiting.pop_front_if(|(waiting, _)| *waiting <= tick) {
            self.alerts.notify(of, notices);
        }
    }

    /// Sends waiting mails for at most [`LAST_MAILS`], and logs how many are left.
    pub(super) fn stop(self) {
        drop(self.gateways);
        let is_kept = self.alerts.claims().is_some();
        let left = self.alerts.stop(LAST_MAILS);
        if left > 0 && is_kept {
            tracing::info!(
                transitions = left,
                "mails and webhooks that wait are in the state: the next start sends them"
            );
        } else if left > 0 {
            tracing::error!(
                transitions = left,
                "the job ends before all mails and webhooks went out: the view incident_log has what they would tell"
            );
        }
    }
}

/// Returns the keys that are to be refused.
fn denied_keys(memory: &ActionMemory) -> BTreeMap<KeyId, KeyState> {
    let state = |state| match state {
        DenialState::Suspended => KeyState::Suspended,
        DenialState::Revoked => KeyState::Revoked,
    };
    memory.denied().map(|(key, denied)| (key, state(denied))).collect()
}

/// Returns how sources make ids of keys, each way once.
fn hashes(sources: &[Source]) -> Vec<KeyHash> {
    let mut hashes: Vec<KeyHash> = Vec::new();
    for source in sources {
        if !hashes.contains(&source.keys.hash) {
            hashes.push(source.keys.hash.clone());
        }
    }
    hashes
}

/// Returns an action as its gateway needs it.
fn requested_action(record: &ActionRecord, names: &Names) -> RequestedAction {
    let ActionRecord { row, origin, .. } = record;
    let ActionOrigin { place, follows, .. } = origin;
    RequestedAction {
        id: row.id,
        request: record.request(),
        action: row.action,
        key: row.key,
        key_id: row.key_id.clone(),
        incident: row.incident,
        why: row.reason.clone(),
        consumer: names.text(place.consumer).to_owned(),
        credential: names.text(place.credential).to_owned(),
        undo: follows.filter(|_| row.action == Action::Reinstate),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc::channel;

    use keytide_alerts::QuotaNoticeRow;
    use keytide_billing::{Forecast, Measure, PeriodKind, QuotaStanding};
    use keytide_connectors::sink::encode::{EncodeRow as _, Labels};
    use keytide_dataflow::model::{Definition, NameId};
    use keytide_dataflow::{AnswerTarget, Notice, PersonAnswer, QuotaAlert, QuotaKey, QuotaNotice, Verb};

    use super::*;

    const ROW: &str = r#"{"incident_id":"0000000000000000000000000000feed","seq":0,"transition":"opened","at":"2025-06-02T08:01:00Z","reason":null,"early":false,"repeat":false,"catching_up":false,"key_id":"0123456789abcdef0123456789abcdef","subscription":null,"customer":null,"plan":null,"policy":"alert","key_state":"active","level":"alert","score":97,"state":"open","opened_at":"2025-06-02T08:00:00Z","last_signal_at":"2025-06-02T08:01:00Z","ended_at":null,"signals":[],"evidence":{"calls":1,"known_since":"2025-06-01T08:00:00Z","known_calls":9,"traffic":[],"samples":[],"taken":{"from_new":0,"usual":0,"bytes_out":0,"routes":0,"methods":[],"statuses":[],"top_routes":[]},"usual":[],"other_keys":[],"earlier":[],"config":"0011223344556677"},"reopenings":0,"platform_event":false,"detector_version":1}"#;

    fn open(folder: &Path) -> Notifier {
        open_with(folder, "")
    }

    /// A notifier with mails to a folder and more settings of these.
    fn open_with(folder: &Path, settings: &str) -> Notifier {
        let text = "[[source]]\nname = \"s\"\nkind = \"kafka\"\nbrokers = \"b:1\"\ntopic = \"t\"\nformat = \"apisix\"\n\
                    [alerts.email]\ndir = \"mails\"\nfrom = \"keytide@example.com\"\nto = [\"security@example.com\"]\n";
        let loaded = JobConfig::parse(&format!("{text}{settings}"), folder, std::iter::empty()).unwrap();
        Notifier::open(&loaded.job, || 0, AlertMemory::default(), None, (channel().0, None)).unwrap()
    }

    /// Decides about a tick in which somebody paused or resumed actions.
    fn decide(notifier: &mut Notifier, tick: Tick, verb: Verb) {
        let (target, who, why) = (AnswerTarget::Policy, "alice".to_owned(), "storm".to_owned());
        let answer = PersonAnswer { request: tick, verb, target, until_ms: 0, who, why, at_ms: tick };
        let inputs = [ActionInput::Answer(answer)];
        let names = Names::default();
        notifier.decide(tick, TickFacts { transitions: &[], inputs: &inputs, usage: &[], names: &names });
    }

    fn notice() -> TickAlerts {
        let notice = Notice { json: ROW.into(), contacts: Vec::new(), actions: Vec::new() };
        TickAlerts { incidents: vec![notice], ..TickAlerts::default() }
    }

    /// A row of `notices` as the sinks write it.
    fn notice_row(notice: &QuotaNotice) -> String {
        let mut names = Names::default();
        for text in ["sub \"1\"", "acme", "gold", "Asia/Seoul"] {
            names.define(Definition::Name { id: NameId::new(text), text: text.into() });
        }
        let mut line = Vec::new();
        notice.line(&mut Labels::new(&names), &mut line);
        String::from_utf8(line).unwrap()
    }

    fn quota_notice() -> QuotaNotice {
        let key = QuotaKey {
            subscription: NameId::new("sub \"1\""),
            measure: Measure::Cost,
            period: PeriodKind::Billing,
            start_ms: 1_748_736_000_000,
        };
        let standing = QuotaStanding {
            limit: 1_000,
            used: 800,
            remaining: 200,
            permille: 800,
            hard: true,
            resets_at_ms: 1_751_328_000_000,
        };
        let runs_out_at_ms = Some(1_749_000_000_000);
        QuotaNotice {
            key,
            seq: 3,
            percent: 80,
            standing,
            at_ms: 1_748_900_000_000,
            is_highest: true,
            forecast: Some(Forecast { expected: 1_200, low: 1_100, high: 1_300, runs_out_at_ms }),
            currency: "EUR".parse().ok(),
            customer: NameId::new("acme"),
            plan: NameId::new("gold"),
            contacts: NameId::NONE,
            time_zone: NameId::new("Asia/Seoul"),
        }
    }

    #[test]
    fn alerts_read_rows_of_notices_as_the_sinks_write_them() {
        let read =
            |notice: &QuotaNotice| -> QuotaNoticeRow { serde_json::from_str(&notice_row(notice)).unwrap() };
        let text = |text: &str| Some(text.to_owned());
        let row = QuotaNoticeRow {
            subscription: "sub \"1\"".to_owned(),
            seq: 3,
            metric: "cost".to_owned(),
            period: "billing".to_owned(),
            period_start: "2025-06-01T00:00:00Z".to_owned(),
            percent: 80,
            limit: 1_000,
            used: 800,
            remaining: 200,
            permille: 800,
            hard: true,
            resets_at: "2025-07-01T00:00:00Z".to_owned(),
            at: "2025-06-02T21:33:20Z".to_owned(),
            expected: Some(1_200),
            low: Some(1_100),
            high: Some(1_300),
            runs_out_at: text("2025-06-04T01:20:00Z"),
            currency: text("EUR"),
            customer: text("acme"),
            plan: text("gold"),
            time_zone: text("Asia/Seoul"),
        };
        let notice = quota_notice();
        assert_eq!(read(&notice), row);
        // Use has more bits than a row shows.
        let standing = QuotaStanding { used: u128::MAX, permille: u64::MAX, remaining: 0, ..notice.standing };
        let (customer, plan, time_zone) = (NameId::NONE, NameId::NONE, NameId::NONE);
        let least =
            QuotaNotice { standing, forecast: None, currency: None, customer, plan, time_zone, ..notice };
        let (expected, low, high, runs_out_at, currency) = (None, None, None, None, None);
        let (used, permille, remaining) = (u64::MAX, u64::MAX, 0);
        let row =
            QuotaNoticeRow { expected, low, high, runs_out_at, currency, used, permille, remaining, ..row };
        assert_eq!(read(&least), QuotaNoticeRow { customer: None, plan: None, time_zone: None, ..row });
    }

    #[test]
    fn contacts_are_told_of_a_quota_once_its_tick_is_published() {
        for (setting, expected) in [("", 0), ("quota_notices = true\n", 1)] {
            let folder = tempfile::tempdir().unwrap();
            let mut notifier = open_with(folder.path(), setting);
            let contacts = vec!["billing@example.com".to_owned()];
            let quotas = vec![QuotaAlert { json: notice_row(&quota_notice()), contacts }];
            notifier.keep(5, TickAlerts { quotas, ..TickAlerts::default() });
            notifier.published(4, false);
            assert_ne!(notifier.memory().outbox, notifier.alerts.memory(Vec::new()), "it waits");
            notifier.published(5, false);
            notifier.stop();
            assert_eq!(mails(folder.path()), expected);
        }
    }

    fn mails(folder: &Path) -> usize {
        std::fs::read_dir(folder.join("mails")).map_or(0, Iterator::count)
    }

    #[test]
    fn no_notification_precedes_the_tick_being_published() {
        let folder = tempfile::tempdir().unwrap();
        let mut notifier = open(folder.path());
        notifier.keep(5, notice());
        notifier.published(4, false);
        notifier.stop();
        assert_eq!(mails(folder.path()), 0);

        let mut notifier = open(folder.path());
        notifier.keep(4, notice());
        notifier.published(4, false);
        notifier.published(9, false);
        notifier.stop();
        assert_eq!(mails(folder.path()), 1);
    }

    #[test]
    fn people_see_nothing_of_ticks_that_are_made_again_and_then_the_newest() {
        let folder = tempfile::tempdir().unwrap();
        let mut notifier = open(folder.path());
        let board = ActionBoard::new(|| 0, channel().0, 0);
        notifier.board = Some(board.clone());
        let is_paused = || board.content().map(|content| content.actions.paused.is_some());
        for (tick, verb) in [(1, Verb::Pause), (2, Verb::Resume), (3, Verb::Pause)] {
            decide(&mut notifier, tick, verb);
            notifier.published(tick, true);
            assert_eq!(is_paused(), None, "tick {tick} is made again");
        }
        // The first tick of this life changes nothing, and shows what the ticks before it led to.
        notifier.published(4, false);
        assert_eq!(is_paused(), Some(true));
        decide(&mut notifier, 5, Verb::Resume);
        assert_eq!(is_paused(), Some(true), "not before the tick is committed");
        notifier.published(5, false);
        assert_eq!(is_paused(), Some(false));
    }
}
