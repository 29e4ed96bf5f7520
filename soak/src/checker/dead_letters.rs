//! Every bad record is a dead letter once, with its reason and its original bytes; no good record is one.

use std::collections::BTreeMap;

use common::schema::DeadLetter;
use e2e::topics::Record;

use super::{Class, Finding, clock::Anchor, source::Judged};

const CHECK: &str = "dead letters";

/// Where a source record is: partition and offset.
pub type Place = (i32, i64);

/// The dead letters of a stretch of the source, by the record that they are about.
#[derive(Debug, Default)]
pub struct DeadLetters(BTreeMap<Place, Vec<DeadLetter>>);

impl DeadLetters {
    /// Sorts dead letters by what they are about.
    pub fn new(letters: impl IntoIterator<Item = DeadLetter>) -> Self {
        let mut by_place: BTreeMap<Place, Vec<DeadLetter>> = BTreeMap::new();
        for letter in letters {
            let place = (letter.partition, letter.offset);
            by_place.entry(place).or_default().push(letter);
        }
        Self(by_place)
    }

    /// Was this record rejected?
    pub fn rejected(&self, place: Place) -> bool {
        self.0.contains_key(&place)
    }

    /// What the dead letters tell about when the records of a partition were processed.
    pub fn anchors(&self, partition: i32) -> Vec<Anchor> {
        let of_partition = self.0.range((partition, i64::MIN)..=(partition, i64::MAX));
        of_partition
            .filter_map(|((_, offset), letters)| {
                Some(Anchor {
                    offset: *offset,
                    at_ms: letters.first()?.failed_at_ms,
                })
            })
            .collect()
    }

    /// Compares with the source records of the same stretch.
    pub fn check(mut self, topic: &str, records: &[(Record, Judged)]) -> Vec<Finding> {
        let mut findings = Vec::new();
        for (record, judged) in records {
            let letters = self.0.remove(&(record.partition, record.offset));
            let place = format!(
                "{topic} partition {} offset {} (key {:?})",
                record.partition,
                record.offset,
                record.key_text()
            );
            let found = one(&place, record, judged, &letters.unwrap_or_default());
            findings.extend(found);
        }
        for ((partition, offset), letters) in self.0 {
            let what = format!(
                "{} dead letters are about {topic} partition {partition} offset {offset}, where no new record is: {:?}",
                letters.len(),
                letters.first()
            );
            // The records of earlier stretches have had their dead letters already.
            findings.push(Finding::new(Class::Doubled, CHECK, what));
        }
        findings
    }
}

fn one(place: &str, record: &Record, judged: &Judged, letters: &[DeadLetter]) -> Option<Finding> {
    let finding =
        |class, what: String| Some(Finding::new(class, CHECK, format!("{place}: {what}")));
    let letter = match (judged, letters) {
        (Judged::Bad(reason), []) => {
            return finding(
                Class::Lost,
                format!("it is {reason} and no dead letter says so"),
            );
        }
        (_, []) => return None,
        (_, [letter]) => letter,
        (_, [letter, ..]) => {
            let what = format!("{} dead letters, the first: {letter:?}", letters.len());
            return finding(Class::Doubled, what);
        }
    };
    let reason = match judged {
        Judged::Bad(reason) => reason,
        Judged::GoodFrom(from_ms, ..) if letter.failed_at_ms < *from_ms => "from-the-future",
        _ => {
            return finding(
                Class::Wrong,
                format!("a good record was rejected: {letter:?}"),
            );
        }
    };
    let key = |key: &Option<Vec<u8>>| key.clone().unwrap_or_default();
    let same = letter.reason == reason
        && key(&letter.key) == key(&record.key)
        && letter.value == record.value
        && letter.timestamp_ms == record.timestamp_ms;
    if same {
        return None;
    }
    let what = format!(
        "it is {reason}, written at {:?}, and its dead letter is {letter:?}",
        record.timestamp_ms
    );
    finding(Class::Wrong, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(offset: i64, reason: &str, failed_at_ms: i64) -> DeadLetter {
        DeadLetter {
            topic: "reports".into(),
            partition: 0,
            offset,
            timestamp_ms: Some(5),
            reason: reason.into(),
            detail: String::new(),
            key: None,
            value: Some(vec![1]),
            failed_at_ms,
        }
    }

    fn record() -> Record {
        Record {
            partition: 0,
            offset: 7,
            key: Some(vec![]),
            value: Some(vec![1]),
            timestamp_ms: Some(5),
        }
    }

    #[test]
    fn each_bad_record_has_one_and_a_good_one_has_none() {
        let bad = Judged::Bad("truncated");
        let good = Judged::Misrouted(1);
        let future =
            |from_ms| Judged::GoodFrom(from_ms, "site".into(), crate::model::Change::Clear);
        let late = letter(7, "from-the-future", 10);
        let mut altered = letter(7, "truncated", 10);
        altered.value = None;
        for (name, judged, letters, class) in [
            ("bad", bad.clone(), vec![letter(7, "truncated", 10)], None),
            ("bad and silent", bad.clone(), vec![], Some(Class::Lost)),
            (
                "twice",
                bad.clone(),
                vec![letter(7, "truncated", 1); 2],
                Some(Class::Doubled),
            ),
            (
                "other reason",
                bad.clone(),
                vec![letter(7, "malformed", 1)],
                Some(Class::Wrong),
            ),
            ("other bytes", bad, vec![altered], Some(Class::Wrong)),
            ("good", good.clone(), vec![], None),
            (
                "good and rejected",
                good.clone(),
                vec![letter(7, "truncated", 1)],
                Some(Class::Wrong),
            ),
            (
                "of no record",
                good,
                vec![letter(6, "truncated", 1)],
                Some(Class::Doubled),
            ),
            ("from the future", future(11), vec![late.clone()], None),
            (
                "not from the future any more",
                future(10),
                vec![late],
                Some(Class::Wrong),
            ),
        ] {
            let records = [(record(), judged)];
            let found = DeadLetters::new(letters).check("reports", &records);
            let classes: Vec<_> = found.iter().map(|f| f.class).collect();
            assert_eq!(classes, class.into_iter().collect::<Vec<_>>(), "{name}");
        }
    }
}
