//! The names of librdkafka's settings, as it lists them itself.

#![allow(unsafe_code, reason = "rdkafka has no way to the names of librdkafka's settings")]

use std::{ptr, slice};

use keytide_config::nearest;
use rdkafka::bindings::rd_kafka_conf_properties_show;

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
    use rdkafka::ClientConfig;
    use rdkafka::error::KafkaError as LibraryError;
    use rdkafka::types::RDKafkaConfRes;

    use super::*;

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
}
