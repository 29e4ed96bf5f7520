//! The restorer's thread: jobs, reading, writing, handing over.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use super::{
    Done, Job,
    changelog::Changelog,
    opening::Opening,
    portion::Spare,
    stores::{Standing, Stores},
    upkeep::{Lent, Upkeep},
    work::{Aim, Work},
};
use crate::{
    memory::Pool,
    store::{self, Folder, Store},
    timers::TimerOf,
    watchdog::Pulse,
    worker::now_ms,
};

/// Pauses between questions that were not answered.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// When to ask the brokers again.
pub(super) struct Again {
    pub(super) at: Instant,
    pause: Duration,
    /// When a transaction that is seen open should have ended, and how long that is waited for.
    pub(super) left_open: Option<(Instant, Duration)>,
}

impl Again {
    pub(super) fn at(at: Instant) -> Self {
        Self {
            at,
            pause: FIRST_PAUSE,
            left_open: None,
        }
    }

    pub(super) fn failed(&mut self, now: Instant) {
        self.at = now + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

/// A store on its way, and when to ask for it again.
pub(super) struct Tracked {
    pub(super) work: Work,
    pub(super) again: Again,
    /// Does it wait for its turn to be read? Where there is much to read, one changelog after the other is.
    pub(super) waits: bool,
    /// How often it has been set aside as broken.
    pub(super) broken: u32,
}

pub(super) struct Restorer {
    pub(super) changelog: Changelog,
    pub(super) folder: Folder,
    pub(super) opening: BTreeMap<u32, Opening>,
    pub(super) tracked: BTreeMap<u32, Tracked>,
    pub(super) lent: BTreeMap<u32, Lent>,
    /// Stores that the survey has opened: most of them are wanted at once. The others are closed after a while.
    pub(super) surveyed: BTreeMap<u32, Store>,
    /// Partitions that were rebuilt because they differed, and have not been the same since.
    pub(super) rebuilt: BTreeSet<u32>,
    pub(super) stores: Arc<Stores>,
    pub(super) timer_of: TimerOf,
    /// What is left in these, all rows that wait to become tables may take together.
    pools: Vec<Pool>,
    /// Memory for the next of them.
    pub(super) spare: Spare,
    pulse: Pulse,
    pub(super) upkeep: Upkeep,
    pub(super) done: Box<dyn Fn(Done) + Send>,
}

impl Restorer {
    pub(super) fn new(
        changelog: Changelog,
        folder: Folder,
        stores: Arc<Stores>,
        timer_of: TimerOf,
        pools: Vec<Pool>,
        pulse: Pulse,
        done: Box<dyn Fn(Done) + Send>,
    ) -> Self {
        Self {
            changelog,
            folder,
            opening: BTreeMap::new(),
            tracked: BTreeMap::new(),
            lent: BTreeMap::new(),
            surveyed: BTreeMap::new(),
            rebuilt: BTreeSet::new(),
            stores,
            timer_of,
            pools,
            spare: Spare::default(),
            pulse,
            upkeep: Upkeep::new(Instant::now(), now_ms()),
            done,
        }
    }

    pub(super) fn run(mut self, todo: &mpsc::Receiver<Job>) {
        self.survey();
        loop {
            self.pulse.beat();
            match todo.recv_timeout(self.patience()) {
                Ok(job) => self.obey(job),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    self.open_waiting();
                    self.begin_waiting();
                    self.read();
                    self.look_for_uncommitted();
                    self.look_for_differences();
                    self.write_due();
                    self.hand_over_complete();
                    self.keep_up();
                    let idle = self.tracked.is_empty() && self.opening.is_empty();
                    self.changelog.rest_if(idle);
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return self.leave(),
            }
        }
    }

    /// How long to wait for a job: not at all while there is something to read.
    fn patience(&self) -> Duration {
        if self.tracked.values().any(|tracked| tracked.work.reading) {
            Duration::ZERO
        } else if self.tracked.is_empty() && self.opening.is_empty() {
            Duration::from_secs(1)
        } else {
            Duration::from_millis(10)
        }
    }

    fn obey(&mut self, job: Job) {
        match job {
            Job::Generation(generation) => self.folder.generation = Some(generation),
            Job::Follow(partition) => self.aim(partition, Aim::Follow),
            Job::Restore(partition) => self.aim(partition, Aim::RESTORE),
            Job::Cancel(partition) => self.cancel(partition),
        }
    }

    fn aim(&mut self, partition: u32, aim: Aim) {
        let now = Instant::now();
        if let Some(tracked) = self.tracked.get_mut(&partition) {
            super::upkeep::tell_lag(tracked.work.aim().phase(), partition, 0);
            tracked.work.turn_to(aim, now);
            tracked.again = Again::at(now);
        } else if let Some(opening) = self.opening.get_mut(&partition) {
            opening.aim = aim;
        } else {
            self.opening.insert(partition, Opening::new(aim, now));
        }
    }

    fn cancel(&mut self, partition: u32) {
        self.opening.remove(&partition);
        if let Some(tracked) = self.untrack(partition) {
            self.close(partition, tracked.work);
        }
        (self.done)(Done::Cancelled(partition));
    }

    /// Keeps what was read, so that it need not be read again.
    fn close(&mut self, partition: u32, mut work: Work) {
        let written = work.write().and_then(|_| work.store.flush());
        let position = work.store.position();
        match written.and(position) {
            Ok(position) => {
                self.stores.put(partition, Standing::idle(position));
                let lent = Lent::new(&work.store, position, now_ms());
                self.lent.insert(partition, lent);
            }
            Err(error) => self.report(partition, error),
        }
    }

    /// A store that nobody waits for has failed.
    pub(super) fn report(&self, partition: u32, error: store::Error) {
        if error.ends_the_instance() {
            (self.done)(Done::Failed(partition, error));
        } else {
            tracing::warn!(partition, %error, "a store was not brought to disk: it will be read again");
        }
    }

    fn leave(mut self) {
        while let Some((partition, tracked)) = self.tracked.pop_first() {
            self.close(partition, tracked.work);
        }
    }

    /// Ends the work on a partition.
    pub(super) fn untrack(&mut self, partition: u32) -> Option<Tracked> {
        let tracked = self.tracked.remove(&partition)?;
        if tracked.work.reading {
            self.changelog.stop_reading(partition);
        }
        self.stores.remove(partition);
        super::upkeep::tell_lag(tracked.work.aim().phase(), partition, 0);
        Some(tracked)
    }

    /// Writes what has waited long enough, and the largest portions when memory is short.
    fn write_due(&mut self) {
        let (now, now_ms) = (Instant::now(), now_ms());
        let mut failed = Vec::new();
        for (partition, tracked) in &mut self.tracked {
            let work = &mut tracked.work;
            let written = if work.has_whole_portion() {
                write_beside(work)
            } else if work.is_due(now) {
                write(work)
            } else {
                Ok(())
            };
            if let Err(error) = written {
                failed.push((*partition, error));
            }
            if work.confirm(now_ms) && work.waits_for_transaction() {
                let position = work.position();
                tracing::info!(partition, position, "all that is committed is in the store");
            }
        }
        self.write_while_short(&mut failed);
        for (partition, error) in failed {
            self.failed(partition, error);
        }
    }

    /// Makes room when memory is short: by what portions can do without, and if that is too little, by writing the largest.
    /// Each table more has to be merged with the others later, and the store to be read for its digest.
    fn write_while_short(&mut self, failed: &mut Vec<(u32, store::Error)>) {
        let left: usize = self.pools.iter().map(Pool::left).sum();
        let bytes = |tracked: &Tracked| tracked.work.table_bytes() + tracked.work.portion_bytes();
        let waiting =
            |tracked: &BTreeMap<u32, Tracked>| -> usize { tracked.values().map(bytes).sum() };
        if waiting(&self.tracked) <= left {
            return;
        }
        for tracked in self.tracked.values_mut() {
            tracked.work.make_room();
        }
        let mut waiting = waiting(&self.tracked);
        let portions = self.tracked.iter().map(|(partition, tracked)| {
            // What is written already, first: it waits for nothing.
            (tracked.work.table_bytes(), bytes(tracked), *partition)
        });
        let mut portions: Vec<_> = portions.collect();
        portions.sort_unstable();
        while waiting > left
            && let Some((_, bytes, partition)) = portions.pop()
        {
            waiting -= bytes;
            if let Some(tracked) = self.tracked.get_mut(&partition)
                && let Err(error) = write(&mut tracked.work)
            {
                failed.push((partition, error));
            }
        }
    }

    fn hand_over_complete(&mut self) {
        let now = Instant::now();
        let complete: Vec<u32> = self
            .tracked
            .iter()
            .filter(|(_, tracked)| tracked.work.is_whole() && tracked.again.at <= now)
            .map(|(partition, _)| *partition)
            .collect();
        for partition in complete {
            if let Err(error) = self.hand_over(partition) {
                if let Some(tracked) = self.tracked.get_mut(&partition) {
                    tracked.again.failed(Instant::now());
                }
                let error = format!("{error:#}");
                tracing::warn!(partition, error, "no committed offset yet");
                return;
            }
        }
    }

    fn hand_over(&mut self, partition: u32) -> anyhow::Result<()> {
        let Some(tracked) = self.tracked.get_mut(&partition) else {
            return Ok(());
        };
        let written = write(&mut tracked.work).and_then(|()| tracked.work.store.source_offset());
        let offset = match written {
            Ok(Some(offset)) => offset,
            // No state yet: the group's offset says where to begin.
            Ok(None) => self.changelog.group_offset(partition)?,
            Err(error) => {
                self.failed(partition, error);
                return Ok(());
            }
        };
        let Some(Tracked { work, .. }) = self.untrack(partition) else {
            return Ok(());
        };
        let now_ms = now_ms();
        work.store.complete_at(now_ms);
        let took = work.elapsed(Instant::now()).as_millis();
        tracing::info!(
            partition,
            records = work.standing().restored,
            position = work.position(),
            ms = u64::try_from(took).unwrap_or(u64::MAX),
            "restored"
        );
        let lent = Lent::new(&work.store, work.position(), now_ms);
        self.lent.insert(partition, lent);
        (self.done)(Done::Restored {
            partition,
            store: work.store,
            offset,
        });
        Ok(())
    }
}

/// Writes what was read, and counts it.
fn write(work: &mut Work) -> Result<(), store::Error> {
    let portion = work.portion_bytes() > 0;
    let records = work.write()?;
    count(work, records, portion);
    Ok(())
}

/// As [`write`], beside what this thread does.
fn write_beside(work: &mut Work) -> Result<(), store::Error> {
    let records = work.write_beside()?;
    count(work, records, true);
    Ok(())
}

fn count(work: &Work, records: u64, portion: bool) {
    match work.aim() {
        Aim::Follow => metrics::counter!("followed_records_total").increment(records),
        Aim::Restore { .. } => metrics::counter!("restored_records_total").increment(records),
    }
    if portion {
        metrics::counter!("restore_tables_total").increment(1);
    }
}
