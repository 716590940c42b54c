//! Shows the progress of a bounded run on a terminal.

use std::io::{self, IsTerminal as _};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use keytide_connectors::ingest::Ingest;
use keytide_worker::replay::{Process, per_second};

use crate::exit;

/// Returns the callbacks of this process for bounded runs, which show no progress if `quiet` is true.
pub(crate) fn process(quiet: bool) -> Process {
    let watch = if quiet { |_: &Ingest, running: &Receiver<()>| wait(running) } else { show };
    Process { warn: exit::warn, watch, give_up: exit::give_up }
}

/// Waits until the workers are done.
fn wait(running: &Receiver<()>) {
    while running.recv().is_ok() {}
}

/// Shows how much of the input was read until the workers are done.
fn show(ingest: &Ingest, running: &Receiver<()>) {
    if !io::stderr().is_terminal() {
        return;
    }
    let bar = match ingest.progress().total {
        Some(total) => {
            ProgressBar::new(total).with_style(style("{bar:30} {percent:>3} %  {msg}  {eta} left"))
        }
        None => ProgressBar::new_spinner().with_style(style("{spinner} {bytes}  {msg}")),
    };
    let started = Instant::now();
    while running.recv_timeout(Duration::from_millis(100)) == Err(RecvTimeoutError::Timeout) {
        bar.set_position(ingest.progress().bytes);
        let records = ingest.counts().records();
        bar.set_message(format!(
            "{records} records, {}/s",
            per_second(records, started.elapsed().as_secs_f64())
        ));
    }
    bar.finish_and_clear();
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .expect("the templates are constants that runs have shown to be valid")
}
