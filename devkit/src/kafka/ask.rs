//! One question to a broker, in Kafka's own protocol: for what no client library asks.

use anyhow::{Context, Result, ensure};
use bytes::{Buf, BufMut, BytesMut};
use kafka_protocol::messages::{RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer longer than this is not an answer.
const MAX_ANSWER: usize = 16 << 20;

/// One request and its answer.
pub(super) async fn ask<Q: Request, A: Decodable + HeaderVersion>(
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
