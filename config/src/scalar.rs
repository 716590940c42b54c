//! The kinds of values of single keys, each with its written form and its allowed values.
//!
//! All values are exact. Durations and sizes are integers with a unit, and values that don't fit are refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use crate::check::{Check, Number, Validate};
use crate::toml::name::{MAX_NAME_BYTES, is_name};
use crate::toml::read::Spot;
use crate::toml::tree::TomlValue;
use crate::toml::value::{Refusal, Scalar, parsed, refuse, text};

/// Declares kinds of text, each with its rule and the allowed values as messages name them.
macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident if $fits:expr, $allowed:expr;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub(crate) struct $name(pub(crate) String);

        $crate::toml::value::parsed! {
            $name: |text| {
                let fits: fn(&str) -> bool = $fits;
                fits(text).then(|| Self(text.to_owned()))
            }, $allowed;
        }

        impl $crate::check::Validate<String> for $name {
            fn validate(
                spot: &$crate::toml::read::Spot<Self>,
                (): (),
                _: &mut $crate::check::Check<'_>,
            ) -> Option<String> {
                Some(spot.value.0.clone())
            }
        }
    )+};
}

pub(crate) use texts;

texts! {
    /// The name of a job, a source or a webhook.
    Name if is_name, format!("1 to {MAX_NAME_BYTES} of a-z, 0-9, _ and -");
    /// A path or a pattern of paths, not resolved.
    PathText if is_path, "a path, absolute or relative to the configuration file";
}

pub(crate) fn is_path(text: &str) -> bool {
    !text.is_empty() && !text.contains(char::is_control)
}

const SIZES: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
const DURATIONS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Declares kinds of values that hold a number or a flag.
macro_rules! plain {
    ($($(#[$doc:meta])* $name:ident($held:ty): $read:expr, $allowed:literal;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) struct $name(pub(crate) $held);

        impl Scalar for $name {
            fn allowed() -> String {
                $allowed.to_owned()
            }

            fn parse(value: &TomlValue) -> Result<Self, Refusal> {
                let read: fn(&TomlValue) -> Option<$held> = $read;
                refuse(read(value).map(Self))
            }
        }
    )+};
}

plain! {
    Count(u64): whole, "a whole number";
    /// A number of bytes, with or without a unit.
    Size(u64): |value| whole(value).or_else(|| scaled(text(value).ok()?, &SIZES)),
        "bytes as a whole number or with KiB, MiB or GiB, such as \"128KiB\"";
    /// A duration with a unit, in milliseconds.
    Millis(u64): |value| scaled(text(value).ok()?, &DURATIONS),
        "a whole number with ms, s, m, h or d, such as \"10m\"";
    /// A number that isn't negative, in thousandths.
    Decimal(u64): |value| match value {
        TomlValue::Number(text) => thousandths(text),
        _ => whole(value)?.checked_mul(1_000),
    }, "a number with at most three decimals, such as 0.65";
    /// The status of an answer by HTTP.
    Status(u16): |value| whole(value).and_then(|status| u16::try_from(status).ok()).filter(|status| (100..1_000).contains(status)),
        "a status from 100 to 999";
    /// A value that is true or false.
    Flag(bool): |value| match value {
        TomlValue::Boolean(flag) => Some(*flag),
        _ => None,
    }, "true, false";
}

macro_rules! numbers {
    ($($type:ident shown by $show:expr;)+) => {$(
        impl Number for $type {
            fn number(&self) -> u64 {
                self.0
            }

            fn show(number: u64) -> String {
                $show(number)
            }
        }
    )+};
}

numbers! {
    Millis shown by duration_text;
    Size shown by size_text;
    Count shown by |count: u64| count.to_string();
    Decimal shown by decimal_text;
}

impl Validate<bool> for Flag {
    fn validate(spot: &Spot<Self>, (): (), _: &mut Check<'_>) -> Option<bool> {
        Some(spot.value.0)
    }
}

impl Validate<u16> for Status {
    fn validate(spot: &Spot<Self>, (): (), _: &mut Check<'_>) -> Option<u16> {
        Some(spot.value.0)
    }
}

impl Validate<PathBuf> for PathText {
    fn validate(spot: &Spot<Self>, (): (), check: &mut Check<'_>) -> Option<PathBuf> {
        Some(check.base.join(&spot.value.0))
    }
}

fn whole(value: &TomlValue) -> Option<u64> {
    match value {
        TomlValue::Integer(integer) => u64::try_from(*integer).ok(),
        _ => None,
    }
}

/// Formats a size in bytes as the file has it, in its largest whole unit, so that `131072` is `128KiB`.
#[must_use]
pub fn size_text(bytes: u64) -> String {
    unscaled(bytes, &SIZES).unwrap_or_else(|| bytes.to_string())
}

/// Formats a duration in milliseconds as the file has it, in its largest whole unit, so that `90000` is `90s`.
#[must_use]
pub fn duration_text(millis: u64) -> String {
    match millis {
        0 => "0s".to_owned(),
        _ => unscaled(millis, &DURATIONS).unwrap_or_else(|| format!("{millis}ms")),
    }
}

/// Reads a duration as the file has it, such as `90s`, in milliseconds. `None` if it is written otherwise.
#[must_use]
pub fn duration_of(text: &str) -> Option<u64> {
    scaled(text, &DURATIONS)
}

/// Reads digits with one of the units, such as `10m`.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, scale) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*scale)
}

fn unscaled(number: u64, units: &[(&str, u64)]) -> Option<String> {
    let (unit, scale) = units.iter().find(|(_, scale)| number > 0 && number.is_multiple_of(*scale))?;
    Some(format!("{}{unit}", number / scale))
}

/// Returns whether `host` is a name, an IPv4 address, or an IPv6 address in brackets.
pub(crate) fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => {
            (1..=253).contains(&host.len())
                && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
        }
    }
}

pub(crate) fn port_number(port: &str) -> Option<u16> {
    let digits = port.bytes().all(|b| b.is_ascii_digit());
    port.parse().ok().filter(|port| digits && *port > 0)
}

/// A host as a name in lower case, or as an address without brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostName(pub(crate) String);

impl HostName {
    /// Reads a host without a dot at its end, which doesn't change a name's meaning.
    pub(crate) fn new(host: &str) -> Option<Self> {
        if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse::<Ipv6Addr>() {
            return Some(Self(address.to_string()));
        }
        let name = host.strip_suffix('.').unwrap_or(host);
        is_host(name).then(|| Self(name.to_ascii_lowercase()))
    }
}

parsed! {
    HostName: Self::new, "a host's name or address, without a port, such as \"hooks.internal\"";
}

impl Validate<String> for HostName {
    fn validate(spot: &Spot<Self>, (): (), _: &mut Check<'_>) -> Option<String> {
        Some(spot.value.0.clone())
    }
}

/// Returns whether a host is certainly this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback() || address == IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

fn thousandths(text: &str) -> Option<u64> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let is_plain = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || decimals.len() > 3 || !is_plain(whole) || !is_plain(decimals) {
        return None;
    }
    whole.parse::<u64>().ok()?.checked_mul(1_000)?.checked_add(format!("{decimals:0<3}").parse().ok()?)
}

/// Formats a number in thousandths as the file has it, so that `650` is `0.65`.
pub(crate) fn decimal_text(thousandths: u64) -> String {
    let text = format!("{}.{:03}", thousandths / 1_000, thousandths % 1_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use ipnet::IpNet;
    use proptest::prelude::*;

    use super::*;
    use crate::secret::SecretRef;
    use crate::section::routes::Template;
    use crate::section::{KeyFrom, Pointer};

    fn read<T: Scalar>(text: &str) -> Option<T> {
        T::parse(&TomlValue::Text(text.to_owned())).ok()
    }

    #[test]
    fn durations_are_a_number_and_a_unit() {
        for (text, millis) in [
            ("500ms", Some(500)),
            ("1s", Some(1_000)),
            ("10m", Some(600_000)),
            ("1h", Some(3_600_000)),
            ("2d", Some(172_800_000)),
            ("0s", Some(0)),
            ("007s", Some(7_000)),
            ("", None),
            ("s", None),
            ("10", None),
            ("1.5s", None),
            ("-1s", None),
            ("+1s", None),
            ("1 s", None),
            ("1S", None),
            ("1w", None),
            ("1s ", None),
            ("213503982334d", Some(213_503_982_334 * 86_400_000)),
            ("213503982335d", None),
            ("18446744073709551615ms", Some(u64::MAX)),
            ("18446744073709551616ms", None),
            ("1\u{0661}s", None),
        ] {
            assert_eq!(read::<Millis>(text).map(|millis| millis.0), millis, "{text}");
        }
    }

    #[test]
    fn sizes_are_bytes_or_have_a_unit() {
        for (text, bytes) in [
            ("128KiB", Some(131_072)),
            ("1MiB", Some(1 << 20)),
            ("2GiB", Some(2 << 30)),
            ("128", None),
            ("128KB", None),
            ("1.5MiB", None),
            ("17179869184GiB", None),
        ] {
            assert_eq!(read::<Size>(text).map(|size| size.0), bytes, "{text}");
        }
        assert_eq!(Size::parse(&TomlValue::Integer(4_096)), Ok(Size(4_096)));
        assert!(Size::parse(&TomlValue::Integer(-1)).is_err());
        assert_eq!(size_text(131_072), "128KiB");
        assert_eq!(size_text(1_000), "1000");
        assert_eq!(size_text(0), "0");
    }

    #[test]
    fn names_are_short_and_plain() {
        let longest = "a".repeat(MAX_NAME_BYTES);
        for (text, allowed) in [
            ("gateway-1_b", true),
            ("", false),
            ("Gateway", false),
            ("a.b", false),
            ("é", false),
            (&longest, true),
        ] {
            assert_eq!(read::<Name>(text).is_some(), allowed, "{text}");
        }
        assert!(read::<Name>(&format!("{longest}a")).is_none());
    }

    #[test]
    fn up_to_three_decimals() {
        for (text, number) in [
            ("17", 17_000),
            ("0.65", 650),
            ("0.125", 125),
            ("4.0", 4_000),
            ("0", 0),
            ("18446744073709551.615", u64::MAX),
        ] {
            assert_eq!(thousandths(text), Some(number), "{text}");
        }
        for text in
            ["", ".5", "-1", "1e3", "0.1234", "inf", "NaN", "18446744073709551.616", "18446744073709552"]
        {
            assert_eq!(thousandths(text), None, "{text}");
        }
        assert_eq!([650, 4_000, 125, 0].map(decimal_text), ["0.65", "4", "0.125", "0"]);
    }

    proptest! {
        #[test]
        fn durations_survive_being_shown(millis: u64) {
            prop_assert_eq!(read::<Millis>(&duration_text(millis)), Some(Millis(millis)));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}|[/~{}:a-z0-9.]{0,20}") {
            read::<Millis>(&text);
            read::<Size>(&text);
            read::<Pointer>(&text);
            read::<Template>(&text);
            read::<SecretRef>(&text);
            read::<IpNet>(&text);
            if let Some(rule) = read::<KeyFrom>(&text) {
                prop_assert_eq!(read::<KeyFrom>(&rule.to_string()), Some(rule));
            }
        }
    }
}
