//! Reading one message body.

use std::task::{Context, Poll, ready};

use super::{
    chunk::{Decoded, Decoder},
    parse::{Length, Limits},
    wire::Wire,
};
use crate::{Error, Frame};

/// Where in a body the reader is.
#[derive(Debug)]
pub(super) enum Reader {
    Known(u64),
    Chunked(Decoder),
    UntilClose,
    Done,
}

impl Reader {
    pub fn new(length: Length) -> Self {
        match length {
            Length::Known(0) => Self::Done,
            Length::Known(n) => Self::Known(n),
            Length::Chunked => Self::Chunked(Decoder::new()),
            Length::UntilClose => Self::UntilClose,
        }
    }

    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// The bytes still to come, if that is known.
    pub fn remaining(&self) -> Option<u64> {
        match self {
            Self::Known(n) => Some(*n),
            Self::Done => Some(0),
            Self::Chunked(_) | Self::UntilClose => None,
        }
    }

    /// The next frame; `None` at the end of the body.
    pub fn poll_frame(
        &mut self,
        wire: &mut Wire,
        cx: &mut Context<'_>,
        limits: &Limits,
    ) -> Poll<Result<Option<Frame>, Error>> {
        loop {
            match self {
                Self::Done => return Poll::Ready(Ok(None)),
                Self::Known(left) if !wire.read.is_empty() => {
                    let n = usize::try_from(*left).unwrap_or(usize::MAX).min(wire.read.len());
                    *left -= n as u64;
                    if *left == 0 {
                        *self = Self::Done;
                    }
                    return Poll::Ready(Ok(Some(Frame::Data(wire.read.split_to(n).freeze()))));
                }
                Self::UntilClose if !wire.read.is_empty() => {
                    return Poll::Ready(Ok(Some(Frame::Data(wire.read.split().freeze()))));
                }
                Self::Chunked(decoder) => match decoder.decode(&mut wire.read, limits)? {
                    Decoded::Data(data) => return Poll::Ready(Ok(Some(Frame::Data(data)))),
                    Decoded::End(trailers) => {
                        *self = Self::Done;
                        return Poll::Ready(Ok(trailers.filter(|_| limits.trailers).map(Frame::Trailers)));
                    }
                    Decoded::NeedMore => {}
                },
                Self::Known(_) | Self::UntilClose => {}
            }
            let want = match self {
                Self::Known(left) => usize::try_from(*left).unwrap_or(usize::MAX),
                _ => usize::MAX,
            };
            if ready!(wire.poll_fill(cx, want))? == 0 {
                if matches!(self, Self::UntilClose) {
                    *self = Self::Done;
                    return Poll::Ready(Ok(None));
                }
                return Poll::Ready(Err(Error::Truncated));
            }
        }
    }
}
