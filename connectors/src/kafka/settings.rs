//! Settings of a client, judged by librdkafka itself without a connection.
//!
//! Each setting is tried alone on an empty configuration, which knows every name and the form of every value. Whether
//! values fit each other, and whether files can be read, shows only when a client is made.

#![allow(unsafe_code, reason = "rdkafka has no way to the names of librdkafka's settings")]

use std::{ptr, slice};

use keytide_config::{KafkaClient, nearest};
use rdkafka::ClientConfig;
use rdkafka::bindings::rd_kafka_conf_properties_show;

use super::client::{KafkaError, TOKEN_FILE, create_error};

/// Every setting of `client` that librdkafka refuses, in the order of their names. No value is quoted.
#[must_use]
pub fn refused_settings(client: &KafkaClient) -> Vec<KafkaError> {
    let tried = client.settings.iter().filter(|(name, _)| *name != TOKEN_FILE).filter_map(|(name, value)| {
        let mut config = ClientConfig::new();
        config.set(name, value.reveal());
        config.create_native_config().err()
    });
    tried.map(create_error).collect()
}

/// Says that there is no such setting, and which one was probably meant.
pub(super) fn unknown(name: &str) -> String {
    let names = names();
    match nearest(name, names.iter().map(String::as_str)) {
        Some(near) => format!("there is no such setting; did you mean {near}?"),
        None => "there is no such setting".to_owned(),
    }
}

/// The names of all settings with their aliases, as librdkafka lists them in its own documentation.
fn names() -> Vec<String> {
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
    // A table: `name | producer, consumer or both | ...`, with a header of other characters.
    let is_name = |name: &str| name.bytes().all(|b| b.is_ascii_lowercase() || matches!(b, b'.' | b'_'));
    let listed = String::from_utf8_lossy(&listed);
    let names = listed.lines().filter_map(|line| Some(line.split_once('|')?.0.trim()));
    names.filter(|name| !name.is_empty() && is_name(name)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use keytide_config::Secret;
    use rdkafka::error::KafkaError as LibraryError;
    use rdkafka::types::RDKafkaConfRes;

    use super::*;

    fn refused(settings: &[(&str, &str)]) -> Vec<String> {
        let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), Secret::new(*value)));
        let client = KafkaClient { settings: settings.collect(), ..KafkaClient::new("127.0.0.1:1") };
        refused_settings(&client).iter().map(KafkaError::to_string).collect()
    }

    #[test]
    fn every_name_that_is_suggested_is_known_to_librdkafka() {
        let names = names();
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
    fn all_refused_settings_are_named_with_what_was_meant_and_without_values() {
        let settings = [
            ("client.id", "canary"),
            ("fetch.max.byts", "canary"),
            ("linger.ms", "canary"),
            ("no.such.setting.at.all", "canary"),
            ("sasl.pasword", "canary"),
            (TOKEN_FILE, "canary"),
        ];
        let refuses = |name: &str, reason: &str| format!("librdkafka refuses the setting `{name}`: {reason}");
        assert_eq!(
            refused(&settings),
            [
                refuses("fetch.max.byts", "there is no such setting; did you mean fetch.max.bytes?"),
                refuses("linger.ms", "Invalid value for configuration property \"queue.buffering.max.ms\""),
                refuses("no.such.setting.at.all", "there is no such setting"),
                refuses("sasl.pasword", "there is no such setting; did you mean sasl.password?"),
            ]
        );
        assert_eq!(refused(&[("security.protocol", "ssl"), ("acks", "1")]), [""; 0]);
    }
}
