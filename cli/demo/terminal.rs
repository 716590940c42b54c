//! Takes the terminal for the live view, reads keys, and restores it in every case.

use std::io::{self, stdout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use ratatui::DefaultTerminal;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;

use super::screen::{Scene, draw};

/// Set once a panic has restored the terminal. Nothing may be drawn over the panic's message.
static PANICKED: AtomicBool = AtomicBool::new(false);

/// A terminal that shows the live view; dropping it restores the terminal.
pub(super) struct Screen(DefaultTerminal);

impl Screen {
    /// Takes the terminal. A panic restores it before its message is printed, see [`crate::exit::on_panic`].
    pub(super) fn take() -> anyhow::Result<Self> {
        let screen = Self(ratatui::try_init().context("taking the terminal failed; try --headless")?);
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICKED.store(true, Ordering::Release);
            let _ = execute!(stdout(), Show);
            report(panic);
        }));
        Ok(screen)
    }

    pub(super) fn show(&mut self, scene: &Scene<'_>) -> io::Result<()> {
        if PANICKED.load(Ordering::Acquire) {
            return Ok(());
        }
        self.0.draw(|frame| draw(scene, frame)).map(drop)
    }

    /// Waits for a key, at most for `most`; returns whether it ends the demo.
    pub(super) fn end_is_requested(&self, most: Duration) -> io::Result<bool> {
        if !event::poll(most)? {
            return Ok(false);
        }
        let Event::Key(key) = event::read()? else { return Ok(false) };
        let is_interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
        Ok(key.kind == KeyEventKind::Press && (is_interrupt || matches!(key.code, KeyCode::Char('q' | 'Q'))))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.0.show_cursor();
        let _ = ratatui::try_restore();
    }
}
