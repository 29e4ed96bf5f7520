//! What must hold at every commit, and what the trace tells of the two topics.

use super::{event::Sender, kafka::Piece, world::World};
use crate::membership::{Plan, Row};

impl World {
    /// The invariants: a commit goes on exactly where the last one of its partition ended, and
    /// whoever commits is on the newest plan's list of writers.
    pub(super) fn decide(&mut self, from: &Sender, id: &str, epoch: u32, pieces: &[Piece]) {
        let who = || format!("{from} with epoch {epoch} of {id}");
        self.note(|| {
            let pieces = pieces.iter().map(|p| (p.partition, p.changelog));
            let pieces: Vec<_> = pieces.collect();
            format!("{} commits (partition, changelog) {pieces:?}", who())
        });
        for piece in pieces {
            self.tally.commits += 1;
            let partition = &mut self.kafka.partitions[piece.partition as usize];
            if piece.changelog != partition.decided {
                let last = partition.last.as_ref();
                let last = last.map(|(last, epoch)| format!("{last} with epoch {epoch}"));
                let violation = format!(
                    "two histories: {} commits {piece:?}, but {} committed up to {}",
                    who(),
                    last.unwrap_or_default(),
                    partition.decided
                );
                self.violation.get_or_insert(violation);
            }
            partition.decided += 1;
            partition.last = Some((from.clone(), epoch));
            let plan = self.kafka.newest.as_ref();
            let task = plan.and_then(|plan| plan.tasks.get(piece.partition as usize));
            let writers = task.map_or(&[][..], |task| &task.writers);
            if !writers.iter().any(|w| w.transactional_id == id) {
                let violation = format!(
                    "{} commits to partition {}, of which the writers are {writers:?}",
                    who(),
                    piece.partition
                );
                self.violation.get_or_insert(violation);
            }
        }
    }

    pub(super) fn decide_plan(&mut self, from: &Sender, plan: &Plan) {
        let before = self.kafka.newest.as_ref();
        let owner = |p: usize| before.and_then(|b| b.tasks.get(p)).map(|t| &t.owner);
        let moved = (plan.tasks.iter().enumerate()).filter(|(p, t)| owner(*p) != Some(&t.owner));
        self.tally.moves += moved.count();
        self.tally.plans += 1;
        self.note(|| {
            let tasks = plan.tasks.iter().zip(0..).map(|(t, p)| {
                let writers: Vec<_> = t.writers.iter().map(|w| &w.transactional_id[..]).collect();
                let owner = t.owner.as_deref().unwrap_or("nobody");
                let (since, standbys, next) = (t.since, &t.standbys, &t.warming_up);
                format!("{p}: {owner} since {since}, standbys {standbys:?}, next {next:?}, writers {writers:?}")
            });
            let tasks = tasks.collect::<Vec<_>>().join("\n             ");
            format!("{from} commits plan {} for {:?}\n             {tasks}", plan.number, plan.members)
        });
        if !self.kafka.numbers.insert(plan.number) {
            let violation = format!("{from} commits another plan {}", plan.number);
            self.violation.get_or_insert(violation);
        }
        self.kafka.newest = Some(plan.clone());
    }

    /// A row that says nothing new is not worth a line.
    pub(super) fn note_row(&mut self, from: &Sender, row: &Row) {
        if !self.is_traced() {
            return;
        }
        let mut rows = self.kafka.rows.iter().rev();
        let last = rows.find(|(machine, _)| *machine == from.machine);
        let what = |row: &Row| {
            let tasks: Vec<_> = row
                .tasks
                .iter()
                .map(|(p, t)| (*p, t.since, t.running))
                .collect();
            (row.incarnation.clone(), row.status, row.closed_for, tasks)
        };
        let new = what(row);
        if last.map(|(_, row)| what(row)).as_ref() != Some(&new) {
            let (incarnation, status, closed_for, tasks) = new;
            self.note(|| {
                format!(
                    "row of {incarnation}: {status:?}, closed for {closed_for}, tasks {tasks:?}"
                )
            });
        }
    }
}
