//! What the rest of a process may ask of the engine: committed rows, who owns what, how far it is.

use std::{
    collections::BTreeMap,
    sync::{Arc, RwLock},
};

use common::partitioner::partition_of;
use serde::Serialize;
use tokio::sync::watch;

use crate::{
    membership::{InstanceId, PlanNumber, RestoreRow},
    restore::Standing,
    store::Store,
};

/// A running task of this instance.
#[derive(Clone)]
pub struct LocalTask {
    /// Its partition.
    pub partition: u32,
    /// Its committed rows.
    pub store: Arc<Store>,
    /// The source offset after the last record that is committed and can be read.
    pub applied: watch::Receiver<i64>,
}

/// The cluster as this instance sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct View {
    /// This instance.
    pub instance: InstanceId,
    /// The application.
    pub application_id: String,
    /// Number of the plan in force; 0 before the first.
    pub plan: PlanNumber,
    /// Who made it.
    pub leader: Option<InstanceId>,
    /// Partitions of the source topic.
    pub partitions: u32,
    /// Every known instance.
    pub instances: Vec<InstanceView>,
    /// Every partition.
    pub tasks: Vec<TaskView>,
    /// The stores of this instance that no task has: standbys, and what is being restored.
    pub stores: BTreeMap<u32, Standing>,
    /// Consumers that have joined the application's group, which nobody should.
    pub strangers: Vec<String>,
    /// Which of this instance's threads is stuck; it is about to end then.
    pub stuck: Option<String>,
    /// Why this instance does not process everything that it should; `None` if it does.
    pub not_ready: Option<String>,
}

/// An instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InstanceView {
    /// Its id.
    pub id: InstanceId,
    /// Where it answers.
    pub endpoint: String,
    /// Its label.
    pub rack: Option<String>,
    /// Is it here, as far as the log tells?
    pub present: bool,
    /// Its stores that are not complete, by partition, as of its last beat.
    pub restores: BTreeMap<u32, RestoreRow>,
}

/// A partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TaskView {
    /// Its number.
    pub partition: u32,
    /// Who should own it.
    pub owner: Option<InstanceId>,
    /// Does the owner process it already?
    pub running: bool,
    /// Who follows it, to take over.
    pub standbys: Vec<StandbyView>,
    /// Who will own it once it has caught up.
    pub warming_up: Option<StandbyView>,
}

/// Who follows a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StandbyView {
    /// The instance.
    pub instance: InstanceId,
    /// How many changelog records its store lacks, as of the last beats; `None` before it has told.
    pub lag: Option<i64>,
}

/// Where an object is to be asked for.
pub enum Route {
    /// Here.
    Local(LocalTask),
    /// At another instance.
    Remote {
        /// Which.
        instance: InstanceId,
        /// Its endpoint.
        endpoint: String,
    },
    /// Nowhere at the moment.
    Nowhere(String),
}

/// Answers for a running engine. Cheap to clone.
#[derive(Clone)]
pub struct Query {
    pub(crate) view: watch::Receiver<View>,
    pub(crate) tasks: Arc<RwLock<BTreeMap<u32, LocalTask>>>,
}

impl Query {
    /// The cluster as this instance sees it, now and whenever it changes.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<View> {
        self.view.clone()
    }

    /// This instance's running tasks.
    #[must_use]
    pub fn local_tasks(&self) -> Vec<LocalTask> {
        let tasks = self
            .tasks
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        tasks.values().cloned().collect()
    }

    /// The partition of `key`; `None` before the engine knows how many there are.
    #[must_use]
    pub fn partition(&self, key: &[u8]) -> Option<u32> {
        let partitions = self.view.borrow().partitions;
        (partitions > 0).then(|| partition_of(key, partitions))
    }

    /// Where to ask for `key`.
    #[must_use]
    pub fn route(&self, key: &[u8]) -> Route {
        match self.partition(key) {
            Some(partition) => self.route_partition(partition),
            None => Route::Nowhere("this instance is still starting".into()),
        }
    }

    /// Where to ask for what is on `partition`.
    #[must_use]
    pub fn route_partition(&self, partition: u32) -> Route {
        let local = self
            .tasks
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .get(&partition)
            .cloned();
        if let Some(task) = local {
            return Route::Local(task);
        }
        let view = self.view.borrow();
        let owner = view
            .tasks
            .get(partition as usize)
            .and_then(|t| t.owner.clone());
        let Some(owner) = owner else {
            return Route::Nowhere(format!("partition {partition} has no owner yet"));
        };
        if owner == view.instance {
            return Route::Nowhere(format!("partition {partition} is being restored here"));
        }
        match view.instances.iter().find(|i| i.id == owner) {
            Some(instance) if instance.present => Route::Remote {
                instance: owner,
                endpoint: instance.endpoint.clone(),
            },
            _ => Route::Nowhere(format!(
                "instance {owner}, the owner of partition {partition}, is silent"
            )),
        }
    }
}
