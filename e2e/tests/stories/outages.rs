//! Servers that are away: work waits, says why, and goes on.

use anyhow::{Result, ensure};
use common::schema::SiteAttackVerdict::{Clear, UnderAttack};
use devkit::{Kafka, KafkaOptions, Registry};
use e2e::{Application, PATIENCE, story, story_of, until};
use reqwest::{Method, StatusCode};

use crate::report;

const SITE: &str = "shop.example.com";

#[tokio::test(flavor = "multi_thread")]
async fn without_a_registry_reports_wait_and_none_is_a_dead_letter() -> Result<()> {
    let servers = e2e::shared_servers().await?;
    let registry = Registry::start().await?;
    let app = Application::at("registry-away", servers.bootstrap(), registry.url())?;
    story_of(app, async |app| {
        let mut service = app.state_service("a", &[("quorum", "1")])?;
        service.ready().await?;
        // A schema that this process has not seen: an agent of another version.
        let topics = app.topics()?;
        let reports = topics.names().reports.clone();
        let other = common::schema::SITE_ATTACK_REPORT.replace(
            "\"fields\": [",
            "\"fields\": [{\"name\": \"region\", \"type\": \"string\", \"default\": \"\"},",
        );
        let schema = topics.registry().register(&reports, &other).await?;
        let same = topics
            .registry()
            .encoder(&reports, common::schema::SITE_ATTACK_REPORT)
            .await;
        let mut value = common::wire::header(schema.id);
        value.push(0); // an empty region
        value.extend_from_slice(
            &same.encode(&report(SITE, "waf-1", Clear, 1))?[common::wire::HEADER_LEN..],
        );

        registry.pause().await?;
        topics
            .produce(&reports, None, Some(SITE.as_bytes()), Some(&value))
            .await?;
        let look = async || {
            Ok(service
                .log()
                .lines_with("records wait for their schema")
                .len())
        };
        until("it has been read and waits", PATIENCE, look, |n| *n > 0).await?;
        let api = service.api().await?;
        ensure!(api.get(SITE).await?.is_none(), "nobody can know it yet");
        registry.resume().await?;
        let look = async || Ok(api.get(SITE).await?.map(|s| s.verdict));
        until("the report counts", PATIENCE * 2, look, |v| {
            v.as_deref() == Some("CLEAR")
        })
        .await?;
        ensure!(topics.dead_letters().await?.is_empty());
        ensure!(service.terminate().await? == 0, "{}", service.end_of_log());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_kafka_it_says_so_and_goes_on_when_it_is_back() -> Result<()> {
    let kafka = Kafka::start(KafkaOptions::default()).await?;
    let servers = e2e::shared_servers().await?;
    let app = Application::at("kafka-away", kafka.bootstrap(), servers.registry_url())?;
    story_of(app, async |app| {
        kafka.stop_broker(0).await?;
        let mut service = app.state_service("a", &[("quorum", "1")])?;
        let api = service.api().await?;
        says_why(&api).await?;
        kafka.start_broker(0).await?;
        service.ready().await?;
        let topics = app.topics()?;
        topics.report(&report(SITE, "waf-1", Clear, 1)).await?;
        let look = async || Ok(api.get(SITE).await?.map(|s| s.verdict));
        until("the report counts", PATIENCE, look, |v| {
            v.as_deref() == Some("CLEAR")
        })
        .await?;

        // And again, while it runs. Reads go on meanwhile.
        kafka.stop_broker(0).await?;
        ensure!(api.state(SITE).await?.verdict == "CLEAR");
        says_why(&api).await?;
        kafka.start_broker(0).await?;
        service.ready().await?;
        topics
            .report(&report("news.example.com", "waf-1", Clear, 1))
            .await?;
        let look = async || Ok(api.get("news.example.com").await?.map(|s| s.verdict));
        until("it goes on", PATIENCE * 2, look, |v| {
            v.as_deref() == Some("CLEAR")
        })
        .await?;
        ensure!(service.terminate().await? == 0, "{}", service.end_of_log());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loss_of_a_leading_broker_of_three_loses_nothing() -> Result<()> {
    let kafka = Kafka::start(KafkaOptions {
        brokers: 3,
        ..KafkaOptions::default()
    })
    .await?;
    let servers = e2e::shared_servers().await?;
    let app = Application::at("broker-lost", kafka.bootstrap(), servers.registry_url())?;
    story_of(app, async |app| {
        let flags = [
            ("quorum", "1"),
            ("freshness", "1h"),
            ("partitions", "4"),
            ("replication-factor", "3"),
        ];
        let a = app.state_service("a", &flags)?;
        let b = app.state_service("b", &flags)?;
        a.ready().await?;
        b.ready().await?;
        let topics = app.topics()?;
        let api = a.api().await?;
        let sites: Vec<String> = (0..12)
            .map(|i| format!("site-{i:02}.example.com"))
            .collect();
        let mut lost = None;
        for round in 1..=6 {
            match round {
                // Whoever leads the changelog takes part in every commit.
                2 | 4 => {
                    let leader = topics.leader(&topics.names().changelog, 0)?;
                    kafka.kill_broker(leader).await?;
                    lost = Some(leader);
                }
                3 | 5 => {
                    if let Some(lost) = lost.take() {
                        kafka.start_broker(lost).await?;
                    }
                }
                _ => {}
            }
            let verdict = if round % 2 == 0 { Clear } else { UnderAttack };
            for site in &sites {
                topics
                    .report(&report(site, "waf-1", verdict, round))
                    .await?;
            }
            let applied = async || {
                let objects = api.list("").await?.objects;
                Ok(objects.iter().filter(|o| o.version == round).count())
            };
            let what = format!("round {round} has been applied");
            until(&what, PATIENCE * 3, applied, |n| *n == sites.len()).await?;
        }
        for site in &sites {
            let states = topics.states_of(site).await?;
            let versions: Vec<i64> = states.into_iter().flatten().map(|s| s.version).collect();
            ensure!(versions == [1, 2, 3, 4, 5, 6], "{site}: {versions:?}");
        }
        Ok(())
    })
    .await
}

/// Waits until `/readyz` blames Kafka.
async fn says_why(api: &e2e::Api) -> Result<()> {
    let look = async || api.request(Method::GET, "/readyz", None).await;
    until("not ready, and why", PATIENCE, look, |answer| {
        let detail = answer.body["detail"].as_str().unwrap_or_default();
        answer.status == StatusCode::SERVICE_UNAVAILABLE && detail.contains("Kafka")
    })
    .await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_not_as_it_must_be_is_a_clear_error() -> Result<()> {
    story("wrong-topic", async |app| {
        let mut first = app.state_service("a", &[("partitions", "4")])?;
        first.ready().await?;
        ensure!(first.terminate().await? == 0);
        // An existing source topic keeps its partitions, whatever the flag says.
        let second = app.state_service("b", &[("partitions", "6")])?;
        second.ready().await?;
        ensure!(second.api().await?.cluster().await?.partitions == 4);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_is_heard_while_it_joins_and_kafka_is_away() -> Result<()> {
    // A topic that takes nothing keeps the instance where it is, until the broker is gone as well.
    const NOTHING: (&str, &str) = ("max.message.bytes", "1");
    const COMPACT: (&str, &str) = ("cleanup.policy", "compact");
    let kafka = Kafka::start(KafkaOptions::default()).await?;
    let servers = e2e::shared_servers().await?;
    let app = Application::at("stop-heard", kafka.bootstrap(), servers.registry_url())?;
    story_of(app, async |app| {
        let mut service = app.state_service("a", &[("workers", "2")])?;
        service.ready().await?;
        service.kill().await?;

        // A process with fewer workers fences the ids that it does not take over.
        let topics = app.topics()?;
        let transactions = "__transaction_state";
        topics.configure(transactions, &[COMPACT, NOTHING]).await?;
        let mut service = app.state_service("a", &[("workers", "1")])?;
        let look = async || Ok(service.log().lines_with("not fenced yet").len());
        until("it fences in vain", PATIENCE, look, |lines| *lines > 0).await?;
        kafka.pause_broker(0).await?;
        ensure!(service.terminate().await? == 0, "{}", service.end_of_log());
        kafka.resume_broker(0).await?;
        topics.configure(transactions, &[COMPACT]).await?;

        // And it waits for its own row to come back.
        let instances = &topics.names().instances;
        topics.configure(instances, &[COMPACT, NOTHING]).await?;
        let mut service = app.state_service("a", &[("workers", "1")])?;
        let api = service.api().await?;
        let look = async || api.request(Method::GET, "/readyz", None).await;
        until("it joins", PATIENCE, look, |answer| {
            let detail = answer.body["detail"].as_str().unwrap_or_default();
            detail.contains("joining the application")
        })
        .await?;
        kafka.pause_broker(0).await?;
        ensure!(service.terminate().await? == 0, "{}", service.end_of_log());
        kafka.resume_broker(0).await?;
        Ok(())
    })
    .await
}
