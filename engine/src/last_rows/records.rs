//! Keys, each with its value behind it, in pieces of memory that are given back all together.

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::places::short;

/// Records lie in pieces of this size: one that grew would be copied, and be there twice meanwhile.
const PIECE: usize = GRAINS as usize * GRAIN;
/// Records begin at multiples of this, and have room in multiples: where one was whose value has become longer, others
/// will fit.
const GRAIN: usize = 32;
const GRAINS: u32 = 8 << 10;
/// The length of a value that is none.
const NONE: u32 = u32::MAX;

/// Records in pieces of memory.
#[derive(Debug, Default)]
pub(super) struct Records {
    pieces: Vec<Vec<u8>>,
    /// The piece that is being filled: those behind it are empty.
    filling: usize,
    /// Where records were, by the room that is there.
    free: HashMap<u32, Vec<At>, RandomState>,
    /// How many of them.
    freed: usize,
    /// Memory of all pieces.
    bytes: usize,
}

/// Where a record is.
#[derive(Debug, Clone, Copy)]
pub(super) struct At(pub(super) u32);

/// What comes before a key.
struct Head {
    row: u32,
    key_len: u32,
    value_len: u32,
    /// Bytes from here to the next record.
    room: u32,
}

impl Head {
    const BYTES: usize = 4 * size_of::<u32>();

    fn write(&self, out: &mut [u8]) {
        let numbers = [self.row, self.key_len, self.value_len, self.room];
        for (number, bytes) in numbers.iter().zip(out.chunks_exact_mut(4)) {
            bytes.copy_from_slice(&number.to_le_bytes());
        }
    }

    fn read(bytes: &[u8]) -> Self {
        let number = |place: usize| {
            let bytes = bytes[place * 4..].first_chunk();
            u32::from_le_bytes(*bytes.expect("a head"))
        };
        Self {
            row: number(0),
            key_len: number(1),
            value_len: number(2),
            room: number(3),
        }
    }

    fn value_at(&self) -> usize {
        Self::BYTES + self.key_len as usize
    }
}

impl Records {
    /// Adds the record of a row.
    pub(super) fn add(&mut self, row: u32, key: &[u8], value: Option<&[u8]>) -> At {
        let len = Head::BYTES + key.len() + value.map_or(0, <[u8]>::len);
        let head = Head {
            row,
            key_len: short(key.len()),
            value_len: value.map_or(NONE, |value| short(value.len())),
            room: short(len.next_multiple_of(GRAIN)),
        };
        let mut bytes = [0; Head::BYTES];
        head.write(&mut bytes);
        let parts = [&bytes, key, value.unwrap_or_default()];
        let Some(at) = self.free.get_mut(&head.room).and_then(Vec::pop) else {
            return self.append(parts, head.room as usize);
        };
        self.freed -= 1;
        let mut to = self.record_mut(at);
        for part in parts {
            let (here, behind) = to.split_at_mut(part.len());
            here.copy_from_slice(part);
            to = behind;
        }
        at
    }

    /// Puts a value in place of that of a record, if there is room for it.
    pub(super) fn replace(&mut self, at: At, value: Option<&[u8]>) -> bool {
        let record = self.record_mut(at);
        let mut head = Head::read(record);
        if let Some(value) = value {
            if head.value_at() + value.len() > head.room as usize {
                return false;
            }
            record[head.value_at()..][..value.len()].copy_from_slice(value);
        }
        head.value_len = value.map_or(NONE, |value| short(value.len()));
        head.write(record);
        true
    }

    /// Removes a record: another will have its room.
    pub(super) fn remove(&mut self, at: At) {
        let room = Head::read(self.from(at)).room;
        self.free.entry(room).or_default().push(at);
        self.freed += 1;
    }

    /// The row that a record is of.
    pub(super) fn row(&self, at: At) -> u32 {
        Head::read(self.from(at)).row
    }

    pub(super) fn key(&self, at: At) -> &[u8] {
        self.get(at).0
    }

    /// Key and value.
    pub(super) fn get(&self, at: At) -> (&[u8], Option<&[u8]>) {
        let record = self.from(at);
        let head = Head::read(record);
        let (key, rest) = record[Head::BYTES..].split_at(head.key_len as usize);
        let value = (head.value_len != NONE).then(|| &rest[..head.value_len as usize]);
        (key, value)
    }

    /// The bytes of a record, and what is behind.
    fn from(&self, at: At) -> &[u8] {
        &self.pieces[(at.0 / GRAINS) as usize][(at.0 % GRAINS) as usize * GRAIN..]
    }

    fn record_mut(&mut self, at: At) -> &mut [u8] {
        &mut self.pieces[(at.0 / GRAINS) as usize][(at.0 % GRAINS) as usize * GRAIN..]
    }

    /// Adds a record where nothing was.
    fn append(&mut self, parts: [&[u8]; 3], room: usize) -> At {
        let fits = |piece: &Vec<u8>| piece.len() < PIECE && piece.capacity() - piece.len() >= room;
        if !self.pieces.get(self.filling).is_some_and(fits) {
            self.fill_next(room);
        }
        let piece = &mut self.pieces[self.filling];
        let start = piece.len();
        for part in parts {
            piece.extend_from_slice(part);
        }
        piece.resize(start + room, 0);
        At(short(self.filling) * GRAINS + short(start / GRAIN))
    }

    /// Begins an empty piece with so much room.
    fn fill_next(&mut self, room: usize) {
        let next = self.pieces.len().min(self.filling + 1);
        let spare = self.pieces.get(next);
        if spare.is_none_or(|piece| piece.capacity() < room) {
            let piece = Vec::with_capacity(PIECE.max(room));
            self.bytes += piece.capacity();
            self.pieces.push(piece);
            let last = self.pieces.len() - 1;
            self.pieces.swap(next, last);
        }
        self.filling = next;
    }

    /// None, in the memory of these.
    pub(super) fn emptied(mut self) -> Self {
        self.pieces.iter_mut().for_each(Vec::clear);
        self.filling = 0;
        self.free.clear();
        self.freed = 0;
        self
    }

    /// Memory that they take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes + self.freed * size_of::<At>()
    }
}
