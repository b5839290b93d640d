//! From message heads to bytes.

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode, header};

use super::wire::Wire;
use crate::{Frame, Headers, Protocol, RequestHead, ResponseHead};

/// How the body being written is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writer {
    /// Left to write.
    Known(u64),
    Chunked,
    /// Until close, or a tunnel.
    Raw,
    /// A response to HEAD, or a status without body: what comes is dropped.
    Nothing,
    Done,
}

/// Room for all is made once: a field at a time took twice the instructions.
fn put_fields(out: &mut BytesMut, headers: &Headers) {
    let start = out.len();
    out.resize(start + headers.byte_size() + headers.len() * ": \r\n".len(), 0);
    let mut rest = &mut out[start..];
    for (name, value) in headers.iter() {
        rest = put(rest, name.as_str().as_bytes());
        rest = put(rest, b": ");
        rest = put(rest, value.as_bytes());
        rest = put(rest, b"\r\n");
    }
}

/// Writes `text` into the beginning of `room`; gives what is left of it.
fn put<'a>(room: &'a mut [u8], text: &[u8]) -> &'a mut [u8] {
    let (place, rest) = room.split_at_mut(text.len());
    place.copy_from_slice(text);
    rest
}

/// The names of an encoded head as the peer that they come from wrote them, where that is kept.
fn spell(head: &mut [u8], headers: &Headers) {
    if let Some(spelling) = headers.spelling() {
        spelling.restore(head);
    }
}

fn declared(headers: &Headers) -> Option<u64> {
    headers.get(&header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Encodes a request head. `end`: no body follows.
pub(super) fn request(wire: &mut Wire, head: &RequestHead, end: bool) -> Writer {
    let out = wire.tail();
    let start = out.len();
    out.reserve(256);
    let tunnel = head.method == Method::CONNECT;
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.extend_from_slice(b" ");
    let target = if tunnel { head.authority.as_bytes() } else { head.path.as_bytes() };
    out.extend_from_slice(target);
    out.extend_from_slice(b" HTTP/1.1\r\nhost: ");
    out.extend_from_slice(head.authority.as_bytes());
    out.extend_from_slice(b"\r\n");
    put_fields(out, &head.headers);
    if let Some(upgrade) = &head.upgrade {
        out.extend_from_slice(b"connection: Upgrade\r\nupgrade: ");
        out.extend_from_slice(upgrade.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    let writer = match declared(&head.headers) {
        _ if head.method == Method::CONNECT || head.upgrade.is_some() => Writer::Raw,
        Some(n) => Writer::Known(n),
        None if end => {
            let has_no_body = matches!(head.method, Method::GET | Method::HEAD | Method::DELETE | Method::TRACE);
            if !has_no_body {
                out.extend_from_slice(b"content-length: 0\r\n");
            }
            Writer::Known(0)
        }
        None => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            Writer::Chunked
        }
    };
    out.extend_from_slice(b"\r\n");
    spell(&mut out[start..], &head.headers);
    if end && writer != Writer::Raw { Writer::Done } else { writer }
}

/// What a response head must say besides its own fields.
pub(super) struct ResponseContext<'a> {
    pub to: &'a Method,
    pub protocol: Protocol,
    pub keep_alive: bool,
    pub end: bool,
}

/// Encodes a final response head, or 101. Returns how its body goes out and whether the connection survives it.
pub(super) fn response(wire: &mut Wire, head: &ResponseHead, context: &ResponseContext<'_>) -> (Writer, bool) {
    let out = wire.tail();
    let start = out.len();
    out.reserve(256);
    put_status_line(out, head.status, context.protocol);
    put_fields(out, &head.headers);
    let mut keep_alive = context.keep_alive;
    let tunnel =
        head.status == StatusCode::SWITCHING_PROTOCOLS || (*context.to == Method::CONNECT && head.status.is_success());
    let bodiless = head.status == StatusCode::NO_CONTENT
        || head.status == StatusCode::NOT_MODIFIED
        || head.status.is_informational();
    let writer = if tunnel {
        Writer::Raw
    } else if bodiless {
        Writer::Nothing
    } else if *context.to == Method::HEAD {
        if !context.end && declared(&head.headers).is_none() && context.protocol != Protocol::Http10 {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        }
        Writer::Nothing
    } else if let Some(n) = declared(&head.headers) {
        Writer::Known(n)
    } else if context.end {
        out.extend_from_slice(b"content-length: 0\r\n");
        Writer::Known(0)
    } else if context.protocol == Protocol::Http10 {
        keep_alive = false;
        Writer::Raw
    } else {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
        Writer::Chunked
    };
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        // As most servers write it: not every client compares without regard to case.
        out.extend_from_slice(b"connection: Upgrade\r\n");
    } else if !keep_alive && !tunnel {
        out.extend_from_slice(b"connection: close\r\n");
    } else if context.protocol == Protocol::Http10 {
        out.extend_from_slice(b"connection: keep-alive\r\n");
    }
    out.extend_from_slice(b"\r\n");
    spell(&mut out[start..], &head.headers);
    (if context.end && writer != Writer::Raw { Writer::Done } else { writer }, keep_alive)
}

fn put_status_line(out: &mut BytesMut, status: StatusCode, protocol: Protocol) {
    if status == StatusCode::OK && protocol != Protocol::Http10 {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    out.extend_from_slice(if protocol == Protocol::Http10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.extend_from_slice(status.as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(reason(status).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Envoy's words, which differ from the registry's for a few codes.
pub(super) fn reason(status: StatusCode) -> &'static str {
    match status.as_u16() {
        203 => "Non-Authoritative Information",
        418 | 451 => "Unknown",
        599 => "Last Unassigned Server Error Code",
        _ => status.canonical_reason().unwrap_or("Unknown"),
    }
}

/// An interim response with its fields.
pub(super) fn interim(wire: &mut Wire, status: StatusCode, headers: &Headers) {
    let out = wire.tail();
    put_status_line(out, status, Protocol::Http11);
    put_fields(out, headers);
    out.extend_from_slice(b"\r\n");
}

impl Writer {
    /// Writes a frame; more data than was declared is dropped, since sending it would be read as the next message.
    pub fn frame(&mut self, wire: &mut Wire, frame: Frame) {
        match frame {
            Frame::Data(data) => self.data(wire, data),
            Frame::Trailers(trailers) => {
                if *self == Self::Chunked {
                    let out = wire.tail();
                    out.extend_from_slice(b"0\r\n");
                    put_fields(out, &trailers);
                    out.extend_from_slice(b"\r\n");
                    *self = Self::Done;
                }
            }
        }
    }

    fn data(&mut self, wire: &mut Wire, mut data: Bytes) {
        if data.is_empty() {
            return;
        }
        match self {
            Self::Known(left) => {
                data.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= data.len() as u64;
                wire.push(data);
            }
            Self::Chunked => {
                let out = wire.tail();
                put_hex(out, data.len());
                out.extend_from_slice(b"\r\n");
                wire.push(data);
                wire.tail().extend_from_slice(b"\r\n");
            }
            Self::Raw => wire.push(data),
            Self::Nothing | Self::Done => {}
        }
    }

    /// Ends the body. False if the message is now short of what was declared, so that the connection must close.
    pub fn finish(&mut self, wire: &mut Wire) -> bool {
        let complete = match self {
            Self::Known(left) => *left == 0,
            Self::Chunked => {
                wire.tail().extend_from_slice(b"0\r\n\r\n");
                true
            }
            Self::Raw => {
                wire.shutdown_after_flush();
                true
            }
            Self::Nothing | Self::Done => true,
        };
        *self = Self::Done;
        complete
    }
}

fn put_hex(out: &mut BytesMut, mut n: usize) {
    let mut digits = [0; 16];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[n & 15];
        n >>= 4;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}
