//! Is the source topic what was written to it? What the generator wrote and Kafka acknowledged must be there, each
//! record once; and besides that only what a service sent on, because it had been written to the wrong partition: once
//! for each such record.
//!
//! A record that the generator's own producer wrote twice is not the service's doing: killing a broker can do that even
//! to an idempotent producer. It has the same timestamp as its twin, whereas what a service sends on gets a new one. It is
//! counted, and processed like any other repetition.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use e2e::topics::Record;

use super::{Class, Finding, source::Judged};

const CHECK: &str = "source";

/// A record that the generator wrote.
#[derive(Clone, Copy, Debug)]
pub struct Written {
    /// Where it is; none if the brokers never said.
    pub at: Option<(i32, i64)>,
    /// What it is.
    pub content: u64,
}

/// What key and value together are, as a number.
pub fn content(key: Option<&[u8]>, value: Option<&[u8]>) -> u64 {
    let mut hasher = DefaultHasher::new();
    // librdkafka tells no empty key from none.
    key.unwrap_or_default().hash(&mut hasher);
    value.hash(&mut hasher);
    hasher.finish()
}

/// What was written, and what of it has been seen.
#[derive(Debug, Default)]
pub struct Ledger {
    written: HashMap<(i32, i64), u64>,
    /// Records whose fate the brokers did not tell: they may be there.
    uncertain: HashMap<u64, usize>,
    /// How often each record was found on a wrong partition, and how often on the right one since.
    misrouted: HashMap<u64, (usize, usize)>,
    /// Partition, content and timestamp of what the generator wrote.
    seen: HashSet<(i32, u64, Option<i64>)>,
    twins: u64,
}

impl Ledger {
    /// The generator wrote these.
    pub fn wrote(&mut self, records: Vec<Written>) {
        for record in records {
            match record.at {
                Some(at) => drop(self.written.insert(at, record.content)),
                None => *self.uncertain.entry(record.content).or_default() += 1,
            }
        }
    }

    /// How many records the generator's own producer wrote twice.
    pub fn twins(&self) -> u64 {
        self.twins
    }

    /// The source topic went on by these records, to its end.
    pub fn check(&mut self, topic: &str, records: &[(Record, Judged)]) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut strangers = Vec::new();
        for (record, judged) in records {
            let content = content(record.key.as_deref(), record.value.as_deref());
            let at = (record.partition, record.offset);
            let place = format!("{topic} partition {} offset {}", at.0, at.1);
            match self.written.remove(&at) {
                Some(written) if written == content => {
                    self.seen
                        .insert((record.partition, content, record.timestamp_ms));
                    if matches!(judged, Judged::Misrouted(_)) {
                        self.misrouted.entry(content).or_default().0 += 1;
                    }
                }
                Some(_) => findings.push(Finding::new(
                    Class::Wrong,
                    CHECK,
                    format!(
                        "{place} was acknowledged for another record: {}",
                        record.key_text()
                    ),
                )),
                None => strangers.push((content, place, record)),
            }
        }
        for (content, place, record) in strangers {
            findings.extend(self.stranger(content, &place, record));
        }
        for ((partition, offset), _) in self.written.drain() {
            let what = format!("{topic} partition {partition} offset {offset} was acknowledged");
            findings.push(Finding::new(
                Class::Lost,
                CHECK,
                format!("{what}, and is not there"),
            ));
        }
        findings
    }

    /// A record that the generator did not write, as far as it knows.
    fn stranger(&mut self, content: u64, place: &str, record: &Record) -> Option<Finding> {
        let twin = (record.partition, content, record.timestamp_ms);
        if record.timestamp_ms.is_some() && self.seen.contains(&twin) {
            self.twins += 1;
            if let Some((owed, _)) = self.misrouted.get_mut(&content) {
                *owed += 1;
            }
            return None;
        }
        if let Some((owed, sent)) = self.misrouted.get_mut(&content) {
            *sent += 1;
            return (*sent > *owed).then(|| {
                let what = format!(
                    "{place}: the misrouted record of {} was sent on {sent} times and written {owed} times",
                    record.key_text()
                );
                Finding::new(Class::Doubled, CHECK, what)
            });
        }
        if let Some(left) = self.uncertain.get_mut(&content).filter(|left| **left > 0) {
            *left -= 1;
            return None;
        }
        let what = format!("{place}: nobody wrote this record of {}", record.key_text());
        Some(Finding::new(Class::Wrong, CHECK, what))
    }

    /// Everything has been processed: has every misrouted record been sent on?
    pub fn check_sent_on(&self) -> Vec<Finding> {
        let missing = self.misrouted.values().filter(|(owed, sent)| sent < owed);
        let missing: usize = missing.map(|(owed, sent)| owed - sent).sum();
        if missing == 0 {
            return Vec::new();
        }
        let what = format!("{missing} records on wrong partitions were not sent on");
        vec![Finding::new(Class::Lost, CHECK, what)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(partition: i32, offset: i64, value: &str) -> Record {
        Record {
            partition,
            offset,
            key: Some(b"site".to_vec()),
            value: Some(value.as_bytes().to_vec()),
            timestamp_ms: None,
        }
    }

    fn check(written: &[Record], found: &[(Record, Judged)]) -> Vec<Class> {
        let mut ledger = Ledger::default();
        let of = |r: &Record| Written {
            at: Some((r.partition, r.offset)),
            content: content(r.key.as_deref(), r.value.as_deref()),
        };
        ledger.wrote(written.iter().map(of).collect());
        let mut findings = ledger.check("reports", found);
        findings.extend(ledger.check_sent_on());
        findings.into_iter().map(|f| f.class).collect()
    }

    #[test]
    fn what_was_written_is_there_once_and_what_was_misrouted_once_more() {
        let good = |r| (r, Judged::Bad("truncated"));
        let misrouted = |r| (r, Judged::Misrouted(1));
        let (a, b) = (record(0, 0, "a"), record(0, 1, "b"));
        let on = |offset| record(1, offset, "b");
        let both = [a.clone(), b.clone()];
        for (name, found, classes) in [
            (
                "all",
                vec![good(a.clone()), misrouted(b.clone()), good(on(0))],
                vec![],
            ),
            (
                "lost",
                vec![misrouted(b.clone()), good(on(0))],
                vec![Class::Lost],
            ),
            (
                "not sent on",
                vec![good(a.clone()), misrouted(b.clone())],
                vec![Class::Lost],
            ),
            (
                "sent on twice",
                vec![
                    good(a.clone()),
                    misrouted(b.clone()),
                    good(on(0)),
                    good(on(1)),
                ],
                vec![Class::Doubled],
            ),
            (
                "a stranger",
                vec![
                    good(a.clone()),
                    misrouted(b.clone()),
                    good(on(0)),
                    good(record(1, 5, "x")),
                ],
                vec![Class::Wrong],
            ),
            (
                "another record",
                vec![good(record(0, 0, "x")), misrouted(b), good(on(0))],
                vec![Class::Wrong],
            ),
        ] {
            assert_eq!(check(&both, &found), classes, "{name}");
        }
    }
}
