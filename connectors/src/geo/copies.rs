//! Copies of geo databases by their content, for jobs that make ticks again.
//!
//! A tick that is made again needs the databases with which it was made first, whatever became of their files. So a job
//! with a state copies them into its store, each as an object whose name is the hash of its content:
//!
//! ```text
//! geo/<32 hexadecimal digits>      the databases "COUNTRY ASN CITY NETWORKS" are four such names, or `-`
//! ```
//! The hash is compared whenever a copy is read.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use keytide_config::Geo;

use super::{GeoDatabases, GeoError, Unreadable, read_file};
use crate::store::{Store, StoreError, geo_name};

/// Stands for a database that isn't configured.
const NONE: &str = "-";

/// The copies in a store.
#[derive(Clone, Debug)]
pub struct GeoCopies {
    store: Arc<Store>,
}

impl GeoCopies {
    /// Keeps copies in a store.
    #[must_use]
    pub fn new(store: Arc<Store>) -> Self {
        Self { store }
    }

    /// Copies the files that `config` names, and returns the databases in them with their name. A file is read once, so
    /// the databases are those of the copies.
    ///
    /// # Errors
    /// If a file can't be read or has no usable content, or the copy can't be written.
    pub fn take(
        &self,
        config: &Geo,
        unreadable: &Unreadable,
    ) -> Result<(String, Arc<GeoDatabases>), GeoError> {
        let copied = RefCell::new(BTreeMap::<PathBuf, String>::new());
        let read = |path: &Path| {
            let bytes = Bytes::from(read_file(path)?);
            let name = geo_name(&bytes);
            self.store.put_geo(&name, bytes.clone())?;
            copied.borrow_mut().insert(path.to_owned(), name);
            Ok(bytes.into())
        };
        let (databases, _) = GeoDatabases::read_with(config, unreadable.clone(), &read)?;
        let copied = copied.into_inner();
        let name = |path: Option<&Path>| path.and_then(|path| copied.get(path)).map_or(NONE, String::as_str);
        Ok((paths(config).map(name).join(" "), Arc::new(databases)))
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
            name.split(' ').map(|name| (name != NONE && !name.is_empty()).then(|| PathBuf::from(name)));
        of_copies.country = names.next().flatten();
        of_copies.asn = names.next().flatten();
        of_copies.city = names.next().flatten();
        of_copies.networks = names.next().flatten();
        let read = |name: &Path| Ok(self.store.get_geo(&name.to_string_lossy())?);
        let (databases, _) = GeoDatabases::read_with(&of_copies, unreadable.clone(), &read)?;
        Ok(Arc::new(databases))
    }

    /// Deletes the copies that none of the names needs.
    ///
    /// # Errors
    /// If they can't be listed, or one not deleted.
    pub fn retain<'n>(&self, names: impl IntoIterator<Item = &'n String>) -> Result<(), StoreError> {
        let needed: BTreeSet<&str> = names.into_iter().flat_map(|name| name.split(' ')).collect();
        self.store.retain_geo(|name| needed.contains(name))
    }
}

fn paths(config: &Geo) -> [Option<&Path>; 4] {
    let Geo { country, asn, city, networks, trusted_proxies: _ } = config;
    [country, asn, city, networks].map(|path| path.as_deref())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::tempdir;

    use super::*;

    #[test]
    fn copies_stay_as_the_files_were_and_go_when_no_name_needs_them() {
        let folder = tempdir().unwrap();
        let list = folder.path().join("networks.csv");
        let copies = GeoCopies::new(Arc::new(Store::open(&folder.path().join("state")).unwrap()));
        let take = |config: &Geo| copies.take(config, &Unreadable::default()).unwrap().0;
        let config = Geo { networks: Some(list.clone()), ..Geo::default() };
        let class = |name: &str| {
            let databases = copies.open(name, &config, &Unreadable::default()).unwrap();
            databases.networks.as_ref().unwrap().class("198.18.0.1".parse().unwrap())
        };
        copies.retain([]).unwrap();
        fs::write(&list, "network,class\n198.18.0.0/15,cloud\n").unwrap();
        let first = take(&config);
        assert_eq!(take(&config), first, "the same content");
        fs::write(&list, "network,class\n198.18.0.0/15,tor\n").unwrap();
        let second = take(&config);
        assert_ne!(first, second);
        let (before, now) = (class(&first), class(&second));
        assert_ne!(before, now);
        copies.retain([&second]).unwrap();
        assert!(copies.open(&first, &config, &Unreadable::default()).is_err());
        assert_eq!(class(&second), now);
        let name = take(&Geo::default());
        assert_eq!(name, "- - - -");
        assert!(copies.open(&name, &config, &Unreadable::default()).unwrap().networks.is_none());
    }
}
