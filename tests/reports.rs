//! `keytide report` over the views of a replay: bills in the subscription's zone, with a correction, and twice the same.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::harness::{HOUR, Job, Keytide, Row, call, names, path, read, read_text};

/// From the first call, 2025-06-02T08:00Z, to the end of June in Asia/Seoul, 2025-06-30T15:00Z.
const TO_JULY: u64 = (28 * 24 + 7) * HOUR;

const TABLES: &str = r#"
[billing]
close_after = "1d"
[tables.keys]
kind = "file"
path = "keys.csv"
format = "csv"
[tables.subscriptions]
kind = "file"
path = "subscriptions.csv"
format = "csv"
[tables.plans]
kind = "file"
path = "plans.csv"
format = "csv"
[tables.prices]
kind = "file"
path = "prices.csv"
format = "csv"
"#;

/// A job of two subscriptions: one in Seoul, which pays in won, and one whose names mean harm.
fn job() -> Job {
    let of_a = |id: &str, at: u64| call(at, id, "key-a");
    // An hour apart, as a longer leap of one record counts for nothing. A day and an hour into July, June's bill is final.
    let final_at = TO_JULY + 25 * HOUR;
    let mut log: Vec<String> = Vec::new();
    for at in (0..=final_at).step_by(usize::try_from(HOUR).unwrap()) {
        log.push(of_a(&format!("a{at}"), at));
        if at < 3 * HOUR {
            log.push(call(at, &format!("b{at}"), "key-b"));
        }
    }
    // Then two calls of June come, after a minute closed and before another.
    log.push(of_a("c1", final_at + 60_000));
    log.push(of_a("c2", TO_JULY - HOUR / 2));
    log.push(of_a("c3", TO_JULY - HOUR / 2 + 1));
    log.push(of_a("c4", final_at + 120_000));
    Job::new(TABLES)
        .file("keys.csv", "key_id,subscription\nkey-a,sub-a\nkey-b,../<b>\n")
        .file(
            "subscriptions.csv",
            "id,customer,plan,time_zone\nsub-a,가나 상사,won,Asia/Seoul\n../<b>,<img src=x onerror=alert(1)>,euro,\n",
        )
        .file("plans.csv", "id,name,currency,base_fee\nwon,Won,KRW,5000\neuro,Euro,EUR,\n")
        .file(
            "prices.csv",
            "plan,item,metric,model,up_to,unit_price\nwon,calls,calls,graduated,10,0\nwon,calls,calls,graduated,,120\n\
             euro,=cmd(),calls,,,0.005\n",
        )
        .log(log)
}

fn report(job: &Job, out: &str, more: &str) -> Keytide {
    let (from, out) = (job.path("out"), job.path(out));
    Keytide::new(&["report", "month", "--from", path(&from), "--out", path(&out)]).with(more)
}

fn json(folder: &Path, stem: &str) -> Value {
    serde_json::from_slice(&read(&folder.join(format!("{stem}.json")))).unwrap()
}

fn all(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    names(folder).into_iter().map(|name| (name.clone(), read(&folder.join(name)))).collect()
}

#[test]
fn bills_are_those_of_the_views_in_local_time_and_twice_the_same() {
    let job = job();
    let views = job.views();
    let said = report(&job, "reports", "").succeed().stdout;
    let folder = job.path("reports");
    let bills = views.rows("bills");
    assert_eq!(names(&folder).len(), 3 * bills.len(), "{said}");
    assert!(said.ends_with(&format!(
        "{} bills in {}, each as .html, .csv and .json\n",
        bills.len(),
        path(&folder)
    )));

    // Each bill has the total of its row, which is the sum of its rows of charges and of adjustments.
    let mut documents = BTreeMap::new();
    for name in names(&folder).iter().filter(|name| name.ends_with(".json")) {
        let bill = json(&folder, name.trim_end_matches(".json"));
        let key =
            [&bill["subscription"], &bill["period"]["start"]].map(|text| text.as_str().unwrap().to_owned());
        documents.insert(key, bill);
    }
    let cents = |text: &str| text.replace('.', "").parse::<i64>().unwrap();
    for row in &bills {
        let key = ["subscription", "period_start"].map(|column| row.text(column).to_owned());
        let bill = &documents[&key];
        assert_eq!(bill["total"].as_str(), Some(row.text("total")));
        let of_bill =
            |charge: &&Row| ["subscription", "period_start"].map(|column| charge.text(column)) == key;
        let charges = views.rows("charges");
        let charges: i64 = charges.iter().filter(of_bill).map(|row| cents(row.text("amount"))).sum();
        assert_eq!(cents(bill["charges"].as_str().unwrap()), charges);
        assert_eq!(cents(row.text("total")), charges + cents(row.text("adjustments")));
    }

    // 679 calls before the end of June by Seoul's clock, of which 10 are free; then two late ones. July has 28.
    let june = json(&folder, "bill-sub-a-2025-06-01");
    assert_eq!((&june["total"], &june["currency"]), (&"85280".into(), &"KRW".into()), "{june}");
    assert_eq!((&june["state"], &june["number"]), (&"corrected".into(), &2.into()));
    assert_eq!(
        (&june["corrections"][0]["amount"], &june["corrected_charges"]),
        (&"240".into(), &"85520".into())
    );
    assert_eq!(june["period"]["start_local"], "2025-06-01T00:00:00+09:00");
    assert_eq!(june["by_day"]["days"].as_array().unwrap().len(), 30);
    assert_eq!(june["customer"], "가나 상사");
    let july = json(&folder, "bill-sub-a-2025-07-01");
    assert_eq!(
        (&july["state"], &july["adjustments_total"], &july["total"]),
        (&"draft".into(), &"240".into(), &"7400".into())
    );
    assert_eq!(july["adjustments"][0]["period_first_day"], "2025-06-01");

    // Names of strangers stay text, and make no path.
    let hostile: Vec<_> = names(&folder).into_iter().filter(|name| name.contains("___b_~")).collect();
    assert!(hostile.len() >= 3 && !job.path("<b>").exists(), "{:?}", names(&folder));
    let page = read_text(&folder.join(hostile.iter().find(|name| name.ends_with(".html")).unwrap()));
    assert!(page.contains("&lt;img src=x onerror=alert(1)&gt;") && !page.contains("<img"), "{page}");
    let table = folder.join(hostile.iter().find(|name| name.ends_with(".csv")).unwrap());
    let mut table = csv::Reader::from_path(table).unwrap();
    let rows: Vec<csv::StringRecord> = table.records().map(Result::unwrap).collect();
    assert_eq!((&rows[0][0], &rows[0][9], &rows[0][17]), ("charge", "'=cmd()", "0.02"));

    // The same rows give the same bytes, also for one subscription and month alone.
    report(&job, "again", "").succeed();
    let whole = all(&folder);
    assert_eq!(all(&job.path("again")), whole);
    report(&job, "one", "--subscription sub-a --month 2025-06 --language en").succeed();
    let one = all(&job.path("one"));
    assert_eq!(one.len(), 3);
    assert!(one.iter().all(|(name, content)| whole[name] == *content));
    report(&job, "ko", "--subscription sub-a --month 2025-06 --language ko").succeed();
    let korean = all(&job.path("ko"));
    for (name, content) in &one {
        assert_eq!(korean[name] == *content, !name.ends_with(".html"), "data has no language: {name}");
    }
    assert!(read_text(&job.path("ko/bill-sub-a-2025-06-01.html")).contains("정정 청구서"));
}

#[test]
fn a_report_without_rows_says_what_there_is() {
    let job = job();
    job.views();
    let fails = |more: &str, says: &str| {
        let ended = report(&job, "none", more).run();
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""), "{more}");
        assert!(ended.stderr.contains(says), "{more}: {}", ended.stderr);
        assert!(!job.path("none").exists(), "nothing is written");
    };
    fails("--month 2024-02", "whose period begins in 2024-02; it has bills that begin in 2025-07, 2025-06");
    fails("--subscription sub-z", "has no bill of subscription sub-z");
    fails("--month 2025-13", "--month must be a month such as 2025-10");
    fails("--api http://127.0.0.1:1", "cannot be used with");
    let api = |more: &str| {
        let out = job.path("none");
        Keytide::new(&["report", "month", "--out", path(&out)]).with(more).run()
    };
    let ended = api("--api http://127.0.0.1:1");
    assert!(ended.code == Some(2) && ended.stderr.contains("--api needs --subscription"), "{}", ended.stderr);
    let ended = api("--api 127.0.0.1 --subscription sub-a");
    assert!(ended.code == Some(2) && ended.stderr.contains("must be an address"), "{}", ended.stderr);
    let ended = api("");
    assert!(ended.code == Some(2) && ended.stderr.contains("--from DIR or --api URL"), "{}", ended.stderr);

    // A row that says another sum than its lines: the job was under way.
    let bills = job.path("out/bills.jsonl");
    let text = read_text(&bills).replace("\"total\":\"85280\"", "\"total\":\"85281\"");
    std::fs::write(&bills, text).unwrap();
    let ended = report(&job, "some", "--subscription sub-a").run();
    assert_eq!(ended.code, Some(75), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("the bill's total is 85281 and its lines add up to 85280"),
        "{}",
        ended.stderr
    );
    assert_eq!(names(&job.path("some")).len(), 3, "the other bill is written");
}
