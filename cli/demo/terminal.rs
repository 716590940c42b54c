//! The terminal: taken, asked for keys, and given back whatever happens.

use std::io::{self, stdout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use ratatui::DefaultTerminal;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;

use super::screen::{Scene, draw};

/// The terminal was given back by a panic: nothing may be drawn over what is told of it.
static PANICKED: AtomicBool = AtomicBool::new(false);

/// A terminal that shows the live view; dropping it gives it back.
pub(super) struct Screen(DefaultTerminal);

impl Screen {
    /// Takes the terminal. A panic gives it back before it is told: see [`crate::exit::on_panic`].
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

    /// Shows a scene.
    pub(super) fn show(&mut self, scene: &Scene<'_>) -> io::Result<()> {
        if PANICKED.load(Ordering::Acquire) {
            return Ok(());
        }
        self.0.draw(|frame| draw(scene, frame)).map(drop)
    }

    /// Waits for a key, at most so long; whether it says to end.
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
