//! The wire contract: the Avro schemas of `schemas/` and the Rust types that match them.
//!
//! A scenario brings the schema of its own report; everything else is the same for all scenarios.

use serde::{Deserialize, Serialize};

/// Avro schema of [`State`].
pub const STATE: &str = include_str!("../../schemas/state.avsc");
/// Avro schema of [`SetState`].
pub const SET_STATE: &str = include_str!("../../schemas/set-state.avsc");
/// Avro schema of [`ClearOverride`].
pub const CLEAR_OVERRIDE: &str = include_str!("../../schemas/clear-override.avsc");
/// Avro schema of [`DeleteObject`].
pub const DELETE_OBJECT: &str = include_str!("../../schemas/delete-object.avsc");
/// Avro schema of [`DeadLetter`].
pub const DEAD_LETTER: &str = include_str!("../../schemas/dead-letter.avsc");
/// Avro schema of [`SiteAttackReport`].
pub const SITE_ATTACK_REPORT: &str = include_str!("../../schemas/site-attack-report.avsc");

/// The verdict of an object whose agents do not decide: a tie, or too few fresh votes.
pub const UNDETERMINED: &str = "UNDETERMINED";

/// The verdicts of a scenario. Stores hold a verdict by its place in [`Self::ALL`]: append new ones,
/// never reorder.
pub trait Verdict: Copy + Eq + std::fmt::Debug + Send + Sync + 'static {
    /// Every verdict.
    const ALL: &'static [Self];

    /// Its name in states and in the API.
    fn name(self) -> &'static str;

    /// The verdict with this name.
    #[must_use]
    fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|v| v.name() == name)
    }
}

/// What a verdict rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Basis {
    /// The fresh votes.
    Votes,
    /// As much for one verdict as for another: undetermined.
    Tie,
    /// Too few fresh votes: undetermined.
    NoQuorum,
    /// An operator's override.
    Override,
}

/// What made a state change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Cause {
    /// A report.
    Vote,
    /// An operator's command.
    Override,
    /// Time: a vote or an override that expired.
    Expiry,
}

/// One agent's latest report, as it counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// Who voted.
    pub agent_id: String,
    /// The agent's opinion, by name.
    pub verdict: String,
    /// What the vote weighs.
    pub weight: i64,
    /// When the agent saw it, in ms since 1970.
    pub observed_at_ms: i64,
    /// The report's sequence number.
    pub sequence: i64,
}

/// A state set by an operator; it wins over the vote until it is cleared or expires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    /// The verdict that was set.
    pub verdict: String,
    /// Who set it.
    pub operator: Option<String>,
    /// Why.
    pub note: Option<String>,
    /// When it was ordered, in ms since 1970.
    pub set_at_ms: i64,
    /// When the vote counts again, in ms since 1970; `None`: not before it is cleared.
    pub expires_at_ms: Option<i64>,
}

/// The trusted state of one object, published at every transition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The object.
    pub object_id: String,
    /// The scenario that decided.
    pub scenario: String,
    /// One of the scenario's verdicts, or [`UNDETERMINED`].
    pub verdict: String,
    /// The verdict before this transition; `None` for the first state of an object.
    pub previous_verdict: Option<String>,
    /// What the verdict rests on.
    pub basis: Basis,
    /// What made the state change.
    pub cause: Cause,
    /// When the service made this transition, in ms since 1970.
    pub since_ms: i64,
    /// Counts the transitions of the object, from 1.
    pub version: i64,
    /// The evidence: every vote that was fresh, by agent id.
    pub votes: Vec<Vote>,
    /// The override in force, if any.
    #[serde(rename = "override")]
    pub override_: Option<Override>,
}

/// Command: set the state of an object by override.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetState {
    /// The object; also the record's key.
    pub object_id: String,
    /// One of the scenario's verdicts.
    pub verdict: String,
    /// Who ordered it.
    pub operator: Option<String>,
    /// Why.
    pub note: Option<String>,
    /// When the vote counts again, in ms since 1970; `None`: not before it is cleared.
    pub expires_at_ms: Option<i64>,
    /// When it was ordered, in ms since 1970.
    pub issued_at_ms: i64,
}

/// Command: give an object back to the vote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClearOverride {
    /// The object; also the record's key.
    pub object_id: String,
    /// Who ordered it.
    pub operator: Option<String>,
    /// When it was ordered, in ms since 1970.
    pub issued_at_ms: i64,
}

/// Command: forget an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteObject {
    /// The object; also the record's key.
    pub object_id: String,
    /// Who ordered it.
    pub operator: Option<String>,
    /// When it was ordered, in ms since 1970.
    pub issued_at_ms: i64,
}

/// A source record that could not be processed, with its original bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Where the record came from.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// Its timestamp, in ms since 1970.
    pub timestamp_ms: Option<i64>,
    /// A short code, the same as the label in the metrics.
    pub reason: String,
    /// The reason for people to read.
    pub detail: String,
    /// The original key.
    #[serde(with = "optional_bytes")]
    pub key: Option<Vec<u8>>,
    /// The original value.
    #[serde(with = "optional_bytes")]
    pub value: Option<Vec<u8>>,
    /// When it was rejected, in ms since 1970.
    pub failed_at_ms: i64,
}

/// An agent's opinion of a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SiteAttackVerdict {
    /// Nothing unusual.
    Clear,
    /// The site is under attack.
    UnderAttack,
}

impl Verdict for SiteAttackVerdict {
    const ALL: &'static [Self] = &[Self::Clear, Self::UnderAttack];

    fn name(self) -> &'static str {
        match self {
            Self::Clear => "CLEAR",
            Self::UnderAttack => "UNDER_ATTACK",
        }
    }
}

/// What one agent sees of one site at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SiteAttackReport {
    /// The site; also the record's key.
    pub object_id: String,
    /// Who reports.
    pub agent_id: String,
    /// Is the site under attack?
    pub verdict: SiteAttackVerdict,
    /// When the agent saw it, in ms since 1970.
    pub observed_at_ms: i64,
    /// Grows with every report of this agent.
    pub sequence: i64,
    /// What kind of attack, in the agent's words.
    #[serde(default)]
    pub attack_kind: Option<String>,
    /// Rate of requests measured at the site.
    #[serde(default)]
    pub requests_per_second: Option<f64>,
    /// Anything else an operator wants to read.
    #[serde(default)]
    pub detail: Option<String>,
}

/// A [`SiteAttackReport`] whose texts are those of the record it was read from.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct SiteAttackReportRead<'r> {
    /// The site; also the record's key.
    pub object_id: &'r str,
    /// Who reports.
    pub agent_id: &'r str,
    /// Is the site under attack?
    pub verdict: SiteAttackVerdict,
    /// When the agent saw it, in ms since 1970.
    pub observed_at_ms: i64,
    /// Grows with every report of this agent.
    pub sequence: i64,
    /// What kind of attack, in the agent's words.
    #[serde(default)]
    pub attack_kind: Option<&'r str>,
    /// Rate of requests measured at the site.
    #[serde(default)]
    pub requests_per_second: Option<f64>,
    /// Anything else an operator wants to read.
    #[serde(default)]
    pub detail: Option<&'r str>,
}

/// Avro `["null", "bytes"]`: serde's own `Option<Vec<u8>>` would be an array of integers.
mod optional_bytes {
    use serde::{Deserializer, Serializer, de};
    use std::fmt;

    pub(super) fn serialize<S: Serializer>(
        bytes: &Option<Vec<u8>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        struct Bytes<'a>(&'a [u8]);
        impl serde::Serialize for Bytes<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_bytes(self.0)
            }
        }
        match bytes {
            Some(bytes) => serializer.serialize_some(&Bytes(bytes)),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Vec<u8>>, D::Error> {
        struct BytesVisitor;
        impl<'de> de::Visitor<'de> for BytesVisitor {
            type Value = Option<Vec<u8>>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes or null")
            }
            fn visit_none<E>(self) -> Result<Self::Value, E> {
                Ok(None)
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(None)
            }
            fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
                d.deserialize_bytes(self)
            }
            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                Ok(Some(bytes.to_vec()))
            }
            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Self::Value, E> {
                Ok(Some(bytes))
            }
        }
        deserializer.deserialize_option(BytesVisitor)
    }
}

#[cfg(test)]
mod tests;
