//! The one place that polls Kafka: hands records to the lanes and commits what they have done.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, bail};
use common::{kafka, shutdown::Shutdown};
use metrics::gauge;
use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{
        BaseConsumer, CommitMode, Consumer as _, ConsumerContext, Rebalance, RebalanceProtocol,
    },
    error::{KafkaError, KafkaResult},
    topic_partition_list::TopicPartitionListElem,
};

use crate::{
    config::Config,
    health::{Health, Part},
    lanes::Lanes,
    record::Record,
};

/// What librdkafka calls while it is polled.
struct Context {
    topic: String,
    connection: kafka::Context,
    lanes: Mutex<Lanes>,
    health: Health,
}

impl Context {
    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn partitions(&self, partitions: impl IntoIterator<Item = i32>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for partition in partitions {
            list.add_partition(&self.topic, partition);
        }
        list
    }

    fn commit(&self, consumer: &BaseConsumer<Self>, done: &HashMap<i32, i64>, mode: CommitMode) {
        if done.is_empty() {
            return;
        }
        let mut list = TopicPartitionList::new();
        for (partition, offset) in done {
            let added = list.add_partition_offset(&self.topic, *partition, Offset::Offset(*offset));
            if let Err(error) = added {
                tracing::warn!(%error, partition, offset, "not an offset to commit");
            }
        }
        if let Err(error) = consumer.commit(&list, mode) {
            tracing::warn!(%error, "offsets not committed; their mails may be sent again");
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.connection.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.connection.error(error, reason);
    }
}

impl ConsumerContext for Context {
    /// Partitions go: their lanes stop, and what these have done is committed while it still may be.
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let progress = match rebalance {
            Rebalance::Assign(_) => return,
            Rebalance::Revoke(list) => {
                let gone = partitions_in(list);
                tracing::info!(partitions = ?gone, "partitions revoked");
                self.lanes().close(&gone)
            }
            Rebalance::Error(error) => {
                tracing::warn!(%error, "rebalance failed");
                self.lanes().close_all()
            }
        };
        if !consumer.assignment_lost() {
            self.commit(consumer, &progress.commit, CommitMode::Sync);
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let assigned = consumer.assignment().map_or(0, |list| list.count());
        gauge!("notifier_partitions").set(assigned as f64);
        let cooperative = matches!(
            consumer.rebalance_protocol(),
            RebalanceProtocol::Cooperative
        );
        match rebalance {
            Rebalance::Assign(list) => {
                let new = partitions_in(list);
                tracing::info!(partitions = ?new, assigned, "partitions assigned");
                self.health.works(Part::Kafka);
            }
            // Some partitions go to another member; this one still is one.
            Rebalance::Revoke(_) if cooperative && !consumer.assignment_lost() => {}
            Rebalance::Revoke(_) | Rebalance::Error(_) => {
                self.health
                    .fails(Part::Kafka, &"not a member of the group now");
            }
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _offsets: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::warn!(%error, "offsets not committed; their mails may be sent again");
        }
    }
}

fn partitions_in(list: &TopicPartitionList) -> Vec<i32> {
    let elements = list.elements();
    elements
        .iter()
        .map(TopicPartitionListElem::partition)
        .collect()
}

/// Polls until `shutdown`, then stops the lanes, commits and leaves the group. Blocks.
///
/// # Errors
/// When the settings make no client, or a lane or the client cannot go on.
pub fn run(
    config: &Config,
    topic: &str,
    lanes: Lanes,
    health: &Health,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let mut settings = config.kafka.consumer("notifier", &config.group_id());
    if settings.get("partition.assignment.strategy").is_none() {
        // A notifier that comes or goes does not interrupt those that stay.
        settings.set("partition.assignment.strategy", "cooperative-sticky");
    }
    let context = Context {
        topic: topic.to_owned(),
        connection: kafka::Context::of(&settings),
        lanes: Mutex::new(lanes),
        health: health.clone(),
    };
    let consumer: BaseConsumer<Context> = settings
        .create_with_context(context)
        .context("the Kafka settings make no consumer")?;
    consumer
        .subscribe(&[topic])
        .with_context(|| format!("cannot subscribe to {topic}"))?;
    let polled = poll(&consumer, shutdown);
    let context = consumer.context();
    let progress = context.lanes().close_all();
    context.commit(&consumer, &progress.commit, CommitMode::Sync);
    polled
}

fn poll(consumer: &BaseConsumer<Context>, shutdown: &Shutdown) -> anyhow::Result<()> {
    let context = consumer.context();
    while !shutdown.is_cancelled() {
        context.connection.reconnect(consumer.client());
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let record = Record::of(&message);
                let partition = record.partition;
                if context.lanes().accept(record) {
                    consumer.pause(&context.partitions([partition]))?;
                }
            }
            Some(Err(error)) => {
                if let Some((code, why)) = consumer.client().fatal_error() {
                    bail!("the consumer cannot go on ({code}): {why}");
                }
                tracing::warn!(%error, "Kafka");
            }
            None => {}
        }
        let progress = context.lanes().progress();
        context.commit(consumer, &progress.commit, CommitMode::Async);
        if !progress.resume.is_empty() {
            consumer.resume(&context.partitions(progress.resume))?;
        }
        if let Some(failure) = progress.failure {
            return Err(failure);
        }
    }
    Ok(())
}
