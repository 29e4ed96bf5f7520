//! Several workers in an instance, each with a share of its partitions and a producer of its own.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use e2e::story;

use crate::cluster::{FLAGS, shared};
use crate::rounds::{applied, exactly, flip};

#[tokio::test(flavor = "multi_thread")]
async fn the_partitions_of_three_workers_move_when_their_instance_is_killed() -> Result<()> {
    story("workers", async |app| {
        let flags = [&FLAGS[..], &[("workers", "3")]].concat();
        // The first has all twelve partitions and gives half of them away: workers of both have some.
        let flags = [&flags[..], &[("partitions", "12")]].concat();
        let mut a = app.state_service("a", &flags)?;
        a.ready().await?;
        let topics = app.topics()?;
        flip(&topics, 1).await?;
        applied(&a.api().await?, 1).await?;
        let b = app.state_service("b", &flags)?;
        b.ready().await?;
        let api = b.api().await?;
        shared(&api, &[("a", 6), ("b", 6)]).await?;
        flip(&topics, 2).await?;
        applied(&api, 2).await?;
        // In the middle of a round.
        flip(&topics, 3).await?;
        a.kill().await?;
        shared(&api, &[("b", 12)]).await?;
        applied(&api, 3).await?;
        let fenced = b.log().lines_with("transactional_id=");
        let workers: BTreeSet<String> = (0..3).map(|w| format!("{}-a-{w}", app.id())).collect();
        for id in &workers {
            let of_worker = fenced.iter().any(|line| line.contains(id.as_str()));
            ensure!(of_worker, "{id} had no partition: {fenced:?}");
        }

        a.restart().await?;
        a.ready().await?;
        shared(&api, &[("a", 6), ("b", 6)]).await?;
        flip(&topics, 4).await?;
        applied(&api, 4).await?;
        exactly(app, 4).await
    })
    .await
}
