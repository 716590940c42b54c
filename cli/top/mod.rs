//! `keytide top` shows the busiest keys and the newest incidents on a screen, from views on disk.
//!
//! It follows the files while a job writes them. It shows the newest window of a width that a key changes, sorted by
//! the column that another key chooses. It writes nothing and asks no job.

mod screen;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use keytide_config::View;
use keytide_worker::replay::usage;
use keytide_worker::top::TopState;

use self::screen::{Asked, draw};
use crate::look::Look;
use crate::terminal::{Pressed, Screen};
use crate::views::{Follow, ViewFolder};

/// The views that are read, the one that must be there first.
const VIEWS: &[View] = &[View::Usage, View::Latency, View::Geo, View::Callers, View::IncidentLog];
/// Bytes that are read between two frames, so that a key is answered while a long view is read.
const BETWEEN_FRAMES: u64 = 8 << 20;
/// How long a frame stands if no key is pressed.
const FRAME: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub(crate) struct TopArgs {
    /// Folder with views, as replay writes it; or the configuration of a job with [sink.files]
    #[arg(value_name = "DIR|CONFIG", default_value = ".")]
    from: PathBuf,
}

/// Runs the command until `q` or Ctrl-C.
pub(crate) fn run(args: &TopArgs) -> anyhow::Result<ExitCode> {
    let folder = ViewFolder::open(&args.from)?;
    let shown = folder.dir().display().to_string();
    let mut follow = Follow::new(folder, VIEWS)?;
    let Some(look) = Look::of_terminal().filter(|look| look.has_cursor && io::stdin().is_terminal()) else {
        return Err(usage(anyhow!(
            "keytide top needs a terminal for its screen, and not one with TERM=dumb; without it, summary.json of \
             keytide replay has the busiest keys in its member overview"
        )));
    };
    let mut screen = Screen::take().map_err(usage)?;
    let (mut state, mut asked) = (TopState::default(), Asked::default());
    loop {
        let more = match follow.lines(BETWEEN_FRAMES, |view, line| state.take(view, line))? {
            Some(more) => more,
            // A replay wrote the folder anew.
            None => {
                state = TopState::default();
                true
            }
        };
        screen.show(|frame| draw(&state, asked, (&shown, more), look, frame)).context("drawing failed")?;
        let wait = if more { Duration::ZERO } else { FRAME };
        match screen.key(wait).context("reading from the terminal failed")? {
            Some(Pressed::End) => return Ok(ExitCode::SUCCESS),
            Some(Pressed::Key(key)) => asked.press(key),
            None => {}
        }
    }
}
