//! The death of an instance, and its return.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use common::schema::{State, Vote};

use super::cast::{AGENTS, Cast, SHOP};
use super::narrator::{Narrator, seconds};
use super::scenes::UNDER_ATTACK;
use crate::api::{Api, Cluster};
use crate::{Application, PATIENCE, eventually, until};

/// The owner of the shop is killed; returns its name.
pub(super) async fn the_owner_dies(cast: &mut Cast, narrator: &mut Narrator) -> Result<String> {
    let [a, _] = cast.apis().await?;
    let owner = a.cluster().await?;
    let owner = owner.owner_of(SHOP).context("nobody owns the shop")?;
    narrator.chapter(&format!("kill -9 of instance {owner}, the owner of {SHOP}"));
    let what = format!("all agents agree that {SHOP} is {UNDER_ATTACK}");
    narrator.step(&what, agreement(&a)).await?;
    let survivor = survivor(cast, owner).await?;
    let before = survivor.state(SHOP).await?;
    let processed = processed(&survivor).await?;

    let killed = Instant::now();
    cast.instance(owner)?.kill().await?;
    let what = format!("{SHOP} is served again, with the very same state");
    let look = async || survivor.state(SHOP).await;
    let served = async {
        let after = eventually(&what, PATIENCE, look).await?;
        let took = killed.elapsed();
        goes_on(&before, &after)?;
        Ok(took)
    };
    let took = narrator.step(&what, served).await?;
    let (version, since) = (before.version, before.since_ms);
    let same = format!("{UNDER_ATTACK}, version {version}, since_ms {since}");
    narrator.note(&format!(
        "{} after the kill: {same}",
        narrator.strong(seconds(took))
    ));

    let what = "the survivor processes every partition";
    let look = async || survivor.cluster().await;
    let all = |seen: &Cluster| seen.running_at(&seen.instance) == seen.partitions as usize;
    narrator
        .step(what, until(what, PATIENCE, look, all))
        .await?;
    let what = "reports keep being counted";
    let look = async || self::processed(&survivor).await;
    let more = until(what, PATIENCE, look, |now| *now > processed + 50.0);
    narrator.step(what, more).await?;
    Ok(owner.to_owned())
}

/// The API of the instance that is not `dead`.
pub(super) async fn survivor(cast: &Cast, dead: &str) -> Result<Api> {
    let lives = cast.instances().iter().find(|i| i.name() != dead);
    lives.context("nobody survives")?.api().await
}

/// When the latest attack on the shop began, in ms since 1970.
pub(super) async fn attack_since(app: &Application) -> Result<i64> {
    let states = app.topics()?.states_of(SHOP).await?;
    let mut attacks = states.iter().flatten().rev();
    let attack = attacks.find(|state| state.verdict == UNDER_ATTACK);
    Ok(attack.context("there was no attack")?.since_ms)
}

/// The instance that was killed starts again on its old disk and takes its share.
pub(super) async fn the_dead_come_back(
    cast: &mut Cast,
    narrator: &mut Narrator,
    dead: &str,
) -> Result<()> {
    narrator.chapter(&format!("Instance {dead} comes back"));
    cast.instance(dead)?.restart().await?;
    let ready = cast.instance(dead)?.ready();
    let what = format!("{dead} is ready again, on its old disk");
    narrator.step(&what, ready).await?;
    let apis = cast.apis().await?;
    let what = "both instances have their share again";
    let shared = async || {
        for api in &apis {
            let seen = api.cluster().await?;
            let shares = ["a", "b"].map(|name| seen.running_at(name));
            let half = seen.partitions as usize / 2;
            ensure!(shares == [half, half], "{seen:?}");
        }
        Ok(())
    };
    narrator
        .step(what, eventually(what, PATIENCE, shared))
        .await?;
    let same = async { goes_on(&apis[0].state(SHOP).await?, &apis[1].state(SHOP).await?) };
    let what = format!("{SHOP} is the same at both");
    narrator.step(&what, same).await
}

/// `after` was read after `before` and is the same state. Agents keep reporting, so a vote may be a later one, but
/// none is an earlier one or gone.
pub(super) fn goes_on(before: &State, after: &State) -> Result<()> {
    let without_votes = |state: &State| State {
        votes: Vec::new(),
        ..state.clone()
    };
    let reached = |vote: &Vote| {
        let mut votes = after.votes.iter();
        votes.any(|v| v.agent_id == vote.agent_id && v.sequence >= vote.sequence)
    };
    let same = without_votes(before) == without_votes(after) && before.votes.iter().all(reached);
    ensure!(same, "before: {before:#?}\nafter: {after:#?}");
    Ok(())
}

async fn agreement(api: &Api) -> Result<()> {
    let look = async || {
        let reports = api.reports(SHOP).await?;
        let verdicts = reports.iter().map(|r| r.report["verdict"].clone());
        Ok(verdicts.collect::<Vec<_>>())
    };
    let all = |verdicts: &Vec<serde_json::Value>| {
        verdicts.len() == AGENTS && verdicts.iter().all(|v| v == UNDER_ATTACK)
    };
    until("all agents agree", PATIENCE, look, all).await?;
    Ok(())
}

async fn processed(api: &Api) -> Result<f64> {
    let metrics = api.metrics().await?;
    Ok(metrics.sum("records_processed_total", &[]))
}
