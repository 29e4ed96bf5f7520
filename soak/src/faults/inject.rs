//! Does a step of the plan, waits until it is healed, and measures.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::api::Cluster;
use e2e::{PATIENCE, Service};
use serde::Serialize;

use super::{Kind, agents, answers, brokers, disk, network, process};
use crate::instance::Instance;
use crate::now_ms;
use crate::plan::Step;
use crate::world::World;

/// What a fault did.
#[derive(Clone, Debug, Serialize)]
pub struct Done {
    /// The step of the plan.
    pub step: Step,
    /// When, in ms since 1970.
    pub from_ms: i64,
    /// When it was healed.
    pub to_ms: i64,
    /// Whom it hit.
    pub victim: Option<String>,
    /// What is worth saying about it.
    pub note: String,
    /// Did it come to nothing? Such a request was not made, say, or nothing was written meanwhile.
    pub missed: bool,
    /// How long until survivors served all of the victim's partitions, in ms.
    pub takeover_ms: Option<i64>,
    /// The longest pause of a partition that was hit, in ms.
    pub pause_ms: Option<i64>,
    /// The longest pause of a partition that was not, in ms.
    pub untouched_ms: Option<i64>,
    /// Why it did not heal.
    pub unhealed: Option<String>,
}

/// What a fault tells of itself.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// What is worth saying about it.
    pub note: String,
    /// Did it come to nothing?
    pub missed: bool,
    /// How long until survivors served all of the victim's partitions.
    pub takeover: Option<Duration>,
}

impl Told {
    /// A note and nothing else.
    pub fn note(note: impl Into<String>) -> Self {
        Self {
            note: note.into(),
            ..Self::default()
        }
    }

    /// It came to nothing: why.
    pub fn missed(note: impl Into<String>) -> Self {
        Self {
            missed: true,
            ..Self::note(note)
        }
    }
}

/// An instance that is to be broken, and what it does now.
pub struct Scene<'w> {
    /// The cluster that it is part of.
    pub world: &'w World,
    /// The instance.
    pub victim: &'w Instance,
    /// The partitions that it processes.
    pub owned: Vec<u32>,
    /// What is to be done.
    pub step: &'w Step,
}

/// Does this step. It never fails: what does not heal is told in the result.
pub async fn inject(world: &World, step: &Step) -> Done {
    let mut done = Done {
        step: step.clone(),
        from_ms: now_ms(),
        to_ms: 0,
        victim: None,
        note: String::new(),
        missed: false,
        takeover_ms: None,
        pause_ms: None,
        untouched_ms: None,
        unhealed: None,
    };
    let result = match step.kind {
        Kind::BrokerRestart | Kind::BrokerKill | Kind::BrokerPause | Kind::LeaderKill => {
            on_brokers(world, step, &mut done).await
        }
        Kind::Join => on_newcomer(world, step, &mut done).await,
        Kind::AgentClock => {
            done.note = agents::clock(world, step).await;
            Ok(())
        }
        _ => on_instance(world, step, &mut done).await,
    };
    done.to_ms = now_ms();
    done.unhealed = result.err().map(|error| format!("{error:#}"));
    done
}

async fn on_instance(world: &World, step: &Step, done: &mut Done) -> Result<()> {
    let index = usize::try_from(step.target)? % world.instances.len();
    let victim = &world.instances[index];
    let mut service = victim.service.lock().await;
    done.victim = Some(victim.name.clone());
    ensure!(
        service.ended()?.is_none(),
        "{} had ended by itself\n{}",
        victim.name,
        service.end_of_log()
    );
    let before = seen(world, &victim.name).await?;
    let scene = Scene {
        world,
        victim,
        owned: running(&before, &victim.name),
        step,
    };
    done.from_ms = now_ms();
    let trouble = world.begin_trouble(Some(&victim.name), done.from_ms);
    victim.hide();
    let told = act(&scene, &mut service).await;
    let healed = async {
        let told = told?;
        victim.show(world, &service).await?;
        shares(world, &victim.name).await?;
        flowing(world, &scene.owned).await?;
        anyhow::Ok(told)
    };
    let healed = healed.await;
    let to_ms = now_ms();
    world.end_trouble(trouble, to_ms);
    let told = healed?;
    (done.note, done.missed) = (told.note, told.missed);
    done.takeover_ms = told.takeover.map(ms);
    done.pause_ms = longest(world, &scene.owned, done.from_ms, to_ms);
    let after = seen(world, "").await?;
    done.untouched_ms = untouched(world, &before, &after, done.from_ms, to_ms);
    Ok(())
}

async fn act(scene: &Scene<'_>, service: &mut Service) -> Result<Told> {
    match scene.step.kind {
        Kind::Kill => process::kill(scene, service).await,
        Kind::Zombie => process::zombie(scene, service).await,
        Kind::Leave => process::leave(scene, service).await,
        Kind::Cut => network::cut(scene).await,
        Kind::Freeze => network::freeze(scene).await,
        Kind::Reset => network::reset(scene).await,
        Kind::Delay => network::delay(scene).await,
        Kind::SlowDisk => disk::slow(scene, service).await,
        Kind::FullDisk => disk::full(scene, service).await,
        Kind::CorruptStore => disk::corrupt(scene, service).await,
        _ => answers::lose(scene, service).await,
    }
}

async fn on_brokers(world: &World, step: &Step, done: &mut Done) -> Result<()> {
    let kafka = world.kafka.lock().await;
    done.from_ms = now_ms();
    let trouble = world.begin_trouble(None, done.from_ms);
    let all: Vec<u32> = (0..u32::try_from(world.probes.ids().len())?).collect();
    let told = brokers::act(world, &kafka, step).await;
    // All brokers are back: from here on it is the service's time that counts.
    world.end_trouble(trouble, now_ms());
    let told = told?;
    flowing(world, &all).await?;
    done.note = told.note;
    done.pause_ms = longest(world, &all, done.from_ms, now_ms());
    Ok(())
}

async fn on_newcomer(world: &World, step: &Step, done: &mut Done) -> Result<()> {
    let name = format!("j{}", step.number);
    done.victim = Some(name.clone());
    let before = seen(world, "").await?;
    done.from_ms = now_ms();
    let trouble = world.begin_trouble(Some(&name), done.from_ms);
    let joined = process::join(world, &name, step).await;
    let all: Vec<u32> = (0..before.partitions).collect();
    let healed = async {
        let told = joined?;
        flowing(world, &all).await?;
        anyhow::Ok(told)
    };
    let healed = healed.await;
    let to_ms = now_ms();
    world.end_trouble(trouble, to_ms);
    done.note = healed?.note;
    let after = seen(world, "").await?;
    done.untouched_ms = untouched(world, &before, &after, done.from_ms, to_ms);
    done.pause_ms = longest(world, &all, done.from_ms, to_ms);
    Ok(())
}

async fn seen(world: &World, victim: &str) -> Result<Cluster> {
    let what = "an instance shows the cluster";
    let look = async || world.cluster(victim).await;
    world.eventually(what, PATIENCE, look).await
}

/// The partitions that an instance owns and processes.
fn running(cluster: &Cluster, instance: &str) -> Vec<u32> {
    let tasks = cluster.tasks.iter();
    tasks
        .filter(|task| task.running && task.owner.as_deref() == Some(instance))
        .map(|task| task.partition)
        .collect()
}

/// Waits until survivors own and process these partitions, and answer for an object of each.
///
/// # Errors
/// They do not in time.
pub async fn takeover(scene: &Scene<'_>, from: Instant) -> Result<Duration> {
    let victim = &scene.victim.name;
    let world = scene.world;
    let look = async || {
        let cluster = world.cluster(victim).await?;
        for partition in &scene.owned {
            let task = cluster
                .tasks
                .iter()
                .find(|task| task.partition == *partition);
            let taken = task.is_some_and(|t| t.running && t.owner.as_ref() != Some(victim));
            ensure!(taken, "partition {partition}: {task:?}");
        }
        let survivor = world.instances.iter().find(|i| i.name == cluster.instance);
        let api = survivor
            .and_then(Instance::api)
            .context("it is being broken, too")?;
        for partition in &scene.owned {
            let id = world.probes.ids().get(usize::try_from(*partition)?);
            let id = id.context("each partition has a probe")?;
            api.state(id).await?;
        }
        Ok(from.elapsed())
    };
    let what = format!(
        "the partitions {:?} of {victim} are taken over",
        scene.owned
    );
    world.eventually(&what, PATIENCE, look).await
}

/// Waits until an instance processes a share of the partitions, as far as another can tell. There are more partitions
/// than instances.
async fn shares(world: &World, name: &str) -> Result<()> {
    let look = async || {
        let cluster = world.cluster(name).await?;
        ensure!(cluster.running_at(name) > 0, "{cluster:?}");
        Ok(())
    };
    let what = format!("{name} has a share again");
    world.eventually(&what, PATIENCE, look).await
}

/// Waits until probes that are sent from now on come through on these partitions.
///
/// # Errors
/// They do not in time.
pub async fn flowing(world: &World, partitions: &[u32]) -> Result<()> {
    let since_ms = now_ms();
    let what = format!("the partitions {partitions:?} are processed again");
    let look = async || served(world, partitions, since_ms);
    world.eventually(&what, PATIENCE * 2, look).await
}

/// Have probes that were sent at `since_ms` or later come through on these partitions?
///
/// # Errors
/// Not yet.
pub fn served(world: &World, partitions: &[u32], since_ms: i64) -> Result<()> {
    for partition in partitions {
        let seen = world
            .probes
            .served_ms(usize::try_from(*partition)?, since_ms);
        ensure!(seen.is_some(), "nothing comes out of partition {partition}");
    }
    Ok(())
}

fn longest(world: &World, partitions: &[u32], from_ms: i64, to_ms: i64) -> Option<i64> {
    let of = |partition: &u32| {
        let partition = usize::try_from(*partition).ok()?;
        Some(world.probes.longest_ms(partition, from_ms, to_ms))
    };
    partitions.iter().filter_map(of).max()
}

/// The longest pause of a partition that stayed where it was, with an owner who was not broken at the time. None if
/// brokers were, or if there is no such partition.
fn untouched(
    world: &World,
    before: &Cluster,
    after: &Cluster,
    from_ms: i64,
    to_ms: i64,
) -> Option<i64> {
    // What was broken shortly before may have left a pause that was still under way.
    let troubles = world.troubles_between(from_ms - 5_000, to_ms);
    let victims: Option<Vec<String>> = troubles.into_iter().map(|t| t.victim).collect();
    let victims = victims?;
    let owner = |cluster: &Cluster, partition: u32| {
        let task = cluster
            .tasks
            .iter()
            .find(|task| task.partition == partition)?;
        task.owner.clone().filter(|_| task.running)
    };
    let stayed: Vec<u32> = (0..before.partitions)
        .filter(|partition| {
            let owner_before = owner(before, *partition);
            owner_before.is_some()
                && owner_before == owner(after, *partition)
                && owner_before.is_none_or(|owner| !victims.contains(&owner))
        })
        .collect();
    longest(world, &stayed, from_ms, to_ms)
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
