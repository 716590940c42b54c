//! `keytide check CONFIG` reports every problem of a configuration and of the files it names, and sums up the job.
//!
//! It writes nothing but its report. It connects nowhere without `--connect` and sends nothing without `--send-test`.
//! Every table and database is read as a job reads it. The first records of files are decoded (see
//! [`keytide_connectors::look`] for how many), those of topics with `--connect` only, those of standard input never. A
//! pattern without a match is a warning, because logs may come later. If no record of a source is accepted, that is a
//! warning, too, and the exit code is 3.
//!
//! The report is made of steps, each of which looks at one thing and knows nothing of the others (`steps.rs`). All of
//! them run at once. What a look-up finds goes to standard error as soon as it is known, and into the report in the
//! order of the configuration. If the configuration is invalid, the files that its valid sections name are looked at
//! nevertheless.

mod connect;
mod steps;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use keytide_alerts::email::Guide;
use keytide_alerts::outbox::Mailer;
use keytide_alerts::webhook::{Client, WebhookOutcome};
use keytide_config::{
    AdminApi, Alerts, AwsApi, AwsCredentials, Cluster, ConfigError, Dedupe, Delivery, EmailAlerts, FileSink,
    Format, Gateway, GatewayCaps, GatewayKind, Geo, Http, JobConfig, KafkaClient, KafkaSink, KeyFrom,
    LineField, Log, MailServer, MissingKey, OnGap, PolicyMode, PolicyRules, Sinks, Source, SourceKind, State,
    StatePlace, Steps, TableSource, Tables, ValidSections, Variable, View, Webhook, WebhookUrl,
    duration_text, environment, size_text,
};
use keytide_connectors::decode::{Context, NoGeo};
use keytide_connectors::file::{FileError, Partition, resolve};
use keytide_connectors::ingest::IngestError;
use keytide_connectors::kafka::refused_settings;
use keytide_connectors::look::Look;
use keytide_connectors::store::Store;
use keytide_connectors::{geo, sink, tables};
use keytide_dataflow::detect::Tuning;
use keytide_worker::exit::Exit;
use keytide_worker::records::RecordCounts;

use self::steps::CheckStep;
use crate::clock;
use crate::exit::note;

/// Bad rows of a table that the report shows.
const MAX_BAD_ROWS: usize = 10;

/// Requests to other services that the user allows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ask {
    /// Asks brokers, the mail server, and the addresses of webhooks.
    pub(crate) connect: bool,
    /// Sends a test to every recipient of notifications.
    pub(crate) send_test: bool,
}

/// Checks the configuration at `path` with this process's environment, and prints a report to standard output.
///
/// Ends with [`Exit::Done`] if it is valid, and with [`Exit::Usage`] if it isn't. If it is valid and no record of a
/// source is accepted, it ends with [`Exit::Fatal`].
///
/// # Errors
/// If the report can't be written.
pub(crate) fn run(path: &Path, ask: Ask) -> anyhow::Result<ExitCode> {
    let mut out = io::stdout().lock();
    let exit = check(path, ask, environment(), &mut out, &mut note)?;
    out.flush()?;
    Ok(exit.into())
}

/// Writes the report on the configuration at `path` to `out`. Calls `known` with what each look-up finds.
fn check(
    path: &Path,
    ask: Ask,
    env: impl Iterator<Item = (String, String)>,
    out: &mut impl Write,
    known: &mut dyn FnMut(&str),
) -> io::Result<Exit> {
    let loaded = match JobConfig::load(path, env) {
        Ok(loaded) => loaded,
        Err(error) => {
            writeln!(out, "{error}")?;
            if let ConfigError::Invalid { problems, valid } = &error {
                let report = steps::run(steps_of_invalid(valid), known);
                for problem in &report.problems {
                    writeln!(out, "{}", plain(problem))?;
                }
                let count = problems.len() + report.problems.len();
                writeln!(out, "\n{} in {}", counted(count, "problem"), path.display())?;
            }
            return Ok(Exit::Usage);
        }
    };
    let mut steps = steps_of(&loaded.job);
    if ask.connect {
        steps.extend(connect::steps(&loaded.job));
    }
    let mut report = steps::run(steps, known);
    let warnings = loaded.warnings.iter().map(ToString::to_string);
    report.warnings.splice(0..0, warnings);
    if ask.send_test {
        report.send_test(&loaded.job.alerts);
    }
    report.write(path, out)
}

/// Returns the steps that need no connection, in the order of their lines.
fn steps_of(config: &JobConfig) -> Vec<CheckStep<'_>> {
    let JobConfig {
        job,
        sources,
        tables,
        geo,
        routes,
        windows,
        limits: _,
        sinks,
        detection,
        alerts,
        gateways,
        http,
        state,
        cluster,
        log,
        ..
    } = config;
    let mut steps = vec![CheckStep::local(move |report| {
        let workers = counted(job.workers.get(), "worker");
        report.line("job", format!("{}, tick {}, {workers}", job.name, duration_text(job.tick_ms)));
    })];
    steps.extend(sources.iter().map(|source| {
        CheckStep::local(move |report| {
            report.source(source);
            if let SourceKind::File { .. } = source.kind {
                report.look(source, config);
            }
        })
    }));
    steps.extend(each_table(tables).into_iter().filter_map(|(name, table, alone)| {
        let table = table.as_ref()?;
        Some(CheckStep::local(move |report| report.table(name, table, &alone, sources)))
    }));
    steps.extend(each_database(geo).into_iter().filter_map(|(name, path, alone)| {
        let path = path.as_ref()?;
        Some(CheckStep::local(move |report| report.database(name, path, &alone)))
    }));
    steps.push(CheckStep::local(move |report| {
        report.geo(geo);
        report.line("routes", counted(routes.templates.len(), "template"));
        report.line(
            "windows",
            format!(
                "out of orderness {}, allowed lateness {}, dedupe horizon {}",
                duration_text(windows.out_of_orderness_ms),
                duration_text(windows.allowed_lateness_ms),
                duration_text(windows.dedupe_horizon_ms)
            ),
        );
        report.detection(detection);
        report.sinks(sinks);
        report.alerts(alerts);
        report.gateways(gateways);
        report.http(http.as_ref());
        report.state(state.as_ref());
        report.cluster(cluster.as_ref());
        let Log { format, level } = log;
        report.line("log", format!("{}, {}", format.name(), level.name()));
    }));
    steps
}

/// Returns the steps for an invalid configuration: the files of its valid sections, and their settings of librdkafka.
fn steps_of_invalid(valid: &ValidSections) -> Vec<CheckStep<'_>> {
    let ValidSections { sources, tables, geo, sinks } = valid;
    vec![CheckStep::local(move |report| {
        for Source { name, kind, .. } in sources {
            match kind {
                SourceKind::File { pattern } => drop(report.files(name, pattern)),
                SourceKind::Kafka(kafka) => report.settings(&format!("source \"{name}\""), &kafka.client),
                SourceKind::Stdin => {}
            }
        }
        for (name, table, _) in each_table(tables) {
            match table {
                Some(TableSource::File { path, .. }) => report.file(&format!("tables.{name}"), path),
                Some(TableSource::Kafka { client, .. }) => {
                    report.settings(&format!("tables.{name}"), client);
                }
                None => {}
            }
        }
        for (name, path, _) in each_database(geo) {
            if let Some(path) = path {
                report.file(&format!("geo.{name}"), path);
            }
        }
        if let Some(sink) = &sinks.kafka {
            report.settings("sink.kafka", &sink.client);
        }
    })]
}

/// Returns each table with its name, and as the only one of the tables, so that a problem of one hides none of another.
fn each_table(tables: &Tables) -> [(&'static str, &Option<TableSource>, Tables); 7] {
    let Tables { keys, subscriptions, plans, leaks, quotas, prices, tokens } = tables;
    let only = Tables::default;
    [
        ("keys", keys, Tables { keys: keys.clone(), ..only() }),
        ("subscriptions", subscriptions, Tables { subscriptions: subscriptions.clone(), ..only() }),
        ("plans", plans, Tables { plans: plans.clone(), ..only() }),
        ("leaks", leaks, Tables { leaks: leaks.clone(), ..only() }),
        ("quotas", quotas, Tables { quotas: quotas.clone(), ..only() }),
        ("prices", prices, Tables { prices: prices.clone(), ..only() }),
        ("tokens", tokens, Tables { tokens: tokens.clone(), ..only() }),
    ]
}

/// Returns each database with its name, and as the only one.
fn each_database(config: &Geo) -> [(&'static str, &Option<PathBuf>, Geo); 4] {
    let Geo { country, asn, city, networks, trusted_proxies: _ } = config;
    [
        ("country", country, Geo { country: country.clone(), ..Geo::default() }),
        ("asn", asn, Geo { asn: asn.clone(), ..Geo::default() }),
        ("city", city, Geo { city: city.clone(), ..Geo::default() }),
        ("networks", networks, Geo { networks: networks.clone(), ..Geo::default() }),
    ]
}

/// The lines of a report.
#[derive(Default)]
struct CheckReport {
    summary: Vec<(&'static str, String)>,
    problems: Vec<String>,
    warnings: Vec<String>,
    /// Whether a source has records of which none is accepted.
    has_useless_data: bool,
}

impl CheckReport {
    fn detection(&mut self, detection: &keytide_config::Detection) {
        let tuning = Tuning::from(detection);
        let bits = |thousandths: i64| thousandths as f64 / 1_000.0;
        let text = match detection.enabled {
            true => format!("on, alerts from {} bits, acts from {}", bits(tuning.alert), bits(tuning.revoke)),
            false => "off".to_owned(),
        };
        self.line("detection", text);
    }

    fn source(&mut self, source: &Source) {
        let Source { name, kind, format, inner, keys, dedupe, .. } = source;
        let input = match kind {
            SourceKind::Stdin => "standard input".to_owned(),
            SourceKind::Kafka(kafka) => format!("topic {} at {}", kafka.topic, brokers(&kafka.client)),
            SourceKind::File { pattern } => format!("{pattern} ({})", self.files(name, pattern)),
        };
        let wrapped = inner.map_or(String::new(), |inner| format!(" of {}", inner.name()));
        self.line("source", format!("{name}: {}{wrapped} from {input}", format.name()));
        if let SourceKind::Kafka(kafka) = kind {
            self.settings(&format!("source \"{name}\""), &kafka.client);
            let gap = match kafka.on_gap {
                OnGap::Stop => "stop the job",
                OnGap::Skip => "are passed over",
            };
            self.line(
                "",
                format!(
                    "start: {}; end of a bounded run: {}; records that are gone {gap}",
                    kafka.start, kafka.end
                ),
            );
        }
        let rules: Vec<String> = keys.from.iter().map(KeyFrom::to_string).collect();
        let missing = match keys.missing {
            MissingKey::Anonymous => "counts as anonymous",
            MissingKey::DeadLetter => "is a dead letter",
        };
        self.line(
            "",
            format!("key: {}; hash: {}; a call without one {missing}", rules.join(", "), keys.hash.name()),
        );
        if has_identity(source) {
            self.line("", format!("repeated records are told by: {}", dedupe.name()));
        } else {
            self.line("", "repeated records aren't told apart".to_owned());
        }
        // The author of a pattern decided which variables are in it.
        if !has_identity(source) && inner.unwrap_or(*format) == Format::Combined {
            let text = "repeated records aren't told apart, as its lines have no request id: a line that is read twice \
                        counts twice; log the gateway's id, and name it in the pattern of `format = \"text\"`";
            self.warnings.push(format!("source \"{name}\": {text}"));
        }
    }

    /// Tries a client's settings on librdkafka, which needs no connection for that.
    fn settings(&mut self, place: &str, client: &KafkaClient) {
        self.problems.extend(refused_settings(client).iter().map(|error| format!("{place}: {error}")));
    }

    /// Decodes the first records of a source, and reports how many can be used.
    fn look(&mut self, source: &Source, config: &JobConfig) {
        let context = Context::of(config, Arc::new(NoGeo));
        let name = &source.name;
        let look = match Look::at(source, &context, &config.limits, clock::now()) {
            Ok(look) => look,
            // The source's line has this warning already.
            Err(IngestError::File(FileError::NoMatch { .. })) => return,
            Err(error) => {
                self.warnings.push(format!("source \"{name}\": its records can't be looked at: {error}"));
                return;
            }
        };
        let records = RecordCounts::looked_at(&look);
        if records.all() == 0 {
            self.line("data", format!("{name}: no records yet"));
            return;
        }
        let passed_over = match records.passed_over {
            0 => String::new(),
            passed_over => format!(", {passed_over} passed over"),
        };
        self.line(
            "data",
            format!(
                "{name}: {} looked at: {} accepted, {} refused{passed_over}",
                counted(records.all() as usize, "record"),
                records.accepted,
                records.refusals()
            ),
        );
        if records.accepted > 0 {
            let found = source.keys.from.iter().zip(look.tally.found_by).filter(|(_, count)| *count > 0);
            let found = found.map(|(rule, count)| format!("{rule} {count}"));
            let none = (records.keyless > 0).then(|| format!("none {}", records.keyless));
            self.line("", format!("keys found by: {}", found.chain(none).collect::<Vec<_>>().join(", ")));
        }
        if let Some((first, last)) = look.times {
            self.line("", format!("times: {} to {}", sink::encode::time(first), sink::encode::time(last)));
        }
        let members = look.members();
        if !members.is_empty() {
            self.line("", format!("records have: {}", members.join(", ")));
        }
        let unread = look.tally.unread().map(|(field, count)| format!("{field} in {count}"));
        let unread: Vec<String> = unread.collect();
        let mut warn = |text: String| self.warnings.push(format!("source \"{name}\": {text}"));
        records.nothing().or_else(|| records.refusal()).into_iter().for_each(&mut warn);
        records.keylessness().into_iter().for_each(&mut warn);
        if !unread.is_empty() {
            warn(format!("fields can't be read, and are unknown: {}", unread.join(", ")));
        }
        look.hints(source).into_iter().for_each(&mut warn);
        self.has_useless_data |= records.has_nothing();
    }

    /// Returns how many files and bytes a pattern matches.
    fn files(&mut self, source: &str, pattern: &str) -> String {
        match resolve(pattern) {
            Ok(files) => {
                for path in files.iter().filter_map(Partition::path) {
                    if let Err(error) = readable(Path::new(&path)) {
                        self.problems.push(format!("source \"{source}\": {path} can't be read: {error}"));
                    }
                }
                let bytes: u64 = files.iter().filter_map(Partition::bytes).sum();
                format!("{}, {bytes} bytes", counted(files.len(), "file"))
            }
            Err(error @ FileError::NoMatch { .. }) => {
                self.warnings.push(format!("source \"{source}\": {error}"));
                counted(0, "file")
            }
            Err(error) => {
                self.problems.push(format!("source \"{source}\": {error}"));
                counted(0, "file")
            }
        }
    }

    /// Reads a table, which is the only one of `alone`.
    fn table(&mut self, name: &str, table: &TableSource, alone: &Tables, sources: &[Source]) {
        let (path, format) = match table {
            TableSource::File { path, format } => (path, format),
            TableSource::Kafka { client, topic, format } => {
                self.settings(&format!("tables.{name}"), client);
                let brokers = brokers(client);
                self.line("table", format!("{name}: topic {topic} at {brokers} ({})", format.name()));
                return;
            }
        };
        let read = match alone.tokens {
            Some(_) => tables::read_tokens(alone),
            None => tables::read(alone, sources.iter().map(|source| &source.keys.hash)),
        };
        match read {
            Ok(read) => {
                let rows = counted(read.changes.len(), "row");
                self.line("table", format!("{name}: {rows} in {} ({})", path.display(), format.name()));
                self.warnings.extend(read.warnings);
                for row in read.dead_letters.iter().take(MAX_BAD_ROWS) {
                    let (place, reason) = (&row.location, &row.reason);
                    self.warnings.push(format!("tables.{name}: {place}: {reason}; the row is left out"));
                }
                if let Some(more) = read.dead_letters.len().checked_sub(MAX_BAD_ROWS).filter(|more| *more > 0)
                {
                    self.warnings.push(format!("tables.{name}: {} more", counted(more, "bad row")));
                }
            }
            Err(error) => self.problems.push(error.to_string()),
        }
    }

    /// Opens a database, which is the only one of `alone`.
    fn database(&mut self, name: &str, path: &Path, alone: &Geo) {
        match geo::GeoDatabases::open(alone) {
            Ok((_, warnings)) => {
                self.line("geo", format!("{name}: {}", path.display()));
                self.warnings.extend(warnings.into_iter().filter(|warn| warn.starts_with("geo.")));
            }
            Err(error) => self.problems.push(format!("geo.{name}: {error}")),
        }
    }

    /// Warns of databases that aren't named.
    fn geo(&mut self, config: &Geo) {
        let Geo { country, asn, trusted_proxies, .. } = config;
        let without = Geo { networks: None, ..config.clone() };
        if (country.is_none() || asn.is_none())
            && let Ok((_, warnings)) = geo::GeoDatabases::open(&without)
        {
            // Those of files are there already.
            self.warnings.extend(warnings.into_iter().filter(|warn| warn.starts_with("[geo]")));
        }
        self.line("proxies", format!("{} trusted", counted(trusted_proxies.len(), "range")));
    }

    /// Reports a file that can't be read.
    fn file(&mut self, place: &str, path: &Path) {
        if let Err(error) = readable(path) {
            self.problems.push(format!("{place}: can't read {}: {error}", path.display()));
        }
    }

    fn sinks(&mut self, sinks: &Sinks) {
        let Sinks { kafka, files } = sinks;
        if let Some(sink) = kafka {
            let KafkaSink {
                client,
                prefix: _,
                delivery,
                partitions,
                replication,
                create_topics,
                buffer_bytes,
            } = sink;
            self.settings("sink.kafka", client);
            let buffer = size_text(*buffer_bytes as u64);
            self.line(
                "sink",
                format!("topics at {}, {}, up to {buffer} wait", brokers(client), delivery.name()),
            );
            let mut topics = View::ALL.map(|view| view.topic(&sink.prefix)).to_vec();
            topics.extend((*delivery == Delivery::ExactlyOnce).then(|| sink.progress_topic()));
            self.line("", topics.join(", "));
            let missing = match (create_topics, replication) {
                (false, _) => "are an error".to_owned(),
                (true, None) => format!("are made with {}", counted(*partitions as usize, "partition")),
                (true, Some(replicas)) => format!(
                    "are made with {} of {}",
                    counted(*partitions as usize, "partition"),
                    counted((*replicas).into(), "replica")
                ),
            };
            self.line("", format!("topics that are missing {missing}"));
        }
        if let Some(FileSink { dir, format, rotate_bytes, rotate_after_ms, keep }) = files {
            let keep = match keep {
                0 => "all".to_owned(),
                keep => keep.to_string(),
            };
            self.line(
                "sink",
                format!(
                    "{} files in {}, closed at {} or after {}, {keep} of a view kept",
                    format.name(),
                    dir.display(),
                    size_text(*rotate_bytes),
                    duration_text(*rotate_after_ms)
                ),
            );
        }
    }

    /// Reads templates and certificates as a job does, but makes no folder.
    fn alerts(&mut self, alerts: &Alerts) {
        let Alerts { email, webhooks, link, asked: _, steps, policy } = alerts;
        if let Some(email) = email {
            if let Err(error) = Mailer::new(&EmailAlerts { dir: None, ..email.clone() }, Guide::default()) {
                self.problems.push(format!("alerts.email: {error}"));
            }
            let server = email.server.as_ref().map(|server| {
                let MailServer { host, port, tls, credentials, ca: _ } = server;
                let known = credentials.as_ref().map_or(String::new(), |(name, _)| format!(" as {name}"));
                format!("{host} port {port} ({}){known}", tls.name())
            });
            let dir = email.dir.as_ref().map(|dir| format!("files in {}", dir.display()));
            let ways: Vec<String> = server.into_iter().chain(dir).collect();
            let language = email.owner_language.name();
            let owners = match (email.owners, email.quota_notices) {
                (true, true) => format!(", owners and notices of quotas in {language}"),
                (true, false) => format!(", owners in {language}"),
                (false, true) => format!(", notices of quotas in {language}"),
                (false, false) => String::new(),
            };
            let warn = format!("to {} in {}{owners}", email.to.join(", "), email.language.name());
            self.line("mail", format!("by {}, {warn}", ways.join(" and ")));
            self.line(
                "",
                format!(
                    "at most {} an hour, {} to one address; a digest above {} a minute",
                    counted(email.per_hour as usize, "mail"),
                    email.per_recipient,
                    counted(email.digest_after as usize, "incident")
                ),
            );
            if let Some(reply_to) = &email.reply_to {
                self.line("", format!("answers go to {reply_to}"));
            }
        }
        for webhook in webhooks {
            let Webhook { name, url, secret, format, incidents, quota_notices, allow_private: _, timeout_ms } =
                webhook;
            let signed = if secret.is_some() { "signed" } else { "not signed" };
            let (server, timeout) = (server(url), duration_text(*timeout_ms));
            let told = match (incidents, quota_notices) {
                (true, true) => ", incidents and notices of quotas",
                (false, true) => ", notices of quotas",
                _ => "",
            };
            self.line(
                "webhook",
                format!("{name}: {} to {server}{told}, {signed}, within {timeout}", format.name()),
            );
        }
        if email.is_none() && webhooks.is_empty() {
            self.line("alerts", "nobody is told".to_owned());
        }
        if let Some(link) = link {
            self.line("link", format!("of incidents: to {}", link.origin()));
        }
        let Steps { security, owner } = steps;
        if !security.is_empty() || !owner.is_empty() {
            let number = |steps: &[String]| match steps.len() {
                0 => "the built-in ones".to_owned(),
                count => count.to_string(),
            };
            self.line("steps", format!("for security {}, for owners {}", number(security), number(owner)));
        }
        let PolicyRules { default, keys_per_hour, percent_per_hour, cooldown_ms, mode: _ } = policy;
        self.line(
            "policy",
            format!(
                "{} unless the plan says otherwise; at most {} and {percent_per_hour} % an hour, once in {}",
                default.name(),
                counted(*keys_per_hour as usize, "key"),
                duration_text(*cooldown_ms)
            ),
        );
    }

    fn gateways(&mut self, gateways: &[Gateway]) {
        if gateways.is_empty() {
            self.line("gateway", "none: actions are only shown".to_owned());
        }
        gateways.iter().for_each(|gateway| self.gateway(gateway));
    }

    fn gateway(&mut self, gateway: &Gateway) {
        let Gateway { name, kind, mode, caps, confirm_after_ms: _, probation } = gateway;
        let place = match kind {
            GatewayKind::File { path } => {
                let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
                if folder.is_some_and(|folder| !folder.is_dir()) {
                    let problem = format!("gateway \"{name}\": {} is in no folder: make it", path.display());
                    self.problems.push(problem);
                }
                format!("file {}", path.display())
            }
            GatewayKind::Topic => format!("topic {} of [sink.kafka]", View::Denied.name()),
            GatewayKind::Webhook { endpoint, secret: _ } => {
                format!("signed requests to {}", server(&endpoint.url))
            }
            GatewayKind::Kong(api) => admin_api("Kong", api),
            GatewayKind::Apisix(api) => admin_api("APISIX", api),
            GatewayKind::Aws(api) => {
                if let AwsCredentials::File(path) = &api.credentials
                    && let Err(error) = readable(path)
                {
                    self.problems.push(format!("gateway \"{name}\": {}: {error}", path.display()));
                }
                aws_api(api)
            }
        };
        let mode = match (mode, probation) {
            (PolicyMode::DryRun, _) => "dry run: actions are only shown",
            (PolicyMode::Live, Some(_)) => "live: keys are suspended, after a probation",
            (PolicyMode::Live, None) => "live: keys are suspended, without a probation",
        };
        let GatewayCaps { keys_per_hour, percent_per_hour } = caps;
        let keys = keys_per_hour.map(|keys| counted(keys as usize, "key"));
        let percent = percent_per_hour.map(|percent| format!("{percent} %"));
        let caps: Vec<String> = keys.into_iter().chain(percent).collect();
        let caps = match &caps[..] {
            [] => String::new(),
            caps => format!("; at most {} an hour", caps.join(" and ")),
        };
        self.line("gateway", format!("{name}: {place}, {mode}{caps}"));
    }

    /// Sends tests, unless there are problems.
    fn send_test(&mut self, alerts: &Alerts) {
        if !self.problems.is_empty() {
            self.warnings.push("no test was sent: what is wrong comes first".to_owned());
            return;
        }
        if alerts.email.is_none() && alerts.webhooks.is_empty() {
            self.warnings.push("no test was sent: there is nobody to be told".to_owned());
        }
        if let Some(email) = &alerts.email {
            match Mailer::new(email, Guide::new(alerts, &[])) {
                Ok(mailer) => {
                    for to in &email.to {
                        match mailer.test(to, clock::now()) {
                            Ok(()) => self.line("test", format!("a mail to {to} was handed over")),
                            Err(reason) => self.problems.push(format!("alerts.email: to {to}: {reason}")),
                        }
                    }
                }
                Err(error) => self.problems.push(format!("alerts.email: {error}")),
            }
        }
        for webhook in &alerts.webhooks {
            let name = &webhook.name;
            match Client::new(webhook, Guide::default()).map(|client| client.test(clock::now())) {
                Ok(WebhookOutcome::Sent) => self.line("test", format!("webhook {name} took a request")),
                Ok(WebhookOutcome::Retry { reason, .. } | WebhookOutcome::Refused(reason)) => {
                    self.problems.push(format!("alerts.webhook \"{name}\": {reason}"));
                }
                Err(error) => self.problems.push(format!("alerts.webhook \"{name}\": {error}")),
            }
        }
    }

    fn http(&mut self, http: Option<&Http>) {
        let text = match http {
            Some(Http { listen, token, public_url, people, gateways }) => {
                let token = if token.is_some() { "with a token" } else { "without a token" };
                let people = match people.len() {
                    0 => String::new(),
                    count => format!("; answers of {count} {}", if count == 1 { "person" } else { "people" }),
                };
                let gateways = match gateways.len() {
                    0 => String::new(),
                    count => format!("; outcomes of {}", counted(count, "gateway")),
                };
                let url =
                    public_url.as_ref().map_or_else(String::new, |url| format!("; as {}", url.as_str()));
                format!("{listen}, {token}{people}{gateways}{url}")
            }
            None => "nothing is served".to_owned(),
        };
        self.line("http", text);
    }

    fn state(&mut self, state: Option<&State>) {
        let text = match state {
            Some(State { place, options, shared, checkpoint_every_ms }) => {
                if let StatePlace::Remote(_) = place
                    && let Err(error) = Store::look_at(place, options)
                {
                    self.problems.push(error.to_string());
                }
                let shared = if *shared { "the shared " } else { "" };
                format!("checkpoints in {shared}{place}, each {}", duration_text(*checkpoint_every_ms))
            }
            None => "none: a job that is started again begins anew".to_owned(),
        };
        self.line("state", text);
    }

    fn cluster(&mut self, cluster: Option<&Cluster>) {
        let Some(cluster) = cluster else { return };
        let Cluster { advertise, processes, min_processes, settle_ms, tls, .. } = cluster;
        let links = if tls.is_some() { "links with TLS" } else { "links that aren't encrypted" };
        let text = format!(
            "{advertise}, for {processes} in all, at least {min_processes} after {}, {links}",
            duration_text(*settle_ms)
        );
        self.line("cluster", text);
    }

    /// Returns the texts of the lines, then the problems.
    fn lines(&self) -> impl Iterator<Item = String> {
        let texts = self.summary.iter().filter(|(what, _)| *what == "connect").map(|(_, text)| text);
        texts.chain(&self.problems).map(|text| plain(text))
    }

    /// Returns both reports, with the lines of `later` behind.
    fn joined(mut self, later: Self) -> Self {
        self.summary.extend(later.summary);
        self.problems.extend(later.problems);
        self.warnings.extend(later.warnings);
        self.has_useless_data |= later.has_useless_data;
        self
    }

    fn line(&mut self, what: &'static str, text: String) {
        self.summary.push((what, text));
    }

    fn write(self, path: &Path, out: &mut impl Write) -> io::Result<Exit> {
        let path = plain(&path.display().to_string());
        let valid = self.problems.is_empty();
        if valid {
            writeln!(out, "{path} is valid\n")?;
            for (what, text) in &self.summary {
                writeln!(out, "{what:<8} {}", plain(text))?;
            }
        }
        for problem in &self.problems {
            writeln!(out, "{}", plain(problem))?;
        }
        if !self.warnings.is_empty() {
            writeln!(out)?;
        }
        for warning in &self.warnings {
            writeln!(out, "warning: {}", plain(warning))?;
        }
        if valid {
            return Ok(if self.has_useless_data { Exit::Fatal } else { Exit::Done });
        }
        writeln!(out, "\n{} with what {path} names", counted(self.problems.len(), "problem"))?;
        Ok(Exit::Usage)
    }
}

/// Returns whether a record that is sent twice can be told from two equal calls.
fn has_identity(source: &Source) -> bool {
    let Source { format, inner, pattern, fields, dedupe, .. } = source;
    let is_id =
        |variable: &Variable| matches!(&variable.field, Some((field, _)) if *field == LineField::RequestId);
    let has_id = match inner.unwrap_or(*format) {
        Format::Combined => false,
        Format::Text => pattern.as_ref().is_some_and(|pattern| pattern.variables().any(is_id)),
        _ => true,
    };
    *dedupe != Dedupe::RequestId || has_id || fields.request_id.is_some()
}

/// Returns the addresses of a cluster and the names of a client's settings. Their values may be secret.
fn brokers(client: &KafkaClient) -> String {
    let KafkaClient { brokers, settings } = client;
    let names: Vec<&str> = settings.keys().map(String::as_str).collect();
    if names.is_empty() { brokers.clone() } else { format!("{brokers} with {}", names.join(", ")) }
}

/// Returns an error if a file can't be read. Only regular files are opened, as others may wait for ever.
fn readable(path: &Path) -> io::Result<()> {
    if path.metadata()?.is_file() {
        File::open(path)?;
    }
    Ok(())
}

/// Replaces control characters, as names of files may hold any.
fn plain(text: &str) -> String {
    text.replace(char::is_control, "\u{fffd}")
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Describes where credentials are changed, and what is proven before.
fn admin_api(of: &str, AdminApi { endpoint, token, unproven }: &AdminApi) -> String {
    let token = if token.is_some() { "with a token" } else { "without a token" };
    format!("credentials of {of} by {}, {token}; {}", server(&endpoint.url), proof(*unproven))
}

/// Does the same for Amazon API Gateway.
fn aws_api(AwsApi { endpoint, region, credentials, unproven }: &AwsApi) -> String {
    let keys = match credentials {
        AwsCredentials::Keys { .. } => "with an access key".to_owned(),
        AwsCredentials::File(path) => format!("with the access key in {}", path.display()),
    };
    let proof = proof(*unproven);
    format!("API keys of Amazon API Gateway in {region} by {}, {keys}; {proof}", server(&endpoint.url))
}

fn proof(unproven: bool) -> &'static str {
    if unproven { "keys are believed where nothing proves them" } else { "keys are proven" }
}

/// Returns a server without the part of its URL that may be a secret.
fn server(url: &WebhookUrl) -> String {
    let scheme = if url.tls { "https" } else { "http" };
    format!("{scheme} at {} port {}", url.host, url.port)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const JOB: &str = "\
[keys]
from = [\"key\"]
[[source]]
name = \"gateway\"
kind = \"file\"
path = \"logs/*.jsonl\"
format = \"json\"
[source.fields]
time = { at = \"/t\", unit = \"ms\" }
key = \"/k\"
";
    const TABLE: &str = "[tables.keys]\nkind = \"file\"\npath = \"keys.csv\"\nformat = \"csv\"\n";
    const GEO: &str = "[geo]\ncountry = \"country.mmdb\"\nasn = \"asn.mmdb\"\n";

    fn check_quietly(
        path: &Path,
        ask: Ask,
        env: impl Iterator<Item = (String, String)>,
        out: &mut Vec<u8>,
    ) -> Exit {
        check(path, ask, env, out, &mut |_| {}).unwrap()
    }

    /// Returns the report on `config` beside `files`, without the folder's name.
    fn checked(config: &str, files: &[(&str, &str)]) -> (Exit, String) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("logs")).unwrap();
        for (name, content) in files.iter().chain([&("keytide.toml", config)]) {
            fs::write(folder.path().join(name), content).unwrap();
        }
        let mut out = Vec::new();
        let exit =
            check_quietly(&folder.path().join("keytide.toml"), Ask::default(), std::iter::empty(), &mut out);
        (exit, String::from_utf8(out).unwrap().replace(&format!("{}/", folder.path().display()), ""))
    }

    #[test]
    fn a_valid_job_is_summed_up() {
        let hash = "a".repeat(64);
        let table = format!("key_hash,subscription\n{hash},s-1\nnot-a-hash,s-2\n");
        let call = r#"{"t":1763642655000,"k":"kt_demo_canary","p":"/v1/x"}"#;
        let logs = [format!("{call}\n"), format!("{}\n{{}}\n", call.replace("kt_demo_canary", ""))];
        let files = [("logs/a.jsonl", &*logs[0]), ("logs/b.jsonl", &*logs[1]), ("keys.csv", &*table)];
        let (exit, report) = checked(&format!("{JOB}{TABLE}"), &files);
        assert_eq!(exit, Exit::Done, "{report}");
        for line in [
            "keytide.toml is valid",
            "job      keytide, tick 1s, 1 worker",
            "source   gateway: json from logs/*.jsonl (2 files, 95 bytes)",
            "data     gateway: 3 records looked at: 2 accepted, 1 refused",
            "         keys found by: key 1, none 1",
            "         times: 2025-11-20T12:44:15Z to 2025-11-20T12:44:15Z",
            "         records have: /k, /p, /t",
            "         key: key; hash: sha256; a call without one counts as anonymous",
            "table    keys: 1 row in keys.csv (csv)",
            "windows  out of orderness 5s, allowed lateness 10m, dedupe horizon 1h",
        ] {
            assert!(report.lines().any(|found| found == line), "{line}\n{report}");
        }
        for warning in [
            "tables.keys: keys.csv:3: ",
            "source \"gateway\": 1 of 3 records was refused (1 field), the first in logs/b.jsonl at byte 39\n",
            "source \"gateway\": 1 of 2 calls have no key that a rule of keys.from finds, and count as anonymous\n",
        ] {
            assert!(report.contains(&format!("warning: {warning}")), "{warning}\n{report}");
        }
        for value in ["not-a-hash", "kt_demo", "/v1/x"] {
            assert!(!report.contains(value), "{report}");
        }
    }

    #[test]
    fn records_of_which_none_is_accepted_make_the_exit_code_3() {
        let line = r#"198.51.100.7 - - [20/Nov/2025:12:44:15 +0000] "GET /v1/x HTTP/1.1" 200 5 "-" "curl/8""#;
        let (exit, report) = checked(JOB, &[("logs/a.jsonl", line)]);
        assert_eq!(exit, Exit::Fatal, "{report}");
        for warn in [
            "keytide.toml is valid\n",
            "warning: source \"gateway\": nothing was accepted: ",
            ", the first in logs/a.jsonl at byte 0\n",
            "warning: source \"gateway\": lines look like `combined`, and the format is `json`\n",
        ] {
            assert!(report.contains(warn), "{warn}\n{report}");
        }
        assert!(!report.contains("curl") && !report.contains("/v1"), "{report}");
        let (exit, report) = checked(JOB, &[("logs/a.jsonl", "\n")]);
        assert_eq!(exit, Exit::Done, "{report}");
        assert!(report.contains("data     gateway: no records yet\n"), "{report}");
    }

    #[test]
    fn lines_without_a_request_id_are_warned_about() {
        let source = |format: &str| {
            format!(
                "[keys]\nfrom = [\"user\"]\n[[source]]\nname = \"web\"\nkind = \"file\"\npath = \"logs/*\"\n{format}\n"
            )
        };
        let warning =
            "warning: source \"web\": repeated records aren't told apart, as its lines have no request id: ";
        let line = "\n         repeated records aren't told apart\n";
        for (format, is_said, is_warned) in [
            ("format = \"combined\"", true, true),
            ("format = \"combined\"\ndedupe = \"batch\"", false, false),
            ("format = \"text\"\npattern = '$remote_user [$time_local] $status'", true, false),
            ("format = \"text\"\npattern = '$remote_user [$time_local] $status $request_id'", false, false),
            ("format = \"nginx\"", false, false),
        ] {
            let (exit, report) = checked(&source(format), &[]);
            assert_eq!(exit, Exit::Done, "{report}");
            assert_eq!((report.contains(line), report.contains(warning)), (is_said, is_warned), "{report}");
        }
    }

    #[test]
    fn problems_of_the_configuration_hide_none_of_the_files_it_names() {
        let rest = "[tables.keys]\nkind = \"file\"\npath = \"keys.csv\"\nformat = \"csv\"\n[tables.plans]\nkind = \"file\"\n\
                    path = \"plans.csv\"\nformat = \"xls\"\n[geo]\ncountry = \"country.mmdb\"\n[sink.kafka]\nbrokers = \"\"\n";
        let kafka = "[[source]]\nname = \"events\"\nkind = \"kafka\"\nbrokers = \"b:1\"\ntopic = \"t\"\nformat = \"apisix\"\n\
                     [source.librdkafka]\n\"sasl.usrname\" = \"env:USER\"\n\"client.rck\" = \"a\"\n";
        let (exit, report) = checked(&format!("{JOB}{kafka}{rest}"), &[]);
        assert_eq!(exit, Exit::Usage, "{report}");
        for problem in [
            "tables.plans.format: found \"xls\", allowed: csv, jsonl",
            "sink.kafka.brokers: found \"\", allowed: 1 to 64 of host:port, separated by commas",
            "\ntables.keys: can't read keys.csv: No such file or directory (os error 2)\n",
            "\ngeo.country: can't read country.mmdb: No such file or directory (os error 2)\n",
        ] {
            assert!(report.contains(problem), "{problem}\n{report}");
        }
        assert!(!report.contains("plans.csv"), "its section has a problem: {report}");
        let count = report.lines().filter(|line| line.contains(": ")).count();
        assert!(report.ends_with(&format!("\n\n{count} problems in keytide.toml\n")), "{report}");
    }

    #[test]
    fn a_table_in_the_other_format_is_told_as_that() {
        let hash = "a".repeat(64);
        let rows = [format!("key_hash,subscription\n{hash},s\n"), format!("{{\"key_hash\":\"{hash}\"}}\n")];
        for ((declared, other), content) in [("jsonl", "csv"), ("csv", "jsonl")].into_iter().zip(&rows) {
            let table = TABLE.replace("format = \"csv\"", &format!("format = \"{declared}\""));
            let (exit, report) = checked(&format!("{JOB}{table}"), &[("keys.csv", content)]);
            assert_eq!(exit, Exit::Usage, "{report}");
            let problem = format!(
                "tables.keys: keys.csv looks like {other}, and the format is `{declared}`: set `format = \"{other}\"`\n"
            );
            assert!(report.contains(&problem) && !report.contains(&hash), "{problem}\n{report}");
        }
    }

    #[test]
    fn topics_sinks_and_services_are_summed_up() {
        const CANARY: &str = "canary-4f1c9e-long-enough";
        let config = "\
[[source]]
name = \"gateway\"
kind = \"kafka\"
brokers = \"kafka-1:9092, kafka-2:9092\"
topic = \"access-events\"
start = { 0 = 7 }
on_gap = \"skip\"
format = \"apisix\"
[source.librdkafka]
\"sasl.username\" = \"env:CANARY\"
\"client.rack\" = \"r-1\"
[tables.keys]
kind = \"kafka\"
brokers = \"kafka-1:9092\"
topic = \"api-keys\"
format = \"json-upsert\"
[sink.kafka]
brokers = \"kafka-1:9092\"
partitions = 12
replication = 3
[sink.files]
dir = \"out\"
keep = 9
[alerts.email]
server = \"smtp.example.com:465\"
username = \"keytide\"
password = \"env:CANARY\"
from = \"keytide@example.com\"
to = [\"a@example.com\", \"b@example.com\"]
owners = true
quota_notices = true
owner_language = \"ko\"
[alerts.webhook]
url = \"https://hooks.example.com/canary-4f1c9e-long-enough\"
secret = \"env:CANARY\"
[[gateway]]
name = \"edge\"
kind = \"file\"
path = \"denied.txt\"
keys_per_hour = 1
percent_per_hour = 2
[[gateway]]
name = \"receiver\"
kind = \"webhook\"
url = \"https://hooks.example.com/canary-4f1c9e-long-enough\"
secret = \"env:CANARY\"
token = \"env:RECEIVER\"
[[gateway]]
name = \"kong\"
kind = \"kong\"
url = \"https://kong.example.com:8444\"
admin_token = \"env:CANARY\"
unproven = true
[[gateway]]
name = \"aws\"
kind = \"aws-apigateway\"
region = \"eu-central-1\"
credentials_file = \"aws-credentials\"
[http]
listen = \"0.0.0.0:80\"
token = \"env:CANARY\"
[http.people]
alice = \"env:ALICE\"
";
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keytide.toml");
        fs::write(&file, config).unwrap();
        fs::write(folder.path().join("aws-credentials"), "[default]\n").unwrap();
        let mut out = Vec::new();
        let env =
            [("CANARY", CANARY), ("ALICE", "the-canary-of-alice"), ("RECEIVER", "the-canary-of-a-gateway")];
        let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let exit = check_quietly(&file, Ask::default(), env.into_iter(), &mut out);
        let report = String::from_utf8(out).unwrap().replace(&format!("{}/", folder.path().display()), "");
        assert_eq!(exit, Exit::Done, "{report}");
        for line in [
            "source   gateway: apisix from topic access-events at kafka-1:9092,kafka-2:9092 with client.rack, sasl.username",
            "         start: { 0 = 7 }; end of a bounded run: latest; records that are gone are passed over",
            "table    keys: topic api-keys at kafka-1:9092 (json-upsert)",
            "sink     topics at kafka-1:9092, at_least_once, up to 64MiB wait",
            &format!("         {}", View::ALL.map(|view| view.topic("keytide")).join(", ")),
            "         topics that are missing are made with 12 partitions of 3 replicas",
            "sink     jsonl files in out, closed at 64MiB or after 1h, 9 of a view kept",
            "mail     by smtp.example.com port 465 (tls) as keytide, to a@example.com, b@example.com in en, owners and notices of quotas in ko",
            "         at most 200 mails an hour, 20 to one address; a digest above 10 incidents a minute",
            "webhook  webhook: keytide to https at hooks.example.com port 443, signed, within 10s",
            "policy   alert unless the plan says otherwise; at most 10 keys and 1 % an hour, once in 1d",
            "gateway  edge: file denied.txt, dry run: actions are only shown; at most 1 key and 2 % an hour",
            "gateway  receiver: signed requests to https at hooks.example.com port 443, dry run: actions are only shown",
            "gateway  kong: credentials of Kong by https at kong.example.com port 8444, with a token; keys are believed where nothing proves them, dry run: actions are only shown",
            "gateway  aws: API keys of Amazon API Gateway in eu-central-1 by https at apigateway.eu-central-1.amazonaws.com port 443, with the access key in aws-credentials; keys are proven, dry run: actions are only shown",
            "http     0.0.0.0:80, with a token; answers of 1 person; outcomes of 1 gateway",
            "log      pretty, info",
        ] {
            assert!(report.lines().any(|found| found == line), "{line}\n{report}");
        }
        assert!(!report.contains(CANARY) && !report.contains("the-canary-of"), "{report}");
        let names = fs::read_dir(folder.path()).unwrap().count();
        assert_eq!(names, 2, "check makes no folder beside the configuration and the access key");
    }

    #[test]
    fn a_live_job_without_files_is_valid_as_it_stands() {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples/kafka.toml");
        let mut out = Vec::new();
        assert_eq!(check_quietly(&example, Ask::default(), std::iter::empty(), &mut out), Exit::Done);
        let report = String::from_utf8(out).unwrap();
        assert!(report.contains("access-meter.usage.v1"), "{report}");
    }

    #[test]
    fn misspelt_settings_of_clients_are_reported_without_a_connection() {
        let kafka = "kind = \"kafka\"\nbrokers = \"127.0.0.1:1\"\ntopic = \"t\"\n";
        let config = format!(
            "[[source]]\nname = \"gateway\"\n{kafka}format = \"apisix\"\n\
             [source.librdkafka]\n\"fetch.max.byts\" = 1\n\"client.rack\" = \"canary\"\n\
             [tables.keys]\n{kafka}format = \"json-upsert\"\n\
             [tables.keys.librdkafka]\n\"debug\" = \"canary\"\n\
             [sink.kafka]\nbrokers = \"127.0.0.1:1\"\n\
             [sink.kafka.librdkafka]\n\"lingr.ms\" = \"canary\"\n"
        );
        let (exit, report) = checked(&config, &[]);
        assert_eq!(exit, Exit::Usage, "{report}");
        let warn: Vec<&str> = report.lines().filter(|line| line.contains("librdkafka")).collect();
        assert_eq!(
            warn,
            [
                "source \"gateway\": librdkafka refuses the setting `fetch.max.byts`: there is no such setting; did you mean fetch.max.bytes?",
                "tables.keys: librdkafka refuses the setting `debug`: its value isn't allowed",
                "sink.kafka: librdkafka refuses the setting `lingr.ms`: there is no such setting; did you mean linger.ms?",
            ]
        );
        assert!(!report.contains("canary"), "{report}");
    }

    #[test]
    fn bad_rows_of_leaks_and_bad_lines_of_networks_are_warnings_that_quote_nothing() {
        let config = format!(
            "{JOB}[tables.leaks]\nkind = \"file\"\npath = \"leaks.csv\"\nformat = \"csv\"\n[geo]\nnetworks = \"networks.csv\"\n"
        );
        let files = [
            ("logs/a.jsonl", "\n"),
            ("leaks.csv", "token,url\nkt_secret_1,https://example.com\n,kt_secret_2\n"),
            ("networks.csv", "198.51.100.0/24,vpn\nkt_secret_3,vpn\n"),
        ];
        let (exit, report) = checked(&config, &files);
        assert_eq!(exit, Exit::Done, "{report}");
        for line in [
            "table    leaks: 1 row in leaks.csv (csv)",
            "geo      networks: networks.csv",
            "warning: tables.leaks: leaks.csv:3: `token` or `key_hash` is required; the row is left out",
        ] {
            assert!(report.lines().any(|found| found == line), "{line}\n{report}");
        }
        assert!(report.contains("warning: geo.networks: networks.csv:2: no network"), "{report}");
        assert_eq!(report.matches("geo.networks: ").count(), 1, "{report}");
        assert!(!report.contains("secret"), "{report}");
    }

    #[test]
    fn a_pattern_without_a_match_is_a_warning() {
        let (exit, report) = checked(JOB, &[]);
        assert_eq!(exit, Exit::Done);
        assert!(report.contains("\nwarning: source \"gateway\": `logs/*.jsonl` matches no file"), "{report}");
    }

    #[test]
    fn all_problems_of_files_are_reported_at_once() {
        let (exit, report) = checked(&format!("{JOB}{TABLE}{GEO}"), &[("asn.mmdb", "no database")]);
        assert_eq!(exit, Exit::Usage);
        for problem in [
            "tables.keys: can't read keys.csv: ",
            "geo.country: can't read ",
            "geo.asn: asn.mmdb is not a usable",
        ] {
            assert!(report.lines().any(|line| line.starts_with(problem)), "{problem}\n{report}");
        }
        assert!(report.ends_with("\n3 problems with what keytide.toml names\n"), "{report}");
        assert!(!report.contains("is valid"));
    }

    #[test]
    fn all_problems_of_the_configuration_are_reported_at_once() {
        let (exit, report) = checked("[job]\nworkers = 0\ntick = 1\n", &[]);
        assert_eq!(exit, Exit::Usage);
        assert!(report.ends_with("\n3 problems in keytide.toml\n"), "{report}");
        assert_eq!(report.lines().filter(|line| line.starts_with("keytide.toml:")).count(), 3, "{report}");
    }

    #[test]
    fn mails_need_templates_and_certificates_that_can_be_used_but_no_folder() {
        let email = "[alerts.email]\nserver = \"127.0.0.1:587\"\nca = \"ca.pem\"\ndir = \"mails\"\n\
                     from = \"a@example.com\"\nto = [\"b@example.com\"]\n";
        let (exit, report) = checked(&format!("{JOB}{email}"), &[("ca.pem", "none")]);
        assert_eq!(exit, Exit::Usage);
        assert!(report.starts_with("alerts.email: ca.pem: it has no certificate (PEM)\n"), "{report}");

        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keytide.toml");
        fs::write(&file, format!("{JOB}{}", email.replace("server", "# server").replace("ca =", "# ca =")))
            .unwrap();
        assert_eq!(check_quietly(&file, Ask::default(), std::iter::empty(), &mut Vec::new()), Exit::Done);
        assert!(!folder.path().join("mails").exists(), "check makes no folder");
        let ask = Ask { connect: true, send_test: true };
        let mut out = Vec::new();
        assert_eq!(check_quietly(&file, ask, std::iter::empty(), &mut out), Exit::Done);
        let report = String::from_utf8(out).unwrap();
        assert!(report.contains("test     a mail to b@example.com was handed over"), "{report}");
        assert_eq!(folder.path().join("mails").read_dir().unwrap().count(), 1);
    }

    #[test]
    fn link_and_steps_are_summed_up_without_the_path() {
        let alerts = "[alerts]\nlink = \"https://soc.example.com/secret/{incident_id}\"\n\
                      [alerts.steps]\nsecurity = [\"ourctl keys suspend {key_id}\"]\n";
        let (_, report) = checked(&format!("{JOB}{alerts}"), &[]);
        for line in [
            "link     of incidents: to https://soc.example.com\n",
            "steps    for security 1, for owners the built-in ones\n",
        ] {
            assert!(report.contains(line), "{line}{report}");
        }
    }

    #[test]
    fn tests_reach_nobody_who_is_out_of_bounds() {
        let hook = "[alerts.webhook]\nurl = \"https://10.0.0.1/canary\"\nformat = \"slack\"\n";
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keytide.toml");
        fs::write(&file, format!("{JOB}{hook}")).unwrap();
        let ask = Ask { connect: true, send_test: true };
        let mut out = Vec::new();
        assert_eq!(check_quietly(&file, ask, std::iter::empty(), &mut out), Exit::Usage);
        let report = String::from_utf8(out).unwrap();
        // The reason may also be that this machine trusts no certificate authority.
        assert!(report.contains("alerts.webhook \"webhook\": "), "{report}");
        assert!(report.contains("warning: no test was sent") && !report.contains("canary"), "{report}");
    }

    #[test]
    fn servers_that_cannot_be_reached_are_told_at_once_with_the_setting_to_change() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let alerts = format!(
            "[sink.kafka]\nbrokers = \"no-such-host.invalid:9092\"\n[alerts.email]\nserver = \"{closed}\"\ntls = \"none\"\n\
             from = \"a@example.com\"\nto = [\"b@example.com\"]\n[alerts.webhook]\nurl = \"https://no-such-host.invalid/x\"\n\
             format = \"slack\"\n"
        );
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("keytide.toml");
        fs::write(&file, format!("{JOB}{alerts}")).unwrap();
        let (mut out, mut known) = (Vec::new(), Vec::new());
        let ask = Ask { connect: true, send_test: false };
        let exit =
            check(&file, ask, std::iter::empty(), &mut out, &mut |line| known.push(line.to_owned())).unwrap();
        let report = String::from_utf8(out).unwrap();
        assert_eq!(exit, Exit::Usage, "{report}");
        for (start, end) in [
            ("sink.kafka: no-such-host.invalid:9092: the host's name is unknown: correct `brokers`, ", ")"),
            (
                &*format!("alerts.email: {closed}: "),
                "nothing listens there: correct `server`, or start the server",
            ),
            ("alerts.webhook \"webhook\": ", ""),
        ] {
            let is_told = |line: &str| line.starts_with(start) && line.ends_with(end);
            assert!(report.lines().any(is_told), "{start}{end}\n{report}");
            assert!(known.iter().any(|line| is_told(line)), "{start}{end}\n{known:?}");
        }
    }

    #[test]
    fn what_to_do_about_a_host_depends_on_why_it_is_not_reached() {
        let advice = |reason| connect::advice(reason, "url");
        assert_eq!(
            advice("h: failed to lookup address information"),
            "; correct `url`, or the name service of this machine"
        );
        assert_eq!(
            advice("deadline timed out"),
            "; correct `url`, or let the network between pass the connection"
        );
        assert_eq!(advice("a certificate isn't trusted"), "");
    }

    #[test]
    fn nothing_written_can_steer_a_terminal() {
        assert_eq!(plain("a\u{1b}[31mb\nc"), "a\u{fffd}[31mb\u{fffd}c");
    }
}
