//! Disks that are slow, full or damaged.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use e2e::{Service, eventually};
use tokio::time::sleep;

use super::inject::{Scene, Told, takeover};

/// How long a service may go on with a full disk: it notices when it writes, which is at the latest when it flushes.
const NOTICES_WITHIN: Duration = Duration::from_secs(60);

/// Writing and syncing takes longer. Sometimes the instance leaves meanwhile, which writes most.
pub(super) async fn slow(scene: &Scene<'_>, service: &mut Service) -> Result<Told> {
    let delay = Duration::from_millis(5 + scene.step.variant % 200);
    let disk = &scene.victim.disk;
    let before = disk.hits()?;
    disk.slow(delay)?;
    let leaves = scene.step.variant.is_multiple_of(2);
    let left = if leaves {
        Some(service.terminate().await)
    } else {
        None
    };
    sleep(scene.step.lasts).await;
    disk.heal()?;
    let hits = disk.hits()? - before;
    let log = service.end_of_log();
    if leaves {
        service.restart().await?;
    }
    match left {
        Some(Ok(0)) | None => {}
        // The time for a graceful stop is limited; nothing is lost by that.
        Some(Ok(_)) if log.contains("did not end in time") => {}
        Some(Ok(code)) => bail!("it left with exit code {code}\n{log}"),
        Some(Err(error)) => return Err(error),
    }
    if hits == 0 {
        return Ok(Told::missed("it wrote nothing meanwhile"));
    }
    let also = if leaves { ", left meanwhile" } else { "" };
    Ok(Told::note(format!("{hits} calls by {delay:?}{also}")))
}

/// No space is left: the service must end, say why, and not with success. The others take over; then there is space
/// again, and it comes back.
pub(super) async fn full(scene: &Scene<'_>, service: &mut Service) -> Result<Told> {
    let disk = &scene.victim.disk;
    let before = disk.hits()?;
    disk.full()?;
    let look = async || {
        let code = service.ended()?;
        code.context("it goes on")
    };
    let ended = eventually("the service ends", NOTICES_WITHIN, look).await;
    let hits = disk.hits()? - before;
    let log = service.end_of_log();
    let at = std::time::Instant::now();
    let taken = match &ended {
        Ok(_) => Some(takeover(scene, at).await),
        Err(_) => None,
    };
    sleep(scene.step.lasts).await;
    disk.heal()?;
    if hits == 0 && ended.is_err() {
        return Ok(Told::missed("it wrote nothing meanwhile"));
    }
    service.restart().await?;
    let code = ended?;
    ensure!(code != 0, "it ended as if all were well\n{log}");
    let says = log.contains("No space left") || log.contains("no space");
    ensure!(says, "it does not say why it ended\n{log}");
    Ok(Told {
        note: format!("{hits} calls refused, exit code {code}"),
        takeover: taken.transpose()?,
        ..Told::default()
    })
}

/// A file of one of its stores is damaged while the instance is dead.
pub(super) async fn corrupt(scene: &Scene<'_>, service: &mut Service) -> Result<Told> {
    service.kill().await?;
    let stores = scene
        .world
        .app
        .state_dir(&scene.victim.name)
        .join(scene.world.app.id())
        .join(&scene.victim.name)
        .join("stores");
    let done = damage(&stores, scene.step.variant);
    service.restart().await?;
    Ok(match done? {
        Some(what) => Told::note(what),
        None => Told::missed("it has no store yet"),
    })
}

/// Damages a file below `stores`: cuts it, changes a byte, or removes it. None if there is no file.
fn damage(stores: &Path, variant: u64) -> Result<Option<String>> {
    let mut files = Vec::new();
    for store in children(stores)?.into_iter().filter(|path| path.is_dir()) {
        let of_store = children(&store)?.into_iter().filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            path.is_file() && !name.starts_with("LOG") && name != "LOCK"
        });
        files.extend(of_store);
    }
    let Some(index) = usize::try_from(variant / 3)?.checked_rem(files.len()) else {
        return Ok(None);
    };
    let file = &files[index];
    let mut bytes = fs::read(file).with_context(|| format!("{}", file.display()))?;
    let how = match variant % 3 {
        0 => {
            fs::remove_file(file)?;
            "removed"
        }
        1 => {
            bytes.truncate(bytes.len() / 2);
            fs::write(file, &bytes)?;
            "cut in half"
        }
        _ => {
            let middle = bytes.len() / 2;
            if let Some(byte) = bytes.get_mut(middle) {
                *byte ^= 0xff;
            }
            fs::write(file, &bytes)?;
            "changed in the middle"
        }
    };
    let shown = file.strip_prefix(stores).unwrap_or(file);
    Ok(Some(format!("{} {how}", shown.display())))
}

fn children(folder: &Path) -> Result<Vec<PathBuf>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(folder).with_context(|| format!("{}", folder.display()))?;
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    Ok(paths)
}
