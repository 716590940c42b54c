//! `keytide actions CONFIG` lists the actions on keys of a running job, and sends a person's answers.
//!
//! The job is asked over HTTP, by the token of a person in `[http.people]`. An answer is printed once it is part of a
//! committed tick. Each action is named by its id, also where several are approved: nothing answers for all at once.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use keytide_dataflow::{ActionId, ActionState, Verb};
use keytide_worker::exit::{Exit, failure};
use keytide_worker::replay::usage;
use keytide_worker::run::{
    ActionPage, ActionsPage, AnswerRefusal, DecidedPage, IncidentPage, KeyPage, MutePage, SignalPage,
};
use serde::Deserialize;

use crate::exit;
use crate::job::{JobAddress, escaped, runtime, token};
use crate::text::{harmless, json, minute, shown_key};
use crate::views::load;

/// How long a reply may take: longer than the job waits for the answer's tick.
const PATIENCE: Duration = Duration::from_secs(12);

#[derive(clap::Args)]
pub(crate) struct ActionsArgs {
    /// The job's configuration (TOML), which names its address and tokens; or the address of the job, with its scheme
    /// and port
    #[arg(value_name = "CONFIG|URL")]
    from: PathBuf,
    #[command(subcommand)]
    what: What,
    /// The reason of an answer, for the audit
    #[arg(long, value_name = "TEXT", global = true)]
    why: Option<String>,
    /// How long a key is muted, such as 2h; at most 31d, and 0s ends a mute
    #[arg(long = "for", value_name = "TIME", global = true)]
    time: Option<String>,
    /// The person in [http.people] who asks; needed if there are several
    #[arg(long = "as", value_name = "NAME", global = true)]
    name: Option<String>,
    /// Where the person's token is, for a job at URL: env:NAME or file:PATH
    #[arg(long, value_name = "REFERENCE", global = true)]
    token: Option<String>,
    /// Print JSON, for programs that read it
    #[arg(long, global = true)]
    json: bool,
}

#[derive(clap::Subcommand)]
enum What {
    /// List the newest actions, those that are held first
    List,
    /// Show one action, or one incident with its actions, by its id
    Show {
        /// The id of an action or an incident: 32 hexadecimal digits
        id: String,
    },
    /// Carry out actions that are held
    Approve(About),
    /// Withdraw incidents, each named by its id or by that of an action: keys that are suspended on account of them are
    /// let in again, and the same signals don't open them again
    Dismiss(About),
    /// Tell of no incident of a key for a time, unless a leak is reported
    Mute {
        /// The key, as views and mails name it
        key: String,
    },
    /// Take what a key does for normal: its traffic, and where it is called from
    Accept {
        /// The key, as views and mails name it
        key: String,
    },
    /// Let keys in again that actions suspended
    Reinstate(About),
    /// Revoke keys for good that actions suspended
    Revoke(About),
    /// Hold every action that no person approves
    Pause,
    /// End a pause; what is held stays held
    Resume,
}

#[derive(clap::Args)]
struct About {
    /// The actions' ids: 32 hexadecimal digits each
    #[arg(value_name = "ID", required = true)]
    ids: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// If the job can't be asked, or takes no answer.
pub(crate) fn run(args: &ActionsArgs) -> anyhow::Result<ExitCode> {
    let job = address(args)?;
    let runtime = runtime()?;
    let ask = |method, path: &str, body| match runtime.block_on(exchange(&job, method, path, body))? {
        Said::Yes(body) => Ok(body),
        Said::Missing(why) => Err(usage(why)),
    };
    // An id is that of an action, or else of an incident.
    let ask_about = |id: &str, method: Method, rest: &str, body: Option<String>| {
        let path = format!("/v1/actions/{id}{rest}");
        match runtime.block_on(exchange(&job, method.clone(), &path, body.clone()))? {
            Said::Yes(body) => print_action(&read(&job, &body)?, args.json),
            Said::Missing(_) => {
                let body = ask(method, &format!("/v1/incidents/{id}{rest}"), body);
                let body = body.with_context(|| format!("{id} is no action and no incident"))?;
                print_incident(&read(&job, &body)?, args.json)
            }
        }
    };
    match &args.what {
        What::List => {
            let body = ask(Method::GET, "/v1/actions", None)?;
            let page: ActionsPage = read(&job, &body)?;
            exit::print(&if args.json { json(&page)? + "\n" } else { listed(&page) })?;
        }
        What::Show { id } => ask_about(id_of(id)?, Method::GET, "", None)?,
        What::Approve(about) => answer(&job, Verb::Approve, about, args, ask)?,
        What::Dismiss(about) => {
            for id in about.ids.iter().map(|id| id_of(id)).collect::<anyhow::Result<Vec<_>>>()? {
                ask_about(id, Method::POST, "/dismiss", Some(body_of(args)?))?;
            }
        }
        What::Mute { key } => {
            let body = Some(body_of(args)?);
            let body = ask(Method::POST, &format!("/v1/keys/{}/mute", escaped(key)), body)?;
            print_key(&read(&job, &body)?, Verb::Mute, args.json)?;
        }
        What::Accept { key } => {
            let body = Some(body_of(args)?);
            let body = ask(Method::POST, &format!("/v1/keys/{}/accept", escaped(key)), body)?;
            print_key(&read(&job, &body)?, Verb::Accept, args.json)?;
        }
        What::Reinstate(about) => answer(&job, Verb::Reinstate, about, args, ask)?,
        What::Revoke(about) => answer(&job, Verb::Revoke, about, args, ask)?,
        What::Pause => {
            ask(Method::POST, "/v1/actions/pause", Some(body_of(args)?))?;
            exit::print("actions are paused: each is held until a person approves it\n")?;
        }
        What::Resume => {
            ask(Method::POST, "/v1/actions/resume", Some(body_of(args)?))?;
            exit::print("actions are no longer paused; those that are held stay so\n")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Sends the same answer about each action, and prints what becomes of it. It ends at the first that isn't taken.
fn answer(
    job: &JobAddress,
    verb: Verb,
    about: &About,
    args: &ActionsArgs,
    ask: impl Fn(Method, &str, Option<String>) -> anyhow::Result<Bytes>,
) -> anyhow::Result<()> {
    let ids = about.ids.iter().map(|id| id_of(id)).collect::<anyhow::Result<Vec<_>>>()?;
    for id in ids {
        let path = format!("/v1/actions/{id}/{}", verb.name());
        let body = ask(Method::POST, &path, Some(body_of(args)?));
        let body = body.with_context(|| format!("action {id}"))?;
        print_action(&read(job, &body)?, args.json)?;
    }
    Ok(())
}

/// Returns the job, with the token of the person.
fn address(args: &ActionsArgs) -> anyhow::Result<JobAddress> {
    let token = token(args.token.as_deref())?;
    let has_token = token.is_some();
    if let Some(job) = args.from.to_str().and_then(|text| JobAddress::parse(text, token)) {
        let job = job.map_err(usage)?;
        return match (has_token, &args.name) {
            (true, None) => Ok(job),
            (true, Some(_)) => {
                Err(usage(anyhow!("--as belongs to a configuration: a token says itself whose it is")))
            }
            (false, _) => Err(usage(anyhow!("a job at an address needs --token, where a person's token is"))),
        };
    }
    if has_token {
        return Err(usage(anyhow!("--token belongs to an address: a configuration names the tokens itself")));
    }
    let config = load(&args.from)?;
    let http = config.http.as_ref().filter(|http| !http.people.is_empty());
    let Some(http) = http else {
        return Err(usage(anyhow!(
            "{} has no [http.people], so nobody can answer: name the people and their tokens there",
            args.from.display()
        )));
    };
    let names = || http.people.keys().cloned().collect::<Vec<_>>().join(", ");
    let token = match &args.name {
        Some(name) => http.people.get(name),
        None if http.people.len() == 1 => http.people.values().next(),
        None => return Err(usage(anyhow!("there are several people, name one by --as: {}", names()))),
    };
    let token = token.ok_or_else(|| usage(anyhow!("--as names nobody in [http.people]: {}", names())))?;
    let job = JobAddress::of(http).map_err(usage)?;
    Ok(job.showing(token.clone()))
}

/// What a job says, if it can be asked.
enum Said {
    /// The body of an answer that says yes.
    Yes(Bytes),
    /// It has no such thing.
    Missing(anyhow::Error),
}

/// Asks the job, and returns what it says.
async fn exchange(
    job: &JobAddress,
    method: Method,
    path: &str,
    body: Option<String>,
) -> anyhow::Result<Said> {
    let address = job.shown();
    let (status, body) = job.exchange(PATIENCE, method, path, body).await?;
    let refusal = || {
        let refusal: Option<AnswerRefusal> = serde_json::from_slice(&body).ok();
        let Some(AnswerRefusal { error, state, by }) = refusal else {
            return anyhow!(
                "{address} answered {status} to {path}; is it a job of keytide run with [http.people]?"
            );
        };
        let state = state.map_or_else(String::new, |state| format!(", it is {}", harmless(&state)));
        let by = by.map_or_else(String::new, |DecidedPage { verb, who, at }| {
            format!(": {} by {} at {}", harmless(&verb), harmless(&who), harmless(&at))
        });
        anyhow!("{}{state}{by}", harmless(&error))
    };
    match status {
        StatusCode::OK => Ok(Said::Yes(body)),
        StatusCode::NOT_FOUND => Ok(Said::Missing(refusal())),
        StatusCode::UNAUTHORIZED => {
            Err(usage(anyhow!("the job at {address} refuses the token: it must be one of its [http.people]")))
        }
        StatusCode::ACCEPTED | StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
            Err(failure(Exit::Transient, refusal()))
        }
        _ => Err(usage(refusal())),
    }
}

fn read<'a, T: Deserialize<'a>>(job: &JobAddress, body: &'a [u8]) -> anyhow::Result<T> {
    serde_json::from_slice(body)
        .map_err(|_| usage(anyhow!("{} answers, but isn't a job of this version", job.shown())))
}

/// Returns an id that can be a part of a path.
fn id_of(id: &str) -> anyhow::Result<&str> {
    match ActionId::parse(id) {
        Some(_) => Ok(id),
        None => Err(usage(anyhow!(
            "the id of an action or an incident has 32 hexadecimal digits in lower case, as `list` shows them"
        ))),
    }
}

/// Returns the body of an answer.
fn body_of(args: &ActionsArgs) -> anyhow::Result<String> {
    let Some(why) = &args.why else {
        return Err(usage(anyhow!("an answer needs its reason, which the audit keeps: --why TEXT")));
    };
    Ok(match &args.time {
        None => serde_json::json!({ "why": why }),
        Some(time) => serde_json::json!({ "why": why, "for": time }),
    }
    .to_string())
}

fn print_incident(incident: &IncidentPage, is_json: bool) -> anyhow::Result<()> {
    if is_json {
        return exit::print(&(json(incident)? + "\n"));
    }
    let IncidentPage { incident_id, key_id, level, score, state, opened_at, ended_at, reason, .. } = incident;
    let mut text = format!(
        "incident {}  {}  {} (score {score})  key {}  opened {}\n",
        harmless(incident_id),
        harmless(state),
        harmless(level),
        shown_key(key_id),
        minute(opened_at)
    );
    if let Some(ended_at) = ended_at {
        let why = reason.as_ref().map_or_else(String::new, |reason| format!(": {}", harmless(reason)));
        text += &format!("  ended {}{why}\n", minute(ended_at));
    }
    if let Some(DecidedPage { who, at, .. }) = &incident.dismissed {
        text += &format!("  dismissed by {} at {}\n", harmless(who), harmless(at));
    }
    for SignalPage { signal, bits, expected, seen } in &incident.signals {
        let expected = if *expected > 0.0 { format!(", {expected:.1} expected") } else { String::new() };
        text += &format!("  {}  {bits:.1} bits  {seen} calls{expected}\n", harmless(signal));
    }
    incident.actions.iter().for_each(|action| text += &line(action));
    exit::print(&text)
}

fn print_key(key: &KeyPage, verb: Verb, is_json: bool) -> anyhow::Result<()> {
    if is_json {
        return exit::print(&(json(key)? + "\n"));
    }
    let KeyPage { key_id, muted_until, incident } = key;
    let did = match (verb, muted_until) {
        (Verb::Accept, _) => "what it does now is normal".to_owned(),
        (_, Some(until)) => format!("muted until {}", harmless(until)),
        (_, None) => "not muted any more".to_owned(),
    };
    let incident = match incident {
        Some(IncidentPage { incident_id, state, .. }) => {
            format!("its newest incident is {}, {}", harmless(incident_id), harmless(state))
        }
        None => "no incident of a key of this name is known".to_owned(),
    };
    exit::print(&format!("key {}  {did}; {incident}\n", shown_key(key_id)))
}

fn print_action(action: &ActionPage, is_json: bool) -> anyhow::Result<()> {
    exit::print(&if is_json { json(action)? + "\n" } else { line(action) })
}

/// Returns the actions as lines, those that wait for a person first.
fn listed(page: &ActionsPage) -> String {
    let mut text = String::new();
    if let Some(DecidedPage { who, at, .. }) = &page.paused {
        text += &format!("actions are paused by {} since {}\n", harmless(who), harmless(at));
    }
    for name in &page.on_probation {
        text += &format!(
            "gateway {} is on probation: all is held until an action that a person approved is confirmed\n",
            harmless(name)
        );
    }
    let is_held = |action: &&ActionPage| action.state == ActionState::Held.name();
    let (held, others): (Vec<_>, Vec<_>) = page.actions.iter().partition(is_held);
    held.into_iter().chain(others).for_each(|action| text += &line(action));
    for MutePage { key_id, until, decided } in &page.muted {
        text += &format!(
            "key {} is muted by {} until {}\n",
            shown_key(key_id),
            harmless(&decided.who),
            harmless(until)
        );
    }
    if page.actions.is_empty() {
        text += "there are no actions\n";
    }
    text
}

fn line(action: &ActionPage) -> String {
    let ActionPage { action_id, key_id, action, state, reason, at, .. } = action;
    format!(
        "{}  {:<9}  {:<9}  key {}  {}  {}\n",
        harmless(action_id),
        harmless(state),
        harmless(action),
        shown_key(key_id),
        minute(at),
        harmless(reason)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(state: ActionState, reason: &str) -> ActionPage {
        ActionPage {
            action_id: format!("{:032x}", 7),
            key_id: format!("{:032x}", 9),
            incident_id: format!("{:032x}", 8),
            action: "suspend".to_owned(),
            state: state.name().to_owned(),
            reason: reason.to_owned(),
            at: "2026-11-21T14:06:00Z".to_owned(),
            gateway: None,
            decided: None,
        }
    }

    #[test]
    fn what_waits_for_a_person_is_listed_first_and_nothing_reaches_the_terminal_as_it_came() {
        let actions = vec![action(ActionState::Done, "x\u{1b}[2J"), action(ActionState::Held, "the breaker")];
        let paused =
            Some(DecidedPage { verb: "pause".to_owned(), who: "alice".to_owned(), at: "t".to_owned() });
        let decided = DecidedPage { verb: "mute".to_owned(), who: "bob".to_owned(), at: "t".to_owned() };
        let muted = vec![MutePage { key_id: "partner\u{7}".to_owned(), until: "u".to_owned(), decided }];
        let on_probation = vec!["edge\u{1b}".to_owned()];
        let text = listed(&ActionsPage { paused, on_probation, muted, actions });
        let mut lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "actions are paused by alice since t");
        assert!(
            lines.remove(1).ends_with(
                " is on probation: all is held until an action that a person approved is confirmed"
            )
        );
        assert!(
            lines[1].contains("  held       suspend    key ") && lines[1].ends_with("  the breaker"),
            "{text}"
        );
        assert!(lines[2].contains("  done  ") && !text.contains(['\u{1b}', '\u{7}']), "{text}");
        assert!(
            lines[3].starts_with("key partner") && lines[3].ends_with(" is muted by bob until u"),
            "{text}"
        );
        assert_eq!(listed(&ActionsPage::default()), "there are no actions\n");
    }

    #[test]
    fn an_id_is_a_part_of_a_path_only_as_it_is() {
        assert!(id_of(&format!("{:032x}", 7)).is_ok());
        for id in ["", "7", "../../metrics", "0000000000000000000000000000000G", &"a".repeat(33)] {
            assert!(id_of(id).is_err(), "{id}");
        }
    }
}
