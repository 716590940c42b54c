//! Exit codes: what a supervisor may conclude from a process that ended.

use std::process::ExitCode;

use keytide_connectors::kafka::{ErrorClass, KafkaError};

/// How a command ended. The numbers are a contract with supervisors and scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done = 0,
    /// Bad configuration or usage: change it, don't restart.
    Usage = 2,
    /// A fatal condition in data or state: a person has to look, don't restart.
    Fatal = 3,
    /// A bug (`EX_SOFTWARE` of sysexits.h).
    Internal = 70,
    /// Something outside failed that may work again (`EX_TEMPFAIL`): restart.
    Transient = 75,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// The message of an error, and those of its causes that it doesn't quote already.
pub fn message(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// What an error means to whoever started the process. What nobody gave a meaning to: the system's errors may
/// pass, all others are for whoever typed the command.
pub fn classify(error: &anyhow::Error) -> Exit {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        failure.exit
    } else if error.chain().any(|cause| cause.is::<std::io::Error>()) {
        Exit::Transient
    } else {
        Exit::Usage
    }
}

/// An error whose meaning to a supervisor is known.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    cause: anyhow::Error,
}

/// Gives an error its meaning.
pub fn failure(exit: Exit, cause: impl Into<anyhow::Error>) -> anyhow::Error {
    anyhow::Error::new(Failure { exit, cause: cause.into() })
}

impl From<ErrorClass> for Exit {
    fn from(class: ErrorClass) -> Self {
        match class {
            ErrorClass::Definite => Self::Usage,
            ErrorClass::Transient => Self::Transient,
            ErrorClass::Fatal => Self::Fatal,
        }
    }
}

/// Gives an error of the brokers the meaning of its class.
pub fn kafka_failure(error: KafkaError) -> anyhow::Error {
    failure(error.class().into(), error)
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&message(&self.cause))
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once() {
        let system = || std::io::Error::other("no space left");
        let quoting = anyhow::Error::new(system()).context("writing failed: no space left");
        assert_eq!(message(&quoting), "writing failed: no space left");
        let silent = anyhow::Error::new(system()).context("writing failed");
        assert_eq!(message(&silent), "writing failed: no space left");
        assert_eq!(failure(Exit::Fatal, silent).to_string(), "writing failed: no space left");
    }

    #[test]
    fn errors_without_a_meaning_are_the_systems_or_the_users() {
        let system = anyhow::Error::new(std::io::Error::other("no space left")).context("writing failed");
        assert_eq!(classify(&system), Exit::Transient);
        assert_eq!(classify(&anyhow::anyhow!("the folder isn't empty")), Exit::Usage);
        assert_eq!(classify(&failure(Exit::Fatal, system)), Exit::Fatal);
    }
}
