//! The rules of the site-attack vote a second time, as the documentation states them.
//!
//! Nothing of the engine or the scenario is used: this is the second opinion. It is as slow and as plain as
//! possible. There are no timers, no tallies, no caches; whatever is asked is computed anew from the votes and a
//! time. What a moment's decision is, is a function of what has been heard and of that moment alone:
//!
//! - Each agent has one vote per object: its report with the greatest (`observed_at_ms`, `sequence`).
//! - A vote counts while `observed_at_ms + freshness` lies ahead.
//! - An override in force decides; else fewer fresh votes than the quorum decide nothing (NO_QUORUM); else the
//!   verdict with the greater weight, and equal weights decide nothing (TIE).
//! - A transition is published when verdict or basis change, and whenever an override is set or cleared.

use std::collections::BTreeMap;
use std::sync::Arc;

use common::schema::{
    Basis, Cause, Override, SetState, SiteAttackReport, SiteAttackVerdict, State, UNDETERMINED,
    Verdict as _, Vote,
};

/// What the application was told.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The name in every state.
    pub scenario: String,
    /// How long a vote counts.
    pub freshness_ms: i64,
    /// Fewer votes decide nothing.
    pub quorum: usize,
    /// What agents weigh that do not weigh 1.
    pub weights: BTreeMap<String, i64>,
}

/// A change of one object, as a good record orders it.
#[derive(Clone, Debug)]
pub enum Change {
    /// An agent's report, with the bytes of the record.
    Report(SiteAttackReport, Arc<[u8]>),
    /// Sets an override.
    Set(SetState),
    /// Ends an override.
    Clear,
    /// Forgets the object.
    Delete,
}

/// What becomes of a change.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Nothing is published.
    Silent,
    /// This state is published.
    Transition(Box<State>),
    /// A tombstone is published.
    Tombstone,
}

/// An agent's latest report.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard {
    /// The vote in it.
    pub vote: Vote,
    /// The record's value.
    pub bytes: Arc<[u8]>,
}

/// The last transition.
#[derive(Clone, Debug, PartialEq)]
pub struct Published {
    /// Its verdict.
    pub verdict: &'static str,
    /// What that rested on.
    pub basis: Basis,
    /// What made it change.
    pub cause: Cause,
    /// When.
    pub since_ms: i64,
    /// Its number.
    pub version: i64,
    /// The verdict before.
    pub previous: Option<&'static str>,
}

/// An object that exists.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Object {
    votes: Vec<Arc<Heard>>,
    override_: Option<Arc<Override>>,
    published: Option<Published>,
}

impl Object {
    /// The latest reports, by agent id, fresh or not.
    pub fn votes(&self) -> &[Arc<Heard>] {
        &self.votes
    }

    /// The override that was set last, unless it was cleared or its end has been published.
    pub fn override_(&self) -> Option<&Override> {
        self.override_.as_deref()
    }

    /// The last transition.
    pub fn published(&self) -> Option<&Published> {
        self.published.as_ref()
    }

    /// Every moment at which something of this object expires.
    pub fn expiries(&self, rules: &Rules) -> impl Iterator<Item = i64> {
        let votes = self.votes.iter().map(|heard| rules.expiry(&heard.vote));
        let override_ = self.override_.as_ref().and_then(|o| o.expires_at_ms);
        votes.chain(override_)
    }

    /// Is what was published last still what holds at `at_ms`?
    pub fn settled(&self, rules: &Rules, at_ms: i64) -> bool {
        let now = self.decision(rules, at_ms);
        self.published
            .as_ref()
            .is_some_and(|p| (p.verdict, p.basis) == now)
    }

    /// The first moment from `from_ms` on at which what was published does not hold any more.
    pub fn unsettled_from(&self, rules: &Rules, from_ms: i64) -> Option<i64> {
        let mut moments: Vec<i64> = self.expiries(rules).filter(|at| *at > from_ms).collect();
        moments.push(from_ms);
        moments.sort_unstable();
        moments.into_iter().find(|at| !self.settled(rules, *at))
    }

    /// The fresh votes at `at_ms`, by agent id.
    pub fn fresh(&self, rules: &Rules, at_ms: i64) -> Vec<Vote> {
        let fresh = self.votes.iter().map(|heard| &heard.vote);
        fresh
            .filter(|vote| rules.expiry(vote) > at_ms)
            .cloned()
            .collect()
    }

    /// The override in force at `at_ms`.
    fn in_force(&self, at_ms: i64) -> Option<&Arc<Override>> {
        let ahead = |o: &&Arc<Override>| o.expires_at_ms.is_none_or(|end| end > at_ms);
        self.override_.as_ref().filter(ahead)
    }

    fn decision(&self, rules: &Rules, at_ms: i64) -> (&'static str, Basis) {
        if let Some(override_) = self.in_force(at_ms) {
            return (named(&override_.verdict), Basis::Override);
        }
        let mut weights = [0; 2];
        let mut votes = 0;
        for heard in &self.votes {
            if rules.expiry(&heard.vote) > at_ms {
                votes += 1;
                let side = usize::from(heard.vote.verdict == SiteAttackVerdict::UnderAttack.name());
                weights[side] += heard.vote.weight;
            }
        }
        let [clear, attack] = weights;
        if votes < rules.quorum {
            (UNDETERMINED, Basis::NoQuorum)
        } else if clear == attack {
            (UNDETERMINED, Basis::Tie)
        } else if clear > attack {
            (SiteAttackVerdict::Clear.name(), Basis::Votes)
        } else {
            (SiteAttackVerdict::UnderAttack.name(), Basis::Votes)
        }
    }

    /// Decides at `at_ms`, and publishes if that is a transition or `always`.
    fn publish(
        &mut self,
        rules: &Rules,
        id: &str,
        at_ms: i64,
        cause: Cause,
        always: bool,
    ) -> Effect {
        if !always && self.settled(rules, at_ms) {
            return Effect::Silent;
        }
        if self.in_force(at_ms).is_none() {
            self.override_ = None;
        }
        let (verdict, basis) = self.decision(rules, at_ms);
        let before = self.published.take();
        let published = Published {
            verdict,
            basis,
            cause,
            since_ms: at_ms,
            version: before.as_ref().map_or(0, |p| p.version) + 1,
            previous: before.map(|p| p.verdict),
        };
        let state = State {
            object_id: id.to_owned(),
            scenario: rules.scenario.clone(),
            verdict: verdict.to_owned(),
            previous_verdict: published.previous.map(str::to_owned),
            basis,
            cause,
            since_ms: at_ms,
            version: published.version,
            votes: self.fresh(rules, at_ms),
            override_: self.override_.as_deref().cloned(),
        };
        self.published = Some(published);
        Effect::Transition(Box::new(state))
    }

    /// Time alone: what is published when somebody looks at `at_ms`.
    pub fn expire(&mut self, rules: &Rules, id: &str, at_ms: i64) -> Effect {
        self.publish(rules, id, at_ms, Cause::Expiry, false)
    }

    fn hear(&mut self, rules: &Rules, report: &SiteAttackReport, bytes: &Arc<[u8]>) -> bool {
        let vote = Vote {
            agent_id: report.agent_id.clone(),
            verdict: report.verdict.name().to_owned(),
            weight: rules.weights.get(&report.agent_id).copied().unwrap_or(1),
            observed_at_ms: report.observed_at_ms,
            sequence: report.sequence,
        };
        let age = |vote: &Vote| (vote.observed_at_ms, vote.sequence);
        let bytes = Arc::clone(bytes);
        let place = self
            .votes
            .binary_search_by(|heard| heard.vote.agent_id.cmp(&vote.agent_id));
        match place {
            Ok(i) if age(&self.votes[i].vote) >= age(&vote) => return false,
            Ok(i) => self.votes[i] = Arc::new(Heard { vote, bytes }),
            Err(i) => self.votes.insert(i, Arc::new(Heard { vote, bytes })),
        }
        true
    }
}

impl Rules {
    fn expiry(&self, vote: &Vote) -> i64 {
        vote.observed_at_ms.saturating_add(self.freshness_ms)
    }

    /// The moments at which the outcome of `change` on `object` may turn into another.
    pub fn turning_points(&self, object: Option<&Object>, change: &Change) -> Vec<i64> {
        let own = match change {
            Change::Report(report, _) => {
                Some(report.observed_at_ms.saturating_add(self.freshness_ms))
            }
            Change::Set(command) => command.expires_at_ms,
            Change::Clear | Change::Delete => None,
        };
        let of_object = object.into_iter().flat_map(|object| object.expiries(self));
        of_object.chain(own).collect()
    }

    /// Applies `change` to object `id` at `at_ms`. Whatever expired until then must have been published.
    pub fn apply(
        &self,
        object: &mut Option<Object>,
        id: &str,
        change: &Change,
        at_ms: i64,
    ) -> Effect {
        match change {
            Change::Report(report, bytes) => {
                let object = object.get_or_insert_default();
                if !object.hear(self, report, bytes) {
                    return Effect::Silent;
                }
                object.publish(self, id, at_ms, Cause::Vote, false)
            }
            Change::Set(command) => {
                if command.expires_at_ms.is_some_and(|end| end <= at_ms) {
                    return Effect::Silent;
                }
                let object = object.get_or_insert_default();
                object.override_ = Some(Arc::new(Override {
                    verdict: command.verdict.clone(),
                    operator: command.operator.clone(),
                    note: command.note.clone(),
                    set_at_ms: command.issued_at_ms,
                    expires_at_ms: command.expires_at_ms,
                }));
                object.publish(self, id, at_ms, Cause::Override, true)
            }
            Change::Clear => match object {
                Some(object) if object.in_force(at_ms).is_some() => {
                    object.override_ = None;
                    object.publish(self, id, at_ms, Cause::Override, true)
                }
                _ => Effect::Silent,
            },
            Change::Delete => match object.take() {
                Some(_) => Effect::Tombstone,
                None => Effect::Silent,
            },
        }
    }
}

/// The name of a verdict for as long as the program runs. Commands with another are dead letters.
fn named(verdict: &str) -> &'static str {
    SiteAttackVerdict::named(verdict).map_or(UNDETERMINED, SiteAttackVerdict::name)
}
