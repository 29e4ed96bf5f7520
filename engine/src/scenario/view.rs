//! What others see of an object: its published state and its stored reports.

use common::schema::{Override, State, UNDETERMINED, Vote};

use super::{
    Scenario, Verdict as _,
    object::{OverrideRow, Stored, verdict_at},
};

/// The state of an object, with the votes that are fresh in `stored`: in a published record those of
/// the transition, in an answer to a query those of now. `None` before its first decision.
#[must_use]
pub fn state<S: Scenario>(object_id: &str, stored: &Stored) -> Option<State> {
    let current = stored.current.as_ref()?;
    Some(State {
        object_id: object_id.to_owned(),
        scenario: S::NAME.to_owned(),
        verdict: name::<S>(current.verdict),
        previous_verdict: current.previous.map(name::<S>),
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
            verdict: name::<S>(Some(slot.verdict)),
            weight: i64::from(slot.weight),
            observed_at_ms: slot.observed_at_ms,
            sequence: slot.sequence,
        })
        .collect()
}

fn override_<S: Scenario>(row: &OverrideRow) -> Override {
    Override {
        verdict: name::<S>(Some(row.verdict)),
        operator: row.operator.clone(),
        note: row.note.clone(),
        set_at_ms: row.set_at_ms,
        expires_at_ms: row.expires_at_ms,
    }
}

fn name<S: Scenario>(place: Option<u8>) -> String {
    place
        .and_then(verdict_at::<S::Verdict>)
        .map_or(UNDETERMINED, |verdict| verdict.name())
        .to_owned()
}
