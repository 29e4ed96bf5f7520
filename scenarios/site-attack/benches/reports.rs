//! The cost of a report: decoding it, counting its vote, and all of a task, with and without commits.

mod drain;

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use common::{
    avro::{Decoder, Encoder, Schema},
    schema::{SITE_ATTACK_REPORT, SiteAttackReport, SiteAttackVerdict},
    wire,
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use drain::Drain;
use engine::scenario::{Scenario as _, Tally as _, majority};
use site_attack::SiteAttack;

fn decode(c: &mut Criterion) {
    let schema = Schema::parse(1, SITE_ATTACK_REPORT).expect("a record schema");
    let decoder = Decoder::<SiteAttackReport>::new(SITE_ATTACK_REPORT).expect("a record schema");
    let report = SiteAttackReport {
        object_id: "site-0000042.example.com".into(),
        agent_id: "agent-7".into(),
        verdict: SiteAttackVerdict::UnderAttack,
        observed_at_ms: 1_700_000_000_000,
        sequence: 77,
        attack_kind: Some("http-flood".into()),
        requests_per_second: Some(1250.5),
        detail: None,
    };
    let encoder = Encoder::new(std::sync::Arc::new(
        Schema::parse(1, SITE_ATTACK_REPORT).expect("a record schema"),
    ));
    let framed = encoder.encode(&report).expect("it encodes");
    let (_, datum) = wire::split(&framed).expect("a frame");
    c.bench_function("decode", |b| {
        b.iter(|| decoder.decode(&schema, black_box(datum)));
    });
}

fn tally(c: &mut Criterion) {
    let scenario = SiteAttack::new(majority::Rules::default());
    let mut count = majority::Count::default();
    for _ in 0..9 {
        count.add(SiteAttackVerdict::Clear, 1);
    }
    c.bench_function("tally", |b| {
        b.iter(|| {
            count.add(black_box(SiteAttackVerdict::UnderAttack), 1);
            let decision = scenario.decide(&count);
            count.subtract(black_box(SiteAttackVerdict::UnderAttack), 1);
            decision
        });
    });
}

/// Reports in one measurement, and in one epoch.
const EPOCH: usize = 10_000;

fn task(c: &mut Criterion) {
    let mut group = c.benchmark_group("task");
    group
        .throughput(Throughput::Elements(EPOCH as u64))
        .sample_size(20);
    for (agents, objects) in [(10, 12_500), (1_000, 125)] {
        let mut drain = Drain::new(objects, agents);
        group.bench_function(format!("process/{agents} agents"), |b| {
            b.iter_custom(|times| timed(times, &mut drain, Drain::process));
        });
        group.bench_function(format!("process and commit/{agents} agents"), |b| {
            b.iter_custom(|times| {
                timed(times, &mut drain, |drain, reports| {
                    drain.process(reports);
                    drain.commit();
                })
            });
        });
    }
    group.finish();
}

/// The time of `times` epochs, without that of making the reports.
fn timed(times: u64, drain: &mut Drain, work: impl Fn(&mut Drain, &[drain::Encoded])) -> Duration {
    let mut total = Duration::ZERO;
    for _ in 0..times {
        let reports = drain.reports(EPOCH);
        let started = Instant::now();
        work(drain, &reports);
        total += started.elapsed();
        drain.commit();
    }
    total
}

criterion_group!(benches, decode, tally, task);
criterion_main!(benches);
