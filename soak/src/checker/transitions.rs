//! The output topic is exactly what the model publishes: per object each transition once, in order, and as it must be.

use std::collections::{BTreeMap, HashMap, HashSet};

use common::schema::{Cause, State};
use e2e::topics::Record;

use super::{
    Class, Finding,
    clock::{Anchor, Clock},
    dead_letters::DeadLetters,
    source::Judged,
    timeline::{Input, Output, Timeline, Unexplained, World},
};
use crate::model::{Change, Object, Rules};

const CHECK: &str = "transitions";

/// A record of the output topic.
pub type Published = (Record, Option<State>);

/// All objects' histories.
#[derive(Debug)]
pub struct Transitions {
    rules: Rules,
    timelines: BTreeMap<String, (i32, Timeline)>,
    clocks: HashMap<i32, Clock>,
    /// The last transition's moment in each partition.
    last_ms: HashMap<i32, i64>,
    /// Objects that could not be explained; whatever follows would be an echo of that.
    broken: HashSet<String>,
    expiries: u64,
}

/// The stretch of the logs to be explained.
pub struct Stretch<'s> {
    /// Source records, all of them processed.
    pub source: &'s [(Record, Judged)],
    /// What was published meanwhile.
    pub outputs: &'s [Published],
    /// What was rejected meanwhile.
    pub rejected: &'s DeadLetters,
    /// Everything until this moment can be seen in the outputs.
    pub complete_ms: i64,
    /// Nothing of it was processed after this moment.
    pub until_ms: i64,
}

impl Transitions {
    /// No object yet.
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            timelines: BTreeMap::new(),
            clocks: HashMap::new(),
            last_ms: HashMap::new(),
            broken: HashSet::new(),
            expiries: 0,
        }
    }

    /// Every object that the model knows and that was explained so far.
    pub fn objects(&self) -> impl Iterator<Item = (&str, &Object)> {
        self.timelines.iter().filter_map(|(id, (_, timeline))| {
            (!self.broken.contains(id)).then_some((id.as_str(), timeline.object()?))
        })
    }

    /// Is it known to be unexplained?
    pub fn is_broken(&self, id: &str) -> bool {
        self.broken.contains(id)
    }

    /// How many expiries were published, and by how much they were late at most, in ms.
    pub fn expiries(&self) -> (u64, i64) {
        let timelines = self.timelines.values();
        let late_ms = timelines.map(|(_, timeline)| timeline.late_ms()).max();
        (self.expiries, late_ms.unwrap_or(0))
    }

    /// The model's rules.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Explains a stretch. An expiry that is due and was not published within `grace_ms` is lost.
    pub fn check(&mut self, topic: &str, stretch: &Stretch<'_>, grace_ms: i64) -> Vec<Finding> {
        let mut findings = self.order(topic, stretch.outputs);
        findings.extend(self.times(stretch));
        let mut work: BTreeMap<String, (i32, Vec<Input>, Vec<Output>)> = BTreeMap::new();
        for (id, (partition, _)) in &self.timelines {
            work.insert(id.clone(), (*partition, Vec::new(), Vec::new()));
        }
        for (record, judged) in stretch.source {
            let Some((id, input)) = self.input(stretch, record, judged) else {
                continue;
            };
            let slot = work
                .entry(id)
                .or_insert_with(|| (record.partition, vec![], vec![]));
            slot.1.push(input);
        }
        for (record, state) in stretch.outputs {
            let slot = work.entry(record.key_text());
            let slot = slot.or_insert_with(|| (record.partition, vec![], vec![]));
            if slot.0 != record.partition {
                let what = format!(
                    "{topic} partition {} offset {}: object {} belongs to partition {}",
                    record.partition,
                    record.offset,
                    record.key_text(),
                    slot.0
                );
                findings.push(Finding::new(Class::Wrong, CHECK, what));
            }
            slot.2.push(Output {
                offset: record.offset,
                state: state.clone(),
            });
        }
        for (id, (partition, inputs, outputs)) in work {
            if let Some(unexplained) =
                self.object(stretch, grace_ms, &id, partition, &inputs, &outputs)
            {
                findings.push(Finding {
                    class: unexplained.class,
                    check: CHECK,
                    what: format!("{topic} partition {partition}, {}", unexplained.what),
                    at_ms: unexplained.at_ms,
                });
                self.broken.insert(id);
            }
        }
        findings
    }

    /// The record as an input to its object; none if it changes nothing by itself.
    fn input(
        &self,
        stretch: &Stretch<'_>,
        record: &Record,
        judged: &Judged,
    ) -> Option<(String, Input)> {
        let clock = self.clocks.get(&record.partition);
        let (mut from_ms, to_ms) = clock.map_or((0, stretch.until_ms), |clock| {
            clock.window(record.offset, stretch.until_ms)
        });
        let (id, change) = match judged {
            Judged::Misrouted(_) | Judged::Bad(_) => return None,
            Judged::Good(id, change) => (id, change),
            Judged::GoodFrom(accepted_ms, id, change) => {
                if stretch.rejected.rejected((record.partition, record.offset)) {
                    return None;
                }
                from_ms = from_ms.max(*accepted_ms);
                (id, change)
            }
        };
        let input = Input {
            offset: record.offset,
            change: change.clone(),
            from_ms,
            to_ms,
        };
        Some((id.clone(), input))
    }

    fn object(
        &mut self,
        stretch: &Stretch<'_>,
        grace_ms: i64,
        id: &str,
        partition: i32,
        inputs: &[Input],
        outputs: &[Output],
    ) -> Option<Unexplained> {
        if self.broken.contains(id) {
            return None;
        }
        let unknown = Clock::default();
        let world = World {
            rules: &self.rules,
            clock: self.clocks.get(&partition).unwrap_or(&unknown),
        };
        let timeline = self.timelines.entry(id.to_owned());
        let (_, timeline) = timeline.or_insert_with(|| (partition, Timeline::new(id)));
        let advanced = timeline.advance(&world, inputs, outputs).err();
        advanced.or_else(|| timeline.overdue(&world, stretch.complete_ms, grace_ms))
    }

    /// A partition's transitions are published in the order in which they were made.
    fn order(&mut self, topic: &str, outputs: &[Published]) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (record, state) in outputs {
            let Some(state) = state else { continue };
            let last_ms = self.last_ms.entry(record.partition).or_insert(0);
            if state.since_ms < *last_ms {
                let what = format!(
                    "{topic} partition {} offset {}: a transition of {} made at {} stands behind one made at {last_ms}",
                    record.partition, record.offset, state.object_id, state.since_ms
                );
                findings.push(Finding::new(Class::Wrong, CHECK, what).at(state.since_ms));
            }
            *last_ms = (*last_ms).max(state.since_ms);
            if state.cause == Cause::Expiry {
                self.expiries += 1;
            }
        }
        findings
    }

    /// Finds the moments that are known, for [`Clock`].
    fn times(&mut self, stretch: &Stretch<'_>) -> Vec<Finding> {
        // A command is known by its object and its unique note.
        let mut commands: HashMap<(&str, &str), Option<(i32, i64)>> = HashMap::new();
        for (record, judged) in stretch.source {
            if let Judged::Good(id, Change::Set(command)) = judged
                && let Some(note) = &command.note
            {
                let known = commands.entry((id, note));
                known
                    .and_modify(|place| *place = None)
                    .or_insert(Some((record.partition, record.offset)));
            }
        }
        let mut anchors: BTreeMap<i32, Vec<Anchor>> = BTreeMap::new();
        for (record, _) in stretch.source {
            let partition = record.partition;
            let rejected = || stretch.rejected.anchors(partition);
            anchors.entry(partition).or_insert_with(rejected);
        }
        for (_, state) in stretch.outputs {
            if let Some(state) = state
                && state.cause == Cause::Override
                && let Some(note) = state.override_.as_ref().and_then(|o| o.note.as_deref())
                && let Some(Some((partition, offset))) =
                    commands.get(&(state.object_id.as_str(), note))
            {
                anchors.entry(*partition).or_default().push(Anchor {
                    offset: *offset,
                    at_ms: state.since_ms,
                });
            }
        }
        let mut findings = Vec::new();
        for (partition, anchors) in anchors {
            if let Err((a, b)) = self.clocks.entry(partition).or_default().add(anchors) {
                let what = format!(
                    "source partition {partition} was not processed in order: offset {} at {}, offset {} at {}",
                    a.offset, a.at_ms, b.offset, b.at_ms
                );
                findings.push(Finding::new(Class::Wrong, CHECK, what).at(b.at_ms));
            }
        }
        findings
    }
}
