//! One object: the latest report of each agent, the tally of the fresh ones, the override, the state.
//!
//! Everything here is pure. A row of the store holds what [`Stored`] spells out, packed; the tally is
//! made again when a row is read, so the stored form does not depend on it.

use common::{
    schema::{Basis, Cause},
    topics::LARGEST_RECORD_BYTES,
};
use serde::{Deserialize, Serialize};

use super::{
    Decision, Opinion, Scenario, Tally as _, Verdict, packed,
    votes::{Ballot, Vote, Votes},
};
use crate::processor::Value;

/// What all votes of an object may take in its row, and so much that the row, and the state with its
/// votes, always are records that may be written.
pub(super) const LARGEST_VOTES: usize = LARGEST_RECORD_BYTES / 2;
/// What an order to override may be, for the same reason.
pub(super) const LARGEST_ORDER: usize = LARGEST_RECORD_BYTES / 8;
/// First byte of a row; a row of another layout is refused.
const LAYOUT: u8 = 3;
/// No head of a row is longer: three numbers of ten bytes at most, and some of one or two.
const LONGEST_HEAD: usize = 64;
/// Nearly all have about so many bytes.
const USUAL_HEAD: usize = 32;

/// The latest report of one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
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

/// What a row holds, spelled out: for whoever reads one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
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
    /// The armed timer, in ms since 1970. Never later than the first expiry.
    pub timer_ms: Option<i64>,
    /// The state; `None` only before the first decision.
    pub current: Option<Current>,
    /// The override in force.
    pub override_: Option<Box<OverrideRow>>,
    pub(super) votes: Votes,
    tally: S::Tally,
}

/// What became of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// It is the agent's latest now.
    Taken(Place),
    /// The same report is there already.
    Repeated,
    /// The agent has reported something newer.
    Outdated,
}

/// Where an agent's vote is in an object, or belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    vote: Result<usize, usize>,
    /// What the vote that is there adds to the tally.
    ballot: Option<Ballot>,
}

impl Default for Place {
    fn default() -> Self {
        Self::free(0)
    }
}

impl Place {
    fn free(at: usize) -> Self {
        Self {
            vote: Err(at),
            ballot: None,
        }
    }
}

impl<S: Scenario> Default for Object<S> {
    fn default() -> Self {
        Self {
            timer_ms: None,
            current: None,
            override_: None,
            votes: Votes::default(),
            tally: S::Tally::default(),
        }
    }
}

impl<S: Scenario> Object<S> {
    /// Would this report change anything?
    #[must_use]
    pub fn hears(&self, opinion: &Opinion<'_, S::Verdict>) -> Heard {
        let at = match self.votes.find(opinion.agent_id) {
            Ok(at) => at,
            Err(at) => return Heard::Taken(Place::free(at)),
        };
        let vote = self.votes.get(at);
        let held = (vote.observed_at_ms, vote.sequence);
        match (opinion.observed_at_ms, opinion.sequence).cmp(&held) {
            std::cmp::Ordering::Greater => Heard::Taken(Place {
                vote: Ok(at),
                ballot: vote.ballot(),
            }),
            std::cmp::Ordering::Equal => Heard::Repeated,
            std::cmp::Ordering::Less => Heard::Outdated,
        }
    }

    /// Is there room for this report, at the place that [`Self::hears`] named?
    #[must_use]
    pub fn has_room(&self, at: Place, agent_id: &str, report: &[u8]) -> bool {
        self.votes
            .has_room(at.vote, agent_id, report, LARGEST_VOTES)
    }

    /// Makes this report its agent's latest, at the place that [`Self::hears`] named. It counts if it
    /// is fresh at `now_ms`.
    pub fn take(
        &mut self,
        at: Place,
        opinion: &Opinion<'_, S::Verdict>,
        freshness_ms: i64,
        now_ms: i64,
        report: &[u8],
    ) {
        let counted = expiry(opinion.observed_at_ms, freshness_ms) > now_ms;
        if counted {
            self.tally.add(opinion.verdict, opinion.weight);
        }
        let verdict = place(opinion.verdict);
        self.votes.put(at.vote, opinion, verdict, counted, report);
        if let Some(old) = at.ballot
            && let Some(verdict) = verdict_at::<S::Verdict>(old.verdict)
        {
            self.tally.subtract(verdict, old.weight);
        }
    }

    /// Takes out whatever has expired at `now_ms`; `true` if something had.
    pub fn expire(&mut self, freshness_ms: i64, now_ms: i64) -> bool {
        let mut expired = false;
        for at in 0..self.votes.len() {
            let vote = self.votes.get(at);
            if vote.counted && expiry(vote.observed_at_ms, freshness_ms) <= now_ms {
                if let Some(verdict) = verdict_at::<S::Verdict>(vote.verdict) {
                    self.tally.subtract(verdict, vote.weight);
                }
                self.votes.uncount(at);
                expired = true;
            }
        }
        let over = |o: &OverrideRow| o.expires_at_ms.is_some_and(|at| at <= now_ms);
        if self.override_.as_deref().is_some_and(over) {
            self.override_ = None;
            expired = true;
        }
        expired
    }

    /// The first moment at which something here expires.
    #[must_use]
    pub fn first_expiry_ms(&self, freshness_ms: i64) -> Option<i64> {
        let votes = self.votes.iter().filter(|vote| vote.counted);
        let votes = votes
            .map(|vote| expiry(vote.observed_at_ms, freshness_ms))
            .min();
        let override_ = self.override_.as_ref().and_then(|o| o.expires_at_ms);
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
        let (verdict, basis) = match &self.override_ {
            Some(override_) => (Some(override_.verdict), Basis::Override),
            None => {
                let decision: Decision<S::Verdict> = scenario.decide(&self.tally);
                let (verdict, basis) = decision.parts();
                (verdict.map(place), basis)
            }
        };
        let before = self.current.as_ref();
        let same = before.is_some_and(|c| c.verdict == verdict && c.basis == basis);
        if same && !override_changed {
            return false;
        }
        self.current = Some(Current {
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
}

/// The beginning of a row: timer, state, and whether there is an override.
type Head = (Option<i64>, Option<Current>, bool);

impl<S: Scenario> Value for Object<S> {
    fn encode(&self, out: &mut Vec<u8>) {
        /// Serialising plain data into memory that is large enough has no way to fail.
        fn cannot<T>(error: postcard::Error) -> T {
            unreachable!("a row serialises: {error}")
        }
        let head: Head = (
            self.timer_ms,
            self.current.clone(),
            self.override_.is_some(),
        );
        let mut buffer = [0; LONGEST_HEAD];
        let head = postcard::to_slice(&head, &mut buffer).unwrap_or_else(cannot);
        out.push(LAYOUT);
        out.extend_from_slice(head);
        if let Some(override_) = &self.override_ {
            let bytes = postcard::to_allocvec(override_).unwrap_or_else(cannot);
            packed::put_bytes(out, &bytes);
        }
        self.votes.encode(out);
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let (timer_ms, current, override_, votes) = read(bytes)?;
        let mut tally = S::Tally::default();
        for vote in votes.iter().filter(|vote| vote.counted) {
            let verdict = verdict_at(vote.verdict)
                .ok_or_else(|| format!("verdict {} is not one of the scenario's", vote.verdict))?;
            tally.add(verdict, vote.weight);
        }
        Ok(Self {
            timer_ms,
            current,
            override_: override_.map(Box::new),
            votes,
            tally,
        })
    }

    fn timer_ms(row: &[u8]) -> Option<i64> {
        let (_, rest) = row.split_first().filter(|(layout, _)| **layout == LAYOUT)?;
        postcard::take_from_bytes::<Option<i64>>(rest).ok()?.0
    }

    fn heap_bytes(&self) -> usize {
        self.votes.heap_bytes()
    }

    fn stored_bytes(&self) -> usize {
        USUAL_HEAD + self.votes.stored_bytes()
    }

    fn glance(&self) -> usize {
        self.votes.glance()
    }
}

type Parts = (Option<i64>, Option<Current>, Option<OverrideRow>, Votes);

fn read(row: &[u8]) -> Result<Parts, String> {
    let rest = match row.split_first() {
        Some((&LAYOUT, rest)) => rest,
        Some((layout, _)) => {
            return Err(format!(
                "layout {layout} was written by another version of this service; this one reads {LAYOUT}"
            ));
        }
        None => return Err("the row is empty".into()),
    };
    let (head, mut rest) = postcard::take_from_bytes::<Head>(rest).map_err(|e| e.to_string())?;
    let (timer_ms, current, has_override) = head;
    let override_ = match has_override {
        true => Some(postcard::from_bytes(packed::bytes(&mut rest)?).map_err(|e| e.to_string())?),
        false => None,
    };
    Ok((timer_ms, current, override_, Votes::decode(rest)?))
}

impl Stored {
    /// Reads a row.
    ///
    /// # Errors
    /// One sentence on what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, String> {
        let (timer_ms, current, override_, votes) = read(bytes)?;
        let slot = |vote: Vote<'_>| Slot {
            agent_id: String::from_utf8_lossy(vote.agent).into_owned(),
            observed_at_ms: vote.observed_at_ms,
            sequence: vote.sequence,
            verdict: vote.verdict,
            weight: vote.weight,
            counted: vote.counted,
            report: vote.report.concat(),
        };
        Ok(Self {
            timer_ms,
            current,
            override_,
            slots: votes.iter().map(slot).collect(),
        })
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
