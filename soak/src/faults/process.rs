//! Instances die, stand still, leave and join.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use e2e::{PATIENCE, Service};
use tokio::time::sleep;

use super::inject::{Scene, Told, takeover};
use crate::instance::Instance;
use crate::plan::Step;
use crate::world::World;

/// SIGKILL. Mostly the others take over before it comes back; sometimes it is back before they suspect it.
pub(super) async fn kill(scene: &Scene<'_>, service: &mut Service) -> Result<Told> {
    let at = Instant::now();
    service.kill().await?;
    if scene.step.variant.is_multiple_of(4) {
        service.restart().await?;
        return Ok(Told::note("back at once"));
    }
    let taken = takeover(scene, at).await;
    sleep(scene.step.lasts).await;
    service.restart().await?;
    Ok(Told {
        takeover: Some(taken?),
        ..Told::default()
    })
}

/// SIGSTOP, for longer than the others wait; then SIGCONT: it finds itself fenced, or should.
pub(super) async fn zombie(scene: &Scene<'_>, service: &mut Service) -> Result<Told> {
    let at = Instant::now();
    service.pause()?;
    let taken = takeover(scene, at).await;
    sleep(scene.step.lasts.saturating_sub(at.elapsed())).await;
    service.resume()?;
    Ok(Told {
        takeover: Some(taken?),
        ..Told::default()
    })
}

/// SIGTERM: it commits, closes, says goodbye and ends with 0.
pub(super) async fn leave(scene: &Scene<'_>, service: &mut Service) -> Result<Told> {
    let at = Instant::now();
    let code = service.terminate().await?;
    let taken = takeover(scene, at).await;
    sleep(scene.step.lasts).await;
    let log = service.end_of_log();
    service.restart().await?;
    // While a broker is away it may give up waiting for its last commit; that is allowed, and said in its log.
    let gave_up = log.contains("did not end in time");
    ensure!(code == 0 || gave_up, "it left with exit code {code}\n{log}");
    Ok(Told {
        note: if code == 0 {
            String::new()
        } else {
            "gave up its last commit".to_owned()
        },
        takeover: Some(taken?),
        ..Told::default()
    })
}

/// A further instance takes a share, then leaves or is killed.
pub(super) async fn join(world: &World, name: &str, step: &Step) -> Result<Told> {
    let at = Instant::now();
    let newcomer = Instance::start(world, name, usize::try_from(step.variant)?).await?;
    let mut service = newcomer.service.lock().await;
    newcomer.show(world, &service).await?;
    let api = service.api().await?;
    let look = async || {
        let cluster = api.cluster().await?;
        let share = cluster.running_at(name);
        ensure!(share > 0, "{cluster:?}");
        Ok(share)
    };
    let what = "the newcomer gets a share";
    let share = world.eventually(what, PATIENCE, look).await?;
    let took = at.elapsed();
    sleep(step.lasts).await;
    let how = if step.variant.is_multiple_of(2) {
        let code = service.terminate().await.context("the newcomer leaves")?;
        ensure!(
            code == 0,
            "the newcomer left with exit code {code}\n{}",
            service.end_of_log()
        );
        "left"
    } else {
        service.kill().await?;
        "was killed"
    };
    Ok(Told::note(format!(
        "had {share} partitions after {:.1} s, {how}",
        took.as_secs_f64()
    )))
}
