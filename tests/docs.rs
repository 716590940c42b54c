//! The documents agree with what they describe: commands, options, paths, views.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::harness::{Job, Keytide, VIEWS, read, read_text, repository};

const DOCUMENTS: [&str; 4] = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"];

fn document(name: &str) -> String {
    read_text(&repository().join(name))
}

/// Files under version control.
fn tracked() -> BTreeSet<String> {
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
fn what_ci_runs_is_what_contributors_are_told_to_run() {
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
    for name in DOCUMENTS {
        let text = document(name);
        let links =
            text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link.to_owned());
        let links = links.filter(|link| !link.contains(':') && !link.starts_with('#'));
        let spans = code_spans(&text).into_iter().filter(|span| is_path(span));
        let mut seen = 0;
        for path in links.chain(spans) {
            let path = path.trim_end_matches('/');
            assert!(
                tracked.contains(path) || folders.contains(Path::new(path)),
                "{name} names {path}, which isn't in the repository"
            );
            seen += 1;
        }
        assert!(seen > 0, "{name} names no path");
    }
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
    let readme = document("README.md");
    let tracked = tracked();
    let examples =
        tracked.iter().filter(|file| file.starts_with("config/examples/") && file.ends_with(".toml"));
    for example in examples {
        assert!(readme.contains(example.as_str()), "README.md doesn't name {example}");
    }
}

#[test]
fn the_readme_names_every_view_command_and_option() {
    let readme = document("README.md");
    let spans: BTreeSet<String> = code_spans(&readme).into_iter().collect();
    for view in VIEWS {
        assert!(spans.contains(view), "the view {view} isn't in README.md");
    }
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
            "the command {command} isn't in README.md"
        );
        let help = help(&[command, "--help"]);
        let options =
            help.split_whitespace().filter(is_option).map(|option| option.trim_matches(',').to_owned());
        for option in options.filter(|option| option != "--help") {
            let named = spans.iter().flat_map(|span| span.split_whitespace()).any(|word| word == option);
            assert!(named, "{option} of keytide {command} isn't in README.md");
            known.insert(option);
        }
    }
    let named = spans.iter().filter(|span| span.starts_with("--") || span.starts_with("keytide "));
    for option in named.flat_map(|span| span.split_whitespace()).filter(is_option) {
        assert!(
            known.contains(option.trim_matches(['[', ']'])),
            "README.md names {option}, which no command has"
        );
    }
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
