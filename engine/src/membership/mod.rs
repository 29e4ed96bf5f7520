//! Who is there, who leads, who owns which partition: the rows on the two membership topics, and
//! what follows from them. Everything here is pure but [`link`], which talks to Kafka.
//!
//! Kafka decides who may write: an owner is an epoch of a transactional id. A plan only says who
//! should be the owner; nobody starts a partition before every id that may still be writing to it
//! has been acknowledged as closed by its instance, or fenced. See `docs/adr/0003-membership.md`.

use std::collections::BTreeMap;

pub mod assign;
pub mod holdings;
pub mod link;
mod planning;
mod rows;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

pub use assign::Rules;
pub use rows::{
    Assignment, InstanceId, Plan, PlanNumber, PlanRow, RestoreRow, Row, Status, TaskRow, VERSION,
    Writer,
};

/// How many of the observer's own beats may come back from the topic without one of the other's
/// in between, before the other is suspected. Counted in the log's time: while the broker is
/// away, nobody suspects anybody.
pub const SUSPECTED_AFTER: u32 = 4;
/// After so many, the leader's seat is taken. To be wrong costs one more plan, and to be late costs
/// every partition of a dead leader the time to take it, which is about that of a beat.
pub const SEAT_TAKEN_AFTER: u32 = SUSPECTED_AFTER - 1;
/// After so many (a day), the row of an instance that the plan does not name is removed.
pub const FORGOTTEN_AFTER: u32 = 216_000;

/// A process that was replaced, but is heard as often as this since, is the living one. A dead one has
/// one row under way, and its last.
const ALIVE_AFTER: u32 = 4;

/// What the plan in force wants of an instance for a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// To own it, since this plan.
    Owner(PlanNumber),
    /// To follow its changelog, as a standby or to warm up.
    Follower,
}

/// What a new owner must do before it may start a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// Nothing.
    Now,
    /// Wait for a former owner, who is present, to close it.
    Wait,
    /// Fence these ids.
    Fence(Vec<String>),
}

/// An instance as its observer knows it.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its last row.
    pub row: Row,
    /// How far the tasks that it runs were a beat before that.
    earlier: BTreeMap<u32, i64>,
    /// Own beats of the observer since.
    silent_for: u32,
    /// Incarnations that there were before, and how often each has been heard since.
    former: BTreeMap<String, u32>,
}

/// What one instance knows from the two topics.
#[derive(Debug)]
pub struct Cluster {
    me: InstanceId,
    incarnation: String,
    rules: Rules,
    grace_beats: u32,
    members: BTreeMap<InstanceId, Member>,
    plan: Option<Plan>,
    /// A plan that this version cannot read, newer than the one that it can.
    newer: Option<(u32, PlanNumber)>,
    /// Was a plan of another generation read?
    reset: bool,
    /// What the former incarnation announced.
    former_ids: Vec<String>,
    announced: bool,
    /// Our last beat that came back.
    beat: u64,
}

impl Cluster {
    /// Knows nothing yet. `me` is this instance, `incarnation` this process. An owner that is away
    /// keeps what nobody else has caught up with for `grace_beats`, counted as suspicion is.
    #[must_use]
    pub fn new(me: &str, incarnation: &str, rules: Rules, grace_beats: u32) -> Self {
        Self {
            me: me.to_owned(),
            incarnation: incarnation.to_owned(),
            rules,
            grace_beats,
            members: BTreeMap::new(),
            plan: None,
            newer: None,
            reset: false,
            former_ids: Vec::new(),
            announced: false,
            beat: 0,
        }
    }

    /// A row was read from `instances`; `None` removes the instance.
    pub fn on_row(&mut self, instance: &str, row: Option<Row>) {
        let Some(row) = row else {
            self.members.remove(instance);
            return;
        };
        if self.is_late(instance, &row) {
            return;
        }
        if instance == self.me {
            if row.incarnation == self.incarnation {
                self.announced = true;
                self.on_own_beat(row.beat);
            } else if !self.announced {
                self.former_ids.clone_from(&row.transactional_ids);
            }
        }
        let mut former = BTreeMap::new();
        let mut earlier = BTreeMap::new();
        if let Some(before) = self.members.remove(instance) {
            former = before.former;
            if before.row.incarnation != row.incarnation {
                former.insert(before.row.incarnation, 0);
                former.remove(&row.incarnation);
            } else if before.row.beat == row.beat {
                earlier = before.earlier;
            } else {
                earlier = before.row.running_positions();
            }
        }
        let member = Member {
            row,
            earlier,
            silent_for: 0,
            former,
        };
        self.members.insert(instance.to_owned(), member);
    }

    /// Was the row sent by a dead process, and written only after a row of the next? What it says is
    /// no longer so. Should the dead process's very first row come that late, it is the living one
    /// that is taken for dead, until it has spoken often enough.
    fn is_late(&mut self, instance: &str, row: &Row) -> bool {
        if row.incarnation == self.incarnation {
            return false;
        }
        let member = self.members.get_mut(instance);
        let heard = member.and_then(|member| member.former.get_mut(&row.incarnation));
        heard.is_some_and(|heard| {
            *heard += 1;
            *heard < ALIVE_AFTER
        })
    }

    /// Time has passed, by the measure of the log: a beat of our own came back.
    fn on_own_beat(&mut self, beat: u64) {
        if beat <= self.beat {
            return;
        }
        self.beat = beat;
        for (id, member) in &mut self.members {
            if *id != self.me {
                member.silent_for = member.silent_for.saturating_add(1);
            }
        }
    }

    /// The last beat of our own that came back: as long as it grows, the brokers answer.
    #[must_use]
    pub fn own_beat(&self) -> u64 {
        self.beat
    }

    /// A plan was read from `plans`.
    pub fn on_plan(&mut self, row: PlanRow) {
        if let (Some(generation), Some(known)) = (row.generation(), &self.plan)
            && known.generation != generation
        {
            // Numbers begin anew with a generation: they say nothing of which plan is in force.
            self.reset = true;
            return;
        }
        let number = match &row {
            PlanRow::Known(plan) => plan.number,
            PlanRow::Newer { number, .. } => *number,
        };
        if number <= self.plan_number() {
            return;
        }
        match row {
            PlanRow::Known(plan) => {
                self.plan = Some(*plan);
                self.newer = None;
            }
            // What it says of this instance cannot be known, so this instance holds nothing.
            PlanRow::Newer {
                version, number, ..
            } => self.newer = Some((version, number)),
        }
    }

    /// Has the application been reset since the first plan was read? Then the plan in force is not known,
    /// and this process, with all it holds, is of the past.
    #[must_use]
    pub fn is_reset(&self) -> bool {
        self.reset
    }

    /// Number of the plan in force; 0 before the first.
    #[must_use]
    pub fn plan_number(&self) -> PlanNumber {
        let known = self.plan.as_ref().map_or(0, |plan| plan.number);
        self.newer.map_or(known, |(_, number)| number)
    }

    /// The version of the plan in force, if this process is too old to read it.
    #[must_use]
    pub fn outdated_by(&self) -> Option<u32> {
        self.newer.map(|(version, _)| version)
    }

    /// The plan in force.
    #[must_use]
    pub fn plan(&self) -> Option<&Plan> {
        self.plan.as_ref()
    }

    /// Every instance with its last row, and whether it is present.
    pub fn members(&self) -> impl Iterator<Item = (&InstanceId, &Row, bool)> {
        let known = self.members.iter();
        known.map(|(id, member)| (id, &member.row, self.is_present(id)))
    }

    /// Has a row of this incarnation come back from the topic?
    #[must_use]
    pub fn is_announced(&self) -> bool {
        self.announced
    }

    /// The transactional ids that a former process of this instance announced.
    #[must_use]
    pub fn former_ids(&self) -> &[String] {
        &self.former_ids
    }

    /// Is this instance here, as far as the log tells?
    #[must_use]
    pub fn is_present(&self, instance: &str) -> bool {
        self.is_heard(instance, SUSPECTED_AFTER)
    }

    fn is_heard(&self, instance: &str, within: u32) -> bool {
        self.members.get(instance).is_some_and(|member| {
            member.row.status == Status::Present
                && (instance == self.me || member.silent_for < within)
        })
    }

    fn present(&self) -> BTreeMap<InstanceId, &Row> {
        let present = self.members.iter().filter(|(id, _)| self.is_present(id));
        present
            .map(|(id, member)| (id.clone(), &member.row))
            .collect()
    }

    /// How many changelog records the store of an instance lacks of `partition`, as far as rows tell;
    /// `None` if it has no store of it.
    #[must_use]
    pub fn lag(&self, partition: u32, instance: &str) -> Option<i64> {
        let position = *self.members.get(instance)?.row.stores.get(&partition)?;
        Some((self.end(partition) - position).max(0))
    }

    /// The end of a changelog, as far as anybody's store has come. Of a task that runs, what counts is
    /// its beat before the last: a follower tells where it is up to a beat late, and of a busy
    /// partition that may be more records than any lag that is acceptable.
    fn end(&self, partition: u32) -> i64 {
        let positions = self.members.values().map(|member| {
            let earlier = member.earlier.get(&partition);
            earlier.or_else(|| member.row.stores.get(&partition))
        });
        positions.flatten().max().copied().unwrap_or(0)
    }

    /// Was the plan in force made with this incarnation?
    #[must_use]
    pub fn is_member(&self) -> bool {
        let plan = self.plan.as_ref();
        plan.and_then(|p| p.members.get(&self.me)) == Some(&self.incarnation)
    }

    /// What the plan in force wants of this instance.
    #[must_use]
    pub fn roles(&self) -> BTreeMap<u32, Role> {
        if self.newer.is_some() || self.reset {
            return BTreeMap::new();
        }
        let tasks = self.plan.iter().flat_map(|p| (0u32..).zip(&p.tasks));
        tasks
            .filter_map(|(partition, task)| {
                let follows =
                    task.standbys.contains(&self.me) || task.warming_up.as_ref() == Some(&self.me);
                if task.owner.as_ref() == Some(&self.me) {
                    Some((partition, Role::Owner(task.since)))
                } else {
                    follows.then_some((partition, Role::Follower))
                }
            })
            .collect()
    }

    /// What must happen before this instance may start `partition`. `fenced` tells the plan in
    /// force when an id was last fenced by this process.
    #[must_use]
    pub fn start(&self, partition: u32, fenced: &BTreeMap<String, PlanNumber>) -> Start {
        let Some(plan) = &self.plan else {
            return Start::Wait;
        };
        let Some(task) = plan.tasks.get(partition as usize) else {
            return Start::Wait;
        };
        // A former incarnation with another number of workers wrote it with another id.
        if !self.is_listed(partition, task) {
            return Start::Wait;
        }
        let mut to_fence = Vec::new();
        let mut wait = false;
        for writer in &task.writers {
            let row = self.members.get(&writer.instance).map(|m| &m.row);
            // An id that its instance no longer has is of a dead process with more workers: what
            // the instance says of itself does not cover it.
            let row = row.filter(|row| row.transactional_ids.contains(&writer.transactional_id));
            let is_own = writer.instance == self.me && row.is_some();
            let closed = row.is_some_and(|row| row.closed_for >= task.since);
            let was_fenced = fenced
                .get(&writer.transactional_id)
                .is_some_and(|at| *at >= task.since);
            // Own ids were fenced by their own initialisation, before any plan was acted on.
            if is_own || closed || was_fenced {
                continue;
            }
            let expected = row.is_some() && plan.members.contains_key(&writer.instance);
            if expected && self.is_present(&writer.instance) {
                wait = true;
            } else {
                to_fence.push(writer.transactional_id.clone());
            }
        }
        match (to_fence.is_empty(), wait) {
            (false, _) => Start::Fence(to_fence),
            (true, true) => Start::Wait,
            (true, false) => Start::Now,
        }
    }

    /// Does the plan list the id with which this process writes `partition`? If not, whoever is
    /// given the partition next would not fence it. A plan that lists it follows, because this
    /// incarnation is new to the leader.
    fn is_listed(&self, partition: u32, task: &Assignment) -> bool {
        let me = self.members.get(&self.me);
        me.filter(|me| me.row.incarnation == self.incarnation)
            .is_some_and(|me| {
                let own = me.row.writer_of(partition);
                task.writers.iter().any(|w| w.transactional_id == own)
            })
    }
}
