//! Networks whose callers are elsewhere than their addresses, from a CSV file of `network,class`:
//!
//! ```text
//! # exits of a provider
//! network,class
//! 198.51.100.0/24,vpn
//! 2001:db8:7::/48,relay
//! 203.0.113.9,tor
//! ```
//! A class is one of vpn, relay, mobile, satellite, cloud and tor. Lines that begin with `#`, empty lines and the
//! header are skipped, and further columns are ignored. A line of any other form is left out, with a warning that names
//! its number and the problem, and quotes nothing.
//!
//! Of the networks that hold an address the smallest counts, and of equal ones the last. Two networks are nested or
//! apart. So they can be cut into ranges that don't overlap, each with the class of the smallest network around it. An
//! address is looked up by bisection.
//!
//! Limits: 1,000,000 networks, 1 KiB a line. There are at most 2,000,001 ranges of 17 bytes. While the file is read,
//! each network takes 32 bytes more.

use std::io::{self, BufRead, Read as _};
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use keytide_dataflow::model::NetworkClass;

use super::{GeoError, mapped};

const NETWORKS: usize = 1_000_000;
const LINE_BYTES: usize = 1 << 10;
/// The most bad lines that are reported one by one.
const LISTED_LINES: u64 = 8;

const CLASSES: [(&str, NetworkClass); 6] = [
    ("vpn", NetworkClass::Vpn),
    ("relay", NetworkClass::Relay),
    ("mobile", NetworkClass::Mobile),
    ("satellite", NetworkClass::Satellite),
    ("cloud", NetworkClass::Cloud),
    ("tor", NetworkClass::Tor),
];

/// The problem of a line, which never quotes it.
type Fault = &'static str;

/// Ranges of addresses, each with its class.
#[derive(Debug, Default)]
pub(crate) struct Networks {
    /// The starts of ranges, in order. Each range ends where the next one starts.
    starts: Vec<u128>,
    classes: Vec<NetworkClass>,
}

/// A network of the file.
struct ListedNetwork {
    first: u128,
    bits: u8,
    class: NetworkClass,
}

impl Networks {
    /// Reads the bytes of the file at `path`, and returns warnings beside.
    pub(crate) fn open(path: &Path, bytes: &[u8]) -> Result<(Self, Vec<String>), GeoError> {
        let failed = |source| GeoError::Read { path: path.to_owned(), source };
        let mut file = bytes;
        let (mut listed, mut warnings) = (Vec::new(), Vec::new());
        let (mut bad, mut line) = (0_u64, Vec::new());
        for number in 1_u64.. {
            let is_whole = match next_line(&mut file, &mut line).map_err(failed)? {
                Some(is_whole) => is_whole,
                None => break,
            };
            let read = if is_whole { parse(&line, number == 1) } else { Err("longer than 1 KiB") };
            match read {
                Ok(None) => {}
                Ok(Some(_)) if listed.len() == NETWORKS => {
                    return Err(GeoError::TooManyNetworks { path: path.to_owned() });
                }
                Ok(Some(network)) => listed.push(network),
                Err(fault) => {
                    bad += 1;
                    if bad <= LISTED_LINES {
                        let path = path.display();
                        warnings
                            .push(format!("geo.networks: {path}:{number}: {fault}; the line is left out"));
                    }
                }
            }
        }
        if bad > LISTED_LINES {
            let path = path.display();
            warnings
                .push(format!("geo.networks: {path}: {} more bad lines are left out", bad - LISTED_LINES));
        }
        if listed.is_empty() {
            return Err(GeoError::NoNetworks { path: path.to_owned() });
        }
        Ok((Self::new(listed), warnings))
    }

    fn new(mut listed: Vec<ListedNetwork>) -> Self {
        // Stable, so that of equal networks the last stays last.
        listed.sort_by_key(|network| (network.first, network.bits));
        let mut networks = Self::default();
        // The networks around the current one, the outermost first, with their last addresses.
        let mut around: Vec<(u128, NetworkClass)> = Vec::new();
        for ListedNetwork { first, bits, class } in listed {
            networks.leave(&mut around, Some(first));
            networks.start(first, class);
            around.push((first | u128::MAX.checked_shr(bits.into()).unwrap_or(0), class));
        }
        networks.leave(&mut around, None);
        networks
    }

    /// Ends the surrounding networks that end before an address, or all of them if there is none.
    fn leave(&mut self, around: &mut Vec<(u128, NetworkClass)>, before: Option<u128>) {
        while let Some((last, _)) = around.pop_if(|(last, _)| before.is_none_or(|first| *last < first)) {
            let outer = around.last().map_or(NetworkClass::Unlisted, |(_, class)| *class);
            if let Some(next) = last.checked_add(1) {
                self.start(next, outer);
            }
        }
    }

    /// Starts a range of a class at `first`.
    fn start(&mut self, first: u128, class: NetworkClass) {
        if self.starts.last() == Some(&first) {
            self.starts.pop();
            self.classes.pop();
        }
        if self.classes.last().copied().unwrap_or_default() != class {
            self.starts.push(first);
            self.classes.push(class);
        }
    }

    /// Returns the class of an address.
    pub(crate) fn class(&self, address: IpAddr) -> NetworkClass {
        let (address, _) = mapped(address.into());
        let behind = self.starts.partition_point(|start| *start <= address);
        behind.checked_sub(1).map_or(NetworkClass::Unlisted, |range| self.classes[range])
    }
}

/// Reads the next line. Returns `None` at the end, and `false` if the line is too long, so that only its start is read.
fn next_line(file: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<bool>> {
    line.clear();
    if file.by_ref().take(LINE_BYTES as u64 + 1).read_until(b'\n', line)? == 0 {
        return Ok(None);
    }
    let is_whole = line.len() <= LINE_BYTES || line.ends_with(b"\n");
    if !is_whole {
        let mut rest = Vec::new();
        while !rest.ends_with(b"\n") {
            rest.clear();
            if file.by_ref().take(LINE_BYTES as u64).read_until(b'\n', &mut rest)? == 0 {
                break;
            }
        }
    }
    Ok(Some(is_whole))
}

/// Returns the network of a line, or `None` for lines that are skipped.
fn parse(line: &[u8], is_first: bool) -> Result<Option<ListedNetwork>, Fault> {
    let text = str::from_utf8(line).map_err(|_| "not UTF-8")?;
    let text = if is_first { text.strip_prefix('\u{feff}').unwrap_or(text) } else { text };
    let text = text.trim();
    if text.is_empty() || text.starts_with('#') {
        return Ok(None);
    }
    let mut cells = text.split(',').map(|cell| cell.trim().trim_matches('"'));
    let (network, class) = (cells.next().unwrap_or_default(), cells.next().unwrap_or_default());
    if network.eq_ignore_ascii_case("network") && class.eq_ignore_ascii_case("class") {
        return Ok(None);
    }
    let network = network
        .parse::<IpNet>()
        .or_else(|_| network.parse::<IpAddr>().map(IpNet::from))
        .map_err(|_| "no network, such as 198.51.100.0/24, in the first column")?;
    if network.prefix_len() == 0 {
        return Err("a network of all addresses");
    }
    let class = CLASSES.iter().find(|(name, _)| class.eq_ignore_ascii_case(name)).map(|(_, class)| *class);
    let class = class.ok_or("the second column must be vpn, relay, mobile, satellite, cloud or tor")?;
    let (first, bits) = mapped(network);
    Ok(Some(ListedNetwork { first, bits, class }))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;
    use NetworkClass::{Cloud, Mobile, Relay, Satellite, Tor, Unlisted, Vpn};

    fn open(text: impl AsRef<[u8]>) -> Result<(Networks, Vec<String>), GeoError> {
        let said = |warning: String| warning.replace("list.csv:", "");
        Networks::open(Path::new("list.csv"), text.as_ref())
            .map(|(networks, warnings)| (networks, warnings.into_iter().map(said).collect()))
    }

    fn class(networks: &Networks, address: &str) -> NetworkClass {
        networks.class(address.parse().unwrap())
    }

    #[test]
    fn the_smallest_network_counts_and_of_equal_ones_the_last() {
        let text = "\u{feff}Network,Class,note\r\n# all of these are examples\r\n\r\n198.18.0.0/15,cloud,x\r\n\
                    198.18.1.0/24, VPN\r\n198.18.1.128/25,\"cloud\"\n\"198.18.1.200\",tor\n2001:db8::/32,mobile\n\
                    2001:db8:7::/48,satellite\n198.51.100.0/24,tor\n198.51.100.7/24,relay\n255.255.255.255,vpn\n";
        let (networks, warnings) = open(text).unwrap();
        assert_eq!(warnings, [""; 0]);
        for (address, expected) in [
            ("198.17.255.255", Unlisted),
            ("198.18.0.0", Cloud),
            ("198.18.1.0", Vpn),
            ("198.18.1.127", Vpn),
            ("198.18.1.128", Cloud),
            ("198.18.1.200", Tor),
            ("198.18.1.201", Cloud),
            ("198.18.2.0", Cloud),
            ("198.19.255.255", Cloud),
            ("198.20.0.0", Unlisted),
            ("::ffff:198.18.1.5", Vpn),
            ("198.51.100.9", Relay),
            ("198.51.101.0", Unlisted),
            ("255.255.255.255", Vpn),
            ("::", Unlisted),
            ("2001:db8::1", Mobile),
            ("2001:db8:7:ffff:ffff:ffff:ffff:ffff", Satellite),
            ("2001:db8:8::", Mobile),
            ("2001:db9::", Unlisted),
        ] {
            assert_eq!(class(&networks, address), expected, "{address}");
        }
    }

    #[test]
    fn bad_lines_are_told_by_their_place_and_harm_no_other() {
        let long = format!("198.18.0.0/24,vpn,{}", "x".repeat(3 * LINE_BYTES));
        let text = format!(
            "198.18.1.0/24,vpn\nsecret\n198.18.2.0/33,vpn\n198.18.2.0/24,home\n{long}\n0.0.0.0/0,vpn\n"
        );
        let (networks, warnings) = open([text.as_bytes(), b"\xff,vpn\n198.18.3.0/24,vpn"].concat()).unwrap();
        let form = "no network, such as 198.51.100.0/24, in the first column";
        let expected = [
            (2, form),
            (3, form),
            (4, "the second column must be vpn, relay, mobile, satellite, cloud or tor"),
            (5, "longer than 1 KiB"),
            (6, "a network of all addresses"),
            (7, "not UTF-8"),
        ];
        let expected =
            expected.map(|(line, why)| format!("geo.networks: {line}: {why}; the line is left out"));
        assert_eq!(warnings, expected);
        for (address, expected) in [("198.18.0.1", Unlisted), ("198.18.1.1", Vpn), ("198.18.3.1", Vpn)] {
            assert_eq!(class(&networks, address), expected);
        }
        let (_, warnings) = open("x\n".repeat(20) + "198.18.1.0/24,vpn\n").unwrap();
        assert_eq!(warnings.len(), 9);
        assert!(warnings[8].ends_with("12 more bad lines are left out"), "{warnings:?}");
        for nothing in ["", "network,class\n# none\n", "x\n"] {
            assert!(matches!(open(nothing), Err(GeoError::NoNetworks { .. })));
        }
    }

    #[test]
    fn no_more_networks_are_read_than_there_may_be() {
        let lines = |count: u32| {
            let line = |number: u32| format!("{},tor\n", Ipv4Addr::from_bits(0x0a00_0000 | number << 1));
            (0..count).map(line).collect::<String>()
        };
        let (networks, _) = open(lines(NETWORKS as u32)).unwrap();
        assert_eq!((networks.starts.len(), networks.starts.capacity() <= 1 << 22), (2 * NETWORKS, true));
        let error = open(lines(NETWORKS as u32 + 1)).unwrap_err();
        assert!(matches!(error, GeoError::TooManyNetworks { .. }), "{error}");
    }

    proptest! {
        #[test]
        fn ranges_say_what_a_look_at_every_network_says(
            listed in proptest::collection::vec((any::<u8>(), 0..=8_u8, 0..6_usize, any::<bool>()), 1..30),
            asked in proptest::collection::vec((any::<u8>(), any::<bool>()), 30),
        ) {
            // All in 256 addresses, at the end of those of version 4 or of all, so that they nest.
            let address = |last: u8, is_v4: bool| -> IpAddr {
                if is_v4 {
                    Ipv4Addr::from_bits(u32::MAX << 8 | u32::from(last)).into()
                } else {
                    Ipv6Addr::from_bits(u128::MAX << 8 | u128::from(last)).into()
                }
            };
            let network = |(last, free, class, is_v4): &(u8, u8, usize, bool)| {
                let address = address(*last, *is_v4);
                let bits = if *is_v4 { 32 } else { 128 };
                (IpNet::new(address, bits - free).unwrap(), CLASSES[*class])
            };
            let all: Vec<_> = listed.iter().map(network).collect();
            let text: String = all.iter().map(|(network, (class, _))| format!("{network},{class}\n")).collect();
            let (networks, _) = open(text).unwrap();
            for (last, is_v4) in asked {
                let address = address(last, is_v4);
                let around = all.iter().filter(|(network, _)| network.contains(&address));
                let smallest = around.max_by_key(|(network, _)| network.prefix_len());
                prop_assert_eq!(networks.class(address), smallest.map_or(Unlisted, |(_, (_, class))| *class));
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            let _ = open(bytes);
        }
    }
}
