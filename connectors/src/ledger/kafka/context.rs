//! The callbacks of the ledger's producer: they note lost connections and records that were refused.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use keytide_config::KafkaClient;
use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError as LibraryError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;

use crate::kafka::KafkaContext;

/// The facilities of log lines about a lost connection and about requests without an answer.
const TROUBLE: [&str; 2] = ["FAIL", "REQTMOUT"];
/// The facility of log lines about a producer's id, which is asked for again until it is there.
const PRODUCER_ID: &str = "GETPID";

pub(super) struct LedgerContext {
    client: KafkaContext,
    troubled: AtomicBool,
    /// The first record that was refused, by its error and the index of its topic.
    refused: Mutex<Option<(RDKafkaErrorCode, usize)>>,
}

impl LedgerContext {
    pub(super) fn new(client: &KafkaClient) -> Self {
        Self {
            client: KafkaContext::new(client),
            troubled: AtomicBool::new(false),
            refused: Mutex::default(),
        }
    }

    /// Forgets what was noted before a transaction.
    pub(super) fn begin(&self) {
        self.troubled.store(false, Ordering::Release);
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Returns whether a connection was lost or a request timed out since the transaction began.
    pub(super) fn is_troubled(&self) -> bool {
        self.troubled.load(Ordering::Acquire)
    }

    pub(super) fn refused(&self) -> Option<(RDKafkaErrorCode, usize)> {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn recovered(&self) {
        self.client.recovered();
    }
}

impl ClientContext for LedgerContext {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        if TROUBLE.contains(&facility) {
            self.troubled.store(true, Ordering::Release);
        }
        // Brokers refuse it for some moments, as long as they end the transaction of an earlier life.
        let level = if facility == PRODUCER_ID { RDKafkaLogLevel::Debug } else { level };
        self.client.log(level, facility, message);
    }

    fn error(&self, error: LibraryError, reason: &str) {
        // A fenced producer is an error here as well, which the answers to its calls say already.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::Fenced) {
            self.troubled.store(true, Ordering::Release);
            self.client.error(error, reason);
        }
    }

    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.client.generate_oauth_token(config)
    }
}

impl ProducerContext for LedgerContext {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, topic: usize) {
        if let Err((error, _)) = result {
            let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
            let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
            refused.get_or_insert((code, topic));
        }
    }
}
