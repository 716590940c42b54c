//! SIGINT and SIGTERM, which end a command.
//!
//! A terminal signals a whole group of processes, and a supervisor passes signals on, so that one wish to end may come
//! as two signals. A signal within [`SAME`] of the one before is therefore the same, whatever its kind.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How long after a signal another one counts as the same.
const SAME: Duration = Duration::from_secs(1);

/// The signals that end a command.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    last: LastSignal,
}

/// The last signal that counted.
#[derive(Default)]
struct LastSignal(Option<Instant>);

impl LastSignal {
    /// Returns whether a signal at `now` counts.
    fn is_new(&mut self, now: Instant) -> bool {
        let is_new = self.0.is_none_or(|last| now.saturating_duration_since(last) >= SAME);
        if is_new {
            self.0 = Some(now);
        }
        is_new
    }
}

impl Signals {
    /// Takes the signals over from the system, which would kill the process. Must be called within a runtime.
    pub(crate) fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("listening to SIGTERM failed")?,
            interrupt: signal(SignalKind::interrupt()).context("listening to SIGINT failed")?,
            last: LastSignal::default(),
        })
    }

    /// Waits for the next signal that isn't the same as the one before.
    pub(crate) async fn next(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => {}
                _ = self.interrupt.recv() => {}
            }
            if self.last.is_new(Instant::now()) {
                return;
            }
            tracing::info!("a signal within a second of the one before is the same: ignored");
        }
    }
}

/// Calls `act` at each signal, on a thread of its own, until it returns false.
#[cfg(any(feature = "demo", feature = "generate"))]
pub(crate) fn on_each(mut act: impl FnMut() -> bool + Send + 'static) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("starting the runtime for signals failed")?;
    let mut signals = {
        let _context = runtime.enter();
        Signals::listen()?
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            signals.next().await;
            while act() {
                signals.next().await;
            }
        });
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_within_a_second_of_the_one_before_is_the_same() {
        let (start, mut last) = (Instant::now(), LastSignal::default());
        let at_ms = [0, 1, 999, 1_000, 1_001, 1_999, 2_000];
        let counted = at_ms.map(|ms| last.is_new(start + Duration::from_millis(ms)));
        assert_eq!(counted, [true, false, false, true, false, false, true]);
        // A clock that went back.
        let mut last = LastSignal(Some(start + SAME));
        assert!(!last.is_new(start));
    }
}
