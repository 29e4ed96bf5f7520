//! Apicurio Registry, which speaks the Confluent schema registry's API, with its data in memory.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;
use tokio::sync::Mutex;

use crate::cache::{Cache, Download, Source};
use crate::java::Java;
use crate::port::Port;
use crate::process::{Home, Process, Program, Signal};

/// The version of Apicurio Registry.
pub const VERSION: &str = "3.3.3";

/// How long it may take to start. On an idle machine with two slow cores it takes about 8 s.
const START_PATIENCE: Duration = Duration::from_mins(2);
const STOP_PATIENCE: Duration = Duration::from_secs(10);
const JVM: [&str; 4] = [
    "-Xms64m",
    "-Xmx384m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
];

/// A running registry. Its schemas live in memory: stopping it loses them. Dropping it kills it.
#[derive(Debug)]
pub struct Registry {
    url: String,
    program: Program,
    process: Mutex<Option<Process>>,
    client: reqwest::Client,
    home: Home,
    _ports: [Port; 2],
}

impl Registry {
    /// Downloads what is missing, starts the registry, and returns when it answers.
    ///
    /// # Errors
    /// Something cannot be downloaded, or the registry does not start: the end of its log is in the message.
    pub async fn start() -> Result<Self> {
        let cache = Cache::open()?;
        let java = Java::find(&cache).await?;
        let application = unpacked(&cache).await?;
        let home = Home::new(None, "devkit-registry-")?;
        let ports = [Port::reserve()?, Port::reserve()?];
        let folder = home.path().to_owned();
        let program = Program {
            name: "schema registry".to_owned(),
            executable: java.executable,
            arguments: arguments(&application, &folder, &ports),
            environment: Vec::new(),
            log: folder.join("registry.log"),
            leftover: home.leftover(),
            folder,
        };
        let url = format!("http://127.0.0.1:{}/apis/ccompat/v7", ports[0].number());
        let client = reqwest::Client::builder().no_proxy().build()?;
        let mut registry = Self {
            url,
            program,
            process: Mutex::new(None),
            client,
            home,
            _ports: ports,
        };
        if let Err(error) = registry.restart().await {
            registry.home.keep();
            return Err(error);
        }
        Ok(registry)
    }

    /// The address that clients want, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Stops the registry: nobody listens on its port any more, and its schemas are lost.
    ///
    /// # Errors
    /// It cannot be signalled, or is still there after SIGKILL.
    pub async fn stop(&self) -> Result<()> {
        match self.process.lock().await.take() {
            Some(process) => process.stop(STOP_PATIENCE).await,
            None => Ok(()),
        }
    }

    /// Starts a stopped registry on the same port, **empty**, and returns when it answers.
    ///
    /// # Errors
    /// It runs already, or it does not start.
    pub async fn restart(&self) -> Result<()> {
        let mut process = self.process.lock().await;
        ensure!(process.is_none(), "the schema registry is running already");
        let process = process.insert(Process::start(self.program.clone())?);
        process.until_ready(START_PATIENCE, || self.answers()).await
    }

    async fn answers(&self) -> Result<()> {
        let answer = self
            .client
            .get(format!("{}/subjects", self.url))
            .send()
            .await?;
        ensure!(
            answer.status().is_success(),
            "it answered {}",
            answer.status()
        );
        Ok(())
    }

    /// Halts the registry (SIGSTOP): connections are accepted and nothing answers. Its schemas are kept.
    ///
    /// # Errors
    /// It does not run.
    pub async fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP).await
    }

    /// Lets a paused registry go on (SIGCONT).
    ///
    /// # Errors
    /// It does not run.
    pub async fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT).await
    }

    async fn signal(&self, signal: Signal) -> Result<()> {
        let mut process = self.process.lock().await;
        process
            .as_mut()
            .context("the schema registry is not running")?
            .signal(signal)
    }
}

fn arguments(application: &Path, folder: &Path, ports: &[Port; 2]) -> Vec<String> {
    let settings = [
        "-Dquarkus.http.host=127.0.0.1".to_owned(),
        format!("-Dquarkus.http.port={}", ports[0].number()),
        "-Dquarkus.management.host=127.0.0.1".to_owned(),
        format!("-Dquarkus.management.port={}", ports[1].number()),
        // Netty and Quarkus unpack things; they belong where they are removed.
        format!("-Djava.io.tmpdir={}", folder.display()),
        "-jar".to_owned(),
        application.join("quarkus-run.jar").display().to_string(),
    ];
    JVM.map(str::to_owned).into_iter().chain(settings).collect()
}

/// The pinned archive of the registry.
pub fn download() -> Download {
    let file = format!("apicurio-registry-app-{VERSION}-all.tar.gz");
    Download {
        source: Source::Maven(format!(
            "io/apicurio/apicurio-registry-app/{VERSION}/{file}"
        )),
        file: Path::new("registry").join(file),
        sha256: "8bc6751c76d963734224b01d5e7f84ccb3cb61c87d3bd77c36c35f10a5cbed63".to_owned(),
        size: 158_577_952,
    }
}

/// The folder with the unpacked application.
pub(crate) async fn unpacked(cache: &Cache) -> Result<PathBuf> {
    let archive = cache
        .fetch(&format!("Apicurio Registry {VERSION}"), &[download()])
        .await?
        .remove(0);
    cache
        .folder(&format!("apicurio-registry-{VERSION}"), move |folder| {
            tar::Archive::new(GzDecoder::new(File::open(archive)?)).unpack(folder)?;
            ensure!(
                folder.join("quarkus-run.jar").exists(),
                "the archive holds no quarkus-run.jar"
            );
            Ok(())
        })
        .await
}
