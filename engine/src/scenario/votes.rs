//! The latest report of each agent of one object, packed: two pieces of memory, however many agents.
//!
//! One piece is what the row has: the votes by agent id, each a few numbers and its report. The other says
//! where each vote begins. Reports of one object begin alike: frame, object id. That stem is kept once, and
//! so is the agent's id, which is a part of its report. A report is kept as it was sent all the same: stem
//! and rest together are its bytes.

use smallvec::SmallVec;

use head::{COUNTED, Head, LONGEST};

use super::{Opinion, packed};

mod head;

/// More than this is no stem.
const LONGEST_STEM: usize = 1_000;
/// What a vote takes in a row beside its report and the agent's id, at most. Its place in a published state,
/// but for the agent's id, takes less than twice that.
const VOTE_BYTES: usize = 64;
/// Among so many votes, prints are looked through one by one; that is faster than to compare ids.
const FEW: usize = 32;

/// Why a vote in memory can be read.
const OURS: &str = "a vote that was written here, or read before";

/// The latest report of one agent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Vote<'v> {
    /// Who reported.
    pub(super) agent: &'v [u8],
    /// When the agent saw it, in ms since 1970.
    pub(super) observed_at_ms: i64,
    /// Its sequence number.
    pub(super) sequence: i64,
    /// The verdict's place among the scenario's.
    pub(super) verdict: u8,
    /// What the vote weighs.
    pub(super) weight: u32,
    /// Is it part of the tally, that is, was it fresh when last looked at?
    pub(super) counted: bool,
    /// The report as it was sent, in two parts.
    pub(super) report: [&'v [u8]; 2],
}

impl Vote<'_> {
    /// What it adds to the tally, if it is part of it.
    pub(super) fn ballot(&self) -> Option<Ballot> {
        self.counted.then_some(Ballot {
            verdict: self.verdict,
            weight: self.weight,
        })
    }
}

/// What a vote adds to a tally.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ballot {
    /// The verdict's place among the scenario's.
    pub(super) verdict: u8,
    /// What the vote weighs.
    pub(super) weight: u32,
}

/// Where a vote begins, and a [`print`] of its agent's id.
#[derive(Debug, Clone, Copy)]
struct Spot {
    at: u32,
    print: u32,
}

/// The latest report of each agent, by agent id.
#[derive(Debug, Default)]
pub(super) struct Votes {
    /// Two at most need no memory beside.
    spots: SmallVec<[Spot; 2]>,
    /// The stem, then the votes.
    bytes: Vec<u8>,
    stem: u16,
}

impl Votes {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.spots.len()
    }

    /// All, by agent id.
    pub(super) fn iter(&self) -> impl Iterator<Item = Vote<'_>> {
        let stem = self.stem();
        let mut votes = &self.bytes[stem.len()..];
        self.spots.iter().map(move |_| known(&mut votes, stem))
    }

    /// The vote at this place.
    pub(super) fn get(&self, place: usize) -> Vote<'_> {
        let at = self.spots[place].at as usize;
        known(&mut &self.bytes[at..], self.stem())
    }

    /// The vote at this place is no part of the tally any more.
    pub(super) fn uncount(&mut self, place: usize) {
        self.bytes[self.spots[place].at as usize] &= !COUNTED;
    }

    /// Where this agent's vote is, or belongs.
    pub(super) fn find(&self, agent_id: &str) -> Result<usize, usize> {
        let agent = agent_id.as_bytes();
        if self.spots.len() <= FEW {
            let print = print(agent);
            let is_it = |spot: &Spot| spot.print == print && self.agent_at(spot) == agent;
            if let Some(place) = self.spots.iter().position(is_it) {
                return Ok(place);
            }
        }
        let order = |spot: &Spot| self.agent_at(spot).cmp(agent);
        self.spots.binary_search_by(order)
    }

    fn agent_at(&self, spot: &Spot) -> &[u8] {
        head::agent(&self.bytes[spot.at as usize..]).expect(OURS)
    }

    fn stem(&self) -> &[u8] {
        &self.bytes[..self.stem.into()]
    }

    /// About how long the stored form is.
    pub(super) fn stored_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// A bit of each line of both pieces of memory, so far as they are short, and of the middle of longer
    /// ones: where a search for an agent begins.
    pub(super) fn glance(&self) -> usize {
        /// Bytes of memory that come together.
        const LINE: usize = 64;
        const LINES: usize = 8;
        const SPOTS: usize = LINE / size_of::<Spot>();
        let middle = |len: usize, lines: usize| (len / 2).saturating_sub(lines / 2);
        let spots = &self.spots[middle(self.spots.len(), LINES * SPOTS)..];
        let spots = spots.chunks(SPOTS).take(LINES);
        let bytes = &self.bytes[middle(self.bytes.len(), LINES * LINE)..];
        let bytes = bytes.chunks(LINE).take(LINES);
        let spots: usize = spots.map(|spots| spots[0].at as usize).sum();
        bytes.fold(spots, |sum, bytes| sum + usize::from(bytes[0]))
    }

    /// Memory it takes beside itself.
    pub(super) fn heap_bytes(&self) -> usize {
        let spots = match self.spots.spilled() {
            true => self.spots.capacity() * size_of::<Spot>(),
            false => 0,
        };
        spots + self.bytes.capacity()
    }

    /// Would all votes take up to `limit` bytes of a row, with this report at this place? They may be
    /// taken for somewhat larger than they are, and always for the same.
    pub(super) fn has_room(
        &self,
        place: Result<usize, usize>,
        agent_id: &str,
        report: &[u8],
        limit: usize,
    ) -> bool {
        let all = self.bytes.len() + self.spots.len() * VOTE_BYTES;
        let old = place.map_or(0, |at| self.len_of(at) + VOTE_BYTES);
        all - old + agent_id.len() + report.len() + VOTE_BYTES <= limit
    }

    /// Where the vote at this place begins, or the end.
    fn start_of(&self, place: usize) -> usize {
        let spot = self.spots.get(place);
        spot.map_or(self.bytes.len(), |spot| spot.at as usize)
    }

    fn len_of(&self, place: usize) -> usize {
        self.start_of(place + 1) - self.start_of(place)
    }

    /// Makes this report its agent's latest; `place` is what [`Self::find`] said.
    pub(super) fn put<V>(
        &mut self,
        place: Result<usize, usize>,
        opinion: &Opinion<'_, V>,
        verdict: u8,
        counted: bool,
        report: &[u8],
    ) {
        let agent = opinion.agent_id.as_bytes();
        let agent_at = within(report, agent);
        let is_first = self.spots.is_empty();
        let stem = match is_first {
            true => agent_at.map_or(&[][..], |at| &report[..at]),
            false => self.stem(),
        };
        let stem = if stem.len() > LONGEST_STEM { &[] } else { stem };
        let stemmed = agent_at.is_some_and(|at| at >= stem.len()) && report.starts_with(stem);
        let rest = match stemmed {
            true => &report[stem.len()..],
            false => report,
        };
        let inside = agent_at.is_some();
        let before = if inside { &[] } else { agent };
        let head = Head {
            observed_at_ms: opinion.observed_at_ms,
            sequence: opinion.sequence,
            weight: opinion.weight,
            verdict,
            counted,
            stemmed,
            inside,
            agent_at: agent_at.map_or(0, |at| short(at - (report.len() - rest.len()))),
            agent_len: short(agent.len()),
            len: short(before.len() + rest.len()),
        };
        let mut bytes = [0; LONGEST];
        let head_len = head.write(&mut bytes);
        let parts = [&bytes[..head_len], before, rest];
        let len = parts.map(<[u8]>::len).iter().sum();
        if is_first {
            let mut bytes = Vec::with_capacity(stem.len() + len);
            bytes.extend_from_slice(stem);
            self.stem = u16::try_from(stem.len()).unwrap_or(0);
            self.bytes = bytes;
        }
        let at = self.make_room(place, len);
        let mut to = &mut self.bytes[at..];
        for part in parts {
            let (here, behind) = to.split_at_mut(part.len());
            here.copy_from_slice(part);
            to = behind;
        }
        if let Err(place) = place {
            if self.spots.len() == self.spots.capacity() {
                self.spots.reserve_exact(room_for(1, self.spots.len()));
            }
            let (at, print) = (short(at), print(agent));
            self.spots.insert(place, Spot { at, print });
        }
    }

    /// Moves the votes behind this place until there are `len` bytes for it; returns where.
    fn make_room(&mut self, place: Result<usize, usize>, len: usize) -> usize {
        let (at, old_len, next) = match place {
            Ok(place) => (self.start_of(place), self.len_of(place), place + 1),
            Err(place) => (self.start_of(place), 0, place),
        };
        if len == old_len {
            return at;
        }
        let end = self.bytes.len();
        if len > old_len {
            let more = len - old_len;
            if self.bytes.capacity() - end < more {
                self.bytes.reserve_exact(room_for(more, end));
            }
            self.bytes.resize(end + len - old_len, 0);
        }
        self.bytes.copy_within(at + old_len..end, at + len);
        self.bytes.truncate(end + len - old_len);
        for spot in &mut self.spots[next..] {
            spot.at = short(spot.at as usize + len - old_len);
        }
        at
    }

    /// Appends the stored form: the stem, the number of votes, then for each its [`Head`] and piece: the
    /// agent's id if it is no part of the report, and the report, without the stem if it begins with it.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let (stem, votes) = self.bytes.split_at(self.stem.into());
        packed::put_bytes(out, stem);
        packed::put(out, self.spots.len());
        out.extend_from_slice(votes);
    }

    /// Reads the stored form, which is the rest of a row.
    pub(super) fn decode(mut row: &[u8]) -> Result<Self, String> {
        let stem = packed::bytes(&mut row)?;
        if stem.len() > LONGEST_STEM {
            return Err("the stem is too long".into());
        }
        let count = packed::length(&mut row)?;
        let mut bytes = Vec::with_capacity(stem.len() + row.len());
        bytes.extend_from_slice(stem);
        bytes.extend_from_slice(row);
        let mut spots = SmallVec::with_capacity(count.min(row.len()));
        let mut last: Option<&[u8]> = None;
        for _ in 0..count {
            let at = short(bytes.len() - row.len());
            let agent = read(&mut row, stem).ok_or(packed::CUT_OFF)?.agent;
            if std::str::from_utf8(agent).is_err() {
                return Err("an agent's id is not UTF-8".into());
            }
            if last.replace(agent).is_some_and(|last| last >= agent) {
                return Err("votes are not in the order of their agents".into());
            }
            let print = print(agent);
            spots.push(Spot { at, print });
        }
        match row.len() {
            0 => Ok(Self {
                spots,
                bytes,
                stem: u16::try_from(stem.len()).unwrap_or(0),
            }),
            left => Err(format!("{left} bytes are left over")),
        }
    }
}

/// Reads a vote that is in memory; `votes` begins behind it then.
fn known<'v>(votes: &mut &'v [u8], stem: &'v [u8]) -> Vote<'v> {
    read(votes, stem).expect(OURS)
}

fn read<'v>(votes: &mut &'v [u8], stem: &'v [u8]) -> Option<Vote<'v>> {
    let (head, at) = Head::read(votes)?;
    let (piece, behind) = votes[at..].split_at_checked(head.len as usize)?;
    *votes = behind;
    let (agent_at, agent_len) = (head.agent_at as usize, head.agent_len as usize);
    let agent = piece.get(agent_at..)?.get(..agent_len)?;
    let stem = if head.stemmed { stem } else { &[] };
    let rest = if head.inside {
        piece
    } else {
        &piece[agent_len..]
    };
    Some(Vote {
        agent,
        observed_at_ms: head.observed_at_ms,
        sequence: head.sequence,
        verdict: head.verdict,
        weight: head.weight,
        counted: head.counted,
        report: [stem, rest],
    })
}

/// A number made of an agent's id, of its end above all: ids begin alike. Only held, never stored.
fn print(agent: &[u8]) -> u32 {
    let end = match agent.last_chunk::<8>() {
        Some(end) => u64::from_le_bytes(*end),
        None => agent
            .iter()
            .fold(0, |end, byte| end << 8 | u64::from(*byte)),
    };
    let mixed = (end ^ agent.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as u32
}

/// Room for `more`, and for a quarter beside: a cache of many objects has more use for the memory than one that may grow
/// no further.
fn room_for(more: usize, len: usize) -> usize {
    more.max(len / 4)
}

/// Where in `whole` these bytes are. Nearly always they are borrowed from it, and no search is needed.
fn within(whole: &[u8], part: &[u8]) -> Option<usize> {
    let at = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
    if at.saturating_add(part.len()) <= whole.len() {
        return Some(at);
    }
    (0..whole.len()).find(|at| whole[*at..].starts_with(part))
}

/// Positions fit into 32 bits: an epoch takes in 64 MiB at most, and no broker takes a row of 4 GiB.
fn short(position: usize) -> u32 {
    u32::try_from(position).expect("an object is far smaller than 4 GiB")
}

#[cfg(test)]
mod tests;
