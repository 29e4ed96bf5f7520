//! Progress: some time after the faults have ended, everything is as it shall be, and stays so.

use super::{
    event::{Event, name_of},
    process::{Process, Stage},
    world::World,
};
use crate::membership::{Plan, holdings::Phase};

/// Between two looks.
const LOOK: u64 = 100;
/// How long everything must stay as it is.
const STABLE: u64 = 2_000;
/// By when all this must have come about after the end of the faults: a leader that was unlucky
/// yields the seat, an owner that is gone for good is waited for, stores are filled.
const RECOVERED: u64 = 15_000;
/// More plans than this after the end of the faults mean that they do not settle.
const PLANS: usize = 16;

/// Since when everything is as it shall be, and how many plans it took.
#[derive(Clone, Copy)]
pub(super) struct Healthy {
    since: u64,
    plans: usize,
}

impl World {
    pub(super) fn look(&mut self) {
        if self.now == self.swarm.quiet_at {
            self.faults_end();
            self.tally.plans_after = self.tally.plans;
        }
        let after = self.now - self.swarm.quiet_at;
        let plans = self.tally.plans - self.tally.plans_after;
        let wrong = self.what_is_wrong();
        let was = self.healthy.filter(|healthy| healthy.plans == plans);
        match (wrong, was) {
            (None, Some(healthy)) if self.now >= healthy.since + STABLE => {
                self.tally.plans_after = plans;
                return self.finish();
            }
            (None, Some(_)) => {}
            (None, None) => {
                self.note(|| "everything is as it shall be".to_owned());
                let since = self.now;
                self.healthy = Some(Healthy { since, plans });
                self.tally.recovery_ms = after;
                for partition in &mut self.kafka.partitions {
                    partition.before = partition.decided;
                }
            }
            (Some(why), _) if after >= RECOVERED => {
                self.violation = Some(format!("no progress: {why}"));
            }
            // A straggler of the faults, for example a fence that was slow.
            (Some(_), _) => self.healthy = None,
        }
        if plans > PLANS {
            self.violation = Some(format!("the plans do not settle: {plans} of them"));
        }
        self.schedule(LOOK, Event::Look);
    }

    /// The end, if every partition has gone on.
    fn finish(&mut self) {
        self.done = true;
        let stuck = (0..).zip(&self.kafka.partitions);
        let mut stuck = stuck.filter(|(_, partition)| partition.decided == partition.before);
        if let Some((number, _)) = stuck.next() {
            self.violation = Some(format!("partition {number} stands still"));
        }
    }

    fn what_is_wrong(&self) -> Option<String> {
        let mut live: Vec<&Process> = Vec::new();
        for (machine, at) in self.machines.iter().enumerate() {
            match &at.process {
                Some(p) if p.stage == Stage::Running => live.push(p),
                None if at.gone => {}
                _ => return Some(format!("{} is not there", name_of(machine))),
            }
        }
        let first = live.first().and_then(|p| p.cluster.plan());
        let Some(plan) = first else {
            return Some("there is no plan".into());
        };
        if live.iter().any(|p| p.cluster.plan() != Some(plan)) {
            return Some("not everybody knows the same plan".into());
        }
        if plan.members.len() != live.len() {
            return Some(format!("the members are {:?}", plan.members));
        }
        let wrong = live
            .iter()
            .find_map(|p| self.what_is_wrong_at(p, plan, &live));
        wrong.or_else(|| self.imbalance(plan, live.len()))
    }

    fn what_is_wrong_at(&self, p: &Process, plan: &Plan, live: &[&Process]) -> Option<String> {
        let name = name_of(p.machine);
        if !p.cluster.is_member() || !p.holdings.all_ready() {
            return Some(format!("{name} is no member, or a worker is not ready"));
        }
        for (number, task) in (0..).zip(&plan.tasks) {
            let owns = task.owner.as_deref() == Some(name);
            let follows = task.standbys.iter().any(|standby| standby == name);
            let held = p.holdings.held().get(&number).map(|held| held.phase);
            let expected = match (owns, follows) {
                (true, _) => Some(Phase::Running),
                (false, true) => Some(Phase::Following),
                (false, false) => None,
            };
            let runs = p.workers.values().any(|w| w.tasks.contains_key(&number));
            if held != expected || runs != owns || follows != p.restorer.follows(number) {
                return Some(format!(
                    "{name} has partition {number} as {held:?}, not {expected:?}"
                ));
            }
            if task.standbys.len() != self.swarm.standbys.min(live.len() - 1) {
                return Some(format!("partition {number} has not its standbys"));
            }
            let owner = |p: &&Process| task.owner.as_deref() == Some(name_of(p.machine));
            if !live.iter().any(owner) {
                return Some(format!("nobody owns partition {number}"));
            }
            if task.warming_up.is_some() {
                return Some(format!("partition {number} is warming up"));
            }
        }
        None
    }

    fn imbalance(&self, plan: &Plan, live: usize) -> Option<String> {
        let members = plan.members.keys();
        let loads = members.map(|m| {
            plan.tasks
                .iter()
                .filter(|t| t.owner.as_ref() == Some(m))
                .count()
        });
        let most = plan.tasks.len().div_ceil(live);
        let least = plan.tasks.len() / live;
        let uneven = loads.clone().any(|load| load > most || load < least);
        uneven.then(|| format!("the loads are {:?}", loads.collect::<Vec<_>>()))
    }
}
