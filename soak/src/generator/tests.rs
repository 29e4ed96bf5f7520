use std::collections::BTreeMap;

use common::registry::{self, Registry};
use e2e::topics::Record;
use tokio::runtime::Runtime;

use super::*;
use crate::checker::source::{Judged, Limits, Reader};

const SHAPE: Shape = Shape {
    partitions: 4,
    objects: 20,
    agents: 4,
    freshness_ms: 5_000,
    max_skew_ms: 2_000,
};

fn offline() -> Registry {
    Registry::new(&registry::Args {
        schema_registry_url: "http://127.0.0.1:9".into(),
        schema_registry_user: None,
        schema_registry_password: None,
        schema_registry_password_file: None,
        schema_registry_ca_file: None,
    })
    .unwrap()
}

fn history(seed: u64) -> History {
    History::new(seed, SHAPE, Schemas::remembered(&offline()))
}

fn record(write: Write) -> Record {
    Record {
        partition: write.partition,
        offset: 0,
        key: write.key,
        value: write.value,
        timestamp_ms: None,
    }
}

#[test]
fn a_seed_always_writes_the_same_history() {
    let write = |seed| {
        let mut history = history(seed);
        (0..500)
            .map(|i| history.next(1_000_000 + i * 20))
            .collect::<Vec<_>>()
    };
    assert_eq!(write(7), write(7));
    assert_ne!(write(7), write(8));
}

#[test]
fn the_history_holds_everything_and_every_bad_record_is_told() {
    let registry = offline();
    let mut history = History::new(7, SHAPE, Schemas::remembered(&registry));
    let limits = Limits {
        partitions: SHAPE.partitions,
        object_id_bytes: bad::OBJECT_ID_BYTES,
        record_bytes: bad::RECORD_BYTES,
        max_skew_ms: SHAPE.max_skew_ms,
    };
    let runtime = Runtime::new().unwrap();
    let mut reader = Reader::new(limits, registry, runtime.handle().clone()).unwrap();
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for i in 0..20_000 {
        let now_ms = 1_000_000 + i * 5;
        let Some(write) = history.next(now_ms) else {
            continue;
        };
        // An unknown schema would be looked up; there is no registry here.
        let unknown = write
            .value
            .as_ref()
            .is_some_and(|v| v.get(1..5) == Some(&99_999_999u32.to_be_bytes()));
        let kind = match unknown {
            true => "unknown-schema".to_owned(),
            false => match reader.judge(&record(write)).unwrap() {
                Judged::Misrouted(_) => "misrouted".to_owned(),
                Judged::Bad(reason) => reason.to_owned(),
                Judged::Good(_, change) => format!("{change:?}")
                    .split(['(', ' '])
                    .next()
                    .unwrap_or_default()
                    .to_owned(),
                Judged::GoodFrom(from_ms, ..) if from_ms > now_ms => "from-the-future".to_owned(),
                Judged::GoodFrom(..) => "report".to_owned(),
            },
        };
        *kinds.entry(kind).or_default() += 1;
    }
    for kind in [
        "Clear",
        "Delete",
        "Set",
        "from-the-future",
        "invalid-object-id",
        "key-mismatch",
        "malformed",
        "misrouted",
        "report",
        "too-large",
        "truncated",
        "unexpected-type",
        "unknown-schema",
        "unknown-verdict",
        "unresolvable",
        "wrong-magic-byte",
    ] {
        assert!(kinds.remove(kind).unwrap_or(0) > 10, "{kind} is missing");
    }
    assert!(kinds.is_empty(), "{kinds:?}");
}
