//! Reference data that events are joined with: tables from files and topics, and geo databases.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use keytide_config::JobConfig;
use keytide_connectors::decode;
use keytide_connectors::geo::{GeoCopies, GeoDatabases, GeoError, Unreadable, WatchedGeo};
use keytide_connectors::live::{Decoders, FileFeed, Live, LiveError, NamedDecoders, TableFeed, TopicFeed};
use keytide_connectors::tables::{TablesMemory, TablesRead, TopicTable, WatchedTables};

use super::restore::exit_of;
use super::tokens::TokenFeed;
use crate::exit::{Exit, failure, kafka_failure};
use crate::serve::auth::TokenTable;

/// Tables and geo databases as they were read at the start, and the feeds of their changes.
pub(super) struct ReferenceData {
    pub(super) first: TablesRead,
    pub(super) feeds: Vec<Box<dyn TableFeed>>,
    pub(super) geo: JobGeo,
    pub(super) watched_geo: WatchedGeo,
}

/// The geo databases of a job, and where their copies are if ticks may be made again.
#[derive(Clone)]
pub(super) struct JobGeo {
    pub(super) databases: Arc<GeoDatabases>,
    /// The name of the copies; empty without.
    pub(super) name: String,
    pub(super) copies: Option<GeoCopies>,
}

impl JobGeo {
    /// Copies the files that were just read, if the job keeps copies. It uses what was copied then, since a file may
    /// change between being read and being copied.
    fn new(
        databases: Arc<GeoDatabases>,
        copies: Option<GeoCopies>,
        config: &keytide_config::Geo,
    ) -> anyhow::Result<Self> {
        let Some(copies) = copies else {
            return Ok(Self { databases, name: String::new(), copies: None });
        };
        let taken = copies.take(config, databases.unreadable());
        let taken = taken.map_err(|error| refused_geo(error, Exit::Usage));
        let (name, databases) = taken.context("geo databases can't be copied")?;
        Ok(Self { databases, name, copies: Some(copies) })
    }

    /// Returns the databases of an earlier name.
    pub(super) fn named(
        &self,
        name: &str,
        config: &keytide_config::Geo,
    ) -> anyhow::Result<Arc<GeoDatabases>> {
        match &self.copies {
            Some(copies) if name != self.name => {
                copies.open(name, config, self.databases.unreadable()).map_err(refused_geo_copy)
            }
            _ => Ok(Arc::clone(&self.databases)),
        }
    }
}

/// Gives an error of geo databases its exit code. A copy that can't be used is a matter of the state.
fn refused_geo(error: GeoError, otherwise: Exit) -> anyhow::Error {
    let exit = match &error {
        GeoError::Copy(error) => exit_of(error),
        GeoError::Read { .. } => Exit::Transient,
        _ => otherwise,
    };
    failure(exit, error)
}

/// Gives an error of the copies of geo databases, which a leader named, its exit code.
pub(super) fn refused_geo_copy(error: GeoError) -> anyhow::Error {
    refused_geo(error, Exit::Fatal).context("the geo databases of the job can't be read")
}

impl ReferenceData {
    /// Opens what the configuration names. `earlier` has the rows that an earlier life of the job held.
    /// Geo databases are copied to `copies`, if the job may make ticks again. Rows of tokens go to `tokens` alone, if there
    /// is an API that has a table of them.
    pub(super) fn open(
        config: &JobConfig,
        earlier: &TablesMemory,
        copies: Option<GeoCopies>,
        tokens: Option<&Arc<TokenTable>>,
    ) -> anyhow::Result<Self> {
        let usage = |error| failure(Exit::Usage, anyhow::Error::new(error));
        let hashes = || config.sources.iter().map(|source| &source.keys.hash);
        let (watched_geo, geo, warnings) =
            WatchedGeo::open(&config.geo).map_err(|error| failure(Exit::Usage, error))?;
        let (watched, mut first) = WatchedTables::open(&config.tables, hashes(), earlier).map_err(usage)?;
        let mut of_tokens = None;
        if let Some(tokens) = tokens {
            let (feed, read) = TokenFeed::open(config, earlier, tokens)?;
            first.append(read);
            of_tokens = Some(feed);
        }
        for warning in warnings.iter().chain(&first.warnings) {
            tracing::warn!("{warning}");
        }
        let every = Duration::from_millis(config.job.reload_ms);
        let mut feeds: Vec<Box<dyn TableFeed>> = vec![Box::new(FileFeed::new(watched, every))];
        for (client, table) in TopicTable::configured(&config.tables, hashes()) {
            tracing::info!(table = table.name(), topic = table.topic(), "reads");
            feeds.push(Box::new(TopicFeed::open(client, table, earlier).map_err(kafka_failure)?));
        }
        feeds.extend(of_tokens);
        let geo = JobGeo::new(geo, copies, &config.geo)?;
        Ok(Self { first, feeds, geo, watched_geo })
    }
}

/// Returns a function that makes the decoder of each source, with these databases, and names it as them.
pub(super) fn named_decoders(config: &JobConfig, geo: Arc<GeoDatabases>, name: String) -> NamedDecoders {
    NamedDecoders { name, decoders: decoders(config, geo) }
}

/// Returns a function that makes the decoder of each source, with these databases.
pub(super) fn decoders(config: &JobConfig, geo: Arc<GeoDatabases>) -> Arc<Decoders> {
    let context = decode::Context::of(config, geo);
    let sources = config.sources.clone();
    Arc::new(move |source: usize| decode::decoder(&sources[source], &context))
}

/// Checks geo databases every `job.reload`. Changed ones come with new decoders, at a tick.
pub(super) struct GeoFeed {
    watched: WatchedGeo,
    copies: Option<GeoCopies>,
    config: JobConfig,
    live: Arc<Live>,
    looked: Instant,
    damage: DamageReport,
    /// Databases that were read, and whose copies couldn't be stored yet.
    unstored: Option<Arc<GeoDatabases>>,
}

impl GeoFeed {
    pub(super) fn new(
        watched: WatchedGeo,
        copies: Option<GeoCopies>,
        config: &JobConfig,
        live: &Arc<Live>,
    ) -> Self {
        let (config, live) = (config.clone(), Arc::clone(live));
        let (looked, damage, unstored) = (Instant::now(), DamageReport::default(), None);
        Self { watched, copies, config, live, looked, damage, unstored }
    }

    /// Lets the next tick use new databases, once their copies are stored. Until then the old ones stay.
    fn replace(&mut self, geo: Arc<GeoDatabases>, count: u64) {
        match JobGeo::new(Arc::clone(&geo), self.copies.clone(), &self.config.geo) {
            Ok(JobGeo { databases, name, .. }) => {
                tracing::info!("geo databases changed: the next tick uses the new ones");
                self.damage.restart(count);
                self.live.replace_decoders(named_decoders(&self.config, databases, name));
            }
            Err(error) => {
                tracing::warn!("geo databases changed, the old ones stay until this works: {error:#}");
                self.unstored = Some(geo);
            }
        }
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
            // A file that is being written must not be copied.
            None if !self.watched.is_current() => {}
            None => {
                if let Some(geo) = self.unstored.take() {
                    self.replace(geo, count);
                }
            }
            Some(Ok((geo, warnings))) => {
                warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                self.unstored = None;
                self.replace(geo, count);
            }
            Some(Err(error)) => {
                self.unstored = None;
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
