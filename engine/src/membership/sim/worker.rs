//! A worker and its committer: tasks that commit with the epoch of one transactional id.

use std::collections::{BTreeMap, VecDeque};

use super::{
    Sabotage,
    event::{Caller, Event, Sender, Step, name_of},
    kafka::{Answer, Payload, Piece, Request},
    process::{Happening, Process},
    world::World,
};

/// Where a task stands: what it does next is made from the state at this position.
#[derive(Debug, Clone, Copy)]
pub(super) struct Task {
    pub(super) changelog: i64,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Order {
    Open(u32, Task),
    Close(u32),
}

pub(super) struct Worker {
    /// Which start of a worker of this process this is.
    pub(super) start: u32,
    pub(super) orders: VecDeque<Order>,
    /// Asked to commit, close everything and end.
    pub(super) dismissed: bool,
    pub(super) tasks: BTreeMap<u32, Task>,
    epoch: Option<u32>,
    under_way: Option<Vec<Piece>>,
    /// The last commit before closing is made.
    settled: bool,
    ended: bool,
    step_at: Option<u64>,
    /// When the next commit is due.
    cut_at: u64,
}

impl World {
    pub(super) fn start_worker(&mut self, p: &mut Process, number: u32) {
        p.starts += 1;
        let worker = Worker {
            start: p.starts,
            orders: VecDeque::new(),
            dismissed: false,
            tasks: BTreeMap::new(),
            epoch: None,
            under_way: None,
            settled: false,
            ended: false,
            step_at: None,
            cut_at: 0,
        };
        p.workers.insert(number, worker);
        let delay = self.random.within(1..=self.swarm.start);
        let caller = Caller::Worker(number, p.starts);
        self.send_after(delay, p, caller, Request::Init(id_of(p, number)));
    }

    /// The worker has something to do.
    pub(super) fn worker_soon(&mut self, p: &mut Process, number: u32, start: u32) {
        let delay = self.random.within(0..=10);
        self.worker_in(delay, p, number, start);
    }

    fn worker_in(&mut self, delay: u64, p: &mut Process, number: u32, start: u32) {
        let at = self.now + delay;
        if let Some(worker) = p.workers.get_mut(&number)
            && worker.step_at.is_none_or(|step| step > at)
        {
            worker.step_at = Some(at);
            let step = Step::Worker(number, start);
            self.schedule(delay, Event::Step(p.machine, p.number, step));
        }
    }

    pub(super) fn on_worker_step(&mut self, p: &mut Process, number: u32, start: u32) {
        let Some(mut worker) = p.workers.remove(&number) else {
            return;
        };
        let due = worker.step_at.is_some_and(|at| at <= self.now);
        if worker.start == start && due {
            worker.step_at = None;
            if !worker.ended && worker.epoch.is_some() {
                self.work(p, number, &mut worker);
            }
        }
        p.workers.insert(number, worker);
        if due {
            self.next_step(p, number);
        }
    }

    /// The next step comes with an order, or when a commit is due; while one is under way, with its
    /// answer.
    fn next_step(&mut self, p: &mut Process, number: u32) {
        let worker = &p.workers[&number];
        if worker.ended || worker.epoch.is_none() || worker.under_way.is_some() {
            return;
        }
        let delay = if worker.orders.is_empty() && !worker.dismissed {
            worker.cut_at.saturating_sub(self.now).max(1)
        } else {
            self.random.within(0..=10)
        };
        self.worker_in(delay, p, number, worker.start);
    }

    fn work(&mut self, p: &mut Process, number: u32, worker: &mut Worker) {
        while let Some(order) = worker.orders.front().copied() {
            match order {
                Order::Open(partition, task) => {
                    worker.tasks.insert(partition, task);
                    self.report(p, Happening::Running(partition));
                }
                Order::Close(partition) => {
                    let hasty = self.sabotage == Some(Sabotage::ClosesBeforeItsCommit);
                    if !hasty && !self.settle(p, number, worker) {
                        return;
                    }
                    worker.tasks.remove(&partition);
                    self.report(p, Happening::Closed(partition));
                }
            }
            worker.orders.pop_front();
        }
        if worker.dismissed {
            if self.settle(p, number, worker) {
                self.end_worker(p, number, worker, "in order");
            }
        } else if worker.under_way.is_none() && self.now >= worker.cut_at {
            self.cut(p, number, worker);
        }
    }

    /// Commits what is left; `true` when nothing is under way any more.
    fn settle(&mut self, p: &mut Process, number: u32, worker: &mut Worker) -> bool {
        if worker.under_way.is_none() && !worker.settled {
            worker.settled = true;
            self.cut(p, number, worker);
        }
        let settled = worker.under_way.is_none();
        if settled {
            worker.settled = false;
        }
        settled
    }

    /// Begins a transaction with what some of the tasks have done.
    fn cut(&mut self, p: &mut Process, number: u32, worker: &mut Worker) {
        let every = self.swarm.commit_every;
        worker.cut_at = self.now + self.random.within(every / 2..=every);
        let mut pieces = Vec::new();
        for (partition, task) in &worker.tasks {
            if !self.random.one_in(self.swarm.idle) {
                pieces.push(Piece {
                    partition: *partition,
                    changelog: task.changelog,
                });
            }
        }
        if let (Some(epoch), false) = (worker.epoch, pieces.is_empty()) {
            worker.under_way = Some(pieces.clone());
            let request = Request::Write(id_of(p, number), epoch, Payload::Tasks(pieces));
            self.send(p, Caller::Worker(number, worker.start), request);
        }
    }

    pub(super) fn on_worker_answer(
        &mut self,
        p: &mut Process,
        number: u32,
        start: u32,
        answer: Answer,
    ) {
        let Some(mut worker) = p.workers.remove(&number) else {
            return;
        };
        if worker.start == start && !worker.ended {
            self.worker_hears(p, number, &mut worker, answer);
        }
        p.workers.insert(number, worker);
        self.next_step(p, number);
    }

    fn worker_hears(&mut self, p: &mut Process, number: u32, worker: &mut Worker, answer: Answer) {
        let caller = Caller::Worker(number, worker.start);
        let id = id_of(p, number);
        match (answer, worker.epoch) {
            (Answer::Initialised(epoch), _) => {
                worker.epoch = Some(epoch);
                self.report(p, Happening::Ready(number));
            }
            (Answer::Concurrent, None) => self.send(p, caller, Request::Init(id)),
            (Answer::Concurrent, Some(epoch)) => {
                let pieces = worker.under_way.clone().unwrap_or_default();
                let request = Request::Write(id, epoch, Payload::Tasks(pieces));
                self.send(p, caller, request);
            }
            (Answer::Written, Some(epoch)) => {
                let commit = !self.random.one_in(self.swarm.abort);
                let request = Request::End(id, epoch, commit);
                if self.random.one_in(self.swarm.give_up) {
                    self.send(p, Caller::Nobody, request);
                    let sender = Sender {
                        machine: p.machine,
                        process: p.number,
                        caller,
                    };
                    self.answer(sender, Answer::Unknown);
                } else {
                    self.send(p, caller, request);
                }
            }
            (Answer::Committed, _) => {
                for piece in worker.under_way.take().into_iter().flatten() {
                    if let Some(task) = worker.tasks.get_mut(&piece.partition) {
                        task.changelog += 1;
                        let stores = &mut self.machines[p.machine].stores;
                        stores.insert(piece.partition, task.changelog);
                    }
                }
            }
            (Answer::Aborted, _) => worker.under_way = None,
            (Answer::Fenced, _) => self.end_worker(p, number, worker, "fenced"),
            _ => self.end_worker(p, number, worker, "its commit may have happened"),
        }
    }

    fn end_worker(&mut self, p: &mut Process, number: u32, worker: &mut Worker, why: &str) {
        self.note(|| format!("{} has ended: {why}", id_of(p, number)));
        worker.ended = true;
        worker.tasks.clear();
        self.report(p, Happening::Ended(number));
    }
}

fn id_of(p: &Process, number: u32) -> String {
    format!("{}-{number}", name_of(p.machine))
}
