//! The configuration: text and variables in, a job or all its problems out.
//!
//! An input is the file, and behind a NUL each a variable `KEYTIDE_…=value`. Variables with secrets are there: no
//! message, warning or `Debug` output may hold what they hold. What is accepted is accepted again, with the same
//! fingerprint of its results.

use std::path::Path;

use keytide_config::JobConfig;

use crate::{CANARY, tells};

/// One input.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut parts = text.split('\0');
    let file = parts.next().unwrap_or_default();
    let secrets = [("SECRET", CANARY), ("KEYTIDE_KEY_SECRET", CANARY), ("KEYTIDE_SASL_PASSWORD", CANARY)];
    let mut variables: Vec<(String, String)> =
        secrets.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    for part in parts {
        if let Some((name, value)) = part.split_once('=').filter(|(name, _)| name.starts_with("KEYTIDE_")) {
            variables.push((name.to_owned(), value.to_owned()));
        }
    }
    // What stands openly in the input may be quoted; files of secrets would be this machine's.
    if tells(text) || text.contains("file:") {
        return;
    }
    let parse = || JobConfig::parse(file, Path::new("/nowhere"), variables.iter().cloned());
    match parse() {
        Ok(loaded) => {
            assert!(!tells(&format!("{loaded:?}")), "a secret is shown");
            for warning in &loaded.warnings {
                assert!(!tells(&warning.to_string()));
            }
            assert!(!loaded.job.sources.is_empty(), "a job without a source");
            let again = parse().expect("what is valid is valid again");
            assert_eq!(format!("{:?}", again.job), format!("{:?}", loaded.job));
        }
        Err(error) => {
            let shown = format!("{error}\n{error:?}");
            assert!(!tells(&shown), "a secret is shown: {shown}");
            assert!(!error.to_string().is_empty());
        }
    }
}
