//! Is this site under attack? A majority vote over the latest report of each agent.

use common::schema::{
    SITE_ATTACK_REPORT, SiteAttackReport, SiteAttackReportRead, SiteAttackVerdict,
};
use engine::scenario::{Decision, Opinion, Scenario, majority};

/// The scenario: each agent one vote, weighed and counted by the rules of a majority vote.
pub struct SiteAttack(majority::Rules);

impl Scenario for SiteAttack {
    const NAME: &'static str = "site-attack";
    const REPORT_SCHEMA: &'static str = SITE_ATTACK_REPORT;
    type Report = SiteAttackReport;
    type Read<'r> = SiteAttackReportRead<'r>;
    type Verdict = SiteAttackVerdict;
    type Tally = majority::Count<SiteAttackVerdict>;
    type Rules = majority::Rules;

    fn new(rules: majority::Rules) -> Self {
        Self(rules)
    }

    fn check(rules: &majority::Rules) -> Vec<String> {
        rules.check()
    }

    fn opinion<'r>(&self, report: &'r SiteAttackReportRead<'_>) -> Opinion<'r, SiteAttackVerdict> {
        Opinion {
            object_id: report.object_id,
            agent_id: report.agent_id,
            verdict: report.verdict,
            weight: self.0.weight_of(report.agent_id),
            observed_at_ms: report.observed_at_ms,
            sequence: report.sequence,
        }
    }

    fn freshness_ms(&self) -> i64 {
        self.0.freshness_ms()
    }

    fn decide(&self, tally: &Self::Tally) -> Decision<SiteAttackVerdict> {
        self.0.decide(tally)
    }
}

#[cfg(test)]
mod tests;
