//! What a demo's API is asked: whether a key may call, while the demo runs.
//!
//! It listens on a free port of this machine, without tokens. The commands that ask it are printed at the start and stand
//! on the screen. They ask about the subscription whose key is stolen, or about a busy one if there is no leak.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::Context as _;

/// The address of a demo's API, and the subscription that its user is shown.
#[derive(Clone, Debug)]
pub(super) struct Asking {
    pub(super) listen: SocketAddr,
    /// The id as the table of subscriptions has it.
    pub(super) subscription: String,
}

impl Asking {
    /// Returns the section of the configuration by which the job answers.
    pub(super) fn section(&self) -> String {
        format!(
            r#"
[api]                                      # may a key call now? gateways ask: curl http://{listen}/v1/status
listen = "{listen}"

[pages]                                    # for people: http://{listen}/
"#,
            listen = self.listen
        )
    }

    /// Returns the command that asks for one more call.
    pub(super) fn check(&self) -> String {
        let Self { listen, subscription } = self;
        format!("curl -d '{{\"subscription\":\"{subscription}\"}}' http://{listen}/v1/check")
    }

    /// Returns the command that shows how the subscription's quotas stand.
    pub(super) fn quota(&self) -> String {
        let Self { listen, subscription } = self;
        format!("curl http://{listen}/v1/subscriptions/{subscription}/quota")
    }

    /// Returns the lines that name pages for a browser.
    fn pages(&self, path: Option<&str>) -> String {
        let Self { listen, subscription } = self;
        let customer = path.map_or_else(String::new, |path| {
            format!("  as the customer of {subscription} sees it:\n  http://{listen}{path}&subscription={subscription}\n")
        });
        format!("pages    http://{listen}/ in a browser while the demo runs\n{customer}")
    }

    /// Returns the lines about the API that are printed at the start. `path` is that of the customer's page.
    pub(super) fn lines(&self, path: Option<&str>) -> String {
        let pages = self.pages(path);
        format!(
            "asks     may a key call now? http://{} answers gateways while the demo runs; in another terminal:\n  \
             {}\n  {}\n{pages}",
            self.listen,
            self.check(),
            self.quota()
        )
    }
}

/// Returns addresses of this machine that are free.
///
/// # Errors
/// If there is no free port.
pub(super) fn free_addresses<const N: usize>() -> anyhow::Result<[SocketAddr; N]> {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("there is no free port");
    // All are bound before the first is released, so that they differ.
    let mut bound = Vec::with_capacity(N);
    for _ in 0..N {
        bound.push(bind()?);
    }
    let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); N];
    for (address, listener) in addresses.iter_mut().zip(&bound) {
        *address = listener.local_addr().context("asking for a free port failed")?;
    }
    Ok(addresses)
}
