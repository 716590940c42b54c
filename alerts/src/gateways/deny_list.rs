//! A deny list: a file with a line `KEY_ID STATE` for each key that a gateway is to refuse, in the order of ids.
//!
//! It is written as a whole, to a temporary file that then takes its name. So a reader always sees a whole list, and a
//! crash leaves the one before.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use keytide_dataflow::DenialState;

/// The file of a deny list.
#[derive(Debug)]
pub(super) struct DenyList {
    path: PathBuf,
}

impl DenyList {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether the file has exactly these keys.
    pub(super) fn holds(&self, denied: &BTreeMap<String, DenialState>) -> io::Result<bool> {
        let wanted = text(denied);
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        // One byte more tells a longer file.
        let mut found = Vec::with_capacity(wanted.len() + 1);
        file.take(wanted.len() as u64 + 1).read_to_end(&mut found)?;
        Ok(found == wanted.as_bytes())
    }

    /// Writes the file, which has exactly these keys then, also after a crash.
    pub(super) fn write(&self, denied: &BTreeMap<String, DenialState>) -> io::Result<()> {
        let mut name = OsString::from(".");
        name.push(self.path.file_name().unwrap_or_default());
        name.push(".new");
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let temporary = folder.join(name);
        let mut file = File::create(&temporary)?;
        file.write_all(text(denied).as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, &self.path)?;
        File::open(folder)?.sync_all()
    }
}

fn text(denied: &BTreeMap<String, DenialState>) -> String {
    let mut text = String::new();
    for (key_id, state) in denied {
        // An identifier that is no hash may have any character; none of them may end the line.
        for character in key_id.chars() {
            if character.is_control() {
                let _ = write!(text, "\\u{:04x}", u32::from(character));
            } else {
                text.push(character);
            }
        }
        text.push(' ');
        text.push_str(state.name());
        text.push('\n');
    }
    text
}
