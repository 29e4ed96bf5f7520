//! An instance of the service, with a disk and connections of its own that can be broken.

use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use devkit::{Disk, KafkaProxy};
use e2e::{Api, Service};

use crate::now_ms;
use crate::world::World;

/// An instance of the service, running or not.
pub struct Instance {
    /// Its name, which is its instance id.
    pub name: String,
    /// Stands between it and the brokers.
    pub proxy: KafkaProxy,
    /// Its disk.
    pub disk: Disk,
    /// The program. Whoever does something to it holds this.
    pub service: tokio::sync::Mutex<Service>,
    api: Mutex<Option<Api>>,
}

impl Instance {
    /// Starts an instance with an empty disk. It is not ready yet.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start(world: &World, name: &str, number: usize) -> Result<Self> {
        let proxy = KafkaProxy::start(world.app.bootstrap()).await?;
        let disk = Disk::under(&world.app.state_dir(name))?;
        // Different numbers of workers: the ids that others must fence are not always one.
        let workers = (1 + number % 2).to_string();
        let mut flags: Vec<(&str, &str)> = world
            .flags
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        flags.extend([
            ("bootstrap-servers", proxy.bootstrap()),
            ("workers", workers.as_str()),
        ]);
        let service = world
            .app
            .state_service_in(name, &flags, &disk.environment())?;
        Ok(Self {
            name: name.to_owned(),
            proxy,
            disk,
            service: tokio::sync::Mutex::new(service),
            api: Mutex::default(),
        })
    }

    /// Its API, if it is meant to answer.
    pub fn api(&self) -> Option<Api> {
        lock(&self.api).clone()
    }

    /// It is about to be broken: nobody asks it any more.
    pub fn hide(&self) {
        *lock(&self.api) = None;
    }

    /// Waits until it is ready, and lets it be asked again.
    ///
    /// # Errors
    /// It does not become ready, with all brokers there.
    pub async fn show(&self, world: &World, service: &Service) -> Result<()> {
        loop {
            let from_ms = now_ms();
            match service.ready().await {
                Ok(()) => break,
                Err(_) if world.brokers_were_away(from_ms) => {}
                Err(error) => return Err(error),
            }
        }
        *lock(&self.api) = Some(service.api().await?);
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
