//! The rows of the changelog are what the model knows: per object the latest report of each agent as it was sent, the
//! override, the last transition, and a timer for whatever expires next.
//!
//! Only the stored form is the engine's (its `Stored`); what must be in it comes from the model.

use std::collections::BTreeMap;

use common::schema::{SiteAttackVerdict, Verdict as _};
use engine::scenario::object::{Slot, Stored};

use super::{Class, Finding, changelog::Value};
use crate::model::{Heard, Object, Rules};

const CHECK: &str = "rows";

/// Prefix of the rows that hold objects.
pub const OBJECT: u8 = b'o';

/// When the rows were read.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Whatever expired this long ago has been dealt with.
    pub past_ms: i64,
    /// They were not read after this.
    pub until_ms: i64,
}

/// Is each object of this partition as the model has it? `candidates` gives the rows
/// that an object may have: more than one if it changed while it was being looked at.
pub fn check(
    rules: &Rules,
    partition: i32,
    objects: &BTreeMap<&str, &Object>,
    candidates: &dyn Fn(&str) -> Vec<Value>,
    moment: Moment,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let finding = |id: &str, class, what: String| {
        let what = format!("changelog partition {partition}, object {id}: {what}");
        Finding::new(class, CHECK, what)
    };
    for (id, object) in objects {
        let mut why = Vec::new();
        for row in candidates(id) {
            match row.map(|row| Stored::decode(&row)) {
                None => why.push("it has no row".to_owned()),
                Some(Err(error)) => why.push(format!("its row cannot be read: {error}")),
                Some(Ok(stored)) => match differs(rules, object, &stored, moment) {
                    Some(difference) => why.push(difference),
                    None => {
                        why.clear();
                        break;
                    }
                },
            }
        }
        if let Some(why) = why.pop() {
            let class = if why == "it has no row" {
                Class::Lost
            } else {
                Class::Wrong
            };
            findings.push(finding(id, class, why));
        }
    }
    findings
}

/// How a row differs from the model's object.
fn differs(rules: &Rules, object: &Object, stored: &Stored, moment: Moment) -> Option<String> {
    let name = |place: Option<u8>| {
        let verdict = place.and_then(|p| SiteAttackVerdict::ALL.get(usize::from(p)));
        verdict.map_or(common::schema::UNDETERMINED, |v| v.name())
    };
    let current = stored.current.as_ref().map(|c| {
        let previous = c.previous.map(name);
        (
            name(c.verdict),
            previous,
            c.basis,
            c.cause,
            c.since_ms,
            c.version,
        )
    });
    let published = object.published().map(|p| {
        (
            p.verdict, p.previous, p.basis, p.cause, p.since_ms, p.version,
        )
    });
    if current != published {
        return Some(format!(
            "its state is {current:?}, by the model {published:?}"
        ));
    }
    let override_ = stored.override_.as_ref().map(|o| {
        (
            name(Some(o.verdict)),
            o.operator.as_deref(),
            o.note.as_deref(),
            o.set_at_ms,
            o.expires_at_ms,
        )
    });
    let expected = object.override_().map(|o| {
        (
            o.verdict.as_str(),
            o.operator.as_deref(),
            o.note.as_deref(),
            o.set_at_ms,
            o.expires_at_ms,
        )
    });
    if override_ != expected {
        return Some(format!(
            "its override is {override_:?}, by the model {expected:?}"
        ));
    }
    if stored.slots.len() != object.votes().len() {
        let agents: Vec<_> = stored.slots.iter().map(|slot| &slot.agent_id).collect();
        return Some(format!(
            "it has reports of {agents:?}, by the model of {:?}",
            object
                .votes()
                .iter()
                .map(|heard| &heard.vote.agent_id)
                .collect::<Vec<_>>()
        ));
    }
    let mut pairs = stored.slots.iter().zip(object.votes());
    let odd = pairs.find_map(|(slot, heard)| slot_differs(rules, slot, heard, moment));
    odd.or_else(|| timer_differs(rules, stored))
}

fn slot_differs(rules: &Rules, slot: &Slot, heard: &Heard, moment: Moment) -> Option<String> {
    let vote = &heard.vote;
    let verdict = SiteAttackVerdict::ALL.get(usize::from(slot.verdict));
    let same = slot.agent_id == vote.agent_id
        && slot.observed_at_ms == vote.observed_at_ms
        && slot.sequence == vote.sequence
        && i64::from(slot.weight) == vote.weight
        && verdict.is_some_and(|v| v.name() == vote.verdict)
        && *slot.report == *heard.bytes;
    if !same {
        return Some(format!(
            "the report of an agent is {slot:?}, by the model {vote:?}"
        ));
    }
    let expiry_ms = vote.observed_at_ms.saturating_add(rules.freshness_ms);
    let must = expiry_ms > moment.until_ms;
    let may = expiry_ms > moment.past_ms;
    if (must && !slot.counted) || (!may && slot.counted) {
        return Some(format!(
            "the vote of {} expires at {expiry_ms} and counted is {}, looked at before {}",
            slot.agent_id, slot.counted, moment.until_ms
        ));
    }
    None
}

/// A timer is never later than the first expiry.
fn timer_differs(rules: &Rules, stored: &Stored) -> Option<String> {
    let counted = stored.slots.iter().filter(|slot| slot.counted);
    let votes = counted.map(|slot| slot.observed_at_ms.saturating_add(rules.freshness_ms));
    let override_ = stored.override_.as_ref().and_then(|o| o.expires_at_ms);
    let first_ms = votes.chain(override_).min()?;
    match stored.timer_ms {
        Some(armed_ms) if armed_ms <= first_ms => None,
        armed => Some(format!(
            "its timer is at {armed:?}, and something expires at {first_ms}"
        )),
    }
}
