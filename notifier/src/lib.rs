//! Mails every change of an object's verdict, to whom the routes name.
//!
//! A plain consumer of the application's states, first form: no state of its own. An offset is
//! committed only after the mail server has accepted the mail for every recipient, or the record
//! has gone to the dead letters. So no change is lost; after a crash the last mails of a
//! partition may be sent again, byte for byte, with the same Message-ID.

use std::sync::Arc;

use anyhow::Context as _;
use common::{registry::Registry, shutdown::Shutdown, topics};
use tokio::{net::TcpListener, runtime::Handle, sync::Semaphore};

pub mod config;
pub mod consumer;
pub mod dead_letters;
pub mod deliver;
pub mod health;
pub mod lanes;
pub mod mail;
pub mod record;
pub mod routes;
pub mod smtp;

pub use config::Config;
use health::{Health, Part};

/// Runs a notifier until `shutdown`; then it finishes the mail in hand, if that does not take long,
/// commits and leaves its group.
///
/// # Errors
/// When it cannot start (an address in use, a file that cannot be read, a topic that is not as it
/// must be), or something breaks that no other attempt can mend.
pub async fn run(config: Config, shutdown: Shutdown) -> anyhow::Result<()> {
    health::describe_metrics();
    let health = Health::starting();
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {}", config.listen))?;
    let address = listener.local_addr()?;
    tracing::info!(%address, "listening");
    // Served to the end, also while a mail in hand is being finished.
    let closed = Shutdown::new();
    let server = tokio::spawn(health::serve(listener, health.clone(), closed.clone()));
    let notified = notify(config, health, shutdown).await;
    closed.cancel();
    server.await.context("the HTTP server")??;
    notified
}

async fn notify(config: Config, health: Health, shutdown: Shutdown) -> anyhow::Result<()> {
    let topic = topics::Names::of(&config.application_id).states;
    let started = tokio::select! {
        started = start(&config, &topic, &health) => started?,
        () = shutdown.cancelled() => return Ok(()),
    };
    let lanes = lanes::Lanes::new(Arc::new(started), Handle::current());
    let polling = tokio::task::spawn_blocking(move || {
        consumer::run(&config, &topic, lanes, &health, &shutdown)
    });
    polling.await.context("polling Kafka")?
}

/// Everything that delivering takes, once the topics are there.
async fn start(config: &Config, topic: &str, health: &Health) -> anyhow::Result<deliver::Deliver> {
    let routes = config
        .read_routes()
        .map_err(|mistakes| anyhow::anyhow!(mistakes.join("; ")))?;
    let registry = Registry::new(&config.registry)?;
    let smtp = smtp::Client::new(&config.smtp)?;
    let writer = mail::Writer::new(&config.application_id, config.from.clone())?;
    health.fails(Part::Kafka, &format!("waiting for topic {topic}"));
    topics::wait_for(&config.kafka.client("notifier"), topic).await?;
    health.fails(Part::Kafka, &"not a member of the group yet");
    Ok(deliver::Deliver {
        reader: record::Reader::new(registry.clone())?,
        routes,
        writer,
        smtp,
        connections: Arc::new(Semaphore::new(config.smtp.smtp_connections)),
        dead_letters: dead_letters::DeadLetters::open(config, registry).await?,
        health: health.clone(),
        pauses: (config.retry_pause, config.retry_pause_max),
    })
}
