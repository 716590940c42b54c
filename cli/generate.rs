//! `keytide generate` writes a made-up access log to files or a topic.
//!
//! The first signal ends the calls to a topic; a second one doesn't wait for records that aren't acknowledged.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use anyhow::Context as _;
use keytide_connectors::kafka::KafkaError;
use keytide_generator::{GenerateArgs, Generated, TopicTarget, per_second, to_files};
use keytide_worker::exit::{Exit, kafka_failure};

use crate::clock::now;
use crate::signals::on_each;

/// Runs the command, and prints a summary.
///
/// # Errors
/// If the folder isn't empty, if folder or topic can't be written to, or if the world is too small for its scenario.
pub(crate) fn run(args: &GenerateArgs) -> anyhow::Result<ExitCode> {
    let text = match open(args)? {
        Some(target) => {
            let stop = target.stop();
            on_each(move || match stop.swap(true, Ordering::Relaxed) {
                true => std::process::exit(Exit::Transient as i32),
                false => true,
            })?;
            let (generated, seconds) = target.run(args, now()).map_err(meant)?;
            let next = args.out.as_ref().map(|out| format!("keytide run {}/keytide.toml", out.display()));
            report(&generated, seconds, &target.description(), next)
        }
        None => {
            let (generated, seconds) = to_files(args, now())?;
            let out = args.out.as_deref().unwrap_or(Path::new("")).display();
            let next = format!("keytide replay {out}/keytide.toml --out {out}/views");
            report(&generated, seconds, &format!("under {out}"), Some(next))
        }
    };
    writeln!(io::stdout().lock(), "{text}").context("can't write to standard output")?;
    Ok(Exit::Done.into())
}

fn open(args: &GenerateArgs) -> anyhow::Result<Option<TopicTarget>> {
    if args.kafka.is_some() {
        // Shows warnings of the client library. If there is a logger already, it does as well.
        let _ = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::WARN)
            .with_writer(io::stderr)
            .without_time()
            .try_init();
    }
    TopicTarget::open(args).map_err(meant)
}

/// Gives an error of the brokers the exit code of its class.
fn meant(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<KafkaError>() {
        Ok(error) => kafka_failure(error),
        Err(error) => error,
    }
}

/// Returns a summary of the generated log, and a command to try next.
fn report(generated: &Generated, seconds: f64, place: &str, next: Option<String>) -> String {
    let Generated { events, lines, bytes, .. } = generated;
    let mut text = format!(
        "{events} events in {lines} lines ({} MiB) {place} in {seconds:.1} s: {} events/s",
        bytes >> 20,
        per_second(*events, seconds),
    );
    if let Some(next) = next {
        text.extend(["\nnext: ", &next]);
    }
    text
}

#[cfg(test)]
mod tests {
    use keytide_worker::exit::classify;
    use rdkafka::mocking::MockCluster;

    use super::*;

    #[test]
    fn what_cannot_be_sent_is_for_whoever_typed_the_command() {
        let cluster = MockCluster::new(1).unwrap();
        cluster.create_topic("calls", 1, 1).unwrap();
        let brokers = cluster.bootstrap_servers();
        for setting in ["sasl.password=hunter2", "group.id=x", "no.such.setting=x"] {
            let typed = ["--kafka", &brokers, "--topic", "calls", "--librdkafka", setting];
            let error = open(&GenerateArgs::typed(typed).unwrap()).err().unwrap();
            assert_eq!(classify(&error), Exit::Usage, "{error:#}");
        }
    }
}
