//! What is armed comes due, and nothing else does.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Weak,
};

use proptest::prelude::*;
use ranges::Ranges;

use super::*;
use crate::{epoch::Row, store::Shared};

fn store() -> Arc<Store> {
    let shared = Shared::in_memory().unwrap();
    Arc::new(Store::open(&shared, std::path::Path::new("/timers"), "app", 0).unwrap())
}

fn no_timer(_: &[u8]) -> Option<i64> {
    None
}

/// What a commit would write.
fn cut(timers: &mut Timers) -> Vec<Row> {
    owned(&timers.cut())
}

fn owned(rows: &Rows) -> Vec<Row> {
    let rows = rows.iter();
    rows.map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec)))
        .collect()
}

fn epoch(timers: Rows) -> TaskEpoch {
    TaskEpoch {
        partition: 0,
        store: Weak::new(),
        rows: Arc::default(),
        timers,
        outputs: Arc::default(),
        next_offset: None,
        records: 0,
        digest: 0,
    }
}

/// Commits what is staged.
fn commit(timers: &mut Timers, staged: &mut Option<Arc<TaskEpoch>>, position: i64) {
    if let Some(epoch) = staged.take() {
        let rows = owned(&epoch.timers);
        timers.store.apply_rows(&rows, position).unwrap();
        timers.stage(None);
    }
}

/// More are due than are taken at once, and nothing else ever happens.
#[test]
fn all_that_is_due_is_taken_though_not_at_once() {
    let mut timers = Timers::new(store(), no_timer);
    let keys: BTreeSet<Vec<u8>> = (0..25u8).map(|key| vec![key]).collect();
    for key in &keys {
        timers.set(key, 100);
    }
    // Committed, as an owner finds them after a restart.
    let rows = cut(&mut timers);
    timers.store.apply_rows(&rows, 1).unwrap();
    let mut timers = Timers::new(Arc::clone(&timers.store), no_timer);
    let mut taken = BTreeSet::new();
    for expected in [10, 10, 5, 0] {
        let due = timers.take_due(100, 10).unwrap();
        assert_eq!(due.len(), expected);
        taken.extend(due.into_iter().map(|(_, key)| key));
        assert_eq!(timers.is_due(100), taken.len() < keys.len());
    }
    assert_eq!(taken, keys);
}

/// Nothing may come of a timer that was replaced: then nothing is cut for a while.
#[test]
fn what_was_taken_is_not_taken_again_before_it_is_cut() {
    let store = store();
    let row = (row_key(100, b"x").to_vec(), Some(Vec::new()));
    store.apply_rows(&[row], 1).unwrap();
    let mut timers = Timers::new(store, no_timer);
    assert_eq!(timers.take_due(100, 10).unwrap(), [(100, b"x".to_vec())]);
    // An earlier one makes it look from the beginning.
    timers.set(b"y", 50);
    assert_eq!(timers.take_due(100, 10).unwrap(), [(50, b"y".to_vec())]);
    let rows = timers.cut();
    let rows: Vec<_> = rows.iter().collect();
    let (x, y) = (row_key(100, b"x"), row_key(50, b"y"));
    assert_eq!(rows, [(&y[..], None), (&x[..], None)]);
}

/// Who was written since a table was made has a timer already: it gets no second row.
#[test]
fn a_range_that_is_due_is_for_those_that_were_not_written_since() {
    let range = range(b"a", b"c", 60);
    let mut timers = committed(&[
        object(b"a", 60),
        object(b"b", 61),
        object(b"c", 50),
        object(b"d", 50),
        armed(50, &range),
    ]);
    assert_eq!(timers.take_due(ms(50), 10).unwrap(), []);
    let dissolved = (row_key(ms(50), &range).to_vec(), None);
    let expected = [armed(50, b"c"), dissolved, armed(60, b"a")];
    assert_eq!(cut(&mut timers), expected);
}

/// Earliest first, also when one of the first is known by its range alone.
#[test]
fn what_is_due_behind_a_range_waits_until_it_is_dissolved() {
    let mut timers = committed(&[
        object(b"a", 70),
        object(b"b", 50),
        armed(40, b"x"),
        armed(50, &range(b"a", b"b", 70)),
        armed(60, b"y"),
    ]);
    let mut taken = Vec::new();
    while timers.is_due(ms(90)) {
        let due = timers.take_due(ms(90), 10).unwrap();
        taken.push(due.into_iter().map(|(_, key)| key).collect::<Vec<_>>());
    }
    let expected: [&[&[u8]]; 2] = [&[b"x"], &[b"b", b"y", b"a"]];
    assert_eq!(taken, expected);
}

/// An object of the test has its timer as its value, or none. Some are due before there was time.
fn named(row: &[u8]) -> Option<i64> {
    row.first().copied().map(ms)
}

fn ms(value: u8) -> i64 {
    i64::from(value) - 5
}

fn object(key: &[u8], value: u8) -> Row {
    (store::row_key(OBJECT, key), Some(vec![value]))
}

fn armed(value: u8, key: &[u8]) -> Row {
    (row_key(ms(value), key).to_vec(), Some(Vec::new()))
}

/// The key of a range's timer.
fn range(first: &[u8], last: &[u8], until: u8) -> Vec<u8> {
    let until_ms = ms(until);
    let range = Range {
        first,
        last,
        until_ms,
    };
    range.key()
}

/// The timers of objects in a store with these rows.
fn committed(rows: &[Row]) -> Timers {
    let store = store();
    store.apply_rows(rows, 1).unwrap();
    Timers::new(store, named)
}

proptest! {
    /// A store has ranges of several restores, one over another, and objects are written on. Each timer that an object
    /// names is taken when it is due, whatever happens on the way, and none too early.
    #[test]
    fn what_an_object_names_is_taken_when_it_is_due(
        restored in proptest::collection::vec(
            proptest::collection::btree_map(0..40_u8, proptest::option::of(0..100_u8), 1..20), 1..4),
        steps in proptest::collection::vec((0..20_u8, 0..40_u8, proptest::option::of(0..100_u8), 0..5_u8), 1..30),
        limit in 1..8_usize,
    ) {
        let store = store();
        let mut objects = BTreeMap::new();
        let mut position = 0;
        let row = |key: u8, value: Option<u8>| (store::row_key(OBJECT, &[key]), Some(Vec::from_iter(value)));
        for rows in restored {
            let keys: Vec<u8> = rows.keys().copied().collect();
            let mut ranges = Ranges::default();
            for (place, value) in (0..).zip(rows.values()) {
                value.iter().for_each(|value| ranges.add(place, ms(*value)));
            }
            let ranges = ranges.rows(|place| std::slice::from_ref(&keys[place as usize]));
            let ranges = ranges.into_iter().map(|key| (key.to_vec(), Some(Vec::new())));
            let rows_and_ranges: Vec<Row> = rows.iter().map(|(key, value)| row(*key, *value)).chain(ranges).collect();
            position += 1;
            store.apply_rows(&rows_and_ranges, position).unwrap();
            objects.extend(rows);
        }
        let mut timers = Timers::new(Arc::clone(&store), named);
        let mut staged = None;
        let mut now_ms = 0;
        for (wait_ms, key, value, what) in steps.into_iter().chain([(100, 0, None, 4)]) {
            now_ms += i64::from(wait_ms);
            while timers.is_due(now_ms) {
                for (due_ms, key) in timers.take_due(now_ms, limit).unwrap() {
                    prop_assert!(due_ms <= now_ms);
                    // Whoever is woken by his timer, and not by an old one, has none any more.
                    if objects[&key[0]].is_some_and(|value| ms(value).max(0) == due_ms) {
                        objects.insert(key[0], None);
                        position += 1;
                        store.apply_rows(&[row(key[0], None)], position).unwrap();
                    }
                }
            }
            let mut late = objects.values().flatten().filter(|value| ms(**value) <= now_ms);
            prop_assert_eq!(late.next(), None);
            match what {
                // Written anew.
                0 | 1 => {
                    let before = objects.insert(key, value).flatten();
                    before.iter().for_each(|value| timers.cancel(&[key], ms(*value)));
                    value.iter().for_each(|value| timers.set(&[key], ms(*value)));
                    position += 1;
                    store.apply_rows(&[row(key, value)], position).unwrap();
                }
                // Cut: it is in memory until it is committed.
                2 => {
                    position += 1;
                    commit(&mut timers, &mut staged, position);
                    let epoch = Arc::new(epoch(timers.cut()));
                    timers.stage(Some(Arc::clone(&epoch)));
                    staged = Some(epoch);
                }
                // Committed.
                3 => {
                    position += 1;
                    commit(&mut timers, &mut staged, position);
                }
                // All is committed, and another owner goes on.
                _ => {
                    position += 2;
                    commit(&mut timers, &mut staged, position - 1);
                    store.apply_rows(&cut(&mut timers), position).unwrap();
                    timers = Timers::new(Arc::clone(&store), named);
                }
            }
        }
    }
}
