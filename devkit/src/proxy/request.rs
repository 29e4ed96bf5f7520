//! What can be told of a request without decoding it.

use kafka_protocol::messages::ApiKey;

/// The transactional id that the body of a request begins with. `frame` begins with the request header. None for a
/// request of another form, or a producer without an id.
pub(super) fn transactional_id(frame: &[u8]) -> Option<&str> {
    let (key, rest) = frame.split_first_chunk::<2>()?;
    let (version, rest) = rest.split_first_chunk::<2>()?;
    let (_correlation_id, rest) = rest.split_first_chunk::<4>()?;
    let key = ApiKey::try_from(i16::from_be_bytes(*key)).ok()?;
    let header = key.request_header_version(i16::from_be_bytes(*version));
    let (_client_id, rest) = string(rest)?;
    // From header version 2 on, tagged fields end the header, and strings are compact.
    let id = match header {
        0 | 1 => string(rest)?.0,
        _ => compact_string(rest.strip_prefix(&[0])?)?,
    };
    std::str::from_utf8(id).ok()
}

/// A string with its length before it, and what comes behind; an absent one is empty.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    let length = usize::try_from(i16::from_be_bytes(*length)).unwrap_or(0);
    rest.split_at_checked(length)
}

/// A string with its length plus one before it, in one byte: ids are short.
fn compact_string(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.split_first()?;
    let length = usize::from(*length).checked_sub(1)?;
    rest.get(..length).filter(|_| length < 127)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;
    use kafka_protocol::messages::{
        AddOffsetsToTxnRequest, EndTxnRequest, InitProducerIdRequest, MetadataRequest,
        ProduceRequest, RequestHeader, TransactionalId,
    };
    use kafka_protocol::protocol::{Encodable, StrBytes};

    use super::*;

    fn frame(key: ApiKey, version: i16, body: &impl Encodable) -> BytesMut {
        let header = RequestHeader::default()
            .with_request_api_key(key as i16)
            .with_request_api_version(version)
            .with_client_id(Some(StrBytes::from_static_str("waf")));
        let mut frame = BytesMut::new();
        let head = header.encode(&mut frame, key.request_header_version(version));
        head.and_then(|()| body.encode(&mut frame, version))
            .expect("it encodes");
        frame
    }

    #[test]
    fn finds_the_transactional_id_in_old_and_new_forms() {
        let id = || TransactionalId(StrBytes::from_static_str("app-a-0"));
        let produce = ProduceRequest::default().with_transactional_id(Some(id()));
        let end = EndTxnRequest::default().with_transactional_id(id());
        let init = InitProducerIdRequest::default().with_transactional_id(Some(id()));
        let offsets = AddOffsetsToTxnRequest::default().with_transactional_id(id());
        for frame in [
            frame(ApiKey::Produce, 8, &produce),
            frame(ApiKey::Produce, 10, &produce),
            frame(ApiKey::EndTxn, 1, &end),
            frame(ApiKey::EndTxn, 3, &end),
            frame(ApiKey::InitProducerId, 4, &init),
            frame(ApiKey::AddOffsetsToTxn, 0, &offsets),
        ] {
            assert_eq!(transactional_id(&frame), Some("app-a-0"), "{frame:?}");
        }
        let without = ProduceRequest::default();
        let metadata = MetadataRequest::default();
        for frame in [
            frame(ApiKey::Produce, 8, &without),
            frame(ApiKey::Produce, 10, &without),
            frame(ApiKey::Metadata, 12, &metadata),
        ] {
            assert_ne!(transactional_id(&frame), Some("app-a-0"), "{frame:?}");
        }
        assert_eq!(transactional_id(b"no request"), None);
    }
}
