//! Tests of the tables that bills are made from, and of the columns about them.

use keytide_billing::{Exact, Measure, PeriodKind, PriceModel, QuotaLimit, QuotaThresholds, TierRow};
use keytide_dataflow::model::{PlanFees, PriceRow, QuotaHolder, QuotaRow};

use super::*;

/// Reads a CSV file with one row, given as `column=value` between blanks. `_` stands for a blank.
fn one(table: &str, cells: &str) -> TablesRead {
    let cells: Vec<(&str, String)> = cells
        .split_whitespace()
        .map(|cell| cell.split_once('=').unwrap())
        .map(|(column, value)| (column, quoted(&value.replace('_', " "))))
        .collect();
    let columns: Vec<&str> = cells.iter().map(|(column, _)| *column).collect();
    let values: Vec<&str> = cells.iter().map(|(_, value)| value.as_str()).collect();
    read_text(table, Csv, &format!("{}\n{}\n", columns.join(","), values.join(",")))
}

fn quota(cells: &str) -> QuotaRow {
    let read = one("quotas", cells);
    match rows(&read).as_slice() {
        [TableRow::Quota(row)] => row.clone(),
        _ => panic!("{cells}: {read:?}"),
    }
}

fn price(cells: &str) -> PriceRow {
    let read = one("prices", cells);
    match rows(&read).as_slice() {
        [TableRow::Price(row)] => (**row).clone(),
        _ => panic!("{cells}: {read:?}"),
    }
}

fn exact(text: &str) -> Exact {
    text.parse().unwrap()
}

#[test]
fn every_column_of_quotas() {
    let csv = "plan,subscription,metric,period,limit,hard,notify,valid_from\n\
               gold,,calls,month,1000000,true,50;100%,2026-03-01\n\
               ,sub-1,Cost,BILLING,49.90,,,\n\
               ,sub-1,bytes,day,1e6,no,none,\n";
    let json = r#"{"plan":"gold","metric":"calls","period":"month","limit":1000000,"hard":true,"notify":[50,100],"valid_from":"2026-03-01"}
                  {"subscription":"sub-1","metric":"Cost","period":"BILLING","limit":49.9}
                  {"subscription":"sub-1","metric":"bytes","period":"day","limit":1000000.0,"hard":0,"notify":["none"]}"#;
    let of_csv = read_text("quotas", Csv, csv);
    let row = |holder, measure, period, limit, hard, notify: &str, valid_from| {
        let notify = if notify.is_empty() { QuotaThresholds::default() } else { notify.parse().unwrap() };
        let limit = QuotaLimit { limit, hard, notify };
        TableRow::Quota(QuotaRow { holder, measure, period, limit, valid_from })
    };
    let (plan, own) =
        (QuotaHolder::Plan(NameId::new("gold")), QuotaHolder::Subscription(NameId::new("sub-1")));
    // Rows with a date come last.
    let expected = [
        row(own, Measure::Cost, PeriodKind::Billing, 499_000, false, "", None),
        row(own, Measure::Bytes, PeriodKind::Day, 1_000_000, false, "none", None),
        row(plan, Measure::Calls, PeriodKind::Month, 1_000_000, true, "50;100", time("2026-03-01T00:00:00Z")),
    ];
    assert_eq!(rows(&of_csv), expected);
    assert_eq!(of_csv, read_text("quotas", Jsonl, json));
    assert_eq!((of_csv.definitions.len(), &of_csv.warnings[..]), (2, &[][..]));
}

#[test]
fn every_column_of_prices() {
    let csv = "plan,item,metric,model,unit,up_to,unit_price,flat_price,included,package,currency,valid_from\n\
               gold,traffic,bytes_out,Graduated,GiB,100,0.1,2.50,7,,USD,2026-03-01\n\
               gold,traffic,bytes_out,Graduated,,,0.05,,,,,2026-03-01\n\
               gold,calls,calls,package,,,5,,,1000,,\n";
    let json = r#"{"plan":"gold","item":"traffic","metric":"bytes_out","model":"Graduated","unit":"GiB","up_to":100,"unit_price":0.1,"flat_price":"2.50","included":7,"currency":"USD","valid_from":"2026-03-01"}
                  {"plan":"gold","item":"traffic","metric":"bytes_out","model":"Graduated","unit_price":5e-2,"valid_from":"2026-03-01"}
                  {"plan":"gold","item":"calls","metric":"calls","model":"package","unit_price":5,"package":1000.0}"#;
    let of_csv = read_text("prices", Csv, csv);
    let tier = TierRow {
        measure: Measure::BytesOut,
        model: PriceModel::Graduated,
        unit: Some("GiB".parse().unwrap()),
        up_to: Some(100),
        unit_price: exact("0.1"),
        flat_price: exact("2.5"),
        included: Some(7),
        package: None,
        currency: Some("USD".parse().unwrap()),
    };
    let last = TierRow {
        unit: None,
        up_to: None,
        unit_price: exact("0.05"),
        flat_price: Exact::ZERO,
        included: None,
        currency: None,
        ..tier.clone()
    };
    let calls = TierRow {
        measure: Measure::Calls,
        model: PriceModel::Package,
        unit_price: exact("5"),
        package: Some(1_000),
        ..last.clone()
    };
    let row = |item: &str, tier: &TierRow, valid_from| {
        let (plan, item) = (NameId::new("gold"), NameId::new(item));
        TableRow::Price(Box::new(PriceRow { plan, item, tier: tier.clone(), valid_from }))
    };
    let march = time("2026-03-01T00:00:00Z");
    let expected = [row("calls", &calls, None), row("traffic", &tier, march), row("traffic", &last, march)];
    assert_eq!(rows(&of_csv), expected, "{of_csv:?}");
    assert_eq!(of_csv, read_text("prices", Jsonl, json));
    assert_eq!(price("plan=p item=i metric=calls unit_price=1").tier.model, PriceModel::Unit);
    assert_eq!(price("plan=p item=i metric=calls flat_price=1").tier.unit_price, Exact::ZERO);
}

#[test]
fn fees_of_plans_and_dates_of_subscriptions() {
    let plan = |cells: &str| match rows(&one("plans", cells)).as_slice() {
        [TableRow::Plan(row)] => *row.fees,
        _ => panic!("{cells}"),
    };
    let fees = PlanFees {
        currency: Some("KRW".parse().unwrap()),
        base_fee: exact("10"),
        minimum: Some(exact("20")),
        maximum: Some(exact("20")),
    };
    assert_eq!(plan("id=p currency=KRW base_fee=10.00 minimum=20 maximum=20"), fees);
    assert_eq!(plan("id=p currency= base_fee= minimum=NULL maximum="), PlanFees::default());
    for (cells, reason) in [
        (
            "currency=eur",
            "`currency` must be a current code of ISO 4217 in capitals, such as EUR, USD or KRW",
        ),
        ("base_fee=ten", ""),
        ("base_fee=-1", ""),
        ("minimum=1,5", ""),
        ("maximum=0.0000000000001", ""),
        ("minimum=2 maximum=1", "`minimum` must not be greater than `maximum`: lower it, or leave one empty"),
    ] {
        let read = one("plans", &format!("id=p {cells}"));
        let column = format!("`{}` must ", cells.split_once('=').unwrap().0);
        let [(2, found)] = reasons(&read)[..] else { panic!("{cells}: {read:?}") };
        assert!(found == reason || (reason.is_empty() && found.starts_with(&column)), "{cells}: {found}");
    }

    let csv = "id,plan,valid_from,time_zone\n\
               s,new,2026-03-01T00:00:00Z,europe/berlin\ns,old,,Mars/Olympus\nt,bad,soon,\ns,old,2026-02-01,\n";
    let read = read_text("subscriptions", Csv, csv);
    let found = rows(&read).into_iter().map(|row| match row {
        TableRow::Subscription(row) => (row.plan, row.valid_from, row.time_zone),
        other => panic!("{other:?}"),
    });
    let expected = [
        ("old", None, ""),
        ("bad", None, ""),
        ("old", time("2026-02-01T00:00:00Z"), ""),
        ("new", time("2026-03-01T00:00:00Z"), "Europe/Berlin"),
    ];
    let expected = expected.map(|(plan, from, zone)| (NameId::new(plan), from, NameId::new(zone)));
    assert_eq!(found.collect::<Vec<_>>(), expected, "those without a date first");
    assert_eq!(read.changes.iter().map(|change| change.offset).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!((reasons(&read), read.unread), (vec![], 2));
    let zone = read.warnings.iter().find(|warning| warning.contains("`time_zone`")).unwrap();
    assert!(zone.contains("in 1 rows, first in line 3") && zone.ends_with("UTC is used instead"), "{zone}");
}

#[test]
fn values_that_bills_depend_on_refuse_the_row() {
    let must = |column: &str| format!("`{column}` must ");
    let quota_of = "plan=p metric=calls period=day limit=1";
    let price_of = "plan=p item=i metric=calls unit_price=1";
    let without = |of: &str, column: &str| {
        let kept: Vec<&str> = of.split(' ').filter(|cell| !cell.starts_with(&format!("{column}="))).collect();
        kept.join(" ")
    };
    for (table, of, column, values) in [
        ("quotas", quota_of, "metric", "call requests 1"),
        ("quotas", quota_of, "period", "week monthly"),
        ("quotas", quota_of, "limit", "many -1 0.5 1,000 18446744073709551616"),
        ("quotas", quota_of, "hard", "2 maybe"),
        ("quotas", quota_of, "valid_from", "soon"),
        ("prices", price_of, "metric", "call"),
        ("prices", price_of, "model", "tiered"),
        ("prices", price_of, "unit", "0 kB PB 1.5"),
        ("prices", price_of, "up_to", "1,000 -1 many"),
        ("prices", price_of, "unit_price", "free -1 0,5 1e-13 $1"),
        ("prices", price_of, "flat_price", "free"),
        ("prices", price_of, "included", "x 0.1"),
        ("prices", price_of, "package", "x"),
        ("prices", price_of, "currency", "Euro eur XAU"),
        ("prices", price_of, "valid_from", "soon"),
    ] {
        for value in values.split(' ') {
            let read = one(table, &format!("{} {column}={value}", without(of, column)));
            let [(2, reason)] = reasons(&read)[..] else { panic!("{column}={value}: {read:?}") };
            assert!(reason.starts_with(&must(column)), "{column}={value}: {reason}");
            assert_eq!(read.changes, []);
        }
    }
    for (table, cells, reason) in [
        ("quotas", "plan= metric=calls period=day limit=1", "`plan` or `subscription` is required"),
        (
            "quotas",
            "plan=p subscription=s metric=calls period=day limit=1",
            "a quota has `plan` or `subscription`, not both: write two rows",
        ),
        ("quotas", "plan=p metric= period=day limit=1", "`metric` is empty"),
        ("quotas", "plan=p metric=calls period=NULL limit=1", "`period` is empty"),
        ("quotas", "plan=p metric=calls period=day limit=", "`limit` is empty"),
        ("prices", "plan= item=i metric=calls unit_price=1", "`plan` is empty"),
        ("prices", "plan=p item= metric=calls unit_price=1", "`item` is empty"),
        ("prices", "plan=p item=i metric= unit_price=1", "`metric` is empty"),
        (
            "prices",
            "plan=p item=i metric=calls unit_price= flat_price=",
            "`unit_price` or `flat_price` is required: write 0 if the tier is free",
        ),
    ] {
        assert_eq!(reasons(&one(table, cells)), [(2, reason)], "{cells}");
    }
    for (table, columns) in [
        ("quotas", "`plan` or `subscription`, no column `metric`, no column `period`, no column `limit`"),
        ("prices", "`plan`, no column `item`, no column `metric`, no column `unit_price` or `flat_price`"),
    ] {
        let error = read_bytes(table, Csv, b"x\n", &[]).unwrap_err().to_string();
        assert!(error.contains(columns), "{error}");
    }
    // How people are told isn't a bill's business.
    let read = one("quotas", &format!("{quota_of} notify=often"));
    let warning = "`notify` must be at most 8 percentages from 1 to 1000 such as 80;90;100, or none";
    assert!(read.unread == 1 && read.warnings[0].ends_with(warning), "{read:?}");
    assert_eq!(quota(&format!("{quota_of} notify=often")).limit.notify, QuotaThresholds::default());
}

/// JSON numbers with a fraction are read as floating point, which has 15 digits for certain.
#[test]
fn a_number_that_may_be_rounded_is_refused() {
    let read = |price: &str| {
        let json = format!("{{\"plan\":\"p\",\"item\":\"i\",\"metric\":\"calls\",\"unit_price\":{price}}}\n");
        read_text("prices", Jsonl, &json)
    };
    for price in ["0.123456789012", "123456789012.345", "1e-12", "12345678901.5"] {
        let read = read(price);
        let [TableRow::Price(row)] = &rows(&read)[..] else { panic!("{read:?}") };
        assert_eq!(row.tier.unit_price, exact(price));
    }
    for price in ["1234567.890123456789", "100000000.0000001"] {
        let reason = "`unit_price` has more digits than a JSON number keeps: write it as a text";
        assert_eq!(reasons(&read(price)), [(1, reason)], "{price}");
        assert_eq!(read(&format!("\"{price}\"")).changes.len(), 1);
    }
}

#[test]
fn tiers_are_a_price_together_or_none() {
    let head = "plan,item,metric,model,up_to,unit_price,valid_from\n";
    let good = "p,good,calls,unit,,1,\n";
    let judged = |tiers: &[&str]| {
        let rows: String = tiers.iter().map(|tier| format!("p,i,calls,{tier}\n")).collect();
        let read = read_text("prices", Csv, &format!("{head}{good}{rows}"));
        let found: Vec<(u64, String)> =
            reasons(&read).into_iter().map(|(line, reason)| (line, reason.to_owned())).collect();
        let offsets: Vec<u64> = read.changes.iter().map(|change| change.offset).collect();
        assert_eq!(offsets, (0..offsets.len() as u64).collect::<Vec<_>>());
        assert_eq!(offsets.len() + read.dead_letters.len(), tiers.len() + 1, "{read:?}");
        found
    };
    let none: Vec<(u64, String)> = Vec::new();
    for tiers in [
        &["graduated,10,0,", "graduated,,1,"][..],
        // A database exports them in any order.
        &["graduated,,1,", "graduated,10,0,"],
        // A row that stands twice counts once.
        &["graduated,,1,", "graduated,,1,", "graduated,10,0,"],
        // Another date is another price.
        &["graduated,,1,", "unit,,1,2026-01-01", "volume,10,2,2026-02-01", "volume,,1,2026-02-01"],
    ] {
        assert_eq!(judged(tiers), none, "{tiers:?}");
    }
    for (tiers, fault) in [
        (&["graduated,10,0,", "graduated,10,1,", "graduated,,1,"][..], "tier 2: `up_to` must be greater"),
        (&["graduated,0,0,", "graduated,,1,"], "tier 1: `up_to` must be greater"),
        (&["graduated,10,0,"], "tier 1: the last tier must have no `up_to`"),
        (&["graduated,,0,", "graduated,,1,"], "tier 1: only the last tier has no `up_to`"),
        (&["unit,10,0,", "unit,,1,"], "the model unit has one tier"),
        (&["graduated,10,0,", "volume,,1,"], "tier 2: `model` differs"),
        (&["package,,1,"], "the model package needs a `package`"),
        // Without the first tier, ten free calls would cost something.
        (&["graduated,10,O,", "graduated,,1,"], "another row of its plan and item is refused"),
    ] {
        let found = judged(tiers);
        assert_eq!(
            found.iter().map(|(line, _)| *line).collect::<Vec<_>>(),
            (3..3 + tiers.len() as u64).collect::<Vec<_>>()
        );
        assert!(found.iter().any(|(_, reason)| reason.starts_with(fault)), "{tiers:?}: {found:?}");
    }
    let costly = one("prices", "plan=p item=i metric=cost unit_price=1");
    assert!(reasons(&costly)[0].1.starts_with("`metric` must not be cost"), "{costly:?}");
}

proptest! {
    /// Whatever the rows are: each is accepted or refused, and what is accepted of an item is a price.
    #[test]
    fn accepted_tiers_are_prices(
        tiers in proptest::collection::vec(
            ("[pq]", "[ij]", "unit|graduated|volume|package|x", "|0|1|2|3", "1|2|x", "|2", "|2026-01-01"),
            0..12,
        ),
    ) {
        let mut csv = "plan,item,metric,model,up_to,unit_price,package,valid_from\n".to_owned();
        for (plan, item, model, up_to, unit_price, package, from) in &tiers {
            csv += &format!("{plan},{item},calls,{model},{up_to},{unit_price},{package},{from}\n");
        }
        let read = read_text("prices", Csv, &csv);
        prop_assert_eq!(read.changes.len() + read.dead_letters.len(), tiers.len());
        let mut sets: BTreeMap<_, Vec<TierRow>> = BTreeMap::new();
        for row in rows(&read) {
            let TableRow::Price(row) = row else { panic!("a price") };
            sets.entry((row.plan, row.item, row.valid_from)).or_default().push(row.tier);
        }
        for mut tiers in sets.into_values() {
            tiers.sort_by_key(|tier| tier.up_to.unwrap_or(u64::MAX));
            tiers.dedup();
            prop_assert!(keytide_billing::Price::new(&tiers).is_ok(), "{:?}", tiers);
        }
    }
}
