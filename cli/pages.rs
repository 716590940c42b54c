//! `keytide pages DIR` writes man pages and the completions of shells.
//!
//! Packages need them once, so only builds with the feature `pages` have the command (`.ci/release` makes one), and
//! released programs carry neither it nor its crates. It is no part of the command line that it describes.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Command;
use clap_complete::Shell;

const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

/// Returns the folder to write to, if this command was typed.
pub(crate) fn typed() -> Option<PathBuf> {
    let mut arguments = std::env::args_os().skip(1);
    let name = arguments.next()?;
    arguments.next().filter(|_| name == OsStr::new("pages")).map(PathBuf::from)
}

/// Writes `DIR/man/keytide*.1` and `DIR/completions/` of `command`.
///
/// # Errors
/// If a file can't be written.
pub(crate) fn write(mut command: Command, folder: &Path) -> anyhow::Result<ExitCode> {
    let (man, completions) = (folder.join("man"), folder.join("completions"));
    for folder in [&man, &completions] {
        fs::create_dir_all(folder).with_context(|| format!("creating {} failed", folder.display()))?;
    }
    clap_mangen::generate_to(command.clone(), &man)
        .with_context(|| format!("writing man pages to {} failed", man.display()))?;
    for shell in SHELLS {
        clap_complete::generate_to(shell, &mut command, "keytide", &completions)
            .with_context(|| format!("writing completions to {} failed", completions.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
