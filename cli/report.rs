//! `keytide report month` writes bills for people, from views on disk or from the API of a running job.
//!
//! Each view is read once. A bill becomes three files, whose names come from the subscription and the day on which the
//! period begins. The same rows give the same bytes.
//!
//! A live job writes while its views are read, so the rows of a bill may be of two moments. Such a bill isn't written, and
//! the command says so.
//!
//! Limits: those of lines ([`crate::views`]) and of answers ([`crate::job`]).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use hyper::{Method, StatusCode};
use jiff::civil::Date;
use keytide_config::{Language, View};
use keytide_worker::exit::{Exit, failure};
use keytide_worker::replay::usage;
use keytide_worker::report::{BILL_VIEWS, BillDocument, ReportRows};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::exit;
use crate::job::{JobAddress, escaped, runtime, token};
use crate::text::{counted, harmless, shell_word};
use crate::views::ViewFolder;

/// How long an answer of the API may take.
const PATIENCE: Duration = Duration::from_secs(12);
/// Months that are named instead of one without bills, at most.
const NAMED: usize = 12;

#[derive(clap::Args)]
pub(crate) struct ReportArgs {
    /// The report: month writes the bill of each billing period that begins in the month
    #[arg(value_parser = PossibleValuesParser::new(["month"]))]
    report: String,
    /// Folder with views, as replay writes it; or the configuration of a job with [sink.files]
    #[arg(long, value_name = "DIR|CONFIG", conflicts_with = "api")]
    from: Option<PathBuf>,
    /// Address of a running job's API, such as http://127.0.0.1:9466
    #[arg(long, value_name = "URL")]
    api: Option<String>,
    /// Where a token of the API is: env:NAME or file:PATH
    #[arg(long, value_name = "REFERENCE", requires = "api")]
    token: Option<String>,
    /// The only subscription whose bills are written; needed with --api
    #[arg(long, value_name = "ID")]
    subscription: Option<String>,
    /// The month in which the periods begin, by the subscription's clock: YYYY-MM [default: all]
    #[arg(long, value_name = "YYYY-MM")]
    month: Option<String>,
    /// The language of the pages
    #[arg(long, value_name = "LANGUAGE", default_value = Language::En.name(), value_parser = languages())]
    language: Language,
    /// Folder for the reports; those of an earlier run with the same names are replaced
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

fn languages() -> impl TypedValueParser<Value = Language> {
    PossibleValuesParser::new([Language::En.name(), Language::Ko.name()])
        .map(|name| if name == Language::Ko.name() { Language::Ko } else { Language::En })
}

/// Runs the command.
///
/// # Errors
/// If no rows can be read, if there is no such bill, or if a file can't be written.
pub(crate) fn run(args: &ReportArgs) -> anyhow::Result<ExitCode> {
    if let Some(month) = &args.month
        && !is_month(month)
    {
        return Err(usage(anyhow!("--month must be a month such as 2025-10, found {}", harmless(month))));
    }
    let mut months = BTreeSet::new();
    let (shown, rows) = match (&args.from, &args.api) {
        (Some(from), _) => of_folder(args, from, &mut months)?,
        (None, Some(api)) => of_api(args, api, &mut months)?,
        (None, None) => return Err(usage(anyhow!("the rows are missing: name --from DIR or --api URL"))),
    };
    if rows.unreadable() > 0 {
        exit::warn(&format!(
            "{} of {shown} can't be read as rows, and {} passed over; another version may have written them",
            counted(rows.unreadable(), "line", "lines"),
            if rows.unreadable() == 1 { "is" } else { "are" }
        ));
    }
    let written = write(args, &rows)?;
    match written {
        Written { bills: 0, refused: 0 } => Err(nothing(args, &shown, &months)),
        Written { refused: 0, bills } => {
            let bills = counted(bills, "bill", "bills");
            exit::print(&format!("{bills} in {}, each as .html, .csv and .json\n", shell_word(&args.out)))?;
            Ok(ExitCode::SUCCESS)
        }
        Written { refused, bills } => Err(failure(
            Exit::Transient,
            anyhow!(
                "{} written, {} left out: the job that writes {shown} was under way; try again",
                counted(bills, "bill was", "bills were"),
                counted(refused, "was", "were")
            ),
        )),
    }
}

fn is_month(month: &str) -> bool {
    month.len() == 7 && format!("{month}-01").parse::<Date>().is_ok()
}

/// Keeps the bills of the month alone, and notes all months that have some.
fn choose(args: &ReportArgs, rows: &mut ReportRows, months: &mut BTreeSet<String>) {
    let found = std::cell::RefCell::new(months);
    rows.choose(|first_day| {
        let month = first_day.get(..7).unwrap_or_default();
        found.borrow_mut().insert(month.to_owned());
        args.month.as_deref().is_none_or(|wanted| wanted == month)
    });
}

/// Reads the rows of a folder. Returns its name, too.
fn of_folder(
    args: &ReportArgs,
    from: &Path,
    months: &mut BTreeSet<String>,
) -> anyhow::Result<(String, ReportRows)> {
    let folder = ViewFolder::open(from)?;
    let shown = folder.dir().display().to_string();
    let mut rows = ReportRows::new(args.subscription.as_deref(), true);
    let mut too_long = 0;
    for view in BILL_VIEWS {
        // A view without rows has no file.
        if view == View::Bills || folder.files(view).is_ok() {
            too_long += folder.lines(view, |line| rows.take(view, line))?;
        }
        if view == View::Bills {
            choose(args, &mut rows, months);
        }
    }
    if too_long > 0 {
        exit::warn(&format!(
            "{} of {shown} are too long to be rows, and passed over",
            counted(too_long, "line", "lines")
        ));
    }
    Ok((shown, rows))
}

/// The part of an answer that has rows of a view.
#[derive(Deserialize)]
struct RowsPage<'a> {
    #[serde(borrow)]
    rows: Vec<&'a RawValue>,
}

/// What the API says when it refuses.
#[derive(Deserialize)]
struct ErrorAnswer {
    error: String,
}

/// Asks a job for the rows of a subscription. Returns the job's address, too.
fn of_api(
    args: &ReportArgs,
    api: &str,
    months: &mut BTreeSet<String>,
) -> anyhow::Result<(String, ReportRows)> {
    let Some(subscription) = &args.subscription else {
        return Err(usage(anyhow!("--api needs --subscription ID: the API shows the rows of one at a time")));
    };
    let token = token(args.token.as_deref())?;
    let address = JobAddress::parse(api, token);
    let job =
        address.ok_or_else(|| usage(anyhow!("--api must be an address such as http://127.0.0.1:9466")))?;
    let job = job.map_err(usage)?;
    let shown = job.shown();
    let runtime = runtime()?;
    let mut rows = ReportRows::new(Some(subscription), false);
    for view in BILL_VIEWS {
        let name = match view {
            // The API says how quotas stand in a form of its own.
            View::Quota => continue,
            View::SubscriptionUsage => "usage",
            view => view.name(),
        };
        let path = format!("/v1/subscriptions/{}/{name}", escaped(subscription));
        let (status, body) = runtime.block_on(job.exchange(PATIENCE, Method::GET, &path, None))?;
        if status != StatusCode::OK {
            return Err(refused(&shown, subscription, status, &body));
        }
        let page: RowsPage<'_> = serde_json::from_slice(&body)
            .map_err(|_| usage(anyhow!("{shown} answers, but isn't the [api] of a job of this version")))?;
        page.rows.iter().for_each(|row| rows.take(view, row.get().as_bytes()));
        if view == View::Bills {
            choose(args, &mut rows, months);
        }
    }
    Ok((shown, rows))
}

/// Returns the error of an answer without rows.
fn refused(shown: &str, subscription: &str, status: StatusCode, body: &[u8]) -> anyhow::Error {
    let why = serde_json::from_slice(body).map_or_else(|_| String::new(), |ErrorAnswer { error }| error);
    let why = harmless(&why).into_owned();
    let subscription = harmless(subscription);
    match status {
        StatusCode::NOT_FOUND => usage(anyhow!(
            "{shown} has no rows of subscription {subscription} that this token may see; is it the address of [api]?"
        )),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => usage(anyhow!(
            "{shown} refuses the token ({status}): --token must be one of [api] with the role admin, ops or consumer"
        )),
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => {
            failure(Exit::Transient, anyhow!("{shown} can't answer now ({status}): {why}"))
        }
        _ => usage(anyhow!("{shown} answered {status}: {why}")),
    }
}

/// How many bills became files, and how many had rows of two moments.
struct Written {
    bills: u64,
    refused: u64,
}

/// Writes the files of each bill, and prints their names.
fn write(args: &ReportArgs, rows: &ReportRows) -> anyhow::Result<Written> {
    let mut written = Written { bills: 0, refused: 0 };
    let mut printed = String::new();
    for (subscription, of_subscription) in rows.subscriptions() {
        for start in of_subscription.periods() {
            let bill = match BillDocument::new(subscription, start, of_subscription) {
                Ok(bill) => bill,
                Err(why) => {
                    exit::warn(&format!(
                        "a bill of subscription {} isn't written: {why}",
                        harmless(subscription)
                    ));
                    written.refused += 1;
                    continue;
                }
            };
            if written.bills == 0 {
                let out = args.out.display();
                fs::create_dir_all(&args.out).with_context(|| format!("the folder {out} can't be made"))?;
            }
            let stem = bill.file_stem();
            for (extension, content) in bill.files(args.language)?.named() {
                let path = args.out.join(format!("{stem}.{extension}"));
                fs::write(&path, content).with_context(|| format!("writing {} failed", path.display()))?;
            }
            let total = match (&bill.total, &bill.currency) {
                (Some(total), Some(currency)) => format!("{total} {currency}"),
                _ => "no total".to_owned(),
            };
            printed += &format!("{stem}  {}  {}\n", bill.state.name(), harmless(&total));
            written.bills += 1;
        }
    }
    exit::print(&printed)?;
    Ok(written)
}

/// Returns the error of a report without bills.
fn nothing(args: &ReportArgs, shown: &str, months: &BTreeSet<String>) -> anyhow::Error {
    let whose = args
        .subscription
        .as_deref()
        .map_or_else(String::new, |id| format!(" of subscription {}", harmless(id)));
    let newest: Vec<&str> = months.iter().rev().take(NAMED).map(String::as_str).collect();
    usage(match (&args.month, newest.is_empty()) {
        (Some(month), false) => anyhow!(
            "{shown} has no bill{whose} whose period begins in {month}; it has bills that begin in {}",
            newest.join(", ")
        ),
        _ => anyhow!(
            "{shown} has no bill{whose}: only subscriptions whose plan has fees or prices have bills; name another \
             folder, or another subscription"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_is_a_year_and_a_month() {
        assert!(is_month("2025-10") && is_month("2024-02"));
        for text in ["", "2025-13", "2025-1", "2025-10-01", "25-10", "october"] {
            assert!(!is_month(text), "{text}");
        }
    }
}
