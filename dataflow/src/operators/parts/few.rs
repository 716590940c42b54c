//! Keeps at most five numbers of 32 bits in ascending order. With an enum's tag they take 24 bytes, and nothing on
//! the heap.
//!
//! Most rows of a long tail of keys hold a handful of calls. A row that needs more has a box.

/// The largest number of values.
pub(crate) const FEW: usize = 5;

/// Returns the `len` values in use. The length of a damaged row is cut to the five that fit.
#[inline]
pub(crate) fn listed(len: u8, values: &[u32; FEW]) -> &[u32] {
    &values[..usize::from(len).min(FEW)]
}

/// Returns true if `more` values fit.
#[inline]
pub(crate) fn has_room(len: u8, more: u32) -> bool {
    more as usize <= FEW.saturating_sub(len.into())
}

/// Inserts a value at `index`, and returns false if there is no room.
#[inline]
pub(crate) fn insert(len: &mut u8, values: &mut [u32; FEW], index: usize, value: u32) -> bool {
    let count = usize::from(*len);
    if count >= FEW {
        return false;
    }
    values.copy_within(index..count, index + 1);
    values[index] = value;
    *len += 1;
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_move_up_until_there_is_no_room() {
        let (mut len, mut values) = (0, [0; FEW]);
        for value in [5, 1, 4, 2, 3] {
            let index = listed(len, &values).partition_point(|known| *known < value);
            assert!(insert(&mut len, &mut values, index, value));
        }
        assert_eq!(listed(len, &values), [1, 2, 3, 4, 5]);
        assert!(!insert(&mut len, &mut values, 0, 0));
        assert!(has_room(0, 5) && !has_room(0, 6) && has_room(5, 0) && !has_room(4, u32::MAX));
        assert_eq!(listed(200, &values).len(), FEW);
    }
}
