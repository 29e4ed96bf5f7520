//! One Kafka broker, and the proxy before it, as librdkafka sees them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::time::{Duration, Instant};

use common::{
    PATIENCE, config, consume, create_topic, eventually, producer, send, told_ports, transactional,
};
use devkit::proxy::{ApiKey, Direction};
use devkit::{Kafka, KafkaOptions, KafkaProxy};
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::Producer;
use tokio::sync::OnceCell;

static KAFKA: OnceCell<Kafka> = OnceCell::const_new();

async fn kafka() -> &'static Kafka {
    let start = || async {
        let properties = vec![("message.max.bytes".to_owned(), "54321".to_owned())];
        let started = Instant::now();
        let kafka = Kafka::start(KafkaOptions {
            properties,
            ..KafkaOptions::default()
        })
        .await
        .unwrap();
        eprintln!("one broker was ready after {:?}", started.elapsed());
        kafka
    };
    KAFKA.get_or_init(start).await
}

async fn proxied() -> (&'static Kafka, KafkaProxy) {
    let kafka = kafka().await;
    (kafka, KafkaProxy::start(kafka.bootstrap()).await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_of_the_caller_win() {
    let admin: AdminClient<DefaultClientContext> =
        config(kafka().await.bootstrap()).create().unwrap();
    let asked = admin.describe_configs(&[ResourceSpecifier::Broker(1)], &AdminOptions::new());
    let answer = asked.await.unwrap().remove(0).unwrap();
    let value = |name: &str| answer.get(name).unwrap().value.clone().unwrap();
    assert_eq!(value("message.max.bytes"), "54321");
    assert_eq!(value("auto.create.topics.enable"), "false");
}

#[tokio::test(flavor = "multi_thread")]
async fn command_line_tools_run() {
    let kafka = kafka().await;
    create_topic(kafka.bootstrap(), "tools", 1).await;
    let mut tool = kafka.tool("org.apache.kafka.tools.TopicCommand");
    let output = tool
        .args(["--bootstrap-server", kafka.bootstrap(), "--list"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.lines().any(|line| line == "tools"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_goes_through_the_proxy() {
    let (kafka, proxy) = proxied().await;
    let local = proxy.address_for(kafka.bootstrap()).unwrap();
    assert_eq!(told_ports(proxy.bootstrap()), [i32::from(local.port())]);

    create_topic(proxy.bootstrap(), "through", 2).await;
    let plain = producer(proxy.bootstrap());
    send(&plain, "through", 0, "a");
    plain.flush(PATIENCE).unwrap();
    let producer = transactional(proxy.bootstrap(), "through");
    producer.begin_transaction().unwrap();
    send(&producer, "through", 1, "b");
    producer.commit_transaction(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    send(&producer, "through", 1, "never");
    producer.flush(PATIENCE).unwrap();
    producer.abort_transaction(PATIENCE).unwrap();
    producer.begin_transaction().unwrap();
    send(&producer, "through", 0, "c");
    producer.commit_transaction(PATIENCE).unwrap();

    assert_eq!(consume(proxy.bootstrap(), "through", 2, 3), ["a", "b", "c"]);
    for key in [
        ApiKey::Produce,
        ApiKey::Fetch,
        ApiKey::FindCoordinator,
        ApiKey::EndTxn,
        ApiKey::Metadata,
    ] {
        assert!(
            proxy.requests(key) > 0,
            "{key:?} in {:?}",
            proxy.all_requests()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_refuses_and_comes_back() {
    let (_, proxy) = proxied().await;
    create_topic(proxy.bootstrap(), "cut", 1).await;
    let producer = producer(proxy.bootstrap());
    send(&producer, "cut", 0, "before");
    producer.flush(PATIENCE).unwrap();

    proxy.cut().await;
    assert_eq!(proxy.connections(), 0);
    let refused = std::net::TcpStream::connect(proxy.bootstrap()).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    send(&producer, "cut", 0, "meanwhile");
    assert!(producer.flush(Duration::from_millis(300)).is_err());

    proxy.restore().await;
    producer.flush(PATIENCE).unwrap();
    assert_eq!(
        consume(proxy.bootstrap(), "cut", 1, 2),
        ["before", "meanwhile"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_connection_stays_open_and_goes_on() {
    let (_, proxy) = proxied().await;
    create_topic(proxy.bootstrap(), "frozen", 1).await;
    let producer = producer(proxy.bootstrap());
    send(&producer, "frozen", 0, "before");
    producer.flush(PATIENCE).unwrap();
    let connections = proxy.connections();

    proxy.freeze();
    send(&producer, "frozen", 0, "meanwhile");
    assert!(producer.flush(Duration::from_millis(300)).is_err());
    assert!(proxy.connections() >= connections);

    proxy.thaw();
    producer.flush(PATIENCE).unwrap();
    assert_eq!(
        consume(proxy.bootstrap(), "frozen", 1, 2),
        ["before", "meanwhile"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn delays_add_up_for_a_round_trip() {
    let (_, proxy) = proxied().await;
    let producer = producer(proxy.bootstrap());
    producer.client().fetch_metadata(None, PATIENCE).unwrap();
    proxy.delay(Direction::ToBroker, Duration::from_millis(150));
    proxy.delay(Direction::ToClient, Duration::from_millis(150));
    let started = Instant::now();
    producer.client().fetch_metadata(None, PATIENCE).unwrap();
    assert!(
        started.elapsed() >= Duration::from_millis(300),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_to_produce_is_retried_without_a_duplicate() {
    let (_, proxy) = proxied().await;
    create_topic(proxy.bootstrap(), "lost", 1).await;
    let producer = producer(proxy.bootstrap());
    send(&producer, "lost", 0, "first");
    producer.flush(PATIENCE).unwrap();

    let before = proxy.requests(ApiKey::Produce);
    proxy.drop_answer(ApiKey::Produce, 1);
    send(&producer, "lost", 0, "second");
    producer.flush(PATIENCE).unwrap();
    send(&producer, "lost", 0, "third");
    producer.flush(PATIENCE).unwrap();
    assert_eq!(proxy.dropped(), 1);
    assert_eq!(
        proxy.requests(ApiKey::Produce) - before,
        3,
        "the second was sent twice"
    );
    assert_eq!(
        consume(proxy.bootstrap(), "lost", 1, 3),
        ["first", "second", "third"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_to_a_commit_does_not_lose_the_commit() {
    let (_, proxy) = proxied().await;
    create_topic(proxy.bootstrap(), "commit", 1).await;
    let producer = transactional(proxy.bootstrap(), "commit");
    producer.begin_transaction().unwrap();
    send(&producer, "commit", 0, "a");
    producer.flush(PATIENCE).unwrap();
    proxy.drop_answer(ApiKey::EndTxn, 1);
    producer.commit_transaction(PATIENCE).unwrap();
    assert_eq!(proxy.dropped(), 1);
    assert_eq!(consume(proxy.bootstrap(), "commit", 1, 1), ["a"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_proxy_closes_its_connections() {
    let (kafka, proxy) = proxied().await;
    let bootstrap = proxy.bootstrap().to_owned();
    let _client = std::net::TcpStream::connect(&bootstrap).unwrap();
    eventually("the proxy accepts", || proxy.connections() == 1).await;
    drop(proxy);
    eventually("nobody listens", || {
        std::net::TcpStream::connect(&bootstrap).is_err()
    })
    .await;
    assert!(std::net::TcpStream::connect(kafka.bootstrap()).is_ok());
}
