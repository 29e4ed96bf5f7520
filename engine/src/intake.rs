//! What every record passes before a processor sees it: a pure decision about its bytes.

use common::{partitioner::partition_of, wire};

use crate::processor::{Reason, Rejected};

/// A record of the source topic as it was read.
#[derive(Debug, Clone, Copy)]
pub struct SourceRecord<'a> {
    /// Its offset.
    pub offset: i64,
    /// Its timestamp, in ms since 1970.
    pub timestamp_ms: Option<i64>,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
}

/// What a record may be.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Longest object id, in bytes.
    pub object_id_bytes: usize,
    /// Largest value, in bytes.
    pub record_bytes: usize,
}

/// What to do with a record.
#[derive(Debug, PartialEq, Eq)]
pub enum Intake<'a> {
    /// Hand it to the processor.
    Process {
        /// Registry id of its schema.
        schema_id: u32,
        /// Its Avro datum.
        datum: &'a [u8],
    },
    /// Its key belongs to another partition.
    Misrouted {
        /// That partition.
        partition: u32,
    },
    /// It goes to the dead letters.
    Reject(Rejected),
}

/// Decides about a record that was read from `partition` of `partitions`.
#[must_use]
pub fn inspect<'a>(
    record: &SourceRecord<'a>,
    partition: u32,
    partitions: u32,
    limits: Limits,
) -> Intake<'a> {
    let key = match check_key(record.key, limits.object_id_bytes) {
        Ok(key) => key,
        Err(detail) => return Intake::Reject(Rejected::new(Reason::InvalidObjectId, detail)),
    };
    let right = partition_of(key, partitions);
    // One that is too large would be rejected there; here is where it is sure to be written.
    let large = record.value.is_some_and(|v| v.len() > limits.record_bytes);
    if right != partition && !large {
        return Intake::Misrouted { partition: right };
    }
    match check_value(record.value, limits.record_bytes) {
        Ok((schema_id, datum)) => Intake::Process { schema_id, datum },
        Err(rejected) => Intake::Reject(rejected),
    }
}

/// Is this a usable object id?
///
/// # Errors
/// One sentence with the rule that it breaks.
pub fn check_key(key: Option<&[u8]>, longest: usize) -> Result<&[u8], String> {
    let key = key.ok_or("the record has no key; the key is the object id")?;
    if key.is_empty() {
        return Err("the object id is empty".into());
    }
    if key.len() > longest {
        return Err(format!(
            "the object id has {} bytes, more than the {longest} allowed",
            key.len()
        ));
    }
    // Nearly all keys are ASCII, which is found out several times as fast.
    if key.is_ascii() {
        return Ok(key);
    }
    match std::str::from_utf8(key) {
        Ok(_) => Ok(key),
        Err(e) => Err(format!("the object id is not UTF-8: {e}")),
    }
}

fn check_value(value: Option<&[u8]>, largest: usize) -> Result<(u32, &[u8]), Rejected> {
    let value = value.ok_or_else(|| Rejected::new(Reason::Truncated, "the record has no value"))?;
    if value.len() > largest {
        return Err(Rejected::new(
            Reason::TooLarge,
            format!("{} bytes, more than the {largest} allowed", value.len()),
        ));
    }
    wire::split(value).map_err(|e| {
        let reason = match e {
            wire::Error::WrongMagicByte(_) => Reason::WrongMagicByte,
            wire::Error::Truncated(_) => Reason::Truncated,
        };
        Rejected::new(reason, e.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        object_id_bytes: 8,
        record_bytes: 16,
    };

    fn reason(key: Option<&[u8]>, value: Option<&[u8]>) -> Option<Reason> {
        let record = SourceRecord {
            offset: 0,
            timestamp_ms: None,
            key,
            value,
        };
        match inspect(&record, 0, 1, LIMITS) {
            Intake::Reject(rejected) => Some(rejected.reason),
            _ => None,
        }
    }

    #[test]
    fn rejects_bad_bytes_by_name() {
        type Case<'a> = (Option<&'a [u8]>, Option<&'a [u8]>, Option<Reason>);
        let good: &[u8] = &[0, 0, 0, 0, 7, 1];
        let cases: [Case<'_>; 9] = [
            (Some(b"site"), Some(good), None),
            (None, Some(good), Some(Reason::InvalidObjectId)),
            (Some(b""), Some(good), Some(Reason::InvalidObjectId)),
            (
                Some(b"123456789"),
                Some(good),
                Some(Reason::InvalidObjectId),
            ),
            (Some(&[0xff]), Some(good), Some(Reason::InvalidObjectId)),
            (Some(b"site"), None, Some(Reason::Truncated)),
            (Some(b"site"), Some(&[0, 1]), Some(Reason::Truncated)),
            (Some(b"site"), Some(b"{}"), Some(Reason::WrongMagicByte)),
            (Some(b"site"), Some(&[0; 17]), Some(Reason::TooLarge)),
        ];
        for (key, value, expected) in cases {
            assert_eq!(reason(key, value), expected, "{key:?} {value:?}");
        }
    }

    #[test]
    fn sends_a_record_to_its_own_partition() {
        let record = SourceRecord {
            offset: 0,
            timestamp_ms: None,
            key: Some(b"site"),
            value: Some(&[0, 0, 0, 0, 7]),
        };
        let right = partition_of(b"site", 12);
        let wrong = (right + 1) % 12;
        assert_eq!(
            inspect(&record, wrong, 12, LIMITS),
            Intake::Misrouted { partition: right }
        );
        assert!(matches!(
            inspect(&record, right, 12, LIMITS),
            Intake::Process { schema_id: 7, .. }
        ));
        let large = SourceRecord {
            value: Some(&[0; 17]),
            ..record
        };
        for partition in [right, wrong] {
            assert!(matches!(
                inspect(&large, partition, 12, LIMITS),
                Intake::Reject(Rejected {
                    reason: Reason::TooLarge,
                    ..
                })
            ));
        }
    }
}
