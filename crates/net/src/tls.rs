//! TLS over a [`Stream`], in the buffers of the thread: a connection on which nothing moves holds none.
//!
//! Owns the bytes between a socket and a session of rustls, whose unbuffered form keeps none itself. What a handshake ends with
//! — a server's ticket, a client's Finished — waits for the first bytes that go the same way and shares a packet with them, or
//! goes when this side has nothing to read. Must never lose or repeat a record that the session has sealed.
//!
//! Cost: a `recv` takes as many records as there are (rustls by itself reads 4 KiB at a time and keeps those), and a `send` less for
//! each handshake.

mod session;

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use rustls::{ClientConfig, CommonState, ServerConfig, pki_types::ServerName};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::session::{Session, State, Wish};
use crate::{Stream, buffers};

/// Most bytes that one write takes, so that a slow peer holds no more of them.
const MAX_WRITE: usize = 64 * 1024;

/// What is to be sent may wait for a write that joins it, if it is no more than this.
const JOINED: usize = 16 * 1024;

/// What may be held of a message that is not complete, the certificates of a peer for one; rustls by itself takes as much.
const MAX_HELD: usize = 0xffff;

#[derive(Default)]
struct Flow {
    /// Records that have arrived.
    incoming: BytesMut,
    seen: Seen,
}

/// What a session has made of them.
#[derive(Default)]
struct Seen {
    /// Content that was not taken yet.
    opened: BytesMut,
    /// Records that are to be sent.
    outgoing: BytesMut,
    /// The peer has said that it sends no more.
    ended: bool,
}

/// One end of a TLS connection. Who closes it in order calls `poll_shutdown`.
pub struct TlsStream {
    io: Stream,
    session: Session,
    flow: Flow,
    /// `incoming` may hold a record that the session has not seen.
    unseen: bool,
    /// The last read filled its buffer, so that there is more.
    busy: bool,
    /// Nobody waits for what is in `outgoing`: tickets alone.
    patient: bool,
    closing: bool,
    /// What ended the session; it must not be asked again.
    failed: Option<rustls::Error>,
}

/// Serves the handshake of a client.
pub async fn accept(config: Arc<ServerConfig>, io: Stream) -> io::Result<Stream> {
    handshake(Session::server(config).map_err(invalid)?, io).await
}

/// Opens a session with a server.
pub async fn connect(config: Arc<ClientConfig>, name: ServerName<'static>, io: Stream) -> io::Result<Stream> {
    handshake(Session::client(config, name).map_err(invalid)?, io).await
}

async fn handshake(session: Session, io: Stream) -> io::Result<Stream> {
    let mut stream = TlsStream {
        io,
        session,
        flow: Flow::default(),
        unseen: false,
        busy: false,
        patient: false,
        closing: false,
        failed: None,
    };
    std::future::poll_fn(|cx| stream.poll_handshake(cx)).await?;
    Ok(stream.into())
}

fn invalid(error: rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl TlsStream {
    pub fn io(&self) -> &Stream {
        &self.io
    }

    pub fn is_server(&self) -> bool {
        matches!(self.session, Session::Server(_))
    }

    /// What was agreed, and what the peer showed.
    pub fn session(&self) -> &CommonState {
        self.session.common()
    }

    /// Nothing has arrived, the end included. False where only a read can tell.
    pub fn is_quiet(&self) -> bool {
        !self.flow.seen.ended && self.flow.seen.opened.is_empty() && self.flow.incoming.is_empty() && self.io.is_quiet()
    }

    /// Pending while a read would find nothing, where the event loop knows; the task is woken when that changes.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        // What is to be sent first is the business of a read.
        let unsent = !self.flow.seen.outgoing.is_empty() && !self.patient;
        if self.flow.seen.ended || self.unseen || unsent || !self.flow.seen.opened.is_empty() {
            return Poll::Ready(());
        }
        self.io.poll_readable(cx)
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.advance(cx, Wish::Nothing)? == State::Established {
                // In TLS 1.2 the peer waits for what ends the handshake, or it has been sent already.
                let last = self.session().protocol_version() != Some(rustls::ProtocolVersion::TLSv1_3);
                self.patient = self.is_server() && !last;
                return if last { self.poll_send(cx) } else { Poll::Ready(Ok(())) };
            }
            ready!(self.poll_send(cx))?;
            if ready!(self.poll_receive(cx))? == 0 {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof")));
            }
        }
    }

    /// Has the session see what has arrived, and do as is wished.
    fn advance(&mut self, cx: &mut Context<'_>, wish: Wish<'_, '_>) -> io::Result<State> {
        if let Some(error) = &self.failed {
            return Err(invalid(error.clone()));
        }
        let waiting = self.flow.seen.outgoing.len();
        let advanced = self.session.advance(&mut self.flow, wish);
        self.patient &= self.flow.seen.outgoing.len() == waiting;
        if self.flow.incoming.is_empty() {
            buffers::give(std::mem::take(&mut self.flow.incoming));
        }
        match advanced {
            Ok(state) => {
                self.unseen = state == State::Opened && !self.flow.incoming.is_empty();
                Ok(state)
            }
            Err(error) => {
                self.failed = Some(error.clone());
                // The alert that says why, if it can go at once.
                let _ = self.poll_send(cx);
                Err(invalid(error))
            }
        }
    }

    /// Reads what has arrived; 0 at the end of the stream.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.flow.incoming.len() > MAX_HELD {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "tls message too large")));
        }
        let want = if self.busy { buffers::LARGE } else { buffers::SMALL };
        let read = ready!(buffers::poll_fill(&mut self.io, cx, &mut self.flow.incoming, want))?;
        self.busy = self.flow.incoming.len() == self.flow.incoming.capacity();
        self.unseen |= read > 0;
        Poll::Ready(Ok(read))
    }

    /// Sends all that is to be sent.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.flow.seen.outgoing.is_empty() {
            let sent = ready!(Pin::new(&mut self.io).poll_write(cx, &self.flow.seen.outgoing))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.flow.seen.outgoing.advance(sent);
        }
        buffers::give(std::mem::take(&mut self.flow.seen.outgoing));
        self.patient = false;
        Poll::Ready(Ok(()))
    }

    fn take_opened(&mut self, buf: &mut ReadBuf<'_>) {
        let taken = self.flow.seen.opened.len().min(buf.remaining());
        buf.put_slice(&self.flow.seen.opened[..taken]);
        self.flow.seen.opened.advance(taken);
        if self.flow.seen.opened.is_empty() {
            buffers::give(std::mem::take(&mut self.flow.seen.opened));
        }
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        loop {
            if !this.flow.seen.opened.is_empty() {
                this.take_opened(buf);
                return Poll::Ready(Ok(()));
            }
            if this.unseen {
                this.advance(cx, Wish::Read(buf))?;
            }
            if buf.filled().len() > before || buf.remaining() == 0 || this.flow.seen.ended {
                return Poll::Ready(Ok(()));
            }
            if this.unseen {
                continue;
            }
            if !this.patient && !this.flow.seen.outgoing.is_empty() {
                // A failure to send does not keep from reading what has come; the next write will tell of it.
                let _ = this.poll_send(cx);
            }
            if ready!(this.poll_receive(cx))? == 0 {
                let reason = "peer closed connection without sending TLS close_notify";
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason)));
            }
        }
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.closing {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if slices.iter().all(|slice| slice.is_empty()) {
            return Poll::Ready(Ok(0));
        }
        if self.flow.seen.outgoing.len() > JOINED {
            ready!(self.poll_send(cx))?;
        }
        let mut taken = 0;
        self.advance(cx, Wish::Seal(slices, &mut taken))?;
        match self.poll_send(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // The rest goes with the next write or flush.
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(taken)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !std::mem::replace(&mut self.closing, true) {
            self.advance(cx, Wish::Close)?;
        }
        ready!(self.poll_send(cx))?;
        match ready!(Pin::new(&mut self.io).poll_shutdown(cx)) {
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Poll::Ready(Err(error)),
            Ok(()) | Err(_) => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests;
