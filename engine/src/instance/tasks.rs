//! Carrying out the plan: turning [`Action`]s into orders, and reports into what is held.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, atomic::Ordering},
    thread,
    time::Instant,
};

use tokio::sync::watch;

use super::{
    Happening,
    conductor::{Conductor, RESTART_AFTER, read, write},
};
use crate::{
    membership::{
        PlanNumber, RestoreRow,
        holdings::{Action, Held, worker_of},
        link,
    },
    processor::Processor,
    query::LocalTask,
    restore::{Done, Job, Phase, Standing},
    worker::{Order, Report},
};

impl<P: Processor> Conductor<P> {
    /// Brings what this instance holds in line with the plan in force, and tells the others.
    pub(super) fn carry_out(&mut self) {
        if self.generation.is_none()
            && let Some(plan) = self.cluster.plan()
        {
            self.generation = Some(plan.generation.clone());
            self.restore(Job::Generation(plan.generation.clone()));
        }
        for action in self.holdings.carry_out(&self.cluster) {
            self.act(action);
        }
        let tasks = self.holdings.tasks();
        let closed_for = self.holdings.closed_for(&self.cluster);
        if let Some(beats) = &self.beats {
            beats.update(|row| {
                row.tasks = tasks;
                row.closed_for = closed_for.unwrap_or(row.closed_for);
            });
        }
    }

    /// How far the stores are, those of tasks and the others: goes out with the next beat.
    pub(super) fn tell_positions(&self) {
        let others = self.stores.all();
        let restores = others.iter();
        let restores = restores
            .filter_map(|(partition, standing)| Some((*partition, restore(standing)?)))
            .collect();
        let mut positions: BTreeMap<u32, i64> = others
            .into_iter()
            .map(|(partition, standing)| (partition, standing.position))
            .collect();
        for task in read(&self.tasks).values() {
            // A store that cannot be read is found by its task.
            if let Ok(position) = task.store.position() {
                positions.insert(task.partition, position);
            }
        }
        if let Some(beats) = &self.beats {
            beats.tell(|row| {
                row.stores = positions;
                row.restores = restores;
            });
        }
    }

    fn act(&mut self, action: Action) {
        tracing::debug!(?action, plan = ?self.cluster.plan_number(), "holding");
        match action {
            Action::Follow(partition) => self.restore(Job::Follow(partition)),
            Action::Restore(partition) => self.restore(Job::Restore(partition)),
            Action::Cancel(partition) => self.restore(Job::Cancel(partition)),
            Action::Close(partition) => {
                self.hide(partition);
                self.order(partition, Order::Close(partition));
            }
            Action::Fence(id, plan) => self.fence(id, plan),
        }
    }

    fn restore(&self, job: Job) {
        // The restorer ends only when this sender is dropped.
        drop(self.restorer.send(job));
    }

    fn fence(&mut self, id: String, plan: PlanNumber) {
        let kafka = self.settings.kafka.clone();
        let report = self.happenings.clone();
        let stopping = Arc::clone(&self.stopping);
        let spawned = thread::Builder::new().name("fence".into()).spawn(move || {
            link::fence(&kafka, &id, || !stopping.load(Ordering::Acquire));
            drop(report.send(Happening::Fenced(id, plan)));
        });
        if let Err(error) = spawned {
            self.failed = Some(error.into());
        }
    }

    /// Whoever has left a transaction open had one of this instance's ids, or one that was fenced.
    fn sweep(&mut self, partition: u32) {
        self.order(partition, Order::Sweep(partition));
        let ids: Vec<String> = self.holdings.fenced().cloned().collect();
        let kafka = self.settings.kafka.clone();
        let names = self.settings.names.clone();
        let group = self.settings.application_id.clone();
        let sweeping = Arc::clone(&self.sweeping);
        let spawned = thread::Builder::new().name("sweep".into()).spawn(move || {
            let _alone = sweeping.lock().unwrap_or_else(PoisonError::into_inner);
            for id in ids {
                link::sweep(&kafka, &id, &names, &group, partition);
            }
        });
        if let Err(error) = spawned {
            self.failed = Some(error.into());
        }
    }

    fn order(&self, partition: u32, order: Order) {
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
            } => {
                // Given up meanwhile: `Cancelled` follows.
                if !self.holdings.on_restored(partition) {
                    return;
                }
                let (applied, receiver) = watch::channel(offset);
                write(&self.applied).insert(partition, applied);
                let task = LocalTask {
                    partition,
                    store: Arc::clone(&store),
                    applied: receiver,
                };
                write(&self.tasks).insert(partition, task);
                let order = Order::Open {
                    partition,
                    store,
                    offset,
                };
                self.order(partition, order);
            }
            Done::LeftOpen(partition) => self.sweep(partition),
            Done::Cancelled(partition) => self.holdings.on_cancelled(partition),
            Done::Failed(partition, error) => {
                self.failed =
                    Some(anyhow::Error::new(error).context(format!("partition {partition}")));
            }
        }
    }

    pub(super) fn on_worker(&mut self, number: u32, report: Report) {
        match report {
            Report::Ready => {
                tracing::debug!(worker = number, "ready");
                self.holdings.on_ready(number);
            }
            Report::Running(partition) => self.holdings.on_running(partition),
            Report::Closed(partition) => self.holdings.on_closed(partition),
            Report::Failed(why) => {
                self.workers.remove(&number);
                self.failed = Some(anyhow::anyhow!(why));
            }
            Report::Ended(why) => {
                let why = why.unwrap_or_default();
                tracing::warn!(worker = number, why, "worker ended: its tasks start again");
                self.workers.remove(&number);
                self.watchdog.forget(&format!("worker {number}"));
                self.watchdog.forget(&format!("committer {number}"));
                for action in self.holdings.on_worker_ended(number) {
                    self.act(action);
                }
                self.hide_what_does_not_run();
                self.restart.insert(number, Instant::now() + RESTART_AFTER);
            }
        }
    }

    /// Queries no longer find the task here.
    fn hide(&self, partition: u32) {
        write(&self.tasks).remove(&partition);
        write(&self.applied).remove(&partition);
    }

    fn hide_what_does_not_run(&self) {
        let held = self.holdings.held();
        let runs = |partition: &u32| held.get(partition).is_some_and(Held::writes);
        write(&self.tasks).retain(|partition, _| runs(partition));
        write(&self.applied).retain(|partition, _| runs(partition));
    }
}

/// What others may know of a store that is not complete. One with nothing left to read may still wait for
/// the end of a transaction: whoever looks for what does not come to an end finds it.
fn restore(standing: &Standing) -> Option<RestoreRow> {
    let remaining = standing.lag();
    let complete = match standing.phase {
        Phase::Idle => true,
        Phase::Following => remaining == Some(0),
        Phase::Restoring => false,
    };
    (!complete).then_some(RestoreRow {
        remaining,
        records_per_second: standing.rate,
        seconds_left: standing.seconds_left,
    })
}
