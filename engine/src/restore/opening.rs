//! Opening stores: the survey at the start, one that is wanted, and one that must begin anew.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Done,
    restorer::{Again, Restorer, Tracked},
    stores::Standing,
    work::{Aim, Work},
};
use crate::{
    store::{self, Reason, Store, Trouble, too_old},
    worker::now_ms,
};

/// How long to wait for a store that is still open here: a query may read it, or it is being closed.
const CLOSED_WITHIN: Duration = Duration::from_secs(30);
/// Pause before the next try.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// A store that breaks so often is not brought in order by restoring it once more.
const BROKEN_AT_MOST: u32 = 3;

/// A partition whose store is to be opened.
pub(super) struct Opening {
    pub(super) aim: Aim,
    since: Instant,
    /// Not before this.
    at: Instant,
    /// Its store until now, which must be closed and set aside first.
    old: Option<Old>,
    broken: u32,
}

struct Old {
    store: Arc<Store>,
    reason: Reason,
    why: String,
}

impl Opening {
    pub(super) fn new(aim: Aim, since: Instant) -> Self {
        Self {
            aim,
            since,
            at: since,
            old: None,
            broken: 0,
        }
    }
}

impl Restorer {
    /// Looks at each store in the folder: how far it is, and whether it is in order.
    pub(super) fn survey(&mut self) {
        let found = self.folder.partitions().unwrap_or_else(|error| {
            // Whoever needs one of them finds out.
            tracing::warn!(%error, "the stores on disk are not known");
            Vec::new()
        });
        let opened = self.folder.open_all(&found, now_ms());
        for (partition, opened) in found.into_iter().zip(opened) {
            match opened.and_then(|store| Ok((store.is_empty()?, store.position()?, store))) {
                Ok((true, ..)) => {}
                Ok((false, position, store)) => {
                    self.stores.put(partition, Standing::idle(position));
                    self.surveyed.insert(partition, store);
                }
                Err(error) => (self.done)(Done::Failed(partition, error)),
            }
        }
        self.stores.set_surveyed();
    }

    /// Opens the stores that are waited for, as far as they can be opened by now.
    pub(super) fn open_waiting(&mut self) {
        let now = Instant::now();
        let due = self.opening.extract_if(.., |_, opening| opening.at <= now);
        let due: Vec<(u32, Opening)> = due.collect();
        let mut closed = Vec::new();
        for (partition, mut opening) in due {
            match self.open_held(partition, &mut opening) {
                Ok(Held::Open(store)) => self.track(partition, store, &opening),
                Ok(Held::Wait) => self.open_later(partition, opening, now),
                Ok(Held::No) => closed.push((partition, opening)),
                Err(error) => self.not_opened(partition, opening, error, now),
            }
        }
        let partitions: Vec<u32> = closed.iter().map(|(partition, _)| *partition).collect();
        let opened = self.folder.open_all(&partitions, now_ms());
        for ((partition, opening), opened) in closed.into_iter().zip(opened) {
            match opened {
                Ok(store) => self.track(partition, Arc::new(store), &opening),
                Err(error) => self.not_opened(partition, opening, error, now),
            }
        }
    }

    fn open_later(&mut self, partition: u32, mut opening: Opening, now: Instant) {
        opening.at = now + TRY_AGAIN_AFTER;
        self.opening.insert(partition, opening);
    }

    fn not_opened(&mut self, partition: u32, opening: Opening, error: store::Error, now: Instant) {
        if error.is_still_open_here() && opening.since.elapsed() < CLOSED_WITHIN {
            self.open_later(partition, opening, now);
        } else {
            (self.done)(Done::Failed(partition, error));
        }
    }

    /// The store of a partition, if it is open here already and can be used.
    fn open_held(&mut self, partition: u32, opening: &mut Opening) -> Result<Held, store::Error> {
        if let Some(old) = opening.old.take() {
            // Only a closed store can be moved, and only who has the last hold of it can close it.
            match Arc::try_unwrap(old.store) {
                Ok(store) => drop(store),
                Err(store) if opening.since.elapsed() < CLOSED_WITHIN => {
                    opening.old = Some(Old { store, ..old });
                    return Ok(Held::Wait);
                }
                Err(store) => return Err(store.still_open()),
            }
            self.folder.set_aside(partition, old.reason, &old.why)?;
        }
        let held = self.lent.remove(&partition).and_then(|lent| lent.store());
        let Some(store) = held else {
            let Some(store) = self.surveyed.remove(&partition) else {
                return Ok(Held::No);
            };
            let store = self.folder.of_this_generation(partition, store)?;
            return Ok(Held::Open(Arc::new(store)));
        };
        let trouble = match self.folder.known_damage(partition)? {
            Some(what) => Some((Reason::Broken, what)),
            None if !store.is_empty()? && too_old(store.complete_ms(), now_ms()) => {
                Some((Reason::TooOld, "it may lack deletions".to_owned()))
            }
            None => None,
        };
        Ok(match trouble {
            None => Held::Open(store),
            Some((reason, why)) => {
                opening.old = Some(Old { store, reason, why });
                Held::Wait
            }
        })
    }

    fn track(&mut self, partition: u32, store: Arc<Store>, opening: &Opening) {
        let now = Instant::now();
        match Work::new(store, opening.aim, self.timer_of, now, self.spare.clone()) {
            Ok(work) => {
                self.stores.put(partition, work.standing());
                let again = Again::at(now);
                let tracked = Tracked {
                    work,
                    again,
                    waits: false,
                    broken: opening.broken,
                };
                self.tracked.insert(partition, tracked);
            }
            Err(error) => (self.done)(Done::Failed(partition, error)),
        }
    }

    /// Sets the store of a partition aside, and goes on with an empty one.
    pub(super) fn start_anew(&mut self, partition: u32, reason: Reason, why: String) {
        let Some(Tracked { work, broken, .. }) = self.untrack(partition) else {
            return;
        };
        let aim = match work.aim() {
            Aim::Follow => Aim::Follow,
            Aim::Restore { .. } => Aim::RESTORE,
        };
        let now = Instant::now();
        let opening = Opening {
            aim,
            since: now,
            at: now,
            old: Some(Old {
                store: work.store,
                reason,
                why,
            }),
            broken: broken + u32::from(reason == Reason::Broken),
        };
        self.opening.insert(partition, opening);
    }

    /// A store with rows that its owner was told are committed, and are not, is restored from nothing.
    /// Kafka has been seen to do that: see `docs/adr/0010-what-was-committed-is-looked-for.md`.
    pub(super) fn look_for_uncommitted(&mut self) {
        for (partition, offset) in self.take(|work| work.uncommitted.take()) {
            let what = format!("the changelog does not have the record at {offset}, its last one");
            tracing::error!(
                partition,
                what,
                "the last rows of this store were never committed, though Kafka had said so"
            );
            self.start_anew(partition, Reason::Uncommitted, what);
        }
    }

    /// A store whose rows are not those of its active is rebuilt from the changelog. If it is no
    /// better then, the active is wrong, or the changelog: a person must look.
    pub(super) fn look_for_differences(&mut self) {
        let same = self
            .tracked
            .iter()
            .filter(|(_, tracked)| tracked.work.agreement.same);
        for (partition, _) in same {
            self.rebuilt.remove(partition);
        }
        for (partition, what) in self.take(|work| work.agreement.difference.take()) {
            metrics::counter!("digest_mismatches_total").increment(1);
            let rebuild = self.rebuilt.insert(partition);
            tracing::error!(
                partition,
                what,
                rebuild,
                "the rows of this store are not those of the active"
            );
            if rebuild {
                self.start_anew(partition, Reason::Different, what);
            }
        }
    }

    /// What the stores under way have found out, by partition.
    fn take<T>(&mut self, found: impl Fn(&mut Work) -> Option<T>) -> Vec<(u32, T)> {
        let tracked = self.tracked.iter_mut();
        let found = tracked
            .filter_map(|(partition, tracked)| Some((*partition, found(&mut tracked.work)?)));
        found.collect()
    }

    /// The store of a partition under way has failed.
    pub(super) fn failed(&mut self, partition: u32, error: store::Error) {
        let broken = self.tracked.get(&partition).map(|tracked| tracked.broken);
        if error.trouble() == Trouble::Broken && broken.is_some_and(|n| n < BROKEN_AT_MOST) {
            self.start_anew(partition, Reason::Broken, error.to_string());
        } else {
            drop(self.untrack(partition));
            (self.done)(Done::Failed(partition, error));
        }
    }
}

/// Is the store of a partition open here?
enum Held {
    Open(Arc<Store>),
    /// Somebody must close it first.
    Wait,
    No,
}
