//! Exit codes, which tell a supervisor whether a restart can help.

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

/// Returns the message of an error with those of its causes that it doesn't quote already.
pub fn message(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// Returns the exit code of an error. Without an [`ExitError`] in it, errors of the operating system are transient
/// and all others are mistakes of the command.
pub fn classify(error: &anyhow::Error) -> Exit {
    if let Some(failure) = error.downcast_ref::<ExitError>() {
        failure.exit
    } else if error.chain().any(|cause| cause.is::<std::io::Error>()) {
        Exit::Transient
    } else {
        Exit::Usage
    }
}

/// An error with the exit code that it stands for.
#[derive(Debug)]
pub struct ExitError {
    exit: Exit,
    cause: anyhow::Error,
}

/// Gives an error its exit code.
pub fn failure(exit: Exit, cause: impl Into<anyhow::Error>) -> anyhow::Error {
    anyhow::Error::new(ExitError { exit, cause: cause.into() })
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

impl From<Exit> for ErrorClass {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Usage => Self::Definite,
            Exit::Transient => Self::Transient,
            Exit::Done | Exit::Fatal | Exit::Internal => Self::Fatal,
        }
    }
}

/// Gives an error of the brokers the exit code of its class.
pub fn kafka_failure(error: KafkaError) -> anyhow::Error {
    failure(error.class().into(), error)
}

impl std::fmt::Display for ExitError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&message(&self.cause))
    }
}

impl std::error::Error for ExitError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_shown_once() {
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
