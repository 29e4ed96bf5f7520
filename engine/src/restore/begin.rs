//! Where the restore of a store begins, and how its rows get there: decided from what is known.

use crate::store::Reason;

/// From so many records on, rows are taken in as sorted tables.
const TABLES_FROM: i64 = 50_000;

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    /// Read the changelog from this offset on.
    At(i64),
    /// The store is not of this changelog: set it aside, and begin anew.
    Anew(Reason),
}

/// Where to begin with a store at `position` (`None` for one that holds nothing), when the changelog
/// has the offsets from `low` up to `high`, open transactions included.
///
/// Compaction leaves `low` at 0. Only someone who deletes records of the changelog raises it; a store
/// from before may lack what was deleted, deletions of rows for one.
pub(super) fn where_to_begin(position: Option<i64>, low: i64, high: i64) -> Begin {
    match position {
        None => Begin::At(low),
        Some(position) if position > high => Begin::Anew(Reason::BeyondEnd),
        Some(position) if position < low => Begin::Anew(Reason::BeforeStart),
        Some(position) => Begin::At(position),
    }
}

/// Is the way from `position` to `end` so long that sorting rows into tables pays?
pub(super) fn by_tables(position: i64, end: i64) -> bool {
    end.saturating_sub(position) >= TABLES_FROM
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begins_where_the_store_ends_if_it_is_of_this_changelog() {
        let cases = [
            // Nothing there yet, on either side.
            (None, 0, 0, Begin::At(0)),
            (None, 0, 9, Begin::At(0)),
            (None, 5, 9, Begin::At(5)),
            (None, 9, 9, Begin::At(9)),
            // Within, and at both ends.
            (Some(0), 0, 9, Begin::At(0)),
            (Some(5), 0, 9, Begin::At(5)),
            (Some(9), 0, 9, Begin::At(9)),
            (Some(5), 5, 9, Begin::At(5)),
            // Outside.
            (Some(10), 0, 9, Begin::Anew(Reason::BeyondEnd)),
            (Some(1), 0, 0, Begin::Anew(Reason::BeyondEnd)),
            (Some(4), 5, 9, Begin::Anew(Reason::BeforeStart)),
            // Rows without a position, as a crash between the two leaves them.
            (Some(0), 5, 9, Begin::Anew(Reason::BeforeStart)),
        ];
        for (position, low, high, expected) in cases {
            let begin = where_to_begin(position, low, high);
            assert_eq!(begin, expected, "{position:?} in {low}..{high}");
        }
    }

    #[test]
    fn many_rows_go_in_as_tables() {
        let cases = [
            (0, 49_999, false),
            (0, 50_000, true),
            (1_000_000, 1_049_999, false),
            (7, 5, false),
        ];
        for (position, end, expected) in cases {
            assert_eq!(by_tables(position, end), expected, "{position} to {end}");
        }
    }
}
