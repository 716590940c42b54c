//! `keytide key-id CONFIG` shows how views and tables name a key that was found somewhere, such as in a repository.
//!
//! The key comes on standard input: other users of the machine see arguments, and a shell keeps them in its history. It
//! is never printed, not even as part of an error, and its bytes are overwritten before the process ends.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, anyhow};
use console::Term;
use keytide_config::JobConfig;
use keytide_connectors::decode::KeyNames;
use keytide_dataflow::model::hex;
use keytide_worker::replay::usage;
use serde::Serialize;

use crate::exit;
use crate::text::{harmless, json};
use crate::views::load;

/// Bytes of a key, at most.
const MAX_KEY: usize = 4_096;

#[derive(clap::Args)]
pub(crate) struct KeyIdArgs {
    /// The job's configuration (TOML): how each source hashes keys
    config: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Takes a key that was typed, so that it is refused by a message that doesn't repeat it
    #[arg(hide = true)]
    typed: Vec<OsString>,
}

/// The names of a key at one source.
#[derive(Serialize)]
struct AtSource {
    source: String,
    hash: &'static str,
    /// Null where the key is a hash itself, or an identifier.
    key_hash: Option<String>,
    /// Null where the key is an identifier, which names itself.
    key_id: Option<String>,
}

/// A key, whose bytes are overwritten when it is dropped.
struct RawKey(Vec<u8>);

impl Drop for RawKey {
    fn drop(&mut self) {
        self.0.fill(0);
        // Keeps the compiler from leaving the last write out.
        std::hint::black_box(&mut self.0);
    }
}

impl RawKey {
    /// Reads the key: the whole of standard input, or a line that a terminal doesn't show.
    fn read() -> anyhow::Result<Self> {
        if io::stdin().is_terminal() {
            exit::note("Paste the key and press Enter. It isn't shown.");
            return Ok(Self(
                Term::stderr().read_secure_line().context("the key can't be read")?.into_bytes(),
            ));
        }
        // A vector that grows leaves copies behind, and so does the buffer of the standard library's input.
        let mut key = Self(vec![0; MAX_KEY + 2]);
        let mut read = || -> io::Result<usize> {
            let mut input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
            let mut length = 0;
            loop {
                match input.read(&mut key.0[length..]) {
                    Ok(0) => return Ok(length),
                    Ok(more) => length += more,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        };
        let length = read().context("standard input can't be read")?;
        key.0.truncate(length);
        Ok(key)
    }

    /// Returns the key without the blanks around it.
    fn trimmed(&self) -> anyhow::Result<&[u8]> {
        let key = self.0.trim_ascii();
        let problem = if key.is_empty() {
            "standard input holds no key: keytide key-id CONFIG < FILE"
        } else if key.len() > MAX_KEY {
            "standard input holds more than a key of 4,096 bytes"
        } else if key.contains(&b'\n') {
            "standard input holds more than one line: give one key"
        } else {
            return Ok(key);
        };
        Err(usage(anyhow!(problem)))
    }
}

pub(crate) fn run(args: &KeyIdArgs) -> anyhow::Result<ExitCode> {
    if !args.typed.is_empty() {
        return Err(usage(anyhow!(
            "a key must not be an argument: other users of this machine see arguments, and the shell keeps them in its \
             history. Clear it from there, and give the key on standard input: keytide key-id CONFIG < FILE"
        )));
    }
    // The path may be a key that was typed in its place, so it isn't repeated.
    if !args.config.is_file() {
        return Err(usage(anyhow!(
            "there is no such configuration (its name isn't repeated, as it may be a key); a key must not be an \
             argument but come on standard input: keytide key-id CONFIG < FILE"
        )));
    }
    let job = load(&args.config)?;
    let key = RawKey::read()?;
    let sources = at_sources(&job, key.trimmed()?);
    drop(key);
    exit::print(&if args.json { json(&sources)? } else { page(&sources) })?;
    Ok(ExitCode::SUCCESS)
}

fn at_sources(job: &JobConfig, key: &[u8]) -> Vec<AtSource> {
    let names = job.sources.iter().map(|source| {
        let hash = &source.keys.hash;
        let (key_hash, key_id) = match KeyNames::of(key, hash) {
            KeyNames::Hashed { key_hash, key_id } => {
                (Some(hex(&key_hash)), Some(format!("{:032x}", key_id.0)))
            }
            KeyNames::Prehashed { key_id } => (None, Some(format!("{:032x}", key_id.0))),
            KeyNames::Itself => (None, None),
        };
        AtSource { source: source.name.clone(), hash: hash.name(), key_hash, key_id }
    });
    names.collect()
}

fn page(sources: &[AtSource]) -> String {
    let mut page = String::new();
    for AtSource { source, hash, key_hash, key_id } in sources {
        page.push_str(&format!("source {}, hash {hash}\n", harmless(source)));
        if let Some(key_hash) = key_hash {
            page.push_str(&format!("  key_hash  {key_hash}\n"));
            if *hash == "prehashed" {
                page.push_str("  if the gateway's hash is SHA-256; else give the hash that it logs\n");
            }
        }
        match key_id {
            Some(key_id) => page.push_str(&format!("  key_id    {key_id}\n")),
            None => page.push_str("  the key_id is the identifier itself\n"),
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_around_a_key_are_no_part_of_it_and_more_than_a_key_is_refused() {
        let trimmed = |text: &str| RawKey(text.as_bytes().to_vec()).trimmed().map(<[u8]>::to_vec);
        assert_eq!(trimmed(" kt_abc\r\n").unwrap(), b"kt_abc");
        for wrong in ["", " \n", "kt_secret\nkt_other\n", &"kt_secret".repeat(500)] {
            let error = trimmed(wrong).unwrap_err();
            let text = keytide_worker::exit::message(&error);
            assert!(text.starts_with("standard input holds ") && !text.contains("kt_"), "{text}");
        }
    }
}
