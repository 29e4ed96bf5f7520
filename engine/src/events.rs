//! What librdkafka tells beside records: errors, its log, and the delivery reports of a producer.
//!
//! rdkafka serves these while it polls. A client that is read or written in batches is never polled,
//! so its events are served here.

#![allow(unsafe_code)]

use std::{ffi::CStr, time::Duration};

use common::kafka;
use rdkafka::{ClientContext as _, client::Client, config::RDKafkaLogLevel, error::KafkaError};
use rdkafka_sys as rdsys;

/// The events of one client.
pub(crate) struct Events {
    queue: *mut rdsys::rd_kafka_queue_t,
}

// SAFETY: a queue of librdkafka may be used from any thread.
unsafe impl Send for Events {}

impl Drop for Events {
    fn drop(&mut self) {
        // SAFETY: the queue was obtained from `rd_kafka_queue_get_main` and is destroyed once.
        unsafe { rdsys::rd_kafka_queue_destroy(self.queue) }
    }
}

impl Events {
    /// The events of this client. To be dropped before it.
    pub(crate) fn of(client: &Client<kafka::Context>) -> Self {
        // SAFETY: the client is alive; the queue lives until it is destroyed by `Drop`.
        let queue = unsafe { rdsys::rd_kafka_queue_get_main(client.native_ptr()) };
        Self { queue }
    }

    /// The events of a consumer, which come with its records otherwise.
    pub(crate) fn apart_from_records(client: &Client<kafka::Context>) -> Self {
        let events = Self::of(client);
        // SAFETY: the queue is alive; forwarding it nowhere makes it a queue of its own.
        unsafe { rdsys::rd_kafka_queue_forward(events.queue, std::ptr::null_mut()) }
        events
    }

    /// Serves what there is, waiting up to `timeout` for the first of it; then sees to a client that
    /// has lost its brokers. `on_report` hears of every record that was delivered, or was not.
    pub(crate) fn serve(
        &self,
        client: &Client<kafka::Context>,
        timeout: Duration,
        mut on_report: impl FnMut(&rdsys::rd_kafka_message_t),
    ) {
        let mut timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        loop {
            // SAFETY: the queue is alive; the event is ours, and destroyed once, after its last use.
            unsafe {
                let event = rdsys::rd_kafka_queue_poll(self.queue, timeout);
                if event.is_null() {
                    break;
                }
                hear(event, client.context(), &mut on_report);
                rdsys::rd_kafka_event_destroy(event);
            }
            timeout = 0;
        }
        client.context().reconnect(client);
    }
}

/// # Safety
/// The event must be valid.
unsafe fn hear(
    event: *mut rdsys::rd_kafka_event_t,
    context: &kafka::Context,
    on_report: &mut impl FnMut(&rdsys::rd_kafka_message_t),
) {
    // SAFETY: what belongs to the event lives as long as it does.
    unsafe {
        match rdsys::rd_kafka_event_type(event) {
            rdsys::RD_KAFKA_EVENT_DR => {
                while let Some(message) = rdsys::rd_kafka_event_message_next(event).as_ref() {
                    on_report(message);
                }
            }
            rdsys::RD_KAFKA_EVENT_ERROR => {
                let error = KafkaError::Global(rdsys::rd_kafka_event_error(event).into());
                let text = CStr::from_ptr(rdsys::rd_kafka_event_error_string(event));
                context.error(error, &text.to_string_lossy());
            }
            rdsys::RD_KAFKA_EVENT_LOG => {
                let (mut facility, mut text, mut level) = (std::ptr::null(), std::ptr::null(), 0);
                let answer = rdsys::rd_kafka_event_log(
                    event,
                    &raw mut facility,
                    &raw mut text,
                    &raw mut level,
                );
                if answer == 0 {
                    context.log(
                        // As in syslog: 4 is a warning, and less is worse.
                        if level <= 4 {
                            RDKafkaLogLevel::Warning
                        } else {
                            RDKafkaLogLevel::Debug
                        },
                        &CStr::from_ptr(facility).to_string_lossy(),
                        &CStr::from_ptr(text).to_string_lossy(),
                    );
                }
            }
            _ => {}
        }
    }
}
