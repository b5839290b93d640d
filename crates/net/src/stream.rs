//! One byte stream type for every transport, so that the request path has no generics and no boxed I/O on plain TCP.

use std::{
    fmt, io,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use rustls::CommonState;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, Interest, ReadBuf},
    net::{TcpStream, UnixStream},
};

use crate::tls::TlsStream;

/// Where a socket is bound or connected.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    Socket(SocketAddr),
    /// A path; a leading `@` means the abstract namespace.
    Unix(Arc<PathBuf>),
    /// In memory or unknown.
    Unnamed,
}

impl Address {
    pub fn socket(&self) -> Option<SocketAddr> {
        match self {
            Self::Socket(address) => Some(*address),
            Self::Unix(_) | Self::Unnamed => None,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Socket(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
            Self::Unnamed => Ok(()),
        }
    }
}

/// A transport of someone else's making, such as an HTTP/2 CONNECT stream.
pub trait DynStream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> DynStream for T {}

enum Io {
    Tcp(TcpStream),
    Unix(UnixStream),
    Duplex(DuplexStream),
    Tls(Box<TlsStream>),
    Dyn(Box<dyn DynStream>),
}

/// A connected byte stream, possibly with bytes that were read ahead and must be seen again.
pub struct Stream {
    prefix: Bytes,
    io: Io,
}

impl Stream {
    pub fn dynamic(stream: impl DynStream + 'static) -> Self {
        Self { prefix: Bytes::new(), io: Io::Dyn(Box::new(stream)) }
    }

    /// Two connected ends in memory, for tests.
    pub fn pair(capacity: usize) -> (Self, Self) {
        let (a, b) = tokio::io::duplex(capacity);
        (a.into(), b.into())
    }

    /// Puts `bytes` in front of what will be read.
    pub fn unread(&mut self, bytes: Bytes) {
        if self.prefix.is_empty() {
            self.prefix = bytes;
        } else if !bytes.is_empty() {
            self.prefix = [bytes, std::mem::take(&mut self.prefix)].concat().into();
        }
    }

    /// The TCP socket at the bottom, if there is one.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match &self.io {
            Io::Tcp(stream) => Some(stream),
            Io::Tls(stream) => stream.io().tcp(),
            Io::Unix(_) | Io::Duplex(_) | Io::Dyn(_) => None,
        }
    }

    pub fn peer_addr(&self) -> Address {
        self.tcp().and_then(|tcp| tcp.peer_addr().ok()).map_or(Address::Unnamed, |a| Address::Socket(unmapped(a)))
    }

    pub fn local_addr(&self) -> Address {
        self.tcp().and_then(|tcp| tcp.local_addr().ok()).map_or(Address::Unnamed, |a| Address::Socket(unmapped(a)))
    }

    /// The TLS session this side serves.
    pub fn server_tls(&self) -> Option<&CommonState> {
        self.tls().filter(|tls| tls.is_server()).map(TlsStream::session)
    }

    /// The TLS session this side opened.
    pub fn client_tls(&self) -> Option<&CommonState> {
        self.tls().filter(|tls| !tls.is_server()).map(TlsStream::session)
    }

    /// The negotiated application protocol.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.tls()?.session().alpn_protocol()
    }

    #[cfg(test)]
    pub(crate) fn tls_mut(&mut self) -> Option<&mut TlsStream> {
        match &mut self.io {
            Io::Tls(stream) => Some(stream),
            Io::Tcp(_) | Io::Unix(_) | Io::Duplex(_) | Io::Dyn(_) => None,
        }
    }

    fn tls(&self) -> Option<&TlsStream> {
        match &self.io {
            Io::Tls(stream) => Some(stream),
            Io::Tcp(_) | Io::Unix(_) | Io::Duplex(_) | Io::Dyn(_) => None,
        }
    }

    /// Nothing has arrived, the end included. False where only a read can tell.
    pub fn is_quiet(&self) -> bool {
        match &self.io {
            // Asks what the event loop has seen: no system call, no waker.
            Io::Tcp(tcp) => self.prefix.is_empty() && tcp.try_io(Interest::READABLE, || Ok(())).is_err(),
            Io::Tls(tls) => self.prefix.is_empty() && tls.is_quiet(),
            Io::Unix(_) | Io::Duplex(_) | Io::Dyn(_) => false,
        }
    }

    /// Pending while a read would find nothing, where the event loop knows; the task is woken when that changes.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.io {
            Io::Tcp(tcp) if self.prefix.is_empty() => tcp.poll_read_ready(cx).map(|_| ()),
            Io::Tls(tls) if self.prefix.is_empty() => tls.poll_readable(cx),
            Io::Tcp(_) | Io::Unix(_) | Io::Duplex(_) | Io::Tls(_) | Io::Dyn(_) => Poll::Ready(()),
        }
    }

    /// Makes the close of a TCP socket a reset, as Envoy does for connections that must not linger.
    pub fn reset_on_close(&self) {
        if let Some(tcp) = self.tcp() {
            let _ = socket2::SockRef::from(tcp).set_linger(Some(std::time::Duration::ZERO));
        }
    }
}

/// An IPv4 peer of a dual-stack socket, as IPv4.
pub fn unmapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::from((v4, v6.port())),
            None => address,
        },
        SocketAddr::V4(_) => address,
    }
}

macro_rules! from_io {
    ($($from:ty => $variant:ident),* $(,)?) => {$(
        impl From<$from> for Stream {
            fn from(io: $from) -> Self {
                Self { prefix: Bytes::new(), io: Io::$variant(io.into()) }
            }
        }
    )*};
}

from_io! {
    TcpStream => Tcp,
    UnixStream => Unix,
    DuplexStream => Duplex,
    TlsStream => Tls,
}

macro_rules! dispatch {
    ($self:ident, $io:ident => $call:expr) => {
        match &mut $self.get_mut().io {
            Io::Tcp($io) => $call,
            Io::Unix($io) => $call,
            Io::Duplex($io) => $call,
            Io::Tls($io) => $call,
            Io::Dyn($io) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.prefix.is_empty() {
            let n = self.prefix.len().min(buf.remaining());
            buf.put_slice(&self.prefix[..n]);
            self.prefix.advance(n);
            if self.prefix.is_empty() {
                // An empty piece would still hold the buffer that it is of, for as long as the connection lives.
                self.prefix = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        dispatch!(self, io => Pin::new(io).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        dispatch!(self, io => Pin::new(io).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        dispatch!(self, io => Pin::new(io).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Tcp(io) => io.is_write_vectored(),
            Io::Unix(io) => io.is_write_vectored(),
            Io::Duplex(io) => io.is_write_vectored(),
            Io::Tls(io) => io.is_write_vectored(),
            Io::Dyn(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        dispatch!(self, io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        dispatch!(self, io => Pin::new(io).poll_shutdown(cx))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn bytes_put_back_are_let_go_of_once_they_are_read() {
        let (mut stream, _peer) = Stream::pair(16);
        let sniffed = Bytes::from(b"GET /".to_vec());
        stream.unread(sniffed.clone());
        let mut seen = [0; 5];
        stream.read_exact(&mut seen).await.unwrap();
        assert_eq!(&seen, b"GET /");
        assert!(sniffed.is_unique(), "the connection still holds the buffer");
    }
}
