//! The work on a store against a changelog in memory, with crashes wherever one may happen.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::{
    portion::Spare,
    stores::Phase,
    upkeep::Lent,
    work::{Aim, NEARLY_READ, Work},
};
use crate::{
    store::{Shared, Store, tests::crash},
    timers::{parse, ranges::Range, row_key},
};

mod agreement;
mod tables;

/// The next changelog begins when few records of this one are left.
#[test]
fn whoever_waits_for_a_changelog_does_not_wait_for_its_last_records() {
    let dir = tempfile::tempdir().unwrap();
    let end = NEARLY_READ + 2;
    let mut work = work(open(dir.path()), Aim::RESTORE, true, end);
    let now = Instant::now();
    assert!(work.is_sorted(now));
    work.take(0, Some(&key(1)), Some(b"1"), now).unwrap();
    assert!(work.is_sorted(now));
    work.take(1, Some(&key(2)), Some(b"2"), now).unwrap();
    assert!(!work.is_sorted(now));
}

/// One offset: a row, or the end of a transaction.
type Offset = Option<(u8, Option<u8>)>;

fn open(dir: &Path) -> Arc<Store> {
    let shared = Shared::on_disk(1 << 20);
    Arc::new(Store::open(&shared, dir, "app", 0).unwrap())
}

fn key(number: u8) -> Vec<u8> {
    vec![b'o', number]
}

/// Most values name a timer; few times, so that some are named again.
fn timer_of(row: &[u8]) -> Option<i64> {
    Some(i64::from(row[0] % 7)).filter(|ms| *ms > 0)
}

/// Keys of the timers in the index, with those that values name and a range wakes in time; and of all that values name.
fn timers(store: &Store) -> [BTreeSet<Vec<u8>>; 2] {
    let (mut indexed, mut ranges) = (BTreeSet::new(), Vec::new());
    let index = |row: &[u8], _: &[u8]| {
        match Range::of(&row[9..]) {
            Some(_) => ranges.push(row.to_vec()),
            None => drop(indexed.insert(row.to_vec())),
        }
        true
    };
    store.scan(b"t", index).unwrap();
    let content = content(store).into_iter();
    let named = content.filter_map(|(key, row)| Some(row_key(timer_of(&row)?, &key[1..]).to_vec()));
    let named: BTreeSet<Vec<u8>> = named.collect();
    let wakes = |row: &[u8], timer: &[u8]| {
        let (due_ms, key) = parse(timer).unwrap();
        let (from_ms, range) = parse(row).unwrap();
        let range = Range::of(range).unwrap();
        let is_of_it = range.first <= key && key <= range.last;
        is_of_it && (from_ms..=range.until_ms).contains(&due_ms)
    };
    let is_woken = |timer: &&Vec<u8>| ranges.iter().any(|row| wakes(row, timer));
    indexed.extend(named.iter().filter(is_woken).cloned());
    [indexed, named]
}

fn content(store: &Store) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut rows = BTreeMap::new();
    store
        .scan(b"o", |key, value| {
            rows.insert(key.to_vec(), value.to_vec());
            true
        })
        .unwrap();
    rows
}

fn model(changelog: &[Offset]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut rows = BTreeMap::new();
    for (number, value) in changelog.iter().flatten() {
        match value {
            Some(value) => rows.insert(key(*number), vec![*value]),
            None => rows.remove(&key(*number)),
        };
    }
    rows
}

fn work(store: Arc<Store>, aim: Aim, by_tables: bool, end: i64) -> Work {
    let mut work = Work::new(store, aim, timer_of, Instant::now(), Spare::default()).unwrap();
    let unseen = work.store.unseen().unwrap();
    let now = Instant::now();
    work.begin(work.position(), unseen, end, by_tables, now);
    work
}

/// Reads from the work's position up to `to`, as the restorer does.
fn read(work: &mut Work, changelog: &[Offset], to: usize) {
    let from = usize::try_from(work.position()).unwrap();
    for (offset, row) in changelog.iter().enumerate().take(to).skip(from) {
        if let Some((number, value)) = row {
            let value = value.map(|v| vec![v]);
            let offset = i64::try_from(offset).unwrap();
            let now = Instant::now();
            work.take(offset, Some(&key(*number)), value.as_deref(), now)
                .unwrap();
        }
    }
    if to == changelog.len() {
        work.reached_end(i64::try_from(to).unwrap());
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// Read so many offsets.
    Read(u8),
    Write,
    WriteBeside,
    Flush,
    /// Whatever is in memory is lost.
    Crash,
    /// Closed in order, opened again.
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..60_u8).prop_map(Step::Read),
        3 => Just(Step::Write),
        2 => Just(Step::WriteBeside),
        1 => Just(Step::Flush),
        1 => Just(Step::Crash),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn whatever_happens_on_the_way_the_end_is_right(
        changelog in proptest::collection::vec(
            prop_oneof![
                1 => Just(None),
                9 => (0..40_u8, proptest::option::weighted(0.7, any::<u8>())).prop_map(Some),
            ],
            0..300,
        ),
        steps in proptest::collection::vec((step(), any::<bool>()), 0..25),
    ) {
        let end = i64::try_from(changelog.len()).unwrap();
        let mut dir = tempfile::tempdir().unwrap();
        let mut now = work(open(dir.path()), Aim::RESTORE, true, end);
        for (step, by_tables) in steps {
            match step {
                Step::Read(count) => {
                    let to = usize::try_from(now.position()).unwrap() + usize::from(count);
                    read(&mut now, &changelog, to.min(changelog.len()));
                }
                Step::Write => drop(now.write().unwrap()),
                Step::WriteBeside => drop(now.write_beside().unwrap()),
                Step::Flush => now.store.flush().unwrap(),
                Step::Crash => {
                    // A folder in which a thread writes cannot be copied.
                    while now.table_bytes() > 0 && !now.is_due(Instant::now()) {
                        std::thread::yield_now();
                    }
                    let left = crash(&now.store);
                    drop(now);
                    dir = left;
                    now = work(open(dir.path()), Aim::RESTORE, by_tables, end);
                }
                Step::Reopen => {
                    now.write().unwrap();
                    drop(now);
                    now = work(open(dir.path()), Aim::RESTORE, by_tables, end);
                }
            }
            prop_assert!(now.store.position().unwrap() <= now.position());
        }
        now.resolved(end);
        read(&mut now, &changelog, changelog.len());
        now.write().unwrap();
        prop_assert!(now.is_complete());
        prop_assert_eq!(now.store.position().unwrap(), end);
        prop_assert_eq!(content(&now.store), model(&changelog));
        let [indexed, named] = timers(&now.store);
        prop_assert!(indexed.is_superset(&named), "{indexed:?}, {named:?}");
    }

    /// A standby runs for months: what was replaced must not gather.
    #[test]
    fn a_store_that_is_followed_has_the_timers_that_its_values_name(
        changelog in proptest::collection::vec(
            (0..10_u8, proptest::option::weighted(0.8, any::<u8>())).prop_map(Some),
            1..100,
        ),
        by_tables in any::<bool>(),
        cut in 0..100_usize,
        write_each in 1..20_usize,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let cut = cut.min(changelog.len());
        let end = i64::try_from(cut).unwrap();
        let mut work = work(open(dir.path()), Aim::Follow, by_tables, end);
        // Up to the end in one piece, and then as it comes.
        read(&mut work, &changelog[..cut], cut);
        work.write().unwrap();
        for to in (cut..changelog.len()).step_by(write_each).chain([changelog.len()]) {
            read(&mut work, &changelog[..to], to);
            work.write().unwrap();
            let [indexed, named] = timers(&work.store);
            prop_assert_eq!(indexed, named);
        }
        prop_assert_eq!(content(&work.store), model(&changelog));
    }
}

#[test]
fn a_followed_store_is_restored_from_where_it_is() {
    let changelog: Vec<Offset> = (0..100).map(|n| Some((n % 10, Some(n)))).collect();
    let dir = tempfile::tempdir().unwrap();
    let mut work = work(open(dir.path()), Aim::Follow, false, 60);
    read(&mut work, &changelog[..60], 60);
    assert_eq!(work.standing().lag(), Some(0));
    work.heard_of_end(70);
    assert_eq!(
        work.standing().lag(),
        Some(0),
        "open transactions are no lag"
    );
    assert!(!work.is_complete(), "a standby never is");

    work.turn_to(Aim::RESTORE, Instant::now());
    assert_eq!(work.standing().phase, Phase::Restoring);
    assert_eq!((work.position(), work.standing().restored), (60, 0));
    assert!(!work.is_complete(), "the end is not resolved yet");
    work.resolved(100);
    assert!(!work.is_complete());
    read(&mut work, &changelog, 100);
    assert!(work.is_complete());
    assert_eq!(work.standing().restored, 40);
    work.write().unwrap();
    assert_eq!(content(&work.store), model(&changelog));
    // Asked for the same again: nothing changes.
    work.turn_to(Aim::RESTORE, Instant::now());
    assert!(work.is_complete());
}

#[test]
fn a_record_that_cannot_be_a_row_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut work = work(open(dir.path()), Aim::RESTORE, false, 3);
    let now = Instant::now();
    work.take(0, Some(&key(1)), Some(&[1]), now).unwrap();
    // What a store says of itself begins like this.
    let position = 99_i64.to_be_bytes();
    work.take(1, Some(b"\0position"), Some(&position), now)
        .unwrap();
    work.take(2, None, Some(&[1]), now).unwrap();
    // Timers are named by values alone.
    work.take(3, Some(&row_key(5, b"x")), Some(&[]), now)
        .unwrap();
    work.reached_end(4);
    work.write().unwrap();
    let [indexed, named] = timers(&work.store);
    assert_eq!(indexed, named);
    assert_eq!(work.store.position().unwrap(), 4);
    assert_eq!(content(&work.store).len(), 1);
}

#[test]
fn a_store_is_told_that_it_lacks_nothing_once_all_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let mut work = work(open(dir.path()), Aim::Follow, false, 2);
    read(&mut work, &[Some((1, Some(1))), None], 2);
    work.confirm(1000);
    assert_eq!(work.store.complete_ms(), None, "a row still waits");
    work.write().unwrap();
    work.confirm(2000);
    assert_eq!(work.store.complete_ms(), Some(2000));
    // Said once: the end may have moved since.
    work.confirm(3000);
    assert_eq!(work.store.complete_ms(), Some(2000));
}

#[test]
fn a_store_in_use_is_complete_as_of_the_look_before_its_last_commit() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.complete_at(1000);
    let mut lent = Lent::new(&store, 0, 1000);
    lent.look(&store, 2000).unwrap();
    assert_eq!(store.complete_ms(), Some(1000), "nobody knows: no commit");
    store.apply_rows(&[], 7).unwrap();
    // It may be long after the commit: the machine was asleep.
    lent.look(&store, 90_000_000).unwrap();
    assert_eq!(store.complete_ms(), Some(2000));
    store.apply_rows(&[], 9).unwrap();
    lent.look(&store, 90_001_000).unwrap();
    assert_eq!(store.complete_ms(), Some(90_000_000));
}
