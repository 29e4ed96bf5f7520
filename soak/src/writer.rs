//! Writes the history and the probes to the source topic, and keeps account of what the brokers acknowledged.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use common::kafka;
use rdkafka::ClientContext;
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};

use crate::checker::ledger::{Written, content};
use crate::generator::{History, Write};
use crate::now_ms;
use crate::probes::{self, Probes};

/// How long the brokers may be away before a record's fate is unknown.
const PATIENCE: Duration = Duration::from_mins(2);

/// Hears what became of records.
#[derive(Clone)]
struct Account {
    written: Arc<Mutex<Vec<Written>>>,
    connection: kafka::Context,
}

impl ClientContext for Account {
    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, facility: &str, message: &str) {
        self.connection.log(level, facility, message);
    }

    fn error(&self, error: rdkafka::error::KafkaError, reason: &str) {
        self.connection.error(error, reason);
    }
}

impl ProducerContext for Account {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let (message, at) = match result {
            Ok(message) => (message, Some((message.partition(), message.offset()))),
            Err((_, message)) => (message, None),
        };
        lock(&self.written).push(Written {
            at,
            content: content(message.key(), message.payload()),
        });
    }
}

struct Shared {
    history: Mutex<History>,
    probes: Arc<Probes>,
    rate: u32,
    topic: String,
    wanted: AtomicBool,
    idle: AtomicBool,
    over: AtomicBool,
}

/// The writer, on a thread of its own. It begins at rest.
pub struct Writer {
    shared: Arc<Shared>,
    account: Account,
    producer: Arc<ThreadedProducer<Account>>,
}

impl Writer {
    /// Writes `rate` records a second of `history`, and the probes, to `topic`.
    ///
    /// # Errors
    /// No producer or no thread can be made.
    pub fn start(
        kafka: &kafka::Args,
        topic: &str,
        history: History,
        probes: Arc<Probes>,
        rate: u32,
    ) -> Result<Self> {
        let mut config = kafka.producer("soak");
        config
            .set("linger.ms", "5")
            .set("message.timeout.ms", PATIENCE.as_millis().to_string());
        let account = Account {
            written: Arc::default(),
            connection: kafka::Context::of(&config),
        };
        let producer: ThreadedProducer<Account> = config.create_with_context(account.clone())?;
        let producer = Arc::new(producer);
        let shared = Arc::new(Shared {
            history: Mutex::new(history),
            probes,
            rate,
            topic: topic.to_owned(),
            wanted: AtomicBool::new(false),
            idle: AtomicBool::new(true),
            over: AtomicBool::new(false),
        });
        let (at_work, out) = (Arc::clone(&shared), Arc::clone(&producer));
        thread::Builder::new()
            .name("writer".to_owned())
            .spawn(move || at_work.write(&out))
            .context("a thread")?;
        Ok(Self {
            shared,
            account,
            producer,
        })
    }

    /// Begins, or goes on.
    pub fn go(&self) {
        self.shared.wanted.store(true, Ordering::Release);
    }

    /// Comes to rest: everything that was written has been acknowledged or given up. Returns what was written since
    /// the last time.
    ///
    /// # Errors
    /// It does not come to rest.
    pub fn rest(&self) -> Result<Vec<Written>> {
        self.shared.wanted.store(false, Ordering::Release);
        let deadline = Instant::now() + PATIENCE;
        while !self.shared.idle.load(Ordering::Acquire) {
            if Instant::now() > deadline {
                bail!("the writer does not come to rest");
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.producer
            .flush(PATIENCE)
            .context("flushing the writer")?;
        Ok(std::mem::take(&mut *lock(&self.account.written)))
    }

    /// Sets by how much the clock of an agent is ahead; returns the agent's id.
    pub fn set_clock(&self, agent: u32, ahead_ms: i64) -> Option<String> {
        lock(&self.shared.history).set_clock(agent, ahead_ms)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
    }
}

impl Shared {
    fn write(&self, producer: &ThreadedProducer<Account>) {
        let mut last = Instant::now();
        let mut last_probes = Instant::now();
        let mut owed = 0.0;
        while !self.over.load(Ordering::Acquire) {
            // The pace of the history, not a wait for anything.
            thread::sleep(Duration::from_millis(5));
            producer.context().connection.reconnect(producer.client());
            if !self.wanted.load(Ordering::Acquire) {
                self.idle.store(true, Ordering::Release);
                last = Instant::now();
                continue;
            }
            self.idle.store(false, Ordering::Release);
            if !self.wanted.load(Ordering::Acquire) {
                continue;
            }
            owed += last.elapsed().as_secs_f64() * f64::from(self.rate);
            last = Instant::now();
            while owed >= 1.0 {
                owed -= 1.0;
                let write = lock(&self.history).next(now_ms());
                self.send(producer, write);
            }
            if last_probes.elapsed() >= probes::EVERY {
                last_probes = Instant::now();
                for (partition, id) in self.probes.ids().iter().enumerate() {
                    let number = self.probes.send(partition);
                    let write = lock(&self.history).probe(id, number, now_ms());
                    self.send(producer, write);
                }
            }
        }
    }

    fn send(&self, producer: &ThreadedProducer<Account>, write: Option<Write>) {
        let Some(write) = write else { return };
        let mut record: BaseRecord<'_, [u8], [u8]> =
            BaseRecord::to(&self.topic).partition(write.partition);
        if let Some(key) = &write.key {
            record = record.key(key);
        }
        if let Some(value) = &write.value {
            record = record.payload(value);
        }
        // Only a full queue refuses, and what was refused was not written.
        while let Err((_, refused)) = producer.send(record) {
            if self.over.load(Ordering::Acquire) {
                return;
            }
            thread::sleep(Duration::from_millis(5));
            record = refused;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
