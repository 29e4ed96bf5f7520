//! A server's process: started, signalled and stopped by its id, and never outliving this process.
//!
//! Between this process and the server stands a few lines of shell (`leash.sh`) that hold the reading end of a
//! pipe. The pipe ends when this process ends for whatever reason, SIGKILL included, and then the shell kills
//! the server. That needs no unsafe code and does not depend on the thread that started the server, as Linux's
//! parent-death signal does.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, kill_process};

pub use rustix::process::Signal;

const LEASH: &str = include_str!("leash.sh");

/// How often a condition is looked at while waiting for it.
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// How much of a log goes into an error.
const LOG_TAIL_LINES: usize = 25;

/// A program and how to start it.
#[derive(Clone, Debug)]
pub struct Program {
    /// What a person calls it.
    pub name: String,
    /// The file to execute.
    pub executable: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Variables that it gets besides those of this process.
    pub environment: Vec<(String, String)>,
    /// The folder it runs in.
    pub folder: PathBuf,
    /// Where its output goes, appended.
    pub log: PathBuf,
    /// A folder to remove when this process dies without having stopped the program.
    pub leftover: Option<PathBuf>,
}

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    program: Program,
    leash: Child,
    pid: Pid,
    exit: Option<ExitStatus>,
}

impl Process {
    /// Starts a program, in a process group of its own.
    ///
    /// # Errors
    /// Its log cannot be written, or no process can be made.
    pub fn start(program: Program) -> Result<Self> {
        let name = &program.name;
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&program.log);
        let log =
            log.with_context(|| format!("cannot write {name}'s log {}", program.log.display()))?;
        let mut leash = Command::new("sh")
            .args(["-c", LEASH, "leash"])
            .arg(program.leftover.as_deref().unwrap_or(Path::new("")))
            .arg(&program.executable)
            .args(&program.arguments)
            .envs(
                program
                    .environment
                    .iter()
                    .map(|(name, value)| (name, value)),
            )
            .current_dir(&program.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            // Ctrl-C on the terminal is for this process, which then stops the server in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let mut line = String::new();
        if let Some(output) = leash.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let pid = line.trim().parse().ok().and_then(Pid::from_raw);
        let pid =
            pid.with_context(|| format!("cannot start {name}: no process id from its wrapper"))?;
        tracing::debug!(%name, pid = pid.as_raw_nonzero().get(), "started");
        Ok(Self {
            program,
            leash,
            pid,
            exit: None,
        })
    }

    /// The process id of the program (not of the shell that holds it).
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// How the program ended, if it has. A death by signal is an exit code of 128 plus the signal's number.
    ///
    /// # Errors
    /// The system cannot tell.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        if self.exit.is_none() {
            self.exit = self.leash.try_wait()?;
        }
        Ok(self.exit)
    }

    /// Sends a signal, unless the program has ended: then its id may be another's by now.
    ///
    /// # Errors
    /// It is not running.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.ended()? {
            bail!(
                "{} is not running ({})",
                self.program.name,
                describe(status)
            );
        }
        kill_process(self.pid, signal)
            .with_context(|| format!("cannot signal {}", self.program.name))
    }

    /// Sends SIGTERM and waits for the end; after `patience`, SIGKILL.
    ///
    /// # Errors
    /// It cannot be signalled.
    pub async fn stop(mut self, patience: Duration) -> Result<()> {
        if self.ended()?.is_some() {
            return Ok(());
        }
        self.signal(Signal::TERM)?;
        // A paused process would keep the signal for later.
        self.signal(Signal::CONT)?;
        if self.wait(patience).await?.is_none() {
            tracing::warn!(name = %self.program.name, ?patience, "did not stop in time; killing it");
            self.kill().await?;
        }
        Ok(())
    }

    /// Sends SIGKILL and waits for the end.
    ///
    /// # Errors
    /// It is still there after ten seconds.
    pub async fn kill(mut self) -> Result<()> {
        if self.ended()?.is_none() {
            self.signal(Signal::KILL)?;
            let ended = self.wait(Duration::from_secs(10)).await?;
            ended.with_context(|| format!("{} is still there after SIGKILL", self.program.name))?;
        }
        Ok(())
    }

    /// Waits for the end; `None` if it does not come within `patience`.
    ///
    /// # Errors
    /// The system cannot tell.
    pub async fn wait(&mut self, patience: Duration) -> Result<Option<ExitStatus>> {
        let deadline = Instant::now() + patience;
        while self.ended()?.is_none() && Instant::now() < deadline {
            tokio::time::sleep(POLL).await;
        }
        self.ended()
    }

    /// Waits until `ready` says yes, which is asked again and again.
    ///
    /// # Errors
    /// The program ended, or the deadline passed: with the end of its log and what `ready` said last.
    pub async fn until_ready(
        &mut self,
        patience: Duration,
        ready: impl AsyncFn() -> Result<()>,
    ) -> Result<()> {
        let started = Instant::now();
        loop {
            let answer = tokio::time::timeout(Duration::from_secs(5), ready()).await;
            let error = match answer {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => error,
                Err(_) => anyhow::anyhow!("it did not answer within 5 s"),
            };
            let name = &self.program.name;
            let trouble = if let Some(status) = self.leash.try_wait()? {
                self.exit = Some(status);
                format!("{name} ended while starting ({})", describe(status))
            } else if started.elapsed() >= patience {
                format!(
                    "{name} was not ready after {} s ({error:#})",
                    patience.as_secs()
                )
            } else {
                tokio::time::sleep(POLL).await;
                continue;
            };
            let log = tail(&self.program.log);
            bail!(
                "{trouble}; the end of its log {}:\n{log}",
                self.program.log.display()
            );
        }
    }
}

impl Drop for Process {
    /// Kills the program if it still runs, and waits for its end, so that its folder can be removed.
    fn drop(&mut self) {
        // The shell kills the program when the pipe ends. It removes nothing of a program that was killed
        // before, so the kill comes first.
        if matches!(self.ended(), Ok(None)) {
            let _ = kill_process(self.pid, Signal::KILL);
            let deadline = Instant::now() + Duration::from_secs(5);
            while matches!(self.ended(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(POLL);
            }
        }
    }
}

fn describe(status: ExitStatus) -> String {
    // A shell reports a death by signal as 128 plus the signal's number.
    match (status.code(), status.signal()) {
        (Some(code), _) if code > 128 => format!("signal {}", code - 128),
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "no exit code".to_owned(),
    }
}

/// The last lines of a log; nothing if there is none.
pub fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}

/// The folder of a server: temporary unless the user named one.
#[derive(Debug)]
pub(crate) struct Home {
    path: PathBuf,
    temporary: Option<tempfile::TempDir>,
}

impl Home {
    pub(crate) fn new(named: Option<PathBuf>, prefix: &str) -> Result<Self> {
        if let Some(path) = named {
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
            let path = path.canonicalize()?;
            return Ok(Self {
                path,
                temporary: None,
            });
        }
        let temporary = tempfile::Builder::new()
            .prefix(prefix)
            .tempdir()
            .context("cannot make a temporary folder")?;
        Ok(Self {
            path: temporary.path().to_owned(),
            temporary: Some(temporary),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The folder, if it is temporary and so must go.
    pub(crate) fn leftover(&self) -> Option<PathBuf> {
        self.temporary.as_ref().map(|_| self.path.clone())
    }

    /// Leaves a temporary folder where it is: something went wrong, and its logs tell what.
    pub(crate) fn keep(&mut self) {
        if let Some(temporary) = &mut self.temporary {
            temporary.disable_cleanup(true);
        }
    }
}

/// Writes a file of a server.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    use std::io::Write;
    let mut file =
        File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(text.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests;
