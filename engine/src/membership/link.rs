//! The membership topics: reading both, beating, and the leader's transactional seat.

use std::{
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use common::{kafka, topics::Names};
use rdkafka::{
    Message as _, Offset, TopicPartitionList,
    consumer::Consumer as _,
    error::KafkaError,
    producer::{BaseRecord, Producer as _},
};

use super::{InstanceId, Plan, PlanNumber, PlanRow, Row};
use crate::commit::transactional;

/// Time between two beats.
pub const BEAT: Duration = Duration::from_millis(400);
const CALL: Duration = Duration::from_secs(5);

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
            let reader = Reader {
                consumer: kafka::create(&config)?,
                topic: topic.to_owned(),
                position: 0,
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

    /// Reads both topics to their present ends. What was committed before the call is seen, unless its
    /// marker is still under way or another transaction is open before it: who waits for a plan of its
    /// own looks for its number.
    ///
    /// # Errors
    /// When the ends are not reached within `limit`.
    pub fn read_to_end(
        &mut self,
        limit: Duration,
        on: &mut impl FnMut(News),
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        self.instances
            .read_to_end(deadline, |key, value| on_instance(key, value, on))?;
        self.plans
            .read_to_end(deadline, |_, value| on_plan(value, on))
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

enum Read {
    Record(Vec<u8>, Option<Vec<u8>>),
    End,
    Trouble,
}

impl Reader {
    /// Fetches from `position` on. Also makes the client tell the end again.
    fn assign(&self) -> anyhow::Result<()> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, 0, Offset::Offset(self.position))?;
        self.consumer.assign(&list)?;
        Ok(())
    }

    fn poll(&mut self, timeout: Duration) -> Option<Read> {
        match self.consumer.poll(timeout)? {
            Ok(message) => {
                self.position = message.offset() + 1;
                let key = message.key().unwrap_or_default().to_vec();
                Some(Read::Record(key, message.payload().map(<[u8]>::to_vec)))
            }
            Err(KafkaError::PartitionEOF(_)) => Some(Read::End),
            Err(error) => {
                tracing::debug!(%error, topic = self.topic, "membership");
                Some(Read::Trouble)
            }
        }
    }

    fn read_to_end(
        &mut self,
        deadline: Instant,
        mut on: impl FnMut(Vec<u8>, Option<Vec<u8>>),
    ) -> anyhow::Result<()> {
        self.assign()?;
        loop {
            match self.poll(Duration::from_millis(100)) {
                Some(Read::Record(key, value)) => on(key, value),
                Some(Read::End) => return Ok(()),
                Some(Read::Trouble) | None => {}
            }
            if Instant::now() > deadline {
                anyhow::bail!(
                    "the end of {} was not reached; are the brokers up?",
                    self.topic
                );
            }
        }
    }
}

/// Writes this instance's row again and again, from a thread of its own.
pub struct Beats {
    row: Arc<Mutex<Row>>,
    wake: Option<mpsc::Sender<Wake>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// What the beating thread is woken for.
enum Wake {
    /// Our row is another.
    Changed,
    /// This instance's row is to be removed.
    Forget(InstanceId),
}

impl Beats {
    /// Starts beating with `row`.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn start(kafka: &kafka::Args, names: &Names, id: &str, row: Row) -> anyhow::Result<Self> {
        let mut config = kafka.producer(&format!("{id}-beats"));
        config.set("linger.ms", "0");
        let producer: kafka::Producer = kafka::create(&config)?;
        let row = Arc::new(Mutex::new(row));
        let (wake, woken) = mpsc::channel();
        let beating = Beating {
            producer,
            topic: names.instances.clone(),
            id: id.to_owned(),
            row: Arc::clone(&row),
        };
        let thread = thread::Builder::new()
            .name("beats".into())
            .spawn(move || beating.run(&woken))
            .context("thread")?;
        Ok(Self {
            row,
            wake: Some(wake),
            thread: Some(thread),
        })
    }

    /// Changes the row; if that made a difference, it is written at once.
    pub fn update(&self, change: impl FnOnce(&mut Row)) {
        let mut row = lock(&self.row);
        let before = row.clone();
        change(&mut row);
        if *row != before
            && let Some(wake) = &self.wake
        {
            // The thread ends only when this sender is dropped.
            let _ = wake.send(Wake::Changed);
        }
    }

    /// Removes the row of an instance that is gone for good.
    pub fn forget(&self, instance: InstanceId) {
        if let Some(wake) = &self.wake {
            // As above.
            let _ = wake.send(Wake::Forget(instance));
        }
    }

    /// Changes what may wait for the next beat.
    pub fn tell(&self, change: impl FnOnce(&mut Row)) {
        change(&mut lock(&self.row));
    }
}

impl Drop for Beats {
    /// Writes the row a last time and waits for the broker's answer, but not for ever.
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

struct Beating {
    producer: kafka::Producer,
    topic: String,
    id: String,
    row: Arc<Mutex<Row>>,
}

impl Beating {
    fn run(self, woken: &mpsc::Receiver<Wake>) {
        let mut last_beat: Option<Instant> = None;
        let mut due = true;
        loop {
            self.producer.poll(Duration::ZERO);
            self.producer.context().reconnect(self.producer.client());
            // One at a time: a backlog written when the broker comes back would make this
            // instance's log time run ahead, and the others suspects.
            if due && self.producer.in_flight_count() == 0 {
                // A row that is written because something changed is not a beat: only beats
                // measure time.
                let beat = last_beat.is_none_or(|at| at.elapsed() >= BEAT);
                if beat {
                    last_beat = Some(Instant::now());
                }
                self.write(beat);
                due = false;
            }
            let until_beat = BEAT.saturating_sub(last_beat.map_or(BEAT, |at| at.elapsed()));
            let wait = if due {
                Duration::from_millis(5)
            } else {
                until_beat
            };
            match woken.recv_timeout(wait) {
                Ok(Wake::Changed) | Err(mpsc::RecvTimeoutError::Timeout) => due = true,
                Ok(Wake::Forget(instance)) => self.forget(&instance),
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    self.write(false);
                    if let Err(error) = self.producer.flush(Duration::from_secs(3)) {
                        tracing::warn!(%error, "the last row was not written");
                    }
                    return;
                }
            }
        }
    }

    fn forget(&self, instance: &str) {
        let record: BaseRecord<'_, str, [u8]> =
            BaseRecord::to(&self.topic).partition(0).key(instance);
        if let Err((error, _)) = self.producer.send(record) {
            // Whoever leads next finds the row again.
            tracing::warn!(%error, instance, "its row was not removed");
        }
    }

    fn write(&self, beat: bool) {
        let row = {
            let mut row = lock(&self.row);
            row.beat += u64::from(beat);
            serde_json::to_vec(&*row)
        };
        let Ok(row) = row else { return };
        let record = BaseRecord::to(&self.topic)
            .partition(0)
            .key(self.id.as_bytes())
            .payload(&row);
        if let Err((error, _)) = self.producer.send(record) {
            tracing::warn!(%error, "a beat was not written");
        }
    }
}

fn lock(row: &Mutex<Row>) -> std::sync::MutexGuard<'_, Row> {
    row.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

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
    producer.init_transactions(CALL)?;
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
/// unable to commit for good. Tries until it is done.
pub fn fence(kafka: &kafka::Args, transactional_id: &str) {
    loop {
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
