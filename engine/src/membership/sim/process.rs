//! A process: the conductor's turns, as in `instance/conductor.rs`.

use std::collections::{BTreeMap, VecDeque};

use super::{
    Sabotage,
    beats::Beats,
    event::{Caller, Event, Step, name_of},
    kafka::{Answer, Request},
    restorer::Restorer,
    seat::{Lead, Seat},
    worker::{Task, Worker},
    world::World,
};
use crate::membership::{Cluster, PlanNumber, PlanRow, holdings::Holdings};

/// As in the conductor.
pub(super) const YIELD_THE_SEAT_FOR: u64 = 2_000;
pub(super) const RESTART_AFTER: u64 = 200;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// What a former incarnation announced is being read.
    Reading,
    Announcing,
    /// So many former ids are still to be fenced.
    Fencing(usize),
    Running,
    /// So many workers have not ended.
    Leaving(usize),
    /// The last row is on its way.
    Goodbye,
}

/// What the other threads report.
pub(super) enum Happening {
    Seated,
    Published(PlanNumber),
    Deposed,
    Fenced(String, PlanNumber),
    Restored(u32, Task),
    Cancelled(u32),
    Ready(u32),
    Running(u32),
    Closed(u32),
    Ended(u32),
}

/// Why the topics are read to their ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Boot,
    /// The plan of this number at least must be seen.
    Seat(PlanNumber),
    Producer,
}

pub(super) struct Process {
    pub(super) machine: usize,
    pub(super) number: u32,
    pub(super) workers_count: u32,
    pub(super) stage: Stage,
    pub(super) cluster: Cluster,
    pub(super) holdings: Holdings,
    /// How far the rows and the plans are read.
    pub(super) read: (usize, usize),
    /// Each topic has a reader of its own, and one may be late.
    pub(super) plans_stall_until: u64,
    /// The conductor does nothing else until both topics are read as far as this.
    pub(super) catching_up: Option<(Why, (usize, usize))>,
    pub(super) inbox: VecDeque<Happening>,
    pub(super) turn_at: Option<u64>,
    pub(super) beats: Beats,
    pub(super) lead: Lead,
    pub(super) deposed: Option<u64>,
    pub(super) seat: Seat,
    pub(super) workers: BTreeMap<u32, Worker>,
    pub(super) starts: u32,
    pub(super) restart: BTreeMap<u32, u64>,
    pub(super) restorer: Restorer,
    pub(super) stop: bool,
    pub(super) ended: bool,
}

impl World {
    pub(super) fn step(&mut self, p: &mut Process, step: Step) {
        match step {
            Step::Turn if p.turn_at.is_some_and(|at| at <= self.now) => {
                p.turn_at = None;
                self.turn(p);
            }
            // An earlier turn took its place.
            Step::Turn => {}
            Step::CaughtUp => self.caught_up(p),
            Step::Beat => self.beat_due(p),
            Step::Worker(number, start) => self.on_worker_step(p, number, start),
            Step::Restorer => self.restorer_step(p),
            Step::SeatTimeout(ask) => self.seat_timeout(p, ask),
            // Not closed in order: no row says so.
            Step::Deadline => p.ended = true,
        }
    }

    pub(super) fn on_answer(&mut self, p: &mut Process, caller: Caller, answer: Answer) {
        match caller {
            Caller::Beats => self.row_done(p),
            Caller::Seat(ask) => self.on_seat_answer(p, ask, answer),
            Caller::Worker(number, start) => self.on_worker_answer(p, number, start, answer),
            Caller::Fence(ref id, _) | Caller::Join(ref id) if answer == Answer::Concurrent => {
                let request = Request::Init(id.clone());
                self.send(p, caller, request);
            }
            Caller::Fence(id, plan) => {
                let plan = match self.sabotage {
                    Some(Sabotage::OldFenceIsEnough) => PlanNumber::MAX,
                    _ => plan,
                };
                self.report(p, Happening::Fenced(id, plan));
            }
            Caller::Join(_) => {
                if let Stage::Fencing(left) = &mut p.stage {
                    *left -= 1;
                    self.join_if_fenced(p);
                }
            }
            Caller::Nobody => {}
        }
    }

    /// A thread reports to the conductor.
    pub(super) fn report(&mut self, p: &mut Process, happening: Happening) {
        p.inbox.push_back(happening);
        let delay = self.random.within(0..=self.swarm.turn);
        self.wake(p, delay);
    }

    pub(super) fn catch_up(&mut self, p: &mut Process, why: Why) {
        p.catching_up = Some((why, self.kafka.ends()));
        let delay = self.random.within(2..=2 * self.swarm.latency);
        self.schedule(delay, Event::Step(p.machine, p.number, Step::CaughtUp));
    }

    fn caught_up(&mut self, p: &mut Process) {
        let Some((why, (rows, plans))) = p.catching_up else {
            return;
        };
        let at = &self.machines[p.machine];
        if at.cut || at.deaf {
            let delay = self.random.within(10..=100);
            self.schedule(delay, Event::Step(p.machine, p.number, Step::CaughtUp));
            return;
        }
        p.catching_up = None;
        // Whatever has been written since the call is seen or not.
        let takes_over = why == Why::Seat(0);
        if !takes_over || self.sabotage != Some(Sabotage::NewLeaderReadsNothing) {
            self.read(p, rows, plans);
        }
        if let Why::Seat(plan) = why
            && p.cluster.plan_number() < plan
            && self.sabotage != Some(Sabotage::LeaderMissesItsPlan)
        {
            // The end for readers of committed records was before the plan: its marker is not
            // written yet, though its commit was answered.
            return self.catch_up(p, why);
        }
        self.note(|| format!("{}#{} has caught up: {why:?}", name_of(p.machine), p.number));
        match why {
            Why::Boot => {
                p.stage = Stage::Announcing;
                self.beat_due(p);
                if self.sabotage == Some(Sabotage::WorksUnannounced) {
                    let row = p.beats.row.clone();
                    p.cluster.on_row(name_of(p.machine), Some(row));
                    self.join(p);
                }
            }
            Why::Seat(_) => {
                p.lead = Lead::Yes;
                self.go_on(p);
            }
            Why::Producer => {
                p.holdings.caught_up();
                self.act_on_it(p);
            }
        }
    }

    fn read(&mut self, p: &mut Process, rows: usize, plans: usize) {
        while p.read.0 < rows {
            if let Some((machine, row)) = self.kafka.row(p.read.0) {
                p.cluster.on_row(name_of(*machine), Some(row.clone()));
            }
            p.read.0 += 1;
        }
        while p.read.1 < plans {
            if let Some(plan) = self.kafka.plan(p.read.1) {
                let plan = Box::new(plan.clone());
                p.cluster.on_plan(PlanRow::Known(plan));
            }
            p.read.1 += 1;
        }
    }

    /// Reads what there is, or some of it.
    fn listen(&mut self, p: &mut Process) {
        let at = &self.machines[p.machine];
        if at.cut || at.deaf {
            return;
        }
        let (mut rows, mut plans) = self.kafka.ends();
        if self.random.one_in(self.swarm.partial_reads) {
            rows -= self.random.index(rows - p.read.0 + 1);
            let delay = self.random.within(1..=self.swarm.lag);
            p.plans_stall_until = self.now + delay;
            self.wake(p, delay);
        }
        if self.now < p.plans_stall_until {
            plans = p.read.1;
        }
        self.read(p, rows, plans);
    }

    fn turn(&mut self, p: &mut Process) {
        if p.catching_up.is_some() {
            return;
        }
        match p.stage {
            Stage::Announcing => {
                self.listen(p);
                if p.cluster.is_announced() {
                    self.join(p);
                }
            }
            Stage::Running => {
                self.listen(p);
                self.go_on(p);
            }
            Stage::Leaving(_) => self.leave_on(p),
            Stage::Reading | Stage::Fencing(_) | Stage::Goodbye => {}
        }
    }

    /// The rest of the conductor's round, after listening.
    fn go_on(&mut self, p: &mut Process) {
        while let Some(happening) = p.inbox.pop_front() {
            match happening {
                Happening::Seated => return self.catch_up(p, Why::Seat(0)),
                Happening::Published(plan) => return self.catch_up(p, Why::Seat(plan)),
                Happening::Deposed => {
                    p.lead = Lead::No;
                    p.deposed = Some(self.now);
                    self.wake(p, YIELD_THE_SEAT_FOR);
                }
                happening => self.hear(p, happening),
            }
        }
        if p.stop {
            return self.leave(p);
        }
        if p.holdings.must_catch_up() {
            if self.sabotage != Some(Sabotage::NewProducerReadsNothing) {
                return self.catch_up(p, Why::Producer);
            }
            p.holdings.caught_up();
        }
        self.act_on_it(p);
    }

    fn act_on_it(&mut self, p: &mut Process) {
        let now = self.now;
        let due: Vec<u32> = p
            .restart
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(w, _)| *w)
            .collect();
        for number in due {
            p.restart.remove(&number);
            self.start_worker(p, number);
        }
        self.lead(p);
        for action in p.holdings.carry_out(&p.cluster) {
            self.act(p, action);
        }
        let tasks = p.holdings.tasks();
        let mut closed_for = p.holdings.closed_for(&p.cluster);
        if self.sabotage == Some(Sabotage::ClosedAtOnce) {
            closed_for = Some(p.cluster.plan_number());
        }
        self.update_row(p, |row| {
            row.tasks = tasks;
            row.closed_for = closed_for.unwrap_or(row.closed_for);
        });
        if !p.inbox.is_empty() {
            self.wake(p, 1);
        }
    }
}
