//! How long each partition stands still: a command for an object of each partition every so often, and when its
//! transition can be read.
//!
//! What is measured is the time from writing the command to its transition being visible to a read-committed consumer of
//! the output topic, so it holds everything: the broker, the fetch, the commit interval, the takeover.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use common::avro::{Decoder, Schema};
use common::partitioner::partition_of;
use common::schema::{STATE, State};
use common::{kafka, wire};
use rdkafka::consumer::Consumer as _;
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};

use crate::now_ms;

/// How often each partition is probed.
pub const EVERY: Duration = Duration::from_millis(100);
/// Longer than a partition should stand still: then the consumer looks at itself first.
const STUCK: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug)]
struct Probe {
    partition: usize,
    sent_ms: i64,
    seen_ms: Option<i64>,
}

/// The probes of a run.
#[derive(Debug)]
pub struct Probes {
    ids: Vec<String>,
    sent: Mutex<Vec<Probe>>,
    over: AtomicBool,
}

impl Probes {
    /// One object for each partition; whoever sees their transitions is started with [`Self::watch`].
    pub fn new(partitions: u32) -> Self {
        let id = |partition| {
            let mut names = (0u32..).map(|i| format!("probe-{i}.example.com"));
            names.find(|name| partition_of(name.as_bytes(), partitions) == partition)
        };
        Self {
            ids: (0..partitions).filter_map(id).collect(),
            sent: Mutex::default(),
            over: AtomicBool::new(false),
        }
    }

    /// The object of each partition.
    pub fn ids(&self) -> &[String] {
        &self.ids
    }

    /// A probe of this partition is being sent; returns its number.
    pub fn send(&self, partition: usize) -> u64 {
        let mut sent = self.lock();
        sent.push(Probe {
            partition,
            sent_ms: now_ms(),
            seen_ms: None,
        });
        (sent.len() - 1) as u64
    }

    /// When a probe of this partition that was sent at `since_ms` or later was first seen.
    pub fn served_ms(&self, partition: usize, since_ms: i64) -> Option<i64> {
        let sent = self.lock();
        let first = sent.partition_point(|probe| probe.sent_ms < since_ms);
        let of_partition = sent[first..].iter().filter(|p| p.partition == partition);
        of_partition.filter_map(|probe| probe.seen_ms).min()
    }

    /// The longest time within these moments that a probe of this partition was under way.
    pub fn longest_ms(&self, partition: usize, from_ms: i64, to_ms: i64) -> i64 {
        let now_ms = now_ms();
        let sent = self.lock();
        let before = sent.partition_point(|probe| probe.sent_ms <= to_ms);
        let of_partition = sent[..before].iter().filter(|p| p.partition == partition);
        // Whatever was sent long before has been seen: probes are seen in their order.
        let under_way = of_partition
            .rev()
            .take_while(|probe| probe.seen_ms.is_none_or(|seen_ms| seen_ms >= from_ms));
        let times =
            under_way.map(|probe| probe.seen_ms.unwrap_or(now_ms) - probe.sent_ms.max(from_ms));
        times.max().unwrap_or(0)
    }

    /// Sees transitions, on a thread of its own, until [`Self::end`].
    ///
    /// # Errors
    /// No consumer can be made.
    pub fn watch(self: &Arc<Self>, kafka: &kafka::Args, topic: &str) -> Result<()> {
        let config = kafka.consumer("soak-probes", "soak-probes");
        let consumer: kafka::Consumer = kafka::create(&config)?;
        let mut all = TopicPartitionList::new();
        for partition in 0..i32::try_from(self.ids.len())? {
            all.add_partition_offset(topic, partition, Offset::Beginning)?;
        }
        consumer.assign(&all)?;
        let decoder = Decoder::<State>::new(STATE)?;
        let schema = Schema::parse(0, STATE)?;
        let (probes, topic) = (Arc::clone(self), topic.to_owned());
        let look = move || {
            let mut checked = Instant::now();
            let mut stood = Vec::new();
            while !probes.over.load(Ordering::Acquire) {
                if checked.elapsed() >= STUCK {
                    checked = Instant::now();
                    stood = probes.unstick(&consumer, &topic, &stood);
                }
                consumer.context().reconnect(consumer.client());
                let message = match consumer.poll(Duration::from_millis(50)) {
                    Some(Ok(message)) => message,
                    Some(Err(error)) => {
                        // Brokers go away here, on purpose.
                        tracing::debug!(%error, "the probes' consumer");
                        continue;
                    }
                    None => continue,
                };
                if message.key().is_some_and(|key| key.starts_with(b"probe-"))
                    && let Some(value) = message.payload()
                    && let Ok((_, datum)) = wire::split(value)
                    && let Ok(state) = decoder.decode(&schema, datum)
                {
                    probes.seen(&state);
                }
            }
        };
        thread::Builder::new()
            .name("probes".to_owned())
            .spawn(look)
            .context("a thread")?;
        Ok(())
    }

    /// A consumer that stands still although there is more to read tells nothing of the service: it is started again
    /// where it stands, and that is said. `before` is where it stood the last time; returns where it stands now although
    /// there is more.
    fn unstick(
        &self,
        consumer: &kafka::Consumer,
        topic: &str,
        before: &[(i32, i64)],
    ) -> Vec<(i32, i64)> {
        let Ok(positions) = consumer.position() else {
            return Vec::new();
        };
        let mut stands = Vec::new();
        for mut element in positions.elements() {
            let partition = element.partition();
            let position = match element.offset() {
                Offset::Offset(position) => position,
                // Nothing was read yet.
                _ => 0,
            };
            drop(element.set_offset(Offset::Offset(position)));
            let end = consumer.fetch_watermarks(topic, partition, Duration::from_secs(2));
            // A marker of a transaction is no record; there is one in a commit.
            if let Ok((_, end)) = end
                && end > position + 50
            {
                stands.push((partition, position));
                if before.contains(&(partition, position)) {
                    println!(
                        "the soak's own consumer stands at {position} of partition {partition}, which goes to {end}"
                    );
                }
            }
        }
        if stands.iter().any(|place| before.contains(place))
            && let Err(error) = consumer.assign(&positions)
        {
            tracing::warn!(%error, "the probes' consumer cannot be started again");
        }
        stands
    }

    /// Ends the thread.
    pub fn end(&self) {
        self.over.store(true, Ordering::Release);
    }

    fn seen(&self, state: &State) {
        let note = state.override_.as_ref().and_then(|o| o.note.as_deref());
        let number = note.and_then(|note| note.strip_prefix("probe-")?.parse::<usize>().ok());
        let mut sent = self.lock();
        if let Some(probe) = number.and_then(|number| sent.get_mut(number)) {
            probe.seen_ms.get_or_insert_with(now_ms);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Probe>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_how_long_a_partition_stood_still() {
        let probes = Probes::new(2);
        assert_eq!(probes.ids().len(), 2);
        let probe = |partition, sent_ms, seen_ms| Probe {
            partition,
            sent_ms,
            seen_ms,
        };
        *probes.lock() = vec![
            probe(0, 100, Some(110)),
            probe(1, 100, Some(105)),
            probe(0, 200, Some(900)),
            probe(0, 300, Some(900)),
            probe(1, 950, Some(960)),
            probe(0, 1000, Some(1010)),
        ];
        assert_eq!(probes.longest_ms(0, 150, 400), 700);
        assert_eq!(probes.longest_ms(0, 100, 120), 10);
        assert_eq!(probes.longest_ms(0, 500, 600), 400);
        assert_eq!(probes.longest_ms(0, 950, 2000), 10);
        assert_eq!(probes.longest_ms(1, 150, 2000), 10);
        assert_eq!(probes.served_ms(0, 150), Some(900));
        assert_eq!(probes.served_ms(0, 1001), None);
    }
}
