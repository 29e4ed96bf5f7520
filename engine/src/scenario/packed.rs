//! Lengths and bytes of a row: a length in as few bytes as it needs, seven bits each, the lowest first (LEB128).

/// Appends a length.
#[allow(clippy::cast_possible_truncation)]
pub(super) fn put(out: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

/// Appends a length and that many bytes.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Reads a length; `row` begins behind it then.
pub(super) fn length(row: &mut &[u8]) -> Result<usize, String> {
    let mut length = 0;
    for shift in (0..usize::BITS).step_by(7) {
        let (byte, rest) = row.split_first().ok_or(CUT_OFF)?;
        *row = rest;
        length |= usize::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Ok(length);
        }
    }
    Err("a length in the row is too long".into())
}

/// Reads a length and that many bytes.
pub(super) fn bytes<'r>(row: &mut &'r [u8]) -> Result<&'r [u8], String> {
    let len = length(row)?;
    let (bytes, rest) = row.split_at_checked(len).ok_or(CUT_OFF)?;
    *row = rest;
    Ok(bytes)
}

/// What is wrong with a row that ends too early.
pub(super) const CUT_OFF: &str = "the row is cut off";
