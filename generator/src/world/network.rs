//! The networks of the world, and the addresses in them.
//!
//! 198.18.0.0/15 and 2001:db8::/32 are divided into equal networks. A plain world has four in each country, each a
//! system (AS) of its own. A lively world has the providers of [`PROVIDERS`] in each country. Its clouds are one system
//! each in all countries: a country's part of a cloud is a *region*.
//!
//! A network consists of *blocks*: /24s of IPv4 and /48s of IPv6, which is how the detector tells networks apart. IPv4
//! has 512 of them and IPv6 65,536. So carriers and clouds of lively worlds mostly use IPv6, as real carriers do:
//! with 15 countries a network has 2 and 256 blocks. The range of carriers' own translators (100.64.0.0/10) isn't used,
//! because a job never looks up addresses without an owner.
//!
//! Geo databases err. In lively worlds they place a share of the blocks in another country, and so does the gateway.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::settings::{Scenario, WorldSettings};
use crate::draw::{Draw, mixed, whole};

const FIRST_PRIVATE_ASN: u32 = 64_512;
/// The systems of clouds follow those of the 480 other networks that 40 countries have at most.
const FIRST_CLOUD_ASN: u32 = FIRST_PRIVATE_ASN + 1_000;
const NETWORKS_PER_PLAIN_COUNTRY: u32 = 4;
const V4_BLOCKS: u32 = 512;
/// How often an address is drawn again that must not be in a misplaced block.
const TRIES: u64 = 32;

/// The kinds of networks that a country has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NetworkKind {
    /// A provider of lines for business.
    Office,
    Home,
    Mobile,
    /// A provider of wireless networks in cafés and hotels.
    Hotspot,
    Cloud,
}

/// The providers of a country in a lively world, by kind.
const PROVIDERS: [(NetworkKind, u32); 5] = [
    (NetworkKind::Office, 2),
    (NetworkKind::Home, 2),
    (NetworkKind::Mobile, 3),
    (NetworkKind::Hotspot, 1),
    (NetworkKind::Cloud, 4),
];
const NETWORKS_PER_COUNTRY: u32 = 12;

impl NetworkKind {
    /// Returns the number of providers of this kind in each country.
    pub(crate) const fn providers(self) -> u32 {
        PROVIDERS[self as usize].1
    }

    const fn first(self) -> u32 {
        let (mut first, mut kind) = (0, 0);
        while kind < self as usize {
            first += PROVIDERS[kind].1;
            kind += 1;
        }
        first
    }

    /// Returns a network of this kind in a country, as an index into those of a lively world.
    pub(crate) fn network(self, country: u32, provider: u32) -> u32 {
        country * NETWORKS_PER_COUNTRY + self.first() + provider % self.providers()
    }
}

const _: () = assert!(NetworkKind::Cloud.first() + NetworkKind::Cloud.providers() == NETWORKS_PER_COUNTRY);

/// A provider's network in one country.
pub(crate) struct Network {
    pub(crate) country: u32,
    pub(crate) asn: u32,
    /// `None` in a plain world.
    pub(crate) kind: Option<NetworkKind>,
    v4: Ipv4Net,
    v6: Ipv6Net,
}

impl Network {
    pub(crate) fn prefixes(&self) -> [IpNet; 2] {
        [self.v4.into(), self.v6.into()]
    }

    fn v4_hosts(&self) -> u32 {
        (1 << (32 - self.v4.prefix_len())) - 2
    }

    fn v4_client(&self, host: u32) -> ClientAddress {
        let address = IpAddr::V4((u32::from(self.v4.network()) + 1 + host).into());
        ClientAddress { address, country: self.country }
    }

    /// Returns an address of a /64, whose index in the network is `subnet`.
    fn v6_client(&self, subnet: u32, host: u64) -> ClientAddress {
        let address = u128::from(self.v6.network()) | u128::from(subnet) << 64 | u128::from(host);
        ClientAddress { address: IpAddr::V6(address.into()), country: self.country }
    }
}

/// An address that keys call from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClientAddress {
    pub(crate) address: IpAddr,
    /// The index in [`COUNTRIES`](super::population::COUNTRIES) of the country in which geo databases place it.
    pub(crate) country: u32,
}

/// A choice of an address in a network, by bits that are random or hashed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AddressChoice {
    /// Decides the block.
    pub(crate) block: u64,
    /// Decides the address in the block.
    pub(crate) host: u64,
    pub(crate) v6: bool,
    /// True if the block must not be a misplaced one.
    pub(crate) placed: bool,
}

/// All networks, and the blocks that geo databases misplace.
pub(crate) struct WorldNetworks {
    list: Vec<Network>,
    countries: u32,
    per_country: u32,
    seed: u64,
    /// A block is misplaced if 32 bits of its hash are below this.
    misplaced_below: u64,
}

impl WorldNetworks {
    pub(crate) fn new(settings: &WorldSettings) -> Self {
        let lively = settings.scenario != Scenario::Plain;
        let per_country = if lively { NETWORKS_PER_COUNTRY } else { NETWORKS_PER_PLAIN_COUNTRY };
        let count = settings.countries * per_country;
        let bits = count.next_power_of_two().trailing_zeros();
        let network = |index: u32| {
            let v4 = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + (index << (17 - bits));
            let v6_bits = if lively { 16 - bits } else { 0 };
            let v6 = Ipv6Addr::new(0x2001, 0xdb8, (index << v6_bits) as u16, 0, 0, 0, 0, 0);
            let (country, offset) = (index / per_country, index % per_country);
            let kind = lively.then(|| kind_at(offset));
            let asn = match kind {
                Some(NetworkKind::Cloud) => FIRST_CLOUD_ASN + offset - NetworkKind::Cloud.first(),
                _ => FIRST_PRIVATE_ASN + index,
            };
            Network {
                country,
                asn,
                kind,
                v4: Ipv4Net::new_assert(v4.into(), 15 + bits as u8),
                v6: Ipv6Net::new_assert(v6, 48 - v6_bits as u8),
            }
        };
        Self {
            list: (0..count).map(network).collect(),
            countries: settings.countries,
            per_country,
            seed: mixed([settings.seed, 0x6e65_7477, 0]),
            misplaced_below: if lively { whole(settings.misplaced * (1_u64 << 32) as f64) } else { 0 },
        }
    }

    pub(crate) fn all(&self) -> &[Network] {
        &self.list
    }

    pub(crate) fn get(&self, network: u32) -> &Network {
        &self.list[network as usize]
    }

    pub(crate) fn countries(&self) -> u32 {
        self.countries
    }

    pub(crate) fn count(&self) -> u32 {
        self.list.len() as u32
    }

    /// Draws one of a country's networks, for a plain world.
    pub(crate) fn draw_in(&self, country: u32, draw: &mut Draw) -> u32 {
        country * self.per_country + draw.below(self.per_country)
    }

    /// Draws an address of a network, for a plain world. One in five is IPv6.
    pub(crate) fn draw_client(&self, network: u32, draw: &mut Draw) -> ClientAddress {
        let network = self.get(network);
        if draw.once_in(5) {
            let subnet = draw.below(1 << 16);
            network.v6_client(subnet, draw.bits())
        } else {
            network.v4_client(draw.below(network.v4_hosts()))
        }
    }

    /// Returns the chosen address of a network, with the country in which geo databases place it.
    pub(crate) fn client(&self, network: u32, choice: AddressChoice) -> ClientAddress {
        let AddressChoice { block, host, v6, placed } = choice;
        let of = self.get(network);
        let blocks = if v6 { 1 << (48 - of.v6.prefix_len()) } else { 1 << (24 - of.v4.prefix_len()) };
        let block = |attempt: u64| match attempt {
            0 => scaled(block, blocks),
            _ => scaled(mixed([block, attempt, 0]), blocks),
        };
        let mut chosen = block(0);
        if placed {
            let good = |block: &u32| !self.is_misplaced(self.block_number(of, v6, *block));
            chosen = (0..TRIES).map(block).find(good).unwrap_or(chosen);
        }
        let client = if v6 {
            of.v6_client(chosen << 16 | (host >> 48) as u32, host)
        } else {
            of.v4_client((chosen << 8) + scaled(host, 254))
        };
        let number = self.block_number(of, v6, chosen);
        ClientAddress { country: self.country_of(number, of.country), ..client }
    }

    /// Returns all misplaced blocks, each with the country in which geo databases place it.
    pub(crate) fn misplaced(&self) -> impl Iterator<Item = (IpNet, u32)> {
        self.list.iter().flat_map(move |network| {
            [(false, 24 - network.v4.prefix_len()), (true, 48 - network.v6.prefix_len())]
                .into_iter()
                .filter(|_| self.misplaced_below > 0)
                .flat_map(|(v6, bits)| (0..1_u32 << bits).map(move |block| (v6, block)))
                .filter_map(move |(v6, block)| {
                    let number = self.block_number(network, v6, block);
                    self.is_misplaced(number)
                        .then(|| (block_prefix(network, v6, block), self.country_of(number, network.country)))
                })
        })
    }

    /// Numbers a block among all blocks.
    fn block_number(&self, network: &Network, v6: bool, block: u32) -> u32 {
        if v6 {
            V4_BLOCKS + u32::from(network.v6.network().segments()[2]) + block
        } else {
            ((u32::from(network.v4.network()) >> 8) & (V4_BLOCKS - 1)) + block
        }
    }

    fn is_misplaced(&self, block: u32) -> bool {
        mixed([self.seed, block.into(), 0]) >> 32 < self.misplaced_below
    }

    fn country_of(&self, block: u32, country: u32) -> u32 {
        if !self.is_misplaced(block) {
            return country;
        }
        // A world of one country errs to the next of the table.
        let countries = self.countries.max(2);
        (country + 1 + scaled(mixed([self.seed, block.into(), 1]), countries - 1)) % countries
    }
}

fn kind_at(offset: u32) -> NetworkKind {
    let found = PROVIDERS.iter().find(|(kind, count)| offset < kind.first() + count);
    found.map_or(NetworkKind::Cloud, |(kind, _)| *kind)
}

fn block_prefix(network: &Network, v6: bool, block: u32) -> IpNet {
    if v6 {
        let first = u128::from(network.v6.network()) | u128::from(block) << 80;
        Ipv6Net::new_assert(first.into(), 48).into()
    } else {
        Ipv4Net::new_assert((u32::from(network.v4.network()) + (block << 8)).into(), 24).into()
    }
}

/// Maps random bits to a number from 0 to `end - 1`.
fn scaled(bits: u64, end: u32) -> u32 {
    ((u128::from(bits) * u128::from(end)) >> 64) as u32
}
