//! Answers that never arrive: the broker did it, and nobody knows.

use std::time::Duration;

use anyhow::{Result, ensure};
use devkit::proxy::ApiKey;
use e2e::{Service, eventually};

use super::Kind;
use super::inject::{Scene, Told};

/// How long to wait for a request of the kind. An instance with partitions makes them several times a second.
const PATIENCE: Duration = Duration::from_secs(5);

/// The next answer of the kind is lost, and its connection closed.
pub(super) async fn lose(scene: &Scene<'_>, service: &mut Service) -> Result<Told> {
    let request = match scene.step.kind {
        Kind::DropEndTxn => ApiKey::EndTxn,
        Kind::DropAddPartitions => ApiKey::AddPartitionsToTxn,
        Kind::DropAddOffsets => ApiKey::AddOffsetsToTxn,
        Kind::DropOffsetCommit => ApiKey::TxnOffsetCommit,
        Kind::DropProduce => ApiKey::Produce,
        _ => ApiKey::InitProducerId,
    };
    let proxy = &scene.victim.proxy;
    let before = proxy.dropped();
    // Sometimes twice in a row: the second try's answer is lost, too.
    let count = if scene.step.variant.is_multiple_of(5) {
        2
    } else {
        1
    };
    proxy.drop_answer(request, count);
    if request == ApiKey::InitProducerId {
        // Who runs has its producers; a restart makes new ones.
        service.kill().await?;
        service.restart().await?;
    }
    let look = async || {
        let lost = proxy.dropped() - before;
        ensure!(lost == count, "{lost} of {count}");
        Ok(())
    };
    let hit = eventually("the answers are lost", PATIENCE, look).await;
    proxy.drop_answer(request, 0);
    let lost = proxy.dropped() - before;
    Ok(match hit {
        Ok(()) => Told::note(format!("{lost} lost")),
        Err(_) if lost == 0 => Told::missed("no such request came"),
        Err(_) => Told::note(format!(
            "{lost} of {count} lost: no more such requests came"
        )),
    })
}
