//! The last lines of a demo: its counts, its files, and commands to try next.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use keytide_config::View;
use keytide_generator::Generated;
use serde_json::json;

use super::incidents::IncidentList;
use super::view::QuotaLine;
use super::{Demo, Staged, lock, whole_ms};
use crate::text::{grouped, shell_word, short_id, stopwatch};

/// A part of the names of mails about quotas.
const CUSTOMER: &str = ".customer-";

/// Prints the summary, and writes it to `summary.json` for programs.
pub(super) fn print(demo: &Demo<'_>, sent: &Generated) -> anyhow::Result<()> {
    let mut view = lock(&demo.view);
    view.incidents.look_for_mails(demo.folder);
    let (counted, sinks) = (view.total(), demo.handle.sinks.stats());
    let wall_ms = whole_ms(demo.started.elapsed());
    let quota = view.quota_of(&demo.asking.subscription);
    let rows: serde_json::Map<_, _> = View::ALL
        .into_iter()
        .map(|view| (view.name().to_owned(), sinks.records[view as usize].into()))
        .collect();
    let summary = json!({
        "sent": sent,
        "events": counted.events,
        "duplicates": counted.duplicates,
        "late": counted.late,
        "dead_letters": counted.dead_letters,
        "usage_calls": view.usage_calls(),
        "stolen_key": demo.staged.key.as_ref().filter(|_| sent.leak_calls > Some(0)),
        "incidents": view.incidents.count,
        "held_actions": view.incidents.held_actions,
        "mails": view.incidents.mails,
        "notices": view.quotas.notices,
        "quota": quota.as_ref().map(|line| json!({
            "subscription": line.subscription,
            "metric": line.quota.measure.name(),
            "period": line.quota.period.name(),
            "used": line.quota.standing.used,
            "limit": line.quota.standing.limit,
            "bill": line.bill,
        })),
        "rows": rows,
        "wall_s": wall_ms / 1_000,
    });
    let path = demo.folder.join("summary.json");
    fs::write(&path, format!("{summary:#}\n")).with_context(|| format!("can't write {}", path.display()))?;

    let folder = shell_word(demo.folder);
    let program = program(std::env::args_os().next());
    let mut text = String::new();
    writeln!(
        text,
        "\nsent     {} calls; {} records sent again, {} broken",
        grouped(sent.events),
        grouped(sent.duplicates),
        grouped(sent.broken),
    )?;
    writeln!(
        text,
        "counted  {} calls, {} of them late; {} duplicates, {} dead letters",
        grouped(counted.events),
        grouped(counted.late),
        grouped(counted.duplicates),
        grouped(counted.dead_letters),
    )?;
    writeln!(
        text,
        "in       {}, {} rows published",
        stopwatch(wall_ms),
        grouped(sinks.records.iter().sum())
    )?;
    if let Some(top) = view.top_keys(1).first() {
        writeln!(
            text,
            "top key  {} of {}: {} calls in the last minute",
            top.key,
            top.customer,
            grouped(top.recent.calls)
        )?;
    }
    leaks(&mut text, &demo.staged, sent.leak_calls.unwrap_or(0), &view.incidents)?;
    if let Some(line) = &quota {
        writeln!(text, "{}", quota_lines(line))?;
    }
    let newest = newest(&demo.folder.join("views"));
    let mut evidence = String::new();
    if view.incidents.count > 0 {
        let newest = view.incidents.all.last().map(|incident| short_id(&incident.last.incident_id));
        let newest = newest.unwrap_or_default();
        writeln!(evidence, "  {program} incident {newest} --from keytide.toml")?;
    }
    let first = view.incidents.first_mail();
    if let Some(mail) = first {
        writeln!(evidence, "  head -n 60 {}", mail.display())?;
    }
    if let Some(mail) = view.incidents.first_mail_of(CUSTOMER).filter(|mail| Some(*mail) != first) {
        writeln!(evidence, "  head -n 60 {}", mail.display())?;
    }
    if let Some(QuotaLine { subscription, bill: Some(_), .. }) = &quota {
        writeln!(evidence, "  grep -h {subscription} views/bills-*.jsonl | tail -n 1")?;
    }
    let mails = match view.incidents.mails.len() {
        0 => "",
        _ => "  mails/                 the mails, as they would have been sent\n",
    };
    write!(
        text,
        "
files in {folder}
  keytide.toml           the job's configuration
  tables/  geo/          whose keys they are, where addresses are
  views/                 every row as it was published, a series of files a view
{mails}  demo.log summary.json  what the job said, these numbers

try next
  cd {folder}
  head -n 2 views/{newest}
{evidence}  {program} check keytide.toml
  {program} generate --out traffic --scenario mixed
  {program} replay traffic/keytide.toml --out replayed
"
    )?;
    io::stdout().lock().write_all(text.as_bytes()).context("can't write to standard output")
}

/// Returns what is said of a quota and the bill of its subscription.
fn quota_lines(QuotaLine { subscription, customer, quota, bill }: &QuotaLine) -> String {
    let limit = if quota.standing.hard { "a hard limit" } else { "a limit" };
    let customer = if customer.is_empty() { String::new() } else { format!(" of {customer}") };
    let bill =
        bill.as_ref().map_or_else(String::new, |bill| format!("\nbill     {subscription}: {bill} so far"));
    format!(
        "quota    {subscription}{customer}: {} of its {} are used, {} of {limit}{bill}",
        quota.used(),
        quota.period(),
        quota.share()
    )
}

/// Writes which key was stolen, the incidents, and the first mail.
pub(super) fn leaks(
    text: &mut String,
    staged: &Staged,
    leak_calls: u64,
    incidents: &IncidentList,
) -> std::fmt::Result {
    let Some(stolen) = &staged.key else {
        return writeln!(
            text,
            "leaks    none: no key is judged in its first day; with --duration 60s there is a history, and a leak"
        );
    };
    let short: String = stolen.chars().take(8).collect();
    match leak_calls {
        0 => writeln!(text, "stolen   no key: it ended before key {short} would have been")?,
        calls => writeln!(
            text,
            "stolen   key {short}: somebody in another country called with it, too, {} times, 8 times a second",
            grouped(calls)
        )?,
    }
    if leak_calls > 0 && !incidents.contains(stolen) {
        writeln!(text, "found    not yet: it ended before the minute in which that began was over")?;
    }
    for incident in &incidents.all {
        writeln!(
            text,
            "found    key {} of {}: {}\n         {}",
            incident.key(),
            incident.customer(),
            incident.severity(),
            incident.headline()
        )?;
        for action in &incident.actions {
            writeln!(text, "         {action}")?;
        }
    }
    if let Some(mail) = incidents.first_mail() {
        writeln!(text, "mail     {} and {} more", mail.display(), incidents.mails.len() - 1)?;
    }
    Ok(())
}

/// Returns the program as it was invoked, as a word of a shell; a relative path is made absolute, as the commands run
/// in the demo's folder.
fn program(invoked: Option<OsString>) -> String {
    let invoked = PathBuf::from(invoked.unwrap_or_else(|| "keytide".into()));
    let is_name = invoked.components().count() == 1 && !invoked.has_root();
    let program = if is_name { invoked } else { std::path::absolute(&invoked).unwrap_or(invoked) };
    shell_word(&program)
}

/// Returns the newest file of `usage`, as a long demo removes older ones.
fn newest(views: &Path) -> String {
    let names = fs::read_dir(views).into_iter().flatten().flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    let newest = names.filter(|name| name.starts_with("usage-")).max();
    newest.unwrap_or_else(|| "usage-000001.jsonl".to_owned())
}
