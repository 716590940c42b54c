//! Takes the terminal for a screen that is drawn anew, reads keys, and restores it in every case.

use std::io::{self, stdout};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::{DefaultTerminal, Frame};

/// Set once a panic has restored the terminal. Nothing may be drawn over the panic's message.
static PANICKED: AtomicBool = AtomicBool::new(false);

/// A key that was pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pressed {
    End,
    #[cfg_attr(not(feature = "top"), allow(dead_code, reason = "the demo has no other keys"))]
    Key(char),
}

/// A terminal that shows frames; dropping it restores the terminal.
pub(crate) struct Screen(DefaultTerminal);

impl Screen {
    /// Takes the terminal. A panic restores it before its message is printed, see [`crate::exit::on_panic`].
    pub(crate) fn take() -> anyhow::Result<Self> {
        let screen = Self(ratatui::try_init().context("taking the terminal failed")?);
        let report = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICKED.store(true, Ordering::Release);
            let _ = execute!(stdout(), Show);
            report(panic);
        }));
        Ok(screen)
    }

    pub(crate) fn show(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        if PANICKED.load(Ordering::Acquire) {
            return Ok(());
        }
        self.0.draw(draw).map(drop)
    }

    /// Waits for a key, at most for `most`. `q` and Ctrl-C end a screen.
    pub(crate) fn key(&self, most: Duration) -> io::Result<Option<Pressed>> {
        if !event::poll(most)? {
            return Ok(None);
        }
        let Event::Key(key) = event::read()? else { return Ok(None) };
        let is_interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
        Ok(match key.code {
            _ if key.kind != KeyEventKind::Press => None,
            KeyCode::Char('q' | 'Q') => Some(Pressed::End),
            _ if is_interrupt => Some(Pressed::End),
            KeyCode::Char(key) => Some(Pressed::Key(key)),
            _ => None,
        })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.0.show_cursor();
        let _ = ratatui::try_restore();
    }
}
