//! Brokers go away and come back.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use common::kafka;
use devkit::Kafka;
use e2e::{PATIENCE, eventually};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tokio::time::sleep;

use super::Kind;
use super::inject::{Told, served};
use crate::now_ms;
use crate::plan::Step;
use crate::world::World;

/// Does a step to a broker, and waits until all brokers are back.
pub(super) async fn act(world: &World, kafka: &Kafka, step: &Step) -> Result<Told> {
    let target = usize::try_from(step.target)?;
    let broker = target % world.brokers();
    let name = format!("broker {}", broker + 1);
    let told = match step.kind {
        Kind::BrokerRestart => {
            kafka.stop_broker(broker).await?;
            sleep(step.lasts).await;
            kafka.start_broker(broker).await?;
            Told::note(name)
        }
        Kind::BrokerKill => {
            kafka.kill_broker(broker).await?;
            sleep(step.lasts).await;
            kafka.start_broker(broker).await?;
            Told::note(name)
        }
        Kind::BrokerPause => {
            kafka.pause_broker(broker).await?;
            sleep(step.lasts).await;
            kafka.resume_broker(broker).await?;
            Told::note(name)
        }
        _ => kill_leader(world, kafka, step).await?,
    };
    in_sync(world).await?;
    Ok(told)
}

/// Kills the leader of a source partition. The others must do without it before it comes back.
async fn kill_leader(world: &World, kafka: &Kafka, step: &Step) -> Result<Told> {
    let partitions = world.probes.ids().len();
    let partition = usize::try_from(step.target)? % partitions;
    let topic = world.app.names().reports;
    let leader = ask(world, move |metadata| {
        let topic = metadata.topics().iter().find(|t| t.name() == topic);
        let partition = topic.and_then(|topic| topic.partitions().get(partition));
        partition
            .map(rdkafka::metadata::MetadataPartition::leader)
            .context("no leader")
    });
    let leader = leader.await?;
    let broker = usize::try_from(leader - 1).context("the partition has no leader")?;
    kafka.kill_broker(broker).await?;
    let all: Vec<u32> = (0..u32::try_from(partitions)?).collect();
    let since_ms = now_ms();
    let look = async || served(world, &all, since_ms);
    let without = eventually("it goes on without that broker", PATIENCE * 3, look).await;
    sleep(step.lasts).await;
    kafka.start_broker(broker).await?;
    without?;
    Ok(Told::note(format!(
        "broker {leader}, leader of partition {partition}"
    )))
}

/// Waits until every replica of every topic is in sync: the next broker may go then.
async fn in_sync(world: &World) -> Result<()> {
    let look = async || {
        ask(world, |metadata| {
            for topic in metadata.topics() {
                for partition in topic.partitions() {
                    let (id, leader) = (partition.id(), partition.leader());
                    let same = partition.isr().len() == partition.replicas().len();
                    ensure!(
                        same && leader > 0,
                        "{} partition {id}, leader {leader}",
                        topic.name()
                    );
                }
            }
            Ok(())
        })
        .await
    };
    eventually("all replicas are in sync", PATIENCE * 3, look).await
}

/// Asks the brokers for what they know of all topics.
async fn ask<T: Send + 'static>(
    world: &World,
    look: impl FnOnce(&rdkafka::metadata::Metadata) -> Result<T> + Send + 'static,
) -> Result<T> {
    let kafka = kafka::Args {
        bootstrap_servers: world.app.bootstrap().to_owned(),
        kafka: Vec::new(),
    };
    let ask = move || {
        let consumer: BaseConsumer = kafka.consumer("soak-brokers", "soak").create()?;
        look(&consumer.fetch_metadata(None, Duration::from_secs(5))?)
    };
    tokio::task::spawn_blocking(ask).await?
}
