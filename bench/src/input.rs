//! The reports that both systems get: generated from a seed, encoded once, sent to each application alike.

use std::time::Duration;

use agent_sim::generator::{Generator, Paced, Settings};
use agent_sim::waves::Waves;
use anyhow::{Context as _, Result};
use common::schema::{self, SiteAttackReport};
use common::{kafka, registry, topics::Names};
use e2e::Application;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer as _};

/// How long librdkafka may take to deliver the rest.
const FLUSH: Duration = Duration::from_mins(2);

/// What to generate.
#[derive(Clone, Debug)]
pub struct Shape {
    /// How many reports, repeated ones included.
    pub reports: u64,
    /// About how many objects.
    pub objects: usize,
    /// By how many agents.
    pub agents: usize,
    /// The same seed makes the same reports, but for the time at which they begin.
    pub seed: u64,
    /// Do reports overtake each other and come twice?
    pub disorder: bool,
}

impl Shape {
    /// The name of an object.
    #[must_use]
    pub fn object(index: usize) -> String {
        format!("site-{index:07}.example.com")
    }

    /// The reports, the last one of `end_ms` (ms since 1970).
    ///
    /// A tenth of the objects is under attack at any time, in ten waves; one agent in ten lies, and all are
    /// wrong now and then: that makes ties and flips.
    pub fn reports(&self, end_ms: i64) -> impl Iterator<Item = SiteAttackReport> + use<> {
        /// Reports a second of the time that the reports tell of.
        const RATE: f64 = 10_000.0;
        let seconds = self.reports as f64 / RATE;
        let wave = Duration::from_secs_f64(seconds / 20.0).max(Duration::from_millis(1));
        let held_back = if self.disorder { 0.02 } else { 0.0 };
        let settings = Settings {
            agents: self.agents,
            objects: (0..self.objects).map(Self::object).collect(),
            waves: Waves {
                attacked: self.objects.div_ceil(10),
                wave,
                pause: wave,
            },
            attacks: Vec::new(),
            ramp_up: wave / 2,
            false_positives: 0.05,
            silent: 0,
            silent_after: Duration::ZERO,
            lying: self.agents / 10,
            reordered: held_back,
            repeated: held_back,
            count: Some(self.reports),
            duration: None,
            first_sequence: 1,
        };
        let lasts_ms = Duration::from_secs_f64(seconds).as_millis();
        let start_ms = end_ms - i64::try_from(lasts_ms).unwrap_or(i64::MAX);
        Paced::new(Generator::new(settings, self.seed, start_ms), RATE).map(|timed| timed.report)
    }
}

/// Sends reports to one application, as fast as the broker takes them.
pub struct Sender {
    producer: kafka::Producer,
    encoder: common::avro::Encoder<SiteAttackReport>,
    topic: String,
}

impl Sender {
    /// A sender of this application's source topic.
    ///
    /// # Errors
    /// The settings make no client.
    pub async fn to(app: &Application) -> Result<Self> {
        Self::with(app, "20").await
    }

    /// A sender that sends each report at once.
    ///
    /// # Errors
    /// The settings make no client.
    pub async fn at_once(app: &Application) -> Result<Self> {
        Self::with(app, "0").await
    }

    async fn with(app: &Application, linger_ms: &str) -> Result<Self> {
        let args = kafka::Args {
            bootstrap_servers: app.bootstrap().to_owned(),
            kafka: Vec::new(),
        };
        let topic = Names::of(app.id()).reports;
        let registry = registry::Registry::new(&registry::Args {
            schema_registry_url: app.registry_url().to_owned(),
            schema_registry_user: None,
            schema_registry_password: None,
            schema_registry_password_file: None,
            schema_registry_ca_file: None,
        })?;
        let mut settings = args.producer("bench");
        settings
            .set("linger.ms", linger_ms)
            .set("batch.size", "262144")
            .set("queue.buffering.max.messages", "500000");
        let producer = kafka::create(&settings).context("the Kafka settings make no producer")?;
        let encoder = registry.encoder(&topic, schema::SITE_ATTACK_REPORT).await;
        Ok(Self {
            producer,
            encoder,
            topic,
        })
    }

    /// Sends one. Waits only while librdkafka's queue is full.
    ///
    /// # Errors
    /// It does not encode, or Kafka refuses it.
    pub fn send(&self, report: &SiteAttackReport) -> Result<()> {
        let value = self.encoder.encode(report)?;
        let mut record = BaseRecord::to(&self.topic)
            .key(report.object_id.as_bytes())
            .payload(&value);
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    self.producer.poll(Duration::from_millis(10));
                }
                Err((error, _)) => return Err(error).context("a report was not taken"),
            }
        }
    }

    /// Lets librdkafka do its work between sends.
    pub fn poll(&self) {
        self.producer.poll(Duration::ZERO);
    }

    /// Waits until the broker has all of them.
    ///
    /// # Errors
    /// It does not take them in time.
    pub fn flush(&self) -> Result<()> {
        self.producer.flush(FLUSH).context("reports are not taken")
    }

    /// Sends all of these.
    ///
    /// # Errors
    /// As for [`Self::send`] and [`Self::flush`].
    pub fn send_all(&self, reports: impl IntoIterator<Item = SiteAttackReport>) -> Result<u64> {
        let mut sent = 0;
        for report in reports {
            self.send(&report)?;
            sent += 1;
            if sent % 1000 == 0 {
                self.poll();
            }
        }
        self.flush()?;
        Ok(sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_reports_that_end_on_time() {
        let shape = Shape {
            reports: 2_000,
            objects: 50,
            agents: 10,
            seed: 7,
            disorder: true,
        };
        let end_ms = 1_700_000_000_000;
        let all: Vec<_> = shape.reports(end_ms).collect();
        assert_eq!(all.len(), 2_000);
        assert_eq!(all, shape.reports(end_ms).collect::<Vec<_>>());
        assert!(all.iter().all(|report| report.observed_at_ms <= end_ms));
        let attacks = all.iter().filter(|r| r.attack_kind.is_some()).count();
        assert!((100..1_500).contains(&attacks), "{attacks}");
    }
}
