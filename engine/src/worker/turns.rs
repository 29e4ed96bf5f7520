//! Which partitions are read while many are far behind: one after the other.
//!
//! Taken together, the objects of all partitions push each other out of every cache; of one partition, more of them
//! stay, and an epoch has more changes of each, which are one row. Nobody waits longer for it: all records are processed
//! when the last of them would be anyway, and those of the first partitions long before.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    time::{Duration, Instant},
};

/// A partition with so many records to read is far behind.
const FAR: i64 = 60_000;
/// With fewer left, its turn is over.
const FEW: i64 = 1_000;
/// After so long it is another partition's turn, however many are left: no partition stands still for ever.
const TURN: Duration = Duration::from_secs(10);

/// Whose turn it is.
#[derive(Debug, Default)]
pub(super) struct Turns {
    reading: Option<(u32, Instant)>,
    /// What is left of this one is read beside the next.
    leaving: Option<u32>,
    halted: BTreeSet<u32>,
}

impl Turns {
    /// Chooses the partition that is read, of those that are far behind; the others are halted. `lags` has the records
    /// that each partition has to read. Returns whether a turn is over: of that partition, nothing more comes for now.
    pub(super) fn choose(&mut self, lags: &BTreeMap<u32, i64>, now: Instant) -> bool {
        let far = lags.iter().filter(|(_, lag)| **lag >= FAR);
        let mut far: BTreeSet<u32> = far.map(|(partition, _)| *partition).collect();
        let before = self.reading;
        let goes_on = before.filter(|(partition, since)| {
            far.contains(partition) && now.saturating_duration_since(*since) < TURN
        });
        self.reading = goes_on.or_else(|| {
            let last = before.map_or(0, |(partition, _)| partition);
            let behind = far.range((Bound::Excluded(last), Bound::Unbounded));
            let next = behind.chain(&far).next()?;
            Some((*next, now))
        });
        if let Some((partition, _)) = self.reading {
            far.remove(&partition);
        }
        self.halted = far;
        if let Some((partition, _)) = before
            && self.reading != before
        {
            self.leaving = Some(partition);
        }
        let is_over = |partition: &mut u32| {
            self.halted.contains(partition) || lags.get(partition).is_none_or(|lag| *lag < FEW)
        };
        self.leaving.take_if(is_over).is_some()
    }

    /// Has this partition to wait for its turn?
    pub(super) fn halts(&self, partition: u32) -> bool {
        self.halted.contains(&partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(turns: &mut Turns, lags: &[(u32, i64)], now: Instant) -> (Option<u32>, Vec<u32>) {
        let _over = turns.choose(&lags.iter().copied().collect(), now);
        let halted = lags.iter().map(|(partition, _)| *partition);
        let halted = halted.filter(|partition| turns.halts(*partition)).collect();
        (turns.reading.map(|(partition, _)| partition), halted)
    }

    #[test]
    fn those_that_are_far_behind_take_turns() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        let mut choose = |lags: &[(u32, i64)], seconds| {
            let now = now + Duration::from_secs(seconds);
            chosen(&mut turns, lags, now)
        };
        let (far, near) = (FAR, FAR - 1);
        // Nobody is halted for the sake of one, and nobody who is near.
        assert_eq!(choose(&[], 0), (None, vec![]));
        assert_eq!(choose(&[(0, near), (3, far), (7, 0)], 0), (Some(3), vec![]));
        // Whoever reads goes on, for as long as it is far behind,
        let lags = [(0, far), (3, far), (7, far), (9, near)];
        assert_eq!(choose(&lags, 1), (Some(3), vec![0, 7]));
        assert_eq!(choose(&lags, 9), (Some(3), vec![0, 7]));
        let lags = [(0, far), (3, near), (7, far), (9, near)];
        assert_eq!(choose(&lags, 9), (Some(7), vec![0]));
        // or until its time is over.
        assert_eq!(choose(&lags, 18), (Some(7), vec![0]));
        assert_eq!(choose(&lags, 19), (Some(0), vec![7]));
        assert_eq!(choose(&lags, 29), (Some(7), vec![0]));
        // A partition that went away, and the last one that is far behind.
        assert_eq!(choose(&[(0, far), (3, near)], 30), (Some(0), vec![]));
        assert_eq!(choose(&[(0, far), (3, near)], 50), (Some(0), vec![]));
        assert_eq!(choose(&[(0, near)], 51), (None, vec![]));
    }
    #[test]
    fn a_turn_is_over_when_little_is_left_of_it() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        let mut over = |lags: &[(u32, i64)], seconds| {
            let now = now + Duration::from_secs(seconds);
            turns.choose(&lags.iter().copied().collect(), now)
        };
        assert!(!over(&[(3, FAR), (7, FAR), (9, FAR)], 0));
        // What is left of it is read beside the next one; and it is over once.
        assert!(!over(&[(3, FAR - 1), (7, FAR), (9, FAR)], 1));
        assert!(!over(&[(3, FEW), (7, FAR), (9, FAR)], 1));
        assert!(over(&[(3, FEW - 1), (7, FAR), (9, FAR)], 1));
        assert!(!over(&[(3, FEW - 1), (7, FAR), (9, FAR)], 1));
        // Its time is over: whatever is left of it has to wait.
        assert!(over(&[(3, 0), (7, FAR), (9, FAR)], 11));
        // A partition that went away; and the last one.
        assert!(over(&[(7, FAR)], 12));
        assert!(!over(&[(7, FEW)], 13));
        assert!(over(&[(7, 0)], 13));
        assert!(!over(&[(7, 0)], 14));
    }
}
