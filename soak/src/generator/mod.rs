//! A history to write: what agents and operators send, good and bad, on purpose full of traps. Pure: the time comes in as
//! an argument, everything else from the seed.

use std::collections::VecDeque;

use common::avro::Encoder;
use common::partitioner::partition_of;
use common::schema::{
    ClearOverride, DeleteObject, SetState, SiteAttackReport, SiteAttackVerdict, Verdict as _,
};

use crate::random::Random;

pub mod bad;
mod schemas;

pub use schemas::Schemas;

/// A record of the source topic, to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Its partition.
    pub partition: i32,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value.
    pub value: Option<Vec<u8>>,
}

/// What the history is like.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Partitions of the source topic.
    pub partitions: u32,
    /// Objects with a life of their own.
    pub objects: usize,
    /// Agents; the first weighs [`HEAVY`].
    pub agents: usize,
    /// How long a vote counts.
    pub freshness_ms: i64,
    /// How far into the future an observation may be.
    pub max_skew_ms: i64,
}

/// What the first agent's vote weighs; the others' weigh 1.
pub const HEAVY: i64 = 2;

/// An object and how it is now.
#[derive(Debug)]
struct Site {
    id: String,
    attacked: bool,
    /// Nobody reports about it until then.
    silent_until_ms: i64,
    /// Then it falls silent again.
    active_until_ms: i64,
}

/// An agent with a clock that may be wrong.
#[derive(Debug)]
struct Agent {
    id: String,
    sequence: i64,
    /// By how much its clock is ahead.
    ahead_ms: i64,
}

/// Writes history.
pub struct History {
    shape: Shape,
    schemas: Schemas,
    random: Random,
    sites: Vec<Site>,
    agents: Vec<Agent>,
    /// Reports of the last moments, to be repeated and outdated.
    recent: VecDeque<SiteAttackReport>,
    unique: u64,
}

impl History {
    /// The history of `seed`.
    pub fn new(seed: u64, shape: Shape, schemas: Schemas) -> Self {
        let site = |i| Site {
            id: format!("site-{i:03}.example.com"),
            attacked: false,
            silent_until_ms: 0,
            active_until_ms: 0,
        };
        let agent = |i| Agent {
            id: format!("agent-{i}"),
            sequence: 0,
            ahead_ms: 0,
        };
        Self {
            sites: (0..shape.objects).map(site).collect(),
            agents: (0..shape.agents).map(agent).collect(),
            random: Random::of(seed, "history"),
            recent: VecDeque::new(),
            unique: 0,
            shape,
            schemas,
        }
    }

    /// Sets by how much the clock of an agent is ahead; returns the agent's id.
    pub fn set_clock(&mut self, agent: u32, ahead_ms: i64) -> Option<String> {
        let count = self.agents.len();
        let index = usize::try_from(agent).ok()?.checked_rem(count)?;
        let agent = self.agents.get_mut(index)?;
        agent.ahead_ms = ahead_ms;
        Some(agent.id.clone())
    }

    /// The next record. `None` if just now nobody has anything to say.
    pub fn next(&mut self, now_ms: i64) -> Option<Write> {
        match self.random.below(100) {
            0..=3 => self.bad(now_ms),
            4 => self.misrouted(now_ms),
            5..=7 => self.set_state(now_ms),
            8 => self.clear_override(now_ms),
            9 => self.delete(now_ms),
            10..=15 => self.repeated(),
            16..=21 => self.outdated(now_ms),
            22..=26 => self.late(now_ms),
            27..=28 => self.early(now_ms),
            _ => {
                let report = self.report(now_ms)?;
                self.sent(report)
            }
        }
    }

    /// A command that makes a transition in any case; `note` tells it from all others.
    pub fn probe(&self, id: &str, note: u64, now_ms: i64) -> Option<Write> {
        let verdict = match note % 2 {
            0 => SiteAttackVerdict::Clear,
            _ => SiteAttackVerdict::UnderAttack,
        };
        let command = SetState {
            object_id: id.to_owned(),
            verdict: verdict.name().to_owned(),
            operator: None,
            note: Some(format!("probe-{note}")),
            expires_at_ms: None,
            issued_at_ms: now_ms,
        };
        self.framed(id, &self.schemas.set_state, &command)
    }

    /// An ordinary report about an object that is not silent.
    fn report(&mut self, now_ms: i64) -> Option<SiteAttackReport> {
        let site = self.site(now_ms)?;
        // Agents mostly agree, so that verdicts last for a while.
        if self.random.percent(2) {
            self.sites[site].attacked = !self.sites[site].attacked;
        }
        let attacked = self.sites[site].attacked != self.random.percent(15);
        let agent = usize::try_from(self.random.below(self.agents.len() as u64)).ok()?;
        let agent = self.agents.get_mut(agent)?;
        agent.sequence += 1;
        Some(SiteAttackReport {
            object_id: self.sites[site].id.clone(),
            agent_id: agent.id.clone(),
            verdict: if attacked {
                SiteAttackVerdict::UnderAttack
            } else {
                SiteAttackVerdict::Clear
            },
            observed_at_ms: now_ms + agent.ahead_ms - self.random.between(0, 40),
            sequence: agent.sequence,
            attack_kind: attacked.then(|| "http-flood".to_owned()),
            requests_per_second: None,
            detail: None,
        })
    }

    /// An object that somebody reports about now. Objects fall silent, so that their votes expire.
    fn site(&mut self, now_ms: i64) -> Option<usize> {
        for _ in 0..20 {
            let index = usize::try_from(self.random.below(self.sites.len() as u64)).ok()?;
            let site = self.sites.get_mut(index)?;
            if now_ms < site.silent_until_ms {
                continue;
            }
            if now_ms >= site.active_until_ms {
                let silent_ms = self.random.between(0, 2 * self.shape.freshness_ms);
                site.silent_until_ms = now_ms + silent_ms;
                site.active_until_ms = site.silent_until_ms + self.random.between(2_000, 20_000);
                continue;
            }
            return Some(index);
        }
        None
    }

    fn sent(&mut self, report: SiteAttackReport) -> Option<Write> {
        let write = self.framed(&report.object_id, &self.schemas.report, &report);
        self.recent.push_back(report);
        if self.recent.len() > 200 {
            self.recent.pop_front();
        }
        write
    }

    fn some_recent(&mut self) -> Option<SiteAttackReport> {
        let index = self.random.below(self.recent.len() as u64);
        self.recent.get(usize::try_from(index).ok()?).cloned()
    }

    /// The same bytes once more.
    fn repeated(&mut self) -> Option<Write> {
        let report = self.some_recent()?;
        self.framed(&report.object_id, &self.schemas.report, &report)
    }

    /// A report with another verdict that is older than one that was sent, or newer only by its sequence number.
    fn outdated(&mut self, now_ms: i64) -> Option<Write> {
        let mut report = self.some_recent()?;
        report.verdict = match report.verdict {
            SiteAttackVerdict::Clear => SiteAttackVerdict::UnderAttack,
            SiteAttackVerdict::UnderAttack => SiteAttackVerdict::Clear,
        };
        match self.random.below(4) {
            0 => report.observed_at_ms -= 1,
            1 => report.sequence -= 1,
            2 => report.sequence += 1,
            _ => {
                let latest_ms = report.observed_at_ms.min(now_ms);
                report.observed_at_ms = latest_ms - self.random.between(1, 3_000);
            }
        }
        self.sent(report)
    }

    /// A report that was long under way: stale, or about to be.
    fn late(&mut self, now_ms: i64) -> Option<Write> {
        let mut report = self.report(now_ms)?;
        let age_ms = self.shape.freshness_ms + self.random.between(-600, 600);
        report.observed_at_ms = now_ms - age_ms;
        self.sent(report)
    }

    /// A report from the future: allowed, or just not, or so that it depends on when it is looked at.
    fn early(&mut self, now_ms: i64) -> Option<Write> {
        let mut report = self.report(now_ms)?;
        let skew_ms = self.shape.max_skew_ms;
        report.observed_at_ms = now_ms
            + match self.random.below(3) {
                0 => self.random.between(0, skew_ms / 2),
                1 => skew_ms + self.random.between(0, 400),
                _ => skew_ms + self.random.between(500, 5_000),
            };
        self.sent(report)
    }

    fn any_id(&mut self) -> Option<String> {
        self.random.pick(&self.sites).map(|site| site.id.clone())
    }

    fn note(&mut self) -> String {
        self.unique += 1;
        format!("note-{}", self.unique)
    }

    fn set_state(&mut self, now_ms: i64) -> Option<Write> {
        let id = self.any_id()?;
        let expires_at_ms = match self.random.below(6) {
            0 => None,
            1 => Some(now_ms + self.random.between(-50, 50)),
            2 => Some(now_ms - 10_000),
            _ => Some(now_ms + self.random.between(200, 6_000)),
        };
        let command = SetState {
            object_id: id.clone(),
            verdict: self.random.pick(SiteAttackVerdict::ALL)?.name().to_owned(),
            operator: Some("soak".to_owned()),
            note: Some(self.note()),
            expires_at_ms,
            issued_at_ms: now_ms,
        };
        self.framed(&id, &self.schemas.set_state, &command)
    }

    fn clear_override(&mut self, now_ms: i64) -> Option<Write> {
        let command = ClearOverride {
            object_id: self.any_id()?,
            operator: None,
            issued_at_ms: now_ms,
        };
        self.framed(&command.object_id, &self.schemas.clear_override, &command)
    }

    fn delete(&mut self, now_ms: i64) -> Option<Write> {
        let command = DeleteObject {
            object_id: self.any_id()?,
            operator: None,
            issued_at_ms: now_ms,
        };
        self.framed(&command.object_id, &self.schemas.delete_object, &command)
    }

    /// A good report on a partition that is not its own. Its bytes are unique: whoever finds them again knows it.
    fn misrouted(&mut self, now_ms: i64) -> Option<Write> {
        let mut report = self.report(now_ms)?;
        report.detail = Some(self.note());
        let mut write = self.framed(&report.object_id, &self.schemas.report, &report)?;
        let partitions = i32::try_from(self.shape.partitions).ok()?;
        write.partition = (write.partition + 1) % partitions.max(1);
        Some(write)
    }

    fn framed<T: serde::Serialize>(
        &self,
        id: &str,
        encoder: &Encoder<T>,
        value: &T,
    ) -> Option<Write> {
        Some(Write {
            partition: i32::try_from(partition_of(id.as_bytes(), self.shape.partitions)).ok()?,
            key: Some(id.as_bytes().to_vec()),
            value: Some(encoder.encode(value).ok()?),
        })
    }
}

#[cfg(test)]
mod tests;
