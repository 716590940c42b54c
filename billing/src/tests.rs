//! Rules for the sources of this crate, and its types as other crates store them.

use postcard::{from_bytes, to_stdvec};
use proptest::prelude::*;

use crate::price::tests::any_rows;
use crate::*;

/// A float would round where nobody sees it, and not alike on every machine.
#[test]
fn no_number_of_floating_point_is_used() {
    let sources = [
        include_str!("calendar.rs"),
        include_str!("exact.rs"),
        include_str!("forecast.rs"),
        include_str!("measure.rs"),
        include_str!("money.rs"),
        include_str!("period.rs"),
        include_str!("price.rs"),
        include_str!("quota.rs"),
        include_str!("segment.rs"),
    ];
    for source in sources {
        for kind in ["f32", "f64"] {
            assert!(!source.contains(kind), "{kind} in {}", source.lines().next().unwrap_or_default());
        }
    }
}

#[test]
fn stored_values_are_read_as_they_were() {
    for currency in Currency::all() {
        assert_eq!(from_bytes(&to_stdvec(&currency).unwrap()), Ok(currency));
    }
    let limit = QuotaLimit { limit: 499_000, hard: true, notify: "50;99".parse().unwrap() };
    assert_eq!(from_bytes(&to_stdvec(&limit).unwrap()), Ok(limit));
    // Values that no constructor makes are refused.
    assert!(from_bytes::<Exact>(&to_stdvec(&(1_i128, 0_i128)).unwrap()).is_err());
    assert!(from_bytes::<Currency>(b"eur").is_err());
    assert!(from_bytes::<Anchor>(&[32]).is_err());
    assert!(from_bytes::<PriceUnit>(&[0]).is_err());
    assert!(from_bytes::<QuotaThresholds>(&to_stdvec(&vec![0_u16]).unwrap()).is_err());
}

proptest! {
    #[test]
    fn stored_tiers_are_read_as_they_were(rows in any_rows()) {
        prop_assert_eq!(from_bytes(&to_stdvec(&rows).unwrap()), Ok(rows));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = from_bytes::<QuotaLimit>(&bytes);
        if let Ok(row) = from_bytes::<TierRow>(&bytes) {
            let _ = Price::new(&[row]).map(|price| price.of(1 << 63));
        }
    }
}
