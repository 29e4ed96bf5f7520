//! Stateful stream processing on Kafka: the ideas of Kafka Streams, exactly once, in Rust.
//!
//! Two layers. The [`processor`] layer: a pure function from events to changes of a task's store,
//! timers and outputs. The [`scenario`] layer on top of it: one trusted state per object, made of
//! the latest report of each agent. Around them: tasks and epochs, commits in transactions, stores
//! that are a committed prefix of a changelog, restore, and membership of instances.

pub mod commit;
pub mod config;
mod dead_letter;
pub mod digest;
pub mod epoch;
mod events;
pub mod fetch;
pub mod guard;
pub mod identity;
pub mod instance;
pub mod intake;
mod keys;
mod last_rows;
pub mod lookup;
pub mod membership;
pub mod memory;
pub mod objects;
mod offsets;
mod pending;
mod places;
pub mod processor;
pub mod produce;
pub mod query;
pub mod reset;
pub mod restore;
pub mod scenario;
pub mod store;
pub mod sweep;
pub mod task;
pub mod testing;
pub mod timers;
pub mod watchdog;
pub mod worker;
