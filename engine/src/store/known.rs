//! Which objects RocksDB may have, of a store that had none when it was opened.
//!
//! RocksDB has filters, too, but one in each table: an object that is new is looked for in every one of them.

use crate::places::Hash;

/// Words of the first layer; each next one has some times as many.
const FIRST_WORDS: usize = 1 << 10;
const GROWS: usize = 4;
/// A layer takes a key for so many of its bits. About one in thirty other keys is taken for one of its own then.
const BITS: usize = 10;

/// A set of keys that may say yes for others, too (after B. H. Bloom, "Space/time trade-offs in hash coding with allowable
/// errors", 1970; the bits of a key in one word: F. Putze, P. Sanders, J. Singler, "Cache-, hash- and space-efficient Bloom
/// filters", 2007; in layers, as it grows: P. S. Almeida et al., "Scalable Bloom filters", 2007).
#[derive(Debug, Default)]
pub(super) struct Known {
    layers: Vec<Layer>,
}

#[derive(Debug)]
struct Layer {
    words: Vec<u64>,
    /// How many keys it may take yet.
    room: usize,
}

impl Layer {
    fn of(words: usize) -> Self {
        Self {
            words: vec![0; words],
            room: words * 64 / BITS,
        }
    }

    fn may_have(&self, hash: Hash) -> bool {
        let (word, bits) = place(hash, self.words.len());
        self.words[word] & bits == bits
    }

    fn add(&mut self, hash: Hash) {
        let (word, bits) = place(hash, self.words.len());
        self.words[word] |= bits;
        self.room -= 1;
    }
}

/// The word of a key, and four bits of it.
fn place(hash: Hash, words: usize) -> (usize, u64) {
    let spread = hash.spread();
    let word = ((spread >> 32) * words as u64) >> 32;
    let bits = [0, 6, 12, 18].map(|shift| 1 << (spread >> shift & 63));
    let word = usize::try_from(word).unwrap_or_default();
    (word, bits.into_iter().fold(0, |all, bit: u64| all | bit))
}

impl Known {
    /// Never no for one that was added.
    pub(super) fn may_have(&self, hash: Hash) -> bool {
        self.layers.iter().any(|layer| layer.may_have(hash))
    }

    /// Adds those that are not there.
    pub(super) fn add(&mut self, hashes: impl Iterator<Item = Hash>) {
        for hash in hashes {
            if self.may_have(hash) {
                continue;
            }
            if self.layers.last().is_none_or(|layer| layer.room == 0) {
                let words = self.layers.last().map(|layer| layer.words.len() * GROWS);
                self.layers.push(Layer::of(words.unwrap_or(FIRST_WORDS)));
            }
            if let Some(layer) = self.layers.last_mut() {
                layer.add(hash);
            }
        }
    }

    /// Memory that it takes.
    pub(super) fn bytes(&self) -> usize {
        let words = self.layers.iter().map(|layer| layer.words.len());
        words.sum::<usize>() * size_of::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::places::hash;

    fn key(number: u32) -> Hash {
        hash(&number.to_be_bytes())
    }

    #[test]
    fn says_yes_for_its_own_and_hardly_ever_for_others() {
        let mut known = Known::default();
        assert!(!known.may_have(key(0)));
        for all in [1, 100, 10_000, 100_000, 300_000] {
            known.add((0..all).map(key));
            assert!((0..all).all(|number| known.may_have(key(number))));
            let others = (all..all + 10_000).filter(|number| known.may_have(key(*number)));
            let others = others.count();
            assert!(others < 1_000, "{others} of 10,000, with {all} keys");
        }
        // Two bytes a key, and what the last layer has room for.
        assert!(known.bytes() < 300_000 * 8, "{}", known.bytes());
    }
}
