//! Who plays: the mail catcher, two instances, the notifier, and the agents of the moment.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use devkit::{MailCatcher, MailOptions};

use crate::api::Api;
use crate::{Agents, Application, Service};

/// The site that is attacked.
pub(super) const SHOP: &str = "shop.example.com";
/// A site that stays quiet.
pub(super) const BLOG: &str = "blog.example.com";
/// All sites.
pub(super) const SITES: [&str; 5] = [
    SHOP,
    BLOG,
    "api.example.com",
    "docs.example.com",
    "news.example.com",
];
/// How many agents there are; more than half of them decide.
pub(super) const AGENTS: usize = 5;

const ROUTES: &str = r#"
[[routes]]
name = "on call"
recipients = ["On call <on-call@example.com>"]
transitions = ["* -> UNDER_ATTACK", "UNDER_ATTACK -> *"]
"#;

const RULES: [(&str, &str); 3] = [("quorum", "3"), ("freshness", "10s"), ("partitions", "6")];

/// Everything that plays, as far as it has been started.
pub(super) struct Cast {
    pub(super) mail: MailCatcher,
    instances: Vec<Service>,
    notifier: Option<Service>,
    agents: Option<Agents>,
    phases: usize,
}

impl Cast {
    pub(super) async fn new(folder: &Path) -> Result<Self> {
        let options = MailOptions {
            folder: Some(folder.join("mails")),
            ..MailOptions::default()
        };
        Ok(Self {
            mail: MailCatcher::start(options).await?,
            instances: Vec::new(),
            notifier: None,
            agents: None,
            phases: 0,
        })
    }

    /// Starts our programs and waits until they are ready.
    pub(super) async fn enter(&mut self, app: &Application) -> Result<()> {
        for name in ["a", "b"] {
            self.instances.push(app.state_service(name, &RULES)?);
        }
        let smtp = format!("smtp://{}", self.mail.address());
        self.notifier = Some(app.notifier("notifier", &smtp, ROUTES, &[])?);
        for service in self.services() {
            service.ready().await?;
        }
        Ok(())
    }

    /// The agents of now leave; others see what is the case from now on: `attacked`, or nothing.
    pub(super) async fn agents_see(
        &mut self,
        app: &Application,
        attacked: Option<&str>,
    ) -> Result<()> {
        if let Some(agents) = self.agents.take() {
            agents.stop().await?;
        }
        let count = AGENTS.to_string();
        let mut line = vec!["simulate", "--agents", &count, "--rate", "50"];
        // No waves, but those that the story makes.
        line.extend(["--attacked", "0", "--ramp-up", "1s"]);
        for site in SITES {
            line.extend(["--object", site]);
        }
        if let Some(site) = attacked {
            line.extend(["--attack", site]);
        }
        self.phases += 1;
        let name = format!("agents-{}", self.phases);
        self.agents = Some(app.agents(&name, &line)?);
        Ok(())
    }

    /// The two instances.
    pub(super) fn instances(&self) -> &[Service] {
        &self.instances
    }

    /// The notifier.
    pub(super) fn notifier(&self) -> Result<&Service> {
        self.notifier.as_ref().context("there is no notifier yet")
    }

    /// The instance of this name.
    pub(super) fn instance(&mut self, name: &str) -> Result<&mut Service> {
        let found = self.instances.iter_mut().find(|i| i.name() == name);
        found.with_context(|| format!("there is no instance {name}"))
    }

    /// The REST API at the first and at the second instance.
    pub(super) async fn apis(&self) -> Result<[Api; 2]> {
        let [a, b] = &self.instances[..] else {
            bail!("the instances have not been started");
        };
        Ok([a.api().await?, b.api().await?])
    }

    fn services(&self) -> impl Iterator<Item = &Service> {
        self.instances.iter().chain(&self.notifier)
    }

    /// SIGTERM to each, and waits for all of them. Who is gone already, is gone.
    pub(super) async fn stop(mut self) -> Result<()> {
        if let Some(agents) = self.agents.take() {
            agents.stop().await?;
        }
        for service in self.instances.iter_mut().chain(&mut self.notifier) {
            if matches!(service.ended(), Ok(None)) {
                let code = service.terminate().await?;
                ensure!(code == 0, "{} left with exit code {code}", service.name());
            }
        }
        Ok(())
    }
}
