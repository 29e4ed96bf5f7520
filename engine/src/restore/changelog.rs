//! The changelog topic as the restorer sees it.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use common::{kafka, topics::Names};
use rdkafka::{ClientConfig, Offset, TopicPartitionList, consumer::Consumer as _};

use crate::{
    fetch::{self, Batch, Fetcher},
    offsets::{self, kafka_partition},
};

/// Messages taken from librdkafka at a time.
const BATCH: usize = 5_000;
/// How long one question to the brokers may take. The stores of other partitions wait meanwhile.
const CALL: Duration = Duration::from_secs(1);

/// What the brokers say of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ends {
    /// The first offset that there is.
    pub(super) low: i64,
    /// The end of what is committed: before the first open transaction.
    pub(super) stable: i64,
    /// The end, as it was just before `stable` was asked for.
    pub(super) high: i64,
}

impl Ends {
    /// Is every transaction resolved that was open at `high`? If nobody else may write, `stable` is
    /// the end then.
    pub(super) fn is_resolved(self) -> bool {
        self.stable >= self.high
    }
}

/// Reads the changelog, and asks where it ends.
pub(super) struct Changelog {
    reader: ClientConfig,
    topic: String,
    source: String,
    /// While they are needed, and some time longer: idle ones would take memory and threads.
    clients: Option<Clients>,
    needed_at: Instant,
    rests_after: Duration,
}

/// Two consumers: one reads committed records, the other only asks where the end is.
struct Clients {
    topic: String,
    fetcher: Fetcher,
    uncommitted: kafka::Consumer,
}

impl Clients {
    fn new(reader: &ClientConfig, topic: &str) -> anyhow::Result<Self> {
        let mut uncommitted = reader.clone();
        uncommitted
            .set("isolation.level", "read_uncommitted")
            .set("enable.partition.eof", "false");
        Ok(Self {
            topic: topic.to_owned(),
            fetcher: Fetcher::new(reader, BATCH)?,
            uncommitted: kafka::create(&uncommitted)?,
        })
    }

    fn ends(&self, partitions: &[u32]) -> anyhow::Result<Vec<Ends>> {
        // It reads nothing: this only hears what is wrong with it.
        self.uncommitted.poll(Duration::ZERO);
        let context = self.uncommitted.context();
        context.reconnect(self.uncommitted.client());
        let ends = self.ask_for_ends(partitions);
        if ends.is_err() {
            // A client that reads nothing does not notice that a leader has left the cluster.
            for client in [&self.uncommitted, self.fetcher.consumer()] {
                client.fetch_metadata(Some(&self.topic), CALL)?;
            }
        }
        ends
    }

    fn ask_for_ends(&self, partitions: &[u32]) -> anyhow::Result<Vec<Ends>> {
        let reader = self.fetcher.consumer();
        let partitions: Vec<i32> = partitions.iter().copied().map(kafka_partition).collect();
        let ask = |client, which| offsets::ask(client, &self.topic, &partitions, which, CALL);
        // In this order: what was open at `high` is resolved if `stable` is not before it.
        let low = ask(&self.uncommitted, Offset::Beginning)?;
        let high = ask(&self.uncommitted, Offset::End)?;
        let stable = ask(reader, Offset::End)?;
        let ends = low.into_iter().zip(high).zip(stable);
        let ends = ends.map(|((low, high), stable)| Ends { low, stable, high });
        Ok(ends.collect())
    }
}

impl Changelog {
    pub(super) fn new(
        kafka: &kafka::Args,
        application_id: &str,
        names: &Names,
        queue_bytes: usize,
        rests_after: Duration,
    ) -> anyhow::Result<Self> {
        let client_id = format!("{application_id}-restore");
        let mut reader = kafka.consumer(&client_id, application_id);
        // Where there is much to read, it is one partition at a time: one half comes while the other is read.
        let of_one = "fetch.message.max.bytes";
        if reader.get(of_one).is_none() {
            reader.set(of_one, (queue_bytes / 2).to_string());
        }
        fetch::bound_queue(&mut reader, queue_bytes);
        reader
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", "20")
            // An offset that is gone must be heard of: to go on elsewhere would leave a gap.
            .set("auto.offset.reset", "error");
        Ok(Self {
            clients: Some(Clients::new(&reader, &names.changelog)?),
            reader,
            topic: names.changelog.clone(),
            source: names.reports.clone(),
            needed_at: Instant::now(),
            rests_after,
        })
    }

    fn clients(&mut self) -> anyhow::Result<&mut Clients> {
        let clients = match self.clients.take() {
            Some(clients) => clients,
            None => Clients::new(&self.reader, &self.topic)?,
        };
        Ok(self.clients.insert(clients))
    }

    /// Gives the clients back when there has been nothing to read for a while.
    pub(super) fn rest_if(&mut self, idle: bool) {
        let now = Instant::now();
        if !idle {
            self.needed_at = now;
        } else if now.saturating_duration_since(self.needed_at) >= self.rests_after {
            self.clients = None;
        }
    }

    /// Asks where partitions begin and end; returns that in the same order.
    ///
    /// # Errors
    /// When the brokers do not tell it of one of them. The clients have asked for the partitions' leaders anew then.
    pub(super) fn ends(&mut self, partitions: &[u32]) -> anyhow::Result<Vec<Ends>> {
        self.clients()?.ends(partitions)
    }

    /// The end of a partition that is being read, as of the last answer of its broker.
    pub(super) fn last_known_end(&self, partition: u32) -> Option<i64> {
        let clients = self.clients.as_ref()?;
        clients.fetcher.last_known_end(&self.topic, partition)
    }

    pub(super) fn read_from(&mut self, partition: u32, offset: i64) -> anyhow::Result<()> {
        let clients = self.clients()?;
        let Clients { topic, fetcher, .. } = clients;
        Ok(fetcher.assign(topic, partition, offset)?)
    }

    pub(super) fn stop_reading(&self, partition: u32) {
        let Some(clients) = &self.clients else { return };
        if let Err(error) = clients.fetcher.unassign(&self.topic, partition) {
            // What still arrives is not waited for by anybody.
            tracing::warn!(partition, %error, "the changelog is still being fetched");
        }
    }

    /// What has come; `None` if nothing is being read.
    pub(super) fn next(&mut self, timeout: Duration) -> Option<Batch<'_>> {
        let clients = self.clients.as_mut()?;
        Some(clients.fetcher.next(timeout))
    }

    /// The source offset of the application's consumer group; 0 if there is none.
    pub(super) fn group_offset(&mut self, partition: u32) -> anyhow::Result<i64> {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.source, i32::try_from(partition)?);
        let committed = self
            .clients()?
            .fetcher
            .consumer()
            .committed_offsets(list, CALL)
            .context("committed offsets")?;
        let element = committed.elements().into_iter().next();
        let element = element.context("the broker named no offset")?;
        element.error()?;
        Ok(match element.offset() {
            Offset::Offset(offset) => offset,
            _ => 0,
        })
    }
}
