//! The membership topics: reading both. Beating is in [`beats`], the leader's seat and fencing in
//! [`seat`].

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use common::{kafka, topics::Names};
use rdkafka::{
    Message as _, Offset, TopicPartitionList, consumer::Consumer as _, error::KafkaError,
    message::BorrowedMessage,
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

/// Reads both topics from their beginning, as they grow.
pub struct Link {
    follower: Arc<kafka::Consumer>,
    /// Reads to the present ends: assigned only meanwhile, and told of an end at once.
    sprinter: kafka::Consumer,
    instances: Reading,
    plans: Reading,
}

/// How far a topic is read.
struct Reading {
    topic: String,
    /// The offset behind the last record that the follower has given.
    followed: i64,
    /// The offset behind the last record that the sprinter has given, until the follower gets there.
    ahead: i64,
}

impl Link {
    /// Starts reading.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn new(kafka: &kafka::Args, names: &Names, client_id: &str) -> anyhow::Result<Self> {
        let mut config = kafka.consumer(client_id, &format!("{client_id}-membership"));
        config.set("fetch.wait.max.ms", "50");
        let follower: kafka::Consumer = kafka::create(&config)?;
        // The end of a topic is noticed with an answer to a fetch that has waited so long.
        config
            .set("fetch.wait.max.ms", "2")
            .set("enable.partition.eof", "true");
        let link = Self {
            follower: Arc::new(follower),
            sprinter: kafka::create(&config)?,
            instances: Reading::of(&names.instances),
            plans: Reading::of(&names.plans),
        };
        let mut both = TopicPartitionList::new();
        for reading in [&link.instances, &link.plans] {
            both.add_partition_offset(&reading.topic, 0, Offset::Offset(0))?;
        }
        link.follower.assign(&both)?;
        Ok(link)
    }

    /// The client that follows, for others who have a question now and then.
    #[must_use]
    pub fn client(&self) -> Arc<kafka::Consumer> {
        Arc::clone(&self.follower)
    }

    /// What is there to read, waiting up to `timeout` for it.
    pub fn poll(&mut self, timeout: Duration, on: &mut impl FnMut(News)) {
        for consumer in [&*self.follower, &self.sprinter] {
            consumer.context().reconnect(consumer.client());
        }
        let mut timeout = timeout;
        while let Some(polled) = self.follower.poll(timeout) {
            timeout = Duration::ZERO;
            match polled {
                Ok(message) if message.topic() == self.instances.topic => {
                    if self.instances.follow(message.offset()) {
                        on_instance(&message, on);
                    }
                }
                Ok(message) => {
                    if self.plans.follow(message.offset()) {
                        on_plan(&message, on);
                    }
                }
                Err(error) => tracing::debug!(%error, "membership"),
            }
        }
    }

    /// Reads both topics to their present ends, while `goes_on` says so. What was committed before the call is seen, unless its
    /// marker is still under way or another transaction is open before it: who waits for a plan of its
    /// own looks for its number. All plans that are there are read again: after a reset they are of
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
        let from = self.instances.followed.max(self.instances.ahead);
        let instances = &self.instances.topic;
        let read = sprint(&self.sprinter, instances, from, &goes_on, |message| {
            on_instance(message, on);
        });
        self.instances.ahead = read?;
        let plans = &self.plans.topic;
        let read = sprint(&self.sprinter, plans, 0, &goes_on, |message| {
            on_plan(message, on);
        });
        self.plans.ahead = read?;
        self.sprinter.unassign()?;
        Ok(())
    }
}

impl Reading {
    fn of(topic: &str) -> Self {
        Self {
            topic: topic.to_owned(),
            followed: 0,
            ahead: 0,
        }
    }

    /// The follower has come to this record: is it news?
    fn follow(&mut self, offset: i64) -> bool {
        // Back again: the topic has been made anew.
        if offset < self.followed {
            self.ahead = 0;
        }
        self.followed = offset + 1;
        offset >= self.ahead
    }
}

/// Reads a topic from this offset up to its present end; returns the offset behind its last record.
fn sprint(
    consumer: &kafka::Consumer,
    topic: &str,
    from: i64,
    goes_on: &dyn Fn() -> bool,
    mut on: impl FnMut(&BorrowedMessage<'_>),
) -> anyhow::Result<i64> {
    // Behind the last record may come the end of a transaction, which nobody tells of: then the client's word is
    // waited for. That takes a fetch that waits, so it is avoided.
    let watermarks = consumer.fetch_watermarks(topic, 0, END);
    let end = watermarks.ok().map(|(_, end)| end);
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Offset(from))?;
    consumer.assign(&list)?;
    let mut position = from;
    while end.is_none_or(|end| position < end) {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                position = message.offset() + 1;
                on(&message);
            }
            Some(Err(KafkaError::PartitionEOF(_))) => break,
            Some(Err(error)) => tracing::debug!(%error, topic, "membership"),
            None => {}
        }
        if !goes_on() {
            anyhow::bail!("the end of {topic} was not reached; are the brokers up?");
        }
    }
    Ok(position)
}

fn on_instance(message: &BorrowedMessage<'_>, on: &mut impl FnMut(News)) {
    let id = String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned();
    match message.payload().map(Row::read).transpose() {
        Ok(row) => on(News::Row(id, row)),
        Err(error) => tracing::warn!(%error, instance = id, "unreadable row in instances: ignored"),
    }
}

fn on_plan(message: &BorrowedMessage<'_>, on: &mut impl FnMut(News)) {
    match PlanRow::read(message.payload().unwrap_or_default()) {
        Ok(plan) => on(News::Plan(plan)),
        Err(error) => tracing::warn!(%error, "unreadable row in plans: ignored"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_ahead_is_no_news_unless_the_topic_is_new() {
        let mut reading = Reading::of("plans");
        assert!(reading.follow(0));
        reading.ahead = 3;
        let news = [1, 2, 3, 4].map(|offset| reading.follow(offset));
        assert_eq!(news, [false, false, true, true]);
        // Made anew, and shorter than what was read of the old one.
        reading.ahead = 9;
        let news = [0, 1, 2].map(|offset| reading.follow(offset));
        assert_eq!(news, [true; 3]);
    }
}
