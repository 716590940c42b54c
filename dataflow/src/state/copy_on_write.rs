use std::mem;
use std::ops::Deref;
use std::sync::Arc;

/// A value that its owner may share with a snapshot, which is encoded on another thread while the owner goes on.
///
/// A shared value never changes. Its owner goes on with a copy from the first change on, unless the snapshot is encoded by
/// then. A value that isn't shared costs a comparison to change.
#[derive(Debug)]
pub(crate) enum CopyOnWrite<T> {
    Own(T),
    Shared(Arc<T>),
}

impl<T: Clone + Default> CopyOnWrite<T> {
    pub(crate) fn new(value: T) -> Self {
        Self::Own(value)
    }

    /// Returns the value as it is now, for a snapshot.
    pub(crate) fn share(&mut self) -> Arc<T> {
        let shared = match mem::take(self) {
            Self::Own(value) => Arc::new(value),
            Self::Shared(shared) => shared,
        };
        *self = Self::Shared(Arc::clone(&shared));
        shared
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        if let Self::Shared(_) = self {
            *self = Self::Own(mem::take(self).into_inner());
        }
        match self {
            Self::Own(value) => value,
            Self::Shared(_) => unreachable!("it was made an own one above"),
        }
    }

    pub(crate) fn into_inner(self) -> T {
        match self {
            Self::Own(value) => value,
            Self::Shared(shared) => Arc::unwrap_or_clone(shared),
        }
    }
}

impl<T: Default> Default for CopyOnWrite<T> {
    fn default() -> Self {
        Self::Own(T::default())
    }
}

impl<T> Deref for CopyOnWrite<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Own(value) => value,
            Self::Shared(shared) => shared,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_keeps_what_it_was_taken_of() {
        let mut own = CopyOnWrite::new(vec![1]);
        own.get_mut().push(2);
        let first = own.share();
        let second = own.share();
        own.get_mut().push(3);
        assert_eq!((&*first, &*second, &*own), (&vec![1, 2], &vec![1, 2], &vec![1, 2, 3]));
        let third = own.share();
        assert_eq!(*third, [1, 2, 3]);
        drop(third);
        let place = own.as_ptr();
        own.get_mut();
        assert_eq!(own.as_ptr(), place, "what is no longer shared isn't copied");
        assert_eq!(own.into_inner(), [1, 2, 3]);
    }
}
