//! Finds out whether a store of objects can hold a state, before a job relies on it.

use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use bytes::Bytes;
use object_store::path::Path;

use super::refusal::refusal;
use super::{Store, StoreError};

const PROBES: &str = "probes";

impl Store {
    /// Tries what a state needs on an object of its own: it is written if it isn't there, isn't written a second time,
    /// is listed, read and deleted.
    ///
    /// # Errors
    /// If one of these can't be done. [`StoreError::Refused`] says what a person has to do; other errors may pass.
    pub fn probe(&self) -> Result<(), StoreError> {
        self.try_all().map_err(|error| match error {
            StoreError::Object { what, object, error } => match refusal(&error) {
                Some(reason) => self.refused(reason),
                None => StoreError::Object { what, object, error },
            },
            error => error,
        })
    }

    fn try_all(&self) -> Result<(), StoreError> {
        let number = RandomState::new().build_hasher().finish();
        let object = format!("{PROBES}/{number:016x}");
        let content = Bytes::from(number.to_le_bytes().to_vec());
        // An answer that was lost makes the first one look like the second.
        self.put_new(&object, content.clone().into())?;
        if self.put_new(&object, content.clone().into())? {
            let reason = "the store wrote an object over one that was there, although it was asked not to \
                          (If-None-Match): it can't hold a state, since two processes could commit the same tick";
            // What it left is no harm.
            let _ = self.delete(&Path::from(&*object));
            return Err(self.refused(reason.to_owned()));
        }
        let is_listed = self.list(PROBES)?.contains(&Path::from(&*object));
        let is_read = self.get_if_present(&object)?.is_some_and(|read| read == content);
        if !is_listed || !is_read {
            let reason = "an object that was just written isn't found: it can't hold a state";
            return Err(self.refused(reason.to_owned()));
        }
        self.delete(&Path::from(&*object))
    }

    fn refused(&self, reason: String) -> StoreError {
        StoreError::Refused { place: self.place.clone(), reason }
    }
}
