//! A list in pieces: it grows without being copied, and as it shrinks, memory goes back piece by piece.

use std::ops::{Index, IndexMut};

/// How many lie together.
const PIECE: usize = 256;

/// A list whose pieces are all full but for the last.
#[derive(Debug)]
pub(super) struct Entries<T> {
    pieces: Vec<Vec<T>>,
    len: usize,
}

impl<T> Entries<T> {
    pub(super) fn new() -> Self {
        Self {
            pieces: Vec::new(),
            len: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn push(&mut self, entry: T) {
        if self.len == self.pieces.len() * PIECE {
            self.pieces.push(Vec::with_capacity(PIECE));
        }
        self.pieces[self.len / PIECE].push(entry);
        self.len += 1;
    }

    /// Removes the entry at this place; the last one takes it.
    pub(super) fn swap_remove(&mut self, place: usize) -> Option<T> {
        let piece = self.pieces.last_mut()?;
        let mut entry = piece.pop()?;
        if piece.is_empty() {
            self.pieces.pop();
        }
        self.len -= 1;
        if place < self.len {
            std::mem::swap(&mut self[place], &mut entry);
        }
        Some(entry)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new();
    }
}

impl<T> Index<usize> for Entries<T> {
    type Output = T;

    fn index(&self, place: usize) -> &T {
        &self.pieces[place / PIECE][place % PIECE]
    }
}

impl<T> IndexMut<usize> for Entries<T> {
    fn index_mut(&mut self, place: usize) -> &mut T {
        &mut self.pieces[place / PIECE][place % PIECE]
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_a_list(steps in proptest::collection::vec(any::<Option<u16>>(), 0..3 * PIECE)) {
            let (mut entries, mut list) = (Entries::new(), Vec::new());
            // Over the ends of pieces, and back.
            for number in 0..PIECE - 100 {
                entries.push(number);
                list.push(number);
            }
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Some(place) if !list.is_empty() => {
                        let place = usize::from(place) % list.len();
                        prop_assert_eq!(entries.swap_remove(place), Some(list.swap_remove(place)));
                    }
                    _ => {
                        entries.push(number);
                        list.push(number);
                    }
                }
                prop_assert_eq!(entries.len(), list.len());
                prop_assert_eq!(entries.pieces.len(), list.len().div_ceil(PIECE));
            }
            for (place, number) in list.iter().enumerate() {
                prop_assert_eq!(&entries[place], number);
            }
        }
    }
}
