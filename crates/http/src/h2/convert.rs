//! Heads to and from the `http` crate's types.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Uri, header, uri};

use crate::{ByteStr, Error, Headers, Protocol, RequestHead, ResetReason, ResponseHead, Scheme};

pub(super) fn headers_from_map(map: HeaderMap) -> Headers {
    let mut headers = Headers::with_capacity(map.len() + 8);
    let mut last = None;
    for (name, value) in map {
        if name.is_some() {
            last = name;
        }
        if let Some(name) = &last {
            headers.append(name.clone(), value);
        }
    }
    headers
}

pub(super) fn map_from_headers(headers: &Headers) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers.iter() {
        map.append(name.clone(), value.clone());
    }
    map
}

pub(super) fn request_head(parts: http::request::Parts) -> RequestHead {
    let uri = parts.uri.into_parts();
    let mut headers = headers_from_map(parts.headers);
    join_cookies(&mut headers);
    let host = headers.remove(&header::HOST);
    let authority = match uri.authority {
        Some(authority) => ByteStr::copy_from(authority.as_str()),
        None => host.and_then(|h| h.to_str().ok().map(ByteStr::copy_from)).unwrap_or_default(),
    };
    let upgrade = parts.extensions.get::<::h2::ext::Protocol>().map(|p| ByteStr::copy_from(p.as_str()));
    let path = uri.path_and_query.map(|p| ByteStr::copy_from(p.as_str())).unwrap_or_default();
    RequestHead {
        method: parts.method,
        scheme: if uri.scheme == Some(uri::Scheme::HTTPS) { Scheme::Https } else { Scheme::Http },
        authority,
        path,
        protocol: Protocol::Http2,
        upgrade,
        headers,
    }
}

/// HTTP/2 may split cookies into crumbs; everything behind us expects one field (RFC 9113 8.2.3).
fn join_cookies(headers: &mut Headers) {
    if headers.get_all(&header::COOKIE).nth(1).is_none() {
        return;
    }
    let mut all = Vec::new();
    for crumb in headers.get_all(&header::COOKIE) {
        if !all.is_empty() {
            all.extend_from_slice(b"; ");
        }
        all.extend_from_slice(crumb.as_bytes());
    }
    if let Ok(value) = HeaderValue::from_maybe_shared(Bytes::from(all)) {
        headers.insert(header::COOKIE, value);
    }
}

pub(super) fn request(head: &RequestHead) -> Result<http::Request<()>, Error> {
    let mut parts = uri::Parts::default();
    let invalid = |_| Error::Reset(ResetReason::Local);
    if !head.authority.as_bytes().is_empty() {
        parts.authority = Some(uri::Authority::from_maybe_shared(head.authority.bytes().clone()).map_err(invalid)?);
    }
    let plain_connect = head.method == Method::CONNECT && head.upgrade.is_none();
    if !plain_connect {
        parts.scheme = Some(match head.scheme {
            Scheme::Http => uri::Scheme::HTTP,
            Scheme::Https => uri::Scheme::HTTPS,
        });
        let path = if head.path.as_bytes().is_empty() { Bytes::from_static(b"/") } else { head.path.bytes().clone() };
        parts.path_and_query = Some(uri::PathAndQuery::from_maybe_shared(path).map_err(invalid)?);
        if parts.authority.is_none() {
            parts.scheme = None;
        }
    }
    let mut request = http::Request::new(());
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Error::Reset(ResetReason::Local))?;
    *request.version_mut() = http::Version::HTTP_2;
    *request.headers_mut() = map_from_headers(&head.headers);
    if let Some(protocol) = &head.upgrade {
        // RFC 8441: an HTTP/1 upgrade crosses HTTP/2 as an extended CONNECT.
        *request.method_mut() = Method::CONNECT;
        request.extensions_mut().insert(::h2::ext::Protocol::from(protocol.as_str()));
    }
    Ok(request)
}

pub(super) fn response_head(response: http::response::Parts) -> ResponseHead {
    ResponseHead { status: response.status, protocol: Protocol::Http2, headers: headers_from_map(response.headers) }
}

pub(super) fn response(head: &ResponseHead) -> http::Response<()> {
    let mut response = http::Response::new(());
    *response.status_mut() = head.status;
    *response.headers_mut() = map_from_headers(&head.headers);
    response
}
