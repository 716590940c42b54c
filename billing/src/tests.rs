//! Rules for the sources of this crate.

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
