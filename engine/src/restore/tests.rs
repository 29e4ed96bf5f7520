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
    digest::{self, Digest},
    epoch::{Rows, TaskEpoch},
    store::{Shared, Store, tests::crash},
    timers::{parse, ranges::Range, row_key},
};

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

/// A row that an owner has written at this offset, and was told that it is committed.
fn write(store: &Arc<Store>, number: u8, offset: i64) {
    let mut rows = Rows::default();
    rows.push(&key(number), Some(&[number]));
    let epoch = TaskEpoch {
        partition: 0,
        store: Arc::downgrade(store),
        rows: rows.into(),
        timers: Rows::default(),
        outputs: Arc::default(),
        next_offset: None,
        records: 1,
        digest: 0,
    };
    store.apply_epoch(&epoch, offset + 1).unwrap();
}

#[test]
fn what_was_written_is_looked_for_before_it_is_believed() {
    let row = |number: u8| Some((number, Some(number)));
    // The owner wrote the row at offset 1; at 2 a transaction ended.
    let cases: [(&[Offset], bool, Option<i64>); 4] = [
        (&[row(0), row(1), None], true, None),
        (&[row(0), None, None], false, Some(1)),
        // Nothing was added, not even the end of a transaction.
        (&[row(0), row(1)], true, None),
        // Others went on from it, and it was compacted away.
        (&[row(0), None, None, row(1), None], true, None),
    ];
    for (changelog, complete, uncommitted) in cases {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        write(&store, 0, 0);
        write(&store, 1, 1);
        assert_eq!(store.unseen().unwrap(), Some(1));
        let end = i64::try_from(changelog.len()).unwrap();
        let mut work = work(store, Aim::RESTORE, false, end);
        work.resolved(end);
        assert!(!work.is_complete(), "nothing has been read yet");
        for (offset, row) in (1..).zip(&changelog[1..]) {
            if let Some((number, value)) = row {
                let value = value.map(|v| vec![v]);
                let now = Instant::now();
                work.take(offset, Some(&key(*number)), value.as_deref(), now)
                    .unwrap();
            }
        }
        work.reached_end(end);
        assert_eq!(work.uncommitted, uncommitted, "{changelog:?}");
        assert!(!complete || work.is_complete(), "{changelog:?}");
        work.write().unwrap();
        let moved = work.position() > 2;
        assert_eq!(work.store.unseen().unwrap(), (!moved).then_some(1));
    }
}

#[test]
fn a_follower_that_differed_may_be_the_same_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut work = work(open(dir.path()), Aim::Follow, false, 0);
    work.reached_end(0);
    let mut offset = 0..;
    let mut take = |work: &mut Work, key: &[u8], value: &[u8]| {
        let now = Instant::now();
        work.take(offset.next().unwrap(), Some(key), Some(value), now)
            .unwrap();
    };
    // What the active's digest is off by after each row, and what the follower makes of it.
    let cases = [
        (0, 0, (false, false)),
        (1, 0, (true, false)),
        (2, 9, (false, true)),
        (3, 0, (true, false)),
    ];
    let mut rows = 0_u64;
    for (number, off, expected) in cases {
        // The first digest follows no other: it cannot be compared.
        if number > 0 {
            take(&mut work, &key(number), &[number]);
            rows = rows.wrapping_add(digest::of_row(&key(number), &[number]));
        }
        let since_last = Some(u64::from(number.min(1)));
        let (key, value) = Digest {
            rows: rows.wrapping_add(off),
            since_last,
        }
        .row();
        take(&mut work, &key, &value.unwrap());
        let found = (
            work.agreement.same,
            work.agreement.difference.take().is_some(),
        );
        assert_eq!(found, expected, "after row {number}");
    }
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
fn rows_that_wait_survive_that_reading_begins_again() {
    let changelog: Vec<Offset> = (0..9).map(|n| Some((n, Some(n)))).collect();
    let dir = tempfile::tempdir().unwrap();
    let mut work = work(open(dir.path()), Aim::RESTORE, false, 9);
    read(&mut work, &changelog, 5);
    work.begin(work.position(), None, 9, true, Instant::now());
    read(&mut work, &changelog, 9);
    work.write().unwrap();
    assert_eq!(content(&work.store), model(&changelog));
}

/// A thread that cannot write its table tells whoever waits for it, and the store stays where it was.
#[test]
fn a_table_that_cannot_be_written_is_heard_of() {
    let changelog: Vec<Offset> = (0..9).map(|n| Some((n, Some(n)))).collect();
    let dir = tempfile::tempdir().unwrap();
    let mut work = work(open(dir.path()), Aim::RESTORE, true, 9);
    read(&mut work, &changelog, 9);
    // In the way of the file.
    std::fs::create_dir(dir.path().join("0/rows.ingest")).unwrap();
    assert_eq!(work.write_beside().unwrap(), 9);
    work.resolved(9);
    assert!(work.is_complete() && !work.is_whole());
    work.write().unwrap_err();
    assert_eq!(work.store.position().unwrap(), 0);
}

#[test]
fn a_standby_that_falls_far_behind_turns_to_tables_and_back() {
    let changelog: Vec<Offset> = (0..60)
        .map(|n| Some((n % 7, (n % 5 > 0).then_some(n))))
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let mut work = work(open(dir.path()), Aim::Follow, false, 20);
    read(&mut work, &changelog[..20], 20);
    work.write().unwrap();
    assert_eq!(work.portion_bytes(), 0);
    // Cut off for a while; then it hears how much there is.
    read(&mut work, &changelog, 30);
    work.heard_of_end(1_000_000);
    work.write().unwrap();
    read(&mut work, &changelog, 59);
    assert!(work.portion_bytes() > 0, "the rows wait to be sorted");
    assert!(!work.is_due(Instant::now()) && !work.has_whole_portion());
    let now = Instant::now();
    assert!(work.is_sorted(now), "others wait");
    let later = now + Duration::from_secs(2);
    assert!(!work.is_sorted(later), "but not for brokers that are away");
    read(&mut work, &changelog, 60);
    assert!(work.has_whole_portion() && !work.is_sorted(now));
    assert!(work.write_beside().unwrap() > 0);
    assert_eq!(work.portion_bytes(), 0);
    work.confirm(1000);
    assert_eq!(work.store.complete_ms(), None, "a table is being written");
    work.write().unwrap();
    work.confirm(2000);
    assert_eq!(work.store.complete_ms(), Some(2000));
    assert_eq!(content(&work.store), model(&changelog));
    assert_eq!(work.store.position().unwrap(), 60);
}

/// A task that is taken away before it has its store leaves a standby with an old digest: nothing may be compared with it.
#[test]
fn a_restore_by_tables_that_becomes_a_standby_keeps_no_old_digest() {
    let changelog: Vec<Offset> = (0..40).map(|n| Some((n % 7, Some(n)))).collect();
    let dir = tempfile::tempdir().unwrap();
    let mut work = work(open(dir.path()), Aim::RESTORE, true, 20);
    read(&mut work, &changelog, 20);
    work.resolved(20);
    work.write().unwrap();
    assert!(work.is_whole() && work.agreement.digest().is_some());
    work.turn_to(Aim::Follow, Instant::now());
    read(&mut work, &changelog, 40);
    work.write().unwrap();
    let digest = work.store.digest().unwrap();
    let rows = model(&changelog).into_iter();
    let sum = rows.fold(0, |sum: u64, (key, row)| {
        sum.wrapping_add(digest::of_row(&key, &row))
    });
    assert_eq!((digest, work.agreement.digest()), (sum, Some(sum)));
    assert_eq!(work.agreement.difference, None);
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
