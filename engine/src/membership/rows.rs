//! The rows of the membership topics, as JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Name of an instance; survives a restart.
pub type InstanceId = String;
/// Number of a plan; grows.
pub type PlanNumber = u64;

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
    /// What it has.
    pub tasks: BTreeMap<u32, TaskRow>,
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
    /// Who should own it; nobody when no member is present.
    pub owner: Option<InstanceId>,
    /// The plan that gave it to this owner.
    pub since: PlanNumber,
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
}
