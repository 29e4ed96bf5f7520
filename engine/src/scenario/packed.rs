//! Numbers and bytes of a row, in as few bytes as they need: seven bits a byte, the lowest first
//! (LEB128), signed ones with the sign in the lowest bit (zigzag), as in Avro and Protocol Buffers.

/// Appends a number.
pub(super) fn put(out: &mut Vec<u8>, number: u64) {
    let mut short = Short::default();
    short.number(number);
    out.extend_from_slice(short.as_slice());
}

/// Appends a length and that many bytes.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Room for six numbers and two bytes. A power of two: places wrap, which costs less than a check.
const SHORT: usize = 64;

/// A few numbers on their way into a row, written in one go: at most six of them and two bytes.
pub(super) struct Short {
    bytes: [u8; SHORT],
    len: usize,
}

impl Default for Short {
    fn default() -> Self {
        Self {
            bytes: [0; SHORT],
            len: 0,
        }
    }
}

impl Short {
    #[inline]
    pub(super) fn byte(&mut self, byte: u8) {
        self.bytes[self.len % SHORT] = byte;
        self.len += 1;
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation)]
    pub(super) fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.byte(number as u8 | 0x80);
            number >>= 7;
        }
        self.byte(number as u8);
    }

    pub(super) fn signed(&mut self, number: i64) {
        self.number((number << 1 ^ number >> 63).cast_unsigned());
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len.min(SHORT)]
    }
}

/// Reads a row.
pub(super) struct Reader<'r>(pub(super) &'r [u8]);

impl<'r> Reader<'r> {
    /// Bytes that are left.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn byte(&mut self) -> Result<u8, String> {
        let (byte, rest) = self.0.split_first().ok_or("the row is cut off")?;
        self.0 = rest;
        Ok(*byte)
    }

    pub(super) fn number(&mut self) -> Result<u64, String> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err("a number of the row is too long".into())
    }

    pub(super) fn signed(&mut self) -> Result<i64, String> {
        let number = self.number()?;
        Ok((number >> 1).cast_signed() ^ -(number & 1).cast_signed())
    }

    /// A number that fits a smaller type.
    pub(super) fn small<T: TryFrom<u64>>(&mut self) -> Result<T, String> {
        let number = self.number()?;
        T::try_from(number).map_err(|_| format!("{number} is too large where the row has it"))
    }

    pub(super) fn length(&mut self) -> Result<usize, String> {
        self.small()
    }

    pub(super) fn bytes(&mut self) -> Result<&'r [u8], String> {
        let len = self.length()?;
        let (bytes, rest) = self.0.split_at_checked(len).ok_or("the row is cut off")?;
        self.0 = rest;
        Ok(bytes)
    }
}
