//! The settings of a notifier.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::Parser;
use common::{config::Validate, kafka, registry, telemetry, topics};
use lettre::message::Mailbox;

use crate::{
    routes::{self, Route, Routes},
    smtp,
};

/// Mail every change of an object's verdict
///
/// Reads the states that a shared-state service publishes and mails the changes of verdict to
/// whom the routes name. An offset is committed only after the mail server has accepted the mail
/// for every recipient, so a crash may repeat a mail (with the same Message-ID) but loses none.
/// Several notifiers of one application share the work.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "notifier",
    version,
    after_help = "\
Examples:
  Everything to one person, through the mail server on this machine:
    notifier --to on-call@example.com

  Routes from a file, through a provider:
    SMTP_PASSWORD_FILE=/run/secrets/smtp notifier --routes routes.toml \\
      --smtp-url smtps://mail.example.com --smtp-user notifier --from notifier@example.com

  routes.toml:
    [[routes]]
    name = \"shops\"
    recipients = [\"Shop desk <shops@example.com>\", \"on-call@example.com\"]
    objects = [\"shop.example.com\", \"*.shop.example.com\"]       # globs; default: all objects
    transitions = [\"* -> UNDER_ATTACK\", \"UNDER_ATTACK -> *\"]   # default: \"* -> *\"

  In a transition, * is any verdict; NEW on the left is an object without a state before, which *
  does not match. Records of the same verdict are never mailed."
)]
pub struct Config {
    /// TOML file with any of these settings: `smtp-url = "smtp://localhost"`
    #[arg(long, env = "NOTIFIER_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Application whose states are mailed: those in the topic `<application id>.states`
    #[arg(
        long,
        env = "APPLICATION_ID",
        value_name = "ID",
        default_value = "site-attack",
        value_parser = topics::check_application_id
    )]
    pub application_id: String,
    /// Where /livez, /readyz and /metrics are served; port 0: any free one, see the log
    #[arg(
        long,
        env = "NOTIFIER_LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:8090"
    )]
    pub listen: SocketAddr,

    /// Mail every change of verdict of every object to this address; repeatable
    #[arg(
        long,
        env = "NOTIFIER_TO",
        value_name = "ADDRESS",
        value_delimiter = ',',
        help_heading = "Mail"
    )]
    pub to: Vec<Mailbox>,
    /// TOML file that says who is mailed about what; an example is below
    #[arg(
        long,
        env = "NOTIFIER_ROUTES",
        value_name = "FILE",
        help_heading = "Mail"
    )]
    pub routes: Option<PathBuf>,
    /// Sender of the mails
    #[arg(
        long,
        env = "NOTIFIER_FROM",
        value_name = "ADDRESS",
        default_value = "notifier@localhost",
        help_heading = "Mail"
    )]
    pub from: Mailbox,
    /// Pause before the first new attempt at a mail that the server did not take; doubles from one
    /// attempt to the next
    #[arg(long, env = "NOTIFIER_RETRY_PAUSE", value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration, help_heading = "Mail")]
    pub retry_pause: Duration,
    /// Longest such pause
    #[arg(long, env = "NOTIFIER_RETRY_PAUSE_MAX", value_name = "TIME", default_value = "1m", value_parser = humantime::parse_duration, help_heading = "Mail")]
    pub retry_pause_max: Duration,
    /// Copies of the topic of dead letters when it is created; -1: the brokers' default
    #[arg(
        long,
        env = "REPLICATION_FACTOR",
        value_name = "N",
        default_value_t = -1,
        allow_negative_numbers = true
    )]
    pub replication_factor: i32,

    /// Mail server.
    #[command(flatten)]
    pub smtp: smtp::Args,
    /// Kafka.
    #[command(flatten)]
    pub kafka: kafka::Args,
    /// Schema registry.
    #[command(flatten)]
    pub registry: registry::Args,
    /// Logs.
    #[command(flatten)]
    pub telemetry: telemetry::Args,
}

impl Config {
    /// The routes of the file, and one for `--to`.
    ///
    /// # Errors
    /// Everything that is wrong with the file.
    pub fn read_routes(&self) -> Result<Routes, Vec<String>> {
        let mut all = match &self.routes {
            Some(path) => routes::read(path)?,
            None => Vec::new(),
        };
        if !self.to.is_empty() {
            all.push(Route::everything("--to", self.to.clone()));
        }
        Ok(Routes::new(all))
    }

    /// The group that shares the partitions of the states.
    #[must_use]
    pub fn group_id(&self) -> String {
        format!("{}.notifier", self.application_id)
    }

    /// The topic of what could not be decoded or was refused for good.
    #[must_use]
    pub fn dead_letters(&self) -> String {
        format!("{}.notifier.dead-letters", self.application_id)
    }
}

impl Validate for Config {
    fn validate(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        if self.to.is_empty() && self.routes.is_none() {
            mistakes.push("nobody would be mailed: give --to or --routes".to_owned());
        }
        if let Err(wrong) = self.read_routes() {
            mistakes.extend(wrong);
        }
        if self.retry_pause.is_zero() || self.retry_pause > self.retry_pause_max {
            mistakes.push("--retry-pause: must be above 0 and at most --retry-pause-max".into());
        }
        if self.replication_factor == 0 || self.replication_factor < -1 {
            mistakes
                .push("--replication-factor: at least 1, or -1 for the brokers' default".into());
        }
        mistakes.extend(self.smtp.mistakes());
        mistakes
    }
}

#[cfg(test)]
mod tests {
    use common::config::{Error, try_parse};

    use super::*;

    fn mistakes(args: &[&str]) -> Vec<String> {
        let args = std::iter::once("notifier").chain(args.iter().copied());
        match try_parse::<Config>(args.map(Into::into).collect()) {
            Ok(_) => Vec::new(),
            Err(Error::Invalid(mistakes)) => mistakes,
            Err(Error::Clap(error)) => panic!("{error}"),
        }
    }

    #[test]
    fn tells_all_mistakes_at_once() {
        assert_eq!(mistakes(&["--to", "a@example.com"]), Vec::<String>::new());
        assert_eq!(
            mistakes(&[]),
            ["nobody would be mailed: give --to or --routes"]
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[[routes]]\nname = \"a\"\nrecipients = []").unwrap();
        let routes = file.path().display().to_string();
        let all = mistakes(&[
            "--routes",
            &routes,
            "--retry-pause",
            "0s",
            "--replication-factor",
            "0",
            "--smtp-user",
            "me",
            "--smtp-url",
            "smtp://mail.example.com",
        ]);
        assert_eq!(all.len(), 5, "{all:#?}");
        let all = mistakes(&[
            "--to",
            "nobody",
            "--smtp-url",
            "http://x",
            "--listen",
            "here",
        ]);
        assert_eq!(all.len(), 3, "{all:#?}");
    }
}
