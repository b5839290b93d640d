//! A UDP socket on which clients arrive.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{Arc, OnceLock},
    time::Duration,
};

use quinn::{EndpointConfig, IdleTimeout, Incoming, ServerConfig, TokioRuntime, TransportConfig, VarInt};
use quinn_proto::crypto::rustls::QuicServerConfig;

use super::{
    Options,
    server::MAX_UNIDIRECTIONAL,
    tls::{Choose, Chosen, Common, Handshake, VERSION_1},
};

/// Clients that wait to be taken or refused; a packet of one more is dropped.
const MAX_WAITING: usize = 1024;
/// Packets held of clients that wait, of one and of all.
const WAITING_BYTES: u64 = 64 * 1024;
const ALL_WAITING_BYTES: u64 = 16 * 1024 * 1024;
/// Bytes of a connection that are sent and not yet acknowledged, or not yet sent.
const SEND_WINDOW: u64 = 4 * 1024 * 1024;
/// What is read of a handshake out of order.
const CRYPTO_BUFFER: usize = 16 * 1024;

/// Needs a tokio runtime, which drives it and the connections that are accepted on it.
pub struct Endpoint {
    quic: quinn::Endpoint,
    common: Arc<Common>,
    server: ServerConfig,
}

impl Endpoint {
    /// `base` is any configuration with TLS 1.3; nobody is served with it.
    pub fn new(socket: UdpSocket, base: Arc<rustls::ServerConfig>) -> io::Result<Self> {
        let common = QuicServerConfig::try_from(base).map_err(io::Error::other)?;
        let common = Arc::new(Common(Arc::new(common)));
        let nobody = Chosen { common: Arc::clone(&common), choose: Arc::new(Nobody) };
        let mut server = ServerConfig::with_crypto(Arc::new(nobody));
        server
            .max_incoming(MAX_WAITING)
            .incoming_buffer_size(WAITING_BYTES)
            .incoming_buffer_size_total(ALL_WAITING_BYTES);
        let quic = quinn::Endpoint::new(config(), Some(server.clone()), socket, Arc::new(TokioRuntime))?;
        Ok(Self { quic, common, server })
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.quic.local_addr()
    }

    /// The next client; `None` once the socket is lost.
    pub async fn accept(&self) -> Option<Arrival> {
        let incoming = self.quic.accept().await?;
        Some(Arrival { incoming, common: Arc::clone(&self.common), server: self.server.clone() })
    }

    /// Takes no more clients. Those that are here are served on the same socket to their ends.
    pub fn close(self) {
        self.quic.set_server_config(None);
    }
}

/// One for the process, so that a packet of a connection that another socket had is answered with a reset which the client believes.
fn config() -> EndpointConfig {
    static CONFIG: OnceLock<EndpointConfig> = OnceLock::new();
    let make = || {
        let mut config = EndpointConfig::default();
        config.supported_versions(vec![VERSION_1]);
        config
    };
    CONFIG.get_or_init(make).clone()
}

struct Nobody;

impl Choose for Nobody {
    fn choose(&self, _hello: &meltemi_net::sniff::ClientHello) -> Option<super::Choice> {
        None
    }
}

/// A client that has sent its first packet.
pub struct Arrival {
    incoming: Incoming,
    common: Arc<Common>,
    server: ServerConfig,
}

impl Arrival {
    pub fn remote(&self) -> SocketAddr {
        self.incoming.remote_address()
    }

    /// The address that the client sent to, where the system says.
    pub fn local_ip(&self) -> Option<IpAddr> {
        self.incoming.local_ip()
    }

    /// The client has shown that it gets what is sent to its address.
    pub fn is_validated(&self) -> bool {
        self.incoming.remote_address_validated()
    }

    pub fn refuse(self) {
        self.incoming.refuse();
    }

    /// Asks the client to try again with a token that proves its address; it costs us no memory.
    pub fn retry(self) {
        if let Err(error) = self.incoming.retry() {
            error.into_incoming().refuse();
        }
    }

    /// The handshake. Not polled, the client is kept waiting.
    pub async fn handshake(mut self, choose: Arc<dyn Choose>, options: &Options) -> io::Result<Established> {
        self.server.crypto = Arc::new(Chosen { common: self.common, choose });
        self.server.transport_config(Arc::new(transport(options)));
        let connecting = self.incoming.accept_with(Arc::new(self.server))?;
        let quic = connecting.await?;
        let handshake = quic.handshake_data().and_then(|data| data.downcast::<Handshake>().ok());
        let handshake = handshake.ok_or_else(|| io::Error::other("a handshake that tells nothing"))?;
        Ok(Established { quic, handshake: *handshake })
    }
}

/// A connection whose handshake is done. Dropped, it is closed.
pub struct Established {
    pub handshake: Handshake,
    pub(super) quic: quinn::Connection,
}

fn transport(options: &Options) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let idle = options.idle_timeout.min(MAX_IDLE);
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(options.max_concurrent_streams))
        .max_concurrent_uni_streams(VarInt::from_u32(MAX_UNIDIRECTIONAL))
        .stream_receive_window(VarInt::from_u32(options.stream_window))
        .receive_window(VarInt::from_u32(options.connection_window))
        .send_window(SEND_WINDOW)
        .crypto_buffer_size(CRYPTO_BUFFER)
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(IdleTimeout::try_from(idle).ok())
        .keep_alive_interval(options.keepalive_interval);
    transport
}

/// What the transport parameter can say with room to spare.
const MAX_IDLE: Duration = Duration::from_secs(365 * 24 * 3600);
