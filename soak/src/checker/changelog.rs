//! The changelog, kept whole: what it compacts to, and what it had compacted to at any earlier offset.
//!
//! The soak creates the topic so that Kafka compacts nothing during a run; otherwise an older store could not be told
//! from a wrong one.

use std::collections::BTreeMap;
use std::sync::Arc;

use e2e::topics::Record;

/// Rows of one store: key (with its prefix) and value.
pub type Rows = BTreeMap<Arc<[u8]>, Arc<[u8]>>;

/// A value of a row, or none, as it was at some time.
pub type Value = Option<Arc<[u8]>>;

/// A row as it was written.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its offset.
    pub offset: i64,
    /// Its key, with its prefix.
    pub key: Arc<[u8]>,
    /// Its value; none deletes it.
    pub value: Value,
}

/// All partitions of the changelog.
#[derive(Debug, Default)]
pub struct Changelog {
    history: BTreeMap<i32, Vec<Row>>,
    compacted: BTreeMap<i32, Rows>,
}

impl Changelog {
    /// Adds what was written since.
    pub fn add(&mut self, records: Vec<Record>) {
        for record in records {
            let row = Row {
                offset: record.offset,
                key: record.key.unwrap_or_default().into(),
                value: record.value.map(Into::into),
            };
            let rows = self.compacted.entry(record.partition).or_default();
            apply(rows, &row);
            self.history.entry(record.partition).or_default().push(row);
        }
    }

    /// The last value of each key.
    pub fn compacted(&self) -> impl Iterator<Item = (i32, &Rows)> {
        self.compacted.iter().map(|(p, rows)| (*p, rows))
    }

    /// The last value of each key among the rows before `position`.
    pub fn at(&self, partition: i32, position: i64) -> Rows {
        let mut rows = Rows::new();
        let history = self.history.get(&partition).map_or(&[][..], Vec::as_slice);
        for row in history.iter().take_while(|row| row.offset < position) {
            apply(&mut rows, row);
        }
        rows
    }

    /// The offset behind the last row; 0 if there is none.
    pub fn end(&self, partition: i32) -> i64 {
        let last = self.history.get(&partition).and_then(|rows| rows.last());
        last.map_or(0, |row| row.offset + 1)
    }

    /// The last row of `key` before offset `position`, if any: to tell where a wrong value may come from.
    pub fn last_row(&self, partition: i32, key: &[u8], position: i64) -> Option<&Row> {
        let history = self.history.get(&partition)?;
        let mut earlier = history.iter().rev();
        earlier.find(|row| row.offset < position && *row.key == *key)
    }
}

fn apply(rows: &mut Rows, row: &Row) {
    match &row.value {
        Some(value) => drop(rows.insert(Arc::clone(&row.key), Arc::clone(value))),
        None => drop(rows.remove(&row.key)),
    }
}
