//! The harness itself: programs start and end as they are told, and what they write can be read.

use anyhow::{Result, ensure};
use e2e::{PATIENCE, story, until};

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_lives_dies_and_comes_back() -> Result<()> {
    story("harness", async |app| {
        let mut a = app.state_service("a", &[("quorum", "1"), ("partitions", "2")])?;
        a.ready().await?;
        let report = [
            "report",
            "shop.example.com",
            "UNDER_ATTACK",
            "--agent",
            "me",
        ];
        app.agents("me", &report)?.finished().await?;
        let api = a.api().await?;
        let look = async || api.get("shop.example.com").await;
        let known = |state: &Option<_>| state.is_some();
        let state = until("the report counts", PATIENCE, look, known).await?;

        let topics = app.topics()?;
        let garbage = topics.produce(&topics.names().reports, Some(1), None, Some(b"?"));
        let (partition, offset) = garbage.await?;
        ensure!(partition == 1);
        let look = async || topics.dead_letters().await;
        let dead = until("a dead letter", PATIENCE, look, |dead| dead.len() == 1).await?;
        ensure!((dead[0].partition, dead[0].offset) == (partition, offset));
        ensure!(topics.states_of("shop.example.com").await? == std::slice::from_ref(&state));
        let reports = &topics.names().reports;
        let ends = topics.ends(reports).await?;
        let look = async || topics.committed(app.id(), reports).await;
        let all = |at: &std::collections::BTreeMap<_, _>| at.get(&1) == ends.get(&1);
        until("all is committed", PATIENCE, look, all).await?;

        a.kill().await?;
        ensure!(a.terminate().await.is_err(), "it is gone");
        a.restart().await?;
        a.ready().await?;
        ensure!(a.api().await?.get("shop.example.com").await? == state);
        ensure!(a.metrics().await?.sum("tasks_running", &[]) > 1.5);
        ensure!(a.terminate().await? == 0);
        ensure!(app.tails().contains("shutting down"));
        Ok(())
    })
    .await
}
