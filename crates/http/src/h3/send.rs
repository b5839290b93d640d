//! What goes out on a request stream.

use std::{
    collections::VecDeque,
    pin::pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use quinn::{SendStream, WriteError};

use super::{Code, frame, qpack};
use crate::{Error, Frame, Headers, ResetReason};

pub struct Sending {
    stream: SendStream,
    queue: VecDeque<Bytes>,
    queued: usize,
    /// Nothing is queued after what is.
    last: bool,
    finished: bool,
    /// The client wants no more, or is gone, or we gave up.
    over: Option<ResetReason>,
}

impl Sending {
    pub fn new(stream: SendStream) -> Self {
        Self { stream, queue: VecDeque::new(), queued: 0, last: false, finished: false, over: None }
    }

    pub fn head(&mut self, status: StatusCode, headers: &Headers) {
        let mut section = BytesMut::with_capacity(headers.byte_size() + 64);
        qpack::response(status, headers, &mut section);
        self.frame(frame::HEADERS, section.freeze());
    }

    pub fn push(&mut self, frame: Frame) {
        match frame {
            Frame::Data(data) if data.is_empty() => {}
            Frame::Data(data) => self.frame(frame::DATA, data),
            Frame::Trailers(trailers) => {
                let mut section = BytesMut::with_capacity(trailers.byte_size() + 64);
                qpack::trailers(&trailers, &mut section);
                self.frame(frame::HEADERS, section.freeze());
                self.last = true;
            }
        }
    }

    fn frame(&mut self, kind: u64, payload: Bytes) {
        if self.over.is_some() {
            return;
        }
        let mut header = BytesMut::with_capacity(16);
        frame::put_header(&mut header, kind, payload.len());
        self.queued += header.len() + payload.len();
        self.queue.push_back(header.freeze());
        self.queue.push_back(payload);
    }

    pub fn finish(&mut self) {
        self.last = true;
    }

    /// All of the response has been handed to the transport.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    pub fn is_over(&self) -> bool {
        self.finished || self.over.is_some()
    }

    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if let Some(reason) = self.over {
            return Poll::Ready(Err(Error::Reset(reason)));
        }
        while !self.queue.is_empty() {
            let written = ready!(pin!(self.stream.write_chunks(self.queue.make_contiguous())).poll(cx));
            match written {
                Ok(written) => {
                    self.queued -= written.bytes;
                    self.queue.drain(..written.chunks);
                }
                Err(error) => return Poll::Ready(Err(Error::Reset(self.fail(&error)))),
            }
        }
        if self.last && !self.finished {
            self.finished = true;
            // An error means that the client has stopped reading.
            let _ = self.stream.finish();
        }
        Poll::Ready(Ok(()))
    }

    /// Ready while less than the watermark is queued.
    pub fn poll_ready(&mut self, watermark: usize, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match self.poll_flush(cx) {
            Poll::Pending if self.queued < watermark => Poll::Ready(Ok(())),
            polled => polled,
        }
    }

    fn fail(&mut self, error: &WriteError) -> ResetReason {
        let reason = match error {
            WriteError::Stopped(_) => ResetReason::Remote,
            WriteError::ConnectionLost(_) | WriteError::ClosedStream | WriteError::ZeroRttRejected => {
                ResetReason::ConnectionClosed
            }
        };
        self.give_up(reason);
        reason
    }

    pub fn give_up(&mut self, reason: ResetReason) {
        self.over = Some(reason);
        self.queue.clear();
        self.queued = 0;
    }

    /// Breaks the response off, unless all of it is on its way.
    pub fn reset(&mut self, code: Code) {
        if !self.is_over() {
            self.give_up(ResetReason::Local);
            // An error means that the stream is closed already.
            let _ = self.stream.reset(code.wire());
        }
    }

    /// Resolves when the client wants no more or is gone, and when it has taken everything.
    pub fn stopped(&self) -> impl Future<Output = ()> + 'static {
        let stopped = self.stream.stopped();
        async move {
            // Both of its outcomes and its error mean that there is no one left to send to.
            let _ = stopped.await;
        }
    }
}
