//! What a worker reads: records of the partitions whose turn it is, as many as an epoch can take.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    BATCH, Ended, Running, Worker,
    turn::{LONGER_WHILE_BEHIND, fatal},
};
use crate::{
    fetch::Fetched,
    intake::SourceRecord,
    lookup::Lookup,
    objects::LOOK_AHEAD,
    processor::{Failure, Processor},
    task::{Load, Progress},
};

/// A partition whose waiting records weigh so much is not fetched any further.
const KEPT_BYTES: usize = 4 << 20;
/// Records wait when there are so many: more than are read in some ten ms.
const BEHIND_BY: i64 = 10_000;
/// Objects may be large: fewer messages are taken at a time then, but so many at least.
const LEAST_BATCH: usize = 20;

/// A record kept back until its schema is known.
pub(super) struct Kept {
    offset: i64,
    timestamp_ms: Option<i64>,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
}

impl Kept {
    fn bytes(&self) -> usize {
        let len = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        len(&self.key) + len(&self.value)
    }
}

impl<P: Processor> Running<P> {
    /// Processes a record, or keeps it behind those that wait.
    fn take(
        &mut self,
        record: &SourceRecord<'_>,
        lookup: &mut Lookup,
        now_ms: i64,
    ) -> Result<(), Failure> {
        if !self.kept.is_empty() {
            self.kept.push_back(keep(record));
        } else if let Progress::NeedsSchema(id) = self.task.process(record, lookup, now_ms)? {
            tracing::debug!(id, "records wait for a schema");
            self.kept.push_back(keep(record));
        }
        Ok(())
    }
}

impl<P: Processor> Worker<P> {
    /// Takes a batch of records.
    pub(super) fn read(&mut self, now_ms: i64) -> Result<(), Ended> {
        let before = self.pending();
        let batch = self.fetcher.next_few(self.patience(), self.batch);
        let now = Instant::now();
        for messages in batch.chunks(LOOK_AHEAD) {
            messages.for_each_run(|partition, keys| {
                if let Some(running) = self.tasks.get(&partition) {
                    running.task.look_ahead(keys);
                }
            });
            for fetched in messages.iter() {
                let (partition, record) = match fetched {
                    Fetched::Record(partition, record) => (partition, record),
                    Fetched::End(_) => continue,
                    Fetched::Trouble(code, text) => {
                        tracing::debug!(?code, text, "source");
                        continue;
                    }
                };
                if let Some(running) = self.tasks.get_mut(&partition) {
                    running.read = Some((record.offset + 1, now));
                    let lookup = &mut self.settings.lookup;
                    running.take(&record, lookup, now_ms).map_err(fatal)?;
                }
            }
        }
        drop(batch);
        let lags = self.lags(now);
        self.behind = lags.values().sum::<i64>() >= BEHIND_BY;
        self.turn_ended |= self.turns.choose(&lags, now);
        let after = self.pending();
        self.choose_batch(before, after);
        self.pace(now)
    }

    /// How many records of each partition wait.
    fn lags(&self, now: Instant) -> BTreeMap<u32, i64> {
        let topic = &self.settings.names.reports;
        let gives_within = self.settings.commit_interval * LONGER_WHILE_BEHIND;
        let lags = self.tasks.iter().filter_map(|(partition, running)| {
            let (offset, at) = running.read?;
            let end = self.fetcher.last_known_end(topic, *partition)?;
            // One that is halted is not asked to give any; one that waits for a schema has enough.
            let gave = match running.paused && !running.keeps_enough {
                true => Duration::ZERO,
                false => now.duration_since(at),
            };
            Some((*partition, waiting(end - offset, gave, gives_within)))
        });
        lags.collect()
    }

    /// A batch adds little to an epoch, also when each record asks for a large object.
    fn choose_batch(&mut self, before: Load, after: Load) {
        let records = after.records.saturating_sub(before.records);
        let bytes = after.bytes.saturating_sub(before.bytes);
        if let Some(each) = bytes.checked_div(records) {
            let fits = self.settings.epoch_bytes as u64 / 8 / each.max(1);
            let fits = usize::try_from(fits).unwrap_or(BATCH);
            self.batch = fits.clamp(LEAST_BATCH, BATCH);
        }
    }

    /// What has to wait is not fetched meanwhile: for a schema, or for other partitions.
    fn pace(&mut self, now: Instant) -> Result<(), Ended> {
        let topic = &self.settings.names.reports;
        for (partition, running) in &mut self.tasks {
            let bytes: usize = running.kept.iter().map(Kept::bytes).sum();
            if running.kept.len() >= BATCH || bytes >= KEPT_BYTES {
                running.keeps_enough = true;
            } else if running.kept.is_empty() {
                running.keeps_enough = false;
            }
            let pause = running.keeps_enough || self.turns.halts(*partition);
            if pause == running.paused {
                continue;
            }
            self.fetcher
                .set_paused(topic, *partition, pause)
                .map_err(|e| format!("pause or resume partition {partition}: {e}"))?;
            running.paused = pause;
            if let Some((_, at)) = &mut running.read {
                // What it gives comes from now on.
                *at = now;
            }
        }
        Ok(())
    }

    /// Offers records again that waited for a schema.
    pub(super) fn offer_kept(&mut self, now_ms: i64) -> Result<(), Ended> {
        for running in self.tasks.values_mut() {
            while let Some(kept) = running.kept.front() {
                let record = SourceRecord {
                    offset: kept.offset,
                    timestamp_ms: kept.timestamp_ms,
                    key: kept.key.as_deref(),
                    value: kept.value.as_deref(),
                };
                let progress = running
                    .task
                    .process(&record, &mut self.settings.lookup, now_ms)
                    .map_err(fatal)?;
                if progress != Progress::Done {
                    break;
                }
                running.kept.pop_front();
            }
        }
        Ok(())
    }
}

/// How many of the records before a partition's end wait. Of a partition that gave none for long, none do: behind
/// an open transaction they cannot be read.
fn waiting(before_end: i64, last_gave: Duration, gives_within: Duration) -> i64 {
    match last_gave <= gives_within {
        true => before_end.max(0),
        false => 0,
    }
}

fn keep(record: &SourceRecord<'_>) -> Kept {
    Kept {
        offset: record.offset,
        timestamp_ms: record.timestamp_ms,
        key: record.key.map(<[u8]>::to_vec),
        value: record.value.map(<[u8]>::to_vec),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_behind_an_open_transaction_are_not_waited_for() {
        let within = Duration::from_secs(1);
        assert_eq!(waiting(7, within, within), 7);
        assert_eq!(waiting(7, within * 2, within), 0);
        // The end is that of the broker's last answer.
        assert_eq!(waiting(-7, within, within), 0);
    }
}
