//! What the demo and the end-to-end tests stand on: real servers, started on this machine, and the means to
//! break them.
//!
//! - [`Kafka`]: Apache Kafka, one broker or several, each of which can be stopped, killed and started again.
//! - [`Registry`]: Apicurio Registry, which speaks the Confluent schema registry's API.
//! - [`Servers`]: both, or those that the environment names.
//! - [`MailCatcher`]: an SMTP server that keeps what it gets and misbehaves when told to.
//! - [`process`]: programs that die with the process that started them.
//! - [`Disk`]: the disk under a folder, slow or full for one program.
//! - [`KafkaProxy`]: stands between clients and brokers; cuts, delays, freezes, loses answers.
//!
//! What is not on the machine (jars, a Java runtime) is downloaded once into a [`Cache`]. All servers listen on
//! 127.0.0.1 at free ports, and die with the process that started them, however that dies.

pub mod cache;
pub mod disk;
pub mod java;
pub mod kafka;
pub mod mail;
mod port;
pub mod process;
pub mod proxy;
pub mod registry;
mod servers;
pub mod tls;

pub use cache::Cache;
pub use disk::Disk;
pub use java::Java;
pub use kafka::{Kafka, KafkaOptions};
pub use mail::{Answer, MailCatcher, MailOptions};
pub use proxy::KafkaProxy;
pub use registry::Registry;
pub use servers::{Servers, fetch};
