//! `[alerts.policy]`: the actions on keys that incidents lead to.

use super::prelude::*;

section! {
    /// `[alerts.policy]`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct PolicyRules, RawPolicy {
        /// The policy for keys that have a row and whose plan has none.
        results default: DefaultPolicy = default(DefaultPolicy) or DefaultPolicy::Alert;
        /// Keys within an hour that may be acted on.
        results keys_per_hour: u32 = keys_per_hour(Count, 0..=1_000_000) or 10;
        /// The same as percentage of the keys that are in use; at least one key.
        results percent_per_hour: u32 = percent_per_hour(Count, 0..=100) or 1;
        /// How long a key that was acted on is left alone, in milliseconds.
        results cooldown_ms: u64 = cooldown(Millis, 0..=30 * DAY_MS) or 24 * HOUR_MS;
        /// The mode, which says if anything is done.
        results mode: PolicyMode = mode(PolicyMode) or PolicyMode::DryRun;
    }
}

choice! {
    /// The most that may be done about an incident.
    #[derive(Default)]
    pub enum DefaultPolicy {
        /// The incident is recorded, and nothing else.
        Observe = "observe",
        /// People are alerted.
        #[default]
        Alert = "alert",
        /// The key is suspended.
        Suspend = "suspend",
        /// The key is revoked.
        Revoke = "revoke",
    }
}

choice! {
    /// The mode of the policy.
    #[derive(Default)]
    pub enum PolicyMode {
        /// It says what it would do.
        #[default]
        DryRun = "dry_run",
    }
    later ["live"];
    why "this version says what it would do about a key and does nothing";
}
