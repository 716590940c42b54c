use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io::Read as _;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use flate2::read::GzDecoder;
use keytide_config::{JobConfig, SourceKind};
use keytide_connectors::decode::{Context, Decoded, Locate as _, Located, decoder};
use keytide_connectors::geo::GeoDatabases;
use keytide_connectors::tables;
use keytide_dataflow::model::{KeyId, Position, TableRow};
use serde_json::Value;
use sha2::Digest as _;

use super::*;
use crate::draw::{Draw, EvenShare, Spread, Zipf};

mod lively;
mod ordinary;
mod topic;

fn typed(options: &str) -> GenerateArgs {
    GenerateArgs::typed(options.split_whitespace()).unwrap()
}

fn settings(options: &str) -> WorldSettings {
    typed(&format!("--out unused {options}")).settings(0, None).unwrap()
}

/// Returns the counts, and all files, uncompressed, by name.
fn generated(options: &str) -> (Generated, BTreeMap<String, Vec<u8>>) {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let generated = generate(&out, options).unwrap();
    (generated, contents(&out))
}

fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for name in ["", "tables", "geo"] {
        for entry in fs::read_dir(folder.join(name)).unwrap().map(Result::unwrap) {
            if entry.path().is_dir() {
                continue;
            }
            let mut bytes = Vec::new();
            let file = File::open(entry.path()).unwrap();
            let file_name = entry.file_name().into_string().unwrap();
            if file_name.ends_with(".gz") {
                GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
            } else {
                (&file).read_to_end(&mut bytes).unwrap();
            }
            files.insert(format!("{name}/{file_name}"), bytes);
        }
    }
    files
}

fn text<'a>(files: &'a BTreeMap<String, Vec<u8>>, name: &str) -> &'a str {
    std::str::from_utf8(&files[name]).unwrap()
}

/// The lines of each file of events, parsed; `None` where one is broken.
fn records(files: &BTreeMap<String, Vec<u8>>) -> Vec<Vec<Option<Value>>> {
    let events = files.iter().filter(|(name, _)| name.starts_with("/events"));
    let lines = events.map(|(_, bytes)| std::str::from_utf8(bytes).unwrap().lines());
    lines.map(|lines| lines.map(|line| serde_json::from_str(line).ok()).collect()).collect()
}

#[test]
fn a_seed_decides_everything() {
    for format in ["json", "apisix", "kong", "combined", "json --scenario mixed --days 4 --events 9000"] {
        let events = if format.contains("--events") { "" } else { "--events 300" };
        let options =
            format!("{events} --keys 50 --partitions 2 --late 0.02 --broken 0.01 --format {format}");
        let first = generated(&options);
        assert_eq!(first, generated(&options), "{format}");
        let other = generated(&format!("{options} --seed 2"));
        for (name, bytes) in first.1.iter().filter(|(name, _)| *name != "/generated.json") {
            // Which networks databases misplace depends on the seed.
            let same_countries = name.contains("country.mmdb") && !format.contains("mixed");
            let same = name.contains("plans")
                || name.contains("prices")
                || name.contains("asn.mmdb")
                || same_countries;
            assert_eq!(*bytes == other.1[name], same, "{format} {name}");
        }
    }
}

/// Returns the table of plans as it was before plans had fees: its first three columns.
fn without_fees(plans: &[u8]) -> Vec<u8> {
    let line = |line: &[u8]| line.split(|byte| *byte == b',').take(3).collect::<Vec<_>>().join(&b',');
    let lines = plans.split_inclusive(|byte| *byte == b'\n');
    lines.flat_map(|text| [line(text.trim_ascii_end()), vec![b'\n']].concat()).collect()
}

/// Measurements of years are compared on plain worlds, so these never change. The hashes were made before lively worlds
/// got networks of their own, and before there were prices and quotas.
#[test]
fn plain_worlds_stay_the_same() {
    for (options, expected) in [
        (
            "--events 3000 --keys 300 --countries 40 --seed 3",
            "3912b2b29976a369321fc32161a374adfd50e3007e145d71333208e29f167a7a",
        ),
        (
            "--events 2000 --keys 90 --format kong --partitions 2 --late 0.02 --broken 0.01",
            "f17e7d0c69780e7b2d6558aeaed1e2882aae4211e1fa804d25ceade29b98c856",
        ),
    ] {
        let (_, files) = generated(options);
        let later = ["/generated.json", "/keytide.toml", "tables/prices.csv", "tables/quotas.csv"];
        let kept = files.iter().filter(|(name, _)| !later.contains(&&***name));
        let bytes = kept.map(|(name, bytes)| match &**name {
            "tables/plans.csv" => without_fees(bytes),
            _ => bytes.clone(),
        });
        let hash = bytes.fold(sha2::Sha256::default(), |hash, bytes| hash.chain_update(bytes)).finalize();
        assert_eq!(keytide_dataflow::model::hex(&hash), expected, "{options}");
    }
}

#[test]
fn compression_changes_nothing_else() {
    let options = "--events 200 --keys 20 --partitions 2";
    let (plain, packed) = (generated(options), generated(&format!("{options} --gzip")));
    assert_eq!(plain.0, packed.0);
    assert_eq!(plain.1["/events-0001.jsonl"], packed.1["/events-0001.jsonl.gz"]);
}

#[test]
fn the_counts_are_those_of_the_files() {
    let options = "--events 20000 --keys 300 --partitions 3 --out-of-order 0.05 --late 0.01 --duplicates 0.02 \
                   --broken 0.005";
    let (reported, statuses) = counted(&format!("{options} --span 2h"));
    let near = |count: u64, share: f64| (count as f64 / 20_000.0 - share).abs() < share / 10.0;
    assert!(near(reported.out_of_order, 0.05 * 0.99) && near(reported.late, 0.01), "{reported:?}");
    assert!(near(reported.duplicates, 0.02) && near(reported.broken, 0.005), "{reported:?}");
    assert!((100..300).contains(&reported.anonymous), "{reported:?}");
    // Server errors 0.5 %; the callers' 3 %, and refusals of calls without a key or with one that isn't active.
    assert!((70..130).contains(&statuses[&5]) && (600..1_800).contains(&statuses[&4]), "{statuses:?}");
    assert_eq!(reported.leak_calls, None);

    let (reported, statuses) = counted(&format!("{options} --days 7 --scenario mixed"));
    let staged = reported.leak_calls.unwrap() + reported.look_alike_calls.unwrap();
    let usual = reported.events - staged;
    assert!(staged > 3_000 && (16_000..26_000).contains(&usual), "{reported:?}");
    assert!(statuses[&5] > 70 && statuses[&4] > 600, "{statuses:?}");
}

/// Returns the reported counts, after recounting them, and how often each class of status is in the files.
fn counted(options: &str) -> (Generated, BTreeMap<u64, u64>) {
    let (reported, files) = generated(options);
    let partitions = records(&files);
    let Generated { bytes, leak_calls, look_alike_calls, .. } = reported;
    let mut found = Generated { bytes, leak_calls, look_alike_calls, ..Generated::default() };
    let mut ids = HashSet::new();
    let (mut statuses, mut between) = (BTreeMap::new(), 0);
    for partition in &partitions {
        let mut latest = 0;
        for record in partition {
            found.lines += 1;
            let Some(record) = record else {
                found.broken += 1;
                continue;
            };
            if !ids.insert(record["requestId"].as_str().unwrap()) {
                found.duplicates += 1;
                continue;
            }
            found.events += 1;
            found.anonymous += u64::from(record["apiKey"].is_null());
            let time = record["requestTime"].as_u64().unwrap();
            let behind = u64::saturating_sub(latest, time);
            found.out_of_order += u64::from((1..=5_000).contains(&behind));
            found.late += u64::from((605_001..3_600_000).contains(&behind));
            assert!(behind < 3_600_000);
            between += u64::from((5_001..=605_000).contains(&behind));
            latest = latest.max(time);
            *statuses.entry(record["status"].as_u64().unwrap() / 100).or_insert(0) += 1;
        }
    }
    assert_eq!(found, reported, "{options}");
    assert!(between <= reported.late / 10, "{between}: delays that are neither are rare");
    assert_eq!(serde_json::to_string_pretty(&reported).unwrap() + "\n", text(&files, "/generated.json"));
    (reported, statuses)
}

#[test]
fn keys_follow_zipfs_law() {
    let zipf = Zipf::new(1_000, 1.05);
    let mut draw = Draw::new(7, 0);
    let mut counts = vec![0_u32; 1_000];
    for _ in 0..500_000 {
        counts[zipf.draw(&mut draw) as usize] += 1;
    }
    for rank in [2_u32, 5, 10, 50] {
        let ratio = f64::from(counts[0]) / f64::from(counts[rank as usize - 1]);
        let expected = f64::from(rank).powf(1.05);
        assert!((ratio / expected - 1.0).abs() < 0.1, "rank {rank}: {ratio} for {expected}");
    }
    let even = Zipf::new(10, 0.0);
    let mut counts = [0_i32; 10];
    for _ in 0..100_000 {
        counts[even.draw(&mut draw) as usize] += 1;
    }
    assert!(counts.iter().all(|count| (count - 10_000).abs() < 500), "{counts:?}");
}

#[test]
fn spread_is_lognormal() {
    let (spread, mut draw) = (Spread::new(), Draw::new(7, 0));
    let mut values: Vec<u32> = (0..100_000).map(|_| spread.draw(100_000, &mut draw)).collect();
    values.sort_unstable();
    // Quantiles of exp(normal / 2): 0.1, 0.5, 0.9, 0.99.
    for (at, expected) in [(10_000, 52_700.0), (50_000, 100_000.0), (90_000, 189_800.0), (99_000, 320_000.0)]
    {
        let error = f64::from(values[at]) / expected - 1.0;
        assert!(error.abs() < 0.05, "{at}: {} for {expected}", values[at]);
    }
}

#[test]
fn shares_are_exact_and_habits_favour_the_first() {
    let mut draw = Draw::new(7, 0);
    for (share, expected) in [(0.0, 0), (0.000_67, 2), (0.25, 750), (1.0, 3_000)] {
        let mut share = EvenShare::new(share, &mut draw);
        let hits = (0..3_000).filter(|_| share.hit()).count();
        assert!(hits.abs_diff(expected) <= 1, "{hits} for {expected}");
    }
    let mut counts = [0; 4];
    for _ in 0..10_000 {
        counts[draw.habit(4) as usize] += 1;
    }
    assert!(counts.is_sorted_by(|more, less| more > less) && counts[3] > 0, "{counts:?}");
}

/// The job's own readers accept everything, and agree with each other.
#[test]
fn the_job_reads_it() {
    for (format, shape) in [
        ("json", "/v1/"),
        ("apisix", "get-v1-"),
        ("kong", "get-v1-"),
        ("combined", "/v1/"),
        ("json --scenario usual --days 2", "/v1/"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let reported = generate(&out, &format!("--events 2000 --keys 80 --format {format}")).unwrap();
        let job = JobConfig::load(&out.join("keytide.toml"), std::iter::empty()).unwrap().job;

        let tables = tables::read(&job.tables, job.sources.iter().map(|source| &source.keys.hash)).unwrap();
        assert_eq!((&tables.dead_letters[..], &tables.warnings[..]), (&[][..], &[][..]), "{format}");
        let listed: HashSet<KeyId> = tables
            .changes
            .iter()
            .filter_map(|change| match &change.row {
                TableRow::Key(row) => Some(row.key),
                _ => None,
            })
            .collect();
        assert_eq!(listed.len(), 78, "2 of 80 are in no table");

        let (geo, warnings) = GeoDatabases::open(&job.geo).unwrap();
        assert!(warnings.is_empty());
        let context = Context::of(&job, Arc::new(geo));
        let SourceKind::File { pattern } = &job.sources[0].kind else { panic!("a file") };
        let path = pattern.replace('*', "");
        let mut text = String::new();
        File::open(path).unwrap().read_to_string(&mut text).unwrap();
        let mut decoder = decoder(&job.sources[0], &context);
        let mut decoded = Decoded::default();
        for (line, offset) in text.lines().zip(0..) {
            let at = Position { partition: 0, offset, index: 0 };
            decoder.decode(line.as_bytes(), at, &mut decoded);
        }
        assert_eq!(decoded.dead_letters, [], "{format}");
        assert_eq!(decoded.events.len() as u64, reported.lines, "{format}");
        let mut calls = HashMap::new();
        for event in &decoded.events {
            *calls.entry(event.key).or_insert(0_u64) += 1;
            assert!(event.country.as_str() != "ZZ" && event.asn >= 64_512, "{format} {event:?}");
        }
        assert!(calls.remove(&KeyId::ANONYMOUS).is_some_and(|calls| calls >= reported.anonymous), "{format}");
        let known: u64 = calls.iter().filter(|(key, _)| listed.contains(key)).map(|(_, calls)| calls).sum();
        let unknown: u64 =
            calls.iter().filter(|(key, _)| !listed.contains(key)).map(|(_, calls)| calls).sum();
        assert!(known > reported.lines / 10 * 8 && unknown > 0, "{format}: {known} and {unknown}");
        let definitions = format!("{:?}", decoded.definitions);
        assert!(definitions.contains(shape) && !definitions.contains("kt_live_"), "{format}");
    }
}

/// The rows of a CSV file without its header, as columns.
fn rows_of<'a>(files: &'a BTreeMap<String, Vec<u8>>, name: &str) -> Vec<Vec<&'a str>> {
    text(files, name).lines().skip(1).map(|line| line.split(',').collect()).collect()
}

#[test]
fn plans_have_prices_of_every_model_and_quotas_grow_with_the_world() {
    let options = "--events 100000 --keys 1000 --span 2s";
    let (_, files) = generated(options);
    let column = |name: &str, at: usize| -> HashSet<String> {
        rows_of(&files, name).iter().map(|row| row[at].to_owned()).collect()
    };
    let models = ["unit", "graduated", "volume", "package"].map(str::to_owned);
    assert_eq!(column("tables/prices.csv", 3), models.into());
    let priced = column("tables/prices.csv", 0);
    let plans = column("tables/plans.csv", 0);
    assert!(priced.is_subset(&plans) && !priced.contains("free"), "{priced:?}");
    let zones = column("tables/subscriptions.csv", 4);
    assert!(zones.contains("Asia/Kolkata"), "a zone whose days begin at half past an hour: {zones:?}");

    // 100,000 calls of 500 subscriptions: 200 each.
    let quotas = rows_of(&files, "tables/quotas.csv");
    let of = |plan: &str| quotas.iter().find(|row| row[0] == plan).unwrap()[2..].join(",");
    assert_eq!(of("free"), "calls,month,200,true,80;90;100");
    assert_eq!(of("starter"), "calls,day,500,false,");
    assert_eq!(of("team"), "bytes_out,billing,2000000,false,50;80;100");
    assert_eq!(of("business"), "cost,billing,5000,false,80;100");
    let own: Vec<_> = quotas.iter().filter(|row| row[0].is_empty()).collect();
    assert!((20..80).contains(&own.len()), "{}", own.len());
    let subscriptions = column("tables/subscriptions.csv", 0);
    assert!(own.iter().all(|row| subscriptions.contains(row[1])));

    let (_, more) = generated("--events 200 --keys 1000 --days 60");
    let least = &rows_of(&more, "tables/quotas.csv")[0];
    assert_eq!(least[4], "1", "no limit is 0, which nobody could keep: {least:?}");
}

#[test]
fn the_thief_of_a_key_uses_up_the_quota_of_a_subscription_that_has_no_other_key() {
    let hour = 3_600_000;
    let start_ms = WorldSettings::DEFAULT.start_ms;
    let leak = Leak { from_ms: start_ms + 36 * hour + 5_000, calls_per_hour: 28_800, known_calls: 300 };
    let settings = WorldSettings {
        events: 57_600.try_into().unwrap(),
        keys: 100,
        zipf: 0.3,
        scenario: Scenario::Usual,
        settled: true,
        span_ms: 37 * hour,
        leak: Some(leak),
        quota_calls: Some(1_000_000),
        ..WorldSettings::DEFAULT
    };
    let world = World::new(settings).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    create_folder(&out, &world).unwrap();
    let files = contents(&out);
    let stolen = world.stolen_subscription_id().unwrap();
    let key = world.first_staged_secret().unwrap();
    let hash = keytide_dataflow::model::hex(&sha2::Sha256::digest(&key));
    let keys = rows_of(&files, "tables/keys.csv");
    let of_stolen: Vec<_> = keys.iter().filter(|row| row[1] == stolen).map(|row| row[0]).collect();
    assert_eq!(of_stolen, [hash]);
    let subscriptions = rows_of(&files, "tables/subscriptions.csv");
    let row = subscriptions.iter().find(|row| row[0] == stolen).unwrap();
    assert_eq!((row[2], row[5]), ("business", "26"), "billed on the day of a week before 2 June");
    let quotas = rows_of(&files, "tables/quotas.csv");
    let quotas: Vec<_> = quotas.iter().filter(|row| row[1] == stolen).collect();
    let [quota] = &quotas[..] else { panic!("{quotas:?}") };
    assert_eq!((quota[2], quota[3], quota[5]), ("calls", "billing", "true"));
    let limit: u64 = quota[4].parse().unwrap();
    let used = |until_ms| world.calls_of_stolen_key(until_ms);
    let before = used(leak.from_ms);
    let [minute, next] = [1, 2].map(|minutes| used(start_ms + 36 * hour + minutes * 60_000));
    assert!(
        before < limit && minute > before && minute * 10 >= limit * 8 && minute < limit,
        "{minute} of {limit}"
    );
    assert!(next > limit, "{next} of {limit}");
}

#[test]
fn the_country_in_a_record_is_that_of_its_address() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    generate(&out, "--events 2000 --keys 200 --countries 40").unwrap();
    let config = keytide_config::Geo {
        country: Some(out.join("geo/country.mmdb")),
        asn: Some(out.join("geo/asn.mmdb")),
        ..Default::default()
    };
    let (geo, _) = GeoDatabases::open(&config).unwrap();
    let mut countries = HashSet::new();
    for record in records(&contents(&out)).into_iter().flatten().flatten() {
        let address: IpAddr = record["ip"].as_str().unwrap().parse().unwrap();
        let Located { country, asn, .. } = geo.locate(address);
        assert_eq!(country.as_str(), record["country"].as_str().unwrap());
        assert!((64_512..64_512 + 160).contains(&asn));
        countries.insert(country);
    }
    assert!(countries.len() > 20, "{}", countries.len());
}

#[test]
fn a_folder_with_something_in_it_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("precious"), "x").unwrap();
    let error = generate(folder.path(), "--events 1").unwrap_err();
    assert!(error.to_string().contains("isn't empty"), "{error}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn options_have_limits() {
    for options in [
        "--events 0",
        "--keys 0",
        "--keys 1000001",
        "--routes 0",
        "--countries 41",
        "--partitions 0",
        "--span 0s",
        "--span 367d",
        "--days 0",
        "--days 367",
        "--days 2 --span 48h",
        "--scenario quiet",
        "--leaks 1001",
        "--span 9000h",
        "--start 1969-12-31T23:59:59Z",
        "--start yesterday",
        "--kafka 127.0.0.1:1",
        "--topic t",
        "--rate 100",
        "--librdkafka client.id=x",
        "--kafka 127.0.0.1:1 --topic t --rate 0",
        "--kafka 127.0.0.1:1 --topic t --rate fast",
        "--kafka 127.0.0.1:1 --topic t --partitions 2",
        "--kafka 127.0.0.1:1 --topic t --gzip",
        "--kafka 127.0.0.1:1 --topic t --librdkafka client.id",
        "--late 1.1",
        "--misplaced 1.1",
        "--late -0.1",
        "--late NaN",
        "--zipf 11",
        "--format xml",
    ] {
        let arguments = ["--out", "x"].into_iter().chain(options.split_whitespace());
        assert!(GenerateArgs::typed(arguments).is_err(), "{options}");
    }
    for options in [
        "--events 1 --keys 1 --routes 1 --countries 1 --span 1ms",
        "--events 50 --keys 1 --start 1970-01-01T00:00:00Z --late 1 --duplicates 1 --broken 1 --out-of-order 1",
        "--events 20 --keys 7 --span 8784h --zipf 10 --partitions 9",
        "--events 1 --keys 1 --routes 1 --countries 1 --span 1ms --scenario usual",
        "--events 50 --keys 1 --start 1970-01-01T00:00:00Z --scenario usual --late 1 --duplicates 1 --broken 1",
        "--events 2000 --keys 50 --days 366 --zipf 10 --scenario usual",
    ] {
        let (reported, files) = generated(options);
        let lines: usize = records(&files).iter().map(Vec::len).sum();
        assert_eq!(reported.lines, lines as u64, "{options}");
    }
}

#[test]
fn the_example_is_made_by_this_generator() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/examples");
    let committed = contents(&examples.join("data"));
    let options = "--events 3000 --keys 40 --routes 12 --countries 6 --partitions 2 --gzip --out-of-order 0.02 \
                   --late 0.0003334 --duplicates 0.01 --broken 0.0006667";
    let (_, mut made) = generated(options);
    made.remove("/keytide.toml");
    let differing: Vec<_> =
        made.iter().filter(|(name, bytes)| committed.get(*name) != Some(*bytes)).collect();
    assert!(
        differing.is_empty() && made.len() == committed.len(),
        "make config/examples/data again: {options}"
    );

    let job = JobConfig::load(&examples.join("replay.toml"), std::iter::empty()).unwrap().job;
    let tables = tables::read(&job.tables, job.sources.iter().map(|source| &source.keys.hash)).unwrap();
    assert!(!tables.changes.is_empty() && tables.dead_letters.is_empty() && tables.warnings.is_empty());
    assert!(GeoDatabases::open(&job.geo).unwrap().1.is_empty());
}
