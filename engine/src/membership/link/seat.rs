//! The leader's seat, and fencing: what transactional ids decide.

use std::{
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use common::{kafka, topics::Names};
use rdkafka::{
    consumer::Consumer as _,
    producer::{BaseRecord, Producer as _},
};

use super::CALL;
use crate::{
    commit::{claim_id, transactional},
    membership::{Plan, PlanNumber},
    sweep,
};

/// What the leader's seat is asked to do.
#[derive(Debug)]
pub enum Duty {
    /// Take the lead: from then on no plan of a former leader can commit.
    TakeLead,
    /// Write a plan.
    Publish(Box<Plan>),
}

/// What came of it.
#[derive(Debug)]
pub enum SeatNews {
    /// This instance leads.
    Seated,
    /// The plan of this number is committed.
    Published(PlanNumber),
    /// It does not lead, or no longer.
    Deposed(String),
}

/// The leader's seat: the transactional id `<application>-leader`, in a thread of its own because
/// taking it may take a second.
pub struct Seat {
    duties: mpsc::Sender<Duty>,
}

impl Seat {
    /// Starts the thread; `on` hears what comes of each duty.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(
        kafka: kafka::Args,
        application_id: &str,
        names: &Names,
        on: impl Fn(SeatNews) + Send + 'static,
    ) -> anyhow::Result<Self> {
        let (duties, todo) = mpsc::channel();
        let id = leader_id(application_id);
        let topic = names.plans.clone();
        thread::Builder::new()
            .name("leader".into())
            .spawn(move || {
                let mut producer = None;
                for duty in todo {
                    on(perform(&kafka, &id, &topic, &mut producer, duty));
                }
            })
            .context("thread")?;
        Ok(Self { duties })
    }

    /// Asks for `duty`; the answer comes to `on`.
    pub fn ask(&self, duty: Duty) {
        // The thread ends only when this sender is dropped.
        drop(self.duties.send(duty));
    }
}

/// The transactional id of the leader's seat.
#[must_use]
pub fn leader_id(application_id: &str) -> String {
    format!("{application_id}-leader")
}

fn perform(
    kafka: &kafka::Args,
    id: &str,
    topic: &str,
    producer: &mut Option<kafka::Producer>,
    duty: Duty,
) -> SeatNews {
    let result = match duty {
        Duty::TakeLead => take_lead(kafka, id).map(|seated| {
            *producer = Some(seated);
            SeatNews::Seated
        }),
        Duty::Publish(plan) => match producer {
            Some(producer) => {
                publish(producer, topic, &plan).map(|()| SeatNews::Published(plan.number))
            }
            None => Err(anyhow::anyhow!("the seat was not taken")),
        },
    };
    result.unwrap_or_else(|error| {
        *producer = None;
        SeatNews::Deposed(format!("{error:#}"))
    })
}

fn take_lead(kafka: &kafka::Args, id: &str) -> anyhow::Result<kafka::Producer> {
    let config = transactional(kafka, id);
    let producer: kafka::Producer = kafka::create(&config)?;
    claim_id(&producer, CALL)?;
    Ok(producer)
}

fn publish(producer: &kafka::Producer, topic: &str, plan: &Plan) -> anyhow::Result<()> {
    let bytes = serde_json::to_vec(plan)?;
    producer.begin_transaction()?;
    let record = BaseRecord::to(topic)
        .partition(0)
        .key("plan")
        .payload(&bytes);
    producer.send(record).map_err(|(error, _)| error)?;
    let deadline = Instant::now() + CALL;
    while producer.in_flight_count() > 0 && Instant::now() < deadline {
        producer.poll(Duration::from_millis(10));
    }
    producer.commit_transaction(CALL)?;
    Ok(())
}

/// Fences `transactional_id`: aborts its open transaction, and makes every producer that carries it
/// unable to commit for good. Tries until it is done, or `goes_on` says no.
pub fn fence(kafka: &kafka::Args, transactional_id: &str, goes_on: impl Fn() -> bool) {
    while goes_on() {
        match take_lead(kafka, transactional_id) {
            Ok(_) => return,
            Err(error) => {
                tracing::warn!(
                    error = format!("{error:#}"),
                    transactional_id,
                    "not fenced yet"
                );
                thread::park_timeout(Duration::from_millis(200));
            }
        }
    }
}

/// Ends what a producer with this id, which was fenced, has left open on a partition. Tries once: whoever
/// still finds it open asks again.
pub fn sweep(
    kafka: &kafka::Args,
    transactional_id: &str,
    names: &Names,
    group_id: &str,
    partition: u32,
) {
    let result = take_lead(kafka, transactional_id).and_then(|producer| {
        let group: kafka::Consumer = kafka::create(&kafka.consumer(transactional_id, group_id))?;
        let group = group
            .group_metadata()
            .context("the consumer has no group")?;
        Ok(sweep::sweep(&producer, names, &group, partition)?)
    });
    if let Err(error) = result {
        let error = format!("{error:#}");
        tracing::warn!(error, transactional_id, partition, "not swept");
    }
}
