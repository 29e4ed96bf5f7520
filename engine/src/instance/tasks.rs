//! Carrying out the plan: which tasks this instance starts, which it closes, and what it says of them.

use std::{collections::BTreeMap, sync::Arc, thread, time::Instant};

use tokio::sync::watch;

use super::{
    Happening,
    conductor::{Conductor, Held, Phase, RESTART_AFTER, write},
};
use crate::{
    membership::{PlanNumber, Start, TaskRow, link},
    processor::Processor,
    query::LocalTask,
    restore::{Done, Job},
    worker::{Order, Report, worker_of},
};

impl<P: Processor> Conductor<P> {
    /// Brings what this instance holds in line with the plan in force.
    pub(super) fn carry_out(&mut self) {
        let Some(plan) = self.cluster.plan().map(|plan| plan.number) else {
            return;
        };
        let mine = self.cluster.mine();
        let held: Vec<u32> = self.held.keys().copied().collect();
        for partition in held {
            let since = self.held.get(&partition).map(|held| held.since);
            if mine.get(&partition).copied() != since {
                self.close(partition);
            }
        }
        for (partition, since) in &mine {
            let worker = worker_of(*partition, self.settings.workers);
            if self.ready.contains(&worker) && !self.held.contains_key(partition) {
                let held = Held {
                    since: *since,
                    phase: Phase::Waiting,
                };
                self.held.insert(*partition, held);
            }
        }
        self.begin_waiting();
        self.tell(plan, &mine);
    }

    fn close(&mut self, partition: u32) {
        let Some(held) = self.held.get_mut(&partition) else {
            return;
        };
        match held.phase {
            Phase::Waiting => drop(self.held.remove(&partition)),
            Phase::Restoring => {
                held.phase = Phase::Cancelling;
                drop(self.restorer.send(Job::Cancel(partition)));
            }
            Phase::Opening | Phase::Running => {
                held.phase = Phase::Closing;
                self.hide(partition);
                self.order(partition, Order::Close(partition));
            }
            Phase::Cancelling | Phase::Closing => {}
        }
    }

    fn begin_waiting(&mut self) {
        let plan = self.cluster.plan().map_or(0, |plan| plan.number);
        let waiting: Vec<u32> = self
            .held
            .iter()
            .filter(|(_, held)| held.phase == Phase::Waiting)
            .map(|(partition, _)| *partition)
            .collect();
        for partition in waiting {
            match self.cluster.start(partition, &self.fenced) {
                Start::Now => {
                    if let Some(held) = self.held.get_mut(&partition) {
                        held.phase = Phase::Restoring;
                    }
                    drop(self.restorer.send(Job::Restore(partition)));
                }
                Start::Wait => {}
                Start::Fence(ids) => {
                    for id in ids {
                        self.fence(id, plan);
                    }
                }
            }
        }
    }

    fn fence(&mut self, id: String, plan: PlanNumber) {
        if !self.fencing.insert(id.clone()) {
            return;
        }
        let kafka = self.settings.kafka.clone();
        let report = self.happenings.clone();
        let spawned = thread::Builder::new().name("fence".into()).spawn(move || {
            link::fence(&kafka, &id);
            drop(report.send(Happening::Fenced(id, plan)));
        });
        if let Err(error) = spawned {
            self.failed = Some(error.into());
        }
    }

    /// Writes what this instance holds into its row, and which plan it has closed for.
    fn tell(&self, plan: PlanNumber, mine: &BTreeMap<u32, PlanNumber>) {
        let all_closed = self
            .held
            .iter()
            .all(|(partition, held)| mine.get(partition) == Some(&held.since));
        // Before its own ids are initialised, a former incarnation may still be writing.
        let initialised = self.ready.len() == self.settings.workers as usize;
        let tasks: BTreeMap<u32, TaskRow> = self
            .held
            .iter()
            .map(|(partition, held)| {
                let running = held.phase == Phase::Running;
                let since = held.since;
                (*partition, TaskRow { since, running })
            })
            .collect();
        if let Some(beats) = &self.beats {
            beats.update(|row| {
                row.tasks = tasks;
                if all_closed && initialised {
                    row.closed_for = plan;
                }
            });
        }
    }

    fn order(&mut self, partition: u32, order: Order) {
        let worker = worker_of(partition, self.settings.workers);
        if let Some(orders) = self.workers.get(&worker) {
            // If the worker has ended, its last report is on its way.
            drop(orders.send(order));
        }
    }

    pub(super) fn on_restore(&mut self, done: Done) {
        match done {
            Done::Restored {
                partition,
                store,
                offset,
            } => match self.held.get_mut(&partition) {
                Some(held) if held.phase == Phase::Restoring => {
                    held.phase = Phase::Opening;
                    let (applied, receiver) = watch::channel(offset);
                    write(&self.applied).insert(partition, applied);
                    let task = LocalTask {
                        partition,
                        store: Arc::clone(&store),
                        applied: receiver,
                    };
                    write(&self.tasks).insert(partition, task);
                    self.order(
                        partition,
                        Order::Open {
                            partition,
                            store,
                            offset,
                        },
                    );
                }
                // Cancelled meanwhile: `Cancelled` follows.
                _ => drop(store),
            },
            Done::Cancelled(partition) => drop(self.held.remove(&partition)),
            Done::Failed(partition, error) => {
                self.failed =
                    Some(anyhow::Error::new(error).context(format!("partition {partition}")));
            }
        }
    }

    pub(super) fn on_worker(&mut self, number: u32, report: Report) {
        match report {
            Report::Ready => {
                self.ready.insert(number);
                // Whoever fenced the former producer did so for a plan that is written by now, and
                // that must be read before this producer, which is not fenced, is used.
                self.catch_up = true;
            }
            Report::Running(partition) => {
                if let Some(held) = self.held.get_mut(&partition)
                    && held.phase == Phase::Opening
                {
                    held.phase = Phase::Running;
                }
            }
            Report::Closed(partition) => drop(self.held.remove(&partition)),
            Report::Ended(why) => {
                let why = why.unwrap_or_default();
                tracing::warn!(worker = number, why, "worker ended: its tasks start again");
                self.lose_worker(number);
                self.restart.insert(number, Instant::now() + RESTART_AFTER);
            }
        }
    }

    fn lose_worker(&mut self, number: u32) {
        self.ready.remove(&number);
        self.workers.remove(&number);
        let workers = self.settings.workers;
        let lost: Vec<u32> = self
            .held
            .keys()
            .copied()
            .filter(|partition| worker_of(*partition, workers) == number)
            .collect();
        for partition in lost {
            self.hide(partition);
            match self.held.get_mut(&partition) {
                Some(held) if held.phase == Phase::Restoring => {
                    held.phase = Phase::Cancelling;
                    drop(self.restorer.send(Job::Cancel(partition)));
                }
                // `Cancelled` follows.
                Some(held) if held.phase == Phase::Cancelling => {}
                _ => drop(self.held.remove(&partition)),
            }
        }
    }

    /// Queries no longer find the task here.
    fn hide(&self, partition: u32) {
        write(&self.tasks).remove(&partition);
        write(&self.applied).remove(&partition);
    }
}
