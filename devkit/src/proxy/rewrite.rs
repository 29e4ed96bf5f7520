//! The answers that hold addresses of brokers: where they are, and how they are replaced.

use anyhow::{Context, Result};
use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, DescribeClusterResponse, FetchResponse, FindCoordinatorResponse,
    MetadataResponse, ProduceResponse, ResponseHeader, ShareAcknowledgeResponse,
    ShareFetchResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};

/// Gives the address to tell clients instead of a broker's.
pub(super) type Replace<'a> = &'a dyn Fn(&str, i32) -> Result<(String, i32)>;

/// Error 35, UNSUPPORTED_VERSION: the body is of version 0 then, whatever was asked.
const UNSUPPORTED_VERSION: [u8; 2] = [0, 35];

/// The answers that are looked into, with the newest version that can be read.
const REWRITTEN: [ApiKey; 7] = [
    ApiKey::Metadata,
    ApiKey::FindCoordinator,
    ApiKey::DescribeCluster,
    ApiKey::Produce,
    ApiKey::Fetch,
    ApiKey::ShareFetch,
    ApiKey::ShareAcknowledge,
];

/// The changed answer, or none if it passes as it is. `frame` begins with the response header.
pub(super) fn rewrite(
    key: i16,
    version: i16,
    frame: &Bytes,
    replace: Replace<'_>,
) -> Result<Option<Bytes>> {
    let Ok(key) = ApiKey::try_from(key) else {
        return Ok(None);
    };
    match key {
        ApiKey::ApiVersions => {
            let version = if frame.get(4..6) == Some(&UNSUPPORTED_VERSION[..]) {
                0
            } else {
                version
            };
            // A version of ApiVersions that cannot be read asks for nothing that can be capped.
            if version > key.valid_versions().max {
                return Ok(None);
            }
            change::<ApiVersionsResponse>(version, frame, cap)
        }
        ApiKey::Metadata => change(version, frame, |answer: &mut MetadataResponse| {
            answer
                .brokers
                .iter_mut()
                .try_for_each(|broker| put(&mut broker.host, &mut broker.port, replace))?;
            Ok(true)
        }),
        ApiKey::FindCoordinator => {
            change(version, frame, |answer: &mut FindCoordinatorResponse| {
                put(&mut answer.host, &mut answer.port, replace)?;
                answer
                    .coordinators
                    .iter_mut()
                    .try_for_each(|found| put(&mut found.host, &mut found.port, replace))?;
                Ok(true)
            })
        }
        ApiKey::DescribeCluster => {
            change(version, frame, |answer: &mut DescribeClusterResponse| {
                answer
                    .brokers
                    .iter_mut()
                    .try_for_each(|broker| put(&mut broker.host, &mut broker.port, replace))?;
                Ok(true)
            })
        }
        // These name the new leader's address when the request went to a former leader.
        ApiKey::Produce if version >= 10 => {
            change(version, frame, |answer: &mut ProduceResponse| {
                answer
                    .node_endpoints
                    .iter_mut()
                    .try_for_each(|node| put(&mut node.host, &mut node.port, replace))?;
                Ok(!answer.node_endpoints.is_empty())
            })
        }
        ApiKey::Fetch if version >= 16 => change(version, frame, |answer: &mut FetchResponse| {
            answer
                .node_endpoints
                .iter_mut()
                .try_for_each(|node| put(&mut node.host, &mut node.port, replace))?;
            Ok(!answer.node_endpoints.is_empty())
        }),
        ApiKey::ShareFetch => change(version, frame, |answer: &mut ShareFetchResponse| {
            answer
                .node_endpoints
                .iter_mut()
                .try_for_each(|node| put(&mut node.host, &mut node.port, replace))?;
            Ok(!answer.node_endpoints.is_empty())
        }),
        ApiKey::ShareAcknowledge => {
            change(version, frame, |answer: &mut ShareAcknowledgeResponse| {
                answer
                    .node_endpoints
                    .iter_mut()
                    .try_for_each(|node| put(&mut node.host, &mut node.port, replace))?;
                Ok(!answer.node_endpoints.is_empty())
            })
        }
        _ => Ok(None),
    }
}

/// Decodes an answer, lets `edit` change it, and encodes it again if it says that it did.
fn change<A: Decodable + Encodable + HeaderVersion>(
    version: i16,
    frame: &Bytes,
    edit: impl FnOnce(&mut A) -> Result<bool>,
) -> Result<Option<Bytes>> {
    let mut rest = frame.clone();
    let header =
        ResponseHeader::decode(&mut rest, A::header_version(version)).context("its header")?;
    let mut answer = A::decode(&mut rest, version)?;
    if !edit(&mut answer)? {
        return Ok(None);
    }
    let mut changed = BytesMut::with_capacity(frame.len() + 64);
    header.encode(&mut changed, A::header_version(version))?;
    answer.encode(&mut changed, version)?;
    Ok(Some(changed.freeze()))
}

/// Replaces one address. A node that is not there has an empty host or port -1, and keeps it.
fn put(host: &mut StrBytes, port: &mut i32, replace: Replace<'_>) -> Result<()> {
    if !host.is_empty() && *port > 0 {
        let (new_host, new_port) = replace(host, *port)?;
        *host = StrBytes::from_string(new_host);
        *port = new_port;
    }
    Ok(())
}

/// Lowers the newest versions that a broker offers to those that this module can read.
fn cap(answer: &mut ApiVersionsResponse) -> Result<bool> {
    let mut capped = false;
    for offered in &mut answer.api_keys {
        let Some(key) = REWRITTEN.iter().find(|key| **key as i16 == offered.api_key) else {
            continue;
        };
        let readable = key.valid_versions().max;
        if offered.max_version > readable {
            offered.max_version = readable;
            capped = true;
        }
    }
    Ok(capped)
}

#[cfg(test)]
mod tests;
