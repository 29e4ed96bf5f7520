//! The shipped recording ends in the states that its README promises.

use std::path::Path;

use anyhow::Result;
use e2e::{PATIENCE, story, until};

#[tokio::test(flavor = "multi_thread")]
async fn the_sample_ends_as_documented() -> Result<()> {
    story("sample", async |app| {
        let service = app.state_service("a", &[])?;
        service.ready().await?;
        let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../agent-sim/samples/wave.ndjson");
        let sample = sample.display().to_string();
        let agents = app.agents("replay", &["replay", &sample, "--speed", "max"])?;
        agents.finished().await?;
        let api = service.api().await?;
        let look = async || {
            let objects = api.list("").await?.objects;
            let ends: Vec<_> = objects
                .into_iter()
                .map(|o| (o.object_id, o.verdict))
                .collect();
            Ok(ends)
        };
        let expected = [
            ("blog.example.com", "UNDETERMINED"),
            ("news.example.com", "UNDER_ATTACK"),
            ("pay.example.com", "CLEAR"),
            ("shop.example.com", "CLEAR"),
        ]
        .map(|(id, verdict)| (id.to_owned(), verdict.to_owned()));
        until("the documented states", PATIENCE, look, |ends| {
            *ends == expected
        })
        .await?;
        Ok(())
    })
    .await
}
