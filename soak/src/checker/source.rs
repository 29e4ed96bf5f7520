//! Reads the source topic as the documentation says a service must: what is a good record, what is a dead letter,
//! what belongs to another partition.

use std::collections::HashMap;
use std::sync::Arc;

use anyhow::Result;
use common::avro::{Decoder, Error as AvroError, Schema};
use common::partitioner::partition_of;
use common::registry::{self, Registry};
use common::schema::{
    CLEAR_OVERRIDE, ClearOverride, DELETE_OBJECT, DeleteObject, SET_STATE, SITE_ATTACK_REPORT,
    SetState, SiteAttackReport, SiteAttackVerdict, Verdict as _,
};
use common::wire;
use e2e::topics::Record;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;

use crate::model::Change;

/// What a record of the source topic is.
#[derive(Clone, Debug)]
pub enum Judged {
    /// It belongs to this partition.
    Misrouted(u32),
    /// It must become a dead letter with this reason.
    Bad(&'static str),
    /// It changes an object.
    Good(String, Change),
    /// It changes an object unless it was processed before this moment; then it is from the future.
    GoodFrom(i64, String, Change),
}

/// Records of the source topic with what they are.
pub type Stretch = Vec<(Record, Judged)>;

/// What a record may be.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Partitions of the source topic.
    pub partitions: u32,
    /// Longest object id, in bytes.
    pub object_id_bytes: usize,
    /// Largest value, in bytes.
    pub record_bytes: usize,
    /// How far into the future an observation may be.
    pub max_skew_ms: i64,
}

/// Reads source records.
pub struct Reader {
    limits: Limits,
    registry: Registry,
    runtime: Handle,
    schemas: HashMap<u32, Option<Arc<Schema>>>,
    report: Decoder<SiteAttackReport>,
    set_state: Decoder<SetState>,
    clear_override: Decoder<ClearOverride>,
    delete_object: Decoder<DeleteObject>,
}

impl Reader {
    /// A reader that looks schemas up in `registry`, on `runtime`.
    ///
    /// # Errors
    /// A schema does not parse.
    pub fn new(limits: Limits, registry: Registry, runtime: Handle) -> Result<Self> {
        Ok(Self {
            limits,
            registry,
            runtime,
            schemas: HashMap::new(),
            report: Decoder::new(SITE_ATTACK_REPORT)?,
            set_state: Decoder::new(SET_STATE)?,
            clear_override: Decoder::new(CLEAR_OVERRIDE)?,
            delete_object: Decoder::new(DELETE_OBJECT)?,
        })
    }

    /// What this record is. Call it outside of asynchronous code.
    ///
    /// # Errors
    /// The registry does not answer.
    pub fn judge(&mut self, record: &Record) -> Result<Judged> {
        // librdkafka tells no empty key from none; neither is an object id.
        let key = record.key.as_deref().unwrap_or_default();
        let Ok(id) = std::str::from_utf8(key) else {
            return Ok(Judged::Bad("invalid-object-id"));
        };
        if key.is_empty() || key.len() > self.limits.object_id_bytes {
            return Ok(Judged::Bad("invalid-object-id"));
        }
        let right = partition_of(key, self.limits.partitions);
        if i32::try_from(right) != Ok(record.partition) {
            return Ok(Judged::Misrouted(right));
        }
        let Some(value) = record.value.as_deref() else {
            return Ok(Judged::Bad("truncated"));
        };
        if value.len() > self.limits.record_bytes {
            return Ok(Judged::Bad("too-large"));
        }
        match wire::split(value) {
            Err(wire::Error::WrongMagicByte(_)) => Ok(Judged::Bad("wrong-magic-byte")),
            Err(wire::Error::Truncated(_)) => Ok(Judged::Bad("truncated")),
            Ok((schema, datum)) => match self.schema(schema)? {
                None => Ok(Judged::Bad("unknown-schema")),
                Some(writer) => Ok(self.decode(id, value, &writer, datum)),
            },
        }
    }

    /// The schema with this id; none if the registry says that there is none.
    ///
    /// # Errors
    /// The registry does not answer.
    pub fn schema(&mut self, id: u32) -> Result<Option<Arc<Schema>>> {
        if let Some(known) = self.schemas.get(&id) {
            return Ok(known.clone());
        }
        let found = match self.runtime.block_on(self.registry.resolve(id)) {
            Ok(schema) => Some(schema),
            Err(registry::Error::Unknown { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        self.schemas.insert(id, found.clone());
        Ok(found)
    }

    fn decode(&self, id: &str, value: &[u8], writer: &Schema, datum: &[u8]) -> Judged {
        let decoded = if writer.name == self.report.name() {
            decode(&self.report, writer, datum).map(|report| {
                let about = report.object_id.clone();
                (about, Change::Report(report, value.into()))
            })
        } else if writer.name == self.set_state.name() {
            decode(&self.set_state, writer, datum)
                .map(|command| (command.object_id.clone(), Change::Set(command)))
        } else if writer.name == self.clear_override.name() {
            let decoded = decode(&self.clear_override, writer, datum);
            decoded.map(|command| (command.object_id, Change::Clear))
        } else if writer.name == self.delete_object.name() {
            let decoded = decode(&self.delete_object, writer, datum);
            decoded.map(|command| (command.object_id, Change::Delete))
        } else {
            Err("unexpected-type")
        };
        match decoded {
            Err(reason) => Judged::Bad(reason),
            Ok((about, _)) if about != id => Judged::Bad("key-mismatch"),
            Ok((_, Change::Set(command)))
                if SiteAttackVerdict::named(&command.verdict).is_none() =>
            {
                Judged::Bad("unknown-verdict")
            }
            Ok((about, Change::Report(report, bytes))) => {
                let from_ms = report.observed_at_ms - self.limits.max_skew_ms;
                Judged::GoodFrom(from_ms, about, Change::Report(report, bytes))
            }
            Ok((about, change)) => Judged::Good(about, change),
        }
    }
}

fn decode<T: DeserializeOwned>(
    decoder: &Decoder<T>,
    writer: &Schema,
    datum: &[u8],
) -> Result<T, &'static str> {
    decoder.decode(writer, datum).map_err(|error| match error {
        AvroError::Unresolvable(_) => "unresolvable",
        _ => "malformed",
    })
}
