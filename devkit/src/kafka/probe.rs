//! Asks a broker a real question, as a client would: a port that is open is not yet a broker that answers.

use anyhow::{Context, Result, ensure};
use bytes::{Buf, BufMut, BytesMut};
use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, MetadataRequest, MetadataResponse, RequestHeader,
    ResponseHeader,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Versions that every broker since Kafka 2.4 and every later one still speaks.
const API_VERSIONS: i16 = 3;
const METADATA: i16 = 9;

/// An answer longer than this is not an answer.
const MAX_ANSWER: usize = 16 << 20;

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

/// One request and its answer.
async fn ask<Q: Request, A: Decodable + HeaderVersion>(
    stream: &mut TcpStream,
    version: i16,
    request: &Q,
) -> Result<A> {
    let header = RequestHeader::default()
        .with_request_api_key(Q::KEY)
        .with_request_api_version(version)
        .with_correlation_id(i32::from(Q::KEY))
        .with_client_id(Some(StrBytes::from_static_str("devkit")));
    let mut body = BytesMut::new();
    header.encode(&mut body, Q::header_version(version))?;
    request.encode(&mut body, version)?;
    let mut frame = BytesMut::with_capacity(body.len() + 4);
    frame.put_i32(i32::try_from(body.len())?);
    frame.put(body);
    stream.write_all(&frame).await?;

    let length =
        usize::try_from(stream.read_i32().await?).context("its answer has a negative length")?;
    ensure!(length <= MAX_ANSWER, "its answer is {length} bytes long");
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await?;
    let mut answer = answer.as_slice();
    let header = ResponseHeader::decode(&mut answer, A::header_version(version))?;
    ensure!(
        header.correlation_id == i32::from(Q::KEY),
        "it answered another request"
    );
    let decoded = A::decode(&mut answer, version)?;
    ensure!(
        !answer.has_remaining(),
        "its answer is longer than it should be"
    );
    Ok(decoded)
}
