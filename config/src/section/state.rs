//! The section `[state]` of a live job's durable state.

use super::prelude::*;

section! {
    /// The section `[state]`, with which a job goes on where it stopped.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct State, RawState, pub new(dir: impl Into<PathBuf>) {
        /// The folder of the checkpoints.
        other dir: PathBuf = url(StateUrl);
        /// How often a checkpoint is made while the job runs, in milliseconds.
        other checkpoint_every_ms: u64 = checkpoint_every(Millis, 1_000..=HOUR_MS) or 30_000;
    }
}

const FILE: &str = "file://";

texts! {
    /// The place of the checkpoints: a folder, or its `file://` address.
    StateUrl if |text| match text.split_once("://") {
        Some((scheme, path)) => scheme == "file" && path.starts_with('/'),
        None => !text.is_empty(),
    }, "a folder of this machine: its path, or file:///PATH".to_owned();
}

impl Validate<State> for RawState {
    fn validate(spot: &Spot<Self>, (): (), check: &mut Check<'_>) -> Option<State> {
        let dir = check
            .required(&spot.value.url, spot, "url")
            .map(|url| check.base.join(url.0.strip_prefix(FILE).unwrap_or(&url.0)));
        let is_whole = dir.is_some();
        let mut state = State::new(dir.unwrap_or_default());
        spot.value.fill(&mut state, check);
        is_whole.then_some(state)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::tests::*;

    #[test]
    fn the_place_is_a_folder_of_this_machine() {
        for (url, dir) in
            [("file:///var/lib/keytide", "/var/lib/keytide"), ("state", "state"), ("/state", "/state")]
        {
            let loaded = parse_with(&format!("{SMALL}[state]\nurl = \"{url}\""), &[]).unwrap();
            let state = loaded.job.state.unwrap();
            assert_eq!(state.dir, Path::new("/etc/keytide").join(dir));
            assert_eq!(state.checkpoint_every_ms, 30_000);
        }
        for url in ["s3://bucket/keytide", "file://host/state", ""] {
            let problem = problems(&format!("{SMALL}[state]\nurl = \"{url}\""));
            assert!(
                problem.contains("state.url") && problem.contains("a folder of this machine"),
                "{problem}"
            );
        }
        let problem = problems(&format!("{SMALL}[state]\ncheckpoint_every = \"1m\""));
        assert!(problem.contains("url"), "{problem}");
    }
}
