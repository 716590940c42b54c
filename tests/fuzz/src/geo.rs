//! Geo databases: bytes in, a database or an error out; of a database any look-up.
//!
//! The first byte chooses country, ASN, City or a file of networks. Look-ups never panic, give the same again, and nobody's address is of no
//! country.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use keytide_config::Geo as Config;
use keytide_connectors::decode::{Locate, Located};
use keytide_connectors::geo::{GeoDatabases, WatchedGeo};

use crate::SCRATCH;

/// One input.
pub fn geo(data: &[u8]) {
    let Some((choice, database)) = data.split_first() else { return };
    let path = SCRATCH.write(database).to_owned();
    let mut config = Config::default();
    match choice & 3 {
        0 => config.country = Some(path),
        1 => config.asn = Some(path),
        2 => config.city = Some(path),
        _ => config.networks = Some(path),
    }
    let geo = match GeoDatabases::open(&config) {
        Ok((geo, _)) => geo,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let (_, watched, _) = WatchedGeo::open(&config).expect("what opens once opens again");
    // Addresses that are likely to be in a small database, and some that its own bytes make up.
    let mut addresses: Vec<IpAddr> = vec![
        Ipv4Addr::new(203, 0, 113, 57).into(),
        Ipv4Addr::new(9, 9, 9, 9).into(),
        Ipv4Addr::new(223, 255, 255, 255).into(),
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(),
        Ipv6Addr::new(0x2a00, 0, 0, 0, 0, 0, 0, 1).into(),
    ];
    let chunks = database.chunks_exact(16).take(64).filter_map(|chunk| <[u8; 16]>::try_from(chunk).ok());
    for chunk in chunks {
        addresses.push(chunk.into());
        addresses.push([chunk[0], chunk[1], chunk[2], chunk[3]].into());
    }
    for address in &addresses {
        let found = geo.locate(*address);
        assert!(found.country.0.iter().all(u8::is_ascii_uppercase));
        assert_eq!(found, geo.locate(*address));
        assert_eq!(found, watched.locate(*address));
    }
    assert!(geo.unreadable().count() <= 2 * addresses.len() as u64);
    for nobodys in ["10.1.2.3", "127.0.0.1", "::1", "fe80::1", "::ffff:192.168.0.1"] {
        assert_eq!(geo.locate(nobodys.parse().expect("an address")), Located::default());
    }
}
