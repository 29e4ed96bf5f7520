//! One timer for many objects that came together, as a table: each would have to be written, and hardly any comes due,
//! because most objects are written anew before. It is due with the first of theirs; then they get timers of their own.

use itertools::Itertools as _;

use super::{RowKey, row_key, sortable};

/// A range is one of so many objects at most, when it is made.
const OBJECTS: u32 = 1_000;
/// The key of a range's timer begins with it: those of objects are UTF-8, where it does not occur.
const MARK: u8 = 0xff;

/// The objects whose keys are not before the one, and not behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range<'k> {
    pub(crate) first: &'k [u8],
    pub(crate) last: &'k [u8],
    /// The last of their timers was due then, in ms since 1970: who has a later one was written since, and has it for
    /// itself.
    pub(crate) until_ms: i64,
}

impl<'k> Range<'k> {
    /// The key of its timer: the mark, when the last one was due, the length of the first key (both big-endian), and
    /// both keys.
    pub(crate) fn key(self) -> Vec<u8> {
        let len = u32::try_from(self.first.len()).expect("no key is so long");
        let (until, len) = (self.until_ms.to_be_bytes(), len.to_be_bytes());
        [&[MARK], &until[..], &len, self.first, self.last].concat()
    }

    /// The range that the key of a timer is for; `None` if that is an object's.
    pub(crate) fn of(key: &'k [u8]) -> Option<Self> {
        let (until, rest) = key.strip_prefix(&[MARK])?.split_first_chunk()?;
        let (len, keys) = rest.split_first_chunk()?;
        let (first, last) = keys.split_at_checked(u32::from_be_bytes(*len) as usize)?;
        Some(Self {
            first,
            last,
            until_ms: i64::from_be_bytes(*until),
        })
    }
}

/// Makes ranges of objects that come in the order of their keys.
#[derive(Debug, Default)]
pub(crate) struct Ranges(Vec<Places>);

/// Where the first and the last object of a range come, and when the first and the last of their timers are due, in ms
/// since 1970.
#[derive(Debug)]
struct Places {
    first: u32,
    last: u32,
    due_ms: i64,
    until_ms: i64,
}

impl Ranges {
    /// The object that comes at `place` has this timer.
    pub(crate) fn add(&mut self, place: u32, due_ms: i64) {
        let due_ms = sortable(due_ms);
        match self.0.last_mut() {
            Some(range) if place - range.first < OBJECTS => {
                range.last = place;
                range.due_ms = range.due_ms.min(due_ms);
                range.until_ms = range.until_ms.max(due_ms);
            }
            _ => self.0.push(Places {
                first: place,
                last: place,
                due_ms,
                until_ms: due_ms,
            }),
        }
    }

    /// The rows of their timers, in order; `key` is that of the object at a place.
    pub(crate) fn rows<'k>(&self, key: impl Fn(u32) -> &'k [u8]) -> Vec<RowKey> {
        let rows = self.0.iter().map(|places| {
            let range = Range {
                first: key(places.first),
                last: key(places.last),
                until_ms: places.until_ms,
            };
            row_key(places.due_ms, &range.key())
        });
        rows.sorted_unstable().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_known_by_its_key() {
        for (first, last) in [("", ""), ("a", "a"), ("a", "bc"), ("\u{7ff}", "z")] {
            let range = Range {
                first: first.as_bytes(),
                last: last.as_bytes(),
                until_ms: 7,
            };
            let key = range.key();
            assert_eq!(Range::of(&key), Some(range), "{first} to {last}");
            let cut_off = &key[..key.len() - last.len() - first.len().min(1)];
            assert_eq!(Range::of(cut_off).is_some(), first.is_empty(), "{first}");
        }
        for key in ["\u{ff}", ""] {
            assert_eq!(Range::of(key.as_bytes()), None, "{key} is of an object");
        }
    }

    #[test]
    fn a_range_is_due_with_the_first_of_its_objects() {
        let mut ranges = Ranges::default();
        for (place, due_ms) in [(3, 50), (4, 40), (1_002, 60), (1_003, 30), (5_000, -1)] {
            ranges.add(place, due_ms);
        }
        let keys = [3_u32, 1_002, 1_003, 5_000].map(|place| (place, place.to_be_bytes()));
        let key = |place| &keys.iter().find(|(at, _)| *at == place).expect("a place").1[..];
        let row = |first, last, due_ms, until_ms| {
            let (first, last) = (key(first), key(last));
            let range = Range {
                first,
                last,
                until_ms,
            };
            row_key(due_ms, &range.key())
        };
        // Nothing is due before 1970.
        let expected = [
            row(5_000, 5_000, 0, 0),
            row(1_003, 1_003, 30, 30),
            row(3, 1_002, 40, 60),
        ];
        assert_eq!(ranges.rows(key), expected);
    }
}
