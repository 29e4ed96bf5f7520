//! A table on its way into a store, written by a thread of its own.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
};

use super::portion::{Portion, Spare};
use crate::{
    store::{self, Store},
    timers::TimerOf,
};

pub(super) struct Table {
    thread: JoinHandle<Result<(), store::Error>>,
    bytes: usize,
}

impl Table {
    /// Has a thread take the portion into the store, which it brings to `position`. Its memory is spare then.
    ///
    /// # Errors
    /// When there is no thread for it.
    pub(super) fn begin(
        portion: Portion,
        store: &Arc<Store>,
        position: i64,
        timer_of: TimerOf,
        spare: Spare,
    ) -> Result<Self, store::Error> {
        let (bytes, into) = (portion.bytes(), Arc::clone(store));
        let write = move || {
            spare.put(portion.ingest(&into, position, timer_of)?);
            Ok(())
        };
        let thread = thread::Builder::new()
            .name("table".into())
            .spawn(write)
            .map_err(|error| store.cannot("cannot start a thread to write it", error))?;
        Ok(Self { thread, bytes })
    }

    /// Memory that it takes until it is written.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_written(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until it is written.
    ///
    /// # Errors
    /// What the store says.
    pub(super) fn end(self) -> Result<(), store::Error> {
        let written = self.thread.join();
        written.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}
