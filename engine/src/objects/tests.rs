//! The cache against a plain map, with a bound so small that nearly everything has to go.

use std::{collections::BTreeMap, path::Path};

use proptest::prelude::*;

use super::*;
use crate::store::{Shared, row_key};

#[derive(Debug, Clone, PartialEq)]
struct Text(Vec<u8>);

impl Value for Text {
    fn timer_ms(_: &[u8]) -> Option<i64> {
        None
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.0);
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        Ok(Self(bytes.to_vec()))
    }

    fn heap_bytes(&self) -> usize {
        self.0.len()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put(Vec<u8>, Vec<u8>),
    Remove(Vec<u8>),
    Read(Vec<u8>),
    Cut,
    Commit,
    Abandon,
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    // Prefixes of each other, zeros at the end, and keys alike in more than eight bytes.
    prop_oneof![
        proptest::collection::vec(0..3_u8, 1..4),
        (0..20_u8).prop_map(|n| format!("shop-00000000{n}").into_bytes()),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (key(), proptest::collection::vec(any::<u8>(), 0..20))
            .prop_map(|(key, value)| Step::Put(key, value)),
        2 => key().prop_map(Step::Remove),
        4 => key().prop_map(Step::Read),
        2 => Just(Step::Cut),
        2 => Just(Step::Commit),
        1 => Just(Step::Abandon),
    ]
}

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn digest_of(model: &Model) -> u64 {
    let of_row = |(key, value): (&Vec<u8>, &Vec<u8>)| digest::of_row(&row_key(OBJECT, key), value);
    model.iter().map(of_row).fold(0, u64::wrapping_add)
}

/// A task's way with its objects: one epoch under way at a time.
struct Driver {
    objects: Objects<Text>,
    staged: Option<Arc<TaskEpoch>>,
    position: i64,
    digest: u64,
    committed_digest: u64,
}

impl Driver {
    fn cut(&mut self) {
        let mut rows = Rows::default();
        self.objects.cut(&mut self.digest, &mut rows);
        let keys: Vec<_> = rows.iter().map(|(key, _)| key.to_vec()).collect();
        assert!(keys.is_sorted(), "{keys:?}");
        let epoch = Arc::new(TaskEpoch {
            partition: 0,
            store: Arc::downgrade(&self.objects.store),
            rows: rows.into(),
            timers: Rows::default(),
            outputs: Arc::default(),
            next_offset: None,
            records: 0,
            digest: self.digest,
        });
        self.objects.stage(Some(Arc::clone(&epoch)));
        self.staged = Some(epoch);
    }

    fn commit(&mut self) {
        let Some(epoch) = self.staged.take() else {
            return;
        };
        self.position += 1;
        let applied = self.objects.store.apply_epoch(&epoch, self.position);
        applied.unwrap();
        self.committed_digest = epoch.digest;
        self.objects.stage(None);
    }
}

proptest! {
    #[test]
    fn holds_what_a_map_holds(steps in proptest::collection::vec(step(), 1..120)) {
        let shared = Shared::in_memory().unwrap();
        let store = Store::open(&shared, Path::new("/test"), "objects", 0).unwrap();
        let bound = 3 * (size_of::<Entry<Text>>() + ENTRY_BYTES + 30);
        let mut driver = Driver {
            objects: Objects::new(Arc::new(store), &Pool::of(bound)),
            staged: None,
            position: 0,
            digest: 0,
            committed_digest: 0,
        };
        let (mut now, mut at_cut, mut committed) = (Model::new(), Model::new(), Model::new());
        for step in steps {
            match step {
                Step::Put(key, value) => {
                    driver.objects.entry(&key).unwrap().get_mut_or(|| Text(Vec::new())).0 = value.clone();
                    now.insert(key, value);
                }
                Step::Remove(key) => {
                    let removed = driver.objects.entry(&key).unwrap().remove();
                    prop_assert_eq!(removed.map(|text| text.0), now.remove(&key));
                }
                Step::Read(key) => {
                    let found = driver.objects.entry(&key).unwrap().get();
                    prop_assert_eq!(found.map(|text| &text.0), now.get(&key));
                }
                Step::Cut => {
                    // The one before is committed first, as under a worker.
                    driver.commit();
                    committed = at_cut;
                    driver.cut();
                    at_cut = now.clone();
                    prop_assert_eq!(driver.digest, digest_of(&now));
                    prop_assert!(driver.objects.bytes <= bound);
                    prop_assert_eq!(driver.objects.entries.len() as usize, driver.objects.places.len());
                }
                Step::Commit => {
                    driver.commit();
                    committed = at_cut.clone();
                }
                Step::Abandon => {
                    driver.staged = None;
                    driver.objects.abandon();
                    driver.digest = driver.committed_digest;
                    now = committed.clone();
                    at_cut = committed.clone();
                }
            }
        }
        for (key, value) in &now {
            let found = driver.objects.entry(key).unwrap().get();
            prop_assert_eq!(found.map(|text| &text.0), Some(value));
        }
    }
}

#[test]
fn an_epoch_counts_what_its_rows_will_take() {
    let shared = Shared::in_memory().unwrap();
    let store = Store::open(&shared, Path::new("/count"), "objects", 0).unwrap();
    let mut objects = Objects::new(Arc::new(store), &Pool::of(1 << 20));
    let grow = |objects: &mut Objects<Text>, key: &[u8], bytes: usize| {
        let value = objects.entry(key).unwrap().get_mut_or(|| Text(Vec::new()));
        value.0.resize(bytes, 0);
    };
    grow(&mut objects, b"a", 1_000);
    grow(&mut objects, b"b", 1);
    let once = objects.pending_bytes();
    assert!((1_000..3_000).contains(&once), "{once}");
    // Ten changes of an object are one row.
    for _ in 0..10 {
        grow(&mut objects, b"a", 1_000);
        grow(&mut objects, b"b", 1);
    }
    // What was asked for last is counted with the next.
    let more = objects.pending_bytes() - once;
    assert!(more < 100, "{more}");
    grow(&mut objects, b"b", 50_000);
    grow(&mut objects, b"a", 1_000);
    assert!(objects.pending_bytes() > 50_000);
    objects.cut(&mut 0, &mut Rows::default());
    assert_eq!(objects.pending_bytes(), 0);
}

#[test]
fn a_cache_that_nobody_asks_makes_room() {
    let shared = Shared::in_memory().unwrap();
    let pool = Pool::of(40 << 10);
    let open = |partition| Store::open(&shared, Path::new("/room"), "objects", partition).unwrap();
    let [mut quiet, mut busy] =
        [0, 1].map(|partition| Objects::new(Arc::new(open(partition)), &pool));
    let eight_more = |objects: &mut Objects<Text>| {
        let first = objects.entries.len();
        for key in first..first + 8 {
            let value = objects.entry(&key.to_be_bytes()).unwrap();
            value.get_mut_or(|| Text(Vec::new())).0.resize(1_000, 0);
        }
    };
    let cut = |objects: &mut Objects<Text>| objects.cut(&mut 0, &mut Rows::default());
    for _ in 0..3 {
        eight_more(&mut quiet);
    }
    for _ in 0..2 {
        cut(&mut quiet);
    }
    // For what comes in there is no room yet, as nobody has asked for any, and then there is: only rows count.
    let pending = [(); 2].map(|()| {
        eight_more(&mut busy);
        let pending = busy.pending_bytes();
        busy.abandon();
        cut(&mut busy);
        pending
    });
    assert!(pending[1] < pending[0], "{pending:?}");
    assert_eq!(quiet.entries.len(), 24, "nobody needs it");
    for _ in 0..3 {
        eight_more(&mut busy);
        cut(&mut busy);
        cut(&mut quiet);
    }
    assert_eq!(busy.entries.len(), 24);
    assert!(quiet.entries.len() < 24 && quiet.bytes + busy.bytes <= 40 << 10);
}
