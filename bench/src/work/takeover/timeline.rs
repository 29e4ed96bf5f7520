//! What a client saw of one object: every read, every write, and what follows from them. Times are in ms since
//! the fault; before it they are negative.

use serde::Serialize;

/// A read of the object that got an answer.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Read {
    /// Which instance was asked.
    pub instance: usize,
    /// When it was asked.
    pub asked_ms: f64,
    /// When it answered.
    pub answered_ms: f64,
    /// The sequence number of the probe's vote in the answer; 0 if it is not there.
    pub sequence: i64,
}

/// A report about the object.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Write {
    /// When it was sent.
    pub sent_ms: f64,
    /// Its sequence number.
    pub sequence: i64,
}

/// Everything that a client saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Timeline {
    /// Reads that got the state.
    pub reads: Vec<Read>,
    /// Reports sent, in their order.
    pub writes: Vec<Write>,
}

impl Timeline {
    /// The longest time from one answer to the next, whoever gave them, from the last answer before `from_ms` to
    /// `to_ms`.
    #[must_use]
    pub fn longest_silence_ms(&self, from_ms: f64, to_ms: f64) -> f64 {
        let mut answers: Vec<f64> = self.reads.iter().map(|read| read.answered_ms).collect();
        answers.sort_by(f64::total_cmp);
        let mut last = answers.iter().copied().rfind(|at| *at <= from_ms);
        let mut longest = 0.0_f64;
        for at in answers.into_iter().filter(|at| *at > from_ms) {
            longest = longest.max(at.min(to_ms) - last.unwrap_or(from_ms));
            if at >= to_ms {
                return longest;
            }
            last = Some(at);
        }
        longest.max(to_ms - last.unwrap_or(from_ms))
    }

    /// The longest time that a report sent from `from_ms` to `to_ms` took until somebody's answer showed it;
    /// infinite if one was never seen.
    #[must_use]
    pub fn longest_write_ms(&self, from_ms: f64, to_ms: f64) -> f64 {
        let sent = |write: &&Write| (from_ms..=to_ms).contains(&write.sent_ms);
        let took = self.writes.iter().filter(sent).map(|write| {
            let shows = |read: &&Read| read.sequence >= write.sequence;
            let seen = self.reads.iter().filter(shows).map(|read| read.answered_ms);
            seen.fold(f64::INFINITY, f64::min) - write.sent_ms
        });
        took.fold(0.0, f64::max)
    }

    /// Answers from `from_ms` on that were older than one given before they were asked for.
    #[must_use]
    pub fn stale(&self, from_ms: f64) -> usize {
        let mut by_answer: Vec<&Read> = self.reads.iter().collect();
        by_answer.sort_by(|a, b| a.answered_ms.total_cmp(&b.answered_ms));
        let mut by_question = by_answer.clone();
        by_question.sort_by(|a, b| a.asked_ms.total_cmp(&b.asked_ms));
        let (mut seen, mut known, mut stale) = (by_answer.into_iter().peekable(), 0, 0);
        for read in by_question {
            while let Some(earlier) = seen.next_if(|earlier| earlier.answered_ms < read.asked_ms) {
                known = known.max(earlier.sequence);
            }
            if read.asked_ms >= from_ms && read.sequence < known {
                stale += 1;
            }
        }
        stale
    }

    /// Are reads answered all the time, and reports shown within a second, as of `now_ms`? Not before there is enough to
    /// look back on since the fault: until it is noticed, all seems well.
    #[must_use]
    pub fn is_well(&self, now_ms: f64) -> bool {
        const LOOK_BACK_MS: f64 = 1_500.0;
        const SILENCE_MS: f64 = 500.0;
        let answered = self.longest_silence_ms(now_ms - LOOK_BACK_MS, now_ms) < SILENCE_MS;
        let older = self
            .writes
            .iter()
            .rfind(|write| write.sent_ms <= now_ms - 1_000.0);
        let shown = self.reads.iter().map(|read| read.sequence).max();
        now_ms >= LOOK_BACK_MS
            && answered
            && older.is_none_or(|write| shown >= Some(write.sequence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(asked_ms: f64, answered_ms: f64, sequence: i64) -> Read {
        Read {
            instance: 0,
            asked_ms,
            answered_ms,
            sequence,
        }
    }

    fn timeline() -> Timeline {
        Timeline {
            reads: vec![
                read(-30.0, -20.0, 1),
                read(-10.0, -5.0, 1),
                read(10.0, 900.0, 1),
                read(890.0, 910.0, 2),
                read(905.0, 920.0, 1),
                read(940.0, 950.0, 1),
                read(960.0, 970.0, 3),
            ],
            writes: [(-40.0, 1), (0.0, 2), (100.0, 3)]
                .map(|(sent_ms, sequence)| Write { sent_ms, sequence })
                .to_vec(),
        }
    }

    #[test]
    fn silence_counts_from_the_last_answer() {
        let seen = timeline();
        for (from, to, silence) in [
            (0.0, 1_000.0, 905.0),
            (0.0, 500.0, 505.0),
            (950.0, 980.0, 20.0),
            (950.0, 2_000.0, 1_030.0),
        ] {
            let found = seen.longest_silence_ms(from, to);
            assert!(
                (found - silence).abs() < 1e-9,
                "{from} to {to}: {found}, not {silence}"
            );
        }
    }

    #[test]
    fn writes_count_until_they_are_shown() {
        let mut seen = timeline();
        assert!((seen.longest_write_ms(-50.0, 50.0) - 910.0).abs() < 1e-9);
        assert!((seen.longest_write_ms(-50.0, 200.0) - 910.0).abs() < 1e-9);
        seen.writes.push(Write {
            sent_ms: 150.0,
            sequence: 4,
        });
        assert!(seen.longest_write_ms(-50.0, 200.0).is_infinite());
    }

    #[test]
    fn an_answer_is_stale_if_a_newer_one_was_there_before_it_was_asked_for() {
        let seen = timeline();
        // Asked for at 905, 2 was not known yet; at 940 it was.
        assert_eq!(seen.stale(0.0), 1);
        assert_eq!(seen.stale(955.0), 0);
    }

    #[test]
    fn well_is_answered_and_shown() {
        let all = |to| {
            let each = |i: i32| read(f64::from(i * 20), f64::from(i * 20 + 5), i64::from(i / 5));
            (0..to).map(each).collect::<Vec<_>>()
        };
        let writes = (0..30).map(|i| Write {
            sent_ms: f64::from(i * 100),
            sequence: i64::from(i),
        });
        let mut seen = Timeline {
            reads: all(150),
            writes: writes.collect(),
        };
        assert!(seen.is_well(3_000.0));
        assert!(!seen.is_well(4_000.0));
        assert!(!seen.is_well(1_400.0), "too early to tell");
        seen.reads.iter_mut().for_each(|read| read.sequence = 5);
        assert!(!seen.is_well(3_000.0));
    }
}
