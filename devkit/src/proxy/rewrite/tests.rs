use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::fetch_response::{
    FetchableTopicResponse, NodeEndpoint, PartitionData,
};
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::metadata_response::MetadataResponseBroker;
use kafka_protocol::messages::{BrokerId, TopicName};

use super::*;

/// What clients are told: another host, and the port plus 10000.
fn elsewhere(_: &str, port: i32) -> Result<(String, i32)> {
    Ok(("proxy.local".to_owned(), port + 10_000))
}

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn frame<A: Encodable + HeaderVersion>(version: i16, answer: &A) -> Bytes {
    let mut frame = BytesMut::new();
    ResponseHeader::default()
        .with_correlation_id(7)
        .encode(&mut frame, A::header_version(version))
        .unwrap();
    answer.encode(&mut frame, version).unwrap();
    frame.freeze()
}

fn read<A: Decodable + HeaderVersion>(version: i16, frame: &Bytes) -> A {
    let mut rest = frame.clone();
    assert_eq!(
        ResponseHeader::decode(&mut rest, A::header_version(version))
            .unwrap()
            .correlation_id,
        7
    );
    let answer = A::decode(&mut rest, version).unwrap();
    assert!(rest.is_empty());
    answer
}

#[test]
fn metadata_of_every_version_names_the_proxy() {
    for version in 0..=ApiKey::Metadata.valid_versions().max {
        let broker = MetadataResponseBroker::default()
            .with_node_id(BrokerId(1))
            .with_host(text("b1"))
            .with_port(9092);
        let original = frame(
            version,
            &MetadataResponse::default().with_brokers(vec![broker]),
        );
        let changed = rewrite(3, version, &original, &elsewhere).unwrap().unwrap();
        let broker = &read::<MetadataResponse>(version, &changed).brokers[0];
        assert_eq!(
            (broker.host.as_str(), broker.port),
            ("proxy.local", 19_092),
            "version {version}"
        );
    }
}

#[test]
fn coordinators_are_found_at_the_proxy_and_missing_ones_stay_missing() {
    let found = Coordinator::default().with_host(text("b1")).with_port(9092);
    let missing = Coordinator::default().with_port(-1).with_error_code(15);
    let original = frame(
        4,
        &FindCoordinatorResponse::default().with_coordinators(vec![found, missing]),
    );
    let changed = rewrite(10, 4, &original, &elsewhere).unwrap().unwrap();
    let answer: FindCoordinatorResponse = read(4, &changed);
    let hosts: Vec<_> = answer
        .coordinators
        .iter()
        .map(|found| (found.host.as_str(), found.port))
        .collect();
    assert_eq!(hosts, [("proxy.local", 19_092), ("", -1)]);

    let original = frame(
        2,
        &FindCoordinatorResponse::default()
            .with_host(text("b1"))
            .with_port(9092),
    );
    let changed = rewrite(10, 2, &original, &elsewhere).unwrap().unwrap();
    assert_eq!(read::<FindCoordinatorResponse>(2, &changed).port, 19_092);
}

#[test]
fn fetched_records_pass_untouched_and_new_leaders_are_at_the_proxy() {
    let data = PartitionData::default().with_records(Some(Bytes::from_static(b"records")));
    let topic = FetchableTopicResponse::default()
        .with_topic(TopicName(text("t")))
        .with_partitions(vec![data]);
    let answer = FetchResponse::default().with_responses(vec![topic]);
    assert_eq!(
        rewrite(1, 17, &frame(17, &answer), &elsewhere).unwrap(),
        None
    );

    let node = NodeEndpoint::default()
        .with_host(text("b2"))
        .with_port(9092);
    let original = frame(17, &answer.with_node_endpoints(vec![node]));
    let changed = rewrite(1, 17, &original, &elsewhere).unwrap().unwrap();
    let answer: FetchResponse = read(17, &changed);
    assert_eq!(answer.node_endpoints[0].port, 19_092);
    assert_eq!(
        answer.responses[0].partitions[0].records.as_deref(),
        Some(&b"records"[..])
    );
}

#[test]
fn versions_that_cannot_be_read_are_not_offered() {
    let offer = |key: ApiKey, max| {
        ApiVersion::default()
            .with_api_key(key as i16)
            .with_max_version(max)
    };
    let readable = ApiKey::Metadata.valid_versions().max;
    let modest = ApiVersionsResponse::default().with_api_keys(vec![offer(ApiKey::Metadata, 9)]);
    assert_eq!(
        rewrite(18, 3, &frame(3, &modest), &elsewhere).unwrap(),
        None
    );

    let bold = vec![offer(ApiKey::Metadata, 99), offer(ApiKey::JoinGroup, 99)];
    let bold = frame(3, &ApiVersionsResponse::default().with_api_keys(bold));
    let changed = rewrite(18, 3, &bold, &elsewhere).unwrap().unwrap();
    let offered: Vec<_> = read::<ApiVersionsResponse>(3, &changed)
        .api_keys
        .iter()
        .map(|api| api.max_version)
        .collect();
    assert_eq!(offered, [readable, 99]);
}

#[test]
fn an_old_broker_that_answers_in_version_0_is_understood() {
    let refusal = frame(0, &ApiVersionsResponse::default().with_error_code(35));
    assert_eq!(rewrite(18, 4, &refusal, &elsewhere).unwrap(), None);
}

#[test]
fn what_is_not_known_passes() {
    assert_eq!(
        rewrite(
            11,
            5,
            &Bytes::from_static(b"\0\0\0\x07anything"),
            &elsewhere
        )
        .unwrap(),
        None
    );
    assert_eq!(
        rewrite(
            9999,
            0,
            &Bytes::from_static(b"\0\0\0\x07anything"),
            &elsewhere
        )
        .unwrap(),
        None
    );
}

#[test]
fn garbage_is_an_error_and_no_panic() {
    assert!(rewrite(3, 9, &Bytes::from_static(b"\0\0\0\x07\0\0"), &elsewhere).is_err());
}
