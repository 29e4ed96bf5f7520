//! An instance that stands still until others have its partitions, and then goes on as if nothing had been.

use anyhow::{Result, ensure};
use e2e::story;

use crate::cluster::{shared, two};
use crate::rounds::{applied, exactly, flip};

#[tokio::test(flavor = "multi_thread")]
async fn a_zombie_is_fenced_and_doubles_nothing() -> Result<()> {
    story("zombie", async |app| {
        let (mut a, b) = two(app).await?;
        let api = b.api().await?;
        let topics = app.topics()?;
        flip(&topics, 1).await?;
        applied(&api, 1).await?;
        // It stands still in the middle of this round.
        flip(&topics, 2).await?;
        a.pause()?;
        shared(&api, &[("b", 8)]).await?;
        flip(&topics, 3).await?;
        applied(&api, 3).await?;
        // It still believes that it has its partitions, and there is something to do.
        a.resume()?;
        flip(&topics, 4).await?;
        shared(&api, &[("a", 4), ("b", 4)]).await?;
        flip(&topics, 5).await?;
        applied(&api, 5).await?;

        exactly(app, 5).await?;
        let ended = a.log().lines_with("worker ended");
        let fenced = ended.iter().any(|line| line.contains("fenced"));
        ensure!(fenced, "it does not say that it was fenced: {ended:?}");
        Ok(())
    })
    .await
}
