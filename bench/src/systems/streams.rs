//! The peer: the Kafka Streams application in `bench/kafka-streams`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use devkit::process::{Process, Program, Signal, tail};
use devkit::{Cache, Java};
use e2e::Application;
use serde::{Deserialize, Serialize};

use super::{PATIENCE, Variant, client};

/// The version of Kafka Streams that the peer is built with; `pom.xml` names it.
pub const VERSION: &str = "4.3.1";

/// What the peer's JVM is told unless a variant says otherwise; `kafka-streams/README.md` says why.
pub const JVM: [&str; 3] = ["-Xms256m", "-Xmx2g", "-XX:+UseParallelGC"];

/// Where the peer is.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Folder with the peer's jars
    #[arg(long, global = true, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/kafka-streams/target/peer"), hide_default_value = true)]
    pub peer: PathBuf,
}

/// How to start the peer.
#[derive(Clone, Debug)]
pub struct Peer {
    java: Java,
    jars: PathBuf,
}

/// What a running peer tells.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Stats {
    /// Kafka Streams' state.
    pub state: String,
    /// Records processed.
    pub records: u64,
    /// Reports that changed nothing.
    pub ignored: u64,
    /// Records that are no reports.
    pub rejected: u64,
    /// States published.
    pub transitions: u64,
}

/// The tasks of a running peer. To tell the lag, it asks the broker.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Tasks {
    /// Tasks processed here.
    #[serde(default)]
    pub active_tasks: u32,
    /// Standbys here, warm-ups included.
    #[serde(default)]
    pub standby_tasks: u32,
    /// Changelog records that the stores here lack.
    #[serde(default)]
    pub lag: i64,
}

impl Peer {
    /// Finds the jars and a Java.
    ///
    /// # Errors
    /// The peer is not built, or there is no Java.
    pub async fn find(args: &Args) -> Result<Self> {
        ensure!(
            args.peer.join("kafka-streams-peer-0.1.0.jar").is_file(),
            "the peer is not built ({} is missing): mvn -q package in bench/kafka-streams",
            args.peer.display()
        );
        Ok(Self {
            java: Java::find(&Cache::open()?).await?,
            jars: args.peer.canonicalize()?,
        })
    }

    /// The Java that it runs on.
    #[must_use]
    pub fn java(&self) -> &Java {
        &self.java
    }

    pub(super) fn start(
        &self,
        app: &Application,
        name: &str,
        variant: &Variant,
    ) -> Result<Running> {
        let state = app.folder().join(format!("{name}.state"));
        let mut settings = vec![
            format!("application.id={}", app.id()),
            format!("bootstrap.servers={}", app.bootstrap()),
            format!("schema.registry.url={}", app.registry_url()),
            format!("state.dir={}", state.display()),
        ];
        let own = variant.settings.iter();
        settings.extend(own.map(|(name, value)| format!("{name}={value}")));
        let jvm = variant.jvm.clone();
        let jvm = jvm.unwrap_or_else(|| JVM.map(str::to_owned).to_vec());
        let classes = format!("{}/*", self.jars.display());
        let fixed = [
            // Java unpacks RocksDB's library: where it is removed.
            format!("-Djava.io.tmpdir={}", app.folder().display()),
            "--enable-native-access=ALL-UNNAMED".to_owned(),
            "-cp".to_owned(),
            classes,
            "sharedstate.peer.Main".to_owned(),
        ];
        let program = Program {
            name: format!("Kafka Streams {name}"),
            executable: self.java.executable.clone(),
            arguments: jvm.into_iter().chain(fixed).chain(settings).collect(),
            folder: app.folder().to_owned(),
            log: app.folder().join(format!("{name}.log")),
            environment: Vec::new(),
            leftover: Some(app.folder().to_owned()),
        };
        Running::start(name, program)
    }
}

/// A running peer, or one that was running. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    name: String,
    program: Program,
    process: Option<Process>,
    /// Where the latest run begins in the log, in bytes.
    latest: usize,
    /// To ask it often costs as little as can be.
    client: reqwest::Client,
    url: OnceLock<String>,
}

impl Running {
    fn start(name: &str, program: Program) -> Result<Self> {
        let before = fs::read(&program.log).map_or(0, |log| log.len());
        Ok(Self {
            name: name.to_owned(),
            process: Some(Process::start(program.clone())?),
            program,
            latest: before,
            client: client(Duration::from_secs(5))?,
            url: OnceLock::new(),
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn log(&self) -> &Path {
        &self.program.log
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    pub(super) async fn url(&self) -> Result<String> {
        if let Some(url) = self.url.get() {
            return Ok(url.clone());
        }
        let url = self.told_url().await?;
        Ok(self.url.get_or_init(|| url).clone())
    }

    async fn told_url(&self) -> Result<String> {
        let what = format!("{} says where it listens", self.name);
        e2e::eventually(&what, PATIENCE, async || {
            let log = fs::read(self.log())?;
            let log = String::from_utf8_lossy(log.get(self.latest..).unwrap_or_default());
            let after = log.split("listening address=").nth(1);
            // A line that is still being written has no end.
            let address = after.and_then(|rest| rest.split_once('\n'));
            let address = address.with_context(|| tail(self.log()))?.0;
            Ok(format!("http://{}", address.trim()))
        })
        .await
    }

    /// What it tells of itself.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn stats(&self) -> Result<Stats> {
        self.ask("stats").await
    }

    /// What it has to do.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn tasks(&self) -> Result<Tasks> {
        self.ask("tasks").await
    }

    async fn ask<T: serde::de::DeserializeOwned>(&self, what: &str) -> Result<T> {
        let url = format!("{}/{what}", self.url().await?);
        let answer = self.client.get(url).send().await?;
        Ok(answer.error_for_status()?.json().await?)
    }

    /// Changelog records restored since the latest start. Streams logs a line for each store that is complete.
    pub(super) fn restored(&self) -> Result<u64> {
        let log = fs::read(self.log())?;
        let log = String::from_utf8_lossy(log.get(self.latest..).unwrap_or_default());
        Ok(log.lines().filter_map(restored).sum())
    }

    pub(super) async fn kill(&mut self) -> Result<()> {
        self.taken()?.kill().await
    }

    pub(super) async fn terminate(&mut self) -> Result<()> {
        let mut process = self.taken()?;
        process.signal(Signal::TERM)?;
        // The JVM's own code for a death by SIGTERM is 143, whatever its hooks did.
        match process.wait(PATIENCE).await? {
            Some(status) if matches!(status.code(), Some(0 | 143)) => Ok(()),
            Some(status) => bail!("{} ended with {status}:\n{}", self.name, tail(self.log())),
            None => bail!(
                "{} still runs after SIGTERM:\n{}",
                self.name,
                tail(self.log())
            ),
        }
    }

    pub(super) fn pause(&mut self) -> Result<()> {
        self.running()?.signal(Signal::STOP)
    }

    pub(super) fn resume(&mut self) -> Result<()> {
        self.running()?.signal(Signal::CONT)
    }

    pub(super) async fn restart(&mut self) -> Result<()> {
        if let Some(process) = self.process.take() {
            process.kill().await?;
        }
        *self = Self::start(&self.name, self.program.clone())?;
        Ok(())
    }

    fn running(&mut self) -> Result<&mut Process> {
        let why = format!("{} is not running", self.name);
        self.process.as_mut().context(why)
    }

    fn taken(&mut self) -> Result<Process> {
        let why = format!("{} is not running", self.name);
        self.process.take().context(why)
    }
}

/// `Finished restoring changelog NAME to store NAME with a total number of N records`
fn restored(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once("Finished restoring changelog ")?;
    let (_, rest) = rest.split_once("with a total number of ")?;
    rest.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_tells_what_was_restored() {
        let line = "2026-01-01T00:00:00.000Z INFO StoreChangelogReader - stream-thread [x] Finished restoring \
                    changelog a-objects-changelog-0 to store objects with a total number of 1234 records";
        assert_eq!(restored(line), Some(1234));
        assert_eq!(restored("state=RUNNING before=REBALANCING"), None);
    }

    #[test]
    fn the_version_is_that_of_the_build() {
        let pom = include_str!("../../kafka-streams/pom.xml");
        assert!(pom.contains(&format!("<kafka.version>{VERSION}<")));
    }
}
