//! What an epoch sends to other topics than the changelog.

use std::ops::Range;

use super::rows::{ROW_BYTES, Rows, trim};
use crate::processor::Reason;

/// What a record costs beside its key and value.
const OUTPUT_BYTES: usize = ROW_BYTES + size_of::<To>();

/// A record for a topic other than the changelog.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output<'o> {
    /// Where to.
    pub to: Destination,
    /// The key, if it has one.
    pub key: Option<&'o [u8]>,
    /// The value; `None` is a tombstone.
    pub value: Option<&'o [u8]>,
}

/// Where an output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// The output topic, on the task's own partition.
    States,
    /// The dead letters.
    DeadLetters(Reason),
    /// The source topic, on the partition where the key belongs.
    Source {
        /// That partition.
        partition: u32,
    },
}

/// Records for other topics than the changelog, in order. Those of a processor carry their key's partition.
#[derive(Debug, Default)]
pub struct Outputs {
    records: Rows,
    to: Vec<To>,
}

#[derive(Debug, Clone, Copy)]
struct To {
    destination: Destination,
    has_key: bool,
}

impl Outputs {
    /// Publishes a value (framed) under `key`; `None` is a tombstone.
    pub fn emit(&mut self, key: &[u8], value: Option<&[u8]>) {
        self.push(Output {
            to: Destination::States,
            key: Some(key),
            value,
        });
    }

    /// Publishes the value that `write` appends (framed) under `key`.
    pub fn emit_with(&mut self, key: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
        self.records.push_with(key, write);
        self.to.push(To {
            destination: Destination::States,
            has_key: true,
        });
    }

    pub(crate) fn push(&mut self, output: Output<'_>) {
        self.records
            .push(output.key.unwrap_or_default(), output.value);
        self.to.push(To {
            destination: output.to,
            has_key: output.key.is_some(),
        });
    }

    /// How many records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.to.len()
    }

    /// Are there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.to.is_empty()
    }

    /// The records, in order.
    pub fn iter(&self) -> impl Iterator<Item = Output<'_>> {
        self.range(0..self.len())
    }

    /// The records at these places.
    pub fn range(&self, places: Range<usize>) -> impl Iterator<Item = Output<'_>> {
        let to = self.to[places.clone()].iter();
        to.zip(self.records.range(places))
            .map(|(to, (key, value))| Output {
                to: to.destination,
                key: to.has_key.then_some(key),
                value,
            })
    }

    /// The place behind those records from `from` on that make up to `bytes`: one at least, if there is one.
    #[must_use]
    pub fn up_to(&self, from: usize, bytes: usize) -> usize {
        self.records.up_to(from, bytes)
    }

    /// The records at these places, in runs that go to the same destination.
    pub(crate) fn runs(
        &self,
        places: Range<usize>,
    ) -> impl Iterator<Item = (Destination, Range<usize>)> {
        let mut from = places.start;
        let same = |a: &To, b: &To| a.destination == b.destination;
        self.to[places].chunk_by(same).map(move |run| {
            let start = from;
            from += run.len();
            (run[0].destination, start..from)
        })
    }

    /// Memory that they take.
    pub(crate) fn bytes(&self) -> usize {
        self.records.bytes() + self.len() * OUTPUT_BYTES
    }

    /// About what they take, and will take: those of one epoch are kept until the next one is committed, and meanwhile those
    /// of a third come in.
    pub(crate) fn pending_bytes(&self) -> usize {
        3 * self.bytes()
    }

    /// As for [`Rows::trim`].
    pub(crate) fn trim(&mut self) {
        self.records.trim();
        trim(&mut self.to);
    }

    /// None, in the memory of these.
    #[must_use]
    pub(crate) fn emptied(mut self) -> Self {
        self.to.clear();
        Self {
            records: self.records.emptied(),
            to: self.to,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_out_as_they_went_in() {
        let states = |value| Output {
            to: Destination::States,
            key: Some(&b"site"[..]),
            value,
        };
        let letter = Output {
            to: Destination::DeadLetters(Reason::Malformed),
            key: None,
            value: Some(&b"why"[..]),
        };
        let mut outputs = Outputs::default();
        outputs.emit(b"site", Some(b"attacked"));
        outputs.emit(b"site", None);
        outputs.push(letter);
        outputs.emit_with(b"site", |out| out.extend_from_slice(b"calm"));
        let all = [
            states(Some(b"attacked")),
            states(None),
            letter,
            states(Some(b"calm")),
        ];
        assert!(outputs.iter().eq(all));
        let runs: Vec<_> = outputs.runs(1..4).collect();
        assert_eq!(
            runs,
            [
                (Destination::States, 1..2),
                (letter.to, 2..3),
                (Destination::States, 3..4)
            ]
        );
        let outputs = outputs.emptied();
        assert!(outputs.is_empty() && outputs.iter().next().is_none());
    }
}
