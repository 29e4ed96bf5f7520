use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// Keys that begin alike for shorter and longer than what is kept of them with their places, or are the beginning of
/// others; values that are none, and larger than a piece.
fn write() -> impl Strategy<Value = (Vec<u8>, Option<usize>)> {
    let middle = prop_oneof![Just(&b""[..]), Just(&b"-0123456789"[..])];
    let end = || proptest::collection::vec(0..3_u8, 0..3);
    let key = (end(), middle, end()).prop_map(|(a, b, c)| [b"osite", &a[..], b, &c].concat());
    let len = prop_oneof![20 => 0..100_usize, 1 => 200_000..600_000_usize];
    (key, proptest::option::weighted(0.9, len))
}

/// A log of these rows, and what a map holds of them.
fn filled(
    mut log: Log,
    writes: &[(Vec<u8>, Option<usize>)],
) -> (Log, BTreeMap<Vec<u8>, Option<Vec<u8>>>) {
    let mut map = BTreeMap::new();
    for (number, (key, len)) in (0_u8..).zip(writes) {
        let value = len.map(|len| vec![number; len]);
        log.put(key, value.as_deref());
        map.insert(key.clone(), value);
    }
    (log, map)
}

proptest! {
    #[test]
    fn sorted_it_is_what_a_map_holds(
        before in proptest::collection::vec(write(), 0..60),
        writes in proptest::collection::vec(write(), 1..120),
    ) {
        let (mut log, _) = filled(Log::default(), &before);
        log.sort();
        let log = log.emptied();
        prop_assert_eq!((log.len(), log.live_and_replaced()), (0, (0, 0)));
        let (mut log, map) = filled(log, &writes);
        prop_assert_eq!(log.len(), writes.len());
        let taken: usize = writes.iter().map(|(key, len)| key.len() + len.unwrap_or(0)).sum();
        prop_assert!(log.bytes() >= taken);
        log.sort();
        let expected = || map.iter().map(|(key, value)| (&key[..], value.as_deref()));
        prop_assert!(log.rows().eq(expected()));
        prop_assert!((0..).zip(expected()).all(|(place, row)| log.get(place) == row));
    }

    #[test]
    fn gives_what_came(writes in proptest::collection::vec(write(), 0..120)) {
        let (mut log, _) = filled(Log::default(), &writes);
        log.shrink();
        let mut given = Vec::new();
        log.into_each(|key, value| given.push((key.to_vec(), value.map(<[u8]>::len))));
        prop_assert_eq!(given, writes);
    }
}

/// Others have no use for it.
#[test]
fn memory_of_large_records_is_not_kept() {
    let mut log = Log::default();
    log.put(b"osite", Some(&[7; 100]));
    log.put(b"olarge", Some(&vec![7; 3_000_000]));
    assert!(log.bytes() > 3_000_000);
    let mut log = log.emptied();
    assert!(log.bytes() < 1_000_000, "{}", log.bytes());
    log.put(b"olarge", Some(&vec![7; 3_000_000]));
    assert!(log.bytes() > 3_000_000);
}

#[test]
fn knows_how_much_was_replaced() {
    // Of a few keys, two that fall into one slot would be too many.
    let long = [300_000; 3];
    for (keys, lens) in [
        (40_000_usize, &[100][..]),
        (40_000, &[100, 60]),
        (40_000, &[20, 60, 100]),
        (60, &long),
    ] {
        let mut log = Log::default();
        for number in 0..keys * lens.len() {
            let key = format!("osite-{:07}.example.com", number % keys);
            log.put(key.as_bytes(), Some(&vec![7; lens[number / keys]]));
        }
        let (live, replaced) = log.live_and_replaced();
        let record = "head-key-osite-0123456.example.com".len() + lens[lens.len() - 1];
        let expected = keys * record;
        assert!(
            live.abs_diff(expected) < expected / 8,
            "{live} of {expected}"
        );
        assert_eq!(live + replaced, log.records.used());
    }
}

/// To look at all rows takes a while.
#[test]
fn looks_seldom_where_keys_do_not_come_again() {
    let (mut log, mut looks) = (Log::with_slack(10_000), BTreeSet::new());
    for number in 0..100_000_u32 {
        log.put(format!("o{number}").as_bytes(), Some(&[7; 100]));
        assert!(!log.repeats());
        looks.insert(log.look_at);
    }
    assert!((4..20).contains(&looks.len()), "{looks:?}");
}
