//! Messages of this process beside its results, and its end.

use keytide_worker::exit::{Exit, classify, message};
use keytide_worker::records::RecordCounts;

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
    eprintln!("error: {}", message(error));
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

/// Ends the process by an error.
pub(crate) fn give_up(error: &anyhow::Error) -> ! {
    report(error);
    std::process::exit(classify(error) as i32)
}

/// Says what wasn't accepted and what has no key, with `rows`, a place where more stands about it; what the run ends
/// with.
pub(crate) fn judge(records: &RecordCounts, rows: &str) -> Exit {
    match records.judge(rows) {
        Ok(warnings) => {
            warnings.iter().for_each(|warning| warn(warning));
            Exit::Done
        }
        Err(nothing) => {
            report(&anyhow::anyhow!(nothing));
            Exit::Fatal
        }
    }
}
