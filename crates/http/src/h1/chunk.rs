//! The chunked coding: an incremental decoder.

use bytes::{Buf, Bytes, BytesMut};

use super::{
    lines::HeadScan,
    parse::{self, Limits},
    rules::Violation,
};
use crate::Headers;

/// Longest size line, extensions included. Extensions are read past, never passed on.
const MAX_SIZE_LINE: usize = 256;
/// 15 hexadecimal digits cannot overflow a u64 nor any sum we make of it.
const MAX_SIZE_DIGITS: usize = 15;

#[derive(Debug)]
enum State {
    Size,
    Data(u64),
    DataEnd,
    Trailers(HeadScan),
    Done,
}

/// What came out of the decoder.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    Data(Bytes),
    /// The end. `None` when there was no trailer field.
    End(Option<Headers>),
    NeedMore,
}

#[derive(Debug)]
pub(super) struct Decoder {
    state: State,
}

impl Decoder {
    pub fn new() -> Self {
        Self { state: State::Size }
    }

    /// Takes the next piece out of `buffer`.
    pub fn decode(&mut self, buffer: &mut BytesMut, limits: &Limits) -> Result<Decoded, Violation> {
        loop {
            match &mut self.state {
                State::Size => {
                    let Some((size, line)) = size_line(buffer)? else { return Ok(Decoded::NeedMore) };
                    buffer.advance(line);
                    self.state = if size == 0 { State::Trailers(HeadScan::default()) } else { State::Data(size) };
                }
                State::Data(left) => {
                    if buffer.is_empty() {
                        return Ok(Decoded::NeedMore);
                    }
                    let n = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
                    *left -= n as u64;
                    if *left == 0 {
                        self.state = State::DataEnd;
                    }
                    return Ok(Decoded::Data(buffer.split_to(n).freeze()));
                }
                State::DataEnd => {
                    let n = buffer.len().min(2);
                    if buffer[..n] != b"\r\n"[..n] {
                        return Err(Violation::ChunkEnd);
                    }
                    if n < 2 {
                        return Ok(Decoded::NeedMore);
                    }
                    buffer.advance(2);
                    self.state = State::Size;
                }
                State::Trailers(scan) => {
                    let end = scan.end(buffer, limits).map_err(|violation| match violation {
                        Violation::HeadTooLarge | Violation::TooManyFields => Violation::TrailersTooLarge,
                        other => other,
                    })?;
                    let Some(end) = end else { return Ok(Decoded::NeedMore) };
                    if end == 2 {
                        self.state = State::Done;
                        buffer.advance(2);
                        return Ok(Decoded::End(None));
                    }
                    let trailers = parse::trailers(&buffer.split_to(end).freeze(), scan)?;
                    self.state = State::Done;
                    return Ok(Decoded::End(Some(trailers)));
                }
                State::Done => return Ok(Decoded::End(None)),
            }
        }
    }
}

/// The size and the length of its line, if the line is complete.
fn size_line(buffer: &[u8]) -> Result<Option<(u64, usize)>, Violation> {
    let digits = buffer.iter().take(MAX_SIZE_DIGITS + 1).take_while(|b| b.is_ascii_hexdigit()).count();
    if digits > MAX_SIZE_DIGITS || (digits == 0 && !buffer.is_empty()) {
        return Err(Violation::ChunkSize);
    }
    match buffer.get(digits) {
        None => return Ok(None),
        Some(b'\r') => {}
        Some(b';' | b' ' | b'\t') => {
            // BWS before the extension: spaces alone up to CR are refused, because peers disagree on them.
            let extension = buffer[digits..].iter().find(|b| !matches!(b, b' ' | b'\t'));
            if extension.is_some_and(|b| *b != b';') {
                return Err(Violation::ChunkSize);
            }
        }
        Some(b'\n') => return Err(Violation::BareLf),
        Some(_) => return Err(Violation::ChunkSize),
    }
    let window = &buffer[..buffer.len().min(MAX_SIZE_LINE)];
    let Some(end) = window[digits..].iter().position(|b| b.is_ascii_control() && *b != b'\t').map(|n| n + digits)
    else {
        return if buffer.len() >= MAX_SIZE_LINE { Err(Violation::ChunkExtension) } else { Ok(None) };
    };
    match (window[end], window.get(end + 1)) {
        (b'\r', Some(b'\n')) => {}
        (b'\r', None) if buffer.len() < MAX_SIZE_LINE => return Ok(None),
        (b'\n', _) => return Err(Violation::BareLf),
        _ => return Err(Violation::ChunkExtension),
    }
    let size = buffer[..digits].iter().fold(0u64, |n, b| n << 4 | u64::from((*b as char).to_digit(16).unwrap_or(0)));
    Ok(Some((size, end + 2)))
}
