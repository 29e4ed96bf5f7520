//! The membership topics: reading both. Beating is in [`beats`], the leader's seat and fencing in
//! [`seat`].

use std::time::{Duration, Instant};

use common::{kafka, topics::Names};
use rdkafka::{
    Message as _, Offset, TopicPartitionList, consumer::Consumer as _, error::KafkaError,
};

use super::{InstanceId, PlanRow, Row};

mod beats;
mod seat;

pub use beats::Beats;
pub use seat::{Duty, Seat, SeatNews, fence, leader_id, sweep};

/// Time between two beats.
pub const BEAT: Duration = Duration::from_millis(400);
const CALL: Duration = Duration::from_secs(5);
/// How long the question for the end of a topic may take: it can be found out otherwise.
const END: Duration = Duration::from_secs(1);

/// Something read from the membership topics.
#[derive(Debug)]
pub enum News {
    /// A row of `instances`; `None` is a removal.
    Row(InstanceId, Option<Row>),
    /// A row of `plans`.
    Plan(PlanRow),
}

/// Reads both topics from their beginning.
pub struct Link {
    instances: Reader,
    plans: Reader,
}

struct Reader {
    consumer: kafka::Consumer,
    topic: String,
    /// Where the next record is expected.
    position: i64,
    /// Will the client tell the end? It does once behind every record, and after an assignment.
    tells_end: bool,
    /// The end as it was told before it was last reached.
    reached: Option<i64>,
}

impl Link {
    /// Starts reading.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn new(kafka: &kafka::Args, names: &Names, client_id: &str) -> anyhow::Result<Self> {
        let mut config = kafka.consumer(client_id, &format!("{client_id}-membership"));
        config
            .set("enable.partition.eof", "true")
            // The end of a topic is noticed with the next answer to a fetch.
            .set("fetch.wait.max.ms", "50");
        let reader = |topic: &str| -> anyhow::Result<Reader> {
            let mut reader = Reader {
                consumer: kafka::create(&config)?,
                topic: topic.to_owned(),
                position: 0,
                tells_end: false,
                reached: None,
            };
            reader.assign()?;
            Ok(reader)
        };
        Ok(Self {
            instances: reader(&names.instances)?,
            plans: reader(&names.plans)?,
        })
    }

    /// What is there to read, waiting up to `timeout` for it.
    pub fn poll(&mut self, timeout: Duration, on: &mut impl FnMut(News)) {
        let mut timeout = timeout;
        while let Some(read) = self.instances.poll(timeout) {
            timeout = Duration::ZERO;
            if let Read::Record(key, value) = read {
                on_instance(key, value, on);
            }
        }
        for reader in [&self.instances, &self.plans] {
            let consumer = &reader.consumer;
            consumer.context().reconnect(consumer.client());
        }
        while let Some(read) = self.plans.poll(Duration::ZERO) {
            if let Read::Record(_, value) = read {
                on_plan(value, on);
            }
        }
    }

    /// Reads both topics to their present ends, while `goes_on` says so. What was committed before the call is seen, unless its
    /// marker is still under way or another transaction is open before it: who waits for a plan of its
    /// own looks for its number. The first plan that is there is read again: after a reset it is of
    /// another generation, even if the new topic has nothing behind what was read of the old one.
    ///
    /// # Errors
    /// When the ends are not reached within `limit`.
    pub fn read_to_end(
        &mut self,
        limit: Duration,
        goes_on: &dyn Fn() -> bool,
        on: &mut impl FnMut(News),
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        let goes_on = || goes_on() && Instant::now() < deadline;
        let end = self.instances.end();
        self.instances.read_to(end, false, &goes_on, |key, value| {
            on_instance(key, value, on);
        })?;
        let end = self.plans.end();
        self.plans
            .read_first_again(&goes_on, |value| on_plan(value, on))?;
        self.plans
            .read_to(end, true, &goes_on, |_, value| on_plan(value, on))
    }
}

fn on_instance(key: Vec<u8>, value: Option<Vec<u8>>, on: &mut impl FnMut(News)) {
    let id = String::from_utf8_lossy(&key).into_owned();
    match value.map(|json| Row::read(&json)).transpose() {
        Ok(row) => on(News::Row(id, row)),
        Err(error) => tracing::warn!(%error, instance = id, "unreadable row in instances: ignored"),
    }
}

fn on_plan(value: Option<Vec<u8>>, on: &mut impl FnMut(News)) {
    match PlanRow::read(&value.unwrap_or_default()) {
        Ok(plan) => on(News::Plan(plan)),
        Err(error) => tracing::warn!(%error, "unreadable row in plans: ignored"),
    }
}

/// Key and value of a record.
type Keyed = (Vec<u8>, Option<Vec<u8>>);

enum Read {
    Record(Vec<u8>, Option<Vec<u8>>),
    End,
    Trouble,
}

impl Reader {
    /// Fetches from `position` on. Also makes the client tell the end again.
    fn assign(&mut self) -> anyhow::Result<()> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, 0, Offset::Offset(self.position))?;
        self.consumer.assign(&list)?;
        self.tells_end = true;
        Ok(())
    }

    fn poll(&mut self, timeout: Duration) -> Option<Read> {
        match self.consumer.poll(timeout)? {
            Ok(message) => {
                self.position = message.offset() + 1;
                self.tells_end = true;
                let key = message.key().unwrap_or_default().to_vec();
                Some(Read::Record(key, message.payload().map(<[u8]>::to_vec)))
            }
            Err(KafkaError::PartitionEOF(_)) => {
                self.tells_end = false;
                Some(Read::End)
            }
            Err(error) => {
                tracing::debug!(%error, topic = self.topic, "membership");
                Some(Read::Trouble)
            }
        }
    }

    fn read_first_again(
        &mut self,
        goes_on: &dyn Fn() -> bool,
        mut on: impl FnMut(Option<Vec<u8>>),
    ) -> anyhow::Result<()> {
        let position = std::mem::take(&mut self.position);
        self.assign()?;
        if position == 0 {
            return Ok(());
        }
        let first = self.next(goes_on);
        self.position = position;
        if let Some((_, value)) = first? {
            on(value);
        }
        self.assign()
    }

    /// The end of what is committed; `None` if the broker does not tell.
    fn end(&self) -> Option<i64> {
        let watermarks = self.consumer.fetch_watermarks(&self.topic, 0, END);
        watermarks.ok().map(|(_, end)| end)
    }

    /// Reads up to `end`, which was asked for just now; or, if it is not known, until the client tells that
    /// the end is reached. That takes a fetch that waits, so it is avoided. `assigned`: since `end` was asked for.
    fn read_to(
        &mut self,
        end: Option<i64>,
        mut assigned: bool,
        goes_on: &dyn Fn() -> bool,
        mut on: impl FnMut(Vec<u8>, Option<Vec<u8>>),
    ) -> anyhow::Result<()> {
        if !assigned && !self.tells_end {
            if end.is_some() && end == self.reached {
                return Ok(());
            }
            self.assign()?;
            assigned = true;
        }
        // Behind the last record may come the end of a transaction, which nobody tells of.
        while end.is_none_or(|end| self.position < end) {
            match self.next(goes_on)? {
                Some((key, value)) => on(key, value),
                None if assigned => break,
                // It may be the end as it was before.
                None => {
                    self.assign()?;
                    assigned = true;
                }
            }
        }
        self.reached = end;
        Ok(())
    }

    /// The next record; `None` at the end.
    fn next(&mut self, goes_on: &dyn Fn() -> bool) -> anyhow::Result<Option<Keyed>> {
        loop {
            match self.poll(Duration::from_millis(100)) {
                Some(Read::Record(key, value)) => return Ok(Some((key, value))),
                Some(Read::End) => return Ok(None),
                Some(Read::Trouble) | None => {}
            }
            if !goes_on() {
                anyhow::bail!(
                    "the end of {} was not reached; are the brokers up?",
                    self.topic
                );
            }
        }
    }
}
