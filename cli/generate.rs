//! `keytide generate`: a made-up access log, in files or a topic.
//!
//! The first signal ends the calls that go to a topic, the second doesn't wait for what is on its way.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;
use keytide_connectors::kafka::KafkaError;
use keytide_generator::{GenerateArgs, Generated, TopicTarget, per_second, to_files};
use keytide_worker::exit::{Exit, kafka_failure};
use tokio::signal::unix::{SignalKind, signal};

use crate::clock::now;

/// Runs the command.
///
/// # Errors
/// If the folder isn't empty or can't be written to, if the topic can't, or if the world is too small for its
/// scenario.
pub(crate) fn run(args: &GenerateArgs) -> anyhow::Result<ExitCode> {
    let text = match open(args)? {
        Some(target) => {
            stop_on_signals(target.stop())?;
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
        // Warnings of the client library; another logger that is there already does as well.
        let _ = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::WARN)
            .with_writer(io::stderr)
            .without_time()
            .try_init();
    }
    TopicTarget::open(args).map_err(meant)
}

/// An error with the meaning that its class has for whoever started the process.
fn meant(error: anyhow::Error) -> anyhow::Error {
    match error.downcast::<KafkaError>() {
        Ok(error) => kafka_failure(error),
        Err(error) => error,
    }
}

/// Ends the calls at SIGINT or SIGTERM, and the process at the second.
fn stop_on_signals(stop: Arc<AtomicBool>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let guard = runtime.enter();
    let mut terminate = signal(SignalKind::terminate()).context("listening to SIGTERM failed")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listening to SIGINT failed")?;
    drop(guard);
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if stop.swap(true, Ordering::Relaxed) {
                    std::process::exit(Exit::Transient as i32);
                }
            }
        });
    })?;
    Ok(())
}

/// The text that says what was made, and what to do with it.
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
