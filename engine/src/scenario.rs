//! The Scenario layer: one trusted state per object, made of the latest report of each agent.
//!
//! A scenario says what a report means and when votes decide; this layer keeps the reports, tallies
//! them incrementally, lets silent agents' votes expire, applies operators' overrides, and emits a
//! transition whenever the state changes, and only then.

use common::schema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub mod majority;
pub mod object;
mod packed;
mod processor;
pub mod view;
mod votes;

pub use common::schema::Verdict;
pub use processor::{Codecs, ScenarioProcessor};

/// What users implement to get a shared-state service of their own.
pub trait Scenario: Send + Sync + 'static {
    /// Default application id; also the `scenario` of every state.
    const NAME: &'static str;
    /// Avro schema of [`Self::Report`].
    const REPORT_SCHEMA: &'static str;
    /// One agent's report about one object.
    type Report: Serialize + DeserializeOwned + Send;
    /// The same, read from the record without copying its texts: fields of the same names, in the
    /// order of the schema, `&'r str` for every text. All of them, so that a report that is not one is
    /// found out before it is kept. (`Self::Report` will do too; it costs an allocation a text.)
    type Read<'r>: Deserialize<'r>;
    /// An opinion about an object.
    type Verdict: Verdict;
    /// What is known of the fresh votes of an object.
    type Tally: Tally<Self::Verdict>;
    /// The rules, as command-line flags.
    type Rules: clap::Args + Clone + std::fmt::Debug + Send + Sync;

    /// The scenario under these rules.
    fn new(rules: Self::Rules) -> Self;

    /// What is wrong with the rules: one sentence each, none if all is well.
    fn check(_rules: &Self::Rules) -> Vec<String> {
        Vec::new()
    }

    /// The vote in a report.
    fn opinion<'r>(&self, report: &'r Self::Read<'_>) -> Opinion<'r, Self::Verdict>;

    /// How long a vote counts after it was observed, in ms.
    fn freshness_ms(&self) -> i64;

    /// What the fresh votes decide.
    fn decide(&self, tally: &Self::Tally) -> Decision<Self::Verdict>;
}

/// A running count of votes. Adding and subtracting the same vote must leave it unchanged, so that
/// the cost of a report does not grow with the number of agents.
pub trait Tally<V>: Default + Send + 'static {
    /// Counts a vote.
    fn add(&mut self, verdict: V, weight: u32);
    /// Takes back a vote that was added with the same arguments.
    fn subtract(&mut self, verdict: V, weight: u32);
}

/// The vote in a report.
#[derive(Debug, Clone, Copy)]
pub struct Opinion<'r, V> {
    /// The object it is about; must equal the record's key.
    pub object_id: &'r str,
    /// Whose vote it is.
    pub agent_id: &'r str,
    /// The opinion.
    pub verdict: V,
    /// What it weighs.
    pub weight: u32,
    /// When the agent saw it, in ms since 1970.
    pub observed_at_ms: i64,
    /// Decides between reports of the same agent and millisecond.
    pub sequence: i64,
}

/// What votes decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision<V> {
    /// This verdict.
    Verdict(V),
    /// Nothing: as much for one as for another.
    Tie,
    /// Nothing: too few fresh votes.
    NoQuorum,
}

impl<V: Verdict> Decision<V> {
    fn parts(self) -> (Option<V>, schema::Basis) {
        match self {
            Self::Verdict(verdict) => (Some(verdict), schema::Basis::Votes),
            Self::Tie => (None, schema::Basis::Tie),
            Self::NoQuorum => (None, schema::Basis::NoQuorum),
        }
    }
}
