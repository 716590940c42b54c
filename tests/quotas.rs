//! A live job with quotas and prices: it bills, mails that a quota is nearly used up, and answers gateways; a kill changes
//! nothing, and a better plan acts at the next question.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use crate::harness::{DEADLINE, Keytide, LiveProcess, free_addresses, names, read_if_present, read_text};
use crate::restart::{Restarted, now_ms};

/// Asks the API, and returns the answer's status and body; `None` of a job that doesn't answer.
pub(crate) fn ask(address: &str, method: &str, page: &str, body: &str) -> Option<(u16, Value)> {
    ask_as(address, method, page, ("", body))
}

/// The same with a token, if it isn't empty.
pub(crate) fn ask_as(
    address: &str,
    method: &str,
    page: &str,
    (token, body): (&str, &str),
) -> Option<(u16, Value)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let length = body.len();
    let token = if token.is_empty() { String::new() } else { format!("X-Keytide-Token: {token}\r\n") };
    write!(
        stream,
        "{method} {page} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{token}Content-Length: {length}\r\n\r\n{body}"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, serde_json::from_str(body).unwrap_or_default()))
}

/// Writes tables of a plan with 100 calls a billing period, of which each costs 0.5, and of a better one.
fn configure(this: &mut Restarted, api: &str) {
    let table =
        |name: &str| format!("[tables.{name}]\nkind = \"file\"\npath = \"{name}.csv\"\nformat = \"csv\"\n");
    let more = format!(
        "checkpoint_every = \"1s\"\n{}{}{}[api]\nlisten = \"{api}\"\n\
         [alerts.email]\ndir = \"mails\"\nfrom = \"keytide@example.com\"\nto = [\"security@example.com\"]\n\
         quota_notices = true\n",
        table("plans"),
        table("prices"),
        table("quotas")
    );
    this.configure(2, &more);
    let file = this.job.path("keytide.toml");
    let config = String::from_utf8(read_if_present(&file).unwrap()).unwrap();
    fs::write(&file, config.replace("tick = \"50ms\"", "tick = \"50ms\"\nreload = \"1s\"")).unwrap();
    let keys: String = (0..7).map(|key| format!("key-{key},sub-a\n")).collect();
    for (name, text) in [
        ("keys.csv", format!("key_id,subscription\n{keys}")),
        ("plans.csv", "id,name,currency\nbronze,Bronze,EUR\ngold,Gold,EUR\n".to_owned()),
        (
            "prices.csv",
            "plan,item,metric,unit_price\nbronze,calls,calls,0.5\ngold,calls,calls,0.5\n".to_owned(),
        ),
        (
            "quotas.csv",
            "plan,metric,period,limit,hard,notify\nbronze,calls,billing,100,true,50;70\n\
             gold,calls,billing,1000,true,100\n"
                .to_owned(),
        ),
    ] {
        fs::write(this.job.path(name), text).unwrap();
    }
    has_plan(this, "bronze");
}

/// Lets settlements be records of the job, of which each million of units costs 0.5.
fn record_settlements(this: &Restarted) {
    let file = this.job.path("keytide.toml");
    let config = String::from_utf8(read_if_present(&file).unwrap()).unwrap();
    let source = format!(
        "[[source]]\nname = \"settled\"\nkind = \"kafka\"\nbrokers = \"{}\"\ntopic = \"settled\"\nformat = \"json\"\n\
         [source.fields]\nrequest_id = \"/reservation\"\ntime = {{ at = \"/time\", unit = \"rfc3339\" }}\nkey = \"/key\"\n\
         count = \"/hits\"\nunits = {{ at = \"/units\", scale = 6 }}\nbytes_in = \"/in\"\nbytes_out = \"/out\"\n\
         [api.settlements]\nsource = \"settled\"\n",
        this.brokers
    );
    fs::write(&file, config + &source).unwrap();
    fs::write(
        this.job.path("prices.csv"),
        "plan,item,metric,unit,unit_price\nbronze,tokens,units,1000000,0.5\ngold,tokens,units,1000000,0.5\n",
    )
    .unwrap();
}

/// Gives the subscription a plan. Its billing periods don't end while the test runs.
fn has_plan(this: &Restarted, plan: &str) {
    let now = Timestamp::from_millisecond(i64::try_from(now_ms()).unwrap()).unwrap();
    let day = TimeZone::UTC.to_datetime(now).date().day();
    let anchor = if (8..=22).contains(&day) { 1 } else { 15 };
    let text =
        format!("id,customer,plan,contacts,billing_anchor\nsub-a,Acme,{plan},ops@acme.example,{anchor}\n");
    fs::write(this.job.path("subscriptions.csv"), text).unwrap();
}

/// Returns the last row of a view of which there is one.
fn last(this: &Restarted, view: &str) -> Option<Value> {
    this.rows(view).pop()
}

fn is_allowed(live: &LiveProcess, api: &str, hits: u64) -> bool {
    let body = json!({ "subscription": "sub-a", "hits": hits }).to_string();
    let (status, page) = live.find("a check", || ask(api, "POST", "/v1/check", &body)).unwrap();
    assert_eq!(status, 200, "{page}");
    page["allowed"].as_bool().unwrap()
}

/// Waits until the API knows of so many booked calls.
fn wait_for_standing(live: &LiveProcess, api: &str, used: u64, limit: u64) {
    let is_known = || {
        let (status, page) = ask(api, "GET", "/v1/subscriptions/sub-a/quota", "")?;
        let quota = page["quotas"].get(0)?;
        (status == 200 && quota["used"] == used && quota["limit"] == limit).then_some(())
    };
    live.find(&format!("{used} of {limit} are used"), is_known).unwrap();
}

/// Writes a bill by the rows that a running job shows.
fn reports_are_those_of_the_api(this: &Restarted, api: &str) {
    let (url, out) = (format!("http://{api}"), this.job.path("reports"));
    let report = |id: &str| {
        let out = out.to_str().unwrap();
        Keytide::new(&["report", "month", "--api", &url, "--subscription", id, "--out", out])
    };
    let said = report("sub-a").succeed().stdout;
    assert!(said.contains("  draft  35.00 EUR\n"), "{said}");
    let written = names(&out);
    assert_eq!(written.len(), 3, "{written:?}");
    let bill = written.iter().find(|name| name.ends_with(".json")).unwrap();
    let bill: Value = serde_json::from_str(&read_text(&out.join(bill))).unwrap();
    assert_eq!((&bill["customer"], &bill["counted"]["use"]["billed_calls"]), (&json!("Acme"), &json!(70)));
    let unknown = report("sub-z").run();
    assert_eq!(unknown.code, Some(2));
    assert!(unknown.stderr.contains("has no rows of subscription sub-z"), "{}", unknown.stderr);
}

#[test]
fn a_job_bills_tells_contacts_and_denies_beyond_a_quota_also_after_a_kill() {
    let mut this = Restarted::new();
    let api = free_addresses(1).remove(0);
    configure(&mut this, &api);
    this.send(70);
    let live = this.start();
    let is_booked = || last(&this, "quota").filter(|row| row["used"] == 70);
    let row = live.find("70 calls are booked", is_booked).unwrap();
    assert_eq!((&row["limit"], &row["remaining"], &row["permille"]), (&json!(100), &json!(30), &json!(700)));
    let mails = this.job.path("mails");
    // The file is there before it is written, and has another name until then.
    let written = || {
        let name = mails.is_dir().then(|| names(&mails).first().cloned()).flatten()?;
        let mail = String::from_utf8(read_if_present(&mails.join(name))?).unwrap();
        Some(mail).filter(|mail| mail.contains("70"))
    };
    let mail = live.find("the contacts have a mail", written).unwrap();
    assert!(mail.contains("To: ops@acme.example"), "{mail}");

    // What is asked for counts at once; what would pass the limit is denied, and counts nothing.
    wait_for_standing(&live, &api, 70, 100);
    assert!(!is_allowed(&live, &api, 31));
    assert!(is_allowed(&live, &api, 30));
    assert!(!is_allowed(&live, &api, 1));
    live.signal("KILL");
    live.end();

    // A restart forgets what was asked for, and nothing that is booked or was published.
    let live = this.start();
    wait_for_standing(&live, &api, 70, 100);
    let shown = || {
        let (_, page) = ask(&api, "GET", "/v1/subscriptions/sub-a/notices", "")?;
        let shown: Vec<u64> =
            page["rows"].as_array()?.iter().filter_map(|row| row["percent"].as_u64()).collect();
        (!shown.is_empty()).then_some(shown)
    };
    assert_eq!(live.find("notices of the earlier life", shown).unwrap(), [50, 70]);
    assert!(!is_allowed(&live, &api, 31));
    has_plan(&this, "gold");
    wait_for_standing(&live, &api, 70, 1_000);
    assert!(is_allowed(&live, &api, 900));
    // What a table changes is published at once, and use within five minutes.
    let is_billed = || last(&this, "bills").filter(|row| row["total"] == "35.00");
    let bill = live.find("70 calls are billed", is_billed).unwrap();
    assert_eq!(
        (&bill["currency"], &bill["fault"], &bill["final"]),
        (&json!("EUR"), &Value::Null, &json!(false))
    );
    let same_bill = || {
        let (_, page) = ask(&api, "GET", "/v1/subscriptions/sub-a/bills", "")?;
        let shown = page["rows"].get(0)?.as_object()?;
        // Files have columns of their own.
        shown.iter().all(|(name, value)| bill[name] == *value).then_some(shown.len())
    };
    assert_eq!(live.find("the API shows the bill", same_bill).unwrap(), bill.as_object().unwrap().len() - 2);
    let is_known = || {
        let (_, page) = ask(&api, "GET", "/v1/subscriptions/sub-a/usage?window=1h", "")?;
        let calls = page["rows"].as_array()?.iter().filter_map(|row| row["calls"].as_u64());
        (calls.sum::<u64>() == 70).then_some(())
    };
    live.find("the API shows the use", is_known).unwrap();
    reports_are_those_of_the_api(&this, &api);
    live.stop();
    let percents: Vec<Value> = this.rows("notices").iter().map(|row| row["percent"].clone()).collect();
    assert_eq!(percents, [50, 70], "each threshold once");
    assert_eq!(names(&mails).len(), 1, "of the highest");
    this.check_files_of(&["quota", "charges", "bills", "notices"]);
}

#[test]
fn a_settlement_is_billed_once_also_if_a_kill_came_before_it() {
    let mut this = Restarted::new();
    let api = free_addresses(1).remove(0);
    configure(&mut this, &api);
    record_settlements(&this);
    this.send(7);
    let live = this.start();
    wait_for_standing(&live, &api, 7, 100);
    let post = |live: &LiveProcess, page: &str, body: &Value| {
        live.find("the API", || ask(&api, "POST", page, &body.to_string())).unwrap()
    };
    let reserve = |live: &LiveProcess| {
        let (_, page) = post(live, "/v1/check", &json!({ "key_id": "key-1", "estimate": { "units": 5 } }));
        page["reservation"].as_str().unwrap().to_owned()
    };
    let settle = |live: &LiveProcess, id: &str, units: u64| {
        let body = json!({ "reservation": id, "key_id": "key-1", "actual": { "units": units } });
        let (status, page) = post(live, "/v1/settle", &body);
        assert_eq!((status, &page["recorded"]), (200, &json!(true)), "{page}");
        page["ended"].as_bool().unwrap()
    };
    // Sent again, it is recorded again, and counts once.
    let first = reserve(&live);
    assert!(settle(&live, &first, 1_000_000));
    assert!(!settle(&live, &first, 1_000_000));
    let (status, page) = post(&live, "/v1/settle", &json!({ "reservation": first }));
    assert_eq!((status, page["error"].as_str().unwrap().contains("name the key")), (400, true));
    let lost = reserve(&live);
    let rolled_back = reserve(&live);
    assert_eq!(post(&live, "/v1/rollback", &json!({ "reservation": rolled_back })).0, 200);
    live.signal("KILL");
    live.end();

    // The next life knows nothing of the reservation, and its call was made.
    let live = this.start();
    assert!(!settle(&live, &lost, 3_000_000));
    let is_booked = || last(&this, "quota").filter(|row| row["used"] == 9);
    live.find("9 calls are booked", is_booked).unwrap();
    // What a table changes is published at once.
    has_plan(&this, "gold");
    let is_billed = || last(&this, "bills").filter(|row| row["total"] == "2.00");
    live.find("4 million units are billed", is_billed).unwrap();
    live.stop();
    let mut minutes = BTreeMap::new();
    for row in this.rows("usage").iter().filter(|row| row["window"] == "1m" && row["key_id"] == "key-1") {
        let count = |column: &str| row[column].as_u64().unwrap();
        minutes.insert(row["window_start"].to_string(), (count("calls"), count("units")));
    }
    let sum = minutes.values().fold((0, 0), |sum, of| (sum.0 + of.0, sum.1 + of.1));
    assert_eq!(sum, (3, 4_000_000));
}
