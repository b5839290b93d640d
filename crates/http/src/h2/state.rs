//! What both ends of a connection know: its streams, windows and tables.
//!
//! One `RefCell` of one thread, shared by the task that moves the connection's bytes and by the handles of its streams. Handles put
//! frames straight into the outgoing buffer and wake that task once; it runs after the stream tasks that were ready, so that what
//! many of them wrote leaves in one system call. A stream costs a slot, which is used again.

use std::{
    cell::{RefCell, RefMut},
    collections::{HashMap, VecDeque},
    hash::{BuildHasherDefault, Hasher},
    rc::Rc,
    task::Waker,
};

use bytes::{Bytes, BytesMut};

use super::{
    Options,
    frame::{self, DEFAULT_WINDOW, MAX_FRAME, Reason},
    head,
    hpack::{Decoder, Encoder},
    limits::{Budgets, Flood},
    out::Out,
};
use crate::{Error, Frame, Headers, RequestHead, ResetReason, ResponseHead};

/// Bytes waiting for the socket beyond which streams keep their data to themselves.
pub(super) const OUT_LOW: usize = 64 * 1024;
/// Bytes waiting for the socket beyond which the peer is no longer read: it does not read us.
pub(super) const OUT_HIGH: usize = 256 * 1024;
/// Streams that we reset are remembered, because frames may be on their way.
const FORGOTTEN: usize = 256;
/// Streams that the peer has reset and our side still works on, beyond those it may have open.
pub(super) const RESET_SLACK: usize = 64;
/// Received data up to this size is copied, so that it does not hold the read buffer.
pub(super) const SMALL: usize = 2 * 1024;
/// The SETTINGS_HEADER_TABLE_SIZE that we leave at its default.
const TABLE: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Client,
    Server,
}

/// Spreads stream ids. A peer that chooses them to collide gains little: few are open at once.
#[derive(Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x517c_c1b7_2722_0a95);
        }
    }

    fn write_u32(&mut self, n: u32) {
        self.0 = u64::from(n).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

/// What arrived on a stream and was not taken yet.
pub(super) enum Item {
    Head(ResponseHead),
    Data(Bytes),
    /// Small pieces are joined, so that a peer that sends bytes one by one costs their number and no more.
    Small(BytesMut),
    Trailers(Headers),
}

/// What the next HEADERS of a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receiving {
    Head,
    Body,
    Ended,
}

/// One stream. Its slot belongs to its handle until that is dropped, whatever the peer does.
pub(super) struct StreamState {
    /// 0 while a client stream waits to be opened.
    pub id: u32,
    pub received: VecDeque<Item>,
    pub receiving: Receiving,
    /// What the peer may still send.
    pub receive_window: i64,
    /// Taken by the handle and not yet given back to the peer.
    pub taken: u32,
    /// What `content-length` promised and has not come.
    pub length_left: Option<u64>,
    /// A response to HEAD, whose length is not that of its body.
    pub bodiless: bool,
    pub sending: VecDeque<Frame>,
    /// Bytes of data in `sending`.
    pub queued: usize,
    pub send_window: i64,
    /// No frame follows those in `sending`.
    pub finish: bool,
    /// END_STREAM has been sent.
    pub finished: bool,
    /// A client stream's head, while the peer allows no further stream.
    pub unopened: Option<Box<(RequestHead, bool)>>,
    pub reset: Option<ResetReason>,
    /// In the line of streams that wait for the connection's window or buffer.
    pub blocked: bool,
    pub waker: Option<Waker>,
}

impl StreamState {
    fn vacant() -> Self {
        Self {
            id: 0,
            received: VecDeque::new(),
            receiving: Receiving::Head,
            receive_window: 0,
            taken: 0,
            length_left: None,
            bodiless: false,
            sending: VecDeque::new(),
            queued: 0,
            send_window: 0,
            finish: false,
            finished: false,
            unopened: None,
            reset: None,
            blocked: false,
            waker: None,
        }
    }

    pub fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    pub fn wait(&mut self, waker: &Waker) {
        if !self.waker.as_ref().is_some_and(|own| own.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
    }
}

/// What the peer's SETTINGS say.
pub(super) struct Peer {
    pub initial_window: i64,
    pub max_frame: usize,
    pub max_streams: usize,
}

/// A header block that CONTINUATION frames go on with.
pub(super) struct Block {
    pub stream: u32,
    pub end_stream: bool,
    pub bytes: Vec<u8>,
}

/// Where a connection is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// GOAWAY without a limit and a PING are sent: streams that cross them are still served.
    Warned,
    /// GOAWAY names the last stream that is served; the connection ends with it.
    Draining,
    /// Nothing more is read; what is in the buffer is sent.
    Closing,
}

pub(super) struct State {
    pub role: Role,
    pub limits: head::Limits,
    pub connect: bool,
    pub max_streams: usize,
    pub stream_window: u32,
    pub connection_window: u32,
    pub streams: Vec<StreamState>,
    vacant: Vec<u32>,
    pub ids: HashMap<u32, u32, BuildHasherDefault<IdHasher>>,
    pub out: Out,
    pub encoder: Encoder,
    pub decoder: Decoder,
    pub budgets: Budgets,
    pub peer: Peer,
    /// Connection windows, as for streams.
    pub send_window: i64,
    pub receive_window: i64,
    pub taken: u32,
    /// The highest stream that the peer opened.
    pub last_peer: u32,
    /// The next that we open.
    pub next_own: u32,
    forgotten: VecDeque<u32>,
    /// Requests for which no handle exists yet.
    pub accepted: VecDeque<(u32, RequestHead)>,
    /// Streams, by slot and id, that wait for the connection's window or for room in `out`.
    pub blocked: VecDeque<(u32, u32)>,
    /// Client streams' slots that wait until the peer allows another stream.
    pub waiting: VecDeque<u32>,
    pub block: Option<Block>,
    pub settings_seen: bool,
    pub phase: Phase,
    /// The peer said GOAWAY.
    pub going_away: bool,
    /// A client's connection that ends with its last stream.
    pub retired: bool,
    /// What the peer did wrong, which ended the connection.
    pub broken: Option<Reason>,
    /// The connection is over, and why.
    pub over: Option<ResetReason>,
    pub pong: bool,
    pub driver: Option<Waker>,
    driver_woken: bool,
}

/// A connection's state and the way to it.
#[derive(Clone)]
pub(super) struct Shared(Rc<RefCell<State>>);

impl Shared {
    pub fn new(role: Role, options: &Options) -> Self {
        Self(Rc::new(RefCell::new(State::new(role, options))))
    }

    pub fn state(&self) -> RefMut<'_, State> {
        self.0.borrow_mut()
    }
}

impl State {
    fn new(role: Role, options: &Options) -> Self {
        let mut state = Self {
            role,
            limits: head::Limits { bytes: options.max_header_bytes as usize, fields: options.max_fields as usize },
            connect: options.allow_connect,
            max_streams: options.max_concurrent_streams as usize,
            stream_window: options.initial_stream_window,
            connection_window: options.initial_connection_window.max(DEFAULT_WINDOW),
            streams: Vec::new(),
            vacant: Vec::new(),
            ids: HashMap::default(),
            out: Out::default(),
            encoder: Encoder::new(),
            decoder: Decoder::new(TABLE),
            budgets: Budgets::new(),
            peer: Peer {
                initial_window: i64::from(DEFAULT_WINDOW),
                max_frame: MAX_FRAME,
                max_streams: options.max_concurrent_streams as usize,
            },
            send_window: i64::from(DEFAULT_WINDOW),
            receive_window: i64::from(options.initial_connection_window.max(DEFAULT_WINDOW)),
            taken: 0,
            last_peer: 0,
            next_own: 1,
            forgotten: VecDeque::new(),
            accepted: VecDeque::new(),
            blocked: VecDeque::new(),
            waiting: VecDeque::new(),
            block: None,
            settings_seen: false,
            phase: Phase::Open,
            going_away: false,
            retired: false,
            broken: None,
            over: None,
            pong: false,
            driver: None,
            driver_woken: false,
        };
        state.greet(options);
        state
    }

    /// The preface, our settings, and the connection's window.
    fn greet(&mut self, options: &Options) {
        use frame::setting as id;
        let window = self.connection_window - DEFAULT_WINDOW;
        let mut settings = vec![
            (id::INITIAL_WINDOW_SIZE, options.initial_stream_window),
            (id::MAX_HEADER_LIST_SIZE, options.max_header_bytes),
        ];
        match self.role {
            Role::Client => settings.push((id::ENABLE_PUSH, 0)),
            Role::Server => {
                settings.push((id::MAX_CONCURRENT_STREAMS, options.max_concurrent_streams));
                if options.allow_connect {
                    settings.push((id::ENABLE_CONNECT_PROTOCOL, 1));
                }
            }
        }
        let out = self.out.tail();
        if self.role == Role::Client {
            out.extend_from_slice(frame::PREFACE);
        }
        frame::put_settings(out, &settings);
        if window > 0 {
            frame::put_window_update(out, 0, window);
        }
    }

    /// Streams that have a handle, or will get one.
    pub fn live(&self) -> usize {
        self.streams.len() - self.vacant.len()
    }

    /// A slot for a stream. `id` is 0 for one that is not open yet.
    pub fn occupy(&mut self, id: u32) -> u32 {
        let slot = self.vacant.pop().unwrap_or_else(|| {
            self.streams.push(StreamState::vacant());
            self.streams.len() as u32 - 1
        });
        let stream = &mut self.streams[slot as usize];
        stream.id = id;
        stream.receive_window = i64::from(self.stream_window);
        stream.send_window = self.peer.initial_window;
        if id != 0 {
            self.ids.insert(id, slot);
        }
        slot
    }

    /// The handle is gone. Whatever has not ended is reset with `reason`.
    pub fn vacate(&mut self, slot: u32, reason: Reason) {
        let stream = &mut self.streams[slot as usize];
        stream.waker = None;
        let (id, waits) = (stream.id, stream.unopened.is_some());
        if waits {
            self.waiting.retain(|waiting| *waiting != slot);
        }
        if id != 0 && self.ids.get(&id) == Some(&slot) {
            self.reset_stream(slot, reason, ResetReason::Local);
        }
        self.discard_received(slot);
        let stream = &mut self.streams[slot as usize];
        let (mut received, mut sending) = (std::mem::take(&mut stream.received), std::mem::take(&mut stream.sending));
        received.clear();
        sending.clear();
        *stream = StreamState { received, sending, ..StreamState::vacant() };
        self.vacant.push(slot);
        if self.live() == 0 {
            self.release();
        }
    }

    /// Lets go of what only streams in progress need.
    fn release(&mut self) {
        self.streams = Vec::new();
        self.vacant = Vec::new();
        self.waiting.clear();
        self.blocked.clear();
        self.decoder.release();
        if self.role == Role::Server || self.going_away || self.retired {
            self.wake_driver();
        }
    }

    /// Says RST_STREAM and forgets the stream, but for its handle.
    pub fn reset_stream(&mut self, slot: u32, reason: Reason, seen_as: ResetReason) {
        let id = self.streams[slot as usize].id;
        self.refuse(id, reason);
        self.detach(slot, seen_as);
    }

    /// Says RST_STREAM for a stream without a slot, and remembers it.
    pub fn refuse(&mut self, id: u32, reason: Reason) {
        if self.phase == Phase::Closing || self.over.is_some() {
            return;
        }
        frame::put_reset(self.out.tail(), id, reason);
        if self.forgotten.len() == FORGOTTEN {
            self.forgotten.pop_front();
        }
        self.forgotten.push_back(id);
        self.wake_driver();
    }

    pub fn is_forgotten(&self, id: u32) -> bool {
        self.forgotten.contains(&id)
    }

    /// A stream has ended before its messages did. A response that is complete can still be taken.
    pub fn detach(&mut self, slot: u32, reason: ResetReason) {
        let stream = &mut self.streams[slot as usize];
        stream.reset.get_or_insert(reason);
        stream.sending.clear();
        stream.queued = 0;
        stream.unopened = None;
        let complete = stream.receiving == Receiving::Ended;
        stream.wake();
        let id = stream.id;
        self.ids.remove(&id);
        if !complete {
            self.discard_received(slot);
        }
        self.open_waiting();
    }

    /// Both messages are complete: the stream is closed.
    pub fn close_if_ended(&mut self, slot: u32) {
        let stream = &self.streams[slot as usize];
        if stream.finished && stream.receiving == Receiving::Ended {
            let id = stream.id;
            self.ids.remove(&id);
            self.open_waiting();
        }
    }

    fn discard_received(&mut self, slot: u32) {
        let mut bytes = 0;
        for item in self.streams[slot as usize].received.drain(..) {
            match item {
                Item::Data(data) => bytes += data.len(),
                Item::Small(data) => bytes += data.len(),
                Item::Head(_) | Item::Trailers(_) => {}
            }
        }
        self.give_back(bytes);
    }

    /// The connection's window for bytes that were taken or thrown away, announced by halves.
    pub fn give_back(&mut self, bytes: usize) {
        self.taken += bytes as u32;
        if self.taken >= self.connection_window / 2 {
            let taken = std::mem::take(&mut self.taken);
            self.receive_window += i64::from(taken);
            frame::put_window_update(self.out.tail(), 0, taken);
            self.wake_driver();
        }
    }

    pub fn wake_driver(&mut self) {
        if self.driver_woken {
            return;
        }
        if let Some(waker) = &self.driver {
            self.driver_woken = true;
            waker.wake_by_ref();
        }
    }

    /// The driver runs.
    pub fn driver_runs(&mut self, waker: &Waker) {
        self.driver_woken = false;
        if !self.driver.as_ref().is_some_and(|own| own.will_wake(waker)) {
            self.driver = Some(waker.clone());
        }
    }

    /// Begins the end: new streams are refused once the peer has had time to learn of it.
    pub fn drain(&mut self) {
        if self.phase == Phase::Open {
            self.phase = Phase::Warned;
            let out = self.out.tail();
            frame::put_goaway(out, frame::MAX_WINDOW as u32, Reason::NO_ERROR);
            frame::put_ping(out, 0, super::DRAIN_PING);
            self.wake_driver();
        }
    }

    /// The last word: streams after the last one seen will not be served.
    pub fn last_goaway(&mut self) {
        if self.phase == Phase::Warned {
            self.phase = Phase::Draining;
            let last = self.last_peer;
            frame::put_goaway(self.out.tail(), last, Reason::NO_ERROR);
        }
    }

    /// The peer broke the protocol, or we end the connection at once.
    pub fn abort(&mut self, reason: Reason, seen_as: ResetReason) {
        if self.phase != Phase::Closing {
            let last = self.last_peer;
            frame::put_goaway(self.out.tail(), last, reason);
            self.phase = Phase::Closing;
            self.broken = Some(reason).filter(|_| seen_as == ResetReason::Protocol);
        }
        self.fail(seen_as);
        self.wake_driver();
    }

    /// The connection is over for all of its streams.
    pub fn fail(&mut self, reason: ResetReason) {
        self.over.get_or_insert(reason);
        for stream in &mut self.streams {
            stream.wake();
        }
    }

    /// Why a stream can do nothing more.
    pub fn failure(&self, slot: u32) -> Option<Error> {
        self.streams[slot as usize].reset.or(self.over).map(Error::Reset)
    }
}

impl From<Flood> for Reason {
    fn from(_: Flood) -> Self {
        Self::ENHANCE_YOUR_CALM
    }
}
