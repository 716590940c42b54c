//! `keytide top` shows the busiest keys and the newest incidents on a screen, from views on disk or a running job.
//!
//! It follows the files while a job writes them, or asks a job for its page `/top.json` once a second. It shows the
//! newest window of a width that a key changes, sorted by the column that another key chooses. It writes nothing.

mod pages;
mod screen;
#[cfg(test)]
mod tests;

use std::io::{self, IsTerminal as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use keytide_config::View;
use keytide_worker::replay::usage;
use keytide_worker::top::{Top, TopState};

use self::pages::JobPages;
use self::screen::{Asked, Fresh, draw};
use crate::job::{JobAddress, token};
use crate::look::Look;
use crate::terminal::{Pressed, Screen};
use crate::views::{Follow, ViewFolder, load};

/// The views that are read, the one that must be there first.
const VIEWS: &[View] = &[View::Usage, View::Latency, View::Geo, View::Callers, View::IncidentLog];
/// Bytes that are read between two frames, so that a key is answered while a long view is read.
const BETWEEN_FRAMES: u64 = 8 << 20;
/// How long a frame stands if no key is pressed.
const FRAME: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub(crate) struct TopArgs {
    /// Folder with views, as replay writes it; the configuration of a job that writes files or serves HTTP; or the
    /// address of the job, with its scheme and port
    #[arg(value_name = "DIR|CONFIG|URL", default_value = ".")]
    from: PathBuf,
    /// Where the token of the job at URL is: env:NAME or file:PATH
    #[arg(long, value_name = "REFERENCE")]
    token: Option<String>,
}

/// The origin of what is shown.
enum Shown {
    Files { follow: Box<Follow>, state: TopState },
    Job(JobPages),
}

impl Shown {
    /// Opens the origin; returns its name, too.
    ///
    /// # Errors
    /// If it can't be read or asked.
    fn open(args: &TopArgs) -> anyhow::Result<(Self, String)> {
        let token = token(args.token.as_deref())?;
        let has_token = token.is_some();
        let job = match args.from.to_str().and_then(|text| JobAddress::parse(text, token)) {
            Some(job) => Some(job.map_err(usage)?),
            None if has_token => {
                return Err(usage(anyhow!(
                    "--token belongs to an address: a configuration names its token itself, and a folder has none"
                )));
            }
            None => job_without_files(&args.from)?,
        };
        if let Some(job) = job {
            let name = job.shown();
            return Ok((Self::Job(JobPages::follow(job)?), name));
        }
        let folder = ViewFolder::open(&args.from)?;
        let name = folder.dir().display().to_string();
        Ok((Self::Files { follow: Box::new(Follow::new(folder, VIEWS)?), state: TopState::default() }, name))
    }

    /// Takes in what is new.
    ///
    /// # Errors
    /// If a file can't be read.
    fn refresh(&mut self) -> anyhow::Result<Fresh> {
        match self {
            Self::Files { follow, state } => {
                match follow.lines(BETWEEN_FRAMES, |view, line| state.take_line(view, line))? {
                    Some(false) => Ok(Fresh::Whole),
                    Some(true) => Ok(Fresh::Reading),
                    // A replay wrote the folder anew.
                    None => {
                        *state = TopState::default();
                        Ok(Fresh::Reading)
                    }
                }
            }
            Self::Job(pages) => {
                pages.refresh();
                Ok(if pages.is_stale { Fresh::Stale } else { Fresh::Whole })
            }
        }
    }

    fn top(&self) -> &dyn Top {
        match self {
            Self::Files { state, .. } => state,
            Self::Job(pages) => &pages.newest,
        }
    }
}

/// Returns the job of a configuration that has `[http]` and no `[sink.files]`; `None` for any other file or folder.
fn job_without_files(from: &Path) -> anyhow::Result<Option<JobAddress>> {
    if !from.is_file() {
        return Ok(None);
    }
    let job = load(from)?;
    match (&job.sinks.files, &job.http) {
        (Some(_), _) => Ok(None),
        (None, Some(http)) => JobAddress::of(http).map(Some).map_err(usage),
        (None, None) => Err(usage(anyhow!(
            "{} has neither [sink.files] nor [http], so its job can't be watched: add [http], or name the folder that \
             keytide replay --out wrote to",
            from.display()
        ))),
    }
}

/// Runs the command until `q` or Ctrl-C.
pub(crate) fn run(args: &TopArgs) -> anyhow::Result<ExitCode> {
    let (mut shown, name) = Shown::open(args)?;
    let Some(look) = Look::of_terminal().filter(|look| look.has_cursor && io::stdin().is_terminal()) else {
        let instead = match &shown {
            Shown::Files { .. } => {
                "summary.json of keytide replay has the busiest keys in its member overview".to_owned()
            }
            Shown::Job(_) => format!("{name}/top.json has the busiest keys"),
        };
        return Err(usage(anyhow!(
            "keytide top needs a terminal for its screen, and not one with TERM=dumb; without it, {instead}"
        )));
    };
    let mut screen = Screen::take().map_err(usage)?;
    let mut asked = Asked::default();
    loop {
        let fresh = shown.refresh()?;
        screen
            .show(|frame| draw(shown.top(), asked, (&name, fresh), look, frame))
            .context("drawing failed")?;
        let wait = if fresh == Fresh::Reading { Duration::ZERO } else { FRAME };
        match screen.key(wait).context("reading from the terminal failed")? {
            Some(Pressed::End) => return Ok(ExitCode::SUCCESS),
            Some(Pressed::Key(key)) => asked.press(key),
            None => {}
        }
    }
}
