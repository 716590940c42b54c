//! Shows the progress of a run on a terminal.

use std::cell::Cell;
use std::io::{self, IsTerminal as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::world::settings::WorldSettings;

/// The number of lines between two looks at the clock.
const LINES: u64 = 4_096;
const REDRAWN: Duration = Duration::from_millis(100);

/// Counts lines and shows the progress of a run by event time.
pub(crate) struct RunProgress {
    bar: ProgressBar,
    start_ms: u64,
    began: Instant,
    lines: Cell<u64>,
}

impl RunProgress {
    /// Starts the display and the clock.
    pub(crate) fn new(settings: &WorldSettings) -> Self {
        let bar = if io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{bar:30} {percent:>3} %  {msg}  {eta} left")
                .expect("the template is a constant that a run has shown to be right");
            let bar = ProgressBar::new(settings.span_ms).with_style(style);
            bar.enable_steady_tick(REDRAWN);
            bar
        } else {
            ProgressBar::hidden()
        };
        Self { bar, start_ms: settings.start_ms, began: Instant::now(), lines: Cell::new(0) }
    }

    /// Counts a line with its event time.
    pub(crate) fn at(&self, at_ms: u64) {
        let lines = self.lines.get() + 1;
        self.lines.set(lines);
        if lines.is_multiple_of(LINES) {
            self.show(at_ms);
        }
    }

    /// Updates the display to an event time.
    pub(crate) fn show(&self, at_ms: u64) {
        if !self.bar.is_hidden() {
            let lines = self.lines.get();
            self.bar.set_position(at_ms.saturating_sub(self.start_ms));
            self.bar.set_message(format!("{lines} lines, {}/s", per_second(lines, self.seconds())));
        }
    }

    /// Returns the seconds since the start.
    pub(crate) fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// Removes the bar from the terminal.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

/// Returns the mean of `count` per second.
pub fn per_second(count: u64, seconds: f64) -> u64 {
    crate::draw::whole(count as f64 / seconds.max(1e-9))
}
