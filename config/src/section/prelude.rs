//! The names that a section needs for its settings, so that a new setting needs no new import.

pub(super) use std::path::{Path, PathBuf};

pub(super) use crate::check::{AtMost, Check, DAY_MS, HOUR_MS, MINUTE_MS, Validate};
pub(super) use crate::fingerprint::{Encoder, Fingerprint};
pub(super) use crate::scalar::{
    Count, Decimal, Flag, HostName, Millis, Name, PathText, Size, Status, decimal_text, duration_text,
    is_host, is_loopback, port_number, texts,
};
pub(super) use crate::secret::{Secret, SecretRef};
pub(super) use crate::toml::near::nearest;
pub(super) use crate::toml::problem::{At, Location, Problems};
pub(super) use crate::toml::read::{Entry, FromToml, List, NOT_SHOWN, Section, Sections, Spot, keys};
pub(super) use crate::toml::tree::{TomlNode, TomlValue, quoted};
pub(super) use crate::toml::value::{
    Choice, Refusal, Scalar, choice, did_you_mean, names, parsed, refuse, text,
};
