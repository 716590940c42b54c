//! The section `[geo]`: databases of addresses' places, and trusted proxies.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::prelude::*;

section! {
    /// The section `[geo]` of a configuration.
    #[derive(Clone, Debug)]
    pub struct Geo, RawGeo then trust {
        /// Country database (mmdb, either layout).
        results country: Option<PathBuf> = country(PathText) or None;
        /// ASN database (mmdb, either layout).
        results asn: Option<PathBuf> = asn(PathText) or None;
        /// City database (mmdb, either layout), which has the coordinates of addresses.
        results city: Option<PathBuf> = city(PathText) or None;
        /// Table of networks with their class (CSV).
        results networks: Option<PathBuf> = networks(PathText) or None;
        /// The peers whose `X-Forwarded-For` counts.
        results trusted_proxies: Vec<IpNet> = trusted_proxies(List<IpNet>, AtMost(1_024, "ranges")) or Vec::new();
    }
}

impl RawGeo {
    fn trust(spot: &Spot<Self>, _: &mut Geo, check: &mut Check<'_>) {
        let ranges = spot.value.trusted_proxies.value().map_or(&[][..], |list| &list.items);
        for net in ranges.iter().filter(|net| net.value.prefix_len() == 0) {
            let message = format!(
                "{} trusts every peer, so that any caller can choose the address it is counted under",
                net.shown
            );
            check.warn(net, message);
        }
    }
}

parsed! {
    IpNet: network, "an address or a CIDR, such as \"10.0.0.0/8\"";
}

/// Reads a network. Host bits are cleared, and IPv4-mapped ranges become IPv4 ranges, as addresses are compared.
fn network(text: &str) -> Option<IpNet> {
    let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    net.map(|net| canonical(net.trunc()))
}

fn canonical(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let mapped = v6.addr().to_ipv4_mapped().zip(v6.prefix_len().checked_sub(96));
    let v4 = mapped.and_then(|(address, length)| Ipv4Net::new(address, length).ok());
    v4.map_or(net, IpNet::V4)
}

impl Fingerprint for IpNet {
    fn add_to(&self, encoder: &mut Encoder) {
        encoder.text(&self.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::*;

    #[test]
    fn networks_are_canonical() {
        for (text, net) in [
            ("10.0.0.0/8", Some("10.0.0.0/8")),
            ("10.1.2.3/8", Some("10.0.0.0/8")),
            ("192.0.2.1", Some("192.0.2.1/32")),
            ("2001:db8::1", Some("2001:db8::1/128")),
            ("::ffff:10.0.0.0/104", Some("10.0.0.0/8")),
            ("::ffff:0:0/95", Some("::fffe:0:0/95")),
            ("10.0.0.0/33", None),
            ("10.0.0", None),
            ("localhost", None),
        ] {
            assert_eq!(network(text).map(|net| net.to_string()).as_deref(), net, "{text}");
        }
    }

    #[test]
    fn wrong_values_are_reported_with_their_location() {
        let with = |lines: &str| format!("{SMALL}{lines}");
        for (text, expected) in [
            (
                with("[geo]\ntrusted_proxies = [\"10.0.0.0/8\", \"office\"]"),
                "line 7: geo.trusted_proxies[1]: found \"office\", allowed: an address or a CIDR, such as \"10.0.0.0/8\"",
            ),
            (
                with("[geo]\ncity = \"\""),
                "line 7: geo.city: found \"\", allowed: a path, absolute or relative to the configuration file",
            ),
        ] {
            assert_eq!(problems(&text), expected, "{text}");
        }
    }

    #[test]
    fn suspicious_values_are_warnings() {
        assert_eq!(
            warnings(&format!("{SMALL}[geo]\ntrusted_proxies = [\"::/0\"]")),
            "line 7: geo.trusted_proxies[0]: \"::/0\" trusts every peer, so that any caller can choose the address it is counted under"
        );
    }
}
