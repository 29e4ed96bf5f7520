//! The assignor's properties over random clusters and their changes.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const LAG: i64 = 100;
const END: i64 = 1_000;

fn rules(standbys: usize) -> Rules {
    Rules {
        standbys,
        acceptable_lag: LAG,
    }
}

fn member(rack: Option<&str>, positions: &[(u32, i64)]) -> Candidate {
    Candidate {
        rack: rack.map(str::to_owned),
        positions: positions.iter().copied().collect(),
    }
}

fn members(of: &[(&str, Candidate)]) -> Members {
    of.iter()
        .map(|(id, member)| ((*id).to_owned(), member.clone()))
        .collect()
}

/// The partitions as a plan with these shares leaves them, with changelogs up to `end`.
fn after(shares: &[Share], end: i64) -> Vec<Before> {
    let before = shares.iter().map(|share| Before {
        share: share.clone(),
        end,
        expected_back: false,
    });
    before.collect()
}

fn unassigned(partitions: usize, end: i64) -> Vec<Before> {
    after(&vec![Share::default(); partitions], end)
}

fn owned_by(owner: &str, standbys: &[&str]) -> Share {
    Share {
        owner: Some(owner.to_owned()),
        standbys: standbys.iter().map(|s| (*s).to_owned()).collect(),
        warming_up: None,
    }
}

fn count<'a>(
    members: &'a Members,
    of: impl Iterator<Item = &'a InstanceId>,
) -> BTreeMap<&'a InstanceId, usize> {
    let mut counts: BTreeMap<&InstanceId, usize> = members.keys().map(|m| (m, 0)).collect();
    for id in of {
        *counts.entry(id).or_default() += 1;
    }
    counts
}

fn spread(counts: &BTreeMap<&InstanceId, usize>) -> usize {
    let most = counts.values().max().copied().unwrap_or(0);
    most - counts.values().min().copied().unwrap_or(0)
}

fn candidates(partitions: u32) -> impl Strategy<Value = Members> {
    let rack = proptest::option::of("[xyz]");
    let positions = proptest::collection::btree_map(0..partitions, 0..=END, 0..8);
    let candidate = (rack, positions).prop_map(|(rack, positions)| Candidate { rack, positions });
    proptest::collection::btree_map("[a-h]", candidate, 1..6)
}

proptest! {
    #[test]
    fn shares_are_valid_whatever_was_before(
        first in candidates(24),
        second in candidates(24),
        partitions in 1..24usize,
        standbys in 0..3usize,
    ) {
        let before = after(&assign(&first, &unassigned(partitions, END), rules(standbys)), END);
        let shares = assign(&second, &before, rules(standbys));
        prop_assert_eq!(shares.len(), partitions);
        for (share, before) in shares.iter().zip(&before) {
            let owner = share.owner.as_ref().unwrap();
            prop_assert!(second.contains_key(owner));
            prop_assert!(!share.standbys.contains(owner), "a standby beside its active: {:?}", share);
            let distinct: BTreeSet<_> = share.standbys.iter().collect();
            prop_assert_eq!(distinct.len(), standbys.min(second.len() - 1));
            prop_assert!(distinct.iter().all(|standby| second.contains_key(*standby)));
            if let Some(next) = &share.warming_up {
                prop_assert_ne!(next, owner);
                prop_assert_eq!(&before.share.owner, &share.owner, "what warms up has not moved");
            }
        }
        // Where everything is going is balanced, whoever has caught up.
        let going = shares.iter().filter_map(|s| s.warming_up.as_ref().or(s.owner.as_ref()));
        let going = count(&second, going);
        prop_assert!(spread(&going) <= 1, "{:?}", going);
    }

    #[test]
    fn nothing_moves_without_a_reason(
        members in candidates(24),
        partitions in 1..24usize,
        standbys in 0..3usize,
    ) {
        let once = assign(&members, &unassigned(partitions, END), rules(standbys));
        let twice = assign(&members, &after(&once, END), rules(standbys));
        prop_assert_eq!(twice, once);
    }

    #[test]
    fn a_change_settles_at_once(
        first in candidates(24),
        second in candidates(24),
        partitions in 1..24usize,
        standbys in 0..3usize,
    ) {
        let before = after(&assign(&first, &unassigned(partitions, END), rules(standbys)), END);
        let once = assign(&second, &before, rules(standbys));
        let twice = assign(&second, &after(&once, END), rules(standbys));
        prop_assert_eq!(twice, once);
    }

    #[test]
    fn only_what_must_move_moves(
        first in candidates(24),
        second in candidates(24),
        partitions in 1..24usize,
    ) {
        let before = assign(&first, &unassigned(partitions, 0), rules(0));
        let shares = assign(&second, &after(&before, 0), rules(0));
        for member in first.keys().filter(|m| second.contains_key(*m)) {
            let is = |share: &&Share| share.owner.as_ref() == Some(member);
            let had = before.iter().filter(is).count();
            let kept = before.iter().zip(&shares).filter(|(b, s)| is(b) && is(s)).count();
            let fair = partitions / second.len();
            prop_assert!(kept >= had.min(fair), "{member} had {had}, kept {kept} of a share of {fair}");
        }
        let owners = count(&second, shares.iter().filter_map(|s| s.owner.as_ref()));
        prop_assert!(spread(&owners) <= 1, "{:?}", owners);
    }

    #[test]
    fn standbys_are_spread_over_racks_and_members(
        members in candidates(24),
        partitions in 1..24usize,
    ) {
        let shares = assign(&members, &unassigned(partitions, 0), rules(1));
        let rack = |id: &InstanceId| members[id].rack.clone();
        for share in &shares {
            let owner = share.owner.as_ref().unwrap();
            let is_elsewhere = |id: &InstanceId| rack(id).is_none() || rack(id) != rack(owner);
            let elsewhere = members.keys().any(|id| id != owner && is_elsewhere(id));
            if elsewhere && rack(owner).is_some() {
                prop_assert!(share.standbys.iter().all(is_elsewhere), "{:?}", share);
            }
        }
        if members.values().all(|m| m.rack.is_none()) {
            let standbys = count(&members, shares.iter().flat_map(|s| &s.standbys));
            prop_assert!(spread(&standbys) <= 1, "{:?}", standbys);
        }
    }

    #[test]
    fn an_orphan_goes_to_the_most_caught_up(members in candidates(1)) {
        let share = &assign(&members, &unassigned(1, END), rules(0))[0];
        let owner = share.owner.as_ref().unwrap();
        let position = |id: &InstanceId| members[id].positions.get(&0).copied().unwrap_or(0);
        let best = members.keys().map(position).max().unwrap();
        let enough = best.min(END - LAG);
        prop_assert!(position(owner) >= enough, "{} has {}, the best {}", owner, position(owner), best);
    }
}

#[test]
fn nobody_present_means_nobody_owns() {
    let shares = assign(&Members::new(), &unassigned(2, 0), rules(1));
    assert_eq!(shares, vec![Share::default(); 2]);
}

#[test]
fn the_standby_takes_over() {
    let members = members(&[
        ("b", member(None, &[(0, END), (1, END)])),
        ("c", member(None, &[(0, END)])),
    ]);
    let before = after(&[owned_by("a", &["c"]), owned_by("b", &["c"])], END);
    let shares = assign(&members, &before, rules(1));
    assert_eq!(shares[0], owned_by("c", &["b"]));
    assert_eq!(shares[1], owned_by("b", &["c"]));
}

#[test]
fn a_new_member_warms_up_before_it_owns() {
    let full: &[(u32, i64)] = &[(0, END), (1, END)];
    let before = after(&[owned_by("a", &[]), owned_by("a", &[])], END);
    let cold = members(&[("a", member(None, full)), ("b", member(None, &[]))]);
    let shares = assign(&cold, &before, rules(0));
    let warming = Share {
        warming_up: Some("b".into()),
        ..owned_by("a", &[])
    };
    assert_eq!(shares, [warming, owned_by("a", &[])]);
    let warm = members(&[
        ("a", member(None, full)),
        ("b", member(None, &[(0, END - LAG)])),
    ]);
    let shares = assign(&warm, &after(&shares, END), rules(0));
    assert_eq!(shares, [owned_by("b", &[]), owned_by("a", &[])]);
}

#[test]
fn an_owner_that_may_be_back_keeps_what_nobody_has() {
    let mut before = after(&[owned_by("a", &[]), owned_by("a", &[])], END);
    before[0].expected_back = true;
    let others = members(&[("b", member(None, &[]))]);
    let shares = assign(&others, &before, rules(0));
    assert_eq!(shares, [owned_by("a", &[]), owned_by("b", &[])]);
    let standby = members(&[("b", member(None, &[(0, END)]))]);
    let shares = assign(&standby, &before, rules(0));
    assert_eq!(shares, [owned_by("b", &[]), owned_by("b", &[])]);
}
