//! How long a store may be out of use before it must not be trusted.
//!
//! A compacted changelog keeps a deletion for `delete.retention.ms` (24 h unless configured
//! otherwise) after the deleted row is gone from it. Who has read the row and comes back later than
//! that never hears of the deletion, and keeps the row for ever. So each store tells when it last
//! lacked nothing of the changelog.

/// A store that was not complete for longer than this is restored anew. Two hours less than the
/// deletions are kept: clocks differ, and reading on takes its time too.
pub const MAX_OFFLINE_MS: i64 = 22 * 60 * 60 * 1000;

/// Clocks may differ by so much.
const SKEW_MS: i64 = 10 * 60 * 1000;

/// May a store that was last complete at `complete_ms` lack deletions by now?
#[must_use]
pub fn too_old(complete_ms: Option<i64>, now_ms: i64) -> bool {
    match complete_ms {
        // A time to come was written by a clock that was wrong: nobody knows.
        Some(complete_ms) => {
            let age_ms = now_ms.saturating_sub(complete_ms);
            !(-SKEW_MS..=MAX_OFFLINE_MS).contains(&age_ms)
        }
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 60 * 60 * 1000;

    #[test]
    fn a_store_is_trusted_for_as_long_as_deletions_are_kept() {
        let now = 1000 * HOUR;
        let cases = [
            (Some(now), false),
            (Some(now - 21 * HOUR), false),
            (Some(now - MAX_OFFLINE_MS), false),
            (Some(now - MAX_OFFLINE_MS - 1), true),
            (Some(now - 500 * HOUR), true),
            // Clocks differ a little, but not by hours.
            (Some(now + 60_000), false),
            (Some(now + HOUR), true),
            (Some(i64::MIN), true),
            (Some(i64::MAX), true),
            (None, true),
        ];
        for (complete, expected) in cases {
            assert_eq!(too_old(complete, now), expected, "{complete:?}");
        }
    }
}
