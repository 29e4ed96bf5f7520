//! A process from its start to its end.

use std::collections::{BTreeMap, VecDeque};

use super::{
    Sabotage,
    beats::Beats,
    event::{Caller, Event, Step, name_of},
    kafka::Request,
    process::{Happening, Process, Stage, Why},
    restorer::Restorer,
    seat::{Lead, Seat},
    world::World,
};
use crate::membership::{Cluster, Row, Rules, Status, VERSION, holdings::Holdings};

const STOP_WITHIN: u64 = 10_000;

impl World {
    pub(super) fn boot(&mut self, machine: usize) {
        if self.random.one_in(self.swarm.compact) {
            self.note(|| "both topics are compacted".to_owned());
            let newest = self.random.index(5) + 1;
            self.kafka.compact(newest);
        }
        let at = &mut self.machines[machine];
        at.processes += 1;
        let number = at.processes;
        let name = name_of(machine);
        let workers_count = match self.swarm.other_workers {
            true => u32::try_from(self.random.within(1..=3)).unwrap(),
            false => self.swarm.workers,
        };
        let incarnation = format!("{name}#{number}");
        self.note(|| format!("{incarnation} starts with {workers_count} workers"));
        let row = Row {
            version: VERSION,
            incarnation: incarnation.clone(),
            beat: 0,
            endpoint: String::new(),
            rack: None,
            status: Status::Present,
            transactional_ids: (0..workers_count).map(|w| format!("{name}-{w}")).collect(),
            closed_for: 0,
            tasks: BTreeMap::new(),
            stores: BTreeMap::new(),
            restores: BTreeMap::new(),
        };
        let rules = Rules {
            standbys: self.swarm.standbys,
            acceptable_lag: self.swarm.acceptable_lag,
        };
        let mut process = Box::new(Process {
            machine,
            number,
            workers_count,
            stage: Stage::Reading,
            cluster: Cluster::new(name, &incarnation, rules, self.swarm.grace_beats),
            holdings: Holdings::new(workers_count),
            read: (0, 0),
            plans_stall_until: 0,
            catching_up: None,
            inbox: VecDeque::new(),
            turn_at: None,
            beats: Beats::new(row),
            lead: Lead::No,
            deposed: None,
            seat: Seat::default(),
            workers: BTreeMap::new(),
            starts: 0,
            restart: BTreeMap::new(),
            restorer: Restorer::default(),
            stop: false,
            ended: false,
        });
        self.catch_up(&mut process, Why::Boot);
        self.machines[machine].process = Some(process);
    }

    pub(super) fn join(&mut self, p: &mut Process) {
        let own = &p.beats.row.transactional_ids;
        let former = p.cluster.former_ids().iter();
        let mut others: Vec<String> = former.filter(|id| !own.contains(id)).cloned().collect();
        if self.sabotage == Some(Sabotage::FormerIdsStay) {
            others.clear();
        }
        p.stage = Stage::Fencing(others.len());
        for id in others {
            let delay = self.random.within(1..=self.swarm.fence);
            self.send_after(delay, p, Caller::Join(id.clone()), Request::Init(id));
        }
        self.join_if_fenced(p);
    }

    pub(super) fn join_if_fenced(&mut self, p: &mut Process) {
        if p.stage == Stage::Fencing(0) {
            p.stage = Stage::Running;
            for number in 0..p.workers_count {
                self.start_worker(p, number);
            }
            self.wake(p, 0);
        }
    }

    /// Commits and closes everything, then says goodbye.
    pub(super) fn leave(&mut self, p: &mut Process) {
        self.note(|| format!("{}#{} leaves", name_of(p.machine), p.number));
        p.stage = Stage::Leaving(p.workers.len());
        self.schedule(
            STOP_WITHIN,
            Event::Step(p.machine, p.number, Step::Deadline),
        );
        let workers: Vec<_> = p
            .workers
            .iter_mut()
            .map(|(number, worker)| {
                worker.dismissed = true;
                (*number, worker.start)
            })
            .collect();
        for (number, start) in workers {
            self.worker_soon(p, number, start);
        }
        self.leave_on(p);
    }

    pub(super) fn leave_on(&mut self, p: &mut Process) {
        while let Some(happening) = p.inbox.pop_front() {
            if let (Happening::Ended(_), Stage::Leaving(left)) = (happening, &mut p.stage) {
                *left -= 1;
            }
        }
        let early = self.sabotage == Some(Sabotage::LeftTooEarly);
        if p.stage == Stage::Leaving(0) || early {
            p.stage = Stage::Goodbye;
            self.last_row(p);
        }
    }
}
