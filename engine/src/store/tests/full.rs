//! A full disk, for real, without root: the next files that RocksDB creates lead to `/dev/full`,
//! where the kernel answers every write with ENOSPC.

use std::os::unix::fs::symlink;

use super::*;

fn fill_the_disk(stores: &Path) {
    for number in 0..200 {
        let table = stores.join(format!("0/{number:06}.sst"));
        if !table.exists() {
            symlink("/dev/full", table).unwrap();
        }
    }
}

#[test]
fn a_full_disk_says_so_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&shared(), dir.path(), "app", 0).unwrap();
    store.apply_rows(&[row("a", Some("1"))], 7).unwrap();
    store.flush().unwrap();
    store.apply_rows(&[row("a", Some("2"))], 9).unwrap();
    fill_the_disk(dir.path());
    let error = store.flush().unwrap_err();
    assert_eq!(error.trouble(), Trouble::NoSpace, "{error}");
    assert!(error.ends_the_instance());
    // What a crash leaves now is an older prefix.
    let crashed = crash(&store);
    let older = Store::open(&shared(), crashed.path(), "app", 0).unwrap();
    assert_eq!(older.position().unwrap(), 7);
    let key = row_key(OBJECT, b"a");
    assert_eq!(older.get(&key).unwrap().as_deref(), Some(&b"1"[..]));
    // And the rows that could not be written are still there to be read.
    assert_eq!(store.get(&key).unwrap().as_deref(), Some(&b"2"[..]));
    assert_eq!(store.position().unwrap(), 9);
}

#[test]
fn a_failure_in_the_background_comes_out_of_a_later_write() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&shared(), dir.path(), "app", 0).unwrap();
    fill_the_disk(dir.path());
    // RocksDB writes the full memtable (16 MiB) in the background.
    let value = "x".repeat(100_000);
    let failed = (0..1000).find_map(|position| {
        let key = position.to_string();
        store.apply_rows(&[row(&key, Some(&value))], position).err()
    });
    let error = failed.expect("100 MB do not fit on a full disk");
    assert_eq!(error.trouble(), Trouble::NoSpace, "{error}");
}

#[test]
fn a_table_that_does_not_fit_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&shared(), dir.path(), "app", 0).unwrap();
    store.ingest([(&b"oa"[..], Some(&b"1"[..]))], 7).unwrap();
    let table = dir.path().join("0/rows.ingest");
    symlink("/dev/full", &table).unwrap();
    let error = store.ingest([(&b"oa"[..], None)], 9).unwrap_err();
    assert_eq!(error.trouble(), Trouble::NoSpace, "{error}");
    assert_eq!(store.position().unwrap(), 7);
    // Space again: RocksDB has removed what it could not finish.
    assert!(!table.is_symlink());
    store.ingest([(&b"oa"[..], None)], 9).unwrap();
    assert_eq!(store.get(b"oa").unwrap(), None);
    assert_eq!(store.position().unwrap(), 9);
}

#[test]
fn rows_that_cannot_leave_memory_stay_there_until_they_can() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&shared(), dir.path(), "app", 0).unwrap();
    let rows: Vec<Row> = (0..1_500)
        .map(|i| row(&format!("{i:04}"), Some("1")))
        .collect();
    store.apply_rows(&rows, 1_500).unwrap();
    symlink("/dev/full", dir.path().join("0/rows.ingest")).unwrap();
    let error = store.flush().unwrap_err();
    assert_eq!(error.trouble(), Trouble::NoSpace, "{error}");
    // They are read all the same, and newer ones come before them.
    store.apply_rows(&[row("0007", Some("2"))], 1_502).unwrap();
    let value = |store: &Store, key: &str| store.get(&row_key(OBJECT, key.as_bytes())).unwrap();
    assert_eq!(value(&store, "0006").as_deref(), Some(&b"1"[..]));
    assert_eq!(value(&store, "0007").as_deref(), Some(&b"2"[..]));
    assert_eq!(store.position().unwrap(), 1_502);
    // Space again.
    store.flush().unwrap();
    let crashed = crash(&store);
    let store = Store::open(&shared(), crashed.path(), "app", 0).unwrap();
    assert_eq!(value(&store, "0006").as_deref(), Some(&b"1"[..]));
    assert_eq!(value(&store, "0007").as_deref(), Some(&b"2"[..]));
    assert_eq!(store.position().unwrap(), 1_502);
}
