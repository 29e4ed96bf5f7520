//! Real directories, damaged for real.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::*;
use crate::store::meta::{COMPLETE, IDENTITY, POSITION};

const ROWS: usize = 6000;

/// A store with rows in several files, closed.
fn filled() -> (tempfile::TempDir, Folder) {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(shared(), dir.path().to_owned(), "app".into());
    let store = folder.open(0, 0).unwrap();
    for (part, position) in [(0, 2000), (1, 4000), (2, 6000)] {
        let rows: Vec<Row> = (0..ROWS / 3)
            .map(|i| row(&format!("{part}-{i:05}"), Some(&format!("{}", i * 7919))))
            .collect();
        store.apply_rows(&rows, position).unwrap();
        store.flush().unwrap();
    }
    (dir, folder)
}

fn files(dir: &Path, part: &str) -> Vec<PathBuf> {
    let all = fs::read_dir(dir.join("0")).unwrap();
    let mut found: Vec<_> = all
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap().contains(part))
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no {part}");
    found
}

/// The table with the rows: the largest.
fn table(dir: &Path) -> PathBuf {
    let tables = files(dir, ".sst").into_iter();
    tables.max_by_key(|f| f.metadata().unwrap().len()).unwrap()
}

fn cut_in_half(file: &Path) {
    let length = file.metadata().unwrap().len();
    let file = fs::File::options().write(true).open(file).unwrap();
    file.set_len(length / 2).unwrap();
}

fn flip(file: &Path, from: usize, count: usize) {
    let mut bytes = fs::read(file).unwrap();
    for byte in &mut bytes[from..from + count] {
        *byte ^= 0xff;
    }
    fs::write(file, bytes).unwrap();
}

fn garbage(key: &[u8], value: &[u8]) -> impl Fn(&Path) {
    move |dir| {
        let options = Shared::options(&shared());
        let path = dir.join("0");
        DB::open(&options, path).unwrap().put(key, value).unwrap();
    }
}

#[test]
fn what_opening_finds_damaged_is_set_aside() {
    type Damage<'a> = (&'a str, Box<dyn Fn(&Path)>);
    let damages: [Damage<'_>; 10] = [
        ("a truncated table", Box::new(|d| cut_in_half(&table(d)))),
        (
            "a missing table",
            Box::new(|d| fs::remove_file(table(d)).unwrap()),
        ),
        (
            "a table with a broken index",
            Box::new(|d| {
                let length = fs::read(table(d)).unwrap().len();
                flip(&table(d), length - 60, 50);
            }),
        ),
        (
            "a missing MANIFEST",
            Box::new(|d| fs::remove_file(&files(d, "MANIFEST")[0]).unwrap()),
        ),
        (
            // Of one that is broken further on, RocksDB believes what comes before: an older store.
            "a MANIFEST that is broken at its beginning",
            Box::new(|d| flip(&files(d, "MANIFEST")[0], 10, 50)),
        ),
        (
            "a missing CURRENT",
            Box::new(|d| fs::remove_file(&files(d, "CURRENT")[0]).unwrap()),
        ),
        (
            "an empty CURRENT",
            Box::new(|d| fs::write(&files(d, "CURRENT")[0], b"").unwrap()),
        ),
        (
            "a position that is no number",
            Box::new(garbage(POSITION, b"???")),
        ),
        (
            "a time that is no number",
            Box::new(garbage(COMPLETE, b"???")),
        ),
        (
            "an identity that is none",
            Box::new(garbage(IDENTITY, b"\xff\xfe???")),
        ),
    ];
    for (what, damage) in damages {
        let (dir, folder) = filled();
        damage(dir.path());
        let opened = folder.open(0, 0);
        let store = opened.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(store.is_empty().unwrap(), "{what}: a fresh store");
        assert!(dir.path().join("aside/0-1/LOG").exists(), "{what}: kept");
        store.apply_rows(&[row("a", Some("1"))], 1).unwrap();
        store.flush().unwrap();
    }
}

#[test]
fn what_a_read_finds_damaged_is_set_aside_by_the_next_opening() {
    let (dir, folder) = filled();
    flip(&table(dir.path()), 5000, 50);
    let store = folder.open(0, 0).unwrap();
    assert_eq!(store.position().unwrap(), 6000, "not found yet");
    let error = store.scan(&[OBJECT], |_, _| true).unwrap_err();
    assert_eq!(error.trouble(), Trouble::Broken, "{error}");
    assert!(error.to_string().contains("checksum"), "{error}");
    assert!(!error.ends_the_instance());
    // Whether it is closed in order or not.
    let crashed = crash(&store);
    drop(store);
    for dir in [dir, crashed] {
        let folder = Folder::new(shared(), dir.path().to_owned(), "app".into());
        assert!(folder.open(0, 0).unwrap().is_empty().unwrap());
        let said = fs::read_to_string(dir.path().join("aside/0-1").join(BROKEN)).unwrap();
        assert!(said.contains("checksum"), "{said}");
    }
}

#[test]
fn a_row_that_does_not_decode_is_no_reason_to_restore_it_again() {
    let (_dir, folder) = filled();
    let store = folder.open(0, 0).unwrap();
    let error = store.corrupt(b"oa", "no value".into());
    assert_eq!(error.trouble(), Trouble::Other);
    drop(store);
    assert_eq!(folder.open(0, 0).unwrap().position().unwrap(), 6000);
}

#[test]
fn the_last_two_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(shared(), dir.path().to_owned(), "app".into());
    for partition in [7, 3, 7, 5] {
        drop(folder.open(partition, 0).unwrap());
        folder.set_aside(partition, Reason::Broken, "why").unwrap();
    }
    let mut kept: Vec<_> = fs::read_dir(dir.path().join("aside"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    kept.sort();
    assert_eq!(kept, ["5-4", "7-3"]);
    assert_eq!(folder.partitions().unwrap(), [] as [u32; 0]);
    drop(folder.open(12, 0).unwrap());
    assert_eq!(folder.partitions().unwrap(), [12]);
}

#[test]
fn stores_are_opened_beside_each_other_whatever_is_wrong_with_them() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(shared(), dir.path().to_owned(), "app".into());
    let partitions: Vec<u32> = (0..9).collect();
    assert!(folder.open_all(&[], 0).is_empty());
    for store in folder.open_all(&partitions, 0) {
        let store = store.unwrap();
        store.apply_rows(&[row("a", Some("1"))], 1).unwrap();
        store.flush().unwrap();
    }
    // One is in use; of the others, all but one are broken.
    let held = folder.open(4, 0).unwrap();
    for partition in partitions.iter().filter(|p| ![2, 4].contains(*p)) {
        fs::remove_file(dir.path().join(partition.to_string()).join("CURRENT")).unwrap();
    }
    let opened = folder.open_all(&partitions, 0);
    assert_eq!(opened.len(), partitions.len());
    for (partition, store) in partitions.into_iter().zip(opened) {
        if partition == 4 {
            assert!(store.unwrap_err().is_still_open_here());
            continue;
        }
        let store = store.unwrap();
        assert!(store.path.ends_with(partition.to_string()), "{partition}");
        assert_eq!(store.is_empty().unwrap(), partition != 2, "{partition}");
    }
    drop(held);
}

#[test]
fn stores_are_set_aside_by_several_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(shared(), dir.path().to_owned(), "app".into());
    let set_aside = |partition: u32| {
        for _ in 0..50 {
            fs::create_dir(dir.path().join(partition.to_string())).unwrap();
            folder.set_aside(partition, Reason::Broken, "why").unwrap();
        }
    };
    std::thread::scope(|scope| {
        for partition in 0..4 {
            let set_aside = &set_aside;
            scope.spawn(move || set_aside(partition));
        }
    });
    let kept = fs::read_dir(dir.path().join("aside")).unwrap();
    assert_eq!(kept.count(), 2);
}
