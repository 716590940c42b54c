//! Reference data that events are joined with: tables from files and topics, and geo databases.

use std::sync::Arc;
use std::time::{Duration, Instant};

use keytide_config::JobConfig;
use keytide_connectors::decode;
use keytide_connectors::geo::{GeoDatabases, Unreadable, WatchedGeo};
use keytide_connectors::live::{Decoders, FileFeed, Live, LiveError, TableFeed, TopicFeed};
use keytide_connectors::tables::{TablesMemory, TablesRead, TopicTable, WatchedTables};

use crate::exit::{Exit, failure, kafka_failure};

/// Tables and geo databases as they were read at the start, and the feeds of their changes.
pub(super) struct ReferenceData {
    pub(super) first: TablesRead,
    pub(super) feeds: Vec<Box<dyn TableFeed>>,
    pub(super) geo: Arc<GeoDatabases>,
    pub(super) watched_geo: WatchedGeo,
}

impl ReferenceData {
    /// Opens what the configuration names. `earlier` has the rows that an earlier life of the job held.
    pub(super) fn open(config: &JobConfig, earlier: &TablesMemory) -> anyhow::Result<Self> {
        let usage = |error| failure(Exit::Usage, anyhow::Error::new(error));
        let hashes = || config.sources.iter().map(|source| &source.keys.hash);
        let (watched_geo, geo, warnings) =
            WatchedGeo::open(&config.geo).map_err(|error| failure(Exit::Usage, error))?;
        let (watched, first) = WatchedTables::open(&config.tables, hashes(), earlier).map_err(usage)?;
        for warning in warnings.iter().chain(&first.warnings) {
            tracing::warn!("{warning}");
        }
        let every = Duration::from_millis(config.job.reload_ms);
        let mut feeds: Vec<Box<dyn TableFeed>> = vec![Box::new(FileFeed::new(watched, every))];
        for (client, table) in TopicTable::configured(&config.tables, hashes()) {
            tracing::info!(table = table.name(), topic = table.topic(), "reads");
            feeds.push(Box::new(TopicFeed::open(client, table, earlier).map_err(kafka_failure)?));
        }
        Ok(Self { first, feeds, geo, watched_geo })
    }
}

/// Returns a function that makes the decoder of each source, with these databases.
pub(super) fn decoders(config: &JobConfig, geo: Arc<GeoDatabases>) -> Arc<Decoders> {
    let context = decode::Context::new(&config.routes, &config.geo.trusted_proxies, config.limits, geo);
    let sources = config.sources.clone();
    Arc::new(move |source: usize| decode::decoder(&sources[source], &context))
}

/// Checks geo databases every `job.reload`. Changed ones come with new decoders, at a tick.
pub(super) struct GeoFeed {
    watched: WatchedGeo,
    config: JobConfig,
    live: Arc<Live>,
    looked: Instant,
    damage: DamageReport,
}

impl GeoFeed {
    pub(super) fn new(watched: WatchedGeo, config: &JobConfig, live: &Arc<Live>) -> Self {
        let (config, live) = (config.clone(), Arc::clone(live));
        Self { watched, config, live, looked: Instant::now(), damage: DamageReport::default() }
    }
}

/// Decides when damaged records of geo databases are worth a line in the log: at the first look-up that hits one, and
/// each time their number has doubled since, anew for new databases.
#[derive(Debug, Default)]
struct DamageReport {
    /// Look-ups before the databases in use were read.
    before: u64,
    /// Look-ups of these databases that were reported last.
    reported: u64,
}

impl DamageReport {
    /// Begins anew, as new databases are in use after `count` look-ups.
    fn restart(&mut self, count: u64) {
        *self = Self { before: count, reported: 0 };
    }

    /// Returns the number of look-ups to report, if it is time to.
    fn due(&mut self, count: u64) -> Option<u64> {
        let hit = count.saturating_sub(self.before);
        let is_due = hit > 0 && hit >= self.reported.saturating_mul(2);
        is_due.then(|| {
            self.reported = hit;
            hit
        })
    }
}

impl TableFeed for GeoFeed {
    fn poll(&mut self, _: Duration, _: &mut TablesRead) -> Result<(), LiveError> {
        if self.looked.elapsed() < Duration::from_millis(self.config.job.reload_ms) {
            return Ok(());
        }
        self.looked = Instant::now();
        let count = self.watched.unreadable().count();
        if let Some(warning) = self.damage.due(count).and_then(Unreadable::warning) {
            tracing::warn!("{warning}");
        }
        match self.watched.poll() {
            None => {}
            Some(Ok((geo, warnings))) => {
                warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                tracing::info!("geo databases changed: the next tick uses the new ones");
                self.damage.restart(count);
                self.live.replace_decoders(decoders(&self.config, geo));
            }
            Some(Err(error)) => {
                tracing::warn!("geo databases changed and can't be used, the old ones stay: {error}")
            }
        }
        Ok(())
    }

    fn is_complete(&self) -> bool {
        true
    }

    fn remember(&self, _: &mut TablesMemory) {}
}

#[cfg(test)]
mod tests {
    use super::DamageReport;

    #[test]
    fn damage_is_reported_at_the_first_look_up_at_each_doubling_and_anew_for_new_databases() {
        let mut report = DamageReport::default();
        let due: Vec<_> = [0, 1, 1, 2, 3, 4, 9].map(|count| report.due(count)).into();
        assert_eq!(due, [None, Some(1), None, Some(2), None, Some(4), Some(9)]);
        report.restart(9);
        assert_eq!([report.due(9), report.due(10)], [None, Some(1)]);
    }
}
