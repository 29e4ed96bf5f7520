//! Side by side with Kafka Streams: the same work, the same input, the same machine, the same broker.
//!
//! - [`systems`]: what is compared, ours and the peer of `kafka-streams/`, in variants.
//! - [`work`]: what they are given to do.
//! - [`lab`]: the servers. [`load`] and [`input`]: the reports that both get. [`topic`]: what they made of them.
//! - [`machine`]: what a process takes.
//! - [`run`]: a run of works. [`results`]: what it measured. [`targets`]: what was promised.
//! - [`report`], [`plots`], [`document`]: how it is told. [`flame`]: where the time goes.

pub mod document;
pub mod flame;
pub mod input;
pub mod lab;
pub mod load;
pub mod machine;
pub mod plots;
pub mod progress;
pub mod report;
pub mod results;
pub mod run;
pub mod systems;
pub mod targets;
pub mod topic;
pub mod work;
