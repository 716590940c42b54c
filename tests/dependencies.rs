//! The layers of crates, as cargo resolves them: billing <- config <- dataflow <- connectors, alerts <- worker,
//! generator <- the program, and nothing in the dataflow or in billing that talks to the outside; and
//! which crates there may be.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::harness::repository;

/// Crates of this workspace, each with those of them it may use.
const LAYERS: [(&str, &[&str]); 8] = [
    ("keytide-billing", &[]),
    ("keytide-config", &["keytide-billing"]),
    ("keytide-dataflow", &["keytide-billing", "keytide-config"]),
    ("keytide-connectors", &["keytide-billing", "keytide-config", "keytide-dataflow"]),
    ("keytide-alerts", &["keytide-billing", "keytide-config", "keytide-dataflow"]),
    ("keytide-generator", &["keytide-billing", "keytide-config", "keytide-dataflow", "keytide-connectors"]),
    (
        "keytide-worker",
        &["keytide-alerts", "keytide-billing", "keytide-config", "keytide-dataflow", "keytide-connectors"],
    ),
    (
        "keytide",
        &[
            "keytide-alerts",
            "keytide-billing",
            "keytide-config",
            "keytide-dataflow",
            "keytide-connectors",
            "keytide-generator",
            "keytide-worker",
        ],
    ),
];

/// What the dataflow must not even reach indirectly: clients, databases, stores, runtimes.
const OUTSIDE: [&str; 5] = ["rdkafka", "lettre", "tokio", "maxminddb", "object_store"];

/// Crates that only the commands `demo` and `generate` need.
const OF_TRAFFIC: [&str; 6] =
    ["keytide-generator", "mmdb-writer", "rand_chacha", "rand_distr", "ratatui", "crossterm"];

/// Licences that a crate may have, by their SPDX names. All may be given on with a binary that names their authors.
/// CC0 asks for nothing.
const LICENCES: [&str; 10] = [
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Zlib",
];

/// Crates that the program has in two versions: those of others, which nothing here can change.
const TWICE: [&str; 6] = ["crypto-common", "digest", "getrandom", "itertools", "miniz_oxide", "syn"];

/// The resolved graph without dev-dependencies: a package's id to the ids it uses; and the ids' names.
struct Graph {
    uses: BTreeMap<String, Vec<String>>,
    names: BTreeMap<String, String>,
    /// Expressions of SPDX names.
    licences: BTreeMap<String, String>,
    members: BTreeSet<String>,
}

impl Graph {
    fn load() -> Self {
        // Without a platform cargo would download what only others need.
        let version = cargo(&["--version", "--verbose"]);
        let platform = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
        let arguments = ["metadata", "--format-version", "1", "--locked", "--filter-platform", platform];
        let metadata: Value = serde_json::from_str(&cargo(&arguments)).unwrap();
        let list = |value: &Value| value.as_array().unwrap().clone();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let names = list(&metadata["packages"])
            .iter()
            .map(|package| (text(&package["id"]), text(&package["name"])))
            .collect();
        let licences = list(&metadata["packages"])
            .iter()
            .map(|package| (text(&package["id"]), package["license"].as_str().unwrap_or_default().to_owned()))
            .collect();
        let is_used = |dependency: &Value| {
            list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"] != "dev" && kind["kind"] != "build")
        };
        let uses = list(&metadata["resolve"]["nodes"])
            .iter()
            .map(|node| {
                let used = list(&node["deps"])
                    .iter()
                    .filter(|used| is_used(used))
                    .map(|used| text(&used["pkg"]))
                    .collect();
                (text(&node["id"]), used)
            })
            .collect();
        let members = list(&metadata["workspace_members"]).iter().map(text).collect();
        Self { uses, names, licences, members }
    }

    fn id(&self, name: &str) -> &str {
        let found = self.members.iter().find(|id| self.names[*id] == name);
        found.unwrap_or_else(|| panic!("the workspace has no member {name}"))
    }

    /// Everything a member uses, directly and not, itself included.
    fn closure(&self, member: &str) -> BTreeSet<&str> {
        let mut open = vec![self.id(member)];
        let mut seen = BTreeSet::new();
        while let Some(id) = open.pop() {
            if seen.insert(id) {
                open.extend(self.uses[id].iter().map(String::as_str));
            }
        }
        seen.into_iter().map(|id| self.names[id].as_str()).collect()
    }
}

fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(repository()).output().unwrap();
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_member_has_its_place() {
    let graph = Graph::load();
    let members: BTreeSet<&str> = graph.members.iter().map(|id| graph.names[id].as_str()).collect();
    assert_eq!(members, LAYERS.iter().map(|(name, _)| *name).collect());
}

#[test]
fn dependencies_point_one_way() {
    let graph = Graph::load();
    let members: BTreeSet<&str> = LAYERS.iter().map(|(name, _)| *name).collect();
    for (member, allowed) in LAYERS {
        let mut used = graph.closure(member);
        used.remove(member);
        for other in used.intersection(&members) {
            assert!(allowed.contains(other), "{member} must not depend on {other}");
        }
    }
}

#[test]
fn the_dataflow_knows_nothing_of_the_outside() {
    let graph = Graph::load();
    let used = graph.closure("keytide-dataflow");
    assert!(used.contains("timely"), "the graph is read right: {used:?}");
    assert!(graph.closure("keytide-connectors").contains("maxminddb"), "the outside is found where it is");
    for name in OUTSIDE {
        assert!(!used.contains(name), "the dataflow depends on {name}");
        assert!(!graph.closure("keytide-billing").contains(name), "billing depends on {name}");
    }
}

#[test]
fn a_program_without_traffic_has_none_of_its_crates() {
    let names = |features: &[&str]| -> BTreeSet<String> {
        tree(features).into_iter().map(|(name, _)| name).collect()
    };
    let (whole, without) = (names(&[]), names(&["--no-default-features"]));
    assert!(without.contains("keytide-worker"), "the tree is read right: {without:?}");
    for name in OF_TRAFFIC {
        assert!(whole.contains(name), "{name} is used no more");
        assert!(!without.contains(name), "{name} is built without the features demo and generate");
    }
}

/// Whether an expression of SPDX names can be met by the [`LICENCES`]. A slash is the old way to write OR.
fn is_allowed(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let mut words = expression.split_whitespace().peekable();
    let allowed = any_of(&mut words);
    allowed && words.next().is_none()
}

fn any_of<'a>(words: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) -> bool {
    let mut allowed = all_of(words);
    while words.next_if_eq(&"OR").is_some() {
        allowed |= all_of(words);
    }
    allowed
}

fn all_of<'a>(words: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) -> bool {
    let mut allowed = true;
    loop {
        allowed &= match words.next() {
            Some("(") => {
                let inner = any_of(words);
                inner && words.next() == Some(")")
            }
            name => name.is_some_and(|name| LICENCES.contains(&name)),
        };
        if words.next_if_eq(&"WITH").is_some() {
            // An exception only allows more.
            words.next();
        }
        if words.next_if_eq(&"AND").is_none() {
            return allowed;
        }
    }
}

#[test]
fn every_crate_has_a_licence_that_may_be_given_on() {
    for (expression, allowed) in [
        ("MIT", true),
        ("GPL-3.0-only", false),
        ("GPL-3.0-only OR MIT", true),
        ("Apache-2.0 AND GPL-3.0-only", false),
        ("Apache-2.0 WITH LLVM-exception OR GPL-3.0-only", true),
        ("(MIT OR GPL-3.0-only) AND Unicode-3.0", true),
        ("GPL-3.0-only/MIT", true),
        ("", false),
    ] {
        assert_eq!(is_allowed(expression), allowed, "{expression}");
    }
    let graph = Graph::load();
    assert!(graph.licences.len() > 200, "the graph is read: {}", graph.licences.len());
    for (id, licence) in &graph.licences {
        assert!(is_allowed(licence), "{id} has the licence `{licence}`");
    }
}

#[test]
fn the_program_has_one_version_of_each_crate() {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, version) in tree(&[]) {
        versions.entry(name).or_default().insert(version);
    }
    let twice: Vec<_> =
        versions.iter().filter(|(_, versions)| versions.len() > 1).map(|(name, _)| name).collect();
    assert_eq!(twice, TWICE, "crates in two versions");
}

/// Names and versions of the crates that the program is built of, with such features.
fn tree(features: &[&str]) -> BTreeSet<(String, String)> {
    let tree =
        ["tree", "--locked", "--offline", "--package", "keytide", "--edges", "no-dev", "--prefix", "none"];
    let tree = cargo(&[&tree[..], features].concat());
    let pair = |line: &str| {
        let mut words = line.split_whitespace().map(str::to_owned);
        Some((words.next()?, words.next()?))
    };
    tree.lines().filter_map(pair).collect()
}
