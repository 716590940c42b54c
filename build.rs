//! Says which commit a release is of, and of which day, for `keytide --version`.
//!
//! `KEYTIDE_COMMIT` and `SOURCE_DATE_EPOCH` decide if they are set, as an image or a package has no `.git`. Else git is
//! asked, unless its work tree is another project's, into which this one was unpacked. The day is the commit's and not the
//! build's, so that the same sources make the same program. What isn't known is left out.
//!
//! Builds for development name no commit: each commit would compile the program and its tests again.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const SECONDS_OF_DAY: i64 = 86_400;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=KEYTIDE_COMMIT");
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let folder = env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).filter(|_| is_release);
    let folder = folder.filter(|folder| is_own_work_tree(folder));
    if let Some(folder) = &folder {
        watch(folder);
    }
    let asked = |format| folder.as_deref().and_then(|folder| git(folder, &["log", "-1", format]));
    let commit = variable("KEYTIDE_COMMIT").or_else(|| asked("--format=%H"));
    let second = variable("SOURCE_DATE_EPOCH").or_else(|| asked("--format=%ct"));
    let day = second.and_then(|second| Some(date(second.parse::<i64>().ok()?.div_euclid(SECONDS_OF_DAY))));
    println!("cargo::rustc-env=KEYTIDE_COMMIT={}", commit.unwrap_or_default());
    println!("cargo::rustc-env=KEYTIDE_DATE={}", day.unwrap_or_default());
}

/// Returns a variable of the environment that isn't empty and has no line's end, which would be a command to cargo.
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| is_line(value))
}

fn is_line(value: &str) -> bool {
    !value.is_empty() && !value.contains(['\n', '\r'])
}

fn git(folder: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().ok()?;
    let answer = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && is_line(&answer)).then_some(answer)
}

fn is_own_work_tree(folder: &Path) -> bool {
    let top = git(folder, &["rev-parse", "--show-toplevel"]).map(PathBuf::from);
    let top = top.and_then(|top| top.canonicalize().ok());
    top.is_some() && top == folder.canonicalize().ok()
}

/// Runs this again after each commit: HEAD's log changes with all of them.
fn watch(folder: &Path) {
    for name in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(folder, &["rev-parse", "--git-path", name]).map(|path| folder.join(path))
            && path.exists()
        {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
}

/// Returns the date of a day since 1970 (Howard Hinnant's `civil_from_days`).
fn date(day: i64) -> String {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Months count from March.
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{of_month:02}")
}
