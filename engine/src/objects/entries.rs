//! A list in pieces: it grows without being copied, and as it shrinks, memory goes back piece by piece.

use std::ops::{Index, IndexMut};

/// How many lie together.
const PIECE: u32 = 256;

/// A list whose pieces are all full but for the last.
#[derive(Debug)]
pub(super) struct Entries<T> {
    pieces: Vec<Vec<T>>,
    len: u32,
}

impl<T> Entries<T> {
    pub(super) fn new() -> Self {
        Self {
            pieces: Vec::new(),
            len: 0,
        }
    }

    pub(super) fn len(&self) -> u32 {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn push(&mut self, entry: T) {
        let (piece, in_piece) = at(self.len);
        if in_piece == 0 {
            self.pieces.push(Vec::with_capacity(PIECE as usize));
        }
        self.pieces[piece].push(entry);
        self.len += 1;
    }

    /// Removes the entry at this place; the last one takes it.
    pub(super) fn swap_remove(&mut self, place: u32) -> Option<T> {
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

impl<T> Index<u32> for Entries<T> {
    type Output = T;

    fn index(&self, place: u32) -> &T {
        let (piece, in_piece) = at(place);
        &self.pieces[piece][in_piece]
    }
}

impl<T> IndexMut<u32> for Entries<T> {
    fn index_mut(&mut self, place: u32) -> &mut T {
        let (piece, in_piece) = at(place);
        &mut self.pieces[piece][in_piece]
    }
}

/// The piece, and the place in it.
fn at(place: u32) -> (usize, usize) {
    ((place / PIECE) as usize, (place % PIECE) as usize)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_a_list(steps in proptest::collection::vec(any::<Option<u16>>(), 0..3 * PIECE as usize)) {
            let (mut entries, mut list) = (Entries::new(), Vec::new());
            // Over the ends of pieces, and back.
            for number in 0..156 {
                entries.push(number);
                list.push(number);
            }
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Some(place) if !list.is_empty() => {
                        let place = usize::from(place) % list.len();
                        let removed = entries.swap_remove(u32::try_from(place).unwrap());
                        prop_assert_eq!(removed, Some(list.swap_remove(place)));
                    }
                    _ => {
                        entries.push(number);
                        list.push(number);
                    }
                }
                prop_assert_eq!(entries.len() as usize, list.len());
                prop_assert_eq!(entries.pieces.len(), list.len().div_ceil(PIECE as usize));
            }
            for (place, number) in (0..).zip(&list) {
                prop_assert_eq!(&entries[place], number);
            }
        }
    }
}
