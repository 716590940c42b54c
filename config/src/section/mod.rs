//! The sections of a configuration, one file each, with written values, checks and validated values.
//!
//! A setting is one line of a `section!`. The line gives its field, its key, the kind and the range of its values,
//! its default, and whether the fingerprint covers it. Relations between settings are code in the section's file.

/// Declares a section: the struct of validated values, and the keys that a file may have.
///
/// ```text
/// section! {
///     /// The section `[job]` of a configuration.
///     #[derive(Clone, Debug)]
///     pub struct Job, RawJob {
///         /// The width of a live tick, in milliseconds.
///         results tick_ms: u64 = tick(Millis, 10..=MINUTE_MS) or 1_000;
///     }
/// }
/// ```
///
/// Every line begins with a word. With `results` another value may give other results, so the fingerprint covers the
/// field. With `other` it can't. With `key` code reads the key. A `later` key stands in the documentation, but this
/// version has none. The lines are:
///
/// | line | has |
/// |---|---|
/// | `results tick_ms: u64 = tick(Millis, 10..=MINUTE_MS) or 1_000;` | a key, filled in; the limit may be absent |
/// | `other server: Option<MailServer> = _ or None;` | no key of its own; code fills it in |
/// | `other from: Sender = from(Sender);` | a key, which code reads |
/// | `other client: KafkaClient;` | neither a key nor a default |
/// | `key brokers(Brokers);` | a key, which code reads |
/// | `later json_depth;` | a key of a later version |
///
/// The struct is made in one of three ways. With a default for every field it has `Default`, and its keys `Validate`
/// it; `then NAME` calls `NAME(spot, &mut value, check)` of the keys for relations. With `, new(field: Type)` it has
/// a constructor. With `, by hand` it has neither.
macro_rules! section {
    // Each step takes one line, and six lists collect the parts: the struct's fields, the keys, the later keys, the
    // fields that keys fill in, the defaults, and the word of each field for the fingerprint.
    (@line $head:tt [$($f:tt)*] [$($k:tt)*] [$($l:tt)*] [$($g:tt)*] [$($d:tt)*] [$($p:tt)*]
        key $key:ident($written:ty); $($rest:tt)*) => {
        section! { @line $head [$($f)*] [$($k)* $key: $written,] [$($l)*] [$($g)*] [$($d)*] [$($p)*] $($rest)* }
    };
    (@line $head:tt [$($f:tt)*] [$($k:tt)*] [$($l:tt)*] [$($g:tt)*] [$($d:tt)*] [$($p:tt)*]
        later $later:ident; $($rest:tt)*) => {
        section! { @line $head [$($f)*] [$($k)*] [$($l)* $later] [$($g)*] [$($d)*] [$($p)*] $($rest)* }
    };
    (@line $head:tt [$($f:tt)*] [$($k:tt)*] [$($l:tt)*] [$($g:tt)*] [$($d:tt)*] [$($p:tt)*]
        $(#[$doc:meta])* $covered:ident $field:ident: $type:ty
        = $key:ident($written:ty $(, $limit:expr)?) or $default:expr; $($rest:tt)*) => {
        section! { @line $head [$($f)* { $(#[$doc])* $field: $type }] [$($k)* $key: $written,] [$($l)*]
            [$($g)* { $field $key $($limit)? }] [$($d)* $field: $default,] [$($p)* $covered $field,] $($rest)* }
    };
    (@line $head:tt [$($f:tt)*] [$($k:tt)*] [$($l:tt)*] [$($g:tt)*] [$($d:tt)*] [$($p:tt)*]
        $(#[$doc:meta])* $covered:ident $field:ident: $type:ty = _ or $default:expr; $($rest:tt)*) => {
        section! { @line $head [$($f)* { $(#[$doc])* $field: $type }] [$($k)*] [$($l)*] [$($g)*]
            [$($d)* $field: $default,] [$($p)* $covered $field,] $($rest)* }
    };
    (@line $head:tt [$($f:tt)*] [$($k:tt)*] [$($l:tt)*] [$($g:tt)*] [$($d:tt)*] [$($p:tt)*]
        $(#[$doc:meta])* $covered:ident $field:ident: $type:ty $(= $key:ident($written:ty))?; $($rest:tt)*) => {
        section! { @line $head [$($f)* { $(#[$doc])* $field: $type }] [$($k)* $($key: $written,)?] [$($l)*] [$($g)*]
            [$($d)*] [$($p)* $covered $field,] $($rest)* }
    };

    // No line is left.
    (@line [$(#[$meta:meta])* $vis:vis $name:ident $raw:ident $made:tt]
        [$({ $(#[$doc:meta])* $field:ident: $type:ty })*] [$($keys:tt)*] [$($later:ident)*]
        $given:tt $default:tt [$($covered:ident $named:ident,)*]) => {
        $crate::toml::read::keys! {
            #[doc = concat!("The keys of [`", stringify!($name), "`].")]
            $raw { $($keys)* } $(later $later;)*
        }

        $(#[$meta])*
        $vis struct $name {
            $($(#[$doc])* $vis $field: $type,)*
        }

        impl $crate::fingerprint::Fingerprint for $name {
            fn add_to(&self, encoder: &mut $crate::fingerprint::Encoder) {
                let Self { $($named),* } = self;
                $(section! { @fingerprint $covered encoder $named })*
            }
        }

        section! { @make $made $name $raw $given $default }
    };
    (@fingerprint results $encoder:ident $field:ident) => { $encoder.add($field); };
    (@fingerprint other $encoder:ident $field:ident) => { let _ = (&$encoder, $field); };

    (@make (by hand) $name:ident $raw:ident [] []) => {};
    (@make (new $vis:vis ($($param:ident: $type:ty),*)) $name:ident $raw:ident $given:tt [$($default:tt)*]) => {
        impl $name {
            /// Returns a value with the given fields and the defaults of all others.
            #[must_use]
            $vis fn new($($param: $type),*) -> Self {
                Self { $($param: $param.into(),)* $($default)* }
            }
        }

        section! { @fill $name $raw $given }
    };
    (@make (default $($related:ident)?) $name:ident $raw:ident $given:tt [$($default:tt)*]) => {
        impl Default for $name {
            fn default() -> Self {
                Self { $($default)* }
            }
        }

        section! { @fill $name $raw $given }

        impl $crate::check::Validate<$name> for $raw {
            fn validate(
                spot: &$crate::toml::read::Spot<Self>,
                (): (),
                check: &mut $crate::check::Check<'_>,
            ) -> Option<$name> {
                let mut value = $name::default();
                spot.value.fill(&mut value, check);
                $(Self::$related(spot, &mut value, check);)?
                Some(value)
            }
        }
    };
    (@fill $name:ident $raw:ident [$({ $field:ident $key:ident $($limit:expr)? })*]) => {
        impl $raw {
            /// Sets every field whose key the file has.
            fn fill(&self, to: &mut $name, check: &mut $crate::check::Check<'_>) {
                $(check.fill(&mut to.$field, &self.$key, section!(@limit $($limit)?));)*
            }
        }
    };
    (@limit) => { () };
    (@limit $limit:expr) => { $limit };

    ($(#[$meta:meta])* $vis:vis struct $name:ident, $raw:ident $(then $related:ident)? { $($lines:tt)+ }) => {
        section! { @line [$(#[$meta])* $vis $name $raw (default $($related)?)] [] [] [] [] [] [] $($lines)+ }
    };
    ($(#[$meta:meta])* $vis:vis struct $name:ident, $raw:ident, by hand { $($lines:tt)+ }) => {
        section! { @line [$(#[$meta])* $vis $name $raw (by hand)] [] [] [] [] [] [] $($lines)+ }
    };
    ($(#[$meta:meta])* $vis:vis struct $name:ident, $raw:ident, $new:vis new($($params:tt)*) { $($lines:tt)+ }) => {
        section! { @line [$(#[$meta])* $vis $name $raw (new $new ($($params)*))] [] [] [] [] [] [] $($lines)+ }
    };
}

pub(crate) mod alerts;
pub(crate) mod api;
pub(crate) mod billing;
pub(crate) mod cluster;
pub(crate) mod config;
pub(crate) mod detection;
pub(crate) mod email;
pub(crate) mod fields;
pub(crate) mod format;
pub(crate) mod gateway;
pub(crate) mod geo;
pub(crate) mod guide;
pub(crate) mod http;
pub(crate) mod job;
pub(crate) mod kafka;
pub(crate) mod keys;
pub(crate) mod limits;
pub(crate) mod log;
pub(crate) mod pages;
pub(crate) mod policy;
mod prelude;
pub(crate) mod routes;
pub(crate) mod sink;
pub(crate) mod source;
pub(crate) mod state;
pub(crate) mod tables;
pub(crate) mod topic;
pub(crate) mod webhook;
pub(crate) mod windows;

pub use alerts::Alerts;
pub use api::{Api, ApiRole, ApiToken, OnStale, Settlements};
pub use billing::Billing;
pub use cluster::{Cluster, ClusterTls};
pub use config::JobConfig;
pub use detection::Detection;
pub use email::{EmailAlerts, Language, MailServer, MailTls, Sender, is_address};
pub use fields::{Field, FieldMap, Pointer};
pub use format::Format;
pub use gateway::{AdminApi, AwsApi, AwsCredentials, Endpoint, Gateway, GatewayCaps, GatewayKind};
pub use geo::Geo;
pub use guide::{LinkTemplate, PublicUrl, Steps, fill_in};
pub use http::Http;
pub use job::Job;
pub use kafka::KafkaClient;
pub use keys::{KeyFrom, KeyHash, KeyRules, MissingKey};
pub use limits::Limits;
pub use log::{Log, LogFormat, LogLevel};
pub use pages::Pages;
pub use policy::{DefaultPolicy, PolicyMode, PolicyRules};
pub use routes::{Routes, RoutesFrom};
pub use sink::{Delivery, FileFormat, FileSink, KafkaSink, Sinks};
pub use source::{Condition, Dedupe, Source, SourceKind};
pub use state::{RemotePlace, State, StatePlace};
pub use tables::{TableFormat, TableSource, Tables, TopicFormat};
pub use topic::{End, KafkaSource, OnGap, Start};
pub use webhook::{Webhook, WebhookFormat, WebhookUrl};
pub use windows::{Unproven, Windows};
