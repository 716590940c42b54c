//! Messages for Slack's incoming webhooks: `text` for notifications, `blocks` for the channel. Each block has the commands
//! that come next, ready to be copied. None is a link that acts.
//!
//! Text of strangers can't forge links or mentions (`<!channel>`): `&`, `<` and `>` are escaped, as Slack asks for.
//! `verbatim` keeps Slack from linking text that looks like an address. Formatting and invisible characters are
//! replaced. Slack allows 3,000 characters a block.

use keytide_config::Language;
use keytide_dataflow::Change;
use keytide_dataflow::incident_row::TransitionJson;
use serde_json::{Value, json};

use super::WebhookRow;
use crate::actions::{ActionNotice, GatewayNotice};
use crate::email::{
    ActionWords, Guide, PlannedAction, action_words, acts, gateway_words, headline, other_keys, owner_name,
    owner_of, planned_words, quota_words, severity,
};
use crate::quota::QuotaNoticeRow;

/// The most characters of any one value.
const MAX_VALUE: usize = 80;
/// The most characters of a sentence that the job composed.
const MAX_SENTENCE: usize = 300;
/// The most characters of a block; Slack's limit is 3,000.
const MAX_BLOCK: usize = 2_800;
/// The most commands of a row.
const COMMANDS: usize = 3;

/// Composes the message of some rows. A row of an incident or a notice that can't be read back is left out.
pub(super) fn message(rows: &[WebhookRow], skipped: u64, guide: &Guide) -> Vec<u8> {
    let lines: Vec<String> = rows.iter().filter_map(|row| line(row, guide)).collect();
    let more = match skipped {
        0 => None,
        1 => Some("And 1 more that isn't shown: see the views incident_log, audit and notices.".to_owned()),
        skipped => Some(format!(
            "And {skipped} more that aren't shown: see the views incident_log, audit and notices."
        )),
    };
    let is_of_incidents = rows.iter().all(|row| matches!(row, WebhookRow::Incident(..)));
    let is_of_quotas = rows.iter().all(|row| matches!(row, WebhookRow::Quota(_)));
    let what = match (is_of_incidents, is_of_quotas) {
        (true, _) => "changes of incidents",
        (_, true) => "notices about quotas",
        _ => "changes",
    };
    let text = match lines.as_slice() {
        // Commands are for the channel, and too long for a notification.
        [line] if more.is_none() => line.lines().next().unwrap_or_default().to_owned(),
        _ => format!("Keytide: {} {what}", lines.len() as u64 + skipped),
    };
    let mut blocks: Vec<Value> = Vec::new();
    for text in lines.iter().chain(&more) {
        blocks
            .push(json!({ "type": "section", "text": { "type": "mrkdwn", "text": text, "verbatim": true } }));
    }
    json!({ "text": text, "blocks": blocks }).to_string().into_bytes()
}

/// Returns the line of a row, and a line for each command that comes next.
fn line(row: &WebhookRow, guide: &Guide) -> Option<String> {
    let (text, commands): (String, Vec<String>) = match row {
        WebhookRow::Incident(json, planned) => {
            let transition: TransitionJson = serde_json::from_slice(json).ok()?;
            let commands = guide.answers(&transition, planned.as_ref()).into_iter();
            let commands = commands.map(|(_, command)| command).take(COMMANDS).collect();
            (of_incident(&transition, planned.as_ref(), guide), commands)
        }
        WebhookRow::Action(notice) => {
            let commands = guide.answers_about(notice).into_iter().map(|(_, command)| command);
            (of_action(notice, guide), commands.take(COMMANDS).collect())
        }
        WebhookRow::Gateway(notice) => (of_gateway(notice), guide.list().into_iter().collect()),
        WebhookRow::Quota(json) => (of_quota(&serde_json::from_slice(json).ok()?), Vec::new()),
    };
    let mut out: String = text.chars().take(MAX_BLOCK).collect();
    for command in commands {
        let command = format!("\n`{}`", code(&command));
        // A command that is cut would be another one.
        if out.chars().count() + command.chars().count() <= MAX_BLOCK {
            out.push_str(&command);
        }
    }
    Some(out)
}

fn of_incident(row: &TransitionJson, planned: Option<&PlannedAction>, guide: &Guide) -> String {
    let what = match row.transition {
        Change::Opened => "a leak is suspected",
        Change::Raised => "more speaks for a leak",
        Change::Updated => "the leak has grown",
        Change::Reopened => "it came back",
        Change::Ended => "it is over",
        Change::Withdrawn => "it was no leak",
    };
    let owner = owner_name(row).map_or(String::new(), |owner| format!(" of {}", plain(owner, MAX_VALUE)));
    let plan = row.plan.as_deref().map_or(String::new(), |plan| format!(" ({})", plain(plan, MAX_VALUE)));
    let mut why = match (row.transition, &row.reason) {
        (Change::Withdrawn, Some(reason)) => plain(reason, MAX_SENTENCE),
        _ => plain(&headline(row, Language::En), MAX_SENTENCE),
    };
    why.push('.');
    if let Some(others) = other_keys(row, Language::En) {
        why.push_str(&format!(" {}", plain(&others, MAX_SENTENCE)));
    }
    if row.platform_event {
        why.push_str(" Many keys rose together.");
    }
    if let Some(planned) = planned.filter(|_| row.transition != Change::Withdrawn) {
        why.push_str(&format!(" Action: {}.", plain(&planned_words(planned, Language::En), MAX_SENTENCE)));
    }
    format!(
        "*{}* ({} %): {what}. Key `{}`{owner}{plan}: {why} {}, {}",
        plain(&severity(&row.level, Language::En).to_uppercase(), MAX_VALUE),
        row.score.min(100),
        plain(&row.key_id, MAX_VALUE),
        plain(&row.at, MAX_VALUE),
        incident(&row.incident_id, &row.key_id, guide),
    )
}

fn of_action(notice: &ActionNotice, guide: &Guide) -> String {
    let owner = owner_of(notice).map_or(String::new(), |owner| format!(" of {}", plain(owner, MAX_VALUE)));
    let plan = notice.plan.as_deref().map_or(String::new(), |plan| format!(" ({})", plain(plan, MAX_VALUE)));
    let ActionWords { turn, sentence } = action_words(notice, Language::En);
    format!(
        "*{turn}*: Key `{}`{owner}{plan} {}. {}",
        plain(&notice.key_id, MAX_VALUE),
        plain(&sentence, 2 * MAX_SENTENCE),
        incident(&notice.incident.to_string(), &notice.key_id, guide),
    )
}

fn of_gateway(notice: &GatewayNotice) -> String {
    format!("*LATE*: {}", plain(&gateway_words(notice, Language::En), MAX_SENTENCE))
}

fn of_quota(row: &QuotaNoticeRow) -> String {
    let name = |name: &Option<String>| name.as_deref().map(|name| plain(name, MAX_VALUE));
    let customer = name(&row.customer).map_or(String::new(), |customer| format!(" of {customer}"));
    let plan = name(&row.plan).map_or(String::new(), |plan| format!(" ({plan})"));
    format!(
        "*QUOTA*: Subscription `{}`{customer}{plan}: {}",
        plain(&row.subscription, MAX_VALUE),
        plain(&quota_words(row, Language::En), 2 * MAX_SENTENCE),
    )
}

/// Returns the link to an incident, or its id.
fn incident(incident_id: &str, key_id: &str, guide: &Guide) -> String {
    // An address has neither of the characters that would end it, as it is percent-encoded.
    let id = plain(incident_id, MAX_VALUE);
    match guide.link(incident_id, key_id).map(|address| address.replace('&', "&amp;")) {
        Some(address) => format!("<{address}|incident {id}>"),
        None => format!("incident `{id}`"),
    }
}

/// Makes a stranger's text plain: without formatting, links, mentions and control characters.
fn plain(text: &str, longest: usize) -> String {
    let mut out = String::with_capacity(text.len());
    for (index, character) in text.chars().enumerate() {
        if index == longest {
            out.push('…');
            break;
        }
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '*' | '`' | '~' | '@' => out.push('\''),
            character if acts(character) => out.push('\u{fffd}'),
            character => out.push(character),
        }
    }
    out
}

/// Escapes a command of the guide, whose names have no character that ends or formats it.
fn code(command: &str) -> String {
    command.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('`', "'")
}
