//! Message heads, the same for every protocol version.

use http::{Method, StatusCode};

use crate::{ByteStr, Headers};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    Http10,
    Http11,
    Http2,
    Http3,
}

impl Protocol {
    /// Envoy's `%PROTOCOL%`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
            Self::Http3 => "HTTP/3",
        }
    }

    pub const fn is_http1(self) -> bool {
        matches!(self, Self::Http10 | Self::Http11)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// A request's head. `Host` and `:authority` are `authority`; neither is in `headers`.
#[derive(Clone, Debug)]
pub struct RequestHead {
    pub method: Method,
    pub scheme: Scheme,
    /// Empty when the request had none.
    pub authority: ByteStr,
    /// Path and query; `*` for `OPTIONS *`; empty for a plain CONNECT.
    pub path: ByteStr,
    pub protocol: Protocol,
    /// What the connection becomes: `:protocol` of an extended CONNECT, or the HTTP/1 `Upgrade` value.
    pub upgrade: Option<ByteStr>,
    pub headers: Headers,
}

impl RequestHead {
    pub fn new(method: Method, authority: impl Into<ByteStr>, path: impl Into<ByteStr>) -> Self {
        Self {
            method,
            scheme: Scheme::Http,
            authority: authority.into(),
            path: path.into(),
            protocol: Protocol::Http11,
            upgrade: None,
            headers: Headers::new(),
        }
    }

    /// The path without query and fragment.
    pub fn path_only(&self) -> &str {
        let path = self.path.as_str();
        path.bytes().position(|byte| matches!(byte, b'?' | b'#')).map_or(path, |end| &path[..end])
    }

    /// The query without its `?`, if there is one.
    pub fn query(&self) -> Option<&str> {
        let path = self.path.as_str();
        let path = path.split('#').next().unwrap_or(path);
        path.split_once('?').map(|(_, query)| query)
    }

    /// Bytes of all names and values, pseudo-headers included.
    pub fn byte_size(&self) -> usize {
        let pseudo = [
            (":method", self.method.as_str()),
            (":path", &self.path),
            (":authority", &self.authority),
            (":scheme", self.scheme.as_str()),
        ];
        let sizes = pseudo.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| name.len() + value.len());
        // As the fields of HTTP/1 that stand for it: `connection: upgrade` and `upgrade: …`.
        let upgrade = self.upgrade.as_ref().map_or(0, |kind| "connectionupgradeupgrade".len() + kind.len());
        sizes.sum::<usize>() + upgrade + self.headers.byte_size()
    }

    pub fn is_grpc(&self) -> bool {
        is_grpc_content_type(&self.headers)
    }
}

#[derive(Clone, Debug)]
pub struct ResponseHead {
    pub status: StatusCode,
    pub protocol: Protocol,
    pub headers: Headers,
}

impl ResponseHead {
    pub fn new(status: StatusCode) -> Self {
        Self { status, protocol: Protocol::Http11, headers: Headers::new() }
    }
}

/// `application/grpc`, alone or followed by `+…` or `;…`; as Envoy decides it.
pub fn is_grpc_content_type(headers: &Headers) -> bool {
    let Some(value) = headers.get(&http::header::CONTENT_TYPE) else { return false };
    let Some(rest) = value.as_bytes().strip_prefix(b"application/grpc") else { return false };
    matches!(rest.first(), None | Some(b'+' | b';'))
}
