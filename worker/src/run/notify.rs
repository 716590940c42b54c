//! Notifications of incidents: the policy decides while a tick is published, and mails go out once it is
//! acknowledged, or committed if there is a ledger.
//!
//! A mail must not name rows that can't be looked up, so a tick's notices wait until all of its rows are acknowledged.
//! The sinks bound how many wait: when their buffers are full, the next tick isn't published. Notices that wait when a
//! job fails are never sent. The job that is started next makes the same incidents again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use keytide_alerts::outbox::{Outbox, OutboxError, OutboxMonitor};
use keytide_alerts::policy::{PolicyEngine, PolicyMemory};
use keytide_config::JobConfig;
use keytide_dataflow::model::Tick;
use keytide_dataflow::{Notice, Revocation, Transition};

use super::Clock;

/// How long the end of a job waits for mails and webhooks.
const LAST_MAILS: Duration = Duration::from_secs(10);

/// Decides about incidents, and notifies of them.
pub(super) struct Notifier {
    policy: PolicyEngine,
    alerts: Outbox,
    /// Notices of ticks that aren't published, in the order of these.
    waiting: VecDeque<(Tick, Vec<Notice>)>,
}

impl Notifier {
    /// Sets up policy, mails and webhooks as configured. The policy goes on with the `memory` of an earlier life.
    ///
    /// # Errors
    /// If mails or webhooks can't be set up.
    pub(super) fn open(config: &JobConfig, clock: Clock, memory: PolicyMemory) -> Result<Self, OutboxError> {
        let alerts = Outbox::open(&config.alerts, &config.sources, Arc::new(clock))?;
        Ok(Self {
            policy: PolicyEngine::restore(config.alerts.policy, memory),
            alerts,
            waiting: VecDeque::new(),
        })
    }

    /// Returns the memory of the policy after the ticks that were published.
    pub(super) fn memory(&self) -> &PolicyMemory {
        self.policy.memory()
    }

    /// Returns the counters of mails and webhooks.
    pub(super) fn monitor(&self) -> OutboxMonitor {
        self.alerts.monitor()
    }

    /// Returns the actions that the policy takes for a tick's transitions.
    pub(super) fn decide(&mut self, transitions: &[Transition]) -> Vec<Revocation> {
        self.policy.decide(transitions)
    }

    /// Keeps a tick's notices until it is published.
    pub(super) fn keep(&mut self, tick: Tick, notices: Vec<Notice>) {
        if !notices.is_empty() {
            self.waiting.push_back((tick, notices));
        }
    }

    /// Notifies of all ticks up to this one.
    pub(super) fn published(&mut self, tick: Tick) {
        while let Some((_, notices)) = self.waiting.pop_front_if(|(waiting, _)| *waiting <= tick) {
            notices.into_iter().for_each(|notice| self.alerts.notify(notice));
        }
    }

    /// Sends waiting mails for at most [`LAST_MAILS`], and logs how many are left.
    pub(super) fn stop(self) {
        let left = self.alerts.stop(LAST_MAILS);
        if left > 0 {
            tracing::error!(
                transitions = left,
                "the job ends before all mails and webhooks went out: the view incident_log has what they would tell"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const ROW: &str = r#"{"incident_id":"0000000000000000000000000000feed","seq":0,"transition":"opened","at":"2025-06-02T08:01:00Z","reason":null,"early":false,"repeat":false,"catching_up":false,"key_id":"0123456789abcdef0123456789abcdef","subscription":null,"customer":null,"plan":null,"policy":"alert","key_state":"active","level":"alert","score":97,"state":"open","opened_at":"2025-06-02T08:00:00Z","last_signal_at":"2025-06-02T08:01:00Z","ended_at":null,"signals":[],"evidence":{"calls":1,"known_since":"2025-06-01T08:00:00Z","known_calls":9,"traffic":[],"samples":[],"taken":{"from_new":0,"usual":0,"bytes_out":0,"routes":0,"methods":[],"statuses":[],"top_routes":[]},"usual":[],"other_keys":[],"earlier":[],"config":"0011223344556677"},"reopenings":0,"platform_event":false,"detector_version":1}"#;

    fn open(folder: &Path) -> Notifier {
        let text = "[[source]]\nname = \"s\"\nkind = \"kafka\"\nbrokers = \"b:1\"\ntopic = \"t\"\nformat = \"apisix\"\n\
                    [alerts.email]\ndir = \"mails\"\nfrom = \"keytide@example.com\"\nto = [\"security@example.com\"]\n";
        let loaded = JobConfig::parse(text, folder, std::iter::empty()).unwrap();
        Notifier::open(&loaded.job, || 0, PolicyMemory::default()).unwrap()
    }

    fn notice() -> Vec<Notice> {
        vec![Notice { json: ROW.into(), contacts: Vec::new(), actions: Vec::new() }]
    }

    fn mails(folder: &Path) -> usize {
        std::fs::read_dir(folder.join("mails")).map_or(0, Iterator::count)
    }

    #[test]
    fn no_notification_precedes_the_tick_being_published() {
        let folder = tempfile::tempdir().unwrap();
        let mut notifier = open(folder.path());
        notifier.keep(5, notice());
        notifier.published(4);
        notifier.stop();
        assert_eq!(mails(folder.path()), 0);

        let mut notifier = open(folder.path());
        notifier.keep(4, notice());
        notifier.published(4);
        notifier.published(9);
        notifier.stop();
        assert_eq!(mails(folder.path()), 1);
    }
}
