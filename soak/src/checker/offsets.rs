//! Everything in the source has been processed: the committed offsets of the application's group are the ends of the
//! records.

use std::time::{Duration, Instant};

use anyhow::Result;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};

use super::{Checker, Class, Finding, source};

/// Is nothing left to be processed? With its offset, a record may have been sent on to another partition that nobody
/// has seen there yet: so the source is read once more after the offsets.
#[derive(Default)]
struct Rest {
    all_committed: bool,
}

impl Rest {
    /// The source was read, and so many records were new.
    fn is_at_rest(&mut self, new: usize) -> bool {
        self.all_committed &= new == 0;
        self.all_committed
    }

    /// The offsets were looked at, and so many partitions are behind.
    fn looked(&mut self, behind: usize) {
        self.all_committed = behind == 0;
    }
}

impl Checker {
    /// The source records since the last round, once all of them have been processed.
    pub(super) fn processed(
        &mut self,
        patience: Duration,
    ) -> Result<(source::Stretch, Vec<Finding>)> {
        let deadline = Instant::now() + patience;
        let mut source = source::Stretch::new();
        let mut rest = Rest::default();
        loop {
            let new = self.source.advance()?;
            if rest.is_at_rest(new.len()) {
                source.sort_by_key(|(record, _)| (record.partition, record.offset));
                return Ok((source, Vec::new()));
            }
            for record in new {
                let end = self.source_ends.entry(record.partition).or_default();
                *end = (*end).max(record.offset + 1);
                let judged = self.reader.judge(&record)?;
                source.push((record, judged));
            }
            let behind = match self.behind() {
                // The group's coordinator moves while brokers come back.
                Err(_) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(50));
                    continue;
                }
                behind => behind?,
            };
            rest.looked(behind.len());
            if Instant::now() > deadline {
                let lost = behind.into_iter().map(|(partition, committed, end)| {
                    let what = format!(
                        "group {} has committed offset {committed} of {} partition {partition}, whose records go to \
                         {end}, and does not go on",
                        self.place.application_id, self.names.reports
                    );
                    Finding::new(Class::Lost, "offsets", what)
                });
                let lost = lost.collect();
                source.sort_by_key(|(record, _)| (record.partition, record.offset));
                return Ok((source, lost));
            }
            if !rest.all_committed {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }

    /// Partitions whose committed offset is not the end of the records: (partition, committed, end).
    fn behind(&self) -> Result<Vec<(i32, i64, i64)>> {
        let mut wanted = TopicPartitionList::new();
        for partition in 0..self.place.partitions {
            wanted.add_partition(&self.names.reports, partition);
        }
        // A new one each time: whom an old one takes for the coordinator may have been killed since.
        let config = self
            .place
            .kafka
            .consumer("soak", &self.place.application_id);
        let group: BaseConsumer = config.create()?;
        let committed = group.committed_offsets(wanted, Duration::from_secs(10))?;
        let mut behind = Vec::new();
        for element in committed.elements() {
            let offset = match element.offset() {
                Offset::Offset(offset) => offset,
                _ => 0,
            };
            let end = self.source_ends.get(&element.partition());
            let end = end.copied().unwrap_or(0);
            if offset != end {
                behind.push((element.partition(), offset, end));
            }
        }
        Ok(behind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rests_when_nothing_is_new_after_the_offsets() {
        let mut rest = Rest::default();
        // New records, and partitions that are behind; `None`: the coordinator did not answer.
        let looks = [
            (3, Some(1), false),
            (0, Some(0), false),
            // Sent on with the last offset.
            (1, None, false),
            (0, Some(1), false),
            (0, Some(0), false),
            (0, Some(0), true),
        ];
        for (new, behind, expected) in looks {
            assert_eq!(rest.is_at_rest(new), expected, "{new} new");
            if let Some(behind) = behind {
                rest.looked(behind);
            }
        }
    }
}
