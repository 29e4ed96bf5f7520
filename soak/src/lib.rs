//! Breaks a running cluster on purpose and checks that nothing was lost, doubled or wrong.

use std::time::{SystemTime, UNIX_EPOCH};

pub mod checker;
pub mod model;
pub mod random;
pub mod tail;

/// The wall clock, in ms since 1970.
pub fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
