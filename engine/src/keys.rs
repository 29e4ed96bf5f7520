//! Keys of rows: hashed, and sorted with few looks at them.

use foldhash::fast::RandomState;

/// The hash of a key.
pub(crate) fn hash(hasher: &RandomState, key: &[u8]) -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    let mut hasher = hasher.build_hasher();
    hasher.write(key);
    hasher.finish()
}

/// How many bytes all of these begin with alike.
pub(crate) fn in_common<'k>(mut keys: impl Iterator<Item = &'k [u8]>) -> usize {
    let first = keys.next().unwrap_or_default();
    keys.fold(first.len(), |common, key| {
        let both = first[..common].iter().zip(key);
        both.take_while(|(a, b)| a == b).count()
    })
}

/// The first bytes of a key, as a number that sorts like them. Of what is behind that which all keys have in common,
/// they decide nearly always; so the keys, each in a place of its own, are hardly looked at.
pub(crate) fn head(key: &[u8]) -> u64 {
    let mut head = [0; 8];
    let len = key.len().min(head.len());
    head[..len].copy_from_slice(&key[..len]);
    u64::from_be_bytes(head)
}
