//! The settings and the headers that all producers of results have in common.

use keytide_config::KafkaClient;
use keytide_dataflow::model::Tick;
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};

use super::client::client_config;

/// The number of bytes that are sent at once.
const BATCH_BYTES: usize = 1_000_000;

/// Returns the settings of a producer of results, for topics that take batches of these sizes. `linger_ms` is how long
/// it waits for further records, unless the configuration says otherwise.
pub(crate) fn result_settings(
    client: &KafkaClient,
    limits: impl Iterator<Item = usize>,
    linger_ms: &str,
) -> ClientConfig {
    let mut config = client_config(client);
    let mut default = |names: &[&str], value: &str| {
        if !names.iter().any(|name| client.settings.contains_key(*name)) {
            config.set(names[0], value);
        }
    };
    default(&["compression.type", "compression.codec"], "lz4");
    default(&["linger.ms", "queue.buffering.max.ms"], linger_ms);
    let batch = limits.fold(BATCH_BYTES, usize::min).max(1);
    default(&["batch.size"], &batch.to_string());
    // The guarantees rest on these settings.
    config.set("enable.idempotence", "true");
    config.set("acks", "all");
    config.set("partitioner", "murmur2_random");
    config
}

/// Returns the headers of a result's record. `more` come behind those that all have.
pub(crate) fn result_headers<'h>(
    tick: Tick,
    id: u128,
    more: impl ExactSizeIterator<Item = (&'h str, &'h [u8])>,
) -> OwnedHeaders {
    let (mut text, id) = (itoa::Buffer::new(), format!("{id:032x}"));
    let first = OwnedHeaders::new_with_capacity(2 + more.len())
        .insert(Header { key: "keytide-tick", value: Some(text.format(tick)) })
        .insert(Header { key: "keytide-id", value: Some(&id) });
    more.fold(first, |headers, (key, value)| headers.insert(Header { key, value: Some(value) }))
}
