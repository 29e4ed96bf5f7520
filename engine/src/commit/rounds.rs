//! An epoch is handed to librdkafka in rounds: of each partition so much as one request holds, and more only
//! when that has been delivered.
//!
//! librdkafka has one request of an idempotent producer and a partition under way at a time, and while more
//! is waiting behind it, its thread does not sleep: it looks again and again whether the answer is there
//! (`rd_kafka_toppar_producer_serve` of 2.12 counts records under way, where it means to count requests).

use std::sync::atomic::Ordering;

use rdkafka::error::KafkaError;

use super::{Committer, Settings, Way, way};
use crate::{
    epoch::{Destination, Epoch, TaskEpoch},
    offsets::kafka_partition,
};

/// Keys and values of one partition in one round. A request holds 1,000,000 bytes (`batch.size`), with some for
/// each record beside them.
const ROUND_BYTES: usize = 800_000;

/// How far an epoch has been handed over.
pub(super) struct Rounds<'e> {
    tasks: Vec<Sent<'e>>,
}

struct Sent<'e> {
    task: &'e TaskEpoch,
    rows: usize,
    outputs: usize,
}

impl<'e> Rounds<'e> {
    pub(super) fn of(epoch: &'e Epoch) -> Self {
        let tasks = epoch.tasks.iter().map(|task| Sent {
            task,
            rows: 0,
            outputs: 0,
        });
        Self {
            tasks: tasks.collect(),
        }
    }
}

impl Sent<'_> {
    fn is_all(&self) -> bool {
        self.rows == self.task.rows.len() && self.outputs == self.task.outputs.len()
    }
}

impl Committer {
    /// Hands over the next round. Is there another one?
    pub(super) fn send_some(&mut self, rounds: &mut Rounds<'_>) -> Result<bool, (Way, String)> {
        for sent in &mut rounds.tasks {
            self.send_rows(sent).map_err(refused)?;
            self.send_outputs(sent).map_err(refused)?;
        }
        Ok(!rounds.tasks.iter().all(Sent::is_all))
    }

    fn send_rows(&mut self, sent: &mut Sent<'_>) -> Result<(), KafkaError> {
        let rows = &sent.task.rows;
        let until = rows.up_to(sent.rows, ROUND_BYTES);
        let range = std::mem::replace(&mut sent.rows, until)..until;
        let partition = Some(kafka_partition(sent.task.partition));
        let goes_on = || goes_on(&self.settings);
        self.producer
            .produce_held(self.topics.changelog, partition, rows, range, goes_on)
    }

    fn send_outputs(&mut self, sent: &mut Sent<'_>) -> Result<(), KafkaError> {
        let outputs = &sent.task.outputs;
        let until = outputs.up_to(sent.outputs, ROUND_BYTES);
        let range = std::mem::replace(&mut sent.outputs, until)..until;
        // Runs of outputs with the same destination go together: their order is kept.
        for (to, places) in outputs.runs(range) {
            let (topic, partition) = match to {
                Destination::States => (self.topics.states, Some(sent.task.partition)),
                Destination::DeadLetters(_) => (self.topics.dead_letters, None),
                Destination::Source { partition } => (self.topics.reports, Some(partition)),
            };
            let partition = partition.map(kafka_partition);
            let goes_on = || goes_on(&self.settings);
            self.producer
                .produce_held(topic, partition, outputs, places, goes_on)?;
        }
        Ok(())
    }
}

/// Is a full queue to be waited for?
pub(super) fn goes_on(settings: &Settings) -> bool {
    settings.pulse.beat();
    !settings.stop.load(Ordering::Acquire)
}

fn refused(error: KafkaError) -> (Way, String) {
    (way(&error, false), format!("produce: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epoch::{Outputs, Rows};

    #[test]
    fn a_round_has_as_much_as_fits_and_one_at_least() {
        let third = ROUND_BYTES / 3;
        for (sizes, fits) in [
            (&[][..], 0),
            (&[2 * ROUND_BYTES, 1], 1),
            (&[third, third, third, third], 3),
            (&[1, 2 * ROUND_BYTES], 1),
        ] {
            let (mut rows, mut outputs) = (Rows::default(), Outputs::default());
            for bytes in sizes {
                let value = vec![0; *bytes];
                rows.push(b"", Some(&value));
                outputs.emit(b"", Some(&value));
            }
            assert_eq!(rows.up_to(0, ROUND_BYTES), fits, "{sizes:?}");
            assert_eq!(rows.up_to(sizes.len(), ROUND_BYTES), sizes.len());
            assert_eq!(outputs.up_to(0, ROUND_BYTES), fits, "{sizes:?}");
        }
    }
}
