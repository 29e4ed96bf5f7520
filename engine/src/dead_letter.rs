//! What a dead letter says of a record. Whatever the record was, its dead letter can be written.

use common::{schema::DeadLetter, topics::LARGEST_RECORD_BYTES};

use crate::{intake::SourceRecord, processor::Rejected};

/// Room for the key, which is there twice, and the value: the rest is for the detail, names and frames.
const CONTENT_BYTES: usize = LARGEST_RECORD_BYTES - (64 << 10);
/// A detail that quotes more of its record than this says no more.
const DETAIL_BYTES: usize = 4 << 10;

/// The dead letter of a record of `partition` of `topic`. It has the original bytes. Only of more than
/// any topic takes by default, and of more than fits into a record, it has the first ones; the detail
/// says so, and the record itself is where the letter says for as long as the topic keeps it.
pub(crate) fn letter(
    topic: &str,
    partition: u32,
    record: &SourceRecord<'_>,
    rejected: Rejected,
    now_ms: i64,
) -> DeadLetter {
    let len = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
    let fits = 2 * len(record.key) + len(record.value) <= CONTENT_BYTES;
    let most = if fits {
        CONTENT_BYTES
    } else {
        CONTENT_BYTES / 3
    };
    let bytes = |bytes: Option<&[u8]>| bytes.map(|all| all[..all.len().min(most)].to_vec());
    let mut detail = rejected.detail;
    detail.truncate(detail.floor_char_boundary(DETAIL_BYTES));
    if !fits {
        detail = format!(
            "{detail}; of the {} bytes of the key and the {} bytes of the value, only the first {most} are here",
            len(record.key),
            len(record.value)
        );
    }
    DeadLetter {
        topic: topic.to_owned(),
        partition: i32::try_from(partition).unwrap_or(i32::MAX),
        offset: record.offset,
        timestamp_ms: record.timestamp_ms,
        reason: rejected.reason.name().to_owned(),
        detail,
        key: bytes(record.key),
        value: bytes(record.value),
        failed_at_ms: now_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processor::Reason;

    fn of(key: &[u8], value: &[u8], detail: &str) -> DeadLetter {
        let record = SourceRecord {
            offset: 7,
            timestamp_ms: None,
            key: Some(key),
            value: Some(value),
        };
        let rejected = Rejected::new(Reason::TooLarge, detail);
        letter("reports", 3, &record, rejected, 0)
    }

    #[test]
    fn whatever_is_in_the_record_fits_into_a_record() {
        const MIB: usize = 1 << 20;
        // Of what brokers take by default, it is the original bytes.
        for (key, value, whole) in [
            (0, 0, true),
            (9, MIB, true),
            (MIB, 9, true),
            (MIB, 5 * MIB, true),
            (9, 8 * MIB, false),
            (4 * MIB, 0, false),
            (50 * MIB, 50 * MIB, false),
        ] {
            let (key, value) = (vec![b'k'; key], vec![b'v'; value]);
            let letter = of(&key, &value, "large");
            let (kept_key, kept) = (letter.key.unwrap(), letter.value.unwrap());
            assert_eq!((kept_key == key) && (kept == value), whole);
            assert_eq!(letter.detail == "large", whole, "{}", letter.detail);
            assert!(key.starts_with(&kept_key) && value.starts_with(&kept));
            // The key is the letter's own as well.
            let size = 2 * kept_key.len() + kept.len() + letter.detail.len();
            assert!(size + 1_000 < LARGEST_RECORD_BYTES, "{size}");
        }
    }

    #[test]
    fn a_long_detail_ends_between_characters() {
        let detail = of(b"k", b"v", &"ä".repeat(MANY)).detail;
        assert_eq!(detail, "ä".repeat(DETAIL_BYTES / 2));
    }

    const MANY: usize = 1_000_000;
}
