//! Every store on disk is the changelog up to the position that it claims, row for row; and of each partition one
//! store at least has come to the changelog's end.

use std::collections::{BTreeMap, HashSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use engine::scenario::object::Stored;
use rocksdb::{DB, Direction, IteratorMode, Options};

use super::{
    Class, Finding,
    changelog::{Changelog, Rows},
    rows::OBJECT,
};

const CHECK: &str = "stores";
/// Prefix of the rows that hold timers.
const TIMER: u8 = b't';

/// A store as it is on disk.
#[derive(Debug)]
pub struct Dump {
    /// Its directory.
    pub path: PathBuf,
    /// Its partition.
    pub partition: i32,
    /// The changelog position that it claims.
    pub position: i64,
    /// Its rows, as the changelog has them.
    pub rows: Rows,
    /// Its timers: the moment, big-endian, then the object's id.
    pub timers: HashSet<Vec<u8>>,
    /// Its timers for many objects together.
    pub ranges: Vec<Range>,
}

/// A timer for all objects from the first to the last whose own one is due neither before nor after.
#[derive(Debug)]
pub struct Range {
    timers_ms: RangeInclusive<i64>,
    first: Vec<u8>,
    last: Vec<u8>,
}

impl Range {
    /// Of a timer: the moment, a byte that no id begins with, the last moment, the length of the first id, both ids.
    fn read(timer: &[u8]) -> Option<Self> {
        let (moment, rest) = timer.split_first_chunk::<8>()?;
        let (until, rest) = rest.strip_prefix(b"\xff")?.split_first_chunk::<8>()?;
        let (len, ids) = rest.split_first_chunk::<4>()?;
        let (first, last) = ids.split_at_checked(u32::from_be_bytes(*len) as usize)?;
        Some(Self {
            timers_ms: i64::from_be_bytes(*moment)..=i64::from_be_bytes(*until),
            first: first.to_vec(),
            last: last.to_vec(),
        })
    }

    fn wakes(&self, id: &[u8], timer_ms: i64) -> bool {
        self.timers_ms.contains(&timer_ms) && (&self.first[..]..=&self.last[..]).contains(&id)
    }
}

/// Opens all stores below these state directories, which nobody uses any more. What cannot be read is a finding.
///
/// # Errors
/// A directory cannot be listed.
pub fn read(states: &[PathBuf]) -> Result<(Vec<Dump>, Vec<Finding>)> {
    let mut dumps = Vec::new();
    let mut findings = Vec::new();
    for state in states {
        // <state>/<application>/<slot>/stores/<partition>
        for slot in folders(state)?
            .iter()
            .flat_map(|app| folders(app))
            .flatten()
        {
            for path in folders(&slot.join("stores"))? {
                let name = path.file_name().and_then(|name| name.to_str());
                // Anything else was set aside by the service.
                let Some(partition) = name.and_then(|name| name.parse().ok()) else {
                    continue;
                };
                match dump(&path, partition) {
                    Ok(dump) => dumps.push(dump),
                    Err(error) => {
                        let what = format!("{}: {error:#}", path.display());
                        findings.push(Finding::new(Class::Wrong, CHECK, what));
                    }
                }
            }
        }
    }
    Ok((dumps, findings))
}

fn folders(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir(path).with_context(|| format!("{}", path.display()))?;
    let mut folders: Vec<_> = entries
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.is_dir())
        .collect();
    folders.sort();
    Ok(folders)
}

fn dump(path: &Path, partition: i32) -> Result<Dump> {
    let db = DB::open_for_read_only(&Options::default(), path, false)?;
    // Who is killed while it makes a store leaves one without; it must be without rows too then.
    let position = match db.get(b"\0position")? {
        None => 0,
        Some(bytes) => {
            let bytes = bytes
                .try_into()
                .ok()
                .context("the position is not 8 bytes")?;
            i64::from_be_bytes(bytes)
        }
    };
    let mut rows = Rows::new();
    let (mut timers, mut ranges) = (HashSet::new(), Vec::new());
    // Before those of the changelog are rows in which the store tells of itself.
    for row in db.iterator(IteratorMode::From(&[1], Direction::Forward)) {
        let (key, value) = row?;
        match key.split_first() {
            Some((&TIMER, timer)) => match Range::read(timer) {
                Some(range) => ranges.push(range),
                None => drop(timers.insert(timer.to_vec())),
            },
            _ => drop(rows.insert(key.into(), value.into())),
        }
    }
    Ok(Dump {
        path: path.to_owned(),
        partition,
        position,
        rows,
        timers,
        ranges,
    })
}

/// Compares stores with the changelog, which has been read to its end.
pub fn check(dumps: &[Dump], changelog: &Changelog) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut complete = HashSet::new();
    for dump in dumps {
        let end = changelog.end(dump.partition);
        let place = dump.path.display();
        if dump.position >= end {
            complete.insert(dump.partition);
        }
        let expected = changelog.at(dump.partition, dump.position);
        let differences = differences(dump, &expected, changelog).into_iter();
        for (class, what) in differences.chain(lost_timers(dump)) {
            let what = format!("{place}, position {} of {end}: {what}", dump.position);
            findings.push(Finding::new(class, CHECK, what));
        }
    }
    for (partition, _) in changelog.compacted() {
        if !complete.contains(&partition) {
            let of_partition = dumps.iter().filter(|dump| dump.partition == partition);
            let positions: BTreeMap<_, _> = of_partition.map(|d| (&d.path, d.position)).collect();
            let what = format!(
                "no store of partition {partition} has come to the changelog's end {}: {positions:?}",
                changelog.end(partition)
            );
            findings.push(Finding::new(Class::Lost, CHECK, what));
        }
    }
    findings
}

/// The rows that differ: the first of each kind, and how many there are.
fn differences(dump: &Dump, expected: &Rows, changelog: &Changelog) -> Vec<(Class, String)> {
    let name = |key: &[u8]| String::from_utf8_lossy(key).into_owned();
    let written = |key: &[u8]| {
        let row = changelog.last_row(dump.partition, key, dump.position);
        row.map_or_else(
            || "never".to_owned(),
            |row| format!("at offset {}", row.offset),
        )
    };
    let missing: Vec<_> = expected
        .keys()
        .filter(|k| !dump.rows.contains_key(*k))
        .collect();
    let stray: Vec<_> = dump
        .rows
        .keys()
        .filter(|k| !expected.contains_key(*k))
        .collect();
    let other: Vec<_> = expected
        .iter()
        .filter(|(key, value)| dump.rows.get(*key).is_some_and(|found| found != *value))
        .map(|(key, _)| key)
        .collect();
    let kinds = [
        (Class::Lost, "rows are missing", missing),
        (Class::Wrong, "rows should not be there", stray),
        (Class::Wrong, "rows have another value", other),
    ];
    let odd = kinds.into_iter().filter_map(|(class, what, keys)| {
        let first = keys.first()?;
        Some((
            class,
            format!(
                "{} {what}, the first is {:?}, written last {}",
                keys.len(),
                name(first),
                written(first)
            ),
        ))
    });
    odd.collect()
}

/// Timers that an object's row names, and that the store would not wake it for: the first, and how many there
/// are. That others are there too may be: an object that is woken in vain says so.
fn lost_timers(dump: &Dump) -> Option<(Class, String)> {
    let mut lost = dump.rows.iter().filter_map(|(key, row)| {
        let (_, id) = key.split_first().filter(|(prefix, _)| **prefix == OBJECT)?;
        let timer_ms = Stored::decode(row).ok()?.timer_ms?;
        // Times before 1970 would not sort and are written as 1970.
        let moment_ms = timer_ms.max(0);
        let timer = [&moment_ms.to_be_bytes()[..], id].concat();
        let mut ranges = dump.ranges.iter();
        let is_there =
            dump.timers.contains(&timer) || ranges.any(|range| range.wakes(id, moment_ms));
        (!is_there).then(|| (String::from_utf8_lossy(id), timer_ms))
    });
    let (id, timer_ms) = lost.next()?;
    let what = format!(
        "{} timers are missing, the first is that of {id} at {timer_ms}",
        1 + lost.count()
    );
    Some((Class::Lost, what))
}

#[cfg(test)]
mod tests {
    use e2e::topics::Record;

    use super::*;

    fn changelog() -> Changelog {
        let row = |offset, key: &str, value: Option<&str>| Record {
            partition: 0,
            offset,
            key: Some(key.as_bytes().to_vec()),
            value: value.map(|v| v.as_bytes().to_vec()),
            timestamp_ms: None,
        };
        let mut changelog = Changelog::default();
        changelog.add(vec![
            row(0, "oa", Some("1")),
            row(1, "ob", Some("1")),
            row(3, "oa", None),
            row(5, "ob", Some("2")),
        ]);
        changelog
    }

    fn dump(position: i64, rows: &[(&str, &str)]) -> Dump {
        let row = |&(key, value): &(&str, &str)| (key.as_bytes().into(), value.as_bytes().into());
        Dump {
            path: "store/0".into(),
            partition: 0,
            position,
            rows: rows.iter().map(row).collect(),
            timers: HashSet::new(),
            ranges: Vec::new(),
        }
    }

    #[test]
    fn a_store_is_the_changelog_up_to_its_position() {
        let end = || dump(6, &[("ob", "2")]);
        for (name, dumps, classes) in [
            ("the end", vec![end()], vec![]),
            (
                "a prefix besides",
                vec![end(), dump(2, &[("oa", "1"), ("ob", "1")])],
                vec![],
            ),
            (
                "only a prefix",
                vec![dump(4, &[("ob", "1")])],
                vec![Class::Lost],
            ),
            ("a missing row", vec![dump(6, &[])], vec![Class::Lost]),
            (
                "a row too many",
                vec![dump(6, &[("oa", "1"), ("ob", "2")])],
                vec![Class::Wrong],
            ),
            (
                "ahead of its position",
                vec![end(), dump(5, &[("ob", "2")])],
                vec![Class::Wrong],
            ),
            (
                "behind its position",
                vec![dump(6, &[("ob", "1")])],
                vec![Class::Wrong],
            ),
        ] {
            let found: Vec<_> = check(&dumps, &changelog())
                .iter()
                .map(|f| f.class)
                .collect();
            assert_eq!(found, classes, "{name}");
        }
    }

    #[test]
    fn a_timer_that_a_row_names_is_there() {
        // Without votes, with a timer at 5: see the engine's `scenario::object`.
        let row = [3, 1, 10, 0, 0, 0, 0];
        assert_eq!(
            Stored::decode(&row).map(|stored| stored.timer_ms),
            Ok(Some(5))
        );
        let mut dump = dump(1, &[]);
        dump.rows
            .insert(b"oa".as_slice().into(), row.as_slice().into());
        let (class, what) = lost_timers(&dump).expect("a finding");
        assert_eq!(class, Class::Lost);
        assert!(
            what.contains("1 timers are missing, the first is that of a at 5"),
            "{what}"
        );
        dump.timers
            .insert([&5_i64.to_be_bytes()[..], b"a"].concat());
        assert_eq!(lost_timers(&dump), None);
        dump.timers.clear();
        for (from_ms, until_ms, ids, wakes) in [
            (5_i64, 5_i64, b"aa", true),
            (4, 6, b"ab", true),
            (6, 6, b"aa", false),
            (3, 4, b"aa", false),
            (5, 5, b"bb", false),
        ] {
            let (from, until) = (from_ms.to_be_bytes(), until_ms.to_be_bytes());
            let timer = [&from[..], b"\xff", &until, b"\0\0\0\x01", ids].concat();
            dump.ranges = Vec::from_iter(Range::read(&timer));
            assert_eq!(
                lost_timers(&dump).is_none(),
                wakes,
                "{from_ms}, {until_ms}, {ids:?}"
            );
        }
    }
}
