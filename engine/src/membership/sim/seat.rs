//! The leader's seat, and what the conductor asks of it.

use super::{
    Sabotage,
    event::{Caller, Event, Step},
    kafka::{Answer, Payload, Request, SEAT},
    process::{Happening, Process, YIELD_THE_SEAT_FOR},
    world::World,
};
use crate::membership::Plan;

/// How long the seat tries.
const CALL: u64 = 5_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lead {
    No,
    Asked,
    Yes,
}

#[derive(Default)]
pub(super) struct Seat {
    epoch: Option<u32>,
    /// Counts what was asked of it.
    ask: u32,
    plan: Option<Box<Plan>>,
    busy: bool,
}

impl World {
    /// Takes the lead when nobody has it, and makes the next plan when it is time for one.
    pub(super) fn lead(&mut self, p: &mut Process) {
        match p.lead {
            Lead::No => {
                let just_deposed = p
                    .deposed
                    .is_some_and(|at| self.now < at + YIELD_THE_SEAT_FOR);
                if p.cluster.should_take_lead() && !just_deposed {
                    self.ask_seat(p, None);
                }
            }
            Lead::Yes => {
                if let Some(mut plan) = p.cluster.next_plan(self.swarm.partitions) {
                    if self.sabotage == Some(Sabotage::LastWriterOnly) {
                        for task in &mut plan.tasks {
                            task.writers.drain(..task.writers.len().saturating_sub(2));
                        }
                    }
                    self.ask_seat(p, Some(Box::new(plan)));
                }
            }
            Lead::Asked => {}
        }
    }

    fn ask_seat(&mut self, p: &mut Process, plan: Option<Box<Plan>>) {
        p.lead = Lead::Asked;
        p.seat.ask += 1;
        p.seat.busy = true;
        p.seat.plan = plan;
        let ask = p.seat.ask;
        self.schedule(
            CALL,
            Event::Step(p.machine, p.number, Step::SeatTimeout(ask)),
        );
        self.ask_broker(p);
    }

    fn ask_broker(&mut self, p: &mut Process) {
        let id = SEAT.to_owned();
        let request = match (&p.seat.plan, p.seat.epoch) {
            (None, _) => Request::Init(id),
            (Some(plan), Some(epoch)) => Request::Write(id, epoch, Payload::Plan(plan.clone())),
            (Some(_), None) => return self.settle_seat(p, Happening::Deposed),
        };
        self.send(p, Caller::Seat(p.seat.ask), request);
    }

    pub(super) fn on_seat_answer(&mut self, p: &mut Process, ask: u32, answer: Answer) {
        if !p.seat.busy || ask != p.seat.ask {
            return;
        }
        match answer {
            Answer::Concurrent => self.ask_broker(p),
            Answer::Initialised(epoch) => {
                p.seat.epoch = Some(epoch);
                self.settle_seat(p, Happening::Seated);
            }
            Answer::Written => {
                let epoch = p.seat.epoch.unwrap_or_default();
                let request = Request::End(SEAT.to_owned(), epoch, true);
                self.send(p, Caller::Seat(ask), request);
            }
            Answer::Committed => {
                let number = p.seat.plan.as_ref().map_or(0, |plan| plan.number);
                self.settle_seat(p, Happening::Published(number));
            }
            _ => self.settle_seat(p, Happening::Deposed),
        }
    }

    pub(super) fn seat_timeout(&mut self, p: &mut Process, ask: u32) {
        if p.seat.busy && ask == p.seat.ask {
            self.settle_seat(p, Happening::Deposed);
        }
    }

    fn settle_seat(&mut self, p: &mut Process, happening: Happening) {
        p.seat.busy = false;
        if matches!(happening, Happening::Deposed) {
            p.seat.epoch = None;
        }
        self.report(p, happening);
    }
}
