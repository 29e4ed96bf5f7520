//! The clock of an agent jumps. What it says it observed is what counts, so no real time has to pass here.

use anyhow::{Result, ensure};
use common::schema::{
    SiteAttackVerdict,
    SiteAttackVerdict::{Clear, UnderAttack},
};
use e2e::{Api, PATIENCE, Topics, story, until};

use crate::report;

const SITE: &str = "shop.example.com";
const MARK: &str = "mark.example.com";
const SECOND: i64 = 1_000;
const HOUR: i64 = 3_600_000;

/// An agent whose clock is somewhere else, and the service that hears it.
struct Agent<'a> {
    topics: &'a Topics,
    api: &'a Api,
    /// When the story began, in ms since 1970.
    began_ms: i64,
    sequence: i64,
}

impl Agent<'_> {
    /// Reports what it saw so many ms after the story began by its clock, and waits until the service has gone past it:
    /// there is one partition, and what is written behind it has been processed. Returns verdict and version.
    async fn says(&mut self, verdict: SiteAttackVerdict, after_ms: i64) -> Result<(String, i64)> {
        self.sequence += 1;
        let mut heard = report(SITE, "waf-1", verdict, self.sequence);
        heard.observed_at_ms = self.began_ms + after_ms;
        self.topics.report(&heard).await?;
        let behind = report(MARK, &format!("mark-{}", self.sequence), Clear, 1);
        self.topics.report(&behind).await?;
        let marks = usize::try_from(self.sequence)?;
        let look = async || Ok(self.api.reports(MARK).await?.len());
        until("the service has gone past it", PATIENCE, look, |n| {
            *n == marks
        })
        .await?;
        let state = self.api.state(SITE).await?;
        Ok((state.verdict, state.version))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_clock_jumps_is_believed_again() -> Result<()> {
    story("clocks", async |app| {
        let flags = [
            ("quorum", "1"),
            ("freshness", "2h"),
            ("max-skew", "1m"),
            ("partitions", "1"),
        ];
        let service = app.state_service("a", &flags)?;
        service.ready().await?;
        let (topics, api) = (app.topics()?, service.api().await?);
        let mut agent = Agent {
            topics: &topics,
            api: &api,
            began_ms: engine::worker::now_ms(),
            sequence: 0,
        };
        let attacked = |version| ("UNDER_ATTACK".to_owned(), version);
        let clear = |version| ("CLEAR".to_owned(), version);
        let steps = [
            ("it begins", UnderAttack, 0, attacked(1)),
            ("far ahead: a dead letter", Clear, HOUR, attacked(1)),
            ("a little ahead: allowed", Clear, 30 * SECOND, clear(2)),
            ("set right: this looks older", UnderAttack, SECOND, clear(2)),
            ("and this", UnderAttack, 29 * SECOND, clear(2)),
            (
                "past it: its vote counts",
                UnderAttack,
                31 * SECOND,
                attacked(3),
            ),
            ("back: older again", Clear, -HOUR, attacked(3)),
            ("and still", Clear, 30 * SECOND, attacked(3)),
            ("set right: its vote counts", Clear, 32 * SECOND, clear(4)),
        ];
        for (what, verdict, after_ms, expected) in steps {
            let seen = agent.says(verdict, after_ms).await?;
            ensure!(seen == expected, "{what}: {seen:?}, not {expected:?}");
        }

        let letters = topics.dead_letters().await?;
        let reasons: Vec<&str> = letters.iter().map(|l| l.reason.as_str()).collect();
        ensure!(reasons == ["from-the-future"], "{reasons:?}");
        let ignored = service.metrics().await?;
        let ignored = ignored.sum("reports_ignored_total", &[("why", "outdated")]);
        ensure!(
            (ignored - 4.0).abs() < 0.5,
            "{ignored} were outdated, not 4"
        );
        let states = topics.states_of(SITE).await?;
        let states: Vec<_> = states
            .iter()
            .flatten()
            .map(|s| (s.verdict.as_str(), s.version))
            .collect();
        let history = [
            ("UNDER_ATTACK", 1),
            ("CLEAR", 2),
            ("UNDER_ATTACK", 3),
            ("CLEAR", 4),
        ];
        ensure!(states == history, "{states:?}");
        let reports = api.reports(SITE).await?;
        ensure!(reports.len() == 1 && reports[0].counted, "{reports:?}");
        Ok(())
    })
    .await
}
