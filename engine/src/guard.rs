//! Looks now and then for what operators do by mistake, and what would otherwise show late or never:
//! a source topic that has grown, and consumers that use the application's id as their group.

use std::{
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use common::kafka;
use rdkafka::{consumer::Consumer as _, groups::GroupInfo};

const EVERY: Duration = Duration::from_secs(10);
const CALL: Duration = Duration::from_secs(5);

/// What is looked at.
pub struct Settings {
    /// A client that somebody else polls, and connects again.
    pub client: Arc<kafka::Consumer>,
    /// The application: its id is the consumer group that offsets are committed under.
    pub application_id: String,
    /// The source topic.
    pub source: String,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Findings {
    /// Partitions of the source topic.
    pub partitions: Option<u32>,
    /// Members of the application's consumer group. There should be none: instances commit offsets
    /// in transactions and join no group. Whoever does moves the application's offsets.
    pub strangers: Vec<String>,
}

/// Starts looking, from a thread of its own; it ends when the returned sender is dropped.
///
/// # Errors
/// When there is no thread for it.
pub fn start(
    settings: Settings,
    on: impl Fn(Findings) + Send + 'static,
) -> anyhow::Result<mpsc::Sender<()>> {
    let (stop, stopped) = mpsc::channel();
    thread::Builder::new()
        .name("guard".into())
        .spawn(move || {
            while stopped.recv_timeout(EVERY) == Err(mpsc::RecvTimeoutError::Timeout) {
                match look(&settings) {
                    Ok(findings) => on(findings),
                    Err(error) => tracing::debug!(error = format!("{error:#}"), "guard"),
                }
            }
        })
        .context("thread")?;
    Ok(stop)
}

fn look(settings: &Settings) -> anyhow::Result<Findings> {
    let client = &settings.client;
    let metadata = client.fetch_metadata(Some(&settings.source), CALL)?;
    let mut topics = metadata.topics().iter();
    let source = topics.find(|topic| topic.name() == settings.source);
    let source = source.filter(|topic| topic.error().is_none());
    let partitions = source.and_then(|topic| u32::try_from(topic.partitions().len()).ok());
    let groups = client.fetch_group_list(Some(&settings.application_id), CALL)?;
    let strangers = groups.groups().iter().flat_map(GroupInfo::members);
    Ok(Findings {
        partitions: partitions.filter(|count| *count > 0),
        strangers: strangers
            .map(|member| format!("{} at {}", member.client_id(), member.client_host()))
            .collect(),
    })
}
