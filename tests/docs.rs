//! The documents agree with what they describe: commands, options, settings, paths, modules, views.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use keytide_config::View;

use crate::harness::{Job, Keytide, read, read_text, repository};

/// The documents that name paths for sure.
const DOCUMENTS: [&str; 4] = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"];

/// The heading of the README's list of what is missing.
const MISSING: &str = "## What is missing\n";

fn document(name: &str) -> String {
    read_text(&repository().join(name))
}

/// Every document under version control, by its path.
fn documents() -> BTreeMap<String, String> {
    let names = tracked().into_iter().filter(|name| name.ends_with(".md"));
    names.map(|name| (name.clone(), document(&name))).collect()
}

/// Files under version control.
pub(crate) fn tracked() -> BTreeSet<String> {
    let output = Command::new("git").args(["ls-files", "-z"]).current_dir(repository()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).unwrap();
    names.split_terminator('\0').map(str::to_owned).collect()
}

/// What stands between backticks within a line, outside of code blocks.
fn code_spans(text: &str) -> Vec<String> {
    let outside = text.split("```").step_by(2);
    outside
        .flat_map(str::lines)
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect()
}

/// Lines of the code blocks.
fn code_lines(text: &str) -> Vec<String> {
    let inside = text.split("```").skip(1).step_by(2);
    inside.flat_map(|block| block.lines().skip(1)).map(|line| line.trim().to_owned()).collect()
}

/// The commands a document gives, up to their comments.
fn commands(text: &str) -> Vec<String> {
    let lines = code_lines(text).into_iter().filter(|line| line.starts_with("cargo "));
    lines.map(|line| line.split('#').next().unwrap_or_default().trim().to_owned()).collect()
}

#[test]
fn ci_runs_the_readme_s_first_commands() {
    let commands = commands(&document("README.md"));
    let ci = document(".ci/run");
    let ran = cargo_lines(&ci);
    for command in [&commands[0], &commands[1]] {
        assert!(ran.contains(&command.as_str()), "`{command}` is no line of .ci/run");
    }
    assert!(commands[0].starts_with("cargo run "), "{}", commands[0]);
    assert_eq!(commands[1], "cargo test");
}

#[test]
fn ci_runs_the_commands_that_contributors_run() {
    let told = commands(&document("CONTRIBUTING.md"));
    let ci = document(".ci/run");
    let checks: Vec<&str> =
        cargo_lines(&ci).into_iter().filter(|line| !line.starts_with("cargo run ")).collect();
    assert!(checks.len() >= 3, "{checks:?}");
    for check in checks {
        assert!(told.iter().any(|command| command == check), "`{check}` is not in CONTRIBUTING.md");
    }
}

/// The checks of a script: its lines that begin with cargo, up to redirections.
fn cargo_lines(script: &str) -> Vec<&str> {
    let lines = script
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("cargo ") && !line.contains("--version"));
    lines.map(|line| line.split(" 2>&1").next().unwrap_or(line)).collect()
}

#[test]
fn paths_that_documents_name_exist() {
    let tracked = tracked();
    let folders: BTreeSet<&Path> =
        tracked.iter().flat_map(|file| Path::new(file).ancestors().skip(1)).collect();
    for (name, text) in documents() {
        let links =
            text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link.to_owned());
        let links = links.filter(|link| !link.contains(':') && !link.starts_with('#'));
        let is_core = DOCUMENTS.contains(&name.as_str());
        // Elsewhere there are paths of URLs and of others' files, too.
        let is_ours =
            |span: &str| span.split_once('/').is_none_or(|(head, _)| folders.contains(Path::new(head)));
        let spans = code_spans(&text).into_iter().filter(|span| is_path(span) && (is_core || is_ours(span)));
        // A path is meant from the repository's root or from the document's folder; a file's name alone is explained by
        // the text around it.
        let folder = Path::new(&name).parent().unwrap();
        let mut seen = 0;
        for path in links.chain(spans) {
            let path = path.split('#').next().unwrap_or_default().trim_end_matches('/');
            let exists =
                |path: &Path| tracked.contains(path.to_str().unwrap_or_default()) || folders.contains(path);
            let is_named = |file: &String| file.rsplit('/').next() == Some(path);
            assert!(
                exists(Path::new(path)) || exists(&joined(folder, path)) || tracked.iter().any(is_named),
                "{name} names {path}, which isn't in the repository"
            );
            seen += 1;
        }
        assert!(seen > 0 || !is_core, "{name} names no path");
    }
}

/// A path from a folder, without `..`.
fn joined(folder: &Path, path: &str) -> PathBuf {
    let mut joined = folder.to_owned();
    for part in path.split('/') {
        if part == ".." {
            joined.pop();
        } else {
            joined.push(part);
        }
    }
    joined
}

/// The roots of the crates: files that declare top-level modules.
fn crate_roots() -> Vec<String> {
    let manifest = document("Cargo.toml");
    let binary = manifest.split("[[bin]]").nth(1).and_then(|section| section.split("path = \"").nth(1));
    let binary = binary.and_then(|rest| rest.split('"').next()).unwrap().to_owned();
    let libraries =
        tracked().into_iter().filter(|file| file.ends_with("src/lib.rs") && !file.starts_with("tests/"));
    libraries.chain([binary]).collect()
}

#[test]
fn the_code_map_names_every_top_level_module() {
    let text = document("ARCHITECTURE.md");
    let (_, map) = text.split_once("## Code map\n").unwrap();
    let (map, _) = map.split_once("\n## ").unwrap();
    let spans: BTreeSet<String> =
        code_spans(map).into_iter().map(|span| span.trim_end_matches('/').to_owned()).collect();
    let roots = crate_roots();
    assert!(roots.len() >= 5, "{roots:?}");
    for root in roots {
        let folder = Path::new(&root).parent().unwrap().to_str().unwrap().to_owned();
        let content = document(&root);
        let declared = content.lines().filter_map(|line| {
            let line = line.trim_start_matches("pub ").trim_start_matches("pub(crate) ");
            line.strip_prefix("mod ")?.strip_suffix(';')
        });
        let mut seen = 0;
        for module in declared.filter(|module| *module != "tests") {
            let path = format!("{folder}/{module}");
            let is_named = |span: &String| {
                span == &path || span == &format!("{path}.rs") || span.starts_with(&format!("{path}/"))
            };
            assert!(spans.iter().any(is_named), "the code map doesn't name {path}, a module of {root}");
            seen += 1;
        }
        assert!(seen > 0, "{root} declares no module");
    }
}

#[test]
fn what_is_missing_stands_in_one_place() {
    for (name, mut text) in documents() {
        if name == "README.md" {
            let (before, list) = text.split_once(MISSING).unwrap();
            let (_, after) = list.split_once("\n## ").unwrap();
            text = format!("{before}\n## {after}");
        }
        // A sentence of "yet" with a denial speaks of what is to come.
        for sentence in text.to_lowercase().split(['.', ';', ':', '|']) {
            let words: Vec<&str> = sentence.split(|c: char| !c.is_alphanumeric() && c != '\'').collect();
            let denies =
                |word: &&str| ["no", "not", "nothing", "none"].contains(word) || word.ends_with("n't");
            assert!(
                !(words.contains(&"yet") && words.iter().any(denies)),
                "{name} says what is missing, which only the README's list does: {sentence}"
            );
        }
    }
}

/// Every setting and section of the configuration, with dots between their names, from the example that has all.
fn settings() -> BTreeSet<String> {
    fn below(path: &str, value: &toml::Value, found: &mut BTreeSet<String>) {
        match value {
            toml::Value::Table(table) => {
                for (name, value) in table {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    found.insert(path.clone());
                    below(&path, value, found);
                }
            }
            toml::Value::Array(items) => items.iter().for_each(|item| below(path, item, found)),
            _ => {}
        }
    }
    let mut found = BTreeSet::new();
    // Alternatives are commented out with one #, explanations with two.
    let text = document("config/examples/everything.toml").replace("\n# ", "\n");
    below("", &toml::Value::Table(toml::from_str(&text).unwrap()), &mut found);
    found
}

/// The setting or section that a code span names: `section.key`, `[section]`, `[section].key`, each with or without a
/// value behind it.
fn setting(span: &str) -> Option<String> {
    let named = span.split(" =").next().unwrap_or_default();
    let path: String = named.chars().filter(|c| !"[]".contains(*c)).collect();
    let is_name = |name: &str| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    let is_setting = (named.starts_with('[') || path.contains('.')) && path.split('.').all(is_name);
    is_setting.then_some(path)
}

#[test]
fn settings_that_documents_name_exist() {
    let settings = settings();
    let sections: BTreeSet<&str> =
        settings.iter().map(|setting| setting.split('.').next().unwrap_or_default()).collect();
    let mut seen = 0;
    for (name, text) in documents() {
        for span in code_spans(&text) {
            let Some(path) = setting(&span) else { continue };
            let section = path.split('.').next().unwrap_or_default();
            // Files have dots in their names, too.
            let is_file = [".rs", ".sh", ".toml", ".md", ".json", ".jsonl", ".yml", ".csv"]
                .iter()
                .any(|end| span.ends_with(end));
            // Attributes of OpenTelemetry begin with these as well.
            let is_ours = sections.contains(section) && !["http", "log"].contains(&section);
            if is_file || !(is_ours || span.starts_with('[')) {
                continue;
            }
            assert!(settings.contains(&path), "{name} names the setting {span}, which doesn't exist");
            seen += 1;
        }
    }
    assert!(seen > 20, "only {seen} settings were found");
}

#[test]
fn options_that_documents_name_exist() {
    let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut seen = 0;
    for (name, text) in documents() {
        let lines = code_lines(&text).into_iter().chain(code_spans(&text));
        for line in lines {
            let line = line.split(" #").next().unwrap_or_default();
            let words: Vec<&str> = line.split_whitespace().collect();
            let at = match words.first() {
                Some(&("keytide" | "target/release/keytide")) => Some(1),
                Some(&"cargo") if line.starts_with("cargo run ") => {
                    words.iter().position(|word| *word == "--").map(|at| at + 1)
                }
                _ => None,
            };
            let Some(at) = at else { continue };
            let Some(command) = words.get(at) else { continue };
            if !command.chars().all(|c| c.is_ascii_lowercase()) {
                continue;
            }
            let options = known.entry((*command).to_owned()).or_insert_with(|| {
                let help = Keytide::new(&[command, "--help"]).run();
                assert_eq!(help.code, Some(0), "{name} names `{line}`: {}", help.stderr);
                help.stdout.split_whitespace().map(|word| word.trim_matches(',').to_owned()).collect()
            });
            for option in words[at..].iter().filter(|word| word.starts_with("--") && word.len() > 2) {
                let option = option.trim_matches(['[', ']', ',']).split('=').next().unwrap_or_default();
                assert!(options.contains(option), "{name} names `{line}`, but {command} has no {option}");
                seen += 1;
            }
        }
    }
    assert!(seen > 10, "only {seen} options were found");
}

/// Whether a code span names something of the repository: a path from its root, or a source file.
fn is_path(span: &str) -> bool {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    let is_file = [".md", ".rs"].iter().any(|extension| span.ends_with(extension));
    let elsewhere = ["/", "DIR/", "out/", "target/"].iter().any(|prefix| span.starts_with(prefix));
    span.chars().all(is_name) && (span.contains('/') || is_file) && !elsewhere
}

#[test]
fn every_source_that_a_document_shows_is_a_job() {
    let text = document("docs/gateways.md");
    let mut formats = BTreeSet::new();
    for block in text.split("```toml\n").skip(1).filter_map(|rest| rest.split_once("```")) {
        let job = Job::with_config(block.0);
        let config = job.path("keytide.toml");
        let report = Keytide::new(&["check", config.to_str().unwrap()]).succeed().stdout;
        let warnings = report.lines().filter(|line| line.starts_with("warning: "));
        // The log's files and a geo database aren't there.
        let found: Vec<&str> = warnings
            .filter(|line| !line.contains("matches no file") && !line.contains("[geo] names no database"))
            .collect();
        assert!(found.is_empty(), "{}{found:?}", block.0);
        formats.extend(block.0.lines().filter(|line| line.starts_with("format = ")).map(str::to_owned));
    }
    for format in
        ["apisix", "kong", "envoy", "nginx", "aws-apigateway", "otel", "text", "alb", "cloudfront", "haproxy"]
    {
        assert!(formats.contains(&format!("format = \"{format}\"")), "{format}: {formats:?}");
    }
}

#[test]
fn every_example_is_explained() {
    let page = document("docs/configuration.md");
    let tracked = tracked();
    let examples =
        tracked.iter().filter(|file| file.starts_with("config/examples/") && file.ends_with(".toml"));
    for example in examples {
        assert!(page.contains(example.as_str()), "docs/configuration.md doesn't name {example}");
    }
}

/// Returns the anchors of a document's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let outside: Vec<&str> = text.split("```").step_by(2).collect();
    let headings = outside.iter().flat_map(|part| part.lines()).filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let text = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>()
    };
    headings.map(anchor).collect()
}

#[test]
fn links_into_documents_lead_to_headings() {
    let documents = documents();
    let mut seen = 0;
    for (name, text) in &documents {
        let links = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link);
        for (path, anchor) in links.filter(|link| !link.contains(':')).filter_map(|link| link.split_once('#'))
        {
            let folder = Path::new(name).parent().unwrap();
            let target = if path.is_empty() { PathBuf::from(name) } else { joined(folder, path) };
            let target = documents.get(target.to_str().unwrap());
            let target = target.unwrap_or_else(|| panic!("{name} links to {path}, which is no document"));
            assert!(anchors(target).contains(anchor), "{name} links to {path}#{anchor}, which is no heading");
            seen += 1;
        }
    }
    assert!(seen > 10, "only {seen} links were found");
}

#[test]
fn the_index_of_the_documentation_has_every_page() {
    let index = document("docs/README.md");
    let tracked = tracked();
    let pages = tracked.iter().filter_map(|file| file.strip_prefix("docs/"));
    let pages = pages.filter(|page| page.ends_with(".md") && *page != "README.md");
    let mut seen = 0;
    for page in pages {
        assert!(index.contains(&format!("]({page})")), "docs/README.md doesn't link to {page}");
        seen += 1;
    }
    assert!(seen > 10, "only {seen} pages were found");
}

/// A page that says all is read by few people, so the reference stands in `docs/`.
#[test]
fn the_readme_is_short() {
    let bytes = document("README.md").len();
    assert!((6_000..=9_000).contains(&bytes), "{bytes}");
}

#[test]
fn the_runbook_has_a_section_for_each_alert_rule() {
    let rules = document("deploy/alerts.yml");
    let rules: BTreeSet<&str> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let runbook = document("docs/runbook.md");
    let sections: BTreeSet<&str> = runbook.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    assert_eq!(sections, rules);
    assert!(rules.len() > 20, "{rules:?}");
}

#[test]
fn the_table_of_views_has_a_row_each_with_the_key_columns() {
    let page = document("docs/views.md");
    let table = page.split("\n| view | key columns |").nth(1).unwrap().lines().skip(2);
    let rows = table.take_while(|line| line.starts_with('|')).map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        // Which values a column can have stands in parentheses.
        let (outside, _) = cells[2].split_once(" (").unwrap_or((cells[2], ""));
        let rest = cells[2].split_once(')').map_or("", |(_, rest)| rest);
        (cells[1].trim_matches('`').to_owned(), format!("{outside}{rest}"))
    });
    let expected = View::ALL.map(|view| (view.name().to_owned(), view.key().join(", ")));
    assert_eq!(rows.collect::<Vec<_>>(), expected);
}

#[test]
fn the_page_of_commands_names_every_command_and_option() {
    let page = document("docs/commands.md");
    let spans: BTreeSet<String> = code_spans(&page).into_iter().collect();
    let help = |arguments: &[&str]| Keytide::new(arguments).succeed().stdout;
    let overview = help(&["--help"]);
    let commands: Vec<&str> = overview
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .map_while(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .collect();
    assert!(commands.contains(&"replay"), "{overview}");
    let is_option = |word: &&str| word.starts_with("--") && word.len() > 2;
    let mut known = BTreeSet::from(["--help".to_owned(), "--version".to_owned()]);
    for command in commands {
        assert!(
            spans.iter().any(|span| span.starts_with(&format!("keytide {command}"))),
            "the command {command} isn't in docs/commands.md"
        );
        let help = help(&[command, "--help"]);
        let options =
            help.split_whitespace().filter(is_option).map(|option| option.trim_matches(',').to_owned());
        for option in options.filter(|option| option != "--help") {
            let named = spans.iter().flat_map(|span| span.split_whitespace()).any(|word| word == option);
            assert!(named, "{option} of keytide {command} isn't in docs/commands.md");
            known.insert(option);
        }
    }
    let named = spans.iter().filter(|span| span.starts_with("--") || span.starts_with("keytide "));
    for option in named.flat_map(|span| span.split_whitespace()).filter(is_option) {
        assert!(
            known.contains(option.trim_matches(['[', ']'])),
            "docs/commands.md names {option}, which no command has"
        );
    }
}

/// Returns the word that declares the public item of a line: `fn`, `struct`, ...
fn public_item(line: &str) -> Option<&str> {
    let rest = line.trim_start().strip_prefix("pub ")?;
    let mut words = rest.split([' ', '<']).skip_while(|word| ["unsafe", "async"].contains(word));
    let word = words.next()?;
    let word = if word == "const" && rest.contains(" fn ") { "fn" } else { word };
    ["fn", "struct", "enum", "trait", "type", "const", "static"].contains(&word).then_some(word)
}

/// The product's sources under version control, without tests and benches.
fn product_files() -> impl Iterator<Item = String> {
    let is_product = |file: &String| {
        file.ends_with(".rs") && !file.split('/').any(|part| part.starts_with("test") || part == "benches")
    };
    tracked().into_iter().filter(is_product)
}

#[test]
fn types_behind_which_definitions_are_lost_exist() {
    let keywords = ["struct ", "enum ", "trait ", "type "];
    let mut declared = BTreeSet::new();
    for file in product_files() {
        for line in document(&file).lines() {
            for keyword in keywords {
                let name =
                    line.split_once(keyword).map(|(_, rest)| rest.split(|c: char| !c.is_alphanumeric()));
                declared.extend(name.and_then(|mut words| words.next().map(str::to_owned)));
            }
        }
    }
    let text = document("ARCHITECTURE.md");
    let (_, table) = text.split_once("| call | continues in |\n").unwrap();
    let calls =
        table.lines().take_while(|line| line.starts_with('|')).filter_map(|line| line.split('|').nth(1));
    let is_type = |word: &&str| word.starts_with(char::is_uppercase);
    let mut seen = 0;
    for span in calls.flat_map(code_spans) {
        for name in span.split("::").filter(is_type) {
            assert!(declared.contains(name), "ARCHITECTURE.md names {name}, which no source declares");
            seen += 1;
        }
    }
    assert!(seen >= 10, "{seen}");
}

/// The lint `missing_docs` asks for docs of fields and variants too, which a good name often makes needless.
#[test]
fn public_items_have_docs() {
    let mut items = 0;
    for file in product_files() {
        let content = document(&file);
        let product = content.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let mut documented = false;
        // Attributes, on one line or several, and comments may stand between a doc and its item.
        let mut in_attribute = false;
        for line in product.lines().map(str::trim) {
            if let Some(item) = public_item(line) {
                assert!(documented, "{file}: the {item} of this line needs a doc comment: {line}");
                items += 1;
            }
            in_attribute |= line.starts_with("#[") || line.starts_with("// ");
            documented = line.starts_with("///") || (documented && in_attribute);
            in_attribute &= !line.ends_with(']') && !line.starts_with("// ");
        }
    }
    assert!(items > 500, "{items}");
}

/// The texts are moved by other changes, which the mutants' script would only tell when it is run.
#[test]
fn every_mutant_s_sound_text_stands_once_in_its_file() {
    let list = document("tests/mutants/mutants.toml");
    let value = |line: &str, key: &str| Some(line.strip_prefix(key)?.trim_matches('"').to_owned());
    let mut file = String::new();
    let mut mutants = 0;
    for line in list.lines() {
        if let Some(name) = value(line, "file = ") {
            file = document(&format!("dataflow/src/{name}"));
        } else if let Some(sound) = value(line, "sound = ") {
            assert_eq!(file.matches(&sound).count(), 1, "tests/mutants/mutants.toml: {sound}");
            mutants += 1;
        }
    }
    assert_eq!(mutants, list.lines().filter(|line| line.starts_with('[')).count());
}

#[test]
fn nothing_points_to_where_it_was_made() {
    // In two pieces, so that this file doesn't hold them.
    let needles = [
        ("/wo", "rk/"),
        ("../sh", "ared"),
        ("sub", "agent"),
        ("index.crates", ".io"),
        ("static.crates", ".io"),
    ]
    .map(|(head, tail)| format!("{head}{tail}").into_bytes());
    for file in tracked() {
        let content = read(&repository().join(&file));
        for needle in &needles {
            assert!(
                !content.windows(needle.len()).any(|window| window == needle),
                "{file} holds {}",
                String::from_utf8_lossy(needle)
            );
        }
    }
}

#[test]
fn every_crate_comes_from_the_public_registry() {
    let lock = document("Cargo.lock");
    let sources: BTreeSet<&str> = lock.lines().filter(|line| line.starts_with("source = ")).collect();
    assert_eq!(sources, ["source = \"registry+https://github.com/rust-lang/crates.io-index\""].into());
}
