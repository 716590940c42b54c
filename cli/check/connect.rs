//! The look-ups of `check --connect`: brokers, the bucket of the state, the mail server, the addresses of webhooks. They
//! create and send nothing, but for an object in the bucket, which is deleted again.

use std::net::IpAddr;

use keytide_alerts::email::Guide;
use keytide_alerts::gateways;
use keytide_alerts::outbox::Mailer;
use keytide_alerts::webhook::Client;
use keytide_config::{
    AdminApi, AwsApi, Delivery, EmailAlerts, End, Gateway, GatewayKind, JobConfig, KafkaClient, KafkaSink,
    KafkaSource, Source, SourceKind, State, StatePlace, TableSource, Webhook,
};
use keytide_connectors::kafka::{KafkaError, Right, Topic};
use keytide_connectors::ledger;
use keytide_connectors::sink::{self, SinkError};
use keytide_connectors::store::Store;

use super::steps::CheckStep;
use super::{CheckReport, counted, each_table};

/// The rights that reading a topic needs.
const READING: [Right; 2] = [Right::Describe, Right::Read];

/// Returns a step for everything that the configuration names at another place.
pub(super) fn steps(config: &JobConfig) -> Vec<CheckStep<'_>> {
    let JobConfig { sources, tables, sinks, alerts, state, .. } = config;
    let mut steps = Vec::new();
    for source in sources {
        if let SourceKind::Kafka(kafka) = &source.kind {
            steps.push(CheckStep::lookup(move |report| report.lookup_source(source, kafka, config)));
        }
    }
    for (name, table, _) in each_table(tables) {
        if let Some(TableSource::Kafka { client, topic, .. }) = table {
            steps.push(CheckStep::lookup(move |report| report.lookup_table(name, client, topic)));
        }
    }
    if let Some(kafka) = &sinks.kafka {
        steps.push(CheckStep::lookup(move |report| report.lookup_sink(kafka)));
    }
    if let Some(state) = state.as_ref().filter(|state| matches!(state.place, StatePlace::Remote(_))) {
        steps.push(CheckStep::lookup(move |report| report.lookup_state(state)));
    }
    if let Some(email) = &alerts.email {
        steps.push(CheckStep::lookup(move |report| report.lookup_mail(email)));
    }
    for webhook in &alerts.webhooks {
        steps.push(CheckStep::lookup(move |report| report.lookup_webhook(webhook)));
    }
    for gateway in &config.gateways {
        steps.push(CheckStep::lookup(move |report| report.lookup_gateway(gateway)));
    }
    steps
}

impl CheckReport {
    /// Asks for a source's partitions, offsets and records, and for the rights on its topic.
    fn lookup_source(&mut self, source: &Source, kafka: &KafkaSource, config: &JobConfig) {
        let place = format!("source \"{}\"", source.name);
        let Some(topic) = self.may_read(&place, &kafka.client, &kafka.topic) else { return };
        let found = topic.partitions().and_then(|partitions| {
            let starts = topic.starts(&kafka.start, &partitions)?;
            let ends = topic.ends(&End::Latest, &partitions)?;
            let ahead = starts.iter().zip(&ends).map(|((_, start), (_, end))| end.saturating_sub(*start));
            Ok((partitions.len(), ahead.sum::<u64>()))
        });
        match found {
            Ok((partitions, ahead)) => {
                let partitions = counted(partitions, "partition");
                self.line("connect", format!("{}: {partitions}, {ahead} records to read", source.name));
                self.look(source, config);
            }
            Err(error) => self.problems.push(format!("{place}: {error}")),
        }
    }

    fn lookup_table(&mut self, name: &str, client: &KafkaClient, topic: &str) {
        let place = format!("tables.{name}");
        let Some(topic) = self.may_read(&place, client, topic) else { return };
        match topic.partitions() {
            Ok(partitions) => {
                let partitions = counted(partitions.len(), "partition");
                self.line("connect", format!("{place}: {partitions}"));
            }
            Err(error) => self.problems.push(format!("{place}: {error}")),
        }
    }

    /// Returns a topic that the user may read, as far as brokers tell. Otherwise it reports each right that is missing.
    fn may_read(&mut self, place: &str, client: &KafkaClient, topic: &str) -> Option<Topic> {
        let opened = Topic::open(client, topic).and_then(|topic| Ok((topic.denied(&READING)?, topic)));
        let (denied, topic) = match opened {
            // The settings' own problems are reported already.
            Err(KafkaError::Setting { .. }) => return None,
            Err(error) => {
                self.problems.push(format!("{place}: {error}"));
                return None;
            }
            Ok(opened) => opened,
        };
        self.problems.extend(denied.iter().map(|error| format!("{place}: {error}")));
        denied.is_empty().then_some(topic)
    }

    /// Tries the bucket of the state on an object that is deleted again.
    fn lookup_state(&mut self, state: &State) {
        let place = &state.place;
        match Store::look_at(place, &state.options).and_then(|store| store.probe()) {
            Ok(()) => {
                self.line("connect", format!("{place}: objects can be written, each once, and deleted"))
            }
            Err(error) => self.problems.push(error.to_string()),
        }
    }

    /// Looks at the sink's topics and the rights on them, and tries to create those that are missing.
    fn lookup_sink(&mut self, kafka: &KafkaSink) {
        let found = match sink::check(kafka) {
            Ok(found) => found,
            Err(SinkError::Kafka(KafkaError::Setting { .. })) => return,
            Err(error) => {
                self.problems.push(error.to_string());
                return;
            }
        };
        let mut missing = found.missing;
        let mut problems: Vec<String> = found.problems.iter().map(ToString::to_string).collect();
        if kafka.delivery == Delivery::ExactlyOnce {
            match ledger::check(kafka) {
                Ok(true) => {}
                Ok(false) => missing.push(kafka.progress_topic()),
                Err(error) => problems.push(error.to_string()),
            }
        }
        self.warnings.extend(found.warnings);
        let is_fit = problems.is_empty();
        self.problems.extend(problems);
        if is_fit {
            let text = match &missing[..] {
                [] => "all topics are there and fit".to_owned(),
                missing => format!("the job will create {}", missing.join(", ")),
            };
            self.line("connect", format!("sink.kafka: {text}"));
        }
    }

    /// Signs in at the mail server.
    fn lookup_mail(&mut self, email: &EmailAlerts) {
        // Problems of its files are reported already.
        let Ok(mailer) = Mailer::new(&EmailAlerts { dir: None, ..email.clone() }, Guide::default()) else {
            return;
        };
        match mailer.connect() {
            Ok(Some(found)) => self.line("connect", format!("alerts.email: {found}")),
            Ok(None) => {}
            Err(reason) => self.problems.push(format!("alerts.email: {reason}{}", advice(&reason, "server"))),
        }
    }

    /// Resolves the host of a webhook.
    fn lookup_webhook(&mut self, webhook: &Webhook) {
        let name = &webhook.name;
        let client = Client::new(webhook, Guide::default()).map_err(|error| error.to_string());
        let found = client.and_then(|client| client.resolve());
        self.resolved(&format!("alerts.webhook \"{name}\""), &webhook.url.host, found);
    }

    /// Resolves the host of a gateway that is called.
    fn lookup_gateway(&mut self, gateway: &Gateway) {
        let endpoint = match &gateway.kind {
            GatewayKind::File { .. } | GatewayKind::Topic => return,
            GatewayKind::Webhook { endpoint, .. }
            | GatewayKind::Kong(AdminApi { endpoint, .. })
            | GatewayKind::Apisix(AdminApi { endpoint, .. })
            | GatewayKind::Aws(AwsApi { endpoint, .. }) => endpoint,
        };
        let found = gateways::addresses(endpoint);
        self.resolved(&format!("gateway \"{}\"", gateway.name), &endpoint.url.host, found);
    }

    /// Says where a host is.
    fn resolved(&mut self, section: &str, host: &str, found: Result<Vec<IpAddr>, String>) {
        match found {
            Ok(addresses) => {
                let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                self.line("connect", format!("{section}: {host} is at {}", addresses.join(", ")));
            }
            Err(reason) => {
                let advice = advice(&reason, "url");
                self.problems.push(format!("{section}: {reason}{advice}"));
            }
        }
    }
}

/// Returns what to do about a host that can't be reached, whose name is in `setting`. It is nothing for other reasons.
pub(super) fn advice(reason: &str, setting: &str) -> String {
    let has = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    if has(&["failed to lookup address", "Name or service not known"]) {
        format!("; correct `{setting}`, or the name service of this machine")
    } else if has(&["Connection refused"]) {
        format!("; nothing listens there: correct `{setting}`, or start the server")
    } else if has(&["timed out", "unreachable", "No route to host"]) {
        format!("; correct `{setting}`, or let the network between pass the connection")
    } else {
        String::new()
    }
}
