//! The command line, in which each command has a file or folder of its own.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[cfg(feature = "demo")]
use crate::demo;
#[cfg(feature = "generate")]
use crate::generate;
#[cfg(feature = "top")]
use crate::top;
use crate::{actions, backtest, check, incident, inspect, key_id, replay, report, run, version};

/// Exact meters of API keys from gateways' access logs.
#[derive(Parser)]
#[command(
    version = version::SHORT_TEXT.as_str(),
    long_version = version::LONG_TEXT.as_str(),
    about,
    after_help = "Exit codes: 0 done, 2 bad configuration or usage, 3 fatal condition in data (or none of it was accepted), 70 internal error, 75 transient failure."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show the whole job at work, with a broker and traffic of its own: nothing to set up
    #[cfg(feature = "demo")]
    Demo(demo::DemoArgs),
    /// Check a configuration and the files it names, and look at the first records; report every problem
    Check {
        /// The job's configuration (TOML)
        config: PathBuf,
        /// Also ask the brokers for the topics and look at their records, sign in at the mail server, look webhooks up; creates and sends nothing
        #[arg(long)]
        connect: bool,
        /// If nothing is wrong, send a mail and a request that say that they are tests to everybody who would be told
        #[arg(long)]
        send_test: bool,
    },
    /// Read Kafka topics, keep the views up to date, and publish them, until told to end
    Run(run::RunArgs),
    /// Read the sources to their end as fast as possible and write each view's rows to files
    Replay(replay::ReplayArgs),
    /// Try the leak detector on recorded traffic, or score a history of counts
    Backtest(backtest::BacktestArgs),
    /// Show the busiest keys and the newest incidents on a screen, live, from views on disk or a running job
    #[cfg(feature = "top")]
    Top(top::TopArgs),
    /// List the actions on keys of a running job, and answer: approve, dismiss, reinstate, revoke, pause, resume
    Actions(actions::ActionsArgs),
    /// Show the evidence of an incident, from views on disk
    Incident(incident::IncidentArgs),
    /// Write reports for people from views: the bills of a month as pages, tables and JSON
    Report(report::ReportArgs),
    /// Show how views and tables name a key, which is read from standard input
    KeyId(key_id::KeyIdArgs),
    /// Show the checkpoints of a job's state, and from where it would go on
    Inspect(inspect::InspectArgs),
    /// Generate realistic traffic with its tables, geo databases and a configuration
    #[cfg(feature = "generate")]
    Generate(keytide_generator::GenerateArgs),
}

/// Runs the command that was typed.
///
/// # Errors
/// Those of the command.
pub(crate) fn run_typed() -> anyhow::Result<ExitCode> {
    #[cfg(feature = "pages")]
    if let Some(folder) = crate::pages::typed() {
        return crate::pages::write(<Cli as clap::CommandFactory>::command(), &folder);
    }
    match Cli::parse().command {
        #[cfg(feature = "demo")]
        Command::Demo(args) => demo::run(&args),
        Command::Check { config, connect, send_test } => {
            check::run(&config, check::Ask { connect, send_test })
        }
        Command::Run(args) => run::run(&args),
        Command::Replay(args) => replay::run(&args),
        Command::Backtest(args) => backtest::run(&args),
        #[cfg(feature = "top")]
        Command::Top(args) => top::run(&args),
        Command::Actions(args) => actions::run(&args),
        Command::Incident(args) => incident::run(&args),
        Command::Report(args) => report::run(&args),
        Command::KeyId(args) => key_id::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        #[cfg(feature = "generate")]
        Command::Generate(args) => generate::run(&args),
    }
}
