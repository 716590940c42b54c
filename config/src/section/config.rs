//! The whole file: its sections, and the relations between them.

use std::collections::BTreeMap;

use glob::Pattern;

use super::alerts::{Alerts, RawAlerts};
use super::api::{Api, RawApi};
use super::billing::{Billing, RawBilling};
use super::cluster::{Cluster, RawCluster};
use super::detection::{Detection, RawDetection};
use super::gateway::{Gateway, Needed, RawGateway, gateways};
use super::geo::{Geo, RawGeo};
use super::http::{Http, RawHttp};
use super::job::{Job, RawJob};
use super::keys::RawKeys;
use super::limits::{Limits, RawLimits};
use super::log::{Log, RawLog};
use super::pages::{Pages, RawPages};
use super::prelude::*;
use super::routes::{RawRoutes, Routes};
use super::sink::{Delivery, RawSinks, Sinks};
use super::source::{RawSource, Shared, Source, SourceKind, sources};
use super::state::{RawState, State};
use super::tables::{RawTables, Tables};
use super::windows::{RawWindows, Windows};
use crate::fingerprint::fingerprint;
use crate::view::View;

section! {
    /// A whole job. Outside of this crate it exists only if no problem was found: nothing there can make one.
    ///
    /// ```compile_fail
    /// fn made(job: keytide_config::JobConfig) -> keytide_config::JobConfig {
    ///     keytide_config::JobConfig { ..job }
    /// }
    /// ```
    #[derive(Clone, Debug)]
    #[non_exhaustive]
    pub struct JobConfig, RawConfig, pub(crate) new(sources: Vec<Source>) {
        results job: Job = job(RawJob) or Job::default();
        key keys(RawKeys);
        /// Each `[[source]]` in the order of the file, with unique names.
        results sources: Vec<Source> = source(List<RawSource>);
        results tables: Tables = tables(RawTables) or Tables::default();
        results geo: Geo = geo(RawGeo) or Geo::default();
        results routes: Routes = routes(RawRoutes) or Routes::default();
        results billing: Billing = billing(RawBilling) or Billing::default();
        results windows: Windows = windows(RawWindows) or Windows::default();
        results limits: Limits = limits(RawLimits) or Limits::default();
        other sinks: Sinks = sink(RawSinks) or Sinks::default();
        results detection: Detection = detection(RawDetection) or Detection::default();
        results alerts: Alerts = alerts(RawAlerts) or Alerts::default();
        /// Without a `[[gateway]]` actions are only shown.
        results gateways: Vec<Gateway> = _ or Vec::new();
        key gateway(Sections<RawGateway>);
        /// Without `[http]` neither metrics nor health are served.
        other http: Option<Http> = http(RawHttp) or None;
        /// Without `[api]` neither gateways nor customers can ask.
        other api: Option<Api> = api(RawApi) or None;
        /// Without `[pages]` the listener of `[api]` serves no pages.
        other pages: Option<Pages> = pages(RawPages) or None;
        /// Without `[state]` a job that is started again begins anew.
        other state: Option<State> = state(RawState) or None;
        /// Without `[cluster]` the job is one process.
        other cluster: Option<Cluster> = cluster(RawCluster) or None;
        other log: Log = log(RawLog) or Log::default();
    }
}

impl JobConfig {
    /// Returns 32 hexadecimal digits, equal for configurations that give equal results.
    ///
    /// Settings that only name the job or set its pace (`job.name`, `job.workers`, `limits.block_bytes`, librdkafka's)
    /// don't count, nor do sinks. Paths, brokers and topics count as they are written, without their content.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        fingerprint(self)
    }
}

/// Validates a file in the folder `base`. Suspicious values that are allowed go to `warnings`. Sections and sources
/// with problems are left out of the result.
pub(crate) fn validate(
    raw: &RawConfig,
    base: &Path,
    env: &BTreeMap<String, String>,
    problems: &mut Problems,
    warnings: &mut Problems,
) -> JobConfig {
    let mut check = Check { base, env, problems, warnings };
    let mut config = JobConfig::new(Vec::new());
    raw.fill(&mut config, &mut check);
    let absent = RawKeys::default();
    let routes = raw.routes.value().and_then(|routes| routes.from.value()).copied();
    let shared = Shared { keys: raw.keys.value().unwrap_or(&absent), routes };
    config.sources = sources(&raw.source, shared, config.job.workers, &mut check);
    loops(raw, &config, &mut check);
    let tokens = raw.tables.value().map(|tables| &tables.tokens).filter(|tokens| !tokens.is_absent());
    if let Some((spot, api)) = raw.api.given().zip(config.api.as_ref()) {
        let sources = raw.source.value().map(|list| list.items.as_slice()).unwrap_or_default();
        RawApi::with_others(spot, api, (sources, tokens.is_some()), &mut check);
        RawApi::with_settlements(spot, &config.sources, &mut check);
    } else if let Some(spot) = tokens.and_then(Entry::given).filter(|_| raw.api.is_absent()) {
        check.warn(spot, "has no effect: without [api] nobody shows a token");
    }
    if let Some(spot) = raw.pages.given().filter(|_| raw.api.is_absent()) {
        check.warn(spot, "has no effect: the listener of [api] serves pages, and there is none");
    }
    if let Some((spot, cluster)) = raw.cluster.given().zip(config.cluster.as_ref()) {
        let workers = config.job.workers.get();
        let others = (config.state.as_ref(), &config.sinks);
        RawCluster::with_others(spot, cluster, workers, others, &mut check);
    }
    deliver(raw, &mut config, &mut check);
    let needed = Needed {
        mode: config.alerts.policy.mode,
        has_state: raw.state.given().is_some(),
        has_topics: config.sinks.kafka.is_some(),
        has_proof: config.sources.is_empty()
            || config.sources.iter().any(|source| source.keys.hash.is_of_raw_keys()),
        detection: &config.detection,
        sources: &config.sources,
        http: config.http.as_mut(),
    };
    config.gateways = gateways(&raw.gateway, needed, &mut check);
    let public_url = config.http.as_ref().filter(|http| !http.people.is_empty());
    if let Some(url) = public_url.and_then(|http| http.public_url.as_ref()) {
        // Commands ask a job at http:// alone.
        config.alerts.asked = url.as_str().starts_with("http://").then(|| url.as_str().to_owned());
        config.alerts.link.get_or_insert_with(|| url.incident());
    }
    config
}

/// Decides the promise of the Kafka sink, for which a job needs a state.
fn deliver(raw: &RawConfig, config: &mut JobConfig, check: &mut Check<'_>) {
    let Some(sink) = &mut config.sinks.kafka else { return };
    let given = raw.sink.value().and_then(|sinks| sinks.kafka.value()).and_then(|sink| sink.delivery.given());
    match given {
        None if raw.state.given().is_some() => sink.delivery = Delivery::ExactlyOnce,
        Some(given) if given.value == Delivery::ExactlyOnce && raw.state.given().is_none() => {
            let message = format!(
                "found {} without [state], allowed: {}; a job that keeps no state begins anew and publishes again, so add \
                 [state] or remove this",
                given.shown,
                Delivery::AtLeastOnce.name()
            );
            check.refuse(given, message);
        }
        _ => {}
    }
}

/// Refuses a job that would read what it writes.
fn loops(raw: &RawConfig, config: &JobConfig, check: &mut Check<'_>) {
    let tables = raw.tables.value();
    let spots = raw.source.value().map_or(&[][..], |list| &list.items);
    if let Some(sink) = &config.sinks.kafka {
        let of_sources = spots.iter().filter_map(|source| source.value.topic.given());
        let of_tables = tables.into_iter().flat_map(RawTables::topics);
        for topic in of_sources.chain(of_tables) {
            let is_written = View::ALL.iter().any(|view| view.topic(&sink.prefix) == topic.value.0);
            if is_written || sink.progress_topic() == topic.value.0 {
                let message = format!(
                    "found {}, which the job writes itself, allowed: another topic, or another sink.kafka.prefix \
                     than {}",
                    topic.shown,
                    quoted(&sink.prefix)
                );
                check.refuse(topic, message);
            }
        }
    }
    if let Some(sink) = &config.sinks.files {
        for source in &config.sources {
            let SourceKind::File { pattern } = &source.kind else { continue };
            let Ok(glob) = Pattern::new(pattern) else { continue };
            let reads = |view: &str| {
                let name = format!("{view}-000001.{}", sink.format.name());
                glob.matches_path(&sink.dir.join(name))
            };
            let spot = spots.iter().find(|spot| spot.value.name.value().is_some_and(|n| n.0 == source.name));
            if let Some(path) = spot.and_then(|spot| spot.value.path.given())
                && View::NAMES.into_iter().any(reads)
            {
                let message = format!(
                    "found {}, which matches files that sink.files writes, allowed: another pattern, or another \
                     sink.files.dir",
                    path.shown
                );
                check.refuse(path, message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::*;

    #[test]
    fn a_job_does_not_read_what_it_writes() {
        let with_prefix = |prefix: &str| format!("[sink.kafka]\nbrokers = \"b:1\"\nprefix = \"{prefix}\"\n");
        for view in View::NAMES {
            let topic = format!("\"a.b.{view}.v1\"");
            let text = KAFKA.replace("\"events\"", &topic) + &with_prefix("a.b");
            assert_eq!(
                problems(&text),
                format!(
                    "line 5: source.\"gateway\".topic: found {topic}, which the job writes itself, allowed: another topic, or another sink.kafka.prefix than \"a.b\""
                )
            );
            assert_eq!(problems(&(KAFKA.replace("\"events\"", &topic) + &with_prefix("a"))), "");
        }
        let table = "[tables.plans]\nkind = \"kafka\"\nbrokers = \"a:1\"\ntopic = \"keytide.geo.v1\"\nformat = \"json-upsert\"\n";
        assert!(problems(&format!("{SMALL}{table}[sink.kafka]\nbrokers = \"b:1\"")).starts_with(
            "line 9: tables.plans.topic: found \"keytide.geo.v1\", which the job writes itself, allowed: "
        ));
        let files = |path: &str| {
            problems(&format!("{}[sink.files]\ndir = \"out\"", SMALL.replace("logs/*.log", path)))
        };
        assert_eq!(files("logs/*.jsonl"), "");
        assert_eq!(files("out/*.parquet"), "");
        assert_eq!(
            files("**/*.jsonl"),
            "line 4: source.\"gateway\".path: found \"**/*.jsonl\", which matches files that sink.files writes, allowed: another pattern, or another sink.files.dir"
        );
    }

    #[test]
    fn wrong_values_are_reported_with_their_location() {
        assert_eq!(
            problems(&format!("{SMALL}[clusters]\nlisten = \"x\"")),
            "line 6: clusters: unknown key, allowed here: job, keys, source, tables, geo, routes, billing, windows, limits, sink, detection, alerts, gateway, http, api, pages, state, cluster, log; did you mean cluster?"
        );
    }
}
