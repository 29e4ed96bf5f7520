//! Single records, each of which somebody waits for.

use std::time::Duration;

use rdkafka::{
    ClientConfig, ClientContext,
    client::Client,
    error::{KafkaError, KafkaResult},
    message::ToBytes,
    producer::{FutureProducer, FutureRecord, Producer as _, future_producer::Delivery},
    util::Timeout,
};

use super::Context;

/// How long it waits before it asks whether it is time to look for the brokers.
const WAIT: Duration = Duration::from_millis(500);

/// Writes single records, and looks after its connection while it waits (see [`Context::reconnect`]).
#[derive(Clone)]
pub struct Writer {
    producer: FutureProducer<Context>,
    connection: Context,
}

impl Writer {
    /// A writer with the settings of a producer. It needs a tokio runtime.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn new(config: &ClientConfig) -> KafkaResult<Self> {
        let connection = Context::of(config);
        Ok(Self {
            producer: config.create_with_context(connection.clone())?,
            connection,
        })
    }

    /// Writes a record, and comes back when the brokers have it: with where it is.
    ///
    /// # Errors
    /// When they have not taken it within `message.timeout.ms`, or never will.
    pub async fn write<K, P>(&self, record: FutureRecord<'_, K, P>) -> Result<Delivery, KafkaError>
    where
        K: ToBytes + ?Sized,
        P: ToBytes + ?Sized,
    {
        let mut delivery = std::pin::pin!(self.producer.send(record, Timeout::Never));
        loop {
            self.reconnect().await;
            tokio::select! {
                delivered = &mut delivery => return delivered.map_err(|(error, _)| error),
                () = tokio::time::sleep(WAIT) => {}
            }
        }
    }

    /// Its client, to ask the brokers something.
    #[must_use]
    pub fn client(&self) -> &Client<impl ClientContext> {
        self.producer.client()
    }

    /// It may ask a broker, and wait for the answer.
    async fn reconnect(&self) {
        let Self {
            producer,
            connection,
        } = self.clone();
        let reconnect = move || connection.reconnect(producer.client());
        if let Err(error) = tokio::task::spawn_blocking(reconnect).await {
            tracing::warn!(%error, "did not look for the brokers");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rdkafka::mocking::MockCluster;

    use super::*;
    use crate::kafka::lost::Look;

    #[tokio::test]
    async fn a_record_is_written_although_the_brokers_are_lost_meanwhile() {
        // It knows of none but this one, which is not there.
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", "127.0.0.1:1");
        let brokers = MockCluster::new(1).unwrap();
        brokers.create_topic("t", 1, 1).unwrap();
        let connection = Context {
            servers: brokers.bootstrap_servers().into(),
            // Not when it begins to wait.
            look: Arc::new(Look::due_in(Duration::from_millis(50))),
        };
        let writer = Writer {
            producer: config.create_with_context(connection.clone()).unwrap(),
            connection,
        };
        let record = FutureRecord::to("t").key("k").payload("v");
        let delivery = writer.write(record).await.unwrap();
        assert_eq!((delivery.partition, delivery.offset), (0, 0));
    }
}
