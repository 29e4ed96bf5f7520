//! A transaction that nobody ends: the coordinator knows nothing of it, so neither a time-out nor the next producer with
//! its id does. Brokers have been seen to leave such a thing behind by themselves.

use anyhow::{Result, ensure};
use bytes::{Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, ProduceResponse, TopicName,
    TransactionalId,
};
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records::{
    Compression, NO_PARTITION_LEADER_EPOCH, Record, RecordBatchEncoder, RecordEncodeOptions,
    TimestampType,
};
use tokio::net::TcpStream;

use super::{Kafka, ask::ask};

/// The last versions that do not ask the coordinator, and that name topics.
const INIT_PRODUCER_ID: i16 = 4;
const PRODUCE: i16 = 9;

impl Kafka {
    /// Writes a record as the producer with this transactional id, in a transaction that the coordinator knows nothing of,
    /// and leaves it open. Fences whoever has the id. Needs a single broker, with
    /// `transaction.partition.verification.enable=false`.
    ///
    /// # Errors
    /// The broker refuses it.
    pub async fn leave_open(
        &self,
        transactional_id: &str,
        topic: &str,
        partition: i32,
        key: &[u8],
    ) -> Result<()> {
        let mut stream = TcpStream::connect(self.bootstrap()).await?;
        let id = TransactionalId(StrBytes::from_string(transactional_id.to_owned()));
        let initialise = InitProducerIdRequest::default()
            .with_transactional_id(Some(id.clone()))
            .with_transaction_timeout_ms(60_000);
        let producer: InitProducerIdResponse =
            ask(&mut stream, INIT_PRODUCER_ID, &initialise).await?;
        let code = producer.error_code;
        ensure!(code == 0, "InitProducerId was answered with error {code}");

        let record = Record {
            transactional: true,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: NO_PARTITION_LEADER_EPOCH,
            producer_id: producer.producer_id.0,
            producer_epoch: producer.producer_epoch,
            timestamp_type: TimestampType::Creation,
            offset: 0,
            sequence: 0,
            timestamp: 0,
            key: Some(Bytes::copy_from_slice(key)),
            value: None,
            headers: IndexMap::new(),
        };
        let how = RecordEncodeOptions {
            version: 2,
            compression: Compression::None,
        };
        let mut batch = BytesMut::new();
        RecordBatchEncoder::encode(&mut batch, [&record], &how)?;
        let data = PartitionProduceData::default()
            .with_index(partition)
            .with_records(Some(batch.freeze()));
        let topic = TopicProduceData::default()
            .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
            .with_partition_data(vec![data]);
        let produce = ProduceRequest::default()
            .with_transactional_id(Some(id))
            .with_acks(-1)
            .with_timeout_ms(10_000)
            .with_topic_data(vec![topic]);
        let answer: ProduceResponse = ask(&mut stream, PRODUCE, &produce).await?;
        let partitions = answer.responses.iter().flat_map(|t| &t.partition_responses);
        let codes: Vec<i16> = partitions.map(|p| p.error_code).collect();
        ensure!(codes == [0], "Produce was answered with errors {codes:?}");
        Ok(())
    }
}
