//! Asks a broker a real question, as a client would: a port that is open is not yet a broker that answers.

use anyhow::{Result, ensure};
use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, MetadataRequest, MetadataResponse,
};
use kafka_protocol::protocol::StrBytes;
use tokio::net::TcpStream;

use super::ask::ask;

/// Versions that every broker since Kafka 2.4 and every later one still speaks.
const API_VERSIONS: i16 = 3;
const METADATA: i16 = 9;

/// Checks that the broker at `address` answers, knows the whole cluster (`brokers` at least), and is itself a
/// member of it.
pub(super) async fn ready(address: &str, brokers: usize) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let versions: ApiVersionsResponse = ask(&mut stream, API_VERSIONS, &client_software()).await?;
    ensure!(
        versions.error_code == 0,
        "it answered ApiVersions with error {}",
        versions.error_code
    );
    let metadata: MetadataResponse = ask(
        &mut stream,
        METADATA,
        &MetadataRequest::default().with_topics(Some(vec![])),
    )
    .await?;
    ensure!(
        metadata.brokers.len() >= brokers,
        "it knows {} of {brokers} brokers",
        metadata.brokers.len()
    );
    let member = metadata
        .brokers
        .iter()
        .any(|broker| format!("{}:{}", broker.host.as_str(), broker.port) == address);
    ensure!(member, "it is not yet a member of the cluster");
    Ok(())
}

fn client_software() -> ApiVersionsRequest {
    ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("devkit"))
        .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")))
}
