//! What is broken, in which order and where: a pure function of the seed and the kinds to choose from.
//!
//! The moments follow from the plan's pauses and from how long the cluster takes to heal, so a seed replays the same
//! faults in the same order on the same targets, at nearly the same moments.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::faults::{Fault, Kind};
use crate::random::Random;

/// One fault of the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Its number, from 1.
    pub number: u32,
    /// The time before it.
    pub pause: Duration,
    /// What is done.
    pub kind: Kind,
    /// To whom: the number of an instance, broker, partition or agent, modulo how many there are.
    pub target: u32,
    /// How long it lasts before it is undone.
    pub lasts: Duration,
    /// Whatever else the fault has to choose.
    pub variant: u64,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "#{:<4} after {:>4} ms  {:<22} target {}  for {:>4} ms  variant {}",
            self.number,
            self.pause.as_millis(),
            self.kind,
            self.target,
            self.lasts.as_millis(),
            self.variant
        )
    }
}

/// The endless list of faults of a seed.
#[derive(Clone, Debug)]
pub struct Plan {
    random: Random,
    kinds: Vec<Kind>,
    number: u32,
}

impl Plan {
    /// The plan of `seed`, choosing from `kinds`.
    pub fn new(seed: u64, kinds: &[Kind]) -> Self {
        Self {
            random: Random::of(seed, "plan"),
            kinds: kinds.to_vec(),
            number: 0,
        }
    }

    fn kind(&mut self) -> Option<Kind> {
        let weights = self.kinds.iter().map(|kind| Fault::of(*kind).weight);
        let mut at = self.random.below(weights.sum());
        self.kinds.iter().copied().find(|kind| {
            let weight = Fault::of(*kind).weight;
            let hit = at < weight;
            at = at.saturating_sub(weight);
            hit
        })
    }
}

impl Iterator for Plan {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let kind = self.kind()?;
        let ms = |random: &mut Random, from, to| {
            Duration::from_millis(random.between(from, to).unsigned_abs())
        };
        let (from, to) = Fault::of(kind).lasts_ms;
        self.number += 1;
        Some(Step {
            number: self.number,
            // Many short pauses and a few long ones: faults come in clusters, as they do in life.
            pause: match self.random.below(4) {
                0 => ms(&mut self.random, 500, 2_500),
                _ => ms(&mut self.random, 0, 700),
            },
            kind,
            target: u32::try_from(self.random.below(1 << 16)).unwrap_or(0),
            lasts: ms(&mut self.random, from, to),
            variant: self.random.below(1 << 16),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn all() -> Vec<Kind> {
        Fault::ALL.iter().map(|fault| fault.kind).collect()
    }

    proptest! {
        #[test]
        fn a_seed_always_gives_the_same_plan(seed: u64) {
            let plan = || Plan::new(seed, &all()).take(50).collect::<Vec<_>>();
            prop_assert_eq!(plan(), plan());
        }

        #[test]
        fn only_the_chosen_kinds_come(seed: u64, first in 0usize..22, second in 0usize..22) {
            let kinds = [all()[first], all()[second]];
            let mut plan = Plan::new(seed, &kinds).take(50);
            prop_assert!(plan.all(|step| kinds.contains(&step.kind)));
        }
    }

    #[test]
    fn every_kind_comes_and_the_plan_of_a_seed_is_as_it_was() {
        let seen: BTreeSet<Kind> = Plan::new(1, &all())
            .take(1000)
            .map(|step| step.kind)
            .collect();
        assert_eq!(seen.len(), Fault::ALL.len());
        let first = Plan::new(7, &[Kind::Kill, Kind::Cut, Kind::DropEndTxn]).next();
        let shown = first.map(|step| step.to_string()).unwrap_or_default();
        assert_eq!(
            shown,
            "#1    after 1540 ms  drop-end-txn           target 7818  for    0 ms  variant 46939"
        );
    }

    #[test]
    fn nothing_to_choose_from_is_no_plan() {
        assert_eq!(Plan::new(7, &[]).next(), None);
    }
}
