//! The section `[state]` of a live job's durable state.

use std::collections::BTreeMap;
use std::fmt;

use super::kafka::{LibrdkafkaSettings, SettingValue};
use super::prelude::*;

/// Options of the store, at most.
const MAX_OPTIONS: usize = 64;
/// Bytes of an option's name, at most.
const MAX_OPTION_BYTES: usize = 64;
/// Bytes of the store's URL, at most.
const MAX_URL_BYTES: usize = 1_024;
const FILE: &str = "file://";
/// The schemes of stores of objects: S3, Google Cloud Storage and Azure Blob Storage.
const SCHEMES: [&str; 3] = ["s3", "gs", "az"];

section! {
    /// The section `[state]`, with which a job goes on where it stopped.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct State, RawState, pub new(place: StatePlace) {
        /// The place of the checkpoints.
        other place: StatePlace = url(StateUrl);
        /// Settings of a store of objects by their names. Values may be secrets.
        other options: BTreeMap<String, Secret> = _ or BTreeMap::new();
        key options(LibrdkafkaSettings);
        /// True if all processes of a cluster see the same folder. Buckets are shared in any case.
        other shared: bool = shared(Flag) or false;
        /// How often a checkpoint is made while the job runs, in milliseconds.
        other checkpoint_every_ms: u64 = checkpoint_every(Millis, 1_000..=HOUR_MS) or 30_000;
    }
}

/// The place of a job's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StatePlace {
    /// A folder of this machine.
    Folder(PathBuf),
    /// A bucket or container, and the prefix of the objects in it.
    Remote(RemotePlace),
}

/// A place in a store of objects, `SCHEME://BUCKET/PREFIX`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemotePlace {
    url: String,
}

impl RemotePlace {
    /// Returns `SCHEME://BUCKET/PREFIX`, which holds no secret.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns `s3`, `gs` or `az`.
    #[must_use]
    pub fn scheme(&self) -> &str {
        self.url.split_once("://").map_or("", |(scheme, _)| scheme)
    }

    /// Returns the prefix without slashes at its ends, which may be empty.
    #[must_use]
    pub fn prefix(&self) -> &str {
        let rest = self.url.split_once("://").map_or("", |(_, rest)| rest);
        rest.split_once('/').map_or("", |(_, prefix)| prefix)
    }
}

impl StatePlace {
    /// Reads a path, `file:///PATH`, or the URL of a store of objects. Relative paths are relative to `base`.
    #[must_use]
    pub fn parse(text: &str, base: &Path) -> Option<Self> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return (!text.is_empty()).then(|| Self::Folder(base.join(text)));
        };
        if scheme == "file" {
            return rest.starts_with('/').then(|| Self::Folder(PathBuf::from(rest)));
        }
        let url = text.strip_suffix('/').unwrap_or(text);
        let is_plain = |part: &str| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'=');
            !part.is_empty() && part.bytes().all(plain) && part != "." && part != ".."
        };
        let rest = url.split_once("://").map_or("", |(_, rest)| rest);
        let is_whole = SCHEMES.contains(&scheme) && rest.split('/').all(is_plain);
        (is_whole && url.len() <= MAX_URL_BYTES).then(|| Self::Remote(RemotePlace { url: url.to_owned() }))
    }
}

impl fmt::Display for StatePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(dir) => dir.display().fmt(f),
            Self::Remote(place) => f.write_str(&place.url),
        }
    }
}

/// The place of the checkpoints as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StateUrl(String);

impl Scalar for StateUrl {
    fn allowed() -> String {
        format!(
            "a folder of this machine (its path, or {FILE}/PATH), or s3://BUCKET/PREFIX, gs://BUCKET/PREFIX, \
             az://CONTAINER/PREFIX"
        )
    }

    fn parse(value: &TomlValue) -> Result<Self, Refusal> {
        let text = text(value)?;
        if !text.contains('\0') && StatePlace::parse(text, Path::new("")).is_some() {
            return Ok(Self(text.to_owned()));
        }
        let is_secret = text.contains('@') || text.contains('?');
        let hint =
            is_secret.then(|| "accounts and keys stand in the environment, or in state.options".to_owned());
        Err(Refusal { hint, hidden: is_secret, ..Refusal::default() })
    }
}

impl Validate<State> for RawState {
    fn validate(spot: &Spot<Self>, (): (), check: &mut Check<'_>) -> Option<State> {
        let place = check
            .required(&spot.value.url, spot, "url")
            .and_then(|url| StatePlace::parse(&url.0, check.base));
        let options = spot.value.options.given();
        if let (Some(options), Some(StatePlace::Folder(_))) = (options, &place) {
            check.warn(options, "has no effect: the options are those of s3://, gs:// and az://");
        }
        let options = options.map(|options| read_options(options, check)).unwrap_or_default();
        let is_whole = place.is_some();
        let mut state = State::new(place.unwrap_or(StatePlace::Folder(PathBuf::new())));
        state.options = options;
        spot.value.fill(&mut state, check);
        is_whole.then_some(state)
    }
}

fn read_options(list: &Spot<LibrdkafkaSettings>, check: &mut Check<'_>) -> BTreeMap<String, Secret> {
    let LibrdkafkaSettings(options) = &list.value;
    if options.len() > MAX_OPTIONS {
        let found = options.len();
        check.refuse(list, format!("found {found} options, allowed: at most {MAX_OPTIONS}"));
    }
    let mut values = BTreeMap::new();
    for (name, option) in options {
        let is_name = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if !(1..=MAX_OPTION_BYTES).contains(&name.len()) || !name.bytes().all(is_name) {
            let message =
                format!("isn't the name of an option, allowed: 1 to {MAX_OPTION_BYTES} of a-z, 0-9 and _");
            check.refuse(option, message);
            continue;
        }
        let value = match &option.value {
            SettingValue::Written(_) if holds_secret(name) => {
                let message = "holds a secret, which may not stand here, write \"env:NAME\" or \"file:PATH\"";
                check.refuse(option, message);
                None
            }
            SettingValue::Written(value) => Some(value.clone()),
            SettingValue::Reference(reference) => check.referred(reference, &option.location),
        };
        values.extend(value.map(|value| (name.clone(), Secret::new(value))));
    }
    values
}

/// Returns whether an option always holds a secret. Names of keys end in `_id`, and those of files in `_file`.
fn holds_secret(name: &str) -> bool {
    ["key", "secret", "token", "password", "key_base64"].iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::tests::*;

    fn state(lines: &str, env: &[(&str, &str)]) -> State {
        parse_with(&format!("{SMALL}[state]\n{lines}"), env).unwrap().job.state.unwrap()
    }

    #[test]
    fn the_place_is_a_folder_of_this_machine_or_in_a_store_of_objects() {
        for (url, dir) in
            [("file:///var/lib/keytide", "/var/lib/keytide"), ("state", "state"), ("/state", "/state")]
        {
            let state = state(&format!("url = \"{url}\""), &[]);
            assert_eq!(state.place, StatePlace::Folder(Path::new("/etc/keytide").join(dir)));
            assert_eq!(state.checkpoint_every_ms, 30_000);
        }
        for (url, scheme, prefix) in [
            ("s3://bucket", "s3", ""),
            ("s3://bucket/keytide/", "s3", "keytide"),
            ("gs://my.bucket/a/b=c", "gs", "a/b=c"),
            ("az://container/state", "az", "state"),
        ] {
            let StatePlace::Remote(place) = state(&format!("url = \"{url}\""), &[]).place else {
                panic!("{url}")
            };
            assert_eq!((place.scheme(), place.prefix()), (scheme, prefix));
            assert_eq!(place.url(), url.trim_end_matches('/'));
        }
        for url in [
            "s3://",
            "s3:///a",
            "s3://b//a",
            "s3://b/../a",
            "s3://b/a b",
            "http://host/a",
            "file://host/state",
            "",
            "s3://b/a%2f",
            "S3://b/a",
            "s3://b:9000/a",
        ] {
            let problem = problems(&format!("{SMALL}[state]\nurl = \"{url}\""));
            assert!(
                problem.contains("state.url") && problem.contains("a folder of this machine"),
                "{problem}"
            );
        }
        let problem = problems(&format!("{SMALL}[state]\nurl = \"s3://me:hunter2@bucket/a?sig=hunter2\""));
        assert!(!problem.contains("hunter2") && problem.contains("state.options"), "{problem}");
        let problem = problems(&format!("{SMALL}[state]\ncheckpoint_every = \"1m\""));
        assert!(problem.contains("url"), "{problem}");
    }

    #[test]
    fn options_are_never_shown_and_secrets_are_references() {
        let lines = "url = \"s3://b/a\"\n[state.options]\nendpoint = \"http://127.0.0.1:9000\"\nallow_http = true\n\
                     access_key_id = \"AKIA\"\nsecret_access_key = \"env:SECRET\"";
        let state = state(lines, &[("SECRET", "hunter2")]);
        let value = |name: &str| state.options[name].reveal().to_owned();
        assert_eq!([value("allow_http"), value("secret_access_key")], ["true", "hunter2"]);
        assert!(!format!("{state:?}").contains("hunter2"));
        for (option, expected) in [
            ("secret_access_key = \"hunter2\"", "holds a secret"),
            ("sse_customer_key_base64 = \"hunter2\"", "holds a secret"),
            ("account_key = \"hunter2\"", "holds a secret"),
            ("\"Endpoint\" = \"hunter2\"", "isn't the name of an option"),
            ("endpoint = [\"hunter2\"]", "found a value that is not shown"),
        ] {
            let problem = problems(&format!("{SMALL}[state]\nurl = \"s3://b/a\"\n[state.options]\n{option}"));
            assert!(problem.contains(expected) && !problem.contains("hunter2"), "{problem}");
        }
        let of_folder = format!("{SMALL}[state]\nurl = \"state\"\n[state.options]\nregion = \"x\"");
        let warnings = parse_with(&of_folder, &[]).unwrap().warnings;
        assert!(warnings.iter().any(|warning| warning.to_string().contains("has no effect")), "{warnings:?}");
    }
}
