//! Bad input never stops a partition and never disappears.

use anyhow::{Result, ensure};
use common::{
    avro::Encoder,
    partitioner::partition_of,
    schema::{DeadLetter, SITE_ATTACK_REPORT, SiteAttackVerdict::Clear},
};
use e2e::{Application, PATIENCE, Topics, story, until};

use crate::report;

const SITE: &str = "shop.example.com";

/// The report schema with one more verdict, as a newer agent has it.
fn newer_schema() -> String {
    SITE_ATTACK_REPORT.replace("\"UNDER_ATTACK\"]", "\"UNDER_ATTACK\", \"DEGRADED\"]")
}

/// A record, and the reason it must be rejected for.
struct Bad {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    reason: &'static str,
}

async fn bad_records(topics: &Topics) -> Result<Vec<Bad>> {
    let reports = &topics.names().reports;
    let registry = topics.registry();
    let encoder = registry.encoder(reports, SITE_ATTACK_REPORT).await;
    let good = encoder.encode(&report(SITE, "waf-1", Clear, 1))?;
    let mut future = report(SITE, "waf-1", Clear, 1);
    future.observed_at_ms += 3_600_000;
    let newer = registry
        .register(&format!("{reports}-newer"), &newer_schema())
        .await?;
    let mut degraded = common::wire::header(newer.id);
    degraded.extend_from_slice(&good[common::wire::HEADER_LEN..]);
    // The verdict follows the two ids: each is a length and its text.
    let verdict_at = common::wire::HEADER_LEN + 1 + SITE.len() + 1 + "waf-1".len();
    degraded[verdict_at] = 4;
    let state = registry.register(reports, common::schema::STATE).await?;
    let mut unknown_id = good.clone();
    unknown_id[1..5].copy_from_slice(&9_999_999u32.to_be_bytes());
    let mut other_type = common::wire::header(state.id);
    other_type.push(0);
    let huge = Encoder::new(registry.register(reports, SITE_ATTACK_REPORT).await?).encode(
        &common::schema::SiteAttackReport {
            detail: Some("x".repeat(300_000)),
            ..report(SITE, "waf-1", Clear, 1)
        },
    )?;
    let site = || Some(SITE.as_bytes().to_vec());
    let bad = |key, value: &[u8], reason| Bad {
        key,
        value: Some(value.to_vec()),
        reason,
    };
    Ok(vec![
        bad(site(), &unknown_id, "unknown-schema"),
        bad(site(), &good[..good.len() - 1], "malformed"),
        bad(site(), &good[..3], "truncated"),
        Bad {
            key: site(),
            value: None,
            reason: "truncated",
        },
        bad(site(), b"{\"json\": true}", "wrong-magic-byte"),
        bad(site(), &degraded, "unresolvable"),
        bad(site(), &other_type, "unexpected-type"),
        bad(Some(vec![]), &good, "invalid-object-id"),
        bad(None, &good, "invalid-object-id"),
        bad(Some(vec![b'x'; 513]), &good, "invalid-object-id"),
        bad(Some(b"other.example.com".to_vec()), &good, "key-mismatch"),
        bad(site(), &encoder.encode(&future)?, "from-the-future"),
        bad(site(), &huge, "too-large"),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn each_bad_record_becomes_a_dead_letter_and_the_partition_goes_on() -> Result<()> {
    story("bad", async |app: &Application| {
        let service = app.state_service("a", &[("quorum", "1"), ("partitions", "2")])?;
        service.ready().await?;
        let topics = app.topics()?;
        let records = bad_records(&topics).await?;
        let mut sent = Vec::new();
        for bad in &records {
            let right = bad.key.as_deref().map_or(0, |key| partition_of(key, 2));
            let at = topics
                .produce(
                    &topics.names().reports,
                    Some(i32::try_from(right)?),
                    bad.key.as_deref(),
                    bad.value.as_deref(),
                )
                .await?;
            sent.push((at, bad));
        }
        // A good one behind all of them is processed.
        topics.report(&report(SITE, "waf-1", Clear, 2)).await?;
        let api = service.api().await?;
        let look = async || Ok(api.get(SITE).await?.map(|s| s.verdict));
        until("the good report counts", PATIENCE, look, |v| {
            v.as_deref() == Some("CLEAR")
        })
        .await?;

        let look = async || topics.dead_letters().await;
        let letters = until("all dead letters", PATIENCE, look, |l| {
            l.len() >= records.len()
        })
        .await?;
        ensure!(letters.len() == records.len(), "{letters:?}");
        let metrics = api.metrics().await?;
        for ((partition, offset), bad) in sent {
            let of = |l: &&DeadLetter| l.partition == partition && l.offset == offset;
            let Some(letter) = letters.iter().find(of) else {
                anyhow::bail!("no dead letter for the {} record", bad.reason);
            };
            ensure!(
                letter.reason == bad.reason,
                "{} is not {}: {}",
                letter.reason,
                bad.reason,
                letter.detail
            );
            ensure!(letter.topic == topics.names().reports);
            ensure!(letter.value == bad.value, "the original bytes are kept");
            // librdkafka tells no empty key from none.
            let key = |k: &Option<Vec<u8>>| k.clone().unwrap_or_default();
            ensure!(key(&letter.key) == key(&bad.key));
            ensure!(metrics.sum("dead_letters_total", &[("reason", bad.reason)]) >= 1.0);
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_on_the_wrong_partition_is_sent_to_the_right_one() -> Result<()> {
    story("misrouted", async |app| {
        let service = app.state_service("a", &[("quorum", "1"), ("partitions", "4")])?;
        service.ready().await?;
        let topics = app.topics()?;
        let reports = topics.names().reports.clone();
        let encoder = topics
            .registry()
            .encoder(&reports, SITE_ATTACK_REPORT)
            .await;
        let value = encoder.encode(&report(SITE, "waf-1", Clear, 1))?;
        let wrong = (partition_of(SITE.as_bytes(), 4) + 1) % 4;
        topics
            .produce(
                &reports,
                Some(i32::try_from(wrong)?),
                Some(SITE.as_bytes()),
                Some(&value),
            )
            .await?;
        let api = service.api().await?;
        let look = async || Ok(api.get(SITE).await?.map(|s| s.verdict));
        until("the report counts", PATIENCE, look, |v| {
            v.as_deref() == Some("CLEAR")
        })
        .await?;
        ensure!(api.metrics().await?.sum("misrouted_records_total", &[]) == 1.0);
        ensure!(topics.dead_letters().await?.is_empty());
        Ok(())
    })
    .await
}

/// What brokers take at most by default, but for the frame around a record.
const NEARLY_A_MEGABYTE: usize = 1_040_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_record_as_large_as_brokers_take_becomes_a_dead_letter_as_it_is() -> Result<()> {
    story("huge", async |app| {
        let service = app.state_service("a", &[("quorum", "1")])?;
        service.ready().await?;
        let topics = app.topics()?;
        let reports = topics.names().reports.clone();
        let value: Vec<u8> = (0..=250).cycle().take(NEARLY_A_MEGABYTE).collect();
        let at = topics
            .produce(&reports, None, Some(SITE.as_bytes()), Some(&value))
            .await?;
        topics.report(&report(SITE, "waf-1", Clear, 1)).await?;
        let api = service.api().await?;
        let look = async || Ok(api.get(SITE).await?.map(|s| s.verdict));
        until("the partition goes on", PATIENCE, look, |v| {
            v.as_deref() == Some("CLEAR")
        })
        .await?;
        let letters = topics.dead_letters().await?;
        ensure!(letters.len() == 1, "{} dead letters", letters.len());
        let letter = &letters[0];
        ensure!((letter.partition, letter.offset) == at);
        ensure!(letter.reason == "too-large", "{}", letter.reason);
        ensure!(letter.value == Some(value), "the original bytes are kept");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_grows_beyond_a_megabyte_and_not_beyond_what_a_row_may_be() -> Result<()> {
    story("grown-object", async |app| {
        const AGENTS: usize = 30;
        let mut service = app.state_service("a", &[("quorum", "1"), ("freshness", "1h")])?;
        service.ready().await?;
        let topics = app.topics()?;
        let large = |agent: usize, sequence| common::schema::SiteAttackReport {
            detail: Some("x".repeat(200_000)),
            ..report(SITE, &format!("waf-{agent:02}"), Clear, sequence)
        };
        for agent in 0..AGENTS {
            topics.report(&large(agent, 1)).await?;
        }
        // An agent that is in takes no more room with its next report.
        topics.report(&large(0, 2)).await?;
        let api = service.api().await?;
        let look = async || {
            let first = api.reports(SITE).await?.into_iter().next();
            Ok(first.map(|report| report.report["sequence"].to_string()))
        };
        until("the last report counts", PATIENCE, look, |sequence| {
            sequence.as_deref() == Some("2")
        })
        .await?;

        let kept = api.reports(SITE).await?.len();
        ensure!(
            kept > 10,
            "{kept} reports are no more than a megabyte or two"
        );
        let letters = topics.dead_letters().await?;
        ensure!(kept + letters.len() == AGENTS, "{kept}, {}", letters.len());
        ensure!(!letters.is_empty(), "30 of them are more than a row may be");
        for letter in letters {
            ensure!(letter.reason == "object-too-large", "{}", letter.reason);
        }
        // Another object of the partition is as welcome as ever.
        topics
            .report(&report("b.example.com", "waf-1", Clear, 1))
            .await?;
        let counts = async |api: &e2e::Api| {
            let look = async || Ok(api.get("b.example.com").await?.map(|s| s.verdict));
            let clear = |v: &Option<String>| v.as_deref() == Some("CLEAR");
            until("it counts", PATIENCE, look, clear).await
        };
        counts(&api).await?;

        // And so large a row can be read again.
        service.kill().await?;
        std::fs::remove_dir_all(app.state_dir("a"))?;
        service.restart().await?;
        service.ready().await?;
        let api = service.api().await?;
        counts(&api).await?;
        ensure!(api.reports(SITE).await?.len() == kept);
        Ok(())
    })
    .await
}
