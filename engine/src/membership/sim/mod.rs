//! Deterministic simulation of the membership protocol, in the spirit of `FoundationDB` and
//! `TigerBeetle`: the real `Cluster`, `Holdings` and `assign` run on up to four machines against a
//! model of Kafka. Time is virtual, all chance comes from a seed, and each seed draws its own world
//! and faults: crashes, frozen processes, cut networks, outages, stalled readers, rows lost and
//! repeated, late fences, transactions timed out or of unknown outcome, other numbers of workers.
//!
//! At every commit: each partition has one history, the newest plan lists whoever commits, no plan
//! number is committed twice. After the faults: every partition runs at one owner that is present,
//! loads are even, standbys follow, everybody knows the same plan, and it stays so.
//!
//! A seed that fails prints what happened. `SIM_SEED` runs one again, `SIM_SCHEDULES` sets how many
//! there are and `SIM_FIRST` where they start; for long hunts, optimise this crate:
//! `cargo test --config profile.dev.package.engine.opt-level=2 -p engine --lib sim -- --nocapture`.

use std::{
    env,
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Instant,
};

mod beats;
mod event;
mod faults;
mod goal;
mod kafka;
mod life;
mod process;
mod random;
mod restorer;
mod rules;
mod seat;
mod tasks;
mod worker;
mod world;

use world::{Tally, World};

/// A rule that what surrounds the pure code breaks on purpose, to see that the simulation notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sabotage {
    /// A worker's new producer is used without reading the topics to their ends.
    NewProducerReadsNothing,
    /// An id that was fenced once counts as fenced for ever.
    OldFenceIsEnough,
    /// A plan lists the last owner and the new one, not those before.
    LastWriterOnly,
    /// An instance says that it has closed as soon as it reads the plan.
    ClosedAtOnce,
    /// An instance works before its row has been written.
    WorksUnannounced,
    /// Ids that the former incarnation had and this one has not are left alone. No longer noticed:
    /// whoever starts a partition fences them too.
    FormerIdsStay,
    /// A restore does not wait for open transactions.
    RestoresAmidTransactions,
    /// Kafka does not check the epoch of the leader's seat.
    DeposedLeaderMayWrite,
    /// A new leader plans without reading the topics to their ends.
    NewLeaderReadsNothing,
    /// The leader makes its next plan before it has read its last one.
    LeaderMissesItsPlan,
    /// A worker says that a task is closed while its commit is under way.
    ClosesBeforeItsCommit,
    /// The last row is written before the workers have ended.
    LeftTooEarly,
}

/// Runs one schedule.
fn run(seed: u64, sabotage: Option<Sabotage>, traced: bool) -> Result<Tally, String> {
    let mut world = World::new(seed, sabotage, traced);
    world.run();
    match world.violation.take() {
        Some(violation) => Err(format!("{}\n{violation}", world.trace())),
        None => Ok(world.tally),
    }
}

/// Runs seeds on every core: the first that breaks a rule, or what all did together.
fn hunt(seeds: Range<u64>, sabotage: Option<Sabotage>) -> Result<Tally, u64> {
    let next = AtomicU64::new(seeds.start);
    let found = AtomicU64::new(u64::MAX);
    let hunter = || {
        let mut total = Tally::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            // Every seed before the one that was found is run, so that the answer does not depend
            // on the threads.
            if seed >= seeds.end || seed > found.load(Ordering::Relaxed) {
                return total;
            }
            match run(seed, sabotage, false) {
                Ok(tally) => total.add(tally),
                Err(_) => drop(found.fetch_min(seed, Ordering::Relaxed)),
            }
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut total = Tally::default();
    thread::scope(|scope| {
        let hunters: Vec<_> = (0..cores).map(|_| scope.spawn(hunter)).collect();
        for hunter in hunters {
            total.add(hunter.join().unwrap());
        }
    });
    match found.into_inner() {
        u64::MAX => Ok(total),
        seed => Err(seed),
    }
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

#[test]
fn no_schedule_breaks_the_rules() {
    let (first, count) = match number("SIM_SEED") {
        Some(seed) => (seed, 1),
        None => (
            number("SIM_FIRST").unwrap_or(0),
            number("SIM_SCHEDULES").unwrap_or(800),
        ),
    };
    let begun = Instant::now();
    match hunt(first..first + count, None) {
        Ok(total) => println!("{count} schedules in {:?}: {total:?}", begun.elapsed()),
        Err(seed) => {
            let why = run(seed, None, true).unwrap_err();
            panic!("{why}\nagain: SIM_SEED={seed} cargo test -p engine --lib membership::sim");
        }
    }
}

/// Which of the first seeds notices that a rule is broken.
fn notices(rules: &[(Sabotage, u64)]) {
    for (rule, seeds) in rules {
        match hunt(0..*seeds, Some(*rule)) {
            Ok(_) => panic!("{rule:?} goes unnoticed in {seeds} schedules"),
            Err(seed) => {
                let why = run(seed, Some(*rule), false).unwrap_err();
                println!("{rule:?}: seed {seed}: {}", why.trim());
            }
        }
    }
}

#[test]
fn broken_rules_are_noticed() {
    notices(&[
        (Sabotage::NewProducerReadsNothing, 1_000),
        (Sabotage::LastWriterOnly, 500),
        (Sabotage::ClosedAtOnce, 100),
        (Sabotage::RestoresAmidTransactions, 100),
        (Sabotage::DeposedLeaderMayWrite, 100),
        (Sabotage::LeaderMissesItsPlan, 100),
        (Sabotage::ClosesBeforeItsCommit, 500),
        (Sabotage::LeftTooEarly, 500),
    ]);
}

#[test]
#[ignore = "takes longer; for whoever changes the simulation"]
fn rules_that_are_broken_rarely_are_noticed() {
    notices(&[
        (Sabotage::OldFenceIsEnough, 5_000),
        (Sabotage::NewLeaderReadsNothing, 5_000),
        (Sabotage::WorksUnannounced, 100_000),
    ]);
}
