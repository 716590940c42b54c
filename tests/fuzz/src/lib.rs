//! What the fuzz targets hold the product to. A target is one line; the properties stand here, one module a surface.
//!
//! No panic, no overflow (debug assertions), 10 s and 2 GiB an input are libFuzzer's part. Beyond these each module asserts
//! what its surface promises, so that a wrong answer is a crash too.

pub mod config;
pub mod decode;
pub mod geo;
pub mod tables;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

/// The raw key in the seeds and dictionaries: in no output, wherever the input has it where keys are looked for.
pub const CANARY: &str = "kt_demo_9f3b1c77a2d04e5e8c61b0a4d7e2f913";

/// Whether `text` holds the canary, as it is or percent-encoded once.
#[must_use]
pub fn tells(text: &str) -> bool {
    let found = |bytes: &[u8]| bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes());
    found(text.as_bytes()) || (text.contains('%') && found(&percent_decoded(text)))
}

fn percent_decoded(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let escape =
            tail.get(..2).filter(|_| *first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = escape.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        match byte.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                decoded.push(byte);
                rest = &tail[2..];
            }
            None => {
                decoded.push(*first);
                rest = tail;
            }
        }
    }
    decoded
}

/// A file of this process in memory, for what is only read from files.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let folder = Some("/dev/shm").map(Path::new).filter(|folder| folder.is_dir());
        let folder = folder.map_or_else(std::env::temp_dir, Path::to_owned);
        Self(folder.join(format!("keytide-fuzz-{}", std::process::id())))
    }

    fn write(&self, bytes: &[u8]) -> &Path {
        fs::write(&self.0, bytes).expect("memory for a scratch file");
        &self.0
    }
}

static SCRATCH: LazyLock<Scratch> = LazyLock::new(Scratch::new);
