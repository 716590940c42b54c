//! The reading of single values, whatever their meaning.

use super::near::nearest;
use super::tree::TomlValue;

/// A single value, which has no keys of its own.
pub(crate) trait Scalar: Sized {
    /// If set, the value found may be a secret and is never shown.
    const HIDDEN: bool = false;

    /// Returns the allowed values, as the end of a message.
    fn allowed() -> String;

    fn parse(value: &TomlValue) -> Result<Self, Refusal>;
}

/// The reason why a value isn't one of its kind.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// If set, a later version will allow the value.
    pub(crate) later: bool,
    /// A hint at the value that was probably meant.
    pub(crate) hint: Option<String>,
    /// If set, the value may hold a secret, although others of its kind don't.
    pub(crate) hidden: bool,
}

impl Refusal {
    /// Returns the message for a value shown as `found`.
    pub(crate) fn message(&self, found: &str, allowed: &str) -> String {
        let mut message = match self.later {
            true => format!("{found} isn't available in this version, allowed: {allowed}"),
            false => format!("found {found}, allowed: {allowed}"),
        };
        if let Some(hint) = &self.hint {
            message += &format!("; {hint}");
        }
        message
    }
}

pub(crate) fn text(value: &TomlValue) -> Result<&str, Refusal> {
    match value {
        TomlValue::Text(text) => Ok(text),
        _ => Err(Refusal::default()),
    }
}

pub(crate) fn refuse<T>(value: Option<T>) -> Result<T, Refusal> {
    value.ok_or_else(Refusal::default)
}

/// A value out of a short list of names.
pub(crate) trait Choice: Copy + 'static {
    const ALL: &'static [Self];
    /// Names that stand in the documentation, but that this version doesn't have.
    const LATER: &'static [&'static str] = &[];
    /// The reason why this version doesn't have them.
    const WHY: Option<&'static str> = None;
    const HIDDEN: bool = false;

    fn name(self) -> &'static str;
}

/// Lists the names of a set of choices.
pub(crate) fn names<T: Choice>(choices: &[T]) -> String {
    choices.iter().map(|choice| choice.name()).collect::<Vec<_>>().join(", ")
}

impl<T: Choice> Scalar for T {
    const HIDDEN: bool = <T as Choice>::HIDDEN;

    fn allowed() -> String {
        names(T::ALL)
    }

    fn parse(value: &TomlValue) -> Result<Self, Refusal> {
        let text = text(value)?;
        let known = T::ALL.iter().copied();
        known.clone().find(|choice| choice.name() == text).ok_or_else(|| {
            let later = T::LATER.contains(&text);
            let why = T::WHY.filter(|_| later).map(str::to_owned);
            let hint = why.or_else(|| did_you_mean(nearest(text, known.map(Self::name))));
            Refusal { later, hint, ..Refusal::default() }
        })
    }
}

pub(crate) fn did_you_mean(name: Option<&str>) -> Option<String> {
    name.map(|name| format!("did you mean \"{name}\"?"))
}

/// Declares kinds of values, each with its parser and its allowed values as messages name them.
macro_rules! parsed {
    ($($type:ty: $parse:expr, $allowed:expr $(, hidden $hidden:literal)?;)+) => {$(
        impl $crate::toml::value::Scalar for $type {
            $(const HIDDEN: bool = $hidden;)?

            fn allowed() -> String {
                $allowed.into()
            }

            fn parse(value: &$crate::toml::tree::TomlValue) -> Result<Self, $crate::toml::value::Refusal> {
                let parse: fn(&str) -> Option<Self> = $parse;
                $crate::toml::value::refuse(parse($crate::toml::value::text(value)?))
            }
        }
    )+};
}
pub(crate) use parsed;

/// Declares an enumeration with the names of its values in the file: one list for parsing, messages and output.
///
/// `later` lists names that the documentation has and this version hasn't, and `why` is the reason. With `hidden` a
/// wrong name is never shown.
macro_rules! choice {
    (
        $(#[$meta:meta])*
        $vis:vis enum $type:ident { $($(#[$doc:meta])* $variant:ident = $name:literal,)+ }
        $(later $later:expr;)?
        $(why $why:literal;)?
        $(hidden $hidden:literal;)?
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $type {
            $($(#[$doc])* $variant,)+
        }

        impl $type {
            /// Returns its name in the configuration file.
            #[must_use]
            #[allow(unreachable_pub, reason = "some of the enumerations are public")]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }
        }

        impl $crate::toml::value::Choice for $type {
            const ALL: &'static [Self] = &[$(Self::$variant),+];
            $(const LATER: &'static [&'static str] = &$later;)?
            $(const WHY: Option<&'static str> = Some($why);)?
            $(const HIDDEN: bool = $hidden;)?

            fn name(self) -> &'static str {
                self.name()
            }
        }
    };
}
pub(crate) use choice;
