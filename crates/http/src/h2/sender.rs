//! Sending frames under flow control.

use std::{
    collections::VecDeque,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::SendStream;

use super::convert;
use crate::{Error, Frame, ResetReason};

/// Frames waiting for window.
#[derive(Default)]
pub(super) struct Sender {
    queue: VecDeque<Frame>,
    queued: usize,
    finish: bool,
    finished: bool,
}

impl Sender {
    pub fn push(&mut self, frame: Frame) {
        if let Frame::Data(data) = &frame {
            if data.is_empty() {
                return;
            }
            self.queued += data.len();
        }
        self.queue.push_back(frame);
    }

    pub fn finish(&mut self) {
        self.finish = true;
    }

    /// The head already ended the stream.
    pub fn finished_with_head(&mut self) {
        self.finish = true;
        self.finished = true;
    }

    pub fn is_finished(&self) -> bool {
        self.finished
    }

    pub fn queued(&self) -> usize {
        self.queued
    }

    pub fn poll_flush(&mut self, stream: &mut SendStream<Bytes>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        while let Some(front) = self.queue.front_mut() {
            match front {
                Frame::Trailers(trailers) => {
                    stream.send_trailers(convert::map_from_headers(trailers))?;
                    self.queue.clear();
                    self.finished = true;
                }
                Frame::Data(data) => {
                    stream.reserve_capacity(data.len());
                    let room = match ready!(stream.poll_capacity(cx)) {
                        Some(room) => room?,
                        None => return Poll::Ready(Err(Error::Reset(ResetReason::ConnectionClosed))),
                    };
                    let part = data.split_to(room.min(data.len()));
                    let whole = data.is_empty();
                    self.queued -= part.len();
                    if whole {
                        self.queue.pop_front();
                    }
                    let end = self.finish && self.queue.is_empty();
                    stream.send_data(part, end)?;
                    self.finished |= end;
                }
            }
        }
        if self.finish && !self.finished {
            stream.send_data(Bytes::new(), true)?;
            self.finished = true;
        }
        Poll::Ready(Ok(()))
    }
}

/// Receives the next frame of a body, giving its window back at once: the caller took it, and takes no more than it can send on.
pub(super) fn poll_frame(
    body: &mut h2::RecvStream,
    cx: &mut Context<'_>,
    ended: &mut bool,
) -> Poll<Result<Option<Frame>, Error>> {
    if *ended {
        return Poll::Ready(Ok(None));
    }
    if let Some(data) = ready!(body.poll_data(cx)) {
        let data = data?;
        let _ = body.flow_control().release_capacity(data.len());
        *ended = body.is_end_stream();
        return Poll::Ready(Ok(Some(Frame::Data(data))));
    }
    let trailers = ready!(body.poll_trailers(cx))?;
    *ended = true;
    Poll::Ready(Ok(trailers.map(|map| Frame::Trailers(convert::headers_from_map(map)))))
}
