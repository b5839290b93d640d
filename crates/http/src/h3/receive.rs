//! What comes on a request stream.

use std::{
    pin::pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use quinn::{ReadError, RecvStream};

use super::{Code, frame};

/// Taken from the transport at once, without copying.
const CHUNK: usize = 64 * 1024;

/// A piece of a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    Data(Bytes),
    /// An encoded field section.
    Section(Bytes),
    End,
}

/// Why there is no next piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The client broke the protocol in a way that ends the connection.
    Connection(Code),
    /// The section is longer than it may be.
    TooLarge,
    /// The client reset the stream.
    Reset,
    /// The connection is over.
    Lost,
}

/// Which frames may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Head,
    Body,
    Over,
}

#[derive(Debug)]
enum Phase {
    Between,
    Data(u64),
    Section(u64),
    Skip(u64),
}

/// Cuts the bytes of a request stream into pieces. Holds no more than one encoded section and what it was last given.
#[derive(Debug)]
pub struct Frames {
    stage: Stage,
    phase: Phase,
    header: frame::Partial,
    section: BytesMut,
    input: Bytes,
    /// Of an encoded section.
    max_section: u64,
}

impl Frames {
    /// `max_section`: bytes of an encoded section.
    pub fn new(max_section: u64) -> Self {
        Self {
            stage: Stage::Head,
            phase: Phase::Between,
            header: frame::Partial::default(),
            section: BytesMut::new(),
            input: Bytes::new(),
            max_section,
        }
    }

    /// Takes more bytes, once [`Self::piece`] has none left.
    pub fn give(&mut self, input: Bytes) {
        self.input = input;
    }

    /// The next piece of the bytes that are here; `None` when more are needed.
    pub fn piece(&mut self) -> Result<Option<Piece>, Fault> {
        loop {
            match self.phase {
                Phase::Between => match self.header.read(&mut self.input) {
                    Some(header) => self.phase = self.enter(header)?,
                    None => return Ok(None),
                },
                Phase::Section(0) => {
                    self.phase = Phase::Between;
                    return Ok(Some(Piece::Section(self.section.split().freeze())));
                }
                Phase::Data(0) | Phase::Skip(0) => self.phase = Phase::Between,
                _ if self.input.is_empty() => return Ok(None),
                Phase::Data(left) => {
                    let data = self.take(left);
                    self.phase = Phase::Data(left - data.len() as u64);
                    return Ok(Some(Piece::Data(data)));
                }
                Phase::Section(left) => {
                    let part = self.take(left);
                    self.section.extend_from_slice(&part);
                    self.phase = Phase::Section(left - part.len() as u64);
                }
                Phase::Skip(left) => {
                    let skipped = left.min(self.input.len() as u64);
                    self.input.advance(skipped as usize);
                    self.phase = Phase::Skip(left - skipped);
                }
            }
        }
    }

    /// What the end of the stream means here.
    pub fn end(&self) -> Result<Piece, Fault> {
        let whole = matches!(self.phase, Phase::Between) && self.header.is_empty();
        if whole { Ok(Piece::End) } else { Err(Fault::Connection(Code::FRAME_ERROR)) }
    }

    fn take(&mut self, most: u64) -> Bytes {
        let length = most.min(self.input.len() as u64) as usize;
        self.input.split_to(length)
    }

    fn enter(&mut self, header: frame::FrameHeader) -> Result<Phase, Fault> {
        let unexpected = Err(Fault::Connection(Code::FRAME_UNEXPECTED));
        match (header.kind, self.stage) {
            (frame::DATA, Stage::Body) => Ok(Phase::Data(header.length)),
            (frame::HEADERS, Stage::Head | Stage::Body) if header.length > self.max_section => Err(Fault::TooLarge),
            (frame::HEADERS, Stage::Head) => {
                self.stage = Stage::Body;
                Ok(Phase::Section(header.length))
            }
            (frame::HEADERS, Stage::Body) => {
                self.stage = Stage::Over;
                Ok(Phase::Section(header.length))
            }
            (frame::DATA | frame::HEADERS, _) => unexpected,
            (frame::CANCEL_PUSH | frame::SETTINGS | frame::PUSH_PROMISE | frame::GOAWAY | frame::MAX_PUSH_ID, _) => {
                unexpected
            }
            (kind, _) if frame::is_of_http2(kind) => unexpected,
            _ => Ok(Phase::Skip(header.length)),
        }
    }
}

/// The stream that the frames come on.
pub struct Receiving {
    stream: RecvStream,
    frames: Frames,
    /// The transport has no more.
    finished: bool,
}

impl Receiving {
    pub fn new(stream: RecvStream, max_section: u64) -> Self {
        Self { stream, frames: Frames::new(max_section), finished: false }
    }

    pub fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Fault>> {
        loop {
            if let Some(piece) = self.frames.piece()? {
                return Poll::Ready(Ok(piece));
            }
            if self.finished {
                return Poll::Ready(self.frames.end());
            }
            match ready!(pin!(self.stream.read_chunk(CHUNK, true)).poll(cx)) {
                Ok(Some(chunk)) => self.frames.give(chunk.bytes),
                Ok(None) => self.finished = true,
                Err(ReadError::Reset(_)) => return Poll::Ready(Err(Fault::Reset)),
                Err(_) => return Poll::Ready(Err(Fault::Lost)),
            }
        }
    }

    /// Tells the client that the rest is not wanted.
    pub fn stop(&mut self, code: Code) {
        if !self.finished {
            // An error means that nothing was to come any more.
            let _ = self.stream.stop(code.wire());
        }
    }
}
