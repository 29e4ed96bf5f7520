//! Reports made to be drained: agents that see each object anew again and again, and change their minds now and then.

use common::schema::{SiteAttackReport, SiteAttackVerdict};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::Serialize;

use crate::input::Shape;

/// How likely an agent sees the opposite of what it saw before.
const FLIPS: f64 = 0.1;

/// In which order objects come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Order {
    /// Any object, any agent.
    Uniform,
    /// Any object; so many agents report about it one after another.
    Bursts(usize),
    /// Every object in turn, by the first agent, then by the second.
    Sweep,
}

/// Reports to generate. The same seed makes the same reports, but for the time at which they begin.
#[derive(Clone, Debug, Serialize)]
pub struct Load {
    /// How many.
    pub reports: u64,
    /// Objects that they are about.
    pub objects: usize,
    /// Agents that send them.
    pub agents: usize,
    /// In which order.
    pub order: Order,
    /// Other seeds make other reports.
    pub seed: u64,
    /// The first sequence number: reports that follow others of the same agents begin above those.
    pub first_sequence: i64,
}

impl Load {
    /// Reports in any order, from the first sequence number on.
    #[must_use]
    pub fn uniform(reports: u64, objects: usize, agents: usize) -> Self {
        Self {
            reports,
            objects,
            agents,
            order: Order::Uniform,
            seed: 1,
            first_sequence: 1,
        }
    }

    /// One report about every object.
    #[must_use]
    pub fn sweep(objects: usize) -> Self {
        Self {
            order: Order::Sweep,
            ..Self::uniform(objects as u64, objects, 1)
        }
    }

    /// The same load after `earlier`.
    #[must_use]
    pub fn after(mut self, earlier: &Self) -> Self {
        self.first_sequence = earlier.first_sequence + i64::try_from(earlier.reports).unwrap_or(0);
        self
    }

    /// The reports, one a millisecond, the last one of `end_ms` (ms since 1970).
    pub fn reports(&self, end_ms: i64) -> impl Iterator<Item = SiteAttackReport> + use<> {
        let Self {
            reports,
            objects,
            agents,
            order,
            seed,
            first_sequence,
        } = *self;
        let mut random = StdRng::seed_from_u64(seed);
        let mut attacked = Bits::new(objects * agents);
        let names: Vec<String> = (0..agents).map(|i| format!("agent-{:04}", i + 1)).collect();
        let (mut object, mut agent) = (0, 0);
        (0..reports).map(move |number| {
            // Not more objects than fit into memory: the index does.
            let index = usize::try_from(number).unwrap_or(usize::MAX);
            match order {
                Order::Uniform => {
                    object = random.random_range(0..objects);
                    agent = random.random_range(0..agents);
                }
                Order::Bursts(length) if index.is_multiple_of(length) => {
                    object = random.random_range(0..objects);
                    agent = random.random_range(0..agents);
                }
                Order::Bursts(_) => agent = (agent + 1) % agents,
                Order::Sweep => (object, agent) = (index % objects, index / objects % agents),
            }
            let flips = random.random_bool(FLIPS);
            let attack = attacked.flip_if(object * agents + agent, flips);
            let before = i64::try_from(reports - 1 - number).unwrap_or(0);
            SiteAttackReport {
                object_id: Shape::object(object),
                agent_id: names[agent].clone(),
                verdict: if attack {
                    SiteAttackVerdict::UnderAttack
                } else {
                    SiteAttackVerdict::Clear
                },
                // Within the freshness of a day, whatever their number.
                observed_at_ms: end_ms - before.min(3_600_000),
                sequence: first_sequence + i64::try_from(number).unwrap_or(0),
                attack_kind: attack.then(|| "http-flood".to_owned()),
                requests_per_second: Some(f64::from(random.random_range(10_u32..5_000))),
                detail: None,
            }
        })
    }
}

/// Many yes-or-no, a bit each.
struct Bits(Vec<u64>);

impl Bits {
    fn new(count: usize) -> Self {
        Self(vec![0; count.div_ceil(64)])
    }

    /// Turns a bit over if `flip`, and tells what it is now.
    fn flip_if(&mut self, index: usize, flip: bool) -> bool {
        let word = &mut self.0[index / 64];
        *word ^= u64::from(flip) << (index % 64);
        *word >> (index % 64) & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn all(load: &Load) -> Vec<SiteAttackReport> {
        load.reports(1_700_000_000_000).collect()
    }

    #[test]
    fn agents_change_their_minds_one_time_in_ten() {
        let load = Load::uniform(50_000, 20, 5);
        let reports = all(&load);
        assert_eq!(reports, all(&load));
        let mut last = BTreeMap::new();
        let (mut flips, mut again) = (0_u32, 0_u32);
        for report in &reports {
            let voter = (report.object_id.clone(), report.agent_id.clone());
            if let Some(before) = last.insert(voter, report.verdict) {
                again += 1;
                flips += u32::from(before != report.verdict);
            }
        }
        assert_eq!(last.len(), 100);
        let part = f64::from(flips) / f64::from(again);
        assert!((0.09..0.11).contains(&part), "{part}");
    }

    #[test]
    fn a_burst_is_of_one_object_and_different_agents() {
        let load = Load {
            order: Order::Bursts(10),
            ..Load::uniform(1_000, 500, 10)
        };
        for burst in all(&load).chunks(10) {
            let objects: BTreeMap<_, _> = burst.iter().map(|r| (&r.object_id, ())).collect();
            let agents: BTreeMap<_, _> = burst.iter().map(|r| (&r.agent_id, ())).collect();
            assert_eq!((objects.len(), agents.len()), (1, 10));
        }
    }

    #[test]
    fn a_sweep_is_of_every_object() {
        let load = Load::sweep(100);
        let objects: BTreeMap<_, _> = all(&load).into_iter().map(|r| (r.object_id, ())).collect();
        assert_eq!(objects.len(), 100);
        let next = Load::uniform(10, 100, 1).after(&load);
        assert_eq!(all(&next)[0].sequence, 101);
    }
}
