//! Apache Kafka in KRaft mode: every broker is a controller too, so that three of them survive the loss of any.

mod ask;
pub mod jars;
mod leave_open;
mod probe;
mod settings;

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::sync::Mutex;

use crate::cache::Cache;
use crate::java::Java;
use crate::port::Port;
use crate::process::{Home, Process, Program, Signal};

/// How long a broker may take to start. On an idle machine it takes about 3 s.
const START_PATIENCE: Duration = Duration::from_secs(90);

/// How long a broker may take to stop in order.
const STOP_PATIENCE: Duration = Duration::from_secs(30);

/// What the brokers' JVMs are told unless [`KafkaOptions::jvm`] says otherwise: start quickly, stay small.
const JVM: [&str; 4] = [
    "-Xms128m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
];

/// How to start a [`Kafka`]. The default is one broker in a temporary folder.
#[derive(Clone, Debug)]
pub struct KafkaOptions {
    /// How many brokers. With three or more, internal and default topics have three replicas of which two must
    /// be in sync.
    pub brokers: usize,
    /// More settings for `server.properties`; they win over devkit's.
    pub properties: Vec<(String, String)>,
    /// The JVM's options, instead of those that make a small broker that starts quickly (512 MB, only the first
    /// compiler). A benchmark wants others.
    pub jvm: Option<Vec<String>>,
    /// Where data and logs are kept; it must be empty. By default a temporary folder, removed at the end.
    pub folder: Option<PathBuf>,
}

impl Default for KafkaOptions {
    fn default() -> Self {
        Self {
            brokers: 1,
            properties: Vec::new(),
            jvm: None,
            folder: None,
        }
    }
}

/// A running Kafka. Dropping it kills the brokers and removes their data.
#[derive(Debug)]
pub struct Kafka {
    bootstrap: String,
    brokers: Vec<Broker>,
    java: Java,
    class_path: String,
    home: Home,
}

#[derive(Debug)]
struct Broker {
    address: String,
    program: Program,
    process: Mutex<Option<Process>>,
    _ports: [Port; 2],
}

impl Kafka {
    /// Downloads what is missing, starts the brokers, and returns when each answers and sees all of them.
    ///
    /// # Errors
    /// Something cannot be downloaded, or a broker does not start: the end of its log is in the message, and a
    /// temporary folder is kept for a look at the rest.
    pub async fn start(options: KafkaOptions) -> Result<Self> {
        ensure!(options.brokers > 0, "a Kafka needs at least one broker");
        let cache = Cache::open()?;
        let java = Java::find(&cache).await?;
        let class_path = jars::class_path(&cache).await?;
        let home = Home::new(options.folder.clone(), "devkit-kafka-")?;
        let brokers = settings::layout(&options, &home, &java, &class_path)?;
        let bootstrap = brokers
            .iter()
            .map(|broker| broker.address.as_str())
            .collect::<Vec<_>>()
            .join(",");
        let mut kafka = Self {
            bootstrap,
            brokers,
            java,
            class_path,
            home,
        };
        if let Err(error) = kafka.start_all().await {
            kafka.home.keep();
            return Err(error);
        }
        Ok(kafka)
    }

    async fn start_all(&self) -> Result<()> {
        let formats = self
            .brokers
            .iter()
            .map(|broker| self.format(broker))
            .collect::<Result<Vec<_>>>()?;
        for format in formats {
            let output = format.wait_with_output().await?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(
                output.status.success(),
                "cannot format a broker's storage ({}): {said}",
                output.status
            );
        }
        // All are started before any is waited for: a quorum needs more than one.
        for broker in &self.brokers {
            *broker.process.lock().await = Some(Process::start(broker.program.clone())?);
        }
        for broker in &self.brokers {
            self.wait_until_ready(broker, self.brokers.len()).await?;
        }
        Ok(())
    }

    /// Formats a broker's storage; dropping the process ends it.
    fn format(&self, broker: &Broker) -> Result<tokio::process::Child> {
        // Any UUID will do as the cluster's id; the folder keeps clusters apart.
        let id = "ZGV2a2l0LWNsdXN0ZXItMQ";
        tokio::process::Command::from(self.tool("kafka.tools.StorageTool"))
            .args([
                "format",
                "--cluster-id",
                id,
                "--config",
                "server.properties",
            ])
            .current_dir(&broker.program.folder)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot run Kafka's storage tool")
    }

    /// Waits until the broker answers and has `seen` so many brokers, itself among them.
    async fn wait_until_ready(&self, broker: &Broker, seen: usize) -> Result<()> {
        let mut process = broker.process.lock().await;
        let process = process
            .as_mut()
            .with_context(|| format!("{} is not running", broker.program.name))?;
        process
            .until_ready(START_PATIENCE, || probe::ready(&broker.address, seen))
            .await
    }

    /// All brokers' addresses, separated by commas, as clients want them in `bootstrap.servers`.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// How many brokers there are, running or not.
    pub fn brokers(&self) -> usize {
        self.brokers.len()
    }

    /// The address of broker `index`, from 0. (Its node id is `index + 1`.)
    ///
    /// # Panics
    /// There is no such broker. So do all methods that name one.
    pub fn address(&self, index: usize) -> &str {
        &self.brokers[index].address
    }

    /// The folder that holds the brokers' data, settings and logs.
    pub fn folder(&self) -> &std::path::Path {
        self.home.path()
    }

    /// The process id of broker `index`, if it runs.
    pub async fn pid(&self, index: usize) -> Option<u32> {
        self.brokers[index]
            .process
            .lock()
            .await
            .as_ref()
            .map(Process::pid)
    }

    /// Stops broker `index` in order (SIGTERM): it hands over what it leads first. Stopping a stopped broker
    /// does nothing.
    ///
    /// # Errors
    /// The broker cannot be signalled, or is still there after SIGKILL.
    pub async fn stop_broker(&self, index: usize) -> Result<()> {
        match self.brokers[index].process.lock().await.take() {
            Some(process) => process.stop(STOP_PATIENCE).await,
            None => Ok(()),
        }
    }

    /// Kills broker `index` (SIGKILL).
    ///
    /// # Errors
    /// The broker cannot be signalled, or is still there afterwards.
    pub async fn kill_broker(&self, index: usize) -> Result<()> {
        match self.brokers[index].process.lock().await.take() {
            Some(process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// Starts broker `index` again with the ports and the data that it had, and returns when it answers and is
    /// back in the cluster. A broker that was killed, and not stopped, is let back in only when its former
    /// session has expired (4 s).
    ///
    /// # Errors
    /// It runs already, or it does not start.
    pub async fn start_broker(&self, index: usize) -> Result<()> {
        let broker = &self.brokers[index];
        {
            let mut process = broker.process.lock().await;
            ensure!(
                process.is_none(),
                "{} is running already",
                broker.program.name
            );
            *process = Some(Process::start(broker.program.clone())?);
        }
        self.wait_until_ready(broker, 1).await
    }

    /// Halts broker `index` (SIGSTOP): its connections stay open and nothing answers.
    ///
    /// # Errors
    /// It does not run.
    pub async fn pause_broker(&self, index: usize) -> Result<()> {
        self.signal(index, Signal::STOP).await
    }

    /// Lets a paused broker go on (SIGCONT).
    ///
    /// # Errors
    /// It does not run.
    pub async fn resume_broker(&self, index: usize) -> Result<()> {
        self.signal(index, Signal::CONT).await
    }

    async fn signal(&self, index: usize, signal: Signal) -> Result<()> {
        let broker = &self.brokers[index];
        let mut process = broker.process.lock().await;
        process
            .as_mut()
            .with_context(|| format!("{} is not running", broker.program.name))?
            .signal(signal)
    }

    /// One of Kafka's command-line tools by the name of its Java class, such as
    /// `org.apache.kafka.tools.consumer.group.ConsumerGroupCommand` or `org.apache.kafka.tools.TopicCommand`.
    /// The caller adds its arguments, `--bootstrap-server` among them, and runs it.
    pub fn tool(&self, class: &str) -> Command {
        let mut command = Command::new(&self.java.executable);
        let log = format!(
            "-Dlog4j2.configurationFile={}",
            self.home.path().join(settings::TOOL_LOG_FILE).display()
        );
        command
            .args(JVM)
            .arg(log)
            .args(["-cp", &self.class_path, class]);
        command
    }

    /// Ends all brokers: in order if their data is kept; otherwise they are killed, which is quicker, and their
    /// data is removed.
    ///
    /// # Errors
    /// A broker cannot be stopped.
    pub async fn stop(self) -> Result<()> {
        let kept = self.home.leftover().is_none();
        let mut stopping = tokio::task::JoinSet::new();
        for broker in &self.brokers {
            let Some(process) = broker.process.lock().await.take() else {
                continue;
            };
            // All at once: the last of a quorum could not hand over to anybody.
            stopping.spawn(async move {
                if kept {
                    process.stop(STOP_PATIENCE).await
                } else {
                    process.kill().await
                }
            });
        }
        stopping.join_all().await.into_iter().collect()
    }
}
