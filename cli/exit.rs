//! Messages on standard error, and the end of the process.

use std::io::{self, IsTerminal as _, Write as _};

use keytide_worker::exit::{Exit, classify, message};
use keytide_worker::records::RecordCounts;

/// Makes every panic end the process with [`Exit::Internal`], once its message is printed. A worker that is gone would
/// leave the others waiting for ever. A process of several begins anew some times before that. The loss of another
/// process is no defect, although timely panics then.
pub(crate) fn on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        keytide_worker::run::leave_on_panic();
        report(panic);
        keytide_worker::run::leave_after_defect();
        std::process::exit(Exit::Internal as i32);
    }));
}

/// Prints an error with its causes.
#[allow(clippy::print_stderr, reason = "this is where a command's error is shown")]
pub(crate) fn report(error: &anyhow::Error) {
    eprintln!("error: {}", message(error));
}

#[allow(clippy::print_stderr, reason = "this is where a command's warning is shown")]
pub(crate) fn warn(warning: &dyn std::fmt::Display) {
    eprintln!("warning: {warning}");
}

/// Prints a note about the progress of a command.
#[allow(clippy::print_stderr, reason = "this is where a command says what it does")]
pub(crate) fn note(note: &str) {
    eprintln!("{note}");
}

/// Prints results to standard output. A reader that closes the pipe is no error, as a folder has the same text.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Ends the process by an error.
pub(crate) fn give_up(error: &anyhow::Error) -> ! {
    report(error);
    std::process::exit(classify(error) as i32)
}

/// Warns of refused records and calls without a key; returns the run's exit code. `rows` says where each has a row.
/// The warnings are left out if `shown` is true and a person reads both streams, as an overview has the same numbers.
pub(crate) fn judge(records: &RecordCounts, rows: &str, shown: bool) -> Exit {
    match records.judge(rows) {
        Ok(warnings) => {
            if !(shown && io::stderr().is_terminal()) {
                warnings.iter().for_each(|warning| warn(warning));
            }
            Exit::Done
        }
        Err(nothing) => {
            report(&anyhow::anyhow!(nothing));
            Exit::Fatal
        }
    }
}
