//! The habits of keys in a lively world: the places that calls come from, the clients that make them, the routes that
//! they take, and the times at which they come.
//!
//! Real keys move. Functions and runners get new addresses with every run, carriers' customers share large pools, people
//! carry laptops about, offices move, clients are upgraded, and deploys bring routes. All of it is ordinary and has no
//! label. The table [`CUSTOMERS`] has the kinds of customers.
//!
//! A habit has no memory. The *sites* of a key are numbered, and each is a pool of addresses in one network. Seed and
//! time decide the site of a call, its address, the version of its client, and the routes that were deployed by then.

use keytide_dataflow::model::KeyState;
use keytide_dataflow::model::time::{DAY_MS, HOUR_MS, MINUTE_MS};

use super::network::{AddressChoice, ClientAddress, NetworkKind, WorldNetworks};
use super::population::{BROWSER, Key, MAX_UPGRADES, PHONE_APP, PHONE_SDK, Population, USUAL_AGENTS, agent};
use super::rhythm::{Clocks, Rhythm, RhythmClass};
use super::settings::WorldSettings;
use crate::draw::{Draw, Zipf, mixed};

/// The places from which the keys of a customer are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Places {
    /// Servers with fixed addresses in one region of a cloud.
    Fleet,
    /// Servers in a dozen networks of one region, whose addresses are renewed daily.
    Autoscaled,
    /// Functions: every call comes from one of all networks of one to three regions.
    Functions,
    /// Continuous integration: each run gets runners with fresh addresses of one of two clouds.
    Runners,
    /// An app whose users are with several carriers or at home, some of them abroad.
    App,
    /// One person: by day in the office, else at home, now and then on the phone's line or in a café.
    Laptop,
    Office,
    /// A server at home, whose address is renewed weekly.
    Home,
    /// A partner with servers in two clouds.
    TwoClouds,
}

/// A kind of customer, whose keys have similar habits.
#[derive(Debug)]
pub(crate) struct Customer {
    /// The number of customers of this kind among a hundred.
    pub(crate) of_hundred: u32,
    pub(crate) places: Places,
    pub(crate) rhythm: Rhythm,
    /// The least and the most addresses of one site of a key; users of an app.
    addresses: (u32, u32),
}

/// The kinds of customers. There are no public figures of how API keys are used, so the shares are estimates: three of
/// five keys are used by servers, one by people's devices, and one by offices and homes. Each share has its reason.
pub(crate) static CUSTOMERS: [Customer; 10] = [
    // Back ends on a few machines are the commonest use of an API.
    customer(18, Places::Fleet, Rhythm::Machine, (2, 8)),
    // Larger customers scale with their users, whose evenings show.
    customer(13, Places::Autoscaled, Rhythm::Leisure, (4, 24)),
    // About as many teams deploy functions as clusters that scale.
    customer(12, Places::Functions, Rhythm::Machine, (200, 2_000)),
    // Every team tests its integration, but seldom with a key of its own.
    customer(7, Places::Runners, Rhythm::Office, (1, 3)),
    // Keys in apps are discouraged, but found in many.
    customer(14, Places::App, Rhythm::Leisure, (20, 600)),
    // Developers and analysts work with keys of their own.
    customer(11, Places::Laptop, Rhythm::Waking, (1, 2)),
    // Software in offices: shops, clinics, agencies.
    customer(11, Places::Office, Rhythm::Office, (1, 3)),
    // Hobbyists and small shops.
    customer(5, Places::Home, Rhythm::Leisure, (1, 4)),
    // Partners that run in two clouds are few.
    customer(5, Places::TwoClouds, Rhythm::Machine, (2, 4)),
    // Nightly batches without a timetable of their own.
    customer(4, Places::Fleet, Rhythm::Night, (1, 3)),
];

const fn customer(of_hundred: u32, places: Places, rhythm: Rhythm, addresses: (u32, u32)) -> Customer {
    Customer { of_hundred, places, rhythm, addresses }
}

/// One key in ten is used by a timetable alone.
const TIMETABLE: usize = 10;
/// The fewest calls of a beat: keys with fewer calls have no timetable.
const CALLS_PER_BEAT: f64 = 4.0;
const BEATS_MS: [u64; 4] = [300_000, 900_000, 3_600_000, DAY_MS];
/// The mean times between two runs of continuous integration, of which the shortest with enough calls a run is taken.
const RUNS_MS: [u64; 4] = [1_800_000, 3_600_000, 4 * HOUR_MS, DAY_MS];
const CALLS_PER_RUN: f64 = 15.0;
/// A runner's address is used for this long.
const RUNNER_MS: u64 = 30 * MINUTE_MS;
/// One run in this number uses another tool.
const OTHER_TOOL: u64 = 15;
/// One key in seven makes one call in thirty from elsewhere.
const ELSEWHERE: (u32, u32) = (7, 30);
/// One key in four of servers is used by servers abroad.
const SERVERS_ABROAD: u64 = 4;
/// One office in ten moves in the run.
const OFFICE_MOVES: u64 = 10;
/// One user of an app in thirty lives or travels abroad.
const USERS_ABROAD: u64 = 30;
/// A person stays at a place for this long at least.
const STAY_MS: u64 = 2 * HOUR_MS;
/// Of a hundred stays of a person, those on the phone's line, and those in a café or hotel.
const ON_PHONE: u64 = 6;
const IN_CAFE: u64 = 3;
/// The days from one deploy that adds a route to the next.
const DEPLOY_DAYS: (u64, u64) = (8, 60);
/// The most routes that deploys add in a run.
const MAX_DEPLOYS: u64 = 8;
/// One call in this number takes a deployed route.
const DEPLOYED_CALLS: u32 = 12;
/// The days from one version of a client to the next: of browsers and apps, and of libraries on servers.
const RELEASE_DAYS: (u64, u64) = (12, 28);
const UPGRADE_DAYS: (u64, u64) = (25, 120);

/// A pool of addresses that calls come from. An address is computed when it is needed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AddressPool {
    pub(crate) first_network: u32,
    /// The number of networks, from the first. Addresses of one network are drawn by habit, those of several evenly.
    pub(crate) networks: u32,
    pub(crate) addresses: u32,
    /// Milliseconds after which an address is exchanged for another.
    pub(crate) renewed_every: u64,
    /// Pools of a seed and network share their addresses.
    pub(crate) seed: u64,
    /// The number of blocks of a network (/24s and /48s) in which the addresses are.
    pub(crate) blocks: u32,
    /// The number of addresses among eight that are IPv6.
    pub(crate) v6_of_eight: u32,
    /// True if addresses are drawn evenly from one network, too.
    pub(crate) even: bool,
    /// True if no address is in a block that geo databases misplace.
    pub(crate) placed: bool,
}

impl AddressPool {
    /// Creates a pool in one network, whose addresses are anywhere in it and never exchanged.
    pub(crate) fn of(network: u32, addresses: u32, seed: u64) -> Self {
        Self {
            first_network: network,
            networks: 1,
            addresses,
            renewed_every: u64::MAX,
            seed,
            blocks: u32::MAX,
            v6_of_eight: 2,
            even: false,
            placed: false,
        }
    }

    pub(crate) fn client(&self, networks: &WorldNetworks, time: u64, draw: &mut Draw) -> ClientAddress {
        let by_habit = self.networks == 1 && !self.even;
        let index = if by_habit { draw.habit(self.addresses) } else { draw.below(self.addresses) };
        self.address(networks, index, time)
    }

    /// Returns the address with an index at `time`.
    fn address(&self, networks: &WorldNetworks, index: u32, time: u64) -> ClientAddress {
        // Each address has a phase of its own, so that they aren't exchanged all at once.
        let age = time.saturating_add(self.renewed_every / 64 * u64::from(index % 64)) / self.renewed_every;
        let bits = mixed([self.seed, u64::from(index), age]);
        let network = self.first_network + (bits >> 32) as u32 % self.networks;
        let block = mixed([self.seed, (bits >> 8) % u64::from(self.blocks), network.into()]);
        let choice = AddressChoice {
            block,
            host: mixed([bits, 0, 0]),
            v6: bits % 8 < u64::from(self.v6_of_eight),
            placed: self.placed,
        };
        networks.client(network, choice)
    }
}

/// The address and the client of a call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    pub(crate) address: ClientAddress,
    /// The usual user agent, and the one of one call in five.
    pub(crate) agents: [u32; 2],
}

/// A key's habits beyond those of [`Key`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habit {
    pub(crate) class: RhythmClass,
    pub(crate) customer: &'static Customer,
    /// Shared by the keys of one customer.
    seed: u64,
    /// The owner's country.
    country: u32,
    /// The number of addresses of each site; users of an app.
    addresses: u32,
    /// The network of calls from elsewhere.
    elsewhere: Option<u32>,
    /// True if the key may be used from its owner's country only.
    confined: bool,
    /// The time from which upgrades and deploys count: the run's start, or `u64::MAX` in a settled world.
    changes_from: u64,
    /// The time at which the office moves, or `u64::MAX`.
    moves_at: u64,
    /// The key's share in all usual calls; 0 if it isn't used.
    pub(crate) share: f64,
    /// The milliseconds from one run of the timetable to the next.
    pub(crate) timetable: Option<u64>,
    /// The index of the episode in which the owner behaves differently.
    pub(crate) detour: Option<u32>,
}

impl Habit {
    /// Returns whether all usual calls come from one network with few addresses.
    pub(crate) fn is_steady(&self) -> bool {
        matches!(self.customer.places, Places::Fleet) && self.elsewhere.is_none()
    }

    /// Returns whether the timetable's runs come at odd hours.
    pub(crate) fn is_of_runners(&self) -> bool {
        self.customer.places == Places::Runners && self.timetable.is_some()
    }

    /// Returns whether the usual calls come from a cloud.
    pub(crate) fn is_of_servers(&self) -> bool {
        matches!(
            self.customer.places,
            Places::Fleet | Places::Autoscaled | Places::Functions | Places::TwoClouds
        )
    }

    #[cfg(test)]
    pub(crate) fn elsewhere(&self) -> Option<u32> {
        self.elsewhere
    }

    /// Returns the number of sites, without the one elsewhere.
    fn usual_sites(&self) -> u32 {
        match self.customer.places {
            Places::Fleet | Places::Autoscaled | Places::Home => 1,
            Places::Functions if self.confined => 1,
            Places::Functions => 1 + (self.seed >> 8) as u32 % 3,
            Places::Runners | Places::TwoClouds => 2,
            Places::App => APP_SITES - if self.confined { APP_SITES_ABROAD } else { 0 },
            Places::Laptop => 4,
            Places::Office => 1 + u32::from(self.moves_at != u64::MAX),
        }
    }

    /// Returns all sites that calls come from, in whatever time.
    pub(crate) fn sites(&self, countries: u32) -> impl Iterator<Item = AddressPool> {
        let usual = (0..self.usual_sites()).map(move |site| self.site(site, countries));
        usual.chain(self.elsewhere.map(|network| self.pool_elsewhere(network)))
    }

    /// Returns whether calls ever come from a system.
    pub(crate) fn uses_system(&self, networks: &WorldNetworks, asn: u32) -> bool {
        self.sites(networks.countries()).any(|site| networks.get(site.first_network).asn == asn)
    }

    /// Returns a site by its number.
    pub(crate) fn site(&self, site: u32, countries: u32) -> AddressPool {
        let Self { seed, addresses, .. } = *self;
        let provider = (seed >> 16) as u32 % 64;
        let of = |kind: NetworkKind, country, provider| {
            let network = kind.network(country, provider);
            AddressPool {
                v6_of_eight: 1,
                ..AddressPool::of(network, addresses, mixed([seed, site.into(), 0]))
            }
        };
        match self.customer.places {
            Places::Fleet => AddressPool {
                blocks: 3,
                renewed_every: 365 * DAY_MS,
                ..of(NetworkKind::Cloud, self.region(0, countries), provider)
            },
            Places::Autoscaled => AddressPool {
                blocks: 12,
                renewed_every: DAY_MS,
                v6_of_eight: 6,
                ..of(NetworkKind::Cloud, self.region(0, countries), provider)
            },
            Places::Functions => AddressPool {
                renewed_every: HOUR_MS,
                v6_of_eight: 7,
                even: true,
                ..of(NetworkKind::Cloud, self.region(site, countries), provider)
            },
            Places::Runners => AddressPool {
                renewed_every: RUNNER_MS,
                v6_of_eight: 6,
                ..of(NetworkKind::Cloud, self.region(0, countries), provider + site)
            },
            Places::TwoClouds => AddressPool {
                blocks: 2,
                renewed_every: 365 * DAY_MS,
                ..of(NetworkKind::Cloud, self.region(0, countries), provider + site)
            },
            Places::App => {
                let pool = match site {
                    0..APP_CARRIERS => of(NetworkKind::Mobile, self.country, site),
                    APP_CARRIERS..APP_SITES_AT_HOME => {
                        AddressPool { renewed_every: 7 * DAY_MS, ..of(NetworkKind::Home, self.country, site) }
                    }
                    _ => of(NetworkKind::Mobile, self.abroad(site, countries), provider),
                };
                AddressPool {
                    renewed_every: pool.renewed_every.min(12 * HOUR_MS),
                    v6_of_eight: 6,
                    even: true,
                    ..pool
                }
            }
            Places::Laptop => match site {
                AT_OFFICE => AddressPool {
                    addresses: 1,
                    renewed_every: 365 * DAY_MS,
                    ..of(NetworkKind::Office, self.country, provider)
                },
                AT_HOME => {
                    AddressPool { renewed_every: 7 * DAY_MS, ..of(NetworkKind::Home, self.country, provider) }
                }
                AT_PHONE => AddressPool {
                    renewed_every: 2 * HOUR_MS,
                    v6_of_eight: 6,
                    ..of(NetworkKind::Mobile, self.country, provider)
                },
                _ => AddressPool {
                    addresses: 1,
                    renewed_every: STAY_MS,
                    ..of(NetworkKind::Hotspot, self.country, provider)
                },
            },
            Places::Office => AddressPool {
                blocks: 1,
                renewed_every: 365 * DAY_MS,
                ..of(NetworkKind::Office, self.country, provider + site)
            },
            Places::Home => {
                AddressPool { renewed_every: 7 * DAY_MS, ..of(NetworkKind::Home, self.country, provider) }
            }
        }
    }

    fn pool_elsewhere(&self, network: u32) -> AddressPool {
        AddressPool::of(network, 2, mixed([self.seed, network.into(), 0x656c_7365]))
    }

    /// Returns the country of the servers' region with an index.
    fn region(&self, index: u32, countries: u32) -> u32 {
        let abroad = (self.seed >> 24).is_multiple_of(SERVERS_ABROAD) && !self.confined;
        if index == 0 && !abroad {
            return self.country;
        }
        self.abroad(index, countries)
    }

    /// Returns a country other than the owner's; the same in a world of one country.
    fn abroad(&self, index: u32, countries: u32) -> u32 {
        let others = u64::from(countries.max(2) - 1);
        // Different indices have different countries, as far as there are enough.
        let step = (self.seed >> 40) % others + u64::from(index);
        (self.country + 1 + (step % others) as u32) % countries
    }

    /// Draws the address and the client of a usual call.
    pub(crate) fn caller(
        &self,
        key: &Key,
        networks: &WorldNetworks,
        clocks: &Clocks,
        time: u64,
        draw: &mut Draw,
    ) -> Caller {
        let agents = key.agents.map(|family| self.agent(family, self.seed, time));
        if let Some(network) = self.elsewhere.filter(|_| draw.once_in(ELSEWHERE.1)) {
            return Caller { address: self.pool_elsewhere(network).client(networks, time, draw), agents };
        }
        let countries = networks.countries();
        match self.customer.places {
            Places::App => self.user(draw.below(self.addresses), networks, time),
            Places::Runners => {
                let run = mixed([self.seed, time / RUNNER_MS, 2]);
                let pool = self.site((run % 2) as u32, countries);
                let agents = if (run >> 8).is_multiple_of(OTHER_TOOL) {
                    [self.agent(other_tool(key), self.seed, time); 2]
                } else {
                    agents
                };
                Caller { address: pool.client(networks, time, draw), agents }
            }
            _ => {
                let site = self.site_at(clocks, time, draw);
                Caller { address: self.site(site, countries).client(networks, time, draw), agents }
            }
        }
    }

    /// Returns the site of a call at `time`.
    fn site_at(&self, clocks: &Clocks, time: u64, draw: &mut Draw) -> u32 {
        match self.customer.places {
            // The first region has half of the calls at least.
            Places::Functions if draw.once_in(2) => 0,
            Places::Functions | Places::TwoClouds => draw.below(self.usual_sites()),
            Places::Laptop => {
                let local = clocks.local(self.country, time).unsigned_abs();
                let stay = mixed([self.seed, local / STAY_MS, 3]) % 100;
                let (day, hour) = (local / DAY_MS, local % DAY_MS / HOUR_MS);
                // The epoch was a Thursday. One workday in five is spent at home.
                let at_work = (day + 3) % 7 < 5
                    && (8..18).contains(&hour)
                    && !mixed([self.seed, day, 4]).is_multiple_of(5);
                match stay {
                    0..ON_PHONE => AT_PHONE,
                    ON_PHONE..IN_CAFE_OR_PHONE if (8..22).contains(&hour) => AT_CAFE,
                    _ if at_work => AT_OFFICE,
                    _ => AT_HOME,
                }
            }
            Places::Office => u32::from(time >= self.moves_at),
            _ => 0,
        }
    }

    /// Returns the address and the client of a user of an app.
    fn user(&self, user: u32, networks: &WorldNetworks, time: u64) -> Caller {
        let bits = mixed([self.seed, user.into(), 5]);
        let abroad = !self.confined && bits.is_multiple_of(USERS_ABROAD);
        // Users are at home for about half of the hours.
        let at_home = mixed([bits, time / HOUR_MS, 6]).is_multiple_of(2);
        let site = if abroad {
            APP_SITES_AT_HOME + (bits >> 16) as u32 % APP_SITES_ABROAD
        } else if at_home {
            APP_CARRIERS + (bits >> 24) as u32 % (APP_SITES_AT_HOME - APP_CARRIERS)
        } else {
            (bits >> 32) as u32 % APP_CARRIERS
        };
        let family = APP_AGENTS[(bits >> 40) as usize % APP_AGENTS.len()];
        let agents = [self.agent(family, bits, time); 2];
        let address = self.site(site, networks.countries()).address(networks, user, time);
        Caller { address, agents }
    }

    /// Returns the user agent of a family as of `time`. `who` decides when it is upgraded.
    fn agent(&self, family: u32, who: u64, time: u64) -> u32 {
        // All users of an app get the same releases, but not on the same day.
        let released = self.customer.places == Places::App || matches!(family, PHONE_APP | BROWSER);
        let days = if released { RELEASE_DAYS } else { UPGRADE_DAYS };
        let bits = mixed([self.seed, family.into(), 7]);
        let every = (days.0 + bits % (days.1 - days.0)) * DAY_MS;
        let upgrades =
            (time.saturating_sub(self.changes_from) + mixed([who, family.into(), 8]) % every) / every;
        agent(family, upgrades.min(MAX_UPGRADES.into()) as u32)
    }

    /// Returns whether usual calls may have a user agent of the family.
    pub(crate) fn uses_agent(&self, key: &Key, family: u32) -> bool {
        key.agents.contains(&family)
            || match self.customer.places {
                Places::App => APP_AGENTS.contains(&family),
                Places::Runners => other_tool(key) == family,
                _ => false,
            }
    }

    /// Returns the number of routes that deploys have added by `time`.
    pub(crate) fn deployed(&self, time: u64) -> u32 {
        let (first, last) = DEPLOY_DAYS;
        let every = (first + (self.seed >> 32) % (last - first)) * DAY_MS;
        let deploys = (time.saturating_sub(self.changes_from) + mixed([self.seed, 0, 9]) % every) / every;
        deploys.min(MAX_DEPLOYS) as u32
    }

    /// Draws the route of a usual call.
    pub(crate) fn route(&self, population: &Population, key: &Key, time: u64, draw: &mut Draw) -> u32 {
        let deployed = self.deployed(time);
        if deployed > 0 && draw.once_in(DEPLOYED_CALLS) {
            return population.route_beyond(key, draw.below(deployed));
        }
        population.usual_route(key, draw)
    }
}

const AT_OFFICE: u32 = 0;
const AT_HOME: u32 = 1;
const AT_PHONE: u32 = 2;
const AT_CAFE: u32 = 3;
const IN_CAFE_OR_PHONE: u64 = ON_PHONE + IN_CAFE;
/// The sites of an app: carriers, then providers of homes, then carriers abroad.
const APP_CARRIERS: u32 = NetworkKind::Mobile.providers();
const APP_SITES_AT_HOME: u32 = APP_CARRIERS + NetworkKind::Home.providers();
const APP_SITES_ABROAD: u32 = 3;
const APP_SITES: u32 = APP_SITES_AT_HOME + APP_SITES_ABROAD;
/// The families of an app's clients, the most usual twice.
const APP_AGENTS: [u32; 4] = [PHONE_APP, PHONE_SDK, PHONE_SDK, BROWSER];

/// Returns the family of the tool that some runs use instead of the usual ones.
fn other_tool(key: &Key) -> u32 {
    let other = (0..USUAL_AGENTS).map(|step| (key.agents[0] + 5 + step) % USUAL_AGENTS);
    other.into_iter().find(|family| !key.agents.contains(family)).unwrap_or(key.agents[0])
}

/// Draws the habits of all keys, in the order of the keys.
pub(crate) fn habits(settings: &WorldSettings, population: &Population, draw: &mut Draw) -> Vec<Habit> {
    let span_ms = settings.span_ms;
    // STEP 1: the kind and seed of each subscription's customer, shared by subscriptions of one customer.
    let mut customers: Vec<(usize, u64)> = Vec::with_capacity(population.subscriptions.len());
    for (index, subscription) in population.subscriptions.iter().enumerate() {
        let previous = index
            .checked_sub(1)
            .filter(|previous| population.subscriptions[*previous].customer == subscription.customer);
        let drawn = (kind(settings.settled, draw), draw.bits());
        customers.push(previous.map_or(drawn, |previous| customers[previous]));
    }
    // STEP 2: the weights by which the keys share all calls.
    let used = |state| state == KeyState::Active;
    let (first, callers) = settings.callers.unwrap_or((0, settings.keys));
    let weight = |rank: usize| {
        let position = (rank as u32).checked_sub(first).filter(|position| *position < callers);
        position.map_or(0.0, |position| Zipf::weight(position, settings.zipf) as f64)
    };
    let keys = || population.keys.iter().enumerate();
    let total: f64 = keys().filter(|(_, key)| used(key.state)).map(|(rank, _)| weight(rank)).sum();
    // STEP 3: the habits.
    keys()
        .map(|(rank, key)| {
            let country = population.subscriptions[key.subscription as usize].country;
            let (kind, seed) = customers[key.subscription as usize];
            let customer = &CUSTOMERS[kind];
            let addresses = draw.between(customer.addresses);
            let elsewhere = draw.below(population.networks.count());
            let elsewhere = draw.once_in(ELSEWHERE.0).then_some(elsewhere);
            let share = if used(key.state) { weight(rank) / total } else { 0.0 };
            let calls_per_ms = share * settings.events.get() as f64 / span_ms as f64;
            let runs =
                |of: [u64; 4], calls: f64| of.into_iter().find(|every| calls_per_ms * *every as f64 >= calls);
            let timetable = match customer.places {
                Places::Runners => runs(RUNS_MS, CALLS_PER_RUN),
                _ => runs(BEATS_MS, CALLS_PER_BEAT).filter(|_| rank % TIMETABLE == 4),
            };
            let timetable = timetable.filter(|every| *every <= span_ms / 2);
            let silent = timetable.is_some() || share == 0.0;
            let moves = !settings.settled
                && customer.places == Places::Office
                && (seed >> 48).is_multiple_of(OFFICE_MOVES);
            Habit {
                class: if silent { RhythmClass::SILENT } else { RhythmClass::new(customer.rhythm, country) },
                customer,
                seed,
                country,
                addresses,
                elsewhere: elsewhere.filter(|_| !key.confined),
                confined: key.confined,
                changes_from: if settings.settled { u64::MAX } else { settings.start_ms },
                moves_at: if moves { settings.start_ms + mixed([seed, 0, 10]) % span_ms } else { u64::MAX },
                share,
                timetable,
                detour: None,
            }
        })
        .collect()
}

/// Draws a kind of customer, as an index into [`CUSTOMERS`]. In a settled world it has fixed addresses.
fn kind(settled: bool, draw: &mut Draw) -> usize {
    let fixed = |places| matches!(places, Places::Fleet | Places::Office | Places::Home);
    let shares = CUSTOMERS.iter().enumerate().filter(|(_, of)| !settled || fixed(of.places));
    let mut drawn = draw.below(shares.clone().map(|(_, of)| of.of_hundred).sum());
    for (kind, of) in shares {
        if drawn < of.of_hundred {
            return kind;
        }
        drawn -= of.of_hundred;
    }
    0
}
