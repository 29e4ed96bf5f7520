//! Writes this instance's row, again and again.

use std::{
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use common::{kafka, topics::Names};
use rdkafka::producer::{BaseRecord, Producer as _};

use super::BEAT;
use crate::membership::{InstanceId, Row};

/// Writes this instance's row again and again, from a thread of its own.
pub struct Beats {
    row: Arc<Mutex<Row>>,
    wake: Option<mpsc::Sender<Wake>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// What the beating thread is woken for.
enum Wake {
    /// Our row is another.
    Changed,
    /// This instance's row is to be removed.
    Forget(InstanceId),
}

impl Beats {
    /// Starts beating with `row`.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn start(kafka: &kafka::Args, names: &Names, id: &str, row: Row) -> anyhow::Result<Self> {
        let mut config = kafka.producer(&format!("{id}-beats"));
        config
            .set("linger.ms", "0")
            // One row at a time, and one that comes twice says nothing new. An id for the producer would
            // be waited for before the first row: half a second, if it is asked for before there is a
            // connection.
            .set("enable.idempotence", "false");
        let producer: kafka::Producer = kafka::create(&config)?;
        let row = Arc::new(Mutex::new(row));
        let (wake, woken) = mpsc::channel();
        let beating = Beating {
            producer,
            topic: names.instances.clone(),
            id: id.to_owned(),
            row: Arc::clone(&row),
        };
        let thread = thread::Builder::new()
            .name("beats".into())
            .spawn(move || beating.run(&woken))
            .context("thread")?;
        Ok(Self {
            row,
            wake: Some(wake),
            thread: Some(thread),
        })
    }

    /// Changes the row; if that made a difference, it is written at once.
    pub fn update(&self, change: impl FnOnce(&mut Row)) {
        let mut row = lock(&self.row);
        let before = row.clone();
        change(&mut row);
        if *row != before
            && let Some(wake) = &self.wake
        {
            // The thread ends only when this sender is dropped.
            let _ = wake.send(Wake::Changed);
        }
    }

    /// Removes the row of an instance that is gone for good.
    pub fn forget(&self, instance: InstanceId) {
        if let Some(wake) = &self.wake {
            // As above.
            let _ = wake.send(Wake::Forget(instance));
        }
    }

    /// Changes what may wait for the next beat.
    pub fn tell(&self, change: impl FnOnce(&mut Row)) {
        change(&mut lock(&self.row));
    }
}

impl Drop for Beats {
    /// Writes the row a last time and waits for the broker's answer, but not for ever.
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

struct Beating {
    producer: kafka::Producer,
    topic: String,
    id: String,
    row: Arc<Mutex<Row>>,
}

impl Beating {
    fn run(self, woken: &mpsc::Receiver<Wake>) {
        let mut last_beat: Option<Instant> = None;
        let mut due = true;
        loop {
            self.producer.poll(Duration::ZERO);
            self.producer.context().reconnect(self.producer.client());
            // One at a time: a backlog written when the broker comes back would make this
            // instance's log time run ahead, and the others suspects.
            if due && self.producer.in_flight_count() == 0 {
                // A row that is written because something changed is not a beat: only beats
                // measure time.
                let beat = last_beat.is_none_or(|at| at.elapsed() >= BEAT);
                if beat {
                    last_beat = Some(Instant::now());
                }
                self.write(beat);
                due = false;
            }
            let until_beat = BEAT.saturating_sub(last_beat.map_or(BEAT, |at| at.elapsed()));
            let wait = if due {
                Duration::from_millis(5)
            } else {
                until_beat
            };
            match woken.recv_timeout(wait) {
                Ok(Wake::Changed) | Err(mpsc::RecvTimeoutError::Timeout) => due = true,
                Ok(Wake::Forget(instance)) => self.forget(&instance),
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    self.write(false);
                    if let Err(error) = self.producer.flush(Duration::from_secs(3)) {
                        tracing::warn!(%error, "the last row was not written");
                    }
                    return;
                }
            }
        }
    }

    fn forget(&self, instance: &str) {
        let record: BaseRecord<'_, str, [u8]> =
            BaseRecord::to(&self.topic).partition(0).key(instance);
        if let Err((error, _)) = self.producer.send(record) {
            // Whoever leads next finds the row again.
            tracing::warn!(%error, instance, "its row was not removed");
        }
    }

    fn write(&self, beat: bool) {
        let row = {
            let mut row = lock(&self.row);
            row.beat += u64::from(beat);
            serde_json::to_vec(&*row)
        };
        let Ok(row) = row else { return };
        let record = BaseRecord::to(&self.topic)
            .partition(0)
            .key(self.id.as_bytes())
            .payload(&row);
        if let Err((error, _)) = self.producer.send(record) {
            tracing::warn!(%error, "a beat was not written");
        }
    }
}

fn lock(row: &Mutex<Row>) -> std::sync::MutexGuard<'_, Row> {
    row.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
