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
