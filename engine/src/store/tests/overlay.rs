//! Whatever is in memory and whatever is on disk: together they are what was written.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::store::overlay::Standing;

#[derive(Debug, Clone)]
enum Step {
    /// Rows come in; is it the owner who writes them?
    Apply(Vec<(u8, Option<u8>)>, bool),
    /// They go to RocksDB,
    Push,
    /// and to disk.
    Flush,
    /// A sorted table comes in.
    Ingest(BTreeMap<u8, Option<u8>>),
    /// The process ends in order, or does not.
    Close,
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let key = 0..12_u8;
    let rows = proptest::collection::vec((key.clone(), any::<Option<u8>>()), 0..6);
    let table = proptest::collection::btree_map(key, any::<Option<u8>>(), 0..6);
    prop_oneof![
        6 => (rows, any::<bool>()).prop_map(|(rows, written)| Step::Apply(rows, written)),
        2 => Just(Step::Push),
        1 => Just(Step::Flush),
        1 => table.prop_map(Step::Ingest),
        1 => Just(Step::Close),
        1 => Just(Step::Crash),
    ]
}

/// What a store says.
#[derive(Debug, Clone, Default, PartialEq)]
struct Said {
    rows: BTreeMap<Vec<u8>, Vec<u8>>,
    position: i64,
    unseen: Option<i64>,
    digest: Option<u64>,
}

fn said(store: &Store) -> Said {
    let mut rows = BTreeMap::new();
    let add = |key: &[u8], value: &[u8]| rows.insert(key.to_vec(), value.to_vec()).is_none();
    store.scan(b"o", add).unwrap();
    // One by one they are found by other ways.
    for key in 0..12 {
        let key = [b'o', key];
        assert_eq!(store.get(&key).unwrap().as_ref(), rows.get(&key[..]));
    }
    Said {
        rows,
        position: store.position().unwrap(),
        unseen: store.unseen().unwrap(),
        digest: store.known_digest().unwrap(),
    }
}

/// A value that is longer or shorter than the one before.
fn value(value: u8) -> Vec<u8> {
    vec![value; usize::from(value)]
}

fn put(model: &mut Said, rows: impl IntoIterator<Item = (u8, Option<u8>)>) -> Vec<Row> {
    let row = |(key, new): (u8, Option<u8>)| {
        let key = vec![b'o', key];
        match new {
            Some(new) => drop(model.rows.insert(key.clone(), value(new))),
            None => drop(model.rows.remove(&key)),
        }
        (key, new.map(value))
    };
    rows.into_iter().map(row).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_store_is_what_was_written(
        steps in proptest::collection::vec(step(), 1..30),
        roomy in any::<bool>(),
    ) {
        // With hardly any room, rows are pushed out as soon as they come in.
        let shared = Shared::on_disk(if roomy { 1 << 20 } else { 1 << 10 });
        let mut dir = tempfile::tempdir().unwrap();
        let open = |dir: &tempfile::TempDir| Store::open(&shared, dir.path(), "app", 0).unwrap();
        let mut store = open(&dir);
        let mut model = Said { digest: Some(0), ..Said::default() };
        let mut on_disk = model.clone();
        for step in steps {
            match step {
                Step::Apply(rows, written) => {
                    model.position += 2;
                    let rows = put(&mut model, rows);
                    let rows = rows.iter().map(|(key, value)| (&key[..], value.as_deref()));
                    let standing = Standing {
                        position: model.position,
                        written: written.then_some(model.position),
                        digest: written.then_some(7),
                    };
                    store.put(rows, standing).unwrap();
                    model.unseen = written.then_some(model.position - 1);
                    model.digest = standing.digest;
                }
                Step::Push => store.push().unwrap(),
                Step::Flush => {
                    store.flush().unwrap();
                    on_disk = model.clone();
                }
                Step::Ingest(rows) => {
                    model.position += 2;
                    let rows = put(&mut model, rows);
                    let rows = rows.iter().map(|(key, value)| (&key[..], value.as_deref()));
                    store.ingest(rows, model.position).unwrap();
                    (model.unseen, model.digest) = (None, None);
                    on_disk = model.clone();
                }
                Step::Close => {
                    drop(store);
                    store = open(&dir);
                    on_disk = model.clone();
                }
                Step::Crash => {
                    dir = crash(&store);
                    drop(store);
                    store = open(&dir);
                    let left = said(&store);
                    // RocksDB may have flushed by itself, but never half of what came in together.
                    prop_assert!(left.position >= on_disk.position);
                    if left.position == on_disk.position {
                        prop_assert_eq!(&left, &on_disk);
                    }
                    (model, on_disk) = (left.clone(), left);
                }
            }
            prop_assert_eq!(&said(&store), &model);
            for key in 0..12 {
                let key = [b'o', key];
                prop_assert_eq!(store.get(&key).unwrap(), model.rows.get(&key[..]).cloned());
            }
        }
    }
}

#[test]
fn many_rows_are_on_disk_once_they_have_left_memory() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&shared(), dir.path(), "app", 0).unwrap();
    store.complete_at(5);
    let rows: Vec<Row> = (0..2_000)
        .map(|i| row(&format!("{i:04}"), Some("1")))
        .collect();
    store.apply_rows(&rows, 2_000).unwrap();
    store.apply_rows(&[row("0007", None)], 2_002).unwrap();
    store.push().unwrap();
    store.apply_rows(&[row("0008", None)], 2_004).unwrap();
    assert_eq!(said(&store).rows.len(), 1_998);
    let crashed = crash(&store);
    let store = Store::open(&shared(), crashed.path(), "app", 0).unwrap();
    assert_eq!(store.position().unwrap(), 2_002);
    assert_eq!(store.complete_ms(), Some(5));
    assert_eq!(said(&store).rows.len(), 1_999);
}

#[test]
fn many_rows_make_room_for_those_of_others_when_no_more_come() {
    let dir = tempfile::tempdir().unwrap();
    // About 5.3 MiB for rows, 1.8 for each store.
    let shared = Shared::on_disk(8 << 20);
    let open = |directory: &Path, partition| Store::open(&shared, directory, "app", partition);
    let stores = [0, 1, 2].map(|partition| open(dir.path(), partition).unwrap());
    let [little, quiet, busy] = &stores;
    let on_disk = |partition: u32| {
        let crashed = crash(&stores[partition as usize]);
        let store = open(crashed.path(), partition).unwrap();
        store.position().unwrap()
    };
    let many = row("many", Some(&"x".repeat(1_600 << 10)));
    little.apply_rows(&[row("one", Some("x"))], 1).unwrap();
    quiet.apply_rows(std::slice::from_ref(&many), 1).unwrap();
    for store in [little, quiet, little, quiet] {
        store.flush_if_due().unwrap();
    }
    assert_eq!([0, 1].map(on_disk), [0, 0], "there is room");
    busy.apply_rows(&[many], 1).unwrap();
    for store in [little, busy, quiet] {
        store.flush_if_due().unwrap();
    }
    assert_eq!([0, 1, 2].map(on_disk), [0, 1, 0]);
}
