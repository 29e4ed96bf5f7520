//! What a fleet of agents reports: a deterministic function of settings, seed and the times given.
//!
//! Time is cut into slots; in each slot one agent reports one object. The pairs of agent and object
//! take turns in a scattered order, so that each has come once before any comes again. A report
//! that was held back (reordered, repeated) takes the slot in which it falls due. Without
//! `reordered` and `repeated`, every slot is a new report unless its agent is silent.

use std::{collections::BTreeMap, time::Duration};

use common::schema::{SiteAttackReport, SiteAttackVerdict};
use rand::{RngExt as _, SeedableRng as _, rngs::Xoshiro256PlusPlus};

use crate::waves::{Attack, Sky, Waves, millis};

/// A report held back waits at most this many slots.
const LONGEST_DELAY: u64 = 10_000;
/// In the agents' words.
const KINDS: [&str; 3] = ["http-flood", "syn-flood", "credential-stuffing"];

/// Who reports what, and how badly.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How many agents; at least 1.
    pub agents: usize,
    /// The objects by name; at least one.
    pub objects: Vec<String>,
    /// Attacks that come and go.
    pub waves: Waves,
    /// Attacks at given times, by index of the object.
    pub attacks: Vec<(usize, Attack)>,
    /// From the first agent noticing a change to the last.
    pub ramp_up: Duration,
    /// Probability that an honest agent sees an attack where there is none.
    pub false_positives: f64,
    /// The last so many agents stop reporting,
    pub silent: usize,
    /// this long after the start.
    pub silent_after: Duration,
    /// So many agents before the silent ones report the opposite of what they see.
    pub lying: usize,
    /// Probability that a report is overtaken by later ones.
    pub reordered: f64,
    /// Probability that a report is sent again, byte for byte.
    pub repeated: f64,
    /// Reports to send in all, those repeated included; `None`: no limit.
    pub count: Option<u64>,
    /// When to stop, since the start; `None`: never.
    pub duration: Option<Duration>,
    /// Sequence number of each agent's first report.
    pub first_sequence: i64,
}

/// What happens in a slot.
#[derive(Debug, Clone, PartialEq)]
pub enum Slot {
    /// This report is sent.
    Report(SiteAttackReport),
    /// It was the turn of an agent that has fallen silent.
    Silence,
    /// The run is over.
    End,
}

/// The fleet.
#[derive(Debug)]
pub struct Generator {
    settings: Settings,
    start_ms: i64,
    sky: Sky,
    rng: Xoshiro256PlusPlus,
    agents: Vec<Agent>,
    /// Pairs of agent and object, and how far the turn moves on: coprime to `pairs`.
    pairs: u64,
    stride: u64,
    turn: u64,
    slot: u64,
    sent: u64,
    /// Reports held back, by the slot in which they are due, then in the order they were made.
    held: BTreeMap<(u64, u64), SiteAttackReport>,
}

#[derive(Debug)]
struct Agent {
    id: String,
    sequence: i64,
    /// How long it takes to notice.
    lag_ms: i64,
    silent: bool,
    lying: bool,
}

impl Generator {
    /// A fleet that starts at `start_ms` (ms since 1970). The same arguments, and the same times
    /// given to [`Self::slot`], make the same reports.
    #[must_use]
    pub fn new(settings: Settings, seed: u64, start_ms: i64) -> Self {
        let pairs = (settings.agents as u64 * settings.objects.len() as u64).max(1);
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(seed);
        Self {
            sky: Sky::new(
                settings.waves.clone(),
                settings.objects.len(),
                seed,
                &settings.attacks,
            ),
            agents: agents(&settings),
            pairs,
            stride: coprime(rng.random_range(0..pairs), pairs),
            turn: 0,
            slot: 0,
            sent: 0,
            held: BTreeMap::new(),
            start_ms,
            rng,
            settings,
        }
    }

    /// What happens in the next slot, which is at `now_ms` (ms since 1970; never decreasing).
    pub fn slot(&mut self, now_ms: i64) -> Slot {
        let held = self.held.len() as u64;
        let room = self
            .settings
            .count
            .map_or(u64::MAX, |count| count - self.sent);
        let t_ms = now_ms - self.start_ms;
        let over = self
            .settings
            .duration
            .is_some_and(|end| t_ms >= millis(end));
        let nobody = self.agents.iter().all(|agent| self.is_silent(agent, t_ms));
        if over || nobody || held >= room {
            return match self.held.pop_first() {
                Some((_, report)) if room > 0 => self.send(report),
                _ => Slot::End,
            };
        }
        self.slot += 1;
        if let Some(entry) = self.held.first_entry()
            && entry.key().0 <= self.slot
        {
            let report = entry.remove();
            return self.send(report);
        }
        // One new report is held back for each slot at most, and none that would not fit any more.
        let may_hold = room - held > 3;
        let mut report = self.take_turn(now_ms);
        if may_hold && report.is_some() && self.rng.random_bool(self.settings.reordered) {
            self.hold(report.take());
            report = self.take_turn(now_ms);
        }
        let Some(report) = report else {
            return Slot::Silence;
        };
        if may_hold && self.rng.random_bool(self.settings.repeated) {
            self.hold(Some(report.clone()));
        }
        self.send(report)
    }

    fn send(&mut self, report: SiteAttackReport) -> Slot {
        self.sent += 1;
        Slot::Report(report)
    }

    fn hold(&mut self, report: Option<SiteAttackReport>) {
        let longest = (2 * self.pairs).clamp(2, LONGEST_DELAY);
        let due = self.slot + self.rng.random_range(1..=longest);
        if let Some(report) = report {
            self.held.insert((due, self.turn), report);
        }
    }

    fn is_silent(&self, agent: &Agent, t_ms: i64) -> bool {
        agent.silent && t_ms >= millis(self.settings.silent_after)
    }

    /// The next pair's report; `None` when its agent is silent.
    fn take_turn(&mut self, now_ms: i64) -> Option<SiteAttackReport> {
        // In 128 bits: both factors may be large.
        let pair = u128::from(self.turn) * u128::from(self.stride) % u128::from(self.pairs);
        self.turn += 1;
        let pair = usize::try_from(pair).unwrap_or_default();
        let (object, index) = (pair / self.agents.len(), pair % self.agents.len());
        let t_ms = now_ms - self.start_ms;
        if self.is_silent(&self.agents[index], t_ms) {
            return None;
        }
        let agent = &mut self.agents[index];
        let attacked = self.sky.attacked(object, t_ms - agent.lag_ms);
        let sees = if agent.lying {
            !attacked
        } else {
            attacked || self.rng.random_bool(self.settings.false_positives)
        };
        let sequence = agent.sequence;
        agent.sequence += 1;
        let (verdict, kind, rate) = if sees {
            let kind = KINDS[object % KINDS.len()].to_owned();
            let rate = self.rng.random_range(5_000.0..20_000.0);
            (SiteAttackVerdict::UnderAttack, Some(kind), rate)
        } else {
            (
                SiteAttackVerdict::Clear,
                None,
                self.rng.random_range(20.0..200.0),
            )
        };
        Some(SiteAttackReport {
            object_id: self.settings.objects[object].clone(),
            agent_id: agent.id.clone(),
            verdict,
            observed_at_ms: now_ms,
            sequence,
            attack_kind: kind,
            requests_per_second: Some(f64::round(rate)),
            detail: None,
        })
    }
}

/// The last ones are silent, those before them lie; the first notices first.
fn agents(settings: &Settings) -> Vec<Agent> {
    let all = settings.agents;
    let width = all.to_string().len().max(2);
    let talking = all.saturating_sub(settings.silent);
    let honest = talking.saturating_sub(settings.lying);
    let step = settings.ramp_up.as_secs_f64() / (all.max(2) - 1) as f64;
    (0..all)
        .map(|index| Agent {
            id: format!("agent-{:0width$}", index + 1),
            sequence: settings.first_sequence,
            lag_ms: millis(Duration::from_secs_f64(step * index as f64)),
            silent: index >= talking,
            lying: (honest..talking).contains(&index),
        })
        .collect()
}

/// The first number from `from` on that shares no divisor with `n`.
fn coprime(from: u64, n: u64) -> u64 {
    let gcd = |mut a: u64, mut b: u64| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    };
    (from.max(1)..).find(|c| gcd(*c, n) == 1).unwrap_or(1)
}

/// A report and when it is sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Timed {
    /// Since the start.
    pub due: Duration,
    /// The report.
    pub report: SiteAttackReport,
}

/// The reports of a fleet with `rate` slots a second.
#[derive(Debug)]
pub struct Paced {
    generator: Generator,
    rate: f64,
    slot: u64,
}

impl Paced {
    /// Gives `generator` its times: `rate` slots a second (above 0) from its start.
    #[must_use]
    pub fn new(generator: Generator, rate: f64) -> Self {
        Self {
            generator,
            rate,
            slot: 0,
        }
    }
}

impl Iterator for Paced {
    type Item = Timed;

    fn next(&mut self) -> Option<Timed> {
        loop {
            let seconds = self.slot as f64 / self.rate;
            let due = Duration::try_from_secs_f64(seconds).ok()?;
            self.slot += 1;
            match self.generator.slot(self.generator.start_ms + millis(due)) {
                Slot::Report(report) => return Some(Timed { due, report }),
                Slot::Silence => {}
                Slot::End => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests;
