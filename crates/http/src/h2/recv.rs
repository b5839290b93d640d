//! Frames from the peer. An `Err` ends the connection with GOAWAY; what is wrong with one stream resets that stream.

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode};

use super::{
    DRAIN_PING, KEEPALIVE_PING,
    frame::{self, Header, MAX_FRAME, MAX_WINDOW, Reason, flag, kind, setting, u32_at, unpadded},
    head::{self, Refused},
    state::{Block, Item, Phase, RESET_SLACK, Receiving, Role, SMALL, State},
};
use crate::{Headers, ResetReason};

/// The payload of a DATA frame: in the read buffer, or cut out of it.
pub(super) enum Payload<'a> {
    Borrowed(&'a [u8]),
    Owned(Bytes),
}

/// What an id of a frame stands for.
enum Which {
    Slot(u32),
    /// Never opened.
    Idle,
    Closed,
}

impl State {
    /// Any frame but DATA, whose header is known to fit.
    pub fn frame(&mut self, header: &Header, payload: &[u8]) -> Result<(), Reason> {
        self.expect(header)?;
        match header.kind {
            kind::HEADERS => self.headers(header, payload),
            kind::CONTINUATION => self.continuation(header, payload),
            kind::PRIORITY => self.priority(header, payload),
            kind::RST_STREAM => self.reset(header, payload),
            kind::SETTINGS => self.settings(header, payload),
            kind::PUSH_PROMISE => Err(Reason::PROTOCOL_ERROR),
            kind::PING => self.ping(header, payload),
            kind::GOAWAY => self.goaway(header, payload),
            kind::WINDOW_UPDATE => self.window_update(header, payload),
            _ => Ok(self.budgets.control()?),
        }
    }

    /// SETTINGS come first, and nothing comes between the parts of a header block.
    fn expect(&mut self, header: &Header) -> Result<(), Reason> {
        if !self.settings_seen && (header.kind != kind::SETTINGS || header.has(flag::ACK)) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        match &self.block {
            Some(block) if header.kind != kind::CONTINUATION || header.stream != block.stream => {
                Err(Reason::PROTOCOL_ERROR)
            }
            None if header.kind == kind::CONTINUATION => Err(Reason::PROTOCOL_ERROR),
            Some(_) | None => Ok(()),
        }
    }

    fn which(&self, id: u32) -> Which {
        if let Some(slot) = self.ids.get(&id) {
            return Which::Slot(*slot);
        }
        let opened = match self.role {
            Role::Server => id % 2 == 1 && id <= self.last_peer,
            Role::Client => id % 2 == 1 && id < self.next_own,
        };
        if opened { Which::Closed } else { Which::Idle }
    }

    /// The stream has broken a rule of its own.
    fn stream_error(&mut self, slot: u32, reason: Reason) -> Result<(), Reason> {
        self.budgets.reset()?;
        self.reset_stream(slot, reason, ResetReason::Protocol);
        Ok(())
    }

    pub fn data(&mut self, header: &Header, payload: Payload<'_>) -> Result<(), Reason> {
        self.expect(header)?;
        if header.stream == 0 {
            return Err(Reason::PROTOCOL_ERROR);
        }
        self.receive_window -= header.length as i64;
        if self.receive_window < 0 {
            return Err(Reason::FLOW_CONTROL_ERROR);
        }
        let slot = match self.which(header.stream) {
            Which::Slot(slot) => slot,
            Which::Idle => return Err(Reason::PROTOCOL_ERROR),
            Which::Closed => return self.data_of_closed(header),
        };
        let end = header.has(flag::END_STREAM);
        let payload = match payload {
            Payload::Owned(bytes) if header.has(flag::PADDED) => {
                let inner = unpadded(header, &bytes)?;
                Payload::Owned(bytes.slice_ref(inner))
            }
            Payload::Borrowed(bytes) => Payload::Borrowed(unpadded(header, bytes)?),
            Payload::Owned(bytes) => Payload::Owned(bytes),
        };
        let length = match &payload {
            Payload::Owned(bytes) => bytes.len(),
            Payload::Borrowed(bytes) => bytes.len(),
        };
        if length == 0 && !end {
            self.budgets.control()?
        } else {
            self.budgets.useful()
        }
        // Padding is taken by nobody else.
        self.give_back(header.length - length);
        if let Err(reason) = self.admit(slot, header.length, length, end) {
            self.give_back(length);
            return self.stream_error(slot, reason);
        }
        let stream = &mut self.streams[slot as usize];
        stream.taken += (header.length - length) as u32;
        if length > 0 {
            match payload {
                Payload::Owned(bytes) => stream.received.push_back(Item::Data(bytes)),
                Payload::Borrowed(bytes) => match stream.received.back_mut() {
                    Some(Item::Small(last)) if last.len() < SMALL => last.extend_from_slice(bytes),
                    _ => stream.received.push_back(Item::Small(BytesMut::from(bytes))),
                },
            }
        }
        if end {
            stream.receiving = Receiving::Ended;
        }
        stream.wake();
        if end {
            self.close_if_ended(slot);
        }
        Ok(())
    }

    /// Whether data may come on this stream now.
    fn admit(&mut self, slot: u32, whole: usize, length: usize, end: bool) -> Result<(), Reason> {
        let stream = &mut self.streams[slot as usize];
        match stream.receiving {
            Receiving::Ended => return Err(Reason::STREAM_CLOSED),
            Receiving::Head => return Err(Reason::PROTOCOL_ERROR),
            Receiving::Body => {}
        }
        stream.receive_window -= whole as i64;
        if stream.receive_window < 0 {
            return Err(Reason::FLOW_CONTROL_ERROR);
        }
        if let Some(left) = &mut stream.length_left {
            *left = left.checked_sub(length as u64).ok_or(Reason::PROTOCOL_ERROR)?;
            if end && *left > 0 {
                return Err(Reason::PROTOCOL_ERROR);
            }
        }
        Ok(())
    }

    fn data_of_closed(&mut self, header: &Header) -> Result<(), Reason> {
        self.give_back(header.length);
        if header.length == 0 {
            self.budgets.control()?;
        }
        if self.role == Role::Server && !self.is_forgotten(header.stream) {
            self.budgets.reset()?;
            self.refuse(header.stream, Reason::STREAM_CLOSED);
        }
        Ok(())
    }

    fn headers(&mut self, header: &Header, payload: &[u8]) -> Result<(), Reason> {
        if header.stream == 0 {
            return Err(Reason::PROTOCOL_ERROR);
        }
        let mut fragment = unpadded(header, payload)?;
        let mut depends_on_itself = false;
        if header.has(flag::PRIORITY) {
            let (priority, rest) = fragment.split_at_checked(5).ok_or(Reason::FRAME_SIZE_ERROR)?;
            depends_on_itself = u32_at(priority, 0) & 0x7fff_ffff == header.stream;
            fragment = rest;
        }
        if depends_on_itself {
            return Err(Reason::PROTOCOL_ERROR);
        }
        let end_stream = header.has(flag::END_STREAM);
        if header.has(flag::END_HEADERS) {
            return self.block(header.stream, end_stream, fragment);
        }
        self.block = Some(Block { stream: header.stream, end_stream, bytes: fragment.to_vec() });
        Ok(())
    }

    /// A block may be no larger than what it may decode to, and a frame; each part costs as a frame without use
    /// (CVE-2024-27316).
    fn continuation(&mut self, header: &Header, payload: &[u8]) -> Result<(), Reason> {
        self.budgets.control()?;
        let Some(mut block) = self.block.take() else { return Err(Reason::PROTOCOL_ERROR) };
        block.bytes.extend_from_slice(payload);
        if block.bytes.len() > self.limits.bytes + MAX_FRAME {
            return Err(Reason::ENHANCE_YOUR_CALM);
        }
        if header.has(flag::END_HEADERS) {
            return self.block(block.stream, block.end_stream, &block.bytes);
        }
        self.block = Some(block);
        Ok(())
    }

    /// A complete header block.
    fn block(&mut self, id: u32, end: bool, block: &[u8]) -> Result<(), Reason> {
        self.budgets.useful();
        match (self.which(id), self.role) {
            (Which::Slot(slot), Role::Server) => self.trailers(slot, end, block),
            (Which::Slot(slot), Role::Client) if self.streams[slot as usize].receiving == Receiving::Head => {
                self.response(slot, end, block)
            }
            (Which::Slot(slot), Role::Client) => self.trailers(slot, end, block),
            (Which::Idle, Role::Server) if id % 2 == 1 => self.request(id, end, block),
            (Which::Idle, _) => Err(Reason::PROTOCOL_ERROR),
            (Which::Closed, role) => {
                if role == Role::Server && !self.is_forgotten(id) {
                    return Err(Reason::STREAM_CLOSED);
                }
                self.budgets.control()?;
                self.decoder.decode(block, |_, _| false).map_err(|_| Reason::COMPRESSION_ERROR)
            }
        }
    }

    fn request(&mut self, id: u32, end: bool, block: &[u8]) -> Result<(), Reason> {
        self.last_peer = id;
        let request = head::request(&mut self.decoder, block, self.limits, self.connect)
            .map_err(|_| Reason::COMPRESSION_ERROR)?;
        if self.phase == Phase::Draining {
            self.refuse(id, Reason::REFUSED_STREAM);
            return Ok(());
        }
        if self.ids.len() >= self.max_streams || self.live() >= self.max_streams + RESET_SLACK {
            self.budgets.reset()?;
            self.refuse(id, Reason::REFUSED_STREAM);
            return Ok(());
        }
        let (head, length) = match request {
            Ok((_, Some(1..))) if end => return self.refuse_request(id, Refused::Malformed),
            Ok(request) => request,
            Err(refused) => return self.refuse_request(id, refused),
        };
        let slot = self.occupy(id);
        let stream = &mut self.streams[slot as usize];
        stream.receiving = if end { Receiving::Ended } else { Receiving::Body };
        stream.length_left = length;
        self.accepted.push_back((slot, head));
        Ok(())
    }

    fn refuse_request(&mut self, id: u32, refused: Refused) -> Result<(), Reason> {
        self.budgets.reset()?;
        let reason = match refused {
            Refused::Malformed => Reason::PROTOCOL_ERROR,
            Refused::TooLarge => {
                let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                self.put_block(id, true, |encoder, out| head::put_response(encoder, status, &Headers::new(), out));
                Reason::NO_ERROR
            }
        };
        self.refuse(id, reason);
        Ok(())
    }

    fn response(&mut self, slot: u32, end: bool, block: &[u8]) -> Result<(), Reason> {
        let response = head::response(&mut self.decoder, block, self.limits).map_err(|_| Reason::COMPRESSION_ERROR)?;
        let Ok((head, length)) = response else { return self.stream_error(slot, Reason::PROTOCOL_ERROR) };
        let stream = &mut self.streams[slot as usize];
        if head.status.is_informational() {
            if end {
                return self.stream_error(slot, Reason::PROTOCOL_ERROR);
            }
            // Any number of them is allowed; so many that nobody takes them are a flood.
            if stream.received.len() >= INTERIM {
                return Err(Reason::ENHANCE_YOUR_CALM);
            }
        } else {
            let bodiless = stream.bodiless || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
            stream.length_left = if bodiless { None } else { length };
            if end && matches!(stream.length_left, Some(1..)) {
                return self.stream_error(slot, Reason::PROTOCOL_ERROR);
            }
            stream.receiving = if end { Receiving::Ended } else { Receiving::Body };
        }
        stream.received.push_back(Item::Head(head));
        stream.wake();
        self.close_if_ended(slot);
        Ok(())
    }

    fn trailers(&mut self, slot: u32, end: bool, block: &[u8]) -> Result<(), Reason> {
        let trailers = head::trailers(&mut self.decoder, block, self.limits).map_err(|_| Reason::COMPRESSION_ERROR)?;
        let stream = &mut self.streams[slot as usize];
        if stream.receiving == Receiving::Ended {
            return self.stream_error(slot, Reason::STREAM_CLOSED);
        }
        let Ok(trailers) = trailers else { return self.stream_error(slot, Reason::PROTOCOL_ERROR) };
        if !end || matches!(stream.length_left, Some(1..)) {
            return self.stream_error(slot, Reason::PROTOCOL_ERROR);
        }
        stream.receiving = Receiving::Ended;
        stream.received.push_back(Item::Trailers(trailers));
        stream.wake();
        self.close_if_ended(slot);
        Ok(())
    }

    fn priority(&mut self, header: &Header, payload: &[u8]) -> Result<(), Reason> {
        self.budgets.control()?;
        if header.stream == 0 {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if payload.len() != 5 {
            return Err(Reason::FRAME_SIZE_ERROR);
        }
        // Otherwise ignored (RFC 9113 5.3.2).
        if u32_at(payload, 0) & 0x7fff_ffff == header.stream { Err(Reason::PROTOCOL_ERROR) } else { Ok(()) }
    }

    fn reset(&mut self, header: &Header, payload: &[u8]) -> Result<(), Reason> {
        if header.stream == 0 {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if payload.len() != 4 {
            return Err(Reason::FRAME_SIZE_ERROR);
        }
        let reason = Reason(u32_at(payload, 0));
        match self.which(header.stream) {
            Which::Idle => Err(Reason::PROTOCOL_ERROR),
            Which::Closed => Ok(self.budgets.control()?),
            Which::Slot(slot) => {
                self.budgets.reset()?;
                let seen_as = if reason == Reason::REFUSED_STREAM { ResetReason::Refused } else { ResetReason::Remote };
                self.detach(slot, seen_as);
                Ok(())
            }
        }
    }

    fn settings(&mut self, header: &Header, payload: &[u8]) -> Result<(), Reason> {
        if header.stream != 0 {
            return Err(Reason::PROTOCOL_ERROR);
        }
        self.budgets.control()?;
        if header.has(flag::ACK) {
            return if payload.is_empty() { Ok(()) } else { Err(Reason::FRAME_SIZE_ERROR) };
        }
        let (settings, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(Reason::FRAME_SIZE_ERROR);
        }
        for bytes in settings {
            self.setting(u16::from_be_bytes([bytes[0], bytes[1]]), u32_at(bytes, 2))?;
        }
        self.settings_seen = true;
        frame::put_header(self.out.tail(), 0, (kind::SETTINGS, flag::ACK), 0);
        self.open_waiting();
        self.wake_driver();
        Ok(())
    }

    fn setting(&mut self, id: u16, value: u32) -> Result<(), Reason> {
        match id {
            setting::HEADER_TABLE_SIZE => self.encoder.set_capacity(value as usize),
            setting::ENABLE_PUSH if value > u32::from(self.role == Role::Server) => {
                return Err(Reason::PROTOCOL_ERROR);
            }
            setting::MAX_CONCURRENT_STREAMS => self.peer.max_streams = value as usize,
            setting::INITIAL_WINDOW_SIZE => self.initial_window(i64::from(value))?,
            setting::MAX_FRAME_SIZE => {
                if !(16_384..=16_777_215).contains(&value) {
                    return Err(Reason::PROTOCOL_ERROR);
                }
                self.peer.max_frame = value as usize;
            }
            setting::ENABLE_CONNECT_PROTOCOL if value > 1 => return Err(Reason::PROTOCOL_ERROR),
            _ => {}
        }
        Ok(())
    }

    /// RFC 9113 6.9.2: it moves the windows of open streams too.
    fn initial_window(&mut self, size: i64) -> Result<(), Reason> {
        if size > MAX_WINDOW {
            return Err(Reason::FLOW_CONTROL_ERROR);
        }
        let change = size - self.peer.initial_window;
        self.peer.initial_window = size;
        let mut slots = Vec::with_capacity(self.ids.len());
        for slot in self.ids.values() {
            let window = &mut self.streams[*slot as usize].send_window;
            *window += change;
            if *window > MAX_WINDOW {
                return Err(Reason::FLOW_CONTROL_ERROR);
            }
            slots.push(*slot);
        }
        if change > 0 {
            for slot in slots {
                self.pump_and_wake(slot);
            }
        }
        Ok(())
    }

    fn ping(&mut self, header: &Header, payload: &[u8]) -> Result<(), Reason> {
        if header.stream != 0 {
            return Err(Reason::PROTOCOL_ERROR);
        }
        let payload = <[u8; 8]>::try_from(payload).map_err(|_| Reason::FRAME_SIZE_ERROR)?;
        self.budgets.control()?;
        if !header.has(flag::ACK) {
            frame::put_ping(self.out.tail(), flag::ACK, payload);
            self.wake_driver();
        } else if payload == DRAIN_PING {
            self.last_goaway();
        } else if payload == KEEPALIVE_PING {
            self.pong = true;
        }
        Ok(())
    }

    fn goaway(&mut self, header: &Header, payload: &[u8]) -> Result<(), Reason> {
        if header.stream != 0 {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if payload.len() < 8 {
            return Err(Reason::FRAME_SIZE_ERROR);
        }
        self.budgets.control()?;
        self.going_away = true;
        if self.role == Role::Client {
            let last = u32_at(payload, 0) & 0x7fff_ffff;
            let refused: Vec<u32> = self.ids.iter().filter(|(id, _)| **id > last).map(|(_, slot)| *slot).collect();
            for slot in refused {
                self.detach(slot, ResetReason::Refused);
            }
            for slot in std::mem::take(&mut self.waiting) {
                self.detach(slot, ResetReason::Refused);
            }
            self.wake_driver();
        }
        Ok(())
    }

    fn window_update(&mut self, header: &Header, payload: &[u8]) -> Result<(), Reason> {
        if payload.len() != 4 {
            return Err(Reason::FRAME_SIZE_ERROR);
        }
        self.budgets.control()?;
        let increment = i64::from(u32_at(payload, 0) & 0x7fff_ffff);
        if header.stream == 0 {
            self.send_window += increment;
            if increment == 0 {
                return Err(Reason::PROTOCOL_ERROR);
            }
            if self.send_window > MAX_WINDOW {
                return Err(Reason::FLOW_CONTROL_ERROR);
            }
            self.unblock();
            return Ok(());
        }
        let slot = match self.which(header.stream) {
            Which::Idle => return Err(Reason::PROTOCOL_ERROR),
            Which::Closed => return Ok(()),
            Which::Slot(slot) => slot,
        };
        let stream = &mut self.streams[slot as usize];
        stream.send_window += increment;
        if increment == 0 {
            return self.stream_error(slot, Reason::PROTOCOL_ERROR);
        }
        if stream.send_window > MAX_WINDOW {
            return self.stream_error(slot, Reason::FLOW_CONTROL_ERROR);
        }
        self.pump_and_wake(slot);
        Ok(())
    }

    /// Whether a response to `method` has a body of the length that its head says.
    pub fn set_method(&mut self, slot: u32, method: &Method) {
        self.streams[slot as usize].bodiless = *method == Method::HEAD;
    }
}

/// Interim responses that may wait to be taken.
const INTERIM: usize = 32;
