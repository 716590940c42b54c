//! The way of the table of tokens to the API, which alone reads it.
//!
//! ```text
//! file or topic ── rows ─────────────► TokenTable, as they are read
//!               └─ bad rows, warnings ► the reader of tables, as those of other tables
//! ```
//! No result depends on a token, so its row is in no tick and in no checkpoint, and the dataflow never sees it. After a
//! restart the table is read again. A token of a topic opens nothing until the topic is read, and meanwhile the API says
//! that it is an outage.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use keytide_config::JobConfig;
use keytide_connectors::live::{FileFeed, LiveError, TableFeed, TopicFeed};
use keytide_connectors::tables::{TablesMemory, TablesRead, TopicTable, WatchedTables};

use crate::exit::{Exit, failure, kafka_failure};
use crate::serve::auth::TokenTable;

/// A feed of the table of tokens, which keeps the rows from the job.
pub(super) struct TokenFeed {
    feed: Box<dyn TableFeed>,
    tokens: Arc<TokenTable>,
}

impl TokenFeed {
    /// Opens the table of a configuration that has one. What was read of it beside rows is the job's.
    ///
    /// # Errors
    /// If the file can't be used, or the topic not be looked up.
    pub(super) fn open(
        config: &JobConfig,
        earlier: &TablesMemory,
        tokens: &Arc<TokenTable>,
    ) -> anyhow::Result<(Box<dyn TableFeed>, TablesRead)> {
        let tokens = Arc::clone(tokens);
        if let Some((client, table)) = TopicTable::tokens(&config.tables) {
            tracing::info!(table = table.name(), topic = table.topic(), "reads");
            let feed = Box::new(TopicFeed::open(client, table, earlier).map_err(kafka_failure)?);
            return Ok((Box::new(Self { feed, tokens }), TablesRead::default()));
        }
        let opened = WatchedTables::open_tokens(&config.tables, earlier);
        let (watched, mut read) = opened.map_err(|error| failure(Exit::Usage, error))?;
        let feed = Box::new(FileFeed::new(watched, Duration::from_millis(config.job.reload_ms)));
        let this = Self { feed, tokens };
        this.take_rows(&mut read);
        this.tokens.set_read();
        Ok((Box::new(this), read))
    }

    /// Gives the rows to the API, and leaves the rest.
    fn take_rows(&self, read: &mut TablesRead) {
        let changes = mem::take(&mut read.changes);
        if !changes.is_empty() {
            self.tokens.apply(&changes);
        }
    }
}

impl TableFeed for TokenFeed {
    fn poll(&mut self, wait: Duration, read: &mut TablesRead) -> Result<(), LiveError> {
        let mut own = TablesRead::default();
        let polled = self.feed.poll(wait, &mut own);
        self.take_rows(&mut own);
        read.append(own);
        if self.feed.is_complete() {
            self.tokens.set_read();
        }
        polled
    }

    fn is_complete(&self) -> bool {
        self.feed.is_complete()
    }

    fn remember(&self, memory: &mut TablesMemory) {
        self.feed.remember(memory);
    }
}
