//! One application under test: its id, its servers, its folder; and the programs that are started for it.

use std::path::{Path, PathBuf};
use std::{env, fs, thread};

use anyhow::{Context as _, Result};
use common::topics::Names;
use devkit::Servers;
use devkit::process::tail;
use tempfile::TempDir;
use uuid::Uuid;

use crate::flags::{Pairs, command_line};
use crate::service::{Agents, Plan, Service};
use crate::topics::Topics;

/// An application with an id of its own, so that several may use the same servers.
///
/// Dropping it removes its folder with all state and logs, unless it was told to [`keep`](Self::keep) it, the
/// story panics (then the ends of the logs are printed), or the environment has `KEEP=1`.
#[derive(Debug)]
pub struct Application {
    id: String,
    bootstrap: String,
    registry_url: String,
    folder: TempDir,
}

impl Application {
    /// An application on these servers; its id is `name` and something unique.
    ///
    /// # Errors
    /// No folder can be made.
    pub fn on(name: &str, servers: &Servers) -> Result<Self> {
        Self::at(name, servers.bootstrap(), servers.registry_url())
    }

    /// An application on servers at these addresses.
    ///
    /// # Errors
    /// No folder can be made.
    pub fn at(name: &str, bootstrap: &str, registry_url: &str) -> Result<Self> {
        let unique = Uuid::new_v4().simple().to_string();
        let folder = tempfile::Builder::new()
            .prefix(&format!("shared-state-{name}-"))
            .tempdir()
            .context("cannot make a temporary folder")?;
        let mut application = Self {
            id: format!("{name}-{}", &unique[..8]),
            bootstrap: bootstrap.to_owned(),
            registry_url: registry_url.to_owned(),
            folder,
        };
        if env::var("KEEP").is_ok_and(|keep| keep == "1") {
            application.keep();
        }
        Ok(application)
    }

    /// The application id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Kafka's `bootstrap.servers`.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// The schema registry's address.
    pub fn registry_url(&self) -> &str {
        &self.registry_url
    }

    /// The folder with state and logs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Names of the application's topics.
    pub fn names(&self) -> Names {
        Names::of(&self.id)
    }

    /// The application's topics, as this process sees them.
    ///
    /// # Errors
    /// The servers' addresses make no client.
    pub fn topics(&self) -> Result<Topics> {
        Topics::new(&self.id, &self.bootstrap, &self.registry_url)
    }

    /// Starts a state-service as instance `name`, at a free port, with a state folder of its own. `flags` are
    /// names without dashes and values; they replace what the harness sets: `application-id`,
    /// `bootstrap-servers`, `schema-registry-url`, `listen`, `instance-id`, `state-dir`.
    ///
    /// It is not ready yet: see [`Service::ready`].
    ///
    /// # Errors
    /// It is not built, or no process can be made.
    pub fn state_service(&self, name: &str, flags: &Pairs<'_>) -> Result<Service> {
        self.state_service_in(name, flags, &[])
    }

    /// The folder in which [`Self::state_service`] keeps the state of instance `name`.
    pub fn state_dir(&self, name: &str) -> PathBuf {
        self.folder().join(format!("{name}.state"))
    }

    /// [`Self::state_service`] with these variables in its environment.
    ///
    /// # Errors
    /// It is not built, or no process can be made.
    pub fn state_service_in(
        &self,
        name: &str,
        flags: &Pairs<'_>,
        environment: &[(String, String)],
    ) -> Result<Service> {
        let state = self.state_dir(name).display().to_string();
        let mut defaults = self.connection();
        defaults.extend([
            ("listen", "127.0.0.1:0"),
            ("instance-id", name),
            ("state-dir", &state),
        ]);
        let mut plan = self.plan(name, "state-service", command_line(&defaults, flags));
        plan.environment = environment.to_vec();
        Service::start(plan)
    }

    /// Starts a notifier that mails through `smtp_url` whom `routes`, the text of a routes file, names.
    ///
    /// # Errors
    /// It is not built, or no process can be made.
    pub fn notifier(
        &self,
        name: &str,
        smtp_url: &str,
        routes: &str,
        flags: &Pairs<'_>,
    ) -> Result<Service> {
        let file = self.folder().join(format!("{name}.routes.toml"));
        fs::write(&file, routes).with_context(|| format!("cannot write {}", file.display()))?;
        let file = file.display().to_string();
        let mut defaults = self.connection();
        defaults.extend([
            ("listen", "127.0.0.1:0"),
            ("smtp-url", smtp_url),
            ("routes", &file),
        ]);
        Service::start(self.plan(name, "notifier", command_line(&defaults, flags)))
    }

    /// Starts `agent-sim` with these arguments, `["simulate", "--agents", "5"]`; `name` is its log's.
    ///
    /// # Errors
    /// It is not built, or no process can be made.
    pub fn agents(&self, name: &str, arguments: &[&str]) -> Result<Agents> {
        let mut line: Vec<String> = arguments.iter().map(|&word| word.to_owned()).collect();
        line.extend(command_line(&self.connection(), &[]));
        Agents::start(self.plan(name, "agent-sim", line))
    }

    /// The ends of all logs in the folder, each under its name.
    pub fn tails(&self) -> String {
        let mut text = format!("the folder with all logs: {}\n", self.folder().display());
        for log in self.logs() {
            let name = log.file_name().unwrap_or_default().to_string_lossy();
            text += &format!("--- the end of {name}\n{}\n", tail(&log));
        }
        text
    }

    /// Leaves the folder where it is.
    pub fn keep(&mut self) {
        self.folder.disable_cleanup(true);
    }

    fn logs(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.folder()).into_iter().flatten().flatten();
        let mut logs: Vec<_> = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "log"))
            .collect();
        logs.sort();
        logs
    }

    fn connection(&self) -> Vec<(&str, &str)> {
        vec![
            ("application-id", &self.id),
            ("bootstrap-servers", &self.bootstrap),
            ("schema-registry-url", &self.registry_url),
        ]
    }

    fn plan(&self, name: &str, program: &'static str, arguments: Vec<String>) -> Plan {
        Plan {
            name: name.to_owned(),
            program,
            arguments,
            environment: Vec::new(),
            folder: self.folder().to_owned(),
        }
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        if thread::panicking() {
            self.keep();
            eprintln!("{}", self.tails());
        }
    }
}
