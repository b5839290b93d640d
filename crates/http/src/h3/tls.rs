//! TLS under QUIC: which configuration a client is served with, decided when its ClientHello is there.
//!
//! quinn wants the configuration when the first packet comes, before anyone has read the name that the client asks for. So its
//! session here holds the ClientHello back until it is whole, asks a [`Choose`], and is rustls's from then on.

use std::{any::Any, io::Cursor, sync::Arc};

use meltemi_net::sniff::{self, ClientHello};
use quinn_proto::{
    ConnectionId, Side, TransportError, TransportErrorCode,
    crypto::{self, HeaderKey, KeyPair, Keys, PacketKey, UnsupportedVersion, rustls::QuicServerConfig},
    transport_parameters::TransportParameters,
};
use rustls::{
    AlertDescription, CipherSuite, ServerConfig,
    pki_types::CertificateDer,
    quic::{KeyChange, Secrets, ServerConnection, Version},
};

/// QUIC version 1 (RFC 9000).
pub const VERSION_1: u32 = 1;

/// What a client is served with.
#[derive(Clone)]
pub struct Choice {
    pub config: Arc<ServerConfig>,
    /// The chooser's own name for it, given back in [`Handshake`].
    pub index: Option<usize>,
}

/// Finds what a client is served with; `None` refuses it (`unrecognized_name`).
pub trait Choose: Send + Sync {
    fn choose(&self, hello: &ClientHello) -> Option<Choice>;
}

/// What a handshake came to.
#[derive(Clone, Debug)]
pub struct Handshake {
    pub index: Option<usize>,
    /// Lower case.
    pub server_name: Option<String>,
    pub alpn: Option<Vec<u8>>,
    pub cipher: Option<CipherSuite>,
    /// The client's, leaf first; verified.
    pub certificates: Option<Vec<CertificateDer<'static>>>,
}

/// The part of TLS that needs no choice: keys of first packets, and what a Retry is signed with.
pub struct Common(pub Arc<QuicServerConfig>);

/// Serves a client by what [`Choose`] says.
pub struct Chosen {
    pub common: Arc<Common>,
    pub choose: Arc<dyn Choose>,
}

impl crypto::ServerConfig for Chosen {
    fn initial_keys(&self, version: u32, id: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        crypto::ServerConfig::initial_keys(&*self.common.0, version, id)
    }

    fn retry_tag(&self, version: u32, id: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        crypto::ServerConfig::retry_tag(&*self.common.0, version, id, packet)
    }

    fn start_session(self: Arc<Self>, version: u32, parameters: &TransportParameters) -> Box<dyn crypto::Session> {
        let mut encoded = Vec::new();
        parameters.write(&mut encoded);
        let state = State::Hello { bytes: Vec::new(), parameters: encoded };
        Box::new(Session { config: self, version, state, next: None, told: false })
    }
}

enum State {
    /// What there is of the ClientHello, and our transport parameters.
    Hello {
        bytes: Vec<u8>,
        parameters: Vec<u8>,
    },
    Running {
        tls: Box<ServerConnection>,
        index: Option<usize>,
        hello: ClientHello,
    },
}

struct Session {
    config: Arc<Chosen>,
    version: u32,
    state: State,
    next: Option<Secrets>,
    /// quinn was told once that there is something to tell.
    told: bool,
}

impl Session {
    fn tls(&self) -> Option<&ServerConnection> {
        match &self.state {
            State::Hello { .. } => None,
            State::Running { tls, .. } => Some(tls),
        }
    }

    fn tls_mut(&mut self) -> Option<&mut ServerConnection> {
        match &mut self.state {
            State::Hello { .. } => None,
            State::Running { tls, .. } => Some(tls),
        }
    }

    /// Collects the ClientHello, and begins once it is whole.
    fn collect(&mut self, more: &[u8]) -> Result<(), TransportError> {
        let State::Hello { bytes, parameters } = &mut self.state else { return Ok(()) };
        bytes.extend_from_slice(more);
        if bytes.len() > sniff::MAX_CLIENT_HELLO {
            return Err(alert(AlertDescription::DecodeError, "ClientHello too long"));
        }
        let Some(hello) = sniff::handshake_hello(bytes) else { return Ok(()) };
        let hello = hello.ok_or_else(|| alert(AlertDescription::DecodeError, "malformed ClientHello"))?;
        let choice = self
            .config
            .choose
            .choose(&hello)
            .ok_or_else(|| alert(AlertDescription::UnrecognisedName, "no filter chain"))?;
        let (bytes, parameters) = (std::mem::take(bytes), std::mem::take(parameters));
        let tls = ServerConnection::new(choice.config, Version::V1, parameters)
            .map_err(|_| alert(AlertDescription::ProtocolVersion, "no TLS 1.3"))?;
        self.state = State::Running { tls: Box::new(tls), index: choice.index, hello };
        self.feed(&bytes)
    }

    fn feed(&mut self, bytes: &[u8]) -> Result<(), TransportError> {
        let Some(tls) = self.tls_mut() else { return Ok(()) };
        tls.read_hs(bytes).map_err(|error| {
            let description = tls.alert().unwrap_or(AlertDescription::InternalError);
            alert(description, &error.to_string())
        })
    }
}

fn alert(description: AlertDescription, reason: &str) -> TransportError {
    let code = TransportErrorCode::crypto(description.into());
    TransportError { code, frame: None, reason: reason.to_owned() }
}

fn pair(keys: rustls::quic::Keys) -> Keys {
    Keys {
        header: KeyPair { local: Box::new(keys.local.header), remote: Box::new(keys.remote.header) },
        packet: KeyPair { local: Box::new(keys.local.packet), remote: Box::new(keys.remote.packet) },
    }
}

impl crypto::Session for Session {
    fn initial_keys(&self, id: &ConnectionId, _side: Side) -> Keys {
        crypto::ServerConfig::initial_keys(&*self.config, self.version, id)
            .unwrap_or_else(|_| unreachable!("a session begins after its version was taken"))
    }

    fn handshake_data(&self) -> Option<Box<dyn Any>> {
        let State::Running { tls, index, hello } = &self.state else { return None };
        let certificates = tls.peer_certificates();
        Some(Box::new(Handshake {
            index: *index,
            server_name: hello.server_name.clone(),
            alpn: tls.alpn_protocol().map(<[u8]>::to_vec),
            cipher: tls.negotiated_cipher_suite().map(|suite| suite.suite()),
            certificates: certificates.map(|all| all.iter().map(|one| one.clone().into_owned()).collect()),
        }))
    }

    fn peer_identity(&self) -> Option<Box<dyn Any>> {
        None
    }

    /// Requests that another could repeat are not taken.
    fn early_crypto(&self) -> Option<(Box<dyn HeaderKey>, Box<dyn PacketKey>)> {
        None
    }

    fn early_data_accepted(&self) -> Option<bool> {
        None
    }

    fn is_handshaking(&self) -> bool {
        self.tls().is_none_or(|tls| tls.is_handshaking())
    }

    fn read_handshake(&mut self, bytes: &[u8]) -> Result<bool, TransportError> {
        match self.state {
            State::Hello { .. } => self.collect(bytes)?,
            State::Running { .. } => self.feed(bytes)?,
        }
        let first = !self.told && self.tls().is_some();
        self.told |= first;
        Ok(first)
    }

    fn transport_parameters(&self) -> Result<Option<TransportParameters>, TransportError> {
        let Some(encoded) = self.tls().and_then(|tls| tls.quic_transport_parameters()) else { return Ok(None) };
        TransportParameters::read(Side::Server, &mut Cursor::new(encoded)).map(Some).map_err(Into::into)
    }

    fn write_handshake(&mut self, out: &mut Vec<u8>) -> Option<Keys> {
        match self.tls_mut()?.write_hs(out)? {
            KeyChange::Handshake { keys } => Some(pair(keys)),
            KeyChange::OneRtt { keys, next } => {
                self.next = Some(next);
                Some(pair(keys))
            }
        }
    }

    fn next_1rtt_keys(&mut self) -> Option<KeyPair<Box<dyn PacketKey>>> {
        let keys = self.next.as_mut()?.next_packet_keys();
        Some(KeyPair { local: Box::new(keys.local), remote: Box::new(keys.remote) })
    }

    /// Only clients get Retry packets.
    fn is_valid_retry(&self, _id: &ConnectionId, _header: &[u8], _payload: &[u8]) -> bool {
        false
    }

    /// Nobody here asks for any.
    fn export_keying_material(
        &self,
        _out: &mut [u8],
        _label: &[u8],
        _context: &[u8],
    ) -> Result<(), crypto::ExportKeyingMaterialError> {
        Err(crypto::ExportKeyingMaterialError)
    }
}
