//! What can separate a committer from the stores.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Separates a committer whose call does not end from the stores. Its producer will be fenced by the
/// next one with its id; but should the call return after all, what it knows is of the past.
#[derive(Debug, Clone, Default)]
pub struct Tie(Arc<Mutex<bool>>);

impl Tie {
    /// Cuts the tie; `false` if the committer is writing to the stores at this moment.
    #[must_use]
    pub fn cut(&self) -> bool {
        match self.0.try_lock() {
            Ok(mut is_cut) => {
                *is_cut = true;
                true
            }
            Err(_) => false,
        }
    }

    /// Is it cut? While the answer is held, nobody can cut it.
    pub(super) fn hold(&self) -> MutexGuard<'_, bool> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
