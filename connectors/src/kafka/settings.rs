//! The names of librdkafka's settings, as it lists them itself.

#![allow(unsafe_code, reason = "rdkafka has no way to the names of librdkafka's settings")]

use std::{ptr, slice};

use keytide_config::{KafkaClient, nearest};
use rdkafka::bindings::rd_kafka_conf_properties_show;

/// Says that there is no such setting, and which one was probably meant.
pub(super) fn unknown(name: &str) -> String {
    let listed = listed();
    match nearest(name, listed.iter().map(|(name, _)| name.as_str())) {
        Some(near) => format!("there is no such setting; did you mean {near}?"),
        None => "there is no such setting".to_owned(),
    }
}

/// Returns the client of a sink for what reads, without the settings that only producers know. librdkafka would warn of
/// each.
pub(crate) fn for_reading(client: &KafkaClient) -> KafkaClient {
    let mut client = client.clone();
    if !client.settings.is_empty() {
        let listed = listed();
        let is_for_producers = |name: &str| listed.iter().any(|(known, of)| known == name && of == "P");
        client.settings.retain(|name, _| !is_for_producers(name));
    }
    client
}

/// Returns the names of all settings with their aliases, as librdkafka lists them in its own documentation. Each comes with
/// `P` if only producers know it, `C` if only consumers do, and `*` otherwise.
fn listed() -> Vec<(String, String)> {
    let (mut text, mut length) = (ptr::null_mut(), 0);
    // SAFETY: the stream is made here and closed before the text is looked at. Then `text` is memory of malloc's with
    // `length` bytes, which is copied once and freed once.
    let listed = unsafe {
        let stream = libc::open_memstream(&mut text, &mut length);
        if stream.is_null() {
            return Vec::new();
        }
        rd_kafka_conf_properties_show(stream);
        libc::fclose(stream);
        if text.is_null() {
            return Vec::new();
        }
        let listed = slice::from_raw_parts(text.cast::<u8>(), length).to_vec();
        libc::free(text.cast());
        listed
    };
    // A table: `name | kind | ...`, with a header of other characters.
    let is_name = |name: &str| name.bytes().all(|b| b.is_ascii_lowercase() || matches!(b, b'.' | b'_'));
    let listed = String::from_utf8_lossy(&listed);
    let columns = listed.lines().filter_map(|line| {
        let (name, rest) = line.split_once('|')?;
        Some((name.trim().to_owned(), rest.split('|').next()?.trim().to_owned()))
    });
    columns.filter(|(name, _)| !name.is_empty() && is_name(name)).collect()
}

#[cfg(test)]
mod tests {
    use keytide_config::Secret;
    use rdkafka::ClientConfig;
    use rdkafka::error::KafkaError as LibraryError;
    use rdkafka::types::RDKafkaConfRes;

    use super::*;

    #[test]
    fn every_name_that_is_suggested_is_known_to_librdkafka() {
        let names: Vec<String> = listed().into_iter().map(|(name, _)| name).collect();
        for name in
            ["sasl.password", "sasl.mechanism", "linger.ms", "acks", "fetch.max.bytes", "ssl.ca.location"]
        {
            assert!(names.iter().any(|known| known == name), "{name} is not in {names:?}");
        }
        for name in &names {
            let tried = ClientConfig::new().set(name, "canary").create_native_config();
            let code = match tried.err() {
                Some(LibraryError::ClientConfig(code, ..)) => code,
                _ => RDKafkaConfRes::RD_KAFKA_CONF_OK,
            };
            assert_ne!(code, RDKafkaConfRes::RD_KAFKA_CONF_UNKNOWN, "{name}");
        }
    }

    #[test]
    fn what_reads_has_no_setting_that_only_producers_know() {
        let names = [
            "compression.type",
            "compression.codec",
            "linger.ms",
            "acks",
            "sasl.mechanism",
            "fetch.max.bytes",
        ];
        let settings = names.map(|name| (name.to_owned(), Secret::new("canary")));
        let client = KafkaClient { brokers: "kafka:9092".to_owned(), settings: settings.into() };
        let left: Vec<String> = for_reading(&client).settings.into_keys().collect();
        assert_eq!(left, ["fetch.max.bytes", "sasl.mechanism"]);
    }
}
