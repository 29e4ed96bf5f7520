//! The checker: recomputes everything from the source topic with the [model](crate::model), and compares.
//!
//! It runs when the cluster has come to rest: nobody writes, every record of the source has been processed. Each
//! comparison has a file of its own and returns [`Finding`]s. What was read is kept, so that a round costs what was added
//! since the last one.
//!
//! - `offsets`: everything in the source has been processed.
//! - [`ledger`]: the source topic is what was written to it.
//! - [`dead_letters`]: every bad record once, and no good one.
//! - [`transitions`] with [`timeline`] and [`clock`]: the output topic, per object; timers by their recorded times.
//! - [`rows`]: the compacted changelog is what the model knows.
//! - [`api`]: so is what instances answer.
//! - [`stores`]: every store on disk is the changelog up to its position.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use common::avro::Decoder;
use common::schema::{DEAD_LETTER, DeadLetter, STATE, State};
use common::topics::Names;
use common::{kafka, wire};
use e2e::topics::Record;
use serde::de::DeserializeOwned;

use self::changelog::Changelog;
use self::dead_letters::DeadLetters;
use self::ledger::{Ledger, Written};
use self::rows::Moment;
use self::source::Reader;
use self::transitions::{Published, Stretch, Transitions};
use crate::model::{Object, Rules};
use crate::now_ms;
use crate::tail::Tail;

pub mod api;
pub mod changelog;
pub mod clock;
pub mod dead_letters;
mod finding;
pub mod ledger;
mod offsets;
pub mod rows;
pub mod source;
pub mod stores;
pub mod timeline;
pub mod transitions;

pub use finding::{Class, Finding};

/// How late an expiry may be published when nothing is broken.
pub const GRACE: Duration = Duration::from_secs(3);

/// Where the application's topics are.
#[derive(Clone, Debug)]
pub struct Place {
    /// The brokers.
    pub kafka: kafka::Args,
    /// The application id, which is the consumer group.
    pub application_id: String,
    /// Partitions of each topic.
    pub partitions: i32,
}

/// Reads the topics and compares.
pub struct Checker {
    place: Place,
    names: Names,
    reader: Reader,
    state: Decoder<State>,
    dead_letter: Decoder<DeadLetter>,
    source: Tail,
    states: Tail,
    letters: Tail,
    rows: Tail,
    ledger: Ledger,
    transitions: Transitions,
    changelog: Changelog,
    /// The offset behind the last source record of each partition.
    source_ends: BTreeMap<i32, i64>,
    /// States that were read but not explained yet.
    later: Vec<Published>,
    checked: u64,
}

impl Checker {
    /// A checker that has read nothing yet. The topics exist.
    ///
    /// # Errors
    /// The settings make no consumer.
    pub fn new(place: Place, reader: Reader, rules: Rules) -> Result<Self> {
        let names = Names::of(&place.application_id);
        let tail = |topic: &str| Tail::new(&place.kafka, topic, place.partitions);
        Ok(Self {
            state: Decoder::new(STATE)?,
            dead_letter: Decoder::new(DEAD_LETTER)?,
            source: tail(&names.reports)?,
            states: tail(&names.states)?,
            letters: tail(&names.dead_letters)?,
            rows: tail(&names.changelog)?,
            ledger: Ledger::default(),
            transitions: Transitions::new(rules),
            changelog: Changelog::default(),
            source_ends: BTreeMap::new(),
            later: Vec::new(),
            checked: 0,
            place,
            names,
            reader,
        })
    }

    /// Source records that have been checked so far.
    pub fn checked(&self) -> u64 {
        self.checked
    }

    /// How many records the generator's own producer wrote twice.
    pub fn twins(&self) -> u64 {
        self.ledger.twins()
    }

    /// How many expiries were published, and by how much they were late at most, in ms.
    pub fn expiries(&self) -> (u64, i64) {
        self.transitions.expiries()
    }

    /// Waits until everything in the source has been processed, then compares all that was added since the last
    /// round. `written` is what the generator wrote meanwhile, all of it; it writes no more for now.
    ///
    /// # Errors
    /// The brokers or the registry do not answer.
    pub fn round(&mut self, written: Vec<Written>, patience: Duration) -> Result<Vec<Finding>> {
        self.ledger.wrote(written);
        let (source, mut findings) = self.processed(patience)?;
        if !findings.is_empty() {
            // What has not been processed is missing everywhere else, too: that would only hide this.
            return Ok(findings);
        }
        self.changelog.add(self.rows.advance()?);
        let letters = self.letters.advance()?;
        let letters = letters.into_iter().map(|record| {
            let letter = decode(&mut self.reader, &self.dead_letter, &record);
            letter?.context("a dead letter has a value")
        });
        let letters = DeadLetters::new(letters.collect::<Result<Vec<_>>>()?);
        let complete_ms = now_ms();
        let mut outputs = std::mem::take(&mut self.later);
        outputs.extend(self.read_states()?);
        let until_ms = now_ms();

        let reports = &self.names.reports;
        findings.extend(self.ledger.check(reports, &source));
        let grace_ms = i64::try_from(GRACE.as_millis())?;
        let stretch = Stretch {
            source: &source,
            outputs: &outputs,
            rejected: &letters,
            complete_ms,
            until_ms,
        };
        findings.extend(
            self.transitions
                .check(&self.names.states, &stretch, grace_ms),
        );
        findings.extend(letters.check(reports, &source));
        findings.extend(self.ledger.check_sent_on());
        findings.extend(self.check_rows(until_ms - grace_ms)?);
        self.checked += source.len() as u64;
        Ok(findings)
    }

    /// Compares what instances list. It is asked for here, so that it can be told from what happens meanwhile.
    ///
    /// # Errors
    /// The brokers or the registry do not answer.
    pub fn compare_lists(
        &mut self,
        list: impl FnOnce() -> Result<Vec<api::Listed>>,
    ) -> Result<Vec<Finding>> {
        let from_ms = now_ms();
        let lists = list()?;
        let until_ms = now_ms();
        let published = self.read_states()?;
        let mut later: BTreeMap<String, Vec<Option<State>>> = BTreeMap::new();
        for (record, state) in self.later.iter().chain(&published) {
            let of_object = later.entry(record.key_text()).or_default();
            of_object.push(state.clone());
        }
        let objects: BTreeMap<&str, &Object> = self.transitions.objects().collect();
        let moment = Moment {
            past_ms: from_ms - i64::try_from(GRACE.as_millis())?,
            until_ms,
        };
        let mut findings = Vec::new();
        for listed in &lists {
            let skip = |id: &str| self.transitions.is_broken(id);
            let rules = self.transitions.rules();
            findings.extend(api::check(rules, listed, &objects, &later, &skip, moment));
        }
        self.later.extend(published);
        Ok(findings)
    }

    /// Compares the stores on disk. All instances have ended.
    ///
    /// # Errors
    /// The brokers do not answer, or a directory cannot be read.
    pub fn compare_stores(&mut self, states: &[std::path::PathBuf]) -> Result<Vec<Finding>> {
        self.changelog.add(self.rows.advance()?);
        let (dumps, mut findings) = stores::read(states)?;
        findings.extend(stores::check(&dumps, &self.changelog));
        Ok(findings)
    }

    fn read_states(&mut self) -> Result<Vec<Published>> {
        let records = self.states.advance()?;
        let decoded = records.into_iter().map(|record| {
            let state = decode(&mut self.reader, &self.state, &record)?;
            Ok((record, state))
        });
        decoded.collect()
    }

    /// Compares the changelog with the model. Both go on while they are read, by expiries; so an object may have any
    /// row that it had from the first reading on.
    fn check_rows(&mut self, past_ms: i64) -> Result<Vec<Finding>> {
        let before: BTreeMap<i32, changelog::Rows> = self
            .changelog
            .compacted()
            .map(|(partition, rows)| (partition, rows.clone()))
            .collect();
        let since = self.rows.advance()?;
        let until_ms = now_ms();
        let mut changed: BTreeMap<Vec<u8>, Vec<changelog::Value>> = BTreeMap::new();
        for row in &since {
            let key = row.key.clone().unwrap_or_default();
            let value = row.value.as_deref().map(Arc::from);
            changed.entry(key).or_default().push(value);
        }
        let mut findings = Vec::new();
        let mut known = HashSet::new();
        let partitions = u32::try_from(self.place.partitions)?;
        let mut by_partition: BTreeMap<i32, BTreeMap<&str, &Object>> = BTreeMap::new();
        for (id, object) in self.transitions.objects() {
            known.insert(id);
            let partition = common::partitioner::partition_of(id.as_bytes(), partitions);
            let partition = i32::try_from(partition)?;
            by_partition
                .entry(partition)
                .or_default()
                .insert(id, object);
        }
        let moment = Moment { past_ms, until_ms };
        let none = changelog::Rows::new();
        for partition in 0..self.place.partitions {
            let rows = before.get(&partition).unwrap_or(&none);
            let objects = by_partition.remove(&partition).unwrap_or_default();
            let candidates = |id: &str| {
                let key = [&[rows::OBJECT][..], id.as_bytes()].concat();
                let first = rows.get(&key[..]).cloned();
                let later = changed.get(&key).cloned().unwrap_or_default();
                std::iter::once(first).chain(later).collect()
            };
            let rules = self.transitions.rules();
            findings.extend(rows::check(rules, partition, &objects, &candidates, moment));
            for key in rows.keys() {
                if let Some((&rows::OBJECT, id)) = key.split_first() {
                    let id = String::from_utf8_lossy(id);
                    if !known.contains(&*id) && !self.transitions.is_broken(&id) {
                        let what = format!(
                            "changelog partition {partition}, object {id}: by the model it does not exist"
                        );
                        findings.push(Finding::new(Class::Wrong, "rows", what));
                    }
                }
            }
        }
        drop(known);
        self.changelog.add(since);
        Ok(findings)
    }
}

/// The value of a record; none if it has none.
fn decode<T: DeserializeOwned>(
    reader: &mut Reader,
    decoder: &Decoder<T>,
    record: &Record,
) -> Result<Option<T>> {
    let Some(value) = &record.value else {
        return Ok(None);
    };
    let (id, datum) = wire::split(value)?;
    let writer = reader.schema(id)?;
    let writer = writer.with_context(|| format!("the registry does not know schema {id}"))?;
    Ok(Some(decoder.decode(&writer, datum)?))
}
