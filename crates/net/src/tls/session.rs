//! What a session of rustls makes of the bytes that have arrived, one step after the other.

use std::{io, sync::Arc};

use bytes::{Buf, BytesMut};
use rustls::{
    ClientConfig, CommonState, ServerConfig,
    client::{ClientConnectionData, UnbufferedClientConnection},
    pki_types::ServerName,
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic},
};
use tokio::io::ReadBuf;

use super::{Flow, MAX_WRITE, Seen};
use crate::buffers;

/// Most bytes in one record (RFC 8446 section 5.1).
pub(super) const RECORD: usize = 16 * 1024;

/// Room for what a record has beside its content: header, kind and tag, and the nonce of TLS 1.2.
const OVERHEAD: usize = 32;

pub(super) enum Session {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The handshake needs more of the peer.
    Handshaking,
    /// A record was opened; there may be more in what has arrived.
    Opened,
    Established,
}

/// What a session is to do once it has seen what has arrived.
pub(super) enum Wish<'a, 'b> {
    Nothing,
    /// Opened bytes go here as far as there is room, else they are kept.
    Read(&'a mut ReadBuf<'b>),
    /// Seals these, and says how many of the bytes it took.
    Seal(&'a [io::IoSlice<'a>], &'a mut usize),
    /// Says that this side sends no more.
    Close,
}

impl Session {
    pub(super) fn server(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        UnbufferedServerConnection::new(config).map(Self::Server)
    }

    pub(super) fn client(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, rustls::Error> {
        UnbufferedClientConnection::new(config, name).map(Self::Client)
    }

    pub(super) fn common(&self) -> &CommonState {
        match self {
            Self::Server(session) => session.common(),
            Self::Client(session) => session.common(),
        }
    }

    pub(super) fn advance(&mut self, flow: &mut Flow, wish: Wish<'_, '_>) -> Result<State, rustls::Error> {
        match self {
            Self::Server(session) => advance(session, flow, wish),
            Self::Client(session) => advance(session, flow, wish),
        }
    }
}

/// The two kinds of session, which share a method but no trait.
trait Unbuffered {
    type Data;
    fn common(&self) -> &CommonState;
    fn step<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;
}

impl Unbuffered for UnbufferedServerConnection {
    type Data = ServerConnectionData;
    fn common(&self) -> &CommonState {
        self
    }
    fn step<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

impl Unbuffered for UnbufferedClientConnection {
    type Data = ClientConnectionData;
    fn common(&self) -> &CommonState {
        self
    }
    fn step<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }
}

fn advance<S: Unbuffered>(session: &mut S, flow: &mut Flow, mut wish: Wish<'_, '_>) -> Result<State, rustls::Error> {
    loop {
        let UnbufferedStatus { mut discard, state } = session.step(&mut flow.incoming);
        let seen = state.and_then(|state| see(state, &mut flow.seen, &mut discard, &mut wish));
        flow.incoming.advance(discard);
        match seen {
            Ok(None) => {}
            Ok(Some(state)) => return Ok(state),
            Err(error) => {
                tell(session, &mut flow.seen.outgoing);
                return Err(error);
            }
        }
    }
}

/// Deals with one state; what it gives ends the advance.
fn see<D>(
    state: ConnectionState<'_, '_, D>,
    seen: &mut Seen,
    discard: &mut usize,
    wish: &mut Wish<'_, '_>,
) -> Result<Option<State>, rustls::Error> {
    match state {
        ConnectionState::ReadTraffic(mut traffic) => {
            while let Some(record) = traffic.next_record() {
                let record = record?;
                *discard += record.discard;
                deliver(record.payload, &mut seen.opened, wish);
            }
            // A reader has what it came for. Others go on: a session writes once it has seen everything.
            return Ok(matches!(wish, Wish::Read(_)).then_some(State::Opened));
        }
        ConnectionState::EncodeTlsData(mut data) => encode(&mut data, &mut seen.outgoing)?,
        // It stands in `outgoing` and goes in its turn.
        ConnectionState::TransmitTlsData(data) => data.done(),
        ConnectionState::PeerClosed => seen.ended = true,
        ConnectionState::BlockedHandshake => return Ok(Some(State::Handshaking)),
        ConnectionState::WriteTraffic(traffic) => {
            write(traffic, &mut seen.outgoing, wish)?;
            return Ok(Some(State::Established));
        }
        // Closed by both. Early data is never accepted, so that there is none to read.
        _ => return Ok(Some(State::Established)),
    }
    Ok(None)
}

fn deliver(payload: &[u8], opened: &mut BytesMut, wish: &mut Wish<'_, '_>) {
    let taken = match wish {
        Wish::Read(buf) if opened.is_empty() => {
            let taken = payload.len().min(buf.remaining());
            buf.put_slice(&payload[..taken]);
            taken
        }
        _ => 0,
    };
    if taken < payload.len() {
        opened.extend_from_slice(&payload[taken..]);
    }
}

fn write<D>(
    mut traffic: WriteTraffic<'_, D>,
    outgoing: &mut BytesMut,
    wish: &mut Wish<'_, '_>,
) -> Result<(), rustls::Error> {
    match wish {
        Wish::Nothing | Wish::Read(_) => Ok(()),
        Wish::Seal(slices, taken) => seal(&mut traffic, outgoing, slices, taken),
        Wish::Close => fill(outgoing, OVERHEAD, |room| Ok(traffic.queue_close_notify(room)?)),
    }
}

/// Seals up to [`MAX_WRITE`] bytes. Short slices that follow each other share a record.
fn seal<D>(
    traffic: &mut WriteTraffic<'_, D>,
    outgoing: &mut BytesMut,
    slices: &[io::IoSlice<'_>],
    taken: &mut usize,
) -> Result<(), rustls::Error> {
    if let [only] = slices {
        return encrypt(traffic, outgoing, &only[..only.len().min(MAX_WRITE)], taken);
    }
    let mut joined = buffers::take();
    let mut sealed = Ok(());
    for slice in slices {
        let mut rest = &slice[..slice.len().min(MAX_WRITE - *taken - joined.len())];
        while !rest.is_empty() && sealed.is_ok() {
            let whole = if joined.is_empty() { rest.len() / RECORD * RECORD } else { 0 };
            sealed = encrypt(traffic, outgoing, &rest[..whole], taken);
            let (head, tail) = rest[whole..].split_at((rest.len() - whole).min(RECORD - joined.len()));
            joined.extend_from_slice(head);
            rest = tail;
            if joined.len() == RECORD && sealed.is_ok() {
                sealed = encrypt(traffic, outgoing, &joined, taken);
                joined.clear();
            }
        }
    }
    if sealed.is_ok() {
        sealed = encrypt(traffic, outgoing, &joined, taken);
    }
    buffers::give(joined);
    sealed
}

fn encrypt<D>(
    traffic: &mut WriteTraffic<'_, D>,
    outgoing: &mut BytesMut,
    bytes: &[u8],
    taken: &mut usize,
) -> Result<(), rustls::Error> {
    if bytes.is_empty() {
        return Ok(());
    }
    let expected = bytes.len() + OVERHEAD * bytes.len().div_ceil(RECORD);
    fill(outgoing, expected, |room| Ok(traffic.encrypt(bytes, room)?))?;
    *taken += bytes.len();
    Ok(())
}

/// Why nothing was written.
enum Unwritten {
    /// It takes so many bytes.
    Room(usize),
    Failed(rustls::Error),
}

impl From<EncryptError> for Unwritten {
    fn from(error: EncryptError) -> Self {
        match error {
            EncryptError::InsufficientSize(size) => Self::Room(size.required_size),
            EncryptError::EncryptExhausted => Self::Failed(rustls::Error::EncryptError),
        }
    }
}

impl From<EncodeError> for Unwritten {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::InsufficientSize(size) => Self::Room(size.required_size),
            EncodeError::AlreadyEncoded => Self::Failed(rustls::Error::General(error.to_string())),
        }
    }
}

fn encode<D>(data: &mut EncodeTlsData<'_, D>, outgoing: &mut BytesMut) -> Result<(), rustls::Error> {
    fill(outgoing, 0, |room| Ok(data.encode(room)?))
}

/// Appends what `attempt` writes, with as much room as it wants.
fn fill(
    outgoing: &mut BytesMut,
    expected: usize,
    mut attempt: impl FnMut(&mut [u8]) -> Result<usize, Unwritten>,
) -> Result<(), rustls::Error> {
    if outgoing.capacity() == 0 {
        *outgoing = buffers::take();
    }
    let start = outgoing.len();
    let mut room = expected;
    loop {
        outgoing.resize(start + room, 0);
        let attempted = attempt(&mut outgoing[start..]);
        outgoing.truncate(start + *attempted.as_ref().unwrap_or(&0));
        match attempted {
            Ok(_) => return Ok(()),
            Err(Unwritten::Room(wanted)) if wanted > room => room = wanted,
            Err(Unwritten::Room(_)) => return Err(rustls::Error::EncryptError),
            Err(Unwritten::Failed(error)) => return Err(error),
        }
    }
}

/// Has the alert encoded that follows an error. Never steps beyond it: what has arrived would be judged, and refused, again.
fn tell<S: Unbuffered>(session: &mut S, outgoing: &mut BytesMut) {
    while session.common().wants_write() {
        let UnbufferedStatus { state: Ok(ConnectionState::EncodeTlsData(mut data)), .. } = session.step(&mut []) else {
            return;
        };
        if encode(&mut data, outgoing).is_err() {
            return;
        }
    }
}
