//! A run: faults by the plan, a check after every round and at the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::api::Task;
use tokio::task::{JoinSet, LocalSet};

use crate::checker::{Checker, Class, Finding, api};
use crate::dump;
use crate::faults::inject::{Done, inject};
use crate::now_ms;
use crate::options::Options;
use crate::plan::Plan;
use crate::report::{self, Report};
use crate::world::World;

/// How long it may take until everything that was written has been processed, with nothing broken any more.
const REST: Duration = Duration::from_secs(60);

struct Run {
    world: Arc<World>,
    /// None while it is at work.
    checker: Option<Checker>,
    start_ms: i64,
    done: Vec<Done>,
    findings: Vec<Finding>,
    report: Report,
}

/// Runs a soak; returns what is to be told of it.
///
/// # Errors
/// The soak itself cannot go on: a server does not start, the brokers do not answer it.
pub async fn run(options: &Options, seed: u64) -> Result<Report> {
    println!(
        "starting {} brokers, a registry, {} instances",
        options.brokers, options.instances
    );
    let (world, checker) = World::start(options, seed).await?;
    let folder = world.app.folder().to_owned();
    println!("seed {seed}; logs and states are in {}", folder.display());
    let mut run = Run {
        world: Arc::new(world),
        checker: Some(checker),
        start_ms: now_ms(),
        done: Vec::new(),
        findings: Vec::new(),
        report: Report {
            command: options.repeated_by(seed),
            ..Report::default()
        },
    };
    // Waiting for conditions is not `Send`, so the faults share one thread; what takes long is not done on it.
    let ran = LocalSet::new().run_until(run.all(options, seed)).await;
    run.world.probes.end();
    let report = std::mem::take(&mut run.report);
    if ran.is_err() || !run.findings.is_empty() {
        run.keep(&folder).await;
    } else if !options.keep {
        // Nobody writes to it any more.
        drop(run);
        let removed = std::fs::remove_dir_all(&folder);
        removed.with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    ran.map(|()| report)
}

impl Run {
    async fn all(&mut self, options: &Options, seed: u64) -> Result<()> {
        let mut plan = Plan::new(seed, &options.kinds());
        let length = Duration::from_secs_f64(options.minutes * 60.0);
        let mut spent = Duration::ZERO;
        while spent < length && self.findings.is_empty() {
            let left = (length - spent).min(options.round);
            self.world.writer.go();
            spent += self
                .break_things(&mut plan, left, usize::from(options.overlap))
                .await?;
            self.report.seconds = spent.as_secs();
            self.check().await?;
        }
        self.end().await
    }

    /// Injects faults for so long, and waits until the last is healed. Returns how long it took.
    async fn break_things(
        &mut self,
        plan: &mut Plan,
        length: Duration,
        overlap: usize,
    ) -> Result<Duration> {
        let start = Instant::now();
        let mut under_way = JoinSet::new();
        while start.elapsed() < length {
            let Some(step) = plan.next() else { break };
            // The pause is the plan's.
            tokio::time::sleep(step.pause).await;
            while under_way.len() >= overlap {
                let done = under_way.join_next().await;
                self.told(done.context("faults are under way")??);
            }
            let world = Arc::clone(&self.world);
            under_way.spawn_local(async move { inject(&world, &step).await });
        }
        while let Some(done) = under_way.join_next().await {
            self.told(done?);
        }
        Ok(start.elapsed())
    }

    fn told(&mut self, done: Done) {
        println!("{}", report::line(&done, self.start_ms));
        self.report.fault(&done);
        self.done.push(done.clone());
        if let Some(why) = &done.unhealed {
            let victim = done.victim.as_deref().unwrap_or("the cluster");
            let what = format!(
                "#{} {} of {victim} did not heal: {why}",
                done.step.number, done.step.kind
            );
            self.found(vec![
                Finding::new(Class::Wrong, "healing", what).at(done.from_ms),
            ]);
        }
    }

    fn found(&mut self, findings: Vec<Finding>) {
        for finding in findings {
            println!("FOUND {finding}");
            self.report.finding(&finding, &self.done);
            self.findings.push(finding);
        }
    }

    /// Lets the cluster come to rest, and compares.
    async fn check(&mut self) -> Result<()> {
        let start = Instant::now();
        let alive = self.alive().await?;
        self.found(alive);
        let world = Arc::clone(&self.world);
        let mut checker = self.checker.take().context("the checker is at work")?;
        let round = move || {
            let written = world.writer.rest()?;
            let rested = start.elapsed();
            let found = checker.round(written, REST)?;
            anyhow::Ok((checker, found, rested))
        };
        let (mut checker, found, rested) = tokio::task::spawn_blocking(round).await??;
        self.found(found);
        let world = Arc::clone(&self.world);
        let runtime = tokio::runtime::Handle::current();
        let lists = move || {
            let found = checker.compare_lists(|| runtime.block_on(list(&world)))?;
            anyhow::Ok((checker, found))
        };
        let (checker, found) = tokio::task::spawn_blocking(lists).await??;
        let (expiries, late_ms) = checker.expiries();
        (self.report.expiries, self.report.late_ms) = (expiries, late_ms);
        self.report.records = checker.checked();
        self.report.twins = checker.twins();
        self.checker = Some(checker);
        self.found(found);
        self.report.rounds += 1;
        let took = start.elapsed() - rested;
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.report.check_ms = self.report.check_ms.max(took_ms);
        println!(
            "round {}: {} faults, {} records, {expiries} expiries, {} findings; at rest in {:.1} s, checked in {:.1} s",
            self.report.rounds,
            self.report.faults(),
            self.report.records,
            self.findings.len(),
            rested.as_secs_f64(),
            took.as_secs_f64()
        );
        Ok(())
    }

    /// No instance has ended by itself, and each is ready.
    async fn alive(&self) -> Result<Vec<Finding>> {
        let mut findings = Vec::new();
        for instance in &self.world.instances {
            let mut service = instance.service.lock().await;
            let what = match service.ended() {
                Ok(None) => match service.ready().await {
                    Ok(()) => continue,
                    Err(error) => format!("{} is not ready: {error:#}", instance.name),
                },
                Ok(Some(code)) => format!(
                    "{} ended by itself with exit code {code}\n{}",
                    instance.name,
                    service.end_of_log()
                ),
                Err(error) => format!("{}: {error:#}", instance.name),
            };
            findings.push(Finding::new(Class::Wrong, "healing", what));
        }
        Ok(findings)
    }

    /// Every holder that the plan names has come to the changelog's end: at rest, a standby that lags does not follow.
    async fn caught_up(&self) -> Vec<Finding> {
        let look = async || {
            let cluster = self.world.cluster("").await?;
            let present = cluster.instances.iter().filter(|i| i.present).count();
            let tasks = cluster.tasks.iter();
            let behind: Vec<_> = tasks.filter(|task| !holds(task, present > 1)).collect();
            ensure!(!cluster.tasks.is_empty() && behind.is_empty(), "{behind:?}");
            Ok(())
        };
        let what = "every owner runs and every standby is at the changelog's end";
        match e2e::eventually(what, REST, look).await {
            Ok(()) => Vec::new(),
            Err(error) => vec![Finding::new(Class::Wrong, "standbys", error.to_string())],
        }
    }

    /// Stops all instances in order, and compares what they leave on disk.
    async fn end(&mut self) -> Result<()> {
        let mut findings = self.caught_up().await;
        for instance in &self.world.instances {
            instance.hide();
            let mut service = instance.service.lock().await;
            let what = match service.terminate().await {
                Ok(0) => continue,
                Ok(code) => format!(
                    "{} was told to end and did with exit code {code}\n{}",
                    instance.name,
                    service.end_of_log()
                ),
                Err(error) => format!("{} does not end: {error:#}", instance.name),
            };
            findings.push(Finding::new(Class::Wrong, "healing", what));
        }
        self.found(findings);
        let states = self.world.state_dirs()?;
        let mut checker = self.checker.take().context("the checker is at work")?;
        let stores = move || {
            let found = checker.compare_stores(&states)?;
            anyhow::Ok((checker, found))
        };
        let (checker, found) = tokio::task::spawn_blocking(stores).await??;
        self.checker = Some(checker);
        self.found(found);
        Ok(())
    }

    /// Puts everything that helps to understand a failure into the folder.
    async fn keep(&self, folder: &std::path::Path) {
        let kept = dump::write(folder, &self.done, &self.findings, &self.world.app).await;
        if let Err(error) = kept {
            println!("not everything could be kept: {error:#}");
        }
        println!(
            "states, logs, faults, findings and topics are kept in {}",
            folder.display()
        );
    }
}

/// Does its owner run it, and lacks no standby anything? There is one at least, if somebody else can be it.
fn holds(task: &Task, others: bool) -> bool {
    let followed = !others || !task.standbys.is_empty();
    task.running && followed && task.standbys.iter().all(|s| s.lag == Some(0))
}

/// What every instance lists.
async fn list(world: &World) -> Result<Vec<api::Listed>> {
    let mut lists = Vec::new();
    for instance in &world.instances {
        let Some(api) = instance.api() else { continue };
        lists.push(api::list(&instance.name, &api).await?);
    }
    Ok(lists)
}

#[cfg(test)]
mod tests {
    use e2e::api::Standby;

    use super::*;

    #[test]
    fn a_partition_is_held_when_its_owner_runs_and_its_standbys_lack_nothing() {
        let standby = |lag| Standby {
            instance: "i1".to_owned(),
            lag,
        };
        let cases = [
            (true, vec![standby(Some(0))], true, true),
            (false, vec![standby(Some(0))], true, false),
            (true, vec![standby(Some(1))], true, false),
            (true, vec![standby(Some(0)), standby(None)], true, false),
            // Nobody follows: right only if there is nobody else.
            (true, vec![], true, false),
            (true, vec![], false, true),
        ];
        for (running, standbys, others, expected) in cases {
            let task = Task {
                partition: 0,
                owner: Some("i0".to_owned()),
                running,
                standbys,
            };
            assert_eq!(holds(&task, others), expected, "{task:?}, others: {others}");
        }
    }
}
