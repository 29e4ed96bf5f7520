use std::path::Path;

use super::*;
use crate::epoch::Row;

mod damage;
mod full;
mod ingest;
mod overlay;

fn row(key: &str, value: Option<&str>) -> Row {
    (
        row_key(OBJECT, key.as_bytes()),
        value.map(|v| v.as_bytes().to_vec()),
    )
}

fn shared() -> Shared {
    Shared::on_disk(1 << 20)
}

#[test]
fn rows_and_position_survive_a_flush_and_nothing_else_does() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&shared(), dir.path(), "app", 3).unwrap();
    assert_eq!(store.position().unwrap(), 0);
    store.apply_rows(&[row("a", Some("1"))], 7).unwrap();
    store.flush().unwrap();
    store
        .apply_rows(&[row("a", None), row("b", Some("2"))], 9)
        .unwrap();
    assert_eq!(store.position().unwrap(), 9);
    let crashed = crash(&store);
    let store = Store::open(&shared(), crashed.path(), "app", 3).unwrap();
    assert_eq!(store.position().unwrap(), 7);
    assert!(store.get(&row_key(OBJECT, b"a")).unwrap().is_some());
    assert!(store.get(&row_key(OBJECT, b"b")).unwrap().is_none());
}

#[test]
fn refuses_the_directory_of_something_else() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(&shared(), dir.path(), "app", 3).unwrap());
    let error = Store::open(&shared(), dir.path(), "other", 3).unwrap_err();
    assert!(error.to_string().contains("belongs to app/3"), "{error}");
    assert_eq!(error.trouble(), Trouble::Refused);
    // The directory of another partition, put in the place of this one.
    std::fs::rename(dir.path().join("3"), dir.path().join("4")).unwrap();
    let folder = Folder::new(shared(), dir.path().to_owned(), "app".into());
    let error = folder.open(4, 0).unwrap_err();
    assert!(error.to_string().contains("belongs to app/3"), "{error}");
    assert!(dir.path().join("4").exists() && !dir.path().join("aside").exists());
}

#[test]
fn scans_one_prefix_in_order() {
    let store = Store::open(&Shared::in_memory().unwrap(), Path::new("/m"), "app", 0).unwrap();
    let timer = (row_key(TIMER, b"x"), Some(vec![]));
    store
        .apply_rows(&[row("b", Some("2")), row("a", Some("1")), timer], 1)
        .unwrap();
    let mut seen = Vec::new();
    store
        .scan(&[OBJECT], |key, _| {
            seen.push(key.to_vec());
            true
        })
        .unwrap();
    assert_eq!(seen, [b"oa".to_vec(), b"ob".to_vec()]);
}

#[test]
fn is_open_once_in_a_process() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Store::open(&shared(), dir.path(), "app", 0);
    let held = open().unwrap();
    let error = open().unwrap_err();
    assert!(error.is_still_open_here(), "{error}");
    assert!(error.to_string().contains("in use by this process"));
    drop(held);
    open().unwrap();
}

#[test]
fn is_open_in_one_process() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(&shared(), dir.path(), "app", 0).unwrap());
    let this = "store::tests::another_process_opens_the_store";
    let mut other = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", this, "--ignored", "--nocapture"])
        .env("STORE_OF_THE_TEST", dir.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let said = std::io::BufReader::new(other.stdout.take().unwrap());
    let mut said = std::io::BufRead::lines(said);
    let opened = said.any(|line| line.unwrap().contains("it is open"));
    assert!(opened, "the other process opens the store");

    let folder = Folder::new(shared(), dir.path().to_owned(), "app".into());
    let error = folder.open(0, 0).unwrap_err();
    let why = error.to_string();
    assert!(why.contains("in use by another process"), "{why}");
    assert!(error.ends_the_instance() && !error.is_still_open_here());
    assert!(!dir.path().join("aside").exists(), "nothing is moved");
    drop(other.stdin.take());
    assert!(other.wait().unwrap().success());
    folder.open(0, 0).unwrap();
}

#[test]
#[ignore = "run by is_open_in_one_process, as its other process"]
fn another_process_opens_the_store() {
    let dir = std::env::var("STORE_OF_THE_TEST").unwrap();
    let _store = Store::open(&shared(), Path::new(&dir), "app", 0).unwrap();
    println!("\nit is open");
    // Until the first process has seen enough.
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
}

#[test]
fn a_store_that_was_not_complete_for_a_day_is_set_aside() {
    const HOUR: i64 = 60 * 60 * 1000;
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(shared(), dir.path().to_owned(), "app".into());
    let now = 1000 * HOUR;
    let store = folder.open(0, now).unwrap();
    store.apply_rows(&[row("a", Some("1"))], 7).unwrap();
    store.complete_at(now + HOUR);
    store.flush().unwrap();
    drop(store);
    let store = folder.open(0, now + 20 * HOUR).unwrap();
    assert_eq!(store.position().unwrap(), 7);
    assert_eq!(store.complete_ms(), Some(now + HOUR));
    drop(store);
    let store = folder.open(0, now + 24 * HOUR).unwrap();
    assert!(store.is_empty().unwrap());
    assert_eq!(store.complete_ms(), Some(now + 24 * HOUR));
    assert!(dir.path().join("aside/0-1").exists());
}

#[test]
fn a_store_of_another_generation_is_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let mut folder = Folder::new(shared(), dir.path().to_owned(), "app".into());
    // Written before the generation was known, by the first, and after a reset.
    for (generation, rows_are_kept) in [(None, true), (Some("a"), true), (Some("b"), false)] {
        folder.generation = generation.map(str::to_owned);
        let store = folder.open(0, 7).unwrap();
        let kept = store.get(b"oa").unwrap().is_some();
        assert_eq!(kept, generation.is_some() && rows_are_kept);
        assert_eq!(store.generation().unwrap().as_deref(), generation);
        store.apply_rows(&[row("a", Some("1"))], 1).unwrap();
        store.flush().unwrap();
    }
    assert!(dir.path().join("aside/0-1").is_dir());
    assert!(!dir.path().join("aside/0-2").exists());
}

#[test]
fn a_quiet_store_says_that_it_is_complete() {
    const HOUR: i64 = 60 * 60 * 1000;
    let dir = tempfile::tempdir().unwrap();
    let folder = Folder::new(shared(), dir.path().to_owned(), "app".into());
    let store = folder.open(0, HOUR).unwrap();
    store.apply_rows(&[row("a", Some("1"))], 7).unwrap();
    store.flush().unwrap();
    for (complete, on_disk) in [(HOUR + 1, HOUR), (2 * HOUR, 2 * HOUR)] {
        store.complete_at(complete);
        store.flush().unwrap();
        let crashed = crash(&store);
        let crashed = Store::open(&shared(), crashed.path(), "app", 0).unwrap();
        assert_eq!(crashed.complete_ms(), Some(on_disk));
    }
}

/// What a crash at this moment would leave: a copy of the files. (Closing a store writes what is in
/// memory; a crash does not.)
pub(crate) fn crash(store: &Store) -> tempfile::TempDir {
    // Otherwise files come and go while they are copied. It fails after a failed write: fine.
    drop(
        store
            .db
            .wait_for_compact(&rocksdb::WaitForCompactOptions::default()),
    );
    let copy = tempfile::tempdir().unwrap();
    let to = copy.path().join(store.path.file_name().unwrap());
    std::fs::create_dir(&to).unwrap();
    for file in std::fs::read_dir(&store.path).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_file() && file.file_name() != "LOCK" {
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    }
    copy
}
