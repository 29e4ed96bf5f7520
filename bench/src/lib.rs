//! Side by side with Kafka Streams: the same work, the same input, the same machine, the same broker.
//!
//! - [`systems`]: what is compared, ours and the peer of `kafka-streams/`, in variants.
//! - [`work`]: what they are given to do.
//! - [`lab`]: the servers and the input that both get.
//! - [`machine`]: what a process takes.
//! - [`report`]: tables and files.

pub mod input;
pub mod lab;
pub mod machine;
pub mod progress;
pub mod report;
pub mod systems;
pub mod work;
