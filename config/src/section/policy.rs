//! The section `[alerts.policy]` about the actions on keys with incidents.

use super::prelude::*;

section! {
    /// The section `[alerts.policy]` of a configuration.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct PolicyRules, RawPolicy {
        /// The policy for keys that have a row and whose plan has no policy.
        results default: DefaultPolicy = default(DefaultPolicy) or DefaultPolicy::Alert;
        /// Keys within an hour that the policy may act on.
        results keys_per_hour: u32 = keys_per_hour(Count, 0..=1_000_000) or 10;
        /// The same limit in percent of the keys in use, and one key at least.
        results percent_per_hour: u32 = percent_per_hour(Count, 0..=100) or 1;
        /// How long the policy leaves a key alone after an action, in milliseconds.
        results cooldown_ms: u64 = cooldown(Millis, 0..=30 * DAY_MS) or 24 * HOUR_MS;
        /// The mode of a gateway that has none of its own.
        results mode: PolicyMode = mode(PolicyMode) or PolicyMode::DryRun;
    }
}

choice! {
    /// The most that may be done about an incident.
    #[derive(Default)]
    pub enum DefaultPolicy {
        /// The incident is recorded, and nothing else.
        Observe = "observe",
        /// Notifications are sent, and the key stays valid.
        #[default]
        Alert = "alert",
        Suspend = "suspend",
        Revoke = "revoke",
    }
}

choice! {
    /// The mode of a gateway.
    #[derive(Default)]
    pub enum PolicyMode {
        /// The actions that would be taken are shown.
        #[default]
        DryRun = "dry_run",
        /// Actions are taken by the gateway.
        Live = "live",
    }
}
