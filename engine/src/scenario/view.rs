//! What others see of an object: its published state and its stored reports.

use std::marker::PhantomData;

use common::schema::{Basis, Cause, Override, State, UNDETERMINED, Vote};
use serde::{
    Serialize, Serializer,
    ser::{Error as _, SerializeSeq as _},
};

use super::{
    Scenario, Verdict as _,
    object::{Object, OverrideRow, Stored, verdict_at},
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

/// A [`State`] on its way out: the same fields, all texts borrowed.
#[derive(Serialize)]
pub(super) struct Published<'a, V> {
    object_id: &'a str,
    scenario: &'static str,
    verdict: &'static str,
    previous_verdict: Option<&'static str>,
    basis: Basis,
    cause: Cause,
    since_ms: i64,
    version: i64,
    votes: V,
    #[serde(rename = "override")]
    override_: Option<Override>,
}

/// The state of an object; `None` before its first decision.
pub(super) fn published<'a, S: Scenario>(
    object_id: &'a str,
    object: &'a Object<S>,
) -> Option<Published<'a, Fresh<'a, S>>> {
    let current = object.current.as_ref()?;
    Some(Published {
        object_id,
        scenario: S::NAME,
        verdict: name::<S>(current.verdict),
        previous_verdict: current.previous.map(name::<S>),
        basis: current.basis,
        cause: current.cause,
        since_ms: current.since_ms,
        version: current.version,
        votes: Fresh(&object.votes, PhantomData),
        override_: object.override_.as_deref().map(override_::<S>),
    })
}

/// The votes that count, by agent id.
pub(super) struct Fresh<'a, S>(&'a Votes, PhantomData<S>);

/// A [`Vote`] on its way out.
#[derive(Serialize)]
struct FreshVote<'a> {
    agent_id: &'a str,
    verdict: &'static str,
    weight: i64,
    observed_at_ms: i64,
    sequence: i64,
}

impl<S: Scenario> Serialize for Fresh<'_, S> {
    fn serialize<W: Serializer>(&self, serializer: W) -> Result<W::Ok, W::Error> {
        let counted = || self.0.iter().filter(|vote| vote.counted);
        let mut votes = serializer.serialize_seq(Some(counted().count()))?;
        for vote in counted() {
            votes.serialize_element(&FreshVote {
                agent_id: std::str::from_utf8(vote.agent).map_err(W::Error::custom)?,
                verdict: name::<S>(Some(vote.verdict)),
                weight: i64::from(vote.weight),
                observed_at_ms: vote.observed_at_ms,
                sequence: vote.sequence,
            })?;
        }
        votes.end()
    }
}
