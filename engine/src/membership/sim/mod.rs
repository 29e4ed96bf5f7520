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
//! What is not here: several versions at once, racks, a second process with the same instance id (a
//! lock on its folder forbids it), loss of data in Kafka, Kafka's own timeout of transactions in the
//! last part (whoever needs it to go on would be found).
//!
//! Lines of the real code were broken by hand too. The number is the first seed that noticed; it changes
//! with the model, its size is what matters:
//!
//! | Broken | Noticed by |
//! |---|---|
//! | an owner does not look for its own id on the list of writers | 1,035 |
//! | own ids of earlier processes are taken for fenced | 13,791 |
//! | late rows of dead processes are believed | 3,178,747 |
//! | a fence for an earlier plan is accepted | 283 |
//! | closed is said without looking at what is held | 20 |
//! | closed is said before the producers are initialised | not in 20,000: a former process is dead |
//! | a start is confirmed before it runs | 22 |
//! | a start for an earlier assignment confirms a later one | 19,390 |
//! | an assignment that changed hands keeps its old number | 11 |
//! | a task goes on under a later assignment | 1,120 |
//! | a restore that no longer fits goes on | 18 |
//! | what is restored after it was given up is opened | 235 |
//! | tasks of a worker that ended are kept | 1 |
//! | restores for a worker that ended go on | 4,458 |
//! | a worker that is not ready is given tasks | 0 |
//! | plans do not look at incarnations | 20 |
//! | a writer that is present but no member is waited for | 25 |
//! | rows that are no beats measure time | 6,046 |
//! | a plan of another leader that fits is left | not in 20,000: its members differ anyway |
//!
//! A seed that fails prints what happened. `SIM_SEED` runs one again, `SIM_SCHEDULES` sets how many
//! there are and `SIM_FIRST` where they start. A debug build runs some two hundred schedules a second beside other work.
//! For long hunts, optimise this crate: half a millisecond of processor time each, so thousands a second on two cores:
//! `cargo test --config profile.dev.package.engine.opt-level=3 -p engine --lib sim -- --nocapture`.

use std::{
    env,
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
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
        Ok(total) => {
            let took = begun.elapsed();
            let a_second =
                Duration::from_secs(1).as_nanos() * u128::from(count) / took.as_nanos().max(1);
            println!("{count} schedules in {took:?}, {a_second} a second: {total:?}");
        }
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
        (Sabotage::LastWriterOnly, 1_000),
        (Sabotage::ClosedAtOnce, 200),
        (Sabotage::RestoresAmidTransactions, 200),
        (Sabotage::DeposedLeaderMayWrite, 200),
        (Sabotage::LeaderMissesItsPlan, 200),
        (Sabotage::ClosesBeforeItsCommit, 500),
        (Sabotage::LeftTooEarly, 1_000),
    ]);
}

#[test]
#[ignore = "takes longer; for whoever changes the simulation"]
fn rules_that_are_broken_rarely_are_noticed() {
    notices(&[
        (Sabotage::OldFenceIsEnough, 10_000),
        (Sabotage::NewLeaderReadsNothing, 10_000),
        (Sabotage::WorksUnannounced, 100_000),
    ]);
}
