//! What an instance holds, and what it must do next to hold what the plan gives it: pure.
//!
//! Others carry the [`Action`]s out and report what came of them. The simulation in `sim` runs this
//! very code against a log that delays and members that freeze.

use std::collections::{BTreeMap, BTreeSet};

use super::{Cluster, PlanNumber, Role, Start, TaskRow};

/// How far a partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Its changelog is followed: as a standby, or warming up.
    Following,
    /// It shall run here. Former owners must close it or be fenced; its changelog is followed.
    Waiting,
    /// The last records of the changelog are read.
    Restoring,
    /// It is complete, and the worker is asked to open it.
    Opening,
    /// It processes.
    Running,
    /// The restorer is asked to give it up.
    Cancelling,
    /// The worker is asked to close it.
    Closing,
}

/// A partition that this instance has something of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The plan that made this instance its owner; 0 for a standby.
    pub since: PlanNumber,
    /// How far it is.
    pub phase: Phase,
}

/// Something to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Open the store of a partition and follow its changelog.
    Follow(u32),
    /// Bring a followed store to the end of the changelog, and report it restored.
    Restore(u32),
    /// Give up following or restoring, and report it cancelled.
    Cancel(u32),
    /// Commit what is under way, close the task, and report it closed.
    Close(u32),
    /// Fence a transactional id, and report it fenced with this plan.
    Fence(String, PlanNumber),
}

/// The partitions of an instance, and what it knows of its workers and fences.
#[derive(Debug)]
pub struct Holdings {
    workers: u32,
    held: BTreeMap<u32, Held>,
    /// Workers that take orders.
    ready: BTreeSet<u32>,
    /// The plan in force when an id was fenced by this process.
    fenced: BTreeMap<String, PlanNumber>,
    fencing: BTreeSet<String>,
    /// A producer was initialised, and the topics have not been read to their ends since.
    behind: bool,
}

impl Holdings {
    /// Holds nothing; `workers` workers are being started.
    #[must_use]
    pub fn new(workers: u32) -> Self {
        Self {
            workers,
            held: BTreeMap::new(),
            ready: BTreeSet::new(),
            fenced: BTreeMap::new(),
            fencing: BTreeSet::new(),
            behind: false,
        }
    }

    /// What is held.
    #[must_use]
    pub fn held(&self) -> &BTreeMap<u32, Held> {
        &self.held
    }

    /// Do all workers take orders?
    #[must_use]
    pub fn all_ready(&self) -> bool {
        self.ready.len() == self.workers as usize
    }

    /// Does no worker take orders? Then none has anything to commit.
    #[must_use]
    pub fn none_ready(&self) -> bool {
        self.ready.is_empty()
    }

    /// Must the membership topics be read to their ends before anything else is done?
    #[must_use]
    pub fn must_catch_up(&self) -> bool {
        self.behind
    }

    /// The membership topics were read to their ends.
    pub fn caught_up(&mut self) {
        self.behind = false;
    }

    /// Brings what is held in line with the plan in force.
    #[must_use]
    pub fn carry_out(&mut self, cluster: &Cluster) -> Vec<Action> {
        if self.behind {
            return Vec::new();
        }
        let roles = cluster.roles();
        let mut actions = Vec::new();
        for (partition, held) in &mut self.held {
            change(*partition, held, roles.get(partition), &mut actions);
        }
        for (partition, role) in roles {
            self.held.entry(partition).or_insert_with(|| {
                actions.push(Action::Follow(partition));
                held_as(role)
            });
        }
        self.begin(cluster, &mut actions);
        actions
    }

    /// Starts what waits and may start.
    fn begin(&mut self, cluster: &Cluster, actions: &mut Vec<Action>) {
        for (partition, held) in &mut self.held {
            let is_ready = self.ready.contains(&worker_of(*partition, self.workers));
            if held.phase != Phase::Waiting || !is_ready {
                continue;
            }
            match cluster.start(*partition, &self.fenced) {
                Start::Now => {
                    held.phase = Phase::Restoring;
                    actions.push(Action::Restore(*partition));
                }
                Start::Wait => {}
                Start::Fence(ids) => {
                    for id in ids {
                        if self.fencing.insert(id.clone()) {
                            actions.push(Action::Fence(id, cluster.plan_number()));
                        }
                    }
                }
            }
        }
    }

    /// A store is complete. `true`: its task is to be opened; otherwise it was given up meanwhile.
    #[must_use]
    pub fn on_restored(&mut self, partition: u32) -> bool {
        match self.held.get_mut(&partition) {
            Some(held) if held.phase == Phase::Restoring => {
                held.phase = Phase::Opening;
                true
            }
            _ => false,
        }
    }

    /// A store was given up.
    pub fn on_cancelled(&mut self, partition: u32) {
        self.held.remove(&partition);
    }

    /// A task processes.
    pub fn on_running(&mut self, partition: u32) {
        if let Some(held) = self.held.get_mut(&partition)
            && held.phase == Phase::Opening
        {
            held.phase = Phase::Running;
        }
    }

    /// A task was closed in order.
    pub fn on_closed(&mut self, partition: u32) {
        self.held.remove(&partition);
    }

    /// A transactional id was fenced, as asked for with `plan` in force.
    pub fn on_fenced(&mut self, id: String, plan: PlanNumber) {
        self.fencing.remove(&id);
        self.fenced.insert(id, plan);
    }

    /// The transactional ids that were fenced.
    pub fn fenced(&self) -> impl Iterator<Item = &String> {
        self.fenced.keys()
    }

    /// A worker takes orders. Whoever fenced its former producer did so for a plan that is written
    /// by now; it must be read before this producer, which is not fenced, is used.
    pub fn on_ready(&mut self, worker: u32) {
        self.ready.insert(worker);
        self.behind = true;
    }

    /// A worker has ended, and its tasks with it.
    #[must_use]
    pub fn on_worker_ended(&mut self, worker: u32) -> Vec<Action> {
        self.ready.remove(&worker);
        let workers = self.workers;
        let mut actions = Vec::new();
        self.held.retain(|partition, held| {
            if worker_of(*partition, workers) != worker {
                return true;
            }
            if held.phase == Phase::Restoring {
                held.phase = Phase::Cancelling;
                actions.push(Action::Cancel(*partition));
            }
            !held.writes()
        });
        actions
    }

    /// The plan up to which this instance has closed what others shall own, if it can tell: before
    /// its own ids are initialised, a former incarnation may still be writing.
    #[must_use]
    pub fn closed_for(&self, cluster: &Cluster) -> Option<PlanNumber> {
        let roles = cluster.roles();
        let closed = self.held.iter().all(|(partition, held)| {
            !held.writes() || roles.get(partition) == Some(&Role::Owner(held.since))
        });
        (closed && self.all_ready()).then(|| cluster.plan_number())
    }

    /// The tasks of which this instance is the owner, for its row.
    #[must_use]
    pub fn tasks(&self) -> BTreeMap<u32, TaskRow> {
        let owned = self.held.iter().filter(|(_, held)| held.since > 0);
        owned
            .map(|(partition, held)| {
                let running = held.phase == Phase::Running;
                let since = held.since;
                (*partition, TaskRow { since, running })
            })
            .collect()
    }
}

impl Held {
    /// May its worker write to the partition?
    #[must_use]
    pub fn writes(&self) -> bool {
        matches!(self.phase, Phase::Opening | Phase::Running | Phase::Closing)
    }
}

fn held_as(role: Role) -> Held {
    match role {
        Role::Owner(since) => Held {
            since,
            phase: Phase::Waiting,
        },
        Role::Follower => Held {
            since: 0,
            phase: Phase::Following,
        },
    }
}

/// One step from what is held towards what the plan wants; the steps after follow when this one has
/// been reported done.
fn change(partition: u32, held: &mut Held, role: Option<&Role>, actions: &mut Vec<Action>) {
    let fits = role == Some(&Role::Owner(held.since));
    match held.phase {
        Phase::Following | Phase::Waiting => match role {
            Some(role) if *held != held_as(*role) => *held = held_as(*role),
            Some(_) => {}
            None => {
                held.phase = Phase::Cancelling;
                actions.push(Action::Cancel(partition));
            }
        },
        Phase::Restoring if !fits => {
            held.phase = Phase::Cancelling;
            actions.push(Action::Cancel(partition));
        }
        Phase::Opening | Phase::Running if !fits => {
            held.phase = Phase::Closing;
            actions.push(Action::Close(partition));
        }
        _ => {}
    }
}

/// Which worker processes which partition: the partition modulo their count.
#[must_use]
pub fn worker_of(partition: u32, workers: u32) -> u32 {
    partition % workers.max(1)
}
