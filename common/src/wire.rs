//! The Confluent wire format: a zero byte, the schema id as four bytes big-endian, the Avro datum.
//!
//! Source: <https://docs.confluent.io/platform/current/schema-registry/fundamentals/serdes-develop/index.html#wire-format>

/// First byte of every framed value.
pub const MAGIC: u8 = 0;
/// Bytes before the Avro datum.
pub const HEADER_LEN: usize = 5;

/// Why bytes are not a framed value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The first byte is not [`MAGIC`].
    #[error("first byte is {0:#04x}, not 0x00: this is not the Confluent wire format")]
    WrongMagicByte(u8),
    /// Fewer than [`HEADER_LEN`] bytes.
    #[error("{0} bytes are too few for the 5 bytes of magic and schema id")]
    Truncated(usize),
}

/// Splits a framed value into schema id and Avro datum.
///
/// # Errors
/// When the bytes are too short or start with another byte than [`MAGIC`].
pub fn split(value: &[u8]) -> Result<(u32, &[u8]), Error> {
    match value {
        [MAGIC, a, b, c, d, datum @ ..] => Ok((u32::from_be_bytes([*a, *b, *c, *d]), datum)),
        [first, ..] if *first != MAGIC => Err(Error::WrongMagicByte(*first)),
        short => Err(Error::Truncated(short.len())),
    }
}

/// Most records are no longer: a state with the votes of three agents, for one.
const USUAL_BYTES: usize = 192;

/// A buffer that starts with the frame of `schema_id`, ready for the datum.
#[must_use]
pub fn header(schema_id: u32) -> Vec<u8> {
    let mut value = Vec::with_capacity(USUAL_BYTES);
    put_header(&mut value, schema_id);
    value
}

/// Appends the header of a value of this schema.
pub fn put_header(out: &mut Vec<u8>, schema_id: u32) {
    out.push(MAGIC);
    out.extend_from_slice(&schema_id.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_what_header_starts() {
        let mut value = header(0x0102_0304);
        value.extend_from_slice(b"datum");
        assert_eq!(split(&value), Ok((0x0102_0304, &b"datum"[..])));
    }

    #[test]
    fn names_what_is_wrong() {
        let cases: [(&[u8], Error); 4] = [
            (b"", Error::Truncated(0)),
            (&[0], Error::Truncated(1)),
            (&[0, 0, 0, 1], Error::Truncated(4)),
            (b"{\"json\":1}", Error::WrongMagicByte(b'{')),
        ];
        for (value, error) in cases {
            assert_eq!(split(value), Err(error), "{value:?}");
        }
    }
}
