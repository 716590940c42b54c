//! E-mail: what people are told of incidents, and how it is sent.
//!
//! ```text
//! Transition ─► view (in words, harmless) ─► templates ─┬► text, HTML ─► Mail ─► Transport ─► MailOutcome
//!                                        └► chart (PNG) ┘
//! ```
//! A [`Composer`] is pure: the same transition, recipient and date give the same bytes, so a mail that is sent again
//! is the same mail, with the same Message-ID. The mails of an incident are one thread for each [`Audience`].
//! [`Transport`] sends one mail to one recipient and says what became of it; when to try again is its caller's matter.
//!
//! Security reads all evidence. The owner of a key reads what happened to it and what to do: no scores, nothing of
//! others.

mod bars;
mod chart;
mod clean;
mod compose;
pub mod samples;
mod templates;
mod transport;
mod view;
mod words;

pub use self::bars::bars;
pub use self::chart::traffic;
pub use self::clean::{acts, begins_formula};
pub use self::compose::{ComposeError, Composer, Letter, Mail};
pub use self::templates::TemplateError;
pub use self::transport::{ANSWER, CONNECT, MailOutcome, Transport, TransportError};

use keytide_dataflow::Action;

/// Who reads a mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Audience {
    /// Those who watch over all keys.
    Security,
    /// Those whose key it is.
    Owner,
}

impl Audience {
    /// As in Message-IDs and names of files.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Security => "security",
            Self::Owner => "owner",
        }
    }
}

/// What policy asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedAction {
    pub action: Action,
    /// Why it waits; `None`: it is being done.
    pub held: Option<String>,
}

#[cfg(test)]
mod tests;
