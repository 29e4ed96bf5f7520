//! What every service shares: the wire contract (schemas, framing, keys), the settings of the Kafka
//! and registry clients, topics, configuration, telemetry and shutdown.
//!
//! Nothing in here knows what a service does with a record.

pub mod avro;
pub mod config;
pub mod kafka;
pub mod partitioner;
pub mod registry;
pub mod schema;
pub mod shutdown;
pub mod telemetry;
pub mod topics;
pub mod wire;
