//! An instance: carries out the plan. One thread reads the membership topics, and starts and closes
//! tasks as the plan in force says; everything slow happens in other threads that report back.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use common::{kafka, topics::Names};
use tokio::sync::watch;

use crate::{
    epoch::TaskEpoch,
    identity::Identity,
    lookup::Lookup,
    membership::{
        Cluster, PlanNumber, Row, Start, Status, TaskRow, VERSION,
        link::{self, Beats, Duty, Link, News, Seat, SeatNews},
    },
    processor::Processor,
    query::{InstanceView, LocalTask, Query, TaskView, View},
    restore::{self, Done, Job},
    store::Shared,
    task,
    worker::{self, Factory, Order, Report, Workers, worker_of},
};

/// How long to wait for the ends of the membership topics before saying so and trying again.
const READ_TO_END: Duration = Duration::from_secs(10);
/// How long a graceful stop may take before the process goes anyway; nothing is lost by that.
const STOP_WITHIN: Duration = Duration::from_secs(10);
/// How long an instance that lost the leader's seat leaves it to others.
const YIELD_THE_SEAT_FOR: Duration = Duration::from_secs(2);

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
    /// What all stores share.
    pub shared: Shared,
    /// Worker threads.
    pub workers: u32,
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
        let conductor = Conductor::new(settings, happenings.clone(), view, tasks)?;
        thread::Builder::new()
            .name("instance".into())
            .spawn(move || {
                let why = match conductor.run(&heard) {
                    Ok(()) => String::new(),
                    Err(error) => format!("{error:#}"),
                };
                end.send_replace(Some(why));
            })
            .context("thread")?;
        Ok(Self {
            query,
            happenings,
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
    Stop,
}

/// How far a partition is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Former owners must close it or be fenced.
    Waiting,
    Restoring,
    /// Restored, the worker is asked to open it.
    Opening,
    Running,
    /// The restorer is asked to forget it.
    Cancelling,
    /// The worker is asked to close it.
    Closing,
}

struct Held {
    since: PlanNumber,
    phase: Phase,
}

/// The leader's seat as this instance has it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lead {
    No,
    /// Something was asked of the seat.
    Asked,
    Yes,
}

struct Conductor<P> {
    settings: Settings<P>,
    happenings: mpsc::Sender<Happening>,
    view: watch::Sender<View>,
    tasks: Arc<RwLock<BTreeMap<u32, LocalTask>>>,
    applied: Arc<RwLock<BTreeMap<u32, watch::Sender<i64>>>>,
    cluster: Cluster,
    link: Link,
    beats: Option<Beats>,
    seat: Seat,
    lead: Lead,
    deposed: Option<Instant>,
    restorer: mpsc::Sender<Job>,
    workers: Workers,
    /// Workers that take orders.
    ready: BTreeSet<u32>,
    held: BTreeMap<u32, Held>,
    fenced: BTreeMap<String, PlanNumber>,
    fencing: BTreeSet<String>,
    /// Both topics must be read to their ends before the plan is acted on.
    catch_up: bool,
    stop_now: Arc<AtomicBool>,
    failed: Option<anyhow::Error>,
}

impl<P: Processor> Conductor<P> {
    fn new(
        settings: Settings<P>,
        happenings: mpsc::Sender<Happening>,
        view: watch::Sender<View>,
        tasks: Arc<RwLock<BTreeMap<u32, LocalTask>>>,
    ) -> anyhow::Result<Self> {
        let incarnation = uuid::Uuid::new_v4().simple().to_string();
        let client = format!(
            "{}-{}",
            settings.application_id, settings.identity.instance_id
        );
        let link = Link::new(&settings.kafka, &settings.names, &client)?;
        let report = happenings.clone();
        let seat = Seat::start(
            settings.kafka.clone(),
            &settings.application_id,
            &settings.names,
            move |news| drop(report.send(Happening::Seat(news))),
        )?;
        let report = happenings.clone();
        let restorer = restore::start(
            restore::Settings {
                kafka: settings.kafka.clone(),
                application_id: settings.application_id.clone(),
                names: Arc::new(settings.names.clone()),
                stores: settings.identity.stores.clone(),
                shared: settings.shared.clone(),
            },
            move |done| drop(report.send(Happening::Restore(done))),
        )?;
        let row = Row {
            version: VERSION,
            incarnation: incarnation.clone(),
            beat: 0,
            endpoint: settings.endpoint.clone(),
            rack: settings.rack.clone(),
            status: Status::Present,
            transactional_ids: (0..settings.workers)
                .map(|worker| format!("{client}-{worker}"))
                .collect(),
            closed_for: 0,
            tasks: BTreeMap::new(),
        };
        let mut cluster = Cluster::new(&settings.identity.instance_id, &incarnation);
        let mut link = link;
        // What a former incarnation announced must be known before our own row replaces it.
        read_to_end(&mut link, &mut cluster);
        let beats = Beats::start(
            &settings.kafka,
            &settings.names,
            &settings.identity.instance_id,
            row,
        )?;
        Ok(Self {
            cluster,
            link,
            beats: Some(beats),
            seat,
            restorer,
            settings,
            happenings,
            view,
            tasks,
            applied: Arc::default(),
            lead: Lead::No,
            deposed: None,
            workers: Workers::new(),
            ready: BTreeSet::new(),
            held: BTreeMap::new(),
            fenced: BTreeMap::new(),
            fencing: BTreeSet::new(),
            catch_up: false,
            stop_now: Arc::default(),
            failed: None,
        })
    }

    fn run(mut self, heard: &mpsc::Receiver<Happening>) -> anyhow::Result<()> {
        self.join();
        loop {
            self.listen();
            while let Ok(happening) = heard.try_recv() {
                if matches!(happening, Happening::Stop) {
                    return self.leave(heard);
                }
                self.on(happening);
            }
            if let Some(error) = self.failed.take() {
                // The others take over at once; whoever looks finds the reason.
                drop(self.leave(heard));
                return Err(error);
            }
            if self.catch_up {
                read_to_end(&mut self.link, &mut self.cluster);
                self.catch_up = false;
            }
            self.lead();
            self.carry_out();
            self.publish_view();
        }
    }

    /// Announces this instance, then takes its transactional ids from any former incarnation.
    fn join(&mut self) {
        while !self.cluster.is_announced() {
            self.listen();
        }
        let own: Vec<String> = (0..self.settings.workers)
            .map(|worker| self.transactional_id(worker))
            .collect();
        let others: Vec<String> = self
            .cluster
            .former_ids()
            .iter()
            .filter(|id| !own.contains(id))
            .cloned()
            .collect();
        for id in others {
            link::fence(&self.settings.kafka, &id);
        }
        for worker in 0..self.settings.workers {
            self.start_worker(worker);
        }
    }

    fn transactional_id(&self, worker: u32) -> String {
        let application_id = &self.settings.application_id;
        let instance_id = &self.settings.identity.instance_id;
        format!("{application_id}-{instance_id}-{worker}")
    }

    fn start_worker(&mut self, number: u32) {
        let applied = Arc::clone(&self.applied);
        let settings = worker::Settings {
            kafka: self.settings.kafka.clone(),
            application_id: self.settings.application_id.clone(),
            names: Arc::new(self.settings.names.clone()),
            transactional_id: self.transactional_id(number),
            task: self.settings.task.clone(),
            commit_interval: self.settings.commit_interval,
            factory: Arc::clone(&self.settings.factory),
            lookup: self.settings.lookup.clone(),
            committed: Arc::new(move |epoch: &TaskEpoch| tell_applied(&applied, epoch)),
            stop: Arc::clone(&self.stop_now),
        };
        let report = self.happenings.clone();
        let started = worker::start(settings, move |news| {
            drop(report.send(Happening::Worker(number, news)));
        });
        match started {
            Ok(orders) => drop(self.workers.insert(number, orders)),
            Err(error) => self.failed = Some(error),
        }
    }

    fn listen(&mut self) {
        let cluster = &mut self.cluster;
        self.link
            .poll(Duration::from_millis(20), &mut |news| hear(cluster, news));
    }

    fn on(&mut self, happening: Happening) {
        match happening {
            Happening::Seat(news) => self.on_seat(news),
            Happening::Fenced(id, plan) => {
                self.fencing.remove(&id);
                tracing::info!(transactional_id = id, "fenced");
                self.fenced.insert(id, plan);
            }
            Happening::Restore(done) => self.on_restore(done),
            Happening::Worker(number, report) => self.on_worker(number, report),
            Happening::Stop => {}
        }
    }

    fn on_seat(&mut self, news: SeatNews) {
        self.lead = match news {
            SeatNews::Seated => {
                tracing::info!("this instance leads");
                // A former leader's last plan must be known before the next is made.
                read_to_end(&mut self.link, &mut self.cluster);
                Lead::Yes
            }
            SeatNews::Published => {
                read_to_end(&mut self.link, &mut self.cluster);
                Lead::Yes
            }
            SeatNews::Deposed(why) => {
                tracing::info!(why, "this instance does not lead");
                self.deposed = Some(Instant::now());
                Lead::No
            }
        };
    }

    /// Takes the lead when nobody has it, and makes the next plan when it is time for one.
    fn lead(&mut self) {
        match self.lead {
            Lead::No if self.cluster.should_take_lead() && !self.just_deposed() => {
                self.lead = Lead::Asked;
                self.seat.ask(Duty::TakeLead);
            }
            Lead::Yes => {
                if let Some(plan) = self.cluster.next_plan(self.settings.partitions) {
                    tracing::info!(number = plan.number, members = ?plan.members.keys(), "new plan");
                    self.lead = Lead::Asked;
                    self.seat.ask(Duty::Publish(Box::new(plan)));
                }
            }
            Lead::No | Lead::Asked => {}
        }
    }

    /// Who has just lost the seat lets the one who took it write its plan first.
    fn just_deposed(&self) -> bool {
        self.deposed
            .is_some_and(|at| at.elapsed() < YIELD_THE_SEAT_FOR)
    }

    /// Brings what this instance holds in line with the plan in force.
    fn carry_out(&mut self) {
        let Some(plan) = self.cluster.plan().map(|plan| plan.number) else {
            return;
        };
        let mine = self.cluster.mine();
        let held: Vec<u32> = self.held.keys().copied().collect();
        for partition in held {
            let since = self.held.get(&partition).map(|held| held.since);
            if mine.get(&partition).copied() != since {
                self.close(partition);
            }
        }
        for (partition, since) in &mine {
            let worker = worker_of(*partition, self.settings.workers);
            if self.ready.contains(&worker) && !self.held.contains_key(partition) {
                let held = Held {
                    since: *since,
                    phase: Phase::Waiting,
                };
                self.held.insert(*partition, held);
            }
        }
        self.begin_waiting();
        self.tell(plan, &mine);
    }

    fn close(&mut self, partition: u32) {
        let Some(held) = self.held.get_mut(&partition) else {
            return;
        };
        match held.phase {
            Phase::Waiting => drop(self.held.remove(&partition)),
            Phase::Restoring => {
                held.phase = Phase::Cancelling;
                drop(self.restorer.send(Job::Cancel(partition)));
            }
            Phase::Opening | Phase::Running => {
                held.phase = Phase::Closing;
                self.hide(partition);
                self.order(partition, Order::Close(partition));
            }
            Phase::Cancelling | Phase::Closing => {}
        }
    }

    fn begin_waiting(&mut self) {
        let plan = self.cluster.plan().map_or(0, |plan| plan.number);
        let waiting: Vec<u32> = self
            .held
            .iter()
            .filter(|(_, held)| held.phase == Phase::Waiting)
            .map(|(partition, _)| *partition)
            .collect();
        for partition in waiting {
            match self.cluster.start(partition, &self.fenced) {
                Start::Now => {
                    if let Some(held) = self.held.get_mut(&partition) {
                        held.phase = Phase::Restoring;
                    }
                    drop(self.restorer.send(Job::Restore(partition)));
                }
                Start::Wait => {}
                Start::Fence(ids) => {
                    for id in ids {
                        self.fence(id, plan);
                    }
                }
            }
        }
    }

    fn fence(&mut self, id: String, plan: PlanNumber) {
        if !self.fencing.insert(id.clone()) {
            return;
        }
        let kafka = self.settings.kafka.clone();
        let report = self.happenings.clone();
        let spawned = thread::Builder::new().name("fence".into()).spawn(move || {
            link::fence(&kafka, &id);
            drop(report.send(Happening::Fenced(id, plan)));
        });
        if let Err(error) = spawned {
            self.failed = Some(error.into());
        }
    }

    /// Writes what this instance holds into its row, and which plan it has closed for.
    fn tell(&self, plan: PlanNumber, mine: &BTreeMap<u32, PlanNumber>) {
        let all_closed = self
            .held
            .iter()
            .all(|(partition, held)| mine.get(partition) == Some(&held.since));
        // Before its own ids are initialised, a former incarnation may still be writing.
        let initialised = self.ready.len() == self.settings.workers as usize;
        let tasks: BTreeMap<u32, TaskRow> = self
            .held
            .iter()
            .map(|(partition, held)| {
                let running = held.phase == Phase::Running;
                let since = held.since;
                (*partition, TaskRow { since, running })
            })
            .collect();
        if let Some(beats) = &self.beats {
            beats.update(|row| {
                row.tasks = tasks;
                if all_closed && initialised {
                    row.closed_for = plan;
                }
            });
        }
    }

    fn order(&mut self, partition: u32, order: Order) {
        let worker = worker_of(partition, self.settings.workers);
        if let Some(orders) = self.workers.get(&worker) {
            // If the worker has ended, its last report is on its way.
            drop(orders.send(order));
        }
    }

    fn on_restore(&mut self, done: Done) {
        match done {
            Done::Restored {
                partition,
                store,
                offset,
            } => match self.held.get_mut(&partition) {
                Some(held) if held.phase == Phase::Restoring => {
                    held.phase = Phase::Opening;
                    let (applied, receiver) = watch::channel(offset);
                    write(&self.applied).insert(partition, applied);
                    let task = LocalTask {
                        partition,
                        store: Arc::clone(&store),
                        applied: receiver,
                    };
                    write(&self.tasks).insert(partition, task);
                    self.order(
                        partition,
                        Order::Open {
                            partition,
                            store,
                            offset,
                        },
                    );
                }
                // Cancelled meanwhile: `Cancelled` follows.
                _ => drop(store),
            },
            Done::Cancelled(partition) => drop(self.held.remove(&partition)),
            Done::Failed(partition, error) => {
                self.failed =
                    Some(anyhow::Error::new(error).context(format!("partition {partition}")));
            }
        }
    }

    fn on_worker(&mut self, number: u32, report: Report) {
        match report {
            Report::Ready => drop(self.ready.insert(number)),
            Report::Running(partition) => {
                if let Some(held) = self.held.get_mut(&partition)
                    && held.phase == Phase::Opening
                {
                    held.phase = Phase::Running;
                }
            }
            Report::Closed(partition) => drop(self.held.remove(&partition)),
            Report::Ended(why) => {
                let why = why.unwrap_or_default();
                tracing::warn!(worker = number, why, "worker ended: its tasks start again");
                self.lose_worker(number);
                // What was decided while we were out of it must be known before we go on.
                self.catch_up = true;
                self.start_worker(number);
            }
        }
    }

    fn lose_worker(&mut self, number: u32) {
        self.ready.remove(&number);
        self.workers.remove(&number);
        let workers = self.settings.workers;
        let lost: Vec<u32> = self
            .held
            .keys()
            .copied()
            .filter(|partition| worker_of(*partition, workers) == number)
            .collect();
        for partition in lost {
            self.hide(partition);
            match self.held.get_mut(&partition) {
                Some(held) if held.phase == Phase::Restoring => {
                    held.phase = Phase::Cancelling;
                    drop(self.restorer.send(Job::Cancel(partition)));
                }
                // `Cancelled` follows.
                Some(held) if held.phase == Phase::Cancelling => {}
                _ => drop(self.held.remove(&partition)),
            }
        }
    }

    /// Queries no longer find the task here.
    fn hide(&self, partition: u32) {
        write(&self.tasks).remove(&partition);
        write(&self.applied).remove(&partition);
    }

    /// Commits and closes everything, then says goodbye.
    fn leave(mut self, heard: &mpsc::Receiver<Happening>) -> anyhow::Result<()> {
        let deadline = Instant::now() + STOP_WITHIN;
        write(&self.tasks).clear();
        let mut left = self.workers.len();
        self.workers.clear();
        while left > 0 {
            let remaining = deadline.saturating_duration_since(Instant::now());
            match heard.recv_timeout(remaining) {
                Ok(Happening::Worker(_, Report::Ended(why))) => {
                    if let Some(why) = why {
                        tracing::warn!(why, "a worker did not end in order");
                    }
                    left -= 1;
                }
                Ok(_) => {}
                Err(_) => {
                    self.stop_now.store(true, Ordering::Release);
                    if let Some(beats) = self.beats.take() {
                        // Not closed in order: the row must not say so.
                        std::mem::forget(beats);
                    }
                    anyhow::bail!(
                        "the last commit did not end in time; the next owner resolves it"
                    );
                }
            }
        }
        if let Some(beats) = self.beats.take() {
            beats.update(|row| {
                row.status = Status::Left;
                row.tasks.clear();
                row.closed_for = PlanNumber::MAX;
            });
        }
        tracing::info!("left the application");
        Ok(())
    }

    fn publish_view(&self) {
        let plan = self.cluster.plan();
        let running = |partition: u32, owner: Option<&String>| {
            let owner = owner?;
            let (_, row, _) = self.cluster.members().find(|(id, _, _)| *id == owner)?;
            Some(row.tasks.get(&partition)?.running)
        };
        let tasks = plan.iter().flat_map(|plan| (0u32..).zip(&plan.tasks));
        let view = View {
            instance: self.settings.identity.instance_id.clone(),
            application_id: self.settings.application_id.clone(),
            plan: plan.map_or(0, |plan| plan.number),
            leader: plan.map(|plan| plan.leader.clone()),
            partitions: self.settings.partitions,
            instances: self
                .cluster
                .members()
                .filter(|(_, row, _)| row.status == Status::Present)
                .map(|(id, row, present)| InstanceView {
                    id: id.clone(),
                    endpoint: row.endpoint.clone(),
                    rack: row.rack.clone(),
                    present,
                })
                .collect(),
            tasks: tasks
                .map(|(partition, task)| TaskView {
                    partition,
                    owner: task.owner.clone(),
                    running: running(partition, task.owner.as_ref()).unwrap_or(false),
                })
                .collect(),
            not_ready: self.not_ready(),
        };
        self.view.send_if_modified(|current| {
            let changed = *current != view;
            *current = view;
            changed
        });
        metrics::gauge!("tasks_running").set(f64::from(
            u32::try_from(read(&self.tasks).len()).unwrap_or(u32::MAX),
        ));
    }

    fn not_ready(&self) -> Option<String> {
        if !self.cluster.is_member() {
            return Some("the plan in force was made without this instance".into());
        }
        if self.ready.len() < self.settings.workers as usize {
            return Some("a worker is still initialising its producer".into());
        }
        let mine = self.cluster.mine();
        let running = |partition: &&u32| {
            let held = self.held.get(partition);
            held.is_some_and(|held| held.phase == Phase::Running)
        };
        let missing = mine.len() - mine.keys().filter(running).count();
        (missing > 0).then(|| format!("{missing} of {} tasks are not running yet", mine.len()))
    }
}

fn hear(cluster: &mut Cluster, news: News) {
    match news {
        News::Row(id, row) => cluster.on_row(&id, row),
        News::Plan(plan) => cluster.on_plan(plan),
    }
}

/// Reads both topics to their ends, for as long as that takes: to go on without would be to guess.
fn read_to_end(link: &mut Link, cluster: &mut Cluster) {
    while let Err(error) = link.read_to_end(READ_TO_END, &mut |news| hear(cluster, news)) {
        tracing::warn!(
            error = format!("{error:#}"),
            "membership topics not read yet"
        );
    }
}

fn tell_applied(applied: &RwLock<BTreeMap<u32, watch::Sender<i64>>>, epoch: &TaskEpoch) {
    metrics::counter!("records_processed_total").increment(epoch.records);
    if let Some(offset) = epoch.next_offset
        && let Some(sender) = read(applied).get(&epoch.partition)
    {
        sender.send_replace(offset);
    }
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
