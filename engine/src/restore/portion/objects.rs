//! The rows of objects in a portion, which come in any order. Where keys hardly ever come again, they are a log: that takes
//! least. Where they do, a log would be mostly rows that others have replaced, and the last row of each key is kept.

use itertools::Either;

use super::log::{Log, Row};
use crate::last_rows::LastRows;

/// Rows of objects.
#[derive(Debug)]
pub(super) enum Objects {
    Log(Log),
    LastRows(LastRows),
}

impl Default for Objects {
    fn default() -> Self {
        Self::Log(Log::default())
    }
}

impl Objects {
    /// As for [`LastRows::look_ahead`]. To add to a log, nothing is looked for.
    pub(super) fn look_ahead<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) {
        match self {
            Self::Log(_) => {}
            Self::LastRows(rows) => rows.look_ahead(keys),
        }
    }

    /// Takes a row; `None` deletes it.
    pub(super) fn put(&mut self, key: &[u8], value: Option<&[u8]>) {
        match self {
            Self::Log(log) => {
                log.put(key, value);
                if log.repeats() {
                    self.keep_last();
                }
            }
            Self::LastRows(rows) => rows.put(key, value),
        }
    }

    /// Gives back the memory of a log that holds nothing, and that of rows that were replaced if it is a third: with
    /// fewer, the last rows alone take as much.
    pub(super) fn make_room(&mut self) {
        let Self::Log(log) = self else { return };
        log.shrink();
        let (live, replaced) = log.live_and_replaced();
        if replaced > live / 2 {
            self.keep_last();
        }
    }

    fn keep_last(&mut self) {
        if let Self::Log(log) = self {
            let mut rows = LastRows::default();
            std::mem::take(log).into_each(|key, value| rows.put(key, value));
            *self = Self::LastRows(rows);
        }
    }

    /// How many rows; in a log, replaced ones too.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Log(log) => log.len(),
            Self::LastRows(rows) => rows.len(),
        }
    }

    /// Memory that they take, with what it takes to sort them.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Log(log) => log.bytes(),
            Self::LastRows(rows) => rows.bytes(),
        }
    }

    /// The last row of each key, sorted by key.
    pub(super) fn sorted(self) -> Sorted {
        match self {
            Self::Log(mut log) => {
                log.sort();
                Sorted::Log(log)
            }
            Self::LastRows(rows) => {
                let order = rows.sorted(0);
                Sorted::LastRows(rows, order)
            }
        }
    }
}

/// The last row of each key, sorted by key.
pub(super) enum Sorted {
    Log(Log),
    LastRows(LastRows, Vec<u32>),
}

impl Sorted {
    pub(super) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        match self {
            Self::Log(log) => Either::Left(log.rows()),
            Self::LastRows(rows, order) => Either::Right(rows.at_places(order)),
        }
    }

    /// The key of the row at this place.
    pub(super) fn key(&self, place: u32) -> &[u8] {
        let (key, _) = match self {
            Self::Log(log) => log.get(place),
            Self::LastRows(rows, order) => rows.get(order[place as usize]),
        };
        key
    }

    /// No rows, in the memory of these. The next changelog is like this one: its keys come again if these did.
    pub(super) fn emptied(self) -> Objects {
        match self {
            Self::Log(log) => Objects::Log(log.emptied()),
            Self::LastRows(rows, _) => Objects::LastRows(rows.emptied()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn objects(slack: usize) -> Objects {
        Objects::Log(Log::with_slack(slack))
    }

    fn is_log(objects: &Objects) -> bool {
        matches!(objects, Objects::Log(_))
    }

    fn key(number: usize) -> Vec<u8> {
        format!("osite-{number:05}.example.com").into_bytes()
    }

    /// Rows that others have replaced take hardly more than those that nothing has.
    #[test]
    fn keys_that_come_again_take_no_more_memory_each_time() {
        const SLACK: usize = 64 << 10;
        for (keys, times) in [(1, 40_000), (1_000, 60), (4_000, 20)] {
            let (mut objects, mut most, mut map) = (objects(SLACK), 0, BTreeMap::new());
            for number in 0..keys * times {
                let (key, value) = (key(number * 7_919 % keys), vec![1; 100 + number % 40]);
                objects.put(&key, Some(&value));
                most = most.max(objects.bytes());
                map.insert(key, value);
            }
            let live: usize = map.iter().map(|(key, value)| key.len() + value.len()).sum();
            // Places and unfilled pieces take something, too.
            let bound = live * 3 + SLACK + (1 << 20);
            assert!(most < bound, "{keys} keys of {live} bytes took {most}");
            assert!(live * times > 2 * bound, "that is not nothing");
            let sorted = objects.sorted();
            let rows = map.iter().map(|(key, value)| (&key[..], Some(&value[..])));
            assert!(sorted.rows().eq(rows));
            assert!(!is_log(&sorted.emptied()), "the next one is like it");
        }
    }

    #[test]
    fn rows_that_were_replaced_make_room_when_memory_is_short() {
        for (replaced, makes_room) in [(0, false), (200, false), (800, true)] {
            let mut objects = objects(1 << 20);
            for number in (0..1_000).chain(0..replaced) {
                objects.put(&key(number), Some(&[7; 500]));
            }
            assert!(is_log(&objects));
            let before = objects.bytes();
            objects.make_room();
            assert_eq!(!is_log(&objects), makes_room, "{replaced}");
            assert_eq!(objects.bytes() < before, makes_room, "{replaced}");
            assert_eq!(objects.sorted().rows().count(), 1_000);
        }
    }

    #[test]
    fn memory_that_holds_nothing_is_given_back_when_memory_is_short() {
        let mut objects = objects(1 << 20);
        for number in 0..2_000 {
            objects.put(&key(number), Some(&[7; 500]));
        }
        let before = objects.bytes();
        let mut objects = objects.sorted().emptied();
        objects.put(&key(1), None);
        assert_eq!(objects.bytes(), before, "it is kept for what comes");
        objects.make_room();
        assert!(objects.bytes() < before / 2);
        assert!(objects.sorted().rows().eq([(&key(1)[..], None)]));
    }
}
