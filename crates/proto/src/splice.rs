//! Discovery responses written in pieces, so that the bodies of resources are neither copied into a message nor encoded for each
//! client: a response is its head, encoded as a message without resources, followed by its resources as one field after another.

use bytes::BufMut;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};

use crate::Any;

/// `resources` of `DiscoveryResponse` and of `DeltaDiscoveryResponse`.
const RESOURCES: u32 = 2;
/// Fields of `Resource` and of `Any`.
const VERSION: u32 = 1;
const RESOURCE: u32 = 2;
const NAME: u32 = 3;
const TYPE_URL: u32 = 1;
const VALUE: u32 = 2;

/// Of a field with a number below 16 and content of this many bytes.
fn field_len(content: usize) -> usize {
    1 + encoded_len_varint(content as u64) + content
}

fn any_len(body: &Any) -> usize {
    field_len(body.type_url.len()) + field_len(body.value.len())
}

fn named_len(name: &str, version: &str, body: &Any) -> usize {
    field_len(version.len()) + field_len(name.len()) + field_len(any_len(body))
}

fn put_head(buffer: &mut impl BufMut, field: u32, content: usize) {
    encode_key(field, WireType::LengthDelimited, buffer);
    encode_varint(content as u64, buffer);
}

fn put_text(buffer: &mut impl BufMut, field: u32, text: &str) {
    put_head(buffer, field, text.len());
    buffer.put_slice(text.as_bytes());
}

fn put_any(buffer: &mut impl BufMut, body: &Any) {
    put_text(buffer, TYPE_URL, &body.type_url);
    put_head(buffer, VALUE, body.value.len());
}

/// Bytes that a resource takes in a state-of-the-world response, its value among them.
pub fn bare_len(body: &Any) -> usize {
    field_len(any_len(body))
}

/// Bytes that a resource takes in an incremental response, its value among them.
pub fn resource_len(name: &str, version: &str, body: &Any) -> usize {
    field_len(named_len(name, version, body))
}

/// What stands before the value of a resource in a state-of-the-world response.
pub fn put_bare(buffer: &mut impl BufMut, body: &Any) {
    put_head(buffer, RESOURCES, any_len(body));
    put_any(buffer, body);
}

/// What stands before the value of a resource in an incremental response.
pub fn put_resource(buffer: &mut impl BufMut, name: &str, version: &str, body: &Any) {
    put_head(buffer, RESOURCES, named_len(name, version, body));
    put_text(buffer, VERSION, version);
    put_text(buffer, NAME, name);
    put_head(buffer, RESOURCE, any_len(body));
    put_any(buffer, body);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse, Resource};

    #[test]
    fn spliced_responses_are_the_messages() {
        for size in [0, 1, 127, 128, 70_000] {
            let body = Any { type_url: "type.googleapis.com/x.Y".to_owned(), value: vec![7; size].into() };
            let head = DeltaDiscoveryResponse { nonce: "1".to_owned(), ..Default::default() };
            let mut bytes = crate::encode(&head).to_vec();
            let before = bytes.len();
            for name in ["a", "b"] {
                put_resource(&mut bytes, name, "version", &body);
                bytes.extend_from_slice(&body.value);
            }
            assert_eq!(bytes.len() - before, 2 * resource_len("a", "version", &body));
            let named = |name: &str| Resource {
                name: name.to_owned(),
                version: "version".to_owned(),
                resource: Some(body.clone()),
                ..Default::default()
            };
            let expected = DeltaDiscoveryResponse { resources: vec![named("a"), named("b")], ..head };
            assert_eq!(crate::decode::<DeltaDiscoveryResponse>(&bytes).unwrap(), expected);

            let mut bytes = Vec::new();
            put_bare(&mut bytes, &body);
            bytes.extend_from_slice(&body.value);
            assert_eq!(bytes.len(), bare_len(&body));
            let expected = DiscoveryResponse { resources: vec![body.clone()], ..Default::default() };
            assert_eq!(crate::decode::<DiscoveryResponse>(&bytes).unwrap(), expected);
        }
    }
}
