//! Connections to Kafka that break at the worst moments: nothing is lost, nothing is doubled.

use anyhow::{Context as _, Result, ensure};
use common::schema::SiteAttackVerdict::{Clear, UnderAttack};
use devkit::{KafkaProxy, proxy::ApiKey};
use e2e::{Application, PATIENCE, Topics, story, until};

use crate::report;

const SITES: usize = 10;

fn site(number: usize) -> String {
    format!("site-{number:02}.example.com")
}

/// Flips every site once more.
async fn flip(topics: &Topics, round: i64) -> Result<()> {
    let verdict = if round % 2 == 0 { Clear } else { UnderAttack };
    for number in 0..SITES {
        topics
            .report(&report(&site(number), "waf-1", verdict, round))
            .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_answers_and_cut_connections_double_nothing() -> Result<()> {
    story("connections", async |app| {
        let proxy = KafkaProxy::start(app.bootstrap()).await?;
        // The same application, but the service sees Kafka through the proxy only.
        let flags = [
            ("quorum", "1"),
            ("freshness", "1h"),
            ("bootstrap-servers", proxy.bootstrap()),
        ];
        let mut service = app.state_service("a", &flags)?;
        service.ready().await?;
        let topics = app.topics()?;
        let api = service.api().await?;
        let faults: [&dyn Fn(); 4] = [
            &|| proxy.drop_answer(ApiKey::EndTxn, 1),
            &|| proxy.drop_answer(ApiKey::Produce, 1),
            &|| proxy.drop_answer(ApiKey::AddOffsetsToTxn, 1),
            &|| proxy.drop_answer(ApiKey::TxnOffsetCommit, 1),
        ];
        let mut round = 0;
        for fault in faults {
            fault();
            round += 1;
            flip(&topics, round).await?;
            until_applied(&api, round).await?;
        }
        proxy.cut().await;
        round += 1;
        flip(&topics, round).await?;
        proxy.restore().await;
        until_applied(&api, round).await?;
        ensure!(
            proxy.dropped() > 0,
            "no answer was dropped: the faults hit nothing"
        );
        exactly(app, round).await?;
        ensure!(service.terminate().await? == 0, "{}", service.end_of_log());
        Ok(())
    })
    .await
}

/// Whoever is cut off without noticing is replaced; what it still holds back when it is heard again is refused.
#[tokio::test(flavor = "multi_thread")]
async fn frozen_connections_cost_their_owner_its_tasks_and_double_nothing() -> Result<()> {
    story("frozen", async |app| {
        let proxy = KafkaProxy::start(app.bootstrap()).await?;
        let flags = [("quorum", "1"), ("freshness", "1h"), ("partitions", "4")];
        let through = [&flags[..], &[("bootstrap-servers", proxy.bootstrap())]].concat();
        let a = app.state_service("a", &flags)?;
        a.ready().await?;
        let b = app.state_service("b", &through)?;
        b.ready().await?;
        let topics = app.topics()?;
        let api = a.api().await?;
        let running_at = async |instance: &str| {
            let cluster = api.cluster().await?;
            Ok(cluster.running_at(instance))
        };
        until(
            "both have tasks",
            PATIENCE,
            async || running_at("b").await,
            |n| *n == 2,
        )
        .await?;
        flip(&topics, 1).await?;
        until_applied(&api, 1).await?;
        proxy.freeze();
        flip(&topics, 2).await?;
        until_applied(&api, 2).await?;
        ensure!(running_at("a").await? == 4, "b still has tasks");
        proxy.thaw();
        flip(&topics, 3).await?;
        until_applied(&api, 3).await?;
        until(
            "b is back",
            PATIENCE,
            async || running_at("b").await,
            |n| *n == 2,
        )
        .await?;
        flip(&topics, 4).await?;
        until_applied(&api, 4).await?;
        exactly(app, 4).await
    })
    .await
}

async fn until_applied(api: &e2e::Api, round: i64) -> Result<()> {
    let look = async || {
        let objects = api.list("").await?.objects;
        Ok(objects.iter().filter(|o| o.version == round).count())
    };
    let what = format!("round {round} has been applied");
    until(&what, PATIENCE * 2, look, |n| *n == SITES).await?;
    Ok(())
}

/// The committed history of each site has each version once, in order.
async fn exactly(app: &Application, rounds: i64) -> Result<()> {
    let expected: Vec<i64> = (1..=rounds).collect();
    for number in 0..SITES {
        let states = app.topics()?.states_of(&site(number)).await?;
        let versions: Option<Vec<i64>> = states
            .into_iter()
            .map(|state| state.map(|s| s.version))
            .collect();
        let versions = versions.context("nothing was deleted")?;
        ensure!(versions == expected, "{}: {versions:?}", site(number));
    }
    Ok(())
}
