//! How long an instance that starts takes until it serves: with nothing (everything is restored from the changelog),
//! with an older store (the delta is), and with its own store as it left it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::Application;

use super::waiting::all_committed;
use crate::input::{Sender, Shape};
use crate::lab::Lab;
use crate::load::Load;
use crate::results::Values;
use crate::run::Run;
use crate::systems::{self, Instance, Variant};
use crate::topic;

/// How long a preparation or a start may take.
const PATIENCE: Duration = Duration::from_mins(10);
const LOOK: Duration = Duration::from_millis(5);
/// Objects whose states are asked for after a start.
const ASKED: usize = 50;

/// How many objects, and how the cases are called.
pub const SIZES: [(u64, &str); 2] = [
    (100_000, "100,000 objects"),
    (2_000_000, "2,000,000 objects"),
];

/// What an instance finds when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// Nothing.
    None,
    /// A store that lacks the last reports.
    Older,
    /// What it left behind.
    Own,
}

impl Store {
    const ALL: [Self; 3] = [Self::None, Self::Older, Self::Own];

    /// The name of the case.
    #[must_use]
    pub fn case(self, size: &str) -> String {
        let store = match self {
            Self::None => "from nothing",
            Self::Older => "delta of a tenth",
            Self::Own => "own store",
        };
        format!("{size}, {store}")
    }
}

/// Seconds that the preparation is expected to take, and a round.
pub(crate) const SECONDS: (f64, f64) = (130.0, 150.0);

/// Measures both systems.
///
/// # Errors
/// Results cannot be written.
pub async fn run(run: &mut Run<'_>) -> Result<()> {
    for (objects, size) in SIZES {
        let objects = run.objects(objects);
        let mut prepared = Vec::new();
        // An instance that does not tell the group that it leaves makes its successor wait for the session's end.
        let streams = Variant::streams().with("on.close", "leave");
        for variant in [Variant::ours(), streams] {
            run.now(&format!("restore, {size}, {}: filling", variant.name));
            prepared.push(Prepared::new(run.lab, variant, objects).await?);
            run.passed(SECONDS.0 / 4.0);
        }
        for round in 1..=run.rounds {
            for store in Store::ALL {
                for one in &prepared {
                    let (case, lab) = (store.case(size), run.lab);
                    let at = ("restore", case.as_str(), round);
                    let measuring = one.start(lab, store);
                    run.step(at, &one.variant, SECONDS.1 / 12.0, measuring)
                        .await?;
                }
            }
        }
        for one in &prepared {
            topic::delete_all(&one.app).await?;
        }
    }
    Ok(())
}

/// An application with its changelog, and two states of its instance's folder.
struct Prepared {
    app: Application,
    variant: Variant,
    objects: usize,
    /// The folder as it was before the last reports.
    older: PathBuf,
}

impl Prepared {
    /// Every object gets a report, then as many reports as there are objects are spread over them; after that the
    /// folder is set aside, and a tenth as many follow.
    async fn new(lab: &Lab, variant: Variant, objects: usize) -> Result<Self> {
        let app = lab.application("restore")?;
        lab.source_topic(&app).await?;
        let count = objects as u64;
        let every = Load::sweep(objects);
        let more = Load::uniform(count, objects, 10).after(&every);
        let last = Load::uniform(count.div_ceil(10), objects, 10).after(&more);
        let older = app.folder().join("older");
        let one = Self {
            app,
            variant,
            objects,
            older,
        };
        one.process(lab, &[every, more]).await?;
        copy(&one.folder(), &one.older)?;
        one.process(lab, &[last]).await?;
        Ok(one)
    }

    /// Sends these reports and has an instance process them all.
    async fn process(&self, lab: &Lab, loads: &[Load]) -> Result<()> {
        let sender = Sender::to(&self.app).await?;
        let now_ms = jiff::Timestamp::now().as_millisecond();
        tokio::task::block_in_place(|| {
            let mut all = loads.iter();
            all.try_for_each(|load| sender.send_all(load.reports(now_ms)).map(|_| ()))
        })?;
        drop(sender);
        let mut instance = self.variant.start(lab, &self.app, "a")?;
        instance.ready().await?;
        all_committed(&self.app, PATIENCE).await?;
        instance.terminate().await
    }

    fn folder(&self) -> PathBuf {
        self.app.state_dir("a")
    }

    /// Starts an instance that finds `store`, until it serves.
    async fn start(&self, lab: &Lab, store: Store) -> Result<Values> {
        let folder = self.folder();
        if store != Store::Own {
            fs::remove_dir_all(&folder).context("removing the store")?;
        }
        if store == Store::Older {
            copy(&self.older, &folder)?;
        }
        let (began, broker) = (Instant::now(), lab.broker().await?);
        let mut instance = self.variant.start(lab, &self.app, "a")?;
        serves(&instance).await?;
        let (took, usage) = (began.elapsed(), instance.usage()?);
        let broker = broker.zip(lab.broker().await?);
        let records = instance.restored().await? as f64;
        self.complete(&instance).await?;
        instance.terminate().await?;
        let mut values = vec![
            ("serving_ms", took.as_secs_f64() * 1e3),
            ("records", records),
            ("cpu_s", usage.cpu_s),
            ("peak_rss_mib", usage.peak_rss_mib as f64),
        ];
        if let Some((before, after)) = broker {
            values.push(("broker_cpu_s", after.cpu_s - before.cpu_s));
        }
        if store != Store::Own {
            values.push(("records_per_s", records / took.as_secs_f64()));
            values.push(("records_per_cpu_s", records / usage.cpu_s));
        }
        Ok(values
            .into_iter()
            .map(|(id, v)| (id.to_owned(), v))
            .collect())
    }

    /// Asks for some objects: a start that forgets is no start.
    async fn complete(&self, instance: &Instance) -> Result<()> {
        let client = systems::client(Duration::from_secs(10))?;
        for number in 0..ASKED {
            let object = Shape::object(number * self.objects / ASKED);
            let url = instance.state_url(&object).await?;
            let state = systems::read(&client, &url).await?;
            ensure!(
                state.is_some(),
                "{} does not know {object}",
                instance.name()
            );
        }
        Ok(())
    }
}

/// Waits until an instance says that it processes everything.
async fn serves(instance: &Instance) -> Result<()> {
    let url = instance.ready_url().await?;
    let client = systems::client(Duration::from_secs(5))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Ok(answer) = client.get(&url).send().await
            && answer.status().is_success()
        {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "not ready after {PATIENCE:?}:\n{}",
            devkit::process::tail(instance.log())
        );
        tokio::time::sleep(LOOK).await;
    }
}

/// Copies a folder with all that is in it.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let what = || format!("cannot copy {}", from.display());
    fs::create_dir_all(to).with_context(what)?;
    for entry in fs::read_dir(from).with_context(what)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target).with_context(what)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_copied_whole() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        fs::create_dir_all(from.join("deep/er")).unwrap();
        fs::write(from.join("deep/er/file"), "text").unwrap();
        copy(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(to.join("deep/er/file")).unwrap(), "text");
        assert!(copy(&folder.path().join("missing"), &to).is_err());
    }
}
