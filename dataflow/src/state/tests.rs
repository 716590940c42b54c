use std::collections::BTreeMap;

use keytide_config::Windows;

use super::*;
use crate::model::*;
use crate::operators::admission::AdmissionRow;
use crate::operators::profiles::ProfilesStateRow;
use crate::row::{Admitted, Counts, Late, Output, Rows};
use crate::{Options, Publish, render};

struct Nowhere;

impl Output for Nowhere {
    fn rows(&mut self, _: Tick, _: Rows) {}
    fn late(&mut self, _: Tick, _: Vec<Late>) {}
    fn counts(&mut self, _: Tick, _: Counts) {}
    fn admitted(&mut self, _: Tick, _: Admitted) {}
    fn define(&mut self, _: Tick, _: Vec<Definition>) {}
    fn forget(&mut self, _: Tick, _: Vec<Forgotten>) {}
}

const TICK: Tick = 1_750_000_000_000;

fn event(key: u128, number: u64) -> AccessEvent {
    AccessEvent {
        key: KeyId(key),
        request: RequestId::from_bits(u128::from(number) + 1),
        client: u128::from(number) + 1,
        time: TICK,
        route: RouteId::new("api", "GET", "/"),
        user_agent: NameId::NONE,
        position: Position { partition: 0, offset: number, index: 0 },
        latency_us: number << 8,
        bytes_in: 1,
        bytes_out: 1,
        units: 0,
        count: 1,
        late_ms: 0,
        asn: 64_500,
        status: 200,
        is_free: false,
        country: Country::new("NL"),
        place: CallerLocation::default(),
    }
}

fn owner(key: u128) -> TableChange {
    let row = KeyRow {
        key: KeyId(key),
        subscription: NameId::new("sub"),
        valid_from: None,
        state: KeyState::default(),
        kind: KeyKind::default(),
        created_at: None,
        revoked_at: None,
        last_used_at: None,
        place: KeyPlace::default(),
        allowed: Box::default(),
        contact: NameId::NONE,
    };
    TableChange { offset: 0, row: TableRow::Key(row), deleted: false }
}

/// Every state's rows and footprint after one tick.
fn after_a_tick(
    events: Vec<AccessEvent>,
    tables: Vec<TableChange>,
    definitions: Vec<Definition>,
) -> BTreeMap<&'static str, (u64, Footprint)> {
    let windows = Windows { out_of_orderness_ms: 5_000, ..Windows::default() };
    let limits = keytide_config::Limits::default();
    let options = Options {
        windows,
        limits,
        detection: crate::DetectorOptions::default(),
        accounts: crate::AccountOptions::default(),
        publish: Publish::Changes { bulk_rows: 1 },
    };
    timely::execute_directly(move |worker| {
        let output = Rc::new(RefCell::new(Nowhere));
        let mut dataflow = worker.dataflow(|scope| render(scope, options, &output, None)).unwrap();
        dataflow.advance_to(TICK);
        dataflow.events(&mut events.clone());
        dataflow.tables(&mut tables.clone());
        dataflow.definitions(&mut definitions.clone());
        dataflow.end_tick(TickInfo {
            tick: TICK,
            watermark_before: TICK - 60_000,
            watermark: TICK - 1,
            cadence: 1,
            catching_up: false,
            last: false,
        });
        let probe = dataflow.probe().clone();
        worker.step_while(|| probe.less_than(&(TICK + 1)));
        let snapshot = dataflow.states().snapshot(SnapshotRequest::ALL).encode();
        dataflow
            .states()
            .footprints()
            .map(|(id, footprint)| (id.name(), (snapshot.rows(id), footprint)))
            .collect()
    })
}

#[test]
fn a_footprint_counts_what_leaves_as_rows() {
    let events = (0..300).map(|number| event(u128::from(number % 7) + 2, number)).collect();
    let month = Some(crate::Level::Month.start(TICK));
    let key = |n: u128| Definition::Key { id: KeyId(n + 2), name: "name".into(), month };
    let text = || Definition::Name { id: NameId::new("name"), text: "name".into() };
    let definitions = (0..5).map(key).chain([text(), text()]).collect();
    let states = after_a_tick(events, (2..6).map(owner).collect(), definitions);
    assert_eq!(states.len(), StateId::ALL.len());
    for (name, (rows, footprint)) in states {
        // A row of each windowed state is its clock, and one of those that forget strings.
        let clock =
            u64::from(!["dedupe", "definitions", "agents", "assignments", "table_rows"].contains(&name));
        assert_eq!(footprint.rows + clock, rows, "{name}");
        assert_eq!(footprint.bytes == 0, footprint.rows == 0, "{name}");
    }
}

#[test]
fn a_footprint_sees_what_entries_own() {
    let callers = |events: u64| {
        let events = (0..events).map(|number| event(2, number)).collect();
        after_a_tick(events, Vec::new(), Vec::new())["callers_by_key"].1
    };
    let (one, many) = (callers(1), callers(1_000));
    assert_eq!(one.rows, many.rows);
    assert!(many.bytes - one.bytes >= 16 * 1_000, "{one:?} {many:?}");
}

#[test]
fn a_sample_stands_for_the_rest() {
    let map: hashbrown::HashMap<u64, Vec<u8>> = (0..1_000).map(|n| (n, vec![0; 10])).collect();
    let owned = |list: &Vec<u8>| list.capacity();
    let (without, with) = (Footprint::of_map(&map), Footprint::of_map_with(&map, owned));
    assert_eq!(with.bytes - without.bytes, 10_000);
    assert_eq!(
        Footprint::of_map_with(&hashbrown::HashMap::<u64, Vec<u8>>::new(), owned),
        Footprint::default()
    );
}

/// The rows of a state's parts, one by one and in no order of parts.
fn rows_of<R: serde::de::DeserializeOwned>(snapshot: &Snapshot, id: StateId) -> Vec<Vec<u8>> {
    let mut rows = Vec::new();
    for (_, part) in snapshot.parts.iter().filter(|(key, _)| key.state == id) {
        for mut block in part.as_ref().unwrap().blocks() {
            while !block.is_empty() {
                let (_, rest) = postcard::take_from_bytes::<R>(block).unwrap();
                rows.push(block[..block.len() - rest.len()].to_vec());
                block = rest;
            }
        }
    }
    rows.sort_unstable();
    rows
}

/// A snapshot over those before it, and how many rows of each state it had itself.
type LinkedSnapshot = (Snapshot, BTreeMap<StateId, u64>);

/// Runs a minute a tick, of which the first has many keys and the others few. Returns the snapshots after each, and a
/// whole one in the end.
fn minutes_of_keys(minutes: u64, restore: Option<Snapshot>) -> (Vec<LinkedSnapshot>, Snapshot) {
    let windows = Windows { out_of_orderness_ms: 5_000, ..Windows::default() };
    let options = Options {
        windows,
        limits: keytide_config::Limits::default(),
        detection: crate::DetectorOptions::default(),
        accounts: crate::AccountOptions::default(),
        publish: Publish::Changes { bulk_rows: 1 },
    };
    timely::execute_directly(move |worker| {
        let output = Rc::new(RefCell::new(Nowhere));
        let mut dataflow =
            worker.dataflow(|scope| render(scope, options, &output, restore.as_ref())).unwrap();
        let (mut snapshots, mut request) = (Vec::<LinkedSnapshot>::new(), SnapshotRequest::ALL);
        for minute in 0..minutes {
            let at = TICK + minute * 60_000;
            // A few of the keys have enough calls for a profile.
            let keys = if minute == 0 { 0..200 } else { minute..minute + 3 };
            let calls = keys.clone().flat_map(|key| vec![key; if key % 4 == 0 { 12 } else { 2 }]);
            let mut events: Vec<AccessEvent> = calls
                .enumerate()
                .map(|(number, key)| AccessEvent {
                    time: at,
                    // Another one each minute, and so another admission.
                    country: Country::new(&format!("A{}", char::from(b'A' + minute as u8))),
                    ..event(u128::from(key) + 2, minute * 10_000 + number as u64)
                })
                .collect();
            let month = Some(crate::Level::Month.start(TICK));
            let name =
                |key: u64| Definition::Key { id: KeyId(u128::from(key) + 2), name: "name".into(), month };
            dataflow.advance_to(at + 60_000);
            dataflow.events(&mut events);
            dataflow.definitions(&mut keys.map(name).collect());
            dataflow.end_tick(TickInfo {
                tick: at + 60_000,
                watermark_before: at.saturating_sub(60_000),
                watermark: at + 59_000,
                cadence: 1,
                catching_up: false,
                last: false,
            });
            let probe = dataflow.probe().clone();
            worker.step_while(|| probe.less_than(&(at + 60_001)));
            let snapshot = dataflow.states().snapshot(request).encode();
            let rows = StateId::ALL.iter().map(|id| (*id, snapshot.rows(*id))).collect();
            let whole = match snapshots.last() {
                Some((before, _)) => snapshot.over(before),
                None => snapshot,
            };
            snapshots.push((whole, rows));
            request = SnapshotRequest { number: request.number + 1, since: Some(request.number) };
        }
        let whole = dataflow.states().snapshot(SnapshotRequest { since: None, ..request }).encode();
        (snapshots, whole)
    })
}

#[test]
fn what_is_known_of_keys_is_stored_as_it_changes_and_comes_back_whole() {
    let (snapshots, whole) = minutes_of_keys(12, None);
    for id in [StateId::Profiles, StateId::Admission] {
        let is_link = |key: &PartKey| key.state == id && matches!(key.part, PartId::Keys { link: 1.. });
        let linked = snapshots.iter().filter(|(snapshot, _)| snapshot.parts.keys().any(is_link));
        let fewest = linked.map(|(_, rows)| rows[&id]).min();
        assert!(fewest.is_some_and(|rows| rows < 100), "{id:?}: {fewest:?}");
    }
    let (last, _) = snapshots.last().unwrap();
    let (_, restored) = minutes_of_keys(0, Some(last.clone()));
    let profiles = |of: &Snapshot| rows_of::<ProfilesStateRow<'static>>(of, StateId::Profiles);
    let admission = |of: &Snapshot| rows_of::<AdmissionRow>(of, StateId::Admission);
    assert!(profiles(&whole).len() >= 200 && admission(&whole).len() >= 200);
    assert_eq!(profiles(&restored), profiles(&whole));
    assert_eq!(admission(&restored), admission(&whole));
}

/// A state whose rows are of any shard, as sums are that a worker adds up for others.
struct Numbers(Vec<u64>);

impl Durable for Numbers {
    const ID: StateId = StateId::Geo;
    type Row<'a> = u64;

    fn rows_out(&mut self, out: &mut dyn RowsOut<Self>) {
        self.0.iter().for_each(|number| out.row(*number));
    }
    fn row_in(&mut self, number: u64) {
        self.0.push(number);
    }
    fn shard(number: &u64) -> Shard {
        Shard::Of(*number)
    }
    fn footprint(&self) -> Footprint {
        Footprint::default()
    }
}

#[test]
fn as_many_workers_get_back_what_each_had_and_others_what_is_theirs() {
    let mut snapshot = Snapshot::default();
    for (worker, numbers) in [vec![0, 1, 2, 3], vec![4, 5]].into_iter().enumerate() {
        let mut parts = BTreeMap::new();
        let mut encoder = PartsEncoder::new(Numbers::ID, worker, SnapshotRequest::ALL, &mut parts);
        Numbers(numbers).rows_out(&mut encoder);
        encoder.finish();
        snapshot.merge(TakenSnapshot::new(2, parts).encode());
    }
    let restored = |workers| {
        let of_worker = |worker| {
            let mut registry = Registry::new(worker, workers, Some(&snapshot));
            registry.register(Numbers(Vec::new())).unwrap().with(|numbers| numbers.0.clone())
        };
        (0..workers).map(of_worker).collect::<Vec<_>>()
    };
    assert_eq!(restored(2), [vec![0, 1, 2, 3], vec![4, 5]]);
    assert_eq!(restored(1), [[0, 1, 2, 3, 4, 5]]);
    assert_eq!(restored(3), [[0, 3], [1, 4], [2, 5]]);
}
