//! Headers of records, read only when somebody asks: librdkafka parses them then.
//!
//! Read past rdkafka, which panics at a header whose name isn't UTF-8 (0.39); anybody who may write to the topic can
//! send one.

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
        let told = unsafe { rd_kafka_message_headers(self.ptr(), &mut headers) };
        if told != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR || headers.is_null() {
            return;
        }
        for index in 0.. {
            let (mut name, mut value, mut length) = (ptr::null(), ptr::null(), 0);
            // SAFETY: `headers` is alive, see above; an index behind the last is an error, and then nothing is written.
            let told = unsafe { rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut length) };
            if told != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return;
            }
            if !name.is_null() && !value.is_null() {
                // SAFETY: without an error `name` is a C string and `value` has `length` bytes; both live as long as
                // `headers` and nobody writes to them.
                let (name, value) =
                    unsafe { (CStr::from_ptr(name), slice::from_raw_parts(value.cast::<u8>(), length)) };
                take(name.to_bytes(), value);
            }
        }
    }
}

/// Headers that outlive their record: names and values.
#[derive(Default)]
pub(super) struct KeptHeaders(Vec<(Box<[u8]>, Box<[u8]>)>);

impl KeptHeaders {
    /// Copies them; `None` where they have more than `most` bytes.
    pub(super) fn of(headers: &dyn Headers, most: usize) -> Option<Self> {
        let (mut kept, mut left) = (Vec::new(), Some(most));
        headers.each(&mut |name, value| {
            left = left.and_then(|left| left.checked_sub(name.len() + value.len()));
            if left.is_some() {
                kept.push((name.into(), value.into()));
            }
        });
        left.map(|_| Self(kept))
    }

    /// Bytes of the names and the values.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(|(name, value)| name.len() + value.len()).sum()
    }
}

impl Headers for KeptHeaders {
    fn each(&self, take: &mut dyn FnMut(&[u8], &[u8])) {
        self.0.iter().for_each(|(name, value)| take(name, value));
    }
}
