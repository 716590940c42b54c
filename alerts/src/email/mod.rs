//! E-mail: composes the mails about incidents, actions, gateways and quotas, and sends them.
//!
//! ```text
//! Transition,
//! ActionNotice,
//! GatewayNotice,
//! QuotaNoticeRow ─► view (in words, harmless) ─► templates ─┬► text, HTML ─► Mail ─► Transport ─► MailOutcome
//!                                            └► chart (PNG) ┘
//! ```
//! A [`Composer`] is pure: the same transition, recipient and date give the same bytes. So a mail that is sent again has
//! the same Message-ID. The mails of an incident and of its actions form one thread for each [`Audience`]. [`Transport`]
//! sends one mail to one recipient and returns the outcome; its caller decides when to try again.
//!
//! Mails to security contain all evidence. Mails to the owner of a key say what happened to it and what to do. They
//! contain neither scores nor anything about other customers. Mails about a quota go to its subscription's contacts alone.

mod action;
mod bars;
mod chart;
mod clean;
mod compose;
mod digest;
mod evidence;
mod guide;
mod headline;
mod quota;
pub mod samples;
mod templates;
mod transport;
mod view;
mod words;

pub(crate) use self::action::{ActionWords, action_words, gateway_words, owner_of, planned_words};
pub use self::bars::bars;
pub use self::chart::traffic;
pub use self::clean::{acts, begins_formula};
pub use self::compose::{ActionLetter, ComposeError, Composer, Letter, Mail, QuotaLetter};
pub use self::digest::StormDigest;
pub(crate) use self::digest::weight;
pub use self::evidence::{ActionRow, Evidence, Step};
pub use self::guide::Guide;
pub use self::headline::{headline, other_keys};
pub(crate) use self::quota::quota_words;
pub use self::templates::TemplateError;
pub use self::transport::{ANSWER, CONNECT, MailOutcome, Transport, TransportError};
pub(crate) use self::view::owner_name;

use keytide_config::Language;
use keytide_dataflow::incident_row::TransitionJson;
use keytide_dataflow::{Action, ActionId, ActionState, Change};
use serde::{Deserialize, Serialize};

/// Returns whether an incident is over with a transition, for now or for good.
pub(crate) fn is_over(transition: &TransitionJson) -> bool {
    matches!(transition.transition, Change::Ended | Change::Withdrawn)
}

/// The kind of reader for whom a mail is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Audience {
    Security,
    /// The contacts of the key.
    Owner,
}

impl Audience {
    /// Returns the name that Message-IDs and names of files contain.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Security => "security",
            Self::Owner => "owner",
        }
    }
}

/// Returns the word for a row's level: `notice`, `alert`, or `critical` for `revoke`.
#[must_use]
pub fn severity(level: &str, language: Language) -> String {
    words::Wording(language).severity(level)
}

/// The action that says what is done about a key, as the mail of an incident announces it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedAction {
    /// The action about which people may answer; `None` if acting is off.
    pub id: Option<ActionId>,
    pub action: Action,
    /// How far it is. One that is withdrawn is never announced.
    pub state: ActionState,
    /// Says why it waits for a person, or why it failed; else empty.
    pub why: String,
    /// True if it was decided on account of this very transition.
    pub is_decision: bool,
}

impl PlannedAction {
    /// Returns whether it was decided now that a person has to decide.
    pub(crate) fn begins_to_wait(&self) -> bool {
        self.is_decision && self.id.is_some() && self.state == ActionState::Held
    }
}

#[cfg(test)]
mod tests;
