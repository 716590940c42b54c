//! Messages for Slack's incoming webhooks: `text` for notifications, `blocks` for the channel.
//!
//! Text of strangers can't forge links or mentions (`<!channel>`): `&`, `<` and `>` are escaped, as Slack asks for.
//! `verbatim` keeps Slack from linking text that looks like an address. Formatting and invisible characters are
//! replaced. Slack allows 3,000 characters a block.

use keytide_config::{Language, LinkTemplate};
use keytide_dataflow::Change;
use keytide_dataflow::incident_row::TransitionJson;
use serde_json::{Value, json};

use crate::email::{acts, headline, other_keys, owner_name, severity};

/// The most characters of any one value.
const MAX_VALUE: usize = 80;
/// The most characters of a sentence that the job composed.
const MAX_SENTENCE: usize = 300;
/// The most characters of a block; Slack's limit is 3,000.
const MAX_BLOCK: usize = 2_800;

pub(super) fn message(rows: &[TransitionJson], skipped: u64, link: Option<&LinkTemplate>) -> Vec<u8> {
    let lines: Vec<String> = rows.iter().map(|row| line(row, link)).collect();
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

fn line(row: &TransitionJson, link: Option<&LinkTemplate>) -> String {
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
    // An address has neither of the characters that would end it, as it is percent-encoded.
    let incident = plain(&row.incident_id, MAX_VALUE);
    let incident = match link.map(|link| link.fill(&row.incident_id, &row.key_id).replace('&', "&amp;")) {
        Some(address) => format!("<{address}|incident {incident}>"),
        None => format!("incident `{incident}`"),
    };
    format!(
        "*{}* ({} %): {what}. Key `{}`{owner}{plan}: {why} {}, {incident}",
        plain(&severity(&row.level, Language::En).to_uppercase(), MAX_VALUE),
        row.score.min(100),
        plain(&row.key_id, MAX_VALUE),
        plain(&row.at, MAX_VALUE),
    )
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
