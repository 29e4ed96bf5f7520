//! Who gets which partition: a pure function.
//!
//! Kafka Streams' rules (KIP-441), with the words of this project: a partition stays where it is as
//! far as the balance allows; one that has lost its owner goes to a member that has caught up with
//! its changelog; one that must move for the balance goes to a member that has caught up, and
//! otherwise stays until the member it shall go to has warmed up. Standbys are on other members,
//! on other racks where there are any.

use std::collections::BTreeMap;

use super::InstanceId;

#[cfg(test)]
mod tests;

/// What the operator has configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Standbys of each partition (`num.standby.replicas`), as far as there are other members.
    pub standbys: usize,
    /// A store that lacks no more changelog records than this has caught up
    /// (`acceptable.recovery.lag`).
    pub acceptable_lag: i64,
}

/// A member, as far as the assignment is concerned.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Candidate {
    /// Where it runs.
    pub rack: Option<String>,
    /// Changelog positions of the stores it has, by partition.
    pub positions: BTreeMap<u32, i64>,
}

/// A partition as it is, and as it shall be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Share {
    /// Its owner.
    pub owner: Option<InstanceId>,
    /// Who follows it.
    pub standbys: Vec<InstanceId>,
    /// Who will own it once it has caught up.
    pub warming_up: Option<InstanceId>,
}

/// Everything that can be known of a partition.
#[derive(Debug, Clone, Default)]
pub struct Before {
    /// What the plan in force says.
    pub share: Share,
    /// The end of its changelog, as far as anybody has told.
    pub end: i64,
    /// Its owner is no member, but may be back soon.
    pub expected_back: bool,
}

/// The members by id.
pub type Members = BTreeMap<InstanceId, Candidate>;

/// Distributes the partitions `before` over `members`.
#[must_use]
pub fn assign(members: &Members, before: &[Before], rules: Rules) -> Vec<Share> {
    let mut assignor = Assignor {
        members,
        before,
        rules,
        owners: vec![None; before.len()],
        loads: members.keys().map(|m| (m, 0)).collect(),
    };
    assignor.keep_and_place();
    assignor.go_on_warming_up();
    assignor.balance();
    let mut shares = assignor.shares();
    Standbys::new(members, before, rules, &shares).fill(&mut shares);
    shares
}

struct Assignor<'a> {
    members: &'a Members,
    before: &'a [Before],
    rules: Rules,
    /// Who shall own each partition in the end.
    owners: Vec<Option<&'a InstanceId>>,
    /// How many each shall own in the end.
    loads: BTreeMap<&'a InstanceId, usize>,
}

impl<'a> Assignor<'a> {
    fn lag(&self, partition: usize, member: &InstanceId) -> i64 {
        lag(self.members, self.before, partition, member)
    }

    fn has_caught_up(&self, partition: usize, member: &InstanceId) -> bool {
        self.lag(partition, member) <= self.rules.acceptable_lag
    }

    fn give(&mut self, partition: usize, member: &'a InstanceId) {
        *self.loads.entry(member).or_default() += 1;
        self.owners[partition] = Some(member);
    }

    /// Owners that are members keep what they have; what has lost its owner is placed.
    fn keep_and_place(&mut self) {
        let mut orphans = Vec::new();
        for (partition, before) in self.before.iter().enumerate() {
            let owner = before.share.owner.as_ref();
            match owner.and_then(|owner| self.members.get_key_value(owner)) {
                Some((member, _)) => self.give(partition, member),
                None => orphans.push(partition),
            }
        }
        for partition in orphans {
            let share = &self.before[partition].share;
            let choice = self.members.keys().min_by_key(|member| {
                let caught_up = self.has_caught_up(partition, member);
                // Among those that have caught up the load decides, otherwise what is missing.
                let missing = if caught_up {
                    0
                } else {
                    self.lag(partition, member)
                };
                let follows = share.standbys.contains(member);
                (
                    !caught_up,
                    missing,
                    !follows,
                    self.loads.get(member),
                    *member,
                )
            });
            let Some(choice) = choice else { continue };
            if self.before[partition].expected_back && !self.has_caught_up(partition, choice) {
                continue;
            }
            self.give(partition, choice);
        }
    }

    /// Moves that were begun are gone on with, as long as they help the balance.
    fn go_on_warming_up(&mut self) {
        for (partition, before) in self.before.iter().enumerate() {
            let to = before.share.warming_up.as_ref();
            let to = to.and_then(|to| self.members.get_key_value(to));
            let (Some(from), Some((to, _))) = (self.owners[partition], to) else {
                continue;
            };
            if self.loads.get(from) > self.loads.get(to).map(|load| load + 1).as_ref() {
                self.move_to(partition, from, to);
            }
        }
    }

    fn move_to(&mut self, partition: usize, from: &'a InstanceId, to: &'a InstanceId) {
        self.owners[partition] = Some(to);
        *self.loads.entry(from).or_default() -= 1;
        *self.loads.entry(to).or_default() += 1;
    }

    /// Moves partitions from who has most to who has least until the loads differ by at most one.
    fn balance(&mut self) {
        loop {
            let most = self.loads.iter().max_by_key(|(_, load)| **load);
            let least = self.loads.iter().min_by_key(|(_, load)| **load);
            let (Some((&from, &most)), Some((&to, &least))) = (most, least) else {
                return;
            };
            if most - least <= 1 {
                return;
            }
            let movable = (0..self.owners.len()).filter(|p| self.owners[*p] == Some(from));
            let choice = movable.min_by_key(|partition| {
                let share = &self.before[*partition].share;
                (
                    !self.has_caught_up(*partition, to),
                    !share.standbys.contains(to),
                    *partition,
                )
            });
            let Some(partition) = choice else { return };
            self.move_to(partition, from, to);
        }
    }

    /// A move to a member that has not caught up has to wait, if the present owner is a member.
    fn shares(&self) -> Vec<Share> {
        let shares = self.owners.iter().zip(self.before).enumerate();
        shares
            .map(|(partition, (wanted, before))| {
                let present = before.share.owner.as_ref();
                let present = present.filter(|owner| self.members.contains_key(*owner));
                let (owner, warming_up) = match (present, wanted) {
                    (Some(present), Some(wanted))
                        if present != *wanted && !self.has_caught_up(partition, wanted) =>
                    {
                        (Some(present), Some((*wanted).clone()))
                    }
                    (_, Some(wanted)) => (Some(*wanted), None),
                    (_, None) if before.expected_back => (before.share.owner.as_ref(), None),
                    (_, None) => (None, None),
                };
                Share {
                    owner: owner.cloned(),
                    standbys: Vec::new(),
                    warming_up,
                }
            })
            .collect()
    }
}

/// How many changelog records `member` lacks of `partition`; of one that has no store, all of them.
fn lag(members: &Members, before: &[Before], partition: usize, member: &InstanceId) -> i64 {
    let number = u32::try_from(partition).unwrap_or(u32::MAX);
    let position = members
        .get(member)
        .and_then(|m| m.positions.get(&number))
        .copied()
        .unwrap_or(0);
    (before[partition].end - position).max(0)
}

struct Standbys<'a> {
    members: &'a Members,
    before: &'a [Before],
    rules: Rules,
    /// Everything that each has to do: as owner or standby.
    loads: BTreeMap<&'a InstanceId, usize>,
    /// What each follows.
    follows: BTreeMap<&'a InstanceId, usize>,
}

impl<'a> Standbys<'a> {
    fn new(members: &'a Members, before: &'a [Before], rules: Rules, shares: &[Share]) -> Self {
        let mut loads: BTreeMap<&InstanceId, usize> = members.keys().map(|m| (m, 0)).collect();
        for owner in shares.iter().filter_map(|share| share.owner.as_ref()) {
            if let Some(load) = loads.get_mut(owner) {
                *load += 1;
            }
        }
        let follows = members.keys().map(|m| (m, 0)).collect();
        Self {
            members,
            before,
            rules,
            loads,
            follows,
        }
    }

    fn fill(mut self, shares: &mut [Share]) {
        // Those that follow already are kept before anybody new is chosen, so that the choice
        // knows what everybody has to do.
        for kept in [true, false] {
            for (partition, share) in shares.iter_mut().enumerate() {
                while share.standbys.len() < self.rules.standbys {
                    let Some(choice) = self.choose(partition, share, kept) else {
                        break;
                    };
                    *self.loads.entry(choice).or_default() += 1;
                    *self.follows.entry(choice).or_default() += 1;
                    share.standbys.push(choice.clone());
                }
            }
        }
        while self.balance(shares) {}
        for share in shares {
            share.standbys.sort_unstable();
        }
    }

    fn choose(&self, partition: usize, share: &Share, kept: bool) -> Option<&'a InstanceId> {
        let before = &self.before[partition].share;
        let free = |member: &&InstanceId| {
            share.owner.as_ref() != Some(member) && !share.standbys.contains(member)
        };
        let least_conflict = self
            .members
            .keys()
            .filter(free)
            .map(|member| self.conflicts(share, member, None))
            .min()?;
        let fit = |member: &&InstanceId| self.conflicts(share, member, None) == least_conflict;
        // An owner that has just lost it has all of it.
        let has_it = |member: &&InstanceId| {
            before.standbys.contains(member) || before.owner.as_ref() == Some(member)
        };
        let candidates = self.members.keys().filter(free).filter(fit);
        if kept {
            return candidates.filter(has_it).min();
        }
        candidates.min_by_key(|member| {
            let caught_up =
                lag(self.members, self.before, partition, member) <= self.rules.acceptable_lag;
            (self.loads.get(member), !caught_up, *member)
        })
    }

    /// How many of those that have the partition, but for `except`, run on the rack of `member`.
    fn conflicts(&self, share: &Share, member: &InstanceId, except: Option<&InstanceId>) -> usize {
        let rack_of = |id: &InstanceId| self.members.get(id).and_then(|m| m.rack.as_ref());
        let Some(rack) = rack_of(member) else {
            return 0;
        };
        let others = share.owner.iter().chain(&share.standbys);
        others
            .filter(|other| Some(*other) != except && rack_of(other) == Some(rack))
            .count()
    }

    /// Moves one standby from who follows much to who follows little; `false` if there is none.
    fn balance(&mut self, shares: &mut [Share]) -> bool {
        let mut by_load: Vec<(&'a InstanceId, usize)> =
            self.follows.iter().map(|(m, n)| (*m, *n)).collect();
        by_load.sort_by_key(|(member, follows)| (*follows, *member));
        for (from, most) in by_load.iter().rev() {
            for (to, least) in &by_load {
                if most.saturating_sub(*least) <= 1 {
                    break;
                }
                let movable = shares.iter_mut().find(|share| {
                    share.standbys.contains(from)
                        && !share.standbys.contains(to)
                        && share.owner.as_ref() != Some(to)
                        && self.conflicts(share, to, Some(from))
                            <= self.conflicts(share, from, Some(from))
                });
                let Some(share) = movable else { continue };
                share.standbys.retain(|standby| standby != *from);
                share.standbys.push((*to).clone());
                *self.follows.entry(from).or_default() -= 1;
                *self.follows.entry(to).or_default() += 1;
                return true;
            }
        }
        false
    }
}
