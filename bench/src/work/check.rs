//! Do both come to the same states by the same transitions?
//!
//! Records of one object are in one partition and so come to both in the same order; nothing expires. So every
//! field of every transition must be equal, but for the time at which it was made.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use common::schema::{SiteAttackReport, State};
use serde::Serialize;

use super::waiting::all_committed;
use crate::input::{Sender, Shape};
use crate::lab::Lab;
use crate::systems::{self, System, Variant};

/// How long a system may take to work off the input.
const PATIENCE: Duration = Duration::from_mins(5);

/// What to check with.
#[derive(Clone, Debug, Serialize, clap::Args)]
pub struct Args {
    /// Reports to send, some of them out of order or twice
    #[arg(long, default_value_t = 200_000)]
    reports: u64,
    /// Objects that they are about
    #[arg(long, default_value_t = 5_000)]
    objects: usize,
    /// Agents that send them
    #[arg(long, default_value_t = 10)]
    agents: usize,
    /// Other seeds make other reports
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Fewer votes than this decide nothing
    #[arg(long, default_value_t = 4)]
    quorum: u32,
    /// Differences to show
    #[arg(long, default_value_t = 5)]
    show: usize,
}

/// What a system made of the reports.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    /// Its transitions, in their order, by object.
    transitions: BTreeMap<String, Vec<State>>,
    /// What it answers at the end, by object.
    answers: BTreeMap<String, Option<State>>,
}

/// Gives both the same reports and compares.
///
/// # Errors
/// They differ, or one did not finish.
pub async fn run(lab: &Lab, args: &Args) -> Result<()> {
    let shape = Shape {
        reports: args.reports,
        objects: args.objects,
        agents: args.agents,
        seed: args.seed,
        disorder: true,
    };
    let now_ms = jiff::Timestamp::now().as_millisecond();
    let reports: Vec<_> = shape.reports(now_ms).collect();
    let quorum = args.quorum.to_string();
    let ours = [("freshness", "24h"), ("quorum", quorum.as_str())];
    let ours = Variant::new("ours", System::Ours, &ours);
    let streams = [("freshness.ms", "86400000"), ("quorum", quorum.as_str())];
    let streams = Variant::new("streams", System::Streams, &streams);
    let ours = outcome(lab, &ours, &reports).await?;
    let streams = outcome(lab, &streams, &reports).await?;
    let differences = compare(&ours, &streams);
    let count = |outcome: &Outcome| outcome.transitions.values().map(Vec::len).sum::<usize>();
    println!(
        "{} reports, {} objects: {} transitions by ours, {} by Kafka Streams; {} differences",
        reports.len(),
        ours.transitions.len(),
        count(&ours),
        count(&streams),
        differences.len()
    );
    ensure!(
        count(&ours) > 0,
        "there was nothing to compare: no transitions"
    );
    if !differences.is_empty() {
        for difference in differences.iter().take(args.show) {
            println!("{difference}\n");
        }
        bail!("they differ in {} places", differences.len());
    }
    Ok(())
}

async fn outcome(lab: &Lab, variant: &Variant, reports: &[SiteAttackReport]) -> Result<Outcome> {
    eprintln!("{}: sending {} reports", variant.name, reports.len());
    let app = lab.application(&format!("check-{}", variant.name))?;
    lab.source_topic(&app).await?;
    let sender = Sender::to(&app).await?;
    sender.send_all(reports.iter().cloned())?;
    let mut instance = variant.start(lab, &app, "a")?;
    instance.ready().await?;
    eprintln!("{}: waiting until all are processed", variant.name);
    all_committed(&app, PATIENCE).await?;
    let mut outcome = Outcome::default();
    for (record, state) in app.topics()?.states().await? {
        let Some(state) = state else {
            bail!("{} was deleted, and nobody ordered it", record.key_text());
        };
        ensure!(record.key_text() == state.object_id, "{state:?}");
        let transitions = outcome.transitions.entry(record.key_text()).or_default();
        transitions.push(without_time(state));
    }
    eprintln!("{}: asking for every object", variant.name);
    let client = systems::client(Duration::from_secs(10))?;
    for object in outcome.transitions.keys() {
        let url = instance.state_url(object).await?;
        let state = systems::read(&client, &url).await?;
        outcome
            .answers
            .insert(object.clone(), state.map(without_time));
    }
    instance.terminate().await?;
    Ok(outcome)
}

/// Each made its transitions when it did.
fn without_time(state: State) -> State {
    State {
        since_ms: 0,
        ..state
    }
}

/// One text for each object that differs.
fn compare(ours: &Outcome, streams: &Outcome) -> Vec<String> {
    let objects = ours.transitions.keys().chain(streams.transitions.keys());
    let mut objects: Vec<_> = objects.collect();
    objects.sort();
    objects.dedup();
    let mut differences = Vec::new();
    for object in objects {
        let of = |outcome: &Outcome| outcome.transitions.get(object).cloned().unwrap_or_default();
        let (left, right) = (of(ours), of(streams));
        if let Some(at) = (0..left.len().max(right.len())).find(|i| left.get(*i) != right.get(*i)) {
            let (left, right) = (left.get(at), right.get(at));
            differences.push(format!(
                "transition {} of {object}:\nours    {left:?}\nstreams {right:?}",
                at + 1
            ));
            continue;
        }
        let (left, right) = (ours.answers.get(object), streams.answers.get(object));
        if left != right {
            differences.push(format!(
                "answer about {object}:\nours    {left:?}\nstreams {right:?}"
            ));
        }
    }
    differences
}

#[cfg(test)]
mod tests {
    use common::schema::{Basis, Cause};

    use super::*;

    fn state(version: i64, since_ms: i64) -> State {
        State {
            object_id: "a".into(),
            scenario: "s".into(),
            verdict: "CLEAR".into(),
            previous_verdict: None,
            basis: Basis::Votes,
            cause: Cause::Vote,
            since_ms,
            version,
            votes: Vec::new(),
            override_: None,
        }
    }

    fn outcome(versions: &[i64], answer: i64) -> Outcome {
        let transitions = versions.iter().map(|v| without_time(state(*v, *v)));
        Outcome {
            transitions: [("a".to_owned(), transitions.collect())].into(),
            answers: [("a".to_owned(), Some(without_time(state(answer, 9))))].into(),
        }
    }

    #[test]
    fn differences_are_found_and_times_are_none() {
        let one = outcome(&[1, 2], 2);
        assert!(compare(&one, &outcome(&[1, 2], 2)).is_empty());
        for (other, what) in [
            (outcome(&[1, 3], 2), "transition 2 of a"),
            (outcome(&[1], 2), "transition 2 of a"),
            (outcome(&[1, 2, 3], 2), "transition 3 of a"),
            (outcome(&[1, 2], 3), "answer about a"),
            (Outcome::default(), "transition 1 of a"),
        ] {
            let found = compare(&one, &other);
            assert!(
                found.len() == 1 && found[0].starts_with(what),
                "{what}: {found:?}"
            );
        }
    }
}
