//! Bytes of a connection as frames of an exchange, and back: what a tunnel does at either of its ends.
//!
//! Half close is passed on both ways. Buffers are held only while they have bytes in them.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use meltemi_http::{ClientStream, Error, Frame, ServerStream};
use meltemi_net::{Copied, Stream, buffers};
use tokio::io::AsyncWrite;

/// The side of a tunnel that speaks HTTP.
pub(crate) trait Frames {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, Error>>;
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>>;
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>>;
    fn send_frame(&mut self, frame: Frame);
    fn finish(&mut self);
}

macro_rules! frames {
    ($($stream:ty),*) => {$(
        impl Frames for $stream {
            fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, Error>> {
                <$stream>::poll_frame(self, cx)
            }

            fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
                <$stream>::poll_ready(self, cx)
            }

            fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
                <$stream>::poll_flush(self, cx)
            }

            fn send_frame(&mut self, frame: Frame) {
                <$stream>::send_frame(self, frame);
            }

            fn finish(&mut self) {
                <$stream>::finish(self);
            }
        }
    )*};
}

frames!(ServerStream, ClientStream);

/// Which side broke.
#[derive(Debug)]
pub(crate) enum Broken {
    Bytes(io::Error),
    Frames(Error),
}

/// Both directions of a tunnel: `a` are the bytes, `b` the frames.
pub(crate) struct Relay<'a> {
    copied: &'a Copied,
    pending: Bytes,
    buffer: BytesMut,
    frames_ended: bool,
    bytes_closed: bool,
    bytes_ended: bool,
}

impl<'a> Relay<'a> {
    pub fn new(copied: &'a Copied) -> Self {
        Self {
            copied,
            pending: Bytes::new(),
            buffer: BytesMut::new(),
            frames_ended: false,
            bytes_closed: false,
            bytes_ended: false,
        }
    }

    /// Bytes that went through, both ways.
    pub fn moved(&self) -> u64 {
        self.copied.a_to_b.get() + self.copied.b_to_a.get()
    }

    /// Ready when both sides have closed in order, or one broke.
    pub fn poll(
        &mut self,
        cx: &mut Context<'_>,
        frames: &mut impl Frames,
        bytes: &mut Stream,
    ) -> Poll<Result<(), Broken>> {
        if let Poll::Ready(Err(broken)) = self.poll_to_bytes(cx, frames, bytes) {
            return Poll::Ready(Err(broken));
        }
        if let Poll::Ready(Err(broken)) = self.poll_to_frames(cx, frames, bytes) {
            return Poll::Ready(Err(broken));
        }
        match frames.poll_flush(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(Broken::Frames(error))),
            Poll::Ready(Ok(())) if self.bytes_closed && self.bytes_ended => Poll::Ready(Ok(())),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }

    fn poll_to_bytes(
        &mut self,
        cx: &mut Context<'_>,
        frames: &mut impl Frames,
        bytes: &mut Stream,
    ) -> Poll<Result<(), Broken>> {
        while !self.bytes_closed {
            if !self.pending.is_empty() {
                let n = ready!(Pin::new(&mut *bytes).poll_write(cx, &self.pending)).map_err(Broken::Bytes)?;
                if n == 0 {
                    return Poll::Ready(Err(Broken::Bytes(io::ErrorKind::WriteZero.into())));
                }
                self.pending.advance(n);
                self.copied.b_to_a.set(self.copied.b_to_a.get() + n as u64);
            } else if self.frames_ended {
                ready!(Pin::new(&mut *bytes).poll_shutdown(cx)).map_err(Broken::Bytes)?;
                self.bytes_closed = true;
            } else {
                match frames.poll_frame(cx) {
                    Poll::Ready(Ok(Some(Frame::Data(data)))) => self.pending = data,
                    Poll::Ready(Ok(Some(Frame::Trailers(_)) | None)) => self.frames_ended = true,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(Broken::Frames(error))),
                    Poll::Pending => return Pin::new(&mut *bytes).poll_flush(cx).map_err(Broken::Bytes),
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_to_frames(
        &mut self,
        cx: &mut Context<'_>,
        frames: &mut impl Frames,
        bytes: &mut Stream,
    ) -> Poll<Result<(), Broken>> {
        while !self.bytes_ended {
            ready!(frames.poll_ready(cx)).map_err(Broken::Frames)?;
            match ready!(buffers::poll_fill(bytes, cx, &mut self.buffer, buffers::SMALL)).map_err(Broken::Bytes)? {
                0 => {
                    frames.finish();
                    self.bytes_ended = true;
                }
                n => {
                    self.copied.a_to_b.set(self.copied.a_to_b.get() + n as u64);
                    frames.send_frame(Frame::Data(self.buffer.split().freeze()));
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}
