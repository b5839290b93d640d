//! Istio's TCP metadata exchange: after ALPN `istio-peer-exchange` each side first sends its node metadata.
//!
//! On the wire: magic and length, big-endian, then an `Any` of a `Struct` with the keys of the header exchange.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use meltemi_proto::Any;
use meltemi_proto::prost_types::{Struct, Value, value::Kind};

use crate::peer::{LIMIT, LocalNode, Peer};

pub const MAGIC: u32 = 0x3D23_0467;
/// What both sides must have agreed on.
pub const ALPN: &[u8] = b"istio-peer-exchange";

const STRUCT: &str = "type.googleapis.com/google.protobuf.Struct";
const METADATA: &str = "x-envoy-peer-metadata";
const ID: &str = "x-envoy-peer-metadata-id";

/// What the first bytes of a connection hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// Read more, then ask again with all of it.
    More,
    /// The first `length` bytes are the exchange; the rest is the application's.
    Done { peer: Option<Arc<Peer>>, length: usize },
    /// No exchange: everything is the application's.
    Absent,
    /// An exchange beyond the limit: the connection should be closed.
    TooLarge,
}

/// What this proxy sends first.
pub fn introduction(node: &LocalNode) -> Bytes {
    let text = |value: &str| Value { kind: Some(Kind::StringValue(value.to_owned())) };
    let metadata = Value { kind: Some(Kind::StructValue(node.peer.to_struct())) };
    let fields = BTreeMap::from([(METADATA.to_owned(), metadata), (ID.to_owned(), text(&node.id))]);
    let any = Any { type_url: STRUCT.to_owned(), value: meltemi_proto::encode(&Struct { fields }) };
    let message = meltemi_proto::encode(&any);
    let mut out = BytesMut::with_capacity(message.len() + 8);
    out.put_u32(MAGIC);
    out.put_u32(message.len() as u32);
    out.put_slice(&message);
    out.freeze()
}

/// Reads a peer's introduction from the start of `buffer`.
pub fn read(buffer: &[u8]) -> Exchange {
    let magic = MAGIC.to_be_bytes();
    let seen = buffer.len().min(magic.len());
    if buffer[..seen] != magic[..seen] {
        return Exchange::Absent;
    }
    let Some((header, rest)) = buffer.split_at_checked(8) else { return Exchange::More };
    let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
    if length > LIMIT {
        return Exchange::TooLarge;
    }
    match rest.get(..length) {
        None => Exchange::More,
        Some(message) => Exchange::Done { peer: parse(message).map(Arc::new), length: 8 + length },
    }
}

fn parse(message: &[u8]) -> Option<Peer> {
    let any = meltemi_proto::decode::<Any>(message).ok()?;
    if any.type_name() != "google.protobuf.Struct" {
        return None;
    }
    let mut data = meltemi_proto::decode_struct(&any.value).ok()?;
    match data.fields.remove(METADATA)?.kind {
        Some(Kind::StructValue(metadata)) => Some(Peer::from_struct(&metadata)),
        _ => None,
    }
}
