//! Dead letters as Kafka Connect's tools read them, and raw keys nowhere.

use std::collections::BTreeSet;
use std::fs;

use crate::broker::Broker;
use crate::harness::{Job, START};
use crate::live::{CALLS, Running, config, results};

const CANARY: &str = "canary-4f1c9be2a7";

#[test]
fn bad_records_are_dead_letters_for_connect_and_no_raw_key_comes_out() {
    let broker = Broker::shared("secrets");
    let topic = broker.topic("calls", 1, &[]);
    let more = format!("{CALLS}\n[sink.files]\ndir = \"out\"\n[log]\nlevel = \"debug\"\n");
    let config = config(&broker, &topic, "json", &more).replace("hash = \"none\"", "hash = \"sha256\"");
    let job = Job::with_config(&config);
    let running = Running::started(&job);
    let good = |id: &str| format!(r#"{{"id":"{id}","t":{START},"k":"{CANARY}","status":200,"us":1000}}"#);
    let bad = [
        format!(r#"{{"id":"a","t":"yesterday","k":"{CANARY}"}}"#),
        format!(r#"{{"id":"b","k":"{CANARY}""#),
        format!("{CANARY} is no JSON"),
        format!(r#"{{"id":"c","t":4102444800000,"k":"{CANARY}","status":200}}"#),
    ];
    let lines = [&[good("g1")][..], &bad, &[good("g2")]].concat();
    broker.produce(&topic, &format!("{}\n", lines.join("\n")));
    running.until_count("keytide_messages_total", 6);
    let metrics = format!("{:?}", running.metrics());
    let log = running.stop();

    let records = broker.records(&results(&broker));
    let letters: Vec<_> = records.iter().filter(|record| record.view() == "dead_letters").collect();
    let offsets: BTreeSet<_> =
        letters.iter().map(|letter| letter.header("__connect.errors.offset")).collect();
    assert_eq!(offsets, ["1", "2", "3", "4"].into());
    let names = [
        "topic",
        "partition",
        "offset",
        "connector.name",
        "task.id",
        "stage",
        "class.name",
        "exception.class.name",
        "exception.message",
    ];
    let mut expected: BTreeSet<_> = names.map(|name| format!("__connect.errors.{name}")).into();
    expected.extend(["keytide-tick", "keytide-id"].map(str::to_owned));
    for letter in letters {
        let names: BTreeSet<String> = letter.headers.keys().cloned().collect();
        assert_eq!(names, expected);
        assert_eq!(letter.header("__connect.errors.topic"), topic);
    }

    let mut texts = vec![("log".to_owned(), log), ("metrics".to_owned(), metrics)];
    texts.extend(records.iter().map(|record| ("a topic".to_owned(), format!("{record:?}"))));
    for file in fs::read_dir(job.path("out")).unwrap() {
        let file = file.unwrap().path();
        texts.push((file.display().to_string(), crate::harness::read_text(&file)));
    }
    assert!(texts.iter().any(|(place, text)| place.ends_with(".jsonl") && text.contains("\"key_id\"")));
    for (place, text) in texts {
        assert!(!text.contains(CANARY), "a raw key is in {place}: {text}");
    }
}
