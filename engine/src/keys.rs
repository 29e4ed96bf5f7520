//! Keys of rows, sorted with few looks at them.

/// How many bytes all of these begin with alike.
pub(crate) fn in_common<'k>(mut keys: impl Iterator<Item = &'k [u8]>) -> usize {
    let first = keys.next().unwrap_or_default();
    keys.fold(first.len(), |common, key| {
        both_begin_with(&first[..common], key)
    })
}

/// How many bytes both begin with alike.
pub(crate) fn both_begin_with(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// The first bytes of a key, as a number that sorts like them. Of what is behind that which all keys have in common,
/// they decide nearly always; so the keys, each in a place of its own, are hardly looked at.
pub(crate) fn head(key: &[u8]) -> u64 {
    let mut head = [0; 8];
    let len = key.len().min(head.len());
    head[..len].copy_from_slice(&key[..len]);
    u64::from_be_bytes(head)
}
