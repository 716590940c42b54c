//! The fingerprint of a configuration, which differs between configurations that give different results.
//!
//! It is SHA-256 over the values in a fixed order, each with its length or tag, so that no two configurations share an
//! encoding. It is published (journal, handshake) and covers the secret of `hmac-sha256`, so the hash must be a
//! cryptographic one. A setting's line must say if the fingerprint covers it, or it doesn't compile.

use std::fmt::Write as _;
use std::path::PathBuf;

use keytide_billing::Currency;
use sha2::{Digest, Sha256};

use crate::pattern::LinePattern;
use crate::time::{TimePattern, Zone};
use crate::toml::value::Choice;

/// The version of the encoding below. It must change with the encoding.
const VERSION: u64 = 9;

/// Returns 32 hexadecimal digits, which are equal if the results are.
pub(crate) fn fingerprint(value: &impl Fingerprint) -> String {
    let mut encoder = Encoder(Sha256::new());
    encoder.number(VERSION);
    encoder.add(value);
    let digest = encoder.0.finalize();
    digest.iter().take(16).fold(String::with_capacity(32), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// A value that results depend on, in part or as a whole.
pub(crate) trait Fingerprint {
    fn add_to(&self, encoder: &mut Encoder);
}

pub(crate) struct Encoder(Sha256);

impl Encoder {
    pub(crate) fn add(&mut self, value: &impl Fingerprint) {
        value.add_to(self);
    }

    pub(crate) fn number(&mut self, number: u64) {
        self.0.update(number.to_le_bytes());
    }

    pub(crate) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }
}

/// Declares values as numbers or texts.
macro_rules! encoded {
    ($($type:ty, $value:ident: $method:ident($encoded:expr);)+) => {$(
        impl Fingerprint for $type {
            fn add_to(&self, encoder: &mut Encoder) {
                let $value = self;
                encoder.$method($encoded);
            }
        }
    )+};
}

encoded! {
    u64, number: number(*number);
    u32, number: number((*number).into());
    u16, number: number((*number).into());
    usize, number: number(*number as u64);
    bool, flag: number((*flag).into());
    String, text: text(text);
    PathBuf, path: bytes(path.as_os_str().as_encoded_bytes());
    LinePattern, pattern: text(pattern.text());
    TimePattern, pattern: text(pattern.text());
    Zone, zone: text(zone.name());
    Currency, currency: text(currency.code());
}

impl<T: Choice> Fingerprint for T {
    fn add_to(&self, encoder: &mut Encoder) {
        encoder.text(self.name());
    }
}

impl<T: Fingerprint> Fingerprint for Vec<T> {
    fn add_to(&self, encoder: &mut Encoder) {
        encoder.number(self.len() as u64);
        self.iter().for_each(|item| encoder.add(item));
    }
}

impl<T: Fingerprint> Fingerprint for Option<T> {
    fn add_to(&self, encoder: &mut Encoder) {
        encoder.number(self.is_some().into());
        self.iter().for_each(|item| encoder.add(item));
    }
}

impl Fingerprint for (&'static str, u64) {
    fn add_to(&self, encoder: &mut Encoder) {
        encoder.text(self.0);
        encoder.number(self.1);
    }
}
