//! Running programs of this workspace.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use devkit::process::{Process, Program, Signal, tail};
use reqwest::{Client, StatusCode};

use crate::api::{self, Api};
use crate::story::{PATIENCE, eventually};
use crate::{Log, Metrics, binary};

/// How to start a program, again and again.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Its name in the story, and its log's.
    pub(crate) name: String,
    /// The executable.
    pub(crate) program: &'static str,
    pub(crate) arguments: Vec<String>,
    /// Variables besides those of this process.
    pub(crate) environment: Vec<(String, String)>,
    /// Where its log goes.
    pub(crate) folder: PathBuf,
}

impl Plan {
    fn start(&self) -> Result<(Process, Log)> {
        let log = Log::at(self.folder.join(format!("{}.log", self.name)));
        let process = Process::start(Program {
            name: format!("{} {}", self.program, self.name),
            executable: binary(self.program)?,
            arguments: self.arguments.clone(),
            environment: self.environment.clone(),
            folder: self.folder.clone(),
            log: log.path().to_owned(),
            leftover: Some(self.folder.clone()),
        })?;
        Ok((process, log))
    }
}

/// A state-service or a notifier, running or not. Dropping it kills it.
#[derive(Debug)]
pub struct Service {
    plan: Plan,
    process: Option<Process>,
    log: Log,
    client: Client,
}

impl Service {
    pub(crate) fn start(plan: Plan) -> Result<Self> {
        let (process, log) = plan.start()?;
        Ok(Self {
            plan,
            process: Some(process),
            log,
            client: api::client()?,
        })
    }

    /// Its name; an instance id, if it is a state-service.
    pub fn name(&self) -> &str {
        &self.plan.name
    }

    /// Its log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Its process id, if it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// The URL that it answers at, as soon as its log tells.
    ///
    /// # Errors
    /// It does not tell.
    pub async fn url(&self) -> Result<String> {
        let what = format!("{} says where it listens", self.name());
        let look = async || {
            let address = self.log.field("listening", "address");
            let address = address.with_context(|| self.end_of_log())?;
            Ok(format!("http://{address}"))
        };
        eventually(&what, PATIENCE, look).await
    }

    /// The REST API of this instance.
    ///
    /// # Errors
    /// As for [`Self::url`].
    pub async fn api(&self) -> Result<Api> {
        Ok(Api::new(self.client.clone(), self.url().await?))
    }

    /// Waits until `/readyz` says yes.
    ///
    /// # Errors
    /// It does not, with its last answer and the end of its log.
    pub async fn ready(&self) -> Result<()> {
        let url = self.url().await?;
        let what = format!("{} is ready", self.name());
        let look = async || {
            let answer = self.client.get(format!("{url}/readyz")).send().await?;
            let status = answer.status();
            let text = answer.text().await?;
            ensure!(status == StatusCode::OK, "{status} {text}");
            Ok(())
        };
        let ready = eventually(&what, PATIENCE, look).await;
        ready.with_context(|| self.end_of_log())
    }

    /// What it counts.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn metrics(&self) -> Result<Metrics> {
        let url = format!("{}/metrics", self.url().await?);
        let answer = self.client.get(url).send().await?.error_for_status()?;
        Ok(Metrics::new(answer.text().await?))
    }

    /// The exit code if it has ended by itself; 128 plus the signal's number if a signal ended it.
    ///
    /// # Errors
    /// It is not running by our own doing.
    pub fn ended(&mut self) -> Result<Option<i32>> {
        Ok(self.running()?.ended()?.and_then(|status| status.code()))
    }

    /// SIGKILL: the process is gone when this returns.
    ///
    /// # Errors
    /// It is not running.
    pub async fn kill(&mut self) -> Result<()> {
        let process = self.process.take();
        process.with_context(|| self.not_running())?.kill().await
    }

    /// SIGTERM: waits for the end and returns the exit code.
    ///
    /// # Errors
    /// It is not running, or does not end.
    pub async fn terminate(&mut self) -> Result<i32> {
        let process = self.process.take();
        let process = process.with_context(|| self.not_running())?;
        let code = terminate(process, self.name()).await;
        code.with_context(|| self.end_of_log())
    }

    /// SIGSTOP: it stands still, and its connections stay.
    ///
    /// # Errors
    /// It is not running.
    pub fn pause(&mut self) -> Result<()> {
        self.running()?.signal(Signal::STOP)
    }

    /// SIGCONT: it goes on as if nothing had been.
    ///
    /// # Errors
    /// It is not running.
    pub fn resume(&mut self) -> Result<()> {
        self.running()?.signal(Signal::CONT)
    }

    /// Starts it again, with the same settings and state folder, at another port. If it still runs, it is killed
    /// first.
    ///
    /// # Errors
    /// No process can be made.
    pub async fn restart(&mut self) -> Result<()> {
        if let Some(process) = self.process.take() {
            process.kill().await?;
        }
        let (process, log) = self.plan.start()?;
        self.process = Some(process);
        self.log = log;
        Ok(())
    }

    /// The end of its log, for an error.
    pub fn end_of_log(&self) -> String {
        let path = self.log.path();
        format!("the end of {}:\n{}", path.display(), tail(path))
    }

    fn running(&mut self) -> Result<&mut Process> {
        let why = self.not_running();
        self.process.as_mut().context(why)
    }

    fn not_running(&self) -> String {
        format!("{} is not running", self.name())
    }
}

/// A running `agent-sim`. Dropping it kills it.
#[derive(Debug)]
pub struct Agents {
    name: String,
    process: Process,
    log: Log,
}

impl Agents {
    pub(crate) fn start(plan: Plan) -> Result<Self> {
        let (process, log) = plan.start()?;
        Ok(Self {
            name: plan.name,
            process,
            log,
        })
    }

    /// Its log; the last line is a summary.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Waits until it has done what it was told.
    ///
    /// # Errors
    /// It fails, or takes longer than five minutes: with the end of its log.
    pub async fn finished(mut self) -> Result<()> {
        let patience = Duration::from_mins(5);
        let ended = self.process.wait(patience).await?;
        let end = tail(self.log.path());
        match ended {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("agents {} failed ({status}):\n{end}", self.name),
            None => bail!("agents {} go on after {patience:?}:\n{end}", self.name),
        }
    }

    /// SIGTERM: they send what they have and leave.
    ///
    /// # Errors
    /// A report was not delivered: with the end of the log.
    pub async fn stop(self) -> Result<()> {
        let code = terminate(self.process, &self.name).await?;
        let end = tail(self.log.path());
        ensure!(code == 0, "agents {} failed ({code}):\n{end}", self.name);
        Ok(())
    }
}

async fn terminate(mut process: Process, name: &str) -> Result<i32> {
    process.signal(Signal::TERM)?;
    let ended = process.wait(PATIENCE).await?;
    let status = ended.with_context(|| format!("{name} still runs {PATIENCE:?} after SIGTERM"))?;
    status.code().context("its wrapper was killed")
}
