//! Clients that have lost every broker, and would never find one again.
//!
//! librdkafka forgets brokers that an answer does not name (since 2.10). A cluster that has just come
//! back may answer with topics and without a single broker: the client then forgets all, begins to
//! start over from `bootstrap.servers`, and, if its threads run in an unlucky order, stops that again
//! because an answer has come (librdkafka issue 5301, open as of 2.13). Such a client is connected to
//! nothing from then on, and says so once. The remedy is to name the brokers again.

#![allow(unsafe_code)]

use std::{
    ffi::CString,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{ClientContext, bindings, client::Client};

/// While brokers are away, a client that is well says so again after every try, each second at the
/// latest: see `reconnect.backoff.max.ms` in [`super::Args::client`].
const SILENT_FOR: Duration = Duration::from_secs(3);

/// When a client last said that all brokers are down.
#[derive(Debug, Default)]
pub(super) struct Lost(Mutex<Option<Instant>>);

impl Lost {
    fn since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn said(&self, now: Instant) {
        *self.since() = Some(now);
    }

    /// Has it said so, and nothing since? Then it is asked once only.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let mut since = self.since();
        let due = since.is_some_and(|at| now.saturating_duration_since(at) >= SILENT_FOR);
        if due {
            *since = None;
        }
        due
    }
}

/// Names the brokers to a client again. Those that it knows stay as they are.
pub(super) fn name_brokers<C: ClientContext>(client: &Client<C>, servers: &str) {
    let Ok(servers) = CString::new(servers) else {
        return;
    };
    // SAFETY: the client is alive, and the text ends with a zero; librdkafka copies it.
    let known = unsafe { bindings::rd_kafka_brokers_add(client.native_ptr(), servers.as_ptr()) };
    tracing::debug!(known, "named the brokers again");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_helped_once_when_it_falls_silent() {
        let lost = Lost::default();
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        assert!(!lost.is_due(at(9_000)), "nothing is lost");
        // The brokers are away, and it goes on trying.
        for ms in [0, 900, 1_800, 2_700, 3_600] {
            lost.said(at(ms));
            assert!(!lost.is_due(at(ms + 890)));
        }
        assert!(!lost.is_due(at(6_599)));
        assert!(lost.is_due(at(6_600)));
        assert!(!lost.is_due(at(9_000)), "once");
    }
}
