//! Whether this process was told to end, known from the instant of the signal on.
//!
//! A process that begins anew must not lose a signal that comes in between. The thread that waits for signals hears of one
//! only later, and would be gone by then. So the handler itself notes it. From [`end_at_once`] on, a signal ends the
//! process where it is, with exit code 0: it has left its generation, and has nothing to finish. The next run of its program
//! has the system's handlers until it listens, and a signal kills it.

#![allow(unsafe_code, reason = "a handler of signals has no safe form")]

use std::io;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::exit::Exit;

/// The signals that end a process.
const SIGNALS: [libc::c_int; 2] = [libc::SIGTERM, libc::SIGINT];

/// True once this process was told to end.
static TOLD_TO_END: AtomicBool = AtomicBool::new(false);

/// Notes signals from now on, beside what others do about them.
///
/// # Errors
/// If the system refuses.
pub(super) fn note_signals() -> io::Result<()> {
    static NOTED: Once = Once::new();
    let mut noted = Ok(());
    NOTED.call_once(|| {
        for signal in SIGNALS {
            // SAFETY: the action stores a number and does nothing else, so it may interrupt anything.
            let action = unsafe { signal_hook_registry::register(signal, tell_to_end) };
            if let Err(error) = action {
                noted = Err(error);
            }
        }
    });
    noted
}

/// Notes that this process was told to end. Then it doesn't begin anew.
pub(in crate::run) fn tell_to_end() {
    TOLD_TO_END.store(true, Ordering::Release);
}

pub(super) fn is_told_to_end() -> bool {
    TOLD_TO_END.load(Ordering::Acquire)
}

/// Lets a signal end this process from now on, wherever it is.
pub(super) fn end_at_once() {
    extern "C" fn end(_: libc::c_int) {
        // SAFETY: the call is safe in a handler of signals, and doesn't return.
        unsafe { libc::_exit(Exit::Done as libc::c_int) }
    }
    let end: extern "C" fn(libc::c_int) = end;
    for signal in SIGNALS {
        // SAFETY: the handler is a function of the kind that the system calls, and of this program's whole life.
        unsafe { libc::signal(signal, end as libc::sighandler_t) };
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    const CHILD: &str = "KEYTIDE_TEST_OF_SIGNALS";

    fn raise() {
        // SAFETY: the handlers of this process are those above.
        assert_eq!(unsafe { libc::raise(libc::SIGTERM) }, 0);
    }

    /// Signals are for a whole process, so the test is one of its own.
    #[test]
    fn a_signal_is_known_at_once_and_later_ends_the_process() {
        if std::env::var_os(CHILD).is_some() {
            note_signals().unwrap();
            assert!(!is_told_to_end());
            raise();
            assert!(is_told_to_end());
            end_at_once();
            raise();
            panic!("the signal has ended the process");
        }
        let name = "run::cluster::told::tests::a_signal_is_known_at_once_and_later_ends_the_process";
        let program = std::env::current_exe().unwrap();
        let done = Command::new(program).args(["--exact", name]).env(CHILD, "1").output().unwrap();
        let said = String::from_utf8_lossy(&done.stdout);
        assert_eq!(done.status.code(), Some(0), "{said}");
        // The test was found, and didn't come to its end.
        assert!(said.contains("running 1 test") && !said.contains("test result"), "{said}");
    }
}
