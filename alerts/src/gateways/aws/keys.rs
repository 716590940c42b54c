//! The access keys of AWS, and the file that may hold them.
//!
//! The file is that of AWS' own tools: sections in brackets with lines `NAME = VALUE`, of which `[default]` is read. It
//! is read anew for each request, so keys that a sidecar or a timer renews are used at once.
//!
//! Limits: 64 KiB a file.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use keytide_config::{AwsCredentials, Secret};
use zeroize::Zeroizing;

/// The largest file that is read.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// An access key, with the token of a session if it is a temporary one.
pub(super) struct AwsKeys {
    pub(super) id: Secret,
    pub(super) secret: Secret,
    /// The token of keys that are valid for a time.
    pub(super) session: Option<Secret>,
}

impl AwsKeys {
    /// Returns the keys that are valid now, or why there are none.
    pub(super) fn now(credentials: &AwsCredentials) -> Result<Self, String> {
        match credentials {
            AwsCredentials::Keys { access_key_id, secret_access_key } => {
                Ok(Self { id: access_key_id.clone(), secret: secret_access_key.clone(), session: None })
            }
            AwsCredentials::File(path) => {
                let text = read(path).map_err(|error| format!("{}: {error}", path.display()))?;
                Self::parse(&text).ok_or_else(|| {
                    let names = "aws_access_key_id and aws_secret_access_key";
                    format!("{}: its section [default] hasn't {names}", path.display())
                })
            }
        }
    }

    /// Reads the section `[default]`.
    fn parse(text: &str) -> Option<Self> {
        let (mut id, mut secret, mut session) = (None, None, None);
        let mut is_default = false;
        for line in text.lines().map(str::trim) {
            if let Some(section) = line.strip_prefix('[') {
                is_default = section.split(']').next().map(str::trim) == Some("default");
            }
            let Some((name, value)) = line.split_once('=') else { continue };
            let found = match name.trim() {
                _ if !is_default => continue,
                "aws_access_key_id" => &mut id,
                "aws_secret_access_key" => &mut secret,
                "aws_session_token" => &mut session,
                _ => continue,
            };
            // Headers can't have other characters, and keys don't.
            let value = value.trim();
            if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic()) {
                *found = Some(Secret::new(value));
            }
        }
        Some(Self { id: id?, secret: secret?, session })
    }
}

fn read(path: &Path) -> std::io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    let length = File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if length as u64 > MAX_FILE_BYTES {
        return Err(std::io::Error::other("it has more than 64 KiB"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<[String; 3]> {
        let AwsKeys { id, secret, session } = AwsKeys::parse(text)?;
        let session = session.map_or(String::new(), |session| session.reveal().to_owned());
        Some([id.reveal().to_owned(), secret.reveal().to_owned(), session])
    }

    #[test]
    fn the_default_section_is_read() {
        for (text, expected) in [
            (
                "[default]\naws_access_key_id = AKIA\naws_secret_access_key=a/b+c==\n",
                Some(["AKIA", "a/b+c==", ""]),
            ),
            (
                "# x\n[other]\naws_access_key_id=B\naws_secret_access_key=b\naws_session_token=c\n\r\n [ default ] # y\r\n\
                 region = eu\r\n  aws_access_key_id\t=  AKIA \r\naws_session_token = t\r\naws_secret_access_key = s\r\n[z]\r\n\
                 aws_secret_access_key = z",
                Some(["AKIA", "s", "t"]),
            ),
            ("aws_access_key_id = AKIA\naws_secret_access_key = s", None),
            ("[default]\naws_access_key_id = AKIA\n;aws_secret_access_key = s", None),
            ("[default]\naws_access_key_id = AKIA\naws_secret_access_key = ", None),
            ("[default]\naws_access_key_id = A B\naws_secret_access_key = s", None),
            ("[default\n=\n[", None),
            ("", None),
        ] {
            let expected = expected.map(|three| three.map(str::to_owned));
            assert_eq!(parsed(text), expected, "{text}");
        }
    }

    #[test]
    fn a_file_is_read_anew_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credentials");
        let credentials = AwsCredentials::File(path.clone());
        let now = || AwsKeys::now(&credentials).map(|keys| keys.id.reveal().to_owned());
        assert!(now().unwrap_err().contains("credentials"));
        for id in ["AKIA1", "AKIA2"] {
            let text = format!("[default]\naws_access_key_id={id}\naws_secret_access_key=canary");
            std::fs::write(&path, text).unwrap();
            assert_eq!(now().as_deref(), Ok(id));
        }
        for bad in ["[default]\naws_secret_access_key=canary".to_owned(), "canary".repeat(11_000)] {
            std::fs::write(&path, bad).unwrap();
            let why = now().unwrap_err();
            assert!(!why.contains("canary"), "{why}");
        }
    }
}
