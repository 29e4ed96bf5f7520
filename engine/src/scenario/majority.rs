//! The majority vote with quorum, freshness and weights, for scenarios that want just that.

use std::{marker::PhantomData, time::Duration};

use smallvec::SmallVec;

use super::{Decision, Tally, Verdict, object::place};

/// The rules of a majority vote.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Vote")]
#[group(skip)]
pub struct Rules {
    /// How long a report counts: an agent that is silent for longer stops voting
    #[arg(long, env = "FRESHNESS", value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    pub freshness: Duration,
    /// Fewer fresh votes than this decide nothing: the state is UNDETERMINED
    #[arg(long, env = "QUORUM", value_name = "VOTES", default_value_t = 2)]
    pub quorum: u32,
    /// What an agent's vote weighs, from its next report on (all others weigh 1); repeatable
    #[arg(long, env = "WEIGHT", value_name = "AGENT=N", value_delimiter = ',', value_parser = weight)]
    pub weight: Vec<(String, u32)>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            freshness: Duration::from_secs(60),
            quorum: 2,
            weight: Vec::new(),
        }
    }
}

impl Rules {
    /// What is wrong with them: one sentence each.
    #[must_use]
    pub fn check(&self) -> Vec<String> {
        if self.freshness < Duration::from_millis(1) {
            return vec!["freshness: must be at least 1ms, or no vote ever counts".into()];
        }
        Vec::new()
    }

    /// [`Self::freshness`] in ms.
    #[must_use]
    pub fn freshness_ms(&self) -> i64 {
        i64::try_from(self.freshness.as_millis()).unwrap_or(i64::MAX)
    }

    /// What the vote of `agent_id` weighs.
    #[must_use]
    pub fn weight_of(&self, agent_id: &str) -> u32 {
        let listed = self.weight.iter().find(|(agent, _)| agent == agent_id);
        listed.map_or(1, |(_, weight)| *weight)
    }

    /// The verdict with the largest weight, if there are votes enough and it stands alone.
    #[must_use]
    pub fn decide<V: Verdict>(&self, count: &Count<V>) -> Decision<V> {
        if count.votes < self.quorum {
            return Decision::NoQuorum;
        }
        let most = count.weights.iter().copied().max().unwrap_or(0);
        let mut leading = V::ALL
            .iter()
            .zip(&count.weights)
            .filter(|(_, weight)| **weight == most);
        match (leading.next(), leading.next()) {
            (Some((verdict, _)), None) if most > 0 => Decision::Verdict(*verdict),
            _ => Decision::Tie,
        }
    }
}

/// How many vote, and the weight behind each verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count<V> {
    votes: u32,
    /// By the verdict's place.
    weights: SmallVec<[u64; 4]>,
    marker: PhantomData<V>,
}

impl<V: Verdict> Default for Count<V> {
    fn default() -> Self {
        Self {
            votes: 0,
            weights: SmallVec::from_elem(0, V::ALL.len()),
            marker: PhantomData,
        }
    }
}

impl<V: Verdict> Tally<V> for Count<V> {
    fn add(&mut self, verdict: V, weight: u32) {
        self.votes += 1;
        self.weights[usize::from(place(verdict))] += u64::from(weight);
    }

    fn subtract(&mut self, verdict: V, weight: u32) {
        self.votes -= 1;
        self.weights[usize::from(place(verdict))] -= u64::from(weight);
    }
}

fn weight(text: &str) -> Result<(String, u32), String> {
    let (agent, weight) = text
        .split_once('=')
        .ok_or("write agent=weight, for example waf-1=3")?;
    let weight = weight
        .parse()
        .map_err(|e| format!("weight {weight:?}: {e}"))?;
    Ok((agent.to_owned(), weight))
}
