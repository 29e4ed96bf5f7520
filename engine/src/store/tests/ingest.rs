use super::*;

fn table<'r>(rows: &'r [(&'r str, Option<&'r str>)]) -> Vec<(&'r [u8], Option<&'r [u8]>)> {
    let bytes = |(key, value): &(&'r str, Option<&'r str>)| {
        let value: Option<&'r str> = *value;
        (key.as_bytes(), value.map(str::as_bytes))
    };
    rows.iter().map(bytes).collect()
}

fn all(store: &Store) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    store
        .scan(b"o", |key, value| {
            rows.push((text(key), text(value)));
            true
        })
        .unwrap();
    rows
}

fn pairs(rows: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    rows.iter().map(owned).collect()
}

#[test]
fn tables_are_newer_than_what_is_there_and_older_than_what_follows() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&shared(), dir.path(), "app", 0).unwrap();
    let rows = [row("a", Some("1")), row("b", Some("1"))];
    // In the memtable, not flushed.
    store.apply_rows(&rows, 2).unwrap();
    let first = [("oa", Some("2")), ("ob", None), ("oc", Some("2"))];
    store.ingest(table(&first), 5).unwrap();
    assert_eq!(all(&store), pairs(&[("oa", "2"), ("oc", "2")]));
    store.ingest(table(&[("oc", Some("3"))]), 6).unwrap();
    store.ingest(table(&[]), 7).unwrap();
    store.apply_rows(&[row("a", None)], 9).unwrap();
    assert_eq!(all(&store), pairs(&[("oc", "3")]));
    assert_eq!(store.position().unwrap(), 9);
    // What was ingested is on disk with its position; what came after is not.
    let crashed = crash(&store);
    let store = Store::open(&shared(), crashed.path(), "app", 0).unwrap();
    assert_eq!(all(&store), pairs(&[("oa", "2"), ("oc", "3")]));
    assert_eq!(store.position().unwrap(), 7);
}

#[test]
fn an_unfinished_table_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    drop(Store::open(&shared(), dir.path(), "app", 0).unwrap());
    let left = dir.path().join("0/rows.ingest");
    std::fs::write(&left, b"half a table").unwrap();
    let store = Store::open(&shared(), dir.path(), "app", 0).unwrap();
    assert!(!left.exists());
    // Nor is one in the way that was left without a restart.
    std::fs::write(&left, b"half a table").unwrap();
    store.ingest(table(&[("oa", Some("1"))]), 1).unwrap();
    assert_eq!(all(&store), pairs(&[("oa", "1")]));
    assert!(!left.exists());
}
