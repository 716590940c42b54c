//! What is released agrees with the program: its version, the chart, examples of deployments, the changelog.

use std::collections::BTreeSet;

use crate::harness::{Job, Keytide, path, read_text, repository};

fn file(name: &str) -> String {
    read_text(&repository().join(name))
}

#[test]
fn the_version_says_which_build_this_is() {
    let long = Keytide::new(&["--version"]).succeed().stdout;
    let lines: Vec<&str> = long.lines().collect();
    assert_eq!(lines[0], concat!("keytide ", env!("CARGO_PKG_VERSION")));
    let value = |name: &str| {
        let pairs = lines.iter().filter_map(|line| line.split_once(": "));
        let mut values = pairs.filter(|(found, _)| *found == name).map(|(_, value)| value);
        values.next().unwrap_or_else(|| panic!("no {name} in {long}"))
    };
    let is_hash = |text: &str| text.len() == 40 && text.chars().all(|c| c.is_ascii_hexdigit());
    assert!(value("commit") == "unknown" || is_hash(value("commit")), "{long}");
    let is_date = |text: &str| text.len() == 10 && text.split('-').count() == 3;
    assert!(value("date") == "unknown" || is_date(value("date")), "{long}");
    let features = [
        ("demo", cfg!(feature = "demo")),
        ("generate", cfg!(feature = "generate")),
        ("top", cfg!(feature = "top")),
    ];
    let features: Vec<&str> =
        features.iter().filter(|(_, is_there)| *is_there).map(|(name, _)| *name).collect();
    let features = if features.is_empty() { "none".to_owned() } else { features.join(", ") };
    assert_eq!(value("features"), features);
    // The crate that builds librdkafka has its version behind a plus.
    let lock = file("Cargo.lock");
    let built = lock.split("name = \"rdkafka-sys\"\nversion = \"").nth(1).unwrap().split('"').next().unwrap();
    assert_eq!(value("librdkafka"), built.split_once('+').unwrap().1);
    assert_eq!(value("time zones"), keytide_billing::zone_version());
    let short = Keytide::new(&["-V"]).succeed().stdout;
    assert_eq!(short.lines().count(), 1, "{short}");
    assert!(short.starts_with(lines[0]), "{short}");
}

#[test]
fn the_chart_has_the_program_s_version() {
    let chart = file("deploy/helm/keytide/Chart.yaml");
    for name in ["version", "appVersion"] {
        let line = format!("\n{name}: {}\n", env!("CARGO_PKG_VERSION"));
        assert!(chart.contains(&line), "{name} isn't {}", env!("CARGO_PKG_VERSION"));
    }
}

#[test]
fn the_changelog_tells_how_to_upgrade_to_this_version() {
    let text = file("CHANGELOG.md");
    let sections: BTreeSet<&str> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let version = format!("[{}]", env!("CARGO_PKG_VERSION"));
    let is_there = sections.iter().any(|section| section.starts_with(&version) || *section == "[Unreleased]");
    assert!(is_there && sections.contains("Upgrading"), "{sections:?}");
    // The table has a row for each format that another version may have to read.
    let (_, upgrading) = text.split_once("\n## Upgrading\n").unwrap();
    for (name, source, constant) in [
        ("fingerprint", "config/src/fingerprint.rs", "const VERSION: u64 = "),
        ("detector", "dataflow/src/incident.rs", "const DETECTOR_VERSION: u32 = "),
        ("| state |", "dataflow/src/state/mod.rs", "const STATE_VERSION: u32 = "),
        ("| outbox |", "alerts/src/outbox/claims.rs", "const FORMAT: u32 = "),
    ] {
        let source = file(source);
        let number = source.split(constant).nth(1).unwrap().split(';').next().unwrap();
        let row = upgrading.lines().find(|line| line.starts_with('|') && line.contains(name));
        let row = row.unwrap_or_else(|| panic!("no row has the {name}"));
        assert!(row.contains(&format!(" {number} |")), "the {name} is {number}: {row}");
    }
}

/// The configurations that `deploy/` shows, with `/var/lib/keytide` and the secrets' folder as folders of a test.
fn accepts(config: &str, mut job: Job) {
    let folder = path(&job.path("")).to_owned();
    let config = config
        .replace("/var/lib/keytide/", &folder)
        .replace("/etc/keytide/secrets/", &folder)
        .replace("env:KEYTIDE_HTTP_TOKEN", &format!("file:{folder}http-token"));
    job = job.file("keytide.toml", &config);
    for secret in config.split('"').filter_map(|text| text.strip_prefix("file:")) {
        job = job.file(secret.rsplit('/').next().unwrap(), "a-secret-of-twenty-bytes");
    }
    let checked = Keytide::new(&["check", path(&job.path("keytide.toml"))]).run();
    assert_eq!(checked.code, Some(0), "{config}\n{}{}", checked.stdout, checked.stderr);
}

#[test]
fn configurations_of_the_chart_s_examples_are_accepted() {
    for name in ["small", "large"] {
        let values = file(&format!("deploy/helm/keytide/ci/{name}-values.yaml"));
        let (_, block) = values.split_once("\nconfig: |\n").unwrap();
        let config: String =
            block.lines().map(|line| format!("{}\n", line.strip_prefix("  ").unwrap_or(line))).collect();
        accepts(&config, Job::with_config(""));
    }
}

#[cfg(feature = "generate")]
#[test]
fn the_configuration_of_compose_is_accepted_with_what_the_generator_writes() {
    let job = Job::with_config("");
    let world = job.path("world");
    Keytide::new(&["generate", "--out", path(&world), "--keys", "5", "--events", "10"]).succeed();
    accepts(&file("deploy/compose/keytide.toml"), job);
}

/// Nothing here can run a container, a cluster or systemd, so files that only they can try must say it.
#[test]
fn files_that_were_never_run_say_so_at_their_top() {
    for name in [
        "deploy/Dockerfile",
        "deploy/compose/compose.yaml",
        "deploy/helm/keytide/values.yaml",
        "deploy/systemd/keytide.service",
    ] {
        let text = file(name);
        let top: Vec<&str> = text.lines().take_while(|line| line.starts_with('#')).collect();
        let top = top.join(" ").replace("# ", "");
        assert!(
            ["NOT RUN", "not started", "no cluster has run"].iter().any(|said| top.contains(said)),
            "{name}: {top}"
        );
    }
}
