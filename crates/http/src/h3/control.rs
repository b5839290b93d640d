//! A client's unidirectional streams: its control stream, and QPACK's two.

use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use quinn::RecvStream;

use super::{Code, frame};
use crate::h2::limits::Budgets;

const CONTROL: u64 = 0x0;
const PUSH: u64 = 0x1;
const ENCODER: u64 = 0x2;
const DECODER: u64 = 0x3;

/// Largest SETTINGS frame: some dozens of settings, of which we use none.
const MAX_SETTINGS: u64 = 4096;

/// Which of the streams that may come once have come.
#[derive(Default)]
pub struct Seen(AtomicU8);

impl Seen {
    fn first(&self, kind: u64) -> Result<(), Code> {
        let bit = 1 << kind;
        if self.0.fetch_or(bit, Ordering::Relaxed) & bit == 0 { Ok(()) } else { Err(Code::STREAM_CREATION_ERROR) }
    }
}

/// Reads a stream to its end, which is the connection's for most; an error is the client's.
pub async fn read(stream: &mut RecvStream, seen: &Seen) -> Result<(), Code> {
    let mut reader = Reader { stream, input: Bytes::new() };
    let Some(kind) = reader.varint().await else { return Ok(()) };
    match kind {
        CONTROL => {
            seen.first(CONTROL)?;
            control(&mut reader).await
        }
        // Only servers push.
        PUSH => Err(Code::STREAM_CREATION_ERROR),
        ENCODER => {
            seen.first(ENCODER)?;
            encoder(&mut reader).await
        }
        DECODER => {
            seen.first(DECODER)?;
            decoder(&mut reader).await
        }
        _ => {
            let _ = reader.stream.stop(Code::STREAM_CREATION_ERROR.wire());
            Ok(())
        }
    }
}

async fn control(reader: &mut Reader<'_>) -> Result<(), Code> {
    let mut budgets = Budgets::new();
    let mut first = true;
    loop {
        let kind = reader.varint().await.ok_or(Code::CLOSED_CRITICAL_STREAM)?;
        let length = reader.varint().await.ok_or(Code::CLOSED_CRITICAL_STREAM)?;
        budgets.control().map_err(|_| Code::EXCESSIVE_LOAD)?;
        if first {
            if kind != frame::SETTINGS {
                return Err(Code::MISSING_SETTINGS);
            }
            settings(reader, length).await?;
            first = false;
            continue;
        }
        match kind {
            frame::DATA | frame::HEADERS | frame::SETTINGS | frame::PUSH_PROMISE => return Err(Code::FRAME_UNEXPECTED),
            // Nothing was promised that could be cancelled.
            frame::CANCEL_PUSH => return Err(Code::ID_ERROR),
            _ if frame::is_of_http2(kind) => return Err(Code::FRAME_UNEXPECTED),
            // A client's GOAWAY and MAX_PUSH_ID speak of pushes, which there are none of; others are unknown and passed over.
            _ => reader.skip(length).await.ok_or(Code::CLOSED_CRITICAL_STREAM)?,
        }
    }
}

/// None of the settings changes what we send: QPACK's table is not used, and a client that finds a section too large says so.
async fn settings(reader: &mut Reader<'_>, length: u64) -> Result<(), Code> {
    if length > MAX_SETTINGS {
        return Err(Code::EXCESSIVE_LOAD);
    }
    let mut payload = Vec::with_capacity(length as usize);
    while (payload.len() as u64) < length {
        payload.push(reader.byte().await.ok_or(Code::CLOSED_CRITICAL_STREAM)?);
    }
    let mut seen = Vec::new();
    let mut rest = &payload[..];
    while !rest.is_empty() {
        let (id, used) = frame::varint(rest).ok_or(Code::FRAME_ERROR)?;
        let (_, more) = frame::varint(&rest[used..]).ok_or(Code::FRAME_ERROR)?;
        rest = &rest[used + more..];
        // Those of HTTP/2 are reserved (RFC 9114 7.2.4.1).
        if matches!(id, 0x2..=0x5) || seen.contains(&id) {
            return Err(Code::SETTINGS_ERROR);
        }
        seen.push(id);
    }
    Ok(())
}

/// A table of no size takes no entries; its size may be set to what it is.
async fn encoder(reader: &mut Reader<'_>) -> Result<(), Code> {
    const SET_CAPACITY_TO_NONE: u8 = 0x20;
    loop {
        match reader.byte().await {
            Some(SET_CAPACITY_TO_NONE) => {}
            Some(_) => return Err(Code::QPACK_ENCODER_STREAM_ERROR),
            None => return Err(Code::CLOSED_CRITICAL_STREAM),
        }
    }
}

/// We send nothing that could be acknowledged; a stream may be cancelled all the same (RFC 9204 4.4.2).
async fn decoder(reader: &mut Reader<'_>) -> Result<(), Code> {
    loop {
        let first = reader.byte().await.ok_or(Code::CLOSED_CRITICAL_STREAM)?;
        if first & 0xc0 != 0x40 {
            return Err(Code::QPACK_DECODER_STREAM_ERROR);
        }
        let mut more = first & 0x3f == 0x3f;
        while more {
            more = reader.byte().await.ok_or(Code::CLOSED_CRITICAL_STREAM)? & 0x80 != 0;
        }
    }
}

struct Reader<'a> {
    stream: &'a mut RecvStream,
    input: Bytes,
}

/// Read at once; these streams are short.
const CHUNK: usize = 4096;

impl Reader<'_> {
    /// `None` at the end, and when the stream or the connection is lost.
    async fn fill(&mut self) -> Option<()> {
        while self.input.is_empty() {
            self.input = self.stream.read_chunk(CHUNK, true).await.ok()??.bytes;
        }
        Some(())
    }

    async fn byte(&mut self) -> Option<u8> {
        self.fill().await?;
        let byte = self.input.split_to(1);
        byte.first().copied()
    }

    async fn varint(&mut self) -> Option<u64> {
        let first = self.byte().await?;
        let mut value = u64::from(first & 0x3f);
        for _ in 1..1u32 << (first >> 6) {
            value = value << 8 | u64::from(self.byte().await?);
        }
        Some(value)
    }

    async fn skip(&mut self, mut length: u64) -> Option<()> {
        while length > 0 {
            self.fill().await?;
            let taken = length.min(self.input.len() as u64);
            let _ = self.input.split_to(taken as usize);
            length -= taken;
        }
        Some(())
    }
}
