//! What comes before a report in a row: the numbers of a vote, in a form that is read in a few steps.
//!
//! Flags, the verdict, and how many bytes time and sequence have (four bits each); then where the agent's id
//! is, its length and that of the piece, in a byte each or, if one of them is larger, in four; the weight in
//! four bytes unless it is 1; time and sequence in as few bytes as they need. Lowest byte first.

/// The vote is part of the tally.
pub(super) const COUNTED: u8 = 1;
const STEMMED: u8 = 1 << 1;
const INSIDE: u8 = 1 << 2;
const WEIGHTED: u8 = 1 << 3;
const LONG: u8 = 1 << 4;
/// Flags, verdict, lengths of numbers.
const FIXED: usize = 3;
/// No head is longer.
pub(super) const LONGEST: usize = FIXED + 3 * 4 + 4 + 2 * 8;

/// The numbers of a vote, and how to read the piece that follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) observed_at_ms: i64,
    pub(super) sequence: i64,
    pub(super) weight: u32,
    pub(super) verdict: u8,
    pub(super) counted: bool,
    /// Does the stem belong before the piece?
    pub(super) stemmed: bool,
    /// Is the agent's id a part of the report? Otherwise the piece begins with it.
    pub(super) inside: bool,
    /// Where the agent's id is in the piece.
    pub(super) agent_at: u32,
    pub(super) agent_len: u32,
    /// How long the piece is.
    pub(super) len: u32,
}

impl Head {
    /// Writes it to the front of `out`; returns how long it is.
    pub(super) fn write(&self, out: &mut [u8; LONGEST]) -> usize {
        let numbers = [self.agent_at, self.agent_len, self.len];
        let (time_len, sequence_len) = (needs(self.observed_at_ms), needs(self.sequence));
        let flag = |is: bool, flag: u8| if is { flag } else { 0 };
        let long = numbers.iter().any(|number| *number > u8::MAX.into());
        out[0] = flag(self.counted, COUNTED)
            | flag(self.stemmed, STEMMED)
            | flag(self.inside, INSIDE)
            | flag(self.weight != 1, WEIGHTED)
            | flag(long, LONG);
        out[1] = self.verdict;
        out[2] = time_len | sequence_len << 4;
        let mut at = FIXED;
        let size = if long { 4 } else { 1 };
        for number in numbers {
            out[at..at + 4].copy_from_slice(&number.to_le_bytes());
            at += size;
        }
        if self.weight != 1 {
            out[at..at + 4].copy_from_slice(&self.weight.to_le_bytes());
            at += 4;
        }
        for (number, len) in [
            (self.observed_at_ms, time_len),
            (self.sequence, sequence_len),
        ] {
            out[at..at + 8].copy_from_slice(&number.to_le_bytes());
            at += usize::from(len);
        }
        at
    }

    /// Reads it from the front of `bytes`; says how long it is.
    pub(super) fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let [flags, verdict, lens] = *bytes.first_chunk::<FIXED>()?;
        let has = |flag: u8| flags & flag != 0;
        let (mut at, numbers) = match has(LONG) {
            false => {
                let short = bytes.get(FIXED..)?.first_chunk::<3>()?;
                (FIXED + 3, short.map(u32::from))
            }
            true => {
                let long = bytes.get(FIXED..)?.first_chunk::<12>()?;
                let number = |i: usize| u32::from_le_bytes([0, 1, 2, 3].map(|j| long[4 * i + j]));
                (FIXED + 12, [number(0), number(1), number(2)])
            }
        };
        let [agent_at, agent_len, len] = numbers;
        let mut weight = 1;
        if has(WEIGHTED) {
            weight = u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?);
            at += 4;
        }
        let mut signed = |len: u8| {
            let number = signed(bytes.get(at..)?, len)?;
            at += usize::from(len);
            Some(number)
        };
        let (observed_at_ms, sequence) = (signed(lens & 15)?, signed(lens >> 4)?);
        let head = Self {
            observed_at_ms,
            sequence,
            weight,
            verdict,
            counted: has(COUNTED),
            stemmed: has(STEMMED),
            inside: has(INSIDE),
            agent_at,
            agent_len,
            len,
        };
        Some((head, at))
    }
}

/// The agent's id in a vote, without a look at what is not needed for that.
pub(super) fn agent(vote: &[u8]) -> Option<&[u8]> {
    let [flags, _, lens, agent_at, agent_len, _] = *vote.first_chunk::<6>()?;
    if flags & (LONG | WEIGHTED) != 0 {
        let (head, at) = Head::read(vote)?;
        let piece = vote.get(at..)?;
        return piece
            .get(head.agent_at as usize..)?
            .get(..head.agent_len as usize);
    }
    let piece_at = 6 + usize::from(lens & 15) + usize::from(lens >> 4);
    let at = piece_at + usize::from(agent_at);
    vote.get(at..at + usize::from(agent_len))
}

/// How many bytes the number needs, with its sign.
#[allow(clippy::cast_possible_truncation)]
fn needs(number: i64) -> u8 {
    let bits = 65 - (number ^ number >> 63).leading_zeros();
    bits.div_ceil(8) as u8
}

/// A number of so many bytes, with its sign.
fn signed(bytes: &[u8], len: u8) -> Option<i64> {
    let all = match bytes.first_chunk::<8>() {
        Some(all) => *all,
        // The end of the row.
        None => {
            let mut all = [0; 8];
            let (here, there) = (bytes.get(..usize::from(len))?, all.get_mut(..len.into())?);
            there.copy_from_slice(here);
            all
        }
    };
    let unused = 64_u32.checked_sub(u32::from(len) * 8)?;
    // Nothing is shifted by all of its bits.
    let number = i64::from_le_bytes(all).checked_shl(unused)?;
    Some(number >> unused)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn reads_what_it_writes(
            (time_shift, observed_at_ms) in (0..64_u32, any::<i64>()),
            (sequence_shift, sequence) in (0..64_u32, any::<i64>()),
            (weight, verdict) in (prop_oneof![Just(1), any::<u32>()], any::<u8>()),
            (counted, stemmed, inside) in any::<(bool, bool, bool)>(),
            numbers in prop_oneof![
                any::<[u8; 3]>().prop_map(|short| short.map(u32::from)),
                any::<[u32; 3]>(),
            ],
            behind in 0..9_usize,
        ) {
            let [agent_at, agent_len, len] = numbers;
            let head = Head {
                observed_at_ms: observed_at_ms >> time_shift,
                sequence: sequence >> sequence_shift,
                weight,
                verdict,
                counted,
                stemmed,
                inside,
                agent_at,
                agent_len,
                len,
            };
            let mut written = [0; LONGEST];
            let end = head.write(&mut written);
            let mut row = written[..end].to_vec();
            row.resize(end + behind, 0xff);
            prop_assert_eq!(Head::read(&row), Some((head, end)));
            for cut in 0..end {
                prop_assert_eq!(Head::read(&written[..cut]), None, "cut at {}", cut);
            }
            let agent_at = end + agent_at as usize;
            let expected = row.get(agent_at..).and_then(|rest| rest.get(..agent_len as usize));
            prop_assert_eq!(agent(&row), expected);
        }

        #[test]
        fn reads_anything(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some((_, end)) = Head::read(&bytes) {
                prop_assert!(end <= bytes.len());
            }
        }
    }
}
