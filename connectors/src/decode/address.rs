//! The caller's address is the peer's, or the one that trusted proxies name in `X-Forwarded-For`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ipnet::IpNet;

use super::value::FieldValue;

/// Parses an address, with or without a port, brackets or an IPv6 zone. IPv4 in IPv6 becomes IPv4.
pub(super) fn parse(text: &str) -> Option<IpAddr> {
    if let Some(address) = plain_v4(text.as_bytes()) {
        return Some(IpAddr::V4(address));
    }
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

/// Parses a text that is one IPv4 address, as nearly all are. It takes a fifth of the instructions of the parser of
/// all forms.
fn plain_v4(text: &[u8]) -> Option<Ipv4Addr> {
    let mut octets = [0_u8; 4];
    let mut rest = text;
    for (index, octet) in octets.iter_mut().enumerate() {
        let mut value = 0_u32;
        let mut digits = 0;
        while let Some(digit) =
            rest.get(digits).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10)
        {
            // A second digit behind a zero would be octal to some.
            if digits == 3 || (digits == 1 && value == 0) {
                return None;
            }
            value = value * 10 + u32::from(digit);
            digits += 1;
        }
        if digits == 0 {
            return None;
        }
        *octet = u8::try_from(value).ok()?;
        rest = match (index, &rest[digits..]) {
            (0..3, [b'.', rest @ ..]) => rest,
            (3, []) => &[],
            _ => return None,
        };
    }
    Some(Ipv4Addr::from(octets))
}

/// Returns the caller's address. It is `peer`, unless that is a trusted proxy. Then it is the rightmost address of
/// `forwarded_for` that isn't a trusted proxy, or the leftmost if all are. Addresses further left are the caller's
/// own claim. An entry that is no address ends the walk, and the caller is unknown.
pub(super) fn client(
    peer: IpAddr,
    forwarded_for: FieldValue<'_>,
    trusted_proxies: &[IpNet],
    buffer: &mut String,
) -> Option<IpAddr> {
    let trusted = |address: IpAddr| trusted_proxies.iter().any(|net| net.contains(&address));
    if !trusted(peer) {
        return Some(peer);
    }
    // A proxy may add a header of its own instead of appending to the one it got: the last header counts first.
    let mut client = peer;
    let mut headers: Vec<FieldValue<'_>> = forwarded_for.elements().collect();
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
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The short way finds what the standard library's parser finds.
        #[test]
        fn plain_v4_is_exact(text in prop_oneof!["[0-9]{0,4}(\\.[0-9]{0,4}){2,4}", "[0-9.: a]{0,16}", "(25[0-9]|[0-9]{1,2})(\\.[0-9]{1,3}){3}"]) {
            prop_assert_eq!(plain_v4(text.as_bytes()), text.parse().ok(), "{}", text);
        }
    }

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
        let walk = |peer: &str, forwarded: FieldValue<'_>| {
            client(peer.parse().unwrap(), forwarded, &trusted, &mut String::new()).map(|ip| ip.to_string())
        };
        let forged = FieldValue::Plain("198.51.100.1, 203.0.113.57, 10.1.1.1:80");
        assert_eq!(walk("192.0.2.1", forged).as_deref(), Some("192.0.2.1"));
        assert_eq!(walk("10.0.0.1", forged).as_deref(), Some("203.0.113.57"));
        assert_eq!(walk("2001:db8:f::1", forged).as_deref(), Some("203.0.113.57"));
        assert_eq!(walk("10.0.0.1", FieldValue::Missing).as_deref(), Some("10.0.0.1"));
        assert_eq!(walk("10.0.0.1", FieldValue::Plain("10.3.3.3,10.2.2.2")).as_deref(), Some("10.3.3.3"));
        assert_eq!(walk("10.0.0.1", FieldValue::Plain("203.0.113.57, unknown")), None);
        let repeated = FieldValue::Array(r#"["198.51.100.1","203.0.113.57"]"#);
        assert_eq!(walk("10.0.0.1", repeated).as_deref(), Some("203.0.113.57"));
    }
}
