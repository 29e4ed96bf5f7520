//! What happens, when, and to whom.

use std::{cmp::Ordering, fmt};

use super::kafka::{Answer, Request};
use crate::membership::PlanNumber;

/// Something that happens at a time.
pub(super) enum Event {
    /// A request reaches the broker.
    Request(Sender, Request),
    /// An answer reaches the process.
    Answer(Sender, Answer),
    /// A transaction is marked as resolved on the changelogs, or on the topic of the offsets.
    Markers {
        id: String,
        offsets: bool,
    },
    /// A thread of a process takes a step.
    Step(usize, u32, Step),
    Boot(usize),
    Thaw(usize),
    Heal(usize),
    Fault,
    /// Is everything as it shall be?
    Look,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// The conductor listens and acts.
    Turn,
    CaughtUp,
    Beat,
    Worker(u32, u32),
    Restorer,
    /// The seat gives up what it was asked for.
    SeatTimeout(u32),
    /// Leaving has taken too long.
    Deadline,
}

/// Who asked the broker.
#[derive(Debug, Clone)]
pub(super) struct Sender {
    pub(super) machine: usize,
    pub(super) process: u32,
    pub(super) caller: Caller,
}

/// A thread of a process.
#[derive(Debug, Clone)]
pub(super) enum Caller {
    Beats,
    Seat(u32),
    /// A worker and which start of it.
    Worker(u32, u32),
    Fence(String, PlanNumber),
    /// The fence of a former incarnation's id.
    Join(String),
    /// Nobody waits for the answer.
    Nobody,
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = name_of(self.machine);
        write!(f, "{name}#{} ({:?})", self.process, self.caller)
    }
}

/// An event with its time; of those at one time the first that was queued comes first.
pub(super) struct Queued {
    pub(super) at: u64,
    pub(super) number: u64,
    pub(super) event: Event,
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Queued {}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

pub(super) fn name_of(machine: usize) -> &'static str {
    ["a", "b", "c", "d"][machine]
}
