//! Unary gRPC over a [`Caller`]: one message each way.

use std::sync::Arc;
use std::time::Duration;

use ::http::header;
use bytes::{BufMut as _, Bytes, BytesMut};
use meltemi_http::{ByteStr, HeaderName, HeaderValue, Headers, Method, Protocol, RequestHead, StatusCode, name};
use meltemi_plan::ext_authz::GrpcTarget;

use super::{Answer, Call, CallError, Caller};

/// Bytes of an answering message.
const LIMIT: usize = 4 * 1024 * 1024;

/// A procedure to call.
#[derive(Clone, Copy, Debug)]
pub struct Rpc<'a> {
    pub cluster: &'a Arc<str>,
    /// The cluster's name where it is empty.
    pub authority: &'a str,
    /// `/package.Service/Method`.
    pub path: &'static str,
    pub metadata: &'a [(HeaderName, HeaderValue)],
    pub timeout: Duration,
}

/// Why there is no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RpcError {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("status {0}")]
    Http(u16),
    #[error("grpc-status {0}")]
    Status(u32),
    #[error("malformed answer")]
    Malformed,
}

impl<'a> Rpc<'a> {
    pub(crate) fn of(target: &'a GrpcTarget, path: &'static str) -> Self {
        let GrpcTarget { cluster, authority, metadata, timeout } = target;
        Self { cluster, authority, path, metadata, timeout: *timeout }
    }

    /// Sends one encoded message and waits for one.
    pub async fn call(&self, caller: &dyn Caller, message: &[u8]) -> Result<Bytes, RpcError> {
        let mut body = BytesMut::with_capacity(message.len() + PREFIX);
        body.put_u8(0);
        body.put_u32(u32::try_from(message.len()).map_err(|_| CallError::TooLarge)?);
        body.put_slice(message);
        let call = Call {
            cluster: self.cluster.clone(),
            head: self.head(),
            body: body.freeze(),
            timeout: self.timeout,
            limit: LIMIT,
        };
        read(&caller.call(call).await?)
    }

    fn head(&self) -> RequestHead {
        let authority = if self.authority.is_empty() { self.cluster } else { self.authority };
        let mut head = RequestHead::new(Method::POST, ByteStr::from(authority), self.path);
        head.protocol = Protocol::Http2;
        head.headers.append(header::TE, HeaderValue::from_static("trailers"));
        let millis = self.timeout.as_millis().min(MOST_MILLIS);
        if let Ok(value) = HeaderValue::from_str(&format!("{millis}m")) {
            head.headers.append(name::GRPC_TIMEOUT, value);
        }
        for (name, value) in self.metadata {
            head.headers.append(name.clone(), value.clone());
        }
        head.headers.append(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        head
    }
}

/// A flag and a length before each message.
const PREFIX: usize = 5;
/// Eight digits.
const MOST_MILLIS: u128 = 99_999_999;

fn read(answer: &Answer) -> Result<Bytes, RpcError> {
    if answer.status != StatusCode::OK {
        return Err(RpcError::Http(answer.status.as_u16()));
    }
    let status = |headers: &Headers| headers.get_str(&name::GRPC_STATUS).map(|text| text.parse().unwrap_or(UNKNOWN));
    match status(&answer.trailers).or_else(|| status(&answer.headers)) {
        Some(0) => {}
        Some(status) => return Err(RpcError::Status(status)),
        None => return Err(RpcError::Malformed),
    }
    let [0, length @ ..] = *answer.body.first_chunk::<PREFIX>().ok_or(RpcError::Malformed)? else {
        // Compressed, which nobody asked for.
        return Err(RpcError::Malformed);
    };
    let message = answer.body.slice(PREFIX..);
    if usize::try_from(u32::from_be_bytes(length)) != Ok(message.len()) {
        return Err(RpcError::Malformed);
    }
    Ok(message)
}

/// gRPC's status for what is no status.
const UNKNOWN: u32 = 2;
