//! The mail server: how it is reached, one connection at a time, and what its answers mean.
//!
//! Connections are made here and never pooled: one that was given up in the middle of an exchange
//! would otherwise answer the next mail with the reply to the last one.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};
use common::config::secret;
use lettre::transport::smtp::{
    authentication::{Credentials, DEFAULT_MECHANISMS},
    client::{AsyncSmtpConnection, Certificate, TlsParameters},
    commands::{Data, Mail as MailCommand, Rcpt},
    extension::{ClientId, Extension, MailParameter},
};
use tokio::time::timeout;

use crate::mail::Mail;

pub mod answer;
pub mod server;

use answer::{Answer, Observed, Phase, Verdict, classify};
use server::{Security, Server};

/// How to reach the mail server.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Mail server")]
pub struct Args {
    /// smtp://HOST:25 for no encryption, smtp+starttls://HOST:587 for encryption from the first
    /// command on, smtps://HOST:465 for encryption from the first byte on. The ports may be left out
    #[arg(
        long,
        env = "SMTP_URL",
        value_name = "URL",
        default_value = "smtp://localhost:25"
    )]
    pub smtp_url: Server,
    /// User, if the server wants one
    #[arg(long, env = "SMTP_USER", value_name = "NAME")]
    pub smtp_user: Option<String>,
    /// Password (better: the file)
    #[arg(
        long,
        env = "SMTP_PASSWORD",
        value_name = "TEXT",
        hide_env_values = true
    )]
    pub smtp_password: Option<secret::Text>,
    /// File that holds the password
    #[arg(long, env = "SMTP_PASSWORD_FILE", value_name = "FILE")]
    pub smtp_password_file: Option<PathBuf>,
    /// PEM file with the certificate authority to trust, besides the system's
    #[arg(long, env = "SMTP_CA_FILE", value_name = "FILE")]
    pub smtp_ca_file: Option<PathBuf>,
    /// Longest time for a connection to stand, and again for one mail to be accepted
    #[arg(long, env = "SMTP_TIMEOUT", value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    pub smtp_timeout: Duration,
    /// Connections at once
    #[arg(long, env = "SMTP_CONNECTIONS", value_name = "N", default_value_t = 4)]
    pub smtp_connections: usize,
}

impl Args {
    /// Rules over several of these settings that are broken.
    #[must_use]
    pub fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        let secret = self.smtp_password.is_some() || self.smtp_password_file.is_some();
        if self.smtp_user.is_some() != secret {
            mistakes.push("--smtp-user and --smtp-password-file belong together".to_owned());
        }
        let server = &self.smtp_url;
        if self.smtp_user.is_some() && server.security == Security::None && !server.is_local() {
            mistakes.push(format!(
                "--smtp-user: the password would travel to {} in the clear; use smtps:// or \
                 smtp+starttls://",
                server.host
            ));
        }
        if self.smtp_connections == 0 {
            mistakes.push("--smtp-connections: at least one".to_owned());
        }
        if self.smtp_timeout.is_zero() {
            mistakes.push("--smtp-timeout: above 0".to_owned());
        }
        mistakes
    }
}

/// A client of the mail server.
pub struct Client {
    server: Server,
    hello: ClientId,
    tls: Option<TlsParameters>,
    credentials: Option<Credentials>,
    deadline: Duration,
}

/// One connection: mails go through it one after another until one fails.
pub struct Connection {
    inner: AsyncSmtpConnection,
    deadline: Duration,
}

impl Client {
    /// A client for `args`. Nothing is connected yet.
    ///
    /// # Errors
    /// When a file named in `args` cannot be read or is not what it should be.
    pub fn new(args: &Args) -> anyhow::Result<Self> {
        let server = args.smtp_url.clone();
        let tls = match server.security {
            Security::None => None,
            Security::StartTls | Security::Tls => Some(tls(args)?),
        };
        let password = secret::read(
            args.smtp_password.as_ref(),
            args.smtp_password_file.as_deref(),
        )?;
        let credentials = match (&args.smtp_user, password) {
            (Some(user), Some(password)) => {
                Some(Credentials::new(user.clone(), password.expose().to_owned()))
            }
            (None, None) => None,
            _ => bail!("--smtp-user and --smtp-password-file belong together"),
        };
        Ok(Self {
            server,
            hello: ClientId::default(),
            tls,
            credentials,
            deadline: args.smtp_timeout,
        })
    }

    /// Connects, encrypts and logs in as configured.
    ///
    /// # Errors
    /// Whatever went wrong; it is always worth another try, because no mail is at fault.
    pub async fn connect(&self) -> Result<Connection, Answer> {
        let connecting = timeout(self.deadline, self.open()).await;
        match connecting {
            Ok(Ok(inner)) => Ok(Connection {
                inner,
                deadline: self.deadline,
            }),
            Ok(Err(error)) => Err(Answer::of(Phase::Connect, &error)),
            Err(_) => Err(Answer::timed_out(Phase::Connect, self.deadline)),
        }
    }

    async fn open(&self) -> Result<AsyncSmtpConnection, lettre::transport::smtp::Error> {
        let wrapped = match self.server.security {
            Security::Tls => self.tls.clone(),
            Security::None | Security::StartTls => None,
        };
        let address = (self.server.host.as_str(), self.server.port);
        let mut connection = AsyncSmtpConnection::connect_tokio1(
            address,
            Some(self.deadline),
            &self.hello,
            wrapped,
            None,
        )
        .await?;
        if let (Security::StartTls, Some(tls)) = (self.server.security, &self.tls) {
            connection.starttls(tls.clone(), &self.hello).await?;
        }
        if let Some(credentials) = &self.credentials {
            connection.auth(DEFAULT_MECHANISMS, credentials).await?;
        }
        Ok(connection)
    }
}

fn tls(args: &Args) -> anyhow::Result<TlsParameters> {
    let mut builder = TlsParameters::builder(args.smtp_url.host.clone());
    if let Some(path) = &args.smtp_ca_file {
        let shown = path.display();
        let pem = std::fs::read(path).with_context(|| format!("--smtp-ca-file {shown}"))?;
        let certificate = Certificate::from_pem(&pem)
            .with_context(|| format!("--smtp-ca-file {shown} is no PEM certificate"))?;
        builder = builder.add_root_certificate(certificate);
    }
    builder.build().context("TLS for the mail server")
}

impl Connection {
    /// Sends `mail`. After anything but [`Verdict::Accepted`] the connection must be dropped.
    pub async fn send(&mut self, mail: &Mail) -> Answer {
        let mut phase = Phase::Envelope;
        let sent = timeout(self.deadline, self.exchange(mail, &mut phase)).await;
        match sent {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => Answer::of(phase, &error),
            // The phase tells whether the server may have the mail.
            Err(_) => Answer::timed_out(phase, self.deadline),
        }
    }

    async fn exchange(
        &mut self,
        mail: &Mail,
        phase: &mut Phase,
    ) -> Result<Answer, lettre::transport::smtp::Error> {
        let smtp = &mut self.inner;
        let mut parameters = Vec::new();
        let mut addresses = mail.envelope.from().into_iter().chain(mail.envelope.to());
        if addresses.any(|address| !AsRef::<str>::as_ref(address).is_ascii()) {
            if !smtp.server_info().supports_feature(Extension::SmtpUtfEight) {
                return Ok(Answer {
                    verdict: Verdict::Refused,
                    detail: "the address is not ASCII and the server does not offer SMTPUTF8"
                        .into(),
                });
            }
            parameters.push(MailParameter::SmtpUtfEight);
        }
        let from = mail.envelope.from().cloned();
        smtp.command(MailCommand::new(from, parameters)).await?;
        for to in mail.envelope.to() {
            smtp.command(Rcpt::new(to.clone(), Vec::new())).await?;
        }
        smtp.command(Data).await?;
        *phase = Phase::Content;
        let response = smtp.message(&mail.bytes).await?;
        let code = u16::from(response.code());
        Ok(Answer {
            verdict: classify(Phase::Content, Observed::Reply(code)),
            detail: format!("{code} {}", response.first_line().unwrap_or_default()),
        })
    }

    /// Says goodbye; nothing depends on it.
    pub async fn quit(mut self) {
        drop(timeout(Duration::from_secs(2), self.inner.quit()).await);
    }
}
