//! What a store costs: the rows of a committed epoch, and a restore's rows sorted and taken in.

use std::{sync::Arc, time::Instant};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use engine::{
    epoch::{Rows, TaskEpoch},
    store::{OBJECT, Shared, Store, row_key},
};

/// Rows of one epoch: those of a tenth of a second of backlog.
const EPOCH: usize = 10_000;
/// Rows of one restore.
const RESTORED: usize = 100_000;
/// Bytes of a row with ten agents' reports.
const ROW: usize = 400;

fn store(directory: &tempfile::TempDir) -> Arc<Store> {
    let shared = Shared::on_disk(8 << 20);
    Arc::new(Store::open(&shared, directory.path(), "bench", 0).expect("a store"))
}

fn key(object: usize) -> Vec<u8> {
    row_key(OBJECT, format!("site-{object:07}.example.com").as_bytes())
}

fn apply(c: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a directory");
    let store = store(&directory);
    let mut rows = Rows::default();
    for object in 0..EPOCH {
        rows.push(&key(object), Some(&[7; ROW]));
    }
    let epoch = TaskEpoch {
        partition: 0,
        store: Arc::downgrade(&store),
        rows: rows.into(),
        timers: Rows::default(),
        outputs: Arc::default(),
        next_offset: None,
        records: 0,
        digest: 0,
    };
    let mut group = c.benchmark_group("store");
    group
        .throughput(Throughput::Elements(EPOCH as u64))
        .sample_size(20);
    let mut position = 0;
    group.bench_function("apply an epoch", |b| {
        b.iter(|| {
            position += 1;
            store
                .apply_epoch(&epoch, position)
                .expect("rows are applied");
        });
    });
    group.finish();
}

fn restore(c: &mut Criterion) {
    // The changelog's order is that of commits, not of keys.
    let rows: Vec<_> = (0..RESTORED)
        .map(|i| (key(i * 7_919 % RESTORED), vec![7; ROW]))
        .collect();
    let mut group = c.benchmark_group("restore");
    group
        .throughput(Throughput::Elements(RESTORED as u64))
        .sample_size(10);
    group.bench_function("sort and take in", |b| {
        b.iter_custom(|times| {
            let mut total = std::time::Duration::ZERO;
            for _ in 0..times {
                let directory = tempfile::tempdir().expect("a directory");
                let store = store(&directory);
                let started = Instant::now();
                let mut sorted: Vec<_> = rows.iter().collect();
                sorted.sort_unstable_by_key(|(key, _)| key);
                let sorted = sorted
                    .iter()
                    .map(|(k, v)| (k.as_slice(), Some(v.as_slice())));
                store.ingest(sorted, 1).expect("rows are taken in");
                total += started.elapsed();
            }
            total
        });
    });
    group.bench_function("in batches", |b| {
        b.iter_batched(
            || tempfile::tempdir().expect("a directory"),
            |directory| {
                let store = store(&directory);
                for (position, rows) in (1..).zip(rows.chunks(5_000)) {
                    let rows = rows.iter().map(|(k, v)| (k.as_slice(), Some(v.as_slice())));
                    store.apply(rows, position, None).expect("rows are applied");
                }
                store.flush().expect("a flush");
                directory
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, apply, restore);
criterion_main!(benches);
