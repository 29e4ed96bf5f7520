//! What a plan costs: a cluster as large as they come, when all is well and when a member has gone.

use std::{collections::BTreeMap, hint::black_box};

use criterion::{Criterion, criterion_group, criterion_main};
use engine::membership::assign::{Before, Candidate, Members, Rules, assign};

const PARTITIONS: u32 = 1_000;
const MEMBERS: usize = 30;
const RULES: Rules = Rules {
    standbys: 1,
    acceptable_lag: 10_000,
};

fn members() -> Members {
    let member = |i: usize| {
        let candidate = Candidate {
            rack: Some(format!("rack-{}", i % 3)),
            positions: BTreeMap::new(),
        };
        (format!("instance-{i:02}"), candidate)
    };
    (0..MEMBERS).map(member).collect()
}

/// The plan for these members, and their stores up to date with it.
fn settled(mut members: Members) -> (Members, Vec<Before>) {
    let mut before = vec![Before::default(); PARTITIONS as usize];
    let shares = assign(&members, &before, RULES);
    for ((partition, share), before) in (0..).zip(shares).zip(&mut before) {
        for holder in share.owner.iter().chain(&share.standbys) {
            let candidate = members.get_mut(holder).expect("a member");
            candidate.positions.insert(partition, 1_000_000);
        }
        before.end = 1_000_000;
        before.share = share;
    }
    (members, before)
}

fn plan(c: &mut Criterion) {
    let (members, before) = settled(members());
    c.bench_function("assignor/all is well", |b| {
        b.iter(|| assign(black_box(&members), &before, RULES));
    });
    let mut fewer = members.clone();
    fewer.pop_first();
    c.bench_function("assignor/one has gone", |b| {
        b.iter(|| assign(black_box(&fewer), &before, RULES));
    });
}

criterion_group!(benches, plan);
criterion_main!(benches);
