//! From bytes to message heads and their framing.

use std::ops::Range;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use super::{
    lines::{self, HeadScan, Lines},
    rules::Violation,
};
use crate::{ByteStr, Headers, Protocol, RequestHead, ResponseHead, Scheme, name};

/// Bounds on what a peer may send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Envoy's `max_request_headers_kb`.
    pub head_bytes: usize,
    /// Envoy's `max_headers_count`.
    pub fields: usize,
    /// Body bytes buffered for writing before reading the other side stops.
    pub buffer_bytes: usize,
    /// Pass trailers on; Envoy's `enable_trailers`, which is off by default.
    pub trailers: bool,
    /// Answer HTTP/1.0 in kind.
    pub http10: bool,
    /// Remember how the peer spells the names of its fields (Envoy's `preserve_case`).
    pub spelling: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head_bytes: 60 * 1024,
            fields: 100,
            buffer_bytes: 256 * 1024,
            trailers: true,
            http10: true,
            spelling: false,
        }
    }
}

/// Fields that the proxy adds to a message.
const ADDED: usize = 8;

/// How a message's body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    Known(u64),
    Chunked,
    UntilClose,
}

/// What the codec needs to know of a head and has taken out of its fields.
#[derive(Clone, Copy, Debug)]
pub(super) struct Framing {
    pub length: Length,
    pub keep_alive: bool,
}

/// The version of a request that cannot be parsed, so that its refusal is in the same.
pub(super) fn version_of(head: &[u8]) -> Protocol {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    if line.ends_with(b" HTTP/1.0") { Protocol::Http10 } else { Protocol::Http11 }
}

/// Parses a complete request head, as `scan` found it.
pub(super) fn request(head: &Bytes, scan: &HeadScan) -> Result<(RequestHead, Framing), Violation> {
    let mut lines = scan.lines(head);
    let (method, target, protocol) = lines::request_line(lines.first()?)?;
    let mut fields = Fields::read(head, lines, true)?;
    let method = known_method(method)?;
    if fields.host.is_none() && protocol == Protocol::Http11 {
        return Err(Violation::HostMissing);
    }
    let (authority, path) = target_parts(&method, target, fields.host.take())?;
    let length = fields.request_length(&method, protocol)?;
    let upgrade = fields.take_upgrade();
    let framing = Framing { length, keep_alive: fields.keep_alive(protocol) };
    let head =
        RequestHead { method, scheme: Scheme::Http, authority, path, protocol, upgrade, headers: fields.finish() };
    Ok((head, framing))
}

/// Parses a complete response head, as `scan` found it. `to` is the method it answers.
pub(super) fn response(head: &Bytes, scan: &HeadScan, to: &Method) -> Result<(ResponseHead, Framing), Violation> {
    let mut lines = scan.lines(head);
    let (protocol, status) = lines::status_line(lines.first()?)?;
    let mut fields = Fields::read(head, lines, false)?;
    let length = fields.response_length(status, to)?;
    let keep_alive = fields.keep_alive(protocol) && length != Length::UntilClose;
    if (status == StatusCode::SWITCHING_PROTOCOLS || status == StatusCode::UPGRADE_REQUIRED)
        && let Some(upgrade) = fields.upgrade.take()
    {
        fields.headers.append(header::UPGRADE, upgrade);
    }
    Ok((ResponseHead { status, protocol, headers: fields.finish() }, Framing { length, keep_alive }))
}

/// Parses a complete trailer section, field lines and the empty line, as `scan` found it.
pub(super) fn trailers(section: &Bytes, scan: &HeadScan) -> Result<Headers, Violation> {
    let mut lines = scan.lines(section);
    let mut trailers = Headers::with_capacity(lines.len());
    while let Some(line) = lines.field()? {
        let value = value(section.slice(line.value))?;
        // RFC 9110 6.5.1: framing and routing fields have no meaning here and would mislead whoever merges them.
        if !matches!(
            line.name,
            header::CONTENT_LENGTH | header::TRANSFER_ENCODING | header::HOST | header::TE | header::TRAILER
        ) {
            trailers.append(line.name, value);
        }
    }
    Ok(trailers)
}

fn value(bytes: Bytes) -> Result<HeaderValue, Violation> {
    HeaderValue::from_maybe_shared(bytes).map_err(|_| Violation::FieldValue)
}

/// The fields of one head, with what concerns only this hop taken out.
struct Fields {
    headers: Headers,
    host: Option<ByteStr>,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep: bool,
    connection_upgrade: bool,
    upgrade: Option<HeaderValue>,
    /// Names that `Connection` marked as of this hop, beyond the usual ones.
    nominated: Vec<HeaderName>,
}

impl Fields {
    /// Takes all fields of a head, from where `lines` is.
    fn read(head: &Bytes, mut lines: Lines<'_>, is_request: bool) -> Result<Self, Violation> {
        let mut fields = Self {
            headers: Headers::with_capacity(lines.len() + ADDED),
            host: None,
            length: None,
            chunked: false,
            close: false,
            keep: false,
            connection_upgrade: false,
            upgrade: None,
            nominated: Vec::new(),
        };
        while let Some(line) = lines.field()? {
            fields.add(line.name, head, line.value, is_request)?;
        }
        Ok(fields)
    }

    fn add(&mut self, name: HeaderName, head: &Bytes, at: Range<usize>, is_request: bool) -> Result<(), Violation> {
        let text = &head[at.clone()];
        match name {
            header::HOST if is_request => {
                if self.host.is_some() {
                    return Err(blame(text, Violation::HostRepeated));
                }
                self.host = Some(authority(text).ok_or_else(|| blame(text, Violation::HostInvalid))?);
            }
            header::CONTENT_LENGTH => {
                if self.length.is_some() {
                    return Err(blame(text, Violation::LengthRepeated));
                }
                self.length = Some(decimal(text).ok_or_else(|| blame(text, Violation::LengthInvalid))?);
                self.headers.append(name, value(head.slice(at))?);
            }
            header::TRANSFER_ENCODING => {
                if self.chunked {
                    return Err(blame(text, Violation::EncodingRepeated));
                }
                if !text.eq_ignore_ascii_case(b"chunked") {
                    return Err(blame(text, Violation::EncodingUnknown));
                }
                self.chunked = true;
            }
            header::UPGRADE => self.upgrade = Some(value(head.slice(at))?),
            header::CONNECTION | header::TE if !lines::is_value(text) => return Err(Violation::FieldValue),
            header::CONNECTION => self.connection(text)?,
            header::TE if is_request => {
                let trailers = text.split(|b| *b == b',').any(|t| t.trim_ascii().eq_ignore_ascii_case(b"trailers"));
                if trailers {
                    self.headers.append(name, HeaderValue::from_static("trailers"));
                }
            }
            _ => {
                let value = value(head.slice(at))?;
                if name != name::KEEP_ALIVE && name != name::PROXY_CONNECTION {
                    self.headers.append(name, value);
                }
            }
        }
        Ok(())
    }

    fn connection(&mut self, list: &[u8]) -> Result<(), Violation> {
        for token in list.split(|b| *b == b',') {
            let token = token.trim_ascii();
            if token.eq_ignore_ascii_case(b"close") {
                self.close = true;
            } else if token.eq_ignore_ascii_case(b"keep-alive") {
                self.keep = true;
            } else if token.eq_ignore_ascii_case(b"upgrade") {
                self.connection_upgrade = true;
            } else if !token.is_empty() {
                let name = name::parse(token).ok_or(Violation::ConnectionRejected)?;
                let text = name.as_str();
                // Dropping these on a client's word would change who it seems to be (Envoy refuses the same).
                if text.starts_with("x-forwarded-")
                    || text.starts_with("x-envoy-")
                    || matches!(name, header::HOST | header::CONTENT_LENGTH)
                {
                    return Err(Violation::ConnectionRejected);
                }
                if name != header::TE {
                    self.nominated.push(name);
                }
            }
        }
        Ok(())
    }

    fn keep_alive(&self, protocol: Protocol) -> bool {
        !self.close && (self.keep || protocol != Protocol::Http10)
    }

    fn take_upgrade(&mut self) -> Option<ByteStr> {
        let value = self.upgrade.take().filter(|_| self.connection_upgrade)?;
        // h2c would need us to speak HTTP/2 on this connection; RFC 9113 dropped it, and Envoy ignores it.
        let text = value.to_str().ok().filter(|text| !text.eq_ignore_ascii_case("h2c"))?;
        Some(ByteStr::from(text))
    }

    fn request_length(&self, method: &Method, protocol: Protocol) -> Result<Length, Violation> {
        if self.chunked {
            if self.length.is_some() {
                return Err(Violation::LengthAndEncoding);
            }
            if protocol == Protocol::Http10 {
                return Err(Violation::EncodingInHttp10);
            }
            if *method == Method::CONNECT {
                return Err(Violation::EncodingNotAllowed);
            }
            return Ok(Length::Chunked);
        }
        match self.length {
            Some(n) if n > 0 && *method == Method::CONNECT => Err(Violation::LengthNotAllowed),
            length => Ok(Length::Known(length.unwrap_or(0))),
        }
    }

    fn response_length(&mut self, status: StatusCode, to: &Method) -> Result<Length, Violation> {
        if self.chunked && self.length.is_some() {
            return Err(Violation::LengthAndEncoding);
        }
        let bodiless = status.is_informational() || status == StatusCode::NO_CONTENT;
        if self.chunked && bodiless {
            return Err(Violation::EncodingNotAllowed);
        }
        if bodiless && self.length.is_some_and(|n| n > 0) {
            return Err(Violation::LengthNotAllowed);
        }
        let tunnel = *to == Method::CONNECT && status.is_success();
        if bodiless || tunnel {
            self.headers.remove(&header::CONTENT_LENGTH);
        }
        if bodiless || tunnel || *to == Method::HEAD || status == StatusCode::NOT_MODIFIED {
            return Ok(Length::Known(0));
        }
        Ok(match self.length {
            _ if self.chunked => Length::Chunked,
            Some(n) => Length::Known(n),
            None => Length::UntilClose,
        })
    }

    fn finish(mut self) -> Headers {
        for name in &self.nominated {
            self.headers.remove(name);
        }
        self.headers
    }
}

/// What is wrong with a field: a byte that no value may hold comes before what the field means.
fn blame(text: &[u8], violation: Violation) -> Violation {
    if lines::is_value(text) { violation } else { Violation::FieldValue }
}

/// 1 to 19 digits and nothing else.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 19 {
        return None;
    }
    digits.iter().try_fold(0u64, |n, b| b.is_ascii_digit().then(|| n * 10 + u64::from(b - b'0')))
}

fn known_method(text: &[u8]) -> Result<Method, Violation> {
    const EXTENSIONS: &[&str] = &[
        "ACL",
        "BIND",
        "CHECKOUT",
        "COPY",
        "LINK",
        "LOCK",
        "M-SEARCH",
        "MERGE",
        "MKACTIVITY",
        "MKCALENDAR",
        "MKCOL",
        "MOVE",
        "NOTIFY",
        "PROPFIND",
        "PROPPATCH",
        "PURGE",
        "REBIND",
        "REPORT",
        "SEARCH",
        "SOURCE",
        "SUBSCRIBE",
        "UNBIND",
        "UNLINK",
        "UNLOCK",
        "UNSUBSCRIBE",
    ];
    let method = Method::from_bytes(text).map_err(|_| Violation::Method)?;
    let standard = matches!(
        method,
        Method::GET
            | Method::HEAD
            | Method::POST
            | Method::PUT
            | Method::DELETE
            | Method::CONNECT
            | Method::OPTIONS
            | Method::TRACE
            | Method::PATCH
    );
    if standard || EXTENSIONS.iter().any(|known| known.as_bytes() == text) {
        Ok(method)
    } else {
        Err(Violation::Method)
    }
}

/// Which bytes an authority may hold. User information is none of them (RFC 9110 4.2.4): a rule about hosts would see another
/// host than a backend that cuts it off. Envoy lets it through in HTTP/1. A table, because asking for each byte and each exception costs 400 instructions a request.
static AUTHORITY: [bool; 256] = {
    let mut allowed = [false; 256];
    let mut byte = b'!';
    while byte <= b'~' {
        allowed[byte as usize] =
            !matches!(byte, b'/' | b'\\' | b'?' | b'#' | b'"' | b'<' | b'>' | b'^' | b'{' | b'}' | b'|' | b'`' | b'@');
        byte += 1;
    }
    allowed
};

fn authority(bytes: &[u8]) -> Option<ByteStr> {
    if !bytes.iter().all(|b| AUTHORITY[usize::from(*b)]) {
        return None;
    }
    ByteStr::from_utf8(bytes)
}

fn target_parts(method: &Method, target: &str, host: Option<ByteStr>) -> Result<(ByteStr, ByteStr), Violation> {
    if !target.is_ascii() {
        return Err(Violation::Target);
    }
    if *method == Method::CONNECT {
        // authority-form, with a port (RFC 9112 3.2.3).
        let valid = target.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        let authority = authority(target.as_bytes()).filter(|_| valid).ok_or(Violation::Target)?;
        return Ok((authority, ByteStr::default()));
    }
    if target.starts_with('/') || (target == "*" && *method == Method::OPTIONS) {
        return Ok((host.unwrap_or_default(), ByteStr::from(target)));
    }
    let scheme_end = target.find("://").ok_or(Violation::Target)?;
    if !target[..scheme_end].eq_ignore_ascii_case("http") && !target[..scheme_end].eq_ignore_ascii_case("https") {
        return Err(Violation::Target);
    }
    let rest = &target[scheme_end + 3..];
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let authority = authority(&rest.as_bytes()[..end]).filter(|a| !a.as_bytes().is_empty()).ok_or(Violation::Target)?;
    let path = match rest.as_bytes().get(end) {
        Some(b'/') => ByteStr::from(&rest[end..]),
        Some(_) => ByteStr::from(format!("/{}", &rest[end..])),
        None => ByteStr::from_static("/"),
    };
    Ok((authority, path))
}
