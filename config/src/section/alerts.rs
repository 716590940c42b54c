//! `[alerts.*]`: the people and services that get incidents, and what may be done about them.

use super::email::{EmailAlerts, RawEmail};
use super::policy::{PolicyRules, RawPolicy};
use super::prelude::*;
use super::webhook::{RawWebhook, Webhook};

section! {
    /// `[alerts.*]`.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub struct Alerts, RawAlerts {
        /// `[alerts.email]`; `None`: no mails.
        other email: Option<EmailAlerts> = email(RawEmail) or None;
        /// `[alerts.webhook]` or each `[[alerts.webhook]]`; names are unique.
        other webhooks: Vec<Webhook> = webhook(Sections<RawWebhook>) or Vec::new();
        /// `[alerts.policy]`.
        results policy: PolicyRules = policy(RawPolicy) or PolicyRules::default();
    }
}
