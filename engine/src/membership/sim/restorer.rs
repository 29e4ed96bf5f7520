//! The restorer: follows changelogs, and hands over what is complete.

use std::collections::{BTreeMap, VecDeque};

use super::{
    Sabotage,
    event::{Event, Step},
    process::{Happening, Process},
    worker::Task,
    world::World,
};

#[derive(Debug, Clone, Copy)]
pub(super) enum Job {
    Follow(u32),
    Restore(u32),
    Cancel(u32),
}

#[derive(Debug, Clone, Copy)]
enum Progress {
    Following,
    /// Up to this end of the changelog, once every transaction on it is resolved.
    Restoring(Option<i64>),
}

#[derive(Default)]
pub(super) struct Restorer {
    jobs: VecDeque<Job>,
    active: BTreeMap<u32, Progress>,
    busy: bool,
}

impl Restorer {
    pub(super) fn follows(&self, partition: u32) -> bool {
        matches!(self.active.get(&partition), Some(Progress::Following))
    }
}

impl World {
    pub(super) fn order_restorer(&mut self, p: &mut Process, job: Job) {
        p.restorer.jobs.push_back(job);
        self.restorer_soon(p);
    }

    fn restorer_soon(&mut self, p: &mut Process) {
        if !p.restorer.busy {
            p.restorer.busy = true;
            let delay = self.random.within(1..=self.swarm.restore);
            self.schedule(delay, Event::Step(p.machine, p.number, Step::Restorer));
        }
    }

    pub(super) fn restorer_step(&mut self, p: &mut Process) {
        p.restorer.busy = false;
        match p.restorer.jobs.pop_front() {
            Some(Job::Follow(partition)) => {
                p.restorer.active.insert(partition, Progress::Following);
                self.machines[p.machine]
                    .stores
                    .entry(partition)
                    .or_default();
            }
            Some(Job::Restore(partition)) => {
                let restoring = Progress::Restoring(None);
                p.restorer.active.insert(partition, restoring);
            }
            Some(Job::Cancel(partition)) => {
                p.restorer.active.remove(&partition);
                self.report(p, Happening::Cancelled(partition));
            }
            None if !self.machines[p.machine].cut => self.restore(p),
            None => {}
        }
        let mut active = p.restorer.active.values();
        let restoring = active.any(|progress| matches!(progress, Progress::Restoring(_)));
        if restoring || !p.restorer.jobs.is_empty() {
            self.restorer_soon(p);
        }
    }

    fn restore(&mut self, p: &mut Process) {
        let hasty = self.sabotage == Some(Sabotage::RestoresAmidTransactions);
        let mut complete = Vec::new();
        for (number, progress) in &mut p.restorer.active {
            let Progress::Restoring(end) = progress else {
                continue;
            };
            let partition = &self.kafka.partitions[*number as usize];
            match *end {
                None if partition.open == 0 || hasty => *end = Some(partition.changelog),
                None => {}
                Some(changelog) => complete.push((*number, Task { changelog })),
            }
        }
        for (partition, task) in complete {
            p.restorer.active.remove(&partition);
            let stores = &mut self.machines[p.machine].stores;
            stores.insert(partition, task.changelog);
            self.report(p, Happening::Restored(partition, task));
        }
    }

    /// What is followed has come closer to its end since the last beat.
    pub(super) fn follow(&mut self, p: &mut Process) {
        if self.machines[p.machine].cut {
            return;
        }
        for (number, progress) in &p.restorer.active {
            let store = self.machines[p.machine].stores.entry(*number).or_default();
            let missing = self.kafka.partitions[*number as usize].changelog - *store;
            if matches!(progress, Progress::Following) && missing > 0 {
                let missing = u64::try_from(missing).unwrap();
                *store += i64::try_from(self.random.within(missing / 2..=missing)).unwrap();
            }
        }
    }
}
