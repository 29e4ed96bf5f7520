//! Disks that are full, slow, or do not answer at all.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use devkit::disk::Disk;
use e2e::{Api, Application, PATIENCE, Service, api::Cluster, eventually, story, until};
use reqwest::{Method, StatusCode};

use crate::rounds::{applied, exactly, flip};

const FLAGS: [(&str, &str); 3] = [("quorum", "1"), ("freshness", "1h"), ("stuck-after", "10s")];

/// Instance `a` on a disk that can be broken, and `b` on a good one.
async fn two(app: &Application) -> Result<(Disk, Service, Service)> {
    let disk = Disk::under(&app.folder().join("disk"))?;
    let state = app.folder().join("disk/a.state").display().to_string();
    let flags = [FLAGS[0], FLAGS[1], FLAGS[2], ("state-dir", &*state)];
    let a = app.state_service_in("a", &flags, &disk.environment())?;
    let b = app.state_service("b", &FLAGS)?;
    a.ready().await?;
    b.ready().await?;
    let api = b.api().await?;
    let look = async || api.cluster().await;
    until(
        "the partitions are shared",
        PATIENCE,
        look,
        |c: &Cluster| (c.running_at("a"), c.running_at("b")) == (4, 4),
    )
    .await?;
    Ok((disk, a, b))
}

/// Flips every site once more, and waits until that is applied.
async fn round(app: &Application, api: &Api, round: i64) -> Result<()> {
    flip(&app.topics()?, round).await?;
    applied(api, round).await
}

/// Waits until the instance has ended by itself; it writes to disk every thirty seconds.
async fn ends(service: &mut Service) -> Result<i32> {
    let what = format!("{} ends", service.name());
    eventually(&what, PATIENCE * 3, async || {
        service.ended()?.context("it runs")
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_it_says_so_and_leaves_its_tasks_to_others() -> Result<()> {
    story("full-disk", async |app| {
        let (disk, mut a, b) = two(app).await?;
        let api = b.api().await?;
        round(app, &api, 1).await?;
        disk.full()?;
        round(app, &api, 2).await?;
        let code = ends(&mut a).await?;
        ensure!(code == 1, "exit code {code}");
        let log = a.log().text();
        ensure!(log.contains("No space left"), "{log}");
        round(app, &api, 3).await?;
        disk.heal()?;
        a.restart().await?;
        a.ready().await?;
        round(app, &api, 4).await?;
        exactly(app, 4).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_disk_that_does_not_answer_it_ends_and_others_go_on() -> Result<()> {
    story("stuck-disk", async |app| {
        let (disk, mut a, b) = two(app).await?;
        let api = b.api().await?;
        round(app, &api, 1).await?;
        disk.slow(Duration::from_mins(10))?;
        round(app, &api, 2).await?;
        // Who looks after processes is told before this one ends by itself.
        let stuck = a.api().await?;
        let look = async || stuck.request(Method::GET, "/livez", None).await;
        until("a is not alive", PATIENCE * 3, look, |answer| {
            let detail = answer.body["detail"].as_str().unwrap_or_default();
            answer.status == StatusCode::SERVICE_UNAVAILABLE && detail.contains("no sign of life")
        })
        .await?;
        let code = ends(&mut a).await?;
        ensure!(code == 1, "exit code {code}");
        let log = a.log().text();
        ensure!(log.contains("no sign of life"), "{log}");
        round(app, &api, 3).await?;
        exactly(app, 3).await
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_disk_only_takes_longer() -> Result<()> {
    story("slow-disk", async |app| {
        let (disk, mut a, b) = two(app).await?;
        let api = b.api().await?;
        let before = disk.hits()?;
        disk.slow(Duration::from_millis(20))?;
        round(app, &api, 1).await?;
        // To leave is what writes most.
        ensure!(a.terminate().await? == 0, "{}", a.end_of_log());
        ensure!(disk.hits()? > before, "the disk was not used");
        round(app, &api, 2).await?;
        exactly(app, 2).await
    })
    .await
}
