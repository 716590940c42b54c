//! What tells two configurations apart that give different results.
//!
//! SHA-256 over the values in a fixed order, each with its length or tag, so that no two configurations
//! share an encoding. A fingerprint is published (journal, handshake) and covers the secret of
//! `hmac-sha256`; hence a cryptographic hash. Every struct is taken apart field by field: a new field doesn't
//! compile until it is decided whether it counts.

use std::fmt::Write as _;
use std::path::PathBuf;

use sha2::{Digest, Sha256};

use crate::toml::value::Choice;

use crate::job::*;

/// Changes with the encoding below.
const VERSION: u64 = 6;

impl JobConfig {
    /// 32 hexadecimal digits, equal for equal results: what only names the job or sets its pace (`job.name`,
    /// `job.workers`, `limits.block_bytes`, settings of librdkafka) doesn't count, nor where results go. Paths,
    /// brokers and topics do, as they are written; what they hold doesn't.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let Self {
            job,
            sources,
            tables,
            geo,
            routes,
            windows,
            limits,
            sinks: _,
            detection,
            alerts,
            http: _,
            log: _,
        } = self;
        let mut encoder = Encoder(Sha256::new());
        encoder.number(VERSION);
        encoder.add(job);
        encoder.list(sources, Encoder::source);
        encoder.add(tables);
        encoder.add(geo);
        encoder.add(routes);
        encoder.add(windows);
        encoder.add(limits);
        encoder.add(detection);
        encoder.add(alerts);
        let digest = encoder.0.finalize();
        digest.iter().take(16).fold(String::with_capacity(32), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

/// A value, or the part of it, that results depend on.
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

    fn list<'a, T: 'a>(
        &mut self,
        items: impl IntoIterator<Item = &'a T, IntoIter: ExactSizeIterator>,
        item: impl Fn(&mut Self, &T),
    ) {
        let items = items.into_iter();
        self.number(items.len() as u64);
        items.for_each(|value| item(self, value));
    }

    fn source(&mut self, source: &Source) {
        let Source {
            name,
            kind,
            format,
            inner,
            pattern,
            fields,
            keys,
            dedupe,
            routes,
            unwrap,
            records,
            only,
            zone,
        } = source;
        self.text(name);
        match kind {
            SourceKind::File { pattern } => {
                self.text("file");
                self.text(pattern);
            }
            SourceKind::Stdin => self.text("stdin"),
            SourceKind::Kafka(kafka) => {
                self.text("kafka");
                self.add(kafka);
            }
        }
        self.text(format.name());
        self.list(inner, |encoder, inner| encoder.text(inner.name()));
        self.list(pattern, |encoder, pattern| encoder.text(pattern.text()));
        self.fields(fields);
        self.keys(keys);
        self.text(dedupe.name());
        self.text(zone.name());
        self.text(routes.name());
        for pointers in [unwrap, records] {
            self.list(pointers, Self::pointer);
        }
        self.list(only, |encoder, Condition { at, is }| {
            encoder.pointer(at);
            encoder.list(is, |encoder, pattern| encoder.text(pattern.as_str()));
        });
    }

    fn pointer(&mut self, pointer: &Pointer) {
        self.list(&pointer.0, |encoder, token| encoder.text(token));
    }

    fn fields(&mut self, fields: &FieldMap) {
        for (_, field) in fields.named() {
            self.list(field, |encoder, Field { at, unit, format, zone }| {
                encoder.list(at, Self::pointer);
                encoder.list(unit, |encoder, unit| encoder.text(unit.name()));
                encoder.list(format, |encoder, format| encoder.text(format.text()));
                encoder.list(zone, |encoder, zone| encoder.text(zone.name()));
            });
        }
    }

    fn keys(&mut self, keys: &KeyRules) {
        let KeyRules { from, hash, missing } = keys;
        self.list(from, |encoder, rule| encoder.text(&rule.to_string()));
        self.text(hash.name());
        match hash {
            KeyHash::HmacSha256 { secret } => self.text(secret.reveal()),
            KeyHash::Sha256 | KeyHash::Prehashed | KeyHash::None => {}
        }
        self.text(missing.name());
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
    usize, number: number(*number as u64);
    bool, flag: number((*flag).into());
    String, text: text(text);
    PathBuf, path: bytes(path.as_os_str().as_encoded_bytes());
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
