//! Secrets, which the configuration refers to and no message shows.
//!
//! Limits: a secret's file of 64 KiB.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::check::{Check, Validate};
use crate::scalar::is_path;
use crate::toml::problem::Location;
use crate::toml::read::Spot;
use crate::toml::tree::quoted;
use crate::toml::value::{Scalar as _, parsed};

const MAX_SECRET_BYTES: u64 = 64 << 10;
/// A shorter secret can be guessed, which is a warning.
const GOOD_SECRET_BYTES: usize = 16;

/// A secret value, which is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a value that must never be printed.
    #[must_use]
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// Returns the secret itself. Callers must pass it on to its user and keep no copy.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl Secret {
    /// Reads the secret that a reference on the command line names: `env:NAME` or `file:PATH`. `env` holds the
    /// variables. Relative paths are relative to the working folder.
    ///
    /// # Errors
    /// A message that shows neither reference nor secret, unless the reference names a variable or a file.
    pub fn read(reference: &str, env: impl Iterator<Item = (String, String)>) -> Result<Self, String> {
        let reference = self::reference(reference)
            .ok_or_else(|| format!("found a value that is not shown, allowed: {}", SecretRef::allowed()))?;
        reference.read(&env.collect(), Path::new("")).map(Self)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A reference to a secret. A literal is no reference, so it can never hold a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SecretRef {
    Env(String),
    File(String),
}

parsed! {
    SecretRef: reference, "\"env:NAME\" or \"file:PATH\", never the secret itself", hidden true;
}

fn reference(text: &str) -> Option<SecretRef> {
    let (kind, rest) = text.split_once(':')?;
    match kind {
        "env" => is_variable(rest).then(|| SecretRef::Env(rest.to_owned())),
        "file" => is_path(rest).then(|| SecretRef::File(rest.to_owned())),
        _ => None,
    }
}

fn is_variable(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && name.bytes().next().is_some_and(|b| !b.is_ascii_digit())
}

impl SecretRef {
    /// Reads the text that it refers to.
    fn read(&self, env: &BTreeMap<String, String>, base: &Path) -> Result<String, String> {
        let found = match self {
            Self::Env(name) => {
                env.get(name).cloned().ok_or_else(|| format!("environment variable {name} isn't set"))
            }
            Self::File(path) => read_secret(&base.join(path))
                .map_err(|error| format!("file {} can't be read: {error}", quoted(path))),
        };
        found.and_then(|found| match found.as_str() {
            "" => Err("what it refers to is empty".to_owned()),
            text if text.contains([char::REPLACEMENT_CHARACTER, '\0']) => {
                Err("what it refers to isn't UTF-8 text".to_owned())
            }
            _ => Ok(found),
        })
    }
}

impl Validate<Secret> for SecretRef {
    fn validate(spot: &Spot<Self>, (): (), check: &mut Check<'_>) -> Option<Secret> {
        check.secret(spot)
    }
}

impl Check<'_> {
    /// Reads a secret that was chosen for this job, and warns if it is short enough to be guessed.
    pub(crate) fn secret(&mut self, spot: &Spot<SecretRef>) -> Option<Secret> {
        let secret = self.referred(&spot.value, &spot.location)?;
        if secret.len() < GOOD_SECRET_BYTES {
            let message = format!("the secret has fewer than {GOOD_SECRET_BYTES} bytes and can be guessed");
            self.warn(spot, message);
        }
        Some(Secret::new(secret))
    }

    /// Reads the text that a reference refers to.
    pub(crate) fn referred(&mut self, reference: &SecretRef, location: &Location) -> Option<String> {
        reference.read(self.env, self.base).map_err(|message| self.refuse(location, message)).ok()
    }
}

/// The text of a file without the line break at its end.
fn read_secret(path: &Path) -> io::Result<String> {
    let mut secret = String::new();
    let length = File::open(path)?.take(MAX_SECRET_BYTES + 1).read_to_string(&mut secret)?;
    if length as u64 > MAX_SECRET_BYTES {
        return Err(io::Error::other(format!("it is too long, allowed: {MAX_SECRET_BYTES} bytes")));
    }
    let line = secret.strip_suffix("\r\n").or(secret.strip_suffix('\n'));
    Ok(line.map(str::to_owned).unwrap_or(secret))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toml::tree::TomlValue;
    use crate::toml::value::Scalar;

    fn read<T: Scalar>(text: &str) -> Option<T> {
        T::parse(&TomlValue::Text(text.to_owned())).ok()
    }

    #[test]
    fn only_references_to_secrets_are_accepted() {
        assert_eq!(read("env:KEY_SECRET"), Some(SecretRef::Env("KEY_SECRET".to_owned())));
        assert_eq!(read("file:/run/secrets/a:b"), Some(SecretRef::File("/run/secrets/a:b".to_owned())));
        for text in ["hunter2", "env:", "env:1X", "env:A-B", "file:", "ENV:X", "", "file:a\nb"] {
            assert_eq!(read::<SecretRef>(text), None, "{text}");
        }
    }
}
