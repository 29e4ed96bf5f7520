//! Stores that are damaged, foreign, empty or half restored: the changelog has everything.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use common::schema::{
    SiteAttackVerdict::{Clear, UnderAttack},
    State,
};
use e2e::{Api, Application, PATIENCE, Service, story, until};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::report;

pub(crate) const FLAGS: [(&str, &str); 3] =
    [("quorum", "1"), ("freshness", "1h"), ("partitions", "2")];
pub(crate) const CALL: Duration = Duration::from_secs(20);

/// Writes `count` objects and returns their states as `a` knows them.
pub(crate) async fn fill(
    app: &Application,
    a: &Service,
    count: usize,
) -> Result<BTreeMap<String, State>> {
    let topics = app.topics()?;
    let ids: Vec<String> = (0..count)
        .map(|i| format!("site-{i:04}.example.com"))
        .collect();
    for (i, id) in ids.iter().enumerate() {
        let verdict = if i % 2 == 0 { Clear } else { UnderAttack };
        topics.report(&report(id, "waf-1", verdict, 1)).await?;
    }
    let api = a.api().await?;
    let look = async || states(&api, &ids).await;
    until("every object is known", PATIENCE, look, |known| {
        known.len() == count
    })
    .await
}

pub(crate) async fn states(
    api: &Api,
    ids: impl IntoIterator<Item = &String>,
) -> Result<BTreeMap<String, State>> {
    let mut states = BTreeMap::new();
    for id in ids {
        if let Some(state) = api.get(id).await? {
            states.insert(id.clone(), state);
        }
    }
    Ok(states)
}

/// Where an instance keeps its stores.
pub(crate) fn stores(app: &Application, name: &str, application_id: &str) -> PathBuf {
    let state = app.folder().join(format!("{name}.state"));
    state.join(application_id).join(name).join("stores")
}

fn largest_table(store: &Path) -> Result<PathBuf> {
    let files = fs::read_dir(store)?.map(|file| Ok(file?.path()));
    let files: Vec<PathBuf> = files.collect::<Result<_>>()?;
    let tables = files
        .into_iter()
        .filter(|f| f.extension().is_some_and(|e| e == "sst"));
    let largest = tables.max_by_key(|file| fs::metadata(file).map_or(0, |m| m.len()));
    largest.with_context(|| format!("no table in {}", store.display()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_store_is_set_aside_and_restored() -> Result<()> {
    story("damaged", async |app| {
        let mut a = app.state_service("a", &FLAGS)?;
        a.ready().await?;
        let before = fill(app, &a, 60).await?;
        // Closed in order, so that everything is in tables; then killed.
        ensure!(a.terminate().await? == 0, "{}", a.end_of_log());
        a.restart().await?;
        a.ready().await?;
        a.kill().await?;
        let stores = stores(app, "a", app.id());
        let table = largest_table(&stores.join("0"))?;
        let length = fs::metadata(&table)?.len();
        let file = fs::File::options().write(true).open(&table)?;
        file.set_len(length / 2)?;
        fs::remove_file(stores.join("1/CURRENT"))?;

        a.restart().await?;
        a.ready().await?;
        ensure!(states(&a.api().await?, before.keys()).await? == before);
        let broken = [("reason", "broken")];
        let aside = a.metrics().await?.sum("stores_set_aside_total", &broken);
        ensure!((aside - 2.0).abs() < 0.5, "{aside} stores set aside, not 2");
        let said = a.log().lines_with("the store is set aside");
        ensure!(said.len() == 2, "{said:?}");
        let aside = fs::read_dir(stores.join("aside"))?;
        let mut aside = aside
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<Result<Vec<_>>>()?;
        aside.sort();
        // Numbered as they came, and they are opened beside each other.
        let expected = [["0-1", "1-2"], ["0-2", "1-1"]];
        ensure!(expected.iter().any(|names| aside == *names), "{aside:?}");

        // And it goes on: every object can change, and a restart finds it all.
        ensure!(a.terminate().await? == 0, "{}", a.end_of_log());
        a.restart().await?;
        a.ready().await?;
        ensure!(states(&a.api().await?, before.keys()).await? == before);
        ensure!(a.log().lines_with("the store is set aside").is_empty());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_of_something_else_is_refused_by_name() -> Result<()> {
    story("foreign", async |app| {
        let mut a = app.state_service("a", &FLAGS)?;
        a.ready().await?;
        ensure!(a.terminate().await? == 0, "{}", a.end_of_log());
        let other_id = format!("{}-other", app.id());
        let flags = [&FLAGS[..], &[("application-id", other_id.as_str())]].concat();
        let mut other = app.state_service("other", &flags)?;
        other.ready().await?;
        ensure!(other.terminate().await? == 0, "{}", other.end_of_log());

        let ours = stores(app, "a", app.id());
        let theirs = stores(app, "other", &other_id);
        let cases = [
            // Another application's, in the place of ours.
            (theirs.join("0"), format!("belongs to {other_id}/0")),
            // Another partition's.
            (ours.join("1"), format!("belongs to {}/1", app.id())),
        ];
        for (from, expected) in cases {
            fs::remove_dir_all(ours.join("0"))?;
            fs::rename(&from, ours.join("0"))?;
            a.restart().await?;
            let ended = until(
                "it has ended",
                PATIENCE,
                async || a.ended(),
                Option::is_some,
            );
            let code = ended.await.with_context(|| a.end_of_log())?;
            ensure!(code == Some(1), "exit code {code:?}");
            let said = a.log().text();
            ensure!(
                said.contains(&expected),
                "{expected} is missing in:\n{said}"
            );
            ensure!(ours.join("0/CURRENT").exists(), "it is left where it is");
            ensure!(!ours.join("aside").exists(), "it is not set aside");
        }
        Ok(())
    })
    .await
}

/// Writes `count` rows to each partition of the changelog, each as if a task had: copies of a real one
/// under other keys.
async fn fill_changelog(app: &Application, count: u32) -> Result<()> {
    let topics = app.topics()?;
    let changelog = topics.names().changelog.clone();
    let rows = topics.read(&changelog).await?;
    let object = |key: &Option<Vec<u8>>| key.as_ref().is_some_and(|key| key.starts_with(b"o"));
    let row = rows.into_iter().find(|row| object(&row.key));
    let value = row.and_then(|row| row.value).context("an object's row")?;
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", app.bootstrap())
        .set("linger.ms", "20")
        .create()?;
    let write = move || {
        for partition in 0..2 {
            for number in 0..count {
                let key = format!("ofiller-{number:07}");
                let record = BaseRecord::to(&changelog).partition(partition);
                send(&producer, record.key(&key).payload(&value))?;
            }
        }
        Ok(producer.flush(CALL)?)
    };
    tokio::task::spawn_blocking(write).await?
}

fn send(producer: &BaseProducer, record: BaseRecord<'_, String, Vec<u8>>) -> Result<()> {
    let mut record = record;
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), again)) => {
                producer.poll(Duration::from_millis(10));
                record = again;
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}

/// A transaction with a row in each partition of the changelog: nobody can tell yet whether it counts.
struct Open(BaseProducer);

impl Open {
    async fn on_changelog(app: &Application) -> Result<Self> {
        let changelog = app.names().changelog;
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", app.bootstrap())
            .set("transactional.id", format!("{}-open", app.id()))
            .create()?;
        let open = move || {
            producer.init_transactions(CALL)?;
            producer.begin_transaction()?;
            for partition in 0..2 {
                let record = BaseRecord::to(&changelog).partition(partition);
                let (key, value) = ("ofiller-0000000".to_owned(), b"?".to_vec());
                send(&producer, record.key(&key).payload(&value))?;
            }
            producer.flush(CALL)?;
            Ok(Self(producer))
        };
        tokio::task::spawn_blocking(open).await?
    }

    async fn abort(self) -> Result<()> {
        tokio::task::spawn_blocking(move || Ok(self.0.abort_transaction(CALL)?)).await?
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_go_on_while_another_store_is_restored_from_nothing() -> Result<()> {
    story("tables", async |app| {
        const ROWS: u32 = 200_000;
        let a = app.state_service("a", &FLAGS)?;
        a.ready().await?;
        let before = fill(app, &a, 40).await?;
        fill_changelog(app, ROWS).await?;
        // As if the former owner had died in the middle of a commit: the restore must wait for that.
        let open = Open::on_changelog(app).await?;

        let b = app.state_service("b", &FLAGS)?;
        let waits = "a transaction is still open on the changelog";
        let look = async || Ok(b.log().lines_with(waits).len());
        until("b restores", PATIENCE, look, |lines| *lines > 0).await?;
        let cluster = a.api().await?.cluster().await?;
        let at_a = |id: &&String| cluster.owner_of(id) == Some("a");
        let standing: Vec<&String> = before.keys().filter(at_a).collect();
        ensure!(!standing.is_empty(), "{cluster:?}");
        let topics = app.topics()?;
        for id in &standing {
            let verdict = if before[*id].verdict == "CLEAR" {
                UnderAttack
            } else {
                Clear
            };
            topics.report(&report(id, "waf-1", verdict, 2)).await?;
        }
        let api = a.api().await?;
        let look = async || Ok(states(&api, standing.iter().copied()).await?);
        let changed = |now: &BTreeMap<String, State>| now.iter().all(|(id, s)| *s != before[id]);
        until("a's tasks go on", PATIENCE, look, changed).await?;
        // Whoever is asked tells how far b is, and how long it will take.
        let look = async || api.cluster().await;
        let known = until("a knows how fast b is", PATIENCE, look, |cluster| {
            let b = cluster.instances.iter().find(|i| i.id == "b");
            let mut restores = b.into_iter().flat_map(|b| b.restores.values());
            restores.any(|r| r.records_per_second > 0 && r.seconds_left.is_some())
        })
        .await?;
        ensure!(known.instance == "a");
        let metrics = b.metrics().await?;
        // On a fast machine all is read by now.
        ensure!(metrics.text().contains("restore_records_per_second{"));
        ensure!(metrics.text().contains("restore_left_seconds{"));
        let look = async || Ok(b.metrics().await?.sum("restore_tables_total", &[]));
        until("b takes in tables", PATIENCE, look, |n| *n > 0.5).await?;
        ensure!(b.log().lines_with(" restored ").is_empty());

        open.abort().await?;
        b.ready().await?;
        let restored = b.metrics().await?.changelog_records_read();
        ensure!(restored >= f64::from(ROWS), "{restored} of {ROWS}");
        let remaining = b.metrics().await?.sum("restore_remaining_records", &[]);
        ensure!(remaining < 0.5, "{remaining} remain");
        let b = b.api().await?;
        for (id, state) in &before {
            if !standing.contains(&id) {
                ensure!(&b.state(id).await? == state, "{id}");
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_is_killed_on_the_way_ends_right() -> Result<()> {
    story("killed", async |app| {
        const ROWS: u32 = 150_000;
        let mut a = app.state_service("a", &FLAGS)?;
        a.ready().await?;
        let before = fill(app, &a, 40).await?;
        ensure!(a.terminate().await? == 0, "{}", a.end_of_log());
        fill_changelog(app, ROWS).await?;
        let open = Open::on_changelog(app).await?;

        let mut b = app.state_service("b", &FLAGS)?;
        // Killed when rows are on their way, in memory.
        let look = async || Ok(b.metrics().await?.sum("restore_remaining_records", &[]));
        until("the restore is under way", PATIENCE, look, |n| *n > 0.5).await?;
        b.kill().await?;
        // Killed when tables were taken in, but the end is not known.
        let taken_in = "all that is committed is in the store";
        b.restart().await?;
        let look = async || Ok(b.log().lines_with(taken_in).len());
        until("all is taken in", PATIENCE, look, |stores| *stores == 2).await?;
        b.kill().await?;
        open.abort().await?;
        b.restart().await?;
        b.ready().await?;
        let restored = b.metrics().await?.changelog_records_read();
        ensure!(restored < 0.5, "{restored} records read once more");
        ensure!(states(&b.api().await?, before.keys()).await? == before);
        ensure!(b.log().lines_with("set aside").is_empty());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_ends_the_instance_and_loses_nothing() -> Result<()> {
    story("full", async |app| {
        let mut a = app.state_service("a", &FLAGS)?;
        a.ready().await?;
        let before = fill(app, &a, 40).await?;
        ensure!(a.terminate().await? == 0, "{}", a.end_of_log());
        // So that b stands still when it has opened its stores.
        let open = Open::on_changelog(app).await?;
        fill_changelog(app, 120_000).await?;
        let mut b = app.state_service("b", &FLAGS)?;
        let waits = "a transaction is still open on the changelog";
        let look = async || Ok(b.log().lines_with(waits).len());
        until("b restores", PATIENCE, look, |lines| *lines == 2).await?;
        for partition in ["0", "1"] {
            // Where rows become tables; the kernel says that no space is left.
            let table = stores(app, "b", app.id())
                .join(partition)
                .join("rows.ingest");
            symlink("/dev/full", table)?;
        }
        open.abort().await?;
        let ended = until("b has ended", PATIENCE, async || b.ended(), Option::is_some);
        let code = ended.await.with_context(|| b.end_of_log())?;
        ensure!(code == Some(1), "exit code {code:?}");
        let said = b.log().text();
        ensure!(said.contains("No space left on device"), "{said}");
        ensure!(
            said.contains("left the application"),
            "not in order: {said}"
        );

        a.restart().await?;
        a.ready().await?;
        ensure!(states(&a.api().await?, before.keys()).await? == before);
        ensure!(
            a.log().lines_with("fenced").is_empty(),
            "b has left in order"
        );
        Ok(())
    })
    .await
}
