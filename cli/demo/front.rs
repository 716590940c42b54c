//! The output of a running demo: the live view, or a line a second.

use std::io::{self, Write as _};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use anyhow::Context as _;

use super::screen::{Phase, Scene, draw};
use super::world::HISTORY_MS;
use crate::terminal::{Pressed, Screen};
use crate::text::{grouped, span, stopwatch};

/// Shows a demo as a live view or as lines.
pub(super) enum Front {
    Screen(Screen),
    Lines {
        /// Seconds for which a line was printed.
        printed: u64,
    },
}

impl Front {
    /// Shows the present scene; `lines` are events since the last call.
    pub(super) fn show(&mut self, scene: &Scene<'_>, lines: Vec<String>) -> anyhow::Result<()> {
        match self {
            Self::Screen(screen) => {
                screen.show(|frame| draw(scene, frame)).context("drawing on the terminal failed")
            }
            Self::Lines { printed } => {
                let mut out = io::stdout().lock();
                for lines in lines {
                    writeln!(out, "{}  {lines}", stopwatch(scene.elapsed_ms))
                        .context("can't write to standard output")?;
                }
                let seconds = scene.elapsed_ms / 1_000;
                if scene.phase == Phase::Ending || seconds <= *printed {
                    return Ok(());
                }
                *printed = seconds;
                writeln!(out, "{}", line(scene)).context("can't write to standard output")
            }
        }
    }

    /// Waits for a signal or a key, at most for `most`; returns whether it ends the demo.
    pub(super) fn end_is_requested(&self, signals: &Receiver<()>, most: Duration) -> anyhow::Result<bool> {
        match self {
            Self::Screen(screen) => {
                let key = screen.key(most).context("reading from the terminal failed")?;
                let key = key == Some(Pressed::End);
                Ok(key || signals.try_recv().is_ok())
            }
            Self::Lines { .. } => match signals.recv_timeout(most) {
                Ok(()) => Ok(true),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Ok(false),
            },
        }
    }
}

fn line(scene: &Scene<'_>) -> String {
    let view = scene.view;
    let total = view.total();
    if let Phase::Reading(percent) = scene.phase {
        let hours = HISTORY_MS / 3_600_000;
        return format!(
            "{}  reads {hours} hours of history, from which the detector learns: {percent} %  events {}",
            stopwatch(scene.elapsed_ms),
            grouped(total.events),
        );
    }
    let watermark = match scene.watermark {
        0 => "-".to_owned(),
        watermark => span(scene.now.saturating_sub(watermark)),
    };
    let top = view.top_keys(1).into_iter().next();
    let top = top.map_or_else(String::new, |top| {
        format!("  top key {} ({} calls a minute)", top.key, grouped(top.recent.calls))
    });
    format!(
        "{}  {:>7} calls/s  lag {}  watermark {watermark} behind  events {}  duplicates {}  late {}  dead letters {}{top}",
        stopwatch(scene.elapsed_ms),
        grouped(view.rates(1).last().copied().unwrap_or(0)),
        grouped(scene.unread),
        grouped(total.events),
        grouped(total.duplicates),
        grouped(total.late),
        grouped(total.dead_letters),
    )
}
