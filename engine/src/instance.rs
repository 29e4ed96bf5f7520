//! An instance: its share of the application's work, from joining to leaving.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use anyhow::Context as _;
use common::{kafka, topics::Names};
use tokio::sync::watch;

use crate::{
    guard::Findings,
    identity::Identity,
    lookup::Lookup,
    membership::{PlanNumber, Rules, link::SeatNews},
    memory::Shares,
    processor::Processor,
    query::{Query, View},
    restore::Done,
    store::Shared,
    task,
    worker::{Factory, Report},
};

mod conductor;
mod lead;
mod leaving;
mod listening;
mod lookout;
mod tasks;
mod view;

use conductor::Conductor;

/// The longest that its conductor waits for one thing, to leave in order for one. After that and the
/// time for others it is taken to be stuck.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// What an instance is made of.
pub struct Settings<P> {
    /// How to reach Kafka.
    pub kafka: kafka::Args,
    /// The application.
    pub application_id: String,
    /// Its topics, which exist.
    pub names: Names,
    /// Partitions of the source topic.
    pub partitions: u32,
    /// The folder it has claimed, held for as long as it lives.
    pub identity: Identity,
    /// Where it answers HTTP.
    pub endpoint: String,
    /// Label of where it runs.
    pub rack: Option<String>,
    /// What the plan follows, when this instance makes it.
    pub rules: Rules,
    /// How long an owner that is away is waited for, if nobody else has what it has.
    pub restart_grace: Duration,
    /// What all stores share.
    pub shared: Shared,
    /// How its memory is divided.
    pub shares: Shares,
    /// Worker threads.
    pub workers: u32,
    /// After this time without a sign of life, a worker is taken to be stuck.
    pub stuck_after: Duration,
    /// How often to commit.
    pub commit_interval: Duration,
    /// What tasks must know.
    pub task: task::Settings,
    /// Makes processors.
    pub factory: Factory<P>,
    /// Looks schemas up.
    pub lookup: Lookup,
}

/// A running instance.
pub struct Instance {
    query: Query,
    happenings: mpsc::Sender<Happening>,
    stopping: Arc<AtomicBool>,
    ended: watch::Receiver<Option<String>>,
}

impl Instance {
    /// Starts an instance; it joins the application and takes its share.
    ///
    /// # Errors
    /// When a thread or a client cannot be started.
    pub fn start<P: Processor>(settings: Settings<P>) -> anyhow::Result<Self> {
        let (happenings, heard) = mpsc::channel();
        let (view, viewed) = watch::channel(View {
            instance: settings.identity.instance_id.clone(),
            application_id: settings.application_id.clone(),
            partitions: settings.partitions,
            not_ready: Some("joining the application".into()),
            ..View::default()
        });
        let (end, ended) = watch::channel(None);
        let tasks = Arc::default();
        let query = Query {
            view: viewed,
            tasks: Arc::clone(&tasks),
        };
        let stopping = Arc::<AtomicBool>::default();
        let asked = Arc::clone(&stopping);
        let limit = settings.stuck_after + LONGEST_WAIT;
        let conductor = Conductor::new(settings, happenings.clone(), view, tasks, asked)?;
        let (alive, gone) = mpsc::channel();
        let stuck = end.clone();
        lookout::start(conductor.pulse(), limit, gone, move |why| {
            // The process ends with its reason, and its beats with it.
            stuck.send_replace(Some(why));
        })?;
        thread::Builder::new()
            .name("instance".into())
            .spawn(move || {
                let why = match conductor.run(&heard) {
                    Ok(()) => String::new(),
                    Err(error) => format!("{error:#}"),
                };
                end.send_replace(Some(why));
                drop(alive);
            })
            .context("thread")?;
        Ok(Self {
            query,
            happenings,
            stopping,
            ended,
        })
    }

    /// Answers questions.
    #[must_use]
    pub fn query(&self) -> Query {
        self.query.clone()
    }

    /// Waits until the instance has ended.
    ///
    /// # Errors
    /// With the reason, when it could not go on.
    pub async fn ended(&self) -> anyhow::Result<()> {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(why)) if !why.is_empty() => anyhow::bail!("{why}"),
            Ok(_) => Ok(()),
            Err(_) => anyhow::bail!("the instance's thread ended unexpectedly"),
        }
    }

    /// Commits, closes every task, says goodbye and ends.
    ///
    /// # Errors
    /// With the reason, when it had ended before.
    pub async fn stop(self) -> anyhow::Result<()> {
        // Who waits for Kafka looks at this one; everybody else is told in turn.
        self.stopping.store(true, Ordering::Release);
        // The thread may have ended already; `ended` knows why.
        drop(self.happenings.send(Happening::Stop));
        self.ended().await
    }
}

/// What the other threads report.
enum Happening {
    Seat(SeatNews),
    Fenced(String, PlanNumber),
    Restore(Done),
    Worker(u32, Report),
    Guard(Findings),
    Stop,
}
