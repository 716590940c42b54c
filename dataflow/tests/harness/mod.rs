//! Runs the dataflow on any number of workers over ticks that a test made, and collects what it puts out.

pub mod oracle;
pub mod scenario;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use keytide_billing::QuotaStanding;
use keytide_config::{Limits, Windows};
use keytide_dataflow::model::*;
use keytide_dataflow::state::{Snapshot, SnapshotRequest, States, TakenSnapshot};
use keytide_dataflow::*;
use proptest::test_runner::Config as ProptestConfig;

/// One tick's input.
#[derive(Clone, Debug)]
pub struct TickInput {
    pub info: TickInfo,
    pub events: Vec<AccessEvent>,
    pub tables: Vec<TableChange>,
    pub decisions: Vec<DecisionRow>,
    pub definitions: Vec<Definition>,
}

/// The way in which a run is made, which must not change its output.
#[derive(Clone, Copy, Debug)]
pub struct How {
    pub workers: usize,
    pub batch: usize,
    pub shuffle: u64,
}

macro_rules! any_row {
    ($($view:ident $field:ident: $row:ty,)+) => {
        /// A row of any view, comparable.
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum AnyRow {
            $($view($row),)+
            Quota(Revision<QuotaKey, QuotaStanding>),
            Charge(Revision<ChargeKey, Charge>),
            Bill(Revision<BillKey, BillRow>),
            Forecast(Revision<QuotaKey, ForecastRow>),
            QuotaNotice(QuotaNotice),
            Adjustment(Adjustment),
            Incident(Incident),
            Transition(Transition),
            Score(Score),
        }

        impl AnyRow {
            fn extend(into: &mut Vec<Self>, rows: Rows) {
                match rows {
                    $(Rows::$view(rows) => into.extend(rows.into_iter().map(Self::$view)),)+
                    Rows::Quota(rows) => into.extend(rows.into_iter().map(Self::Quota)),
                    Rows::Charges(rows) => into.extend(rows.into_iter().map(Self::Charge)),
                    Rows::Bills(rows) => into.extend(rows.into_iter().map(Self::Bill)),
                    Rows::Forecast(rows) => into.extend(rows.into_iter().map(Self::Forecast)),
                    Rows::Notices(rows) => into.extend(rows.into_iter().map(Self::QuotaNotice)),
                    Rows::Adjustments(rows) => into.extend(rows.into_iter().map(Self::Adjustment)),
                    Rows::Incidents(rows) => into.extend(rows.into_iter().map(Self::Incident)),
                    Rows::IncidentLog(rows) => into.extend(rows.into_iter().map(Self::Transition)),
                    Rows::Scores(rows) => into.extend(rows.into_iter().map(Self::Score)),
                }
            }
        }
    };
}

views_of_windows!(any_row);

/// The output of a tick, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TickOutput {
    pub rows: Vec<AnyRow>,
    pub late: Vec<Late>,
    pub events: u64,
    pub duplicates: u64,
    pub late_count: u64,
    /// Events beyond a cap: of keys, routes, countries.
    pub overflows: [u64; 3],
    /// Events that came too late for the detector.
    pub detector_late: u64,
    /// Observations for which the detector had no room.
    pub detector_deferred: u64,
    /// Numbers that count against the caps: keys, routes, pairs of key and route, of key and country.
    pub admitted: [u64; 4],
}

#[derive(Default)]
struct Collect {
    ticks: BTreeMap<Tick, TickOutput>,
    definitions: Vec<Definition>,
    forgotten: Vec<(Tick, Forgotten)>,
    standings: Vec<Revision<QuotaKey, QuotaStanding>>,
}

impl Output for Collect {
    fn rows(&mut self, tick: Tick, rows: Rows) {
        AnyRow::extend(&mut self.ticks.entry(tick).or_default().rows, rows);
    }
    fn standings(&mut self, _: Tick, standings: Vec<Revision<QuotaKey, QuotaStanding>>) {
        self.standings.extend(standings);
    }
    fn late(&mut self, tick: Tick, late: Vec<Late>) {
        self.ticks.entry(tick).or_default().late.extend(late);
    }
    fn counts(&mut self, tick: Tick, counts: Counts) {
        let into = self.ticks.entry(tick).or_default();
        into.events += counts.events;
        into.duplicates += counts.duplicates;
        into.late_count += counts.late;
        into.overflows[0] += counts.overflow_keys;
        into.overflows[1] += counts.overflow_routes;
        into.overflows[2] += counts.overflow_countries;
        into.detector_late += counts.detector_late;
        into.detector_deferred += counts.detector_deferred;
    }
    fn admitted(&mut self, tick: Tick, admitted: Admitted) {
        let Admitted { keys, routes, key_routes, key_countries } = admitted;
        let into = &mut self.ticks.entry(tick).or_default().admitted;
        *into = std::array::from_fn(|kind| into[kind] + [keys, routes, key_routes, key_countries][kind]);
    }
    fn define(&mut self, _: Tick, definitions: Vec<Definition>) {
        self.definitions.extend(definitions);
    }
    fn forget(&mut self, tick: Tick, forgotten: Vec<Forgotten>) {
        self.forgotten.extend(forgotten.into_iter().map(|id| (tick, id)));
    }
}

/// The output of a run by tick, the definitions each worker was given, and the last state.
pub struct Outcome {
    pub ticks: BTreeMap<Tick, TickOutput>,
    pub definitions: Vec<Vec<Definition>>,
    /// The ids that each worker was given to forget, with their ticks.
    pub forgotten: Vec<Vec<(Tick, Forgotten)>>,
    pub snapshot: Snapshot,
    /// How quotas stood that were restored.
    pub standings: Vec<Revision<QuotaKey, QuotaStanding>>,
}

/// Runs ticks through the dataflow, with limits that none of them reaches.
pub fn run(
    ticks: &[TickInput],
    windows: Windows,
    publish: Publish,
    how: How,
    restore: Option<Snapshot>,
) -> Outcome {
    run_with(
        ticks,
        Options {
            windows,
            limits: Limits::default(),
            publish,
            detection: keytide_dataflow::DetectorOptions::default(),
            accounts: AccountOptions::default(),
        },
        how,
        restore,
    )
}

/// A worker's snapshots, each of the parts that changed since one that was stored. Some get lost.
struct Snapshots {
    random: SplitMix,
    stored: Option<Snapshot>,
    request: SnapshotRequest,
    /// The last one, until it is encoded. The states go on meanwhile.
    taken: Option<TakenSnapshot>,
}

impl Snapshots {
    /// Goes on from what was restored, if that has the parts of this worker.
    fn new(restored: Option<&Snapshot>, (worker, workers): (usize, usize), seed: u64) -> Self {
        let mut stored = restored.filter(|restored| restored.workers == workers).cloned();
        if let Some(stored) = &mut stored {
            stored.parts.retain(|key, _| key.worker == worker);
        }
        let since = stored.as_ref().map(|_| 0);
        Self { random: SplitMix(!seed), stored, request: SnapshotRequest { number: 0, since }, taken: None }
    }

    fn is_due(&mut self) -> bool {
        self.random.below(12) == 0
    }

    /// Takes a snapshot of the states, after the one before is stored.
    fn take(&mut self, states: &States) {
        self.store();
        self.request.number += 1;
        self.taken = Some(states.snapshot(self.request));
    }

    /// Returns the whole state at the last snapshot, put together from those that were stored.
    fn store(&mut self) -> Option<Snapshot> {
        let mut snapshot = self.taken.take()?.encode();
        if let Some(stored) = &self.stored {
            snapshot = snapshot.over(stored);
        }
        assert!(snapshot.parts.values().all(Option::is_some), "a part is missing that was stored");
        if self.random.below(3) > 0 {
            self.stored = Some(snapshot.clone());
            self.request.since = Some(self.request.number);
        }
        Some(snapshot)
    }
}

/// Runs ticks through the dataflow.
pub fn run_with(ticks: &[TickInput], options: Options, how: How, restore: Option<Snapshot>) -> Outcome {
    let ticks: Arc<Vec<TickInput>> = Arc::new(ticks.to_vec());
    let restore = Arc::new(restore);
    let guards = timely::execute(timely::Config::process(how.workers), move |worker| {
        let output = Rc::new(RefCell::new(Collect::default()));
        let mut dataflow = worker
            .dataflow(|scope| render(scope, options, &output, (*restore).as_ref()))
            .expect("the snapshot is readable");
        let mut random = SplitMix(how.shuffle);
        let mut snapshots =
            Snapshots::new((*restore).as_ref(), (worker.index(), worker.peers()), how.shuffle);
        for tick in ticks.iter() {
            dataflow.advance_to(tick.info.tick);
            let mut mine: Vec<AccessEvent> = tick
                .events
                .iter()
                .enumerate()
                .filter(|(index, _)| index % worker.peers() == worker.index())
                .map(|(_, event)| *event)
                .collect();
            random.shuffle(&mut mine);
            for batch in mine.chunks(how.batch) {
                dataflow.events(&mut batch.to_vec());
                worker.step();
            }
            if worker.index() == 0 {
                let mut tables = tick.tables.clone();
                random.shuffle(&mut tables);
                dataflow.tables(&mut tables);
                dataflow.decisions(&mut tick.decisions.clone());
                dataflow.definitions(&mut tick.definitions.clone());
            }
            dataflow.end_tick(tick.info);
            if snapshots.is_due() {
                dataflow.advance_to(tick.info.tick + 1);
                while dataflow.probe().less_than(&(tick.info.tick + 1)) {
                    worker.step_or_park(None);
                }
                snapshots.take(dataflow.states());
            }
        }
        let end = ticks.last().map_or(0, |tick| tick.info.tick + 1);
        while dataflow.probe().less_than(&end) {
            worker.step_or_park(None);
        }
        snapshots.take(dataflow.states());
        let snapshot = snapshots.store().expect("one was taken just now");
        drop(dataflow);
        while worker.step() {}
        let collected = output.take();
        (collected, snapshot)
    })
    .expect("workers start");
    let mut outcome = Outcome {
        ticks: BTreeMap::new(),
        definitions: Vec::new(),
        forgotten: Vec::new(),
        snapshot: Snapshot::default(),
        standings: Vec::new(),
    };
    for result in guards.join() {
        let (Collect { ticks, definitions, forgotten, standings }, snapshot) = result.expect("a worker ends");
        for (tick, part) in ticks {
            let into = outcome.ticks.entry(tick).or_default();
            into.rows.extend(part.rows);
            into.late.extend(part.late);
            into.events += part.events;
            into.duplicates += part.duplicates;
            into.late_count += part.late_count;
            into.detector_late += part.detector_late;
            into.detector_deferred += part.detector_deferred;
            into.overflows = std::array::from_fn(|kind| into.overflows[kind] + part.overflows[kind]);
            into.admitted = std::array::from_fn(|kind| into.admitted[kind] + part.admitted[kind]);
        }
        outcome.standings.extend(standings);
        outcome.definitions.push(definitions);
        outcome.forgotten.push(forgotten);
        outcome.snapshot.merge(snapshot);
    }
    for tick in outcome.ticks.values_mut() {
        tick.rows.sort();
        tick.late.sort();
    }
    outcome
}

/// Returns the settings of a property: `usual` cases, or as many as `PROPTEST_CASES` sets.
pub fn cases(usual: u32) -> ProptestConfig {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() {
        return config;
    }
    ProptestConfig { cases: usual, ..config }
}

/// A small random number generator (SplitMix64; Steele, Lea, Flood 2014).
pub struct SplitMix(pub u64);

impl SplitMix {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}
