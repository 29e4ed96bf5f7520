//! What others see of an object: its published state and its stored reports.

use common::{
    avro::put,
    schema::{Override, State, UNDETERMINED, Vote},
};

use super::{
    Scenario, Verdict as _,
    object::{Current, Object, OverrideRow, Stored, verdict_at},
    votes::Votes,
};

/// The state of an object, with the votes that are fresh in `stored`: in a published record those of
/// the transition, in an answer to a query those of now. `None` before its first decision.
#[must_use]
pub fn state<S: Scenario>(object_id: &str, stored: &Stored) -> Option<State> {
    let current = stored.current.as_ref()?;
    Some(State {
        object_id: object_id.to_owned(),
        scenario: S::NAME.to_owned(),
        verdict: name::<S>(current.verdict).to_owned(),
        previous_verdict: current.previous.map(|p| name::<S>(p).to_owned()),
        basis: current.basis,
        cause: current.cause,
        since_ms: current.since_ms,
        version: current.version,
        votes: votes::<S>(stored),
        override_: stored.override_.as_ref().map(override_::<S>),
    })
}

/// The fresh votes, by agent id.
fn votes<S: Scenario>(stored: &Stored) -> Vec<Vote> {
    let counted = stored.slots.iter().filter(|slot| slot.counted);
    counted
        .map(|slot| Vote {
            agent_id: slot.agent_id.clone(),
            verdict: name::<S>(Some(slot.verdict)).to_owned(),
            weight: i64::from(slot.weight),
            observed_at_ms: slot.observed_at_ms,
            sequence: slot.sequence,
        })
        .collect()
}

fn override_<S: Scenario>(row: &OverrideRow) -> Override {
    Override {
        verdict: name::<S>(Some(row.verdict)).to_owned(),
        operator: row.operator.clone(),
        note: row.note.clone(),
        set_at_ms: row.set_at_ms,
        expires_at_ms: row.expires_at_ms,
    }
}

fn name<S: Scenario>(place: Option<u8>) -> &'static str {
    place
        .and_then(verdict_at::<S::Verdict>)
        .map_or(UNDETERMINED, |verdict| verdict.name())
}

/// Appends the state of an object, with the votes that count by agent id: a datum of [`STATE`](common::schema::STATE),
/// field by field, which takes a fifth of the time that it takes to serialise a [`State`].
pub(super) fn put_state<S: Scenario>(
    out: &mut Vec<u8>,
    object_id: &[u8],
    current: &Current,
    object: &Object<S>,
) {
    let put_name = |out: &mut Vec<u8>, place| put::text(out, name::<S>(place).as_bytes());
    put::text(out, object_id);
    put::text(out, S::NAME.as_bytes());
    put_name(out, current.verdict);
    put::optional(out, current.previous, put_name);
    put::long(out, current.basis as i64);
    put::long(out, current.cause as i64);
    put::long(out, current.since_ms);
    put::long(out, current.version);
    put_votes::<S>(out, &object.votes);
    put::optional(out, object.override_.as_deref(), |out, order| {
        put_name(out, Some(order.verdict));
        for text in [&order.operator, &order.note] {
            put::optional(out, text.as_deref(), |out, text| {
                put::text(out, text.as_bytes());
            });
        }
        put::long(out, order.set_at_ms);
        put::optional(out, order.expires_at_ms, put::long);
    });
}

/// One block of all that count, and the end of the array.
fn put_votes<S: Scenario>(out: &mut Vec<u8>, votes: &Votes) {
    let start = out.len();
    put::length(out, votes.len());
    let first = out.len();
    let mut counted = 0;
    for vote in votes.iter().filter(|vote| vote.counted) {
        counted += 1;
        put::text(out, vote.agent);
        put::text(out, name::<S>(Some(vote.verdict)).as_bytes());
        put::long(out, i64::from(vote.weight));
        put::long(out, vote.observed_at_ms);
        put::long(out, vote.sequence);
    }
    if counted < votes.len() {
        // Not all do, and that is known only now.
        let mut length = Vec::new();
        put::length(&mut length, counted);
        out.splice(start..first, length);
    }
    // A block of no items is the end.
    if counted > 0 {
        put::length(out, 0);
    }
}
