//! Builds the whole graph, which no other file knows.
//!
//! ```text
//!  events --by request--> dedupe --by key--> admission --> usage + bookings --> sum --> subscription_usage --> rows
//!                           |                  ^     |          ^                               ^
//!                           |routes  decisions |     |          | owners                        | infos
//!                           +--by route--> routes    |          +----+----> usage_by_route      |
//!                                            ^       |               |      --> rows            |
//!                                            |       +--> geo, callers, latency by key --> rows |
//!                                            |       +--> partials --by route--> callers, latency by route --> rows
//!  definitions --of routes-------------------+                       |                          |
//!              --of keys--> admission                                |                          |
//!              --of user agents, and observed agents--> agents        |                          |
//!              --others--> strings                                   |                          |
//!  tables --by row--> assignments, table_rows --> joins -------------+--------------------------+
//!  control --> every operator                       +--owners--> admission, profiles
//!
//!  events by key after admission --> profiles --reports, all to one worker--> incidents --> transitions, rows
//!  rows of keys and of reported leaks --^      plans, contacts, reported leaks --^
//!  decisions of people -----------------^----------------------------------------^
//!
//!  changes of subscription_usage, additions of bookings --by subscription--> accounts --> rows
//!  rows of subscriptions, and to all workers of plans, prices, quotas ----------^
//! ```
//!
//! Events travel twice: to the worker of their request, then to that of their key. Those of the key `overflow` travel
//! once more. Afterwards all operators share the same batches.

use std::cell::RefCell;
use std::rc::Rc;

use differential_dataflow::AsCollection;
use hashbrown::HashMap;
use timely::dataflow::channels::pact::{Exchange, Pipeline};
use timely::dataflow::operators::generic::Operator;
use timely::dataflow::operators::generic::operator::empty;
use timely::dataflow::operators::rc::SharedStream;
use timely::dataflow::operators::vec::{Filter, Map};
use timely::dataflow::operators::{Concat as _, Input, Probe};
use timely::dataflow::{InputHandleVec, ProbeHandle, Scope, Stream, StreamVec};

use crate::action::DecisionRow;
use crate::detect::Tuning;
use crate::model::{
    AccessEvent, Definition, NameId, Owner, QuotaHolder, TableChange, TableRow, Tick, TickInfo,
};
use crate::operators::accounts::account::AccountOptions;
use crate::operators::accounts::plans::{PlanChange, PlanTableRow};
use crate::operators::accounts::{self, AccountChange, AccountSettings, Accounts};
use crate::operators::admission::{self, Admission, AdmissionChange};
use crate::operators::agents::{self, AdmittedAgents, AgentDecision, ObservedAgent};
use crate::operators::assignments::Assignments;
use crate::operators::bookings::{Booked, Booking, Bookings, BookingsChange, FOR_ACCOUNTS, HOURS};
use crate::operators::callers::CallersMetric;
use crate::operators::dedupe::{self, SeenRequests};
use crate::operators::definitions::{self, Definitions};
use crate::operators::geo::GeoMetric;
use crate::operators::incidents::{self, Incidents};
use crate::operators::latency::{LatencyMetric, OfKey, OfRoute};
use crate::operators::parts::by_tick::{Closing, SharedOutput, Shell};
use crate::operators::parts::context::RowContext;
use crate::operators::parts::group::Group;
use crate::operators::parts::owners::OwnerChange;
use crate::operators::parts::report::ProfileReport;
use crate::operators::parts::zones::calendar;
use crate::operators::profiles::{self, Profiles};
use crate::operators::routes::{self, AdmittedRoutes, ObservedRoute, RouteDecision};
use crate::operators::subscription_usage::{
    self, InfoChange, SubscriptionChange, SubscriptionUsageMetric, UseChange,
};
use crate::operators::table_rows::{self, TableRows};
use crate::operators::usage::{ByRoute, UsageMetric};
use crate::operators::windowed::{
    Metric, MetricSettings, Partial, Publish, Windowed, fold_events, fold_partials, partials,
};
use crate::row::{Output, SubscriptionInfo};
use crate::state::{Registered, Registry, RestoreError, Snapshot, States};

/// The options that the dataflow is built with.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub windows: keytide_config::Windows,
    pub limits: keytide_config::Limits,
    /// Decides when rows are published.
    pub publish: Publish,
    pub detection: DetectorOptions,
    pub accounts: AccountOptions,
}

/// The options of the leak detector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DetectorOptions {
    pub enabled: bool,
    /// True if the score of every window is published, not only incidents.
    pub scores: bool,
    /// How long a window stays open behind the watermark, in ms.
    pub grace_ms: u64,
    pub tuning: Tuning,
}

impl From<&keytide_config::Detection> for DetectorOptions {
    fn from(config: &keytide_config::Detection) -> Self {
        Self { enabled: config.enabled, grace_ms: config.grace_ms, scores: false, tuning: config.into() }
    }
}

impl From<DetectorOptions> for profiles::DetectorSettings {
    fn from(DetectorOptions { enabled: _, scores, grace_ms, tuning }: DetectorOptions) -> Self {
        Self { grace_ms, scores, tuning }
    }
}

impl Default for DetectorOptions {
    fn default() -> Self {
        Self { enabled: true, scores: false, grace_ms: 0, tuning: Tuning::default() }
    }
}

/// A worker's handles of the dataflow: its inputs, its probe and its states.
pub struct Dataflow {
    events: InputHandleVec<Tick, AccessEvent>,
    tables: InputHandleVec<Tick, TableChange>,
    decisions: InputHandleVec<Tick, DecisionRow>,
    definitions: InputHandleVec<Tick, Definition>,
    control: InputHandleVec<Tick, TickInfo>,
    probe: ProbeHandle<Tick>,
    states: States,
}

impl std::fmt::Debug for Dataflow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dataflow").field("tick", self.events.time()).field("states", &self.states).finish()
    }
}

impl Dataflow {
    /// Moves on to a tick. Nothing may come for earlier ticks.
    pub fn advance_to(&mut self, tick: Tick) {
        self.events.advance_to(tick);
        self.tables.advance_to(tick);
        self.decisions.advance_to(tick);
        self.definitions.advance_to(tick);
        self.control.advance_to(tick);
    }

    /// Sends events of the current tick, and empties the batch.
    pub fn events(&mut self, batch: &mut Vec<AccessEvent>) {
        self.events.send_batch(batch);
    }

    /// Sends changes of tables in the current tick. One worker of the job is given them.
    pub fn tables(&mut self, changes: &mut Vec<TableChange>) {
        self.tables.send_batch(changes);
    }

    /// Sends what people decided about keys in the current tick, in that order. One worker of the job is given it.
    pub fn decisions(&mut self, decisions: &mut Vec<DecisionRow>) {
        self.decisions.send_batch(decisions);
    }

    /// Sends strings that events and tables of the current or later ticks use.
    pub fn definitions(&mut self, definitions: &mut Vec<Definition>) {
        self.definitions.send_batch(definitions);
    }

    /// Ends the current tick, which is `info.tick`. Every worker must be given the same `info`.
    ///
    /// # Panics
    /// If another tick is open.
    pub fn end_tick(&mut self, info: TickInfo) {
        assert_eq!(*self.control.time(), info.tick, "the tick that closes is the one that is open");
        self.control.send(info);
        self.advance_to(info.tick + 1);
    }

    /// Returns the probe of all operators. A tick is done when the probe isn't `less_than` the next.
    #[must_use]
    pub fn probe(&self) -> &ProbeHandle<Tick> {
        &self.probe
    }

    /// Returns this worker's durable states. Snapshots must be taken between ticks.
    #[must_use]
    pub fn states(&self) -> &States {
        &self.states
    }
}

/// Builds the dataflow on one worker. All workers must build the same.
///
/// # Errors
/// If a row of `restore` can't be read.
pub fn render<O: Output + 'static>(
    scope: Scope<'_, Tick>,
    options: Options,
    output: &Rc<RefCell<O>>,
    restore: Option<&Snapshot>,
) -> Result<Dataflow, RestoreError> {
    let output: SharedOutput = Rc::<RefCell<O>>::clone(output);
    let mut registry = Registry::new(scope.index(), scope.peers(), restore);
    let settings = MetricSettings {
        allowed_lateness_ms: options.windows.allowed_lateness_ms,
        callers_exact: options.limits.callers_exact,
        publish: options.publish,
    };
    let (event_input, events) = scope.new_input();
    let (table_input, tables) = scope.new_input();
    let (decision_input, decisions) = scope.new_input();
    let (definition_input, defined) = scope.new_input();
    let (control_input, control) = scope.new_input();
    let graph = Graph { scope, shell: Shell { control, output }, settings, probe: ProbeHandle::new() };

    // STEP 1: a string of tables goes to one worker, which puts it out; rows of tables become owners of keys and facts of subscriptions.
    graph.definitions(defined.clone(), &mut registry)?;
    let (owners, infos) = graph.tables(tables.clone(), &mut registry)?;

    // STEP 2: each request is passed on once; keys, routes and countries beyond a cap are rewritten.
    let unique = graph.deduplicate(events, &options.windows, &mut registry)?;
    let by_key = graph.admit(unique, owners.clone(), defined, &options.limits, &mut registry)?;

    // STEP 3: usage by key, and its sums by subscription.
    let used = graph.usage(&by_key, owners.clone(), (infos, tables.clone()), &mut registry)?;
    graph.accounts(used, tables.clone(), &options, &mut registry)?;

    // STEP 4: the detector. Its states are registered even if it is off, because each state must have an owner.
    let profiles = registry.register(Profiles::new(options.detection.into()))?;
    let incidents = registry.register(Incidents::new(options.detection.into()))?;
    if options.detection.enabled {
        graph.detector(&by_key, owners.clone(), (tables, decisions), profiles, incidents);
    }

    // STEP 5: the other metrics. Routes are few groups, so they are accumulated where the events are.
    graph.metric::<UsageMetric<ByRoute>>("UsageByRoute", &by_key, owners, &mut registry)?;
    graph.metric::<GeoMetric>("Geo", &by_key, empty(scope), &mut registry)?;
    graph.metric::<LatencyMetric<OfKey>>("LatencyByKey", &by_key, empty(scope), &mut registry)?;
    graph.metric::<CallersMetric<OfKey>>("CallersByKey", &by_key, empty(scope), &mut registry)?;
    graph.metric_in_parts::<LatencyMetric<OfRoute>>("LatencyByRoute", &by_key, &mut registry)?;
    graph.metric_in_parts::<CallersMetric<OfRoute>>("CallersByRoute", &by_key, &mut registry)?;

    Ok(Dataflow {
        events: event_input,
        tables: table_input,
        decisions: decision_input,
        definitions: definition_input,
        control: control_input,
        probe: graph.probe,
        states: registry.finish(),
    })
}

/// Sends each update of a collection at its own tick. A batch of differential dataflow can span ticks, and travels at
/// the earliest of them.
fn at_their_ticks<'scope, D: Clone + 'static>(
    updates: StreamVec<'scope, Tick, (D, Tick, isize)>,
) -> StreamVec<'scope, Tick, (D, Tick, isize)> {
    updates.unary(Pipeline, "AtTheirTicks", |_, _| {
        |input, output| {
            input.for_each(|capability, updates| {
                updates.sort_by_key(|(_, tick, _)| *tick);
                for at_tick in updates.chunk_by(|a, b| a.1 == b.1) {
                    let capability = capability.delayed(&at_tick[0].1, output.output_index());
                    output.session(&capability).give_iterator(at_tick.iter().cloned());
                }
            });
        }
    })
}

/// Copies a stream for each worker, with the worker's index.
fn to_all<'scope, D: Clone + 'static>(
    stream: StreamVec<'scope, Tick, D>,
) -> StreamVec<'scope, Tick, (u64, D)> {
    let workers = stream.scope().peers() as u64;
    stream.flat_map(move |data| (0..workers).map(move |worker| (worker, data.clone())))
}

/// Owners of keys, and facts of subscriptions.
type TableFacts<'scope> = (StreamVec<'scope, Tick, OwnerChange>, StreamVec<'scope, Tick, InfoChange>);

type Events<'scope> = Stream<'scope, Tick, Rc<Vec<AccessEvent>>>;

/// The parts that every operator is built with.
struct Graph<'scope> {
    scope: Scope<'scope, Tick>,
    shell: Shell<'scope>,
    settings: MetricSettings,
    probe: ProbeHandle<Tick>,
}

impl<'scope> Graph<'scope> {
    fn no_second(&self) -> (StreamVec<'scope, Tick, ()>, Pipeline) {
        (empty(self.scope), Pipeline)
    }

    /// Makes the tick wait for this stream's operator.
    fn watch<D: Clone + 'static>(&self, stream: StreamVec<'scope, Tick, D>) {
        stream.probe_with(&self.probe);
    }

    fn definitions(
        &self,
        defined: StreamVec<'scope, Tick, Definition>,
        registry: &mut Registry<'_>,
    ) -> Result<(), RestoreError> {
        let names = defined.filter(|definition| matches!(definition, Definition::Name { .. }));
        self.watch(self.shell.operator(
            "Definitions",
            (names, Exchange::new(definitions::shard)),
            self.no_second(),
            registry.register(Definitions::default())?,
            Definitions::publish_new,
        ));
        Ok(())
    }

    fn deduplicate(
        &self,
        events: StreamVec<'scope, Tick, AccessEvent>,
        windows: &keytide_config::Windows,
        registry: &mut Registry<'_>,
    ) -> Result<StreamVec<'scope, Tick, AccessEvent>, RestoreError> {
        // Timely's input handle flushes an exchange only if it sent since its last step. Batches that it sent before
        // would stay behind. An operator flushes whenever it ran.
        let events = events.unary(Pipeline, "Events", |_, _| {
            |input, output| {
                input.for_each_time(|time, batches| output.session(&time).give_containers(batches));
            }
        });
        Ok(self.shell.operator(
            "Dedupe",
            (events, Exchange::new(dedupe::shard)),
            self.no_second(),
            registry.register(SeenRequests::new(windows))?,
            SeenRequests::deduplicate,
        ))
    }

    /// Rewrites keys, routes and countries beyond a cap, and returns the events by key.
    fn admit(
        &self,
        unique: StreamVec<'scope, Tick, AccessEvent>,
        owners: StreamVec<'scope, Tick, OwnerChange>,
        defined: StreamVec<'scope, Tick, Definition>,
        limits: &keytide_config::Limits,
        registry: &mut Registry<'_>,
    ) -> Result<Events<'scope>, RestoreError> {
        let (unique, routes, agents) = routes::observe_routes(unique);
        self.agents(defined.clone(), agents, registry.register(AdmittedAgents::new(limits))?);
        let decisions = self.routes(defined.clone(), routes, registry.register(AdmittedRoutes::new(limits))?);
        let names = defined.filter(|definition| matches!(definition, Definition::Key { .. }));
        let changes = owners.map(AdmissionChange::Owner).concat(names.map(AdmissionChange::Named));
        let admitted = self.shell.operator(
            "Admission",
            (unique, Exchange::new(|event: &AccessEvent| event.key.shard())),
            (changes.concat(decisions), Exchange::new(AdmissionChange::shard)),
            registry.register(Admission::new(limits))?,
            Admission::admit_and_rewrite,
        );
        Ok(admission::exchange_overflow(admitted).shared())
    }

    /// Builds the operators that decide which user agents are known by their strings, and publish these on every
    /// worker.
    fn agents(
        &self,
        defined: StreamVec<'scope, Tick, Definition>,
        observed: StreamVec<'scope, Tick, ObservedAgent>,
        state: Registered<AdmittedAgents>,
    ) {
        let agent = |definition: &Definition| match definition {
            Definition::Agent { id, .. } => Some(id.bucket()),
            Definition::Key { .. } | Definition::Route { .. } | Definition::Name { .. } => None,
        };
        let decisions = self.shell.operator(
            "Agents",
            (
                defined.filter(move |definition| agent(definition).is_some()),
                Exchange::new(move |definition: &Definition| agent(definition).unwrap_or_default().into()),
            ),
            (observed, Exchange::new(|observed: &ObservedAgent| observed.agent.bucket().into())),
            state,
            AdmittedAgents::decide,
        );
        self.watch(self.shell.operator(
            "AgentTexts",
            (to_all(decisions), Exchange::new(|addressed: &(u64, AgentDecision)| addressed.0)),
            self.no_second(),
            Registered::nothing(),
            agents::publish_texts,
        ));
    }

    /// Builds the operator that admits routes, and sends its decisions to every worker.
    fn routes(
        &self,
        defined: StreamVec<'scope, Tick, Definition>,
        observed: StreamVec<'scope, Tick, ObservedRoute>,
        state: Registered<AdmittedRoutes>,
    ) -> StreamVec<'scope, Tick, AdmissionChange> {
        let route = |definition: &Definition| match definition {
            Definition::Route { id, .. } => Some(id.bucket()),
            Definition::Key { .. } | Definition::Agent { .. } | Definition::Name { .. } => None,
        };
        let decisions: StreamVec<'scope, Tick, RouteDecision> = self.shell.operator(
            "Routes",
            (
                defined.filter(move |definition| route(definition).is_some()),
                Exchange::new(move |definition: &Definition| route(definition).unwrap_or_default().into()),
            ),
            (observed, Exchange::new(|observed: &ObservedRoute| observed.route.bucket().into())),
            state,
            AdmittedRoutes::decide,
        );
        to_all(decisions).map(|(worker, decision)| AdmissionChange::Route(worker, decision))
    }

    /// Joins the tables among themselves, to owners of keys and facts of subscriptions. A subscription without a row
    /// still owns its keys. A plan without a row still is its subscriptions' plan.
    fn tables(
        &self,
        changes: StreamVec<'scope, Tick, TableChange>,
        registry: &mut Registry<'_>,
    ) -> Result<TableFacts<'scope>, RestoreError> {
        let is_key = |change: &TableChange| matches!(change.row, TableRow::Key(_));
        let is_relation =
            |change: &TableChange| matches!(change.row, TableRow::Subscription(_) | TableRow::Plan(_));
        let by_row = || Exchange::new(|change: &TableChange| table_rows::shard(&change.row));
        let assigned = self
            .shell
            .operator(
                "Assignments",
                (changes.clone().filter(is_key), by_row()),
                self.no_second(),
                registry.register(Assignments::default())?,
                Assignments::apply_changes,
            )
            .as_collection();
        let rows = self
            .shell
            .operator(
                "TableRows",
                (changes.filter(is_relation), by_row()),
                self.no_second(),
                registry.register(TableRows::default())?,
                TableRows::apply_changes,
            )
            .as_collection();

        let plan_names = rows.clone().flat_map(|row| match row {
            TableRow::Plan(row) => Some((row.id, row.name)),
            _ => None,
        });
        let by_plan = rows.flat_map(|row| match row {
            TableRow::Subscription(row) => Some((row.plan, (row.id, row.customer))),
            _ => None,
        });
        let info = |plan, customer, plan_name| SubscriptionInfo { customer, plan, plan_name };
        let named = by_plan.clone().join_map(plan_names.clone(), move |plan, (id, customer), name| {
            (*id, info(*plan, *customer, *name))
        });
        let unnamed = by_plan
            .antijoin(plan_names.map(|(plan, _)| plan))
            .map(move |(plan, (id, customer))| (id, info(plan, customer, Default::default())));
        let infos = named.concat(unnamed);

        let owner = |subscription, info: SubscriptionInfo| Owner {
            subscription,
            customer: info.customer,
            plan: info.plan,
        };
        let known = assigned
            .clone()
            .join_map(infos.clone(), move |name, (key, from), info| (*key, *from, owner(*name, *info)));
        let unknown = assigned
            .antijoin(infos.clone().map(|(id, _)| id))
            .map(move |(name, (key, from))| (key, from, owner(name, SubscriptionInfo::default())));
        // Several joins may retract and insert a fact in one tick; consolidated, it arrives once.
        let owners = at_their_ticks(known.concat(unknown).consolidate().inner);
        Ok((owners, at_their_ticks(infos.consolidate().inner)))
    }

    /// Builds the detector. All incidents are on one worker, which gets the observations of odd keys and the sums
    /// over many keys.
    fn detector(
        &self,
        events: &Events<'scope>,
        owners: StreamVec<'scope, Tick, OwnerChange>,
        (tables, decisions): (StreamVec<'scope, Tick, TableChange>, StreamVec<'scope, Tick, DecisionRow>),
        profiles: Registered<Profiles>,
        incidents: Registered<Incidents>,
    ) {
        let of_keys = |change: &TableChange| matches!(change.row, TableRow::Key(_) | TableRow::Leak(_));
        let facts = tables.clone().filter(of_keys).map(profiles::KeyChange::Row);
        let decided = decisions.clone().map(profiles::KeyChange::Decision);
        let changes = owners.map(profiles::KeyChange::Owner).concat(facts).concat(decided);
        let reports: StreamVec<'scope, Tick, ProfileReport> = self.shell.operator(
            "Profiles",
            (events.clone(), Pipeline),
            (changes, Exchange::new(profiles::KeyChange::shard)),
            profiles,
            Profiles::end_tick,
        );
        let is_key = |change: &TableChange| matches!(change.row, TableRow::Key(_));
        let rows = tables.filter(move |change| !is_key(change)).map(incidents::Learned::Row);
        let learned = rows.concat(decisions.map(incidents::Learned::Decision));
        self.watch(self.shell.operator(
            "Incidents",
            (reports, Exchange::new(|_: &ProfileReport| 0)),
            (learned, Exchange::new(|_: &incidents::Learned| 0)),
            incidents,
            Incidents::end_tick,
        ));
    }

    fn usage(
        &self,
        events: &Events<'scope>,
        owners: StreamVec<'scope, Tick, OwnerChange>,
        (infos, tables): (StreamVec<'scope, Tick, InfoChange>, StreamVec<'scope, Tick, TableChange>),
        registry: &mut Registry<'_>,
    ) -> Result<StreamVec<'scope, Tick, UseChange>, RestoreError> {
        let mut splitting: HashMap<NameId, bool> = HashMap::new();
        let mut splits_hours =
            move |zone: NameId| *splitting.entry(zone).or_insert_with(|| calendar(zone).splits_hours());
        let zones = tables.flat_map(move |change| match change.row {
            TableRow::Subscription(row) => Some(row.time_zone).filter(|zone| splits_hours(*zone)),
            _ => None,
        });
        let zones = to_all(zones).map(|(worker, zone)| BookingsChange::Zone(worker, zone));
        let bookings = self.shell.operator(
            "Usage",
            (events.clone(), Pipeline),
            (owners.map(BookingsChange::Owner).concat(zones), Exchange::new(BookingsChange::shard)),
            registry.register(Bookings::new(self.settings))?,
            Bookings::book_and_publish,
        );
        let is_hour = |booking: &Booking| booking.0.1 == HOURS;
        let hours = bookings.clone().filter(is_hour);
        let is_for_accounts = |booking: &Booking| booking.0.1 == FOR_ACCOUNTS;
        let for_accounts = bookings.clone().filter(is_for_accounts);
        let is_added = move |booking: &Booking| !is_hour(booking) && !is_for_accounts(booking);
        let added = bookings.filter(is_added).map(SubscriptionChange::Added);
        let sums = at_their_ticks(hours.as_collection().count().inner);
        let used = self.shell.operator(
            "SubscriptionUsage",
            (sums, Exchange::new(subscription_usage::shard)),
            (infos.map(SubscriptionChange::Info).concat(added), Exchange::new(SubscriptionChange::shard)),
            registry.register(Windowed::<SubscriptionUsageMetric>::new(self.settings))?,
            subscription_usage::apply_sums,
        );
        let additions = for_accounts.map(|((subscription, _, from), _, Booked { usage, .. })| UseChange {
            subscription,
            from,
            usage,
        });
        Ok(used.concat(additions))
    }

    /// Builds the accounts of subscriptions. Every worker gets every change of plans.
    fn accounts(
        &self,
        used: StreamVec<'scope, Tick, UseChange>,
        tables: StreamVec<'scope, Tick, TableChange>,
        options: &Options,
        registry: &mut Registry<'_>,
    ) -> Result<(), RestoreError> {
        let of_plans = tables.clone().flat_map(|TableChange { offset, row, deleted }| {
            let row = match row {
                TableRow::Plan(row) => PlanTableRow::Plan(row),
                TableRow::Price(row) => PlanTableRow::Price(row),
                TableRow::Quota(row) if matches!(row.holder, QuotaHolder::Plan(_)) => {
                    PlanTableRow::Quota(row)
                }
                _ => return None,
            };
            Some(PlanChange { offset, row, deleted })
        });
        let of_plans = to_all(of_plans).map(|(worker, change)| AccountChange::Plan(worker, change));
        let of_subscriptions = tables.flat_map(|TableChange { offset, row, deleted }| match row {
            TableRow::Subscription(row) => Some(AccountChange::Subscription { offset, row, deleted }),
            TableRow::Quota(row) => match row.holder {
                QuotaHolder::Subscription(subscription) => {
                    Some(AccountChange::Quota { offset, subscription, row, deleted })
                }
                QuotaHolder::Plan(_) => None,
            },
            _ => None,
        });
        let settings = AccountSettings {
            options: options.accounts,
            allowed_lateness_ms: options.windows.allowed_lateness_ms,
            publish: options.publish,
        };
        self.watch(self.shell.operator(
            "Accounts",
            (used, Exchange::new(accounts::shard)),
            (of_plans.concat(of_subscriptions), Exchange::new(AccountChange::shard)),
            registry.register(Accounts::new(settings))?,
            Accounts::end_tick,
        ));
        Ok(())
    }

    fn metric<M: Metric>(
        &self,
        name: &str,
        events: &Events<'scope>,
        context: StreamVec<'scope, Tick, <M::Context as RowContext>::Change>,
        registry: &mut Registry<'_>,
    ) -> Result<(), RestoreError>
    where
        <M::Context as RowContext>::Change: ContextChange,
    {
        self.watch(self.shell.operator(
            name,
            (events.clone(), Pipeline),
            (context, Exchange::new(ContextChange::shard)),
            registry.register(Windowed::<M>::new(self.settings))?,
            fold_events::<M>,
        ));
        Ok(())
    }

    fn metric_in_parts<M: Metric<Context = ()>>(
        &self,
        name: &str,
        events: &Events<'scope>,
        registry: &mut Registry<'_>,
    ) -> Result<(), RestoreError>
    where
        M::Group: timely::ExchangeData,
        M::Acc: timely::ExchangeData,
    {
        let parts = self.shell.operator(
            &format!("{name}Partials"),
            (events.clone(), Pipeline),
            self.no_second(),
            Registered::nothing(),
            |(), batches, _, closing: Closing<'_, Partial<M::Group, M::Acc>>| {
                closing.downstream.push(partials::<M>(&batches, closing.info));
            },
        );
        self.watch(self.shell.operator(
            name,
            (parts, Exchange::new(|part: &Partial<M::Group, M::Acc>| part.group.shard())),
            self.no_second(),
            registry.register(Windowed::<M>::new(self.settings))?,
            fold_partials::<M>,
        ));
        Ok(())
    }
}

/// A change of a context that can be exchanged.
trait ContextChange: timely::ExchangeData {
    fn shard(&self) -> u64;
}

impl ContextChange for () {
    fn shard(&self) -> u64 {
        0
    }
}

impl ContextChange for OwnerChange {
    fn shard(&self) -> u64 {
        self.0.0.shard()
    }
}
