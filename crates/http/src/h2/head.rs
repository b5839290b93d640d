//! Message heads to and from header blocks: what RFC 9113 8 says of a well-formed message.

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use super::hpack::{DecodeError, Decoder, Encoder, Field, static_name};
use crate::{ByteStr, Headers, Protocol, RequestHead, ResponseHead, Scheme, name};

/// Why a block that decodes is not a head that we take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Malformed,
    TooLarge,
}

/// Bounds on one head or trailer section.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Names and values.
    pub bytes: usize,
    pub fields: usize,
}

/// Room for what the proxy will add.
const ADDED: usize = 8;
/// Fields of an ordinary message.
const USUAL: usize = 12;

/// The fields of a section, sorted; HTTP/2's and HTTP/3's rules are the same (RFC 9114 4.2 and 4.3).
#[derive(Default)]
pub(crate) struct Parts {
    method: Option<Method>,
    scheme: Option<Scheme>,
    authority: Option<ByteStr>,
    path: Option<ByteStr>,
    protocol: Option<ByteStr>,
    status: Option<StatusCode>,
    headers: Headers,
    length: Option<u64>,
    cookies: usize,
}

fn set<T>(place: &mut Option<T>, value: T) -> Result<(), Refused> {
    if place.is_some() {
        return Err(Refused::Malformed);
    }
    *place = Some(value);
    Ok(())
}

impl Parts {
    fn add(&mut self, field: Field) -> Result<(), Refused> {
        let (name, value) = match field {
            Field::Header(name, value) => (name, value),
            _ if !self.headers.is_empty() || self.cookies > 0 => return Err(Refused::Malformed),
            Field::Method(method) => return set(&mut self.method, method),
            Field::Scheme(scheme) => return set(&mut self.scheme, scheme),
            Field::Authority(text) => return set(&mut self.authority, text),
            Field::Path(text) => return set(&mut self.path, text),
            Field::Protocol(text) => return set(&mut self.protocol, text),
            Field::Status(status) => return set(&mut self.status, status),
            Field::Invalid => return Err(Refused::Malformed),
        };
        match name {
            header::CONNECTION | header::TRANSFER_ENCODING | header::UPGRADE => return Err(Refused::Malformed),
            header::TE if value.as_bytes() != b"trailers" => return Err(Refused::Malformed),
            header::CONTENT_LENGTH => {
                let length = decimal(value.as_bytes()).ok_or(Refused::Malformed)?;
                set(&mut self.length, length)?;
            }
            header::COOKIE => self.cookies += 1,
            _ if name == name::KEEP_ALIVE || name == name::PROXY_CONNECTION => return Err(Refused::Malformed),
            _ => {}
        }
        if self.headers.is_empty() {
            self.headers = Headers::with_capacity(USUAL + ADDED);
        }
        self.headers.append(name, value);
        Ok(())
    }

    fn has_request_fields(&self) -> bool {
        self.method.is_some()
            || self.scheme.is_some()
            || self.authority.is_some()
            || self.path.is_some()
            || self.protocol.is_some()
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    digits.iter().try_fold(0u64, |n, b| b.is_ascii_digit().then(|| n * 10 + u64::from(b - b'0')))
}

/// Collects fields as a decoder finds them, within limits.
pub(crate) struct Collector {
    parts: Parts,
    refused: Option<Refused>,
    bytes: usize,
    fields: usize,
    limits: Limits,
}

impl Collector {
    pub fn new(limits: Limits) -> Self {
        Self { parts: Parts::default(), refused: None, bytes: 0, fields: 0, limits }
    }

    /// Takes a field and its size, and says whether the next is wanted.
    pub fn take(&mut self, field: Field, size: usize) -> bool {
        self.bytes += size - super::hpack::OVERHEAD;
        self.fields += 1;
        let beyond = self.bytes > self.limits.bytes || self.fields > self.limits.fields;
        self.refused = if beyond { Some(Refused::TooLarge) } else { self.parts.add(field).err() };
        self.refused.is_none()
    }

    pub fn finish(self) -> Result<Parts, Refused> {
        self.refused.map_or(Ok(self.parts), Err)
    }
}

fn collect(decoder: &mut Decoder, block: &[u8], limits: Limits) -> Result<Result<Parts, Refused>, DecodeError> {
    let mut collector = Collector::new(limits);
    decoder.decode(block, |field, size| collector.take(field, size))?;
    Ok(collector.finish())
}

/// A head, and its `content-length`.
pub(crate) type Sized<T> = (T, Option<u64>);

/// `connect`: we announced extended CONNECT.
pub(super) fn request(
    decoder: &mut Decoder,
    block: &[u8],
    limits: Limits,
    connect: bool,
) -> Result<Result<Sized<RequestHead>, Refused>, DecodeError> {
    Ok(collect(decoder, block, limits)?.and_then(|parts| request_head(parts, connect, Protocol::Http2)))
}

/// `connect`: we announced extended CONNECT.
pub(crate) fn request_head(mut parts: Parts, connect: bool, protocol: Protocol) -> Result<Sized<RequestHead>, Refused> {
    let method = parts.method.take().filter(|_| parts.status.is_none()).ok_or(Refused::Malformed)?;
    let plain_connect = method == Method::CONNECT && parts.protocol.is_none();
    if parts.protocol.is_some() && (method != Method::CONNECT || !connect || parts.authority.is_none()) {
        return Err(Refused::Malformed);
    }
    let (scheme, path) = match (parts.scheme, parts.path) {
        (None, None) if plain_connect => (Scheme::Http, ByteStr::default()),
        (Some(scheme), Some(path)) if !plain_connect => (scheme, path),
        _ => return Err(Refused::Malformed),
    };
    let starts_well = path.as_bytes().first() == Some(&b'/');
    let asterisk = path == "*" && method == Method::OPTIONS;
    if !plain_connect && !starts_well && !asterisk {
        return Err(Refused::Malformed);
    }
    if parts.cookies > 1 {
        join_cookies(&mut parts.headers);
    }
    let host = parts.headers.remove(&header::HOST);
    let authority = match parts.authority.filter(|authority| !authority.as_bytes().is_empty()) {
        Some(authority) => authority,
        None => host.map(|host| host_text(&host)).transpose()?.unwrap_or_default(),
    };
    if plain_connect && authority.as_bytes().is_empty() {
        return Err(Refused::Malformed);
    }
    let headers = parts.headers;
    // An extended CONNECT is what a GET with an upgrade is in HTTP/1 (RFC 8441 section 5), and is one for whoever looks at it.
    let method = if parts.protocol.is_some() { Method::GET } else { method };
    Ok((RequestHead { method, scheme, authority, path, protocol, upgrade: parts.protocol, headers }, parts.length))
}

fn host_text(host: &HeaderValue) -> Result<ByteStr, Refused> {
    if !super::hpack::is_authority(host.as_bytes()) {
        return Err(Refused::Malformed);
    }
    host.to_str().map(ByteStr::from).map_err(|_| Refused::Malformed)
}

/// HTTP/2 may split cookies into crumbs; everything behind us expects one field (RFC 9113 8.2.3).
fn join_cookies(headers: &mut Headers) {
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

pub(super) fn response(
    decoder: &mut Decoder,
    block: &[u8],
    limits: Limits,
) -> Result<Result<Sized<ResponseHead>, Refused>, DecodeError> {
    Ok(collect(decoder, block, limits)?.and_then(|parts| {
        let status = parts.status.filter(|_| !parts.has_request_fields()).ok_or(Refused::Malformed)?;
        // RFC 9113 8.6: there is no 101 here.
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Refused::Malformed);
        }
        Ok((ResponseHead { status, protocol: Protocol::Http2, headers: parts.headers }, parts.length))
    }))
}

pub(super) fn trailers(
    decoder: &mut Decoder,
    block: &[u8],
    limits: Limits,
) -> Result<Result<Headers, Refused>, DecodeError> {
    Ok(collect(decoder, block, limits)?.and_then(trailer_fields))
}

pub(crate) fn trailer_fields(mut parts: Parts) -> Result<Headers, Refused> {
    if parts.status.is_some() || parts.has_request_fields() {
        return Err(Refused::Malformed);
    }
    // RFC 9110 6.5.1: framing and routing fields have no meaning here and would mislead whoever merges them.
    parts
        .headers
        .retain(|name, _| !matches!(*name, header::CONTENT_LENGTH | header::HOST | header::TE | header::TRAILER));
    Ok(parts.headers)
}

const METHOD: u8 = 2;
const PATH: u8 = 4;
const SCHEME_HTTP: u8 = 6;
const SCHEME_HTTPS: u8 = 7;
const STATUS: u8 = 8;

pub(super) fn put_request(encoder: &mut Encoder, head: &RequestHead, out: &mut BytesMut) {
    encoder.begin(out);
    // RFC 8441: an HTTP/1 upgrade crosses HTTP/2 as an extended CONNECT.
    let method = if head.upgrade.is_some() { &Method::CONNECT } else { &head.method };
    match *method {
        Method::GET => encoder.indexed(out, METHOD),
        Method::POST => encoder.indexed(out, METHOD + 1),
        _ => encoder.field(out, METHOD, b":method", method.as_str().as_bytes()),
    }
    if *method != Method::CONNECT || head.upgrade.is_some() {
        encoder.indexed(out, if head.scheme == Scheme::Https { SCHEME_HTTPS } else { SCHEME_HTTP });
        match head.path.as_bytes() {
            b"" | b"/" => encoder.indexed(out, PATH),
            path => encoder.field(out, PATH, b":path", path),
        }
    }
    if !head.authority.as_bytes().is_empty() {
        encoder.field(out, 1, b":authority", head.authority.as_bytes());
    }
    if let Some(protocol) = &head.upgrade {
        encoder.field(out, 0, b":protocol", protocol.as_bytes());
    }
    put_fields(encoder, &head.headers, out);
}

pub(super) fn put_response(encoder: &mut Encoder, status: StatusCode, headers: &Headers, out: &mut BytesMut) {
    encoder.begin(out);
    let indexed = match status.as_u16() {
        200 => STATUS,
        204 => STATUS + 1,
        206 => STATUS + 2,
        304 => STATUS + 3,
        400 => STATUS + 4,
        404 => STATUS + 5,
        500 => STATUS + 6,
        _ => 0,
    };
    if indexed != 0 {
        encoder.indexed(out, indexed);
    } else {
        encoder.field(out, STATUS, b":status", status.as_str().as_bytes());
    }
    put_fields(encoder, headers, out);
}

pub(super) fn put_trailers(encoder: &mut Encoder, headers: &Headers, out: &mut BytesMut) {
    encoder.begin(out);
    put_fields(encoder, headers, out);
}

fn put_fields(encoder: &mut Encoder, headers: &Headers, out: &mut BytesMut) {
    for (name, value) in headers.iter() {
        if is_of_http1(name) || *name == header::TE && value.as_bytes() != b"trailers" {
            continue;
        }
        let (text, value_bytes) = (name.as_str().as_bytes(), value.as_bytes());
        let known = static_name(text);
        if value.is_sensitive() {
            encoder.sensitive(out, known, text, value_bytes);
        } else {
            encoder.field(out, known, text, value_bytes);
        }
    }
}

/// Fields about one HTTP/1 connection, which must not be sent here (RFC 9113 8.2.2, RFC 9114 4.2).
pub(crate) fn is_of_http1(name: &HeaderName) -> bool {
    matches!(*name, header::CONNECTION | header::TRANSFER_ENCODING | header::UPGRADE)
        || *name == name::KEEP_ALIVE
        || *name == name::PROXY_CONNECTION
}
