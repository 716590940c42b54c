//! Lively worlds, seen from outside: what is in the files has the properties that rhythms, timetables and
//! labelled episodes are there for.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;
use keytide_dataflow::model::time::{DAY_MS, HOUR_MS, MINUTE_MS};
use keytide_dataflow::model::{KeyState, hex};
use serde::Deserialize;

use super::*;
use crate::story::episodes::EpisodePlan;
use crate::story::scenario::KINDS;
use crate::story::traffic::LivelyTraffic;
use crate::world::habit::{AddressPool, Habit, habits};
use crate::world::population::{AGENTS, COUNTRIES, Key, Population};
use crate::world::rhythm::Clocks;

/// Monday, 2025-06-02, 08:00 UTC.
const START: u64 = 1_748_851_200_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Call {
    request_time: u64,
    api_key: Option<String>,
    route_key: String,
    http_method: String,
    status: u16,
    ip: String,
    country: String,
    user_agent: String,
}

#[derive(Deserialize)]
struct Label {
    key_id: Option<String>,
    kind: String,
    leak: bool,
    from: String,
    to: String,
    calls: u64,
    multiple: Option<f64>,
    origins: Option<usize>,
    user_agent_new: bool,
    routes_new: bool,
    returns: Option<String>,
    countries: Option<BTreeSet<String>>,
    asns: Option<BTreeSet<u32>>,
    api: Option<String>,
}

struct World {
    /// The same world, from inside.
    made: crate::World,
    files: BTreeMap<String, Vec<u8>>,
    generated: Generated,
    calls: Vec<Call>,
    labels: Vec<Label>,
    /// Indices of calls by key id.
    by_key: HashMap<String, Vec<usize>>,
}

impl World {
    fn new(options: &str) -> Self {
        let options = format!("{options} --duplicates 0");
        let (generated, files) = generated(&options);
        let made = crate::World::new(settings(&options)).unwrap();
        let parsed = |line| serde_json::from_str(line).unwrap();
        let calls: Vec<Call> = text(&files, "/events.jsonl").lines().map(parsed).collect();
        let labels =
            text(&files, "/labels.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let mut by_key: HashMap<String, Vec<usize>> = HashMap::new();
        let mut ids = HashMap::new();
        for (index, call) in calls.iter().enumerate() {
            if let Some(raw) = &call.api_key {
                let id = ids.entry(raw).or_insert_with(|| {
                    let hash: [u8; 32] = sha2::Digest::finalize(sha2::Digest::chain_update(
                        <sha2::Sha256 as sha2::Digest>::new(),
                        raw,
                    ))
                    .into();
                    hex(&hash[..16])
                });
                by_key.entry(id.clone()).or_default().push(index);
            }
        }
        Self { made, files, generated, calls, labels, by_key }
    }

    fn of(&self, key: &str) -> Vec<&Call> {
        self.by_key.get(key).into_iter().flatten().map(|index| &self.calls[*index]).collect()
    }

    /// The habit of a key, and the texts of the user agent of its episode.
    fn inside(&self, key: &str) -> (&Key, &Habit, [&str; 2]) {
        let population = &self.made.population;
        let (habits, plan) = self.made.lively().unwrap();
        let index = population.keys.iter().position(|other| other.id() == key).unwrap();
        let episode = plan.episodes.iter().find(|episode| episode.key == Some(index as u32)).unwrap();
        let agents = episode.agents.map(|agent| &*population.agents[agent as usize]);
        (&population.keys[index], &habits[index], agents)
    }

    /// The systems that a key is ever used from by its owner.
    fn systems(&self, habit: &Habit) -> BTreeSet<u32> {
        let networks = &self.made.population.networks;
        let sites = habit.sites(networks.countries());
        sites.map(|site| networks.get(site.first_network).asn).collect()
    }

    /// A row of a table, by the name of its columns.
    fn row(&self, table: &str, column: &str, starts: &str) -> HashMap<String, String> {
        let mut lines = text(&self.files, table).lines().map(|line| line.split(','));
        let names: Vec<_> = lines.next().unwrap().map(str::to_owned).collect();
        let mut rows = lines.map(|line| names.iter().cloned().zip(line.map(str::to_owned)));
        let row = rows.find_map(|row| {
            let row: HashMap<_, _> = row.collect();
            row[column].starts_with(starts).then_some(row)
        });
        row.unwrap_or_else(|| panic!("{table} has no {column} {starts}"))
    }
}

fn ms(time: &str) -> u64 {
    time.parse::<Timestamp>().unwrap().as_millisecond().unsigned_abs()
}

fn share(calls: &[&Call], of: impl Fn(&Call) -> bool) -> f64 {
    calls.iter().filter(|call| of(call)).count() as f64 / calls.len() as f64
}

/// Every kind has the property that it is there to be found, or not to be found, by.
#[test]
fn episodes_are_what_their_labels_say() {
    let world =
        World::new("--scenario mixed --days 14 --events 240000 --keys 400 --leaks 28 --look-alikes 22");
    let (leaks, others): (Vec<_>, Vec<_>) = world.labels.iter().partition(|label| label.leak);
    let of_databases = leaks.iter().filter(|label| label.kind == "stolen_database").count();
    assert!((2 * 8..=2 * 20).contains(&of_databases), "{of_databases}");
    assert_eq!((leaks.len() - of_databases, others.len()), (26, 22));
    let kinds = |labels: &[&Label]| labels.iter().map(|label| label.kind.clone()).collect::<BTreeSet<_>>();
    assert_eq!((kinds(&leaks).len(), kinds(&others).len()), (14, 12));
    let sum = |labels: &[&Label]| Some(labels.iter().map(|label| label.calls).sum::<u64>());
    assert_eq!((sum(&leaks), sum(&others)), (world.generated.leak_calls, world.generated.look_alike_calls));
    let keys: BTreeSet<_> = world.labels.iter().filter_map(|label| label.key_id.as_ref()).collect();
    assert_eq!(keys.len(), world.labels.iter().filter(|label| label.key_id.is_some()).count());

    let (geo, _) = geo(&world);
    for label in &world.labels {
        match &label.key_id {
            Some(key) => an_episode_of_a_key(&world, label, key, &geo),
            None => an_episode_of_many(&world, label),
        }
    }
}

fn geo(world: &World) -> (GeoDatabases, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| {
        let path = folder.path().join(name);
        fs::write(&path, &world.files[&format!("geo/{name}")]).unwrap();
        Some(path)
    };
    let config =
        keytide_config::Geo { country: file("country.mmdb"), asn: file("asn.mmdb"), ..Default::default() };
    (GeoDatabases::open(&config).unwrap().0, folder)
}

fn an_episode_of_a_key(world: &World, label: &Label, key: &str, geo: &GeoDatabases) {
    let name = format!("{} of {key}", label.kind);
    let (from, to) = (ms(&label.from), ms(&label.to));
    assert!(from > START + 5 * DAY_MS && from < to && to <= START + 14 * DAY_MS, "{name}");
    let row = world.row("tables/keys.csv", "key_hash", key);
    let owner = world.row("tables/subscriptions.csv", "id", &row["subscription"]);
    let all = world.of(key);
    let before: Vec<&Call> = all.iter().copied().filter(|call| call.request_time < from).collect();
    let during: Vec<&Call> =
        all.iter().copied().filter(|call| (from..to).contains(&call.request_time)).collect();
    let usual: BTreeSet<_> = before.iter().map(|call| &call.ip).collect();
    let agents: BTreeSet<_> = before.iter().map(|call| &call.user_agent).collect();
    let routes: BTreeSet<_> = before.iter().map(|call| (&call.http_method, &call.route_key)).collect();
    let countries: BTreeSet<_> = before.iter().map(|call| &call.country).collect();
    let asn = |call: &Call| geo.locate(call.ip.parse().unwrap()).asn;
    let (inner, habit, staged_agents) = world.inside(key);
    let asns = world.systems(habit);
    assert!(before.iter().all(|call| asns.contains(&asn(call))), "{name}");

    // Calls of the episode: by the networks it says they come from, else all that are made.
    // A thief's calls are known by the agent, which the owner never has.
    let networks =
        label.asns.as_ref().filter(|_| !matches!(label.kind.as_str(), "autoscaling" | "new_region"));
    let fresh = |call: &Call| !usual.contains(&call.ip);
    let by_thief = |call: &Call| !label.leak || staged_agents.contains(&call.user_agent.as_str());
    let staged: Vec<&Call> = match networks {
        Some(networks) => {
            let staged = |call: &Call| fresh(call) && networks.contains(&asn(call)) && by_thief(call);
            during.iter().copied().filter(|call| staged(call)).collect()
        }
        None => during.clone(),
    };
    let found = staged.len() as u64;
    assert!(
        label.calls >= 5 && found >= label.calls - label.calls / 20,
        "{name}: {found} of {}",
        label.calls
    );
    if networks.is_some() {
        assert!(found <= label.calls + label.calls / 20 + 3, "{name}: {found} of {}", label.calls);
        let addresses: BTreeSet<_> = staged.iter().map(|call| &call.ip).collect();
        assert!(addresses.len() <= label.origins.unwrap(), "{name}");
        let reported = label.countries.as_ref().unwrap();
        assert!(staged.iter().all(|call| reported.contains(&call.country)), "{name}: databases know them");
    }
    if label.leak && label.kind != "fan_out" {
        assert!(label.asns.as_ref().unwrap().is_disjoint(&asns), "{name}: a network of its own");
        let other = share(&staged, |call| !agents.contains(&call.user_agent));
        assert!(other > 0.99 || label.kind == "dormant_woken", "{name}");
        let countries = label.countries.as_ref().unwrap();
        let networks = &world.made.population.networks;
        let known = |site: AddressPool| COUNTRIES[networks.get(site.first_network).country as usize].0;
        let new = habit.sites(networks.countries()).all(|site| !countries.contains(known(site)));
        let at_home = matches!(label.kind.as_str(), "night_use" | "stolen_database");
        assert!(new || at_home, "{name}: a country of its own");
    }
    let usual_calls = before.len() as f64 * (to - from) as f64 / (from - START) as f64;
    let multiple = found as f64 / usual_calls.max(1.0);
    match label.kind.as_str() {
        "burst_new_origin" => assert!(multiple > 5.0 && label.multiple >= Some(9.9), "{name}"),
        "second_user" => {
            let owners = during.len() - staged.len();
            assert!(owners > 0 && (label.calls < 1_000 || multiple < 4.0), "{name}: {multiple}");
        }
        "slow_drip" => {
            let hours: BTreeSet<_> = staged.iter().map(|call| call.request_time / HOUR_MS).collect();
            assert!(hours.len() as u64 > (to - from) / HOUR_MS / 2 && to - from >= DAY_MS, "{name}");
        }
        "fan_out" => {
            let addresses: BTreeSet<_> = staged.iter().map(|call| &call.ip).collect();
            let countries: BTreeSet<_> = staged.iter().map(|call| &call.country).collect();
            assert!(addresses.len() >= 100 && countries.len() >= 10, "{name}");
            assert!(found / addresses.len() as u64 <= 50, "{name}");
        }
        "scraping" | "probing" => {
            let new: Vec<_> = staged
                .iter()
                .map(|call| (&call.http_method, &call.route_key))
                .filter(|route| !routes.contains(route))
                .collect();
            assert!(new.len() as u64 > found / 10 * 9, "{name}");
            let distinct = new.iter().collect::<BTreeSet<_>>().len();
            assert!(distinct >= 15, "{name}: {distinct}");
            let refused = share(&staged, |call| matches!(call.status, 401 | 403));
            assert_eq!(refused > 0.6, label.kind == "probing", "{name}: {refused}");
        }
        "night_use" => {
            let zone = COUNTRIES.iter().position(|(_, zone, _)| *zone == owner["time_zone"]).unwrap();
            let hour = |call: &Call| {
                Clocks::new().local(zone as u32, call.request_time).rem_euclid(DAY_MS.cast_signed())
                    / HOUR_MS.cast_signed()
            };
            assert!(staged.iter().all(|call| hour(call) < 5), "{name}");
            let at_night = before.iter().filter(|call| hour(call) < 5).count();
            assert!(at_night < before.len() / 10, "{name}: its people sleep");
        }
        "dormant_woken" => {
            assert!(before.is_empty() && during.len() == all.len(), "{name}");
            assert!(
                ms(&row["last_used_at"]) < START - 30 * DAY_MS && row["created_at"] <= row["last_used_at"],
                "{name}"
            );
        }
        "after_revocation" => {
            assert_eq!((row["state"].as_str(), &row["revoked_at"]), ("revoked", &label.from), "{name}");
            let after: Vec<&Call> = all.iter().copied().filter(|call| call.request_time >= from).collect();
            assert!(share(&after, |call| call.status < 400) > 0.7, "{name}");
            assert!(!before.is_empty() && share(&before, |call| call.status < 400) > 0.7, "{name}");
        }
        "forgotten_client" => {
            assert_eq!((row["state"].as_str(), &row["revoked_at"]), ("revoked", &label.from), "{name}");
            assert!(all.iter().filter(|call| call.request_time >= from).all(|call| call.status == 401));
            assert!(staged.iter().all(|call| asns.contains(&asn(call))), "{name}: no network is new");
        }
        "ramp_up" => {
            let middle = from + (to - from) / 2;
            let late = share(&staged, |call| call.request_time >= middle);
            assert!((0.6..0.9).contains(&late), "{name}: {late}");
            assert!(staged.iter().all(|call| asns.contains(&asn(call))), "{name}: no network is new");
        }
        "cron_at_the_hour" => {
            let on_the_hour = |calls: &[&Call]| {
                calls.iter().filter(|call| call.request_time % HOUR_MS < MINUTE_MS).count() as u64
            };
            assert!(on_the_hour(&during) >= label.calls - label.calls / 20, "{name}");
            assert!(on_the_hour(&before) < label.calls / 20 + 5, "{name}");
        }
        "probed_first_1" | "probed_first_5" | "probed_first_20" | "probed_drip" => {
            let returns = ms(label.returns.as_ref().unwrap());
            let tries: Vec<_> = staged.iter().filter(|call| call.request_time < returns).collect();
            let wanted = KINDS.iter().find(|kind| kind.name == label.kind).unwrap().probes as usize;
            // A try that fails may be made again.
            assert!((wanted..=wanted + wanted / 4 + 1).contains(&tries.len()), "{name}: {}", tries.len());
            let last = tries.iter().map(|call| call.request_time).max().unwrap();
            assert!((2 * HOUR_MS - 30_000..=6 * HOUR_MS + MINUTE_MS).contains(&(returns - last)), "{name}");
            let places: BTreeSet<_> = staged.iter().map(|call| &call.ip).collect();
            assert_eq!(places.len(), 1, "{name}");
        }
        "stolen_database" => {
            let place = |label: &Label| (label.asns.clone(), label.countries.clone());
            let theft = || world.labels.iter().filter(|other| place(other) == place(label));
            let theft = || theft().filter(|other| other.kind == label.kind);
            let first = theft().map(|other| ms(&other.from)).min().unwrap();
            let last = theft().map(|other| ms(&other.to)).max().unwrap();
            assert!(theft().count() >= 8 && last - first <= HOUR_MS, "{name}");
            let owner = |label: &Label| {
                let row = world.row("tables/keys.csv", "key_hash", label.key_id.as_ref().unwrap());
                world.row("tables/subscriptions.csv", "id", &row["subscription"])["customer"].clone()
            };
            assert!(theft().map(owner).collect::<BTreeSet<_>>().len() >= 4, "{name}");
        }
        "upgrade" => {
            let new = share(&during, |call| staged_agents.contains(&call.user_agent.as_str()));
            assert!(new > 0.8 && label.user_agent_new && label.routes_new, "{name}: {new}");
            assert!(!agents.iter().any(|agent| staged_agents.contains(&agent.as_str())), "{name}");
            let new: BTreeSet<_> = during
                .iter()
                .map(|call| (&call.http_method, &call.route_key))
                .filter(|route| !routes.contains(route))
                .collect();
            assert!(!new.is_empty() && label.countries.is_none(), "{name}");
            assert!(during.iter().all(|call| asns.contains(&asn(call))), "{name}: no network is new");
        }
        "new_region" => {
            let reported = label.countries.as_ref().unwrap();
            let new: Vec<_> = during.iter().filter(|call| reported.contains(&call.country)).collect();
            assert!(new.len() as u64 > label.calls * 9 / 10 && !reported.contains(home(&owner)), "{name}");
            assert!(label.asns.as_ref().unwrap().is_subset(&asns) && habit.is_of_servers(), "{name}");
            assert!(inner.state == KeyState::Active && new.len() < during.len(), "{name}: it goes on");
        }
        "travelling_user" | "network_change" => {
            assert!(staged.len() * 10 > during.len() * 8, "{name}");
            let abroad = !countries.contains(&staged[0].country);
            let home = home(&owner);
            assert_eq!(staged[0].country != home, label.kind == "travelling_user", "{name}");
            assert!(abroad || staged[0].country == home || label.kind == "travelling_user", "{name}");
            // The owner's clients, of which one may be upgraded meanwhile.
            let texts = &world.made.population.agents;
            let usual = |call: &&Call| {
                let mut agents = (0..).zip(texts).filter(|(_, text)| ***text == *call.user_agent);
                agents.any(|(agent, _)| habit.uses_agent(inner, agent % AGENTS.len() as u32))
            };
            assert!(staged.iter().all(usual), "{name}");
            // Few calls, of which one batch can be many.
            assert!((0.3..5.0).contains(&label.multiple.unwrap()), "{name}: {:?}", label.multiple);
        }
        "autoscaling" => {
            let new: Vec<_> = during.iter().filter(|call| fresh(call)).collect();
            assert!(new.len() as u64 > label.calls / 2, "{name}");
            assert!(new.iter().all(|call| asns.contains(&asn(call))), "{name}: no network is new");
            assert!(new.iter().map(|call| &call.ip).collect::<BTreeSet<_>>().len() > 5, "{name}");
        }
        "load_test" => {
            let tool = during.iter().filter(|call| call.user_agent.starts_with("k6/"));
            let tool: Vec<_> = tool.collect();
            assert_eq!(tool.len() as u64, label.calls, "{name}");
            assert!(tool.iter().all(|call| asns.contains(&asn(call))) && multiple > 5.0, "{name}");
        }
        kind => panic!("{kind} has no test"),
    }
}

/// The code of an owner's country.
fn home(owner: &HashMap<String, String>) -> &'static str {
    COUNTRIES.iter().find(|(_, zone, _)| *zone == owner["time_zone"]).unwrap().0
}

fn an_episode_of_many(world: &World, label: &Label) {
    let (from, to) = (ms(&label.from), ms(&label.to));
    let within = |time: u64| {
        world.calls.iter().filter(move |call| (time + from..time + to).contains(&call.request_time))
    };
    match label.kind.as_str() {
        "launch_day" => {
            assert!(within(0).count() as u64 >= label.calls * 9 / 10);
            // The same time of the other days. One of them may have an episode of its own.
            let other = |day: i64| {
                let moved = |time: u64| time.saturating_add_signed(day * DAY_MS.cast_signed());
                let calls = world.calls.iter();
                calls.filter(|call| (moved(from)..moved(to)).contains(&call.request_time)).count() as u64
            };
            let mut others: Vec<u64> = (-13..=13).filter(|day| *day != 0).map(other).collect();
            others.retain(|calls| *calls > 0);
            others.sort_unstable();
            let usual = others[others.len() / 2];
            assert!(label.calls * 2 > usual * 3, "{} for {usual}", label.calls);
            let keys: HashSet<_> = within(0).filter_map(|call| call.api_key.as_ref()).collect();
            assert!(keys.len() > 50, "{}", keys.len());
        }
        "clock_jump" => {
            let minutes = (to - from) / MINUTE_MS;
            let per_minute = |from: u64, to: u64| {
                let of = |call: &&Call| (from..to).contains(&call.request_time) && call.api_key.is_some();
                world.calls.iter().filter(of).count() as f64 * MINUTE_MS as f64 / (to - from) as f64
            };
            let burst = to - MINUTE_MS;
            let (held, at_once) = (per_minute(from, burst), per_minute(burst, to));
            assert!(minutes >= 6 && at_once > 2.0 * held, "{at_once} after {held}");
            assert!(label.multiple.unwrap() >= 2.0, "{:?}", label.multiple);
        }
        "retry_storm" => {
            let resource = format!("/{}", label.api.as_ref().unwrap());
            let calls: Vec<_> = within(0)
                .filter(|call| call.api_key.is_some() && call.route_key.contains(&resource))
                .collect();
            let failed = share(&calls, |call| call.status == 503);
            assert!(failed > 0.7 && calls.len() >= 5, "{failed} of {}", calls.len());
            let keys: HashSet<_> = calls.iter().map(|call| &call.api_key).collect();
            assert!(keys.len() < calls.len(), "some try again");
        }
        kind => panic!("{kind} has no test"),
    }
}

/// Disorder must not change the content of a call: neither its time, on which its
/// label or its timetable relies, nor anything else.
#[test]
fn disorder_changes_the_order_of_lines_and_nothing_else() {
    // Five calls an hour in the mean: what is before a call of its file is far away.
    for options in ["--scenario leaks --leaks 4 --days 60 --events 8000 --keys 40", "--events 3000 --span 4h"]
    {
        let world = |disorder: &str| {
            let (reported, files) = generated(&format!("{options} --duplicates 0 {disorder}"));
            let mut lines: Vec<_> = text(&files, "/events.jsonl").lines().map(str::to_owned).collect();
            let in_order =
                lines.is_sorted_by_key(|line| line.split("requestTime").nth(1).unwrap()[2..15].to_owned());
            lines.sort_unstable();
            (reported, lines, in_order, files.get("/labels.jsonl").cloned())
        };
        let (reported, lines, in_order, labels) = world("--out-of-order 0");
        assert!(in_order && (reported.out_of_order, reported.late) == (0, 0), "{reported:?}");
        let (reported, disordered, in_order, same_labels) = world("--out-of-order 0.3 --late 0.05");
        assert!(!in_order && reported.out_of_order > reported.events / 100, "{reported:?}");
        assert!(reported.late > reported.events / 50, "{reported:?}");
        assert!(lines == disordered && labels == same_labels, "{options}");
    }
}

/// An API that is down fails for thieves, too.
#[test]
fn staged_calls_fail_with_their_api() {
    let world = World::new(
        "--scenario mixed --span 6h --events 60000 --keys 300 --routes 4 --leaks 45 --look-alikes 8",
    );
    let storm = world.labels.iter().find(|label| label.kind == "retry_storm").unwrap();
    let resource = format!("/{}", storm.api.as_ref().unwrap());
    let (from, to) = (ms(&storm.from), ms(&storm.to));
    let (geo, _) = geo(&world);
    let mut staged = Vec::new();
    for label in world.labels.iter().filter(|label| label.leak) {
        let calls = world.of(label.key_id.as_ref().unwrap()).into_iter();
        let networks = label.asns.as_ref().unwrap();
        staged.extend(calls.filter(|call| {
            (from..to).contains(&call.request_time)
                && (ms(&label.from)..ms(&label.to)).contains(&call.request_time)
                && call.route_key.contains(&resource)
                && networks.contains(&geo.locate(call.ip.parse().unwrap()).asn)
                && !matches!(call.status, 401 | 403)
        }));
    }
    let failed = share(&staged, |call| call.status == 503);
    assert!(staged.len() >= 20 && failed > 0.7, "{failed} of {}", staged.len());
}

/// Each storm hits some calls, at night and in quiet worlds, too.
#[test]
fn retry_storms_hit_apis_that_are_called() {
    for seed in 1..=12 {
        let world = World::new(&format!(
            "--scenario benign --look-alikes 12 --days 10 --events 20000 --keys 200 --seed {seed}"
        ));
        for label in world.labels.iter().filter(|label| label.kind == "retry_storm") {
            let resource = format!("/{}", label.api.as_ref().unwrap());
            let failed = world.calls.iter().filter(|call| {
                (ms(&label.from)..ms(&label.to)).contains(&call.request_time)
                    && call.route_key.contains(&resource)
                    && call.status == 503
            });
            let failed = failed.count() as u64;
            assert!(label.calls >= 5 && failed >= label.calls, "{seed}: {failed} of {}", label.calls);
            assert!(ms(&label.to) - ms(&label.from) <= 60 * HOUR_MS, "{seed}: a quarter of the run at most");
        }
    }
}

#[test]
fn days_and_weeks_show() {
    let world = World::new("--scenario usual --days 14 --events 120000 --keys 200 --countries 1");
    assert!(world.labels.is_empty());
    assert!((110_000..130_000).contains(&world.generated.events), "{:?}", world.generated);
    let clocks = Clocks::new();
    // Of all keys: calls by the owners' hour; of each: its share at work (9 to 17 from Monday to Friday).
    let mut hours = [0_u32; 24];
    let mut at_work = 0;
    let (mut timetables, mut batches) = (0, 0);
    for key in world.by_key.keys() {
        let calls = world.of(key);
        let local = |call: &Call| clocks.local(0, call.request_time).unsigned_abs();
        for call in &calls {
            hours[(local(call) % DAY_MS / HOUR_MS) as usize] += 1;
        }
        if calls.len() < 100 {
            continue;
        }
        let work = share(&calls, |call| {
            let (day, hour) = (local(call) / DAY_MS, local(call) % DAY_MS / HOUR_MS);
            (day + 3) % 7 < 5 && (9..17).contains(&hour)
        });
        // Evenly it would be 0.24.
        at_work += u32::from(work > 0.5);
        let minutes: BTreeSet<_> = calls.iter().map(|call| call.request_time / MINUTE_MS % 60).collect();
        let early = share(&calls, |call| call.request_time % MINUTE_MS < MINUTE_MS / 2 + 5_000);
        timetables += u32::from(minutes.len() <= 30 && early > 0.95);
        batches +=
            calls.windows(5).filter(|five| five[4].request_time < five[0].request_time + 3_000).count();
    }
    assert!(hours[14] > hours[3] * 3 / 2, "{hours:?}");
    assert!(at_work >= 10 && timetables >= 5 && batches > 100, "{at_work}, {timetables}, {batches}");
}

#[test]
fn popularity_survives_rhythms() {
    let world = World::new("--scenario usual --days 14 --events 100000 --keys 100");
    let mut counts: Vec<_> = world.by_key.values().map(|calls| calls.len() as f64).collect();
    counts.sort_unstable_by(|a, b| b.total_cmp(a));
    for rank in [5_usize, 10, 20, 40] {
        let (ratio, expected) = (counts[0] / counts[rank - 1], (rank as f64).powf(1.05));
        assert!((0.6..1.6).contains(&(ratio / expected)), "rank {rank}: {ratio} for {expected}");
    }
    // Suspended and revoked keys are silent, lest they look like leaks.
    assert!(world.by_key.len() < 98, "{}", world.by_key.len());
}

#[test]
fn clocks_are_those_of_their_zones() {
    let clocks = Clocks::new();
    let at = |code: &str, time: &str| {
        let country = COUNTRIES.iter().position(|(other, ..)| *other == code).unwrap() as u32;
        let time = ms(time);
        let local = clocks.local(country, time);
        assert_eq!(clocks.utc(country, local), time, "{code}");
        (local - time.cast_signed()) / MINUTE_MS.cast_signed()
    };
    for (code, january, july) in [
        ("US", -300, -240),
        ("DE", 60, 120),
        ("GB", 0, 60),
        ("IE", 0, 60),
        ("IN", 330, 330),
        ("AU", 660, 600),
        ("CL", -180, -240),
        ("IL", 120, 180),
        ("EG", 120, 180),
        ("BR", -180, -180),
        ("UA", 120, 180),
        ("VN", 420, 420),
    ] {
        let offsets = (at(code, "2026-01-15T12:00:00Z"), at(code, "2025-07-15T12:00:00Z"));
        assert_eq!(offsets, (january, july), "{code}");
    }
    assert_eq!(at("US", "2025-03-09T06:59:59Z"), -300);
    assert_eq!(at("US", "2025-03-09T07:00:00Z"), -240);
}

/// The number of scheduled calls doesn't grow with the span.
#[test]
fn weeks_are_held_in_the_memory_of_days() {
    let most_held = |options: &str| {
        let settings = settings(options);
        let mut population = Population::new(&settings, Draw::new(1, 0));
        let mut habits = habits(&settings, &population, &mut Draw::new(1, 3));
        let plan = EpisodePlan::new(&settings, &mut population, &mut habits, &mut Draw::new(1, 4)).unwrap();
        let mut draw = Draw::new(1, 5);
        let mut traffic = LivelyTraffic::new(&settings, &population, &habits, &plan, &mut draw);
        let (mut most, mut before, mut count) = (0, 0, 0_u64);
        while let Some(call) = traffic.next(&mut draw) {
            assert!(before <= call.time, "calls come in the order of time");
            (before, count) = (call.time, count + 1);
            most = most.max(traffic.pending_calls());
        }
        (most, count)
    };
    let (days, few) = most_held("--scenario usual --days 2 --events 10000 --keys 100");
    let (weeks, many) = most_held("--scenario usual --days 28 --events 140000 --keys 100");
    assert!(many > few * 12 && weeks < days * 3, "{weeks} of {many} for {days} of {few}");
}

#[test]
fn worlds_too_small_for_their_scenario_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    for (options, says) in [
        ("--leaks 1", "need a scenario other than plain"),
        ("--scenario leaks --span 59m", "--span of 1h at least"),
        ("--scenario leaks --keys 1", "no key is left"),
        ("--scenario mixed --events 100 --days 10", "no key is left"),
        ("--scenario leaks --start 1970-01-01T00:00:00Z --span 2h", "no key is left"),
    ] {
        let error = generate(&out, options).unwrap_err().to_string();
        assert!(error.contains(says), "{options}: {error}");
        assert!(!out.exists(), "{options}");
    }
    for (options, labels) in
        [("--scenario leaks --leaks 0", 0), ("--scenario usual --leaks 3 --look-alikes 2 --keys 300", 5)]
    {
        let (_, files) = generated(&format!("{options} --span 6h"));
        assert_eq!(text(&files, "/labels.jsonl").lines().count(), labels, "{options}");
    }
    let names: BTreeSet<_> = KINDS.iter().map(|kind| kind.name).collect();
    assert_eq!(names.len(), KINDS.len());
}
