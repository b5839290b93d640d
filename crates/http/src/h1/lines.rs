//! The lines of a head, by the grammar of RFC 9112 and no more: where a head ends, and what its lines hold.

use std::ops::Range;

use bytes::BytesMut;
use http::{HeaderName, StatusCode};

use super::{parse::Limits, rules::Violation};
use crate::{Protocol, name};

/// Finds the end of a head in a growing buffer, and of its lines, refusing bare LF on the way. Each byte is looked at once.
#[derive(Debug, Default)]
pub(super) struct HeadScan {
    /// Bytes already scanned.
    seen: usize,
    /// Start of the line being scanned.
    line: usize,
    /// Where each line ends that was scanned.
    ends: Vec<usize>,
}

impl HeadScan {
    /// The length of the head with its empty line, once it is complete.
    pub fn end(&mut self, buffer: &[u8], limits: &Limits) -> Result<Option<usize>, Violation> {
        let from = self.seen;
        let (words, rest) = buffer[from..].as_chunks::<8>();
        for (n, word) in words.iter().enumerate() {
            let mut hits = newlines(*word);
            while hits != 0 {
                if self.line_ends(buffer, from + n * 8 + hits.trailing_zeros() as usize / 8, limits)? {
                    return Ok(Some(self.seen));
                }
                hits &= hits - 1;
            }
        }
        let rest_at = buffer.len() - rest.len();
        for (n, _) in rest.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
            if self.line_ends(buffer, rest_at + n, limits)? {
                return Ok(Some(self.seen));
            }
        }
        self.seen = buffer.len();
        if buffer.len() > limits.head_bytes { Err(Violation::HeadTooLarge) } else { Ok(None) }
    }

    /// Takes the newline at `at`. True at the empty line.
    fn line_ends(&mut self, buffer: &[u8], at: usize, limits: &Limits) -> Result<bool, Violation> {
        if at == 0 || buffer[at - 1] != b'\r' {
            return Err(Violation::BareLf);
        }
        self.seen = at + 1;
        if at - 1 == self.line {
            return Ok(true);
        }
        self.line = at + 1;
        self.ends.push(at - 1);
        if self.ends.len() > limits.fields + 1 {
            return Err(Violation::TooManyFields);
        }
        if self.seen > limits.head_bytes {
            return Err(Violation::HeadTooLarge);
        }
        Ok(false)
    }

    /// The lines of the head that was found.
    pub fn lines<'a>(&'a self, head: &'a [u8]) -> Lines<'a> {
        Lines { head, at: 0, ends: self.ends.iter() }
    }

    /// For another head.
    pub fn reset(&mut self) {
        self.seen = 0;
        self.line = 0;
        self.ends.clear();
    }
}

/// The high bit of each byte that is a newline. Eight bytes at a time; a library's search would cost a dependency for the same
/// speed on lines this short.
fn newlines(word: [u8; 8]) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    let x = u64::from_le_bytes(word) ^ u64::from_le_bytes([b'\n'; 8]);
    !(((x & LOW) + LOW) | x | LOW)
}

/// Takes the CRLFs that a careless client sends between requests (RFC 9112 2.2).
pub(super) fn skip_empty_lines(buffer: &mut BytesMut) {
    use bytes::Buf;
    while buffer.starts_with(b"\r\n") {
        buffer.advance(2);
    }
}

/// The lines of a complete head without their ends, but for the empty one.
pub(super) struct Lines<'a> {
    head: &'a [u8],
    at: usize,
    ends: std::slice::Iter<'a, usize>,
}

/// A field line: its name, and where in the head its value is, without the white space around it.
pub(super) struct FieldLine {
    pub name: HeaderName,
    pub value: Range<usize>,
}

impl<'a> Lines<'a> {
    /// How many are left.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    fn next(&mut self) -> Option<Range<usize>> {
        let end = *self.ends.next()?;
        let line = self.at..end;
        self.at = end + "\r\n".len();
        Some(line)
    }

    /// The start line.
    pub fn first(&mut self) -> Result<&'a [u8], Violation> {
        self.next().map(|line| &self.head[line]).ok_or(Violation::StartLine)
    }

    /// The next field; `None` at the empty line. What its value may hold is for the caller to check.
    pub fn field(&mut self) -> Result<Option<FieldLine>, Violation> {
        let Some(at) = self.next() else { return Ok(None) };
        let line = &self.head[at.clone()];
        let colon = line.iter().position(|byte| *byte == b':').ok_or(Violation::Field)?;
        let name = name::parse(&line[..colon]).ok_or(Violation::Field)?;
        let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
        let mut value = at.start + colon + 1..at.end;
        while value.start < value.end && is_space(&self.head[value.start]) {
            value.start += 1;
        }
        while value.start < value.end && is_space(&self.head[value.end - 1]) {
            value.end -= 1;
        }
        Ok(Some(FieldLine { name, value }))
    }
}

/// What a field value may hold (RFC 9110 5.5).
pub(super) fn is_value(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| (*byte >= b' ' && *byte != 0x7f) || *byte == b'\t')
}

/// Method, target and version of a request line.
pub(super) fn request_line(line: &[u8]) -> Result<(&[u8], &str, Protocol), Violation> {
    let end = line.iter().position(|byte| !name::is_token(*byte)).filter(|end| *end > 0 && line[*end] == b' ');
    let (method, rest) = line.split_at(end.ok_or(Violation::StartLine)?);
    let rest = &rest[1..];
    let end = rest.iter().position(|byte| !byte.is_ascii_graphic() && byte.is_ascii());
    let (target, rest) = rest.split_at(end.filter(|end| *end > 0 && rest[*end] == b' ').ok_or(Violation::StartLine)?);
    let target = std::str::from_utf8(target).map_err(|_| Violation::StartLine)?;
    let (protocol, rest) = version(&rest[1..])?;
    if rest.is_empty() { Ok((method, target, protocol)) } else { Err(Violation::StartLine) }
}

/// Version and status of a status line. Its reason is not passed on.
pub(super) fn status_line(line: &[u8]) -> Result<(Protocol, StatusCode), Violation> {
    let (protocol, rest) = version(line)?;
    let rest = rest.strip_prefix(b" ").ok_or(Violation::Version)?;
    let (status, reason) = rest.split_at_checked(3).ok_or(Violation::StartLine)?;
    let status = StatusCode::from_bytes(status).map_err(|_| Violation::StartLine)?;
    match reason {
        [] => Ok((protocol, status)),
        [b' ', reason @ ..] if is_value(reason) => Ok((protocol, status)),
        _ => Err(Violation::StartLine),
    }
}

fn version(text: &[u8]) -> Result<(Protocol, &[u8]), Violation> {
    let (version, rest) = text.split_at_checked(8).ok_or(Violation::Version)?;
    match version {
        b"HTTP/1.1" => Ok((Protocol::Http11, rest)),
        b"HTTP/1.0" => Ok((Protocol::Http10, rest)),
        _ => Err(Violation::Version),
    }
}
