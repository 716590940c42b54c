//! Prices against a count of single units, and the rules of tables.

use proptest::prelude::*;

use super::*;

/// A row with a price for each unit, which is one.
pub(crate) fn row(model: PriceModel, up_to: Option<u64>, unit_price: &str) -> TierRow {
    TierRow {
        measure: Measure::Calls,
        model,
        unit: None,
        up_to,
        unit_price: unit_price.parse().unwrap(),
        flat_price: Exact::ZERO,
        included: None,
        package: None,
        currency: None,
    }
}

fn with_unit(row: TierRow, unit: &str) -> TierRow {
    TierRow { unit: Some(unit.parse().unwrap()), ..row }
}

fn price(rows: &[TierRow]) -> Price {
    Price::new(rows).unwrap()
}

fn euros(sum: Exact) -> String {
    let euro: Currency = "EUR".parse().unwrap();
    euro.text(euro.amount(sum).unwrap())
}

/// The tiers of a plan whose use is cheaper the more there is.
fn four_tiers() -> Price {
    let tier = |up_to, unit_price| row(PriceModel::Graduated, up_to, unit_price);
    price(&[
        tier(Some(10_000), "0"),
        tier(Some(100_000), "0.001"),
        tier(Some(1_000_000), "0.0008"),
        tier(None, "0.0005"),
    ])
}

#[test]
fn calls_beyond_those_included_are_charged() {
    let bronze = TierRow { included: Some(10_000), ..row(PriceModel::Unit, None, "0.002") };
    assert_eq!(euros(price(&[bronze]).of(12_345).unwrap()), "4.69");
}

#[test]
fn bytes_are_charged_by_decimal_and_binary_units() {
    let calls = price(&[row(PriceModel::Unit, None, "0.001")]).of(1_234_567).unwrap();
    let bytes =
        |unit| price(&[with_unit(row(PriceModel::Unit, None, "0.10"), unit)]).of(98_765_432_109).unwrap();
    assert_eq!(calls.to_string(), "1234.567");
    assert_eq!(euros(calls), "1234.57");
    assert_eq!(bytes("GiB").to_string(), "9.1982476514764130115509033203");
    assert_eq!(euros(bytes("GiB")), "9.20");
    assert_eq!(euros(bytes("GB")), "9.88");
}

#[test]
fn tiers_are_charged_each_at_its_price() {
    assert_eq!(euros(four_tiers().of(2_500_000).unwrap()), "1560.00");
    let above = four_tiers().of(10_001).unwrap();
    assert_eq!((above.to_string().as_str(), euros(above).as_str()), ("0.001", "0.00"));
    let parts = four_tiers().parts(2_500_000).unwrap();
    let parts = parts.iter().map(|part| (part.tier, part.quantity, part.exact.to_string()));
    let expected = [(0, 10_000, "0"), (1, 90_000, "90"), (2, 900_000, "720"), (3, 1_500_000, "750")];
    assert_eq!(
        parts.collect::<Vec<_>>(),
        expected.map(|(tier, quantity, exact)| (tier, quantity, exact.to_owned()))
    );
}

#[test]
fn prices_below_a_cent_are_not_rounded_by_call() {
    assert_eq!(euros(price(&[row(PriceModel::Unit, None, "0.0004")]).of(100_000).unwrap()), "40.00");
}

#[test]
fn a_bound_belongs_to_its_tier() {
    let tier = |model, up_to, unit_price| row(model, up_to, unit_price);
    let volume = price(&[tier(PriceModel::Volume, Some(10), "2"), tier(PriceModel::Volume, None, "1")]);
    assert_eq!([10, 11].map(|quantity| volume.of(quantity).unwrap().to_string()), ["20", "11"]);
    // Bounds and what is included count units.
    let of_unit = |row: TierRow| TierRow { included: Some(1), ..with_unit(row, "KB") };
    let graduated = price(&[
        of_unit(tier(PriceModel::Graduated, Some(2), "1")),
        of_unit(tier(PriceModel::Graduated, None, "0.1")),
    ]);
    let prices = [0, 1_000, 1_001, 3_000, 3_001, 4_000].map(|bytes| graduated.of(bytes).unwrap().to_string());
    assert_eq!(prices, ["0", "0", "0.001", "2", "2.0001", "2.1"]);
}

#[test]
fn packages_are_sold_whole() {
    let row = TierRow { package: Some(5), included: Some(2), ..row(PriceModel::Package, None, "3") };
    let package = price(&[TierRow { flat_price: "0.5".parse().unwrap(), ..row }]);
    let prices = [0, 2, 3, 7, 8].map(|quantity| package.of(quantity).unwrap().to_string());
    assert_eq!(prices, ["0", "0", "3.5", "3.5", "6.5"]);
}

#[test]
fn a_flat_price_is_due_with_the_first_unit_of_its_tier() {
    let flat = |row: TierRow, flat_price: &str| TierRow { flat_price: flat_price.parse().unwrap(), ..row };
    let tiers = [
        flat(row(PriceModel::Graduated, Some(10), "1"), "5"),
        flat(row(PriceModel::Graduated, None, "0.5"), "7"),
    ];
    let prices = [0, 1, 10, 11].map(|quantity| price(&tiers).of(quantity).unwrap().to_string());
    assert_eq!(prices, ["0", "6", "15", "22.5"]);
}

#[test]
fn the_largest_counters_are_charged_exactly_or_refused() {
    assert_eq!(four_tiers().of(1 << 63).unwrap().to_string(), "4611686018427697.904");
    assert_eq!(four_tiers().of(u128::MAX), Err(Overflow));
    assert_eq!(four_tiers().segment(u128::MAX, 1), Err(Overflow));
    let precise = price(&[row(PriceModel::Unit, None, "999999999999.999999999999")]);
    assert_eq!(precise.of(1 << 63), Err(Overflow));
    assert!(precise.of(1 << 40).is_ok());
}

#[test]
fn rows_that_are_no_price_are_refused_with_the_tier_and_the_remedy() {
    let tier = |up_to| row(PriceModel::Graduated, up_to, "1");
    let fault = |rows: &[TierRow]| Price::new(rows).unwrap_err();
    assert_eq!(fault(&[]), PriceFault::NoTiers);
    assert_eq!(fault(&vec![tier(None); 65]), PriceFault::TooManyTiers);
    assert_eq!(fault(&[tier(Some(0)), tier(None)]), PriceFault::NotAscending { tier: 1 });
    assert_eq!(fault(&[tier(Some(5)), tier(Some(5)), tier(None)]), PriceFault::NotAscending { tier: 2 });
    assert_eq!(fault(&[tier(Some(5)), tier(None), tier(None)]), PriceFault::NotLast { tier: 2 });
    assert_eq!(fault(&[tier(Some(5)), tier(Some(6))]), PriceFault::NoLast { tier: 2 });
    for model in [PriceModel::Unit, PriceModel::Package] {
        let rows = [row(model, Some(1), "1"), row(model, None, "1")];
        assert_eq!(fault(&rows), PriceFault::OneTierOnly { model });
    }
    assert_eq!(fault(&[row(PriceModel::Package, None, "1")]), PriceFault::NoPackage);
    let package = |package, row| TierRow { package: Some(package), ..row };
    assert_eq!(fault(&[package(0, row(PriceModel::Package, None, "1"))]), PriceFault::NoPackage);
    assert_eq!(fault(&[package(2, tier(None))]), PriceFault::NeedlessPackage);
    assert_eq!(fault(&[TierRow { measure: Measure::Cost, ..tier(None) }]), PriceFault::PriceOfCost);
    let flat_price = Exact::from(1).negative();
    let found = fault(&[tier(Some(5)), TierRow { flat_price, ..tier(None) }]);
    assert_eq!(found, PriceFault::Negative { tier: 2, column: "flat_price" });

    let differs = |second: TierRow, column| {
        let rows = [
            TierRow { included: Some(1), currency: "EUR".parse().ok(), ..with_unit(tier(Some(5)), "2") },
            second,
        ];
        assert_eq!(fault(&rows), PriceFault::Differs { tier: 2, column });
    };
    differs(TierRow { measure: Measure::Bytes, ..tier(None) }, "metric");
    differs(row(PriceModel::Volume, None, "1"), "model");
    differs(with_unit(tier(None), "3"), "unit");
    differs(TierRow { included: Some(2), ..tier(None) }, "included");
    differs(TierRow { currency: "USD".parse().ok(), ..tier(None) }, "currency");
    let message = PriceFault::NotAscending { tier: 2 }.to_string();
    assert!(message.starts_with("tier 2: `up_to` must be greater"), "{message}");
}

#[test]
fn units_are_read_and_written() {
    let one_of = |text: &str| text.parse::<PriceUnit>().map(PriceUnit::quantity);
    for (text, quantity) in
        [("1", 1), ("1000", 1_000), ("GB", 1_000_000_000), ("GiB", 1_073_741_824), ("TiB", 1_099_511_627_776)]
    {
        assert_eq!(one_of(text), Ok(quantity));
        assert_eq!(text.parse::<PriceUnit>().unwrap().to_string(), quantity.to_string());
    }
    for text in ["", "0", "-1", "+1", "1.5", "gb", "Gb", "PB", "1000000000000001", "99999999999999999999"] {
        assert_eq!(one_of(text), Err(NotAUnit), "{text}");
    }
}

/// Tiers of small bounds and prices in thousandths, of any model.
pub(crate) fn any_rows() -> impl Strategy<Value = Vec<TierRow>> {
    let model = proptest::sample::select(&PriceModel::ALL[..]);
    let tier = (1_u64..40, 0_i128..5_000, 0_i128..3_000);
    let tiers = proptest::collection::vec(tier, 1..5);
    (model, tiers, 1_u64..9, 0_u64..20, 1_u64..7).prop_map(|(model, mut tiers, unit, included, package)| {
        if matches!(model, PriceModel::Unit | PriceModel::Package) {
            tiers.truncate(1);
        }
        let (mut bound, count) = (0, tiers.len());
        let rows = tiers.into_iter().enumerate().map(|(place, (width, unit_price, flat_price))| {
            bound += width;
            TierRow {
                measure: Measure::Calls,
                model,
                unit: PriceUnit::try_from(unit).ok(),
                up_to: (place + 1 < count).then_some(bound),
                unit_price: Exact::fraction(unit_price, 1_000).unwrap(),
                flat_price: Exact::fraction(flat_price, 1_000).unwrap(),
                included: Some(included),
                package: (model == PriceModel::Package).then_some(package),
                currency: None,
            }
        });
        rows.collect()
    })
}

/// Counts unit by unit, in thousandths of a unit's part: the price is the result / (1,000 x unit).
fn counted(rows: &[TierRow], quantity: u64) -> i128 {
    let thousandths = |sum: Exact| sum.times(1_000).unwrap().rounded(0).unwrap();
    let first = &rows[0];
    let unit = first.unit.unwrap().quantity();
    let bound = |row: &TierRow| row.up_to.map_or(u64::MAX, |up_to| up_to * unit);
    let tier_of = |billed: u64| rows.iter().position(|row| billed <= bound(row)).unwrap();
    let free = first.included.unwrap() * unit;
    let mut sum = 0;
    let mut reached = None;
    let mut billed = 0;
    for one in 1..=quantity {
        if one <= free {
            continue;
        }
        billed += 1;
        let tier = tier_of(billed);
        let row = &rows[tier];
        let is_new = reached != Some(tier);
        let flat = thousandths(row.flat_price) * i128::from(unit);
        reached = Some(tier);
        match row.model {
            PriceModel::Unit | PriceModel::Graduated => {
                sum += thousandths(row.unit_price) + if is_new { flat } else { 0 };
            }
            PriceModel::Volume => sum = thousandths(row.unit_price) * i128::from(billed) + flat,
            PriceModel::Package => {
                let begins = (billed - 1).is_multiple_of(first.package.unwrap() * unit);
                sum += if begins { thousandths(row.unit_price) * i128::from(unit) } else { 0 };
                sum += if is_new { flat } else { 0 };
            }
        }
    }
    sum
}

proptest! {
    #[test]
    fn a_price_is_what_its_units_cost_one_by_one(rows in any_rows(), quantity in 0_u64..1_500) {
        let unit = rows[0].unit.unwrap().quantity();
        let expected = Exact::fraction(counted(&rows, quantity), 1_000 * i128::from(unit)).unwrap();
        prop_assert_eq!(price(&rows).of(quantity.into()).unwrap(), expected);
    }

    #[test]
    fn a_price_begins_at_nothing_and_only_volume_may_fall(rows in any_rows(), quantity in 0_u128..1_500, more in 0_u128..100) {
        let price = price(&rows);
        prop_assert_eq!(price.of(0).unwrap(), Exact::ZERO);
        let (less, more) = (price.of(quantity).unwrap(), price.of(quantity + more).unwrap());
        prop_assert!(price.model() == PriceModel::Volume || less <= more);
        prop_assert!(less >= Exact::ZERO);
    }

    #[test]
    fn segments_of_one_price_cost_what_the_whole_costs(rows in any_rows(), own in proptest::collection::vec(0_u128..400, 0..6)) {
        let price = price(&rows);
        let (mut before, mut sum, mut quantity) = (0, Exact::ZERO, 0);
        for own in own {
            for part in price.segment(before, own).unwrap() {
                sum = sum.plus(part.exact).unwrap();
                quantity += part.quantity;
            }
            before += own;
        }
        prop_assert_eq!(sum, price.of(before).unwrap());
        let billed: i128 = price.parts(before).unwrap().iter().map(|part| part.quantity).sum();
        prop_assert_eq!(quantity, billed);
    }

    #[test]
    fn any_text_is_a_unit_or_refused(text in "[0-9]{0,20}|[KMGTiB]{0,4}|\\PC{0,20}") {
        if let Ok(unit) = text.parse::<PriceUnit>() {
            prop_assert!((1..=LARGEST_UNIT).contains(&unit.quantity()));
        }
        let is_name = PriceModel::ALL.iter().any(|model| model.name() == text);
        prop_assert_eq!(text.parse::<PriceModel>().is_ok(), is_name);
    }

    /// Any rows are a price or a fault, and any quantity then has a price or overflows.
    #[test]
    fn any_rows_and_quantities_are_judged(
        bounds in proptest::collection::vec(proptest::option::of(any::<u64>()), 0..5), quantity in any::<u128>(),
        included in any::<u64>(), package in proptest::option::of(any::<u64>()),
        model in proptest::sample::select(&PriceModel::ALL[..]),
    ) {
        let rows: Vec<TierRow> = bounds.into_iter().map(|up_to| TierRow {
            included: Some(included), package, unit: "TiB".parse().ok(),
            ..row(model, up_to, "123456789012.123456789012")
        }).collect();
        match Price::new(&rows) {
            Ok(price) => {
                let _ = (price.of(quantity), price.segment(quantity, quantity), price.of(quantity >> 64));
            }
            Err(fault) => prop_assert!(!fault.to_string().is_empty()),
        }
    }
}
