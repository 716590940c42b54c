//! The headers of records, which librdkafka parses only when they are asked for.
//!
//! They are read without rdkafka, which panics at a header whose name isn't UTF-8 (0.39). Every writer to the topic
//! can send one.

#![allow(
    unsafe_code,
    reason = "rdkafka offers no other way to headers than one that panics at foreign input"
)]

use std::ffi::CStr;
use std::{ptr, slice};

use rdkafka::bindings::{rd_kafka_header_get_all, rd_kafka_message_headers};
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaRespErr;

use crate::decode::Headers;

impl Headers for BorrowedMessage<'_> {
    fn each(&self, take: &mut dyn FnMut(&[u8], &[u8])) {
        let mut headers = ptr::null_mut();
        // SAFETY: the message lives as long as `self`. It owns what is returned, and keeps it unchanged.
        let code = unsafe { rd_kafka_message_headers(self.ptr(), &mut headers) };
        if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR || headers.is_null() {
            return;
        }
        for index in 0.. {
            let (mut name, mut value, mut length) = (ptr::null(), ptr::null(), 0);
            // SAFETY: `headers` is alive, see above; an index behind the last is an error, and then nothing is written.
            let code = unsafe { rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut length) };
            if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return;
            }
            if !name.is_null() && !value.is_null() {
                // SAFETY: without an error `name` is a C string and `value` has `length` bytes. Both live as long
                // as `headers`, and are never written to.
                let (name, value) =
                    unsafe { (CStr::from_ptr(name), slice::from_raw_parts(value.cast::<u8>(), length)) };
                take(name.to_bytes(), value);
            }
        }
    }
}

/// The names and values of headers that outlive their record.
#[derive(Default)]
pub(crate) struct KeptHeaders(Vec<Kept>);

type Kept = (Box<[u8]>, Box<[u8]>);

impl KeptHeaders {
    /// Returns a copy of the headers; `None` if they have more than `most` bytes.
    pub(crate) fn of(headers: &dyn Headers, most: usize) -> Option<Self> {
        let (mut kept, mut left) = (Vec::new(), Some(most));
        headers.each(&mut |name, value| {
            left = left.and_then(|left| left.checked_sub(name.len() + value.len()));
            if left.is_some() {
                kept.push((name.into(), value.into()));
            }
        });
        left.map(|_| Self(kept))
    }

    /// Returns the number of bytes in names and values.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.len()).sum()
    }
}

impl Headers for KeptHeaders {
    fn each(&self, take: &mut dyn FnMut(&[u8], &[u8])) {
        self.0.iter().for_each(|(name, value)| take(name, value));
    }
}

/// Makes headers of a record to be sent; rdkafka takes only names that are UTF-8.
#[cfg(test)]
pub(super) fn owned(headers: &[(&[u8], Option<&[u8]>)]) -> rdkafka::message::OwnedHeaders {
    use rdkafka::bindings::{rd_kafka_header_add, rd_kafka_headers_t};

    let owned = rdkafka::message::OwnedHeaders::new();
    let native = ptr::from_ref(owned.as_borrowed()).cast::<rd_kafka_headers_t>().cast_mut();
    for (name, value) in headers {
        let (start, length) = value.map_or((ptr::null(), 0), |value| (value.as_ptr(), value.len()));
        let (name_length, length) = (name.len().cast_signed(), length.cast_signed());
        // SAFETY: rdkafka's borrowed headers are librdkafka's own; name and value are copied, with these lengths.
        let code =
            unsafe { rd_kafka_header_add(native, name.as_ptr().cast(), name_length, start.cast(), length) };
        assert_eq!(code, RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR);
    }
    owned
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::kafka::testing::{DEADLINE, MockBroker};
    use crate::kafka::{Consumer, ConsumerEvent};

    type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

    fn pairs(headers: &dyn Headers) -> Pairs {
        let mut pairs = Pairs::new();
        headers.each(&mut |name, value| pairs.push((name.to_vec(), value.to_vec())));
        pairs
    }

    /// The headers of all records of partition 0 of the topic `events`.
    fn read(broker: &MockBroker, records: usize) -> Vec<Pairs> {
        let mut consumer = Consumer::new(&broker.client(), "events").unwrap();
        consumer.add(0, 0).unwrap();
        let (mut seen, started) = (Vec::new(), Instant::now());
        while seen.len() < records {
            assert!(started.elapsed() < DEADLINE, "waited in vain; seen: {}", seen.len());
            let take = &mut |record: ConsumerEvent<'_>| {
                if let ConsumerEvent::Message(message) = record {
                    // They can be asked for more than once.
                    assert_eq!(pairs(message.headers), pairs(message.headers));
                    seen.push(pairs(message.headers));
                }
            };
            consumer.poll(std::time::Duration::from_millis(50), 100, take).unwrap();
        }
        seen
    }

    #[test]
    fn headers_come_in_order_whatever_bytes_they_have() {
        let broker = MockBroker::new();
        broker.create("events", 1);
        let headers: [(&[u8], Option<&[u8]>); 4] =
            [(b"a", Some(b"1")), (b"ce_\xFF\xC3", Some(b"\x00\xFF")), (b"null", None), (b"a", Some(b""))];
        broker.produce_headed("events", 0, &headers, Some(b"value"));
        broker.produce("events", 0, &["without"]);
        broker.produce_headed("events", 0, &[(b"b", Some(b"2"))], None);
        let pair = |name: &[u8], value: &[u8]| (name.to_vec(), value.to_vec());
        let expected = [
            vec![pair(b"a", b"1"), pair(b"ce_\xFF\xC3", b"\x00\xFF"), pair(b"a", b"")],
            vec![],
            vec![pair(b"b", b"2")],
        ];
        assert_eq!(read(&broker, 3), expected);
    }

    #[test]
    fn kept_headers_are_those_of_the_record_up_to_a_limit() {
        let many: Vec<Kept> =
            vec![((*b"name").into(), (*b"value").into()), ((*b"").into(), (*b"\xFF").into())];
        let headers = KeptHeaders(many);
        assert_eq!(headers.bytes(), 10);
        for (most, kept) in [(9, false), (10, true), (11, true)] {
            let copy = KeptHeaders::of(&headers, most);
            assert_eq!(copy.as_ref().map(|copy| pairs(copy)), kept.then(|| pairs(&headers)), "{most}");
        }
        assert_eq!(KeptHeaders::of(&(), 0).map(|none| none.bytes()), Some(0));
    }
}
