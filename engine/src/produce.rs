//! Batch production in transactions: librdkafka takes many messages in one call, and its delivery
//! reports are waited for, not looked for.
//!
//! Like [`crate::fetch`], a module with `unsafe` code: rdkafka has no safe form of
//! `rd_kafka_produce_batch`, and its `poll` returns at its deadline only, whatever happened before.

#![allow(unsafe_code)]

use std::{
    any::Any, collections::HashMap, ffi::CString, ops::Range, ptr, sync::Arc, time::Duration,
};

use common::kafka;
use rdkafka::{
    ClientConfig,
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
    producer::Producer as _,
};
use rdkafka_sys as rdsys;

use crate::{
    epoch::{Outputs, Rows},
    events::Events,
};

/// Messages handed to librdkafka in one call.
const BATCH: usize = 1_000;

/// `RD_KAFKA_PARTITION_UA`: the partitioner chooses.
const BY_KEY: i32 = -1;

/// Key and value of a record.
pub type Message<'a> = (Option<&'a [u8]>, Option<&'a [u8]>);

/// Records that do not change any more, and stay where they are.
pub trait Records: Send + Sync + 'static {
    /// Those at these places.
    fn messages(&self, places: Range<usize>) -> impl Iterator<Item = Message<'_>>;
}

impl Records for Rows {
    fn messages(&self, places: Range<usize>) -> impl Iterator<Item = Message<'_>> {
        self.range(places).map(|(key, value)| (Some(key), value))
    }
}

impl Records for Outputs {
    fn messages(&self, places: Range<usize>) -> impl Iterator<Item = Message<'_>> {
        self.range(places).map(|output| (output.key, output.value))
    }
}

/// A producer that is told where to by [`Topic`].
pub struct Producer {
    // Declared before the client: dropped first, as librdkafka requires.
    events: Events,
    topics: Vec<TopicHandle>,
    client: kafka::Producer,
    /// Records that librdkafka may still read. Declared after the client: dropped after it.
    held: Vec<Arc<dyn Any + Send + Sync>>,
    batch: Vec<rdsys::rd_kafka_message_t>,
    delivered: Delivered,
}

// SAFETY: the raw pointers belong to librdkafka objects, which may be used from any thread; those in
// `batch` are only read by the call that was given them, or are to records that are held.
unsafe impl Send for Producer {}

/// A topic of a [`Producer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Topic(usize);

impl Topic {
    /// What its records carry, for their reports to give it back.
    fn opaque(self) -> *mut std::ffi::c_void {
        ptr::without_provenance_mut(self.0)
    }

    fn of(opaque: *mut std::ffi::c_void) -> Self {
        Self(opaque.addr())
    }
}

/// What delivery reports have said since [`Producer::forget_deliveries`].
#[derive(Debug, Default)]
struct Delivered {
    /// The offset after the last delivered record of each partition of each topic.
    positions: HashMap<(Topic, i32), i64>,
    failed: Option<RDKafkaErrorCode>,
}

struct TopicHandle(*mut rdsys::rd_kafka_topic_t);

impl Drop for TopicHandle {
    fn drop(&mut self) {
        // SAFETY: the handle was obtained from `rd_kafka_topic_new` and is destroyed once.
        unsafe { rdsys::rd_kafka_topic_destroy(self.0) }
    }
}

impl Producer {
    /// A producer with `config` for these topics. Nothing is asked of the broker yet.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn new<const N: usize>(
        config: &ClientConfig,
        topics: [&str; N],
    ) -> KafkaResult<(Self, [Topic; N])> {
        let client: kafka::Producer = kafka::create(config)?;
        let native = client.client().native_ptr();
        let events = Events::of(client.client());
        let mut handles = Vec::with_capacity(N);
        for topic in topics {
            let name =
                CString::new(topic).map_err(|e| KafkaError::ClientCreation(e.to_string()))?;
            // SAFETY: the client is alive, the name ends with a zero; no configuration means the default.
            let handle =
                unsafe { rdsys::rd_kafka_topic_new(native, name.as_ptr(), ptr::null_mut()) };
            if handle.is_null() {
                return Err(KafkaError::ClientCreation(format!("topic {topic}")));
            }
            handles.push(TopicHandle(handle));
        }
        let producer = Self {
            events,
            topics: handles,
            client,
            held: Vec::new(),
            batch: Vec::with_capacity(BATCH),
            delivered: Delivered::default(),
        };
        Ok((producer, std::array::from_fn(Topic)))
    }

    /// The client: for the calls of the transactional API.
    #[must_use]
    pub fn client(&self) -> &kafka::Producer {
        &self.client
    }

    /// Hands records to librdkafka, which copies them. `partition`: none means by the key. A full queue
    /// is waited for, for as long as `goes_on` says so.
    ///
    /// # Errors
    /// When a record is refused; those before it were taken.
    pub fn produce<'a>(
        &mut self,
        topic: Topic,
        partition: Option<i32>,
        messages: impl IntoIterator<Item = Message<'a>>,
        goes_on: impl FnMut() -> bool,
    ) -> KafkaResult<()> {
        let to = (topic, partition.unwrap_or(BY_KEY));
        // SAFETY: librdkafka keeps nothing of them.
        unsafe { self.hand_over(to, rdsys::RD_KAFKA_MSG_F_COPY, messages, goes_on) }
    }

    /// As [`Self::produce`], for the records at these places; librdkafka reads their values where they are: they
    /// are held until every record has been delivered or has failed.
    ///
    /// # Errors
    /// As for [`Self::produce`].
    pub fn produce_held<R: Records>(
        &mut self,
        topic: Topic,
        partition: Option<i32>,
        records: &Arc<R>,
        places: Range<usize>,
        goes_on: impl FnMut() -> bool,
    ) -> KafkaResult<()> {
        self.held.push(Arc::<R>::clone(records));
        let to = (topic, partition.unwrap_or(BY_KEY));
        // SAFETY: the records do not change while an `Arc` of them is held, and it is held until nothing
        // is in flight.
        unsafe { self.hand_over(to, 0, records.messages(places), goes_on) }
    }

    /// # Safety
    /// Without `F_COPY`, the values must stay where they are until nothing is in flight.
    unsafe fn hand_over<'a>(
        &mut self,
        to: (Topic, i32),
        flags: i32,
        messages: impl IntoIterator<Item = Message<'a>>,
        mut goes_on: impl FnMut() -> bool,
    ) -> KafkaResult<()> {
        let mut messages = messages.into_iter();
        loop {
            self.batch.clear();
            let batch = messages.by_ref().take(BATCH);
            self.batch
                .extend(batch.map(|message| native(message, to.0)));
            if self.batch.is_empty() {
                return Ok(());
            }
            // SAFETY: as this function's.
            while unsafe { self.hand_over_batch(to, flags)? } {
                if !goes_on() {
                    return Err(KafkaError::Canceled);
                }
                // Nothing is let go of: these records are not all in flight yet.
                self.hear(Duration::from_millis(100));
            }
        }
    }

    /// Offers the batch; what does not fit into the queue stays in it: is anything left?
    ///
    /// # Safety
    /// As for [`Self::hand_over`].
    unsafe fn hand_over_batch(
        &mut self,
        (topic, partition): (Topic, i32),
        flags: i32,
    ) -> KafkaResult<bool> {
        // SAFETY: the handle is alive; the batch holds as many messages as its length says. Their keys are
        // copied, and so are their values or they stay where they are.
        unsafe {
            rdsys::rd_kafka_produce_batch(
                self.topics[topic.0].0,
                partition,
                flags,
                self.batch.as_mut_ptr(),
                i32::try_from(self.batch.len()).unwrap_or(i32::MAX),
            );
        }
        self.batch.retain(|message| {
            message.err != rdsys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
        });
        let full = rdsys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__QUEUE_FULL;
        match self.batch.iter().find(|message| message.err != full) {
            Some(refused) => Err(KafkaError::MessageProduction(refused.err.into())),
            None => Ok(!self.batch.is_empty()),
        }
    }

    /// Records that were handed over and of which no report has been served.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        usize::try_from(self.client.in_flight_count()).unwrap_or(0)
    }

    /// Serves what librdkafka has to report, waiting up to `timeout` for the first of it.
    pub fn serve(&mut self, timeout: Duration) {
        self.hear(timeout);
        if self.in_flight() == 0 {
            self.held.clear();
        }
    }

    fn hear(&mut self, timeout: Duration) {
        let delivered = &mut self.delivered;
        let on_report = |message: &rdsys::rd_kafka_message_t| delivered.hear(message);
        self.events.serve(self.client.client(), timeout, on_report);
    }

    /// Whatever was delivered until now belongs to the past.
    pub fn forget_deliveries(&mut self) {
        self.delivered = Delivered::default();
    }

    /// The first reason why a record was not delivered, if one was not.
    #[must_use]
    pub fn failed(&self) -> Option<RDKafkaErrorCode> {
        self.delivered.failed
    }

    /// The offset after the last delivered record of a partition; `None` if none was delivered.
    #[must_use]
    pub fn position(&self, topic: Topic, partition: i32) -> Option<i64> {
        self.delivered.positions.get(&(topic, partition)).copied()
    }
}

impl Delivered {
    fn hear(&mut self, message: &rdsys::rd_kafka_message_t) {
        if message.err != rdsys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            self.failed.get_or_insert_with(|| message.err.into());
        } else {
            let of = (Topic::of(message._private), message.partition);
            let position = self.positions.entry(of).or_default();
            *position = (*position).max(message.offset + 1);
        }
    }
}

fn native((key, value): Message<'_>, topic: Topic) -> rdsys::rd_kafka_message_t {
    let (key, key_len) = parts(key);
    let (payload, len) = parts(value);
    rdsys::rd_kafka_message_t {
        err: rdsys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR,
        rkt: ptr::null_mut(),
        partition: BY_KEY,
        payload,
        len,
        key,
        key_len,
        offset: 0,
        _private: topic.opaque(),
    }
}

fn parts(bytes: Option<&[u8]>) -> (*mut std::ffi::c_void, usize) {
    match bytes {
        // librdkafka only reads it.
        Some(bytes) => (bytes.as_ptr().cast_mut().cast(), bytes.len()),
        None => (ptr::null_mut(), 0),
    }
}
