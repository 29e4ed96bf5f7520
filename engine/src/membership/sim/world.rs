//! Virtual time, the queue of events, and the network between the machines and Kafka.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
};

use super::{
    Sabotage,
    event::{Caller, Event, Queued, Sender, Step, name_of},
    faults::Swarm,
    goal::Healthy,
    kafka::{Answer, Kafka, Request},
    process::Process,
    random::Random,
};

/// Lines of the trace that are kept.
const TRACE: usize = 250;

/// Where a process runs: what survives its death.
#[derive(Default)]
pub(super) struct Machine {
    pub(super) process: Option<Box<Process>>,
    /// Processes that there have been.
    pub(super) processes: u32,
    /// Changelog positions of the stores on its disk.
    pub(super) stores: BTreeMap<u32, i64>,
    pub(super) frozen: bool,
    pub(super) cut: bool,
    /// Its readers of the membership topics get nothing; everything else works.
    pub(super) deaf: bool,
    /// No further process will be started.
    pub(super) gone: bool,
    parked: Vec<Event>,
}

/// What a schedule did, to see that the faults bite.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Tally {
    pub(super) events: usize,
    pub(super) commits: usize,
    pub(super) fenced: usize,
    pub(super) plans: usize,
    pub(super) moves: usize,
    /// Time from the end of the faults until everything ran.
    pub(super) recovery_ms: u64,
    pub(super) plans_after: usize,
}

impl Tally {
    /// Sums, and the worst recovery.
    pub(super) fn add(&mut self, other: Self) {
        self.events += other.events;
        self.commits += other.commits;
        self.fenced += other.fenced;
        self.plans += other.plans;
        self.moves += other.moves;
        self.recovery_ms = self.recovery_ms.max(other.recovery_ms);
        self.plans_after = self.plans_after.max(other.plans_after);
    }
}

pub(super) struct World {
    pub(super) now: u64,
    pub(super) random: Random,
    pub(super) swarm: Swarm,
    pub(super) sabotage: Option<Sabotage>,
    pub(super) kafka: Kafka,
    pub(super) machines: Vec<Machine>,
    pub(super) violation: Option<String>,
    pub(super) tally: Tally,
    pub(super) healthy: Option<Healthy>,
    pub(super) done: bool,
    pub(super) was_gentle: bool,
    /// The machine that the last fault struck.
    pub(super) victim: usize,
    queue: BinaryHeap<Reverse<Queued>>,
    queued: u64,
    trace: Option<VecDeque<String>>,
}

impl World {
    pub(super) fn new(seed: u64, sabotage: Option<Sabotage>, traced: bool) -> Self {
        let mut random = Random::new(seed);
        let swarm = Swarm::draw(&mut random);
        let mut world = Self {
            now: 0,
            kafka: Kafka::new(swarm.partitions),
            was_gentle: swarm.is_gentle(),
            machines: (0..swarm.machines).map(|_| Machine::default()).collect(),
            random,
            swarm,
            sabotage,
            violation: None,
            tally: Tally::default(),
            healthy: None,
            done: false,
            victim: 0,
            queue: BinaryHeap::new(),
            queued: 0,
            trace: traced.then(VecDeque::new),
        };
        world.set_out();
        world
    }

    /// Lets everything happen, up to the end or the first violation.
    pub(super) fn run(&mut self) {
        while let Some(Reverse(queued)) = self.queue.pop() {
            self.now = queued.at;
            self.tally.events += 1;
            self.handle(queued.event);
            if self.violation.is_some() || self.done {
                return;
            }
        }
    }

    pub(super) fn trace(&self) -> String {
        let lines = self.trace.iter().flatten();
        lines.fold(String::new(), |all, line| all + line + "\n")
    }

    pub(super) fn is_traced(&self) -> bool {
        self.trace.is_some()
    }

    /// Remembers a line of the trace, if there is one.
    pub(super) fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            if trace.len() == TRACE {
                trace.pop_front();
            }
            trace.push_back(format!("{:>9} ms {}", self.now, line()));
        }
    }

    pub(super) fn schedule(&mut self, delay: u64, event: Event) {
        self.queued += 1;
        let queued = Queued {
            at: self.now + delay,
            number: self.queued,
            event,
        };
        self.queue.push(Reverse(queued));
    }

    fn latency(&mut self) -> u64 {
        let slow = self.random.one_in(self.swarm.slow_net);
        let most = if slow { 40 } else { 1 } * self.swarm.latency;
        self.random.within(1..=most)
    }

    pub(super) fn send(&mut self, p: &Process, caller: Caller, request: Request) {
        let delay = self.latency();
        self.send_after(delay, p, caller, request);
    }

    pub(super) fn send_after(&mut self, delay: u64, p: &Process, caller: Caller, request: Request) {
        let sender = Sender {
            machine: p.machine,
            process: p.number,
            caller,
        };
        self.schedule(delay, Event::Request(sender, request));
    }

    pub(super) fn answer(&mut self, to: Sender, answer: Answer) {
        let delay = self.latency();
        self.schedule(delay, Event::Answer(to, answer));
    }

    /// Something is there to be read: everybody's conductor will look.
    pub(super) fn wake_all(&mut self) {
        for machine in 0..self.machines.len() {
            let delay = self.latency();
            if let Some(mut process) = self.machines[machine].process.take() {
                self.wake(&mut process, delay);
                self.machines[machine].process = Some(process);
            }
        }
    }

    /// The conductor's next turn comes in `delay` at the latest.
    pub(super) fn wake(&mut self, p: &mut Process, delay: u64) {
        let at = self.now + delay;
        if p.turn_at.is_none_or(|turn| turn > at) {
            p.turn_at = Some(at);
            self.schedule(delay, Event::Step(p.machine, p.number, Step::Turn));
        }
    }

    fn handle(&mut self, event: Event) {
        let (machine, process, is_net) = match &event {
            Event::Request(from, _) => (from.machine, None, true),
            Event::Answer(to, _) => (to.machine, Some(to.process), true),
            Event::Step(machine, process, _) => (*machine, Some(*process), false),
            _ => return self.handle_here(event),
        };
        let at = &mut self.machines[machine];
        let lives = |number| at.process.as_ref().is_some_and(|p| p.number == number);
        if process.is_some_and(|number| !lives(number)) {
            return;
        }
        // A request that was sent goes its way, whatever becomes of its sender.
        if (process.is_some() && at.frozen) || (is_net && at.cut) {
            at.parked.push(event);
            return;
        }
        match event {
            Event::Request(from, request) => self.serve(from, request),
            Event::Answer(to, answer) => {
                self.with_process(machine, |world, p| world.on_answer(p, to.caller, answer));
            }
            Event::Step(_, _, step) => {
                self.with_process(machine, |world, p| world.step(p, step));
            }
            _ => {}
        }
    }

    fn handle_here(&mut self, event: Event) {
        match event {
            Event::Markers { id, offsets } => self.on_markers(&id, offsets),
            Event::Boot(machine) => self.boot(machine),
            Event::Thaw(machine) => {
                self.machines[machine].frozen = false;
                self.note(|| format!("{} thaws", name_of(machine)));
                self.unpark(machine);
            }
            Event::Heal(machine) => {
                self.machines[machine].cut = false;
                self.machines[machine].deaf = false;
                self.note(|| format!("{} reaches Kafka again", name_of(machine)));
                self.unpark(machine);
                self.wake_all();
            }
            Event::Fault => self.on_fault(),
            Event::Look => self.look(),
            Event::Request(..) | Event::Answer(..) | Event::Step(..) => {}
        }
    }

    fn unpark(&mut self, machine: usize) {
        for event in std::mem::take(&mut self.machines[machine].parked) {
            let delay = self.latency();
            self.schedule(delay, event);
        }
    }

    fn with_process(&mut self, machine: usize, act: impl FnOnce(&mut Self, &mut Process)) {
        let Some(mut process) = self.machines[machine].process.take() else {
            return;
        };
        act(self, &mut process);
        if process.ended {
            self.note(|| format!("{}#{} has ended", name_of(machine), process.number));
            self.boot_later(machine);
        } else {
            self.machines[machine].process = Some(process);
        }
    }
}
