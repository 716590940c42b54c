//! Ordinary keys of lively worlds, seen from inside: they move as the table of customers says.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;
use keytide_dataflow::model::time::{DAY_MS, HOUR_MS, MINUTE_MS};

use super::*;
use crate::world::habit::{CUSTOMERS, Caller, Habit, Places, habits};
use crate::world::network::NetworkKind;
use crate::world::population::{AGENTS, Key, Population};
use crate::world::rhythm::Clocks;

struct Ordinary {
    population: Population,
    habits: Vec<Habit>,
    clocks: Clocks,
    start_ms: u64,
    span_ms: u64,
}

/// A key that is never used from elsewhere, with its calls, one every ten minutes.
struct Observed<'o> {
    key: &'o Key,
    habit: &'o Habit,
    calls: Vec<(u64, Caller)>,
}

impl Ordinary {
    fn new(options: &str) -> Self {
        let settings = settings(&format!("--scenario usual {options}"));
        let population = Population::new(&settings, Draw::new(settings.seed, 0));
        let habits = habits(&settings, &population, &mut Draw::new(settings.seed, 3));
        let (start_ms, span_ms) = (settings.start_ms, settings.span_ms);
        Self { population, habits, clocks: Clocks::new(), start_ms, span_ms }
    }

    /// Observes keys of one kind, of which none is confined.
    fn observed(&self, places: Places, count: usize) -> Vec<Observed<'_>> {
        let keys = self.population.keys.iter().zip(&self.habits);
        let keys = keys.filter(|(key, habit)| {
            habit.customer.places == places && habit.elsewhere().is_none() && !key.confined
        });
        let mut draw = Draw::new(9, 9);
        let networks = &self.population.networks;
        let observed: Vec<_> = keys
            .take(count)
            .map(|(key, habit)| {
                let times = (self.start_ms..self.start_ms + self.span_ms).step_by(10 * MINUTE_MS as usize);
                let caller = |time| (time, habit.caller(key, networks, &self.clocks, time, &mut draw));
                Observed { key, habit, calls: times.map(caller).collect() }
            })
            .collect();
        assert_eq!(observed.len(), count, "{places:?}");
        observed
    }

    /// Returns the network of an address.
    fn network(&self, address: IpAddr) -> (u32, NetworkKind) {
        let all = self.population.networks.all();
        let of = all.iter().find(|network| network.prefixes().iter().any(|net| net.contains(&address)));
        let of = of.unwrap_or_else(|| panic!("{address} is of no network"));
        (of.asn, of.kind.unwrap())
    }
}

impl Observed<'_> {
    fn addresses(&self) -> HashSet<IpAddr> {
        self.calls.iter().map(|(_, caller)| caller.address.address).collect()
    }

    fn blocks(&self) -> HashSet<IpNet> {
        self.addresses().into_iter().map(block).collect()
    }

    fn systems(&self, world: &Ordinary) -> BTreeSet<u32> {
        self.addresses().into_iter().map(|address| world.network(address).0).collect()
    }
}

fn block(address: IpAddr) -> IpNet {
    IpNet::new(address, if address.is_ipv4() { 24 } else { 48 }).unwrap().trunc()
}

#[test]
fn kinds_of_customers_have_the_shares_of_the_table() {
    assert_eq!(CUSTOMERS.iter().map(|customer| customer.of_hundred).sum::<u32>(), 100);
    let world = Ordinary::new("--keys 40000");
    for customer in &CUSTOMERS {
        let of_kind = |habit: &&Habit| std::ptr::eq(habit.customer, customer);
        let share = world.habits.iter().filter(of_kind).count() as f64 / 400.0;
        let expected = f64::from(customer.of_hundred);
        assert!((share - expected).abs() < 0.5 + expected / 10.0, "{customer:?}: {share} %");
    }
}

#[test]
fn servers_stay_in_a_system_whatever_their_networks() {
    let world = Ordinary::new("--keys 3000 --days 10");
    for fleet in world.observed(Places::Fleet, 10) {
        assert!(fleet.addresses().len() <= 8 && fleet.blocks().len() <= 8, "{:?}", fleet.addresses());
        assert_eq!(fleet.systems(&world).len(), 1);
    }
    for scaled in world.observed(Places::Autoscaled, 10) {
        let (addresses, blocks) = (scaled.addresses().len(), scaled.blocks().len());
        assert!(addresses >= 20 && (4..=24).contains(&blocks), "{addresses} in {blocks}");
        assert_eq!(scaled.systems(&world).len(), 1);
    }
    let mut in_several_countries = 0;
    for functions in world.observed(Places::Functions, 20) {
        assert!(functions.blocks().len() >= 150, "{}", functions.blocks().len());
        assert_eq!(functions.systems(&world).len(), 1);
        // Misplaced blocks are few.
        let mut countries: BTreeMap<u32, u32> = BTreeMap::new();
        functions.calls.iter().for_each(|(_, call)| *countries.entry(call.address.country).or_default() += 1);
        in_several_countries += u32::from(countries.values().filter(|calls| **calls > 100).count() > 1);
    }
    assert!((6..20).contains(&in_several_countries), "{in_several_countries} of 20");
    for partner in world.observed(Places::TwoClouds, 10) {
        assert!(partner.addresses().len() <= 8);
        assert_eq!(partner.systems(&world).len(), 2);
    }
}

#[test]
fn each_run_of_continuous_integration_has_fresh_addresses() {
    let world = Ordinary::new("--keys 3000 --days 10 --events 3000000");
    let mut other_tools = 0;
    for runners in world.observed(Places::Runners, 10) {
        let mut days: BTreeMap<u64, HashSet<IpAddr>> = BTreeMap::new();
        for (time, caller) in &runners.calls {
            days.entry(time / DAY_MS).or_default().insert(caller.address.address);
            let family = caller.agents[0] as usize % AGENTS.len();
            other_tools += u32::from(family != runners.key.agents[0] as usize);
        }
        let days: Vec<_> = days.values().collect();
        assert!(days.windows(2).all(|two| two[0].intersection(two[1]).count() <= 3));
        assert!(runners.addresses().len() >= 300, "{}", runners.addresses().len());
        assert_eq!(runners.systems(&world).len(), 2);
    }
    // One run in fifteen.
    let share = f64::from(other_tools) / 10.0 / 1_440.0;
    assert!((0.04..0.1).contains(&share), "{share}");
    // Most have enough calls for runs, at any hour of the day.
    let runs = world.habits.iter().filter(|habit| habit.is_of_runners()).count();
    assert!(runs >= 50, "{runs}");
}

#[test]
fn users_of_apps_are_with_several_carriers_and_some_abroad() {
    let world = Ordinary::new("--keys 3000 --days 10");
    let mut abroad = 0;
    let apps = world.observed(Places::App, 20);
    for app in &apps {
        let home = world.population.subscriptions[app.key.subscription as usize].country;
        abroad += app.calls.iter().filter(|(_, call)| call.address.country != home).count();
        assert!(app.blocks().len() >= 60, "{}", app.blocks().len());
        assert!(app.systems(&world).len() >= 4, "{:?}", app.systems(&world));
        let agents: HashSet<_> = app.calls.iter().map(|(_, call)| call.agents[0]).collect();
        assert!(agents.len() >= 3, "{agents:?}");
        assert!(agents.iter().all(|agent| app.habit.uses_agent(app.key, agent % AGENTS.len() as u32)));
    }
    let share = abroad as f64 / (apps.len() * 1_440) as f64;
    assert!((0.01..0.08).contains(&share), "{share}");
}

#[test]
fn people_carry_laptops_about() {
    let world = Ordinary::new("--keys 3000 --days 10");
    let mut counts: BTreeMap<(bool, u8), u32> = BTreeMap::new();
    for laptop in world.observed(Places::Laptop, 20) {
        // Office, home and phone; not all were in a café.
        assert!((3..=4).contains(&laptop.systems(&world).len()));
        let country = world.population.subscriptions[laptop.key.subscription as usize].country;
        for (time, caller) in &laptop.calls {
            let local = world.clocks.local(country, *time).unsigned_abs();
            let (day, hour) = (local / DAY_MS, local % DAY_MS / HOUR_MS);
            let at_work = (day + 3) % 7 < 5 && (8..18).contains(&hour);
            let (_, kind) = world.network(caller.address.address);
            *counts.entry((at_work, kind as u8)).or_default() += 1;
        }
    }
    let share = |at_work: bool, kind: NetworkKind| {
        let of_time: u32 = counts.iter().filter(|((other, _), _)| *other == at_work).map(|(_, n)| n).sum();
        f64::from(*counts.get(&(at_work, kind as u8)).unwrap_or(&0)) / f64::from(of_time)
    };
    assert!((0.6..0.85).contains(&share(true, NetworkKind::Office)), "{counts:?}");
    assert_eq!(share(false, NetworkKind::Office), 0.0);
    assert!(share(false, NetworkKind::Home) > 0.85, "{counts:?}");
    assert!((0.03..0.1).contains(&share(true, NetworkKind::Mobile)), "{counts:?}");
    assert!((0.01..0.06).contains(&share(true, NetworkKind::Hotspot)), "{counts:?}");
}

#[test]
fn offices_are_fixed_and_some_move_once() {
    let world = Ordinary::new("--keys 6000 --days 10");
    let offices = world.observed(Places::Office, 300);
    let mut moved = 0;
    for office in &offices {
        let systems: Vec<u32> =
            office.calls.iter().map(|(_, call)| world.network(call.address.address).0).collect();
        let moves = systems.windows(2).filter(|two| two[0] != two[1]).count();
        assert!(moves <= 1, "{moves}");
        assert!(office.blocks().len() <= 2 * (1 + moves), "{:?}", office.blocks());
        moved += moves;
    }
    assert!((10..60).contains(&moved), "{moved} of {}, for one in ten", offices.len());
}

#[test]
fn clients_are_upgraded_and_routes_deployed_for_good() {
    let world = Ordinary::new("--keys 3000 --days 14");
    let (mut upgraded, mut deployed) = (0, 0);
    for fleet in world.observed(Places::Fleet, 200) {
        let versions: Vec<_> =
            fleet.calls.iter().map(|(_, call)| call.agents[0] / AGENTS.len() as u32).collect();
        assert!(versions.is_sorted() && versions[0] == 0);
        upgraded += u32::from(versions.last() != Some(&0));
        let routes: Vec<_> = fleet.calls.iter().map(|(time, _)| fleet.habit.deployed(*time)).collect();
        assert!(routes.is_sorted() && routes[0] == 0);
        deployed += routes.last().unwrap();
    }
    // Once in 25 to 120 days each, and once in 8 to 60.
    assert!((15..80).contains(&upgraded) && (50..200).contains(&deployed), "{upgraded}, {deployed}");
    let agents = &world.population.agents;
    assert_eq!(&*agents[AGENTS.len()], "okhttp/4.13.0");
    assert!(agents[2 * AGENTS.len() + 15].contains("Chrome/133.0.0.0"), "{}", agents[2 * AGENTS.len() + 15]);
    assert_eq!(agents[AGENTS.len() + 12], agents[12], "some texts have no version");
    for (agent, text) in agents.iter().enumerate() {
        assert!(agent >= AGENTS.len() || **text == *AGENTS[agent], "{text}");
    }
}

#[test]
fn nobody_moves_in_a_settled_world() {
    let settings = WorldSettings { settled: true, ..settings("--scenario usual --keys 2000 --days 30") };
    let population = Population::new(&settings, Draw::new(1, 0));
    let (clocks, end_ms) = (Clocks::new(), settings.start_ms + settings.span_ms);
    let mut draw = Draw::new(1, 9);
    for (key, habit) in population.keys.iter().zip(habits(&settings, &population, &mut Draw::new(1, 3))) {
        assert!(matches!(habit.customer.places, Places::Fleet | Places::Office | Places::Home));
        assert_eq!(habit.sites(15).count(), 1 + usize::from(habit.elsewhere().is_some()));
        let last = habit.caller(key, &population.networks, &clocks, end_ms - 1, &mut draw);
        assert_eq!((last.agents, habit.deployed(end_ms)), (key.agents, 0));
    }
}

/// A cloud is one system in all countries; all others are of one country. Databases err on a share of the blocks, and the
/// gateway agrees with them.
#[test]
fn databases_misplace_a_few_networks() {
    let misplaced = |options: &str| {
        let (_, files) = generated(&format!("--scenario usual --events 6000 --keys 300 --days 3 {options}"));
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = folder.path().join(name);
            fs::write(&path, &files[&format!("geo/{name}")]).unwrap();
            Some(path)
        };
        let config = keytide_config::Geo {
            country: file("country.mmdb"),
            asn: file("asn.mmdb"),
            ..Default::default()
        };
        let (geo, _) = GeoDatabases::open(&config).unwrap();
        let settings = settings(&format!("--scenario usual {options}"));
        let networks = crate::world::network::WorldNetworks::new(&settings);
        let mut erring = HashSet::new();
        for record in records(&files).into_iter().flatten().flatten() {
            let address: IpAddr = record["ip"].as_str().unwrap().parse().unwrap();
            let located = geo.locate(address);
            assert_eq!(located.country.as_str(), record["country"].as_str().unwrap());
            let network = networks
                .all()
                .iter()
                .find(|network| network.prefixes().iter().any(|net| net.contains(&address)));
            let network = network.unwrap();
            assert_eq!(located.asn, network.asn);
            let code = crate::world::population::COUNTRIES[network.country as usize].0;
            if located.country.as_str() != code {
                erring.insert(block(address));
            }
        }
        let listed: HashSet<IpNet> = networks.misplaced().map(|(net, _)| net).collect();
        assert!(erring.is_subset(&listed), "{erring:?}");
        (listed.len(), erring.len())
    };
    let (listed, erring) = misplaced("");
    // 180 networks of 2 and 256 blocks.
    assert!((150..320).contains(&listed) && erring > 0, "{listed}, {erring}");
    assert_eq!(misplaced("--misplaced 0"), (0, 0));
    let (listed, erring) = misplaced("--misplaced 1");
    assert!(listed == 180 * 258 && erring > 100, "{listed}, {erring}");
}

#[test]
fn clouds_are_one_system_and_their_regions_many_networks() {
    for countries in [1_usize, 2, 15, 40] {
        let networks = crate::world::network::WorldNetworks::new(&settings(&format!(
            "--scenario usual --countries {countries}"
        )));
        let all = networks.all();
        assert_eq!(all.len(), 12 * countries);
        let mut of_asn: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for network in all {
            of_asn.entry(network.asn).or_default().push(network.country);
        }
        let clouds = of_asn.values().filter(|countries_of| countries_of.len() == countries);
        assert!(clouds.count() >= 4 && of_asn.len() == 8 * countries + 4);
        assert!(of_asn.keys().all(|asn| (64_512..65_535).contains(asn)), "they are private");
        let prefixes: Vec<_> = all.iter().flat_map(|network| network.prefixes()).collect();
        let ranges: [IpNet; 2] = ["198.18.0.0/15".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        for (index, prefix) in prefixes.iter().enumerate() {
            assert!(ranges.iter().any(|range| range.contains(prefix)), "{prefix}");
            let apart = |other: &IpNet| !other.contains(prefix) && !prefix.contains(other);
            assert!(prefixes[..index].iter().all(apart), "{prefix}");
        }
    }
}
