//! What a store has, beside what its owner was told and its active has.

use super::*;
use crate::{
    digest::{self, Digest},
    epoch::{Rows, TaskEpoch},
};

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
