//! Schemas for worker threads: known ones at once, others looked up in the background.
//!
//! A registry that is away makes records wait; it never makes them dead letters.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use common::{
    avro::Schema,
    registry::{self, Registry},
};
use tokio::runtime::Handle;

use crate::task::Schemas;

/// How long an id that the registry does not know is taken as unknown before it is asked again.
const UNKNOWN_FOR: Duration = Duration::from_secs(10);

/// What is known of an id that is not in the registry client's memory.
enum Answer {
    Pending,
    Unknown(String, Instant),
}

/// Schemas by id.
#[derive(Clone)]
pub struct Lookup {
    registry: Registry,
    runtime: Handle,
    recent: HashMap<u32, Arc<Schema>>,
    answers: Arc<Mutex<HashMap<u32, Answer>>>,
}

impl Lookup {
    /// Looks ids up at `registry`, on `runtime`.
    #[must_use]
    pub fn new(registry: Registry, runtime: Handle) -> Self {
        Self {
            registry,
            runtime,
            recent: HashMap::new(),
            answers: Arc::default(),
        }
    }

    fn ask(&self, id: u32) {
        tracing::info!(id, "records wait for their schema");
        let registry = self.registry.clone();
        let answers = Arc::clone(&self.answers);
        self.runtime.spawn(async move {
            let mut pause = Duration::from_millis(100);
            loop {
                match registry.resolve(id).await {
                    Ok(_) => {
                        lock(&answers).remove(&id);
                        return;
                    }
                    Err(registry::Error::Unknown { reason, .. }) => {
                        lock(&answers).insert(id, Answer::Unknown(reason, Instant::now()));
                        return;
                    }
                    Err(error) => {
                        tracing::warn!(%error, id, "the registry does not tell the schema yet");
                    }
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
            }
        });
    }
}

impl Schemas for Lookup {
    fn lookup(&mut self, id: u32) -> Option<Result<Arc<Schema>, String>> {
        if let Some(schema) = self.recent.get(&id) {
            return Some(Ok(Arc::clone(schema)));
        }
        if let Some(schema) = self.registry.known(id) {
            self.recent.insert(id, Arc::clone(&schema));
            return Some(Ok(schema));
        }
        let mut answers = lock(&self.answers);
        match answers.get(&id) {
            Some(Answer::Pending) => return None,
            Some(Answer::Unknown(why, since)) if since.elapsed() < UNKNOWN_FOR => {
                return Some(Err(why.clone()));
            }
            _ => {}
        }
        answers.insert(id, Answer::Pending);
        drop(answers);
        self.ask(id);
        None
    }
}

fn lock(answers: &Mutex<HashMap<u32, Answer>>) -> std::sync::MutexGuard<'_, HashMap<u32, Answer>> {
    answers
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
