//! Connections between an instance and the brokers.

use std::time::Duration;

use anyhow::Result;
use devkit::proxy::Direction;
use tokio::time::sleep;

use super::inject::{Scene, Told};

/// All connections are closed, and new ones refused.
pub(super) async fn cut(scene: &Scene<'_>) -> Result<Told> {
    scene.victim.proxy.cut().await;
    sleep(scene.step.lasts).await;
    scene.victim.proxy.restore().await;
    Ok(Told::default())
}

/// Connections stay, and nothing moves.
pub(super) async fn freeze(scene: &Scene<'_>) -> Result<Told> {
    scene.victim.proxy.freeze();
    sleep(scene.step.lasts).await;
    scene.victim.proxy.thaw();
    Ok(Told::default())
}

/// All connections are closed once.
pub(super) async fn reset(scene: &Scene<'_>) -> Result<Told> {
    scene.victim.proxy.reset();
    sleep(scene.step.lasts).await;
    Ok(Told::default())
}

/// Answers come late.
pub(super) async fn delay(scene: &Scene<'_>) -> Result<Told> {
    let delay = Duration::from_millis(20 + scene.step.variant % 280);
    scene.victim.proxy.delay(Direction::ToClient, delay);
    sleep(scene.step.lasts).await;
    scene
        .victim
        .proxy
        .delay(Direction::ToClient, Duration::ZERO);
    Ok(Told::note(format!("by {delay:?}")))
}
