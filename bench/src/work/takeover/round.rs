//! One fault, from a fresh application to what a client saw of it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use e2e::Application;
use reqwest::Method;
use serde::{Deserialize, Serialize};

use super::client::{Client, Load};
use super::phases::Phases;
use crate::input::{Sender, Shape};
use crate::lab::{Lab, PARTITIONS};
use crate::systems::{Instance, Variant};
use crate::topic;
use crate::work::waiting::all_committed;

/// How long a recovery may take. Kafka Streams' default session timeout alone is 45 s.
const PATIENCE: Duration = Duration::from_mins(4);
/// How long a client watches before the fault.
const BEFORE: Duration = Duration::from_secs(3);
/// How long it watches after all is well, for what comes later (partitions that move back).
const AFTER: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(50);

/// What is done to the owner of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// SIGKILL; it does not come back
    Kill,
    /// SIGTERM, and a new start as soon as it has ended
    Restart,
    /// SIGSTOP, and SIGCONT when another has taken over
    Zombie,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// The variant.
    pub variant: String,
    /// What was done.
    pub fault: Fault,
    /// Objects in the application.
    pub objects: usize,
    /// The longest time without an answer, in ms.
    pub reads_ms: f64,
    /// The longest time until a report was shown, in ms.
    pub writes_ms: f64,
    /// Answers that were older than one given before.
    pub stale: usize,
    /// From the start of the restarted process until it processes all that it should, in ms.
    pub ready_ms: Option<f64>,
    /// Where the time went.
    pub phases: Phases,
}

/// Loads an application, breaks its owner, watches.
pub(super) async fn round(
    lab: &Lab,
    variant: &Variant,
    fault: Fault,
    objects: usize,
) -> Result<Outcome> {
    let name = format!("{}, {fault:?}, {objects} objects", variant.name);
    let app = lab.application("takeover")?;
    let result = tell(lab, &app, variant, fault, objects).await;
    let outcome = result.with_context(|| format!("{name}\n{}", app.tails()))?;
    topic::delete_all(&app).await?;
    Ok(outcome)
}

async fn tell(
    lab: &Lab,
    app: &Application,
    variant: &Variant,
    fault: Fault,
    objects: usize,
) -> Result<Outcome> {
    lab.source_topic(app).await?;
    let mut instances = [variant.start(lab, app, "a")?, variant.start(lab, app, "b")?];
    for instance in &instances {
        instance.ready().await?;
    }
    fill(app, objects).await?;
    all_committed(app, PATIENCE).await?;
    settled(&instances, variant.standbys()).await?;

    let object = Shape::object(0);
    let victim = owner(&instances, &object).await?;
    let mut urls = Vec::new();
    for instance in &instances {
        urls.push(Some(instance.state_url(&object).await?));
    }
    let load = Load::start(Sender::to(app).await?, objects, 200);
    let mut client = Client::start(app, &object, urls).await?;
    tokio::time::sleep(BEFORE).await;
    well(&mut client).await?;

    let at = jiff::Timestamp::now();
    client.fault();
    let ready_ms = do_it(&mut instances[victim], fault, victim, &object, &client).await?;
    well(&mut client).await?;
    let recovered_ms = client.now_ms();
    if fault == Fault::Zombie {
        instances[victim].resume()?;
    }
    tokio::time::sleep(AFTER).await;
    well(&mut client).await?;
    let (seen, end_ms) = (client.seen(), client.now_ms() - 1_000.0);
    drop((client, load));
    let log = std::fs::read_to_string(instances[1 - victim].log())?;
    let measured_to = match fault {
        Fault::Kill | Fault::Restart => end_ms,
        // What its return does is another matter: stale answers.
        Fault::Zombie => recovered_ms,
    };
    Ok(Outcome {
        variant: variant.name.clone(),
        fault,
        objects,
        reads_ms: seen.longest_silence_ms(0.0, measured_to),
        writes_ms: seen.longest_write_ms(-200.0, measured_to - 1_000.0),
        stale: seen.stale(0.0),
        ready_ms,
        phases: match fault {
            Fault::Kill | Fault::Zombie => Phases::of(variant.system, &log, at, recovered_ms),
            Fault::Restart => Phases::default(),
        },
    })
}

async fn do_it(
    owner: &mut Instance,
    fault: Fault,
    index: usize,
    object: &str,
    client: &Client,
) -> Result<Option<f64>> {
    match fault {
        Fault::Kill => owner.kill().await?,
        Fault::Zombie => owner.pause()?,
        Fault::Restart => {
            owner.terminate().await?;
            client.set_url(index, None);
            let started_ms = client.now_ms();
            owner.restart().await?;
            client.set_url(index, Some(owner.state_url(object).await?));
            owner.ready().await?;
            return Ok(Some(client.now_ms() - started_ms));
        }
    }
    Ok(None)
}

/// Two agents report about every object.
async fn fill(app: &Application, objects: usize) -> Result<()> {
    let shape = Shape {
        reports: 2 * objects as u64,
        objects,
        agents: 2,
        seed: 1,
        disorder: false,
    };
    let sender = Sender::to(app).await?;
    let now_ms = jiff::Timestamp::now().as_millisecond();
    tokio::task::block_in_place(|| sender.send_all(shape.reports(now_ms)))?;
    Ok(())
}

/// Waits until both have their share, and the standbys are where they belong and have caught up.
async fn settled(instances: &[Instance; 2], standbys: u32) -> Result<()> {
    let share = PARTITIONS / 2;
    e2e::eventually("both have their share", PATIENCE, async || {
        for instance in instances {
            match instance {
                Instance::Streams(peer) => {
                    let tasks = peer.tasks().await?;
                    let wanted = (share, share * standbys.min(1));
                    let there = (tasks.active_tasks, tasks.standby_tasks);
                    // A standby at the end still counts the marker of the last transaction as lag.
                    let lag = i64::from(tasks.standby_tasks);
                    ensure!(there == wanted && tasks.lag <= lag, "{tasks:?}");
                }
                Instance::Ours(service) => {
                    let api = service.api().await?;
                    let cluster = api.request(Method::GET, "/v1/cluster", None).await?;
                    let cluster: Cluster = cluster.json()?;
                    let own = cluster.own_running(service.name());
                    let followed = cluster.tasks.iter().all(|task| task.followed(standbys));
                    ensure!(own == share as usize && followed, "{cluster:?}");
                }
            }
        }
        Ok(())
    })
    .await
}

/// What our API tells of the partitions.
#[derive(Debug, Deserialize)]
struct Cluster {
    tasks: Vec<Task>,
}

#[derive(Debug, Deserialize)]
struct Task {
    owner: Option<String>,
    running: bool,
    standbys: Vec<Standby>,
}

#[derive(Debug, Deserialize)]
struct Standby {
    lag: Option<i64>,
}

impl Cluster {
    fn own_running(&self, instance: &str) -> usize {
        let own = |task: &&Task| task.running && task.owner.as_deref() == Some(instance);
        self.tasks.iter().filter(own).count()
    }
}

impl Task {
    /// Has it so many standbys, all at the end of the changelog?
    fn followed(&self, standbys: u32) -> bool {
        self.standbys.len() == standbys as usize
            && self.standbys.iter().all(|standby| standby.lag == Some(0))
    }
}

async fn owner(instances: &[Instance; 2], object: &str) -> Result<usize> {
    for (index, instance) in instances.iter().enumerate() {
        if instance.owns(object).await? {
            return Ok(index);
        }
    }
    bail!("nobody owns {object}")
}

/// Waits until reads are answered and reports shown.
async fn well(client: &mut Client) -> Result<()> {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        tokio::time::sleep(LOOK).await;
        client.check().await?;
        if client.seen().is_well(client.now_ms()) {
            return Ok(());
        }
        ensure!(
            std::time::Instant::now() < deadline,
            "not well after {PATIENCE:?}"
        );
    }
}
