//! What to say when there is no explanation: of which kind the difference is, and all that is known of it.

use super::{Input, Output, Place, Timeline, Unexplained, World};
use crate::checker::Class;
use crate::model::{Change, Effect, Object};

impl Timeline {
    /// What the search could not explain, told from the place that got furthest.
    pub(super) fn explain(
        &self,
        world: &World<'_>,
        frontier: &[Place],
        input: Option<&Input>,
        outputs: &[Output],
    ) -> Unexplained {
        let nowhere = Place::default();
        let place = frontier.iter().max_by_key(|place| place.used);
        let place = place.unwrap_or(&nowhere);
        let output = outputs.get(place.used);
        let version = |place: &Place| {
            let published = place.object.as_ref().and_then(Object::published);
            published.map_or(0, |p| p.version)
        };
        let effect = input.map(|input| {
            let from_ms = place.now_ms.max(input.from_ms);
            let mut object = place.object.clone();
            let rules = world.rules;
            rules.apply(&mut object, &self.id, &input.change, from_ms)
        });
        let due_ms = place
            .object
            .as_ref()
            .and_then(|object| object.unsettled_from(world.rules, place.now_ms))
            .filter(|due_ms| input.is_none_or(|input| *due_ms <= input.from_ms));
        let missing = due_ms.is_some() || matches!(effect, Some(Effect::Transition(_)));
        // A tombstone is the last thing that is known of it.
        let last = place.used.checked_sub(1).and_then(|i| outputs.get(i));
        let deleted = last.map_or(!self.seen.is_empty(), |output| output.state.is_none());
        // What is missing comes right behind: then it is the tombstone before it that is too much.
        let behind = outputs.get(place.used + 1).and_then(|o| o.state.as_ref());
        let comes = matches!(&effect, Some(Effect::Transition(state)) if behind == Some(&**state));
        let gone = place.object.is_none() && (!missing || (deleted && comes));
        let class = match output.map(|output| &output.state) {
            None => Class::Lost,
            Some(None) if gone => Class::Doubled,
            Some(None) if missing => Class::Lost,
            Some(None) => Class::Wrong,
            Some(Some(state)) => {
                let earlier = outputs[..place.used].iter().flat_map(|o| &o.state);
                let repeated = self.seen.contains(&(state.version, state.since_ms));
                if repeated || earlier.into_iter().any(|earlier| earlier == state) {
                    Class::Doubled
                } else if state.version > version(place) + 1
                    || (state.version <= version(place) && effect == Some(Effect::Tombstone))
                {
                    Class::Lost
                } else {
                    Class::Wrong
                }
            }
        };
        let at_ms = output.and_then(|o| o.state.as_ref()).map(|s| s.since_ms);
        let mut what = format!("object {}: ", self.id);
        match input {
            Some(input) => {
                let from_ms = place.now_ms.max(input.from_ms);
                what += &format!(
                    "the source record at offset {}, {:?}, processed between {from_ms} and {}, should have had the \
                     effect {effect:?}",
                    input.offset,
                    Short(&input.change),
                    input.to_ms
                );
            }
            None => what += "all source records are accounted for",
        }
        if let Some(due_ms) = due_ms {
            what += &format!("; an expiry was due at {due_ms}");
        }
        match output {
            Some(output) => {
                let state = output.state.as_ref();
                what += &format!(
                    "; the next output, at offset {}, is {state:?}",
                    output.offset
                );
            }
            None => what += "; there is no further output",
        }
        what += &format!("; {}", self.describe(world, place, place.now_ms));
        Unexplained {
            class,
            what,
            at_ms: at_ms.or(input.map(|input| input.to_ms)),
        }
    }

    pub(super) fn describe(&self, world: &World<'_>, place: &Place, at_ms: i64) -> String {
        let Some(object) = &place.object else {
            return "by the model the object does not exist".to_owned();
        };
        format!(
            "by the model it was last published as {:?}, its fresh votes at {at_ms} are {:?}, its override is {:?}",
            object.published(),
            object.fresh(world.rules, at_ms),
            object.override_()
        )
    }
}

/// A change without the bytes that it came in.
struct Short<'c>(&'c Change);

impl std::fmt::Debug for Short<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Change::Report(report, _) => write!(f, "{report:?}"),
            other => write!(f, "{other:?}"),
        }
    }
}
