//! The restorer against a real changelog, without the service around it: standbys, and what becomes of
//! them.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use common::kafka;
use common::topics::{self, Spec};
use e2e::{Application, PATIENCE, story, until};
use engine::memory::Pool;
use engine::restore::{self, Done, Job, Phase, Standing, Stores};
use engine::store::{Shared, Store};
use engine::watchdog::Pulse;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

const CALL: Duration = Duration::from_secs(20);
type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// The topics that the restorer reads, and who writes the changelog.
struct Log {
    producer: BaseProducer,
    topic: String,
    /// What is committed.
    rows: Rows,
}

impl Log {
    async fn new(app: &Application) -> Result<Self> {
        Self::with_policy(app, true).await
    }

    async fn with_policy(app: &Application, compact: bool) -> Result<Self> {
        let names = app.names();
        let spec = |name: &str, compact| Spec {
            name: name.to_owned(),
            partitions: 1,
            exact: true,
            compact,
            config: Vec::new(),
        };
        let specs = [spec(&names.changelog, compact), spec(&names.reports, false)];
        topics::ensure(&kafka(app).client("e2e"), &specs, 1, CALL).await?;
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", app.bootstrap())
            .set("transactional.id", app.id())
            .set("queue.buffering.max.messages", "2000000")
            .create()?;
        producer.init_transactions(CALL)?;
        Ok(Self {
            producer,
            topic: names.changelog,
            rows: Rows::new(),
        })
    }

    /// Writes `numbers` as rows into an open transaction: every seventh deletes its key.
    fn write(&mut self, numbers: std::ops::Range<u32>) -> Result<Rows> {
        let mut rows = self.rows.clone();
        self.producer.begin_transaction()?;
        for number in numbers {
            let key = format!("o{:06}", number % 50_021).into_bytes();
            let value = format!("value {number}").into_bytes();
            let record = BaseRecord::to(&self.topic).partition(0).key(&key);
            let sent = if number % 7 == 0 {
                rows.remove(&key);
                self.producer.send::<_, Vec<u8>>(record)
            } else {
                let sent = self.producer.send(record.payload(&value));
                rows.insert(key.clone(), value.clone());
                sent
            };
            sent.map_err(|(error, _)| error)?;
        }
        self.producer.flush(CALL)?;
        Ok(rows)
    }

    fn commit(&mut self, numbers: std::ops::Range<u32>) -> Result<()> {
        let rows = self.write(numbers)?;
        self.producer.commit_transaction(CALL)?;
        self.rows = rows;
        Ok(())
    }

    fn abort(&mut self, numbers: std::ops::Range<u32>) -> Result<()> {
        self.write(numbers)?;
        Ok(self.producer.abort_transaction(CALL)?)
    }
}

fn kafka(app: &Application) -> kafka::Args {
    kafka::Args {
        bootstrap_servers: app.bootstrap().to_owned(),
        kafka: Vec::new(),
    }
}

struct Restorer {
    jobs: mpsc::Sender<Job>,
    stores: Arc<Stores>,
    done: mpsc::Receiver<Done>,
}

impl Restorer {
    fn start(app: &Application) -> Result<Self> {
        let (done, heard) = mpsc::channel();
        let settings = restore::Settings {
            kafka: kafka(app),
            application_id: app.id().to_owned(),
            names: Arc::new(app.names()),
            stores: app.folder().join("stores"),
            shared: Shared::on_disk(1 << 20),
            timer_of: |_| None,
            pools: vec![Pool::of(64 << 20)],
            queue_bytes: 16 << 20,
            // At once, so that each restore begins with new clients.
            rests_after: Duration::ZERO,
            pulse: Pulse::default(),
        };
        let (jobs, stores) = restore::start(settings, move |news| drop(done.send(news)))?;
        Ok(Self {
            jobs,
            stores,
            done: heard,
        })
    }

    fn ask(&self, job: Job) -> Result<()> {
        self.jobs.send(job).ok().context("the restorer has ended")
    }

    /// Waits until the store stands like this.
    async fn stands(
        &self,
        what: &str,
        wanted: impl Fn(&Standing) -> bool,
    ) -> Result<Option<Standing>> {
        let look = async || Ok(self.stores.get(0));
        until(what, PATIENCE, look, |standing: &Option<Standing>| {
            standing.as_ref().is_some_and(&wanted)
        })
        .await
    }

    fn restored(&self) -> Result<(Arc<Store>, i64)> {
        match self.done.recv_timeout(PATIENCE)? {
            Done::Restored { store, offset, .. } => Ok((store, offset)),
            Done::Cancelled(_) => bail!("cancelled"),
            Done::LeftOpen(_) => bail!("a transaction is open"),
            Done::Failed(_, error) => Err(error.into()),
        }
    }

    fn cancelled(&self) -> Result<()> {
        let done = self.done.recv_timeout(PATIENCE)?;
        ensure!(matches!(done, Done::Cancelled(0)), "not cancelled");
        Ok(())
    }

    /// Waits until its thread has ended, and every store is closed.
    async fn end(self, folder: &Path, app: &Application) -> Result<()> {
        drop(self.jobs);
        let shared = Shared::on_disk(1 << 20);
        let open = async || Ok(Store::open(&shared, folder, app.id(), 0)?);
        e2e::eventually("the store is closed", PATIENCE, open).await?;
        Ok(())
    }
}

fn content(store: &Store) -> Result<Rows> {
    let mut rows = Rows::new();
    store.scan(b"o", |key, value| {
        rows.insert(key.to_vec(), value.to_vec());
        true
    })?;
    Ok(rows)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_keeps_up_becomes_active_and_comes_back() -> Result<()> {
    story("standby", async |app| {
        let mut log = Log::new(app).await?;
        log.commit(0..60_000)?;
        log.abort(60_000..60_100)?;
        let restorer = Restorer::start(app)?;
        let surveyed = async || Ok(restorer.stores.surveyed());
        until("the folder is looked through", PATIENCE, surveyed, |yes| {
            *yes
        })
        .await?;
        ensure!(restorer.stores.all().is_empty());

        // It follows: through many rows by tables, then as they come; lag 0, though the ends of
        // transactions have offsets, and an aborted one was last.
        restorer.ask(Job::Follow(0))?;
        let no_lag = |s: &Standing| s.phase == Phase::Following && s.lag() == Some(0);
        let first = restorer.stands("it keeps up", no_lag).await?;
        log.commit(60_100..60_200)?;
        let end = first.context("a standing")?.position + 101;
        let further = |s: &Standing| no_lag(s) && s.position == end;
        restorer.stands("it keeps up still", further).await?;

        // It becomes active, but not while a transaction is open.
        let pending = log.write(60_200..60_300)?;
        restorer.ask(Job::Restore(0))?;
        let waits = |s: &Standing| s.phase == Phase::Restoring;
        restorer.stands("it is being restored", waits).await?;
        let early = restorer.done.recv_timeout(PATIENCE)?;
        ensure!(matches!(early, Done::LeftOpen(0)), "with one open");
        log.producer.commit_transaction(CALL)?;
        log.rows = pending;
        let (store, offset) = restorer.restored()?;
        ensure!(offset == 0, "nothing of the source was committed");
        ensure!(store.position()? == end + 101);
        ensure!(content(&store)? == log.rows);
        ensure!(restorer.stores.get(0).is_none(), "a task has it");

        // It is a standby again while somebody still has the store: the same one is used.
        log.commit(60_300..60_400)?;
        restorer.ask(Job::Follow(0))?;
        restorer.stands("it keeps up again", no_lag).await?;
        // What was read is written a moment later.
        let look = async || Ok(content(&store)? == log.rows);
        until("the rows are there", PATIENCE, look, |same| *same).await?;
        drop(store);

        restorer.ask(Job::Cancel(0))?;
        restorer.cancelled()?;
        let idle = |s: &Standing| s.phase == Phase::Idle && s.position == end + 202;
        restorer.stands("it is on disk", idle).await?;
        restorer.ask(Job::Cancel(0))?;
        restorer.cancelled()?;

        // The next process finds it, and needs nothing.
        let folder = app.folder().join("stores");
        restorer.end(&folder, app).await?;
        let restorer = Restorer::start(app)?;
        restorer.stands("it is found", idle).await?;
        restorer.ask(Job::Restore(0))?;
        let (store, _) = restorer.restored()?;
        ensure!(content(&store)? == log.rows);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_another_changelog_is_set_aside() -> Result<()> {
    story("beyond", async |app| {
        let mut log = Log::new(app).await?;
        log.commit(1..100)?;
        let folder = app.folder().join("stores");
        let shared = Shared::on_disk(1 << 20);
        let store = Store::open(&shared, &folder, app.id(), 0)?;
        store.apply([(&b"ostranger"[..], Some(&b"?"[..]))], 5000, None)?;
        store.complete_at(engine::worker::now_ms());
        store.flush()?;
        drop(store);
        let restorer = Restorer::start(app)?;
        let stands = |s: &Standing| s.position == 5000;
        restorer.stands("the store is found", stands).await?;
        restorer.ask(Job::Restore(0))?;
        let (store, _) = restorer.restored()?;
        ensure!(content(&store)? == log.rows);
        ensure!(folder.join("aside/0-1").exists());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_deleted_from_the_changelog_are_missed_by_no_standby() -> Result<()> {
    story("deleted", async |app| {
        // Of a topic that is only compacted, brokers let nobody delete records.
        let mut log = Log::with_policy(app, false).await?;
        log.commit(0..100)?;
        let restorer = Restorer::start(app)?;
        restorer.ask(Job::Follow(0))?;
        let no_lag = |s: &Standing| s.lag() == Some(0);
        restorer.stands("it keeps up", no_lag).await?;
        // It stands before an open transaction; meanwhile somebody deletes what it has not read.
        log.write(100..200)?;
        let mut to = TopicPartitionList::new();
        to.add_partition_offset(&log.topic, 0, Offset::Offset(150))?;
        let admin: AdminClient<_> = kafka(app).client("e2e").create()?;
        let deleted = admin.delete_records(&to, &AdminOptions::new()).await?;
        deleted.elements()[0].error()?;
        let aside = app.folder().join("stores/aside/0-1");
        let look = async || Ok(aside.exists());
        until("the store is set aside", PATIENCE, look, |gone| *gone).await?;
        log.producer.abort_transaction(CALL)?;
        log.rows.clear();
        log.commit(200..300)?;
        restorer.ask(Job::Restore(0))?;
        let (store, _) = restorer.restored()?;
        ensure!(content(&store)? == log.rows, "what the changelog still has");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_on_a_full_disk_says_so() -> Result<()> {
    story("full", async |app| {
        let mut log = Log::new(app).await?;
        log.commit(0..100)?;
        let restorer = Restorer::start(app)?;
        restorer.ask(Job::Follow(0))?;
        let no_lag = |s: &Standing| s.lag() == Some(0);
        restorer.stands("it keeps up", no_lag).await?;
        // The next tables lead to where the kernel says that no space is left.
        let store = app.folder().join("stores/0");
        for number in 0..500 {
            let table = store.join(format!("{number:06}.sst"));
            if !table.exists() {
                symlink("/dev/full", table)?;
            }
        }
        restorer.ask(Job::Cancel(0))?;
        match restorer.done.recv_timeout(PATIENCE)? {
            Done::Failed(0, error) => ensure!(error.ends_the_instance(), "{error}"),
            _ => bail!("the disk is full, and nobody says so"),
        }
        restorer.cancelled()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement: run it alone, on a quiet machine"]
async fn how_fast_a_million_rows_are_restored() -> Result<()> {
    story("million", async |app| {
        let mut log = Log::new(app).await?;
        for part in 0..10 {
            log.commit(part * 100_000..(part + 1) * 100_000)?;
        }
        let restorer = Restorer::start(app)?;
        let started = Instant::now();
        restorer.ask(Job::Restore(0))?;
        let (store, _) = restorer.restored()?;
        let took = started.elapsed();
        ensure!(content(&store)? == log.rows);
        println!("1,000,000 rows in {took:?}");
        Ok(())
    })
    .await
}
