//! Batch consumption: librdkafka hands over many messages in one call, at a third of the cost of
//! polling for each.
//!
//! A module with `unsafe` code: rdkafka has no safe form of `rd_kafka_consume_batch_queue`.

#![allow(unsafe_code)]

use std::{
    ffi::{CStr, CString},
    hint::black_box,
    marker::PhantomData,
    ptr, slice,
    time::Duration,
};

use common::kafka;
use rdkafka::{
    ClientConfig, TopicPartitionList,
    consumer::Consumer as _,
    error::{KafkaError, KafkaResult, RDKafkaErrorCode},
};
use rdkafka_sys as rdsys;
use smallvec::SmallVec;

use crate::{events::Events, intake::SourceRecord, objects::LOOK_AHEAD};

/// An answer to a fetch need not be smaller than this.
const LEAST_ANSWER: usize = 1 << 20;
/// A consumer without partitions has nothing more to say after this time.
const DRAINED_AFTER: Duration = Duration::from_millis(20);

/// A consumer with manual assignment that is read in batches.
pub struct Fetcher {
    // Declared before the consumer: dropped first, as librdkafka requires.
    queue: Queue,
    events: Events,
    consumer: kafka::Consumer,
    messages: Vec<*mut rdsys::rd_kafka_message_t>,
}

// SAFETY: the raw pointers belong to librdkafka objects, which may be used from any thread; a
// `Fetcher` is used by one thread at a time, since reading needs `&mut self`.
unsafe impl Send for Fetcher {}

struct Queue(*mut rdsys::rd_kafka_queue_t);

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: the queue was obtained from `rd_kafka_queue_get_consumer` and is destroyed once.
        unsafe { rdsys::rd_kafka_queue_destroy(self.0) }
    }
}

impl Drop for Fetcher {
    /// librdkafka 2.12 may wait for ever for a consumer that is destroyed while it has partitions, and
    /// records of them in its queue: it is given neither.
    fn drop(&mut self) {
        if self.consumer.unassign().is_ok() {
            while !self.next(DRAINED_AFTER).is_empty() {}
        }
    }
}

impl Fetcher {
    /// A consumer with `config` that returns up to `batch` messages at a time.
    ///
    /// # Errors
    /// When librdkafka refuses the configuration.
    pub fn new(config: &ClientConfig, batch: usize) -> KafkaResult<Self> {
        let consumer: kafka::Consumer = kafka::create(config)?;
        // SAFETY: the client is alive; the consumer queue lives until it is destroyed by `Queue`.
        let queue = unsafe { rdsys::rd_kafka_queue_get_consumer(consumer.client().native_ptr()) };
        if queue.is_null() {
            return Err(KafkaError::ClientCreation("no consumer queue".into()));
        }
        Ok(Self {
            queue: Queue(queue),
            events: Events::apart_from_records(consumer.client()),
            consumer,
            messages: vec![ptr::null_mut(); batch],
        })
    }

    /// The consumer: for everything but reading.
    #[must_use]
    pub fn consumer(&self) -> &kafka::Consumer {
        &self.consumer
    }

    /// Adds a partition, to be read from `offset`.
    ///
    /// # Errors
    /// What librdkafka says.
    pub fn assign(&self, topic: &str, partition: u32, offset: i64) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(
            topic,
            partition_number(partition)?,
            rdkafka::Offset::Offset(offset),
        )?;
        self.consumer.incremental_assign(&list)
    }

    /// Gives a partition up.
    ///
    /// # Errors
    /// What librdkafka says.
    pub fn unassign(&self, topic: &str, partition: u32) -> KafkaResult<()> {
        self.consumer.incremental_unassign(&one(topic, partition)?)
    }

    /// Stops (or starts again) fetching a partition.
    ///
    /// # Errors
    /// What librdkafka says.
    pub fn set_paused(&self, topic: &str, partition: u32, paused: bool) -> KafkaResult<()> {
        let list = one(topic, partition)?;
        if paused {
            self.consumer.pause(&list)
        } else {
            self.consumer.resume(&list)
        }
    }

    /// The end of a partition as of the last answer of its broker, open transactions included; `None`
    /// before the first. Asks nobody.
    #[must_use]
    pub fn last_known_end(&self, topic: &str, partition: u32) -> Option<i64> {
        let topic = CString::new(topic).ok()?;
        let partition = i32::try_from(partition).ok()?;
        let (mut low, mut high) = (-1, -1);
        // SAFETY: the client is alive, the topic ends with a zero, and the two numbers are ours.
        let answer = unsafe {
            rdsys::rd_kafka_get_watermark_offsets(
                self.consumer.client().native_ptr(),
                topic.as_ptr(),
                partition,
                &raw mut low,
                &raw mut high,
            )
        };
        let known = answer == rdsys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR && high >= 0;
        known.then_some(high)
    }

    /// The next messages, waiting up to `timeout` for a full batch.
    pub fn next(&mut self, timeout: Duration) -> Batch<'_> {
        self.next_few(timeout, self.messages.len())
    }

    /// As [`Self::next`], but no more than `most`, or the batch's size if that is less.
    pub fn next_few(&mut self, timeout: Duration, most: usize) -> Batch<'_> {
        self.events
            .serve(self.consumer.client(), Duration::ZERO, |_| {});
        let timeout = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: `messages` has room for as many pointers as its length says, and librdkafka
        // fills the first `count` of them with messages that we own.
        let count = unsafe {
            rdsys::rd_kafka_consume_batch_queue(
                self.queue.0,
                timeout,
                self.messages.as_mut_ptr(),
                self.messages.len().min(most),
            )
        };
        Batch {
            messages: &self.messages[..usize::try_from(count).unwrap_or(0)],
            marker: PhantomData,
        }
    }
}

/// Bounds the queue of a consumer, and what one answer adds to it, so far as the user has not.
pub fn bound_queue(config: &mut ClientConfig, bytes: usize) {
    let bounds = [
        ("queued.max.messages.kbytes", (bytes >> 10).max(1)),
        ("fetch.max.bytes", bytes.max(LEAST_ANSWER)),
        ("fetch.message.max.bytes", (bytes / 8).max(LEAST_ANSWER / 8)),
    ];
    for (key, bound) in bounds {
        if config.get(key).is_none() {
            config.set(key, bound.to_string());
        }
    }
}

fn partition_number(partition: u32) -> KafkaResult<i32> {
    i32::try_from(partition)
        .map_err(|_| KafkaError::Subscription(format!("partition {partition} is no partition")))
}

fn one(topic: &str, partition: u32) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, partition_number(partition)?);
    Ok(list)
}

/// Messages that live until the batch is dropped.
pub struct Batch<'f> {
    messages: &'f [*mut rdsys::rd_kafka_message_t],
    marker: PhantomData<&'f mut Fetcher>,
}

/// One message of a batch.
pub enum Fetched<'b> {
    /// A record of this partition.
    Record(u32, SourceRecord<'b>),
    /// The end of a partition was reached.
    End(End),
    /// The client has trouble; it goes on trying by itself.
    Trouble(RDKafkaErrorCode, String),
}

/// The end of a partition, for the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// The partition.
    pub partition: u32,
    /// The next offset to be read. With committed records only, everything before was handed over or
    /// is never going to be: the ends of transactions and what was aborted have offsets too.
    pub offset: i64,
}

impl Batch<'_> {
    /// How many messages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Is there nothing?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// The messages, in order within each partition.
    pub fn iter(&self) -> impl Iterator<Item = Fetched<'_>> {
        Messages(self.messages).iter()
    }

    /// The messages, `count` at a time.
    pub fn chunks(&self, count: usize) -> impl Iterator<Item = Messages<'_>> {
        self.messages.chunks(count).map(Messages)
    }
}

/// Some messages of a batch.
#[derive(Clone, Copy)]
pub struct Messages<'b>(&'b [*mut rdsys::rd_kafka_message_t]);

impl<'b> Messages<'b> {
    /// The messages, in order within each partition.
    pub fn iter(self) -> impl Iterator<Item = Fetched<'b>> {
        self.0.iter().map(|message| {
            // SAFETY: librdkafka filled this pointer, and nothing destroys the message before
            // the batch is dropped; key and payload live as long as the message.
            unsafe { fetched(&**message) }
        })
    }

    /// The keys of records that come one after another from the same partition, and that partition, again and again.
    pub fn for_each_run(self, mut on: impl FnMut(u32, &mut dyn Iterator<Item = &'b [u8]>)) {
        let keys: SmallVec<[_; LOOK_AHEAD]> = self.keys().collect();
        // Another processor has written them: the waits for that overlap.
        for (_, key) in &keys {
            black_box(key.first().copied());
        }
        for run in keys.chunk_by(|(a, _), (b, _)| a == b) {
            on(run[0].0, &mut run.iter().map(|(_, key)| *key));
        }
    }

    /// Partition and key of each record that has one.
    fn keys(self) -> impl Iterator<Item = (u32, &'b [u8])> {
        self.0.iter().filter_map(|message| {
            // SAFETY: as in `iter`. The message of an error or of an end has no key.
            let (partition, key) = unsafe {
                let message = &**message;
                (message.partition, bytes(message.key, message.key_len))
            };
            Some((u32::try_from(partition).ok()?, key?))
        })
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        for message in self.messages {
            // SAFETY: each message is owned by this batch and destroyed once.
            unsafe { rdsys::rd_kafka_message_destroy(*message) }
        }
    }
}

/// # Safety
/// The message's pointers must be valid for `'b`.
unsafe fn fetched<'b>(message: &'b rdsys::rd_kafka_message_t) -> Fetched<'b> {
    let partition = u32::try_from(message.partition).unwrap_or(0);
    match message.err {
        rdsys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => {}
        rdsys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__PARTITION_EOF => {
            let offset = message.offset;
            return Fetched::End(End { partition, offset });
        }
        error => {
            // SAFETY: for an error message, librdkafka returns a string that lives with it.
            let text = unsafe { CStr::from_ptr(rdsys::rd_kafka_message_errstr(message)) };
            return Fetched::Trouble(error.into(), text.to_string_lossy().into_owned());
        }
    }
    let mut kind = rdsys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
    // SAFETY: reads a field of a valid message.
    let timestamp = unsafe { rdsys::rd_kafka_message_timestamp(message, &raw mut kind) };
    let has_time = kind != rdsys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
    Fetched::Record(
        partition,
        SourceRecord {
            offset: message.offset,
            timestamp_ms: has_time.then_some(timestamp),
            // SAFETY: pointer and length describe the message's own key and payload.
            key: unsafe { bytes(message.key, message.key_len) },
            value: unsafe { bytes(message.payload, message.len) },
        },
    )
}

/// # Safety
/// `pointer` is null or points to `len` bytes valid for `'b`.
unsafe fn bytes<'b>(pointer: *mut std::ffi::c_void, len: usize) -> Option<&'b [u8]> {
    // SAFETY: as the caller promises.
    (!pointer.is_null()).then(|| unsafe { slice::from_raw_parts(pointer.cast(), len) })
}
