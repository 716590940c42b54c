//! Asks a running job for its page `/top.json`.
//!
//! A thread asks once a second, so that a job that doesn't answer keeps no key from the screen.
//!
//! Limits: [`PATIENCE`] for an answer.

use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::anyhow;
use hyper::{Method, StatusCode};
use keytide_worker::replay::usage;
use keytide_worker::top::TopPage;
use tokio::runtime::Runtime;
use tokio::time::sleep;

use crate::job::{JobAddress, runtime};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long `top` waits between two questions to the job.
const PAUSE: Duration = Duration::from_secs(1);
/// The path of the page.
const PAGE: &str = "/top.json";

/// Asks a job once for its page, `/top.json`.
async fn ask(job: &JobAddress) -> anyhow::Result<TopPage> {
    let address = job.shown();
    let (status, body) = job.exchange(PATIENCE, Method::GET, PAGE, None).await?;
    let stranger = |found: &dyn std::fmt::Display| {
        usage(anyhow!(
            "{address} answers, but isn't a job of keytide run of this version: {found}; name the address of \
             its section [http]"
        ))
    };
    match status {
        StatusCode::OK => {
            serde_json::from_slice(&body).map_err(|_| stranger(&format!("{PAGE} is something else")))
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(usage(match &job.token {
            None => anyhow!(
                "the job at {address} wants its token: keytide top {address} --token env:NAME, or the job's \
                 configuration in place of the address"
            ),
            Some(_) => {
                anyhow!("the job at {address} refuses the token: it must be that of its section [http]")
            }
        })),
        status => Err(stranger(&format!("it answered {status} to {PAGE}"))),
    }
}

/// The newest page of a job, and a thread that asks for the next one.
pub(super) struct JobPages {
    pub(super) newest: TopPage,
    /// True if the last question had no answer, so that the page is an older one.
    pub(super) is_stale: bool,
    answers: Receiver<anyhow::Result<TopPage>>,
}

impl JobPages {
    /// Waits for the first page, then asks for others.
    ///
    /// # Errors
    /// If the first can't be got.
    pub(super) fn follow(job: JobAddress) -> anyhow::Result<Self> {
        let runtime = runtime()?;
        let newest = runtime.block_on(ask(&job))?;
        let (sender, answers) = sync_channel(1);
        thread::Builder::new().name("ask".to_owned()).spawn(move || {
            ask_on(&runtime, &job, |answer| sender.send(answer).is_ok());
        })?;
        Ok(Self { newest, is_stale: false, answers })
    }

    /// Takes in the answers that came.
    pub(super) fn refresh(&mut self) {
        loop {
            match self.answers.try_recv() {
                Ok(Ok(page)) => (self.newest, self.is_stale) = (page, false),
                Ok(Err(_)) | Err(TryRecvError::Disconnected) => self.is_stale = true,
                Err(TryRecvError::Empty) => return,
            }
            if self.is_stale {
                return;
            }
        }
    }
}

/// Asks until nobody wants another answer.
fn ask_on(runtime: &Runtime, job: &JobAddress, mut give: impl FnMut(anyhow::Result<TopPage>) -> bool) {
    runtime.block_on(async {
        loop {
            sleep(PAUSE).await;
            if !give(ask(job).await) {
                return;
            }
        }
    });
}
