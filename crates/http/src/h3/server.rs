//! A client's connection, and its requests.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use http::StatusCode;
use quinn::{Connection, ConnectionError, RecvStream, SendStream};

use super::{
    Code, Established, Options, control, frame, qpack,
    receive::{Fault, Piece, Receiving},
    send::Sending,
};
use crate::{
    Error, Frame, Headers, Protocol, RequestHead, ResetReason, ResponseHead,
    h2::{
        head::{self, Collector, Limits, Parts, Refused},
        limits::Budgets,
    },
};

/// Type of our control stream.
const CONTROL: u64 = 0x0;
const SETTINGS_MAX_FIELD_SECTION_SIZE: u64 = 0x6;
const SETTINGS_ENABLE_CONNECT_PROTOCOL: u64 = 0x8;
/// The first GOAWAY says only that there will be another (RFC 9114 5.2).
const LAST_STREAM: u64 = (1 << 62) - 4;
/// Numbers of a client's requests are so far apart.
const STREAM_STEP: u64 = 4;
/// Streams of one direction that a client may have: control, QPACK's two, and some that we do not know.
pub const MAX_UNIDIRECTIONAL: u32 = 8;

type Accepting = Pin<Box<dyn Future<Output = Result<(SendStream, RecvStream), ConnectionError>>>>;

/// A downstream connection.
pub struct ServerConnection {
    shared: Rc<Shared>,
    control: SendStream,
    /// For the control stream.
    outgoing: BytesMut,
    accepting: Accepting,
    /// Number of the next request, as far as we know.
    next: u64,
    /// Requests from this number on are refused.
    refused_from: Option<u64>,
    limits: Limits,
    allow_connect: bool,
    buffer_bytes: usize,
}

struct Shared {
    quic: Connection,
    active: Cell<usize>,
    /// Of the task that drives the connection.
    driver: Cell<Option<Waker>>,
    budgets: RefCell<Budgets>,
}

impl Shared {
    fn close(&self, code: Code) {
        self.quic.close(code.wire(), b"");
    }

    /// A stream was reset by the client or because it broke a rule.
    fn note_reset(&self) {
        if self.budgets.borrow_mut().reset().is_err() {
            self.close(Code::EXCESSIVE_LOAD);
        }
    }
}

/// Counts a stream for as long as it is there.
struct Active(Rc<Shared>);

impl Active {
    fn new(shared: &Rc<Shared>) -> Self {
        shared.active.set(shared.active.get() + 1);
        Self(Rc::clone(shared))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        let left = self.0.active.get() - 1;
        self.0.active.set(left);
        if left == 0
            && let Some(driver) = self.0.driver.take()
        {
            driver.wake();
        }
    }
}

impl ServerConnection {
    /// Opens our control stream and begins to read the client's streams. Needs the tokio runtime that drives the connection.
    pub async fn start(established: Established, options: &Options) -> Result<Self, Error> {
        let quic = established.quic;
        tokio::spawn(read_unidirectional(quic.clone()));
        let mut control = quic.open_uni().await.map_err(|_| Error::Closed)?;
        let mut settings = BytesMut::new();
        frame::put_varint(&mut settings, SETTINGS_MAX_FIELD_SECTION_SIZE);
        // QPACK counts 32 bytes more for each field than our limit does.
        frame::put_varint(&mut settings, u64::from(options.max_header_bytes) + 32 * u64::from(options.max_fields));
        if options.allow_connect {
            frame::put_varint(&mut settings, SETTINGS_ENABLE_CONNECT_PROTOCOL);
            frame::put_varint(&mut settings, 1);
        }
        let mut outgoing = BytesMut::new();
        frame::put_varint(&mut outgoing, CONTROL);
        frame::put_header(&mut outgoing, frame::SETTINGS, settings.len());
        outgoing.extend_from_slice(&settings);
        control.write_all(&outgoing).await.map_err(|_| Error::Closed)?;
        outgoing.clear();
        let shared =
            Shared { quic, active: Cell::new(0), driver: Cell::new(None), budgets: RefCell::new(Budgets::new()) };
        Ok(Self {
            accepting: accepting(&shared.quic),
            shared: Rc::new(shared),
            control,
            outgoing,
            next: 0,
            refused_from: None,
            limits: Limits { bytes: options.max_header_bytes as usize, fields: options.max_fields as usize },
            allow_connect: options.allow_connect,
            buffer_bytes: options.buffer_bytes,
        })
    }

    /// The next request; `None` once the connection is over. Also ready to be asked again when the last stream ends.
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Option<Pending>> {
        self.shared.driver.set(Some(cx.waker().clone()));
        if self.poll_control(cx).is_err() {
            self.shared.close(Code::CLOSED_CRITICAL_STREAM);
        }
        loop {
            let Ok((send, recv)) = ready!(self.accepting.as_mut().poll(cx)) else { return Poll::Ready(None) };
            self.accepting = accepting(&self.shared.quic);
            let number = u64::from(recv.id());
            self.next = self.next.max(number + STREAM_STEP);
            let pending = self.pending(send, recv);
            if self.refused_from.is_none_or(|first| number < first) {
                return Poll::Ready(Some(pending));
            }
            pending.reject();
        }
    }

    fn pending(&self, send: SendStream, recv: RecvStream) -> Pending {
        // A literal may be written longer than it is; beyond twice the limit it is not worth a look.
        let max_section = 2 * (self.limits.bytes + 8 * self.limits.fields) as u64;
        Pending {
            stream: ServerStream {
                receiving: Receiving::new(recv, max_section),
                sending: Sending::new(send),
                ahead: None,
                ended: false,
                length_left: None,
                limits: self.limits,
                buffer_bytes: self.buffer_bytes,
                stopped: None,
                active: Active::new(&self.shared),
            },
            allow_connect: self.allow_connect,
        }
    }

    fn poll_control(&mut self, cx: &mut Context<'_>) -> Result<(), quinn::WriteError> {
        while !self.outgoing.is_empty() {
            let Poll::Ready(written) = pin!(self.control.write(&self.outgoing)).poll(cx) else { break };
            self.outgoing.advance(written?);
        }
        Ok(())
    }

    /// Streams that have a handle. When the last is dropped, the task that polls this is woken.
    pub fn active(&self) -> usize {
        self.shared.active.get()
    }

    /// What a packet and its answer take, as far as is known.
    pub fn round_trip(&self) -> Duration {
        self.shared.quic.rtt()
    }

    /// Says GOAWAY without a number: the client should open another connection for what comes next.
    pub fn announce_drain(&mut self) {
        self.goaway(LAST_STREAM);
    }

    /// Says GOAWAY with the number of the next request: what was in flight is refused, which is safe to try elsewhere.
    pub fn refuse_further(&mut self) {
        self.refused_from = Some(self.next);
        self.goaway(self.next);
    }

    fn goaway(&mut self, number: u64) {
        let mut payload = BytesMut::new();
        frame::put_varint(&mut payload, number);
        frame::put_header(&mut self.outgoing, frame::GOAWAY, payload.len());
        self.outgoing.extend_from_slice(&payload);
        if let Some(driver) = self.shared.driver.take() {
            driver.wake();
        }
    }
}

impl Drop for ServerConnection {
    fn drop(&mut self) {
        self.shared.close(Code::NO_ERROR);
    }
}

fn accepting(quic: &Connection) -> Accepting {
    let quic = quic.clone();
    Box::pin(async move { quic.accept_bi().await })
}

/// Reads each unidirectional stream in a task of its own: there are few, and they are quiet.
async fn read_unidirectional(quic: Connection) {
    let seen = Arc::new(control::Seen::default());
    let mut budgets = Budgets::new();
    while let Ok(mut stream) = quic.accept_uni().await {
        if budgets.reset().is_err() {
            return quic.close(Code::EXCESSIVE_LOAD.wire(), b"");
        }
        let (quic, seen) = (quic.clone(), Arc::clone(&seen));
        tokio::spawn(async move {
            if let Err(code) = control::read(&mut stream, &seen).await {
                quic.close(code.wire(), b"");
            }
        });
    }
}

fn fields(section: &[u8], limits: Limits) -> Result<Result<Parts, Refused>, Fault> {
    let mut collector = Collector::new(limits);
    qpack::decode(section, |field, size| collector.take(field, size))
        .map_err(|_| Fault::Connection(Code::QPACK_DECOMPRESSION_FAILED))?;
    Ok(collector.finish())
}

fn sized_head(
    section: &[u8],
    limits: Limits,
    connect: bool,
) -> Result<Result<head::Sized<RequestHead>, Refused>, Fault> {
    Ok(fields(section, limits)?.and_then(|parts| head::request_head(parts, connect, Protocol::Http3)))
}

/// The head of an encoded section. `Err`: the connection's end; inside of it, the stream's.
pub fn request_head(section: &[u8], options: &Options) -> Result<Result<RequestHead, Refusal>, Fault> {
    let limits = Limits { bytes: options.max_header_bytes as usize, fields: options.max_fields as usize };
    Ok(sized_head(section, limits, options.allow_connect)?.map(|(head, _)| head).map_err(|refused| match refused {
        Refused::Malformed => Refusal::Malformed,
        Refused::TooLarge => Refusal::TooLarge,
    }))
}

/// A request whose head has not been read.
pub struct Pending {
    stream: ServerStream,
    allow_connect: bool,
}

/// Why a request got no further than its head; the client has been told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Malformed,
    TooLarge,
    /// The client or the connection is gone, or it sent no head.
    Gone,
}

impl Pending {
    /// Reads the head.
    pub async fn head(mut self) -> Result<(RequestHead, ServerStream), Refusal> {
        let section = match poll_fn(|cx| self.stream.receiving.poll_piece(cx)).await {
            Ok(Piece::Section(section)) => section,
            Ok(Piece::Data(_) | Piece::End) => return Err(self.break_off(Code::REQUEST_INCOMPLETE, Refusal::Gone)),
            Err(Fault::TooLarge) => return Err(self.too_large().await),
            Err(fault) => {
                self.stream.fail(fault);
                return Err(Refusal::Gone);
            }
        };
        let head = sized_head(&section, self.stream.limits, self.allow_connect);
        match head {
            Err(fault) => {
                self.stream.fail(fault);
                Err(Refusal::Gone)
            }
            Ok(Ok((head, length))) => {
                self.stream.length_left = length;
                self.stream.look_ahead().await;
                Ok((head, self.stream))
            }
            Ok(Err(Refused::TooLarge)) => Err(self.too_large().await),
            Ok(Err(Refused::Malformed)) => Err(self.break_off(Code::MESSAGE_ERROR, Refusal::Malformed)),
        }
    }

    fn break_off(&mut self, code: Code, refusal: Refusal) -> Refusal {
        self.stream.break_off(code);
        refusal
    }

    /// 431, as HTTP/2 has it.
    async fn too_large(mut self) -> Refusal {
        let shared = Rc::clone(&self.stream.active.0);
        shared.note_reset();
        self.stream.sending.head(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, &Headers::new());
        self.stream.sending.finish();
        // An error means that the client is gone.
        let _ = poll_fn(|cx| self.stream.sending.poll_flush(cx)).await;
        Refusal::TooLarge
    }

    /// Safe to try elsewhere: nothing was done.
    fn reject(mut self) {
        self.stream.sending.reset(Code::REQUEST_REJECTED);
        self.stream.receiving.stop(Code::REQUEST_REJECTED);
        self.stream.ended = true;
    }
}

/// One downstream stream.
pub struct ServerStream {
    receiving: Receiving,
    sending: Sending,
    /// Read before it was asked for.
    ahead: Option<Result<Piece, Fault>>,
    /// Nothing of the request is left to read.
    ended: bool,
    /// Of what `content-length` promised.
    length_left: Option<u64>,
    limits: Limits,
    buffer_bytes: usize,
    stopped: Option<Pin<Box<dyn Future<Output = ()>>>>,
    active: Active,
}

impl ServerStream {
    /// Notices an end that came with the head, so that a request without a body is known to have none.
    async fn look_ahead(&mut self) {
        let polled = poll_fn(|cx| Poll::Ready(self.receiving.poll_piece(cx))).await;
        match polled {
            Poll::Ready(Ok(Piece::End)) if self.length_left.is_none_or(|left| left == 0) => self.ended = true,
            Poll::Ready(next) => self.ahead = Some(next),
            Poll::Pending => {}
        }
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, Error>> {
        if self.ended {
            return Poll::Ready(Ok(None));
        }
        let piece = match self.ahead.take() {
            Some(next) => next,
            None => ready!(self.receiving.poll_piece(cx)),
        };
        Poll::Ready(match piece {
            Ok(Piece::Data(data)) => self.data(data),
            Ok(Piece::Section(section)) => self.trailers(&section, cx),
            Ok(Piece::End) => self.end().map(|()| None),
            Err(fault) => Err(self.fail(fault)),
        })
    }

    fn data(&mut self, data: bytes::Bytes) -> Result<Option<Frame>, Error> {
        if let Some(left) = self.length_left {
            let Some(left) = left.checked_sub(data.len() as u64) else { return Err(self.malformed()) };
            self.length_left = Some(left);
        }
        self.active.0.budgets.borrow_mut().useful();
        Ok(Some(Frame::Data(data)))
    }

    fn trailers(&mut self, section: &[u8], cx: &mut Context<'_>) -> Result<Option<Frame>, Error> {
        let parts = match fields(section, self.limits) {
            Ok(parts) => parts,
            Err(fault) => return Err(self.fail(fault)),
        };
        self.end()?;
        // Nobody reads on after trailers; what came with them is judged all the same.
        if let Poll::Ready(Err(fault)) = self.receiving.poll_piece(cx) {
            return Err(self.fail(fault));
        }
        match parts.and_then(head::trailer_fields) {
            Ok(trailers) => Ok(Some(Frame::Trailers(trailers))),
            Err(_) => Err(self.malformed()),
        }
    }

    fn end(&mut self) -> Result<(), Error> {
        if self.length_left.is_some_and(|left| left > 0) {
            return Err(self.malformed());
        }
        self.ended = true;
        Ok(())
    }

    fn malformed(&mut self) -> Error {
        self.break_off(Code::MESSAGE_ERROR);
        Error::Reset(ResetReason::Protocol)
    }

    /// The client broke a rule of messages.
    fn break_off(&mut self, code: Code) {
        self.active.0.note_reset();
        self.sending.reset(code);
        self.receiving.stop(code);
        self.ended = true;
    }

    fn fail(&mut self, fault: Fault) -> Error {
        self.ended = true;
        let reason = match fault {
            Fault::Connection(code) => {
                self.active.0.close(code);
                ResetReason::Protocol
            }
            Fault::TooLarge => return self.malformed(),
            Fault::Reset => {
                self.active.0.note_reset();
                self.sending.reset(Code::NO_ERROR);
                ResetReason::Remote
            }
            Fault::Lost => ResetReason::ConnectionClosed,
        };
        self.sending.give_up(reason);
        Error::Reset(reason)
    }

    pub fn request_ended(&self) -> bool {
        self.ended
    }

    /// Ready when the client has given the stream up, or the connection is over.
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.sending.is_over() {
            return Poll::Ready(());
        }
        ready!(self.poll_stopped(cx));
        self.active.0.note_reset();
        self.sending.give_up(ResetReason::Remote);
        Poll::Ready(())
    }

    pub fn send_interim(&mut self, status: StatusCode, headers: &Headers) {
        self.sending.head(status, headers);
    }

    pub fn send_head(&mut self, head: &ResponseHead, end: bool) {
        // A tunnel is opened by 200 here (RFC 9220), whatever version the upstream spoke; the encoder drops `upgrade`.
        let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
        self.sending.head(if switches { StatusCode::OK } else { head.status }, &head.headers);
        if end {
            self.sending.finish();
        }
    }

    pub fn send_frame(&mut self, frame: Frame) {
        self.sending.push(frame);
    }

    pub fn finish(&mut self) {
        self.sending.finish();
    }

    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.sending.poll_ready(self.buffer_bytes, cx)
    }

    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.sending.poll_flush(cx)
    }

    pub fn abort(&mut self) {
        self.sending.reset(Code::INTERNAL_ERROR);
    }

    /// Ready when the client has all of a finished response, or never will. A connection that is closed earlier takes with it
    /// what is still on its way.
    pub fn poll_delivered(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.sending.is_finished() {
            return Poll::Ready(());
        }
        self.poll_stopped(cx)
    }

    fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let sending = &self.sending;
        self.stopped.get_or_insert_with(|| Box::pin(sending.stopped())).as_mut().poll(cx)
    }
}

impl Drop for ServerStream {
    /// A response that ended before its request did tells the client to stop sending (RFC 9114 4.1).
    fn drop(&mut self) {
        self.sending.reset(Code::INTERNAL_ERROR);
        self.receiving.stop(if self.sending.is_finished() { Code::NO_ERROR } else { Code::INTERNAL_ERROR });
    }
}
