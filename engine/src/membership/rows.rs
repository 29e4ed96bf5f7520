//! The rows of the membership topics, as JSON.
//!
//! Instances of several versions may be at work during a rolling upgrade. Of a row of a newer
//! version only the [`Envelope`] is read: its instance counts as present, it is given nothing and
//! asked for nothing, and nothing is guessed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Name of an instance; survives a restart.
pub type InstanceId = String;
/// Number of a plan; grows.
pub type PlanNumber = u64;

/// Version of the rows that this code writes.
pub const VERSION: u32 = 1;

/// What an instance says of itself: its row in `instances`, keyed by its id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Version of this form.
    pub version: u32,
    /// A process that carries the id: a restart is another incarnation.
    pub incarnation: String,
    /// Counts the beats of this incarnation. Beats are even in time; a row that was written because
    /// something changed carries the number of the beat before.
    pub beat: u64,
    /// Where it answers HTTP, for example `http://10.0.0.7:8080`.
    pub endpoint: String,
    /// Label of where it runs.
    pub rack: Option<String>,
    /// Is it here to stay?
    pub status: Status,
    /// One for each worker; task `p` is written by number `p` modulo their count.
    pub transactional_ids: Vec<String>,
    /// The last plan that it has carried out as far as closing goes: of the partitions that this
    /// plan does not give it, it writes none any more.
    pub closed_for: PlanNumber,
    /// The tasks that it holds as their owner.
    pub tasks: BTreeMap<u32, TaskRow>,
    /// The changelog position of every store on its disk, in use or not.
    pub stores: BTreeMap<u32, i64>,
    /// Those of them that are on their way to the end of their changelog. For people: no plan looks at
    /// it, and rows may lack it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub restores: BTreeMap<u32, RestoreRow>,
}

/// A store on its way to the end of its changelog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreRow {
    /// Changelog records that it lacks; `None` before anybody knows.
    pub remaining: Option<i64>,
    /// How fast it comes forward.
    pub records_per_second: u64,
    /// How long that will take; `None` if nobody can tell.
    pub seconds_left: Option<u64>,
}

/// Is an instance here to stay?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Yes.
    Present,
    /// It has closed everything and is gone.
    Left,
}

/// A task as its owner describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRow {
    /// The [`Assignment::since`] that it was started for.
    pub since: PlanNumber,
    /// Does it process?
    pub running: bool,
}

/// Who owns what: the last row in `plans`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Version of this form.
    pub version: u32,
    /// Its number.
    pub number: PlanNumber,
    /// Named by the first plan of an application, and again by the first one after a reset: a store
    /// of another generation is not of this changelog.
    pub generation: String,
    /// Who made it.
    pub leader: InstanceId,
    /// The leader's incarnation.
    pub leader_incarnation: String,
    /// Who was present, with incarnation.
    pub members: BTreeMap<InstanceId, String>,
    /// One for each partition of the source topic.
    pub tasks: Vec<Assignment>,
}

/// One partition in a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Who should own it; nobody when no member is present. One that is away may be back soon.
    pub owner: Option<InstanceId>,
    /// The plan that gave it to this owner.
    pub since: PlanNumber,
    /// Who follows its changelog, to take over at once.
    pub standbys: Vec<InstanceId>,
    /// Who will own it once it has caught up; it follows until then.
    pub warming_up: Option<InstanceId>,
    /// Every transactional id that may still be writing: all owners since the last confirmed start.
    pub writers: Vec<Writer>,
}

/// A transactional id that may still be writing to a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    /// Whose it is.
    pub instance: InstanceId,
    /// The id.
    pub transactional_id: String,
}

impl Row {
    /// The transactional id that writes `partition` at this instance.
    #[must_use]
    pub fn writer_of(&self, partition: u32) -> String {
        let count = self.transactional_ids.len().max(1);
        let id = self.transactional_ids.get(partition as usize % count);
        id.cloned().unwrap_or_default()
    }

    /// How far the stores of the tasks that process are.
    pub(super) fn running_positions(&self) -> BTreeMap<u32, i64> {
        let stores = self.stores.iter();
        let running =
            stores.filter(|(partition, _)| self.tasks.get(partition).is_some_and(|t| t.running));
        running.map(|(partition, at)| (*partition, *at)).collect()
    }

    /// Reads a row.
    ///
    /// # Errors
    /// When it is no row of this version, and not one of a newer version either.
    pub fn read(json: &[u8]) -> Result<Self, serde_json::Error> {
        let error = match serde_json::from_slice::<Self>(json) {
            Ok(row) if row.version <= VERSION => return Ok(row),
            Ok(row) => return Ok(Envelope::from(row).into()),
            Err(error) => error,
        };
        match serde_json::from_slice::<Envelope>(json) {
            Ok(newer) if newer.version > VERSION => Ok(newer.into()),
            _ => Err(error),
        }
    }
}

/// What rows of all versions have, now and later.
#[derive(Debug, Deserialize)]
struct Envelope {
    version: u32,
    incarnation: String,
    beat: u64,
    endpoint: String,
    status: Status,
}

impl From<Row> for Envelope {
    fn from(row: Row) -> Self {
        Self {
            version: row.version,
            incarnation: row.incarnation,
            beat: row.beat,
            endpoint: row.endpoint,
            status: row.status,
        }
    }
}

impl From<Envelope> for Row {
    fn from(envelope: Envelope) -> Self {
        Self {
            version: envelope.version,
            incarnation: envelope.incarnation,
            beat: envelope.beat,
            endpoint: envelope.endpoint,
            rack: None,
            status: envelope.status,
            transactional_ids: Vec::new(),
            closed_for: 0,
            tasks: BTreeMap::new(),
            stores: BTreeMap::new(),
            restores: BTreeMap::new(),
        }
    }
}

/// A plan as far as this version can read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PlanRow {
    /// All of it.
    Known(Box<Plan>),
    /// It is of a newer version, and in force.
    Newer {
        /// Its version.
        version: u32,
        /// Its number.
        number: PlanNumber,
        /// Its generation, if it has one under this name.
        generation: Option<String>,
    },
}

impl PlanRow {
    /// Which generation it says it is of.
    #[must_use]
    pub fn generation(&self) -> Option<&str> {
        match self {
            Self::Known(plan) => Some(&plan.generation),
            Self::Newer { generation, .. } => generation.as_deref(),
        }
    }

    /// Reads a plan.
    ///
    /// # Errors
    /// When it is no plan of this version, and not one of a newer version either.
    pub fn read(json: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Envelope {
            version: u32,
            number: PlanNumber,
            generation: Option<String>,
        }
        let envelope: Envelope = serde_json::from_slice(json)?;
        if envelope.version > VERSION {
            return Ok(Self::Newer {
                version: envelope.version,
                number: envelope.number,
                generation: envelope.generation,
            });
        }
        serde_json::from_slice(json).map(|plan| Self::Known(Box::new(plan)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_newer_version_only_the_envelope_is_read() {
        let row =
            br#"{"version":2,"incarnation":"x","beat":7,"endpoint":"http://b","status":"present",
            "tasks":[{"partition":1,"as":"something new"}],"writers":{"a":1}}"#;
        let row = Row::read(row).unwrap();
        assert_eq!((row.version, row.beat, row.status), (2, 7, Status::Present));
        assert!(row.tasks.is_empty() && row.transactional_ids.is_empty());

        let plan = r#"{"version":2,"number":41,"tasks":"something new"}"#;
        let newer = |generation| PlanRow::Newer {
            version: 2,
            number: 41,
            generation,
        };
        assert_eq!(PlanRow::read(plan.as_bytes()).unwrap(), newer(None));
        let plan = plan.replace("\"tasks\"", "\"generation\":\"g\",\"tasks\"");
        let read = PlanRow::read(plan.as_bytes()).unwrap();
        assert_eq!(read, newer(Some("g".into())));
    }

    #[test]
    fn of_this_version_all_must_be_there() {
        let row =
            br#"{"version":1,"incarnation":"x","beat":7,"endpoint":"http://b","status":"present"}"#;
        assert!(Row::read(row).is_err());
        assert!(PlanRow::read(br#"{"version":1,"number":41}"#).is_err());
        assert!(PlanRow::read(b"nonsense").is_err());
    }

    #[test]
    fn what_a_row_says_of_restores_may_be_missing() {
        let json = r#"{"version":1,"incarnation":"x","beat":7,"endpoint":"http://b","rack":null,
            "status":"present","transactional_ids":[],"closed_for":0,"tasks":{},"stores":{}}"#;
        let mut row = Row::read(json.as_bytes()).unwrap();
        assert!(row.restores.is_empty());
        let restore = RestoreRow {
            remaining: Some(9),
            records_per_second: 3,
            seconds_left: None,
        };
        row.restores.insert(4, restore);
        let json = serde_json::to_vec(&row).unwrap();
        assert_eq!(Row::read(&json).unwrap(), row);
    }
}
