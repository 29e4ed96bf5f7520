//! Rows that become tables.

use super::*;

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
