//! Keys, each with its value behind it, one record behind the other in pieces of memory.

use std::mem;

use super::Row;
use crate::places::short;

/// Records lie in pieces of this size: one that grew would be copied, and be there twice meanwhile.
const PIECE: usize = GRAINS as usize * GRAIN;
/// Records begin at multiples of this.
const GRAIN: usize = 8;
const GRAINS: u32 = 32 << 10;
/// The length of a value that is none.
const NONE: u32 = u32::MAX;
/// Where keys end mostly.
const KEY_ENDS: usize = 40;

/// Records in pieces of memory.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// Of these the last is being filled.
    pieces: Vec<Vec<u8>>,
    empty: Vec<Vec<u8>>,
    /// Bytes of all records.
    used: usize,
    /// Memory of all pieces.
    bytes: usize,
}

/// Where a record is; those that came later are at higher places.
#[derive(Debug, Clone, Copy)]
pub(super) struct At(pub(super) u32);

impl At {
    fn piece(self) -> usize {
        (self.0 / GRAINS) as usize
    }

    fn start(self) -> usize {
        (self.0 % GRAINS) as usize * GRAIN
    }
}

/// What comes before a key.
#[derive(Clone, Copy)]
struct Head {
    key_len: u32,
    value_len: u32,
}

impl Head {
    const BYTES: usize = 2 * size_of::<u32>();

    fn bytes(self) -> [u8; Self::BYTES] {
        let number = (u64::from(self.value_len) << u32::BITS) | u64::from(self.key_len);
        number.to_le_bytes()
    }

    fn read(record: &[u8]) -> Self {
        let number = |place: usize| {
            let bytes = record[place * size_of::<u32>()..].first_chunk();
            u32::from_le_bytes(*bytes.expect("a head"))
        };
        Self {
            key_len: number(0),
            value_len: number(1),
        }
    }

    /// Bytes from here to the next record.
    fn room(self) -> usize {
        let value_len = match self.value_len {
            NONE => 0,
            len => len as usize,
        };
        (Self::BYTES + self.key_len as usize + value_len).next_multiple_of(GRAIN)
    }
}

impl Records {
    /// Adds a record.
    pub(super) fn add(&mut self, key: &[u8], value: Option<&[u8]>) -> At {
        let head = Head {
            key_len: short(key.len()),
            value_len: value.map_or(NONE, |value| short(value.len())),
        };
        let room = head.room();
        let fits = |piece: &Vec<u8>| piece.len() + room <= PIECE;
        if !self.pieces.last().is_some_and(fits) {
            self.begin_piece(room);
        }
        self.used += room;
        let number = self.pieces.len() - 1;
        let piece = &mut self.pieces[number];
        let at = At(short(number * GRAINS as usize + piece.len() / GRAIN));
        let end = piece.len() + room;
        piece.extend_from_slice(&head.bytes());
        piece.extend_from_slice(key);
        piece.extend_from_slice(value.unwrap_or_default());
        piece.resize(end, 0);
        at
    }

    /// Begins a piece with so much room: a record that is larger than pieces are has one of its own.
    fn begin_piece(&mut self, room: usize) {
        let empty = self.empty.pop_if(|_| room <= PIECE);
        let piece = empty.unwrap_or_else(|| {
            let piece = Vec::with_capacity(PIECE.max(room));
            self.bytes += piece.capacity();
            piece
        });
        self.pieces.push(piece);
    }

    /// How many bytes a record takes, if this is the one after it. It is not looked at.
    pub(super) fn size(&self, at: At, next: Option<At>) -> usize {
        let in_same = next.filter(|next| next.piece() == at.piece());
        let end = in_same.map_or_else(|| self.pieces[at.piece()].len(), At::start);
        end - at.start()
    }

    /// Key and value.
    pub(super) fn get(&self, at: At) -> Row<'_> {
        row(self.from(at)).0
    }

    /// Looks at the key, without knowing where it ends: it is near then.
    pub(super) fn glance(&self, at: At) -> usize {
        let record = self.from(at);
        let end = record.get(KEY_ENDS).copied().unwrap_or_default();
        usize::from(record[0]) + usize::from(end)
    }

    /// The bytes of a record, and what is behind.
    fn from(&self, at: At) -> &[u8] {
        &self.pieces[at.piece()][at.start()..]
    }

    /// Gives all rows, in the order in which they came, and each piece back when it is read.
    pub(super) fn into_each(self, mut each: impl FnMut(&[u8], Option<&[u8]>)) {
        drop(self.empty);
        for piece in self.pieces {
            let mut rest = &piece[..];
            while !rest.is_empty() {
                let ((key, value), behind) = row(rest);
                each(key, value);
                rest = behind;
            }
        }
    }

    /// Forgets all, and keeps the memory but for that of records that were larger than pieces are.
    pub(super) fn clear(&mut self) {
        self.empty.extend(mem::take(&mut self.pieces));
        self.empty.retain(|piece| piece.capacity() == PIECE);
        self.empty.iter_mut().for_each(Vec::clear);
        self.used = 0;
        self.bytes = self.empty.len() * PIECE;
    }

    /// Gives back the memory of pieces that hold nothing.
    pub(super) fn shrink(&mut self) {
        let empty = mem::take(&mut self.empty);
        self.bytes -= empty.iter().map(Vec::capacity).sum::<usize>();
    }

    /// Bytes of all records.
    pub(super) fn used(&self) -> usize {
        self.used
    }

    /// Memory that they take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The record at the beginning of these bytes, and what is behind.
fn row(bytes: &[u8]) -> (Row<'_>, &[u8]) {
    let head = Head::read(bytes);
    let (record, behind) = bytes.split_at(head.room());
    let (key, rest) = record[Head::BYTES..].split_at(head.key_len as usize);
    let value = (head.value_len != NONE).then(|| &rest[..head.value_len as usize]);
    ((key, value), behind)
}
