//! Connections to Kafka that break at the worst moments: nothing is lost, nothing is doubled.

use anyhow::{Result, ensure};
use devkit::{Kafka, KafkaOptions, KafkaProxy, proxy::ApiKey};
use e2e::{Application, PATIENCE, story, story_of, until};
use reqwest::{Method, StatusCode};

use crate::rounds::{applied, exactly, flip};

/// The requests of a transaction, in the order in which a producer makes them. The broker has done what they ask
/// for when their answers are lost.
const REQUESTS: [ApiKey; 6] = [
    ApiKey::InitProducerId,
    ApiKey::AddPartitionsToTxn,
    ApiKey::Produce,
    ApiKey::AddOffsetsToTxn,
    ApiKey::TxnOffsetCommit,
    ApiKey::EndTxn,
];

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
        let worker = format!("{}-a-0", app.id());
        let mut round = 0;
        for request in REQUESTS {
            let before = proxy.dropped();
            proxy.drop_answer_to(&worker, request, 1);
            if request == ApiKey::InitProducerId {
                // Whoever runs has its producer: a new one is made at a start.
                service.restart().await?;
                service.ready().await?;
            }
            round += 1;
            flip(&topics, round).await?;
            applied(&service.api().await?, round).await?;
            let dropped = proxy.dropped() - before;
            ensure!(dropped == 1, "{dropped} answers to {request:?} were lost");
        }
        proxy.cut().await;
        round += 1;
        flip(&topics, round).await?;
        proxy.restore().await;
        applied(&service.api().await?, round).await?;
        exactly(app, round).await?;
        ensure!(service.terminate().await? == 0, "{}", service.end_of_log());
        Ok(())
    })
    .await
}

/// A broker that stands still keeps its connections, answers nobody, and knows nothing of it when it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_stands_still_for_seconds_doubles_nothing() -> Result<()> {
    let kafka = Kafka::start(KafkaOptions::default()).await?;
    let servers = e2e::shared_servers().await?;
    let app = Application::at("broker-paused", kafka.bootstrap(), servers.registry_url())?;
    story_of(app, async |app| {
        let flags = [("quorum", "1"), ("freshness", "1h"), ("partitions", "4")];
        let service = app.state_service("a", &flags)?;
        service.ready().await?;
        let (topics, api) = (app.topics()?, service.api().await?);
        let mut round = 0;
        for _ in 0..2 {
            // What is written before is still on its way through the service.
            round += 1;
            flip(&topics, round).await?;
            kafka.pause_broker(0).await?;
            round += 1;
            let paused = async {
                let look = async || api.request(Method::GET, "/readyz", None).await;
                let what = "it has noticed that nobody answers";
                until(what, PATIENCE, look, |answer| {
                    answer.status == StatusCode::SERVICE_UNAVAILABLE
                })
                .await?;
                kafka.resume_broker(0).await
            };
            // Reports that nobody takes for now.
            tokio::try_join!(flip(&topics, round), paused)?;
            applied(&api, round).await?;
        }
        round += 1;
        flip(&topics, round).await?;
        applied(&api, round).await?;
        exactly(app, round).await
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
        applied(&api, 1).await?;
        proxy.freeze();
        flip(&topics, 2).await?;
        applied(&api, 2).await?;
        ensure!(running_at("a").await? == 4, "b still has tasks");
        proxy.thaw();
        flip(&topics, 3).await?;
        applied(&api, 3).await?;
        until(
            "b is back",
            PATIENCE,
            async || running_at("b").await,
            |n| *n == 2,
        )
        .await?;
        flip(&topics, 4).await?;
        applied(&api, 4).await?;
        exactly(app, 4).await
    })
    .await
}
