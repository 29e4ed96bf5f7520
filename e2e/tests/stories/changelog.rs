//! What Kafka does with the changelog behind an owner's back: offsets that go back, commits that it forgets, transactions
//! that it leaves open, rows that it compacts away.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use common::kafka;
use common::schema::{SiteAttackVerdict::UnderAttack, State};
use devkit::{Kafka, KafkaOptions};
use e2e::api::{Cluster, Set};
use e2e::topics::Record;
use e2e::{Application, PATIENCE, story, story_of, until};
use engine::commit::{Missing, missing};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::report;
use crate::stores::{CALL, FLAGS, fill, states, stores};

/// A commit of offsets that was sent twice may arrive in a later transaction of the same producer:
/// then the group's offsets go back, and the state does not.
#[tokio::test(flavor = "multi_thread")]
async fn the_source_goes_on_where_the_state_ends() -> Result<()> {
    story("goes-back", async |app| {
        let id = "example.com";
        let topics = app.topics()?;
        let mut a = app.state_service("a", &FLAGS)?;
        a.ready().await?;
        for verdict in ["CLEAR", "UNDER_ATTACK", "CLEAR"] {
            a.api().await?.set(id, &set(verdict)).await?;
        }
        a.kill().await?;
        topics.commit(app.id(), &topics.names().reports, 0).await?;

        a.restart().await?;
        a.ready().await?;
        a.api().await?.set(id, &set("UNDER_ATTACK")).await?;
        let states = topics.states_of(id).await?;
        let versions: Vec<_> = states.iter().flatten().map(|state| state.version).collect();
        ensure!(versions == [1, 2, 3, 4], "{versions:?}");
        let committed = topics.committed(app.id(), &topics.names().reports).await?;
        let processed: i64 = committed.values().sum();
        ensure!(processed == 4, "{committed:?}");
        Ok(())
    })
    .await
}

fn set(verdict: &str) -> Set<'_> {
    Set {
        verdict,
        ..Set::default()
    }
}

/// Kafka may report a commit and then forget about it (`docs/adr/0010-what-was-committed-is-looked-for.md`). Here the
/// changelog is made anew without the last transaction that its owner was told is committed.
#[tokio::test(flavor = "multi_thread")]
async fn what_kafka_says_is_committed_and_is_not_there_is_done_again() -> Result<()> {
    story("forgotten", async |app| {
        let flags = [("quorum", "1"), ("freshness", "1h"), ("partitions", "1")];
        let mut a = app.state_service("a", &flags)?;
        a.ready().await?;
        fill(app, &a, 20).await?;
        let topics = app.topics()?;
        let changelog = app.names().changelog;
        let believed = topics.ends(&changelog).await?;
        topics
            .report(&report("last.example.com", "waf-1", UnderAttack, 1))
            .await?;
        let api = a.api().await?;
        let known = async || api.get("last.example.com").await;
        until("the last one is known", PATIENCE, known, Option::is_some).await?;
        ensure!(a.terminate().await? == 0, "{}", a.end_of_log());
        let records = topics.read(&changelog).await?;
        topics.recreate(&changelog).await?;
        forget(app, &changelog, &records, believed[&0]).await?;

        a.restart().await?;
        a.ready().await?;
        let api = a.api().await?;
        let known = async || api.get("last.example.com").await;
        until("it is processed again", PATIENCE, known, Option::is_some).await?;
        let reason = [("reason", "uncommitted")];
        let aside = a.metrics().await?.sum("stores_set_aside_total", &reason);
        ensure!((aside - 1.0).abs() < 0.5, "{aside} stores set aside, not 1");
        ensure!(a.log().lines_with("were never committed").len() == 1);
        let after = topics.read(&changelog).await?;
        let again = after.iter().filter(|r| r.key_text() == "olast.example.com");
        ensure!(again.count() == 1, "the changelog has it, too");
        Ok(())
    })
    .await
}

/// Writes these records to an empty topic of one partition, at their own offsets as far as they are before `end`; what
/// is behind is there, too, but was aborted.
async fn forget(app: &Application, topic: &str, records: &[Record], end: i64) -> Result<()> {
    let topics = app.topics()?;
    let mut next = 0;
    for record in records.iter().take_while(|record| record.offset < end) {
        // The ends of transactions have offsets, too: the record comes again and again until its own is reached.
        while next <= record.offset {
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            (_, next) = topics.produce(topic, Some(0), key, value).await?;
            next += 1;
        }
    }
    let last = records.last().context("the changelog has records")?.offset;
    let records = usize::try_from(last + 1 - next)?;
    transaction(app, topic, records)?.abort_transaction(CALL)?;
    Ok(())
}

/// An open transaction with so many records on partition 0.
fn transaction(app: &Application, topic: &str, records: usize) -> Result<BaseProducer> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", app.bootstrap());
    config.set("transactional.id", format!("{}-forgets", app.id()));
    let producer: BaseProducer = config.create()?;
    producer.init_transactions(CALL)?;
    producer.begin_transaction()?;
    for _ in 0..records {
        let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(0).key(b"o");
        producer.send(record.payload(b"")).map_err(|(e, _)| e)?;
    }
    producer.flush(CALL)?;
    Ok(producer)
}

/// What is looked for after an abort: the last committed record is there, and one that was aborted is not, or one
/// of a transaction that nobody has ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_was_not_committed_is_not_there() -> Result<()> {
    story("not-there", async |app| {
        let topics = app.topics()?;
        let changelog = app.names().changelog;
        topics.create(&changelog, 1).await?;
        let (_, committed) = topics
            .produce(&changelog, Some(0), Some(b"o"), None)
            .await?;
        let kafka = kafka::Args {
            bootstrap_servers: app.bootstrap().to_owned(),
            kafka: Vec::new(),
        };
        let look = |offset: i64| {
            let config = kafka.consumer("e2e", app.id());
            missing(config, &changelog, &BTreeMap::from([(0, offset)]))
        };
        let gone = |offset, open| Ok(BTreeMap::from([(0, Missing { offset, open })]));
        let seen = look(committed);
        ensure!(seen == Ok(BTreeMap::new()), "{seen:?}");
        let transaction = transaction(app, &changelog, 3)?;
        for offset in committed + 1..=committed + 3 {
            let open = look(offset);
            ensure!(open == gone(offset, true), "{open:?}");
        }
        let seen = look(committed);
        ensure!(seen == Ok(BTreeMap::new()), "{seen:?}");
        transaction.abort_transaction(CALL)?;
        for offset in committed + 1..=committed + 3 {
            let aborted = look(offset);
            ensure!(aborted == gone(offset, false), "{aborted:?}");
        }
        Ok(())
    })
    .await
}

/// A transaction may stay open for good: neither its time-out nor the next producer with its id ends it. Who waits for its
/// end makes one: with the own id, and with that of an instance whose partitions were taken over.
#[tokio::test(flavor = "multi_thread")]
async fn what_kafka_leaves_open_is_ended() -> Result<()> {
    let verification = "transaction.partition.verification.enable";
    let kafka = Kafka::start(KafkaOptions {
        properties: vec![(verification.to_owned(), "false".to_owned())],
        ..KafkaOptions::default()
    })
    .await?;
    let servers = e2e::shared_servers().await?;
    let app = Application::at("left-open", kafka.bootstrap(), servers.registry_url())?;
    story_of(app, async |app| {
        let names = app.names();
        let of_a = format!("{}-a-0", app.id());
        let leave_open = async |partition: u32| {
            let partition = i32::try_from(partition)?;
            for topic in [&names.changelog, &names.states, &names.reports] {
                kafka
                    .leave_open(&of_a, topic, partition, b"oleft-open")
                    .await?;
            }
            anyhow::Ok(())
        };

        let mut a = app.state_service("a", &FLAGS)?;
        a.ready().await?;
        let before = fill(app, &a, 10).await?;
        a.kill().await?;
        leave_open(0).await?;
        a.restart().await?;
        a.ready().await?;
        ensure!(
            !a.log()
                .lines_with("nobody ends this transaction")
                .is_empty()
        );
        ensure!(states(&a.api().await?, before.keys()).await? == before);

        let mut b = app.state_service("b", &FLAGS)?;
        b.ready().await?;
        let api = b.api().await?;
        let shared = async || api.cluster().await;
        let both = |cluster: &Cluster| cluster.running_at("a") == 1 && cluster.running_at("b") == 1;
        let cluster = until("they share", PATIENCE, shared, both).await?;
        let owned = cluster
            .tasks
            .iter()
            .find(|task| task.owner.as_deref() == Some("a"));
        // The other does not take over before it is there.
        b.pause()?;
        a.kill().await?;
        leave_open(owned.context("a owns one")?.partition).await?;
        b.resume()?;
        let look = async || api.cluster().await;
        until("b has both", PATIENCE * 2, look, |c| c.running_at("b") == 2).await?;
        ensure!(
            !b.log()
                .lines_with("nobody ends this transaction")
                .is_empty()
        );
        ensure!(states(&api, before.keys()).await? == before);

        // The source is read on, and nothing of what was left open ever shows.
        for id in before.keys() {
            let topics = app.topics()?;
            topics.report(&report(id, "waf-1", UnderAttack, 2)).await?;
        }
        let known = async || states(&api, before.keys()).await;
        let attacked =
            |s: &BTreeMap<String, State>| s.values().all(|s| s.verdict == "UNDER_ATTACK");
        until("all are attacked", PATIENCE, known, attacked).await?;
        for topic in [&names.changelog, &names.states, &names.reports] {
            let records = app.topics()?.read(topic).await?;
            ensure!(
                records.iter().all(|r| r.key_text() != "oleft-open"),
                "{topic}"
            );
        }
        Ok(())
    })
    .await
}

/// Kafka removes rows that have successors, whenever it likes.
#[tokio::test(flavor = "multi_thread")]
async fn a_compacted_changelog_restores_the_same() -> Result<()> {
    story("compacted", async |app| {
        let mut a = app.state_service("a", &FLAGS)?;
        a.ready().await?;
        let topics = app.topics()?;
        let changelog = app.names().changelog;
        let often = [
            ("cleanup.policy", "compact"),
            ("segment.ms", "100"),
            ("min.cleanable.dirty.ratio", "0.01"),
        ];
        topics.configure(&changelog, &often).await?;
        let mut expected = fill(app, &a, 40).await?;
        let api = a.api().await?;
        let deleted = "site-0001.example.com";
        api.delete(deleted).await?;
        expected.remove(deleted);
        // Each round is a segment of its own.
        let mut sequence = 1;
        let rows = async || {
            sequence += 1;
            for id in expected.keys() {
                let again = report(id, "waf-1", UnderAttack, sequence);
                topics.report(&again).await?;
            }
            let records = topics.read(&changelog).await?;
            let first = records
                .iter()
                .filter(|r| r.key_text() == "osite-0000.example.com");
            Ok((sequence, first.count()))
        };
        let fewer = |(written, left): &(i64, usize)| *written > 8 && *left < 5;
        until("rows are compacted away", PATIENCE, rows, fewer).await?;
        let known = async || states(&api, expected.keys()).await;
        let attacked = |states: &BTreeMap<String, State>| {
            states.len() == 39 && states.values().all(|s| s.verdict == "UNDER_ATTACK")
        };
        let expected = until("all are attacked", PATIENCE, known, attacked).await?;

        // With its own store, and with none.
        a.kill().await?;
        a.restart().await?;
        a.ready().await?;
        ensure!(states(&a.api().await?, expected.keys()).await? == expected);
        let aside = a.metrics().await?.sum("stores_set_aside_total", &[]);
        ensure!(aside < 0.5, "{aside} stores set aside");
        a.kill().await?;
        fs::remove_dir_all(stores(app, "a", app.id()))?;
        a.restart().await?;
        a.ready().await?;
        let api = a.api().await?;
        ensure!(states(&api, expected.keys()).await? == expected);
        ensure!(api.get(deleted).await?.is_none(), "it is deleted");
        Ok(())
    })
    .await
}
