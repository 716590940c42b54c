//! Messages for Slack's incoming webhooks: `text` for notifications, `blocks` for the channel.
//!
//! Text of strangers can't forge links or mentions (`<!channel>`): `&`, `<` and `>` are escaped, as Slack asks for.
//! `verbatim` keeps Slack from linking text that looks like an address. Formatting and invisible characters are
//! replaced. Slack allows 3,000 characters a block.

use keytide_dataflow::Change;
use keytide_dataflow::incident_row::TransitionJson;
use serde_json::{Value, json};

use crate::email::acts;

/// The most characters of any one value.
const MAX_VALUE: usize = 80;
/// The most characters of a block; Slack's limit is 3,000.
const MAX_BLOCK: usize = 2_800;
/// The most signals that a line names.
const MAX_SIGNALS: usize = 3;

pub(super) fn message(rows: &[TransitionJson], skipped: u64) -> Vec<u8> {
    let lines: Vec<String> = rows.iter().map(line).collect();
    let more = match skipped {
        0 => None,
        1 => Some("And 1 more that isn't shown: see the view incident_log.".to_owned()),
        skipped => Some(format!("And {skipped} more that aren't shown: see the view incident_log.")),
    };
    let text = match lines.as_slice() {
        [line] if more.is_none() => line.clone(),
        _ => format!("Keytide: {} changes of incidents", rows.len() as u64 + skipped),
    };
    let mut blocks: Vec<Value> = Vec::new();
    for line in lines.iter().chain(&more) {
        let text: String = line.chars().take(MAX_BLOCK).collect();
        blocks
            .push(json!({ "type": "section", "text": { "type": "mrkdwn", "text": text, "verbatim": true } }));
    }
    json!({ "text": text, "blocks": blocks }).to_string().into_bytes()
}

fn line(row: &TransitionJson) -> String {
    let what = match row.transition {
        Change::Opened => "opened",
        Change::Raised => "rose",
        Change::Updated => "grew",
        Change::Reopened => "came back",
        Change::Ended => "is over",
        Change::Withdrawn => "was withdrawn",
    };
    let owner = row.customer.as_deref().or(row.subscription.as_deref());
    let owner = owner.map_or(String::new(), |owner| format!(" of {}", plain(owner)));
    let plan = row.plan.as_deref().map_or(String::new(), |plan| format!(" ({})", plain(plan)));
    let mut signals: Vec<String> =
        row.signals.iter().take(MAX_SIGNALS).map(|signal| plain(&signal.signal)).collect();
    if let Some(rest) = row.signals.len().checked_sub(MAX_SIGNALS).filter(|rest| *rest > 0) {
        signals.push(format!("{rest} more"));
    }
    let why = match (row.transition, &row.reason) {
        (Change::Withdrawn, Some(reason)) => plain(reason),
        _ => format!("{} %: {}", row.score, signals.join(", ")),
    };
    let platform = if row.platform_event { "; many keys rose together" } else { "" };
    format!(
        "*{}* incident {what}: key `{}`{owner}{plan}; {why}{platform}; at {}; incident `{}`",
        plain(&row.level.to_uppercase()),
        plain(&row.key_id),
        plain(&row.at),
        plain(&row.incident_id)
    )
}

/// Makes a stranger's text plain: without formatting, links, mentions and control characters.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (index, character) in text.chars().enumerate() {
        if index == MAX_VALUE {
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
