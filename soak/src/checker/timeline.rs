//! One object: is what was published about it exactly what its source records order?
//!
//! The difficulty is time. What a record does depends on the moment at which it was processed (is this vote still
//! fresh?), and most records do not say when that was. So the question is whether there is any assignment of moments,
//! growing along the log and within what is known of them ([`Clock`]), under which the model publishes exactly the
//! transitions that are there, each with its own recorded time. The search walks a lattice: so many records
//! consumed, so many outputs consumed. From each place three steps are possible:
//!
//! - a record that publishes nothing,
//! - a record that publishes the next output, at the moment which that output states,
//! - the next output, by expiry, at the moment which it states.
//!
//! Of two ways to the same place the one with the earlier moment allows whatever the other does, so the frontier stays
//! tiny, mostly one place. An expiry that is due must have been published before anything else of the partition
//! was processed at a later moment: whoever processes records looks at its timers first.

use std::collections::HashSet;

use common::schema::{Cause, State};

use super::{Class, clock::Clock};
use crate::model::{Change, Effect, Object, Rules};

mod explain;

/// A source record of the object.
#[derive(Clone, Debug)]
pub struct Input {
    /// Its offset.
    pub offset: i64,
    /// What it orders.
    pub change: Change,
    /// It was not processed before this moment.
    pub from_ms: i64,
    /// It was not processed after this moment.
    pub to_ms: i64,
}

/// A record of the output topic about the object.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its offset.
    pub offset: i64,
    /// The transition; none is a tombstone.
    pub state: Option<State>,
}

/// Why there is no explanation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unexplained {
    /// Of what kind the difference is.
    pub class: Class,
    /// The first thing that cannot be explained.
    pub what: String,
    /// When that was, as far as it is known.
    pub at_ms: Option<i64>,
}

/// One place in the lattice.
#[derive(Clone, Debug, Default, PartialEq)]
struct Place {
    /// Outputs consumed.
    used: usize,
    /// Nothing after this place happened before this moment.
    now_ms: i64,
    object: Option<Object>,
    /// By how much an expiry was published late at most so far.
    late_ms: i64,
}

/// What surrounds an object.
pub struct World<'w> {
    /// The rules of the vote.
    pub rules: &'w Rules,
    /// The times of its partition.
    pub clock: &'w Clock,
}

/// The history of one object so far.
#[derive(Clone, Debug)]
pub struct Timeline {
    id: String,
    place: Place,
    /// Transitions that were explained, by version and moment: to tell a repetition from a fabrication.
    seen: HashSet<(i64, i64)>,
}

impl Timeline {
    /// The object before its first record.
    pub fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            place: Place::default(),
            seen: HashSet::new(),
        }
    }

    /// The object as the model has it now; none if it does not exist.
    pub fn object(&self) -> Option<&Object> {
        self.place.object.as_ref()
    }

    /// By how much an expiry of this object was published late at most, in ms.
    pub fn late_ms(&self) -> i64 {
        self.place.late_ms
    }

    /// Goes on by all of these records and outputs, which belong together: whatever the records published is
    /// there, and nothing is there that a later record published.
    ///
    /// # Errors
    /// There is no explanation. The timeline stays where it was.
    pub fn advance(
        &mut self,
        world: &World<'_>,
        inputs: &[Input],
        outputs: &[Output],
    ) -> Result<(), Unexplained> {
        let mut frontier = vec![Place {
            used: 0,
            ..self.place.clone()
        }];
        for input in inputs {
            let mut next = Vec::new();
            let mut i = 0;
            while let Some(place) = frontier.get(i).cloned() {
                i += 1;
                if let Some(later) = self.expiry(world, &place, outputs) {
                    add(&mut frontier, later);
                }
                if let Some(later) = self.silent(world, &place, input) {
                    add(&mut next, later);
                }
                if let Some(later) = self.loud(world, &place, input, outputs) {
                    add(&mut next, later);
                }
            }
            if next.is_empty() {
                return Err(self.explain(world, &frontier, Some(input), outputs));
            }
            frontier = next;
        }
        let mut i = 0;
        while let Some(place) = frontier.get(i).cloned() {
            i += 1;
            if let Some(later) = self.expiry(world, &place, outputs) {
                add(&mut frontier, later);
            }
        }
        let Some(end) = frontier.iter().find(|place| place.used == outputs.len()) else {
            return Err(self.explain(world, &frontier, None, outputs));
        };
        self.place = end.clone();
        let states = outputs.iter().filter_map(|output| output.state.as_ref());
        self.seen.extend(states.map(|s| (s.version, s.since_ms)));
        Ok(())
    }

    /// What must have been published by now but was not: an expiry that was due before the partition processed
    /// something else, or more than `grace_ms` before `until_ms`.
    pub fn overdue(&self, world: &World<'_>, until_ms: i64, grace_ms: i64) -> Option<Unexplained> {
        let object = self.place.object.as_ref()?;
        let due_ms = object.unsettled_from(world.rules, self.place.now_ms)?;
        let late = if due_ms.saturating_add(grace_ms) <= until_ms {
            format!("{} ms ago", until_ms - due_ms)
        } else {
            let seen_ms = self.skipped(world, &self.place, until_ms)?;
            format!("and the partition processed something at {seen_ms}")
        };
        Some(Unexplained {
            class: Class::Lost,
            what: format!(
                "object {}: an expiry was due at {due_ms}, {late}, and no transition tells of it; {}",
                self.id,
                self.describe(world, &self.place, due_ms)
            ),
            at_ms: Some(due_ms),
        })
    }

    /// The next output as an expiry.
    fn expiry(&self, world: &World<'_>, place: &Place, outputs: &[Output]) -> Option<Place> {
        let state = outputs.get(place.used)?.state.as_ref()?;
        let at_ms = state.since_ms;
        if state.cause != Cause::Expiry || at_ms < place.now_ms {
            return None;
        }
        let mut object = place.object.clone()?;
        let due_ms = object.unsettled_from(world.rules, place.now_ms);
        let effect = object.expire(world.rules, &self.id, at_ms);
        let same = matches!(&effect, Effect::Transition(expected) if **expected == *state);
        (same && self.skipped(world, place, at_ms).is_none()).then_some(Place {
            used: place.used + 1,
            now_ms: at_ms,
            object: Some(object),
            late_ms: place.late_ms.max(at_ms - due_ms.unwrap_or(at_ms)),
        })
    }

    /// The record without an output, at the earliest moment at which it has none.
    fn silent(&self, world: &World<'_>, place: &Place, input: &Input) -> Option<Place> {
        self.at_some_moment(world, place, input, &Effect::Silent)
    }

    /// The record with the next output.
    fn loud(
        &self,
        world: &World<'_>,
        place: &Place,
        input: &Input,
        outputs: &[Output],
    ) -> Option<Place> {
        let mut later = match &outputs.get(place.used)?.state {
            None => self.at_some_moment(world, place, input, &Effect::Tombstone)?,
            Some(state) => {
                let at_ms = state.since_ms;
                if at_ms < place.now_ms.max(input.from_ms) || at_ms > input.to_ms {
                    return None;
                }
                let wanted = Effect::Transition(Box::new(state.clone()));
                self.at(world, place, input, at_ms, &wanted)?
            }
        };
        later.used += 1;
        Some(later)
    }

    /// The record at the earliest moment of its window at which it has this effect.
    fn at_some_moment(
        &self,
        world: &World<'_>,
        place: &Place,
        input: &Input,
        wanted: &Effect,
    ) -> Option<Place> {
        let from_ms = place.now_ms.max(input.from_ms);
        if from_ms > input.to_ms {
            return None;
        }
        if let Some(later) = self.at(world, place, input, from_ms, wanted) {
            return Some(later);
        }
        // Between two turning points nothing changes, so the turning points themselves are all there is to try.
        let object = place.object.as_ref();
        let mut moments = world.rules.turning_points(object, &input.change);
        moments.retain(|at| *at > from_ms && *at <= input.to_ms);
        moments.sort_unstable();
        let mut tries = moments.into_iter();
        tries.find_map(|at_ms| self.at(world, place, input, at_ms, wanted))
    }

    /// The record at this moment, if it has this effect then and nothing else had to be published before.
    fn at(
        &self,
        world: &World<'_>,
        place: &Place,
        input: &Input,
        at_ms: i64,
        wanted: &Effect,
    ) -> Option<Place> {
        let settled = |object: &Object| object.settled(world.rules, at_ms);
        if !place.object.as_ref().is_none_or(settled) {
            return None;
        }
        let mut object = place.object.clone();
        let effect = world
            .rules
            .apply(&mut object, &self.id, &input.change, at_ms);
        if effect != *wanted || self.skipped(world, place, at_ms).is_some() {
            return None;
        }
        Some(Place {
            used: place.used,
            now_ms: at_ms,
            object,
            late_ms: place.late_ms,
        })
    }

    /// When the partition processed something although an expiry of this object was due, between `place` and
    /// `to_ms`.
    fn skipped(&self, world: &World<'_>, place: &Place, to_ms: i64) -> Option<i64> {
        let object = place.object.as_ref()?;
        let mut from_ms = place.now_ms;
        while let Some(due_ms) = object.unsettled_from(world.rules, from_ms) {
            if due_ms >= to_ms {
                return None;
            }
            let expiries = object.expiries(world.rules).filter(|at| *at > due_ms);
            let until_ms = expiries.min().unwrap_or(to_ms).min(to_ms);
            if let Some(seen_ms) = world.clock.processed_within(due_ms, until_ms) {
                return Some(seen_ms);
            }
            from_ms = until_ms;
        }
        None
    }
}

/// Adds a place unless there is one that allows as much.
fn add(frontier: &mut Vec<Place>, place: Place) {
    let known = frontier
        .iter_mut()
        .find(|known| known.used == place.used && known.object == place.object);
    match known {
        Some(known) => known.now_ms = known.now_ms.min(place.now_ms),
        None => frontier.push(place),
    }
}

#[cfg(test)]
mod tests;
