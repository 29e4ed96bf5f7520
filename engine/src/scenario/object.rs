//! One object: the latest report of each agent, the tally of the fresh ones, the override, the state.
//!
//! Everything here is pure. A row of the store holds [`Stored`]; the tally is made again when a row
//! is read, so the stored form does not depend on it.

use common::schema::{Basis, Cause};
use serde::{Deserialize, Serialize};

use super::{Decision, Opinion, Scenario, Tally as _, Verdict};
use crate::processor::Value;

/// First byte of a row; a row of another layout is refused.
const LAYOUT: u8 = 1;

/// The latest report of one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Who.
    pub agent_id: String,
    /// When the agent saw it, in ms since 1970.
    pub observed_at_ms: i64,
    /// Its sequence number.
    pub sequence: i64,
    /// The verdict's place among the scenario's.
    pub verdict: u8,
    /// What the vote weighs.
    pub weight: u32,
    /// Is it part of the tally, that is, was it fresh when last looked at?
    pub counted: bool,
    /// The report as it was sent, with its frame.
    #[serde(with = "serde_bytes")]
    pub report: Vec<u8>,
}

/// An override in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverrideRow {
    /// The verdict's place among the scenario's.
    pub verdict: u8,
    /// Who set it.
    pub operator: Option<String>,
    /// Why.
    pub note: Option<String>,
    /// When it was ordered, in ms since 1970.
    pub set_at_ms: i64,
    /// When it ends, in ms since 1970.
    pub expires_at_ms: Option<i64>,
}

/// The state as of the last transition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Current {
    /// The verdict's place among the scenario's; `None` is undetermined.
    pub verdict: Option<u8>,
    /// The verdict before; outer `None` for the first state.
    pub previous: Option<Option<u8>>,
    /// What it rests on.
    pub basis: Basis,
    /// What made it change.
    pub cause: Cause,
    /// When, in ms since 1970.
    pub since_ms: i64,
    /// Counts transitions, from 1.
    pub version: i64,
}

/// What a row holds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Stored {
    /// The armed timer, in ms since 1970. Never later than the first expiry.
    pub timer_ms: Option<i64>,
    /// The state; `None` only before the first decision.
    pub current: Option<Current>,
    /// The override in force.
    pub override_: Option<OverrideRow>,
    /// The latest report of each agent, sorted by agent id.
    pub slots: Vec<Slot>,
}

/// One object with its tally.
#[derive(Debug)]
pub struct Object<S: Scenario> {
    /// What the row holds.
    pub stored: Stored,
    tally: S::Tally,
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It is the agent's latest now.
    Taken,
    /// The same report is there already.
    Repeated,
    /// The agent has reported something newer.
    Outdated,
}

impl<S: Scenario> Default for Object<S> {
    fn default() -> Self {
        Self {
            stored: Stored::default(),
            tally: S::Tally::default(),
        }
    }
}

impl<S: Scenario> Object<S> {
    /// Would this report change anything?
    #[must_use]
    pub fn hears(&self, opinion: &Opinion<'_, S::Verdict>) -> Heard {
        let Ok(i) = self.slot(opinion.agent_id) else {
            return Heard::Taken;
        };
        let slot = &self.stored.slots[i];
        let held = (slot.observed_at_ms, slot.sequence);
        match (opinion.observed_at_ms, opinion.sequence).cmp(&held) {
            std::cmp::Ordering::Greater => Heard::Taken,
            std::cmp::Ordering::Equal => Heard::Repeated,
            std::cmp::Ordering::Less => Heard::Outdated,
        }
    }

    /// Makes this report its agent's latest. It counts if it is fresh at `now_ms`.
    pub fn take(
        &mut self,
        opinion: &Opinion<'_, S::Verdict>,
        freshness_ms: i64,
        now_ms: i64,
        report: &[u8],
    ) {
        let counted = expiry(opinion.observed_at_ms, freshness_ms) > now_ms;
        let slot = Slot {
            agent_id: opinion.agent_id.to_owned(),
            observed_at_ms: opinion.observed_at_ms,
            sequence: opinion.sequence,
            verdict: place(opinion.verdict),
            weight: opinion.weight,
            counted,
            report: report.to_vec(),
        };
        if counted {
            self.tally.add(opinion.verdict, opinion.weight);
        }
        match self.slot(opinion.agent_id) {
            Ok(i) => {
                let old = std::mem::replace(&mut self.stored.slots[i], slot);
                if let (true, Some(verdict)) = (old.counted, verdict_at::<S::Verdict>(old.verdict))
                {
                    self.tally.subtract(verdict, old.weight);
                }
            }
            Err(i) => self.stored.slots.insert(i, slot),
        }
    }

    /// Takes out whatever has expired at `now_ms`; `true` if something had.
    pub fn expire(&mut self, freshness_ms: i64, now_ms: i64) -> bool {
        let mut expired = false;
        for slot in &mut self.stored.slots {
            if slot.counted && expiry(slot.observed_at_ms, freshness_ms) <= now_ms {
                slot.counted = false;
                expired = true;
                if let Some(verdict) = verdict_at::<S::Verdict>(slot.verdict) {
                    self.tally.subtract(verdict, slot.weight);
                }
            }
        }
        let over = |o: &OverrideRow| o.expires_at_ms.is_some_and(|at| at <= now_ms);
        if self.stored.override_.as_ref().is_some_and(over) {
            self.stored.override_ = None;
            expired = true;
        }
        expired
    }

    /// The first moment at which something here expires.
    #[must_use]
    pub fn first_expiry_ms(&self, freshness_ms: i64) -> Option<i64> {
        let votes = self.stored.slots.iter().filter(|slot| slot.counted);
        let votes = votes
            .map(|slot| expiry(slot.observed_at_ms, freshness_ms))
            .min();
        let override_ = self.stored.override_.as_ref().and_then(|o| o.expires_at_ms);
        votes.into_iter().chain(override_).min()
    }

    /// Decides again; `true` if that is a transition: another verdict, another basis, or
    /// `override_changed`.
    pub fn decide(
        &mut self,
        scenario: &S,
        cause: Cause,
        override_changed: bool,
        now_ms: i64,
    ) -> bool {
        let (verdict, basis) = match &self.stored.override_ {
            Some(override_) => (Some(override_.verdict), Basis::Override),
            None => {
                let decision: Decision<S::Verdict> = scenario.decide(&self.tally);
                let (verdict, basis) = decision.parts();
                (verdict.map(place), basis)
            }
        };
        let before = self.stored.current.as_ref();
        let same = before.is_some_and(|c| c.verdict == verdict && c.basis == basis);
        if same && !override_changed {
            return false;
        }
        self.stored.current = Some(Current {
            verdict,
            previous: before.map(|c| c.verdict),
            basis,
            cause,
            since_ms: now_ms,
            version: before.map_or(0, |c| c.version) + 1,
        });
        true
    }

    /// The tally, for tests that make it again.
    #[must_use]
    pub fn tally(&self) -> &S::Tally {
        &self.tally
    }

    fn slot(&self, agent_id: &str) -> Result<usize, usize> {
        self.stored
            .slots
            .binary_search_by(|slot| slot.agent_id.as_str().cmp(agent_id))
    }
}

impl<S: Scenario> Value for Object<S> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(LAYOUT);
        // Serialising plain data into memory has no way to fail.
        match postcard::to_allocvec(&self.stored) {
            Ok(bytes) => out.extend_from_slice(&bytes),
            Err(error) => unreachable!("a row serialises: {error}"),
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let stored = Stored::decode(bytes)?;
        let mut tally = S::Tally::default();
        for slot in stored.slots.iter().filter(|slot| slot.counted) {
            let verdict = verdict_at(slot.verdict)
                .ok_or_else(|| format!("verdict {} is not one of the scenario's", slot.verdict))?;
            tally.add(verdict, slot.weight);
        }
        Ok(Self { stored, tally })
    }
}

impl Stored {
    /// Reads a row.
    ///
    /// # Errors
    /// One sentence on what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        match bytes.split_first() {
            Some((&LAYOUT, rest)) => postcard::from_bytes(rest).map_err(|e| e.to_string()),
            Some((layout, _)) => Err(format!(
                "layout {layout} was written by another version of this service; this one reads {LAYOUT}"
            )),
            None => Err("the row is empty".into()),
        }
    }
}

/// The verdict's place among all.
#[must_use]
pub fn place<V: Verdict>(verdict: V) -> u8 {
    let place = V::ALL.iter().position(|v| *v == verdict);
    place.and_then(|p| u8::try_from(p).ok()).unwrap_or(u8::MAX)
}

/// The verdict at this place.
#[must_use]
pub fn verdict_at<V: Verdict>(place: u8) -> Option<V> {
    V::ALL.get(usize::from(place)).copied()
}

fn expiry(observed_at_ms: i64, freshness_ms: i64) -> i64 {
    observed_at_ms.saturating_add(freshness_ms)
}
