//! Standbys: they follow, take over with nothing left to restore, and are rebuilt when they are wrong.

use anyhow::{Context as _, Result, ensure};
use common::{
    partitioner::partition_of,
    schema::SiteAttackVerdict::{Clear, UnderAttack},
};
use e2e::{Api, Application, PATIENCE, Service, api::Cluster, story, until};
use engine::store::{OBJECT, Shared, Store, row_key};

use crate::report;

const FLAGS: [(&str, &str); 2] = [("quorum", "1"), ("freshness", "1h")];

fn site(number: usize) -> String {
    format!("site-{number:04}.example.com")
}

async fn fill(app: &Application, sites: usize, sequence: i64) -> Result<()> {
    let topics = app.topics()?;
    for number in 0..sites {
        let verdict = if sequence % 2 == 0 {
            Clear
        } else {
            UnderAttack
        };
        let report = report(&site(number), "waf-1", verdict, sequence);
        topics.report(&report).await?;
    }
    Ok(())
}

async fn applied(api: &Api, sites: usize, version: i64) -> Result<()> {
    let look = async || {
        let objects = api.list("").await?.objects;
        Ok(objects.iter().filter(|o| o.version == version).count())
    };
    let what = format!("version {version} of every object");
    until(&what, PATIENCE * 2, look, |n| *n == sites).await?;
    Ok(())
}

/// Waits until every partition runs and has a standby at its end.
async fn followed(api: &Api) -> Result<Cluster> {
    let look = async || api.cluster().await;
    let is_followed = |cluster: &Cluster| {
        !cluster.tasks.is_empty()
            && cluster
                .tasks
                .iter()
                .all(|task| task.running && task.standbys.iter().any(|s| s.lag == Some(0)))
    };
    until(
        "every partition has a standby at its end",
        PATIENCE * 2,
        look,
        is_followed,
    )
    .await
}

async fn count(service: &Service, metric: &str) -> Result<f64> {
    Ok(service.metrics().await?.sum(metric, &[]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_over_with_nothing_left_to_restore() -> Result<()> {
    story("standby", async |app| {
        let mut a = app.state_service("a", &FLAGS)?;
        let b = app.state_service("b", &FLAGS)?;
        a.ready().await?;
        b.ready().await?;
        fill(app, 60, 1).await?;
        let api = b.api().await?;
        applied(&api, 60, 1).await?;
        let cluster = followed(&api).await?;
        ensure!(
            cluster.tasks.iter().all(|task| task
                .standbys
                .iter()
                .all(|s| Some(&s.instance) != task.owner.as_ref())),
            "a standby beside its active: {cluster:?}"
        );
        let before = count(&b, "restored_records_total").await?;
        a.kill().await?;
        let look = async || api.cluster().await;
        until("b runs everything", PATIENCE, look, |c: &Cluster| {
            c.running_at("b") == 8
        })
        .await?;
        applied(&api, 60, 1).await?;
        let restored = count(&b, "restored_records_total").await? - before;
        ensure!(
            restored < 0.5,
            "{restored} records were restored by a standby at the end"
        );

        // The one that was killed comes back and follows.
        a.restart().await?;
        a.ready().await?;
        followed(&api).await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_instance_warms_up_before_partitions_move_to_it() -> Result<()> {
    story("warm-up", async |app| {
        let flags = [FLAGS[0], FLAGS[1], ("acceptable-recovery-lag", "5")];
        let a = app.state_service("a", &flags)?;
        a.ready().await?;
        fill(app, 400, 1).await?;
        applied(&a.api().await?, 400, 1).await?;
        let b = app.state_service("b", &flags)?;
        let api = b.api().await?;
        let look = async || api.cluster().await;
        until(
            "the partitions are shared",
            PATIENCE * 2,
            look,
            |c: &Cluster| (c.running_at("a"), c.running_at("b")) == (4, 4),
        )
        .await?;
        let restored = count(&b, "restored_records_total").await?;
        let followed = count(&b, "followed_records_total").await?;
        // Rows of objects, in about half of the partitions as their owner.
        ensure!(followed > 150.0, "{followed} records were followed");
        ensure!(
            restored <= 20.0,
            "{restored} records were left to restore when partitions moved"
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_differs_from_its_active_is_rebuilt() -> Result<()> {
    story("differs", async |app| {
        let a = app.state_service("a", &FLAGS)?;
        let mut b = app.state_service("b", &FLAGS)?;
        a.ready().await?;
        b.ready().await?;
        fill(app, 60, 1).await?;
        let api = a.api().await?;
        applied(&api, 60, 1).await?;
        followed(&api).await?;
        // When b comes back, the lower half moves to it: this one it follows.
        let partition = 7;
        ensure!(b.terminate().await? == 0, "{}", b.end_of_log());

        // A row that nobody wrote: what a fault of memory or a bug would leave.
        let stores = app.folder().join("b.state").join(app.id()).join("b/stores");
        let intruder = row_key(OBJECT, b"intruder");
        {
            let store = Store::open(&Shared::on_disk(1 << 20), &stores, app.id(), partition)?;
            let position = store.position()?;
            // The digest covers it, as it would if the fault had happened on the way in.
            let digest = store.known_digest()?.context("a digest")?;
            let row = b"nobody wrote this";
            let with = digest.wrapping_add(engine::digest::of_row(&intruder, row));
            store.apply([(&*intruder, Some(&row[..]))], position, Some(with))?;
            store.flush()?;
        }
        b.restart().await?;
        b.ready().await?;
        let id = (0..)
            .map(site)
            .find(|id| partition_of(id.as_bytes(), 8) == partition);
        let id = id.context("an object on that partition")?;
        let topics = app.topics()?;
        let mut sequence = 1;
        let look = async || {
            // Digests are written when something changes.
            sequence += 1;
            let verdict = if sequence % 2 == 0 {
                Clear
            } else {
                UnderAttack
            };
            topics
                .report(&report(&id, "waf-1", verdict, sequence))
                .await?;
            Ok(b.metrics()
                .await?
                .sum("stores_set_aside_total", &[("reason", "different")]))
        };
        until("the standby is rebuilt", PATIENCE * 2, look, |n| *n > 0.5).await?;
        let mismatches = count(&b, "digest_mismatches_total").await?;
        ensure!((mismatches - 1.0).abs() < 0.5, "{mismatches} differences");
        // It holds the same rows again.
        followed(&api).await?;
        ensure!(b.terminate().await? == 0, "{}", b.end_of_log());
        let store = Store::open(&Shared::on_disk(1 << 20), &stores, app.id(), partition)?;
        ensure!(
            store.get(&intruder)?.is_none(),
            "the intruder is still there"
        );
        Ok(())
    })
    .await
}
