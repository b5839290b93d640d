//! Listening sockets. Each worker binds its own with `SO_REUSEPORT`; the kernel spreads connections by flow hash.

use std::{io, net::SocketAddr, os::fd::AsRawFd, path::Path, sync::Arc};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

use crate::{
    connect::Keepalive,
    stream::{Address, Stream, unmapped},
};

/// How a listener is bound; Envoy's `Listener` fields of the same names.
#[derive(Clone, Debug)]
pub struct ListenOptions {
    pub address: Address,
    pub reuse_port: bool,
    /// `IP_TRANSPARENT`: accept connections for addresses that are not local (TPROXY). Needs CAP_NET_ADMIN.
    pub transparent: bool,
    pub freebind: bool,
    /// Accept IPv4 on an IPv6 wildcard.
    pub ipv4_compat: bool,
    /// `SO_MARK`, inherited by accepted sockets.
    pub mark: Option<u32>,
    pub backlog: u32,
    pub keepalive: Option<Keepalive>,
}

impl ListenOptions {
    pub fn new(address: Address) -> Self {
        Self {
            address,
            reuse_port: true,
            transparent: false,
            freebind: false,
            ipv4_compat: false,
            mark: None,
            backlog: 4096,
            keepalive: None,
        }
    }
}

enum Inner {
    Tcp(TcpListener),
    Unix(UnixListener, Arc<std::path::PathBuf>),
}

/// A bound listener on the current tokio runtime.
pub struct Listener {
    inner: Inner,
    keepalive: Option<Keepalive>,
}

impl Listener {
    /// Binds and listens. An option that the kernel refuses is an error, never ignored.
    pub fn bind(options: &ListenOptions) -> io::Result<Self> {
        let inner = match &options.address {
            Address::Socket(address) => Inner::Tcp(bind_tcp(*address, options)?),
            Address::Unix(path) => Inner::Unix(bind_unix(path)?, Arc::clone(path)),
            Address::Unnamed => return Err(io::Error::new(io::ErrorKind::InvalidInput, "no address to listen on")),
        };
        Ok(Self { inner, keepalive: options.keepalive })
    }

    pub fn local_addr(&self) -> io::Result<Address> {
        match &self.inner {
            Inner::Tcp(listener) => listener.local_addr().map(Address::Socket),
            Inner::Unix(_, path) => Ok(Address::Unix(Arc::clone(path))),
        }
    }

    /// The next connection and its peer. `TCP_NODELAY` is set, since every write here is a whole message or buffer.
    pub async fn accept(&self) -> io::Result<(Stream, Address)> {
        match &self.inner {
            Inner::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                if let Some(keepalive) = &self.keepalive {
                    keepalive.apply(SockRef::from(&stream))?;
                }
                Ok((stream.into(), Address::Socket(unmapped(peer))))
            }
            Inner::Unix(listener, path) => {
                let (stream, _) = listener.accept().await?;
                Ok((stream.into(), Address::Unix(Arc::clone(path))))
            }
        }
    }

    pub fn raw_fd(&self) -> i32 {
        match &self.inner {
            Inner::Tcp(listener) => listener.as_raw_fd(),
            Inner::Unix(listener, _) => listener.as_raw_fd(),
        }
    }
}

fn bind_tcp(address: SocketAddr, options: &ListenOptions) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(options.reuse_port)?;
    socket.set_nonblocking(true)?;
    set_ip_options(&socket, address, options)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    TcpListener::from_std(socket.into())
}

fn set_ip_options(socket: &Socket, address: SocketAddr, options: &ListenOptions) -> io::Result<()> {
    if address.is_ipv6() {
        socket.set_only_v6(!options.ipv4_compat)?;
    }
    if options.transparent {
        // The kernel keeps one flag for both families, and takes this option on an IPv6 socket too.
        socket.set_ip_transparent_v4(true)?;
    }
    if options.freebind {
        if address.is_ipv6() { socket.set_freebind_v6(true)? } else { socket.set_freebind_v4(true)? }
    }
    if let Some(mark) = options.mark {
        socket.set_mark(mark)?;
    }
    Ok(())
}

/// A bound UDP socket. Options of TCP have no meaning for it.
pub fn bind_udp(options: &ListenOptions) -> io::Result<std::net::UdpSocket> {
    let Address::Socket(address) = options.address else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no address for UDP"));
    };
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_port(options.reuse_port)?;
    socket.set_nonblocking(true)?;
    set_ip_options(&socket, address, options)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    let text = path.to_string_lossy();
    if let Some(name) = text.strip_prefix('@') {
        use std::os::linux::net::SocketAddrExt;
        let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
        let listener = std::os::unix::net::UnixListener::bind_addr(&address)?;
        listener.set_nonblocking(true)?;
        return UnixListener::from_std(listener);
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    UnixListener::bind(path)
}
