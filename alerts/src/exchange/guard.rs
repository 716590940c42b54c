//! The guard allows only public addresses, which everybody can reach, for what is called.
//!
//! Otherwise the author of a webhook's URL, or the owner of its domain, could reach private services through this job.
//! Examples are services of this machine and its network, or a cloud's metadata. The ranges follow IANA's registries of special-purpose
//! addresses (RFC 6890). An IPv6 address that embeds an IPv4 address is judged by that one, too.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Returns why an address isn't public, or `None` if it is.
pub(super) fn refused(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => refused_v4(address),
        IpAddr::V6(address) => refused_v6(address),
    }
}

fn refused_v4(address: Ipv4Addr) -> Option<&'static str> {
    let within = |a, b, c, d, bits: u32| {
        let mask = u32::MAX << (32 - bits);
        address.to_bits() & mask == Ipv4Addr::new(a, b, c, d).to_bits()
    };
    if within(0, 0, 0, 0, 8) {
        Some("no address")
    } else if address.is_loopback() {
        Some("a loopback address")
    } else if address.is_private() {
        Some("a private address")
    } else if address.is_link_local() {
        Some("a link-local address")
    } else if within(100, 64, 0, 0, 10) {
        Some("an address shared behind a carrier")
    } else if address.is_multicast() {
        Some("a multicast address")
    } else if address.is_documentation()
        || within(192, 0, 0, 0, 24)
        || within(192, 88, 99, 0, 24)
        || within(198, 18, 0, 0, 15)
        || within(240, 0, 0, 0, 4)
        // Azure's platform, and Oracle's and Alibaba's metadata (the latter is in the carriers' range).
        || address == Ipv4Addr::new(168, 63, 129, 16)
    {
        Some("a reserved address")
    } else {
        None
    }
}

fn refused_v6(address: Ipv6Addr) -> Option<&'static str> {
    let bits = address.to_bits();
    let within = |first: u128, length: u32| bits >> (128 - length) == first >> (128 - length);
    let v4 = |shift: u32| Ipv4Addr::from_bits((bits >> shift & 0xffff_ffff) as u32);
    if address.is_unspecified() {
        return Some("no address");
    }
    if address.is_loopback() {
        return Some("a loopback address");
    }
    if let Some(mapped) = address.to_ipv4_mapped() {
        // DNS never publishes these, but some systems' resolvers return them.
        return refused_v4(mapped).or(Some("an address of IPv4 in disguise"));
    }
    if within(0x0064_ff9b << 96, 96) {
        return refused_v4(v4(0));
    }
    if within(0x2002 << 112, 16) {
        return refused_v4(v4(80)).or(Some("an address of IPv4 in disguise"));
    }
    if address.is_multicast() {
        Some("a multicast address")
    } else if address.is_unicast_link_local() {
        Some("a link-local address")
    } else if address.is_unique_local() || within(0xfec0 << 112, 10) {
        Some("a private address")
    } else if !within(0x2000 << 112, 3)
        // These are protocol assignments (with Teredo) and documentation.
        || within(0x2001 << 112, 23)
        || within(0x2001_0db8 << 96, 32)
        || within(0x3fff << 112, 20)
    {
        Some("a reserved address")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_pass() {
        for text in [
            "93.184.216.34",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1",
            "2a00:1450:4001::1",
            "64:ff9b::8.8.8.8",
        ] {
            assert_eq!(refused(text.parse().unwrap()), None, "{text}");
        }
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.255.255.254",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "169.254.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "100.127.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "198.51.100.1",
            "203.0.113.1",
            "192.88.99.1",
            "198.18.0.1",
            "198.19.255.255",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::ffff:169.254.169.254",
            "64:ff9b::127.0.0.1",
            "64:ff9b::169.254.169.254",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "2002:808:808::1",
            "fe80::1",
            "febf::1",
            "fc00::1",
            "fd00:ec2::254",
            "fec0::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "100::1",
            "5f00::1",
            "4000::1",
        ] {
            assert!(refused(text.parse().unwrap()).is_some(), "{text}");
        }
    }
}
