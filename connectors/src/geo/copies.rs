//! Copies of geo databases by their content, for jobs that make ticks again.
//!
//! A tick that is made again needs the databases with which it was made first, whatever became of their files. So a job
//! with a state uses copies, each a file whose name is the hash of its content:
//!
//! ```text
//! DIR/geo/<32 hexadecimal digits>      the databases "COUNTRY ASN CITY NETWORKS" are four such names, or `-`
//! ```

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keytide_config::Geo;
use xxhash_rust::xxh3::Xxh3;

use super::{GeoDatabases, GeoError, Unreadable};

/// Bytes that are copied at once.
const BLOCK: usize = 1 << 20;
/// Stands for a database that isn't configured.
const NONE: &str = "-";

/// The folder of the copies.
#[derive(Clone, Debug)]
pub struct GeoCopies {
    dir: PathBuf,
}

impl GeoCopies {
    /// Keeps copies in a folder, which is made with the first of them.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Copies the files that `config` names, and returns the name of the databases.
    ///
    /// # Errors
    /// If a file can't be read, or the copy not written.
    pub fn take(&self, config: &Geo) -> io::Result<String> {
        let mut names = Vec::new();
        for path in paths(config) {
            names.push(match path {
                Some(path) => self.copy(path)?,
                None => NONE.to_owned(),
            });
        }
        Ok(names.join(" "))
    }

    /// Reads the databases of a name.
    ///
    /// # Errors
    /// If a copy is gone or damaged.
    pub fn open(
        &self,
        name: &str,
        config: &Geo,
        unreadable: &Unreadable,
    ) -> Result<Arc<GeoDatabases>, GeoError> {
        let mut of_copies = config.clone();
        let mut names =
            name.split(' ').map(|name| (name != NONE && !name.is_empty()).then(|| self.dir.join(name)));
        of_copies.country = names.next().flatten();
        of_copies.asn = names.next().flatten();
        of_copies.city = names.next().flatten();
        of_copies.networks = names.next().flatten();
        let (databases, _) = GeoDatabases::read(&of_copies, unreadable.clone())?;
        Ok(Arc::new(databases))
    }

    /// Deletes the copies that none of the names needs.
    ///
    /// # Errors
    /// If the folder can't be listed, or a file not deleted.
    pub fn retain<'n>(&self, names: impl IntoIterator<Item = &'n String>) -> io::Result<()> {
        if !self.dir.exists() {
            return Ok(());
        }
        let needed: BTreeSet<&str> = names.into_iter().flat_map(|name| name.split(' ')).collect();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if !entry.file_name().to_str().is_some_and(|name| needed.contains(name)) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// Copies a file, unless its content is there, and returns the copy's name.
    fn copy(&self, path: &Path) -> io::Result<String> {
        fs::create_dir_all(&self.dir)?;
        let part = self.dir.join("part");
        let mut from = File::open(path)?;
        let mut to = BufWriter::with_capacity(BLOCK, File::create(&part)?);
        let (mut hasher, mut block) = (Xxh3::new(), vec![0; BLOCK]);
        loop {
            let read = from.read(&mut block)?;
            if read == 0 {
                break;
            }
            hasher.update(&block[..read]);
            to.write_all(&block[..read])?;
        }
        let name = format!("{:032x}", hasher.digest128());
        let copy = self.dir.join(&name);
        if copy.exists() {
            fs::remove_file(part)?;
        } else {
            to.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
            fs::rename(part, copy)?;
            File::open(&self.dir)?.sync_all()?;
        }
        Ok(name)
    }
}

fn paths(config: &Geo) -> [Option<&Path>; 4] {
    let Geo { country, asn, city, networks, trusted_proxies: _ } = config;
    [country, asn, city, networks].map(|path| path.as_deref())
}

#[cfg(test)]
mod tests {
    use tempfile::tempdir;

    use super::*;

    #[test]
    fn copies_stay_as_the_files_were_and_go_when_no_name_needs_them() {
        let folder = tempdir().unwrap();
        let list = folder.path().join("networks.csv");
        let copies = GeoCopies::new(folder.path().join("geo"));
        let config = Geo { networks: Some(list.clone()), ..Geo::default() };
        let class = |name: &str| {
            let databases = copies.open(name, &config, &Unreadable::default()).unwrap();
            databases.networks.as_ref().unwrap().class("198.18.0.1".parse().unwrap())
        };
        copies.retain([]).unwrap();
        fs::write(&list, "network,class\n198.18.0.0/15,cloud\n").unwrap();
        let first = copies.take(&config).unwrap();
        assert_eq!(copies.take(&config).unwrap(), first, "the same content");
        fs::write(&list, "network,class\n198.18.0.0/15,tor\n").unwrap();
        let second = copies.take(&config).unwrap();
        assert_ne!(first, second);
        let (before, now) = (class(&first), class(&second));
        assert_ne!(before, now);
        copies.retain([&second]).unwrap();
        assert!(copies.open(&first, &config, &Unreadable::default()).is_err());
        assert_eq!(class(&second), now);
        let none = GeoCopies::new(folder.path().join("none"));
        let name = none.take(&Geo::default()).unwrap();
        assert_eq!(name, "- - - -");
        assert!(none.open(&name, &config, &Unreadable::default()).unwrap().networks.is_none());
    }
}
