//! Which keys may have been let go: a filter of one hash (after B. H. Bloom, "Space/time trade-offs in hash
//! coding with allowable errors", 1970).

use crate::places::Hash;

/// Bits: with as many keys as an eighth of them, seven in eight others are told apart.
const BITS: usize = 1 << 18;

/// A set of keys that may say yes for others, too.
#[derive(Debug, Default)]
pub(super) struct Gone {
    /// Memory is taken with the first key.
    bits: Vec<u64>,
    is_empty: bool,
}

impl Gone {
    pub(super) fn add(&mut self, hash: Hash) {
        if self.bits.is_empty() {
            self.bits = vec![0; BITS / 64];
        }
        let (word, bit) = place(hash);
        self.bits[word] |= bit;
        self.is_empty = false;
    }

    /// Never no for one that was added.
    pub(super) fn may_have(&self, hash: Hash) -> bool {
        let (word, bit) = place(hash);
        self.bits.get(word).is_some_and(|bits| bits & bit != 0)
    }

    pub(super) fn clear(&mut self) {
        if !std::mem::replace(&mut self.is_empty, true) {
            self.bits.fill(0);
        }
    }
}

fn place(hash: Hash) -> (usize, u64) {
    let bit = usize::try_from(hash.spread() % BITS as u64).unwrap_or_default();
    (bit / 64, 1 << (bit % 64))
}
