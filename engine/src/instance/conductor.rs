//! The thread that conducts an instance: reads the membership topics, leads when it is its turn, and
//! acts on what the other threads report. Everything slow happens in those.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, RwLock,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{Happening, Settings, lead::Lead, listening::read_to_end};
use crate::{
    commit::Published,
    epoch::TaskEpoch,
    guard,
    membership::{
        Cluster, Row, Status, VERSION,
        holdings::Holdings,
        link::{self, Beats, Link, Seat},
    },
    memory::Pool,
    processor::{Processor, Value},
    query::{LocalTask, View},
    restore::{self, Job, Stores},
    watchdog::{Pulse, Watchdog},
    worker::{self, Workers},
};

/// Pause before a worker that has ended is started again: what ended it may not be over.
pub(super) const RESTART_AFTER: Duration = Duration::from_millis(200);

/// Long enough for a restart of another instance, whose partitions come and go.
const RESTORER_RESTS_AFTER: Duration = Duration::from_secs(3);

pub(super) struct Conductor<P> {
    pub(super) settings: Settings<P>,
    pub(super) happenings: mpsc::Sender<Happening>,
    pub(super) view: watch::Sender<View>,
    pub(super) tasks: Arc<RwLock<BTreeMap<u32, LocalTask>>>,
    pub(super) applied: Arc<RwLock<BTreeMap<u32, watch::Sender<i64>>>>,
    published: Arc<Published>,
    pub(super) cluster: Cluster,
    pub(super) link: Link,
    pub(super) beats: Option<Beats>,
    pub(super) seat: Seat,
    pub(super) lead: Lead,
    /// When it last lost the seat.
    pub(super) deposed: Option<Instant>,
    /// Our last beat that came back, and when it did.
    pub(super) heard: (u64, Instant),
    /// Beats whenever one of ours comes back.
    pub(super) answers: Pulse,
    pub(super) restorer: mpsc::Sender<Job>,
    /// Memory of the epochs of all workers.
    epochs: Pool,
    /// The stores that no task has.
    pub(super) stores: Arc<Stores>,
    /// The generation of the application, once the restorer has been told.
    pub(super) generation: Option<String>,
    pub(super) workers: Workers,
    pub(super) holdings: Holdings,
    /// Held by whoever sweeps with the ids of others: two at once would fence each other.
    pub(super) sweeping: Arc<Mutex<()>>,
    /// Workers that have ended, and when to start them again.
    pub(super) restart: BTreeMap<u32, Instant>,
    /// Shows that this thread goes on.
    pub(super) pulse: Pulse,
    /// A stop was asked for: nothing more is waited for.
    pub(super) stopping: Arc<AtomicBool>,
    pub(super) stop_now: Arc<AtomicBool>,
    pub(super) watchdog: Watchdog,
    looked: Instant,
    pub(super) stuck: Option<String>,
    pub(super) strangers: Vec<String>,
    _guard: mpsc::Sender<()>,
    pub(super) failed: Option<anyhow::Error>,
}

impl<P: Processor> Conductor<P> {
    pub(super) fn new(
        settings: Settings<P>,
        happenings: mpsc::Sender<Happening>,
        view: watch::Sender<View>,
        tasks: Arc<RwLock<BTreeMap<u32, LocalTask>>>,
        stopping: Arc<AtomicBool>,
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
        let workers = usize::try_from(settings.workers)?;
        let epochs = Pool::of(settings.shares.epoch * workers);
        let mut watchdog = Watchdog::default();
        let pulse = Pulse::default();
        watchdog.watch("restorer".into(), pulse.clone());
        let report = happenings.clone();
        let (restorer, stores) = restore::start(
            restore::Settings {
                kafka: settings.kafka.clone(),
                application_id: settings.application_id.clone(),
                names: Arc::new(settings.names.clone()),
                stores: settings.identity.stores.clone(),
                shared: settings.shared.clone(),
                timer_of: <P::Value as Value>::timer_ms,
                pools: vec![
                    settings.task.objects.clone(),
                    settings.shared.rows().clone(),
                    epochs.clone(),
                ],
                queue_bytes: settings.shares.restore_queue,
                rests_after: RESTORER_RESTS_AFTER,
                pulse,
            },
            move |done| drop(report.send(Happening::Restore(done))),
        )?;
        let report = happenings.clone();
        let guard = guard::start(
            guard::Settings {
                client: link.client(),
                application_id: settings.application_id.clone(),
                source: settings.names.reports.clone(),
            },
            move |findings| drop(report.send(Happening::Guard(findings))),
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
            stores: BTreeMap::new(),
            restores: BTreeMap::new(),
        };
        // The first row tells what is on the disk: the plan places partitions by that.
        while !stores.surveyed() {
            thread::park_timeout(Duration::from_millis(2));
        }
        let mut cluster = Cluster::new(
            &settings.identity.instance_id,
            &incarnation,
            settings.rules,
            beats_in(settings.restart_grace),
        );
        let holdings = Holdings::new(settings.workers);
        let mut link = link;
        // What a former incarnation announced must be known before our own row replaces it.
        let pulse = Pulse::default();
        read_to_end(&mut link, &mut cluster, &stopping, &pulse);
        tracing::debug!("the membership topics are read");
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
            epochs,
            stores,
            generation: None,
            settings,
            happenings,
            view,
            tasks,
            applied: Arc::default(),
            published: Arc::default(),
            lead: Lead::No,
            deposed: None,
            heard: (0, Instant::now()),
            answers: Pulse::default(),
            workers: Workers::new(),
            holdings,
            sweeping: Arc::default(),
            restart: BTreeMap::new(),
            pulse,
            stopping,
            stop_now: Arc::default(),
            watchdog,
            looked: Instant::now(),
            stuck: None,
            strangers: Vec::new(),
            _guard: guard,
            failed: None,
        })
    }

    pub(super) fn run(mut self, heard: &mpsc::Receiver<Happening>) -> anyhow::Result<()> {
        self.join();
        loop {
            self.listen();
            while let Ok(happening) = heard.try_recv() {
                if matches!(happening, Happening::Stop) {
                    return self.leave(heard);
                }
                self.on(happening);
            }
            if self.holdings.must_catch_up() && self.read_to_end() {
                self.holdings.caught_up();
            }
            self.look_for_reset();
            if let Some(error) = self.failed.take() {
                // The others take over at once; whoever looks finds the reason.
                drop(self.leave(heard));
                return Err(error);
            }
            if self.stopping.load(Ordering::Acquire) {
                continue;
            }
            self.look_after_workers();
            self.restart_workers();
            self.lead();
            self.carry_out();
            self.publish_view();
        }
    }

    /// Beats while this thread goes on.
    pub(super) fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    pub(super) fn transactional_id(&self, worker: u32) -> String {
        let application_id = &self.settings.application_id;
        let instance_id = &self.settings.identity.instance_id;
        format!("{application_id}-{instance_id}-{worker}")
    }

    pub(super) fn start_worker(&mut self, number: u32) {
        let applied = Arc::clone(&self.applied);
        let settings = worker::Settings {
            kafka: self.settings.kafka.clone(),
            application_id: self.settings.application_id.clone(),
            names: Arc::new(self.settings.names.clone()),
            transactional_id: self.transactional_id(number),
            task: self.settings.task.clone(),
            commit_interval: self.settings.commit_interval,
            epoch_bytes: self.settings.shares.epoch,
            epochs: self.epochs.clone(),
            queue_bytes: self.settings.shares.queue,
            factory: Arc::clone(&self.settings.factory),
            lookup: self.settings.lookup.clone(),
            published: Arc::clone(&self.published),
            committed: Arc::new(move |epoch: &TaskEpoch| tell_applied(&applied, epoch)),
            stop: Arc::clone(&self.stop_now),
            pulse: Pulse::default(),
            commit_pulse: Pulse::default(),
            answers: self.answers.clone(),
        };
        self.watchdog
            .watch(format!("worker {number}"), settings.pulse.clone());
        let committer = settings.commit_pulse.clone();
        self.watchdog
            .watch(format!("committer {number}"), committer);
        let report = self.happenings.clone();
        let started = worker::start(settings, move |news| {
            drop(report.send(Happening::Worker(number, news)));
        });
        match started {
            Ok(orders) => drop(self.workers.insert(number, orders)),
            Err(error) => self.failed = Some(error),
        }
    }

    fn restart_workers(&mut self) {
        let now = Instant::now();
        let due: Vec<u32> = self
            .restart
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(number, _)| *number)
            .collect();
        for number in due {
            self.restart.remove(&number);
            self.start_worker(number);
        }
    }

    /// A worker that is stuck cannot be stopped: the instance ends, and others take over.
    fn look_after_workers(&mut self) {
        let passed = self.looked.elapsed();
        self.looked = Instant::now();
        let limit = self.settings.stuck_after;
        if let Some(name) = self.watchdog.look(passed, limit) {
            let why = format!("{name} has shown no sign of life for {limit:?}");
            self.stuck = Some(why.clone());
            self.publish_view();
            self.failed = Some(anyhow::anyhow!(why));
        }
    }

    fn on(&mut self, happening: Happening) {
        match happening {
            Happening::Seat(news) => self.on_seat(news),
            Happening::Fenced(id, plan) => {
                tracing::info!(transactional_id = id, "fenced");
                self.holdings.on_fenced(id, plan);
            }
            Happening::Restore(done) => self.on_restore(done),
            Happening::Worker(number, report) => self.on_worker(number, report),
            Happening::Guard(findings) => self.on_findings(findings),
            Happening::Stop => {}
        }
    }
}

/// How many beats come in `time`.
fn beats_in(time: Duration) -> u32 {
    u32::try_from(time.as_millis() / link::BEAT.as_millis()).unwrap_or(u32::MAX)
}

fn tell_applied(applied: &RwLock<BTreeMap<u32, watch::Sender<i64>>>, epoch: &TaskEpoch) {
    metrics::counter!("records_processed_total").increment(epoch.records);
    if let Some(offset) = epoch.next_offset
        && let Some(sender) = read(applied).get(&epoch.partition)
    {
        sender.send_replace(offset);
    }
}

pub(super) fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

pub(super) fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
