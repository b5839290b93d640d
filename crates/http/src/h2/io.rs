//! The bytes of one connection: read, cut into frames, and written in batches.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use meltemi_net::{Stream, buffers, timer::Deadline};
use tokio::{io::AsyncWrite, time::Instant};

use super::{
    KEEPALIVE_PING, Keepalive,
    frame::{self, HEADER, Header, MAX_FRAME, PREFACE, Reason, kind},
    recv::Payload,
    state::{OUT_HIGH, Phase, Role, SMALL, Shared, State},
};
use crate::ResetReason;

/// How long a peer may take to read our last words.
const CLOSING: Duration = Duration::from_secs(1);

/// What came of moving bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moved {
    /// Frames were read.
    Some,
    /// The connection is over.
    Over,
}

pub(super) struct Io {
    stream: Stream,
    read: BytesMut,
    /// Of the preface, before the first frame.
    preface_left: usize,
    /// Frames were read and the tasks that they woke have not run: what they will write goes with what is there.
    fresh: bool,
    /// The last read filled its buffer: the next is larger.
    busy: bool,
    keepalive: Option<Keepalive>,
    deadline: Deadline,
    /// A PING of ours is not answered yet.
    waiting: bool,
    /// Our last words are on their way, and must be gone by the deadline.
    closing: bool,
}

impl Io {
    pub fn new(stream: Stream, role: Role, keepalive: Option<Keepalive>) -> Self {
        let mut deadline = Deadline::new();
        deadline.set_after(Instant::now(), keepalive.map(|keepalive| keepalive.interval));
        Self {
            stream,
            read: BytesMut::new(),
            preface_left: if role == Role::Server { PREFACE.len() } else { 0 },
            fresh: false,
            busy: false,
            keepalive,
            deadline,
            waiting: false,
            closing: false,
        }
    }

    /// Writes what is due and reads what has come. Pending with the task registered for both.
    pub fn poll(&mut self, cx: &mut Context<'_>, shared: &Shared) -> Poll<Moved> {
        let mut state = shared.state();
        state.driver_runs(cx.waker());
        // The socket's end may have come in the poll that completed the handshake, whose caller did not look.
        if state.over.is_some() && state.phase != Phase::Closing {
            return Poll::Ready(Moved::Over);
        }
        if self.poll_write(cx, &mut state).is_ready() {
            return Poll::Ready(Moved::Over);
        }
        while state.over.is_none() && state.phase != Phase::Closing && state.out.unsent() < OUT_HIGH {
            let want = if self.busy { buffers::LARGE } else { buffers::SMALL };
            match buffers::poll_fill(&mut self.stream, cx, &mut self.read, want) {
                Poll::Pending => break,
                Poll::Ready(Ok(n)) if n > 0 => {
                    self.busy = n >= buffers::SMALL - HEADER || self.busy && n >= buffers::SMALL / 2;
                    self.fresh = true;
                    if let Err(reason) = self.process(&mut state) {
                        state.abort(reason, ResetReason::Protocol);
                        break;
                    }
                    if !state.accepted.is_empty() {
                        return Poll::Ready(Moved::Some);
                    }
                }
                Poll::Ready(Ok(_) | Err(_)) => {
                    state.fail(ResetReason::ConnectionClosed);
                    return Poll::Ready(Moved::Over);
                }
            }
        }
        if self.poll_keepalive(cx, &mut state).is_ready() {
            state.fail(ResetReason::ConnectionClosed);
            return Poll::Ready(Moved::Over);
        }
        if self.fresh {
            self.fresh = false;
            if !state.out.is_sent() {
                state.wake_driver();
            }
        }
        Poll::Pending
    }

    /// Ready when the connection is over.
    fn poll_write(&mut self, cx: &mut Context<'_>, state: &mut State) -> Poll<()> {
        // Just after reading, the streams' tasks come first: their frames leave together with those that are here.
        while !self.fresh && !state.out.is_sent() {
            match state.out.poll_write(&mut self.stream, cx) {
                Poll::Ready(Ok(())) => state.unblock(),
                Poll::Ready(Err(_)) => {
                    state.fail(ResetReason::ConnectionClosed);
                    return Poll::Ready(());
                }
                Poll::Pending => break,
            }
        }
        let ended = match state.phase {
            Phase::Closing => true,
            Phase::Draining => state.live() == 0,
            Phase::Open | Phase::Warned => {
                state.role == Role::Client && (state.going_away || state.retired) && state.live() == 0
            }
        };
        if !ended {
            return Poll::Pending;
        }
        if state.phase == Phase::Draining {
            // GOAWAY has been said.
            state.phase = Phase::Closing;
        }
        if state.phase != Phase::Closing {
            state.abort(Reason::NO_ERROR, ResetReason::ConnectionClosed);
        }
        if !self.closing {
            self.closing = true;
            self.keepalive = None;
            self.deadline.set_after(Instant::now(), Some(CLOSING));
        }
        self.fresh = false;
        let sent = match state.out.poll_write(&mut self.stream, cx) {
            Poll::Ready(Ok(())) => Pin::new(&mut self.stream).poll_shutdown(cx).is_ready(),
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        };
        if !sent && self.deadline.poll(cx).is_pending() {
            return Poll::Pending;
        }
        state.fail(ResetReason::ConnectionClosed);
        Poll::Ready(())
    }

    /// Ready when the peer left a PING without answer.
    fn poll_keepalive(&mut self, cx: &mut Context<'_>, state: &mut State) -> Poll<()> {
        let Some(keepalive) = self.keepalive else { return Poll::Pending };
        if std::mem::take(&mut state.pong) {
            self.waiting = false;
            self.deadline.set_after(Instant::now(), Some(keepalive.interval));
        }
        while self.deadline.poll(cx).is_ready() {
            if self.waiting {
                return Poll::Ready(());
            }
            self.waiting = true;
            self.deadline.set_after(Instant::now(), Some(keepalive.timeout));
            frame::put_ping(state.out.tail(), 0, KEEPALIVE_PING);
            state.wake_driver();
        }
        Poll::Pending
    }

    /// Every whole frame in the read buffer.
    fn process(&mut self, state: &mut State) -> Result<(), Reason> {
        if self.preface_left > 0 {
            let n = self.preface_left.min(self.read.len());
            let from = PREFACE.len() - self.preface_left;
            if self.read[..n] != PREFACE[from..from + n] {
                return Err(Reason::PROTOCOL_ERROR);
            }
            self.read.advance(n);
            self.preface_left -= n;
        }
        while let Some(bytes) = self.read.first_chunk::<HEADER>() {
            let header = Header::parse(bytes);
            if header.length > MAX_FRAME {
                return Err(Reason::FRAME_SIZE_ERROR);
            }
            let end = HEADER + header.length;
            if self.read.len() < end {
                break;
            }
            if header.kind != kind::DATA {
                state.frame(&header, &self.read[HEADER..end])?;
                self.read.advance(end);
            } else if header.length <= SMALL {
                state.data(&header, Payload::Borrowed(&self.read[HEADER..end]))?;
                self.read.advance(end);
            } else {
                self.read.advance(HEADER);
                let payload = self.read.split_to(header.length).freeze();
                state.data(&header, Payload::Owned(payload))?;
            }
        }
        Ok(())
    }
}
