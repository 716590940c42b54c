//! The evidence of an incident as a page for a terminal, in the words of the mails to security.
//!
//! It is made of published rows alone: the newest of the incident's rows of `incident_log`, the times of its other
//! transitions, and its rows of `revocations`.

use keytide_config::Language;
use keytide_dataflow::Change;
use keytide_dataflow::incident_row::TransitionJson;
use serde::{Deserialize, Serialize};

use super::Audience;
use super::clean::{REASON, line};
use super::guide::Guide;
use super::templates::{MailTemplates, TemplateError};
use super::view::IncidentView;
use super::words::Wording;

/// Transitions that a page lists, at most.
const HISTORY: usize = 50;

/// A transition of an incident, as its history lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The event time, RFC 3339.
    pub at: String,
    pub transition: Change,
    /// The highest severity reached by then, as rows name it.
    pub level: String,
}

/// A row of `revocations`, as sinks publish it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionRow {
    pub action_id: String,
    pub incident_id: String,
    pub action: String,
    pub state: String,
    /// A clause that says what would have been done, and why it is held.
    pub reason: String,
    pub at: String,
}

/// The rows of an incident.
#[derive(Clone, Copy, Debug)]
pub struct Evidence<'a> {
    /// The newest transition, whose row has all evidence.
    pub newest: &'a TransitionJson,
    /// All transitions, in their order.
    pub history: &'a [Step],
    /// The newest row of each action.
    pub actions: &'a [ActionRow],
    pub guide: &'a Guide,
}

#[derive(Serialize)]
struct EvidenceView {
    #[serde(flatten)]
    incident: IncidentView,
    history: Vec<StepView>,
    actions: Vec<ActionView>,
    /// The sentence that stands in place of actions, if there are none.
    why_no_action: String,
}

#[derive(Serialize)]
struct StepView {
    at: String,
    change: String,
}

#[derive(Serialize)]
struct ActionView {
    at: String,
    text: String,
}

impl Evidence<'_> {
    /// Renders the page in lines of at most `columns` columns. A word that is longer is broken, a command isn't.
    ///
    /// # Errors
    /// If the template that comes with the program is broken.
    pub fn page(&self, columns: usize) -> Result<String, TemplateError> {
        let Self { newest, history, actions, guide } = *self;
        let english = Wording(Language::En);
        let left_out = history.len().saturating_sub(HISTORY);
        let steps = history.iter().skip(left_out).map(|step| StepView {
            at: english.time(&step.at),
            change: format!("{}, {}", step.transition.name(), english.severity(&step.level)),
        });
        let actions = actions
            .iter()
            .map(|action| ActionView { at: english.time(&action.at), text: line(&action.reason, REASON) });
        let view = EvidenceView {
            incident: IncidentView::new(newest, None, Audience::Security, english, guide),
            history: steps.collect(),
            actions: actions.collect(),
            why_no_action: why_no_action(newest, english),
        };
        MailTemplates::evidence(&view, columns)
    }
}

/// Returns why the policy did nothing about a key.
fn why_no_action(newest: &TransitionJson, english: Wording) -> String {
    let policy = english.policy(newest.policy.as_deref());
    let why = match (newest.key_state.as_deref(), newest.policy.as_deref(), newest.level.as_str()) {
        (None, ..) => "the key has no row in the table of keys, so no policy acts on it".to_owned(),
        (Some("revoked"), ..) => "the key is revoked already".to_owned(),
        (_, Some("observe" | "alert"), _) => format!("the plan's policy is to {policy}"),
        (_, _, "revoke") => format!("the policy is to {policy}, and it asked for no action"),
        (_, _, level) => {
            format!(
                "it acts on critical incidents only, and this one is of severity {}",
                english.severity(level)
            )
        }
    };
    format!("Nothing: {}.", line(&why, REASON))
}
