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
    eprintln!("error: {error:#}");
}

/// What an error means to whoever started the process.
pub(crate) fn classify(error: &anyhow::Error) -> Exit {
    error.downcast_ref::<Failure>().map_or(Exit::Transient, |failure| failure.exit)
}

/// An error whose meaning to a supervisor is known.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    cause: anyhow::Error,
}

impl Failure {
    /// Gives an error its meaning.
    pub(crate) fn new(exit: Exit, cause: impl Into<anyhow::Error>) -> anyhow::Error {
        anyhow::Error::new(Self { exit, cause: cause.into() })
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#}", self.cause)
    }
}

impl std::error::Error for Failure {}
