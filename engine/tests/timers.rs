//! A timer fires once per arming in the committed history: a task with nothing but timers, driven through commits,
//! aborts, crashes and moves, beside a model without any cleverness.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use common::{
    avro::{Encoder, Schema},
    schema::DEAD_LETTER,
    wire,
};
use engine::{
    epoch::TaskEpoch,
    intake::{Limits, SourceRecord},
    memory::Pool,
    processor::{Context, Event, Failure, Processor, Value},
    store::{Shared, Store},
    task::{Progress, Schemas, Settings, Task},
};
use proptest::prelude::*;

const SCHEMA: u32 = 1;
const ARM: u8 = b'a';
const CANCEL: u8 = b'c';

/// When it is due, and its key.
type Timer = (i64, u8);

/// Arms and cancels timers as records tell it, and publishes every firing.
struct Alarm;

/// It stores nothing but timers.
struct Nothing;

impl Value for Nothing {
    fn encode(&self, _: &mut Vec<u8>) {}

    fn decode(_: &[u8]) -> Result<Self, String> {
        Ok(Self)
    }

    fn timer_ms(_: &[u8]) -> Option<i64> {
        None
    }

    fn heap_bytes(&self) -> usize {
        0
    }
}

impl Processor for Alarm {
    type Value = Nothing;

    fn process(
        &mut self,
        event: Event<'_>,
        context: &mut Context<'_, Nothing>,
    ) -> Result<(), Failure> {
        match event {
            Event::Record(record) => match due_of(&record.datum[1..]) {
                due_ms if record.datum[0] == ARM => context.timers.set(record.key, due_ms),
                due_ms => context.timers.cancel(record.key, due_ms),
            },
            Event::Timer { key, due_ms } => {
                context.outputs.emit(key, Some(&due_ms.to_be_bytes()));
            }
            other => return Err(Failure::Broken(format!("{other:?}"))),
        }
        Ok(())
    }
}

fn due_of(bytes: &[u8]) -> i64 {
    i64::from_be_bytes(bytes.try_into().expect("eight bytes"))
}

/// The one schema that there is.
struct OneSchema(Arc<Schema>);

impl Schemas for OneSchema {
    fn lookup(&mut self, _: u32) -> Option<Result<Arc<Schema>, String>> {
        Some(Ok(Arc::clone(&self.0)))
    }
}

/// The model: what has happened up to some point. Armings are numbered.
#[derive(Debug, Clone, Default)]
struct History {
    armed: BTreeMap<Timer, usize>,
    armings: usize,
    cancelled: BTreeSet<usize>,
    fired: Vec<(usize, Timer)>,
}

impl History {
    /// What is armed already stays as it is.
    fn arm(&mut self, timer: Timer) {
        let next = self.armings;
        if *self.armed.entry(timer).or_insert(next) == next {
            self.armings += 1;
        }
    }

    fn cancel(&mut self, timer: Timer) {
        self.cancelled.extend(self.armed.remove(&timer));
    }

    fn fire(&mut self, now_ms: i64) {
        while let Some(first) = self.armed.first_entry().filter(|e| e.key().0 <= now_ms) {
            let (timer, arming) = first.remove_entry();
            self.fired.push((arming, timer));
        }
    }
}

/// A task as a worker runs it: one epoch is under way while the next is filled.
struct World {
    task: Task<Alarm>,
    settings: Settings,
    schemas: OneSchema,
    under_way: Option<Arc<TaskEpoch>>,
    position: i64,
    offset: i64,
    now_ms: i64,
    /// Firings that readers of committed records see.
    published: Vec<Timer>,
    /// What the model says up to now, to the epoch under way, and to the last commit.
    now: History,
    cut: History,
    committed: History,
}

impl World {
    fn new() -> Self {
        let letters = Schema::parse(2, DEAD_LETTER).expect("a record schema");
        let settings = Settings {
            source_topic: "reports".into(),
            partitions: 1,
            limits: Limits {
                object_id_bytes: 8,
                record_bytes: 64,
            },
            dead_letters: Encoder::new(Arc::new(letters)),
            objects: Pool::of(1 << 20),
        };
        let text = r#"{"type": "record", "name": "Alarm", "fields": []}"#;
        let schema = Schema::parse(SCHEMA, text).expect("a record schema");
        let shared = Shared::in_memory().expect("an in-memory environment");
        let store = Store::open(&shared, Path::new("/timers"), "app", 0).expect("a store");
        Self {
            task: Task::new(0, settings.clone(), Alarm, Arc::new(store), 0).expect("a task"),
            settings,
            schemas: OneSchema(Arc::new(schema)),
            under_way: None,
            position: 0,
            offset: 0,
            now_ms: 0,
            published: Vec::new(),
            now: History::default(),
            cut: History::default(),
            committed: History::default(),
        }
    }

    fn record(&mut self, what: u8, (due_ms, key): Timer) {
        let mut value = wire::header(SCHEMA);
        value.push(what);
        value.extend_from_slice(&due_ms.to_be_bytes());
        let record = SourceRecord {
            offset: self.offset,
            timestamp_ms: None,
            key: Some(&[key]),
            value: Some(&value),
        };
        let progress = self.task.process(&record, &mut self.schemas, self.now_ms);
        assert_eq!(progress.expect("the task goes on"), Progress::Done);
        self.offset += 1;
    }

    fn wait(&mut self, ms: i64) {
        self.now_ms += ms;
        while self.task.fire_timers(self.now_ms).expect("timers fire") {}
        self.now.fire(self.now_ms);
    }

    /// The epoch goes to the committer, unless that has one still.
    fn hand_out(&mut self) {
        if self.under_way.is_none() {
            self.under_way = self.task.cut();
            self.cut = self.now.clone();
        }
    }

    /// The epoch under way is committed: its outputs are seen, its rows reach the store.
    fn apply(&mut self) {
        let Some(epoch) = self.under_way.take() else {
            return;
        };
        self.position += 1;
        let store = epoch.store.upgrade().expect("the task has it");
        let applied = store.apply_epoch(&epoch, self.position);
        applied.expect("rows are applied");
        self.published.extend(epoch.outputs.iter().map(|output| {
            let key = output.key.expect("a key");
            let due = output.value.expect("no tombstone");
            (due_of(due), key[0])
        }));
        self.committed = self.cut.clone();
    }

    fn commit(&mut self) {
        if self.under_way.is_some() {
            self.apply();
            self.task.committed();
        }
    }

    /// The epoch under way is aborted, and everything since thrown away.
    fn abort(&mut self) {
        self.under_way = None;
        self.task.abandon();
        self.now = self.committed.clone();
    }

    /// The owner is gone, and another goes on with the store. `resolved`: the epoch under way was committed.
    fn hand_over(&mut self, resolved: bool) {
        if resolved {
            self.apply();
        }
        self.under_way = None;
        let store = Arc::clone(self.task.store());
        let settings = self.settings.clone();
        self.task = Task::new(0, settings, Alarm, store, self.offset).expect("a task");
        self.now = self.committed.clone();
    }

    /// Whatever is armed comes due, and everything is committed.
    fn end(&mut self) {
        self.wait(1_000_000);
        for _ in 0..2 {
            self.hand_out();
            self.commit();
        }
    }

    /// Readers saw what the model says: each arming of the committed history fired once, or was cancelled.
    fn check(&self) {
        let History {
            armed,
            armings,
            cancelled,
            fired,
        } = &self.committed;
        let expected: Vec<Timer> = fired.iter().map(|(_, timer)| *timer).collect();
        assert_eq!(self.published, expected);
        let by_arming: BTreeSet<usize> = fired.iter().map(|(arming, _)| *arming).collect();
        assert!(armed.is_empty() && by_arming.is_disjoint(cancelled));
        assert_eq!(by_arming.len(), fired.len(), "twice for one arming");
        assert_eq!(fired.len() + cancelled.len(), *armings, "one is lost");
    }
}

#[derive(Debug, Clone)]
enum Step {
    Arm(Timer),
    ArmIn(i64, u8),
    Cancel(Timer),
    Wait(i64),
    HandOut,
    Commit,
    Abort,
    HandOver { resolved: bool },
}

fn step() -> impl Strategy<Value = Step> {
    // Few times and keys: the same timers are armed, cancelled and fired again and again.
    let timer = (0..60i64, 0..4u8);
    prop_oneof![
        4 => timer.clone().prop_map(Step::Arm),
        4 => (-5..20i64, 0..4u8).prop_map(|(ms, key)| Step::ArmIn(ms, key)),
        2 => timer.prop_map(Step::Cancel),
        4 => (0..8i64).prop_map(Step::Wait),
        4 => Just(Step::HandOut),
        4 => Just(Step::Commit),
        1 => Just(Step::Abort),
        1 => any::<bool>().prop_map(|resolved| Step::HandOver { resolved }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_timer_fires_once_per_arming_in_the_committed_history(
        steps in proptest::collection::vec(step(), 1..80)
    ) {
        let mut world = World::new();
        for step in steps {
            match step {
                Step::Arm(timer) => {
                    world.record(ARM, timer);
                    world.now.arm(timer);
                }
                Step::ArmIn(ms, key) => {
                    // Long ago is due at once, and there is nothing before 1970.
                    let timer = ((world.now_ms + ms).max(0), key);
                    world.record(ARM, timer);
                    world.now.arm(timer);
                }
                Step::Cancel(timer) => {
                    world.record(CANCEL, timer);
                    world.now.cancel(timer);
                }
                Step::Wait(ms) => world.wait(ms),
                Step::HandOut => world.hand_out(),
                Step::Commit => world.commit(),
                Step::Abort => world.abort(),
                Step::HandOver { resolved } => world.hand_over(resolved),
            }
        }
        world.end();
        world.check();
    }
}
