//! Many reports, fast: librdkafka queues, batches and retries; its callbacks count.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use common::{avro::Encoder, kafka, schema::SiteAttackReport, shutdown::Shutdown};
use rdkafka::{
    ClientContext,
    config::{FromClientConfigAndContext as _, RDKafkaLogLevel},
    error::{KafkaError, RDKafkaErrorCode},
    producer::{
        BaseRecord, DeliveryResult, Producer as _, ProducerContext, PurgeConfig, ThreadedProducer,
    },
};

use crate::connection;

/// How long somebody who asked to stop waits for what is under way.
const PATIENCE: Duration = Duration::from_secs(10);

/// What became of the reports; filled by librdkafka's delivery callback.
#[derive(Debug)]
pub struct Outcome {
    connection: kafka::Context,
    delivered: AtomicU64,
    failed: AtomicU64,
    first_error: OnceLock<String>,
}

impl Outcome {
    /// Reports that the brokers have acknowledged.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Reports that were given up.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }

    /// Why the first of them was given up.
    #[must_use]
    pub fn first_error(&self) -> Option<&str> {
        self.first_error.get().map(String::as_str)
    }

    fn fail(&self, error: &KafkaError) {
        self.failed.fetch_add(1, Ordering::Relaxed);
        // The others are counted: thousands of the same line help nobody.
        if self.first_error.set(error.to_string()).is_ok() {
            tracing::warn!(%error, "a report was not delivered; further ones are only counted");
        }
    }
}

impl ClientContext for Outcome {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.connection.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.connection.error(error, reason);
    }
}

impl ProducerContext for Outcome {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(_) => {
                self.delivered.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, _)) => self.fail(error),
        }
    }
}

/// A producer of reports. Its methods block: call them on a thread of their own.
pub struct Delivery {
    producer: ThreadedProducer<Outcome>,
    encoder: Encoder<SiteAttackReport>,
    topic: String,
}

impl Delivery {
    /// A producer to the application's source topic, once that and the registry are there.
    ///
    /// # Errors
    /// When the settings make no client.
    pub async fn open(args: &connection::Args) -> anyhow::Result<Self> {
        let encoder = args.ready().await?;
        let settings = args.producer();
        let outcome = Outcome {
            connection: kafka::Context::of(&settings),
            delivered: AtomicU64::default(),
            failed: AtomicU64::default(),
            first_error: OnceLock::new(),
        };
        let producer = ThreadedProducer::from_config_and_context(&settings, outcome)
            .context("the Kafka settings make no producer")?;
        Ok(Self {
            producer,
            encoder,
            topic: args.topic(),
        })
    }

    /// What became of the reports so far.
    #[must_use]
    pub fn outcome(&self) -> &Outcome {
        self.producer.context()
    }

    /// Queues a report; waits while the queue is full. `false`: `shutdown` came first.
    ///
    /// # Errors
    /// When the producer is broken for good. A report that only itself is refused counts as failed.
    pub fn send(&self, report: &SiteAttackReport, shutdown: &Shutdown) -> anyhow::Result<bool> {
        let value = self.encoder.encode(report)?;
        let mut record = BaseRecord::to(&self.topic)
            .key(&report.object_id)
            .payload(&value);
        loop {
            let connection = &self.outcome().connection;
            connection.reconnect(self.producer.client());
            match self.producer.send(record) {
                Ok(()) => return Ok(true),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    if shutdown.is_cancelled() {
                        return Ok(false);
                    }
                    record = back;
                    // The producer's own thread empties the queue.
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err((error, _)) => {
                    if let Some((code, why)) = self.producer.client().fatal_error() {
                        bail!("the producer cannot go on ({code}): {why}");
                    }
                    self.outcome().fail(&error);
                    return Ok(true);
                }
            }
        }
    }

    /// Waits until every queued report has been acknowledged or given up; after `shutdown` not
    /// for long.
    pub fn finish(&self, shutdown: &Shutdown) {
        let mut asked_to_stop: Option<Instant> = None;
        while self.producer.in_flight_count() > 0 {
            if shutdown.is_cancelled() {
                let since = *asked_to_stop.get_or_insert_with(Instant::now);
                if since.elapsed() > PATIENCE {
                    self.producer
                        .purge(PurgeConfig::default().queue().inflight());
                }
            }
            let connection = &self.outcome().connection;
            connection.reconnect(self.producer.client());
            // An error here is the timeout: the loop's condition is what counts.
            drop(self.producer.flush(Duration::from_millis(100)));
        }
    }
}
