//! The work on one store: rows come in, the position moves, and at some point it is complete. Knows
//! the store, and no Kafka.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    agreement::Agreement,
    begin::by_tables,
    ingest::Rows,
    portion::Spare,
    progress::Meter,
    stores::{Phase, Standing},
    table::Table,
};
use crate::{
    digest::Digest,
    store::{self, DIGEST, OBJECT, SOURCE, Store},
    timers::{self, TimerOf},
};

/// A changelog that gives nothing for so long is not being read, whatever its client does.
const GIVES_WITHIN: Duration = Duration::from_secs(1);

/// With so many records left, the next changelog is asked for: what comes of it has to wait behind them, and they
/// would be read before it comes.
pub(super) const NEARLY_READ: i64 = 40_000;

/// What the work is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aim {
    /// Keep up with the changelog until told otherwise.
    Follow,
    /// Reach the end, and hand over.
    Restore {
        /// The end; `None` until every transaction on the changelog is resolved.
        until: Option<i64>,
    },
}

impl Aim {
    /// To restore; the end is not known yet.
    pub(super) const RESTORE: Self = Self::Restore { until: None };

    pub(super) fn phase(self) -> Phase {
        match self {
            Self::Follow => Phase::Following,
            Self::Restore { .. } => Phase::Restoring,
        }
    }
}

/// A store on its way.
pub(super) struct Work {
    pub(super) store: Arc<Store>,
    aim: Aim,
    /// The next offset to be read: everything before is in the store or in `rows`.
    position: i64,
    /// Position or rows changed since the last write.
    unwritten: bool,
    /// The end was reached, and the store has not been told yet that it lacks nothing.
    confirmed: bool,
    rows: Rows,
    /// The table that is being written.
    table: Option<Table>,
    spare: Spare,
    /// Records in `rows`.
    waiting: u64,
    /// Is the changelog being read?
    pub(super) reading: bool,
    /// When something was read last, or reading began.
    read_at: Instant,
    /// The end of the changelog, as far as it is known, and whether it has been reached.
    end: Option<i64>,
    at_end: bool,
    /// Since this phase began.
    started: Instant,
    records: u64,
    meter: Meter,
    timer_of: TimerOf,
    /// With the rows of the active.
    pub(super) agreement: Agreement,
    /// The last record that the store knows of, if nobody has read it yet (see [`Store::unseen`]).
    unseen: Option<i64>,
    /// The changelog does not have that record: it was never committed, whatever its writer was told.
    pub(super) uncommitted: Option<i64>,
}

impl Work {
    pub(super) fn new(
        store: Arc<Store>,
        aim: Aim,
        timer_of: TimerOf,
        started: Instant,
        spare: Spare,
    ) -> Result<Self, store::Error> {
        let position = store.position()?;
        let digest = store.known_digest()?;
        Ok(Self {
            timer_of,
            agreement: Agreement::new(digest, timer_of),
            unseen: None,
            uncommitted: None,
            store,
            aim,
            position,
            unwritten: false,
            confirmed: false,
            rows: Rows::default(),
            table: None,
            spare,
            waiting: 0,
            reading: false,
            read_at: started,
            end: None,
            at_end: false,
            started,
            records: 0,
            meter: Meter::at(position),
        })
    }

    pub(super) fn aim(&self) -> Aim {
        self.aim
    }

    pub(super) fn position(&self) -> i64 {
        self.position
    }

    pub(super) fn at_end(&self) -> bool {
        self.at_end
    }

    /// From now on the work is for this. Store, position and what was read stay as they are.
    pub(super) fn turn_to(&mut self, aim: Aim, now: Instant) {
        if self.aim.phase() == aim.phase() {
            return;
        }
        self.aim = aim;
        self.started = now;
        self.records = 0;
        self.meter = Meter::at(self.position);
    }

    /// The end to be reached is known: nobody writes the changelog any more.
    pub(super) fn resolved(&mut self, until: i64) {
        if let Aim::Restore { .. } = self.aim {
            self.aim = Aim::Restore { until: Some(until) };
        }
        self.end = Some(until);
    }

    /// The changelog is read from `position` on, or from `unseen` if the store holds what nobody has read.
    pub(super) fn begin(
        &mut self,
        position: i64,
        unseen: Option<i64>,
        end: i64,
        by_tables: bool,
        now: Instant,
    ) {
        self.position = position;
        self.read_at = now;
        self.unseen = unseen;
        self.meter = Meter::at(position);
        self.end = Some(end);
        self.at_end = false;
        self.reading = true;
        // Rows that wait stay as they are: the position counts on them.
        if by_tables && !self.unwritten {
            self.sort_into_tables();
        }
    }

    fn sort_into_tables(&mut self) {
        self.rows = Rows::Portion(self.spare.take());
        self.agreement.forget();
    }

    /// Brings what is known of these keys near: see [`Portion::look_ahead`].
    pub(super) fn look_ahead<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) {
        if let Rows::Portion(portion) = &self.rows {
            portion.look_ahead(keys);
        }
    }

    /// A record of the changelog; one without a key that a row may have is none of ours.
    ///
    /// # Errors
    /// What the store says. This work cannot go on then.
    pub(super) fn take(
        &mut self,
        offset: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        now: Instant,
    ) -> Result<(), store::Error> {
        // If a later record comes first, it was compacted away: digests tell whether the rows are right.
        self.unseen = self.unseen.filter(|unseen| offset < *unseen);
        if offset < self.position {
            return Ok(());
        }
        let key = key.filter(|key| store::is_row(key));
        match key {
            Some([DIGEST]) => {
                let theirs = value.and_then(Digest::read);
                self.agreement.compare(theirs, self.position);
            }
            // No part of the digest: it changes with every epoch.
            Some([SOURCE]) => {}
            Some(key @ [OBJECT, ..]) => {
                self.put_timer(key, value, now)?;
                self.agreement.on_row();
                self.waiting += 1;
                self.records += 1;
            }
            Some(_) | None => {}
        }
        if let Some(key) = key {
            self.rows.put(key, value, now);
        }
        self.position = offset + 1;
        self.read_at = now;
        self.at_end = false;
        self.unwritten = true;
        Ok(())
    }

    /// Puts the timer that a row names in place of the one before. Tables get theirs when they are made.
    fn put_timer(
        &mut self,
        key: &[u8],
        value: Option<&[u8]>,
        now: Instant,
    ) -> Result<(), store::Error> {
        if matches!(self.rows, Rows::Portion(_)) {
            self.agreement.forget();
            return Ok(());
        }
        let [before, after] = self.agreement.count(&self.store, key, value)?;
        for (timer_ms, row) in [(before, None), (after, Some(&[][..]))] {
            if let Some(timer_ms) = timer_ms {
                let key = timers::row_key(timer_ms, &key[1..]);
                self.rows.put(&key, row, now);
            }
        }
        Ok(())
    }

    /// The end of the changelog was reached at this offset. It is beyond the last record: the ends of
    /// transactions have offsets too.
    pub(super) fn reached_end(&mut self, offset: i64) {
        // Compaction leaves the last record of a partition alone.
        let missed = self.unseen.take_if(|unseen| *unseen < offset);
        self.uncommitted = self.uncommitted.or(missed);
        if offset > self.position {
            self.position = offset;
            self.unwritten = true;
        }
        self.at_end = true;
        self.confirmed = true;
        self.end = Some(self.position);
        self.agreement.on_end(self.position);
    }

    /// The changelog has grown to this end, so far as is known.
    pub(super) fn heard_of_end(&mut self, end: i64) {
        if !self.at_end {
            self.end = self.end.max(Some(end));
        }
    }

    /// Is everything read that had to be read?
    pub(super) fn is_complete(&self) -> bool {
        match self.aim {
            Aim::Restore { until: Some(until) } => self.unseen.is_none() && self.position >= until,
            Aim::Restore { until: None } | Aim::Follow => false,
        }
    }

    /// Is everything read, and is it in the store, or will it be with a [`write`](Self::write)?
    pub(super) fn is_whole(&self) -> bool {
        self.is_complete() && self.table.is_none()
    }

    /// Are rows being read to be sorted into tables, with many more to come? Nobody waits for brokers that give nothing.
    pub(super) fn is_sorted(&self, now: Instant) -> bool {
        let comes = now.saturating_duration_since(self.read_at) < GIVES_WITHIN;
        let many = self.end.is_none_or(|end| end - self.position > NEARLY_READ);
        self.reading && !self.at_end && comes && many && matches!(self.rows, Rows::Portion(_))
    }

    pub(super) fn portion_bytes(&self) -> usize {
        self.rows.portion_bytes()
    }

    /// As for [`Portion::make_room`](super::portion::Portion::make_room).
    pub(super) fn make_room(&mut self) {
        self.rows.make_room();
    }

    /// Memory of the table that is being written.
    pub(super) fn table_bytes(&self) -> usize {
        self.table.as_ref().map_or(0, Table::bytes)
    }

    /// Must rows be written by now? And what a thread has written must be heard of.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.rows.is_due(now) || self.table.as_ref().is_some_and(Table::is_written)
    }

    /// Is there a portion, and no more to come for it?
    pub(super) fn has_whole_portion(&self) -> bool {
        (self.at_end || self.is_complete()) && self.portion_bytes() > 0
    }

    /// Tells the store that it lacks nothing at `now_ms`, if the end was reached and all is written. Is that
    /// news?
    pub(super) fn confirm(&mut self, now_ms: i64) -> bool {
        let whole = self.confirmed && !self.unwritten && self.table.is_none() && self.at_end;
        if whole {
            self.store.complete_at(now_ms);
            self.confirmed = false;
        }
        whole
    }

    /// Is the end not known yet, because a transaction is open?
    pub(super) fn waits_for_transaction(&self) -> bool {
        self.aim == Aim::RESTORE
    }

    /// Has a thread write the portion; returns how many records that are.
    ///
    /// # Errors
    /// What the store says. This work cannot go on then.
    pub(super) fn write_beside(&mut self) -> Result<u64, store::Error> {
        self.hear_of_table()?;
        let Some(portion) = self.rows.take_portion() else {
            return Ok(0);
        };
        if !(self.at_end || self.is_complete()) {
            self.rows = Rows::Portion(self.spare.take());
        }
        let spare = self.spare.clone();
        let table = Table::begin(portion, &self.store, self.position, self.timer_of, spare)?;
        self.table = Some(table);
        self.unwritten = false;
        Ok(std::mem::take(&mut self.waiting))
    }

    /// Waits for the table that is being written, if one is.
    fn hear_of_table(&mut self) -> Result<(), store::Error> {
        self.table.take().map_or(Ok(()), Table::end)
    }

    /// Writes what was read, and the position; returns how many records that were.
    ///
    /// # Errors
    /// What the store says. This work cannot go on then.
    pub(super) fn write(&mut self) -> Result<u64, store::Error> {
        self.hear_of_table()?;
        if self.unwritten {
            let (position, digest) = (self.position, self.agreement.digest());
            self.rows
                .write(&self.store, position, digest, self.timer_of)?;
            self.agreement.on_write();
            self.unwritten = false;
        }
        if self.agreement.digest().is_none() && (self.at_end || self.is_complete()) {
            let digest = self.store.digest()?;
            self.agreement.on_digest(digest, self.position);
        }
        if self.at_end {
            // What comes now comes as it is written: in small batches.
            self.rows = Rows::default();
        } else if !matches!(self.rows, Rows::Portion(_)) && self.is_far_behind() {
            self.sort_into_tables();
        }
        Ok(std::mem::take(&mut self.waiting))
    }

    /// Has more come than batches are good for? A standby that was cut off, for one.
    fn is_far_behind(&self) -> bool {
        let end = self.end.unwrap_or(self.position);
        by_tables(self.position, end) && self.store.takes_tables()
    }

    pub(super) fn measure(&mut self, now: Instant) {
        let elapsed = self.elapsed(now);
        self.meter.measure(elapsed, self.position, self.records);
    }

    pub(super) fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    pub(super) fn standing(&self) -> Standing {
        let remaining = self.end.map(|end| end - self.position);
        Standing {
            phase: self.aim.phase(),
            position: self.position,
            end: self.end,
            restored: self.records,
            rate: self.meter.rate(),
            seconds_left: remaining.and_then(|remaining| self.meter.seconds_left(remaining)),
        }
    }
}
