//! Exit codes: what a supervisor may conclude from a process that ended.

use std::process::ExitCode;

/// How a command ended. The numbers are a contract with supervisors and scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "the contract is whole, whichever of its codes the commands have use for")]
pub(crate) enum Exit {
    /// Done.
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

/// Ends the process with [`Exit::Internal`] on any panic, once its message is out: a worker that is gone would
/// leave its siblings waiting for ever.
pub(crate) fn on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::exit(Exit::Internal as i32);
    }));
}

/// Prints an error and what caused it.
#[allow(clippy::print_stderr, reason = "this is where a command's error is shown")]
pub(crate) fn report(error: &anyhow::Error) {
    eprintln!("error: {}", told(error));
}

/// Prints what a person should look at.
#[allow(clippy::print_stderr, reason = "this is where a command's warning is shown")]
pub(crate) fn warn(warning: &dyn std::fmt::Display) {
    eprintln!("warning: {warning}");
}

/// Tells what is being done, to who watches.
#[allow(clippy::print_stderr, reason = "this is where a command says what it does")]
pub(crate) fn note(note: &str) {
    eprintln!("{note}");
}

/// An error's message and those of its causes that it doesn't quote already.
fn told(error: &anyhow::Error) -> String {
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
pub(crate) fn classify(error: &anyhow::Error) -> Exit {
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
pub(crate) struct Failure {
    exit: Exit,
    cause: anyhow::Error,
}

/// Gives an error its meaning.
pub(crate) fn failure(exit: Exit, cause: impl Into<anyhow::Error>) -> anyhow::Error {
    anyhow::Error::new(Failure { exit, cause: cause.into() })
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&told(&self.cause))
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
        assert_eq!(told(&quoting), "writing failed: no space left");
        let silent = anyhow::Error::new(system()).context("writing failed");
        assert_eq!(told(&silent), "writing failed: no space left");
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
