//! Opening connections.

use std::{io, net::SocketAddr, sync::OnceLock, time::Duration};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpSocket, UnixStream};

use crate::stream::{Address, Stream};

/// Envoy's `TcpKeepalive`; `None` leaves the kernel's value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keepalive {
    pub probes: Option<u32>,
    pub time: Option<Duration>,
    pub interval: Option<Duration>,
}

impl Keepalive {
    pub(crate) fn apply(self, socket: SockRef<'_>) -> io::Result<()> {
        let mut keepalive = TcpKeepalive::new();
        if let Some(probes) = self.probes {
            keepalive = keepalive.with_retries(probes);
        }
        if let Some(time) = self.time {
            keepalive = keepalive.with_time(time);
        }
        if let Some(interval) = self.interval {
            keepalive = keepalive.with_interval(interval);
        }
        socket.set_tcp_keepalive(&keepalive)
    }
}

/// How to open a connection. The default is a plain socket with `TCP_NODELAY`.
#[derive(Clone, Debug, Default)]
pub struct ConnectOptions {
    /// Whole time allowed; `None` waits for the kernel.
    pub timeout: Option<Duration>,
    /// Bind to this address first; with `transparent` it need not be local.
    pub source: Option<SocketAddr>,
    pub transparent: bool,
    pub mark: Option<u32>,
    pub keepalive: Option<Keepalive>,
}

static PROCESS_MARK: OnceLock<u32> = OnceLock::new();

/// Marks every connection that this process opens from now on and that asks for no mark itself, so that capture rules leave
/// them alone. The first call counts.
pub fn mark_all_connections(mark: u32) {
    // A second mark would contradict sockets that are open already.
    let _ = PROCESS_MARK.set(mark);
}

/// Connects to `address`. A timeout is `ErrorKind::TimedOut`.
pub async fn connect(address: &Address, options: &ConnectOptions) -> io::Result<Stream> {
    match options.timeout {
        Some(limit) => tokio::time::timeout(limit, connect_unlimited(address, options))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
        None => connect_unlimited(address, options).await,
    }
}

async fn connect_unlimited(address: &Address, options: &ConnectOptions) -> io::Result<Stream> {
    match address {
        Address::Socket(address) => {
            let stream = socket(*address, options)?.connect(*address).await?;
            stream.set_nodelay(true)?;
            Ok(stream.into())
        }
        Address::Unix(path) => match path.to_string_lossy().strip_prefix('@') {
            Some(name) => {
                use std::os::linux::net::SocketAddrExt;
                let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
                let stream = std::os::unix::net::UnixStream::connect_addr(&address)?;
                stream.set_nonblocking(true)?;
                Ok(UnixStream::from_std(stream)?.into())
            }
            None => Ok(UnixStream::connect(path.as_path()).await?.into()),
        },
        Address::Unnamed => Err(io::Error::new(io::ErrorKind::InvalidInput, "no address to connect to")),
    }
}

fn socket(address: SocketAddr, options: &ConnectOptions) -> io::Result<TcpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if options.transparent {
        // The kernel keeps one flag for both families, and takes this option on an IPv6 socket too.
        socket.set_ip_transparent_v4(true)?;
    }
    if let Some(mark) = options.mark.or(PROCESS_MARK.get().copied()) {
        socket.set_mark(mark)?;
    }
    if let Some(keepalive) = options.keepalive {
        keepalive.apply(SockRef::from(&socket))?;
    }
    if let Some(source) = options.source {
        socket.set_reuse_address(true)?;
        socket.bind(&source.into())?;
    }
    Ok(TcpSocket::from_std_stream(socket.into()))
}
