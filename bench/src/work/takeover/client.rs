//! A client of one object: reads it at every instance every 20 ms, reports about it every 100 ms; and a light
//! load on all others.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use common::avro::Encoder;
use common::schema::{SITE_ATTACK_REPORT, SiteAttackReport, SiteAttackVerdict};
use e2e::Application;
use rand::RngExt as _;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval};

use super::timeline::{Read, Timeline, Write};
use crate::input::{Sender, Shape};
use crate::systems;

const READ_EVERY: Duration = Duration::from_millis(20);
const WRITE_EVERY: Duration = Duration::from_millis(100);
/// Who reports about the object while it is watched.
const PROBE: &str = "probe";
/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is shared between the client's tasks.
#[derive(Debug)]
struct Shared {
    /// Where the object is read, by instance.
    urls: Mutex<Vec<Option<String>>>,
    seen: Mutex<Timeline>,
    /// Times are counted from here.
    zero: Mutex<Instant>,
}

/// A client at work. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Client {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<Result<()>>>,
}

impl Client {
    /// Starts reading and reporting.
    pub(super) async fn start(
        app: &Application,
        object: &str,
        urls: Vec<Option<String>>,
    ) -> Result<Self> {
        let shared = Arc::new(Shared {
            urls: Mutex::new(urls),
            seen: Mutex::default(),
            zero: Mutex::new(Instant::now()),
        });
        let topics = app.topics()?;
        let topic = topics.names().reports.clone();
        let encoder = topics.registry().encoder(&topic, SITE_ATTACK_REPORT).await;
        let writing = write(Arc::clone(&shared), topics, encoder, object.to_owned());
        let reading = read(Arc::clone(&shared));
        Ok(Self {
            shared,
            tasks: vec![tokio::spawn(writing), tokio::spawn(reading)],
        })
    }

    /// From now on the object is read there.
    pub(super) fn set_url(&self, instance: usize, url: Option<String>) {
        lock(&self.shared.urls)[instance] = url;
    }

    /// Now is the time of the fault: what was seen so far was seen before.
    pub(super) fn fault(&self) {
        let (mut zero, mut seen) = (lock(&self.shared.zero), lock(&self.shared.seen));
        let now = Instant::now();
        let before = ms(*zero, now);
        *zero = now;
        for read in &mut seen.reads {
            read.asked_ms -= before;
            read.answered_ms -= before;
        }
        for write in &mut seen.writes {
            write.sent_ms -= before;
        }
    }

    /// The time since the fault in ms.
    pub(super) fn now_ms(&self) -> f64 {
        ms(*lock(&self.shared.zero), Instant::now())
    }

    /// What was seen so far.
    pub(super) fn seen(&self) -> Timeline {
        lock(&self.shared.seen).clone()
    }

    /// Has it failed? Then it says why.
    pub(super) async fn check(&mut self) -> Result<()> {
        for task in &mut self.tasks {
            if task.is_finished() {
                task.await??;
            }
        }
        Ok(())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn write(
    shared: Arc<Shared>,
    topics: e2e::Topics,
    encoder: Encoder<SiteAttackReport>,
    object: String,
) -> Result<()> {
    let topic = topics.names().reports.clone();
    let mut tick = interval(WRITE_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for sequence in 1.. {
        tick.tick().await;
        let report = report(&object, PROBE, sequence);
        let value = encoder.encode(&report)?;
        {
            let (zero, mut seen) = (lock(&shared.zero), lock(&shared.seen));
            let sent_ms = ms(*zero, Instant::now());
            seen.writes.push(Write { sent_ms, sequence });
        }
        let key = object.as_bytes();
        topics
            .produce(&topic, None, Some(key), Some(&value))
            .await?;
    }
    Ok(())
}

async fn read(shared: Arc<Shared>) -> Result<()> {
    let client = systems::client(PATIENCE)?;
    let mut tick = interval(READ_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asking = JoinSet::new();
    loop {
        tick.tick().await;
        while asking.try_join_next().is_some() {}
        let urls = lock(&shared.urls).clone();
        for (instance, url) in urls.into_iter().enumerate() {
            let Some(url) = url else { continue };
            let (client, shared) = (client.clone(), Arc::clone(&shared));
            asking.spawn(async move {
                let asked = Instant::now();
                // Somebody who is dead, busy or not the owner gives no answer: that is what is measured.
                let Ok(Some(state)) = systems::read(&client, &url).await else {
                    return;
                };
                let answered = Instant::now();
                let own = state.votes.iter().find(|vote| vote.agent_id == PROBE);
                let (zero, mut seen) = (lock(&shared.zero), lock(&shared.seen));
                seen.reads.push(Read {
                    instance,
                    asked_ms: ms(*zero, asked),
                    answered_ms: ms(*zero, answered),
                    sequence: own.map_or(0, |vote| vote.sequence),
                });
            });
        }
    }
}

/// A light load on other objects than the first; ends when dropped.
#[derive(Debug)]
pub(super) struct Load {
    _alive: Arc<()>,
}

impl Load {
    /// So many reports a second about some of `objects`.
    pub(super) fn start(sender: Sender, objects: usize, per_second: u32) -> Self {
        let alive = Arc::new(());
        let ended = Arc::downgrade(&alive);
        std::thread::spawn(move || {
            let pause = Duration::from_secs(1) / per_second.max(1);
            let mut sequence = 1_000;
            while ended.strong_count() > 0 {
                let object = Shape::object(rand::rng().random_range(1..objects.max(2)));
                sequence += 1;
                if let Err(error) = sender.send(&report(&object, "agent-01", sequence)) {
                    tracing::warn!(%error, "the load ends");
                    return;
                }
                sender.poll();
                std::thread::sleep(pause);
            }
        });
        Self { _alive: alive }
    }
}

fn report(object: &str, agent: &str, sequence: i64) -> SiteAttackReport {
    SiteAttackReport {
        object_id: object.to_owned(),
        agent_id: agent.to_owned(),
        verdict: SiteAttackVerdict::Clear,
        observed_at_ms: jiff::Timestamp::now().as_millisecond(),
        sequence,
        attack_kind: None,
        requests_per_second: Some(100.0),
        detail: None,
    }
}

/// From `zero` to `at`; negative if that was before.
fn ms(zero: Instant, at: Instant) -> f64 {
    let after = at.saturating_duration_since(zero).as_secs_f64();
    let before = zero.saturating_duration_since(at).as_secs_f64();
    (after - before) * 1e3
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
