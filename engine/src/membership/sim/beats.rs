//! The thread that writes an instance's row.

use super::{
    event::{Caller, Event, Step},
    kafka::Request,
    process::{Process, Stage},
    world::World,
};
use crate::membership::{PlanNumber, Row, Status};

/// Between two beats, in ms.
pub(super) const BEAT: u64 = 400;
/// How long the last row is waited for.
const FLUSH: u64 = 3_000;

pub(super) struct Beats {
    pub(super) row: Row,
    last_beat: Option<u64>,
    in_flight: bool,
    due: bool,
}

impl Beats {
    pub(super) fn new(row: Row) -> Self {
        Self {
            row,
            last_beat: None,
            in_flight: false,
            due: false,
        }
    }
}

impl World {
    /// Changes the row; if that made a difference, it is written at once.
    pub(super) fn update_row(&mut self, p: &mut Process, change: impl FnOnce(&mut Row)) {
        let (tasks, closed_for) = (p.beats.row.tasks.clone(), p.beats.row.closed_for);
        change(&mut p.beats.row);
        if (&tasks, closed_for) != (&p.beats.row.tasks, p.beats.row.closed_for) {
            p.beats.due = true;
            self.write_if_due(p);
        }
    }

    pub(super) fn beat_due(&mut self, p: &mut Process) {
        let is_due = |at| self.now >= at + BEAT;
        if p.beats.last_beat.is_none_or(is_due) && p.stage != Stage::Goodbye {
            p.beats.due = true;
            self.write_if_due(p);
        }
    }

    pub(super) fn row_done(&mut self, p: &mut Process) {
        p.beats.in_flight = false;
        if p.stage == Stage::Goodbye {
            if p.beats.row.status == Status::Left {
                p.ended = true;
            } else {
                self.last_row(p);
            }
            return;
        }
        self.write_if_due(p);
    }

    fn write_if_due(&mut self, p: &mut Process) {
        if !p.beats.due || p.beats.in_flight {
            return;
        }
        p.beats.due = false;
        p.beats.in_flight = true;
        if p.beats.last_beat.is_none_or(|at| self.now >= at + BEAT) {
            p.beats.row.beat += 1;
            p.beats.last_beat = Some(self.now);
            self.schedule(BEAT, Event::Step(p.machine, p.number, Step::Beat));
            self.follow(p);
            p.beats
                .row
                .stores
                .clone_from(&self.machines[p.machine].stores);
        }
        let row = Box::new(p.beats.row.clone());
        self.send(p, Caller::Beats, Request::Row(row));
    }

    /// Writes the row a last time, after the one that is on its way.
    pub(super) fn last_row(&mut self, p: &mut Process) {
        if p.beats.in_flight {
            return;
        }
        p.beats.in_flight = true;
        p.beats.row.status = Status::Left;
        p.beats.row.tasks.clear();
        p.beats.row.closed_for = PlanNumber::MAX;
        let row = Box::new(p.beats.row.clone());
        self.send(p, Caller::Beats, Request::Row(row));
        self.schedule(FLUSH, Event::Step(p.machine, p.number, Step::Deadline));
    }
}
