//! The cluster that is broken: Kafka, a registry, the instances each behind a proxy of its own, and who writes to it.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use common::kafka as client;
use common::topics::{self, Spec};
use devkit::{Cache, Kafka, KafkaOptions, Registry};
use e2e::Application;
use e2e::api::Cluster;

use crate::checker::source::{Limits, Reader};
use crate::checker::{Checker, Place};
use crate::generator::{HEAVY, History, Schemas, Shape, bad};
use crate::instance::Instance;
use crate::model::Rules;
use crate::now_ms;
use crate::options::Options;
use crate::probes::Probes;
use crate::writer::Writer;

const FRESHNESS: Duration = Duration::from_secs(5);
const MAX_SKEW: Duration = Duration::from_secs(3);
const QUORUM: usize = 2;
const OBJECTS: usize = 120;
const AGENTS: usize = 5;
/// Kafka compacts nothing that is younger: the checker wants to see all of it.
const NEVER: (&str, &str) = ("min.compaction.lag.ms", "604800000");

/// Who is being broken, and since when.
#[derive(Clone, Debug)]
pub struct Trouble {
    /// An instance; none is everybody, as when a broker is away.
    pub victim: Option<String>,
    /// From when, in ms since 1970.
    pub from_ms: i64,
    /// Until when.
    pub to_ms: i64,
}

/// Everything that runs.
pub struct World {
    /// The brokers. Whoever breaks one holds the lock.
    pub kafka: tokio::sync::Mutex<Kafka>,
    /// The application under test.
    pub app: Application,
    /// Its instances.
    pub instances: Vec<Instance>,
    /// Who writes to it.
    pub writer: Writer,
    /// Measures pauses.
    pub probes: Arc<Probes>,
    /// What was broken when.
    pub troubles: Mutex<Vec<Trouble>>,
    /// What every instance is told.
    pub(crate) flags: Vec<(String, String)>,
    brokers: usize,
    _registry: Registry,
}

impl World {
    /// Starts all of it, and waits until every instance processes its share.
    ///
    /// # Errors
    /// Something does not start.
    pub async fn start(options: &Options, seed: u64) -> Result<(Self, Checker)> {
        // Not both at once: two progress bars would write over each other.
        devkit::fetch(&Cache::open()?).await?;
        let brokers = KafkaOptions {
            brokers: usize::from(options.brokers),
            ..KafkaOptions::default()
        };
        let (kafka, registry) = tokio::try_join!(Kafka::start(brokers), Registry::start())?;
        let mut app = Application::at("soak", kafka.bootstrap(), registry.url())?;
        // Whoever finds nothing removes it; see the end of the run.
        app.keep();
        let partitions = u32::from(options.partitions);
        let client = client::Args {
            bootstrap_servers: kafka.bootstrap().to_owned(),
            kafka: Vec::new(),
        };
        create_topics(&client, &app, partitions).await?;
        let names = app.names();
        let topics = app.topics()?;
        let shape = Shape {
            partitions,
            objects: OBJECTS,
            agents: AGENTS,
            freshness_ms: ms(FRESHNESS),
            max_skew_ms: ms(MAX_SKEW),
        };
        let schemas = Schemas::register(topics.registry(), &names.reports).await?;
        let history = History::new(seed, shape, schemas);
        let probes = Arc::new(Probes::new(partitions));
        probes.watch(&client, &names.states)?;
        let writer = Writer::start(
            &client,
            &names.reports,
            history,
            Arc::clone(&probes),
            options.rate,
        )?;
        let limits = Limits {
            partitions,
            object_id_bytes: bad::OBJECT_ID_BYTES,
            record_bytes: bad::RECORD_BYTES,
            max_skew_ms: ms(MAX_SKEW),
        };
        let runtime = tokio::runtime::Handle::current();
        let reader = Reader::new(limits, topics.registry().clone(), runtime)?;
        let rules = Rules {
            scenario: "site-attack".to_owned(),
            freshness_ms: ms(FRESHNESS),
            quorum: QUORUM,
            weights: [("agent-0".to_owned(), HEAVY)].into(),
        };
        let place = Place {
            kafka: client.clone(),
            application_id: app.id().to_owned(),
            partitions: i32::try_from(partitions)?,
        };
        let checker = Checker::new(place, reader, rules)?;
        let mut world = Self {
            brokers: kafka.brokers(),
            kafka: tokio::sync::Mutex::new(kafka),
            app,
            instances: Vec::new(),
            writer,
            probes,
            troubles: Mutex::default(),
            flags: flags(partitions),
            _registry: registry,
        };
        for number in 0..options.instances {
            let name = format!("i{number}");
            let instance = Instance::start(&world, &name, usize::from(number)).await?;
            world.instances.push(instance);
        }
        for instance in &world.instances {
            let service = instance.service.lock().await;
            instance.show(&world, &service).await?;
        }
        Ok((world, checker))
    }

    /// How many brokers there are.
    pub fn brokers(&self) -> usize {
        self.brokers
    }

    /// The cluster as any instance sees it that is meant to answer and is not `victim`.
    ///
    /// # Errors
    /// None answers.
    pub async fn cluster(&self, victim: &str) -> Result<Cluster> {
        let mut last = anyhow::anyhow!("all instances are being broken");
        for instance in self.instances.iter().filter(|i| i.name != victim) {
            let Some(api) = instance.api() else { continue };
            match tokio::time::timeout(Duration::from_secs(2), api.cluster()).await {
                Ok(Ok(cluster)) => return Ok(cluster),
                Ok(Err(error)) => last = error,
                Err(_) => last = anyhow::anyhow!("{} did not answer in time", instance.name),
            }
        }
        Err(last)
    }

    /// The folders with the states of all instances that have ever been.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn state_dirs(&self) -> Result<Vec<PathBuf>> {
        let folder = self.app.folder();
        let entries = std::fs::read_dir(folder).with_context(|| format!("{}", folder.display()))?;
        let mut states: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.is_dir() && path.extension().is_some_and(|end| end == "state"))
            .collect();
        states.sort();
        Ok(states)
    }

    /// Notes that something is being broken from now on; returns where to note its end.
    pub fn begin_trouble(&self, victim: Option<&str>, from_ms: i64) -> usize {
        let mut troubles = lock(&self.troubles);
        troubles.push(Trouble {
            victim: victim.map(str::to_owned),
            from_ms,
            to_ms: i64::MAX,
        });
        troubles.len() - 1
    }

    /// It is healed.
    pub fn end_trouble(&self, index: usize, to_ms: i64) {
        if let Some(trouble) = lock(&self.troubles).get_mut(index) {
            trouble.to_ms = to_ms;
        }
    }

    /// Was a broker broken at some time since `from_ms`? Then waiting proves nothing.
    pub fn brokers_were_away(&self, from_ms: i64) -> bool {
        let troubles = self.troubles_between(from_ms, now_ms());
        troubles.iter().any(|trouble| trouble.victim.is_none())
    }

    /// Waits until `look` succeeds, and returns what it saw. Time during which a broker is broken does not count.
    ///
    /// # Errors
    /// It was not seen in time.
    pub async fn eventually<T>(
        &self,
        what: &str,
        patience: Duration,
        mut look: impl AsyncFnMut() -> Result<T>,
    ) -> Result<T> {
        loop {
            let from_ms = now_ms();
            match e2e::eventually(what, patience, &mut look).await {
                Err(_) if self.brokers_were_away(from_ms) => {}
                seen => return seen,
            }
        }
    }

    /// Whatever was broken at some time between these moments.
    pub fn troubles_between(&self, from_ms: i64, to_ms: i64) -> Vec<Trouble> {
        let troubles = lock(&self.troubles);
        let within = troubles
            .iter()
            .filter(|t| t.from_ms <= to_ms && t.to_ms >= from_ms);
        within.cloned().collect()
    }
}

fn flags(partitions: u32) -> Vec<(String, String)> {
    let flag = |name: &str, value: String| (name.to_owned(), value);
    vec![
        flag("partitions", partitions.to_string()),
        flag("quorum", QUORUM.to_string()),
        flag("freshness", format!("{}ms", ms(FRESHNESS))),
        flag("max-skew", format!("{}ms", ms(MAX_SKEW))),
        flag("weight", format!("agent-0={HEAVY}")),
        flag("max-object-id-bytes", bad::OBJECT_ID_BYTES.to_string()),
        flag("max-record-bytes", bad::RECORD_BYTES.to_string()),
    ]
}

/// Creates the topics before the service does, so that nothing of them is compacted away during the run.
async fn create_topics(client: &client::Args, app: &Application, partitions: u32) -> Result<()> {
    let names = app.names();
    let spec = |name: &str, compact| Spec {
        name: name.to_owned(),
        partitions,
        exact: true,
        compact,
        config: if compact { vec![NEVER] } else { Vec::new() },
    };
    let specs = [
        spec(&names.reports, false),
        spec(&names.states, true),
        spec(&names.changelog, true),
        spec(&names.dead_letters, false),
    ];
    topics::ensure(&client.client("soak"), &specs, -1, Duration::from_secs(30)).await?;
    Ok(())
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
