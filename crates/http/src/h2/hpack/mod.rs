//! HPACK (RFC 7541).
//!
//! Decoding goes straight to what heads are made of: an indexed field costs two reference counts, a literal value one copy into
//! storage shared by the whole connection. Encoding indexes what it has seen before, so that the values that differ from request
//! to request (ids, times) neither fill the table nor cost a Huffman pass. Nothing here knows of streams or frames.

pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod huffman;
mod tables;

pub(super) use decode::is_authority;
pub(super) use decode::{DecodeError, Decoder};
pub(super) use encode::Encoder;
pub(super) use tables::static_name;

use http::{HeaderName, HeaderValue, Method, StatusCode};

use crate::{ByteStr, Scheme};

/// RFC 7541 4.1: what an entry costs beyond its bytes.
pub(crate) const OVERHEAD: usize = 32;

/// A decoded field, ready for a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    Header(HeaderName, HeaderValue),
    Method(Method),
    Scheme(Scheme),
    Authority(ByteStr),
    Path(ByteStr),
    Protocol(ByteStr),
    Status(StatusCode),
    /// Decodes, but no message may hold it: the message is malformed (RFC 9113 8.1.1).
    Invalid,
}

#[cfg(test)]
mod tests;
