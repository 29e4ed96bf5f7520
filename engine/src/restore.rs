//! The restorer: brings stores to the end of the changelog before their tasks start.
//!
//! One thread with one consumer for all partitions of the instance. A store that holds something
//! already needs only the rows after its position. A partition is complete when no transaction is
//! open on its changelog (last stable offset = high watermark) and the end as of then is reached.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Weak, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use common::{kafka, topics::Names};
use rdkafka::{Offset, TopicPartitionList, consumer::Consumer as _};

use crate::{
    epoch::Row,
    fetch::{Fetched, Fetcher},
    store::{self, Shared, Store},
};

const CALL: Duration = Duration::from_secs(5);
const BATCH: usize = 5_000;

/// What the restorer is asked to do.
pub enum Job {
    /// Open the store of a partition and bring it up to date.
    Restore(u32),
    /// Forget a partition; answered by [`Done::Cancelled`].
    Cancel(u32),
}

/// What the restorer has done.
pub enum Done {
    /// The store is complete; the source goes on at this offset.
    Restored {
        /// The partition.
        partition: u32,
        /// Its store.
        store: Arc<Store>,
        /// The committed offset of the source.
        offset: i64,
    },
    /// The partition is forgotten and its store closed.
    Cancelled(u32),
    /// A store cannot be used, and trying again would not help.
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
}

/// A partition on its way.
struct Progress {
    store: Arc<Store>,
    /// Where reading ends; `None` until every transaction on the changelog is resolved.
    end: Option<i64>,
    rows: Vec<Row>,
    position: i64,
    restored: u64,
    at_end: bool,
    /// Is its changelog being read?
    assigned: bool,
    started: Instant,
}

struct Restorer {
    settings: Settings,
    fetcher: Fetcher,
    uncommitted: kafka::Consumer,
    active: BTreeMap<u32, Progress>,
    /// Stores that somebody may still hold, a query for one: RocksDB opens a directory only once.
    opened: BTreeMap<u32, Weak<Store>>,
    done: Box<dyn Fn(Done) + Send>,
}

/// Starts the thread; it ends when the returned sender is dropped.
///
/// # Errors
/// When librdkafka refuses the configuration.
pub fn start(
    settings: Settings,
    done: impl Fn(Done) + Send + 'static,
) -> anyhow::Result<mpsc::Sender<Job>> {
    let client_id = format!("{}-restore", settings.application_id);
    let mut config = settings
        .kafka
        .consumer(&client_id, &settings.application_id);
    let uncommitted: kafka::Consumer = config
        .clone()
        .set("isolation.level", "read_uncommitted")
        .create_with_context(kafka::Context)?;
    config
        .set("enable.partition.eof", "true")
        .set("fetch.wait.max.ms", "20");
    let mut restorer = Restorer {
        fetcher: Fetcher::new(&config, BATCH)?,
        uncommitted,
        settings,
        active: BTreeMap::new(),
        opened: BTreeMap::new(),
        done: Box::new(done),
    };
    let (jobs, todo) = mpsc::channel();
    thread::Builder::new()
        .name("restore".into())
        .spawn(move || restorer.run(&todo))
        .context("thread")?;
    Ok(jobs)
}

impl Restorer {
    fn run(&mut self, todo: &mpsc::Receiver<Job>) {
        loop {
            let job = if self.active.is_empty() {
                todo.recv().map_err(|_| mpsc::TryRecvError::Disconnected)
            } else {
                todo.try_recv()
            };
            match job {
                Ok(Job::Restore(partition)) => self.open(partition),
                Ok(Job::Cancel(partition)) => self.cancel(partition),
                Err(mpsc::TryRecvError::Empty) => {
                    self.resolve();
                    self.read();
                    self.finish();
                }
                Err(mpsc::TryRecvError::Disconnected) => return,
            }
        }
    }

    fn open(&mut self, partition: u32) {
        let held = self.opened.get(&partition).and_then(Weak::upgrade);
        let opened = match held {
            Some(store) => Ok(store),
            None => self.open_store(partition),
        };
        match opened.and_then(|store| Ok((store.position()?, store))) {
            Ok((position, store)) => self.begin_with(partition, store, position),
            Err(error) => (self.done)(Done::Failed(partition, error)),
        }
    }

    fn open_store(&self, partition: u32) -> Result<Arc<Store>, store::Error> {
        let settings = &self.settings;
        let id = &settings.application_id;
        Store::open(&settings.shared, &settings.stores, id, partition).map(Arc::new)
    }

    fn begin_with(&mut self, partition: u32, store: Arc<Store>, position: i64) {
        self.opened.insert(partition, Arc::downgrade(&store));
        let progress = Progress {
            store,
            end: None,
            rows: Vec::new(),
            position,
            restored: 0,
            at_end: false,
            assigned: false,
            started: Instant::now(),
        };
        self.active.insert(partition, progress);
    }

    fn cancel(&mut self, partition: u32) {
        drop(self.take(partition));
        (self.done)(Done::Cancelled(partition));
    }

    /// Ends the work on a partition.
    fn take(&mut self, partition: u32) -> Option<Progress> {
        let progress = self.active.remove(&partition)?;
        if progress.assigned {
            let topic = &self.settings.names.changelog;
            if let Err(error) = self.fetcher.unassign(topic, partition) {
                tracing::warn!(partition, %error, "the changelog is still being fetched");
            }
        }
        Some(progress)
    }

    /// Finds the end of each changelog partition that has no open transaction, and starts reading.
    fn resolve(&mut self) {
        let waiting: Vec<u32> = self
            .active
            .iter()
            .filter(|(_, progress)| progress.end.is_none())
            .map(|(partition, _)| *partition)
            .collect();
        for partition in waiting {
            match self.begin(partition) {
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(partition, error = format!("{error:#}"), "restore waits");
                    thread::park_timeout(Duration::from_millis(100));
                }
            }
        }
    }

    fn begin(&mut self, partition: u32) -> anyhow::Result<()> {
        let topic = self.settings.names.changelog.clone();
        let number = i32::try_from(partition)?;
        let (_, high) = self.uncommitted.fetch_watermarks(&topic, number, CALL)?;
        let consumer = self.fetcher.consumer();
        let (low, stable) = consumer.fetch_watermarks(&topic, number, CALL)?;
        if stable < high {
            tracing::info!(
                partition,
                stable,
                high,
                "a transaction is still open on the changelog"
            );
            thread::park_timeout(Duration::from_millis(20));
            return Ok(());
        }
        let Some(progress) = self.active.get_mut(&partition) else {
            return Ok(());
        };
        let position = progress.position;
        if position > high || (position > 0 && position < low) {
            tracing::warn!(
                partition,
                position,
                low,
                high,
                "the store is not of this changelog: restoring from its beginning"
            );
            self.start_afresh(partition);
            return Ok(());
        }
        progress.end = Some(high);
        if position >= high || high == low {
            progress.position = high;
            progress.at_end = true;
            return Ok(());
        }
        self.fetcher.assign(&topic, partition, position.max(low))?;
        progress.assigned = true;
        Ok(())
    }

    fn start_afresh(&mut self, partition: u32) {
        // Closes the old store, if no query holds it.
        self.active.remove(&partition);
        let opened = Store::destroy(&self.settings.stores, partition)
            .and_then(|()| self.open_store(partition));
        match opened {
            Ok(store) => self.begin_with(partition, store, 0),
            Err(error) => (self.done)(Done::Failed(partition, error)),
        }
    }

    fn read(&mut self) {
        if self.active.values().all(|p| p.end.is_none() || p.at_end) {
            return;
        }
        let batch = self.fetcher.next(Duration::from_millis(10));
        for fetched in batch.iter() {
            match fetched {
                Fetched::Record(partition, record) => {
                    if let (Some(progress), Some(key)) =
                        (self.active.get_mut(&partition), record.key)
                    {
                        let value = record.value.map(<[u8]>::to_vec);
                        progress.rows.push((key.to_vec(), value));
                        progress.position = record.offset + 1;
                        // A digest is no record of anybody's.
                        progress.restored += u64::from(key.first() != Some(&store::DIGEST));
                    }
                }
                Fetched::End(partition) => {
                    if let Some(progress) = self.active.get_mut(&partition) {
                        progress.at_end = true;
                    }
                }
                Fetched::Trouble(code, text) => tracing::debug!(?code, text, "restore"),
            }
        }
    }

    /// Writes what was read, and hands over what is complete.
    fn finish(&mut self) {
        let mut failed = Vec::new();
        for (partition, progress) in &mut self.active {
            if !progress.rows.is_empty() {
                let rows = std::mem::take(&mut progress.rows);
                if let Err(error) = progress.store.apply(&rows, progress.position) {
                    failed.push((*partition, error));
                }
            }
        }
        for (partition, error) in failed {
            self.active.remove(&partition);
            (self.done)(Done::Failed(partition, error));
        }
        let complete: Vec<u32> = self
            .active
            .iter()
            .filter(|(_, progress)| progress.at_end)
            .map(|(partition, _)| *partition)
            .collect();
        for partition in complete {
            match self.source_offset(partition) {
                Ok(offset) => self.hand_over(partition, offset),
                Err(error) => {
                    tracing::warn!(
                        partition,
                        error = format!("{error:#}"),
                        "no committed offset yet"
                    );
                    thread::park_timeout(Duration::from_millis(50));
                }
            }
        }
    }

    fn hand_over(&mut self, partition: u32, offset: i64) {
        let Some(progress) = self.take(partition) else {
            return;
        };
        metrics::counter!("restored_records_total").increment(progress.restored);
        tracing::info!(
            partition,
            records = progress.restored,
            ms = u64::try_from(progress.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "restored"
        );
        (self.done)(Done::Restored {
            partition,
            store: progress.store,
            offset,
        });
    }

    /// The source offset that the last transaction committed; 0 if there was none.
    fn source_offset(&self, partition: u32) -> anyhow::Result<i64> {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.settings.names.reports, i32::try_from(partition)?);
        let committed = self
            .fetcher
            .consumer()
            .committed_offsets(list, CALL)
            .context("committed offsets")?;
        let element = committed.elements().into_iter().next();
        let element = element.context("the broker named no offset")?;
        element.error()?;
        Ok(match element.offset() {
            Offset::Offset(offset) => offset,
            _ => 0,
        })
    }
}
