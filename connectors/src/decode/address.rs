//! The caller's address: the peer's, or what trusted proxies say in `X-Forwarded-For`.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::raw::Value;

/// Parses an address, with or without a port, brackets or an IPv6 zone. IPv4 in IPv6 becomes IPv4.
pub(super) fn parse(text: &str) -> Option<IpAddr> {
    let text = text.trim_matches([' ', '\t']);
    let address = match text.parse::<IpAddr>() {
        Ok(address) => address,
        Err(_) => match text.parse::<SocketAddr>() {
            Ok(socket) => socket.ip(),
            Err(_) => {
                let inner = text.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(text);
                let address = inner.split_once('%').map_or(inner, |(address, _)| address);
                IpAddr::V6(address.parse().ok()?)
            }
        },
    };
    Some(address.to_canonical())
}

/// The caller: `peer`, unless it is a trusted proxy; then the rightmost address of `forwarded_for` that isn't
/// one (the leftmost if all are). Addresses further left are the caller's own claim. An entry that is no
/// address ends the walk: the caller is unknown.
pub(super) fn client(
    peer: IpAddr,
    forwarded_for: Value<'_>,
    trusted_proxies: &[IpNet],
    buffer: &mut String,
) -> Option<IpAddr> {
    let trusted = |address: IpAddr| trusted_proxies.iter().any(|net| net.contains(&address));
    if !trusted(peer) {
        return Some(peer);
    }
    // A proxy may add a header of its own instead of appending to the one it got: the last header counts first.
    let mut client = peer;
    let mut headers: Vec<Value<'_>> = forwarded_for.elements().collect();
    while let Some(header) = headers.pop() {
        let Ok(Some(text)) = header.text(buffer) else { continue };
        for entry in text.rsplit(',') {
            client = parse(entry)?;
            if !trusted(client) {
                return Some(client);
            }
        }
    }
    Some(client)
}

/// The address as [`AccessEvent::client`](keytide_dataflow::model::AccessEvent::client) has it.
pub(super) fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_an_address() {
        let v4: IpAddr = "203.0.113.57".parse().unwrap();
        let v6: IpAddr = "2001:db8::7".parse().unwrap();
        for text in [
            "203.0.113.57",
            "203.0.113.57:443",
            " 203.0.113.57\t",
            "::ffff:203.0.113.57",
            "[::ffff:203.0.113.57]:1",
        ] {
            assert_eq!(parse(text), Some(v4), "{text}");
        }
        for text in
            ["2001:db8::7", "[2001:db8::7]", "[2001:db8::7]:443", "2001:DB8:0::7%eth0", "[2001:db8::7%1]"]
        {
            assert_eq!(parse(text), Some(v6), "{text}");
        }
        for text in
            ["", "-", "unknown", "203.0.113", "203.0.113.256", "1.2.3.4.5", "[203.0.113.57]", "unix:", ":::"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(bits(v4), 0xffff_cb00_7139);
        assert_eq!(bits(v6), 0x2001_0db8_0000_0000_0000_0000_0000_0007);
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "2001:db8:f::/48".parse().unwrap()];
        let walk = |peer: &str, forwarded: Value<'_>| {
            client(peer.parse().unwrap(), forwarded, &trusted, &mut String::new()).map(|ip| ip.to_string())
        };
        let forged = Value::Plain("198.51.100.1, 203.0.113.57, 10.1.1.1:80");
        assert_eq!(walk("192.0.2.1", forged).as_deref(), Some("192.0.2.1"));
        assert_eq!(walk("10.0.0.1", forged).as_deref(), Some("203.0.113.57"));
        assert_eq!(walk("2001:db8:f::1", forged).as_deref(), Some("203.0.113.57"));
        assert_eq!(walk("10.0.0.1", Value::Missing).as_deref(), Some("10.0.0.1"));
        assert_eq!(walk("10.0.0.1", Value::Plain("10.3.3.3,10.2.2.2")).as_deref(), Some("10.3.3.3"));
        assert_eq!(walk("10.0.0.1", Value::Plain("203.0.113.57, unknown")), None);
        let repeated = Value::Array(r#"["198.51.100.1","203.0.113.57"]"#);
        assert_eq!(walk("10.0.0.1", repeated).as_deref(), Some("203.0.113.57"));
    }
}
