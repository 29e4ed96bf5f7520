//! The restorer: brings stores to the end of the changelog before their tasks start, and keeps the
//! standbys there.
//!
//! One thread for all stores of the instance that no task has, so that tasks go on meanwhile. A store
//! that holds something already needs only the rows after its position. A restore is complete when no
//! transaction is open on its changelog (last stable offset = high watermark) and the end as of then
//! is reached. The thread also looks after the stores that it has handed over: it flushes the quiet
//! ones.

use std::{
    path::PathBuf,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use common::{kafka, topics::Names};

use crate::{
    memory::Pool,
    store::{self, Folder, Shared, Store},
    timers::TimerOf,
    watchdog::Pulse,
};

mod agreement;
mod begin;
mod changelog;
mod ingest;
mod opening;
mod portion;
mod progress;
mod reading;
mod restorer;
mod stores;
mod table;
#[cfg(test)]
mod tests;
mod upkeep;
mod work;

pub use stores::{Phase, Standing, Stores};

use changelog::Changelog;
use restorer::Restorer;

/// What the restorer is asked to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Job {
    /// The generation of the application: stores of another one are set aside. Comes before the
    /// first of the others.
    Generation(String),
    /// A standby: open the store and keep up with the changelog until told otherwise.
    Follow(u32),
    /// Complete the store and hand it over. One that is being followed goes on from where it is.
    Restore(u32),
    /// Give the partition up and close its store; answered by [`Done::Cancelled`].
    Cancel(u32),
}

/// What the restorer has done.
pub enum Done {
    /// The store is complete; the source goes on at this offset. The store belongs to the task now.
    Restored {
        /// The partition.
        partition: u32,
        /// Its store.
        store: Arc<Store>,
        /// The committed offset of the source.
        offset: i64,
    },
    /// A transaction on the changelog of this partition should have ended by now, and has not.
    LeftOpen(u32),
    /// The partition is given up, and the restorer's hold of its store.
    Cancelled(u32),
    /// A store cannot be used, and trying again would not help: the instance must leave. Damage is not
    /// reported here: a damaged store is set aside and restored.
    Failed(u32, store::Error),
}

/// What the restorer needs to know.
pub struct Settings {
    /// How to reach Kafka.
    pub kafka: kafka::Args,
    /// The application.
    pub application_id: String,
    /// Its topics.
    pub names: Arc<Names>,
    /// Folder of this instance's stores.
    pub stores: PathBuf,
    /// What all stores share.
    pub shared: Shared,
    /// Reads the timers that values name.
    pub timer_of: TimerOf,
    /// Memory for rows on their way into stores: what is left in these.
    pub pools: Vec<Pool>,
    /// Bound of the consumer's queue.
    pub queue_bytes: usize,
    /// After so long with nothing to do, the clients are given back: idle ones would take memory and threads.
    pub rests_after: Duration,
    /// Shows that the thread goes on.
    pub pulse: Pulse,
}

/// Starts the thread; it ends when the returned sender is dropped. It first looks through the folder
/// (see [`Stores::surveyed`]); jobs sent meanwhile wait.
///
/// # Errors
/// When librdkafka refuses the configuration.
pub fn start(
    settings: Settings,
    done: impl Fn(Done) + Send + 'static,
) -> anyhow::Result<(mpsc::Sender<Job>, Arc<Stores>)> {
    let changelog = Changelog::new(
        &settings.kafka,
        &settings.application_id,
        &settings.names,
        settings.queue_bytes,
        settings.rests_after,
    )?;
    let folder = Folder::new(settings.shared, settings.stores, settings.application_id);
    let stores = Arc::<Stores>::default();
    let restorer = Restorer::new(
        changelog,
        folder,
        Arc::clone(&stores),
        settings.timer_of,
        settings.pools,
        settings.pulse,
        Box::new(done),
    );
    let (jobs, todo) = mpsc::channel();
    thread::Builder::new()
        .name("restore".into())
        .spawn(move || restorer.run(&todo))
        .context("thread")?;
    Ok((jobs, stores))
}
