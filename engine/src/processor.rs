//! The Processor layer: what Kafka Streams calls the Processor API.
//!
//! A [`Processor`] sees one event at a time and answers with changes to its task's store, timers
//! and outputs. It is pure: no clock, no I/O, no async; time comes in as an argument. Whatever it
//! does for one event becomes visible in one transaction, or not at all.

use common::avro::Schema;

use crate::{epoch::Outputs, objects::Objects, store, timers::Timers};

/// A value of a task's store, kept decoded while it is hot and encoded once per commit.
pub trait Value: Sized + Send + 'static {
    /// Appends the stored form to `out`.
    fn encode(&self, out: &mut Vec<u8>);
    /// Reads the stored form.
    ///
    /// # Errors
    /// One sentence on what is wrong with the bytes.
    fn decode(bytes: &[u8]) -> Result<Self, String>;
    /// The timer that the value names, in ms since 1970: read from its stored form, so that whoever restores
    /// a store sets it.
    fn timer_ms(row: &[u8]) -> Option<i64>;
    /// About how much memory it holds beside itself: what the cache of values counts.
    fn heap_bytes(&self) -> usize;
    /// About how long its stored form is: what the epoch counts, in which it may become a row.
    fn stored_bytes(&self) -> usize {
        self.heap_bytes()
    }
    /// Reads a little of the memory it holds beside itself: what the next event will look at. What it
    /// returns means nothing.
    fn glance(&self) -> usize {
        0
    }
}

/// The logic of a task.
pub trait Processor: Send + 'static {
    /// What its store holds under each key.
    type Value: Value;

    /// Handles one event.
    ///
    /// # Errors
    /// [`Failure::Rejected`] sends the record to the dead letters and goes on with the next; the
    /// processor must not have changed anything before it rejects. Any other failure closes the task.
    fn process(
        &mut self,
        event: Event<'_>,
        context: &mut Context<'_, Self::Value>,
    ) -> Result<(), Failure>;
}

/// What happens to a task.
#[non_exhaustive]
#[derive(Debug)]
pub enum Event<'a> {
    /// A record of the source topic, with a valid key and a known schema.
    Record(Record<'a>),
    /// A timer that is due. It is disarmed already. Whether it was not replaced long ago is for the key's value
    /// to say (see [`crate::timers`]).
    Timer {
        /// The key it was set for.
        key: &'a [u8],
        /// When it was due, in ms since 1970.
        due_ms: i64,
    },
}

/// A record of the source topic.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// The key: an object id, UTF-8, within the length limit.
    pub key: &'a [u8],
    /// The value as it was written, with its frame.
    pub value: &'a [u8],
    /// The Avro datum within `value`.
    pub datum: &'a [u8],
    /// The schema that the datum was written with.
    pub schema: &'a Schema,
}

/// What a processor works with while it handles an event.
pub struct Context<'a, V> {
    /// The time, in ms since 1970. Never read any other clock.
    pub now_ms: i64,
    /// The task's store.
    pub objects: &'a mut Objects<V>,
    /// The task's timers.
    pub timers: &'a mut Timers,
    /// Records for the output topic.
    pub outputs: &'a mut Outputs,
}

/// Why a record goes to the dead letters. The names are part of the interface: they are the
/// `reason` of a dead letter and a label in the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Not the Confluent wire format.
    WrongMagicByte,
    /// Too short for its frame, or no value at all.
    Truncated,
    /// The registry does not know the schema id.
    UnknownSchema,
    /// A record type that this application does not process.
    UnexpectedType,
    /// Not a datum of the schema it names.
    Malformed,
    /// A good datum that does not resolve to this service's schema.
    Unresolvable,
    /// A verdict that the scenario does not have.
    UnknownVerdict,
    /// No key, an empty or over-long one, or not UTF-8.
    InvalidObjectId,
    /// The key is not the object id inside.
    KeyMismatch,
    /// Observed later than the allowed skew permits.
    FromTheFuture,
    /// Larger than a record may be.
    TooLarge,
    /// Its object would become larger than a row may be.
    ObjectTooLarge,
}

impl Reason {
    /// The name in dead letters and metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::WrongMagicByte => "wrong-magic-byte",
            Self::Truncated => "truncated",
            Self::UnknownSchema => "unknown-schema",
            Self::UnexpectedType => "unexpected-type",
            Self::Malformed => "malformed",
            Self::Unresolvable => "unresolvable",
            Self::UnknownVerdict => "unknown-verdict",
            Self::InvalidObjectId => "invalid-object-id",
            Self::KeyMismatch => "key-mismatch",
            Self::FromTheFuture => "from-the-future",
            Self::TooLarge => "too-large",
            Self::ObjectTooLarge => "object-too-large",
        }
    }
}

/// A record that cannot be processed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Which kind of bad.
    pub reason: Reason,
    /// The same for people, with the values that matter.
    pub detail: String,
}

impl Rejected {
    /// A rejection.
    #[must_use]
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }
}

/// Why an event was not handled.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The record is bad; the task goes on.
    #[error("{}: {}", .0.reason.name(), .0.detail)]
    Rejected(Rejected),
    /// The store failed: the task must close.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The processor cannot write what it decided, for example a state that does not fit its schema.
    #[error("processor: {0}")]
    Broken(String),
}

impl From<Rejected> for Failure {
    fn from(rejected: Rejected) -> Self {
        Self::Rejected(rejected)
    }
}
