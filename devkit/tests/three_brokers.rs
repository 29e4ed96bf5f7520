//! Three brokers: through the proxy, and with one of them missing.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::time::Instant;

use common::{PATIENCE, consume, create_topic, producer, send, told_ports, transactional};
use devkit::{Kafka, KafkaOptions, KafkaProxy};
use rdkafka::producer::Producer;

// One test, because every step needs the state that the one before left.
#[tokio::test(flavor = "multi_thread")]
async fn three_brokers_survive_the_loss_of_one() {
    let started = Instant::now();
    let kafka = Kafka::start(KafkaOptions {
        brokers: 3,
        ..KafkaOptions::default()
    })
    .await
    .unwrap();
    eprintln!("three brokers were ready after {:?}", started.elapsed());
    let proxy = KafkaProxy::start(kafka.address(0)).await.unwrap();

    // One broker was named; the other two are found, at the proxy.
    let mut told = told_ports(proxy.bootstrap());
    let mut expected: Vec<_> = (0..3)
        .map(|index| i32::from(proxy.address_for(kafka.address(index)).unwrap().port()))
        .collect();
    told.sort_unstable();
    expected.sort_unstable();
    assert_eq!(told, expected);

    create_topic(proxy.bootstrap(), "topic", 3).await;
    let transactional = transactional(proxy.bootstrap(), "three");
    let commit = |value: &str| {
        transactional.begin_transaction().unwrap();
        (0..3).for_each(|partition| send(&transactional, "topic", partition, value));
        transactional.commit_transaction(PATIENCE).unwrap();
    };
    commit("1: all three");
    assert_eq!(consume(proxy.bootstrap(), "topic", 3, 3).len(), 3);

    let pid = kafka.pid(2).await.unwrap();
    kafka.kill_broker(2).await.unwrap();
    assert_eq!(kafka.pid(2).await, None);
    commit("2: one killed");
    let killed = Instant::now();
    kafka.start_broker(2).await.unwrap();
    eprintln!("a killed broker was back after {:?}", killed.elapsed());
    assert_ne!(kafka.pid(2).await, Some(pid));

    kafka.stop_broker(0).await.unwrap();
    commit("3: another stopped");
    kafka.start_broker(0).await.unwrap();
    commit("4: all back");

    let values = consume(kafka.bootstrap(), "topic", 3, 12);
    assert_eq!(values.len(), 12);
    assert_eq!(values[11], "4: all back");

    kafka.pause_broker(1).await.unwrap();
    kafka.resume_broker(1).await.unwrap();
    producer(kafka.address(1))
        .client()
        .fetch_metadata(None, PATIENCE)
        .unwrap();

    let folder = kafka.folder().to_owned();
    kafka.stop().await.unwrap();
    assert!(!folder.exists());
}
