//! Taking the lead, and what a leader does: plans, and forgetting who is gone for good.

use std::time::{Duration, Instant};

use super::conductor::Conductor;
use crate::{
    membership::{
        PlanNumber,
        link::{Duty, SeatNews},
    },
    processor::Processor,
};

/// How long an instance that lost the leader's seat leaves it to others.
const YIELD_THE_SEAT_FOR: Duration = Duration::from_secs(2);

/// The leader's seat as this instance has it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lead {
    No,
    /// Something was asked of the seat.
    Asked,
    /// This plan is committed, and has not been read yet.
    Published(PlanNumber),
    Yes,
}

impl<P: Processor> Conductor<P> {
    pub(super) fn on_seat(&mut self, news: SeatNews) {
        self.lead = match news {
            SeatNews::Seated => {
                tracing::info!("this instance leads");
                // A former leader's last plan must be known before the next is made.
                match self.read_to_end() {
                    true => Lead::Yes,
                    false => Lead::No,
                }
            }
            SeatNews::Published(number) => Lead::Published(number),
            SeatNews::Deposed(why) => {
                tracing::info!(why, "this instance does not lead");
                self.deposed = Some(Instant::now());
                Lead::No
            }
        };
    }

    /// Takes the lead when nobody has it, and makes the next plan when it is time for one.
    pub(super) fn lead(&mut self) {
        if let Lead::Published(number) = self.lead
            && self.cluster.plan_number() >= number
        {
            self.lead = Lead::Yes;
        }
        match self.lead {
            Lead::No if self.cluster.should_take_lead() && !self.just_deposed() => {
                self.lead = Lead::Asked;
                self.seat.ask(Duty::TakeLead);
            }
            Lead::Yes => {
                self.forget_the_gone();
                if let Some(plan) = self.cluster.next_plan(self.settings.partitions) {
                    tracing::info!(number = plan.number, members = ?plan.members.keys(), "writing a plan");
                    self.lead = Lead::Asked;
                    self.seat.ask(Duty::Publish(Box::new(plan)));
                }
            }
            Lead::No | Lead::Asked | Lead::Published(_) => {}
        }
    }

    fn forget_the_gone(&mut self) {
        if let Some(beats) = &self.beats
            && let Some(instance) = self.cluster.forget()
        {
            tracing::info!(
                instance,
                "away for a day and without tasks: its row is removed"
            );
            beats.forget(instance);
        }
    }

    /// Who has just lost the seat lets the one who took it write its plan first.
    fn just_deposed(&self) -> bool {
        self.deposed
            .is_some_and(|at| at.elapsed() < YIELD_THE_SEAT_FOR)
    }
}
