//! A worker: one thread that processes the tasks of some partitions, with a committer beside it.
//!
//! The worker fills an epoch while the committer commits the one before. It lives as long as its
//! producer: when that is fenced, or the outcome of a commit is unknown, the worker gives up its
//! tasks and ends, and a new one is started.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, atomic::AtomicBool, mpsc},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use common::{kafka, topics::Names};
use rdkafka::consumer::Consumer as _;

use crate::{
    commit::{self, Committer, Outcome, Published, Tie, Todo},
    epoch::TaskEpoch,
    fetch::{self, Fetcher},
    lookup::Lookup,
    memory::{Account, Pool},
    processor::Processor,
    store::{self, Store},
    task::{self, Task},
    watchdog::{Pulse, Watchdog},
};

mod reading;
mod turn;
mod turns;

/// Messages taken from librdkafka at a time.
const BATCH: usize = 1_000;

/// What a worker is asked to do.
pub enum Order {
    /// Start a task whose store is complete.
    Open {
        /// The partition.
        partition: u32,
        /// Its store.
        store: Arc<Store>,
        /// Where its source goes on.
        offset: i64,
    },
    /// Commit what is under way and close the task.
    Close(u32),
    /// End what this worker's producer, or a former one, has left open on this partition.
    Sweep(u32),
}

/// What a worker says.
pub enum Report {
    /// Its producer is initialised: it takes orders.
    Ready,
    /// The task processes.
    Running(u32),
    /// The task is closed, everything it did is committed and on disk.
    Closed(u32),
    /// The worker has ended, and its tasks with it. Nothing uncommitted remains.
    Ended(Option<String>),
    /// The worker has ended as [`Self::Ended`], and so must the instance: a disk is full, say.
    Failed(String),
}

/// Hears what a worker says.
type Reporter = Box<dyn Fn(Report) + Send>;

/// Makes the processor of a task.
pub type Factory<P> = Arc<dyn Fn(u32) -> P + Send + Sync>;

/// What a worker needs to know.
pub struct Settings<P> {
    /// How to reach Kafka.
    pub kafka: kafka::Args,
    /// The application.
    pub application_id: String,
    /// Its topics.
    pub names: Arc<Names>,
    /// The worker's transactional id.
    pub transactional_id: String,
    /// What its tasks must know.
    pub task: task::Settings,
    /// How often to commit.
    pub commit_interval: Duration,
    /// An epoch that has so much is ended early, and not filled further while the one before is under way.
    pub epoch_bytes: usize,
    /// Counts those of all workers: others have what they leave.
    pub epochs: Pool,
    /// Bound of the consumer's queue.
    pub queue_bytes: usize,
    /// Makes processors.
    pub factory: Factory<P>,
    /// Looks schemas up.
    pub lookup: Lookup,
    /// What the workers of this instance published last.
    pub published: Arc<Published>,
    /// Hears of every committed epoch of a task.
    pub committed: Arc<dyn Fn(&TaskEpoch) + Send + Sync>,
    /// Set when the instance must end now.
    pub stop: Arc<AtomicBool>,
    /// Shows that the worker goes on.
    pub pulse: Pulse,
    /// Shows that its committer goes on.
    pub commit_pulse: Pulse,
    /// Beats when brokers answer this instance.
    pub answers: Pulse,
}

struct Running<P: Processor> {
    task: Task<P>,
    /// Records that wait for a schema, and whatever was read behind them.
    kept: VecDeque<reading::Kept>,
    /// There are too many of them: nothing more is fetched before all are processed.
    keeps_enough: bool,
    /// Is nothing being fetched?
    paused: bool,
    /// When it published something, or was looked at for that it had not.
    quiet_since: Instant,
    /// The offset behind the last record that was read, and when that was; `None` before the first.
    read: Option<(i64, Instant)>,
}

struct Worker<P: Processor> {
    settings: Settings<P>,
    fetcher: Fetcher,
    tasks: BTreeMap<u32, Running<P>>,
    epochs: mpsc::SyncSender<Todo>,
    outcomes: mpsc::Receiver<Outcome>,
    /// Is an epoch under way?
    committing: bool,
    tie: Tie,
    watchdog: Watchdog,
    watched: Instant,
    /// The committer's call does not end: nobody waits for it.
    gave_up: bool,
    last_cut: Instant,
    /// Memory of the epoch that is being filled.
    account: Account,
    /// How long it is from a cut to the news of its commit, as of late.
    commits: turn::Commits,
    /// Messages to take at a time.
    batch: usize,
    /// Do many records wait?
    behind: bool,
    turns: turns::Turns,
    /// Has a partition had its turn since the last cut?
    turn_ended: bool,
    consumed: metrics::Counter,
    report: Reporter,
}

/// Why a worker cannot go on.
struct Ended {
    why: String,
    /// Would another one fare no better?
    for_good: bool,
}

impl From<String> for Ended {
    fn from(why: String) -> Self {
        Self {
            why,
            for_good: false,
        }
    }
}

impl From<&str> for Ended {
    fn from(why: &str) -> Self {
        why.to_owned().into()
    }
}

impl From<store::Error> for Ended {
    fn from(error: store::Error) -> Self {
        Self {
            for_good: error.ends_the_instance(),
            why: error.to_string(),
        }
    }
}

/// Starts a worker; it ends when the returned sender is dropped, or by itself.
///
/// # Errors
/// When the thread cannot be started.
pub fn start<P: Processor>(
    settings: Settings<P>,
    report: impl Fn(Report) + Send + 'static,
) -> anyhow::Result<mpsc::Sender<Order>> {
    let (orders, todo) = mpsc::channel();
    thread::Builder::new()
        .name("worker".into())
        .spawn(move || {
            let report: Reporter = Box::new(report);
            match Worker::prepare(settings, report) {
                Ok(worker) => worker.live(&todo),
                Err((error, report)) => report(Report::Ended(Some(format!("{error:#}")))),
            }
        })
        .context("thread")?;
    Ok(orders)
}

impl<P: Processor> Worker<P> {
    fn prepare(settings: Settings<P>, report: Reporter) -> Result<Self, (anyhow::Error, Reporter)> {
        match Self::connect(&settings) {
            Ok((fetcher, epochs, outcomes, tie)) => {
                let mut watchdog = Watchdog::default();
                watchdog.watch("committer".into(), settings.commit_pulse.clone());
                report(Report::Ready);
                Ok(Self {
                    account: settings.epochs.open(),
                    settings,
                    fetcher,
                    tasks: BTreeMap::new(),
                    epochs,
                    outcomes,
                    committing: false,
                    tie,
                    watchdog,
                    watched: Instant::now(),
                    gave_up: false,
                    last_cut: Instant::now(),
                    commits: turn::Commits::default(),
                    batch: BATCH,
                    behind: false,
                    turns: turns::Turns::default(),
                    turn_ended: false,
                    consumed: metrics::counter!("records_consumed_total"),
                    report,
                })
            }
            Err(error) => Err((error, report)),
        }
    }

    fn connect(
        settings: &Settings<P>,
    ) -> anyhow::Result<(
        Fetcher,
        mpsc::SyncSender<Todo>,
        mpsc::Receiver<Outcome>,
        Tie,
    )> {
        let consumer = settings
            .kafka
            .consumer(&settings.transactional_id, &settings.application_id);
        let mut config = consumer.clone();
        fetch::bound_queue(&mut config, settings.queue_bytes);
        let fetcher = Fetcher::new(&config, BATCH)?;
        let group = fetcher
            .consumer()
            .group_metadata()
            .context("the consumer has no group")?;
        let committer = Committer::new(
            &settings.kafka,
            &settings.transactional_id,
            commit::Settings {
                consumer,
                names: Arc::clone(&settings.names),
                group,
                published: Arc::clone(&settings.published),
                committed: Arc::clone(&settings.committed),
                stop: Arc::clone(&settings.stop),
                pulse: settings.commit_pulse.clone(),
                answers: settings.answers.clone(),
            },
        )?;
        committer.initialise()?;
        let tie = committer.tie();
        let (epochs, todo) = mpsc::sync_channel(1);
        let (done, outcomes) = mpsc::channel();
        thread::Builder::new()
            .name("commit".into())
            .spawn(move || committer.run(&todo, &done))
            .context("thread")?;
        Ok((fetcher, epochs, outcomes, tie))
    }

    fn live(mut self, orders: &mpsc::Receiver<Order>) {
        let ended = loop {
            self.settings.pulse.beat();
            match orders.try_recv() {
                Ok(order) => {
                    if let Err(why) = self.obey(order) {
                        break Some(why);
                    }
                }
                Err(mpsc::TryRecvError::Empty) => {
                    if let Err(why) = self.turn() {
                        break Some(why);
                    }
                }
                Err(mpsc::TryRecvError::Disconnected) => break self.leave().err(),
            }
        };
        let Self {
            tasks,
            epochs,
            outcomes,
            report,
            gave_up,
            ..
        } = self;
        // The committer holds the stores too: it ends with its channel, and its own with it.
        drop(epochs);
        while !gave_up && outcomes.recv().is_ok() {}
        drop(tasks);
        report(match ended {
            Some(ended) if ended.for_good => Report::Failed(ended.why),
            ended => Report::Ended(ended.map(|ended| ended.why)),
        });
    }

    fn obey(&mut self, order: Order) -> Result<(), Ended> {
        match order {
            Order::Open {
                partition,
                store,
                offset,
            } => {
                self.publish_again(partition, store.digest()?)?;
                let topic = &self.settings.names.reports;
                self.fetcher
                    .assign(topic, partition, offset)
                    // It may have been paused when it was here before.
                    .and_then(|()| self.fetcher.set_paused(topic, partition, false))
                    .map_err(|e| format!("assign partition {partition}: {e}"))?;
                let processor = (self.settings.factory)(partition);
                let task = Task::new(
                    partition,
                    self.settings.task.clone(),
                    processor,
                    store,
                    offset,
                )?;
                let running = Running {
                    task,
                    kept: VecDeque::new(),
                    keeps_enough: false,
                    paused: false,
                    quiet_since: Instant::now(),
                    read: None,
                };
                self.tasks.insert(partition, running);
                (self.report)(Report::Running(partition));
                Ok(())
            }
            Order::Close(partition) => {
                self.settle()?;
                if let Some(running) = self.tasks.remove(&partition) {
                    self.unassign(partition)?;
                    running.task.store().flush()?;
                }
                self.settings.published.forget(partition);
                (self.report)(Report::Closed(partition));
                Ok(())
            }
            Order::Sweep(partition) => {
                self.settle()?;
                self.hand_over(Todo::Sweep(partition))
            }
        }
    }

    /// What a former worker of this instance has published may be gone, though the store has its rows.
    fn publish_again(&mut self, partition: u32, digest: u64) -> Result<(), Ended> {
        if self.settings.published.last(partition, digest).is_none() {
            return Ok(());
        }
        self.settle()?;
        self.hand_over(Todo::PublishAgain { partition, digest })
    }

    /// Commits everything and closes every task.
    fn leave(&mut self) -> Result<(), Ended> {
        self.settle()?;
        for running in self.tasks.values() {
            running.task.store().flush()?;
        }
        Ok(())
    }

    fn unassign(&self, partition: u32) -> Result<(), Ended> {
        self.fetcher
            .unassign(&self.settings.names.reports, partition)
            .map_err(|e| format!("unassign partition {partition}: {e}").into())
    }
}

/// The wall clock, in ms since 1970: read here and handed down.
#[must_use]
pub fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Orders to each worker of an instance.
pub type Workers = HashMap<u32, mpsc::Sender<Order>>;
