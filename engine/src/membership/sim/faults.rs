//! What goes wrong. Each seed draws its own mixture of a few kinds (swarm testing: Groce and others,
//! 2012), so that rare sequences of one kind are not drowned by the others.

use super::{
    event::{Event, name_of},
    process::Stage,
    random::Random,
    world::World,
};

/// A kind of fault that strikes at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Crash,
    Leave,
    Freeze,
    Cut,
    /// Reading stalls; writing does not.
    Deaf,
    /// Nobody reaches Kafka.
    Outage,
    /// Kafka aborts a transaction that has been open for too long.
    Timeout,
}

const KINDS: [Kind; 7] = [
    Kind::Crash,
    Kind::Leave,
    Kind::Freeze,
    Kind::Cut,
    Kind::Deaf,
    Kind::Outage,
    Kind::Timeout,
];

/// The world of a seed, and what goes wrong in it. Times in ms; `one in` of 0 means never.
#[derive(Debug)]
pub(super) struct Swarm {
    pub(super) machines: usize,
    pub(super) partitions: u32,
    pub(super) workers: u32,
    pub(super) other_workers: bool,
    /// Whoever starts finds the topics compacted.
    pub(super) compact: u64,
    pub(super) standbys: usize,
    pub(super) acceptable_lag: i64,
    pub(super) grace_beats: u32,
    /// Faults end here.
    pub(super) quiet_at: u64,
    faults_every: u64,
    kinds: Vec<Kind>,
    pub(super) latency: u64,
    pub(super) markers: u64,
    pub(super) turn: u64,
    pub(super) fence: u64,
    pub(super) restore: u64,
    pub(super) start: u64,
    pub(super) commit_every: u64,
    /// A task has nothing to commit.
    pub(super) idle: u64,
    pub(super) lose_rows: u64,
    pub(super) repeat_rows: u64,
    pub(super) repeat_fences: u64,
    pub(super) slow_net: u64,
    pub(super) partial_reads: u64,
    /// For how long the plans stall after they were read in part.
    pub(super) lag: u64,
    pub(super) abort: u64,
    pub(super) give_up: u64,
}

impl Swarm {
    pub(super) fn draw(random: &mut Random) -> Self {
        let kinds = KINDS.into_iter().filter(|_| random.one_in(2)).collect();
        let mut sometimes = |count: u64| if random.one_in(3) { count } else { 0 };
        let (lose_rows, repeat_rows, repeat_fences) = (sometimes(5), sometimes(5), sometimes(3));
        let (slow_net, partial_reads) = (sometimes(30), sometimes(3));
        let (abort, give_up) = (sometimes(10), sometimes(20));
        let (other_workers, compact) = (sometimes(1) == 1, sometimes(2));
        let mut pick = |values: &[u64]| values[random.index(values.len())];
        Self {
            machines: usize::try_from(pick(&[1, 2, 2, 2, 3, 3, 3, 4])).unwrap(),
            partitions: u32::try_from(pick(&[1, 2, 3, 4, 6])).unwrap(),
            workers: u32::try_from(pick(&[1, 1, 2])).unwrap(),
            other_workers,
            compact,
            standbys: usize::try_from(pick(&[0, 0, 1, 2])).unwrap(),
            // More than is committed between two beats, or nobody ever catches up.
            acceptable_lag: i64::try_from(pick(&[15, 100])).unwrap(),
            grace_beats: u32::try_from(pick(&[0, 0, 5, 10])).unwrap(),
            quiet_at: pick(&[2_000, 4_000, 6_000, 8_000]),
            faults_every: pick(&[300, 1_000, 2_000]),
            kinds,
            latency: pick(&[3, 8, 20]),
            markers: pick(&[3, 20, 150]),
            turn: pick(&[2, 20, 20, 300]),
            fence: pick(&[5, 50, 500, 2_000]),
            restore: pick(&[5, 50, 400]),
            start: pick(&[5, 200, 800]),
            commit_every: pick(&[150, 400, 800]),
            idle: 3,
            lose_rows,
            repeat_rows,
            repeat_fences,
            slow_net,
            partial_reads,
            lag: pick(&[30, 500, 1_500]),
            abort,
            give_up,
        }
    }

    /// Instances come and go in order, and nothing is lost or late: nobody needs to be fenced.
    pub(super) fn is_gentle(&self) -> bool {
        let gentle = self.kinds.iter().all(|kind| *kind == Kind::Leave);
        gentle && self.lose_rows + self.slow_net + self.partial_reads + self.give_up == 0
    }

    /// From now on everything works, though at its own pace.
    fn calm(&mut self) {
        self.idle = 0;
        self.lose_rows = 0;
        self.repeat_rows = 0;
        self.repeat_fences = 0;
        self.slow_net = 0;
        self.partial_reads = 0;
        self.abort = 0;
        self.give_up = 0;
        self.turn = self.turn.min(50);
        self.fence = self.fence.min(500);
        self.restore = self.restore.min(50);
    }
}

impl World {
    /// The first events.
    pub(super) fn set_out(&mut self) {
        if self.is_traced() {
            let swarm = format!("{:?}", self.swarm);
            self.note(|| swarm);
        }
        for machine in 0..self.machines.len() {
            let delay = if self.random.one_in(3) {
                self.random.within(0..=self.swarm.quiet_at - 1)
            } else {
                self.random.within(0..=50)
            };
            self.schedule(delay, Event::Boot(machine));
        }
        let delay = self.random.within(1..=self.swarm.faults_every);
        self.schedule(delay, Event::Fault);
        self.schedule(self.swarm.quiet_at, Event::Look);
    }

    /// The machine's next process, unless it is gone for good.
    pub(super) fn boot_later(&mut self, machine: usize) {
        if !self.machines[machine].gone {
            let longest = [50, 500, 4_000][self.random.index(3)];
            let delay = self.random.within(1..=longest);
            self.schedule(delay, Event::Boot(machine));
        }
    }

    pub(super) fn on_fault(&mut self) {
        if self.now >= self.swarm.quiet_at {
            return;
        }
        let delay = self.random.within(1..=self.swarm.faults_every);
        self.schedule(delay, Event::Fault);
        if self.swarm.kinds.is_empty() {
            return;
        }
        let kind = self.swarm.kinds[self.random.index(self.swarm.kinds.len())];
        // Troubles do not come alone.
        if self.random.one_in(2) {
            self.victim = self.random.index(self.machines.len());
        }
        let machine = self.victim;
        let left = self.swarm.quiet_at - self.now;
        let longest = [200, 3_000, 6_000][self.random.index(3)];
        let time = self.random.within(1..=longest).min(left);
        self.note(|| format!("FAULT: {kind:?} of {} for {time} ms", name_of(machine)));
        match kind {
            Kind::Crash => self.crash(machine),
            Kind::Leave => {
                let for_good = !self.is_last(machine) && self.random.one_in(6);
                let at = &mut self.machines[machine];
                if let Some(mut p) = at.process.take() {
                    if p.stage == Stage::Running && !p.stop {
                        p.stop = true;
                        at.gone |= for_good;
                        self.wake(&mut p, 0);
                    }
                    self.machines[machine].process = Some(p);
                }
            }
            Kind::Freeze if !self.machines[machine].frozen => {
                self.machines[machine].frozen = true;
                self.schedule(time, Event::Thaw(machine));
            }
            Kind::Cut => self.cut_off(machine, time),
            Kind::Deaf if !self.machines[machine].deaf => {
                self.machines[machine].deaf = true;
                self.schedule(time, Event::Heal(machine));
            }
            Kind::Outage => {
                for machine in 0..self.machines.len() {
                    self.cut_off(machine, time);
                }
            }
            Kind::Timeout => {
                let open = self.kafka.open_ids();
                if !open.is_empty() {
                    let id = &open[self.random.index(open.len())];
                    self.abort(id, "it was open for too long");
                }
            }
            Kind::Deaf | Kind::Freeze => {}
        }
    }

    fn crash(&mut self, machine: usize) {
        if self.machines[machine].process.take().is_none() {
            return;
        }
        if !self.is_last(machine) && self.random.one_in(6) {
            self.machines[machine].gone = true;
            self.note(|| format!("{} is gone for good", name_of(machine)));
        }
        self.boot_later(machine);
    }

    fn is_last(&self, machine: usize) -> bool {
        let mut others = (0..self.machines.len()).filter(|m| *m != machine);
        others.all(|m| self.machines[m].gone)
    }

    fn cut_off(&mut self, machine: usize, time: u64) {
        if !self.machines[machine].cut {
            self.machines[machine].cut = true;
            self.schedule(time, Event::Heal(machine));
        }
    }

    pub(super) fn faults_end(&mut self) {
        self.note(|| "the faults end".to_owned());
        self.swarm.calm();
    }
}
