//! The last row of each key, of rows that come nearly in order: a log-structured merge tree (P. O'Neil and others, 1996)
//! in memory.

use std::ops::Bound;

use itertools::Itertools as _;

use crate::epoch::Rows;

/// Runs of sorted rows, each at least twice as long as the next but for the last two. What is in a later one is newer.
#[derive(Debug, Default)]
pub(super) struct Runs(Vec<Rows>);

impl Runs {
    /// Takes a row; `None` deletes it.
    pub(super) fn put(&mut self, key: &[u8], value: Option<&[u8]>) {
        match self.0.last_mut() {
            Some(run) if run.last_key().is_none_or(|last| last < key) => run.push(key, value),
            _ => {
                self.merge();
                let mut run = Rows::default();
                run.push(key, value);
                self.0.push(run);
            }
        }
    }

    /// Makes one run of the last two, as long as the one before is not twice as long.
    fn merge(&mut self) {
        while let [.., older, newer] = &self.0[..]
            && older.len() < 2 * newer.len()
        {
            let mut both = Rows::default();
            for (key, value) in last_of_each([older.iter(), newer.iter()]) {
                both.push(key, value);
            }
            self.0.truncate(self.0.len() - 2);
            self.0.push(both);
        }
    }

    /// The row under `key`: outer `None` = not here, inner = deleted.
    pub(super) fn row(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        self.0.iter().rev().find_map(|run| run.row(key))
    }

    /// The rows of a range of keys, in order.
    pub(super) fn range(
        &self,
        range: (Bound<&[u8]>, Bound<&[u8]>),
    ) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        last_of_each(self.0.iter().map(move |run| run.between(range)))
    }

    /// How many rows, those of all runs: a key may be in several.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(Rows::len).sum()
    }

    /// Memory that they take.
    pub(super) fn bytes(&self) -> usize {
        self.0.iter().map(Rows::memory).sum()
    }
}

/// The rows of several runs, in order; of those with the same key, the one of the last run.
fn last_of_each<'r>(
    runs: impl IntoIterator<Item = impl Iterator<Item = (&'r [u8], Option<&'r [u8]>)>>,
) -> impl Iterator<Item = (&'r [u8], Option<&'r [u8]>)> {
    let runs = (0..).zip(runs);
    let runs = runs.map(|(age, run): (u32, _)| run.map(move |row| (row, age)));
    let rows = runs.kmerge_by(|((a, _), x), ((b, _), y)| a.cmp(b).then(y.cmp(x)).is_lt());
    // The newest comes first.
    rows.dedup_by(|((a, _), _), ((b, _), _)| a == b)
        .map(|(row, _)| row)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Mostly later than the one before, with some that come again.
    fn write() -> impl Strategy<Value = (u8, Option<u8>)> {
        (any::<u8>(), any::<Option<u8>>())
    }

    proptest! {
        #[test]
        fn holds_what_a_map_holds(
            mut writes in proptest::collection::vec(write(), 0..200),
            sorted in proptest::collection::vec(0..200_usize, 0..8),
            range in any::<(Bound<u8>, Bound<u8>)>(),
        ) {
            // Runs of all lengths.
            for part in sorted {
                let at = part.min(writes.len());
                writes[at..].sort_unstable();
            }
            let (mut runs, mut map) = (Runs::default(), BTreeMap::new());
            for (key, value) in &writes {
                runs.put(&[*key], value.as_ref().map(std::slice::from_ref));
                map.insert(vec![*key], value.map(|value| vec![value]));
            }
            let of_map = map.iter().map(|(key, value)| (&key[..], value.as_deref()));
            let all = runs.range((Bound::Unbounded, Bound::Unbounded));
            prop_assert!(all.eq(of_map.clone()));
            for key in 0..=u8::MAX {
                let expected = map.get(&vec![key]).map(Option::as_deref);
                prop_assert_eq!(runs.row(&[key]), expected);
            }
            let (from, to) = (range.0.as_ref().map(std::slice::from_ref), range.1.as_ref().map(std::slice::from_ref));
            let within = of_map.filter(|(key, _)| std::ops::RangeBounds::<[u8]>::contains(&(from, to), *key));
            prop_assert!(runs.range((from, to)).eq(within));
            prop_assert!(runs.len() >= map.len());
            prop_assert_eq!(runs.bytes() == 0, map.is_empty());
            for pair in runs.0.iter().rev().skip(1).collect::<Vec<_>>().windows(2) {
                prop_assert!(pair[1].len() >= 2 * pair[0].len());
            }
        }
    }
}
