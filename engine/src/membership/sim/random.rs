//! Where all chance of a schedule comes from: the same seed, the same schedule.

use std::ops::RangeInclusive;

/// `SplitMix64` (Steele, Lea and Flood: Fast splittable pseudorandom number generators, 2014).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        let (low, high) = range.into_inner();
        low + self.next() % (high - low + 1)
    }

    pub(super) fn index(&mut self, count: usize) -> usize {
        let last = u64::try_from(count - 1).unwrap();
        usize::try_from(self.within(0..=last)).unwrap()
    }

    /// `true` once in `count` times; never when it is 0.
    pub(super) fn one_in(&mut self, count: u64) -> bool {
        count > 0 && self.next().is_multiple_of(count)
    }
}
