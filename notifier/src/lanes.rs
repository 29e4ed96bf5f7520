//! One lane per partition: its records are delivered one after another, those of other partitions
//! at the same time. A lane that is told to stop finishes the attempt in hand, if that does not
//! take long, and leaves the rest to whoever gets the partition next.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    time::{Duration, Instant},
};

use common::shutdown::Shutdown;
use tokio::{
    runtime::Handle,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

use crate::{deliver::Deliver, record::Record};

/// An attempt in hand may go on for so long after its lane has been told to stop.
const GRACE: Duration = Duration::from_secs(5);
/// A partition is paused with so many records waiting, and resumed with so few.
const MANY: usize = 100;
const FEW: usize = 10;

/// The lanes of the partitions assigned to this notifier.
pub struct Lanes {
    deliver: Arc<Deliver>,
    runtime: Handle,
    open: HashMap<i32, Lane>,
    /// Tells the lane of a partition from an earlier one of the same partition.
    next_id: u64,
    events: Receiver<Event>,
    sender: Sender<Event>,
}

struct Lane {
    id: u64,
    records: UnboundedSender<Record>,
    stop: Shutdown,
    waiting: usize,
    paused: bool,
}

struct Event {
    partition: i32,
    lane: u64,
    what: What,
}

enum What {
    Done(i64),
    Failed(anyhow::Error),
    Stopped,
}

/// What the lanes have done since they were last asked.
#[derive(Debug, Default)]
pub struct Progress {
    /// Partition and the offset to go on from.
    pub commit: HashMap<i32, i64>,
    /// Partitions to resume.
    pub resume: Vec<i32>,
    /// Why a lane cannot go on.
    pub failure: Option<anyhow::Error>,
}

impl Lanes {
    /// No lanes; theirs will run on `runtime`.
    #[must_use]
    pub fn new(deliver: Arc<Deliver>, runtime: Handle) -> Self {
        let (sender, events) = channel();
        Self {
            deliver,
            runtime,
            open: HashMap::new(),
            next_id: 0,
            events,
            sender,
        }
    }

    /// Queues `record` in the lane of its partition. `true`: pause the partition now.
    #[must_use]
    pub fn accept(&mut self, record: Record) -> bool {
        let partition = record.partition;
        if !self.open.contains_key(&partition) {
            let lane = self.start(partition);
            self.open.insert(partition, lane);
        }
        let Some(lane) = self.open.get_mut(&partition) else {
            return false;
        };
        lane.waiting += 1;
        // The receiver is gone only after a failure, which ends the service.
        drop(lane.records.send(record));
        let pause = lane.waiting >= MANY && !lane.paused;
        lane.paused |= pause;
        pause
    }

    fn start(&mut self, partition: i32) -> Lane {
        self.next_id += 1;
        let (records, queue) = unbounded_channel();
        let stop = Shutdown::new();
        let events = Events {
            partition,
            lane: self.next_id,
            sender: self.sender.clone(),
        };
        let deliver = Arc::clone(&self.deliver);
        let stopping = stop.clone();
        self.runtime
            .spawn(async move { run(&deliver, queue, &stopping, &events).await });
        Lane {
            id: self.next_id,
            records,
            stop,
            waiting: 0,
            paused: false,
        }
    }

    /// What has been done; does not wait.
    pub fn progress(&mut self) -> Progress {
        let mut progress = Progress::default();
        while let Ok(event) = self.events.try_recv() {
            self.note(event, &mut progress);
        }
        progress
    }

    /// Stops the lanes of `partitions` and waits for them; what they leave is the next owner's.
    pub fn close(&mut self, partitions: &[i32]) -> Progress {
        let mut progress = Progress::default();
        for partition in partitions {
            if let Some(lane) = self.open.get(partition) {
                lane.stop.cancel();
            }
        }
        let deadline = Instant::now() + GRACE + Duration::from_secs(1);
        while partitions.iter().any(|p| self.open.contains_key(p)) {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(event) = self.events.recv_timeout(left) else {
                break;
            };
            self.note(event, &mut progress);
        }
        for partition in partitions {
            self.open.remove(partition);
        }
        progress
    }

    /// [`Self::close`] for all of them.
    pub fn close_all(&mut self) -> Progress {
        let all: Vec<i32> = self.open.keys().copied().collect();
        self.close(&all)
    }

    /// Takes an event into account, unless its lane is gone: then its partition is another's.
    fn note(&mut self, event: Event, progress: &mut Progress) {
        let partition = event.partition;
        let Some(lane) = self.open.get_mut(&partition) else {
            return;
        };
        if lane.id != event.lane {
            return;
        }
        match event.what {
            What::Done(offset) => {
                lane.waiting = lane.waiting.saturating_sub(1);
                progress.commit.insert(partition, offset + 1);
                if lane.paused && lane.waiting <= FEW {
                    lane.paused = false;
                    progress.resume.push(partition);
                }
            }
            What::Failed(error) => progress.failure = Some(error),
            What::Stopped => {
                self.open.remove(&partition);
            }
        }
    }
}

/// Where a lane reports to.
struct Events {
    partition: i32,
    lane: u64,
    sender: Sender<Event>,
}

impl Events {
    fn send(&self, what: What) {
        let event = Event {
            partition: self.partition,
            lane: self.lane,
            what,
        };
        // Nobody listens any more: the service is ending.
        drop(self.sender.send(event));
    }
}

async fn run(
    deliver: &Deliver,
    mut queue: UnboundedReceiver<Record>,
    stop: &Shutdown,
    events: &Events,
) {
    loop {
        let next = tokio::select! {
            biased;
            () = stop.cancelled() => None,
            next = queue.recv() => next,
        };
        let Some(record) = next else { break };
        let done = tokio::select! {
            done = deliver.record(&record, stop) => done,
            () = grace(stop) => Ok(false),
        };
        match done {
            Ok(true) => events.send(What::Done(record.offset)),
            Ok(false) => {
                let (partition, offset) = (record.partition, record.offset);
                tracing::info!(partition, offset, "left to the next owner of the partition");
                break;
            }
            Err(error) => {
                events.send(What::Failed(error));
                // Stays open: nothing behind the failed record may be done.
                return;
            }
        }
    }
    events.send(What::Stopped);
}

async fn grace(stop: &Shutdown) {
    stop.cancelled().await;
    tokio::time::sleep(GRACE).await;
}
