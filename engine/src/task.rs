//! A task: one source partition, its store, its timers and its processor.
//!
//! Pure but for reads of its own store: it is handed records, the time and the news of commits, and
//! hands out epochs. The same code runs under a worker and under [`crate::testing::TestDriver`].

use std::sync::Arc;

use common::{
    avro::{Encoder, Schema},
    schema::DeadLetter,
};

use crate::{
    dead_letter,
    digest::{self, Digest},
    epoch::{Destination, Output, Outputs, Rows, TaskEpoch},
    intake::{self, Intake, Limits, SourceRecord},
    memory::Pool,
    objects::Objects,
    processor::{Context, Event, Failure, Processor, Reason, Record, Rejected, Value as _},
    store::{self, SOURCE, Store},
    timers::Timers,
};

/// Due timers handled in one go, before records get their turn again: some ms, when all objects expire together.
const TIMERS_AT_ONCE: usize = 250;

/// What a task must know of its surroundings.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of the source topic, for dead letters.
    pub source_topic: Arc<str>,
    /// Partitions of the source topic.
    pub partitions: u32,
    /// What a record may be.
    pub limits: Limits,
    /// Writes dead letters.
    pub dead_letters: Encoder<DeadLetter>,
    /// Memory for the objects of all tasks.
    pub objects: Pool,
}

/// How much an epoch has taken in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Load {
    /// Source records.
    pub records: u64,
    /// What comes of them: outputs and rows.
    pub bytes: u64,
}

impl Load {
    /// Is it less than `limit` in both?
    #[must_use]
    pub fn is_within(self, limit: Self) -> bool {
        self.records < limit.records && self.bytes < limit.bytes
    }
}

impl std::iter::Sum for Load {
    fn sum<I: Iterator<Item = Self>>(loads: I) -> Self {
        loads.fold(Self::default(), |sum, load| Self {
            records: sum.records + load.records,
            bytes: sum.bytes + load.bytes,
        })
    }
}

/// What became of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Processed, rejected or sent on: in any case done with.
    Done,
    /// Not touched: its schema must be looked up first. Offer it again then.
    NeedsSchema(u32),
}

/// How to find the schema of a record.
pub trait Schemas {
    /// The schema, or why there is none, or `None` while it is being looked up.
    fn lookup(&mut self, id: u32) -> Option<Result<Arc<Schema>, String>>;
}

/// One source partition with its state.
pub struct Task<P: Processor> {
    partition: u32,
    settings: Settings,
    processor: P,
    store: Arc<Store>,
    objects: Objects<P::Value>,
    timers: Timers,
    outputs: Outputs,
    /// The schema of the last record: hardly ever another than the next one's.
    last_schema: Option<(u32, Arc<Schema>)>,
    /// Rows of an epoch that is committed: their memory serves the next one.
    spare: Rows,
    /// Outputs of the last committed epoch. They are kept for as long as somebody may have to publish them again; then
    /// their memory serves another one.
    published: Arc<Outputs>,
    spare_outputs: Outputs,
    timers_fired: metrics::Counter,
    next_offset: Option<i64>,
    /// Source records since the last cut.
    records: u64,
    committed_offset: i64,
    staged: Option<Arc<TaskEpoch>>,
    digests: Digests,
    now_ms: i64,
}

/// When to write a digest, and what to write.
#[derive(Default)]
struct Digests {
    /// Of all rows up to the last cut, and up to the last commit.
    rows: u64,
    committed: u64,
    /// Rows written since the last digest; `None` before the first, and when some were thrown away.
    since_last: Option<u64>,
    /// Are there rows that no digest has seen?
    stale: bool,
    last_ms: i64,
}

impl Digests {
    /// Counts the objects of an epoch.
    fn count(&mut self, rows: usize) {
        self.stale |= rows > 0;
        if let Some(since_last) = &mut self.since_last {
            *since_last += rows as u64;
        }
    }

    /// Adds a digest to the rows of an epoch, if one is due.
    fn add_to(&mut self, rows: &mut Rows, now_ms: i64) {
        if !self.stale || now_ms.saturating_sub(self.last_ms) < digest::EVERY_MS {
            return;
        }
        let since_last = self.since_last.replace(0);
        let digest = Digest {
            rows: self.rows,
            since_last,
        };
        rows.extend([digest.row()]);
        self.stale = false;
        self.last_ms = now_ms;
    }
}

impl<P: Processor> Task<P> {
    /// A task whose store is complete and whose next source record is at `committed_offset`.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn new(
        partition: u32,
        settings: Settings,
        processor: P,
        store: Arc<Store>,
        committed_offset: i64,
    ) -> Result<Self, store::Error> {
        let rows = store.digest()?;
        Ok(Self {
            partition,
            processor,
            objects: Objects::new(Arc::clone(&store), &settings.objects),
            settings,
            timers: Timers::new(Arc::clone(&store), P::Value::timer_ms),
            store,
            outputs: Outputs::default(),
            last_schema: None,
            spare: Rows::default(),
            published: Arc::default(),
            spare_outputs: Outputs::default(),
            timers_fired: metrics::counter!("timers_fired_total"),
            next_offset: None,
            records: 0,
            committed_offset,
            staged: None,
            digests: Digests {
                rows,
                committed: rows,
                ..Digests::default()
            },
            now_ms: 0,
        })
    }

    /// The store: committed rows only.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Where the source must be read from after [`Self::abandon`].
    #[must_use]
    pub fn committed_offset(&self) -> i64 {
        self.committed_offset
    }

    /// What was taken in since the last cut.
    #[must_use]
    pub fn pending(&self) -> Load {
        let rows = self.objects.pending_bytes() + self.timers.changed_bytes();
        Load {
            records: self.records,
            bytes: (self.outputs.pending_bytes() + rows) as u64,
        }
    }

    /// Brings the objects of records that come soon near the processor.
    pub fn look_ahead<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) {
        self.objects.look_ahead(keys);
    }

    /// Processes one record.
    ///
    /// # Errors
    /// When the store fails or the processor is broken: the task must be closed.
    pub fn process(
        &mut self,
        record: &SourceRecord<'_>,
        schemas: &mut impl Schemas,
        now_ms: i64,
    ) -> Result<Progress, Failure> {
        let passed = match intake::inspect(
            record,
            self.partition,
            self.settings.partitions,
            self.settings.limits,
        ) {
            Intake::Process { schema_id, datum } => match self.schema(schema_id, schemas) {
                None => return Ok(Progress::NeedsSchema(schema_id)),
                Some(Ok(())) => self.hand_over(record, datum, now_ms),
                Some(Err(why)) => Err(Rejected::new(Reason::UnknownSchema, why).into()),
            },
            Intake::Misrouted { partition } => {
                self.send_on(record, partition);
                Ok(())
            }
            Intake::Reject(rejected) => Err(rejected.into()),
        };
        match passed {
            Ok(()) => {}
            Err(Failure::Rejected(rejected)) => self.reject(record, rejected, now_ms)?,
            Err(fatal) => return Err(fatal),
        }
        self.next_offset = Some(record.offset + 1);
        self.records += 1;
        Ok(Progress::Done)
    }

    /// Makes the schema of the record the last one.
    fn schema(&mut self, id: u32, schemas: &mut impl Schemas) -> Option<Result<(), String>> {
        if self.last_schema.as_ref().is_some_and(|last| last.0 == id) {
            return Some(Ok(()));
        }
        let found = schemas.lookup(id)?;
        Some(found.map(|schema| self.last_schema = Some((id, schema))))
    }

    fn hand_over(
        &mut self,
        record: &SourceRecord<'_>,
        datum: &[u8],
        now_ms: i64,
    ) -> Result<(), Failure> {
        let Some((_, schema)) = &self.last_schema else {
            return Ok(());
        };
        let event = Event::Record(Record {
            key: record.key.unwrap_or_default(),
            value: record.value.unwrap_or_default(),
            datum,
            schema,
        });
        let mut context = Context {
            now_ms,
            objects: &mut self.objects,
            timers: &mut self.timers,
            outputs: &mut self.outputs,
        };
        self.processor.process(event, &mut context)
    }

    /// A record on the wrong partition goes to the right one, unchanged.
    fn send_on(&mut self, record: &SourceRecord<'_>, partition: u32) {
        metrics::counter!("misrouted_records_total").increment(1);
        self.outputs.push(Output {
            to: Destination::Source { partition },
            key: record.key,
            value: record.value,
        });
    }

    fn reject(
        &mut self,
        record: &SourceRecord<'_>,
        rejected: Rejected,
        now_ms: i64,
    ) -> Result<(), Failure> {
        let reason = rejected.reason;
        metrics::counter!("dead_letters_total", "reason" => reason.name()).increment(1);
        let topic = &self.settings.source_topic;
        let letter = dead_letter::letter(topic, self.partition, record, rejected, now_ms);
        let value = self
            .settings
            .dead_letters
            .encode(&letter)
            .map_err(|e| Failure::Broken(e.to_string()))?;
        self.outputs.push(Output {
            to: Destination::DeadLetters(reason),
            key: letter.key.as_deref(),
            value: Some(&value),
        });
        Ok(())
    }

    /// Handles timers that are due; `true` if there may be more.
    ///
    /// # Errors
    /// When the store fails or the processor is broken: the task must be closed.
    pub fn fire_timers(&mut self, now_ms: i64) -> Result<bool, Failure> {
        self.now_ms = now_ms;
        let due = self.timers.take_due(now_ms, TIMERS_AT_ONCE)?;
        for (due_ms, key) in &due {
            let event = Event::Timer {
                key,
                due_ms: *due_ms,
            };
            let mut context = Context {
                now_ms,
                objects: &mut self.objects,
                timers: &mut self.timers,
                outputs: &mut self.outputs,
            };
            self.processor.process(event, &mut context)?;
        }
        self.timers_fired.increment(due.len() as u64);
        Ok(self.timers.is_due(now_ms))
    }

    /// Ends the current epoch and hands it out for the commit; `None` if nothing happened. The epoch
    /// before it must have been committed.
    pub fn cut(&mut self) -> Option<Arc<TaskEpoch>> {
        let digests = &mut self.digests;
        let mut rows = std::mem::take(&mut self.spare);
        // Objects sort before the source's offset, and the digest comes last.
        self.objects.cut(&mut digests.rows, &mut rows);
        digests.count(rows.len());
        if let Some(offset) = self.next_offset {
            rows.push(&[SOURCE], Some(&offset.to_be_bytes()));
        }
        digests.add_to(&mut rows, self.now_ms);
        rows.trim();
        self.outputs.trim();
        if rows.is_empty() && self.outputs.is_empty() && self.next_offset.is_none() {
            // Timers that came to nothing wait for the next one, and memory serves others.
            self.spare_outputs = Outputs::default();
            self.published = Arc::default();
            return None;
        }
        let spare_outputs = std::mem::take(&mut self.spare_outputs);
        let epoch = Arc::new(TaskEpoch {
            partition: self.partition,
            store: Arc::downgrade(&self.store),
            rows: Arc::new(rows),
            timers: self.timers.cut(),
            outputs: std::mem::replace(&mut self.outputs, spare_outputs).into(),
            next_offset: self.next_offset.take(),
            records: std::mem::take(&mut self.records),
            digest: self.digests.rows,
        });
        self.stage(Some(Arc::clone(&epoch)));
        Some(epoch)
    }

    /// The digest of the store, as of the last commit.
    #[must_use]
    pub fn committed_digest(&self) -> u64 {
        self.digests.committed
    }

    /// The epoch handed out is committed and in the store. Had it any outputs?
    pub fn committed(&mut self) -> bool {
        let staged = self.staged.take();
        self.stage(None);
        let Some(epoch) = staged else { return false };
        let published = !epoch.outputs.is_empty();
        self.committed_offset = epoch.next_offset.unwrap_or(self.committed_offset);
        self.digests.committed = epoch.digest;
        let before = std::mem::replace(&mut self.published, Arc::clone(&epoch.outputs));
        // Others may still hold them; then the next epoch takes memory of its own.
        self.spare_outputs = Arc::into_inner(before)
            .map(Outputs::emptied)
            .unwrap_or_default();
        let rows = Arc::into_inner(epoch).and_then(|epoch| Arc::into_inner(epoch.rows));
        self.spare = rows.map(Rows::emptied).unwrap_or_default();
        published
    }

    /// Throws away whatever is not committed. The source must be read again from
    /// [`Self::committed_offset`].
    pub fn abandon(&mut self) {
        self.objects.abandon();
        self.timers.abandon();
        self.outputs = Outputs::default();
        self.next_offset = None;
        self.records = 0;
        self.staged = None;
        self.digests.rows = self.digests.committed;
        self.digests.since_last = None;
    }

    fn stage(&mut self, epoch: Option<Arc<TaskEpoch>>) {
        self.objects.stage(epoch.clone());
        self.timers.stage(epoch.clone());
        self.staged = epoch;
    }
}
