//! Who leads, and the plans that a leader makes.

use std::collections::BTreeMap;

use super::{
    Assignment, Cluster, FORGOTTEN_AFTER, InstanceId, Plan, PlanNumber, Row, SEAT_TAKEN_AFTER,
    VERSION, Writer,
    assign::{self, Before, Candidate, Share},
};

impl Cluster {
    /// Should this instance take the lead, not having it? When the leader is silent, the first of
    /// those that are not does; but for those that do not know the version of the plan in force.
    #[must_use]
    pub fn should_take_lead(&self) -> bool {
        if !self.is_announced() || self.newer.is_some() || self.reset {
            return false;
        }
        if let Some(plan) = &self.plan
            && plan.leader != self.me
            && self.is_heard(&plan.leader, SEAT_TAKEN_AFTER)
        {
            return false;
        }
        // Its own former incarnation's lead is its to take back.
        let mine = self.plan.as_ref().is_some_and(|p| p.leader == self.me);
        let version = self.plan.as_ref().map_or(0, |plan| plan.version);
        let mut able = self.members.iter().filter(|(id, member)| {
            member.row.version >= version && self.is_heard(id, SEAT_TAKEN_AFTER)
        });
        mine || able.next().is_some_and(|(first, _)| *first == self.me)
    }

    /// Does the plan in force say that another incarnation leads?
    #[must_use]
    pub fn is_led_by_another(&self) -> bool {
        self.plan
            .as_ref()
            .is_some_and(|p| p.leader_incarnation != self.incarnation)
    }

    /// As the leader: the next plan for `partitions`, if the one in force does not fit those present.
    #[must_use]
    pub fn next_plan(&self, partitions: u32) -> Option<Plan> {
        if self.newer.is_some() || self.reset {
            return None;
        }
        let present = self.present();
        let able: BTreeMap<&InstanceId, &Row> = present
            .iter()
            .filter(|(_, row)| row.version <= VERSION && !row.transactional_ids.is_empty())
            .map(|(id, row)| (id, *row))
            .collect();
        let members: BTreeMap<InstanceId, String> = able
            .iter()
            .map(|(id, row)| ((*id).clone(), row.incarnation.clone()))
            .collect();
        let candidates = able.iter().map(|(id, row)| ((*id).clone(), candidate(row)));
        let tasks = self.plan.as_ref().map_or(&[][..], |p| &p.tasks[..]);
        let before: Vec<Before> = (0..partitions)
            .map(|partition| self.before(partition, tasks.get(partition as usize)))
            .collect();
        let shares = assign::assign(&candidates.collect(), &before, self.rules);
        let is_unchanged = before.iter().map(|b| &b.share).eq(&shares);
        if let Some(plan) = &self.plan
            && plan.members == members
            && plan.tasks.len() == partitions as usize
            && is_unchanged
            && !self.is_led_by_another()
        {
            return None;
        }
        let number = self.plan_number() + 1;
        let tasks = (0..partitions)
            .zip(shares)
            .map(|(partition, share)| {
                let before = tasks.get(partition as usize);
                self.assignment(partition, share, before, number, &able)
            })
            .collect();
        Some(Plan {
            version: VERSION,
            number,
            generation: self
                .plan
                .as_ref()
                .map_or_else(|| self.incarnation.clone(), |plan| plan.generation.clone()),
            leader: self.me.clone(),
            leader_incarnation: self.incarnation.clone(),
            members,
            tasks,
        })
    }

    fn before(&self, partition: u32, task: Option<&Assignment>) -> Before {
        let end = self.end(partition);
        let Some(task) = task else {
            return Before {
                end,
                ..Before::default()
            };
        };
        let owner = task
            .owner
            .as_ref()
            .and_then(|owner| self.members.get(owner));
        Before {
            share: Share {
                owner: task.owner.clone(),
                standbys: task.standbys.clone(),
                warming_up: task.warming_up.clone(),
            },
            end,
            expected_back: owner.is_some_and(|owner| owner.silent_for < self.grace_beats),
        }
    }

    pub(super) fn assignment(
        &self,
        partition: u32,
        share: Share,
        before: Option<&Assignment>,
        number: PlanNumber,
        able: &BTreeMap<&InstanceId, &Row>,
    ) -> Assignment {
        let owner = share.owner;
        let mut writers = before.map_or_else(Vec::new, |b| b.writers.clone());
        if let Some(before) = before
            && let Some(confirmed) = self.confirmed_writer(partition, before)
        {
            // The owner has started: everybody before it was closed or fenced.
            writers = vec![confirmed];
        }
        let unchanged = before.filter(|b| b.owner == owner);
        if let Some(owner) = &owner
            && let Some(row) = able.get(owner)
        {
            let writer = Writer {
                instance: owner.clone(),
                transactional_id: row.writer_of(partition),
            };
            if !writers.contains(&writer) {
                writers.push(writer);
            }
        }
        Assignment {
            since: unchanged.map_or(number, |b| b.since),
            owner,
            standbys: share.standbys,
            warming_up: share.warming_up,
            writers,
        }
    }

    /// The owner's own id, if its row says that it has started the partition for this assignment.
    fn confirmed_writer(&self, partition: u32, assignment: &Assignment) -> Option<Writer> {
        let owner = assignment.owner.as_ref()?;
        let row = &self.members.get(owner)?.row;
        let task = row.tasks.get(&partition)?;
        (task.running && task.since == assignment.since).then(|| Writer {
            instance: owner.clone(),
            transactional_id: row.writer_of(partition),
        })
    }

    /// Forgets an instance that has been away for so long that its row may be removed: any that the
    /// plan in force does not name. A container with a new name for each start leaves one each time.
    pub fn forget(&mut self) -> Option<InstanceId> {
        let plan = self.plan.as_ref()?;
        let named = |id: &InstanceId| {
            plan.members.contains_key(id)
                || plan.tasks.iter().any(|task| {
                    task.owner.as_ref() == Some(id)
                        || task.standbys.contains(id)
                        || task.warming_up.as_ref() == Some(id)
                        || task.writers.iter().any(|writer| writer.instance == *id)
                })
        };
        let mut members = self.members.iter();
        let gone = members.find(|(id, member)| member.silent_for >= FORGOTTEN_AFTER && !named(id));
        let gone = gone?.0.clone();
        self.members.remove(&gone);
        Some(gone)
    }
}

fn candidate(row: &Row) -> Candidate {
    Candidate {
        rack: row.rack.clone(),
        positions: row.stores.clone(),
    }
}
