//! The latest report of each agent of one object, packed: two pieces of memory, however many agents.
//!
//! Reports of one object begin alike: frame, object id. That stem is kept once, and so is the agent's
//! id, which is a part of its report. A report is kept as it was sent all the same: stem and piece
//! together are its bytes.

use super::{Opinion, packed};

/// About how many bytes of the stored form go before a piece.
const HEAD: usize = 12;
/// More than this is no stem.
const LONGEST_STEM: usize = 1_000;
/// What a vote takes in a row beside its piece, at most. Its place in a published state, but for the
/// agent's id, takes less than twice that.
const VOTE_BYTES: usize = 64;
/// Among so many votes, prints are looked through one by one; that is faster than to compare ids.
const FEW: usize = 32;
/// Memory that pieces have outgrown is left alone up to this.
const SMALL: usize = 64;

/// The latest report of one agent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Vote {
    /// When the agent saw it, in ms since 1970.
    pub(super) observed_at_ms: i64,
    /// Its sequence number.
    pub(super) sequence: i64,
    /// What the vote weighs.
    pub(super) weight: u32,
    /// Of the agent's id: see [`print`].
    print: u32,
    /// Where its piece begins, and how long it is.
    at: u32,
    len: u32,
    /// How long the agent's id is, and where in the piece.
    agent_len: u32,
    agent_at: u16,
    /// Bytes behind the piece that it may grow into.
    slack: u16,
    /// The verdict's place among the scenario's.
    pub(super) verdict: u8,
    /// Is it part of the tally, that is, was it fresh when last looked at?
    pub(super) counted: bool,
    /// Does the stem belong before the piece?
    stemmed: bool,
    /// Is the agent's id a part of the report? Otherwise the piece begins with it.
    inside: bool,
}

/// The latest report of each agent, by agent id.
#[derive(Debug, Default)]
pub(super) struct Votes {
    votes: Vec<Vote>,
    /// The stem, then the pieces in any order.
    bytes: Vec<u8>,
    stem: u16,
    /// Bytes that no piece uses.
    unused: usize,
}

impl Vote {
    /// Bytes that a piece may have without being moved.
    fn room(&self) -> usize {
        self.len as usize + usize::from(self.slack)
    }
}

impl Votes {
    /// All, by agent id.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = &Vote> {
        self.votes.iter()
    }

    /// All, to be changed.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Vote> {
        self.votes.iter_mut()
    }

    /// The vote at this place.
    pub(super) fn get(&self, place: usize) -> &Vote {
        &self.votes[place]
    }

    /// Where this agent's vote is, or belongs.
    pub(super) fn find(&self, agent_id: &str) -> Result<usize, usize> {
        let agent = agent_id.as_bytes();
        if self.votes.len() <= FEW {
            let print = print(agent);
            let is_it = |vote: &Vote| vote.print == print && self.agent(vote) == agent;
            if let Some(place) = self.votes.iter().position(is_it) {
                return Ok(place);
            }
        }
        self.votes
            .binary_search_by(|vote| self.agent(vote).cmp(agent))
    }

    /// Who reported.
    pub(super) fn agent(&self, vote: &Vote) -> &[u8] {
        let at = vote.at as usize + usize::from(vote.agent_at);
        &self.bytes[at..at + vote.agent_len as usize]
    }

    /// The report as it was sent, in two parts.
    pub(super) fn report(&self, vote: &Vote) -> (&[u8], &[u8]) {
        let stem = if vote.stemmed {
            &self.bytes[..usize::from(self.stem)]
        } else {
            &[]
        };
        let extra = if vote.inside { 0 } else { vote.agent_len };
        (stem, &self.piece(vote)[extra as usize..])
    }

    fn piece(&self, vote: &Vote) -> &[u8] {
        let at = vote.at as usize;
        &self.bytes[at..at + vote.len as usize]
    }

    /// About how long the stored form is.
    pub(super) fn stored_bytes(&self) -> usize {
        self.bytes.len() - self.unused + self.votes.len() * HEAD
    }

    /// A bit of each line of both pieces of memory, so far as they are short, and of the middle of longer
    /// ones: where a search for an agent begins.
    pub(super) fn glance(&self) -> usize {
        /// Bytes of memory that come together.
        const LINE: usize = 64;
        const LINES: usize = 8;
        let middle = |len: usize, lines: usize| (len / 2).saturating_sub(lines / 2);
        let votes = &self.votes[middle(self.votes.len(), LINES * LINE / size_of::<Vote>())..];
        let votes = votes.chunks(LINE / size_of::<Vote>()).take(LINES);
        let bytes = &self.bytes[middle(self.bytes.len(), LINES * LINE)..];
        let bytes = bytes.chunks(LINE).take(LINES);
        let votes: usize = votes.map(|votes| usize::from(votes[0].verdict)).sum();
        bytes.fold(votes, |sum, bytes| sum + usize::from(bytes[0]))
    }

    /// Memory it takes beside itself.
    pub(super) fn heap_bytes(&self) -> usize {
        self.votes.capacity() * size_of::<Vote>() + self.bytes.capacity()
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
        let added = agent_id.len() + report.len() + VOTE_BYTES;
        // Hardly ever is it necessary to look at every vote.
        if self.bytes.len() + self.votes.len() * VOTE_BYTES + added <= limit {
            return true;
        }
        let size = |vote: &Vote| vote.len as usize + VOTE_BYTES;
        let all: usize = self.votes.iter().map(size).sum();
        let old = place.map_or(0, |at| size(&self.votes[at]));
        usize::from(self.stem) + all - old + added <= limit
    }

    /// Makes this report its agent's latest; `place` is what [`Self::find`] said. Returns the vote
    /// that was there before.
    pub(super) fn put<V>(
        &mut self,
        place: Result<usize, usize>,
        opinion: &Opinion<'_, V>,
        verdict: u8,
        counted: bool,
        report: &[u8],
    ) -> Option<Vote> {
        let agent = opinion.agent_id.as_bytes();
        let agent_at = within(report, agent);
        if self.votes.is_empty() {
            self.bytes.clear();
            self.unused = 0;
            self.set_stem(agent_at.map_or(&[], |at| &report[..at]));
        }
        let stem = &self.bytes[..usize::from(self.stem)];
        let stemmed = agent_at.is_some_and(|at| at >= stem.len()) && report.starts_with(stem);
        let rest = if stemmed {
            &report[stem.len()..]
        } else {
            report
        };
        let agent_at = agent_at.map(|at| at - (report.len() - rest.len()));
        let agent_at = agent_at.and_then(|at| u16::try_from(at).ok());
        let vote = Vote {
            observed_at_ms: opinion.observed_at_ms,
            sequence: opinion.sequence,
            weight: opinion.weight,
            print: print(agent),
            at: 0,
            len: 0,
            agent_len: short(agent.len()),
            agent_at: agent_at.unwrap_or(0),
            slack: 0,
            verdict,
            counted,
            stemmed,
            inside: agent_at.is_some(),
        };
        let extra: &[u8] = if vote.inside { &[] } else { agent };
        self.place(place, vote, [extra, rest])
    }

    fn set_stem(&mut self, stem: &[u8]) {
        let stem = if stem.len() > LONGEST_STEM { &[] } else { stem };
        self.bytes.extend_from_slice(stem);
        self.stem = u16::try_from(stem.len()).unwrap_or(0);
    }

    /// Writes a piece where the last one was, if there is room, or at the end.
    fn place(
        &mut self,
        place: Result<usize, usize>,
        mut vote: Vote,
        piece: [&[u8]; 2],
    ) -> Option<Vote> {
        let len = piece[0].len() + piece[1].len();
        let old = place.ok().map(|at| self.votes[at]);
        vote.len = short(len);
        match &old {
            Some(old) if len <= old.room() => {
                vote.at = old.at;
                let left = old.room() - len;
                vote.slack = u16::try_from(left).unwrap_or(u16::MAX);
                self.unused += left - usize::from(vote.slack);
                let at = old.at as usize;
                let (first, second) = self.bytes[at..at + len].split_at_mut(piece[0].len());
                first.copy_from_slice(piece[0]);
                second.copy_from_slice(piece[1]);
            }
            _ => {
                self.unused += old.as_ref().map_or(0, Vote::room);
                vote.at = short(self.bytes.len());
                reserve(&mut self.bytes, len);
                self.bytes.extend_from_slice(piece[0]);
                self.bytes.extend_from_slice(piece[1]);
            }
        }
        match place {
            Ok(at) => self.votes[at] = vote,
            Err(at) => {
                reserve(&mut self.votes, 1);
                self.votes.insert(at, vote);
            }
        }
        if self.unused > SMALL && self.unused > self.bytes.len() / 2 {
            self.compact();
        }
        old
    }

    /// Moves the pieces together.
    fn compact(&mut self) {
        let mut bytes = Vec::with_capacity(self.bytes.len());
        bytes.extend_from_slice(&self.bytes[..usize::from(self.stem)]);
        for vote in &mut self.votes {
            let (at, len) = (vote.at as usize, vote.len as usize);
            (vote.at, vote.slack) = (short(bytes.len()), 0);
            bytes.extend_from_slice(&self.bytes[at..at + len]);
        }
        self.bytes = bytes;
        self.unused = 0;
    }

    /// Appends the stored form: the stem, the number of votes, then for each its flags and verdict,
    /// time (as the difference to the one before), sequence, weight unless 1, and its piece.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        let stem = &self.bytes[..usize::from(self.stem)];
        packed::put_bytes(out, stem);
        packed::put(out, self.votes.len() as u64);
        out.reserve(self.bytes.len() + self.votes.len() * 12);
        let mut before_ms = 0;
        for vote in &self.votes {
            let mut head = packed::Short::default();
            head.byte(
                u8::from(vote.counted)
                    | u8::from(vote.stemmed) << 1
                    | u8::from(vote.inside) << 2
                    | u8::from(vote.weight != 1) << 3,
            );
            head.byte(vote.verdict);
            head.signed(vote.observed_at_ms.wrapping_sub(before_ms));
            before_ms = vote.observed_at_ms;
            head.signed(vote.sequence);
            if vote.weight != 1 {
                head.number(vote.weight.into());
            }
            if vote.inside {
                head.number(vote.agent_at.into());
            }
            head.number(vote.agent_len.into());
            head.number(vote.len.into());
            out.extend_from_slice(head.as_slice());
            out.extend_from_slice(self.piece(vote));
        }
    }

    /// Reads the stored form.
    pub(super) fn decode(row: &mut packed::Reader<'_>) -> Result<Self, String> {
        let stem = row.bytes()?;
        let mut votes = Self {
            bytes: Vec::with_capacity(stem.len() + row.len()),
            ..Self::default()
        };
        votes.set_stem(stem);
        let count = row.length()?;
        votes.votes.reserve(count.min(row.len()));
        let mut before_ms = 0_i64;
        for _ in 0..count {
            let flags = row.byte()?;
            let verdict = row.byte()?;
            before_ms = before_ms.wrapping_add(row.signed()?);
            let sequence = row.signed()?;
            let weight = if flags & 8 == 0 { 1 } else { row.small()? };
            let inside = flags & 4 != 0;
            let agent_at: u16 = if inside { row.small()? } else { 0 };
            let agent_len: u32 = row.small()?;
            let piece = row.bytes()?;
            let agent = piece.get(agent_at.into()..usize::from(agent_at) + agent_len as usize);
            let Some(agent) = agent.filter(|agent| std::str::from_utf8(agent).is_ok()) else {
                return Err("an agent's id is not within its report, or not UTF-8".into());
            };
            let at = short(votes.bytes.len());
            votes.bytes.extend_from_slice(piece);
            votes.votes.push(Vote {
                observed_at_ms: before_ms,
                sequence,
                weight,
                print: print(agent),
                at,
                len: short(piece.len()),
                agent_len,
                agent_at,
                slack: 0,
                verdict,
                counted: flags & 1 != 0,
                stemmed: flags & 2 != 0,
                inside,
            });
        }
        Ok(votes)
    }
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

/// Room for `more`, and for a quarter beside: a cache of many objects has more use for the memory than a
/// vector that may grow no further.
fn reserve<T>(vec: &mut Vec<T>, more: usize) {
    if vec.capacity() - vec.len() < more {
        vec.reserve_exact(more.max(vec.len() / 4));
    }
}

/// Where in `whole` these bytes are. Nearly always they are borrowed from it, and no search is needed.
fn within(whole: &[u8], part: &[u8]) -> Option<usize> {
    let at = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
    let is_at = |at: usize| whole.get(at..)?.starts_with(part).then_some(at);
    is_at(at).or_else(|| (0..whole.len()).find_map(is_at))
}

/// Positions fit into 32 bits: an epoch takes in 64 MiB at most, and no broker takes a row of 4 GiB.
fn short(position: usize) -> u32 {
    u32::try_from(position).expect("an object is far smaller than 4 GiB")
}

#[cfg(test)]
mod tests;
