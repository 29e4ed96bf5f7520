//! Writes: an operator's command goes to the source topic, and is processed like everything else.

use common::{
    avro::Encoder,
    kafka,
    registry::Registry,
    schema::{self, ClearOverride, DeleteObject, SetState},
    topics::Names,
};
use rdkafka::{ClientConfig, producer::FutureRecord};
use serde::Serialize;
use tokio::sync::OnceCell;

/// Where a command stands in the source topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// Partition of the source topic.
    pub partition: u32,
    /// Offset of the command.
    pub offset: i64,
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.partition, self.offset)
    }
}

impl std::str::FromStr for Position {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once(':').and_then(|(partition, offset)| {
            Some(Self {
                partition: partition.parse().ok()?,
                offset: offset.parse().ok()?,
            })
        });
        parsed.ok_or_else(|| format!("{text:?} is not a position, such as 3:1042"))
    }
}

/// Writes commands.
pub(crate) struct Commands {
    config: ClientConfig,
    /// From the first command on: most instances write none.
    writer: OnceCell<kafka::Writer>,
    topic: String,
    set_state: Encoder<SetState>,
    clear_override: Encoder<ClearOverride>,
    delete_object: Encoder<DeleteObject>,
}

impl Commands {
    pub(crate) async fn new(kafka: &kafka::Args, registry: &Registry, names: &Names) -> Self {
        let topic = names.reports.clone();
        let mut config = kafka.producer(&format!("{topic}-commands"));
        // Somebody is waiting for the answer.
        config
            .set("linger.ms", "0")
            .set("message.timeout.ms", "10000");
        let (set_state, clear_override, delete_object) = tokio::join!(
            registry.encoder(&topic, schema::SET_STATE),
            registry.encoder(&topic, schema::CLEAR_OVERRIDE),
            registry.encoder(&topic, schema::DELETE_OBJECT),
        );
        Self {
            config,
            writer: OnceCell::new(),
            set_state,
            clear_override,
            delete_object,
            topic,
        }
    }

    pub(crate) async fn set_state(&self, command: &SetState) -> anyhow::Result<Position> {
        self.write(&command.object_id, &self.set_state, command)
            .await
    }

    pub(crate) async fn clear_override(&self, command: &ClearOverride) -> anyhow::Result<Position> {
        self.write(&command.object_id, &self.clear_override, command)
            .await
    }

    pub(crate) async fn delete_object(&self, command: &DeleteObject) -> anyhow::Result<Position> {
        self.write(&command.object_id, &self.delete_object, command)
            .await
    }

    async fn write<T: Serialize>(
        &self,
        object_id: &str,
        encoder: &Encoder<T>,
        command: &T,
    ) -> anyhow::Result<Position> {
        let writer = async || kafka::Writer::new(&self.config);
        let writer = self.writer.get_or_try_init(writer).await?;
        let value = encoder.encode(command)?;
        let record = FutureRecord::to(&self.topic).key(object_id).payload(&value);
        let delivery = writer.write(record).await?;
        Ok(Position {
            partition: u32::try_from(delivery.partition)?,
            offset: delivery.offset,
        })
    }
}
