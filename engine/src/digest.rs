//! Digests of stores: what tells an active and its standby, or a store and its changelog, that they
//! hold the same rows.
//!
//! A store's digest is the sum (modulo 2^64) of a hash of each of its objects' rows, so it does not depend on
//! the order in which they came, and a change costs two hashes. The active writes it now and then
//! as the last row of an epoch; whoever follows the changelog compares. The hash is XXH3 (64 bits,
//! Yann Collet, <https://xxhash.com>), the same on every machine and in every version: it finds
//! faults, not forgeries.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::{epoch::Row, store::DIGEST};

/// How often an active writes a digest, in ms, when its rows change.
pub const EVERY_MS: i64 = 1_000;

/// What a row adds to the digest.
#[must_use]
pub fn of_row(key: &[u8], value: &[u8]) -> u64 {
    xxh3_64_with_seed(value, xxh3_64(key))
}

/// A digest as the changelog has it: the last row of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    /// Of all rows up to this one.
    pub rows: u64,
    /// How many rows were written since the digest before this one; `None` when its writer does not
    /// know, having just become the owner.
    pub since_last: Option<u64>,
}

impl Digest {
    /// The row of the changelog.
    #[must_use]
    pub fn row(self) -> Row {
        let mut value = self.rows.to_be_bytes().to_vec();
        value.extend(self.since_last.map(u64::to_be_bytes).into_iter().flatten());
        (vec![DIGEST], Some(value))
    }

    /// Reads the value of such a row; `None` if it is none.
    #[must_use]
    pub fn read(value: &[u8]) -> Option<Self> {
        let (rows, rest) = value.split_first_chunk::<8>()?;
        let since_last = match rest {
            [] => None,
            rest => Some(u64::from_be_bytes(rest.try_into().ok()?)),
        };
        Some(Self {
            rows: u64::from_be_bytes(*rows),
            since_last,
        })
    }
}

/// What comes of comparing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The same rows.
    Same,
    /// Other rows: one of the two is wrong.
    Different,
    /// Nobody can tell.
    Unknown,
}

/// Tells when the rows of a follower can be compared with a digest in the changelog it reads.
///
/// Compaction removes a row whose successor may not have been read yet, so what was read up to a
/// digest need not be what the active had there. It is, when the follower once had everything up to
/// the end, and since then has read as many rows between one digest and the next as were written.
#[derive(Debug, Default)]
pub struct Comparison {
    /// Everything was there at some point, and nothing has been missed since.
    complete: bool,
    /// Rows read since the last digest; `None` before the first.
    since_last: Option<u64>,
}

impl Comparison {
    /// Everything up to the changelog's end has been read.
    pub fn on_end(&mut self) {
        self.complete = true;
    }

    /// A row other than a digest was read.
    pub fn on_row(&mut self) {
        if let Some(since_last) = &mut self.since_last {
            *since_last += 1;
        }
    }

    /// A digest was read, and `mine` is that of the rows read so far.
    pub fn on_digest(&mut self, theirs: Digest, mine: u64) -> Verdict {
        let read = self.since_last.replace(0);
        let (Some(read), Some(written)) = (read, theirs.since_last) else {
            return Verdict::Unknown;
        };
        self.complete &= read == written;
        match self.complete {
            false => Verdict::Unknown,
            true if mine == theirs.rows => Verdict::Same,
            true => Verdict::Different,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(rows: u64, since_last: Option<u64>) -> Digest {
        Digest { rows, since_last }
    }

    #[test]
    fn reads_what_it_writes() {
        for digest in [digest(7, None), digest(u64::MAX, Some(3))] {
            let (_, value) = digest.row();
            assert_eq!(Digest::read(&value.unwrap()), Some(digest));
        }
        assert_eq!(Digest::read(b"short"), None);
        assert_eq!(Digest::read(b"longer than 8"), None);
    }

    #[test]
    fn the_hash_is_xxh3() {
        // The reference implementation's value for the empty input.
        assert_eq!(xxh3_64(b""), 0x2d06_8005_38d3_94c2);
        assert_ne!(of_row(b"ab", b"c"), of_row(b"a", b"bc"));
    }

    #[test]
    fn compares_once_everything_is_there_and_nothing_is_missed() {
        let mut comparison = Comparison::default();
        comparison.on_row();
        assert_eq!(
            comparison.on_digest(digest(1, Some(1)), 1),
            Verdict::Unknown
        );
        comparison.on_end();
        comparison.on_row();
        assert_eq!(comparison.on_digest(digest(5, Some(1)), 5), Verdict::Same);
        comparison.on_row();
        assert_eq!(
            comparison.on_digest(digest(6, Some(1)), 5),
            Verdict::Different
        );
        // One of two rows was compacted away.
        comparison.on_row();
        assert_eq!(
            comparison.on_digest(digest(7, Some(2)), 5),
            Verdict::Unknown
        );
        assert_eq!(
            comparison.on_digest(digest(7, Some(0)), 5),
            Verdict::Unknown
        );
        comparison.on_end();
        assert_eq!(comparison.on_digest(digest(7, Some(0)), 7), Verdict::Same);
    }

    #[test]
    fn a_new_owner_does_not_know_how_many_there_were() {
        let mut comparison = Comparison::default();
        comparison.on_end();
        assert_eq!(
            comparison.on_digest(digest(1, Some(4)), 1),
            Verdict::Unknown
        );
        assert_eq!(comparison.on_digest(digest(1, None), 1), Verdict::Unknown);
        assert_eq!(comparison.on_digest(digest(2, Some(0)), 2), Verdict::Same);
    }
}
