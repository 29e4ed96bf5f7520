//! Runs the real task of a scenario without a broker, with time in the test's hand.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use common::{
    avro::{self, Decoder, Encoder},
    registry::{self, Registry},
    schema::{self, ClearOverride, DeadLetter, DeleteObject, SetState, State},
    wire,
};

use crate::{
    digest,
    epoch::{Destination, Output},
    intake::{Limits, SourceRecord},
    memory::Pool,
    processor::{Failure, Value as _},
    scenario::{
        Codecs, Scenario, ScenarioProcessor,
        object::{Object, Stored},
        view,
    },
    store::{OBJECT, Shared, Store, TIMER, row_key},
    task::{Progress, Schemas, Settings, Task},
    timers,
};

const REPORT: u32 = 1;
const SET_STATE: u32 = 2;
const CLEAR_OVERRIDE: u32 = 3;
const DELETE_OBJECT: u32 = 4;
const STATE: u32 = 5;
const DEAD_LETTER: u32 = 6;

/// How far into the future the driver lets agents' clocks be, in ms.
pub const MAX_SKEW_MS: i64 = 5_000;

/// One partition of a scenario, without Kafka. Nothing is committed until [`Self::commit`].
///
/// Methods panic when the driver is used wrongly or the task fails: it is for tests.
pub struct TestDriver<S: Scenario> {
    task: Task<ScenarioProcessor<S>>,
    scenario: Arc<S>,
    codecs: Arc<Codecs<S>>,
    settings: Settings,
    registry: KnownSchemas,
    now_ms: i64,
    next_offset: i64,
    position: i64,
    outputs: Vec<Taken>,
}

/// An output that was committed.
struct Taken {
    to: Destination,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
}

impl From<Output<'_>> for Taken {
    fn from(output: Output<'_>) -> Self {
        Self {
            to: output.to,
            key: output.key.map(<[u8]>::to_vec),
            value: output.value.map(<[u8]>::to_vec),
        }
    }
}

struct KnownSchemas(Registry);

impl Schemas for KnownSchemas {
    fn lookup(&mut self, id: u32) -> Option<Result<Arc<avro::Schema>, String>> {
        Some(self.0.known(id).ok_or(format!("schema {id} is not known")))
    }
}

impl<S: Scenario> TestDriver<S> {
    /// A driver for `scenario`, at time `now_ms` (since 1970).
    ///
    /// # Panics
    /// When the scenario's schema does not parse.
    #[must_use]
    pub fn new(scenario: S, now_ms: i64) -> Self {
        let registry = offline_registry();
        let schema = |id, text| registry.remember(id, text).expect("a record schema");
        schema(REPORT, S::REPORT_SCHEMA);
        schema(SET_STATE, schema::SET_STATE);
        schema(CLEAR_OVERRIDE, schema::CLEAR_OVERRIDE);
        schema(DELETE_OBJECT, schema::DELETE_OBJECT);
        let state = Encoder::new(schema(STATE, schema::STATE));
        let settings = Settings {
            source_topic: "reports".into(),
            partitions: 1,
            limits: Limits {
                object_id_bytes: 512,
                record_bytes: 1 << 20,
            },
            dead_letters: Encoder::new(schema(DEAD_LETTER, schema::DEAD_LETTER)),
            objects: Pool::of(64 << 20),
        };
        let codecs = Arc::new(Codecs::new(state).expect("a record schema"));
        let scenario = Arc::new(scenario);
        let shared = Shared::in_memory().expect("an in-memory environment");
        let store = Store::open(&shared, Path::new("/test"), S::NAME, 0).expect("a store");
        Self {
            task: task(&scenario, &codecs, &settings, Arc::new(store), 0),
            scenario,
            codecs,
            settings,
            registry: KnownSchemas(registry),
            now_ms,
            next_offset: 0,
            position: 0,
            outputs: Vec::new(),
        }
    }

    /// The time.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// Lets time pass until `now_ms`, and fires what is due.
    pub fn advance_to(&mut self, now_ms: i64) {
        self.now_ms = now_ms;
        self.fire();
    }

    fn fire(&mut self) {
        while self.task.fire_timers(self.now_ms).expect("timers fire") {}
    }

    /// Processes a report about `object_id`.
    pub fn report(&mut self, object_id: &str, report: &S::Report) {
        let value = self.encode(REPORT, report);
        self.raw(Some(object_id.as_bytes()), Some(&value));
    }

    /// Processes an operator's override.
    pub fn set_state(&mut self, command: &SetState) {
        let value = self.encode(SET_STATE, command);
        self.raw(Some(command.object_id.as_bytes()), Some(&value));
    }

    /// Processes the end of an override.
    pub fn clear_override(&mut self, object_id: &str) {
        let command = ClearOverride {
            object_id: object_id.to_owned(),
            operator: None,
            issued_at_ms: self.now_ms,
        };
        let value = self.encode(CLEAR_OVERRIDE, &command);
        self.raw(Some(object_id.as_bytes()), Some(&value));
    }

    /// Processes the deletion of an object.
    pub fn delete(&mut self, object_id: &str) {
        let command = DeleteObject {
            object_id: object_id.to_owned(),
            operator: None,
            issued_at_ms: self.now_ms,
        };
        let value = self.encode(DELETE_OBJECT, &command);
        self.raw(Some(object_id.as_bytes()), Some(&value));
    }

    /// Processes any bytes.
    ///
    /// # Panics
    /// When the task fails.
    pub fn raw(&mut self, key: Option<&[u8]>, value: Option<&[u8]>) {
        // As under a worker: what is due comes before what is new.
        self.fire();
        let record = SourceRecord {
            offset: self.next_offset,
            timestamp_ms: Some(self.now_ms),
            key,
            value,
        };
        let progress: Result<Progress, Failure> =
            self.task.process(&record, &mut self.registry, self.now_ms);
        assert_eq!(progress.expect("the task goes on"), Progress::Done);
        self.next_offset += 1;
    }

    /// Frames `value` with one of the driver's schemas, for [`Self::raw`].
    ///
    /// # Panics
    /// When the value does not fit.
    pub fn encode<T: serde::Serialize>(&self, schema_id: u32, value: &T) -> Vec<u8> {
        let schema = self.registry.0.known(schema_id).expect("a driver's schema");
        Encoder::new(schema).encode(value).expect("it encodes")
    }

    /// Makes another schema known, as an agent of another version would register it.
    ///
    /// # Panics
    /// When the text is not a record schema.
    pub fn register(&self, id: u32, text: &str) -> Arc<avro::Schema> {
        self.registry.0.remember(id, text).expect("a record schema")
    }

    /// Commits everything so far: rows reach the store, outputs can be taken.
    ///
    /// # Panics
    /// When the store fails.
    pub fn commit(&mut self) {
        if let Some(epoch) = self.task.cut() {
            self.position += 1;
            let store = Arc::clone(self.task.store());
            store
                .apply_epoch(&epoch, self.position)
                .expect("rows are applied");
            self.outputs.extend(epoch.outputs.iter().map(Taken::from));
            self.task.committed();
        }
    }

    /// Throws away what is not committed and starts again from the store, as after a crash.
    pub fn crash(&mut self) {
        let store = Arc::clone(self.task.store());
        self.next_offset = self.task.committed_offset();
        self.task = task(
            &self.scenario,
            &self.codecs,
            &self.settings,
            store,
            self.next_offset,
        );
    }

    /// Commits, and takes the transitions since the last call; `None` for a deletion.
    ///
    /// # Panics
    /// When an output is no state.
    pub fn transitions(&mut self) -> Vec<(String, Option<State>)> {
        let decoder = Decoder::new(schema::STATE).expect("a record schema");
        let taken = self.take(|to| to == Destination::States);
        taken
            .into_iter()
            .map(|output| {
                let key = output.key.unwrap_or_default();
                let state = output.value.map(|value| self.decode(&decoder, &value));
                (String::from_utf8_lossy(&key).into_owned(), state)
            })
            .collect()
    }

    /// Commits, and takes the dead letters since the last call.
    ///
    /// # Panics
    /// When an output is no dead letter.
    pub fn dead_letters(&mut self) -> Vec<DeadLetter> {
        let decoder = Decoder::new(schema::DEAD_LETTER).expect("a record schema");
        let taken = self.take(|to| matches!(to, Destination::DeadLetters(_)));
        taken
            .into_iter()
            .map(|output| self.decode(&decoder, &output.value.unwrap_or_default()))
            .collect()
    }

    fn take(&mut self, which: impl Fn(Destination) -> bool) -> Vec<Taken> {
        self.commit();
        let all = std::mem::take(&mut self.outputs);
        let (taken, kept) = all.into_iter().partition(|output| which(output.to));
        self.outputs = kept;
        taken
    }

    fn decode<T: serde::de::DeserializeOwned>(&self, decoder: &Decoder<T>, value: &[u8]) -> T {
        let (id, datum) = wire::split(value).expect("a framed value");
        let writer = self.registry.0.known(id).expect("a driver's schema");
        decoder.decode(&writer, datum).expect("it decodes")
    }

    /// The committed row of an object.
    ///
    /// # Panics
    /// When the store fails.
    #[must_use]
    pub fn stored(&self, object_id: &str) -> Option<Stored> {
        let row = self
            .task
            .store()
            .get(&row_key(OBJECT, object_id.as_bytes()));
        let row = row.expect("the store answers")?;
        Some(Stored::decode(&row).expect("a row"))
    }

    /// Asserts that the digest of the store is that of its objects, and that each timer they name is in the
    /// index, and no other.
    ///
    /// # Panics
    /// When it is not so.
    pub fn assert_derived(&self) {
        let store = self.task.store();
        let mut sum = 0_u64;
        let mut named = BTreeSet::new();
        let mut add = |key: &[u8], row: &[u8]| {
            sum = sum.wrapping_add(digest::of_row(key, row));
            named.extend(
                Object::<S>::timer_ms(row).map(|ms| timers::row_key(ms, &key[1..]).to_vec()),
            );
            true
        };
        store.scan(&[OBJECT], &mut add).expect("the store answers");
        assert_eq!(store.digest().expect("the store answers"), sum);
        let mut indexed = BTreeSet::new();
        let index = |key: &[u8], _: &[u8]| indexed.insert(key.to_vec());
        store.scan(&[TIMER], index).expect("the store answers");
        assert_eq!(indexed, named, "timers");
    }

    /// Commits, and reads the state of an object as a query would.
    #[must_use]
    pub fn state(&mut self, object_id: &str) -> Option<State> {
        self.commit();
        view::state::<S>(object_id, &self.stored(object_id)?)
    }
}

fn task<S: Scenario>(
    scenario: &Arc<S>,
    codecs: &Arc<Codecs<S>>,
    settings: &Settings,
    store: Arc<Store>,
    committed_offset: i64,
) -> Task<ScenarioProcessor<S>> {
    let processor = ScenarioProcessor::new(Arc::clone(scenario), Arc::clone(codecs), MAX_SKEW_MS);
    Task::new(0, settings.clone(), processor, store, committed_offset).expect("a store")
}

fn offline_registry() -> Registry {
    Registry::new(&registry::Args {
        schema_registry_url: "http://offline.invalid".into(),
        schema_registry_user: None,
        schema_registry_password: None,
        schema_registry_password_file: None,
        schema_registry_ca_file: None,
    })
    .expect("a client that is never used")
}
