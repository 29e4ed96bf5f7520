//! What is known of the times at which one partition's records were processed.
//!
//! A source record does not say when it was processed, but some leave a trace that does: a dead letter says it
//! (`failed_at_ms`), and so does the transition that a command made (`since_ms`). A partition is processed in the
//! order of its offsets, so those moments, the anchors, enclose the times of all records between them.

/// A record whose time is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Anchor {
    /// Its offset in the source partition.
    pub offset: i64,
    /// When it was processed, in ms since 1970.
    pub at_ms: i64,
}

/// The anchors of a source partition.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    anchors: Vec<Anchor>,
}

impl Clock {
    /// Adds the anchors of a further stretch of the log.
    ///
    /// # Errors
    /// Two anchors of which the later offset has the earlier time: the partition was not processed in order, or
    /// not with one clock. Neither of the two is kept.
    pub fn add(&mut self, mut new: Vec<Anchor>) -> Result<(), (Anchor, Anchor)> {
        new.sort_unstable();
        // A record that was processed twice has two times; that is for another check to say.
        new.dedup_by_key(|anchor| anchor.offset);
        let mut contradiction = Ok(());
        for anchor in new {
            match self.anchors.last().copied() {
                Some(last) if last.at_ms > anchor.at_ms => {
                    contradiction = Err((last, anchor));
                    self.anchors.pop();
                }
                _ => self.anchors.push(anchor),
            }
        }
        contradiction
    }

    /// Between which moments the record at `offset` was processed, both included; `until_ms` if no later anchor
    /// says more.
    pub fn window(&self, offset: i64, until_ms: i64) -> (i64, i64) {
        let before = self.anchors.partition_point(|a| a.offset <= offset);
        let after = self.anchors.partition_point(|a| a.offset < offset);
        let from = before.checked_sub(1).and_then(|i| self.anchors.get(i));
        let to = self.anchors.get(after);
        (
            from.map_or(0, |anchor| anchor.at_ms),
            to.map_or(until_ms, |anchor| anchor.at_ms),
        )
    }

    /// Was anything of this partition processed from `from_ms` on and before `to_ms`? Then when first?
    pub fn processed_within(&self, from_ms: i64, to_ms: i64) -> Option<i64> {
        let first = self.anchors.partition_point(|a| a.at_ms < from_ms);
        let anchor = self.anchors.get(first)?;
        (anchor.at_ms < to_ms).then_some(anchor.at_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(anchors: &[(i64, i64)]) -> Result<Clock, (Anchor, Anchor)> {
        let mut clock = Clock::default();
        let of = |&(offset, at_ms): &(i64, i64)| Anchor { offset, at_ms };
        clock.add(anchors.iter().map(of).collect())?;
        Ok(clock)
    }

    #[test]
    fn anchors_enclose_what_is_between_them() {
        let clock = clock(&[(10, 1000), (20, 2000)]).unwrap();
        for (offset, window) in [
            (5, (0, 1000)),
            (10, (1000, 1000)),
            (15, (1000, 2000)),
            (20, (2000, 2000)),
            (21, (2000, 9000)),
        ] {
            assert_eq!(clock.window(offset, 9000), window, "offset {offset}");
        }
        assert_eq!(clock.processed_within(1000, 1001), Some(1000));
        assert_eq!(clock.processed_within(1001, 2000), None);
        assert_eq!(clock.processed_within(1001, 2001), Some(2000));
    }

    #[test]
    fn time_that_goes_back_is_noticed() {
        let (last, next) = clock(&[(10, 1000), (20, 999)]).unwrap_err();
        assert_eq!((last.offset, next.offset), (10, 20));
        assert!(clock(&[(10, 1000), (20, 1000)]).is_ok());
    }
}
