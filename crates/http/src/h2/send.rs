//! Frames to the peer, under flow control.

use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http::StatusCode;

use super::{
    frame::{self, MAX_FRAME, flag, kind},
    head,
    hpack::Encoder,
    state::{Item, OUT_LOW, Receiving, State},
};
use crate::{Error, Frame, Headers, RequestHead, ResetReason};

impl State {
    /// Encodes a header block as HEADERS and as many CONTINUATION as it takes.
    pub fn put_block(&mut self, id: u32, end: bool, put: impl FnOnce(&mut Encoder, &mut BytesMut)) {
        let max = self.peer.max_frame;
        let out = self.out.tail();
        let at = out.len();
        let end_stream = if end { flag::END_STREAM } else { 0 };
        frame::put_header(out, 0, (kind::HEADERS, flag::END_HEADERS | end_stream), id);
        let from = out.len();
        put(&mut self.encoder, out);
        let length = out.len() - from;
        if length <= max {
            frame::set_length(out, at, length);
        } else {
            let block = out.split_off(from);
            out.truncate(at);
            let mut parts = block.chunks(max).peekable();
            let mut header = (kind::HEADERS, end_stream);
            while let Some(part) = parts.next() {
                if parts.peek().is_none() {
                    header.1 |= flag::END_HEADERS;
                }
                frame::put_header(out, part.len(), header, id);
                out.extend_from_slice(part);
                header = (kind::CONTINUATION, 0);
            }
        }
        self.wake_driver();
    }

    pub fn send_response(&mut self, slot: u32, status: StatusCode, headers: &Headers, end: bool) {
        let stream = &mut self.streams[slot as usize];
        if stream.reset.is_some() || self.over.is_some() {
            return;
        }
        let id = stream.id;
        stream.finish |= end;
        stream.finished |= end;
        self.put_block(id, end, |encoder, out| head::put_response(encoder, status, headers, out));
        if end {
            self.close_if_ended(slot);
        }
    }

    /// Opens a client stream, or puts it in the line of those that wait for the peer to allow another.
    pub fn send_request(&mut self, slot: u32, head: &RequestHead, end: bool) {
        self.set_method(slot, &head.method);
        if self.going_away || self.over.is_some() {
            return self.detach(slot, ResetReason::Refused);
        }
        if self.ids.len() < self.peer.max_streams && self.waiting.is_empty() {
            return self.open(slot, head, end);
        }
        self.streams[slot as usize].unopened = Some(Box::new((head.clone(), end)));
        self.waiting.push_back(slot);
    }

    fn open(&mut self, slot: u32, head: &RequestHead, end: bool) {
        let id = self.next_own;
        self.next_own += 2;
        self.ids.insert(id, slot);
        let stream = &mut self.streams[slot as usize];
        stream.id = id;
        stream.send_window = self.peer.initial_window;
        stream.finish |= end;
        stream.finished |= end;
        self.put_block(id, end, |encoder, out| head::put_request(encoder, head, out));
    }

    /// Opens as many waiting streams as the peer allows now.
    pub fn open_waiting(&mut self) {
        while self.ids.len() < self.peer.max_streams && !self.going_away && self.over.is_none() {
            let Some(slot) = self.waiting.pop_front() else { return };
            if let Some(waiting) = self.streams[slot as usize].unopened.take() {
                self.open(slot, &waiting.0, waiting.1);
                self.pump(slot);
                self.streams[slot as usize].wake();
            }
        }
    }

    pub fn send_frame(&mut self, slot: u32, frame: Frame) {
        let stream = &mut self.streams[slot as usize];
        if stream.reset.is_some() || stream.finish {
            return;
        }
        if let Frame::Data(data) = &frame {
            if data.is_empty() {
                return;
            }
            stream.queued += data.len();
        }
        stream.sending.push_back(frame);
    }

    /// [`Self::pump`] on the connection's behalf: the stream's task learns that there is room.
    pub fn pump_and_wake(&mut self, slot: u32) {
        if self.pump(slot) {
            self.streams[slot as usize].wake();
        }
    }

    /// Moves what a stream has queued into the outgoing buffer, as far as windows and the buffer allow. Returns whether anything
    /// moved.
    fn pump(&mut self, slot: u32) -> bool {
        let stream = &mut self.streams[slot as usize];
        if stream.id == 0 || stream.finished || stream.reset.is_some() {
            return false;
        }
        let id = stream.id;
        let mut moved = false;
        loop {
            let stream = &mut self.streams[slot as usize];
            match stream.sending.front_mut() {
                None => {
                    if stream.finish {
                        frame::put_header(self.out.tail(), 0, (kind::DATA, flag::END_STREAM), id);
                        stream.finished = true;
                        moved = true;
                    }
                    break;
                }
                Some(Frame::Trailers(_)) => {
                    let Some(Frame::Trailers(trailers)) = stream.sending.pop_front() else { break };
                    stream.sending.clear();
                    stream.finish = true;
                    stream.finished = true;
                    moved = true;
                    self.put_block(id, true, |encoder, out| head::put_trailers(encoder, &trailers, out));
                    break;
                }
                Some(Frame::Data(data)) => {
                    let most = stream.send_window.min(MAX_FRAME.min(data.len()) as i64);
                    let room = most.min(self.send_window);
                    if most > 0 && (room <= 0 || self.out.unsent() >= OUT_LOW) {
                        if !stream.blocked {
                            stream.blocked = true;
                            self.blocked.push_back((slot, id));
                        }
                        break;
                    }
                    if room <= 0 {
                        break;
                    }
                    let part = data.split_to(room as usize);
                    let whole = data.is_empty();
                    let last = whole && stream.finish && stream.sending.len() == 1;
                    if whole {
                        stream.sending.pop_front();
                    }
                    stream.queued -= part.len();
                    stream.send_window -= room;
                    stream.finished = last;
                    self.put_data(id, part, last);
                    moved = true;
                    if last {
                        break;
                    }
                }
            }
        }
        if moved {
            self.wake_driver();
            self.close_if_ended(slot);
        }
        moved
    }

    fn put_data(&mut self, id: u32, data: Bytes, end: bool) {
        self.send_window -= data.len() as i64;
        let flags = if end { flag::END_STREAM } else { 0 };
        frame::put_header(self.out.tail(), data.len(), (kind::DATA, flags), id);
        self.out.data(data);
        self.budgets.useful();
    }

    /// Serves the streams that wait for the connection, in turn.
    pub fn unblock(&mut self) {
        while self.send_window > 0 && self.out.unsent() < OUT_LOW {
            let Some((slot, id)) = self.blocked.pop_front() else { return };
            let Some(stream) = self.streams.get_mut(slot as usize) else { continue };
            if stream.id == id {
                stream.blocked = false;
                self.pump_and_wake(slot);
            }
        }
    }

    /// Room for more frames: less than `limit` bytes are queued.
    pub fn poll_ready(&mut self, slot: u32, limit: usize, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.streams[slot as usize].queued <= limit {
            return Poll::Ready(Ok(()));
        }
        self.poll_flush(slot, cx)
    }

    /// Ready when everything queued has left the stream.
    pub fn poll_flush(&mut self, slot: u32, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if let Some(error) = self.failure(slot) {
            return Poll::Ready(Err(error));
        }
        self.pump(slot);
        let stream = &mut self.streams[slot as usize];
        if stream.sending.is_empty() && stream.unopened.is_none() && stream.finish == stream.finished {
            return Poll::Ready(Ok(()));
        }
        stream.wait(cx.waker());
        Poll::Pending
    }

    /// The next piece of the body; `None` at its end.
    pub fn poll_frame(&mut self, slot: u32, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, Error>> {
        let stream = &mut self.streams[slot as usize];
        let data = match stream.received.pop_front() {
            Some(Item::Data(data)) => data,
            Some(Item::Small(data)) => data.freeze(),
            Some(Item::Trailers(trailers)) => return Poll::Ready(Ok(Some(Frame::Trailers(trailers)))),
            Some(Item::Head(_)) => return Poll::Ready(Err(Error::Reset(ResetReason::Protocol))),
            None if stream.receiving == Receiving::Ended => return Poll::Ready(Ok(None)),
            None => {
                if let Some(error) = self.failure(slot) {
                    return Poll::Ready(Err(error));
                }
                self.streams[slot as usize].wait(cx.waker());
                return Poll::Pending;
            }
        };
        self.took(slot, data.len());
        Poll::Ready(Ok(Some(Frame::Data(data))))
    }

    /// Gives windows back at once: the caller took the data, and takes no more than it can send on.
    fn took(&mut self, slot: u32, bytes: usize) {
        let stream = &mut self.streams[slot as usize];
        stream.taken += bytes as u32;
        if stream.receiving != Receiving::Ended && stream.reset.is_none() && stream.taken >= self.stream_window / 2 {
            let taken = std::mem::take(&mut stream.taken);
            stream.receive_window += i64::from(taken);
            let id = stream.id;
            frame::put_window_update(self.out.tail(), id, taken);
            self.wake_driver();
        }
        self.give_back(bytes);
    }

    /// Nothing of the peer's message is left to take.
    pub fn ended(&self, slot: u32) -> bool {
        let stream = &self.streams[slot as usize];
        stream.receiving == Receiving::Ended && stream.received.is_empty()
    }
}
