//! The section `[log]` about the lines that a live job writes to standard error.

use super::prelude::*;

section! {
    /// The section `[log]` about the lines that a live job writes to standard error.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Log, RawLog {
        other format: LogFormat = format(LogFormat) or LogFormat::Pretty;
        /// The least important level that is written.
        other level: LogLevel = level(LogLevel) or LogLevel::Info;
    }
}

choice! {
    /// The form of log lines.
    #[derive(Default)]
    pub enum LogFormat {
        /// Plain lines for people to read.
        #[default]
        Pretty = "pretty",
        /// One JSON object a line.
        Json = "json",
    }
}

choice! {
    /// The least important lines that are logged.
    #[derive(PartialOrd, Ord, Default)]
    pub enum LogLevel {
        /// The reason why the job ended.
        Error = "error",
        /// Events that a person should look at.
        Warn = "warn",
        /// The steps of the job.
        #[default]
        Info = "info",
        /// The parts of each step.
        Debug = "debug",
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::*;

    #[test]
    fn values_beyond_their_range_are_reported() {
        for (lines, expected) in [
            (
                "[log]\nlevel = \"trace\"".to_owned(),
                "line 7: log.level: found \"trace\", allowed: error, warn, info, debug",
            ),
            (
                "[log]\nformat = \"text\"".to_owned(),
                "line 7: log.format: found \"text\", allowed: pretty, json",
            ),
        ] {
            assert_eq!(problems(&format!("{SMALL}{lines}")), expected, "{lines}");
        }
    }
}
