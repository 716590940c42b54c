//! `keytide demo --act`: the job really suspends the stolen key, once a person approves that: its gateway is on probation.
//!
//! The job writes a deny list, which a gateway may read. It has a state, without which no job acts. It serves HTTP on a
//! free port of this machine. Its folder has a token for `keytide actions`, and the stolen key as its callers show it. Both are
//! worth nothing beyond the demo.

use std::fs;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::Context as _;
use keytide_config::JobConfig;
use keytide_worker::run::{ClusterView, Handle, HttpServer};

use crate::exit;
use crate::run::serve;
use crate::text::shell_word;

/// The file with the deny list.
const DENIED: &str = "denied.txt";
/// The file with the token of the person who answers.
const TOKEN: &str = "token";
/// The file with the stolen key, as its callers show it.
const STOLEN: &str = "stolen-key";

/// What a demo that acts needs beside its job.
pub(super) struct Acting {
    folder: PathBuf,
    listen: SocketAddr,
}

impl Acting {
    /// Writes token and stolen key.
    ///
    /// # Errors
    /// If the folder can't be written to.
    pub(super) fn prepare(folder: &Path, stolen: Option<String>, listen: SocketAddr) -> anyhow::Result<Self> {
        let write = |name: &str, text: String| {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| format!("can't write {}", path.display()))
        };
        // Its keys are the system's random bytes.
        let random = || RandomState::new().build_hasher().finish();
        write(TOKEN, format!("{:016x}{:016x}\n", random(), random()))?;
        if let Some(key) = stolen {
            write(STOLEN, format!("{key}\n"))?;
        }
        Ok(Self { folder: folder.to_owned(), listen })
    }

    /// Returns the sections of the configuration by which the job acts.
    pub(super) fn sections(&self) -> String {
        format!(
            r#"
[state]                                    # which keys are suspended must not be forgotten
url = "state"

[[gateway]]                                # a gateway that reads a list of keys
name = "edge"
kind = "file"
path = "{DENIED}"
mode = "live"

[http]                                     # metrics, health, and answers: keytide actions keytide.toml list
listen = "{listen}"
public_url = "http://{listen}"             # for the commands and the links in mails

[http.people]
you = "file:{TOKEN}"
"#,
            listen = self.listen
        )
    }

    /// Serves HTTP for as long as the process lives, and says how to answer.
    ///
    /// # Errors
    /// If the port is in use by now.
    pub(super) fn serve(self, config: &JobConfig, handle: &Handle) -> anyhow::Result<()> {
        let server = config.http.as_ref().map(HttpServer::bind).transpose()?;
        let job = Arc::new(OnceLock::from(handle.clone()));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let tick_ms = config.job.tick_ms;
        std::thread::Builder::new().name("http".to_owned()).spawn(move || {
            runtime.block_on(async {
                if let Some(server) = server
                    && let Err(error) = serve(server, (job, ClusterView::default()), tick_ms)
                {
                    tracing::error!("serving HTTP failed: {error:#}");
                }
                std::future::pending::<()>().await;
            });
        })?;
        let folder = shell_word(&self.folder);
        exit::print(&format!(
            "acts     {folder}/{DENIED} has the keys that a gateway is to refuse, {folder}/{STOLEN} the key that is stolen\n\
             answer   keytide actions {folder}/keytide.toml list; what it shows as held is done by approve\n"
        ))
    }
}
