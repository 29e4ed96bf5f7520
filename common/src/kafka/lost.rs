//! Clients that have lost the brokers, or the leaders of their partitions, and would not find them again for
//! minutes, or ever.
//!
//! librdkafka forgets brokers that an answer does not name (since 2.10). A cluster that has just come
//! back may answer with topics, without leaders and without a single broker: the client then forgets all,
//! begins to start over from `bootstrap.servers`, and, if its threads run in an unlucky order, stops that
//! again because an answer has come (librdkafka issue 5301, open as of 2.13). Mostly it says then that all
//! brokers are down, but not always. Such a client is connected to nothing from then on. So each client
//! is asked now and then for what it knows, which is a question to a broker; if none answers, the
//! brokers are named to it again.

#![allow(unsafe_code)]

use std::{
    ffi::CString,
    ptr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientContext,
    bindings::{self, rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR},
    client::Client,
};

/// Time between two looks at a client.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long a broker may take to answer: whoever polls the client waits meanwhile.
const ANSWER_WITHIN: Duration = Duration::from_millis(200);

/// When a client was last looked at, or first polled.
#[derive(Debug, Default)]
pub(super) struct Look(Mutex<Option<Instant>>);

impl Look {
    /// Is it time for one? Then it is taken to be done.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = now.saturating_duration_since(*last.get_or_insert(now));
        let due = passed >= LOOK_EVERY;
        if due {
            *last = Some(now);
        }
        due
    }

    #[cfg(test)]
    pub(super) fn due_in(time: Duration) -> Self {
        Self(Mutex::new(Some(Instant::now() + time - LOOK_EVERY)))
    }
}

/// Asks the brokers for the client's topics; names the brokers to it again if none answers.
pub(super) fn look<C: ClientContext>(client: &Client<C>, servers: &str) {
    if reaches_a_broker(client, ANSWER_WITHIN) {
        return;
    }
    let Ok(servers) = CString::new(servers) else {
        return;
    };
    // Those that it knows stay as they are.
    // SAFETY: the client is alive, and the text ends with a zero; librdkafka copies it.
    let known = unsafe { bindings::rd_kafka_brokers_add(client.native_ptr(), servers.as_ptr()) };
    tracing::debug!(known, "named the brokers again");
}

/// Waits for a broker to tell what it knows of the client's topics: that tells the client also who leads
/// its partitions now. `false` if none does in time.
pub fn reaches_a_broker<C: ClientContext>(client: &Client<C>, within: Duration) -> bool {
    let within_ms = i32::try_from(within.as_millis()).unwrap_or(i32::MAX);
    let mut metadata = ptr::null();
    // SAFETY: the client is alive; without a topic, those are asked for that it uses. What it answers with
    // is ours, and is destroyed once, after its last use.
    unsafe {
        let answer = bindings::rd_kafka_metadata(
            client.native_ptr(),
            0,
            ptr::null_mut(),
            &raw mut metadata,
            within_ms,
        );
        if answer != RD_KAFKA_RESP_ERR_NO_ERROR {
            return false;
        }
        let brokers = (*metadata).broker_cnt;
        bindings::rd_kafka_metadata_destroy(metadata);
        brokers > 0
    }
}

#[cfg(test)]
mod tests {
    use rdkafka::{ClientConfig, mocking::MockCluster, producer::Producer as _};

    use super::*;
    use crate::kafka::{Producer, create};

    #[test]
    fn a_client_without_a_broker_is_told_of_them_again() {
        // It knows of none but this one, which is not there.
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", "127.0.0.1:1");
        let producer: Producer = create(&config).unwrap();
        let client = producer.client();
        assert!(!reaches_a_broker(client, Duration::from_millis(50)));
        let brokers = MockCluster::new(1).unwrap();
        look(client, &brokers.bootstrap_servers());
        assert!(reaches_a_broker(client, Duration::from_secs(30)));
    }

    #[test]
    fn a_client_is_looked_at_every_five_seconds() {
        let look = Look::default();
        let begin = Instant::now();
        let due = |ms| look.is_due(begin + Duration::from_millis(ms));
        let looks = [0, 4_999, 5_000, 5_001, 9_999, 17_000, 21_999, 22_000];
        let done = looks.map(due);
        assert_eq!(
            done,
            [false, false, true, false, false, true, false, true],
            "at {looks:?} ms"
        );
    }
}
