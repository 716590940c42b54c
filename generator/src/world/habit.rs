//! The habits of keys in a lively world: their kind of network, their rhythm, and their timetable, if they have one.

use keytide_dataflow::model::KeyState;
use keytide_dataflow::model::time::DAY_MS;

use super::population::{ClientAddress, NETWORKS_PER_COUNTRY, Network, Population};
use super::rhythm::{Rhythm, RhythmClass};
use super::settings::WorldSettings;
use crate::draw::{Draw, Zipf, mixed};

/// The kinds of networks, of which each country has one each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NetworkKind {
    Office = 0,
    Home = 1,
    Mobile = 2,
    Cloud = 3,
}

const _: () = assert!(NetworkKind::Cloud as u32 + 1 == NETWORKS_PER_COUNTRY);

impl NetworkKind {
    /// Returns the network of this kind in a country, as an index into the population's.
    pub(crate) fn network(self, country: u32) -> u32 {
        country * NETWORKS_PER_COUNTRY + self as u32
    }
}

/// A kind of customer, whose keys have similar habits.
struct Customer {
    /// The number of customers of this kind among twenty.
    of_twenty: u32,
    setting: NetworkKind,
    rhythm: Rhythm,
    /// The least and the most addresses of one key.
    addresses: (u32, u32),
    /// The number of days after which an address is exchanged for another.
    renewed_days: u64,
}

const CUSTOMERS: [Customer; 6] = [
    customer(5, NetworkKind::Cloud, Rhythm::Machine, (2, 8), 365),
    customer(3, NetworkKind::Cloud, Rhythm::Leisure, (4, 16), 365),
    customer(1, NetworkKind::Cloud, Rhythm::Night, (1, 3), 365),
    customer(5, NetworkKind::Office, Rhythm::Office, (1, 3), 365),
    customer(3, NetworkKind::Home, Rhythm::Leisure, (1, 4), 7),
    customer(3, NetworkKind::Mobile, Rhythm::Leisure, (20, 200), 1),
];

const fn customer(
    of_twenty: u32,
    setting: NetworkKind,
    rhythm: Rhythm,
    addresses: (u32, u32),
    renewed_days: u64,
) -> Customer {
    Customer { of_twenty, setting, rhythm, addresses, renewed_days }
}

/// One key in ten is used by a timetable alone.
const TIMETABLE: usize = 10;
/// The fewest calls of a beat: keys with fewer calls have no timetable.
const CALLS_PER_BEAT: f64 = 4.0;
const BEATS_MS: [u64; 4] = [300_000, 900_000, 3_600_000, DAY_MS];
/// One key in seven makes one call in thirty from elsewhere.
const ELSEWHERE: (u32, u32) = (7, 30);

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
}

impl AddressPool {
    /// Creates a pool in one network, whose addresses are never exchanged.
    pub(crate) fn of(network: u32, addresses: u32, seed: u64) -> Self {
        Self { first_network: network, networks: 1, addresses, renewed_every: u64::MAX, seed }
    }

    pub(crate) fn has(&self, network: u32) -> bool {
        (self.first_network..self.first_network + self.networks).contains(&network)
    }

    pub(crate) fn client(&self, networks: &[Network], time: u64, draw: &mut Draw) -> ClientAddress {
        let one = self.networks == 1;
        let index = if one { draw.habit(self.addresses) } else { draw.below(self.addresses) };
        // Each address has a phase of its own, so that they aren't exchanged all at once.
        let age = time.saturating_add(self.renewed_every / 64 * u64::from(index % 64)) / self.renewed_every;
        let bits = mixed([self.seed, u64::from(index), age]);
        let network = self.first_network + (bits >> 32) as u32 % self.networks;
        networks[network as usize].client(mixed([bits, 0, 0]))
    }
}

/// A key's habits beyond those of [`Key`](super::population::Key).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Habit {
    pub(crate) class: RhythmClass,
    pub(crate) rhythm: Rhythm,
    pub(crate) setting: NetworkKind,
    pub(crate) usual: AddressPool,
    pub(crate) elsewhere: Option<AddressPool>,
    /// The key's share in all usual calls; 0 if it isn't used.
    pub(crate) share: f64,
    /// The milliseconds from one run of the timetable to the next.
    pub(crate) timetable: Option<u64>,
    /// The index of the episode in which the owner behaves differently.
    pub(crate) detour: Option<u32>,
}

impl Habit {
    pub(crate) fn client(&self, networks: &[Network], time: u64, draw: &mut Draw) -> ClientAddress {
        let pool = self.elsewhere.filter(|_| draw.once_in(ELSEWHERE.1)).unwrap_or(self.usual);
        pool.client(networks, time, draw)
    }
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
        let drawn = (draw.below(20), draw.bits());
        customers.push(previous.map_or_else(|| (kind_of(drawn.0), drawn.1), |previous| customers[previous]));
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
            let Customer { setting, rhythm, addresses, renewed_days, .. } = CUSTOMERS[kind];
            let usual = AddressPool {
                renewed_every: renewed_days * DAY_MS,
                ..AddressPool::of(setting.network(country), draw.between(addresses), seed)
            };
            let (elsewhere, seed) = (draw.below(population.networks.len() as u32), draw.bits());
            let elsewhere = draw.once_in(ELSEWHERE.0).then(|| AddressPool::of(elsewhere, 2, seed));
            let share = if used(key.state) { weight(rank) / total } else { 0.0 };
            let calls_per_ms = share * settings.events.get() as f64 / span_ms as f64;
            let beat = BEATS_MS.into_iter().find(|beat| calls_per_ms * *beat as f64 >= CALLS_PER_BEAT);
            let timetable = beat.filter(|beat| rank % TIMETABLE == 4 && *beat <= span_ms / 2);
            let silent = timetable.is_some() || share == 0.0;
            let class = if silent { RhythmClass::SILENT } else { RhythmClass::new(rhythm, country) };
            Habit {
                class,
                rhythm,
                setting,
                usual,
                elsewhere: elsewhere.filter(|_| !key.confined),
                share,
                timetable,
                detour: None,
            }
        })
        .collect()
}

fn kind_of(mut drawn: u32) -> usize {
    let mut kind = 0;
    while drawn >= CUSTOMERS[kind].of_twenty {
        drawn -= CUSTOMERS[kind].of_twenty;
        kind += 1;
    }
    kind
}
