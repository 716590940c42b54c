//! `keytide incident ID` shows the evidence of an incident from views on disk, in the words of the mails.
//!
//! One pass over `incident_log` finds the rows of the incident, one over `revocations` its actions. An id may be cut
//! to its first digits. If it isn't found, the nearest ids are named, and so are incidents of a key of that id.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{anyhow, bail};
use keytide_alerts::email::{ActionRow, Evidence, Guide, Step};
use keytide_config::{JobConfig, SourceKind, View};
use keytide_connectors::file::resolve;
use keytide_dataflow::incident_row::TransitionJson;
use keytide_worker::replay::usage;
use serde::Deserialize;

use crate::exit;
use crate::look::Look;
use crate::text::{counted, json};
use crate::views::ViewFolder;

/// The fewest digits of an id.
const LEAST: usize = 4;
/// The digits of a whole id.
const WHOLE: usize = 32;
/// Ids that are named instead of one that isn't found, or that begin alike, at most.
const NAMED: usize = 5;
/// Wrong digits of an id that is still near, at most.
const NEAR: usize = 3;
/// Columns that a page uses, at most.
const MOST_COLUMNS: usize = 100;

#[derive(clap::Args)]
pub(crate) struct IncidentArgs {
    /// The incident's id as views and mails have it; its first 4 digits do if no other id has them
    id: String,
    /// Folder with views, as replay and backtest write it; or the configuration of a job with [sink.files]
    #[arg(long, value_name = "DIR|CONFIG", default_value = ".")]
    from: PathBuf,
    /// Print the rows as JSON
    #[arg(long)]
    json: bool,
}

/// The columns of a row of `incident_log` by which it is found.
#[derive(Deserialize)]
struct Head {
    incident_id: String,
    key_id: String,
    seq: u32,
    #[serde(flatten)]
    step: Step,
}

/// The rows of one incident.
#[derive(Default)]
struct IncidentRows {
    /// The line with the highest number.
    newest: Vec<u8>,
    history: BTreeMap<u32, Step>,
}

/// Ids that were found for the one that was asked for.
struct Search {
    asked: String,
    /// Incidents whose ids begin with it, at most [`NAMED`].
    matching: BTreeMap<String, IncidentRows>,
    /// Ids with few other digits, nearest first.
    near: Vec<(usize, String)>,
    /// Incidents of a key whose id begins with it, newest last.
    of_key: Vec<String>,
    incidents: u64,
    last: String,
}

impl Search {
    fn new(asked: &str) -> anyhow::Result<Self> {
        let asked = asked.trim().to_ascii_lowercase();
        let is_id =
            asked.bytes().all(|byte| byte.is_ascii_hexdigit()) && (LEAST..=WHOLE).contains(&asked.len());
        if !is_id {
            return Err(usage(anyhow!(
                "this is no id of an incident: it has 32 hexadecimal digits, of which the first {LEAST} are enough if \
                 no other incident has them"
            )));
        }
        Ok(Self {
            asked,
            matching: BTreeMap::new(),
            near: Vec::new(),
            of_key: Vec::new(),
            incidents: 0,
            last: String::new(),
        })
    }

    /// Takes in a row of `incident_log`; other lines are passed over.
    fn take(&mut self, line: &[u8]) {
        let Ok(Head { incident_id, key_id, seq, step }) = serde_json::from_slice::<Head>(line) else {
            return;
        };
        if incident_id.starts_with(&self.asked) {
            if self.matching.len() == NAMED && !self.matching.contains_key(&incident_id) {
                return;
            }
            let rows = self.matching.entry(incident_id).or_default();
            // A job that was started again publishes the same rows again.
            if rows.history.last_key_value().is_none_or(|(newest, _)| *newest <= seq) {
                rows.newest = line.to_vec();
            }
            rows.history.insert(seq, step);
            return;
        }
        // Rows of an incident mostly follow each other.
        if incident_id == self.last {
            return;
        }
        self.incidents += 1;
        if key_id.starts_with(&self.asked) && !self.of_key.contains(&incident_id) {
            self.of_key.push(incident_id.clone());
            if self.of_key.len() > NAMED {
                self.of_key.remove(0);
            }
        }
        let wrong =
            strsim::levenshtein(&self.asked, incident_id.get(..self.asked.len()).unwrap_or(&incident_id));
        if wrong <= NEAR.min(self.asked.len() / 3) && !self.near.iter().any(|(_, id)| *id == incident_id) {
            self.near.push((wrong, incident_id.clone()));
            self.near.sort();
            self.near.truncate(NAMED);
        }
        self.last = incident_id;
    }

    /// Returns the only incident whose id begins with what was asked for.
    ///
    /// # Errors
    /// If there is none or several.
    fn finish(mut self, dir: &str) -> anyhow::Result<(String, IncidentRows)> {
        let asked = &self.asked;
        if self.matching.len() > 1 {
            let ids: Vec<&str> = self.matching.keys().map(String::as_str).collect();
            bail!("several incidents begin with {asked}: {}; give more digits", ids.join(", "))
        }
        if let Some(incident) = self.matching.pop_first() {
            return Ok(incident);
        }
        let near: Vec<&str> = self.near.iter().map(|(_, id)| id.as_str()).collect();
        let hint = if !self.of_key.is_empty() {
            format!("it is the id of a key, of which there are: {}", self.of_key.join(", "))
        } else if !near.is_empty() {
            format!("did you mean {}?", near.join(" or "))
        } else if self.incidents == 0 {
            "the log there is empty, as no key was suspected".to_owned()
        } else {
            "incidents.jsonl there lists all; name another folder with --from".to_owned()
        };
        bail!("{dir} has no incident {asked}: {hint}")
    }
}

pub(crate) fn run(args: &IncidentArgs) -> anyhow::Result<ExitCode> {
    let mut search = Search::new(&args.id)?;
    let folder = ViewFolder::open(&args.from)?;
    let shown = folder.dir().display().to_string();
    let too_long = folder.lines(View::IncidentLog, |line| search.take(line))?;
    if too_long > 0 {
        exit::warn(&format!(
            "{} of {shown} are too long to be rows, and passed over",
            counted(too_long, "line", "lines")
        ));
    }
    let (id, IncidentRows { newest, history }) = search.finish(&shown).map_err(usage)?;
    let actions = actions(&folder, &id)?;
    let history: Vec<Step> = history.into_values().collect();
    if args.json {
        let all = serde_json::json!({
            "incident": serde_json::from_slice::<serde_json::Value>(&newest)?,
            "history": history,
            "revocations": actions,
        });
        exit::print(&json(&all)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let newest: TransitionJson = serde_json::from_slice(&newest).map_err(|error| {
        usage(anyhow!(
            "the newest row of incident {id} in {shown} can't be read: {error}; another version wrote it"
        ))
    })?;
    let guide = folder.job.as_ref().map(guide).unwrap_or_default();
    let look = Look::of_terminal().unwrap_or(Look::plain());
    let evidence = Evidence { newest: &newest, history: &history, actions: &actions, guide: &guide };
    let mut page = styled(&evidence.page(look.width.min(MOST_COLUMNS))?, &newest.level, look);
    if let (Some(why), false) = (&folder.why_no_job, newest.evidence.samples.is_empty()) {
        page.push_str(&format!("\nNo command shows the records, as the configuration isn't known: {why}\n"));
    }
    exit::print(&look.letters(page))?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the newest row of each action of an incident, oldest first.
fn actions(folder: &ViewFolder, incident: &str) -> anyhow::Result<Vec<ActionRow>> {
    // A job that took no action has no file.
    if folder.files(View::Revocations).is_err() {
        return Ok(Vec::new());
    }
    let mut actions: BTreeMap<String, ActionRow> = BTreeMap::new();
    folder.lines(View::Revocations, |line| {
        if let Ok(row) = serde_json::from_slice::<ActionRow>(line)
            && row.incident_id == incident
        {
            actions.insert(row.action_id.clone(), row);
        }
    })?;
    let mut actions: Vec<ActionRow> = actions.into_values().collect();
    actions.sort_by(|a, b| a.at.cmp(&b.at));
    Ok(actions)
}

/// Returns the guide of a job, which knows the files of patterns as they are now.
fn guide(job: &JobConfig) -> Guide {
    let guide = Guide::new(&job.alerts, &job.sources);
    job.sources.iter().fold(guide, |guide, source| match &source.kind {
        SourceKind::File { pattern } if pattern.contains(['*', '?', '[']) => match resolve(pattern) {
            Ok(files) => {
                let paths = files.iter().map(|file| file.path().unwrap_or_default().to_owned());
                guide.with_files(&source.name, paths.collect())
            }
            Err(_) => guide,
        },
        _ => guide,
    })
}

/// Makes headings bold, and the first lines of a grave incident red.
fn styled(page: &str, level: &str, look: Look) -> String {
    let mut first = true;
    let lines = page.lines().map(|line| {
        first &= !line.is_empty();
        let is_heading = !line.is_empty() && line.chars().all(|c| c.is_ascii_uppercase() || c == ' ');
        match (first, level) {
            (true, "revoke") => look.red(line),
            (true, _) => look.bold(line),
            _ if is_heading => look.bold(line),
            _ => line.to_owned(),
        }
    });
    lines.map(|line| line + "\n").collect()
}
